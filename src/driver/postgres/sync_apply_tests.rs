//! Rows that come by logical replication: the apply worker writes them as no client does, and the sync follows.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::Database;
use super::sync_tests::{Bed, WRONG, chunk, id, leads};
use crate::clock::Stopwatch;
use crate::driver::SyncState;
use crate::run::Direction;

/// What the subscriber has, with nothing of its own.
const SUBSCRIBER: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text);";
const PUBLISHER: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
    INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n;
    CREATE PUBLICATION leads_p FOR TABLE leads;";
/// How long rows may be on their way.
const ARRIVES_WITHIN_MS: u64 = 60_000;

/// A subscription of one database to the other on the same server, whose slot has to be there before.
struct Subscription<'a> {
    publisher: &'a Database,
    bed: &'a Bed,
    slot: String,
}

impl<'a> Subscription<'a> {
    async fn new(publisher: &'a Database, bed: &'a Bed) -> Self {
        let slot = format!("slot_{}", uuid::Uuid::now_v7().simple());
        publisher
            .run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
            .await;
        bed.run(&format!(
            "CREATE SUBSCRIPTION leads_s CONNECTION '{}' PUBLICATION leads_p
             WITH (create_slot = false, slot_name = '{slot}', copy_data = false)",
            publisher.url
        ))
        .await;
        Self { publisher, bed, slot }
    }

    /// Changes the publisher's rows and waits until the subscriber has them.
    async fn send(&self, script: &str) {
        self.publisher.run(script).await;
        let rows = "SELECT coalesce(string_agg(leads::text, ',' ORDER BY id), '') FROM leads";
        let (expected, since) = (self.publisher.text(rows).await, Stopwatch::start());
        while self.bed.text(rows).await != expected {
            assert!(since.elapsed_ms() < ARRIVES_WITHIN_MS, "{script} did not arrive");
        }
    }

    async fn end(self) {
        self.bed.run("ALTER SUBSCRIPTION leads_s DISABLE").await;
        self.bed.run("ALTER SUBSCRIPTION leads_s SET (slot_name = NONE)").await;
        self.bed.run("DROP SUBSCRIPTION leads_s").await;
        // The worker lets go of the slot when it has ended.
        let since = Stopwatch::start();
        let held = format!(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}' AND active",
            self.slot
        );
        while self.publisher.number(&held).await > 0 {
            assert!(since.elapsed_ms() < ARRIVES_WITHIN_MS, "the slot is held");
        }
        self.publisher.run(&format!("SELECT pg_drop_replication_slot('{}')", self.slot)).await;
    }
}

#[tokio::test]
async fn rows_that_come_by_replication_are_on_the_other_side_too() {
    for direction in [Direction::Forward, Direction::Both] {
        let Some(publisher) = Database::with(PUBLISHER).await else { return };
        let mapping = super::sync_tests::both_leads();
        let Some(bed) = Bed::with(SUBSCRIBER, mapping, direction).await else { return };
        bed.run("INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n")
            .await;
        let subscription = Subscription::new(&publisher, &bed).await;
        for script in [
            "INSERT INTO leads VALUES (20, 'new', 'New')",
            "UPDATE leads SET status = 'Won' WHERE id IN (1, 2)",
            "DELETE FROM leads WHERE id = 3",
            "UPDATE leads SET id = 40 WHERE id = 4",
            "BEGIN; INSERT INTO leads VALUES (50, 'a', 'A'); UPDATE leads SET email = 'b' WHERE id = 50; DELETE FROM leads WHERE id = 5; COMMIT",
        ] {
            subscription.send(script).await;
            assert_eq!(bed.number(WRONG).await, 0, "{direction:?}: {script}");
        }
        subscription.send("TRUNCATE leads").await;
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 0);
        subscription.send("INSERT INTO leads VALUES (60, 'c', 'C')").await;
        assert_eq!(bed.number(WRONG).await, 0);
        assert_eq!((bed.noted().await, bed.state().await), (0, SyncState::Active));
        subscription.end().await;
    }
}

#[tokio::test]
async fn a_trigger_that_sleeps_through_replication_is_noticed() {
    let Some(publisher) = Database::with(PUBLISHER).await else { return };
    let Some(bed) = Bed::with(SUBSCRIBER, leads(), Direction::Forward).await else { return };
    bed.run("INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n").await;
    bed.run(&chunk("true")).await;
    let subscription = Subscription::new(&publisher, &bed).await;
    let trigger = format!("zzzz_phasegate_{}_a", id(&leads()));
    bed.run(&format!(
        "ALTER TABLE leads DISABLE TRIGGER {trigger}; ALTER TABLE leads ENABLE TRIGGER {trigger}"
    ))
    .await;
    subscription.send("UPDATE leads SET status = 'Won' WHERE id = 1").await;
    assert_eq!(bed.number(WRONG).await, 2, "nobody has followed");
    let state = bed.state().await;
    assert!(
        matches!(&state, SyncState::Broken(why) if why.contains("does not fire for replication")),
        "{state:?}"
    );
    // Enabled as the catalogue check says it follows what comes from then on.
    bed.run(&format!("ALTER TABLE leads ENABLE ALWAYS TRIGGER {trigger}")).await;
    assert_eq!(bed.state().await, SyncState::Active);
    subscription.send("UPDATE leads SET status = 'Lost' WHERE id IN (1, 2)").await;
    assert_eq!(bed.number(WRONG).await, 0);
    subscription.end().await;
}

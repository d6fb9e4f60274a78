//! What putting aside and taking back rest on: that both sides were compared under the sync that still is, and that nothing was
//! written since by anybody.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{Database, mapping, work};
use super::retirable::Retiring;
use super::retire_tests::{Live, failure, whole};
use crate::driver::{Applied, Error, Losses, Retirer as _, SyncState, Verifier as _, Work};
use crate::run::{
    Digest, Direction, FailureClass, Mapping, Permit, Redact, Retire, RetireShape, Way,
};

const TABLES: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, email text);
    CREATE TABLE leads_v2 (id int PRIMARY KEY, email text);";

fn leads() -> Mapping {
    mapping(("leads", &["id"]), ("leads_v2", &["id"]))
}

/// Switches all triggers of a table off, and on again as they were made.
async fn off_and_on(database: &Database, table: &str) {
    let on = format!(
        "ALTER TABLE {table} DISABLE TRIGGER USER;
         DO $$ DECLARE name text; BEGIN
           FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND NOT tgisinternal LOOP
             EXECUTE format('ALTER TABLE {table} ENABLE ALWAYS TRIGGER %I', name); END LOOP; END $$"
    );
    database.run(&on).await;
}

impl Live {
    async fn compared(&self, mapping: &Mapping) -> Digest {
        self.postgres.basis(mapping).await.unwrap().of_sync()
    }

    async fn retire_compared(&self, under: &Digest) -> Result<Applied, Error> {
        let work = Work { compared_under: Some(under.clone()), ..work("retire", Way::Forward) };
        let retire = Retire::of(&self.mapping, &whole(true));
        self.postgres.retire(&self.fence, &work, &self.mapping, self.direction, &retire).await
    }

    async fn drop_compared(&self, under: &Digest) -> Result<Applied, Error> {
        let work = Work { compared_under: Some(under.clone()), ..work("drop", Way::Forward) };
        let permit = Permit::for_test("drop");
        self.postgres.drop_retired(&self.fence, &work, &self.mapping, &whole(true), permit).await
    }
}

#[tokio::test]
async fn what_was_compared_under_another_sync_is_neither_put_aside_nor_dropped() {
    for direction in [Direction::Forward, Direction::Both] {
        let Some(live) = Live::of(TABLES, leads(), direction).await else { return };
        let database = &live.database;
        let compared = live.compared(&live.mapping).await;
        off_and_on(database, "leads").await;
        assert_eq!(live.sync().await, SyncState::Active);
        let (class, message) = failure(live.retire_compared(&compared).await);
        assert_eq!(class, FailureClass::Stale, "{message}");
        assert!(message.contains("since both sides were compared"), "{message}");
        assert_eq!(database.text("SELECT to_regclass('leads_old')").await, "NULL");
        assert_eq!(live.sync().await, SyncState::Active);
        live.retire_compared(&live.compared(&live.mapping).await).await.unwrap();
        if direction == Direction::Both {
            let after = live.mapping.retired(&whole(true));
            let compared = live.compared(&after).await;
            off_and_on(database, "leads_old").await;
            let (class, message) = failure(live.drop_compared(&compared).await);
            assert_eq!(class, FailureClass::Stale, "{message}");
            assert_eq!(database.text("SELECT to_regclass('leads_old')").await, "leads_old");
            live.drop_compared(&live.compared(&after).await).await.unwrap();
        }
    }
}

#[tokio::test]
async fn rows_that_only_the_new_side_was_told_of_are_named() {
    let Some(live) = Live::of(TABLES, leads(), Direction::Forward).await else { return };
    live.database.run("INSERT INTO leads SELECT n, 'e' || n FROM generate_series(1, 9) n").await;
    live.retire(&whole(true)).await.unwrap();
    let (class, message) = {
        live.database.run("INSERT INTO leads VALUES (50, 'late')").await;
        failure(live.unretire(&whole(true), Losses::Refused).await)
    };
    assert_eq!(class, FailureClass::Unsafe);
    let one = "0 rows are missing there, 1 are only there, 0 differ; its key: 50 | ";
    assert!(message.ends_with(one), "{message}");

    live.database
        .run("INSERT INTO leads SELECT n, 'late' FROM generate_series(51, 56) n; UPDATE leads SET email = 'x' WHERE id = 7;
              DELETE FROM leads WHERE id = 3")
        .await;
    let refused = live.unretire(&whole(true), Losses::Refused).await.unwrap_err();
    let counts = "1 rows are missing there, 7 are only there, 1 differ; ";
    for (redact, keys) in [
        (Redact::Values, "5 of their keys: 3; 7; 50; 51; 52"),
        (Redact::Keys, "their keys: (redacted)"),
    ] {
        let said = refused.clone().redacted(redact).to_string();
        assert!(said.ends_with(&format!("{counts}{keys}")), "{redact:?}: {said}");
    }
    let Error::Failed(failure) = refused else { panic!() };
    let help = failure.help.unwrap();
    assert!(
        help.starts_with("`phasegate rollback RUN --accept-loss leads` gives them up"),
        "{help}"
    );
    live.unretire(&whole(true), Losses::Accepted).await.unwrap();
    assert_eq!(live.database.number("SELECT count(*) FROM leads").await, 9);
}

/// No trigger for rows fires for the rows that a partition brings or takes along, nor while it is switched off.
#[tokio::test]
async fn what_no_trigger_tells_of_while_both_sides_are_compared_is_seen_under_the_lock() {
    for last in [
        "ALTER TABLE leads DETACH PARTITION first; UPDATE first SET email = email; ALTER TABLE leads ATTACH PARTITION first FOR VALUES FROM (0) TO (1000)",
        "ALTER TABLE leads DISABLE TRIGGER USER; ALTER TABLE leads ENABLE TRIGGER USER",
    ] {
        seen_under_the_lock(last).await;
    }
}

/// The last of what is done cannot be undone.
async fn seen_under_the_lock(last: &str) {
    let setup = "CREATE TABLE leads (id int PRIMARY KEY, email text);
        CREATE TABLE leads_v2 (id int PRIMARY KEY, email text) PARTITION BY RANGE (id);
        CREATE TABLE first PARTITION OF leads_v2 FOR VALUES FROM (0) TO (1000);
        CREATE TABLE away (id int PRIMARY KEY, email text);";
    let Some(live) = Live::of(setup, leads(), Direction::Forward).await else { return };
    let database = &live.database;
    database.run("INSERT INTO leads SELECT n, 'e' || n FROM generate_series(1, 9) n").await;
    let shape: RetireShape = whole(true);
    live.retire(&shape).await.unwrap();
    let what =
        Retiring { mapping: &live.mapping, direction: live.direction, shape: &shape, known: &[] };
    let after = live.mapping.retired(&shape);
    for (statement, counts) in [
        ("VACUUM ANALYZE leads", false),
        ("CREATE INDEX ON leads (email)", false),
        ("CREATE TABLE later PARTITION OF leads FOR VALUES FROM (1000) TO (2000)", true),
        ("DROP TABLE later", true),
        (
            "INSERT INTO away VALUES (3000, 'x'); ALTER TABLE leads ATTACH PARTITION away FOR VALUES FROM (3000) TO (4000);
             ALTER TABLE leads DETACH PARTITION away",
            // It took its rows along again.
            false,
        ),
        (last, true),
    ] {
        let basis = live.postgres.compare_aside(&live.fence, &what).await.unwrap();
        assert!(!live.is_written(&after, Some(&basis)).await, "before {statement}");
        database.run(statement).await;
        assert_eq!(live.is_written(&after, Some(&basis)).await, counts, "{statement}");
    }
    // As it was made again, it may have missed something: of what both sides have the comparison tells, of the rest nothing does.
    database
        .run(
            "DO $$ DECLARE t record; BEGIN FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'leads'::regclass
               AND tgname LIKE 'phasegate%' LOOP EXECUTE format('ALTER TABLE leads ENABLE ALWAYS TRIGGER %I', t.tgname); END LOOP; END $$",
        )
        .await;
    database.run("ALTER TABLE leads ATTACH PARTITION away FOR VALUES FROM (3000) TO (4000)").await;
    let (class, message) = failure(live.unretire(&shape, Losses::Refused).await);
    assert_eq!(class, FailureClass::Unsafe);
    assert!(message.contains("1 are only there, 0 differ; its key: 3000"), "{message}");
    database.run("ALTER TABLE leads DETACH PARTITION away").await;
    let (class, message) = failure(live.unretire(&shape, Losses::Refused).await);
    assert_eq!(class, FailureClass::Unsafe);
    assert!(message.contains("on first was made anew, or switched off and on again"), "{message}");
    live.unretire(&shape, Losses::Accepted).await.unwrap();
    assert_eq!(live.sync().await, SyncState::Active);
}

//! Rows that are parked when a sync ends or a side is put aside or dropped: what was committed is not lost with it.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{mapping, work};
use super::retire_tests::{Live, failure, whole};
use super::sync_tests::say;
use crate::driver::{DualWriter as _, Parker as _, SyncState, Work, given_up};
use crate::run::{Direction, FailureClass, Mapping, Parking, Way};

const TABLES: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, n text);
    CREATE TABLE leads_v2 (id int PRIMARY KEY, n int);";

fn leads() -> Mapping {
    Mapping {
        columns: vec![("n".into(), "n::int".into())],
        parking: Parking { rows_max: Some(9), writes: true },
        ..mapping(("leads", &["id"]), ("leads_v2", &["id"]))
    }
}

/// Who asks for the lock has seen before that nothing was parked; whoever had it then may have parked since.
#[tokio::test]
async fn what_was_parked_before_the_lock_was_had_keeps_the_sync_alive() {
    let Some(live) = Live::of(TABLES, leads(), Direction::Forward).await else { return };
    let database = &live.database;
    database.run("INSERT INTO leads VALUES (1, '1'), (2, '2')").await;
    database.run("UPDATE leads SET n = 'seven' WHERE id = 2").await;
    let (class, message) = failure(live.retire(&whole(true)).await);
    assert_eq!(class, FailureClass::Contention, "{message}");
    assert!(message.contains("1 row of mapping leads parked just now"), "{message}");
    let stop = async |work: &Work| {
        live.postgres.remove(&live.fence, work, &live.mapping, live.direction).await
    };
    let (class, message) = failure(stop(&work("stop", Way::Forward)).await);
    assert_eq!(class, FailureClass::Contention, "{message}");
    assert_eq!(live.sync().await, SyncState::Active);
    assert_eq!(database.number("SELECT n FROM leads_v2 WHERE id = 2").await, 2);
    database.run("UPDATE leads SET n = '7' WHERE id = 2").await;
    let left = live.postgres.retry_parked(&live.fence, &live.mapping, live.direction).await;
    assert_eq!(left.unwrap(), 0);
    live.retire(&whole(true)).await.unwrap();
    assert_eq!(database.number("SELECT n FROM leads WHERE id = 2").await, 7);
    database.gone().await;

    // Where the run is given up the old side has everything.
    let Some(live) = Live::of(TABLES, leads(), Direction::Forward).await else { return };
    live.database.run("INSERT INTO leads VALUES (2, 'seven')").await;
    let work = Work { step: given_up(&"sync".into()), ..work("sync", Way::Forward) };
    live.postgres.remove(&live.fence, &work, &live.mapping, live.direction).await.unwrap();
    assert_eq!(live.ours_left().await, 0);
    live.database.gone().await;
}

/// With `both` the sync goes with the old table.
#[tokio::test]
async fn what_is_parked_while_the_last_notes_are_put_right_is_not_dropped() {
    let setup = "
        CREATE TABLE leads (id int PRIMARY KEY, email text);
        CREATE TABLE leads_v2 (id int PRIMARY KEY, email text UNIQUE, extra text);";
    let parking = Parking { rows_max: Some(9), writes: false };
    let of = Mapping { parking, ..mapping(("leads", &["id"]), ("leads_v2", &["id"])) };
    let Some(live) = Live::of(setup, of, Direction::Both).await else { return };
    let database = &live.database;
    database.run("INSERT INTO leads SELECT n, 'e' || n FROM generate_series(1, 5) n").await;
    live.retire(&whole(true)).await.unwrap();
    let mut client = database.client().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM leads_old";
    say(&mut client, begin).await.unwrap();
    database.run("UPDATE leads SET extra = 'x' WHERE id = 3").await;
    let write = "UPDATE leads_old SET email = 'e5' WHERE id = 3; COMMIT";
    say(&mut client, write).await.unwrap();
    for _ in 0..2 {
        let (class, message) = failure(live.drop(&whole(true)).await);
        assert_eq!(class, FailureClass::Contention, "{message}");
        assert!(message.contains("1 row of mapping leads parked just now"), "{message}");
        assert_eq!(database.text("SELECT email FROM leads_old WHERE id = 3").await, "e5");
    }
    let after = live.mapping.retired(&whole(true));
    let left = async || live.postgres.retry_parked(&live.fence, &after, Direction::Both).await;
    assert_eq!(left().await.unwrap(), 1);
    database.run("UPDATE leads_old SET email = 'free' WHERE id = 3").await;
    assert_eq!(left().await.unwrap(), 0);
    live.drop(&whole(true)).await.unwrap();
    assert_eq!(database.text("SELECT email FROM leads WHERE id = 3").await, "free");
    database.gone().await;
}

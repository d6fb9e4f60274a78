//! Clients that hold rows in an order of their own, and wait for rows of ours: it is we who yield, however many waits there are.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use sqlx::postgres::PgConnection;

use super::fixture::work;
use super::sync_tests::{Bed, WRONG, chunk, id, leads, say};
use crate::driver::{Sink as _, Source as _, Window};
use crate::run::{Direction, FailureClass, Way};

const TABLES: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text DEFAULT 'new');
    INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n;";

/// How many sessions wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()";

/// As the engine rests between tries: whoever waited for our rows gets them meanwhile.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Three clients hold a row each, and another one the last row.
async fn hold(bed: &Bed) -> (Vec<PgConnection>, PgConnection) {
    let mut holders = Vec::new();
    for row in [3, 5, 7, 9] {
        let mut client = bed.client().await;
        let lock = format!("BEGIN; SELECT FROM leads WHERE id = {row} FOR UPDATE");
        say(&mut client, &lock).await.unwrap();
        holders.push(client);
    }
    let last = holders.pop().unwrap();
    (holders, last)
}

/// When somebody waits for them, the three give their rows up one by one, before the one who comes to it has waited for long; and
/// the other one wants the first row. Whether that one was told of a deadlock.
async fn hot_rows(
    bed: &Bed,
    (hot, mut last): (Vec<PgConnection>, PgConnection),
) -> Result<(), sqlx::Error> {
    while bed.number(WAITING).await == 0 {}
    let wants = async {
        let wanted = say(&mut last, "SELECT FROM leads WHERE id = 1 FOR UPDATE").await;
        say(&mut last, "ROLLBACK").await.unwrap();
        wanted
    };
    let give_up = async {
        for mut client in hot {
            tokio::time::sleep(Duration::from_millis(260)).await;
            say(&mut client, "ROLLBACK").await.unwrap();
        }
    };
    tokio::join!(wants, give_up).0
}

#[tokio::test]
async fn no_client_is_told_of_a_deadlock_by_keys_that_are_put_right() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    bed.run(&format!(
        "UPDATE leads_v2 SET email = 'stale'; INSERT INTO phasegate.touched_{} SELECT generate_series(1, 9)",
        id(&bed.mapping)
    ))
    .await;
    let held = hold(&bed).await;
    let settled = async {
        loop {
            match crate::driver::DualWriter::settle(&bed.postgres, &bed.fence, &bed.mapping).await {
                Err(error) if error.class() == Some(FailureClass::Contention) => rest().await,
                other => return other,
            }
        }
    };
    let (left, client) = tokio::join!(settled, hot_rows(&bed, held));
    client.unwrap();
    assert_eq!(left, Ok(0));
    assert_eq!(bed.number(WRONG).await, 0);
    bed.database.gone().await;
}

#[tokio::test]
async fn no_client_is_told_of_a_deadlock_by_a_chunk() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    let fence = bed.fence.clone();
    let step = work("copy", Way::Forward);
    let window = Window { rows: 100, count: 1, is_fixed: true };
    let planned = bed.postgres.plan_chunks(&fence, &step, &bed.mapping, window).await.unwrap();
    let held = hold(&bed).await;
    let copied = async {
        loop {
            let direction = bed.direction;
            let chunk = &planned.open[0];
            match bed.postgres.copy_chunk(&fence, &step, &bed.mapping, direction, chunk).await {
                Err(error) if error.class() == Some(FailureClass::Contention) => rest().await,
                other => return other.unwrap(),
            }
        }
    };
    let (copied, client) = tokio::join!(copied, hot_rows(&bed, held));
    client.unwrap();
    assert_eq!((copied.rows_read, copied.rows_written), (9, 9));
    assert_eq!(bed.number(WRONG).await, 0);
    bed.database.gone().await;
}

#[tokio::test]
async fn a_chunk_whose_own_work_takes_longer_than_it_may_wait_is_copied_all_the_same() {
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END';
        CREATE TRIGGER slow BEFORE INSERT ON leads_v2 FOR EACH ROW EXECUTE FUNCTION slow()";
    let Some(bed) = Bed::with(&format!("{TABLES} {slow}"), leads(), Direction::Forward).await
    else {
        return;
    };
    let fence = bed.fence.clone();
    let step = work("copy", Way::Forward);
    let window = Window { rows: 100, count: 1, is_fixed: true };
    let planned = bed.postgres.plan_chunks(&fence, &step, &bed.mapping, window).await.unwrap();
    let chunk = &planned.open[0];
    let copied = bed.postgres.copy_chunk(&fence, &step, &bed.mapping, bed.direction, chunk).await;
    assert_eq!(copied.unwrap().rows_written, 9);
    bed.run(&format!(
        "UPDATE leads_v2 SET email = 'stale'; DELETE FROM leads_v2 WHERE id < 9; INSERT INTO phasegate.touched_{} SELECT generate_series(1, 9)",
        id(&bed.mapping)
    ))
    .await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number(WRONG).await, 0);
    bed.database.gone().await;
}

//! A run from end to end through the driver's traits alone, with a client that writes all the while and a takeover in the
//! middle of the copy.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::fixture::{Database, claim, head, mapping, script, work};
use crate::copy::chunk::{Chunk, Walk};
use crate::driver::{Access, Error, Fence, SharedDriver, SyncState, Window, open};
use crate::run::{
    Direction, Ending, Engine, FailureClass, Mapping, Permit, Retire, RetireShape, Runnable, Way,
};

const SCHEMA: &str = "PRAGMA journal_mode = wal;
    CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, status TEXT);
    INSERT INTO leads WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000)
        SELECT x, 'e' || x, CASE x % 2 WHEN 0 THEN 'OPEN' END FROM c;";

fn leads() -> Mapping {
    let mut mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    mapping.columns = vec![("status_code".into(), "lower(status)".into())];
    mapping
}

/// Writes to the old table until told to stop: a little of everything, at keys all over.
async fn write(mut client: SqliteConnection, is_done: Arc<AtomicBool>, rounds: Arc<AtomicU64>) {
    while !is_done.load(Ordering::Acquire) {
        let round = rounds.load(Ordering::Acquire) + 1;
        let at = round * 7919 % 5000 + 1;
        let statement = match round % 5 {
            0 => format!("DELETE FROM leads WHERE id = {at}"),
            1 => format!("UPDATE leads SET status = 'R{round}' WHERE id = {at}"),
            2 => format!("INSERT INTO leads VALUES ({}, 'n{round}', 'New')", 10_000 + round),
            3 => format!("INSERT OR REPLACE INTO leads VALUES ({}, 'e{at}', NULL)", 20_000 + round),
            _ => format!("UPDATE OR IGNORE leads SET id = {} WHERE id = {at}", 30_000 + round),
        };
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut client).await.unwrap();
        rounds.store(round, Ordering::Release);
        tokio::task::yield_now().await;
    }
    client.close().await.unwrap();
}

/// Waits until the client has written so many times more.
async fn written(rounds: &AtomicU64, more: u64) {
    let wanted = rounds.load(Ordering::Acquire) + more;
    while rounds.load(Ordering::Acquire) < wanted {
        tokio::task::yield_now().await;
    }
}

/// Tries again while another writer is in the way, as the engine does.
async fn again<T, F: Future<Output = Result<T, Error>>>(mut attempt: impl FnMut() -> F) -> T {
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Copies until `chunks_max` chunks were copied, or the copy is complete.
async fn copy(driver: &SharedDriver, fence: &Fence, chunks_max: usize) -> bool {
    let (mapping, step) = (leads(), work("copy", Way::Forward));
    let size = Window { rows: 150, count: 3, is_fixed: true };
    let mut copied = 0;
    loop {
        let state = again(|| driver.plan_chunks(fence, &step, &mapping, size)).await;
        if state.open.is_empty() && matches!(state.walk, Walk::Ended { .. }) {
            return true;
        }
        for chunk in &state.open {
            if copied == chunks_max {
                return false;
            }
            let forward = Direction::Forward;
            again(|| driver.copy_chunk(fence, &step, &mapping, forward, chunk)).await;
            copied += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_from_end_to_end_under_a_writing_client() {
    let database = Database::with(SCHEMA).await;
    let url = database.url("").into();
    let first = open(Engine::Sqlite, &url, None, Access::Full).await.unwrap();
    let fences = first.enter(&claim("r1"), 1).await.unwrap();
    let expand =
        script(&["CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE,
        status TEXT, status_code TEXT)"]);
    let step = work("expand", Way::Forward);
    let run = Runnable::new(&step.step, &expand, None).unwrap();
    first.execute(&fences[0], &step, run).await.unwrap();
    let (mapping, forward) = (leads(), Direction::Forward);
    first.install(&fences[0], &work("sync", Way::Forward), &mapping, forward).await.unwrap();

    let is_done = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let client = database.client().await;
    let client = tokio::spawn(write(client, Arc::clone(&is_done), Arc::clone(&rounds)));
    written(&rounds, 50).await;
    assert!(!copy(&first, &fences[1], 10).await);
    written(&rounds, 50).await;

    let driver = open(Engine::Sqlite, &url, None, Access::Full).await.unwrap();
    let ours = claim("r1");
    let newer = again(|| driver.enter(&ours, 2)).await;
    let step = work("late", Way::Forward);
    let late = || async {
        match first.finish_copy(&fences[0], &step).await {
            Err(Error::Fenced { ours, newest }) => Ok((ours, newest)),
            Err(error) => Err(error),
            Ok(applied) => panic!("{applied:?} under an old token"),
        }
    };
    assert_eq!(again(late).await, (1, 2));
    assert!(copy(&driver, &newer[1], usize::MAX).await);
    written(&rounds, 50).await;
    let step = work("copy", Way::Forward);
    assert!(!again(|| driver.finish_copy(&newer[0], &step)).await.before);

    let everything = Chunk { lo: None, hi: None };
    again(|| driver.settle(&newer[0], &mapping)).await;
    let compared = again(|| driver.compare_chunk(&mapping, forward, &everything)).await;
    assert!(compared.is_clean() && compared.rows > 1000, "{compared:?}");
    is_done.store(true, Ordering::Release);
    client.await.unwrap();
    assert_eq!(driver.sync_state(&mapping, forward).await.unwrap(), SyncState::Active);

    let shape = RetireShape::Table { old_name: "leads_old".into(), take_name: true };
    let step = work("retire", Way::Forward);
    driver
        .retire(&newer[0], &step, &mapping, forward, &Retire::of(&mapping, &shape))
        .await
        .unwrap();
    let step = work("drop", Way::Forward);
    let permit = Permit::for_test("drop");
    driver.drop_retired(&newer[0], &step, &mapping, &shape, permit).await.unwrap();
    driver.leave(&newer[0], Ending::Completed, &head(9)).await.unwrap();

    let left =
        "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%phasegate%' OR name = 'leads_old'";
    assert_eq!(database.number(left).await, 1);
    let wrong = "SELECT count(*) FROM leads WHERE status_code IS NOT lower(status)";
    assert_eq!(database.number(wrong).await, 0);
    assert!(database.number("SELECT count(*) FROM leads").await > 1000);
}

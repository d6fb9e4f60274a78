//! A mapping from end to end on a database file that an application writes to all the while, through the driver's traits
//! alone.

use phasegate::copy::chunk::{Chunk, Walk};
use phasegate::copy::compare::Compared;
use phasegate::driver::sqlite::Sqlite;
use phasegate::driver::{
    Claim, DualWriter as _, Error, Fence, Head, Losses, Retirer as _, Session as _, Sink as _,
    Source as _, SyncState, Verifier as _, Window, Work,
};
use phasegate::run::{
    CopyColumns, Digest, Direction, Ending, FailureClass, Mapping, OnDelete, OnExisting, Relation,
    Retire, RetireShape, RunId, Way, Winner,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};
use tokio::sync::watch;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT UNIQUE, status TEXT);
    CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT UNIQUE, status_code TEXT);
    CREATE VIEW open_leads AS SELECT id, email FROM leads;
    WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 3000)
    INSERT INTO leads SELECT x, 'e' || x, 'Open' FROM c;";

fn leads() -> Mapping {
    let relation = |table: &str| Relation {
        target: "app".into(),
        table: table.into(),
        key: vec!["id".into()],
        kind: phasegate::run::RowKind::Table,
    };
    Mapping {
        name: "leads".into(),
        from: relation("leads"),
        into: relation("leads_v2"),
        copy: CopyColumns::All,
        columns: vec![("status_code".into(), "lower(status)".into())],
        reverse: vec![("status".into(), "status_code".into())],
        winner: Winner::New,
        filter: None,
        on_existing: OnExisting::Keep,
        on_delete: OnDelete::Delete,
        parking: phasegate::run::Parking::default(),
    }
}

fn work(step: &str, way: Way) -> Work {
    Work {
        step: step.into(),
        way,
        head: Head { version: 1, hash: Digest::of_bytes(b"head") },
        lock_timeout_ms: None,
        compared_under: None,
        resolved: None,
    }
}

async fn client(file: &std::path::Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    options.busy_timeout(std::time::Duration::from_secs(20)).connect().await.unwrap()
}

async fn say(client: &mut SqliteConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(client).await.unwrap();
}

/// Writes as an application does, until nobody listens any more.
async fn application(file: std::path::PathBuf, heard: watch::Sender<u64>, both: bool) {
    let mut client = client(&file).await;
    let mut said = 0;
    while heard.send(said).is_ok() {
        let id = said * 37 % 3300 + 1;
        let sql = match said % 6 {
            0 => format!(
                "REPLACE INTO leads (id, email, status) VALUES ({id}, 'e{}', 'Won')",
                id + 1
            ),
            1 => format!("UPDATE leads SET status = 'S{said}' WHERE id = {id}"),
            2 => format!("DELETE FROM leads WHERE id = {id}"),
            3 => format!("INSERT OR IGNORE INTO leads VALUES ({id}, 'e{id}', 'New')"),
            4 => format!("UPDATE OR IGNORE leads SET id = {} WHERE id = {id}", id + 4000),
            _ if both => format!("UPDATE leads_v2 SET status_code = 't{said}' WHERE id = {id}"),
            _ => format!("UPDATE leads SET email = 'x{said}' WHERE id = {id}"),
        };
        say(&mut client, sql).await;
        said += 1;
    }
}

/// Tries again for as long as the application is in the way, as the engine does.
async fn insist<T, F: Future<Output = Result<T, Error>>>(mut act: impl FnMut() -> F) -> T {
    loop {
        match act().await {
            Ok(done) => return done,
            Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Copies everything, and lets the application get a word in after each chunk.
async fn copy(
    sqlite: &Sqlite,
    fence: &Fence,
    (mapping, direction): (&Mapping, Direction),
    application: &mut watch::Receiver<u64>,
) {
    let step = work("copy", Way::Forward);
    loop {
        let size = Window { rows: 50, count: 2, is_fixed: true };
        let state = insist(|| sqlite.plan_chunks(fence, &step, mapping, size)).await;
        for chunk in &state.open {
            insist(|| sqlite.copy_chunk(fence, &step, mapping, direction, chunk)).await;
            application.changed().await.unwrap();
        }
        if matches!(state.walk, Walk::Ended { .. }) {
            return;
        }
    }
}

async fn compare(sqlite: &Sqlite, mapping: &Mapping, direction: Direction) -> Compared {
    let (mut sum, mut lo) = (Compared::default(), None);
    loop {
        let hi = sqlite.verify_bound(mapping, lo.as_ref(), 500).await.unwrap();
        let chunk = Chunk { lo: lo.clone(), hi: hi.clone() };
        sum.add(sqlite.compare_chunk(mapping, direction, &chunk).await.unwrap());
        lo = hi;
        if lo.is_none() {
            return sum;
        }
    }
}

async fn end_to_end(direction: Direction) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let mut observer = client(&file).await;
    say(&mut observer, SCHEMA.to_owned()).await;
    let sqlite = Sqlite::open(&format!("sqlite:{}", file.display())).await.unwrap();
    let claim = Claim {
        run: RunId::new("r1"),
        plan: "leads-v2".into(),
        digest: Digest::of_bytes(b"plan"),
        store: "store".into(),
        host: "here".into(),
        pid: 1,
        objects: vec![],
        mappings: vec![],
        parallel: 1,
        adopts: None,
    };
    let fences = sqlite.enter(&claim, 1).await.unwrap();
    let (steps, worker) = (&fences[0], &fences[1]);
    let mapping = leads();

    let both = direction == Direction::Both;
    let (heard, mut said) = watch::channel(0);
    let writes = tokio::spawn(application(file.clone(), heard, both));
    insist(|| async {
        let step = work("sync", Way::Forward);
        sqlite.install(steps, &step, &mapping, direction).await
    })
    .await;
    assert_eq!(sqlite.sync_state(&mapping, direction).await, Ok(SyncState::Active));
    copy(&sqlite, worker, (&mapping, direction), &mut said).await;
    insist(|| async { sqlite.finish_copy(steps, &work("copy", Way::Forward)).await }).await;
    // Both sides are equal in every snapshot, while the application goes on.
    let live = compare(&sqlite, &mapping, direction).await;
    assert!(live.is_clean() && live.rows > 1000, "{live:?}");
    assert_eq!(insist(|| sqlite.settle(steps, &mapping)).await, 0);
    drop(said);
    writes.await.unwrap();

    let shape = RetireShape::Table { old_name: "leads_old".into(), take_name: true };
    sqlite
        .retire(
            steps,
            &work("retire", Way::Forward),
            &mapping,
            direction,
            &Retire::of(&mapping, &shape),
        )
        .await
        .unwrap();
    say(&mut observer, "UPDATE leads SET status_code = 'last' WHERE id % 2".to_owned()).await;
    let losses = if both { Losses::Refused } else { Losses::Accepted };
    let back = work("retire", Way::Back);
    sqlite.unretire(steps, &back, &mapping, direction, &shape, losses).await.unwrap();
    let wrong = "SELECT count(*) FROM leads AS l LEFT JOIN leads_v2 AS v USING (id)
        WHERE v.email IS NOT l.email OR (v.status_code IS NOT lower(l.status) AND v.status_code <> 'last')";
    assert_eq!(sqlx::query(wrong).fetch_one(&mut observer).await.unwrap().get::<i64, _>(0), 0);
    let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'phasegate%' AND type IN ('table', 'trigger')";
    sqlite.remove(steps, &work("sync", Way::Back), &mapping, direction).await.unwrap();
    let last = Head { version: 9, hash: Digest::of_bytes(b"end") };
    sqlite.leave(steps, Ending::RolledBack, &last).await.unwrap();
    sqlite.close().await;
    assert_eq!(sqlx::query(ours).fetch_one(&mut observer).await.unwrap().get::<i64, _>(0), 1);
    let left = "SELECT count(*) FROM leads_v2";
    assert_eq!(sqlx::query(left).fetch_one(&mut observer).await.unwrap().get::<i64, _>(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_under_a_writing_application() {
    end_to_end(Direction::Forward).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_under_a_writing_application() {
    end_to_end(Direction::Both).await;
}

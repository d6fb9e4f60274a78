//! What a copy through the driver costs beside one bare `INSERT … SELECT` of the same expressions into the same table.
//!
//! Ours is what a run does: bounds found and entered ahead, chunks of about 50 ms each in a fenced transaction with its row
//! in the ledger, dual-write live. Rounds are interleaved, each on a fresh copy of one file, and medians are compared, so
//! that neither side has the warmer cache or the quieter minute.
//!
//! With `PHASEGATE_BENCH_CLIENT=1` a client writes one row every 20 ms during our copy, and what it waits for is printed.
//!
//! `cargo bench --bench copy`; `PHASEGATE_BENCH_ROWS` (2000000), `PHASEGATE_BENCH_ROUNDS` (5) and
//! `PHASEGATE_BENCH_JOURNAL` (wal) change it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use phasegate::copy::chunk::Walk;
use phasegate::copy::sizer::{Policy, Sample, Sizer};
use phasegate::driver::sqlite::Sqlite;
use phasegate::driver::{
    Claim, DualWriter as _, Fence, Head, Session as _, Sink as _, Source as _,
};
use phasegate::driver::{Error, Window, Work};
use phasegate::run::{
    CopyColumns, Digest, Direction, FailureClass, Mapping, OnDelete, OnExisting, Parking, Relation,
    Way, Winner,
};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

/// A transaction on SQLite takes about this long.
const TARGET_US: u64 = 50_000;

/// How many chunks the engine plans ahead at most.
const WINDOW_MAX: u32 = 8;

const BARE: &str = "INSERT INTO leads_v2 (id, email, name, status, note, status_code)
    SELECT id, email, name, status, note, lower(status) FROM leads WHERE true ON CONFLICT (id) DO NOTHING";

#[tokio::main]
async fn main() {
    let rows = setting("PHASEGATE_BENCH_ROWS", 2_000_000);
    let rounds = setting("PHASEGATE_BENCH_ROUNDS", 5);
    let journal = std::env::var("PHASEGATE_BENCH_JOURNAL").unwrap_or_else(|_| "wal".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.db");
    make(&source, rows, &journal).await;
    println!(
        "{rows} rows, {} MiB, journal {journal}",
        std::fs::metadata(&source).unwrap().len() >> 20
    );

    let (mut bare, mut ours, mut rss_kib) = (Vec::new(), Vec::new(), 0);
    for round in 1..=rounds {
        let file = folder.path().join(format!("bare{round}.db"));
        std::fs::copy(&source, &file).unwrap();
        bare.push(copy_bare(&file, rows).await);
        std::fs::remove_file(&file).unwrap();
        let file = folder.path().join(format!("ours{round}.db"));
        std::fs::copy(&source, &file).unwrap();
        reset_peak();
        let (seconds, chunks) = copy_ours(&file, rows).await;
        rss_kib = rss_kib.max(peak_kib());
        ours.push(seconds);
        std::fs::remove_file(&file).unwrap();
        println!(
            "round {round}: bare {:.3} s, ours {seconds:.3} s in {chunks} chunks",
            bare.last().unwrap()
        );
    }
    let (bare, ours) = (median(bare), median(ours));
    println!(
        "median: bare {bare:.3} s, ours {ours:.3} s; ratio bare/ours {:.2} (wanted 0.70)",
        bare / ours
    );
    println!("peak memory of ours: {:.1} MiB (wanted 64 at most)", f64::from(rss_kib) / 1024.0);
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

async fn make(file: &Path, rows: u64, journal: &str) {
    let mut db = connect(file, "?mode=rwc").await;
    let script = format!(
        "PRAGMA journal_mode = {journal};
         CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT NOT NULL, name TEXT, status TEXT, note TEXT);
         CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT NOT NULL, name TEXT, status TEXT, note TEXT, status_code TEXT);
         INSERT INTO leads WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {rows})
            SELECT x, 'person' || x || '@example.org', 'Name of ' || x, CASE x % 3 WHEN 0 THEN 'OPEN' WHEN 1 THEN 'Won' ELSE 'lost' END,
                   'some words that make the row about a hundred bytes' FROM c;"
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

async fn connect(file: &Path, params: &str) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite:{}{params}", file.display())).await.unwrap()
}

async fn copy_bare(file: &Path, rows: u64) -> f64 {
    let mut db = connect(file, "").await;
    let began = Instant::now();
    let done = sqlx::query(BARE).execute(&mut db).await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(done.rows_affected(), rows);
    db.close().await.unwrap();
    seconds
}

/// The seconds from the first bound to the last row in the ledger, and the number of chunks.
async fn copy_ours(file: &Path, rows: u64) -> (f64, u64) {
    let sqlite = Sqlite::open(&format!("sqlite:{}", file.display())).await.unwrap();
    let claim = Claim {
        run: "bench".into(),
        plan: "bench".into(),
        digest: Digest::of_bytes(b"bench"),
        store: "bench".into(),
        host: "bench".into(),
        pid: 1,
        objects: vec![],
        mappings: vec![],
        parallel: 1,
        adopts: None,
    };
    let fences = sqlite.enter(&claim, 1).await.unwrap();
    let (steps, worker) = (&fences[0], &fences[1]);
    let mapping = mapping();
    let direction = Direction::Forward;
    sqlite.install(steps, &work("sync"), &mapping, direction).await.unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let client = std::env::var_os("PHASEGATE_BENCH_CLIENT")
        .map(|_| tokio::spawn(write(file.to_owned(), rows, Arc::clone(&is_done))));
    let began = Instant::now();
    let chunks = copy_all(&sqlite, worker, &mapping, direction).await;
    let applied = loop {
        if let Some(applied) = unless_busy(sqlite.finish_copy(steps, &work("copy")).await) {
            break applied;
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    is_done.store(true, Ordering::Release);
    // What the client wrote ahead of the copy, the sync has brought over.
    assert!(applied.rows == rows || client.is_some());
    if let Some(client) = client {
        let mut waits = client.await.unwrap();
        waits.sort_by(f64::total_cmp);
        let at = |part: usize| waits[(waits.len() - 1) * part / 100] * 1000.0;
        let (half, most, all) = (at(50), at(95), at(100));
        println!(
            "client: {} writes; waited {half:.1} ms (median), {most:.1} ms (p95), {all:.1} ms (longest)",
            waits.len()
        );
    }
    sqlite.close().await;
    (seconds, chunks)
}

/// A client's writes, one every 20 ms, and the seconds that each took. It waits 5 s for a lock, as most drivers do.
async fn write(file: PathBuf, rows: u64, is_done: Arc<AtomicBool>) -> Vec<f64> {
    let mut db = connect(&file, "").await;
    let (mut waits, mut at) = (Vec::new(), 1_u64);
    while !is_done.load(Ordering::Acquire) {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let id = i64::try_from((at >> 16) % rows + 1).unwrap();
        let began = Instant::now();
        sqlx::query("UPDATE leads SET note = 'new' WHERE id = ?1")
            .bind(id)
            .execute(&mut db)
            .await
            .unwrap();
        waits.push(began.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    db.close().await.unwrap();
    waits
}

/// The engine's loop, without its journal: sizes and how far it plans ahead are the engine's.
async fn copy_all(sqlite: &Sqlite, fence: &Fence, mapping: &Mapping, direction: Direction) -> u64 {
    let step = work("copy");
    let mut sizer = Sizer::new(Policy::with_target_us(TARGET_US));
    let mut windows = 0;
    loop {
        let window =
            Window { rows: sizer.rows(), count: WINDOW_MAX.min(1 + windows), is_fixed: false };
        let Some(state) = unless_busy(sqlite.plan_chunks(fence, &step, mapping, window).await)
        else {
            continue;
        };
        if let (Walk::Ended { seq }, true) = (&state.walk, state.open.is_empty()) {
            return *seq;
        }
        windows += 1;
        let rows_asked = window.rows;
        for planned in &state.open {
            let copied =
                sqlite.copy_chunk(fence, &step, mapping, direction, planned).await.unwrap();
            let rows = u32::try_from(copied.rows_read).unwrap();
            sizer.sample(Sample { rows_asked, rows, took_us: copied.took_us, contended: false });
        }
    }
}

/// What was done, or nothing when a client was in the way for too long.
fn unless_busy<T>(done: Result<T, Error>) -> Option<T> {
    match done {
        Err(error) if error.class() == Some(FailureClass::Contention) => None,
        done => Some(done.unwrap()),
    }
}

fn mapping() -> Mapping {
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
        reverse: vec![],
        winner: Winner::New,
        filter: None,
        on_existing: OnExisting::Keep,
        on_delete: OnDelete::Delete,
        parking: Parking::default(),
    }
}

fn work(step: &str) -> Work {
    let head = Head { version: 1, hash: Digest::of_bytes(b"bench") };
    Work {
        step: step.into(),
        way: Way::Forward,
        head,
        lock_timeout_ms: None,
        compared_under: None,
        resolved: None,
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Makes the kernel forget the highest memory use so far (Linux; elsewhere the figure is of the whole process).
fn reset_peak() {
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

fn peak_kib() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

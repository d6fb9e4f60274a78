//! Our tables in the target: which runs were here, who may write, and which steps are committed.
//!
//! Invariants:
//! - Every row that says that something was done is written in the transaction that did it.
//! - Every writing transaction has called [`check_fence`], through `Connections::begin`.
//!
//! The tables use nothing that came after SQLite 3.8.2 (no STRICT, no generated columns): an application with an old
//! library must still be able to open the database while a run is under way. Absent on purpose: the rows of copies, which
//! are in `chunks`, and claims, which are in `claim`.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::error::{damaged, failed};
use crate::driver::ledger as words;
use crate::driver::{Applied, Error, Fence, Head, Work};
use crate::run::{RunId, StepId, Way};
pub(super) use words::{ending_name, signed, way_name};

/// What the names of all our objects begin with.
pub(super) const PREFIX: &str = "phasegate_";

/// The one table that stays: a row for each run.
pub(super) const RUNS: &str = "phasegate_runs";

/// Our tables, but for those of the sync, which `install` makes when it needs them.
const TABLES: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS phasegate_runs (
        run_id TEXT NOT NULL PRIMARY KEY, plan TEXT NOT NULL, digest TEXT NOT NULL, store TEXT NOT NULL,
        host TEXT NOT NULL, pid INTEGER NOT NULL, state TEXT NOT NULL, objects TEXT NOT NULL,
        started_at TEXT NOT NULL, ended_at TEXT, rows_total INTEGER NOT NULL DEFAULT 0,
        head_version INTEGER, head_hash TEXT
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS phasegate_slots (
        run_id TEXT NOT NULL, slot INTEGER NOT NULL, token INTEGER NOT NULL,
        PRIMARY KEY (run_id, slot)
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS phasegate_steps (
        run_id TEXT NOT NULL, step TEXT NOT NULL, way TEXT NOT NULL, rows INTEGER NOT NULL, detail TEXT,
        token INTEGER NOT NULL, head_version INTEGER NOT NULL, committed_at TEXT NOT NULL,
        PRIMARY KEY (run_id, step, way)
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS phasegate_copies (
        run_id TEXT NOT NULL, step TEXT NOT NULL, seq INTEGER NOT NULL, hi TEXT, frozen TEXT,
        ended INTEGER NOT NULL, watermark INTEGER NOT NULL, rows_read INTEGER NOT NULL,
        rows_written INTEGER NOT NULL,
        PRIMARY KEY (run_id, step)
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS phasegate_chunks (
        run_id TEXT NOT NULL, step TEXT NOT NULL, seq INTEGER NOT NULL, lo TEXT, hi TEXT,
        committed INTEGER NOT NULL DEFAULT 0, rows_read INTEGER NOT NULL DEFAULT 0,
        rows_written INTEGER NOT NULL DEFAULT 0, token INTEGER NOT NULL,
        PRIMARY KEY (run_id, step, seq)
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS phasegate_passes (
        run_id TEXT NOT NULL, step TEXT NOT NULL, pass TEXT NOT NULL, token INTEGER NOT NULL,
        PRIMARY KEY (run_id, step)
    ) WITHOUT ROWID",
];

/// Makes our tables where they are missing.
pub(super) async fn create(conn: &mut SqliteConnection) -> Result<(), Error> {
    for table in TABLES {
        sqlx::query(table).execute(&mut *conn).await.map_err(failed("make our tables"))?;
    }
    Ok(())
}

/// Whether a table (one of ours) is there.
pub(super) async fn has_table(conn: &mut SqliteConnection, name: &str) -> Result<bool, Error> {
    sqlx::query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")
        .bind(name)
        .fetch_optional(conn)
        .await
        .map(|row| row.is_some())
        .map_err(failed("look for our tables"))
}

/// Holds a fence's token against its slot's row. Inside `BEGIN IMMEDIATE`, so that it stays true until the end.
pub(super) async fn check_fence(conn: &mut SqliteConnection, fence: &Fence) -> Result<(), Error> {
    let gone = || words::no_claim(fence.run());
    if !has_table(conn, "phasegate_slots").await? {
        return Err(gone());
    }
    let row = sqlx::query("SELECT token FROM phasegate_slots WHERE run_id = ?1 AND slot = ?2")
        .bind(fence.run().as_str())
        .bind(i64::from(fence.slot()))
        .fetch_optional(conn)
        .await
        .map_err(failed("check the fencing token"))?
        .ok_or_else(gone)?;
    let newest = unsigned(row.try_get(0).map_err(failed("check the fencing token"))?)?;
    words::hold(fence, newest, damaged)
}

/// What the ledger has of a piece of work: then it was done before, and is not done again.
pub(super) async fn applied(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
    way: Way,
) -> Result<Option<Applied>, Error> {
    let row = sqlx::query(
        "SELECT rows, detail FROM phasegate_steps WHERE run_id = ?1 AND step = ?2 AND way = ?3",
    )
    .bind(run.as_str())
    .bind(step.as_str())
    .bind(way_name(way))
    .fetch_optional(conn)
    .await
    .map_err(failed("read the ledger"))?;
    let Some(row) = row else { return Ok(None) };
    let rows = unsigned(row.try_get(0).map_err(failed("read the ledger"))?)?;
    let detail = row.try_get(1).map_err(failed("read the ledger"))?;
    Ok(Some(Applied { before: true, rows, detail }))
}

/// Enters a piece of work in the ledger, and the journal's head with it. Returns what to answer after the commit.
pub(super) async fn record(
    conn: &mut SqliteConnection,
    fence: &Fence,
    work: &Work,
    rows: u64,
    detail: Option<String>,
) -> Result<Applied, Error> {
    sqlx::query(
        "INSERT INTO phasegate_steps (run_id, step, way, rows, detail, token, head_version, committed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
    )
    .bind(fence.run().as_str())
    .bind(work.step.as_str())
    .bind(way_name(work.way))
    .bind(signed(rows))
    .bind(detail.as_deref())
    .bind(signed(fence.token()))
    .bind(signed(work.head.version))
    .execute(&mut *conn)
    .await
    .map_err(failed("enter the step in the ledger"))?;
    keep_head(conn, fence.run(), &work.head).await?;
    Ok(Applied { before: false, rows, detail })
}

/// Keeps the journal's head, if it is higher than the one kept.
pub(super) async fn keep_head(
    conn: &mut SqliteConnection,
    run: &RunId,
    head: &Head,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE phasegate_runs SET head_version = ?2, head_hash = ?3
         WHERE run_id = ?1 AND coalesce(head_version, -1) < ?2",
    )
    .bind(run.as_str())
    .bind(signed(head.version))
    .bind(head.hash.as_str())
    .execute(conn)
    .await
    .map(|_| ())
    .map_err(failed("keep the head of the journal"))
}

/// Keeps the head of a journal that takes the place of a lost one. What was entered under that one is from before.
pub(super) async fn begin_anew(
    conn: &mut SqliteConnection,
    run: &RunId,
    head: &Head,
) -> Result<(), Error> {
    let doing = "keep the head of the journal";
    for sql in [
        "UPDATE phasegate_runs SET head_version = NULL, head_hash = NULL WHERE run_id = ?1",
        "UPDATE phasegate_steps SET head_version = 0 WHERE run_id = ?1",
    ] {
        sqlx::query(sql).bind(run.as_str()).execute(&mut *conn).await.map_err(failed(doing))?;
    }
    keep_head(conn, run, head).await
}

/// The journal's head as kept.
pub(super) async fn head(conn: &mut SqliteConnection, run: &RunId) -> Result<Option<Head>, Error> {
    if !has_table(conn, RUNS).await? {
        return Ok(None);
    }
    let row = sqlx::query(
        "SELECT head_version, head_hash FROM phasegate_runs
         WHERE run_id = ?1 AND head_version IS NOT NULL AND head_hash IS NOT NULL",
    )
    .bind(run.as_str())
    .fetch_optional(conn)
    .await
    .map_err(failed("read the head of the journal"))?;
    let Some(row) = row else { return Ok(None) };
    let doing = "read the head of the journal";
    let version = row.try_get(0).map_err(failed(doing))?;
    let hash = row.try_get(1).map_err(failed(doing))?;
    words::head(version, hash).map(Some).map_err(damaged)
}

/// A count that the database gave.
pub(super) fn unsigned(count: i64) -> Result<u64, Error> {
    words::unsigned(count).map_err(damaged)
}

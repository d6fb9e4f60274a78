//! Our tables in the target: which runs were here, who may write, and which steps are committed.
//!
//! Invariants:
//! - Every row that says that something was done is written in the transaction that did it.
//! - Every writing transaction has called [`check_fence`], through `Connections::begin`, and holds its slot's row locked.
//!
//! Absent on purpose: the rows of copies, which are in `chunks`, of comparisons, which are in `passes`, and claims, which are in `claim`.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::literal;
use super::connection::{Reader, Tx};
use super::error::{damaged, failed};
use crate::driver::ledger as words;
use crate::driver::{Applied, Error, Fence, Head, Work};
use crate::run::{RunId, StepId, Way};
pub(super) use words::{ending_name, signed, way_name};

/// The one table that stays: a row for each run.
pub(super) const RUNS: &str = "runs";

/// Our tables by name and columns, but for those of the sync, which `install` makes when it needs them.
const TABLES: [(&str, &str); 6] = [
    (
        RUNS,
        "run_id text NOT NULL PRIMARY KEY, plan text NOT NULL, digest text NOT NULL, store text NOT NULL,
         host text NOT NULL, pid bigint NOT NULL, state text NOT NULL, objects text NOT NULL,
         mappings text NOT NULL DEFAULT '[]',
         started_at timestamptz NOT NULL, ended_at timestamptz, rows_total bigint NOT NULL DEFAULT 0,
         head_version bigint, head_hash text",
    ),
    (
        "slots",
        "run_id text NOT NULL, slot bigint NOT NULL, token bigint NOT NULL, PRIMARY KEY (run_id, slot)",
    ),
    (
        "steps",
        "run_id text NOT NULL, step text NOT NULL, way text NOT NULL, rows bigint NOT NULL, detail text,
         token bigint NOT NULL, head_version bigint NOT NULL, committed_at timestamptz NOT NULL,
         PRIMARY KEY (run_id, step, way)",
    ),
    (
        "copies",
        "run_id text NOT NULL, step text NOT NULL, seq bigint NOT NULL, hi text, frozen text,
         ended boolean NOT NULL, watermark bigint NOT NULL, rows_read bigint NOT NULL,
         rows_written bigint NOT NULL, PRIMARY KEY (run_id, step)",
    ),
    (
        "chunks",
        "run_id text NOT NULL, step text NOT NULL, seq bigint NOT NULL, lo text, hi text,
         committed boolean NOT NULL DEFAULT false, rows_read bigint NOT NULL DEFAULT 0,
         rows_written bigint NOT NULL DEFAULT 0, token bigint NOT NULL, PRIMARY KEY (run_id, step, seq)",
    ),
    (
        "passes",
        "run_id text NOT NULL, step text NOT NULL, pass text NOT NULL, token bigint NOT NULL,
         PRIMARY KEY (run_id, step)",
    ),
];

/// The names of our tables.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|(name, _)| *name)
}

/// Makes our schema and tables where they are missing. A schema that is there already is used as it is: who may not make
/// one can be given one.
pub(super) async fn create(tx: &mut Tx<'_>, schema: &str) -> Result<(), Error> {
    let is_there = sqlx::query("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(schema)
        .fetch_one(tx.conn()?)
        .await
        .and_then(|row| row.try_get::<bool, _>(0))
        .map_err(failed("look for our schema"))?;
    if !is_there {
        let statement = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
        sqlx::query(AssertSqlSafe(statement)).execute(tx.conn()?).await.map_err(|error| {
            failed("make our schema")(error).with_help(format!(
                "GRANT CREATE ON DATABASE to the role, or have somebody run CREATE SCHEMA {schema} AUTHORIZATION the role, \
                 and name it as `schema` of the target"
            ))
        })?;
    }
    for (name, columns) in TABLES {
        if !has_table(tx.conn()?, &tx_name(schema, name)).await? {
            let statement =
                format!("CREATE TABLE IF NOT EXISTS {} ({columns})", tx_name(schema, name));
            sqlx::query(AssertSqlSafe(statement)).execute(tx.conn()?).await.map_err(|error| {
                failed("make our tables")(error)
                    .with_help(format!("GRANT USAGE, CREATE ON SCHEMA {schema} to the role"))
            })?;
        }
    }
    Ok(())
}

fn tx_name(schema: &str, table: &str) -> String {
    format!("{schema}.\"{table}\"")
}

/// Whether a table is there; `name` is qualified and quoted.
pub(super) async fn has_table(conn: &mut PgConnection, name: &str) -> Result<bool, Error> {
    sqlx::query("SELECT to_regclass($1) IS NOT NULL")
        .bind(name)
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("look for our tables"))
}

/// Holds a fence's token against its slot's row, which stays locked until the transaction ends.
pub(super) async fn check_fence(tx: &mut Tx<'_>, fence: &Fence) -> Result<(), Error> {
    let sql = fence_sql(&tx.ours("slots"), fence);
    judge_fence(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(tx.conn()?).await, fence)
}

/// Locks a fence's row in our table of slots, and gives its token. Without parameters, so that it can stand behind other
/// statements in one message.
pub(super) fn fence_sql(slots: &str, fence: &Fence) -> String {
    let (run, slot) = (literal(fence.run().as_str()), fence.slot());
    format!("SELECT token FROM {slots} WHERE run_id = {run} AND slot = {slot} FOR NO KEY UPDATE")
}

/// Holds a fence's token against what [`fence_sql`] gave.
pub(super) fn judge_fence(
    row: Result<Option<PgRow>, sqlx::Error>,
    fence: &Fence,
) -> Result<(), Error> {
    let gone = || words::no_claim(fence.run());
    let row = match row {
        Err(ref error) if matches!(super::error::code(error), Some("42P01" | "3F000")) => {
            return Err(gone());
        }
        other => other.map_err(failed("check the fencing token"))?.ok_or_else(gone)?,
    };
    let newest = unsigned(row.try_get(0).map_err(failed("check the fencing token"))?)?;
    words::hold(fence, newest, damaged)
}

/// What the ledger has of a piece of work: then it was done before, and is not done again.
pub(super) async fn applied(
    tx: &mut Tx<'_>,
    run: &RunId,
    step: &StepId,
    way: Way,
) -> Result<Option<Applied>, Error> {
    let steps = tx.ours("steps");
    applied_in(tx.conn()?, &steps, (run, step, way)).await
}

/// As [`applied`], outside a transaction that writes; nothing where our tables aren't there.
pub(super) async fn applied_before(
    reader: &mut Reader<'_>,
    run: &RunId,
    step: &StepId,
    way: Way,
) -> Result<Option<Applied>, Error> {
    let steps = reader.ours("steps");
    if !has_table(reader.conn()?, &steps).await? {
        return Ok(None);
    }
    applied_in(reader.conn()?, &steps, (run, step, way)).await
}

async fn applied_in(
    conn: &mut PgConnection,
    steps: &str,
    (run, step, way): (&RunId, &StepId, Way),
) -> Result<Option<Applied>, Error> {
    let sql =
        format!("SELECT rows, detail FROM {steps} WHERE run_id = $1 AND step = $2 AND way = $3");
    let row = sqlx::query(AssertSqlSafe(sql))
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
    tx: &mut Tx<'_>,
    fence: &Fence,
    work: &Work,
    (rows, detail): (u64, Option<String>),
) -> Result<Applied, Error> {
    let sql = format!(
        "INSERT INTO {} (run_id, step, way, rows, detail, token, head_version, committed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp())",
        tx.ours("steps")
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(fence.run().as_str())
        .bind(work.step.as_str())
        .bind(way_name(work.way))
        .bind(signed(rows))
        .bind(detail.as_deref())
        .bind(signed(fence.token()))
        .bind(signed(work.head.version))
        .execute(tx.conn()?)
        .await
        .map_err(failed("enter the step in the ledger"))?;
    keep_head(tx, fence.run(), &work.head).await?;
    Ok(Applied { before: false, rows, detail })
}

/// Keeps the journal's head, if it is higher than the one kept.
pub(super) async fn keep_head(tx: &mut Tx<'_>, run: &RunId, head: &Head) -> Result<(), Error> {
    let sql = keep_head_sql(&tx.ours(RUNS));
    sqlx::query(AssertSqlSafe(sql))
        .bind(run.as_str())
        .bind(signed(head.version))
        .bind(head.hash.as_str())
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("keep the head of the journal"))
}

/// Keeps the head of run `$1`, whose version is `$2` and whose hash is `$3`, if it is higher than the one kept.
pub(super) fn keep_head_sql(runs: &str) -> String {
    format!(
        "UPDATE {runs} SET head_version = $2, head_hash = $3 WHERE run_id = $1 AND coalesce(head_version, -1) < $2"
    )
}

/// Keeps the head of a journal that takes the place of a lost one. What was entered under that one is from before.
pub(super) async fn begin_anew(tx: &mut Tx<'_>, run: &RunId, head: &Head) -> Result<(), Error> {
    let doing = "keep the head of the journal";
    let (runs, steps) = (tx.ours(RUNS), tx.ours("steps"));
    for sql in [
        format!("UPDATE {runs} SET head_version = NULL, head_hash = NULL WHERE run_id = $1"),
        format!("UPDATE {steps} SET head_version = 0 WHERE run_id = $1"),
    ] {
        sqlx::query(AssertSqlSafe(sql))
            .bind(run.as_str())
            .execute(tx.conn()?)
            .await
            .map_err(failed(doing))?;
    }
    keep_head(tx, run, head).await
}

/// The journal's head as kept.
pub(super) async fn head(reader: &mut Reader<'_>, run: &RunId) -> Result<Option<Head>, Error> {
    let runs = reader.ours(RUNS);
    if !has_table(reader.conn()?, &runs).await? {
        return Ok(None);
    }
    let sql = format!(
        "SELECT head_version, head_hash FROM {runs}
         WHERE run_id = $1 AND head_version IS NOT NULL AND head_hash IS NOT NULL"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(run.as_str())
        .fetch_optional(reader.conn()?)
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

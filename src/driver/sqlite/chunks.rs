//! The ledger of copies: which chunks were planned, which are committed, and what they add up to.
//!
//! Invariants:
//! - A chunk is entered with its exact bounds before it is copied, and is copied under those bounds only.
//! - Rows below the watermark are folded into the copy's one row, so the ledger does not grow with the table.
//! - A copy's row outlives its chunks until the run leaves, so that its totals can be asked for again.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::cells::{key_from_json, key_to_json};
use super::error::{damaged, failed};
use super::ledger::{self, signed, unsigned};
use crate::copy::chunk::{Chunk, Key, Planned, Walk};
pub(super) use crate::driver::ledger::{Copy, Rows};
use crate::driver::{CopyState, Error, Fence};
use crate::run::{FailureClass, RunId, StepId};

/// A chunk as the ledger has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entered {
    pub chunk: Chunk,
    pub committed: bool,
    pub rows_read: u64,
    pub rows_written: u64,
}

/// A copy's row, or `None` before its first call.
pub(super) async fn load(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
) -> Result<Option<Copy>, Error> {
    let row = sqlx::query(
        "SELECT seq, hi, frozen, ended, watermark, rows_read, rows_written
         FROM phasegate_copies WHERE run_id = ?1 AND step = ?2",
    )
    .bind(run.as_str())
    .bind(step.as_str())
    .fetch_optional(conn)
    .await
    .map_err(failed("read the ledger of copies"))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Copy {
        seq: count(&row, 0)?,
        hi: key(&row, 1)?,
        frozen: key(&row, 2)?,
        ended: count(&row, 3)? != 0,
        watermark: count(&row, 4)?,
        rows_read: count(&row, 5)?,
        rows_written: count(&row, 6)?,
    }))
}

/// Writes a copy's row.
pub(super) async fn save(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
    copy: &Copy,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO phasegate_copies
            (run_id, step, seq, hi, frozen, ended, watermark, rows_read, rows_written)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(run.as_str())
    .bind(step.as_str())
    .bind(signed(copy.seq))
    .bind(json(copy.hi.as_ref())?)
    .bind(json(copy.frozen.as_ref())?)
    .bind(copy.ended)
    .bind(signed(copy.watermark))
    .bind(signed(copy.rows_read))
    .bind(signed(copy.rows_written))
    .execute(conn)
    .await
    .map(|_| ())
    .map_err(failed("write the ledger of copies"))
}

/// Moves the watermark up to the first chunk that is not committed, and folds what is below it.
pub(super) async fn fold(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
    copy: &mut Copy,
) -> Result<(), Error> {
    let watermark = watermark(conn, run, step, copy).await?;
    let row = sqlx::query(
        "SELECT coalesce(sum(rows_read), 0), coalesce(sum(rows_written), 0)
         FROM phasegate_chunks WHERE run_id = ?1 AND step = ?2 AND seq <= ?3",
    )
    .bind(run.as_str())
    .bind(step.as_str())
    .bind(signed(watermark))
    .fetch_one(&mut *conn)
    .await
    .map_err(failed("add up the ledger of chunks"))?;
    copy.rows_read += count(&row, 0)?;
    copy.rows_written += count(&row, 1)?;
    copy.watermark = watermark;
    sqlx::query("DELETE FROM phasegate_chunks WHERE run_id = ?1 AND step = ?2 AND seq <= ?3")
        .bind(run.as_str())
        .bind(step.as_str())
        .bind(signed(watermark))
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(failed("fold the ledger of chunks"))
}

/// Enters a chunk that is to be copied.
pub(super) async fn plan(
    conn: &mut SqliteConnection,
    fence: &Fence,
    step: &StepId,
    planned: &Planned,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO phasegate_chunks (run_id, step, seq, lo, hi, token) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(fence.run().as_str())
    .bind(step.as_str())
    .bind(signed(planned.seq))
    .bind(json(planned.chunk.lo.as_ref())?)
    .bind(json(planned.chunk.hi.as_ref())?)
    .bind(signed(fence.token()))
    .execute(conn)
    .await
    .map(|_| ())
    .map_err(failed("enter a chunk in the ledger"))
}

/// A chunk that is not folded yet.
pub(super) async fn find(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
    seq: u64,
) -> Result<Option<Entered>, Error> {
    let row = sqlx::query(
        "SELECT lo, hi, committed, rows_read, rows_written
         FROM phasegate_chunks WHERE run_id = ?1 AND step = ?2 AND seq = ?3",
    )
    .bind(run.as_str())
    .bind(step.as_str())
    .bind(signed(seq))
    .fetch_optional(conn)
    .await
    .map_err(failed("read the ledger of chunks"))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Entered {
        chunk: Chunk { lo: key(&row, 0)?, hi: key(&row, 1)? },
        committed: count(&row, 2)? != 0,
        rows_read: count(&row, 3)?,
        rows_written: count(&row, 4)?,
    }))
}

/// Marks a chunk committed, in the transaction that copied it.
pub(super) async fn commit(
    conn: &mut SqliteConnection,
    fence: &Fence,
    step: &StepId,
    seq: u64,
    rows: Rows,
) -> Result<(), Error> {
    let marked = sqlx::query(
        "UPDATE phasegate_chunks SET committed = 1, rows_read = ?4, rows_written = ?5, token = ?6
         WHERE run_id = ?1 AND step = ?2 AND seq = ?3 AND committed = 0",
    )
    .bind(fence.run().as_str())
    .bind(step.as_str())
    .bind(signed(seq))
    .bind(signed(rows.read))
    .bind(signed(rows.written))
    .bind(signed(fence.token()))
    .execute(conn)
    .await
    .map_err(failed("mark a chunk in the ledger"))?;
    if marked.rows_affected() == 1 {
        Ok(())
    } else {
        Err(damaged(format!("chunk {seq} of {step} vanished from the ledger")))
    }
}

/// What the ledger knows of a copy: the beginning of one when it knows nothing.
pub(super) async fn state(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
) -> Result<CopyState, Error> {
    let beginning = CopyState {
        walk: Walk::At { seq: 0, hi: None },
        open: Vec::new(),
        watermark: 0,
        rows_read: 0,
        rows_written: 0,
    };
    if !ledger::has_table(conn, "phasegate_copies").await? {
        return Ok(beginning);
    }
    let Some(copy) = load(conn, run, step).await? else { return Ok(beginning) };
    let committed = sqlx::query(
        "SELECT coalesce(sum(rows_read), 0), coalesce(sum(rows_written), 0)
         FROM phasegate_chunks WHERE run_id = ?1 AND step = ?2 AND committed = 1",
    )
    .bind(run.as_str())
    .bind(step.as_str())
    .fetch_one(&mut *conn)
    .await
    .map_err(failed("add up the ledger of chunks"))?;
    Ok(CopyState {
        open: open(conn, run, step).await?,
        watermark: watermark(conn, run, step, &copy).await?,
        rows_read: copy.rows_read + count(&committed, 0)?,
        rows_written: copy.rows_written + count(&committed, 1)?,
        walk: if copy.ended {
            Walk::Ended { seq: copy.seq }
        } else {
            Walk::At { seq: copy.seq, hi: copy.hi }
        },
    })
}

/// Chunks entered and not committed. As many as the engine plans ahead, never as many as the table holds.
async fn open(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
) -> Result<Vec<Planned>, Error> {
    let rows = sqlx::query(
        "SELECT seq, lo, hi FROM phasegate_chunks
         WHERE run_id = ?1 AND step = ?2 AND committed = 0 ORDER BY seq",
    )
    .bind(run.as_str())
    .bind(step.as_str())
    .fetch_all(conn)
    .await
    .map_err(failed("read the ledger of chunks"))?;
    rows.iter()
        .map(|row| {
            let chunk = Chunk { lo: key(row, 1)?, hi: key(row, 2)? };
            Ok(Planned { seq: count(row, 0)?, chunk })
        })
        .collect()
}

/// The number below the first chunk that is not committed; the last number given when all are.
async fn watermark(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
    copy: &Copy,
) -> Result<u64, Error> {
    let row = sqlx::query(
        "SELECT coalesce(min(seq) - 1, ?3) FROM phasegate_chunks
         WHERE run_id = ?1 AND step = ?2 AND committed = 0",
    )
    .bind(run.as_str())
    .bind(step.as_str())
    .bind(signed(copy.seq))
    .fetch_one(conn)
    .await
    .map_err(failed("read the ledger of chunks"))?;
    count(&row, 0)
}

/// The error for a copy of which the ledger knows nothing.
pub(super) fn not_begun(step: &StepId) -> Error {
    Error::failed(FailureClass::Stale, format!("the ledger knows nothing of the copy of {step}"))
}

fn json(key: Option<&Key>) -> Result<Option<String>, Error> {
    key.map(key_to_json).transpose()
}

fn key(row: &SqliteRow, at: usize) -> Result<Option<Key>, Error> {
    let text: Option<String> = row.try_get(at).map_err(failed("read a key in the ledger"))?;
    text.as_deref().map(key_from_json).transpose()
}

fn count(row: &SqliteRow, at: usize) -> Result<u64, Error> {
    unsigned(row.try_get(at).map_err(failed("read the ledger"))?)
}

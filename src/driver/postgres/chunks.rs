//! The ledger of copies: where a copy's walker is, and which chunks are entered and committed.
//!
//! Invariants:
//! - A chunk is entered before anybody copies it, with the bounds that it keeps until it is folded.
//! - Chunks up to the watermark are all committed; they are folded into their copy's one row, so that the tables hold no
//!   more rows than chunks are planned ahead.
//!
//! Absent on purpose: finding bounds, which is `source`'s, and copying, which is `sink`'s.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::cells::{key_from_json, key_to_json};
use super::connection::{Reader, Tx};
use super::error::{damaged, failed};
use super::ledger::{RUNS, has_table, keep_head_sql, signed, unsigned};
use crate::copy::chunk::{Chunk, Key, Planned, Walk};
pub(super) use crate::driver::ledger::{Copy, Rows};
use crate::driver::{CopyState, Error, Fence, Head};
use crate::run::{FailureClass, RunId, StepId};

/// A chunk as the ledger has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entered {
    pub chunk: Chunk,
    pub committed: bool,
    pub rows: Rows,
}

impl Entered {
    /// Its columns in the ledger of chunks, in the order in which they are read.
    pub(super) const COLUMNS: [&str; 5] = ["lo", "hi", "committed", "rows_read", "rows_written"];

    /// The chunk in a row's columns from `at` on; `None` where an outer join found none.
    pub(super) fn of_row(row: &PgRow, at: usize) -> Result<Option<Self>, Error> {
        let committed: Option<bool> =
            row.try_get(at + 2).map_err(failed("read the ledger of chunks"))?;
        let Some(committed) = committed else { return Ok(None) };
        Ok(Some(Self {
            chunk: Chunk { lo: key(row, at)?, hi: key(row, at + 1)? },
            committed,
            rows: Rows { read: count(row, at + 3)?, written: count(row, at + 4)? },
        }))
    }
}

/// The tables of copies and chunks, over a connection.
pub(super) struct Book<'a> {
    conn: &'a mut PgConnection,
    copies: String,
    chunks: String,
    runs: String,
    run: &'a RunId,
    step: &'a StepId,
}

impl<'a> Book<'a> {
    /// The book of a step's copy, in a transaction that writes.
    pub(super) fn of_tx(
        tx: &'a mut Tx<'_>,
        (run, step): (&'a RunId, &'a StepId),
    ) -> Result<Self, Error> {
        let (copies, chunks, runs) = (tx.ours("copies"), tx.ours("chunks"), tx.ours(RUNS));
        Ok(Self { conn: tx.conn()?, copies, chunks, runs, run, step })
    }

    /// The same, for reading.
    pub(super) fn of_reader(
        reader: &'a mut Reader<'_>,
        (run, step): (&'a RunId, &'a StepId),
    ) -> Result<Self, Error> {
        let (copies, chunks, runs) =
            (reader.ours("copies"), reader.ours("chunks"), reader.ours(RUNS));
        Ok(Self { conn: reader.conn()?, copies, chunks, runs, run, step })
    }

    /// The copy's row, or `None` before its first call.
    pub(super) async fn load(&mut self) -> Result<Option<Copy>, Error> {
        let sql = format!(
            "SELECT seq, hi, frozen, ended, watermark, rows_read, rows_written FROM {}
             WHERE run_id = $1 AND step = $2",
            self.copies
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(self.run.as_str())
            .bind(self.step.as_str())
            .fetch_optional(&mut *self.conn)
            .await
            .map_err(failed("read the ledger of copies"))?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Copy {
            seq: count(&row, 0)?,
            hi: key(&row, 1)?,
            frozen: key(&row, 2)?,
            ended: flag(&row, 3)?,
            watermark: count(&row, 4)?,
            rows_read: count(&row, 5)?,
            rows_written: count(&row, 6)?,
        }))
    }

    /// Writes the copy's row.
    pub(super) async fn save(&mut self, copy: &Copy) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO {} (run_id, step, seq, hi, frozen, ended, watermark, rows_read, rows_written)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (run_id, step) DO UPDATE SET seq = $3, hi = $4, frozen = $5, ended = $6, watermark = $7,
                rows_read = $8, rows_written = $9",
            self.copies
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(self.run.as_str())
            .bind(self.step.as_str())
            .bind(signed(copy.seq))
            .bind(json(copy.hi.as_ref())?)
            .bind(json(copy.frozen.as_ref())?)
            .bind(copy.ended)
            .bind(signed(copy.watermark))
            .bind(signed(copy.rows_read))
            .bind(signed(copy.rows_written))
            .execute(&mut *self.conn)
            .await
            .map(|_| ())
            .map_err(failed("write the ledger of copies"))
    }

    /// Moves the watermark up to the first chunk that is not committed, and folds what is below it.
    ///
    /// One statement, so that a chunk that a worker commits meanwhile is either counted and removed or left.
    pub(super) async fn fold(&mut self, copy: &mut Copy) -> Result<(), Error> {
        let sql = format!(
            "WITH mark AS (SELECT coalesce(min(seq) - 1, $3) AS at FROM {chunks}
                           WHERE run_id = $1 AND step = $2 AND NOT committed),
                  gone AS (DELETE FROM {chunks} WHERE run_id = $1 AND step = $2 AND seq <= (SELECT at FROM mark)
                           RETURNING rows_read, rows_written)
             SELECT (SELECT at FROM mark), coalesce(sum(rows_read), 0)::bigint, coalesce(sum(rows_written), 0)::bigint
             FROM gone",
            chunks = self.chunks
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(self.run.as_str())
            .bind(self.step.as_str())
            .bind(signed(copy.seq))
            .fetch_one(&mut *self.conn)
            .await
            .map_err(failed("fold the ledger of chunks"))?;
        copy.watermark = count(&row, 0)?;
        copy.rows_read += count(&row, 1)?;
        copy.rows_written += count(&row, 2)?;
        Ok(())
    }

    /// Enters chunks that are to be copied.
    pub(super) async fn plan(&mut self, fence: &Fence, planned: &[Planned]) -> Result<(), Error> {
        let (mut seqs, mut los, mut his) = (Vec::new(), Vec::new(), Vec::new());
        for one in planned {
            seqs.push(signed(one.seq));
            los.push(json(one.chunk.lo.as_ref())?);
            his.push(json(one.chunk.hi.as_ref())?);
        }
        let sql = format!(
            "INSERT INTO {} (run_id, step, seq, lo, hi, token)
             SELECT $1, $2, c.seq, c.lo, c.hi, $3 FROM unnest($4::bigint[], $5::text[], $6::text[]) AS c (seq, lo, hi)",
            self.chunks
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(self.run.as_str())
            .bind(self.step.as_str())
            .bind(signed(fence.token()))
            .bind(seqs)
            .bind(los)
            .bind(his)
            .execute(&mut *self.conn)
            .await
            .map(|_| ())
            .map_err(failed("enter chunks in the ledger"))
    }

    /// Takes back the chunks behind a number, as far as none behind them is committed, and moves the walker back to where they
    /// began. Whatever is committed keeps its bounds, and so does what lies before it.
    pub(super) async fn forget(&mut self, copy: &mut Copy, after: u64) -> Result<(), Error> {
        let sql = format!(
            "WITH gone AS (DELETE FROM {chunks} WHERE run_id = $1 AND step = $2 AND seq > $3 AND NOT committed
                           AND seq > (SELECT coalesce(max(seq), 0) FROM {chunks}
                                      WHERE run_id = $1 AND step = $2 AND committed)
                           RETURNING seq, lo)
             SELECT seq, lo FROM gone ORDER BY seq LIMIT 1",
            chunks = self.chunks
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(self.run.as_str())
            .bind(self.step.as_str())
            .bind(signed(after))
            .fetch_optional(&mut *self.conn)
            .await
            .map_err(failed("take chunks back"))?;
        let Some(row) = row else { return Ok(()) };
        copy.seq = count(&row, 0)?.saturating_sub(1);
        copy.hi = key(&row, 1)?;
        copy.ended = false;
        self.save(copy).await
    }

    /// Marks a chunk committed, in the transaction that copied it, and keeps the journal's head in the same statement. Fails
    /// where the chunk is marked already, so that nobody's work on it is entered twice.
    pub(super) async fn commit(
        &mut self,
        fence: &Fence,
        (seq, rows): (u64, Rows),
        head: &Head,
    ) -> Result<(), Error> {
        let sql = format!(
            "WITH head AS ({head})
             UPDATE {chunks} SET committed = true, rows_read = $6, rows_written = $7, token = $8
             WHERE run_id = $1 AND step = $4 AND seq = $5 AND NOT committed",
            head = keep_head_sql(&self.runs),
            chunks = self.chunks
        );
        let marked = sqlx::query(AssertSqlSafe(sql))
            .bind(self.run.as_str())
            .bind(signed(head.version))
            .bind(head.hash.as_str())
            .bind(self.step.as_str())
            .bind(signed(seq))
            .bind(signed(rows.read))
            .bind(signed(rows.written))
            .bind(signed(fence.token()))
            .execute(&mut *self.conn)
            .await
            .map_err(failed("mark a chunk in the ledger"))?;
        if marked.rows_affected() == 1 {
            Ok(())
        } else {
            Err(damaged(format!("chunk {seq} of {} vanished from the ledger", self.step)))
        }
    }

    /// What the ledger knows of the copy: the beginning of one when it knows nothing.
    pub(super) async fn state(&mut self) -> Result<CopyState, Error> {
        let beginning = CopyState {
            walk: Walk::At { seq: 0, hi: None },
            open: Vec::new(),
            watermark: 0,
            rows_read: 0,
            rows_written: 0,
        };
        if !has_table(self.conn, &self.copies).await? {
            return Ok(beginning);
        }
        let Some(copy) = self.load().await? else { return Ok(beginning) };
        self.state_of(copy).await
    }

    /// The same, where the copy's row is known.
    pub(super) async fn state_of(&mut self, copy: Copy) -> Result<CopyState, Error> {
        let rows = self.chunks().await?;
        let mut state = CopyState {
            open: Vec::new(),
            watermark: copy.seq,
            rows_read: copy.rows_read,
            rows_written: copy.rows_written,
            walk: if copy.ended {
                Walk::Ended { seq: copy.seq }
            } else {
                Walk::At { seq: copy.seq, hi: copy.hi }
            },
        };
        for row in &rows {
            let seq = count(row, 0)?;
            if flag(row, 3)? {
                state.rows_read += count(row, 4)?;
                state.rows_written += count(row, 5)?;
            } else {
                if state.open.is_empty() {
                    state.watermark = seq.saturating_sub(1);
                }
                let chunk = Chunk { lo: key(row, 1)?, hi: key(row, 2)? };
                state.open.push(Planned { seq, chunk });
            }
        }
        Ok(state)
    }

    /// Chunks that are not folded, in order. As many as the engine plans ahead, never as many as the table holds.
    async fn chunks(&mut self) -> Result<Vec<PgRow>, Error> {
        let sql = format!(
            "SELECT seq, lo, hi, committed, rows_read, rows_written FROM {}
             WHERE run_id = $1 AND step = $2 ORDER BY seq",
            self.chunks
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(self.run.as_str())
            .bind(self.step.as_str())
            .fetch_all(&mut *self.conn)
            .await
            .map_err(failed("read the ledger of chunks"))
    }
}

/// The error for a copy of which the ledger knows nothing.
pub(super) fn not_begun(step: &StepId) -> Error {
    Error::failed(FailureClass::Stale, format!("the ledger knows nothing of the copy of {step}"))
}

fn json(key: Option<&Key>) -> Result<Option<String>, Error> {
    key.map(key_to_json).transpose()
}

fn key(row: &PgRow, at: usize) -> Result<Option<Key>, Error> {
    let text: Option<String> = row.try_get(at).map_err(failed("read a key in the ledger"))?;
    text.as_deref().map(key_from_json).transpose()
}

fn count(row: &PgRow, at: usize) -> Result<u64, Error> {
    unsigned(row.try_get(at).map_err(failed("read the ledger"))?)
}

fn flag(row: &PgRow, at: usize) -> Result<bool, Error> {
    row.try_get(at).map_err(failed("read the ledger"))
}

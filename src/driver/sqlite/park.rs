//! Rows that can't be copied, kept apart: [`Parker`] for SQLite.
//!
//! Invariants:
//! - A row is parked in the transaction that copies the rest of its chunk and marks the chunk in the ledger: of a committed
//!   chunk every row is copied or parked.
//! - A row is parked for what the library said of that row alone. What fails without any row (a function that isn't there, a
//!   full disk) parks nothing and fails the chunk.
//! - A row is parked no longer once its statement went well in the same transaction.
//!
//! Absent on purpose: foreign keys that are checked at the commit. The library doesn't say which row broke one, so that they
//! fail the chunk.

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::cells::{bind_key, key_from_json, key_to_json};
use super::chunks::{self, Rows};
use super::connection::Tx;
use super::dual_write::finish;
use super::error::{failed, failure, refused};
use super::shape::{Shape, id_of};
use super::shape_sql::{PARKED, Which, copy_where};
use super::sink::{copied_before, copy_range, count, is_of_a_row};
use super::source::{nth_key, size};
use super::{Sqlite, ledger, prepared};
use crate::bounds::copying::{JUDGED_AT_ONCE, RETRIED_AT_ONCE};
use crate::copy::chunk::{Cell, Chunk, Key, Planned};
use crate::driver::parking::{Along, Parker, Passes, Refusal, reason, too_many_parked};
use crate::driver::{Copied, Error, Fence, TxKind, Work};
use crate::run::{Direction, Failure, Mapping, Parked, ParkedRow, RunId, StepId};

/// What is kept of a parked row.
struct Entry {
    place: i64,
    key: Key,
    code: Option<String>,
    reason: String,
    since: String,
}

#[async_trait]
impl Parker for Sqlite {
    async fn copy_parking(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        (chunk, most): (&Planned, u32),
    ) -> Result<Copied, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Park).await?;
        let done = self.copy_apart(&mut tx, (fence, work), (mapping, direction), (chunk, most));
        let (before, rows) = match done.await {
            Ok(done) => done,
            Err(error) => {
                tx.roll_back().await;
                return Err(error);
            }
        };
        let took_us = if before {
            tx.roll_back().await;
            0
        } else {
            tx.commit().await?
        };
        Ok(Copied {
            before,
            rows_read: rows.read,
            rows_written: rows.written,
            took_us,
            contended: false,
        })
    }

    async fn retry_parked(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<u64, Error> {
        let mut passes = Passes::over(self.count_parked(mapping).await?);
        while let Some(along) = passes.next() {
            let mut after = None;
            loop {
                let mut tx = self.connections.begin(fence, TxKind::Park).await?;
                let tried = self.retry_some(&mut tx, (mapping, direction), (along, after)).await;
                after = finish(tx, tried).await?;
                if after.is_none() {
                    break;
                }
            }
            passes.passed(self.count_parked(mapping).await?);
        }
        Ok(passes.left())
    }

    async fn parked(
        &self,
        mapping: &Mapping,
        direction: Direction,
        most: u32,
    ) -> Result<Parked, Error> {
        let mut reader = self.connections.snapshot().await?;
        let mut parked = Parked::default();
        // Where nothing is parked, the mapping's tables need not even be there.
        let noted = count_parked(reader.conn(), &id_of(mapping)).await?;
        if noted > 0 {
            let shape = prepared::shape(&self.shapes, reader.conn(), mapping).await?;
            parked = judge(reader.conn(), (&shape, direction), noted, most).await?;
        }
        reader.release().await;
        Ok(parked)
    }
}

impl Sqlite {
    async fn count_parked(&self, mapping: &Mapping) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let noted = count_parked(reader.conn(), &id_of(mapping)).await?;
        reader.release().await;
        Ok(noted)
    }

    /// Copies a chunk but for the rows that can't be, which it parks. Says whether the chunk was there before.
    async fn copy_apart(
        &self,
        tx: &mut Tx<'_>,
        (fence, work): (&Fence, &Work),
        (mapping, direction): (&Mapping, Direction),
        (chunk, most): (&Planned, u32),
    ) -> Result<(bool, Rows), Error> {
        let conn = tx.conn();
        if let Some(rows) = copied_before(conn, fence.run(), &work.step, chunk).await? {
            return Ok((true, rows));
        }
        let shape = prepared::shape(&self.shapes, conn, mapping).await?;
        // What can't even be done to no row at all is no row's fault.
        let nothing = copy_where(&shape, direction, "0");
        sqlx::query(AssertSqlSafe(nothing)).execute(&mut *conn).await.map_err(|e| refused(&e))?;
        let read = count(conn, &shape, &chunk.chunk).await?;
        let (written, refusals) = set_apart(conn, (&shape, direction), &chunk.chunk, most).await?;
        enter(conn, (fence.run(), &work.step), &shape, (refusals, most)).await?;
        let rows = Rows { read, written };
        chunks::commit(conn, fence, &work.step, chunk.seq, rows).await?;
        ledger::keep_head(conn, fence.run(), &work.head).await?;
        Ok((false, rows))
    }

    /// Tries some parked rows again, each by itself. Returns the place of the last one; `None` when there was none left.
    async fn retry_some(
        &self,
        tx: &mut Tx<'_>,
        (mapping, direction): (&Mapping, Direction),
        (along, after): (Along, Option<i64>),
    ) -> Result<Option<i64>, Error> {
        let conn = tx.conn();
        let shape = prepared::shape(&self.shapes, conn, mapping).await?;
        let entries = page(conn, &shape.id, (along, after, RETRIED_AT_ONCE)).await?;
        for entry in &entries {
            match attempt(conn, (&shape, direction), &Part::Key(&entry.key)).await? {
                Ok(_) => forget(conn, entry).await?,
                Err(refusal) => renew(conn, entry, &refusal).await?,
            }
        }
        Ok(entries.last().map(|entry| entry.place))
    }
}

/// Which rows are tried.
enum Part<'a> {
    Range(&'a Chunk),
    Key(&'a Key),
}

/// How many rows of a mapping are parked.
pub(super) async fn count_parked(conn: &mut SqliteConnection, id: &str) -> Result<u64, Error> {
    if !ledger::has_table(conn, PARKED).await? {
        return Ok(0);
    }
    let doing = "count parked rows";
    let row = sqlx::query("SELECT count(*) FROM phasegate_parked WHERE mapping = ?1")
        .bind(id)
        .fetch_one(conn)
        .await
        .map_err(failed(doing))?;
    ledger::unsigned(row.try_get(0).map_err(failed(doing))?)
}

/// Copies a range in halves, down to the single rows that are refused. Rows that can be copied stay written meanwhile, since a
/// row may be in the way of another.
async fn set_apart(
    conn: &mut SqliteConnection,
    (shape, direction): (&Shape, Direction),
    range: &Chunk,
    most: u32,
) -> Result<(u64, Vec<Refusal>), Error> {
    let (mut written, mut refusals) = (0, Vec::new());
    let mut open = vec![range.clone()];
    while let Some(range) = open.pop() {
        let failure = match attempt(conn, (shape, direction), &Part::Range(&range)).await? {
            Ok(rows) => {
                written += rows;
                continue;
            }
            Err(failure) => failure,
        };
        let half = u32::try_from(size(conn, shape, &range).await? / 2).unwrap_or(u32::MAX);
        if half > 0
            && let Some(middle) = nth_key(conn, shape, &range, half).await?
        {
            open.push(Chunk { lo: Some(middle.clone()), hi: range.hi });
            open.push(Chunk { lo: range.lo, hi: Some(middle) });
            continue;
        }
        // Nobody else writes while this transaction lasts, so that this is the range's one row.
        let Some(key) = nth_key(conn, shape, &range, 1).await? else { continue };
        refusals.push(Refusal { key, failure });
        if refusals.len() > most as usize {
            break;
        }
    }
    Ok((written, refusals))
}

/// Writes rows behind a savepoint, which also tells whether a trigger or a constraint has rolled the whole transaction back. What
/// the library said of a row is given; whatever else went wrong is an error.
async fn attempt(
    conn: &mut SqliteConnection,
    (shape, direction): (&Shape, Direction),
    part: &Part<'_>,
) -> Result<Result<u64, Failure>, Error> {
    run(conn, "SAVEPOINT phasegate_apart").await?;
    let tried = match part {
        Part::Range(range) => copy_range(conn, shape, direction, range).await,
        Part::Key(key) => {
            let sql = copy_where(shape, direction, &shape.key_is(Which::Old, &places(shape)));
            let query = bind_key(sqlx::query(AssertSqlSafe(sql)), key);
            query.execute(&mut *conn).await.map(|done| done.rows_affected())
        }
    };
    match tried {
        Ok(rows) => run(conn, "RELEASE phasegate_apart").await.map(|()| Ok(rows)),
        Err(error) if is_of_a_row(&error) => {
            run(conn, "ROLLBACK TO phasegate_apart").await?;
            run(conn, "RELEASE phasegate_apart").await?;
            Ok(Err(failure(&error)))
        }
        Err(error) => Err(refused(&error)),
    }
}

async fn run(conn: &mut SqliteConnection, sql: &'static str) -> Result<(), Error> {
    sqlx::query(sql).execute(conn).await.map(|_| ()).map_err(|error| refused(&error))
}

/// Where a key's cells are bound.
fn places(shape: &Shape) -> Vec<String> {
    (1..=shape.keys.len()).map(|at| format!("?{at}")).collect()
}

/// Parks rows, as long as there are not too many.
async fn enter(
    conn: &mut SqliteConnection,
    (run, step): (&RunId, &StepId),
    shape: &Shape,
    (mut refusals, most): (Vec<Refusal>, u32),
) -> Result<(), Error> {
    let Some(last) = refusals.pop() else { return Ok(()) };
    let there = count_parked(conn, &shape.id).await? + refusals.len() as u64;
    if there >= u64::from(most) {
        let cells = shown_key(shape, &last.key);
        let key: Vec<String> =
            cells.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let table = shape.table(Which::Old);
        return Err(too_many_parked(most, &table, (&key.join(", "), last.failure)));
    }
    refusals.push(last);
    for refusal in &refusals {
        sqlx::query(
            "INSERT OR REPLACE INTO phasegate_parked (mapping, key, run_id, step, code, reason, parked_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
        )
        .bind(&shape.id)
        .bind(key_to_json(&refusal.key)?)
        .bind(run.as_str())
        .bind(step.as_str())
        .bind(refusal.failure.code.as_deref())
        .bind(reason(&refusal.failure))
        .execute(&mut *conn)
        .await
        .map_err(failed("park rows"))?;
    }
    Ok(())
}

const READING: &str = "read the parked rows";

/// The next parked rows of a mapping, in the order in which they were parked.
async fn page(
    conn: &mut SqliteConnection,
    id: &str,
    (along, after, rows): (Along, Option<i64>, u32),
) -> Result<Vec<Entry>, Error> {
    let (turn, comes_behind) = along.sql();
    let sql = format!(
        "SELECT rowid, key, code, reason, parked_at FROM phasegate_parked
         WHERE mapping = ?1 AND (?2 IS NULL OR rowid {comes_behind} ?2) ORDER BY rowid{turn} LIMIT ?3"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(id)
        .bind(after)
        .bind(i64::from(rows))
        .fetch_all(conn)
        .await
        .map_err(failed(READING))?;
    rows.iter().map(entry).collect()
}

fn entry(row: &SqliteRow) -> Result<Entry, Error> {
    let key: String = row.try_get(1).map_err(failed(READING))?;
    Ok(Entry {
        place: row.try_get(0).map_err(failed(READING))?,
        key: key_from_json(&key)?,
        code: row.try_get(2).map_err(failed(READING))?,
        reason: row.try_get(3).map_err(failed(READING))?,
        since: row.try_get(4).map_err(failed(READING))?,
    })
}

/// Takes a row off the parked ones.
async fn forget(conn: &mut SqliteConnection, entry: &Entry) -> Result<(), Error> {
    sqlx::query("DELETE FROM phasegate_parked WHERE rowid = ?1")
        .bind(entry.place)
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(failed("take a row off the parked ones"))
}

/// Says what was wrong with a row when it was tried again.
async fn renew(conn: &mut SqliteConnection, entry: &Entry, refusal: &Failure) -> Result<(), Error> {
    sqlx::query("UPDATE phasegate_parked SET code = ?2, reason = ?3 WHERE rowid = ?1")
        .bind(entry.place)
        .bind(refusal.code.as_deref())
        .bind(reason(refusal))
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(failed("note why a row is parked"))
}

/// Holds parked rows against the tables until as many as asked for are found that aren't right.
async fn judge(
    conn: &mut SqliteConnection,
    (shape, direction): (&Shape, Direction),
    noted: u64,
    most: u32,
) -> Result<Parked, Error> {
    let (mut parked, mut seen, mut after) = (Parked::default(), 0, None);
    while parked.rows.len() < most.max(1) as usize {
        let entries = page(conn, &shape.id, (Along::Forth, after, JUDGED_AT_ONCE)).await?;
        let Some(last) = entries.last() else { break };
        after = Some(last.place);
        seen += entries.len() as u64;
        for entry in entries {
            if !is_right(conn, (shape, direction), &entry.key).await? {
                let key = shown_key(shape, &entry.key);
                let Entry { code, reason, since, .. } = entry;
                parked.rows.push(ParkedRow { key, code, reason, since });
            }
        }
    }
    parked.total = parked.rows.len() as u64 + noted.saturating_sub(seen);
    parked.rows.truncate(most as usize);
    Ok(parked)
}

/// Whether a row is as the mapping says, or not on the old side. One that the mapping's expressions can't even take is not.
async fn is_right(
    conn: &mut SqliteConnection,
    (shape, direction): (&Shape, Direction),
    key: &Key,
) -> Result<bool, Error> {
    let places = places(shape);
    let (has, right) =
        (shape.has(Which::Old, &places), shape.is_right_at(direction, &places, &places));
    let sql = format!("SELECT CASE WHEN {has} THEN {right} ELSE 1 END");
    match bind_key(sqlx::query(AssertSqlSafe(sql)), key).fetch_one(conn).await {
        Ok(row) => row.try_get(0).map_err(failed("judge the parked rows")),
        Err(error) if is_of_a_row(&error) => Ok(false),
        Err(error) => Err(refused(&error)),
    }
}

/// A key for people.
fn shown_key(shape: &Shape, key: &Key) -> Vec<(String, String)> {
    let text = |cell: &Cell| match cell {
        Cell::Text(text) => text.clone(),
        other => Key(vec![other.clone()]).to_string(),
    };
    shape.keys.iter().zip(&key.0).map(|(pair, cell)| (pair.old.clone(), text(cell))).collect()
}

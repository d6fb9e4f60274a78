//! Rows that can't be copied, kept apart: [`Parker`] for PostgreSQL.
//!
//! Invariants:
//! - A row is parked in the transaction that copies the rest of its chunk and marks the chunk in the ledger: of a committed
//!   chunk every row is copied or parked.
//! - A row is parked for what the server said of that row alone. What is no fault of a row (a lock that was not had, a statement
//!   that can't be run) parks nothing and fails the chunk.
//! - Who parks counts under a lock that is held until the commit, so that no more rows are parked than a plan allows, however
//!   many workers park at once.
//! - A row is parked no longer once its statements went well in the same transaction, and for those entries only that had been
//!   read before.
//!
//! Absent on purpose: when rows are tried again and what follows from those that are left, which is the engine's.

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::at_once::Manner;
use super::chunks::{Book, Rows};
use super::connection::Tx;
use super::dual_write::finish;
use super::error::{code, failed, failure, refused};
use super::marks::parked_name;
use super::repair::repair_keys;
use super::shape::{Shape, id_of};
use super::shape_sql::{Found, Pick, Statements};
use super::sink::{copied, copied_before, copy_rows, is_of_a_row, named, open, prepare};
use super::source::{as_text, nth_key, size};
use super::verify::by_index;
use super::{Postgres, cells, ledger, prepared};
use crate::bounds::copying::{JUDGED_AT_ONCE, RETRIED_AT_ONCE};
use crate::copy::chunk::{Chunk, Key, Planned};
use crate::driver::parking::{Along, Parker, Passes, Refusal, reason, too_many_parked};
use crate::driver::{Copied, Error, Fence, TxKind, Work};
use crate::run::{
    Direction, Failure, FailureClass, Mapping, Parked, ParkedRow, RunId, StepId, plural,
};

/// What is kept of a parked row.
struct Entry {
    key: Key,
    code: Option<String>,
    reason: String,
    since: String,
    /// Where its notes are.
    places: Vec<String>,
    /// A trigger left one of them: the row may be on the other side, as it was before.
    is_of_sync: bool,
}

#[async_trait]
impl Parker for Postgres {
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
        match done.await {
            Ok((true, rows)) => {
                tx.roll_back().await;
                Ok(copied(true, rows, 0))
            }
            Ok((false, rows)) => {
                self.connections.moments.wrote(mapping);
                let committed = tx.commit().await;
                self.connections.moments.wrote(mapping);
                Ok(copied(false, rows, committed?))
            }
            Err(error) => Err(tx.give_up(error).await),
        }
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
                let of = (mapping, direction);
                let tried = self.retry_some(&mut tx, of, (along, after.as_ref())).await;
                self.connections.moments.wrote(mapping);
                let finished = finish(tx, tried).await;
                self.connections.moments.wrote(mapping);
                after = finished?;
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
        let notes = reader.ours(&parked_name(&id_of(mapping)));
        let mut parked = Parked::default();
        // Where nothing is parked, the mapping's tables need not even be there.
        let entered = count(reader.conn()?, &notes).await?;
        if entered > 0 {
            let shape = prepared::shape(&self.shapes, reader.conn()?, mapping).await?;
            let schema = self.connections.schema();
            let statements = Statements::of(reader.conn()?, schema, (&shape, direction)).await?;
            by_index(reader.conn()?).await?;
            parked = judge(reader.conn()?, &statements, (&notes, entered), most).await?;
        }
        reader.release().await;
        Ok(parked)
    }
}

impl Postgres {
    async fn count_parked(&self, mapping: &Mapping) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let notes = reader.ours(&parked_name(&id_of(mapping)));
        let entered = count(reader.conn()?, &notes).await?;
        reader.release().await;
        Ok(entered)
    }

    /// Copies a chunk but for the rows that can't be, which it parks. Says whether the chunk was there before.
    async fn copy_apart(
        &self,
        tx: &mut Tx<'_>,
        (fence, work): (&Fence, &Work),
        (mapping, direction): (&Mapping, Direction),
        (chunk, most): (&Planned, u32),
    ) -> Result<(bool, Rows), Error> {
        let of = (fence.run(), &work.step);
        let (entered, version) = open(tx, of, mapping, chunk.seq).await?;
        if let Some(rows) = copied_before(tx, of, chunk, entered).await? {
            return Ok((true, rows));
        }
        let shape = prepared::shape_at(&self.shapes, tx.conn()?, mapping, version).await?;
        let statements = Statements::of_sync(tx, &shape, direction);
        let (rows, refusals) = set_apart(tx.conn()?, &statements, &chunk.chunk, most).await?;
        enter(tx, (of.0, Some(of.1)), &shape, (refusals, most)).await?;
        Book::of_tx(tx, of)?.commit(fence, (chunk.seq, rows), &work.head).await?;
        Ok((false, rows))
    }

    /// Tries some parked rows again, each by itself. Returns the last of them; `None` when there was none left.
    async fn retry_some(
        &self,
        tx: &mut Tx<'_>,
        (mapping, direction): (&Mapping, Direction),
        (along, after): (Along, Option<&Key>),
    ) -> Result<Option<Key>, Error> {
        let shape = prepared::shape(&self.shapes, tx.conn()?, mapping).await?;
        let statements = Statements::of_sync(tx, &shape, direction);
        let notes = tx.ours(&shape.parked_name());
        prepare(tx, &shape).await?;
        let entries = page(tx.conn()?, &shape, &notes, (along, after, RETRIED_AT_ONCE)).await?;
        for entry in &entries {
            let keys = std::slice::from_ref(&entry.key);
            match attempt(tx.conn()?, &statements, Pick::Keys(keys), entry.is_of_sync).await? {
                Ok(_) => forget(tx.conn()?, &notes, entry).await?,
                Err(refusal) => renew(tx.conn()?, &notes, entry, &refusal).await?,
            }
        }
        Ok(entries.into_iter().next_back().map(|entry| entry.key))
    }
}

/// How many rows are parked; none where there is no table of them.
pub(super) async fn count(conn: &mut PgConnection, notes: &str) -> Result<u64, Error> {
    if !ledger::has_table(conn, notes).await? {
        return Ok(0);
    }
    let doing = "count parked rows";
    // The columns of a key come between those that every such table has.
    let sql = format!(
        "SELECT count(DISTINCT to_jsonb(n) - '{{run_id,step,code,reason,parked_at}}'::text[]) FROM {notes} AS n"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await.map_err(failed(doing))?;
    ledger::unsigned(row.try_get(0).map_err(failed(doing))?)
}

/// Sees that nothing is parked, under a lock that keeps clients out: what ends the sync would leave such rows as they were, for
/// good. Whoever asked saw to it before the lock was had, and does so again in another attempt, where these are named.
pub(super) async fn none_parked(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let notes = tx.ours(&shape.parked_name());
    let rows = count(tx.conn()?, &notes).await?;
    if rows == 0 {
        return Ok(());
    }
    let message = format!("{} of mapping {} parked just now", plural(rows, "row"), shape.mapping);
    Err(Error::failed(FailureClass::Contention, message)
        .with_help("see `phasegate status RUN --parked`, mend the rows, then retry"))
}

/// Copies a range in halves, down to the single rows that are refused. Rows that can be copied stay written meanwhile, since a
/// row may be in the way of another.
async fn set_apart(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    range: &Chunk,
    most: u32,
) -> Result<(Rows, Vec<Refusal>), Error> {
    let shape = statements.shape;
    let (mut rows, mut refusals) = (Rows::default(), Vec::new());
    let mut open = vec![range.clone()];
    while let Some(range) = open.pop() {
        if let Ok(done) = attempt(conn, statements, Pick::Chunk(&range), false).await? {
            rows.read += done.read;
            rows.written += done.written;
            continue;
        }
        let half = u32::try_from(size(conn, shape, &range).await? / 2).unwrap_or(u32::MAX);
        if half > 0 {
            match nth_key(conn, shape, &range, half).await? {
                Some(middle) => {
                    open.push(Chunk { lo: Some(middle.clone()), hi: range.hi });
                    open.push(Chunk { lo: range.lo, hi: Some(middle) });
                }
                // Clients have deleted rows since they were counted: what is left is looked at anew.
                None => open.push(range),
            }
            continue;
        }
        let Some(key) = nth_key(conn, shape, &range, 1).await? else { continue };
        // Once more by its key alone. A client may have been making the same row a moment ago, and another unique index have
        // been met before the key's.
        match attempt(conn, statements, Pick::Keys(std::slice::from_ref(&key)), false).await? {
            Ok(done) => {
                rows.read += done.read;
                rows.written += done.written;
            }
            Err(failure) => {
                rows.read += 1;
                refusals.push(Refusal { key, failure });
                if refusals.len() > most as usize {
                    break;
                }
            }
        }
    }
    Ok((rows, refusals))
}

/// Writes picked rows behind a savepoint, constraints that wait for the end included. What the server said of a row is given;
/// whatever else went wrong is an error.
async fn attempt(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    pick: Pick<'_>,
    writes_over: bool,
) -> Result<Result<Rows, Failure>, Error> {
    run(conn, "SAVEPOINT phasegate_apart").await?;
    let tried = async {
        let rows = if writes_over {
            let written = repair_keys(conn, statements, &pick).await?;
            Rows { read: written, written }
        } else {
            copy_rows(conn, statements, (pick, Manner::Careful)).await?
        };
        sqlx::query("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *conn).await?;
        Ok(rows)
    }
    .await;
    match tried {
        Ok(rows) => run(conn, "RELEASE SAVEPOINT phasegate_apart").await.map(|()| Ok(rows)),
        Err(error) if code(&error).is_some_and(is_of_a_row) => {
            run(conn, "ROLLBACK TO SAVEPOINT phasegate_apart").await?;
            Ok(Err(failure(&error)))
        }
        Err(error) => Err(refused(&error)),
    }
}

async fn run(conn: &mut PgConnection, sql: &'static str) -> Result<(), Error> {
    sqlx::query(sql).execute(conn).await.map(|_| ()).map_err(|error| refused(&error))
}

/// Parks rows, as long as there are not too many. Without a step they are of the sync: the row may be on the other side, as it
/// was before.
pub(super) async fn enter(
    tx: &mut Tx<'_>,
    (run, step): (&RunId, Option<&StepId>),
    shape: &Shape,
    (mut refusals, most): (Vec<Refusal>, u32),
) -> Result<(), Error> {
    let Some(last) = refusals.pop() else { return Ok(()) };
    let doing = "park rows";
    let notes = tx.ours(&shape.parked_name());
    // Others that park wait here until this is committed, so that they count it.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("phasegate: rows parked in {notes}"))
        .execute(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    let there = count(tx.conn()?, &notes).await? + refusals.len() as u64;
    if there >= u64::from(most) {
        let key = named(shape, &last.key);
        return Err(too_many_parked(most, &shape.old.sql(), (&key, last.failure)));
    }
    refusals.push(last);
    let marks = shape.mark_columns();
    let values: Vec<String> = shape
        .keys
        .iter()
        .enumerate()
        .map(|(at, pair)| format!("${}::text::{}", at + 5, pair.bound_sql()))
        .collect();
    let sql = format!(
        "INSERT INTO {notes} (run_id, step, code, reason, {}) VALUES ($1, $2, $3, $4, {})",
        marks.join(", "),
        values.join(", ")
    );
    for refusal in &refusals {
        let query = sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(run.as_str())
            .bind(step.map(StepId::as_str))
            .bind(refusal.failure.code.as_deref())
            .bind(reason(&refusal.failure));
        let query = cells::bind_key(query, &refusal.key);
        query.execute(tx.conn()?).await.map_err(failed(doing))?;
    }
    Ok(())
}

/// The next parked rows in the order of keys.
async fn page(
    conn: &mut PgConnection,
    shape: &Shape,
    notes: &str,
    (along, after, rows): (Along, Option<&Key>, u32),
) -> Result<Vec<Entry>, Error> {
    // By their full names, or the order would be that of the texts that are given back.
    let marks: Vec<String> =
        shape.mark_columns().iter().map(|mark| format!("phasegate_n.{mark}")).collect();
    let keys = marks.join(", ");
    let (turn, comes_behind) = along.sql();
    let order: Vec<String> = marks.iter().map(|mark| format!("{mark}{turn}")).collect();
    let behind = after.map_or_else(String::new, |_| {
        let bounds: Vec<String> = shape
            .keys
            .iter()
            .enumerate()
            .map(|(at, pair)| format!("${}::text::{}", at + 1, pair.bound_sql()))
            .collect();
        format!("WHERE ({keys}) {comes_behind} ({})", bounds.join(", "))
    });
    let sql = format!(
        "SELECT {}, (array_agg(code ORDER BY parked_at DESC))[1], (array_agg(reason ORDER BY parked_at DESC))[1],
                to_char(min(parked_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                array_agg(phasegate_n.ctid::text), bool_or(step IS NULL)
         FROM {notes} AS phasegate_n {behind} GROUP BY {keys} ORDER BY {} LIMIT {rows}",
        as_text(&marks),
        order.join(", ")
    );
    let query = sqlx::query(AssertSqlSafe(sql));
    let query = match after {
        Some(key) => cells::bind_key(query, key),
        None => query,
    };
    let rows = query.fetch_all(conn).await.map_err(failed(READING))?;
    rows.iter().map(|row| entry(row, shape)).collect()
}

const READING: &str = "read the parked rows";

fn entry(row: &PgRow, shape: &Shape) -> Result<Entry, Error> {
    let behind = shape.keys.len();
    Ok(Entry {
        key: cells::key(row, shape)?,
        code: row.try_get(behind).map_err(failed(READING))?,
        reason: row.try_get(behind + 1).map_err(failed(READING))?,
        since: row.try_get(behind + 2).map_err(failed(READING))?,
        places: row.try_get(behind + 3).map_err(failed(READING))?,
        is_of_sync: row.try_get(behind + 4).map_err(failed(READING))?,
    })
}

/// Takes a row's notes away.
async fn forget(conn: &mut PgConnection, notes: &str, entry: &Entry) -> Result<(), Error> {
    let sql = format!("DELETE FROM {notes} WHERE ctid = ANY ($1::text[]::tid[])");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(&entry.places);
    query.execute(conn).await.map(|_| ()).map_err(failed("take a row off the parked ones"))
}

/// Says what was wrong with a row when it was tried again.
async fn renew(
    conn: &mut PgConnection,
    notes: &str,
    entry: &Entry,
    refusal: &Failure,
) -> Result<(), Error> {
    let text = reason(refusal);
    if entry.code == refusal.code && entry.reason == text {
        return Ok(());
    }
    let sql =
        format!("UPDATE {notes} SET code = $2, reason = $3 WHERE ctid = ANY ($1::text[]::tid[])");
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(&entry.places)
        .bind(refusal.code.as_deref())
        .bind(text);
    query.execute(conn).await.map(|_| ()).map_err(failed("note why a row is parked"))
}

/// Holds parked rows against the tables until as many as asked for are found that aren't right.
async fn judge(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    (notes, entered): (&str, u64),
    most: u32,
) -> Result<Parked, Error> {
    let (mut parked, mut seen, mut after) = (Parked::default(), 0, None);
    while parked.rows.len() < most.max(1) as usize {
        let next = (Along::Forth, after.as_ref(), JUDGED_AT_ONCE);
        let entries = page(conn, statements.shape, notes, next).await?;
        let Some(last) = entries.last() else { break };
        after = Some(last.key.clone());
        seen += entries.len() as u64;
        for at in wrong(conn, statements, &entries).await? {
            parked.rows.push(shown(statements.shape, &entries[at]));
        }
    }
    parked.total = parked.rows.len() as u64 + entered.saturating_sub(seen);
    parked.rows.truncate(most as usize);
    Ok(parked)
}

/// Which of some parked rows aren't right, by their places in the list.
async fn wrong(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    entries: &[Entry],
) -> Result<Vec<usize>, Error> {
    let keys: Vec<Key> = entries.iter().map(|entry| entry.key.clone()).collect();
    let mut wrong = Vec::new();
    let mut open: Vec<_> = std::iter::once(0..keys.len()).collect();
    while let Some(range) = open.pop() {
        if are_right(conn, statements, &keys[range.clone()]).await? {
            continue;
        }
        if range.len() == 1 {
            wrong.push(range.start);
            continue;
        }
        let middle = range.start + range.len() / 2;
        open.push(middle..range.end);
        open.push(range.start..middle);
    }
    Ok(wrong)
}

/// Whether rows are as the mapping says, or on neither side. One that the mapping's expressions can't even take is not.
async fn are_right(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    keys: &[Key],
) -> Result<bool, Error> {
    run(conn, "SAVEPOINT phasegate_judged").await?;
    let pick = Pick::Keys(keys);
    let sql = format!(
        "SELECT coalesce(bool_and(found = {}), true) FROM {}",
        Found::Right as u8,
        statements.judged(&pick)
    );
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)).persistent(false), statements.shape);
    match query.fetch_one(&mut *conn).await {
        Ok(row) => {
            run(conn, "RELEASE SAVEPOINT phasegate_judged").await?;
            row.try_get(0).map_err(failed("judge the parked rows"))
        }
        Err(error) if code(&error).is_some_and(is_of_a_row) => {
            run(conn, "ROLLBACK TO SAVEPOINT phasegate_judged").await?;
            Ok(false)
        }
        Err(error) => Err(refused(&error)),
    }
}

/// A parked row for people.
fn shown(shape: &Shape, entry: &Entry) -> ParkedRow {
    let cells = shape.keys.iter().zip(&entry.key.0);
    ParkedRow {
        key: cells
            .map(|(pair, cell)| (pair.old.clone(), cells::text(cell).unwrap_or_default()))
            .collect(),
        code: entry.code.clone(),
        reason: entry.reason.clone(),
        since: entry.since.clone(),
    }
}

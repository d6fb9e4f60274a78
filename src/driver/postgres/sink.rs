//! Copying chunks: [`Sink`] for PostgreSQL.
//!
//! Invariants:
//! - A chunk's rows and its mark in the ledger commit together, and a marked chunk is not copied again.
//! - A chunk is copied under the bounds that the ledger has, or not at all.
//! - Locks are taken in the order of the sync's triggers, the source's row before the target's, and within a table in the order
//!   of keys. What would have to wait longer than a chunk may is given back to be tried again.
//! - Nothing that clients wrote since the sync began is written over: to another table only rows that aren't there are
//!   inserted (`at_once` says how), while their source rows can't be deleted; what is written over (`on_existing: update`, or in place with
//!   `both`) is locked in one statement and decided on in the next. In place with `forward` one statement does: what it decides
//!   by stands in the row itself, which is read again after a wait.
//! - A row that can't be copied stops the copy and is named; nothing is skipped without a word.
//!
//! Absent on purpose: the two cases that a lock on the source can't cover (a client's snapshot older than the chunk, a row that
//! leaves the mapping's filter). The sync notes their keys, and `settle` puts them right.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::at_once::{self, Manner};
use super::catalogue::name_sql;
use super::chunks::{Book, Entered, Rows, not_begun};
use super::connection::Tx;
use super::error::{code, failed, failure, refused};
use super::marks::GUARD;
use super::planted::Fault;
use super::shape::Shape;
use super::shape_sql::{BY_INDEX, Pick, Statements, Which};
use super::{Postgres, ledger, patience, prepared, settle, shape, source};
use crate::bounds::copying::HALVINGS_MAX;
use crate::bounds::postgres::{CLEARINGS_MAX, SHORT_LOCK_MS};
use crate::clock::Stopwatch;
use crate::copy::chunk::{Chunk, Key, Planned};
use crate::driver::parking::uncopied;
use crate::driver::{Applied, Copied, CopyState, Error, Fence, Sink, TxKind, Work};
use crate::run::{Direction, FailureClass, Mapping, OnExisting, RunId, StepId};

/// How many settings [`BY_INDEX`] sets, each a column of what it gives.
const SETTINGS: usize = 3;

#[async_trait]
impl Sink for Postgres {
    async fn copy_state(&self, run: &RunId, step: &StepId) -> Result<CopyState, Error> {
        let mut reader = self.connections.snapshot().await?;
        let state = Book::of_reader(&mut reader, (run, step))?.state().await?;
        reader.release().await;
        Ok(state)
    }

    async fn copy_chunk(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Planned,
    ) -> Result<Copied, Error> {
        let mapped = (mapping, direction);
        let mut manner = self.luck.manner();
        let mut failed = match self.copy_once(fence, work, mapped, (chunk, manner)).await {
            Ok(copied) => return Ok(copied),
            Err(failed) => failed,
        };
        if manner == Manner::AtOnce && failed.is_taken() {
            self.luck.is_out();
            manner = Manner::Careful;
            failed = match self.copy_once(fence, work, mapped, (chunk, manner)).await {
                Ok(copied) => return Ok(Copied { contended: true, ..copied }),
                Err(failed) => failed,
            };
        }
        if !failed.is_of_a_row {
            return Err(failed.error);
        }
        // What the failed transaction had locked is free again; the row is looked for in one of its own.
        let mut cleared = *self.cleared.lock().await;
        let mut named = self.name_row(fence, (mapping, direction), &chunk.chunk).await;
        let mut clearings = 0;
        // In its way may be the copy of a row that is gone, which a trigger could only note.
        while matches!(named, Ok(Some(_))) && self.puts_right(fence, mapping, &mut cleared).await? {
            clearings += 1;
            if clearings > CLEARINGS_MAX {
                return Err(yielded(failed.error));
            }
            named = self.name_row(fence, (mapping, direction), &chunk.chunk).await;
        }
        match named {
            Ok(Some(named)) => Err(named),
            // The same rows go in now: a client was making one of them, and the server met another unique index's entry of it
            // before the key's. The chunk is tried again.
            Ok(None) => Err(yielded(failed.error)),
            Err(_) => Err(failed.error),
        }
    }

    async fn finish_copy(&self, fence: &Fence, work: &Work) -> Result<Applied, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Finish).await?;
        match finish(&mut tx, fence, work).await {
            Ok(applied) if applied.before => {
                tx.roll_back().await;
                Ok(applied)
            }
            Ok(applied) => {
                tx.commit().await?;
                Ok(applied)
            }
            Err(error) => Err(tx.give_up(error).await),
        }
    }
}

/// A failure that was another's doing, and is over.
fn yielded(error: Error) -> Error {
    match error {
        Error::Failed(failure) => {
            Error::Failed(crate::run::Failure { class: FailureClass::Contention, ..failure })
        }
        other => other,
    }
}

pub(super) const fn copied(before: bool, rows: Rows, took_us: u64) -> Copied {
    let Rows { read: rows_read, written: rows_written } = rows;
    Copied { before, rows_read, rows_written, took_us, contended: false }
}

/// Whether a chunk was copied now. A chunk that the ledger has folded counts no rows any more: they are in the totals.
enum Done {
    Before(Rows),
    Now(Rows),
}

/// An error on the way, and whether a row's content may be to blame.
struct Failed {
    error: Error,
    is_of_a_row: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, is_of_a_row: false }
    }
}

impl Failed {
    fn of_failure(failure: crate::run::Failure) -> Self {
        let is_of_a_row = failure.code.as_deref().is_some_and(is_of_a_row);
        Self { error: Error::Failed(failure), is_of_a_row }
    }

    fn of_statement(error: &sqlx::Error) -> Self {
        Self::of_failure(failure(error))
    }

    /// Whether some unique index has a row already that was to be inserted.
    fn is_taken(&self) -> bool {
        matches!(&self.error, Error::Failed(failure) if failure.code.as_deref() == Some("23505"))
    }
}

/// Whether an SQLSTATE tells of data rather than of the statement: values, constraints, limits of a row, what users' triggers
/// raise.
pub(super) fn is_of_a_row(code: &str) -> bool {
    matches!(code.get(..2), Some("21" | "22" | "23" | "44" | "54" | "P0"))
}

/// Has the rest of the transaction find rows by the key's index, and its own writes not mirrored by the mapping's triggers.
pub(super) async fn prepare(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    sqlx::query(BY_INDEX)
        .bind(GUARD)
        .bind(&shape.id)
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("mark our own writes"))
}

/// Prepares the transaction of a chunk in one statement: as [`prepare`], and reads what the ledger has of the chunk and which
/// version the catalogue has of the mapping's tables.
pub(super) async fn open(
    tx: &mut Tx<'_>,
    (run, step): (&RunId, &StepId),
    mapping: &Mapping,
    seq: u64,
) -> Result<(Option<Entered>, String), Error> {
    let sql = format!(
        "SELECT phasegate_set.*, ({version}), {entered}
         FROM ({by_index}) AS phasegate_set LEFT JOIN {chunks} AS c ON c.run_id = $5 AND c.step = $6 AND c.seq = $7",
        version = prepared::VERSION,
        entered = Entered::COLUMNS.map(|column| format!("c.{column}")).join(", "),
        by_index = BY_INDEX.replace("$1", "$3").replace("$2", "$4"),
        chunks = tx.ours("chunks")
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(name_sql(&mapping.from.table))
        .bind(name_sql(&mapping.into.table))
        .bind(GUARD)
        .bind(shape::id_of(mapping))
        .bind(run.as_str())
        .bind(step.as_str())
        .bind(ledger::signed(seq))
        .fetch_one(tx.conn()?)
        .await
        .map_err(failed("prepare to copy a chunk"))?;
    let version = row.try_get(SETTINGS).map_err(failed("prepare to copy a chunk"))?;
    Ok((Entered::of_row(&row, SETTINGS + 1)?, version))
}

/// The rows of a chunk that is committed, or `None` for one that is to be copied under just these bounds.
pub(super) async fn copied_before(
    tx: &mut Tx<'_>,
    (run, step): (&RunId, &StepId),
    chunk: &Planned,
    entered: Option<Entered>,
) -> Result<Option<Rows>, Error> {
    if let Some(entered) = entered {
        if entered.chunk != chunk.chunk {
            let message = format!("chunk {} of {step} has other bounds in the ledger", chunk.seq);
            return Err(Error::failed(FailureClass::Stale, message));
        }
        return Ok(entered.committed.then_some(entered.rows));
    }
    let copy = Book::of_tx(tx, (run, step))?.load().await?.ok_or_else(|| not_begun(step))?;
    if chunk.seq <= copy.watermark {
        return Ok(Some(Rows::default()));
    }
    let message = format!("chunk {} of {step} was never planned", chunk.seq);
    Err(Error::failed(FailureClass::Stale, message))
}

/// Copies the picked rows.
pub(super) async fn copy_rows(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    (pick, manner): (Pick<'_>, Manner),
) -> Result<Rows, sqlx::Error> {
    let mut rows = Rows::default();
    if manner == Manner::AtOnce && statements.shape.inserts_only() {
        let standing = at_once::standing(conn, statements, &pick).await?;
        if !standing.is_odd {
            let sql = statements.insert_at_once(&pick, standing);
            rows.written = write(conn, statements, &pick, sql).await?;
            rows.read = rows.written + standing.rows.unsigned_abs();
            return Ok(rows);
        }
    }
    let writes_over = statements.shape.on_existing == OnExisting::Update;
    if statements.shape.in_place {
        let first = if statements.reads_marks() {
            statements.lock(Which::Old, &pick)
        } else {
            statements.count(&pick)
        };
        rows.read = locked(conn, statements, &pick, first).await?;
    } else if writes_over {
        rows.read = locked(conn, statements, &pick, statements.lock(Which::Old, &pick)).await?;
        locked(conn, statements, &pick, statements.lock(Which::New, &pick)).await?;
        rows.written += write(conn, statements, &pick, statements.insert(&pick)).await?;
    } else {
        rows.written += write(conn, statements, &pick, statements.insert(&pick)).await?;
        // The count is of a moment later; none of the rows read can be gone by then.
        rows.read = number(conn, statements, &pick, statements.count(&pick)).await?;
        rows.read = rows.read.max(rows.written);
    }
    let updates = statements.shape.in_place || writes_over;
    if let Some(sql) = statements.update(&pick).filter(|_| updates) {
        rows.written += write(conn, statements, &pick, sql).await?;
    }
    Ok(rows)
}

/// The count that a statement gives.
pub(super) async fn number(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    pick: &Pick<'_>,
    sql: String,
) -> Result<u64, sqlx::Error> {
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)), statements.shape);
    let count: i64 = query.fetch_one(conn).await?.try_get(0)?;
    u64::try_from(count).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// The count that a statement gives which locks rows: what comes behind it may wait so much less.
pub(super) async fn locked(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    pick: &Pick<'_>,
    sql: String,
) -> Result<u64, sqlx::Error> {
    let watch = Stopwatch::start();
    let count = number(conn, statements, pick, sql).await?;
    patience::spent(conn, watch.elapsed_ms()).await?;
    Ok(count)
}

/// The rows that a statement changes.
pub(super) async fn write(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    pick: &Pick<'_>,
    sql: String,
) -> Result<u64, sqlx::Error> {
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)), statements.shape);
    Ok(query.execute(conn).await?.rows_affected())
}

impl Postgres {
    async fn copy(
        &self,
        tx: &mut Tx<'_>,
        (fence, work): (&Fence, &Work),
        (mapping, direction): (&Mapping, Direction),
        (chunk, manner): (&Planned, Manner),
    ) -> Result<Done, Failed> {
        let of = (fence.run(), &work.step);
        let (entered, version) = open(tx, of, mapping, chunk.seq).await?;
        if let Some(rows) = copied_before(tx, of, chunk, entered).await? {
            return Ok(Done::Before(rows));
        }
        let shape = prepared::shape_at(&self.shapes, tx.conn()?, mapping, version).await?;
        let statements = Statements::of_sync(tx, &shape, direction);
        let rows = if Fault::NoLedgerTransaction.is_planted() {
            Rows::default()
        } else {
            copy_rows(tx.conn()?, &statements, (Pick::Chunk(&chunk.chunk), manner))
                .await
                .map_err(|error| Failed::of_statement(&error))?
        };
        Book::of_tx(tx, of)?.commit(fence, (chunk.seq, rows), &work.head).await?;
        Ok(Done::Now(rows))
    }

    /// Copies a chunk in a transaction of its own. Where its own work may be what takes so long, it hardly waits for anybody.
    async fn copy_once(
        &self,
        fence: &Fence,
        work: &Work,
        mapped: (&Mapping, Direction),
        (chunk, manner): (&Planned, Manner),
    ) -> Result<Copied, Failed> {
        if self.pace.manner() == Manner::AtOnce {
            match self.copy_waiting(fence, work, mapped, (chunk, manner, None)).await {
                Err(Failed { error, .. }) if patience::is_out(&error) => self.pace.is_out(),
                Err(failed) => return Err(failed),
                Ok(copied) => {
                    self.pace.held();
                    return Ok(copied);
                }
            }
        }
        let short = Some(SHORT_LOCK_MS);
        self.copy_waiting(fence, work, mapped, (chunk, manner, short)).await
    }

    /// The same once, waiting for each lock as long as it says; else a while, and a while for all of them.
    async fn copy_waiting(
        &self,
        fence: &Fence,
        work: &Work,
        mapped: (&Mapping, Direction),
        (chunk, manner, lock_ms): (&Planned, Manner, Option<u64>),
    ) -> Result<Copied, Failed> {
        let mut tx = self.connections.begin_waiting(fence, TxKind::Chunk, lock_ms).await?;
        match self.copy(&mut tx, (fence, work), mapped, (chunk, manner)).await {
            Ok(Done::Before(rows)) => {
                tx.roll_back().await;
                Ok(copied(true, rows, 0))
            }
            // A constraint that is checked at the end may still refuse.
            Ok(Done::Now(rows)) => {
                let contended = tx.has_waited();
                self.connections.moments.wrote(mapped.0);
                let committed = tx.commit().await;
                self.connections.moments.wrote(mapped.0);
                match committed {
                    Ok(took_us) => {
                        if Fault::NoLedgerTransaction.is_planted() {
                            self.copy_beside_ledger(fence, mapped, &chunk.chunk).await?;
                        }
                        if manner == Manner::AtOnce {
                            self.luck.held();
                        }
                        Ok(Copied { contended, ..copied(false, rows, took_us) })
                    }
                    Err(Error::Failed(failure)) => Err(Failed::of_failure(failure)),
                    Err(error) => Err(error.into()),
                }
            }
            Err(Failed { error, is_of_a_row }) => {
                Err(Failed { error: tx.give_up(error).await, is_of_a_row })
            }
        }
    }

    /// Copies a range that the ledger has already: a fault that tests plant.
    async fn copy_beside_ledger(
        &self,
        fence: &Fence,
        (mapping, direction): (&Mapping, Direction),
        range: &Chunk,
    ) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Chunk).await?;
        let shape = prepared::shape(&self.shapes, tx.conn()?, mapping).await?;
        let statements = Statements::of_sync(&tx, &shape, direction);
        prepare(&mut tx, &shape).await?;
        copy_rows(tx.conn()?, &statements, (Pick::Chunk(range), Manner::Careful))
            .await
            .map_err(|error| refused(&error))?;
        tx.commit().await.map(|_| ())
    }

    /// Puts noted keys right, if there are any that can be. Another worker may have done so since they had been put right as often as
    /// is given.
    async fn puts_right(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        seen: &mut u64,
    ) -> Result<bool, Error> {
        let mut cleared = self.cleared.lock().await;
        if *cleared == *seen {
            let swept = settle::go_over((&self.connections, fence), mapping).await?;
            *cleared += u64::from(swept.righted > 0);
        }
        Ok(*cleared > std::mem::replace(seen, *cleared))
    }

    /// The error of a range with the key of a row that causes it, found in halves in a transaction that is rolled back.
    async fn name_row(
        &self,
        fence: &Fence,
        (mapping, direction): (&Mapping, Direction),
        range: &Chunk,
    ) -> Result<Option<Error>, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Park).await?;
        let found = async {
            let shape = prepared::shape(&self.shapes, tx.conn()?, mapping).await?;
            let statements = Statements::of_sync(&tx, &shape, direction);
            prepare(&mut tx, &shape).await?;
            Ok(find_row(tx.conn()?, &statements, range).await?.map(|(key, of_row)| {
                uncopied((&named(&shape, &key), &shape.old.sql()), failure(&of_row))
            }))
        }
        .await;
        tx.roll_back().await;
        found
    }
}

/// A key with the names of its columns.
pub(super) fn named(shape: &Shape, key: &Key) -> String {
    let one = |(name, cell): (&String, &crate::copy::chunk::Cell)| {
        format!("{name} = {}", Key(vec![cell.clone()]))
    };
    let names = shape.bare_key(Which::Old);
    names.iter().zip(&key.0).map(one).collect::<Vec<_>>().join(", ")
}

/// The first row that can't be copied, and its own error. Rows that can be stay written while others are tried, since a row may
/// be in the way of another.
async fn find_row(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    range: &Chunk,
) -> Result<Option<(Key, sqlx::Error)>, Error> {
    let shape = statements.shape;
    let mut range = range.clone();
    for _ in 0..HALVINGS_MAX {
        let rows = source::size(conn, shape, &range).await?;
        if rows <= 1 {
            break;
        }
        let half = u32::try_from(rows / 2).unwrap_or(u32::MAX);
        let Some(middle) = source::nth_key(conn, shape, &range, half).await? else { break };
        let lower = Chunk { lo: range.lo.clone(), hi: Some(middle.clone()) };
        match try_range(conn, statements, &lower).await? {
            None => range.lo = Some(middle),
            Some(_) => range = lower,
        }
    }
    let Some(key) = source::nth_key(conn, shape, &range, 1).await? else { return Ok(None) };
    let error = try_range(conn, statements, &range).await?;
    // Somebody holding a lock is no fault of the row.
    Ok(error.filter(|error| code(error).is_some_and(is_of_a_row)).map(|error| (key, error)))
}

/// Copies a range behind a savepoint, constraints that wait for the end included. Gives the error, if there is one.
async fn try_range(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    range: &Chunk,
) -> Result<Option<sqlx::Error>, Error> {
    let run = async |conn: &mut PgConnection, sql: &'static str| {
        sqlx::query(sql).execute(conn).await.map(|_| ()).map_err(|error| refused(&error))
    };
    run(conn, "SAVEPOINT phasegate_row").await?;
    let careful = (Pick::Chunk(range), Manner::Careful);
    let mut tried = copy_rows(conn, statements, careful).await.map(|_| ());
    if tried.is_ok() {
        tried = sqlx::query("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *conn).await.map(|_| ());
    }
    match tried {
        Ok(()) => run(conn, "RELEASE SAVEPOINT phasegate_row").await.map(|()| None),
        Err(error) => {
            run(conn, "ROLLBACK TO SAVEPOINT phasegate_row").await?;
            Ok(Some(error))
        }
    }
}

async fn finish(tx: &mut Tx<'_>, fence: &Fence, work: &Work) -> Result<Applied, Error> {
    if let Some(before) = ledger::applied(tx, fence.run(), &work.step, work.way).await? {
        return Ok(before);
    }
    let step = &work.step;
    let mut book = Book::of_tx(tx, (fence.run(), step))?;
    let mut copy = book.load().await?.ok_or_else(|| not_begun(step))?;
    book.fold(&mut copy).await?;
    let detail = copy.whole(step)?;
    book.save(&copy).await?;
    ledger::record(tx, fence, work, (copy.rows_read, Some(detail))).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture::{Database, class, entered, head, mapping, work};
    use super::*;
    use crate::copy::chunk::Walk;
    use crate::driver::{Session as _, Source as _, Window};
    use crate::run::{Ending, Way};

    const SCHEMA: &str = "CREATE TABLE leads (id int PRIMARY KEY, email text);
        CREATE TABLE leads_v2 (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            email text UNIQUE CHECK (email <> 'bad'), short varchar(4));
        INSERT INTO leads SELECT x * 3, 'E' || x FROM generate_series(1, 100) AS x;";

    fn leads() -> Mapping {
        let mut mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
        mapping.columns = vec![("email".into(), "lower(email)".into())];
        mapping
    }

    async fn plan(postgres: &Postgres, fence: &Fence, rows: u32, count: u32) -> CopyState {
        let step = work("copy", Way::Forward);
        postgres
            .plan_chunks(fence, &step, &leads(), Window { rows, count, is_fixed: true })
            .await
            .unwrap()
    }

    async fn copy(postgres: &Postgres, fence: &Fence, chunk: &Planned) -> Result<Copied, Error> {
        copy_mapped(postgres, fence, (&leads(), Direction::Forward), chunk).await
    }

    async fn copy_mapped(
        postgres: &Postgres,
        fence: &Fence,
        (mapping, direction): (&Mapping, Direction),
        chunk: &Planned,
    ) -> Result<Copied, Error> {
        let step = work("copy", Way::Forward);
        postgres.copy_chunk(fence, &step, mapping, direction, chunk).await
    }

    #[tokio::test]
    async fn chunks_are_copied_once_in_any_order_and_add_up() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        database.run("INSERT INTO leads_v2 OVERRIDING SYSTEM VALUE VALUES (3, 'newer')").await;
        let postgres = database.open().await;
        let fences = entered(&postgres, 1).await;
        let (steps, fence) = (&fences[0], &fences[1]);
        let step = work("copy", Way::Forward);
        assert_eq!(class(postgres.finish_copy(steps, &step).await), FailureClass::Stale);
        let planned = plan(&postgres, fence, 40, 9).await;
        assert_eq!((planned.walk.clone(), planned.open.len()), (Walk::Ended { seq: 3 }, 3));

        let last = copy(&postgres, fence, &planned.open[2]).await.unwrap();
        assert_eq!((last.before, last.rows_read, last.rows_written), (false, 20, 20));
        assert!(last.took_us > 0);
        let state = postgres.copy_state(fence.run(), &step.step).await.unwrap();
        assert_eq!((state.watermark, state.rows_written, state.open.len()), (0, 20, 2));
        assert_eq!(class(postgres.finish_copy(steps, &step).await), FailureClass::Stale);

        let first = copy(&postgres, fence, &planned.open[0]).await.unwrap();
        // The row that was there is newer than the copy, and stays.
        assert_eq!((first.rows_read, first.rows_written), (40, 39));
        let again = copy(&postgres, fence, &planned.open[0]).await.unwrap();
        assert_eq!((again.before, again.rows_read, again.rows_written), (true, 40, 39));
        copy(&postgres, &fences[2], &planned.open[1]).await.unwrap();
        let folded = plan(&postgres, fence, 40, 9).await;
        assert_eq!((folded.watermark, folded.rows_read, folded.rows_written), (3, 100, 99));
        assert_eq!(database.number("SELECT count(*) FROM phasegate.chunks").await, 0);
        assert!(copy(&postgres, fence, &planned.open[1]).await.unwrap().before);

        let done = postgres.finish_copy(steps, &step).await.unwrap();
        assert_eq!((done.before, done.rows), (false, 100));
        let again = postgres.finish_copy(steps, &step).await.unwrap();
        assert_eq!((again.before, again.rows), (true, 100));
        let state = postgres.copy_state(fence.run(), &step.step).await.unwrap();
        assert_eq!((state.walk, state.rows_written), (Walk::Ended { seq: 3 }, 99));
        let right = "SELECT count(*) FROM leads JOIN leads_v2 USING (id) WHERE leads_v2.email = lower(leads.email)";
        assert_eq!(database.number(right).await, 99);
        postgres.leave(steps, Ending::Completed, &head(8)).await.unwrap();
        assert_eq!(database.number("SELECT rows_total FROM phasegate.runs").await, 100);
    }

    #[tokio::test]
    async fn a_transaction_that_dies_before_its_commit_leaves_the_chunk_open() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let planned = plan(&postgres, &fence, 40, 1).await;
        let step = work("copy", Way::Forward);
        let mut tx = postgres.connections.begin(&fence, TxKind::Chunk).await.unwrap();
        let whole = (&leads(), Direction::Forward);
        let chunk = (&planned.open[0], Manner::AtOnce);
        let Ok(done) = postgres.copy(&mut tx, (&fence, &step), whole, chunk).await else {
            panic!("it was not copied");
        };
        assert!(matches!(done, Done::Now(Rows { read: 40, written: 40 })));
        drop(tx);
        let state = postgres.copy_state(fence.run(), &step.step).await.unwrap();
        assert_eq!((state.open.as_slice(), state.rows_read), (planned.open.as_slice(), 0));
        assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 0);
        assert!(!copy(&postgres, &fence, &planned.open[0]).await.unwrap().before);
    }

    #[tokio::test]
    async fn a_chunk_under_other_bounds_or_another_token_is_refused() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let planned = plan(&postgres, &fence, 40, 2).await;
        let mut shifted = planned.open[0].clone();
        shifted.chunk.hi = None;
        assert_eq!(class(copy(&postgres, &fence, &shifted).await), FailureClass::Stale);
        let unplanned = Planned { seq: 9, ..planned.open[1].clone() };
        assert_eq!(class(copy(&postgres, &fence, &unplanned).await), FailureClass::Stale);
        let newer = entered(&database.open().await, 2).await.remove(1);
        let fenced = copy(&database.open().await, &fence, &planned.open[0]).await;
        assert_eq!(fenced, Err(Error::Fenced { ours: 1, newest: 2 }));
        assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 0);
        assert!(copy(&database.open().await, &newer, &planned.open[0]).await.is_ok());
    }

    #[tokio::test]
    async fn a_row_that_can_not_be_copied_is_named() {
        let table = [
            ("UPDATE leads SET email = 'BAD' WHERE id = 111", "\"id\" = 111", "violates check"),
            (
                "UPDATE leads SET email = 'e5' WHERE id = 300",
                "\"id\" = 300",
                "violates unique constraint \"leads_v2_email_key\"",
            ),
            (
                "INSERT INTO leads_v2 OVERRIDING SYSTEM VALUE VALUES (1000, 'e1')",
                "\"id\" = 3 ",
                "violates unique constraint",
            ),
            (
                "CREATE TABLE owners (name text PRIMARY KEY);
                 INSERT INTO owners SELECT lower(email) FROM leads WHERE id <> 60;
                 ALTER TABLE leads_v2 ADD FOREIGN KEY (email) REFERENCES owners DEFERRABLE INITIALLY DEFERRED",
                "\"id\" = 60 ",
                "violates foreign key",
            ),
            (
                "ALTER TABLE leads ADD COLUMN short text; UPDATE leads SET short = 'abcde' WHERE id = 33;
                 UPDATE leads SET short = 'abc   ' WHERE id = 30",
                "\"id\" = 33 ",
                "value too long",
            ),
        ];
        for (trouble, key, reason) in table {
            let Some(database) = Database::with(SCHEMA).await else { return };
            database.run(trouble).await;
            let before = database.number("SELECT count(*) FROM leads_v2").await;
            let postgres = database.open().await;
            let fence = entered(&postgres, 1).await.remove(1);
            let planned = plan(&postgres, &fence, 100, 1).await;
            let Err(Error::Failed(failure)) = copy(&postgres, &fence, &planned.open[0]).await
            else {
                panic!("{trouble} was copied");
            };
            assert_eq!(failure.class, FailureClass::Refused);
            let message = failure.message;
            assert!(message.contains(key) && message.contains(reason), "{trouble}: {message}");
            assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, before);
            let state = postgres.copy_state(fence.run(), &"copy".into()).await.unwrap();
            assert_eq!((state.open.len(), state.rows_read), (1, 0));
        }
    }

    #[tokio::test]
    async fn what_was_there_before_is_written_over_where_the_mapping_says_so() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let there = "INSERT INTO leads_v2 OVERRIDING SYSTEM VALUE VALUES (3, 'other', 'mine'), (6, 'e2', 'mine'), (7, 'mine', 'mine');
            CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.short := ''hit''; RETURN NEW; END';
            CREATE TRIGGER seen BEFORE UPDATE ON leads_v2 FOR EACH ROW EXECUTE FUNCTION count_it()";
        database.run(there).await;
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let planned = plan(&postgres, &fence, 100, 1).await;
        let mut mapping = leads();
        mapping.on_existing = OnExisting::Update;
        let done = copy_mapped(&postgres, &fence, (&mapping, Direction::Forward), &planned.open[0]);
        let done = done.await.unwrap();
        // Ninety-eight that weren't there, and of the two that were the one that was not right already.
        assert_eq!((done.rows_read, done.rows_written), (100, 99));
        let rows = "SELECT string_agg(id || email || short, ',' ORDER BY id) FROM leads_v2 WHERE id IN (3, 6, 7)";
        assert_eq!(database.text(rows).await, "3e1hit,6e2mine,7minemine");
    }

    #[tokio::test]
    async fn rows_that_are_there_are_left_out_and_those_that_come_meanwhile_cost_a_second_try() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        database.run("INSERT INTO leads_v2 OVERRIDING SYSTEM VALUE VALUES (3, 'newer')").await;
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let planned = plan(&postgres, &fence, 50, 2).await;
        let first = copy(&postgres, &fence, &planned.open[0]).await.unwrap();
        assert_eq!((first.rows_read, first.rows_written, first.contended), (50, 49, false));
        assert_eq!(postgres.luck.manner(), Manner::AtOnce);
        // A client's row is in the second chunk, and not committed when the chunk looks which are there.
        let mut client = database.client().await;
        sqlx::raw_sql("BEGIN; INSERT INTO leads_v2 OVERRIDING SYSTEM VALUE VALUES (300, 'client')")
            .execute(&mut client)
            .await
            .unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database()";
        let committed = async {
            while database.number(waiting).await == 0 {}
            sqlx::raw_sql("COMMIT").execute(&mut client).await.unwrap();
        };
        let mut chunk = Err(Error::failed(FailureClass::Contention, "not tried"));
        let copied = async {
            // It may give up waiting before anybody has looked.
            while class_of(&chunk) == Some(FailureClass::Contention) {
                chunk = copy(&postgres, &fence, &planned.open[1]).await;
            }
        };
        tokio::join!(copied, committed);
        let second = chunk.unwrap();
        assert_eq!((second.rows_read, second.rows_written), (50, 49));
        assert_eq!(database.text("SELECT email FROM leads_v2 WHERE id = 300").await, "client");
        assert_eq!(database.text("SELECT email FROM leads_v2 WHERE id = 3").await, "newer");
        assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 100);
    }

    fn class_of(copied: &Result<Copied, Error>) -> Option<FailureClass> {
        copied.as_ref().err().and_then(Error::class)
    }

    #[tokio::test]
    async fn where_a_trigger_leaves_rows_out_they_are_counted_as_read() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let trigger = "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN RETURN CASE WHEN NEW.id % 2 = 0 THEN NEW END; END';
            CREATE TRIGGER odd BEFORE INSERT ON leads_v2 FOR EACH ROW EXECUTE FUNCTION leave_out()";
        database.run(trigger).await;
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let planned = plan(&postgres, &fence, 50, 1).await;
        let done = copy(&postgres, &fence, &planned.open[0]).await.unwrap();
        assert_eq!((done.rows_read, done.rows_written), (50, 25));
    }

    #[tokio::test]
    async fn a_chunk_yields_to_a_client_that_holds_its_rows_and_is_tried_again() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let planned = plan(&postgres, &fence, 100, 1).await;
        let mut client = database.client().await;
        sqlx::raw_sql("BEGIN; DELETE FROM leads WHERE id = 30").execute(&mut client).await.unwrap();
        let kept_out = copy(&postgres, &fence, &planned.open[0]).await;
        assert_eq!(class(kept_out), FailureClass::Contention);
        // An update that leaves the key alone holds nobody up: the sync brings it.
        sqlx::raw_sql("ROLLBACK; BEGIN; UPDATE leads SET email = 'x' WHERE id = 30")
            .execute(&mut client)
            .await
            .unwrap();
        let done = copy(&postgres, &fence, &planned.open[0]).await.unwrap();
        assert_eq!((done.rows_read, done.rows_written), (100, 100));
    }
}

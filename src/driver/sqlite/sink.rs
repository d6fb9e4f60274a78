//! Copying chunks: [`Sink`] for SQLite.
//!
//! Invariants:
//! - A chunk's rows and its mark in the ledger commit together, and a marked chunk is not copied again.
//! - A chunk is copied under the bounds that the ledger has, or not at all.
//! - A row that can't be copied stops the copy and is named; nothing is skipped without a word.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::chunks::Rows;
use super::connection::Tx;
use super::error::{code, failed, failure, refused};
use super::shape::Shape;
use super::shape_sql::{Which, copy_sql};
use super::{Sqlite, cells, chunks, ledger, prepared, source};
use crate::bounds::copying::HALVINGS_MAX;
use crate::copy::chunk::{Chunk, Planned};
use crate::driver::parking::uncopied;
use crate::driver::{Applied, Copied, CopyState, Error, Fence, Sink, TxKind, Work};
use crate::run::{Direction, FailureClass, Mapping, RunId, StepId};

#[async_trait]
impl Sink for Sqlite {
    async fn copy_state(&self, run: &RunId, step: &StepId) -> Result<CopyState, Error> {
        let mut reader = self.connections.snapshot().await?;
        let state = chunks::state(reader.conn(), run, step).await?;
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
        let mut tx = self.connections.begin(fence, TxKind::Chunk).await?;
        match self.copy(&mut tx, fence, work, (mapping, direction), chunk).await {
            Ok(Done::Before(rows)) => {
                tx.roll_back().await;
                Ok(Copied {
                    before: true,
                    rows_read: rows.read,
                    rows_written: rows.written,
                    took_us: 0,
                    contended: false,
                })
            }
            Ok(Done::Now(rows)) => {
                let took_us = tx.commit().await?;
                Ok(Copied {
                    before: false,
                    rows_read: rows.read,
                    rows_written: rows.written,
                    took_us,
                    contended: false,
                })
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }

    async fn finish_copy(&self, fence: &Fence, work: &Work) -> Result<Applied, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Finish).await?;
        match finish(tx.conn(), fence, work).await {
            Ok(applied) if applied.before => {
                tx.roll_back().await;
                Ok(applied)
            }
            Ok(applied) => {
                tx.commit().await?;
                Ok(applied)
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }
}

/// Whether a chunk was copied now. A chunk that the ledger has folded counts no rows any more: they are in the totals.
enum Done {
    Before(Rows),
    Now(Rows),
}

impl Sqlite {
    async fn copy(
        &self,
        tx: &mut Tx<'_>,
        fence: &Fence,
        work: &Work,
        (mapping, direction): (&Mapping, Direction),
        chunk: &Planned,
    ) -> Result<Done, Error> {
        let conn = tx.conn();
        if let Some(rows) = copied_before(conn, fence.run(), &work.step, chunk).await? {
            return Ok(Done::Before(rows));
        }
        let shape = prepared::shape(&self.shapes, conn, mapping).await?;
        let read = count(conn, &shape, &chunk.chunk).await?;
        let written = match copy_range(conn, &shape, direction, &chunk.chunk).await {
            Ok(written) => written,
            Err(error) => return Err(name_row(conn, &shape, direction, &chunk.chunk, error).await),
        };
        let rows = Rows { read, written };
        chunks::commit(conn, fence, &work.step, chunk.seq, rows).await?;
        ledger::keep_head(conn, fence.run(), &work.head).await?;
        Ok(Done::Now(rows))
    }
}

/// The rows of a chunk that is committed, or `None` for one that is to be copied under just these bounds.
pub(super) async fn copied_before(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
    chunk: &Planned,
) -> Result<Option<Rows>, Error> {
    if let Some(entered) = chunks::find(conn, run, step, chunk.seq).await? {
        if entered.chunk != chunk.chunk {
            let message = format!("chunk {} of {step} has other bounds in the ledger", chunk.seq);
            return Err(Error::failed(FailureClass::Stale, message));
        }
        let rows = Rows { read: entered.rows_read, written: entered.rows_written };
        return Ok(entered.committed.then_some(rows));
    }
    let copy = chunks::load(conn, run, step).await?.ok_or_else(|| chunks::not_begun(step))?;
    if chunk.seq <= copy.watermark {
        return Ok(Some(Rows::default()));
    }
    let message = format!("chunk {} of {step} was never planned", chunk.seq);
    Err(Error::failed(FailureClass::Stale, message))
}

/// The rows of the source in a chunk.
pub(super) async fn count(
    conn: &mut SqliteConnection,
    shape: &Shape,
    chunk: &Chunk,
) -> Result<u64, Error> {
    let sql = format!(
        "SELECT count(*) FROM {} WHERE {}{}",
        shape.table(Which::Old),
        shape.in_chunk(Which::Old, chunk),
        shape.and_filter(Which::Old)
    );
    let row = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), chunk).fetch_one(conn).await;
    let row = row.map_err(|error| refused(&error))?;
    ledger::unsigned(row.try_get(0).map_err(failed("count a chunk's rows"))?)
}

/// Copies the rows of a range. Returns those written.
pub(super) async fn copy_range(
    conn: &mut SqliteConnection,
    shape: &Shape,
    direction: Direction,
    range: &Chunk,
) -> Result<u64, sqlx::Error> {
    let sql = copy_sql(shape, direction, range);
    let done = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), range).execute(conn).await?;
    Ok(done.rows_affected())
}

/// Whether a row's content may be to blame for an error: what an expression can't take, a constraint, a trigger of a user.
pub(super) fn is_of_a_row(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code & 0xff, 1 | 18 | 19 | 20))
}

/// The error of a range, with the key of a row that causes it.
///
/// A failed statement has undone itself and left the transaction open, so that halves can be tried in it; whatever they
/// write goes with the transaction.
async fn name_row(
    conn: &mut SqliteConnection,
    shape: &Shape,
    direction: Direction,
    range: &Chunk,
    error: sqlx::Error,
) -> Error {
    if !is_of_a_row(&error) {
        return refused(&error);
    }
    match find_row(conn, shape, direction, range).await {
        Ok(Some((key, of_row))) => uncopied((&key, &shape.table(Which::Old)), failure(&of_row)),
        // Not to be pinned on one row: the error of the whole range is what is known.
        Ok(None) | Err(_) => refused(&error),
    }
}

/// The first row that can't be copied, in halves, and its own error.
async fn find_row(
    conn: &mut SqliteConnection,
    shape: &Shape,
    direction: Direction,
    range: &Chunk,
) -> Result<Option<(String, sqlx::Error)>, Error> {
    let mut range = range.clone();
    for _ in 0..HALVINGS_MAX {
        let rows = source::size(conn, shape, &range).await?;
        if rows <= 1 {
            break;
        }
        let half = u32::try_from(rows / 2).unwrap_or(u32::MAX);
        let Some(middle) = source::nth_key(conn, shape, &range, half).await? else { break };
        let lower = Chunk { lo: range.lo.clone(), hi: Some(middle.clone()) };
        match copy_range(conn, shape, direction, &lower).await {
            Ok(_) => range.lo = Some(middle),
            Err(_) => range = lower,
        }
    }
    let Some(key) = source::nth_key(conn, shape, &range, 1).await? else { return Ok(None) };
    let Err(error) = copy_range(conn, shape, direction, &range).await else { return Ok(None) };
    let named: Vec<String> = shape
        .key_names(Which::Old)
        .iter()
        .zip(&key.0)
        .map(|(name, cell)| format!("{name} = {}", crate::copy::chunk::Key(vec![cell.clone()])))
        .collect();
    Ok(Some((named.join(", "), error)))
}

async fn finish(conn: &mut SqliteConnection, fence: &Fence, work: &Work) -> Result<Applied, Error> {
    if let Some(before) = ledger::applied(conn, fence.run(), &work.step, work.way).await? {
        return Ok(before);
    }
    let step = &work.step;
    let copy = chunks::load(conn, fence.run(), step).await?;
    let mut copy = copy.ok_or_else(|| chunks::not_begun(step))?;
    chunks::fold(conn, fence.run(), step, &mut copy).await?;
    let detail = copy.whole(step)?;
    chunks::save(conn, fence.run(), step, &copy).await?;
    ledger::record(conn, fence, work, copy.rows_read, Some(detail)).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture::{Database, class, entered, head, mapping, work};
    use super::*;
    use crate::copy::chunk::Walk;
    use crate::driver::{Session as _, Source as _, Window};
    use crate::run::{Ending, Way};

    const SCHEMA: &str = "CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT);
        CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT UNIQUE CHECK (email <> 'bad'));
        INSERT INTO leads WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100)
            SELECT x * 3, 'E' || x FROM c;";

    fn leads() -> Mapping {
        let mut mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
        mapping.columns = vec![("email".into(), "lower(email)".into())];
        mapping
    }

    async fn plan(sqlite: &Sqlite, fence: &Fence, rows: u32, count: u32) -> CopyState {
        let step = work("copy", Way::Forward);
        sqlite
            .plan_chunks(fence, &step, &leads(), Window { rows, count, is_fixed: true })
            .await
            .unwrap()
    }

    async fn copy(sqlite: &Sqlite, fence: &Fence, chunk: &Planned) -> Result<Copied, Error> {
        let step = work("copy", Way::Forward);
        sqlite.copy_chunk(fence, &step, &leads(), Direction::Forward, chunk).await
    }

    #[tokio::test]
    async fn chunks_are_copied_once_in_any_order_and_add_up() {
        let database = Database::with(SCHEMA).await;
        database.run("INSERT INTO leads_v2 VALUES (3, 'newer')").await;
        let sqlite = database.open().await;
        let (steps, fence) = entered(&sqlite, 1).await;
        let step = work("copy", Way::Forward);
        assert_eq!(class(sqlite.finish_copy(&steps, &step).await), FailureClass::Stale);
        let planned = plan(&sqlite, &fence, 40, 9).await;
        assert_eq!((planned.walk.clone(), planned.open.len()), (Walk::Ended { seq: 3 }, 3));

        let last = copy(&sqlite, &fence, &planned.open[2]).await.unwrap();
        assert_eq!((last.before, last.rows_read, last.rows_written), (false, 20, 20));
        assert!(last.took_us > 0);
        let state = sqlite.copy_state(fence.run(), &step.step).await.unwrap();
        assert_eq!((state.watermark, state.rows_written, state.open.len()), (0, 20, 2));
        assert_eq!(class(sqlite.finish_copy(&steps, &step).await), FailureClass::Stale);

        let first = copy(&sqlite, &fence, &planned.open[0]).await.unwrap();
        // The row that was there is newer than the copy, and stays.
        assert_eq!((first.rows_read, first.rows_written), (40, 39));
        let again = copy(&sqlite, &fence, &planned.open[0]).await.unwrap();
        assert_eq!((again.before, again.rows_read, again.rows_written), (true, 40, 39));
        copy(&sqlite, &fence, &planned.open[1]).await.unwrap();
        let folded = plan(&sqlite, &fence, 40, 9).await;
        assert_eq!((folded.watermark, folded.rows_read, folded.rows_written), (3, 100, 99));
        assert_eq!(database.number("SELECT count(*) FROM phasegate_chunks").await, 0);
        assert!(copy(&sqlite, &fence, &planned.open[1]).await.unwrap().before);

        let done = sqlite.finish_copy(&steps, &step).await.unwrap();
        assert_eq!((done.before, done.rows), (false, 100));
        let again = sqlite.finish_copy(&steps, &step).await.unwrap();
        assert_eq!((again.before, again.rows), (true, 100));
        let state = sqlite.copy_state(fence.run(), &step.step).await.unwrap();
        assert_eq!((state.walk, state.rows_written), (Walk::Ended { seq: 3 }, 99));
        let right = "SELECT count(*) FROM leads JOIN leads_v2 USING (id) WHERE leads_v2.email = lower(leads.email)";
        assert_eq!(database.number(right).await, 99);
        sqlite.leave(&steps, Ending::Completed, &head(8)).await.unwrap();
        assert_eq!(database.number("SELECT rows_total FROM phasegate_runs").await, 100);
    }

    #[tokio::test]
    async fn an_unfinished_copy_counts_in_the_runs_row() {
        let database = Database::with(SCHEMA).await;
        let sqlite = database.open().await;
        let (steps, fence) = entered(&sqlite, 1).await;
        let planned = plan(&sqlite, &fence, 10, 3).await;
        copy(&sqlite, &fence, &planned.open[0]).await.unwrap();
        plan(&sqlite, &fence, 10, 1).await;
        copy(&sqlite, &fence, &planned.open[2]).await.unwrap();
        sqlite.leave(&steps, Ending::Aborted, &head(8)).await.unwrap();
        assert_eq!(database.number("SELECT rows_total FROM phasegate_runs").await, 20);
    }

    #[tokio::test]
    async fn a_transaction_that_dies_before_its_commit_leaves_the_chunk_open() {
        let database = Database::with(SCHEMA).await;
        let sqlite = database.open().await;
        let (_, fence) = entered(&sqlite, 1).await;
        let planned = plan(&sqlite, &fence, 40, 1).await;
        let step = work("copy", Way::Forward);
        let mut tx = sqlite.connections.begin(&fence, TxKind::Chunk).await.unwrap();
        let mapping = leads();
        let whole = (&mapping, Direction::Forward);
        let done = sqlite.copy(&mut tx, &fence, &step, whole, &planned.open[0]).await.unwrap();
        assert!(matches!(done, Done::Now(Rows { read: 40, written: 40 })));
        drop(tx);
        let state = sqlite.copy_state(fence.run(), &step.step).await.unwrap();
        assert_eq!((state.open.as_slice(), state.rows_read), (planned.open.as_slice(), 0));
        assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 0);
        assert!(!copy(&sqlite, &fence, &planned.open[0]).await.unwrap().before);
    }

    #[tokio::test]
    async fn a_chunk_under_other_bounds_or_another_token_is_refused() {
        let database = Database::with(SCHEMA).await;
        let sqlite = database.open().await;
        let (_, fence) = entered(&sqlite, 1).await;
        let planned = plan(&sqlite, &fence, 40, 2).await;
        let mut shifted = planned.open[0].clone();
        shifted.chunk.hi = None;
        assert_eq!(class(copy(&sqlite, &fence, &shifted).await), FailureClass::Stale);
        let unplanned = Planned { seq: 9, ..planned.open[1].clone() };
        assert_eq!(class(copy(&sqlite, &fence, &unplanned).await), FailureClass::Stale);
        let (_, newer) = entered(&database.open().await, 2).await;
        let fenced = copy(&sqlite, &fence, &planned.open[0]).await;
        assert_eq!(fenced, Err(Error::Fenced { ours: 1, newest: 2 }));
        assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 0);
        assert!(copy(&sqlite, &newer, &planned.open[0]).await.is_ok());
    }

    #[tokio::test]
    async fn a_row_that_can_not_be_copied_is_named() {
        let table = [
            (
                "UPDATE leads SET email = 'BAD' WHERE id = 111",
                "id\" = 111",
                "CHECK constraint failed",
            ),
            (
                "UPDATE leads SET email = 'e5' WHERE id = 300",
                "id\" = 300",
                "UNIQUE constraint failed: leads_v2.email",
            ),
            (
                "INSERT INTO leads_v2 VALUES (1000, 'e1')",
                "id\" = 3 ",
                "UNIQUE constraint failed: leads_v2.email",
            ),
        ];
        for (trouble, key, reason) in table {
            let database = Database::with(SCHEMA).await;
            database.run(trouble).await;
            let before = database.number("SELECT count(*) FROM leads_v2").await;
            let sqlite = database.open().await;
            let (_, fence) = entered(&sqlite, 1).await;
            let planned = plan(&sqlite, &fence, 100, 1).await;
            let Err(Error::Failed(failure)) = copy(&sqlite, &fence, &planned.open[0]).await else {
                panic!("{trouble} was copied");
            };
            assert_eq!(failure.class, FailureClass::Refused);
            let message = failure.message;
            assert!(message.contains(key) && message.contains(reason), "{trouble}: {message}");
            assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, before);
            let state = sqlite.copy_state(fence.run(), &"copy".into()).await.unwrap();
            assert_eq!((state.open.len(), state.rows_read), (1, 0));
        }
    }
}

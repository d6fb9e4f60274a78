//! Keeping both sides of a mapping in step, by triggers.
//!
//! Invariants:
//! - Triggers appear and go in one transaction with the ledger. Making one takes a lock that waits for every older writer of
//!   the table and keeps new ones out until the commit, so no write is between them and us.
//! - The sync is active exactly when the catalogue has every trigger, enabled, on every partition, with exactly our functions.
//! - Going back on the strength of a comparison happens under locks under which it is seen that it still holds: whoever was
//!   writing to the new side when it began had ended (`watch`), and nobody has written there since beside the sync.
//! - The functions run as the table's owner, whoever writes, along a fixed path; nobody else may call them.
//!
//! Absent on purpose: the functions' text, which is in `trigger_sql` and `trigger_in_place`, and putting noted keys right,
//! which is in `settle`.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

use super::Postgres;
use super::catalogue::name_sql;
use super::connection::Tx;
use super::emptying::{empty_again, is_empty};
use super::error::failed;
use super::locks::lock_all;
use super::loosen::loosen;
use super::park::none_parked;
use super::settle::Last;
use super::settle_sql::Seen;
use super::shape::{Shape, shape};
use super::sync_objects::{check_sync, install_triggers, open_schemas, remove_sync};
use super::sync_sql::SyncSql;
use super::trigger_in_place::in_place_sync;
use super::trigger_sql::table_sync;
use super::{gone, ledger, loosen, passes, prepared, settle, sync_state, written};
use crate::driver::{
    Applied, DualWriter, Error, Fence, Gone, SyncState, TxKind, Work, emptying, gives_up,
};
use crate::run::{Direction, FailureClass, Mapping, Way};

/// What the ledger says when the new side had nothing in it, so that going back may empty it.
const WAS_EMPTY: &str = "the new side was empty";

/// The functions and triggers of a sync. `schema` is our own, quoted.
pub(super) fn sync_sql(shape: &Shape, direction: Direction, schema: &str) -> SyncSql {
    if shape.in_place {
        in_place_sync(shape, direction, schema)
    } else {
        table_sync(shape, direction, schema)
    }
}

/// Whether the sync of a shape is in place, by the catalogue. `schema` is our own, quoted.
pub(super) async fn sync_state_in(
    conn: &mut PgConnection,
    shape: &Shape,
    direction: Direction,
    schema: &str,
) -> Result<SyncState, Error> {
    sync_state::judge(conn, shape, schema, &sync_sql(shape, direction, schema)).await
}

/// Runs a statement of ours. Returns the rows it touched.
pub(super) async fn run(
    conn: &mut PgConnection,
    doing: &'static str,
    sql: String,
) -> Result<u64, Error> {
    let done = conn.execute(AssertSqlSafe(sql)).await.map_err(failed(doing))?;
    Ok(done.rows_affected())
}

/// What the ledger has of a piece of work, or that there is nothing to undo.
pub(super) async fn done_before(
    tx: &mut Tx<'_>,
    fence: &Fence,
    work: &Work,
) -> Result<Option<Applied>, Error> {
    let found = ledger::applied(tx, fence.run(), &work.step, work.way).await?;
    if found.is_some() || work.way == Way::Forward {
        return Ok(found);
    }
    let forward = ledger::applied(tx, fence.run(), &work.step, Way::Forward).await?;
    Ok(forward.is_none().then_some(Applied { before: true, rows: 0, detail: None }))
}

/// Under the lock that keeps every writer out: where going back rests on a comparison, sees that what was compared is what is
/// there. Ends the noting of writes to the new side.
async fn end_watch(
    tx: &mut Tx<'_>,
    (shape, mapping): (&Shape, &Mapping),
    work: &Work,
) -> Result<(), Error> {
    if work.way == Way::Back
        && let Some(under) = &work.compared_under
    {
        let schema = tx.schema().to_owned();
        if passes::basis(tx.conn()?, &schema, mapping).await?.of_sync() != *under {
            let message =
                format!("mapping {}: its tables or triggers changed just now", mapping.name);
            return Err(Error::failed(FailureClass::Contention, message));
        }
        written::not_beside(tx, shape).await?;
    }
    written::unwatch(tx, shape).await
}

/// Commits what went well, rolls back what didn't.
pub(super) async fn finish<T>(tx: Tx<'_>, done: Result<T, Error>) -> Result<T, Error> {
    match done {
        Ok(value) => tx.commit().await.map(|_| value),
        Err(error) => Err(tx.give_up(error).await),
    }
}

/// Says in which schemas anybody may put functions that ours would find.
pub(super) fn with_open_schemas(mut applied: Applied, open: &[String]) -> Applied {
    if !open.is_empty() {
        let schemas = open.join(", ");
        let said = format!(
            "the sync's functions look names up in {schemas}, where everybody may create objects: \
             REVOKE CREATE ON SCHEMA {schemas} FROM PUBLIC"
        );
        applied.detail = Some(match applied.detail {
            Some(detail) => format!("{detail}; {said}"),
            None => said,
        });
    }
    applied
}

/// Locks the tables of a sync, the old one first, as triggers and chunks do.
async fn lock_tables(
    tx: &mut Tx<'_>,
    (mapping, direction): (&Mapping, Direction),
    mode: &'static str,
) -> Result<(), Error> {
    let mut names = vec![mapping.from.table.as_str()];
    if direction == Direction::Both && !mapping.is_in_place() {
        names.push(mapping.into.table.as_str());
    }
    lock_in_order(tx, &names, mode).await
}

/// Which tables are locked: where writes to the new side are noted, the new one, too.
const fn reach(direction: Direction, is_watched: bool) -> Direction {
    if is_watched { Direction::Both } else { direction }
}

/// Locks one table, or two in this order.
pub(super) async fn lock_in_order(
    tx: &mut Tx<'_>,
    names: &[&str],
    mode: &'static str,
) -> Result<(), Error> {
    let lock = |name: &&str| format!("LOCK TABLE {} IN {mode} MODE", name_sql(name));
    lock_all(tx, &names.iter().map(lock).collect::<Vec<_>>()).await
}

impl Postgres {
    async fn install_in(
        &self,
        tx: &mut Tx<'_>,
        (fence, work): (&Fence, &Work),
        mapping: &Mapping,
        (direction, was_empty): (Direction, Option<bool>),
    ) -> Result<Applied, Error> {
        if let Some(applied) = done_before(tx, fence, work).await? {
            return Ok(applied);
        }
        let is_watched = written::is_watched(tx, mapping).await?;
        // To end it takes the strong lock, which is better had at once than behind the other.
        let mode = if is_watched { "ACCESS EXCLUSIVE" } else { "SHARE ROW EXCLUSIVE" };
        lock_tables(tx, (mapping, reach(direction, is_watched)), mode).await?;
        let shape = shape(tx.conn()?, mapping).await?;
        end_watch(tx, (&shape, mapping), work).await?;
        check_sync(tx, &shape, direction).await?;
        let was_empty = match was_empty {
            Some(was_empty) => was_empty,
            None => is_empty(tx.conn()?, &shape).await?,
        };
        install_triggers(tx, &shape, direction).await?;
        let mut noted = loosen::noted(&shape);
        if was_empty {
            noted.insert(0, WAS_EMPTY.to_owned());
        }
        let detail = (!noted.is_empty()).then(|| noted.join("; "));
        ledger::record(tx, fence, work, (0, detail)).await
    }

    /// Removes the sync. Returns its shape where the new side is to be emptied now.
    async fn remove_in(
        &self,
        tx: &mut Tx<'_>,
        (fence, work): (&Fence, &Work),
        (mapping, direction, last): (&Mapping, Direction, Last),
    ) -> Result<Result<Applied, Shape>, Error> {
        if let Some(applied) = done_before(tx, fence, work).await? {
            return Ok(Ok(applied));
        }
        let is_watched = written::is_watched(tx, mapping).await?;
        lock_tables(tx, (mapping, reach(direction, is_watched)), "ACCESS EXCLUSIVE").await?;
        let mut shape = shape(tx.conn()?, mapping).await?;
        let given_up = gives_up(&work.step);
        if last == Last::Nothing {
            settle::none_noted(tx, &shape, Seen::Now).await?;
            if given_up.is_none() {
                none_parked(tx, &shape).await?;
            }
        }
        end_watch(tx, (&shape, mapping), work).await?;
        let sync = given_up.as_ref().unwrap_or(&work.step);
        let forward = ledger::applied(tx, fence.run(), sync, Way::Forward).await?;
        let noted = forward.and_then(|it| it.detail);
        if (work.way == Way::Back || given_up.is_some()) && shape.in_place {
            loosen(tx, &mut shape, noted.as_deref()).await?;
        }
        remove_sync(tx, &shape).await?;
        let was_empty = noted.is_some_and(|noted| noted.split("; ").any(|one| one == WAS_EMPTY));
        if work.way == Way::Back && was_empty && (!shape.in_place || !shape.writes.is_empty()) {
            let begun = Work { step: emptying(&work.step), ..work.clone() };
            if ledger::applied(tx, fence.run(), &begun.step, begun.way).await?.is_none() {
                ledger::record(tx, fence, &begun, (0, None)).await?;
            }
            return Ok(Err(shape));
        }
        ledger::record(tx, fence, work, (0, None)).await.map(Ok)
    }
}

#[async_trait]
impl DualWriter for Postgres {
    async fn watch(&self, fence: &Fence, work: &Work, mapping: &Mapping) -> Result<(), Error> {
        let mut tx = self.begin_for(fence, work, TxKind::Watch).await?;
        let watched = async {
            let is_watched = written::is_watched(&mut tx, mapping).await?;
            let mode = if is_watched { "ACCESS EXCLUSIVE" } else { "SHARE ROW EXCLUSIVE" };
            // Whoever has written there has ended when this is had, so that a comparison sees it.
            lock_in_order(&mut tx, &[&mapping.into.table], mode).await?;
            let shape = shape(tx.conn()?, mapping).await?;
            written::watch_beside(&mut tx, &shape).await
        }
        .await;
        match finish(tx, watched).await {
            // With `forward` the new table may be somebody else's. Then the comparison alone tells.
            Err(error) if error.class() == Some(FailureClass::NotPermitted) => {
                let name = &mapping.name;
                tracing::warn!(%error, "what clients write to the new side of {name} is not noted");
                Ok(())
            }
            other => other,
        }
    }

    async fn install(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<Applied, Error> {
        // In place this reads the whole table, so it is done before the table is locked.
        let was_empty = if mapping.is_in_place() {
            let mut reader = self.connections.read().await?;
            let shape = shape(reader.conn()?, mapping).await?;
            let was_empty = is_empty(reader.conn()?, &shape).await?;
            reader.release().await;
            Some(was_empty)
        } else {
            None
        };
        let mut tx = self.begin_for(fence, work, TxKind::Install).await?;
        let done = self.install_in(&mut tx, (fence, work), mapping, (direction, was_empty)).await;
        let open = match &done {
            Ok(applied) if !applied.before => open_schemas(tx.conn()?).await?,
            _ => Vec::new(),
        };
        let applied = self.finish_held(tx, work, done).await?;
        Ok(with_open_schemas(applied, &open))
    }

    async fn remove(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<Applied, Error> {
        let gone = self.gone(mapping).await?;
        if gone != Gone::Nothing {
            let mut tx = self.begin_for(fence, work, TxKind::Remove).await?;
            let done = gone::remove_in(&mut tx, (fence, work), (mapping, gone)).await;
            return self.finish_held(tx, work, done).await;
        }
        // Both sides stay where the sync ends by itself. What was only noted would be lost with it.
        let last = if work.way == Way::Back || self.is_done_before(fence, work).await? {
            Last::Left
        } else {
            self.settle_last(fence, mapping).await?
        };
        let mut tx = self.begin_for(fence, work, TxKind::Remove).await?;
        let shape = match self.remove_in(&mut tx, (fence, work), (mapping, direction, last)).await {
            Ok(Err(shape)) => shape,
            Ok(Ok(applied)) => return self.finish_held(tx, work, Ok(applied)).await,
            Err(error) => return self.finish_held(tx, work, Err(error)).await,
        };
        let since = tx.locked_since();
        // Without triggers nothing follows what is emptied now. If we die in between, the next attempt goes on here.
        tx.commit().await?;
        let held_us = since.map(|it| it.elapsed_us());
        let (mut tx, rows) = empty_again(&self.connections, fence, &shape).await?;
        let recorded = ledger::record(&mut tx, fence, work, (rows, None)).await;
        Ok(self.tell_held(work, held_us, finish(tx, recorded).await?))
    }

    async fn sync_state(
        &self,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<SyncState, Error> {
        let schema = self.connections.schema().to_owned();
        let mut reader = self.connections.snapshot().await?;
        let shape = prepared::shape(&self.shapes, reader.conn()?, mapping).await?;
        let state = sync_state_in(reader.conn()?, &shape, direction, &schema).await?;
        reader.release().await;
        Ok(state)
    }

    async fn gone(&self, mapping: &Mapping) -> Result<Gone, Error> {
        let mut reader = self.connections.read().await?;
        let gone = gone::of(reader.conn()?, mapping).await?;
        reader.release().await;
        Ok(gone)
    }

    async fn settle(&self, fence: &Fence, mapping: &Mapping) -> Result<u64, Error> {
        settle::settle((&self.connections, fence), mapping, &[]).await
    }

    async fn settle_among(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        beside: &[Mapping],
    ) -> Result<u64, Error> {
        settle::settle((&self.connections, fence), mapping, beside).await
    }
}

impl Postgres {
    /// Begins a transaction for a piece of work, waiting for locks as long as its step says.
    pub(super) async fn begin_for(
        &self,
        fence: &Fence,
        work: &Work,
        kind: TxKind,
    ) -> Result<Tx<'_>, Error> {
        self.connections.begin_waiting(fence, kind, work.lock_timeout_ms).await
    }
}

//! Keeping both sides of a mapping in step, by triggers.
//!
//! Invariants:
//! - Triggers appear and go in one transaction with the ledger. Creating one takes SQLite's only write lock, so every older
//!   writer has ended by then, and no write is between them and us.
//! - The sync is active exactly when the catalogue has every trigger with exactly our text.
//!
//! Absent on purpose: triggers' text, which is in `trigger_sql` and `trigger_in_place`.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Executor as _};

use super::Sqlite;
use super::catalogue::{self, Table, quote, same_name};
use super::connection::Tx;
use super::error::{failed, refused};
use super::expression::reads;
use super::ledger;
use super::shape::{Shape, Write, id_of};
use super::shape_sql::{KEPT, PARKED, Which, all, any, literal};
use super::trigger_in_place::in_place_triggers;
use super::trigger_sql::{
    PENDING, TOUCHED, TriggerSql, remove_gone, settle_pending, table_triggers,
};
use crate::bounds::sqlite::EMPTIED_AT_ONCE;
use crate::driver::{Applied, DualWriter, Error, Fence, Gone, SyncState, TxKind, Work, emptying};
use crate::run::{Direction, FailureClass, Mapping, OnDelete, Way};

/// What the ledger says when the new side had nothing in it, so that going back may empty it.
const WAS_EMPTY: &str = "the new side was empty";

/// Both tables of a mapping, and its shape over them.
pub(super) struct Resolved {
    pub shape: Shape,
    pub from: Table,
    pub into: Table,
}

/// Reads both tables of a mapping and holds it against them.
pub(super) async fn resolve(
    conn: &mut SqliteConnection,
    mapping: &Mapping,
) -> Result<Resolved, Error> {
    let from = existing_table(conn, &mapping.from.table).await?;
    let into = existing_table(conn, &mapping.into.table).await?;
    let shape = Shape::resolve(mapping, &from, &into)?;
    Ok(Resolved { shape, from, into })
}

async fn existing_table(conn: &mut SqliteConnection, name: &str) -> Result<Table, Error> {
    catalogue::table(conn, name)
        .await?
        .ok_or_else(|| Error::failed(FailureClass::Stale, format!("there is no table {name}")))
}

/// What of a mapping's tables is gone.
async fn gone(conn: &mut SqliteConnection, mapping: &Mapping) -> Result<Gone, Error> {
    let old = catalogue::table(conn, &mapping.from.table).await?;
    let new = catalogue::table(conn, &mapping.into.table).await?;
    match (old, new) {
        (Some(_), Some(_)) => Ok(Gone::Nothing),
        (_, None) => Ok(Gone::New),
        (None, Some(new)) => {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", quote(&new.name));
            let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
            let has_rows = row.and_then(|row| row.try_get(0));
            let has_rows = has_rows.map_err(failed("look for rows of the new side"))?;
            Ok(Gone::Old { has_rows })
        }
    }
}

/// The triggers of a sync.
pub(super) fn triggers(shape: &Shape, direction: Direction) -> Vec<TriggerSql> {
    if shape.in_place {
        in_place_triggers(shape, direction)
    } else {
        table_triggers(shape, direction)
    }
}

/// Runs a statement of ours.
pub(super) async fn run(
    conn: &mut SqliteConnection,
    doing: &'static str,
    sql: String,
) -> Result<u64, Error> {
    let done = conn.execute(AssertSqlSafe(sql)).await.map_err(failed(doing))?;
    Ok(done.rows_affected())
}

/// Makes the triggers of a sync and what they write to, in place of any that were there.
pub(super) async fn create_sync(
    conn: &mut SqliteConnection,
    resolved: &Resolved,
    direction: Direction,
) -> Result<(), Error> {
    check_sync(conn, resolved, direction).await?;
    if direction == Direction::Both && !resolved.shape.in_place {
        // Then every insert takes the other table's sequence along, so that no number is given twice.
        hand_over_sequence(conn, &resolved.from, &resolved.into).await?;
        hand_over_sequence(conn, &resolved.into, &resolved.from).await?;
    }
    let doing = "make the tables of the sync";
    let notes: Vec<String> =
        (1..=crate::bounds::copying::KEY_COLUMNS_MAX).map(|at| format!("k{at}")).collect();
    let keys = notes.join(", ");
    let by = keys.replace('k', "b");
    for sql in [
        format!(
            "CREATE TABLE IF NOT EXISTS {TOUCHED} (mapping TEXT NOT NULL, side TEXT NOT NULL, {by}, {keys})"
        ),
        format!("CREATE INDEX IF NOT EXISTS {TOUCHED}_by ON {TOUCHED} (mapping, side, b1)"),
        format!(
            "CREATE TABLE IF NOT EXISTS {KEPT} (mapping TEXT NOT NULL, part INTEGER NOT NULL, {keys})"
        ),
        format!("CREATE INDEX IF NOT EXISTS {KEPT}_key ON {KEPT} (mapping, part, k1)"),
        format!(
            "CREATE TABLE IF NOT EXISTS {PARKED} (mapping TEXT NOT NULL, key TEXT NOT NULL, run_id TEXT NOT NULL,
             step TEXT NOT NULL, code TEXT, reason TEXT NOT NULL, parked_at TEXT NOT NULL, PRIMARY KEY (mapping, key))"
        ),
    ] {
        run(conn, doing, sql).await?;
    }
    drop_triggers(conn, &resolved.shape).await?;
    for trigger in triggers(&resolved.shape, direction) {
        run(conn, "make a trigger of the sync", trigger.sql).await?;
    }
    Ok(())
}

/// One table draws no number that the other one has given.
pub(super) async fn hand_over_sequence(
    conn: &mut SqliteConnection,
    from: &Table,
    into: &Table,
) -> Result<(), Error> {
    if !from.is_autoincrement() || !into.is_autoincrement() {
        return Ok(());
    }
    let (old, new) = (literal(&from.name), literal(&into.name));
    let doing = "hand over the sequence";
    let insert = format!(
        "INSERT INTO sqlite_sequence (name, seq) SELECT {new}, 0
         WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = {new})"
    );
    run(conn, doing, insert).await?;
    let update = format!(
        "UPDATE sqlite_sequence SET seq = max(seq, coalesce((SELECT seq FROM sqlite_sequence WHERE name = {old}), 0))
         WHERE name = {new}"
    );
    run(conn, doing, update).await.map(|_| ())
}

/// Removes the triggers of a mapping, and what they noted.
pub(super) async fn drop_sync(conn: &mut SqliteConnection, shape: &Shape) -> Result<(), Error> {
    drop_sync_of(conn, &shape.id).await
}

/// The same by what stands for the mapping, whatever became of its tables.
async fn drop_sync_of(conn: &mut SqliteConnection, id: &str) -> Result<(), Error> {
    drop_triggers_of(conn, id).await?;
    for table in [TOUCHED, KEPT, PARKED] {
        if ledger::has_table(conn, table).await? {
            let sql = format!("DELETE FROM {table} WHERE mapping = {}", literal(id));
            run(conn, "remove the notes of the sync", sql).await?;
        }
    }
    Ok(())
}

/// The names of a mapping's triggers that are there.
async fn our_triggers(
    conn: &mut SqliteConnection,
    id: &str,
) -> Result<Vec<(String, String)>, Error> {
    let rows = sqlx::query(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, length(?1)) = ?1",
    )
    .bind(format!("phasegate_{id}_"))
    .fetch_all(conn)
    .await
    .map_err(failed("read the catalogue"))?;
    rows.iter()
        .map(|row| {
            let name = row.try_get("name").map_err(failed("read the catalogue"))?;
            let sql = row.try_get("sql").map_err(failed("read the catalogue"))?;
            Ok((name, sql))
        })
        .collect()
}

/// Removes the triggers of a mapping.
pub(super) async fn drop_triggers(conn: &mut SqliteConnection, shape: &Shape) -> Result<(), Error> {
    drop_triggers_of(conn, &shape.id).await
}

async fn drop_triggers_of(conn: &mut SqliteConnection, id: &str) -> Result<(), Error> {
    for (name, _) in our_triggers(conn, id).await? {
        run(conn, "remove a trigger of the sync", format!("DROP TRIGGER {}", quote(&name))).await?;
    }
    Ok(())
}

/// What stands in the way of keeping a mapping in step.
pub(super) async fn check_sync(
    conn: &mut SqliteConnection,
    resolved: &Resolved,
    direction: Direction,
) -> Result<(), Error> {
    let Resolved { shape, from, into } = resolved;
    let unsafe_because = |what: String| {
        Error::failed(FailureClass::Unsafe, format!("mapping {}: {what}", shape.mapping))
    };
    if direction == Direction::Both {
        if shape.on_delete != OnDelete::Delete && !shape.in_place {
            return Err(unsafe_because(
                "with direction: both a deleted row has to go on both sides, so on_delete must be delete"
                    .to_owned(),
            ));
        }
        for part in &shape.parts {
            if part.reverse.is_empty() && !part.writes.is_empty() && !part.is_constant() {
                let column = &shape.writes[part.writes[0]].column;
                let message = format!(
                    "nothing says how a write of {column} gets back to {}",
                    part.old_columns.join(", ")
                );
                return Err(unsafe_because(message)
                    .with_help("add the column to reverse, or use direction: forward"));
            }
        }
    }
    if !shape.in_place {
        let mut pairs = vec![(into, from)];
        if direction == Direction::Both {
            pairs.push((from, into));
        }
        for (written, first) in pairs {
            if let Some(name) = crossing_trigger(written, &first.name) {
                let message = format!(
                    "the trigger {name} on {} writes to {}, and SQLite would not run the sync inside the sync",
                    written.name, first.name
                );
                return Err(unsafe_because(message).with_help(
                    "drop that trigger while the sync is active: the sync does its work",
                ));
            }
        }
    }
    try_expressions(conn, shape, direction).await
}

/// A user's trigger on a table whose text names another table.
fn crossing_trigger<'a>(on: &'a Table, other: &str) -> Option<&'a str> {
    on.user_triggers()
        .find(|trigger| !reads(&trigger.sql, [other]).is_empty() && !same_name(&on.name, other))
        .map(|trigger| trigger.name.as_str())
}

/// Lets SQLite prepare every expression over its own table: in a trigger a name that is wrong would show only when a
/// client writes.
async fn try_expressions(
    conn: &mut SqliteConnection,
    shape: &Shape,
    direction: Direction,
) -> Result<(), Error> {
    let values = |writes: &[Write]| writes.iter().map(|w| w.value.clone()).collect::<Vec<_>>();
    let mut old = values(&shape.writes);
    old.extend(shape.filter.clone());
    let new = if direction == Direction::Both { values(&shape.reverse) } else { Vec::new() };
    for (which, expressions) in [(Which::Old, old), (Which::New, new)] {
        for expression in expressions {
            let sql = format!("SELECT {expression} FROM {} WHERE 0", shape.table(which));
            let tried = conn.fetch_optional(AssertSqlSafe(sql)).await;
            tried.map_err(|error| {
                let mut error = refused(&error);
                if let Error::Failed(failure) = &mut error {
                    failure.message = format!(
                        "mapping {}: the expression {} can't be evaluated: {}",
                        shape.mapping,
                        expression.trim_matches(['(', ')', '\n']),
                        failure.message
                    );
                }
                error
            })?;
        }
    }
    Ok(())
}

/// Whether the new side has nothing in it.
async fn is_empty(conn: &mut SqliteConnection, shape: &Shape) -> Result<bool, Error> {
    let table = shape.table(Which::New);
    let sql = format!("SELECT 1 FROM {table} WHERE {} LIMIT 1", filled(shape));
    let row = conn.fetch_optional(AssertSqlSafe(sql)).await;
    Ok(row.map_err(failed("look whether the new side is empty"))?.is_none())
}

/// That a row of the new side has something in it: that it is there, or in place that a target column has something else
/// than its default.
fn filled(shape: &Shape) -> String {
    if !shape.in_place {
        return "1".to_owned();
    }
    any(&shape
        .writes
        .iter()
        .map(|write| {
            let stored = format!("{}.{}", shape.table(Which::New), quote(&write.column));
            let default =
                Write { is_plain: false, value: default_of(shape, write), ..write.clone() };
            format!("NOT {}", Shape::same(&default, &stored, &default.value))
        })
        .collect::<Vec<_>>())
}

fn default_of(shape: &Shape, write: &Write) -> String {
    let column = shape.new.column(&write.column);
    let default = column.and_then(|column| column.default.as_deref()).unwrap_or("NULL");
    format!("({default}\n)")
}

/// Empties some rows of the new side.
fn empty_some(shape: &Shape) -> String {
    let table = shape.table(Which::New);
    let some = format!(
        "{} IN (SELECT {} FROM {table} WHERE {} LIMIT {EMPTIED_AT_ONCE})",
        shape.key_row(Which::New),
        shape.key(Which::New).join(", "),
        filled(shape),
    );
    if shape.in_place {
        let sets: Vec<String> = shape
            .writes
            .iter()
            .map(|write| format!("{} = {}", quote(&write.column), default_of(shape, write)))
            .collect();
        return format!("UPDATE {table} SET {} WHERE {some}", sets.join(", "));
    }
    format!("DELETE FROM {table} WHERE {some}")
}

/// What the ledger has of a piece of work, or that there is nothing to undo.
pub(super) async fn done_before(
    tx: &mut Tx<'_>,
    fence: &Fence,
    work: &Work,
) -> Result<Option<Applied>, Error> {
    let found = ledger::applied(tx.conn(), fence.run(), &work.step, work.way).await?;
    if found.is_some() || work.way == Way::Forward {
        return Ok(found);
    }
    let forward = ledger::applied(tx.conn(), fence.run(), &work.step, Way::Forward).await?;
    Ok(forward.is_none().then_some(Applied { before: true, rows: 0, detail: None }))
}

impl Sqlite {
    /// Empties the new side, transaction by transaction, so that clients get in between. Returns the rows emptied and
    /// the last transaction, still open.
    async fn empty_again(&self, fence: &Fence, shape: &Shape) -> Result<(Tx<'_>, u64), Error> {
        let mut emptied = 0;
        loop {
            let mut tx = self.connections.begin(fence, TxKind::Remove).await?;
            let rows = match run(tx.conn(), "empty the new side", empty_some(shape)).await {
                Ok(rows) => rows,
                Err(error) => {
                    tx.roll_back().await;
                    return Err(error);
                }
            };
            emptied += rows;
            if rows < u64::from(EMPTIED_AT_ONCE) {
                return Ok((tx, emptied));
            }
            tx.commit().await?;
        }
    }
}

#[async_trait]
impl DualWriter for Sqlite {
    async fn install(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<Applied, Error> {
        // In place this reads the whole table, so it is done before the write lock is taken.
        let mut reader = self.connections.read().await?;
        let shape = resolve(reader.conn(), mapping).await?.shape;
        let was_empty = is_empty(reader.conn(), &shape).await?;
        reader.release().await;

        let mut tx = self.connections.begin(fence, TxKind::Install).await?;
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok(applied);
            }
            let resolved = resolve(tx.conn(), mapping).await?;
            let was_empty = if resolved.shape.in_place {
                was_empty
            } else {
                is_empty(tx.conn(), &resolved.shape).await?
            };
            create_sync(tx.conn(), &resolved, direction).await?;
            let detail = was_empty.then(|| WAS_EMPTY.to_owned());
            ledger::record(tx.conn(), fence, work, 0, detail).await
        }
        .await;
        finish(tx, done).await
    }

    async fn remove(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        _direction: Direction,
    ) -> Result<Applied, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Remove).await?;
        let removed = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok(Err(applied));
            }
            if gone(tx.conn(), mapping).await? != Gone::Nothing {
                drop_sync_of(tx.conn(), &id_of(mapping)).await?;
                let detail = "a table of the mapping is gone already".to_owned();
                return ledger::record(tx.conn(), fence, work, 0, Some(detail)).await.map(Err);
            }
            let shape = resolve(tx.conn(), mapping).await?.shape;
            drop_sync(tx.conn(), &shape).await?;
            let forward = ledger::applied(tx.conn(), fence.run(), &work.step, Way::Forward).await?;
            let was_empty = forward.is_some_and(|it| it.detail.as_deref() == Some(WAS_EMPTY));
            if work.way == Way::Back && was_empty {
                let begun = Work { step: emptying(&work.step), ..work.clone() };
                if ledger::applied(tx.conn(), fence.run(), &begun.step, begun.way).await?.is_none()
                {
                    ledger::record(tx.conn(), fence, &begun, 0, None).await?;
                }
                return Ok(Ok(shape));
            }
            ledger::record(tx.conn(), fence, work, 0, None).await.map(Err)
        }
        .await;
        let shape = match removed {
            Ok(Ok(shape)) => shape,
            Ok(Err(applied)) => return finish(tx, Ok(applied)).await,
            Err(error) => return finish(tx, Err(error)).await,
        };
        // Without triggers nothing follows what is emptied now. If we die in between, the next attempt goes on here.
        tx.commit().await?;
        let (mut tx, rows) = self.empty_again(fence, &shape).await?;
        let recorded = ledger::record(tx.conn(), fence, work, rows, None).await;
        finish(tx, recorded).await
    }

    async fn sync_state(
        &self,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<SyncState, Error> {
        let mut reader = self.connections.snapshot().await?;
        let shape = resolve(reader.conn(), mapping).await?.shape;
        let found = our_triggers(reader.conn(), &shape.id).await?;
        let has_tables = ledger::has_table(reader.conn(), TOUCHED).await?
            && ledger::has_table(reader.conn(), KEPT).await?
            && ledger::has_table(reader.conn(), PARKED).await?;
        reader.release().await;
        Ok(judge(&triggers(&shape, direction), &found, has_tables))
    }

    async fn gone(&self, mapping: &Mapping) -> Result<Gone, Error> {
        let mut reader = self.connections.read().await?;
        let gone = gone(reader.conn(), mapping).await?;
        reader.release().await;
        Ok(gone)
    }

    async fn settle(&self, fence: &Fence, mapping: &Mapping) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let is_there = ledger::has_table(reader.conn(), TOUCHED).await?;
        let shape = resolve(reader.conn(), mapping).await?.shape;
        let noted = if is_there { count_noted(reader.conn(), &shape).await? } else { 0 };
        reader.release().await;
        if noted == 0 {
            return Ok(0);
        }
        let mut tx = self.connections.begin(fence, TxKind::Settle).await?;
        let settled = settle_noted(tx.conn(), &shape).await;
        finish(tx, settled).await
    }
}

/// Commits what went well, rolls back what didn't.
pub(super) async fn finish<T>(tx: Tx<'_>, done: Result<T, Error>) -> Result<T, Error> {
    match done {
        Ok(value) => tx.commit().await.map(|_| value),
        Err(error) => {
            tx.roll_back().await;
            Err(error)
        }
    }
}

/// How many keys of a mapping are noted.
async fn count_noted(conn: &mut SqliteConnection, shape: &Shape) -> Result<u64, Error> {
    let sql = format!("SELECT count(*) FROM {TOUCHED} WHERE mapping = {}", literal(&shape.id));
    let row = conn.fetch_one(AssertSqlSafe(sql)).await.map_err(failed("count noted keys"))?;
    ledger::unsigned(row.try_get(0).map_err(failed("count noted keys"))?)
}

/// Removes copies whose noted source is gone, and tries once more to make right those that differ. Returns how many
/// still differ; all other notes mean nothing any more.
pub(super) async fn settle_noted(conn: &mut SqliteConnection, shape: &Shape) -> Result<u64, Error> {
    let doing = "put noted keys right";
    if !ledger::has_table(conn, TOUCHED).await? {
        return Ok(0);
    }
    let mine = format!("{TOUCHED}.mapping = {}", literal(&shape.id));
    if !shape.in_place {
        for (from, tag) in [(Which::Old, "old"), (Which::New, "new")] {
            let noted = all(&[mine.clone(), format!("{TOUCHED}.side = {}", literal(tag))]);
            if let Some(sql) = remove_gone(shape, from, &noted) {
                run(conn, doing, sql).await?;
            }
        }
        for sql in settle_pending(shape) {
            run(conn, doing, sql).await?;
        }
    }
    let pending = literal(PENDING);
    let sql = format!("DELETE FROM {TOUCHED} WHERE {mine} AND {TOUCHED}.side <> {pending}");
    run(conn, doing, sql).await?;
    count_noted(conn, shape).await
}

fn judge(expected: &[TriggerSql], found: &[(String, String)], has_tables: bool) -> SyncState {
    let mut wrong = Vec::new();
    for trigger in expected {
        match found.iter().find(|(name, _)| *name == trigger.name) {
            None => wrong.push(format!("trigger {} is missing", trigger.name)),
            Some((_, sql)) if *sql != trigger.sql => {
                wrong.push(format!("trigger {} was changed", trigger.name));
            }
            Some(_) => {}
        }
    }
    for (name, _) in found {
        if !expected.iter().any(|trigger| trigger.name == *name) {
            wrong.push(format!("trigger {name} does not belong here"));
        }
    }
    if !has_tables {
        wrong.push("the tables that the triggers write to are missing".to_owned());
    }
    if wrong.is_empty() { SyncState::Active } else { SyncState::Broken(wrong.join("; ")) }
}

//! Putting the old shape aside, taking that back, and removing it: [`Retirer`] for SQLite.
//!
//! Invariants:
//! - Each happens in one transaction with the ledger. Our triggers go before anything is renamed and come back, under the
//!   new names, after it: no client ever meets one that names what isn't there.
//! - What named the old table names afterwards the table that took its name; what named the new table follows it. Objects
//!   that SQLite can't resolve afterwards stop it all.
//! - A forward `retire` is taken back only where both sides are proven equal under the write lock, or the loss was accepted.
//!
//! Absent on purpose: renaming by SQLite alone. `ALTER TABLE … RENAME` rewrites every view, trigger and foreign key that
//! names the table, so that views would go on showing the table put aside: it is told not to for the old table
//! (`legacy_alter_table`, `foreign_keys` off) and allowed to for the new one.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::Sqlite;
use super::catalogue::{Table, quote, same_name};
use super::counterpart::missing;
use super::dual_write::{
    Resolved, create_sync, done_before, drop_sync, finish, hand_over_sequence, resolve, run,
    settle_noted,
};
use super::error::{failed, refused};
use super::expression::reads;
use super::rename::{self, Object};
use super::shape_sql::{Which, literal};
use super::trigger_sql::trigger;
use super::verify::Rows;
use super::{catalogue, foreign_keys, ledger};
use crate::copy::chunk::Chunk;
use crate::copy::compare::Named;
use crate::driver::lost::lost_rows;
use crate::driver::{Applied, Error, Fence, Losses, Retirer, TxKind, Work};
use crate::run::{Direction, FailureClass, Mapping, Permit, Retire, RetireShape, RetiredColumn};

/// Renaming without SQLite's help, and dropping without its deleting every row first. Neither can be set inside a
/// transaction, or only there.
const SETTINGS: &[&str] = &["PRAGMA foreign_keys = OFF", "PRAGMA legacy_alter_table = ON"];

#[async_trait]
impl Retirer for Sqlite {
    async fn retire(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        retired: &Retire,
    ) -> Result<Applied, Error> {
        let mut tx = self.connections.begin_set(fence, TxKind::Retire, SETTINGS).await?;
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok(applied);
            }
            let detail = retire(tx.conn(), mapping, direction, &retired.shape).await?;
            ledger::record(tx.conn(), fence, work, 0, Some(detail)).await
        }
        .await;
        finish(tx, done).await
    }

    async fn unretire(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        shape: &RetireShape,
        losses: Losses,
    ) -> Result<Applied, Error> {
        let mut tx = self.connections.begin_set(fence, TxKind::Unretire, SETTINGS).await?;
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok(applied);
            }
            unretire(tx.conn(), mapping, direction, (shape, losses)).await?;
            ledger::record(tx.conn(), fence, work, 0, None).await
        }
        .await;
        finish(tx, done).await
    }

    async fn drop_retired(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        shape: &RetireShape,
        permit: Permit,
    ) -> Result<Applied, Error> {
        if *permit.step() != work.step {
            let message = format!("the permit is for {}, not for {}", permit.step(), work.step);
            return Err(Error::failed(FailureClass::Unsafe, message));
        }
        let mut tx = self.connections.begin_set(fence, TxKind::Drop, SETTINGS).await?;
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok(applied);
            }
            let detail = drop_retired(tx.conn(), mapping, shape).await?;
            ledger::record(tx.conn(), fence, work, 0, Some(detail)).await
        }
        .await;
        finish(tx, done).await
    }
}

/// A failure that the plan's author can mend.
fn in_the_way(mapping: &Mapping, what: &str, items: &[String]) -> Error {
    let message = format!("mapping {}: {what}", mapping.name);
    let mut error = Error::failed(FailureClass::Refused, message);
    if let Error::Failed(failure) = &mut error {
        failure.detail = Some(items.join(";\n"));
    }
    error
}

async fn retire(
    conn: &mut SqliteConnection,
    mapping: &Mapping,
    direction: Direction,
    shape: &RetireShape,
) -> Result<String, Error> {
    let resolved = resolve(conn, mapping).await?;
    settle_noted(conn, &resolved.shape).await?;
    rename::forget(conn, &resolved.shape.id).await?;
    let was_sound = rename::is_sound(conn).await?.is_ok();
    drop_triggers_of(conn, &resolved, direction).await?;
    let detail = match shape {
        RetireShape::Table { old_name, take_name } => {
            let lacks = missing(&resolved.shape, &resolved.from, &resolved.into);
            if !lacks.is_empty() {
                let message = format!(
                    "{} lacks what {} has; run these statements (or drop what is not wanted any more) first",
                    resolved.into.name, resolved.from.name
                );
                return Err(in_the_way(mapping, &message, &lacks));
            }
            if *take_name {
                keep_references(conn, mapping, &resolved).await?;
                hand_over_sequence(conn, &resolved.from, &resolved.into).await?;
                let id = &resolved.shape.id;
                rename::aside_with_triggers(conn, id, &resolved.from.name, old_name).await?;
                rename::take(conn, id, &resolved.into.name, &resolved.from.name).await?;
                format!(
                    "{} is now {old_name}, {} is now {}",
                    resolved.from.name, resolved.into.name, resolved.from.name
                )
            } else {
                rename::along(conn, &resolved.from.name, old_name).await?;
                format!("{} is now {old_name}", resolved.from.name)
            }
        }
        RetireShape::Columns(columns) => {
            put_columns_aside(conn, mapping, &resolved.from, columns).await?;
            let named: Vec<String> =
                columns.iter().map(|it| format!("{} is now {}", it.column, it.old_name)).collect();
            named.join(", ")
        }
    };
    if was_sound && let Err(message) = rename::is_sound(conn).await? {
        return Err(in_the_way(mapping, "something would no longer work afterwards", &[message]));
    }
    let after = mapping.retired(shape);
    match (direction, shape) {
        (Direction::Both, _) => {
            let resolved = resolve(conn, &after).await?;
            create_sync(conn, &resolved, direction).await?;
        }
        (Direction::Forward, RetireShape::Table { old_name, .. }) => {
            let id = &resolved.shape.id;
            foreign_keys::let_go(conn, id, &resolved.from, old_name).await?;
            let resolved = resolve(conn, &after).await?;
            guard(conn, &resolved).await?;
        }
        (Direction::Forward, RetireShape::Columns(columns)) => {
            let (id, table) = (&resolved.shape.id, &resolved.from.name);
            foreign_keys::let_columns_go(conn, id, (table, &aside_names(columns))).await?;
        }
    }
    Ok(detail)
}

fn aside_names(columns: &[RetiredColumn]) -> Vec<String> {
    columns.iter().map(|retired| retired.old_name.clone()).collect()
}

/// Removes our triggers; what a client of the new shape is known to have written in place stays known with `both`.
async fn drop_triggers_of(
    conn: &mut SqliteConnection,
    resolved: &Resolved,
    direction: Direction,
) -> Result<(), Error> {
    match direction {
        Direction::Both => super::dual_write::drop_triggers(conn, &resolved.shape).await,
        Direction::Forward => drop_sync(conn, &resolved.shape).await,
    }
}

/// Refuses writes of clients to a table put aside.
async fn guard(conn: &mut SqliteConnection, resolved: &Resolved) -> Result<(), Error> {
    let shape = &resolved.shape;
    let message = format!(
        "phasegate: {} was put aside by mapping {} and takes no writes",
        shape.old.table, shape.mapping
    );
    for (kind, head) in [("gi", "BEFORE INSERT"), ("gu", "BEFORE UPDATE"), ("gd", "BEFORE DELETE")]
    {
        let body = [format!("SELECT RAISE(ABORT, {})", literal(&message))];
        let guard = trigger(shape, Which::Old, kind, head, None, &body);
        run(conn, "guard the table put aside", guard.sql).await?;
    }
    Ok(())
}

/// Foreign keys of other tables to the old one will point to the new one: it must have what they point to, and unique.
async fn keep_references(
    conn: &mut SqliteConnection,
    mapping: &Mapping,
    resolved: &Resolved,
) -> Result<(), Error> {
    let (from, into) = (&resolved.from, &resolved.into);
    let primary_key = |table: &Table| {
        let mut keyed: Vec<_> = table.columns.iter().filter(|c| c.primary_key.is_some()).collect();
        keyed.sort_by_key(|column| column.primary_key);
        keyed.iter().map(|column| column.name.clone()).collect::<Vec<_>>()
    };
    let mut lost = Vec::new();
    for name in catalogue::names(conn).await? {
        let Some(table) = catalogue::table(conn, &name).await? else { continue };
        for key in table.foreign_keys.iter().filter(|key| same_name(&key.table, &from.name)) {
            let there: Option<Vec<String>> =
                key.columns.iter().map(|(_, there)| there.clone()).collect();
            let there = there.unwrap_or_else(|| primary_key(into));
            let is_same = |columns: &[&str]| {
                columns.len() == there.len()
                    && there.iter().all(|name| columns.iter().any(|column| same_name(column, name)))
            };
            let unique = into.indexes.iter().filter(|index| index.unique && !index.partial);
            let mut keys: Vec<Vec<&str>> = unique
                .map(|index| index.columns.iter().filter_map(|c| c.name.as_deref()).collect())
                .collect();
            keys.extend(into.rowid_alias().map(|alias| vec![alias.name.as_str()]));
            if key.columns.len() != there.len() || !keys.iter().any(|columns| is_same(columns)) {
                lost.push(format!(
                    "{} references {} ({})",
                    table.name,
                    from.name,
                    there.join(", ")
                ));
            }
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    let what = format!("{} is not unique by what foreign keys point to", into.name);
    Err(in_the_way(mapping, &what, &lost))
}

async fn put_columns_aside(
    conn: &mut SqliteConnection,
    mapping: &Mapping,
    table: &Table,
    columns: &[RetiredColumn],
) -> Result<(), Error> {
    let mut needed = Vec::new();
    for retired in columns {
        let column = table.column(&retired.column);
        if column.is_some_and(|column| column.not_null && column.default.is_none()) {
            needed
                .push(format!("{}.{} is NOT NULL and has no default", table.name, retired.column));
        }
    }
    if !needed.is_empty() {
        let what = "clients of the new shape could not insert rows any more";
        return Err(in_the_way(mapping, what, &needed));
    }
    lacking_indexes(mapping, table, columns)?;
    let dependents = rename::that_read(conn, &table.name, columns).await?;
    rename::drop_all(conn, &dependents).await?;
    for retired in columns {
        rename::column(conn, &table.name, &retired.column, &retired.old_name).await?;
    }
    for retired in columns {
        if let Some(taken) = &retired.take_name {
            rename::column(conn, &table.name, taken, &retired.column).await?;
        }
    }
    rename::create_all(conn, &dependents).await
}

/// An index over a column alone that the column taking its name has no counterpart of.
fn lacking_indexes(
    mapping: &Mapping,
    table: &Table,
    columns: &[RetiredColumn],
) -> Result<(), Error> {
    let new_name = |name: &str| {
        let taken = columns.iter().find(|retired| same_name(&retired.column, name));
        taken.and_then(|retired| retired.take_name.clone()).unwrap_or_else(|| name.to_owned())
    };
    let mut lacks = Vec::new();
    for index in table.indexes.iter().filter(|index| !index.partial) {
        let names: Option<Vec<&str>> = index.columns.iter().map(|c| c.name.as_deref()).collect();
        let Some(names) = names else { continue };
        let wanted: Vec<String> = names.iter().map(|name| new_name(name)).collect();
        let is_touched = names.iter().zip(&wanted).any(|(name, wanted)| name != wanted);
        let has = table.indexes.iter().any(|other| {
            other.columns.len() == wanted.len()
                && (!index.unique || other.unique)
                && !other.partial
                && other.columns.iter().zip(&wanted).all(|(column, wanted)| {
                    column.name.as_deref().is_some_and(|name| same_name(name, wanted))
                })
        });
        if is_touched && !has {
            let unique = if index.unique { "UNIQUE " } else { "" };
            let columns: Vec<String> = wanted.iter().map(|name| quote(name)).collect();
            let name = quote(&format!("{}_{}", table.name, wanted.join("_")));
            let on = quote(&table.name);
            lacks.push(format!("CREATE {unique}INDEX {name} ON {on} ({})", columns.join(", ")));
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    let what = "the new columns lack indexes that the old ones have; run these statements first";
    Err(in_the_way(mapping, what, &lacks))
}

async fn unretire(
    conn: &mut SqliteConnection,
    mapping: &Mapping,
    direction: Direction,
    (shape, losses): (&RetireShape, Losses),
) -> Result<(), Error> {
    let after = mapping.retired(shape);
    let resolved = resolve(conn, &after).await?;
    if direction == Direction::Forward && losses == Losses::Refused {
        prove_equal(conn, &resolved).await?;
    }
    drop_triggers_of(conn, &resolved, direction).await?;
    match shape {
        RetireShape::Table { old_name, take_name: true } => {
            rename::aside(conn, &mapping.from.table, &mapping.into.table).await?;
            let names = (mapping.into.table.as_str(), mapping.from.table.as_str());
            rename::forget_changed(conn, &resolved.shape.id, names).await?;
            rename::aside(conn, old_name, &mapping.from.table).await?;
            let names = (mapping.from.table.as_str(), old_name.as_str(), None);
            foreign_keys::check_kept(conn, &resolved.shape.id, names).await?;
            rename::restore(conn, &resolved.shape.id).await?;
        }
        RetireShape::Table { old_name, take_name: false } => {
            rename::along(conn, old_name, &mapping.from.table).await?;
            let names = (mapping.from.table.as_str(), old_name.as_str(), None);
            foreign_keys::check_kept(conn, &resolved.shape.id, names).await?;
            rename::restore(conn, &resolved.shape.id).await?;
        }
        RetireShape::Columns(columns) => {
            let table = &resolved.from.name;
            let aside = aside_names(columns);
            let names = (table.as_str(), table.as_str(), Some(aside.as_slice()));
            foreign_keys::check_kept(conn, &resolved.shape.id, names).await?;
            rename::restore(conn, &resolved.shape.id).await?;
            let dependents = rename::that_read(conn, table, columns).await?;
            rename::drop_all(conn, &dependents).await?;
            for retired in columns {
                if let Some(taken) = &retired.take_name {
                    rename::column(conn, table, &retired.column, taken).await?;
                }
            }
            for retired in columns {
                rename::column(conn, table, &retired.old_name, &retired.column).await?;
            }
            rename::create_all(conn, &dependents).await?;
        }
    }
    // What a forward `retire` ended begins again: the dual-write step, which still stands, is undone by itself.
    let resolved = resolve(conn, mapping).await?;
    create_sync(conn, &resolved, direction).await
}

/// Nothing was written to the new side alone.
async fn prove_equal(conn: &mut SqliteConnection, resolved: &Resolved) -> Result<(), Error> {
    let shape = &resolved.shape;
    let everything = Chunk { lo: None, hi: None };
    let rows = Rows::all(shape, Direction::Forward, &everything);
    let found = rows.compare(conn, Named::Any).await?;
    if found.is_clean() {
        return Ok(());
    }
    Err(lost_rows(&shape.mapping, &found))
}

async fn drop_retired(
    conn: &mut SqliteConnection,
    mapping: &Mapping,
    shape: &RetireShape,
) -> Result<String, Error> {
    let after = mapping.retired(shape);
    let resolved = resolve(conn, &after).await?;
    drop_sync(conn, &resolved.shape).await?;
    let dependents = dependents(conn, &resolved.from, shape).await?;
    if !dependents.is_empty() {
        let what = format!("something still depends on what {} put aside", mapping.from.table);
        return Err(in_the_way(mapping, &what, &dependents));
    }
    match shape {
        RetireShape::Table { old_name, .. } => {
            let sql = format!("DROP TABLE {}", quote(&resolved.from.name));
            user_statement(conn, sql).await?;
            Ok(format!("{old_name} is gone"))
        }
        RetireShape::Columns(columns) => {
            for index in own_indexes(&resolved.from, columns) {
                user_statement(conn, format!("DROP INDEX {}", quote(&index))).await?;
            }
            for retired in columns {
                let table = quote(&resolved.from.name);
                let column = quote(&retired.old_name);
                user_statement(conn, format!("ALTER TABLE {table} DROP COLUMN {column}")).await?;
            }
            let names: Vec<&str> = columns.iter().map(|it| it.old_name.as_str()).collect();
            Ok(format!("{} of {} gone", names.join(", "), resolved.from.name))
        }
    }
}

/// Runs a statement whose refusal by SQLite says what to do.
async fn user_statement(conn: &mut SqliteConnection, sql: String) -> Result<(), Error> {
    let done = sqlx::query(AssertSqlSafe(sql)).execute(conn).await;
    done.map(|_| ()).map_err(|error| refused(&error))
}

/// The indexes that are over nothing but columns put aside: they go with them.
fn own_indexes(table: &Table, columns: &[RetiredColumn]) -> Vec<String> {
    let is_aside = |name: &Option<String>| {
        name.as_deref()
            .is_some_and(|name| columns.iter().any(|retired| same_name(&retired.old_name, name)))
    };
    let is_own = |index: &&catalogue::Index| {
        index.sql.is_some()
            && !index.partial
            && index.columns.iter().all(|part| is_aside(&part.name))
    };
    table.indexes.iter().filter(is_own).map(|index| index.name.clone()).collect()
}

/// What names what is to go: views, triggers of other tables (or, for columns, of the same one), foreign keys of others.
pub(super) async fn dependents(
    conn: &mut SqliteConnection,
    table: &Table,
    shape: &RetireShape,
) -> Result<Vec<String>, Error> {
    let aside: Option<Vec<&str>> = match shape {
        RetireShape::Table { .. } => None,
        RetireShape::Columns(columns) => {
            Some(columns.iter().map(|retired| retired.old_name.as_str()).collect())
        }
    };
    let rows = sqlx::query(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE type IN ('view', 'trigger') AND sql IS NOT NULL ORDER BY name",
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(failed("read the catalogue"))?;
    let mut found = Vec::new();
    for row in rows {
        let text = |at: usize| -> Result<String, Error> {
            row.try_get(at).map_err(failed("read the catalogue"))
        };
        let object = Object { kind: text(0)?, name: text(1)?, table: text(2)?, sql: text(3)? };
        let is_on_it = object.kind == "trigger" && same_name(&object.table, &table.name);
        let names_it = !reads(&object.sql, [table.name.as_str()]).is_empty();
        let depends = match &aside {
            None => names_it && !is_on_it,
            Some(columns) => names_it && !reads(&object.sql, columns.iter().copied()).is_empty(),
        };
        if depends {
            found.push(format!("{} {}", object.kind, object.name));
        }
    }
    for name in catalogue::names(conn).await? {
        let Some(other) = catalogue::table(conn, &name).await? else { continue };
        let points = |key: &&catalogue::ForeignKey| {
            let is_to_it = same_name(&key.table, &table.name);
            match &aside {
                None => is_to_it && !same_name(&other.name, &table.name),
                Some(columns) => {
                    is_to_it
                        && key.columns.iter().any(|(_, there)| {
                            let there = there.as_deref().unwrap_or_default();
                            columns.iter().any(|column| same_name(column, there))
                        })
                }
            }
        };
        if other.foreign_keys.iter().any(|key| points(&key)) {
            found.push(format!("foreign key of {}", other.name));
        }
    }
    Ok(found)
}

//! Renaming tables and columns, with or without what names them.
//!
//! Everything here runs inside a transaction that began with `foreign_keys` off. SQLite's own way of renaming rewrites all
//! that names a table; `legacy_alter_table` keeps it from that. Where the new table takes the old one's name, objects that
//! named the new table are rewritten and their texts from before are kept, so that they can be brought back exactly.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{Generated, TableKind, quote, same_name};
use super::counterpart::{normal, replaced};
use super::dual_write::run;
use super::error::{failed, refused};
use super::expression::reads;
use super::ledger;
use super::shape_sql::literal;
use crate::driver::Error;
use crate::run::RetiredColumn;

/// The texts of objects from before the new table took the old one's name.
const RENAMED: &str = "phasegate_renamed";

/// A table of ours that nothing names: it is renamed and back to let SQLite look at the whole schema.
const PROBE: &str = "phasegate_slots";

/// An object of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub kind: String,
    pub name: String,
    /// The table that a trigger or index is on.
    pub table: String,
    pub sql: String,
}

async fn set(conn: &mut SqliteConnection, pragma: &'static str) -> Result<(), Error> {
    sqlx::query(pragma)
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(failed("set how tables are renamed"))
}

/// Runs a renaming, whose refusal by SQLite is the author's to mend.
async fn alter(conn: &mut SqliteConnection, sql: String) -> Result<(), Error> {
    let done = sqlx::query(AssertSqlSafe(sql)).execute(conn).await;
    done.map(|_| ()).map_err(|error| refused(&error))
}

fn rename(from: &str, to: &str) -> String {
    format!("ALTER TABLE {} RENAME TO {}", quote(from), quote(to))
}

/// Renames a table, and nothing that names it.
pub(super) async fn aside(conn: &mut SqliteConnection, from: &str, to: &str) -> Result<(), Error> {
    set(conn, "PRAGMA legacy_alter_table = ON").await?;
    alter(conn, rename(from, to)).await
}

/// Renames a table and what stands on it: its triggers go on naming it, though nothing else does.
pub(super) async fn aside_with_triggers(
    conn: &mut SqliteConnection,
    id: &str,
    from: &str,
    to: &str,
) -> Result<(), Error> {
    let is_on_it = |it: &Object| it.kind == "trigger" && same_name(&it.table, from);
    let all = objects(conn).await?;
    let triggers: Vec<Object> = all.into_iter().filter(is_on_it).collect();
    drop_all(conn, &triggers).await?;
    aside(conn, from, to).await?;
    for trigger in triggers {
        keep(conn, id, &trigger).await?;
        alter(conn, replaced(&trigger.sql, from, to)).await?;
    }
    Ok(())
}

/// Keeps an object's text, to be brought back by [`restore`].
pub(super) async fn keep(
    conn: &mut SqliteConnection,
    id: &str,
    object: &Object,
) -> Result<(), Error> {
    let doing = "keep the texts from before";
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {RENAMED} (mapping TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, sql TEXT NOT NULL)"
    );
    run(conn, doing, create).await?;
    let values = [id, &object.kind, &object.name, &object.sql].map(literal).join(", ");
    run(conn, doing, format!("INSERT INTO {RENAMED} VALUES ({values})")).await.map(|_| ())
}

/// Renames a table and all that names it.
pub(super) async fn along(conn: &mut SqliteConnection, from: &str, to: &str) -> Result<(), Error> {
    set(conn, "PRAGMA legacy_alter_table = OFF").await?;
    alter(conn, rename(from, to)).await
}

/// Renames a table to a name that others name and that is free just now. What names the table follows it.
pub(super) async fn take(
    conn: &mut SqliteConnection,
    id: &str,
    from: &str,
    to: &str,
) -> Result<(), Error> {
    let before = objects(conn).await?;
    set(conn, "PRAGMA legacy_alter_table = OFF").await?;
    // While nothing has the name, what names it can't be resolved; with a writable schema SQLite passes it by.
    set(conn, "PRAGMA writable_schema = ON").await?;
    let renamed = alter(conn, rename(from, to)).await;
    set(conn, "PRAGMA writable_schema = OFF").await?;
    renamed?;
    let after = objects(conn).await?;
    for old in before.iter().filter(|old| !same_name(&old.name, from) && old.kind != "index") {
        let is_changed = after
            .iter()
            .any(|new| new.kind == old.kind && new.name == old.name && new.sql != old.sql);
        if is_changed {
            keep(conn, id, old).await?;
        }
    }
    // The table's own references to itself followed the name, and would not follow it back.
    let is_it = |old: &&Object| old.kind == "table" && same_name(&old.name, from);
    match before.iter().find(is_it) {
        Some(table) => keep(conn, id, table).await,
        None => Ok(()),
    }
}

/// Forgets a table's text from before if the table has another one by now for another reason than its name.
pub(super) async fn forget_changed(
    conn: &mut SqliteConnection,
    id: &str,
    (name, other): (&str, &str),
) -> Result<(), Error> {
    let Some(kept) = kept(conn, id, "table", name).await? else { return Ok(()) };
    let all = objects(conn).await?;
    let now = all.iter().find(|it| it.kind == "table" && same_name(&it.name, name));
    if now.is_some_and(|now| normal(&now.sql, name, other) == normal(&kept, name, other)) {
        return Ok(());
    }
    let [id, name] = [id, name].map(literal);
    let sql =
        format!("DELETE FROM {RENAMED} WHERE mapping = {id} AND kind = 'table' AND name = {name}");
    run(conn, "forget a text from before", sql).await.map(|_| ())
}

/// Gives objects the texts from before [`take`].
pub(super) async fn restore(conn: &mut SqliteConnection, id: &str) -> Result<(), Error> {
    if !ledger::has_table(conn, RENAMED).await? {
        return Ok(());
    }
    let sql = format!(
        "UPDATE sqlite_schema SET sql = (SELECT r.sql FROM {RENAMED} AS r
            WHERE r.mapping = {id} AND r.kind = type AND r.name = sqlite_schema.name)
         WHERE EXISTS (SELECT 1 FROM {RENAMED} AS r
            WHERE r.mapping = {id} AND r.kind = type AND r.name = sqlite_schema.name)",
        id = literal(id)
    );
    edit_schema(conn, "bring back the texts from before", sql).await?;
    forget(conn, id).await
}

/// Changes texts of the schema that stay as true as they were of what is stored.
pub(super) async fn edit_schema(
    conn: &mut SqliteConnection,
    doing: &'static str,
    sql: String,
) -> Result<(), Error> {
    set(conn, "PRAGMA writable_schema = ON").await?;
    let edited = run(conn, doing, sql).await;
    // Reads the schema anew, which nothing else would do for a change like this one.
    set(conn, "PRAGMA writable_schema = RESET").await?;
    edited.map(|_| ())
}

/// An object's text from before, if one is kept.
pub(super) async fn kept(
    conn: &mut SqliteConnection,
    id: &str,
    kind: &str,
    name: &str,
) -> Result<Option<String>, Error> {
    if !ledger::has_table(conn, RENAMED).await? {
        return Ok(None);
    }
    let [id, kind, name] = [id, kind, name].map(literal);
    let sql = format!(
        "SELECT sql FROM {RENAMED} WHERE mapping = {id} AND kind = {kind} AND name = {name} COLLATE NOCASE"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(conn).await;
    let row = row.map_err(failed("read the texts from before"))?;
    row.map(|row| row.try_get(0).map_err(failed("read the texts from before"))).transpose()
}

/// Forgets the texts from before.
pub(super) async fn forget(conn: &mut SqliteConnection, id: &str) -> Result<(), Error> {
    if ledger::has_table(conn, RENAMED).await? {
        let sql = format!("DELETE FROM {RENAMED} WHERE mapping = {}", literal(id));
        run(conn, "forget the texts from before", sql).await?;
    }
    Ok(())
}

/// Renames a column and all that names it.
pub(super) async fn column(
    conn: &mut SqliteConnection,
    table: &str,
    from: &str,
    to: &str,
) -> Result<(), Error> {
    set(conn, "PRAGMA legacy_alter_table = OFF").await?;
    let (table, from, to) = (quote(table), quote(from), quote(to));
    alter(conn, format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}")).await
}

/// Whether SQLite can resolve every view and trigger; its complaint if not.
pub(super) async fn is_sound(conn: &mut SqliteConnection) -> Result<Result<(), String>, Error> {
    set(conn, "PRAGMA legacy_alter_table = OFF").await?;
    let probe = format!("{PROBE}_probe");
    let mut verdict = tried(conn, rename(PROBE, &probe)).await?;
    if verdict.is_ok() {
        alter(conn, rename(&probe, PROBE)).await?;
    }
    set(conn, "PRAGMA legacy_alter_table = ON").await?;
    if verdict.is_err() {
        return Ok(verdict);
    }
    // Renaming looks at everything in a trigger but the columns that it writes; compiling a write of its table does.
    for name in super::catalogue::names(conn).await? {
        let Some(table) = super::catalogue::table(conn, &name).await? else { continue };
        let triggers: Vec<&str> = table.user_triggers().map(|it| it.name.as_str()).collect();
        if triggers.is_empty() || table.kind != TableKind::Table {
            continue;
        }
        let sets: Vec<String> = table
            .columns
            .iter()
            .filter(|column| column.generated == Generated::No)
            .map(|column| format!("{0} = {0}", quote(&column.name)))
            .collect();
        let on = quote(&table.name);
        for write in [
            format!("EXPLAIN INSERT INTO {on} DEFAULT VALUES"),
            format!("EXPLAIN UPDATE {on} SET {}", sets.join(", ")),
            format!("EXPLAIN DELETE FROM {on}"),
        ] {
            let said = tried(conn, write).await?;
            verdict = verdict.and(said.map_err(|said| {
                format!("error in a trigger of {} ({}): {said}", table.name, triggers.join(", "))
            }));
        }
    }
    Ok(verdict)
}

/// What SQLite says to a statement.
async fn tried(conn: &mut SqliteConnection, sql: String) -> Result<Result<(), String>, Error> {
    match sqlx::query(AssertSqlSafe(sql)).execute(conn).await {
        Ok(_) => Ok(Ok(())),
        Err(error) => match error.as_database_error() {
            Some(said) => Ok(Err(said.message().to_owned())),
            None => Err(refused(&error)),
        },
    }
}

/// Views and triggers of users that name a table and a column of it that another one takes the name of: they are to name
/// the column that has it.
pub(super) async fn that_read(
    conn: &mut SqliteConnection,
    table: &str,
    columns: &[RetiredColumn],
) -> Result<Vec<Object>, Error> {
    let taken: Vec<&str> = columns
        .iter()
        .filter(|retired| retired.take_name.is_some())
        .map(|retired| retired.column.as_str())
        .collect();
    let all = objects(conn).await?;
    let mut found: Vec<Object> = Vec::new();
    for object in &all {
        let is_ours = super::catalogue::is_ours(&object.name);
        let names_it = !reads(&object.sql, [table]).is_empty();
        let reads_it = !reads(&object.sql, taken.iter().copied()).is_empty();
        if matches!(object.kind.as_str(), "view" | "trigger") && !is_ours && names_it && reads_it {
            found.push(object.clone());
        }
    }
    // A view takes its own triggers with it.
    let views: Vec<String> =
        found.iter().filter(|it| it.kind == "view").map(|it| it.name.clone()).collect();
    for object in all {
        let goes = views.iter().any(|view| same_name(view, &object.table));
        if object.kind == "trigger" && goes && !found.contains(&object) {
            found.push(object);
        }
    }
    Ok(found)
}

/// Drops views and triggers, triggers first.
pub(super) async fn drop_all(conn: &mut SqliteConnection, objects: &[Object]) -> Result<(), Error> {
    for kind in ["trigger", "view"] {
        for object in objects.iter().filter(|object| object.kind == kind) {
            let sql = format!("DROP {} {}", kind.to_ascii_uppercase(), quote(&object.name));
            run(conn, "set a view or trigger aside", sql).await?;
        }
    }
    Ok(())
}

/// Makes views and triggers again as they were, in the order they were made in, views first.
pub(super) async fn create_all(
    conn: &mut SqliteConnection,
    objects: &[Object],
) -> Result<(), Error> {
    for kind in ["view", "trigger"] {
        for object in objects.iter().filter(|object| object.kind == kind) {
            alter(conn, object.sql.clone()).await?;
        }
    }
    Ok(())
}

/// Everything in the schema that has a text, in the order it was made in.
async fn objects(conn: &mut SqliteConnection) -> Result<Vec<Object>, Error> {
    let rows = sqlx::query(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid",
    )
    .fetch_all(conn)
    .await
    .map_err(failed("read the catalogue"))?;
    rows.iter()
        .map(|row| {
            let text = |at: usize| -> Result<String, Error> {
                row.try_get(at).map_err(failed("read the catalogue"))
            };
            Ok(Object { kind: text(0)?, name: text(1)?, table: text(2)?, sql: text(3)? })
        })
        .collect()
}

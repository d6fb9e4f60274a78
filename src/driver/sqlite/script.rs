//! Running the statements of a plan's step, in one transaction with the step's ledger row.
//!
//! Invariant: a statement that fails leaves nothing behind, of itself or of those before it.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Either, Executor as _, Row as _, SqlSafeStr as _, Statement as _};

use super::catalogue;
use super::error::{failed, refused};
use crate::bounds::message::STATEMENT_CHARS_MAX;
use crate::driver::Error;
use crate::driver::suggest;
use crate::run::{FailureClass, Script, Statement, Way};
use crate::sql::{Dialect, drops_one};

/// Runs every statement in order. Returns the rows that their INSERT, UPDATE and DELETE changed themselves (not what
/// triggers changed).
///
/// What a statement of an undo drops and is gone already is no reason to fail: then there is nothing to do.
pub(super) async fn run(
    conn: &mut SqliteConnection,
    script: &Script,
    way: Way,
) -> Result<u64, Error> {
    let mut rows = 0;
    for statement in &script.statements {
        match run_statement(conn, &statement.text).await {
            Ok(changed) => rows += changed,
            Err(error) if way == Way::Back && drops_what_is_gone(&error, statement) => {
                tracing::debug!(%error, "gone already");
            }
            Err(error) => return Err(explain(conn, error, (script, statement), way).await),
        }
    }
    Ok(rows)
}

/// Whether a statement only drops something, and fails since that isn't there.
fn drops_what_is_gone(error: &Error, statement: &Statement) -> bool {
    let Error::Failed(failure) = error else { return false };
    failure.message.contains("no such ") && drops_one(Dialect::Sqlite, &statement.text)
}

async fn run_statement(conn: &mut SqliteConnection, text: &str) -> Result<u64, Error> {
    let sql = AssertSqlSafe(text.to_owned()).into_sql_str();
    // A placeholder would silently stand for NULL.
    let prepared = (&mut *conn).prepare(sql.clone()).await.map_err(|error| refused(&error))?;
    if let Some(Either::Right(1..)) = prepared.parameters() {
        return Err(Error::failed(
            FailureClass::Refused,
            "the statement has a placeholder, and a plan gives no values for it",
        ));
    }
    let (_, before) = changes(conn).await?;
    sqlx::raw_sql(sql).execute(&mut *conn).await.map_err(|error| refused(&error))?;
    let (last, after) = changes(conn).await?;
    // `changes()` keeps the count of an earlier statement when this one is no INSERT, UPDATE or DELETE.
    Ok(if after > before && writes_rows(text) { last.cast_unsigned() } else { 0 })
}

/// Rows changed by the last statement that changes rows, and by all of the connection, triggers included.
async fn changes(conn: &mut SqliteConnection) -> Result<(i64, i64), Error> {
    let row = sqlx::query("SELECT changes(), total_changes()")
        .fetch_one(conn)
        .await
        .map_err(failed("count the changes"))?;
    let get = |at: usize| row.try_get(at).map_err(failed("count the changes"));
    Ok((get(0)?, get(1)?))
}

fn writes_rows(text: &str) -> bool {
    let word: String = text.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    ["insert", "replace", "update", "delete", "with"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

/// Adds the plan's line, the statement's beginning and, for a mistyped name, what was likely meant.
async fn explain(
    conn: &mut SqliteConnection,
    error: Error,
    (script, statement): (&Script, &Statement),
    way: Way,
) -> Error {
    let Error::Failed(mut failure) = error else { return error };
    failure.line = Some(statement.line);
    let mut shown: String = statement.text.chars().take(STATEMENT_CHARS_MAX).collect();
    shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    if statement.text.chars().count() > STATEMENT_CHARS_MAX {
        shown.push('…');
    }
    failure.detail = Some(match &script.file {
        Some(file) => format!("in {shown} ({file})"),
        None => format!("in {shown}"),
    });
    if failure.help.is_none() && way == Way::Forward {
        // What an undo names was there when the plan was made, so that nobody mistyped it. Looking for a suggestion must not hide the error itself.
        failure.help = meant(conn, &failure.message).await.unwrap_or_default();
    }
    Error::Failed(failure)
}

/// What was likely meant by the name in one of SQLite's messages.
pub(super) async fn meant(
    conn: &mut SqliteConnection,
    message: &str,
) -> Result<Option<String>, Error> {
    let after = |mark: &str| message.split_once(mark).map(|(_, name)| name.trim().to_owned());
    let tables = catalogue::names(conn).await?;
    if let Some(typed) = after("no such table: ") {
        let typed = typed.strip_prefix("main.").unwrap_or(&typed).to_owned();
        let found = suggest::nearest(&typed, tables.iter().map(String::as_str));
        return Ok(found.map(|name| format!("did you mean the table {name}?")));
    }
    let Some(typed) = after("no such column: ").or_else(|| after("has no column named ")) else {
        return Ok(None);
    };
    let typed = typed.rsplit('.').next().unwrap_or(&typed).trim_matches('"').to_owned();
    let mut columns = Vec::new();
    for name in &tables {
        if let Some(table) = catalogue::table(conn, name).await? {
            columns.extend(table.columns.into_iter().map(|column| column.name));
        }
    }
    let found = suggest::nearest(&typed, columns.iter().map(String::as_str));
    Ok(found.map(|name| format!("did you mean the column {name}?")))
}

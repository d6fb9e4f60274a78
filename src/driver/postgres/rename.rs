//! Renaming tables and columns, and whether the names can be had.
//!
//! PostgreSQL renames by what a name stands for: views, foreign keys and indexes follow the table or column itself.
//! Absent on purpose: moving a table to another schema.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::catalogue::{self, Table, parts, quote};
use super::error::failed;
use crate::driver::Error;
use crate::run::{FailureClass, RetiredColumn};

/// Runs a statement of ours.
pub(super) async fn run(
    conn: &mut PgConnection,
    doing: &'static str,
    sql: String,
) -> Result<(), Error> {
    sqlx::query(AssertSqlSafe(sql)).execute(conn).await.map(|_| ()).map_err(failed(doing))
}

/// Gives a table another name, written as a mapping writes it; by that name it must be found afterwards.
pub(super) async fn table(
    conn: &mut PgConnection,
    table: &Table,
    new_name: &str,
) -> Result<(), Error> {
    let (schema, name) = parts(new_name);
    if schema.as_ref().is_some_and(|schema| *schema != table.schema) {
        let message = format!(
            "{} is in schema {}, and {new_name} would be in another",
            table.name, table.schema
        );
        return Err(Error::failed(FailureClass::Refused, message)
            .with_help("a table is renamed within its schema"));
    }
    let sql = format!("ALTER TABLE {} RENAME TO {}", table.sql(), quote(&name));
    run(conn, "rename the table", sql).await?;
    let found = catalogue::table(conn, new_name).await?;
    if found.is_some_and(|found| found.oid == table.oid) {
        return Ok(());
    }
    let message = format!("{new_name} would not be found as the table {} put aside", table.name);
    Err(Error::failed(FailureClass::Refused, message)
        .with_help(format!("write the names with their schema: {}.{name}", table.schema)))
}

/// Puts columns aside; others take their names.
pub(super) async fn columns(
    conn: &mut PgConnection,
    table: &Table,
    columns: &[RetiredColumn],
) -> Result<(), Error> {
    for retired in columns {
        column(conn, table, (&retired.column, &retired.old_name)).await?;
    }
    for retired in columns {
        if let Some(taken) = &retired.take_name {
            column(conn, table, (taken, &retired.column)).await?;
        }
    }
    Ok(())
}

/// Takes that back.
pub(super) async fn columns_back(
    conn: &mut PgConnection,
    table: &Table,
    columns: &[RetiredColumn],
) -> Result<(), Error> {
    for retired in columns {
        if let Some(taken) = &retired.take_name {
            column(conn, table, (&retired.column, taken)).await?;
        }
    }
    for retired in columns {
        column(conn, table, (&retired.old_name, &retired.column)).await?;
    }
    Ok(())
}

async fn column(
    conn: &mut PgConnection,
    table: &Table,
    (from, to): (&str, &str),
) -> Result<(), Error> {
    let sql = format!("ALTER TABLE {} RENAME COLUMN {} TO {}", table.sql(), quote(from), quote(to));
    run(conn, "rename the column", sql).await
}

//! What is left of a sync when somebody took away a table of its mapping.
//!
//! Invariants:
//! - Nothing here looks the tables of the mapping up: what is ours is found by the mapping's name, wherever it is.
//! - What is on a table that is still there goes in one transaction with the ledger, with that table locked: clients whose
//!   writes failed for want of the other table are well from the commit on.
//!
//! Absent on purpose: emptying the new side. Where it is gone there is nothing to empty, and where the old side is gone its rows
//! are nowhere else.

use std::sync::Arc;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{self, Table};
use super::connection::Tx;
use super::dual_write::done_before;
use super::error::failed;
use super::ledger;
use super::locks::lock_all;
use super::shape::Shape;
use super::sync_objects::remove_sync;
use super::sync_state::own_triggers;
use crate::driver::{Applied, Error, Fence, Gone, Work};
use crate::run::Mapping;

/// What of a mapping's tables is gone.
pub(super) async fn of(conn: &mut PgConnection, mapping: &Mapping) -> Result<Gone, Error> {
    let old = catalogue::table(conn, &mapping.from.table).await?;
    let new = catalogue::table(conn, &mapping.into.table).await?;
    match (old, new) {
        (Some(_), Some(_)) => Ok(Gone::Nothing),
        (_, None) => Ok(Gone::New),
        (None, Some(new)) => {
            let sql = format!("SELECT EXISTS (SELECT FROM {})", new.sql());
            let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
            let has_rows = row.and_then(|row| row.try_get(0));
            let has_rows = has_rows.map_err(failed("look for rows of the new side"))?;
            Ok(Gone::Old { has_rows })
        }
    }
}

/// Removes what is left of a sync.
pub(super) async fn remove_in(
    tx: &mut Tx<'_>,
    (fence, work): (&Fence, &Work),
    (mapping, gone): (&Mapping, Gone),
) -> Result<Applied, Error> {
    if let Some(applied) = done_before(tx, fence, work).await? {
        return Ok(applied);
    }
    let shape = left(tx.conn()?, mapping).await?;
    let schema = tx.schema().to_owned();
    let mut tables: Vec<String> =
        own_triggers(tx.conn()?, &shape, &schema).await?.into_iter().map(|it| it.table).collect();
    tables.sort();
    tables.dedup();
    let lock = |table: &String| format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    if !tables.is_empty() {
        lock_all(tx, &tables.iter().map(lock).collect::<Vec<_>>()).await?;
    }
    remove_sync(tx, &shape).await?;
    let name = match gone {
        Gone::Old { .. } => &mapping.from.table,
        Gone::New | Gone::Nothing => &mapping.into.table,
    };
    ledger::record(tx, fence, work, (0, Some(format!("{name} is gone already")))).await
}

/// A mapping over what is left of its tables.
async fn left(conn: &mut PgConnection, mapping: &Mapping) -> Result<Shape, Error> {
    let old = catalogue::table(conn, &mapping.from.table).await?;
    let new = catalogue::table(conn, &mapping.into.table).await?;
    let or_none =
        |table: Option<Table>, name: &str| Arc::new(table.unwrap_or_else(|| Table::absent(name)));
    let (old, new) = (or_none(old, &mapping.from.table), or_none(new, &mapping.into.table));
    Ok(Shape::bare(mapping, old, new))
}

//! Emptying the new side when going back, in bounded transactions, so that clients get in between.
//!
//! Rows are walked by key, so that no transaction reads what earlier ones left behind. Each transaction locks its rows first,
//! and waits for a lock less than it takes the server to look for deadlocks: clients hold several rows in an order of their
//! own, and it is we who yield.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::catalogue::{Column, quote};
use super::connection::{Connections, Tx};
use super::error::failed;
use super::ledger;
use super::same::{held, same, stored};
use super::shape::Shape;
use super::sync_sql::{Side, any};
use crate::bounds::postgres::{
    EMPTIED_AT_ONCE, EMPTYING_TRIES_MAX, EMPTYING_WALKS_MAX, ROW_LOCK_MS,
};
use crate::driver::{Error, Fence, TxKind};
use crate::run::FailureClass;

/// Whether the new side has nothing in it.
pub(super) async fn is_empty(conn: &mut PgConnection, shape: &Shape) -> Result<bool, Error> {
    let sql = format!("SELECT 1 FROM {} WHERE {} LIMIT 1", shape.named(Side::New), filled(shape));
    let row = conn.fetch_optional(AssertSqlSafe(sql)).await;
    Ok(row.map_err(failed("look whether the new side is empty"))?.is_none())
}

/// That a row of the new side has something in it: that it is there, or in place that a target column has something else
/// than its default.
fn filled(shape: &Shape) -> String {
    if !shape.in_place {
        return "true".to_owned();
    }
    let alias = quote(&shape.new.name);
    let columns = shape.writes.iter().filter_map(|write| shape.new.column(&write.column));
    let differs = |column: &Column| {
        let seen = format!("{alias}.{}", quote(&column.name));
        let default = stored(column, &default_of(column));
        format!("NOT {}", same(&[held(column, &seen)], &[default]))
    };
    any(&columns.map(differs).collect::<Vec<_>>())
}

/// The default of a column, with the column's type.
fn default_of(column: &Column) -> String {
    let default = column.default.as_deref().unwrap_or("NULL");
    format!("CAST(({default}\n) AS {})", column.type_sql)
}

/// Empties rows behind a key, which is bound, and gives their number and the last key.
fn empty_some(shape: &Shape, is_behind: Option<()>) -> String {
    let (table, alias) = (shape.named(Side::New), quote(&shape.new.name));
    let names = shape.bare_key(Side::New);
    let marks = shape.mark_columns();
    let bare = shape.named_key(Side::New);
    let found: Vec<String> =
        bare.iter().zip(&marks).map(|(name, mark)| format!("{name} AS {mark}")).collect();
    let behind = is_behind.map_or_else(String::new, |()| {
        let bounds: Vec<String> = shape
            .keys
            .iter()
            .enumerate()
            .map(|(at, pair)| format!("${}::text::{}", at + 1, pair.bound_sql()))
            .collect();
        format!(" AND ({}) > ({})", bare.join(", "), bounds.join(", "))
    });
    let is: Vec<String> = names
        .iter()
        .zip(&marks)
        .map(|(name, mark)| format!("{alias}.{name} = phasegate_s.{mark}"))
        .collect();
    let act = if shape.in_place {
        let sets: Vec<String> = shape
            .writes
            .iter()
            .filter_map(|write| shape.new.column(&write.column))
            .map(|column| format!("{} = {}", quote(&column.name), default_of(column)))
            .collect();
        format!(
            "UPDATE {table} SET {} FROM phasegate_s WHERE {}",
            sets.join(", "),
            is.join(" AND ")
        )
    } else {
        format!("DELETE FROM {table} USING phasegate_s WHERE {}", is.join(" AND "))
    };
    let strength = if shape.in_place { "FOR NO KEY UPDATE" } else { "FOR UPDATE" };
    let texts: Vec<String> = marks.iter().map(|mark| format!("{mark}::text")).collect();
    let last: Vec<String> = marks.iter().map(|mark| format!("{mark} DESC")).collect();
    format!(
        "WITH phasegate_s AS MATERIALIZED (SELECT {} FROM {table} WHERE {}{behind} ORDER BY {} LIMIT {EMPTIED_AT_ONCE} {strength}), \
         phasegate_e AS ({act} RETURNING 1) \
         SELECT (SELECT count(*) FROM phasegate_e), {} FROM phasegate_s ORDER BY {} LIMIT 1",
        found.join(", "),
        filled(shape),
        bare.join(", "),
        texts.join(", "),
        last.join(", "),
    )
}

/// Empties the new side, transaction by transaction. Returns the last one, still open, and the rows emptied by all.
pub(super) async fn empty_again<'a>(
    connections: &'a Connections,
    fence: &Fence,
    shape: &Shape,
) -> Result<(Tx<'a>, u64), Error> {
    let mut emptied = 0;
    let mut after: Option<Vec<String>> = None;
    let (mut walks, mut tries) = (1, 0);
    loop {
        let mut tx = connections.begin_waiting(fence, TxKind::Remove, Some(ROW_LOCK_MS)).await?;
        let done = match empty_behind(tx.conn()?, shape, after.as_deref()).await {
            Ok(done) => {
                tries = 0;
                done
            }
            Err(error)
                if error.class() == Some(FailureClass::Contention)
                    && tries < EMPTYING_TRIES_MAX =>
            {
                tx.roll_back().await;
                tries += 1;
                continue;
            }
            Err(error) => return Err(tx.give_up(error).await),
        };
        match done {
            // What clients put in behind our back is found by another walk. What users' triggers keep in is left.
            None if after.is_some() && walks < EMPTYING_WALKS_MAX => {
                after = None;
                walks += 1;
            }
            None => return Ok((tx, emptied)),
            Some((rows, last)) => {
                emptied += rows;
                after = Some(last);
            }
        }
        tx.commit().await?;
    }
}

async fn empty_behind(
    conn: &mut PgConnection,
    shape: &Shape,
    after: Option<&[String]>,
) -> Result<Option<(u64, Vec<String>)>, Error> {
    let doing = "empty the new side";
    let sql = empty_some(shape, after.map(|_| ()));
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    for cell in after.unwrap_or_default() {
        query = query.bind(cell.clone());
    }
    let Some(row) = query.fetch_optional(conn).await.map_err(failed(doing))? else {
        return Ok(None);
    };
    let rows = ledger::unsigned(row.try_get(0).map_err(failed(doing))?)?;
    let last = (1..=shape.keys.len()).map(|at| row.try_get(at)).collect::<Result<_, _>>();
    Ok(Some((rows, last.map_err(failed(doing))?)))
}

//! Whether a key identifies rows, and lets them be walked.
//!
//! A key is sound when a UNIQUE index that is neither partial nor on expressions has just its columns, in its order and
//! under the collations that the columns compare by, and none of them can hold NULL. A PRIMARY KEY alone is not enough:
//! in SQLite it may hold NULLs, but for INTEGER PRIMARY KEY and WITHOUT ROWID and STRICT tables.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{Table, quote, same_name};
use super::error::failed;
use crate::driver::Error;

/// What is wrong with a key whose columns all exist, and what to do; `None` when nothing is.
pub(super) async fn identity_problem(
    conn: &mut SqliteConnection,
    table: &Table,
    key: &[String],
) -> Result<Option<(String, String)>, Error> {
    let identities = table.identities();
    let is_same = |columns: &Vec<&str>| {
        columns.len() == key.len() && columns.iter().zip(key).all(|(one, two)| same_name(one, two))
    };
    if identities.iter().any(is_same) {
        return collation_problem(conn, table, key).await;
    }
    let shown = key.join(", ");
    let nullable: Vec<&str> = key
        .iter()
        .filter_map(|name| table.column(name))
        .filter(|column| table.may_be_null(column))
        .map(|column| column.name.as_str())
        .collect();
    let has_all = |columns: &&Vec<&str>| {
        columns.len() == key.len()
            && columns.iter().all(|column| key.iter().any(|name| same_name(name, column)))
    };
    let message = if identities.iter().any(|columns| has_all(&columns)) {
        format!(
            "the key ({shown}) of {} is unique only in another order of its columns",
            table.name
        )
    } else if nullable.is_empty() {
        format!("the key ({shown}) of {} is not unique by a constraint or a full index", table.name)
    } else {
        let which = nullable.join(", ");
        format!("the key ({shown}) of {} does not identify rows: {which} may be NULL", table.name)
    };
    let help = if identities.is_empty() {
        format!("{} has no unique key that is never NULL: add one", table.name)
    } else {
        let candidates: Vec<String> =
            identities.iter().map(|columns| format!("[{}]", columns.join(", "))).collect();
        format!("use key: {}", candidates.join(" or "))
    };
    Ok(Some((message, help)))
}

/// An index under another collation than its column's says nothing of rows that the column takes for equal, and can't be
/// walked in the column's order.
async fn collation_problem(
    conn: &mut SqliteConnection,
    table: &Table,
    key: &[String],
) -> Result<Option<(String, String)>, Error> {
    if table.rowid_alias().is_some_and(|alias| key.len() == 1 && same_name(&alias.name, &key[0])) {
        return Ok(None);
    }
    let mut collations = Vec::with_capacity(key.len());
    for name in key {
        collations.push(collation(conn, table, name).await?);
    }
    let is_walkable =
        table.indexes.iter().filter(|index| index.unique && !index.partial).any(|index| {
            index.columns.len() == key.len()
                && index.columns.iter().zip(key).zip(&collations).all(
                    |((part, name), collation)| {
                        part.name.as_deref().is_some_and(|part| same_name(part, name))
                            && same_name(&part.collation, collation)
                    },
                )
        });
    if is_walkable {
        return Ok(None);
    }
    let message = format!(
        "the key ({}) of {} is unique under another collation than its columns compare by ({})",
        key.join(", "),
        table.name,
        collations.join(", ")
    );
    Ok(Some((message, "add a UNIQUE index without COLLATE".to_owned())))
}

/// The collation that a column compares by. The catalogue has no function for it, but the code of a comparison names it:
/// `Eq … p4 = 'NOCASE-8'`.
pub(super) async fn collation(
    conn: &mut SqliteConnection,
    table: &Table,
    column: &str,
) -> Result<String, Error> {
    // The plus keeps an index, whose search has no comparison, out of it, and leaves the collation.
    let sql = format!("EXPLAIN SELECT 1 FROM {} WHERE +{} = ?1", quote(&table.name), quote(column));
    let rows = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_all(conn)
        .await
        .map_err(failed("read a column's collation"))?;
    let found = rows.iter().find_map(|row| {
        let opcode: String = row.try_get("opcode").ok()?;
        let operand: Option<String> = row.try_get("p4").ok()?;
        let is_comparison = matches!(opcode.as_str(), "Eq" | "Ne");
        let name = operand?.rsplit_once('-').map(|(name, _)| name.to_owned())?;
        (is_comparison && !name.is_empty()).then_some(name)
    });
    Ok(found.unwrap_or_else(|| "BINARY".to_owned()))
}

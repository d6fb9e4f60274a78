//! What stands in the way of carrying rows of a table into another database, found before the first change.
//!
//! Absent on purpose: the new side, and the step that a finding is of.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::form::{Kind, Scalar};
use super::{Captured, kinds};
use crate::bounds::copying::KEY_COLUMNS_MAX;
use crate::driver::postgres::catalogue::{Column, Table};
use crate::driver::postgres::error::failed;
use crate::driver::postgres::gaps::KEPT_DIFFERENTLY;
use crate::driver::postgres::survey::{NO_COLUMN, NO_IDENTITY, NO_SYNC, NOT_A_TABLE};
use crate::driver::{Error, Severity};

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// How much.
    pub severity: Severity,
    /// Its code.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// A value of a type that no other database has.
const NO_FORM: &str = "D222";
/// An expression that may fail for a row.
const MAY_FAIL: &str = "D223";

/// Everything that stands in a mapping's way, and what may come into clients' way. Changes nothing. Fails where the server refuses the
/// expressions as a whole, in its own words.
pub(super) async fn all(
    conn: &mut PgConnection,
    captured: &Captured,
    table: &Table,
) -> Result<Vec<Found>, Error> {
    let (_, mut found) = errors(conn, captured, table).await?;
    found.extend(warnings(captured, table));
    Ok(found)
}

fn error(code: &'static str, message: String, help: Option<String>) -> Found {
    Found { severity: Severity::Error, code, message, help }
}

/// The types of the mapping's columns, and what it can't work with.
pub(super) async fn errors(
    conn: &mut PgConnection,
    captured: &Captured,
    table: &Table,
) -> Result<(Vec<Kind>, Vec<Found>), Error> {
    let mut found = of_table(table);
    found.extend(foreign(conn, table).await?);
    if !found.is_empty() {
        return Ok((Vec::new(), found));
    }
    let kinds = kinds(conn, captured, table).await?;
    found.extend(of_key(captured, table));
    for (at, ((name, expression), kind)) in captured.columns.iter().zip(&kinds).enumerate() {
        if kind.form().is_none() {
            let message =
                format!("{name} would be of type {}, which a graph has nothing for", kind.shown);
            let help = if captured.is_along(at) {
                format!(
                    "say under `properties` how it is carried, such as `{name}: {name}::text`: {}",
                    kind.instead(name)
                )
            } else {
                kind.instead(expression)
            };
            found.push(error(NO_FORM, message, Some(help)));
        }
    }
    Ok((kinds, found))
}

fn of_table(table: &Table) -> Vec<Found> {
    let mut found = Vec::new();
    if !matches!(table.kind, 'r' | 'p') {
        found.push(error(NOT_A_TABLE, format!("{} is not a table", table.name), None));
    }
    if table.persistence == 't' {
        let message = format!("{} is a temporary table, which others can't see", table.name);
        found.push(error(NOT_A_TABLE, message, None));
    }
    found
}

/// Partitions on other servers, whose rows don't say which transaction wrote them.
async fn foreign(conn: &mut PgConnection, table: &Table) -> Result<Option<Found>, Error> {
    let row = sqlx::query(
        "SELECT max(c.relname)::text FROM pg_partition_tree($1::bigint::oid::regclass) AS p JOIN pg_class c ON c.oid = p.relid
         WHERE c.relkind = 'f'",
    )
    .bind(i64::from(table.oid))
    .fetch_one(conn)
    .await;
    let name: Option<String> =
        row.and_then(|row| row.try_get(0)).map_err(failed("look for partitions"))?;
    let found = |name| {
        let message = format!("the partition {name} of {} is on another server", table.name);
        let help = "detach it, or map a table without such partitions".to_owned();
        error(NO_SYNC, message, Some(help))
    };
    Ok(name.map(found))
}

fn of_key(captured: &Captured, table: &Table) -> Vec<Found> {
    let mut found = Vec::new();
    if captured.key.is_empty() || captured.key.len() > KEY_COLUMNS_MAX {
        let message = format!("a key has from 1 to {KEY_COLUMNS_MAX} columns");
        found.push(error(NO_IDENTITY, message, None));
    }
    for name in &captured.key {
        let Some(column) = table.column(name) else {
            let message = format!("table {} has no column {name}", table.name);
            found.push(error(NO_COLUMN, message, None));
            continue;
        };
        if key_form(column).is_none() {
            let message = format!(
                "the key column {name} is of type {}: only whole numbers, texts and uuids are keys in another database",
                column.declared
            );
            let help = "use another unique key, or add a column of such a type with a unique index"
                .to_owned();
            found.push(error(NO_FORM, message, Some(help)));
        }
    }
    let identities = table.identities();
    let key = &captured.key;
    let is_key = |columns: &Vec<&str>| {
        columns.len() == key.len() && key.iter().all(|name| columns.contains(&name.as_str()))
    };
    if !identities.iter().any(is_key) {
        let message = format!(
            "({}) does not identify rows of {}: it takes a unique index over exactly these columns, not partial, not \
             deferrable, and none of them NULL",
            key.join(", "),
            table.name
        );
        let candidates: Vec<String> =
            identities.iter().map(|columns| format!("[{}]", columns.join(", "))).collect();
        let help = if candidates.is_empty() {
            format!("{} has no unique key that is never NULL: add one", table.name)
        } else {
            format!("use key: {}", candidates.join(" or "))
        };
        found.push(error(NO_IDENTITY, message, Some(help)));
    }
    found
}

/// How a key's column is read; none where it can't be a key in another database.
pub(super) fn key_form(column: &Column) -> Option<Scalar> {
    Some(match column.type_sql.as_str() {
        "smallint" | "integer" | "bigint" => Scalar::Integer,
        "text" | "character varying" | "name" | "uuid" => Scalar::Text,
        "bpchar" | "character" => Scalar::Padded,
        other if other == "citext" || other.ends_with(".citext") => Scalar::Text,
        _ => return None,
    })
}

/// What works as long as the data allow.
fn warnings(captured: &Captured, table: &Table) -> Vec<Found> {
    let warning = |code: &'static str, message: String, help: &str| Found {
        severity: Severity::Warning,
        code,
        message,
        help: Some(help.to_owned()),
    };
    let mut found = Vec::new();
    if table.persistence == 'u' {
        let message =
            format!("{} is unlogged: a crash empties it, and no trigger sees that", table.name);
        found.push(warning(
            KEPT_DIFFERENTLY,
            message,
            "ALTER TABLE … SET LOGGED before the copy, or compare after a crash",
        ));
    }
    let filter = captured.filter.iter().map(|filter| ("where", filter.as_str()));
    let columns = captured.columns.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, expression) in columns.chain(filter) {
        if may_fail(expression) {
            let message = format!(
                "{name}: where this expression fails for a row, a client's write of that row fails with it"
            );
            let help = "see that it can't fail for any row that clients may write, or write a CASE around it";
            found.push(warning(MAY_FAIL, message, help));
        }
    }
    found
}

/// Functions that fail for no row.
const SAFE: [&str; 10] =
    ["coalesce", "lower", "upper", "trim", "btrim", "ltrim", "rtrim", "nullif", "concat", "md5"];

/// Whether an expression may fail for some values, as far as its text tells: everything but columns, constants, comparisons, CASE,
/// and few functions. Arithmetic may overflow, and casts may find what they can't read.
pub(super) fn may_fail(expression: &str) -> bool {
    // What stands in quotes is text, or a name.
    let mut bare = String::new();
    let mut quote = None;
    for char in expression.to_lowercase().chars() {
        match quote {
            Some(open) if open == char => quote = None,
            Some(_) => {}
            None if char == '\'' || char == '"' => {
                quote = Some(char);
                bare.push('q');
            }
            None => bare.push(char),
        }
    }
    let bare = bare.replace("->>", "").replace("->", "").replace("::text", "");
    if bare.contains("::") || bare.contains(['+', '-', '*', '/', '%', '^', '[', '@', '!']) {
        return true;
    }
    bare.match_indices('(').any(|(at, _)| {
        let before = bare[..at].trim_end();
        let word = before.rsplit(|char: char| !char.is_alphanumeric() && char != '_').next();
        let word = word.unwrap_or_default();
        let is_called =
            !matches!(word, "" | "and" | "or" | "not" | "in" | "when" | "then" | "else" | "case");
        is_called && !SAFE.contains(&word)
    })
}

#[cfg(test)]
mod tests {
    use super::may_fail;

    #[test]
    fn what_may_fail_is_told_by_the_text() {
        for safe in [
            "email",
            "lower(status)",
            "coalesce(a, 'x+y') || b",
            "\"odd-name\"",
            "doc->>'field'",
            "n::text",
            "CASE WHEN (a > 1) AND (b IS NULL) THEN 'x' ELSE 'y' END",
            "status IN ('a', 'b')",
        ] {
            assert!(!may_fail(safe), "{safe}");
        }
        for unsafe_ in
            ["n::int", "a / b", "a + 1", "cast(a AS int)", "my_function(a)", "(a * 100)::bigint"]
        {
            assert!(may_fail(unsafe_), "{unsafe_}");
        }
    }
}

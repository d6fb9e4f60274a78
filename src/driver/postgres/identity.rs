//! Whether a key identifies rows, and why one doesn't.
//!
//! A key is sound when a valid UNIQUE index has just its columns, is neither partial nor over an expression, is checked at
//! once (not DEFERRABLE), and none of the columns can hold NULL. Absent on purpose: which index serves the walk, which
//! only the planner knows (a dry run asks it).

use super::catalogue::{Index, Table};
use super::stricter::behind_using;

/// What is wrong with a key whose columns all exist, and what to do; `None` when nothing is.
pub(super) fn identity_problem(table: &Table, key: &[String]) -> Option<(String, String)> {
    let identities = table.identities();
    if identities.iter().any(|columns| is_same(columns, key)) {
        return None;
    }
    let nullable: Vec<&str> = key
        .iter()
        .filter_map(|name| table.column(name))
        .filter(|column| !column.not_null)
        .map(|column| column.name.as_str())
        .collect();
    let over_these = |index: &&Index| {
        let columns: Option<Vec<&str>> = index.columns.iter().map(Option::as_deref).collect();
        index.is_unique && columns.is_some_and(|columns| is_same(&columns, key))
    };
    let uniques: Vec<&Index> = table.indexes.iter().filter(over_these).collect();
    let by_expression = table.indexes.iter().find(|index| {
        index.is_unique
            && index.columns.iter().any(Option::is_none)
            && key.iter().any(|name| names(behind_using(&index.definition), name))
    });
    let why = match uniques.as_slice() {
        [] => match by_expression {
            Some(index) => {
                format!("{} is unique by an expression, not by these columns", index.name)
            }
            None => "it is not unique by a constraint or a full index".to_owned(),
        },
        [..] if uniques.iter().any(|index| index.is_identity()) => {
            format!("{} may be NULL", nullable.join(", "))
        }
        [index, ..] if !index.is_valid => format!("{} is not valid: its build failed", index.name),
        [index, ..] if index.is_partial => format!("{} is partial", index.name),
        [index, ..] => {
            format!("{} is DEFERRABLE, and may be broken for a moment", index.name)
        }
    };
    let message =
        format!("the key ({}) of {} does not identify rows: {why}", key.join(", "), table.name);
    let help = if identities.is_empty() {
        format!("{} has no unique key that is never NULL: add one", table.name)
    } else {
        let candidates: Vec<String> =
            identities.iter().map(|columns| format!("[{}]", columns.join(", "))).collect();
        format!("use key: {}", candidates.join(" or "))
    };
    Some((message, help))
}

/// Whether SQL has a word.
fn names(sql: &str, name: &str) -> bool {
    sql.split(|char: char| !(char.is_alphanumeric() || char == '_')).any(|word| word == name)
}

fn is_same(columns: &[&str], key: &[String]) -> bool {
    columns.len() == key.len() && key.iter().all(|name| columns.contains(&name.as_str()))
}

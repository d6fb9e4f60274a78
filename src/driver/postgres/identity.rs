//! Whether a relation can be mapped and a key identifies its rows, and why not.
//!
//! A key is sound when a valid UNIQUE index has just its columns, is neither partial nor over an expression, is checked at
//! once (not DEFERRABLE), and none of the columns can hold NULL. Absent on purpose: which index serves the walk, which
//! only the planner knows (a dry run asks it).

use super::catalogue::{Index, Table, quote};
use super::stricter::behind_using;
use super::surroundings::Surroundings;

/// Why a relation can't be mapped, and what to do.
pub(super) fn unfit(table: &Table, around: &Surroundings) -> Option<(String, String)> {
    let name = &table.name;
    let kind = match table.kind {
        'r' | 'p' if table.persistence == 't' => {
            "a temporary table, which other sessions can't see"
        }
        'r' | 'p' => "",
        'v' => "a view",
        'm' => "a materialised view",
        'f' => "a foreign table",
        'S' => "a sequence",
        _ => "not a table",
    };
    if !kind.is_empty() {
        let message = format!("{name} is {kind}: it can't be mapped");
        return Some((message, "map the tables behind it".to_owned()));
    }
    if table.is_partition {
        let parent = around.parents.join(", ");
        let message =
            format!("{name} is a partition of {parent}: its rows come and go with their key");
        return Some((message, format!("map {parent}")));
    }
    if table.kind == 'r' && around.children > 0 {
        let inherit = match around.children {
            1 => "1 table inherits".to_owned(),
            more => format!("{more} tables inherit"),
        };
        let message = format!(
            "{inherit} from {name}: their rows are read with it, and a sync on it doesn't see them"
        );
        return Some((
            message,
            "map each table by itself, or make it a partitioned table".to_owned(),
        ));
    }
    None
}

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
    let made = statements(table, key, &uniques, &nullable);
    let candidates: Vec<String> =
        identities.iter().map(|columns| format!("[{}]", columns.join(", "))).collect();
    let help = if candidates.is_empty() {
        format!("{} has no unique key that is never NULL; to make this one: {made}", table.name)
    } else {
        format!("use key: {}; or make this one: {made}", candidates.join(" or "))
    };
    Some((message, help))
}

/// The statements that would make a key of these columns.
fn statements(table: &Table, key: &[String], uniques: &[&Index], nullable: &[&str]) -> String {
    let name = table.sql();
    let columns: Vec<String> = key.iter().map(|name| quote(name)).collect();
    let mut statements = Vec::new();
    match uniques {
        [..] if uniques.iter().any(|index| index.is_identity()) => {}
        [index, ..] if !index.is_valid => statements.push(format!(
            "REINDEX INDEX CONCURRENTLY {}.{}",
            quote(&table.schema),
            quote(&index.name)
        )),
        _ => {
            // The server builds no index of a partitioned table beside its writers.
            let concurrently = if table.kind == 'p' { "" } else { " CONCURRENTLY" };
            statements.push(format!(
                "CREATE UNIQUE INDEX{concurrently} ON {name} ({})",
                columns.join(", ")
            ));
        }
    }
    if !nullable.is_empty() {
        let not_null: Vec<String> =
            nullable.iter().map(|name| format!("ALTER {} SET NOT NULL", quote(name))).collect();
        statements.push(format!("ALTER TABLE {name} {}", not_null.join(", ")));
    }
    statements.join("; ")
}

/// Whether SQL has a word.
fn names(sql: &str, name: &str) -> bool {
    sql.split(|char: char| !(char.is_alphanumeric() || char == '_')).any(|word| word == name)
}

fn is_same(columns: &[&str], key: &[String]) -> bool {
    columns.len() == key.len() && key.iter().all(|name| columns.contains(&name.as_str()))
}

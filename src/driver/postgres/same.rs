//! What it means that a column is as the mapping says: for the triggers, the copy and the comparison alike.
//!
//! Invariants:
//! - [`same`] holds exactly when storing the value would give what is stored. Images are compared byte for byte by
//!   `record_image_eq`, which is what REFRESH MATERIALIZED VIEW CONCURRENTLY relies on. So every type can be compared (json,
//!   xml and point have no equality of their own), NULL is like NULL and NaN like NaN, and 1.0 differs from 1.00, -0 from 0,
//!   'A' from 'a' whatever the collation, and 1 day from 24 hours.
//! - What a cast would cut off and storing would refuse is like nothing that the column can hold ([`stored`]): a trigger
//!   tries to store it then, and the client hears of it.
//! - Images are compared of one type only. A domain's values are taken for what the domain is over ([`held`]), whose modifier
//!   a cast to the domain would apply without a word.

use super::catalogue::{Column, Table};
use super::shape::Write;

/// That columns hold what storing values in them would give. Both lists are of the same types.
pub(super) fn same(held: &[String], values: &[String]) -> String {
    if held.is_empty() {
        return "true".to_owned();
    }
    let (held, values) = (held.join(", "), values.join(", "));
    format!("pg_catalog.record_image_eq(ROW({held}), ROW({values}))")
}

/// A column, under whatever name it is seen, as it is compared.
pub(super) fn held(column: &Column, seen: &str) -> String {
    if column.is_of_domain() {
        format!("CAST({seen} AS {})", column.type_sql)
    } else {
        seen.to_owned()
    }
}

/// The column of a write, likewise.
pub(super) fn held_by(table: &Table, write: &Write, seen: &str) -> String {
    table.column(&write.column).map_or_else(|| seen.to_owned(), |column| held(column, seen))
}

/// A value as a column would hold it. A cast cuts off what a text or bit string is too long by, where storing the value would
/// be an error: such a value stays whole here, and so is like none that the column can hold.
pub(super) fn stored(column: &Column, value: &str) -> String {
    let (whole, bare) = (&column.stored_sql, &column.type_sql);
    if whole == bare {
        return format!("CAST({value} AS {bare})");
    }
    // Blanks at the end may go; in the texts of arrays they stand, in quotes, anywhere.
    let visible = |value: &str| match bare.as_str() {
        "character varying[]" | "bpchar[]" | "\"bit\"[]" | "bit varying[]" => {
            Some(format!("translate(CAST({value} AS text), ' \"', '')"))
        }
        "character varying" | "bpchar" | "\"bit\"" | "bit varying" => {
            Some(format!("rtrim(CAST({value} AS text), ' ')"))
        }
        _ => None,
    };
    let cast = format!("CAST({value} AS {whole})");
    match (visible(value), visible(&cast)) {
        (Some(before), Some(after)) => {
            format!("CASE WHEN {before} = {after} THEN {cast} ELSE CAST({value} AS {bare}) END")
        }
        _ => cast,
    }
}

/// The value of a write as its column would hold it, under whatever name it is seen.
pub(super) fn stored_by(table: &Table, write: &Write, seen: &str) -> String {
    match table.column(&write.column) {
        Some(column) if !write.is_same => stored(column, seen),
        _ => seen.to_owned(),
    }
}

//! Whether an inserted row has something other than the default in a column: by that a trigger tells who inserted it.
//!
//! Nobody may ask this of a default that stood when the trigger was made. A client may set another at any time, and what is left
//! out then gets that one; taken for a value of somebody's own it would win over what was really written. So the default is looked
//! up in the catalogue for each row, and worked out there; the function's text doesn't change with it.
//!
//! A client that sees the database as of before such a change (REPEATABLE READ, SERIALIZABLE) gets the new default all the same,
//! and would look up the old one. It is told to try again, as the server does where it meets a newer row.
//!
//! Absent on purpose: defaults of partitions, which count only for rows that are inserted into these by name.

use super::catalogue::{Column, Table, literal, quote};
use super::same::{held, same, stored};

/// The variable that holds a default's text, and what stands for it in a statement.
pub(super) const DEFAULT: &str = "phasegate_default";

/// Statements that set `variable` to whether an inserted row has something other than the default in any of `columns`.
pub(super) fn given(table: &Table, columns: &[&Column], variable: &str) -> String {
    let mut said = vec![format!("{variable} := false;")];
    for column in columns {
        let held = |seen: &str| held(column, seen);
        let is = |value: &str| stored(column, &format!("CAST(({value}\n) AS {})", column.type_sql));
        let seen = format!("NEW.{}", quote(&column.name));
        let none = same(&[held(&seen)], &[is("NULL")]);
        let any = format!("SELECT NOT {}", same(&[held("$1")], &[is(DEFAULT)]));
        said.push(format!(
            "IF NOT {variable} THEN\n{DEFAULT} := {};\nIF {DEFAULT} IS NULL THEN\n{variable} := NOT {none};\nELSE\n\
             EXECUTE replace({}, {}, {DEFAULT}) INTO {variable} USING {seen};\nEND IF;\nEND IF;",
            looked_up(table, column),
            literal(&any),
            literal(DEFAULT),
        ));
    }
    said.join("\n")
}

/// The text of a column's default, or of its type's where it has none; NULL where there is neither.
fn looked_up(table: &Table, column: &Column) -> String {
    format!(
        "(SELECT coalesce(pg_get_expr(phasegate_d.adbin, phasegate_d.adrelid), pg_get_expr(phasegate_y.typdefaultbin, 0), \
         quote_literal(phasegate_y.typdefault)) FROM pg_attribute AS phasegate_a \
         JOIN pg_type AS phasegate_y ON phasegate_y.oid = phasegate_a.atttypid \
         LEFT JOIN pg_attrdef AS phasegate_d ON phasegate_d.adrelid = phasegate_a.attrelid AND phasegate_d.adnum = phasegate_a.attnum \
         WHERE phasegate_a.attrelid = {}::regclass AND phasegate_a.attname = {})",
        literal(&table.sql()),
        literal(&column.name)
    )
}

/// Statements that end the client's where what it sees of any of `columns` is older than what holds.
///
/// A column's row in the catalogue is written anew with each change of its default, and the one before it carries the transaction
/// that did so. Whether that was committed is asked by its whole number, which is the one near to our own.
pub(super) fn refuse_if_older(table: &Table, columns: &[&Column]) -> String {
    if columns.is_empty() {
        return String::new();
    }
    let names: Vec<String> = columns.iter().map(|column| literal(&column.name)).collect();
    let by = "(CAST(CAST(phasegate_x.mine - ((phasegate_x.mine - phasegate_x.theirs + 2147483648) & 4294967295) + 2147483648 AS text) AS xid8))";
    format!(
        "IF current_setting('transaction_isolation') NOT LIKE 'read%' AND EXISTS (SELECT 1 FROM pg_attribute AS phasegate_a, \
         LATERAL (SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint) AS mine, CAST(CAST(phasegate_a.xmax AS text) AS bigint) AS theirs \
         OFFSET 0) AS phasegate_x \
         WHERE phasegate_a.attrelid = {}::regclass AND phasegate_a.attname IN ({}) \
         AND CASE WHEN phasegate_x.theirs = 0 THEN false ELSE pg_xact_status({by}) = 'committed' END) THEN\n\
         RAISE EXCEPTION 'could not serialize access due to a concurrent change of a default' USING ERRCODE = '40001';\nEND IF;",
        literal(&table.sql()),
        names.join(", "),
    )
}

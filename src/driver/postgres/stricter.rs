//! Where the new side takes less than the old one holds: types, NULL, unique, checks, foreign keys.
//!
//! What would change values without a word is an error. What would refuse some is a warning: it is often what the new side
//! is made for, and a row that it refuses is named; but a client's write of such a row fails, too.

use super::catalogue::{Column, Table};
use super::fit::{Fit, fit};
use super::survey::Side;
use crate::driver::Severity;
use crate::run::{CopyColumns, Mapping, OnDelete};

/// A column of the new side must have a value and gets none.
pub(super) const NO_VALUE: &str = "D206";
/// Values would be changed by being stored under another type.
pub(super) const OTHER_TYPE: &str = "D207";
/// The new side has a UNIQUE that the old side has not.
pub(super) const STRICTER_UNIQUE: &str = "D208";
/// The new side refuses NULLs that the old side may hold.
pub(super) const STRICTER_NULL: &str = "D209";
/// The new side has a check, an exclusion or a foreign key that the old side has not.
pub(super) const STRICTER_CHECK: &str = "D214";

/// A finding without its step.
pub(super) type Found = (Severity, &'static str, String, Option<String>);

/// Everything in which the new side is stricter.
pub(super) fn findings(mapping: &Mapping, from: &Side, into: &Side) -> Vec<Found> {
    let mut found = Vec::new();
    values(mapping, (&from.table, &into.table), &mut found);
    uniques(mapping, (&from.table, &into.table), &mut found);
    constraints(from, into, &mut found);
    found
}

/// The same for a mapping inside one table, where only what is listed is written.
pub(super) fn in_place(mapping: &Mapping, from: &Side, into: &Side) -> Vec<Found> {
    let mut found = Vec::new();
    for (name, _) in &mapping.columns {
        let source = source_of(mapping, &from.table, name);
        if let (Some(source), Some(target)) = (source, into.table.column(name)) {
            types(source, target, (&from.table, &into.table), &mut found);
            nulls(source, target, (&from.table, &into.table), &mut found);
        }
    }
    found
}

/// The columns that a mapping writes, each with its value over the source row. `Err` where a column isn't there, which is
/// found apart.
pub(super) fn writes(
    mapping: &Mapping,
    from: &Table,
    into: &Table,
) -> Result<Vec<(String, String)>, ()> {
    let mut writes = Vec::new();
    for column in into.columns.iter().filter(|column| !column.is_generated) {
        let listed = mapping.columns.iter().find(|(name, _)| *name == column.name);
        if let Some((_, expression)) = listed {
            writes.push((column.name.clone(), expression.clone()));
        } else if !mapping.is_in_place()
            && let Some(source) = source_of(mapping, from, &column.name)
        {
            writes.push((column.name.clone(), super::catalogue::quote(&source.name)));
        }
    }
    let is_there = |(name, _): &(String, String)| into.column(name).is_some();
    if mapping.columns.iter().all(is_there) { Ok(writes) } else { Err(()) }
}

/// The source column that is copied unchanged into a target column, if one is.
pub(super) fn source_of<'t>(mapping: &Mapping, from: &'t Table, name: &str) -> Option<&'t Column> {
    if let Some((_, expression)) = mapping.columns.iter().find(|(listed, _)| listed == name) {
        return from.column(expression.trim().trim_matches('"'));
    }
    if mapping.is_in_place() {
        return None;
    }
    if let Some(at) = mapping.into.key.iter().position(|key| key == name) {
        return mapping.from.key.get(at).and_then(|key| from.column(key));
    }
    (mapping.copy == CopyColumns::All).then(|| from.column(name)).flatten()
}

/// Every column of the new side gets a value that it takes.
fn values(mapping: &Mapping, (from, into): (&Table, &Table), found: &mut Vec<Found>) {
    for column in into.columns.iter().filter(|column| !column.is_generated) {
        let listed = mapping.columns.iter().any(|(name, _)| *name == column.name);
        let is_written = listed || source_of(mapping, from, &column.name).is_some();
        if mapping.on_delete == OnDelete::Nullify
            && is_written
            && column.not_null
            && !mapping.into.key.contains(&column.name)
        {
            let message =
                format!("on_delete: nullify can't make {}.{} NULL", into.name, column.name);
            let help = "drop its NOT NULL, or use on_delete: delete".to_owned();
            found.push((Severity::Error, STRICTER_NULL, message, Some(help)));
        }
        let Some(source) = source_of(mapping, from, &column.name) else {
            let is_filled = column.default.is_some() || column.identity.is_some();
            if !listed && column.not_null && !is_filled {
                let message = format!(
                    "{}.{} must have a value, and the mapping gives none",
                    into.name, column.name
                );
                let help = format!("list {} under columns, or give it a DEFAULT", column.name);
                found.push((Severity::Error, NO_VALUE, message, Some(help)));
            }
            continue;
        };
        types(source, column, (from, into), found);
        // A key that may be NULL is no key, which is found apart.
        if !mapping.from.key.contains(&source.name) {
            nulls(source, column, (from, into), found);
        }
    }
}

fn types(source: &Column, target: &Column, (from, into): (&Table, &Table), found: &mut Vec<Found>) {
    let said = |what: &str| {
        format!(
            "{}.{} is {} and {}.{} is {}: {what}",
            from.name, source.name, source.declared, into.name, target.name, target.declared
        )
    };
    let help = Some(format!(
        "say what is meant with columns: {}: {}::{}",
        target.name, source.name, target.declared
    ));
    match fit(source, target) {
        Fit::Whole => {}
        Fit::Refused => {
            let message = said("what doesn't fit is refused, in the copy and in a client's write");
            found.push((Severity::Warning, OTHER_TYPE, message, None));
        }
        // An expression that is nothing but the column's name says no more than no expression.
        Fit::Changed => {
            found.push((
                Severity::Error,
                OTHER_TYPE,
                said("values would be changed without a word"),
                help,
            ));
        }
    }
}

fn nulls(source: &Column, target: &Column, (from, into): (&Table, &Table), found: &mut Vec<Found>) {
    if target.not_null && !source.not_null {
        let message = format!(
            "{}.{} may be NULL and {}.{} may not: where it is, copying or a client's write will fail",
            from.name, source.name, into.name, target.name
        );
        let help = format!(
            "list it under columns, for example {}: coalesce({}, …)",
            target.name, source.name
        );
        found.push((Severity::Warning, STRICTER_NULL, message, Some(help)));
    }
}

/// Every UNIQUE of the new side over copied columns is one of the old side too.
fn uniques(mapping: &Mapping, (from, into): (&Table, &Table), found: &mut Vec<Found>) {
    for index in into.indexes.iter().filter(|index| index.is_unique) {
        let names: Option<Vec<&str>> = index.columns.iter().map(Option::as_deref).collect();
        let sources: Option<Vec<&str>> = names.as_ref().and_then(|names| {
            let source = |name: &&str| source_of(mapping, from, name).map(|it| it.name.as_str());
            names.iter().map(source).collect()
        });
        // Whether the key is one is found apart.
        if sources.as_ref().is_some_and(|sources| is_key(mapping, sources)) {
            continue;
        }
        let is_shared = match &sources {
            Some(sources) if !index.is_partial => is_unique(from, sources),
            _ => from.indexes.iter().any(|other| {
                other.is_unique
                    && behind_using(&other.definition) == behind_using(&index.definition)
            }),
        };
        if !is_shared {
            let on = names.map_or_else(|| "an expression".to_owned(), |names| names.join(", "));
            let message = format!(
                "{} is UNIQUE on ({on}) by {} and {} is not: where rows share it, copying or a client's write will fail",
                into.name, index.name, from.name
            );
            let help = "make the old table's columns UNIQUE first, or the new table's afterwards"
                .to_owned();
            found.push((Severity::Warning, STRICTER_UNIQUE, message, Some(help)));
        }
    }
}

fn is_key(mapping: &Mapping, columns: &[&str]) -> bool {
    let key = &mapping.from.key;
    key.len() == columns.len() && key.iter().all(|name| columns.contains(&name.as_str()))
}

/// Whether a set of columns, or a part of it, is unique.
fn is_unique(table: &Table, columns: &[&str]) -> bool {
    table.indexes.iter().filter(|index| index.is_unique && !index.is_partial).any(|index| {
        index.columns.iter().all(|name| name.as_deref().is_some_and(|name| columns.contains(&name)))
    })
}

/// What an index is of, without its name and table.
pub(super) fn behind_using(definition: &str) -> &str {
    definition.split_once(" USING ").map_or(definition, |(_, behind)| behind)
}

/// Checks, exclusions and foreign keys that only the new side has.
fn constraints(from: &Side, into: &Side, found: &mut Vec<Found>) {
    for constraint in into.around.constraints.iter().filter(|it| matches!(it.kind, 'c' | 'x' | 'f'))
    {
        let has = from.around.constraints.iter().any(|other| {
            other.kind == constraint.kind && bare(&other.definition) == bare(&constraint.definition)
        });
        if !has {
            let fate = match constraint.kind {
                'f' => "fails in the copy, and is only noted when a client writes it",
                _ => "fails in the copy and in a client's write",
            };
            let message = format!(
                "{} has {} ({}) and {} has not: a row that it refuses {fate}",
                into.table.name, constraint.name, constraint.definition, from.table.name
            );
            let help =
                "check the old rows in a verify step first, or add it to the new table afterwards"
                    .to_owned();
            found.push((Severity::Warning, STRICTER_CHECK, message, Some(help)));
        }
    }
}

/// A constraint's definition, whether it was validated or not.
pub(super) fn bare(definition: &str) -> &str {
    definition.strip_suffix(" NOT VALID").unwrap_or(definition)
}

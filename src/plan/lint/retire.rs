//! The old shape is put aside behind a gate and a full verify, in the shape that its mapping has, under names that are new.

use std::collections::BTreeSet;

use crate::diagnostic::known as codes;
use crate::run::{CopyColumns, Method};
use crate::sql;

use super::super::document::{ActionDef, MappingDef, RetireDef, RetiredColumnDef};
use super::super::node::At;
use super::super::reports::Reports;
use super::super::resolve::{Life, View};
use super::super::suggest::advice;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (mapping, life) in view.mappings() {
        for at in &life.retires {
            before(view, *at, mapping, life, reports);
            let Some(ActionDef::Retire(retire)) = view.action(*at) else { continue };
            known(view, mapping, retire, reports);
            let is_table = !mapping.is_in_place() && mapping.copies() == CopyColumns::All;
            let is_both = retire.columns.is_some() && retire.old_name.is_some();
            if mapping.tables().is_none() || is_both {
                continue;
            }
            match (&retire.columns, is_table) {
                (None, true) => table(mapping, retire, reports),
                (Some(columns), false) => named_columns(view, mapping, &columns.value, reports),
                (Some(columns), true) => {
                    let message = format!("`{}` moves a whole table", mapping.name.value);
                    reports
                        .error(codes::RETIRE_SHAPE, columns.span, message)
                        .help("write `old_name: …` instead of `columns`");
                }
                (None, false) => {
                    let Some(name) = &retire.old_name else { continue };
                    let message =
                        format!("`{}` moves columns, not a whole table", mapping.name.value);
                    reports
                        .error(codes::RETIRE_SHAPE, name.span, message)
                        .help("write `columns:` with each column and its `old_name`");
                }
            }
        }
        for at in &life.drops {
            let is_retired = life.retires.iter().any(|retire| view.graph.is_before(*retire, *at));
            if !is_retired && mapping.tables().is_some() {
                let step = view.step(*at);
                let message = format!("`{}` drops what no `retire` has put aside", step.id.value);
                reports.error(codes::DROP_WITHOUT_RETIRE, step.id.span, message).help(format!(
                    "put a `retire: {{ mapping: {}, … }}` before it",
                    mapping.name.value
                ));
            }
        }
    }
}

/// Functions are what PostgreSQL keeps as text.
fn known(view: &View<'_>, mapping: &MappingDef, retire: &RetireDef, reports: &mut Reports) {
    let dialect = view.dialect_of(mapping.from.as_ref());
    let (Some(dialect), Some(first)) = (dialect, retire.known.first()) else { return };
    if dialect == sql::Dialect::Sqlite {
        let message = format!("{} keeps no functions that could name a table", dialect.name());
        reports.error(codes::RETIRE_SHAPE, first.span, message).help("remove `known`");
    }
    for function in &retire.known {
        if function.value.contains('(') {
            let message = format!("`{}` has arguments", function.value);
            reports
                .error(codes::RETIRE_SHAPE, function.span, message)
                .help("write the function's name alone: it stands for all of that name");
        }
    }
}

fn before(view: &View<'_>, at: usize, mapping: &MappingDef, life: &Life, reports: &mut Reports) {
    let step = view.step(at);
    let gates = view.graph.releasing_gates(at);
    if gates.is_empty() {
        let message = format!("no gate stands before `{}`", step.id.value);
        reports
            .error(codes::RETIRE_WITHOUT_GATE, step.id.span, message)
            .help("put a gate with `verified_within` before it");
    }
    let full = || life.verifies.iter().filter(|(_, method)| *method == Method::Full);
    let name = &mapping.name.value;
    if !full().any(|(verify, _)| view.graph.is_before(*verify, at)) {
        let message = format!("no full verify of `{name}` stands before `{}`", step.id.value);
        reports
            .error(codes::RETIRE_WITHOUT_VERIFY, step.id.span, message)
            .help(format!("add `verify: {{ mapping: {name}, method: full }}` before its gate"));
    } else if !gates.is_empty()
        && !full().any(|(verify, _)| gates.iter().any(|gate| view.graph.is_before(*verify, *gate)))
    {
        let message =
            format!("the gate before `{}` doesn't wait for the verify of `{name}`", step.id.value);
        reports
            .error(codes::RETIRE_WITHOUT_VERIFY, step.id.span, message)
            .help("let the gate need the verify step");
    }
}

fn table(mapping: &MappingDef, retire: &RetireDef, reports: &mut Reports) {
    let (Some((_, source, _, copy)), Some(old_name)) = (mapping.tables(), &retire.old_name) else {
        return;
    };
    let clash = [source, copy].into_iter().find(|name| name.eq_ignore_ascii_case(&old_name.value));
    if let Some(name) = clash {
        let message = format!("`{name}` is taken: it is a table of the mapping");
        reports
            .error(codes::RETIRE_SHAPE, old_name.span, message)
            .help(format!("choose a new name, such as `{source}_old`"));
    }
}

fn named_columns(
    view: &View<'_>,
    mapping: &MappingDef,
    columns: &[RetiredColumnDef],
    reports: &mut Reports,
) {
    let written: Vec<&str> =
        mapping.columns.iter().map(|(column, _)| column.value.as_str()).collect();
    let read = columns_read(view, mapping);
    let mut names: BTreeSet<String> = BTreeSet::new();
    let key = mapping.from.as_ref().and_then(|from| from.key.as_deref()).unwrap_or_default();
    for retired in columns {
        if key.iter().any(|name| name.value.eq_ignore_ascii_case(&retired.column.value)) {
            let message = format!(
                "`{}` is a key of `{}`, by which the sync, the copy and the ledger know its rows",
                retired.column.value, mapping.name.value
            );
            reports
                .error(codes::RETIRE_SHAPE, retired.column.span, message)
                .help("map into a new table whose key has the new type, and let it `take_name`");
            continue;
        }
        let is_read = read.iter().any(|name| name.eq_ignore_ascii_case(&retired.column.value));
        if !read.is_empty() && !is_read {
            let message =
                format!("`{}` is not a column that the mapping reads", retired.column.value);
            let help = advice(&retired.column.value, read.iter().map(String::as_str));
            reports.error(codes::UNKNOWN_COLUMN, retired.column.span, message).help(help);
        }
        if let Some(taker) = &retired.take_name {
            take_name(mapping, taker, &written, reports);
        }
        let taken = written.iter().any(|name| name.eq_ignore_ascii_case(&retired.old_name.value))
            || retired.old_name.value.eq_ignore_ascii_case(&retired.column.value);
        let is_twice = !names.insert(retired.old_name.value.to_ascii_lowercase());
        if taken || is_twice {
            let message = format!("the name `{}` is taken", retired.old_name.value);
            reports
                .error(codes::RETIRE_SHAPE, retired.old_name.span, message)
                .help(format!("choose a new name, such as `{}_old`", retired.column.value));
        }
    }
    let takers: Vec<&At<String>> = columns.iter().filter_map(|c| c.take_name.as_ref()).collect();
    for (position, taker) in takers.iter().enumerate() {
        if takers[..position].iter().any(|other| other.value == taker.value) {
            let message = format!("`{}` can't take two names", taker.value);
            reports.error(codes::RETIRE_SHAPE, taker.span, message).help("name another column");
        }
    }
}

fn take_name(mapping: &MappingDef, taker: &At<String>, written: &[&str], reports: &mut Reports) {
    if !mapping.is_in_place() {
        reports
            .error(codes::RETIRE_SHAPE, taker.span, "a column takes a name inside one table only")
            .help("remove `take_name`: the two columns are in different tables");
    } else if !written.iter().any(|name| name.eq_ignore_ascii_case(&taker.value)) {
        let message = format!("`{}` is not a column that the mapping writes", taker.value);
        let help = advice(&taker.value, written.iter().copied());
        reports.error(codes::UNKNOWN_COLUMN, taker.span, message).help(help);
    }
}

fn columns_read(view: &View<'_>, mapping: &MappingDef) -> Vec<String> {
    let Some(dialect) = view.dialect_of(mapping.from.as_ref()) else { return Vec::new() };
    let expressions = mapping.columns.iter().map(|(_, expression)| &expression.value);
    let read = expressions.filter_map(|expression| sql::column_refs(dialect, expression).ok());
    read.flatten().collect::<BTreeSet<String>>().into_iter().collect()
}

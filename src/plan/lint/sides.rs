//! The two sides of a mapping go together: known targets, keys that correspond, and nothing in place that needs two tables.

use std::collections::HashSet;

use crate::diagnostic::known as codes;
use crate::run::{CopyColumns, Engine};

use super::super::document::{MappingDef, RelationDef, SideDef};
use super::super::node::At;
use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::suggest::advice;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for mapping in &view.document.mappings {
        for side in mapping.from.iter().chain(&mapping.into) {
            target(view, side, reports);
        }
        keys(mapping, reports);
        if mapping.is_in_place() {
            in_place(mapping, reports);
        }
        // Of a node, or between two of them, there is something to write without any.
        let is_only_columns = !mapping.is_of_graph();
        if is_only_columns && mapping.copies() == CopyColumns::Listed && mapping.columns.is_empty()
        {
            reports
                .error(codes::NO_COLUMNS, mapping.name.span, "the mapping writes no column")
                .help("add `columns:` with a column and its expression");
        }
    }
}

fn target(view: &View<'_>, side: &SideDef, reports: &mut Reports) {
    let targets = &view.document.targets;
    let name = side.target.value.as_str();
    let Some(target) = targets.iter().find(|target| target.name.value == name) else {
        let known = targets.iter().map(|target| target.name.value.as_str());
        let message = format!("there is no target `{name}`");
        reports.error(codes::UNKNOWN_TARGET, side.target.span, message).help(advice(name, known));
        return;
    };
    let Some(engine) = target.engine else { return };
    let (kind, written, fits) = match &side.relation {
        RelationDef::Table(name) => {
            ("tables", name, !matches!(engine.value, Engine::Neo4j | Engine::Redis))
        }
        RelationDef::Node(name) => ("nodes", name, engine.value == Engine::Neo4j),
        RelationDef::Relationship(name) => ("relationships", name, engine.value == Engine::Neo4j),
        RelationDef::Keys(name) => ("key patterns", name, engine.value == Engine::Redis),
    };
    if !fits {
        let message = format!("`{name}` has no {kind}");
        reports
            .error(codes::MAPPING_SIDES, written.span, message)
            .help("tables are in SQL databases, nodes and relationships in neo4j, keys in redis");
    }
}

fn keys(mapping: &MappingDef, reports: &mut Reports) {
    let side_keys = [mapping.from.as_ref(), mapping.into.as_ref()];
    for key in side_keys.into_iter().flatten().filter_map(|side| side.key.as_ref()) {
        let mut seen = HashSet::new();
        for column in key {
            if !seen.insert(column.value.to_ascii_lowercase()) {
                let message = format!("`{}` stands in the key twice", column.value);
                reports.error(codes::KEY_COLUMN, column.span, message).help("name it once");
            }
        }
    }
    let Some((from, _, into, _)) = mapping.tables() else { return };
    let (Some(own), theirs) = (&from.key, into.key.as_ref().or(from.key.as_ref())) else { return };
    let Some(theirs) = theirs else { return };
    if own.len() != theirs.len() {
        let message = format!(
            "the key of `into` has {}, that of `from` has {}",
            columns(theirs.len()),
            columns(own.len())
        );
        let span = theirs.first().map_or(into.span, |column| column.span);
        reports
            .error(codes::KEY_LENGTHS, span, message)
            .help("key columns correspond by position: name as many on both sides");
    }
    for (column, expression) in &mapping.columns {
        let position = theirs.iter().position(|key| same(&key.value, &column.value));
        let Some(source) = position.and_then(|position| own.get(position)) else { continue };
        let is_copy = same(expression.value.trim(), &source.value);
        if !is_copy {
            let message =
                format!("the key column `{}` can't be given by an expression", column.value);
            reports.error(codes::KEY_COLUMN, expression.span, message).help(format!(
                "keys are copied as they are: it takes the value of `{}`",
                source.value
            ));
        }
    }
}

fn in_place(mapping: &MappingDef, reports: &mut Reports) {
    let mut refuse = |span, what: &str| {
        let message = format!("{what} has no meaning in place: both sides are one table");
        reports
            .error(codes::IN_PLACE, span, message)
            .help("remove it; in place only the listed columns are written, row by row");
    };
    if let Some(At { value: CopyColumns::All, span }) = mapping.copy {
        refuse(span, "`copy: all`");
    }
    if let Some(on_delete) = mapping.on_delete {
        refuse(on_delete.span, "`on_delete`");
    }
    let Some((from, _, into, _)) = mapping.tables() else { return };
    if let (Some(own), Some(theirs)) = (&from.key, &into.key)
        && let Some(column) = theirs.iter().zip(own).find(|(a, b)| !same(&a.value, &b.value))
    {
        refuse(column.0.span, "another key");
    }
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn columns(count: usize) -> String {
    if count == 1 { "1 column".to_owned() } else { format!("{count} columns") }
}

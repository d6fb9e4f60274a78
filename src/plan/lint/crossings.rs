//! What is mapped from a table into a graph of another database: rows that keep what they are known by, written forward only, by the
//! engine's relay.

use crate::diagnostic::known as codes;
use crate::run::Direction;

use super::super::document::{ActionDef, MappingDef, RelationDef, SideDef};
use super::super::node::Span;
use super::super::relations::{Problem, of_graph};
use super::super::reports::Reports;
use super::super::resolve::{Life, View};

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let mut earlier: Vec<&MappingDef> = Vec::new();
    for (mapping, life) in view.mappings() {
        if !view.is_crossing(mapping) {
            if !mapping.is_across() {
                no_outbox(view, life, reports);
            }
            continue;
        }
        if let Some(Err(Problem { span, message, help })) = of_graph(mapping) {
            reports.error(codes::MAPPING_SIDES, span, message).help(help);
        }
        foreign(mapping, reports);
        steps(view, (mapping, life), reports);
        written_twice(mapping, &earlier, reports);
        known_otherwise(view, mapping, reports);
        earlier.push(mapping);
    }
    if !view.mappings().any(|(mapping, _)| mapping.is_across()) {
        no_relay(view, reports);
    }
}

/// A gate asks how far behind the plan's own mappings are. (A throttle asks of the whole database, and may wait for another plan's.)
fn no_relay(view: &View<'_>, reports: &mut Reports) {
    for (_, gate) in view.gates() {
        let lag = gate.relay_lag_max_ms.map(|at| ("relay_lag", at.span));
        let rows = gate.relay_rows_max.map(|at| ("relay_rows", at.span));
        for (key, span) in lag.into_iter().chain(rows) {
            let message = format!(
                "`{key}` is about changes that go into another database, and no mapping does"
            );
            reports
                .error(codes::KEYS_CONFLICT, span, message)
                .help("remove it: inside one database both sides are written in one transaction");
        }
    }
}

/// An outbox is between two databases.
fn no_outbox(view: &View<'_>, life: &Life, reports: &mut Reports) {
    for (at, _) in &life.dual_writes {
        let Some(ActionDef::DualWrite(def)) = view.action(*at) else { continue };
        if let Some(outbox) = def.outbox {
            let message = "`outbox` belongs to a dual-write from one database into another";
            reports
                .error(codes::KEYS_CONFLICT, outbox.span, message)
                .help("remove it: inside one database both sides are written in one transaction");
        }
    }
}

/// Keys of a mapping that mean nothing here.
fn foreign(mapping: &MappingDef, reports: &mut Reports) {
    let mut refuse = |span: Span, what: &str, help: &str| {
        let message = format!("`{what}` is for copies into tables");
        reports.error(codes::KEYS_CONFLICT, span, message).help(help);
    };
    if let Some((name, _)) = mapping.columns.first() {
        refuse(name.span, "columns", "what is written stands in `into`: `properties: { … }`");
    }
    if let Some(span) = mapping.reverse_span {
        refuse(span, "reverse", "remove it: a graph is written forward only");
    }
    if let Some(at) = mapping.winner {
        refuse(at.span, "winner", "remove it: a graph is written forward only");
    }
}

fn steps(view: &View<'_>, (mapping, life): (&MappingDef, &Life), reports: &mut Reports) {
    let name = &mapping.name.value;
    for (at, direction) in &life.dual_writes {
        let Some(ActionDef::DualWrite(def)) = view.action(*at) else { continue };
        if *direction == Direction::Both {
            let message =
                format!("nothing in a graph tells what changed there, so `{name}` has no way back");
            reports.error(codes::KEYS_CONFLICT, def.direction.span, message).help(
                "write `direction: forward`: PostgreSQL stays what is right until the dual-write is over",
            );
        }
        if let Some(on_error) = def.on_error {
            let message = "`on_error` has no meaning between two databases";
            reports.error(codes::KEYS_CONFLICT, on_error.span, message).help(
                "remove it: no client waits for the graph, and the relay parks changes that the graph refuses",
            );
        }
    }
    for at in &life.retires {
        let step = view.step(*at);
        let message = format!(
            "`{}` has no name to hand over: the sides of `{name}` are in two databases",
            step.id.value
        );
        reports.error(codes::RETIRE_SHAPE, step.id.span, message).help(
            "let a gate say that the application has moved, and `stop_dual_write` or `drop` the mapping behind it",
        );
    }
}

/// What of a graph a mapping fills: two that fill the same would each take the other's rows for rows too many.
fn written_twice(mapping: &MappingDef, earlier: &[&MappingDef], reports: &mut Reports) {
    let Some(into) = &mapping.into else { return };
    let first = earlier
        .iter()
        .find(|earlier| earlier.into.as_ref().is_some_and(|other| is_same(other, into)));
    let Some(first) = first else { return };
    let (what, span) = match &into.relation {
        RelationDef::Relationship(name) => ("relationships of type", name),
        RelationDef::Node(name) | RelationDef::Table(name) | RelationDef::Keys(name) => {
            ("nodes of", name)
        }
    };
    let message = format!(
        "`{}` and `{}` both write all {what} `{}`",
        first.name.value, mapping.name.value, span.value
    );
    reports
        .error(codes::WRITTEN_TWICE, span.span, message)
        .related(first.name.span, "the first")
        .help("let one mapping write them, from a table that has all; or give these another name");
}

/// Nodes at the ends are known by what the mapping knows them by that makes them: by anything else none of them would be found, and
/// each would be stood in for by one that never becomes whole.
fn known_otherwise(view: &View<'_>, mapping: &MappingDef, reports: &mut Reports) {
    let Some(into) = &mapping.into else { return };
    for end in into.ends.iter().flatten() {
        let nodes = view.document.mappings.iter().find(|other| {
            let label = other.into.as_ref().map(|side| (&side.relation, &side.target.value));
            matches!(label, Some((RelationDef::Node(name), target))
                if name.value == end.node.value && *target == into.target.value)
                && view.is_crossing(other)
        });
        let Some((nodes, Some(Ok((_, made))))) = nodes.map(|nodes| (nodes, of_graph(nodes))) else {
            continue;
        };
        let mut own: Vec<&str> = end.key.iter().map(|(name, _)| name.value.as_str()).collect();
        let mut theirs: Vec<&str> = made.key.iter().map(String::as_str).collect();
        own.sort_unstable();
        theirs.sort_unstable();
        if own != theirs {
            let message = format!(
                "this end knows nodes of `{}` by {}, and `{}` makes them known by {}",
                end.node.value,
                listed(&own),
                nodes.name.value,
                listed(&theirs)
            );
            reports
                .error(codes::MAPPING_SIDES, end.node.span, message)
                .related(nodes.name.span, "made here")
                .help(format!("give the end the key {}", listed(&theirs)));
        }
    }
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn is_same(one: &SideDef, other: &SideDef) -> bool {
    if one.target.value != other.target.value {
        return false;
    }
    let labels = |side: &SideDef| {
        let ends = side.ends.iter().flatten();
        ends.map(|end| end.node.value.clone()).collect::<Vec<_>>()
    };
    match (&one.relation, &other.relation) {
        (RelationDef::Node(a), RelationDef::Node(b)) => a.value == b.value,
        (RelationDef::Relationship(a), RelationDef::Relationship(b)) => {
            a.value == b.value && labels(one) == labels(other)
        }
        _ => false,
    }
}

//! What is mapped in a graph: nodes and relationships that can be told from each other, written by expressions that can be read, and
//! kept in step by the application, since a graph has no triggers.

use crate::diagnostic::known as codes;
use crate::run::{Direction, OnExisting};
use crate::sql::Dialect;
use crate::sql::cypher::{ROW, properties_read};

use super::super::document::{ActionDef, MappingDef, RelationDef, SideDef, Writer};
use super::super::node::{At, Span};
use super::super::relations::{Problem, of_graph};
use super::super::reports::Reports;
use super::super::resolve::{Life, View};

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (mapping, life) in view.mappings() {
        // Sides in two databases, and those that are in no graph, are told of elsewhere.
        let is_here = view.dialect_of(mapping.from.as_ref()) == Some(Dialect::Cypher);
        if !mapping.is_of_graph() || !is_here || mapping.is_across() {
            continue;
        }
        if let Some(Err(Problem { span, message, help })) = of_graph(mapping) {
            reports.error(codes::MAPPING_SIDES, span, message).help(help);
        }
        foreign(mapping, reports);
        expressions(mapping, reports);
        steps(view, (mapping, life), reports);
    }
}

/// Keys of a mapping that mean something for tables only.
fn foreign(mapping: &MappingDef, reports: &mut Reports) {
    let is_between = |side: &SideDef| matches!(side.relation, RelationDef::Relationship(_));
    if let Some(at) = mapping.on_existing
        && at.value == OnExisting::Update
        && mapping.into.as_ref().is_some_and(is_between)
    {
        let message = "a relationship that is there can't be told from one that is written over it";
        reports
            .error(codes::KEYS_CONFLICT, at.span, message)
            .help("write `on_existing: keep`: as many are made as are lacking");
    }
    let mut refuse = |span: Span, what: &str, help: &str| {
        let message = format!("`{what}` is for tables");
        reports.error(codes::KEYS_CONFLICT, span, message).help(help);
    };
    if let Some((name, _)) = mapping.columns.first() {
        refuse(name.span, "columns", "a node's properties stand in `into`: `properties: { … }`");
    }
    if let Some(span) = mapping.reverse_span {
        refuse(span, "reverse", "remove it: a graph is written forward only");
    }
    if let Some(at) = mapping.winner {
        refuse(at.span, "winner", "remove it: a graph is written forward only");
    }
    if let Some(at) = mapping.on_delete {
        refuse(at.span, "on_delete", "remove it: the application deletes what it doesn't want");
    }
}

fn expressions(mapping: &MappingDef, reports: &mut Reports) {
    let Some(from) = &mapping.from else { return };
    let rows: &[&str] = match from.relation {
        RelationDef::Node(_) => &ROW[..1],
        RelationDef::Relationship(_) => &ROW,
        RelationDef::Table(_) | RelationDef::Keys(_) => return,
    };
    let given = mapping.into.iter().flat_map(|into| &into.properties);
    for expression in given.map(|(_, value)| value).chain(&mapping.filter) {
        if let Err(reason) = read(expression, rows) {
            let message = format!("this expression can't be used: {reason}");
            reports
                .error(codes::EXPRESSION, expression.span, message)
                .help("write one expression of Cypher over `source` (of a relationship also `start` and `end`)");
        }
    }
}

fn read(expression: &At<String>, rows: &[&str]) -> Result<(), String> {
    let read = properties_read(&expression.value)?;
    match read.iter().find(|(of, _)| !rows.contains(&of.as_str())) {
        Some((of, _)) => Err(format!("a node has no `{of}`")),
        None => Ok(()),
    }
}

fn steps(view: &View<'_>, (mapping, life): (&MappingDef, &Life), reports: &mut Reports) {
    let name = &mapping.name.value;
    for (at, direction) in &life.dual_writes {
        let (step, Some(ActionDef::DualWrite(def))) = (view.step(*at), view.action(*at)) else {
            continue;
        };
        if *direction == Direction::Both {
            reports
                .error(codes::KEYS_CONFLICT, def.direction.span, "a graph isn't written back from")
                .help("write `direction: forward`: the application writes both sides itself");
        }
        if def.by.is_none_or(|by| by.value == Writer::Engine) {
            let span = def.by.map_or(step.id.span, |by| by.span);
            let message =
                format!("nothing in a graph can write `{name}` along: it has no triggers");
            reports.error(codes::NOBODY_WRITES, span, message).help(
                "let the application write both, and prove it: `by: application` with a `probe`",
            );
        }
    }
    for at in &life.retires {
        let step = view.step(*at);
        let message =
            format!("`{}` has nothing to rename: labels and types have no owner", step.id.value);
        reports.error(codes::RETIRE_SHAPE, step.id.span, message).help(
            "let a gate say that the application has moved, and `drop` the mapping behind it",
        );
    }
}

//! `unused_for` by counters: there are counters, and what they count are the uses of others.
//!
//! A table's counters know nothing of who reads it. So they prove something only of a table that a forward `retire` put
//! aside, which ends what the engine itself does to it, and only while no step of the plan reads it.

use crate::diagnostic::known as codes;
use crate::run::{Engine, Phase};

use super::super::document::{ActionDef, CheckDef, UsedByDef, VerifyDef};
use super::super::node::At;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (at, gate) in view.gates() {
        for unused in &gate.unused_for {
            if let UsedByDef::Counters(mapping) = &unused.by {
                counters(view, at, mapping, reports);
            }
        }
    }
}

/// What to do where counters prove nothing.
const ASK: &str = "ask a query instead: `unused_for: { target, query, for }`";

fn counters(view: &View<'_>, gate: usize, name: &At<String>, reports: &mut Reports) {
    let found = view.mappings().find(|(mapping, _)| mapping.name.value == name.value);
    let Some((mapping, life)) = found else { return };
    if mapping.is_of_graph() {
        let message = format!("no `retire` puts the old side of `{}` aside", name.value);
        reports.error(codes::USES_UNSEEN, name.span, message).help(ASK);
        return;
    }
    let Some((from, ..)) = mapping.tables() else { return };
    let target = view.document.targets.iter().find(|one| one.name.value == from.target.value);
    let engine = target.and_then(|target| target.engine).map(|engine| engine.value);
    if engine.is_some_and(|engine| engine != Engine::Postgres) {
        let message = format!("`{}` keeps no counters of a table's uses", from.target.value);
        reports.error(codes::USES_UNSEEN, name.span, message).help(ASK);
        return;
    }
    if life.is_both_ways() {
        let message = format!("the sync of `{}` uses its old side until `drop`", name.value);
        reports.error(codes::USES_UNSEEN, name.span, message).help(ASK);
        return;
    }
    let put_aside = life.retires.iter().find_map(|retire| {
        let Some(ActionDef::Retire(def)) = view.action(*retire) else { return None };
        let old_name = def.old_name.as_ref()?;
        view.graph.is_before(*retire, gate).then_some((*retire, old_name.value.as_str()))
    });
    let Some((retire, old_name)) = put_aside else {
        let message =
            format!("no `retire` puts the old table of `{}` aside before this gate", name.value);
        reports
            .error(codes::USES_UNSEEN, name.span, message)
            .help("let the gate stand behind the retire, or ask a query instead");
        return;
    };
    for (at, step) in view.all() {
        let is_between = !view.graph.is_before(at, retire) && !view.graph.is_before(gate, at);
        if at != retire && is_between && names(view, at, old_name) {
            let message = format!("counters of `{old_name}` would count what the plan itself does");
            reports
                .error(codes::USES_UNSEEN, name.span, message)
                .related(step.id.span, "this step names the table")
                .help("let that step stand before the retire or behind the gate, or ask a query instead");
        }
    }
}

/// Whether a step's statements or queries name a table; a word that only looks like it counts too.
fn names(view: &View<'_>, at: usize, table: &str) -> bool {
    let says = |text: &str| {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
            .any(|word| word.eq_ignore_ascii_case(table))
    };
    match view.action(at) {
        Some(ActionDef::Sql(_)) => view.steps[at].script.as_ref().is_some_and(|script| {
            script.statements.iter().any(|(statement, ..)| says(&statement.text))
        }),
        Some(ActionDef::Verify(VerifyDef { check: CheckDef::Query(query) })) => {
            // Those in phase verify are run again by gates behind them.
            view.graph.nodes()[at].phase >= Phase::Verify && says(&query.query.value)
        }
        Some(ActionDef::Gate(gate)) => {
            let uses = gate.unused_for.iter().filter_map(|unused| match &unused.by {
                UsedByDef::Query { query, .. } => Some(query),
                UsedByDef::Counters(_) => None,
            });
            let queries = gate.queries.iter().map(|query| &query.query);
            queries.chain(uses).any(|query| says(&query.value))
        }
        _ => false,
    }
}

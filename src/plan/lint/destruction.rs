//! Nothing is destroyed without a gate, and no gate lets it without fresh evidence.
//!
//! Evidence about a mapping's objects is a full comparison of that mapping; about others, any verify that can pass: one of a part can't,
//! unless policy lets it. Nodes of a graph take their
//! relationships along, so that these want evidence, too. After a `retire` the sides can't be compared again, so the gate in front of the
//! retire counts for what comes behind it.

use std::collections::{BTreeSet, HashMap};

use crate::diagnostic::known as codes;
use crate::run::{Hazard, Method, Phase};
use crate::sql;

use super::super::document::{ActionDef, CheckDef, RelationDef, SideDef};
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let owners = Owners::of(view);
    let partial = view.surroundings.policy.allow_partial_verify;
    let all = view.all().filter_map(|(at, _)| match view.action(at) {
        Some(ActionDef::Verify(verify)) => Some((at, &verify.check)),
        _ => None,
    });
    let (verifies, of_a_part): (Vec<_>, Vec<_>) = all.partition(|(_, check)| match check {
        CheckDef::Mapping { method, .. } => partial || method.value == Method::Full,
        _ => true,
    });
    let verifies: Vec<usize> = verifies.into_iter().map(|(at, _)| at).collect();
    let others = if of_a_part.is_empty() { "verify" } else { "verify of more than a part" };
    for (at, step) in view.all() {
        let Hazard::Destructive(what) = view.hazard(at) else { continue };
        let phase = view.graph.nodes()[at].phase;
        if phase != Phase::Contract {
            let message = format!("`{}` is destructive ({what}) in phase {phase}", step.id.value);
            reports
                .error(codes::DESTRUCTIVE_EARLY, step.id.span, message)
                .help("move it into phase contract, behind a gate");
        }
        let releasing = view.graph.releasing_gates(at);
        if releasing.is_empty() {
            let message = format!(
                "`{}` is destructive ({what}), and no gate stands before it",
                step.id.value
            );
            reports
                .error(codes::NO_GATE, step.id.span, message)
                .help("put a gate with `verified_within` before it");
        }
        let touched = owners.of_step(view, at);
        if touched.is_empty() {
            evidence(view, at, &releasing, (&verifies, others), reports);
        }
        for mapping in touched {
            let mut gates = releasing.clone();
            for retire in
                view.lives[mapping].retires.iter().filter(|r| view.graph.is_before(**r, at))
            {
                gates.extend(view.graph.releasing_gates(*retire));
            }
            let counting: Vec<usize> = view.lives[mapping]
                .verifies
                .iter()
                .filter(|(_, method)| partial || *method == Method::Full)
                .map(|(at, _)| *at)
                .collect();
            let wanted = format!("full verify of `{}`", view.mapping(mapping).name.value);
            evidence(view, at, &gates, (&counting, &wanted), reports);
        }
    }
}

/// Looks for a verify that counts, before a gate that asks how old it is.
fn evidence(
    view: &View<'_>,
    at: usize,
    gates: &[usize],
    (verifies, wanted): (&[usize], &str),
    reports: &mut Reports,
) {
    let step = view.step(at);
    let before: Vec<usize> =
        verifies.iter().copied().filter(|verify| view.graph.is_before(*verify, at)).collect();
    if before.is_empty() {
        let message =
            format!("`{}` is destructive, and no {wanted} stands before it", step.id.value);
        reports
            .error(codes::NO_VERIFY, step.id.span, message)
            .help("add one in phase verify, before the gate");
        return;
    }
    let proven: Vec<usize> = gates
        .iter()
        .copied()
        .filter(|gate| before.iter().any(|verify| view.graph.is_before(*verify, *gate)))
        .collect();
    if gates.is_empty() {
        return;
    }
    if proven.is_empty() {
        let verify = view.step(before[0]);
        let message = format!("the gate before `{}` doesn't wait for a {wanted}", step.id.value);
        reports
            .error(codes::NO_VERIFY, step.id.span, message)
            .related(verify.id.span, "this one comes behind the gate or beside it")
            .help(format!("let the gate need `{}`", verify.id.value));
        return;
    }
    if proven.iter().all(|gate| view.verified_within_ms(*gate, true).is_none()) {
        let gate = view.step(proven[0]);
        let message = format!("this gate lets `{}` destroy on evidence of any age", step.id.value);
        reports
            .error(codes::NO_VERIFIED_WITHIN, gate.id.span, message)
            .related(step.id.span, "the destructive step")
            .help("add `verified_within: 1h` to the gate");
    }
}

/// Which mapping a table belongs to, under all names that it has in the course of the plan.
struct Owners<'a> {
    by_table: HashMap<(&'a str, String), BTreeSet<usize>>,
}

impl<'a> Owners<'a> {
    fn of(view: &View<'a>) -> Self {
        let mut by_table: HashMap<(&'a str, String), BTreeSet<usize>> = HashMap::new();
        for (at, mapping) in view.document.mappings.iter().enumerate() {
            let (Some(from), Some(into)) = (&mapping.from, &mapping.into) else { continue };
            let Some(source) =
                from.table().filter(|_| !mapping.is_of_graph() || view.is_crossing(mapping))
            else {
                continue;
            };
            let dialect = view.dialect_of(Some(from));
            let retired =
                view.lives[at].retires.iter().filter_map(|retire| match view.action(*retire)? {
                    ActionDef::Retire(retire) => {
                        let name = &retire.old_name.as_ref()?.value;
                        Some(dialect.map_or_else(
                            || name.clone(),
                            |dialect| sql::renamed(dialect, source, name),
                        ))
                    }
                    _ => None,
                });
            let from_target = from.target.value.as_str();
            let folded = |table: &str| match dialect {
                Some(dialect) => sql::folded_name(dialect, table),
                None => table.to_ascii_lowercase(),
            };
            let own = retired.chain([source.to_owned()]).map(|table| (from_target, table));
            let copy = into.table().map(|copy| (into.target.value.as_str(), copy.to_owned()));
            for (target, table) in own.chain(copy) {
                by_table.entry((target, folded(&table))).or_default().insert(at);
            }
        }
        Self { by_table }
    }

    fn of_step(&self, view: &View<'_>, at: usize) -> BTreeSet<usize> {
        let resolved = &view.steps[at];
        let mut touched: BTreeSet<usize> = resolved.mapping.into_iter().collect();
        if matches!(view.action(at), Some(ActionDef::Drop { .. })) {
            touched.extend(resolved.mapping.into_iter().flat_map(|own| gone_with(view, at, own)));
        }
        let (Some(script), Some(target)) = (&resolved.script, resolved.target) else {
            return touched;
        };
        let target = view.document.targets[target].name.value.as_str();
        for (_, facts, hazard) in &script.statements {
            if !matches!(hazard, Hazard::Destructive(_)) {
                continue;
            }
            for table in &facts.tables {
                let table = sql::folded_name(script.dialect, table);
                let owners = self.by_table.get(&(target, table));
                touched.extend(owners.into_iter().flatten());
            }
        }
        touched
    }
}

/// The mappings of relationships that are gone with the nodes which a `drop` removes, but those that were dropped before, on evidence of
/// their own.
fn gone_with<'a>(
    view: &'a View<'_>,
    at: usize,
    dropped: usize,
) -> impl Iterator<Item = usize> + 'a {
    let nodes = view.document.mappings[dropped].from.as_ref().and_then(|from| {
        let RelationDef::Node(label) = &from.relation else { return None };
        Some((from.target.value.as_str(), label.value.as_str()))
    });
    let ends_there = move |side: &SideDef| {
        nodes.is_some_and(|(target, label)| {
            let mut ends = side.ends.iter().flatten();
            side.target.value == target && ends.any(|end| end.node.value == label)
        })
    };
    view.mappings().enumerate().filter_map(move |(mapping, (def, life))| {
        let is_gone = life.drops.iter().any(|drop| view.graph.is_before(*drop, at));
        let is_touched = def.from.as_ref().is_some_and(ends_there) && !is_gone;
        is_touched.then_some(mapping)
    })
}

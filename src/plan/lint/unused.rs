//! What is defined is used.

use crate::diagnostic::known as codes;

use super::super::document::ActionDef;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (mapping, life) in view.mappings() {
        let is_used = !(life.dual_writes.is_empty()
            && life.backfills.is_empty()
            && life.verifies.is_empty()
            && life.retires.is_empty()
            && life.drops.is_empty()
            && life.stops.is_empty());
        if !is_used {
            let message = format!("no step uses the mapping `{}`", mapping.name.value);
            reports
                .warning(codes::UNUSED, mapping.name.span, message)
                .help("remove it, or name it in the steps that are meant to use it");
        }
    }
    let mut used: Vec<&str> = Vec::new();
    for (at, step) in view.all() {
        used.extend(step.target.as_ref().map(|name| name.value.as_str()));
        used.extend(view.steps[at].target.map(|at| view.document.targets[at].name.value.as_str()));
        if let Some(ActionDef::Gate(gate)) = view.action(at) {
            used.extend(
                gate.queries.iter().filter_map(|q| Some(q.target.as_ref()?.value.as_str())),
            );
        }
    }
    for (at, _) in view.all() {
        let Some(ActionDef::Backfill(backfill)) = view.action(at) else { continue };
        let asked = backfill.throttle.iter().filter_map(|throttle| throttle.target.as_ref());
        used.extend(asked.map(|name| name.value.as_str()));
    }
    for mapping in &view.document.mappings {
        let sides = mapping.from.iter().chain(&mapping.into);
        used.extend(sides.map(|side| side.target.value.as_str()));
    }
    used.sort_unstable();
    for target in &view.document.targets {
        if used.binary_search(&target.name.value.as_str()).is_err() {
            let message = format!("nothing uses the target `{}`", target.name.value);
            reports
                .warning(codes::UNUSED, target.name.span, message)
                .help("remove it, or name it in the steps that are meant to use it");
        }
    }
}

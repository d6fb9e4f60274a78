//! Sides that nothing keeps in step any more aren't compared.

use crate::diagnostic::known as codes;

use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (mapping, life) in view.mappings() {
        let partings: Vec<usize> = if life.is_both_ways() {
            life.stops.iter().chain(&life.drops).copied().collect()
        } else {
            life.stops.iter().chain(&life.retires).copied().collect()
        };
        for (at, _) in &life.verifies {
            let parted = partings.iter().find(|parting| !view.graph.is_before(*at, **parting));
            let Some(parting) = parted.map(|parting| view.step(*parting)) else { continue };
            let step = view.step(*at);
            let message = format!(
                "`{}` compares `{}`, whose sides part with `{}`",
                step.id.value, mapping.name.value, parting.id.value
            );
            reports
                .error(codes::VERIFY_AFTER_RETIRE, step.id.span, message)
                .related(parting.id.span, "from here on nothing keeps them equal")
                .help("compare before, or ask a `query` here");
        }
    }
}

//! Phases come in their order: in the list, and along the needs.

use crate::diagnostic::known as codes;

use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let nodes = view.graph.nodes();
    let mut latest = 0;
    for (at, step) in view.all() {
        if nodes[at].phase < nodes[latest].phase {
            let message = format!(
                "`{}` is of phase {} and stands behind `{}` of phase {}",
                step.id.value, nodes[at].phase, nodes[latest].id, nodes[latest].phase
            );
            let span = step.phase.map_or(step.id.span, |phase| phase.span);
            reports
                .error(codes::PHASE_ORDER, span, message)
                .help("list the steps in the order expand, dual-write, backfill, verify, contract");
        } else {
            latest = at;
        }
        for need in step.needs.iter().flat_map(|needs| &needs.value) {
            let Some(needed) = view.graph.index_of(&need.value) else { continue };
            if nodes[needed].phase > nodes[at].phase {
                let message = format!(
                    "`{}` of phase {} needs `{}` of the later phase {}",
                    step.id.value, nodes[at].phase, need.value, nodes[needed].phase
                );
                reports
                    .error(codes::LATER_PHASE, need.span, message)
                    .help("remove the need, or move one of the two into another phase");
            }
        }
    }
    let Some(first_phase) = nodes.first().map(|node| node.phase) else { return };
    for (at, step) in view.all() {
        let Some(needs) = &step.needs else { continue };
        if nodes[at].phase > first_phase && view.graph.needs(at).next().is_none() {
            let message = format!("`{}` needs nothing, so it would start at once", step.id.value);
            reports.error(codes::NEEDS_NOTHING, needs.span, message).help(format!(
                "name a step it needs; only steps of phase {first_phase} may need none"
            ));
        }
    }
}

//! Every id names one step, and every reference names a step that is there.

use std::collections::HashMap;

use crate::diagnostic::known as codes;

use super::super::node::{At, Span};
use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::suggest::advice;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let mut first: HashMap<&str, Span> = HashMap::with_capacity(view.document.steps.len());
    for (_, step) in view.all() {
        let id = step.id.value.as_str();
        match first.get(id) {
            None => drop(first.insert(id, step.id.span)),
            Some(earlier) => {
                reports
                    .error(
                        codes::DUPLICATE_ID,
                        step.id.span,
                        format!("a second step is called `{id}`"),
                    )
                    .related(*earlier, "the first")
                    .help("give it an id of its own");
            }
        }
    }
    for (_, step) in view.all() {
        for need in step.needs.iter().flat_map(|needs| &needs.value) {
            check_reference(view, need, reports);
        }
    }
    for (_, gate) in view.gates() {
        if let Some((after, _)) = &gate.soak {
            check_reference(view, after, reports);
        }
    }
}

fn check_reference(view: &View<'_>, id: &At<String>, reports: &mut Reports) {
    if view.graph.index_of(&id.value).is_none() {
        let known = view.all().map(|(_, step)| step.id.value.as_str());
        let message = format!("there is no step `{}`", id.value);
        reports.error(codes::UNKNOWN_STEP, id.span, message).help(advice(&id.value, known));
    }
}

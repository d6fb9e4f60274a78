//! Every step says how it is undone, or why it can't be; those with nothing to undo say neither.

use crate::diagnostic::known as codes;

use super::super::document::{ActionDef, StepDef};
use super::super::node::Span;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (_, step) in view.all() {
        let Some(action) = &step.action else { continue };
        let name = action.value.name();
        match &action.value {
            ActionDef::Verify(_) | ActionDef::Gate(_) | ActionDef::Backup => {
                nothing(step, name, reports);
            }
            ActionDef::DualWrite(_) | ActionDef::Retire(_) | ActionDef::StopDualWrite { .. } => {
                derived(step, name, reports);
            }
            ActionDef::Backfill(_) => not_both(step, reports),
            ActionDef::Drop { .. } => last(step, reports),
            ActionDef::Sql(_) | ActionDef::Cypher(_) | ActionDef::Redis | ActionDef::Command => {
                not_both(step, reports);
                if step.undo.is_none() && step.irreversible.is_none() {
                    let message = format!("`{}` has no undo", step.id.value);
                    let key = action.value.name();
                    reports.error(codes::NO_UNDO, step.id.span, message).help(format!(
                        "add `undo: {{ {key}: … }}`, `undo: {{ none: reason }}` or `irreversible: reason`",
                    ));
                }
            }
        }
    }
}

fn places(step: &StepDef) -> impl Iterator<Item = (&'static str, Span)> {
    let undo = step.undo.as_ref().map(|undo| ("undo", undo.span));
    let irreversible = step.irreversible.as_ref().map(|reason| ("irreversible", reason.span));
    undo.into_iter().chain(irreversible)
}

fn nothing(step: &StepDef, action: &str, reports: &mut Reports) {
    for (key, span) in places(step) {
        let message = format!("a {action} changes nothing, so `{key}` has no meaning");
        reports.error(codes::NOTHING_TO_UNDO, span, message).help("remove it");
    }
}

fn derived(step: &StepDef, action: &str, reports: &mut Reports) {
    if let Some(undo) = &step.undo {
        let message = format!("`{action}` knows its own way back");
        reports.error(codes::UNDO_CONFLICT, undo.span, message).help("remove `undo`");
    }
}

fn not_both(step: &StepDef, reports: &mut Reports) {
    if let (Some(undo), Some(reason)) = (&step.undo, &step.irreversible) {
        reports
            .error(codes::UNDO_CONFLICT, reason.span, "the step has an undo and is irreversible")
            .related(undo.span, "the undo")
            .help("remove one of the two");
    }
}

fn last(step: &StepDef, reports: &mut Reports) {
    if let Some(undo) = &step.undo {
        reports
            .error(codes::UNDO_CONFLICT, undo.span, "what `drop` removed can't be brought back")
            .help("write `irreversible: reason` instead");
    } else if step.irreversible.is_none() {
        let message =
            format!("`{}` can't be undone, and doesn't say why that is all right", step.id.value);
        reports.error(codes::NO_UNDO, step.id.span, message).help("add `irreversible: reason`");
    }
}

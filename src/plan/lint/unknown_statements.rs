//! A statement whose effect can't be told stands behind a gate, or somebody vouches for it.

use crate::diagnostic::{Diagnostic, known as codes};
use crate::run::Hazard;

use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::statements::can_be_read;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (at, step) in view.all() {
        let script = view.steps[at].script.as_ref().filter(|script| can_be_read(script.dialect));
        let unknown = script.and_then(|script| {
            script.statements.iter().find_map(|(statement, facts, hazard)| match hazard {
                // What has no place in a step at all is said by another rule.
                Hazard::Unknown(why) if facts.complaint.is_none() => {
                    Some((script.location(statement), why))
                }
                _ => None,
            })
        });
        if let Some(reviewed) = &step.reviewed {
            if !view.surroundings.allows_reviewed() {
                let environment = view.surroundings.environment;
                let message = format!("`reviewed` doesn't count in `{environment}`");
                reports.error(codes::POLICY, reviewed.span, message).help(
                    "put a gate before the step, or set `allow_reviewed: true` in the policy",
                );
            } else if unknown.is_none() && script.is_some() {
                reports
                    .warning(codes::REVIEWED_UNUSED, reviewed.span, "nothing here needs a review")
                    .help("remove `reviewed`: every statement of the step is understood");
            }
            continue;
        }
        let Some((place, why)) = unknown else { continue };
        if view.graph.releasing_gates(at).is_empty() {
            let message = format!("it can't be told what this statement does: {why}");
            let finding = Diagnostic::error(codes::UNKNOWN_STATEMENT, message)
                .at(place)
                .with_help("put a gate before the step, or add `reviewed: reason`");
            reports.add(finding);
        }
    }
}

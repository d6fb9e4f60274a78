//! Statements that have no place in a step.

use crate::diagnostic::{Diagnostic, known as codes};
use crate::sql::Change;

use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    our_schemas(view, reports);
    for script in view.steps.iter().flat_map(|step| step.script.iter().chain(&step.undo)) {
        for (statement, facts, _) in &script.statements {
            let Some(complaint) = &facts.complaint else { continue };
            let finding = Diagnostic::error(codes::STATEMENT_NOT_ALLOWED, &complaint.message)
                .at(script.location(statement))
                .with_help(&complaint.help);
            reports.add(finding);
        }
    }
}

/// A schema that was made for us and carries a name of its own, which only the plan knows.
fn our_schemas(view: &View<'_>, reports: &mut Reports) {
    for step in &view.steps {
        let target = step.target.map(|at| &view.document.targets[at]);
        let Some(ours) = target.and_then(|target| target.schema.as_ref()) else { continue };
        for script in step.script.iter().chain(&step.undo) {
            for (statement, facts, _) in &script.statements {
                let is_touched = facts.changes.iter().any(
                    |change| matches!(change, Change::Schema { schema } if *schema == ours.value),
                );
                if is_touched && facts.complaint.is_none() {
                    let message = format!("`{}` is where the bookkeeping of a run is", ours.value);
                    let finding = Diagnostic::error(codes::STATEMENT_NOT_ALLOWED, message)
                        .at(script.location(statement))
                        .with_help(
                            "leave it alone: our objects in it are removed at the end of a run",
                        );
                    reports.add(finding);
                }
            }
        }
    }
}

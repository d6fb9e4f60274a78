//! Statements that have no place in a step.

use crate::diagnostic::{Diagnostic, known as codes};

use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
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

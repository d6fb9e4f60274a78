//! Nothing is dropped that the plan doesn't name.

use crate::diagnostic::{Diagnostic, known as codes};
use crate::sql::Change;

use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule, to undos as well: on the way back a CASCADE takes along what others made meanwhile.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for script in view.steps.iter().flat_map(|step| step.script.iter().chain(&step.undo)) {
        for (statement, facts, _) in &script.statements {
            if !facts.changes.contains(&Change::Cascade) {
                continue;
            }
            let finding = Diagnostic::error(
                codes::CASCADE,
                "CASCADE takes along whatever depends on it, and nobody can approve what isn't named",
            )
            .at(script.location(statement))
            .with_help("leave CASCADE out, and drop what depends on it by name before it");
            reports.add(finding);
        }
    }
}

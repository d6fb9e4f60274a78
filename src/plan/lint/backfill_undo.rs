//! A backfill into what the plan didn't make may write over old values, which nothing brings back.

use crate::diagnostic::known as codes;
use crate::sql::Object;

use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::statements::can_be_read;

/// Applies the rule. Only a warning, since what counts is whether the object was empty when the dual-write began, which is
/// seen then.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (mapping, life) in view.mappings() {
        let Some((_, _, into, table)) = mapping.tables() else { continue };
        let Some(dialect) = view.dialect_of(Some(into)).filter(|d| can_be_read(*d)) else {
            continue;
        };
        let target = view.document.targets.iter().position(|t| t.name.value == into.target.value);
        let Some(created) = target.map(|at| &view.created[at]) else { continue };
        let is_ours = if mapping.is_in_place() {
            mapping.columns.iter().all(|(column, _)| {
                created.had(dialect, &Object::column(table, column.value.as_str()))
            })
        } else {
            created.had(dialect, &Object::table(table))
        };
        if is_ours {
            continue;
        }
        for step in life.backfills.iter().map(|at| view.step(*at)) {
            if step.undo.is_none() && step.irreversible.is_none() {
                let what = if mapping.is_in_place() { "the columns" } else { "the table" };
                let message = format!(
                    "the plan doesn't create {what} that `{}` copies into: if values are there, they can't be brought back",
                    mapping.name.value
                );
                reports
                    .warning(codes::BACKFILL_UNDO, step.id.span, message)
                    .help("add `undo: { none: reason }` if nothing is there, `undo: { sql: … }` or `irreversible: reason`");
            }
        }
    }
}

//! Expressions of mappings can be read.

use crate::diagnostic::known as codes;
use crate::sql::{self, Dialect};

use super::super::node::At;
use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::statements::can_be_read;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for mapping in &view.document.mappings {
        if mapping.tables().is_none() {
            continue;
        }
        let source = view.dialect_of(mapping.from.as_ref()).filter(|d| can_be_read(*d));
        let target = view.dialect_of(mapping.into.as_ref()).filter(|d| can_be_read(*d));
        let forward = mapping.columns.iter().map(|(_, expression)| expression);
        for expression in forward.chain(&mapping.filter) {
            check_expression(source, expression, reports);
        }
        for (_, expression) in &mapping.reverse {
            check_expression(target, expression, reports);
        }
    }
}

fn check_expression(dialect: Option<Dialect>, expression: &At<String>, reports: &mut Reports) {
    let Some(dialect) = dialect else { return };
    if let Err(reason) = sql::column_refs(dialect, &expression.value) {
        let message = format!("this expression can't be used: {reason}");
        reports.error(codes::EXPRESSION, expression.span, message).help(format!(
            "write one expression of {} over the columns of one row",
            dialect.name()
        ));
    }
}

//! Expressions of mappings can be read.

use crate::diagnostic::known as codes;
use crate::sql::{self, Dialect};

use super::super::document::MappingDef;
use super::super::node::At;
use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::statements::can_be_read;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for mapping in &view.document.mappings {
        // What is over nodes and relationships is no SQL.
        if mapping.tables().is_none() && !mapping.is_into_graph() {
            continue;
        }
        let source = view.dialect_of(mapping.from.as_ref()).filter(|d| can_be_read(*d));
        let target = view.dialect_of(mapping.into.as_ref()).filter(|d| can_be_read(*d));
        let forward = mapping.written().iter().map(|(_, expression)| expression);
        for expression in forward.chain(of_ends(mapping)).chain(&mapping.filter) {
            check_expression(source, expression, reports);
        }
        // A graph has no way back, which is told of elsewhere.
        let reverse = mapping.reverse.iter().filter(|_| !mapping.is_into_graph());
        for (_, expression) in reverse {
            check_expression(target, expression, reports);
        }
    }
}

/// What the nodes at the ends of a relationship are known by. Where the relationship has no key of its own, these are columns, and
/// what is none is told with the sides.
fn of_ends(mapping: &MappingDef) -> impl Iterator<Item = &At<String>> {
    let into = mapping.into.as_ref().filter(|into| into.key.is_some() || into.given.is_some());
    let ends = into.and_then(|into| into.ends.as_ref()).into_iter().flatten();
    ends.flat_map(|end| &end.key).filter_map(|(_, expression)| expression.as_ref())
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

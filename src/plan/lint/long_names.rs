//! Names that PostgreSQL would cut: what is made is then called otherwise than the plan says, and two may become one.

use crate::bounds::sql::MOST_NAME_BYTES;
use crate::diagnostic::{Diagnostic, known as codes};
use crate::run::Engine;
use crate::sql::{self, Dialect};

use super::super::document::SideDef;
use super::super::node::At;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for script in view.steps.iter().flat_map(|step| step.script.iter().chain(&step.undo)) {
        for (statement, _, _) in &script.statements {
            for name in sql::long_names(script.dialect, &statement.text) {
                let finding = Diagnostic::warning(codes::LONG_NAME, cut(&name))
                    .at(script.location(statement))
                    .with_help(HELP);
                reports.add(finding);
            }
        }
    }
    for mapping in &view.document.mappings {
        let on_postgres = |side: &SideDef| view.dialect_of(Some(side)) == Some(Dialect::Postgres);
        let sides = || mapping.from.iter().chain(&mapping.into).filter(|side| on_postgres(side));
        for side in sides() {
            side.key.iter().flatten().for_each(|column| literal(column, reports));
        }
        if mapping.into.as_ref().is_some_and(on_postgres) {
            mapping.columns.iter().for_each(|(column, _)| literal(column, reports));
        }
    }
    for target in &view.document.targets {
        let is_postgres = target.engine.is_some_and(|engine| engine.value == Engine::Postgres);
        if let Some(schema) = target.schema.as_ref().filter(|_| is_postgres) {
            literal(schema, reports);
        }
    }
}

const HELP: &str = "write a shorter name";

/// A name that is compared with the catalogue as it is.
fn literal(name: &At<String>, reports: &mut Reports) {
    if name.value.len() > MOST_NAME_BYTES {
        reports.warning(codes::LONG_NAME, name.span, cut(&name.value)).help(HELP);
    }
}

fn cut(name: &str) -> String {
    format!("PostgreSQL keeps {MOST_NAME_BYTES} bytes of a name, and `{name}` has {}", name.len())
}

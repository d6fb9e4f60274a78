//! Statements run in a transaction unless they can't, and those that can't are told apart.

use crate::diagnostic::{Diagnostic, known as codes};
use crate::run::{Hazard, Transaction};
use crate::sql::{Dialect, Facts, LockMode};

use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::statements::{ReadScript, can_be_read};

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (at, step) in view.all() {
        let resolved = &view.steps[at];
        let scripts = || resolved.script.iter().chain(&resolved.undo);
        for script in scripts().filter(|script| can_be_read(script.dialect)) {
            match script.transaction {
                Transaction::Auto => refused(script, reports),
                Transaction::None => unanswered(script, reports),
            }
        }
        let is_needed = scripts().any(|script| script.outside_one().is_some());
        if let Some(span) = step.without_transaction
            && !is_needed
            && scripts().any(|it| matches!(it.dialect, Dialect::Postgres | Dialect::Cypher))
        {
            reports
                .warning(
                    codes::TRANSACTION_UNUSED,
                    span,
                    "every statement here could run in one transaction",
                )
                .help("remove `transaction: none`: then all of them are done, or none");
        }
    }
}

fn refused(script: &ReadScript, reports: &mut Reports) {
    let Some((statement, reason)) = script.outside_one() else { return };
    let message = format!("this can't run in a transaction: {reason}");
    let finding = Diagnostic::error(codes::OUTSIDE_TRANSACTION, message)
        .at(script.location(statement))
        .with_help(
            "add `transaction: none` to the step; each of its statements then runs by itself",
        );
    reports.add(finding);
}

/// What became of a statement whose answer was lost is looked up in the catalogue, and rows aren't there.
fn unanswered(script: &ReadScript, reports: &mut Reports) {
    for (statement, facts, hazard) in &script.statements {
        // Cypher that may be in a transaction is in one with its mark in the ledger.
        if script.dialect == Dialect::Cypher && facts.outside_transaction.is_some() {
            let finding = Diagnostic::warning(
                codes::LOST_ANSWER,
                "if the connection is lost while this runs, nothing tells how much of it was done",
            )
            .at(script.location(statement))
            .with_help("write it so that it may be done twice, and see then what it wrote before you go on");
            reports.add(finding);
        }
        if script.dialect == Dialect::Cypher {
            continue;
        }
        let is_refused = facts.complaint.is_some();
        if is_refused || facts.outside_transaction.is_some() || !is_beyond_catalogue(facts, hazard)
        {
            continue;
        }
        let finding = Diagnostic::warning(
            codes::LOST_ANSWER,
            "if the connection is lost while this runs, nothing tells whether it was done",
        )
        .at(script.location(statement))
        .with_help("move it into a step of its own without `transaction: none`");
        reports.add(finding);
    }
}

fn is_beyond_catalogue(facts: &Facts, hazard: &Hazard) -> bool {
    let writes_rows = facts.locks.iter().any(|lock| lock.mode == LockMode::RowExclusive);
    writes_rows || matches!(hazard, Hazard::Unknown(_))
}

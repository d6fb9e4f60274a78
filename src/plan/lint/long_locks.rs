//! Locks that others wait behind while all rows of a table are gone through.
//!
//! In one transaction a lock is held to the end, so a harmless-looking statement counts with the strongest lock that an
//! earlier one took: `ADD … NOT VALID` and `VALIDATE` in one step keep writers out for the whole scan.
//!
//! Absent: steps with a `timeout`, which says how long others may have to wait at the most; tables that the plan made, on which nobody waits yet; undos, which run when there is no choice; and work that
//! can't be told, except of a change of type and of writes behind a strong lock.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, known as codes};
use crate::run::{Statement, Transaction};
use crate::sql::{Change, Facts, LockMode, Object, RowWork, TableLock};

use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::statements::ReadScript;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (at, written) in view.all() {
        let step = &view.steps[at];
        let (Some(script), Some(target)) = (&step.script, step.target) else { continue };
        if written.timeout_ms.is_some() {
            continue;
        }
        let created = &view.created[target];
        let is_ours = |table: &str| created.had(script.dialect, &Object::table(table));
        let mut held: BTreeMap<&str, (LockMode, &Statement)> = BTreeMap::new();
        for (statement, facts, _) in &script.statements {
            let mut finding = None;
            for lock in facts.locks.iter().filter(|lock| !is_ours(&lock.table)) {
                let before = held.get(lock.table.as_str()).copied();
                finding = finding.or_else(|| long(script, (statement, facts), lock, before));
                if script.transaction == Transaction::Auto
                    && before.is_none_or(|(mode, _)| mode < lock.mode)
                {
                    held.insert(&lock.table, (lock.mode, statement));
                }
            }
            if let Some(finding) = finding {
                reports.add(finding);
            }
        }
    }
}

fn long(
    script: &ReadScript,
    (statement, facts): (&Statement, &Facts),
    lock: &TableLock,
    before: Option<(LockMode, &Statement)>,
) -> Option<Diagnostic> {
    let stronger = before.filter(|(mode, _)| *mode > lock.mode);
    let mode = stronger.map_or(lock.mode, |(mode, _)| mode);
    if mode < LockMode::Share || !is_long(facts, lock) {
        return None;
    }
    let who =
        if mode == LockMode::AccessExclusive { "nobody reads or writes" } else { "nobody writes" };
    let table = &lock.table;
    let (message, help) = match stronger {
        Some((_, earlier)) => (
            format!(
                "{who} `{table}` until this is done: line {} took the lock, and {}",
                earlier.line, lock.reason
            ),
            "put it into a step of its own, whose transaction doesn't hold that lock".to_owned(),
        ),
        None => (format!("{who} `{table}` until this is done: {}", lock.reason), help(facts, lock)),
    };
    let help = format!("{help}; or set a `timeout` on the step, which bounds the wait");
    let finding = Diagnostic::warning(codes::LONG_LOCK, message);
    Some(finding.at(script.location(statement)).with_help(help))
}

fn is_long(facts: &Facts, lock: &TableLock) -> bool {
    match lock.work {
        RowWork::None => false,
        RowWork::Scan | RowWork::IndexBuild | RowWork::Rewrite => true,
        RowWork::Unknown => {
            lock.mode == LockMode::RowExclusive
                || facts.changes.iter().any(|change| matches!(change, Change::ChangeType { .. }))
        }
    }
}

/// The way that lets others work meanwhile.
fn help(facts: &Facts, lock: &TableLock) -> String {
    let changes_type =
        facts.changes.iter().any(|change| matches!(change, Change::ChangeType { .. }));
    let attaches = facts.changes.iter().any(|change| matches!(change, Change::Attach { .. }));
    let help = match (lock.work, lock.mode) {
        _ if attaches => {
            "add a CHECK NOT VALID that says what the bounds say, VALIDATE it in a step of its own, and attach then"
        }
        _ if changes_type => {
            "add a column of the new type, and fill it by a mapping in place; or leave it, if the new type only widens the old"
        }
        (RowWork::IndexBuild, LockMode::Share) => {
            "write CONCURRENTLY, in a step with `transaction: none`"
        }
        (RowWork::IndexBuild, _) => {
            "make a unique index CONCURRENTLY in a step with `transaction: none`, and the constraint from it: ADD CONSTRAINT … USING INDEX"
        }
        (RowWork::Scan, _) => {
            "add the constraint NOT VALID here (for SET NOT NULL a CHECK (column IS NOT NULL)), and VALIDATE it in a step of its own"
        }
        _ => {
            "add the column without it, fill it by a mapping in place, and let the constraint follow; do what rewrites a whole table while nobody needs it"
        }
    };
    help.to_owned()
}

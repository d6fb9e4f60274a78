//! Locks in words: who waits, and what happens to the rows meanwhile.
//!
//! Who waits for which mode: <https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES>.

use crate::report::dry_run::LockOutlook;
use crate::run::Hazard;
use crate::sql::{LockMode, RowWork, TableLock};

use super::statements::Reading;

/// The name of a lock, as the database's manual writes it.
pub(super) const fn name(mode: LockMode) -> &'static str {
    match mode {
        LockMode::AccessShare => "ACCESS SHARE",
        LockMode::RowShare => "ROW SHARE",
        LockMode::RowExclusive => "ROW EXCLUSIVE",
        LockMode::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
        LockMode::Share => "SHARE",
        LockMode::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
        LockMode::Exclusive => "EXCLUSIVE",
        LockMode::AccessExclusive => "ACCESS EXCLUSIVE",
    }
}

/// Who waits while it is held, and for whom it waits.
const fn waiting(mode: LockMode) -> &'static str {
    match mode {
        LockMode::AccessShare | LockMode::RowShare | LockMode::RowExclusive => {
            "reads and writes go on"
        }
        LockMode::ShareUpdateExclusive => "reads and writes go on, changes of its shape wait",
        LockMode::Share | LockMode::ShareRowExclusive => "reads go on, writes wait",
        LockMode::Exclusive => "plain reads go on, all else waits",
        LockMode::AccessExclusive => "reads and writes wait",
    }
}

const fn work(work: RowWork) -> (&'static str, &'static str) {
    match work {
        RowWork::None => ("none", "changes the catalogue only"),
        RowWork::Scan => ("scan", "reads every row"),
        RowWork::IndexBuild => ("index_build", "builds an index from every row"),
        RowWork::Rewrite => ("rewrite", "writes every row anew"),
        RowWork::Unknown => ("unknown", "may go through every row"),
    }
}

/// A lock as a dry run shows it.
pub(super) fn shown(lock: &TableLock) -> LockOutlook {
    let (rewrite, words) = work(lock.work);
    // What clients do to rows is no work on the table as such, and reading is what a SELECT's lock is for.
    let words = match (lock.mode, lock.work) {
        (LockMode::AccessShare | LockMode::RowShare, RowWork::None)
        | (LockMode::AccessShare, RowWork::Scan) => "reads",
        (LockMode::RowExclusive, RowWork::None) => "writes rows as a client does",
        _ => words,
    };
    LockOutlook {
        object: lock.table.clone(),
        mode: name(lock.mode).to_owned(),
        waiting: waiting(lock.mode).to_owned(),
        rewrite,
        work: words.to_owned(),
        reason: lock.reason.clone(),
    }
}

/// Whether it is one of the server's own catalogues or views of its state: to read those is in nobody's way.
pub(super) fn is_catalogue(table: &str) -> bool {
    ["pg_", "information_schema."].iter().any(|prefix| table.starts_with(prefix))
}

/// What a statement locks. One that can't be read locks nobody knows what.
pub(super) fn of_statement(reading: &Reading) -> Vec<LockOutlook> {
    if !reading.knows_locks {
        return Vec::new();
    }
    let is_opaque = reading.facts.locks.is_empty() && matches!(reading.hazard, Hazard::Unknown(_));
    if is_opaque {
        return vec![LockOutlook {
            object: "unknown".to_owned(),
            mode: "any".to_owned(),
            waiting: "reads and writes may wait".to_owned(),
            rewrite: "unknown",
            work: "may go through every row".to_owned(),
            reason: "the text doesn't tell what it does".to_owned(),
        }];
    }
    reading.facts.locks.iter().map(shown).collect()
}

/// A lock of the engine's own work.
pub(super) fn own(table: &str, mode: LockMode, work: RowWork, reason: &str) -> LockOutlook {
    shown(&TableLock { table: table.to_owned(), mode, work, reason: reason.to_owned() })
}

/// The lock of each chunk of a copy.
pub(super) fn of_chunks(table: &str, mode: LockMode, reason: &str) -> LockOutlook {
    LockOutlook {
        rewrite: "chunk",
        work: "only the rows of one chunk at a time".to_owned(),
        ..own(table, mode, RowWork::None, reason)
    }
}

/// How SQLite locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// One transaction writes.
    Writing,
    /// One short transaction after the other writes.
    Chunks,
    /// It reads.
    Reading,
}

/// The lock of SQLite, which has no other than that of the whole file.
pub(super) fn whole(how: Whole) -> LockOutlook {
    let (mode, waiting, rewrite, work) = match how {
        Whole::Writing => ("one writer", "other writers wait", "unknown", "while the step runs"),
        Whole::Chunks => ("one writer", "other writers wait", "chunk", "one chunk at a time"),
        Whole::Reading => {
            ("a reader", "commits wait, but with journal_mode wal", "scan", "chunk by chunk")
        }
    };
    LockOutlook {
        object: "whole database".to_owned(),
        mode: mode.to_owned(),
        waiting: waiting.to_owned(),
        rewrite,
        work: work.to_owned(),
        reason: "SQLite locks files".to_owned(),
    }
}

//! SQLite's errors as the engine understands them.
//!
//! Every error keeps SQLite's own code by name and its message; the class decides what the engine does next. Absent on
//! purpose: the URL and the statement's values, which may be secrets.

use crate::driver::Error;
use crate::run::{Failure, FailureClass, Private};

/// SQLite's primary result codes, which are the low byte of every code.
/// From <https://www.sqlite.org/rescode.html>.
const PRIMARY: &[(i32, &str)] = &[
    (1, "SQLITE_ERROR"),
    (2, "SQLITE_INTERNAL"),
    (3, "SQLITE_PERM"),
    (4, "SQLITE_ABORT"),
    (5, "SQLITE_BUSY"),
    (6, "SQLITE_LOCKED"),
    (7, "SQLITE_NOMEM"),
    (8, "SQLITE_READONLY"),
    (9, "SQLITE_INTERRUPT"),
    (10, "SQLITE_IOERR"),
    (11, "SQLITE_CORRUPT"),
    (12, "SQLITE_NOTFOUND"),
    (13, "SQLITE_FULL"),
    (14, "SQLITE_CANTOPEN"),
    (15, "SQLITE_PROTOCOL"),
    (17, "SQLITE_SCHEMA"),
    (18, "SQLITE_TOOBIG"),
    (19, "SQLITE_CONSTRAINT"),
    (20, "SQLITE_MISMATCH"),
    (21, "SQLITE_MISUSE"),
    (23, "SQLITE_AUTH"),
    (25, "SQLITE_RANGE"),
    (26, "SQLITE_NOTADB"),
];

/// The extended codes that tell people more than their primary code does.
const EXTENDED: &[(i32, &str)] = &[
    (261, "SQLITE_BUSY_RECOVERY"),
    (517, "SQLITE_BUSY_SNAPSHOT"),
    (275, "SQLITE_CONSTRAINT_CHECK"),
    (531, "SQLITE_CONSTRAINT_COMMITHOOK"),
    (787, "SQLITE_CONSTRAINT_FOREIGNKEY"),
    (1299, "SQLITE_CONSTRAINT_NOTNULL"),
    (1555, "SQLITE_CONSTRAINT_PRIMARYKEY"),
    (1811, "SQLITE_CONSTRAINT_TRIGGER"),
    (2067, "SQLITE_CONSTRAINT_UNIQUE"),
    (2579, "SQLITE_CONSTRAINT_ROWID"),
    (3091, "SQLITE_CONSTRAINT_DATATYPE"),
    (264, "SQLITE_READONLY_RECOVERY"),
    (776, "SQLITE_READONLY_ROLLBACK"),
    (1032, "SQLITE_READONLY_DBMOVED"),
    (1544, "SQLITE_READONLY_DIRECTORY"),
    (266, "SQLITE_IOERR_READ"),
    (522, "SQLITE_IOERR_SHORT_READ"),
    (778, "SQLITE_IOERR_WRITE"),
    (1034, "SQLITE_IOERR_FSYNC"),
    (2570, "SQLITE_IOERR_DELETE"),
    (779, "SQLITE_CORRUPT_INDEX"),
];

/// The numeric result code of an error that SQLite itself gave.
pub(super) fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// SQLite's own name for a result code.
fn name(code: i32) -> Option<&'static str> {
    let find = |table: &[(i32, &'static str)], wanted| {
        table.iter().find(|(code, _)| *code == wanted).map(|(_, name)| *name)
    };
    find(EXTENDED, code).or_else(|| find(PRIMARY, code & 0xff))
}

/// What a result code means for the engine.
fn class(code: i32) -> FailureClass {
    match code & 0xff {
        5 | 6 => FailureClass::Contention,
        9 => FailureClass::Cancelled,
        3 | 8 | 23 => FailureClass::NotPermitted,
        13 => FailureClass::Full,
        11 | 26 => FailureClass::Damaged,
        7 | 10 | 14 | 15 => FailureClass::Unreachable,
        _ => FailureClass::Refused,
    }
}

/// What to do about a result code, where that is known without the statement.
fn help(code: i32) -> Option<&'static str> {
    if matches!(code, 264 | 776) {
        return Some(
            "a process that died left a journal, which must be put right by somebody who may write: open the database once, for example with the sqlite3 shell",
        );
    }
    Some(match code & 0xff {
        5 | 6 => "another connection holds the database; it is tried again",
        8 => "the database file or its folder is read-only for this user, or the URL says mode=ro",
        11 => "run PRAGMA integrity_check and restore a backup if it reports damage",
        13 => "free disk space (or raise PRAGMA max_page_count), then retry",
        14 => "check that the file and its folder exist and may be read and written",
        26 => "the URL must name a SQLite database file (an encrypted one can't be read)",
        _ => return None,
    })
}

/// The fields of a failure from an error of sqlx.
pub(super) fn failure(error: &sqlx::Error) -> Failure {
    if let (Some(code), Some(given)) = (code(error), error.as_database_error()) {
        return Failure {
            class: class(code),
            code: name(code).map(str::to_owned).or_else(|| Some(code.to_string())),
            message: given.message().to_owned(),
            detail: None,
            help: help(code).map(str::to_owned),
            line: None,
            private: private(code, given.message()),
        };
    }
    let class = match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => FailureClass::Unreachable,
        _ => FailureClass::Refused,
    };
    Failure {
        class,
        code: None,
        message: error.to_string(),
        detail: None,
        help: None,
        line: None,
        private: Vec::new(),
    }
}

/// What an error says that is taken from rows: SQLite quotes none in its own words, but a trigger may raise anything
/// (`SQLITE_CONSTRAINT_TRIGGER`).
fn private(code: i32, message: &str) -> Vec<Private> {
    let raised = Private::value(message).instead("a trigger refused it (its words are redacted)");
    if code == 1811 { vec![raised] } else { Vec::new() }
}

/// An error of ours from one of sqlx. `doing` completes "could not …" for statements that are ours.
pub(super) fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |error| {
        let mut failure = failure(&error);
        failure.message = format!("could not {doing}: {}", failure.message);
        Error::Failed(failure)
    }
}

/// An error of ours for a statement that the plan's author wrote: SQLite's message stands alone.
pub(super) fn refused(error: &sqlx::Error) -> Error {
    Error::Failed(failure(error))
}

/// Something in our own tables that we never write.
pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::failed(FailureClass::Damaged, what)
        .with_help("somebody else wrote to the tables called phasegate_…")
}

/// What a failed COMMIT means. SQLite reports a broken constraint, a lock or a full disk before it commits, and then
/// nothing was committed; after an I/O error it may have been either way.
pub(super) fn commit_failed(error: &sqlx::Error) -> Error {
    let failure = failure(error);
    let known = code(error).is_some_and(|code| matches!(code & 0xff, 5..=9 | 13 | 19));
    // SQLITE_ERROR at COMMIT is "no transaction is active": it was rolled back before.
    let gone = code(error) == Some(1);
    if known || gone { Error::Failed(failure) } else { Error::Unknown(failure) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names_and_classes() {
        let table = [
            (5, "SQLITE_BUSY", FailureClass::Contention),
            (517, "SQLITE_BUSY_SNAPSHOT", FailureClass::Contention),
            (13, "SQLITE_FULL", FailureClass::Full),
            (26, "SQLITE_NOTADB", FailureClass::Damaged),
            (1544, "SQLITE_READONLY_DIRECTORY", FailureClass::NotPermitted),
            (2067, "SQLITE_CONSTRAINT_UNIQUE", FailureClass::Refused),
            (1, "SQLITE_ERROR", FailureClass::Refused),
            // An extended code without an entry of its own is called by its primary code.
            (6410, "SQLITE_IOERR", FailureClass::Unreachable),
        ];
        for (code, expected, expected_class) in table {
            assert_eq!(name(code), Some(expected), "{code}");
            assert_eq!(class(code), expected_class, "{code}");
        }
    }
}

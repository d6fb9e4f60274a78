//! What SQLite's errors mean to a store.

use std::path::Path;

use super::super::Error;

/// Primary and extended result codes, from <https://www.sqlite.org/rescode.html>.
mod code {
    pub const ERROR: i32 = 1;
    pub const PERM: i32 = 3;
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const READONLY: i32 = 8;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const PROTOCOL: i32 = 15;
    pub const SCHEMA: i32 = 17;
    pub const CONSTRAINT: i32 = 19;
    pub const MISMATCH: i32 = 20;
    pub const NOTADB: i32 = 26;
    pub const IOERR_DATA: i32 = 8202;
    pub const IOERR_CORRUPTFS: i32 = 8458;
    pub const IOERR_WRITE: i32 = 778;
    pub const IOERR_FSYNC: i32 = 1034;
    pub const IOERR_DIR_FSYNC: i32 = 1290;
    pub const IOERR_TRUNCATE: i32 = 1546;
    pub const IOERR_SHMSIZE: i32 = 4874;
}

/// Gives an error its kind and its sentence.
pub(super) fn explain(path: &Path, error: &sqlx::Error) -> Error {
    let place = format!("the state store {}", path.display());
    let database = match error {
        sqlx::Error::Database(database) => database,
        sqlx::Error::PoolTimedOut => {
            return Error::Busy {
                message: format!("{place} is busy: no connection came free in time"),
            };
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            return damaged(path, &error.to_string());
        }
        other => {
            return Error::Unreachable { message: format!("{place} can't be reached: {other}") };
        }
    };
    let extended: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(0);
    let said = database.message();
    match (extended & 0xff, extended) {
        (code::BUSY | code::LOCKED | code::PROTOCOL | code::SCHEMA, _) => {
            Error::Busy { message: format!("{place} is locked by another program ({said})") }
        }
        (code::READONLY | code::PERM, _) => {
            Error::NotWritable { message: format!("{place} can't be written: {said}") }
        }
        (code::FULL, _) => {
            Error::NotWritable { message: format!("{place} has no room left on its disk: {said}") }
        }
        // A plain error is a statement that the schema does not allow: a table is not there, or is another.
        (code::ERROR | code::CORRUPT | code::NOTADB | code::CONSTRAINT | code::MISMATCH, _)
        | (_, code::IOERR_DATA | code::IOERR_CORRUPTFS) => damaged(path, said),
        (
            _,
            code::IOERR_WRITE
            | code::IOERR_FSYNC
            | code::IOERR_DIR_FSYNC
            | code::IOERR_TRUNCATE
            | code::IOERR_SHMSIZE,
        ) => Error::NotWritable {
            message: format!(
                "{place} can't be written, its disk may be full: {said} (code {extended})"
            ),
        },
        _ => Error::Unreachable {
            message: format!("{place} can't be opened: {said} (code {extended})"),
        },
    }
}

/// A store that is not what was written, and what to do about it.
pub(super) fn damaged(path: &Path, how: &str) -> Error {
    Error::Damaged {
        message: format!(
            "the state store {} is damaged: {how}; nothing was changed, restore the file from a backup",
            path.display()
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use std::error::Error as StdError;
    use std::{borrow::Cow, fmt};

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    #[derive(Debug)]
    struct Raised(i32);

    impl fmt::Display for Raised {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("it went wrong")
        }
    }

    impl StdError for Raised {}

    impl DatabaseError for Raised {
        fn message(&self) -> &'static str {
            "it went wrong"
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.to_string().into())
        }
        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    /// Codes that no test can bring about in a file: failing disks and rare extended codes.
    #[test]
    fn result_codes_have_their_kinds() {
        let kind = |code: i32| {
            let error = sqlx::Error::Database(Box::new(Raised(code)));
            match explain(Path::new("state.db"), &error) {
                Error::Busy { .. } => "busy",
                Error::NotWritable { .. } => "not writable",
                Error::Damaged { .. } => "damaged",
                Error::Unreachable { .. } => "unreachable",
                other => panic!("{other}"),
            }
        };
        // BUSY, BUSY_SNAPSHOT, LOCKED, LOCKED_SHAREDCACHE
        assert_eq!([5, 517, 6, 262].map(kind), ["busy"; 4]);
        // READONLY, READONLY_DIRECTORY, FULL, IOERR_WRITE, IOERR_FSYNC
        assert_eq!([8, 1544, 13, 778, 1034].map(kind), ["not writable"; 5]);
        // CORRUPT, CORRUPT_INDEX, NOTADB, CONSTRAINT_PRIMARYKEY, IOERR_CORRUPTFS, ERROR
        assert_eq!([11, 779, 26, 1555, 8458, 1].map(kind), ["damaged"; 6]);
        // CANTOPEN, IOERR_READ, IOERR_LOCK, NOMEM
        assert_eq!([14, 266, 3850, 7].map(kind), ["unreachable"; 4]);
    }
}

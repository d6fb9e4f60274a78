//! What SQLite's errors mean to a store.

use std::path::Path;

use super::super::Error;

/// Primary and extended result codes, from <https://www.sqlite.org/rescode.html>.
mod code {
    pub const PERM: i32 = 3;
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const READONLY: i32 = 8;
    pub const IOERR: i32 = 10;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const CANTOPEN: i32 = 14;
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
        (code::BUSY | code::LOCKED, _) => {
            Error::Busy { message: format!("{place} is locked by another program ({said})") }
        }
        (code::READONLY | code::PERM, _) => {
            Error::NotWritable { message: format!("{place} can't be written: {said}") }
        }
        (code::FULL, _) => {
            Error::NotWritable { message: format!("{place} has no room left on its disk: {said}") }
        }
        (code::CORRUPT | code::NOTADB | code::CONSTRAINT | code::MISMATCH, _)
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
        (code::CANTOPEN | code::IOERR, _) => Error::Unreachable {
            message: format!("{place} can't be opened: {said} (code {extended})"),
        },
        // What is left is a statement that its schema does not allow: a table is not there, or is another.
        _ => damaged(path, said),
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

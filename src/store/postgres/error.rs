//! What PostgreSQL's errors mean to a store. Shown from their fields: message and code, never the connection's URL.

use super::super::Error;

/// Gives an error its kind and its sentence. `place` is the store's location without secrets.
pub(super) fn explain(place: &str, error: &sqlx::Error) -> Error {
    let database = match error {
        sqlx::Error::Database(database) => database,
        sqlx::Error::PoolTimedOut => {
            return unreachable(place, "no connection could be had in time");
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            return damaged(place, &error.to_string());
        }
        // What stands in a configuration error is a part of the URL.
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => {
            return unreachable(place, "its URL has a parameter that is not valid");
        }
        other => return unreachable(place, &other.to_string()),
    };
    let code = database.code().unwrap_or_default();
    let said = format!("{} (SQLSTATE {code})", database.message());
    match (code.get(..2).unwrap_or_default(), &*code) {
        (_, "55P03" | "57014" | "40001" | "40P01" | "53300") => {
            Error::Busy { message: format!("the state store {place} is busy: {said}") }
        }
        (_, "25006" | "42501" | "53100" | "58030") => Error::NotWritable {
            message: format!("the state store {place} can't be written: {said}"),
        },
        // Data and constraints that can't be, tables and columns that are not there, and corruption itself.
        ("22" | "23", _) | (_, "42P01" | "42703" | "3F000" | "XX001" | "XX002") => {
            damaged(place, &said)
        }
        _ => unreachable(place, &said),
    }
}

/// A store that can't be reached.
pub(super) fn unreachable(place: &str, how: &str) -> Error {
    Error::Unreachable { message: format!("the state store {place} can't be reached: {how}") }
}

/// A store that is not what was written, and what to do about it.
pub(super) fn damaged(place: &str, how: &str) -> Error {
    Error::Damaged {
        message: format!(
            "the state store {place} is damaged: {how}; nothing was changed, restore the schema phasegate from a backup"
        ),
    }
}

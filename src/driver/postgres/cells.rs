//! Keys between PostgreSQL and us.
//!
//! A key column travels as text, cast on the server both ways (`key::text` out, `$n::text::type` in), so that every type that
//! can be a key can be a bound, and what comes back is what was read: the settings of our sessions write and read dates,
//! intervals, bytes and floats alike. Whole numbers become [`Cell::Integer`], for people to read. Absent on purpose:
//! comparing keys, which only PostgreSQL does.

use sqlx::Row as _;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use super::error::{damaged, failed};
use super::shape::Shape;
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::driver::Error;

/// A query with its arguments.
pub(super) type Bound<'q> = Query<'q, sqlx::Postgres, PgArguments>;

/// Binds a key's cells in order, behind what was bound before.
pub(super) fn bind_key<'q>(query: Bound<'q>, key: &Key) -> Bound<'q> {
    key.0.iter().fold(query, |query, cell| query.bind(text(cell)))
}

/// Binds a chunk's bounds that are there: the cells of `lo`, then those of `hi`.
pub(super) fn bind_chunk<'q>(query: Bound<'q>, chunk: &Chunk) -> Bound<'q> {
    [&chunk.lo, &chunk.hi].into_iter().flatten().fold(query, bind_key)
}

/// Binds keys as one array of texts for each column of a key of `width` columns.
pub(super) fn bind_keys<'q>(query: Bound<'q>, keys: &[Key], width: usize) -> Bound<'q> {
    (0..width).fold(query, |query, at| {
        let column: Vec<Option<String>> =
            keys.iter().map(|key| key.0.get(at).and_then(text)).collect();
        query.bind(column)
    })
}

/// The text of a cell, as the cast on the server reads it. None of the forms but the first two is ever read from PostgreSQL.
pub(super) fn text(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(text) => Some(text.clone()),
        Cell::Integer(number) => Some(number.to_string()),
        Cell::Real(number) => Some(number.to_string()),
        Cell::Blob(bytes) => {
            let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("\\x{}", digits.concat()))
        }
        Cell::Null => None,
    }
}

/// The key in the first columns of a row, which were asked for as text.
pub(super) fn key(row: &PgRow, shape: &Shape) -> Result<Key, Error> {
    let cell = |(at, pair): (usize, &super::shape::KeyPair)| {
        let text: String = row.try_get(at).map_err(failed("read a key"))?;
        let number = pair.is_integer().then(|| text.parse().ok()).flatten();
        Ok(number.map_or(Cell::Text(text), Cell::Integer))
    };
    shape.keys.iter().enumerate().map(cell).collect::<Result<_, Error>>().map(Key)
}

/// A key as the ledger writes it.
pub(super) fn key_to_json(key: &Key) -> Result<String, Error> {
    serde_json::to_string(key).map_err(|error| damaged(format!("a key can't be written: {error}")))
}

/// A key as the ledger has it.
pub(super) fn key_from_json(text: &str) -> Result<Key, Error> {
    serde_json::from_str(text)
        .map_err(|error| damaged(format!("a key in the ledger can't be read: {error}")))
}

//! Values between SQLite and us: keys in, keys out, the value of a query.
//!
//! A value keeps its storage class both ways, so that a bound equals the row that it was read from. Absent on purpose:
//! comparing values, which only SQLite does.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

use super::error::{damaged, failed};
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::driver::Error;
use crate::run::FailureClass;

/// A query with its arguments.
pub(super) type Bound<'q> = Query<'q, sqlx::Sqlite, SqliteArguments>;

/// Binds a key's cells in order, behind what was bound before.
pub(super) fn bind_key<'q>(query: Bound<'q>, key: &Key) -> Bound<'q> {
    key.0.iter().fold(query, |query, cell| match cell {
        Cell::Null => query.bind(None::<i64>),
        Cell::Integer(number) => query.bind(*number),
        Cell::Real(number) => query.bind(*number),
        Cell::Text(text) => query.bind(text.clone()),
        Cell::Blob(bytes) => query.bind(bytes.clone()),
    })
}

/// Binds a chunk's bounds that are there: the cells of `lo`, then those of `hi`.
pub(super) fn bind_chunk<'q>(query: Bound<'q>, chunk: &Chunk) -> Bound<'q> {
    [&chunk.lo, &chunk.hi].into_iter().flatten().fold(query, bind_key)
}

/// How many values [`bind_chunk`] binds.
pub(super) fn places(chunk: &Chunk) -> usize {
    [&chunk.lo, &chunk.hi].into_iter().flatten().map(|key| key.0.len()).sum()
}

/// The cell in a column of a row.
pub(super) fn cell(row: &SqliteRow, at: usize) -> Result<Cell, Error> {
    let value = row.try_get_raw(at).map_err(failed("read a value"))?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let class = value.type_info().name().to_owned();
    let unreadable = |_| {
        Error::failed(FailureClass::Refused, "a key holds text that is not UTF-8").with_help(
            "such a value can't be a bound; cast the column to BLOB in the key, or mend the text",
        )
    };
    // The unchecked forms, since the declared type of a column says nothing of what is stored in it.
    Ok(match class.as_str() {
        "INTEGER" => Cell::Integer(row.try_get_unchecked(at).map_err(failed("read a value"))?),
        "REAL" => Cell::Real(row.try_get_unchecked(at).map_err(failed("read a value"))?),
        "BLOB" => Cell::Blob(row.try_get_unchecked(at).map_err(failed("read a value"))?),
        _ => Cell::Text(row.try_get_unchecked(at).map_err(unreadable)?),
    })
}

/// The key in the first `width` columns of a row.
pub(super) fn key(row: &SqliteRow, width: usize) -> Result<Key, Error> {
    (0..width).map(|at| cell(row, at)).collect::<Result<_, _>>().map(Key)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sqlx::Connection as _;

    /// Every storage class, with the values that are hard to carry.
    fn hard_cells() -> Vec<Cell> {
        vec![
            Cell::Null,
            Cell::Integer(i64::MIN),
            Cell::Integer(i64::MAX),
            Cell::Integer(0),
            Cell::Real(0.1),
            Cell::Real(-0.0),
            Cell::Real(f64::MAX),
            Cell::Real(f64::MIN_POSITIVE / 2.0),
            Cell::Real(f64::INFINITY),
            Cell::Real(f64::NEG_INFINITY),
            Cell::Real(1.0),
            Cell::Text(String::new()),
            Cell::Text("it's \"quoted\" \\ \u{0} ☃ é".into()),
            Cell::Text("1".into()),
            Cell::Blob(vec![]),
            Cell::Blob(vec![0, 255, 39, 128]),
        ]
    }

    fn same(one: &Cell, two: &Cell) -> bool {
        match (one, two) {
            (Cell::Real(one), Cell::Real(two)) => one.to_bits() == two.to_bits(),
            _ => one == two,
        }
    }

    #[test]
    fn keys_survive_the_ledger() {
        let key = Key(hard_cells());
        let back = key_from_json(&key_to_json(&key).unwrap()).unwrap();
        assert_eq!(key.0.len(), back.0.len());
        for (one, two) in key.0.iter().zip(&back.0) {
            assert!(same(one, two), "{one:?} came back as {two:?}");
        }
    }

    #[tokio::test]
    async fn cells_survive_sqlite() {
        let mut db = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE t (x)").execute(&mut db).await.unwrap();
        for one in hard_cells() {
            sqlx::query("DELETE FROM t").execute(&mut db).await.unwrap();
            let key = Key(vec![one.clone()]);
            bind_key(sqlx::query("INSERT INTO t VALUES (?1)"), &key)
                .execute(&mut db)
                .await
                .unwrap();
            let row = sqlx::query("SELECT x FROM t").fetch_one(&mut db).await.unwrap();
            let two = cell(&row, 0).unwrap();
            assert!(same(&one, &two), "{one:?} came back as {two:?}");
            let found = bind_key(sqlx::query("SELECT 1 FROM t WHERE x IS ?1"), &Key(vec![two]));
            assert!(found.fetch_optional(&mut db).await.unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn text_that_is_not_utf8_is_an_error() {
        let mut db = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let row = sqlx::query("SELECT CAST(x'ff41' AS TEXT)").fetch_one(&mut db).await.unwrap();
        assert!(cell(&row, 0).is_err());
    }
}

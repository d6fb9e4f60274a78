//! Key ranges as SQL: conditions that SQLite answers from an index.
//!
//! Composite keys are compared as row values, which SQLite searches in one index. The column stands on the left of each
//! comparison, so that its own collation and affinity hold. Absent on purpose: OFFSET as a way to find rows to copy.

use super::catalogue::quote;
use super::cells::{Bound, bind_key};
use crate::copy::chunk::{Chunk, Key};

/// The key columns, quoted, as a list: `"a", "b"`.
pub(super) fn list(key: &[String]) -> String {
    key.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// The key columns, each followed by DESC.
pub(super) fn list_descending(key: &[String]) -> String {
    key.iter().map(|name| format!("{} DESC", quote(name))).collect::<Vec<_>>().join(", ")
}

/// The condition that a row's key is in a chunk. Binds the bounds that are there, lower first, from `?1` on.
pub(super) fn range(key: &[String], chunk: &Chunk) -> String {
    let row = row_of(list(key), key.len());
    let mut conditions = Vec::new();
    let mut first = 1;
    for (bound, operator) in [(&chunk.lo, ">"), (&chunk.hi, "<=")] {
        if bound.is_some() {
            let places: Vec<String> =
                (first..first + key.len()).map(|place| format!("?{place}")).collect();
            conditions.push(format!("{row} {operator} {}", row_of(places.join(", "), key.len())));
            first += key.len();
        }
    }
    if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") }
}

/// Binds a chunk's bounds for [`range`].
pub(super) fn bind_range<'q>(query: Bound<'q>, chunk: &Chunk) -> Bound<'q> {
    [&chunk.lo, &chunk.hi].into_iter().flatten().fold(query, bind_key)
}

/// How many places [`range`] takes.
pub(super) fn places(chunk: &Chunk) -> usize {
    let width = |bound: &Option<Key>| bound.as_ref().map_or(0, |key| key.0.len());
    width(&chunk.lo) + width(&chunk.hi)
}

fn row_of(list: String, width: usize) -> String {
    if width == 1 { list } else { format!("({list})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::chunk::Cell;

    #[test]
    fn ranges_name_the_bounds_that_are_there() {
        let key = |width: usize| Some(Key(vec![Cell::Integer(1); width]));
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let table = [
            (names(&["id"]), Chunk { lo: None, hi: None }, "1"),
            (names(&["id"]), Chunk { lo: key(1), hi: None }, "\"id\" > ?1"),
            (names(&["id"]), Chunk { lo: None, hi: key(1) }, "\"id\" <= ?1"),
            (
                names(&["a", "b\"c"]),
                Chunk { lo: key(2), hi: key(2) },
                "(\"a\", \"b\"\"c\") > (?1, ?2) AND (\"a\", \"b\"\"c\") <= (?3, ?4)",
            ),
        ];
        for (names, chunk, expected) in table {
            assert_eq!(range(&names, &chunk), expected);
        }
    }
}

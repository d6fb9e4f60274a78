//! Copying a chunk by plain inserts, which is what most chunks take.
//!
//! `ON CONFLICT` has the server look at the key's index twice for each row, and mark the row while it isn't sure of it, which costs
//! half as much again as the insert itself. It is needed only where a client makes one of the rows while the chunk is under way. So
//! a chunk is first inserted without it: rows that are there already are left out by a plain condition, and a row that comes
//! meanwhile is a unique violation, which undoes the chunk. It is then copied with `ON CONFLICT`, in a transaction of its own, and
//! so are some of those behind it.
//!
//! Invariants: nothing is written over either way. An insert that fails decides nothing, but for how it is tried again.
//!
//! Absent on purpose: what becomes of a chunk that fails with `ON CONFLICT` too, which is `sink`'s.

use std::sync::{Mutex, PoisonError};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::quote;
use super::planted::Fault;
use super::shape_sql::{Pick, Statements, Which, all, list};
use crate::bounds::postgres::CAREFUL_MAX;

/// How the rows of a chunk are inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// In the hope that no client makes one of them meanwhile.
    AtOnce,
    /// Whoever makes them meanwhile.
    Careful,
}

/// Whether clients have been in the way of late. One for a database: what copies of two mappings learn from each other costs
/// little and breaks nothing.
#[derive(Debug, Default)]
pub(super) struct Luck(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    /// Chunks that are still to be inserted with care.
    careful_left: u32,
    /// How many that were after the last time.
    careful_last: u32,
}

impl Luck {
    /// How the next chunk is inserted.
    pub(super) fn manner(&self) -> Manner {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if met.careful_left == 0 {
            return Manner::AtOnce;
        }
        met.careful_left -= 1;
        Manner::Careful
    }

    /// A client was in the way. Each time that nothing went well in between, twice as many chunks are inserted with care.
    pub(super) fn is_out(&self) {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.careful_last = (met.careful_last * 2 + 1).min(CAREFUL_MAX);
        met.careful_left = met.careful_last;
    }

    /// Nobody was.
    pub(super) fn held(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).careful_last = 0;
    }
}

/// What is on the new side of a range before it is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Rows that both sides have.
    pub rows: i64,
    /// Whether something of the table's own may leave rows out that are inserted, or make others of them: rules, and users'
    /// triggers before each row. Then what was read is counted apart from what was written.
    pub is_odd: bool,
}

/// Looks at the new side of a range.
pub(super) async fn standing(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    pick: &Pick<'_>,
) -> Result<Standing, sqlx::Error> {
    let sql = statements.standing(pick);
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)), statements.shape);
    let row = query.fetch_one(conn).await?;
    Ok(Standing { rows: row.try_get(0)?, is_odd: row.try_get(1)? })
}

impl Statements<'_> {
    /// Inserts what the new side hasn't got, by its key; a row in the way of any other constraint is an error. The rows read
    /// stay locked against being deleted, or given another key, until the transaction ends.
    pub(super) fn insert(&self, pick: &Pick<'_>) -> String {
        let shape = self.shape;
        let (columns, values) = self.inserted();
        let lock = Self::insert_lock();
        format!(
            "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {} ORDER BY {}{lock} \
             ON CONFLICT ({}) DO NOTHING",
            shape.new.sql(),
            shape.rows_sql(Which::Old, pick),
            shape.key_names(Which::Old).join(", "),
            shape.bare_key(Which::New).join(", ")
        )
    }

    /// How the rows that an insert reads are locked.
    fn insert_lock() -> &'static str {
        if Fault::NoRowLock.is_planted() { "" } else { " FOR KEY SHARE" }
    }

    /// The columns that are inserted and their values over a row of the old side.
    fn inserted(&self) -> (String, String) {
        let shape = self.shape;
        let beside = || shape.written_beside_key().map(|(_, write)| write);
        let columns = shape.bare_key(Which::New).into_iter();
        let values = shape.key_names(Which::Old).into_iter();
        (
            list(columns.chain(beside().map(|write| quote(&write.column)))),
            list(values.chain(beside().map(|write| write.value.clone()))),
        )
    }

    /// That a row of each side is the other's.
    fn is_pair(&self) -> String {
        let (olds, news) = (self.shape.key_names(Which::Old), self.shape.key_names(Which::New));
        let pairs = olds.iter().zip(&news);
        all(&pairs.map(|(old, new)| format!("{new} = {old}")).collect::<Vec<_>>())
    }

    fn standing(&self, pick: &Pick<'_>) -> String {
        let (shape, oid) = (self.shape, self.shape.new.oid);
        format!(
            "SELECT (SELECT count(*) FROM {} AND EXISTS (SELECT FROM {} WHERE {}{})), \
             EXISTS (SELECT FROM pg_class WHERE oid = {oid} AND relhasrules) OR EXISTS (SELECT FROM pg_trigger \
             WHERE tgrelid IN (SELECT relid FROM pg_partition_tree({oid}::regclass) UNION ALL SELECT {oid}) \
             AND NOT tgisinternal AND tgtype & 7 = 7)",
            shape.rows_sql(Which::New, pick),
            shape.old.sql(),
            self.is_pair(),
            shape.filter_sql(Which::Old)
        )
    }

    /// As [`insert`](Self::insert), but that a row which a client makes meanwhile is an error.
    pub(super) fn insert_at_once(&self, pick: &Pick<'_>, standing: Standing) -> String {
        let shape = self.shape;
        let (columns, values) = self.inserted();
        let lock = Self::insert_lock();
        let beside = if standing.rows == 0 {
            String::new()
        } else {
            let there = shape.rows_sql(Which::New, pick);
            format!(" AND NOT EXISTS (SELECT FROM {there} AND {})", self.is_pair())
        };
        format!(
            "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {}{beside} ORDER BY {}{lock}",
            shape.new.sql(),
            shape.rows_sql(Which::Old, pick),
            shape.key_names(Which::Old).join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_often_clients_are_in_the_way_the_longer_chunks_are_careful() {
        let luck = Luck::default();
        let careful = |luck: &Luck| {
            let chunks = std::iter::from_fn(|| Some(luck.manner()));
            chunks.take_while(|manner| *manner == Manner::Careful).count()
        };
        assert_eq!(careful(&luck), 0);
        for chunks in [1, 3, 7, 15, 16, 16] {
            luck.is_out();
            assert_eq!(careful(&luck), chunks);
        }
        luck.is_out();
        luck.held();
        assert_eq!(careful(&luck), 16, "what was begun is ended");
        luck.is_out();
        assert_eq!(careful(&luck), 1);
    }
}

//! What a mapping comes down to on its tables, kept while neither changes.
//!
//! Reading the catalogue of two tables takes eight queries and some milliseconds, which each chunk of a copy would pay again.
//! One query tells whether anything of them is another: the catalogue's rows of a table carry the transactions that wrote
//! them, so a change of a column, an index or a trigger, whoever makes it, shows in these. What VACUUM and ANALYZE note is
//! written in place and does not.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::catalogue::name_sql;
use super::error::failed;
use super::shape::{self, Shape};
use crate::bounds::postgres::KEPT_MAX;
use crate::driver::Error;
use crate::run::Mapping;

/// Stands for the catalogue's rows of two tables, `$1` and `$2`.
pub(super) const VERSION: &str = "\
SELECT string_agg(concat_ws(';', t.place, t.oid, c.xmin, n.xmin,
    (SELECT string_agg(concat(a.attnum, ':', a.xmin), ',' ORDER BY a.attnum) FROM pg_attribute a
     WHERE a.attrelid = t.oid AND a.attnum > 0),
    (SELECT string_agg(concat(i.indexrelid, ':', i.xmin), ',' ORDER BY i.indexrelid) FROM pg_index i
     WHERE i.indrelid = t.oid),
    (SELECT string_agg(concat(g.oid, ':', g.xmin), ',' ORDER BY g.oid) FROM pg_trigger g
     WHERE g.tgrelid = t.oid)), '|' ORDER BY t.place)
FROM (VALUES (1, to_regclass($1)::oid), (2, to_regclass($2)::oid)) AS t (place, oid)
LEFT JOIN pg_class c ON c.oid = t.oid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace";

/// What mappings came down to before.
#[derive(Debug)]
pub(super) struct Kept<T>(Mutex<Vec<One<T>>>);

/// Shapes made before.
pub(super) type Shapes = Kept<Shape>;

#[derive(Debug)]
struct One<T> {
    version: String,
    mapping: Mapping,
    made: Arc<T>,
}

/// The new table of a mapping as SQL text; none where the new side is elsewhere, and its name may be anything.
pub(super) fn into_sql(mapping: &Mapping) -> Option<String> {
    mapping.is_pushdown().then(|| name_sql(&mapping.into.table))
}

/// What stands for the catalogue's rows of a mapping's two tables now; of one whose new side is elsewhere, of its old one.
pub(super) async fn version(conn: &mut PgConnection, mapping: &Mapping) -> Result<String, Error> {
    sqlx::query(VERSION)
        .bind(name_sql(&mapping.from.table))
        .bind(into_sql(mapping))
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("look for changes of the catalogue"))
}

/// The shape of a mapping on its tables as they are now. Not in a transaction that has changed them itself, whose marks in
/// the catalogue would go if it were rolled back.
pub(super) async fn shape(
    shapes: &Shapes,
    conn: &mut PgConnection,
    mapping: &Mapping,
) -> Result<Arc<Shape>, Error> {
    let version = version(conn, mapping).await?;
    shape_at(shapes, conn, mapping, version).await
}

/// As [`shape()`], where [`VERSION`] was asked for before.
pub(super) async fn shape_at(
    shapes: &Shapes,
    conn: &mut PgConnection,
    mapping: &Mapping,
    version: String,
) -> Result<Arc<Shape>, Error> {
    if let Some(shape) = shapes.find(&version, mapping) {
        return Ok(shape);
    }
    Ok(shapes.keep(version, mapping, shape::shape(conn, mapping).await?))
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Kept<T> {
    /// What was made of a mapping on tables of a version.
    pub(super) fn find(&self, version: &str, mapping: &Mapping) -> Option<Arc<T>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .find(|one| one.version == version && one.mapping == *mapping)
            .map(|one| Arc::clone(&one.made))
    }

    /// Keeps what was made of one, in the place of what was made of it before.
    pub(super) fn keep(&self, version: String, mapping: &Mapping, made: T) -> Arc<T> {
        let made = Arc::new(made);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| one.mapping != *mapping);
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push(One { version, mapping: mapping.clone(), made: Arc::clone(&made) });
        made
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture::{Database, mapping};
    use super::*;

    #[tokio::test]
    async fn a_shape_is_kept_until_one_of_its_tables_changes() {
        let Some(database) = Database::with(
            "CREATE SCHEMA more; CREATE TABLE o (id int PRIMARY KEY, v varchar(3)); CREATE TABLE p (LIKE o INCLUDING ALL)",
        )
        .await
        else {
            return;
        };
        let (shapes, mut client) = (Shapes::default(), database.client().await);
        let pairs = mapping(("o", &["id"]), ("p", &["id"]));
        let first = shape(&shapes, &mut client, &pairs).await.unwrap();
        for (statement, is_kept) in [
            ("INSERT INTO o VALUES (1, 'x'); ANALYZE o", true),
            ("VACUUM o", true),
            ("ALTER TABLE p ADD COLUMN w text", false),
            ("ALTER TABLE o ALTER COLUMN v TYPE varchar(5)", false),
            ("CREATE INDEX ON o (v)", false),
            ("ALTER TABLE p RENAME COLUMN w TO x", false),
            (
                "CREATE TABLE more.p (LIKE p INCLUDING ALL); DROP TABLE p; ALTER TABLE more.p SET SCHEMA public",
                false,
            ),
            ("ALTER TABLE p RENAME TO q; CREATE TABLE p (LIKE q INCLUDING ALL)", false),
        ] {
            let before = shape(&shapes, &mut client, &pairs).await.unwrap();
            database.run(statement).await;
            let after = shape(&shapes, &mut client, &pairs).await.unwrap();
            assert_eq!(Arc::ptr_eq(&before, &after), is_kept, "{statement}");
        }
        let last = shape(&shapes, &mut client, &pairs).await.unwrap();
        assert!(last.new.oid != first.new.oid && last.new.columns.len() == 3);
    }
}

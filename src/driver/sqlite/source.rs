//! Where chunks begin and end: [`Source`] for SQLite.
//!
//! Invariants:
//! - Bounds come from the source's key alone: neither the mapping's `where` nor rows that were copied shift them.
//! - The upper end is frozen when the copy begins; rows that clients add behind it reach the copy through the sync.
//! - A bound is found by an index, from the last bound on: its cost does not grow with what was copied before.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::quote;
use super::error::{failed, refused};
use super::ledger::unsigned;
use super::shape::{KeyPair, Shape};
use super::shape_sql::Which;
use super::{Sqlite, cells, chunks, ledger, prepared};
use crate::bounds::probe::SQLITE_COUNTED_ROWS_MAX;
use crate::copy::chunk::{Chunk, Key};
use crate::driver::{CopyState, Error, Fence, Source, TableSize, TxKind, Window, Work};
use crate::run::Mapping;

#[async_trait]
impl Source for Sqlite {
    async fn estimate(&self, mapping: &Mapping) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let rows = estimate(reader.conn(), mapping).await?;
        reader.release().await;
        Ok(rows)
    }

    async fn plan_chunks(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        size: Window,
    ) -> Result<CopyState, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Plan).await?;
        let planned = match prepared::shape(&self.shapes, tx.conn(), mapping).await {
            Ok(shape) => plan(tx.conn(), fence, work, &shape, size).await,
            Err(error) => Err(error),
        };
        match planned {
            Ok(state) => {
                tx.commit().await?;
                Ok(state)
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }
}

async fn plan(
    conn: &mut SqliteConnection,
    fence: &Fence,
    work: &Work,
    shape: &Shape,
    size: Window,
) -> Result<CopyState, Error> {
    let mut copy = match chunks::load(conn, fence.run(), &work.step).await? {
        Some(copy) => copy,
        None => chunks::Copy::up_to(last_key(conn, shape).await?),
    };
    chunks::fold(conn, fence.run(), &work.step, &mut copy).await?;
    for _ in 0..size.count {
        let Some(rest) = copy.rest() else { break };
        let found = nth_key(conn, shape, &rest, size.rows).await?;
        chunks::plan(conn, fence, &work.step, &copy.next(rest, found)).await?;
    }
    chunks::save(conn, fence.run(), &work.step, &copy).await?;
    ledger::keep_head(conn, fence.run(), &work.head).await?;
    chunks::state(conn, fence.run(), &work.step).await
}

/// The largest key; `None` when there is no row.
async fn last_key(conn: &mut SqliteConnection, shape: &Shape) -> Result<Option<Key>, Error> {
    let descending = |pair: &KeyPair| {
        let collate = pair.collation.as_ref().map(|name| format!(" COLLATE {}", quote(name)));
        format!("{}{} DESC", quote(&pair.old), collate.unwrap_or_default())
    };
    let order: Vec<String> = shape.keys.iter().map(descending).collect();
    let sql = format!(
        "SELECT {} FROM {} ORDER BY {} LIMIT 1",
        shape.key(Which::Old).join(", "),
        shape.table(Which::Old),
        order.join(", ")
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(conn).await;
    let row = row.map_err(|error| refused(&error))?;
    row.map(|row| cells::key(&row, shape.keys.len())).transpose()
}

/// The key of the `rows`-th row of a range of the old side, counted from 1; `None` when it has fewer.
pub(super) async fn nth_key(
    conn: &mut SqliteConnection,
    shape: &Shape,
    range: &Chunk,
    rows: u32,
) -> Result<Option<Key>, Error> {
    let query = sqlx::query(AssertSqlSafe(nth_key_sql(shape, range)));
    let query = cells::bind_chunk(query, range).bind(i64::from(rows.max(1)) - 1);
    let row = query.fetch_optional(conn).await.map_err(|error| refused(&error))?;
    row.map(|row| cells::key(&row, shape.keys.len())).transpose()
}

/// OFFSET counts entries of the index inside one chunk; it never pages through what is behind.
fn nth_key_sql(shape: &Shape, range: &Chunk) -> String {
    format!(
        "SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT 1 OFFSET ?{}",
        shape.key(Which::Old).join(", "),
        shape.table(Which::Old),
        shape.in_chunk(Which::Old, range),
        shape.key_order(Which::Old),
        cells::places(range) + 1
    )
}

/// How many rows the old side has in a range, whether the mapping's filter lets them pass or not.
pub(super) async fn size(
    conn: &mut SqliteConnection,
    shape: &Shape,
    range: &Chunk,
) -> Result<u64, Error> {
    let (table, rows) = (shape.table(Which::Old), shape.in_chunk(Which::Old, range));
    let sql = format!("SELECT count(*) FROM {table} WHERE {rows}");
    let row = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), range).fetch_one(conn).await;
    let row = row.map_err(|error| refused(&error))?;
    unsigned(row.try_get(0).map_err(failed("count rows"))?)
}

/// How many rows there are: exactly for a table of ordinary size, from statistics or the span of its ids beyond that.
async fn estimate(conn: &mut SqliteConnection, mapping: &Mapping) -> Result<u64, Error> {
    let table = quote(&mapping.from.table);
    let filter = mapping.filter.as_deref().unwrap_or("1");
    let sql = format!(
        "SELECT count(*), coalesce(sum(is_copied), 0)
         FROM (SELECT ((\n{filter}\n) IS TRUE) AS is_copied FROM {table} LIMIT {SQLITE_COUNTED_ROWS_MAX})"
    );
    let (counted, copied) = pair(conn, sql).await?;
    if counted < SQLITE_COUNTED_ROWS_MAX {
        return Ok(copied);
    }
    let all = size_of(conn, &mapping.from.table).await?.max(counted);
    let share = u128::from(all) * u128::from(copied) / u128::from(counted);
    Ok(u64::try_from(share).unwrap_or(u64::MAX))
}

/// How large a table is: counted, where that is quick. How many bytes it takes only a walk over all of its pages would tell.
pub(super) async fn table_size(
    conn: &mut SqliteConnection,
    table: &str,
) -> Result<TableSize, Error> {
    let (rows, _) = rows_of(conn, table).await?;
    Ok(TableSize { rows: Some(rows), bytes: None })
}

/// How many rows a table has, and whether they were counted.
pub(super) async fn rows_of(
    conn: &mut SqliteConnection,
    table: &str,
) -> Result<(u64, bool), Error> {
    let sql = format!(
        "SELECT count(*), 0 FROM (SELECT 1 FROM {} LIMIT {SQLITE_COUNTED_ROWS_MAX})",
        quote(table)
    );
    let (counted, _) = pair(conn, sql).await?;
    if counted < SQLITE_COUNTED_ROWS_MAX {
        return Ok((counted, true));
    }
    Ok((size_of(conn, table).await?.max(counted), false))
}

/// The size of a large table: what ANALYZE noted, else the span of its rowids, else nothing is known.
async fn size_of(conn: &mut SqliteConnection, table: &str) -> Result<u64, Error> {
    if ledger::has_table(conn, "sqlite_stat1").await? {
        let row = sqlx::query(
            "SELECT CAST(stat AS INTEGER) FROM sqlite_stat1 WHERE tbl = ?1 COLLATE NOCASE AND stat IS NOT NULL LIMIT 1",
        )
        .bind(table)
        .fetch_optional(&mut *conn)
        .await
        .map_err(failed("read the statistics"))?;
        if let Some(row) = row {
            return unsigned(row.try_get(0).map_err(failed("read the statistics"))?);
        }
    }
    let has_rowid = super::catalogue::table(conn, table).await?.is_some_and(|t| t.has_rowid());
    if !has_rowid {
        return Ok(0);
    }
    let sql =
        format!("SELECT coalesce(max(rowid), 0), coalesce(min(rowid), 0) FROM {}", quote(table));
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await.map_err(failed("estimate"))?;
    let last: i64 = row.try_get(0).map_err(failed("estimate"))?;
    let first: i64 = row.try_get(1).map_err(failed("estimate"))?;
    Ok(last.abs_diff(first).saturating_add(1))
}

async fn pair(conn: &mut SqliteConnection, sql: String) -> Result<(u64, u64), Error> {
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
    let row = row.map_err(|error| refused(&error))?;
    let get = |at: usize| row.try_get(at).map_err(failed("count rows"));
    Ok((unsigned(get(0)?)?, unsigned(get(1)?)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture::{Database, entered, mapping, work};
    use super::*;
    use crate::copy::chunk::{Cell, Walk};
    use crate::run::Way;

    const ROWS: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000)";

    /// Four tables of 1,000 rows, each with another kind of key.
    async fn tables() -> Database {
        Database::with(&format!(
            "CREATE TABLE plain (id INTEGER PRIMARY KEY, n);
             CREATE TABLE pair (a INT NOT NULL, b TEXT NOT NULL, n, PRIMARY KEY (a, b));
             CREATE TABLE folded (k TEXT COLLATE NOCASE NOT NULL UNIQUE, n);
             CREATE TABLE bare (k TEXT NOT NULL, j INT NOT NULL, n, PRIMARY KEY (k, j)) WITHOUT ROWID;
             CREATE TABLE plain_v2 (id INTEGER PRIMARY KEY, n);
             CREATE TABLE pair_v2 (a INT NOT NULL, b TEXT NOT NULL, n, PRIMARY KEY (a, b));
             CREATE TABLE folded_v2 (k TEXT COLLATE NOCASE NOT NULL UNIQUE, n);
             CREATE TABLE bare_v2 (k TEXT NOT NULL, j INT NOT NULL, n, PRIMARY KEY (k, j)) WITHOUT ROWID;
             INSERT INTO plain {ROWS} SELECT x, x FROM c;
             INSERT INTO pair {ROWS} SELECT x / 10, 'b' || x, x FROM c;
             INSERT INTO folded {ROWS} SELECT CASE x % 2 WHEN 0 THEN 'K' ELSE 'k' END || x, x FROM c;
             INSERT INTO bare {ROWS} SELECT 'k' || (x % 7), x, x FROM c;"
        ))
        .await
    }

    /// Each table with its key, mapped to a copy of itself.
    fn mappings() -> Vec<Mapping> {
        [("plain", &["id"][..]), ("pair", &["a", "b"]), ("folded", &["k"]), ("bare", &["k", "j"])]
            .into_iter()
            .map(|(name, key)| mapping((name, key), (&format!("{name}_v2"), key)))
            .collect()
    }

    #[tokio::test]
    async fn bounds_are_found_by_an_index_whatever_the_key() {
        let database = tables().await;
        let sqlite = database.open().await;
        let mut client = database.client().await;
        for mapping in mappings() {
            let shape = prepared::shape(&sqlite.shapes, &mut client, &mapping).await.unwrap();
            let bound = Key(vec![Cell::Integer(1); shape.keys.len()]);
            for lo in [None, Some(bound.clone())] {
                let range = Chunk { lo, hi: Some(bound.clone()) };
                let sql = format!("EXPLAIN QUERY PLAN {}", nth_key_sql(&shape, &range));
                let query = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), &range).bind(1_i64);
                let rows = query.fetch_all(&mut client).await.unwrap();
                let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
                let plan = plan.join("; ");
                let name = &mapping.from.table;
                assert!(plan.contains("SEARCH") && !plan.contains("TEMP B-TREE"), "{name}: {plan}");
                // A composite key searches by the whole row value, not by its first column alone.
                let key = &mapping.from.key;
                let whole = format!("({})", key.join(","));
                assert!(key.len() == 1 || plan.contains(&whole), "{name}: {plan}");
            }
        }
    }

    #[tokio::test]
    async fn chunks_cover_every_row_once_and_the_end_is_frozen() {
        let database = tables().await;
        let sqlite = database.open().await;
        let (_, fence) = entered(&sqlite, 1).await;
        for mapping in mappings() {
            let name = mapping.from.table.as_str();
            let step = work(name, Way::Forward);
            let size = Window { rows: 300, count: 2, is_fixed: true };
            let state = sqlite.plan_chunks(&fence, &step, &mapping, size).await.unwrap();
            assert_eq!((state.open.len(), state.watermark), (2, 0));
            assert!(matches!(state.walk, Walk::At { seq: 2, .. }));
            // Rows behind the end are none of the copy's.
            let beyond = match name {
                "plain" => "INSERT INTO plain VALUES (5000, 0)",
                "pair" => "INSERT INTO pair VALUES (5000, 'z', 0)",
                "folded" => "INSERT INTO folded VALUES ('Z1', 0)",
                _ => "INSERT INTO bare VALUES ('z', 1, 0)",
            };
            database.run(beyond).await;
            let size = Window { rows: 250, count: 10, is_fixed: true };
            let state = sqlite.plan_chunks(&fence, &step, &mapping, size).await.unwrap();
            assert_eq!(state.walk, Walk::Ended { seq: 4 }, "{name}");
            let mut client = database.client().await;
            let shape = prepared::shape(&sqlite.shapes, &mut client, &mapping).await.unwrap();
            let mut counts = Vec::new();
            let mut lo = None;
            for planned in &state.open {
                assert_eq!(planned.chunk.lo, lo);
                lo.clone_from(&planned.chunk.hi);
                counts.push(super::size(&mut client, &shape, &planned.chunk).await.unwrap());
            }
            assert_eq!(counts, [300, 300, 250, 150], "{name}");
            drop(client);
            let again = sqlite.plan_chunks(&fence, &step, &mapping, size).await.unwrap();
            assert_eq!(again, state);
        }
    }

    #[tokio::test]
    async fn an_empty_source_ends_at_once_and_an_even_one_without_an_empty_chunk() {
        let database = Database::with(
            "CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE u (id INTEGER PRIMARY KEY)",
        )
        .await;
        let sqlite = database.open().await;
        let (_, fence) = entered(&sqlite, 1).await;
        let mapping = mapping(("t", &["id"]), ("u", &["id"]));
        let size = Window { rows: 2, count: 10, is_fixed: true };
        let empty =
            sqlite.plan_chunks(&fence, &work("one", Way::Forward), &mapping, size).await.unwrap();
        assert_eq!((empty.walk, empty.open.len()), (Walk::Ended { seq: 0 }, 0));
        database.run("INSERT INTO t VALUES (1), (2), (3), (4)").await;
        let even =
            sqlite.plan_chunks(&fence, &work("two", Way::Forward), &mapping, size).await.unwrap();
        assert_eq!((even.walk, even.open.len()), (Walk::Ended { seq: 2 }, 2));
    }

    #[tokio::test]
    async fn an_estimate_respects_the_filter() {
        let database = tables().await;
        let sqlite = database.open().await;
        let mut mapping = mapping(("plain", &["id"]), ("plain", &["id"]));
        assert_eq!(sqlite.estimate(&mapping).await.unwrap(), 1000);
        mapping.filter = Some("n % 10 = 0 -- a tenth".into());
        assert_eq!(sqlite.estimate(&mapping).await.unwrap(), 100);
    }
}

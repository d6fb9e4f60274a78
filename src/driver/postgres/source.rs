//! Where chunks begin and end: [`Source`] for PostgreSQL.
//!
//! Invariants:
//! - Bounds come from the source's key alone: neither the mapping's `where` nor rows that were copied shift them.
//! - The upper end is frozen when the copy begins; rows that clients add behind it reach the copy through the sync.
//! - A bound is found by an index, from the last bound on: its cost does not grow with what was copied before. All bounds of a
//!   window are found by one statement.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{Column, name_sql, quote};
use super::chunks::{Book, Copy};
use super::connection::Tx;
use super::error::{failed, refused};
use super::ledger::unsigned;
use super::shape::{KeyPair, Shape, reads};
use super::shape_sql::{BY_INDEX, Pick, Which};
use super::{Postgres, cells, ledger, prepared};
use crate::bounds::postgres::{CHUNK_BYTES_MAX, WEIGHED_ROWS};
use crate::bounds::probe::POSTGRES_COUNTED_ROWS_MAX;
use crate::copy::chunk::{Chunk, Key, Planned};
use crate::driver::{CopyState, Error, Fence, Source, TxKind, Window, Work};
use crate::run::Mapping;

#[async_trait]
impl Source for Postgres {
    async fn estimate(&self, mapping: &Mapping) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let rows = estimate(reader.conn()?, &mapping.from.table, mapping.filter.as_deref()).await?;
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
        match self.plan(&mut tx, fence, work, (mapping, size)).await {
            Ok(state) => {
                tx.commit().await?;
                Ok(state)
            }
            Err(error) => Err(tx.give_up(error).await),
        }
    }

    async fn forget_chunks(&self, fence: &Fence, work: &Work, after: u64) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Plan).await?;
        let forgotten = async {
            let mut book = Book::of_tx(&mut tx, (fence.run(), &work.step))?;
            match book.load().await? {
                Some(mut copy) => book.forget(&mut copy, after).await,
                None => Ok(()),
            }
        }
        .await;
        match forgotten {
            Ok(()) => tx.commit().await.map(|_| ()),
            Err(error) => Err(tx.give_up(error).await),
        }
    }
}

impl Postgres {
    async fn plan(
        &self,
        tx: &mut Tx<'_>,
        fence: &Fence,
        work: &Work,
        (mapping, size): (&Mapping, Window),
    ) -> Result<CopyState, Error> {
        let known = Book::of_tx(tx, (fence.run(), &work.step))?.load().await?;
        let shape = if is_more(known.as_ref()) {
            Some(prepared::shape(&self.shapes, tx.conn()?, mapping).await?)
        } else {
            None
        };
        go_on(tx, (fence, work), known, (shape.as_deref(), size)).await
    }
}

/// Whether a copy has anything left to plan.
fn is_more(known: Option<&Copy>) -> bool {
    known.is_none_or(|copy| !copy.ended)
}

/// Plans the next chunks of what is known of a copy; none where there is no shape to plan them by.
async fn go_on(
    tx: &mut Tx<'_>,
    (fence, work): (&Fence, &Work),
    known: Option<Copy>,
    (shape, size): (Option<&Shape>, Window),
) -> Result<CopyState, Error> {
    let mut copy = known.unwrap_or_default();
    let mut planned = Vec::new();
    if let Some(shape) = shape {
        by_index(tx.conn()?).await?;
        if copy.frozen.is_none() {
            copy.frozen = last_key(tx.conn()?, shape).await?;
        }
        planned = next_chunks(tx.conn()?, shape, &mut copy, size).await?;
    }
    let mut book = Book::of_tx(tx, (fence.run(), &work.step))?;
    book.fold(&mut copy).await?;
    if !planned.is_empty() {
        book.plan(fence, &planned).await?;
    }
    book.save(&copy).await?;
    let state = book.state_of(copy).await?;
    ledger::keep_head(tx, fence.run(), &work.head).await?;
    Ok(state)
}

/// The keys that end the next chunks of a range of the old side; fewer where it has fewer.
pub(super) async fn ends(
    conn: &mut PgConnection,
    shape: &Shape,
    range: &Chunk,
    size: Window,
) -> Result<Vec<Key>, Error> {
    by_index(conn).await?;
    let limit = Limit { window: size, bytes: weight(conn, shape, range).await? };
    bounds(conn, shape, range, &limit).await
}

/// Has the rest of a transaction find rows by the key's index.
pub(super) async fn by_index(conn: &mut PgConnection) -> Result<(), Error> {
    // A setting is set anyway: here one that is so already.
    sqlx::query(BY_INDEX)
        .bind("jit")
        .bind("off")
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(failed("prepare to find bounds"))
}

/// The next chunks of a window, and the copy moved on behind them.
async fn next_chunks(
    conn: &mut PgConnection,
    shape: &Shape,
    copy: &mut Copy,
    size: Window,
) -> Result<Vec<Planned>, Error> {
    let Some(end) = copy.frozen.clone() else {
        copy.ended = true;
        return Ok(Vec::new());
    };
    let rest = Chunk { lo: copy.hi.clone(), hi: Some(end.clone()) };
    let limit = Limit { window: size, bytes: weight(conn, shape, &rest).await? };
    let mut bounds = bounds(conn, shape, &rest, &limit).await?;
    if bounds.len() < size.count as usize {
        // Fewer rows than asked for are left, or just as many: the last chunk ends where the copy does.
        if bounds.last() != Some(&end) {
            bounds.push(end.clone());
        }
    }
    copy.ended = bounds.last() == Some(&end);
    let mut planned = Vec::with_capacity(bounds.len());
    for hi in bounds {
        copy.seq += 1;
        let chunk = Chunk { lo: copy.hi.replace(hi.clone()), hi: Some(hi) };
        planned.push(Planned { seq: copy.seq, chunk });
    }
    Ok(planned)
}

/// The largest key; `None` when there is no row.
pub(super) async fn last_key(conn: &mut PgConnection, shape: &Shape) -> Result<Option<Key>, Error> {
    let keys = shape.key_names(Which::Old);
    let order: Vec<String> = keys.iter().map(|name| format!("{name} DESC")).collect();
    let sql = format!(
        "SELECT {} FROM {} ORDER BY {} LIMIT 1",
        as_text(&keys),
        shape.old.sql(),
        order.join(", ")
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(conn).await;
    row.map_err(|error| refused(&error))?.map(|row| cells::key(&row, shape)).transpose()
}

/// Columns as text, in a list.
pub(super) fn as_text(columns: &[String]) -> String {
    columns.iter().map(|name| format!("{name}::text")).collect::<Vec<_>>().join(", ")
}

/// The keys that end the next chunks of a range of the old side; fewer than asked for when it has fewer.
///
/// A key that looks the same as text is the same key, but for a frozen end whose row was given another spelling since: then
/// one more chunk, which may be empty, ends the copy.
async fn bounds(
    conn: &mut PgConnection,
    shape: &Shape,
    range: &Chunk,
    limit: &Limit,
) -> Result<Vec<Key>, Error> {
    let sql = bounds_sql(shape, range, limit);
    let query = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), range);
    let rows = query.fetch_all(conn).await.map_err(|error| refused(&error))?;
    rows.iter().map(|row| cells::key(row, shape)).collect()
}

/// What a window is held to.
struct Limit {
    window: Window,
    bytes: Weight,
}

/// How it is known that a chunk is not larger than [`CHUNK_BYTES_MAX`].
enum Weight {
    /// A row takes about so many bytes, and none takes much: large values would be stored beside the table, and there are none.
    Even(u64),
    /// Values are stored beside the table. Rows are weighed one by one, by this expression, before a chunk is planned: one that
    /// follows small rows may be a thousand times as large, and no chunk before it says so.
    Rows(String),
}

impl Weight {
    /// The rows of a chunk whose rows are even.
    fn rows(&self, asked: u32) -> u32 {
        match self {
            Self::Even(bytes) => {
                let rows = CHUNK_BYTES_MAX / (*bytes).max(1);
                asked.min(u32::try_from(rows).unwrap_or(u32::MAX)).max(1)
            }
            Self::Rows(_) => asked.max(1),
        }
    }
}

/// Columns of these types are never stored beside the table.
const SMALL_TYPES: [&str; 11] = [
    "smallint",
    "integer",
    "bigint",
    "oid",
    "boolean",
    "real",
    "double precision",
    "date",
    "timestamp without time zone",
    "timestamp with time zone",
    "uuid",
];

/// How the rows of a range weigh on a chunk: those of their columns that the mapping reads.
async fn weight(conn: &mut PgConnection, shape: &Shape, range: &Chunk) -> Result<Weight, Error> {
    let (table, pick) = (shape.old.sql(), Pick::Chunk(range));
    let is_read = |column: &&Column| {
        let mut values = shape.writes.iter().map(|write| &write.value).chain(&shape.filter);
        values.any(|value| !reads(value, [column.name.as_str()]).is_empty())
    };
    let is_large = |column: &&Column| !SMALL_TYPES.contains(&column.type_sql.as_str());
    let read = shape.old.columns.iter().filter(is_large).filter(is_read);
    let sizes = read.map(|c| format!("coalesce(pg_column_size({table}.{}), 0)", quote(&c.name)));
    let size = sizes.chain(["32".to_owned()]).collect::<Vec<_>>().join(" + ");
    let sql = format!(
        "SELECT (SELECT coalesce(sum(pg_relation_size(reltoastrelid)), 0) > 0 FROM pg_class WHERE reltoastrelid <> 0
                 AND oid IN (SELECT relid FROM pg_partition_tree({oid}::regclass) UNION ALL SELECT {oid})),
                (SELECT coalesce(avg(b), 0)::bigint FROM (SELECT {size} AS b FROM {table} WHERE {rows}
                 ORDER BY {order} LIMIT {WEIGHED_ROWS}) AS phasegate_rows)",
        oid = shape.old.oid,
        rows = pick.sql(shape, Which::Old),
        order = shape.key_names(Which::Old).join(", ")
    );
    let query = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), range);
    let row = query.fetch_one(conn).await.map_err(|error| refused(&error))?;
    let (is_beside, bytes) = row
        .try_get::<bool, _>(0)
        .and_then(|is_beside| Ok((is_beside, row.try_get::<i64, _>(1)?)))
        .map_err(failed("weigh rows"))?;
    Ok(if is_beside { Weight::Rows(size) } else { Weight::Even(unsigned(bytes)?) })
}

/// OFFSET counts entries of the index inside one chunk; it never pages through what is behind. Where rows are weighed, the
/// first one that fills the chunk ends it, and the server reads no further.
fn bounds_sql(shape: &Shape, range: &Chunk, limit: &Limit) -> String {
    let size = limit.window;
    let (table, keys) = (shape.old.sql(), shape.key_names(Which::Old));
    let places = |letter: &str| -> Vec<String> {
        (0..keys.len()).map(|at| format!("{letter}{at}")).collect()
    };
    let named: Vec<String> =
        keys.iter().zip(places("b")).map(|(name, b)| format!("{name} AS {b}")).collect();
    let before: Vec<String> = places("b").iter().map(|b| format!("phasegate_w.{b}")).collect();
    let order = keys.join(", ");
    let first = Pick::Chunk(range).sql(shape, Which::Old);
    // Behind the last bound, and before the end of the range, whose values come behind those of its beginning.
    let behind = format!("{} > {}", row(&keys), row(&before));
    let width = keys.len();
    let from = if range.lo.is_some() { width } else { 0 };
    let cast =
        |(at, pair): (usize, &KeyPair)| format!("${}::text::{}", from + at + 1, pair.bound_sql());
    let end: Vec<String> = shape.keys.iter().enumerate().map(cast).collect();
    let until = if range.hi.is_some() {
        format!(" AND {} <= {}", row(&keys), row(&end))
    } else {
        String::new()
    };
    let found: Vec<String> = places("b").iter().map(|b| format!("phasegate_n.{b}")).collect();
    let (named, bare) = (named.join(", "), places("b").join(", "));
    let rows = limit.bytes.rows(size.rows);
    let end_of = |condition: &str| match &limit.bytes {
        Weight::Even(_) => format!(
            "SELECT {named} FROM {table} WHERE {condition} ORDER BY {order} LIMIT 1 OFFSET {}",
            rows - 1
        ),
        Weight::Rows(bytes) => format!(
            "SELECT {bare} FROM (SELECT {named}, row_number() OVER phasegate_o AS phasegate_at, \
             sum({bytes}) OVER phasegate_o AS phasegate_bytes FROM {table} WHERE {condition} \
             WINDOW phasegate_o AS (ORDER BY {order} ROWS UNBOUNDED PRECEDING)) AS phasegate_r \
             WHERE phasegate_at = {rows} OR phasegate_bytes >= {CHUNK_BYTES_MAX} ORDER BY {bare} LIMIT 1"
        ),
    };
    format!(
        "WITH RECURSIVE phasegate_w AS (\
         (SELECT {bare}, 1 AS at FROM ({}) AS phasegate_f) UNION ALL \
         SELECT {found}, phasegate_w.at + 1 FROM phasegate_w, LATERAL ({}) AS phasegate_n WHERE phasegate_w.at < {count}) \
         SELECT {texts} FROM phasegate_w ORDER BY at",
        end_of(&first),
        end_of(&format!("{behind}{until}")),
        found = found.join(", "),
        count = size.count.max(1),
        texts = as_text(&places("b"))
    )
}

fn row(columns: &[String]) -> String {
    if columns.len() == 1 { columns[0].clone() } else { format!("({})", columns.join(", ")) }
}

/// The key of the `rows`-th row of a range of the old side, counted from 1; `None` when it has fewer.
pub(super) async fn nth_key(
    conn: &mut PgConnection,
    shape: &Shape,
    range: &Chunk,
    rows: u32,
) -> Result<Option<Key>, Error> {
    let limit = Limit { window: Window { rows, count: 1, is_fixed: true }, bytes: Weight::Even(1) };
    Ok(bounds(conn, shape, range, &limit).await?.pop())
}

/// How many rows the old side has in a range, whether the mapping's filter lets them pass or not.
pub(super) async fn size(
    conn: &mut PgConnection,
    shape: &Shape,
    range: &Chunk,
) -> Result<u64, Error> {
    let rows = Pick::Chunk(range).sql(shape, Which::Old);
    let sql = format!("SELECT count(*) FROM {} WHERE {rows}", shape.old.sql());
    let row = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), range).fetch_one(conn).await;
    let row = row.map_err(|error| refused(&error))?;
    unsigned(row.try_get(0).map_err(failed("count rows"))?)
}

/// How many rows a table has that pass a filter: exactly while they are few, beyond that as the planner estimates them, which
/// takes the table's size of now, its statistics and its partitions into account.
pub(super) async fn estimate(
    conn: &mut PgConnection,
    table: &str,
    filter: Option<&str>,
) -> Result<u64, Error> {
    let table = name_sql(table);
    let filter = filter.unwrap_or("true");
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE is_copied)
         FROM (SELECT ((\n{filter}\n) IS TRUE) AS is_copied FROM {table} LIMIT {POSTGRES_COUNTED_ROWS_MAX}) AS phasegate_rows"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut *conn).await;
    let row = row.map_err(|error| refused(&error))?;
    let count = |at: usize| unsigned(row.try_get(at).map_err(failed("count rows"))?);
    let (counted, copied) = (count(0)?, count(1)?);
    if counted < POSTGRES_COUNTED_ROWS_MAX {
        return Ok(copied);
    }
    let sql = format!("EXPLAIN (FORMAT JSON) SELECT 1 FROM {table} WHERE (\n{filter}\n)");
    let row = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_one(conn).await;
    let row = row.map_err(|error| refused(&error))?;
    // JSON is its text, whatever its type's name is.
    let plan: String = row.try_get_unchecked(0).map_err(failed("read the planner's estimate"))?;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap_or_default();
    let rows = plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_f64);
    // A count of rows as a float, which is exact far beyond any table's size.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok((rows.unwrap_or(0.0).max(0.0) as u64).max(copied))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::copy_tests::{KEYS, mappings, tables};
    use super::super::fixture::{Database, entered, mapping, work};
    use super::super::shape::shape;
    use super::*;
    use crate::copy::chunk::{Cell, Walk};
    use crate::run::Way;

    async fn explain(database: &Database, sql: &str, range: &Chunk, mode: &str) -> String {
        let mut client = database.client().await;
        sqlx::query(BY_INDEX).bind("jit").bind("off").execute(&mut client).await.unwrap();
        // The first setting was local to its own statement.
        for setting in ["enable_seqscan = off", "enable_bitmapscan = off"] {
            let set = format!("SET {setting}");
            sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut client).await.unwrap();
        }
        let mode = format!("SET plan_cache_mode = {mode}");
        sqlx::raw_sql(AssertSqlSafe(mode)).execute(&mut client).await.unwrap();
        let sql = format!("EXPLAIN {sql}");
        let query = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), range);
        let rows = query.fetch_all(&mut client).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
    }

    #[tokio::test]
    async fn bounds_are_found_by_an_index_whatever_the_key() {
        let Some(database) = tables().await else { return };
        let postgres = database.open().await;
        let (fence, mut client) = (entered(&postgres, 1).await.remove(1), database.client().await);
        for mapping in mappings() {
            let name = mapping.from.table.as_str();
            let step = work(name, Way::Forward);
            let size = Window { rows: 400, count: 1, is_fixed: true };
            let state = postgres.plan_chunks(&fence, &step, &mapping, size).await.unwrap();
            let shape = shape(&mut client, &mapping).await.unwrap();
            let hi = state.open[0].chunk.hi.clone();
            for lo in [None, hi.clone()] {
                let range = Chunk { lo, hi: hi.clone() };
                let window = Window { rows: 100, count: 4, is_fixed: true };
                let weights = [(Weight::Even(150), "Index Only Scan"), {
                    (Weight::Rows("pg_column_size(n)".into()), "Index Scan")
                }];
                let tried = weights.into_iter().flat_map(|(bytes, scan)| {
                    let sql = bounds_sql(&shape, &range, &Limit { window, bytes });
                    let modes = ["force_generic_plan", "force_custom_plan"];
                    modes.map(|mode| (sql.clone(), scan, mode))
                });
                for (sql, scan, mode) in tried {
                    let plan = explain(&database, &sql, &range, mode).await;
                    let by_index = plan.matches(scan).count();
                    assert_eq!(by_index, 2, "{name}: {plan}");
                    assert!(
                        !plan.contains("Seq Scan on") && plan.matches("Sort").count() <= 2,
                        "{name}: {plan}"
                    );
                    // A composite key is found by the whole row value, not by its first column alone.
                    assert_eq!(plan.matches("Index Cond").count(), 2, "{name}: {plan}");
                    assert!(!plan.contains("Filter: (ROW"), "{name}: {plan}");
                }
            }
        }
    }

    #[tokio::test]
    async fn chunks_cover_every_row_once_and_the_end_is_frozen() {
        let Some(database) = tables().await else { return };
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let mut client = database.client().await;
        for (mapping, (_, _, _, values)) in mappings().iter().zip(KEYS) {
            let name = mapping.from.table.as_str();
            let step = work(name, Way::Forward);
            let size = Window { rows: 300, count: 2, is_fixed: true };
            let state = postgres.plan_chunks(&fence, &step, mapping, size).await.unwrap();
            assert_eq!((state.open.len(), state.watermark), (2, 0));
            assert!(matches!(state.walk, Walk::At { seq: 2, .. }));
            // Rows behind the end are none of the copy's; others may come between two windows.
            let more = format!(
                "INSERT INTO {name} SELECT {values}, x FROM generate_series(1001, 1100) AS x"
            );
            database.run(&more).await;
            let shape = shape(&mut client, mapping).await.unwrap();
            let frozen = state_frozen(&database, name).await;
            let end = Chunk { lo: None, hi: Some(frozen) };
            let within = super::size(&mut client, &shape, &end).await.unwrap();
            let size = Window { rows: 250, count: 10, is_fixed: true };
            let state = postgres.plan_chunks(&fence, &step, mapping, size).await.unwrap();
            assert!(matches!(state.walk, Walk::Ended { .. }), "{name}");
            let (mut sum, mut lo) = (0, None);
            for planned in &state.open {
                assert_eq!(planned.chunk.lo, lo);
                lo.clone_from(&planned.chunk.hi);
                let rows = super::size(&mut client, &shape, &planned.chunk).await.unwrap();
                assert!((1..=400).contains(&rows), "{name}: {rows}");
                sum += rows;
            }
            assert_eq!(sum, within, "{name}");
            let again = postgres.plan_chunks(&fence, &step, mapping, size).await.unwrap();
            assert_eq!(again, state);
        }
    }

    #[tokio::test]
    async fn no_chunk_takes_more_bytes_than_it_may_but_for_a_single_row() {
        let setup = "CREATE TABLE t (id int PRIMARY KEY, unread text, v text);
            ALTER TABLE t ALTER COLUMN v SET STORAGE EXTERNAL, ALTER COLUMN unread SET STORAGE EXTERNAL;
            INSERT INTO t SELECT x, repeat('u', 3000), CASE WHEN x <= 1000 THEN 'small' WHEN x = 1020 THEN repeat('l', 20000000)
                ELSE repeat('m', 2000000) END FROM generate_series(1, 1030) AS x;
            CREATE TABLE u (id int PRIMARY KEY, v text); CREATE TABLE w (id int PRIMARY KEY, v text);
            INSERT INTO w SELECT x, repeat(md5(x::text), 60) FROM generate_series(1, 20000) AS x;
            ALTER TABLE w ALTER COLUMN v SET STORAGE PLAIN; CREATE TABLE x (LIKE w INCLUDING ALL)";
        let Some(database) = Database::with(setup).await else { return };
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let size = Window { rows: 10_000, count: 20, is_fixed: true };
        let (step, large) = (work("large", Way::Forward), mapping(("t", &["id"]), ("u", &["id"])));
        let state = postgres.plan_chunks(&fence, &step, &large, size).await.unwrap();
        let ends: Vec<String> =
            state.open.iter().map(|p| p.chunk.hi.as_ref().unwrap().to_string()).collect();
        // Nine rows of two million bytes pass sixteen mebibytes; the large one fills a chunk with those before it.
        assert_eq!(ends, ["1009", "1018", "1020", "1029", "1030"]);
        assert!(matches!(state.walk, Walk::Ended { .. }));
        // Nothing beside this table, so its rows are taken for even.
        let (step, wide) = (work("wide", Way::Forward), mapping(("w", &["id"]), ("x", &["id"])));
        let state = postgres.plan_chunks(&fence, &step, &wide, size).await.unwrap();
        assert_eq!(state.open.len(), 3, "{state:?}");
    }

    #[tokio::test]
    async fn chunks_taken_back_are_planned_anew_and_what_is_committed_keeps_its_bounds() {
        let Some(database) = tables().await else { return };
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let (step, mapping) = (work("copy", Way::Forward), mappings().remove(0));
        let plan = async |rows, count| {
            let size = Window { rows, count, is_fixed: true };
            postgres.plan_chunks(&fence, &step, &mapping, size).await.unwrap()
        };
        let first = plan(200, 9).await;
        assert_eq!((first.walk.clone(), first.open.len()), (Walk::Ended { seq: 5 }, 5));
        database
            .run(
                "UPDATE phasegate.chunks SET committed = true, rows_read = 200 WHERE seq IN (1, 3)",
            )
            .await;
        postgres.forget_chunks(&fence, &step, 1).await.unwrap();
        let again = plan(100, 9).await;
        let seqs: Vec<u64> = again.open.iter().map(|planned| planned.seq).collect();
        // The second is before a committed one and stays; the fourth and fifth have other bounds now.
        assert_eq!(seqs, [2, 4, 5, 6, 7]);
        assert_eq!(again.open[0], first.open[1]);
        assert_eq!(again.open[1].chunk.lo, first.open[2].chunk.hi);
        assert_eq!(again.open[1].chunk.hi, Some(Key(vec![Cell::Integer(700)])));
        assert_eq!((again.walk, again.rows_read), (Walk::Ended { seq: 7 }, 400));
        postgres.forget_chunks(&fence, &step, 7).await.unwrap();
        assert_eq!(plan(100, 9).await.open.len(), 5);
    }

    /// The end that the ledger has.
    async fn state_frozen(database: &Database, step: &str) -> Key {
        let step = super::super::catalogue::literal(step);
        let text = format!("SELECT frozen FROM phasegate.copies WHERE step = {step}");
        cells::key_from_json(&database.text(&text).await).unwrap()
    }

    #[tokio::test]
    async fn keys_that_are_numbers_are_read_as_such() {
        let Some(database) = tables().await else { return };
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let step = work("copy", Way::Forward);
        let size = Window { rows: 10, count: 1, is_fixed: true };
        let state = postgres.plan_chunks(&fence, &step, &mappings()[0], size).await.unwrap();
        assert_eq!(state.open[0].chunk.hi, Some(Key(vec![Cell::Integer(10)])));
    }

    #[tokio::test]
    async fn an_empty_source_ends_at_once_and_an_even_one_without_an_empty_chunk() {
        let setup = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)";
        let Some(database) = Database::with(setup).await else { return };
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        let mapping = mapping(("t", &["id"]), ("u", &["id"]));
        let size = Window { rows: 2, count: 10, is_fixed: true };
        let (one, two) = (work("one", Way::Forward), work("two", Way::Forward));
        let empty = postgres.plan_chunks(&fence, &one, &mapping, size).await.unwrap();
        assert_eq!((empty.walk, empty.open.len()), (Walk::Ended { seq: 0 }, 0));
        database.run("INSERT INTO t VALUES (1), (2), (3), (4)").await;
        let even = postgres.plan_chunks(&fence, &two, &mapping, size).await.unwrap();
        assert_eq!((even.walk, even.open.len()), (Walk::Ended { seq: 2 }, 2));
        let again = postgres.plan_chunks(&fence, &one, &mapping, size).await.unwrap();
        assert_eq!((again.walk, again.open.len()), (Walk::Ended { seq: 0 }, 0));
    }

    #[tokio::test]
    async fn an_estimate_respects_the_filter_and_needs_no_statistics() {
        let Some(database) = tables().await else { return };
        let postgres = database.open().await;
        let mut mapping = mappings().remove(0);
        assert_eq!(postgres.estimate(&mapping).await.unwrap(), 1000);
        mapping.filter = Some("n % 10 = 0 -- a tenth".into());
        assert_eq!(postgres.estimate(&mapping).await.unwrap(), 100);
        database
            .run(
                "CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
                CREATE TABLE p1 PARTITION OF parts FOR VALUES FROM (0) TO (100000);
                CREATE TABLE p2 PARTITION OF parts FOR VALUES FROM (100000) TO (1000000);
                INSERT INTO parts SELECT x, x FROM generate_series(1, 150000) AS x; ANALYZE parts",
            )
            .await;
        mapping.from.table = "parts".into();
        mapping.filter = None;
        let about = postgres.estimate(&mapping).await.unwrap();
        assert!((140_000..160_000).contains(&about), "{about}");
    }
}

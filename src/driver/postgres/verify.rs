//! Comparing both sides of a mapping: [`Verifier`] for PostgreSQL.
//!
//! Invariants:
//! - A chunk is compared in one snapshot, both ways, by a full join over its key range: every row of the old side that the
//!   filter lets pass against the new side, and every row of the new side against the old one. What is beyond either side's
//!   keys belongs to a chunk too.
//! - On a live table both sides are equal in every snapshot, so that a difference is a difference, unless the same snapshot has
//!   its key among those that the sync could only note: such rows are counted apart, and are neither right nor wrong yet.
//!
//! Absent on purpose: verdicts, the order of chunks, and putting right what differs, which is in `repair`.

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::error::{failed, refused};
use super::shape::Shape;
use super::shape_sql::{BY_INDEX, Found, Pick, Statements, Which};
use super::source::{as_text, estimate};
use super::{Postgres, cells, ledger, passes, prepared};
use crate::bounds::message::{SAMPLES_MAX, VALUES_MAX};
use crate::bounds::verify::{DRAWN_FROM, DRAWN_FROM_ALL_MAX};
use crate::clock::Stopwatch;
use crate::copy::chunk::{Chunk, Key};
use crate::copy::compare::{Compared, Named};
use crate::driver::{Basis, Error, Fence, TxKind, Verifier};
use crate::run::{
    ColumnValues, Difference, DifferenceKind, Direction, Mapping, Method, OnDelete, RunId,
    ShownValue, StepId,
};

/// Everything.
const ALL: Chunk = Chunk { lo: None, hi: None };

#[async_trait]
impl Verifier for Postgres {
    async fn verify_bound(
        &self,
        mapping: &Mapping,
        after: Option<&Key>,
        rows: u32,
    ) -> Result<Option<Key>, Error> {
        let mut reader = self.connections.snapshot().await?;
        let shape = prepared::shape(&self.shapes, reader.conn()?, mapping).await?;
        by_index(reader.conn()?).await?;
        let range = Chunk { lo: after.cloned(), hi: None };
        let query = sqlx::query(AssertSqlSafe(bound_sql(&shape, &range, rows)));
        let query = cells::bind_chunk(query, &range);
        let row = query.fetch_optional(reader.conn()?).await.map_err(|error| refused(&error))?;
        let bound = row.map(|row| cells::key(&row, &shape)).transpose()?;
        reader.release().await;
        Ok(bound)
    }

    async fn compare_chunk(
        &self,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        self.compare_naming(mapping, direction, (chunk, Named::Any)).await
    }

    async fn compare_losing(
        &self,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        self.compare_new_side(mapping, direction, chunk).await
    }

    async fn compare_partly(
        &self,
        mapping: &Mapping,
        direction: Direction,
        method: Method,
    ) -> Result<Compared, Error> {
        let mut reader = self.connections.snapshot_of(&tables(mapping)).await?;
        let shape = prepared::shape(&self.shapes, reader.conn()?, mapping).await?;
        let schema = self.connections.schema();
        let statements = Statements::of(reader.conn()?, schema, (&shape, direction)).await?;
        let conn = reader.conn()?;
        let compared = match method {
            Method::Full => compare(conn, &statements, (&Pick::Chunk(&ALL), Named::Any)).await?,
            Method::Counts => count(conn, &statements).await?,
            Method::Sample(size) => {
                let keys = sample(conn, (mapping, &shape), size).await?;
                by_index(conn).await?;
                compare(conn, &statements, (&Pick::Keys(&keys), Named::Any)).await?
            }
        };
        reader.release().await;
        Ok(compared)
    }

    async fn basis(&self, mapping: &Mapping) -> Result<Basis, Error> {
        let mut reader = self.connections.read().await?;
        let basis = passes::basis(reader.conn()?, self.connections.schema(), mapping).await?;
        reader.release().await;
        Ok(basis)
    }

    async fn kept_pass(&self, run: &RunId, step: &StepId) -> Result<Option<String>, Error> {
        let mut reader = self.connections.read().await?;
        let kept = passes::kept(&mut reader, run, step).await?;
        reader.release().await;
        Ok(kept)
    }

    async fn keep_pass(
        &self,
        fence: &Fence,
        step: &StepId,
        pass: Option<&str>,
    ) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Pass).await?;
        match passes::keep(&mut tx, fence, (step, pass)).await {
            Ok(()) => tx.commit().await.map(|_| ()),
            Err(error) => Err(tx.give_up(error).await),
        }
    }

    async fn repair_chunk(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<u64, Error> {
        let (mut range, mut rows) = (chunk.clone(), 0);
        loop {
            let mut tx = self.connections.begin(fence, TxKind::Repair).await?;
            match self.repair(&mut tx, (mapping, direction), &range).await {
                Ok((changed, behind)) => {
                    self.connections.moments.wrote(mapping);
                    tx.commit().await?;
                    self.connections.moments.wrote(mapping);
                    rows += changed;
                    let Some(behind) = behind else { return Ok(rows) };
                    range.lo = Some(behind);
                }
                Err(error) => return Err(tx.give_up(error).await),
            }
        }
    }
}

impl Postgres {
    /// Compares a chunk both ways, in one snapshot.
    pub(super) async fn compare_naming(
        &self,
        mapping: &Mapping,
        direction: Direction,
        (chunk, named): (&Chunk, Named),
    ) -> Result<Compared, Error> {
        let mut reader = self.connections.snapshot_of(&tables(mapping)).await?;
        let shape = prepared::shape(&self.shapes, reader.conn()?, mapping).await?;
        let schema = self.connections.schema();
        let statements = Statements::of(reader.conn()?, schema, (&shape, direction)).await?;
        if *chunk != ALL {
            by_index(reader.conn()?).await?;
        }
        let pick = (&Pick::Chunk(chunk), named);
        let compared = compare(reader.conn()?, &statements, pick).await?;
        reader.release().await;
        Ok(compared)
    }
}

/// The tables of a mapping, the old one first.
pub(super) fn tables(mapping: &Mapping) -> Vec<&str> {
    let mut tables = vec![mapping.from.table.as_str()];
    if !mapping.is_in_place() {
        tables.push(mapping.into.table.as_str());
    }
    tables
}

/// Has the rest of a transaction find rows by the key's index.
pub(super) async fn by_index(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query(BY_INDEX)
        .bind("jit")
        .bind("off")
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(failed("prepare to compare"))
}

/// The `rows`-th key of each side behind a bound, and of the two the one that comes first.
fn bound_sql(shape: &Shape, range: &Chunk, rows: u32) -> String {
    let offset = rows.max(1) - 1;
    let places: Vec<String> = (0..shape.keys.len()).map(|at| format!("b{at}")).collect();
    let side = |which: Which| {
        let keys = shape.key_names(which);
        let named: Vec<String> =
            keys.iter().zip(&places).map(|(name, b)| format!("{name} AS {b}")).collect();
        format!(
            "(SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT 1 OFFSET {offset})",
            named.join(", "),
            shape.side(which).sql(),
            Pick::Chunk(range).sql(shape, which),
            keys.join(", ")
        )
    };
    let mut sides = side(Which::Old);
    if !shape.in_place {
        sides = format!("{sides} UNION ALL {}", side(Which::New));
    }
    format!(
        "SELECT {} FROM ({sides}) AS phasegate_bounds ORDER BY {} LIMIT 1",
        as_text(&places),
        places.iter().map(|b| format!("phasegate_bounds.{b}")).collect::<Vec<_>>().join(", ")
    )
}

/// Compares the picked rows of both sides, in statements of one snapshot.
pub(super) async fn compare(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    (pick, named): (&Pick<'_>, Named),
) -> Result<Compared, Error> {
    let watch = Stopwatch::start();
    let found = |found: Found| format!("count(*) FILTER (WHERE found = {})", found as u8);
    let sql = format!(
        "SELECT count(k0), count(q0), {}, {}, {}, {} FROM {}",
        found(Found::Missing),
        found(Found::Extra),
        found(Found::Different),
        found(Found::Pending),
        statements.judged(pick)
    );
    // Planned anew for each chunk, whose bounds a kept plan would not know.
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)).persistent(false), statements.shape);
    let row = query.fetch_one(&mut *conn).await.map_err(|error| refused(&error))?;
    let count = |at: usize| ledger::unsigned(row.try_get(at).map_err(failed("compare rows"))?);
    let mut compared = Compared {
        rows: count(0)?.max(count(1)?),
        missing: count(2)?,
        extra: count(3)?,
        different: count(4)?,
        pending: count(5)?,
        ..Compared::default()
    };
    let any = if named == Named::Any { compared.missing } else { 0 };
    if any + compared.extra + compared.different > 0 {
        compared.samples = samples(conn, statements, (pick, named)).await?;
    }
    compared.took_us = watch.elapsed_us();
    Ok(compared)
}

/// A few of the differences: those that the old side shows first, then extra rows, each in the order of keys. What differs
/// in them is asked of these keys alone, in the same snapshot. No plan of this is kept: a column's collation is part of the
/// result's type, which a kept plan may not change.
async fn samples(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    (pick, named): (&Pick<'_>, Named),
) -> Result<Vec<Difference>, Error> {
    let shape = statements.shape;
    let keys: Vec<String> = (0..shape.keys.len()).map(|at| format!("x{at}")).collect();
    let mut passed_by = vec![Found::Right, Found::Pending];
    if named == Named::OfNewSide {
        passed_by.push(Found::Missing);
    }
    let passed_by: Vec<String> = passed_by.iter().map(|found| (*found as u8).to_string()).collect();
    let (passed_by, extra) = (passed_by.join(", "), Found::Extra as u8);
    let listed = as_text(&keys);
    let order = keys.iter().map(|x| format!("phasegate_found.{x}")).collect::<Vec<_>>().join(", ");
    let chosen = format!("found NOT IN ({passed_by}) ORDER BY found = {extra}, {order}");
    let sql = format!(
        "SELECT {listed} FROM {} WHERE {chosen} LIMIT {SAMPLES_MAX}",
        statements.judged(pick)
    );
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)).persistent(false), shape);
    let rows = query.fetch_all(&mut *conn).await.map_err(|error| refused(&error))?;
    let wrong: Vec<Key> =
        rows.iter().map(|row| cells::key(row, shape)).collect::<Result<_, _>>()?;
    let pick = Pick::Keys(&wrong);
    let sql = format!(
        "SELECT {listed}, found, wrong, differ, shown FROM {} WHERE {chosen}",
        statements.judged(&pick)
    );
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)).persistent(false), shape);
    let rows = query.fetch_all(conn).await.map_err(|error| refused(&error))?;
    rows.iter().map(|row| difference(row, statements)).collect()
}

fn difference(row: &PgRow, statements: &Statements<'_>) -> Result<Difference, Error> {
    let shape = statements.shape;
    let width = shape.keys.len();
    let found: i32 = row.try_get(width).map_err(failed("compare rows"))?;
    let wrong: Vec<Option<bool>> = row.try_get(width + 1).map_err(failed("compare rows"))?;
    let differ: Vec<Option<bool>> = row.try_get(width + 2).map_err(failed("compare rows"))?;
    let shown: Vec<Option<String>> = row.try_get(width + 3).map_err(failed("compare rows"))?;
    let kind = match found {
        found if found == Found::Missing as i32 => DifferenceKind::Missing,
        found if found == Found::Extra as i32 => DifferenceKind::Extra,
        _ => DifferenceKind::Different,
    };
    let groups = statements.groups();
    let is_true =
        |flags: &[Option<bool>], at: usize| flags.get(at).copied().flatten() == Some(true);
    let is_wrong = |at: usize| {
        groups
            .iter()
            .enumerate()
            .any(|(group, places)| places.contains(&at) && is_true(&wrong, group))
    };
    let differs =
        |at: usize| kind == DifferenceKind::Different && is_true(&differ, at) && is_wrong(at);
    let columns = shape.writes.iter().enumerate().filter(|(at, _)| differs(*at));
    let columns = columns.map(|(_, write)| write.column.clone()).collect();
    let values = shape
        .written_beside_key()
        .filter(|(at, _)| kind != DifferenceKind::Different || differs(*at))
        .take(VALUES_MAX)
        .map(|(at, write)| {
            let value = |from: usize| {
                let text = |at: usize| shown.get(at).cloned().flatten();
                let length = text(from + 1).and_then(|length| length.parse().ok());
                ShownValue::cut(text(from), length)
            };
            ColumnValues {
                column: write.column.clone(),
                expected: (kind != DifferenceKind::Extra).then(|| value(4 * at)),
                found: (kind != DifferenceKind::Missing).then(|| value(4 * at + 2)),
            }
        })
        .collect();
    Ok(Difference { kind, key: cells::key(row, shape)?.to_string(), columns, values })
}

/// How many rows each side has.
async fn count(conn: &mut PgConnection, statements: &Statements<'_>) -> Result<Compared, Error> {
    let watch = Stopwatch::start();
    let shape = statements.shape;
    let pick = Pick::Chunk(&ALL);
    let of = |which| format!("(SELECT count(*) FROM {})", shape.rows_sql(which, &pick));
    let sql = format!("SELECT {}, {}", of(Which::Old), of(Which::New));
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
    let row = row.map_err(|error| refused(&error))?;
    let at = |at: usize| ledger::unsigned(row.try_get(at).map_err(failed("count rows"))?);
    let (old_rows, new_rows) = (at(0)?, at(1)?);
    let mut compared = Compared { rows: old_rows.max(new_rows), ..Compared::default() };
    if shape.in_place {
        compared.rows = old_rows;
    } else {
        compared.missing = old_rows.saturating_sub(new_rows);
        if shape.on_delete == OnDelete::Delete {
            compared.extra = new_rows.saturating_sub(old_rows);
        }
    }
    compared.took_us = watch.elapsed_us();
    Ok(compared)
}

/// Random keys of both sides, as many as asked for while there are so many.
pub(super) async fn sample(
    conn: &mut PgConnection,
    (mapping, shape): (&Mapping, &Shape),
    size: u32,
) -> Result<Vec<Key>, Error> {
    let mut sides = vec![(Which::Old, &mapping.from.table, mapping.filter.as_deref())];
    if !shape.in_place {
        sides.push((Which::New, &mapping.into.table, None));
    }
    let mut found: Vec<Vec<Key>> = Vec::new();
    for (which, table, filter) in sides {
        let rows = estimate(conn, table, filter).await?;
        let mut keys = Vec::new();
        if rows > DRAWN_FROM_ALL_MAX {
            // Counts of rows as floats: what is lost of them is nothing to a percentage.
            #[allow(clippy::cast_precision_loss)]
            let percent = (f64::from(size) * DRAWN_FROM * 100.0 / rows as f64).min(100.0);
            let pages = format!("TABLESAMPLE SYSTEM ({percent})");
            keys = draw(conn, shape, (which, &pages), size).await?;
        }
        if keys.len() < size as usize {
            keys = draw(conn, shape, (which, ""), size).await?;
        }
        found.push(keys);
    }
    // In turns, so that a sample that can't hold all of both sides has as many of either.
    let mut keys: Vec<Key> = Vec::new();
    let mut known = std::collections::HashSet::new();
    let longest = found.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..longest {
        for key in found.iter().filter_map(|side| side.get(at)) {
            if keys.len() < size as usize && known.insert(cells::key_to_json(key)?) {
                keys.push(key.clone());
            }
        }
    }
    Ok(keys)
}

/// Random keys of one side.
async fn draw(
    conn: &mut PgConnection,
    shape: &Shape,
    (which, pages): (Which, &str),
    size: u32,
) -> Result<Vec<Key>, Error> {
    let sql = format!(
        "SELECT {} FROM {} {pages} WHERE true{} ORDER BY random() LIMIT {size}",
        as_text(&shape.key_names(which)),
        shape.side(which).sql(),
        shape.filter_sql(which)
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_all(conn).await;
    let rows = rows.map_err(|error| refused(&error))?;
    rows.iter().map(|row| cells::key(row, shape)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::copy_tests::{compare_all, shown};
    use super::super::fixture::{Database, entered, mapping};
    use super::super::shape::shape;
    use super::*;
    use crate::copy::chunk::Cell;
    use crate::run::Winner;
    use sqlx::Connection as _;

    const SCHEMA: &str = "
        CREATE TABLE leads (id int PRIMARY KEY, status text, n numeric);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, status_code text, n numeric);
        INSERT INTO leads SELECT x, 'Open', x / 3.0 FROM generate_series(1, 1000) AS x;
        INSERT INTO leads_v2 SELECT id, lower(status), n FROM leads;";

    fn leads() -> Mapping {
        let mut mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
        mapping.columns = vec![("status_code".into(), "lower(status)".into())];
        mapping.reverse = vec![("status".into(), "status_code".into())];
        mapping
    }

    fn key(id: i64) -> Key {
        Key(vec![Cell::Integer(id)])
    }

    #[tokio::test]
    async fn equal_sides_are_clean_and_every_row_is_looked_at() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let postgres = database.open().await;
        for direction in [Direction::Forward, Direction::Both] {
            let (sum, chunks) = compare_all(&postgres, &leads(), direction).await;
            assert!(sum.is_clean(), "{sum:?}");
            assert_eq!((sum.rows, chunks), (1000, 11));
        }
    }

    #[tokio::test]
    async fn both_sides_keys_bound_the_chunks_and_nothing_beyond_them_is_missed() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        database.run("DELETE FROM leads_v2 WHERE id BETWEEN 100 AND 899; DELETE FROM leads WHERE id > 950;
            INSERT INTO leads_v2 VALUES (-5, 'low', 1), (5000000000, 'high', 2); DELETE FROM leads WHERE id = 7;
            UPDATE leads_v2 SET n = n + 0.5, status_code = 'OPEN' WHERE id = 8").await;
        let postgres = database.open().await;
        let (sum, _) = compare_all(&postgres, &leads(), Direction::Forward).await;
        assert_eq!((sum.missing, sum.extra, sum.different), (800, 53, 1));
        assert_eq!(sum.samples.len(), SAMPLES_MAX);
        let low = Chunk { lo: None, hi: Some(key(100)) };
        let low = postgres.compare_chunk(&leads(), Direction::Forward, &low).await.unwrap();
        let expected = ["Different 8 n+status_code", "Missing 100 ", "Extra -5 ", "Extra 7 "];
        assert_eq!(shown(&low), expected);
        assert_eq!(low.rows, 100);
    }

    #[tokio::test]
    async fn an_empty_table_and_a_filter() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        database.run("DELETE FROM leads_v2").await;
        let postgres = database.open().await;
        let (sum, chunks) = compare_all(&postgres, &leads(), Direction::Forward).await;
        assert_eq!((sum.rows, sum.missing, chunks), (1000, 1000, 11));
        let mut filtered = leads();
        filtered.filter = Some("id % 2 = 0 OR NULL -- even ones".into());
        database.run("INSERT INTO leads_v2 SELECT id, lower(status), n FROM leads WHERE id % 2 = 0 OR id = 11").await;
        let (sum, _) = compare_all(&postgres, &filtered, Direction::Forward).await;
        assert_eq!((sum.missing, sum.extra, sum.different), (0, 1, 0));
        let counts = postgres.compare_partly(&filtered, Direction::Forward, Method::Counts).await;
        let counts = counts.unwrap();
        assert_eq!((counts.rows, counts.missing, counts.extra), (501, 0, 1));
    }

    #[tokio::test]
    async fn with_both_either_side_may_be_the_one_that_was_written() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        // The old side lost nothing by the way: lower(Open) = open. The other way OPEN comes from nowhere.
        database.run("UPDATE leads SET status = 'OPEN' WHERE id = 1; UPDATE leads_v2 SET status_code = 'Mixed' WHERE id = 2;
            UPDATE leads SET status = 'Mixed' WHERE id = 2; UPDATE leads_v2 SET status_code = 'Else' WHERE id = 3").await;
        let postgres = database.open().await;
        let both = postgres.compare_chunk(&leads(), Direction::Both, &ALL).await.unwrap();
        assert_eq!(shown(&both), ["Different 3 status_code"]);
        let forward = postgres.compare_chunk(&leads(), Direction::Forward, &ALL).await.unwrap();
        assert_eq!(shown(&forward), ["Different 2 status_code", "Different 3 status_code"]);
        // What is right by its own side stays as it is when something else of the row is repaired.
        database.run("UPDATE leads_v2 SET n = 0 WHERE id = 2").await;
        let fence = entered(&postgres, 1).await.remove(0);
        let leads = Mapping { winner: Winner::Old, ..leads() };
        assert_eq!(postgres.repair_chunk(&fence, &leads, Direction::Both, &ALL).await, Ok(2));
        let row = "SELECT status_code || ' ' || (n > 0) FROM leads_v2 WHERE id = 2";
        assert_eq!(database.text(row).await, "Mixed true");
    }

    #[tokio::test]
    async fn what_a_deleted_row_leaves_behind_is_no_difference_where_the_mapping_says_so() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        database.run("DELETE FROM leads WHERE id < 3; UPDATE leads_v2 SET status_code = NULL, n = NULL WHERE id = 1").await;
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(0);
        for (on_delete, extra) in
            [(OnDelete::Ignore, 0), (OnDelete::Nullify, 1), (OnDelete::Delete, 2)]
        {
            let mut mapping = leads();
            mapping.on_delete = on_delete;
            let found = postgres.compare_chunk(&mapping, Direction::Forward, &ALL).await.unwrap();
            let counts = (found.extra, found.missing, found.different);
            assert_eq!(counts, (extra, 0, 0), "{on_delete:?}");
            let repaired = postgres.repair_chunk(&fence, &mapping, Direction::Forward, &ALL).await;
            assert_eq!(repaired, Ok(extra), "{on_delete:?}");
        }
    }

    #[tokio::test]
    async fn a_sample_is_spread_over_all_keys_of_both_sides() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let postgres = database.open().await;
        let sample = async |size| {
            let method = Method::Sample(size);
            postgres.compare_partly(&leads(), Direction::Forward, method).await.unwrap()
        };
        assert_eq!(sample(50).await.rows, 50);
        assert_eq!(sample(5000).await.rows, 1000);
        // Half of the keys differ: so does about half of a sample. Three times as far off as chance goes in a million draws.
        database
            .run("UPDATE leads_v2 SET n = -1 WHERE id > 500; DELETE FROM leads WHERE id > 800")
            .await;
        let found = sample(400).await;
        assert!((80..=180).contains(&found.different), "{found:?}");
        assert!((15..=120).contains(&found.extra), "{found:?}");
        database.run("INSERT INTO leads SELECT x, 'Open', 0 FROM generate_series(100001, 250000) AS x;
            INSERT INTO leads_v2 SELECT x, 'open', 0 FROM generate_series(100001, 250000) AS x; ANALYZE leads, leads_v2").await;
        assert_eq!(sample(100).await.rows, 100);
    }

    #[tokio::test]
    async fn repair_makes_a_chunk_right_and_leaves_others_alone() {
        let spoil = "DELETE FROM leads WHERE id IN (10, 20); DELETE FROM leads_v2 WHERE id IN (11, 900);
            UPDATE leads_v2 SET status_code = 'bad' WHERE id IN (12, 901); INSERT INTO leads_v2 VALUES (-1, 'x', 0)";
        let leads = || Mapping { winner: Winner::Old, ..leads() };
        for direction in [Direction::Forward, Direction::Both] {
            let Some(database) = Database::with(SCHEMA).await else { return };
            database.run(spoil).await;
            let postgres = database.open().await;
            let fence = entered(&postgres, 1).await.remove(0);
            let chunk = Chunk { lo: None, hi: Some(key(500)) };
            assert_eq!(postgres.repair_chunk(&fence, &leads(), direction, &chunk).await, Ok(5));
            let (sum, _) = compare_all(&postgres, &leads(), direction).await;
            assert_eq!((sum.missing, sum.extra, sum.different), (1, 0, 1));
            assert_eq!(postgres.repair_chunk(&fence, &leads(), direction, &ALL).await, Ok(2));
            assert_eq!(postgres.repair_chunk(&fence, &leads(), direction, &ALL).await, Ok(0));
            assert!(compare_all(&postgres, &leads(), direction).await.0.is_clean());
            let wrong = "SELECT count(*) FROM leads l LEFT JOIN leads_v2 v USING (id) WHERE v.status_code IS DISTINCT FROM 'open'";
            assert_eq!(database.number(wrong).await, 0);
            assert_eq!(database.number("SELECT count(*) FROM leads").await, 998);
        }
    }

    #[tokio::test]
    async fn more_wrong_rows_than_one_transaction_may_lock_are_all_repaired() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        database
            .run("INSERT INTO leads SELECT x, 'Open', 1 FROM generate_series(1001, 3000) AS x")
            .await;
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(0);
        assert_eq!(
            postgres.repair_chunk(&fence, &leads(), Direction::Forward, &ALL).await,
            Ok(2000)
        );
        assert!(compare_all(&postgres, &leads(), Direction::Forward).await.0.is_clean());
    }

    #[tokio::test]
    async fn chunks_are_compared_and_repaired_by_index_on_both_sides() {
        let Some(database) = Database::with(
            "CREATE TABLE o (a text COLLATE \"und-x-icu\", b bigint, v text, PRIMARY KEY (a, b));
             CREATE TABLE n (a text COLLATE \"und-x-icu\" NOT NULL, b bigint NOT NULL, v text, UNIQUE (a, b));
             INSERT INTO o SELECT 'k' || x, x, 'v' FROM generate_series(1, 5000) AS x",
        )
        .await else { return };
        let both = mapping(("o", &["a", "b"]), ("n", &["a", "b"]));
        let mut client = database.client().await;
        let shape = shape(&mut client, &both).await.unwrap();
        let key = Key(vec![Cell::Text("k1".into()), Cell::Integer(1)]);
        let chunk = Chunk { lo: Some(key.clone()), hi: Some(key.clone()) };
        for direction in [Direction::Forward, Direction::Both] {
            let statements =
                Statements::of(&mut client, "phasegate", (&shape, direction)).await.unwrap();
            let keys = [key.clone()];
            for pick in [Pick::Chunk(&chunk), Pick::Keys(&keys)] {
                let mut texts = vec![
                    format!("SELECT found FROM {}", statements.judged(&pick)),
                    statements.insert(&pick),
                    statements.lock(Which::Old, &pick),
                    statements.lock(Which::New, &pick),
                    statements.count(&pick),
                ];
                texts.extend(statements.update(&pick));
                texts.extend(statements.remove_extra(&pick));
                for sql in texts {
                    for mode in ["force_custom_plan", "force_generic_plan"] {
                        let mut tx = client.begin().await.unwrap();
                        sqlx::query(BY_INDEX)
                            .bind("plan_cache_mode")
                            .bind(mode)
                            .execute(&mut *tx)
                            .await
                            .unwrap();
                        let explain = sqlx::query(AssertSqlSafe(format!("EXPLAIN {sql}")));
                        let rows = pick.bind(explain, &shape).fetch_all(&mut *tx).await.unwrap();
                        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                        let plan = plan.join("\n");
                        assert!(!plan.contains("Seq Scan"), "{sql}\n{plan}");
                        assert!(plan.contains("Index Cond"), "{sql}\n{plan}");
                        // No index is read from end to end.
                        let scans = plan.matches("Scan using").count();
                        assert!(plan.matches("Index Cond").count() >= scans, "{sql}\n{plan}");
                    }
                }
            }
        }
    }
}

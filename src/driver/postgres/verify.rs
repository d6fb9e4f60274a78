//! Comparing both sides of a mapping: [`Verifier`] for PostgreSQL.
//!
//! Invariants:
//! - A chunk is compared in one snapshot, both ways, by a full join over its key range: every row of the old side that the
//!   filter lets pass against the new side, and every row of the new side against the old one. What is beyond either side's
//!   keys belongs to a chunk too.
//! - On a live table both sides are equal in every snapshot, so that a difference is a difference, unless the same snapshot has
//!   its key among those that the sync could only note: such rows are counted apart, and are neither right nor wrong yet.
//! - What repair writes it has locked before, and decided on in a statement of its own.
//!
//! Absent on purpose: verdicts, and the order of chunks.

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::connection::{Tx, TxKind};
use super::error::{failed, refused};
use super::shape::{Shape, shape};
use super::shape_sql::{BY_INDEX, Found, Pick, Statements, Which};
use super::sink::{number, prepare, write};
use super::source::{as_text, estimate};
use super::{Postgres, cells, ledger};
use crate::clock::Stopwatch;
use crate::copy::chunk::{Chunk, Key};
use crate::copy::compare::{Compared, SAMPLES_MAX};
use crate::driver::{Error, Fence, Verifier};
use crate::run::{Difference, DifferenceKind, Direction, Mapping, Method, OnDelete};

/// Rows that are repaired in one transaction: as many as may be locked at once.
const REPAIRED_MAX: usize = 1_000;
/// Up to how many rows a sample is drawn from all of them; beyond that, from random pages.
const DRAWN_MAX: u64 = 100_000;
/// How many times a sample's size the random pages should hold, so that few rows of a page are in it.
const DRAWN_FROM: f64 = 20.0;

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
        let shape = shape(reader.conn()?, mapping).await?;
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
        let mut reader = self.connections.snapshot().await?;
        let shape = shape(reader.conn()?, mapping).await?;
        let schema = self.connections.schema();
        let statements = Statements::of(reader.conn()?, schema, (&shape, direction)).await?;
        if *chunk != ALL {
            by_index(reader.conn()?).await?;
        }
        let compared = compare(reader.conn()?, &statements, &Pick::Chunk(chunk)).await?;
        reader.release().await;
        Ok(compared)
    }

    async fn compare_partly(
        &self,
        mapping: &Mapping,
        direction: Direction,
        method: Method,
    ) -> Result<Compared, Error> {
        let mut reader = self.connections.snapshot().await?;
        let shape = shape(reader.conn()?, mapping).await?;
        let schema = self.connections.schema();
        let statements = Statements::of(reader.conn()?, schema, (&shape, direction)).await?;
        let conn = reader.conn()?;
        let compared = match method {
            Method::Full => compare(conn, &statements, &Pick::Chunk(&ALL)).await?,
            Method::Counts => count(conn, &statements).await?,
            Method::Sample(size) => {
                let keys = sample(conn, (mapping, &shape), size).await?;
                by_index(conn).await?;
                compare(conn, &statements, &Pick::Keys(&keys)).await?
            }
        };
        reader.release().await;
        Ok(compared)
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
            match repair(&mut tx, (mapping, direction), &range).await {
                Ok((changed, behind)) => {
                    tx.commit().await?;
                    rows += changed;
                    let Some(behind) = behind else { return Ok(rows) };
                    range.lo = Some(behind);
                }
                Err(error) => {
                    tx.roll_back().await;
                    return Err(error);
                }
            }
        }
    }
}

/// Has the rest of a transaction find rows by the key's index.
async fn by_index(conn: &mut PgConnection) -> Result<(), Error> {
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
    pick: &Pick<'_>,
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
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)), statements.shape);
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
    if compared.missing + compared.extra + compared.different > 0 {
        compared.samples = samples(conn, statements, pick).await?;
    }
    compared.took_us = watch.elapsed_us();
    Ok(compared)
}

/// A few of the differences: those that the old side shows first, then extra rows, each in the order of keys.
async fn samples(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    pick: &Pick<'_>,
) -> Result<Vec<Difference>, Error> {
    let shape = statements.shape;
    let keys: Vec<String> = (0..shape.keys.len()).map(|at| format!("x{at}")).collect();
    let differ: Vec<String> = (0..shape.writes.len()).map(|at| format!(", d{at}")).collect();
    let (right, pending, extra) = (Found::Right as u8, Found::Pending as u8, Found::Extra as u8);
    let sql = format!(
        "SELECT {}, found{} FROM {} WHERE found NOT IN ({right}, {pending})
         ORDER BY found = {extra}, {} LIMIT {SAMPLES_MAX}",
        as_text(&keys),
        differ.concat(),
        statements.judged(pick),
        keys.iter().map(|x| format!("phasegate_found.{x}")).collect::<Vec<_>>().join(", ")
    );
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)), shape);
    let rows = query.fetch_all(conn).await.map_err(|error| refused(&error))?;
    rows.iter().map(|row| difference(row, shape)).collect()
}

fn difference(row: &PgRow, shape: &Shape) -> Result<Difference, Error> {
    let width = shape.keys.len();
    let found: i32 = row.try_get(width).map_err(failed("compare rows"))?;
    let mut columns = Vec::new();
    for (at, write) in shape.writes.iter().enumerate() {
        let differs: Option<bool> = row.try_get(width + 1 + at).map_err(failed("compare rows"))?;
        if differs == Some(true) {
            columns.push(write.column.clone());
        }
    }
    let kind = match found {
        found if found == Found::Missing as i32 => DifferenceKind::Missing,
        found if found == Found::Extra as i32 => DifferenceKind::Extra,
        _ => DifferenceKind::Different,
    };
    Ok(Difference { kind, key: cells::key(row, shape)?.to_string(), columns })
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
async fn sample(
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
        if rows > DRAWN_MAX {
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

/// Puts the first wrong rows of a range right. Returns the rows changed, and the last key when there may be more behind it.
async fn repair(
    tx: &mut Tx<'_>,
    (mapping, direction): (&Mapping, Direction),
    range: &Chunk,
) -> Result<(u64, Option<Key>), Error> {
    let shape = shape(tx.conn()?, mapping).await?;
    prepare(tx, &shape).await?;
    let schema = tx.schema().to_owned();
    let statements = Statements::of(tx.conn()?, &schema, (&shape, direction)).await?;
    let keys = wrong_keys(tx.conn()?, &statements, range).await?;
    if keys.is_empty() {
        return Ok((0, None));
    }
    let rows = repair_keys(tx.conn()?, &statements, &Pick::Keys(&keys)).await;
    let rows = rows.map_err(|error| refused(&error))?;
    let is_more = keys.len() == REPAIRED_MAX;
    Ok((rows, keys.into_iter().next_back().filter(|_| is_more)))
}

/// The keys of rows that aren't right, or are noted, in their order.
async fn wrong_keys(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    range: &Chunk,
) -> Result<Vec<Key>, Error> {
    let shape = statements.shape;
    let keys: Vec<String> = (0..shape.keys.len()).map(|at| format!("x{at}")).collect();
    let pick = Pick::Chunk(range);
    let sql = format!(
        "SELECT {} FROM {} WHERE found <> {} ORDER BY {} LIMIT {REPAIRED_MAX}",
        as_text(&keys),
        statements.judged(&pick),
        Found::Right as u8,
        keys.iter().map(|x| format!("phasegate_found.{x}")).collect::<Vec<_>>().join(", ")
    );
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)), shape);
    let rows = query.fetch_all(conn).await.map_err(|error| refused(&error))?;
    rows.iter().map(|row| cells::key(row, shape)).collect()
}

/// Locks the rows of both sides first, source before target; then each statement finds anew what is still wrong with them.
async fn repair_keys(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    pick: &Pick<'_>,
) -> Result<u64, sqlx::Error> {
    number(conn, statements, pick, statements.lock(Which::Old, pick)).await?;
    let mut rows = 0;
    if statements.shape.in_place {
        for sql in statements.forget_kept(pick) {
            write(conn, statements, pick, sql).await?;
        }
    } else {
        number(conn, statements, pick, statements.lock(Which::New, pick)).await?;
        if let Some(sql) = statements.remove_extra(pick) {
            rows += write(conn, statements, pick, sql).await?;
        }
        rows += write(conn, statements, pick, statements.insert(pick)).await?;
    }
    if let Some(sql) = statements.update(pick) {
        rows += write(conn, statements, pick, sql).await?;
    }
    Ok(rows)
}

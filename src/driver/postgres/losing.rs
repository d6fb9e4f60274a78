//! Comparing a chunk for the way back, where all that counts is what the new side has and the old side doesn't account for.
//!
//! A row of the old side may be one that can't be converted at all: parked, or the first of a type that never fits. A comparison
//! fails there, and with it the way back, though nothing of such a row is on the new side, or only what the sync left there.
//!
//! Invariants:
//! - Every row of the new side in the chunk is looked at, but for those whose keys are parked: of these it is known that they stand as
//!   they were before the write that could not follow.
//! - What can't be compared counts as different, never as equal.
//!
//! Absent on purpose: rows that only the old side has. Going back loses none of them.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::Postgres;
use super::catalogue::quote;
use super::cells;
use super::error::failed;
use super::ledger::has_table;
use super::prepared;
use super::shape::Shape;
use super::shape_sql::{Pick, Statements, Which};
use super::sink::is_of_a_row;
use super::source::as_text;
use super::verify::{by_index, compare, tables};
use crate::bounds::verify::KEYS_AT_ONCE;
use crate::copy::chunk::{Chunk, Key};
use crate::copy::compare::{Compared, Named};
use crate::driver::Error;
use crate::run::{Difference, DifferenceKind, Direction, Mapping};

impl Postgres {
    /// Compares what the new side has in a chunk.
    pub(super) async fn compare_new_side(
        &self,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        match self.compare_naming(mapping, direction, (chunk, Named::OfNewSide)).await {
            Ok(compared) if compared.extra + compared.different == 0 => return Ok(compared),
            Ok(compared) if !self.has_parked(mapping).await? => return Ok(compared),
            Err(error) if !is_about_values(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let mut reader = self.connections.snapshot_of(&tables(mapping)).await?;
        let shape = prepared::shape(&self.shapes, reader.conn()?, mapping).await?;
        let schema = self.connections.schema();
        let statements = Statements::of(reader.conn()?, schema, (&shape, direction)).await?;
        by_index(reader.conn()?).await?;
        let parked = parked_table(reader.conn()?, &shape, schema).await?;
        let keys = keys(reader.conn()?, &shape, (chunk, parked.as_deref())).await?;
        let mut sum = Compared::default();
        for some in keys.chunks(KEYS_AT_ONCE) {
            sum.add(compare_keys(reader.conn()?, &statements, some).await?);
        }
        reader.release().await;
        Ok(sum)
    }

    async fn has_parked(&self, mapping: &Mapping) -> Result<bool, Error> {
        let mut reader = self.connections.snapshot_of(&tables(mapping)).await?;
        let shape = prepared::shape(&self.shapes, reader.conn()?, mapping).await?;
        let table = parked_table(reader.conn()?, &shape, self.connections.schema()).await?;
        let Some(table) = table else {
            reader.release().await;
            return Ok(false);
        };
        let sql = format!("SELECT EXISTS (SELECT FROM {table})");
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(reader.conn()?).await;
        let any = row.and_then(|row| row.try_get(0)).map_err(failed("look for parked rows"))?;
        reader.release().await;
        Ok(any)
    }
}

/// Whether an error is about values, or about types that never fit.
fn is_about_values(error: &Error) -> bool {
    let Error::Failed(failure) = error else { return false };
    let code = failure.code.as_deref().unwrap_or_default();
    is_of_a_row(code) || is_about_types(code)
}

/// Types that don't compare, convert or fit, and functions that aren't there for them.
fn is_about_types(code: &str) -> bool {
    matches!(code, "42804" | "42846" | "42883" | "42P18" | "42725")
}

/// The table of parked rows, where it is there. `schema` is our own, quoted.
async fn parked_table(
    conn: &mut PgConnection,
    shape: &Shape,
    schema: &str,
) -> Result<Option<String>, Error> {
    let name = format!("{schema}.{}", quote(&shape.parked_name()));
    Ok(has_table(conn, &name).await?.then_some(name))
}

/// The keys of the new side in a chunk that are not parked.
async fn keys(
    conn: &mut PgConnection,
    shape: &Shape,
    (chunk, parked): (&Chunk, Option<&str>),
) -> Result<Vec<Key>, Error> {
    let names = shape.key_names(Which::New);
    let marks = shape.mark_columns();
    let equal: Vec<String> = marks
        .iter()
        .zip(&names)
        .map(|(mark, name)| format!("phasegate_parked.{mark} = {name}"))
        .collect();
    let parked = parked.map_or_else(String::new, |table| {
        let equal = equal.join(" AND ");
        format!(" AND NOT EXISTS (SELECT FROM {table} AS phasegate_parked WHERE {equal})")
    });
    let sql = format!(
        "SELECT {} FROM {}{parked} ORDER BY {}",
        as_text(&names),
        shape.rows_sql(Which::New, &Pick::Chunk(chunk)),
        names.join(", ")
    );
    let query = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)).persistent(false), chunk);
    let rows = query.fetch_all(conn).await.map_err(failed("read the new side's keys"))?;
    rows.iter().map(|row| cells::key(row, shape)).collect()
}

/// Compares keys of the new side; those of which a part can't be compared in smaller parts, down to single ones.
async fn compare_keys(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    keys: &[Key],
) -> Result<Compared, Error> {
    let mut sum = Compared::default();
    let mut left: Vec<&[Key]> = vec![keys];
    while let Some(some) = left.pop() {
        if some.is_empty() {
            continue;
        }
        say(conn, "SAVEPOINT phasegate_compared").await?;
        match compare(conn, statements, (&Pick::Keys(some), Named::OfNewSide)).await {
            Ok(compared) => {
                say(conn, "RELEASE SAVEPOINT phasegate_compared").await?;
                sum.add(compared);
            }
            Err(error) if is_about_values(&error) => {
                say(conn, "ROLLBACK TO SAVEPOINT phasegate_compared").await?;
                let is_of_all = matches!(&error, Error::Failed(it) if it.code.as_deref().is_some_and(is_about_types));
                if some.len() == 1 || is_of_all {
                    sum.add(not_compared(some));
                } else {
                    let (one, other) = some.split_at(some.len() / 2);
                    left.extend([one, other]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

/// What can't be compared counts as different. Of its columns nothing is known.
fn not_compared(keys: &[Key]) -> Compared {
    let rows = keys.len() as u64;
    let mut compared = Compared { rows, different: rows, ..Compared::default() };
    for key in keys {
        let (columns, values) = (Vec::new(), Vec::new());
        let one =
            Difference { kind: DifferenceKind::Different, key: key.to_string(), columns, values };
        compared.name(one, Named::OfNewSide);
    }
    compared
}

async fn say(conn: &mut PgConnection, words: &'static str) -> Result<(), Error> {
    let done = sqlx::query(words).execute(conn).await;
    done.map(|_| ()).map_err(failed("compare rows"))
}

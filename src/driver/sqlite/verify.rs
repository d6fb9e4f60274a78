//! Comparing both sides of a mapping: [`Verifier`] for SQLite.
//!
//! Invariants:
//! - A chunk is compared in one snapshot, both ways: every row of the old side that the filter lets pass against the new
//!   side, and every row of the new side against the old one. What is beyond either side's keys belongs to a chunk too.
//! - Columns are compared by the same text that the triggers use, so a difference is exactly what a trigger would not
//!   leave standing.
//! - Keys that triggers noted are no excuse here: with SQLite's one writer a trigger has done its work when its statement
//!   ends, so both sides agree in every snapshot.
//!
//! Absent on purpose: verdicts, and the order of chunks.

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::dual_write::finish;
use super::error::{failed, refused};
use super::shape::Shape;
use super::shape_sql::{KEPT, Naming, Which, all, any, copy_sql, literal};
use super::{Sqlite, catalogue, cells, ledger, passes, prepared};
use crate::bounds::message::{SAMPLES_MAX, VALUE_CHARS_MAX, VALUES_MAX};
use crate::bounds::verify::SQLITE_SHOWN_OF_MAX;
use crate::clock::Stopwatch;
use crate::copy::chunk::{Chunk, Key};
use crate::copy::compare::{Compared, Named};
use crate::driver::{Basis, Error, Fence, TxKind, Verifier};
use crate::run::{
    ColumnValues, Difference, DifferenceKind, Direction, Mapping, Method, OnDelete, RunId,
    ShownValue, StepId, Winner,
};

#[async_trait]
impl Verifier for Sqlite {
    async fn verify_bound(
        &self,
        mapping: &Mapping,
        after: Option<&Key>,
        rows: u32,
    ) -> Result<Option<Key>, Error> {
        let mut reader = self.connections.snapshot().await?;
        let shape = prepared::shape(&self.shapes, reader.conn(), mapping).await?;
        let range = Chunk { lo: after.cloned(), hi: None };
        let query = sqlx::query(AssertSqlSafe(bound_sql(&shape, &range)));
        let query = cells::bind_chunk(query, &range).bind(i64::from(rows.max(1)) - 1);
        let row = query.fetch_optional(reader.conn()).await.map_err(|error| refused(&error))?;
        let bound = row.map(|row| cells::key(&row, shape.keys.len())).transpose()?;
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
        self.compare_naming(mapping, direction, (chunk, Named::OfNewSide)).await
    }

    async fn compare_partly(
        &self,
        mapping: &Mapping,
        direction: Direction,
        method: Method,
    ) -> Result<Compared, Error> {
        let mut reader = self.connections.snapshot().await?;
        let shape = prepared::shape(&self.shapes, reader.conn(), mapping).await?;
        let everything = Chunk { lo: None, hi: None };
        let mut rows = Rows::all(&shape, direction, &everything);
        let compared = match method {
            Method::Full => rows.compare(reader.conn(), Named::Any).await?,
            Method::Counts => rows.count(reader.conn()).await?,
            Method::Sample(size) => {
                rows.old = sampled(reader.conn(), &shape, Which::Old, size).await?;
                rows.new = sampled(reader.conn(), &shape, Which::New, size).await?;
                rows.compare(reader.conn(), Named::Any).await?
            }
        };
        reader.release().await;
        Ok(compared)
    }

    async fn basis(&self, mapping: &Mapping) -> Result<Basis, Error> {
        let mut reader = self.connections.read().await?;
        let basis = passes::basis(reader.conn(), mapping).await?;
        reader.release().await;
        Ok(basis)
    }

    async fn kept_pass(&self, run: &RunId, step: &StepId) -> Result<Option<String>, Error> {
        let mut reader = self.connections.read().await?;
        let kept = passes::kept(reader.conn(), run, step).await?;
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
        let kept = passes::keep(tx.conn(), fence, (step, pass)).await;
        finish(tx, kept).await
    }

    async fn repair_chunk(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<u64, Error> {
        // A trigger that was dropped and made again leaves no trace, so that with `both` nobody can tell whose write is missing
        // on the other side unless the mapping says whose counts.
        if direction == Direction::Both && mapping.winner == Winner::New {
            return Ok(0);
        }
        let mut tx = self.connections.begin(fence, TxKind::Repair).await?;
        let repaired = async {
            let shape = prepared::shape(&self.shapes, tx.conn(), mapping).await?;
            let mut changed = 0;
            for sql in repair_sql(&shape, direction, chunk) {
                let query = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), chunk);
                let done = query.execute(tx.conn()).await.map_err(|error| refused(&error))?;
                changed += done.rows_affected();
            }
            Ok(changed)
        }
        .await;
        finish(tx, repaired).await
    }
}

impl Sqlite {
    /// Compares a chunk both ways, in one snapshot.
    async fn compare_naming(
        &self,
        mapping: &Mapping,
        direction: Direction,
        (chunk, named): (&Chunk, Named),
    ) -> Result<Compared, Error> {
        let mut reader = self.connections.snapshot().await?;
        let shape = prepared::shape(&self.shapes, reader.conn(), mapping).await?;
        let rows = Rows {
            shape: &shape,
            direction,
            old: shape.in_chunk(Which::Old, chunk),
            new: shape.in_chunk(Which::New, chunk),
            chunk,
        };
        let compared = rows.compare(reader.conn(), named).await?;
        reader.release().await;
        Ok(compared)
    }
}

/// The `n`-th key of each side behind a bound, and of the two the one that comes first.
fn bound_sql(shape: &Shape, range: &Chunk) -> String {
    let place = cells::places(range) + 1;
    let side = |which: Which| {
        let keys: Vec<String> = shape
            .key(which)
            .iter()
            .enumerate()
            .map(|(at, name)| format!("{name} AS k{at}"))
            .collect();
        format!(
            "SELECT * FROM (SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT 1 OFFSET ?{place})",
            keys.join(", "),
            shape.table(which),
            shape.in_chunk(which, range),
            shape.key_order(which)
        )
    };
    if shape.in_place {
        return side(Which::Old);
    }
    let order: Vec<String> = shape
        .keys
        .iter()
        .enumerate()
        .map(|(at, pair)| format!("k{at}{}", pair.collate()))
        .collect();
    format!(
        "SELECT * FROM ({} UNION ALL {}) ORDER BY {} LIMIT 1",
        side(Which::Old),
        side(Which::New),
        order.join(", ")
    )
}

/// The condition that picks about `size` rows of a table, spread evenly over its keys from a random start.
async fn sampled(
    conn: &mut SqliteConnection,
    shape: &Shape,
    which: Which,
    size: u32,
) -> Result<String, Error> {
    let table = shape.table(which);
    let sql = format!("SELECT count(*), abs(random() % 1000000007) FROM {table}");
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
    let row = row.map_err(failed("count rows"))?;
    let rows: i64 = row.try_get(0).map_err(failed("count rows"))?;
    let chance: i64 = row.try_get(1).map_err(failed("count rows"))?;
    let step = (rows / i64::from(size.max(1))).max(1);
    let (keys, order) = (shape.key(which).join(", "), shape.key_order(which));
    let names: Vec<String> = (0..shape.keys.len()).map(|at| format!("k{at}")).collect();
    let names = names.join(", ");
    Ok(format!(
        "{} IN (WITH phasegate_keys ({names}, n) AS (SELECT {keys}, row_number() OVER (ORDER BY {order}) FROM {table}) \
         SELECT {names} FROM phasegate_keys WHERE n % {step} = {})",
        shape.key_row(which),
        chance % step
    ))
}

/// The rows of both sides that are compared.
pub(super) struct Rows<'a> {
    shape: &'a Shape,
    direction: Direction,
    /// Which rows of the old side, beside the filter.
    old: String,
    /// Which rows of the new side.
    new: String,
    /// Whose bounds the conditions bind.
    chunk: &'a Chunk,
}

impl<'a> Rows<'a> {
    /// Every row of both sides. `everything` is a chunk without bounds.
    pub(super) fn all(shape: &'a Shape, direction: Direction, everything: &'a Chunk) -> Self {
        Self { shape, direction, old: all(&[]), new: all(&[]), chunk: everything }
    }

    /// Compares them both ways.
    pub(super) async fn compare(
        &self,
        conn: &mut SqliteConnection,
        named: Named,
    ) -> Result<Compared, Error> {
        let watch = Stopwatch::start();
        let [old_rows, missing, different] = self.numbers(conn, self.forward_sql()).await?;
        let [new_rows, extra, _] = match self.backward_sql() {
            Some(sql) => self.numbers(conn, sql).await?,
            None => [0, 0, 0],
        };
        let rows = old_rows.max(new_rows);
        let mut compared = Compared { rows, missing, extra, different, ..Compared::default() };
        if different > 0 || missing > 0 && named == Named::Any {
            compared.samples = self.forward_samples(conn, named).await?;
        }
        if extra > 0 && compared.samples.len() < SAMPLES_MAX {
            let mut extras = self.backward_samples(conn).await?;
            extras.truncate(SAMPLES_MAX - compared.samples.len());
            compared.samples.append(&mut extras);
        }
        compared.took_us = watch.elapsed_us();
        Ok(compared)
    }

    async fn count(&self, conn: &mut SqliteConnection) -> Result<Compared, Error> {
        let watch = Stopwatch::start();
        let shape = self.shape;
        let (old, new) = (shape.table(Which::Old), shape.table(Which::New));
        let filter = shape.and_filter(Which::Old);
        let sql = format!(
            "SELECT (SELECT count(*) FROM {old} WHERE 1{filter}), (SELECT count(*) FROM {new}), 0"
        );
        let [old_rows, new_rows, _] = self.numbers(conn, sql).await?;
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

    /// Three counts that a query gives.
    async fn numbers(&self, conn: &mut SqliteConnection, sql: String) -> Result<[u64; 3], Error> {
        let query = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), self.chunk);
        let row = query.fetch_one(conn).await.map_err(|error| refused(&error))?;
        let at = |at: usize| ledger::unsigned(row.try_get(at).map_err(failed("compare rows"))?);
        Ok([at(0)?, at(1)?, at(2)?])
    }

    /// Rows of the old side, each with its row of the new side where there is one.
    fn joined(&self, join: &str) -> String {
        let shape = self.shape;
        let (olds, news) = (shape.old_list(self.direction), shape.new_list(self.direction));
        let (old, new) = (shape.table(Which::Old), shape.table(Which::New));
        let rows = format!("{}{}", self.old, shape.and_filter(Which::Old));
        if shape.in_place {
            return shape.pair(self.direction, &rows, "1");
        }
        let keys: Vec<String> = shape
            .keys
            .iter()
            .enumerate()
            .map(|(at, pair)| format!("t.q{at} = f.k{at}{}", pair.collate()))
            .collect();
        format!(
            "(SELECT {olds} FROM {old} WHERE {rows}) AS f {join} (SELECT {news} FROM {new}) AS t ON {}",
            all(&keys)
        )
    }

    /// Rows of the old side; of them missing on the new one; of them different.
    fn forward_sql(&self) -> String {
        let right = self.shape.is_right(self.direction, Naming::Pair);
        format!(
            "SELECT count(*), coalesce(sum(q0 IS NULL), 0), coalesce(sum(q0 IS NOT NULL AND NOT ({right})), 0) FROM {}",
            self.joined("LEFT JOIN")
        )
    }

    /// What makes a row of the new side extra: that its source is gone and that it should have gone with it.
    fn is_extra(&self) -> Option<String> {
        let shape = self.shape;
        let has = shape.has(Which::Old, &shape.key(Which::New));
        match shape.on_delete {
            OnDelete::Delete => Some(format!("NOT {has}")),
            OnDelete::Nullify => {
                let table = shape.table(Which::New);
                let left: Vec<String> = shape
                    .written_beside_key(Which::New)
                    .map(|(_, w)| format!("{table}.{} IS NOT NULL", catalogue::quote(&w.column)))
                    .collect();
                Some(format!("NOT {has} AND {}", any(&left)))
            }
            OnDelete::Ignore => None,
        }
    }

    /// Rows of the new side, and of them extra ones.
    fn backward_sql(&self) -> Option<String> {
        if self.shape.in_place {
            return None;
        }
        let extra = self.is_extra().unwrap_or_else(|| "0".to_owned());
        let table = self.shape.table(Which::New);
        Some(format!(
            "SELECT count(*), coalesce(sum({extra}), 0), 0 FROM {table} WHERE {}",
            self.new
        ))
    }

    async fn forward_samples(
        &self,
        conn: &mut SqliteConnection,
        named: Named,
    ) -> Result<Vec<Difference>, Error> {
        let shape = self.shape;
        let width = shape.keys.len();
        let right = shape.is_right(self.direction, Naming::Pair);
        let mut items: Vec<String> = (0..width).map(|at| format!("k{at}")).collect();
        items.push("q0 IS NULL".to_owned());
        let mut written = Vec::new();
        let beside_key: Vec<usize> =
            shape.written_beside_key(Which::New).map(|(place, _)| place).collect();
        let has_values = shape.writes.len() <= SQLITE_SHOWN_OF_MAX;
        for (place, write) in shape.writes.iter().enumerate() {
            let part = shape.parts.iter().position(|part| part.writes.contains(&place));
            let Some(part) = part else { continue };
            let wrong = format!("NOT {}", shape.part_is_right(part, self.direction, Naming::Pair));
            let same = Shape::same(write, &format!("n{place}"), &format!("w{place}"));
            items.push(format!("{wrong} AND NOT {same}"));
            if has_values {
                items.extend([shown(&format!("w{place}")), shown(&format!("n{place}"))]);
            }
            written.push((write.column.clone(), beside_key.contains(&place)));
        }
        let chosen = match named {
            Named::Any => format!("q0 IS NULL OR NOT ({right})"),
            Named::OfNewSide => format!("q0 IS NOT NULL AND NOT ({right})"),
        };
        let sql = format!(
            "SELECT {} FROM {} WHERE {chosen} LIMIT {SAMPLES_MAX}",
            items.join(", "),
            self.joined("LEFT JOIN")
        );
        let rows = self.rows(conn, sql).await?;
        rows.iter()
            .map(|row| {
                let is_missing: bool = row.try_get(width).map_err(failed("compare rows"))?;
                let (mut columns, mut values) = (Vec::new(), Vec::new());
                for (at, (name, is_beside_key)) in written.iter().enumerate() {
                    let place = width + 1 + if has_values { 5 * at } else { at };
                    let differs: Option<bool> =
                        row.try_get(place).map_err(failed("compare rows"))?;
                    let differs = !is_missing && differs == Some(true);
                    if differs {
                        columns.push(name.clone());
                    }
                    let is_shown = has_values && *is_beside_key && values.len() < VALUES_MAX;
                    if is_shown && (differs || is_missing) {
                        values.push(ColumnValues {
                            column: name.clone(),
                            expected: Some(value(row, place + 1)?),
                            found: (!is_missing).then(|| value(row, place + 3)).transpose()?,
                        });
                    }
                }
                let kind =
                    if is_missing { DifferenceKind::Missing } else { DifferenceKind::Different };
                Ok(Difference { kind, key: cells::key(row, width)?.to_string(), columns, values })
            })
            .collect()
    }

    async fn backward_samples(
        &self,
        conn: &mut SqliteConnection,
    ) -> Result<Vec<Difference>, Error> {
        let shape = self.shape;
        let width = shape.keys.len();
        let Some(extra) = self.is_extra() else { return Ok(Vec::new()) };
        let table = shape.table(Which::New);
        let written: Vec<&str> = shape
            .written_beside_key(Which::New)
            .map(|(_, write)| write.column.as_str())
            .take(VALUES_MAX)
            .collect();
        let mut items = shape.key(Which::New);
        items.extend(
            written.iter().map(|name| shown(&format!("{table}.{}", catalogue::quote(name)))),
        );
        let sql = format!(
            "SELECT {} FROM {table} WHERE {} AND {extra} LIMIT {SAMPLES_MAX}",
            items.join(", "),
            self.new
        );
        let rows = self.rows(conn, sql).await?;
        rows.iter()
            .map(|row| {
                let values = written.iter().enumerate().map(|(at, name)| {
                    let found = Some(value(row, width + 2 * at)?);
                    Ok(ColumnValues { column: (*name).to_owned(), expected: None, found })
                });
                Ok(Difference {
                    kind: DifferenceKind::Extra,
                    key: cells::key(row, width)?.to_string(),
                    columns: Vec::new(),
                    values: values.collect::<Result<_, Error>>()?,
                })
            })
            .collect()
    }

    async fn rows(
        &self,
        conn: &mut SqliteConnection,
        sql: String,
    ) -> Result<Vec<SqliteRow>, Error> {
        let query = cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), self.chunk);
        query.fetch_all(conn).await.map_err(|error| refused(&error))
    }
}

/// A value for people: the beginning of its text, and how long that is. Numbers and blobs are written as SQLite reads them.
fn shown(value: &str) -> String {
    let text = format!(
        "CASE typeof({value}) WHEN 'text' THEN {value} WHEN 'null' THEN NULL ELSE quote({value}) END"
    );
    format!("substr({text}, 1, {VALUE_CHARS_MAX}), length({text})")
}

/// What [`shown`] gave.
fn value(row: &SqliteRow, at: usize) -> Result<ShownValue, Error> {
    let text: Option<String> = row.try_get(at).map_err(failed("compare rows"))?;
    let length: Option<i64> = row.try_get(at + 1).map_err(failed("compare rows"))?;
    Ok(ShownValue::cut(text, length.map(i64::cast_unsigned)))
}

/// The statements that make the new side of a chunk as the old side says, each with the chunk's bounds to bind.
fn repair_sql(shape: &Shape, direction: Direction, chunk: &Chunk) -> Vec<String> {
    let (old, new) = (shape.table(Which::Old), shape.table(Which::New));
    let (old_rows, new_rows) =
        (shape.in_chunk(Which::Old, chunk), shape.in_chunk(Which::New, chunk));
    let filter = shape.and_filter(Which::Old);
    if shape.in_place {
        let mut statements = Vec::new();
        if direction == Direction::Both {
            let kept: Vec<String> = (1..=shape.keys.len()).map(|at| format!("k{at}")).collect();
            statements.extend((0..shape.parts.len()).map(|at| {
                format!(
                    "DELETE FROM {KEPT} WHERE mapping = {} AND part = {at} AND ({}) IN \
                     (SELECT {} FROM {old} WHERE {old_rows}{filter} AND NOT {})",
                    literal(&shape.id),
                    kept.join(", "),
                    shape.key(Which::Old).join(", "),
                    shape.part_is_right(at, direction, Naming::Row)
                )
            }));
        }
        statements.push(copy_sql(shape, direction, chunk));
        return statements;
    }
    let rows = Rows { shape, direction, old: old_rows.clone(), new: new_rows.clone(), chunk };
    let mut statements = Vec::new();
    match (shape.on_delete, rows.is_extra()) {
        (OnDelete::Delete, Some(extra)) => {
            statements.push(format!("DELETE FROM {new} WHERE {new_rows} AND {extra}"));
        }
        (OnDelete::Nullify, Some(extra)) => {
            let sets: Vec<String> = shape
                .written_beside_key(Which::New)
                .map(|(_, write)| format!("{} = NULL", catalogue::quote(&write.column)))
                .collect();
            let sets = sets.join(", ");
            statements.push(format!("UPDATE {new} SET {sets} WHERE {new_rows} AND {extra}"));
        }
        _ => {}
    }
    let is_owned = |at: &usize| {
        let part = shape.parts.iter().find(|part| part.writes.contains(at));
        direction == Direction::Forward || part.is_some_and(|part| !part.is_constant())
    };
    let owned: Vec<usize> = (0..shape.writes.len()).filter(is_owned).collect();
    if !owned.is_empty() {
        let columns: Vec<String> =
            owned.iter().map(|at| catalogue::quote(&shape.writes[*at].column)).collect();
        let values: Vec<&str> = owned.iter().map(|at| shape.writes[*at].value.as_str()).collect();
        let keys: Vec<String> = (0..shape.keys.len()).map(|at| format!("q{at}")).collect();
        statements.push(format!(
            "UPDATE {new} SET ({}) = (SELECT {} FROM {old} WHERE {}{filter}) \
             WHERE {} IN (SELECT {} FROM {} WHERE NOT ({}))",
            columns.join(", "),
            values.join(", "),
            shape.key_is(Which::Old, &shape.key(Which::New)),
            shape.key_row(Which::New),
            keys.join(", "),
            rows.joined("JOIN"),
            shape.is_right(direction, Naming::Pair)
        ));
    }
    let (columns, values) = shape.insertion(Which::New);
    statements.push(format!(
        "INSERT INTO {new} ({columns}) SELECT {values} FROM {old} WHERE {old_rows}{filter} AND NOT {}",
        shape.has(Which::New, &shape.key(Which::Old))
    ));
    statements
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture::{Database, mapping};
    use super::*;
    use crate::copy::chunk::Cell;

    #[tokio::test]
    async fn chunks_are_compared_by_index_on_both_sides() {
        let database = Database::with(
            "CREATE TABLE o (a TEXT COLLATE NOCASE NOT NULL, b INTEGER NOT NULL, v, UNIQUE (a, b));
             CREATE TABLE n (a TEXT COLLATE NOCASE NOT NULL, b INTEGER NOT NULL, v, PRIMARY KEY (a, b)) WITHOUT ROWID;",
        )
        .await;
        let both = mapping(("o", &["a", "b"]), ("n", &["a", "b"]));
        let mut client = database.client().await;
        let o = catalogue::table(&mut client, "o").await.unwrap().unwrap();
        let n = catalogue::table(&mut client, "n").await.unwrap().unwrap();
        let shape = Shape::resolve(&both, &o, &n).unwrap();
        let key = Key(vec![Cell::Text("x".into()), Cell::Integer(1)]);
        let chunk = Chunk { lo: Some(key.clone()), hi: Some(key) };
        for direction in [Direction::Forward, Direction::Both] {
            let rows = Rows {
                shape: &shape,
                direction,
                old: shape.in_chunk(Which::Old, &chunk),
                new: shape.in_chunk(Which::New, &chunk),
                chunk: &chunk,
            };
            let mut texts = vec![rows.forward_sql(), rows.backward_sql().unwrap()];
            texts.push(bound_sql(&shape, &Chunk { lo: chunk.lo.clone(), hi: None }));
            texts.extend(repair_sql(&shape, direction, &chunk));
            for sql in texts {
                let explain = format!("EXPLAIN QUERY PLAN {sql}");
                let query = cells::bind_chunk(sqlx::query(AssertSqlSafe(explain)), &chunk);
                let steps = query.fetch_all(&mut client).await.unwrap();
                for step in steps {
                    let step: String = step.get("detail");
                    // What SQLite scans may only be the handful that subqueries have found.
                    let scans = step.contains("SCAN o")
                        || step.contains("SCAN n")
                        || step.contains("SCAN t")
                        || step.contains("AUTOMATIC");
                    assert!(!scans, "{step}\n{sql}");
                }
            }
        }
    }
}

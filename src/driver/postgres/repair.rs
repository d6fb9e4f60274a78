//! Putting right what a comparison finds: the guarded path for rows that are wrong on the new side.
//!
//! Invariants:
//! - What is written was locked before, the old side's row before the new one's, and is decided on in a statement behind the
//!   locks. What is not there can't be locked: whoever makes it comes to its copy after us, or before us and we see it.
//! - The old side is the truth only where nothing can be lost by that: with `forward`; with `winner: old`; and with `both`
//!   where nobody has altered a trigger of the new side, or a function of the sync, since the sync was made. Then every write
//!   of the new side is on the old one, and what differs is a write of the old side that was not carried over. Everything else
//!   is left as it is: a row that only one side has may be one that a client of the new shape has made, or has deleted.
//!
//! Absent on purpose: deciding which rows are wrong, which is the comparison's, and the pass that must follow.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::cells;
use super::connection::Tx;
use super::dual_write::run;
use super::error::{failed, refused};
use super::shape::Shape;
use super::shape_sql::{Found, Pick, Statements, Which};
use super::sink::{locked, prepare, write};
use super::source::as_text;
use super::sync_sql::{function_name, trigger_name};
use super::{Postgres, patience, prepared};
use crate::bounds::verify::REPAIRED_AT_ONCE;
use crate::copy::chunk::{Chunk, Key};
use crate::driver::Error;
use crate::run::{Direction, Mapping, Winner};

/// Whether the triggers of the sync on a table and its partitions, and the sync's functions, are all as one transaction made
/// them: rows of the catalogue carry the transaction that wrote them last. `$1` is the table, `$2` what the triggers' names
/// begin with, `$3` our schema and `$4` what the functions' names begin with.
const AS_MADE: &str = "\
SELECT count(DISTINCT made.by) = 1 AND bool_or(made.fires) FROM (
    SELECT t.xmin::text AS by, true AS fires FROM pg_trigger t WHERE starts_with(t.tgname, $2) AND t.tgrelid IN
        (SELECT $1::bigint::oid UNION SELECT relid::oid FROM pg_partition_tree($1::bigint::oid::regclass))
    UNION ALL
    SELECT p.xmin::text, false FROM pg_proc p
    WHERE p.pronamespace = to_regnamespace($3) AND starts_with(p.proname, $4)) AS made";

impl Postgres {
    /// Puts the first wrong rows of a range right. Returns the rows changed, and the last key when there may be more behind it.
    pub(super) async fn repair(
        &self,
        tx: &mut Tx<'_>,
        (mapping, direction): (&Mapping, Direction),
        range: &Chunk,
    ) -> Result<(u64, Option<Key>), Error> {
        let shape = prepared::shape(&self.shapes, tx.conn()?, mapping).await?;
        prepare(tx, &shape).await?;
        let schema = tx.schema().to_owned();
        let statements = Statements::of(tx.conn()?, &schema, (&shape, direction)).await?;
        if !is_old_the_truth(tx, &shape, direction).await? {
            return Ok((0, None));
        }
        let keys = wrong_keys(tx.conn()?, &statements, range).await?;
        if keys.is_empty() {
            return Ok((0, None));
        }
        patience::begin(tx).await?;
        let rows = repair_keys(tx.conn()?, &statements, &Pick::Keys(&keys)).await;
        let rows = rows.map_err(|error| patience::yielded(refused(&error)))?;
        let is_more = keys.len() == REPAIRED_AT_ONCE;
        Ok((rows, keys.into_iter().next_back().filter(|_| is_more)))
    }
}

/// Whether making the new side as the old one says can lose nothing that a client wrote. Once it is said it holds until the end
/// of the transaction: whoever switches a trigger waits for the locks that are taken here.
async fn is_old_the_truth(
    tx: &mut Tx<'_>,
    shape: &Shape,
    direction: Direction,
) -> Result<bool, Error> {
    if direction == Direction::Forward || shape.winner == Winner::Old {
        return Ok(true);
    }
    let lock = format!("LOCK TABLE {}, {} IN ROW EXCLUSIVE MODE", shape.old.sql(), shape.new.sql());
    run(tx.conn()?, "lock the tables to repair", lock).await?;
    let schema = tx.schema().to_owned();
    let doing = "look whether triggers were altered";
    let row = sqlx::query(AS_MADE)
        .bind(i64::from(shape.new.oid))
        .bind(trigger_name(shape, ""))
        .bind(schema)
        .bind(function_name(shape, ""))
        .fetch_one(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    Ok(row.try_get::<Option<bool>, _>(0).map_err(failed(doing))?.unwrap_or(false))
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
        "SELECT {} FROM {} WHERE found <> {} ORDER BY {} LIMIT {REPAIRED_AT_ONCE}",
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
pub(super) async fn repair_keys(
    conn: &mut PgConnection,
    statements: &Statements<'_>,
    pick: &Pick<'_>,
) -> Result<u64, sqlx::Error> {
    locked(conn, statements, pick, statements.lock(Which::Old, pick)).await?;
    let mut rows = 0;
    if statements.shape.in_place {
        patience::had(conn).await?;
        for sql in statements.forget_kept(pick) {
            write(conn, statements, pick, sql).await?;
        }
    } else {
        locked(conn, statements, pick, statements.lock(Which::New, pick)).await?;
        patience::had(conn).await?;
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

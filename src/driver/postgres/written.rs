//! Whether clients wrote to the new side alone: what a forward `retire` is taken back by, where nothing may be lost.
//!
//! Both sides are compared while clients work, chunk by chunk, and only what was written meanwhile is looked at under the lock.
//! A trigger on the new side notes it. It is put there before the comparison begins: its lock waits for every older writer, so
//! whatever the comparison doesn't see is noted.
//!
//! Invariants:
//! - A write is noted in the transaction that makes it, so it is noted if it is committed, and seen under the lock.
//! - What the notes rest on is the same at the end as it was when they began (`passes`): no trigger of theirs was switched off
//!   meanwhile, and no partition came or went, with rows that no trigger fires for.
//! - In place, a write that changes no column of the mapping, or deletes the row, is none: it reaches both sides.
//!
//! Absent on purpose: looking at what was noted. A write to the new side that leaves both sides equal is so rare that the
//! comparison is made again instead.

use sqlx::Row as _;

use super::catalogue::{literal, quote};
use super::connection::{Tx, TxKind};
use super::dual_write::{finish, lock_in_order};
use super::error::failed;
use super::guard_sql::whole_tree;
use super::rename::run;
use super::retirable::Retiring;
use super::shape::{Shape, shape};
use super::{Postgres, passes};
use crate::copy::chunk::Chunk;
use crate::copy::compare::Compared;
use crate::driver::lost::lost_rows;
use crate::driver::{Basis, Error, Fence, Verifier as _, Work};
use crate::run::{Direction, Mapping};

/// How many rows are compared at once.
const ROWS: u32 = 20_000;

/// The table of notes, qualified.
fn notes(tx: &Tx<'_>, shape: &Shape) -> String {
    tx.ours(&format!("written_{}", shape.id))
}

/// The function of the triggers, qualified.
fn function(tx: &Tx<'_>, shape: &Shape) -> String {
    tx.ours(&format!("phasegate_written_{}", shape.id))
}

impl Postgres {
    /// Compares both sides of what a forward `retire` put aside, and has noted what is written from the beginning of that on.
    /// Returns what the notes rest on. Where the sides differ it goes on to the end, to say of how many rows.
    pub(super) async fn compare_aside(
        &self,
        fence: &Fence,
        work: &Work,
        what: &Retiring<'_>,
    ) -> Result<Basis, Error> {
        let after = what.mapping.retired(what.shape);
        let mut tx = self.begin_alone(fence, work, TxKind::Watch).await?;
        let done = watch(&mut tx, &after).await;
        let basis = finish(tx, done).await?;
        let (mut lo, mut found) = (None, Compared::default());
        loop {
            let hi = self.verify_bound(&after, lo.as_ref(), ROWS).await?;
            let chunk = Chunk { lo, hi: hi.clone() };
            found.add(self.compare_chunk(&after, Direction::Forward, &chunk).await?);
            if hi.is_none() {
                break;
            }
            lo = hi;
        }
        if found.is_clean() {
            return Ok(basis);
        }
        let lost = lost_rows(after.name.as_str(), &found);
        Err(self.end_watch(fence, work, &after, lost).await)
    }

    /// Takes the trigger away because of an error, which it returns.
    pub(super) async fn end_watch(
        &self,
        fence: &Fence,
        work: &Work,
        after: &Mapping,
        error: Error,
    ) -> Error {
        let ended = async {
            let mut tx = self.begin_alone(fence, work, TxKind::Watch).await?;
            let ended = async {
                lock_in_order(&mut tx, &[after.into.table.as_str()], "ACCESS EXCLUSIVE").await?;
                let shape = shape(tx.conn()?, after).await?;
                unwatch(&mut tx, &shape).await
            }
            .await;
            finish(tx, ended).await
        };
        if let Err(failed) = ended.await {
            tracing::warn!(error = %failed, "a trigger of ours is left on {}", after.into.table);
        }
        error
    }
}

/// Has writes to the new side noted from now on. `after` has the names from after `retire`. Returns what the notes rest on.
async fn watch(tx: &mut Tx<'_>, after: &Mapping) -> Result<Basis, Error> {
    lock_in_order(tx, &[after.into.table.as_str()], "SHARE ROW EXCLUSIVE").await?;
    let shape = shape(tx.conn()?, after).await?;
    unwatch(tx, &shape).await?;
    let (notes, function) = (notes(tx, &shape), function(tx, &shape));
    let body = format!("BEGIN INSERT INTO {notes} VALUES (clock_timestamp()); RETURN NULL; END");
    let doing = "have writes noted";
    for sql in [
        format!("CREATE TABLE {notes} (at timestamptz NOT NULL)"),
        format!(
            "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {}",
            literal(&body)
        ),
        format!("REVOKE ALL ON FUNCTION {function}() FROM PUBLIC"),
    ] {
        run(tx.conn()?, doing, sql).await?;
    }
    let table = shape.new.sql();
    for (suffix, event) in events(&shape) {
        let trigger = quote(&format!("phasegate_written_{suffix}_{}", shape.id));
        let sql = format!("CREATE TRIGGER {trigger} AFTER {event} EXECUTE FUNCTION {function}()");
        run(tx.conn()?, doing, sql.replace(" ON % ", &format!(" ON {table} "))).await?;
        let always = format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}");
        run(tx.conn()?, doing, always).await?;
    }
    if !shape.in_place {
        note_truncate(tx, &shape).await?;
    }
    rests_on(tx, after).await
}

/// Has it noted where all rows of the new table, or of a part of it, go at once. In place both sides go with them.
async fn note_truncate(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let function = function(tx, shape);
    for table in whole_tree(tx.conn()?, &shape.new).await? {
        let trigger = quote(&format!("phasegate_written_t_{}", shape.id));
        for sql in [
            format!(
                "CREATE TRIGGER {trigger} AFTER TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            ),
            format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"),
        ] {
            run(tx.conn()?, "have writes noted", sql).await?;
        }
    }
    Ok(())
}

/// Stands for everything but the notes that tells whether something was written: both tables, their partitions, the triggers.
async fn rests_on(tx: &mut Tx<'_>, after: &Mapping) -> Result<Basis, Error> {
    let schema = tx.schema().to_owned();
    passes::basis(tx.conn()?, &schema, after).await
}

/// What is noted, for each row: the letter that stands for it, and what follows AFTER with `%` for the table.
fn events(shape: &Shape) -> Vec<(&'static str, String)> {
    if !shape.in_place {
        return vec![("r", "INSERT OR UPDATE OR DELETE ON % FOR EACH ROW".to_owned())];
    }
    let mut names: Vec<&str> = shape.writes.iter().map(|write| write.column.as_str()).collect();
    names.extend(shape.parts.iter().flat_map(|part| part.old_columns.iter().map(String::as_str)));
    names.sort_unstable();
    names.dedup();
    let differs: Vec<String> = names
        .iter()
        .map(|name| format!("OLD.{0}::text IS DISTINCT FROM NEW.{0}::text", quote(name)))
        .collect();
    vec![
        ("i", "INSERT ON % FOR EACH ROW".to_owned()),
        ("u", format!("UPDATE ON % FOR EACH ROW WHEN ({})", differs.join(" OR "))),
    ]
}

/// Whether something was written since the comparison began, or may have been: where what the notes rest on is another, nobody
/// can tell. Under the lock that keeps every writer out. `after` has the names from after `retire`.
pub(super) async fn is_written(
    tx: &mut Tx<'_>,
    (after, shape): (&Mapping, &Shape),
    basis: &Basis,
) -> Result<bool, Error> {
    if rests_on(tx, after).await? != *basis {
        return Ok(true);
    }
    let notes = notes(tx, shape);
    let doing = "see whether something was written";
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {notes})")))
        .fetch_one(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    row.try_get(0).map_err(failed(doing))
}

/// Ends that: removes the triggers, their function and the notes, where they are.
pub(super) async fn unwatch(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let doing = "end the noting of writes";
    let (notes, function) = (notes(tx, shape), function(tx, shape));
    for table in whole_tree(tx.conn()?, &shape.new).await? {
        for suffix in ["r", "i", "u", "t"] {
            let trigger = quote(&format!("phasegate_written_{suffix}_{}", shape.id));
            run(tx.conn()?, doing, format!("DROP TRIGGER IF EXISTS {trigger} ON {table}")).await?;
        }
    }
    run(tx.conn()?, doing, format!("DROP FUNCTION IF EXISTS {function}()")).await?;
    run(tx.conn()?, doing, format!("DROP TABLE IF EXISTS {notes}")).await
}

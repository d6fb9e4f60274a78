//! Whether clients wrote to the new side alone: what a `retire` is taken back by, and a sync taken out or put in again, where
//! nothing may be lost.
//!
//! A trigger on the new side notes it, from `retire` itself on, whose lock keeps every writer out. The comparison of both sides
//! alone would not do: it sees neither columns that the mapping doesn't have, nor rows that it lets be (`on_delete: ignore`). It is
//! made all the same, while clients work: it says how much there is, and sees what no trigger can, such as a partition that was
//! detached. Under the lock it is then seen that nothing is noted.
//!
//! With `both` the sync lives on behind `retire`, and only the comparison tells: it rests on the triggers of the sync, which are what
//! they were when it began. Where a sync is taken out or put in again by going back, writes are noted from before the comparison
//! on, whose lock waits for everybody who has written there.
//!
//! Invariants:
//! - A write is noted in the transaction that makes it, so it is noted if it is committed, and seen under the lock.
//! - Once a note is committed, no more are made: from then on a written row costs clients one look at a table of a few notes.
//! - SERIALIZABLE clients would fail each other by that look while there is no note, so that they note without it at first.
//! - Rows that stand where a trigger was made or switched later than the others may have come unnoted.
//! - What a sync itself brings to the new side, and what the engine writes there, is no write to it alone.
//! - In place, a write that changes no column of the mapping, or deletes the row, is none: it reaches both sides.
//!
//! Absent on purpose: looking at what was noted, so that a write which leaves both sides equal counts as well.

use sqlx::Row as _;

use super::catalogue::{literal, quote};
use super::connection::Tx;
use super::error::failed;
use super::guard_sql::whole_tree;
use super::marks::GUARD;
use super::rename::run;
use super::retirable::Retiring;
use super::shape::{Shape, id_of};
use super::sync_sql::FUNCTION_PREFIX;
use super::{Postgres, ledger, passes};
use crate::bounds::postgres::BLIND_NOTES_BYTES;
use crate::bounds::verify::{ASIDE_ROWS, ASIDE_SETTLE_TRIES};
use crate::copy::chunk::Chunk;
use crate::copy::compare::Compared;
use crate::driver::lost::{lost, lost_rows};
use crate::driver::{Basis, Error, Fence, Parker as _, Verifier as _};
use crate::run::{Direction, FailureClass, Mapping, plural};

/// Which writes are noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noting {
    /// All: there is no sync.
    All,
    /// Those to the new side that neither the sync nor the engine makes.
    Beside,
}

/// The table of notes, qualified.
fn notes(tx: &Tx<'_>, shape: &Shape) -> String {
    tx.ours(&format!("written_{}", shape.id))
}

/// The function of the triggers, qualified.
fn function(tx: &Tx<'_>, shape: &Shape) -> String {
    tx.ours(&format!("phasegate_written_{}", shape.id))
}

/// A trigger, by its bare name.
fn trigger(shape: &Shape, letter: &str) -> String {
    format!("phasegate_written_{letter}_{}", shape.id)
}

impl Postgres {
    /// Compares both sides of what a `retire` put aside. Returns what that rests on: both tables, their partitions, the
    /// triggers. Where the sides differ it goes on to the end, to say of how many rows.
    pub(super) async fn compare_aside(
        &self,
        fence: &Fence,
        what: &Retiring<'_>,
    ) -> Result<Basis, Error> {
        let after = what.mapping.retired(what.shape);
        if what.direction == Direction::Both {
            self.none_parked_aside(fence, &after).await?;
        }
        let mut reader = self.connections.read().await?;
        let schema = self.connections.schema().to_owned();
        let basis = passes::basis(reader.conn()?, &schema, &after).await;
        reader.release().await;
        let basis = basis?;
        let (mut lo, mut found) = (None, Compared::default());
        loop {
            let hi = self.verify_bound(&after, lo.as_ref(), ASIDE_ROWS).await?;
            let chunk = Chunk { lo, hi: hi.clone() };
            found.add(self.compare_settled(fence, (&after, what.direction), &chunk).await?);
            if hi.is_none() {
                break;
            }
            lo = hi;
        }
        if found.is_clean() { Ok(basis) } else { Err(lost_rows(after.name.as_str(), &found)) }
    }

    /// Rows that are parked differ, and what they should be can't be worked out.
    async fn none_parked_aside(&self, fence: &Fence, after: &Mapping) -> Result<(), Error> {
        let left = self.retry_parked(fence, after, Direction::Both).await?;
        if left == 0 {
            return Ok(());
        }
        let why = format!(
            "{} parked: what the new side alone has of them can't be told (`phasegate status RUN --parked` lists them)",
            plural(left, "row")
        );
        Err(lost(after.name.as_str(), &why))
    }

    /// Compares a chunk of which nothing is only noted.
    async fn compare_settled(
        &self,
        fence: &Fence,
        (mapping, direction): (&Mapping, Direction),
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        for _ in 0..ASIDE_SETTLE_TRIES {
            let compared = self.compare_chunk(mapping, direction, chunk).await?;
            if compared.pending == 0 {
                return Ok(compared);
            }
            self.settle_all(fence, mapping).await?;
        }
        let message = "clients keep changing the very keys that are being compared";
        Err(Error::failed(FailureClass::Contention, message))
    }
}

/// Sees that a comparison rests on what is there now, under the lock that keeps every writer out: no partition came or went with
/// its rows meanwhile.
pub(super) async fn rests_on(tx: &mut Tx<'_>, after: &Mapping, basis: &Basis) -> Result<(), Error> {
    let schema = tx.schema().to_owned();
    if passes::basis(tx.conn()?, &schema, after).await? == *basis {
        return Ok(());
    }
    let message = format!("{} changed while it was compared", after.into.table);
    Err(Error::failed(FailureClass::Contention, message))
}

/// Has writes to the new side noted from now on, under a lock that keeps writers out. `shape` has the names from after `retire`.
pub(super) async fn watch(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    note(tx, shape, Noting::All).await
}

/// The same beside a sync, whose own writes are none.
pub(super) async fn watch_beside(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    note(tx, shape, Noting::Beside).await
}

async fn note(tx: &mut Tx<'_>, shape: &Shape, noting: Noting) -> Result<(), Error> {
    unwatch(tx, shape).await?;
    let (notes, function) = (notes(tx, shape), function(tx, shape));
    let doing = "have writes noted";
    for sql in [
        format!("CREATE TABLE {notes} (at timestamptz NOT NULL)"),
        format!(
            "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS {}",
            literal(&body(&notes, &passed_over(shape, noting)))
        ),
        format!("REVOKE ALL ON FUNCTION {function}() FROM PUBLIC"),
    ] {
        run(tx.conn()?, doing, sql).await?;
    }
    let table = shape.new.sql();
    for (suffix, event) in events(shape, noting) {
        let trigger = quote(&trigger(shape, suffix));
        let sql = format!("CREATE TRIGGER {trigger} AFTER {event} EXECUTE FUNCTION {function}()");
        run(tx.conn()?, doing, sql.replace(" ON % ", &format!(" ON {table} "))).await?;
        let always = format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}");
        run(tx.conn()?, doing, always).await?;
    }
    if shape.in_place {
        return Ok(());
    }
    for table in whole_tree(tx.conn()?, &shape.new).await? {
        let trigger = quote(&trigger(shape, "t"));
        for sql in [
            format!(
                "CREATE TRIGGER {trigger} AFTER TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            ),
            format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"),
        ] {
            run(tx.conn()?, doing, sql).await?;
        }
    }
    Ok(())
}

/// What the trigger does: see the invariants. Every name and operator is qualified, so that a client's path leads none of them
/// elsewhere; to set one's own path for the call would double what a written row costs.
fn body(notes: &str, passed_over: &str) -> String {
    format!(
        "DECLARE phasegate_stack text;\nBEGIN\n  {passed_over}IF (pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.<>) 'serializable'\n      \
         OR pg_catalog.pg_relation_size({}::pg_catalog.regclass) OPERATOR(pg_catalog.>) {BLIND_NOTES_BYTES})\n    \
         AND EXISTS (SELECT FROM {notes}) THEN\n    RETURN NULL;\n  END IF;\n  \
         INSERT INTO {notes} VALUES (pg_catalog.clock_timestamp());\n  RETURN NULL;\nEND",
        literal(notes)
    )
}

/// What lets writes of the engine and of syncs pass. These have a function of one among those that called ours; by a foreign key
/// another mapping's may come here.
fn passed_over(shape: &Shape, noting: Noting) -> String {
    if noting == Noting::All {
        return String::new();
    }
    format!(
        "IF pg_catalog.current_setting({}, true) OPERATOR(pg_catalog.=) {} THEN\n    RETURN NULL;\n  END IF;\n  \
         IF pg_catalog.pg_trigger_depth() OPERATOR(pg_catalog.>) 1 THEN\n    GET DIAGNOSTICS phasegate_stack = PG_CONTEXT;\n    \
         IF phasegate_stack OPERATOR(pg_catalog.~) {} THEN\n      RETURN NULL;\n    END IF;\n  END IF;\n  ",
        literal(GUARD),
        literal(&shape.id),
        literal(&format!("{FUNCTION_PREFIX}[0-9a-f]+_")),
    )
}

/// What is noted, for each row: the letter that stands for it, and what follows AFTER with `%` for the table.
fn events(shape: &Shape, noting: Noting) -> Vec<(&'static str, String)> {
    if !shape.in_place {
        return vec![("r", "INSERT OR UPDATE OR DELETE ON % FOR EACH ROW".to_owned())];
    }
    let mut names: Vec<&str> = shape.writes.iter().map(|write| write.column.as_str()).collect();
    if noting == Noting::All {
        let old = shape.parts.iter().flat_map(|part| part.old_columns.iter().map(String::as_str));
        names.extend(old);
    }
    names.sort_unstable();
    names.dedup();
    let differs: Vec<String> = names
        .iter()
        .map(|name| format!("ROW(OLD.{0})::record *<> ROW(NEW.{0})::record", quote(name)))
        .collect();
    vec![
        ("i", "INSERT ON % FOR EACH ROW".to_owned()),
        ("u", format!("UPDATE ON % FOR EACH ROW WHEN ({})", differs.join(" OR "))),
    ]
}

/// The triggers for rows that should be on the new side and each of its partitions, by their letters.
const fn letters(shape: &Shape) -> &'static [&'static str] {
    if shape.in_place { &["i", "u"] } else { &["r"] }
}

/// `$1`: the table; `$2`: names of triggers; `$3`: our schema. A trigger that is not as it was made, and its table.
const NOT_WHOLE: &str = "\
SELECT name, c.relname::text
FROM (SELECT $1::bigint::oid AS relid UNION SELECT relid::oid FROM pg_partition_tree($1::bigint::oid::regclass)) AS tree
JOIN pg_class c ON c.oid = tree.relid CROSS JOIN unnest($2::text[]) AS name
WHERE NOT EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
  WHERE t.tgrelid = c.oid AND t.tgname = name AND t.tgenabled = 'A' AND p.pronamespace = to_regnamespace($3))
ORDER BY c.oid, name LIMIT 1";

/// The same parameters. A trigger that was made or changed in another transaction than the function was, on a table that has, or had,
/// rows: it was detached and attached, or its trigger switched off and on. A table that is elsewhere says nothing of its size.
const NEWER: &str = "\
SELECT t.tgname::text, c.relname::text
FROM (SELECT $1::bigint::oid AS relid UNION SELECT relid::oid FROM pg_partition_tree($1::bigint::oid::regclass)) AS tree
JOIN pg_class c ON c.oid = tree.relid JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = ANY ($2::text[])
JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = to_regnamespace($3)
WHERE c.relkind <> 'p' AND t.xmin::text <> p.xmin::text
  AND (pg_relation_filenode(c.oid) IS NULL OR pg_relation_size(c.oid) > 0)
ORDER BY c.oid, t.tgname LIMIT 1";

/// Why it is not certain that clients wrote nothing to the new side alone, if it isn't. Under the lock that keeps every writer out.
pub(super) async fn uncertain(tx: &mut Tx<'_>, shape: &Shape) -> Result<Option<String>, Error> {
    let doing = "see whether writes were noted";
    let (notes, schema) = (notes(tx, shape), tx.schema().to_owned());
    let prefix = "what notes writes since retire is not in place";
    if !ledger::has_table(tx.conn()?, &notes).await? {
        return Ok(Some(format!("{prefix}: the table {notes} is missing")));
    }
    let names: Vec<String> = letters(shape).iter().map(|letter| trigger(shape, letter)).collect();
    for (question, found) in [
        (NOT_WHOLE, "is missing, or was switched off"),
        (
            NEWER,
            "was made anew, or switched off and on again, and there are rows, which may have come meanwhile",
        ),
    ] {
        let row = sqlx::query(question)
            .bind(i64::from(shape.new.oid))
            .bind(&names)
            .bind(&schema)
            .fetch_optional(tx.conn()?)
            .await
            .map_err(failed(doing))?;
        if let Some(row) = row {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?));
            let (name, table): (String, String) = read().map_err(failed(doing))?;
            return Ok(Some(format!("{prefix}: trigger {name} on {table} {found}")));
        }
    }
    let is_written = is_written(tx, shape).await?;
    Ok(is_written.then(|| "since retire, clients wrote to the new side alone".to_owned()))
}

/// Whether writes to the new side are being noted.
pub(super) async fn is_watched(tx: &mut Tx<'_>, mapping: &Mapping) -> Result<bool, Error> {
    let notes = tx.ours(&format!("written_{}", id_of(mapping)));
    ledger::has_table(tx.conn()?, &notes).await
}

/// Sees that nobody wrote to the new side beside the sync while it was watched, if it was. Under the lock that keeps every writer
/// out. In another attempt both sides are compared once more.
pub(super) async fn not_beside(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let notes = notes(tx, shape);
    if !ledger::has_table(tx.conn()?, &notes).await? || uncertain(tx, shape).await?.is_none() {
        return Ok(());
    }
    let message =
        format!("mapping {}: clients wrote to the new side while it was compared", shape.mapping);
    Err(Error::failed(FailureClass::Contention, message))
}

/// Whether something was noted.
pub(super) async fn is_written(tx: &mut Tx<'_>, shape: &Shape) -> Result<bool, Error> {
    let notes = notes(tx, shape);
    let doing = "see whether something was written";
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {notes})")))
        .fetch_one(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    row.try_get(0).map_err(failed(doing))
}

/// Ends that: removes the triggers, their function and the notes, where they are. A partition that was detached meanwhile still has
/// the one for TRUNCATE.
pub(super) async fn unwatch(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let doing = "end the noting of writes";
    let (notes, function) = (notes(tx, shape), function(tx, shape));
    let rows = sqlx::query(
        "SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t
         WHERE t.tgparentid = 0 AND t.tgfoid = to_regprocedure($1) ORDER BY t.tgrelid, t.tgname",
    )
    .bind(format!("{function}()"))
    .fetch_all(tx.conn()?)
    .await
    .map_err(failed(doing))?;
    for row in rows {
        run(tx.conn()?, doing, row.try_get(0).map_err(failed(doing))?).await?;
    }
    run(tx.conn()?, doing, format!("DROP FUNCTION IF EXISTS {function}()")).await?;
    run(tx.conn()?, doing, format!("DROP TABLE IF EXISTS {notes}")).await
}

//! Whether clients wrote to the new side alone: what a forward `retire` is taken back by, where nothing may be lost.
//!
//! A trigger on the new side notes it, from `retire` itself on, whose lock keeps every writer out. The comparison of both sides
//! alone would not do: it sees neither columns that the mapping doesn't have, nor rows that it lets be (`on_delete: ignore`). It is
//! made all the same, while clients work: it says how much there is, and sees what no trigger can, such as a partition that was
//! detached. Under the lock it is then seen that nothing is noted.
//!
//! Invariants:
//! - A write is noted in the transaction that makes it, so it is noted if it is committed, and seen under the lock.
//! - Once a note is committed, no more are made: from then on a written row costs clients one look at a table of a few notes.
//! - SERIALIZABLE clients would fail each other by that look while there is no note, so that they note without it at first.
//! - In place, a write that changes no column of the mapping, or deletes the row, is none: it reaches both sides.
//!
//! Absent on purpose: looking at what was noted, so that a write which leaves both sides equal counts as well; and rows that are in
//! a partition when it is attached, where `on_delete` is `ignore`.

use sqlx::Row as _;

use super::catalogue::{literal, quote};
use super::connection::Tx;
use super::error::failed;
use super::guard_sql::whole_tree;
use super::rename::run;
use super::retirable::Retiring;
use super::shape::Shape;
use super::{Postgres, ledger, passes};
use crate::copy::chunk::Chunk;
use crate::copy::compare::Compared;
use crate::driver::lost::lost_rows;
use crate::driver::{Basis, Error, Verifier as _};
use crate::run::{Direction, FailureClass, Mapping};

/// How many rows are compared at once.
const ROWS: u32 = 20_000;
/// Up to what size of the table of notes SERIALIZABLE clients note every row.
const BLIND_BYTES: u32 = 65_536;

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
    /// Compares both sides of what a forward `retire` put aside. Returns what that rests on: both tables, their partitions, the
    /// triggers. Where the sides differ it goes on to the end, to say of how many rows.
    pub(super) async fn compare_aside(&self, what: &Retiring<'_>) -> Result<Basis, Error> {
        let after = what.mapping.retired(what.shape);
        let mut reader = self.connections.read().await?;
        let schema = self.connections.schema().to_owned();
        let basis = passes::basis(reader.conn()?, &schema, &after).await;
        reader.release().await;
        let basis = basis?;
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
        if found.is_clean() { Ok(basis) } else { Err(lost_rows(after.name.as_str(), &found)) }
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
    unwatch(tx, shape).await?;
    let (notes, function) = (notes(tx, shape), function(tx, shape));
    let doing = "have writes noted";
    for sql in [
        format!("CREATE TABLE {notes} (at timestamptz NOT NULL)"),
        format!(
            "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS {}",
            literal(&body(&notes))
        ),
        format!("REVOKE ALL ON FUNCTION {function}() FROM PUBLIC"),
    ] {
        run(tx.conn()?, doing, sql).await?;
    }
    let table = shape.new.sql();
    for (suffix, event) in events(shape) {
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
fn body(notes: &str) -> String {
    format!(
        "BEGIN\n  IF (pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.<>) 'serializable'\n      \
         OR pg_catalog.pg_relation_size({}::pg_catalog.regclass) OPERATOR(pg_catalog.>) {BLIND_BYTES})\n    \
         AND EXISTS (SELECT FROM {notes}) THEN\n    RETURN NULL;\n  END IF;\n  \
         INSERT INTO {notes} VALUES (pg_catalog.clock_timestamp());\n  RETURN NULL;\nEND",
        literal(notes)
    )
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

/// Why it is not certain that clients wrote nothing to the new side alone, if it isn't. Under the lock that keeps every writer out.
pub(super) async fn uncertain(tx: &mut Tx<'_>, shape: &Shape) -> Result<Option<String>, Error> {
    let doing = "see whether writes were noted";
    let (notes, schema) = (notes(tx, shape), tx.schema().to_owned());
    let prefix = "what notes writes since retire is not in place";
    if !ledger::has_table(tx.conn()?, &notes).await? {
        return Ok(Some(format!("{prefix}: the table {notes} is missing")));
    }
    let names: Vec<String> = letters(shape).iter().map(|letter| trigger(shape, letter)).collect();
    let row = sqlx::query(NOT_WHOLE)
        .bind(i64::from(shape.new.oid))
        .bind(names)
        .bind(schema)
        .fetch_optional(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    if let Some(row) = row {
        let read = || Ok((row.try_get(0)?, row.try_get(1)?));
        let (name, table): (String, String) = read().map_err(failed(doing))?;
        return Ok(Some(format!(
            "{prefix}: trigger {name} on {table} is missing, or was switched off"
        )));
    }
    let is_written = is_written(tx, shape).await?;
    Ok(is_written.then(|| "since retire, clients wrote to the new side alone".to_owned()))
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

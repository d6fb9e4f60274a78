//! What a sync's triggers leave behind for the engine, and what tells the engine's own writes from clients'.
//!
//! A mapping has up to three tables of marks in our schema, made when its sync goes in and dropped with it. Their key columns
//! `k1`, `k2`, … have the types and collations of the old side's key, so that no value goes through text, whatever the
//! settings of the client that leaves a mark:
//! - `touched_<id>`: keys that a trigger could only note, because what the client did could not be carried over for certain
//!   at that moment (its snapshot was older than a chunk, or the row left the mapping's filter). They are put right later.
//!   A key may be noted many times, and there is no unique index: one would make clients wait for each other and fail under
//!   REPEATABLE READ, and a note that is there already may be taken before the client that relies on it commits. Notes are
//!   counted in `at`, so that those of one row are in the order in which it was written; `event` and `j1`, `j2`, … say what
//!   happened where the key alone wouldn't do: see [`Noted`]. `depth`, and `xact` and `said` (what a client said at once), tell in
//!   which order it really happened within triggers: see `replay`.
//! - `kept_<id>`: in place with `both`: keys of rows of which a client of the new shape wrote a part's new columns before
//!   the copy came by. The copy leaves these parts alone, and verify takes them for right.
//! - `parked_<id>`: keys of rows that could not be copied, with the reason. A key may be in it more than once, as in `touched`.
//!
//! A publication of all tables has these, too, and the server then deletes and changes only rows that it can tell apart for those
//! who subscribe: what has no unique key says so by whole rows (REPLICA IDENTITY FULL).
//!
//! The engine's own writes of a mapping's rows are made under the setting [`GUARD`], transaction-local, whose value is the
//! mapping's id: triggers of that mapping do not mirror a write that happens at trigger depth 1 (the first level, which is
//! the engine's own statement) while it is set. What users' triggers write in turn happens deeper, and is mirrored.

use sqlx::AssertSqlSafe;

use super::connection::Tx;
use super::error::failed;
use super::shape::Shape;
use crate::driver::Error;

/// The setting under which the engine writes rows of a mapping.
pub(super) const GUARD: &str = "phasegate.guard";

/// What a note says of its key beside that it is to be put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted<'a> {
    Changed,
    /// A row came to this key that never had another one, or the one that had it went: whoever came to it before is gone.
    Ended,
    /// The row of this other key came to it.
    Moved(&'a [String]),
    /// The row of this key went to another one: a note of that follows.
    Left,
    /// There was no copy under this key, and one was made of the row that came, which the note before tells of.
    Made,
    /// The row left the mapping's filter, and its copy went with that.
    Out,
}

/// What `event` says of a row that came from another key where its copy stands under both of them, as long as something refers
/// to the one that it had.
pub(super) const DOUBLED: &str = "DOUBLE";

/// What `event` says where a row came from another key, where one went to another key, and where it came from none or went.
pub(super) const MOVED: &str = "MOVE";
pub(super) const LEFT: &str = "LEFT";
pub(super) const ENDED: &str = "END";
/// What it says of a copy that was made of a row that came from none.
pub(super) const MADE: &str = "MADE";
/// What it says of a key whose row left the mapping's filter.
pub(super) const OUT: &str = "OUT";

impl Shape {
    /// The table of keys to put right, by its bare name.
    pub(super) fn touched_name(&self) -> String {
        format!("touched_{}", self.id)
    }

    /// The table of parts that stand as clients wrote them, by its bare name.
    pub(super) fn kept_name(&self) -> String {
        format!("kept_{}", self.id)
    }

    /// The table of rows that could not be copied, by its bare name.
    pub(super) fn parked_name(&self) -> String {
        parked_name(&self.id)
    }

    /// The columns of a key in our tables: `k1`, `k2`, …
    pub(super) fn mark_columns(&self) -> Vec<String> {
        (1..=self.keys.len()).map(|at| format!("k{at}")).collect()
    }

    /// The columns of the key that a row came from: `j1`, `j2`, …
    pub(super) fn origin_columns(&self) -> Vec<String> {
        (1..=self.keys.len()).map(|at| format!("j{at}")).collect()
    }

    /// Columns of a key with their types, as a table's definition has them.
    fn definitions(&self, names: &[String], rest: &str) -> String {
        let definition = |(name, pair): (&String, &super::shape::KeyPair)| {
            let collation = self.old.column(&pair.old).and_then(|column| column.collation.clone());
            let collate = collation.map_or_else(String::new, |name| format!(" COLLATE {name}"));
            format!("{name} {}{collate}{rest}", pair.type_sql)
        };
        names.iter().zip(&self.keys).map(definition).collect::<Vec<_>>().join(", ")
    }
}

/// The table of the rows of a mapping that could not be copied, by its bare name. `id` is the mapping's.
pub(super) fn parked_name(id: &str) -> String {
    format!("parked_{id}")
}

/// Makes a mapping's tables of marks.
pub(super) async fn create(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let columns = shape.definitions(&shape.mark_columns(), " NOT NULL");
    let (origin, key) =
        (shape.definitions(&shape.origin_columns(), ""), shape.mark_columns().join(", "));
    let touched = tx.ours(&shape.touched_name());
    let kept = tx.ours(&shape.kept_name());
    let parked = tx.ours(&shape.parked_name());
    let by = super::catalogue::quote(&format!("{}_by", shape.touched_name()));
    let by_origin = super::catalogue::quote(&format!("{}_of", shape.touched_name()));
    let origins = shape.origin_columns();
    let in_order = super::catalogue::quote(&format!("{}_at", shape.touched_name()));
    let parked_by = super::catalogue::quote(&format!("{}_by", shape.parked_name()));
    for statement in [
        format!(
            "CREATE TABLE IF NOT EXISTS {touched} ({columns}, at bigint GENERATED BY DEFAULT AS IDENTITY, event text, {origin},
             depth integer NOT NULL DEFAULT pg_trigger_depth(), xact bigint NOT NULL DEFAULT txid_current(),
             said timestamptz NOT NULL DEFAULT statement_timestamp())"
        ),
        format!("CREATE INDEX IF NOT EXISTS {by} ON {touched} ({key})"),
        format!(
            "CREATE INDEX IF NOT EXISTS {by_origin} ON {touched} ({}) WHERE {} IS NOT NULL",
            origins.join(", "),
            origins[0],
        ),
        format!("CREATE INDEX IF NOT EXISTS {in_order} ON {touched} (at)"),
        format!(
            "CREATE TABLE IF NOT EXISTS {kept} (part bigint NOT NULL, {columns}, PRIMARY KEY (part, {key}))"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {parked} (run_id text, step text, {columns}, code text, reason text NOT NULL,
             parked_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        ),
        format!("CREATE INDEX IF NOT EXISTS {parked_by} ON {parked} ({key})"),
        format!("ALTER TABLE {touched} REPLICA IDENTITY FULL"),
        format!("ALTER TABLE {parked} REPLICA IDENTITY FULL"),
    ] {
        sqlx::query(AssertSqlSafe(statement))
            .execute(tx.conn()?)
            .await
            .map_err(failed("make the tables of marks"))?;
    }
    Ok(())
}

/// Drops them.
pub(super) async fn drop(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    for name in [shape.touched_name(), shape.kept_name(), shape.parked_name()] {
        let statement = format!("DROP TABLE IF EXISTS {}", tx.ours(&name));
        sqlx::query(AssertSqlSafe(statement))
            .execute(tx.conn()?)
            .await
            .map_err(failed("drop the tables of marks"))?;
    }
    Ok(())
}

/// Has the rest of the transaction's own writes of the mapping's rows not mirrored by its triggers.
pub(super) async fn guard(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    sqlx::query("SELECT set_config($1, $2, true)")
        .bind(GUARD)
        .bind(&shape.id)
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("mark our own writes"))
}

//! The outbox and its sequence: made with the first mapping that is captured, and dropped when nobody needs them any more.
//!
//! Invariants:
//! - Versions only rise, also over a removal and a new beginning: the sequence starts at the microseconds since 1970, and no server
//!   writes a million rows a second for long. The new side may still have versions of the time before.
//! - The sequence keeps no numbers back for sessions (CACHE 1): those would be drawn long before they are given.
//! - Clients' writes have as little to do with it as can be: three indexes, one of which has no entry of theirs. Of a key the
//!   hash is indexed, since an index takes no more than a third of a page, and a write would fail.
//!
//! Absent on purpose: rights of the tables' owners, which `capture` gives.

use sqlx::{AssertSqlSafe, Row as _};

use crate::driver::Error;
use crate::driver::postgres::connection::Tx;
use crate::driver::postgres::dual_write::run;
use crate::driver::postgres::error::failed;
use crate::driver::postgres::ledger::{has_table, unsigned};

/// The table of changes, by its bare name.
pub(in crate::driver::postgres) const TABLE: &str = "outbox";

/// The sequence of versions, by its bare name. It goes with the table.
pub(super) const SEQUENCE: &str = "outbox_version";

/// What names of the functions of a captured mapping end with, behind `phasegate_` and its id.
const FUNCTIONS: &str = "^phasegate_[0-9a-f]+_o$";

/// Keeps others from making or dropping the outbox until the transaction ends.
pub(super) async fn alone(tx: &mut Tx<'_>) -> Result<(), Error> {
    let schema = tx.schema().to_owned();
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("phasegate: outbox of {schema}"))
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("wait for others who make or remove the outbox"))
}

/// Makes the outbox where it is missing.
pub(super) async fn create(tx: &mut Tx<'_>) -> Result<(), Error> {
    alone(tx).await?;
    let (table, sequence) = (tx.ours(TABLE), tx.ours(SEQUENCE));
    if has_table(tx.conn()?, &table).await? {
        return Ok(());
    }
    let row = sqlx::query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
    let start: i64 = row
        .fetch_one(tx.conn()?)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("make the outbox"))?;
    for sql in [
        // What was applied is gone: vacuum must come by often. Giving room back at the end of the table takes a lock that keeps out
        // everybody, and every client writes here.
        format!(
            "CREATE TABLE {table} (version bigint NOT NULL, mapping text NOT NULL, key text[] NOT NULL, image text[],
             bytes bigint NOT NULL, written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
             tries integer NOT NULL DEFAULT 0, parked boolean NOT NULL DEFAULT false, code text, reason text,
             refused_at timestamptz, CONSTRAINT {TABLE}_pkey PRIMARY KEY (version))
             WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off)"
        ),
        format!(
            "CREATE INDEX {TABLE}_refused ON {table} (mapping, hash_array_extended(key, 0)) WHERE tries > 0"
        ),
        format!("CREATE INDEX {TABLE}_key ON {table} (hash_array_extended(key, 0))"),
        format!("CREATE SEQUENCE {sequence} AS bigint START WITH {start} CACHE 1 NO CYCLE OWNED BY {table}.version"),
    ] {
        run(tx.conn()?, "make the outbox", sql).await?;
    }
    Ok(())
}

/// Takes away what the outbox holds of a mapping. Returns how many changes that were.
pub(super) async fn forget(tx: &mut Tx<'_>, id: &str) -> Result<u64, Error> {
    let sql = format!("DELETE FROM {} WHERE mapping = $1", tx.ours(TABLE));
    let done = sqlx::query(AssertSqlSafe(sql)).bind(id).execute(tx.conn()?).await;
    done.map(|done| done.rows_affected()).map_err(failed("remove changes from the outbox"))
}

/// How many changes the outbox holds of a mapping.
pub(super) async fn left(tx: &mut Tx<'_>, id: &str) -> Result<u64, Error> {
    let sql = format!("SELECT count(*) FROM {} WHERE mapping = $1", tx.ours(TABLE));
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_one(tx.conn()?).await;
    let count: i64 = row.and_then(|row| row.try_get(0)).map_err(failed("count changes"))?;
    unsigned(count)
}

/// Takes away what the outbox holds of all mappings but some, which go on.
pub(in crate::driver::postgres) async fn forget_but(
    tx: &mut Tx<'_>,
    kept: &[String],
) -> Result<(), Error> {
    let table = tx.ours(TABLE);
    if !has_table(tx.conn()?, &table).await? {
        return Ok(());
    }
    let sql = format!("DELETE FROM {table} WHERE mapping <> ALL ($1)");
    let done = sqlx::query(AssertSqlSafe(sql)).bind(kept).execute(tx.conn()?).await;
    done.map(|_| ()).map_err(failed("remove changes from the outbox"))
}

/// Drops the outbox where it holds nothing and no trigger writes to it.
pub(in crate::driver::postgres) async fn drop_if_unused(tx: &mut Tx<'_>) -> Result<(), Error> {
    alone(tx).await?;
    let (table, schema) = (tx.ours(TABLE), tx.schema().to_owned());
    if !has_table(tx.conn()?, &table).await? {
        return Ok(());
    }
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {table}) OR EXISTS (SELECT 1 FROM pg_proc WHERE pronamespace = to_regnamespace($1) \
         AND proname ~ $2)"
    );
    let row =
        sqlx::query(AssertSqlSafe(sql)).bind(schema).bind(FUNCTIONS).fetch_one(tx.conn()?).await;
    let is_used: bool =
        row.and_then(|row| row.try_get(0)).map_err(failed("see whether the outbox is used"))?;
    if is_used {
        return Ok(());
    }
    run(tx.conn()?, "remove the outbox", format!("DROP TABLE {table}")).await.map(|_| ())
}

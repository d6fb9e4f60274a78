//! Dropping the old table of mappings into another database, once everything of it is there.
//!
//! Invariants:
//! - The capture ends, and the table goes, in one transaction with the ledger, under a lock that keeps everybody out.
//! - Nothing that clients wrote goes with it: no change is left in the outbox, whether it waits or is parked, and both sides were
//!   compared under the triggers that are there.
//! - Nor do rows that no mapping of the plan is about.
//! - A table that another mapping of the plan still follows stays: who ends the last one of them drops it.
//!
//! Absent on purpose: columns that no mapping carries. Whoever lists columns says with that which ones are wanted.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::capture::{is_there, take_out};
use super::tables::{self, TABLE};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::carried::{Holder, in_the_way, referenced};
use crate::driver::postgres::catalogue::{self, Table, name_sql};
use crate::driver::postgres::connection::Tx;
use crate::driver::postgres::dependents::dependents;
use crate::driver::postgres::dual_write::{done_before, run};
use crate::driver::postgres::error::{failed, refused};
use crate::driver::postgres::ledger::{self, has_table, unsigned};
use crate::driver::postgres::locks::lock_all;
use crate::driver::postgres::passes::as_compared;
use crate::driver::postgres::shape::{enclosed, id_of};
use crate::driver::postgres::sync_sql::TRIGGER_PREFIX;
use crate::driver::postgres::tied::{by_name, tied};
use crate::driver::{Applied, Error, Fence, TxKind, Work};
use crate::run::{FailureClass, Mapping, plural};

/// Drops the old table of a mapping. `others` are all mappings of the plan in this database.
pub(in crate::driver::postgres) async fn drop_old(
    postgres: &Postgres,
    (fence, work): (&Fence, &Work),
    mapping: &Mapping,
    others: &[Mapping],
) -> Result<Applied, Error> {
    if !postgres.is_done_before(fence, work).await? {
        // This may read the whole table, so it is done once before clients are locked out.
        let mut reader = postgres.connections.read().await?;
        if let Some(table) = catalogue::table(reader.conn()?, &mapping.from.table).await? {
            none_left_out(reader.conn()?, &table, (mapping, others)).await?;
        }
        reader.release().await;
    }
    let mut tx = postgres.begin_alone(fence, work, TxKind::Drop).await?;
    let done = async {
        if let Some(applied) = done_before(&mut tx, fence, work).await? {
            return Ok(applied);
        }
        let detail = drop_in(&mut tx, work, (mapping, others)).await?;
        ledger::record(&mut tx, fence, work, (0, Some(detail))).await
    }
    .await;
    postgres.finish_held(tx, work, done).await
}

async fn drop_in(
    tx: &mut Tx<'_>,
    work: &Work,
    (mapping, others): (&Mapping, &[Mapping]),
) -> Result<String, Error> {
    tables::alone(tx).await?;
    let name = &mapping.from.table;
    if !is_there(tx, name).await? {
        all_applied(tx, mapping).await?;
        take_out(tx, mapping, (None, false)).await?;
        return Ok(format!("{name} was gone before"));
    }
    let looked = catalogue::table(tx.conn()?, name).await?.unwrap_or_else(|| Table::absent(name));
    let mut locks = vec![format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", name_sql(name))];
    let keys = referenced(tx.conn()?, (looked.oid, looked.oid)).await?;
    locks.extend(keys.iter().map(Holder::lock));
    lock_all(tx, &locks).await?;
    as_compared(tx, mapping, work).await?;
    all_applied(tx, mapping).await?;
    let table = catalogue::table(tx.conn()?, name).await?.unwrap_or(looked);
    let followed = follower(tx.conn()?, &table, (mapping, others)).await?;
    if followed.is_none() {
        none_left_out(tx.conn()?, &table, (mapping, others)).await?;
    }
    take_out(tx, mapping, (Some(table.clone()), false)).await?;
    if let Some(other) = followed {
        return Ok(format!("{name} stays until mapping {other} follows it no more, too"));
    }
    let schema = tx.schema().to_owned();
    let found = dependents(tx.conn()?, &table, None, &schema).await?;
    let certain = tied(&found);
    if !certain.is_empty() {
        let what = format!("something still depends on {name}");
        return Err(in_the_way(mapping.name.as_str(), &what, &certain));
    }
    run(tx.conn()?, "drop the old table", format!("DROP TABLE {}", table.sql())).await?;
    Ok(format!("{name} is gone{}", by_name(&found)))
}

/// Sees that the outbox holds nothing of the mapping: with the table would go what these changes could be held against.
async fn all_applied(tx: &mut Tx<'_>, mapping: &Mapping) -> Result<(), Error> {
    let outbox = tx.ours(TABLE);
    if !has_table(tx.conn()?, &outbox).await? {
        return Ok(());
    }
    let sql =
        format!("SELECT count(*) FILTER (WHERE parked), count(*) FROM {outbox} WHERE mapping = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id_of(mapping)).fetch_one(tx.conn()?).await;
    let row = row.map_err(failed("count changes"))?;
    let count = |at: usize| unsigned(row.try_get(at).map_err(failed("count changes"))?);
    let (parked, all) = (count(0)?, count(1)?);
    let (what, help) = match (parked, all) {
        (_, 0) => return Ok(()),
        (0, _) => ("to be applied", "let the relay apply them, then retry"),
        _ => (
            "parked or to be applied",
            "see `phasegate status RUN --parked`, mend the rows, then retry",
        ),
    };
    let message = format!("{} of mapping {} still {what}", plural(all, "change"), mapping.name);
    Err(Error::failed(FailureClass::Contention, message).with_help(help))
}

/// Another mapping of the plan whose triggers are on the table.
async fn follower<'a>(
    conn: &mut PgConnection,
    table: &Table,
    (mapping, others): (&Mapping, &'a [Mapping]),
) -> Result<Option<&'a str>, Error> {
    for other in others.iter().filter(|other| other.name != mapping.name) {
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = $1::bigint::oid AND starts_with(tgname, $2))";
        let row = sqlx::query(sql)
            .bind(i64::from(table.oid))
            .bind(format!("{TRIGGER_PREFIX}{}_", id_of(other)))
            .fetch_one(&mut *conn)
            .await;
        if row.and_then(|row| row.try_get(0)).map_err(failed("look for other mappings"))? {
            return Ok(Some(other.name.as_str()));
        }
    }
    Ok(None)
}

/// Sees that every row of the table is one that a mapping of the plan is about.
async fn none_left_out(
    conn: &mut PgConnection,
    table: &Table,
    (mapping, others): (&Mapping, &[Mapping]),
) -> Result<(), Error> {
    let mut left_out = Vec::new();
    for one in others.iter().filter(|one| one.name != mapping.name).chain([mapping]) {
        let row = sqlx::query("SELECT to_regclass($1)::oid::bigint IS NOT DISTINCT FROM $2")
            .bind(name_sql(&one.from.table))
            .bind(i64::from(table.oid))
            .fetch_one(&mut *conn)
            .await;
        let is_of_it: bool =
            row.and_then(|row| row.try_get(0)).map_err(failed("look for the table"))?;
        match &one.filter {
            _ if !is_of_it || !one.from.kind.is_table() => {}
            Some(filter) => left_out.push(format!("{} IS NOT TRUE", enclosed(filter))),
            None => return Ok(()),
        }
    }
    let sql =
        format!("SELECT EXISTS (SELECT 1 FROM {} WHERE {})", table.sql(), left_out.join(" AND "));
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
    let row = row.map_err(|error| refused(&error))?;
    if !row.try_get::<bool, _>(0).map_err(failed("look for rows that are left out"))? {
        return Ok(());
    }
    let message = format!("{} has rows that no mapping of the plan is about", table.name);
    Err(Error::failed(FailureClass::Unsafe, message)
        .with_help("map them, too, or remove them by a `sql` step behind a gate; then retry"))
}

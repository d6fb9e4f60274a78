//! Beginning and ending the capture of a mapping.
//!
//! Invariants:
//! - Triggers appear and go in one transaction with the ledger, under a lock that waits for every older writer of the table and keeps
//!   new ones out until the commit. So whoever reads a page afterwards reads nothing that isn't captured from then on.
//! - What the outbox holds of a mapping from an earlier capture is void when a new one begins.
//! - Going back, and giving up, take away what the outbox holds. Where capture ends otherwise, changes stay until they are applied,
//!   and the outbox with them. So does the function that wrote them, until the run leaves or the capture begins anew: its text is
//!   what says which values their images hold, whatever the table has by now.
//! - The functions run as the table's owner, whoever writes, along a fixed path, and nobody else may call them.

use sqlx::Row as _;

use super::capture_sql::capture_sql;
use super::form::{AS_HERE, PINNED};
use super::tables::{self, SEQUENCE, TABLE};
use super::{Captured, Resolved};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::catalogue::{self, Table, literal, name_sql, quote};
use crate::driver::postgres::connection::Tx;
use crate::driver::postgres::dual_write::{done_before, lock_in_order, run, with_open_schemas};
use crate::driver::postgres::error::failed;
use crate::driver::postgres::ledger;
use crate::driver::postgres::ledger::has_table;
use crate::driver::postgres::sync_objects::{
    Owner, check_inheritance, check_name, drop_triggers, make_function, open_schemas, partitions,
    remove_triggers, search_path,
};
use crate::driver::postgres::sync_sql::{Side, Trigger, function_name};
use crate::driver::{Applied, Error, Fence, TxKind, Work, gives_up};
use crate::run::{Mapping, Way};

/// Begins to capture a mapping's changes, and enters that in the ledger, in one transaction.
pub(super) async fn begin(
    postgres: &Postgres,
    (fence, work): (&Fence, &Work),
    mapping: &Mapping,
) -> Result<Applied, Error> {
    let mut tx = postgres.begin_for(fence, work, TxKind::Install).await?;
    let done = install(&mut tx, (fence, work), mapping).await;
    let open = match &done {
        Ok(applied) if !applied.before => open_schemas(tx.conn()?).await?,
        _ => Vec::new(),
    };
    let applied = postgres.finish_held(tx, work, done).await?;
    Ok(with_open_schemas(applied, &open))
}

/// Ends it, likewise. The answer says how many changes are still to be applied; none are where it was undone or given up.
pub(super) async fn end(
    postgres: &Postgres,
    (fence, work): (&Fence, &Work),
    mapping: &Mapping,
) -> Result<Applied, Error> {
    let mut tx = postgres.begin_for(fence, work, TxKind::Remove).await?;
    let done = remove(&mut tx, (fence, work), mapping).await;
    postgres.finish_held(tx, work, done).await
}

async fn install(
    tx: &mut Tx<'_>,
    (fence, work): (&Fence, &Work),
    mapping: &Mapping,
) -> Result<Applied, Error> {
    if let Some(applied) = done_before(tx, fence, work).await? {
        return Ok(applied);
    }
    tables::create(tx).await?;
    lock_in_order(tx, &[&mapping.from.table], "SHARE ROW EXCLUSIVE").await?;
    let of = Resolved::of(tx.conn()?, mapping).await?;
    let shape = of.shape();
    check_name(tx, shape).await?;
    check_inheritance(tx.conn()?, shape, Side::Old).await?;
    remove_triggers(tx, shape).await?;
    tables::forget(tx, &of.captured.id).await?;
    make(tx, &of).await?;
    ledger::record(tx, fence, work, (0, None)).await
}

async fn make(tx: &mut Tx<'_>, of: &Resolved) -> Result<(), Error> {
    let (schema, shape) = (tx.schema().to_owned(), of.shape());
    let sql = capture_sql(of, &schema);
    let owner = Owner::of(tx.conn()?, shape, &schema).await?;
    let_in(tx, &owner).await?;
    let path = search_path(tx.conn()?).await?;
    let settings = format!(" SECURITY DEFINER SET search_path = {path}{}", pinned());
    for function in &sql.functions {
        let name = format!("{schema}.{}", quote(&function.name));
        let settings = match function.returns {
            "trigger" if function.name == function_name(shape, "o") => {
                format!("{settings}{}", set(&BY_INDEX))
            }
            "trigger" => settings.clone(),
            _ => String::new(),
        };
        for sql in make_function(function, &name, &settings) {
            run(tx.conn()?, "make a function of the capture", sql).await?;
        }
        owner.take(tx, &name, function).await?;
    }
    owner.let_out(tx, &schema).await?;
    for trigger in &sql.triggers {
        make_trigger(tx, of, trigger).await?;
    }
    Ok(())
}

/// Has the trigger for rows find its row by the key's index. A session keeps the plan that it made when the table was small, and would
/// go through all of it for each row that it writes.
pub(super) const BY_INDEX: [(&str, &str); 2] =
    [("enable_seqscan", "off"), ("enable_bitmapscan", "off")];

/// The settings that values depend on, as a function has them.
fn pinned() -> String {
    format!("{}{}", set(&PINNED), AS_HERE.map(|name| format!(" SET {name} FROM CURRENT")).concat())
}

fn set(settings: &[(&str, &str)]) -> String {
    let each = settings.iter().map(|(name, value)| format!(" SET {name} = {}", literal(value)));
    each.collect::<Vec<_>>().concat()
}

/// Lets the functions' owner write changes.
async fn let_in(tx: &mut Tx<'_>, owner: &Owner) -> Result<(), Error> {
    if !owner.is_other {
        return Ok(());
    }
    let (schema, name) = (tx.schema().to_owned(), quote(&owner.name));
    let create = if owner.needs_create { ", CREATE" } else { "" };
    for sql in [
        format!("GRANT USAGE{create} ON SCHEMA {schema} TO {name}"),
        format!("GRANT INSERT ON {} TO {name}", tx.ours(TABLE)),
        format!("GRANT USAGE ON SEQUENCE {} TO {name}", tx.ours(SEQUENCE)),
    ] {
        run(tx.conn()?, "let the table's owner into our schema", sql).await?;
    }
    Ok(())
}

/// Makes a trigger that fires under `session_replication_role = replica` too. PostgreSQL gives partitions their own for rows; for statements they are made here.
async fn make_trigger(tx: &mut Tx<'_>, of: &Resolved, trigger: &Trigger) -> Result<(), Error> {
    let (schema, table) = (tx.schema().to_owned(), &of.shape().old);
    let mut on = vec![table.sql()];
    if !trigger.is_for_rows() {
        on.extend(partitions(tx.conn()?, table).await?);
    }
    let level = if trigger.is_for_rows() { "ROW" } else { "STATEMENT" };
    for table in on {
        let name = quote(&trigger.name);
        let create = format!(
            "CREATE TRIGGER {name} {} ON {table} FOR EACH {level} EXECUTE FUNCTION {schema}.{}()",
            trigger.head(),
            quote(&trigger.function),
        );
        run(tx.conn()?, "make a trigger of the capture", create).await?;
        let always = format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}");
        run(tx.conn()?, "make a trigger of the capture", always).await?;
    }
    Ok(())
}

async fn remove(
    tx: &mut Tx<'_>,
    (fence, work): (&Fence, &Work),
    mapping: &Mapping,
) -> Result<Applied, Error> {
    if let Some(applied) = done_before(tx, fence, work).await? {
        return Ok(applied);
    }
    tables::alone(tx).await?;
    // Triggers of a table that is gone are gone with it. Its functions aren't.
    let table = if is_there(tx, &mapping.from.table).await? {
        lock_in_order(tx, &[&mapping.from.table], "ACCESS EXCLUSIVE").await?;
        catalogue::table(tx.conn()?, &mapping.from.table).await?
    } else {
        None
    };
    let is_void = work.way == Way::Back || gives_up(&work.step).is_some();
    let left = take_out(tx, mapping, (table, is_void)).await?;
    let detail = (left > 0).then(|| {
        format!("the outbox still holds changes of {}: {left} to be applied", mapping.from.table)
    });
    ledger::record(tx, fence, work, (left, detail)).await
}

/// Whether there is a table of that name.
pub(super) async fn is_there(tx: &mut Tx<'_>, table: &str) -> Result<bool, Error> {
    sqlx::query("SELECT to_regclass($1) IS NOT NULL")
        .bind(name_sql(table))
        .fetch_one(tx.conn()?)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("look for the table"))
}

/// Removes what captures a mapping's changes, under the lock of its table where there is one. Returns how many changes are left to be
/// applied; where they are void, none.
pub(super) async fn take_out(
    tx: &mut Tx<'_>,
    mapping: &Mapping,
    (table, is_void): (Option<Table>, bool),
) -> Result<u64, Error> {
    let table = table.unwrap_or_else(|| Table::absent(&mapping.from.table));
    let captured = Captured::of(mapping, &table);
    let shape = super::shape(&captured, table);
    let outbox = tx.ours(TABLE);
    if !has_table(tx.conn()?, &outbox).await? {
        remove_triggers(tx, &shape).await?;
        return Ok(0);
    }
    let left = if is_void {
        tables::forget(tx, &captured.id).await?;
        0
    } else {
        tables::left(tx, &captured.id).await?
    };
    if left > 0 {
        drop_triggers(tx, &shape).await?;
    } else {
        remove_triggers(tx, &shape).await?;
    }
    tables::drop_if_unused(tx).await?;
    Ok(left)
}

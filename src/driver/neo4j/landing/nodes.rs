//! Nodes as they are written.

use neo4rs::{BoltList, BoltMap, BoltNull, BoltType, query};

use super::super::connection::{Ask as _, Tx};
use super::super::error::failed;
use super::super::ledger::{get, unsigned};
use super::side::Side;
use super::stubs;
use crate::driver::Error;
use crate::driver::crossing::STUB;
use crate::run::OnExisting;
use crate::sql::cypher::quoted;

/// Rows in the shape that statements take.
pub(super) fn list(rows: Vec<BoltMap>) -> BoltType {
    BoltType::List(BoltList { value: rows.into_iter().map(BoltType::Map).collect() })
}

/// Writes the nodes of a page: those that are lacking, those that stand for one, and where it says so the others. Returns how many
/// were written.
pub(super) async fn page(
    tx: &mut Tx<'_>,
    side: &Side,
    (rows, on_existing): (Vec<BoltMap>, OnExisting),
) -> Result<u64, Error> {
    let Some((_, node)) = side.node() else { return Ok(0) };
    let count = rows.len() as u64;
    let rows = list(rows);
    // Without SET behind MERGE: the server would gather all rows between the two.
    let on_match = match on_existing {
        OnExisting::Keep => "",
        OnExisting::Update => " ON MATCH SET copy += r.p",
    };
    let make = format!("UNWIND $rows AS r MERGE {node} ON CREATE SET copy += r.p{on_match}");
    let made = tx.summary(query(&make).param("rows", rows.clone())).await;
    let made = made.map_err(failed("write nodes"))?.nodes_created();
    if made == count || on_existing == OnExisting::Update {
        return Ok(count);
    }
    let fill = format!(
        "UNWIND $rows AS r MATCH {node} WHERE copy.{} SET copy += r.p RETURN count(copy) AS count",
        quoted(STUB)
    );
    let filled = tx.rows(query(&fill).param("rows", rows)).await;
    let filled = filled.map_err(failed("write nodes that others refer to"))?;
    let filled = filled.first().map_or(Ok(0), |row| unsigned(get(row, "count")?))?;
    Ok(made + filled)
}

/// Writes nodes as they are, whatever there was.
pub(super) async fn write(tx: &mut Tx<'_>, side: &Side, rows: Vec<BoltMap>) -> Result<(), Error> {
    let Some((_, node)) = side.node() else { return Ok(()) };
    if rows.is_empty() {
        return Ok(());
    }
    let write = format!(
        "UNWIND $rows AS r MERGE {node} ON CREATE SET copy += r.p ON MATCH SET copy += r.p"
    );
    let written = tx.run(query(&write).param("rows", list(rows))).await;
    written.map(|_| ()).map_err(failed("write nodes"))
}

/// Has nodes that are gone stand for themselves: without what the mapping writes. They are removed when [`remove`] finds nothing that
/// refers to them. What has to be unique of them is free for others by then.
pub(super) async fn clear(
    tx: &mut Tx<'_>,
    side: &Side,
    rows: Vec<BoltMap>,
) -> Result<Vec<String>, Error> {
    let Some((_, node)) = side.node() else { return Ok(Vec::new()) };
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut nothing = BoltMap::with_capacity(side.names.len() + 1);
    for name in &side.names {
        nothing.put(name.as_str().into(), BoltType::Null(BoltNull));
    }
    nothing.put(STUB.into(), true.into());
    let clear = format!(
        "UNWIND $rows AS r MATCH {node} SET copy += $nothing RETURN collect(elementId(copy)) AS ids"
    );
    let clear = query(&clear).param("rows", list(rows)).param("nothing", BoltType::Map(nothing));
    let cleared = tx.rows(clear).await.map_err(failed("clear nodes that are gone"))?;
    cleared.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "ids"))
}

/// Removes those of them that nothing refers to.
pub(super) async fn remove(tx: &mut Tx<'_>, ids: Vec<String>) -> Result<(), Error> {
    stubs::free(tx, ids).await.map(|_| ())
}

//! Nodes as they are written.

use neo4rs::{BoltList, BoltMap, BoltNull, BoltType, query};

use super::super::connection::{Ask as _, Tx};
use super::super::error::failed;
use super::super::ledger::{get, unsigned};
use super::side::{Placed, Side};
use super::stubs;
use crate::driver::Error;
use crate::driver::crossing::STUB;
use crate::run::{FailureClass, OnExisting};
use crate::sql::cypher::quoted;

/// Maps in the shape that statements take.
pub(super) fn list(rows: Vec<BoltMap>) -> BoltType {
    BoltType::List(BoltList { value: rows.into_iter().map(BoltType::Map).collect() })
}

/// Rows of one statement, and the same once more where there is a second one: to keep what the first has taken would mean to copy
/// all of it, and as a rule there is none.
pub(super) struct Batch<'a> {
    pub(super) rows: Vec<Placed>,
    pub(super) again: &'a (dyn Fn() -> Result<Vec<Placed>, Error> + Send + Sync),
}

/// Rows in the shape that statements take.
pub(super) fn maps(rows: Vec<Placed>) -> BoltType {
    list(rows.into_iter().map(|row| row.map).collect())
}

/// Writes the nodes of a page: those that are lacking, those that stand for one, and where it says so the others. Returns how many
/// were written.
pub(super) async fn page(
    tx: &mut Tx<'_>,
    side: &Side,
    (batch, on_existing): (Batch<'_>, OnExisting),
) -> Result<u64, Error> {
    let Some((_, node)) = side.node() else { return Ok(0) };
    let count = batch.rows.len() as u64;
    // Without SET behind MERGE: the server would gather all rows between the two.
    let on_match = match on_existing {
        OnExisting::Keep => "",
        OnExisting::Update => " ON MATCH SET copy += r.p",
    };
    let text = format!("UNWIND $rows AS r MERGE {node} ON CREATE SET copy += r.p{on_match}");
    let made = tx.summary(query(&text).param("rows", maps(batch.rows))).await;
    let made = made.map_err(failed("write nodes"))?.nodes_created();
    if made == count {
        return Ok(count);
    }
    let mut written = count;
    if on_existing == OnExisting::Keep {
        let fill = format!(
            "UNWIND $rows AS r MATCH {node} WITH r, copy, copy.{} AS stub \
             FOREACH (_ IN CASE WHEN stub THEN [1] END | SET copy += r.p) RETURN count(CASE WHEN stub THEN 1 END) AS filled",
            quoted(STUB)
        );
        let filled = tx.rows(query(&fill).param("rows", maps((batch.again)()?))).await;
        let filled = filled.map_err(failed("write nodes that others refer to"))?;
        written = made + filled.first().map_or(Ok(0), |row| unsigned(get(row, "filled")?))?;
    }
    all_there(tx, &node, (batch.again)()?).await?;
    Ok(written)
}

/// Refuses to go on where nodes aren't there that were written: one that stands for a row goes with the last relationship that needs
/// it, also between its being found and its being written to, and what is written to a node that is gone is lost without a word.
async fn all_there(tx: &mut Tx<'_>, node: &str, mut rows: Vec<Placed>) -> Result<(), Error> {
    let count = rows.len() as u64;
    for row in &mut rows {
        row.map.value.retain(|name, _| name.value != "p");
    }
    let look = format!(
        "UNWIND $rows AS r MATCH {node} WHERE NOT coalesce(copy.{}, false) RETURN count(*) AS there",
        quoted(STUB)
    );
    let there = tx.rows(query(&look).param("rows", maps(rows))).await;
    let there = there.map_err(failed("look for nodes that were written"))?;
    if there.first().map_or(Ok(0), |row| unsigned(get(row, "there")?))? < count {
        let message = "nodes that stood for rows were removed while these were written";
        return Err(Error::failed(FailureClass::Contention, message));
    }
    Ok(())
}

/// Writes nodes as they are, whatever there was.
pub(super) async fn write(tx: &mut Tx<'_>, side: &Side, batch: Batch<'_>) -> Result<(), Error> {
    if batch.rows.is_empty() {
        return Ok(());
    }
    page(tx, side, (batch, OnExisting::Update)).await.map(|_| ())
}

/// Has nodes that are gone stand for themselves: without what the mapping writes. They are removed when [`remove`] finds nothing that
/// refers to them. What has to be unique of them is free for others by then.
pub(super) async fn clear(
    tx: &mut Tx<'_>,
    side: &Side,
    rows: Vec<Placed>,
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
    let clear = query(&clear).param("rows", maps(rows)).param("nothing", BoltType::Map(nothing));
    let cleared = tx.rows(clear).await.map_err(failed("clear nodes that are gone"))?;
    cleared.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "ids"))
}

/// Removes those of them that nothing refers to.
pub(super) async fn remove(tx: &mut Tx<'_>, ids: Vec<String>) -> Result<(), Error> {
    stubs::free(tx, ids).await.map(|_| ())
}

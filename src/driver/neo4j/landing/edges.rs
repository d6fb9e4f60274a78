//! Relationships as they are written: those that are known by their ends, and those that have a key of their own.
//!
//! A node that is lacking gets a [stub](super::stubs). Statements are tried as if no node were: that is so where nodes are copied first.

use std::collections::{BTreeMap, BTreeSet};

use neo4rs::{BoltMap, query};

use super::super::connection::{Ask as _, Tx};
use super::super::error::failed;
use super::super::ledger::{get, unsigned};
use super::super::shape::{Node, Pattern};
use super::nodes::{Batch, list, maps};
use super::side::{Placed, Side};
use super::stubs;
use crate::driver::Error;
use crate::driver::crossing::STUB;
use crate::run::{FailureClass, OnExisting};
use crate::sql::cypher::quoted;

/// Writes the relationships of a page: those that are lacking, and where it says so the others. Returns how many were written.
pub(super) async fn page(
    tx: &mut Tx<'_>,
    side: &Side,
    (batch, on_existing): (Batch<'_>, OnExisting),
) -> Result<u64, Error> {
    let count = batch.rows.len() as u64;
    let updates = on_existing == OnExisting::Update;
    if side.own.is_empty() {
        let made = merge(tx, side, (batch, on_existing)).await?;
        return Ok(if updates { count } else { made });
    }
    let found = found(tx, side, &batch.rows).await?;
    let (there, lacking) = apart(batch.rows, &found);
    let made = create(tx, side, (lacking, batch.again)).await?;
    if !updates {
        return Ok(made);
    }
    rewrite(tx, side, there).await?;
    Ok(count)
}

/// Writes relationships as they are, whatever there was.
pub(super) async fn write(tx: &mut Tx<'_>, side: &Side, batch: Batch<'_>) -> Result<(), Error> {
    if batch.rows.is_empty() {
        return Ok(());
    }
    page(tx, side, (batch, OnExisting::Update)).await.map(|_| ())
}

/// Removes relationships, and the stubs that nothing refers to then.
pub(super) async fn remove(tx: &mut Tx<'_>, side: &Side, rows: Vec<Placed>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let matched = if side.own.is_empty() { between(side) } else { side.by_own_key() };
    let remove = format!("UNWIND $rows AS r {matched} DELETE copy {}", freed());
    let removed = tx.rows(query(&remove).param("rows", maps(rows))).await;
    let removed = removed.map_err(failed("remove relationships"))?;
    let ids = removed.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "ids"))?;
    stubs::free(tx, ids).await.map(|_| ())
}

/// `MATCH` of the relationship between the ends of `r`. From there on, as one of them may have very many: left to itself the server
/// goes through all that one has.
pub(super) fn between(side: &Side) -> String {
    let [start, end] = side.ends();
    let kind = kind(side);
    format!(
        "MATCH {start} MATCH {end} \
         CALL (copy_start, copy_end) {{ MATCH (copy_start)-[copy:{kind}]->(copy_end) RETURN copy }} WITH r, copy_start, copy, copy_end"
    )
}

/// The ends of relationships that were removed, as far as they are stubs.
fn freed() -> String {
    format!(
        "WITH copy_start, copy_end UNWIND [copy_start, copy_end] AS n WITH DISTINCT n WHERE n.{} \
         RETURN collect(elementId(n)) AS ids",
        quoted(STUB)
    )
}

fn kind(side: &Side) -> String {
    side.pattern.relationship().map(quoted).unwrap_or_default()
}

/// Makes relationships that are known by their ends where they are lacking. Returns how many.
async fn merge(
    tx: &mut Tx<'_>,
    side: &Side,
    (batch, on_existing): (Batch<'_>, OnExisting),
) -> Result<u64, Error> {
    let [start, end] = side.ends();
    let (on_create, on_match) = match (side.names.is_empty(), on_existing) {
        (true, _) => ("", ""),
        (false, OnExisting::Keep) => (" ON CREATE SET copy += r.p", ""),
        (false, OnExisting::Update) => (" ON CREATE SET copy += r.p", " ON MATCH SET copy += r.p"),
    };
    let text = format!(
        "UNWIND $rows AS r MATCH {start} MATCH {end} MERGE (copy_start)-[copy:{}]->(copy_end){on_create}{on_match}",
        kind(side)
    );
    let count = batch.rows.len() as u64;
    let merged = tx.summary(query(&text).param("rows", maps(batch.rows))).await;
    let made = merged.map_err(failed("write relationships"))?.relationships_created();
    if made == count {
        return Ok(made);
    }
    let rows = (batch.again)()?;
    if have_ends(tx, side, &rows).await? {
        return Ok(made);
    }
    complete(tx, side, &rows).await?;
    let merged = tx.summary(query(&text).param("rows", maps(rows))).await;
    let more = merged.map_err(failed("write relationships"))?.relationships_created();
    Ok(made + more)
}

/// Makes relationships with keys of their own, none of which is there. Returns how many.
async fn create(
    tx: &mut Tx<'_>,
    side: &Side,
    (rows, again): (Vec<Placed>, &(dyn Fn() -> Result<Vec<Placed>, Error> + Send + Sync)),
) -> Result<u64, Error> {
    let count = rows.len() as u64;
    if count == 0 {
        return Ok(0);
    }
    let mut made = create_once(tx, side, rows).await?;
    if made < count {
        let all = again()?;
        let found = found(tx, side, &all).await?;
        let (_, rest) = apart(all, &found);
        complete(tx, side, &rest).await?;
        made += create_once(tx, side, rest).await?;
    }
    if made < count {
        // Nodes that were there a moment ago.
        let message = "nodes were removed while relationships between them were written";
        return Err(Error::failed(FailureClass::Contention, message));
    }
    Ok(made)
}

/// Rows that were found, each with whether it is between the same nodes, and those that weren't.
fn apart(rows: Vec<Placed>, found: &BTreeMap<i64, bool>) -> (Vec<(Placed, bool)>, Vec<Placed>) {
    let (mut there, mut lacking) = (Vec::new(), Vec::new());
    for (row, at) in rows.into_iter().zip(0..) {
        match found.get(&at) {
            Some(is_here) => there.push((row, *is_here)),
            None => lacking.push(row),
        }
    }
    (there, lacking)
}

async fn create_once(tx: &mut Tx<'_>, side: &Side, rows: Vec<Placed>) -> Result<u64, Error> {
    let [start, end] = side.ends();
    // Property by property: with a SET behind it the server would gather all rows between the two.
    let own = side.own.iter().enumerate().map(|(at, key)| format!("{}: r.k{at}", quoted(key)));
    let others = side.names.iter().map(|name| format!("{0}: r.p.{0}", quoted(name)));
    let properties: Vec<String> = own.chain(others).collect();
    let text = format!(
        "UNWIND $rows AS r MATCH {start} MATCH {end} CREATE (copy_start)-[:{} {{{}}}]->(copy_end)",
        kind(side),
        properties.join(", ")
    );
    let made = tx.summary(query(&text).param("rows", maps(rows))).await;
    Ok(made.map_err(failed("write relationships"))?.relationships_created())
}

/// Those rows that are there by their own keys, each with whether it is between the same nodes.
async fn found(
    tx: &mut Tx<'_>,
    side: &Side,
    rows: &[Placed],
) -> Result<BTreeMap<i64, bool>, Error> {
    let mut same = Vec::new();
    for (name, node) in ["s", "e"].into_iter().zip(side.pattern.nodes()) {
        let keys = node.key_expressions().into_iter().enumerate();
        same.extend(keys.map(|(at, key)| format!("{key} = r.{name}{at}")));
    }
    // By their place alone: rows are sent back and forth often enough.
    let numbered = rows.iter().zip(0_i64..).map(|(row, at)| {
        let mut map = only(&row.map, &["k", "s", "e"]);
        map.put("at".into(), at.into());
        map
    });
    let text = format!(
        "UNWIND $rows AS r {} WITH r, coalesce({}, false) AS same \
         RETURN collect(CASE WHEN same THEN r.at END) AS here, collect(CASE WHEN NOT same THEN r.at END) AS elsewhere",
        side.by_own_key(),
        same.join(" AND ")
    );
    let found = tx.rows(query(&text).param("rows", list(numbered.collect()))).await;
    let found = found.map_err(failed("look for relationships"))?;
    let Some(row) = found.first() else { return Ok(BTreeMap::new()) };
    let (here, elsewhere): (Vec<i64>, Vec<i64>) = (get(row, "here")?, get(row, "elsewhere")?);
    let here = here.into_iter().map(|at| (at, true));
    Ok(here.chain(elsewhere.into_iter().map(|at| (at, false))).collect())
}

/// Writes relationships that are there by their own keys: anew where they are between other nodes, with all that others gave them.
async fn rewrite(tx: &mut Tx<'_>, side: &Side, rows: Vec<(Placed, bool)>) -> Result<(), Error> {
    let (here, moved): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, is_here)| *is_here);
    let [here, moved] =
        [here, moved].map(|rows| rows.into_iter().map(|(row, _)| row).collect::<Vec<Placed>>());
    if !here.is_empty() && !side.names.is_empty() {
        let text = format!("UNWIND $rows AS r {} SET copy += r.p", side.by_own_key());
        let written = tx.run(query(&text).param("rows", maps(here))).await;
        written.map_err(failed("write relationships"))?;
    }
    if moved.is_empty() {
        return Ok(());
    }
    if !have_ends(tx, side, &moved).await? {
        complete(tx, side, &moved).await?;
    }
    let [start, end] = side.ends();
    let text = format!(
        "UNWIND $rows AS r {} WITH r, copy, properties(copy) AS kept, copy_start AS from_start, copy_end AS from_end \
         DELETE copy WITH r, kept, from_start, from_end MATCH {start} MATCH {end} \
         CREATE (copy_start)-[moved:{}]->(copy_end) SET moved = kept SET moved += r.p \
         WITH from_start AS copy_start, from_end AS copy_end {}",
        side.by_own_key(),
        kind(side),
        freed()
    );
    let done = tx.rows(query(&text).param("rows", maps(moved))).await;
    let done = done.map_err(failed("move relationships"))?;
    let ids = done.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "ids"))?;
    stubs::free(tx, ids).await.map(|_| ())
}

/// Whether every row has both its nodes.
async fn have_ends(tx: &mut Tx<'_>, side: &Side, rows: &[Placed]) -> Result<bool, Error> {
    let [start, end] = side.ends();
    let text = format!("UNWIND $rows AS r MATCH {start} MATCH {end} RETURN count(*) AS count");
    let ends = rows.iter().map(|row| only(&row.map, &["s", "e"])).collect();
    let counted = tx.rows(query(&text).param("rows", list(ends))).await;
    let counted = counted.map_err(failed("look for the nodes of relationships"))?;
    let count = counted.first().map_or(Ok(0), |row| unsigned(get(row, "count")?))?;
    Ok(count >= rows.len() as u64)
}

/// Makes the nodes that rows lack, each label's in one order.
async fn complete(tx: &mut Tx<'_>, side: &Side, rows: &[Placed]) -> Result<(), Error> {
    let Pattern::Relationship { first, second, .. } = &side.pattern else { return Ok(()) };
    let ends: [(&Node, &str); 2] = [(first, "s"), (second, "e")];
    for (at, (node, name)) in ends.into_iter().enumerate() {
        let mut known = BTreeSet::new();
        let mut all = BTreeMap::new();
        for row in rows {
            if let Some(text) = row.ends.get(at)
                && known.insert(text)
            {
                all.insert(text, only(&row.map, &[name]));
            }
        }
        stubs::make(tx, (node, name), all.into_values().collect()).await?;
    }
    Ok(())
}

/// Of a row's map the parts of some keys.
fn only(map: &BoltMap, names: &[&str]) -> BoltMap {
    let is_one = |name: &str| {
        names.iter().any(|own| {
            let rest = name.strip_prefix(own);
            rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|it| it.is_ascii_digit()))
        })
    };
    let parts = map.value.iter().filter(|(name, _)| is_one(&name.value));
    parts.map(|(name, value)| (name.clone(), value.clone())).collect()
}

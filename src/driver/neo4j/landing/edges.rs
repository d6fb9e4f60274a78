//! Relationships as they are written: those that are known by their ends, and those that have a key of their own.
//!
//! A node that is lacking gets a [stub](super::stubs). Statements are tried as if no node were: that is so where nodes are copied first.

use std::collections::{BTreeMap, BTreeSet};

use neo4rs::summary::ResultSummary;
use neo4rs::{BoltMap, Query, query};

use super::super::connection::{Ask as _, Tx};
use super::super::error::failed;
use super::super::ledger::get;
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
        "UNWIND $rows AS r MATCH {start} MATCH {end} MERGE (copy_start)-[copy:{}]->(copy_end){on_create}{on_match} \
         RETURN count(*) AS met",
        kind(side)
    );
    let count = batch.rows.len();
    let (met, first) = merged(tx, query(&text).param("rows", maps(batch.rows))).await?;
    if met == count {
        return Ok(first.relationships_created());
    }
    let rows = (batch.again)()?;
    complete(tx, side, &rows).await?;
    let (met, then) = merged(tx, query(&text).param("rows", maps(rows))).await?;
    all_met(met, count)?;
    Ok(first.relationships_created() + then.relationships_created())
}

/// How many rows a statement met, which says so itself: what another one finds a moment later is no answer, as nodes come and go with
/// rows of other mappings.
async fn merged(tx: &mut Tx<'_>, query: Query) -> Result<(usize, ResultSummary), Error> {
    let (met, summary) = tx.met(query).await.map_err(failed("write relationships"))?;
    Ok((usize::try_from(met).unwrap_or_default(), summary))
}

/// Refuses to go on where rows were passed by.
fn all_met(met: usize, count: usize) -> Result<(), Error> {
    if met < count {
        // Nodes that were there a moment ago.
        let message = "nodes were removed while relationships between them were written";
        return Err(Error::failed(FailureClass::Contention, message));
    }
    Ok(())
}

/// Makes relationships with keys of their own, none of which is there. Returns how many.
async fn create(
    tx: &mut Tx<'_>,
    side: &Side,
    (rows, again): (Vec<Placed>, &(dyn Fn() -> Result<Vec<Placed>, Error> + Send + Sync)),
) -> Result<u64, Error> {
    let count = rows.len();
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
    all_met(made, count)?;
    Ok(made as u64)
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

async fn create_once(tx: &mut Tx<'_>, side: &Side, rows: Vec<Placed>) -> Result<usize, Error> {
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
    let made = made.map_err(failed("write relationships"))?.relationships_created();
    Ok(usize::try_from(made).unwrap_or_default())
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
        let count = here.len();
        let text = format!(
            "UNWIND $rows AS r {} SET copy += r.p RETURN count(*) AS met",
            side.by_own_key()
        );
        let (met, _) = merged(tx, query(&text).param("rows", maps(here))).await?;
        all_met(met, count)?;
    }
    if moved.is_empty() {
        return Ok(());
    }
    complete(tx, side, &moved).await?;
    let [start, end] = side.ends();
    let count = moved.len();
    let text = format!(
        "UNWIND $rows AS r {} WITH r, copy, properties(copy) AS kept, copy_start AS from_start, copy_end AS from_end \
         MATCH {start} MATCH {end} DELETE copy \
         CREATE (copy_start)-[moved:{}]->(copy_end) SET moved = kept SET moved += r.p \
         WITH count(*) AS met, collect(from_start) + collect(from_end) AS nodes \
         RETURN met, [n IN nodes WHERE n.{} | elementId(n)] AS ids",
        side.by_own_key(),
        kind(side),
        quoted(STUB)
    );
    let done = tx.rows(query(&text).param("rows", maps(moved))).await;
    let done = done.map_err(failed("move relationships"))?;
    let Some(row) = done.first() else { return all_met(0, count) };
    let met: i64 = get(row, "met")?;
    all_met(usize::try_from(met).unwrap_or_default(), count)?;
    let ids: BTreeSet<String> = get::<Vec<String>>(row, "ids")?.into_iter().collect();
    stubs::free(tx, ids.into_iter().collect()).await.map(|_| ())
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

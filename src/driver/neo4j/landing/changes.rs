//! Changes as they are applied.
//!
//! Of one key only the highest version counts: it holds the row as it is, or says that there is none. What is judged by versions is
//! judged under all turns, one statement before anything is written, with each key once: a statement that did both would judge
//! all of its rows by what there was before it.
//!
//! The order: what nodes that are gone have is taken away, so that what has to be unique is free; then nodes, then relationships,
//! and at last nodes that are gone and that nothing refers to.

use std::collections::BTreeMap;

use super::super::Neo4j;
use super::super::connection::Tx;
use super::super::error::damaged;
use super::nodes::Batch;
use super::side::{Placed, Side};
use super::{edges, nodes, turns, versions};
use crate::copy::row::{Datum, Row};
use crate::driver::crossing::{Change, Crossed, What};
use crate::driver::{Error, Fence, TxKind};
use crate::run::MappingName;

/// The changes of one mapping, by what their keys' versions are known by.
struct Changed<'a> {
    side: Side,
    newest: BTreeMap<String, &'a Change>,
}

/// What is to be written of one mapping.
#[derive(Default)]
struct Writes<'a> {
    is: Vec<&'a Row>,
    gone: Vec<Placed>,
}

impl Neo4j {
    pub(super) async fn apply(
        &self,
        fence: &Fence,
        (of, changes): (&[Crossed], &[Change]),
    ) -> Result<(), Error> {
        let batches = batches(of, changes)?;
        if batches.is_empty() {
            return Ok(());
        }
        let mut tx = self.connections.begin(fence, TxKind::Land).await?;
        turns::take_all(&mut tx, batches.keys().copied()).await?;
        let mut all: Vec<(&Side, Writes<'_>)> = Vec::new();
        for batch in batches.values() {
            let writes = Box::pin(judged(&mut tx, batch)).await?;
            all.push((&batch.side, writes));
        }
        Box::pin(write(&mut tx, all)).await?;
        super::commit(tx).await
    }
}

fn batches<'a>(
    of: &[Crossed],
    changes: &'a [Change],
) -> Result<BTreeMap<&'a MappingName, Changed<'a>>, Error> {
    let mut batches: BTreeMap<&MappingName, Changed<'_>> = BTreeMap::new();
    for change in changes {
        let batch = match batches.entry(&change.mapping) {
            std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let crossed = of.iter().find(|one| one.mapping.name == change.mapping);
                let unknown = || damaged(format!("a change is of mapping {}", change.mapping));
                let side = Side::of(crossed.ok_or_else(unknown)?)?;
                place.insert(Changed { side, newest: BTreeMap::new() })
            }
        };
        let Some(key) = key(change) else {
            return Err(damaged("a change that is about no row can't be applied to one"));
        };
        let kept = batch.newest.entry(versions::text(&change.mapping, key)).or_insert(change);
        if kept.version < change.version {
            *kept = change;
        }
    }
    Ok(batches)
}

/// The key of the row that a change is about.
const fn key(change: &Change) -> Option<&Vec<Datum>> {
    match &change.what {
        What::Is(row) => Some(&row.key),
        What::Gone(key) => Some(key),
        What::Emptied | What::Unfit(_) => None,
    }
}

/// What is to be written of a mapping's changes: nothing where it isn't open, and nothing that is older than what is there.
async fn judged<'a>(tx: &mut Tx<'_>, batch: &Changed<'a>) -> Result<Writes<'a>, Error> {
    let side = &batch.side;
    let Some(standing) = turns::standing(tx, &side.mapping).await? else {
        return Ok(Writes::default());
    };
    let is_above = |change: &Change| standing.floor.is_none_or(|floor| change.version > floor);
    let open = batch.newest.iter().filter(|(_, change)| is_above(change));
    let open: BTreeMap<&String, u64> = open.map(|(text, change)| (text, change.version)).collect();
    if open.is_empty() {
        return Ok(Writes::default());
    }
    let raised = versions::raise(tx, &open).await?;
    let mut writes = Writes::default();
    for (text, change) in &batch.newest {
        if !raised.contains(text) {
            continue;
        }
        match &change.what {
            What::Is(row) => writes.is.push(row),
            What::Gone(key) => writes.gone.push(side.gone(key)?),
            What::Emptied | What::Unfit(_) => {}
        }
    }
    Ok(writes)
}

async fn write(tx: &mut Tx<'_>, all: Vec<(&Side, Writes<'_>)>) -> Result<(), Error> {
    let (of_nodes, of_edges): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(side, _)| side.node().is_some());
    let mut cleared = Vec::new();
    let mut there = Vec::new();
    for (side, Writes { is, gone }) in of_nodes {
        cleared.extend(nodes::clear(tx, side, gone).await?);
        there.push((side, is));
    }
    for (side, is) in there {
        let again = || placed(side, &is);
        let batch = Batch { rows: again()?, again: &again };
        nodes::write(tx, side, batch).await?;
    }
    for (side, Writes { is, gone }) in of_edges {
        edges::remove(tx, side, gone).await?;
        let again = || placed(side, &is);
        let batch = Batch { rows: again()?, again: &again };
        edges::write(tx, side, batch).await?;
    }
    nodes::remove(tx, cleared).await
}

/// Rows as statements take them, in the order in which locks are taken: nodes are in that of their keys already.
fn placed(side: &Side, rows: &[&Row]) -> Result<Vec<Placed>, Error> {
    let placed: Result<Vec<Placed>, Error> = rows.iter().map(|row| side.to_write(row)).collect();
    let mut placed = placed?;
    placed.sort_by(|one, other| one.ends.cmp(&other.ends));
    Ok(placed)
}

//! A whole table that was emptied: every row of a lower version goes.
//!
//! The first transaction writes down the version, as a floor: from then on nothing of a lower one is written, and no page of the copy at
//! all. Rows that were there are walked through by their keys, a bounded number in a transaction, which keeps where it has come to. So
//! it comes to an end, whatever stays: rows that have come since, and nodes that something refers to. Then the versions are.
//!
//! Where the new side had rows of its own before, it is refused, which is written down. Whoever has it tried again has heard that: then
//! nothing is removed, and all the rest is done as ever. What is to go is then extra to a comparison, and may be removed by its repair.

use neo4rs::query;
use serde::{Deserialize, Serialize};

use super::super::Neo4j;
use super::super::connection::{Ask as _, Tx};
use super::super::error::{damaged, failed};
use super::super::ledger::{get, signed};
use super::side::Side;
use super::turns::Standing;
use super::{edges, nodes, turns, versions, walk};
use crate::bounds::neo4j::BATCH;
use crate::copy::chunk::{Chunk, Key};
use crate::copy::row::Datum;
use crate::driver::crossing::Crossed;
use crate::driver::{Error, Fence, TxKind};
use crate::run::{FailureClass, MappingName};

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Emptying {
    /// The last key of the rows that were looked at.
    rows: Option<Key>,
    rows_are_done: bool,
    /// The last of the versions.
    versions: Option<String>,
    versions_are_done: bool,
}

impl Neo4j {
    pub(super) async fn empty_up_to(
        &self,
        fence: &Fence,
        (crossed, version): (&Crossed, u64),
    ) -> Result<bool, Error> {
        let side = Side::of(crossed)?;
        let mut tx = self.connections.begin(fence, TxKind::Land).await?;
        turns::take_all(&mut tx, std::iter::once(&side.mapping)).await?;
        let Some(standing) = turns::standing(&mut tx, &side.mapping).await? else {
            tx.roll_back().await;
            return Ok(false);
        };
        let is_let_go = standing.floor.is_some_and(|floor| floor >= version);
        if !standing.only_copies && !is_let_go && !was_refused(&mut tx, &side, version).await? {
            super::commit(tx).await?;
            return Err(had_its_own(&side));
        }
        let (floor, mut emptying) = begun(&standing, version)?;
        // Which rows would have to go can't be told: a comparison says.
        emptying.rows_are_done |= !standing.only_copies;
        if !emptying.rows_are_done {
            Box::pin(rows(&mut tx, &side, (floor, &mut emptying))).await?;
        } else if !emptying.versions_are_done {
            let after = emptying.versions.take().unwrap_or_default();
            emptying.versions =
                versions::forget_up_to(&mut tx, &side.mapping, (floor, &after)).await?;
            emptying.versions_are_done = emptying.versions.is_none();
        }
        keep(&mut tx, &side.mapping, (floor, &emptying)).await?;
        super::commit(tx).await?;
        Ok(!emptying.versions_are_done)
    }
}

/// Whether this or a higher version was refused before; writes down that it is now.
async fn was_refused(tx: &mut Tx<'_>, side: &Side, version: u64) -> Result<bool, Error> {
    let note = query(
        "MATCH (s:phasegate_syncs) WHERE s.mapping = $mapping WITH s, coalesce(s.refused, -1) >= $version AS before \
         SET s.refused = CASE WHEN before THEN s.refused ELSE $version END RETURN before",
    )
    .param("mapping", side.mapping.as_str())
    .param("version", signed(version));
    let rows = tx.rows(note).await.map_err(failed("note that rows are not removed"))?;
    rows.first().map_or(Ok(false), |row| get(row, "before"))
}

/// Where to go on, and up to which version: from the beginning where that is higher than before.
fn begun(standing: &Standing, version: u64) -> Result<(u64, Emptying), Error> {
    match (standing.floor, &standing.emptying) {
        (Some(floor), Some(text)) if floor >= version => {
            let emptying = serde_json::from_str(text);
            let emptying =
                emptying.map_err(|_| damaged("how far rows are removed can't be read"))?;
            Ok((floor, emptying))
        }
        _ => Ok((version, Emptying::default())),
    }
}

async fn keep(
    tx: &mut Tx<'_>,
    mapping: &MappingName,
    (floor, emptying): (u64, &Emptying),
) -> Result<(), Error> {
    let text = serde_json::to_string(emptying).map_err(|error| damaged(error.to_string()))?;
    let keep = query(
        "MATCH (s:phasegate_syncs) WHERE s.mapping = $mapping SET s.floor = $floor, s.emptying = $emptying",
    )
    .param("mapping", mapping.as_str())
    .param("floor", signed(floor))
    .param("emptying", text);
    tx.run(keep).await.map(|_| ()).map_err(failed("keep how far rows are removed"))
}

/// Removes rows that have no version above the floor, of a bounded number.
async fn rows(
    tx: &mut Tx<'_>,
    side: &Side,
    (floor, emptying): (u64, &mut Emptying),
) -> Result<(), Error> {
    let rest = Chunk { lo: emptying.rows.take(), hi: None };
    let walked = walk::keys(tx, side, (&rest, Some(BATCH))).await?;
    let (last, is_end) = (walked.last, walked.count < BATCH);
    emptying.rows = last;
    emptying.rows_are_done = is_end;
    let text = |key: &Vec<Datum>| versions::text(&side.mapping, key);
    let mut keys: Vec<(String, Vec<Datum>)> =
        walked.keys.into_iter().map(|key| (text(&key), key)).collect();
    keys.sort_by(|one, other| one.0.cmp(&other.0));
    keys.dedup_by(|one, other| one.0 == other.0);
    let newer = versions::above(tx, keys.iter().map(|(text, _)| text), floor).await?;
    keys.retain(|(text, _)| !newer.contains(text));
    let placed: Result<Vec<_>, Error> = keys.iter().map(|(_, key)| side.gone(key)).collect();
    if side.node().is_some() {
        let cleared = nodes::clear(tx, side, placed?).await?;
        return nodes::remove(tx, cleared).await;
    }
    edges::remove(tx, side, placed?).await
}

fn had_its_own(side: &Side) -> Error {
    let name = side.labels().pop().unwrap_or_default();
    let message = format!(
        "the table of mapping {} was emptied, and {name} had rows of its own before: which of them are to go can't be told",
        side.mapping
    );
    Error::failed(FailureClass::Unsafe, message).with_help(
        "let a verify with `repair` remove what the table has no row of: it has this tried again, and then nothing is removed by it; or \
         go back with `phasegate rollback`",
    )
}

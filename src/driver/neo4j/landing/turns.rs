//! Who may write rows of a mapping: pages of a copy beside each other, or changes, and never both at once.
//!
//! A mapping that is open has a fixed number of nodes, whose locks are turns. A page of nodes takes one of them, by its slot; pages of
//! relationships all take the first, since two of them would wait for each other's nodes. Whoever applies changes takes all of them, in one
//! order. So a page finds every version that was written before it and none is written until it ends. A lock is held until its
//! transaction ends, and waited for only for a while.
//!
//! What is known of the mapping beside that (whether it is shut, from which version on rows may be there) is on its node among
//! `phasegate_syncs`, and read under a turn.

use neo4rs::{BoltList, BoltMap, BoltType, Row, query};

use super::super::connection::{Ask, Tx};
use super::super::error::failed;
use super::super::ledger::{get, unsigned};
use super::side::Side;
use crate::bounds::neo4j::{TURN_WITHIN, TURNS};
use crate::driver::{Error, Fence};
use crate::run::{FailureClass, MappingName};

/// What is known of a mapping that is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// No row of a lower version may be there, nor one of this.
    pub(super) floor: Option<u64>,
    /// How far rows below it are removed.
    pub(super) emptying: Option<String>,
    /// Whether the new side was empty when the mapping was opened.
    pub(super) only_copies: bool,
}

/// What a page finds.
#[derive(Debug)]
pub(super) struct Taken {
    /// What is known of its mapping; `None` where that isn't open.
    pub(super) standing: Option<Standing>,
    /// Whether any change of anything was applied: where none was, no version has to be looked for.
    pub(super) has_versions: bool,
}

/// Waits for the turn of a page, and reads behind it what it has to know.
pub(super) async fn take(tx: &mut Tx<'_>, fence: &Fence, side: &Side) -> Result<Taken, Error> {
    let at = if side.node().is_some() { fence.slot() % TURNS } else { 0 };
    // Counting gathers what comes before it, so that nothing behind is read without the lock.
    let behind = "WITH count(t) AS held CALL { MATCH (v:phasegate_versions) RETURN count(v) AS versions } \
         OPTIONAL MATCH (s:phasegate_syncs) WHERE s.mapping = $mapping AND s.shut = false \
         RETURN versions, s IS NOT NULL AS is_open, s.floor AS floor, s.emptying AS emptying, \
         coalesce(s.only_copies, false) AS only_copies";
    let turn = vec![turn(&side.mapping, at)];
    let rows = lock(tx, turn, behind, Some(&side.mapping)).await?;
    let Some(row) = rows.first() else { return Ok(Taken { standing: None, has_versions: true }) };
    let standing = if get(row, "is_open")? { Some(read(row)?) } else { None };
    Ok(Taken { standing, has_versions: get::<i64>(row, "versions")? > 0 })
}

/// Waits for all turns of some mappings, which come in order.
pub(super) async fn take_all(
    tx: &mut Tx<'_>,
    mappings: impl Iterator<Item = &MappingName> + Send,
) -> Result<(), Error> {
    let mut mappings: Vec<&MappingName> = mappings.collect();
    mappings.sort();
    mappings.dedup();
    let all = mappings.into_iter().flat_map(|mapping| (0..TURNS).map(move |at| turn(mapping, at)));
    lock(tx, all.collect(), "", None).await.map(|_| ())
}

fn turn(mapping: &MappingName, turn: u32) -> BoltType {
    let mut map = BoltMap::with_capacity(2);
    map.put("mapping".into(), mapping.as_str().into());
    map.put("turn".into(), i64::from(turn).into());
    BoltType::Map(map)
}

/// Locks turns, and asks for what is `behind` them.
async fn lock(
    tx: &mut Tx<'_>,
    turns: Vec<BoltType>,
    behind: &str,
    mapping: Option<&MappingName>,
) -> Result<Vec<Row>, Error> {
    let text = format!(
        "UNWIND $turns AS r MATCH (t:phasegate_turns {{mapping: r.mapping, turn: r.turn}}) \
         USING INDEX t:phasegate_turns(mapping, turn) SET t.held = true {behind}"
    );
    let lock = query(&text)
        .param("turns", BoltType::List(BoltList { value: turns }))
        .param("mapping", mapping.map_or("", MappingName::as_str));
    match tokio::time::timeout(TURN_WITHIN, tx.rows(lock)).await {
        Ok(rows) => rows.map_err(failed("wait for a turn")),
        Err(_) => {
            let message =
                format!("others write rows of the mapping for longer than {TURN_WITHIN:?}");
            Err(Error::failed(FailureClass::Contention, message)
                .with_help("see SHOW TRANSACTIONS for what they are blocked by"))
        }
    }
}

/// What is known of a mapping, read behind a turn; `None` where it isn't open.
pub(super) async fn standing(
    who: &mut impl Ask,
    mapping: &MappingName,
) -> Result<Option<Standing>, Error> {
    let ask = query(
        "MATCH (s:phasegate_syncs) WHERE s.mapping = $mapping AND s.shut = false \
         RETURN s.floor AS floor, s.emptying AS emptying, coalesce(s.only_copies, false) AS only_copies",
    )
    .param("mapping", mapping.as_str());
    let rows = who.rows(ask).await.map_err(failed("read how a mapping stands"))?;
    rows.first().map(read).transpose()
}

fn read(row: &Row) -> Result<Standing, Error> {
    let floor: Option<i64> = get(row, "floor")?;
    Ok(Standing {
        floor: floor.map(unsigned).transpose()?,
        emptying: get(row, "emptying")?,
        only_copies: get(row, "only_copies")?,
    })
}

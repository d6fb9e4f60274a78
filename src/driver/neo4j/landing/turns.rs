//! Who may write rows of a mapping: pages of a copy beside each other, or changes, and never both at once.
//!
//! A mapping that is open has a fixed number of nodes, whose locks are turns. A page takes one of them, by its slot, and whoever applies
//! changes takes all of them, in one order. So a page finds every version that was written before it and none is written until
//! it ends. A lock is held until its transaction ends, and waited for only for a while.
//!
//! What is known of the mapping beside that (whether it is shut, from which version on rows may be there) is on its node among
//! `phasegate_syncs`, and read under a turn.

use std::time::Duration;

use neo4rs::{BoltList, BoltMap, BoltType, Row, query};

use super::super::connection::{Ask, Tx};
use super::super::error::failed;
use super::super::ledger::{get, unsigned};
use crate::driver::{Error, Fence};
use crate::run::{FailureClass, MappingName};

/// How many pages of a mapping may be written at once. One block of workers has slots one behind the other.
pub(super) const TURNS: u32 = 8;

/// How long a turn may be waited for: it is held for as long as a page or some changes take.
const TURN_WITHIN: Duration = Duration::from_secs(10);

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

/// Waits for the turn of a page.
pub(super) async fn take(
    tx: &mut Tx<'_>,
    fence: &Fence,
    mapping: &MappingName,
) -> Result<(), Error> {
    lock(tx, vec![turn(mapping, fence.slot() % TURNS)]).await
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
    let all = all.collect();
    lock(tx, all).await
}

fn turn(mapping: &MappingName, turn: u32) -> BoltType {
    let mut map = BoltMap::with_capacity(2);
    map.put("mapping".into(), mapping.as_str().into());
    map.put("turn".into(), i64::from(turn).into());
    BoltType::Map(map)
}

async fn lock(tx: &mut Tx<'_>, turns: Vec<BoltType>) -> Result<(), Error> {
    let lock = query(
        "UNWIND $turns AS r MATCH (t:phasegate_turns {mapping: r.mapping, turn: r.turn}) \
         USING INDEX t:phasegate_turns(mapping, turn) SET t.held = true",
    )
    .param("turns", BoltType::List(BoltList { value: turns }));
    match tokio::time::timeout(TURN_WITHIN, tx.run(lock)).await {
        Ok(done) => done.map(|_| ()).map_err(failed("wait for a turn")),
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

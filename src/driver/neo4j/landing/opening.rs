//! Where a mapping is opened, shut and closed.
//!
//! It is open when its node among `phasegate_syncs` says that it isn't shut: from the transaction that makes its turns to the one that
//! shuts it, under all of them. Constraints, and whether the new side was empty, are written down before anything is made, as for
//! mappings inside one graph.

use neo4rs::query;

use super::super::Neo4j;
use super::super::connection::Tx;
use super::super::dual_write::{Begun, begun};
use super::super::error::failed;
use super::super::ledger::{self, record};
use super::super::script;
use super::side::Side;
use super::{turns, versions};
use crate::bounds::neo4j::TURNS;
use crate::driver::crossing::{Crossed, STUB};
use crate::driver::{Applied, Error, Fence, SyncState, TxKind, Work};
use crate::run::{MappingName, Way, plural};
use crate::sql::cypher::quoted;

impl Neo4j {
    pub(super) async fn open_side(
        &self,
        (fence, work): (&Fence, &Work),
        crossed: &Crossed,
    ) -> Result<Applied, Error> {
        let (side, mapping) = (Side::of(crossed)?, &crossed.mapping);
        let step = work.step.as_str();
        if let Some(before) = self.done_before(fence, work).await? {
            return Ok(before);
        }
        let mut statements = Vec::new();
        let mut reader = self.connections.read().await?;
        for unique in side.unique() {
            if unique.constraint(&mut reader).await?.is_none() {
                statements.push(unique.constrain());
            }
        }
        reader.release();
        self.note(fence, mapping, &statements).await?;
        if !statements.is_empty() {
            let part = format!("{step}/part/constraints");
            Box::pin(script::change_schema(self, (fence, work), part, &statements)).await?;
        }
        versions::forget(&self.connections, (fence, TxKind::Install), Some(&mapping.name)).await?;
        let detail = match statements.len() {
            0 => None,
            some => Some(format!("made {}", plural(some as u64, "constraint"))),
        };
        let mut tx = self.connections.begin(fence, TxKind::Install).await?;
        begin(&mut tx, fence, &side).await?;
        ledger::forget(&mut tx, fence, (&format!("{step}/part/"), work.way)).await?;
        let applied = record(&mut tx, fence, (step, work), (0, detail)).await?;
        tx.commit().await?;
        Ok(applied)
    }

    /// Shuts a mapping, if it is open.
    pub(super) async fn shut_side(
        &self,
        fence: &Fence,
        mapping: &MappingName,
    ) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Remove).await?;
        turns::take_all(&mut tx, std::iter::once(mapping)).await?;
        let shut = query("MATCH (s:phasegate_syncs) WHERE s.mapping = $mapping SET s.shut = true")
            .param("mapping", mapping.as_str());
        tx.run(shut).await.map_err(failed("shut the mapping"))?;
        tx.commit().await
    }

    pub(super) async fn close_side(
        &self,
        (fence, work): (&Fence, &Work),
        crossed: &Crossed,
    ) -> Result<Applied, Error> {
        let (side, mapping) = (Side::of(crossed)?, &crossed.mapping);
        let step = work.step.as_str();
        if let Some(before) = self.done_before(fence, work).await? {
            return Ok(before);
        }
        self.shut_side(fence, &mapping.name).await?;
        versions::forget(&self.connections, (fence, TxKind::Remove), Some(&mapping.name)).await?;
        let mut reader = self.connections.read().await?;
        let begun = begun(&mut reader, fence, mapping).await?;
        reader.release();
        let mut rows = 0;
        let mut detail = None;
        if work.way == Way::Back
            && let Some(Begun { only_copies, made }) = begun
        {
            if only_copies {
                rows = Box::pin(self.empty(fence, work, &side.pattern)).await?;
                detail = Some(format!("removed {}", plural(rows, "row")));
            }
            if side.node().is_none() {
                self.sweep_stubs(fence, &side).await?;
            }
            self.take_back(fence, work, &made).await?;
        }
        let mut tx = self.connections.begin(fence, TxKind::Remove).await?;
        let mut texts = vec!["MATCH (t:phasegate_turns) WHERE t.mapping = $mapping DELETE t"];
        if work.way == Way::Back {
            texts.push("MATCH (s:phasegate_syncs) WHERE s.mapping = $mapping DELETE s");
        }
        for text in texts {
            let forget = query(text).param("mapping", mapping.name.as_str());
            tx.run(forget).await.map_err(failed("forget the mapping"))?;
        }
        ledger::forget(&mut tx, fence, (&format!("{step}/part/"), work.way)).await?;
        let applied = record(&mut tx, fence, (step, work), (rows, detail)).await?;
        tx.commit().await?;
        Ok(applied)
    }

    pub(super) async fn side_state(&self, side: &Side) -> Result<SyncState, Error> {
        let mut reader = self.connections.read().await?;
        for unique in side.unique() {
            if unique.constraint(&mut reader).await?.is_none() {
                reader.release();
                let key = unique.key.join(", ");
                return Ok(SyncState::Broken(format!(
                    "nothing makes {key} of {} unique any more",
                    unique.name
                )));
            }
        }
        let is_open = turns::standing(&mut reader, &side.mapping).await?.is_some();
        reader.release();
        Ok(if is_open {
            SyncState::Active
        } else {
            SyncState::Broken(format!("mapping {} takes no changes", side.mapping))
        })
    }
}

/// Opens a mapping, of which nothing is kept. Whether its new side was empty is what it was the first time.
async fn begin(tx: &mut Tx<'_>, fence: &Fence, side: &Side) -> Result<(), Error> {
    let mapping = side.mapping.as_str();
    let text = format!(
        "MATCH (s:phasegate_syncs {{run_id: $run, mapping: $mapping}}) \
         SET s.only_copies = coalesce(s.only_copies, NOT EXISTS {{ MATCH {}{} }}), \
         s.shut = false, s.floor = null, s.emptying = null, s.refused = null",
        side.pattern.text(),
        // What relationships have made of it already is nobody's.
        if side.node().is_some() {
            format!(" WHERE copy.{} IS NULL", quoted(STUB))
        } else {
            String::new()
        }
    );
    for text in [
        "MATCH (s:phasegate_syncs) WHERE s.mapping = $mapping AND s.run_id <> $run DELETE s",
        "MATCH (t:phasegate_turns) WHERE t.mapping = $mapping DELETE t",
        text.as_str(),
    ] {
        let open = query(text).param("run", fence.run().as_str()).param("mapping", mapping);
        tx.run(open).await.map_err(failed("open the mapping"))?;
    }
    let turns = query(
        "UNWIND range(0, $turns - 1) AS turn CREATE (:phasegate_turns {mapping: $mapping, turn: turn})",
    )
    .param("turns", i64::from(TURNS))
    .param("mapping", mapping);
    tx.run(turns).await.map(|_| ()).map_err(failed("open the mapping"))
}

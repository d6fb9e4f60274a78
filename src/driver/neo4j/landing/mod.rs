//! The new side of mappings out of other databases: [`ChangeSink`] for Neo4j.
//!
//! Rows come in pages of a copy, beside each other, and as changes that a relay carries, in any order and more than once. Why nothing
//! that is newer is lost, and nothing that is gone comes back:
//! - The version of each key that has changed is kept in a node of ours (`versions`), also of one that is gone. No row of the user's
//!   is a tombstone.
//! - A page passes over what has a version, and no change is applied while a page is under way (`turns`): a row that was read before
//!   is written before the change, or not at all.
//! - Where a whole table was emptied there is a floor (`emptied`) in place of versions: what is read before it is written no more.
//! - A relationship may come before its nodes. What stands for a node until it comes is marked (`stubs`), and whoever writes the node
//!   takes the mark away.
//!
//! Absent on purpose: who carries changes and when, and comparing.

use async_trait::async_trait;

use super::connection::Tx;
use super::{Neo4j, catalogue, chunks};
use crate::copy::chunk::{Chunk, Key, Planned};
use crate::copy::row::{Datum, Row};
use crate::driver::crossing::{Change, ChangeSink, Crossed, Held};
use crate::driver::ledger::Copy;
use crate::driver::{Applied, Copied, CopyState, Error, Fence, SyncState, Work};
use crate::run::{Failure, FailureClass, Mapping, MappingName, RunId, StepId};

mod changes;
#[cfg(all(test, feature = "failpoints"))]
mod death_tests;
mod edges;
mod emptied;
#[cfg(test)]
mod emptied_tests;
#[cfg(test)]
mod fixture;
mod held;
#[cfg(test)]
mod land_tests;
mod marks;
#[cfg(test)]
mod meanwhile_tests;
mod nodes;
#[cfg(test)]
mod open_tests;
mod opening;
mod page;
#[cfg(test)]
mod race_tests;
mod relay;
mod side;
mod stubs;
mod turns;
#[cfg(test)]
mod values_tests;
mod versions;
mod walk;
#[cfg(test)]
mod walk_tests;

pub(super) use relay::below;
use side::Side;
pub(super) use versions::forget as forget_versions;

#[async_trait]
impl ChangeSink for Neo4j {
    async fn open(&self, fence: &Fence, work: &Work, crossed: &Crossed) -> Result<Applied, Error> {
        Box::pin(self.open_side((fence, work), crossed)).await
    }

    async fn shut(&self, fence: &Fence, crossed: &Crossed) -> Result<(), Error> {
        self.shut_side(fence, &crossed.mapping.name).await
    }

    async fn close(&self, fence: &Fence, work: &Work, crossed: &Crossed) -> Result<Applied, Error> {
        Box::pin(self.close_side((fence, work), crossed)).await
    }

    async fn landing_state(&self, mapping: &Mapping) -> Result<SyncState, Error> {
        self.side_state(&Side::of_mapping(mapping)?).await
    }

    async fn landing_basis(&self, mapping: &Mapping) -> Result<String, Error> {
        let side = Side::of_mapping(mapping)?;
        let mut reader = self.connections.read().await?;
        let constraints = catalogue::constraints_on(&mut reader, side.labels()).await?;
        reader.release();
        Ok(constraints.join("\n"))
    }

    async fn copy_row(&self, run: &RunId, step: &StepId) -> Result<Option<Copy>, Error> {
        let mut reader = self.connections.read().await?;
        let copy = chunks::load(&mut reader, run, step).await?;
        reader.release();
        Ok(copy)
    }

    async fn enter_chunks(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        (before, copy, chunks): (Option<&Copy>, &Copy, &[Planned]),
    ) -> Result<CopyState, Error> {
        Box::pin(self.enter_planned((fence, work), mapping, (before, copy, chunks))).await
    }

    async fn land_page(
        &self,
        fence: &Fence,
        work: &Work,
        crossed: &Crossed,
        (chunk, rows): (&Planned, Vec<Row>),
    ) -> Result<Copied, Error> {
        Box::pin(self.write_page((fence, work), crossed, (chunk, rows))).await
    }

    async fn land(&self, fence: &Fence, of: &[Crossed], changes: &[Change]) -> Result<(), Error> {
        Box::pin(self.apply(fence, (of, changes))).await
    }

    fn is_about_rows(&self, failure: &Failure) -> bool {
        super::error::is_about_rows(failure)
    }

    async fn land_emptied(
        &self,
        fence: &Fence,
        crossed: &Crossed,
        version: u64,
    ) -> Result<bool, Error> {
        Box::pin(self.empty_up_to(fence, (crossed, version))).await
    }

    async fn held(
        &self,
        crossed: &Crossed,
        keys: &[Vec<Datum>],
        whole: bool,
    ) -> Result<Held, Error> {
        Box::pin(self.look_up(crossed, (keys, whole))).await
    }

    async fn held_bound(
        &self,
        crossed: &Crossed,
        after: Option<&Key>,
        rows: u32,
    ) -> Result<Option<Key>, Error> {
        self.bound(&Side::of(crossed)?, (after, rows)).await
    }

    async fn held_keys(&self, crossed: &Crossed, chunk: &Chunk) -> Result<Vec<Vec<Datum>>, Error> {
        let side = Side::of(crossed)?;
        let mut reader = self.connections.read().await?;
        let walked = walk::keys(&mut reader, &side, (chunk, None)).await?;
        reader.release();
        Ok(walked.keys)
    }

    async fn held_unkeyed(&self, crossed: &Crossed) -> Result<u64, Error> {
        self.unkeyed(&Side::of(crossed)?).await
    }

    async fn held_count(&self, crossed: &Crossed) -> Result<u64, Error> {
        self.count(&Side::of(crossed)?).await
    }

    async fn some_held(&self, crossed: &Crossed, wanted: u32) -> Result<Vec<Vec<Datum>>, Error> {
        self.sample(&Side::of(crossed)?, wanted).await
    }

    async fn sweep(&self, fence: &Fence, crossed: &Crossed) -> Result<u64, Error> {
        Box::pin(self.sweep_stubs(fence, &Side::of(crossed)?)).await
    }

    async fn stubs(&self, labels: &[String]) -> Result<u64, Error> {
        self.marked(labels).await
    }

    async fn unmark(&self, fence: &Fence, labels: &[String]) -> Result<(), Error> {
        Box::pin(self.take_marks(fence, labels)).await
    }

    async fn enter_relay(&self, relay: &RunId, token: u64) -> Result<Fence, Error> {
        Box::pin(self.take_slot(relay, token)).await
    }
}

/// What has to be unique for the rows of a mapping.
pub(super) fn unique(mapping: &Mapping) -> Result<Vec<catalogue::Unique>, Error> {
    Ok(Side::of_mapping(mapping)?.unique())
}

/// Rows of a copy whose mapping is not open.
fn not_open(mapping: &MappingName) -> Error {
    let message = format!("mapping {mapping} takes no rows: it isn't open");
    Error::failed(FailureClass::Stale, message)
}

/// Commits. That a node is removed which somebody comes to refer to meanwhile shows here, and is gone when it is tried again.
async fn commit(tx: Tx<'_>) -> Result<(), Error> {
    match tx.commit().await {
        Err(Error::Failed(mut failure)) if failure.message.contains(STILL_REFERRED_TO) => {
            failure.class = FailureClass::Contention;
            Err(Error::Failed(failure))
        }
        other => other,
    }
}

/// What the server says of it.
const STILL_REFERRED_TO: &str = "still has relationships";

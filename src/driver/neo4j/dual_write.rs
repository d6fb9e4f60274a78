//! Keeping both sides of a mapping in step: refused, though no plan that is valid asks for it, as long as nodes and relationships can't be mapped.

use async_trait::async_trait;

use super::{Neo4j, later};
use crate::driver::{Applied, DualWriter, Error, Fence, Gone, SyncState, Work};
use crate::run::{Direction, Mapping};

#[async_trait]
impl DualWriter for Neo4j {
    async fn install(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: Direction,
    ) -> Result<Applied, Error> {
        later()
    }
    async fn remove(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: Direction,
    ) -> Result<Applied, Error> {
        later()
    }
    async fn sync_state(&self, _: &Mapping, _: Direction) -> Result<SyncState, Error> {
        later()
    }
    async fn gone(&self, _: &Mapping) -> Result<Gone, Error> {
        later()
    }
    async fn settle(&self, _: &Fence, _: &Mapping) -> Result<u64, Error> {
        later()
    }
}

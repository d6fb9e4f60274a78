//! The reading side of a copy: refused, though no plan that is valid asks for it, as long as nodes and relationships can't be mapped.

use async_trait::async_trait;

use super::{Neo4j, later};
use crate::driver::{CopyState, Error, Fence, Source, Window, Work};
use crate::run::Mapping;

#[async_trait]
impl Source for Neo4j {
    async fn estimate(&self, _: &Mapping) -> Result<u64, Error> {
        later()
    }
    async fn plan_chunks(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: Window,
    ) -> Result<CopyState, Error> {
        later()
    }
}

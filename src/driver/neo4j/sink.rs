//! The writing side of a copy, and rows that can't be copied: refused, though no plan that is valid asks for it, as long as nodes and relationships can't be mapped.

use async_trait::async_trait;

use super::{Neo4j, later};
use crate::copy::chunk::Planned;
use crate::driver::{Applied, Copied, CopyState, Error, Fence, Parker, Sink, Work};
use crate::run::{Direction, Mapping, Parked, RunId, StepId};

#[async_trait]
impl Sink for Neo4j {
    async fn copy_state(&self, _: &RunId, _: &StepId) -> Result<CopyState, Error> {
        later()
    }
    async fn copy_chunk(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: Direction,
        _: &Planned,
    ) -> Result<Copied, Error> {
        later()
    }
    async fn finish_copy(&self, _: &Fence, _: &Work) -> Result<Applied, Error> {
        later()
    }
}

#[async_trait]
impl Parker for Neo4j {
    async fn copy_parking(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: Direction,
        _: (&Planned, u32),
    ) -> Result<Copied, Error> {
        later()
    }
    async fn retry_parked(&self, _: &Fence, _: &Mapping, _: Direction) -> Result<u64, Error> {
        later()
    }
    async fn parked(&self, _: &Mapping, _: Direction, _: u32) -> Result<Parked, Error> {
        later()
    }
}

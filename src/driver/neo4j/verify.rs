//! Comparing both sides of a mapping: refused, though no plan that is valid asks for it, as long as nodes and relationships can't be mapped.

use async_trait::async_trait;

use super::{Neo4j, later};
use crate::copy::chunk::{Chunk, Key};
use crate::copy::compare::Compared;
use crate::driver::{Basis, Error, Fence, Verifier};
use crate::run::{Direction, Mapping, Method, RunId, StepId};

#[async_trait]
impl Verifier for Neo4j {
    async fn verify_bound(
        &self,
        _: &Mapping,
        _: Option<&Key>,
        _: u32,
    ) -> Result<Option<Key>, Error> {
        later()
    }
    async fn compare_chunk(&self, _: &Mapping, _: Direction, _: &Chunk) -> Result<Compared, Error> {
        later()
    }
    async fn compare_partly(
        &self,
        _: &Mapping,
        _: Direction,
        _: Method,
    ) -> Result<Compared, Error> {
        later()
    }
    async fn basis(&self, _: &Mapping) -> Result<Basis, Error> {
        later()
    }
    async fn kept_pass(&self, _: &RunId, _: &StepId) -> Result<Option<String>, Error> {
        later()
    }
    async fn keep_pass(&self, _: &Fence, _: &StepId, _: Option<&str>) -> Result<(), Error> {
        later()
    }
    async fn repair_chunk(
        &self,
        _: &Fence,
        _: &Mapping,
        _: Direction,
        _: &Chunk,
    ) -> Result<u64, Error> {
        later()
    }
}

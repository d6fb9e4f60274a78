//! What is about mappings, which this driver doesn't know yet: refused, though no plan that is valid asks for it.

use async_trait::async_trait;

use super::Neo4j;
use crate::copy::chunk::{Chunk, Key, Planned};
use crate::copy::compare::Compared;
use crate::driver::{
    Applied, Basis, Copied, CopyState, DualWriter, Error, Fence, Gone, Losses, Parker, Retirer,
    Sink, Source, SyncState, Verifier, Window, Work,
};
use crate::run::{
    Direction, FailureClass, Mapping, Method, Parked, Permit, Retire, RetireShape, RunId, StepId,
};

fn later<T>() -> Result<T, Error> {
    Err(Error::failed(FailureClass::Refused, "nodes and relationships can't be mapped yet"))
}

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

#[async_trait]
impl Retirer for Neo4j {
    async fn retire(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: Direction,
        _: &Retire,
    ) -> Result<Applied, Error> {
        later()
    }
    async fn unretire(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: Direction,
        _: &RetireShape,
        _: Losses,
    ) -> Result<Applied, Error> {
        later()
    }
    async fn drop_retired(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: &RetireShape,
        _: Permit,
    ) -> Result<Applied, Error> {
        later()
    }
}

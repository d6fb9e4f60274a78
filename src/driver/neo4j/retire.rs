//! Putting the old shape aside, and removing it: refused, though no plan that is valid asks for it, as long as nodes and relationships can't be mapped.

use async_trait::async_trait;

use super::{Neo4j, later};
use crate::driver::{Applied, Error, Fence, Losses, Retirer, Work};
use crate::run::{Direction, Mapping, Permit, Retire, RetireShape};

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

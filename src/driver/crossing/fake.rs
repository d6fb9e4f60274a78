//! A new side that answers as a test says.
#![allow(clippy::unwrap_used, clippy::must_use_candidate, clippy::missing_panics_doc, missing_docs)]

use std::sync::Mutex;

use async_trait::async_trait;

use super::{Change, ChangeSink, Crossed, Held};
use crate::copy::chunk::{Chunk, Key, Planned};
use crate::copy::row::{Datum, Row};
use crate::driver::ledger::Copy;
use crate::driver::{Applied, Copied, CopyState, Error, Fence, SyncState, Work};
use crate::run::{Failure, FailureClass, Mapping, RunId, StepId};

/// A fence that nobody holds against anything.
pub fn fence() -> Fence {
    Fence::new(RunId::new("run/relay/app/graph"), 0, 1)
}

type Answer = Box<dyn Fn(&[u64]) -> Result<(), Error> + Send + Sync>;

/// Answers changes by their versions, and keeps which ones it was given.
pub struct FakeSink {
    answer: Answer,
    given: Mutex<Vec<Vec<u64>>>,
    is_mute: bool,
}

impl FakeSink {
    /// Answers like this what is to be landed.
    pub fn answering(answer: impl Fn(&[u64]) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        Self { answer: Box::new(answer), given: Mutex::default(), is_mute: false }
    }

    /// Never answers.
    pub fn mute() -> Self {
        Self { is_mute: true, ..Self::answering(|_| Ok(())) }
    }

    /// The versions of what was to be landed, each time.
    pub fn given(&self) -> Vec<Vec<u64>> {
        self.given.lock().unwrap().clone()
    }
}

impl std::fmt::Debug for FakeSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeSink").finish_non_exhaustive()
    }
}

#[async_trait]
impl ChangeSink for FakeSink {
    async fn land(&self, _: &Fence, _: &[Crossed], changes: &[Change]) -> Result<(), Error> {
        let versions: Vec<u64> = changes.iter().map(|change| change.version).collect();
        let answer = (self.answer)(&versions);
        self.given.lock().unwrap().push(versions);
        if self.is_mute {
            return std::future::pending().await;
        }
        answer
    }

    fn is_about_rows(&self, failure: &Failure) -> bool {
        failure.class == FailureClass::Refused && failure.code.is_none()
    }

    // Nobody asks for the rest.

    async fn open(&self, _: &Fence, _: &Work, _: &Crossed) -> Result<Applied, Error> {
        unreachable!()
    }

    async fn shut(&self, _: &Fence, _: &Crossed) -> Result<(), Error> {
        unreachable!()
    }

    async fn close(&self, _: &Fence, _: &Work, _: &Crossed) -> Result<Applied, Error> {
        unreachable!()
    }

    async fn landing_state(&self, _: &Mapping) -> Result<SyncState, Error> {
        unreachable!()
    }

    async fn landing_basis(&self, _: &Mapping) -> Result<String, Error> {
        unreachable!()
    }

    async fn copy_row(&self, _: &RunId, _: &StepId) -> Result<Option<Copy>, Error> {
        unreachable!()
    }

    async fn enter_chunks(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: (Option<&Copy>, &Copy, &[Planned]),
    ) -> Result<CopyState, Error> {
        unreachable!()
    }

    async fn land_page(
        &self,
        _: &Fence,
        _: &Work,
        _: &Crossed,
        _: (&Planned, Vec<Row>),
    ) -> Result<Copied, Error> {
        unreachable!()
    }

    async fn land_emptied(&self, _: &Fence, _: &Crossed, _: u64) -> Result<bool, Error> {
        unreachable!()
    }

    async fn held(&self, _: &Crossed, _: &[Vec<Datum>], _: bool) -> Result<Held, Error> {
        unreachable!()
    }

    async fn held_bound(&self, _: &Crossed, _: Option<&Key>, _: u32) -> Result<Option<Key>, Error> {
        unreachable!()
    }

    async fn held_keys(&self, _: &Crossed, _: &Chunk) -> Result<Vec<Vec<Datum>>, Error> {
        unreachable!()
    }

    async fn held_unkeyed(&self, _: &Crossed) -> Result<u64, Error> {
        unreachable!()
    }

    async fn held_count(&self, _: &Crossed) -> Result<u64, Error> {
        unreachable!()
    }

    async fn some_held(&self, _: &Crossed, _: u32) -> Result<Vec<Vec<Datum>>, Error> {
        unreachable!()
    }

    async fn sweep(&self, _: &Fence, _: &Crossed) -> Result<u64, Error> {
        unreachable!()
    }

    async fn stubs(&self, _: &[String]) -> Result<u64, Error> {
        unreachable!()
    }

    async fn unmark(&self, _: &Fence, _: &[String]) -> Result<(), Error> {
        unreachable!()
    }

    async fn enter_relay(&self, _: &RunId, _: u64) -> Result<Fence, Error> {
        unreachable!()
    }
}

//! A store that is waited for no longer than it is worth waiting: whatever keeps it from answering, its caller hears of it while it can
//! still end in order.
//!
//! Invariants:
//! - Every call ends: with the store's own answer, or with [`Error::Unreachable`] once its limit has passed.
//! - A call that was given up may have done what it was asked for, or may do it yet. Where it writes records, that is said.
//!
//! Absent on purpose: trying again. Who lost an answer reads the journal before it acts, and that is what a new start does.

use std::time::Duration;

use async_trait::async_trait;

use crate::bounds::store::{ANSWER_WITHIN, IMPORTED_WITHIN};
use crate::run::{Actor, Event, RunId, Timestamp, duration};

use super::{
    Arrival, Claimant, Entry, Error, Fit, Lease, RunHeader, SharedStore, StepProgress, Store,
};

/// A store with limits to its calls.
#[derive(Debug)]
pub(super) struct Limited {
    pub(super) inner: SharedStore,
}

impl Limited {
    async fn answered<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.within((ANSWER_WITHIN, ""), call).await
    }

    /// Of a call that writes records.
    async fn written<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.within((limit, ", and whether its records were kept is not known"), call).await
    }

    async fn within<T>(
        &self,
        (limit, so): (Duration, &str),
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answered = tokio::time::timeout(limit, call).await;
        answered.unwrap_or_else(|_| {
            let limit = duration(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
            Err(Error::Unreachable {
                message: format!(
                    "the state store {} can't be reached: it did not answer within {limit}{so}",
                    self.inner.location()
                ),
            })
        })
    }
}

#[async_trait]
impl Store for Limited {
    fn identity(&self) -> &str {
        self.inner.identity()
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        self.answered(self.inner.now()).await
    }

    async fn create(&self, header: &RunHeader, by: &Actor, started: Event) -> Result<Entry, Error> {
        self.written(ANSWER_WITHIN, self.inner.create(header, by, started)).await
    }

    async fn append(
        &self,
        run: &RunId,
        expected_version: u64,
        lease: Option<&Lease>,
        by: &Actor,
        events: Vec<Event>,
    ) -> Result<Vec<Entry>, Error> {
        let call = self.inner.append(run, expected_version, lease, by, events);
        self.written(ANSWER_WITHIN, call).await
    }

    async fn read(&self, run: &RunId, after_version: u64, limit: u32) -> Result<Vec<Entry>, Error> {
        self.answered(self.inner.read(run, after_version, limit)).await
    }

    async fn version(&self, run: &RunId) -> Result<u64, Error> {
        self.answered(self.inner.version(run)).await
    }

    async fn runs(&self) -> Result<Vec<RunHeader>, Error> {
        self.answered(self.inner.runs()).await
    }

    async fn acquire(
        &self,
        run: &RunId,
        claimant: &Claimant,
        ttl_ms: u64,
        is_dead: &(dyn for<'a> Fn(&'a Claimant) -> bool + Send + Sync),
    ) -> Result<Lease, Error> {
        self.answered(self.inner.acquire(run, claimant, ttl_ms, is_dead)).await
    }

    async fn renew(&self, lease: &Lease, ttl_ms: u64) -> Result<Lease, Error> {
        self.answered(self.inner.renew(lease, ttl_ms)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), Error> {
        self.answered(self.inner.release(lease)).await
    }

    async fn lease(&self, run: &RunId) -> Result<Option<Lease>, Error> {
        self.answered(self.inner.lease(run)).await
    }

    async fn put_progress(&self, run: &RunId, progress: &[StepProgress]) -> Result<(), Error> {
        self.answered(self.inner.put_progress(run, progress)).await
    }

    async fn progress(&self, run: &RunId) -> Result<Vec<StepProgress>, Error> {
        self.answered(self.inner.progress(run)).await
    }

    async fn import(
        &self,
        arrival: &Arrival,
        is_dead: &(dyn for<'a> Fn(&'a Claimant) -> bool + Send + Sync),
    ) -> Result<Fit, Error> {
        self.written(IMPORTED_WITHIN, self.inner.import(arrival, is_dead)).await
    }

    async fn taken_up_to(&self, run: &RunId) -> Result<Option<u64>, Error> {
        self.answered(self.inner.taken_up_to(run)).await
    }

    async fn close(&self) {
        let _ = tokio::time::timeout(ANSWER_WITHIN, self.inner.close()).await;
    }
}

//! A state store seen through `--redact`: the same store, whose records come without what is to be hidden.
//!
//! Everything that shows a run reads its records, so this is the one place where what was recorded is kept from being shown.
//! What is written goes through unchanged: what may not be recorded is the engine's to leave out. The chain of hashes is
//! the inner store's, over what is stored.

use async_trait::async_trait;

use crate::run::{Actor, Event, Redact, RunId, Timestamp};
use crate::store::{
    Arrival, Claimant, Entry, Error, Fit, Lease, RunHeader, SharedStore, StepProgress, Store,
};

/// A store whose records hide something.
#[derive(Debug)]
pub struct Redacted {
    /// The store.
    pub inner: SharedStore,
    /// What is hidden.
    pub redact: Redact,
}

impl Redacted {
    fn hide(&self, mut entry: Entry) -> Entry {
        entry.record.event.redact(self.redact);
        entry
    }
}

#[async_trait]
impl Store for Redacted {
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
        self.inner.now().await
    }

    async fn create(&self, header: &RunHeader, by: &Actor, started: Event) -> Result<Entry, Error> {
        self.inner.create(header, by, started).await.map(|entry| self.hide(entry))
    }

    async fn append(
        &self,
        run: &RunId,
        expected_version: u64,
        lease: Option<&Lease>,
        by: &Actor,
        events: Vec<Event>,
    ) -> Result<Vec<Entry>, Error> {
        let entries = self.inner.append(run, expected_version, lease, by, events).await?;
        Ok(entries.into_iter().map(|entry| self.hide(entry)).collect())
    }

    async fn read(&self, run: &RunId, after_version: u64, limit: u32) -> Result<Vec<Entry>, Error> {
        let entries = self.inner.read(run, after_version, limit).await?;
        Ok(entries.into_iter().map(|entry| self.hide(entry)).collect())
    }

    async fn version(&self, run: &RunId) -> Result<u64, Error> {
        self.inner.version(run).await
    }

    async fn runs(&self) -> Result<Vec<RunHeader>, Error> {
        self.inner.runs().await
    }

    async fn acquire(
        &self,
        run: &RunId,
        claimant: &Claimant,
        ttl_ms: u64,
        is_dead: &(dyn for<'a> Fn(&'a Claimant) -> bool + Send + Sync),
    ) -> Result<Lease, Error> {
        self.inner.acquire(run, claimant, ttl_ms, is_dead).await
    }

    async fn renew(&self, lease: &Lease, ttl_ms: u64) -> Result<Lease, Error> {
        self.inner.renew(lease, ttl_ms).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), Error> {
        self.inner.release(lease).await
    }

    async fn lease(&self, run: &RunId) -> Result<Option<Lease>, Error> {
        self.inner.lease(run).await
    }

    async fn put_progress(&self, run: &RunId, progress: &[StepProgress]) -> Result<(), Error> {
        self.inner.put_progress(run, progress).await
    }

    async fn progress(&self, run: &RunId) -> Result<Vec<StepProgress>, Error> {
        self.inner.progress(run).await
    }

    async fn import(
        &self,
        arrival: &Arrival,
        is_dead: &(dyn for<'a> Fn(&'a Claimant) -> bool + Send + Sync),
    ) -> Result<Fit, Error> {
        self.inner.import(arrival, is_dead).await
    }

    async fn taken_up_to(&self, run: &RunId) -> Result<Option<u64>, Error> {
        self.inner.taken_up_to(run).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

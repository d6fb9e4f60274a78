//! What appending to a journal is, whatever database keeps it: the order in which a transaction looks, decides and writes.

use async_trait::async_trait;

use crate::run::{Event, RunId, Timestamp};

use super::chain::{self, Append, Head, Sealed, Stamp};
use super::{Entry, Error, Lease, lease};

/// A transaction that keeps every other writer of the run out, from its first look at the run on.
#[async_trait]
pub(super) trait Writing: Send {
    /// The head of a run's journal, behind whoever writes there now; [`Error::NoRun`] without one.
    async fn head(&mut self, run: &RunId) -> Result<Head, Error>;

    /// The store's clock.
    async fn now(&mut self) -> Result<Timestamp, Error>;

    /// What is kept of a run's lease.
    async fn lease(&mut self, run: &RunId) -> Result<Option<lease::Row>, Error>;

    /// Enters records.
    async fn insert(&mut self, run: &RunId, sealed: Vec<Sealed>) -> Result<Vec<Entry>, Error>;

    /// Makes a record the last one of its run, which is over when that is what it says.
    async fn put_head(&mut self, run: &RunId, last: &Entry) -> Result<(), Error>;

    /// Appends events behind the version that they were decided on, under the lease if there is one.
    async fn append(
        &mut self,
        to: &Append<'_>,
        lease: Option<&Lease>,
        events: Vec<Event>,
    ) -> Result<Vec<Entry>, Error> {
        let head = self.head(to.run).await?;
        let at = self.now().await?;
        if let Some(lease) = lease {
            lease::check(self.lease(to.run).await?, to.run, lease, at)?;
        }
        if head.version != to.expected_version {
            return Err(Error::Conflict { expected: to.expected_version, found: head.version });
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let sealed = chain::seal(to.run, &head, &Stamp { by: to.by, at }, events)?;
        let entries = self.insert(to.run, sealed).await?;
        if let Some(last) = entries.last() {
            self.put_head(to.run, last).await?;
        }
        Ok(entries)
    }
}

/// Whether a run is over with this record.
pub(super) const fn is_end(entry: &Entry) -> bool {
    matches!(entry.record.event, Event::RunEnded { .. })
}

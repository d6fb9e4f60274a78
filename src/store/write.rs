//! What appending to a journal is, whatever database keeps it: the order in which a transaction looks, decides and writes.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::bounds::store::RELAYS_ABOVE;
use crate::run::{Event, RunId, Timestamp};

use super::chain::{self, Append, Head, Sealed, Stamp, Stored};
use super::{Arrival, Entry, Error, Fit, Lease, RunHeader, lease};

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

    /// Enters records as another store has them.
    async fn insert_stored(&mut self, run: &RunId, records: &[Stored]) -> Result<(), Error>;

    /// Enters a run's row with the end of its journal. [`Error::Conflict`] when somebody else has done so in this moment.
    async fn put_run(&mut self, header: &RunHeader, head: &Head) -> Result<(), Error>;

    /// Moves the end of a run's journal to where another store has it.
    async fn move_head(&mut self, header: &RunHeader, head: &Head) -> Result<(), Error>;

    /// Raises the token of a lease that nobody holds; it never falls.
    async fn raise_token(&mut self, of: &RunId, token: u64) -> Result<(), Error>;

    /// See [`super::Store::taken_up_to`].
    async fn taken_up_to(&mut self, run: &RunId) -> Result<Option<u64>, Error>;

    /// Writes that down.
    async fn put_taken_up_to(&mut self, run: &RunId, token: u64) -> Result<(), Error>;

    /// Whether whoever holds the lease of a run has left for sure, as far as the database itself can tell.
    async fn is_left_alone(&mut self, run: &RunId) -> Result<bool, Error> {
        let _ = run;
        Ok(false)
    }

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

    /// Writes what a store called `identity` lacks of an arrival.
    async fn import(
        &mut self,
        identity: &str,
        arrival: &Arrival,
        is_dead: lease::IsDead<'_>,
    ) -> Result<Fit, Error> {
        let (history, run) = (&arrival.history, arrival.history.run());
        let present = match self.head(run).await {
            Ok(head) => Some(head),
            Err(Error::NoRun(_)) => None,
            Err(error) => return Err(error),
        };
        let fit = history.fit(present.as_ref())?;
        let is_from_elsewhere = arrival.store != identity;
        let taken = match fit {
            Fit::New => None,
            Fit::Same | Fit::Extends(_) => self.taken_up_to(run).await?,
        };
        let is_known = !is_from_elsewhere || taken.is_some_and(|taken| taken >= arrival.token());
        if fit == Fit::Same && is_known {
            return Ok(fit);
        }
        self.refuse_held(run, is_dead).await?;
        match fit {
            Fit::New => {
                self.put_run(history.header(), history.head()).await?;
                self.insert_stored(run, history.records()).await?;
            }
            Fit::Extends(after) => {
                let behind = usize::try_from(after).unwrap_or(usize::MAX);
                let more = history.records().get(behind..).unwrap_or_default();
                self.insert_stored(run, more).await?;
                self.move_head(history.header(), history.head()).await?;
            }
            Fit::Same => {}
        }
        let mut tokens: BTreeMap<RunId, u64> = arrival.tokens.iter().cloned().collect();
        if is_from_elsewhere {
            // A relay that had no token yet when its run was exported may have begun since.
            for relay in history.state().relays() {
                tokens.entry(relay).or_insert(0);
            }
        }
        for (of, token) in tokens {
            let is_relays = is_from_elsewhere && of != *run;
            let least = if is_relays { token + RELAYS_ABOVE } else { token };
            if least > 0 {
                self.raise_token(&of, least).await?;
            }
        }
        if is_from_elsewhere {
            self.put_taken_up_to(run, taken.unwrap_or(0).max(arrival.token())).await?;
        }
        Ok(fit)
    }

    /// [`Error::Held`] while somebody drives a run.
    async fn refuse_held(&mut self, run: &RunId, is_dead: lease::IsDead<'_>) -> Result<(), Error> {
        let now = self.now().await?;
        let Some(held) = self.lease(run).await?.and_then(|row| row.into_lease(run)) else {
            return Ok(());
        };
        if held.expires_at <= now || is_dead(&held.holder) || self.is_left_alone(run).await? {
            return Ok(());
        }
        Err(Error::Held(Box::new(held)))
    }
}

/// Whether a run is over with this record.
pub(super) const fn is_end(entry: &Entry) -> bool {
    matches!(entry.record.event, Event::RunEnded { .. })
}

//! A run's journal as this process has it: the state of all records known, and the way to add to them.

use crate::bounds::store::PAGE_RECORDS;
use crate::driver::Head;
use crate::run::{Actor, Goal, Input, RunId, State, apply, begin, decide};
use crate::store::{self, Entry, Lease, SharedStore};

use super::{Error, Loaded};

pub(super) struct Journal {
    pub(super) store: SharedStore,
    pub(super) state: State,
    pub(super) head: Head,
    /// Set while this process drives the run: then every append is checked against it.
    pub(super) lease: Option<Lease>,
}

impl Journal {
    pub(super) async fn load(store: &SharedStore, run: &RunId) -> Result<Self, Error> {
        let mut page = store.read(run, 0, PAGE_RECORDS).await?;
        let first = page.first().ok_or_else(|| store::Error::NoRun(run.clone()))?;
        let state =
            begin(&first.record).map_err(|source| Error::Journal { run: run.clone(), source })?;
        let head = Head { version: 1, hash: first.hash.clone() };
        let mut journal = Self { store: store.clone(), state, head, lease: None };
        page.remove(0);
        // Page by page, so that the length of a journal costs no memory.
        while !page.is_empty() {
            journal.take(&page)?;
            page = store.read(run, journal.state.version(), PAGE_RECORDS).await?;
        }
        Ok(journal)
    }

    /// Applies what others appended meanwhile.
    pub(super) async fn catch_up(&mut self) -> Result<Vec<Entry>, Error> {
        let mut seen = Vec::new();
        loop {
            let page =
                self.store.read(self.state.run(), self.state.version(), PAGE_RECORDS).await?;
            let is_last = page.len() < PAGE_RECORDS as usize;
            self.take(&page)?;
            seen.extend(page);
            if is_last {
                return Ok(seen);
            }
        }
    }

    /// Decides on an input and appends what comes of it. When somebody else appended first, decides anew on what is then
    /// there. Returns all entries that became known, also those of others.
    pub(super) async fn feed(
        &mut self,
        input: &Input,
        goal: &Goal,
        by: &Actor,
    ) -> Result<Vec<Entry>, Error> {
        let mut seen = Vec::new();
        loop {
            let now = self.store.now().await?;
            let events = decide(&self.state, input, goal, by, now)?;
            if events.is_empty() {
                return Ok(seen);
            }
            let run = self.state.run().clone();
            let version = self.state.version();
            fail::fail_point!("journal::before-append", |_| std::process::abort());
            let appended = self.store.append(&run, version, self.lease.as_ref(), by, events).await;
            match appended {
                Ok(entries) => {
                    fail::fail_point!("journal::after-append", |_| std::process::abort());
                    self.take(&entries)?;
                    seen.extend(entries);
                    return Ok(seen);
                }
                Err(store::Error::Conflict { .. }) => seen.extend(self.catch_up().await?),
                Err(other) => return Err(other.into()),
            }
        }
    }

    pub(super) async fn loaded(self) -> Result<Loaded, Error> {
        let lease = self.store.lease(self.state.run()).await?;
        Ok(Loaded { state: self.state, head: self.head, lease })
    }

    fn take(&mut self, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries {
            apply(&mut self.state, &entry.record)
                .map_err(|source| Error::Journal { run: self.state.run().clone(), source })?;
            self.head = Head { version: entry.record.version, hash: entry.hash.clone() };
        }
        Ok(())
    }
}

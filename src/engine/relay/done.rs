//! How far relays have come, written down for people who look.

use std::collections::{BTreeMap, BTreeSet};

use super::Landed;
use crate::bounds::relay::TELL_EVERY_MS;
use crate::clock::Stopwatch;
use crate::run::{Mapping, RunId, StepId};
use crate::store::{self, SharedStore, StepProgress};

/// How many changes of each mapping were carried, for people who look.
pub(super) struct Done {
    rows: BTreeMap<StepId, u64>,
    /// The steps whose counts are to be written: those of others are theirs to write.
    changed: BTreeSet<StepId>,
    written: Stopwatch,
}

impl Done {
    /// As an earlier relay has left it.
    pub(super) async fn of(store: &SharedStore, run: &RunId) -> Result<Self, store::Error> {
        let known = store.progress(run).await?;
        let rows = known.into_iter().map(|one| (one.step, one.rows_done)).collect();
        Ok(Self { rows, changed: BTreeSet::new(), written: Stopwatch::start() })
    }

    /// These are taken from the outbox.
    pub(super) fn count(&mut self, all: &[(StepId, Mapping)], landed: &[Landed]) {
        for (step, mapping) in all {
            let rows = landed.iter().filter(|(_, name)| *name == mapping.name).count() as u64;
            if rows > 0 {
                *self.rows.entry(step.clone()).or_default() += rows;
                self.changed.insert(step.clone());
            }
        }
    }

    /// Writes it down, now and then.
    pub(super) async fn write(
        &mut self,
        store: &SharedStore,
        run: &RunId,
        is_empty: bool,
    ) -> Result<(), store::Error> {
        let is_due = is_empty || self.written.elapsed_ms() >= TELL_EVERY_MS;
        if self.changed.is_empty() || !is_due {
            return Ok(());
        }
        let at = store.now().await?;
        let changed = std::mem::take(&mut self.changed);
        let progress: Vec<StepProgress> = changed
            .into_iter()
            .map(|step| StepProgress {
                rows_done: self.rows.get(&step).copied().unwrap_or_default(),
                step,
                rows_total: None,
                at,
                throttled: Vec::new(),
            })
            .collect();
        store.put_progress(run, &progress).await?;
        self.written = Stopwatch::start();
        Ok(())
    }
}

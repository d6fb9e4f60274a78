//! What holds a copy back, as its loop sees it: asked before each chunk, and waited for where it holds.

use crate::engine::throttle::{Surroundings, Throttles, TooLong};
use crate::run::{Backfill, FailureClass};

use super::{Fault, Halt, Job};

/// The throttles of a copy.
pub(super) struct Brake {
    throttles: Throttles,
    too_long: Option<TooLong>,
}

impl Brake {
    /// Begins to look at what the plan names. Until each was seen to be well, it holds.
    pub(super) fn start(job: &Job, backfill: &Backfill) -> Result<Self, Fault> {
        let mapping = job.mapping()?;
        let mut tables = vec![mapping.from.table.clone(), mapping.into.table.clone()];
        tables.dedup();
        let (drivers, store) = (job.drivers.clone(), job.store.clone());
        let around = Surroundings { drivers, store, tables };
        let longest_ms = backfill.max_throttled_for_ms;
        let throttles = Throttles::start(&backfill.throttle, longest_ms, &around);
        Ok(Self { throttles, too_long: None })
    }

    /// Whether no chunk may begin now. Those who look are told why with the next progress.
    pub(super) fn holds(&mut self, job: &Job) -> bool {
        match self.throttles.look(&job.tuning.borrow()) {
            Ok(holding) => {
                self.too_long = None;
                let is_held = !holding.is_empty();
                job.throttled.send_replace(holding);
                is_held
            }
            Err(too_long) => {
                self.too_long = Some(too_long);
                true
            }
        }
    }

    /// Waits until it may be otherwise, but not longer than until the run is to halt. Fails when it has been so for longer
    /// than the plan allows; by then nothing is under way.
    pub(super) async fn wait(&mut self, job: &Job) -> Result<(), Fault> {
        if let Some(TooLong { message }) = self.too_long.take() {
            return Err(Fault::failed(FailureClass::TimedOut, message).with_help(
                "what is copied stays; `phasegate retry` goes on, and `phasegate tune --limit` moves a limit",
            ));
        }
        let (mut halt, mut tuning) = (job.halt.clone(), job.tuning.clone());
        // What was tuned before has been seen: only what comes now ends the wait.
        tuning.mark_unchanged();
        tokio::select! {
            () = self.throttles.wait() => {}
            Ok(()) = tuning.changed() => {}
            _ = halt.wait_for(|halt| *halt > Halt::No) => {}
        }
        Ok(())
    }
}

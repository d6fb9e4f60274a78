//! How a copy is to be done now: as the plan says, but where an operator has said otherwise meanwhile, and never beyond what
//! the target takes.

use crate::run::{Backfill, ChunkRows};

use super::Job;

/// The settings of a copy at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Chunks at once.
    pub(super) workers: usize,
    /// Rows of a chunk.
    pub(super) chunk_rows: ChunkRows,
    /// How long a chunk should take, in microseconds of database time.
    pub(super) chunk_time_us: u64,
    /// Rest between chunks, in milliseconds.
    pub(super) pause_between_ms: u64,
}

impl Settings {
    /// Those of now.
    pub(super) fn now(job: &Job, backfill: &Backfill) -> Self {
        let tuning = job.tuning.borrow();
        let capabilities = job.driver.capabilities();
        // The first fence is the step's own.
        let slots = job.fences.len().saturating_sub(1).max(1);
        let workers = tuning.workers.unwrap_or(backfill.workers).min(capabilities.copy_workers);
        let chunk_time_ms = tuning.chunk_time_ms.unwrap_or(backfill.chunk_time_ms);
        Self {
            workers: (workers as usize).clamp(1, slots),
            chunk_rows: tuning.chunk_rows.unwrap_or(backfill.chunk_rows),
            chunk_time_us: chunk_time_ms.min(capabilities.chunk_time_max_ms) * 1_000,
            pause_between_ms: tuning.pause_between_ms.unwrap_or(backfill.pause_between_ms),
        }
    }

    /// What says how large chunks are.
    pub(super) const fn size(&self) -> (ChunkRows, u64) {
        (self.chunk_rows, self.chunk_time_us)
    }
}

//! How far attempts have come: shown to those who watch, and written down for other terminals to look at.

use super::Drive;
use crate::bounds::engine::WRITE_PROGRESS_EVERY_MS;
use crate::clock::Stopwatch;
use crate::engine::Error;
use crate::engine::event::{Event, Progress};
use crate::store::{Lease, StepProgress};

impl Drive<'_> {
    pub(super) async fn drain_progress(&mut self) -> Result<(), Error> {
        while let Ok(progress) = self.told.try_recv() {
            self.progressed(progress).await?;
        }
        Ok(())
    }

    pub(super) async fn progressed(&mut self, progress: Progress) -> Result<(), Error> {
        self.ctx.observer.observe(&Event::Progress(progress.clone()), self.state());
        if let Some(text) = self.throttles.news(&progress) {
            let note = Event::Note { step: Some(progress.step.clone()), target: None, text };
            self.ctx.observer.observe(&note, self.state());
        }
        self.known_progress.insert(progress.step.clone(), progress);
        if self.progress_written.elapsed_ms() >= WRITE_PROGRESS_EVERY_MS {
            self.write_progress().await?;
        }
        Ok(())
    }

    pub(super) async fn write_progress(&mut self) -> Result<(), Error> {
        self.progress_written = Stopwatch::start();
        if self.known_progress.is_empty() {
            return Ok(());
        }
        let at = self.ctx.store.now().await?;
        let rows: Vec<StepProgress> = std::mem::take(&mut self.known_progress)
            .into_values()
            .map(|progress| StepProgress {
                step: progress.step,
                rows_done: progress.rows_done,
                rows_total: progress.rows_total,
                at,
                throttled: progress.throttled,
            })
            .collect();
        Ok(self.ctx.store.put_progress(self.state().run(), &rows).await?)
    }

    /// From whom the run was taken over.
    pub(super) fn note_takeover(&self, before: &Lease) {
        let from =
            format!("{} (pid {} on {})", before.holder.name, before.holder.pid, before.holder.host);
        self.ctx.observer.observe(&Event::TookOver { from }, self.state());
    }
}

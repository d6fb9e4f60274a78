//! Progress as plain lines, where nobody watches a terminal: one when something happens, and one every few seconds for each
//! step under way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use crate::bounds::message::BETWEEN_LINES_US;
use crate::clock::Stopwatch;
use crate::engine::event::{Event as Seen, Observer, Progress};
use crate::run::{Event, State, StepId, Way};

use super::events;
use super::printer::Printer;
use super::words;

/// Writes lines to stderr.
#[derive(Debug)]
pub struct Plain {
    printer: Printer,
    steps: Mutex<BTreeMap<StepId, Shown>>,
}

#[derive(Debug)]
struct Shown {
    since: Stopwatch,
    rows: u64,
}

impl Plain {
    /// Lines through this printer.
    #[must_use]
    pub fn new(printer: Printer) -> Self {
        Self { printer, steps: Mutex::default() }
    }

    fn progress(&self, progress: &Progress) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = steps
            .entry(progress.step.clone())
            .or_insert_with(|| Shown { since: Stopwatch::start(), rows: progress.rows_done });
        let elapsed_us = shown.since.elapsed_us();
        if elapsed_us < BETWEEN_LINES_US {
            return;
        }
        let done_now = progress.rows_done.saturating_sub(shown.rows);
        let line = describe(progress, done_now, elapsed_us / 1_000);
        *shown = Shown { since: Stopwatch::start(), rows: progress.rows_done };
        drop(steps);
        self.printer.message(&line);
    }
}

/// How far a step is, how fast, and how long it will take at that rate.
fn describe(progress: &Progress, done_now: u64, elapsed_ms: u64) -> String {
    let mut text =
        format!("{:>9} {}: {}", "running", progress.step, words::count(progress.rows_done));
    if let Some(total) = progress.rows_total.filter(|total| *total > 0) {
        let percent = (progress.rows_done.min(total) * 100).checked_div(total).unwrap_or(0);
        let _ = write!(text, " of about {} rows ({percent} %)", words::count(total));
        let left = total.saturating_sub(progress.rows_done);
        if let Some(rate) = words::rate(done_now, elapsed_ms) {
            let _ = write!(text, ", {rate}");
        }
        let left_ms = left.checked_mul(elapsed_ms).and_then(|work| work.checked_div(done_now));
        if let Some(left_ms) = left_ms {
            let _ = write!(text, ", about {} left", words::duration(left_ms));
        }
    } else {
        text.push_str(" rows");
    }
    text
}

impl Observer for Plain {
    fn observe(&self, event: &Seen, state: &State) {
        if let Seen::Progress(progress) = event {
            self.progress(progress);
            return;
        }
        if let Seen::Recorded(entry) = event
            && let Event::StepStarted { step, way, attempt, .. } = &entry.record.event
        {
            let action = state.program().step(step).map_or("", |step| step.action.name());
            let (label, is_again) = match way {
                Way::Forward => ("begun", *attempt > 1),
                // Those there are counted, too.
                Way::Back => ("undoing", state.step(step).tried > 1),
            };
            let again = if is_again { format!(" (attempt {attempt})") } else { String::new() };
            self.printer.message(&format!("{label:>9} {:<24} {action}{again}", step.as_str()));
            return;
        }
        if let Some(line) = events::line(event, state) {
            self.printer.message(&line.render(self.printer.message_colour()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_share_rate_and_time_left() {
        let progress = Progress {
            step: "copy".into(),
            rows_done: 50_000,
            rows_total: Some(200_000),
            chunk_rows: 4_000,
            throttled: Vec::new(),
        };
        assert_eq!(
            describe(&progress, 25_000, 5_000),
            "  running copy: 50,000 of about 200,000 rows (25 %), 5,000 rows/s, about 30.0s left"
        );
        assert_eq!(
            describe(&progress, 0, 5_000),
            "  running copy: 50,000 of about 200,000 rows (25 %), 0 rows/s"
        );
        let unknown = Progress { rows_total: None, ..progress };
        assert_eq!(describe(&unknown, 5, 5_000), "  running copy: 50,000 rows");
    }
}

//! Progress as bars, one for every running step, on a terminal.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::engine::event::{Event as Seen, Observer, Progress};
use crate::run::{Event, State, StepId, Way};

use super::events;
use super::paint::Colour;
use super::printer::Printer;
use super::words;

/// How often a bar moves by itself, so that a long statement is seen to be alive.
const TICK: Duration = Duration::from_millis(120);

/// Shows bars on stderr, and lines above them for what is done.
#[derive(Debug)]
pub struct Bars {
    printer: Printer,
    steps: Mutex<BTreeMap<StepId, Shown>>,
}

#[derive(Debug)]
struct Shown {
    bar: ProgressBar,
    /// Whether rows have been seen, so that the bar has a length.
    measured: bool,
}

impl Bars {
    /// Bars through this printer.
    #[must_use]
    pub fn new(printer: Printer) -> Self {
        Self { printer, steps: Mutex::default() }
    }

    fn begin(&self, step: &StepId, action: &str, way: Way) {
        let bar = self.printer.bars().add(ProgressBar::new_spinner());
        bar.set_style(spinner());
        let label = match way {
            Way::Forward => "running",
            Way::Back => "undoing",
        };
        bar.set_prefix(format!("{label:>9} {:<24} {action:<10}", step.as_str()));
        bar.enable_steady_tick(TICK);
        let earlier = self.lock().insert(step.clone(), Shown { bar, measured: false });
        if let Some(earlier) = earlier {
            earlier.bar.finish_and_clear();
        }
    }

    fn progress(&self, progress: &Progress) {
        let mut steps = self.lock();
        let Some(shown) = steps.get_mut(&progress.step) else { return };
        let bar = &shown.bar;
        // The total is an estimate; a bar past its end would show nonsense.
        let total = progress.rows_total.map(|total| total.max(progress.rows_done));
        if let Some(total) = total {
            bar.set_length(total);
        }
        if !shown.measured {
            bar.set_style(if total.is_some() {
                measured(self.printer.message_colour())
            } else {
                counted()
            });
            // What was done before this process began must not count as fast work.
            bar.set_position(progress.rows_done);
            bar.reset_eta();
            shown.measured = true;
        }
        bar.set_position(progress.rows_done);
        if progress.chunk_rows > 0 {
            let rows = words::count(u64::from(progress.chunk_rows));
            bar.set_message(format!(", chunks of {rows}"));
        }
    }

    fn end(&self, step: &StepId) {
        if let Some(shown) = self.lock().remove(step) {
            shown.bar.finish_and_clear();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<StepId, Shown>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes every bar away, when driving has ended.
    pub fn clear(&self) {
        for (_, shown) in std::mem::take(&mut *self.lock()) {
            shown.bar.finish_and_clear();
        }
    }
}

/// A template that doesn't parse would show as the default bar, which is ugly and harmless; a test keeps them parsing.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
        .with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
            // A fraction of a row is nothing that anybody looks for.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let per_second = state.per_sec().max(0.0) as u64;
            let _ = write!(text, "{} rows/s", words::count(per_second));
        })
}

const SPINNER: &str = "{prefix} {spinner} {elapsed}";
const MEASURED: &str =
    "{prefix} {bar:24} {percent:>3} % {human_pos}/{human_len} rows, {rate}, {eta} left{msg}";
const MEASURED_COLOUR: &str = "{prefix} {bar:24.green/dim} {percent:>3} % {human_pos}/{human_len} rows, {rate}, {eta} left{msg}";
const COUNTED: &str = "{prefix} {spinner} {human_pos} rows, {rate}, {elapsed}{msg}";

fn spinner() -> ProgressStyle {
    style(SPINNER)
}

fn measured(colour: Colour) -> ProgressStyle {
    match colour {
        Colour::On => style(MEASURED_COLOUR),
        Colour::Off => style(MEASURED),
    }
}

fn counted() -> ProgressStyle {
    style(COUNTED)
}

impl Observer for Bars {
    fn observe(&self, event: &Seen, state: &State) {
        match event {
            Seen::Progress(progress) => return self.progress(progress),
            Seen::Recorded(entry) => match &entry.record.event {
                Event::StepStarted { step, way, .. } => {
                    let action = state.program().step(step).map_or("", |step| step.action.name());
                    self.begin(step, action, *way);
                }
                Event::StepSucceeded { step, .. }
                | Event::StepFailed { step, .. }
                | Event::StepDiffers { step, .. }
                | Event::StepAmbiguous { step, .. } => self.end(step),
                Event::Paused { .. } | Event::RunEnded { .. } => self.clear(),
                _ => {}
            },
            Seen::Waiting(_) | Seen::TookOver { .. } | Seen::Note { .. } => {}
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
    fn every_template_parses() {
        for template in [SPINNER, MEASURED, MEASURED_COLOUR, COUNTED] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}

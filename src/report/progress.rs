//! Progress as bars, one for every running step, on a terminal.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::bounds::message::BAR_TICK;
use crate::engine::event::{Event as Seen, Observer, Progress};
use crate::run::{Event, State, StepId, Way};

use super::events;
use super::paint::Colour;
use super::printer::Printer;
use super::words;

/// Shows bars on stderr, and lines above them for what is done.
#[derive(Debug)]
pub struct Bars {
    printer: Printer,
    steps: Mutex<BTreeMap<StepId, Shown>>,
}

#[derive(Debug)]
struct Shown {
    bar: ProgressBar,
    label: &'static str,
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
        bar.enable_steady_tick(BAR_TICK);
        let earlier = self.lock().insert(step.clone(), Shown { bar, label, measured: false });
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
            // What is being counted says enough of the action, and the line is short on a small terminal.
            bar.set_prefix(format!("{:>9} {:<20}", shown.label, progress.step.as_str()));
            // What was done before this process began must not count as fast work.
            bar.set_position(progress.rows_done);
            bar.reset_eta();
            shown.measured = true;
        }
        bar.set_position(progress.rows_done);
        bar.set_message(facts(bar, progress, total));
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

/// What is said beside a bar, the most wanted first: a terminal that is too small cuts the end off.
fn facts(bar: &ProgressBar, progress: &Progress, total: Option<u64>) -> String {
    // A fraction of a row is nothing that anybody looks for.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rate = words::count(bar.per_sec().max(0.0) as u64);
    let done = words::count(progress.rows_done);
    let mut text = match total {
        Some(total) => {
            let left = HumanDuration(bar.eta());
            format!("{done}/{} rows, {left:#} left, {rate} rows/s", words::count(total))
        }
        None => format!("{done} rows, {rate} rows/s"),
    };
    if progress.chunk_rows > 0 {
        text.push_str(", chunks of ");
        text.push_str(&words::count(u64::from(progress.chunk_rows)));
    }
    text
}

/// A template that doesn't parse would show as the default bar, which is ugly and harmless; a test keeps them parsing.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

const SPINNER: &str = "{prefix} {spinner} {elapsed}";
const MEASURED: &str = "{prefix} {bar:12} {percent:>3} % {wide_msg}";
const MEASURED_COLOUR: &str = "{prefix} {bar:12.green/dim} {percent:>3} % {wide_msg}";
const COUNTED: &str = "{prefix} {spinner} {elapsed} {wide_msg}";

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

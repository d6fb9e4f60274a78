//! What happens while a run is driven, as lines: shared by bars and plain output, so that both say the same.

use std::fmt::Write as _;

use crate::engine::event::Event as Seen;
use crate::run::{Action, Event, Outcome, State, StepId, Way};

use super::history::sentence;
use super::paint::{Colour, Tone};
use super::steps::{self, failure_story};
use super::words;

/// One line about something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The word at its beginning.
    pub label: &'static str,
    /// The tone of that word.
    pub tone: Tone,
    /// The rest.
    pub text: String,
}

impl Line {
    fn new(label: &'static str, tone: Tone, text: impl Into<String>) -> Self {
        Self { label, tone, text: words::visible(&text.into()) }
    }

    /// The line as it is written: the word padded, so that texts stand below each other.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        let padded = format!("{:>9}", self.label);
        format!("{} {}", colour.paint(self.tone, &padded), self.text.trim_end())
    }
}

/// What there is to say about an event; nothing for most progress.
#[must_use]
pub fn line(seen: &Seen, state: &State) -> Option<Line> {
    match seen {
        Seen::Recorded(entry) => recorded(&entry.record.event, state),
        Seen::Waiting(report) => {
            let missing: Vec<String> = super::gates::missing(report);
            let text = format!("{}: {}", report.gate, missing.join("; "));
            Some(Line::new("waiting", Tone::Warn, text))
        }
        Seen::TookOver { from } => {
            Some(Line::new("takeover", Tone::Warn, format!("the lease was taken over from {from}")))
        }
        Seen::Note { step, target, text } => {
            let place = match (step, target) {
                (Some(step), _) => format!("{step}: "),
                (None, Some(target)) => format!("target {target}: "),
                (None, None) => String::new(),
            };
            Some(Line::new("note", Tone::Dim, format!("{place}{text}")))
        }
        Seen::Progress(_) => None,
    }
}

fn recorded(event: &Event, state: &State) -> Option<Line> {
    match event {
        Event::RunStarted { run, pin } => {
            let program = &pin.program;
            let text = format!(
                "run {run} of plan {} ({}) in {}",
                program.plan(),
                words::plural(program.steps().len() as u64, "step"),
                program.environment(),
            );
            Some(Line::new("started", Tone::Strong, text))
        }
        Event::StepSucceeded { step, way, outcome, .. } => {
            Some(succeeded(step, *way, outcome, state))
        }
        Event::StepFailed { step, failure, retry_at, attempt, .. } => {
            let what = format!("{step}: {}", failure_story(failure));
            Some(match retry_at {
                Some(_) => Line::new("retrying", Tone::Warn, format!("{what} (attempt {attempt})")),
                None => Line::new("failed", Tone::Bad, what),
            })
        }
        Event::StepDiffers { step, evidence, .. } => {
            let text = format!(
                "{step}: {} missing, {} extra, {} different of {}",
                words::count(evidence.missing),
                words::count(evidence.extra),
                words::count(evidence.different),
                words::plural(evidence.rows, "row"),
            );
            Some(Line::new("differs", Tone::Bad, text))
        }
        Event::StepAmbiguous { step, detail, .. } => {
            Some(Line::new("ambiguous", Tone::Bad, format!("{step}: {detail}")))
        }
        Event::StepResolved { step, outcome, reason, .. } => {
            let text = format!("{step}: {}: {reason}", outcome.as_str());
            Some(Line::new("resolved", Tone::Strong, text))
        }
        Event::GateOpened { gate, .. } => {
            Some(Line::new("open", Tone::Good, gate_text(gate, state)))
        }
        Event::GateShut { gate, reasons } => {
            Some(Line::new("shut", Tone::Warn, format!("{gate}: {}", reasons.join("; "))))
        }
        // The first look is nothing to tell.
        Event::LineageSeen { before, void, lost, .. }
            if before.is_some() || !(void.is_empty() && lost.is_empty()) =>
        {
            Some(Line::new("changed", Tone::Warn, sentence(event)))
        }
        Event::Paused { reason } => {
            let reason = reason.as_deref().unwrap_or("no reason given");
            Some(Line::new("paused", Tone::Warn, reason))
        }
        Event::Resumed => Some(Line::new("resumed", Tone::Strong, "the run goes on")),
        Event::Tuned { step, tuning } => {
            Some(Line::new("tuned", Tone::Strong, format!("{step}: {}", steps::tuned(tuning))))
        }
        Event::RollbackBegun { .. } => {
            Some(Line::new("rollback", Tone::Warn, "the run goes back from here"))
        }
        Event::AbortBegun { .. } => Some(Line::new("abort", Tone::Warn, "the run is given up")),
        Event::RunEnded { ending } => {
            Some(Line::new("ended", Tone::Strong, format!("the run is over: {}", ending.as_str())))
        }
        // Beginnings are shown by bars, or not at all; decisions of people were made by whoever reads this, or stand in
        // the history.
        Event::StepStarted { .. }
        | Event::AdoptionBegun { .. }
        | Event::RunAdopted { .. }
        | Event::PlanAmended { .. }
        | Event::RetryAsked { .. }
        | Event::GateReached { .. }
        | Event::LineageSeen { .. }
        | Event::UsageSeen { .. }
        | Event::Approved { .. }
        | Event::Rejected { .. }
        | Event::Revoked { .. }
        | Event::LockReleased { .. } => None,
    }
}

fn gate_text(gate: &StepId, state: &State) -> String {
    let released: Vec<&str> =
        state.program().released_by(gate).map(|step| step.id.as_str()).collect();
    if released.is_empty() {
        return gate.to_string();
    }
    format!("{gate} lets {} go", released.join(", "))
}

fn succeeded(step: &StepId, way: Way, outcome: &Outcome, state: &State) -> Line {
    let known = state.step(step);
    let action = state.program().step(step).map_or("", |step| step.action.name());
    let mut text = format!("{:<24} {action:<10}", step.as_str());
    let took = known.ended_at.and_then(|ended| known.took_ms(ended));
    // The way back begins where the way forward did: the span between is no time that anything took.
    let took = took.filter(|_| way == Way::Forward);
    let rows = outcome.rows.or_else(|| outcome.evidence.as_ref().map(|evidence| evidence.rows));
    // A question that was answered has no rows.
    let rows = rows.filter(|rows| *rows > 0 && outcome.value.is_none());
    if let Some(rows) = rows {
        let _ = write!(text, " {:>16}", words::plural(rows, "row"));
    }
    if let Some(took) = took {
        let _ = write!(text, " in {}", words::duration(took));
        let is_copy = matches!(
            state.program().step(step).map(|step| &step.action),
            Some(Action::Backfill(_) | Action::Verify(_))
        );
        let rate = rows.filter(|_| is_copy);
        if let Some(rate) = rate.and_then(|rows| words::rate(rows, took)) {
            let _ = write!(text, ", {rate}");
        }
    }
    match way {
        Way::Forward => Line::new("done", Tone::Good, text),
        Way::Back => Line::new("undone", Tone::Good, text),
    }
}

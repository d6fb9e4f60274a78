//! The status of a run: a sentence, a table of its steps, and the same as a document.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::bounds::message::{SAMPLES_SHOWN, STATUS_DETAIL_CHARS_MAX};
use crate::run::{Phase, Standing, State, StepId, Timestamp};
use crate::store::{Lease, StepProgress};

use super::advice::{self, Advice, CommandLine};
use super::difference;
use super::paint::{Colour, Tone};
use super::steps::{self, StepRow};
use super::table::{Alignment, Table};
use super::words;

/// Everything that is known of a run.
#[derive(Debug)]
pub struct StatusView<'a> {
    /// The run.
    pub state: &'a State,
    /// The lease, if somebody drives the run now.
    pub driver: Option<&'a Lease>,
    /// Rows of steps under way.
    pub live: &'a [StepProgress],
    /// How its reader calls this program.
    pub line: &'a CommandLine,
    /// The store's clock.
    pub now: Timestamp,
}

impl StatusView<'_> {
    fn rows(&self) -> Vec<StepRow> {
        if self.driver.is_some() {
            return steps::rows(self.state, self.live, self.now);
        }
        // What held a process that is gone says nothing of now.
        let free = |one: &StepProgress| StepProgress { throttled: Vec::new(), ..one.clone() };
        let live: Vec<StepProgress> = self.live.iter().map(free).collect();
        steps::rows(self.state, &live, self.now)
    }

    /// The sentence and the commands.
    #[must_use]
    pub fn advice(&self) -> Advice {
        advice::advise(self.state, self.driver, self.line, self.now)
    }

    /// What the run waits for: gates by id, throttles by name, or the reason of a pause.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        if let Some(pause) = self.state.paused() {
            let reason =
                pause.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            return vec![format!("resume{reason}")];
        }
        let gates = advice::shut_gates(self.state).map(|gate| format!("gate {}", gate.id));
        let rows = self.rows();
        let held = rows.iter().flat_map(|row| &row.throttled);
        gates.chain(held.map(|(held, _)| format!("throttle {}", held.name))).collect()
    }

    /// The status as documents have it.
    #[must_use]
    pub fn document(&self) -> Map<String, Value> {
        let advice = self.advice();
        let program = self.state.program();
        let ended_at = match self.state.standing() {
            Standing::Ended { at, .. } => words::rfc3339(*at),
            _ => None,
        };
        let steps: Vec<Value> = self.rows().iter().map(StepRow::document).collect();
        let suggestions: Vec<Value> = advice
            .suggestions
            .iter()
            .map(|one| json!({ "command": one.command, "purpose": one.purpose }))
            .collect();
        let document = json!({
            "run": self.state.run(),
            "plan": program.plan(),
            "digest": program.digest().as_str(),
            "environment": program.environment(),
            "state": advice::standing(self.state, self.driver),
            "phase": current_phase(self.state).map(Phase::as_str),
            "waiting_for": self.waiting_for(),
            "driven_by": self.driver.map(driver_document),
            "author": self.state.author().name,
            "started_at": words::rfc3339(self.state.started_at()),
            "ended_at": ended_at,
            "version": self.state.version(),
            "headline": advice.sentence,
            "next": suggestions,
            "steps": steps,
            "differences": self.differences_document(),
        });
        match document {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn differences_document(&self) -> Value {
        let all = differing(self.state).map(|(id, _)| {
            let evidence = self.state.step(id).evidence.as_ref();
            (id.to_string(), serde_json::to_value(evidence).unwrap_or(Value::Null))
        });
        Value::Object(all.collect())
    }

    /// The status for people.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        let advice = self.advice();
        let program = self.state.program();
        let mut text = colour.paint(advice.tone, &words::visible(&advice.sentence));
        text.push_str("\n\n");
        let facts = format!(
            "run {}  plan {} ({})  environment {}  by {}\n\n",
            self.state.run(),
            program.plan(),
            program.digest(),
            program.environment(),
            words::actor(self.state.author()),
        );
        text.push_str(&colour.paint(Tone::Dim, &facts));
        text.push_str(&table(&self.rows(), colour, self.now));
        text.push_str(&differences(self.state));
        let lines = advice.lines(colour);
        if !lines.is_empty() {
            text.push('\n');
            text.push_str(&lines);
        }
        text
    }
}

/// The first phase that has an unfinished step; none when all are done.
#[must_use]
pub fn current_phase(state: &State) -> Option<Phase> {
    let unfinished = state.program().steps().iter().filter(|step| !state.is_applied(&step.id));
    unfinished.map(|step| step.phase).min()
}

/// A lease as documents have it.
#[must_use]
pub fn driver_document(lease: &Lease) -> Value {
    json!({
        "name": lease.holder.name,
        "host": lease.holder.host,
        "pid": lease.holder.pid,
        "since": words::rfc3339(lease.since),
        "expires_at": words::rfc3339(lease.expires_at),
    })
}

/// The rows that verifies found to differ, for people; empty when none did.
#[must_use]
pub fn differences(state: &State) -> String {
    let mut text = String::new();
    for (id, lines) in differing(state) {
        let _ = writeln!(text, "\ndifferences found by {id}:");
        text.push_str(&lines);
    }
    text
}

fn differing(state: &State) -> impl Iterator<Item = (&StepId, String)> {
    state.program().steps().iter().filter_map(|step| {
        let known = state.step(&step.id);
        let evidence = known.evidence.as_ref().filter(|evidence| !evidence.samples.is_empty())?;
        let mut lines = String::new();
        for one in evidence.samples.iter().take(SAMPLES_SHOWN) {
            lines += &difference::lines(one);
        }
        let all = evidence.missing + evidence.extra + evidence.different;
        let shown = evidence.samples.len().min(SAMPLES_SHOWN) as u64;
        if all > shown {
            let _ = writeln!(lines, "  and {} more", words::count(all - shown));
        }
        Some((&step.id, lines))
    })
}

fn table(rows: &[StepRow], colour: Colour, now: Timestamp) -> String {
    let (left, right) = (Alignment::Left, Alignment::Right);
    let columns = [
        ("phase", left),
        ("step", left),
        ("action", left),
        ("state", left),
        ("tries", right),
        ("rows", right),
        ("started", left),
        ("took", right),
        ("detail", left),
    ];
    let mut table = Table::new(colour, &columns);
    let mut last = None;
    for row in rows {
        let phase = if last == Some(row.phase) { "" } else { row.phase.as_str() };
        last = Some(row.phase);
        let dash = || "-".to_owned();
        let started = row
            .started_at
            .map_or_else(dash, |at| format!("{} ago", words::duration(now.since_ms(at))));
        let detail = row
            .detail
            .as_deref()
            .map_or_else(String::new, |text| words::clipped(text, STATUS_DETAIL_CHARS_MAX));
        table.row(&[
            (phase.to_owned(), Tone::Plain),
            (row.id.to_string(), Tone::Strong),
            (row.action.to_owned(), Tone::Plain),
            (row.standing.as_str().to_owned(), row.standing.tone()),
            (row.attempts.to_string(), Tone::Dim),
            (row.rows_text(), Tone::Plain),
            (started, Tone::Dim),
            (row.took_ms.map_or_else(dash, words::duration), Tone::Plain),
            (detail, Tone::Plain),
        ]);
    }
    table.render()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::report::fixture::{at, begun, done, line, started, state, up_to_gate};
    use crate::run::{Throttled, Unit};
    use crate::store::{Claimant, StepProgress};

    fn live(rows_done: u64) -> StepProgress {
        let throttled = Vec::new();
        StepProgress {
            step: "copy".into(),
            rows_done,
            rows_total: Some(1_000),
            at: at(20),
            throttled,
        }
    }

    #[test]
    fn the_document_has_what_was_promised() {
        let state = state(up_to_gate());
        let line = line();
        let view = StatusView { state: &state, driver: None, live: &[], line: &line, now: at(60) };
        let document = Value::Object(view.document());
        let keys =
            ["run", "plan", "digest", "environment", "state", "phase", "waiting_for", "steps"];
        for key in keys {
            assert!(!document[key].is_null(), "{key} in {document:#}");
        }
        assert_eq!(document["state"], "waiting");
        assert_eq!(document["phase"], "contract");
        assert_eq!(document["waiting_for"][0], "gate ready");
        let keys = [
            "id",
            "phase",
            "action",
            "state",
            "attempts",
            "rows_done",
            "rows_total",
            "started_at",
            "ended_at",
            "detail",
        ];
        for key in keys {
            assert!(document["steps"][2].get(key).is_some(), "{key} in {document:#}");
        }
        assert_eq!(document["steps"][2]["rows_done"], 1_000);
        assert_eq!(document["steps"][2]["state"], "succeeded");
        assert_eq!(document["steps"][4]["state"], "waiting");
        assert_eq!(document["steps"][5]["state"], "pending");
    }

    #[test]
    fn what_holds_a_step_is_shown_while_somebody_drives_it() {
        let mut events = vec![started()];
        events.extend(done("create", None));
        events.extend(done("sync", None));
        events.push(begun("copy"));
        let state = state(events);
        let line = line();
        let held = |name: &str, for_ms| Throttled {
            name: name.into(),
            reason: "replica-2 3.2s >= 1.5s".into(),
            of: Some("replica-2".into()),
            value: Some(3_200.0),
            limit: Some(1_500.0),
            unit: Unit::Ms,
            for_ms,
        };
        let throttled = vec![held("lag", 4_000), held("more", 1_000)];
        let so_far = [StepProgress { throttled, ..live(400) }];
        let lease = lease();
        let view =
            |driver| StatusView { state: &state, driver, live: &so_far, line: &line, now: at(30) };
        let driven = view(Some(&lease));
        let text = driven.render(Colour::Off);
        // Held for 4 s when it was written down, 10 s ago.
        assert!(text.contains("held back: lag replica-2 3.2s >= 1.5s for 14s"), "{text}");
        assert!(text.contains("and 1 more"), "{text}");
        let document = Value::Object(driven.document());
        assert_eq!(document["waiting_for"], json!(["throttle lag", "throttle more"]));
        let held = &document["steps"][2]["throttled"][0];
        assert_eq!(held["value"], 3_200.0);
        assert_eq!(held["limit"], 1_500.0);
        assert_eq!(held["since"], json!(words::rfc3339(at(16))));
        let left = Value::Object(view(None).document());
        assert_eq!(left["steps"][2]["throttled"], json!([]));
        assert_eq!(left["waiting_for"], json!([]));
    }

    fn lease() -> Lease {
        let holder = Claimant {
            id: "1".into(),
            name: "ana".into(),
            host: "here".into(),
            boot: String::new(),
            pid: 1,
            pid_started: 1,
        };
        let (run, token) = (crate::report::fixture::RUN.into(), 1);
        let (since, renewed_at, expires_at) = (at(1), at(29), at(40));
        Lease { run, holder, token, since, renewed_at, expires_at, is_left_alone: false }
    }

    #[test]
    fn rows_under_way_come_from_the_store() {
        let mut events = vec![started()];
        events.extend(done("create", None));
        events.extend(done("sync", None));
        events.push(begun("copy"));
        let state = state(events);
        let line = line();
        let so_far = [live(400)];
        let view =
            StatusView { state: &state, driver: None, live: &so_far, line: &line, now: at(60) };
        let document = Value::Object(view.document());
        assert_eq!(document["steps"][2]["rows_done"], 400);
        assert_eq!(document["steps"][2]["rows_total"], 1_000);
        let text = view.render(Colour::Off);
        assert!(text.contains("400/~1,000"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}

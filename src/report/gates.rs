//! Gates: what each condition needs, what there is, what is missing, and which command supplies it.

use serde_json::{Value, json};

use crate::run::{
    Action, Condition, ConditionKind, ConditionVerdict, Digest, GateReport, Program, Progress,
    State, StepId, Timestamp, asks,
};

use super::advice::{CommandLine, quoted, trouble};
use super::paint::{Colour, Tone};
use super::steps::is_its_turn;
use super::table::{Alignment, Table};
use super::words;

/// How wide a page is, in columns, where no terminal says.
const PAGE: u16 = 100;

/// What is missing at a gate, in words; empty when it is open.
#[must_use]
pub fn missing(report: &GateReport) -> Vec<String> {
    let unmet = report.conditions.iter().filter(|one| one.verdict != ConditionVerdict::Pass);
    unmet.map(|one| format!("{} (have {})", one.needed, one.have)).collect()
}

/// The name of a condition, as plans and tables have it.
#[must_use]
pub fn condition_name(kind: &ConditionKind) -> String {
    match kind {
        ConditionKind::Needs => "needs".to_owned(),
        ConditionKind::Policy => "policy".to_owned(),
        ConditionKind::NotRejected => "not rejected".to_owned(),
        ConditionKind::Unchanged => "unchanged".to_owned(),
        ConditionKind::NotParked => "parked rows".to_owned(),
        ConditionKind::InStep(mapping) => format!("{mapping} in step"),
        ConditionKind::Approvals(group) => format!("approvals of {group}"),
        ConditionKind::VerifiedWithin => "verified_within".to_owned(),
        ConditionKind::Soak => "soak".to_owned(),
        ConditionKind::Window => "window".to_owned(),
        ConditionKind::UnusedFor(at) => format!("unused_for {}", at + 1),
        ConditionKind::RelayLag => "relay_lag".to_owned(),
        ConditionKind::RelayRows => "relay_rows".to_owned(),
        ConditionKind::Query(at) => format!("query {}", at + 1),
    }
}

const fn verdict_name(verdict: ConditionVerdict) -> &'static str {
    match verdict {
        ConditionVerdict::Pass => "pass",
        ConditionVerdict::Fail => "fail",
        ConditionVerdict::Unknown => "unknown",
    }
}

/// What a gate asks, one thing each, and which of it policy added.
#[must_use]
pub fn asked(program: &Program, gate: &StepId) -> Vec<String> {
    let asked = asks(program, gate).into_iter();
    asked
        .map(|one| {
            let policy = if one.from_policy { " (from policy)" } else { "" };
            format!("{}{policy}", one.needed)
        })
        .collect()
}

/// The same for documents.
#[must_use]
pub fn asked_document(program: &Program, gate: &StepId) -> Vec<Value> {
    let asked = asks(program, gate).into_iter();
    asked
        .map(|one| {
            json!({
                "condition": condition_name(&one.kind),
                "needed": one.needed,
                "from_policy": one.from_policy,
            })
        })
        .collect()
}

/// A gate with what is needed to show it.
#[derive(Debug)]
pub struct GateView<'a> {
    /// What holds of it.
    pub report: &'a GateReport,
    /// The run.
    pub state: &'a State,
    /// How its reader calls this program.
    pub line: &'a CommandLine,
    /// The store's clock.
    pub now: Timestamp,
}

impl GateView<'_> {
    /// The command that supplies what a condition lacks; none when it holds, or when an earlier condition comes first.
    #[must_use]
    pub fn help(&self, condition: &Condition) -> Option<String> {
        if condition.verdict == ConditionVerdict::Pass {
            return None;
        }
        let gate = &self.report.gate;
        Some(match &condition.kind {
            ConditionKind::Needs
            | ConditionKind::Unchanged
            | ConditionKind::InStep(_)
            | ConditionKind::VerifiedWithin => self.go_on(),
            ConditionKind::Policy => {
                let path = quoted(&self.state.pin().path);
                self.line.of(&format!("amend {{run}} {path}"))
            }
            ConditionKind::NotRejected => self.line.of(&format!("revoke {{run}} {gate}")),
            ConditionKind::NotParked => self.line.of("status {run} --parked"),
            ConditionKind::Approvals(group) => {
                // Nobody can approve work whose digest isn't known yet.
                let work = self.report.work.as_ref()?;
                self.line.of(&format!("approve {{run}} {gate} --group {group} --digest {work}"))
            }
            ConditionKind::RelayLag | ConditionKind::RelayRows
                if condition.verdict == ConditionVerdict::Fail =>
            {
                self.line.of("relay {run}")
            }
            ConditionKind::Soak
            | ConditionKind::Window
            | ConditionKind::UnusedFor(_)
            | ConditionKind::RelayLag
            | ConditionKind::RelayRows
            | ConditionKind::Query(_) => {
                let wait_ms = condition.holds_at.map_or(600_000, |at| at.since_ms(self.now));
                format!("{} --wait {}", self.line.go_on(self.state), wait_text(wait_ms))
            }
        })
    }

    /// The command that goes on with the run. What has failed or differs is not tried again by `run`.
    fn go_on(&self) -> String {
        match trouble(self.state) {
            Some((_, Progress::Failed { .. } | Progress::Differs)) => self.line.of("retry {run}"),
            _ => self.line.go_on(self.state),
        }
    }

    fn missing(&self, condition: &Condition) -> String {
        match (condition.verdict, condition.holds_at) {
            (ConditionVerdict::Pass, _) => "-".to_owned(),
            (_, Some(at)) => format!("holds in {}", words::duration(at.since_ms(self.now))),
            (ConditionVerdict::Unknown, None) => "can't be told".to_owned(),
            (ConditionVerdict::Fail, None) => match &condition.kind {
                ConditionKind::Approvals(group) => format!("approval of {group}"),
                ConditionKind::Policy => "an amendment".to_owned(),
                ConditionKind::NotRejected => "its revocation".to_owned(),
                ConditionKind::NotParked => "rows mended, and a retry".to_owned(),
                ConditionKind::Needs => "earlier steps".to_owned(),
                ConditionKind::Unchanged => "a look at what changed".to_owned(),
                ConditionKind::InStep(_) => "its triggers as they were made".to_owned(),
                ConditionKind::VerifiedWithin => "a fresh verify".to_owned(),
                ConditionKind::Soak => "time".to_owned(),
                ConditionKind::Window => "another time".to_owned(),
                ConditionKind::UnusedFor(_) => "time without a use".to_owned(),
                ConditionKind::RelayLag | ConditionKind::RelayRows => "a relay at work".to_owned(),
                ConditionKind::Query(_) => "another value".to_owned(),
            },
        }
    }

    /// The gate as documents have it.
    #[must_use]
    pub fn document(&self) -> Value {
        let conditions: Vec<Value> = self
            .report
            .conditions
            .iter()
            .map(|one| {
                json!({
                    "condition": condition_name(&one.kind),
                    "verdict": verdict_name(one.verdict),
                    "needed": one.needed,
                    "have": one.have,
                    "missing": (one.verdict != ConditionVerdict::Pass).then(|| self.missing(one)),
                    "expires_at": one.expires_at.and_then(words::rfc3339),
                    "holds_at": one.holds_at.and_then(words::rfc3339),
                    "from_policy": one.from_policy,
                    "command": self.help(one),
                })
            })
            .collect();
        json!({
            "id": self.report.gate,
            "open": self.report.is_open(),
            "used": self.is_used(),
            "work": self.report.work.as_ref().map(Digest::as_str),
            "releases": self.releases(),
            "conditions": conditions,
        })
    }

    /// Whether the run stands before it: its turn has come, and it is shut.
    #[must_use]
    pub fn holds_the_run(&self) -> bool {
        let step = self.state.program().step(&self.report.gate);
        !self.report.is_open() && step.is_some_and(|step| is_its_turn(self.state, step))
    }

    fn releases(&self) -> Vec<&str> {
        let released = self.state.program().released_by(&self.report.gate);
        released.map(|step| step.id.as_str()).collect()
    }

    /// Whether everything that the gate releases is done.
    #[must_use]
    pub fn is_used(&self) -> bool {
        is_used(self.state, &self.report.gate)
    }

    /// The gate as a table with a heading.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        let (word, tone) = match (self.report.is_open(), self.is_used()) {
            (_, true) => ("used: everything it lets go is done", Tone::Dim),
            (true, false) => ("open", Tone::Good),
            (false, false) => ("shut", Tone::Warn),
        };
        let mut text = format!(
            "gate {} is {}",
            colour.paint(Tone::Strong, self.report.gate.as_str()),
            colour.paint(tone, word),
        );
        let releases = self.releases();
        if !releases.is_empty() {
            text.push_str("; it lets go: ");
            text.push_str(&releases.join(", "));
        }
        if let Some(work) = &self.report.work {
            text.push_str(" (digest ");
            text.push_str(work.short());
            text.push(')');
        }
        text.push('\n');
        text.push_str(&self.table(colour));
        let mut helps: Vec<String> = Vec::new();
        for help in self.report.conditions.iter().filter_map(|one| self.help(one)) {
            if !helps.contains(&help) {
                helps.push(help);
            }
        }
        if self.report.is_open() && !self.is_used() {
            helps.push(self.line.go_on(self.state));
        }
        for help in helps {
            text.push_str("  ");
            text.push_str(&colour.paint(Tone::Strong, &help));
            text.push('\n');
        }
        text
    }

    fn table(&self, colour: Colour) -> String {
        let left = Alignment::Left;
        let columns = [
            ("", left),
            ("condition", left),
            ("needed", left),
            ("have", left),
            ("missing", left),
            ("expires", left),
        ];
        let mut table = Table::new(colour, &columns);
        for one in &self.report.conditions {
            let tone = match one.verdict {
                ConditionVerdict::Pass => Tone::Good,
                ConditionVerdict::Fail => Tone::Warn,
                ConditionVerdict::Unknown => Tone::Bad,
            };
            let policy = if one.from_policy { " (from policy)" } else { "" };
            let expires = one.expires_at.map_or_else(
                || "-".to_owned(),
                |at| format!("in {}", words::duration(at.since_ms(self.now))),
            );
            table.row(&[
                (verdict_name(one.verdict).to_owned(), tone),
                (condition_name(&one.kind) + policy, Tone::Plain),
                (one.needed.clone(), Tone::Plain),
                (one.have.clone(), Tone::Plain),
                (self.missing(one), tone),
                (expires, Tone::Dim),
            ]);
        }
        table.render_within(PAGE)
    }
}

/// Whether everything that a gate releases is done, so that it guards nothing any more.
#[must_use]
pub fn is_used(state: &State, gate: &StepId) -> bool {
    let mut released = state.program().released_by(gate).peekable();
    released.peek().is_some()
        && released.all(|step| state.is_applied(&step.id))
        && state
            .program()
            .step(gate)
            .is_some_and(|step| matches!(step.action, Action::Gate(_)) && state.is_applied(gate))
}

/// A length of time as `--wait` reads it, rounded up to a whole second.
fn wait_text(ms: u64) -> String {
    let seconds = ms.div_ceil(1_000).max(1);
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string().replace(' ', "")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_written_as_they_are_read() {
        for (ms, text) in [(1, "1s"), (61_000, "1m1s"), (86_400_000, "1day")] {
            assert_eq!(wait_text(ms), text);
            let read = humantime::parse_duration(text).unwrap();
            assert!(read.as_millis() >= u128::from(ms));
        }
    }
}

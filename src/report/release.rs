//! What a gate lets go, exactly: statements with their places, engine actions in words, what is at stake, the way back, and
//! what was proven and decided so far. What an approver reads before saying yes.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::run::{
    Action, Decision, DecisionVerdict, Digest, Evidence, Gate, Hazard, Judged, Method, Script,
    State, Step, StepId, Timestamp, Transaction, Undo, Verdict, Verify, judged,
};

use super::deeds::{deeds, way_back};
use super::layout::labelled;
use super::paint::{Colour, Tone};
use super::words;

/// A table that the work may destroy or puts aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtStake {
    /// The step.
    pub step: StepId,
    /// The database and the table.
    pub table: String,
    /// About how many rows it has.
    pub rows: Option<u64>,
    /// How much disk it takes, in bytes.
    pub bytes: Option<u64>,
    /// Why nothing of that is known, if nothing is.
    pub unknown: Option<String>,
}

/// A gate's work with what is needed to show it.
#[derive(Debug)]
pub struct ReleaseView<'a> {
    /// The gate.
    pub gate: &'a StepId,
    /// The run.
    pub state: &'a State,
    /// The tables at stake.
    pub stakes: &'a [AtStake],
    /// The store's clock.
    pub now: Timestamp,
}

impl ReleaseView<'_> {
    fn steps(&self) -> Vec<&Step> {
        self.state.program().released_by(self.gate).collect()
    }

    fn work(&self) -> Option<&Digest> {
        self.state.gate(self.gate)?.work.as_ref()
    }

    fn decisions(&self) -> &[Decision] {
        self.state.gate(self.gate).map_or(&[], |known| &known.decisions)
    }

    fn expires_ms(&self) -> u64 {
        match self.state.program().step(self.gate).map(|step| &step.action) {
            Some(Action::Gate(Gate { expires_ms, .. })) => *expires_ms,
            _ => 0,
        }
    }

    /// For programs.
    #[must_use]
    pub fn document(&self) -> Value {
        let steps: Vec<Value> =
            self.steps().into_iter().map(|step| self.step_document(step)).collect();
        let evidence: Vec<Value> =
            judged(self.state, self.gate, self.now).iter().map(evidence_document).collect();
        let decisions: Vec<Value> =
            self.decisions().iter().map(|decision| self.decision_document(decision)).collect();
        json!({
            "digest": self.work().map(Digest::as_str),
            "steps": steps,
            "evidence": evidence,
            "decisions": decisions,
        })
    }

    fn step_document(&self, step: &Step) -> Value {
        let stakes = self.stakes.iter().filter(|stake| stake.step == step.id).map(|stake| {
            json!({ "table": stake.table, "rows": stake.rows, "bytes": stake.bytes, "unknown": stake.unknown })
        });
        let (hazard, why) = hazard(step);
        let statements = match &step.action {
            Action::Sql(script) => self.statements(script),
            _ => Vec::new(),
        };
        let undo = match &step.undo {
            Undo::Script(script) => self.statements(script),
            _ => Vec::new(),
        };
        json!({
            "id": step.id,
            "phase": step.phase,
            "line": step.line,
            "action": step.action.name(),
            "target": step.target,
            "description": step.description,
            "hazard": hazard,
            "hazard_reason": why,
            "statements": places(&statements),
            "does": deeds(self.state, step),
            "at_stake": stakes.collect::<Vec<_>>(),
            "undo": way_back(self.state, step),
            "undo_statements": places(&undo),
            "irreversible": step.irreversible,
            "done": self.state.is_applied(&step.id),
        })
    }

    fn decision_document(&self, decision: &Decision) -> Value {
        let (verdict, said) = match &decision.verdict {
            DecisionVerdict::Approved(comment) => ("approved", comment.as_deref()),
            DecisionVerdict::Rejected(reason) => ("rejected", Some(reason.as_str())),
        };
        let expires = decision.at.plus_ms(self.expires_ms());
        json!({
            "by": { "name": decision.by.name, "proof": decision.by.proof, "host": decision.by.host },
            "at": words::rfc3339(decision.at),
            "verdict": verdict,
            "said": said,
            "group": decision.group,
            "digest": decision.work.as_str(),
            "void": Some(&decision.work) != self.work(),
            "expires_at": (verdict == "approved").then(|| words::rfc3339(expires)),
        })
    }

    /// Statements with the file and line that each stands on.
    fn statements<'s>(&self, script: &'s Script) -> Vec<(String, &'s str)> {
        let file = script.file.as_deref().unwrap_or(&self.state.pin().path);
        let place = |line: u32| format!("{file}:{line}");
        script.statements.iter().map(|one| (place(one.line), one.text.as_str())).collect()
    }

    /// For people.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        let mut text = String::new();
        let steps = self.steps();
        let count = words::plural(steps.len() as u64, "step");
        let _ = writeln!(
            text,
            "gate {} lets go of {count}",
            colour.paint(Tone::Strong, self.gate.as_str())
        );
        match self.work() {
            Some(work) => {
                let _ = writeln!(text, "digest {}", work.as_str());
            }
            None => text.push_str("digest not known yet: the gate has not been reached\n"),
        }
        for step in steps {
            text.push('\n');
            self.render_step(step, colour, &mut text);
        }
        self.render_evidence(colour, &mut text);
        self.render_decisions(colour, &mut text);
        text
    }

    fn render_step(&self, step: &Step, colour: Colour, text: &mut String) {
        let place = words::visible(&format!("{}:{}", self.state.pin().path, step.line));
        let target = step.target.as_ref().map_or(String::new(), |target| format!(" on {target}"));
        let _ = writeln!(
            text,
            "{} ({}{target}, {place})",
            colour.paint(Tone::Strong, step.id.as_str()),
            step.action.name()
        );
        if let Some(description) = &step.description {
            text.push_str(&labelled("  ", &words::visible(description)));
        }
        if self.state.is_applied(&step.id) {
            let _ = writeln!(text, "  {}", colour.paint(Tone::Dim, "done already"));
        }
        match hazard(step) {
            ("none", _) => {}
            (word, why) => {
                let why = why.map_or(String::new(), |why| format!(": {why}"));
                let line = Line { words: &format!("{word}{why}"), part: (Tone::Bad, word) };
                text.push_str(&line.laid("  ", colour));
            }
        }
        if let Action::Sql(script) = &step.action {
            let how = match script.transaction {
                Transaction::Auto => "in one transaction",
                Transaction::None => "each statement by itself",
            };
            let _ = writeln!(text, "  runs {how}:");
            render_statements(&self.statements(script), colour, text);
        }
        for deed in deeds(self.state, step) {
            text.push_str(&labelled("  - ", &words::visible(&deed)));
        }
        for stake in self.stakes.iter().filter(|stake| stake.step == step.id) {
            text.push_str(&labelled("  at stake: ", &words::visible(&at_stake(stake))));
        }
        text.push_str(&labelled("  ", &words::visible(&way_back(self.state, step))));
        if let Undo::Script(script) = &step.undo {
            render_statements(&self.statements(script), colour, text);
        }
    }

    fn render_evidence(&self, colour: Colour, text: &mut String) {
        text.push_str("\nevidence\n");
        let judged = judged(self.state, self.gate, self.now);
        if judged.is_empty() {
            text.push_str("  none: no verify stands before this gate\n");
        }
        for one in judged {
            let (word, tone, said) = match one.evidence {
                None => ("none", Tone::Warn, "it has no result yet".to_owned()),
                Some(evidence) => {
                    let (word, tone) = verdict(evidence.verdict);
                    let age = words::duration(one.age_ms);
                    let still =
                        if one.stands_still { " when the old side was put aside" } else { "" };
                    (word, tone, format!("{age} old{still}; {}", found(&one, evidence)))
                }
            };
            let line = format!("{word} {}: {said}", one.step.id);
            text.push_str(&Line { words: &line, part: (tone, word) }.laid("  ", colour));
        }
    }

    fn render_decisions(&self, colour: Colour, text: &mut String) {
        text.push_str("\ndecisions\n");
        if self.decisions().is_empty() {
            text.push_str("  none yet\n");
        }
        for decision in self.decisions() {
            let ago = words::duration(self.now.since_ms(decision.at));
            let who = words::actor(&decision.by);
            let expires = decision.at.plus_ms(self.expires_ms());
            let (word, tone, line) = match &decision.verdict {
                DecisionVerdict::Rejected(reason) => {
                    ("rejected", Tone::Bad, format!("rejected by {who}, {ago} ago: {reason}"))
                }
                DecisionVerdict::Approved(comment) => {
                    let group = decision
                        .group
                        .as_ref()
                        .map_or(String::new(), |group| format!(" for {group}"));
                    let (word, tone, rest) = if Some(&decision.work) != self.work() {
                        ("void", Tone::Warn, format!("it was for digest {}", decision.work))
                    } else if expires <= self.now {
                        ("expired", Tone::Warn, "it counts no more".to_owned())
                    } else {
                        let left = words::duration(expires.since_ms(self.now));
                        ("approved", Tone::Good, format!("expires in {left}"))
                    };
                    let said = comment.as_ref().map_or(String::new(), |said| format!(": {said}"));
                    (word, tone, format!("{word} by {who}{group}, {ago} ago, {rest}{said}"))
                }
            };
            text.push_str(&Line { words: &line, part: (tone, word) }.laid("  ", colour));
        }
    }
}

/// A line with a word in colour, which stands at its beginning.
struct Line<'a> {
    words: &'a str,
    part: (Tone, &'a str),
}

impl Line<'_> {
    /// It, escaped, broken where the page ends, and only then coloured: what makes names harmless would spoil colours.
    fn laid(&self, label: &str, colour: Colour) -> String {
        let (tone, part) = self.part;
        let laid = labelled(label, &words::visible(self.words));
        laid.replacen(part, &colour.paint(tone, part), 1)
    }
}

fn places(statements: &[(String, &str)]) -> Vec<Value> {
    statements.iter().map(|(place, text)| json!({ "place": place, "text": text })).collect()
}

fn render_statements(statements: &[(String, &str)], colour: Colour, text: &mut String) {
    for (place, statement) in statements {
        let _ = writeln!(text, "    {}", colour.paint(Tone::Dim, &words::visible(place)));
        text.push_str(&indented(&words::visible(statement), "      "));
    }
}

fn indented(text: &str, by: &str) -> String {
    let mut indented = String::new();
    for line in text.trim_end().lines() {
        let _ = writeln!(indented, "{by}{line}");
    }
    indented
}

fn hazard(step: &Step) -> (&'static str, Option<&str>) {
    match &step.hazard {
        Hazard::None => ("none", None),
        Hazard::Destructive(what) => ("destructive", Some(what)),
        Hazard::Unknown(why) => ("unknown", Some(why)),
    }
}

const fn verdict(verdict: Verdict) -> (&'static str, Tone) {
    match verdict {
        Verdict::Pass => ("PASS", Tone::Good),
        Verdict::Partial => ("PARTIAL", Tone::Warn),
        Verdict::Fail => ("FAIL", Tone::Bad),
    }
}

fn found(judged: &Judged<'_>, evidence: &Evidence) -> String {
    let what = match &judged.step.action {
        Action::Verify(Verify::Mapping { mapping, method, .. }) => match method {
            Method::Full => format!("every row of {mapping}"),
            Method::Counts => format!("the counts of {mapping}"),
            Method::Sample(rows) => {
                format!("a sample of {} of {mapping}", words::plural(u64::from(*rows), "row"))
            }
        },
        _ => return "the value of its query".to_owned(),
    };
    let differences = [
        (evidence.missing, "missing"),
        (evidence.extra, "extra"),
        (evidence.different, "different"),
    ];
    let differences = differences.map(|(count, word)| format!("{} {word}", words::count(count)));
    format!("{what}, {} compared, {}", words::plural(evidence.rows, "row"), differences.join(", "))
}

fn evidence_document(judged: &Judged<'_>) -> Value {
    json!({
        "step": judged.step.id,
        "verdict": judged.evidence.map(|evidence| verdict(evidence.verdict).0),
        "age_ms": judged.evidence.map(|_| judged.age_ms),
        "stands_still": judged.stands_still,
        "evidence": judged.evidence,
    })
}

fn at_stake(stake: &AtStake) -> String {
    let mut parts = Vec::new();
    parts.extend(stake.rows.map(|rows| format!("about {}", words::plural(rows, "row"))));
    parts.extend(stake.bytes.map(|bytes| bytesize::ByteSize(bytes).to_string()));
    let size = match (&stake.unknown, parts.is_empty()) {
        (Some(why), _) => format!("its size is not known: {why}"),
        (None, true) => "its size is not known".to_owned(),
        (None, false) => parts.join(", "),
    };
    format!("{}, {size}", stake.table)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::report::fixture;

    /// The release of the fixture's gate, with what a database may have named.
    fn shown(colour: Colour) -> String {
        let state = fixture::state(fixture::up_to_gate());
        let gate = state
            .program()
            .steps()
            .iter()
            .find(|step| matches!(step.action, Action::Gate(_)))
            .map(|step| step.id.clone())
            .unwrap();
        let step = state.program().released_by(&gate).next().unwrap().id.clone();
        let stakes = [AtStake {
            step,
            table: "app.le\u{1b}[2Jads".to_owned(),
            rows: Some(1_500),
            bytes: Some(4_096),
            unknown: None,
        }];
        let view =
            ReleaseView { gate: &gate, state: &state, stakes: &stakes, now: fixture::at(1_000) };
        view.render(colour)
    }

    #[test]
    fn colours_are_colours_and_what_a_name_holds_is_none() {
        let (plain, coloured) = (shown(Colour::Off), shown(Colour::On));
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        assert!(coloured.contains("\u{1b}[32mPASS\u{1b}[0m"), "{coloured:?}");
        for text in [&plain, &coloured] {
            assert!(text.contains("le\\u{1b}[2Jads, about 1,500 rows"), "{text:?}");
            assert!(!text.contains("\u{1b}[2J"), "{text:?}");
        }
        // Taken away, the colours leave the same words.
        let bare = ["1", "2", "31", "32", "33", "0"]
            .iter()
            .fold(coloured, |text, code| text.replace(&format!("\u{1b}[{code}m"), ""));
        assert_eq!(bare, plain);
    }

    #[test]
    fn a_line_that_is_too_long_goes_on_below() {
        let long = shown(Colour::Off);
        assert!(long.lines().all(|line| line.chars().count() <= 100), "{long}");
        assert!(!long.contains("phasegate has its own way back"), "{long}");
    }
}

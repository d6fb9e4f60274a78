//! What there is to go by where nobody can tell whether a step was done: journal, statements, ledger, catalogue; and what each answer
//! does.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::run::{Action, InLedger, Marked, State, Statement, Step, StepId, TargetName, Undo, Way};
use crate::store::Entry;

use super::advice::CommandLine;
use super::history;
use super::layout::labelled;
use super::paint::{Colour, Tone};
use super::words;

/// Everything that is known of an ambiguous step.
#[derive(Debug)]
pub struct DoubtView<'a> {
    /// The run.
    pub state: &'a State,
    /// The step.
    pub step: &'a Step,
    /// Whether it was being done or undone.
    pub way: Way,
    /// What is known.
    pub detail: &'a str,
    /// The journal's entries about the step.
    pub entries: &'a [Entry],
    /// What each of its databases has, or why that can't be told.
    pub found: &'a [(TargetName, Result<InLedger, String>)],
    /// How its reader calls this program.
    pub line: &'a CommandLine,
}

impl DoubtView<'_> {
    fn statements(&self) -> &[Statement] {
        match (self.way, &self.step.action, &self.step.undo) {
            (Way::Forward, Action::Sql(script), _) | (Way::Back, _, Undo::Script(script)) => {
                &script.statements
            }
            _ => &[],
        }
    }

    /// The statements in doubt: those that are marked as begun and not seen to end. Without marks nobody knows which.
    fn in_doubt(&self) -> Vec<&Statement> {
        let marks = self.found.iter().filter_map(|(_, found)| found.as_ref().ok());
        let open: Vec<u32> = marks
            .flat_map(|found| &found.marks)
            .filter(|mark| mark.is_open && mark.way == self.way)
            .flat_map(|mark| mark.lines.iter().copied())
            .collect();
        self.statements().iter().filter(|statement| open.contains(&statement.line)).collect()
    }

    fn done(&self) -> &'static str {
        match self.way {
            Way::Forward => "done",
            Way::Back => "undone",
        }
    }

    fn command(&self, outcome: &str) -> String {
        let (step, attempt) = (&self.step.id, self.state.step(&self.step.id).attempts);
        self.line.of(&format!(
            "resolve {{run}} {step} --attempt {attempt} --outcome {outcome} --reason 'how you know'"
        ))
    }

    /// Each answer: its command, and what it does.
    fn answers(&self) -> [(String, String); 2] {
        let (applied, again) = match (self.statements().len(), self.in_doubt().len()) {
            (0 | 1, _) => (
                format!(
                    "if it was: the step counts as {}, and nothing of it is done again",
                    self.done()
                ),
                "if it was not: it is done again from its beginning".to_owned(),
            ),
            (_, 0 | 1) => (
                "if it was: the statement in doubt counts as done, and the rest of the script still runs"
                    .to_owned(),
                "if it was not: the script goes on with that statement, from its beginning".to_owned(),
            ),
            _ => (
                "if all of them were: the statements in doubt count as done, and the rest of the script still runs"
                    .to_owned(),
                "if not all of them were: the script goes on with the first of them; take back first what would not bear \
                 being done once more"
                    .to_owned(),
            ),
        };
        [(self.command("applied"), applied), (self.command("not-applied"), again)]
    }

    /// For programs.
    #[must_use]
    pub fn document(&self) -> Map<String, Value> {
        let statements: Vec<Value> = self
            .in_doubt()
            .iter()
            .map(|statement| json!({ "line": statement.line, "text": statement.text }))
            .collect();
        let targets: Vec<Value> = self.found.iter().map(target_document).collect();
        let next: Vec<Value> = self
            .answers()
            .iter()
            .map(|(command, purpose)| json!({ "command": command, "purpose": purpose }))
            .collect();
        let records: Vec<Value> = self.entries.iter().map(history::document).collect();
        let document = json!({
            "run": self.state.run(),
            "plan": self.state.program().plan(),
            "step": self.step.id,
            "action": self.step.action.name(),
            "undoing": self.way == Way::Back,
            "attempt": self.state.step(&self.step.id).attempts,
            "detail": self.detail,
            "statements": statements,
            "targets": targets,
            "records": records,
            "next": next,
        });
        match document {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// For people.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        let id = &self.step.id;
        let headline = format!("Nobody can tell whether step {id} was {}.", self.done());
        let mut text = colour.paint(Tone::Bad, &headline);
        text.push_str("\n\n");
        text.push_str(&labelled("known:    ", &words::visible(self.detail)));
        let place = self.state.pin().path.as_str();
        for statement in self.in_doubt() {
            let file = match (self.way, &self.step.action, &self.step.undo) {
                (Way::Forward, Action::Sql(script), _) | (Way::Back, _, Undo::Script(script)) => {
                    script.file.as_deref().unwrap_or(place)
                }
                _ => place,
            };
            let _ = writeln!(text, "in doubt: {}:{}", words::visible(file), statement.line);
            for line in words::visible(&statement.text).lines() {
                let _ = writeln!(text, "            {line}");
            }
        }
        for (target, found) in self.found {
            render_target((target, found), self.done(), &mut text);
        }
        text.push_str("\nThe journal has of it:\n");
        text.push_str(&history::render(self.entries, colour));
        text.push_str("\nLook in the database, and say what came of it:\n");
        for (command, purpose) in self.answers() {
            let _ = writeln!(text, "  {}", colour.paint(Tone::Strong, &command));
            text.push_str(&labelled("      ", &purpose));
        }
        text
    }
}

fn render_target(
    (target, found): (&TargetName, &Result<InLedger, String>),
    done: &str,
    text: &mut String,
) {
    let label = format!("{target}: ");
    match found {
        Err(why) => {
            let why = format!("could not be asked: {}", words::visible(why));
            text.push_str(&labelled(&label, &why));
        }
        Ok(found) => {
            let has =
                if found.is_applied { "has the step as" } else { "does not have the step as" };
            text.push_str(&labelled(&label, &format!("its ledger {has} {done}")));
            for mark in &found.marks {
                text.push_str(&labelled("  - ", &words::visible(&sentence(mark))));
                for seen in &mark.seen {
                    text.push_str(&labelled("      ", &words::visible(seen)));
                }
            }
        }
    }
}

/// What a ledger has of a part, in a sentence.
fn sentence(mark: &Marked) -> String {
    let lines: Vec<String> = mark.lines.iter().map(u32::to_string).collect();
    let line = match lines.as_slice() {
        [] => String::new(),
        [one] => format!(" (line {one})"),
        several => format!(" (lines {})", several.join(", ")),
    };
    let undo = if mark.way == Way::Back { " of the undo" } else { "" };
    let at = if mark.at.is_empty() { String::new() } else { format!(", {}", mark.at) };
    format!("{}{undo}{line}: {}{at}", mark.part, mark.stands)
}

fn target_document((target, found): &(TargetName, Result<InLedger, String>)) -> Value {
    match found {
        Err(why) => json!({ "target": target, "unknown": why }),
        Ok(found) => {
            let marks: Vec<Value> = found.marks.iter().map(mark_document).collect();
            json!({ "target": target, "in_ledger": found.is_applied, "marks": marks })
        }
    }
}

fn mark_document(mark: &Marked) -> Value {
    json!({
        "part": mark.part,
        "line": mark.lines.first(),
        "lines": mark.lines,
        "undoing": mark.way == Way::Back,
        "in_doubt": mark.is_open,
        "stands": mark.stands,
        "at": mark.at,
        "seen": mark.seen,
    })
}

/// Whether an entry of the journal is about an attempt at a step.
#[must_use]
pub fn is_about(entry: &Entry, id: &StepId) -> bool {
    use crate::run::Event;
    match &entry.record.event {
        Event::StepStarted { step, .. }
        | Event::StepSucceeded { step, .. }
        | Event::StepFailed { step, .. }
        | Event::StepAmbiguous { step, .. }
        | Event::StepResolved { step, .. } => step == id,
        Event::RetryAsked { steps } => steps.contains(id),
        _ => false,
    }
}

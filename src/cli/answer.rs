//! What a command comes to: an answer, or a failure. Both know their exit code and can be shown to people and programs.

use serde_json::{Map, Value, json};

use crate::diagnostic::{self, Diagnostic, Source, Style};
use crate::report::{Colour, Tone, words};

use super::exit::Exit;

/// The version of every JSON document. It rises when a field changes its meaning or goes; new fields don't count.
pub const SCHEMA_VERSION: u32 = 1;

/// A command's result.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How the process ends.
    pub exit: Exit,
    /// What the document holds beside its frame.
    pub body: Map<String, Value>,
    /// The same for people.
    pub human: String,
    /// How the document is written.
    pub form: Form,
}

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Indented, as the one document of its command.
    Whole,
    /// In one line, as the last of a stream of them.
    Line,
}

impl Answer {
    /// A plain success that people read as this text.
    #[must_use]
    pub fn done(human: impl Into<String>) -> Self {
        Self { exit: Exit::Done, body: Map::new(), human: human.into(), form: Form::Whole }
    }

    /// The same answer with another field in its document.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.body.insert(key.to_owned(), value);
        self
    }

    /// The same answer with more fields in its document.
    #[must_use]
    pub fn with_all(mut self, fields: Map<String, Value>) -> Self {
        self.body.extend(fields);
        self
    }

    /// The same answer with another exit.
    #[must_use]
    pub const fn exiting(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same answer, whose document ends a stream.
    #[must_use]
    pub const fn ending_a_stream(mut self) -> Self {
        self.form = Form::Line;
        self
    }

    /// The document.
    #[must_use]
    pub fn document(&self, command: &str) -> Value {
        framed(command, self.exit, self.body.clone())
    }
}

/// A document's frame: version, command and exit, before anything else.
fn framed(command: &str, exit: Exit, body: Map<String, Value>) -> Value {
    let mut document = body;
    document.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
    document.insert("command".to_owned(), json!(command));
    document.insert("exit".to_owned(), json!({ "code": exit.code(), "reason": exit.reason() }));
    Value::Object(document)
}

/// Why a command could not do what was asked.
#[derive(Clone, Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// One sentence without its full stop.
    pub message: String,
    /// Why, from the outside in.
    pub causes: Vec<String>,
    /// What to do, usually a command.
    pub help: Vec<String>,
    /// What was found in files or databases. Boxed, since most failures found nothing and travel far.
    pub found: Box<Found>,
    /// What else the document holds.
    pub body: Map<String, Value>,
}

/// Findings, and what is needed to show them.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What was found.
    pub findings: Vec<Diagnostic>,
    /// The files that findings point into.
    pub sources: Vec<Source>,
    /// What stays as it is, in lines.
    pub stays: Vec<String>,
}

impl Failure {
    /// A failure that says so.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            help: Vec::new(),
            found: Box::default(),
            body: Map::new(),
        }
    }

    /// A command that makes no sense.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same failure with its cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// The same failure with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// The same failure with another field in its document.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.body.insert(key.to_owned(), value);
        self
    }

    /// The failure for people.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        let mut text =
            diagnostic::render_all(&self.found.findings, &self.found.sources, style(colour));
        text.push_str(&colour.paint(Tone::Bad, "error"));
        text.push_str(": ");
        text.push_str(&words::visible(&self.message));
        text.push('\n');
        for cause in &self.causes {
            text.push_str(&indented("cause", cause, colour));
        }
        if !self.found.stays.is_empty() {
            text.push_str(&indented("what stays", &self.found.stays.join("\n"), colour));
        }
        for help in &self.help {
            text.push_str(&indented("help", help, colour));
        }
        text
    }

    /// The failure as a document.
    #[must_use]
    pub fn document(&self, command: &str) -> Value {
        let mut body = self.body.clone();
        let error = json!({ "message": self.message, "causes": self.causes, "help": self.help });
        body.insert("error".to_owned(), error);
        if !self.found.findings.is_empty() {
            body.insert("findings".to_owned(), findings_document(&self.found.findings));
        }
        framed(command, self.exit, body)
    }
}

/// Findings as documents have them.
#[must_use]
pub fn findings_document(findings: &[Diagnostic]) -> Value {
    serde_json::to_value(findings).unwrap_or(Value::Null)
}

/// The style of findings that goes with a colour.
#[must_use]
pub const fn style(colour: Colour) -> Style {
    match colour {
        Colour::On => Style::Colour,
        Colour::Off => Style::Plain,
    }
}

/// A labelled text whose further lines stand below its first.
fn indented(label: &str, text: &str, colour: Colour) -> String {
    let margin = " ".repeat(label.len() + 4);
    let text = words::visible(text.trim_end()).replace('\n', &format!("\n{margin}"));
    format!("  {}: {text}\n", colour.paint(Tone::Strong, label))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn every_document_has_its_frame() {
        let document = Answer::done("x").with("run", json!("r")).document("status");
        assert_eq!(document["schema_version"], 1);
        assert_eq!(document["command"], "status");
        assert_eq!(document["exit"], json!({ "code": 0, "reason": "done" }));
        assert_eq!(document["run"], "r");
    }

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let failure = Failure::new(Exit::Held, "somebody else drives the run")
            .because("pid 7 on db1")
            .help("phasegate status leads --watch");
        let text = failure.render(Colour::Off);
        assert_eq!(
            text,
            "error: somebody else drives the run\n  cause: pid 7 on db1\n  help: phasegate status leads --watch\n"
        );
        let document = failure.document("run");
        assert_eq!(document["exit"]["code"], 5);
        assert_eq!(document["error"]["help"][0], "phasegate status leads --watch");
    }
}

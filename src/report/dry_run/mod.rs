//! A dry run: what a plan would do and what was found by looking, in one value that every format is made of.
//!
//! Invariants:
//! - Whatever the format, every finding is in it, and what is destructive, what can't be undone and who could wait is said in
//!   words.
//! - Texts that come from plans and databases are escaped as the format asks for, and what looks like a secret is hidden
//!   before it gets here.
//!
//! Absent on purpose: finding anything out, exit codes, and files. That is the command's.

use serde::Serialize;
use serde_json::{Map, Value};

use super::words;
use crate::diagnostic::{Diagnostic, Severity, Source};

mod github;
mod human;
mod junit;
mod markdown;
#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests;

/// How deep a dry run looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// At the plan and its files only.
    Render,
    /// At the databases, too.
    Probe,
}

/// What a plan would do.
#[derive(Clone, Debug, Serialize)]
pub struct DryRun {
    /// The plan's file, as it was given.
    pub file: String,
    /// The plan's name; none where it can't be read.
    pub plan: Option<String>,
    /// The digest of its meaning.
    pub digest: Option<String>,
    /// The environment it was compiled for.
    pub environment: String,
    /// How deep was looked.
    pub depth: Depth,
    /// Its steps, each behind everything that it needs.
    pub steps: Vec<StepOutlook>,
    /// The ids of steps that may run at the same time, in the order of these groups.
    pub waves: Vec<Vec<String>>,
    /// The first step that can't be undone.
    pub point_of_no_return: Option<String>,
    /// The databases.
    pub targets: Vec<TargetOutlook>,
    /// Everything found, the plan's first.
    pub findings: Vec<Noted>,
    /// The files that findings point into.
    #[serde(skip)]
    pub sources: Vec<Source>,
}

/// A finding with what it belongs to.
#[derive(Clone, Debug, Serialize)]
pub struct Noted {
    /// What was found.
    #[serde(flatten)]
    pub diagnostic: Diagnostic,
    /// The step, where it belongs to one.
    pub step: Option<String>,
    /// The database, where it was found in one.
    pub target: Option<String>,
}

/// What one step would do.
#[derive(Clone, Debug, Serialize)]
pub struct StepOutlook {
    /// Its id.
    pub id: String,
    /// Its phase.
    pub phase: &'static str,
    /// Its action, as plans write it.
    pub action: &'static str,
    /// The database it works on.
    pub target: Option<String>,
    /// The line of the plan on which it begins.
    pub line: u32,
    /// Its wave, counted from 1.
    pub wave: usize,
    /// The steps it needs.
    pub needs: Vec<String>,
    /// What the plan says of it.
    pub description: Option<String>,
    /// What the engine does, in sentences without a full stop.
    pub does: Vec<String>,
    /// The statements that run.
    pub statements: Vec<StatementOutlook>,
    /// What is locked by the engine's own work; what statements lock stands with them.
    pub locks: Vec<LockOutlook>,
    /// What it may destroy.
    pub danger: Danger,
    /// Why it can't be undone.
    pub irreversible: Option<String>,
    /// How it is undone.
    pub undo: UndoOutlook,
    /// What it asks, if it is a gate.
    pub gate: Option<GateOutlook>,
    /// The gates that let it go.
    pub behind: Vec<String>,
}

/// One statement.
#[derive(Clone, Debug, Serialize)]
pub struct StatementOutlook {
    /// Its text, with what looks like a secret hidden.
    pub text: String,
    /// The file it comes from; none when it stands in the plan.
    pub file: Option<String>,
    /// Its line there.
    pub line: u32,
    /// What it may destroy.
    pub danger: Danger,
    /// Why it can't run in a transaction, where it can't.
    pub outside_transaction: Option<String>,
    /// What it locks.
    pub locks: Vec<LockOutlook>,
}

/// What may be destroyed.
#[derive(Clone, Debug, Serialize)]
pub struct Danger {
    /// Whether something may be.
    pub kind: DangerKind,
    /// What, or why it can't be told.
    pub reason: Option<String>,
}

/// Kinds of danger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DangerKind {
    /// None that a gate must guard.
    None,
    /// Data or objects go.
    Destructive,
    /// It can't be told.
    Unknown,
    /// It can't be told, and somebody has reviewed it.
    Reviewed,
}

/// A lock and what happens under it.
#[derive(Clone, Debug, Serialize)]
pub struct LockOutlook {
    /// The table, or `whole database`.
    pub object: String,
    /// The lock's name in the database.
    pub mode: String,
    /// Who waits for it.
    pub waiting: String,
    /// What is done with the rows: `none`, `scan`, `index_build`, `rewrite`, `chunk`, `unknown`.
    pub rewrite: &'static str,
    /// The same in words.
    pub work: String,
    /// Why.
    pub reason: String,
}

/// How a step is undone.
#[derive(Clone, Debug, Serialize)]
pub struct UndoOutlook {
    /// Which way.
    pub kind: UndoKind,
    /// In words.
    pub says: String,
    /// The statements that do it.
    pub statements: Vec<StatementOutlook>,
}

/// Ways of undoing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoKind {
    /// There is nothing to undo.
    Nothing,
    /// By statements of the plan.
    Statements,
    /// By the engine.
    Derived,
    /// Not at all.
    Impossible,
}

/// What a gate asks.
#[derive(Clone, Debug, Serialize)]
pub struct GateOutlook {
    /// The steps that it lets go.
    pub releases: Vec<String>,
    /// Its conditions.
    pub conditions: Vec<ConditionOutlook>,
    /// How long an approval counts, in words; none where nobody is asked.
    pub approvals_expire_after: Option<String>,
}

/// One condition of a gate.
#[derive(Clone, Debug, Serialize)]
pub struct ConditionOutlook {
    /// Its name.
    pub condition: String,
    /// What is needed.
    pub needed: String,
    /// Whether policy asks for it and the plan doesn't.
    pub from_policy: bool,
}

/// A database of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct TargetOutlook {
    /// Its name in the plan.
    pub name: String,
    /// The product.
    pub engine: String,
    /// How it is reached, with references in the place of secrets.
    pub url: String,
    /// What was seen there.
    pub look: Option<Look>,
    /// Why nothing was seen.
    pub error: Option<TargetError>,
}

/// Why a database could not be looked at.
#[derive(Clone, Debug, Serialize)]
pub struct TargetError {
    /// What went wrong.
    pub message: String,
    /// Why.
    pub causes: Vec<String>,
    /// What to do.
    pub help: Vec<String>,
}

/// What was seen in a database.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    /// The product with its version.
    pub server: String,
    /// Who it is: system, database and role in one text.
    pub identity: String,
    /// How long looking took, in milliseconds.
    pub took_ms: u64,
    /// Its tables, for people.
    #[serde(skip)]
    pub tables: Vec<TableRow>,
    /// All else, for people.
    #[serde(skip)]
    pub lines: Vec<Line>,
    /// Everything, for programs.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

/// A table, as people read it.
#[derive(Clone, Debug)]
pub struct TableRow {
    /// Its name.
    pub table: String,
    /// How many rows, and where the number comes from.
    pub rows: String,
    /// How large its rows are.
    pub size: String,
    /// How large its indexes are.
    pub indexes: String,
    /// Who owns it.
    pub owner: String,
}

/// A sentence under a heading.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is about.
    pub topic: String,
    /// The sentence.
    pub text: String,
}

impl DryRun {
    /// How many findings of a severity there are.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|one| one.diagnostic.severity == severity).count()
    }

    /// The findings of a step.
    fn of_step<'a>(&'a self, step: &'a str) -> impl Iterator<Item = &'a Noted> {
        self.findings.iter().filter(move |one| one.step.as_deref() == Some(step))
    }

    /// The plan in one sentence.
    #[must_use]
    pub fn headline(&self) -> String {
        let Some(plan) = &self.plan else { return format!("{} is no valid plan", self.file) };
        let gates = self.steps.iter().filter(|step| step.gate.is_some()).count() as u64;
        let point = match &self.point_of_no_return {
            Some(step) => format!("point of no return: {step}"),
            None => "every step can be undone".to_owned(),
        };
        format!(
            "plan {plan}: {} in {}, {}; {point}",
            words::plural(self.steps.len() as u64, "step"),
            words::plural(self.waves.len() as u64, "wave"),
            words::plural(gates, "gate"),
        )
    }

    /// What came of it in one sentence.
    #[must_use]
    pub fn verdict(&self) -> String {
        let unseen: Vec<&str> = self
            .targets
            .iter()
            .filter(|target| target.error.is_some())
            .map(|target| target.name.as_str())
            .collect();
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let mut parts = Vec::new();
        if !unseen.is_empty() {
            parts.push(format!("could not be looked at: {}", unseen.join(", ")));
        }
        if errors > 0 {
            parts.push(words::plural(errors as u64, "error"));
        }
        if warnings > 0 {
            parts.push(words::plural(warnings as u64, "warning"));
        }
        if parts.is_empty() {
            return "nothing stands in the plan's way".to_owned();
        }
        parts.join(", ")
    }

    /// The fields of the JSON document.
    #[must_use]
    pub fn document(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    }

    /// As text for people.
    #[must_use]
    pub fn human(&self, colour: super::Colour) -> String {
        human::render(self, colour)
    }

    /// As JUnit XML: a test case for each step and each database, findings as failures.
    #[must_use]
    pub fn junit(&self) -> String {
        junit::render(self)
    }

    /// As Markdown for a pull request.
    #[must_use]
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }

    /// As workflow commands, which GitHub shows beside the lines of the plan.
    #[must_use]
    pub fn github(&self) -> String {
        github::render(self)
    }
}

impl Danger {
    /// As a word and a reason; nothing where there is none.
    #[must_use]
    pub fn says(&self) -> Option<String> {
        let word = match self.kind {
            DangerKind::None => return None,
            DangerKind::Destructive => "destructive",
            DangerKind::Unknown => "unknown",
            DangerKind::Reviewed => "unknown, and reviewed",
        };
        Some(self.reason.as_ref().map_or_else(|| word.to_owned(), |why| format!("{word}: {why}")))
    }
}

impl StepOutlook {
    /// Everything that it or its statements lock.
    fn all_locks(&self) -> impl Iterator<Item = &LockOutlook> {
        self.locks.iter().chain(self.statements.iter().flat_map(|statement| &statement.locks))
    }

    /// Where it works, in words: `sql on app`.
    fn place(&self) -> String {
        match &self.target {
            Some(target) => format!("{} on {target}", self.action),
            None => self.action.to_owned(),
        }
    }
}

//! What a plan wants to find in a database before its first change, and what stands in its way.

use super::TableUse;
use crate::run::{
    Direction, Mapping, MappingName, Private, Redact, RetireShape, Script, StepId, hide,
};

/// What a plan wants to find in a database before its first change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Tables that must be there, each with the columns that must be there and how they're used.
    pub mappings: Vec<SurveyedMapping>,
    /// Tables and columns that steps before create, so that they count as present.
    pub created: Vec<CreatedObject>,
    /// Queries that must prepare (their names resolve), unless they name created objects.
    pub queries: Vec<(StepId, String)>,
    /// What steps do with tables, in the order of steps. A table that the plan creates is among [`created`](Self::created)
    /// and may be here as well: it is looked at where it is there, and asks for no right where it isn't.
    pub uses: Vec<TableUse>,
    /// The statements of `sql` steps, in the order of steps: tables and columns that they name must be there.
    pub scripts: Vec<(StepId, Script)>,
    /// Names that `retire` gives. They come after everything that a mapping needs.
    pub renamed: Vec<CreatedObject>,
    /// What `retire` puts aside of a mapping, and what takes its place: that must have what it needs by then.
    pub retired: Vec<(MappingName, RetireShape)>,
}

/// A mapping to look at before the first change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedMapping {
    /// The step that uses it first.
    pub step: StepId,
    /// The mapping.
    pub mapping: Mapping,
    /// Which way it is kept in step.
    pub direction: Option<Direction>,
}

/// Something that an earlier step of the plan creates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CreatedObject {
    /// The table.
    pub table: String,
    /// The column, where only that is created.
    pub column: Option<String>,
}

/// How much a finding is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The plan can't work like this, or would change data without a word: nothing is begun.
    Error,
    /// It works as long as the data allow; where they don't, it fails by name and nothing is lost.
    Warning,
}

/// Something that stands in the plan's way, found by looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much.
    pub severity: Severity,
    /// The step it belongs to.
    pub step: StepId,
    /// The code of the finding, as `explain` knows it.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do; a suggestion where a name was likely mistyped.
    pub help: Option<String>,
    /// What of these sentences is the plan's data.
    pub private: Vec<Private>,
}

impl Finding {
    /// Takes away what of its sentences is to be hidden.
    pub fn redact(&mut self, redact: Redact) {
        let sentences = [Some(&mut self.message), self.help.as_mut()];
        hide(&mut self.private, redact, sentences.into_iter().flatten());
    }
}

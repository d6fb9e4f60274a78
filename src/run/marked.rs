//! What the ledger in a target has of a step of which nobody can tell whether it was done, for people who are to say it.

use serde::{Deserialize, Serialize};

use super::record::Way;

/// How much of a step a target's ledger has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traced {
    /// Nothing: it was never begun, or what was begun is undone with its transaction.
    Nothing,
    /// Of a step that doesn't run in one transaction, what was begun and not seen to end, and nothing else.
    InDoubt,
    /// Parts of it, of a step that doesn't run in one transaction: some are done, or have failed in the middle.
    Parts,
    /// All of it.
    Whole,
}

impl Traced {
    /// How much two ledgers have of a step that is entered in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one,
            (Self::Nothing | Self::InDoubt, Self::Nothing | Self::InDoubt) => Self::InDoubt,
            _ => Self::Parts,
        }
    }
}

/// What a target's ledger has of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InLedger {
    /// Whether it has the step itself, in the way that is in doubt.
    pub is_applied: bool,
    /// What it has of parts of the step, in their order.
    pub marks: Vec<Marked>,
}

/// What a ledger has of a part of a step that can't be in one transaction, and what else can be seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Done or undone.
    pub way: Way,
    /// What it is, in a word or two: `statement 2`.
    pub part: String,
    /// The lines of the plan or the file that its statements begin in, counted from 1; none where they are not known.
    pub lines: Vec<u32>,
    /// How it stands, in words: `begun, and not seen to end`.
    pub stands: String,
    /// Whether that is so: it was begun, and nobody knows whether it ended.
    pub is_open: bool,
    /// Whether something of it is committed for certain: it is done, or an attempt at it failed and left something.
    pub has_left: bool,
    /// When it was marked so, by the database's clock.
    pub at: String,
    /// What else there is to see: its session, and the catalogue where that can tell something. One sentence each.
    pub seen: Vec<String>,
}

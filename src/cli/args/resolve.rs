//! `resolve`: which step, and what came of it.

use clap::{Args, ValueEnum};

use super::RunArg;

/// `resolve`.
#[derive(Clone, Debug, Args)]
pub struct Resolve {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// The ambiguous step
    #[arg(value_name = "STEP")]
    pub step: String,
    /// What came of it: applied or not-applied; of its undo, where the run goes back
    #[arg(
        long,
        value_enum,
        value_name = "OUTCOME",
        requires = "reason",
        hide_possible_values = true
    )]
    pub outcome: Option<Outcome>,
    /// The attempt that was looked at: the answer is refused where another one is in doubt by now
    #[arg(long, value_name = "N", requires = "outcome")]
    pub attempt: Option<u32>,
    /// How that is known; needed with --outcome, and kept in the history
    #[arg(long, value_name = "TEXT", requires = "outcome")]
    pub reason: Option<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Outcome {
    /// It was done.
    Applied,
    /// It was not.
    NotApplied,
}

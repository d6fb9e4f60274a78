//! What is typed behind `state`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::PlanArg;

/// `state`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_subcommand = true, subcommand_required = true)]
pub struct State {
    /// What to do with it.
    #[command(subcommand)]
    pub command: StateCommand,
}

/// What there is to do with a state store.
#[derive(Clone, Debug, Subcommand)]
pub enum StateCommand {
    /// Reads the whole state store, and says of each run whether its journal holds; changes nothing
    ///
    /// A store or a run that is damaged, or of a newer version, ends it with 65.
    Check,
    /// Writes runs as JSON lines, for another state store to import; changes nothing
    ///
    /// Whatever is written was checked before. A run that is driven meanwhile can be exported, but not be imported.
    Export(Export),
    /// Takes over runs from another state store's export
    ///
    /// Everything in the file is checked before anything is written. A run that is here already is left as it is, or gets the
    /// records that it lacks; one with another journal, or a longer one, is refused with 6.
    Import(Import),
    /// Goes on with a plan's run whose state store is lost, from what its targets have of it
    ///
    /// What their ledgers have was done, and so was all that it needed. Approvals are void and comparisons are made again; pauses,
    /// tunings and answers to `resolve` are gone. Whoever drove the run is shut out.
    Adopt(Adopt),
}

/// `state export`.
#[derive(Clone, Debug, Args)]
pub struct Export {
    /// The runs: an id, a unique beginning of one, or a plan's name; all of them unless given
    #[arg(value_name = "RUN")]
    pub runs: Vec<String>,
    /// Writes to this file instead of stdout, as a whole or not at all
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replaces the file if it is there
    #[arg(long, requires = "out")]
    pub force: bool,
}

/// `state adopt`.
#[derive(Clone, Debug, Args)]
pub struct Adopt {
    /// The plan, as it was when the state store was lost.
    #[command(flatten)]
    pub plan: PlanArg,
    /// The run, where the targets have several open ones of this plan
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Doesn't ask; required where nobody can be asked
    #[arg(long)]
    pub yes: bool,
}

/// `state import`.
#[derive(Clone, Debug, Args)]
pub struct Import {
    /// The export; - reads it from stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

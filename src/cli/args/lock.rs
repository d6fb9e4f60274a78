//! What is typed behind `lock`.

use clap::{Args, Subcommand};

use super::RunArg;

/// `lock`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_subcommand = true, subcommand_required = true)]
pub struct Lock {
    /// What to do with locks.
    #[command(subcommand)]
    pub command: LockCommand,
}

/// What there is to do with locks.
#[derive(Clone, Debug, Subcommand)]
pub enum LockCommand {
    /// Shows who drives which run, and who carries changes for it; changes nothing
    List(List),
    /// Takes a run away from whoever drives it, though they seem to be alive
    ///
    /// A process that is gone needs no help: its lock is free at once where that can be seen, and 15 seconds after its last
    /// heartbeat otherwise. This is for one that hangs and is still there. Its next commit in the state store is refused, it
    /// says so and ends with 5; what it has under way in a database ends there as ever, and is shut out when the run is
    /// driven again. Who took the lock, from whom and why stands in the history.
    Release(Release),
}

/// `lock list`.
#[derive(Clone, Debug, Args)]
pub struct List {
    /// The run: its id, a unique beginning of it, or its plan's name; all runs of the store unless given
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
}

/// `lock release`.
#[derive(Clone, Debug, Args)]
pub struct Release {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// The locks of its relays, too
    #[arg(long)]
    pub relays: bool,
    /// Needed: whoever holds the lock may be at work
    #[arg(long)]
    pub force: bool,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

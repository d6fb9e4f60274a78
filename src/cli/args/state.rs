//! What is typed behind `state`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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

/// `state import`.
#[derive(Clone, Debug, Args)]
pub struct Import {
    /// The export; - reads it from stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

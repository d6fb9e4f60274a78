//! What was typed. What it means is in `settings`.
//!
//! The text here is the help that people read, and `docs/commands.md` repeats it word for word (a test compares both).

// What stands here is read in a terminal, where backticks would be noise.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::run::Redact;

mod dry_run;
mod lock;
mod resolve;
mod state;
mod tune;

pub use dry_run::{Depth, DryRun, FailOn, ReportFile, ReportKind};
pub use lock::{Lock, LockCommand, Release};
pub use resolve::{Outcome, Resolve};
pub use state::{Adopt, Export, Import, State, StateCommand};
pub use tune::{ChunkRows, Tune};

/// Expand-contract database migrations as resumable, gated plans.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "phasegate",
    version,
    term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_required = true
)]
pub struct Typed {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The environment of the project file; required where it defines any
    #[arg(long = "env", global = true, value_name = "NAME")]
    pub environment: Option<String>,
    /// The project file; found upwards from the plan unless given
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The state store: a path, or the URL of a PostgreSQL database
    #[arg(
        long,
        global = true,
        value_name = "URL|PATH",
        env = "PHASEGATE_STATE",
        hide_env_values = true
    )]
    pub state: Option<String>,
    /// Who acts; the operating system's user unless given
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub actor: Option<String>,
    /// How results are written: human or json; graph also knows text, mermaid and dot, dry-run junit, markdown and github
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "human",
        hide_possible_values = true
    )]
    pub format: Format,
    /// Neither records nor shows the values of rows, in differences and errors; with --redact=keys nor their keys
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "values",
        hide_possible_values = true
    )]
    pub redact: Option<Hidden>,
    /// Logs more to stderr: -v, -vv, -vvv
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// How logs are written: text or json
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        hide_possible_values = true
    )]
    pub log_format: LogFormat,
    /// Never writes colours; NO_COLOR does the same
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// What of differing rows is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hidden {
    /// Their values.
    Values,
    /// Their keys as well.
    Keys,
}

impl Global {
    /// What of differing rows is hidden.
    #[must_use]
    pub const fn redact(&self) -> Redact {
        match self.redact {
            None => Redact::Nothing,
            Some(Hidden::Values) => Redact::Values,
            Some(Hidden::Keys) => Redact::Keys,
        }
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    Human,
    /// One JSON document.
    Json,
    /// A graph as an indented list.
    Text,
    /// A graph as a Mermaid flow chart.
    Mermaid,
    /// A graph for Graphviz.
    Dot,
    /// A dry run as JUnit XML.
    Junit,
    /// A dry run as Markdown.
    Markdown,
    /// A dry run as GitHub's workflow commands.
    Github,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for people.
    Text,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Checks a plan and shows every finding at once
    Validate(PlanArg),
    /// Shows a plan's steps and what they need
    Graph(Graph),
    /// Shows what a plan would do, and what its databases say to it; changes nothing
    ///
    /// With --depth render it reads the plan and its files only: no database, no state store and no secret is needed. With
    /// --depth probe it reads the databases too, on connections that they hold read-only. Findings end it with 3.
    DryRun(DryRun),
    /// Starts the run of a plan, or goes on with it
    ///
    /// Goes to the next shut gate, to the point asked for, or to the end. An unfinished run of the same plan and
    /// environment goes on; when the plan's meaning has changed since, the answer is 6 and the difference.
    Run(Run),
    /// Goes on to the end of the first phase that has an unfinished step
    Advance(Advance),
    /// Stops a run before its next chunk or step
    Pause(Pause),
    /// Goes on with a paused run
    Resume(GoOn),
    /// Tries failed steps again, a verify that found differences too, and then goes on
    Retry(GoOn),
    /// Gives a run up
    ///
    /// While nothing has changed, the run ends and its objects are removed. Later it is refused in favour of `rollback`,
    /// or, with --leave, removes sync and bookkeeping and lists what stays.
    Abort(Abort),
    /// Undoes a run's steps in reverse order
    Rollback(Rollback),
    /// Puts a corrected plan in the place of a run's, for steps that haven't started
    Amend(Amend),
    /// Changes the settings of a backfill that runs or will run
    Tune(Tune),
    /// Shows what is known of an ambiguous step, or says what came of it
    ///
    /// A step is ambiguous (9) when the connection was lost, or the process ended, while a statement ran that no transaction
    /// holds, and neither ledger nor catalogue tells whether it was done. Without --outcome this shows what there is to go
    /// by, and changes nothing. With it the answer is recorded, and the run goes on from there when it is driven again: a
    /// statement that was applied counts as done, and the rest of its step's script still runs; one that was not is run
    /// again from its beginning. Whatever else the step waits for, gates too, is judged as ever.
    Resolve(Resolve),
    /// Carries changes to other databases, while nobody drives the run
    ///
    /// Every command that drives a run does that itself. This one does nothing else, until the run is over or it is told to
    /// stop. While neither is at work, changes wait in the outbox.
    Relay(RunArg),
    /// Shows each gate's conditions: what is needed, what there is, and the command that helps
    Gates(Gates),
    /// Approves what a gate releases
    Approve(Approve),
    /// Keeps a gate shut until the same person revokes it
    Reject(Reject),
    /// Takes back one's own approval or rejection
    Revoke(GateArg),
    /// Shows where a run stands and what to do next
    Status(Status),
    /// Shows who did what, and when
    History(History),
    /// Writes a run's records as newline-delimited JSON
    Events(Events),
    /// Shows who drives which run, and takes a run away from whoever does
    Lock(Lock),
    /// Checks the state store, and carries runs from one store to another
    State(State),
    /// Prints the JSON Schema of plans or of the project file
    Schema(Schema),
    /// Explains a finding's code; lists all codes when none is given
    Explain(Explain),
    /// Prints the version
    Version,
}

/// A command on a plan's file.
#[derive(Clone, Debug, Args)]
pub struct PlanArg {
    /// The plan's file
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
}

/// A command on a run.
#[derive(Clone, Debug, Args)]
pub struct RunArg {
    /// The run: its id, a unique beginning of it, or its plan's name
    #[arg(value_name = "RUN")]
    pub run: String,
}

/// A command on a gate of a run.
#[derive(Clone, Debug, Args)]
pub struct GateArg {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// The gate's id
    #[arg(value_name = "GATE")]
    pub gate: String,
}

/// `gates`.
#[derive(Clone, Debug, Args)]
pub struct Gates {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// Only this gate
    #[arg(value_name = "GATE")]
    pub gate: Option<String>,
    /// Shows exactly what will run: statements with their lines, what is at stake, the way back, evidence, decisions, digest
    #[arg(long)]
    pub show: bool,
}

/// `graph`.
#[derive(Clone, Debug, Args)]
pub struct Graph {
    /// The plan.
    #[command(flatten)]
    pub plan: PlanArg,
    /// Shows where each step stands in this run, too
    #[arg(long, value_name = "RUN")]
    pub status: Option<String>,
}

/// How far to go, and how long to wait at gates.
#[derive(Clone, Debug, Args)]
pub struct Drive {
    /// Waits this long at shut gates, instead of ending with 4 at once
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub wait: Option<Duration>,
    /// Answers 2 instead of 0 when the point asked for is reached and work is left
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The plan.
    #[command(flatten)]
    pub plan: PlanArg,
    /// Goes as far as this phase or step and everything it needs
    #[arg(long, value_name = "PHASE|STEP")]
    pub to: Option<String>,
    /// Starts another run of a plan whose last run is over
    #[arg(long)]
    pub new: bool,
    /// How it goes.
    #[command(flatten)]
    pub drive: Drive,
}

/// `advance`.
#[derive(Clone, Debug, Args)]
pub struct Advance {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// How it goes.
    #[command(flatten)]
    pub drive: Drive,
}

/// `resume` and `retry`.
#[derive(Clone, Debug, Args)]
pub struct GoOn {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// Goes as far as this phase or step and everything it needs
    #[arg(long, value_name = "PHASE|STEP")]
    pub to: Option<String>,
    /// How it goes.
    #[command(flatten)]
    pub drive: Drive,
}

/// `pause`.
#[derive(Clone, Debug, Args)]
pub struct Pause {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `abort`.
#[derive(Clone, Debug, Args)]
pub struct Abort {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// Leaves what was changed where it is; only the sync and the bookkeeping go
    #[arg(long, requires = "reason")]
    pub leave: bool,
    /// Why; needed with --leave
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `rollback`.
#[derive(Clone, Debug, Args)]
pub struct Rollback {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// Doesn't ask; required where nobody can be asked
    #[arg(long)]
    pub yes: bool,
    /// Accepts that writes which reached only the new side of this mapping are lost
    #[arg(long, value_name = "MAPPING", num_args = 1..)]
    pub accept_loss: Vec<String>,
}

/// `amend`.
#[derive(Clone, Debug, Args)]
pub struct Amend {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// The corrected plan's file
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// Doesn't ask; required where nobody can be asked
    #[arg(long)]
    pub yes: bool,
}

/// `approve`.
#[derive(Clone, Debug, Args)]
pub struct Approve {
    /// The gate.
    #[command(flatten)]
    pub gate: GateArg,
    /// The digest that gates --show showed: refused when the work has changed since; asked for on a terminal unless given
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// The group to approve for; may be left out where it is plain
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// What to say
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
}

/// `reject`.
#[derive(Clone, Debug, Args)]
pub struct Reject {
    /// The gate.
    #[command(flatten)]
    pub gate: GateArg,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `status`.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// The run: its id, a unique beginning of it, or its plan's name; the newest unfinished one unless given
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Shows it again every second until the run stops
    #[arg(long)]
    pub watch: bool,
    /// Lists the rows that are parked, with what is wrong with each, as the databases have them now
    #[arg(long, conflicts_with = "watch")]
    pub parked: bool,
}

/// `history`.
#[derive(Clone, Debug, Args)]
pub struct History {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// Checks the journal's chain against the heads that the targets keep
    #[arg(long)]
    pub verify: bool,
}

/// `events`.
#[derive(Clone, Debug, Args)]
pub struct Events {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// Goes on with new records until the run is over
    #[arg(long)]
    pub follow: bool,
}

/// `schema`.
#[derive(Clone, Debug, Args)]
pub struct Schema {
    /// Of what
    #[arg(value_enum, value_name = "DOCUMENT")]
    pub document: Document,
}

/// The documents that have a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// The plan.
    Plan,
    /// The project file.
    Project,
}

/// `explain`.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// The code, as findings show it
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
}

impl Command {
    /// The command's name, as typed.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Validate(_) => "validate",
            Self::Graph(_) => "graph",
            Self::DryRun(_) => "dry-run",
            Self::Run(_) => "run",
            Self::Advance(_) => "advance",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Retry(_) => "retry",
            Self::Abort(_) => "abort",
            Self::Rollback(_) => "rollback",
            Self::Amend(_) => "amend",
            Self::Tune(_) => "tune",
            Self::Gates(_) => "gates",
            Self::Approve(_) => "approve",
            Self::Reject(_) => "reject",
            Self::Relay(_) => "relay",
            Self::Resolve(_) => "resolve",
            Self::Revoke(_) => "revoke",
            Self::Status(_) => "status",
            Self::History(_) => "history",
            Self::Events(_) => "events",
            Self::Lock(lock) => match lock.command {
                LockCommand::List(_) => "lock list",
                LockCommand::Release(_) => "lock release",
            },
            Self::State(state) => match state.command {
                StateCommand::Check => "state check",
                StateCommand::Export(_) => "state export",
                StateCommand::Import(_) => "state import",
                StateCommand::Adopt(_) => "state adopt",
            },
            Self::Schema(_) => "schema",
            Self::Explain(_) => "explain",
            Self::Version => "version",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Typed::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            ["phasegate", "--env", "staging", "version"],
            ["phasegate", "version", "--env", "staging"],
        ] {
            let typed = Typed::try_parse_from(line).unwrap();
            assert_eq!(typed.global.environment.as_deref(), Some("staging"));
        }
    }

    #[test]
    fn a_tune_without_a_setting_is_refused() {
        assert!(Typed::try_parse_from(["phasegate", "tune", "leads"]).is_err());
        let parse = |name, value| {
            Typed::try_parse_from(["phasegate", "tune", "leads", "copy", name, value]).is_ok()
        };
        for (name, value, is_one) in [
            ("--chunk-rows", "auto", true),
            ("--chunk-rows", "500", true),
            ("--chunk-rows", "0", false),
            ("--pause-between", "100ms", true),
            ("--pause", "100ms", true),
            ("--workers", "4", true),
            ("--workers", "0", false),
            ("--chunk-time", "50ms", true),
            ("--chunk-time", "50", false),
            ("--limit", "lag=10s", true),
            ("--limit", "blocked=3", true),
            ("--limit", "lag=off", true),
            ("--limit", "lag=plan", true),
            ("--limit", "lag", false),
            ("--limit", "lag=soon", false),
        ] {
            assert_eq!(parse(name, value), is_one, "{name} {value}");
        }
    }

    #[test]
    fn leaving_changes_behind_needs_a_reason() {
        assert!(Typed::try_parse_from(["phasegate", "abort", "leads", "--leave"]).is_err());
    }
}

//! The loop that carries a run: inputs to decisions, decisions to the journal, the journal to effects.
//!
//! Absent on purpose: printing, reading plans, and any knowledge of a particular database or store.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::driver::{self, Finding, SharedDriver};
use crate::run::{
    Actor, ApplyError, Goal, Program, Redact, Refusal, RunId, State, Stop, TargetName,
};
use crate::store::{self, Claimant, Lease, SharedStore};

mod adopt;
mod confirm;
mod doubt;
mod drive;
pub mod event;
mod finish;
mod journal;
mod lease;
mod locks;
mod parked;
mod patience;
mod probe;
pub mod process;
mod relay;
mod stakes;
mod start;
mod step;
mod throttle;
mod window;

pub use adopt::{Remnants, begin_anew, remnants};
pub use confirm::{driven_elsewhere, is_here, is_ours};
pub use doubt::doubt;
pub use drive::drive;
pub use locks::{locks, seize};
pub use parked::parked;
pub use patience::patiently;
pub use probe::{behind, capture_broken, live_syncs};
pub use relay::{Relays, captured};
pub use stakes::{Stake, stakes};
pub use start::{Started, ask, inspect, load, may_ask, start, survey};

use event::Observer;

/// What every operation of the engine works with.
#[derive(Clone)]
pub struct Context {
    /// Where the journal is.
    pub store: SharedStore,
    /// The plan's databases, by logical name; all of those of the program.
    pub drivers: BTreeMap<TargetName, SharedDriver>,
    /// Who acts.
    pub actor: Actor,
    /// This process, as lease holder.
    pub claimant: Claimant,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// What the operating system asked of the process.
    pub signal: watch::Receiver<Signal>,
    /// What of differences is not to be recorded, beyond what policy keeps out.
    pub redact: Redact,
    /// Why the policy that a program holds to is not the one of today, if so. Asked before every gate opens and every guarded
    /// step starts, so that a process that waits for days doesn't act on a policy that was changed meanwhile.
    pub other_policy: OtherPolicy,
}

/// Holds a program's policy against the one of today.
pub type OtherPolicy = Arc<dyn Fn(&Program) -> Option<String> + Send + Sync>;

/// What the operating system asked of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signal {
    /// Nothing.
    #[default]
    None,
    /// Ctrl-C: finish the chunk, checkpoint, end.
    Interrupt,
    /// SIGTERM: the same.
    Terminate,
    /// A second one: cancel on the server, end.
    Now(Urgent),
}

/// Which signal came second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgent {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// Whether the operating system has asked this process to end.
fn is_signalled(ctx: &Context) -> bool {
    *ctx.signal.borrow() != Signal::None
}

/// How far to drive, and how long to wait at gates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How far.
    pub goal: Goal,
    /// How long to wait at shut gates, in milliseconds; 0: not at all.
    pub wait_ms: u64,
}

/// Why driving ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Driven {
    /// The run has a reason to stop.
    Stopped(Stop),
    /// A signal came; everything done is recorded.
    Interrupted(Signal),
}

/// What can go wrong around a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A target, before or beside the steps.
    #[error("target {target}: {source}")]
    Target {
        /// Which.
        target: TargetName,
        /// What.
        source: driver::Error,
    },
    /// Looking at the targets found things in the plan's way. Nothing was changed.
    #[error("the targets are not as the plan needs them")]
    Findings(Vec<(TargetName, Finding)>),
    /// An operator's wish can't be met.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The journal makes no sense.
    #[error("the journal of run {run} is damaged: {source}")]
    Journal {
        /// Whose.
        run: RunId,
        /// How.
        source: ApplyError,
    },
    /// A task of the engine's own ended by a fault in this program.
    #[error("a task of the engine ended early: {0}")]
    Crashed(String),
    /// A target is locked, and whoever drove the run there last has not ended.
    #[error(
        "target {target} is locked, and pid {pid} on {host}, which drove the run there last, has not ended"
    )]
    Hangs {
        /// Which.
        target: TargetName,
        /// Its machine, which is this one.
        host: String,
        /// Its process.
        pid: u32,
    },
    /// The lease was lost to another runner, in words.
    #[error("another runner took over: {0}")]
    TakenOver(String),
}

/// A run as its journal has it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its state.
    pub state: State,
    /// The hash of the chain up to its last record.
    pub head: driver::Head,
    /// Who drives it now, or did last.
    pub lease: Option<Lease>,
}

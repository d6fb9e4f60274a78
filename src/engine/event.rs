//! What an engine tells those who watch.

use crate::run::{GateReport, State, StepId, TargetName, Throttled};
use crate::store::Entry;

/// Something worth showing.
#[derive(Clone, Debug)]
pub enum Event {
    /// A record is durable and applied.
    Recorded(Box<Entry>),
    /// Rows of a step are done. Comes at most ten times a second for each step.
    Progress(Progress),
    /// A gate is shut.
    Waiting(Box<GateReport>),
    /// An earlier runner's lease was taken over.
    TookOver {
        /// The earlier runner, in words.
        from: String,
    },
    /// Something people should read that is no record.
    Note {
        /// The step it belongs to.
        step: Option<StepId>,
        /// The database it belongs to.
        target: Option<TargetName>,
        /// One sentence.
        text: String,
    },
}

/// How far a step has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The step.
    pub step: StepId,
    /// Rows done, from the ledger: never falls, also not over restarts.
    pub rows_done: u64,
    /// Rows to do, about.
    pub rows_total: Option<u64>,
    /// Rows in the chunk just done, to show what the size settled on.
    pub chunk_rows: u32,
    /// What holds it back now; empty while nothing does.
    pub throttled: Vec<Throttled>,
}

/// Somebody who watches a run. Called from the engine's own loop: must be quick, and must not fail.
pub trait Observer: Send + Sync {
    /// Something happened; `state` is the state after it.
    fn observe(&self, event: &Event, state: &State);
}

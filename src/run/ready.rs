//! What is to be performed now, and whether there is a reason to stop.

use std::collections::BTreeSet;

use super::gate::GateReport;
use super::name::StepId;
use super::permit::Permit;
use super::record::{Ending, Evidence, Failure, Way};
use super::state::State;
use super::time::Timestamp;

/// Something the engine must do next.
#[derive(Debug)]
pub enum Effect {
    /// Perform an attempt that the journal says has started.
    Perform {
        /// The step.
        step: StepId,
        /// The attempt.
        attempt: u32,
        /// Done or undone.
        way: Way,
        /// For what may destroy.
        permit: Option<Permit>,
    },
    /// Read from the targets what a gate's conditions ask.
    ProbeGate {
        /// The gate.
        gate: StepId,
    },
    /// Read again what the releasing gates of a destructive step ask, since it could start now.
    Recheck {
        /// The destructive step.
        step: StepId,
        /// Its gates.
        gates: Vec<StepId>,
    },
    /// Wait until then and look again.
    WakeAt(Timestamp),
    /// Remove our objects from the targets; then the run is over.
    Finish {
        /// How it ends.
        ending: Ending,
    },
}

/// How far to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// To the end.
    End,
    /// Until these have succeeded; nothing else is started.
    Through(BTreeSet<StepId>),
}

/// Why nothing more is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// The run is over.
    Ended(Ending),
    /// The steps asked for have succeeded.
    ReachedGoal,
    /// Gates are shut.
    AtGate(Vec<GateReport>),
    /// A step failed and waits for an operator.
    StepFailed {
        /// The step.
        step: StepId,
        /// Done or undone.
        way: Way,
        /// What went wrong.
        failure: Failure,
    },
    /// A verify found differences.
    Differs {
        /// The verify step.
        step: StepId,
        /// What it found.
        evidence: Evidence,
    },
    /// Nobody can tell whether a step was done.
    Ambiguous {
        /// The step.
        step: StepId,
        /// What is known.
        detail: String,
    },
    /// It is paused.
    Paused {
        /// Why.
        reason: Option<String>,
    },
}

/// What is to be performed now.
#[must_use]
pub fn ready(_state: &State, _goal: &Goal, _now: Timestamp) -> Vec<Effect> {
    Vec::new()
}

/// Whether there is a reason to stop, and which. `shut` are the reports of gates that were just probed and are shut.
#[must_use]
pub fn stop(_state: &State, _goal: &Goal, _shut: &[GateReport]) -> Option<Stop> {
    None
}

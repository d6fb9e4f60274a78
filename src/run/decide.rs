//! From what happened to what is recorded.

use super::command::{Command, Refusal};
use super::gate::Observations;
use super::name::StepId;
use super::ready::Goal;
use super::record::{Actor, Event, Evidence, Failure, Outcome, Way};
use super::state::State;
use super::time::Timestamp;

/// Something that happened outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed, or the state changed: see what may start.
    Tick,
    /// An attempt ended.
    Ended {
        /// The step.
        step: StepId,
        /// The attempt.
        attempt: u32,
        /// Done or undone.
        way: Way,
        /// How.
        result: Observation,
        /// A random number from 0 to 1, to spread retries.
        jitter: f64,
    },
    /// A gate's conditions were read.
    Probed {
        /// The gate.
        gate: StepId,
        /// What was read.
        seen: Observations,
    },
    /// The conditions of the gates before a destructive step were read.
    Rechecked {
        /// The step.
        step: StepId,
        /// What was read, by gate.
        seen: Vec<(StepId, Observations)>,
    },
    /// An operator asks for something.
    Asked(Command),
    /// Our objects are gone from the targets.
    Finished,
}

/// How an attempt ended, as the engine saw it.
#[derive(Clone, Debug)]
pub enum Observation {
    /// Well.
    Done(Outcome),
    /// A comparison found differences.
    Differs(Evidence),
    /// It failed, and nothing of it is committed that the ledger doesn't know.
    Failed(Failure),
    /// Neither ledger nor catalogue can tell.
    Ambiguous(String),
    /// It was stopped before its end on purpose (pause, signal, lease lost): nothing is recorded, it goes on later.
    Interrupted,
}

/// What is to be recorded.
pub type Decided = Result<Vec<Event>, Refusal>;

/// From what happened to what is recorded.
pub fn decide(
    _state: &State,
    _input: &Input,
    _goal: &Goal,
    _by: &Actor,
    _now: Timestamp,
) -> Decided {
    Ok(Vec::new())
}

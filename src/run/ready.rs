//! What is to be performed now, and whether there is a reason to stop.

use std::collections::BTreeSet;

use super::decide::ending;
use super::gate::{GateReport, gate_of, is_guarded};
use super::name::StepId;
use super::permit::Permit;
use super::program::Step;
use super::record::{Ending, Evidence, Failure, Way};
use super::schedule;
use super::state::{Progress, Standing, State};
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

impl Goal {
    /// Whether a step belongs to what was asked for.
    #[must_use]
    pub fn includes(&self, step: &StepId) -> bool {
        match self {
            Self::End => true,
            Self::Through(steps) => steps.contains(step),
        }
    }
}

/// Whether an attempt at a step could begin at `now`: it waits, and everything it needs has succeeded.
pub(super) fn startable(state: &State, step: &Step, now: Timestamp) -> bool {
    let waits = match &state.step(&step.id).progress {
        Progress::Pending => true,
        Progress::Retrying { way: Way::Forward, at, .. } => *at <= now,
        _ => false,
    };
    waits
        && *state.standing() == Standing::Forward
        && step.needs.iter().all(|need| state.step(need).progress == Progress::Succeeded)
}

/// What is to be performed now. Attempts that the journal says have begun are among it, whether this process began them or
/// one that died.
#[must_use]
pub fn ready(state: &State, goal: &Goal, now: Timestamp) -> Vec<Effect> {
    let mut effects = Vec::new();
    if state.is_ended() {
        return effects;
    }
    if state.paused().is_none() {
        if !matches!(state.standing(), Standing::Aborting { .. }) {
            effects.extend(under_way(state, goal));
        }
        effects.extend(wake_ups(state, now).map(Effect::WakeAt));
        if *state.standing() == Standing::Forward && !schedule::is_halted(state) {
            effects.extend(gates_and_guarded(state, goal, now));
        }
    }
    if let Some(ending) = ending(state) {
        effects.push(Effect::Finish { ending });
    }
    effects
}

/// Attempts that have begun and not ended. Going back, one that was begun going forward is not taken up again.
fn under_way<'a>(state: &'a State, goal: &'a Goal) -> impl Iterator<Item = Effect> + 'a {
    let standing = match state.standing() {
        Standing::Back => Way::Back,
        _ => Way::Forward,
    };
    state.program().steps().iter().filter_map(move |step| {
        let known = state.step(&step.id);
        let Progress::Running { way } = known.progress else { return None };
        let outside = way == Way::Forward && !goal.includes(&step.id);
        if way != standing || gate_of(step).is_some() || outside {
            return None;
        }
        let permit = match way {
            Way::Forward => {
                known.permit.as_ref().map(|_| Permit::new(step.id.clone(), known.attempts, way))
            }
            // What an undo may destroy was listed and confirmed when the rollback began, and is checked again as it runs.
            Way::Back => Some(Permit::new(step.id.clone(), known.attempts, way)),
        };
        Some(Effect::Perform { step: step.id.clone(), attempt: known.attempts, way, permit })
    })
}

fn wake_ups(state: &State, now: Timestamp) -> Option<Timestamp> {
    let steps = state.program().steps().iter();
    let waits = steps.filter_map(|step| match &state.step(&step.id).progress {
        Progress::Retrying { at, .. } if *at > now => Some(*at),
        _ => None,
    });
    waits.min()
}

fn gates_and_guarded<'a>(
    state: &'a State,
    goal: &'a Goal,
    now: Timestamp,
) -> impl Iterator<Item = Effect> + 'a {
    state.program().steps().iter().filter(|step| goal.includes(&step.id)).filter_map(move |step| {
        if schedule::is_waiting_gate(state, &step.id) {
            Some(Effect::ProbeGate { gate: step.id.clone() })
        } else if gate_of(step).is_none() && is_guarded(step) && startable(state, step, now) {
            let gates = state.program().releasing_gates(&step.id).cloned().collect();
            Some(Effect::Recheck { step: step.id.clone(), gates })
        } else {
            None
        }
    })
}

/// Whether there is a reason to stop, and which. `shut` are the reports of gates that were just probed and are shut. To be
/// asked when nothing is under way and nothing is to be performed but probes.
#[must_use]
pub fn stop(state: &State, goal: &Goal, shut: &[GateReport]) -> Option<Stop> {
    if let Standing::Ended { ending, .. } = state.standing() {
        return Some(Stop::Ended(*ending));
    }
    if let Some(stop) = state.program().steps().iter().find_map(|step| halted_by(state, step)) {
        return Some(stop);
    }
    if let Some(pause) = state.paused() {
        return Some(Stop::Paused { reason: pause.reason.clone() });
    }
    if let Goal::Through(steps) = goal
        && steps.iter().all(|step| state.step(step).progress == Progress::Succeeded)
    {
        return Some(Stop::ReachedGoal);
    }
    (!shut.is_empty()).then(|| Stop::AtGate(shut.to_vec()))
}

fn halted_by(state: &State, step: &Step) -> Option<Stop> {
    let known = state.step(&step.id);
    let id = step.id.clone();
    let going_back = *state.standing() == Standing::Back;
    match &known.progress {
        Progress::Failed { way, failure } if !going_back || *way == Way::Back => {
            Some(Stop::StepFailed { step: id, way: *way, failure: failure.clone() })
        }
        Progress::Differs if !going_back => {
            known.evidence.clone().map(|evidence| Stop::Differs { step: id, evidence })
        }
        Progress::Ambiguous { way, detail } if !going_back || *way == Way::Back => {
            Some(Stop::Ambiguous { step: id, detail: detail.clone() })
        }
        _ => None,
    }
}

//! What is to be performed now, and whether there is a reason to stop.

use std::collections::BTreeSet;

use super::action::{Action, QueryCheck, Verify};
use super::decide::ending;
use super::gate::{GateReport, gate_of, is_guarded};
use super::name::StepId;
use super::parting::would_part_compared;
use super::permit::Permit;
use super::planted::{Fault, is_planted};
use super::program::{Program, Step};
use super::record::{Ending, Evidence, Failure, FailureClass, Way};
use super::schedule;
use super::state::{Progress, Standing, State};
use super::time::Timestamp;
use crate::bounds::engine::PERMIT_LASTS_MS;

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
    /// Ask the ledger for a guarded step, and read again what its releasing gates ask, since it could start now; or for any step that may
    /// have been done and whose gate has shut since. Not for one that this process is performing.
    Recheck {
        /// The step.
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

    /// The same goal after the plan was amended: steps that are gone are forgotten, and what the others need now belongs to
    /// it.
    #[must_use]
    pub fn within(&self, program: &Program) -> Self {
        let Self::Through(steps) = self else { return Self::End };
        let known = steps.iter().filter(|step| program.step(step).is_some());
        let needed = known.clone().flat_map(|step| program.needed_by(step));
        Self::Through(known.cloned().chain(needed).collect())
    }
}

/// Whether an attempt at a step could begin at `now`: it waits, and everything it needs has succeeded. What is guarded waits for its gates
/// too where it does not need them itself: one of them may have shut since what stands between has been done. And what parts two sides waits
/// while they are compared: a gate may have them compared anew at any time.
pub(super) fn startable(state: &State, step: &Step, now: Timestamp) -> bool {
    let waits = match &state.step(&step.id).progress {
        Progress::Pending => true,
        Progress::Retrying { way: Way::Forward, at, .. } => *at <= now,
        _ => false,
    };
    let is_done =
        |need| state.step(need).progress == Progress::Succeeded || is_planted(Fault::NeedForgotten);
    waits
        && *state.standing() == Standing::Forward
        && step.needs.iter().all(is_done)
        && !would_part_compared(state, step)
        && has_captured(state, step)
        && (!is_guarded(step) || state.program().releasing_gates(&step.id).all(is_done))
}

/// Whether the value that a verify is held against has been captured. It need not need that step: where a value is lost it is captured
/// again, and whatever stands between was done long ago.
fn has_captured(state: &State, step: &Step) -> bool {
    let Action::Verify(Verify::Query(QueryCheck { within: Some(within), .. })) = &step.action
    else {
        return true;
    };
    state.program().steps().iter().all(|it| match &it.action {
        Action::Verify(Verify::Query(QueryCheck { capture: Some(name), .. })) => {
            *name != within.of || state.step(&it.id).progress == Progress::Succeeded
        }
        _ => true,
    })
}

/// Whether an attempt at a step may have been committed of which nobody has heard, and a gate before the step has shut since. What it has
/// changed may be what keeps the gate shut, so the ledger is asked all the same: what it has is done, and only has to be learned of.
pub(super) fn is_unheard(state: &State, step: &Step, now: Timestamp) -> bool {
    let known = state.step(&step.id);
    let Progress::Retrying { way: Way::Forward, at, failure } = &known.progress else {
        return false;
    };
    let is_shut = |need: &&StepId| state.step(need).progress != Progress::Succeeded;
    *at <= now
        && known.may_be_done
        && !is_planted(Fault::LedgerUnasked)
        // Once the ledger has said that only parts of it are done, it is held for stale, and not asked again until an operator wants that.
        && (failure.class != FailureClass::Stale || known.tried == 0)
        && *state.standing() == Standing::Forward
        && state.program().releasing_gates(&step.id).any(|gate| is_shut(&gate))
}

/// What is to be performed now. Attempts that the journal says have begun are among it, whether this process began them or
/// one that died.
#[must_use]
pub fn ready(state: &State, goal: &Goal, now: Timestamp) -> Vec<Effect> {
    let mut effects = Vec::new();
    if state.is_ended() || state.is_being_adopted() {
        return effects;
    }
    if state.paused().is_none() {
        if !matches!(state.standing(), Standing::Aborting { .. }) {
            effects.extend(under_way(state, goal, now));
        }
        effects.extend(wake_up(state, goal, now).map(Effect::WakeAt));
        if *state.standing() == Standing::Forward {
            effects.extend(gates_and_guarded(state, goal, now));
        }
    }
    if let Some(ending) = ending(state) {
        effects.push(Effect::Finish { ending });
    }
    effects
}

/// Whether an attempt at a guarded step has begun whose permit no longer counts.
pub(super) fn is_stale(state: &State, step: &Step, now: Timestamp) -> bool {
    let known = state.step(&step.id);
    known.progress == (Progress::Running { way: Way::Forward })
        && *state.standing() == Standing::Forward
        && known.permit.is_some()
        && known.permitted_at.is_none_or(|at| now.since_ms(at) > PERMIT_LASTS_MS)
        && !is_planted(Fault::PermitReused)
}

/// Attempts that have begun and not ended. Going back, one that was begun going forward is not taken up again.
fn under_way<'a>(
    state: &'a State,
    goal: &'a Goal,
    now: Timestamp,
) -> impl Iterator<Item = Effect> + 'a {
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
        if is_stale(state, step, now) {
            let may_go = !schedule::is_halted(state);
            return may_go.then(|| recheck(state, &step.id));
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

/// When the next attempt begins by itself, if one does.
fn wake_up(state: &State, goal: &Goal, now: Timestamp) -> Option<Timestamp> {
    let steps = state.program().steps().iter();
    let (turned, goal) = match state.standing() {
        Standing::Forward if schedule::is_halted(state) => return None,
        Standing::Forward => (Way::Forward, goal),
        Standing::Back => (Way::Back, &Goal::End),
        Standing::Aborting { .. } | Standing::Ended { .. } => return None,
    };
    let waits = steps.filter_map(|step| match &state.step(&step.id).progress {
        Progress::Retrying { way, at, .. }
            if *at > now && *way == turned && goal.includes(&step.id) =>
        {
            Some(*at)
        }
        _ => None,
    });
    waits.min()
}

fn gates_and_guarded<'a>(
    state: &'a State,
    goal: &'a Goal,
    now: Timestamp,
) -> impl Iterator<Item = Effect> + 'a {
    // What may not begin for want of room is not judged before there is some: a permit counts for a moment only.
    let mut room = schedule::Room::of(state, goal);
    let is_halted = schedule::is_halted(state);
    state.program().steps().iter().filter(|step| goal.includes(&step.id)).filter_map(move |step| {
        let is_guarded = || gate_of(step).is_none() && is_guarded(step);
        let is_due = || {
            !is_halted && is_guarded() && startable(state, step, now)
                || is_unheard(state, step, now)
        };
        if !is_halted && schedule::is_waiting_gate(state, &step.id) {
            Some(Effect::ProbeGate { gate: step.id.clone() })
        } else if is_due() && room.take(state.program(), step) {
            Some(recheck(state, &step.id))
        } else {
            None
        }
    })
}

fn recheck(state: &State, step: &StepId) -> Effect {
    let gates = state.program().releasing_gates(step).cloned().collect();
    Effect::Recheck { step: step.clone(), gates }
}

/// Whether there is a reason to stop, and which. `shut` are the reports of gates that were just probed and are shut. To be
/// asked when nothing is under way and nothing is to be performed but probes.
#[must_use]
pub fn stop(state: &State, goal: &Goal, shut: &[GateReport]) -> Option<Stop> {
    if let Standing::Ended { ending, .. } = state.standing() {
        return Some(Stop::Ended(*ending));
    }
    if state.is_being_adopted() {
        return None;
    }
    if let Some(stop) = state.program().steps().iter().find_map(|step| halted_by(state, step)) {
        return Some(stop);
    }
    if let Some(pause) = state.paused() {
        return Some(Stop::Paused { reason: pause.reason.clone() });
    }
    if let Goal::Through(steps) = goal
        && *state.standing() == Standing::Forward
        && steps.iter().all(|step| state.step(step).progress == Progress::Succeeded)
    {
        return Some(Stop::ReachedGoal);
    }
    (!shut.is_empty()).then(|| Stop::AtGate(shut.to_vec()))
}

fn halted_by(state: &State, step: &Step) -> Option<Stop> {
    let known = state.step(&step.id);
    let id = step.id.clone();
    // A run that is given up needs no operator any more: it ends, whatever failed.
    if matches!(state.standing(), Standing::Aborting { .. }) {
        return None;
    }
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

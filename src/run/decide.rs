//! From what happened to what is recorded.
//!
//! [`decide`] is total: every input has an answer in every state, if only that nothing is to be recorded. An input that the
//! state has overtaken (an attempt that was already settled, a gate that is no longer waiting) is such a case.

use std::collections::BTreeMap;

use super::command::{Command, Refusal};
use super::digest::Digest;
use super::gate::{self, ConditionVerdict, GateReport, Observations};
use super::name::{StepId, TargetName};
use super::operator;
use super::program::Hazard;
use super::ready::{Goal, startable};
use super::record::{
    Actor, Ending, Event, Evidence, Failure, FailureClass, Outcome, PermitRecord, Record, Way,
};
use super::retry;
use super::schedule;
use super::state::{Progress, Standing, State};
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

/// From what happened to what is recorded. Only [`Input::Asked`] can be refused.
pub fn decide(state: &State, input: &Input, goal: &Goal, by: &Actor, now: Timestamp) -> Decided {
    if state.is_ended() && !matches!(input, Input::Asked(_)) {
        return Ok(Vec::new());
    }
    Ok(match input {
        Input::Tick => schedule::tick(state, goal, now),
        Input::Ended { step, attempt, way, result, jitter } => {
            ended(state, (step, *attempt, *way), result, *jitter, now)
        }
        Input::Probed { gate, seen } => probed(state, gate, seen, now),
        Input::Rechecked { step, seen } => rechecked(state, step, seen, now),
        Input::Asked(command) => return operator::answer(state, command, by, now),
        Input::Finished => finished(state),
    })
}

/// How the run ends when there is nothing left to do, if there is nothing left to do.
pub(super) fn ending(state: &State) -> Option<Ending> {
    let all = |settled: fn(&Progress) -> bool| {
        state.program().steps().iter().all(|step| settled(&state.step(&step.id).progress))
    };
    match state.standing() {
        Standing::Forward if all(|p| *p == Progress::Succeeded) => Some(Ending::Completed),
        Standing::Back if all(|p| matches!(p, Progress::Undone | Progress::Pending)) => {
            Some(Ending::RolledBack)
        }
        Standing::Aborting { .. } => Some(Ending::Aborted),
        Standing::Forward | Standing::Back | Standing::Ended { .. } => None,
    }
}

fn finished(state: &State) -> Vec<Event> {
    ending(state).map(|ending| Event::RunEnded { ending }).into_iter().collect()
}

fn ended(
    state: &State,
    (step, attempt, way): (&StepId, u32, Way),
    result: &Observation,
    jitter: f64,
    now: Timestamp,
) -> Vec<Event> {
    let known = state.step(step);
    let is_current = known.progress == Progress::Running { way } && known.attempts == attempt;
    // A gate is opened by its conditions and by nothing else.
    let is_gate = state.program().step(step).is_none_or(|step| gate::gate_of(step).is_some());
    if !is_current || is_gate {
        return Vec::new();
    }
    let step = step.clone();
    vec![match result {
        Observation::Interrupted => return Vec::new(),
        Observation::Done(outcome) => {
            Event::StepSucceeded { step, attempt, way, outcome: outcome.clone() }
        }
        Observation::Differs(evidence) => {
            Event::StepDiffers { step, attempt, evidence: evidence.clone() }
        }
        Observation::Ambiguous(detail) => {
            Event::StepAmbiguous { step, attempt, way, detail: detail.clone() }
        }
        Observation::Failed(failure) => {
            let policy = state.program().step(&step).map(|s| s.retry).unwrap_or_default();
            let retry_at = retry::next_attempt(policy, known.tried, failure.class, jitter, now);
            Event::StepFailed { step, attempt, way, failure: failure.clone(), retry_at }
        }
    }]
}

fn probed(state: &State, gate: &StepId, seen: &Observations, now: Timestamp) -> Vec<Event> {
    if !schedule::is_waiting_gate(state, gate) {
        return Vec::new();
    }
    let mut events = Vec::new();
    let mut reached = None;
    if let Some((identities, fingerprints)) = facts(seen) {
        let work = gate::work(state, gate, &identities, &fingerprints);
        if state.gate(gate).and_then(|known| known.work.as_ref()) != Some(&work) {
            let event = Event::GateReached { gate: gate.clone(), work, fingerprints };
            reached = Some(after(state, &event, now));
            events.push(event);
        }
    }
    let state = reached.as_ref().unwrap_or(state);
    let report = gate::report(state, gate, seen, now);
    if report.is_open() {
        if let Some(work) = report.work {
            events.push(Event::GateOpened { gate: gate.clone(), work });
        }
    } else if only_stale(&report) && state.paused().is_none() {
        events.extend(refresh(state, gate, now));
    }
    events
}

/// What the targets are and look like, when all of them could be read.
fn facts(
    seen: &Observations,
) -> Option<(BTreeMap<TargetName, String>, BTreeMap<TargetName, Digest>)> {
    let mut identities = BTreeMap::new();
    let mut fingerprints = BTreeMap::new();
    for (target, facts) in &seen.targets {
        let facts = facts.as_ref().ok()?;
        identities.insert(target.clone(), facts.identity.clone());
        fingerprints.insert(target.clone(), facts.fingerprint.clone());
    }
    Some((identities, fingerprints))
}

/// The state as it will be after an event, to judge by.
fn after(state: &State, event: &Event, now: Timestamp) -> State {
    let mut next = state.clone();
    let record = Record {
        version: state.version() + 1,
        at: now,
        by: state.author().clone(),
        event: event.clone(),
    };
    // The version is the next one by construction, which is all that apply can object to.
    let _ = super::apply::apply(&mut next, &record);
    next
}

/// Whether fresh evidence is all that is missing.
fn only_stale(report: &GateReport) -> bool {
    report.conditions.iter().all(|condition| {
        condition.verdict == ConditionVerdict::Pass
            || condition.kind == gate::ConditionKind::VerifiedWithin
                && condition.verdict == ConditionVerdict::Fail
    })
}

/// Starts the verify steps again whose evidence is too old.
fn refresh(state: &State, gate: &StepId, now: Timestamp) -> Vec<Event> {
    gate::stale_verifies(state, gate, now)
        .into_iter()
        .filter(|step| state.step(step).progress == Progress::Succeeded)
        .map(|step| Event::StepStarted {
            attempt: state.step(&step).attempts + 1,
            step,
            way: Way::Forward,
            permit: None,
        })
        .collect()
}

/// The moment before a guarded step starts: every condition of its gates is judged again, and if one fails its gate shuts.
fn rechecked(
    state: &State,
    step: &StepId,
    seen: &[(StepId, Observations)],
    now: Timestamp,
) -> Vec<Event> {
    let Some(definition) = state.program().step(step) else { return Vec::new() };
    let is_for_this = gate::is_guarded(definition) && gate::gate_of(definition).is_none();
    if !is_for_this || !startable(state, definition, now) {
        return Vec::new();
    }
    let mut gates = Vec::new();
    let mut shut = Vec::new();
    for gate in state.program().releasing_gates(step) {
        let seen = seen.iter().find(|(of, _)| of == gate).map(|(_, seen)| seen);
        let unseen = Observations::default();
        let report = gate::report(state, gate, seen.unwrap_or(&unseen), now);
        match (&report.work, seen.is_some() && report.is_open()) {
            (Some(work), true) => gates.push((gate.clone(), work.clone())),
            _ => shut.push(Event::GateShut { gate: gate.clone(), reasons: reasons(&report) }),
        }
    }
    if !shut.is_empty() {
        return shut;
    }
    let attempt = state.step(step).attempts + 1;
    if gates.is_empty() && matches!(definition.hazard, Hazard::Destructive(_)) {
        return vec![ungated(step, attempt)];
    }
    vec![Event::StepStarted {
        step: step.clone(),
        attempt,
        way: Way::Forward,
        permit: Some(PermitRecord { gates }),
    }]
}

/// A valid plan has a gate before everything destructive; should one ever come here without, it fails instead of running.
fn ungated(step: &StepId, attempt: u32) -> Event {
    Event::StepFailed {
        step: step.clone(),
        attempt,
        way: Way::Forward,
        failure: Failure {
            class: FailureClass::Unsafe,
            code: None,
            message: format!("{step} may destroy data and no gate stands before it"),
            detail: None,
            help: Some("put a gate before it and amend the run".to_owned()),
            line: None,
        },
        retry_at: None,
    }
}

fn reasons(report: &GateReport) -> Vec<String> {
    report
        .conditions
        .iter()
        .filter(|condition| condition.verdict != ConditionVerdict::Pass)
        .map(|condition| format!("needed {}, have {}", condition.needed, condition.have))
        .collect()
}

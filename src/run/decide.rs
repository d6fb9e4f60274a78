//! From what happened to what is recorded.
//!
//! [`decide`] is total: every input has an answer in every state, if only that nothing is to be recorded. An input that the
//! state has overtaken (an attempt that was already settled, a gate that is no longer waiting) is such a case.

use std::collections::BTreeMap;

use super::action::Hazard;
use super::adopt::Traces;
use super::command::{Command, Refusal};
use super::digest::Digest;
use super::gate::{self, ConditionVerdict, GateReport, Observations};
use super::lineage::{self, Looked};
use super::marked::Traced;
use super::name::{StepId, TargetName};
use super::operator;
use super::planted::{Fault, is_planted};
use super::program::Step;
use super::ready::{Goal, is_stale, is_unheard, startable};
use super::record::{
    Actor, Ending, Event, Evidence, Failure, FailureClass, Outcome, PermitRecord, Record, Way,
};
use super::resolve;
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
    /// The conditions of the gates before a guarded step were read.
    Rechecked {
        /// The step.
        step: StepId,
        /// How many attempts there had been when that was asked: it says nothing of a later one.
        attempts: u32,
        /// How much of it the ledger already has, or why that can't be told.
        ledger: Result<Traced, Failure>,
        /// A random number from 0 to 1, to spread retries.
        jitter: f64,
        /// What was read, by gate.
        seen: Vec<(StepId, Observations)>,
    },
    /// The databases were looked at, before anything goes on there.
    Looked(Looked),
    /// An operator asks for something.
    Asked(Command),
    /// What the targets have of a run whose journal is lost was read.
    Adopted(Traces),
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
    /// It failed. Whether something of it is committed, or may be, is as the ledger says; `None` where nobody asked.
    Failed(Failure, Option<bool>),
    /// Neither ledger nor catalogue can tell.
    Ambiguous {
        /// What is known.
        detail: String,
        /// Whether something of the step is committed beside what is in doubt, or may be.
        has_left: bool,
    },
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
    if state.is_being_adopted() && !matches!(input, Input::Asked(_) | Input::Adopted(_)) {
        return Ok(Vec::new());
    }
    Ok(match input {
        Input::Tick => schedule::tick(state, goal, now),
        Input::Ended { step, attempt, way, result, jitter } => {
            ended(state, (step, *attempt, *way), result, *jitter, now)
        }
        Input::Probed { gate, seen } => probed(state, gate, seen, now),
        Input::Rechecked { step, attempts, .. }
            if state.step(step).attempts != *attempts && !is_planted(Fault::ReadingUnchecked) =>
        {
            Vec::new()
        }
        Input::Rechecked { step, ledger, jitter, seen, .. } => {
            match (ledger, guarded(state, step, now)) {
                (_, None) => Vec::new(),
                (Err(failure), Some(step)) => vec![unread(state, step, failure, *jitter, now)],
                (Ok(traced), Some(step)) if is_unheard(state, step, now) => {
                    vec![heard(state, step, *traced, now)]
                }
                (Ok(traced), Some(step)) => {
                    let is_told_done = resolve::leaves_nothing_to_do(state, step);
                    let traced = if is_told_done { Traced::Whole } else { *traced };
                    rechecked(state, step, traced, seen, now)
                }
            }
        }
        Input::Adopted(traces) if state.is_being_adopted() => {
            vec![Event::RunAdopted { traces: traces.clone() }]
        }
        Input::Adopted(_) => Vec::new(),
        Input::Looked(looked) => lineage::looked(state, looked),
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
    let is_this = known.attempts == attempt || is_planted(Fault::AttemptUnchecked);
    let is_current = known.progress == Progress::Running { way } && is_this;
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
        Observation::Ambiguous { detail, has_left } => {
            let (detail, has_left) = (detail.clone(), *has_left);
            Event::StepAmbiguous { step, attempt, way, detail, has_left }
        }
        Observation::Failed(failure, committed) => {
            let policy = state.program().step(&step).map(|s| s.retry).unwrap_or_default();
            let retry_at = retry::next_attempt(policy, known.tried, failure.class, jitter, now);
            let (failure, committed) = (failure.clone(), *committed);
            Event::StepFailed { step, attempt, way, failure, retry_at, committed, in_part: false }
        }
    }]
}

fn probed(state: &State, gate: &StepId, seen: &Observations, now: Timestamp) -> Vec<Event> {
    if !schedule::is_waiting_gate(state, gate) {
        return Vec::new();
    }
    let mut events = gate::usage_to_keep(state, gate, seen, now);
    let mut next = events.iter().fold(None, |next: Option<State>, event| {
        Some(after(next.as_ref().unwrap_or(state), event, now))
    });
    if let Some((identities, fingerprints)) = facts(seen) {
        let known = state.gate(gate);
        // What the run's own steps changed since the gate was reached is no change of the work.
        let as_reached = known.filter(|known| known.expected == fingerprints);
        let reached = as_reached.map_or(&fingerprints, |known| &known.reached);
        // Where they are not as expected, they may be as they were when it was reached first: it is for that work again, then.
        let is_same = as_reached.is_some_and(|known| {
            known.work.as_ref() == Some(&gate::work(state, gate, &identities, reached))
        });
        if !is_same {
            let work = gate::work(state, gate, &identities, &fingerprints);
            let event = Event::GateReached { gate: gate.clone(), work, fingerprints };
            next = Some(after(next.as_ref().unwrap_or(state), &event, now));
            events.push(event);
        }
    }
    let state = next.as_ref().unwrap_or(state);
    let report = gate::report(state, gate, seen, now);
    if report.is_open() {
        if let Some(work) = report.work {
            events.push(Event::GateOpened { gate: gate.clone(), work });
        }
    } else if only_stale(&report) && state.paused().is_none() {
        events.extend(refresh(state, gate, seen, now));
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

/// Starts the verify steps again whose evidence is too old, or made under another sync.
fn refresh(state: &State, gate: &StepId, seen: &Observations, now: Timestamp) -> Vec<Event> {
    gate::stale_verifies(state, gate, seen, now)
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

/// A guarded step that could start now, or that a process which is gone had started: what it was permitted by has passed. Or a step that
/// may have been done.
fn guarded<'a>(state: &'a State, step: &StepId, now: Timestamp) -> Option<&'a Step> {
    let step = state.program().step(step)?;
    let is_due = startable(state, step, now) || is_stale(state, step, now);
    let is_due = gate::is_guarded(step) && is_due && !schedule::is_halted(state);
    let is_gate = gate::gate_of(step).is_some();
    let may_go = state.paused().is_none() && !is_gate;
    (may_go && (is_due || is_unheard(state, step, now))).then_some(step)
}

/// What the ledger has of a step whose gate has shut since: all of it, which is begun once more only to be recorded, or not, and then it
/// waits for its gate.
fn heard(state: &State, step: &Step, traced: Traced, now: Timestamp) -> Event {
    let known = state.step(&step.id);
    if traced != Traced::Whole {
        return shut_out(&step.id, known.attempts, traced, now);
    }
    Event::StepStarted {
        step: step.id.clone(),
        attempt: known.attempts + 1,
        way: Way::Forward,
        permit: known.permit.clone(),
    }
}

/// The ledger could not be asked, so nobody knows whether the step has been done. Unknown starts nothing.
fn unread(state: &State, step: &Step, failure: &Failure, jitter: f64, now: Timestamp) -> Event {
    let known = state.step(&step.id);
    let was_begun = matches!(known.progress, Progress::Running { .. });
    let begun = u32::from(!was_begun);
    // Whoever began it may have committed it.
    let class = match failure.class {
        class if was_begun && retry::is_transient(class) => FailureClass::Unknown,
        class => class,
    };
    let tried = known.tried.saturating_add(begun);
    Event::StepFailed {
        step: step.id.clone(),
        attempt: known.attempts.saturating_add(begun),
        way: Way::Forward,
        failure: Failure { class, ..failure.clone() },
        retry_at: retry::next_attempt(step.retry, tried, class, jitter, now),
        committed: was_begun.then_some(true),
        in_part: false,
    }
}

/// The moment before a guarded step starts: every condition of its gates is judged again, and if one fails its gate shuts.
/// What the ledger has is done and destroys nothing more; the journal only has to learn of it.
fn rechecked(
    state: &State,
    definition: &Step,
    traced: Traced,
    seen: &[(StepId, Observations)],
    now: Timestamp,
) -> Vec<Event> {
    let step = &definition.id;
    let known = state.step(step);
    let waits = matches!(known.progress, Progress::Retrying { .. });
    let is_told =
        waits && !known.may_be_done && resolve::is_told_undone(definition, known.resolved);
    let traced = if is_told && traced == Traced::InDoubt { Traced::Nothing } else { traced };
    let attempt = known.attempts + 1;
    let start = |permit| Event::StepStarted {
        step: step.clone(),
        attempt,
        way: Way::Forward,
        permit: Some(permit),
    };
    if let Some(permit) = known.permit.clone().filter(|_| traced == Traced::Whole) {
        return vec![start(permit)];
    }
    // A gate that was voided or shut since has to open first.
    let is_free = |need| state.step(need).progress == Progress::Succeeded;
    let was_begun = matches!(known.progress, Progress::Running { .. });
    if was_begun && !definition.needs.iter().all(is_free) {
        return vec![shut_out(step, known.attempts, traced, now)];
    }
    let mut gates = Vec::new();
    let mut events = Vec::new();
    for gate in state.program().releasing_gates(step) {
        let seen = seen.iter().find(|(of, _)| of == gate).map(|(_, seen)| seen);
        let unseen = Observations::default();
        let report = gate::report(state, gate, seen.unwrap_or(&unseen), now);
        match (&report.work, seen.is_some() && report.is_open()) {
            (Some(work), true) => gates.push((gate.clone(), work.clone())),
            _ => events.push(Event::GateShut { gate: gate.clone(), reasons: reasons(&report) }),
        }
    }
    if !events.is_empty() {
        // Started and not done: it waits for its gate like any other. And where the ledger could not be asked before, it has been now.
        let is_begun = traced != Traced::Nothing;
        let is_told =
            known.may_be_done == is_begun && known.is_in_part == (traced == Traced::Parts);
        if was_begun || waits && !is_told {
            events.push(shut_out(step, known.attempts, traced, now));
        }
        return events;
    }
    if gates.is_empty() && matches!(definition.hazard, Hazard::Destructive(_)) {
        return vec![ungated(step, attempt)];
    }
    vec![start(PermitRecord { gates })]
}

/// An attempt that had been started, by a process that is gone, and may not go on: it did nothing, or some of what it was to do.
fn shut_out(step: &StepId, attempt: u32, traced: Traced, now: Timestamp) -> Event {
    let is_begun = traced != Traced::Nothing;
    let when = if is_begun { "in the middle of it" } else { "before it had done anything" };
    Event::StepFailed {
        step: step.clone(),
        attempt,
        way: Way::Forward,
        failure: Failure {
            class: FailureClass::Stale,
            code: None,
            message: format!("the gate before {step} shut {when}"),
            detail: None,
            help: None,
            line: None,
            private: Vec::new(),
        },
        retry_at: Some(now),
        committed: Some(is_begun),
        in_part: traced == Traced::Parts,
    }
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
            private: Vec::new(),
        },
        retry_at: None,
        committed: None,
        in_part: false,
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

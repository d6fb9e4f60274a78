//! From records to state: one total function for live runs and recovery.
//!
//! Whatever a record says is taken as it is: whether it was allowed was judged before it was made. So every event has an
//! effect in every state, and none panics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::{Action, QueryCheck, Verify};
use super::adopt::{self, Adoption};
use super::lineage;
use super::name::StepId;
use super::operator;
use super::planted::{Fault, is_planted};
use super::program::Program;
use super::record::{
    Event, Evidence, Failure, FailureClass, Outcome, Record, Tuning, Verdict, Way,
};
use super::resolve;
use super::state::{
    Decision, DecisionVerdict, GateState, Pause, Progress, Standing, State, StepState,
};
use super::time::Timestamp;
use super::usage::Baseline;
use super::words::plural;

/// Why records make no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A journal must begin with the run's start.
    #[error("the journal does not begin with the start of a run")]
    NoStart,
    /// A record is missing or out of place.
    #[error("record {found} stands where {expected} must be")]
    OutOfPlace {
        /// The version needed.
        expected: u64,
        /// The version found.
        found: u64,
    },
}

/// The state after the first record.
pub fn begin(first: &Record) -> Result<State, ApplyError> {
    let Event::RunStarted { run, pin } = &first.event else { return Err(ApplyError::NoStart) };
    if first.version != 1 {
        return Err(ApplyError::OutOfPlace { expected: 1, found: first.version });
    }
    Ok(State {
        run: run.clone(),
        version: 1,
        pin: Arc::new((**pin).clone()),
        author: first.by.clone(),
        started_at: first.at,
        standing: Standing::Forward,
        paused: None,
        steps: BTreeMap::new(),
        gates: BTreeMap::new(),
        captures: BTreeMap::new(),
        accepted_losses: Vec::new(),
        usage: BTreeMap::new(),
        adoption: None,
        lineages: BTreeMap::new(),
    })
}

/// The state after all of a journal.
pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<State, ApplyError> {
    let mut records = records.into_iter();
    let mut state = begin(records.next().ok_or(ApplyError::NoStart)?)?;
    for record in records {
        apply(&mut state, record)?;
    }
    Ok(state)
}

/// The state after another record. Fails only when the record is not the next one.
pub fn apply(state: &mut State, record: &Record) -> Result<(), ApplyError> {
    let expected = state.version + 1;
    if record.version != expected {
        return Err(ApplyError::OutOfPlace { expected, found: record.version });
    }
    state.version = expected;
    let at = record.at;
    if voids_permits(&record.event) {
        for entry in state.steps.values_mut() {
            entry.permitted_at = None;
        }
    }
    match &record.event {
        Event::RunStarted { .. } | Event::LockReleased { .. } => {}
        Event::AdoptionBegun { heads, .. } => {
            state.adoption =
                Some(Adoption { heads: heads.clone(), is_pending: true, whole: BTreeSet::new() });
        }
        Event::RunAdopted { traces } => adopt::apply(state, traces, at),
        Event::PlanAmended { pin, changed, voided } => {
            state.author = record.by.clone();
            state.pin = Arc::new((**pin).clone());
            amended(state, changed, voided);
        }
        Event::StepStarted { .. }
        | Event::StepSucceeded { .. }
        | Event::StepFailed { .. }
        | Event::StepDiffers { .. }
        | Event::StepAmbiguous { .. } => apply_attempt(state, &record.event, at),
        Event::StepResolved { .. } => resolve::apply(state, record),
        Event::RetryAsked { steps } => {
            for id in steps {
                retry_asked(state.steps.entry(id.clone()).or_default(), at);
            }
        }
        Event::GateReached { .. }
        | Event::GateOpened { .. }
        | Event::GateShut { .. }
        | Event::Approved { .. }
        | Event::Rejected { .. }
        | Event::Revoked { .. } => apply_gate(state, record),
        Event::LineageSeen { .. } => lineage::apply(state, &record.event, at),
        Event::UsageSeen { mapping, usage } => {
            let baseline = Baseline { usage: usage.clone(), since: at };
            state.usage.insert(mapping.clone(), baseline);
        }
        Event::Paused { reason } => state.paused = Some(Pause { reason: reason.clone() }),
        Event::Resumed => state.paused = None,
        Event::Tuned { step, tuning } => {
            tune(&mut state.steps.entry(step.clone()).or_default().tuning, tuning);
        }
        Event::RollbackBegun { accept_loss } => {
            // Whoever asks for the way back of a paused run wants it to go.
            state.paused = None;
            state.standing = Standing::Back;
            state.accepted_losses.clone_from(accept_loss);
        }
        Event::AbortBegun { leave, .. } => {
            state.paused = None;
            state.standing = Standing::Aborting { leave: *leave };
        }
        Event::RunEnded { ending } => state.standing = Standing::Ended { ending: *ending, at },
    }
    Ok(())
}

/// Whether something was decided that the permits made before did not know of. What runs goes on; what has not begun is
/// checked again.
const fn voids_permits(event: &Event) -> bool {
    matches!(
        event,
        Event::PlanAmended { .. }
            | Event::GateShut { .. }
            | Event::Rejected { .. }
            | Event::Revoked { .. }
            | Event::StepDiffers { .. }
            | Event::LineageSeen { .. }
            | Event::Paused { .. }
            | Event::RollbackBegun { .. }
            | Event::AbortBegun { .. }
    )
}

/// What becomes of one attempt at a step.
fn apply_attempt(state: &mut State, event: &Event, at: Timestamp) {
    match event {
        Event::StepStarted { step, attempt, way, permit } => {
            let entry = state.steps.entry(step.clone()).or_default();
            if entry.progress.way().is_none_or(|before| before != *way) {
                entry.tried = 0;
            }
            let is_idle = !matches!(entry.progress, Progress::Running { .. });
            let idle = entry.ended_at.filter(|_| is_idle).map(|ended| at.since_ms(ended));
            entry.idle_ms += idle.unwrap_or_default();
            // Whoever made the attempt before is gone, and nobody knows how far it came.
            entry.may_be_done |= !is_idle;
            entry.progress = Progress::Running { way: *way };
            entry.attempts = *attempt;
            entry.tried += 1;
            entry.started_at.get_or_insert(at);
            entry.permit.clone_from(permit);
            entry.permitted_at = permit.as_ref().map(|_| at);
        }
        Event::StepSucceeded { step, way: Way::Back, .. } => {
            let entry = state.steps.entry(step.clone()).or_default();
            entry.progress = Progress::Undone;
            entry.may_be_done = false;
            entry.ended_at = Some(at);
        }
        Event::StepSucceeded { step, way: Way::Forward, outcome, .. } => {
            succeeded(state, step, outcome, at);
        }
        Event::StepFailed { step, attempt, way, failure, retry_at, committed, in_part } => {
            let in_parts = state.program().step(step).is_some_and(
                |step| matches!(&step.action, Action::Sql(script) if script.commits_in_parts()),
            );
            let entry = state.steps.entry(step.clone()).or_default();
            // One that failed before it could be started counts as an attempt too, or it would be tried for ever.
            let was_begun = matches!(entry.progress, Progress::Running { .. });
            if !was_begun {
                entry.attempts = *attempt;
                entry.tried += 1;
            }
            entry.ended_at = Some(at);
            // Where nobody has asked the ledger, what was known of earlier attempts is still so, and what runs outside a transaction may
            // have left something.
            let is_open = entry.may_be_done
                || failure.class == FailureClass::Unknown
                || was_begun && in_parts;
            entry.is_in_part = *in_part || entry.is_in_part && *committed != Some(false);
            entry.may_be_done = committed.unwrap_or(is_open) && !is_planted(Fault::TracesForgotten);
            entry.progress = match retry_at {
                Some(at) => Progress::Retrying { way: *way, at: *at, failure: failure.clone() },
                None => Progress::Failed { way: *way, failure: failure.clone() },
            };
        }
        Event::StepDiffers { step, evidence, .. } => {
            let entry = state.steps.entry(step.clone()).or_default();
            entry.progress = Progress::Differs;
            entry.ended_at = Some(at);
            entry.passing_since = None;
            entry.evidence = Some(evidence.clone());
        }
        Event::StepAmbiguous { step, way, detail, has_left, .. } => {
            let entry = state.steps.entry(step.clone()).or_default();
            entry.ended_at = Some(at);
            entry.may_be_done = *has_left;
            entry.progress = Progress::Ambiguous { way: *way, detail: detail.clone() };
        }
        _ => {}
    }
}

fn succeeded(state: &mut State, step: &StepId, outcome: &Outcome, at: Timestamp) {
    if let Some(name) = captured_name(state.program(), step)
        && let Some(value) = &outcome.value
    {
        state.captures.insert(name, value.clone());
    }
    for moved in &outcome.fingerprints {
        let gate = state.gates.entry(moved.gate.clone()).or_default();
        gate.expected.insert(moved.target.clone(), moved.fingerprint.clone());
    }
    let entry = state.steps.entry(step.clone()).or_default();
    entry.progress = Progress::Succeeded;
    entry.may_be_done = false;
    entry.ended_at = Some(at);
    if let Some(evidence) = &outcome.evidence {
        take_evidence(entry, evidence);
    }
    entry.outcome = Some(outcome.clone());
}

fn take_evidence(entry: &mut StepState, evidence: &Evidence) {
    if evidence.verdict == Verdict::Fail {
        entry.passing_since = None;
    } else {
        entry.passing_since.get_or_insert(evidence.ended_at);
    }
    entry.evidence = Some(evidence.clone());
}

fn captured_name(program: &Program, step: &StepId) -> Option<String> {
    match &program.step(step)?.action {
        Action::Verify(Verify::Query(QueryCheck { capture, .. })) => capture.clone(),
        _ => None,
    }
}

fn retry_asked(entry: &mut StepState, at: Timestamp) {
    entry.tried = 0;
    // A copy that has parked rows goes on being one that left its traces.
    if let (Progress::Succeeded, Some(rows)) = (&entry.progress, entry.parked()) {
        let failure = parked(rows);
        entry.progress = Progress::Retrying { way: Way::Forward, at, failure };
        return;
    }
    entry.progress = match std::mem::take(&mut entry.progress) {
        Progress::Failed { way, failure } | Progress::Retrying { way, failure, .. } => {
            Progress::Retrying { way, at, failure }
        }
        // A comparison that found differences left nothing behind: it simply runs again.
        Progress::Differs => Progress::Pending,
        other => other,
    };
}

/// Why a copy that has ended is looked at again.
fn parked(rows: u64) -> Failure {
    Failure {
        class: FailureClass::Refused,
        code: None,
        message: format!("{} parked", plural(rows, "row")),
        detail: None,
        help: None,
        line: None,
        private: Vec::new(),
    }
}

fn apply_gate(state: &mut State, record: &Record) {
    let at = record.at;
    match &record.event {
        Event::GateReached { gate, work, fingerprints } => {
            let is_used = has_released(state, gate);
            let known = state.gates.entry(gate.clone()).or_default();
            if is_used {
                // Somebody has changed what the run's own steps had made of it. Though it look as it did when it was approved, what is
                // to be done to it now is something else.
                known.decisions.retain(|it| matches!(it.verdict, DecisionVerdict::Rejected(_)));
            }
            known.work = Some(work.clone());
            known.reached.clone_from(fingerprints);
            known.expected.clone_from(fingerprints);
            let entry = state.steps.entry(gate.clone()).or_default();
            entry.progress = Progress::Running { way: Way::Forward };
            entry.attempts = entry.attempts.max(1);
            entry.started_at.get_or_insert(at);
        }
        Event::GateOpened { gate, .. } => {
            state.gates.entry(gate.clone()).or_default().shut.clear();
            let entry = state.steps.entry(gate.clone()).or_default();
            entry.progress = Progress::Succeeded;
            entry.ended_at = Some(at);
        }
        Event::GateShut { gate, reasons } => {
            state.gates.entry(gate.clone()).or_default().shut.clone_from(reasons);
            let entry = state.steps.entry(gate.clone()).or_default();
            entry.progress = Progress::Running { way: Way::Forward };
            entry.ended_at = None;
        }
        Event::Approved { gate, work, group, comment } => {
            let verdict = DecisionVerdict::Approved(comment.clone());
            let by = record.by.clone();
            let decision = Decision { by, at, work: work.clone(), group: group.clone(), verdict };
            stand(state.gates.entry(gate.clone()).or_default(), decision);
        }
        Event::Rejected { gate, work, reason } => {
            let verdict = DecisionVerdict::Rejected(reason.clone());
            let by = record.by.clone();
            let decision = Decision { by, at, work: work.clone(), group: None, verdict };
            stand(state.gates.entry(gate.clone()).or_default(), decision);
        }
        Event::Revoked { gate } => {
            let known = state.gates.entry(gate.clone()).or_default();
            known.decisions.retain(|decision| decision.by.name != record.by.name);
        }
        _ => {}
    }
}

/// A person has one decision on a gate: the last.
fn stand(gate: &mut GateState, decision: Decision) {
    gate.decisions.retain(|other| other.by.name != decision.by.name);
    gate.decisions.push(decision);
}

/// Whether a step that this gate has let go may have changed something.
fn has_released(state: &State, gate: &StepId) -> bool {
    state.program().released_by(gate).any(|step| operator::has_changed(state, step))
}

/// Steps whose work changed begin anew, gates whose work changed forget who approved.
fn amended(state: &mut State, changed: &[StepId], voided: &[StepId]) {
    for id in changed {
        let Some(entry) = state.steps.get(id) else { continue };
        if entry.progress == Progress::Succeeded {
            continue;
        }
        // The target may still have the mark that was answered for, and no two attempts have the same number while the plan has the step.
        let (resolved, attempts) = (entry.resolved, entry.attempts);
        let anew = StepState { attempts, resolved, ..StepState::default() };
        state.steps.insert(id.clone(), anew);
    }
    for id in voided {
        state.gates.remove(id);
        state.steps.remove(id);
    }
    let known: Vec<StepId> = state.steps.keys().cloned().collect();
    for id in known {
        if state.pin.program.step(&id).is_none() {
            state.steps.remove(&id);
            state.gates.remove(&id);
        }
    }
}

fn tune(tuning: &mut Tuning, change: &Tuning) {
    tuning.chunk_rows = change.chunk_rows.or(tuning.chunk_rows);
    tuning.pause_between_ms = change.pause_between_ms.or(tuning.pause_between_ms);
    tuning.chunk_time_ms = change.chunk_time_ms.or(tuning.chunk_time_ms);
    tuning.workers = change.workers.or(tuning.workers);
    tuning.limits.extend(change.limits.iter().map(|(name, limit)| (name.clone(), *limit)));
}

//! Evidence: which verify steps a gate looks at, how old their results are, and whether they are enough.

use std::collections::BTreeSet;

use super::super::action::{Action, Gate, Method, QueryCheck, Verify};
use super::super::name::{MappingName, StepId};
use super::super::parting::may_be_parted;
use super::super::planted::{Fault, is_planted};
use super::super::program::{Phase, Step};
use super::super::record::{Evidence, Verdict};
use super::super::state::{Progress, State};
use super::super::time::Timestamp;
use super::super::words::duration;
use super::asked::pass_needed;
use super::{Condition, ConditionKind, ConditionVerdict, Observations, gate_of, is_guarded};
use crate::bounds::engine::EVIDENCE_TIME_TO_USE_MS;

/// The verify steps whose evidence a gate looks at: those in phase verify or contract that it needs, but for captures.
pub(in crate::run) fn judged_verifies<'a>(
    state: &'a State,
    gate: &StepId,
) -> impl Iterator<Item = &'a Step> + use<'a> {
    let needed = state.program().needed_by(gate);
    let steps = state.program().steps().iter();
    steps.filter(move |step| needed.contains(&step.id) && is_judged(step))
}

/// Whether gates look at what a step finds. What stands in an earlier phase, or is captured, is judged once, when it runs.
pub(in crate::run) fn is_judged(step: &Step) -> bool {
    step.phase >= Phase::Verify
        && match &step.action {
            Action::Verify(Verify::Mapping { .. }) => true,
            Action::Verify(Verify::Query(QueryCheck { capture, .. })) => capture.is_none(),
            _ => false,
        }
}

/// Verify steps to run again, when the evidence of any is too old or was made under another sync. Those past half of the limit
/// go with it: run one after the other, each would be too old by the time the next has ended, and so on for ever.
pub(in crate::run) fn stale_verifies(
    state: &State,
    gate: &StepId,
    seen: &Observations,
    now: Timestamp,
) -> Vec<StepId> {
    let asks = state.program().step(gate).and_then(gate_of);
    let limit = asks.and_then(|asks| asks.verified_within_ms);
    let evidence = |step: &Step| state.step(&step.id).evidence.as_ref();
    let is_void = |step: &Step| {
        evidence(step)
            .is_some_and(|known| sync_since(state, step, known, seen) == SyncSince::Another)
    };
    let is_past = |step: &Step, ms: u64| {
        evidence(step).is_none_or(|known| age_ms(state, step, known, now) > ms)
    };
    let is_parted =
        |step: &&Step| step.action.mapping().is_some_and(|mapping| may_be_parted(state, mapping));
    let verifies: Vec<&Step> =
        judged_verifies(state, gate).filter(|step| !is_parted(step)).collect();
    let is_due = |step: &&Step| is_void(step) || limit.is_some_and(|limit| is_past(step, limit));
    if !verifies.iter().any(is_due) {
        return Vec::new();
    }
    let goes_along = |step: &Step| limit.is_some_and(|limit| is_past(step, limit / 2));
    let again = verifies.into_iter().filter(|step| is_void(step) || goes_along(step));
    again.map(|step| step.id.clone()).collect()
}

/// The sync that keeps the sides of a comparison equal, held against the one that it was made under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncSince {
    /// It is the same, or there is none that has to be.
    Same,
    /// It is another: it was switched off, changed or made anew meanwhile. Writes may have passed it by, even where it is whole
    /// again.
    Another,
    /// That can't be told.
    Unknown,
}

fn sync_since(state: &State, verify: &Step, evidence: &Evidence, seen: &Observations) -> SyncSince {
    let now = verify.action.mapping().and_then(|mapping| seen.syncs.get(mapping));
    match now {
        _ if is_planted(Fault::SyncForgotten) => SyncSince::Same,
        // What was kept in step until it was put aside was looked at then.
        _ if frozen_at(state, verify).is_some() => SyncSince::Same,
        None => SyncSince::Same,
        Some(Ok(now)) if evidence.sync.as_ref() == Some(&now.digest) => SyncSince::Same,
        Some(Ok(_)) => SyncSince::Another,
        Some(Err(_)) => SyncSince::Unknown,
    }
}

/// What must be left of a limit when a comparison has ended, so that there is time to use its result (milliseconds). Without
/// it, one that takes nearly as long as it may would be run again and again.
fn time_to_use_ms(limit: u64) -> u64 {
    (limit / 5).min(EVIDENCE_TIME_TO_USE_MS)
}

/// When the evidence of a verify stopped ageing: at the start of the step after which the sides of its mapping can't be compared
/// any more. A forward `retire` parts them, and so does `stop_dual_write`.
fn frozen_at(state: &State, verify: &Step) -> Option<Timestamp> {
    let mapping = verify.action.mapping()?;
    state.step(&state.parted_by(mapping)?.id).started_at
}

/// Whether the sync of a mapping has ended without anything being put aside: nothing that follows is about those sides, and what was found
/// while they were in step stays so at any age. It may have been too old when they parted: that takes no gate.
fn is_over(state: &State, verify: &Step) -> bool {
    let parted = verify.action.mapping().and_then(|mapping| state.parted_by(mapping));
    parted.is_some_and(|step| matches!(step.action, Action::StopDualWrite { .. }))
}

fn age_ms(state: &State, verify: &Step, evidence: &Evidence, now: Timestamp) -> u64 {
    if is_planted(Fault::EvidenceAgeless) {
        return 0;
    }
    frozen_at(state, verify).unwrap_or(now).since_ms(evidence.began_at)
}

pub(super) fn verified(
    state: &State,
    (gate, asks): (&Step, &Gate),
    seen: &Observations,
    now: Timestamp,
) -> Option<Condition> {
    let guarded: Vec<&Step> =
        state.program().released_by(&gate.id).filter(|step| is_guarded(step)).collect();
    if asks.verified_within_ms.is_none() && guarded.is_empty() {
        return None;
    }
    let needed = pass_needed(asks.verified_within_ms);
    let mut condition = Condition::new(ConditionKind::VerifiedWithin, needed);
    let verifies: Vec<&Step> = judged_verifies(state, &gate.id).collect();
    if verifies.is_empty() {
        return Some(
            condition.judged(ConditionVerdict::Fail, "no verify step stands before the gate"),
        );
    }
    let missing = wanting_mappings(state, &verifies, &guarded);
    if !missing.is_empty() {
        let have = format!("no full PASS of mapping {}", missing.join(", "));
        return Some(condition.judged(ConditionVerdict::Fail, have));
    }
    if !guarded.is_empty() && !is_vouched_for(state, &verifies) {
        let have = "no PASS, only results of a part";
        return Some(condition.judged(ConditionVerdict::Fail, have));
    }
    let mut oldest: u64 = 0;
    for step in &verifies {
        let Some(evidence) = &state.step(&step.id).evidence else {
            let have = no_result(state, step);
            return Some(condition.judged(ConditionVerdict::Unknown, have));
        };
        if evidence.verdict == Verdict::Fail {
            let have = format!("{} found differences", step.id);
            return Some(condition.judged(ConditionVerdict::Fail, have));
        }
        if let Some((verdict, have)) = other_sync(state, step, evidence, seen) {
            return Some(condition.judged(verdict, have));
        }
        if is_over(state, step) {
            continue;
        }
        let age = age_ms(state, step, evidence, now);
        oldest = oldest.max(age);
        let Some(limit) = asks.verified_within_ms else { continue };
        let took = evidence.ended_at.since_ms(evidence.began_at);
        if !evidence.resumed && age > limit && took.saturating_add(time_to_use_ms(limit)) > limit {
            let have = format!(
                "{} itself takes {}, so its result is too old before it can be used",
                step.id,
                duration(took)
            );
            return Some(condition.judged(ConditionVerdict::Unknown, have));
        }
        if age > limit {
            let have = format!("{} is {} old", step.id, duration(age));
            return Some(condition.judged(ConditionVerdict::Fail, have));
        }
        if frozen_at(state, step).is_none() {
            let lapses = evidence.began_at.plus_ms(limit);
            condition.expires_at =
                Some(condition.expires_at.map_or(lapses, |other| other.min(lapses)));
        }
    }
    Some(condition.judged(ConditionVerdict::Pass, format!("PASS, {} old", duration(oldest))))
}

/// Why there is nothing to judge by. A verify that has ended and found nothing had what it found taken away.
fn no_result(state: &State, verify: &Step) -> String {
    let id = &verify.id;
    if state.step(id).progress == Progress::Succeeded {
        format!(
            "what {id} found is void, since a database may have lost its last transactions, and can't be found again: its sides \
             have parted"
        )
    } else {
        format!("{id} has no result")
    }
}

/// What is wrong with evidence that was made under another sync than that of now, if it was.
fn other_sync(
    state: &State,
    verify: &Step,
    evidence: &Evidence,
    seen: &Observations,
) -> Option<(ConditionVerdict, String)> {
    let (step, mapping) = (&verify.id, verify.action.mapping()?);
    match sync_since(state, verify, evidence, seen) {
        SyncSince::Same => None,
        SyncSince::Another => {
            let have = format!(
                "{step} is older than the triggers of {mapping}, which were made anew, changed, or switched off and on again, \
                 or whose tables were altered: writes may have passed them by"
            );
            Some((ConditionVerdict::Fail, have))
        }
        SyncSince::Unknown => {
            let have = format!("whether {mapping} was kept in step since {step} can't be told");
            Some((ConditionVerdict::Unknown, have))
        }
    }
}

/// Whether one of several results is more than a PARTIAL, or policy lets that do. A result that is not there yet is missed for itself.
fn is_vouched_for(state: &State, verifies: &[&Step]) -> bool {
    let partial_will_do = state.program().policy().allow_partial_verify;
    let is_part = |step: &&Step| {
        let evidence = state.step(&step.id).evidence.as_ref();
        evidence.is_some_and(|evidence| evidence.verdict == Verdict::Partial)
    };
    partial_will_do || !verifies.iter().all(is_part) || is_planted(Fault::PartialOpens)
}

/// Mappings whose objects the released steps touch and which no full PASS vouches for; for released work on no mapping, a PASS of
/// anything will do, which the caller looks for.
fn wanting_mappings<'a>(state: &State, verifies: &[&Step], guarded: &[&'a Step]) -> Vec<&'a str> {
    let partial_will_do =
        state.program().policy().allow_partial_verify || is_planted(Fault::PartialOpens);
    let vouched = |mapping: &MappingName| {
        verifies.iter().any(|step| {
            let full = match &step.action {
                Action::Verify(Verify::Mapping { mapping: of, method, .. }) => {
                    of == mapping && (*method == Method::Full || partial_will_do)
                }
                _ => false,
            };
            let verdict = state.step(&step.id).evidence.as_ref().map(|evidence| evidence.verdict);
            full && (verdict == Some(Verdict::Pass)
                || partial_will_do && verdict == Some(Verdict::Partial))
        })
    };
    let wanting: BTreeSet<&MappingName> = guarded
        .iter()
        .filter_map(|step| step.action.mapping())
        .filter(|mapping| !vouched(mapping))
        .collect();
    wanting.into_iter().map(MappingName::as_str).collect()
}

/// A verify step whose result a gate looks at.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The step.
    pub step: &'a Step,
    /// Its last result, if it has one.
    pub evidence: Option<&'a Evidence>,
    /// How old that is, in milliseconds; 0 without a result.
    pub age_ms: u64,
    /// Whether it grows no older and can't be made anew: the sides of its mapping have parted.
    pub stands_still: bool,
}

/// The results that a gate looks at.
#[must_use]
pub fn judged<'a>(state: &'a State, gate: &StepId, now: Timestamp) -> Vec<Judged<'a>> {
    let of = |step: &'a Step| {
        let evidence = state.step(&step.id).evidence.as_ref();
        Judged {
            step,
            evidence,
            age_ms: evidence.map_or(0, |evidence| age_ms(state, step, evidence, now)),
            stands_still: frozen_at(state, step).is_some(),
        }
    };
    judged_verifies(state, gate).map(of).collect()
}

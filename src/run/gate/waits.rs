//! Waits: conditions that time fulfils, if nothing happens meanwhile.

use super::super::action::{Action, Direction, Soak, UnusedFor, UsedBy};
use super::super::name::{MappingName, StepId};
use super::super::planted::{Fault, is_planted};
use super::super::record::Event;
use super::super::state::{Progress, State};
use super::super::time::Timestamp;
use super::super::usage::{self, Unused, Usage};
use super::super::window::Window;
use super::super::words::duration;
use super::asked::{capped, soak_needed, unused_needed, window_needed};
use super::{Condition, ConditionKind, ConditionVerdict, Observations, gate_of};

pub(super) fn soaked(state: &State, soak: &Soak, now: Timestamp) -> Condition {
    let policy = state.program().policy();
    let (cut, _) = capped(policy, soak.for_ms);
    let mut condition = Condition::new(ConditionKind::Soak, soak_needed(policy, soak));
    let after = state.step(&soak.after);
    let is_verify =
        state.program().step(&soak.after).is_some_and(|s| matches!(s.action, Action::Verify(_)));
    let since = if is_verify {
        after.passing_since
    } else if after.progress == Progress::Succeeded {
        after.ended_at
    } else {
        None
    };
    let Some(since) = since else {
        return condition
            .judged(ConditionVerdict::Fail, format!("{} has not ended well", soak.after));
    };
    let passed = if is_planted(Fault::SoakForgotten) { cut } else { now.since_ms(since) };
    condition.holds_at = (passed < cut).then(|| since.plus_ms(cut));
    let verdict = if passed >= cut { ConditionVerdict::Pass } else { ConditionVerdict::Fail };
    condition.judged(verdict, duration(passed))
}

/// Whether a window is open. What was read counts until the moment at which it changes.
pub(super) fn windowed(
    state: &State,
    window: &Window,
    seen: &Observations,
    now: Timestamp,
) -> Condition {
    let policy = state.program().policy();
    let mut condition = Condition::new(ConditionKind::Window, window_needed(policy, window));
    if policy.longest_wait_ms.is_some() {
        return condition.judged(ConditionVerdict::Pass, "policy opens every window");
    }
    let looked = match &seen.window {
        None => return condition.judged(ConditionVerdict::Unknown, "not looked at yet"),
        Some(Err(reason)) => return condition.judged(ConditionVerdict::Unknown, reason.clone()),
        Some(Ok(looked)) => looked,
    };
    let changes = looked.changes.as_ref();
    let has_changed = changes.is_some_and(|(at, _)| *at <= now);
    match (&looked.shut, has_changed) {
        (None, false) => {
            condition.expires_at = changes.map(|(at, _)| *at);
            let until = changes.map_or(String::new(), |(_, words)| format!(" until {words}"));
            condition.judged(ConditionVerdict::Pass, format!("open{until}"))
        }
        (Some(why), false) => {
            condition.holds_at = changes.map(|(at, _)| *at);
            let from = changes.map_or(String::new(), |(_, words)| format!("; opens {words}"));
            condition.judged(ConditionVerdict::Fail, format!("{why}{from}"))
        }
        (_, true) => condition.judged(ConditionVerdict::Fail, "changed since it was looked at"),
    }
}

/// Whether something has been unused for long enough.
pub(super) fn unused(
    state: &State,
    (at, asked): (usize, &UnusedFor),
    seen: &Observations,
    now: Timestamp,
) -> Condition {
    let policy = state.program().policy();
    let (cut, _) = capped(policy, asked.for_ms);
    let condition = Condition::new(ConditionKind::UnusedFor(at), unused_needed(policy, asked));
    match (seen.unused.get(at), &asked.by) {
        (None, _) => condition.judged(ConditionVerdict::Unknown, "not asked yet"),
        (Some(Err(reason)), _) => condition.judged(ConditionVerdict::Unknown, reason.clone()),
        (Some(Ok(Unused::ForMs(passed))), UsedBy::Query { .. }) => {
            waited(condition, (*passed, cut), "last used", now)
        }
        (Some(Ok(Unused::Counted(usage))), UsedBy::Counters(mapping)) => {
            counted(state, condition, (mapping, usage), cut, now)
        }
        (Some(Ok(_)), _) => condition.judged(ConditionVerdict::Unknown, "another thing was read"),
    }
}

fn counted(
    state: &State,
    condition: Condition,
    (mapping, usage): (&MappingName, &Usage),
    cut: u64,
    now: Timestamp,
) -> Condition {
    if state.retired_by(mapping).is_none() || state.direction(mapping) != Some(Direction::Forward) {
        // While the engine itself reads and writes it, counters say nothing of others.
        return condition.judged(ConditionVerdict::Unknown, "it has not been put aside yet");
    }
    if usage.is_in_use {
        return condition.judged(ConditionVerdict::Fail, "somebody is using it now");
    }
    match state.usage(mapping) {
        None => condition.judged(ConditionVerdict::Fail, "its time begins with the next look"),
        Some(known) if known.usage.counters != usage.counters => condition
            .judged(ConditionVerdict::Unknown, "its counters began anew, and so does its time"),
        Some(known) if !known.stands(usage) => {
            let uses = usage.count.abs_diff(known.usage.count);
            let ago = duration(now.since_ms(known.since));
            let times = if uses == 1 { "once".to_owned() } else { format!("{uses} times") };
            condition.judged(ConditionVerdict::Fail, format!("used {times} in the last {ago}"))
        }
        Some(known) => waited(condition, (now.since_ms(known.since), cut), "unused for", now),
    }
}

/// A wait of which so much has passed.
fn waited(
    mut condition: Condition,
    (passed, whole): (u64, u64),
    verb: &str,
    now: Timestamp,
) -> Condition {
    condition.holds_at = (passed < whole).then(|| now.plus_ms(whole - passed));
    let verdict = if passed >= whole { ConditionVerdict::Pass } else { ConditionVerdict::Fail };
    let ago = if verb == "last used" { " ago" } else { "" };
    condition.judged(verdict, format!("{verb} {}{ago}", duration(passed)))
}

/// The readings of counters that the journal must keep: the first, and those after which time counts anew.
pub(in crate::run) fn usage_to_keep(
    state: &State,
    gate: &StepId,
    seen: &Observations,
    now: Timestamp,
) -> Vec<Event> {
    let asks = state.program().step(gate).and_then(gate_of);
    let asked = asks.into_iter().flat_map(|asks| asks.unused_for.iter().zip(&seen.unused));
    asked
        .filter_map(|(asked, seen)| match (&asked.by, seen) {
            (UsedBy::Counters(mapping), Ok(Unused::Counted(usage))) => {
                let (for_ms, _) = capped(state.program().policy(), asked.for_ms);
                let is_kept = state.retired_by(mapping).is_some()
                    && usage::begins_anew(state.usage(mapping), usage, for_ms, now);
                is_kept.then(|| Event::UsageSeen { mapping: mapping.clone(), usage: usage.clone() })
            }
            _ => None,
        })
        .collect()
}

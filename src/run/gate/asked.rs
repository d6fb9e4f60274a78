//! What a gate asks, in words, before anything is known of a run: the same words that its conditions are reported with.

use super::super::action::{Approvals, Gate, GateQuery, Soak, UnusedFor, UsedBy};
use super::super::name::StepId;
use super::super::program::{Policy, Program};
use super::super::window::Window;
use super::super::words::{duration, plural};
use super::{ConditionKind, gate_of};

/// One thing that a gate asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Which condition it is.
    pub kind: ConditionKind,
    /// What is needed, in words.
    pub needed: String,
    /// Whether policy asked for it and the plan did not.
    pub from_policy: bool,
}

/// What a gate asks, by its plan and by policy.
#[must_use]
pub fn asks(program: &Program, gate: &StepId) -> Vec<Asked> {
    let Some(gate) = program.step(gate).and_then(gate_of) else { return Vec::new() };
    let policy = program.policy();
    let mut asked = Vec::new();
    let mut ask = |kind: ConditionKind, needed: String| {
        let from_policy = is_from_policy(gate, &kind);
        asked.push(Asked { kind, needed, from_policy });
    };
    for approvals in &gate.approvals {
        ask(ConditionKind::Approvals(approvals.group.clone()), approvals_needed(approvals));
    }
    if let Some(limit) = gate.verified_within_ms {
        ask(ConditionKind::VerifiedWithin, pass_needed(Some(limit)));
    }
    if let Some(soak) = &gate.soak {
        ask(ConditionKind::Soak, soak_needed(policy, soak));
    }
    if let Some(window) = &gate.window {
        ask(ConditionKind::Window, window_needed(policy, window));
    }
    for (at, unused) in gate.unused_for.iter().enumerate() {
        ask(ConditionKind::UnusedFor(at), unused_needed(policy, unused));
    }
    if let Some(max_ms) = gate.relay_lag_max_ms {
        ask(ConditionKind::RelayLag, lag_needed(max_ms));
    }
    if let Some(max) = gate.relay_rows_max {
        ask(ConditionKind::RelayRows, rows_needed(max));
    }
    for (at, query) in gate.queries.iter().enumerate() {
        ask(ConditionKind::Query(at), query_needed(query));
    }
    asked
}

/// Whether policy asked for a condition and the plan did not.
pub(super) fn is_from_policy(gate: &Gate, kind: &ConditionKind) -> bool {
    gate.from_policy.iter().any(|name| *name == kind.name())
}

pub(super) fn approvals_needed(approvals: &Approvals) -> String {
    format!("{} of {}", plural(u64::from(approvals.count), "approval"), approvals.group)
}

pub(super) fn pass_needed(limit_ms: Option<u64>) -> String {
    match limit_ms {
        Some(limit) => format!("a PASS not older than {}", duration(limit)),
        None => "a PASS".to_owned(),
    }
}

/// How long a wait is where policy caps it, and how that is said.
pub(super) fn capped(policy: &Policy, for_ms: u64) -> (u64, String) {
    let cut = policy.longest_wait_ms.map_or(for_ms, |cap| cap.min(for_ms));
    if cut < for_ms {
        return (cut, format!(" (cut from {} by policy)", duration(for_ms)));
    }
    (cut, String::new())
}

pub(super) fn soak_needed(policy: &Policy, soak: &Soak) -> String {
    let (cut, note) = capped(policy, soak.for_ms);
    format!("{} after {}{note}", duration(cut), soak.after)
}

pub(super) fn window_needed(policy: &Policy, window: &Window) -> String {
    let note = if policy.longest_wait_ms.is_some() { " (lifted by policy)" } else { "" };
    format!("{window}{note}")
}

pub(super) fn unused_needed(policy: &Policy, asked: &UnusedFor) -> String {
    let (cut, note) = capped(policy, asked.for_ms);
    let what = match &asked.by {
        UsedBy::Counters(mapping) => format!("the old side of {mapping}"),
        UsedBy::Query { target, query } => format!("{} on {target}", query.trim()),
    };
    format!("{what} unused for {}{note}", duration(cut))
}

pub(super) fn lag_needed(max_ms: u64) -> String {
    format!("no change to wait for another database longer than {}", duration(max_ms))
}

pub(super) fn rows_needed(max: u64) -> String {
    match max {
        0 => "no change to wait for another database".to_owned(),
        _ => format!("at most {} to wait for other databases", plural(max, "change")),
    }
}

pub(super) fn query_needed(query: &GateQuery) -> String {
    format!("{} on {} to give {}", query.query.trim(), query.target, query.expect)
}

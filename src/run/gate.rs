//! Gates: conditions, and what holds of them now.
//!
//! Everything a condition needs is in the state, in what was just read from the targets ([`Observations`]) and in the time.
//! Unknown opens nothing: a query that could not be asked, a target that could not be read, evidence that is missing.

use std::collections::BTreeMap;

use serde_json::json;

use super::action::{Action, Approvals, Gate, GateQuery, Value};
use super::digest::Digest;
use super::expect::check;
use super::lineage::may_lack;
use super::name::{GroupName, MappingName, StepId, TargetName};
use super::planted::{Fault, is_planted};
use super::program::Step;
use super::record::{Failure, Proof};
use super::state::{Decision, DecisionVerdict, Progress, State};
use super::time::Timestamp;
use super::usage::Unused;
use super::window::WindowSeen;
use super::words::plural;

mod asked;
mod behind;
mod evidence;
mod waits;

pub use asked::{Asked, asks};
pub use behind::Behind;
pub use evidence::{Judged, judged};
pub(super) use evidence::{is_judged, judged_verifies, stale_verifies};
pub(super) use waits::usage_to_keep;

/// What was read from the targets for a gate, since the pure part can't look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    /// The value of each query condition, in the gate's order; or why there is none.
    pub queries: Vec<Result<Value, String>>,
    /// Why the policy that the run pinned is not to be acted on any more, if so.
    pub other_policy: Option<String>,
    /// The gate's window, if it has one; or why that can't be told.
    pub window: Option<Result<WindowSeen, String>>,
    /// The last use of each thing that must be unused, in the gate's order; or why that can't be told.
    pub unused: Vec<Result<Unused, String>>,
    /// How many rows are parked, where the plan lets any be; or why that can't be told.
    pub parked: Option<Result<u64, String>>,
    /// What other databases lack of each database in which changes are captured for them now, or why that can't be told; where
    /// the gate asks for it.
    pub behind: Option<BTreeMap<TargetName, Result<Behind, String>>>,
    /// The sync of each mapping that is kept in step now; or why nothing can be told of it.
    pub syncs: BTreeMap<MappingName, Result<SyncSeen, String>>,
    /// What each database that the gate depends on says of its lineage; or why that can't be told.
    pub lineages: BTreeMap<TargetName, Result<String, Failure>>,
    /// What the targets are, and what the released work touches there.
    pub targets: BTreeMap<TargetName, Result<TargetFacts, String>>,
}

/// What there is of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncSeen {
    /// What is wrong with it, if anything is.
    pub wrong: Option<String>,
    /// Stands for it: another where it was switched off, changed or made anew meanwhile.
    pub digest: Digest,
}

/// What approvals bind to in a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFacts {
    /// System, database and role, in one text. Never the URL.
    pub identity: String,
    /// The fingerprint of the objects that the released work touches.
    pub fingerprint: Digest,
}

/// What holds of a gate now.
#[derive(Clone, Debug, PartialEq)]
pub struct GateReport {
    /// The gate.
    pub gate: StepId,
    /// The digest of the work it releases, once it can take approvals.
    pub work: Option<Digest>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// One condition and what holds of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Which.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub verdict: ConditionVerdict,
    /// What is needed, in words.
    pub needed: String,
    /// What there is, in words.
    pub have: String,
    /// When it lapses, while it holds.
    pub expires_at: Option<Timestamp>,
    /// When it will hold if nothing happens, while it doesn't.
    pub holds_at: Option<Timestamp>,
    /// Whether policy asked for it and the plan did not.
    pub from_policy: bool,
}

/// Kinds of condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionKind {
    /// What the gate needs has succeeded.
    Needs,
    /// The policy is the one that the run was started or last amended under.
    Policy,
    /// Nobody has rejected.
    NotRejected,
    /// The targets are as they were when the gate was reached.
    Unchanged,
    /// No row is parked.
    NotParked,
    /// Both sides of a mapping are kept in step.
    InStep(MappingName),
    /// Enough people of a group approved.
    Approvals(GroupName),
    /// The evidence is fresh.
    VerifiedWithin,
    /// Something has been well for long enough.
    Soak,
    /// It is one of the times at which the gate may open.
    Window,
    /// Nobody has used something for long enough; counted from 0.
    UnusedFor(usize),
    /// No change has waited for another database for too long.
    RelayLag,
    /// No more changes wait for other databases than may.
    RelayRows,
    /// A query gives what it must; counted from 0.
    Query(usize),
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionVerdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It can't be told, which opens nothing.
    Unknown,
}

impl GateReport {
    /// Whether every condition holds.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.conditions.iter().all(|c| c.verdict == ConditionVerdict::Pass)
    }
}

impl Condition {
    fn new(kind: ConditionKind, needed: impl Into<String>) -> Self {
        Self {
            kind,
            verdict: ConditionVerdict::Fail,
            needed: needed.into(),
            have: String::new(),
            expires_at: None,
            holds_at: None,
            from_policy: false,
        }
    }

    fn judged(mut self, verdict: ConditionVerdict, have: impl Into<String>) -> Self {
        self.verdict = verdict;
        self.have = have.into();
        self
    }
}

/// The gate that a step is, if it is one.
pub(super) fn gate_of(step: &Step) -> Option<&Gate> {
    match &step.action {
        Action::Gate(gate) => Some(gate),
        _ => None,
    }
}

/// Whether a step may only start while its gates hold: what destroys, what nobody can tell, and `retire`.
#[must_use]
pub fn is_guarded(step: &Step) -> bool {
    step.hazard.needs_permit() || matches!(step.action, Action::Retire(_))
}

/// The digest of the work that a gate releases: the steps with their statements, files, undo or irreversible reason; the
/// verify definitions it relies on; who the targets are; what the touched objects look like; the policy; the run.
/// Measured values and times are no part of it.
pub(super) fn work(
    state: &State,
    gate: &StepId,
    identities: &BTreeMap<TargetName, String>,
    fingerprints: &BTreeMap<TargetName, Digest>,
) -> Digest {
    let program = state.program();
    let released: Vec<_> =
        program.released_by(gate).map(|step| json!([step.id, step.digest])).collect();
    let verifies: Vec<_> =
        judged_verifies(state, gate).map(|step| json!([step.id, step.digest])).collect();
    let own = program.step(gate).map(|step| &step.digest);
    Digest::of(
        "work",
        &json!({
            "run": state.run(),
            "gate": [gate, own],
            "released": released,
            "verifies": verifies,
            "identities": identities,
            "fingerprints": fingerprints,
            "policy": program.policy(),
        }),
    )
}

/// What holds of a gate at `now`.
#[must_use]
pub fn report(state: &State, gate: &StepId, seen: &Observations, now: Timestamp) -> GateReport {
    let work = state.gate(gate).and_then(|known| known.work.clone());
    let mut conditions = Vec::new();
    if let Some((step, asks)) =
        state.program().step(gate).and_then(|step| Some((step, gate_of(step)?)))
    {
        conditions.push(needs(state, step));
        conditions.extend(seen.other_policy.as_ref().map(other_policy));
        conditions.extend(rejections(state, gate));
        conditions.extend(targets(state, gate, work.as_ref(), seen));
        let may_park = state.program().parks().next().is_some();
        conditions.extend(may_park.then(|| unparked(seen)));
        conditions.extend(seen.syncs.iter().filter_map(in_step));
        for approvals in &asks.approvals {
            conditions.push(approved(state, gate, asks, approvals, now));
        }
        conditions.extend(evidence::verified(state, (step, asks), seen, now));
        conditions.extend(asks.soak.as_ref().map(|soak| waits::soaked(state, soak, now)));
        let window = asks.window.as_ref();
        conditions.extend(window.map(|window| waits::windowed(state, window, seen, now)));
        for (at, unused) in asks.unused_for.iter().enumerate() {
            conditions.push(waits::unused(state, (at, unused), seen, now));
        }
        conditions.extend(asks.relay_lag_max_ms.map(|max_ms| behind::lag(max_ms, seen)));
        conditions.extend(asks.relay_rows_max.map(|max| behind::rows(max, seen)));
        for (at, query) in asks.queries.iter().enumerate() {
            conditions.push(queried(at, query, seen));
        }
        for condition in &mut conditions {
            condition.from_policy = asked::is_from_policy(asks, &condition.kind);
        }
    }
    GateReport { gate: gate.clone(), work, conditions }
}

impl ConditionKind {
    /// The condition's key in plans, and the group for approvals (`approvals:dba`).
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Needs => "needs".to_owned(),
            Self::Policy => "policy".to_owned(),
            Self::NotRejected => "not_rejected".to_owned(),
            Self::Unchanged => "unchanged".to_owned(),
            Self::NotParked => "not_parked".to_owned(),
            Self::InStep(mapping) => format!("in_step:{mapping}"),
            Self::Approvals(group) => format!("approvals:{group}"),
            Self::VerifiedWithin => "verified_within".to_owned(),
            Self::Soak => "soak".to_owned(),
            Self::Window => "window".to_owned(),
            Self::UnusedFor(at) => format!("unused_for/{at}"),
            Self::RelayLag => "relay_lag".to_owned(),
            Self::RelayRows => "relay_rows".to_owned(),
            Self::Query(at) => format!("query/{at}"),
        }
    }
}

fn needs(state: &State, step: &Step) -> Condition {
    let open: Vec<&str> = step
        .needs
        .iter()
        .filter(|need| state.step(need).progress != Progress::Succeeded)
        .map(StepId::as_str)
        .collect();
    let condition = Condition::new(
        ConditionKind::Needs,
        format!("{} before it to have succeeded", plural(step.needs.len() as u64, "step")),
    );
    if open.is_empty() {
        condition.judged(ConditionVerdict::Pass, "all have")
    } else {
        condition.judged(ConditionVerdict::Fail, format!("not yet: {}", open.join(", ")))
    }
}

/// A row that was left out of its chunk is on one side only, whatever a gate releases.
fn unparked(seen: &Observations) -> Condition {
    let condition = Condition::new(ConditionKind::NotParked, "no parked row");
    match &seen.parked {
        None => condition.judged(ConditionVerdict::Unknown, "not looked at yet"),
        Some(Err(reason)) => condition.judged(ConditionVerdict::Unknown, reason.clone()),
        Some(Ok(0)) => condition.judged(ConditionVerdict::Pass, "none"),
        Some(Ok(rows)) => {
            condition.judged(ConditionVerdict::Fail, format!("{} parked", plural(*rows, "row")))
        }
    }
}

/// There is no such condition while the policy is the same.
fn other_policy(why: &String) -> Condition {
    Condition::new(ConditionKind::Policy, "the policy that the run was started under")
        .judged(ConditionVerdict::Fail, why)
}

/// There is no such condition while a sync is as the run made it. Whatever was verified before counts for nothing once writes
/// may have passed it by.
fn in_step((mapping, seen): (&MappingName, &Result<SyncSeen, String>)) -> Option<Condition> {
    let (verdict, have) = match seen {
        Ok(SyncSeen { wrong, .. }) => (ConditionVerdict::Fail, wrong.as_ref()?),
        Err(why) => (ConditionVerdict::Unknown, why),
    };
    let needed = format!("both sides of {mapping} to be kept in step");
    Some(Condition::new(ConditionKind::InStep(mapping.clone()), needed).judged(verdict, have))
}

/// A rejection stands until whoever made it takes it back, or an amendment voids the gate: that somebody has changed the
/// schema since is no answer to it.
fn rejections(state: &State, gate: &StepId) -> Option<Condition> {
    let known = state.gate(gate)?;
    let rejected: Vec<String> = known
        .decisions
        .iter()
        .filter_map(|decision| match &decision.verdict {
            DecisionVerdict::Rejected(reason) => Some(format!("{}: {reason}", decision.by.name)),
            DecisionVerdict::Approved(_) => None,
        })
        .collect();
    (!rejected.is_empty() && !is_planted(Fault::RejectionForgotten)).then(|| {
        Condition::new(ConditionKind::NotRejected, "no rejection that stands")
            .judged(ConditionVerdict::Fail, format!("rejected by {}", rejected.join("; ")))
    })
}

/// Whether the targets are what the gate's digest was made over, moved on by the run's own steps only.
fn targets(
    state: &State,
    gate: &StepId,
    work_then: Option<&Digest>,
    seen: &Observations,
) -> Option<Condition> {
    let known = state.gate(gate)?;
    let condition = Condition::new(
        ConditionKind::Unchanged,
        "the targets as they were when the gate was reached",
    );
    let mut identities = BTreeMap::new();
    let mut changed = Vec::new();
    for (target, lineage) in &seen.lineages {
        match lineage {
            Ok(now) if state.lineage(target) == Some(now) => {}
            Ok(_) => changed.push(may_lack(target)),
            Err(failure) => {
                let have = format!("{target} could not be read: {}", failure.message);
                return Some(condition.judged(ConditionVerdict::Unknown, have));
            }
        }
    }
    for (target, facts) in &seen.targets {
        match facts {
            Ok(facts) => {
                identities.insert(target.clone(), facts.identity.clone());
                let expected = known.expected.get(target);
                if expected.is_some_and(|expected| *expected != facts.fingerprint) {
                    changed.push(format!("{target} (its schema changed)"));
                }
            }
            Err(reason) => {
                let have = format!("{target} could not be read: {reason}");
                return Some(condition.judged(ConditionVerdict::Unknown, have));
            }
        }
    }
    if changed.is_empty() && work_then != Some(&work(state, gate, &identities, &known.reached)) {
        changed.push("the work itself, or which databases it goes to".to_owned());
    }
    if changed.is_empty() {
        None
    } else {
        let have = format!("changed: {}", changed.join(", "));
        Some(condition.judged(ConditionVerdict::Fail, have))
    }
}

fn approved(
    state: &State,
    gate: &StepId,
    asks: &Gate,
    approvals: &Approvals,
    now: Timestamp,
) -> Condition {
    let known = state.gate(gate);
    let work = known.and_then(|known| known.work.as_ref());
    let mut standing: Vec<&Decision> = known
        .into_iter()
        .flat_map(|known| &known.decisions)
        .filter(|decision| {
            matches!(decision.verdict, DecisionVerdict::Approved(_))
                && (Some(&decision.work) == work || is_planted(Fault::ApprovalKept))
                && decision.at.plus_ms(asks.expires_ms) > now
                && decision.group.as_ref().is_none_or(|group| *group == approvals.group)
        })
        .collect();
    // Whoever amended the run after approving has become its author.
    if state.program().policy().author_may_approve == Some(false) {
        standing.retain(|decision| decision.by.name != state.author().name);
    }
    // In production nothing vouches for claimed names, so together they are one person.
    if state.program().policy().production {
        let mut claimed = false;
        standing.retain(|decision| {
            decision.by.proof != Proof::Claimed || !std::mem::replace(&mut claimed, true)
        });
    }
    let have = u32::try_from(standing.len()).unwrap_or(u32::MAX);
    let names: Vec<&str> = standing.iter().map(|decision| decision.by.name.as_str()).collect();
    let mut condition = Condition::new(
        ConditionKind::Approvals(approvals.group.clone()),
        asked::approvals_needed(approvals),
    );
    condition.expires_at = standing.iter().map(|d| d.at.plus_ms(asks.expires_ms)).min();
    let verdict =
        if have >= approvals.count { ConditionVerdict::Pass } else { ConditionVerdict::Fail };
    let have =
        if names.is_empty() { "none".to_owned() } else { format!("{have}: {}", names.join(", ")) };
    condition.judged(verdict, have)
}

fn queried(at: usize, query: &GateQuery, seen: &Observations) -> Condition {
    let condition = Condition::new(ConditionKind::Query(at), asked::query_needed(query));
    match seen.queries.get(at) {
        None => condition.judged(ConditionVerdict::Unknown, "not asked yet"),
        Some(Err(reason)) => condition.judged(ConditionVerdict::Unknown, reason.clone()),
        Some(Ok(value)) if check(&query.expect, value) => {
            condition.judged(ConditionVerdict::Pass, value.to_string())
        }
        Some(Ok(value)) => condition.judged(ConditionVerdict::Fail, value.to_string()),
    }
}

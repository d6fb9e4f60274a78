//! Gates: conditions, and what holds of them now.

use std::collections::BTreeMap;

use super::digest::Digest;
use super::name::{GroupName, StepId, TargetName};
use super::program::Value;
use super::time::Timestamp;

/// What was read from the targets for a gate, since the pure part can't look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    /// The value of each query condition, in the gate's order; or why there is none.
    pub queries: Vec<Result<Value, String>>,
    /// What the targets are, and what the released work touches there.
    pub targets: BTreeMap<TargetName, TargetFacts>,
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
    /// Nobody has rejected.
    NotRejected,
    /// Enough people of a group approved.
    Approvals(GroupName),
    /// The evidence is fresh.
    VerifiedWithin,
    /// Something has been well for long enough.
    Soak,
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

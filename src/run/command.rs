//! What an operator asks of a run, and why it may be refused.

use super::name::{GroupName, MappingName, RunId, StepId};
use super::record::{Pin, Resolution, Tuning};

/// Something an operator asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Stop before the next chunk or step.
    Pause {
        /// Why.
        reason: Option<String>,
    },
    /// Go on after a pause.
    Resume,
    /// Try failed steps again, a verify that found differences too.
    Retry,
    /// Say what came of an ambiguous step.
    Resolve {
        /// Which.
        step: StepId,
        /// What came of it.
        outcome: Resolution,
        /// How they know.
        reason: String,
        /// The attempt that they looked at, where they say so.
        attempt: Option<u32>,
    },
    /// Take a lease away from whoever holds it.
    ReleaseLock {
        /// The lease: of the run, or of a relay of it.
        lock: RunId,
        /// Who holds it, in words.
        holder: String,
        /// Why.
        reason: String,
    },
    /// Go back.
    Rollback {
        /// Mappings whose writes to the new side alone may be lost.
        accept_loss: Vec<MappingName>,
    },
    /// Give the run up.
    Abort {
        /// Leave what was changed where it is; only the sync and our own objects go.
        leave: bool,
        /// Why; needed with `leave`.
        reason: Option<String>,
    },
    /// Put another plan in the place of the pinned one.
    Amend {
        /// The new plan.
        pin: Box<Pin>,
    },
    /// Change a backfill's settings.
    Tune {
        /// Which; may be left out when the plan has one backfill only.
        step: Option<StepId>,
        /// To what.
        tuning: Tuning,
    },
    /// Approve a gate.
    Approve {
        /// Which.
        gate: StepId,
        /// The digest that was shown, as typed; checked when given.
        work: Option<String>,
        /// For which group; may be left out where it is plain.
        group: Option<GroupName>,
        /// What to say.
        comment: Option<String>,
    },
    /// Reject a gate.
    Reject {
        /// Which.
        gate: StepId,
        /// Why.
        reason: String,
    },
    /// Take back one's own approval or rejection.
    Revoke {
        /// Of which gate.
        gate: StepId,
    },
}

/// Why something was refused, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind, which decides the exit code.
    pub kind: RefusalKind,
    /// One sentence.
    pub message: String,
    /// What to do instead.
    pub help: Option<String>,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// It makes no sense in this state or names something that isn't there (exit 64).
    Usage,
    /// It is not allowed: not a member, twice the same person, past the point of no return (exit 77).
    NotPermitted,
    /// What was shown is no longer what is there (exit 6).
    Stale,
    /// The new plan has findings against the run (exit 3).
    Findings,
}

impl Refusal {
    pub(super) fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None }
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

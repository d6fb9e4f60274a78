//! A piece of work on a target: what it is entered as in the ledger there, and how it went.

use crate::run::{Digest, FailureClass, Resolution, Resolved, StepId, Way};

use super::Error;

/// An attempt at a step, as the ledger in the target knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The step.
    pub step: StepId,
    /// Done or undone.
    pub way: Way,
    /// The journal's version when the attempt was recorded, and the hash of that entry: the target keeps the highest as
    /// the head of the history, against which `history --verify` holds the journal.
    pub head: Head,
    /// How long to wait for a lock, in milliseconds, where the step says so.
    pub lock_timeout_ms: Option<u64>,
    /// Stands for the sync under which the sides were compared on whose equality this rests ([`Basis::of_sync`](super::Basis::of_sync)); none where it
    /// rests on no comparison, or, on the way forward, where the sync is over.
    pub compared_under: Option<Digest>,
    /// What an operator said of an earlier attempt at the step of which nobody could tell. The ledger's marks from before that are
    /// brought in line with it before anything else is done.
    pub resolved: Option<Resolved>,
}

impl Work {
    /// Whether an operator says that what was lost of this very work was done.
    #[must_use]
    pub fn is_told_done(&self) -> bool {
        let told = |it: Resolved| it.way == self.way && it.outcome == Resolution::Applied;
        self.resolved.is_some_and(told)
    }

    /// The error where that is so and the ledger has nothing that it could be about. Nothing may be done then: that would be doing it
    /// once more.
    pub(super) fn unmarked(&self) -> Error {
        let message = format!(
            "{} was resolved as applied, and the ledger has no mark of what it had begun",
            self.step
        );
        Error::failed(FailureClass::Stale, message)
            .with_help("somebody took it away: see in the database what was done, then `phasegate rollback RUN`")
    }
}

/// A place in a journal and the hash of the chain up to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The record's version.
    pub version: u64,
    /// The hash of the chain up to that record.
    pub hash: Digest,
}

/// How a recorded piece of work went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether the ledger already had it, and nothing was done now.
    pub before: bool,
    /// Rows changed, as the ledger has it.
    pub rows: u64,
    /// One sentence for people, if there is more to say.
    pub detail: Option<String>,
}

/// How a chunk went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Whether the ledger already had it.
    pub before: bool,
    /// Rows of the source in it.
    pub rows_read: u64,
    /// Rows written.
    pub rows_written: u64,
    /// Time spent in the database, in microseconds.
    pub took_us: u64,
    /// Whether it waited for somebody's lock meanwhile, or had to be begun again, so that its time says nothing.
    pub contended: bool,
}

/// The entry of the ledger which says that a sync is out and the emptying of what it filled has begun. What is there from
/// then on stands still while clients write to the old side, so that the sides differ and nothing can be told from that.
#[must_use]
pub fn emptying(step: &StepId) -> StepId {
    StepId::new(format!("{step}/emptying"))
}

/// The piece of work that takes the sync of a step out where the run is given up. It gives up what is parked, too.
#[must_use]
pub fn given_up(step: &StepId) -> StepId {
    StepId::new(format!("{GIVEN_UP}{step}"))
}

/// The step whose sync a piece of work takes out in that way, where it is one of these.
#[must_use]
pub fn gives_up(step: &StepId) -> Option<StepId> {
    step.as_str().strip_prefix(GIVEN_UP).map(StepId::new)
}

/// No step of a plan has a slash in its name.
const GIVEN_UP: &str = "abort/";

//! Who works on a target: what a run claims there, who holds it, and the right to change it.
//!
//! Absent on purpose: how a database keeps claims and tokens, which is each driver's own `claim`.

use std::fmt;

use crate::run::{Digest, Ending, MappingName, RunId};

use super::Head;

/// Who works on a target for a run, as the target itself records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The run.
    pub run: RunId,
    /// The plan's name.
    pub plan: String,
    /// The plan's digest.
    pub digest: Digest,
    /// The identity of the state store that holds the journal.
    pub store: String,
    /// The machine that runs it.
    pub host: String,
    /// The operating system's process id there.
    pub pid: u32,
    /// The objects it works on; empty means the whole database.
    pub objects: Vec<String>,
    /// The mappings it works on there: the names of our own triggers, functions and tables of marks hang on theirs.
    pub mappings: Vec<MappingName>,
    /// How many of its steps work there at once, each with slots of its own.
    pub parallel: u32,
    /// What of another state store's claim for this run may be taken over: the run came from there. None for a run that began
    /// in this store.
    pub adopts: Option<Adoption>,
}

/// How far another store's claim is one that this store knows all about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The newest token that had been given when the run left the other store.
    pub up_to_token: u64,
    /// The head that the target keeps, which is in this store's journal or known to be lost; none where it kept none.
    pub head: Option<Head>,
    /// The head of the journal that takes the place of a lost one, to be kept instead. What was entered under the lost one counts as
    /// entered before the first record of this one.
    pub anew: Option<Head>,
}

/// What a target has of a run, whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remnant {
    /// The run.
    pub run: RunId,
    /// The plan's digest when it was entered last.
    pub digest: String,
    /// The state store of whoever entered last, and where that was.
    pub store: String,
    /// The machine that last drove it.
    pub host: String,
    /// The process that last drove it.
    pub pid: u32,
    /// Since when, as the target wrote it (UTC).
    pub since: String,
    /// Whether it holds the target still.
    pub is_open: bool,
    /// How the run ended, where it has left the target, if only for a time.
    pub left: Option<Ending>,
    /// The newest token of each of its slots' owners: the run, and its relays.
    pub tokens: Vec<(RunId, u64)>,
    /// The head of the journal.
    pub head: Option<Head>,
}

/// What a target has of a run before it is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entered {
    /// The store of whoever entered it last.
    pub store: String,
    /// The newest token of its slots; 0 where there are none.
    pub token: u64,
    /// The head of the journal.
    pub head: Option<Head>,
}

impl Claim {
    /// Whether it is a claim of a store, wherever that stands now.
    pub(super) fn is_of(&self, store: &str) -> bool {
        store_identity(&self.store) == store_identity(store)
    }

    /// The head to keep in the place of what a target has, which another store has entered.
    pub(super) fn anew(&self, entered_by: &str) -> Option<&Head> {
        self.adopts
            .as_ref()
            .and_then(|adopts| adopts.anew.as_ref())
            .filter(|_| !self.is_of(entered_by))
    }

    /// Whether what a target has of this run is this store's to go on with: its own, or one that came here whole. Whoever
    /// drove it in the other store since then has raised the token there, or moved the head.
    pub(super) fn may_go_on(&self, entered: &Entered) -> bool {
        if self.is_of(&entered.store) {
            return true;
        }
        self.adopts.as_ref().is_some_and(|adopts| {
            entered.token <= adopts.up_to_token && entered.head == adopts.head
        })
    }
}

/// A store's identity, out of what claims say of it. The rest is where it was found, which may change.
#[must_use]
pub fn store_identity(store: &str) -> &str {
    store.split_once(" at ").map_or(store, |(identity, _)| identity)
}

/// A claim found in a target that keeps ours out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The run that holds it.
    pub run: RunId,
    /// Its plan.
    pub plan: String,
    /// The state store it belongs to.
    pub store: String,
    /// The machine that last drove it.
    pub host: String,
    /// The process that last drove it.
    pub pid: u32,
    /// Since when, as the target wrote it (UTC).
    pub since: String,
    /// What both runs want.
    pub over: Shared,
}

/// What two runs both want, so that only one of them can be under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shared {
    /// The run itself, which another state store drives now.
    Run,
    /// Everything: one of them claims the whole database.
    Database,
    /// A table.
    Table(String),
    /// The name of a mapping, on which the names of our objects hang.
    Mapping(MappingName),
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run => write!(f, "the run itself"),
            Self::Database => write!(f, "the whole database"),
            Self::Table(name) => write!(f, "table {name}"),
            Self::Mapping(name) => write!(f, "mapping {name}"),
        }
    }
}

/// The right to change a target, for one slot of one run, under one lease. Checked in every commit.
///
/// Made by [`Session::enter`](super::Session::enter) only (its fields are private to this room).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    run: RunId,
    slot: u32,
    token: u64,
}

impl Fence {
    /// Only for this room's `enter`, which writes the token to the slot's row first.
    pub(super) const fn new(run: RunId, slot: u32, token: u64) -> Self {
        Self { run, slot, token }
    }

    /// The run it belongs to.
    #[must_use]
    pub const fn run(&self) -> &RunId {
        &self.run
    }

    /// The slot, counted from 0: a step's own, or that of one of its workers.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        self.slot
    }

    /// The fencing token of the lease it was made under.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::fixture::claim;

    #[test]
    fn a_claim_of_another_store_is_taken_over_only_as_it_was_left() {
        let head = |version: u64| Head { version, hash: Digest::of_bytes(&version.to_le_bytes()) };
        let left = Entered { store: "old at a.db".into(), token: 3, head: Some(head(7)) };
        let of = |adopts| Claim { store: "new at b.db".into(), adopts, ..claim("r1") };
        let adopts = |up_to_token, head| Some(Adoption { up_to_token, head, anew: None });
        let table = [
            (of(None), false),
            (of(adopts(3, Some(head(7)))), true),
            (of(adopts(4, Some(head(7)))), true),
            // Driven on over there since the run was exported.
            (of(adopts(2, Some(head(7)))), false),
            (of(adopts(3, Some(head(6)))), false),
            (of(adopts(3, None)), false),
            // The same store, wherever it stands now.
            (Claim { store: "old at elsewhere.db".into(), ..of(None) }, true),
        ];
        for (claim, expected) in table {
            assert_eq!(claim.may_go_on(&left), expected, "{claim:?}");
        }
    }
}

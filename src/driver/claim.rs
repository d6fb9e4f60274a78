//! Who works on a target: what a run claims there, who holds it, and the right to change it.
//!
//! Absent on purpose: how a database keeps claims and tokens, which is each driver's own `claim`.

use std::fmt;

use crate::run::{Digest, MappingName, RunId};

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
}

/// A claim found in a target that overlaps with ours.
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

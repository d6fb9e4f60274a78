//! The entries of a run's journal. The journal is the truth about steps, gates and decisions.
//!
//! An [`Event`] says what happened; a [`Record`] says when, by whom, and as which entry. Chunks are never recorded one by one:
//! their truth is the ledger in the target.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::action::{ChunkRows, Value};
use super::adopt::{LostHead, Traces};
use super::difference::{Difference, Redact};
use super::digest::Digest;
use super::name::{GroupName, MappingName, RunId, StepId, TargetName};
use super::private::{Private, hide};
use super::program::Program;
use super::throttle::Moved;
use super::time::Timestamp;
use super::usage::Usage;

/// One entry of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the run's journal, counted from 1 without gaps.
    pub version: u64,
    /// When it was decided, by the store's clock.
    pub at: Timestamp,
    /// Who decided it.
    pub by: Actor,
    /// What happened.
    pub event: Event,
}

/// Who caused a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The person's name, or `phasegate` for what the engine does by itself.
    pub name: String,
    /// How the name is known.
    pub proof: Proof,
    /// The machine.
    pub host: String,
}

impl Actor {
    /// The engine itself, on a machine.
    #[must_use]
    pub fn engine(host: &str) -> Self {
        Self { name: "phasegate".to_owned(), proof: Proof::Engine, host: host.to_owned() }
    }
}

/// How an actor's name is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// It is the engine itself.
    Engine,
    /// The name was given, and nothing vouches for it.
    Claimed,
    /// The operating system's account.
    Os,
}

impl Event {
    /// Takes away what of the differences in it is to be hidden.
    pub fn redact(&mut self, redact: Redact) {
        match self {
            Self::StepDiffers { evidence, .. }
            | Self::StepSucceeded { outcome: Outcome { evidence: Some(evidence), .. }, .. } => {
                evidence.redact(redact);
            }
            Self::StepFailed { failure, .. } => failure.redact(redact),
            _ => {}
        }
    }
}

/// The plan as a run pins it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// The file it was read from, as it was given.
    pub path: String,
    /// Its text.
    pub source: String,
    /// Its meaning as canonical JSON, the value that the digest is over; two of them make a readable difference.
    pub meaning: serde_json::Value,
    /// What it compiled to.
    pub program: Program,
}

/// Which way a step is being performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Done.
    Forward,
    /// Undone.
    Back,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Event {
    /// The run began. Always the first record, and only that.
    RunStarted {
        /// The run.
        run: RunId,
        /// The plan it executes.
        pin: Box<Pin>,
    },
    /// The journal that this run had is lost, and the run goes on with this one. Always the second record, and only that.
    AdoptionBegun {
        /// Where the lost one was, and who drove the run last, in words.
        from: String,
        /// What the targets knew of the lost one.
        heads: BTreeMap<TargetName, LostHead>,
    },
    /// What the targets have of the run was read, with everybody else shut out.
    RunAdopted {
        /// What it is.
        traces: Traces,
    },
    /// Another plan took the place of the pinned one, for steps that had not started.
    PlanAmended {
        /// The new plan.
        pin: Box<Pin>,
        /// Steps whose work changed, appeared or went.
        changed: Vec<StepId>,
        /// Gates whose released work changed: their approvals are void.
        voided: Vec<StepId>,
    },
    /// An attempt at a step is about to touch its target.
    StepStarted {
        /// The step.
        step: StepId,
        /// Which attempt, counted from 1.
        attempt: u32,
        /// Done or undone.
        way: Way,
        /// Why it may destroy: what the gates were when it started. Absent for steps that destroy nothing.
        permit: Option<PermitRecord>,
    },
    /// An attempt ended well.
    StepSucceeded {
        /// The step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// Done or undone.
        way: Way,
        /// What came of it.
        outcome: Outcome,
    },
    /// An attempt failed.
    StepFailed {
        /// The step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// Done or undone.
        way: Way,
        /// What went wrong.
        failure: Failure,
        /// When the engine tries again by itself; `None` when it does not.
        retry_at: Option<Timestamp>,
        /// Whether something of it is committed, or may be, by the target's ledger; `None` where nobody asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        committed: Option<bool>,
        /// Whether the ledger has parts of it for certain.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_part: bool,
    },
    /// A verify found differences: it ended, and it is not a success.
    StepDiffers {
        /// The verify step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// What was compared and found.
        evidence: Evidence,
    },
    /// The outcome of an attempt can't be told by ledger or catalogue.
    StepAmbiguous {
        /// The step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// Done or undone.
        way: Way,
        /// What is known.
        detail: String,
        /// Whether something of the step is committed beside what is in doubt, or may be.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        has_left: bool,
    },
    /// An operator said what came of an attempt of which nobody could tell.
    StepResolved {
        /// The step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// Done or undone.
        way: Way,
        /// What came of it.
        outcome: Resolution,
        /// How they know.
        reason: String,
    },
    /// An operator wants failed steps tried again.
    RetryAsked {
        /// The steps.
        steps: Vec<StepId>,
    },
    /// A gate can take approvals for this work.
    GateReached {
        /// The gate.
        gate: StepId,
        /// The digest of the work it releases.
        work: Digest,
        /// The fingerprints of the objects that the work touches, by target, as of now. The run's own steps move them on.
        fingerprints: BTreeMap<TargetName, Digest>,
    },
    /// Every condition of a gate held.
    GateOpened {
        /// The gate.
        gate: StepId,
        /// The work it releases.
        work: Digest,
    },
    /// A condition of a gate that had been open no longer held when the released work was to start.
    GateShut {
        /// The gate.
        gate: StepId,
        /// Which conditions, in words.
        reasons: Vec<String>,
    },
    /// A database is not what it was when it was looked at last, and may lack what was committed there since; or it is looked at for
    /// the first time.
    LineageSeen {
        /// The database.
        target: TargetName,
        /// What it said of itself before; nothing when nobody had asked.
        before: Option<String>,
        /// What it says now.
        now: String,
        /// Verify steps whose evidence is void, and which run again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        void: Vec<StepId>,
        /// Verify steps whose evidence is void, and whose sides have parted, so that they can't run again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lost: Vec<StepId>,
    },
    /// Counters of a table that was put aside, from which the time counts that nobody has used it. Recorded when it is first
    /// looked at and when they have moved since.
    UsageSeen {
        /// The mapping whose old side it is.
        mapping: MappingName,
        /// What they said.
        usage: Usage,
    },
    /// Somebody approved.
    Approved {
        /// The gate.
        gate: StepId,
        /// What they were shown.
        work: Digest,
        /// The group it counts for; `None` where any name counts for any group.
        group: Option<GroupName>,
        /// What they said.
        comment: Option<String>,
    },
    /// Somebody rejected: the gate stays shut until that person revokes it.
    Rejected {
        /// The gate.
        gate: StepId,
        /// What they were shown.
        work: Digest,
        /// Why.
        reason: String,
    },
    /// Somebody took a lease away from whoever held it.
    LockReleased {
        /// The lease: of the run, or of a relay of it.
        lock: RunId,
        /// Who held it, in words.
        holder: String,
        /// Why.
        reason: String,
    },
    /// Somebody took back their own approval or rejection.
    Revoked {
        /// The gate.
        gate: StepId,
    },
    /// The run stops before the next chunk or step.
    Paused {
        /// Why.
        reason: Option<String>,
    },
    /// The run goes on.
    Resumed,
    /// A setting of a backfill was changed.
    Tuned {
        /// The backfill.
        step: StepId,
        /// To what.
        tuning: Tuning,
    },
    /// From here the run goes back, and can only end rolled back.
    RollbackBegun {
        /// Mappings whose writes to the new side alone may be lost.
        accept_loss: Vec<MappingName>,
    },
    /// The run ends where it is.
    AbortBegun {
        /// Whether changes stay in the targets.
        leave: bool,
        /// Why.
        reason: Option<String>,
    },
    /// The run is over, and its bookkeeping is gone from the targets.
    RunEnded {
        /// How.
        ending: Ending,
    },
}

/// What an operator says of what nobody else could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It was done.
    Applied,
    /// It was not, and is to be done again.
    NotApplied,
}

impl Resolution {
    /// The answer in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::NotApplied => "not applied",
        }
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Every step succeeded.
    Completed,
    /// Every step that had done something was undone.
    RolledBack,
    /// It was given up.
    Aborted,
}

impl Ending {
    /// The ending in a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::RolledBack => "rolled back",
            Self::Aborted => "aborted",
        }
    }
}

/// Why a destructive attempt may start, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitRecord {
    /// The gates that held when it started, each with the work it was open for.
    pub gates: Vec<(StepId, Digest)>,
}

/// What came of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Rows written, where that can be told. From the ledger, so true across restarts.
    pub rows: Option<u64>,
    /// One sentence for people.
    pub detail: Option<String>,
    /// What a verify found.
    pub evidence: Option<Evidence>,
    /// The value that a query gave.
    pub value: Option<Value>,
    /// How many rows a copy has parked, where it may park any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<u64>,
    /// The fingerprints after this step, for the gates that released it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<GateFingerprint>,
}

/// What the objects behind a gate look like after a step of the run itself changed them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateFingerprint {
    /// The gate.
    pub gate: StepId,
    /// The database.
    pub target: TargetName,
    /// The fingerprint of the objects that the gate's work touches there.
    pub fingerprint: Digest,
}

/// What was compared, from when to when, and with which verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The verdict.
    pub verdict: Verdict,
    /// When the comparison began; its age counts from here.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Rows compared.
    pub rows: u64,
    /// Rows only the old side has.
    pub missing: u64,
    /// Rows only the new side has.
    pub extra: u64,
    /// Rows that differ.
    pub different: u64,
    /// A few of the differences.
    pub samples: Vec<Difference>,
    /// Whether it went on after an interruption, so that its length says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// Stands for the sync that kept both sides of the mapping equal from then on: evidence made under another one is none.
    /// Nothing where no mapping was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<Digest>,
}

impl Evidence {
    /// Takes away what of its differences is to be hidden.
    pub fn redact(&mut self, redact: Redact) {
        self.samples.iter_mut().for_each(|one| one.redact(redact));
    }
}

/// A verdict on two sides or on a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything was compared and is equal.
    Pass,
    /// What was looked at is equal, but not everything was looked at.
    Partial,
    /// Something differs.
    Fail,
}

/// What went wrong, in fields rather than in one text, and without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind, which decides whether it is tried again and which exit code it makes.
    pub class: FailureClass,
    /// The database's own code, if it gave one.
    pub code: Option<String>,
    /// One sentence.
    pub message: String,
    /// More of the same, from the database.
    pub detail: Option<String>,
    /// What to do.
    pub help: Option<String>,
    /// The line of the plan that it belongs to, counted from 1.
    pub line: Option<u32>,
    /// What of these sentences is the plan's data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private: Vec<Private>,
}

impl Failure {
    /// Takes away what of its sentences is to be hidden.
    pub fn redact(&mut self, redact: Redact) {
        let sentences = [Some(&mut self.message), self.detail.as_mut(), self.help.as_mut()];
        hide(&mut self.private, redact, sentences.into_iter().flatten());
    }
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Another user of the database was in the way: busy, deadlock, serialisation. Trying again helps.
    Contention,
    /// The database can't be reached, or the connection broke where the ledger shows that nothing was committed.
    Unreachable,
    /// It may have been committed all the same: the ledger could not say that it was not. The next attempt asks it again.
    Unknown,
    /// It took longer than allowed.
    TimedOut,
    /// The database refused the statement. Trying again does not help.
    Refused,
    /// The role lacks a privilege, or the file is read-only.
    NotPermitted,
    /// No room left on the database's disk.
    Full,
    /// The database file or the ledger is damaged.
    Damaged,
    /// The target is not as the plan or the run left it.
    Stale,
    /// A promise of the design would be broken: dual-write not active, verify impossible, loss not accepted.
    Unsafe,
    /// It was cancelled on purpose.
    Cancelled,
}

/// A change to a backfill that runs or will run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Rows in a chunk.
    pub chunk_rows: Option<ChunkRows>,
    /// Rest between chunks, in milliseconds.
    pub pause_between_ms: Option<u64>,
    /// How long a chunk should take, in milliseconds of database time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_time_ms: Option<u64>,
    /// Chunks at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// Limits of throttles, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Moved>,
}

impl Tuning {
    /// Nothing tuned.
    pub const NONE: Self = Self {
        chunk_rows: None,
        pause_between_ms: None,
        chunk_time_ms: None,
        workers: None,
        limits: BTreeMap::new(),
    };
}

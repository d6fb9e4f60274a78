//! What a journal adds up to. Made only by [`apply`](super::apply), from records only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::{Action, Direction, DualWrite, Value};
use super::adopt::Adoption;
use super::digest::Digest;
use super::mapping::Mapping;
use super::name::{GroupName, MappingName, RunId, StepId, TargetName};
use super::planted::{Fault, is_planted};
use super::program::{Program, Step};
use super::record::{
    Actor, Ending, Evidence, Failure, Outcome, PermitRecord, Pin, Resolution, Tuning, Way,
};
use super::time::Timestamp;
use super::usage::Baseline;

/// The state of a run after its first records.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) run: RunId,
    pub(super) version: u64,
    pub(super) pin: Arc<Pin>,
    pub(super) author: Actor,
    pub(super) started_at: Timestamp,
    pub(super) standing: Standing,
    pub(super) paused: Option<Pause>,
    pub(super) steps: BTreeMap<StepId, StepState>,
    pub(super) gates: BTreeMap<StepId, GateState>,
    pub(super) captures: BTreeMap<String, Value>,
    pub(super) accepted_losses: Vec<MappingName>,
    pub(super) usage: BTreeMap<MappingName, Baseline>,
    pub(super) adoption: Option<Adoption>,
    pub(super) lineages: BTreeMap<TargetName, String>,
}

/// Why a run is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// What the operator said.
    pub reason: Option<String>,
}

/// Where a run as a whole stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes forward.
    Forward,
    /// It goes back.
    Back,
    /// It is being given up.
    Aborting {
        /// Whether changes stay in the targets.
        leave: bool,
    },
    /// It is over.
    Ended {
        /// How.
        ending: Ending,
        /// Since when.
        at: Timestamp,
    },
}

/// Where a step stands.
#[derive(Clone, Debug, Default)]
pub struct StepState {
    /// Its progress.
    pub progress: Progress,
    /// Attempts begun, there and back: no two have the same number while the plan has the step.
    pub attempts: u32,
    /// Attempts begun since an operator last had a hand in it; what the retry policy counts.
    pub tried: u32,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When its last attempt ended.
    pub ended_at: Option<Timestamp>,
    /// For how long it had failed, or differed, and nobody was at it.
    pub idle_ms: u64,
    /// What came of the last attempt that succeeded going forward.
    pub outcome: Option<Outcome>,
    /// The last evidence, also when it was a FAIL.
    pub evidence: Option<Evidence>,
    /// The first PASS since the last FAIL, from which a soak counts.
    pub passing_since: Option<Timestamp>,
    /// The permit of the present or last destructive attempt.
    pub permit: Option<PermitRecord>,
    /// Since when that permit counts, until something is decided that it was made without.
    pub permitted_at: Option<Timestamp>,
    /// An attempt failed or died, and something of it is committed or may be: the ledger has not said that there is nothing of it.
    pub may_be_done: bool,
    /// Parts of it are committed, as the ledger has said.
    pub is_in_part: bool,
    /// What an operator last said came of an attempt of which nobody could tell.
    pub resolved: Option<Resolved>,
    /// Changes to its settings.
    pub tuning: Tuning,
}

/// What an operator said came of an attempt, for the ledger to agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Done or undone.
    pub way: Way,
    /// What came of it.
    pub outcome: Resolution,
    /// The journal's version that holds the answer. It is about what was begun before that, and says nothing of anything later.
    pub version: u64,
}

impl StepState {
    /// How long its attempts took until a moment, from the first on.
    #[must_use]
    pub fn took_ms(&self, until: Timestamp) -> Option<u64> {
        Some(until.since_ms(self.started_at?).saturating_sub(self.idle_ms))
    }

    /// How many rows a copy that has ended left parked, when it was last tried; none when there are none.
    #[must_use]
    pub fn parked(&self) -> Option<u64> {
        self.outcome.as_ref()?.parked.filter(|rows| *rows > 0)
    }
}

/// The progress of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Not begun.
    #[default]
    Pending,
    /// An attempt is under way, or was when its process died.
    Running {
        /// Done or undone.
        way: Way,
    },
    /// The last attempt failed and the engine tries again by itself.
    Retrying {
        /// Done or undone.
        way: Way,
        /// When.
        at: Timestamp,
        /// What went wrong.
        failure: Failure,
    },
    /// It succeeded.
    Succeeded,
    /// It failed, and waits for an operator.
    Failed {
        /// Done or undone.
        way: Way,
        /// What went wrong.
        failure: Failure,
    },
    /// It compared, and found differences.
    Differs,
    /// Nobody can tell whether it was done.
    Ambiguous {
        /// Done or undone.
        way: Way,
        /// What is known.
        detail: String,
    },
    /// It was done, and undone.
    Undone,
}

impl Progress {
    /// Which way its last attempt went, if there was one.
    #[must_use]
    pub const fn way(&self) -> Option<Way> {
        match self {
            Self::Pending => None,
            Self::Running { way }
            | Self::Retrying { way, .. }
            | Self::Failed { way, .. }
            | Self::Ambiguous { way, .. } => Some(*way),
            Self::Succeeded | Self::Differs => Some(Way::Forward),
            Self::Undone => Some(Way::Back),
        }
    }
}

/// What is known of a gate beside its progress as a step.
#[derive(Clone, Debug, Default)]
pub struct GateState {
    /// The digest of the work it releases, once it can take approvals.
    pub work: Option<Digest>,
    /// What the touched objects looked like when `work` was made; part of that digest.
    pub reached: BTreeMap<TargetName, Digest>,
    /// What they must look like now: the run's own steps move this on.
    pub expected: BTreeMap<TargetName, Digest>,
    /// Decisions that stand, in order.
    pub decisions: Vec<Decision>,
    /// Why it was shut again, if it was.
    pub shut: Vec<String>,
}

/// An approval or a rejection that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Who.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// What they were shown.
    pub work: Digest,
    /// The group it counts for.
    pub group: Option<GroupName>,
    /// Yes, or no and why.
    pub verdict: DecisionVerdict,
}

/// Yes or no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionVerdict {
    /// Approved, perhaps with a comment.
    Approved(Option<String>),
    /// Rejected, with the reason.
    Rejected(String),
}

impl State {
    /// The run.
    #[must_use]
    pub const fn run(&self) -> &RunId {
        &self.run
    }

    /// The names of its relays, one for each pair of databases that rows are carried between.
    #[must_use]
    pub fn relays(&self) -> BTreeSet<RunId> {
        let mappings = self.program().mappings().values();
        let across = mappings.filter(|mapping| !mapping.is_pushdown());
        across.map(|it| self.run.relay(&it.from.target, &it.into.target)).collect()
    }

    /// How many records made this state: the version of the next append is one more.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The pinned plan.
    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// What the pinned plan compiled to.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.pin.program
    }

    /// Whoever started the run or last amended it.
    #[must_use]
    pub const fn author(&self) -> &Actor {
        &self.author
    }

    /// When the run began.
    #[must_use]
    pub const fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Where it stands.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether it is paused, and why.
    #[must_use]
    pub const fn paused(&self) -> Option<&Pause> {
        self.paused.as_ref()
    }

    /// The state of a step; that of an untouched one if the step is unknown.
    #[must_use]
    pub fn step(&self, id: &StepId) -> &StepState {
        static UNTOUCHED: StepState = StepState {
            progress: Progress::Pending,
            attempts: 0,
            tried: 0,
            started_at: None,
            ended_at: None,
            idle_ms: 0,
            outcome: None,
            evidence: None,
            passing_since: None,
            permit: None,
            permitted_at: None,
            may_be_done: false,
            is_in_part: false,
            resolved: None,
            tuning: Tuning::NONE,
        };
        self.steps.get(id).unwrap_or(&UNTOUCHED)
    }

    /// The state of a gate; `None` until something is known of it.
    #[must_use]
    pub fn gate(&self, id: &StepId) -> Option<&GateState> {
        self.gates.get(id)
    }

    /// The value captured under a name.
    #[must_use]
    pub fn captured(&self, name: &str) -> Option<&Value> {
        self.captures.get(name)
    }

    /// Mappings whose loss was accepted by name.
    #[must_use]
    pub fn accepted_losses(&self) -> &[MappingName] {
        &self.accepted_losses
    }

    /// From when, and from which counters, the time counts that nobody has used a mapping's old side.
    #[must_use]
    pub fn usage(&self, mapping: &MappingName) -> Option<&Baseline> {
        self.usage.get(mapping)
    }

    /// What a database last said of itself: another text where it may lack what was committed there before.
    #[must_use]
    pub fn lineage(&self, target: &TargetName) -> Option<&str> {
        self.lineages.get(target).map(String::as_str)
    }

    /// The step that put a mapping's old side aside, while that holds.
    #[must_use]
    pub fn retired_by(&self, mapping: &MappingName) -> Option<&StepId> {
        let step = self.program().steps().iter().find(|step| {
            matches!(&step.action, Action::Retire(retire) if retire.mapping == *mapping)
                && self.is_applied(&step.id)
        })?;
        Some(&step.id)
    }

    /// A mapping under the names that hold now: those of the plan, until a `retire` of it has succeeded.
    #[must_use]
    pub fn mapping(&self, name: &MappingName) -> Option<Mapping> {
        let mapping = self.program().mappings().get(name)?;
        let retired = self.program().steps().iter().find_map(|step| match &step.action {
            Action::Retire(retire) if retire.mapping == *name && self.is_applied(&step.id) => {
                Some(&retire.shape)
            }
            _ => None,
        });
        Some(retired.map_or_else(|| mapping.clone(), |shape| mapping.retired(shape)))
    }

    /// The direction in which the plan's dual-write keeps a mapping in step.
    #[must_use]
    pub fn direction(&self, name: &MappingName) -> Option<Direction> {
        self.program().steps().iter().find_map(|step| match &step.action {
            Action::DualWrite(DualWrite { mapping, direction, .. }) if mapping == name => {
                Some(*direction)
            }
            _ => None,
        })
    }

    /// Whether a step has succeeded and not been undone since.
    #[must_use]
    pub fn is_applied(&self, id: &StepId) -> bool {
        matches!(
            &self.step(id).progress,
            Progress::Succeeded
                | Progress::Running { way: Way::Back }
                | Progress::Retrying { way: Way::Back, .. }
                | Progress::Failed { way: Way::Back, .. }
        )
    }

    /// The step since which both sides of a mapping can't be compared any more, while that holds.
    #[must_use]
    pub fn parted_by(&self, mapping: &MappingName) -> Option<&Step> {
        self.program().steps().iter().find(|step| {
            let has_begun =
                matches!(step.action, Action::Drop { .. }) && self.step(&step.id).is_in_part;
            self.parts_sides(step, mapping) && (has_begun || self.is_applied(&step.id))
        })
    }

    /// Whether a step lets the sides of a mapping part, or takes one of them away.
    pub(super) fn parts_sides(&self, step: &Step, mapping: &MappingName) -> bool {
        match &step.action {
            Action::Retire(retire) => {
                retire.mapping == *mapping && self.direction(mapping) == Some(Direction::Forward)
            }
            Action::StopDualWrite { mapping: of } => {
                of == mapping && !is_planted(Fault::PartedCompared)
            }
            Action::Drop { mapping: of } => of == mapping,
            _ => false,
        }
    }

    /// Where it stands with the loss of an earlier journal, if this one took the place of such a one.
    #[must_use]
    pub const fn adoption(&self) -> Option<&Adoption> {
        self.adoption.as_ref()
    }

    /// Whether nobody has read yet what the targets have of a run whose journal is lost.
    #[must_use]
    pub fn is_being_adopted(&self) -> bool {
        self.adoption.as_ref().is_some_and(|adoption| adoption.is_pending)
    }

    /// Whether the run is over.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.standing, Standing::Ended { .. })
    }
}

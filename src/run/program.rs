//! What a valid plan compiles to: everything the run needs to know, and nothing of how it was written.
//!
//! A [`Program`] can't hold a cycle, a need on an unknown step or on a later phase, or two steps of one id: the only way to
//! one is [`Program::new`], which checks. It is pinned in the journal, so it has a stable serialised form.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::action::{Action, Approvals, Hazard, RetryPolicy, Undo};
use super::difference::Redact;
use super::digest::Digest;
use super::mapping::Mapping;
use super::name::{EnvironmentName, GroupName, MappingName, StepId, TargetName};

/// A checked, executable plan in one environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ProgramParts", into = "ProgramParts")]
pub struct Program {
    parts: ProgramParts,
    index: BTreeMap<StepId, usize>,
    dependents: BTreeMap<StepId, Vec<StepId>>,
    releasing: BTreeMap<StepId, BTreeSet<StepId>>,
    order: Vec<StepId>,
}

/// The parts that [`Program::new`] checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgramParts {
    /// The plan's name.
    pub plan: String,
    /// The digest of the plan's meaning.
    pub digest: Digest,
    /// The environment it was compiled for.
    pub environment: EnvironmentName,
    /// The databases.
    pub targets: BTreeMap<TargetName, Target>,
    /// The mappings.
    pub mappings: BTreeMap<MappingName, Mapping>,
    /// The steps in the plan's order.
    pub steps: Vec<Step>,
    /// What the environment asks of every plan.
    pub policy: Policy,
}

/// A database of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Which product it is.
    pub engine: Engine,
    /// How to reach it: a URL whose secrets are still references (`${env:X}`), so that it may be stored and shown.
    pub url: String,
    /// The schema for our own objects, where the database has schemas.
    pub schema: Option<String>,
    /// How many steps may work on it at once.
    pub parallel: u32,
}

/// The databases that plans may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// Neo4j.
    Neo4j,
    /// Redis.
    Redis,
    /// SQL Server.
    Sqlserver,
    /// MySQL and MariaDB.
    Mysql,
    /// SQLite.
    Sqlite,
}

/// What an environment's policy asks, out of the plan author's reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whether the environment is production.
    pub production: bool,
    /// The members of each group that a gate of the plan asks; `None` where no project file defines groups, and any name
    /// counts for any group.
    pub groups: Option<BTreeMap<GroupName, BTreeSet<String>>>,
    /// Whether the author of the run may approve. `None`: not asked.
    pub author_may_approve: Option<bool>,
    /// Caps every wait of a gate and opens every window, in milliseconds.
    pub longest_wait_ms: Option<u64>,
    /// Whether a partial verify (counts, sample) may open a destructive gate.
    pub allow_partial_verify: bool,
    /// Whose names are believed.
    #[serde(default)]
    pub identity: Identity,
    /// What is added to the gates in front of destructive steps. They hold it already; it is here so that a change of it is
    /// seen even where it adds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive: Option<Added>,
    /// Whether `reviewed` counts, where policy says; by default it does, but in production.
    #[serde(default)]
    pub allow_reviewed: Option<bool>,
    /// Whether programs may be run.
    #[serde(default)]
    pub allow_commands: bool,
    /// What of rows is kept out of the journal, of those that a verify finds to differ and of those that errors are about.
    #[serde(default, skip_serializing_if = "Redact::is_nothing")]
    pub redact: Redact,
}

/// Whose names are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// Whatever was typed.
    #[default]
    Claimed,
    /// The operating system's account.
    Os,
    /// Signatures.
    Ssh,
}

/// What policy adds to the gates in front of destructive steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Approvals.
    pub approvals: Vec<Approvals>,
    /// The greatest age of evidence, in milliseconds.
    pub verified_within_ms: Option<u64>,
}

/// The phases, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// New shapes are made beside the old.
    Expand,
    /// Writes reach both shapes.
    DualWrite,
    /// Rows from before are copied.
    Backfill,
    /// Both shapes are compared.
    Verify,
    /// The old shape goes.
    Contract,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 5] =
        [Self::Expand, Self::DualWrite, Self::Backfill, Self::Verify, Self::Contract];

    /// The phase as plans write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::DualWrite => "dual-write",
            Self::Backfill => "backfill",
            Self::Verify => "verify",
            Self::Contract => "contract",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its id.
    pub id: StepId,
    /// Its phase.
    pub phase: Phase,
    /// The database it works on; none for gates without conditions on one.
    pub target: Option<TargetName>,
    /// Every step that must have succeeded before: those named, those implied by order, and every gate listed before.
    pub needs: BTreeSet<StepId>,
    /// What it does.
    pub action: Action,
    /// How it is undone.
    pub undo: Undo,
    /// Why it can't be undone, which makes it part of the point of no return.
    pub irreversible: Option<String>,
    /// What it may destroy.
    pub hazard: Hazard,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How long it may wait for a lock, in milliseconds.
    pub lock_timeout_ms: Option<u64>,
    /// When and how often it is tried again.
    pub retry: RetryPolicy,
    /// The digest of this step's meaning.
    pub digest: Digest,
    /// The line of the plan it starts on, counted from 1.
    pub line: u32,
    /// What the plan says of it.
    pub description: Option<String>,
}

/// Why parts make no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Two steps of one id.
    #[error("two steps are called {0}")]
    Duplicate(StepId),
    /// A need on a step that isn't there.
    #[error("{step} needs {need}, which is not a step of the plan")]
    UnknownNeed {
        /// Who needs.
        step: StepId,
        /// What.
        need: StepId,
    },
    /// A need on a step of a later phase.
    #[error("{step} needs {need}, which belongs to a later phase")]
    LaterPhase {
        /// Who needs.
        step: StepId,
        /// What.
        need: StepId,
    },
    /// Steps that need each other.
    #[error("steps need each other in a circle: {}", .0.iter().map(StepId::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<StepId>),
    /// A mapping or target that isn't there.
    #[error("{step} names {name}, which the plan does not define")]
    UnknownName {
        /// Who names it.
        step: StepId,
        /// The name.
        name: String,
    },
}

impl TryFrom<ProgramParts> for Program {
    type Error = ProgramError;
    fn try_from(parts: ProgramParts) -> Result<Self, Self::Error> {
        Self::new(parts)
    }
}

impl From<Program> for ProgramParts {
    fn from(program: Program) -> Self {
        program.parts
    }
}

impl Program {
    /// Checks the parts and indexes them.
    pub fn new(parts: ProgramParts) -> Result<Self, ProgramError> {
        let mut index = BTreeMap::new();
        for (at, step) in parts.steps.iter().enumerate() {
            if index.insert(step.id.clone(), at).is_some() {
                return Err(ProgramError::Duplicate(step.id.clone()));
            }
        }
        let mut dependents: BTreeMap<StepId, Vec<StepId>> = BTreeMap::new();
        for step in &parts.steps {
            for need in &step.needs {
                let unknown =
                    || ProgramError::UnknownNeed { step: step.id.clone(), need: need.clone() };
                let needed = &parts.steps[*index.get(need).ok_or_else(unknown)?];
                if needed.phase > step.phase {
                    return Err(ProgramError::LaterPhase {
                        step: step.id.clone(),
                        need: need.clone(),
                    });
                }
                dependents.entry(need.clone()).or_default().push(step.id.clone());
            }
            let unknown = |name: &str| ProgramError::UnknownName {
                step: step.id.clone(),
                name: name.to_owned(),
            };
            if let Some(mapping) = step.action.mapping() {
                parts.mappings.get(mapping).ok_or_else(|| unknown(mapping.as_str()))?;
            }
            if let Some(target) = &step.target {
                parts.targets.get(target).ok_or_else(|| unknown(target.as_str()))?;
            }
        }
        let order = sorted(&parts.steps, &index, &dependents)?;
        let mut releasing: BTreeMap<StepId, BTreeSet<StepId>> = BTreeMap::new();
        for id in &order {
            let step = &parts.steps[index[id]];
            let gates = nearest_gates(step, &parts.steps, &index, &releasing);
            releasing.insert(id.clone(), gates);
        }
        Ok(Self { parts, index, dependents, releasing, order })
    }

    /// The plan's name.
    #[must_use]
    pub fn plan(&self) -> &str {
        &self.parts.plan
    }

    /// The digest of the plan's meaning.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.parts.digest
    }

    /// The environment it was compiled for.
    #[must_use]
    pub const fn environment(&self) -> &EnvironmentName {
        &self.parts.environment
    }

    /// The databases.
    #[must_use]
    pub const fn targets(&self) -> &BTreeMap<TargetName, Target> {
        &self.parts.targets
    }

    /// The mappings, under the names of the plan.
    #[must_use]
    pub const fn mappings(&self) -> &BTreeMap<MappingName, Mapping> {
        &self.parts.mappings
    }

    /// What the environment asks.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.parts.policy
    }

    /// The steps in the plan's order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.parts.steps
    }

    /// The step of an id.
    #[must_use]
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.index.get(id).map(|at| &self.parts.steps[*at])
    }

    /// The ids in an order in which every step stands behind what it needs; the plan's order wherever that allows it.
    #[must_use]
    pub fn order(&self) -> &[StepId] {
        &self.order
    }

    /// The steps that need this one directly.
    #[must_use]
    pub fn dependents(&self, id: &StepId) -> &[StepId] {
        self.dependents.get(id).map_or(&[], Vec::as_slice)
    }

    /// The gates that release a step: those before it with no other gate between.
    pub fn releasing_gates(&self, id: &StepId) -> impl Iterator<Item = &StepId> {
        self.releasing.get(id).into_iter().flatten()
    }

    /// The work that a gate releases: the steps, gates aside, that need it with no other gate between.
    pub fn released_by<'a>(&'a self, gate: &'a StepId) -> impl Iterator<Item = &'a Step> {
        self.parts.steps.iter().filter(move |step| {
            !matches!(step.action, Action::Gate(_))
                && self.releasing.get(&step.id).is_some_and(|gates| gates.contains(gate))
        })
    }

    /// The databases that a step works on, its own target first.
    pub fn databases<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = &'a TargetName> {
        let mapping = step.action.mapping().and_then(|name| self.parts.mappings.get(name));
        let sides = mapping.into_iter().flat_map(|it| [&it.from.target, &it.into.target]);
        let mut sides: Vec<&TargetName> = sides.collect();
        sides.dedup();
        sides.retain(|side| Some(*side) != step.target.as_ref());
        step.target.iter().chain(sides)
    }

    /// Whether a step works on a database.
    #[must_use]
    pub fn works_on(&self, step: &Step, target: &TargetName) -> bool {
        self.databases(step).any(|one| one == target)
    }

    /// Whether a database's own ledger has a step that is done: where it works, and for the sync of a mapping between two databases
    /// in both.
    #[must_use]
    pub fn enters(&self, step: &Step, target: &TargetName) -> bool {
        let is_twice = matches!(step.action, Action::DualWrite(_) | Action::StopDualWrite { .. });
        step.target.as_ref() == Some(target) || is_twice && self.works_on(step, target)
    }

    /// The mappings of which the plan lets rows be parked. What a relay carries may always be.
    pub fn parks(&self) -> impl Iterator<Item = &MappingName> {
        let by_copies = self.parts.steps.iter().filter_map(|step| match &step.action {
            Action::Backfill(backfill) if backfill.park_max.is_some() => Some(&backfill.mapping),
            _ => None,
        });
        let others = self.parts.mappings.values();
        let others = others.filter(|mapping| !mapping.parking.is_none() || !mapping.is_pushdown());
        by_copies.chain(others.map(|mapping| &mapping.name))
    }

    /// Every step that a step needs, directly or not.
    #[must_use]
    pub fn needed_by(&self, id: &StepId) -> BTreeSet<StepId> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&StepId> = self.step(id).into_iter().flat_map(|s| &s.needs).collect();
        while let Some(need) = open.pop() {
            if seen.insert(need.clone()) {
                open.extend(self.step(need).into_iter().flat_map(|s| &s.needs));
            }
        }
        seen
    }
}

/// Kahn's algorithm, taking the first step in plan order that is free; what is left over holds a circle.
fn sorted(
    steps: &[Step],
    index: &BTreeMap<StepId, usize>,
    dependents: &BTreeMap<StepId, Vec<StepId>>,
) -> Result<Vec<StepId>, ProgramError> {
    let mut open_needs: Vec<usize> = steps.iter().map(|step| step.needs.len()).collect();
    let mut free: BTreeSet<usize> = (0..steps.len()).filter(|at| open_needs[*at] == 0).collect();
    let mut order = Vec::with_capacity(steps.len());
    while let Some(at) = free.pop_first() {
        order.push(steps[at].id.clone());
        for dependent in dependents.get(&steps[at].id).into_iter().flatten() {
            let dependent = index[dependent];
            open_needs[dependent] -= 1;
            if open_needs[dependent] == 0 {
                free.insert(dependent);
            }
        }
    }
    if order.len() == steps.len() {
        return Ok(order);
    }
    Err(ProgramError::Cycle(circle(steps, index, &open_needs)))
}

/// Follows unmet needs until a step comes up again; the steps between are a circle.
fn circle(steps: &[Step], index: &BTreeMap<StepId, usize>, open_needs: &[usize]) -> Vec<StepId> {
    let mut path: Vec<usize> = Vec::new();
    let mut at = open_needs.iter().position(|needs| *needs > 0).unwrap_or(0);
    loop {
        if let Some(start) = path.iter().position(|seen| *seen == at) {
            let mut ids: Vec<StepId> =
                path[start..].iter().map(|at| steps[*at].id.clone()).collect();
            ids.reverse();
            ids.extend(ids.first().cloned());
            return ids;
        }
        path.push(at);
        let unmet = steps[at].needs.iter().map(|need| index[need]).find(|n| open_needs[*n] > 0);
        match unmet {
            Some(next) => at = next,
            None => return path.into_iter().map(|at| steps[at].id.clone()).collect(),
        }
    }
}

fn nearest_gates(
    step: &Step,
    steps: &[Step],
    index: &BTreeMap<StepId, usize>,
    releasing: &BTreeMap<StepId, BTreeSet<StepId>>,
) -> BTreeSet<StepId> {
    let mut gates = BTreeSet::new();
    let mut behind = BTreeSet::new();
    for need in &step.needs {
        if matches!(steps[index[need]].action, Action::Gate(_)) {
            gates.insert(need.clone());
            behind.extend(releasing.get(need).into_iter().flatten().cloned());
        } else {
            gates.extend(releasing.get(need).into_iter().flatten().cloned());
        }
    }
    if gates.len() < 2 {
        return gates;
    }
    // A gate that another of these gates already stands behind has a gate between it and the step.
    let mut hidden = BTreeSet::new();
    let mut open: Vec<StepId> = behind.into_iter().collect();
    for gate in &gates {
        open.extend(releasing.get(gate).into_iter().flatten().cloned());
    }
    while let Some(gate) = open.pop() {
        if hidden.insert(gate.clone()) {
            open.extend(releasing.get(&gate).into_iter().flatten().cloned());
        }
    }
    gates.retain(|gate| !hidden.contains(gate));
    gates
}

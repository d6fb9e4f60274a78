//! The document with its names looked up: which target, mapping and statements each step has, and what happens to each
//! mapping in which steps. The view that all lint rules share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::diagnostic::known as codes;
use crate::run::{Direction, EnvironmentName, GroupName, Hazard, Method, Transaction};
use crate::sql::Dialect;

use super::document::{
    ActionDef, CheckDef, Document, DualWriteDef, GateDef, MappingDef, SideDef, StepDef, TargetDef,
    UndoDef, UsedByDef, VerifyDef,
};
use super::files::Files;
use super::graph::Graph;
use super::node::{At, Span};
use super::project::{Environment, EnvironmentPolicy, Project};
use super::reports::Reports;
use super::statements::{Created, ReadScript, Scripts, Standing};
use super::suggest::advice;

/// What a step's names lead to.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// The target, by its place in the document. Of a step on a mapping between two targets it is the one that the step writes to,
    /// or empties.
    pub target: Option<usize>,
    /// Where the rows of its mapping come from.
    pub source: Option<usize>,
    /// The mapping, by its place in the document.
    pub mapping: Option<usize>,
    /// Its statements.
    pub script: Option<ReadScript>,
    /// The statements of its undo.
    pub undo: Option<ReadScript>,
}

/// What happens to a mapping, by steps.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Its dual-writes, each with its direction.
    pub dual_writes: Vec<(usize, Direction)>,
    /// Its backfills.
    pub backfills: Vec<usize>,
    /// Its comparisons, each with how thorough it is.
    pub verifies: Vec<(usize, Method)>,
    /// Its retires.
    pub retires: Vec<usize>,
    /// Its drops.
    pub drops: Vec<usize>,
    /// The ends of its dual-write.
    pub stops: Vec<usize>,
}

impl Life {
    /// Whether writes to the new shape reach the old one.
    pub fn is_both_ways(&self) -> bool {
        self.dual_writes.iter().any(|(_, direction)| *direction == Direction::Both)
    }
}

/// The environment that a plan is checked for.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// Its name.
    pub environment: &'a EnvironmentName,
    /// Whether it is production.
    pub production: bool,
    /// Its policy.
    pub policy: EnvironmentPolicy,
    /// The groups; `None` where there is no project file.
    pub groups: Option<&'a BTreeMap<GroupName, BTreeSet<String>>>,
    /// The project, if there is one.
    pub project: Option<&'a Project>,
}

impl<'a> Surroundings<'a> {
    /// The surroundings in an environment of a project; without one, those of the default environment.
    pub fn of(
        project: Option<&'a Project>,
        known: Option<&Environment>,
        environment: &'a EnvironmentName,
    ) -> Self {
        Self {
            environment,
            production: known.is_some_and(|environment| environment.production),
            policy: known.map(|environment| environment.policy.clone()).unwrap_or_default(),
            groups: project.map(Project::groups),
            project,
        }
    }

    /// Whether `reviewed` counts here.
    pub fn allows_reviewed(&self) -> bool {
        self.policy.allow_reviewed.unwrap_or(!self.production)
    }
}

/// Everything that the rules look at.
pub struct View<'a> {
    /// The plan as written.
    pub document: &'a Document,
    /// Its order.
    pub graph: &'a Graph,
    /// What its names lead to, by step.
    pub steps: Vec<Resolved>,
    /// What happens to each mapping.
    pub lives: Vec<Life>,
    /// Where it is to run.
    pub surroundings: &'a Surroundings<'a>,
    /// What the plan makes on each target.
    pub created: Vec<Created>,
}

impl<'a> View<'a> {
    /// Looks up all names, reporting those that lead nowhere, and reads all statements.
    pub fn new(
        document: &'a Document,
        graph: &'a Graph,
        surroundings: &'a Surroundings<'a>,
        files: &mut Files,
        reports: &mut Reports,
        plan: &Arc<str>,
    ) -> Self {
        let names = Names::of(document);
        let mut steps: Vec<Resolved> = Vec::with_capacity(document.steps.len());
        let mut created = vec![Created::default(); document.targets.len()];
        for step in &document.steps {
            let mut resolved = names.resolve(step, reports);
            let own = resolved.target.map(|at| (at, &document.targets[at]));
            if let Some((at, target)) = own {
                let transaction = match step.without_transaction {
                    Some(_) => Transaction::None,
                    None => Transaction::Auto,
                };
                let mut scripts = Scripts { files, reports, plan: Arc::clone(plan), transaction };
                read_scripts(step, target, &mut resolved, &mut created[at], &mut scripts);
            }
            steps.push(resolved);
        }
        let lives = lives(document, &steps);
        Self { document, graph, steps, lives, surroundings, created }
    }

    /// Whether all of the plan was read and has an order, so that what isn't there is really missing.
    pub fn is_whole(&self) -> bool {
        let names = |step: &StepDef| {
            let needs = step.needs.iter().flat_map(|needs| &needs.value);
            needs.into_iter().all(|need| self.graph.index_of(&need.value).is_some())
        };
        let is_read = |(step, resolved): (&StepDef, &Resolved)| {
            let Some(action) = step.action.as_ref().map(|action| &action.value) else {
                return false;
            };
            step.phase.is_some()
                && names(step)
                && (action.mapping().is_none() || resolved.mapping.is_some())
                && (action.script().is_none() || resolved.script.is_some())
        };
        self.graph.is_ordered()
            && !self.document.lacks_steps
            && !self.document.steps.is_empty()
            && self.document.steps.iter().zip(&self.steps).all(is_read)
    }

    /// Whether a target is defined.
    pub fn knows_target(&self, name: &str) -> bool {
        self.document.targets.iter().any(|target| target.name.value == name)
    }

    /// A step as written.
    pub fn step(&self, at: usize) -> &'a StepDef {
        &self.document.steps[at]
    }

    /// What a step does.
    pub fn action(&self, at: usize) -> Option<&'a ActionDef> {
        self.document.steps[at].action.as_ref().map(|action| &action.value)
    }

    /// All steps with their places in the document.
    pub fn all(&self) -> impl Iterator<Item = (usize, &'a StepDef)> + use<'a> {
        self.document.steps.iter().enumerate()
    }

    /// The target that a gate's query is asked on, if it is plain.
    pub fn asked_on(&self, gate: usize, named: Option<&At<String>>) -> Option<&'a TargetDef> {
        let targets = &self.document.targets;
        match named.or(self.step(gate).target.as_ref()) {
            Some(name) => targets.iter().find(|known| known.name.value == name.value),
            None => targets.first().filter(|_| targets.len() == 1),
        }
    }

    /// The target that a throttle of a backfill asks, if it is plain. Not said, it is where the rows come from: there is the load
    /// that clients feel.
    pub fn throttled_on(&self, copy: usize, named: Option<&At<String>>) -> Option<&'a TargetDef> {
        match named {
            Some(name) => self.target(name),
            None => self.steps[copy].source.map(|at| &self.document.targets[at]),
        }
    }

    fn target(&self, name: &At<String>) -> Option<&'a TargetDef> {
        self.document.targets.iter().find(|known| known.name.value == name.value)
    }

    /// The gates of the plan.
    pub fn gates(&self) -> impl Iterator<Item = (usize, &'a GateDef)> + use<'a> {
        self.all().filter_map(|(at, step)| match &step.action.as_ref()?.value {
            ActionDef::Gate(gate) => Some((at, gate)),
            _ => None,
        })
    }

    /// A gate as written.
    pub fn gate(&self, at: usize) -> Option<&'a GateDef> {
        match self.action(at)? {
            ActionDef::Gate(gate) => Some(gate),
            _ => None,
        }
    }

    /// What a step may destroy.
    pub fn hazard(&self, at: usize) -> Hazard {
        match self.action(at) {
            Some(ActionDef::Drop { mapping }) => {
                Hazard::Destructive(format!("it removes the old side of `{}`", mapping.value))
            }
            Some(ActionDef::Sql(_) | ActionDef::Cypher(_)) => {
                self.steps[at].script.as_ref().map_or(Hazard::None, ReadScript::hazard)
            }
            _ => Hazard::None,
        }
    }

    /// A mapping as written.
    pub fn mapping(&self, at: usize) -> &'a MappingDef {
        &self.document.mappings[at]
    }

    /// Whether rows of a mapping go from a table of PostgreSQL into a graph, which is the one way between two databases.
    pub fn is_crossing(&self, mapping: &MappingDef) -> bool {
        mapping.is_into_graph()
            && self.dialect_of(mapping.from.as_ref()) == Some(Dialect::Postgres)
            && self.dialect_of(mapping.into.as_ref()) == Some(Dialect::Cypher)
    }

    /// The mapping of a step, if its rows go into another database.
    pub fn crossing(&self, at: usize) -> Option<&'a MappingDef> {
        let mapping = self.mapping(self.steps[at].mapping?);
        self.is_crossing(mapping).then_some(mapping)
    }

    /// The dialect of a mapping's source, if it is SQL.
    pub fn dialect_of(&self, side: Option<&SideDef>) -> Option<Dialect> {
        let target = side?.target.value.as_str();
        let target = self.document.targets.iter().find(|known| known.name.value == target)?;
        Dialect::of(target.engine?.value)
    }

    /// The mappings with what happens to them.
    pub fn mappings(&self) -> impl Iterator<Item = (&'a MappingDef, &Life)> {
        self.document.mappings.iter().zip(&self.lives)
    }

    /// The greatest age of evidence that a gate takes, with what policy asks.
    pub fn verified_within_ms(&self, gate: usize, is_before_destruction: bool) -> Option<u64> {
        let own = self.gate(gate)?.verified_within_ms.map(|at| at.value);
        let policy = self.surroundings.policy.destructive.as_ref();
        let policy = policy.filter(|_| is_before_destruction).and_then(|p| p.verified_within_ms);
        own.into_iter().chain(policy).min()
    }
}

fn read_scripts(
    step: &StepDef,
    target: &TargetDef,
    resolved: &mut Resolved,
    created: &mut Created,
    scripts: &mut Scripts<'_>,
) {
    let Some(engine) = target.engine else { return };
    let action = step.action.as_ref().map(|action| &action.value);
    if let Some(action) = action
        && let Some(script) = action.script()
    {
        let span = step.action.as_ref().map_or(step.id.span, |action| action.span);
        let is_cypher = matches!(action, ActionDef::Cypher(_));
        if let Some(dialect) = spoken(target, (is_cypher, span), scripts.reports) {
            resolved.script = scripts.read(script, dialect, Standing::Follow(created));
        }
    }
    let undo = match step.undo.as_ref().map(|undo| (&undo.value, undo.span)) {
        Some((UndoDef::File(script), _)) => {
            Dialect::of(engine.value).map(|dialect| (script, dialect))
        }
        Some((UndoDef::Sql(script), span)) => {
            spoken(target, (false, span), scripts.reports).map(|dialect| (script, dialect))
        }
        Some((UndoDef::Cypher(script), span)) => {
            spoken(target, (true, span), scripts.reports).map(|dialect| (script, dialect))
        }
        Some((UndoDef::None(_), _)) | None => None,
    };
    if let Some((script, dialect)) = undo {
        resolved.undo = scripts.read(script, dialect, Standing::Look(created));
    }
    // One key speaks of both scripts. Where only one of them can't run in a transaction, the other still does.
    let needs = |script: &Option<ReadScript>| {
        script.as_ref().is_some_and(|script| script.outside_one().is_some())
    };
    let (script_needs, undo_needs) = (needs(&resolved.script), needs(&resolved.undo));
    if undo_needs && !script_needs {
        resolved.script.iter_mut().for_each(|script| script.transaction = Transaction::Auto);
    } else if !undo_needs {
        resolved.undo.iter_mut().for_each(|undo| undo.transaction = Transaction::Auto);
    }
}

/// The language of a target, if it is the one that a key is for.
fn spoken(
    target: &TargetDef,
    (is_cypher, span): (bool, Span),
    reports: &mut Reports,
) -> Option<Dialect> {
    let engine = target.engine?.value;
    let spoken = Dialect::of(engine);
    if spoken.is_some_and(|dialect| (dialect == Dialect::Cypher) == is_cypher) {
        return spoken;
    }
    let language = if is_cypher { "Cypher" } else { "SQL" };
    let message = format!("`{}` speaks no {language}", target.name.value);
    reports
        .error(codes::KEYS_CONFLICT, span, message)
        .help("use `cypher` for neo4j, `redis` for redis, and `sql` for all others");
    None
}

/// The names of a document.
struct Names<'a> {
    document: &'a Document,
    targets: HashMap<&'a str, usize>,
    mappings: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn of(document: &'a Document) -> Self {
        let targets =
            document.targets.iter().enumerate().map(|(at, t)| (t.name.value.as_str(), at));
        let mappings =
            document.mappings.iter().enumerate().map(|(at, m)| (m.name.value.as_str(), at));
        Self { document, targets: targets.collect(), mappings: mappings.collect() }
    }

    fn resolve(&self, step: &StepDef, reports: &mut Reports) -> Resolved {
        let mut resolved = Resolved::default();
        let named = step.target.as_ref().and_then(|name| self.target(name, reports));
        let Some(action) = &step.action else { return Resolved { target: named, ..resolved } };
        if let ActionDef::Backfill(backfill) = &action.value {
            for name in backfill.throttle.iter().filter_map(|throttle| throttle.target.as_ref()) {
                self.target(name, reports);
            }
        }
        if let ActionDef::DualWrite(DualWriteDef { probe: Some(probe), .. }) = &action.value
            && let Some(name) = &probe.target
        {
            self.target(name, reports);
        }
        if let Some(name) = action.value.mapping() {
            resolved.mapping = self.mapping(name, reports);
            if let Some(mapping) = resolved.mapping {
                resolved.source = self.side_of(self.document.mappings[mapping].from.as_ref());
                resolved.target = self.home_of(mapping, &action.value);
            }
            if let (Some(at), Some(named), Some(written)) =
                (resolved.target, named, step.target.as_ref())
                && at != named
            {
                let action = action.value.name();
                self.report_wrong_target(at, (action, name, written), reports);
            }
            return resolved;
        }
        resolved.target = named;
        if let ActionDef::Gate(gate) = &action.value {
            for query in &gate.queries {
                match &query.target {
                    Some(name) => drop(self.target(name, reports)),
                    None if step.target.is_some() || self.document.targets.len() == 1 => {}
                    None => self.report_no_target(action.span, reports),
                }
            }
            for unused in &gate.unused_for {
                match &unused.by {
                    UsedByDef::Counters(mapping) => drop(self.mapping(mapping, reports)),
                    UsedByDef::Query { target: Some(name), .. } => drop(self.target(name, reports)),
                    UsedByDef::Query { target: None, .. }
                        if step.target.is_some() || self.document.targets.len() == 1 => {}
                    UsedByDef::Query { target: None, .. } => {
                        self.report_no_target(action.span, reports);
                    }
                }
            }
        } else if step.target.is_none() {
            if self.document.targets.len() == 1 {
                resolved.target = Some(0);
            } else if !matches!(action.value, ActionDef::Backup | ActionDef::Command) {
                self.report_no_target(action.span, reports);
            }
        }
        resolved
    }

    fn report_no_target(&self, span: super::node::Span, reports: &mut Reports) {
        if self.document.targets.is_empty() {
            return;
        }
        let names = self.document.targets.iter().map(|t| format!("`{}`", t.name.value));
        let names = names.collect::<Vec<_>>().join(", ");
        reports
            .error(codes::NO_TARGET, span, "it isn't said on which database this works")
            .help(format!("add `target:` with one of {names}"));
    }

    fn target(&self, name: &At<String>, reports: &mut Reports) -> Option<usize> {
        let found = self.targets.get(name.value.as_str()).copied();
        if found.is_none() {
            let known = self.document.targets.iter().map(|target| target.name.value.as_str());
            let message = format!("there is no target `{}`", name.value);
            reports
                .error(codes::UNKNOWN_TARGET, name.span, message)
                .help(advice(&name.value, known));
        }
        found
    }

    fn mapping(&self, name: &At<String>, reports: &mut Reports) -> Option<usize> {
        let found = self.mappings.get(name.value.as_str()).copied();
        if found.is_none() {
            let known = self.document.mappings.iter().map(|mapping| mapping.name.value.as_str());
            let message = format!("there is no mapping `{}`", name.value);
            reports
                .error(codes::UNKNOWN_MAPPING, name.span, message)
                .help(advice(&name.value, known));
        }
        found
    }

    /// The target that a step on a mapping works on. Between two targets it is where rows go, and for `drop` where they come from.
    /// Sides that name no target are reported with the mapping.
    fn home_of(&self, mapping: usize, action: &ActionDef) -> Option<usize> {
        let mapping = &self.document.mappings[mapping];
        let side = match action {
            ActionDef::Drop { .. } => &mapping.from,
            _ if mapping.is_across() => &mapping.into,
            _ => &mapping.from,
        };
        self.side_of(side.as_ref())
    }

    fn side_of(&self, side: Option<&SideDef>) -> Option<usize> {
        self.targets.get(side?.target.value.as_str()).copied()
    }

    fn report_wrong_target(
        &self,
        home: usize,
        (action, mapping, written): (&str, &At<String>, &At<String>),
        reports: &mut Reports,
    ) {
        let home = &self.document.targets[home].name.value;
        let of = self.mappings.get(mapping.value.as_str()).map(|at| &self.document.mappings[*at]);
        let message = if of.is_some_and(MappingDef::is_across) {
            format!(
                "`{action}` of `{}` is a step on `{home}`, not on `{}`",
                mapping.value, written.value
            )
        } else {
            format!("`{}` is on `{home}`, not on `{}`", mapping.value, written.value)
        };
        reports
            .error(codes::WRONG_TARGET, written.span, message)
            .help("remove `target`: the mapping says where it is");
    }
}

fn lives(document: &Document, steps: &[Resolved]) -> Vec<Life> {
    let mut lives = vec![Life::default(); document.mappings.len()];
    for (at, (step, resolved)) in document.steps.iter().zip(steps).enumerate() {
        let (Some(mapping), Some(action)) = (resolved.mapping, &step.action) else { continue };
        let life = &mut lives[mapping];
        match &action.value {
            ActionDef::DualWrite(DualWriteDef { direction, .. }) => {
                life.dual_writes.push((at, direction.value));
            }
            ActionDef::Backfill(_) => life.backfills.push(at),
            ActionDef::Verify(VerifyDef { check: CheckDef::Mapping { method, .. } }) => {
                life.verifies.push((at, method.value));
            }
            ActionDef::Retire(_) => life.retires.push(at),
            ActionDef::Drop { .. } => life.drops.push(at),
            ActionDef::StopDualWrite { .. } => life.stops.push(at),
            _ => {}
        }
    }
    lives
}

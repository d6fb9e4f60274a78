//! A plan without findings becomes a program.
//!
//! Everything here was checked before; what the rules let through and can't be compiled is a fault of the rules, and is
//! reported as one rather than guessed at.

use std::collections::BTreeMap;

use crate::bounds::defaults::{
    APPROVAL_EXPIRES_MS, ATTEMPTS, CHUNK_TIME_CROSSING_MS, CHUNK_TIME_MS, CHUNK_TIME_SQLITE_MS,
    FIRST_WAIT_MS, LONGEST_WAIT_MS, PARALLEL_PER_TARGET, PARK_MAX, THROTTLE_EVERY_MS,
    WORKERS_CROSSING,
};
use crate::run::{
    Action, Approvals, Backfill, ChunkRows, DualWrite, EnvironmentName, Gate, GateQuery, GroupName,
    Hazard, Mapping, MappingName, OnDelete, OnExisting, OutboxLimits, Parking, Policy, Probe,
    Program, ProgramError, ProgramParts, QueryCheck, Question, Relation, Retire, RetireShape,
    RetiredColumn, RetryPolicy, RowKind, Signal, Soak, Step, StepId, Target, TargetName, Throttle,
    Undo, UnusedFor, UsedBy, Verify, Winner, Within, Writer,
};

use super::document::{
    ActionDef, BackfillDef, CheckDef, DualWriteDef, GateDef, MappingDef, OnError, RetireDef,
    SideDef, SignalDef, StepDef, ThrottleDef, UndoDef, UsedByDef,
};
use super::meaning::{plan_digest, step_digest};
use super::policy::{Guarding, asked_groups, pinned};
use super::relations::of_graph;
use super::resolve::View;
use crate::sql;

/// Why a plan without findings makes no program: a rule is missing.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Something that the rules should have asked for isn't there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The program refuses its parts.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Compiles a plan whose view has no errors. `meaning` is what its digest is over.
pub fn program(view: &View<'_>, meaning: &serde_json::Value) -> Result<Program, CompileError> {
    let name = view.document.name.as_ref().ok_or(CompileError::Missing("the plan's name"))?;
    let mappings = mappings(view)?;
    let guarding = Guarding::of(view);
    let mut steps = Vec::with_capacity(view.document.steps.len());
    for (at, def) in view.all() {
        let mut step = step(view, at, def)?;
        if let Action::Gate(gate) = &mut step.action {
            guarding.add_to(view, at, gate);
        }
        let mapping = step.action.mapping().and_then(|name| mappings.get(name));
        step.digest = step_digest(&step, mapping);
        steps.push(step);
    }
    Ok(Program::new(ProgramParts {
        plan: name.value.clone(),
        digest: plan_digest(meaning),
        environment: EnvironmentName::new(view.surroundings.environment.as_str()),
        targets: targets(view)?,
        mappings,
        policy: policy(view, &steps),
        steps,
    })?)
}

fn targets(view: &View<'_>) -> Result<BTreeMap<TargetName, Target>, CompileError> {
    let surroundings = view.surroundings;
    let environment =
        surroundings.project.and_then(|project| project.environment(surroundings.environment));
    let mut targets = BTreeMap::new();
    for def in &view.document.targets {
        let name = TargetName::new(def.name.value.as_str());
        let over = environment.and_then(|environment| environment.targets.get(&name));
        let url = over.and_then(|over| over.url.clone());
        let url = url.or_else(|| def.url.as_ref().map(|url| url.value.clone()));
        let schema = over.and_then(|over| over.schema.clone());
        let schema = schema.or_else(|| def.schema.as_ref().map(|schema| schema.value.clone()));
        let target = Target {
            engine: def.engine.ok_or(CompileError::Missing("a target's engine"))?.value,
            url: url.ok_or(CompileError::Missing("a target's URL"))?,
            schema,
            parallel: PARALLEL_PER_TARGET,
        };
        targets.insert(name, target);
    }
    Ok(targets)
}

fn policy(view: &View<'_>, steps: &[Step]) -> Policy {
    let gates = steps.iter().filter_map(|step| match &step.action {
        Action::Gate(gate) => Some(gate),
        _ => None,
    });
    pinned(view.surroundings, &asked_groups(gates))
}

fn mappings(view: &View<'_>) -> Result<BTreeMap<MappingName, Mapping>, CompileError> {
    let mut mappings = BTreeMap::new();
    for def in &view.document.mappings {
        let parking = parking(view, def.name.value.as_str());
        let mapping = Mapping { parking, ..mapping(def)? };
        mappings.insert(mapping.name.clone(), mapping);
    }
    Ok(mappings)
}

/// What the steps of a mapping do with rows that the new side refuses.
fn parking(view: &View<'_>, mapping: &str) -> Parking {
    let mut parking = Parking::default();
    for action in view.document.steps.iter().filter_map(|step| step.action.as_ref()) {
        match &action.value {
            ActionDef::Backfill(def) if def.mapping.value == mapping => {
                parking.rows_max = park_max(def).or(parking.rows_max);
            }
            ActionDef::DualWrite(def) if def.mapping.value == mapping => {
                parking.writes |= def.on_error.is_some_and(|on| on.value == OnError::Park);
            }
            _ => {}
        }
    }
    if parking.writes {
        // What a client's write could only note is parked too when it is put right.
        parking.rows_max.get_or_insert(PARK_MAX);
    }
    parking
}

fn mapping(def: &MappingDef) -> Result<Mapping, CompileError> {
    let (from, into) = if def.is_of_graph() {
        let sides = of_graph(def).and_then(Result::ok);
        sides.ok_or(CompileError::Missing("a side of a mapping"))?
    } else {
        tables(def)?
    };
    let pairs = |pairs: &[(super::node::At<String>, super::node::At<String>)]| {
        pairs.iter().map(|(a, b)| (a.value.clone(), b.value.trim().to_owned())).collect()
    };
    Ok(Mapping {
        name: MappingName::new(def.name.value.as_str()),
        from,
        into,
        copy: def.copies(),
        columns: pairs(def.written()),
        reverse: pairs(&def.reverse),
        winner: def.winner.map_or(Winner::New, |winner| winner.value),
        filter: def.filter.as_ref().map(|filter| filter.value.trim().to_owned()),
        on_existing: def.on_existing.map_or(OnExisting::Keep, |on| on.value),
        on_delete: def.on_delete.map_or(OnDelete::Delete, |on| on.value),
        parking: Parking::default(),
    })
}

/// Both sides of a mapping between tables.
fn tables(def: &MappingDef) -> Result<(Relation, Relation), CompileError> {
    let (from, source, into, copy) =
        def.tables().ok_or(CompileError::Missing("a table of a mapping"))?;
    let key = names(from.key.as_ref().ok_or(CompileError::Missing("a mapping's key"))?);
    let relation = |side: &SideDef, table: &str| Relation {
        target: TargetName::new(side.target.value.as_str()),
        table: table.to_owned(),
        key: side.key.as_ref().map_or_else(|| key.clone(), |key| names(key)),
        kind: RowKind::Table,
    };
    // In place the two sides are one table, so its name is written in one way.
    let copy = if def.is_in_place() { source } else { copy };
    Ok((relation(from, source), relation(into, copy)))
}

fn names(columns: &[super::node::At<String>]) -> Vec<String> {
    columns.iter().map(|column| column.value.clone()).collect()
}

fn step(view: &View<'_>, at: usize, def: &StepDef) -> Result<Step, CompileError> {
    let action = def.action.as_ref().ok_or(CompileError::Missing("a step's action"))?;
    let target = view.steps[at].target.map(|at| &view.document.targets[at].name.value);
    let compiled = compile_action(view, at, def, &action.value)?;
    let retry = def.retry;
    Ok(Step {
        id: StepId::new(def.id.value.as_str()),
        phase: def.phase.ok_or(CompileError::Missing("a step's phase"))?.value,
        target: target.map(|name| TargetName::new(name.as_str())),
        needs: view.graph.needs(at).map(|need| view.graph.nodes()[need].id.clone()).collect(),
        undo: undo(view, at, def, &compiled)?,
        irreversible: def.irreversible.as_ref().map(|reason| reason.value.clone()),
        hazard: hazard(view, at, def),
        timeout_ms: def.timeout_ms.map(|at| at.value),
        lock_timeout_ms: def.lock_timeout_ms.map(|at| at.value),
        retry: RetryPolicy {
            attempts: retry.and_then(|retry| retry.attempts).unwrap_or(ATTEMPTS),
            first_wait_ms: retry.and_then(|retry| retry.wait_ms).unwrap_or(FIRST_WAIT_MS),
            longest_wait_ms: retry
                .and_then(|retry| retry.longest_wait_ms.max(retry.wait_ms))
                .unwrap_or(LONGEST_WAIT_MS),
        },
        digest: crate::run::Digest::of_bytes(&[]),
        line: def.id.span.line,
        description: def.description.as_ref().map(|text| text.value.trim().to_owned()),
        action: compiled,
    })
}

/// A review takes the place of a gate, so that what was reviewed needs no permit.
fn hazard(view: &View<'_>, at: usize, def: &StepDef) -> Hazard {
    match view.hazard(at) {
        Hazard::Unknown(_) if def.reviewed.is_some() => Hazard::None,
        hazard => hazard,
    }
}

fn undo(view: &View<'_>, at: usize, def: &StepDef, action: &Action) -> Result<Undo, CompileError> {
    if def.irreversible.is_some() {
        return Ok(Undo::Impossible);
    }
    match def.undo.as_ref().map(|undo| &undo.value) {
        Some(UndoDef::None(reason)) => return Ok(Undo::None(Some(reason.clone()))),
        Some(UndoDef::Sql(_) | UndoDef::Cypher(_) | UndoDef::File(_)) => {
            let script = view.steps[at].undo.as_ref();
            let script = script.ok_or(CompileError::Missing("the statements of an undo"))?;
            return Ok(Undo::Script(script.compile()));
        }
        None => {}
    }
    match action {
        Action::Verify(_) | Action::Gate(_) => Ok(Undo::None(None)),
        Action::DualWrite(_)
        | Action::Backfill(_)
        | Action::Retire(_)
        | Action::StopDualWrite { .. } => Ok(Undo::Derived),
        Action::Sql(_) | Action::Drop { .. } => Err(CompileError::Missing("an undo")),
    }
}

fn compile_action(
    view: &View<'_>,
    at: usize,
    def: &StepDef,
    action: &ActionDef,
) -> Result<Action, CompileError> {
    let mapping = |name: &super::node::At<String>| MappingName::new(name.value.as_str());
    Ok(match action {
        ActionDef::Sql(_) | ActionDef::Cypher(_) => {
            let script = view.steps[at].script.as_ref();
            let mut script = script.ok_or(CompileError::Missing("a script"))?.compile();
            script.hazard = hazard(view, at, def);
            Action::Sql(script)
        }
        ActionDef::DualWrite(def) => Action::DualWrite(DualWrite {
            mapping: mapping(&def.mapping),
            direction: def.direction.value,
            by: writer(view, at, def)?,
            outbox: outbox(def),
        }),
        ActionDef::Backfill(def) => Action::Backfill(backfill(view, at, def)?),
        ActionDef::Verify(def) => Action::Verify(match &def.check {
            CheckDef::Mapping { mapping: name, method, repair, workers } => Verify::Mapping {
                mapping: mapping(name),
                method: method.value,
                repair: *repair,
                workers: *workers,
            },
            CheckDef::Query(query) => Verify::Query(QueryCheck {
                query: query.query.value.trim().to_owned(),
                expect: query.expect.clone(),
                capture: query.capture.as_ref().map(|name| name.value.clone()),
                within: query
                    .within
                    .as_ref()
                    .map(|(of, percent)| Within { of: of.value.clone(), percent: *percent }),
            }),
            CheckDef::Later(_) => return Err(CompileError::Missing("a verify")),
        }),
        ActionDef::Gate(gate) => Action::Gate(compile_gate(view, at, gate)?),
        ActionDef::Retire(def) => Action::Retire(Retire {
            mapping: mapping(&def.mapping),
            shape: shape(view, def)?,
            known: def.known.iter().map(|function| function.value.clone()).collect(),
        }),
        ActionDef::Drop { mapping: name } => Action::Drop { mapping: mapping(name) },
        ActionDef::StopDualWrite { mapping: name } => {
            Action::StopDualWrite { mapping: mapping(name) }
        }
        ActionDef::Redis | ActionDef::Backup | ActionDef::Command => {
            return Err(CompileError::Missing("an action"));
        }
    })
}

/// Who writes both sides.
fn writer(view: &View<'_>, at: usize, def: &DualWriteDef) -> Result<Writer, CompileError> {
    let Some(probe) = &def.probe else { return Ok(Writer::Engine) };
    let asked = probe.asked.as_ref().ok_or(CompileError::Missing("what a probe asks"))?;
    let asked = asked.value.trim().to_owned();
    let question = if probe.kind == "http" {
        Question::Http { url: asked }
    } else {
        let target = view.throttled_on(at, probe.target.as_ref());
        let target = target.ok_or(CompileError::Missing("the target of a probe"))?;
        Question::Query { target: TargetName::new(target.name.value.as_str()), query: asked }
    };
    Ok(Writer::Application(Box::new(Probe {
        question,
        expect: probe.expect.clone().ok_or(CompileError::Missing("what a probe expects"))?,
        for_ms: probe.for_ms.ok_or(CompileError::Missing("how long a probe holds"))?.value,
    })))
}

/// How far the outbox may grow: each limit that the plan doesn't give is the usual one.
fn outbox(def: &DualWriteDef) -> OutboxLimits {
    let usual = OutboxLimits::default();
    let given = def.outbox.map(|given| given.value).unwrap_or_default();
    OutboxLimits {
        rows: given.rows.unwrap_or(usual.rows),
        age_ms: given.age_ms.unwrap_or(usual.age_ms),
        bytes: given.bytes.unwrap_or(usual.bytes),
    }
}

fn park_max(def: &BackfillDef) -> Option<u32> {
    def.on_row_error
        .filter(|on| on.value == OnError::Park)
        .map(|_| def.park_max.as_ref().map_or(PARK_MAX, |most| most.value))
}

fn backfill(view: &View<'_>, at: usize, def: &BackfillDef) -> Result<Backfill, CompileError> {
    let engine = view.steps[at].target.and_then(|at| view.document.targets[at].engine);
    let is_sqlite = engine.is_some_and(|engine| engine.value == crate::run::Engine::Sqlite);
    let source = view.throttled_on(at, None).map(|target| &target.name.value);
    let own = view.steps[at].target.map(|at| &view.document.targets[at].name.value);
    let is_crossing = source != own;
    let usual_ms = match (is_sqlite, is_crossing) {
        (true, _) => CHUNK_TIME_SQLITE_MS,
        (false, true) => CHUNK_TIME_CROSSING_MS,
        (false, false) => CHUNK_TIME_MS,
    };
    let throttle: Result<Vec<Throttle>, CompileError> =
        def.throttle.iter().map(|throttle| compile_throttle(view, at, throttle)).collect();
    Ok(Backfill {
        mapping: MappingName::new(def.mapping.value.as_str()),
        chunk_rows: def.chunk_rows.map_or(ChunkRows::Auto, ChunkRows::Fixed),
        chunk_time_ms: def.chunk_time_ms.unwrap_or(usual_ms),
        workers: def.workers.unwrap_or(if is_crossing { WORKERS_CROSSING } else { 1 }),
        pause_between_ms: def.pause_between_ms.unwrap_or(0),
        park_max: park_max(def),
        throttle: throttle?,
        max_throttled_for_ms: def.max_throttled_for_ms.map(|at| at.value),
    })
}

fn compile_throttle(
    view: &View<'_>,
    at: usize,
    def: &ThrottleDef,
) -> Result<Throttle, CompileError> {
    let target = || {
        let target = view.throttled_on(at, def.target.as_ref());
        let target = target.ok_or(CompileError::Missing("the target of a throttle"))?;
        Ok::<_, CompileError>(TargetName::new(target.name.value.as_str()))
    };
    let signal = match &def.signal {
        SignalDef::Gauge(gauge) => Signal::Gauge { target: target()?, gauge: gauge.value },
        SignalDef::Query { query, .. } => {
            Signal::Query { target: target()?, query: query.value.trim().to_owned() }
        }
        SignalDef::Http(url) => Signal::Http { url: url.value.trim().to_owned() },
        SignalDef::File(path) => Signal::File { path: path.value.clone() },
        SignalDef::Window(window) => Signal::Window(window.clone()),
    };
    Ok(Throttle {
        name: def.name.value.clone(),
        bound: def.bound.map(|bound| bound.value),
        every_ms: def.every_ms.unwrap_or(THROTTLE_EVERY_MS),
        signal,
    })
}

fn compile_gate(view: &View<'_>, at: usize, gate: &GateDef) -> Result<Gate, CompileError> {
    let mut queries = Vec::with_capacity(gate.queries.len());
    let on = |named: Option<&super::node::At<String>>| {
        let target = view.asked_on(at, named).map(|target| target.name.value.as_str());
        target.map(TargetName::new).ok_or(CompileError::Missing("the target of a query"))
    };
    for query in &gate.queries {
        queries.push(GateQuery {
            target: on(query.target.as_ref())?,
            query: query.query.value.trim().to_owned(),
            expect: query.expect.clone(),
        });
    }
    let soak = gate.soak.as_ref().map(|(after, length)| Soak {
        after: StepId::new(after.value.as_str()),
        for_ms: length.value,
    });
    let mut unused_for = Vec::with_capacity(gate.unused_for.len());
    for unused in &gate.unused_for {
        let by = match &unused.by {
            UsedByDef::Counters(name) => UsedBy::Counters(MappingName::new(name.value.as_str())),
            UsedByDef::Query { target, query } => {
                UsedBy::Query { target: on(target.as_ref())?, query: query.value.trim().to_owned() }
            }
        };
        unused_for.push(UnusedFor { by, for_ms: unused.for_ms.value });
    }
    // Whoever approves at once must not have to come again when the waits are over.
    let waits = unused_for.iter().map(|unused| unused.for_ms);
    let wait_ms = waits.chain(soak.as_ref().map(|soak| soak.for_ms)).max().unwrap_or(0);
    Ok(Gate {
        approvals: gate
            .approvals
            .iter()
            .map(|(group, count)| Approvals {
                group: GroupName::new(group.value.as_str()),
                count: count.value,
            })
            .collect(),
        verified_within_ms: gate.verified_within_ms.map(|at| at.value),
        soak,
        queries,
        window: gate.window.clone(),
        unused_for,
        relay_lag_max_ms: gate.relay_lag_max_ms.map(|at| at.value),
        relay_rows_max: gate.relay_rows_max.map(|at| u64::from(at.value)),
        expires_ms: gate
            .expires_ms
            .map_or(APPROVAL_EXPIRES_MS.saturating_add(wait_ms), |at| at.value),
        from_policy: Vec::new(),
    })
}

/// A table put aside stays in its schema, so that it is found by its new name whatever the search path.
fn shape(view: &View<'_>, def: &RetireDef) -> Result<RetireShape, CompileError> {
    if let Some(columns) = &def.columns {
        return Ok(RetireShape::Columns(
            columns
                .value
                .iter()
                .map(|retired| RetiredColumn {
                    column: retired.column.value.clone(),
                    old_name: retired.old_name.value.clone(),
                    take_name: retired.take_name.as_ref().map(|name| name.value.clone()),
                })
                .collect(),
        ));
    }
    let old_name = def.old_name.as_ref().ok_or(CompileError::Missing("old_name"))?;
    let mappings = &view.document.mappings;
    let mapping = mappings.iter().find(|mapping| mapping.name.value == def.mapping.value);
    let source = mapping.and_then(|mapping| {
        let (from, table, ..) = mapping.tables()?;
        Some((view.dialect_of(Some(from))?, table))
    });
    Ok(RetireShape::Table {
        old_name: source.map_or_else(
            || old_name.value.clone(),
            |(dialect, table)| sql::renamed(dialect, table, &old_name.value),
        ),
        take_name: def.take_name.is_some_and(|take| take.value),
    })
}

//! Operations on a run beside driving it: beginning, reading, asking.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::bounds::engine::ANSWER_WITHIN_MS;
use crate::driver::{
    Claim, CreatedObject, Finding, Holder, Purpose, Severity, Survey, SurveyedMapping, TableUse,
    store_identity,
};
use crate::run::{
    Action, Actor, Command, Direction, Event, GateReport, Goal, Input, MappingName, Pin, Program,
    QueryCheck, Retire, RetireShape, RunId, Signal, State, Step, StepId, TargetName, Timestamp,
    Undo, UsedBy, Verify, decide, report,
};
use crate::store::{self, RunHeader, SharedStore};

use super::journal::Journal;
use super::patience::{patiently, within};
use super::probe::{Questions, touched};
use super::{Context, Error, Loaded, is_signalled};

/// Reads a run from its journal.
pub async fn load(store: &SharedStore, run: &RunId) -> Result<Loaded, Error> {
    Journal::load(store, run).await?.loaded().await
}

/// A run that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub run: RunId,
    /// What looking at the targets found, none of which stops a run.
    pub warnings: Vec<(TargetName, Finding)>,
}

/// Begins a run, after looking whether the targets are as the plan needs them and free. Changes nothing in them.
pub async fn start(ctx: &Context, pin: Pin) -> Result<Started, Error> {
    let program = &pin.program;
    let run = RunId::new(Uuid::now_v7().to_string());
    // Before the survey, which would find in the way what a lost run of this store has made.
    let held = held(ctx, program, &run).await?;
    // What a lost run of this very plan has made is no finding: the run is to be gone on with.
    if let Some((target, holder)) = &held
        && holder.plan == program.plan()
    {
        return Err(at(target, crate::driver::Error::Held(Box::new(holder.clone()))));
    }
    let mut findings = Vec::new();
    for (target, driver) in &ctx.drivers {
        let survey = survey(program, target);
        let found = patiently(|| is_signalled(ctx), || driver.survey(&survey));
        let found = within(ANSWER_WITHIN_MS, found).await.map_err(|source| at(target, source))?;
        findings.extend(found.into_iter().map(|finding| (target.clone(), finding)));
    }
    if findings.iter().any(|(_, finding)| finding.severity == Severity::Error) {
        return Err(Error::Findings(findings));
    }
    if let Some((target, holder)) = held {
        return Err(at(&target, crate::driver::Error::Held(Box::new(holder))));
    }
    let header = RunHeader {
        run: run.clone(),
        plan: program.plan().to_owned(),
        environment: program.environment().clone(),
        started_at: ctx.store.now().await?,
        ended: false,
    };
    let started = Event::RunStarted { run: run.clone(), pin: Box::new(pin) };
    ctx.store.create(&header, &ctx.actor, started).await?;
    Ok(Started { run, warnings: findings })
}

/// Another run that keeps this one out, and of which target.
async fn held(
    ctx: &Context,
    program: &Program,
    run: &RunId,
) -> Result<Option<(TargetName, Holder)>, Error> {
    for (target, driver) in &ctx.drivers {
        let Some(claim) = claim(ctx, program, run, target) else { continue };
        let holder = patiently(|| is_signalled(ctx), || driver.holder(&claim));
        let holder = within(ANSWER_WITHIN_MS, holder).await.map_err(|source| at(target, source))?;
        if let Some(holder) = holder {
            lost_here(ctx, target, &holder).await?;
            return Ok(Some((target.clone(), holder)));
        }
    }
    Ok(None)
}

/// Fails where a run is one of this very store, which doesn't have it: then the store has lost its newest records.
async fn lost_here(ctx: &Context, target: &TargetName, holder: &Holder) -> Result<(), Error> {
    if store_identity(&holder.store) != ctx.store.identity() {
        return Ok(());
    }
    match ctx.store.version(&holder.run).await {
        Err(store::Error::NoRun(run)) => Err(store::Error::Damaged {
            message: format!(
                "target {target} is held by run {run} of this state store, which doesn't have it: the store was put back to \
                 an older copy, or has lost its newest records (those of a SQLite file may stand in the -wal file beside it)"
            ),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Whether a run, as it is known here, may be asked this. Nothing is recorded.
pub fn may_ask(state: &State, by: &Actor, command: &Command, now: Timestamp) -> Result<(), Error> {
    decide(state, &Input::Asked(command.clone()), &Goal::End, by, now)?;
    Ok(())
}

/// Asks something of a run, from whichever terminal. Whoever drives it sees the records at the next look.
pub async fn ask(
    store: &SharedStore,
    run: &RunId,
    by: &Actor,
    command: Command,
) -> Result<State, Error> {
    let mut journal = Journal::load(store, run).await?;
    journal.feed(&Input::Asked(command), &Goal::End, by).await?;
    Ok(journal.state)
}

/// What holds of a gate now, with its queries asked.
pub async fn inspect(ctx: &Context, run: &RunId, gate: &StepId) -> Result<GateReport, Error> {
    let journal = Journal::load(&ctx.store, run).await?;
    let questions = Questions::of(ctx, &journal.state, gate).at_once();
    let seen = questions.ask(&ctx.drivers, &ctx.store).await;
    let now = ctx.store.now().await?;
    Ok(report(&journal.state, gate, &seen, now))
}

pub(super) fn at(target: &TargetName, source: crate::driver::Error) -> Error {
    Error::Target { target: target.clone(), source }
}

/// How this run announces itself in a target; `None` where it changes nothing, and so leaves no trace either.
pub(super) fn claim(
    ctx: &Context,
    program: &Program,
    run: &RunId,
    target: &TargetName,
) -> Option<Claim> {
    let objects = claimed(program, target)?;
    Some(Claim {
        run: run.clone(),
        plan: program.plan().to_owned(),
        digest: program.digest().clone(),
        store: format!("{} at {}", ctx.store.identity(), ctx.store.place()),
        host: ctx.claimant.host.clone(),
        pid: ctx.claimant.pid,
        objects,
        mappings: worked_on(program, target),
        parallel: program.targets().get(target).map_or(1, |target| target.parallel),
        adopts: None,
    })
}

/// What a plan claims in its databases: objects, and mappings.
pub(super) type Claimed = BTreeMap<TargetName, (Option<Vec<String>>, Vec<MappingName>)>;

/// What a plan claims where it works.
pub(super) fn all_claimed(program: &Program) -> Claimed {
    let of = |target: &TargetName| (claimed(program, target), worked_on(program, target));
    program.targets().keys().map(|target| (target.clone(), of(target))).collect()
}

/// The mappings that a plan works on in a target.
fn worked_on(program: &Program, target: &TargetName) -> Vec<MappingName> {
    let here = program.steps().iter().filter(|step| program.works_on(step, target));
    let names: BTreeSet<_> = here.filter_map(|step| step.action.mapping()).cloned().collect();
    names.into_iter().collect()
}

/// The objects of a target that a plan works on, those of its undo too; empty where that can't be told, which claims the
/// whole database. `None` where no step changes anything there.
fn claimed(program: &Program, target: &TargetName) -> Option<Vec<String>> {
    let changing: Vec<&Step> = program
        .steps()
        .iter()
        .filter(|step| program.works_on(step, target) && step.action.changes_data())
        .collect();
    if changing.is_empty() {
        return None;
    }
    let mut objects = BTreeSet::new();
    for step in changing {
        let undo = match &step.undo {
            Undo::Script(script) => Some(script),
            Undo::None(_) | Undo::Derived | Undo::Impossible => None,
        };
        let own = match &step.action {
            Action::Sql(script) => Some(script),
            _ => None,
        };
        for script in own.into_iter().chain(undo) {
            // What can't be read may work on anything.
            if script.is_opaque || script.tables.is_empty() {
                return Some(Vec::new());
            }
            objects.extend(script.tables.iter().cloned());
        }
        objects.extend(touched(program, step, target));
    }
    Some(objects.into_iter().collect())
}

/// What a plan wants to find in a target before its first change. Of statements only the tables are known here.
#[must_use]
pub fn survey(program: &Program, target: &TargetName) -> Survey {
    let mut survey = Survey::default();
    let mut directions = BTreeMap::new();
    for step in program.steps() {
        if let Action::DualWrite(dual_write) = &step.action {
            directions.insert(&dual_write.mapping, dual_write.direction);
        }
    }
    let mut surveyed = Vec::new();
    for step in program.steps().iter().filter(|step| program.works_on(step, target)) {
        if let Action::Sql(script) = &step.action {
            survey.created.extend(script.creates.iter().map(|created| CreatedObject {
                table: created.table.clone(),
                column: created.column.clone(),
            }));
            survey.scripts.push((step.id.clone(), script.clone()));
        }
        if let Action::Retire(retire) = &step.action {
            survey.renamed.extend(renamed(program, retire));
            survey.retired.push((retire.mapping.clone(), retire.shape.clone()));
        }
        if let Action::Verify(Verify::Query(QueryCheck { query, .. })) = &step.action {
            survey.queries.push((step.id.clone(), query.clone()));
        }
        survey.uses.extend(uses(program, step, target, &directions));
        let Some(name) = step.action.mapping() else { continue };
        if surveyed.contains(&name) {
            continue;
        }
        surveyed.push(name);
        if let Some(mapping) = program.mappings().get(name) {
            survey.mappings.push(SurveyedMapping {
                step: step.id.clone(),
                mapping: mapping.clone(),
                direction: directions.get(name).copied(),
            });
        }
    }
    for step in program.steps() {
        if let Action::Backfill(backfill) = &step.action {
            let asked = backfill.throttle.iter().filter_map(|one| match &one.signal {
                Signal::Query { target: of, query } if of == target => Some(query.clone()),
                _ => None,
            });
            survey.queries.extend(asked.map(|query| (step.id.clone(), query)));
        }
        let Action::Gate(gate) = &step.action else { continue };
        let here = gate.queries.iter().filter(|query| query.target == *target);
        survey.queries.extend(here.map(|query| (step.id.clone(), query.query.clone())));
        let uses = gate.unused_for.iter().filter_map(|asked| match &asked.by {
            UsedBy::Query { target: of, query } if of == target => Some(query.clone()),
            _ => None,
        });
        survey.queries.extend(uses.map(|query| (step.id.clone(), query)));
    }
    survey
}

/// The names that a `retire` gives.
fn renamed(program: &Program, retire: &Retire) -> Vec<CreatedObject> {
    let (old_name, columns) = match &retire.shape {
        RetireShape::Table { old_name, .. } => (Some(old_name), &[][..]),
        RetireShape::Columns(columns) => (None, columns.as_slice()),
    };
    let from = program.mappings().get(&retire.mapping).map(|mapping| mapping.from.table.as_str());
    let of_columns = columns.iter().filter_map(|column| {
        Some(CreatedObject { table: from?.to_owned(), column: Some(column.old_name.clone()) })
    });
    let of_table = old_name.map(|name| CreatedObject { table: name.clone(), column: None });
    of_table.into_iter().chain(of_columns).collect()
}

/// What a step does with the tables it works on, under the names that they have now.
fn uses(
    program: &Program,
    step: &Step,
    target: &TargetName,
    directions: &BTreeMap<&MappingName, Direction>,
) -> Vec<TableUse> {
    let used = |table: &str, purpose: Purpose| TableUse {
        step: step.id.clone(),
        table: table.to_owned(),
        purpose,
    };
    if let Action::Sql(script) = &step.action {
        return script.tables.iter().map(|table| used(table, Purpose::Named)).collect();
    }
    let mapping = step.action.mapping().and_then(|name| program.mappings().get(name));
    let Some(mapping) = mapping else { return Vec::new() };
    let is_both = directions.get(&mapping.name) == Some(&Direction::Both);
    let (from, into) = match &step.action {
        Action::DualWrite(_) | Action::StopDualWrite { .. } if is_both => {
            (Purpose::Sync, Purpose::Sync)
        }
        Action::DualWrite(_) | Action::StopDualWrite { .. } => (Purpose::Sync, Purpose::Write),
        Action::Backfill(_) => (Purpose::Read, Purpose::Write),
        Action::Retire(_) => (Purpose::Retire, Purpose::Change),
        Action::Drop { .. } => (Purpose::Drop, Purpose::Read),
        Action::Verify(_) | Action::Gate(_) | Action::Sql(_) => (Purpose::Read, Purpose::Read),
    };
    let mut all = Vec::new();
    if mapping.from.target == *target {
        all.push(used(&mapping.from.table, from));
    }
    if mapping.into.target == *target && (!mapping.is_in_place() || into == Purpose::Write) {
        all.push(used(&mapping.into.table, into));
    }
    all
}

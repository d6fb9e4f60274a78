//! Operations on a run beside driving it: beginning, reading, asking.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::driver::{Claim, CreatedObject, Finding, Severity, Survey, SurveyedMapping};
use crate::run::{
    Action, Actor, Command, Event, GateReport, Goal, Input, Pin, Program, QueryCheck, RunId, State,
    StepId, TargetName, UsedBy, Verify, report,
};
use crate::store::{RunHeader, SharedStore};

use super::journal::Journal;
use super::patience::{ANSWER_WITHIN_MS, patiently, within};
use super::probe::Questions;
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
    let run = RunId::new(Uuid::now_v7().to_string());
    for (target, driver) in &ctx.drivers {
        let claim = claim(ctx, program, &run);
        let holder = patiently(|| is_signalled(ctx), || driver.holder(&claim));
        let holder = within(ANSWER_WITHIN_MS, holder).await.map_err(|source| at(target, source))?;
        if let Some(holder) = holder {
            return Err(at(target, crate::driver::Error::Held(Box::new(holder))));
        }
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

/// How this run announces itself in a target.
pub(super) fn claim(ctx: &Context, program: &Program, run: &RunId) -> Claim {
    Claim {
        run: run.clone(),
        plan: program.plan().to_owned(),
        digest: program.digest().clone(),
        store: format!("{} at {}", ctx.store.identity(), ctx.store.location()),
        host: ctx.claimant.host.clone(),
        pid: ctx.claimant.pid,
        objects: Vec::new(),
    }
}

/// What a plan wants to find in a target before its first change.
fn survey(program: &Program, target: &TargetName) -> Survey {
    let mut survey = Survey::default();
    let mut directions = BTreeMap::new();
    for step in program.steps() {
        if let Action::DualWrite(dual_write) = &step.action {
            directions.insert(&dual_write.mapping, dual_write.direction);
        }
    }
    let mut surveyed = Vec::new();
    for step in program.steps().iter().filter(|step| step.target.as_ref() == Some(target)) {
        if let Action::Sql(script) = &step.action {
            survey.created.extend(script.creates.iter().map(|created| CreatedObject {
                table: created.table.clone(),
                column: created.column.clone(),
            }));
        }
        if let Action::Verify(Verify::Query(QueryCheck { query, .. })) = &step.action {
            survey.queries.push((step.id.clone(), query.clone()));
        }
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

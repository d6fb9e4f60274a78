//! Going on with a run whose journal is lost: what the targets still have of it makes another one.
//!
//! Invariants:
//! - Everybody else is shut out before the ledgers are read, so that what is read stays true.
//! - A journal that takes the place of a lost one says so in its second record; until the ledgers have been read nothing else is
//!   decided, and whoever drives the run reads them first.

use std::collections::BTreeMap;

use crate::bounds::engine::ANSWER_WITHIN_MS;
use crate::driver::{Error as DriverError, Remnant, SharedDriver, emptying, given_up};
use crate::run::{
    Action, Actor, Event, FailureClass, Goal, Input, LostHead, Pin, RunId, State, Step, StepId,
    StepTrace, TargetName, Traced, Traces, Way,
};
use crate::store::{Arrival, History, RunHeader};

use super::finish::end_of;
use super::journal::Journal;
use super::patience::{patiently, within};
use super::start::at;
use super::{Context, Error, is_signalled};

/// What each target has of the runs of a plan, open ones first.
pub type Remnants = BTreeMap<TargetName, Vec<Remnant>>;

/// Looks in every target for runs of a plan. Changes nothing.
pub async fn remnants(ctx: &Context, plan: &str) -> Result<Remnants, Error> {
    let mut found = BTreeMap::new();
    for (target, driver) in &ctx.drivers {
        let asked = patiently(|| is_signalled(ctx), || driver.remnants(plan));
        let remnants =
            within(ANSWER_WITHIN_MS, asked).await.map_err(|source| at(target, source))?;
        found.insert(target.clone(), remnants);
    }
    Ok(found)
}

/// Begins a journal in the place of a lost one, from what the targets have of the run. Changes nothing in them.
pub async fn begin_anew(
    ctx: &Context,
    pin: Pin,
    (run, from): (&RunId, String),
    remnants: &Remnants,
) -> Result<(), Error> {
    let of_run = || {
        remnants.iter().filter_map(|(target, found)| {
            found.iter().find(|remnant| remnant.run == *run).map(|remnant| (target, remnant))
        })
    };
    let head = |(target, remnant): (&TargetName, &Remnant)| {
        let head = remnant.head.clone()?;
        Some((target.clone(), LostHead { version: head.version, hash: head.hash }))
    };
    let header = RunHeader {
        run: run.clone(),
        plan: pin.program.plan().to_owned(),
        environment: pin.program.environment().clone(),
        started_at: ctx.store.now().await?,
        ended: false,
    };
    let events = vec![
        Event::RunStarted { run: run.clone(), pin: Box::new(pin) },
        Event::AdoptionBegun { from, heads: of_run().filter_map(head).collect() },
    ];
    let mut tokens: BTreeMap<RunId, u64> = BTreeMap::from([(run.clone(), 0)]);
    for (of, token) in of_run().flat_map(|(_, remnant)| remnant.tokens.iter()) {
        let newest = tokens.entry(of.clone()).or_default();
        *newest = (*newest).max(*token);
    }
    // The lost store, whichever it was: only that it is another one counts.
    let store = of_run().map(|(_, remnant)| remnant.store.clone()).next().unwrap_or_default();
    let history = History::begin(header, &ctx.actor, events)?;
    let arrival = Arrival { history, store, tokens: tokens.into_iter().collect() };
    ctx.store.import(&arrival, &super::process::is_dead).await?;
    Ok(())
}

/// Reads what the targets have of a run, under fences that shut everybody else out, and records it.
pub(super) async fn read(ctx: &Context, journal: &mut Journal) -> Result<(), Error> {
    let state = &journal.state;
    let mut traces = Traces::default();
    let remnants = remnants(ctx, state.program().plan()).await?;
    let mut of_run = remnants.values().flatten().filter(|remnant| remnant.run == *state.run());
    traces.left = of_run.find_map(|remnant| remnant.left);
    for step in state.program().steps().iter().filter(|step| step.action.changes_data()) {
        let trace = trace(ctx, state, step).await?;
        if trace.done != Traced::Nothing || trace.undone != Traced::Nothing {
            traces.steps.push(trace);
        }
    }
    for step in state.program().steps() {
        let Action::DualWrite(dual_write) = &step.action else { continue };
        for target in state.program().databases(step) {
            let has = |step: StepId| has(ctx, state, target, step);
            traces.gives_up |= has(given_up(&step.id)).await?;
            traces.ends |= has(end_of(&dual_write.mapping)).await?;
        }
    }
    let by = Actor::engine(&ctx.claimant.host);
    journal.feed(&Input::Adopted(traces), &Goal::End, &by).await?;
    Ok(())
}

async fn has(
    ctx: &Context,
    state: &State,
    target: &TargetName,
    step: StepId,
) -> Result<bool, Error> {
    let Some(driver) = ctx.drivers.get(target) else { return Ok(false) };
    let asked =
        patiently(|| is_signalled(ctx), || driver.is_applied(state.run(), &step, Way::Forward));
    within(ANSWER_WITHIN_MS, asked).await.map_err(|source| at(target, source))
}

/// What the ledgers have of a step. A sync is in both databases of its mapping, and whole where both have it.
async fn trace(ctx: &Context, state: &State, step: &Step) -> Result<StepTrace, Error> {
    let is_in_both = matches!(step.action, Action::DualWrite(_) | Action::StopDualWrite { .. });
    let mut trace = StepTrace {
        step: step.id.clone(),
        done: Traced::Nothing,
        undone: Traced::Nothing,
        rows: None,
        detail: None,
    };
    for (nth, target) in state.program().databases(step).enumerate() {
        if nth > 0 && !is_in_both {
            break;
        }
        let Some(driver) = ctx.drivers.get(target) else {
            let message = format!("target {target} of {} was not opened", step.id);
            return Err(at(target, DriverError::failed(FailureClass::Stale, message)));
        };
        let asked = patiently(|| is_signalled(ctx), || trace_in(driver, state.run(), step));
        let found = within(ANSWER_WITHIN_MS, asked).await.map_err(|source| at(target, source))?;
        if nth == 0 {
            trace = found;
        } else {
            trace.done = trace.done.and(found.done);
            trace.undone = trace.undone.and(found.undone);
        }
    }
    Ok(trace)
}

async fn trace_in(
    driver: &SharedDriver,
    run: &RunId,
    step: &Step,
) -> Result<StepTrace, DriverError> {
    let id = &step.id;
    let mut done = driver.traced(run, id, Way::Forward).await?;
    let mut undone = driver.traced(run, id, Way::Back).await?;
    let entry = driver.entry(run, id, Way::Forward).await?;
    if done == Traced::Nothing && matches!(step.action, Action::Backfill(_)) {
        let copy = driver.copy_state(run, id).await?;
        if copy.watermark > 0 || !copy.open.is_empty() || copy.rows_read > 0 {
            done = Traced::Parts;
        }
    }
    if undone == Traced::Nothing
        && matches!(step.action, Action::DualWrite(_))
        && driver.is_applied(run, &emptying(id), Way::Back).await?
    {
        undone = Traced::Parts;
    }
    let (rows, detail) = entry.map_or((None, None), |it| (Some(it.rows), it.detail));
    Ok(StepTrace { step: id.clone(), done, undone, rows, detail })
}

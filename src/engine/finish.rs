//! The end of a run: our objects go from the targets, and only then is the run recorded as over.
//!
//! Invariant: a sync that no step of the plan ends ends here as `stop_dual_write` would end it: what clients wrote and it could only
//! note is put right, and while a row is parked the run is not over.

use std::collections::BTreeMap;

use crate::bounds::engine::ANSWER_WITHIN_MS;
use crate::driver::crossing::{Entered, Sides, of_mapping};
use crate::driver::{Error as DriverError, Fence, Head, SharedDriver, Work, given_up};
use crate::run::{
    Action, Direction, DualWrite, Ending, FailureClass, Mapping, MappingName, Standing, State,
    StepId, TargetName, Way, plural,
};

use super::patience::{patiently, within};
use super::probe::live_syncs;
use super::relay::Relays;
use super::start::at;
use super::{Context, Error, is_signalled};

/// Removes what is ours. Doing it again, after a death in the middle, changes nothing more.
pub(super) async fn end(
    ctx: &Context,
    state: &State,
    (head, fences): (&Head, &BTreeMap<TargetName, Fence>),
    ending: Ending,
    relays: &mut Relays,
) -> Result<(), Error> {
    if matches!(state.standing(), Standing::Aborting { leave: true }) {
        remove_syncs(ctx, state, head, fences).await?;
    }
    if ending == Ending::Completed {
        for which in [End::Ready, End::Now] {
            end_syncs(ctx, state, (head, fences), which).await?;
        }
    }
    // Whatever was captured has been carried, or is void.
    relays.stop().await;
    for (target, driver) in &ctx.drivers {
        let Some(fence) = fences.get(target) else { continue };
        let left = patiently(|| is_signalled(ctx), || driver.leave(fence, ending, head));
        within(ANSWER_WITHIN_MS, left).await.map_err(|source| at(target, source))?;
    }
    Ok(())
}

/// The piece of work that ends the sync of a mapping with the run.
pub(super) fn end_of(mapping: &MappingName) -> StepId {
    StepId::new(format!("end/{mapping}"))
}

/// How far syncs are ended. All are made ready before the first one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ready,
    Now,
}

/// Ends the syncs that live on to the end of their run.
async fn end_syncs(
    ctx: &Context,
    state: &State,
    (head, fences): (&Head, &BTreeMap<TargetName, Fence>),
    which: End,
) -> Result<(), Error> {
    for (mapping, direction) in live_syncs(state) {
        let target = &mapping.from.target;
        let Some((driver, fence)) = both(ctx, state, fences, &mapping) else { continue };
        let work = Work {
            step: end_of(&mapping.name),
            way: Way::Forward,
            head: head.clone(),
            lock_timeout_ms: None,
            compared_under: None,
            resolved: None,
        };
        let is_beside = |other: &Mapping| {
            other.is_pushdown() && other.from.target == *target && other.name != mapping.name
        };
        let beside: Vec<Mapping> =
            live_syncs(state).into_iter().map(|(other, _)| other).filter(is_beside).collect();
        let at_work = (&driver, fence);
        let end = || end_sync(at_work, &work, (&mapping, direction, &beside), which);
        let ended = patiently(|| is_signalled(ctx), end);
        within(ANSWER_WITHIN_MS, ended).await.map_err(|source| at(target, source))?;
    }
    Ok(())
}

/// The database of a mapping with a fence there, or both as one.
fn both<'a>(
    ctx: &Context,
    state: &State,
    fences: &'a BTreeMap<TargetName, Fence>,
    mapping: &Mapping,
) -> Option<(SharedDriver, &'a Fence)> {
    let home = &mapping.into.target;
    let sides = Sides {
        home: home.clone(),
        entered: Entered::Both,
        beside: fences.get(&mapping.from.target).cloned(),
        live: live_syncs(state).into_iter().map(|(live, _)| live).collect(),
    };
    Some((of_mapping(&ctx.drivers, mapping, sides)?, fences.get(home)?))
}

async fn end_sync(
    (driver, fence): (&SharedDriver, &Fence),
    work: &Work,
    (mapping, direction, beside): (&Mapping, Direction, &[Mapping]),
    which: End,
) -> Result<(), DriverError> {
    if driver.is_applied(fence.run(), &work.step, work.way).await? {
        return Ok(());
    }
    match driver.sync_state(mapping, direction).await {
        // Somebody has changed its tables, or dropped them: there is nothing to put right any more.
        Err(DriverError::Failed(failure))
            if matches!(failure.class, FailureClass::Refused | FailureClass::Stale) =>
        {
            let why = failure.message;
            tracing::warn!(why, "what the sync of {} could only note is left", mapping.name);
            return Ok(());
        }
        state => state?,
    };
    driver.settle_among(fence, mapping, beside).await?;
    let left = driver.retry_parked(fence, mapping, direction).await?;
    if left > 0 {
        return Err(still_parked(mapping, left));
    }
    if which == End::Now {
        driver.remove(fence, work, mapping, direction).await?;
    }
    Ok(())
}

fn still_parked(mapping: &Mapping, left: u64) -> DriverError {
    let message = format!(
        "{} of mapping {} parked, and the sync would end with the run",
        plural(left, "row"),
        mapping.name
    );
    DriverError::failed(FailureClass::Unsafe, message)
        .with_help("see `phasegate status RUN --parked`, mend the rows, then run the plan again")
}

/// A run that is given up leaves its changes, but not a sync that nobody watches any more.
async fn remove_syncs(
    ctx: &Context,
    state: &State,
    head: &Head,
    fences: &BTreeMap<TargetName, Fence>,
) -> Result<(), Error> {
    for step in state.program().steps() {
        let Action::DualWrite(DualWrite { mapping, direction, .. }) = &step.action else {
            continue;
        };
        let Some(mapping) = state.mapping(mapping) else { continue };
        let target = &mapping.from.target;
        let Some((driver, fence)) = both(ctx, state, fences, &mapping) else { continue };
        // A piece of work of its own: the step's entry in the ledger says that the sync went in.
        let work = Work {
            step: given_up(&step.id),
            way: Way::Forward,
            head: head.clone(),
            lock_timeout_ms: None,
            compared_under: None,
            resolved: None,
        };
        let removed =
            patiently(|| is_signalled(ctx), || driver.remove(fence, &work, &mapping, *direction));
        within(ANSWER_WITHIN_MS, removed).await.map_err(|source| at(target, source))?;
    }
    Ok(())
}

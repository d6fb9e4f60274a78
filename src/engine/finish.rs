//! The end of a run: our objects go from the targets, and only then is the run recorded as over.

use std::collections::BTreeMap;

use crate::driver::{Fence, Head, Work, given_up};
use crate::run::{Action, DualWrite, Ending, Standing, State, TargetName, Way};

use super::patience::{ANSWER_WITHIN_MS, patiently, within};
use super::start::at;
use super::{Context, Error, is_signalled};

/// Removes what is ours. Doing it again, after a death in the middle, changes nothing more.
pub(super) async fn leave(
    ctx: &Context,
    state: &State,
    head: &Head,
    fences: &BTreeMap<TargetName, Fence>,
    ending: Ending,
) -> Result<(), Error> {
    if matches!(state.standing(), Standing::Aborting { leave: true }) {
        remove_syncs(ctx, state, head, fences).await?;
    }
    for (target, driver) in &ctx.drivers {
        let Some(fence) = fences.get(target) else { continue };
        let left = patiently(|| is_signalled(ctx), || driver.leave(fence, ending, head));
        within(ANSWER_WITHIN_MS, left).await.map_err(|source| at(target, source))?;
    }
    Ok(())
}

/// A run that is given up leaves its changes, but not a sync that nobody watches any more.
async fn remove_syncs(
    ctx: &Context,
    state: &State,
    head: &Head,
    fences: &BTreeMap<TargetName, Fence>,
) -> Result<(), Error> {
    for step in state.program().steps() {
        let Action::DualWrite(DualWrite { mapping, direction }) = &step.action else { continue };
        let Some(mapping) = state.mapping(mapping) else { continue };
        let target = &mapping.from.target;
        let (Some(driver), Some(fence)) = (ctx.drivers.get(target), fences.get(target)) else {
            continue;
        };
        // A piece of work of its own: the step's entry in the ledger says that the sync went in.
        let work = Work {
            step: given_up(&step.id),
            way: Way::Forward,
            head: head.clone(),
            lock_timeout_ms: None,
            compared_under: None,
        };
        let removed =
            patiently(|| is_signalled(ctx), || driver.remove(fence, &work, &mapping, *direction));
        within(ANSWER_WITHIN_MS, removed).await.map_err(|source| at(target, source))?;
    }
    Ok(())
}

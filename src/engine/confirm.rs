//! Before a run goes on: what its journal says is done, each target's ledger has.
//!
//! A target can go back behind the journal: a standby was promoted that had not received the last transactions, a backup
//! was restored, or the URL leads to another database now. What is missing there was never done as far as the data are
//! concerned, and whatever builds on it would be wrong.
//!
//! Invariant: nothing was changed yet when this says no. Absent on purpose: going back, which asks the ledger of each step
//! by itself, and looking at the data, which is verify's.

use crate::driver::{Error as DriverError, SharedDriver};
use crate::run::{FailureClass, Progress, Standing, State, StepId, TargetName, Way};

use super::patience::{ANSWER_WITHIN_MS, patiently, within};
use super::start::at;
use super::{Context, Error, is_signalled};

/// How many steps are named.
const NAMED_MAX: usize = 5;

/// Fails where a target lacks what the run has done there.
pub(super) async fn confirm(
    ctx: &Context,
    state: &State,
    (target, driver): (&TargetName, &SharedDriver),
) -> Result<(), Error> {
    if *state.standing() != Standing::Forward || is_signalled(ctx) {
        return Ok(());
    }
    let run = state.run();
    let done: Vec<&StepId> = state
        .program()
        .steps()
        .iter()
        .filter(|step| step.target.as_ref() == Some(target) && step.action.changes_data())
        .map(|step| &step.id)
        .filter(|id| state.step(id).progress == Progress::Succeeded)
        .collect();
    let mut missing = Vec::new();
    for step in &done {
        let asked = patiently(|| is_signalled(ctx), || driver.is_applied(run, step, Way::Forward));
        let asked = within(ANSWER_WITHIN_MS, asked).await;
        if !asked.map_err(|source| at(target, source))? {
            missing.push(step.as_str());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if missing.len() == done.len() {
        // A run that had left before it could record that it is over has its row, and nothing in the ledger.
        let head = within(ANSWER_WITHIN_MS, driver.head(run)).await;
        if head.map_err(|source| at(target, source))?.is_some() {
            return Ok(());
        }
    }
    let more = missing.len().saturating_sub(NAMED_MAX);
    missing.truncate(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message =
        format!("the database has nothing of what was done there: {}{more}", missing.join(", "));
    let help = "it may have lost its last transactions (a failover, a restored backup), or the target's URL leads to another \
                database: name the one that has them; if they are lost for good, go back with phasegate rollback, and run \
                the plan anew";
    Err(at(target, DriverError::failed(FailureClass::Stale, message).with_help(help)))
}

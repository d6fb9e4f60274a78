//! `stop_dual_write`: the sync ends where nothing is dropped.

use crate::driver::Losses;
use crate::run::Outcome;

use super::pass::{Resume, compare_all};
use super::{Fault, Job, dual_write, outcome, park};

pub(super) async fn perform(job: &Job) -> Result<Outcome, Fault> {
    let (fence, mapping) = (job.fence()?, job.mapping()?);
    if !job.is_in_ledger().await? {
        park::refuse(job, mapping).await?;
    }
    let applied = job.driver.remove(fence, &job.work, mapping, job.direction).await?;
    Ok(outcome(applied))
}

/// Puts the sync in again. Since it ended, clients may have written to one side only: both must be equal, or the loss be
/// accepted.
pub(super) async fn undo(job: &Job) -> Result<Outcome, Fault> {
    let (fence, mapping) = (job.fence()?, job.mapping()?);
    if !job.was_done().await? {
        return Ok(Outcome::default());
    }
    if job.losses == Losses::Refused && !job.is_in_ledger().await? {
        let compared = compare_all(job, None, Resume::Never).await?.compared;
        if !compared.is_clean() {
            let rows = compared.missing + compared.extra + compared.different;
            return Err(dual_write::only_new(job, rows));
        }
    }
    let applied = job.driver.install(fence, &job.work, mapping, job.direction).await?;
    Ok(outcome(applied))
}

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
/// accepted. Whoever writes to the new side behind the comparison is noted.
pub(super) async fn undo(job: &Job) -> Result<Outcome, Fault> {
    let (fence, mapping) = (job.fence()?, job.mapping()?);
    if !job.was_done().await? {
        return Ok(Outcome::default());
    }
    let mut work = job.work.clone();
    if job.losses == Losses::Refused && !job.is_in_ledger().await? {
        job.patient(|| job.driver.watch(fence, &work, mapping)).await?;
        let whole = compare_all(job, None, Resume::Never).await;
        let whole = whole.map_err(|it| dual_write::or_give_up(job, it))?;
        let compared = whole.compared;
        if !compared.is_clean() {
            let rows = compared.missing + compared.extra + compared.different;
            return Err(dual_write::only_new(job, rows, &compared));
        }
        work.compared_under = Some(whole.sync);
    }
    let applied = job.driver.install(fence, &work, mapping, job.direction).await?;
    Ok(outcome(applied))
}

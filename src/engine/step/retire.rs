//! `retire`: the old shape is put aside, or comes back.

use crate::run::{Outcome, Retire};

use super::{Fault, Job, outcome, verify};

pub(super) async fn perform(job: &Job, retire: &Retire) -> Result<Outcome, Fault> {
    let (fence, planned) = (job.fence()?, job.planned()?);
    // After a death behind the commit the names are those of afterwards, and there is nothing left to put right.
    if !job.is_in_ledger().await? {
        verify::settle(job, planned).await?;
    }
    let (work, shape) = (&job.work, &retire.shape);
    let applied =
        job.locking(|| job.driver.retire(fence, work, planned, job.direction, shape)).await?;
    Ok(outcome(applied))
}

pub(super) async fn undo(job: &Job, retire: &Retire) -> Result<Outcome, Fault> {
    let (fence, planned) = (job.fence()?, job.planned()?);
    let (work, shape) = (&job.work, &retire.shape);
    let call = || job.driver.unretire(fence, work, planned, job.direction, shape, job.losses);
    let applied = job.locking(call).await?;
    Ok(outcome(applied))
}

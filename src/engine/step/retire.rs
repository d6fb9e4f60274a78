//! `retire`: the old shape is put aside, or comes back.

use crate::run::{Outcome, Retire};

use super::{Fault, Job, outcome, park, verify};

pub(super) async fn perform(job: &Job, retire: &Retire) -> Result<Outcome, Fault> {
    let (fence, planned) = (job.fence()?, job.planned()?);
    // After a death behind the commit the names are those of afterwards, and there is nothing left to put right.
    if !job.is_in_ledger().await? {
        verify::settle(job, planned).await?;
        park::refuse(job, planned).await?;
    }
    let driver = &job.driver;
    let applied = driver.retire(fence, &job.work, planned, job.direction, retire).await?;
    Ok(outcome(applied))
}

pub(super) async fn undo(job: &Job, retire: &Retire) -> Result<Outcome, Fault> {
    let (fence, planned) = (job.fence()?, job.planned()?);
    let driver = &job.driver;
    let applied = driver
        .unretire(fence, &job.work, planned, job.direction, &retire.shape, job.losses)
        .await?;
    Ok(outcome(applied))
}

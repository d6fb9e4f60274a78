//! `drop`: what `retire` put aside goes for good.

use crate::run::{FailureClass, Outcome};

use super::{Fault, Job, outcome, park};

pub(super) async fn perform(job: &mut Job) -> Result<Outcome, Fault> {
    let Some(permit) = job.permit.take() else {
        return Err(Fault::failed(
            FailureClass::Unsafe,
            format!("{} has no permit: no gate has released it", job.step.id),
        ));
    };
    let Some(shape) = &job.shape else {
        return Err(Fault::failed(
            FailureClass::Unsafe,
            format!("{} has nothing to drop: the plan retires nothing of its mapping", job.step.id),
        ));
    };
    // With `both` clients of the old shape may have written what the new side refuses. With `forward` nothing is parked any more.
    if !job.is_in_ledger().await? {
        park::refuse(job, job.mapping()?).await?;
    }
    let (fence, planned) = (job.fence()?, job.planned()?);
    let applied = job.driver.drop_retired(fence, &job.work, planned, shape, permit).await?;
    Ok(outcome(applied))
}

//! `drop`: what `retire` put aside goes for good; in a graph, where nothing is put aside, the old side itself.

use crate::run::{FailureClass, Outcome};

use super::{Fault, Job, outcome, park};

pub(super) async fn perform(job: &mut Job) -> Result<Outcome, Fault> {
    let Some(permit) = job.permit.take() else {
        return Err(Fault::failed(
            FailureClass::Unsafe,
            format!("{} has no permit: no gate has released it", job.step.id),
        ));
    };
    if job.planned()?.is_of_graph() {
        let (fence, mapping) = (job.fence()?, job.planned()?);
        let applied = job.driver.drop_old(fence, &job.work, mapping, &job.mappings, permit).await?;
        return Ok(outcome(applied));
    }
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

//! `sql`: statements with the step's row in the ledger.

use crate::run::{FailureClass, Outcome, Runnable, Script, Undo};

use super::{Fault, Job, outcome};

pub(super) async fn perform(job: &mut Job, script: &Script) -> Result<Outcome, Fault> {
    run(job, script).await
}

pub(super) async fn undo(job: &mut Job) -> Result<Outcome, Fault> {
    match job.step.undo.clone() {
        Undo::Script(script) => run(job, &script).await,
        Undo::None(_) | Undo::Derived => Ok(Outcome::default()),
        Undo::Impossible => job.has_nothing_to_undo().await,
    }
}

async fn run(job: &mut Job, script: &Script) -> Result<Outcome, Fault> {
    let permit = job.permit.take();
    let runnable = Runnable::new(&job.step.id, script, permit)
        .map_err(|refused| Fault::failed(FailureClass::Unsafe, refused.to_string()))?;
    let applied = job.driver.execute(job.fence()?, &job.work, runnable).await?;
    Ok(outcome(applied))
}

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
        // An attempt that never committed left nothing that would have to be undone.
        Undo::Impossible if !job.was_done().await? => Ok(Outcome::default()),
        Undo::Impossible => Err(Fault::failed(
            FailureClass::Unsafe,
            format!(
                "{} can't be undone: {}",
                job.step.id,
                job.step.irreversible.as_deref().unwrap_or("")
            ),
        )),
    }
}

async fn run(job: &mut Job, script: &Script) -> Result<Outcome, Fault> {
    let permit = job.permit.take();
    let runnable = Runnable::new(&job.step.id, script, permit)
        .map_err(|refused| Fault::failed(FailureClass::Unsafe, refused.to_string()))?;
    let fence = job.fence()?;
    let applied = job.locking(|| job.driver.execute(fence, &job.work, runnable.again())).await?;
    Ok(outcome(applied))
}

//! `dual_write`: the sync goes in, or out again.

use crate::driver::{
    Finding, Losses, Severity, Survey, SurveyedMapping, SyncState, Work, emptying,
};
use crate::run::{Direction, FailureClass, Outcome, Way};

use super::pass::{Resume, compare_all};
use super::{Fault, Job, outcome};

pub(super) async fn perform(job: &Job) -> Result<Outcome, Fault> {
    let (fence, mapping) = (job.fence()?, job.mapping()?);
    if !job.was_done().await? {
        prove_fit(job).await?;
    }
    let applied = job.driver.install(fence, &job.work, mapping, job.direction).await?;
    Ok(outcome(applied))
}

/// What the plan makes itself could not be looked at before its first change, and from now on clients' writes pass through it:
/// what would be in the way at the start of a run is in the way here.
async fn prove_fit(job: &Job) -> Result<(), Fault> {
    let survey = Survey {
        mappings: vec![SurveyedMapping {
            step: job.work.step.clone(),
            mapping: job.mapping()?.clone(),
            direction: Some(job.direction),
        }],
        ..Survey::default()
    };
    let mut found = job.patient(|| job.driver.survey(&survey)).await?;
    found.retain(|finding| finding.severity == Severity::Error);
    let Some(first) = found.first() else { return Ok(()) };
    let said: Vec<String> =
        found.iter().map(|Finding { code, message, .. }| format!("{code}: {message}")).collect();
    let otherwise = "put a corrected plan in its place with `amend`, or roll back";
    let help = first
        .help
        .as_ref()
        .map_or_else(|| otherwise.to_owned(), |help| format!("{help}; {otherwise}"));
    let mut fault = Fault::failed(FailureClass::Refused, said.join("; ")).with_help(help);
    if let Fault::Failed(failure) = &mut fault {
        failure.private = found.into_iter().flat_map(|finding| finding.private).collect();
    }
    Err(fault)
}

pub(super) async fn undo(job: &Job) -> Result<Outcome, Fault> {
    take_out(job, &job.work).await
}

/// Takes the sync out. What only the new side has would be lost with it, so that must be nothing: the new side may hold no row that
/// the old side doesn't account for. With `both` it has none, unless a write passed the sync by. With `forward` whoever writes
/// there behind the comparison is noted.
pub(super) async fn take_out(job: &Job, work: &Work) -> Result<Outcome, Fault> {
    let (fence, mapping) = (job.fence()?, job.mapping()?);
    let may_lose = !mapping.is_in_place()
        && job.losses == Losses::Refused
        && job.ledger_has(&work.step, Way::Forward).await?
        && !job.ledger_has(&work.step, Way::Back).await?
        && !job.ledger_has(&emptying(&work.step), Way::Back).await?;
    let mut work = work.clone();
    if may_lose {
        if job.direction == Direction::Forward {
            job.patient(|| job.driver.watch(fence, &work, mapping)).await?;
        }
        let whole =
            compare_all(job, None, Resume::Never).await.map_err(|it| or_give_up(job, it))?;
        if whole.compared.extra > 0 || whole.compared.different > 0 {
            return Err(only_new(job, whole.compared.extra + whole.compared.different));
        }
        work.compared_under = Some(whole.sync);
    }
    let applied = job.driver.remove(fence, &work, mapping, job.direction).await?;
    Ok(outcome(applied))
}

/// What can't even be compared, as an expression of the mapping doesn't take it, holds up no undo that gives it up.
pub(super) fn or_give_up(job: &Job, fault: Fault) -> Fault {
    let name = job.step.action.mapping().map_or("", |mapping| mapping.as_str());
    match &fault {
        Fault::Failed(failure) if failure.class == FailureClass::Refused && failure.help.is_none() => {
            fault.with_help(format!(
                "mend the row; or give up what only the new side has: `phasegate rollback RUN --accept-loss {name}`"
            ))
        }
        _ => fault,
    }
}

/// The refusal of an undo that would lose what only the new side has.
pub(super) fn only_new(job: &Job, rows: u64) -> Fault {
    let name = job.step.action.mapping().map_or("", |mapping| mapping.as_str());
    Fault::failed(
        FailureClass::Unsafe,
        format!(
            "{} on the new side of {name} differ from the old side; undoing would lose them",
            crate::run::plural(rows, "row")
        ),
    )
    .with_help(format!(
        "bring them over, or accept the loss: `phasegate rollback RUN --accept-loss {name}`"
    ))
}

/// Dual-write must be there before the first chunk is read, and must have been there all the time. Where the tables were
/// altered under the copy, its triggers are not what they would be made now.
pub(super) async fn prove_active(job: &Job) -> Result<(), Fault> {
    let mapping = job.mapping()?;
    match job.patient(|| job.driver.sync_state(mapping, job.direction)).await? {
        SyncState::Active => Ok(()),
        SyncState::Broken(why) => Err(broken(&why)),
    }
}

/// The sync is not as the run left it.
pub(super) fn broken(why: &str) -> Fault {
    let message =
        format!("the tables or the triggers of this mapping are not as the run left them: {why}");
    Fault::failed(FailureClass::Stale, message).with_help(
        "put them back as they were, then retry; or roll back: rows written now may be missed",
    )
}

//! `dual_write`: the sync goes in, or out again.

use crate::copy::compare::Compared;
use crate::driver::{
    Error, Finding, Gone, Losses, Severity, Survey, SurveyedMapping, SyncState, Work, emptying,
};
use crate::run::{Direction, FailureClass, Mapping, Outcome, Private, Way, keys_said, plural};

use super::pass::{Resume, compare_all};
use super::{Fault, Job, application, outbox, outcome};

pub(super) async fn perform(job: &Job) -> Result<Outcome, Fault> {
    let (fence, mapping) = (job.fence()?, job.mapping()?);
    let mut held = None;
    if !job.was_done().await? {
        prove_fit(job).await?;
        held = application::hold(job).await?;
    }
    let mut applied = job.driver.install(fence, &job.work, mapping, job.direction).await?;
    let said: Vec<String> = held.into_iter().chain(applied.detail).collect();
    applied.detail = (!said.is_empty()).then(|| said.join("; "));
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
    let gone = job.patient(|| job.driver.gone(mapping)).await?;
    if may_lose && gone == (Gone::Old { has_rows: true }) {
        return Err(only_there(mapping));
    }
    let mut work = work.clone();
    if may_lose && gone == Gone::Nothing {
        if job.direction == Direction::Forward {
            job.patient(|| job.driver.watch(fence, &work, mapping)).await?;
        }
        let whole =
            compare_all(job, None, Resume::Losing).await.map_err(|it| or_give_up(job, it))?;
        if whole.compared.extra > 0 || whole.compared.different > 0 {
            let rows = whole.compared.extra + whole.compared.different;
            return Err(only_new(job, rows, &whole.compared));
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

/// The refusal of an undo that would lose what only the new side has: so many rows, and the first few of their keys.
pub(super) fn only_new(job: &Job, rows: u64, compared: &Compared) -> Fault {
    let name = job.step.action.mapping().map_or("", |mapping| mapping.as_str());
    let keys = keys_said(rows, &compared.samples);
    let message = format!(
        "{} on the new side of {name} differ from the old side; undoing would lose them; {keys}",
        plural(rows, "row")
    );
    let error = Error::failed(FailureClass::Unsafe, message).with_private(Private::keys(keys));
    Fault::from(error).with_help(format!(
        "bring them over, or give them up: `phasegate rollback RUN --accept-loss {name}`; `phasegate abort RUN --leave --reason \
         …` ends the run and leaves them"
    ))
}

/// The refusal of an undo that would lose what was copied from a table that is gone.
fn only_there(mapping: &Mapping) -> Fault {
    let (name, old, new) = (&mapping.name, &mapping.from.table, &mapping.into.table);
    let message =
        format!("{old} is gone, and the rows of {new} are nowhere else; undoing would lose them");
    Fault::failed(FailureClass::Unsafe, message).with_help(format!(
        "`phasegate rollback RUN --accept-loss {name}` gives them up; `phasegate abort RUN --leave --reason …` ends the run and \
         keeps {new}"
    ))
}

/// What helps where a table of a mapping that is kept in step was taken away.
pub(super) fn helps(mapping: &Mapping, gone: Gone) -> Option<String> {
    let old = &mapping.from.table;
    match gone {
        Gone::Nothing => None,
        Gone::New if !mapping.is_in_place() => Some(format!(
            "clients' writes to {old} fail until the sync is out: `phasegate rollback RUN` takes it out and goes back"
        )),
        Gone::New | Gone::Old { .. } => Some(format!(
            "the sync's triggers went with {old}, so that it is not enough to make it again: `phasegate rollback RUN` goes back"
        )),
    }
}

/// Dual-write must be there before the first chunk is read, and must have been there all the time. Where the tables were
/// altered under the copy, its triggers are not what they would be made now.
pub(super) async fn prove_active(job: &Job) -> Result<(), Fault> {
    let mapping = job.mapping()?;
    match job.patient(|| job.driver.sync_state(mapping, job.direction)).await? {
        SyncState::Active => {
            outbox::hold(job).await?;
            application::still_writes(job).await
        }
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

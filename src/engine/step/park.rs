//! Rows that can't be copied: left out of their chunk where the plan says so, tried again, and in the way of everything that
//! takes both sides for equal.

use crate::bounds::copying::PARKED_LOOKED_AT_MAX;
use crate::bounds::message::PARKED_NAMED_MAX;
use crate::copy::chunk::Planned;
use crate::driver::{Copied, Error, Fence, SharedDriver, Work};
use crate::run::{
    Difference, DifferenceKind, Direction, Evidence, FailureClass, Mapping, Outcome, ParkedRow,
    Timestamp, Verdict, plural,
};

use super::{Fault, Job};

/// Copies a chunk; where something of it is refused and rows may be parked, again without the rows that are to blame.
pub(super) async fn copy_chunk(
    driver: &SharedDriver,
    (fence, work): (&Fence, &Work),
    (mapping, direction): (&Mapping, Direction),
    (chunk, park_max): (&Planned, Option<u32>),
) -> Result<Copied, Error> {
    let copied = driver.copy_chunk(fence, work, mapping, direction, chunk).await;
    match (copied, park_max) {
        (Err(Error::Failed(failure)), Some(most)) if failure.class == FailureClass::Refused => {
            driver.copy_parking(fence, work, mapping, direction, (chunk, most)).await
        }
        (copied, _) => copied,
    }
}

/// Tries the parked rows of the step's mapping again. Returns how many still are.
pub(super) async fn retry(job: &Job) -> Result<u64, Fault> {
    let (fence, mapping) = (job.fence()?, job.mapping()?);
    job.patient(|| job.driver.retry_parked(fence, mapping, job.direction)).await
}

/// The outcome of a copy, with the rows that it leaves parked after they were tried once more: what stood in a row's way may
/// have been copied since.
pub(super) async fn conclude(job: &Job, outcome: Outcome) -> Result<Outcome, Fault> {
    let left = retry(job).await?;
    let said = (left > 0).then(|| format!("{} parked", plural(left, "row")));
    let detail: Vec<String> = outcome.detail.into_iter().chain(said).collect();
    let detail = (!detail.is_empty()).then(|| detail.join("; "));
    Ok(Outcome { detail, parked: Some(left), ..outcome })
}

/// Parked rows are rows that the new side has not, or has as they were. A comparison is over when there are any: what their
/// expressions can't take it could not even read.
pub(super) async fn differ(job: &Job, began_at: Timestamp) -> Result<(), Fault> {
    if retry(job).await? == 0 {
        return Ok(());
    }
    let mapping = job.mapping()?;
    let parked =
        job.patient(|| job.driver.parked(mapping, job.direction, PARKED_NAMED_MAX)).await?;
    if parked.total == 0 {
        return Ok(());
    }
    let kind =
        if mapping.is_in_place() { DifferenceKind::Different } else { DifferenceKind::Missing };
    let sample = |row: &ParkedRow| {
        let key: Vec<&str> = row.key.iter().map(|(_, value)| value.as_str()).collect();
        let code = row.code.as_deref().unwrap_or("refused");
        let key = format!("{} (parked: {code})", key.join(", "));
        Difference { kind, key, columns: Vec::new(), values: Vec::new() }
    };
    let is_missing = kind == DifferenceKind::Missing;
    let mut evidence = Evidence {
        resumed: false,
        sync: None,
        verdict: Verdict::Fail,
        began_at,
        ended_at: job.store.now().await?,
        rows: 0,
        missing: if is_missing { parked.total } else { 0 },
        extra: 0,
        different: if is_missing { 0 } else { parked.total },
        samples: parked.rows.iter().map(sample).collect(),
    };
    evidence.redact(job.redact);
    Err(Fault::Differs(evidence))
}

/// What ends the sync, or puts a side away, would leave parked rows behind for good.
pub(super) async fn refuse(job: &Job, mapping: &Mapping) -> Result<(), Fault> {
    let fence = job.fence()?;
    let parked =
        job.patient(|| job.driver.parked(mapping, job.direction, PARKED_LOOKED_AT_MAX)).await?;
    // That the whole table was emptied. Tried again it is let go for a comparison to say what is wrong by it, which is not to come.
    if !mapping.is_pushdown() && parked.rows.iter().any(|row| row.key.is_empty()) {
        let message = format!(
            "the table of mapping {} was emptied, and the new side has not followed",
            mapping.name
        );
        return Err(Fault::failed(FailureClass::Unsafe, message).with_help(
            "put a verify of the mapping with `repair` in front of this step by `phasegate amend`; or go back with `phasegate rollback RUN`",
        ));
    }
    let left = job.patient(|| job.driver.retry_parked(fence, mapping, job.direction)).await?;
    if left == 0 {
        return Ok(());
    }
    let verb = if left == 1 { "is" } else { "are" };
    let message = format!("{} of mapping {} {verb} parked", plural(left, "row"), mapping.name);
    Err(Fault::failed(FailureClass::Unsafe, message)
        .with_help("see `phasegate status RUN --parked`, mend the rows, then retry"))
}

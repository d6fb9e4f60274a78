//! `verify`: both sides of a mapping, or the value of a query.
//!
//! PASS means: the whole key space was compared both ways and nothing was skipped. An interrupted comparison leaves no
//! verdict at all, and after a repair only another full pass has one. How a full pass goes is in `pass`.

use crate::bounds::verify::{REPAIR_ROWS, SETTLE_TRIES};
use crate::copy::chunk::{Chunk, Key};
use crate::copy::compare::Compared;
use crate::engine::probe::brief;
use crate::run::{
    Difference, DifferenceKind, Evidence, FailureClass, Mapping, Method, Outcome, QueryCheck,
    Timestamp, Value, Verdict, Verify, check, is_within,
};

use super::dual_write::prove_active;
use super::pass::{Resume, Whole, compare_all};
use super::{Fault, Job, park};

pub(super) async fn perform(job: &Job, verify: &Verify) -> Result<Outcome, Fault> {
    if let Verify::Mapping { .. } = verify {
        still_synced(job).await?;
        park::differ(job, job.store.now().await?).await?;
    }
    match verify {
        Verify::Query(query) => value(job, query, job.store.now().await?).await,
        Verify::Mapping { method: Method::Full, repair, workers, .. } => {
            settle(job, job.mapping()?).await?;
            let mut whole = compare_all(job, *workers, Resume::Kept).await?;
            let mut detail = None;
            if *repair && !whole.compared.is_clean() {
                let rows = repair_all(job).await?;
                // Only a clean pass over everything counts after a repair, and it is as old as that pass.
                settle(job, job.mapping()?).await?;
                whole = compare_all(job, *workers, Resume::Kept).await?;
                detail = Some(format!("repaired {}", crate::run::plural(rows, "row")));
            }
            still_synced(job).await?;
            conclude(job, whole, Verdict::Pass, detail).await
        }
        Verify::Mapping { method, .. } => {
            let began_at = job.store.now().await?;
            let mapping = job.mapping()?;
            let sync = job.patient(|| job.driver.basis(mapping)).await?.of_sync();
            let compared = settled_partly(job, *method).await?;
            still_synced(job).await?;
            let whole = Whole { compared, began_at, resumed: false, sync };
            conclude(job, whole, Verdict::Partial, None).await
        }
    }
}

/// Sides that are equal now, and no longer kept so, are none to rely on; and a column that somebody dropped is compared by nobody.
async fn still_synced(job: &Job) -> Result<(), Fault> {
    if job.is_synced { prove_active(job).await } else { Ok(()) }
}

async fn conclude(
    job: &Job,
    whole: Whole,
    verdict: Verdict,
    detail: Option<String>,
) -> Result<Outcome, Fault> {
    let Whole { compared, began_at, resumed, sync } = whole;
    let clean = compared.is_clean();
    let rows = compared.rows;
    let mut evidence = Evidence {
        verdict: if clean { verdict } else { Verdict::Fail },
        began_at,
        ended_at: job.store.now().await?,
        rows,
        missing: compared.missing,
        extra: compared.extra,
        different: compared.different,
        samples: compared.samples,
        resumed,
        sync: Some(sync),
    };
    evidence.redact(job.redact);
    if !clean {
        return Err(Fault::Differs(evidence));
    }
    Ok(Outcome { rows: Some(rows), detail, evidence: Some(evidence), ..Outcome::default() })
}

/// Puts right the keys that the sync could only note. None may be left when sides are compared.
pub(super) async fn settle(job: &Job, mapping: &Mapping) -> Result<(), Fault> {
    let fence = job.fence()?;
    for _ in 0..SETTLE_TRIES {
        if job.patient(|| job.driver.settle_among(fence, mapping, &job.beside)).await? == 0 {
            return Ok(());
        }
    }
    Err(keeps_changing())
}

/// Puts right what other mappings have noted, as far as it can be: a row that is copied may refer to one that is only noted there.
/// What can't be put right is for their own steps to say.
pub(super) async fn settle_beside(job: &Job) {
    let Ok(fence) = job.fence() else { return };
    for other in &job.beside {
        if let Err(error) = job.driver.settle(fence, other).await {
            tracing::debug!(mapping = %other.name, %error, "putting noted keys of another mapping right");
        }
    }
}

pub(super) fn keeps_changing() -> Fault {
    Fault::failed(
        FailureClass::Contention,
        "clients keep changing the very keys that are being put right",
    )
}

/// Compares less than everything until nothing is undecided: keys that the sync noted meanwhile are put right, and the same
/// compared again. What stays undecided is no verdict.
async fn settled_partly(job: &Job, method: Method) -> Result<Compared, Fault> {
    let (mapping, direction) = (job.mapping()?, job.direction);
    for _ in 0..SETTLE_TRIES {
        settle(job, mapping).await?;
        let compare = || job.driver.compare_partly(mapping, direction, method);
        let compared = job.patient(compare).await?;
        if compared.pending == 0 {
            return Ok(compared);
        }
    }
    Err(keeps_changing())
}

/// Puts right what differs, chunk by chunk. What it says afterwards is for a full pass to say.
async fn repair_all(job: &Job) -> Result<u64, Fault> {
    let (fence, mapping, direction) = (job.fence()?, job.mapping()?, job.direction);
    let (mut rows, mut lo) = (0, None);
    loop {
        if job.is_halted() {
            return Err(Fault::Interrupted);
        }
        let after: Option<&Key> = lo.as_ref();
        let hi = job.patient(|| job.driver.verify_bound(mapping, after, REPAIR_ROWS)).await?;
        let chunk = Chunk { lo, hi };
        let compared = job.patient(|| job.driver.compare_chunk(mapping, direction, &chunk)).await?;
        if !compared.is_clean() {
            let repair = || job.driver.repair_chunk(fence, mapping, direction, &chunk);
            rows += job.patient(repair).await?;
        }
        let Some(hi) = chunk.hi else { return Ok(rows) };
        lo = Some(hi);
    }
}

async fn value(job: &Job, asked: &QueryCheck, began_at: Timestamp) -> Result<Outcome, Fault> {
    let value = job.patient(|| job.driver.value(&asked.query)).await?;
    if matches!(&value, Value::Real(x) if !x.is_finite()) {
        return Err(Fault::failed(FailureClass::Refused, "the query gave no finite number"));
    }
    let complaint = complaint(job, asked, &value)?;
    let mut evidence = Evidence {
        resumed: false,
        sync: None,
        verdict: Verdict::Pass,
        began_at,
        ended_at: job.store.now().await?,
        rows: 1,
        missing: 0,
        extra: 0,
        different: 0,
        samples: Vec::new(),
    };
    if let Some(complaint) = complaint {
        evidence.verdict = Verdict::Fail;
        evidence.different = 1;
        evidence.samples = vec![Difference {
            kind: DifferenceKind::Different,
            key: complaint,
            columns: Vec::new(),
            values: Vec::new(),
        }];
        return Err(Fault::Differs(evidence));
    }
    let detail = Some(format!("value {}", brief(&value)));
    Ok(Outcome { detail, evidence: Some(evidence), value: Some(value), ..Outcome::default() })
}

/// What is wrong with a value, if anything.
fn complaint(job: &Job, asked: &QueryCheck, value: &Value) -> Result<Option<String>, Fault> {
    if let Some(expect) = &asked.expect
        && !check(expect, value)
    {
        return Ok(Some(format!("value {}, expected {expect}", brief(value))));
    }
    let Some(within) = &asked.within else { return Ok(None) };
    let Some(captured) = job.captures.get(&within.of) else {
        return Err(Fault::failed(
            FailureClass::Unsafe,
            format!("nothing was captured under the name {}", within.of),
        ));
    };
    let near = is_within(within, captured, value);
    Ok((!near).then(|| {
        format!(
            "value {} is not within {} % of {} ({})",
            brief(value),
            within.percent,
            brief(captured),
            within.of
        )
    }))
}

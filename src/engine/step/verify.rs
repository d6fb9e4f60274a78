//! `verify`: both sides of a mapping, or the value of a query.
//!
//! PASS means: the whole key space was compared both ways and nothing was skipped. An interrupted comparison leaves no
//! verdict at all.

use crate::copy::chunk::{Chunk, Key};
use crate::copy::compare::Compared;
use crate::copy::sizer::{Policy, Sample, Sizer};
use crate::engine::probe::brief;
use crate::run::{
    Difference, DifferenceKind, Evidence, FailureClass, Mapping, Method, Outcome, QueryCheck,
    Timestamp, Value, Verdict, Verify, check, is_within,
};

use super::{Fault, Job, park};

/// How long one chunk of a comparison should take, in microseconds: reading blocks nobody, so longer than a copy's.
const CHUNK_US: u64 = 1_000_000;
/// How often keys that the sync could only note are put right before a comparison gives up.
const SETTLE_TRIES: u32 = 20;

pub(super) async fn perform(job: &Job, verify: &Verify) -> Result<Outcome, Fault> {
    let began_at = job.store.now().await?;
    if let Verify::Mapping { .. } = verify {
        park::differ(job, began_at).await?;
    }
    match verify {
        Verify::Query(query) => value(job, query, began_at).await,
        Verify::Mapping { method: Method::Full, repair, .. } => {
            let mut compared = settled_compare(job).await?;
            if *repair && !compared.is_clean() {
                let rows = repair_all(job).await?;
                // Only a clean pass over everything counts after a repair.
                compared = settled_compare(job).await?;
                let detail = format!("repaired {}", crate::run::plural(rows, "row"));
                return conclude(job, compared, (Verdict::Pass, began_at), Some(detail)).await;
            }
            conclude(job, compared, (Verdict::Pass, began_at), None).await
        }
        Verify::Mapping { method, .. } => {
            let mapping = job.mapping()?;
            settle(job, mapping).await?;
            let compared = settled(job, Compares::Partly(*method)).await?;
            conclude(job, compared, (Verdict::Partial, began_at), None).await
        }
    }
}

async fn conclude(
    job: &Job,
    compared: Compared,
    (verdict, began_at): (Verdict, Timestamp),
    detail: Option<String>,
) -> Result<Outcome, Fault> {
    let clean = compared.is_clean();
    let rows = compared.rows;
    let evidence = Evidence {
        verdict: if clean { verdict } else { Verdict::Fail },
        began_at,
        ended_at: job.store.now().await?,
        rows,
        missing: compared.missing,
        extra: compared.extra,
        different: compared.different,
        samples: compared.samples,
    };
    if !clean {
        return Err(Fault::Differs(evidence));
    }
    Ok(Outcome { rows: Some(rows), detail, evidence: Some(evidence), ..Outcome::default() })
}

/// Puts right the keys that the sync could only note. None may be left when sides are compared.
pub(super) async fn settle(job: &Job, mapping: &Mapping) -> Result<(), Fault> {
    let fence = job.fence()?;
    for _ in 0..SETTLE_TRIES {
        if job.patient(|| job.driver.settle(fence, mapping)).await? == 0 {
            return Ok(());
        }
    }
    Err(keeps_changing())
}

fn keeps_changing() -> Fault {
    Fault::failed(
        FailureClass::Contention,
        "clients keep changing the very keys that are being put right",
    )
}

/// Compares until nothing is undecided: keys that the sync noted meanwhile are put right, and the same rows compared again. What
/// stays undecided is no verdict.
async fn settled(job: &Job, what: Compares<'_>) -> Result<Compared, Fault> {
    let (mapping, direction) = (job.mapping()?, job.direction);
    for _ in 0..SETTLE_TRIES {
        let compare = || match what {
            Compares::Chunk(chunk) => job.driver.compare_chunk(mapping, direction, chunk),
            Compares::Partly(method) => job.driver.compare_partly(mapping, direction, method),
        };
        let compared = job.patient(compare).await?;
        if compared.pending == 0 {
            return Ok(compared);
        }
        settle(job, mapping).await?;
    }
    Err(keeps_changing())
}

/// What is compared at once.
#[derive(Clone, Copy)]
enum Compares<'a> {
    Chunk(&'a Chunk),
    Partly(Method),
}

async fn settled_compare(job: &Job) -> Result<Compared, Fault> {
    settle(job, job.mapping()?).await?;
    compare_all(job).await
}

/// Compares everything, chunk by chunk, from before the first key to behind the last of either side.
pub(super) async fn compare_all(job: &Job) -> Result<Compared, Fault> {
    let mut total = Compared::default();
    let mapping = job.mapping()?;
    let rows_total = job.patient(|| job.driver.estimate(mapping)).await?;
    let mut walk = Walker::new();
    while let Some((chunk, rows_asked)) = walk.next(job).await? {
        let compared = settled(job, Compares::Chunk(&chunk)).await?;
        walk.sizer.sample(Sample {
            rows_asked,
            rows: u32::try_from(compared.rows).unwrap_or(u32::MAX),
            took_us: compared.took_us,
            contended: false,
        });
        total.add(compared);
        job.tell(total.rows, Some(rows_total.max(total.rows)), rows_asked);
    }
    Ok(total)
}

async fn repair_all(job: &Job) -> Result<u64, Fault> {
    let mut rows = 0;
    let mut walk = Walker::new();
    while let Some((chunk, _)) = walk.next(job).await? {
        let (fence, mapping) = (job.fence()?, job.mapping()?);
        let compared =
            job.patient(|| job.driver.compare_chunk(mapping, job.direction, &chunk)).await?;
        if !compared.is_clean() {
            let repair = || job.driver.repair_chunk(fence, mapping, job.direction, &chunk);
            rows += job.patient(repair).await?;
        }
    }
    Ok(rows)
}

/// Walks over the keys of both sides.
struct Walker {
    sizer: Sizer,
    lo: Option<Key>,
    ended: bool,
}

impl Walker {
    fn new() -> Self {
        let policy = Policy { start_rows: 2_000, ..Policy::with_target_us(CHUNK_US) };
        Self { sizer: Sizer::new(policy), lo: None, ended: false }
    }

    /// The next chunk and how many rows were asked for; the last one is open at its end.
    async fn next(&mut self, job: &Job) -> Result<Option<(Chunk, u32)>, Fault> {
        if self.ended {
            return Ok(None);
        }
        if job.is_halted() {
            return Err(Fault::Interrupted);
        }
        let rows = self.sizer.rows();
        let (mapping, lo) = (job.mapping()?, self.lo.as_ref());
        let hi = job.patient(|| job.driver.verify_bound(mapping, lo, rows)).await?;
        self.ended = hi.is_none();
        let lo = std::mem::replace(&mut self.lo, hi.clone());
        Ok(Some((Chunk { lo, hi }, rows)))
    }
}

async fn value(job: &Job, asked: &QueryCheck, began_at: Timestamp) -> Result<Outcome, Fault> {
    let value = job.patient(|| job.driver.value(&asked.query)).await?;
    if matches!(&value, Value::Real(x) if !x.is_finite()) {
        return Err(Fault::failed(FailureClass::Refused, "the query gave no finite number"));
    }
    let complaint = complaint(job, asked, &value)?;
    let mut evidence = Evidence {
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

//! One full pass of a comparison: one walker, bounded chunks, several of them at once.
//!
//! Invariants:
//! - A pass ends with a result only when it is whole ([`Pass::result`]) and when the tables and their triggers are at its end what
//!   they were at its beginning. Whatever else happens (a signal, a failed chunk, a task that died) ends it without one.
//! - What is compared without a gap is kept in the target, under the fence, so that the next attempt goes on there. It does
//!   so only under the same basis; and a pass that has its result is forgotten before anybody hears of it, so that no
//!   later pass can take up anything of it.
//! - Chunks with keys that the sync could only note are compared again after these were put right. Only the step's own slot
//!   does that, one at a time.
//!
//! Absent on purpose: verdicts, and repairing.

use serde_json::json;
use tokio::task::{JoinError, JoinSet};

use crate::bounds::verify::{CHUNK_MS, PASSES_MAX, SETTLE_TRIES, START_ROWS, WAITING_MAX, WORKERS};
use crate::copy::chunk::Chunk;
use crate::copy::compare::{Compared, Folded, KeptPass, Pass};
use crate::copy::sizer::{Policy, Sample, Sizer};
use crate::driver::Error;
use crate::engine::patience::patiently;
use crate::run::{Digest, FailureClass, Timestamp};

use super::verify::{keeps_changing, settle};
use super::{Fault, Halt, Job};

/// A pass over everything that has come to its end.
pub(super) struct Whole {
    pub(super) compared: Compared,
    /// When it began; it may have been interrupted since.
    pub(super) began_at: Timestamp,
    /// Whether it was.
    pub(super) resumed: bool,
    /// Stands for the sync that it was made under, from its beginning to its end.
    pub(super) sync: Digest,
}

/// What became of one chunk.
struct Ended {
    planned: Planned,
    result: Result<Compared, Error>,
}

/// A chunk to compare.
struct Planned {
    number: u64,
    chunk: Chunk,
    rows_asked: u32,
    tries: u32,
}

/// A pass under way.
struct Work<'a> {
    job: &'a Job,
    workers: usize,
    basis: Digest,
    sync: Digest,
    began_at: Timestamp,
    resumed: bool,
    resume: Resume,
    pass: Pass,
    sizer: Sizer,
    rows_total: u64,
    ready: Vec<Planned>,
    tasks: JoinSet<Ended>,
}

/// Whether a pass may go on where an earlier attempt was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// Yes, and this one is kept for the next.
    Kept,
    /// No: what is asked is what both sides are now, since something is about to be lost on the strength of it.
    Never,
    /// Neither, and what is asked is only what the new side has that would be lost.
    Losing,
}

/// Compares everything from before the first key to behind the last of either side.
pub(super) async fn compare_all(
    job: &Job,
    workers: Option<u32>,
    resume: Resume,
) -> Result<Whole, Fault> {
    for _ in 0..PASSES_MAX {
        let mut work = Work::begin(job, workers, resume).await?;
        work.walk().await?;
        let Work { basis, sync, began_at, resumed, pass, .. } = work;
        let is_same = self::basis(job).await?.0 == basis;
        if resume == Resume::Kept {
            keep(job, None).await?;
        }
        if is_same {
            let compared = pass.result().ok_or_else(not_whole)?;
            return Ok(Whole { compared, began_at, resumed, sync });
        }
        let step = &job.step.id;
        tracing::warn!(%step, "a table was altered while it was compared: beginning anew");
    }
    Err(Fault::failed(
        FailureClass::Stale,
        "the tables or the triggers on them keep being altered while they are compared",
    )
    .with_help("let the statements that alter them end, then retry"))
}

/// Stands for what the result depends on beside the rows; and for that part of it which is the sync.
async fn basis(job: &Job) -> Result<(Digest, Digest), Fault> {
    let mapping = job.mapping()?;
    let basis = job.patient(|| job.driver.basis(mapping)).await?;
    let depends = json!({
        "mapping": mapping,
        "direction": job.direction,
        "lineages": job.lineages,
        "tables": basis.tables,
        "sync": basis.sync,
    });
    Ok((Digest::of("pass", &depends), basis.of_sync()))
}

/// Keeps how far a pass has come; `None` forgets it.
async fn keep(job: &Job, pass: Option<&str>) -> Result<(), Fault> {
    let (fence, step) = (job.fence()?, &job.work.step);
    job.patient(|| job.driver.keep_pass(fence, step, pass)).await
}

impl<'a> Work<'a> {
    async fn begin(job: &'a Job, workers: Option<u32>, resume: Resume) -> Result<Self, Fault> {
        let (mapping, run) = (job.mapping()?, job.fence()?.run());
        let rows_total = job.patient(|| job.driver.estimate(mapping)).await?;
        let (basis, sync) = basis(job).await?;
        let kept = match resume {
            Resume::Kept => job.patient(|| job.driver.kept_pass(run, &job.work.step)).await?,
            Resume::Never | Resume::Losing => None,
        };
        let (began_at, folded, resumed) = match kept.and_then(|text| KeptPass::read(&text, &basis))
        {
            Some(kept) => (kept.began_at, kept.folded, true),
            None => (job.store.now().await?, Folded::default(), false),
        };
        let policy = Policy { start_rows: START_ROWS, ..Policy::with_target_us(CHUNK_MS * 1_000) };
        let most = job.driver.capabilities().copy_workers;
        Ok(Self {
            job,
            workers: workers.unwrap_or(WORKERS).min(most).max(1) as usize,
            basis,
            sync,
            began_at,
            resumed,
            resume,
            pass: Pass::behind(folded),
            sizer: Sizer::new(policy),
            rows_total,
            ready: Vec::new(),
            tasks: JoinSet::new(),
        })
    }

    /// Walks over the keys of both sides until everything is compared.
    async fn walk(&mut self) -> Result<(), Fault> {
        loop {
            if self.job.is_halted() {
                self.drain().await?;
                return Err(Fault::Interrupted);
            }
            self.dispatch()?;
            if self.wants_more() {
                // While the workers compare, so that none waits for a bound.
                self.plan().await?;
            } else if let Some(ended) = self.tasks.join_next().await {
                self.take(joined(ended)?).await?;
            } else {
                return Ok(());
            }
        }
    }

    fn wants_more(&self) -> bool {
        self.ready.is_empty()
            && !self.pass.is_planned()
            && self.pass.waiting() < WAITING_MAX * self.workers
    }

    /// Finds where the next chunk ends.
    async fn plan(&mut self) -> Result<(), Fault> {
        let (job, rows_asked) = (self.job, self.sizer.rows());
        let (mapping, after) = (job.mapping()?, self.pass.planned_to());
        let hi = job.patient(|| job.driver.verify_bound(mapping, after, rows_asked)).await?;
        if let Some((number, chunk)) = self.pass.plan(hi) {
            self.ready.push(Planned { number, chunk, rows_asked, tries: 0 });
        }
        Ok(())
    }

    /// Gives chunks to free workers.
    fn dispatch(&mut self) -> Result<(), Fault> {
        while self.tasks.len() < self.workers
            && let Some(planned) = self.ready.pop()
        {
            let (driver, mapping) = (self.job.driver.clone(), self.job.mapping()?.clone());
            let (direction, halt) = (self.job.direction, self.job.halt.clone());
            let resume = self.resume;
            self.tasks.spawn(async move {
                let compare = || match resume {
                    Resume::Losing => driver.compare_losing(&mapping, direction, &planned.chunk),
                    _ => driver.compare_chunk(&mapping, direction, &planned.chunk),
                };
                let result = match fail_point() {
                    Ok(()) => patiently(|| *halt.borrow() > Halt::No, compare).await,
                    Err(error) => Err(error),
                };
                Ended { planned, result }
            });
        }
        Ok(())
    }

    /// Enters the result of a chunk, and keeps how far the pass has come where that is further than before.
    async fn take(&mut self, Ended { planned, result }: Ended) -> Result<(), Fault> {
        let compared = match result {
            Ok(compared) => compared,
            Err(error) => {
                self.tasks.shutdown().await;
                return Err(error.into());
            }
        };
        if compared.pending > 0 {
            return self.again(planned).await;
        }
        self.sizer.sample(Sample {
            rows_asked: planned.rows_asked,
            rows: u32::try_from(compared.rows).unwrap_or(u32::MAX),
            took_us: compared.took_us,
            contended: false,
        });
        if self.enter(planned.number, compared) {
            self.keep().await?;
        }
        self.tell(planned.rows_asked);
        Ok(())
    }

    /// Enters a result, of which only what may be recorded goes anywhere.
    fn enter(&mut self, number: u64, mut compared: Compared) -> bool {
        let redact = self.job.redact;
        compared.samples.iter_mut().for_each(|one| one.redact(redact));
        self.pass.done(number, compared)
    }

    /// Puts right what the sync could only note, and has the chunk compared again.
    async fn again(&mut self, planned: Planned) -> Result<(), Fault> {
        if planned.tries == SETTLE_TRIES {
            self.tasks.shutdown().await;
            return Err(keeps_changing());
        }
        settle(self.job, self.job.mapping()?).await?;
        self.ready.push(Planned { tries: planned.tries + 1, ..planned });
        Ok(())
    }

    /// Keeps what is compared without a gap. What is whole is not kept: it has its result, or none at all.
    async fn keep(&self) -> Result<(), Fault> {
        if self.resume != Resume::Kept || self.pass.folded().upto.is_none() {
            return Ok(());
        }
        let kept = KeptPass {
            basis: self.basis.clone(),
            began_at: self.began_at,
            folded: self.pass.folded().clone(),
        };
        let text = kept.to_text().map_err(|error| {
            Fault::failed(FailureClass::Damaged, format!("a pass can't be written: {error}"))
        })?;
        keep(self.job, Some(&text)).await
    }

    /// Lets what is under way end, so that its work is not lost, and keeps it.
    async fn drain(&mut self) -> Result<(), Fault> {
        let mut is_further = false;
        while let Some(ended) = self.tasks.join_next().await {
            let Ended { planned, result } = joined(ended)?;
            if let Ok(compared) = result
                && compared.pending == 0
            {
                is_further |= self.enter(planned.number, compared);
            }
        }
        if is_further {
            self.keep().await?;
        }
        self.tell(0);
        Ok(())
    }

    fn tell(&self, chunk_rows: u32) {
        let rows = self.pass.folded().sum.rows;
        self.job.tell(rows, Some(self.rows_total.max(rows)), chunk_rows);
    }
}

/// Where a test makes a chunk fail (`return`) or its task die (`panic`).
#[cfg(feature = "failpoints")]
fn fail_point() -> Result<(), Error> {
    fail::fail_point!("pass::chunk", |_| Err(Error::failed(FailureClass::Refused, "fail point")));
    Ok(())
}

#[cfg(not(feature = "failpoints"))]
#[allow(clippy::unnecessary_wraps)] // so that both forms are called alike
const fn fail_point() -> Result<(), Error> {
    Ok(())
}

fn joined(ended: Result<Ended, JoinError>) -> Result<Ended, Fault> {
    ended.map_err(|error| {
        Fault::failed(FailureClass::Cancelled, format!("a comparing task ended early: {error}"))
    })
}

/// Nothing that can happen; but a PASS must not hang on that.
fn not_whole() -> Fault {
    Fault::failed(FailureClass::Unsafe, "the comparison has not covered all keys of both sides")
}

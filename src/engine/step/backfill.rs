//! `backfill`: one walker, bounded chunks, as many workers as the target takes.
//!
//! The ledger in the target is the truth: this file keeps nothing that it couldn't read from there again. A chunk's bounds are
//! entered before it is dispatched, so that a resumed run copies the same ranges. The copy is done when three things hold:
//! the walker has ended, nothing is in flight, and the watermark is the last number; the sink checks them once more in the
//! transaction that ends the copy.

use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use crate::clock::Stopwatch;
use crate::copy::chunk::{Planned, Walk};
use crate::copy::sizer::{Policy, Sample, Sizer};
use crate::driver::{Copied, CopyState, Error, Fence, SyncState, Window, Work};
use crate::run::{Backfill, ChunkRows, FailureClass, Mapping, Outcome, Undo, Way};

use super::brake::Brake;
use super::queue::{Blocked, Queue};
use super::settings::Settings;
use super::{Fault, Halt, Job, dual_write, outcome, park, sql, verify};

/// Chunks planned at once when sizes have settled: enough to make the planning transaction cheap, few enough that a change
/// of size or a pause is felt soon.
const WINDOW_MAX: u32 = 8;
/// The copy as this process sees it.
struct Copy {
    mapping: Mapping,
    workers: usize,
    sizer: Sizer,
    queue: Queue,
    /// The size that those were planned with; 0 where an earlier process did that, so that the sizer learns nothing from
    /// them.
    planned_rows: u32,
    walk_ended: bool,
    windows: u32,
    rows_done: u64,
    rows_total: Option<u64>,
    /// How many rows that can't be copied may be parked.
    park_max: Option<u32>,
    free: Vec<Fence>,
    chunks: JoinSet<Chunked>,
    /// Planning that could not get its locks.
    blocked: Option<Blocked>,
}

/// What became of one chunk.
struct Chunked {
    chunk: Planned,
    fence: Fence,
    rows_asked: u32,
    /// What it had been through before.
    blocked: Option<Blocked>,
    result: Result<Copied, Error>,
}

impl Copy {
    /// Goes on with these settings.
    fn set(&mut self, settings: Settings) {
        self.workers = settings.workers;
        self.queue.set_workers(settings.workers);
        self.sizer.set_target_us(settings.chunk_time_us);
    }

    /// How long until something that yielded may be tried again; `None` where nothing has.
    fn rests_for_ms(&self) -> Option<u64> {
        let planning = self.blocked.as_ref().map(Blocked::left_ms);
        self.queue.rests_for_ms().into_iter().chain(planning).min()
    }
}

pub(super) async fn perform(job: &mut Job, backfill: &Backfill) -> Result<Outcome, Fault> {
    let fence = job.fence()?.clone();
    if job.is_in_ledger().await? {
        // Parked rows may be tried again much later, when somebody else has changed the schema; a copy never does.
        job.gates.clear();
        let applied = job.patient(|| job.driver.finish_copy(&fence, &job.work)).await?;
        return concluded(job, backfill, outcome(applied)).await;
    }
    prove_active(job).await?;
    if backfill.park_max.is_some() {
        // An earlier attempt may have ended because there were too many; those that are mended are no longer counted.
        park::retry(job).await?;
    }
    let mut copy = begin(job, backfill).await?;
    let mut throttle = Brake::start(job, backfill)?;
    loop {
        if job.is_halted() {
            drain(job, &mut copy).await?;
            return Err(Fault::Interrupted);
        }
        copy.set(Settings::now(job, backfill));
        // What is under way finishes either way.
        let is_held = throttle.holds(job);
        if !is_held {
            plan(job, backfill, &mut copy).await?;
            dispatch(job, &mut copy);
        }
        if copy.chunks.is_empty() {
            if copy.walk_ended && copy.queue.is_empty() {
                break;
            }
            if is_held {
                job.tell(copy.rows_done, copy.rows_total, 0);
                throttle.wait(job).await?;
            } else {
                pause(job, copy.rests_for_ms().unwrap_or(0)).await;
            }
            continue;
        }
        let Some(chunked) = next(job, &mut copy, is_held).await else { continue };
        settle_chunk(job, &mut copy, joined(chunked)?).await?;
        rest(job, backfill).await;
    }
    // Whatever the sync could only note while the copy ran is put right before the copy counts as done.
    let mapping = copy.mapping.clone();
    verify::settle(job, &mapping).await?;
    prove_active(job).await?;
    let applied = job.patient(|| job.driver.finish_copy(&fence, &job.work)).await?;
    job.tell(applied.rows.max(copy.rows_done), Some(copy.rows_done), 0);
    concluded(job, backfill, outcome(applied)).await
}

async fn concluded(job: &Job, backfill: &Backfill, outcome: Outcome) -> Result<Outcome, Fault> {
    match backfill.park_max {
        Some(_) => park::conclude(job, outcome).await,
        None => Ok(outcome),
    }
}

/// The next chunk that ends; `None` when another may be begun before, which is not while the copy is held back.
async fn next(job: &Job, copy: &mut Copy, is_held: bool) -> Option<Result<Chunked, JoinError>> {
    let rest_ms = copy.rests_for_ms().filter(|_| !is_held && copy.chunks.len() < copy.workers);
    let rested = async {
        match rest_ms {
            Some(ms) => pause(job, ms).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        chunked = copy.chunks.join_next() => chunked,
        () = rested => None,
    }
}

/// Undoes a copy that wrote over what was there, by the plan's own statements; any other copy's rows go with the object they
/// are in, or with the sync that found it empty. The sync goes first: it would write the copied values once more, or carry
/// what the statements do over to the old side. Its own step finds that in the ledger.
pub(super) async fn undo(job: &mut Job) -> Result<Outcome, Fault> {
    if let (Undo::Script(_), Some(sync)) = (&job.step.undo, &job.sync) {
        let work = Work { step: sync.clone(), way: Way::Back, ..job.work.clone() };
        dual_write::take_out(job, &work).await?;
    }
    sql::undo(job).await
}

/// Dual-write must be there before the first chunk is read, and must have been there all the time. Where the tables were
/// altered under the copy, its triggers are not what they would be made now.
async fn prove_active(job: &Job) -> Result<(), Fault> {
    let mapping = job.mapping()?;
    match job.patient(|| job.driver.sync_state(mapping, job.direction)).await? {
        SyncState::Active => Ok(()),
        SyncState::Broken(why) => Err(Fault::failed(
            FailureClass::Stale,
            format!(
                "the tables or the triggers of this mapping are not as the run left them: {why}"
            ),
        )
        .with_help(
            "put them back as they were, then retry; or roll back: rows written now may be missed",
        )),
    }
}

async fn begin(job: &Job, backfill: &Backfill) -> Result<Copy, Fault> {
    let mapping = job.mapping()?.clone();
    let fence = job.fence()?;
    let rows_total = job.patient(|| job.driver.estimate(&mapping)).await?;
    let known = job.patient(|| job.driver.copy_state(fence.run(), &job.work.step)).await?;
    let free: Vec<Fence> = job.fences.iter().skip(1).rev().cloned().collect();
    let settings = Settings::now(job, backfill);
    let copy = Copy {
        mapping,
        workers: settings.workers,
        sizer: Sizer::new(Policy::with_target_us(settings.chunk_time_us)),
        queue: Queue::new(settings.workers, known.open),
        planned_rows: 0,
        walk_ended: matches!(known.walk, Walk::Ended { .. }),
        windows: 0,
        rows_done: known.rows_read,
        rows_total: Some(rows_total),
        park_max: backfill.park_max,
        free,
        chunks: JoinSet::new(),
        blocked: None,
    };
    job.tell(copy.rows_done, copy.rows_total, 0);
    Ok(copy)
}

/// How many rows the next chunks have: as the plan or an operator says, else as the sizer found.
fn chunk_rows(job: &Job, backfill: &Backfill, sizer: &Sizer) -> u32 {
    match Settings::now(job, backfill).chunk_rows {
        ChunkRows::Fixed(rows) => rows.max(1),
        ChunkRows::Auto => sizer.rows(),
    }
}

/// Plans more when the workers are about to run dry.
async fn plan(job: &Job, backfill: &Backfill, copy: &mut Copy) -> Result<(), Fault> {
    let rests = copy.blocked.as_ref().is_some_and(|blocked| blocked.left_ms() > 0);
    if copy.walk_ended || !copy.queue.wants_more() || rests {
        return Ok(());
    }
    prove_active(job).await?;
    let rows = chunk_rows(job, backfill, &copy.sizer);
    // A copy that rests between chunks is in no hurry, and a change of its size is felt at the next one.
    let rests = pause_between_ms(job, backfill) > 0;
    let per_worker = if rests { 1 } else { WINDOW_MAX.min(1 + copy.windows) };
    let count = per_worker * u32::try_from(copy.workers).unwrap_or(1);
    let size = Window { rows, count };
    let planned = job.driver.plan_chunks(job.fence()?, &job.work, &copy.mapping, size).await;
    let CopyState { walk, open, .. } = match planned {
        Ok(state) => state,
        Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {
            // Chunks under way go on meanwhile.
            let blocked = copy.blocked.take().unwrap_or_else(Blocked::new);
            copy.blocked = Some(blocked.again(failure)?);
            return Ok(());
        }
        Err(other) => return Err(other.into()),
    };
    copy.blocked = None;
    copy.windows += 1;
    copy.planned_rows = rows;
    copy.walk_ended = matches!(walk, Walk::Ended { .. });
    copy.queue.plan(open);
    Ok(())
}

/// Gives waiting chunks to free workers.
fn dispatch(job: &Job, copy: &mut Copy) {
    while copy.chunks.len() < copy.workers {
        let Some(fence) = copy.free.pop().or_else(|| job.fences.first().cloned()) else { return };
        let Some((chunk, blocked)) = copy.queue.take() else {
            copy.free.push(fence);
            return;
        };
        let (driver, work, mapping) = (job.driver.clone(), job.work.clone(), copy.mapping.clone());
        let (direction, rows_asked) = (job.direction, copy.planned_rows);
        let park_max = copy.park_max;
        copy.chunks.spawn(async move {
            let of = (&mapping, direction);
            let result = park::copy_chunk(&driver, (&fence, &work), of, (&chunk, park_max)).await;
            Chunked { chunk, fence, rows_asked, blocked, result }
        });
    }
}

async fn settle_chunk(job: &Job, copy: &mut Copy, chunked: Chunked) -> Result<(), Fault> {
    let Chunked { chunk, fence, rows_asked, blocked, result } = chunked;
    copy.free.push(fence);
    match result {
        Ok(copied) => {
            copy.queue.done(chunk.seq);
            if !copied.before {
                copy.rows_done += copied.rows_read;
                let rows = u32::try_from(copied.rows_read).unwrap_or(u32::MAX);
                let took_us = copied.took_us;
                copy.sizer.sample(Sample { rows_asked, rows, took_us, contended: false });
            }
            job.tell(copy.rows_done, copy.rows_total, rows_asked);
            Ok(())
        }
        // The chunk goes back to the queue: clients first.
        Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {
            let blocked = blocked.unwrap_or_else(Blocked::new).again(failure)?;
            copy.queue.give_back(chunk, blocked);
            Ok(())
        }
        Err(other) => {
            copy.chunks.shutdown().await;
            // Tables that were altered under the copy make its statements fail: that is the cause to name.
            if let Err(Fault::Failed(stale)) = prove_active(job).await
                && stale.class == FailureClass::Stale
            {
                return Err(Fault::Failed(stale));
            }
            Err(other.into())
        }
    }
}

/// Lets what is in flight finish, so that a pause or a signal leaves no transaction open.
async fn drain(job: &Job, copy: &mut Copy) -> Result<(), Fault> {
    while let Some(chunked) = copy.chunks.join_next().await {
        match joined(chunked)?.result {
            Ok(copied) => copy.rows_done += copied.rows_read,
            Err(fenced @ Error::Fenced { .. }) => return Err(fenced.into()),
            // It was not committed; the ledger has it as open, and it is copied when the run goes on.
            Err(_) => {}
        }
        job.tell(copy.rows_done, copy.rows_total, 0);
    }
    Ok(())
}

fn joined(chunked: Result<Chunked, JoinError>) -> Result<Chunked, Fault> {
    chunked.map_err(|error| {
        Fault::failed(FailureClass::Cancelled, format!("a copying task ended early: {error}"))
    })
}

fn pause_between_ms(job: &Job, backfill: &Backfill) -> u64 {
    Settings::now(job, backfill).pause_between_ms
}

/// Rests between chunks: for as long as the plan or an operator says now, who may say otherwise meanwhile.
async fn rest(job: &Job, backfill: &Backfill) {
    let rested = Stopwatch::start();
    let mut tuning = job.tuning.clone();
    loop {
        let left = pause_between_ms(job, backfill).saturating_sub(rested.elapsed_ms());
        if left == 0 || job.is_halted() {
            return;
        }
        tokio::select! {
            () = pause(job, left) => {}
            Ok(()) = tuning.changed() => {}
        }
    }
}

/// Waits, but not longer than until the run is to halt.
async fn pause(job: &Job, ms: u64) {
    let mut halt = job.halt.clone();
    let wait = tokio::time::sleep(Duration::from_millis(ms));
    tokio::select! {
        () = wait => {}
        _ = halt.wait_for(|halt| *halt > Halt::No) => {}
    }
}

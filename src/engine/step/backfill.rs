//! `backfill`: one walker, bounded chunks, as many workers as the target takes.
//!
//! The ledger in the target is the truth: this file keeps nothing that it couldn't read from there again. A chunk's bounds are
//! entered before it is dispatched, so that a resumed run copies the same ranges. The copy is done when three things hold:
//! the walker has ended, nothing is in flight, and the watermark is the last number; the sink checks them once more in the
//! transaction that ends the copy.
//!
//! The walker goes on beside the workers, under the step's own fence, so that none of them waits for bounds. What is planned and
//! not begun is planned anew when its size turns out to be wrong: chunks far slower than they should be, or an operator who says
//! otherwise, are felt with the next chunk.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::bounds::copying::{FAR_TOO_LARGE, WINDOW_MAX};
use crate::clock::Stopwatch;
use crate::copy::chunk::{Planned, Walk};
use crate::copy::sizer::{Policy, Sample, Sizer};
use crate::driver::{Copied, CopyState, Error, Fence, SharedDriver, SyncState, Window, Work};
use crate::run::{
    Backfill, ChunkRows, Direction, FailureClass, Mapping, Outcome, Tuning, Undo, Way,
};

use super::brake::Brake;
use super::dual_write::{broken, prove_active};
use super::queue::{Blocked, Given, Plans, Queue};
use super::settings::Settings;
use super::{Fault, Halt, Job, dual_write, outcome, park, sql, verify};

/// The copy as this process sees it.
struct Copy {
    mapping: Mapping,
    workers: usize,
    sizer: Sizer,
    /// What says how large chunks are: a number of rows, or a time.
    size: (ChunkRows, u64),
    /// An operator has said otherwise since the last plan: what no worker has begun is planned anew.
    resized: bool,
    queue: Queue,
    plans: Plans,
    walk_ended: bool,
    windows: u32,
    rows_done: u64,
    rows_total: Option<u64>,
    /// How many rows that can't be copied may be parked.
    park_max: Option<u32>,
    free: Vec<Fence>,
    chunks: JoinSet<Chunked>,
    /// The walker, while it looks for bounds: one at a time.
    walker: JoinSet<Walked>,
    /// Planning that could not get its locks.
    blocked: Option<Blocked>,
}

/// What came of looking for bounds.
struct Walked {
    rows: u32,
    result: Result<Ahead, Error>,
}

/// What is ahead.
enum Ahead {
    Chunks(CopyState),
    /// The sync is not as it was; says what.
    Broken(String),
}

/// What has ended of what was under way.
enum Ended {
    Chunk(Result<Chunked, JoinError>),
    Walk(Result<Walked, JoinError>),
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
        self.resized |= self.size != settings.size();
        self.size = settings.size();
    }

    /// How long until something that yielded may be tried again; `None` where nothing has.
    fn rests_for_ms(&self) -> Option<u64> {
        let planning =
            self.blocked.as_ref().filter(|_| self.walker.is_empty()).map(Blocked::left_ms);
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
    if backfill.park_max.is_some() || !job.mapping()?.is_pushdown() {
        // An earlier attempt may have ended because there were too many, or because a change was parked that the new side refused;
        // those that are mended are no longer counted.
        park::retry(job).await?;
    }
    verify::settle_beside(job).await;
    let mut throttle = Brake::start(job, backfill)?;
    let mapping = job.mapping()?.clone();
    let rows_total = job.patient(|| job.driver.estimate(&mapping)).await?;
    let mut copy = begin(job, backfill, rows_total).await?;
    loop {
        copy_open(job, backfill, (&mut copy, &mut throttle)).await?;
        // Whatever the sync could only note while the copy ran is put right before the copy counts as done.
        verify::settle(job, job.mapping()?).await?;
        prove_active(job).await?;
        // A chunk's commit need not have waited for the disk: a server that crashed may have lost it, and its mark with it.
        let rows_done = copy.rows_done;
        copy = begin(job, backfill, rows_total).await?;
        if copy.walk_ended && copy.queue.is_empty() {
            let applied = job.patient(|| job.driver.finish_copy(&fence, &job.work)).await?;
            job.tell(applied.rows.max(rows_done), Some(rows_done), 0);
            return concluded(job, backfill, outcome(applied)).await;
        }
    }
}

/// Copies until the walker has ended and nothing is open.
async fn copy_open(
    job: &Job,
    backfill: &Backfill,
    (copy, throttle): (&mut Copy, &mut Brake),
) -> Result<(), Fault> {
    let mut tuning = job.tuning.clone();
    loop {
        if job.is_halted() {
            drain(job, copy).await?;
            return Err(Fault::Interrupted);
        }
        // What comes from here on is felt with the next turn.
        tuning.mark_unchanged();
        copy.set(Settings::now(job, backfill));
        // What is under way finishes either way.
        let is_held = throttle.holds(job);
        if !is_held {
            walk(job, backfill, copy)?;
            dispatch(job, copy);
        }
        if copy.chunks.is_empty() && copy.walker.is_empty() {
            if copy.walk_ended && copy.queue.is_empty() {
                return Ok(());
            }
            if is_held {
                job.tell(copy.rows_done, copy.rows_total, 0);
                throttle.wait(job).await?;
            } else {
                pause(job, copy.rests_for_ms().unwrap_or(0)).await;
            }
            continue;
        }
        match next(job, copy, is_held, &mut tuning).await {
            None => {}
            Some(Ended::Walk(walked)) => take_in(copy, joined(walked)?)?,
            Some(Ended::Chunk(chunked)) => {
                settle_chunk(job, copy, joined(chunked)?).await?;
                rest(job, backfill).await;
            }
        }
    }
}

async fn concluded(job: &Job, backfill: &Backfill, outcome: Outcome) -> Result<Outcome, Fault> {
    match backfill.park_max {
        Some(_) => park::conclude(job, outcome).await,
        None => Ok(outcome),
    }
}

/// What ends next; `None` when something may be begun before, which is not while the copy is held back, or an operator has
/// asked for other settings.
async fn next(
    job: &Job,
    copy: &mut Copy,
    is_held: bool,
    tuning: &mut watch::Receiver<Tuning>,
) -> Option<Ended> {
    let rest_ms = copy.rests_for_ms().filter(|_| !is_held && copy.chunks.len() < copy.workers);
    let rested = async {
        match rest_ms {
            Some(ms) => pause(job, ms.max(1)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        Some(chunked) = copy.chunks.join_next() => Some(Ended::Chunk(chunked)),
        Some(walked) = copy.walker.join_next() => Some(Ended::Walk(walked)),
        () = rested => None,
        Ok(()) = tuning.changed() => None,
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

/// Takes up what the ledger has of a copy of so many rows.
async fn begin(job: &Job, backfill: &Backfill, rows_total: u64) -> Result<Copy, Fault> {
    let mapping = job.mapping()?.clone();
    let fence = job.fence()?;
    let known = job.patient(|| job.driver.copy_state(fence.run(), &job.work.step)).await?;
    let free: Vec<Fence> = job.fences.iter().skip(1).rev().cloned().collect();
    let settings = Settings::now(job, backfill);
    let is_resized = {
        let tuning = job.tuning.borrow();
        tuning.chunk_rows.is_some() || tuning.chunk_time_ms.is_some()
    };
    // Where all writers take turns, a walker beside a worker would only be in its way.
    let takes_more = job.driver.capabilities().copy_workers > 1;
    let copy = Copy {
        mapping,
        workers: settings.workers,
        sizer: Sizer::new(Policy::with_target_us(settings.chunk_time_us)),
        size: settings.size(),
        // What an earlier process has left was planned before anybody knows what.
        resized: is_resized,
        plans: if takes_more { Plans::Beside } else { Plans::InTurn },
        walk_ended: matches!(known.walk, Walk::Ended { .. }),
        windows: 0,
        rows_done: known.rows_read,
        queue: Queue::new(settings.workers, known),
        rows_total: Some(rows_total),
        park_max: backfill.park_max,
        free,
        chunks: JoinSet::new(),
        walker: JoinSet::new(),
        blocked: None,
    };
    job.tell(copy.rows_done, copy.rows_total, 0);
    Ok(copy)
}

/// Whether somebody says how many rows the chunks have.
fn chunk_rows_are_fixed(job: &Job, backfill: &Backfill) -> bool {
    Settings::now(job, backfill).chunk_rows != ChunkRows::Auto
}

/// How many rows the next chunks have: as the plan or an operator says, else as the sizer found.
fn chunk_rows(job: &Job, backfill: &Backfill, sizer: &Sizer) -> u32 {
    match Settings::now(job, backfill).chunk_rows {
        ChunkRows::Fixed(rows) => rows.max(1),
        ChunkRows::Auto => sizer.rows(),
    }
}

/// Has the walker find more bounds when the workers are about to run dry, or others where what is planned has the wrong size.
fn walk(job: &Job, backfill: &Backfill, copy: &mut Copy) -> Result<(), Fault> {
    let rests = copy.blocked.as_ref().is_some_and(|blocked| blocked.left_ms() > 0);
    if !copy.walker.is_empty() || rests {
        return Ok(());
    }
    let rows = chunk_rows(job, backfill, &copy.sizer);
    let is_resized = std::mem::take(&mut copy.resized) && copy.queue.is_sized_otherwise_than(rows);
    let is_far_too_large =
        copy.queue.next_rows().is_some_and(|planned| planned / FAR_TOO_LARGE > rows);
    let forget = if is_resized || is_far_too_large { copy.queue.forget() } else { None };
    // A size that is still being found is not used for more chunks than it takes to find it.
    let is_fixed = chunk_rows_are_fixed(job, backfill);
    let found = copy.sizer.is_settled() || is_fixed;
    let plans = if found { copy.plans } else { Plans::InTurn };
    if forget.is_none() && (copy.walk_ended || !copy.queue.wants_more(plans)) {
        return Ok(());
    }
    copy.walk_ended = false;
    // A copy that rests between chunks is in no hurry, and a change of its size is felt at the next one.
    let rests = pause_between_ms(job, backfill) > 0;
    let per_worker = if rests || !found { 1 } else { WINDOW_MAX.min(1 + copy.windows) };
    let count = per_worker * u32::try_from(copy.workers).unwrap_or(1);
    let (driver, fence) = (job.driver.clone(), job.fence()?.clone());
    let (work, mapping, direction) = (job.work.clone(), copy.mapping.clone(), job.direction);
    let outbox = job.outbox.clone();
    copy.walker.spawn(async move {
        let by = (&driver, &fence, &work);
        let size = Window { rows, count, is_fixed };
        let result = match outbox.hold(&driver, &mapping).await {
            Ok(()) => ahead(by, (&mapping, direction), forget, size).await,
            Err(error) => Err(error),
        };
        Walked { rows, result }
    });
    Ok(())
}

/// Plans the next chunks, and before that forgets those behind a number. The sync must be there all the time.
async fn ahead(
    (driver, fence, work): (&SharedDriver, &Fence, &Work),
    (mapping, direction): (&Mapping, Direction),
    forget: Option<u64>,
    size: Window,
) -> Result<Ahead, Error> {
    if let SyncState::Broken(why) = driver.sync_state(mapping, direction).await? {
        return Ok(Ahead::Broken(why));
    }
    if let Some(after) = forget {
        driver.forget_chunks(fence, work, after).await?;
    }
    driver.plan_chunks(fence, work, mapping, size).await.map(Ahead::Chunks)
}

/// Takes in what the walker found.
fn take_in(copy: &mut Copy, walked: Walked) -> Result<(), Fault> {
    match walked.result {
        Ok(Ahead::Chunks(CopyState { walk, open, .. })) => {
            copy.blocked = None;
            copy.windows += 1;
            copy.walk_ended = matches!(walk, Walk::Ended { .. });
            copy.queue.plan(open, walked.rows);
            Ok(())
        }
        Ok(Ahead::Broken(why)) => Err(broken(&why)),
        // Chunks under way go on meanwhile.
        Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {
            let blocked = copy.blocked.take().unwrap_or_else(Blocked::new);
            copy.blocked = Some(blocked.again(failure)?);
            Ok(())
        }
        Err(other) => Err(other.into()),
    }
}

/// Gives waiting chunks to free workers.
fn dispatch(job: &Job, copy: &mut Copy) {
    while copy.chunks.len() < copy.workers {
        let Some(fence) = copy.free.pop().or_else(|| job.fences.first().cloned()) else { return };
        let Some(Given { chunk, rows_asked, blocked }) = copy.queue.take() else {
            copy.free.push(fence);
            return;
        };
        let (driver, work, mapping) = (job.driver.clone(), job.work.clone(), copy.mapping.clone());
        let direction = job.direction;
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
                let Copied { took_us, contended, .. } = copied;
                copy.sizer.sample(Sample { rows_asked, rows, took_us, contended });
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
            copy.walker.shutdown().await;
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
    while let Some(walked) = copy.walker.join_next().await {
        // Whatever it entered in the ledger is copied when the run goes on.
        if let Err(fenced @ Error::Fenced { .. }) = joined(walked)?.result {
            return Err(fenced.into());
        }
    }
    Ok(())
}

fn joined<T>(ended: Result<T, JoinError>) -> Result<T, Fault> {
    ended.map_err(|error| {
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

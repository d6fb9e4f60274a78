//! The chunks of a copy that are planned and not committed, and which of them is next.
//!
//! Invariants:
//! - A chunk that could not get its locks goes back to the queue and rests; the others go on meanwhile.
//! - No chunk is given out that is further than [`AHEAD_PER_WORKER`] chunks for each worker beyond the first that is not
//!   committed, so that what the ledger holds above the watermark stays small, whoever holds up that first one.
//! - A chunk is taken in once: what the ledger had open while a chunk was being committed is not taken for another.
//!
//! Absent on purpose: the ledger, which has the truth; this is what one process knows of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::bounds::copying::{AHEAD_PER_WORKER, BLOCKED_FOR_MS, YIELD_FIRST_MS, YIELD_LONGEST_MS};
use crate::bounds::message::YIELDS_SAID_AFTER_MS;
use crate::clock::Stopwatch;
use crate::copy::chunk::{Planned, Walk};
use crate::driver::CopyState;
use crate::engine::patience::{jitter, say};
use crate::run::{Failure, FailureClass, RetryPolicy, back_off_ms, duration};

use super::Fault;

/// The rests of a chunk, or of planning, that could not get its locks.
const YIELDS: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    first_wait_ms: YIELD_FIRST_MS,
    longest_wait_ms: YIELD_LONGEST_MS,
};

/// Something that could not get its locks, and is tried again.
#[derive(Debug)]
pub(super) struct Blocked {
    since: Stopwatch,
    tried: u32,
    said: Option<Stopwatch>,
    rested: Stopwatch,
    rest_ms: u64,
}

impl Blocked {
    /// From now on.
    pub(super) fn new() -> Self {
        let now = Stopwatch::start();
        Self { since: now, tried: 0, said: None, rested: now, rest_ms: 0 }
    }

    /// Once more in vain; fails when that has been so for too long.
    pub(super) fn again(mut self, failure: Failure) -> Result<Self, Fault> {
        if self.since.elapsed_ms() > BLOCKED_FOR_MS {
            let limit = duration(BLOCKED_FOR_MS);
            let message = format!("others were in the way for {limit}: {}", failure.message);
            let help = failure.help.clone();
            let help =
                help.or_else(|| Some("something holds its locks; end it, then retry".into()));
            let class = FailureClass::TimedOut;
            return Err(Fault::Failed(Failure { class, message, help, ..failure }));
        }
        self.tried = self.tried.saturating_add(1);
        // That a chunk yields now and then is as it should be.
        if self.since.elapsed_ms() >= YIELDS_SAID_AFTER_MS {
            say(&failure, self.tried, &mut self.said);
        }
        self.rest_ms = back_off_ms(YIELDS, self.tried, jitter());
        self.rested = Stopwatch::start();
        Ok(self)
    }

    /// How long it still rests, in milliseconds.
    pub(super) fn left_ms(&self) -> u64 {
        self.rest_ms.saturating_sub(self.rested.elapsed_ms())
    }
}

/// A chunk to copy now.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) chunk: Planned,
    /// How many rows it was to have; 0 where an earlier process planned it, so that nobody learns from it.
    pub(super) rows_asked: u32,
    /// What it has been through.
    pub(super) blocked: Option<Blocked>,
}

/// When more is to be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plans {
    /// When a worker has nothing to do.
    InTurn,
    /// While workers copy what is left.
    Beside,
}

/// Chunks that are entered in the ledger and not known to be committed.
#[derive(Debug)]
pub(super) struct Queue {
    workers: usize,
    ahead: u64,
    /// Those that were never given out, with the rows that they were to have.
    planned: VecDeque<(Planned, u32)>,
    /// The highest number that was taken in.
    last: u64,
    in_flight: BTreeSet<u64>,
    /// Those that were let go of: where the ledger keeps one all the same, its time says nothing of the new size.
    forgotten: Vec<Planned>,
    /// Those that could not get their locks, by number.
    yielded: BTreeMap<u64, (Planned, Blocked)>,
}

impl Queue {
    /// For so many workers, with what an earlier process left open.
    pub(super) fn new(workers: usize, known: CopyState) -> Self {
        let (Walk::At { seq: last, .. } | Walk::Ended { seq: last }) = known.walk;
        Self {
            workers,
            ahead: AHEAD_PER_WORKER * workers as u64,
            planned: known.open.into_iter().map(|chunk| (chunk, 0)).collect(),
            last,
            in_flight: BTreeSet::new(),
            forgotten: Vec::new(),
            yielded: BTreeMap::new(),
        }
    }

    /// For another number of workers from now on.
    pub(super) fn set_workers(&mut self, workers: usize) {
        self.workers = workers;
        self.ahead = AHEAD_PER_WORKER * workers as u64;
    }

    /// Whether everything planned is committed.
    pub(super) fn is_empty(&self) -> bool {
        self.planned.is_empty() && self.yielded.is_empty() && self.in_flight.is_empty()
    }

    /// Whether more is to be planned: hardly anything is left that was never tried, and what yielded is not in the way of it.
    pub(super) fn wants_more(&self, plans: Plans) -> bool {
        let is_short = match plans {
            Plans::InTurn => self.planned.is_empty() && self.in_flight.len() < self.workers,
            Plans::Beside => self.planned.len() <= self.workers,
        };
        is_short && (self.yielded.len() as u64) < self.ahead
    }

    /// Takes in what the ledger has open and wasn't taken in before: chunks that were to have so many rows.
    pub(super) fn plan(&mut self, open: Vec<Planned>, rows: u32) {
        let new = open.into_iter().filter(|chunk| chunk.seq > self.last);
        let kept = std::mem::take(&mut self.forgotten);
        self.planned.extend(new.map(|chunk| {
            let asked = if kept.contains(&chunk) { 0 } else { rows };
            (chunk, asked)
        }));
        self.last = self.planned.back().map_or(self.last, |(chunk, _)| chunk.seq.max(self.last));
    }

    /// The rows that the next chunk was to have; `None` where nothing waits that this process planned.
    pub(super) fn next_rows(&self) -> Option<u32> {
        self.planned.front().map(|(_, rows)| *rows).filter(|rows| *rows > 0)
    }

    /// Whether the next chunk was to have another number of rows than this, or nobody here knows how many.
    pub(super) fn is_sized_otherwise_than(&self, rows: u32) -> bool {
        self.planned.front().is_some_and(|(_, planned)| *planned != rows)
    }

    /// Lets go of every chunk that was never given out. Returns the number behind which they were, for the ledger to forget
    /// them too; what it has kept is taken in again with the next plan.
    pub(super) fn forget(&mut self) -> Option<u64> {
        let first = self.planned.front()?.0.seq;
        self.forgotten = self.planned.drain(..).map(|(chunk, _)| chunk).collect();
        self.last = first - 1;
        Some(self.last)
    }

    /// The next chunk that may be copied now: one whose rest is over, or the next planned one that is not too far ahead.
    pub(super) fn take(&mut self) -> Option<Given> {
        let ready = self.yielded.iter().find(|(_, (_, blocked))| blocked.left_ms() == 0);
        if let Some((chunk, blocked)) =
            ready.map(|(seq, _)| *seq).and_then(|seq| self.yielded.remove(&seq))
        {
            self.in_flight.insert(chunk.seq);
            return Some(Given { chunk, rows_asked: 0, blocked: Some(blocked) });
        }
        let first = self.first_open()?;
        let next = self.planned.pop_front_if(|(chunk, _)| chunk.seq < first + self.ahead);
        let (chunk, rows_asked) = next?;
        self.in_flight.insert(chunk.seq);
        Some(Given { chunk, rows_asked, blocked: None })
    }

    /// A chunk is committed.
    pub(super) fn done(&mut self, seq: u64) {
        self.in_flight.remove(&seq);
    }

    /// A chunk could not get its locks: clients first.
    pub(super) fn give_back(&mut self, chunk: Planned, blocked: Blocked) {
        self.in_flight.remove(&chunk.seq);
        self.yielded.insert(chunk.seq, (chunk, blocked));
    }

    /// How long until a chunk that yielded may be tried again; `None` where none has.
    pub(super) fn rests_for_ms(&self) -> Option<u64> {
        self.yielded.values().map(|(_, blocked)| blocked.left_ms()).min()
    }

    /// The first chunk that is not known to be committed.
    fn first_open(&self) -> Option<u64> {
        let in_flight = self.in_flight.first().copied();
        let yielded = self.yielded.keys().next().copied();
        let planned = self.planned.front().map(|(chunk, _)| chunk.seq);
        [in_flight, yielded, planned].into_iter().flatten().min()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::copy::chunk::Chunk;

    fn chunks(seqs: std::ops::RangeInclusive<u64>) -> Vec<Planned> {
        seqs.map(|seq| Planned { seq, chunk: Chunk { lo: None, hi: None } }).collect()
    }

    fn queue(workers: usize, seqs: std::ops::RangeInclusive<u64>) -> Queue {
        let walk = Walk::At { seq: *seqs.end(), hi: None };
        let open = chunks(seqs);
        let known = CopyState { walk, open, watermark: 0, rows_read: 0, rows_written: 0 };
        Queue::new(workers, known)
    }

    fn blocked() -> Blocked {
        let error = crate::driver::Error::failed(FailureClass::Contention, "busy");
        let failure = crate::engine::step::failure_of(error);
        let blocked = Blocked::new().again(failure).unwrap();
        assert!(blocked.rest_ms > 0);
        // Longer than any test takes, whoever else wants the machine.
        Blocked { rest_ms: 600_000, ..blocked }
    }

    fn take_all(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.take().map(|given| given.chunk.seq)).collect()
    }

    #[test]
    fn a_chunk_that_yields_lets_others_go_on_and_none_goes_too_far() {
        let mut queue = queue(2, 1..=20);
        let first = queue.take().unwrap().chunk;
        queue.give_back(first, blocked());
        assert_eq!(take_all(&mut queue), (2..=8).collect::<Vec<_>>(), "four for each worker");
        (2..=8).for_each(|seq| queue.done(seq));
        assert!(queue.take().is_none() && !queue.is_empty());
        assert!(queue.rests_for_ms().unwrap() > 0);
        queue.yielded.get_mut(&1).unwrap().1.rest_ms = 0;
        let again = queue.take().unwrap();
        assert_eq!((again.chunk.seq, again.blocked.unwrap().tried), (1, 1));
        queue.done(1);
        assert_eq!(take_all(&mut queue), (9..=16).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_known_is_not_planned_twice_and_planning_goes_on_beside_a_stubborn_chunk() {
        let mut queue = queue(1, 1..=2);
        let first = queue.take().unwrap().chunk;
        let second = queue.take().unwrap().chunk;
        assert!(queue.wants_more(Plans::Beside) && !queue.wants_more(Plans::InTurn));
        queue.give_back(first, blocked());
        // Committed while the ledger was being read.
        queue.done(second.seq);
        queue.plan(chunks(1..=6), 200);
        assert_eq!(take_all(&mut queue), [3, 4]);
        assert!(!queue.wants_more(Plans::Beside), "5 and 6 are too far ahead");
        queue.done(3);
        assert!(take_all(&mut queue).is_empty());
    }

    #[test]
    fn what_was_never_given_out_can_be_planned_anew() {
        let mut queue = queue(1, 1..=3);
        assert_eq!(queue.next_rows(), None, "another process planned it");
        assert_eq!(queue.take().unwrap().rows_asked, 0);
        assert!(queue.is_sized_otherwise_than(800), "nobody knows for how many rows");
        queue.plan(chunks(1..=5), 800);
        assert_eq!(queue.forget(), Some(1));
        assert_eq!(queue.forget(), None);
        assert!(!queue.is_sized_otherwise_than(80), "nothing is planned");
        // What the ledger kept all the same says nothing of the new size.
        queue.plan(chunks(1..=2), 80);
        assert_eq!(queue.next_rows(), None);
        queue.plan(chunks(1..=4), 80);
        assert!(queue.is_sized_otherwise_than(80), "the first is one that the ledger kept");
        assert_eq!(take_all(&mut queue), [2, 3, 4]);
        assert!(!queue.is_empty());
        (1..=4).for_each(|seq| queue.done(seq));
        assert!(queue.is_empty());
    }
}

//! The chunks of a copy that are planned and not committed, and which of them is next.
//!
//! Invariants:
//! - A chunk that could not get its locks goes back to the queue and rests; the others go on meanwhile.
//! - No chunk is given out that is further than [`AHEAD_PER_WORKER`] chunks for each worker beyond the first that is not
//!   committed, so that what the ledger holds above the watermark stays small.
//!
//! Absent on purpose: the ledger, which has the truth; this is what one process knows of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clock::Stopwatch;
use crate::copy::chunk::Planned;
use crate::engine::patience::{jitter, say};
use crate::run::{Failure, FailureClass, RetryPolicy, back_off_ms, duration};

use super::Fault;

/// How long something may be kept from its locks in all before the step fails, in milliseconds (30 minutes).
const BLOCKED_FOR_MS: u64 = 30 * 60 * 1_000;
/// The rests of a chunk, or of planning, that could not get its locks.
const YIELDS: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, first_wait_ms: 50, longest_wait_ms: 2_000 };
/// How long something has to be kept from its locks to be worth a word, in milliseconds.
const SAY_AFTER_MS: u64 = 5_000;
/// How far chunks may be copied beyond the first that is not, in chunks for each worker.
const AHEAD_PER_WORKER: u64 = 4;

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
        if self.since.elapsed_ms() >= SAY_AFTER_MS {
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

/// Chunks that are entered in the ledger and not known to be committed.
#[derive(Debug)]
pub(super) struct Queue {
    ahead: u64,
    planned: VecDeque<Planned>,
    in_flight: BTreeSet<u64>,
    /// Those that could not get their locks, by number.
    yielded: BTreeMap<u64, (Planned, Blocked)>,
}

impl Queue {
    /// For so many workers, with what an earlier process left open.
    pub(super) fn new(workers: usize, open: Vec<Planned>) -> Self {
        Self {
            ahead: AHEAD_PER_WORKER * workers as u64,
            planned: open.into(),
            in_flight: BTreeSet::new(),
            yielded: BTreeMap::new(),
        }
    }

    /// For another number of workers from now on.
    pub(super) fn set_workers(&mut self, workers: usize) {
        self.ahead = AHEAD_PER_WORKER * workers as u64;
    }

    /// Whether everything planned is committed.
    pub(super) fn is_empty(&self) -> bool {
        self.planned.is_empty() && self.yielded.is_empty() && self.in_flight.is_empty()
    }

    /// Whether more is to be planned: nothing is left that was never tried, and what yielded is not in the way of it.
    pub(super) fn wants_more(&self) -> bool {
        self.planned.is_empty() && (self.yielded.len() as u64) < self.ahead
    }

    /// Takes in what the ledger has open now.
    pub(super) fn plan(&mut self, open: Vec<Planned>) {
        let is_known = |seq| self.in_flight.contains(&seq) || self.yielded.contains_key(&seq);
        self.planned = open.into_iter().filter(|chunk| !is_known(chunk.seq)).collect();
    }

    /// The next chunk that may be copied now, with what it has been through: one whose rest is over, or the next planned
    /// one that is not too far ahead.
    pub(super) fn take(&mut self) -> Option<(Planned, Option<Blocked>)> {
        let ready = self.yielded.iter().find(|(_, (_, blocked))| blocked.left_ms() == 0);
        if let Some((chunk, blocked)) =
            ready.map(|(seq, _)| *seq).and_then(|seq| self.yielded.remove(&seq))
        {
            self.in_flight.insert(chunk.seq);
            return Some((chunk, Some(blocked)));
        }
        let first = self.first_open()?;
        let next = self.planned.pop_front_if(|chunk| chunk.seq < first + self.ahead)?;
        self.in_flight.insert(next.seq);
        Some((next, None))
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
        let planned = self.planned.front().map(|chunk| chunk.seq);
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

    fn blocked() -> Blocked {
        let error = crate::driver::Error::failed(FailureClass::Contention, "busy");
        let failure = crate::engine::step::failure_of(error);
        Blocked::new().again(failure).unwrap()
    }

    fn take_all(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.take().map(|(chunk, _)| chunk.seq)).collect()
    }

    #[test]
    fn a_chunk_that_yields_lets_others_go_on_and_none_goes_too_far() {
        let mut queue = Queue::new(2, chunks(1..=20));
        let (first, _) = queue.take().unwrap();
        let blocked = blocked();
        assert!(blocked.left_ms() > 0);
        queue.give_back(first, blocked);
        assert_eq!(take_all(&mut queue), (2..=8).collect::<Vec<_>>(), "four for each worker");
        (2..=8).for_each(|seq| queue.done(seq));
        assert!(queue.take().is_none() && !queue.is_empty());
        assert!(queue.rests_for_ms().unwrap() > 0);
        queue.yielded.get_mut(&1).unwrap().1.rest_ms = 0;
        let (again, blocked) = queue.take().unwrap();
        assert_eq!((again.seq, blocked.unwrap().tried), (1, 1));
        queue.done(1);
        assert_eq!(take_all(&mut queue), (9..=16).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_known_is_not_planned_twice_and_planning_goes_on_beside_a_stubborn_chunk() {
        let mut queue = Queue::new(1, chunks(1..=2));
        let (first, _) = queue.take().unwrap();
        let (second, _) = queue.take().unwrap();
        assert!(queue.wants_more());
        queue.give_back(first, blocked());
        queue.plan(chunks(1..=6));
        assert_eq!(take_all(&mut queue), [3, 4]);
        assert!(!queue.wants_more(), "5 and 6 are too far ahead");
        queue.done(second.seq);
        assert!(take_all(&mut queue).is_empty());
    }
}

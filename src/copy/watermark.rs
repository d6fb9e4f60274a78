//! Up to where a copy is complete, while chunks are committed in any order.
//!
//! The watermark is the largest number up to which *every* chunk is committed. What is committed beyond it is kept apart,
//! and there is a limit to how far beyond the walker may plan, so that neither memory nor the ledger grows with the table.

use std::collections::BTreeSet;

use super::chunk::Walk;

/// How many chunks may be planned beyond the watermark, for each worker. Four keep a worker busy while another is held up
/// by a lock, and bound what the ledger holds.
pub const WINDOW_PER_WORKER: u32 = 4;

/// Which chunks of a copy are committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Every chunk up to here is committed.
    low: u64,
    /// Committed chunks beyond `low + 1`.
    beyond: BTreeSet<u64>,
    /// How far beyond `low` chunks may be planned.
    window: u64,
}

/// Why a commit makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatermarkError {
    /// Chunk numbers begin at 1, and each is committed once.
    #[error("chunk {0} was committed before")]
    Twice(u64),
    /// It was never to be planned yet.
    #[error("chunk {seq} lies beyond the window, which ends at {last}")]
    OutOfWindow {
        /// The chunk.
        seq: u64,
        /// The last number of the window.
        last: u64,
    },
}

impl Watermark {
    /// For so many workers, where chunks up to `low` are committed and of those up to `planned` all that aren't `open`.
    ///
    /// What is planned already counts as within the window, however many workers there were then.
    #[must_use]
    pub fn resume(
        workers: u32,
        low: u64,
        planned: u64,
        open: impl IntoIterator<Item = u64>,
    ) -> Self {
        let open: BTreeSet<u64> = open.into_iter().collect();
        let window = u64::from(workers.max(1)) * u64::from(WINDOW_PER_WORKER);
        let window = window.max(planned.saturating_sub(low));
        let beyond = (low.saturating_add(1)..=planned).filter(|seq| !open.contains(seq)).collect();
        let mut watermark = Self { low, beyond, window };
        watermark.rise();
        watermark
    }

    /// For so many workers, with nothing committed.
    #[must_use]
    pub fn new(workers: u32) -> Self {
        Self::resume(workers, 0, 0, [])
    }

    /// The largest number up to which every chunk is committed; 0 when the first isn't.
    #[must_use]
    pub const fn get(&self) -> u64 {
        self.low
    }

    /// How many chunks are committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.low + self.beyond.len() as u64
    }

    /// How many more chunks may be planned behind number `planned`.
    #[must_use]
    pub const fn room(&self, planned: u64) -> u64 {
        self.last().saturating_sub(planned)
    }

    /// A chunk is committed. Returns the watermark.
    pub fn commit(&mut self, seq: u64) -> Result<u64, WatermarkError> {
        if seq > self.last() {
            return Err(WatermarkError::OutOfWindow { seq, last: self.last() });
        }
        if seq <= self.low || !self.beyond.insert(seq) {
            return Err(WatermarkError::Twice(seq));
        }
        self.rise();
        Ok(self.low)
    }

    /// Whether the copy is complete. Three facts, none of which follows from the others: the walker has ended, nothing is
    /// in flight, and the watermark is at the last number.
    #[must_use]
    pub const fn is_done(&self, walk: &Walk, in_flight: usize) -> bool {
        match walk {
            Walk::Ended { seq } => in_flight == 0 && self.low == *seq,
            Walk::At { .. } => false,
        }
    }

    const fn last(&self) -> u64 {
        self.low.saturating_add(self.window)
    }

    fn rise(&mut self) {
        while self.beyond.first() == Some(&(self.low + 1)) {
            self.beyond.pop_first();
            self.low += 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn done_is_three_facts() {
        let mut watermark = Watermark::new(1);
        watermark.commit(1).unwrap();
        watermark.commit(2).unwrap();
        let ended = Walk::Ended { seq: 2 };
        assert!(watermark.is_done(&ended, 0));
        assert!(!watermark.is_done(&ended, 1), "something is in flight");
        assert!(!watermark.is_done(&Walk::At { seq: 2, hi: None }, 0), "the walker goes on");
        assert!(!watermark.is_done(&Walk::Ended { seq: 3 }, 0), "a chunk is missing");
        watermark.commit(4).unwrap();
        assert!(!watermark.is_done(&Walk::Ended { seq: 4 }, 0), "there is a hole");
        assert!(Watermark::new(1).is_done(&Walk::Ended { seq: 0 }, 0), "an empty source");
    }

    #[test]
    fn nonsense_is_refused_and_changes_nothing() {
        let mut watermark = Watermark::new(1);
        watermark.commit(1).unwrap();
        watermark.commit(3).unwrap();
        let before = watermark.clone();
        assert_eq!(watermark.commit(0), Err(WatermarkError::Twice(0)));
        assert_eq!(watermark.commit(1), Err(WatermarkError::Twice(1)));
        assert_eq!(watermark.commit(3), Err(WatermarkError::Twice(3)));
        assert_eq!(watermark.commit(6), Err(WatermarkError::OutOfWindow { seq: 6, last: 5 }));
        assert_eq!(watermark, before);
    }

    #[test]
    fn a_window_planned_by_more_workers_is_kept() {
        let mut watermark = Watermark::resume(1, 10, 30, [11, 30]);
        assert_eq!((watermark.get(), watermark.committed()), (10, 28));
        assert_eq!(watermark.room(30), 0);
        assert_eq!(watermark.commit(30).unwrap(), 10);
        assert_eq!(watermark.commit(11).unwrap(), 30);
    }

    proptest! {
        #[test]
        fn in_any_order_it_is_the_largest_number_without_a_hole(
            count in 1_u64..60,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 60),
            workers in 1_u32..6,
            stop in any::<prop::sample::Index>(),
        ) {
            let mut watermark = Watermark::new(workers);
            let mut planned = 0;
            let mut open: Vec<u64> = Vec::new();
            let mut committed = BTreeSet::new();
            let killed_at = stop.index(usize::try_from(count).unwrap());
            for (at, pick) in picks.iter().enumerate().take(usize::try_from(count).unwrap()) {
                // The walker fills the window, then some worker commits.
                while planned < count && watermark.room(planned) > 0 {
                    planned += 1;
                    open.push(planned);
                }
                prop_assert!(open.len() <= usize::try_from(workers * WINDOW_PER_WORKER).unwrap());
                let seq = open.swap_remove(pick.index(open.len()));
                committed.insert(seq);
                let is_in = |seq: &u64| committed.contains(seq);
                let expected = (1..=count).take_while(is_in).last().unwrap_or(0);
                prop_assert_eq!(watermark.commit(seq).unwrap(), expected);
                prop_assert_eq!(watermark.committed(), committed.len() as u64);
                if at == killed_at {
                    // What the ledger keeps is enough to go on from.
                    let resumed = Watermark::resume(
                        workers, watermark.get(), planned, open.iter().copied());
                    prop_assert_eq!(resumed.get(), watermark.get());
                    prop_assert_eq!(resumed.committed(), watermark.committed());
                    watermark = resumed;
                }
            }
            let ended = Walk::Ended { seq: count };
            prop_assert!(watermark.is_done(&ended, open.len()));
        }
    }
}

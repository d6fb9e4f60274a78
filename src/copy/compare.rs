//! What a comparison of chunks adds up to.
//!
//! Invariants:
//! - Chunks of a [`Pass`] follow each other without a gap: each begins where the one planned before it ends. So what is
//!   folded is everything from before the first key to [`Folded::upto`], whatever the order in which chunks were done.
//! - A pass has a result only when it is whole: the walk has ended, every chunk of it is folded, and there was at least one.
//!   What was interrupted, skipped or lost has none, so that nobody can take it for equal.
//!
//! Absent on purpose: keys' order, which only databases know, and verdicts.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::chunk::{Chunk, Key};
use crate::bounds::message::SAMPLES_MAX;
use crate::run::{Difference, DifferenceKind, Digest, Timestamp};

/// Which of the rows that differ are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Whichever come first.
    Any,
    /// Those that the new side has: what going back would lose. Those that it lacks may be many more, and would take all the room.
    OfNewSide,
}

/// The result of comparing some rows both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Rows looked at: the larger of both sides' counts.
    pub rows: u64,
    /// Rows that only the old side has.
    pub missing: u64,
    /// Rows that only the new side has.
    pub extra: u64,
    /// Rows whose columns differ.
    pub different: u64,
    /// Rows that aren't as they should be, of keys that the sync has noted and that are still to be put right: neither
    /// differences nor right. They are put right and compared again.
    pub pending: u64,
    /// A few of the differences.
    pub samples: Vec<Difference>,
    /// Time spent in the database, in microseconds.
    pub took_us: u64,
}

impl Compared {
    /// Whether nothing differs in what was looked at, and nothing is undecided.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.missing == 0 && self.extra == 0 && self.different == 0 && self.pending == 0
    }

    /// Keeps a difference to be shown, if it is to be named and there is room.
    pub fn name(&mut self, difference: Difference, named: Named) {
        let is_wanted = named == Named::Any || difference.kind != DifferenceKind::Missing;
        if is_wanted && self.samples.len() < SAMPLES_MAX {
            self.samples.push(difference);
        }
    }

    /// Adds another chunk's result to this one.
    pub fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
        self.pending += other.pending;
        self.took_us += other.took_us;
        let room = SAMPLES_MAX.saturating_sub(self.samples.len());
        self.samples.extend(other.samples.into_iter().take(room));
    }
}

/// What of a pass was compared without a gap, from before the first key on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// The last key of it; `None` where nothing is folded yet, or everything.
    pub upto: Option<Key>,
    /// How many chunks.
    pub chunks: u64,
    /// What they add up to.
    pub sum: Compared,
}

/// An unfinished pass, as the target keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPass {
    /// Stands for everything but rows that the result depends on: the mapping, its direction, the definitions of both tables.
    /// Under any other basis the pass begins anew.
    pub basis: Digest,
    /// When the pass began, by the state store's clock: its evidence is as old as that.
    pub began_at: Timestamp,
    /// How far it has come.
    pub folded: Folded,
}

impl KeptPass {
    /// As the target keeps it.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// As the target kept it, if it was compared by this basis. What can't be read is none: it begins anew.
    #[must_use]
    pub fn read(text: &str, basis: &Digest) -> Option<Self> {
        serde_json::from_str::<Self>(text).ok().filter(|kept| kept.basis == *basis)
    }
}

/// One pass over both sides, from before the first key to behind the last.
#[derive(Clone, Debug)]
pub struct Pass {
    folded: Folded,
    /// Planned behind what is folded, in order, each with its result when it has one.
    open: VecDeque<(Chunk, Option<Compared>)>,
    /// The number of the first of those.
    first: u64,
    walk_ended: bool,
}

impl Pass {
    /// A pass that goes on behind what is folded, or begins.
    #[must_use]
    pub fn behind(folded: Folded) -> Self {
        Self { folded, open: VecDeque::new(), first: 0, walk_ended: false }
    }

    /// The key behind which the next chunk begins; `None` before the first.
    #[must_use]
    pub fn planned_to(&self) -> Option<&Key> {
        match self.open.back() {
            Some((chunk, _)) => chunk.hi.as_ref(),
            None => self.folded.upto.as_ref(),
        }
    }

    /// Whether everything is planned.
    #[must_use]
    pub const fn is_planned(&self) -> bool {
        self.walk_ended
    }

    /// How many chunks are planned and not folded: those that wait for one before them, too.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.open.len()
    }

    /// Plans the next chunk, up to a key; to the end of both sides where there is none. Returns its number. Nothing is
    /// planned behind the end.
    pub fn plan(&mut self, hi: Option<Key>) -> Option<(u64, Chunk)> {
        if self.walk_ended {
            return None;
        }
        let chunk = Chunk { lo: self.planned_to().cloned(), hi };
        self.walk_ended = chunk.hi.is_none();
        self.open.push_back((chunk.clone(), None));
        Some((self.first + self.open.len() as u64 - 1, chunk))
    }

    /// Enters the result of a chunk. Says whether more is folded than before.
    pub fn done(&mut self, number: u64, compared: Compared) -> bool {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some((_, result)) = place.and_then(|place| self.open.get_mut(place)) {
            *result = Some(compared);
        }
        let before = self.first;
        while let Some((chunk, Some(_))) = self.open.front() {
            let upto = chunk.hi.clone();
            if let Some((_, Some(compared))) = self.open.pop_front() {
                self.folded.sum.add(compared);
            }
            self.folded.upto = upto;
            self.folded.chunks += 1;
            self.first += 1;
        }
        self.first > before
    }

    /// What is compared without a gap so far.
    #[must_use]
    pub const fn folded(&self) -> &Folded {
        &self.folded
    }

    /// Whether everything from before the first key to behind the last was compared.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.walk_ended && self.open.is_empty() && self.folded.chunks > 0
    }

    /// The result; `None` unless everything was compared.
    #[must_use]
    pub fn result(self) -> Option<Compared> {
        self.is_whole().then_some(self.folded.sum)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::chunk::Cell;
    use super::*;

    fn key(id: i64) -> Key {
        Key(vec![Cell::Integer(id)])
    }

    fn rows(rows: u64) -> Compared {
        Compared { rows, ..Compared::default() }
    }

    #[test]
    fn chunks_follow_each_other_and_fold_in_order() {
        let mut pass = Pass::behind(Folded::default());
        for (number, hi) in [(0, Some(10)), (1, Some(20)), (2, None)] {
            let lo = (number > 0).then(|| key(i64::try_from(number).unwrap() * 10));
            let planned = pass.plan(hi.map(key)).unwrap();
            assert_eq!(planned, (number, Chunk { lo, hi: hi.map(key) }));
        }
        assert_eq!(pass.plan(Some(key(30))), None, "nothing comes behind the end");
        assert!(!pass.done(1, rows(2)), "the first is still out");
        assert_eq!((pass.folded().chunks, pass.waiting()), (0, 3));
        assert!(pass.done(0, rows(1)));
        let folded = Folded { upto: Some(key(20)), chunks: 2, sum: rows(3) };
        assert_eq!((pass.folded(), pass.waiting()), (&folded, 1));
        assert!(pass.clone().result().is_none(), "the last is still out");
        assert!(pass.done(2, rows(4)));
        assert_eq!(pass.result().unwrap().rows, 7);
    }

    #[test]
    fn nothing_and_what_is_not_planned_to_the_end_have_no_result() {
        assert!(Pass::behind(Folded::default()).result().is_none());
        let mut pass = Pass::behind(Folded::default());
        pass.plan(Some(key(10))).unwrap();
        pass.done(0, rows(5));
        assert!(!pass.is_whole() && pass.result().is_none());
        // What is kept of a pass has no result either until the rest of it is compared.
        let folded = Folded { upto: Some(key(10)), chunks: 3, sum: rows(5) };
        let mut pass = Pass::behind(folded);
        assert!(!pass.is_whole());
        assert_eq!(pass.plan(None).unwrap(), (0, Chunk { lo: Some(key(10)), hi: None }));
        assert!(!pass.is_whole());
        pass.done(0, rows(0));
        assert_eq!(pass.result().unwrap().rows, 5);
    }

    #[test]
    fn a_result_of_no_chunk_and_a_second_one_change_nothing() {
        let mut pass = Pass::behind(Folded::default());
        pass.plan(Some(key(10))).unwrap();
        assert!(!pass.done(7, rows(5)));
        assert!(pass.done(0, rows(5)));
        assert!(!pass.done(0, rows(5)));
        assert_eq!(pass.folded().sum.rows, 5);
    }

    #[test]
    fn samples_come_in_the_order_of_keys_and_are_bounded() {
        let differing = |from: usize| Compared {
            different: 15,
            samples: (from..from + 15)
                .map(|at| Difference {
                    kind: crate::run::DifferenceKind::Different,
                    key: at.to_string(),
                    columns: Vec::new(),
                    values: Vec::new(),
                })
                .collect(),
            ..Compared::default()
        };
        let mut pass = Pass::behind(Folded::default());
        pass.plan(Some(key(15))).unwrap();
        pass.plan(None).unwrap();
        pass.done(1, differing(15));
        pass.done(0, differing(0));
        let result = pass.result().unwrap();
        assert_eq!((result.different, result.samples.len()), (30, SAMPLES_MAX));
        let keys: Vec<usize> = result.samples.iter().map(|one| one.key.parse().unwrap()).collect();
        assert_eq!(keys, (0..SAMPLES_MAX).collect::<Vec<_>>());
    }

    #[test]
    fn a_kept_pass_is_taken_up_under_its_own_basis_only() {
        let basis = |name: &str| Digest::of_bytes(name.as_bytes());
        let kept = KeptPass {
            basis: basis("a"),
            began_at: Timestamp::from_unix_ms(5),
            folded: Folded { upto: Some(key(3)), chunks: 2, sum: rows(9) },
        };
        let text = kept.to_text().unwrap();
        assert_eq!(KeptPass::read(&text, &basis("a")), Some(kept));
        assert_eq!(KeptPass::read(&text, &basis("b")), None);
        assert_eq!(KeptPass::read("{}", &basis("a")), None);
    }
}

//! What notes say of who stands where, worked out without the server: which copies go to other keys, and which end.
//!
//! Keys are numbers here, and a copy is called by the key that it stands under before anything is done. Notes are gone through in the
//! order in which they were counted:
//! - A row that goes to another key takes the copy of its own along; whoever stood there is gone by then.
//! - A row that came to a key from nowhere, or went from it, ends the copy that stands there. A copy that was made for the one that
//!   came, where there was none, stands from then on.
//!
//! What a trigger writes is noted before the row that it fires for, though it comes behind it. So where a note from a deeper level
//! of triggers finds its key taken, or nobody there to go, the next note of that key comes first if the same statement of a client made
//! it, nearer to the client.
//!
//! Absent on purpose: what a key's row is now. All keys are read again afterwards.

use std::collections::{BTreeMap, BTreeSet};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A row came to it from nowhere, or went.
    Ended(usize),
    /// There was no copy of the row that came, and one was made.
    Made(usize),
    Moved {
        from: usize,
        to: usize,
    },
    /// The copy stands under both keys, as long as something refers to the first one.
    Doubled {
        from: usize,
        to: usize,
    },
}

/// A note.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub event: Event,
    /// How deep in triggers it was made, and in which transaction and at which of its statements.
    pub depth: i32,
    pub within: (i64, i64),
}

/// What becomes of the copy of a row that went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Goes,
    /// It stays where it is, whoever comes to its key.
    Stays,
}

/// What is to become of copies.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fates {
    /// Where those go that get another key.
    pub moves: BTreeMap<usize, usize>,
    /// Those that end.
    pub ended: BTreeSet<usize>,
    /// Those that have another copy of the same row under the key behind.
    pub doubled: BTreeMap<usize, usize>,
}

/// Works out what is to become of the copies that are `there`.
pub(super) fn replay(told: &[Told], there: &BTreeSet<usize>, ends: Ends) -> Fates {
    let mut board = Board::new(told, there, ends);
    for place in 0..told.len() {
        board.perform(place);
    }
    let moved = board.at.iter().filter(|(key, copy)| key != copy);
    board.fates.moves = moved.map(|(key, copy)| (*copy, *key)).collect();
    board.fates
}

struct Board<'a> {
    told: &'a [Told],
    there: &'a BTreeSet<usize>,
    ends: Ends,
    /// The places of notes that are about a key, in order.
    about: BTreeMap<usize, Vec<usize>>,
    done: Vec<bool>,
    /// The last note of a key that a copy was made there.
    made: BTreeMap<usize, usize>,
    /// Which copy stands under a key.
    at: BTreeMap<usize, usize>,
    /// Copies of rows that went, where these stay.
    left: BTreeSet<usize>,
    fates: Fates,
}

impl<'a> Board<'a> {
    fn new(told: &'a [Told], there: &'a BTreeSet<usize>, ends: Ends) -> Self {
        let mut about: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut made = BTreeMap::new();
        let mut at: BTreeMap<usize, usize> = there.iter().map(|key| (*key, *key)).collect();
        for (place, it) in told.iter().enumerate() {
            let (from, to) = it.event.keys();
            about.entry(from).or_default().push(place);
            if to != from {
                about.entry(to).or_default().push(place);
            }
            if let Event::Made(key) = it.event {
                at.remove(&key);
                made.insert(key, place);
            }
        }
        let (left, fates, done) = (BTreeSet::new(), Fates::default(), vec![false; told.len()]);
        Self { told, there, ends, about, done, made, at, left, fates }
    }

    /// Does what a note says, unless that is done. Notes that come first are nearer to the client each time, so that this goes no
    /// deeper than triggers do.
    fn perform(&mut self, place: usize) {
        if std::mem::replace(&mut self.done[place], true) {
            return;
        }
        match self.told[place].event {
            Event::Ended(key) => {
                self.catch_up(place, key);
                self.end(key);
            }
            Event::Made(key) => {
                self.end(key);
                // Of those that were made there the last one is left.
                if self.there.contains(&key) && self.made.get(&key) == Some(&place) {
                    self.at.insert(key, key);
                }
            }
            Event::Doubled { from, to } => {
                if let Some(copy) = self.at.remove(&from) {
                    self.fates.doubled.insert(copy, to);
                }
            }
            Event::Moved { from, to } if from == to => {}
            Event::Moved { from, to } => {
                if !self.at.contains_key(&from) {
                    self.catch_up(place, from);
                }
                let Some(copy) = self.at.remove(&from) else { return };
                if self.at.contains_key(&to) {
                    self.catch_up(place, to);
                }
                self.arrive(copy, (from, to));
            }
        }
    }

    fn arrive(&mut self, copy: usize, (from, to): (usize, usize)) {
        let is_kept = self.at.get(&to).is_some_and(|other| self.left.contains(other));
        if is_kept && !self.at.contains_key(&from) {
            // The copy that stays is the one of the row that came, too.
            self.left.insert(copy);
            self.at.insert(from, copy);
            return;
        }
        if let Some(other) = self.at.insert(to, copy) {
            self.fates.ended.insert(other);
        }
        self.left.remove(&copy);
    }

    fn end(&mut self, key: usize) {
        match self.ends {
            Ends::Goes => self.fates.ended.extend(self.at.remove(&key)),
            Ends::Stays => self.left.extend(self.at.get(&key)),
        }
    }

    /// Does first what a note behind this one says of a key, where that happened before it: whoever stands there goes, or nobody
    /// does, and somebody comes.
    fn catch_up(&mut self, place: usize, key: usize) {
        let about = self.about.get(&key).map_or(&[][..], Vec::as_slice);
        let behind = &about[about.partition_point(|other| *other <= place)..];
        let Some(next) = behind.iter().copied().find(|other| !self.done[*other]) else { return };
        let (this, that) = (self.told[place], self.told[next]);
        let (from, to) = that.event.keys();
        let fits = if self.at.contains_key(&key) {
            from == key && !matches!(that.event, Event::Made(_))
        } else {
            to == key && matches!(that.event, Event::Moved { .. })
        };
        if fits && that.depth < this.depth && that.within == this.within {
            self.perform(next);
        }
    }
}

impl Event {
    const fn keys(self) -> (usize, usize) {
        match self {
            Self::Ended(key) | Self::Made(key) => (key, key),
            Self::Moved { from, to } | Self::Doubled { from, to } => (from, to),
        }
    }
}

/// From one key to another.
pub(super) type Hop = (usize, usize);

/// Moves in an order in which each finds its key free: rows of them, each from the end that is free; and those that go round, in which
/// each comes to the key of the one before, and the first one to that of the last.
pub(super) fn in_order(moves: &BTreeMap<usize, usize>) -> (Vec<Vec<Hop>>, Vec<Vec<Hop>>) {
    let came: BTreeMap<usize, usize> = moves.iter().map(|(from, to)| (*to, *from)).collect();
    let mut open = moves.clone();
    let mut back = |mut key: usize| -> Vec<Hop> {
        let mut hops = Vec::new();
        while let Some(from) = came.get(&key).filter(|from| open.remove(*from).is_some()) {
            hops.push((*from, key));
            key = *from;
        }
        hops
    };
    let ends: Vec<usize> = moves.values().copied().filter(|to| !moves.contains_key(to)).collect();
    let rows = ends.into_iter().map(&mut back).collect();
    let rounds = moves.keys().map(|key| back(moves[key])).filter(|hops| !hops.is_empty());
    (rows, rounds.collect())
}

/// Moves that go round, by way of a key that is free.
pub(super) fn by_way_of(spare: usize, round: &[Hop]) -> Vec<Hop> {
    let Some((&(first, last), others)) = round.split_first() else { return Vec::new() };
    let hops = std::iter::once((first, spare)).chain(others.iter().copied());
    hops.chain([(spare, last)]).collect()
}

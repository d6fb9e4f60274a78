//! Who stands where, told by notes: known cases, and many made up ones beside a plain model of two tables.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use super::replay::{Ends, Event, Fates, Told, by_way_of, in_order, replay};

const fn moved(from: usize, to: usize) -> Told {
    at_depth(1, Event::Moved { from, to })
}

const fn ended(key: usize) -> Told {
    at_depth(1, Event::Ended(key))
}

const fn made(key: usize) -> Told {
    at_depth(1, Event::Made(key))
}

const fn doubled(from: usize, to: usize) -> Told {
    at_depth(1, Event::Doubled { from, to })
}

const fn at_depth(depth: i32, event: Event) -> Told {
    Told { event, depth, within: (7, 0) }
}

fn fates(told: &[Told], there: &[usize]) -> Fates {
    replay(told, &there.iter().copied().collect(), Ends::Goes)
}

/// Moves and ends, as text.
fn text(fates: &Fates) -> String {
    let moves = fates.moves.iter().map(|(from, to)| format!("{from}>{to}"));
    let ended = fates.ended.iter().map(|key| format!("-{key}"));
    let doubled = fates.doubled.iter().map(|(from, to)| format!("{from}={to}"));
    moves.chain(ended).chain(doubled).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_copy_goes_where_its_row_went_and_ends_with_it() {
    for (told, there, want) in [
        (vec![moved(1, 2)], vec![1], "1>2"),
        (vec![moved(1, 2), moved(2, 3), ended(2)], vec![1], "1>3"),
        (vec![ended(2), moved(1, 2), moved(2, 4)], vec![1, 2], "1>4 -2"),
        (vec![moved(1, 6), moved(2, 1), ended(1)], vec![1, 2], "1>6 -2"),
        (vec![ended(1), ended(1)], vec![1], "-1"),
        (vec![moved(1, 2), moved(2, 1)], vec![1], ""),
        (vec![moved(1, 9), moved(5, 1), moved(9, 5)], vec![1, 5], "1>5 5>1"),
        (vec![moved(1, 2), moved(2, 3), moved(5, 2), ended(2)], vec![1, 5], "1>3 -5"),
        // A copy that was made meanwhile of the row that came.
        (vec![moved(1, 2)], vec![1, 2], "1>2 -2"),
        (vec![moved(1, 2), moved(2, 4)], vec![1, 2], "1>4 -2"),
        (vec![moved(1, 2)], vec![2], ""),
        // One that was made for the row that came.
        (vec![moved(4, 40), ended(40), ended(40), made(40)], vec![4, 40], "-4"),
        (vec![moved(4, 40), ended(4), made(4), moved(4, 5)], vec![4], "4>5"),
        (vec![ended(4), made(4), moved(4, 5)], vec![4], "4>5"),
        (vec![doubled(1, 6), moved(2, 1)], vec![1, 2, 6], "2>1 1=6"),
        (vec![doubled(1, 6), moved(6, 8), ended(6)], vec![1, 6], "6>8 1=6"),
    ] {
        assert_eq!(text(&fates(&told, &there)), want, "{told:?}");
    }
}

#[test]
fn what_a_trigger_wrote_comes_behind_the_row_that_it_fired_for() {
    let nested = |depth, from, to| at_depth(depth, Event::Moved { from, to });
    for (told, there, want) in [
        // Others close up behind one that goes.
        (vec![nested(3, 2, 3), nested(2, 3, 4), moved(4, 40)], vec![2, 3, 4], "2>3 3>4 4>40"),
        // One is taken further, or back.
        (vec![nested(3, 41, 42), nested(2, 40, 41), moved(4, 40)], vec![4], "4>42"),
        (vec![nested(2, 40, 4), moved(4, 40)], vec![4], ""),
        // Another one takes the place of one that goes or is deleted.
        (vec![at_depth(2, Event::Ended(1)), moved(1, 2)], vec![1], "1>2"),
        (vec![nested(2, 5, 1), ended(1)], vec![1, 5], "5>1 -1"),
        // Notes of a round that could not be followed.
        (vec![nested(2, 1, 5), moved(5, 1)], vec![1, 5], "1>5 5>1"),
    ] {
        assert_eq!(text(&fates(&told, &there)), want, "{told:?}");
    }
    for within in [(8, 0), (7, 1)] {
        let others = Told { within, ..moved(1, 2) };
        assert_eq!(text(&fates(&[nested(2, 5, 1), others], &[1, 5])), "5>2 -1");
    }
    // The copy that was made last is the one that is there.
    let twice = [moved(2, 3), ended(3), made(3), ended(3), made(3)];
    assert_eq!(text(&fates(&twice, &[3])), "");
}

#[test]
fn copies_that_stay_when_their_rows_go_are_nobody_elses_to_delete() {
    let stays = |told: &[Told], there: &[usize]| {
        text(&replay(told, &there.iter().copied().collect(), Ends::Stays))
    };
    assert_eq!(stays(&[ended(2)], &[2]), "");
    assert_eq!(stays(&[ended(2), moved(1, 2)], &[1, 2]), "");
    assert_eq!(stays(&[ended(2), moved(1, 2), moved(2, 3)], &[1, 2]), "2>3");
    assert_eq!(stays(&[moved(1, 2)], &[1, 2]), "1>2 -2");
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }
}

/// A copy: whose it is, and whether it is the first one of that row.
type Copy = (u32, bool);

/// Two tables by keys, and notes as triggers make them.
#[derive(Default)]
struct Model {
    rows: BTreeMap<usize, u32>,
    copies: BTreeMap<usize, Copy>,
    told: Vec<Told>,
    had_one: BTreeSet<u32>,
    next: u32,
}

impl Model {
    fn is_noted(&self, key: usize) -> bool {
        self.told.iter().any(|it| match it.event {
            Event::Ended(at) => at == key,
            Event::Moved { from, to } => from == key || to == key,
            _ => false,
        })
    }

    /// What one client does; who is blind sees no copies.
    fn step(&mut self, dice: &mut Dice, is_blind: bool) {
        let (key, to) = (dice.below(KEYS), dice.below(KEYS));
        match (dice.below(8), self.rows.get(&key).copied()) {
            (0..=3, Some(row)) if !self.rows.contains_key(&to) => {
                let is_noted = is_blind || self.is_noted(key) || self.is_noted(to);
                self.rows.remove(&key);
                self.rows.insert(to, row);
                if is_noted {
                    self.told.push(moved(key, to));
                } else if let Some(copy) = self.copies.remove(&key) {
                    assert_eq!(self.copies.insert(to, copy), None);
                }
            }
            (4, Some(_)) => {
                self.rows.remove(&key);
                if is_blind || self.is_noted(key) {
                    self.told.push(ended(key));
                } else {
                    self.copies.remove(&key);
                }
            }
            (5, None) => {
                self.next += 1;
                self.rows.insert(key, self.next);
                let is_there = self.copies.contains_key(&key);
                if self.is_noted(key) || (is_blind && is_there) {
                    self.told.push(ended(key));
                    if !is_there {
                        self.copies.insert(key, (self.next, false));
                        self.told.push(made(key));
                    }
                } else {
                    assert!(!is_there);
                    self.copies.insert(key, (self.next, true));
                    self.had_one.insert(self.next);
                }
            }
            // A chunk.
            (6, Some(row)) => drop(self.copies.entry(key).or_insert((row, false))),
            _ => {}
        }
    }

    /// Does what the notes come to, hop by hop.
    fn settle(&mut self) {
        let there = self.copies.keys().copied().collect();
        let fates = replay(&self.told, &there, Ends::Goes);
        for key in &fates.ended {
            self.copies.remove(key).unwrap();
        }
        let (rows, rounds) = in_order(&fates.moves);
        let rounds = rounds.into_iter().map(|round| by_way_of(KEYS, &round));
        let hops: Vec<_> = rows.into_iter().chain(rounds).flatten().collect();
        for (from, to) in hops {
            let copy = self.copies.remove(&from).unwrap();
            assert_eq!(self.copies.insert(to, copy), None, "{from} to {to} of {fates:?}");
        }
        self.told.clear();
        self.copies.retain(|key, _| self.rows.contains_key(key));
    }
}

const KEYS: usize = 6;

#[test]
fn whatever_happens_a_row_keeps_its_copy_and_none_has_another_ones() {
    let (mut kept, mut carried) = (0, 0);
    for seed in 0..20_000 {
        let mut dice = Dice(seed);
        let mut model = Model::default();
        for key in 0..3 {
            model.next += 1;
            model.rows.insert(key, model.next);
            if dice.below(4) > 0 {
                model.copies.insert(key, (model.next, true));
                model.had_one.insert(model.next);
            }
        }
        for _ in 0..2 {
            // One with an old view comes first: it sees its own notes.
            for _ in 0..dice.below(7) {
                model.step(&mut dice, true);
            }
            for _ in 0..dice.below(5) {
                model.step(&mut dice, false);
            }
            carried += replay(&model.told, &model.copies.keys().copied().collect(), Ends::Goes)
                .moves
                .len();
            model.settle();
            for (key, row) in &model.rows {
                let copy = model.copies.get(key);
                // What a chunk has made meanwhile has nothing of its own yet.
                let is_its = copy.is_none_or(|copy| copy.0 == *row || !copy.1);
                assert!(is_its, "{seed}: {row} has {copy:?}");
                if model.had_one.contains(row) {
                    assert_eq!(copy, Some(&(*row, true)), "{seed}: {row} at {key}");
                    kept += 1;
                }
            }
        }
    }
    assert!(kept > 10_000 && carried > 10_000, "{kept} {carried}");
}

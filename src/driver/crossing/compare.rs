//! Comparing both sides where they are in two databases.
//!
//! There is no snapshot of both, and each orders keys in its own way. So both sides are gone through, one behind the other: of the old
//! side's rows the copies are looked up by their keys, and of the new side's keys the rows. Bounds carry in front which side
//! they are of.
//!
//! Why a difference is one, though both sides change all the time: of a key are read first what the new side has, with its version;
//! then, in one snapshot of the old side, its row and whether the outbox has a change of it; then the new side again. A change stays in
//! the outbox until it is committed on the new side. So where the outbox has none, all changes up to that snapshot were committed
//! before it; and where the new side is the same as before, none was in between: what was read first has them all. Whatever can't
//! be decided like this is looked at again, and is never counted as different.
//!
//! What stands for a row that has not come yet has no version of its own: changes of other mappings make it and take it away. It
//! counts as different when it stays, while everything that was written when it was seen is applied.

use std::collections::{BTreeMap, BTreeSet};

use super::pair::Crossing;
use super::{Crossed, Rows, STUB, Unfit};
use crate::bounds::verify::{
    CROSSING_COUNT_EVERY, CROSSING_KEYS_AT_ONCE, CROSSING_LOOKS, STUB_LOOKS,
};
use crate::clock::Stopwatch;
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::copy::compare::{Compared, Named};
use crate::copy::row::{Datum, Row, Unlike, unlike};
use crate::driver::Error;
use crate::run::{Difference, DifferenceKind, Mapping};

const OLD: i64 = 0;
const NEW: i64 = 1;

/// A key with the side that it is of.
fn of_side(side: i64, key: Option<Key>) -> Key {
    let cells = key.map_or_else(Vec::new, |key| key.0);
    Key(std::iter::once(Cell::Integer(side)).chain(cells).collect())
}

/// The side that a bound is of and the key itself; no key is before the first.
fn read_side(bound: &Key) -> (i64, Option<Key>) {
    match bound.0.split_first() {
        Some((Cell::Integer(side), cells)) => {
            (*side, (!cells.is_empty()).then(|| Key(cells.to_vec())))
        }
        _ => (OLD, None),
    }
}

/// What looks at keys have come to.
#[derive(Default)]
struct Seen {
    /// How often something was seen to stand for a row that has not come.
    stubs: BTreeMap<Vec<Datum>, u32>,
    /// Keys to look at again.
    undecided: Vec<Vec<Datum>>,
    /// Rows that differ for sure.
    differing: Vec<Unlike>,
}

impl Crossing {
    /// The end of the next chunk: of the old side's rows, then of the new side's.
    pub(super) async fn bound(
        &self,
        mapping: &Mapping,
        after: Option<&Key>,
        rows: u32,
    ) -> Result<Option<Key>, Error> {
        let (side, lo) = after.map_or((OLD, None), read_side);
        if side == OLD {
            let rest = Chunk { lo, hi: None };
            let found = self.of_old(self.source()?.bounds(mapping, &rest, (rows, 1)).await)?;
            let next = found.into_iter().next();
            return Ok(Some(
                next.map_or_else(|| of_side(NEW, None), |key| of_side(OLD, Some(key))),
            ));
        }
        let crossed = self.crossed(mapping).await?;
        let found = self.of_new(self.sink()?.held_bound(&crossed, lo.as_ref(), rows).await)?;
        Ok(found.map(|key| of_side(NEW, Some(key))))
    }

    /// Compares a chunk. Returns the keys that differ, too.
    pub(super) async fn compared(
        &self,
        mapping: &Mapping,
        chunk: &Chunk,
        whole: bool,
    ) -> Result<(Compared, Vec<Vec<Datum>>), Error> {
        let crossed = self.crossed(mapping).await?;
        let (side, lo) = chunk.lo.as_ref().map_or((OLD, None), read_side);
        let upper = chunk.hi.as_ref().map(read_side);
        let hi = upper.as_ref().filter(|(of, _)| *of == side).and_then(|(_, key)| key.clone());
        let range = Chunk { lo, hi };
        let watch = Stopwatch::start();
        let mut found = if side == OLD {
            self.rows_of_old(&crossed, &range, whole).await?
        } else {
            self.rows_of_new(&crossed, &range, whole).await?
        };
        if side == OLD && upper.is_none() {
            let rest = self.rows_of_new(&crossed, &Chunk { lo: None, hi: None }, whole).await?;
            found.0.add(rest.0);
            found.1.extend(rest.1);
        }
        if upper.is_none() {
            let unkeyed = self.of_new(self.sink()?.held_unkeyed(&crossed).await)?;
            if unkeyed > 0 {
                found.0.extra += unkeyed;
                found.0.rows += unkeyed;
                told(&mut found.0, (DifferenceKind::Extra, named(whole)), "(no key)".to_owned());
            }
            // They go with the relationships, and so are nothing that going back would lose.
            if !whole {
                self.stubs_for_good(mapping, &mut found.0).await?;
            }
        }
        found.0.took_us = watch.elapsed_us();
        Ok(found)
    }

    /// Holds the copies against the rows of the old side in a range.
    async fn rows_of_old(
        &self,
        crossed: &Crossed,
        range: &Chunk,
        whole: bool,
    ) -> Result<(Compared, Vec<Vec<Datum>>), Error> {
        let page = self.of_old(self.source()?.page(&crossed.mapping, (range, Rows::All)).await)?;
        let keys: Vec<Vec<Datum>> = page.rows.iter().map(|row| row.key.clone()).collect();
        let held = self.of_new(self.sink()?.held(crossed, &keys, whole).await)?;
        let count = (page.rows.len() + page.unfit.len()) as u64;
        let differing = unlike(page.rows, held.rows).into_iter().map(|one| one.key).collect();
        let mut compared = Compared { rows: count, ..Compared::default() };
        can_not_cross(&mut compared, &page.unfit, named(whole));
        let keys = self.settled(crossed, differing, (whole, &mut compared)).await?;
        Ok((compared, keys))
    }

    /// Looks for what only the new side has in a range of its keys.
    async fn rows_of_new(
        &self,
        crossed: &Crossed,
        range: &Chunk,
        whole: bool,
    ) -> Result<(Compared, Vec<Vec<Datum>>), Error> {
        let keys = self.of_new(self.sink()?.held_keys(crossed, range).await)?;
        let keys: Vec<Vec<Datum>> = keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let are_there = self.of_old(self.source()?.which_exist(&crossed.mapping, &keys).await)?;
        let alone = keys.into_iter().zip(are_there).filter(|(_, is_there)| !is_there);
        let alone = alone.map(|(key, _)| key).collect();
        let mut compared = Compared::default();
        let keys = self.settled(crossed, alone, (whole, &mut compared)).await?;
        // Rows of the old side were counted before.
        compared.rows = compared.extra;
        Ok((compared, keys))
    }

    /// Looks again at keys that seem to differ until it is decided whether they do. Counts those that do, and those that could not
    /// be decided; returns those that do.
    async fn settled(
        &self,
        crossed: &Crossed,
        keys: Vec<Vec<Datum>>,
        (whole, compared): (bool, &mut Compared),
    ) -> Result<Vec<Vec<Datum>>, Error> {
        let mut open = keys;
        let mut seen = Seen::default();
        for look in 0..CROSSING_LOOKS {
            if open.is_empty() {
                break;
            }
            // Changes of other mappings have a say only in what stands for rows.
            let is_for_stubs = open.iter().any(|key| seen.stubs.contains_key(key));
            if look > 0 && !self.arrived(&crossed.mapping, is_for_stubs).await? {
                break;
            }
            for part in open.chunks(CROSSING_KEYS_AT_ONCE) {
                self.look(crossed, part, whole, &mut seen).await?;
            }
            open = std::mem::take(&mut seen.undecided);
        }
        compared.pending += open.len() as u64;
        let keys = seen.differing.iter().map(|one| one.key.clone()).collect();
        for difference in seen.differing.iter().flat_map(Unlike::differences) {
            match difference.kind {
                DifferenceKind::Missing => compared.missing += 1,
                DifferenceKind::Extra => compared.extra += 1,
                DifferenceKind::Different => compared.different += 1,
            }
            compared.name(difference, named(whole));
        }
        Ok(keys)
    }

    /// Waits for what was written to a mapping before, and where it is wanted to all others, too. What of others is parked is not
    /// waited for: it is for their own comparisons to say. False where it takes too long.
    pub(super) async fn arrived(
        &self,
        mapping: &Mapping,
        with_others: bool,
    ) -> Result<bool, Error> {
        Ok(self.drained(std::slice::from_ref(mapping)).await?
            && (!with_others || self.carried(&self.live).await?))
    }

    /// One look at some keys.
    async fn look(
        &self,
        crossed: &Crossed,
        keys: &[Vec<Datum>],
        whole: bool,
        seen: &mut Seen,
    ) -> Result<(), Error> {
        let (source, sink) = (self.source()?, self.sink()?);
        let before = self.of_new(sink.held(crossed, keys, whole).await)?;
        let settled = self.of_old(source.rows_of(&crossed.mapping, keys).await)?;
        let after = self.of_new(sink.held(crossed, keys, whole).await)?;
        let stand_ins: BTreeSet<Vec<Datum>> = before
            .rows
            .iter()
            .filter(|row| row.values.contains_key(STUB))
            .map(|row| row.key.clone())
            .collect();
        // A row and its version are not read at one moment: both have to stay.
        let (rows_before, rows_after) = (by_key(&before.rows), by_key(&after.rows));
        let mut decided = BTreeMap::new();
        for (at, key) in keys.iter().enumerate() {
            let same = before.versions.get(at) == after.versions.get(at)
                && rows_before.get(key) == rows_after.get(key);
            let is_open = settled.is_open.get(at).copied().unwrap_or(true);
            decided.insert(key.clone(), same && !is_open);
        }
        for one in unlike(settled.page.rows, before.rows) {
            let mut is_decided = decided.get(&one.key).copied().unwrap_or(false);
            if stand_ins.contains(&one.key) {
                let looks = seen.stubs.entry(one.key.clone()).or_default();
                *looks += 1;
                is_decided &= *looks > STUB_LOOKS;
            }
            if is_decided {
                seen.differing.push(one);
            } else {
                seen.undecided.push(one.key);
            }
        }
        Ok(())
    }

    /// Compares how many rows there are.
    pub(super) async fn counted(&self, mapping: &Mapping) -> Result<Compared, Error> {
        let crossed = self.crossed(mapping).await?;
        let (source, sink) = (self.source()?, self.sink()?);
        let watch = Stopwatch::start();
        for look in 0..CROSSING_LOOKS {
            if look > 0 {
                tokio::time::sleep(CROSSING_COUNT_EVERY).await;
            }
            let before = self.of_new(sink.held_count(&crossed).await)?;
            let old = self.of_old(source.rows_counted(mapping).await)?;
            let behind = self.lag(mapping).await?.rows;
            let after = self.of_new(sink.held_count(&crossed).await)?;
            let counted = Compared {
                rows: old.max(after),
                took_us: watch.elapsed_us(),
                ..Compared::default()
            };
            if old == before || old == after {
                return Ok(counted);
            }
            // Nothing was under way, and still they differ.
            if behind == 0 && before == after && look > 0 {
                return Ok(Compared {
                    missing: old.saturating_sub(after),
                    extra: after.saturating_sub(old),
                    ..counted
                });
            }
        }
        Ok(Compared { pending: 1, took_us: watch.elapsed_us(), ..Compared::default() })
    }

    /// Compares about so many rows of each side.
    pub(super) async fn sampled(&self, mapping: &Mapping, wanted: u32) -> Result<Compared, Error> {
        let crossed = self.crossed(mapping).await?;
        let watch = Stopwatch::start();
        let page = self.of_old(self.source()?.some_rows(mapping, wanted).await)?;
        let held = self.of_new(self.sink()?.some_held(&crossed, wanted).await)?;
        let mut keys: BTreeSet<Vec<Datum>> =
            page.rows.into_iter().map(|Row { key, .. }| key).collect();
        keys.extend(held);
        let mut compared = Compared { rows: keys.len() as u64, ..Compared::default() };
        can_not_cross(&mut compared, &page.unfit, Named::Any);
        self.settled(&crossed, keys.into_iter().collect(), (false, &mut compared)).await?;
        compared.took_us = watch.elapsed_us();
        Ok(compared)
    }
}

/// Rows by their keys, those of one key in an order of their own.
fn by_key(rows: &[Row]) -> BTreeMap<&Vec<Datum>, Vec<&Row>> {
    let mut all: BTreeMap<&Vec<Datum>, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        all.entry(&row.key).or_default().push(row);
    }
    for rows in all.values_mut() {
        rows.sort();
    }
    all
}

/// Whole rows are compared where it is asked what would be lost with them.
const fn named(whole: bool) -> Named {
    if whole { Named::OfNewSide } else { Named::Any }
}

/// Rows that the new side can't have.
fn can_not_cross(compared: &mut Compared, unfit: &[Unfit], named: Named) {
    compared.missing += unfit.len() as u64;
    for Unfit { key, reason } in unfit {
        let key = format!("{} (can't be copied: {reason})", key.join(", "));
        told(compared, (DifferenceKind::Missing, named), key);
    }
}

pub(super) fn told(compared: &mut Compared, (kind, named): (DifferenceKind, Named), key: String) {
    compared.name(Difference { kind, key, columns: Vec::new(), values: Vec::new() }, named);
}

//! Clients, pages of a copy and relays, all at once, on a real server: at the end the new side has what the tables have.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::fixture::{Bed, copy, follow, follows, int, order, orders, people, person};
use crate::copy::chunk::Planned;
use crate::copy::row::{Datum, Row};
use crate::driver::crossing::{Change, ChangeSink as _, Crossed, STUB, What};
use crate::driver::{Error, Fence};
use crate::run::{FailureClass, OnExisting};

const WRITES: u64 = 500;
const KEYS: u64 = 12;
/// Pages of each table; each is a part of it, which no other worker has.
const PAGES: usize = 40;
const PARTS: u64 = 4;

/// The same sequence for the same beginning: xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn id(&mut self) -> i64 {
        i64::try_from(self.below(KEYS)).unwrap()
    }

    async fn pause(&mut self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(most_ms))).await;
    }
}

/// The old side: tables, and what their changes are.
struct World {
    tables: [BTreeMap<Vec<Datum>, Row>; 3],
    outbox: BTreeMap<u64, Change>,
    version: u64,
}

fn row(table: usize, dice: &mut Dice) -> Row {
    let value = i64::try_from(dice.below(1_000_000)).unwrap();
    match table {
        0 => person(dice.id(), &value.to_string()),
        1 => follow(dice.id(), dice.id() % 4, value),
        _ => order(
            dice.id(),
            (dice.id(), ["a", "b", "c"][usize::try_from(value % 3).unwrap()]),
            value,
        ),
    }
}

fn empties(one_in: u64, dice: &mut Dice) -> bool {
    one_in > 0 && dice.below(one_in) == 0
}

impl World {
    fn write(&mut self, all: &[Crossed; 3], dice: &mut Dice, emptied_one_in: u64) {
        let table = usize::try_from(dice.below(3)).unwrap();
        self.version += 1;
        let what = if empties(emptied_one_in, dice) {
            self.tables[table].clear();
            What::Emptied
        } else {
            let row = row(table, dice);
            if dice.below(3) == 0 {
                self.tables[table].remove(&row.key);
                What::Gone(row.key)
            } else {
                self.tables[table].insert(row.key.clone(), row.clone());
                What::Is(row)
            }
        };
        let mapping = all[table].mapping.name.clone();
        self.outbox.insert(self.version, Change { version: self.version, mapping, what, tries: 0 });
    }

    /// Some changes, in no order.
    fn some(&self, dice: &mut Dice) -> Vec<Change> {
        let most = dice.below(30) + 1;
        let mut some: Vec<Change> =
            self.outbox.values().filter(|_| dice.below(3) > 0).cloned().collect();
        some.truncate(usize::try_from(most).unwrap());
        some.sort_by_key(|change| change.version.wrapping_mul(dice.0));
        some
    }
}

/// Does it until nobody is in the way.
async fn again<T>(mut done: impl AsyncFnMut() -> Result<T, Error>) -> T {
    loop {
        match done().await {
            Ok(done) => return done,
            Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

struct Race {
    bed: Bed,
    all: [Crossed; 3],
    world: Mutex<World>,
    is_written: AtomicBool,
    /// Changes that are applied once more.
    repeated: AtomicU64,
}

impl Race {
    async fn write(&self, emptied_one_in: u64) {
        let mut dice = Dice(7 + emptied_one_in);
        for at in 0..WRITES {
            self.world.lock().unwrap().write(&self.all, &mut dice, emptied_one_in);
            if at % 4 == 0 {
                dice.pause(12).await;
            }
        }
        self.is_written.store(true, Ordering::SeqCst);
    }

    async fn pages(&self, worker: usize, planned: &[[Planned; PAGES]; 3]) {
        let mut dice = Dice(worker as u64 + 100);
        for page in (worker - 1..PAGES).step_by(4) {
            for (table, of) in self.all.iter().enumerate() {
                // Read, and written some time later.
                let rows: Vec<Row> = {
                    let world = self.world.lock().unwrap();
                    let rows = world.tables[table].values().zip(0_u64..);
                    let part = rows.filter(|(row, _)| of_part(row) == page as u64 % PARTS);
                    part.map(|(row, _)| row.clone()).collect()
                };
                dice.pause(40).await;
                let chunk = &planned[table][page];
                let (fence, work) = (&self.bed.fences[worker], copy(of));
                again(async || {
                    self.bed.neo4j.land_page(fence, &work, of, (chunk, rows.clone())).await
                })
                .await;
            }
        }
    }

    async fn relay(&self, fence: &Fence, seed: u64) {
        let mut dice = Dice(seed);
        loop {
            let is_written = self.is_written.load(Ordering::SeqCst);
            let some = self.world.lock().unwrap().some(&mut dice);
            if some.is_empty() {
                if is_written && self.world.lock().unwrap().outbox.is_empty() {
                    return;
                }
                dice.pause(10).await;
                continue;
            }
            let (emptied, changes): (Vec<Change>, Vec<Change>) =
                some.into_iter().partition(|change| change.what == What::Emptied);
            for change in &emptied {
                let of = self.all.iter().find(|of| of.mapping.name == change.mapping).unwrap();
                while again(async || self.bed.neo4j.land_emptied(fence, of, change.version).await)
                    .await
                {}
            }
            again(async || self.bed.neo4j.land(fence, &self.all, &changes).await).await;
            if dice.below(4) == 0 {
                // As if the answer had been lost.
                self.repeated.fetch_add(changes.len() as u64, Ordering::SeqCst);
                continue;
            }
            let mut world = self.world.lock().unwrap();
            for change in emptied.iter().chain(&changes) {
                world.outbox.remove(&change.version);
            }
        }
    }
}

/// Which part of its table a row is in.
fn of_part(row: &Row) -> u64 {
    let Some(Datum::Integer(id)) = row.key.last() else { return 0 };
    u64::try_from(*id).unwrap() % PARTS
}

async fn race(on_existing: OnExisting, emptied_one_in: u64) {
    let mut all = [people(), follows(), orders()];
    for of in &mut all {
        of.mapping.on_existing = on_existing;
    }
    let Some(bed) = Bed::open(&[&all[0], &all[1], &all[2]]).await else { return };
    let mut world = World { tables: Default::default(), outbox: BTreeMap::new(), version: 0 };
    // What was there before is copied, and no change is of it.
    let mut dice = Dice(3);
    for _ in 0..40 {
        for table in 0..3 {
            let row = row(table, &mut dice);
            world.tables[table].insert(row.key.clone(), row);
        }
    }
    let mut planned = Vec::new();
    for of in &all {
        let mut chunks = Vec::new();
        for _ in 0..PAGES {
            chunks.push(bed.plan(of).await);
        }
        planned.push(chunks.try_into().unwrap());
    }
    let planned: [[Planned; PAGES]; 3] = planned.try_into().unwrap();
    let other = bed.neo4j.enter_relay(&"r1/relay/app/other".into(), 1).await.unwrap();
    let race = Race {
        bed,
        all,
        world: Mutex::new(world),
        is_written: AtomicBool::new(false),
        repeated: AtomicU64::new(0),
    };
    tokio::join!(
        race.write(emptied_one_in),
        race.pages(1, &planned),
        race.pages(2, &planned),
        race.pages(3, &planned),
        race.pages(4, &planned),
        race.relay(&race.bed.relay, 11),
        race.relay(&other, 13),
    );
    assert!(race.repeated.load(Ordering::SeqCst) > 0);
    let world = race.world.into_inner().unwrap();
    let bed = &race.bed;
    let keys: [Vec<Vec<Datum>>; 3] = {
        let ids = || 0..i64::try_from(KEYS).unwrap();
        let one = || ids().map(|id| vec![int(id)]).collect();
        [
            one(),
            ids().flat_map(|id| (0..4).map(move |other| vec![int(other), int(id)])).collect(),
            one(),
        ]
    };
    let mut stubs = BTreeSet::new();
    for ((of, keys), table) in race.all.iter().zip(&keys).zip(&world.tables) {
        let asked: Vec<&[Datum]> = keys.iter().map(Vec::as_slice).collect();
        let (gone, rows): (Vec<Row>, Vec<Row>) =
            bed.rows(of, &asked).await.into_iter().partition(|row| row.values.contains_key(STUB));
        let mut expected: Vec<Row> = table.values().cloned().collect();
        expected.sort();
        assert_eq!(rows, expected, "{}", of.mapping.name);
        stubs.extend(gone.into_iter().map(|row| row.key));
    }
    // What stands for a row is what a relationship needs, and nothing else once it is swept.
    let refers = |row: &Row| [&row.key[..], &[]].concat();
    let followers =
        world.tables[1].values().flat_map(|row| refers(row).into_iter().map(|id| vec![id]));
    let ordering = world.tables[2].values().map(|row| vec![row.values["start.uid"].clone()]);
    let needed: BTreeSet<Vec<Datum>> =
        followers.chain(ordering).filter(|key| !world.tables[0].contains_key(key)).collect();
    assert!(needed.is_subset(&stubs));
    let left = bed.neo4j.sweep(&bed.fences[0], &race.all[0]).await.unwrap();
    assert_eq!(left, needed.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_changes_at_once_end_as_the_tables_are() {
    Box::pin(race(OnExisting::Keep, 0)).await;
    Box::pin(race(OnExisting::Update, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_emptied_meanwhile_stay_so() {
    Box::pin(race(OnExisting::Keep, 120)).await;
}

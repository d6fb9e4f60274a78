//! The two sides of a mapping: who writes to them, what chunks bring over, and what the ledger has of those chunks. Rows and ledger are
//! kept apart, so that one can be there without the other where a fault is planted, and only there.

use std::collections::BTreeMap;

/// The chunks of a copy.
pub(super) const CHUNKS: u32 = 4;
/// The keys in the range of each chunk.
const CHUNK_KEYS: usize = 2;
/// The parts in which two sides are compared.
pub(super) const REGIONS: usize = 2;
pub(super) const KEYS: usize = CHUNKS as usize * CHUNK_KEYS;

pub(super) struct Sides {
    /// Whether writes to either side reach the other.
    is_both: bool,
    old: [Option<u64>; KEYS],
    new: [Option<Row>; KEYS],
    /// Rows that clients have deleted while writes reached both sides.
    is_deleted: [bool; KEYS],
    /// Rows that somebody has written past the sync: what becomes of those nobody promises.
    is_past: [bool; KEYS],
    /// Rows that only the new side has as clients wrote them.
    is_only_new: [bool; KEYS],
    /// Since which move a row differs.
    parted_at: [Option<u64>; KEYS],
    pub sync: Option<Sync>,
    pub is_retired: bool,
    pub copy: Copy,
    /// How often the rows of each chunk were written, and how many they were.
    brought: BTreeMap<u32, (u32, u64)>,
}

/// A row of the new side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    value: u64,
    /// The chunk that brought it; none where a client's write did.
    by: Option<u32>,
}

/// What keeps the sides in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sync {
    /// Another one after each time that it was made, changed, or switched off.
    pub generation: u64,
    /// Whether nobody has switched it off.
    pub is_on: bool,
}

/// The source rows of a chunk, as they were read.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub seq: u32,
    rows: [Option<u64>; CHUNK_KEYS],
}

/// What a chunk does not look at, where that fault is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blind {
    /// Nothing.
    No,
    /// What a client has written meanwhile.
    Written,
    /// What a client has deleted meanwhile.
    Deleted,
}

/// A copy in the ledger.
#[derive(Default)]
pub(super) struct Copy {
    /// The last chunk that is entered.
    pub planned: u32,
    /// Up to where all chunks are committed.
    watermark: u32,
    /// Those behind it that are.
    done: Vec<u32>,
    /// The rows of all that are.
    pub rows: u64,
}

impl Copy {
    /// Chunks that are entered and not committed, as far as the ledger can tell.
    pub fn open(&self) -> impl Iterator<Item = u32> + '_ {
        (self.watermark + 1..=self.planned).filter(|seq| !self.done.contains(seq))
    }

    pub fn has(&self, seq: u32) -> bool {
        seq <= self.watermark || self.done.contains(&seq)
    }

    /// All is entered, nothing is open, and the watermark is at the end.
    pub fn is_whole(&self) -> bool {
        self.planned == CHUNKS && self.watermark == CHUNKS
    }

    pub fn enter(&mut self, seq: u32, rows: u64) {
        self.done.push(seq);
        self.rows += rows;
    }

    /// Moves the watermark up to the first chunk that is not committed.
    pub fn fold(&mut self, is_too_high: bool) {
        let mut folded = false;
        while self.done.contains(&(self.watermark + 1)) {
            self.watermark += 1;
            folded = true;
        }
        if folded && is_too_high && self.watermark < self.planned {
            self.watermark += 1;
        }
        let watermark = self.watermark;
        self.done.retain(|seq| *seq > watermark);
    }
}

fn range(seq: u32) -> std::ops::Range<usize> {
    let first = (seq as usize - 1) * CHUNK_KEYS;
    first..first + CHUNK_KEYS
}

/// The chunk in whose range a key is.
fn chunk_of(key: usize) -> u32 {
    u32::try_from(key / CHUNK_KEYS).unwrap() + 1
}

fn region(at: usize) -> std::ops::Range<usize> {
    at * KEYS / REGIONS..(at + 1) * KEYS / REGIONS
}

impl Sides {
    pub fn new(is_both: bool) -> Self {
        let none = [false; KEYS];
        Self {
            is_both,
            old: std::array::from_fn(|key| (key % 4 != 3).then_some(key as u64)),
            new: [None; KEYS],
            is_deleted: none,
            is_past: none,
            is_only_new: none,
            parted_at: [None; KEYS],
            sync: None,
            is_retired: false,
            copy: Copy::default(),
            brought: BTreeMap::new(),
        }
    }

    pub fn is_synced(&self) -> bool {
        self.sync.is_some_and(|sync| sync.is_on)
    }

    /// Whether clients have written to the new side what the old side lacks.
    pub fn has_only_new(&self) -> bool {
        self.is_only_new.contains(&true)
    }

    /// Whether the sides have parted for good.
    pub const fn has_parted(&self) -> bool {
        self.is_retired && !self.is_both
    }

    /// A client writes a row, or deletes it, on the side that it uses.
    pub fn write(&mut self, key: usize, value: Option<u64>) {
        if self.is_retired {
            self.new[key] = value.map(|value| Row { value, by: None });
            match self.sync {
                Some(Sync { is_on: true, .. }) => self.old[key] = value,
                Some(_) => self.is_past[key] = true,
                None => self.is_only_new[key] = true,
            }
            return;
        }
        self.old[key] = value;
        if self.is_synced() {
            self.new[key] = value.map(|value| Row { value, by: None });
            self.is_deleted[key] = value.is_none();
        } else if self.sync.is_some() {
            self.is_past[key] = true;
        }
    }

    /// Somebody changes the new side behind everybody's back.
    pub fn tamper(&mut self, key: usize, value: Option<u64>) {
        if self.sync.is_some() {
            self.new[key] = value.map(|value| Row { value, by: None });
            self.is_past[key] = true;
        }
    }

    /// Somebody puts all of that right.
    pub fn heal(&mut self, generation: u64) {
        let Some(sync) = &mut self.sync else { return };
        if !sync.is_on {
            *sync = Sync { generation, is_on: true };
        }
        for key in 0..KEYS {
            if !std::mem::take(&mut self.is_past[key]) {
                continue;
            }
            if self.is_retired {
                self.old[key] = self.new[key].map(|row| row.value);
            } else {
                self.new[key] = self.old[key].map(|value| Row { value, by: None });
                self.is_deleted[key] = self.old[key].is_none();
            }
        }
    }

    pub fn switch_sync(&mut self, generation: u64) {
        if let Some(sync) = &mut self.sync {
            let is_on = !sync.is_on;
            let generation = if is_on { generation } else { sync.generation };
            *sync = Sync { generation, is_on };
        }
    }

    /// The sync goes in. What differs then was written when nothing kept the sides in step.
    pub fn install(&mut self, generation: u64) {
        for key in 0..KEYS {
            self.is_past[key] |=
                self.copy.has(chunk_of(key)) && self.new[key].map(|row| row.value) != self.old[key];
        }
        self.sync = Some(Sync { generation, is_on: true });
    }

    pub fn retire(&mut self, generation: u64) {
        self.is_retired = true;
        self.sync = self.sync.filter(|_| self.is_both);
        if let Some(sync) = &mut self.sync {
            sync.generation = generation;
        }
    }

    /// The old side comes back, and what only the new side had is lost.
    pub fn unretire(&mut self, generation: u64) {
        self.is_retired = false;
        for key in 0..KEYS {
            self.is_past[key] |= std::mem::take(&mut self.is_only_new[key]);
        }
        if self.sync.is_none() {
            self.install(generation);
        }
    }

    /// What chunks have brought goes, and the ledger's rows of it.
    pub fn uncopy(&mut self) {
        self.copy = Copy::default();
        self.brought.clear();
        for row in &mut self.new {
            *row = row.filter(|row| row.by.is_none());
        }
    }

    pub fn empty(&mut self) {
        self.new = [None; KEYS];
    }

    pub fn read(&self, seq: u32) -> Page {
        let first = range(seq).start;
        Page { seq, rows: std::array::from_fn(|at| self.old[first + at]) }
    }

    /// Writes the rows of a chunk, but where a client was there first.
    pub fn bring(&mut self, page: &Page, blind: Blind) {
        for (key, value) in range(page.seq).zip(page.rows) {
            let Some(value) = value else { continue };
            let is_written = self.new[key].is_some() && blind != Blind::Written;
            let is_deleted = self.is_deleted[key] && blind != Blind::Deleted;
            if !is_written && !is_deleted {
                self.new[key] = Some(Row { value, by: Some(page.seq) });
            }
        }
        let brought = self.brought.entry(page.seq).or_default();
        *brought = (brought.0 + 1, page.rows());
    }

    /// How many rows of a part differ now, and how many there are.
    pub fn compare(&self, at: usize) -> (u64, u64) {
        let differing = region(at).filter(|key| self.differs(*key)).count();
        let rows = region(at).filter(|key| self.old[*key].is_some()).count();
        (differing as u64, rows as u64)
    }

    fn differs(&self, key: usize) -> bool {
        self.old[key] != self.new[key].map(|row| row.value)
    }

    /// Notes since when rows differ.
    pub fn note(&mut self, tick: u64) {
        for key in 0..KEYS {
            let since = self.parted_at[key].unwrap_or(tick);
            self.parted_at[key] = self.differs(key).then_some(since);
        }
    }

    /// The rows that have differed all the time from a move on.
    pub fn parted_since(&self, tick: u64) -> Vec<usize> {
        (0..KEYS).filter(|key| self.parted_at[*key].is_some_and(|at| at <= tick)).collect()
    }

    /// How many rows were brought, by what was brought.
    pub fn rows_brought(&self) -> u64 {
        self.brought.values().map(|(_, rows)| rows).sum()
    }

    /// What of a copy is not as it must be: the ledger has each chunk whose rows are there, once, and no other; and a client's write is
    /// what both sides have.
    pub fn complaint(&self) -> Option<(&'static str, String)> {
        for seq in 1..=CHUNKS {
            let times = self.brought.get(&seq).map_or(0, |(times, _)| *times);
            match (self.copy.has(seq), times) {
                (true, 1) | (false, 0) => {}
                (true, 0) => {
                    return Some(("P3", format!("the ledger has chunk {seq} without its rows")));
                }
                (false, _) => {
                    return Some(("P3", format!("the rows of chunk {seq} are not in the ledger")));
                }
                (true, _) => return Some(("P3", format!("chunk {seq} is copied {times} times"))),
            }
        }
        if !self.is_synced() {
            return None;
        }
        (0..KEYS).filter(|key| !self.is_past[*key]).find_map(|key| {
            let (old, new) = (self.old[key], self.new[key]);
            let is_copied = self.copy.has(chunk_of(key));
            match (old, new) {
                (None, Some(row)) => {
                    Some(("P4", format!("row {key} was deleted and is back: {row:?}")))
                }
                (Some(old), Some(row)) if row.value != old => {
                    Some(("P4", format!("row {key} is {row:?}, and a client has written {old}")))
                }
                (Some(_), None) if is_copied => Some(("P3", format!("row {key} is lost"))),
                _ => None,
            }
        })
    }
}

impl Page {
    pub fn rows(&self) -> u64 {
        self.rows.iter().flatten().count() as u64
    }
}

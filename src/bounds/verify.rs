//! Comparing both sides: how much at once, how often what differs is looked at again, and how much is put right.

use std::time::Duration;

/// How long one chunk of a comparison should take, in milliseconds: reading blocks nobody, so longer than a copy's.
pub const CHUNK_MS: u64 = 1_000;

/// Rows in the first chunk of a comparison: more than in a copy's, for the same reason.
pub const START_ROWS: u32 = 2_000;

/// How many chunks are compared at once where the plan doesn't say, as far as the database can do with them: one is read while the next
/// is found.
pub const WORKERS: u32 = 2;

/// How many chunks for each worker may be compared while one before them still is, which bounds what waits for it in memory.
pub const WAITING_MAX: usize = 4;

/// How often a pass begins anew because a table was altered under it: who alters it again and again isn't done yet.
pub const PASSES_MAX: u32 = 3;

/// How often keys that the sync could only note are put right before a comparison gives up: clients may note more meanwhile, and some
/// never stop.
pub const SETTLE_TRIES: u32 = 20;

/// Rows of a chunk that is looked at for what to repair: as many as a comparison reads in a moment.
pub const REPAIR_ROWS: u32 = 20_000;

/// How often what differs between two databases is looked at again: changes are on their way, and each look waits for those that
/// were.
pub const CROSSING_LOOKS: u32 = 8;

/// How often what stands for a row is seen before it counts: the row that it waits for may come with the next changes.
pub const STUB_LOOKS: u32 = 2;

/// Keys that are looked at again at once between two databases: each is a parameter of the statements.
pub const CROSSING_KEYS_AT_ONCE: usize = 2_000;

/// Between two counts of two databases that differ: in that time the relay carries what waits.
pub const CROSSING_COUNT_EVERY: Duration = Duration::from_millis(200);

/// How often a row that differs in a graph is read again: a client that writes both sides may be between the two.
pub const GRAPH_LOOKS: u32 = 5;

/// How long is waited before the first of these looks; before each other twice as long as before the one before. In all that is longer
/// than a transaction that writes both sides.
pub const GRAPH_FIRST_WAIT: Duration = Duration::from_millis(20);

/// As many keys as are read again in a graph. Where more differ in a chunk, it is not because somebody writes just now.
pub const GRAPH_KEYS_MAX: usize = 2_000;

/// Up to how many rows a sample is drawn from all of them, which reads them all; beyond that, from random pages.
pub const DRAWN_FROM_ALL_MAX: u64 = 100_000;

/// How many times a sample's size the random pages should hold, so that few rows of a page are in it.
pub const DRAWN_FROM: f64 = 20.0;

/// Rows that are repaired in one transaction of PostgreSQL: as many as may be locked at once.
pub const REPAIRED_AT_ONCE: usize = 1_000;

/// How many keys of the new side are compared at once for the way back: each is a part of the statement.
pub const KEYS_AT_ONCE: usize = 500;

/// How many rows are compared at once of what a `retire` put aside: as many as a comparison reads in a moment.
pub const ASIDE_ROWS: u32 = 20_000;

/// How often noted keys of a chunk are put right before it is given up there: clients may note more meanwhile, and some never stop.
pub const ASIDE_SETTLE_TRIES: u32 = 20;

/// How many rows the way back of a mapping is tried on before a run: enough to meet what is not rare, in one short read.
pub const INVERSE_ROWS: u32 = 1_000;

/// Up to how many columns SQLite is asked for values: five results for each, and it gives 2,000 at most.
pub const SQLITE_SHOWN_OF_MAX: usize = 350;

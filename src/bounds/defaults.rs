//! What holds where a plan says nothing.
//!
//! These go into the program that a run pins when it starts, so a run keeps those that it was started with.

/// How many steps may work on one target at once. They share its connections and its disk, and their clients are the same.
pub const PARALLEL_PER_TARGET: u32 = 4;

/// How long an approval counts, if the gate doesn't say: 72 hours, in milliseconds. One given on a Friday holds on Monday.
pub const APPROVAL_EXPIRES_MS: u64 = 72 * 3_600_000;

/// How long a chunk should take, if the plan doesn't say, in milliseconds: clients wait for its rows as long, and a tenth of a second
/// is what most don't notice.
pub const CHUNK_TIME_MS: u64 = 100;

/// The same into another database: no client of the table waits for it, and each takes some round trips; but larger transactions
/// cost the graph more per row (docs/performance.md).
pub const CHUNK_TIME_CROSSING_MS: u64 = 200;

/// The same where there is only one writer: all others wait for the chunk, so it is shorter.
pub const CHUNK_TIME_SQLITE_MS: u64 = 50;

/// Workers of a copy into another database: one reads on the old side while the other writes on the new one.
pub const WORKERS_CROSSING: u32 = 2;

/// How often a throttle looks, if it doesn't say, in milliseconds: a few times in what it takes a replica to fall behind, and little
/// work for the server that is asked.
pub const THROTTLE_EVERY_MS: u64 = 1_000;

/// Attempts of a step, if the plan doesn't say: with the waits below, about two minutes, in which a server is restarted or fails over.
pub const ATTEMPTS: u32 = 15;

/// The first wait between attempts, in milliseconds: what is in the way of a step is most often a short transaction.
pub const FIRST_WAIT_MS: u64 = 250;

/// The longest wait between attempts, in milliseconds: a server that comes back is noticed as soon.
pub const LONGEST_WAIT_MS: u64 = 10_000;

/// Attempts of a retry policy that nobody has filled in: few, since it stands for no plan.
pub const UNPLANNED_ATTEMPTS: u32 = 5;

/// How many rows may be parked unless the plan says so: enough to see what is wrong with them, and few enough to mend.
pub const PARK_MAX: u32 = 1_000;

/// The rows that a sample looks at, if the plan doesn't say: read in seconds, and enough to meet what one row in a thousand has.
pub const SAMPLE_ROWS: u32 = 10_000;

/// How many changes of a mapping may wait in the outbox: what a day of a busy table may bring.
pub const OUTBOX_ROWS: u64 = 10_000_000;

/// How long the oldest of them may have waited, in milliseconds: a day, in which somebody looks.
pub const OUTBOX_AGE_MS: u64 = 24 * 3_600_000;

/// How many bytes their images may take: 10 GiB, room that a server in use has to spare.
pub const OUTBOX_BYTES: u64 = 10 << 30;

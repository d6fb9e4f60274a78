//! Copying: the size of chunks, how many are planned and copied ahead, how long they yield, and rows that can't be copied.

/// The smallest chunk, unless a policy says otherwise: below, what a transaction costs by itself is more than its rows.
pub const MIN_ROWS: u32 = 10;

/// The largest chunk, unless a policy says otherwise: its rows are locked, logged and sent to replicas together.
pub const MAX_ROWS: u32 = 100_000;

/// The first chunk where chunks should take 100 ms, unless a policy says otherwise: 500 rows of 5 ms each already lock for 2.5 s.
pub const START_ROWS: u32 = 200;

/// The target that [`START_ROWS`] are for, in microseconds: what chunks should take unless a plan says otherwise.
pub const START_US: u64 = 100_000;

/// How many times as many rows the first chunk has at most, however long chunks may take: nothing is known yet of the rows.
pub const START_TIMES_MAX: u32 = 10;

/// A day; longer times of a chunk are taken for this, so that sums of them can't overflow.
pub const TOOK_US_MAX: u64 = 86_400_000_000;

/// How long a plan may say that a chunk takes where writers of other rows go on beside it, in milliseconds. Writers of its
/// rows wait as long.
pub const CHUNK_TIME_MAX_MS: u64 = 60_000;

/// How many columns a key may have: our own tables hold keys column by column.
pub const KEY_COLUMNS_MAX: usize = 8;

/// Chunks planned at once when sizes have settled: enough to make the planning transaction cheap, few enough that a change
/// of size or a pause is felt soon.
pub const WINDOW_MAX: u32 = 8;

/// Planned chunks more than so many times as large as they should be now are planned anew: smaller ones are soon done anyway.
pub const FAR_TOO_LARGE: u32 = 2;

/// How far chunks may be copied beyond the first that is not, in chunks for each worker: the ledger keeps each of them until that one
/// is done.
pub const AHEAD_PER_WORKER: u64 = 4;

/// How long something may be kept from its locks in all before the step fails, in milliseconds (30 minutes): long enough for a batch job
/// of a client, and somebody has to look at what is longer.
pub const BLOCKED_FOR_MS: u64 = 30 * 60 * 1_000;

/// The first rest of a chunk, or of planning, that could not get its locks, in milliseconds: about as long as a client's transaction.
pub const YIELD_FIRST_MS: u64 = 50;

/// The longest of these rests, in milliseconds: nothing is held meanwhile, and a lock that is free again is had as soon.
pub const YIELD_LONGEST_MS: u64 = 2_000;

/// Halvings that look for the row that can't be copied: enough for any chunk, and an end where rows come as fast as it is halved.
pub const HALVINGS_MAX: u32 = 40;

/// Parked rows that are tried again in one transaction: so few that clients who want them wait for a moment only.
pub const RETRIED_AT_ONCE: u32 = 50;

/// Parked rows that are read at once to be judged: nothing is locked for that, and each is worked out anew.
pub const JUDGED_AT_ONCE: u32 = 200;

/// How often all parked rows are tried again at most, as long as that frees some: rows that refer to each other free one another, which
/// seldom takes more than two passes.
pub const PARKED_PASSES_MAX: u32 = 20;

/// Among how many parked rows one is looked for that is about the whole table: as many as may be parked unless a plan says otherwise.
pub const PARKED_LOOKED_AT_MAX: u32 = 1_000;

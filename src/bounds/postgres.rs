//! PostgreSQL as a target: sessions, locks and waits, and how much is put right or emptied at once.
//!
//! Whatever locks clients' rows waits for less than it takes the server to look for deadlocks (a second, unless somebody has changed
//! that), so that we yield and not a client.

use std::time::Duration;

// Sessions.

/// Workers of a copy: more wait for the disk, or for each other.
pub const COPY_WORKERS: u32 = 8;

/// Connections that work at once, workers of copies and steps in parallel included. Servers have a hundred as a rule, and they are for
/// clients.
pub const CONNECTIONS_MAX: usize = 24;

/// How long to wait for a connection: a server that takes longer isn't well, or isn't PostgreSQL.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long a session may have been idle to be used without asking whether it is still there, in milliseconds: few go in a second, and
/// each question is a round trip.
pub const FRESH_MS: u64 = 1_000;

/// How long a transaction of ours may stand idle, in milliseconds: a stopped process does not hold its locks for ever.
pub const IDLE_IN_TRANSACTION_MS: u64 = 10_000;

/// How often the server looks, while a statement of ours runs, whether we are still there, in milliseconds.
pub const CONNECTION_CHECK_MS: u64 = 5_000;

/// How many shapes, and how many texts of statements, are kept: more mappings than a plan works on at once, or a relay carries.
pub const KEPT_MAX: usize = 64;

/// How long sessions of an earlier runner that were ended may take to be gone, in milliseconds: what can't be cancelled at once is
/// waited for.
pub const GONE_WITHIN_MS: u64 = 30_000;

/// How long the session of an earlier attempt at a statement may take to be gone, in milliseconds: the server notices between rows.
pub const STATEMENT_GONE_WITHIN_MS: u64 = 20_000;

/// How often sessions that were ended are looked for: most are gone at once.
pub const GONE_LOOK_EVERY: Duration = Duration::from_millis(50);

// Waits for locks.

/// How long chunks wait for a lock, in milliseconds. Always less than the server's `deadlock_timeout`, so that we yield and
/// not a client.
pub const CHUNK_LOCK_MS: u64 = 300;

/// How long everything else that writes waits, in milliseconds: what waits for a strong lock holds up everybody behind it.
pub const ONCE_LOCK_MS: u64 = 2_000;

/// How long to wait for a client's row where rows are emptied one after the other, in milliseconds: under `deadlock_timeout`.
pub const ROW_LOCK_MS: u64 = 300;

/// How long whoever has no bound over all waits for a single lock, in milliseconds: what is locked at this moment is passed by, and
/// comes again.
pub const SHORT_LOCK_MS: u64 = 10;

/// How long the shortest try waits for each of several locks, in milliseconds: where clients come both ways all the time only a try
/// that hardly waits meets a moment in which nobody is in between.
pub const SHORTEST_TRY_MS: u64 = 10;

/// How long the longest one does, in milliseconds: it holds clients up as long, and theirs may be long transactions.
pub const LONGEST_TRY_MS: u64 = 150;

/// How long all of them are waited for in one try, in milliseconds: whoever comes the other way round may have queued up behind us since
/// the first, and the server takes a second until it looks for deadlocks.
pub const WHOLE_TRY_MS: u64 = 750;

/// For how long several locks are tried for in one transaction, in milliseconds: more patience is the engine's, which writes down each
/// attempt.
pub const TRIED_FOR_MS: u64 = 3_000;

/// The rests between, in milliseconds: no two alike, so that they don't fall in step with clients.
pub const RESTS_MS: [u64; 5] = [5, 17, 8, 11, 23];

/// How long further locks of the same transaction are waited for, in milliseconds: clients are kept out by those that it has.
pub const FURTHER_LOCK_MS: u64 = 300;

/// The shortest and the longest time between two looks at what a session waits for, in milliseconds. Each look holds up the lock manager
/// for a moment, and two should fall into every wait that is long enough to fail.
pub const WAIT_LOOK_EVERY_MS: (u64, u64) = (60, 1_000);

/// How long one look at a wait may take. The server answers from memory.
pub const WAIT_LOOK_WITHIN: Duration = Duration::from_secs(2);

/// How long older views are waited for in one attempt, in milliseconds, unless the step says how long it waits for locks: as long as for
/// a lock. Nothing is held meanwhile.
pub const VIEWS_WITHIN_MS: u64 = 2_000;

/// The first and the longest rest between two looks at them, in milliseconds: most views are those of short statements.
pub const VIEWS_REST_MS: (u64, u64) = (10, 200);

// Chunks.

/// How many bytes of the source the rows of a chunk may take, as they are stored; one row may take more. So much is written,
/// logged and sent to replicas at once, whatever the time that it takes.
pub const CHUNK_BYTES_MAX: u64 = 16 << 20;

/// How many rows tell how many bytes the next ones take: they are read once more for it, so they are few.
pub const WEIGHED_ROWS: u32 = 64;

/// How many chunks in a row are inserted with `ON CONFLICT` at most before another is tried without: clients that were in the way may
/// have gone, and it costs half as much again.
pub const CAREFUL_MAX: u32 = 16;

/// How often noted keys are put right for a row that can't be copied before its chunk is left for later: clients may note more
/// meanwhile.
pub const CLEARINGS_MAX: u32 = 5;

// Keys that triggers could only note.

/// Notes put right in one transaction: their rows are locked meanwhile.
pub const BATCH_NOTES: u32 = 500;

/// The same where it takes many tries to find out which can't be: each try is a savepoint, and locks are held throughout.
pub const THOROUGH_NOTES: u32 = 100;

/// Notes that belong together may be many more. To lock so many rows takes longer than anybody waits for them.
pub const MANY_NOTES: usize = 2_000;

/// Keys that are put right at once where they are in each other's way, and kept in mind at most: they are in memory.
pub const STUCK_MAX: usize = 10_000;

/// How often what was refused is tried again in one batch, while that frees some: chains of keys that wait for each other are short.
pub const PASSES_MAX: u32 = 10;

/// Noted keys that are looked at while clients are kept out: they wait for it.
pub const NOTES_UNDER_LOCK_MAX: u64 = 1_000;

/// How often noted keys are put right before it is given up: clients may note more meanwhile, and some never stop.
pub const SETTLED_MAX: u32 = 5;

/// How many copies are given their keys by what is sent at once: a script, which the server has in memory as a whole.
pub const MOVED_AT_ONCE: usize = 1_000;

// Going back, and putting aside.

/// Rows emptied in one transaction: some 50 ms of work.
pub const EMPTIED_AT_ONCE: u32 = 2_000;

/// How often rows are tried one after the other while clients hold them. Then the step is tried again as a whole.
pub const EMPTYING_TRIES_MAX: u32 = 20;

/// How often the new side is walked at most to be emptied: what comes behind a walk is a client's that goes on writing there.
pub const EMPTYING_WALKS_MAX: u32 = 3;

/// How often one attempt at a `retire` tries to find nothing noted: whether clients note a key just then is a matter of luck.
pub const RETIRE_TRIES_MAX: u32 = 4;

/// Up to what size of the table of notes, in bytes, SERIALIZABLE clients note every row: to look first would have them fail each other,
/// and a table may not grow with what they write.
pub const BLIND_NOTES_BYTES: u32 = 65_536;

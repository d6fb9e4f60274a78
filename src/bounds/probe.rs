//! A look at a database before a run: how much of it is read, and from when on what is found is worth a warning.

use std::time::Duration;

/// How many rows are read at most to guess how long a copy takes. A tenth of a second on any server; enough that the round trip
/// doesn't count.
pub const SAMPLE_ROWS: u32 = 5_000;

/// Up to how many bytes of a table PostgreSQL counts its rows for a look: a few milliseconds of reading. Of a larger one statistics tell.
pub const POSTGRES_COUNTED_BYTES_MAX: u64 = 4 << 20;

/// Up to how many rows an estimate of PostgreSQL counts exactly: some hundredths of a second.
pub const POSTGRES_COUNTED_ROWS_MAX: u64 = 100_000;

/// How long a statement of a look at a plan's tables may take in PostgreSQL, in milliseconds: one that would take long is given up.
pub const POSTGRES_STATEMENT_WITHIN_MS: u64 = 10_000;

/// How long it waits for a lock there, in milliseconds: it changes nothing, so it stands in nobody's way for longer.
pub const POSTGRES_LOCK_WAIT_MS: u64 = 1_000;

/// How many names of tables a suggestion for a plan's is looked for among: what a catalogue has in a look, and not worth more.
pub const NAMES_MAX: i64 = 10_000;

/// How many names of tables or columns a suggestion for a statement that failed is looked for among: the step has failed, and people
/// wait for why.
pub const NAMES_OF_HINTS_MAX: i64 = 5_000;

/// The longest that a whole look at a SQLite file may take: a dry run is read by people who wait for it.
pub const SQLITE_LOOK_WITHIN: Duration = Duration::from_secs(10);

/// Up to which size of the file the pages of single tables are counted, which reads every one of them.
pub const SQLITE_COUNTED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Up to how many rows an estimate of SQLite counts exactly: well under a second.
pub const SQLITE_COUNTED_ROWS_MAX: u64 = 1_000_000;

/// From which age on, in milliseconds, a transaction is worth a warning: longer than any lock is waited for.
pub const OLD_TRANSACTION_MS: u64 = 60_000;

/// How many connections a server should have left for a run: one for steps, one for questions, and some workers.
pub const CONNECTIONS_MIN: u32 = 6;

//! The state store: connections, waits, and what is read of it at once.
//!
//! Whoever drives a run has to hear of a store that is gone before its lease lapses ([`LEASE_TTL_MS`](super::engine::LEASE_TTL_MS)),
//! so what is waited for here stays under that.

use std::time::Duration;

/// Records of a journal read at once, which bounds memory while a long one is replayed, exported or listed.
pub const PAGE_RECORDS: u32 = 500;

/// How long a store may take over a call. Shorter than a lease lasts, so that whoever drives a run hears that its store is mute before
/// others may have the run; longer than a store's own waits (10 s for a connection, 5 s for a lock), which say more of the cause.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(12);

/// How long an import may take: it is one transaction, however many records there are. A journal has some hundreds, so this is only there
/// for a store that doesn't answer at all.
pub const IMPORTED_WITHIN: Duration = Duration::from_mins(10);

/// Connections of one process to a store in PostgreSQL: its driver's appends, renewals, polls and progress, and one to spare.
pub const POSTGRES_CONNECTIONS_MAX: u32 = 4;

/// How long to wait for a connection to it. Under the lease's time to live, so that a driver can still give up in order.
pub const POSTGRES_CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long a statement may take while a store there is opened or only read. Longer than the server's own limit: a server that is merely
/// slow says so itself, and one that says nothing must not keep whoever asks.
pub const POSTGRES_STATEMENT_ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// How long the schema there may take to be made: a few statements, each as long as that.
pub const POSTGRES_MIGRATED_WITHIN: Duration = Duration::from_mins(1);

/// How long a connection of the pool may take to show that it still leads to a server. One that doesn't is replaced within the same call,
/// so it is well under that call's limit.
pub const POSTGRES_PINGED_WITHIN: Duration = Duration::from_secs(3);

/// How long a statement waits for a lock there, in milliseconds: a third of the lease's time to live, so that a renewal can be tried
/// again.
pub const POSTGRES_LOCK_WAIT_MS: u64 = 5_000;

/// How long a statement may take there, in milliseconds: as long as a lease lasts, after which its outcome helps nobody.
pub const POSTGRES_STATEMENT_WITHIN_MS: u64 = 15_000;

/// How long a transaction may stand idle there, in milliseconds: a stopped process must not hold its locks for ever.
pub const POSTGRES_IDLE_IN_TRANSACTION_MS: u64 = 10_000;

/// How often the server looks, while a statement runs, whether we are still there, in milliseconds.
pub const POSTGRES_CONNECTION_CHECK_MS: u64 = 5_000;

/// How long to wait for the session that shows that a driver is alive. With what else a renewal takes it stays well under the time
/// that a lease lasts.
pub const POSTGRES_SHOWN_WITHIN: Duration = Duration::from_secs(3);

/// Connections that read a store in SQLite. Commands read one page after another; a second reader is a driver's poll.
pub const SQLITE_READERS_MAX: u32 = 2;

/// How long a statement waits for another process's lock. A third of the lease's time to live: a driver that waited
/// longer would be about to lose its lease anyway.
pub const SQLITE_BUSY_WAIT: Duration = Duration::from_secs(5);

/// How long a connection that reads is waited for: as long as whoever has it may wait for a lock, and as long again for its reading.
pub const SQLITE_READER_WITHIN: Duration = SQLITE_BUSY_WAIT.saturating_mul(2);

/// Up to this size the whole file is checked on opening (a few milliseconds). Beyond it only what is read is checked, by
/// SQLite and by the chain.
pub const SQLITE_QUICK_CHECK_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How often the change to WAL is tried: SQLite does not wait for locks there by itself. With the rests between, as long as it waits
/// for others.
pub const SQLITE_WAL_TRIES: u32 = 50;

/// The rest between those tries: who holds the lock opens the file at the same moment, and is done soon.
pub const SQLITE_WAL_REST: Duration = Duration::from_millis(100);

/// How far in the future a lease may lapse, in milliseconds. They are taken for seconds; one that holds for longer than this would keep
/// everybody from its run.
pub const LAPSES_WITHIN_MS: u64 = 3_600_000;

/// The highest token that an export may name: far above what any run comes to, and far below where numbers end.
pub const TOKEN_MAX: u64 = 1 << 48;

/// How far above the tokens of another store's relays those of this one begin. A relay of the other that had begun again since
/// its run was exported has a token above the exported one; it would have to begin this often to come up to ours.
pub const RELAYS_ABOVE: u64 = 1 << 20;

/// The largest export that is read, in bytes. A journal of a thousand records is about a mebibyte.
pub const IMPORT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

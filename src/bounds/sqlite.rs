//! SQLite as a target: one writer, whose clients look for the lock after pauses of their own.

use std::time::Duration;

/// Workers of a copy: one, since SQLite has one writer.
pub const COPY_WORKERS: u32 = 1;

/// How long a plan may say that a chunk takes, in milliseconds. A write transaction locks out every other writer of the file, so clients
/// wait for as long.
pub const CHUNK_TIME_MAX_MS: u64 = 50;

/// How long a chunk or a reader waits for another connection's lock. So that we yield and not a client.
pub const BUSY_TIMEOUT: Duration = Duration::from_millis(300);

/// How long everything else that writes waits: it is done once, and while it waits it holds up nobody.
pub const ONCE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections that read at once. Each costs a thread and a page cache of 2 MiB at most.
pub const READERS_MAX: usize = 4;

/// The writer's page cache. A chunk's pages are looked at when its end is found, counted, copied and written: kept at hand
/// they are read once, and none is written (which takes a lock that readers feel) before COMMIT.
pub const WRITER_CACHE_KIB: u32 = 24 * 1024;

/// How many instructions of SQLite's machine run between two looks at the switch. About 50 µs; its cost can't be measured.
pub const STEPS_BETWEEN_LOOKS: i32 = 2_000;

/// The rest after each transaction while clients write, in milliseconds: the longest pause of a client in its first 128 ms of waiting.
pub const REST_MS: u64 = 25;

/// How long ago a client wrote for it to be expected to write again, in milliseconds: as long as a client's driver waits before it
/// gives up.
pub const EXPECTED_MS: u64 = 5_000;

/// The rest after a time without any, in milliseconds: the longest pause of a client at all.
pub const LONG_REST_MS: u64 = 100;

/// That time, in milliseconds. A client that has not been seen to write waits so long at most, once; a copy alone loses a twentieth.
pub const STREAK_MS: u64 = 2_000;

/// Rows emptied in one transaction when going back: some 50 ms of work.
pub const EMPTIED_AT_ONCE: u32 = 10_000;

/// How many shapes of mappings are kept: more mappings than a plan works on at once.
pub const SHAPES_MAX: usize = 8;

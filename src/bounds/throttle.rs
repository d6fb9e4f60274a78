//! What holds a copy back: when it lets go, when what was read is too old, and how long an answer may take.

use std::time::Duration;

/// Samples in a row that must be calm before what was shut lets go: one calm moment between two busy ones is none.
pub const CALM_SAMPLES: u32 = 3;

/// The share of the limit at which a sample is calm: a signal that hovers at its limit would open and shut all the time.
pub const CALM_AT: f64 = 0.8;

/// The last sample is too old when it is older than so many of its periods: one or two may fail …
pub const STALE_AFTER_PERIODS: u64 = 3;

/// … and than this, in milliseconds: periods may be shorter than an answer takes.
pub const STALE_AFTER_MS: u64 = 5_000;

/// How long an answer of a database may take, in milliseconds: after that it would be too old anyway.
pub const ANSWER_WITHIN_MS: u64 = STALE_AFTER_MS;

/// How long an answer of a web server may take in all: it is asked again soon, and a slow one tells nothing of now.
pub const HTTP_ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How much of such an answer is read, in bytes: a number is short.
pub const HTTP_ANSWER_BYTES_MAX: u64 = 1_024;

/// How often a copy that is held back looks whether it may go on, in milliseconds: often enough that nobody waits for it, and
/// that those who look see since when.
pub const LOOK_EVERY_MS: u64 = 250;

/// How often a replica whose lag isn't known yet is looked at again: one that replays reports in a moment, and with the waits before
/// them these looks take half a second, well within what an answer may take.
pub const REPLICA_LOOKS: u32 = 5;

/// How long is waited before each of these looks.
pub const REPLICA_LOOK_EVERY: Duration = Duration::from_millis(100);

/// Positions of the log that are remembered at most: beyond that every second one is forgotten, so that those left reach as far back.
pub const POSITIONS_MAX: usize = 512;

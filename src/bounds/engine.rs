//! The loop: leases, how often it looks, how long it waits for an answer, and how long what it knows counts.

use std::time::Duration;

/// How long a lease lasts without renewal, in milliseconds: as long a run stands still when the process that drives it dies.
pub const LEASE_TTL_MS: u64 = 15_000;

/// How often it is renewed, in milliseconds: a third of that, so that two renewals may fail.
pub const LEASE_RENEW_EVERY_MS: u64 = 5_000;

/// How often other terminals' records are looked for, in milliseconds: once in the time that a chunk usually takes.
pub const LOOK_EVERY_MS: u64 = 100;

/// How often a shut gate's conditions are read while waiting for it, in milliseconds: people wait for it, and each look asks databases.
pub const GATE_PROBE_EVERY_MS: u64 = 1_000;

/// Progress reports kept while the loop is busy; more are lost, and the next one says the same better.
pub const PROGRESS_QUEUE: usize = 64;

/// How often progress is written to the store for other terminals, in milliseconds: they look no more often than once a second, and
/// each is a write.
pub const WRITE_PROGRESS_EVERY_MS: u64 = 500;

/// How long a call is made again while the database is busy, in milliseconds: longer than most transactions, and far shorter than a
/// step's own retries, each of which is in the journal.
pub const BUSY_FOR_MS: u64 = 10_000;

/// The first wait between such calls, in milliseconds. Short: what others hold a lock for is a transaction of theirs.
pub const BUSY_FIRST_WAIT_MS: u64 = 50;

/// The longest of these waits, in milliseconds: a lock that is free again is noticed as soon.
pub const BUSY_LONGEST_WAIT_MS: u64 = 500;

/// How long a database may take over anything that is no step, in milliseconds. Steps have timeouts of their own; without this one that
/// hangs would keep the run for ever.
pub const ANSWER_WITHIN_MS: u64 = 120_000;

/// How long it may take over what a gate asks, in milliseconds: it is asked again a second later.
pub const PROBE_WITHIN_MS: u64 = 30_000;

/// How long after a table was put aside its counters are read for the first time, in milliseconds. Connections report what
/// they did with a delay (PostgreSQL's idle ones after 10 s); what they did before would otherwise look like a use since,
/// found days later, when the time has to begin again.
pub const COUNTERS_SETTLED_AFTER_MS: u64 = 12_000;

/// How often an application's probe is asked at most while it must hold, in milliseconds: ten times in that time, but asking has to
/// leave the application room.
pub const HOLD_EVERY_MIN_MS: u64 = 50;

/// And how often at least, in milliseconds: a break in between must be seen.
pub const HOLD_EVERY_MAX_MS: u64 = 1_000;

/// How long after it was told to end now an attempt may take, in milliseconds: for the database to hear of it.
pub const GRACE_MS: u64 = 5_000;

/// How often each database is asked whether it answers while a step works on it: so often that a server which hangs is known within a
/// minute.
pub const PULSE_EVERY: Duration = Duration::from_secs(15);

/// How long an answer to that may take: a connection may have to be made first, which a driver gives 10 s.
pub const PULSE_WITHIN: Duration = Duration::from_secs(15);

/// How many answers in a row may be missing: one goes missing where a server is restarted.
pub const PULSES_MISSED_MAX: u32 = 2;

/// How many days ahead a window's next change is looked for: beyond that nobody plans.
pub const WINDOW_DAYS_AHEAD: u64 = 3_660;

/// How long the conditions that a permit was made from count, in milliseconds. An attempt is performed at once after it is
/// recorded; one that is found later was left behind, and its conditions are judged again.
pub const PERMIT_LASTS_MS: u64 = 5_000;

/// What must be left of the time that evidence counts when its comparison has ended, at most, in milliseconds: time to use it, in which
/// a gate is probed and a step begun some times over.
pub const EVIDENCE_TIME_TO_USE_MS: u64 = 10_000;

/// The shortest time between two records of counters that keep moving, in milliseconds: a journal must not grow with the
/// patience of whoever waits.
pub const USAGE_RECORDED_EVERY_MS: u64 = 60_000;

/// How long the store may take over what it is told last, when that changes nothing of what the drive came to: far more than a store takes
/// that answers at all.
pub const LAST_WORDS_WITHIN: Duration = Duration::from_secs(3);

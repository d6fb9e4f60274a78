//! Carrying changes from an outbox into another database: how many at once, how often is looked, and how long is waited for whom.

use std::time::Duration;

/// Changes that are carried at once: enough that round trips don't count, and one transaction of the graph.
pub const CHANGES_AT_ONCE: u32 = 5_000;

/// How many bytes of images a claim gives at most, as they are in memory on the server; one change may take more. Two claims are in
/// memory here at a time.
pub const CLAIM_BYTES_MAX: u64 = 16 << 20;

/// How often an empty outbox is looked at, and how long is rested where locks are in the way: so long a change waits at most before it
/// is seen.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often the journal is read for mappings that came or went, in milliseconds: steps wait for the relay to learn of theirs.
pub const LEARN_EVERY_MS: u64 = 500;

/// How long a database may take over what a relay asks, in milliseconds. Far more than a batch takes: what was given up begins anew.
pub const DONE_WITHIN_MS: u64 = 600_000;

/// How long a relay waits while another has its lease: when that one ends, changes go on as soon.
pub const HELD_FOR: Duration = Duration::from_secs(1);

/// How long a relay waits at least where a database doesn't permit what it does: people have to mend that, and a server that is given a
/// wrong password again and again lets nobody of that name in.
pub const REFUSED_FOR: Duration = Duration::from_secs(30);

/// The first wait of a relay while a database is busy or away, in milliseconds: most often it is busy for a moment.
pub const FIRST_WAIT_MS: u64 = 50;

/// The longest of these waits, in milliseconds: a database that is back is noticed as soon, and one that is away isn't pestered.
pub const LONGEST_WAIT_MS: u64 = 5_000;

/// How often a change may be refused before it is parked: what only came a moment too early is taken the next time.
pub const REFUSED_MAX: u32 = 3;

/// How many changes, one behind the other, the server may fail to take for reasons of its own before it is let be for a while: then the
/// server is in trouble, and not a change.
pub const FAILED_MAX: u32 = 3;

/// For how long changes and mappings are let be that failed alone, in milliseconds: everything else goes on meanwhile.
pub const ASIDE_FOR_MS: u64 = 5_000;

/// How long what a relay has in hand may take when it is to stop: a server that doesn't answer must not keep a command.
pub const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// How often is written down what was carried, in milliseconds: each is a write to the store, and people look no more often.
pub const TELL_EVERY_MS: u64 = 1_000;

/// From which part of an outbox's limit on it is said, in percent: there is time left to do something about it.
pub const NEAR_PERCENT: u64 = 80;

/// Up to how many changes are counted that wait: some tenths of a second.
pub const COUNTED_MAX: u64 = 1_000_000;

/// The same for a throttle, whose limit may be beyond that.
pub const COUNTED_FOR_THROTTLE_MAX: u64 = 10_000_000;

/// How long a call of a step waits for changes to be applied, in milliseconds; then the step is tried again, which the journal shows.
pub const DRAINED_WITHIN_MS: u64 = 30_000;

/// How often it looks: a change takes about that long to be carried.
pub const DRAINED_LOOK_EVERY: Duration = Duration::from_millis(25);

/// How long clients' open transactions are waited for where a change is entered for a key without a row, in milliseconds; nothing of
/// theirs is locked meanwhile. Then it is tried again as a whole.
pub const WRITERS_WITHIN_MS: u64 = 2_000;

/// How often it is seen whether they are over: they are clients' transactions, and most are short.
pub const WRITERS_LOOK_EVERY: Duration = Duration::from_millis(20);

/// The longest id, in bytes, that sessions are called by as it is. That is how long ids of runs are, and leaves 16 of the 63 bytes of a
/// session's name to the token.
pub const CALLED_BYTES_MAX: usize = 36;

/// How many digits of a digest stand for a longer one: with the word before them they are shorter than an id, and no two alike.
pub const CALLED_DIGITS: usize = 24;

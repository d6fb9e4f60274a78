//! Neo4j: it has no limit of its own on waits for locks, and ends a transaction only when it comes to look whether it should.

use std::time::Duration;

/// Workers of a copy: more wait for each other's nodes.
pub const COPY_WORKERS: u32 = 4;

/// How long a connection may take to be there, encryption and greeting included: a server that takes longer isn't well.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long the library waits for an answer: statements may take long, and the step's own `timeout` ends them.
pub const ANSWER_WITHIN: Duration = Duration::from_hours(7 * 24);

/// Connections that are kept for later: as many as a run uses again and again; those beyond are closed.
pub const IDLE_MAX: usize = 8;

/// Rows that are asked for at once, which bounds what of an answer is in memory before it is read.
pub const FETCH_ROWS: usize = 2_000;

/// What is removed, read or marked in one transaction: the server keeps all of a transaction in memory.
pub const BATCH: u32 = 5_000;

/// How long transactions of an earlier runner that were ended may take to be gone, in milliseconds: the server comes to look when it
/// can. Then the step fails and is tried again.
pub const GONE_WITHIN_MS: u64 = 30_000;

/// How often they are looked for: most are gone at once.
pub const GONE_LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long another run may take to enter or to leave: its constraints are made meanwhile.
pub const ALONE_WITHIN: Duration = Duration::from_secs(30);

/// How long transactions that had begun before may take to end, in one attempt, in milliseconds. They are clients', and the next attempt
/// goes on waiting.
pub const DRAINED_WITHIN_MS: u64 = 60_000;

/// How often they are looked for: each look lists all transactions of the server.
pub const DRAINED_LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many pages of nodes may be written at once. One block of workers has slots one behind the other.
pub const TURNS: u32 = 8;

/// How long a turn may be waited for: it is held for as long as a page or some changes take.
pub const TURN_WITHIN: Duration = Duration::from_secs(10);

/// The longest key, in bytes, that is written as it is: indexes have no room for texts of any length.
pub const PLAIN_KEY_BYTES_MAX: usize = 400;

/// How long our own constraints are waited for, in seconds: there is next to nothing under them.
pub const OURS_ONLINE_WITHIN_S: i64 = 60;

/// How long a plan's indexes may take to be online, in seconds: the step's own `timeout` ends it earlier.
pub const ONLINE_WITHIN_S: i64 = 7 * 24 * 3600;

/// How long the index of a constraint of ours may be there without it before it is nobody's, in milliseconds: whoever makes the
/// constraint has it in a moment.
pub const LEFT_AFTER_MS: u64 = 10_000;

/// How often is looked whether it has gone: each look tries to make the constraint.
pub const LEFT_LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often what has come meanwhile is removed, too, before that is given up: clients that never stop have to be stopped first.
pub const RETIRE_ROUNDS_MAX: u32 = 10;

/// How long a chunk may look for its rows and lock them before it is asked what it waits for: the server has no limit of its own, and
/// clients wait for what it has locked so far.
pub const LOCKED_WITHIN: Duration = Duration::from_secs(2);

/// How often it is looked, from then on, whether it waits for a lock. Twice in a row is one wait, and not many short ones.
pub const LOCKED_LOOK_EVERY: Duration = Duration::from_millis(200);

/// How many relationships of one node a chunk has at least, if there are so many and nobody says otherwise: each chunk goes through
/// all of them, so that fewer take as long.
pub const OF_ONE_NODE_MIN: u32 = 2_000;

/// How often keys that look wrong are looked at: of a node that somebody removes meanwhile the server shows the label and no property
/// any more.
pub const KEY_LOOKS: u32 = 5;

/// How long is waited before each of these looks: as long as it takes to remove a node.
pub const KEY_LOOK_EVERY: Duration = Duration::from_millis(50);

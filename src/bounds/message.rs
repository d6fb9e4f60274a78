//! How much of something is named or shown in a message, a table or a record, and how often a wait is told of.
//!
//! What is left out is counted wherever people could take the rest for all of it.

use std::time::Duration;

/// How alike two names must be to be taken for a slip: 0 is nothing in common, 1 the same. At 0.8 `emial` still finds
/// `email` and `id` finds nothing.
pub const LIKENESS_MIN: f64 = 0.8;

/// How like two words of a plan must be, on the same scale, before one is offered for the other. A little less than names in a
/// database, since keys of a plan are few and known, and a wrong offer does no harm.
pub const WORD_LIKENESS_MIN: f64 = 0.78;

/// The most known names that a message lists where none is alike: what fits on a line or two.
pub const NAMES_LISTED_MAX: usize = 12;

/// The most candidates that are compared: a suggestion isn't worth more.
pub const NAMES_COMPARED_MAX: usize = 1_000;

/// How much of what somebody wrote in a plan a message repeats, in characters: enough to find it again on its line.
pub const WRITTEN_CHARS_MAX: usize = 40;

/// The longest line of a file that is shown, in bytes; of longer ones only the place is named. Nobody finds a caret in them.
pub const LINE_BYTES_MAX: usize = 500;

/// How much of a statement an error shows, in characters: enough to tell it from its neighbours in the same line of a message.
pub const STATEMENT_CHARS_MAX: usize = 60;

/// How much of a value is shown that a way back doesn't lead back to, in characters: it stands in the middle of a sentence.
pub const TRIED_VALUE_CHARS_MAX: u32 = 60;

/// How much of a value goes into a log, in characters: never longer than a line.
pub const LOGGED_VALUE_CHARS_MAX: usize = 120;

/// How many characters of a value are kept of a difference; its length is said where there are more. They stand in the journal.
pub const VALUE_CHARS_MAX: usize = 64;

/// Of how many columns of a row values are kept, which bounds what one difference may take in a journal.
pub const VALUES_MAX: usize = 16;

/// How many keys a sentence names: enough to look some of them up, and short enough to be read.
pub const KEYS_SAID_MAX: usize = 5;

/// How many differences are kept to be shown; all are counted. They stand in the journal as evidence.
pub const SAMPLES_MAX: usize = 20;

/// Differences that `status` shows of each verify; the rest is counted, and the journal has those that were kept.
pub const SAMPLES_SHOWN: usize = 5;

/// How long a kept reason of a row or change that was refused may be, in characters; the rest of one that is longer is left out. There
/// may be as many reasons as parked rows.
pub const REASON_CHARS_MAX: u32 = 1_000;

/// Parked rows that the evidence of a comparison names; the rest is counted. As many as differences are kept.
pub const PARKED_NAMED_MAX: u32 = 20;

/// Parked rows that `status` lists of each mapping; the rest is counted. As many as may be parked unless a plan says otherwise.
pub const PARKED_LISTED_MAX: u32 = 1_000;

/// How many steps are named of which a database has nothing any more: enough to see how far back it went; the rest is counted.
pub const STEPS_NAMED_MAX: usize = 5;

/// How many objects of a database a dry run names before the rest is only counted.
pub const OBJECTS_NAMED_MAX: usize = 8;

/// Keys that an error names which could not be put right: enough to look at what is in their way.
pub const STUCK_KEYS_NAMED_MAX: usize = 3;

/// How many of those sessions are named whose older views are waited for: the oldest are what somebody has to end first.
pub const VIEWERS_NAMED_MAX: usize = 3;

/// Relationships without a node that are named, by their number: enough to see what they have in common.
pub const UNTIED_NAMED_MAX: i64 = 5;

/// Duplicate keys of nodes that are named: enough to see what they have in common.
pub const DUPLICATES_NAMED_MAX: i64 = 5;

/// Labels that are named which nodes of the old side have besides: those of the most nodes say what they are.
pub const LABELS_NAMED_MAX: u32 = 3;

/// Other labels, or types of relationships, that are looked up where one is enough to refuse a removal. The first is named.
pub const OTHERS_LOOKED_UP_MAX: u32 = 5;

/// Characters of other sessions' queries that a look at a server keeps: they are told one from another, and never repeated whole.
pub const QUERY_CHARS_MAX: usize = 200;

/// How many sessions or transactions of others a look at a server tells of: the oldest, of which the first few matter.
pub const SESSIONS_MAX: i64 = 50;

/// From how many milliseconds on a transaction is a long one, and worth to be told of: longer than any lock is waited for.
pub const LONG_TRANSACTION_MS: i64 = 60_000;

/// How many lines of a query's plan are shown: those at its top say which index is walked.
pub const PLAN_LINES_MAX: usize = 10;

/// How much of the query is shown that holds a lock, in characters: it stands in one line with who holds it and since when.
pub const BLOCKER_QUERY_CHARS_MAX: usize = 120;

/// How many sessions are named that hold a lock: those with the oldest transactions, which have to end first.
pub const BLOCKERS_NAMED_MAX: i64 = 3;

/// How long a wait for a lock lasts before it is said while it lasts, in milliseconds: longer than transactions of ours wait unless a
/// step says otherwise, because the error that ends those says it.
pub const LOCK_SAID_AFTER_MS: u64 = 3_000;

/// How long a chunk, or planning, has to be kept from its locks to be worth a word, in milliseconds: that it yields now and then is
/// as it should be.
pub const YIELDS_SAID_AFTER_MS: u64 = 5_000;

/// How often a wait that goes on is said again, in milliseconds: so that a log shows that it does, and isn't filled by it.
pub const SAID_AGAIN_EVERY_MS: u64 = 30_000;

/// Lines of what SQLite says of a damaged file at most; the first tell what kind of damage it is. The statement that asks for them has
/// the same number.
pub const DAMAGE_LINES_MAX: usize = 20;

/// Between two lines about one step, in microseconds. Often enough to see that something moves, rarely enough for a log.
pub const BETWEEN_LINES_US: u64 = 5_000_000;

/// How often a bar moves by itself, so that a long statement is seen to be alive.
pub const BAR_TICK: Duration = Duration::from_millis(120);

/// How much of a step's detail a table of `status` shows, in characters: what is left of a line beside the other columns.
pub const STATUS_DETAIL_CHARS_MAX: usize = 80;

/// How much of a step's detail the summary at the end of a run shows, in characters: less, since it has more columns.
pub const SUMMARY_DETAIL_CHARS_MAX: usize = 60;

/// How much of what a gate asks the list of steps shows, in characters: one line, indented.
pub const ASKED_CHARS_MAX: usize = 90;

/// The same inside a node of a drawn graph, which grows as wide as its longest line.
pub const ASKED_IN_NODE_CHARS_MAX: usize = 60;

/// The longest page in Markdown, in characters. GitHub's limit for a comment is 65,536; beyond this the details are left out, and the
/// page says so. Bytes are counted, of which a character has one or more.
pub const PAGE_CHARS_MAX: usize = 60_000;

//! Limits stand in `src/bounds`, each with its reason, and nowhere else.
//!
//! A number that product code declares is taken for a limit unless it is listed here with what it is instead. Of numbers that have no
//! name those are found that bound a wait or a queue.

use super::rules::test_files;
use super::rust::{Source, Token, without_tests};

/// What a number is that is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// How many of one thing another one has.
    Unit,
    /// The version or the mark of a format, or the oldest version of a server that is spoken to.
    Format,
    /// What a number stands for that somebody else, or a statement of ours, gives.
    Code,
    /// A parameter that a method works with.
    Algorithm,
    /// How wide something is laid out.
    Layout,
}

/// The numbers that stand outside `src/bounds`, by file.
const NO_LIMITS: &[(&str, Kind, &[&str])] = &[
    ("src/cli/answer.rs", Kind::Format, &["SCHEMA_VERSION"]),
    ("src/copy/row.rs", Kind::Unit, &["DAY_SECONDS", "SECOND_NANOS"]),
    (
        "src/copy/sizer.rs",
        Kind::Algorithm,
        &[
            "FAST_AT_START",
            "FAST_AGAIN",
            "DECAY",
            "FAST_STEP",
            "STEADY_SAMPLES",
            "STEADY_GROWTH",
            "FAR_OFF_SAMPLES",
            "FAR_BELOW",
            "FAR_ABOVE",
            "PANIC",
            "PANIC_STEP",
        ],
    ),
    ("src/diagnostic/render.rs", Kind::Layout, &["WIDTH_COLUMNS"]),
    ("src/driver/crossing/compare.rs", Kind::Code, &["OLD", "NEW"]),
    ("src/driver/neo4j/mod.rs", Kind::Format, &["OLDEST"]),
    ("src/driver/neo4j/values.rs", Kind::Unit, &["DAY_SECONDS", "SECOND_NANOS"]),
    ("src/driver/postgres/outbox/moments.rs", Kind::Unit, &["DAY_SECONDS", "SECOND_NANOS"]),
    ("src/driver/postgres/probe.rs", Kind::Code, &["FIRST_OID_OF_USERS"]),
    ("src/driver/postgres/sink.rs", Kind::Format, &["SETTINGS"]),
    (
        "src/driver/postgres/sync_sql.rs",
        Kind::Code,
        &["ROW", "BEFORE", "INSERT", "DELETE", "UPDATE", "TRUNCATE"],
    ),
    ("src/driver/postgres/version.rs", Kind::Format, &["OLDEST"]),
    ("src/driver/sqlite/error.rs", Kind::Code, &["PRIMARY", "EXTENDED"]),
    ("src/report/gates.rs", Kind::Layout, &["PAGE"]),
    ("src/report/layout.rs", Kind::Layout, &["WIDTH"]),
    ("src/report/table.rs", Kind::Layout, &["LEAST_ROOM"]),
    ("src/report/words.rs", Kind::Unit, &["SECOND", "MINUTE", "HOUR", "DAY"]),
    ("src/run/throttle.rs", Kind::Unit, &["SIZES"]),
    ("src/run/words.rs", Kind::Unit, &["UNITS"]),
    ("src/sql/expression.rs", Kind::Code, &["OF_TIME"]),
    ("src/store/export.rs", Kind::Format, &["FORMAT"]),
    (
        "src/store/sqlite/error.rs",
        Kind::Code,
        &[
            "ERROR",
            "PERM",
            "BUSY",
            "LOCKED",
            "READONLY",
            "CORRUPT",
            "FULL",
            "PROTOCOL",
            "SCHEMA",
            "CONSTRAINT",
            "MISMATCH",
            "NOTADB",
            "IOERR_DATA",
            "IOERR_CORRUPTFS",
            "IOERR_WRITE",
            "IOERR_FSYNC",
            "IOERR_DIR_FSYNC",
            "IOERR_TRUNCATE",
            "IOERR_SHMSIZE",
        ],
    ),
    ("src/store/sqlite/file.rs", Kind::Format, &["APPLICATION_ID"]),
    ("src/store/wire.rs", Kind::Format, &["FORMAT"]),
];

/// Types of numbers and times.
const NUMERIC: [&str; 15] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32",
    "f64", "Duration",
];

/// What makes a queue, or lets in so many at once.
const QUEUES: [&[&str]; 2] = [&["channel", "("], &["Semaphore", "::", "new", "("]];

/// Limits that stand elsewhere than in `src/bounds`, and those in it that don't say why.
pub fn scattered(sources: &[Source]) -> Vec<String> {
    let tests = test_files(sources);
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !tests.contains(&source.path)) {
        if source.room().as_deref() == Some("bounds") {
            found.extend(unexplained(source));
            continue;
        }
        let tokens = without_tests(&source.tokens()).tokens;
        let at = |line: usize| format!("{}:{line}", source.path);
        for (name, line) in numbers(&tokens) {
            if !exceptions(&source.path).any(|listed| listed == name) {
                found.push(format!("{}: {name} is a limit; it belongs in bounds", at(line)));
            }
        }
        for line in bare(&tokens) {
            found.push(format!("{}: a limit without a name", at(line)));
        }
    }
    found
}

/// Exceptions that no source has any more.
pub fn outdated(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, kind, names) in NO_LIMITS {
        let source = sources.iter().find(|source| source.path == *path);
        let there = source.map(|source| numbers(&without_tests(&source.tokens()).tokens));
        for name in *names {
            if !there.iter().flatten().any(|(known, _)| known == name) {
                found.push(format!("{path} has no {name} ({kind:?})"));
            }
        }
    }
    found
}

fn exceptions(path: &str) -> impl Iterator<Item = &'static str> {
    let of_file = NO_LIMITS.iter().filter(move |(known, _, _)| *known == path);
    of_file.flat_map(|(_, _, names)| names.iter().copied())
}

/// Constants of numbers and times, with their lines: `const NAME: u32 = …`.
fn numbers(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let is_declared = matches!(token.text.as_str(), "const" | "static")
            // No parameter of a type, as in `<const N: usize>`.
            && at.checked_sub(1).is_none_or(|before| !["<", ","].contains(&text(tokens, before)))
            && text(tokens, at + 2) == ":";
        if !is_declared {
            continue;
        }
        let of_type = tokens.iter().skip(at + 3).take_while(|token| token.text != "=");
        if of_type.into_iter().any(|token| NUMERIC.contains(&token.text.as_str())) {
            found.push((text(tokens, at + 1).to_owned(), token.line));
        }
    }
    found
}

/// Lines where a wait or a queue is given a number as it is: `Duration::from_secs(5)`, `channel(64)`, `wait_ms: 50`.
fn bare(tokens: &[Token]) -> Vec<usize> {
    let is_number = |at: usize| text(tokens, at).starts_with(|first: char| first.is_ascii_digit());
    let is =
        |at: usize, words: &[&str]| (at..).zip(words).all(|(at, word)| text(tokens, at) == *word);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let makes = text(tokens, at + 2);
        let is_time = is(at, &["Duration", "::"])
            && (makes == "new" || makes.starts_with("from_"))
            && text(tokens, at + 3) == "("
            && is_number(at + 4);
        let is_queue = QUEUES.iter().any(|words| is(at, words) && is_number(at + words.len()));
        let is_wait = token.text.ends_with("_ms")
            && text(tokens, at + 1) == ":"
            && is_number(at + 2)
            && text(tokens, at + 2) != "0";
        if is_time || is_queue || is_wait {
            found.push(token.line);
        }
    }
    found
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

/// Constants without a comment of their own.
fn unexplained(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut before = "";
    for (at, line) in source.text.lines().enumerate() {
        if line.starts_with("pub const ") && !before.starts_with("///") {
            found.push(format!("{}:{}: a limit without a reason", source.path, at + 1));
        }
        before = line;
    }
    found
}

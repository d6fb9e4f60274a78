//! The table of statements: a text file with a statement on a line, and beneath it, further in, what is said of it.

use std::fmt::Write as _;

use phasegate::run::Hazard;
use phasegate::sql::{Dialect, Object, classify};

/// Where the table is.
pub const FILE: &str = "tests/statements/postgres.txt";

/// A statement of the table.
pub struct Entry {
    /// As it stands there.
    pub statement: String,
    /// What is said of it, rendered.
    pub expected: String,
    /// Why no server is asked about it, where the table says so.
    pub not_asked: Option<String>,
}

/// A line of the table that isn't about a statement, or a statement.
pub enum Part {
    /// A heading or an empty line.
    Line(String),
    /// A statement.
    Entry(Entry),
}

/// Reads the table.
pub fn read(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("    ") {
            let Some(Part::Entry(entry)) = parts.last_mut() else {
                panic!("nothing stands above {line}")
            };
            match told.strip_prefix("not asked: ") {
                Some(why) => entry.not_asked = Some(why.to_owned()),
                None => {
                    entry.expected.push_str(told);
                    entry.expected.push('\n');
                }
            }
        } else if line.is_empty() || line.starts_with('#') {
            parts.push(Part::Line(line.to_owned()));
        } else {
            let entry =
                Entry { statement: line.to_owned(), expected: String::new(), not_asked: None };
            parts.push(Part::Entry(entry));
        }
    }
    parts
}

/// Writes the table anew, with what is said now.
pub fn write(parts: &[Part]) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Line(line) => out.push_str(line),
            Part::Entry(entry) => {
                out.push_str(&entry.statement);
                for line in told(&entry.statement).lines() {
                    write!(out, "\n    {line}").unwrap();
                }
                if let Some(why) = &entry.not_asked {
                    write!(out, "\n    not asked: {why}").unwrap();
                }
            }
        }
        out.push('\n');
    }
    out
}

/// What is said of a statement.
pub fn told(statement: &str) -> String {
    let facts = classify(Dialect::Postgres, statement);
    let mut out = match &facts.hazard {
        Hazard::None => "harmless\n".to_owned(),
        Hazard::Destructive(what) => format!("destructive: {what}\n"),
        Hazard::Unknown(why) => format!("unknown: {why}\n"),
    };
    let objects =
        |list: &[Object]| list.iter().map(Object::to_string).collect::<Vec<_>>().join(", ");
    for (what, list) in [
        ("creates", objects(&facts.creates)),
        ("ensures", objects(&facts.ensures)),
        ("drops", objects(&facts.drops)),
        ("writes over", objects(&facts.writes_columns)),
        ("tables", facts.tables.join(", ")),
    ] {
        if !list.is_empty() {
            writeln!(out, "{what}: {list}").unwrap();
        }
    }
    for change in &facts.changes {
        writeln!(out, "change: {change:?}").unwrap();
    }
    if let Some(why) = &facts.outside_transaction {
        writeln!(out, "outside: {why}").unwrap();
    }
    if let Some(complaint) = &facts.complaint {
        writeln!(out, "refused: {}", complaint.message).unwrap();
    }
    for lock in &facts.locks {
        writeln!(out, "locks: {} {:?}, {:?}: {}", lock.table, lock.mode, lock.work, lock.reason)
            .unwrap();
    }
    out
}

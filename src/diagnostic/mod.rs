//! What a user can fix: a code, a place, a sentence and what to do about it.
//!
//! Invariants: a diagnostic never holds a secret, a message is a sentence without its place, and help says what to write or
//! type. Codes are stable: a code is never given a new meaning, and each has a page that [`explain`] shows.
//!
//! Absent on purpose: printing. [`render()`] makes text; whoever calls it decides where that goes.

mod codes;
mod mask;
mod render;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use codes::{Code, all, code, explain};
pub use mask::{SECRET_NAMES, is_secret_name, masked};
pub use render::{Style, render, render_all};

/// The codes as constants, for those who report findings.
pub mod known {
    pub use super::codes::constants::*;
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It stops the command.
    Error,
    /// It is said, and the command goes on.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a file. Lines and columns count from 1, columns and length in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// The file as it was named.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
    /// How many characters it covers; 0 means to the end of the line.
    pub length: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnostic {
    /// What kind of finding.
    pub code: Code,
    /// How much it weighs.
    pub severity: Severity,
    /// Where. None when it concerns no place in a file.
    pub location: Option<Location>,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Other places that belong to it, each with what is there.
    pub related: Vec<(Location, String)>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            location: None,
            message: message.into(),
            help: None,
            related: Vec::new(),
        }
    }

    /// A warning without a place.
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// The same at a place.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// The same with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    /// One line, as editors and logs like it: `plan.yaml:3:5: error[P107]: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{}[{}]: {}", self.severity, self.code, self.message)
    }
}

/// A file's text, so that a finding can show the line it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file as it was named.
    pub path: Arc<str>,
    /// What was in it; bytes that are no UTF-8 are replaced.
    pub text: Arc<str>,
}

impl Source {
    /// A file and its text.
    pub fn new(path: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

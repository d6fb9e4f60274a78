//! Collects findings about one file, all of them, so that nothing is reported one at a time.

use std::sync::Arc;

use crate::bounds::document::FINDINGS_MAX;
use crate::diagnostic::{Code, Diagnostic, Location, Severity};

use super::node::Span;

/// The findings about one file so far.
#[derive(Debug)]
pub struct Reports {
    file: Arc<str>,
    diagnostics: Vec<Diagnostic>,
}

impl Reports {
    /// None yet.
    pub fn new(file: &Arc<str>) -> Self {
        Self { file: Arc::clone(file), diagnostics: Vec::new() }
    }

    /// A place in this file.
    pub fn location(&self, span: Span) -> Location {
        Location {
            file: Arc::clone(&self.file),
            line: span.line,
            column: span.column,
            length: span.length,
        }
    }

    /// An error; the result takes help and other places.
    pub fn error(&mut self, code: Code, span: Span, message: impl Into<String>) -> Added<'_> {
        let diagnostic = Diagnostic::error(code, message).at(self.location(span));
        self.add(diagnostic)
    }

    /// A warning; the result takes help and other places.
    pub fn warning(&mut self, code: Code, span: Span, message: impl Into<String>) -> Added<'_> {
        let diagnostic = Diagnostic::warning(code, message).at(self.location(span));
        self.add(diagnostic)
    }

    /// A finding made elsewhere.
    pub fn add(&mut self, diagnostic: Diagnostic) -> Added<'_> {
        if self.diagnostics.len() >= FINDINGS_MAX {
            self.diagnostics.truncate(FINDINGS_MAX - 1);
        }
        self.diagnostics.push(diagnostic);
        Added { reports: self }
    }

    /// How many of them stop the command.
    pub fn error_count(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// Whether any of them stops the command.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// All of them, in the order of the file, those without a place first.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by(|a, b| a.location.cmp(&b.location).then(a.code.cmp(&b.code)));
        self.diagnostics.dedup();
        self.diagnostics
    }
}

/// A finding just added, to be completed.
#[derive(Debug)]
pub struct Added<'a> {
    reports: &'a mut Reports,
}

impl Added<'_> {
    /// What to do about it.
    pub fn help(self, help: impl Into<String>) -> Self {
        if let Some(last) = self.reports.diagnostics.last_mut() {
            last.help = Some(help.into());
        }
        self
    }

    /// Another place that belongs to it.
    pub fn related(self, span: Span, what: impl Into<String>) -> Self {
        let location = self.reports.location(span);
        if let Some(last) = self.reports.diagnostics.last_mut() {
            last.related.push((location, what.into()));
        }
        self
    }
}

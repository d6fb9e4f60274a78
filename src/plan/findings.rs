//! Why a plan or project can't be used.

use std::path::Path;

use crate::diagnostic::{Diagnostic, Location, Source, known as codes};

use super::reports::Reports;
use super::secret::masked;

/// Everything that was found, with the files it was found in.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", summary(.diagnostics))]
pub struct Findings {
    /// The findings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The files, for showing their lines.
    pub sources: Vec<Source>,
    /// Whether the file itself could not be read, so that nothing can be said of what is in it.
    pub is_unreadable: bool,
}

impl Findings {
    /// A file that can't be read.
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let message = format!("{} can't be read: {error}", path.display());
        let diagnostic = Diagnostic::error(codes::UNREADABLE_FILE, message)
            .with_help("check the path and who may read it");
        Self { diagnostics: vec![diagnostic], sources: Vec::new(), is_unreadable: true }
    }

    /// What was found in a file.
    pub(super) fn found(reports: Reports, sources: Vec<Source>) -> Self {
        let diagnostics = reports.into_sorted();
        let sources = sources.into_iter().map(|source| presentable(source, &diagnostics)).collect();
        Self { diagnostics, sources, is_unreadable: false }
    }
}

/// A source whose lines may be shown: what looks like a secret is hidden, and so is every value that was found to hold one.
fn presentable(source: Source, diagnostics: &[Diagnostic]) -> Source {
    let mut text = masked(&source.text);
    let secrets = diagnostics
        .iter()
        .filter(|finding| finding.code == codes::LITERAL_SECRET)
        .filter_map(|finding| finding.location.as_ref())
        .filter(|location| location.file == source.path);
    for location in secrets {
        text = hidden(&text, location);
    }
    Source::new(source.path, text)
}

/// The text with the characters at a place replaced by asterisks.
fn hidden(text: &str, location: &Location) -> String {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        if number != location.line {
            lines.push(line.to_owned());
            continue;
        }
        let begin = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
        let length = usize::try_from(location.length).unwrap_or(usize::MAX);
        let end = if length == 0 { usize::MAX } else { begin.saturating_add(length) };
        let hide = |(at, c): (usize, char)| if at >= begin && at < end { '*' } else { c };
        lines.push(line.chars().enumerate().map(hide).collect());
    }
    lines.join("\n")
}

fn summary(diagnostics: &[Diagnostic]) -> String {
    match diagnostics {
        [] => "no findings".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

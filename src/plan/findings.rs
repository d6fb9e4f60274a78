//! Why a plan or project can't be used.

use std::path::Path;

use crate::diagnostic::{Diagnostic, Location, Source, known as codes};

use super::reports::Reports;

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

/// A source in which every value that was found to hold a secret is hidden. What only looks like one is hidden when it is shown.
fn presentable(source: Source, diagnostics: &[Diagnostic]) -> Source {
    let mut text = source.text.to_string();
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

/// The text with the value at a place replaced by asterisks, and with it the lines that it may go on in: a value of several
/// lines is told by its indent.
fn hidden(text: &str, location: &Location) -> String {
    let begin = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
    let length = usize::try_from(location.length).unwrap_or(usize::MAX);
    // A value of several lines has no length.
    let end = if length == 0 { usize::MAX } else { begin.saturating_add(length) };
    let mut lines = Vec::new();
    // The least indent at which a line still belongs to the value, once its first line was seen.
    let mut goes_on_at = None;
    for (number, line) in (1..).zip(text.split('\n')) {
        let indent = line.chars().take_while(|c| *c == ' ').count();
        let is_blank = line.trim().is_empty();
        if number == location.line {
            // A block begins on a line of its own, and all of it stands as deep; else the key stands before the value.
            let least = if indent == begin { indent } else { indent + 1 };
            goes_on_at = (length == 0).then_some(least);
            let hide = |(at, c): (usize, char)| if at >= begin && at < end { '*' } else { c };
            lines.push(line.chars().enumerate().map(hide).collect());
            continue;
        }
        match goes_on_at {
            Some(least) if is_blank || indent >= least => {
                lines.push(line.chars().map(|c| if c.is_whitespace() { c } else { '*' }).collect());
            }
            _ => {
                goes_on_at = None;
                lines.push(line.to_owned());
            }
        }
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

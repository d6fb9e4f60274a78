//! Why a plan or project can't be used.

use std::path::Path;

use crate::diagnostic::{Diagnostic, Source, known as codes};

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
        Self { diagnostics: reports.into_sorted(), sources, is_unreadable: false }
    }
}

fn summary(diagnostics: &[Diagnostic]) -> String {
    match diagnostics {
        [] => "no findings".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

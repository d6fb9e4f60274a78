//! The files that a plan refers to: read once, bounded, and part of its meaning.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::bounds::document::FILE_BYTES_MAX;
use crate::diagnostic::{Source, known as codes};

use super::node::At;
use super::reports::Reports;
use super::source::decode;

/// The files read so far.
#[derive(Debug)]
pub struct Files {
    base: PathBuf,
    read: BTreeMap<String, Option<Source>>,
}

impl Files {
    /// Files beside a plan.
    pub fn beside(plan: &Path) -> Self {
        let base = plan.parent().map(Path::to_path_buf).unwrap_or_default();
        Self { base, read: BTreeMap::new() }
    }

    /// A file's text, or a finding.
    pub fn text(&mut self, path: &At<String>, reports: &mut Reports) -> Option<Source> {
        if let Some(known) = self.read.get(&path.value) {
            return known.clone();
        }
        let source = self.load(path, reports);
        self.read.insert(path.value.clone(), source.clone());
        source
    }

    /// The files that could be read, for showing their lines.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.read.values().flatten()
    }

    /// The text of a file that was read before.
    pub fn known(&self, path: &str) -> Option<&Arc<str>> {
        self.read.get(path)?.as_ref().map(|source| &source.text)
    }

    fn load(&self, path: &At<String>, reports: &mut Reports) -> Option<Source> {
        let written = Path::new(&path.value);
        let is_inside = written.components().all(|part| {
            matches!(part, Component::Normal(_) | Component::CurDir | Component::ParentDir)
        });
        if !is_inside {
            let message = format!("`{}` is not relative to the plan", path.value);
            reports
                .error(codes::UNREADABLE_FILE, path.span, message)
                .help("put the file beside the plan, so that they are reviewed and kept together");
            return None;
        }
        let full = self.base.join(written);
        let bytes = match read_bounded(&full) {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = format!("the file `{}` can't be read: {error}", full.display());
                reports
                    .error(codes::UNREADABLE_FILE, path.span, message)
                    .help("files are looked up in the plan's folder");
                return None;
            }
        };
        let shown: Arc<str> = full.display().to_string().into();
        let mut own = Reports::new(&shown);
        match decode(bytes, &mut own) {
            Ok(text) => Some(Source::new(shown, text)),
            Err(_) => {
                for finding in own.into_sorted() {
                    let message =
                        format!("the file `{}` can't be used: {}", path.value, finding.message);
                    let help = finding.help.unwrap_or_default();
                    reports.error(finding.code, path.span, message).help(help);
                }
                None
            }
        }
    }
}

/// Reads a file, but never more than one byte above the limit: a plan may name a device that never ends.
pub fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    if std::fs::metadata(path)?.is_dir() {
        return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a folder"));
    }
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! The file that carries runs from one store to another: JSON lines, from a header to a trailer.
//!
//! - `{"kind":"export","format":1,…}`: which store, when, by which program.
//! - For each run `{"kind":"run",…}`: its row, its head, the tokens given for it; then each of its records,
//!   `{"kind":"record","version":…,"hash":…,"body":…}`, where the body is the text whose bytes are stored and hashed.
//! - `{"kind":"end","runs":…,"records":…,"digest":…}`: how many there are, and the SHA-256 of all bytes before this line.
//!
//! Invariants:
//! - [`write()`] takes histories only, so nothing damaged is carried on. [`read`] gives runs only when the whole file holds: the
//!   trailer, the chain and the replay of each run.
//! - A file that was cut, changed or added to shows. Whoever makes a new trailer and new chains can forge it all the same;
//!   the head kept in the targets is what that is held against.
//!
//! Absent on purpose: progress, which the ledger knows better, and leases, of which only the tokens go along.

use serde::{Deserialize, Serialize};

use crate::bounds::store::TOKEN_MAX;
use crate::run::{Digest, EnvironmentName, RunId, Timestamp};

use super::chain::{Flaw, Head, Stored};
use super::{Arrival, Claimant, History, Kept, RunHeader};

/// The newest format of exports that this program writes and reads.
pub const FORMAT: u64 = 1;

/// Where an export comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The store's identity.
    pub store: String,
    /// What people call the store; without secrets.
    pub location: String,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// Which program wrote it.
    pub program: String,
}

/// A run on its way.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Its journal.
    pub history: History,
    /// The newest token given for it and for each of its relays.
    pub tokens: Vec<(RunId, u64)>,
    /// Who was driving it while it was exported.
    pub driven_by: Option<Claimant>,
}

/// A whole export, checked.
#[derive(Clone, Debug)]
pub struct Export {
    /// Where it comes from.
    pub source: Source,
    /// Its runs.
    pub runs: Vec<Exported>,
}

impl Exported {
    /// The run as it arrives in another store.
    #[must_use]
    pub fn arrival(&self, source: &Source) -> Arrival {
        Arrival {
            history: self.history.clone(),
            store: source.store.clone(),
            tokens: self.tokens.clone(),
        }
    }
}

/// Why a file is no export that can be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It begins with something else.
    #[error("it is no export of a state store: it doesn't begin as one")]
    NotOne,
    /// It has a newer format.
    #[error(
        "it was written by a newer version of this program: it has format {0}, and this program knows formats up to {FORMAT}"
    )]
    Newer(u64),
    /// Its end is missing.
    #[error("its end is missing: it was cut short after line {0}")]
    Cut(usize),
    /// A line is not what was written.
    #[error("line {line} {how}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        how: String,
    },
    /// The digest is another.
    #[error("it was changed: its digest is not the one that its last line names")]
    Changed,
    /// A run in it doesn't hold.
    #[error("{}", .1.sentence(.0))]
    Run(RunId, Flaw),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Export { format: u64, store: String, location: String, at_ms: i64, program: String },
    Run(Box<RunLine>),
    Record { version: i64, hash: String, body: String },
    End { runs: usize, records: usize, digest: String },
}

#[derive(Serialize, Deserialize)]
struct RunLine {
    run: String,
    plan: String,
    environment: String,
    started_ms: i64,
    ended: bool,
    head_version: u64,
    head_hash: String,
    tokens: Vec<TokenLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    driven_by: Option<HolderLine>,
}

#[derive(Serialize, Deserialize)]
struct TokenLine {
    of: String,
    token: u64,
}

#[derive(Serialize, Deserialize)]
struct HolderLine {
    id: String,
    name: String,
    host: String,
    boot: String,
    pid: u32,
    pid_started: u64,
}

#[derive(Deserialize)]
struct Label {
    kind: String,
    format: u64,
}

/// The export of runs, as text. [`Error::Run`] for a record that is no text, which a record of ours never is.
pub fn write(source: &Source, runs: &[Exported]) -> Result<String, Error> {
    let mut text = String::new();
    put(
        &mut text,
        &Line::Export {
            format: FORMAT,
            store: source.store.clone(),
            location: source.location.clone(),
            at_ms: source.at.as_unix_ms(),
            program: source.program.clone(),
        },
    );
    let mut records = 0;
    for run in runs {
        put(&mut text, &Line::Run(Box::new(run_line(run))));
        for record in run.history.records() {
            let body = String::from_utf8(record.body.clone()).map_err(|_| {
                let flaw = Flaw::at(record.version.cast_unsigned(), "is no text");
                Error::Run(run.history.run().clone(), flaw)
            })?;
            put(
                &mut text,
                &Line::Record { version: record.version, hash: record.hash.clone(), body },
            );
        }
        records += run.history.records().len();
    }
    let digest = Digest::of_bytes(text.as_bytes()).as_str().to_owned();
    put(&mut text, &Line::End { runs: runs.len(), records, digest });
    Ok(text)
}

fn put(text: &mut String, line: &Line) {
    // Strings and numbers only: there is nothing in it that JSON can't hold.
    text.push_str(&serde_json::to_string(line).unwrap_or_default());
    text.push('\n');
}

fn run_line(run: &Exported) -> RunLine {
    let (header, head) = (run.history.header(), run.history.head());
    RunLine {
        run: header.run.to_string(),
        plan: header.plan.clone(),
        environment: header.environment.to_string(),
        started_ms: header.started_at.as_unix_ms(),
        ended: header.ended,
        head_version: head.version,
        head_hash: head.hash.clone(),
        tokens: run
            .tokens
            .iter()
            .map(|(of, token)| TokenLine { of: of.to_string(), token: *token })
            .collect(),
        driven_by: run.driven_by.as_ref().map(|holder| HolderLine {
            id: holder.id.clone(),
            name: holder.name.clone(),
            host: holder.host.clone(),
            boot: holder.boot.clone(),
            pid: holder.pid,
            pid_started: holder.pid_started,
        }),
    }
}

/// A run that is being read: its line, and what came after it.
struct Open {
    line: RunLine,
    records: Vec<Stored>,
}

/// Reads a whole export and checks everything in it.
pub fn read(bytes: &[u8]) -> Result<Export, Error> {
    let mut lines = numbered(bytes);
    let first = lines.next().ok_or(Error::NotOne)?;
    let label: Label = serde_json::from_slice(first.text).map_err(|_| Error::NotOne)?;
    if label.kind != "export" || label.format == 0 {
        return Err(Error::NotOne);
    }
    if label.format > FORMAT {
        return Err(Error::Newer(label.format));
    }
    let Line::Export { store, location, at_ms, program, .. } = first.read()? else {
        return Err(Error::NotOne);
    };
    let source = Source { store, location, at: Timestamp::from_unix_ms(at_ms), program };
    let (mut open, mut whole): (Option<Open>, Vec<Open>) = (None, Vec::new());
    let mut number = 1;
    for line in lines.by_ref() {
        number = line.number;
        match line.read()? {
            Line::Export { .. } => return Err(line.wrong("begins an export again")),
            Line::Run(of) => {
                whole.extend(open.replace(Open { line: *of, records: Vec::new() }));
            }
            Line::Record { version, hash, body } => match &mut open {
                Some(run) => {
                    run.records.push(Stored { version, body: body.into_bytes(), hash });
                }
                None => return Err(line.wrong("is a record of no run")),
            },
            Line::End { runs, records, digest } => {
                whole.extend(open.take());
                if Digest::of_bytes(&bytes[..line.begins_at]).as_str() != digest {
                    return Err(Error::Changed);
                }
                let found: usize = whole.iter().map(|run| run.records.len()).sum();
                if (whole.len(), found) != (runs, records) {
                    return Err(line.wrong("counts other runs or records than there are"));
                }
                if let Some(more) = lines.next() {
                    return Err(more.wrong("stands behind the end"));
                }
                let runs = whole.into_iter().map(verified).collect::<Result<_, _>>()?;
                return Ok(Export { source, runs });
            }
        }
    }
    Err(Error::Cut(number))
}

/// A line with its place.
struct Numbered<'a> {
    number: usize,
    begins_at: usize,
    text: &'a [u8],
    /// Whether its line break is there. Each line has one.
    is_whole: bool,
}

impl Numbered<'_> {
    fn read(&self) -> Result<Line, Error> {
        match serde_json::from_slice(self.text) {
            Ok(line) if self.is_whole => Ok(line),
            _ if !self.is_whole => Err(Error::Cut(self.number)),
            Ok(_) => Err(self.wrong("is not what was written")),
            Err(error) => Err(self.wrong(&format!("is not what was written: {error}"))),
        }
    }

    fn wrong(&self, how: &str) -> Error {
        Error::Line { line: self.number, how: how.to_owned() }
    }
}

fn numbered(bytes: &[u8]) -> impl Iterator<Item = Numbered<'_>> {
    let mut begins_at = 0;
    (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')).map(move |(number, line)| {
        let here = begins_at;
        begins_at += line.len();
        let text = line.strip_suffix(b"\n");
        Numbered { number, begins_at: here, text: text.unwrap_or(line), is_whole: text.is_some() }
    })
}

fn verified(open: Open) -> Result<Exported, Error> {
    let Open { line, records } = open;
    let run = RunId::new(line.run);
    let header = RunHeader {
        run: run.clone(),
        plan: line.plan,
        environment: EnvironmentName::new(line.environment),
        started_at: Timestamp::from_unix_ms(line.started_ms),
        ended: line.ended,
    };
    let head = Head { version: line.head_version, hash: line.head_hash };
    let tokens: Vec<(RunId, u64)> =
        line.tokens.into_iter().map(|token| (RunId::new(token.of), token.token)).collect();
    // The databases hold numbers signed, and a token must be able to rise.
    let wrong = tokens.iter().find(|(of, token)| of.served() != run || *token > TOKEN_MAX);
    if let Some((of, token)) = wrong {
        return Err(Error::Run(run, Flaw::of_run(format!("its token {token} for {of} can't be"))));
    }
    let history =
        History::verify(Kept { header, head, records }).map_err(|flaw| Error::Run(run, flaw))?;
    let driven_by = line.driven_by.map(|holder| Claimant {
        id: holder.id,
        name: holder.name,
        host: holder.host,
        boot: holder.boot,
        pid: holder.pid,
        pid_started: holder.pid_started,
    });
    Ok(Exported { history, tokens, driven_by })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::store::history::tests::kept;

    const ONE: &str = "0190aaaa-0000-7000-8000-000000000001";
    const TWO: &str = "0190aaaa-0000-7000-8000-000000000002";

    fn source() -> Source {
        Source {
            store: "5f0c".into(),
            location: ".phasegate/state.db".into(),
            at: Timestamp::from_unix_ms(7),
            program: "phasegate 0.0.0".into(),
        }
    }

    fn exported(id: &str, records: u64) -> Exported {
        let history = History::verify(kept(id, records)).unwrap();
        let tokens = vec![(history.run().clone(), 3)];
        Exported { history, tokens, driven_by: None }
    }

    fn text() -> String {
        write(&source(), &[exported(ONE, 3), exported(TWO, 1)]).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let export = read(text().as_bytes()).unwrap();
        assert_eq!(export.source, source());
        let runs: Vec<(&str, u64)> = export
            .runs
            .iter()
            .map(|run| (run.history.run().as_str(), run.history.head().version))
            .collect();
        assert_eq!(runs, [(ONE, 3), (TWO, 1)]);
        assert_eq!(export.runs[0].history.records(), kept(ONE, 3).records);
        assert_eq!(export.runs[0].arrival(&export.source).token(), 3);
        assert_eq!(text().lines().count(), 1 + 4 + 2 + 1);
        assert!(read(write(&source(), &[]).unwrap().as_bytes()).unwrap().runs.is_empty());
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_refused() {
        let text = text();
        for length in 0..text.len() {
            let error = read(&text.as_bytes()[..length]).unwrap_err();
            assert!(matches!(error, Error::Cut(_) | Error::NotOne), "{length}: {error}");
        }
        for lost in 0..text.lines().count() {
            let rest: String = text
                .split_inclusive('\n')
                .enumerate()
                .filter_map(|(at, line)| (at != lost).then_some(line))
                .collect();
            assert!(read(rest.as_bytes()).is_err(), "line {lost}");
        }
    }

    #[test]
    fn every_changed_byte_shows() {
        let text = text();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "byte {at}: {}", String::from_utf8_lossy(&changed));
        }
        assert!(read((text.clone() + "\n").as_bytes()).is_err());
        assert!(read((text.clone() + &text).as_bytes()).is_err());
    }

    /// A trailer of somebody's own making: the chain still tells.
    #[test]
    fn the_chain_and_the_replay_are_checked_under_a_good_trailer() {
        let sealed = |body: String| {
            let digest = Digest::of_bytes(body.as_bytes()).as_str().to_owned();
            let mut text = body;
            put(&mut text, &Line::End { runs: 2, records: 4, digest });
            text
        };
        let body = text().split_inclusive('\n').take(7).collect::<String>();
        assert!(read(sealed(body.clone()).as_bytes()).is_ok());
        let forged = body.replacen("\\\"ana\\\"", "\\\"eve\\\"", 1);
        let error = read(sealed(forged).as_bytes()).unwrap_err();
        assert!(
            matches!(&error, Error::Run(run, flaw) if run.as_str() == ONE && flaw.version == Some(1)),
            "{error}"
        );
        let ended = body.replacen("\"ended\":false", "\"ended\":true", 1);
        assert!(matches!(read(sealed(ended).as_bytes()), Err(Error::Run(..))));
        let token = body.replacen("\"token\":3", "\"token\":18446744073709551615", 1);
        assert!(matches!(read(sealed(token).as_bytes()), Err(Error::Run(..))));
        let few = body.split_inclusive('\n').take(6).collect::<String>();
        assert!(matches!(read(sealed(few).as_bytes()), Err(Error::Line { line: 7, .. })));
    }

    #[test]
    fn a_newer_format_and_other_files_are_told_apart() {
        let newer = br#"{"kind":"export","format":2,"sealed":true}"#;
        assert_eq!(read(newer).unwrap_err(), Error::Newer(2));
        for other in [&b""[..], b"hello\n", b"{}\n", b"{\"kind\":\"run\",\"format\":1}\n"] {
            assert_eq!(read(other).unwrap_err(), Error::NotOne);
        }
    }
}

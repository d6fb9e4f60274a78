//! The hash chain of a journal: what joins records to their place, and shows when one was changed, lost or moved.
//!
//! `hash_0 = sha256("phasegate journal" 0 run)` and `hash_n = sha256(hash_{n-1} 0 bytes_n)`, where a hash goes in as its 64
//! hexadecimal digits and `bytes_n` are the exact bytes stored. Since the chain begins with the run's id, a record moved to
//! another run's journal shows too; since the store keeps the head beside the records, so does a journal cut short.
//!
//! Absent on purpose: a secret. Whoever may write to the store can write a new chain; `history --verify` compares it with
//! the head kept in the targets.

use crate::run::{Actor, Digest, Event, Record, RunId, Timestamp};

use super::{Entry, Error, wire};

/// The end of a journal as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The version of the last record; 0 for a journal that has none yet.
    pub version: u64,
    /// The hash of the chain up to it, in hexadecimal digits.
    pub hash: String,
}

/// A record as it is stored, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number, as the database holds it.
    pub version: i64,
    /// Its exact bytes, in the wire format.
    pub body: Vec<u8>,
    /// The hash of the chain up to it, in hexadecimal digits.
    pub hash: String,
}

/// What is wrong with a journal, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The record; none where it is the run as a whole.
    pub version: Option<u64>,
    /// Of which kind it is.
    pub kind: FlawKind,
    /// What is wrong, as what follows the record's number in a sentence.
    pub how: String,
}

/// Kinds of flaws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlawKind {
    /// What is stored is not what was written.
    Damaged,
    /// It was written by a newer version of this program.
    Newer,
}

impl Flaw {
    /// Damage at a record.
    pub(super) fn at(version: u64, how: impl Into<String>) -> Self {
        Self { version: Some(version), kind: FlawKind::Damaged, how: how.into() }
    }

    /// Damage of a run as a whole.
    pub(super) fn of_run(how: impl Into<String>) -> Self {
        Self { version: None, kind: FlawKind::Damaged, how: how.into() }
    }

    /// As a sentence about a run.
    #[must_use]
    pub fn sentence(&self, run: &RunId) -> String {
        let Self { version, how, .. } = self;
        match (version, self.kind) {
            (Some(version), FlawKind::Damaged) => {
                format!("the journal of run {run} is damaged: record {version} {how}")
            }
            (None, FlawKind::Damaged) => format!("the journal of run {run} is damaged: {how}"),
            (Some(version), FlawKind::Newer) => format!("record {version} of run {run} {how}"),
            (None, FlawKind::Newer) => format!("run {run} {how}"),
        }
    }

    fn into_error(self, run: &RunId) -> Error {
        let sentence = self.sentence(run);
        match self.kind {
            FlawKind::Damaged => Error::Damaged {
                message: format!(
                    "{sentence}; nothing was changed, restore the state store from a backup"
                ),
            },
            FlawKind::Newer => Error::Newer { message: format!("{sentence}; use that version") },
        }
    }
}

/// A record ready to be stored, with the bytes that its hash is over.
#[derive(Debug)]
pub(super) struct Sealed {
    pub entry: Entry,
    pub body: Vec<u8>,
}

/// Who appends, and when by the store's clock.
#[derive(Debug)]
pub(super) struct Stamp<'a> {
    pub by: &'a Actor,
    pub at: Timestamp,
}

/// Which journal is appended to, and by whom.
#[derive(Debug)]
pub(super) struct Append<'a> {
    pub run: &'a RunId,
    pub expected_version: u64,
    pub by: &'a Actor,
}

/// What was asked of a journal: the records behind a version, at most so many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub after_version: u64,
    pub limit: u32,
}

impl Page {
    /// How many rows to read: one more than asked for where the page goes on from a record, and never none, since a row
    /// is also what shows that the run exists.
    pub fn rows(self) -> i64 {
        i64::from(self.limit).max(1) + i64::from(self.after_version > 0)
    }
}

impl Head {
    /// The head of a run's journal before its first record.
    #[must_use]
    pub fn origin(run: &RunId) -> Self {
        let mut bytes = b"phasegate journal\0".to_vec();
        bytes.extend_from_slice(run.as_str().as_bytes());
        Self { version: 0, hash: Digest::of_bytes(&bytes).as_str().to_owned() }
    }
}

/// The hash of the chain one record further.
fn link(previous: &str, body: &[u8]) -> Digest {
    let mut bytes = Vec::with_capacity(previous.len() + 1 + body.len());
    bytes.extend_from_slice(previous.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(body);
    Digest::of_bytes(&bytes)
}

/// Makes records of events and joins them to the chain.
pub(super) fn seal(
    run: &RunId,
    head: &Head,
    stamp: &Stamp<'_>,
    events: Vec<Event>,
) -> Result<Vec<Sealed>, Error> {
    let mut previous = head.hash.clone();
    let mut sealed = Vec::with_capacity(events.len());
    for (version, event) in (head.version + 1..).zip(events) {
        let record = Record { version, at: stamp.at, by: stamp.by.clone(), event };
        let body = wire::encode(&record).map_err(|error| Error::NotWritable {
            message: format!("record {version} of run {run} was not stored: {error}"),
        })?;
        let hash = link(&previous, &body);
        hash.as_str().clone_into(&mut previous);
        sealed.push(Sealed { entry: Entry { record, hash }, body });
    }
    Ok(sealed)
}

/// Makes the first record of a journal, which is the start of its run.
pub(super) fn first(run: &RunId, stamp: &Stamp<'_>, started: Event) -> Result<Sealed, Error> {
    let refused = || Error::NotWritable {
        message: format!(
            "the journal of run {run} was not begun: its first record must be the start of that run"
        ),
    };
    if !matches!(&started, Event::RunStarted { run: named, .. } if named == run) {
        return Err(refused());
    }
    seal(run, &Head::origin(run), stamp, vec![started])?.pop().ok_or_else(refused)
}

/// Checks records against the chain and the head, and decodes them.
///
/// `rows` are those from `page.after_version` on, that one included, since the chain goes on from its hash. A version that
/// the journal has not reached is a [`Error::Conflict`]: the store was put back to an older copy.
pub(super) fn check(
    run: &RunId,
    page: Page,
    head: &Head,
    rows: Vec<Stored>,
) -> Result<Vec<Entry>, Error> {
    if page.after_version > head.version {
        return Err(Error::Conflict { expected: page.after_version, found: head.version });
    }
    inspect(run, page, head, rows).map_err(|flaw| flaw.into_error(run))
}

/// The same for a page within the journal, with what is wrong as a [`Flaw`].
pub(super) fn inspect(
    run: &RunId,
    page: Page,
    head: &Head,
    rows: Vec<Stored>,
) -> Result<Vec<Entry>, Flaw> {
    let mut rows = rows.into_iter();
    let mut previous = match page.after_version {
        0 => Head::origin(run),
        after => anchor(after, rows.next())?,
    };
    let mut entries = Vec::new();
    for row in rows.take(usize::try_from(page.limit).unwrap_or(usize::MAX)) {
        let version = previous.version + 1;
        if row.version != version.cast_signed() {
            return Err(Flaw::at(version, "is missing"));
        }
        let hash = link(&previous.hash, &row.body);
        if hash.as_str() != row.hash {
            return Err(Flaw::at(version, "is not what was written: the chain of hashes breaks"));
        }
        let record = decode(version, &row.body)?;
        previous = Head { version, hash: row.hash };
        entries.push(Entry { record, hash });
    }
    let is_last_page = u64::try_from(entries.len()).unwrap_or(u64::MAX) < u64::from(page.limit);
    if previous.version > head.version
        || (previous.version == head.version && previous.hash != head.hash)
    {
        return Err(Flaw::at(previous.version, "is not the one that the journal's head names"));
    }
    if is_last_page && previous.version < head.version {
        return Err(Flaw::at(previous.version + 1, "is missing"));
    }
    Ok(entries)
}

/// The place that a page goes on from.
fn anchor(after: u64, row: Option<Stored>) -> Result<Head, Flaw> {
    match row {
        Some(row) if row.version == after.cast_signed() => {
            Ok(Head { version: after, hash: row.hash })
        }
        _ => Err(Flaw::at(after, "is missing")),
    }
}

fn decode(version: u64, body: &[u8]) -> Result<Record, Flaw> {
    let record = wire::decode(body).map_err(|error| match error {
        wire::Error::Newer { .. } => Flaw {
            version: Some(version),
            kind: FlawKind::Newer,
            how: format!("was written by a newer version of this program: {error}"),
        },
        error => Flaw::at(version, format!("is not what was written: {error}")),
    })?;
    if record.version == version {
        Ok(record)
    } else {
        Err(Flaw::at(version, format!("says that it is record {}", record.version)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::run::Proof;

    fn run() -> RunId {
        RunId::new("0190aaaa-0000-7000-8000-000000000001")
    }

    fn journal(records: usize) -> (Head, Vec<Stored>) {
        let by = Actor { name: "ana".into(), proof: Proof::Claimed, host: "box".into() };
        let stamp = Stamp { by: &by, at: Timestamp::from_unix_ms(5) };
        let events = vec![Event::Resumed; records];
        let sealed = seal(&run(), &Head::origin(&run()), &stamp, events).unwrap();
        let rows: Vec<Stored> = sealed
            .into_iter()
            .map(|one| Stored {
                version: one.entry.record.version.cast_signed(),
                body: one.body,
                hash: one.entry.hash.as_str().to_owned(),
            })
            .collect();
        let last = rows.last().unwrap();
        (Head { version: last.version.cast_unsigned(), hash: last.hash.clone() }, rows)
    }

    fn all() -> Page {
        Page { after_version: 0, limit: 100 }
    }

    #[test]
    fn the_hash_is_the_documented_one() {
        use sha2::{Digest as _, Sha256};
        let (_, rows) = journal(2);
        let origin = hex::encode(Sha256::digest(
            b"phasegate journal\x000190aaaa-0000-7000-8000-000000000001",
        ));
        let mut previous = origin;
        for row in rows {
            let mut hasher = Sha256::new();
            hasher.update(previous.as_bytes());
            hasher.update([0]);
            hasher.update(&row.body);
            previous = hex::encode(hasher.finalize());
            assert_eq!(row.hash, previous);
        }
    }

    #[test]
    fn pages_join() {
        let (head, rows) = journal(5);
        for after in 0..=5_u64 {
            let from = usize::try_from(after.saturating_sub(1)).unwrap();
            for limit in 0..=6_u32 {
                let anchor = usize::from(after > 0);
                let take = usize::try_from(limit).unwrap() + anchor;
                let page: Vec<Stored> = rows[from..].iter().take(take).cloned().collect();
                let read =
                    check(&run(), Page { after_version: after, limit }, &head, page).unwrap();
                let versions: Vec<u64> = read.iter().map(|entry| entry.record.version).collect();
                let expected: Vec<u64> = (after + 1..=5).take(limit as usize).collect();
                assert_eq!(versions, expected, "after {after}, limit {limit}");
            }
        }
    }

    #[test]
    fn every_changed_bit_of_a_body_shows() {
        let (head, rows) = journal(2);
        for at in 0..rows[0].body.len() {
            let mut changed = rows.clone();
            changed[0].body[at] ^= 1;
            let error = check(&run(), all(), &head, changed).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "byte {at}: {error}");
        }
    }

    #[test]
    fn rows_moved_lost_or_cut_off_show() {
        let (head, rows) = journal(4);
        for lost in 0..4 {
            let mut rest = rows.clone();
            rest.remove(lost);
            let error = check(&run(), all(), &head, rest).unwrap_err().to_string();
            assert!(error.contains(&format!("record {} is missing", lost + 1)), "{error}");
        }
        let mut swapped = rows.clone();
        let (one, two) = (swapped[1].clone(), swapped[2].clone());
        (swapped[1].body, swapped[1].hash) = (two.body, two.hash);
        (swapped[2].body, swapped[2].hash) = (one.body, one.hash);
        assert!(check(&run(), all(), &head, swapped).is_err());
        let elsewhere = RunId::new("0190aaaa-0000-7000-8000-000000000002");
        assert!(check(&elsewhere, all(), &head, rows.clone()).is_err());
        let older = Head { version: 3, hash: rows[2].hash.clone() };
        assert!(check(&run(), all(), &older, rows).is_err());
    }
}

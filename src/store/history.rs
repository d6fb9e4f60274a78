//! A run's whole journal, checked: what an export may hold, and what an import may write.
//!
//! Invariant: a [`History`] comes out of [`History::verify`] only, so whoever has one has a journal whose chain holds, whose
//! records make a run, and whose row says what its records say. All of it is pure.

use crate::run::{Actor, Event, RunId, State, apply, begin};

use super::chain::{self, Flaw, Head, Page, Stored};
use super::{Error, RunHeader};

/// A run as a store keeps it, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What the store lists.
    pub header: RunHeader,
    /// The end of its journal.
    pub head: Head,
    /// All records.
    pub records: Vec<Stored>,
}

/// A run whose journal was read from its first record to its last, and holds.
#[derive(Clone, Debug)]
pub struct History {
    kept: Kept,
    state: State,
}

/// How a history goes with what a store has of that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The store doesn't have the run.
    New,
    /// It has exactly this history.
    Same,
    /// It has the history's beginning, up to this version.
    Extends(u64),
}

impl History {
    /// Checks a run: versions without gaps, formats, the chain, the replay, and the run's row against its records.
    pub fn verify(kept: Kept) -> Result<Self, Flaw> {
        let run = &kept.header.run;
        if kept.head.version == 0 {
            return Err(Flaw::at(1, "is missing"));
        }
        let page = Page { after_version: 0, limit: u32::MAX };
        let entries = chain::inspect(run, page, &kept.head, kept.records.clone())?;
        let Some((first, rest)) = entries.split_first() else {
            return Err(Flaw::at(1, "is missing"));
        };
        let mut state =
            begin(&first.record).map_err(|error| Flaw::at(1, format!("makes no run: {error}")))?;
        if state.run() != run {
            return Err(Flaw::at(1, format!("begins run {}", state.run())));
        }
        let (plan, environment) = (state.program().plan(), state.program().environment());
        if plan != kept.header.plan || *environment != kept.header.environment {
            return Err(Flaw::at(
                1,
                format!(
                    "begins a run of plan {plan} in environment {environment}, and the run's row says {} and {}",
                    kept.header.plan, kept.header.environment
                ),
            ));
        }
        for entry in rest {
            apply(&mut state, &entry.record).map_err(|error| {
                Flaw::at(entry.record.version, format!("can't be applied: {error}"))
            })?;
        }
        let last = rest.last().unwrap_or(first);
        match (matches!(last.record.event, Event::RunEnded { .. }), kept.header.ended) {
            (true, false) => Err(Flaw::at(
                last.record.version,
                "ends the run, and the run's row says that it goes on",
            )),
            (false, true) => Err(Flaw::at(
                last.record.version,
                "doesn't end the run, and the run's row says that it has ended",
            )),
            _ => Ok(Self { kept, state }),
        }
    }

    /// A journal that begins with several records, for a store that doesn't have the run.
    pub fn begin(header: RunHeader, by: &Actor, events: Vec<Event>) -> Result<Self, Error> {
        let (run, at) = (header.run.clone(), header.started_at);
        let sealed = chain::seal(&run, &Head::origin(&run), &chain::Stamp { by, at }, events)?;
        let stored = |one: chain::Sealed| Stored {
            version: one.entry.record.version.cast_signed(),
            body: one.body,
            hash: one.entry.hash.as_str().to_owned(),
        };
        let records: Vec<Stored> = sealed.into_iter().map(stored).collect();
        let head = records.last().map_or_else(
            || Head::origin(&run),
            |last| Head { version: last.version.cast_unsigned(), hash: last.hash.clone() },
        );
        Self::verify(Kept { header, head, records }).map_err(|flaw| Error::NotWritable {
            message: format!("the journal of run {run} was not begun: its record {}", flaw.how),
        })
    }

    /// The run.
    #[must_use]
    pub const fn run(&self) -> &RunId {
        &self.kept.header.run
    }

    /// What a store lists of it.
    #[must_use]
    pub const fn header(&self) -> &RunHeader {
        &self.kept.header
    }

    /// The end of its journal.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.kept.head
    }

    /// Its records, as they are stored.
    #[must_use]
    pub fn records(&self) -> &[Stored] {
        &self.kept.records
    }

    /// What its records make.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// How it goes with the end of the journal that a store has of this run. [`Error::Diverged`] where the store's has more
    /// records, or others.
    pub fn fit(&self, present: Option<&Head>) -> Result<Fit, Error> {
        let Some(present) = present else { return Ok(Fit::New) };
        let at = usize::try_from(present.version).ok().and_then(|version| version.checked_sub(1));
        let same = at.and_then(|at| self.kept.records.get(at));
        match same {
            Some(record) if record.hash == present.hash => {
                if present.version == self.kept.head.version {
                    Ok(Fit::Same)
                } else {
                    Ok(Fit::Extends(present.version))
                }
            }
            _ => Err(Error::Diverged {
                run: self.run().clone(),
                here: present.clone(),
                there: self.kept.head.clone(),
            }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
pub(super) mod tests {
    use super::*;
    use crate::run::{Actor, EnvironmentName, Proof, Timestamp};

    /// A plan, out of the records that hold the format.
    fn pin() -> crate::run::Pin {
        let line = include_str!("../../tests/store/records.v1.jsonl").lines().next().unwrap();
        match super::super::wire::decode(line.as_bytes()).unwrap().event {
            Event::RunStarted { pin, .. } => *pin,
            other => panic!("{other:?}"),
        }
    }

    /// A run of so many records, sealed as a store would.
    pub fn kept(id: &str, records: u64) -> Kept {
        let run = RunId::new(id);
        let pin = pin();
        let header = RunHeader {
            run: run.clone(),
            plan: pin.program.plan().to_owned(),
            environment: pin.program.environment().clone(),
            started_at: Timestamp::from_unix_ms(5),
            ended: false,
        };
        let begun = Event::RunStarted { run: run.clone(), pin: Box::new(pin) };
        let paused = |number: u64| Event::Paused { reason: Some(number.to_string()) };
        let events = std::iter::once(begun).chain((1..records).map(paused)).collect();
        sealed(header, events)
    }

    fn sealed(header: RunHeader, events: Vec<Event>) -> Kept {
        let by = Actor { name: "ana".into(), proof: Proof::Claimed, host: "box".into() };
        let stamp = chain::Stamp { by: &by, at: Timestamp::from_unix_ms(5) };
        let sealed = chain::seal(&header.run, &Head::origin(&header.run), &stamp, events).unwrap();
        let records: Vec<Stored> = sealed
            .into_iter()
            .map(|one| Stored {
                version: one.entry.record.version.cast_signed(),
                body: one.body,
                hash: one.entry.hash.as_str().to_owned(),
            })
            .collect();
        let last = records.last().unwrap();
        let head = Head { version: last.version.cast_unsigned(), hash: last.hash.clone() };
        Kept { header, head, records }
    }

    const RUN: &str = "0190aaaa-0000-7000-8000-000000000001";

    fn flaw(kept: Kept) -> Flaw {
        History::verify(kept).unwrap_err()
    }

    #[test]
    fn a_whole_run_is_a_history() {
        let history = History::verify(kept(RUN, 5)).unwrap();
        assert_eq!(history.head().version, 5);
        assert_eq!(history.records().len(), 5);
        assert_eq!(history.state().version(), 5);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_record() {
        for lost in 0..4 {
            let mut run = kept(RUN, 4);
            run.records.remove(lost);
            assert_eq!(flaw(run).version, Some(lost as u64 + 1));
        }
        for at in 0..4 {
            let mut run = kept(RUN, 4);
            run.records[at].body[9] ^= 1;
            assert_eq!(flaw(run).version, Some(at as u64 + 1));
        }
        let mut empty = kept(RUN, 1);
        empty.head.version = 0;
        empty.records.clear();
        assert_eq!(flaw(empty).version, Some(1));
    }

    #[test]
    fn the_row_and_the_records_must_agree() {
        let mut ended = kept(RUN, 3);
        ended.header.ended = true;
        assert!(flaw(ended).how.contains("has ended"));
        let mut plan = kept(RUN, 3);
        plan.header.plan = "another".into();
        assert!(flaw(plan).how.contains("the run's row says another"));
        let mut environment = kept(RUN, 3);
        environment.header.environment = EnvironmentName::new("another");
        assert!(flaw(environment).how.contains("another"));
        let header = kept(RUN, 1).header;
        let begun = Event::RunStarted { run: RunId::new("other"), pin: Box::new(pin()) };
        assert!(flaw(sealed(header.clone(), vec![begun])).how.contains("begins run other"));
        assert!(flaw(sealed(header, vec![Event::Resumed])).how.contains("makes no run"));
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut run = kept(RUN, 2);
        let body = br#"{"format":2,"sealed":"who knows"}"#.to_vec();
        let mut chained = run.head.hash.clone().into_bytes();
        chained.push(0);
        chained.extend_from_slice(&body);
        let hash = crate::run::Digest::of_bytes(&chained).as_str().to_owned();
        run.head = Head { version: 3, hash: hash.clone() };
        run.records.push(Stored { version: 3, body, hash });
        let flaw = flaw(run);
        assert_eq!((flaw.version, flaw.kind), (Some(3), chain::FlawKind::Newer));
    }

    #[test]
    fn a_history_fits_its_own_beginning_and_nothing_else() {
        let history = History::verify(kept(RUN, 4)).unwrap();
        let at = |version: u64| {
            let record = &history.records()[usize::try_from(version).unwrap() - 1];
            Head { version, hash: record.hash.clone() }
        };
        assert_eq!(history.fit(None), Ok(Fit::New));
        assert_eq!(history.fit(Some(&at(4))), Ok(Fit::Same));
        assert_eq!(history.fit(Some(&at(1))), Ok(Fit::Extends(1)));
        let longer = Head { version: 5, hash: at(4).hash };
        let other = Head { version: 2, hash: at(3).hash };
        let none = Head { version: 0, hash: at(1).hash };
        for head in [longer, other, none] {
            let error = history.fit(Some(&head)).unwrap_err();
            assert!(matches!(error, Error::Diverged { .. }), "{error}");
        }
    }
}

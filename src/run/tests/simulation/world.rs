//! What outlives processes: the journal with its lease, the target with its ledger, and time.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::*;
use super::super::{facts, pin};
use super::promises::{self, Broken};
use super::shell::Fault;

/// How long a lease counts that is not renewed, in milliseconds.
pub(super) const TTL_MS: u64 = 15_000;
/// The chunks of the one copy there is, each with as many rows.
pub(super) const CHUNKS: u32 = 4;
pub(super) const CHUNK_ROWS: u64 = 10;

pub(super) struct World {
    pub now: Timestamp,
    /// What the durable journal adds up to.
    pub truth: State,
    pub journal: Vec<Record>,
    pub lease: Option<Lease>,
    pub last_token: u64,
    pub target: Target,
    /// What happens to the next append.
    pub append_fate: Fate,
    /// Whether the two sides differ, so that a comparison finds it.
    pub differs: bool,
    /// The comparisons that have ended, by step: when they began, and whether they found nothing.
    pub compared: BTreeMap<StepId, (Timestamp, bool)>,
    /// When all gates before a guarded step were last seen to be open.
    pub permitted: BTreeMap<StepId, Timestamp>,
    /// Planted in what stands for the engine and its databases here.
    pub fault: Option<Fault>,
    pub broken: Option<Broken>,
    /// What happened, in words, where somebody wants to read it.
    pub told: Option<Vec<String>>,
}

pub(super) struct Lease {
    pub holder: u64,
    pub token: u64,
    pub expires_at: Timestamp,
}

/// What happens to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Well,
    /// Nothing of it is kept.
    Lost,
    /// It is kept, and nobody hears of it.
    Unheard,
}

/// Why an append was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Conflict,
    LeaseLost,
    /// Nobody can tell whether it was kept.
    Unknown,
}

/// A statement that goes on at the server, whoever sent it.
pub(super) struct Session {
    pub step: StepId,
    pub token: u64,
}

#[derive(Default)]
pub(super) struct Target {
    /// The newest token that has entered.
    pub token: u64,
    /// Steps that are committed.
    pub ledger: BTreeSet<StepId>,
    /// How often what a step does is there: once, or never.
    pub effects: BTreeMap<StepId, u32>,
    /// Steps outside transactions that have begun, with the journal's version then.
    pub marks: BTreeMap<StepId, u64>,
    pub sessions: Vec<Session>,
    pub copy: Copy,
    /// Whether somebody else has changed the schema.
    pub is_strange: bool,
    /// Whether our objects are gone.
    pub is_cleared: bool,
}

impl Target {
    /// Whether nothing of the run's work is there.
    pub fn is_untouched(&self) -> bool {
        self.ledger.is_empty()
            && self.effects.is_empty()
            && self.marks.is_empty()
            && self.copy.planned == 0
    }
}

/// A copy in the ledger.
#[derive(Default)]
pub(super) struct Copy {
    /// The last chunk that is entered.
    pub planned: u32,
    /// Up to where all chunks are committed.
    pub watermark: u32,
    /// Those behind it that are.
    pub done: BTreeSet<u32>,
    /// How often the rows of each chunk were written.
    pub written: BTreeMap<u32, u32>,
    pub rows: u64,
}

impl Copy {
    /// Chunks that are entered and not committed, as far as the ledger can tell.
    pub fn open(&self) -> Vec<u32> {
        (self.watermark + 1..=self.planned).filter(|seq| !self.done.contains(seq)).collect()
    }

    /// Moves the watermark up to the first chunk that is not committed.
    pub fn fold(&mut self, is_too_high: bool) {
        let mut folded = false;
        while self.done.remove(&(self.watermark + 1)) {
            self.watermark += 1;
            folded = true;
        }
        if folded && is_too_high && self.watermark < self.planned {
            self.watermark += 1;
            self.done.remove(&self.watermark);
        }
    }
}

impl World {
    pub fn new(steps: Vec<Step>, fault: Option<Fault>, is_told: bool) -> Self {
        let now = Timestamp::from_unix_ms(1_000_000);
        let pin = Box::new(pin(steps, Policy::default()));
        let event = Event::RunStarted { run: "run".into(), pin };
        let first = Record { version: 1, at: now, by: super::super::actor("ana"), event };
        Self {
            now,
            truth: begin(&first).unwrap(),
            journal: vec![first],
            lease: None,
            last_token: 0,
            target: Target::default(),
            append_fate: Fate::Well,
            differs: false,
            compared: BTreeMap::new(),
            permitted: BTreeMap::new(),
            fault,
            broken: None,
            told: is_told.then(Vec::new),
        }
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            let at = self.now.since_ms(Timestamp::from_unix_ms(1_000_000));
            told.push(format!("{at:>8} ms  {}", what()));
        }
    }

    /// Notes a promise that does not hold. The first one counts.
    pub fn breaks(&mut self, promise: &'static str, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let what = what();
            self.tell(|| format!("BROKEN: {promise}: {what}"));
            self.broken = Some(Broken { promise, what });
        }
    }

    pub const fn has(&self, fault: Fault) -> bool {
        matches!(&self.fault, Some(planted) if *planted as u8 == fault as u8)
    }

    /// Appends behind a version, for the holder of a lease or for an operator. `seen` is what the events were decided on.
    pub fn append(
        &mut self,
        token: Option<u64>,
        version: u64,
        by: &Actor,
        events: Vec<Event>,
        seen: &[(StepId, Observations)],
    ) -> Result<Vec<Record>, Refused> {
        if self.truth.version() != version {
            return Err(Refused::Conflict);
        }
        if let Some(token) = token
            && !self.holds(token)
        {
            return Err(Refused::LeaseLost);
        }
        let fate = std::mem::replace(&mut self.append_fate, Fate::Well);
        if fate == Fate::Lost {
            self.tell(|| "an append is lost".to_owned());
            return Err(Refused::Unknown);
        }
        let mut records = Vec::new();
        for event in events {
            promises::of_event(self, &event, seen);
            let version = self.truth.version() + 1;
            let record = Record { version, at: self.now, by: by.clone(), event };
            self.tell(|| format!("  {version} {}: {}", by.name, in_words(&record.event)));
            if let Err(error) = apply(&mut self.truth, &record) {
                self.breaks("P2", || error.to_string());
            }
            self.journal.push(record.clone());
            records.push(record);
        }
        if fate == Fate::Unheard {
            self.tell(|| "nobody hears of that append".to_owned());
            return Err(Refused::Unknown);
        }
        Ok(records)
    }

    /// Whether a lease is the newest and has not lapsed.
    pub fn holds(&self, token: u64) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.token == token && lease.expires_at > self.now)
    }

    /// What is read from the target for a gate.
    pub fn seen(&self) -> Observations {
        let retired = self.target.ledger.contains("retire");
        facts(&format!("retired {retired}, strange {}", self.target.is_strange))
    }

    /// The fingerprints that a step of the run moves on, as the engine reads them after it.
    pub fn moved(&self, expected: &BTreeMap<StepId, Digest>) -> Vec<GateFingerprint> {
        let seen = self.seen();
        let Some(Ok(facts)) = seen.targets.get("app") else { return Vec::new() };
        let fingerprint = |gate: &StepId| GateFingerprint {
            gate: gate.clone(),
            target: "app".into(),
            fingerprint: facts.fingerprint.clone(),
        };
        expected.keys().map(fingerprint).collect()
    }
}

fn in_words(event: &Event) -> String {
    match event {
        Event::RunStarted { .. } => "the run begins".to_owned(),
        Event::PlanAmended { changed, voided, .. } => {
            format!("the plan is amended: {changed:?}, gates voided: {voided:?}")
        }
        Event::StepStarted { step, attempt, way, permit } => {
            let permit = if permit.is_some() { ", with a permit" } else { "" };
            format!("{step} starts, attempt {attempt} {way:?}{permit}")
        }
        Event::StepSucceeded { step, attempt, way, .. } => {
            format!("{step} succeeded, attempt {attempt} {way:?}")
        }
        Event::StepFailed { step, attempt, way, failure, retry_at, committed, .. } => {
            let again = if retry_at.is_some() { ", is tried again" } else { "" };
            let class = failure.class;
            format!(
                "{step} failed, attempt {attempt} {way:?}: {class:?}, committed: {committed:?}{again}"
            )
        }
        Event::StepDiffers { step, .. } => format!("{step} found differences"),
        Event::StepAmbiguous { step, way, .. } => format!("{step} is ambiguous {way:?}"),
        Event::StepResolved { step, outcome, .. } => format!("{step} was {}", outcome.as_str()),
        Event::GateReached { gate, work, .. } => format!("{gate} is reached for {work}"),
        Event::GateOpened { gate, work } => format!("{gate} opens for {work}"),
        Event::GateShut { gate, reasons } => format!("{gate} shuts: {}", reasons.join("; ")),
        Event::Approved { gate, work, .. } => format!("approves {gate} for {work}"),
        Event::Rejected { gate, .. } => format!("rejects {gate}"),
        Event::Revoked { gate } => format!("takes back what was said of {gate}"),
        other => format!("{other:?}"),
    }
}

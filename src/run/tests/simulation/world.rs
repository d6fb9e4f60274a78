//! What outlives processes: the journal with its lease, the databases, and time.

use std::collections::{BTreeMap, VecDeque};

use super::super::super::*;
use super::promises::{self, Broken};
use super::shapes::APP;
use super::shell::Fault;
use super::sides::{KEYS, REGIONS, Sides};
use super::target::{self, Part};

/// How long a lease counts that is not renewed, in milliseconds.
pub(super) const TTL_MS: u64 = 15_000;
/// How many answers may come once more.
const HEARD_MAX: usize = 6;

pub(super) struct World {
    pub now: Timestamp,
    /// Counts the moves: the clock may go back.
    pub tick: u64,
    /// What the durable journal adds up to.
    pub truth: State,
    pub journal: Vec<Record>,
    pub lease: Option<Lease>,
    pub last_token: u64,
    pub targets: BTreeMap<TargetName, target::Target>,
    pub sides: BTreeMap<MappingName, Sides>,
    /// What happens to the next append.
    pub append_fate: Fate,
    /// The last answers that were taken in, with what was read for them.
    pub heard: VecDeque<(Input, Seen)>,
    /// The comparisons that came to a verdict.
    pub passes: Vec<Pass>,
    /// Of each step the last evidence that was recorded.
    pub compared: BTreeMap<StepId, (Timestamp, Evidence)>,
    /// When all gates before a guarded step were last seen to be open.
    pub permitted: BTreeMap<StepId, Timestamp>,
    /// Planted in what stands for the engine and its databases here.
    pub fault: Option<Fault>,
    pub broken: Option<Broken>,
    /// What happened, in words, where somebody wants to read it.
    pub told: Option<Vec<String>>,
}

/// What was read for each gate.
pub(super) type Seen = Vec<(StepId, Observations)>;

pub(super) struct Lease {
    pub holder: u64,
    pub token: u64,
    pub expires_at: Timestamp,
}

/// A comparison as it went.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub step: StepId,
    pub attempt: u32,
    pub method: Method,
    pub began_at: Timestamp,
    /// The move in which it began.
    pub tick: u64,
    /// The sync that it was made under.
    pub sync: Option<Digest>,
    /// How many of the parts were compared.
    pub regions: usize,
    pub rows: u64,
    pub differing: u64,
}

impl Pass {
    pub const fn is_whole(&self) -> bool {
        self.regions == REGIONS
    }
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

impl World {
    pub fn new(pin: Pin, fault: Option<Fault>, is_told: bool) -> Self {
        let now = Timestamp::from_unix_ms(1_000_000);
        let event = Event::RunStarted { run: "run".into(), pin: Box::new(pin) };
        let first = Record { version: 1, at: now, by: super::super::actor("ana"), event };
        let truth = begin(&first).unwrap();
        let program = truth.program();
        let targets = program.targets().keys().map(|name| (name.clone(), <_>::default()));
        let sides = program.mappings().keys().filter_map(|name| {
            let direction = truth.direction(name)?;
            Some((name.clone(), Sides::new(direction == Direction::Both)))
        });
        Self {
            now,
            tick: 0,
            targets: targets.collect(),
            sides: sides.collect(),
            truth,
            journal: vec![first],
            lease: None,
            last_token: 0,
            append_fate: Fate::Well,
            heard: VecDeque::new(),
            passes: Vec::new(),
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

    /// Keeps an answer that was taken in: it may come once more.
    pub fn hears(&mut self, input: &Input, seen: &[(StepId, Observations)]) {
        if !matches!(input, Input::Tick | Input::Asked(_) | Input::Finished) {
            self.heard.truncate(HEARD_MAX - 1);
            self.heard.push_front((input.clone(), seen.to_vec()));
        }
    }

    /// Whether a lease is the newest and has not lapsed.
    pub fn holds(&self, token: u64) -> bool {
        let is_held = |lease: &Lease| lease.token == token && lease.expires_at > self.now;
        self.lease.as_ref().is_some_and(is_held)
    }

    /// The database that a step works on.
    pub fn target_of(&mut self, step: &Step) -> &mut target::Target {
        self.targets.get_mut(step.target.as_ref().unwrap()).unwrap()
    }

    /// What there is of a step, in whichever database.
    pub fn ledger_has(&self, step: &StepId) -> bool {
        self.targets.values().any(|target| target.ledger.contains(step))
    }

    pub fn has_some(&self, step: &StepId) -> bool {
        self.targets.values().any(|target| target.has_some(step))
    }

    pub fn is_under_way(&self, step: &StepId) -> bool {
        self.targets.values().any(|target| target.is_under_way(step))
    }

    pub fn sides_of(&mut self, step: &Step) -> Option<&mut Sides> {
        self.sides.get_mut(step.action.mapping()?)
    }

    /// How much the ledger has of a step and of its parts.
    pub fn traced(&self, step: &Step, way: Way) -> Traced {
        let target = &self.targets[step.target.as_ref().unwrap()];
        match way {
            Way::Forward => target.traced(&step.id),
            Way::Back => {
                let sides = step.action.mapping().and_then(|mapping| self.sides.get(mapping));
                let is_copied = matches!(step.action, Action::Backfill(_))
                    && sides.is_some_and(|sides| sides.copy.planned > 0);
                let is_gone = target.traced(&step.id) == Traced::Nothing && !is_copied;
                if is_gone { Traced::Whole } else { Traced::Nothing }
            }
        }
    }

    /// What is read for a gate: the databases behind it, and the syncs that are to keep sides in step.
    pub fn seen(&self, gate: &StepId) -> Observations {
        let program = self.truth.program();
        let behind: Vec<_> =
            program.released_by(gate).filter_map(|step| step.target.clone()).collect();
        let behind = if behind.is_empty() { vec![APP.into()] } else { behind };
        let facts = behind.into_iter().map(|name| {
            let fingerprint = self.fingerprint(&name);
            let identity = format!("{name} / database as role");
            (name, Ok(TargetFacts { identity, fingerprint }))
        });
        let syncs = self.sides.iter().filter(|(name, _)| is_live(&self.truth, name));
        let syncs = syncs.map(|(name, sides)| {
            let wrong = (!sides.is_synced()).then(|| "it is switched off".to_owned());
            (name.clone(), Ok(SyncSeen { wrong, digest: digest_of(sides) }))
        });
        Observations { targets: facts.collect(), syncs: syncs.collect(), ..Observations::default() }
    }

    /// What the objects in a database look like.
    pub fn fingerprint(&self, name: &TargetName) -> Digest {
        let target = &self.targets[name];
        let steps = self.truth.program().steps().iter();
        let retired = steps.filter(|step| {
            matches!(step.action, Action::Retire(_)) && target.ledger.contains(&step.id)
        });
        let retired: Vec<&StepId> = retired.map(|step| &step.id).collect();
        Digest::of_bytes(format!("retired {retired:?}, strange {}", target.is_strange).as_bytes())
    }

    /// Something that a step does is there once more.
    pub fn add_effect(&mut self, name: &TargetName, part: &Part) {
        let target = self.targets.get_mut(name).unwrap();
        target.halves.remove(part);
        let times = target.effects.entry(part.clone()).or_default();
        *times += 1;
        if *times > 1 {
            let times = *times;
            self.breaks("P3", || format!("{} was done {times} times", in_part(part)));
        }
    }

    /// A client writes, or somebody who should not.
    pub fn is_written(&mut self, by: u64, is_client: bool) {
        let names: Vec<MappingName> = self.sides.keys().cloned().collect();
        let name = &names[super::dice::pick(&names, by).unwrap()];
        let key = usize::try_from(by >> 4).unwrap() % KEYS;
        let tick = self.tick;
        // No value is written twice.
        let value = (by >> 12 & 3 != 0).then_some(1_000 + tick);
        let sides = self.sides.get_mut(name).unwrap();
        if is_client {
            sides.write(key, value);
        } else {
            sides.tamper(key, value);
        }
        let who = if is_client { "a client" } else { "somebody who should not" };
        self.tell(|| format!("{who} writes row {key} of {name}: {value:?}"));
    }

    pub fn heal(&mut self) {
        let tick = self.tick;
        self.sides.values_mut().for_each(|sides| sides.heal(tick));
        self.targets.values_mut().for_each(|target| target.is_strange = false);
    }
}

/// Stands for a sync as gates and comparisons see it.
pub(super) fn digest_of(sides: &Sides) -> Digest {
    Digest::of_bytes(format!("{:?}", sides.sync.map(|sync| sync.generation)).as_bytes())
}

/// Whether the journal has a mapping's sides as kept in step.
pub(super) fn is_live(state: &State, mapping: &MappingName) -> bool {
    let is_forward = state.direction(mapping) == Some(Direction::Forward);
    let steps = state.program().steps().iter();
    let mut of_it = steps
        .filter(|step| step.action.mapping() == Some(mapping) && state.is_applied(&step.id))
        .filter_map(|step| match &step.action {
            Action::DualWrite(_) => Some(true),
            Action::StopDualWrite { .. } | Action::Drop { .. } => Some(false),
            Action::Retire(_) if is_forward => Some(false),
            _ => None,
        })
        .peekable();
    of_it.peek().is_some() && of_it.all(|is_in| is_in)
}

pub(super) fn in_part((step, at): &Part) -> String {
    format!("{step}/{}", at + 1)
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
        Event::StepSucceeded { step, attempt, way, outcome } => {
            let verdict = outcome.evidence.as_ref().map(|evidence| evidence.verdict);
            let verdict = verdict.map_or(String::new(), |verdict| format!(", {verdict:?}"));
            format!("{step} succeeded, attempt {attempt} {way:?}{verdict}")
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

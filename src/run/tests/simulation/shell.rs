//! What stands for the engine here: processes that drive the run as `engine::drive` does, one turn at a time, and the attempts that they
//! have in hand, one stage at a time. Between any two of those anything may happen.

use std::collections::BTreeMap;

use super::super::super::*;
use super::super::actor;
use super::dice::pick;
use super::promises;
use super::shapes::OPAQUE;
use super::world::{CHUNK_ROWS, CHUNKS, Lease, Refused, Session, TTL_MS, World};

/// Faults that can be planted in this room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The target takes what a token commits that is not the newest.
    TokenUnchecked,
    /// An effect starts before its record is durable.
    RecordAfterEffect,
    /// A ledger says of a chunk more than there is that it is committed.
    WatermarkTooHigh,
    /// An attempt does not ask the ledger what came of the one before.
    RetriedBlindly,
}

/// The process is over: it lost the lease, or could not tell what its journal has.
pub(super) struct Gone;

pub(super) struct Runner {
    pub id: u64,
    token: u64,
    has_entered: bool,
    pub is_stopped: bool,
    state: State,
    goal: Goal,
    pub tasks: Vec<Task>,
    pub asking: Vec<Asking>,
    /// What is to be appended once its effects have started, where that fault is planted.
    late: Vec<Event>,
}

/// An attempt in hand.
pub(super) struct Task {
    step: StepId,
    attempt: u32,
    way: Way,
    stage: Stage,
    /// The gates whose fingerprints it moves on.
    moves: BTreeMap<StepId, Digest>,
}

enum Stage {
    /// Nothing has been done.
    Begun,
    /// The ledger was asked, and had nothing of it.
    Asked,
    /// A statement outside a transaction was sent.
    Sent,
    /// That statement has ended; the ledger doesn't know yet.
    Answered,
    /// A comparison began then, with this in view.
    Compares(Timestamp, bool),
    /// It is over, and the loop has not heard of it.
    Ended(Observation),
}

/// What is being read for a gate or for a guarded step.
pub(super) struct Asking {
    of: StepId,
    gates: Vec<StepId>,
    is_recheck: bool,
    read: Option<Read>,
}

/// How much the ledger has of the step, and what was read for each gate.
type Read = (Result<Traced, Failure>, Vec<(StepId, Observations)>);

/// What goes wrong with a stage.
#[derive(Clone, Copy)]
pub(super) struct Luck(pub u64);

impl Luck {
    pub const GOOD: Self = Self(15);
}

impl Runner {
    /// A process that has just got the lease, where nobody else has it.
    pub fn start(
        world: &mut World,
        id: u64,
        goal: &Goal,
        is_dead: impl Fn(u64) -> bool,
    ) -> Option<Self> {
        let is_free = world
            .lease
            .as_ref()
            .is_none_or(|lease| lease.expires_at <= world.now || is_dead(lease.holder));
        if !is_free || world.truth.is_ended() {
            return None;
        }
        world.last_token += 1;
        let token = world.last_token;
        world.lease = Some(Lease { holder: id, token, expires_at: world.now.plus_ms(TTL_MS) });
        let state = match replay(&world.journal) {
            Ok(state) => state,
            Err(error) => {
                world.breaks("P2", || error.to_string());
                return None;
            }
        };
        world.tell(|| format!("process {id} takes the run under token {token}"));
        let goal = goal.within(state.program());
        let (tasks, asking, late) = (Vec::new(), Vec::new(), Vec::new());
        let (has_entered, is_stopped) = (false, false);
        Some(Self { id, token, has_entered, is_stopped, state, goal, tasks, asking, late })
    }

    /// One turn of the loop: what others recorded is learned, and what may begin begins.
    pub fn turn(&mut self, world: &mut World, luck: Luck) -> Result<(), Gone> {
        match &mut world.lease {
            Some(lease) if lease.token == self.token && lease.expires_at > world.now => {
                lease.expires_at = world.now.plus_ms(TTL_MS);
            }
            _ => return Err(Gone),
        }
        self.catch_up(world);
        if !self.has_entered {
            self.enter(world, luck);
            return Ok(());
        }
        if !self.late.is_empty() {
            let events = std::mem::take(&mut self.late);
            return self.append(world, events, &[]).map_err(|_| Gone);
        }
        let is_forward = |task: &Task| task.way == Way::Forward;
        if *self.state.standing() != Standing::Forward && self.tasks.iter().any(is_forward) {
            return Ok(());
        }
        if world.has(Fault::RecordAfterEffect) {
            self.late =
                decide(&self.state, &Input::Tick, &self.goal, &engine(), world.now).unwrap();
            for event in self.late.clone() {
                if let Event::StepStarted { step, attempt, way, .. } = event {
                    self.take_up((step, attempt, way));
                }
            }
            if !self.late.is_empty() {
                return Ok(());
            }
        }
        self.feed(world, &Input::Tick, &[])?;
        for effect in ready(&self.state, &self.goal, world.now) {
            match effect {
                Effect::Perform { step, attempt, way, permit } => {
                    if !self.tasks.iter().any(|task| task.step == step) {
                        promises::of_start(world, &step, way, permit.is_some());
                        world.tell(|| format!("process {} begins {step} {way:?}", self.id));
                        self.take_up((step, attempt, way));
                    }
                }
                Effect::ProbeGate { gate } => self.ask(gate.clone(), vec![gate], false),
                Effect::Recheck { step, gates } => {
                    if !self.tasks.iter().any(|task| task.step == step) {
                        self.ask(step, gates, true);
                    }
                }
                Effect::WakeAt(_) => {}
                Effect::Finish { .. } => {
                    if self.tasks.is_empty() && self.asking.is_empty() {
                        return self.finish(world, luck);
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends what earlier holders have under way in the target, and then shuts them out.
    fn enter(&mut self, world: &mut World, luck: Luck) {
        if self.token < world.target.token {
            return;
        }
        let (old, own): (Vec<Session>, Vec<Session>) = std::mem::take(&mut world.target.sessions)
            .into_iter()
            .partition(|session| session.token < self.token);
        world.target.sessions = own;
        for (at, session) in old.into_iter().enumerate() {
            // Ended too late, some of them.
            if luck.0 >> at & 1 == 0 {
                add_effect(world, &session.step);
            }
        }
        world.target.token = self.token;
        self.has_entered = true;
        world.tell(|| format!("process {} has entered the target", self.id));
    }

    fn take_up(&mut self, (step, attempt, way): (StepId, u32, Way)) {
        self.tasks.push(Task { step, attempt, way, stage: Stage::Begun, moves: BTreeMap::new() });
    }

    fn ask(&mut self, of: StepId, gates: Vec<StepId>, is_recheck: bool) {
        if !self.asking.iter().any(|asking| asking.of == of) {
            self.asking.push(Asking { of, gates, is_recheck, read: None });
        }
    }

    /// Our objects go, and then the run is over. Whoever dies between the two leaves that to the next one.
    fn finish(&mut self, world: &mut World, luck: Luck) -> Result<(), Gone> {
        if self.token < world.target.token && !world.has(Fault::TokenUnchecked) {
            return Err(Gone);
        }
        world.target.is_cleared = true;
        if luck.0 == 0 {
            return Err(Gone);
        }
        self.feed(world, &Input::Finished, &[])
    }

    /// Another stage of an attempt.
    pub fn work(&mut self, world: &mut World, by: u64, luck: Luck) -> Result<(), Gone> {
        let Some(at) = pick(&self.tasks, by) else { return Ok(()) };
        let mut task = self.tasks.swap_remove(at);
        if let Stage::Ended(result) = task.stage {
            let Task { step, attempt, way, .. } = task;
            return self.feed(
                world,
                &Input::Ended { step, attempt, way, result, jitter: 0.5 },
                &[],
            );
        }
        task.stage = self.stage(world, &mut task, by / 7, luck)?;
        self.tasks.push(task);
        Ok(())
    }

    fn stage(
        &self,
        world: &mut World,
        task: &mut Task,
        by: u64,
        luck: Luck,
    ) -> Result<Stage, Gone> {
        let definition = world.truth.program().step(&task.step).unwrap().clone();
        let is_outside = matches!(&definition.action, Action::Sql(script) if script.transaction == Transaction::None);
        let is_in = world.target.ledger.contains(&task.step);
        let is_done = match task.way {
            Way::Forward => is_in,
            Way::Back => traced(world, &task.step, Way::Back) == Traced::Whole,
        };
        let halts = self.state.paused().is_some()
            || *self.state.standing() != Standing::Forward && task.way == Way::Forward;
        Ok(match (&task.stage, &definition.action) {
            (Stage::Begun, Action::Verify(_)) => Stage::Compares(world.now, world.differs),
            (Stage::Compares(began, differs), _) => match luck.0 {
                0 => failing(world, task, FailureClass::Unreachable),
                1 => Stage::Ended(Observation::Interrupted),
                _ => Stage::Ended(compared(world, *began, *differs)),
            },
            (Stage::Begun, _) => match luck.0 {
                0 => failing(world, task, FailureClass::Unknown),
                1 => Stage::Ended(Observation::Interrupted),
                2..=3 if !is_in => failing(world, task, class(by)),
                _ if is_done
                    && !(world.has(Fault::RetriedBlindly)
                        && task.attempt > 1
                        && task.way == Way::Forward) =>
                {
                    Stage::Ended(Observation::Done(outcome(world, task)))
                }
                _ => {
                    task.moves = unchanged(world);
                    self.begun_before(world, task, is_outside)
                }
            },
            (Stage::Asked, Action::Backfill(_)) if task.way == Way::Forward => {
                if halts {
                    return Ok(Stage::Ended(Observation::Interrupted));
                }
                self.chunk(world, task, by, luck)?
            }
            (Stage::Asked, _) if is_outside && task.way == Way::Forward => {
                self.fenced(world, task)?;
                world.target.marks.insert(task.step.clone(), self.state.version());
                let session = Session { step: task.step.clone(), token: self.token };
                world.target.sessions.push(session);
                Stage::Sent
            }
            (Stage::Sent, _) => {
                if luck.0 == 0 {
                    // The connection is lost, and the statement goes on.
                    return Ok(failing(world, task, FailureClass::Unknown));
                }
                let sessions = &mut world.target.sessions;
                if let Some(at) = sessions.iter().position(|session| session.step == task.step) {
                    sessions.remove(at);
                    if luck.0 == 1 {
                        // The server says that nothing came of it, and the mark goes.
                        world.target.marks.remove(&task.step);
                        return Ok(failing(world, task, FailureClass::Refused));
                    }
                    add_effect(world, &task.step);
                } else if !world.target.effects.contains_key(&task.step) {
                    // Somebody ended it.
                    return Ok(failing(world, task, FailureClass::Unknown));
                }
                Stage::Answered
            }
            (Stage::Asked | Stage::Answered, _) => self.commit(world, task, by, luck)?,
            (Stage::Ended(_), _) => unreachable!("what has ended is told to the loop"),
        })
    }

    /// What an earlier attempt outside a transaction may have left.
    fn begun_before(&self, world: &World, task: &Task, is_outside: bool) -> Stage {
        let is_blind = world.has(Fault::RetriedBlindly);
        let mark = world.target.marks.get(&task.step).filter(|_| is_outside && !is_blind);
        let (Way::Forward, Some(marked_at)) = (task.way, mark) else { return Stage::Asked };
        if world.target.sessions.iter().any(|session| session.step == task.step) {
            // Somebody is still at it.
            return failing(world, task, FailureClass::Contention);
        }
        // An answer is about what was begun before it.
        let told = self.state.step(&task.step).resolved.filter(|told| told.version > *marked_at);
        match told.map(|told| told.outcome) {
            Some(Resolution::Applied) => return Stage::Answered,
            Some(Resolution::NotApplied) => return Stage::Asked,
            None => {}
        }
        if task.step.as_str() == OPAQUE {
            let detail = "it may have been done".to_owned();
            return Stage::Ended(Observation::Ambiguous { detail, has_left: false });
        }
        match world.target.effects.get(&task.step) {
            Some(1) => Stage::Answered,
            _ => Stage::Asked,
        }
    }

    /// Commits what a step does together with its row in the ledger.
    fn commit(&self, world: &mut World, task: &Task, by: u64, luck: Luck) -> Result<Stage, Gone> {
        let lost = |world: &World, class| Ok(failing(world, task, class));
        match luck.0 {
            0 => return lost(world, FailureClass::Unreachable),
            1 if by.is_multiple_of(2) => return lost(world, FailureClass::Unknown),
            _ => {}
        }
        self.fenced(world, task)?;
        promises::of_commit(world, self.token, (&task.step, task.attempt, task.way));
        match task.way {
            Way::Forward => {
                if matches!(task.stage, Stage::Asked) {
                    add_effect(world, &task.step);
                }
                world.target.marks.remove(&task.step);
                world.target.ledger.insert(task.step.clone());
            }
            Way::Back => {
                world.target.ledger.remove(&task.step);
                world.target.marks.remove(&task.step);
                world.target.effects.remove(&task.step);
                if task.step.as_str() == "copy" {
                    world.target.copy = super::world::Copy::default();
                }
            }
        }
        world.tell(|| format!("process {} commits {} {:?}", self.id, task.step, task.way));
        match luck.0 {
            // It was committed, and nobody hears of it.
            1 | 2 => lost(world, FailureClass::Unknown),
            3 => Err(Gone),
            _ => Ok(Stage::Ended(Observation::Done(outcome(world, task)))),
        }
    }

    /// Plans a chunk, copies one that is open, or finds that all are copied.
    fn chunk(&self, world: &mut World, task: &Task, by: u64, luck: Luck) -> Result<Stage, Gone> {
        let open = world.target.copy.open();
        let plans = world.target.copy.planned < CHUNKS && (open.is_empty() || by.is_multiple_of(3));
        if !plans && open.is_empty() {
            return self.commit(world, task, by, luck);
        }
        if luck.0 == 0 {
            return Ok(failing(world, task, FailureClass::Unreachable));
        }
        self.fenced(world, task)?;
        promises::of_commit(world, self.token, (&task.step, task.attempt, task.way));
        if !world.target.ledger.contains("sync") {
            world.breaks("P4", || "a chunk is copied that no sync covers".to_owned());
        }
        let is_too_high = world.has(Fault::WatermarkTooHigh);
        let copy = &mut world.target.copy;
        if plans {
            copy.planned += 1;
            return Ok(Stage::Asked);
        }
        let seq = open[pick(&open, by).unwrap()];
        copy.done.insert(seq);
        *copy.written.entry(seq).or_default() += 1;
        copy.rows += CHUNK_ROWS;
        copy.fold(is_too_high);
        if copy.written.get(&seq) != Some(&1) {
            world.breaks("P3", || format!("chunk {seq} is copied twice"));
        }
        Ok(match luck.0 {
            1 => failing(world, task, FailureClass::Unknown),
            2 => failing(world, task, FailureClass::Contention),
            _ => Stage::Asked,
        })
    }

    /// Every transaction checks the token.
    fn fenced(&self, world: &mut World, task: &Task) -> Result<(), Gone> {
        if self.token >= world.target.token || world.has(Fault::TokenUnchecked) {
            return Ok(());
        }
        world.tell(|| format!("process {} is shut out with {}", self.id, task.step));
        Err(Gone)
    }

    /// Reads what a gate or a guarded step asks, or tells the loop what was read.
    pub fn look(&mut self, world: &mut World, by: u64, luck: Luck) -> Result<(), Gone> {
        let Some(at) = pick(&self.asking, by) else { return Ok(()) };
        let Some((ledger, seen)) = self.asking[at].read.take() else {
            let unread = || Err(failed(FailureClass::Unreachable));
            let asking = &mut self.asking[at];
            let ledger =
                if luck.0 == 0 { unread() } else { Ok(traced(world, &asking.of, Way::Forward)) };
            let one = || if luck.0 == 1 { unreadable() } else { world.seen() };
            let seen = asking.gates.iter().map(|gate| (gate.clone(), one())).collect();
            asking.read = Some((ledger, seen));
            return Ok(());
        };
        let Asking { of, is_recheck, .. } = self.asking.swap_remove(at);
        let input = if is_recheck {
            Input::Rechecked { step: of, ledger, jitter: 0.5, seen: seen.clone() }
        } else {
            Input::Probed { gate: of, seen: seen[0].1.clone() }
        };
        self.feed(world, &input, &seen)
    }

    fn catch_up(&mut self, world: &World) {
        let known = usize::try_from(self.state.version()).unwrap();
        for record in &world.journal[known..] {
            apply(&mut self.state, record).unwrap();
        }
        self.goal = self.goal.within(self.state.program());
    }

    fn feed(
        &mut self,
        world: &mut World,
        input: &Input,
        seen: &[(StepId, Observations)],
    ) -> Result<(), Gone> {
        loop {
            let events = decide(&self.state, input, &self.goal, &engine(), world.now).unwrap();
            if events.is_empty() {
                return Ok(());
            }
            match self.append(world, events, seen) {
                Err(Refused::Conflict) => self.catch_up(world),
                Err(Refused::LeaseLost | Refused::Unknown) => return Err(Gone),
                Ok(()) => return Ok(()),
            }
        }
    }

    fn append(
        &mut self,
        world: &mut World,
        events: Vec<Event>,
        seen: &[(StepId, Observations)],
    ) -> Result<(), Refused> {
        let version = self.state.version();
        for record in world.append(Some(self.token), version, &engine(), events, seen)? {
            apply(&mut self.state, &record).unwrap();
        }
        Ok(())
    }

    /// What is ready is only what waits for people and times.
    pub fn rests(&self, world: &World) -> Result<Vec<StepId>, String> {
        ready(&self.state, &self.goal, world.now)
            .into_iter()
            .filter(|effect| !matches!(effect, Effect::WakeAt(_)))
            .map(|effect| match effect {
                Effect::ProbeGate { gate } => Ok(gate),
                other => Err(format!("{other:?} is never done")),
            })
            .collect()
    }

    /// Why it does not go on, its gates being shut.
    pub fn stops(&self, world: &World, gates: &[StepId]) -> Option<Stop> {
        let shut: Vec<GateReport> =
            gates.iter().map(|gate| report(&self.state, gate, &world.seen(), world.now)).collect();
        stop(&self.state, &self.goal, &shut)
    }

    /// When something begins by itself.
    pub fn wakes_at(&self, world: &World) -> Option<Timestamp> {
        ready(&self.state, &self.goal, world.now).into_iter().find_map(|effect| match effect {
            Effect::WakeAt(at) => Some(at),
            _ => None,
        })
    }
}

fn outcome(world: &World, task: &Task) -> Outcome {
    let rows = (task.step.as_str() == "copy").then_some(world.target.copy.rows);
    Outcome { rows, fingerprints: world.moved(&task.moves), ..Outcome::default() }
}

fn engine() -> Actor {
    actor("phasegate")
}

/// The gates behind which nobody else has changed anything, which a step of the run may move on.
fn unchanged(world: &World) -> BTreeMap<StepId, Digest> {
    let seen = world.seen();
    let Some(Ok(facts)) = seen.targets.get("app") else { return BTreeMap::new() };
    let gates = world.truth.gates.iter().filter(|(_, known)| known.work.is_some());
    gates
        .filter_map(|(gate, known)| Some((gate.clone(), known.expected.get("app")?.clone())))
        .filter(|(_, expected)| *expected == facts.fingerprint)
        .collect()
}

/// What a step does is there once more.
pub(super) fn add_effect(world: &mut World, step: &StepId) {
    *world.target.effects.entry(step.clone()).or_default() += 1;
    promises::of_effect(world, step);
}

fn compared(world: &World, began_at: Timestamp, differs: bool) -> Observation {
    let evidence = Evidence {
        resumed: false,
        sync: None,
        verdict: if differs { Verdict::Fail } else { Verdict::Pass },
        began_at,
        ended_at: world.now,
        rows: 10,
        missing: u64::from(differs),
        extra: 0,
        different: 0,
        samples: Vec::new(),
    };
    if differs {
        Observation::Differs(evidence)
    } else {
        Observation::Done(Outcome { evidence: Some(evidence), ..Outcome::default() })
    }
}

/// How much of a step the ledger has.
fn traced(world: &World, step: &StepId, way: Way) -> Traced {
    let (is_in, is_marked) =
        (world.target.ledger.contains(step), world.target.marks.contains_key(step));
    let is_begun = is_marked || step.as_str() == "copy" && world.target.copy.planned > 0;
    match way {
        Way::Forward if is_in => Traced::Whole,
        // Of a copy only its end is in that part of the ledger.
        Way::Forward if is_marked => Traced::InDoubt,
        Way::Back if !is_in && !is_begun => Traced::Whole,
        Way::Forward | Way::Back => Traced::Nothing,
    }
}

/// A failure with what the ledger has of it, as the engine makes it. Now and then the ledger doesn't answer.
fn failing(world: &World, task: &Task, class: FailureClass) -> Stage {
    let changes = world.truth.program().step(&task.step).unwrap().action.changes_data();
    let answers = !world.now.since_ms(Timestamp::from_unix_ms(0)).is_multiple_of(5);
    let is_open = retry::is_transient(class) || class == FailureClass::TimedOut;
    let traced = traced(world, &task.step, task.way);
    let class = match traced {
        _ if !changes || class == FailureClass::Refused => class,
        _ if !answers && is_open => FailureClass::Unknown,
        Traced::Whole if answers => FailureClass::Unknown,
        Traced::Nothing if answers && class == FailureClass::Unknown => FailureClass::Unreachable,
        _ => class,
    };
    let committed = changes && (!answers || traced != Traced::Nothing);
    Stage::Ended(Observation::Failed(failed(class), Some(committed)))
}

fn unreadable() -> Observations {
    Observations {
        targets: BTreeMap::from([("app".into(), Err("no connection".into()))]),
        ..Observations::default()
    }
}

fn class(by: u64) -> FailureClass {
    const CLASSES: [FailureClass; 10] = [
        FailureClass::Contention,
        FailureClass::Unreachable,
        FailureClass::TimedOut,
        FailureClass::Refused,
        FailureClass::NotPermitted,
        FailureClass::Full,
        FailureClass::Damaged,
        FailureClass::Stale,
        FailureClass::Unsafe,
        FailureClass::Cancelled,
    ];
    CLASSES[pick(&CLASSES, by).unwrap()]
}

fn failed(class: FailureClass) -> Failure {
    Failure {
        class,
        code: None,
        message: "no".into(),
        detail: None,
        help: None,
        line: None,
        private: Vec::new(),
    }
}

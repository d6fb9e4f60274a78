//! What stands for the engine here: processes that drive the run as `engine::drive` does, one turn at a time. Between any two turns anything
//! may happen.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::*;
use super::super::actor;
use super::attempt::{Stage, Task};
use super::dice::pick;
use super::promises;
use super::shapes::APP;
use super::target::Session;
use super::world::{Lease, Refused, Seen, TTL_MS, World};

/// Faults that can be planted in this room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The target takes what a token commits that is not the newest.
    TokenUnchecked,
    /// Only one of the targets is entered.
    OneEntered,
    /// An effect starts before its record is durable.
    RecordAfterEffect,
    /// A ledger says of a chunk more than there is that it is committed.
    WatermarkTooHigh,
    /// What is done and its row in the ledger are two transactions.
    LedgerApart,
    /// An attempt does not ask the ledger what came of the one before.
    RetriedBlindly,
    /// A script outside a transaction begins anew, whatever the ledger has of its statements.
    PartsRunAgain,
    /// A copy ends while chunks of it are in flight.
    DoneTooEarly,
    /// A copy has as many chunks in flight as it likes.
    TuningIgnored,
    /// A chunk is written over what a client wrote meanwhile.
    ChunkOverwrites,
    /// A chunk brings back what a client deleted meanwhile.
    ChunkResurrects,
    /// A comparison that was cancelled passes.
    CancelledPasses,
    /// A comparison passes over a part.
    PartSkipped,
    /// What only the new side has is thrown away unasked.
    LossUnasked,
}

/// The process is over: it lost the lease, or could not tell what its journal has.
pub(super) struct Gone;

pub(super) struct Runner {
    pub id: u64,
    pub token: u64,
    /// The databases that it has entered.
    entered: BTreeSet<TargetName>,
    pub is_stopped: bool,
    pub state: State,
    goal: Goal,
    pub tasks: Vec<Task>,
    pub asking: Vec<Asking>,
    /// What is to be appended once its effects have started, where that fault is planted.
    late: Vec<Event>,
}

/// What is being read for a gate or for a guarded step.
pub(super) struct Asking {
    of: StepId,
    gates: Vec<StepId>,
    is_recheck: bool,
    /// How many attempts there had been then.
    attempts: u32,
    read: Option<Read>,
}

/// How much the ledger has of the step, and what was read for each gate.
type Read = (Result<Traced, Failure>, Seen);

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
        let (entered, is_stopped) = (BTreeSet::new(), false);
        Some(Self { id, token, entered, is_stopped, state, goal, tasks, asking, late })
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
        if let Some(next) = self.to_enter(world) {
            self.enter(world, next, luck);
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
                    self.take_up((&step, attempt, way));
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
                    if !self.tasks.iter().any(|task| task.step.id == step) {
                        promises::of_start(world, &step, way, permit.is_some());
                        world.tell(|| format!("process {} begins {step} {way:?}", self.id));
                        self.take_up((&step, attempt, way));
                    }
                }
                Effect::ProbeGate { gate } => self.ask(gate.clone(), vec![gate], false),
                Effect::Recheck { step, gates } => {
                    if !self.tasks.iter().any(|task| task.step.id == step) {
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

    /// The next database to enter. Nothing begins before all are entered.
    fn to_enter(&self, world: &World) -> Option<TargetName> {
        let only_one = world.has(Fault::OneEntered) && !self.entered.is_empty();
        let next = world.targets.keys().find(|name| !self.entered.contains(*name));
        next.filter(|_| !only_one).cloned()
    }

    /// Ends what earlier holders have under way in a target, and then shuts them out.
    fn enter(&mut self, world: &mut World, name: TargetName, luck: Luck) {
        let target = world.targets.get_mut(&name).unwrap();
        if self.token < target.token {
            return;
        }
        let (old, own): (Vec<Session>, Vec<Session>) = std::mem::take(&mut target.sessions)
            .into_iter()
            .partition(|session| session.token < self.token);
        target.sessions = own;
        target.token = self.token;
        for (at, session) in old.into_iter().enumerate() {
            // Ended too late, some of them.
            if luck.0 >> at & 1 == 0 {
                world.add_effect(&name, &session.part);
            }
        }
        world.tell(|| format!("process {} has entered {name}", self.id));
        self.entered.insert(name);
    }

    fn take_up(&mut self, attempt: (&StepId, u32, Way)) {
        self.tasks.extend(Task::new(&self.state, attempt));
    }

    fn ask(&mut self, of: StepId, gates: Vec<StepId>, is_recheck: bool) {
        if !self.asking.iter().any(|asking| asking.of == of) {
            let attempts = self.state.step(&of).attempts;
            self.asking.push(Asking { of, gates, is_recheck, attempts, read: None });
        }
    }

    /// Our objects go, and then the run is over. Whoever dies between the two leaves that to the next one.
    fn finish(&mut self, world: &mut World, luck: Luck) -> Result<(), Gone> {
        let is_unchecked = world.has(Fault::TokenUnchecked);
        for target in world.targets.values_mut() {
            if self.token < target.token && !is_unchecked {
                return Err(Gone);
            }
            target.is_cleared = true;
            if luck.0 == 0 {
                return Err(Gone);
            }
        }
        if luck.0 == 1 {
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
            let step = step.id;
            let input = Input::Ended { step, attempt, way, result, jitter: 0.5 };
            return self.feed(world, &input, &[]);
        }
        task.stage = self.stage(world, &mut task, (by / 7, luck))?;
        self.tasks.push(task);
        Ok(())
    }

    /// An answer comes once more.
    pub fn hear_again(&mut self, world: &mut World, by: u64) -> Result<(), Gone> {
        let heard: Vec<_> = world.heard.iter().cloned().collect();
        let Some(at) = pick(&heard, by) else { return Ok(()) };
        let (input, seen) = &heard[at];
        world.tell(|| format!("process {} hears once more: {}", self.id, heard_of(input)));
        self.feed(world, input, seen)
    }

    /// Reads what a gate or a guarded step asks, or tells the loop what was read.
    pub fn look(&mut self, world: &mut World, by: u64, luck: Luck) -> Result<(), Gone> {
        let Some(at) = pick(&self.asking, by) else { return Ok(()) };
        let Some((ledger, seen)) = self.asking[at].read.take() else {
            let asking = &mut self.asking[at];
            // A plan may have been amended since.
            let Some(step) = world.truth.program().step(&asking.of).cloned() else {
                self.asking.swap_remove(at);
                return Ok(());
            };
            let ledger = match luck.0 {
                0 => Err(failed(FailureClass::Unreachable)),
                _ if !asking.is_recheck => Ok(Traced::Nothing),
                _ => Ok(world.traced(&step, Way::Forward)),
            };
            let one = |gate| if luck.0 == 1 { unreadable() } else { world.seen(gate) };
            let seen = asking.gates.iter().map(|gate| (gate.clone(), one(gate))).collect();
            asking.read = Some((ledger, seen));
            return Ok(());
        };
        let Asking { of, is_recheck, attempts, .. } = self.asking.swap_remove(at);
        let input = if is_recheck {
            Input::Rechecked { step: of, attempts, ledger, jitter: 0.5, seen: seen.clone() }
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
            let before = world.truth.version();
            let taken = if events.is_empty() { Ok(()) } else { self.append(world, events, seen) };
            if taken.is_ok() || world.truth.version() > before {
                world.hears(input, seen);
            }
            match taken {
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
        let read = |gate| report(&self.state, gate, &world.seen(gate), world.now);
        let shut: Vec<GateReport> = gates.iter().map(read).collect();
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

fn engine() -> Actor {
    actor("phasegate")
}

fn heard_of(input: &Input) -> String {
    match input {
        Input::Ended { step, attempt, way, result, .. } => {
            let result = match result {
                Observation::Done(_) => "done",
                Observation::Differs(_) => "differs",
                Observation::Failed(..) => "failed",
                Observation::Ambiguous { .. } => "ambiguous",
                Observation::Interrupted => "interrupted",
            };
            format!("attempt {attempt} at {step} {way:?}: {result}")
        }
        Input::Rechecked { step, ledger, .. } => format!("what {step} may start by: {ledger:?}"),
        Input::Probed { gate, .. } => format!("what {gate} asks"),
        other => format!("{other:?}"),
    }
}

fn unreadable() -> Observations {
    Observations {
        targets: BTreeMap::from([(APP.into(), Err("no connection".into()))]),
        ..Observations::default()
    }
}

pub(super) fn failed(class: FailureClass) -> Failure {
    super::super::failure(class)
}

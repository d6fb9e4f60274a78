//! What happens in a world, and to whom.

use super::super::super::*;
use super::super::actor;
use super::dice::{Dice, pick};
use super::shapes;
use super::shell::{Gone, Luck, Runner};
use super::target::Mark;
use super::world::{Fate, World};
use super::{Fault, promises};

/// How many moves a history has.
const MOVES: u64 = 150;
/// How many processes there are at a time.
const RUNNERS_MAX: usize = 3;
/// How many turns without trouble a history begins with, at most.
const CALM_ROUNDS: u64 = 20;
/// How often operators do all that they can to help: two gates, one after the other, may have to wait for approvals and soaks, from a
/// time that the clock has gone back behind.
const HELPED_ROUNDS: u32 = 8;
/// How many turns a world in which all goes well has to come to rest.
const CALM_TURNS: u32 = 400;

/// Something that happens. Which process, which attempt or which operator is meant is taken from the number, so that any move means
/// something in any world, and moves can be left out of a history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    kind: Kind,
    by: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Turn,
    Work,
    Look,
    Start,
    Kill,
    Stop,
    Go,
    Append,
    Pass,
    Statement,
    /// Somebody changes the schema.
    Stranger,
    /// A client writes.
    Client,
    /// Somebody writes to the new side, or puts it right, or switches the sync off or on.
    Meddle,
    /// An answer comes once more.
    Again,
    Ask,
}

/// What happens how often.
const KINDS: [(Kind, u64); 15] = [
    (Kind::Turn, 30),
    (Kind::Work, 30),
    (Kind::Look, 16),
    (Kind::Start, 7),
    (Kind::Kill, 3),
    (Kind::Stop, 2),
    (Kind::Go, 2),
    (Kind::Append, 2),
    (Kind::Pass, 5),
    (Kind::Statement, 1),
    (Kind::Stranger, 1),
    (Kind::Client, 12),
    (Kind::Meddle, 3),
    (Kind::Again, 5),
    (Kind::Ask, 15),
];

pub(super) fn moves(dice: &mut Dice) -> Vec<Move> {
    let all: u64 = KINDS.iter().map(|(_, weight)| weight).sum();
    let drawn = (0..MOVES).map(|_| {
        let mut at = dice.roll(all);
        let kind = KINDS.iter().find(|(_, weight)| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        });
        Move { kind: kind.unwrap().0, by: dice.roll(1 << 30) }
    });
    drawn.collect()
}

/// One world and who is in it.
pub(super) struct History {
    pub world: World,
    runners: Vec<Runner>,
    born: u64,
}

impl History {
    pub fn new(seed: u64, fault: Option<Fault>, is_told: bool) -> Self {
        let pin = shapes::drawn(&mut Dice::new(seed));
        let fault = match fault {
            Some(Fault::Shell(fault)) => Some(fault),
            _ => None,
        };
        let mut history =
            Self { world: World::new(pin, fault, is_told), runners: Vec::new(), born: 0 };
        history.comes_far(Dice::new(seed ^ 1).roll(CALM_ROUNDS));
        history
    }

    /// What matters most happens late: the first turns may be without trouble.
    fn comes_far(&mut self, rounds: u64) {
        if rounds > 0 {
            // To the end of its plan.
            self.start(1 << 4);
        }
        for _ in 0..rounds {
            self.world.tick += 1;
            let Some(runner) = self.runners.first_mut() else { return };
            if !has_a_good_turn(runner, &mut self.world) {
                self.runners.clear();
            }
            self.approve_all();
        }
    }

    /// Something happens, and then the promises are looked at.
    pub fn happens(&mut self, one: Move) {
        self.world.tick += 1;
        self.goes_on(one);
        promises::of_world(&mut self.world);
    }

    fn goes_on(&mut self, Move { kind, by }: Move) {
        let luck = Luck(by >> 8 & 15);
        match kind {
            Kind::Turn => self.with_a_runner(by, |runner, world| runner.turn(world, luck)),
            Kind::Work => {
                self.with_a_runner(by, |runner, world| runner.work(world, by >> 12, luck));
            }
            Kind::Look => {
                self.with_a_runner(by, |runner, world| runner.look(world, by >> 12, luck));
            }
            Kind::Start => self.start(by),
            Kind::Kill => {
                if let Some(at) = pick(&self.runners, by) {
                    let gone = self.runners.swap_remove(at);
                    self.world.tell(|| format!("process {} is killed", gone.id));
                }
            }
            Kind::Stop | Kind::Go => {
                if let Some(at) = pick(&self.runners, by) {
                    let runner = &mut self.runners[at];
                    runner.is_stopped = kind == Kind::Stop;
                    let (id, how) =
                        (runner.id, if runner.is_stopped { "stops" } else { "goes on" });
                    self.world.tell(|| format!("process {id} {how}"));
                }
            }
            Kind::Append => {
                self.world.append_fate =
                    if by.is_multiple_of(2) { Fate::Lost } else { Fate::Unheard };
            }
            Kind::Pass => self.time_passes(by),
            Kind::Statement => self.statement_ends(by),
            Kind::Stranger => {
                let target = self.world.targets.values_mut().nth(usize::from(by & 16 == 0));
                if let Some(target) = target {
                    target.is_strange = by.is_multiple_of(3);
                    self.world.tell(|| "somebody else has changed the schema".to_owned());
                }
            }
            Kind::Client => self.world.is_written(by, true),
            Kind::Meddle => self.meddle(by),
            Kind::Again => {
                self.with_a_runner(by, |runner, world| runner.hear_again(world, by >> 12));
            }
            Kind::Ask => self.operator(by),
        }
    }

    /// A statement that goes on by itself comes to its end, or to nothing.
    fn statement_ends(&mut self, by: u64) {
        let targets = self.world.targets.iter().filter(|(_, target)| !target.sessions.is_empty());
        let names: Vec<TargetName> = targets.map(|(name, _)| name.clone()).collect();
        let Some(name) = pick(&names, by).map(|at| &names[at]) else { return };
        let sessions = &mut self.world.targets.get_mut(name).unwrap().sessions;
        let session = sessions.swap_remove(pick(sessions, by >> 4).unwrap());
        if by >> 8 & 1 == 0 {
            self.world.add_effect(name, &session.part);
        }
    }

    fn meddle(&mut self, by: u64) {
        match by >> 16 & 3 {
            0 => self.world.is_written(by, false),
            1 => {
                self.world.heal();
                self.world.tell(|| "somebody puts right what was meddled with".to_owned());
            }
            _ => {
                let tick = self.world.tick;
                let at = usize::from(by & 16 == 0);
                if let Some((name, sides)) = self.world.sides.iter_mut().nth(at) {
                    sides.switch_sync(tick);
                    let told = format!("somebody switches the sync of {name}: {:?}", sides.sync);
                    self.world.tell(|| told);
                }
            }
        }
    }

    fn with_a_runner(
        &mut self,
        by: u64,
        what: impl FnOnce(&mut Runner, &mut World) -> Result<(), Gone>,
    ) {
        let Some(at) = pick(&self.runners, by) else { return self.start(by) };
        if self.runners[at].is_stopped {
            return;
        }
        if what(&mut self.runners[at], &mut self.world).is_err() {
            let gone = self.runners.swap_remove(at);
            self.world.tell(|| format!("process {} ends itself", gone.id));
        }
    }

    fn start(&mut self, by: u64) {
        if self.runners.len() >= RUNNERS_MAX {
            return;
        }
        self.born += 1;
        let order = self.world.truth.program().order();
        let goal = match by >> 4 & 3 {
            0 => {
                let step = order[pick(order, by >> 8).unwrap()].clone();
                let needed = self.world.truth.program().needed_by(&step);
                Goal::Through(needed.into_iter().chain([step]).collect())
            }
            _ => Goal::End,
        };
        let living: Vec<u64> = self.runners.iter().map(|runner| runner.id).collect();
        let is_dead = |id| !living.contains(&id);
        self.runners.extend(Runner::start(&mut self.world, self.born, &goal, is_dead));
    }

    /// Mostly a little, at times much, and at times the clock goes back.
    fn time_passes(&mut self, by: u64) {
        let now = self.world.now;
        self.world.now = match by % 12 {
            0 => now.minus_ms((by >> 4) % 3_000),
            1..=3 => now.plus_ms((by >> 4) % 50_000),
            _ => now.plus_ms((by >> 4) % 4_000),
        };
        self.world.tell(|| "time passes".to_owned());
    }

    /// Whether what was asked for is in the journal.
    fn ask(&mut self, by: &str, command: Command) -> bool {
        let (by, now) = (actor(by), self.world.now);
        let asks = self.world.told.is_some().then(|| asked(&command));
        let decided = decide(&self.world.truth, &Input::Asked(command), &Goal::End, &by, now);
        let before = self.world.truth.version();
        if let Ok(events) = decided {
            self.world.tell(|| format!("{} asks for {}", by.name, asks.unwrap_or_default()));
            let _ = self.world.append(None, before, &by, events, &[]);
        }
        self.world.truth.version() > before
    }

    fn approve(&mut self, by: &str, gate: &StepId) {
        let (gate, work) = (gate.clone(), None);
        self.ask(by, Command::Approve { gate, work, group: None, comment: None });
    }

    fn approve_all(&mut self) {
        for gate in self.gates() {
            self.approve("ben", &gate);
            self.approve("chloe", &gate);
        }
    }

    fn gates(&self) -> Vec<StepId> {
        let steps = self.world.truth.program().steps().iter();
        let gates = steps.filter(|step| matches!(step.action, Action::Gate(_)));
        gates.map(|step| step.id.clone()).collect()
    }

    fn operator(&mut self, by: u64) {
        let gates = self.gates();
        let gate = gates[pick(&gates, by >> 8).unwrap()].clone();
        let more = by >> 12;
        match by % 18 {
            0..=2 => self.approve("ben", &gate),
            3 | 4 => self.approve("chloe", &gate),
            5 => drop(self.ask("ben", Command::Revoke { gate })),
            6 => drop(self.ask("eve", Command::Reject { gate, reason: "no".into() })),
            7 | 8 => drop(self.ask("eve", Command::Revoke { gate })),
            9 | 10 => drop(self.ask("ana", Command::Retry)),
            11 => drop(self.ask("ana", Command::Pause { reason: None })),
            12 => drop(self.ask("ana", Command::Resume)),
            13 => self.resolve(),
            14 => match more % 6 {
                0 | 1 => self.roll_back(more / 6),
                2 => {
                    let (reason, leave) = (Some("enough".to_owned()), more % 12 == 2);
                    self.ask("ana", Command::Abort { leave, reason });
                }
                _ => self.release_lock(more / 6),
            },
            15 => self.tune(more),
            _ => self.amend(more),
        }
    }

    /// With no loss accepted, with that of some mappings, or of one that there is not.
    fn roll_back(&mut self, by: u64) {
        let some: [&[&str]; 4] = [&[], &["leads"], &["leads", "people"], &["nobody"]];
        let accept_loss = some[pick(&some, by).unwrap()].iter().map(|name| (*name).into());
        self.ask("ana", Command::Rollback { accept_loss: accept_loss.collect() });
    }

    /// Whoever holds the lease is not asked, and may not even notice for a while.
    fn release_lock(&mut self, by: u64) {
        let Some(lease) = &self.world.lease else { return };
        let holder = format!("process {}", lease.holder);
        let reason = if by.is_multiple_of(4) { " ".to_owned() } else { "it hangs".to_owned() };
        let lock = self.world.truth.run().clone();
        let is_told = !reason.trim().is_empty();
        if self.ask("ana", Command::ReleaseLock { lock, holder, reason }) {
            self.world.lease = None;
            if !is_told {
                self.world.breaks("P6", || "a lock was taken away for no reason".to_owned());
            }
        }
    }

    fn tune(&mut self, by: u64) {
        let workers = Some(u32::try_from(by % 5).unwrap());
        let steps = ["copy", "people-copy", "create"];
        let step = pick(&[(); 4], by / 5).and_then(|at| steps.get(at)).map(|step| (*step).into());
        let pause_between_ms = by.is_multiple_of(3).then_some(by % 100);
        let tuning = Tuning { pause_between_ms, workers, ..Tuning::NONE };
        if self.ask("ana", Command::Tune { step, tuning }) && workers == Some(0) {
            self.world.breaks("P10", || "a copy without workers was taken".to_owned());
        }
    }

    /// Somebody has looked, and says what came of what nobody could tell.
    fn resolve(&mut self) {
        let steps = self.world.truth.program().steps().to_vec();
        for step in steps {
            let is_open =
                matches!(self.world.truth.step(&step.id).progress, Progress::Ambiguous { .. });
            if !is_open || self.world.is_under_way(&step.id) {
                continue;
            }
            let target = self.world.target_of(&step);
            let begun =
                target.marks_of(&step.id).find(|(_, mark)| matches!(mark, Mark::Begun { .. }));
            let is_there = begun.is_some_and(|(part, _)| target.effects.contains_key(part));
            let outcome = if is_there { Resolution::Applied } else { Resolution::NotApplied };
            let (step, reason) = (step.id, "looked".into());
            self.ask("ana", Command::Resolve { step, outcome, reason, attempt: None });
        }
    }

    /// Another plan.
    fn amend(&mut self, by: u64) {
        let pin = shapes::amended(self.world.truth.program(), by);
        self.ask("chloe", Command::Amend { pin: Box::new(pin) });
    }

    /// One process in a world where all goes well comes to an end, or there is a reason why it does not.
    fn comes_to_rest(&mut self) {
        self.runners.clear();
        self.world.append_fate = Fate::Well;
        self.world.heal();
        self.born += 1;
        let started = Runner::start(&mut self.world, self.born, &Goal::End, |_| true);
        let Some(mut runner) = started else { return };
        for _ in 0..CALM_TURNS {
            self.world.tick += 1;
            let before = self.stands();
            if !has_a_good_turn(&mut runner, &mut self.world) {
                self.world.breaks("P6", || "nobody else is there, and it loses its lease".into());
                return;
            }
            promises::of_world(&mut self.world);
            if self.world.broken.is_some() {
                return;
            }
            if let Some(at) = runner.wakes_at(&self.world) {
                self.world.now = self.world.now.max(at);
            }
            if self.stands() == before {
                match runner.rests(&self.world) {
                    Ok(gates) if runner.stops(&self.world, &gates).is_some() => {}
                    Ok(_) => self.world.breaks("end", || "it hangs for no reason".into()),
                    Err(why) => self.world.breaks("end", || why),
                }
                return;
            }
        }
        self.world.breaks("end", || "it goes on for ever".into());
    }

    /// How far everything is.
    fn stands(&self) -> (u64, Timestamp, Vec<u64>) {
        let entered = self.world.targets.values().map(|target| target.token);
        (self.world.truth.version(), self.world.now, entered.collect())
    }

    /// With the help of operators a run ends.
    pub fn ends(&mut self) {
        self.comes_to_rest();
        for _ in 0..HELPED_ROUNDS {
            if self.ending().is_some() {
                break;
            }
            self.ask("ana", Command::Resume);
            self.ask("ana", Command::Retry);
            self.resolve();
            for gate in self.gates() {
                self.ask("eve", Command::Revoke { gate });
            }
            self.approve_all();
            if *self.world.truth.standing() == Standing::Back {
                let accept_loss = self.world.truth.program().mappings().keys().cloned().collect();
                self.ask("ana", Command::Rollback { accept_loss });
            }
            self.comes_to_rest();
            // What waits for time gets it.
            self.world.now = self.world.now.plus_ms(5_000);
        }
        self.comes_to_rest();
        if self.ending().is_none() && !shapes::can_be_proven(self.world.truth.program()) {
            // No evidence that this plan gathers opens its gates. It has said so, and is given up.
            let reason = Some("its gates stay shut".to_owned());
            self.ask("ana", Command::Abort { leave: true, reason });
            self.comes_to_rest();
        }
        self.reads_back();
        if self.ending().is_none() {
            self.world.breaks("end", || "nobody can bring it to an end".into());
        }
    }

    pub fn ending(&self) -> Option<&'static str> {
        match self.world.truth.standing() {
            Standing::Ended { ending, .. } => Some(ending.as_str()),
            _ => None,
        }
    }

    /// Recovery makes the same of the journal, as it is written and read, as those did who wrote it.
    fn reads_back(&mut self) {
        let written = self.world.journal.iter().map(|record| {
            let text = serde_json::to_string(record).unwrap();
            serde_json::from_str::<Record>(&text).unwrap()
        });
        let written: Vec<Record> = written.collect();
        let recovered = replay(&written).unwrap();
        let plain = |state: &State| {
            format!(
                "{:?}",
                (
                    (state.version, &state.standing, &state.paused, &state.steps),
                    (&state.gates, &state.captures, &state.accepted_losses, &state.author),
                )
            )
        };
        if plain(&recovered) != plain(&self.world.truth) {
            self.world.breaks("P2", || "recovery makes another state of the journal".into());
        }
    }
}

/// A turn, and all that it has begun, without trouble. Whether the process is left.
fn has_a_good_turn(runner: &mut Runner, world: &mut World) -> bool {
    let mut is_well = runner.turn(world, Luck::GOOD).is_ok();
    while is_well && !(runner.tasks.is_empty() && runner.asking.is_empty()) {
        is_well =
            runner.work(world, 1, Luck::GOOD).is_ok() && runner.look(world, 1, Luck::GOOD).is_ok();
    }
    is_well
}

fn asked(command: &Command) -> String {
    match command {
        Command::Amend { .. } => "another plan".to_owned(),
        other => format!("{other:?}"),
    }
}

//! A world in which everything goes wrong: several processes that die, stop and come back, statements that go on without whoever sent them,
//! answers that are lost, clocks that jump, operators who change their minds. One seed decides all of it, and after every step of it the
//! promises are held against what the target and the journal really have.
//!
//! The core is the real one: [`decide`], [`apply`](super::super::apply), [`ready`], [`stop`](super::super::stop). What drives it, and the
//! databases, are models, of which [`shell`] and [`world`] say what they leave out. That they notice what they are meant to notice is seen by
//! planting faults.
//!
//! `PHASEGATE_HISTORIES=1000000 cargo test --lib simulation` is the long form, and `PHASEGATE_HISTORY=7 cargo test --lib one_seed -- --nocapture`
//! tells the history of one seed, cut down to what it takes to break a promise if it breaks one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::planted;
use super::super::*;
use super::{actor, pin};

mod dice;
mod promises;
mod shapes;
mod shell;
mod world;

use dice::{Dice, pick};
use promises::Broken;
use shell::{Luck, Runner};
use world::{Fate, World};

/// How many histories are lived through.
const SEEDS: u64 = 10_000;
/// How many moves a history has.
const MOVES: u64 = 150;
/// How many processes there are at a time.
const RUNNERS_MAX: usize = 3;
/// How many turns without trouble a history begins with, at most.
const CALM_ROUNDS: u64 = 20;
/// How many turns a world in which all goes well has to come to rest.
const CALM_TURNS: u32 = 400;

/// What breaks on purpose.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// In the core.
    Core(planted::Fault),
    /// In what stands for the rest.
    Shell(shell::Fault),
}

/// Something that happens. Which process, which attempt or which operator is meant is taken from the number, so that any move means
/// something in any world, and moves can be left out of a history.
#[derive(Clone, Copy, Debug)]
struct Move {
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
    Stranger,
    Differ,
    Ask,
}

/// What happens how often.
const KINDS: [(Kind, u64); 13] = [
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
    (Kind::Differ, 1),
    (Kind::Ask, 14),
];

fn moves(dice: &mut Dice) -> Vec<Move> {
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
struct History {
    world: World,
    runners: Vec<Runner>,
    born: u64,
}

impl History {
    fn new(seed: u64, fault: Option<Fault>, is_told: bool) -> Self {
        let steps = shapes::drawn(&mut Dice::new(seed));
        let fault = match fault {
            Some(Fault::Shell(fault)) => Some(fault),
            _ => None,
        };
        let mut history =
            Self { world: World::new(steps, fault, is_told), runners: Vec::new(), born: 0 };
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
            let Some(runner) = self.runners.first_mut() else { return };
            if !has_a_good_turn(runner, &mut self.world) {
                self.runners.clear();
            }
            for gate in ["switch", "end"] {
                self.approve("ben", gate);
                self.approve("chloe", gate);
            }
        }
    }

    fn happens(&mut self, Move { kind, by }: Move) {
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
            Kind::Statement => {
                if let Some(at) = pick(&self.world.target.sessions, by) {
                    let session = self.world.target.sessions.swap_remove(at);
                    if by >> 8 & 1 == 0 {
                        shell::add_effect(&mut self.world, &session.step);
                    }
                }
            }
            Kind::Stranger => {
                self.world.target.is_strange = by.is_multiple_of(3);
                self.world.tell(|| "somebody else has changed the schema".to_owned());
            }
            Kind::Differ => self.world.differs = by.is_multiple_of(2),
            Kind::Ask => self.operator(by),
        }
    }

    fn with_a_runner(
        &mut self,
        by: u64,
        what: impl FnOnce(&mut Runner, &mut World) -> Result<(), shell::Gone>,
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

    fn ask(&mut self, by: &str, command: Command) {
        let (by, now) = (actor(by), self.world.now);
        self.world.tell(|| format!("{} asks for {}", by.name, asked(&command)));
        let decided = decide(&self.world.truth, &Input::Asked(command), &Goal::End, &by, now);
        if let Ok(events) = decided {
            let version = self.world.truth.version();
            let _ = self.world.append(None, version, &by, events, &[]);
        }
    }

    fn approve(&mut self, by: &str, gate: &str) {
        let (gate, work) = (gate.into(), None);
        self.ask(by, Command::Approve { gate, work, group: None, comment: None });
    }

    fn operator(&mut self, by: u64) {
        let gate = || StepId::from(if by >> 8 & 1 == 0 { "switch" } else { "end" });
        let more = by >> 12;
        match by % 16 {
            0..=2 => self.approve("ben", gate().as_str()),
            3 | 4 => self.approve("chloe", gate().as_str()),
            5 => self.ask("ben", Command::Revoke { gate: gate() }),
            6 => self.ask("eve", Command::Reject { gate: gate(), reason: "no".into() }),
            7 | 8 => self.ask("eve", Command::Revoke { gate: gate() }),
            9 | 10 => self.ask("ana", Command::Retry),
            11 => self.ask("ana", Command::Pause { reason: None }),
            12 => self.ask("ana", Command::Resume),
            13 => self.resolve(),
            14 if more.is_multiple_of(6) => {
                self.ask("ana", Command::Rollback { accept_loss: Vec::new() });
            }
            14 if more % 6 == 1 => {
                let (reason, leave) = (Some("enough".to_owned()), more % 12 == 1);
                self.ask("ana", Command::Abort { leave, reason });
            }
            _ => self.amend(more),
        }
    }

    /// Somebody has looked, and says what came of what nobody could tell.
    fn resolve(&mut self) {
        let steps = self.world.truth.program().order().to_vec();
        for step in steps {
            let is_open =
                matches!(self.world.truth.step(&step).progress, Progress::Ambiguous { .. });
            if !is_open || self.world.target.sessions.iter().any(|session| session.step == step) {
                continue;
            }
            let is_there = self.world.target.effects.contains_key(&step);
            let outcome = if is_there { Resolution::Applied } else { Resolution::NotApplied };
            self.ask(
                "ana",
                Command::Resolve { step, outcome, reason: "looked".into(), attempt: None },
            );
        }
    }

    /// Another plan: one step does something else.
    fn amend(&mut self, by: u64) {
        let parts: ProgramParts = self.world.truth.program().clone().into();
        let mut steps = parts.steps;
        let at = pick(&steps, by).unwrap();
        steps[at].digest = Digest::of_bytes(&(by % 1_000).to_be_bytes());
        let pin = pin(steps, Policy::default());
        self.ask("chloe", Command::Amend { pin: Box::new(pin) });
    }

    /// One process in a world where all goes well comes to an end, or there is a reason why it does not.
    fn comes_to_rest(&mut self) {
        self.runners.clear();
        self.world.append_fate = Fate::Well;
        self.world.differs = false;
        self.world.target.is_strange = false;
        self.born += 1;
        let started = Runner::start(&mut self.world, self.born, &Goal::End, |_| true);
        let Some(mut runner) = started else { return };
        for _ in 0..CALM_TURNS {
            let before = (self.world.truth.version(), self.world.now, self.world.target.token);
            if !has_a_good_turn(&mut runner, &mut self.world) {
                self.world.breaks("P6", || "nobody else is there, and it loses its lease".into());
                return;
            }
            if self.world.broken.is_some() {
                return;
            }
            if let Some(at) = runner.wakes_at(&self.world) {
                self.world.now = self.world.now.max(at);
            }
            if (self.world.truth.version(), self.world.now, self.world.target.token) == before {
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

    /// With the help of operators a run ends.
    fn ends(&mut self) {
        self.comes_to_rest();
        for _ in 0..4 {
            self.ask("ana", Command::Resume);
            self.ask("ana", Command::Retry);
            self.resolve();
            for gate in ["switch", "end"] {
                self.ask("eve", Command::Revoke { gate: gate.into() });
                self.approve("ben", gate);
                self.approve("chloe", gate);
            }
            self.comes_to_rest();
            // What waits for time gets it.
            self.world.now = self.world.now.plus_ms(5_000);
        }
        self.comes_to_rest();
        self.reads_back();
        if self.ending().is_none() {
            self.world.breaks("end", || "nobody can bring it to an end".into());
        }
    }

    fn ending(&self) -> Option<&'static str> {
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

/// How a history went.
struct Lived {
    ending: Option<&'static str>,
    /// Whether somebody had to say what came of a step.
    was_resolved: bool,
    broken: Option<Broken>,
    told: Vec<String>,
}

/// Lives through a history. A panic is a promise broken like any other.
fn live(seed: u64, moves: &[Move], fault: Option<Fault>, is_told: bool) -> Lived {
    planted::plant(match fault {
        Some(Fault::Core(fault)) => Some(fault),
        _ => None,
    });
    let mut history = History::new(seed, fault, is_told);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        for one in moves {
            history.happens(*one);
            if history.world.broken.is_some() {
                return;
            }
        }
        history.ends();
    }));
    planted::plant(None);
    if lived.is_err() {
        history.world.breaks("total", || "the core panics".to_owned());
    }
    let ending = history.ending();
    let World { journal, broken, told, .. } = history.world;
    let was_resolved =
        journal.iter().any(|record| matches!(record.event, Event::StepResolved { .. }));
    Lived { ending, was_resolved, broken, told: told.unwrap_or_default() }
}

fn of_seed(seed: u64) -> Vec<Move> {
    moves(&mut Dice::new(!seed))
}

/// As few of the moves as still break the same promise.
fn shrunk(seed: u64, fault: Option<Fault>, broken: &Broken) -> Vec<Move> {
    let mut left = of_seed(seed);
    let mut size = left.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < left.len() {
            let mut fewer = left.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            let lived = live(seed, &fewer, fault, false);
            if lived.broken.is_some_and(|other| other.promise == broken.promise) {
                left = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    left
}

/// What to say of a seed that breaks a promise.
fn report_of(seed: u64, fault: Option<Fault>, broken: &Broken) -> String {
    let moves = shrunk(seed, fault, broken);
    let lived = live(seed, &moves, fault, true);
    format!(
        "seed {seed} breaks {}: {}\n{} moves of it do, and this is what happens:\n{}\n\
         PHASEGATE_HISTORY={seed} cargo test --lib one_seed -- --nocapture",
        broken.promise,
        broken.what,
        moves.len(),
        lived.told.join("\n"),
    )
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Any history keeps the promises, and comes to an end or to a reason.
#[test]
fn histories_keep_the_promises() {
    let seeds = number("PHASEGATE_HISTORIES").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let endings = std::thread::scope(|scope| {
        let lived = (0..threads).map(|first| {
            scope.spawn(move || {
                let mut endings = BTreeMap::new();
                for seed in (first..seeds).step_by(usize::try_from(threads).unwrap()) {
                    let lived = live(seed, &of_seed(seed), None, false);
                    if let Some(broken) = lived.broken {
                        return Err(report_of(seed, None, &broken));
                    }
                    *endings.entry(lived.ending).or_insert(0_u64) += 1;
                    if lived.was_resolved {
                        *endings.entry(Some("resolved")).or_insert(0) += 1;
                    }
                }
                Ok(endings)
            })
        });
        let lived: Vec<_> = lived.collect();
        let mut all = BTreeMap::new();
        for thread in lived {
            match thread.join().unwrap() {
                Err(why) => panic!("{why}"),
                Ok(endings) => endings.into_iter().for_each(|(ending, count)| {
                    *all.entry(ending).or_insert(0) += count;
                }),
            }
        }
        all
    });
    // Each ending is met often enough for the way to it to be known.
    for why in ["completed", "rolled back", "aborted", "resolved"] {
        let count = endings.get(&Some(why)).copied().unwrap_or_default();
        assert!(count > seeds / 500, "{endings:?}");
    }
}

/// What the histories are for: each of these is met in one of them.
#[test]
fn planted_faults_are_found() {
    use planted::Fault as Core;
    use shell::Fault as Shell;
    for (fault, promises) in [
        (Fault::Shell(Shell::TokenUnchecked), ["P6", "P2"]),
        (Fault::Shell(Shell::RecordAfterEffect), ["P2", "P2"]),
        (Fault::Shell(Shell::WatermarkTooHigh), ["P3", "P3"]),
        (Fault::Shell(Shell::RetriedBlindly), ["P3", "P3"]),
        (Fault::Core(Core::PermitReused), ["P1", "P8"]),
        (Fault::Core(Core::ApprovalKept), ["P8", "P8"]),
        (Fault::Core(Core::RejectionForgotten), ["P8", "P1"]),
        (Fault::Core(Core::EvidenceAgeless), ["P8", "P8"]),
        (Fault::Core(Core::NeedForgotten), ["P1", "P4"]),
        (Fault::Core(Core::UndoneTooEarly), ["P9", "P9"]),
        (Fault::Core(Core::TracesForgotten), ["P9", "P8"]),
    ] {
        let found = (0..SEEDS).find_map(|seed| {
            let lived = live(seed, &of_seed(seed), Some(fault), false);
            lived.broken.map(|broken| (seed, broken))
        });
        let Some((seed, broken)) = found else { panic!("{fault:?} is not found") };
        assert!(promises.contains(&broken.promise), "{fault:?} in seed {seed}: {broken:?}");
        let fewest = shrunk(seed, Some(fault), &broken).len();
        assert!(fewest < 60, "{fault:?} in seed {seed} takes {fewest} moves");
        // Without it that seed is well.
        assert!(live(seed, &of_seed(seed), None, false).broken.is_none(), "{fault:?}, seed {seed}");
    }
}

/// A history is the same whenever it is lived through. `PHASEGATE_HISTORY` says which, and has it told.
#[test]
fn one_seed_is_one_history() {
    let asked = number("PHASEGATE_HISTORY");
    let seed = asked.unwrap_or(1);
    let lived = live(seed, &of_seed(seed), None, true);
    if let Some(broken) = &lived.broken {
        panic!("{}", report_of(seed, None, broken));
    }
    let again = live(seed, &of_seed(seed), None, true);
    assert_eq!(lived.told, again.told);
    assert!(lived.told.len() > 20, "{:?}", lived.told);
    if asked.is_some() {
        let told = lived.told.join("\n");
        let told = format!("{told}\nseed {seed} keeps all promises: {:?}\n", lived.ending);
        std::io::stdout().write_all(told.as_bytes()).unwrap();
    }
}

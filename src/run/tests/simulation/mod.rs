//! A world in which everything goes wrong: several processes that die, stop and come back, statements that go on without whoever sent them,
//! answers that are lost or come twice, clocks that jump, clients that write all the while, operators who change their minds. One seed
//! decides all of it, and after every step of it the promises are held against what the databases and the journal really have.
//!
//! The core is the real one: [`decide`], [`apply`](super::super::apply), [`ready`], [`stop`](super::super::stop). What drives it, and the
//! databases, are models, of which [`shell`], [`attempt`], [`target`] and [`sides`] say what they leave out. That they notice what they are
//! meant to notice is seen by planting faults.
//!
//! `PHASEGATE_HISTORIES=1000000 cargo test --lib simulation` is the long form, and `PHASEGATE_HISTORY=7 cargo test --lib one_seed -- --nocapture`
//! tells the history of one seed, cut down to what it takes to break a promise if it breaks one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::super::planted;
use super::super::*;

mod attempt;
mod dice;
mod history;
mod promises;
mod shapes;
mod shell;
mod sides;
mod target;
mod world;

use dice::Dice;
use history::{History, Move, moves};
use promises::Broken;
use world::World;

/// How many histories are lived through.
const SEEDS: u64 = 10_000;
/// How long that may take: a minute, and three where the build checks itself, as tests usually do, or isn't optimised.
const SEEDS_LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 180 } else { 60 });

/// What breaks on purpose.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// In the core.
    Core(planted::Fault),
    /// In what stands for the rest.
    Shell(shell::Fault),
}

/// How a history went.
struct Lived {
    ending: Option<&'static str>,
    /// What was asked for in it and came about.
    met: BTreeSet<&'static str>,
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
    let met = journal.iter().filter_map(|record| asked_for(&record.event)).collect();
    Lived { ending, met, broken, told: told.unwrap_or_default() }
}

/// What operators bring about now and then, for which there is to be enough of it.
fn asked_for(event: &Event) -> Option<&'static str> {
    match event {
        Event::StepResolved { .. } => Some("resolved"),
        Event::PlanAmended { .. } => Some("amended"),
        Event::Tuned { .. } => Some("tuned"),
        Event::LockReleased { .. } => Some("lock released"),
        Event::RollbackBegun { accept_loss } if !accept_loss.is_empty() => Some("loss accepted"),
        Event::StepDiffers { .. } => Some("differed"),
        _ => None,
    }
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

/// What to say of a seed that breaks a promise, and how many moves of it do.
fn report_of(seed: u64, fault: Option<Fault>, broken: &Broken) -> (usize, String) {
    let moves = shrunk(seed, fault, broken);
    let lived = live(seed, &moves, fault, true);
    let what = lived.broken.map_or_else(|| broken.what.clone(), |broken| broken.what);
    let said = format!(
        "seed {seed} breaks {}: {what}\n{} moves of it do, and this is what happens:\n{}\n\
         PHASEGATE_HISTORY={seed} cargo test --lib one_seed -- --nocapture",
        broken.promise,
        moves.len(),
        lived.told.join("\n"),
    );
    (moves.len(), said)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// How many histories had each ending, and met what is asked for now and then; or why one broke a promise.
fn lived(seeds: u64) -> Result<BTreeMap<&'static str, u64>, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let live_some = |first| {
        let mut endings = BTreeMap::new();
        for seed in (first..seeds).step_by(usize::try_from(threads).unwrap()) {
            let lived = live(seed, &of_seed(seed), None, false);
            if let Some(broken) = lived.broken {
                return Err(report_of(seed, None, &broken).1);
            }
            *endings.entry(lived.ending.unwrap_or("none")).or_insert(0) += 1;
            for what in lived.met {
                *endings.entry(what).or_insert(0) += 1;
            }
        }
        Ok(endings)
    };
    std::thread::scope(|scope| {
        let some: Vec<_> =
            (0..threads).map(|first| scope.spawn(move || live_some(first))).collect();
        let mut all = BTreeMap::new();
        for thread in some {
            for (ending, count) in thread.join().unwrap()? {
                *all.entry(ending).or_insert(0) += count;
            }
        }
        Ok(all)
    })
}

/// Any history keeps the promises, and comes to an end or to a reason. The usual number of them takes no longer than it may.
#[test]
fn histories_keep_the_promises() {
    let asked = number("PHASEGATE_HISTORIES");
    let seeds = asked.unwrap_or(SEEDS);
    let began = Instant::now();
    let endings = lived(seeds).unwrap_or_else(|why| panic!("{why}"));
    let took = began.elapsed();
    say(&format!("{seeds} histories in {:.1} s: {endings:?}", took.as_secs_f64()));
    // Each ending is met often enough for the way to it to be known, and so is what operators may ask for.
    let endings_met = ["completed", "rolled back", "aborted"];
    let asked_met = ["resolved", "amended", "tuned", "lock released", "loss accepted", "differed"];
    for what in endings_met.iter().chain(&asked_met) {
        let count = endings.get(what).copied().unwrap_or_default();
        assert!(count > seeds / 500, "{what}: {endings:?}");
    }
    assert!(asked.is_some() || took <= SEEDS_LIMIT, "{seeds} histories took {took:?}");
}

/// Past what keeps the output of tests back.
fn say(what: &str) {
    std::io::stdout().write_all(format!("{what}\n").as_bytes()).unwrap();
}

/// What the histories are for: each of these is met in one of them.
#[test]
fn planted_faults_are_found() {
    use planted::Fault as Core;
    use shell::Fault as Shell;
    for (fault, promises) in [
        (Fault::Shell(Shell::TokenUnchecked), ["P6", "P2"]),
        (Fault::Shell(Shell::OneEntered), ["P6", "P2"]),
        (Fault::Shell(Shell::RecordAfterEffect), ["P2", "P2"]),
        (Fault::Shell(Shell::WatermarkTooHigh), ["P3", "P3"]),
        (Fault::Shell(Shell::LedgerApart), ["P3", "P3"]),
        (Fault::Shell(Shell::RetriedBlindly), ["P3", "P3"]),
        (Fault::Shell(Shell::PartsRunAgain), ["P3", "P3"]),
        (Fault::Shell(Shell::DoneTooEarly), ["P3", "P3"]),
        (Fault::Shell(Shell::TuningIgnored), ["P10", "P10"]),
        (Fault::Shell(Shell::ChunkOverwrites), ["P4", "P4"]),
        (Fault::Shell(Shell::ChunkResurrects), ["P4", "P4"]),
        (Fault::Shell(Shell::CancelledPasses), ["P7", "P7"]),
        (Fault::Shell(Shell::PartSkipped), ["P7", "P7"]),
        (Fault::Shell(Shell::LossUnasked), ["P9", "P9"]),
        (Fault::Core(Core::PermitReused), ["P1", "P8"]),
        (Fault::Core(Core::ApprovalKept), ["P8", "P8"]),
        (Fault::Core(Core::RejectionForgotten), ["P8", "P1"]),
        (Fault::Core(Core::EvidenceAgeless), ["P8", "P8"]),
        (Fault::Core(Core::NeedForgotten), ["P1", "P4"]),
        (Fault::Core(Core::UndoneTooEarly), ["P9", "P9"]),
        (Fault::Core(Core::TracesForgotten), ["P9", "P5"]),
        (Fault::Core(Core::AttemptUnchecked), ["P2", "P7"]),
        (Fault::Core(Core::ReadingUnchecked), ["P2", "P2"]),
        (Fault::Core(Core::LedgerUnasked), ["end", "end"]),
        (Fault::Core(Core::PartedCompared), ["end", "end"]),
        (Fault::Core(Core::PartialOpens), ["P7", "P7"]),
        (Fault::Core(Core::SyncForgotten), ["P7", "P7"]),
        (Fault::Core(Core::SoakForgotten), ["P8", "P8"]),
        (Fault::Core(Core::AmendedBlindly), ["P8", "P8"]),
    ] {
        let found = (0..SEEDS).find_map(|seed| {
            let lived = live(seed, &of_seed(seed), Some(fault), false);
            lived.broken.map(|broken| (seed, broken))
        });
        let Some((seed, broken)) = found else { panic!("{fault:?} is not found") };
        assert!(promises.contains(&broken.promise), "{fault:?} in seed {seed}: {broken:?}");
        let (fewest, said) = report_of(seed, Some(fault), &broken);
        assert!(fewest < 60, "{fault:?} in seed {seed} takes {fewest} moves");
        // Whoever reads it can have the same history told again, and sees what was broken where.
        let command = format!("PHASEGATE_HISTORY={seed} cargo test --lib one_seed");
        let broke = format!("seed {seed} breaks {}", broken.promise);
        for part in [broke.as_str(), &command, "BROKEN: "] {
            assert!(said.contains(part), "no {part} in: {said}");
        }
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
        panic!("{}", report_of(seed, None, broken).1);
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

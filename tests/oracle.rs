//! Whole plans under clients that write all the while, held against an oracle.
//!
//! Every client makes each of its writes twice in one transaction: as an application would, and to a plain table beside it
//! that nothing of ours touches (the twin). The program is killed and started again meanwhile. At the end the mapped table
//! is what the mapping makes of the twin, no client was refused anything that the twin wasn't, and nothing of ours is left.
//!
//! `PHASEGATE_SEED` repeats a seed (which threads do what when is left to the machine); `PHASEGATE_SOAK` is how many minutes
//! each case goes on with new ones.

mod client;
mod load;
mod postgres;
mod postgres_client;
mod scene;
mod talk;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use client::{Client, Old, Shared};
use scene::{Base, Scene, Way};

use crate::sandbox::{Ran, Sandbox, wait_for};

/// How often the program is killed on the way to each goal.
const KILLS: u64 = 2;

/// Transactions of clients in the new shape's time before the old shape goes.
const COMMITS_AFTER_RETIRE: u64 = 30;

/// Random numbers that a seed repeats (splitmix64).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The end a run is brought to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Completed,
    /// Rolled back from here.
    RolledBack(&'static str),
}

/// Runs the program until it has ended by itself with 0, and kills it some times before.
fn drive(sandbox: &Sandbox, args: &[&str], random: &mut Random) {
    for kills in 0.. {
        let mut child = sandbox
            .command(args)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let may_live = Duration::from_millis(20 + random.below(900));
        let began = Instant::now();
        if kills < KILLS
            && !wait_for(may_live.saturating_sub(began.elapsed()), || {
                child.try_wait().unwrap().is_some()
            })
        {
            child.kill().unwrap();
        }
        let ran = Ran::from(child.wait_with_output().unwrap());
        if ran.code.is_some() {
            ran.expect(0);
            return;
        }
    }
}

fn check(scene: Scene, end: End) {
    again_and_again(&format!("{scene:?} {end:?}"), |seed| once(scene, end, seed));
}

/// Once, with the seed that is asked for or a new one; and for as long as is asked for, with ever new ones.
fn again_and_again(case: &str, once: impl Fn(u64)) {
    let minutes: u64 = setting("PHASEGATE_SOAK").unwrap_or(0);
    let began = Instant::now();
    for (seed, played) in (first_seed()..).zip(1_u64..) {
        say(&format!("{case}: PHASEGATE_SEED={seed}"));
        once(seed);
        let took = began.elapsed();
        if took >= Duration::from_mins(minutes) {
            return say(&format!(
                "{case}: all well with {played} seeds in {:.1} s",
                took.as_secs_f64()
            ));
        }
    }
}

/// The test's output, which is shown when it fails.
#[allow(clippy::print_stderr)]
pub fn say(what: &str) {
    eprintln!("{what}");
}

/// The seed that is asked for, or a new one.
pub fn first_seed() -> u64 {
    setting("PHASEGATE_SEED").unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_secs() * 1_000 + u64::from(since.subsec_millis())
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn once(scene: Scene, end: End, seed: u64) {
    let mut random = Random(seed);
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", &scene.plan(&Base::Sqlite));
    sandbox.sql("app.db", &scene.schema(if random.below(2) == 0 { "wal" } else { "delete" }));
    let shared = Arc::new(Shared::default());
    let clients: Vec<_> = sides(scene)
        .iter()
        .map(|side| {
            let file = sandbox.path("app.db");
            let client = Client::new(scene, *side, Random(random.next()), Arc::clone(&shared));
            std::thread::spawn(move || client.write(&file))
        })
        .collect();
    play(&sandbox, end, &shared, &mut random);
    let case = format!("{scene:?} {end:?}, PHASEGATE_SEED={seed}");
    end_well(clients, &shared, &case);
    check_end(&sandbox, scene, end, &case);
}

/// Which shape each client knows.
const fn sides(scene: Scene) -> [Old; 3] {
    match scene.direction {
        Way::Both => [Old::Shape, Old::Shape, Old::Gone],
        Way::Forward => [Old::Shape; 3],
    }
}

/// Brings a run to its end, and tells clients what they may do when.
fn play(sandbox: &Sandbox, end: End, shared: &Shared, random: &mut Random) {
    let mut to = |goal: &str| drive(sandbox, &["run", "plan.yaml", "--to", goal], random);
    let goals: &[&str] = match end {
        End::RolledBack("sync") => &["sync"],
        End::RolledBack("compare") => &["sync", "copy", "compare"],
        End::Completed | End::RolledBack(_) => &["sync", "copy", "retire"],
    };
    for goal in goals {
        to(goal);
        match *goal {
            "sync" => shared.new_shape.store(1, Ordering::SeqCst),
            "copy" => shared.new_shape.store(2, Ordering::SeqCst),
            "retire" => {
                let enough = || {
                    shared.retired.load(Ordering::SeqCst) >= COMMITS_AFTER_RETIRE
                        || shared.failed.load(Ordering::SeqCst)
                };
                assert!(wait_for(Duration::from_mins(2), enough), "clients stand still");
            }
            _ => {}
        }
    }
    match end {
        End::Completed => drive(sandbox, &["run", "plan.yaml"], random),
        End::RolledBack(_) => {
            // Where the old shape is to be all there is, its operator has moved the applications back to it.
            shared.new_shape.store(0, Ordering::SeqCst);
            shared.goes_back.store(true, Ordering::SeqCst);
            drive(sandbox, &["rollback", "customers", "--yes"], random);
        }
    }
}

/// Clients stop. They have written, and were refused nothing that the twin wasn't.
fn end_well(clients: Vec<JoinHandle<Result<(), String>>>, shared: &Shared, case: &str) {
    shared.stop.store(true, Ordering::SeqCst);
    let told: Vec<String> =
        clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
    assert!(told.is_empty(), "{case}: {told:#?}");
    let commits = shared.commits.load(Ordering::SeqCst);
    assert!(commits >= 10, "{case}: only {commits} transactions of clients");
}

fn check_end(sandbox: &Sandbox, scene: Scene, end: End, case: &str) {
    let (ours, twin) = match end {
        End::Completed => scene.compared(),
        End::RolledBack(_) => ("id, name, email, status", "id, name, email, status"),
    };
    let (ours, twin) =
        (format!("SELECT {ours} FROM customers"), format!("SELECT {twin} FROM twin"));
    let wrong = |one: &str, other: &str| {
        sandbox.rows("app.db", &format!("{one} EXCEPT {other} ORDER BY 1 LIMIT 10"))
    };
    assert_eq!(wrong(&ours, &twin), [""; 0], "{case}: rows that no client wrote");
    assert_eq!(wrong(&twin, &ours), [""; 0], "{case}: rows that went missing");
    let rows = |table| sandbox.value("app.db", &format!("SELECT count(*) FROM {table}"));
    assert_eq!(rows("customers"), rows("twin"), "{case}");
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"], "{case}: something of ours is left");
    assert_eq!(sandbox.rows("app.db", "PRAGMA integrity_check"), ["ok"], "{case}");
    let tables =
        "SELECT group_concat(name) FROM (SELECT name FROM sqlite_master WHERE type = 'table'
        AND name LIKE 'customers%' ORDER BY name)";
    assert_eq!(sandbox.value("app.db", tables), "customers", "{case}");
    sandbox.run(&["history", "customers", "--verify"]).expect(0);
}

const TABLE_FORWARD: Scene = Scene { in_place: false, direction: Way::Forward };
const TABLE_BOTH: Scene = Scene { in_place: false, direction: Way::Both };
const IN_PLACE_FORWARD: Scene = Scene { in_place: true, direction: Way::Forward };
const IN_PLACE_BOTH: Scene = Scene { in_place: true, direction: Way::Both };

#[test]
fn table_forward() {
    check(TABLE_FORWARD, End::Completed);
}

#[test]
fn table_both() {
    check(TABLE_BOTH, End::Completed);
}

#[test]
fn in_place_forward() {
    check(IN_PLACE_FORWARD, End::Completed);
}

#[test]
fn in_place_both() {
    check(IN_PLACE_BOTH, End::Completed);
}

#[test]
fn table_forward_rolled_back() {
    check(TABLE_FORWARD, End::RolledBack("compare"));
}

#[test]
fn table_both_rolled_back() {
    check(TABLE_BOTH, End::RolledBack("retire"));
}

#[test]
fn in_place_forward_rolled_back() {
    check(IN_PLACE_FORWARD, End::RolledBack("sync"));
}

#[test]
fn in_place_both_rolled_back() {
    check(IN_PLACE_BOTH, End::RolledBack("retire"));
}

//! plans/leads-v2.yaml is killed again and again while a client writes: at every fail point and at random moments, on the way to its
//! end and on the way back.
//!
//! `PHASEGATE_SOAK` has 1,000 kills in place of a few; `PHASEGATE_SEED` repeats where they fall. Copies in place are killed under
//! load in `oracle::load`, and those into a graph in `crossing`.

use std::process::Stdio;
use std::time::Duration;

use crate::bad_luck_postgres::dying::check_end;
use crate::bad_luck_postgres::returning::is_back;
use crate::bad_luck_postgres::writer::Writer;
use crate::bad_luck_postgres::{leads, rows_copied};
use crate::examples::Example;
use crate::lives::{Lives, chunks_were_once, note_chunks};
use crate::oracle::{Random, first_seed, say};
use crate::sandbox::{Ran, wait_for};

const KILLS: u32 = 24;
const KILLS_OF_A_SOAK: u32 = 1_000;
/// Of one run, as long as it lives.
const KILLS_OF_A_RUN: u32 = 8;

/// Where the program dies beside the journal: before and after each of these commits in the target.
const COMMITS: [&str; 12] = [
    "enter", "execute", "install", "plan", "chunk", "finish", "settle", "retire", "drop", "remove",
    "unretire", "leave",
];

/// Where a run is turned back from; `None` where it comes to its end.
const TURNS: [Option<&str>; 4] =
    [None, Some("sync-leads"), Some("copy-leads"), Some("compare-every-row")];

#[test]
fn killed_anywhere_on_the_way_and_on_the_way_back() {
    let is_soak = std::env::var_os("PHASEGATE_SOAK").is_some();
    let wanted = if is_soak { KILLS_OF_A_SOAK } else { KILLS };
    let mut random = Random(first_seed());
    say(&format!("PHASEGATE_SEED={}", random.0));
    let (mut kills, mut runs) = (0, 0);
    while kills < wanted {
        let turn = TURNS[runs % TURNS.len()];
        runs += 1;
        let Some(died) = once(turn, &mut random) else { return };
        kills += died;
        assert!(runs <= 20 + wanted as usize, "only {kills} kills in {runs} runs");
    }
    say(&format!("{kills} kills in {runs} runs"));
}

/// One run. Returns how often it was killed.
fn once(turn: Option<&str>, random: &mut Random) -> Option<u32> {
    let example = leads()?;
    example.run(&["--to", "create-leads-v2"]).expect(0);
    note_chunks(&example.database);
    let writer = Writer::at_work(&example);
    let mut killer = Killer { example: &example, lives: Lives::default(), kills: 0, random };
    let plan = example.plan();
    killer.drive(&["run", &plan, "--to", turn.unwrap_or("drop-leads-old")], KILLS_OF_A_RUN / 2);
    if turn.is_none() {
        killer.drive(&["run", &plan], KILLS_OF_A_RUN);
        chunks_were_once(&example.database, ("copy-leads", rows_copied(&example)));
    } else {
        // What was counted goes down as it is taken back.
        killer.lives = Lives::default();
        killer.drive(&["rollback", example.name, "--yes"], KILLS_OF_A_RUN);
    }
    let case = format!("turned back from {turn:?}: {}", killer.lives.told());
    let kills = killer.kills;
    writer.ends_well();
    if turn.is_none() {
        check_end(&example, &case);
    } else {
        is_back(&example, &case);
    }
    example.phasegate(&["history", example.name, "--verify"]).expect(0);
    Some(kills)
}

struct Killer<'a> {
    example: &'a Example,
    lives: Lives,
    kills: u32,
    random: &'a mut Random,
}

impl Killer<'_> {
    /// Runs the program until it has ended well by itself; up to a number of kills it is killed before.
    fn drive(&mut self, args: &[&str], most: u32) {
        loop {
            let is_to_die = self.kills < most;
            let ran = self.life(args, is_to_die);
            if ran.code.is_some() {
                assert_eq!(ran.code, Some(0), "after {} kills: {ran}", self.kills);
                return;
            }
            self.kills += 1;
        }
    }

    /// One life: it dies at a fail point, or at a random moment, or not at all.
    fn life(&mut self, args: &[&str], is_to_die: bool) -> Ran {
        let at_point = is_to_die && self.random.below(3) > 0;
        let mut command = self.example.command(args);
        if at_point {
            command.env("FAILPOINTS", self.point());
        }
        self.lives.begins();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        if is_to_die && !at_point {
            let after = Duration::from_millis(self.random.below(2_500));
            if !wait_for(after, || child.try_wait().unwrap().is_some()) {
                child.kill().unwrap();
            }
        }
        let ran = Ran::from(child.wait_with_output().unwrap());
        if ran.code.is_none() {
            let example = self.example;
            self.lives.was_killed(pid, example.name, |args| example.phasegate(args));
        }
        ran
    }

    fn point(&mut self) -> String {
        let place = ["before", "after"][usize::from(self.random.below(2) == 0)];
        if self.random.below(3) == 0 {
            return format!("journal::{place}-append={}*off->return", self.random.below(8));
        }
        let commit = COMMITS[usize::try_from(self.random.below(COMMITS.len() as u64)).unwrap()];
        let hits = if commit == "chunk" { self.random.below(6) } else { 0 };
        format!("postgres::{place}-commit::{commit}={hits}*off->return")
    }
}

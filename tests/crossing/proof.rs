//! Everything at once: clients write all the time, and whoever carries rows is killed again and again, in every phase.
//!
//! `PHASEGATE_SOAK` has it with 50,000 users, 100,000 relations and ten kills in place of a few thousand and four;
//! `PHASEGATE_SEED` repeats the moments of the kills.

use std::time::Duration;

use super::bed::{Application, Bed, PLAN};
use super::social::Watcher;
use crate::lives::Lives;
use crate::oracle::{Random, first_seed, say};
use crate::sandbox::Ran;

struct Size {
    users: u64,
    relations: u64,
    kills: u32,
    chunk_rows: u32,
}

const SMALL: Size = Size { users: 3_000, relations: 12_000, kills: 4, chunk_rows: 200 };
const WHOLE: Size = Size { users: 50_000, relations: 100_000, kills: 10, chunk_rows: 1_000 };

#[test]
fn killed_at_random_while_clients_write_all_the_time() {
    let Some(bed) = Bed::example() else { return };
    let size = if std::env::var_os("PHASEGATE_SOAK").is_some() { WHOLE } else { SMALL };
    let bed = bed.with_chunks(size.chunk_rows);
    bed.database.run(&format!(
        "INSERT INTO users SELECT n, 'user' || n, 'User ' || n, 'Bio of ' || n, 'x', n % 1000 + 0.25, now()
           FROM generate_series(3001, {users}) AS n;
         INSERT INTO relations SELECT a, b, CASE n % 50 WHEN 0 THEN 'mute' ELSE 'follow' END, date '2025-01-01' + n % 365
           FROM (SELECT n, 1 + n % {users} AS a, 1 + n::bigint * 7919 % {users} AS b FROM generate_series(12001, {relations}) AS n) AS pairs
           WHERE a <> b ON CONFLICT DO NOTHING",
        users = size.users,
        relations = size.relations,
    ));
    let mut random = Random(first_seed());
    say(&format!("PHASEGATE_SEED={}", random.0));
    let mut within = |least, most| Duration::from_millis(least + random.below(most - least));
    let application = Application::among(&bed, 8, size.users + size.users / 10);
    let watcher = Watcher::start(&bed.graph.url);
    // Where the run comes to the gate before its kills are used up, they are relays'.
    let of_relays = size.kills / 4;
    let (mut of_runs, mut at_gate, mut lives) = (0, false, Lives::default());
    while of_runs < size.kills - of_relays && !at_gate {
        match killed(&bed, &mut lives, (&["run", PLAN], within(300, 4_000))) {
            None => of_runs += 1,
            Some(ended) => {
                ended.expect(4);
                at_gate = true;
            }
        }
    }
    assert!(of_runs > 0, "the run was over before anything was killed");
    if !at_gate {
        bed.phasegate(&["run", PLAN]).expect(4);
    }
    for _ in 0..size.kills - of_runs {
        let relay = &["relay", "social-graph"];
        let ended = killed(&bed, &mut lives, (relay, within(200, 1_500)));
        assert!(ended.is_none(), "a relay ended by itself: {}", ended.unwrap());
    }
    let written = application.end();
    let relay = bed.relay();
    bed.is_synced();
    bed.are_same("killed again and again");
    drop(relay);
    // The end of it, under other writers, and killed once more.
    let application = Application::among(&bed, 4, size.users);
    bed.released();
    let finish = &["run", PLAN, "--wait", "60s"];
    let ended = match killed(&bed, &mut lives, (finish, within(500, 3_000))) {
        None => bed.phasegate(finish),
        Some(ended) => ended,
    };
    drop(application);
    ended.expect(0);
    bed.nothing_is_left("killed again and again");
    bed.phasegate(&["history", "social-graph", "--verify"]).expect(0);
    let seen = watcher.end();
    say(&format!(
        "{of_runs} kills of runs, {}, {written} transactions, {seen} changes of hot users seen",
        lives.told()
    ));
    assert!(written > 500 && seen > 10, "{written} transactions, {seen} changes seen");
}

/// The way back, at random moments of it.
#[test]
fn killed_on_the_way_back_while_clients_write_everything_is_taken_back() {
    let Some(bed) = Bed::example() else { return };
    let kills = if std::env::var_os("PHASEGATE_SOAK").is_some() { 60 } else { 6 };
    let bed = bed.with_chunks(200);
    let mut random = Random(first_seed());
    say(&format!("PHASEGATE_SEED={}", random.0));
    let application = Application::start(&bed, 4);
    let (mut died, mut rounds) = (0, 0);
    while died < kills {
        let again: &[&str] = if rounds == 0 { &[] } else { &["--new"] };
        bed.phasegate(&[&["run", PLAN], again].concat()).expect(4);
        rounds += 1;
        let mut lives = Lives::default();
        let rollback = &["rollback", "social-graph", "--yes"];
        let ended = loop {
            if died == kills {
                break bed.phasegate(rollback);
            }
            let after = Duration::from_millis(100 + random.below(900));
            match killed(&bed, &mut lives, (rollback, after)) {
                None => died += 1,
                Some(ended) => break ended,
            }
        };
        ended.expect(0);
        assert_eq!(bed.graph.number("MATCH (n:User)"), 0);
        assert_eq!(bed.graph.schema(), [""; 0]);
        bed.nothing_is_left("killed on the way back");
        assert!(rounds <= kills, "only {died} kills in {rounds} rounds");
    }
    say(&format!("{died} kills in {rounds} rounds"));
    assert!(application.end() > 20);
}

/// Starts the program and kills it after a while; `Some` where it had ended before.
fn killed(bed: &Bed, lives: &mut Lives, (args, after): (&[&str], Duration)) -> Option<Ran> {
    lives.begins();
    let mut process = bed.start(args, "");
    std::thread::sleep(after);
    if process.try_wait().unwrap().is_some() {
        return Some(process.wait_with_output().unwrap().into());
    }
    process.kill().unwrap();
    let pid = process.id();
    process.wait_with_output().unwrap();
    lives.was_killed(pid, "social-graph", |args| bed.phasegate(args));
    None
}

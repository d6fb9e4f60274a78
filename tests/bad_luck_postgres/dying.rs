//! The process dies, at every append to the journal and around every commit, while a client writes.

use super::writer::Writer;
use super::{ROWS, check_rows, leads, rows_copied};
use crate::examples::Example;
use crate::sandbox::Ran;

/// Runs with a point armed to kill at its `hits`-th time. `None` when the point was not hit that often: the run ended well.
pub fn killed_at(example: &Example, args: &[&str], point: &str, hits: u32) -> Option<Ran> {
    let armed = format!("{point}={hits}*off->return");
    let ran = Ran::from(example.command(args).env("FAILPOINTS", armed).output().unwrap());
    if ran.code.is_none() { Some(ran) } else { None }
}

#[track_caller]
pub fn check_end(example: &Example, case: &str) {
    // What a failed assertion says names no case, so the case is said before.
    #[allow(clippy::print_stderr)]
    {
        eprintln!("{case}");
    }
    check_rows(example);
    assert_eq!(example.database.ours(), ["phasegate.runs"], "{case}: something of ours is left");
    assert_eq!(example.database.value("SELECT count(*) FROM phasegate.runs"), "1", "{case}");
}

/// A run that dies once at each hit of a point, each time on a database of its own, and is resumed.
fn dies_at_every_hit_of(point: &str) -> u32 {
    let mut hits = 0;
    loop {
        let Some(example) = leads() else { return u32::MAX };
        let case = format!("{point}, hit {}", hits + 1);
        let writer = Writer::at_work(&example);
        let plan = example.plan();
        if killed_at(&example, &["run", &plan], point, hits).is_none() {
            writer.ends_well();
            check_end(&example, &case);
            return hits;
        }
        let resumed = example.run(&[]);
        assert_eq!(resumed.code, Some(0), "{case}: {resumed}");
        writer.ends_well();
        check_end(&example, &case);
        hits += 1;
    }
}

#[test]
fn killed_before_every_append_the_run_goes_on_under_a_client() {
    let kills = dies_at_every_hit_of("journal::before-append");
    assert!(kills >= 30, "only {kills} kills: appends went missing");
}

#[test]
fn killed_after_every_append_the_run_goes_on_under_a_client() {
    let kills = dies_at_every_hit_of("journal::after-append");
    assert!(kills >= 30, "only {kills} kills: appends went missing");
}

/// One run that dies again and again: each life gets two appends further.
#[test]
fn a_run_that_dies_at_every_second_append_comes_to_its_end() {
    let Some(example) = leads() else { return };
    let writer = Writer::at_work(&example);
    let plan = example.plan();
    let mut lives = 1;
    while killed_at(&example, &["run", &plan], "journal::after-append", 1).is_some() {
        lives += 1;
        assert!(lives < 300, "the run comes to no end");
    }
    assert!(lives >= 15, "only {lives} lives");
    example.run(&[]).expect(0);
    writer.ends_well();
    check_end(&example, "again and again");
}

#[test]
fn without_a_client_exactly_the_rows_that_were_there_are_counted_whatever_commit_dies() {
    for point in [
        "before-commit::chunk",
        "after-commit::chunk",
        "before-commit::finish",
        "after-commit::finish",
    ] {
        for hits in [0, 5] {
            let Some(example) = leads() else { return };
            let point = format!("postgres::{point}");
            let plan = example.plan();
            let killed = killed_at(&example, &["run", &plan], &point, hits);
            let is_once = point.ends_with("finish") && hits > 0;
            assert_eq!(killed.is_none(), is_once, "{point} is not where it was");
            if killed.is_some() {
                example.run(&[]).expect(0);
            }
            check_end(&example, &format!("{point}, hit {}", hits + 1));
            assert_eq!(rows_copied(&example), u64::from(ROWS));
        }
    }
}

/// Every commit of ours on the target, once each before and after; the journal's appends are tried above.
#[test]
fn killed_around_every_kind_of_commit_the_run_goes_on_under_a_client() {
    let mut reached = 0;
    for kind in
        ["enter", "execute", "install", "plan", "chunk", "finish", "retire", "drop", "leave"]
    {
        for place in ["before", "after"] {
            let Some(example) = leads() else { return };
            let writer = Writer::at_work(&example);
            let case = format!("postgres::{place}-commit::{kind}");
            let plan = example.plan();
            assert!(
                killed_at(&example, &["run", &plan], &case, 0).is_some(),
                "{case} was never reached"
            );
            let resumed = example.run(&[]);
            assert_eq!(resumed.code, Some(0), "{case}: {resumed}");
            writer.ends_well();
            check_end(&example, &case);
            reached += 1;
        }
    }
    assert_eq!(reached, 18);
}

/// An outcome that nobody heard of: the ledger knows it, and nothing is done twice.
#[test]
fn a_commit_whose_answer_is_lost_is_looked_up() {
    for kind in ["execute", "install", "chunk", "finish", "retire", "drop"] {
        for place in ["before", "after"] {
            let Some(example) = leads() else { return };
            let writer = Writer::at_work(&example);
            let armed = format!("postgres::{place}-commit::{kind}=1*return(unknown)");
            // What is refused or differs below names no case.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("{armed}");
            }
            let plan = example.plan();
            let ran: Ran =
                example.command(&["run", &plan]).env("FAILPOINTS", &armed).output().unwrap().into();
            // Either it found out by itself, or it says where to ask again; never is it done twice.
            if ran.code != Some(0) {
                assert!(matches!(ran.code, Some(1 | 69)), "{armed}: {ran}");
                example.phasegate(&["retry", example.name]).expect(0);
            }
            writer.ends_well();
            check_end(&example, &armed);
        }
    }
}

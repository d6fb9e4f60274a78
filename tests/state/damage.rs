//! State stores that are torn, flipped, cut and put back: found, named and left as they are, and whatever is whole goes on.

use std::fs;
use std::path::PathBuf;

use phasegate::run::Digest;

use crate::bad_luck::{APPROVAL, sandbox};
use crate::sandbox::{Ran, Sandbox};

const OTHER: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata:
  name: other
targets:
  app:
    engine: sqlite
    url: "sqlite://other.db"
steps:
  - id: create
    phase: expand
    target: app
    sql: CREATE TABLE things (id INTEGER PRIMARY KEY)
    undo:
      sql: DROP TABLE things
"#;

const STATE: &str = ".phasegate/state.db";

/// Two runs: `customers` waits for an approval, `other` is over.
fn two_runs() -> Sandbox {
    let sandbox = sandbox(APPROVAL);
    sandbox.write("other.yaml", OTHER);
    sandbox.sql("other.db", "CREATE TABLE there (id INTEGER)");
    sandbox.run(&["run", "other.yaml"]).expect(0);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    sandbox.run(&["state", "check"]).expect(0);
    sandbox
}

fn file(sandbox: &Sandbox) -> PathBuf {
    sandbox.path(STATE)
}

/// The file's bytes with everything in it, and no log beside it.
fn whole(sandbox: &Sandbox) -> Vec<u8> {
    sandbox.sql(STATE, "PRAGMA wal_checkpoint(TRUNCATE)");
    without_log(sandbox);
    fs::read(file(sandbox)).unwrap()
}

fn without_log(sandbox: &Sandbox) {
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(sandbox.path(&format!("{STATE}{suffix}")));
    }
}

fn run_of(sandbox: &Sandbox, plan: &str) -> String {
    sandbox.value(STATE, &format!("SELECT run FROM runs WHERE plan = '{plan}'"))
}

#[track_caller]
fn assert_calm(ran: &Ran, case: &str) {
    assert!(ran.code.is_some(), "{case}: {ran}");
    assert!(!ran.stderr.contains("panicked"), "{case}: {ran}");
}

/// `customers` is damaged at a record, and that is all.
#[track_caller]
fn assert_only_customers(sandbox: &Sandbox, record: u64, kind: &str) {
    let run = run_of(sandbox, "customers");
    let before = whole(sandbox);
    let check = sandbox.run(&["state", "check", "--format", "json"]).expect(65).json();
    let runs = check["runs"].as_array().unwrap();
    let found = runs.iter().find(|one| one["run"] == run.as_str()).unwrap();
    assert_eq!(found["ok"], false, "{check:#}");
    assert_eq!(found["flaw"]["record"], record, "{check:#}");
    assert_eq!(found["flaw"]["kind"], kind, "{check:#}");
    let others = runs.iter().filter(|one| one["run"] != run.as_str());
    assert!(others.clone().count() > 0 && others.clone().all(|one| one["ok"] == true), "{check:#}");
    let said = sandbox.run(&["state", "check"]).expect(65);
    assert!(said.stdout.contains("WRONG:") && said.stdout.contains(&run), "{said}");
    for args in [
        &["status", "customers"][..],
        &["run", "plan.yaml"],
        &["history", "customers"],
        &["pause", "customers"],
        &["state", "export"],
        &["state", "export", "customers"],
    ] {
        let refused = sandbox.run(args).expect(65);
        assert!(refused.stderr.contains(&format!("record {record}")), "{args:?}: {refused}");
        assert!(refused.stderr.contains("help:"), "{args:?}: {refused}");
        assert_calm(&refused, "refused");
    }
    assert_eq!(fs::read(file(sandbox)).unwrap(), before, "the damaged file was changed");
    // The other run is as usable as ever, and can be saved.
    sandbox.run(&["status", "other"]).expect(0);
    sandbox.run(&["history", "other", "--verify"]).expect(0);
    sandbox.run(&["run", "other.yaml"]).expect(0);
    sandbox.run(&["state", "export", "other", "--out", "saved.jsonl", "--force"]).expect(0);
    sandbox.run(&["--state", "saved.db", "state", "import", "saved.jsonl"]).expect(0);
    sandbox.run(&["--state", "saved.db", "status", "other"]).expect(0);
}

#[test]
fn a_flipped_bit_in_a_record_is_named_and_the_other_run_goes_on() {
    let sandbox = two_runs();
    let (run, mut bytes) = (run_of(&sandbox, "customers"), whole(&sandbox));
    let version = sandbox.value(
        STATE,
        &format!(
            "SELECT version FROM records WHERE run = '{run}' AND CAST(body AS TEXT) LIKE '%step_succeeded%' \
             AND CAST(body AS TEXT) LIKE '%\"step\":\"copy\"%'"
        ),
    );
    // A record is short enough to stand in one piece.
    let body = sandbox.value(
        STATE,
        &format!(
            "SELECT CAST(body AS TEXT) FROM records WHERE run = '{run}' AND version = {version}"
        ),
    );
    let at = bytes.windows(body.len()).position(|part| part == body.as_bytes()).unwrap();
    let inside = body.find("copy").unwrap();
    bytes[at + inside] ^= 1;
    fs::write(file(&sandbox), &bytes).unwrap();
    assert_only_customers(&sandbox, version.parse().unwrap(), "damaged");
}

#[test]
fn a_deleted_record_is_named_and_the_other_run_goes_on() {
    let sandbox = two_runs();
    let run = run_of(&sandbox, "customers");
    sandbox.sql(STATE, &format!("DELETE FROM records WHERE run = '{run}' AND version = 3"));
    assert_only_customers(&sandbox, 3, "damaged");
}

#[test]
fn a_record_of_a_newer_format_is_named_as_such() {
    let sandbox = two_runs();
    let run = run_of(&sandbox, "customers");
    let of = |column: &str| {
        sandbox.value(STATE, &format!("SELECT {column} FROM runs WHERE run = '{run}'"))
    };
    let version: u64 = of("head_version").parse::<u64>().unwrap() + 1;
    let body = r#"{"format":2,"sealed":"who knows"}"#;
    let hash = Digest::of_bytes(format!("{}\0{body}", of("head_hash")).as_bytes());
    let hash = hash.as_str();
    sandbox.sql(
        STATE,
        &format!(
            "INSERT INTO records VALUES ('{run}', {version}, CAST('{body}' AS BLOB), '{hash}');
             UPDATE runs SET head_version = {version}, head_hash = '{hash}' WHERE run = '{run}'"
        ),
    );
    assert_only_customers(&sandbox, version, "newer");
    let said = sandbox.run(&["state", "check"]).expect(65);
    assert!(said.stdout.contains("Use the version of phasegate that wrote it"), "{said}");
}

#[test]
fn a_runs_row_that_is_gone_shows_by_its_records() {
    let sandbox = two_runs();
    let run = run_of(&sandbox, "customers");
    sandbox.sql(STATE, &format!("PRAGMA foreign_keys = OFF; DELETE FROM runs WHERE run = '{run}'"));
    let said = sandbox.run(&["state", "check"]).expect(65);
    assert!(said.stdout.contains(&run) && said.stdout.contains("row is missing"), "{said}");
    sandbox.run(&["status", "other"]).expect(0);
    // The target still knows whose it was.
    let refused = sandbox.run(&["run", "plan.yaml"]).expect(65);
    assert!(refused.stderr.contains("of this state store, which doesn't have it"), "{refused}");
}

/// Wherever a bit is flipped: what is shown is what was there, or nothing is shown.
#[test]
fn a_flipped_bit_anywhere_shows_nothing_wrong() {
    let sandbox = two_runs();
    let good = whole(&sandbox);
    let history = ["history", "customers", "--format", "json"];
    let right = sandbox.run(&history).expect(0).stdout;
    let mut refused = 0;
    let step = good.len() / 40;
    // The header's first fields one by one, and then a place in every piece of the file.
    let places = (0..100).step_by(9).chain((100..good.len()).step_by(step));
    for at in places {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(file(&sandbox), &bytes).unwrap();
        let case = format!("byte {at}");
        let checked = sandbox.run(&["state", "check"]);
        assert_calm(&checked, &case);
        let shown = sandbox.run(&history);
        assert_calm(&shown, &case);
        match shown.code {
            Some(0) => assert_eq!(shown.stdout, right, "{case}"),
            // A flipped name is no name of a run any more, and a flipped version of the file's format may forbid writing.
            Some(64 | 65 | 69) => {
                refused += 1;
                assert_ne!(checked.code, Some(0), "{case}: {checked}{shown}");
                assert!(shown.stdout.contains("\"help\""), "{case}: {shown}");
            }
            _ => panic!("{case}: {shown}"),
        }
        without_log(&sandbox);
    }
    assert!(refused > 10, "{refused}");
    fs::write(file(&sandbox), &good).unwrap();
    sandbox.run(&["state", "check"]).expect(0);
}

#[test]
fn a_torn_file_is_refused_and_left_as_it_is() {
    let sandbox = two_runs();
    let good = whole(&sandbox);
    for length in [0, 50, 100, 4096, 4097, good.len() / 2, good.len() - 4096, good.len() - 512] {
        let torn = &good[..length];
        without_log(&sandbox);
        fs::write(file(&sandbox), torn).unwrap();
        for args in [&["state", "check"][..], &["status", "customers"], &["run", "plan.yaml"]] {
            let refused = sandbox.run(args).expect(65);
            assert_calm(&refused, &length.to_string());
            let said = refused.stdout + &refused.stderr;
            assert!(said.contains("ackup"), "{length} {args:?}: {said}");
        }
        assert_eq!(fs::read(file(&sandbox)).unwrap(), torn, "{length}");
    }
}

/// A process that died leaves its newest records in the log beside the file.
#[test]
fn a_log_that_was_lost_or_cut_shows_by_what_the_target_knows() {
    let sandbox = sandbox(APPROVAL);
    let killed = sandbox.run_with(
        &["run", "plan.yaml"],
        "FAILPOINTS",
        "journal::after-append=8*off->return",
    );
    assert_eq!(killed.code, None, "{killed}");
    let log = sandbox.path(&format!("{STATE}-wal"));
    let (whole, newest) = (fs::read(file(&sandbox)).unwrap(), fs::read(&log).unwrap());
    assert!(newest.len() > 10_000, "{}", newest.len());
    let put = |newest: Option<&[u8]>| {
        fs::write(file(&sandbox), &whole).unwrap();
        let _ = fs::remove_file(sandbox.path(&format!("{STATE}-shm")));
        let _ = fs::remove_file(&log);
        if let Some(newest) = newest {
            fs::write(&log, newest).unwrap();
        }
    };
    // Without it there is no run, but in the target.
    put(None);
    let refused = sandbox.run(&["run", "plan.yaml"]).expect(65);
    assert!(refused.stderr.contains("of this state store, which doesn't have it"), "{refused}");
    assert!(refused.stderr.contains("-wal"), "{refused}");
    // Cut, it holds what was written first.
    put(Some(&newest[..newest.len() / 2]));
    let refused = sandbox.run(&["run", "plan.yaml"]).expect(65);
    assert!(
        refused.stderr.contains("knows record") || refused.stderr.contains("doesn't have it"),
        "{refused}"
    );
    // A log without its file is not begun anew.
    put(Some(&newest));
    fs::rename(file(&sandbox), sandbox.path("away")).unwrap();
    for args in [&["run", "plan.yaml"][..], &["state", "check"]] {
        sandbox.run(args).expect(65);
    }
    fs::rename(sandbox.path("away"), file(&sandbox)).unwrap();
    // Whole, it goes on.
    put(Some(&newest));
    sandbox.run(&["state", "check"]).expect(0);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
}

#[test]
fn a_store_put_back_to_an_older_copy_shows_by_what_the_target_knows() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml", "--to", "expand"]).expect(0);
    let older = whole(&sandbox);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let newer = whole(&sandbox);
    fs::write(file(&sandbox), &older).unwrap();
    // By itself it is whole.
    sandbox.run(&["state", "check"]).expect(0);
    let proved = sandbox.run(&["history", "customers", "--verify"]).expect(65);
    assert!(proved.stdout.contains("BROKEN"), "{proved}");
    for _ in 0..3 {
        let refused = sandbox.run(&["run", "plan.yaml"]).expect(65);
        assert!(refused.stderr.contains("target app knows record"), "{refused}");
    }
    without_log(&sandbox);
    fs::write(file(&sandbox), &newer).unwrap();
    sandbox.run(&["run", "plan.yaml"]).expect(4);
}

#[test]
fn there_is_nothing_to_check_where_there_is_no_store() {
    let sandbox = Sandbox::new();
    sandbox.run(&["state", "check"]).expect(69);
    sandbox.run(&["state", "export"]).expect(69);
    assert!(!sandbox.path(".phasegate").exists());
    sandbox.run(&["--state", "postgres://nobody@127.0.0.1:1/none", "state", "check"]).expect(69);
}

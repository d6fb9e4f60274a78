//! Runs that go from one state store to another, and the store that had them before.

use std::fs;
use std::time::Duration;

use crate::bad_luck::{APPROVAL, sandbox};
use crate::sandbox::{Ran, Sandbox, wait_for};

/// A run that waits for an approval, in the store that is taken unless another is said.
fn at_the_gate() -> Sandbox {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    sandbox
}

fn export(sandbox: &Sandbox, file: &str) {
    sandbox.run(&["state", "export", "--out", file, "--force"]).expect(0);
}

/// The command in the other store.
fn in_new(sandbox: &Sandbox, args: &[&str]) -> Ran {
    sandbox.run(&[&["--state", "new.db"], args].concat())
}

/// Approves what the gate releases, after looking at it, in a store.
fn approve(sandbox: &Sandbox, state: &str) {
    let look = ["--state", state, "gates", "customers", "ready", "--show", "--format", "json"];
    let digest = sandbox.run(&look).json()["gates"][0]["work"].as_str().unwrap().to_owned();
    let args = ["--state", state, "approve", "customers", "ready", "--digest", &digest];
    sandbox.run(&args).expect(0);
}

fn head(ran: &Ran) -> u64 {
    ran.json()["records"].as_array().unwrap().len() as u64
}

#[test]
fn a_run_goes_on_in_another_store_and_no_longer_in_its_own() {
    let sandbox = at_the_gate();
    sandbox.run(&["state", "check"]).expect(0);
    let said = sandbox.run(&["state", "export", "--out", "moved.jsonl"]).expect(0);
    assert!(said.stdout.starts_with("Exported 1 run with "), "{said}");
    let said = sandbox.run(&["state", "export", "--out", "moved.jsonl"]).expect(64);
    assert!(said.stderr.contains("is there already"), "{said}");
    let said = sandbox.run(&["state", "export", "--out", "moved.jsonl", "--force"]).expect(0);
    assert!(said.stdout.contains("in the place of the file that was there"), "{said}");
    // The same on stdout, but for the moment.
    let piped = sandbox.run(&["state", "export", "customers"]).expect(0);
    let lines = |text: &str| text.lines().count();
    assert_eq!(
        lines(&piped.stdout),
        lines(&fs::read_to_string(sandbox.path("moved.jsonl")).unwrap())
    );
    sandbox.run(&["state", "export", "--format", "json"]).expect(64);
    sandbox.run(&["state", "export", "--redact"]).expect(64);
    sandbox.run(&["state", "export", "nobody"]).expect(64);

    let said = in_new(&sandbox, &["state", "import", "moved.jsonl"]).expect(0);
    assert!(said.stdout.contains("history "), "{said}");
    let again = in_new(&sandbox, &["state", "import", "moved.jsonl", "--format", "json"]).expect(0);
    assert_eq!(again.json()["runs"][0]["outcome"], "present", "{again}");
    in_new(&sandbox, &["state", "check"]).expect(0);
    in_new(&sandbox, &["history", "customers", "--verify"]).expect(0);
    in_new(&sandbox, &["status", "customers"]).expect(0);
    approve(&sandbox, "new.db");
    in_new(&sandbox, &["run", "plan.yaml", "--to", "retire"]).expect(0);

    let refused = sandbox.run(&["run", "plan.yaml"]).expect(5);
    assert!(refused.stderr.contains("is driven from another state store"), "{refused}");
    assert!(refused.stderr.contains("new.db"), "{refused}");
    assert!(refused.stderr.contains("state export"), "{refused}");
    assert!(refused.stderr.contains("state import"), "{refused}");
    let refused = sandbox.run(&["rollback", "customers", "--yes", "--format", "json"]).expect(5);
    assert_eq!(refused.json()["holder"]["over"], "the run itself", "{refused}");
    in_new(&sandbox, &["history", "customers", "--verify"]).expect(0);
    in_new(&sandbox, &["run", "plan.yaml"]).expect(0);
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"]);
    // Also when all is over: what the old store knows of it is older.
    sandbox.run(&["run", "plan.yaml"]).expect(5);
    let behind = sandbox.run(&["history", "customers", "--verify"]).expect(5);
    assert!(behind.stdout.contains("elsewhere: target app knows records of another"), "{behind}");
    assert!(behind.stdout.contains("/new.db"), "{behind}");
}

/// What an operator asks of a run is recorded where the run is, or nowhere.
#[test]
fn every_command_that_writes_is_refused_where_another_store_has_the_run() {
    let sandbox = at_the_gate();
    export(&sandbox, "moved.jsonl");
    let look = ["gates", "customers", "ready", "--show", "--format", "json"];
    let digest = sandbox.run(&look).json()["gates"][0]["work"].as_str().unwrap().to_owned();
    in_new(&sandbox, &["state", "import", "moved.jsonl"]).expect(0);
    in_new(&sandbox, &["run", "plan.yaml"]).expect(4);
    let records = || head(&sandbox.run(&["history", "customers", "--format", "json"]));
    let before = records();
    for command in [
        &["approve", "customers", "ready", "--digest", &digest][..],
        &["reject", "customers", "ready", "--reason", "no"],
        &["pause", "customers"],
        &["rollback", "customers", "--yes"],
        &["abort", "customers", "--leave", "--reason", "no"],
    ] {
        let refused = sandbox.run(&[command, &["--format", "json"]].concat()).expect(5);
        let holder = &refused.json()["holder"];
        assert!(holder["store"].as_str().unwrap().ends_with("new.db"), "{refused}");
        assert!(refused.stdout.contains("state export"), "{refused}");
    }
    assert_eq!(records(), before, "something was recorded");
    // Had anything been, the histories had parted and this were refused.
    in_new(&sandbox, &["state", "export", "--out", "back.jsonl"]).expect(0);
    sandbox.run(&["state", "import", "back.jsonl"]).expect(0);
    sandbox.run(&["pause", "customers"]).expect(0);
    sandbox.run(&["resume", "customers"]).expect(4);
    in_new(&sandbox, &["pause", "customers"]).expect(5);
}

/// A database that doesn't answer keeps nobody from pausing; what would drive the run records nothing.
#[test]
fn where_a_database_can_not_be_asked_it_is_said_and_nothing_is_driven() {
    let sandbox = at_the_gate();
    let away = || fs::rename(sandbox.path("app.db"), sandbox.path("away.db")).unwrap();
    let back = || fs::rename(sandbox.path("away.db"), sandbox.path("app.db")).unwrap();
    let records = || head(&sandbox.run(&["history", "customers", "--format", "json"]));
    away();
    let paused = sandbox.run(&["pause", "customers"]).expect(0);
    assert!(paused.stderr.contains("target app was not asked"), "{paused}");
    let before = records();
    let refused = sandbox.run(&["resume", "customers"]);
    assert!(refused.code.is_some_and(|code| code != 0 && code != 4), "{refused}");
    assert!(refused.stderr.contains("nothing was recorded"), "{refused}");
    assert_eq!(records(), before);
    back();
    sandbox.run(&["resume", "customers"]).expect(4);
}

/// What was recorded here last is not how the run stands elsewhere.
#[test]
fn a_run_that_was_paused_and_left_is_not_called_paused() {
    let sandbox = at_the_gate();
    sandbox.run(&["pause", "customers"]).expect(0);
    export(&sandbox, "moved.jsonl");
    in_new(&sandbox, &["state", "import", "moved.jsonl"]).expect(0);
    in_new(&sandbox, &["resume", "customers"]).expect(4);
    sandbox.run(&["run", "plan.yaml"]).expect(5);
}

/// A store that is refused draws no token, so that it hands on no more than it had.
#[test]
fn a_store_that_was_refused_hands_nothing_on() {
    let sandbox = at_the_gate();
    export(&sandbox, "moved.jsonl");
    in_new(&sandbox, &["state", "import", "moved.jsonl"]).expect(0);
    in_new(&sandbox, &["run", "plan.yaml"]).expect(4);
    for _ in 0..3 {
        sandbox.run(&["run", "plan.yaml"]).expect(5);
    }
    export(&sandbox, "late.jsonl");
    sandbox.run(&["--state", "third.db", "state", "import", "late.jsonl"]).expect(0);
    let refused = sandbox.run(&["--state", "third.db", "run", "plan.yaml"]).expect(5);
    assert!(refused.stderr.contains("new.db"), "{refused}");
}

#[test]
fn what_was_driven_on_after_its_export_is_not_taken_over() {
    let sandbox = at_the_gate();
    export(&sandbox, "early.jsonl");
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    in_new(&sandbox, &["state", "import", "early.jsonl"]).expect(0);
    let refused = in_new(&sandbox, &["run", "plan.yaml"]).expect(5);
    assert!(refused.stderr.contains("state export"), "{refused}");
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    export(&sandbox, "late.jsonl");
    in_new(&sandbox, &["state", "import", "late.jsonl"]).expect(0);
    in_new(&sandbox, &["run", "plan.yaml"]).expect(4);
    sandbox.run(&["run", "plan.yaml"]).expect(5);
}

#[test]
fn a_run_goes_there_and_back() {
    let sandbox = at_the_gate();
    export(&sandbox, "there.jsonl");
    in_new(&sandbox, &["state", "import", "there.jsonl"]).expect(0);
    in_new(&sandbox, &["run", "plan.yaml"]).expect(4);
    sandbox.run(&["run", "plan.yaml"]).expect(5);
    in_new(&sandbox, &["state", "export", "--out", "back.jsonl"]).expect(0);
    sandbox.run(&["state", "import", "back.jsonl"]).expect(0);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    in_new(&sandbox, &["run", "plan.yaml"]).expect(5);
    approve(&sandbox, ".phasegate/state.db");
    sandbox.run(&["run", "plan.yaml"]).expect(0);
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"]);
}

/// Of several that took the same export, one has it: the first that drives.
#[test]
fn of_two_stores_with_one_export_the_first_to_drive_has_the_run() {
    let sandbox = at_the_gate();
    export(&sandbox, "moved.jsonl");
    in_new(&sandbox, &["state", "import", "moved.jsonl"]).expect(0);
    sandbox.run(&["--state", "third.db", "state", "import", "moved.jsonl"]).expect(0);
    sandbox.run(&["--state", "third.db", "run", "plan.yaml"]).expect(4);
    let refused = in_new(&sandbox, &["run", "plan.yaml"]).expect(5);
    assert!(refused.stderr.contains("third.db"), "{refused}");
    sandbox.run(&["run", "plan.yaml"]).expect(5);
    sandbox.run(&["--state", "third.db", "run", "plan.yaml"]).expect(4);
}

#[test]
fn what_was_exported_while_it_was_driven_is_imported_when_that_is_over() {
    let sandbox = at_the_gate();
    let mut driver = sandbox.command(&["run", "plan.yaml", "--wait", "10m"]);
    let mut driver = driver.stderr(std::process::Stdio::null()).spawn().unwrap();
    let is_driven = || {
        let held = "SELECT holder_pid FROM leases WHERE holder_id IS NOT NULL";
        sandbox.value(".phasegate/state.db", held) == driver.id().to_string()
    };
    assert!(wait_for(Duration::from_mins(1), is_driven));
    let said = sandbox.run(&["state", "export", "--out", "meanwhile.jsonl"]).expect(0);
    assert!(said.stderr.contains("is driven by"), "{said}");
    let refused = in_new(&sandbox, &["state", "import", "meanwhile.jsonl"]).expect(5);
    assert!(refused.stderr.contains("was being driven when it was exported"), "{refused}");
    assert!(!sandbox.path("new.db").exists());
    driver.kill().unwrap();
    driver.wait().unwrap();
    // Its process is gone from this machine, so nothing was done since.
    in_new(&sandbox, &["state", "import", "meanwhile.jsonl"]).expect(0);
    in_new(&sandbox, &["run", "plan.yaml"]).expect(4);
    sandbox.run(&["run", "plan.yaml"]).expect(5);
}

#[test]
fn a_damaged_export_is_refused_before_anything_is_written() {
    let sandbox = at_the_gate();
    export(&sandbox, "good.jsonl");
    let good = fs::read(sandbox.path("good.jsonl")).unwrap();
    let mut flipped = good.clone();
    let at = good.len() / 2;
    flipped[at] ^= 4;
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("cut", good[..good.len() - 100].to_vec()),
        ("half", good[..at].to_vec()),
        ("flipped", flipped),
        ("twice", [good.clone(), good.clone()].concat()),
        ("a plan", fs::read(sandbox.path("plan.yaml")).unwrap()),
        ("newer", br#"{"kind":"export","format":2}"#.to_vec()),
    ] {
        fs::write(sandbox.path("bad.jsonl"), bytes).unwrap();
        let refused = in_new(&sandbox, &["state", "import", "bad.jsonl"]).expect(65);
        assert!(refused.stderr.contains("can't be imported"), "{what}: {refused}");
        assert!(refused.stderr.contains("help:"), "{what}: {refused}");
        assert!(!sandbox.path("new.db").exists(), "{what}");
    }
    in_new(&sandbox, &["state", "import", "nowhere.jsonl"]).expect(65);
}

#[test]
fn another_history_is_refused_with_both_heads() {
    let sandbox = at_the_gate();
    export(&sandbox, "one.jsonl");
    in_new(&sandbox, &["state", "import", "one.jsonl"]).expect(0);
    in_new(&sandbox, &["pause", "customers", "--reason", "here"]).expect(0);
    let refused = in_new(&sandbox, &["state", "import", "one.jsonl"]).expect(6);
    assert!(refused.stderr.contains("the export is older"), "{refused}");
    sandbox.run(&["pause", "customers", "--reason", "there"]).expect(0);
    export(&sandbox, "two.jsonl");
    let refused = in_new(&sandbox, &["state", "import", "two.jsonl"]).expect(6);
    let records = head(&in_new(&sandbox, &["history", "customers", "--format", "json"]).expect(0));
    let named = refused.stderr.matches(&format!("{records}, with the hash ")).count();
    assert_eq!(named, 2, "{refused}");
}

#[test]
fn an_export_holds_no_secret() {
    let sandbox = sandbox(APPROVAL);
    let plan = fs::read_to_string(sandbox.path("plan.yaml")).unwrap();
    sandbox.write("plan.yaml", &plan.replace("\"sqlite://app.db\"", "\"${env:APP_URL}\""));
    let file = sandbox.path("app.db").display().to_string();
    let url = format!("sqlite://{file}");
    sandbox.run_with(&["run", "plan.yaml"], "APP_URL", &url).expect(4);
    let export = sandbox.run(&["state", "export"]).expect(0);
    assert!(export.stdout.contains("${env:APP_URL}"), "{export}");
    assert!(!export.stdout.contains(&url), "{export}");
}

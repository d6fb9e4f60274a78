//! Turns that a run takes while it is in trouble: given up, gone back, taken up again, interrupted. What the database knows
//! counts, and what people said counts.

use std::process::Stdio;
use std::time::Duration;

use crate::bad_luck::{APPROVAL, ROWS, plan, sandbox};
use crate::failures::{Locked, signal};
use crate::sandbox::{Ran, Sandbox, wait_for};

/// A plan that writes over what was there before, with an undo of its own.
const OVER: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata:
  name: things
targets:
  app:
    engine: sqlite
    url: "sqlite://app.db"
mappings:
  things:
    from: { target: app, table: things, key: [id] }
    into: { target: app, table: things }
    columns:
      code: lower(name)
steps:
  - id: sync
    phase: dual-write
    dual_write: { mapping: things, direction: forward }
  - id: copy
    phase: backfill
    backfill:
      mapping: things
      chunk: { rows: 2 }
    undo:
      sql: UPDATE things SET code = 'before' WHERE code IS NOT NULL
"#;

fn things(names: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", OVER);
    sandbox.sql(
        "app.db",
        &format!(
            "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, code TEXT CHECK (code <> 'bad'));
             INSERT INTO things (name, code) VALUES {names};"
        ),
    );
    sandbox
}

fn codes(sandbox: &Sandbox) -> Vec<String> {
    sandbox.rows("app.db", "SELECT DISTINCT coalesce(code, 'NULL') FROM things ORDER BY 1")
}

fn state(sandbox: &Sandbox, step: &str) -> String {
    let status = sandbox.run(&["status", "customers", "--format", "json"]);
    if status.code != Some(0) {
        return String::new();
    }
    let status = status.json();
    let steps = status["steps"].as_array().unwrap();
    let step = steps.iter().find(|found| found["id"] == step).unwrap();
    step["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_failed_run_can_be_given_up() {
    let sandbox = things("('A', NULL), ('B', NULL), ('BAD', NULL)");
    sandbox.run(&["run", "plan.yaml"]).expect(1);
    sandbox.run(&["abort", "things", "--leave", "--reason", "enough"]).expect(0);
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"]);
    sandbox.run(&["rollback", "things", "--yes"]).expect(64);
}

#[test]
fn the_undo_of_a_copy_is_run_also_when_the_copy_did_not_come_to_its_end() {
    let half = things("('A', 'old'), ('B', 'old'), ('BAD', NULL), ('D', NULL)");
    half.run(&["run", "plan.yaml"]).expect(1);
    assert_eq!(codes(&half), ["NULL", "a", "b"]);
    half.run(&["rollback", "things", "--yes"]).expect(0);
    assert_eq!(codes(&half), ["NULL", "before"]);
    assert_eq!(half.ours("app.db"), ["phasegate_runs"]);
}

#[test]
fn a_loss_that_is_accepted_later_lets_the_way_back_go_on() {
    let sandbox = sandbox(APPROVAL);
    let before = sandbox.rows("app.db", "SELECT * FROM customers");
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    sandbox.sql("app.db", "INSERT INTO customers_v2 VALUES (999999, 'only here', NULL, NULL)");
    sandbox.run(&["rollback", "customers", "--yes"]).expect(9);
    let args = ["rollback", "customers", "--yes", "--accept-loss", "customers"];
    sandbox.run(&args).expect(0);
    assert_eq!(sandbox.rows("app.db", "SELECT * FROM customers"), before);
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"]);
}

#[test]
fn what_failed_and_can_not_be_undone_does_not_keep_the_rest_from_being_undone() {
    let sandbox = sandbox("");
    let text = plan("").replace("  - id: retire\n", "  - id: tidy\n    phase: contract\n    target: app\n    sql: DELETE FROM customers_v2 WHERE nothing_like_that\n    irreversible: they are no customers\n  - id: retire\n");
    sandbox.write("plan.yaml", &text);
    let before = sandbox.dump("app.db");
    sandbox.run(&["run", "plan.yaml"]).expect(1);
    assert_eq!(state(&sandbox, "tidy"), "failed");
    sandbox.run(&["rollback", "customers", "--yes"]).expect(0);
    assert_eq!(sandbox.dump("app.db"), before);
}

/// The connection is lost behind each kind of commit: the ledger says what was done, also where a gate would say that the
/// schema is another one now.
#[test]
fn a_commit_whose_answer_was_lost_is_found_in_the_ledger() {
    let whole = sandbox("");
    whole.run(&["run", "plan.yaml"]).expect(0);
    let expected = whole.dump("app.db");
    for kind in ["execute", "install", "plan", "chunk", "finish", "retire", "drop"] {
        let sandbox = sandbox(APPROVAL);
        sandbox.run_with(
            &["run", "plan.yaml"],
            "FAILPOINTS",
            &format!("sqlite::after-commit::{kind}=1*return(unknown)"),
        );
        crate::gates::approve(&sandbox, "ready", "dee");
        let points = format!("sqlite::after-commit::{kind}=1*return(unknown)");
        let ran = sandbox.run_with(&["run", "plan.yaml"], "FAILPOINTS", &points);
        assert_eq!(ran.code, Some(0), "{kind}: {ran}");
        assert_eq!(sandbox.dump("app.db"), expected, "{kind}");
    }
}

/// A lock that a client holds for a moment ends no command, wherever it comes.
#[test]
fn a_database_that_is_busy_for_a_moment_is_waited_for() {
    let sandbox = sandbox(APPROVAL);
    let run = |args: &[&str]| -> Ran {
        let lock = Locked::new(&sandbox, "app.db");
        let child = sandbox.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap();
        std::thread::sleep(Duration::from_secs(2));
        drop(lock);
        child.wait_with_output().unwrap().into()
    };
    run(&["run", "plan.yaml", "--to", "expand"]).expect(0);
    run(&["run", "plan.yaml", "--to", "verify"]).expect(0);
    // The gate can't be told to be anything but shut for want of an approval.
    let ran = run(&["run", "plan.yaml"]).expect(4);
    assert!(!ran.stdout.contains("locked"), "{ran}");
    run(&["rollback", "customers", "--yes"]).expect(0);
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"]);
}

#[test]
fn a_question_without_an_answer_does_not_keep_a_run_from_being_interrupted() {
    let endless = "      query:
        - target: app
          query: WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n
          expect: 1";
    let sandbox = sandbox(endless);
    sandbox.run(&["validate", "plan.yaml"]).expect(0);
    let mut child = sandbox
        .command(&["run", "plan.yaml", "--wait", "10m"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let compared = || state(&sandbox, "compare") == "succeeded";
    assert!(wait_for(Duration::from_secs(50), compared), "the gate is not reached");
    signal(child.id(), "INT");
    let ended = wait_for(Duration::from_secs(10), || child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    assert!(ended, "Ctrl-C was not heard");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_rest_between_chunks_ends_when_it_is_tuned_away() {
    let sandbox = sandbox(APPROVAL);
    let text = plan(APPROVAL)
        .replace("chunk: { rows: 150 }", "chunk: { rows: 150 }\n      pause_between: 10m");
    sandbox.write("plan.yaml", &text);
    let mut child = sandbox
        .command(&["run", "plan.yaml"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let copying = || {
        let query = "SELECT count(*) FROM sqlite_master WHERE name = 'customers_v2'";
        state(&sandbox, "copy") == "running"
            && sandbox.value("app.db", query) == "1"
            && sandbox.value("app.db", "SELECT count(*) FROM customers_v2") != "0"
    };
    assert!(wait_for(Duration::from_secs(50), copying), "the copy did not begin");
    sandbox.run(&["tune", "customers", "--pause-between", "0s"]).expect(0);
    let ended = wait_for(Duration::from_secs(30), || child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    assert!(ended, "it rests on");
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let rows = sandbox.value("app.db", "SELECT count(*) FROM customers_v2");
    assert_eq!(rows, ROWS.to_string());
}

/// The process dies after it recorded that the drop begins. What is said until it is run again counts.
#[test]
fn a_drop_that_had_been_permitted_waits_when_somebody_rejects_it_before_it_is_done() {
    let mut hits = 0;
    loop {
        let sandbox = sandbox("");
        let points = format!("journal::after-append={hits}*off->return");
        let ran = sandbox.run_with(&["run", "plan.yaml"], "FAILPOINTS", &points);
        assert_eq!(ran.code, None, "the drop was never found under way: {ran}");
        hits += 1;
        if state(&sandbox, "drop") != "running" {
            continue;
        }
        let args = ["reject", "customers", "ready-to-drop", "--as", "eve", "--reason", "wait"];
        sandbox.run(&args).expect(0);
        sandbox.run(&["run", "plan.yaml"]).expect(4);
        let old = "SELECT count(*) FROM customers_old";
        assert_eq!(sandbox.value("app.db", old), ROWS.to_string());
        sandbox.run(&["revoke", "customers", "ready-to-drop", "--as", "eve"]).expect(0);
        sandbox.run(&["run", "plan.yaml"]).expect(0);
        return;
    }
}

/// A step that needs no permit runs behind an open gate; what somebody else changed before it does not pass for its work.
#[test]
fn a_step_of_the_run_does_not_cover_what_somebody_else_changed() {
    let sandbox = sandbox(APPROVAL);
    let index = "  - id: index\n    phase: contract\n    target: app\n    sql: CREATE INDEX names ON customers_v2 (name)\n    undo:\n      sql: DROP INDEX names\n  - id: retire\n";
    sandbox.write("plan.yaml", &plan(APPROVAL).replace("  - id: retire\n", index));
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    crate::gates::approve(&sandbox, "ready", "dee").expect(0);
    sandbox.run(&["run", "plan.yaml", "--to", "ready"]).expect(0);
    sandbox.sql("app.db", "CREATE INDEX somebody_s ON customers (name)");
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    assert_eq!(state(&sandbox, "index"), "succeeded");
    assert_ne!(state(&sandbox, "retire"), "succeeded");
    crate::gates::approve(&sandbox, "ready", "dee").expect(0);
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}

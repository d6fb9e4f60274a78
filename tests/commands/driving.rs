//! Commands that drive runs or look at them, on a SQLite database.

use serde_json::Value;

use crate::bad_luck::{APPROVAL, sandbox};
use crate::sandbox::{Ran, Sandbox};

#[track_caller]
fn document(ran: &Ran) -> Value {
    let document = ran.json();
    assert_eq!(document["schema_version"], 1, "{ran}");
    assert_eq!(document["exit"]["code"].as_i64(), ran.code.map(i64::from), "{ran}");
    document
}

fn states(sandbox: &Sandbox) -> Vec<(String, String)> {
    let status = document(&sandbox.run(&["status", "--format", "json"]).expect(0));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = status["steps"].as_array().unwrap();
    steps.iter().map(|step| (text(&step["id"]), text(&step["state"]))).collect()
}

fn done(sandbox: &Sandbox) -> usize {
    states(sandbox).iter().filter(|(_, state)| state == "succeeded").count()
}

#[test]
fn to_a_phase_and_phase_by_phase() {
    let sandbox = sandbox(APPROVAL);
    let run = ["run", "plan.yaml", "--to", "expand", "--detailed-exitcode"];
    sandbox.run(&run).expect(2);
    let after_expand = done(&sandbox);
    assert!(after_expand > 0);
    sandbox.run(&["advance", "customers"]).expect(0);
    assert!(done(&sandbox) > after_expand);
    sandbox.run(&["run", "plan.yaml", "--to", "compare"]).expect(0);
    let status = document(&sandbox.run(&["status", "--format", "json"]).expect(0));
    assert_eq!(status["phase"], "contract", "{status:#}");
    sandbox.run(&["advance", "customers"]).expect(4);
    let slip = sandbox.run(&["run", "plan.yaml", "--to", "verfiy"]).expect(64);
    assert!(slip.stderr.contains("did you mean verify?"), "{slip}");
}

#[test]
fn a_run_that_is_complete_says_so_and_another_is_started_only_when_asked() {
    let sandbox = sandbox("");
    let first = document(&sandbox.run(&["run", "plan.yaml", "--format", "json"]).expect(0));
    assert_eq!(first["state"], "completed");
    assert_eq!(first["stop"]["kind"], "ended");
    let again = document(&sandbox.run(&["run", "plan.yaml", "--format", "json"]).expect(0));
    assert_eq!(again["run"], first["run"], "no other run");
    let said = sandbox.run(&["run", "plan.yaml"]).expect(0);
    assert!(said.stdout.contains("complete") && said.stdout.contains("--new"), "{said}");
    // The file has another meaning now: that nothing was done is no success.
    let text = std::fs::read_to_string(sandbox.path("plan.yaml")).unwrap();
    sandbox.write("plan.yaml", &text.replacen("customers_old", "customers_before", 1));
    let changed = sandbox.run(&["run", "plan.yaml", "--format", "json"]).expect(6);
    let changed = document(&changed);
    assert!(changed["difference"][0]["path"].is_string(), "{changed:#}");
    sandbox.run(&["retry", "customers"]).expect(64);
}

#[test]
fn an_unfinished_run_is_not_passed_over_by_new() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let refused = sandbox.run(&["run", "plan.yaml", "--new"]).expect(64);
    assert!(refused.stderr.contains("rollback"), "{refused}");
}

#[test]
fn results_and_nothing_else_go_to_stdout() {
    let sandbox = sandbox(APPROVAL);
    let ran = sandbox.run(&["run", "plan.yaml", "--format", "json", "-v"]).expect(4);
    let stopped = document(&ran);
    assert_eq!(stopped["stop"]["kind"], "at_gate");
    assert_eq!(stopped["stop"]["gates"][0]["id"], "ready");
    assert!(ran.stderr.contains("copy"), "progress: {ran}");
    let commands: [&[&str]; 6] = [
        &["status"],
        &["history", "customers"],
        &["history", "customers", "--verify"],
        &["pause", "customers"],
        &["rollback", "customers", "--yes"],
        &["status"],
    ];
    for command in commands {
        let words = [command, &["--format", "json"]].concat();
        document(&sandbox.run(&words).expect(0));
    }
}

#[test]
fn events_are_a_document_a_line_in_order() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let events = sandbox.run(&["events", "customers", "--format", "json"]).expect(0);
    let lines: Vec<Value> =
        events.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, records) = lines.split_last().unwrap();
    assert_eq!(last["exit"]["code"], 0);
    for (record, version) in records.iter().zip(1..) {
        assert_eq!(record["version"], version, "{record:#}");
        assert!(record["event"]["kind"].is_string(), "{record:#}");
    }
}

#[test]
fn what_a_rollback_undoes_is_listed_before_it_is_confirmed() {
    let sandbox = sandbox(APPROVAL);
    let before = sandbox.dump("app.db");
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let refused = sandbox.run(&["rollback", "customers"]).expect(64);
    assert!(refused.stderr.contains("DROP TABLE customers_v2"), "{refused}");
    let back = sandbox.run(&["rollback", "customers", "--yes"]).expect(0);
    assert!(back.stdout.contains("rolled back"), "{back}");
    assert_eq!(sandbox.dump("app.db"), before);
}

#[test]
fn the_graph_shows_where_a_run_stands() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let graph = sandbox.run(&["graph", "plan.yaml", "--status", "customers"]).expect(0);
    let line = |id: &str| {
        let mut lines = graph.stdout.lines();
        lines.find(|line| line.trim_start().starts_with(id)).unwrap_or_default().to_owned()
    };
    assert!(line("copy").contains("succeeded"), "{graph}");
    assert!(line("ready").contains("waiting"), "{graph}");
}

#[test]
fn a_watched_run_that_nobody_drives_is_shown_once() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let watched = sandbox.run(&["status", "customers", "--watch"]).expect(0);
    let plain = sandbox.run(&["status", "customers"]).expect(0);
    assert_eq!(watched.stdout.lines().next(), plain.stdout.lines().next());
}

#[test]
fn an_untouched_run_can_be_aborted_and_a_touched_one_left_with_a_reason() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let refused = sandbox.run(&["abort", "customers"]);
    assert_ne!(refused.code, Some(0), "{refused}");
    assert!(refused.stderr.contains("rollback customers"), "{refused}");
    let leave = ["abort", "customers", "--leave", "--reason", "another way", "--format", "json"];
    let left = document(&sandbox.run(&leave).expect(0));
    assert_eq!(left["state"], "aborted");
    assert!(left["stays"].as_array().is_some_and(|stays| !stays.is_empty()), "{left:#}");
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"]);
}

#[test]
fn colours_are_written_nowhere_but_on_a_terminal() {
    let sandbox = sandbox(APPROVAL);
    let commands: [(&[&str], i32); 3] =
        [(&["run", "plan.yaml"], 4), (&["status"], 0), (&["gates", "customers"], 4)];
    for (words, code) in commands {
        let ran: Ran = sandbox.command(words).env_remove("NO_COLOR").output().unwrap().into();
        let ran = ran.expect(code);
        assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{ran}");
    }
}

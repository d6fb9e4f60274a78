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
fn what_a_gate_lacks_is_what_is_advised() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let next = |words: &[&str]| {
        let words = [words, &["--format", "json"]].concat();
        let document = document(&sandbox.run(&words).expect(0));
        let next = document["next"].as_array().unwrap().iter();
        next.map(|one| one["command"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let has = |commands: &[String], wanted: &str| commands.iter().any(|one| one.contains(wanted));
    let asked = next(&["status"]);
    assert!(has(&asked, "approve customers ready") && !has(&asked, "revoke"), "{asked:?}");
    let reject = ["reject", "customers", "ready", "--as", "eve", "--reason", "not on a friday"];
    let rejected = next(&reject);
    assert!(has(&rejected, "revoke customers ready"), "{rejected:?}");
    next(&["revoke", "customers", "ready", "--as", "eve"]);
    let work = crate::gates::digest(&sandbox, "ready");
    let approved = next(&["approve", "customers", "ready", "--as", "dee", "--digest", &work]);
    assert!(approved[0].contains("run plan.yaml") && !has(&approved, "approve "), "{approved:?}");
    let gates = sandbox.run(&["gates", "customers"]).expect(0);
    assert!(gates.stdout.contains("run plan.yaml"), "{gates}");
}

/// Nothing on SQLite is ever left undecided, so the record is written as another runner would write it.
#[test]
fn an_ambiguous_step_is_nine_and_nothing_is_tried() {
    use phasegate::run::{Actor, Event, Proof, RunId, Way};
    use phasegate::store::{self, Create};

    let sandbox = sandbox(APPROVAL);
    let to = sandbox.run(&["run", "plan.yaml", "--to", "dual-write", "--format", "json"]).expect(0);
    let id = RunId::new(document(&to)["run"].as_str().unwrap());
    let state = sandbox.path(".phasegate/state.db").display().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = store::open(&state, Create::Never).await.unwrap();
        let version = phasegate::engine::load(&store, &id).await.unwrap().state.version();
        let (step, attempt, way) = ("copy".into(), 1, Way::Forward);
        let begun = Event::StepStarted { step, attempt, way, permit: None };
        let detail = "the connection was lost".to_owned();
        let lost =
            Event::StepAmbiguous { step: "copy".into(), attempt, way, detail, has_left: false };
        let by = Actor { name: "ana".into(), proof: Proof::Claimed, host: "db1".into() };
        store.append(&id, version, None, &by, vec![begun, lost]).await.unwrap();
        store.close().await;
    });
    let stuck = document(&sandbox.run(&["run", "plan.yaml", "--format", "json"]).expect(9));
    assert_eq!(stuck["exit"]["reason"], "stuck");
    assert_eq!(stuck["stop"]["step"], "copy", "{stuck:#}");
    assert_eq!(sandbox.value("app.db", "SELECT count(*) FROM customers_v2"), "0");
    let said = sandbox.run(&["status"]).expect(0);
    assert!(said.stdout.contains("the connection was lost"), "{said}");
    let shown =
        document(&sandbox.run(&["resolve", "customers", "copy", "--format", "json"]).expect(9));
    assert_eq!(shown["targets"][0]["in_ledger"], false, "{shown:#}");
    let answer = ["resolve", "customers", "copy", "--outcome", "not-applied", "--reason", "looked"];
    sandbox.run(&answer).expect(0);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    assert_ne!(sandbox.value("app.db", "SELECT count(*) FROM customers_v2"), "0");
}

#[test]
fn what_a_target_lacks_is_shown_in_the_plan_and_explained() {
    let sandbox = sandbox(APPROVAL);
    let text = std::fs::read_to_string(sandbox.path("plan.yaml")).unwrap();
    let text = text.replace("table: customers, key", "table: custommers, key");
    sandbox.write("plan.yaml", &format!("# once sqlite://me:hunter2@app.db\n{text}"));
    let said = sandbox.run(&["run", "plan.yaml"]).expect(3);
    assert!(said.stderr.contains("[D201]") && said.stderr.contains("plan.yaml:"), "{said}");
    assert!(said.stderr.contains("did you mean customers?"), "{said}");
    assert!(!said.stderr.contains("hunter2"), "{said}");
    let found = document(&sandbox.run(&["run", "plan.yaml", "--format", "json"]).expect(3));
    assert_eq!(found["findings"][0]["code"], "D201", "{found:#}");
    assert!(found["findings"][0]["location"]["line"].is_u64(), "{found:#}");
    sandbox.run(&["explain", "D201"]).expect(0);
}

#[test]
fn every_command_answers_with_its_frame_when_it_is_refused_too() {
    let sandbox = sandbox("");
    sandbox.run(&["run", "plan.yaml"]).expect(0);
    let commands: [&[&str]; 19] = [
        &["advance", "customers"],
        &["pause", "customers"],
        &["resume", "customers"],
        &["retry", "customers"],
        &["abort", "customers"],
        &["rollback", "customers", "--yes"],
        &["amend", "customers", "plan.yaml"],
        &["tune", "customers", "--chunk-rows", "5"],
        &["approve", "customers", "ready"],
        &["reject", "customers", "ready", "--reason", "late"],
        &["revoke", "customers", "ready"],
        &["resolve", "customers", "ready"],
        &["gates", "nobody"],
        &["history", "nobody"],
        &["status", "nobody"],
        &["run", "nowhere.yaml"],
        &["graph", "plan.yaml", "--status", "nobody"],
        &["tune", "customers"],
        &["no-such-command"],
    ];
    for command in commands {
        let refused = sandbox.run(&[command, &["--format", "json"]].concat());
        let refused_document = document(&refused);
        if refused.code != Some(0) {
            let error = &refused_document["error"];
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{refused}");
        }
    }
}

#[test]
fn a_stream_stays_a_document_a_line_when_it_fails() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml", "--to", "expand"]).expect(0);
    for words in [&["events", "nobody"][..], &["status", "nobody", "--watch"]] {
        let failed = sandbox.run(&[words, &["--format", "json"]].concat()).expect(64);
        assert_eq!(failed.stdout.lines().count(), 1, "{failed}");
        document(&failed);
    }
}

#[test]
fn a_store_that_was_named_leads_to_advice_that_names_the_environment() {
    let sandbox = sandbox(APPROVAL);
    sandbox.write(
        "phasegate.yaml",
        "apiVersion: phasegate/v1\nkind: Project\ngroups:\n  dba: [dee, dora]\nenvironments:\n  staging:\n    state: s.db\n",
    );
    sandbox.run(&["run", "plan.yaml", "--env", "staging"]).expect(4);
    let status =
        document(&sandbox.run(&["status", "--state", "s.db", "--format", "json"]).expect(0));
    let go_on = status["next"].as_array().unwrap().iter();
    let go_on = go_on.map(|one| one["command"].as_str().unwrap()).find(|one| one.contains(" run "));
    assert!(go_on.unwrap().contains("--env staging"), "{status:#}");
    let work = crate::gates::digest_in(&sandbox, "ready", &["--env", "staging"]);
    let stranger =
        ["approve", "customers", "ready", "--as", "zoe", "--env", "staging", "--digest", &work];
    let stranger = sandbox.run(&stranger).expect(77);
    assert!(stranger.stderr.contains("dee, dora"), "{stranger}");
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
fn a_run_that_has_changed_something_is_not_aborted_but_left_with_a_reason() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let refused = sandbox.run(&["abort", "customers"]);
    assert_ne!(refused.code, Some(0), "{refused}");
    assert!(refused.stderr.contains("rollback customers"), "{refused}");
    let leave = ["abort", "customers", "--leave", "--reason", "another way", "--format", "json"];
    let left = document(&sandbox.run(&leave).expect(0));
    assert_eq!(left["state"], "aborted");
    assert!(left["stays"].as_array().is_some_and(|stays| !stays.is_empty()), "{left:#}");
    assert_eq!(left["stays_on"]["app"][0], "create", "{left:#}");
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

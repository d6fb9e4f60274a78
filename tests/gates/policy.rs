//! Policy: pinned when a run starts, held against the project file by whatever goes on, and never weaker than it says.

use std::process::Stdio;
use std::time::Duration;

use super::people::{PROJECT, project};
use super::{digest_in, gate, said};
use crate::bad_luck::plan;
use crate::sandbox::{Sandbox, wait_for};

const STRICT: [&str; 2] = ["--env", "strict"];

fn at_the_last_gate() -> Sandbox {
    let sandbox = project(PROJECT);
    sandbox.run(&["run", "plan.yaml", "--as", "zoe", "--env", "strict"]).expect(4);
    sandbox
}

#[test]
fn an_environment_is_required_where_any_is_defined() {
    let sandbox = project(PROJECT);
    let asked = sandbox.run(&["run", "plan.yaml"]).expect(64);
    assert!(said(&asked).contains("--env staging"), "{asked}");
}

#[test]
fn a_policy_tightened_while_a_run_is_under_way_is_never_passed_over() {
    let sandbox = at_the_last_gate();
    let work = digest_in(&sandbox, "ready-to-drop", &STRICT);
    let approve = |by: &str, work: &str| {
        let words = ["approve", "customers", "ready-to-drop", "--as", by, "--digest", work];
        sandbox.run(&[&words[..], &STRICT].concat())
    };
    for by in ["dee", "ana", "ben"] {
        approve(by, &work).expect(0);
    }
    sandbox.write(
        "phasegate.yaml",
        &PROJECT
            .replace("verified_within: 1h\n        author", "verified_within: 30m\n        author"),
    );
    for words in [
        &["run", "plan.yaml"][..],
        &["advance", "customers"],
        &["resume", "customers"],
        &["retry", "customers"],
        &["approve", "customers", "ready-to-drop", "--digest", &work],
    ] {
        let refused = sandbox.run(&[words, &["--as", "chloe"], &STRICT].concat()).expect(6);
        let shown = said(&refused);
        assert!(shown.contains("policy.destructive.verified_within_ms"), "{words:?}: {refused}");
        assert!(shown.contains("amend customers plan.yaml"), "{words:?}: {refused}");
    }
    let looked = sandbox.run(&[&["gates", "customers"][..], &STRICT].concat());
    assert!(said(&looked).contains("policy of environment strict has changed"), "{looked}");
    assert_eq!(sandbox.value("app.db", "SELECT count(*) FROM customers_old"), "2000");

    let amend = ["amend", "customers", "plan.yaml", "--yes", "--as", "zoe"];
    let amended = sandbox.run(&[&amend[..], &STRICT].concat()).expect(0);
    assert!(said(&amended).contains("verified_within_ms"), "{amended}");
    let stopped = sandbox.run(&["run", "plan.yaml", "--env", "strict"]).expect(4);
    assert!(said(&stopped).contains("2 approvals of release"), "an approval survived: {stopped}");
    assert_ne!(digest_in(&sandbox, "ready-to-drop", &STRICT), work);
    approve("dee", &work).expect(6);
    let work = digest_in(&sandbox, "ready-to-drop", &STRICT);
    for by in ["dee", "ana", "ben"] {
        approve(by, &work).expect(0);
    }
    sandbox.run(&["run", "plan.yaml", "--env", "strict"]).expect(0);
}

/// Nobody gives a command here: the process that waits has to notice by itself.
#[test]
fn a_process_that_waits_does_not_act_on_the_policy_of_when_it_started() {
    let plain = "apiVersion: phasegate/v1\nkind: Project\ngroups: { dba: [dee] }\nenvironments:\n  strict:\n    policy:\n      destructive:\n        verified_within: 1h\n";
    let sandbox = project(plain);
    let text = plan("").replacen(
        "id: ready-to-drop\n    phase: contract\n    gate:\n",
        "id: ready-to-drop\n    phase: contract\n    gate:\n      soak: { after: retire, for: 6s }\n",
        1,
    );
    sandbox.write("plan.yaml", &text);
    let run = ["run", "plan.yaml", "--wait", "120s", "--env", "strict"];
    let mut waiting = sandbox.command(&run).stderr(Stdio::null()).spawn().unwrap();
    let put_aside = || {
        let old = "SELECT count(*) FROM sqlite_master WHERE name = 'customers_old'";
        sandbox.value("app.db", old) == "1"
    };
    assert!(wait_for(Duration::from_secs(30), put_aside), "nothing was put aside");
    let approvals = "        approvals: [{ group: dba, count: 1 }]\n        verified_within";
    sandbox.write("phasegate.yaml", &plain.replace("        verified_within", approvals));
    // As the run pinned it, the gate would open after 6 s: everything else holds by then, and the policy alone is missing.
    let alone = || {
        let shown = gate(&sandbox, "ready-to-drop", &STRICT);
        let conditions = shown["conditions"].as_array().unwrap().iter();
        let unmet: Vec<_> = conditions.filter(|one| one["verdict"] != "pass").collect();
        unmet.len() == 1 && unmet[0]["condition"] == "policy"
    };
    let is_alone = wait_for(Duration::from_secs(30), alone);
    std::thread::sleep(Duration::from_millis(2_500));
    let still_waits = waiting.try_wait().unwrap().is_none();
    let is_there = put_aside();
    // Taken over, the process goes on with the new policy, and waits for dee.
    let amend = ["amend", "customers", "plan.yaml", "--yes", "--as", "zoe"];
    sandbox.run(&[&amend[..], &STRICT].concat()).expect(0);
    let reached = || digest_in(&sandbox, "ready-to-drop", &STRICT) != "00000000";
    let is_reached = wait_for(Duration::from_secs(30), reached);
    let work = digest_in(&sandbox, "ready-to-drop", &STRICT);
    let approve = ["approve", "customers", "ready-to-drop", "--as", "dee", "--digest", &work];
    let approved = sandbox.run(&[&approve[..], &STRICT].concat());
    let ended = wait_for(Duration::from_secs(30), || waiting.try_wait().unwrap().is_some());
    if !ended {
        waiting.kill().unwrap();
    }
    let code = waiting.wait().unwrap().code();
    assert!(is_alone && still_waits && is_there && is_reached, "it acted on the old policy");
    assert_eq!((approved.code, code), (Some(0), Some(0)), "{approved}");
}

#[test]
fn the_graph_and_the_status_show_what_policy_added() {
    let sandbox = at_the_last_gate();
    let graph = sandbox.run(&["graph", "plan.yaml", "--env", "strict"]).expect(0).stdout;
    assert!(graph.contains("asks 2 approvals of release (from policy)"), "{graph}");
    assert!(graph.contains("asks a PASS not older than 1h\n"), "{graph}");
    for format in ["mermaid", "dot"] {
        let graph = sandbox.run(&["graph", "plan.yaml", "--env", "strict", "--format", format]);
        assert!(graph.stdout.contains("1 approval of dba (from policy)"), "{graph}");
    }
    let graph = ["graph", "plan.yaml", "--env", "strict", "--format", "json"];
    let graph = sandbox.run(&graph).expect(0).json();
    let nodes = graph["nodes"].as_array().unwrap();
    let last = nodes.iter().find(|node| node["id"] == "ready-to-drop").unwrap();
    let from_policy =
        last["asks"].as_array().unwrap().iter().filter(|one| one["from_policy"] == true);
    assert_eq!(from_policy.count(), 2);
    let status = ["status", "customers", "--env", "strict", "--format", "json"];
    let status = sandbox.run(&status).expect(0).json();
    let steps = status["steps"].as_array().unwrap();
    let last = steps.iter().find(|step| step["id"] == "ready-to-drop").unwrap();
    assert!(last["detail"].as_str().unwrap().contains("(from policy)"), "{last:#}");
}

#[test]
fn whoever_left_a_group_may_not_approve_and_other_groups_are_no_concern() {
    let sandbox = at_the_last_gate();
    let work = digest_in(&sandbox, "ready-to-drop", &STRICT);
    let approve = ["approve", "customers", "ready-to-drop", "--as", "dee", "--digest", &work];
    let approve = [&approve[..], &STRICT].concat();
    sandbox.write("phasegate.yaml", &PROJECT.replace("dba: [dee]", "dba: [dora]"));
    let refused = sandbox.run(&approve).expect(6);
    assert!(said(&refused).contains("policy.groups.dba"), "{refused}");
    sandbox.write("phasegate.yaml", &PROJECT.replace("dba: [dee]", "dba: [dee]\n  interns: [ivy]"));
    sandbox.run(&approve).expect(0);
}

#[test]
fn a_run_can_be_rolled_back_whatever_became_of_the_policy() {
    let sandbox = at_the_last_gate();
    sandbox.write(
        "phasegate.yaml",
        &PROJECT.replace("author_may_approve: false", "author_may_approve: true"),
    );
    sandbox.run(&["rollback", "customers", "--yes", "--env", "strict"]).expect(0);
    assert_eq!(sandbox.value("app.db", "SELECT count(*) FROM customers"), "2000");
}

#[test]
fn the_project_file_of_the_plan_counts_from_wherever_a_command_is_given() {
    let sandbox = at_the_last_gate();
    let work = digest_in(&sandbox, "ready-to-drop", &STRICT);
    let plain = PROJECT.replace("    state: strict.db\n", "");
    sandbox.write("elsewhere/phasegate.yaml", &plain.replace("dba: [dee]", "dba: [mallory]"));
    let approve = ["approve", "customers", "ready-to-drop", "--as", "mallory", "--digest", &work];
    let named = ["--config", "elsewhere/phasegate.yaml", "--env", "strict", "--state", "strict.db"];
    sandbox.run(&[&approve[..], &named].concat()).expect(6);
    // The environment has gone from the file that the plan belongs to.
    sandbox.write("phasegate.yaml", &PROJECT.replace("  strict:", "  other:"));
    let gone = sandbox.run(&[&approve[..], &["--state", "strict.db"]].concat()).expect(6);
    assert!(said(&gone).contains("no longer defines environment strict"), "{gone}");
    let state = ["status", "--state", "strict.db", "--format", "json"];
    let id = sandbox.run(&state).expect(0).json()["run"].as_str().unwrap().to_owned();
    std::fs::remove_file(sandbox.path("phasegate.yaml")).unwrap();
    let by_id = ["approve", &id, "ready-to-drop", "--as", "mallory", "--digest", &work];
    let missing = sandbox.run(&[&by_id[..], &["--state", "strict.db"]].concat()).expect(64);
    assert!(said(&missing).contains("--config"), "{missing}");
}

#[test]
fn a_longest_wait_cuts_a_soak_and_lifts_a_window_and_both_are_shown() {
    let sandbox = project(PROJECT);
    let waits = "      soak: { after: compare, for: 72h }
      window: { days: [mon], hours: [\"03:00-03:01\"], zone: Europe/Berlin, freezes: [2001-01-01] }";
    sandbox.write("plan.yaml", &plan(waits));
    let stopped = sandbox.run(&["run", "plan.yaml", "--env", "staging"]).expect(4);
    let shown = said(&stopped);
    assert!(shown.contains("cut from 3d by policy"), "{shown}");
    assert!(shown.contains("lifted by policy"), "{shown}");
    sandbox.run(&["run", "plan.yaml", "--env", "staging", "--wait", "30s"]).expect(0);

    let production = PROJECT.replace("  staging:\n", "  staging:\n    production: true\n");
    sandbox.write("phasegate.yaml", &production);
    let found = sandbox.run(&["validate", "plan.yaml", "--env", "staging"]).expect(3);
    assert!(said(&found).contains("P705"), "{found}");
}

#[test]
fn what_the_plan_asks_is_tightened_to_what_policy_asks_and_marked() {
    let sandbox = project(PROJECT);
    let weak = plan("").replacen(
        "id: ready-to-drop\n    phase: contract\n    gate:\n      verified_within: 1h",
        "id: ready-to-drop\n    phase: contract\n    gate:\n      verified_within: 3h\n      approvals: [{ group: release, count: 1 }]",
        1,
    );
    sandbox.write("plan.yaml", &weak);
    sandbox.run(&["run", "plan.yaml", "--as", "zoe", "--env", "strict"]).expect(4);
    let shown = gate(&sandbox, "ready-to-drop", &STRICT);
    let needed = |name: &str| {
        let conditions = shown["conditions"].as_array().unwrap();
        let one = conditions.iter().find(|one| one["condition"] == name).unwrap();
        (one["needed"].as_str().unwrap().to_owned(), one["from_policy"] == true)
    };
    assert_eq!(needed("approvals of release"), ("2 approvals of release".to_owned(), true));
    assert_eq!(needed("verified_within"), ("a PASS not older than 1h".to_owned(), true));
}

#[test]
fn a_plan_against_the_policy_is_refused() {
    let strict = |key: &str| {
        PROJECT.replace(
            "    state: strict.db\n    policy:\n",
            &format!("    state: strict.db\n    policy:\n      {key}\n"),
        )
    };
    let sandbox = project(&strict("allow_reviewed: false"));
    let reviewed = plan("")
        .replace("    target: app\n    sql: |", "    target: app\n    reviewed: by me\n    sql: |");
    sandbox.write("plan.yaml", &reviewed);
    let found = sandbox.run(&["run", "plan.yaml", "--as", "zoe", "--env", "strict"]).expect(3);
    assert!(said(&found).contains("P701"), "{found}");

    let partly = plan("").replace("method: full", "method: counts");
    sandbox.write("plan.yaml", &partly);
    let found = sandbox.run(&["validate", "plan.yaml", "--env", "strict"]).expect(3);
    assert!(said(&found).contains("full verify of `customers`"), "{found}");
    assert!(sandbox.ours("app.db").is_empty());
}

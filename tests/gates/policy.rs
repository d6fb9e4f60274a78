//! Policy: pinned when a run starts, held against the project file by whatever goes on, and never weaker than it says.

use super::people::{PROJECT, project};
use super::{digest_in, gate, said};
use crate::bad_luck::plan;
use crate::sandbox::Sandbox;

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

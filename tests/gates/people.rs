//! Who may approve, through the binary, with the project file of the design.

use super::{digest_in, gate, said};
use crate::bad_luck::{plan, sandbox};
use crate::sandbox::Sandbox;

/// Two environments as teams have them; the account that runs this test stands in for dee.
pub const PROJECT: &str = "apiVersion: phasegate/v1
kind: Project
groups:
  release: [ana, ben, chloe]
  dba: [dee]
environments:
  staging:
    state: staging.db
    policy: { longest_wait: 5s, identity: claimed }
  strict:
    state: strict.db
    policy:
      destructive:
        approvals: [{ group: dba, count: 1 }, { group: release, count: 2 }]
        verified_within: 1h
        author_may_approve: false
  accounts:
    state: accounts.db
    policy:
      identity: os
      destructive:
        approvals: [{ group: dba, count: 1 }]
        verified_within: 1h
";

pub fn project(text: &str) -> Sandbox {
    let sandbox = sandbox("");
    sandbox.write("phasegate.yaml", text);
    sandbox
}

const STRICT: [&str; 2] = ["--env", "strict"];

fn approve(sandbox: &Sandbox, by: &str, code: i32) -> String {
    let work = digest_in(sandbox, "ready-to-drop", &STRICT);
    let words = ["approve", "customers", "ready-to-drop", "--as", by, "--digest", &work];
    said(&sandbox.run(&[&words[..], &STRICT].concat()).expect(code))
}

#[test]
fn policy_adds_approvals_that_the_plan_did_not_ask_and_says_so() {
    let sandbox = project(PROJECT);
    let run = ["run", "plan.yaml", "--as", "ana", "--env", "strict"];
    let stopped = sandbox.run(&run).expect(4);
    assert!(said(&stopped).contains("1 approval of dba (from policy)"), "{stopped}");
    let shown = gate(&sandbox, "ready-to-drop", &STRICT);
    let conditions = shown["conditions"].as_array().unwrap().iter();
    let added: Vec<&str> = conditions
        .filter(|one| one["from_policy"] == true)
        .map(|one| one["condition"].as_str().unwrap())
        .collect();
    assert_eq!(added, ["approvals of dba", "approvals of release"]);
    // Ana started the run; zoe belongs to no group.
    assert!(approve(&sandbox, "ana", 77).contains("lets nobody approve their own"));
    assert!(approve(&sandbox, "zoe", 77).contains("not a member"));
    approve(&sandbox, "ben", 0);
    approve(&sandbox, "ben", 77);
    approve(&sandbox, "dee", 0);
    sandbox.run(&run).expect(4);
    approve(&sandbox, "chloe", 0);
    sandbox.run(&run).expect(0);
    let history = sandbox.run(&["history", "customers", "--env", "strict"]).expect(0).stdout;
    for name in ["ben (claimed)", "chloe (claimed)", "dee (claimed)"] {
        assert!(history.contains(name), "{history}");
    }
}

#[test]
fn whoever_the_gate_needs_can_not_start_the_run() {
    let sandbox = project(PROJECT);
    // Dee is the only member of dba, and authors may not approve: said as a warning, and refused when dee is the one.
    let valid = sandbox.run(&["validate", "plan.yaml", "--env", "strict"]).expect(0);
    assert!(said(&valid).contains("can't open in a run that dee started"), "{valid}");
    let refused = sandbox.run(&["run", "plan.yaml", "--as", "dee", "--env", "strict"]).expect(3);
    assert!(said(&refused).contains("P703"), "{refused}");
    assert!(sandbox.ours("app.db").is_empty());
    sandbox.run(&["run", "plan.yaml", "--as", "zoe", "--env", "strict"]).expect(4);
}

#[test]
fn groups_that_are_not_there_or_not_enough_are_findings() {
    let sandbox = project(PROJECT);
    for (approvals, words) in [
        ("[{ group: dbas, count: 1 }]", "did you mean `dba`?"),
        ("[{ group: dba, count: 2 }]", "has 1 person"),
    ] {
        let text = plan(&format!("      approvals: {approvals}"));
        sandbox.write("plan.yaml", &text);
        let found = sandbox.run(&["validate", "plan.yaml", "--env", "staging"]).expect(3);
        assert!(said(&found).contains(words), "{found}");
    }
    // Two groups whose people are the same one person.
    sandbox.write(
        "phasegate.yaml",
        &PROJECT.replace("[ana, ben, chloe]", "[dee]").replace("count: 2", "count: 1"),
    );
    let both = "      approvals: [{ group: dba, count: 1 }, { group: release, count: 1 }]";
    sandbox.write("plan.yaml", &plan(both));
    let found = sandbox.run(&["validate", "plan.yaml", "--env", "staging"]).expect(3);
    assert!(said(&found).contains("asks for more people than there are"), "{found}");
}

#[test]
fn where_accounts_count_nobody_is_who_they_say() {
    let me =
        String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout);
    let me = me.unwrap().trim().to_owned();
    let sandbox = project(&PROJECT.replace("dba: [dee]", &format!("dba: [dee, {me}]")));
    let env = ["--env", "accounts"];
    let as_dee = ["run", "plan.yaml", "--as", "dee", "--env", "accounts"];
    sandbox.run(&as_dee).expect(77);
    sandbox.run(&["run", "plan.yaml", "--env", "accounts"]).expect(4);
    let work = digest_in(&sandbox, "ready-to-drop", &env);
    let approve = ["approve", "customers", "ready-to-drop", "--digest", &work];
    sandbox.run(&[&approve[..], &env, &["--as", "dee"]].concat()).expect(77);
    // Naming the state store instead of the environment is no way around it.
    let around = ["--state", "accounts.db", "--as", "dee"];
    let refused = sandbox.run(&[&approve[..], &around].concat()).expect(77);
    assert!(said(&refused).contains("account"), "{refused}");
    let paused = sandbox.run(&["pause", "customers", "--state", "accounts.db"]).expect(0);
    assert!(paused.stdout.contains("paused"), "{paused}");
    let history = sandbox.run(&["history", "customers", "--state", "accounts.db"]).expect(0);
    assert!(history.stdout.contains(&format!("{me} (os)")), "{history}");
    assert!(!history.stdout.contains("claimed"), "{history}");
    sandbox.run(&["resume", "customers", "--env", "accounts"]).expect(4);
    let approved = sandbox.run(&[&approve[..], &env].concat()).expect(0);
    assert!(approved.stdout.contains(&format!("{me} (os)")), "{approved}");
    sandbox.run(&["run", "plan.yaml", "--env", "accounts"]).expect(0);
}

#[test]
fn an_approval_of_one_gate_or_run_is_none_of_another() {
    let sandbox = project(PROJECT);
    let run = ["run", "plan.yaml", "--as", "zoe", "--env", "strict"];
    sandbox.run(&run).expect(4);
    let work = digest_in(&sandbox, "ready-to-drop", &STRICT);
    for by in ["dee", "ana", "ben"] {
        approve(&sandbox, by, 0);
    }
    sandbox.run(&run).expect(0);
    // The same plan once more: the table has its old name again, and the digest is another one all the same.
    sandbox.sql(
        "app.db",
        "DROP INDEX customers_v2_status; ALTER TABLE customers DROP COLUMN status_code;",
    );
    let again = ["run", "plan.yaml", "--new", "--as", "zoe", "--env", "strict"];
    let stopped = sandbox.run(&again).expect(4);
    assert_ne!(digest_in(&sandbox, "ready-to-drop", &STRICT), work);
    assert!(said(&stopped).contains("2 approvals of release"), "{stopped}");
    let old = ["approve", "customers", "ready-to-drop", "--as", "dee", "--digest", &work];
    sandbox.run(&[&old[..], &STRICT].concat()).expect(6);
}

/// The project file of the design, word for word but for its URLs.
#[test]
fn a_team_s_project_file_means_what_it_says_in_each_environment() {
    let text = "apiVersion: phasegate/v1
kind: Project
groups:
  release: [ana, ben, chloe]
  dba: [dee]
environments:
  staging:
    state: .phasegate/staging.db
    targets: { app: { url: \"sqlite://${env:STAGING_FILE}\" } }
    policy: { longest_wait: 5s, identity: claimed }     # not allowed with production: true
  production:
    production: true
    state: production.db
    targets: { app: { url: \"sqlite://app.db\" } }
    policy:
      identity: ssh
      destructive: { approvals: [{ group: dba, count: 1 }, { group: release, count: 2 }], verified_within: 1h, author_may_approve: false }
";
    let sandbox = project(text);
    sandbox.sql("staging-app.db", "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, status TEXT); INSERT INTO customers VALUES (1, 'one', 'NEW')");
    let staging = ["run", "plan.yaml", "--env", "staging"];
    let unset = sandbox.run(&staging).expect(64);
    assert!(said(&unset).contains("STAGING_FILE"), "{unset}");
    sandbox.run_with(&staging, "STAGING_FILE", "staging-app.db").expect(0);
    assert!(sandbox.ours("app.db").is_empty(), "staging ran on production's database");

    let signed = sandbox.run(&["run", "plan.yaml", "--env", "production"]).expect(3);
    assert!(said(&signed).contains("asks for signatures"), "{signed}");
    sandbox.write("phasegate.yaml", &text.replace("identity: ssh", "identity: claimed"));
    let claimed = sandbox.run(&["validate", "plan.yaml", "--env", "production"]).expect(3);
    assert!(said(&claimed).contains("can't be made up of claimed names"), "{claimed}");
    sandbox.write("phasegate.yaml", &text.replace("identity: ssh", "identity: os"));
    sandbox.run(&["run", "plan.yaml", "--env", "production"]).expect(4);
    let production = ["--env", "production"];
    let work = digest_in(&sandbox, "ready-to-drop", &production);
    let own = ["approve", "customers", "ready-to-drop", "--digest", &work];
    let own = sandbox.run(&[&own[..], &production].concat()).expect(77);
    assert!(said(&own).contains("lets nobody approve their own"), "{own}");
}

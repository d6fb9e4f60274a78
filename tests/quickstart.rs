//! What a newcomer does first, exactly as the README says it.

use crate::sandbox::Sandbox;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let root = env!("CARGO_MANIFEST_DIR");
    let plan = std::fs::read_to_string(format!("{root}/plans/quickstart.yaml")).unwrap();
    sandbox.write("plans/quickstart.yaml", &plan);
    sandbox
}

const DATABASE: &str = ".phasegate/quickstart.db";

#[test]
fn the_quickstart_shows_all_phases_and_ends_well() {
    let sandbox = sandbox();
    let first = sandbox.run(&["run", "plans/quickstart.yaml"]).expect(0);
    let shown = format!("{}{}", first.stdout, first.stderr);
    for phase in ["expand", "dual-write", "backfill", "verify", "contract"] {
        assert!(shown.contains(phase), "{phase} is not shown: {shown}");
    }
    assert!(shown.contains("200,000") || shown.contains("200000"), "{shown}");
    // Written apart from the engine: every row is there once, and its new column is right.
    assert_eq!(sandbox.value(DATABASE, "SELECT count(*) FROM customers"), "200000");
    let wrong = "SELECT count(*) FROM customers WHERE email <> 'customer.' || id || '@example.com'
         OR status <> CASE id % 10 WHEN 0 THEN 'closed' WHEN 1 THEN 'paused' ELSE 'active' END
         OR email IS NULL OR status IS NULL OR name <> 'Customer ' || id";
    assert_eq!(sandbox.value(DATABASE, wrong), "0");
    assert_eq!(sandbox.ours(DATABASE), ["phasegate_runs"]);

    let again = sandbox.run(&["run", "plans/quickstart.yaml"]).expect(0);
    let shown = format!("{}{}", again.stdout, again.stderr);
    assert!(shown.contains("complete") && shown.contains("--new"), "{shown}");

    sandbox.run(&["run", "plans/quickstart.yaml", "--new"]).expect(0);
    assert_eq!(sandbox.value(DATABASE, "SELECT count(*) FROM customers"), "200000");
    assert_eq!(sandbox.value(DATABASE, "SELECT count(*) FROM phasegate_runs"), "2");
}

#[test]
fn results_go_to_stdout_and_the_rest_to_stderr() {
    let sandbox = sandbox();
    let ran = sandbox.run(&["run", "plans/quickstart.yaml", "--format", "json"]).expect(0);
    let document = ran.json();
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["exit"]["code"], 0);
    let verify =
        sandbox.run(&["history", "quickstart", "--verify", "--format", "json"]).expect(0).json();
    assert_eq!(verify["exit"]["code"], 0);
}

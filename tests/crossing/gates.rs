//! Gates that wait until the graph has what was written.

use serde_json::Value;

use super::bed::{Bed, LONG, PLAN, Relay};
use crate::failures::signal;
use crate::sandbox::wait_for;

/// The example with gates that ask of nothing but the relay: one while nothing is captured, and one before the end.
fn with_gates(bed: &Bed) {
    const ASKED: &str =
        "    gate:\n      relay_lag:\n        max: 1s\n      relay_rows:\n        max: 0\n";
    let plan = std::fs::read_to_string(bed.graph.sandbox.path(PLAN)).unwrap();
    let (before, rest) = plan.split_once("    gate:\n").unwrap();
    let (_, behind) = rest.split_once("\n\n").unwrap();
    let first = format!("\n  - id: nothing-yet\n    phase: expand\n{ASKED}\n  - id: sync-users\n");
    let before = before.replace("\n  - id: sync-users\n", &first);
    bed.graph.sandbox.write(PLAN, &format!("{before}{ASKED}\n{behind}"));
}

/// What a condition of the last gate is said to be.
fn condition(gates: &Value, name: &str) -> Value {
    let gate = gates["gates"].as_array().unwrap().last().unwrap();
    let all = gate["conditions"].as_array().unwrap();
    all.iter().find(|one| one["condition"] == name).cloned().unwrap_or_default()
}

#[test]
fn a_gate_waits_for_a_relay_and_says_how_far_the_graph_is_behind() {
    let Some(bed) = Bed::example() else { return };
    with_gates(&bed);
    bed.phasegate(&["run", PLAN, "--to", "nothing-yet"]).expect(0);
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    let gates = || bed.phasegate(&["gates", "social-graph", "--format", "json"]);
    for name in ["relay_lag", "relay_rows"] {
        let met = condition(&gates().json(), name);
        assert_eq!((&met["verdict"], &met["have"]), (&"pass".into(), &"nothing waits".into()));
    }
    // It has the lease and carries nothing.
    let relay: Relay = bed.relay();
    assert!(wait_for(LONG, || bed.carried("users")["carried_by"].is_string()));
    bed.holds(&relay);
    bed.database.run("UPDATE users SET bio = 'waits' WHERE id <= 100");
    let shut = bed.phasegate(&["run", PLAN]).expect(4);
    let said = format!("{shut}");
    assert!(
        said.contains("no change to wait for another database (have 100 changes wait"),
        "{said}"
    );
    let is_old = || condition(&gates().json(), "relay_lag")["verdict"] == "fail";
    assert!(wait_for(LONG, is_old), "{}", gates());
    let shut = gates().expect(4).json();
    for (name, needed) in [
        ("relay_lag", "no change to wait for another database longer than 1s"),
        ("relay_rows", "no change to wait for another database"),
    ] {
        let unmet = condition(&shut, name);
        assert_eq!((&unmet["verdict"], &unmet["needed"]), (&"fail".into(), &needed.into()));
        let have = unmet["have"].as_str().unwrap();
        assert!(have.starts_with("100 changes wait, the oldest for "), "{unmet}");
        let command = unmet["command"].as_str().unwrap();
        assert!(command.contains("relay social-graph"), "{unmet}");
    }
    let shown = bed.phasegate(&["gates", "social-graph"]).expect(4);
    assert!(shown.stdout.contains("relay social-graph"), "{shown}");
    signal(relay.0.id(), "CONT");
    bed.is_synced();
    gates().expect(0);
    bed.phasegate(&["run", PLAN]).expect(0);
    drop(relay);
    bed.are_same("behind the gate");
    bed.nothing_is_left("completed");
}

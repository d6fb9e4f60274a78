//! How far the graph may be behind: what is said near a limit of the outbox, what fails past one, and what is held meanwhile. The relay is
//! stopped as a process in each of them, so that it keeps its lease and carries nothing.

use super::bed::{Bed, LONG, PLAN, Relay};
use crate::failures::signal;
use crate::sandbox::{Ran, wait_for};

/// The example with something else in its plan, run until its changes are captured, and a relay that has stopped.
fn held_up(replace: &str, with: &str) -> Option<(Bed, Relay)> {
    let bed = Bed::example()?;
    let plan = std::fs::read_to_string(bed.graph.sandbox.path(PLAN)).unwrap();
    assert!(plan.contains(replace), "{replace}");
    bed.graph.sandbox.write(PLAN, &plan.replace(replace, with));
    bed.phasegate(&["run", PLAN, "--to", "sync-follows"]).expect(0);
    let relay = bed.relay();
    assert!(wait_for(LONG, || bed.carried("users")["carried_by"].is_string()));
    bed.holds(&relay);
    Some((bed, relay))
}

#[test]
fn an_outbox_that_nears_its_limit_is_told_and_fails_nothing() {
    let Some((bed, relay)) = held_up("max_rows: 1000000", "max_rows: 110") else { return };
    bed.database.run("UPDATE users SET bio = 'waits' WHERE id <= 100");
    let copied = bed.phasegate(&["run", PLAN, "--to", "copy-users"]).expect(0);
    let said = format!("{copied}");
    let told = "nears its limit: 100 changes wait, where 110 changes may";
    assert!(said.contains(told) && !said.contains("over its limit"), "{said}");
    signal(relay.0.id(), "CONT");
    bed.is_synced();
}

#[test]
fn an_outbox_over_its_age_or_its_size_fails_the_step_and_loses_nothing() {
    for (replace, with, told) in [
        ("max_age: 6h", "max_age: 1s", "a change has waited for"),
        ("max_bytes: 2GiB", "max_bytes: 1MiB", "bytes wait, where 1048576 may"),
    ] {
        let Some((bed, relay)) = held_up(replace, with) else { return };
        bed.database.run("UPDATE users SET bio = repeat('x', 20000) WHERE id <= 100");
        assert!(wait_for(LONG, || bed.carried("users")["lag_ms"].as_u64() > Some(1_100)));
        let failed = bed.phasegate(&["run", PLAN, "--to", "copy-users"]).expect(1);
        let said = format!("{failed}");
        assert!(said.contains("over its limit") && said.contains(told), "{said}");
        signal(relay.0.id(), "CONT");
        bed.is_synced();
        drop(relay);
        bed.phasegate(&["retry", "social-graph"]).expect(4);
        bed.are_same(told);
    }
}

#[test]
fn a_copy_is_held_while_too_many_changes_wait_and_goes_on_afterwards() {
    let first = "        - name: waiters # in PostgreSQL, where the rows come from\n";
    let behind =
        "        - name: behind\n          target: app\n          relay_rows: { max: 10 }\n";
    let Some((bed, relay)) = held_up(first, &format!("{behind}{first}")) else { return };
    bed.database.run("UPDATE users SET bio = 'waits' WHERE id <= 100");
    let copying = bed.start(&["run", PLAN, "--to", "copy-users"], "");
    let held = || {
        let status = bed.status();
        let steps = status["steps"].as_array().unwrap();
        let copy = steps.iter().find(|step| step["id"] == "copy-users").unwrap();
        copy["throttled"].to_string()
    };
    let is_held = || {
        let why = held();
        why.contains("behind") && why.contains("100")
    };
    assert!(wait_for(LONG, is_held), "{}", bed.status());
    assert_eq!(bed.graph.number("MATCH (n:User)"), 0);
    signal(relay.0.id(), "CONT");
    let copied: Ran = copying.wait_with_output().unwrap().into();
    copied.expect(0);
    bed.is_synced();
    drop(relay);
    bed.phasegate(&["run", PLAN]).expect(4);
    bed.are_same("held for a while");
}

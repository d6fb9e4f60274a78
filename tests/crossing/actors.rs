//! Who drives a run over two databases: where the one that did was stopped, another follows, and the first is shut out when it goes on.

use std::process::Child;
use std::time::Duration;

use super::bed::{Bed, LONG, PLAN};
use crate::failures::signal;
use crate::sandbox::{Ran, wait_for};

/// Within 20 s, and thrice that on a machine that has more to do.
const FOLLOWED_WITHIN: Duration = Duration::from_mins(1);

/// Stops a runner, has another follow, and lets the first go on.
fn is_followed(bed: &Bed, first: Child) {
    signal(first.id(), "STOP");
    let refused = bed.phasegate(&["run", PLAN]).expect(5);
    assert!(refused.stderr.contains(&format!("pid {}", first.id())), "{refused}");
    let mut last = refused;
    let follows = || {
        last = bed.phasegate(&["run", PLAN]);
        last.code != Some(5)
    };
    assert!(wait_for(FOLLOWED_WITHIN, follows), "nobody could follow");
    last.expect(4);
    signal(first.id(), "CONT");
    let first: Ran = first.wait_with_output().unwrap().into();
    first.expect(5);
    let relay = bed.relay();
    bed.is_synced();
    drop(relay);
    bed.are_same("followed");
    assert_eq!(bed.graph.number("MATCH (n:User)"), 3_000);
    bed.phasegate(&["history", "social-graph", "--verify"]).expect(0);
}

#[test]
fn stopped_in_a_chunk_of_the_graph_a_runner_is_followed_and_shut_out() {
    let Some(bed) = Bed::example() else { return };
    let bed = bed.with_chunks(200);
    let point = "neo4j::before-commit::chunk=3*off->1*sleep(4000)->off";
    let first = bed.start(&["run", PLAN], point);
    let copied = || bed.graph.number("MATCH (n:User)") >= 400;
    assert!(wait_for(LONG, copied), "it copies nothing");
    std::thread::sleep(Duration::from_millis(500));
    is_followed(&bed, first);
}

#[test]
fn stopped_while_it_waits_a_runner_is_followed_and_shut_out() {
    let Some(bed) = Bed::example() else { return };
    let first = bed.start(&["run", PLAN, "--wait", "30m"], "");
    let gates = || bed.phasegate(&["gates", "social-graph", "--format", "json"]).stdout;
    assert!(wait_for(LONG, || gates().contains("\"work\": \"")), "{}", gates());
    is_followed(&bed, first);
}

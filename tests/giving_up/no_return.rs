//! `rollback` past the point of no return: refused, with what can't be undone and what stays where it is.

use serde_json::json;

use super::{Bed, NAME, PEOPLE, Plan, REASON, Step};
use crate::graph::bed::Bed as Graph;
use crate::sandbox::Ran;

/// Somebody has to look once more when the old side is gone.
const DROPPED: Plan = Plan {
    maps: true,
    steps: &[
        Step::AsMany(PEOPLE),
        Step::Make,
        Step::Sync,
        Step::Copy,
        Step::Compare,
        Step::Verified("ready"),
        Step::Retire,
        Step::Drop,
        Step::Gate("seen", "contract"),
    ],
};

/// The sync is still in behind what can't be undone.
const CUT: Plan = Plan {
    maps: true,
    steps: &[
        Step::Make,
        Step::Sync,
        Step::Copy,
        Step::Compare,
        Step::Cut,
        Step::Gate("seen", "contract"),
    ],
};

const LEAVE: [&str; 5] = ["abort", NAME, "--leave", "--reason", "a test"];

/// How many records the journal has.
fn records(bed: &Bed) -> usize {
    bed.phasegate(&["events", NAME, "--format", "json"]).expect(0).stdout.lines().count()
}

/// Asks for a way back in every way that there is. Returns what people are told, with its lines joined.
#[track_caller]
fn refused(bed: &Bed, step: &str, stay: &[&str]) -> String {
    let (before, known) = (bed.dump(), records(bed));
    let back = ["rollback", NAME, "--yes"];
    let told = bed.document(&back, 77);
    assert_eq!(told["irreversible"], json!([{ "step": step, "reason": REASON }]), "{told:#}");
    assert_eq!(told["stays_on"], json!({ "app": stay }), "{told:#}");
    bed.phasegate(&[&back[..], &["--accept-loss", "people"]].concat()).expect(77);
    // Nobody is asked to agree to what can't be done.
    bed.phasegate(&["rollback", NAME]).expect(77);
    let said = bed.phasegate(&back).expect(77);
    assert_eq!((bed.dump(), records(bed)), (before, known), "{said}");
    let words: Vec<&str> = said.stderr.split_whitespace().collect();
    words.join(" ")
}

#[test]
fn behind_a_drop_nothing_can_be_taken_back_and_what_stays_is_listed() {
    for bed in Bed::each("behind a drop") {
        bed.begin(&DROPPED);
        bed.phasegate(&["run", "plan.yaml"]).expect(4);
        let is_graph = matches!(bed, Bed::Graph(_));
        // What a dual-write has made unique in a graph stays so; where there are triggers, `drop` took them along.
        let stay: &[&str] = if is_graph {
            &["make", "sync", "copy", "drop"]
        } else {
            &["make", "copy", "switch", "drop"]
        };
        let said = refused(&bed, "drop", stay);
        let action = if is_graph { "cypher" } else { "sql" };
        for part in [
            &*format!("cause: drop: {REASON} what stays: on app: make ({action})"),
            "copy (backfill): Everybody",
            "drop (drop) help: `",
            "phasegate run plan.yaml` goes on to the end help: `",
            "phasegate abort given-up --leave --reason 'why'` ends the run where it is",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let refused = bed.phasegate(&["abort", NAME]).expect(77);
        assert!(refused.stderr.contains("already changed the targets"), "{refused}");
        let left = bed.dump();
        let given_up = bed.document(&LEAVE, 0);
        assert_eq!(given_up["stays_on"], json!({ "app": stay }), "{given_up:#}");
        bed.is_given_up(&left, bed.kind());
    }
}

#[test]
fn a_sync_that_is_in_stays_until_the_run_is_left() {
    for bed in Bed::each("a sync behind a cut") {
        bed.begin(&CUT);
        bed.phasegate(&["run", "plan.yaml"]).expect(4);
        let said = refused(&bed, "cut", &["make", "sync", "copy", "cut"]);
        assert!(said.contains("sync (dual_write)"), "{said}");
        let given_up = bed.phasegate(&LEAVE).expect(0);
        let words: Vec<&str> = given_up.stdout.split_whitespace().collect();
        let words = words.join(" ");
        assert!(words.contains("What stays as these steps left it: on app: make ("), "{given_up}");
        let is_graph = matches!(bed, Bed::Graph(_));
        assert_eq!(words.contains("sync (dual_write)"), is_graph, "{given_up}");
    }
}

/// So many that they don't go in one transaction, nor in two.
const MANY: i64 = 12_000;

#[test]
fn a_removal_that_has_come_half_way_can_only_go_on() {
    let Some(graph) = Graph::new("half a removal", "") else { return };
    let bed = Bed::Graph(Box::new(graph));
    bed.begin(&DROPPED);
    let Bed::Graph(graph) = &bed else { unreachable!() };
    graph.cypher(&format!(
        "UNWIND range({}, {MANY}) AS id CREATE (:Person {{id: id, name: 'p' + id}})",
        PEOPLE + 1
    ));
    let plan = bed.text(&DROPPED).replace(&format!("expect: {PEOPLE}"), &format!("expect: {MANY}"));
    bed.sandbox().write("plan.yaml", &plan);
    // One transaction finds no relationships, and the next removes the first nodes.
    let mut dying = bed.command(&["run", "plan.yaml"]);
    dying.env("FAILPOINTS", "neo4j::after-commit::drop=1*off->1*return->off");
    let died = Ran::from(dying.output().unwrap());
    assert_eq!(died.code, None, "{died}");
    let left = graph.number("MATCH (n:Person)");
    assert!(0 < left && left < MANY, "{left}");

    let said = refused(&bed, "drop", &["make", "sync", "copy", "drop"]);
    assert!(said.contains("drop (drop, not finished)"), "{said}");
    assert_eq!(graph.number("MATCH (n:Person)"), left);
    bed.phasegate(&["run", "plan.yaml"]).expect(4);
    assert_eq!(graph.number("MATCH (n:Person)"), 0);
    assert_eq!(graph.number("MATCH (n:PersonV2)"), MANY);
}

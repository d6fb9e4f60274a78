//! A plan that comes to copy into another database while it is driven: who drives it has not claimed that, and the next one has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::bed::{Bed, LONG, NOTES};
use crate::sandbox::{Ran, wait_for};

const BEGIN: &str = "steps:
  - id: empty
    phase: expand
    target: graph
    verify:
      cypher: MATCH (n:Note) RETURN count(n)
      expect: 0
  - id: agreed
    phase: expand
    gate:
      query:
        target: app
        query: select count(*) from agreed
        expect: 1
";

#[test]
fn what_an_amended_plan_comes_to_copy_is_claimed_and_carried_by_who_drives_it_next() {
    let tables = "CREATE TABLE agreed (id int); CREATE TABLE notes (id int PRIMARY KEY, word text);
        INSERT INTO notes SELECT n, 'w' || n FROM generate_series(1, 200) AS n";
    let Some(bed) = Bed::new("an amended plan", tables) else { return };
    bed.plan(BEGIN);
    let child = bed.start(&["run", "plan.yaml", "--wait", "90s"], "");
    let waits = || {
        let status = bed.phasegate(&["status", "social-graph", "--format", "json"]);
        let is_waiting =
            |step: &serde_json::Value| step["id"] == "agreed" && step["state"] == "waiting";
        status.code == Some(0) && status.json()["steps"].as_array().unwrap().iter().any(is_waiting)
    };
    assert!(
        wait_for(LONG, waits),
        "the gate is not reached: {}",
        bed.phasegate(&["status", "social-graph"])
    );
    let [mappings, more] = NOTES;
    bed.plan(&format!("{mappings}{BEGIN}{more}"));
    bed.phasegate(&["amend", "social-graph", "plan.yaml", "--yes"]).expect(0);
    let left: Ran = child.wait_with_output().unwrap().into();
    let left = left.expect(6);
    assert!(format!("{left}").contains("works on other objects now"), "{left}");
    bed.database.run("INSERT INTO agreed VALUES (1)");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // There is always something to carry.
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                bed.database.run("UPDATE notes SET word = word || '.' WHERE id % 10 = 0");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let ended = bed.phasegate(&["run", "plan.yaml"]);
        is_over.store(true, Ordering::SeqCst);
        ended.expect(0);
    });
    assert_eq!(bed.graph.number("MATCH (n:Note)"), 200);
    bed.nothing_is_left("completed");
}

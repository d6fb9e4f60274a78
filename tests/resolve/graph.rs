//! On Neo4j: a statement that commits part after part.

use super::{answer, answers};
use crate::graph::bed::Bed;
use crate::sandbox::Ran;

const LEADS: &str = "UNWIND range(1, 50) AS id CREATE (:Lead {id: id})";

const STEPS: &str = "  - id: copies
    phase: expand
    transaction: none
    cypher: |
      MATCH (n:Lead) CALL (n) { CREATE (:Copy {id: n.id}) } IN TRANSACTIONS OF 10 ROWS;
      CREATE (:Tally {id: 1});
    undo:
      cypher: |
        MATCH (n:Copy) CALL (n) { DELETE n } IN TRANSACTIONS OF 10 ROWS
  - id: after
    phase: expand
    cypher: |
      CREATE (:After {id: 1})
    undo:
      none: it may stay
";

/// The answer is lost before the note that the statement was done.
const DONE: &str = "neo4j::before-commit::execute";
/// It is lost behind the note that the statement is begun, and before the statement.
const NOT_DONE: &str = "neo4j::after-commit::execute";

fn bed(test: &str) -> Option<Bed> {
    let bed = Bed::new(test, LEADS)?;
    bed.plan(STEPS);
    let plan = std::fs::read_to_string(bed.sandbox.path("plan.yaml")).unwrap();
    bed.sandbox.write("plan.yaml", &plan.replace("name: graph", "name: counted"));
    Some(bed)
}

fn dying(bed: &Bed, args: &[&str], armed: &str) -> Ran {
    bed.command(args).env("FAILPOINTS", armed).output().unwrap().into()
}

fn lose(bed: &Bed, args: &[&str], is_done: bool) {
    let (point, skipped) = if is_done { (DONE, 1) } else { (NOT_DONE, 0) };
    let died = dying(bed, args, &format!("{point}={skipped}*off->1*return->off"));
    assert_eq!(died.code, None, "{died}");
    bed.phasegate(args).expect(9);
}

fn counts(bed: &Bed) -> [i64; 3] {
    ["Copy", "Tally", "After"].map(|label| bed.number(&format!("MATCH (n:{label})")))
}

const OUTCOMES: [(bool, &str); 2] = [(true, "applied"), (false, "not-applied")];

#[test]
fn an_answer_brings_the_run_to_its_end_with_every_effect_once() {
    for (is_done, outcome) in OUTCOMES {
        let Some(bed) = bed("an answer") else { return };
        lose(&bed, &["run", "plan.yaml"], is_done);
        assert_eq!(counts(&bed), [if is_done { 50 } else { 0 }, 0, 0]);
        let shown = bed.phasegate(&["resolve", "counted", "copies"]).expect(9);
        for words in [
            "IN TRANSACTIONS OF 10 ROWS",
            "part 1 (line ",
            "begun, and not seen to end",
            "nothing tells how far it came",
            "--outcome not-applied",
        ] {
            assert!(shown.stdout.contains(words), "{words}: {shown}");
        }
        bed.phasegate(&answer("copies", outcome)).expect(0);
        // The process dies before the answer is in the ledger, and right behind that.
        for point in [DONE, NOT_DONE] {
            let died = dying(&bed, &["run", "plan.yaml"], &format!("{point}=return"));
            assert_eq!(died.code, None, "{died}");
        }
        bed.phasegate(&["run", "plan.yaml"]).expect(0);
        assert_eq!(counts(&bed), [50, 1, 1], "{outcome}");
        assert_eq!(bed.ours(), ["phasegate_runs", "phasegate_runs_key"]);
        let history = bed.phasegate(&["history", "counted", "--verify", "--format", "json"]);
        assert_eq!(answers(&history.expect(0)).len(), 1);
    }
}

#[test]
fn the_way_back_is_answered_for_too_and_goes_on_from_an_answer() {
    for (is_done, outcome) in OUTCOMES {
        let Some(bed) = bed("an undo") else { return };
        bed.phasegate(&["run", "plan.yaml", "--to", "copies"]).expect(0);
        lose(&bed, &["rollback", "counted", "--yes"], is_done);
        bed.phasegate(&answer("copies", outcome)).expect(0);
        bed.phasegate(&["rollback", "counted", "--yes"]).expect(0);
        assert_eq!(counts(&bed), [0, 1, 0], "{outcome}");

        // What may have been done in part is undone, whatever the answer.
        let _ = std::fs::remove_dir_all(bed.sandbox.path(".phasegate"));
        bed.cypher("MATCH (n) WHERE NOT n:Lead DETACH DELETE n");
        lose(&bed, &["run", "plan.yaml"], is_done);
        bed.phasegate(&answer("copies", outcome)).expect(0);
        bed.phasegate(&["rollback", "counted", "--yes"]).expect(0);
        assert_eq!(counts(&bed), [0, 0, 0], "{outcome}");
    }
}

/// "Not done" says of it that it did not come to its end: nobody takes it for something that never began.
#[test]
fn what_commits_part_after_part_is_neither_given_up_nor_amended_after_an_answer() {
    let Some(bed) = bed("parts") else { return };
    let plan = std::fs::read_to_string(bed.sandbox.path("plan.yaml")).unwrap();
    let plan = plan.replace("      CREATE (:Tally {id: 1});\n", "");
    bed.sandbox.write("plan.yaml", &plan);
    lose(&bed, &["run", "plan.yaml"], false);
    bed.phasegate(&answer("copies", "not-applied")).expect(0);
    bed.phasegate(&["abort", "counted"]).expect(77);
    let other = plan.replace("CREATE (:Copy {id: n.id})", "CREATE (:Copy {id: n.id, x: 1})");
    bed.sandbox.write("plan.yaml", &other);
    let refused = bed.phasegate(&["amend", "counted", "plan.yaml", "--yes"]);
    assert!(refused.code.is_some_and(|code| code != 0), "{refused}");
    bed.sandbox.write("plan.yaml", &plan);
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!(counts(&bed), [50, 0, 1]);
}

#[test]
fn what_is_lost_again_is_asked_again() {
    let Some(bed) = bed("lost again") else { return };
    lose(&bed, &["run", "plan.yaml"], false);
    bed.phasegate(&answer("copies", "not-applied")).expect(0);
    let died = dying(&bed, &["run", "plan.yaml"], &format!("{DONE}=2*off->1*return->off"));
    assert_eq!(died.code, None, "{died}");
    bed.phasegate(&["run", "plan.yaml"]).expect(9);
    bed.phasegate(&answer("copies", "applied")).expect(0);
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!(counts(&bed), [50, 1, 1]);
}

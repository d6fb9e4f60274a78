//! Plans on a real Neo4j server.

pub mod bed;
mod files;
mod leads;
mod refused;
pub mod server;

use bed::Bed;

use crate::sandbox::Ran;

/// What the statements of the tests work on.
const LEADS: &str = "UNWIND range(1, 500) AS id CREATE (:Lead {id: id, email: 'e' + id})";

/// Three statements that need three transactions, and a way back.
const STEPS: &str = "  - id: shape
    phase: expand
    transaction: none
    reviewed: no lead had any of these properties
    cypher: |
      CREATE CONSTRAINT lead_id FOR (n:Lead) REQUIRE n.id IS UNIQUE;
      CREATE INDEX lead_email FOR (n:Lead) ON (n.email);
      MATCH (n:Lead) SET n.domain = split(n.email, '@')[0], n.count = coalesce(n.count, 0) + 1;
      CREATE INDEX lead_domain FOR (n:Lead) ON (n.domain);
    undo:
      none: the application doesn't mind
  - id: tally
    phase: expand
    cypher: |
      MATCH (n:Lead) WITH count(n) AS leads CREATE (:Tally {leads: leads});
    undo:
      none: the application doesn't mind
";

#[test]
fn a_run_that_dies_at_any_commit_goes_on_and_does_nothing_twice() {
    let Some(bed) = Bed::new("a run that dies", LEADS) else { return };
    for place in ["before", "after"] {
        for kind in ["enter", "execute", "leave"] {
            for skipped in 0.. {
                bed.cypher("MATCH (n) WHERE NOT n:Lead DETACH DELETE n");
                bed.cypher("MATCH (n:Lead) SET n.count = null, n.domain = null");
                for name in ["lead_email", "lead_domain"] {
                    bed.cypher(&format!("DROP INDEX {name} IF EXISTS"));
                }
                bed.cypher("DROP CONSTRAINT lead_id IF EXISTS");
                let _ = std::fs::remove_dir_all(bed.sandbox.path(".phasegate"));
                bed.plan(STEPS);
                let die = format!("neo4j::{place}-commit::{kind}={skipped}*off->1*return->off");
                let died = bed.command(&["run", "plan.yaml"]).env("FAILPOINTS", die).output();
                let died = crate::sandbox::Ran::from(died.unwrap());
                let is_alive = died.code == Some(0);
                if !is_alive {
                    assert_eq!(died.code, None, "{died}");
                    bed.phasegate(&["run", "plan.yaml"]).expect(0);
                }
                let what = format!("{place} {kind} {skipped}");
                assert_eq!(bed.schema(), ["lead_domain", "lead_email", "lead_id"], "{what}");
                assert_eq!(bed.number("MATCH (n:Lead {count: 1})"), 500, "{what}");
                assert_eq!(bed.number("MATCH (n:Tally {leads: 500})"), 1, "{what}");
                assert_eq!(bed.ours(), ["phasegate_runs", "phasegate_runs_key"], "{what}");
                if is_alive {
                    assert!(skipped > 0, "nothing was committed there: {what}");
                    break;
                }
            }
        }
    }
}

/// What is there is made by two steps; the way back of one is a file with two statements, which are one transaction, and that of the
/// other are two that need one each.
const WAY_BACK: &str = "  - id: tally
    phase: expand
    cypher: |
      MATCH (n:Lead) WITH count(n) AS leads CREATE (:Tally {leads: leads});
    undo:
      file: undo.cypher
  - id: shape
    phase: expand
    transaction: none
    cypher: |
      CREATE INDEX lead_email FOR (n:Lead) ON (n.email);
      CREATE CONSTRAINT lead_id FOR (n:Lead) REQUIRE n.id IS UNIQUE;
    undo:
      cypher: |
        DROP CONSTRAINT lead_id;
        DROP INDEX lead_email;
  - id: agreed
    phase: contract
    gate:
      approvals:
        - group: dba
          count: 1
";

#[test]
fn a_way_back_that_dies_at_any_commit_goes_on_and_undoes_nothing_twice() {
    let Some(bed) = Bed::new("a way back that dies", LEADS) else { return };
    bed.plan(WAY_BACK);
    let undo =
        "MATCH (n:Lead) SET n.undone = coalesce(n.undone, 0) + 1;\nMATCH (t:Tally) DELETE t;\n";
    bed.sandbox.write("undo.cypher", undo);
    for place in ["before", "after"] {
        for kind in ["execute", "leave"] {
            for skipped in 0.. {
                let what = format!("{place} {kind} {skipped}");
                bed.cypher("MATCH (n) WHERE NOT n:Lead DETACH DELETE n");
                bed.cypher("MATCH (n:Lead) SET n.undone = null");
                let _ = std::fs::remove_dir_all(bed.sandbox.path(".phasegate"));
                bed.phasegate(&["run", "plan.yaml"]).expect(4);
                let die = format!("neo4j::{place}-commit::{kind}={skipped}*off->1*return->off");
                let back = ["rollback", "graph", "--yes"];
                let died = bed.command(&back).env("FAILPOINTS", die).output().unwrap();
                let died = Ran::from(died);
                let is_alive = died.code == Some(0);
                if !is_alive {
                    assert_eq!(died.code, None, "{what}: {died}");
                    bed.phasegate(&back).expect(0);
                }
                assert_eq!(bed.schema(), [""; 0], "{what}");
                assert_eq!(bed.number("MATCH (n:Tally)"), 0, "{what}");
                assert_eq!(bed.number("MATCH (n:Lead {undone: 1})"), 500, "{what}");
                assert_eq!(bed.ours(), ["phasegate_runs", "phasegate_runs_key"], "{what}");
                if is_alive {
                    assert!(skipped > 0, "nothing was committed there: {what}");
                    break;
                }
            }
        }
    }
}

/// Whether it was committed is asked of the graph.
#[test]
fn a_commit_of_which_nothing_was_heard_is_looked_up() {
    let Some(bed) = Bed::new("a lost answer", LEADS) else { return };
    for place in ["before", "after"] {
        let _ = std::fs::remove_dir_all(bed.sandbox.path(".phasegate"));
        bed.plan(STEPS);
        let lose = format!(
            "neo4j::{place}-commit::execute=return(unknown)->1*off->return(unknown)->1*off->return(unknown)->off"
        );
        let ran = bed.command(&["run", "plan.yaml"]).env("FAILPOINTS", lose).output().unwrap();
        let ran = crate::sandbox::Ran::from(ran);
        if ran.code != Some(0) {
            bed.phasegate(&["retry", "graph"]).expect(0);
        }
        assert_eq!(bed.number("MATCH (n:Lead {count: 1})"), 500, "{place}");
        assert_eq!(bed.number("MATCH (n:Tally)"), 1, "{place}");
        bed.cypher("MATCH (n) WHERE NOT n:Lead DETACH DELETE n");
        bed.cypher("MATCH (n:Lead) SET n.count = null, n.domain = null");
        for name in ["lead_email", "lead_domain"] {
            bed.cypher(&format!("DROP INDEX {name}"));
        }
        bed.cypher("DROP CONSTRAINT lead_id");
    }
}

#[test]
fn what_is_done_is_undone_in_reverse_and_what_destroys_stands_behind_a_gate() {
    let Some(bed) = Bed::new("there and back", LEADS) else { return };
    bed.plan(
        "  - id: count
    phase: expand
    verify:
      cypher: MATCH (n:Lead) RETURN count(n)
      capture: leads
  - id: label
    phase: expand
    cypher: MATCH (n:Lead) SET n:LeadV2
    undo:
      cypher: MATCH (n:LeadV2) REMOVE n:LeadV2
  - id: unique
    phase: expand
    cypher: CREATE CONSTRAINT lead_v2_id FOR (n:LeadV2) REQUIRE n.id IS UNIQUE
    undo:
      cypher: DROP CONSTRAINT lead_v2_id
  - id: same
    phase: verify
    verify:
      cypher: MATCH (n:LeadV2) RETURN count(n)
      within:
        of: leads
        percent: 0
  - id: ready
    phase: contract
    gate:
      verified_within: 1h
  - id: strip
    phase: contract
    cypher: MATCH (n:LeadV2) REMOVE n:Lead
    irreversible: every node has the new label
",
    );
    bed.phasegate(&["run", "plan.yaml", "--to", "same"]).expect(0);
    assert_eq!(bed.number("MATCH (n:LeadV2)"), 500);
    bed.phasegate(&["rollback", "graph", "--yes"]).expect(0);
    assert_eq!(bed.number("MATCH (n:LeadV2)"), 0);
    assert_eq!(bed.schema(), [""; 0]);
    bed.phasegate(&["run", "plan.yaml", "--new"]).expect(0);
    assert_eq!(bed.number("MATCH (n:Lead)"), 0);
    assert_eq!(bed.ours(), ["phasegate_runs", "phasegate_runs_key"]);
    assert_eq!(bed.number("MATCH (n:phasegate_runs)"), 2);
    bed.phasegate(&["history", "graph", "--verify"]).expect(0);
}

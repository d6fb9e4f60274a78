//! What a plan on a graph is told before and while it runs.

use super::bed::Bed;
use crate::sandbox::Sandbox;

const HEAD: &str = "apiVersion: phasegate/v1\nkind: Plan\nmetadata:\n  name: graph\ntargets:\n  graph:\n    engine: neo4j\n    url: \"bolt://localhost\"\n  app:\n    engine: sqlite\n    url: \"sqlite:app.db\"\nsteps:\n";

fn step(target: &str, action: &str) -> String {
    format!(
        "  - id: one\n    phase: expand\n    target: {target}\n    {action}\n    undo:\n      none: nothing\n"
    )
}

#[test]
fn what_cant_be_done_is_said_with_its_place() {
    let sandbox = Sandbox::new();
    for (steps, said) in [
        (step("graph", "sql: SELECT 1"), "`graph` speaks no SQL"),
        (step("app", "cypher: RETURN 1"), "`app` speaks no Cypher"),
        (
            step("graph", "cypher: \"CREATE INDEX x FOR (n:A) ON (n.b); CREATE (:A)\""),
            "transactions of their own",
        ),
        (
            step("graph", "cypher: \"MATCH (n) CALL (n) { SET n.x = 1 } IN TRANSACTIONS\""),
            "transaction: none",
        ),
        (step("graph", "cypher: \"MATCH (n) DETACH DELETE n\""), "deletes nodes or relationships"),
        (step("graph", "cypher: \"CALL apoc.do.it()\""), "apoc.do.it"),
        (step("graph", "cypher: \"USE other CREATE (n)\""), "the database that its target names"),
        (step("graph", "cypher: \"DROP DATABASE neo4j\""), "about the server"),
        (step("graph", "cypher: \":use neo4j\""), "command of cypher-shell"),
        (step("graph", "cypher: \"RETURN 'open\""), "has no end"),
        (step("graph", "cypher: \"// nothing\""), "no statements"),
        (
            step("graph", "verify: { cypher: \"CREATE (n) RETURN 1\", expect: 1 }")
                .replace("    undo:\n      none: nothing\n", ""),
            "a query only looks",
        ),
        (
            step("graph", "verify: { query: select 1, expect: 1 }")
                .replace("    undo:\n      none: nothing\n", ""),
            "speaks no SQL",
        ),
        (
            step("app", "verify: { cypher: RETURN 1, expect: 1 }")
                .replace("    undo:\n      none: nothing\n", ""),
            "speaks no Cypher",
        ),
    ] {
        sandbox.write("plan.yaml", &format!("{HEAD}{steps}"));
        let ran = sandbox.run(&["validate", "plan.yaml"]).expect(3);
        let text = format!("{ran}");
        let words: Vec<&str> =
            text.split_whitespace().filter(|word| !matches!(*word, "|" | "│")).collect();
        assert!(words.join(" ").contains(said), "{said}: {ran}");
        assert!(text.contains("plan.yaml:"), "{ran}");
    }
}

#[test]
fn what_the_server_refuses_names_its_line_and_leaves_nothing() {
    let Some(bed) = Bed::new("what is refused", super::LEADS) else { return };
    bed.cypher("CREATE (:Lead {id: 500})");
    bed.plan(
        "  - id: unique
    phase: expand
    cypher: |
      CREATE INDEX by_email FOR (n:Lead) ON (n.email);
      CREATE CONSTRAINT lead_id FOR (n:Lead) REQUIRE n.id IS UNIQUE;
    undo:
      none: nothing
",
    );
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(1);
    for said in ["at line 14", "`id` = 500", "Neo.DatabaseError.Schema.ConstraintCreationFailed"] {
        assert!(format!("{ran}").contains(said), "{said}: {ran}");
    }
    assert_eq!(bed.schema(), [""; 0]);
    bed.cypher("MATCH (n:Lead {id: 500}) WHERE n.email IS NULL DELETE n");
    bed.phasegate(&["retry", "graph"]).expect(0);
    assert_eq!(bed.schema(), ["by_email", "lead_id"]);
}

#[test]
fn two_plans_on_one_graph_are_one_after_the_other() {
    let Some(bed) = Bed::new("two plans", super::LEADS) else { return };
    bed.plan("  - id: one\n    phase: expand\n    cypher: CREATE (:One)\n    undo:\n      none: nothing\n  - id: ready\n    phase: contract\n    gate:\n      approvals:\n        - group: dba\n          count: 1\n");
    bed.phasegate(&["run", "plan.yaml"]).expect(4);
    let plan = std::fs::read_to_string(bed.sandbox.path("plan.yaml")).unwrap();
    bed.sandbox.write("other.yaml", &plan.replace("name: graph", "name: other"));
    let ran = bed.phasegate(&["run", "other.yaml"]).expect(5);
    assert!(ran.stderr.contains("graph"), "{ran}");
    bed.phasegate(&["rollback", "graph", "--yes"]).expect(0);
    assert_eq!(bed.ours(), ["phasegate_runs", "phasegate_runs_key"]);
}

/// A mapping that names what isn't there, or can't be run, changes nothing.
#[test]
fn a_mapping_that_does_not_fit_is_refused_before_the_first_step() {
    let Some(bed) = Bed::new("a mapping that does not fit", super::LEADS) else { return };
    for (label, value, code, said, help) in [
        ("Laed", "source.email", "D201", "no node has the label Laed", "CALL db.labels()"),
        ("Lead", "source.emial", "D203", "nothing has a property emial", "CALL db.propertyKeys()"),
        ("Lead", "toLowr(source.email)", "D205", "Unknown function", "`columns`"),
    ] {
        let mapping = format!(
            "mappings:
  leads:
    from:
      target: graph
      node: {label}
      key: [id]
    into:
      target: graph
      node: LeadV2
      key:
        id: id
      properties:
        address: {value}
"
        );
        bed.plan(
            "  - id: first
    phase: expand
    cypher: CREATE (:First)
    undo:
      none: nothing
  - id: sync
    phase: dual-write
    dual_write:
      mapping: leads
      direction: forward
      by: application
      probe:
        cypher: RETURN 0
        expect: 0
        for: 1s
",
        );
        let plan = std::fs::read_to_string(bed.sandbox.path("plan.yaml")).unwrap();
        bed.sandbox.write("plan.yaml", &plan.replace("steps:\n", &format!("{mapping}steps:\n")));
        let ran = bed.phasegate(&["run", "plan.yaml"]).expect(3);
        let text = format!("{ran}");
        let words: Vec<&str> =
            text.split_whitespace().filter(|word| !matches!(*word, "|" | "│")).collect();
        for expected in [code, said, help] {
            assert!(words.join(" ").contains(expected), "{expected}: {ran}");
        }
        assert_eq!(bed.number("MATCH (n:First)"), 0, "{ran}");
        assert_eq!((bed.ours(), bed.schema()), (Vec::new(), Vec::new()), "{ran}");
    }
}

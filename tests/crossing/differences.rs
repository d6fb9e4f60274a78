//! What a comparison between two databases takes for the same and what it doesn't; and how it is put right.

use serde_json::Value;

use super::bed::Bed;

/// Values that are easily taken for others, or for themselves in another shape.
const TABLE: &str = r#"
CREATE TABLE torture (
  id bigint PRIMARY KEY, exact numeric(38, 10), cents numeric(20, 2), real8 double precision, at timestamptz, local timestamp, day date,
  clock time, word text, pad char(6), uid uuid, doc jsonb, raw bytea, words text[], numbers bigint[], flag boolean);
INSERT INTO torture VALUES
  (1, 12345678901234567890.1234567890, 0.10, '-0', '2024-03-31 00:59:59.999999+00', '2024-03-31 02:30:00', '2024-02-29', '23:59:59.999999', '', '', '00000000-0000-0000-0000-000000000000', '{"b": 1, "a": [1, 2]}', '', '{}', '{}', true),
  (2, -0.0000000001, -0.01, 'NaN', '2024-03-31 01:00:00+00', '0001-01-01 00:00:00', '0001-01-01', '00:00:00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (3, 0, 0, 'Infinity', '2024-10-27 00:30:00+00', '2024-10-27 02:30:00', '1582-10-10', '12:00:00', 'a|b', 'c', '12345678-9abc-def0-1234-56789abcdef0', '{"a": [1, 2], "b": 1}', '\x00ff', '{a|b,c}', '{1,2}', false),
  (4, 1.5, 1.50, '-Infinity', '2024-10-27 01:30:00+00', '2024-10-27 03:30:00', '9999-12-31', '00:00:00.000001', 'a', 'b|c', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'null', '\x00', '{a,b|c}', '{2,1}', true),
  (5, 1.5000000000, 2, 0.1, '1969-12-31 23:59:59.5+00', '1969-12-31 23:59:59.5', '1970-01-01', '01:02:03.5', 'trailing  ', 'x', '00000000-0000-0000-0000-000000000001', '[]', '\xdeadbeef', '{"",NULLX}', '{9223372036854775807,-9223372036854775808}', false),
  (6, NULL, NULL, 0.30000000000000004, 'epoch', NULL, NULL, NULL, E'\u00e9', NULL, NULL, '{}', NULL, NULL, NULL, NULL),
  (7, NULL, NULL, 1e21, '-004712-01-01 00:00:00+00 BC'::text::timestamptz, NULL, NULL, NULL, E'e\u0301', NULL, NULL, '"text"', NULL, NULL, NULL, NULL),
  (8, NULL, NULL, 5e-324, '2024-01-01 00:00:00+05:30', NULL, NULL, NULL, E'\U0001F600 \U0001F468\u200D\U0001F469', NULL, NULL, '1.10', NULL, NULL, NULL, NULL);
"#;

const PLAN: &str = "mappings:
  torture:
    from: { target: app, table: torture, key: [id] }
    into:
      target: graph
      node: Torture
      key: { id: id }
      properties:
        exact: exact::text
        cents: (cents * 100)::bigint
        doc: doc::text
    copy: all
steps:
  - id: sync
    phase: dual-write
    dual_write: { mapping: torture, direction: forward }
  - id: copy
    phase: backfill
    backfill:
      mapping: torture
  - id: compare
    phase: verify
    verify: { mapping: torture, method: full }
  - id: again
    phase: verify
    verify: { mapping: torture, method: full }
  - id: mend
    phase: contract
    verify: { mapping: torture, method: full, repair: true }
  - id: stop
    phase: contract
    stop_dual_write: { mapping: torture }
";

fn bed() -> Option<Bed> {
    let script = TABLE.replace(
        "'-004712-01-01 00:00:00+00 BC'::text::timestamptz",
        "'0044-03-15 12:00:00+00 BC'",
    );
    let bed = Bed::new("what differs between databases", &script)?;
    bed.plan(PLAN);
    Some(bed)
}

/// The differences that a step found.
fn evidence(bed: &Bed, step: &str) -> Value {
    bed.status()["differences"][step].clone()
}

/// All nodes as they were copied.
fn restored(bed: &Bed) {
    bed.graph.cypher(
        "MATCH (n:Torture) WHERE NOT EXISTS { MATCH (k:Kept) WHERE k.id = n.id } DETACH DELETE n",
    );
    bed.graph.cypher("MATCH (k:Kept) MERGE (n:Torture {id: k.id}) SET n = properties(k)");
}

#[test]
fn each_difference_is_found_with_its_column_and_nothing_else_is() {
    let Some(bed) = bed() else { return };
    assert_eq!(bed.database.rows("SELECT real8::text FROM torture WHERE id = 1"), ["-0"]);
    bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
    bed.graph.cypher("MATCH (n:Torture) CREATE (k:Kept) SET k = properties(n)");
    let mut is_first = true;
    let mut compared = || {
        let next: &[&str] = if is_first {
            &["run", "plan.yaml", "--to", "again"]
        } else {
            &["retry", "social-graph", "--to", "again"]
        };
        is_first = false;
        bed.phasegate(next)
    };
    let planted = [
        ("exact", "MATCH (n:Torture {id: 1}) SET n.exact = '12345678901234567890.123456789'"),
        ("cents", "MATCH (n:Torture {id: 1}) SET n.cents = 1"),
        ("real8", "MATCH (n:Torture {id: 6}) SET n.real8 = 0.3"),
        ("at", "MATCH (n:Torture {id: 1}) SET n.at = n.at + duration({microseconds: 1})"),
        // The second of two such hours; nobody can tell it from the first.
        (
            "at",
            "MATCH (n:Torture {id: 3}) SET n.at = datetime('2024-10-27T02:30:00+01:00[Europe/Berlin]')",
        ),
        ("local", "MATCH (n:Torture {id: 3}) SET n.local = datetime('2024-10-27T02:30:00Z')"),
        ("day", "MATCH (n:Torture {id: 3}) SET n.day = date('1582-10-11')"),
        ("clock", "MATCH (n:Torture {id: 3}) SET n.clock = localtime('12:00:00.000001')"),
        ("word", "MATCH (n:Torture {id: 1}) REMOVE n.word"),
        ("word", "MATCH (n:Torture {id: 2}) SET n.word = ''"),
        ("word", "MATCH (n:Torture {id: 5}) SET n.word = 'trailing '"),
        ("word", "MATCH (n:Torture {id: 6}) SET n.word = 'e\u{301}'"),
        ("pad", "MATCH (n:Torture {id: 3}) SET n.pad = 'C'"),
        ("uid", "MATCH (n:Torture {id: 3}) SET n.uid = toUpper(n.uid)"),
        ("doc", "MATCH (n:Torture {id: 6}) SET n.doc = '{ }'"),
        ("words", "MATCH (n:Torture {id: 3}) SET n.words = ['a', 'b|c']"),
        ("words", "MATCH (n:Torture {id: 1}) REMOVE n.words"),
        ("numbers", "MATCH (n:Torture {id: 4}) SET n.numbers = [1, 2]"),
        ("numbers", "MATCH (n:Torture {id: 3}) SET n.numbers = [1.0, 2.0]"),
        ("flag", "MATCH (n:Torture {id: 4}) SET n.flag = 'true'"),
        ("phasegate_stub", "MATCH (n:Torture {id: 4}) SET n.phasegate_stub = true"),
    ];
    for (column, plant) in planted {
        bed.graph.cypher(plant);
        let found = compared();
        assert_eq!(found.code, Some(7), "{plant}: {found}");
        let evidence = evidence(&bed, "again");
        assert_eq!(
            (&evidence["different"], &evidence["missing"], &evidence["extra"]),
            (&1.into(), &0.into(), &0.into()),
            "{plant}: {evidence}"
        );
        assert_eq!(
            evidence["samples"][0]["columns"],
            serde_json::json!([column]),
            "{plant}: {evidence}"
        );
        restored(&bed);
    }
    for (plant, missing, extra) in [
        ("MATCH (n:Torture {id: 4}) DETACH DELETE n", 1, 0),
        ("CREATE (:Torture {id: 100, word: 'extra'})", 0, 1),
        ("CREATE (:Torture {id: -1})", 0, 1),
        // In a range without bounds it is found, and it is among those that none with bounds finds.
        ("CREATE (:Torture {id: 'text'})", 0, 2),
        ("CREATE (:Torture {word: 'without a key'})", 0, 1),
    ] {
        bed.graph.cypher(plant);
        let found = compared();
        assert_eq!(found.code, Some(7), "{plant}: {found}");
        let evidence = evidence(&bed, "again");
        assert_eq!(
            (&evidence["missing"], &evidence["extra"], &evidence["different"]),
            (&missing.into(), &extra.into(), &0.into()),
            "{plant}: {evidence}"
        );
        restored(&bed);
        bed.graph.cypher("MATCH (n:Torture) WHERE n.id IS NULL DELETE n");
    }
    compared().expect(0);
    // All at once, put right by changes of their own.
    for (_, plant) in planted {
        bed.graph.cypher(plant);
    }
    bed.graph.cypher("MATCH (n:Torture {id: 7}) DELETE n");
    bed.graph.cypher("CREATE (:Torture {id: 100, word: 'extra'})");
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    let left = "MATCH (n:Torture) WHERE NOT EXISTS { MATCH (k:Kept) WHERE properties(k) = properties(n) OR (k.id = n.id AND n.id IN [2, 8]) }";
    assert_eq!(bed.graph.number(left), 0);
    assert_eq!(bed.graph.number("MATCH (n:Torture)"), 8);
    bed.nothing_is_left("mended");
}

#[test]
fn rows_that_can_not_cross_are_named_before_anything_is_copied() {
    let Some(bed) = bed() else { return };
    let plan = PLAN.replace("        exact: exact::text\n", "");
    bed.plan(&plan);
    let refused = bed.phasegate(&["run", "plan.yaml"]).expect(3);
    let said = format!("{refused}");
    assert!(said.contains("exact") && said.contains("exact::text"), "{said}");
    assert_eq!(bed.database.ours(), [""; 0]);
    assert_eq!(bed.graph.number("MATCH (n:Torture)"), 0);
    // So are values that no graph has.
    bed.plan(PLAN);
    bed.database.run("UPDATE torture SET day = 'infinity' WHERE id = 3");
    let refused = bed.phasegate(&["run", "plan.yaml"]).expect(3);
    let said = format!("{refused}");
    assert!(said.contains("D224") && said.contains("day: of 1 row"), "{said}");
    assert_eq!(bed.database.ours(), [""; 0]);
    assert_eq!(bed.graph.number("MATCH (n:Torture)"), 0);
}

/// Relationships between nodes that nobody copies.
const LINKS: &str = "mappings:
  links:
    from: { target: app, table: links, key: [a, b] }
    into:
      target: graph
      relationship: LEADS_TO
      start: { node: Place, key: { id: a } }
      end: { node: Place, key: { id: b } }
    copy: listed
steps:
  - id: sync
    phase: dual-write
    dual_write: { mapping: links, direction: forward }
  - id: copy
    phase: backfill
    backfill:
      mapping: links
  - id: compare
    phase: verify
    verify: { mapping: links }
  - id: stop
    phase: contract
    stop_dual_write: { mapping: links }
";

fn links() -> Option<Bed> {
    let table = "CREATE TABLE links (a int, b int, PRIMARY KEY (a, b)); INSERT INTO links VALUES (1, 2), (2, 3), (1, 99)";
    let bed = Bed::new("nodes that nobody copies", table)?;
    bed.graph.cypher("UNWIND [1, 2, 3] AS id CREATE (:Place {id: id})");
    Some(bed)
}

#[test]
fn a_node_that_stands_for_one_that_nobody_copies_is_a_difference() {
    let Some(bed) = links() else { return };
    bed.plan(LINKS);
    let found = bed.phasegate(&["run", "plan.yaml"]).expect(7);
    let evidence = evidence(&bed, "compare");
    assert_eq!((&evidence["extra"], &evidence["missing"]), (&1.into(), &0.into()), "{found}");
    assert!(format!("{found}").contains("1 node of Place"), "{found}");
    bed.database.run("UPDATE links SET b = 3 WHERE b = 99");
    bed.phasegate(&["retry", "social-graph"]).expect(0);
    assert_eq!(bed.graph.number("MATCH (n:Place)"), 3);
    bed.nothing_is_left("completed");
}

#[test]
fn nothing_has_a_mark_of_ours_when_the_sync_has_ended() {
    let Some(bed) = links() else { return };
    let (before, rest) = LINKS.split_once("  - id: compare\n").unwrap();
    let (_, behind) = rest.split_once("  - id: stop\n").unwrap();
    bed.plan(&format!("{before}  - id: stop\n{behind}"));
    bed.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
    assert_eq!(bed.graph.number("MATCH (n:Place {phasegate_stub: true})"), 1);
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!(bed.graph.number("MATCH (n:Place) WHERE n.phasegate_stub IS NOT NULL"), 0);
    assert_eq!(bed.graph.number("MATCH (n:Place)"), 4);
}

//! Rows with a key of their own become relationships: several between the same nodes, and between others when the row says so.

use super::bed::Bed;

const TABLES: &str = "
CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO people SELECT n, 'p' || n FROM generate_series(1, 40) AS n;
CREATE TABLE sales (id bigint PRIMARY KEY, seller int NOT NULL, buyer int NOT NULL, price numeric(10, 2) NOT NULL);
INSERT INTO sales SELECT n, 1 + n % 7, 10 + n % 3, n * 1.25 FROM generate_series(1, 500) AS n;";

const PLAN: &str = "mappings:
  people:
    from: { target: app, table: people, key: [id] }
    into: { target: graph, node: Person, key: { id: id } }
    copy: all
  sales:
    from: { target: app, table: sales, key: [id] }
    into:
      target: graph
      relationship: SOLD_TO
      key: { no: id }
      start: { node: Person, key: { id: seller } }
      end: { node: Person, key: { id: buyer } }
      properties:
        cents: (price * 100)::bigint
    copy: listed
steps:
  - id: sync-people
    phase: dual-write
    dual_write: { mapping: people, direction: forward }
  - id: sync-sales
    phase: dual-write
    dual_write: { mapping: sales, direction: forward }
  - id: copy-people
    phase: backfill
    backfill: { mapping: people }
  - id: copy-sales
    phase: backfill
    backfill:
      mapping: sales
      chunk: { rows: 60 }
  - id: compare-people
    phase: verify
    verify: { mapping: people }
  - id: compare-sales
    phase: verify
    verify: { mapping: sales }
  - id: again
    phase: verify
    verify: { mapping: sales }
  - id: mend
    phase: contract
    verify: { mapping: sales, repair: true }
  - id: stop-sales
    phase: contract
    stop_dual_write: { mapping: sales }
  - id: stop-people
    phase: contract
    stop_dual_write: { mapping: people }
";

fn bed() -> Option<Bed> {
    let bed = Bed::new("rows that become relationships", TABLES)?;
    bed.plan(PLAN);
    Some(bed)
}

#[track_caller]
fn are_same(bed: &Bed) {
    let mut old = bed.database.rows(
        "SELECT concat_ws('|', id, seller, buyer, (price * 100)::bigint) FROM sales UNION ALL SELECT concat_ws('|', id, name) FROM people",
    );
    let mut new = bed.graph.texts(
        "MATCH (s:Person)-[r:SOLD_TO]->(b:Person) RETURN r.no + '|' + s.id + '|' + b.id + '|' + r.cents AS it \
         UNION ALL MATCH (p:Person) RETURN p.id + '|' + coalesce(p.name, 'a stub') AS it",
    );
    old.sort();
    new.sort();
    assert_eq!(old, new);
}

#[test]
fn each_difference_between_relationships_is_found_and_put_right() {
    let Some(bed) = bed() else { return };
    bed.phasegate(&["run", "plan.yaml", "--to", "compare-sales"]).expect(0);
    are_same(&bed);
    // Clients go on, and the ends of relationships move.
    bed.database.run(
        "UPDATE sales SET buyer = 20 WHERE id IN (3, 5); UPDATE sales SET seller = 30, price = 9 WHERE id = 8;
         DELETE FROM sales WHERE id = 9; INSERT INTO sales VALUES (501, 40, 40, 1), (502, 40, 40, 1);
         INSERT INTO people VALUES (41, 'late'); UPDATE sales SET buyer = 41 WHERE id = 10; DELETE FROM people WHERE id = 39;",
    );
    let relay = bed.relay();
    bed.is_synced();
    drop(relay);
    are_same(&bed);
    bed.graph.cypher("MATCH (s:Person)-[r:SOLD_TO]->(b:Person) CREATE (:Kept {no: r.no, cents: r.cents, s: s.id, b: b.id})");
    let of = |no: u32| format!("MATCH (s:Person)-[r:SOLD_TO {{no: {no}}}]->(b:Person)");
    // Each with what is missing, extra and different by it.
    let plants = [
        (format!("{} CREATE (s)-[:SOLD_TO {{cents: r.cents}}]->(b)", of(11)), [0, 1, 0]),
        (format!("{} SET r.cents = r.cents + 1", of(12)), [0, 0, 1]),
        (format!("{} REMOVE r.cents", of(13)), [0, 0, 1]),
        (format!("{} DELETE r", of(14)), [1, 0, 0]),
        (
            format!(
                "{} WITH *, r.cents AS c DELETE r CREATE (b)-[:SOLD_TO {{no: 15, cents: c}}]->(s)",
                of(15)
            ),
            [0, 0, 1],
        ),
        (
            format!(
                "{} MATCH (x:Person {{id: 38}}) WITH *, r.cents AS c DELETE r CREATE (s)-[:SOLD_TO {{no: 16, cents: c}}]->(x)",
                of(16)
            ),
            [0, 0, 1],
        ),
        (format!("{} CREATE (s)-[:SOLD_TO {{no: 999, cents: 1}}]->(b)", of(17)), [0, 1, 0]),
        // In a range without bounds it is found, and it is among those that none with bounds finds.
        (format!("{} SET r.no = toFloat(r.no) + 0.5", of(18)), [1, 2, 0]),
    ];
    let mut command = "run";
    for (plant, [missing, extra, different]) in &plants {
        bed.graph.cypher(plant);
        let plan = if command == "run" { "plan.yaml" } else { "social-graph" };
        let found = bed.phasegate(&[command, plan, "--to", "again"]);
        command = "retry";
        assert_eq!(found.code, Some(7), "{plant}: {found}");
        let evidence = bed.status()["differences"]["again"].clone();
        assert_eq!(
            ["missing", "extra", "different"].map(|what| evidence[what].as_u64()),
            [Some(*missing), Some(*extra), Some(*different)],
            "{plant}: {evidence}"
        );
        bed.graph.cypher("MATCH (:Person)-[r:SOLD_TO]->(:Person) DELETE r");
        bed.graph.cypher("MATCH (k:Kept) MATCH (s:Person {id: k.s}) MATCH (b:Person {id: k.b}) CREATE (s)-[:SOLD_TO {no: k.no, cents: k.cents}]->(b)");
    }
    bed.phasegate(&["retry", "social-graph", "--to", "again"]).expect(0);
    for (plant, _) in &plants {
        bed.graph.cypher(plant);
    }
    // What has no key of a row is nobody's to put right.
    let refused = bed.phasegate(&["run", "plan.yaml"]).expect(1);
    assert!(format!("{refused}").contains("keys that no row of sales can have"), "{refused}");
    bed.graph.cypher("MATCH ()-[r:SOLD_TO]->() WHERE r.no IS NULL OR r.no = 18.5 DELETE r");
    bed.phasegate(&["retry", "social-graph"]).expect(0);
    are_same(&bed);
    bed.nothing_is_left("mended");
}

#[test]
fn relationships_with_keys_of_their_own_are_taken_back() {
    let Some(bed) = bed() else { return };
    bed.phasegate(&["run", "plan.yaml", "--to", "compare-sales"]).expect(0);
    bed.phasegate(&["rollback", "social-graph", "--yes"]).expect(0);
    assert_eq!(bed.graph.number("MATCH (n:Person)"), 0);
    assert_eq!(bed.graph.schema(), [""; 0]);
    bed.nothing_is_left("taken back");
}

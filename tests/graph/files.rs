//! plans/product-rating-index.yaml: dated files, used as they are.

use super::bed::Bed;

fn example() -> Option<Bed> {
    let plans = format!("{}/plans", env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(format!("{plans}/{name}")).unwrap();
    let bed = Bed::new("product-rating-index", &read("product-rating-index/before.cypher"))?;
    for name in ["product-rating-index.yaml", FILE] {
        bed.sandbox.write(&format!("plans/{name}"), &read(name));
    }
    Some(bed)
}

const FILE: &str = "product-rating-index/2025-01-15-001-add-product-rating-index.cypher";
const PLAN: &str = "plans/product-rating-index.yaml";

#[test]
fn the_indexes_are_there_and_online_and_the_way_back_removes_them() {
    let Some(bed) = example() else { return };
    bed.phasegate(&["validate", PLAN]).expect(0);
    let shown = bed.phasegate(&["dry-run", PLAN, "--depth", "probe"]).expect(0);
    assert!(shown.stdout.contains("CREATE INDEX product_rating"), "{shown}");
    assert!(shown.stdout.contains("Neo4j 5."), "{shown}");
    assert!(shown.stdout.contains("nobody holds a lock that is in the way now"), "{shown}");
    assert_eq!(bed.ours(), [""; 0]);
    bed.phasegate(&["run", PLAN, "--to", "add-product-rating-index"]).expect(0);
    assert_eq!(bed.schema(), ["feeder_rating", "product_rating"]);
    bed.phasegate(&["rollback", "product-rating-index", "--yes"]).expect(0);
    assert_eq!(bed.schema(), [""; 0]);
    bed.phasegate(&["run", PLAN, "--new"]).expect(0);
    let states = "SHOW INDEXES YIELD name, state WHERE name ENDS WITH 'rating' RETURN state AS it";
    assert_eq!(bed.texts(states), ["ONLINE", "ONLINE"]);
    assert_eq!(bed.schema(), ["feeder_rating", "product_rating"]);
    assert_eq!(bed.ours(), ["phasegate_runs", "phasegate_runs_key"]);
    bed.phasegate(&["run", PLAN]).expect(0);
    bed.phasegate(&["history", "product-rating-index", "--verify"]).expect(0);
}

#[test]
fn a_file_that_was_changed_under_way_stops_the_run() {
    let Some(bed) = example() else { return };
    bed.phasegate(&["run", PLAN, "--to", "sources-are-there"]).expect(0);
    let file = format!("plans/{FILE}");
    let text = std::fs::read_to_string(bed.sandbox.path(&file)).unwrap();
    bed.sandbox.write(&file, &text.replace("f.rating", "f.name"));
    let ran = bed.phasegate(&["run", PLAN]).expect(6);
    assert!(format!("{ran}").contains("add-product-rating-index"), "{ran}");
    bed.sandbox.write(&file, &text);
    bed.phasegate(&["run", PLAN]).expect(0);
}

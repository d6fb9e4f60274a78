//! The state store of a run over two databases is gone, and the run goes on from what both have of it.

use super::bed::{Bed, PLAN};

fn lose_the_store(bed: &Bed) {
    std::fs::remove_dir_all(bed.graph.sandbox.path(".phasegate")).unwrap();
}

#[test]
fn wherever_its_store_was_lost_a_copy_into_a_graph_ends_the_same() {
    let Some(bed) = Bed::example() else { return };
    let bed = bed.with_chunks(500);
    let adopt = ["state", "adopt", PLAN, "--yes"];
    let mut is_first = true;
    for point in [
        "neo4j::after-commit::install",
        "postgres::after-commit::install",
        "neo4j::after-commit::chunk",
        "neo4j::after-commit::finish",
    ] {
        bed.phasegate(if is_first {
            &["run", PLAN, "--to", "find-by-handle"]
        } else {
            &["run", PLAN, "--to", "find-by-handle", "--new"]
        })
        .expect(0);
        is_first = false;
        let died = bed.with_point(&["run", PLAN], &format!("{point}=1*return->off"));
        assert_eq!(died.code, None, "{point}: {died}");
        lose_the_store(&bed);
        bed.phasegate(&adopt).expect(0);
        bed.phasegate(&["run", PLAN]).expect(4);
        // Lost once more, with a relay that had a token.
        let relay = bed.relay();
        bed.database.run("UPDATE users SET handle = handle || '+' WHERE id % 7 = 0");
        bed.is_synced();
        drop(relay);
        lose_the_store(&bed);
        bed.phasegate(&adopt).expect(0);
        bed.phasegate(&["run", PLAN]).expect(4);
        let relay = bed.relay();
        bed.database.run("UPDATE users SET handle = handle || '-' WHERE id % 5 = 0");
        bed.is_synced();
        bed.are_same(point);
        drop(relay);
        bed.phasegate(&["history", "social-graph", "--verify"]).expect(0);
        // On the way back, too.
        let died = bed.with_point(
            &["rollback", "social-graph", "--yes"],
            "postgres::after-commit::remove=1*return->off",
        );
        assert_eq!(died.code, None, "{point}: {died}");
        lose_the_store(&bed);
        bed.phasegate(&adopt).expect(0);
        bed.phasegate(&["rollback", "social-graph", "--yes"]).expect(0);
        bed.nothing_is_left(point);
        assert_eq!(bed.graph.number("MATCH (n:User)"), 0, "{point}");
    }
}

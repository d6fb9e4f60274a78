//! Partitions that come and go with their rows, and TRUNCATE of one that is not followed: what was compared before counts no
//! more, and the next comparison finds what to repair.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::mapping as plain_mapping;
use super::sync_tests::{Bed, chunk, leads};
use crate::copy::chunk::Chunk;
use crate::driver::{SyncState, Verifier as _};
use crate::run::{CopyColumns, Direction, Mapping, OnDelete};

const ALL: Chunk = Chunk { lo: None, hi: None };

/// Both tables in partitions, with rows 1 to 30 in three of the old one's; one partition, of rows 31 to 35, stands beside.
const TABLES: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text) PARTITION BY RANGE (id);
    CREATE TABLE leads_1 PARTITION OF leads FOR VALUES FROM (0) TO (11);
    CREATE TABLE leads_2 PARTITION OF leads FOR VALUES FROM (11) TO (21);
    CREATE TABLE leads_3 PARTITION OF leads FOR VALUES FROM (21) TO (31);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text) PARTITION BY RANGE (id);
    CREATE TABLE leads_v2_1 PARTITION OF leads_v2 FOR VALUES FROM (0) TO (21);
    CREATE TABLE leads_v2_2 PARTITION OF leads_v2 FOR VALUES FROM (21) TO (100);
    CREATE TABLE filled (LIKE leads INCLUDING ALL);
    INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 30) AS n;
    INSERT INTO filled SELECT n, 'e' || n, 'Open' FROM generate_series(31, 35) AS n;";

async fn basis(bed: &Bed) -> String {
    bed.postgres.basis(&bed.mapping).await.unwrap().sync
}

/// What is missing, extra and different.
async fn differing(bed: &Bed) -> (u64, u64, u64) {
    let found = bed.postgres.compare_chunk(&bed.mapping, bed.direction, &ALL).await.unwrap();
    (found.missing, found.extra, found.different)
}

#[tokio::test]
async fn what_partitions_bring_and_take_asks_for_another_comparison_which_finds_it() {
    let attach = "ALTER TABLE leads ATTACH PARTITION filled FOR VALUES FROM (31) TO (41)";
    for (before, statement, expected) in [
        ("SELECT 1", attach, (5, 0, 0)),
        ("SELECT 1", "ALTER TABLE leads DETACH PARTITION leads_2", (0, 10, 0)),
        ("SELECT 1", "DROP TABLE leads_3", (0, 10, 0)),
        // It goes and comes back with other rows.
        (
            "SELECT 1",
            "ALTER TABLE leads DETACH PARTITION leads_2; DELETE FROM leads_2 WHERE id = 12; UPDATE leads_2 SET status = 'Won' WHERE id = 13;
             ALTER TABLE leads ATTACH PARTITION leads_2 FOR VALUES FROM (11) TO (21)",
            (0, 1, 1),
        ),
        // The trigger for TRUNCATE stands only where it was made.
        (
            "CREATE TABLE leads_4 PARTITION OF leads FOR VALUES FROM (31) TO (41); \
             INSERT INTO leads SELECT n, 'e', 'New' FROM generate_series(31, 34) AS n",
            "TRUNCATE leads_4",
            (0, 4, 0),
        ),
        (
            "CREATE TABLE leads_4 PARTITION OF leads FOR VALUES FROM (31) TO (41) PARTITION BY RANGE (id); \
             CREATE TABLE leads_41 PARTITION OF leads_4 FOR VALUES FROM (31) TO (41); \
             INSERT INTO leads SELECT n, 'e', 'New' FROM generate_series(31, 34) AS n",
            "TRUNCATE leads_4",
            (0, 4, 0),
        ),
        // The new side of a sync that goes forward only.
        ("SELECT 1", "TRUNCATE leads_v2_2", (10, 0, 0)),
    ] {
        let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
        bed.run(&chunk("true")).await;
        bed.run(before).await;
        let compared = basis(&bed).await;
        assert_eq!(differing(&bed).await, (0, 0, 0), "{statement}");
        bed.run("INSERT INTO leads VALUES (0, 'x', 'X'); UPDATE leads SET email = 'y'; DELETE FROM leads WHERE id = 0").await;
        bed.run("ANALYZE leads, leads_v2").await;
        bed.run("VACUUM leads, leads_v2").await;
        assert_eq!(basis(&bed).await, compared, "{statement}");
        bed.run(statement).await;
        assert_ne!(basis(&bed).await, compared, "{statement}");
        assert_eq!(bed.state().await, SyncState::Active, "{statement}");
        assert_eq!(differing(&bed).await, expected, "{statement}");
        let repaired =
            bed.postgres.repair_chunk(&bed.fence, &bed.mapping, bed.direction, &ALL).await;
        assert_eq!(repaired, Ok(expected.0 + expected.1 + expected.2), "{statement}");
        assert_eq!(differing(&bed).await, (0, 0, 0), "{statement}");
        assert_eq!(bed.state().await, SyncState::Active, "{statement}");
    }
}

#[tokio::test]
async fn a_truncate_that_is_followed_asks_for_nothing() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    let compared = basis(&bed).await;
    bed.run("TRUNCATE leads_2").await;
    assert_eq!(basis(&bed).await, compared);
    assert_eq!(differing(&bed).await, (0, 0, 0));
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 20);
    // Where the copies of rows that are gone stay, nobody follows.
    let kept = Mapping { on_delete: OnDelete::Ignore, ..leads() };
    let Some(bed) = Bed::with(TABLES, kept, Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    bed.run("TRUNCATE leads_2").await;
    assert_eq!(differing(&bed).await, (0, 0, 0));
}

#[tokio::test]
async fn with_both_a_partition_of_the_old_side_brings_its_rows_along() {
    let mapping =
        Mapping { reverse: vec![("status".into(), "initcap(status_code)".into())], ..leads() };
    let Some(bed) = Bed::with(TABLES, mapping.clone(), Direction::Both).await else { return };
    bed.run(&chunk("true")).await;
    let compared = basis(&bed).await;
    bed.run("ALTER TABLE leads ATTACH PARTITION filled FOR VALUES FROM (31) TO (41)").await;
    assert_ne!(basis(&bed).await, compared);
    assert_eq!(differing(&bed).await, (5, 0, 0));
    let repaired = bed.postgres.repair_chunk(&bed.fence, &bed.mapping, bed.direction, &ALL).await;
    assert_eq!(repaired, Ok(5));
    assert_eq!(differing(&bed).await, (0, 0, 0));
    // What the new side is brought is nobody's to take away.
    bed.run(
        "ALTER TABLE leads_v2 DETACH PARTITION leads_v2_2; INSERT INTO leads_v2_2 VALUES (90, 'mine', 'mine');
         ALTER TABLE leads_v2 ATTACH PARTITION leads_v2_2 FOR VALUES FROM (21) TO (100)",
    )
    .await;
    assert_eq!(differing(&bed).await, (0, 1, 0));
    let repaired = bed.postgres.repair_chunk(&bed.fence, &bed.mapping, bed.direction, &ALL).await;
    assert_eq!(repaired, Ok(0));
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2 WHERE id = 90").await, 1);
}

#[tokio::test]
async fn in_place_the_rows_that_a_partition_brings_are_not_converted() {
    let setup = "
        CREATE TABLE people (id bigint PRIMARY KEY, a text, a2 text) PARTITION BY RANGE (id);
        CREATE TABLE people_1 PARTITION OF people FOR VALUES FROM (0) TO (11);
        CREATE TABLE filled (LIKE people INCLUDING ALL);
        INSERT INTO people SELECT n, 'A' || n FROM generate_series(1, 9) AS n;
        INSERT INTO filled SELECT n, 'A' || n FROM generate_series(11, 14) AS n;";
    let mapping = Mapping {
        copy: CopyColumns::Listed,
        columns: vec![("a2".into(), "lower(a)".into())],
        reverse: vec![("a".into(), "upper(a2)".into())],
        ..plain_mapping(("people", &["id"]), ("people", &["id"]))
    };
    for (direction, repairs) in [(Direction::Forward, 4), (Direction::Both, 0)] {
        let Some(bed) = Bed::with(setup, mapping.clone(), direction).await else { return };
        let repaired = bed.postgres.repair_chunk(&bed.fence, &mapping, direction, &ALL).await;
        assert_eq!(repaired, Ok(9));
        let compared = basis(&bed).await;
        // It takes both sides of its rows along.
        bed.run("TRUNCATE people_1; INSERT INTO people (id, a) VALUES (1, 'A1')").await;
        assert_eq!(basis(&bed).await, compared);
        assert_eq!(differing(&bed).await, (0, 0, 0));
        bed.run("ALTER TABLE people ATTACH PARTITION filled FOR VALUES FROM (11) TO (21)").await;
        assert_ne!(basis(&bed).await, compared);
        assert_eq!(bed.state().await, SyncState::Active);
        assert_eq!(differing(&bed).await, (0, 0, 4));
        let repaired = bed.postgres.repair_chunk(&bed.fence, &mapping, direction, &ALL).await;
        assert_eq!(repaired, Ok(repairs), "{direction:?}");
        // Nobody can tell a value that isn't converted yet from one that a client emptied: its people can.
        bed.run("UPDATE people SET a2 = lower(a) WHERE id > 10 AND a2 IS NULL").await;
        assert_eq!(differing(&bed).await, (0, 0, 0), "{direction:?}");
        assert_eq!(bed.text("SELECT a2 FROM people WHERE id = 12").await, "a12");
    }
}

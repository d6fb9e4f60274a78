//! What a comparison finds and what it takes for equal, on both sides and in place, and how it repairs.
#![allow(clippy::unwrap_used, missing_docs)]

use super::Sqlite;
use super::fixture::{Database, entered, mapping, work};
use crate::bounds::message::SAMPLES_MAX;
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::copy::compare::Compared;
use crate::driver::{DualWriter as _, Verifier as _};
use crate::run::{Difference, Direction, Mapping, Method, OnDelete, Way, Winner};

const SCHEMA: &str = "
    CREATE TABLE leads (id INTEGER PRIMARY KEY, status TEXT, n REAL);
    CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, status_code TEXT, n REAL);
    WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000)
    INSERT INTO leads SELECT x, 'Open', x / 3.0 FROM c;
    INSERT INTO leads_v2 SELECT id, lower(status), n FROM leads;";

const ALL: Chunk = Chunk { lo: None, hi: None };

fn leads() -> Mapping {
    let mut mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    mapping.columns = vec![("status_code".into(), "lower(status)".into())];
    mapping.reverse = vec![("status".into(), "status_code".into())];
    mapping
}

fn key(id: i64) -> Key {
    Key(vec![Cell::Integer(id)])
}

/// Compares everything in chunks, as the engine does. Returns the sum and the number of chunks.
async fn compare_all(sqlite: &Sqlite, mapping: &Mapping, direction: Direction) -> (Compared, u32) {
    let (mut sum, mut chunks, mut lo) = (Compared::default(), 0, None);
    loop {
        let hi = sqlite.verify_bound(mapping, lo.as_ref(), 100).await.unwrap();
        let chunk = Chunk { lo: lo.clone(), hi: hi.clone() };
        sum.add(sqlite.compare_chunk(mapping, direction, &chunk).await.unwrap());
        chunks += 1;
        if hi.is_none() {
            return (sum, chunks);
        }
        lo = hi;
    }
}

fn shown(compared: &Compared) -> Vec<String> {
    let show = |d: &Difference| format!("{:?} {} {}", d.kind, d.key, d.columns.join("+"));
    compared.samples.iter().map(show).collect()
}

#[tokio::test]
async fn equal_sides_are_clean_and_every_row_is_looked_at() {
    let database = Database::with(SCHEMA).await;
    let sqlite = database.open().await;
    for direction in [Direction::Forward, Direction::Both] {
        let (sum, chunks) = compare_all(&sqlite, &leads(), direction).await;
        assert!(sum.is_clean(), "{sum:?}");
        assert_eq!((sum.rows, chunks), (1000, 11));
    }
}

#[tokio::test]
async fn both_sides_keys_bound_the_chunks_and_nothing_beyond_them_is_missed() {
    let database = Database::with(SCHEMA).await;
    database.run("DELETE FROM leads_v2 WHERE id BETWEEN 100 AND 899; DELETE FROM leads WHERE id > 950;
        INSERT INTO leads_v2 VALUES (-5, 'low', 1), (5000, 'high', 2); DELETE FROM leads WHERE id = 7;
        UPDATE leads_v2 SET n = n + 0.5, status_code = 'OPEN' WHERE id = 8").await;
    let sqlite = database.open().await;
    let (sum, _) = compare_all(&sqlite, &leads(), Direction::Forward).await;
    assert_eq!((sum.missing, sum.extra, sum.different), (800, 53, 1));
    assert_eq!(sum.samples.len(), SAMPLES_MAX);
    let low = sqlite
        .compare_chunk(&leads(), Direction::Forward, &Chunk { lo: None, hi: Some(key(100)) })
        .await
        .unwrap();
    assert_eq!(
        shown(&low),
        ["Different 8 n+status_code", "Missing 100 ", "Extra -5 ", "Extra 7 ",]
    );
    assert_eq!(low.rows, 100);
}

#[tokio::test]
async fn an_empty_table_and_a_filter() {
    let database = Database::with(SCHEMA).await;
    database.run("DELETE FROM leads_v2").await;
    let sqlite = database.open().await;
    let (sum, chunks) = compare_all(&sqlite, &leads(), Direction::Forward).await;
    assert_eq!((sum.rows, sum.missing, chunks), (1000, 1000, 11));
    let mut filtered = leads();
    filtered.filter = Some("id % 2 = 0 OR NULL".into());
    database.run("INSERT INTO leads_v2 SELECT id, lower(status), n FROM leads WHERE id % 2 = 0 OR id = 11").await;
    let (sum, _) = compare_all(&sqlite, &filtered, Direction::Forward).await;
    assert_eq!((sum.missing, sum.extra, sum.different), (0, 1, 0));
    let counts =
        sqlite.compare_partly(&filtered, Direction::Forward, Method::Counts).await.unwrap();
    assert_eq!((counts.rows, counts.missing, counts.extra), (501, 0, 1));
}

#[tokio::test]
async fn with_both_either_side_may_be_the_one_that_was_written() {
    let database = Database::with(SCHEMA).await;
    // The old side lost nothing by the way: lower(Open) = open. The other way OPEN comes from nowhere.
    database.run("UPDATE leads SET status = 'OPEN' WHERE id = 1; UPDATE leads_v2 SET status_code = 'Mixed' WHERE id = 2;
        UPDATE leads SET status = 'Mixed' WHERE id = 2; UPDATE leads_v2 SET status_code = 'Else' WHERE id = 3").await;
    let sqlite = database.open().await;
    let both = sqlite.compare_chunk(&leads(), Direction::Both, &ALL).await.unwrap();
    assert_eq!(shown(&both), ["Different 3 status_code"]);
    let forward = sqlite.compare_chunk(&leads(), Direction::Forward, &ALL).await.unwrap();
    assert_eq!(shown(&forward), ["Different 2 status_code", "Different 3 status_code"]);
}

#[tokio::test]
async fn what_a_deleted_row_leaves_behind_is_no_difference_where_the_mapping_says_so() {
    let database = Database::with(SCHEMA).await;
    database.run("DELETE FROM leads WHERE id < 3; UPDATE leads_v2 SET status_code = NULL, n = NULL WHERE id = 1").await;
    let sqlite = database.open().await;
    for (on_delete, extra) in [(OnDelete::Delete, 2), (OnDelete::Nullify, 1), (OnDelete::Ignore, 0)]
    {
        let mut mapping = leads();
        mapping.on_delete = on_delete;
        let found = sqlite.compare_chunk(&mapping, Direction::Forward, &ALL).await.unwrap();
        assert_eq!((found.extra, found.missing, found.different), (extra, 0, 0), "{on_delete:?}");
    }
}

#[tokio::test]
async fn a_sample_is_spread_over_all_keys_of_both_sides() {
    let database = Database::with(SCHEMA).await;
    let sqlite = database.open().await;
    let sample = |size| {
        let sqlite = &sqlite;
        async move {
            sqlite.compare_partly(&leads(), Direction::Forward, Method::Sample(size)).await.unwrap()
        }
    };
    assert_eq!(sample(50).await.rows, 50);
    assert_eq!(sample(5000).await.rows, 1000);
    // Half of the keys differ: so does about half of a sample that is spread evenly, wherever it starts.
    database
        .run("UPDATE leads_v2 SET n = -1 WHERE id > 500; DELETE FROM leads WHERE id > 980")
        .await;
    let found = sample(50).await;
    assert!((23..=27).contains(&found.different), "{found:?}");
    assert!((1..=2).contains(&found.extra), "{found:?}");
}

#[tokio::test]
async fn repair_makes_a_chunk_right_and_leaves_others_alone() {
    let spoil = "DELETE FROM leads WHERE id IN (10, 20); DELETE FROM leads_v2 WHERE id IN (11, 900);
        UPDATE leads_v2 SET status_code = 'bad' WHERE id IN (12, 901); INSERT INTO leads_v2 VALUES (-1, 'x', 0)";
    let leads = Mapping { winner: Winner::Old, ..leads() };
    for direction in [Direction::Forward, Direction::Both] {
        let database = Database::with(SCHEMA).await;
        database.run(spoil).await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        sqlite.install(&fence, &work("sync", Way::Forward), &leads, direction).await.unwrap();
        let chunk = Chunk { lo: None, hi: Some(key(500)) };
        assert_eq!(sqlite.repair_chunk(&fence, &leads, direction, &chunk).await, Ok(5));
        let (sum, _) = compare_all(&sqlite, &leads, direction).await;
        assert_eq!((sum.missing, sum.extra, sum.different), (1, 0, 1));
        assert_eq!(sqlite.repair_chunk(&fence, &leads, direction, &ALL).await, Ok(2));
        assert_eq!(sqlite.repair_chunk(&fence, &leads, direction, &ALL).await, Ok(0));
        assert!(compare_all(&sqlite, &leads, direction).await.0.is_clean());
        let wrong = "SELECT count(*) FROM leads l LEFT JOIN leads_v2 v USING (id) WHERE v.status_code IS NOT 'open'";
        assert_eq!(database.number(wrong).await, 0);
        assert_eq!(database.number("SELECT count(*) FROM leads").await, 998);
    }
}

#[tokio::test]
async fn with_both_nothing_is_taken_from_the_new_side_unless_the_old_one_wins() {
    let database = Database::with(SCHEMA).await;
    let sqlite = database.open().await;
    let (fence, _) = entered(&sqlite, 1).await;
    let sync = work("sync", Way::Forward);
    sqlite.install(&fence, &sync, &leads(), Direction::Both).await.unwrap();
    // A client of the new shape whose writes the triggers are away for.
    let mut client = database.client().await;
    let triggers: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'leads_v2'",
    )
    .fetch_all(&mut client)
    .await
    .unwrap();
    assert!(!triggers.is_empty());
    for (name, _) in &triggers {
        database.run(&format!("DROP TRIGGER {}", super::catalogue::quote(name))).await;
    }
    database
        .run(
            "INSERT INTO leads_v2 VALUES (5000, 'mine', 1); DELETE FROM leads_v2 WHERE id = 2;
            UPDATE leads_v2 SET status_code = 'mine' WHERE id = 3",
        )
        .await;
    for (_, sql) in &triggers {
        database.run(sql).await;
    }
    let state = sqlite.sync_state(&leads(), Direction::Both).await;
    assert_eq!(state, Ok(crate::driver::SyncState::Active), "nothing tells of it");
    let repaired = sqlite.repair_chunk(&fence, &leads(), Direction::Both, &ALL).await;
    assert_eq!(repaired, Ok(0));
    let (sum, _) = compare_all(&sqlite, &leads(), Direction::Both).await;
    assert_eq!((sum.missing, sum.extra, sum.different), (1, 1, 1));
    // People decide: what is written to one side gets to the other.
    database
        .run(
            "INSERT INTO leads VALUES (5000, 'mine', 1); DELETE FROM leads WHERE id = 2;
            UPDATE leads SET status = 'mine' WHERE id = 3",
        )
        .await;
    assert!(compare_all(&sqlite, &leads(), Direction::Both).await.0.is_clean());
    let mine = "SELECT count(*) FROM leads_v2 WHERE status_code = 'mine'";
    assert_eq!(database.number(mine).await, 2);
    assert_eq!(database.number("SELECT count(*) FROM leads_v2 WHERE id = 2").await, 0);
}

#[tokio::test]
async fn in_place_rows_differ_or_not() {
    let database = Database::with(
        "CREATE TABLE p (id INTEGER PRIMARY KEY, a TEXT, b TEXT);
         INSERT INTO p VALUES (1, 'X', 'x'), (2, 'Y', NULL), (3, 'Z', 'q'), (4, 'W', 'W')",
    )
    .await;
    let mut people = mapping(("p", &["id"]), ("p", &["id"]));
    people.columns = vec![("b".into(), "lower(a)".into())];
    people.reverse = vec![("a".into(), "b".into())];
    people.winner = Winner::Old;
    let sqlite = database.open().await;
    let (fence, _) = entered(&sqlite, 1).await;
    for direction in [Direction::Forward, Direction::Both] {
        let step = work(&format!("{direction:?}"), Way::Forward);
        sqlite.install(&fence, &step, &people, direction).await.unwrap();
        let (sum, _) = compare_all(&sqlite, &people, direction).await;
        assert_eq!((sum.rows, sum.different, sum.missing, sum.extra), (4, 3, 0, 0));
        assert_eq!(shown(&sum), ["Different 2 b", "Different 3 b", "Different 4 b"]);
    }
    // A new client's own value, which the mapping would have otherwise, is right because it is known to be one.
    database.run("UPDATE p SET b = 'Mine' WHERE id = 4").await;
    let found = sqlite.compare_chunk(&people, Direction::Both, &ALL).await.unwrap();
    assert_eq!(shown(&found), ["Different 2 b", "Different 3 b"]);
    assert_eq!(sqlite.repair_chunk(&fence, &people, Direction::Both, &ALL).await, Ok(2));
    assert_eq!(database.number("SELECT count(*) FROM p WHERE b = lower(a)").await, 3);
    assert!(sqlite.compare_chunk(&people, Direction::Both, &ALL).await.unwrap().is_clean());
}

//! Clients of both shapes under a live sync of columns of one table.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{class, mapping as plain_mapping, work};
use super::sync_tests::{Bed, id, say};
use crate::driver::{DualWriter as _, SyncState};
use crate::run::{CopyColumns, Direction, FailureClass, Mapping, Way, Winner};

const TABLE: &str = "
    CREATE TABLE t (id int PRIMARY KEY, a text, b int, n int DEFAULT 0, a2 text, b2 bigint);
    INSERT INTO t (id, a, b) SELECT i, 'A' || i, i FROM generate_series(1, 9) AS i;";

fn columns() -> Mapping {
    Mapping {
        copy: CopyColumns::Listed,
        columns: vec![("a2".into(), "lower(a)".into()), ("b2".into(), "b * 100".into())],
        ..plain_mapping(("t", &["id"]), ("t", &["id"]))
    }
}

fn both() -> Mapping {
    let reverse = vec![("a".into(), "upper(a2)".into()), ("b".into(), "b2 / 100".into())];
    Mapping { reverse, ..columns() }
}

fn row(id: u32) -> String {
    format!(
        "SELECT concat_ws(' ', coalesce(a, '-'), coalesce(b::text, '-'), coalesce(a2, '-'), coalesce(b2::text, '-')) FROM t WHERE id = {id}"
    )
}

async fn check(bed: &Bed, cases: &[(&str, u32, &str)]) {
    for (script, id, expected) in cases {
        bed.run(script).await;
        assert_eq!(bed.text(&row(*id)).await, *expected, "{script}");
    }
}

#[tokio::test]
async fn forward_every_write_leaves_the_target_columns_as_the_mapping_says() {
    let setup = format!(
        "{TABLE} CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.a = 'change' THEN NEW.a := 'CHANGED'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER zz BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION change();"
    );
    let Some(bed) = Bed::with(&setup, columns(), Direction::Forward).await else { return };
    check(
        &bed,
        &[
            ("UPDATE t SET n = 1 WHERE id = 1", 1, "A1 1 a1 100"),
            ("UPDATE t SET a = 'change' WHERE id = 2", 2, "CHANGED 2 changed 200"),
            ("INSERT INTO t (id, a) VALUES (10, 'TEN')", 10, "TEN - ten -"),
            ("INSERT INTO t (id, a) VALUES (10, 'X') ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a", 10, "X - x -"),
            ("UPDATE t SET a2 = 'not so' WHERE id = 3", 3, "A3 3 a3 300"),
            ("UPDATE t SET id = 30 WHERE id = 4", 30, "A4 4 a4 400"),
            ("SELECT 1", 5, "A5 5 - -"),
        ],
    )
    .await;
}

#[tokio::test]
async fn with_both_the_side_that_was_written_wins_part_by_part() {
    for (winner, last, inserted) in [
        (Winner::New, "NEW 1 new 100", "NEW - new -"),
        (Winner::Old, "OLD 1 old 100", "OLD - old -"),
    ] {
        let Some(bed) = Bed::with(TABLE, Mapping { winner, ..both() }, Direction::Both).await
        else {
            return;
        };
        check(
            &bed,
            &[
                ("UPDATE t SET n = 1 WHERE id = 1", 1, "A1 1 - -"),
                ("UPDATE t SET a = 'X' WHERE id = 1", 1, "X 1 x -"),
                ("UPDATE t SET b2 = 350 WHERE id = 1", 1, "X 3 x 350"),
                ("UPDATE t SET a2 = 'y' WHERE id = 1", 1, "Y 3 y 350"),
                ("UPDATE t SET n = 2 WHERE id = 1", 1, "Y 3 y 350"),
                ("UPDATE t SET b = 1 WHERE id = 1", 1, "Y 1 y 100"),
                ("UPDATE t SET a2 = 'new', a = 'OLD' WHERE id = 1", 1, last),
                ("UPDATE t SET id = 20 WHERE id = 2", 20, "A2 2 a2 200"),
                ("INSERT INTO t (id, a, b) VALUES (30, 'N', 3)", 30, "N 3 n 300"),
                ("INSERT INTO t (id, a2, b2) VALUES (31, 'n', 350)", 31, "N 3 n 350"),
                ("INSERT INTO t (id, a, b2) VALUES (32, 'N', 300)", 32, "N 3 n 300"),
                ("INSERT INTO t (id) VALUES (33)", 33, "- - - -"),
                ("INSERT INTO t (id, a2, a) VALUES (34, 'new', 'OLD')", 34, inserted),
            ],
        )
        .await;
        let kept = format!("SELECT count(*) FROM phasegate.kept_{}", id(&bed.mapping));
        assert_eq!(bed.number(&kept).await, 1, "only row 31 is not as the mapping says");
        bed.run("DELETE FROM t WHERE id = 31").await;
        assert_eq!(bed.number(&kept).await, 0);
    }
}

#[tokio::test]
async fn an_explicit_null_over_a_value_not_yet_converted_stands() {
    // The mapping would make something of NULL, so that what stands is not as it says.
    let mapping = Mapping {
        columns: vec![
            ("a2".into(), "coalesce(lower(a), 'none')".into()),
            ("b2".into(), "b * 100".into()),
        ],
        ..both()
    };
    let Some(bed) = Bed::with(TABLE, mapping, Direction::Both).await else { return };
    let kept =
        |key: u32| format!("SELECT count(*) FROM phasegate.kept_{} WHERE k1 = {key}", id(&both()));
    check(&bed, &[("UPDATE t SET a2 = NULL WHERE id = 1", 1, "- 1 - -")]).await;
    assert_eq!(bed.number(&kept(1)).await, 1);
    check(
        &bed,
        &[
            ("UPDATE t SET n = 5 WHERE id = 1", 1, "- 1 - -"),
            ("UPDATE t SET id = 100 WHERE id = 1", 100, "- 1 - 100"),
            (
                "INSERT INTO t (id, a) VALUES (100, 'Z') ON CONFLICT (id) DO UPDATE SET n = 9",
                100,
                "- 1 - 100",
            ),
        ],
    )
    .await;
    assert_eq!((bed.number(&kept(1)).await, bed.number(&kept(100)).await), (0, 1));
    // The copy passes by what is kept, and its own writes are nobody's.
    let copy = format!(
        "BEGIN; SET LOCAL phasegate.guard = '{0}'; UPDATE t SET a2 = coalesce(lower(a), 'none') WHERE NOT EXISTS
         (SELECT 1 FROM phasegate.kept_{0} WHERE part = 0 AND k1 = id); COMMIT",
        id(&both())
    );
    check(&bed, &[(&copy, 100, "- 1 - 100"), ("SELECT 1", 5, "A5 5 a5 -")]).await;
    check(&bed, &[("UPDATE t SET a = 'W' WHERE id = 100", 100, "W 1 w 100")]).await;
    assert_eq!(bed.number(&kept(100)).await, 0);
    bed.run("UPDATE t SET a2 = NULL WHERE id = 6; TRUNCATE t").await;
    assert_eq!(bed.number(&kept(6)).await, 0);
}

#[tokio::test]
async fn rows_outside_the_filter_are_nobodys() {
    let mapping = Mapping { filter: Some("n = 0".into()), ..both() };
    let Some(bed) = Bed::with(TABLE, mapping, Direction::Both).await else { return };
    check(
        &bed,
        &[
            ("UPDATE t SET n = 1, a = 'X' WHERE id = 1", 1, "X 1 - -"),
            ("UPDATE t SET a2 = 'free' WHERE id = 1", 1, "X 1 free -"),
            ("UPDATE t SET a = 'Y' WHERE id = 2", 2, "Y 2 y -"),
        ],
    )
    .await;
}

#[tokio::test]
async fn who_would_have_the_last_word_is_refused_and_noticed() {
    let late = "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER \"zzzz~\" BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION late();";
    let Some(bed) = Bed::with(TABLE, columns(), Direction::Forward).await else { return };
    bed.run(late).await;
    assert!(
        matches!(bed.state().await, SyncState::Broken(why) if why.contains("fires after ours"))
    );
    let step = work("other", Way::Forward);
    let refused = bed.postgres.install(&bed.fence, &step, &bed.mapping, bed.direction).await;
    assert_eq!(class(refused), FailureClass::Unsafe);
}

#[tokio::test]
async fn going_back_empties_the_columns_that_were_found_empty() {
    let Some(bed) = Bed::with(TABLE, both(), Direction::Both).await else { return };
    bed.run("UPDATE t SET a = a || 'x', b2 = 7").await;
    let done = bed
        .postgres
        .remove(&bed.fence, &work("sync", Way::Back), &bed.mapping, bed.direction)
        .await
        .unwrap();
    assert_eq!(done.rows, 9);
    assert_eq!(
        bed.number("SELECT count(*) FROM t WHERE a2 IS NOT NULL OR b2 IS NOT NULL").await,
        0
    );
    bed.run("UPDATE t SET a2 = 'mine' WHERE id = 1").await;
    assert_eq!(bed.text("SELECT a FROM t WHERE id = 1").await, "A1x");
}

#[tokio::test]
async fn partitions_have_it_all() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, a text, b int, n int DEFAULT 0, a2 text, b2 bigint) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
        CREATE TABLE t2 (b2 bigint, a2 text, n int DEFAULT 0, id int NOT NULL PRIMARY KEY, b int, a text);
        ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20);
        INSERT INTO t (id, a, b) VALUES (1, 'A1', 1), (11, 'A11', 11);";
    let Some(bed) = Bed::with(setup, both(), Direction::Both).await else { return };
    check(
        &bed,
        &[
            ("UPDATE t SET a = 'X' WHERE id = 11", 11, "X 11 x -"),
            ("UPDATE t2 SET b2 = 450 WHERE id = 11", 11, "X 4 x 450"),
            ("UPDATE t SET id = 2, b2 = 550 WHERE id = 11", 2, "X 5 x 550"),
        ],
    )
    .await;
    let mut client = bed.client().await;
    say(&mut client, "ALTER TABLE t1 DISABLE TRIGGER USER").await.unwrap();
    assert!(
        matches!(bed.state().await, SyncState::Broken(why) if why.contains("on t1 is disabled"))
    );
}

/// Outside the filter nobody keeps a row's sides in step; a client that brings it in may write nothing else of it.
#[tokio::test]
async fn with_both_a_row_that_comes_into_the_filter_is_converted() {
    let mapping = Mapping { filter: Some("n >= 0".into()), ..both() };
    let Some(bed) = Bed::with(TABLE, mapping, Direction::Both).await else { return };
    check(
        &bed,
        &[
            ("INSERT INTO t (id, a, b, n) VALUES (20, 'X', 2, -1)", 20, "X 2 - -"),
            ("UPDATE t SET n = 1 WHERE id = 20", 20, "X 2 x 200"),
            ("UPDATE t SET n = 2 WHERE id = 1", 1, "A1 1 - -"),
            // Of what a client of the new shape wrote, the old shape goes on while the row is outside.
            ("UPDATE t SET b2 = 250 WHERE id = 20", 20, "X 2 x 250"),
            ("UPDATE t SET n = -1 WHERE id = 20", 20, "X 2 x 250"),
            ("UPDATE t SET n = 1 WHERE id = 20", 20, "X 2 x 250"),
            (
                "UPDATE t SET n = -1 WHERE id = 20; UPDATE t SET b = 3 WHERE id = 20",
                20,
                "X 3 x 250",
            ),
            ("UPDATE t SET n = 1 WHERE id = 20", 20, "X 3 x 300"),
            ("UPDATE t SET n = -1 WHERE id = 20", 20, "X 3 x 300"),
            ("UPDATE t SET n = 1, a2 = 'y' WHERE id = 20", 20, "Y 3 y 300"),
        ],
    )
    .await;
}

/// What a user's trigger writes into the row counts as what the client wrote, named in the statement or not.
#[tokio::test]
async fn with_both_what_triggers_make_of_the_row_is_followed() {
    for name in ["aaa", "zz"] {
        let setup = format!(
            "{TABLE} CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.n = 7 THEN NEW.a := 'OLD'; END IF; IF NEW.n = 8 THEN NEW.a2 := 'new'; END IF;
               IF NEW.a = 'change' THEN NEW.a := 'CHANGED'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION change();"
        );
        let Some(bed) = Bed::with(&setup, both(), Direction::Both).await else { return };
        check(
            &bed,
            &[
                ("UPDATE t SET n = 7 WHERE id = 1", 1, "OLD 1 old -"),
                ("UPDATE t SET n = 8 WHERE id = 2", 2, "NEW 2 new -"),
                ("UPDATE t SET a = 'change' WHERE id = 3", 3, "CHANGED 3 changed -"),
                ("UPDATE t SET n = 7, b = 6 WHERE id = 4", 4, "OLD 6 old 600"),
                ("INSERT INTO t (id, a, b) VALUES (20, 'change', 2)", 20, "CHANGED 2 changed 200"),
                ("INSERT INTO t (id, b, n) VALUES (21, 2, 8)", 21, "NEW 2 new 200"),
            ],
        )
        .await;
    }
}

/// A client may set another default at any time: what is left out is told from what is written by the one that holds.
#[tokio::test]
async fn with_both_defaults_may_change_under_a_living_sync() {
    let Some(bed) = Bed::with(TABLE, both(), Direction::Both).await else { return };
    for (default, script, id, expected) in [
        ("a SET DEFAULT 'Given'", "(id, a2) VALUES (40, 'n')", 40, "N - n -"),
        ("n SET DEFAULT 7", "(id, a) VALUES (41, 'X')", 41, "X - x -"),
        ("b SET DEFAULT 7", "(id, b2) VALUES (42, 900)", 42, "Given 9 given 900"),
        (
            "a SET DEFAULT 'it''s ' || current_database()",
            "(id, a2) VALUES (43, 'q')",
            43,
            "Q 7 q 700",
        ),
        ("a2 SET DEFAULT 'none'", "(id, a) VALUES (44, 'X')", 44, "X 7 x 700"),
        ("a SET DEFAULT 'NONE'", "(id, a2, b) VALUES (45, 'y', 1)", 45, "Y 1 y 100"),
        ("a DROP DEFAULT", "(id, a2) VALUES (46, 'z')", 46, "Z 7 z 700"),
        ("a2 DROP DEFAULT", "(id, a) VALUES (47, 'W')", 47, "W 7 w 700"),
        ("b2 SET DEFAULT 50", "(id, b) VALUES (48, 3)", 48, "- 3 - 300"),
    ] {
        bed.run(&format!("ALTER TABLE t ALTER {default}; INSERT INTO t {script}")).await;
        assert_eq!(bed.text(&row(id)).await, expected, "{default}: {script}");
        assert_eq!(bed.state().await, SyncState::Active, "{default}");
    }
}

/// What a domain has for whoever says nothing is nobody's value either.
#[tokio::test]
async fn with_both_the_default_of_a_type_is_one_too() {
    let setup = format!(
        "CREATE DOMAIN word AS text DEFAULT 'NONE'; {TABLE} ALTER TABLE t ALTER a TYPE word"
    );
    let Some(bed) = Bed::with(&setup, both(), Direction::Both).await else { return };
    check(
        &bed,
        &[
            ("INSERT INTO t (id, a2) VALUES (40, 'n')", 40, "N - n -"),
            ("INSERT INTO t (id, b) VALUES (41, 1)", 41, "NONE 1 none 100"),
            (
                "ALTER DOMAIN word SET DEFAULT 'Other'; INSERT INTO t (id, a2) VALUES (42, 'n')",
                42,
                "N - n -",
            ),
        ],
    )
    .await;
    assert_eq!(bed.state().await, SyncState::Active);
}

/// Such a client gets the new default and sees the old one, by which what it left out would pass for what it wrote.
#[tokio::test]
async fn with_both_a_client_with_an_older_view_than_a_default_tries_again() {
    let Some(bed) = Bed::with(TABLE, both(), Direction::Both).await else { return };
    let mut other = bed.client().await;
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        for (n, default, ends, code) in [
            (50, "a SET DEFAULT 'Given'", "COMMIT", Some("40001")),
            (51, "b2 SET DEFAULT 5", "ROLLBACK", None),
            (52, "n SET DEFAULT 5", "COMMIT", None),
            (53, "a DROP DEFAULT", "COMMIT", Some("40001")),
        ] {
            let mut client = bed.client().await;
            let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM pg_class");
            say(&mut client, &begin).await.unwrap();
            say(&mut other, &format!("BEGIN; ALTER TABLE t ALTER {default}; {ends}"))
                .await
                .unwrap();
            let insert = format!("INSERT INTO t (id, a2) VALUES ({n}, 'n')");
            let done = say(&mut client, &insert).await;
            let found = done.as_ref().err().and_then(super::error::code);
            assert_eq!(found, code, "{isolation}, {default}, {ends}: {done:?}");
            if code.is_some() {
                say(&mut client, &format!("ROLLBACK; {begin}; {insert}")).await.unwrap();
            }
            say(&mut client, "COMMIT").await.unwrap();
            assert_eq!(bed.text(&row(n)).await, "N - n -", "{isolation}, {default}, {ends}");
            bed.run(&format!("DELETE FROM t WHERE id = {n}")).await;
        }
    }
}

/// A row goes to another partition by being deleted and inserted.
#[tokio::test]
async fn what_a_client_of_the_new_shape_wrote_stands_in_another_partition() {
    let table = "
        CREATE TABLE t (id int, part int, v text, v2 text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1);
        CREATE TABLE t_2 PARTITION OF t FOR VALUES IN (2, 3);
        INSERT INTO t SELECT i, 1, 'V' || i FROM generate_series(1, 9) AS i;";
    let mapping = Mapping {
        copy: CopyColumns::Listed,
        columns: vec![("v2".into(), "coalesce(v, 'none')".into())],
        reverse: vec![("v".into(), "v2".into())],
        ..plain_mapping(("t", &["id", "part"]), ("t", &["id", "part"]))
    };
    let Some(bed) = Bed::with(table, mapping, Direction::Both).await else { return };
    let row = |id: u32| {
        format!(
            "SELECT concat_ws(' ', part, coalesce(v, '-'), coalesce(v2, '-')) FROM t WHERE id = {id}"
        )
    };
    let kept = |id: u32| {
        format!(
            "SELECT coalesce(string_agg(part || ':' || k2, ' '), '-') FROM phasegate.kept_{} WHERE k1 = {id}",
            super::sync_tests::id(&bed.mapping)
        )
    };
    for (script, id, expected, marks) in [
        ("UPDATE t SET v2 = NULL WHERE id = 5", 5, "1 - -", "0:1"),
        ("UPDATE t SET part = 2 WHERE id = 5", 5, "2 - -", "0:2"),
        ("UPDATE t SET part = 3 WHERE id = 5", 5, "3 - -", "0:3"),
        ("UPDATE t SET part = 1 WHERE id = 5", 5, "1 - -", "0:1"),
        // It names the columns, or writes them, and moves the row at once.
        ("UPDATE t SET v2 = NULL, part = 2 WHERE id = 6", 6, "2 - -", "0:2"),
        ("UPDATE t SET v2 = 'w', part = 2 WHERE id = 7", 7, "2 w w", "-"),
        // A client of the old shape converts it; a row not yet converted is converted as it moves.
        ("UPDATE t SET v = 'old', part = 1 WHERE id = 6", 6, "1 old old", "-"),
        ("UPDATE t SET part = 2 WHERE id = 8", 8, "2 V8 V8", "-"),
        // Who comes to a key later has nothing of who was there.
        ("DELETE FROM t WHERE id = 5; INSERT INTO t (id, part) VALUES (5, 1)", 5, "1 - none", "-"),
        (
            "UPDATE t SET v2 = NULL WHERE id = 9; WITH gone AS (DELETE FROM t WHERE id = 9 RETURNING id) \
          INSERT INTO t (id, part, v) SELECT id, 2, 'again' FROM gone",
            9,
            "2 again again",
            "-",
        ),
    ] {
        bed.run(script).await;
        assert_eq!(bed.text(&row(id)).await, expected, "{script}");
        assert_eq!(bed.text(&kept(id)).await, marks, "{script}");
    }
    bed.database.gone().await;
}

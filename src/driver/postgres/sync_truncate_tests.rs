//! TRUNCATE under a live sync of two tables: of a whole table, of partitions, and by clients with an old snapshot; and rows that
//! only such a client still sees.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::postgres::PgDatabaseError;

use super::sync_tests::{Bed, TABLES, WRONG, both_leads, chunk, id, leads, say};
use crate::run::{Direction, Mapping};

/// Both tables in two partitions: the first has keys below 50.
const PARTS: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int) PARTITION BY RANGE (id);
    CREATE TABLE leads_1 PARTITION OF leads FOR VALUES FROM (0) TO (50);
    CREATE TABLE leads_2 PARTITION OF leads FOR VALUES FROM (50) TO (200);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text DEFAULT 'new') PARTITION BY RANGE (id);
    CREATE TABLE leads_v2_1 PARTITION OF leads_v2 FOR VALUES FROM (0) TO (50);
    CREATE TABLE leads_v2_2 PARTITION OF leads_v2 FOR VALUES FROM (50) TO (200);";

const LEVELS: [&str; 2] = ["REPEATABLE READ", "SERIALIZABLE"];

const NEW_KEYS: &str = "SELECT string_agg(id::text, ',' ORDER BY id) FROM leads_v2";
const OLD_KEYS: &str = "SELECT string_agg(id::text, ',' ORDER BY id) FROM leads";

fn code(error: &sqlx::Error) -> String {
    let given = error.as_database_error().unwrap().downcast_ref::<PgDatabaseError>();
    given.code().to_owned()
}

fn both_ways() -> [(Direction, Mapping); 2] {
    [(Direction::Forward, leads()), (Direction::Both, both_leads())]
}

fn rows(lo: u32, hi: u32) -> String {
    format!("INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series({lo}, {hi}) AS n")
}

/// A bed with rows of these keys, of which none is copied.
async fn bed(mapping: Mapping, direction: Direction, keys: &[(u32, u32)]) -> Option<Bed> {
    let rows: Vec<String> = keys.iter().map(|(lo, hi)| rows(*lo, *hi)).collect();
    Bed::with(&format!("{PARTS} {}", rows.join(";")), mapping, direction).await
}

#[tokio::test]
async fn a_partition_is_not_emptied_for_the_whole_under_an_old_snapshot() {
    for (direction, mapping) in both_ways() {
        let Some(bed) = bed(mapping, direction, &[(1, 9)]).await else { return };
        bed.run(&chunk("true")).await;
        for (at, lock) in [
            "",
            "LOCK TABLE leads IN ACCESS EXCLUSIVE MODE;",
            "LOCK TABLE ONLY leads IN ACCESS EXCLUSIVE MODE;",
        ]
        .into_iter()
        .enumerate()
        {
            let case = format!("{direction:?} {lock}");
            let mut client = bed.client().await;
            let begin =
                format!("BEGIN ISOLATION LEVEL {}; SELECT count(*) FROM leads", LEVELS[at % 2]);
            say(&mut client, &begin).await.unwrap();
            bed.run(&format!("DELETE FROM leads WHERE id >= 60; {}", rows(60, 70))).await;
            let refused = say(&mut client, &format!("{lock} TRUNCATE leads_1")).await.unwrap_err();
            assert_eq!(code(&refused), "0A000", "{case}: {refused}");
            say(&mut client, "ROLLBACK").await.unwrap();
            assert_eq!(bed.number(WRONG).await, 0, "{case}");
            assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 20, "{case}");
        }
    }
}

#[tokio::test]
async fn a_partitioned_table_is_emptied_as_a_whole_under_an_old_snapshot() {
    for (direction, mapping) in both_ways() {
        for statement in ["TRUNCATE leads", "TRUNCATE leads, leads_v2", "TRUNCATE leads_v2, leads"]
        {
            let Some(bed) = bed(mapping.clone(), direction, &[(1, 9)]).await else { return };
            bed.run(&chunk("true")).await;
            let case = format!("{direction:?} {statement}");
            let mut client = bed.client().await;
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM leads";
            say(&mut client, begin).await.unwrap();
            bed.run(&rows(60, 70)).await;
            let script = format!("{statement}; {}; COMMIT", rows(5, 6));
            say(&mut client, &script).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(bed.text(NEW_KEYS).await, "5,6", "{case}");
            assert_eq!(bed.number(WRONG).await, 0, "{case}");
        }
    }
}

#[tokio::test]
async fn a_partition_of_the_old_side_takes_its_own_copies_alone() {
    for (direction, mapping) in both_ways() {
        let Some(bed) = bed(mapping, direction, &[(1, 3), (60, 62)]).await else { return };
        bed.run(&chunk("true")).await;
        bed.run("TRUNCATE leads_1").await;
        assert_eq!(bed.text(NEW_KEYS).await, "60,61,62", "{direction:?}");
        bed.run("BEGIN; INSERT INTO leads VALUES (7, 'm', 'Mine'); TRUNCATE leads_1; COMMIT").await;
        assert_eq!(bed.number(WRONG).await, 0, "{direction:?}");
        assert_eq!(bed.noted().await, 0, "{direction:?}");
    }
    // The copy of another partition's row whose key changed, which only a note says, follows it later with all it has.
    let Some(bed) = bed(leads(), Direction::Forward, &[(1, 3), (60, 62)]).await else { return };
    let mut client = bed.client().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM leads";
    say(&mut client, begin).await.unwrap();
    bed.run(&chunk("true")).await;
    bed.run("UPDATE leads_v2 SET note = 'kept' WHERE id = 61").await;
    say(&mut client, "UPDATE leads SET id = 80 WHERE id = 61; COMMIT").await.unwrap();
    assert!(bed.noted().await > 0);
    bed.run("TRUNCATE leads_1").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.text(NEW_KEYS).await, "60,62,80");
    assert_eq!(bed.text("SELECT note FROM leads_v2 WHERE id = 80").await, "kept");
}

#[tokio::test]
async fn rows_that_are_not_copied_outlive_the_new_side() {
    let keys = [(1, 9), (60, 70)];
    for (statement, left) in [
        ("TRUNCATE leads_v2_1", "1,2,3,4,5,6,8,9,60,61,62,63,64,65,66,67,68,69,70"),
        (
            "ALTER TABLE leads_v2 DETACH PARTITION leads_v2_2; TRUNCATE leads_v2_1",
            "1,2,3,4,5,6,8,9,60,61,62,63,64,65,66,67,68,69,70",
        ),
        ("TRUNCATE leads_v2", "1,2,3,4,5,6,8,9,60,62,63,64,65,66,67,68,69,70"),
        ("TRUNCATE leads_v2_1, leads_1", "60,61,62,63,64,65,66,67,68,69,70"),
    ] {
        let Some(bed) = bed(both_leads(), Direction::Both, &keys).await else { return };
        bed.run(&chunk("id IN (7, 61)")).await;
        // Under an old snapshot nobody knows.
        for level in LEVELS {
            let mut client = bed.client().await;
            let script = format!("BEGIN ISOLATION LEVEL {level}; {statement}");
            let refused = say(&mut client, &script).await.unwrap_err();
            assert_eq!(code(&refused), "0A000", "{level} {statement}: {refused}");
        }
        bed.run(statement).await;
        assert_eq!(bed.text(OLD_KEYS).await, left, "{statement}");
    }
    let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
    bed.run(&chunk("id > 7")).await;
    bed.run("TRUNCATE leads_v2").await;
    assert_eq!(bed.text(OLD_KEYS).await, "1,2,3,4,5,6,7");
}

#[tokio::test]
async fn the_new_side_is_emptied_under_an_old_snapshot_where_all_of_it_was_copied() {
    for setup in [format!("{PARTS} {}", rows(1, 9)), TABLES.to_owned()] {
        let Some(bed) = Bed::with(&setup, both_leads(), Direction::Both).await else { return };
        let view = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM leads";
        let mut early = bed.client().await;
        say(&mut early, view).await.unwrap();
        bed.run(&chunk("true")).await;
        let refused = say(&mut early, "TRUNCATE leads_v2").await.unwrap_err();
        assert_eq!(code(&refused), "0A000", "{refused}");
        say(&mut early, "ROLLBACK").await.unwrap();
        let mut client = bed.client().await;
        say(&mut client, view).await.unwrap();
        bed.run(&rows(60, 62)).await;
        say(
            &mut client,
            "TRUNCATE leads_v2; INSERT INTO leads_v2 VALUES (5, 'r', 'refilled'); COMMIT",
        )
        .await
        .unwrap();
        assert_eq!(bed.text(OLD_KEYS).await, "5");
        assert_eq!(bed.text("SELECT status FROM leads").await, "Refilled");
    }
}

#[tokio::test]
async fn rows_that_only_a_note_brings_to_the_new_side_go_with_it() {
    let Some(bed) = bed(both_leads(), Direction::Both, &[(1, 3), (60, 62)]).await else { return };
    bed.run(&chunk("id <> 3")).await;
    let touched = format!("phasegate.touched_{}", id(&bed.mapping));
    // As clients with an old snapshot leave it: 20 was made, and 1 went to 70 and on to 71.
    bed.run(&format!(
        "BEGIN; SELECT set_config('phasegate.guard', '{}', true); INSERT INTO leads VALUES (20, 'm', 'Made');
         UPDATE leads SET id = 71 WHERE id = 1; INSERT INTO {touched} (k1, event) VALUES (20, 'END'), (1, 'LEFT'), (70, 'LEFT');
         INSERT INTO {touched} (k1, j1, event) VALUES (70, 1, 'MOVE'), (71, 70, 'MOVE'); COMMIT",
        id(&bed.mapping)
    ))
    .await;
    assert_eq!(bed.text(OLD_KEYS).await, "2,3,20,60,61,62,71");
    bed.run("TRUNCATE leads_v2").await;
    assert_eq!(bed.text(OLD_KEYS).await, "3", "what nobody copied stays");
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 0);
}

#[tokio::test]
async fn what_was_a_partition_is_emptied_for_itself() {
    for (direction, mapping) in both_ways() {
        let Some(bed) = bed(mapping, direction, &[(1, 3), (60, 62)]).await else { return };
        bed.run(&chunk("true")).await;
        bed.run("ALTER TABLE leads DETACH PARTITION leads_2; TRUNCATE leads_2").await;
        assert_eq!(bed.text(NEW_KEYS).await, "1,2,3,60,61,62", "{direction:?}");
        bed.run("ALTER TABLE leads_v2 DETACH PARTITION leads_v2_1; TRUNCATE leads_v2_1").await;
        assert_eq!(bed.text(OLD_KEYS).await, "1,2,3", "{direction:?}");
    }
}

#[tokio::test]
async fn a_partition_is_emptied_whose_rights_and_policies_are_its_own() {
    let owner = format!("owner_{}", uuid::Uuid::now_v7().simple());
    let Some(bed) = bed(both_leads(), Direction::Both, &[(1, 3), (60, 62)]).await else { return };
    bed.run(&format!(
        "CREATE ROLE {owner}; ALTER TABLE leads OWNER TO {owner}; ALTER TABLE leads_1 OWNER TO {owner}; ALTER TABLE leads_2 OWNER TO {owner};
         GRANT SELECT, INSERT, UPDATE, DELETE ON leads_v2 TO {owner}"
    ))
    .await;
    let stop = super::fixture::work("stop", crate::run::Way::Forward);
    let writer = crate::driver::DualWriter::remove;
    writer(&bed.postgres, &bed.fence, &stop, &bed.mapping, bed.direction).await.unwrap();
    let again = super::fixture::work("again", crate::run::Way::Forward);
    let writer = crate::driver::DualWriter::install;
    writer(&bed.postgres, &bed.fence, &again, &bed.mapping, bed.direction).await.unwrap();
    bed.run(&chunk("true")).await;
    bed.run("TRUNCATE leads_v2_1").await;
    assert_eq!(bed.text(OLD_KEYS).await, "60,61,62");
    bed.run(&format!(
        "ALTER TABLE leads_v2_2 ENABLE ROW LEVEL SECURITY; GRANT SELECT ON leads_v2_2 TO {owner}"
    ))
    .await;
    bed.run("TRUNCATE leads_v2_2").await;
    assert_eq!(bed.number("SELECT count(*) FROM leads").await, 0);
    bed.run(&format!("DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}")).await;
}

#[tokio::test]
async fn what_refers_to_the_old_side_is_emptied_with_it() {
    let setup = format!(
        "{TABLES} CREATE TABLE calls (lead bigint REFERENCES leads); INSERT INTO calls VALUES (1), (2);"
    );
    let Some(bed) = Bed::with(&setup, both_leads(), Direction::Both).await else { return };
    bed.run(&chunk("true")).await;
    let mut client = bed.client().await;
    for statement in
        ["TRUNCATE leads_v2", "BEGIN; LOCK TABLE leads IN ACCESS EXCLUSIVE MODE; TRUNCATE leads_v2"]
    {
        let refused = say(&mut client, statement).await.unwrap_err();
        assert_eq!(code(&refused), "23503", "{statement}: {refused}");
        let _ = say(&mut client, "ROLLBACK").await;
    }
    assert_eq!(bed.number(WRONG).await, 0);
    say(&mut client, "TRUNCATE leads_v2, leads, calls").await.unwrap();
    assert_eq!(bed.number("SELECT count(*) FROM leads").await, 0);
    say(&mut client, "INSERT INTO leads VALUES (1, 'a', 'A'); TRUNCATE leads_v2").await.unwrap();
    assert_eq!(bed.number("SELECT count(*) FROM leads").await, 0);
}

#[tokio::test]
async fn a_key_is_inserted_that_others_deleted_by_a_transaction_older_than_its_snapshot() {
    // Somebody's trigger locks the row, which leaves in it who did, or deletes it.
    let setup = format!(
        "CREATE TABLE elsewhere (id int); {TABLES}
         CREATE FUNCTION meddles() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.email = 'gone' THEN DELETE FROM leads WHERE id = NEW.id AND email = 'gone'; END IF;
           IF NEW.email = 'locked' THEN PERFORM 1 FROM leads WHERE id = NEW.id AND email = 'locked' FOR KEY SHARE;
             BEGIN PERFORM 1 FROM leads WHERE id = NEW.id AND email = 'locked' FOR UPDATE; EXCEPTION WHEN division_by_zero THEN END;
           END IF; RETURN NULL; END $$;
         CREATE TRIGGER aaa AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION meddles();"
    );
    let lock = "LOCK TABLE elsewhere IN ACCESS EXCLUSIVE MODE;";
    for (direction, mapping) in both_ways() {
        for (at, email) in ["plain", "locked", "gone"].into_iter().enumerate() {
            // Its xid, and that of a transaction within it, are older than its snapshot.
            for begin in [lock.to_owned(), format!("{lock} SAVEPOINT s; {lock}")] {
                let level = LEVELS[at % 2];
                let case = format!("{direction:?} {level}: {begin} {email}");
                let Some(bed) = Bed::with(&setup, mapping.clone(), direction).await else { return };
                bed.run(&chunk("true")).await;
                let mut client = bed.client().await;
                say(&mut client, &format!("BEGIN ISOLATION LEVEL {level}; {begin}")).await.unwrap();
                bed.run("INSERT INTO leads VALUES (902, 'dead', 'Dead')").await;
                say(&mut client, "SELECT count(*) FROM leads").await.unwrap();
                bed.run("DELETE FROM leads WHERE id = 902").await;
                let script = format!("INSERT INTO leads VALUES (902, '{email}', 'Anew'); COMMIT");
                say(&mut client, &script).await.unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(bed.settle().await, 0, "{case}");
                assert_eq!(bed.number(WRONG).await, 0, "{case}");
                let copies = "SELECT count(*) FROM leads_v2 WHERE id = 902";
                assert_eq!(bed.number(copies).await, i64::from(email != "gone"), "{case}");
                bed.database.gone().await;
            }
        }
    }
}

#[tokio::test]
async fn an_xid_in_a_row_is_ours_or_not() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    let ours = format!("phasegate.phasegate_{}_a_ours", id(&leads()));
    let mut client = bed.client().await;
    say(
        &mut client,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE leads SET other = 1 WHERE id = 1",
    )
    .await
    .unwrap();
    bed.run("UPDATE leads SET other = 1 WHERE id = 4").await;
    let later = bed.text("SELECT xmin FROM leads WHERE id = 4").await;
    let told = "DO $$ BEGIN ASSERT NOT OURS((SELECT xmin FROM leads WHERE id = 5)), 'older';
        ASSERT OURS((SELECT xmin FROM leads WHERE id = 1)), 'own';
        BEGIN UPDATE leads SET other = 2 WHERE id = 2; EXCEPTION WHEN division_by_zero THEN END;
        ASSERT OURS((SELECT xmin FROM leads WHERE id = 2)), 'within';
        FOR n IN 20..30 LOOP
            ASSERT NOT OURS(((pg_current_xact_id()::text::bigint + (1::bigint << n) + 1000) % (1::bigint << 32))::text::xid), 'later ' || n;
        END LOOP;
        ASSERT NOT OURS('2'), 'frozen';
        ASSERT NOT OURS('LATER'), 'of another one since';
        END $$";
    say(&mut client, &told.replace("OURS", &ours).replace("LATER", &later)).await.unwrap();
}

/// The server empties no table that another one refers to, even by none of its rows; and an old snapshot doesn't show which.
#[tokio::test]
async fn a_table_whose_copy_others_refer_to_is_not_emptied_under_an_old_snapshot() {
    for (direction, mapping) in both_ways() {
        let Some(bed) = Bed::with(TABLES, mapping, direction).await else { return };
        bed.run(&chunk("true")).await;
        bed.run("CREATE TABLE calls (lead bigint REFERENCES leads_v2); CREATE TABLE visits (lead bigint REFERENCES leads)").await;
        let mut client = bed.client().await;
        for (level, statement) in [
            (LEVELS[0], "TRUNCATE leads, visits"),
            (LEVELS[1], "TRUNCATE leads, visits"),
            (LEVELS[0], "TRUNCATE leads_v2, calls"),
        ] {
            if direction == Direction::Forward && statement.contains("v2") {
                continue;
            }
            let script = format!("BEGIN ISOLATION LEVEL {level}; {statement}");
            let refused = say(&mut client, &script).await.unwrap_err();
            assert_eq!(code(&refused), "0A000", "{level} {statement}: {refused}");
            assert!(refused.to_string().contains("READ COMMITTED only"), "{statement}: {refused}");
            say(&mut client, "ROLLBACK").await.unwrap();
            assert_eq!(bed.number(WRONG).await, 0, "{level} {statement}");
        }
        bed.run("TRUNCATE leads, visits").await;
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 0, "{direction:?}");
    }
}

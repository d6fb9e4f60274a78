//! Repair beside clients: what it finds wrong changes under it, one step at a time and at random; and what it may not decide.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::mapping as plain_mapping;
use super::sync_race_tests::{OURS, meet};
use super::sync_snapshot_tests::is_serialization_failure;
use super::sync_tests::{Bed, TABLES, WRONG, both_leads, chunk, id, leads, say, until_it_waits};
use crate::copy::chunk::Chunk;
use crate::driver::{Error, SyncState, Verifier as _};
use crate::run::{CopyColumns, Direction, FailureClass, Mapping, Winner};

const ALL: Chunk = Chunk { lo: None, hi: None };

const PEOPLE: &str = "
    CREATE TABLE people (id bigint PRIMARY KEY, a text, a2 text);
    INSERT INTO people SELECT n, 'A' || n FROM generate_series(1, 9) AS n;";

fn people() -> Mapping {
    Mapping {
        copy: CopyColumns::Listed,
        columns: vec![("a2".into(), "lower(a)".into())],
        reverse: vec![("a".into(), "upper(a2)".into())],
        ..plain_mapping(("people", &["id"]), ("people", &["id"]))
    }
}

/// Repairs a range as the engine does: what had to yield is tried again.
async fn repair(bed: &Bed, range: &Chunk) -> u64 {
    loop {
        match bed.postgres.repair_chunk(&bed.fence, &bed.mapping, bed.direction, range).await {
            Ok(rows) => return rows,
            Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// What is missing, extra and different.
async fn differing(bed: &Bed) -> (u64, u64, u64) {
    let found = bed.postgres.compare_chunk(&bed.mapping, bed.direction, &ALL).await.unwrap();
    assert_eq!(found.pending, 0);
    (found.missing, found.extra, found.different)
}

/// Switches the triggers of ours on a table off, or on again as they were made.
fn switch(table: &str, how: &str) -> String {
    format!(
        "DO $$ DECLARE name text; BEGIN
           FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname LIKE 'zzzz_phasegate%' LOOP
             EXECUTE format('ALTER TABLE {table} {how} TRIGGER %I', name);
           END LOOP; END $$;"
    )
}

/// Statements that no trigger follows, though nobody has altered one: a fault of ours, say.
fn unfollowed(statements: &str) -> String {
    format!(
        "BEGIN; SELECT set_config('phasegate.guard', '{}', true); {statements}; COMMIT",
        id(&leads())
    )
}

#[tokio::test]
async fn with_both_what_clients_of_the_new_shape_wrote_unfollowed_is_left_to_people() {
    let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
    bed.run(&chunk("true")).await;
    bed.run(&format!(
        "{} INSERT INTO leads_v2 (id, email, status_code) VALUES (50, 'mine', 'MiNe');
         UPDATE leads_v2 SET status_code = 'MiNe' WHERE id = 2; DELETE FROM leads_v2 WHERE id = 3; {}",
        switch("leads_v2", "DISABLE"),
        switch("leads_v2", "ENABLE ALWAYS")
    ))
    .await;
    assert_eq!(bed.state().await, SyncState::Active);
    assert_eq!(repair(&bed, &ALL).await, 0);
    assert_eq!(differing(&bed).await, (1, 1, 1));
    let mine = "SELECT string_agg(id || status_code, ' ' ORDER BY id) FROM leads_v2 WHERE id IN (2, 3, 50)";
    assert_eq!(bed.text(mine).await, "2MiNe 50MiNe");
    // Somebody decides for the new side, by writing to the other.
    bed.run(
        "INSERT INTO leads (id, email, status) VALUES (50, 'mine', 'Mine');
         UPDATE leads SET status = 'Mine' WHERE id = 2; DELETE FROM leads WHERE id = 3",
    )
    .await;
    assert_eq!(differing(&bed).await, (0, 0, 0));
    assert_eq!(bed.text(mine).await, "2MiNe 50MiNe");
}

#[tokio::test]
async fn with_both_the_old_side_decides_where_it_wins_or_nothing_of_the_new_one_was_missed() {
    let wrong = "INSERT INTO leads_v2 (id, email, status_code) VALUES (50, 'x', 'x');
        UPDATE leads_v2 SET status_code = 'bad' WHERE id = 2; DELETE FROM leads_v2 WHERE id = 3";
    let missed = "INSERT INTO leads (id, email, status) VALUES (60, 'y', 'New');
        UPDATE leads SET status = 'Won' WHERE id = 4; DELETE FROM leads WHERE id = 5";
    let off = |table: &str, statements: &str| {
        format!("{} {statements}; {}", switch(table, "DISABLE"), switch(table, "ENABLE ALWAYS"))
    };
    for (winner, script, expected) in [
        (Winner::Old, off("leads_v2", wrong), 3),
        (Winner::New, off("leads_v2", wrong), 0),
        (Winner::New, unfollowed(wrong), 3),
        (Winner::New, off("leads", missed), 3),
        (Winner::New, format!("{} {}", off("leads", missed), off("leads_v2", "SELECT 1")), 0),
    ] {
        let mapping = Mapping { winner, ..both_leads() };
        let Some(bed) = Bed::with(TABLES, mapping, Direction::Both).await else { return };
        bed.run(&chunk("true")).await;
        bed.run(&script).await;
        let before = bed.text("SELECT json_agg(leads ORDER BY id) FROM leads").await;
        assert_eq!(differing(&bed).await, (1, 1, 1), "{winner:?} {script}");
        assert_eq!(repair(&bed, &ALL).await, expected, "{winner:?} {script}");
        let left = if expected == 0 { (1, 1, 1) } else { (0, 0, 0) };
        assert_eq!(differing(&bed).await, left, "{winner:?} {script}");
        assert_eq!(bed.text("SELECT json_agg(leads ORDER BY id) FROM leads").await, before);
    }
}

#[tokio::test]
async fn in_place_what_a_client_of_the_new_shape_wrote_unfollowed_stands() {
    for (winner, expected) in [(Winner::New, "MiNe A2"), (Winner::Old, "a2 A2")] {
        let mapping = Mapping { winner, ..people() };
        let Some(bed) = Bed::with(PEOPLE, mapping, Direction::Both).await else { return };
        assert_eq!(repair(&bed, &ALL).await, 9, "nothing was missed until now");
        bed.run(&format!(
            "{} UPDATE people SET a2 = 'MiNe' WHERE id = 2; {}",
            switch("people", "DISABLE"),
            switch("people", "ENABLE ALWAYS")
        ))
        .await;
        assert_eq!(repair(&bed, &ALL).await, u64::from(winner == Winner::Old));
        assert_eq!(bed.text("SELECT a2 || ' ' || a FROM people WHERE id = 2").await, expected);
        assert_eq!(differing(&bed).await, (0, 0, u64::from(winner == Winner::New)));
    }
}

#[tokio::test]
async fn the_gate_says_what_helps_by_the_side_whose_trigger_is_off() {
    for (mapping, direction, table, words) in [
        (both_leads(), Direction::Both, "leads", "verify with repair"),
        (both_leads(), Direction::Both, "leads_v2", "repair leaves what differs"),
        (
            Mapping { winner: Winner::Old, ..both_leads() },
            Direction::Both,
            "leads_v2",
            "verify with repair",
        ),
        (leads(), Direction::Forward, "leads", "verify with repair"),
        (people(), Direction::Both, "people", "repair leaves what differs"),
        (people(), Direction::Forward, "people", "verify with repair"),
    ] {
        let setup = format!("{TABLES} {PEOPLE}");
        let Some(bed) = Bed::with(&setup, mapping, direction).await else { return };
        bed.run(&switch(table, "DISABLE")).await;
        let SyncState::Broken(why) = bed.state().await else { panic!("{table} is not followed") };
        assert!(why.contains(words), "{direction:?} {table}: {why}");
    }
}

/// What is wrong with the copy, which nobody follows.
const SPOILT: &str =
    "DELETE FROM leads_v2 WHERE id = 2; UPDATE leads_v2 SET status_code = 'bad' WHERE id = 3;
    INSERT INTO leads_v2 (id, email, status_code) VALUES (10, 'extra', 'x')";

/// What a client does to the rows under repair.
const MEANWHILE: [(&str, &str); 7] = [
    ("delete", "DELETE FROM leads WHERE id IN (2, 3)"),
    ("update", "UPDATE leads SET status = 'Late' WHERE id IN (2, 3)"),
    (
        "again",
        "DELETE FROM leads WHERE id IN (2, 3); INSERT INTO leads VALUES (2, 'again', 'Again'), (3, 'again', 'Again')",
    ),
    ("key", "UPDATE leads SET id = id + 20 WHERE id IN (2, 3)"),
    ("key of another", "DELETE FROM leads WHERE id = 2; UPDATE leads SET id = 2 WHERE id = 3"),
    ("extra", "INSERT INTO leads VALUES (10, 'mine', 'Mine')"),
    ("to extra", "UPDATE leads SET id = 10 WHERE id = 3"),
];

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// Makes rows 1 to 9 and their copies anew, and spoils these.
async fn spoil(bed: &Bed) {
    assert_eq!(bed.settle().await, 0);
    bed.run("TRUNCATE leads; INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n").await;
    assert_eq!(differing(bed).await, (0, 0, 0));
    bed.run(&unfollowed(SPOILT)).await;
    assert_eq!(differing(bed).await, (1, 1, 1));
}

#[tokio::test]
async fn a_row_changes_between_reading_that_it_is_wrong_and_putting_it_right() {
    for direction in [Direction::Forward, Direction::Both] {
        let Some(bed) = Bed::with(TABLES, both_leads(), direction).await else { return };
        for isolation in LEVELS {
            for (what, statement) in MEANWHILE {
                for end in ["COMMIT", "ROLLBACK"] {
                    spoil(&bed).await;
                    let mut client = bed.client().await;
                    let script = format!("BEGIN ISOLATION LEVEL {isolation}; {statement}");
                    say(&mut client, &script).await.unwrap();
                    // It has read the rows as they were, and waits for the client, which has not ended.
                    let (_, ended) =
                        meet(&bed, repair(&bed, &ALL), (OURS, say(&mut client, end))).await;
                    ended.unwrap();
                    let noted = bed.noted().await;
                    assert_eq!(bed.settle().await, 0);
                    let told = format!("{direction:?} {isolation} {what} {end} ({noted} noted)");
                    assert_eq!(bed.number(WRONG).await, 0, "{told}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_with_an_old_snapshot_meets_what_was_repaired() {
    for direction in [Direction::Forward, Direction::Both] {
        let Some(bed) = Bed::with(TABLES, both_leads(), direction).await else { return };
        for isolation in LEVELS {
            for (what, statement) in MEANWHILE {
                spoil(&bed).await;
                let mut client = bed.client().await;
                let begin =
                    format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM leads LIMIT 1");
                say(&mut client, &begin).await.unwrap();
                assert_eq!(repair(&bed, &ALL).await, 3);
                let said = say(&mut client, statement).await;
                let is_told = said.as_ref().is_err_and(is_serialization_failure);
                // Whoever changes a key has to see the copy, where clients of the new shape may hold on to that.
                if is_told && direction == Direction::Both && statement.contains("SET id") {
                    say(&mut client, &format!("ROLLBACK; {begin}; {statement}")).await.unwrap();
                } else {
                    said.unwrap_or_else(|e| panic!("{direction:?} {isolation} {what}: {e}"));
                }
                say(&mut client, "COMMIT").await.unwrap();
                assert_eq!(bed.settle().await, 0);
                assert_eq!(bed.number(WRONG).await, 0, "{direction:?} {isolation} {what}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_waits_for_the_row_that_is_being_repaired() {
    // Whatever of ours writes the copy waits with the row's locks held.
    let setup = format!(
        "{TABLES} CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_setting('application_name') LIKE 'phasegate%' THEN PERFORM pg_advisory_xact_lock(7); END IF;
           RETURN coalesce(NEW, OLD); END $$;
         CREATE TRIGGER wait_here BEFORE INSERT OR UPDATE OR DELETE ON leads_v2 FOR EACH ROW EXECUTE FUNCTION wait_here();"
    );
    let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
    for isolation in LEVELS {
        for (what, statement) in MEANWHILE {
            spoil(&bed).await;
            let mut gate = bed.client().await;
            say(&mut gate, "BEGIN; SELECT pg_advisory_xact_lock(7)").await.unwrap();
            let mut client = bed.client().await;
            let script = format!("BEGIN ISOLATION LEVEL {isolation}; {statement}; COMMIT");
            let others = async {
                let mut writing = tokio::spawn(async move { say(&mut client, &script).await });
                // On a slow machine we may have given way before it came.
                let early = tokio::select! {
                    done = &mut writing => Some(done),
                    () = until_it_waits(&bed, "application_name NOT LIKE 'phasegate%'") => None,
                };
                say(&mut gate, "COMMIT").await.unwrap();
                match early {
                    Some(done) => done.unwrap(),
                    None => writing.await.unwrap(),
                }
            };
            let waits = "wait_event = 'advisory' AND application_name LIKE 'phasegate%'";
            let (_, written) = meet(&bed, repair(&bed, &ALL), (waits, others)).await;
            written.unwrap_or_else(|error| panic!("{isolation} {what}: {error}"));
            assert_eq!(bed.settle().await, 0);
            assert_eq!(bed.number(WRONG).await, 0, "{isolation} {what}");
        }
    }
}

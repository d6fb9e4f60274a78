//! Rows that come to keys that others had, and those that were there before: neither has anything of the other, and what refers to
//! either stays.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::class;
use super::sync_tests::{Bed, TABLES, WRONG, both_leads, chunk, leads, say};
use crate::driver::DualWriter as _;
use crate::run::{Direction, FailureClass, Mapping};

/// Copies, each with a note of its own and a call that refers to it.
const OWN: &str =
    "UPDATE leads_v2 SET note = 'of ' || id; INSERT INTO calls SELECT id, id FROM leads_v2";
const CALLS: &str = "CREATE TABLE calls (id int PRIMARY KEY, lead bigint NOT NULL REFERENCES leads_v2 ON DELETE CASCADE ON UPDATE CASCADE);";

/// What the new side has of two rows and of those that came later.
const NOW: &str = "
    SELECT string_agg(v.id || ' ' || v.note || coalesce(' ' || c.id, ''), ', ' ORDER BY v.id, c.id)
    FROM leads_v2 v LEFT JOIN calls c ON c.lead = v.id WHERE v.id IN (2, 3) OR v.id > 9";

async fn bed(more: &str, mapping: Mapping, direction: Direction) -> Option<Bed> {
    let bed = Bed::with(&format!("{TABLES} {CALLS} {more}"), mapping, direction).await?;
    bed.run(&chunk("status <> 'Hidden'")).await;
    bed.run(OWN).await;
    Some(bed)
}

/// What a client with an old view writes in one transaction.
async fn blind(bed: &Bed, script: &str) {
    let script = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {script}; COMMIT");
    say(&mut bed.client().await, &script).await.unwrap();
}

#[tokio::test]
async fn what_one_statement_deletes_and_makes_again_is_another_row() {
    let anew = "WITH gone AS (DELETE FROM leads WHERE id = 2 RETURNING 1) INSERT INTO leads SELECT 2, 'n', 'New' FROM gone";
    let back = "CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO leads VALUES (OLD.id, ''n'', ''New''); RETURN NULL; END';
        CREATE TRIGGER back AFTER DELETE ON leads FOR EACH ROW EXECUTE FUNCTION back()";
    for (more, script) in [("", anew), (back, "DELETE FROM leads WHERE id = 2")] {
        for direction in [Direction::Forward, Direction::Both] {
            let mapping = if direction == Direction::Both { both_leads() } else { leads() };
            let Some(bed) = bed(more, mapping, direction).await else { return };
            bed.run(script).await;
            assert_eq!(bed.text(NOW).await, "2 new, 3 of 3 3", "{direction:?} {script}");
            assert_eq!(bed.number(WRONG).await, 0, "{direction:?} {script}");
            assert_eq!(bed.settle().await, 0, "{direction:?} {script}");
            assert_eq!(bed.text(NOW).await, "2 new, 3 of 3 3", "{direction:?} {script}");
        }
    }
}

#[tokio::test]
async fn a_row_that_the_filter_hides_takes_no_copy_away_that_is_to_go_elsewhere() {
    let mapping = || Mapping { filter: Some("status <> 'Hidden'".into()), ..leads() };
    for script in [
        "INSERT INTO leads VALUES (2, 'n', 'Hidden'); UPDATE leads SET email = 'm' WHERE id = 2",
        "INSERT INTO leads VALUES (2, 'n', 'Hidden'); DELETE FROM leads WHERE id = 2",
        "INSERT INTO leads VALUES (2, 'n', 'New'); UPDATE leads SET status = 'Hidden' WHERE id = 2",
    ] {
        let Some(bed) = bed("", mapping(), Direction::Forward).await else { return };
        blind(&bed, "UPDATE leads SET id = 60 WHERE id = 2").await;
        bed.run(script).await;
        assert_eq!(bed.settle().await, 0, "{script}");
        assert_eq!(bed.text(NOW).await, "3 of 3 3, 60 of 2 2", "{script}");
    }
}

/// Its view shows the row that was there neither as gone nor as noted, and the copy as the one of a row that isn't there.
#[tokio::test]
async fn a_client_who_sees_no_notes_takes_no_copy_away_that_is_to_go_elsewhere() {
    for (script, now) in [
        ("DELETE FROM leads WHERE id = 2 AND email = 'n'", "3 of 3 3, 60 of 2 2"),
        ("UPDATE leads SET id = 50 WHERE id = 2 AND email = 'n'", "3 of 3 3, 50 new, 60 of 2 2"),
        ("SELECT", "2 new, 3 of 3 3, 60 of 2 2"),
    ] {
        let Some(bed) = bed("", leads(), Direction::Forward).await else { return };
        let mut client = bed.client().await;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM leads LIMIT 1";
        say(&mut client, begin).await.unwrap();
        blind(&bed, "UPDATE leads SET id = 60 WHERE id = 2").await;
        let script = format!("INSERT INTO leads VALUES (2, 'n', 'New'); {script}; COMMIT");
        say(&mut client, &script).await.unwrap();
        assert_eq!(bed.settle().await, 0, "{script}");
        assert_eq!(bed.text(NOW).await, now, "{script}");
        assert_eq!(bed.number(WRONG).await, 0, "{script}");
    }
}

/// What refers to a copy may be other copies, which nothing notes when they go along.
#[tokio::test]
async fn what_refers_to_the_copy_of_a_row_that_is_there_never_goes_with_one_that_ended() {
    let mails =
        "CREATE TABLE mails (email text PRIMARY KEY); INSERT INTO mails SELECT email FROM leads;
        ALTER TABLE leads_v2 ADD FOREIGN KEY (email) REFERENCES mails;";
    let Some(bed) = bed(mails, leads(), Direction::Forward).await else { return };
    bed.run("INSERT INTO leads VALUES (50, 'late', 'New')").await;
    assert_eq!(bed.text(NOW).await, "2 of 2 2, 3 of 3 3");
    bed.run("INSERT INTO mails VALUES ('late')").await;
    bed.run("UPDATE leads SET status = 'Open' WHERE id = 50").await;
    bed.run("INSERT INTO calls VALUES (50, 50)").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.text(NOW).await, "2 of 2 2, 3 of 3 3, 50 new 50");
    assert_eq!(bed.number(WRONG).await, 0);
    // What came since stays, and nothing of the row that is gone.
    blind(&bed, "DELETE FROM leads WHERE id = 2; INSERT INTO leads VALUES (2, 'e2', 'New')").await;
    bed.run("INSERT INTO calls VALUES (70, 2)").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number("SELECT lead FROM calls WHERE id = 70").await, 2);
    assert_eq!(bed.text("SELECT note FROM leads_v2 WHERE id = 2").await, "new");
    assert_eq!(bed.number(WRONG).await, 0);
}

#[tokio::test]
async fn a_key_in_another_spelling_is_the_same_key() {
    let setup = "
        CREATE TABLE leads (id numeric PRIMARY KEY, email text, status text, other int);
        CREATE TABLE leads_v2 (id numeric PRIMARY KEY, email text, status_code text, note text DEFAULT 'new');
        CREATE TABLE calls (id int PRIMARY KEY, lead numeric REFERENCES leads_v2 ON DELETE CASCADE);
        INSERT INTO leads SELECT x, 'e', 'Open' FROM unnest('{2.0, 3}'::numeric[]) AS x";
    let Some(bed) = Bed::with(setup, leads(), Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    bed.run(OWN).await;
    let there_and_back = "UPDATE leads SET id = 7 WHERE id = 2; UPDATE leads SET id = 2 WHERE id = 7; UPDATE leads SET id = 80 WHERE id = 2";
    blind(&bed, there_and_back).await;
    let settled = bed.postgres.settle(&bed.fence, &bed.mapping).await;
    assert_eq!(class(settled), FailureClass::Refused);
    assert_eq!(bed.text(NOW).await, "2.0 of 2.0 2, 3 of 3 3, 80 of 2.0");
    bed.run("UPDATE calls SET lead = 80 WHERE id = 2").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.text(NOW).await, "3 of 3 3, 80 of 2.0 2");
}

//! Rows whose keys change, and what the new side alone has of them: its own columns, and rows that refer to their copies.
#![allow(clippy::unwrap_used, missing_docs)]

use super::sync_tests::{Bed, TABLES, WRONG, both_leads, chunk, leads, say};
use crate::driver::{DualWriter as _, Error};
use crate::run::{Direction, FailureClass};

/// Rows that refer to copies. Their key says what becomes of them when that one's does.
fn referring(on_update: &str) -> String {
    format!(
        "{TABLES} CREATE TABLE calls (id int PRIMARY KEY, lead bigint NOT NULL REFERENCES leads_v2 ON DELETE CASCADE {on_update});"
    )
}

/// Every row is copied, each with a note of its own and a call that refers to it.
pub(super) async fn bed(on_update: &str, direction: Direction) -> Option<Bed> {
    let mapping = if direction == Direction::Both { both_leads() } else { leads() };
    let bed = Bed::with(&referring(on_update), mapping, direction).await?;
    bed.run(&chunk("true")).await;
    bed.run(
        "UPDATE leads_v2 SET note = 'of ' || id; INSERT INTO calls SELECT id, id FROM leads_v2",
    )
    .await;
    Some(bed)
}

/// The keys of leads, each with what the new side has of them: their note and the call that refers to them.
pub(super) const NOW: &str = "
    SELECT string_agg(v.id || ' ' || v.note || coalesce(' ' || c.id, ''), ', ' ORDER BY v.id)
    FROM leads_v2 v LEFT JOIN calls c ON c.lead = v.id WHERE v.id > 1 AND v.id < 5 OR v.id > 9";

#[tokio::test]
async fn a_row_keeps_what_only_the_new_side_has_however_its_key_changes() {
    for direction in [Direction::Forward, Direction::Both] {
        for (what, script, now) in [
            (
                "alone",
                "UPDATE leads SET id = 40 WHERE id = 4",
                "2 of 2 2, 3 of 3 3, 40 of 4 4",
            ),
            (
                "each to the next one",
                "UPDATE leads SET id = id + 10 WHERE id > 4; DELETE FROM calls WHERE id = 4; DELETE FROM leads WHERE id = 4;
                 UPDATE leads SET id = id + 1 WHERE id = 3; UPDATE leads SET id = id + 1 WHERE id = 2",
                "3 of 2 2, 4 of 3 3, 15 of 5 5, 16 of 6 6, 17 of 7 7, 18 of 8 8, 19 of 9 9",
            ),
            (
                "in one statement",
                "DELETE FROM leads WHERE id > 3; CREATE TABLE kept AS SELECT * FROM leads; DELETE FROM kept;
                 UPDATE leads SET id = 10 WHERE id = 3; UPDATE leads SET id = 3 WHERE id = 2; UPDATE leads SET id = 2 WHERE id = 10;
                 UPDATE leads SET id = id + 20 WHERE id > 1",
                "22 of 3 3, 23 of 2 2",
            ),
            (
                "and another comes to its own",
                "BEGIN; UPDATE leads SET id = 40 WHERE id = 4; INSERT INTO leads VALUES (4, 'four', 'New'); COMMIT",
                "2 of 2 2, 3 of 3 3, 4 new, 40 of 4 4",
            ),
            (
                "and a trigger writes it again",
                "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN UPDATE leads SET email = email || ''!'' WHERE id = NEW.id AND email NOT LIKE ''%!''; RETURN NULL; END';
                 CREATE TRIGGER again AFTER UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION again();
                 UPDATE leads SET id = 40 WHERE id = 4",
                "2 of 2 2, 3 of 3 3, 40 of 4 4",
            ),
            (
                "and a trigger takes that back",
                "CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN UPDATE leads SET id = OLD.id WHERE id = NEW.id AND NEW.id = 40; RETURN NULL; END';
                 CREATE TRIGGER back AFTER UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION back();
                 UPDATE leads SET id = 40 WHERE id = 4",
                "2 of 2 2, 3 of 3 3, 4 of 4 4",
            ),
            (
                "and a trigger changes it further",
                "CREATE FUNCTION further() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN UPDATE leads SET id = id + 1 WHERE id = NEW.id AND NEW.id IN (40, 41); RETURN NULL; END';
                 CREATE TRIGGER further AFTER UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION further();
                 UPDATE leads SET id = 40 WHERE id = 4",
                "2 of 2 2, 3 of 3 3, 42 of 4 4",
            ),
            (
                "and a trigger has others close up",
                "CREATE FUNCTION close_up() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN UPDATE leads SET id = OLD.id WHERE id = OLD.id - 1 AND OLD.id IN (3, 4); RETURN NULL; END';
                 CREATE TRIGGER close_up AFTER UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION close_up();
                 UPDATE leads SET id = 40 WHERE id = 4",
                "3 of 2 2, 4 of 3 3, 40 of 4 4",
            ),
        ] {
            let Some(bed) = bed("ON UPDATE CASCADE", direction).await else { return };
            bed.run(script).await;
            // What comes before the row that it has to do with is followed can only be noted.
            if !what.contains("trigger") && !what.contains("another") {
                assert_eq!(bed.text(NOW).await, now, "{direction:?} {what}");
                assert_eq!(bed.number(WRONG).await, 0, "{direction:?} {what}");
            }
            assert_eq!(bed.settle().await, 0, "{direction:?} {what}");
            assert_eq!(bed.number(WRONG).await, 0, "{direction:?} {what}");
            assert_eq!(bed.text(NOW).await, now, "{direction:?} {what}");
        }
    }
}

/// A shift by one in one statement: the server checks each row at once, so the rows lie backwards.
#[tokio::test]
async fn rows_that_take_each_others_keys_in_one_statement_keep_what_is_theirs() {
    let setup = "CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text DEFAULT 'new');
        CREATE TABLE calls (id int PRIMARY KEY, lead bigint NOT NULL REFERENCES leads_v2 ON DELETE CASCADE ON UPDATE CASCADE);
        INSERT INTO leads SELECT 12 - n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n;";
    for direction in [Direction::Forward, Direction::Both] {
        let mapping = if direction == Direction::Both { both_leads() } else { leads() };
        let Some(bed) = Bed::with(setup, mapping, direction).await else { return };
        bed.run(&chunk("true")).await;
        bed.run(
            "UPDATE leads_v2 SET note = 'of ' || id; INSERT INTO calls SELECT id, id FROM leads_v2",
        )
        .await;
        bed.run("UPDATE leads SET id = id + 1 WHERE id > 9").await;
        assert_eq!(bed.text(NOW).await, "3 of 3 3, 4 of 4 4, 11 of 10 10, 12 of 11 11");
        assert_eq!(bed.number(WRONG).await, 0);
    }
}

/// Under an old view nobody sees whether a copy is there, and what refers to it.
#[tokio::test]
async fn a_key_that_changes_under_an_old_view_takes_everything_along_or_has_to_be_tried_again() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        for direction in [Direction::Forward, Direction::Both] {
            let mapping = if direction == Direction::Both { both_leads() } else { leads() };
            let setup = referring("ON UPDATE CASCADE");
            let Some(bed) = Bed::with(&setup, mapping, direction).await else { return };
            bed.run(&chunk("id <> 4")).await;
            let mut client = bed.client().await;
            let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM leads LIMIT 1");
            say(&mut client, &begin).await.unwrap();
            // One is copied behind its back, one is written by clients of the new shape, and one is not copied yet.
            bed.run(&chunk("id = 4")).await;
            bed.run("DELETE FROM leads_v2 WHERE id = 5 AND false; UPDATE leads_v2 SET note = 'of ' || id WHERE id < 5;
                     INSERT INTO calls SELECT id, id FROM leads_v2 WHERE id < 5").await;
            let script = "UPDATE leads SET id = id + 30 WHERE id IN (3, 4)";
            let done = say(&mut client, script).await;
            match (direction, done) {
                (Direction::Both, Err(error)) => {
                    let code = error.as_database_error().unwrap().code().unwrap().into_owned();
                    assert_eq!(code, "40001", "{error}");
                    say(&mut client, "ROLLBACK").await.unwrap();
                    say(&mut client, &format!("{begin}; {script}; COMMIT")).await.unwrap();
                }
                (Direction::Forward, Ok(())) => say(&mut client, "COMMIT").await.unwrap(),
                (_, done) => panic!("{isolation} {direction:?}: {done:?}"),
            }
            assert_eq!(bed.settle().await, 0);
            let now = "2 of 2 2, 33 of 3 3, 34 of 4 4";
            assert_eq!(bed.text(NOW).await, now, "{isolation} {direction:?}");
            assert_eq!(bed.number(WRONG).await, 0, "{isolation} {direction:?}");
        }
    }
}

#[tokio::test]
async fn a_row_that_is_not_copied_yet_changes_its_key_at_every_level() {
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
        let mut client = bed.client().await;
        let script = "UPDATE leads SET id = 40 WHERE id = 4";
        say(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}; {script}; COMMIT"))
            .await
            .unwrap();
        bed.run(&chunk("true")).await;
        assert_eq!(bed.settle().await, 0);
        assert_eq!(bed.number(WRONG).await, 0, "{isolation}");
    }
}

fn refused(error: Error) -> String {
    let Error::Failed(failure) = error else { panic!("{error}") };
    assert_eq!(failure.class, FailureClass::Refused);
    failure.message
}

/// What refers to a copy by its key, and would have to be changed with it, stops its row from changing it on the new side. It is
/// never taken away with the copy of the old key.
#[tokio::test]
async fn what_holds_a_copy_to_its_key_is_named_and_never_deleted() {
    for direction in [Direction::Forward, Direction::Both] {
        for (what, further, now) in [
            ("once", "", "2 of 2 2, 3 of 3 3, 40 of 4 4"),
            (
                "written again",
                "UPDATE leads SET email = 'x' WHERE id = 40",
                "2 of 2 2, 3 of 3 3, 40 of 4 4",
            ),
            ("further", "UPDATE leads SET id = 41 WHERE id = 40", "2 of 2 2, 3 of 3 3, 41 of 4 4"),
            (
                "with another in its place",
                "INSERT INTO leads VALUES (4, 'four', 'New')",
                "2 of 2 2, 3 of 3 3, 4 new, 40 of 4 4",
            ),
            (
                "with a known one in its place",
                "DELETE FROM calls WHERE lead = 3; UPDATE leads SET id = 4 WHERE id = 3",
                "2 of 2 2, 4 of 3, 40 of 4 4",
            ),
            (
                "and gone",
                "DELETE FROM leads WHERE id = 40; INSERT INTO leads VALUES (40, 'new', 'New')",
                "2 of 2 2, 3 of 3 3, 40 new",
            ),
        ] {
            let Some(bed) = bed("", direction).await else { return };
            bed.run("UPDATE leads SET id = 40 WHERE id = 4").await;
            assert!(bed.noted().await > 0, "{what}");
            if !further.is_empty() {
                bed.run(further).await;
            }
            let is_gone = what == "and gone";
            if is_gone {
                bed.run("INSERT INTO calls VALUES (40, 40)").await;
            } else {
                let settled = bed.postgres.settle(&bed.fence, &bed.mapping).await;
                let message = refused(settled.expect_err(what));
                assert!(message.contains("calls"), "{what}: {message}");
                assert_eq!(bed.text("SELECT lead FROM calls WHERE id = 4").await, "4", "{what}");
                // Somebody lets it go, and refers to it again where it is then.
                bed.run("ALTER TABLE calls ALTER lead DROP NOT NULL; UPDATE calls SET lead = NULL WHERE id = 4").await;
            }
            assert_eq!(bed.settle().await, 0, "{direction:?} {what}");
            assert_eq!(bed.number(WRONG).await, 0, "{direction:?} {what}");
            if is_gone {
                assert_eq!(bed.text("SELECT lead FROM calls WHERE id = 40").await, "40");
                assert_eq!(bed.number("SELECT count(*) FROM calls WHERE id = 4").await, 0);
                bed.run("DELETE FROM calls WHERE id = 40").await;
            } else {
                bed.run("UPDATE calls SET lead = (SELECT max(id) FROM leads_v2 WHERE note = 'of 4') WHERE id = 4").await;
            }
            assert_eq!(bed.text(NOW).await, now, "{direction:?} {what}");
        }
    }
}

/// A client whose view is older than the copies, and these with what the new side has of them.
async fn blind(setup: &str, direction: Direction) -> Option<(Bed, sqlx::postgres::PgConnection)> {
    let mapping = if direction == Direction::Both { both_leads() } else { leads() };
    let bed = Bed::with(setup, mapping, direction).await?;
    let mut client = bed.client().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM leads LIMIT 1";
    say(&mut client, begin).await.unwrap();
    bed.run(&chunk("true")).await;
    bed.run(
        "UPDATE leads_v2 SET note = 'of ' || id; INSERT INTO calls SELECT id, id FROM leads_v2",
    )
    .await;
    Some((bed, client))
}

#[tokio::test]
async fn notes_are_followed_in_the_order_in_which_things_happened() {
    for (what, script, further, now) in [
        (
            "another comes to a key that one passed by",
            "UPDATE leads SET id = 20 WHERE id = 2; UPDATE leads SET id = 30 WHERE id = 20; INSERT INTO leads VALUES (20, 'n', 'New')",
            "",
            "3 of 3 3, 4 of 4 4, 20 new, 30 of 2 2",
        ),
        (
            "by the key of one that was deleted",
            "DELETE FROM leads WHERE id = 3; UPDATE leads SET id = 3 WHERE id = 2; UPDATE leads SET id = 40 WHERE id = 3",
            "",
            "4 of 4 4, 40 of 2 2",
        ),
        (
            "deleted and made anew",
            "DELETE FROM leads WHERE id = 2; INSERT INTO leads VALUES (2, 'n', 'New')",
            "",
            "2 new, 3 of 3 3, 4 of 4 4",
        ),
        (
            "each other's keys",
            "UPDATE leads SET id = 90 WHERE id = 2; UPDATE leads SET id = 2 WHERE id = 3; UPDATE leads SET id = 3 WHERE id = 90",
            "",
            "2 of 3 3, 3 of 2 2, 4 of 4 4",
        ),
        (
            "one that came is deleted by another client",
            "UPDATE leads SET id = 60 WHERE id = 2; UPDATE leads SET id = 2 WHERE id = 3",
            "DELETE FROM leads WHERE id = 2",
            "4 of 4 4, 60 of 2 2",
        ),
        (
            "one comes from nowhere to a key that one left",
            "UPDATE leads SET id = 60 WHERE id = 2",
            "INSERT INTO leads VALUES (2, 'n', 'New')",
            "2 new, 3 of 3 3, 4 of 4 4, 60 of 2 2",
        ),
        (
            "one comes to a key that ended, and goes",
            "DELETE FROM leads WHERE id = 3",
            "UPDATE leads SET id = 3 WHERE id = 2; UPDATE leads SET id = 50 WHERE id = 3; UPDATE leads SET id = 3 WHERE id = 4",
            "3 of 4 4, 50 of 2 2",
        ),
        (
            "one is made where one was to come, and goes",
            "UPDATE leads SET id = 60 WHERE id = 2; DELETE FROM leads WHERE id = 60",
            "INSERT INTO leads VALUES (60, 'n', 'New'); UPDATE leads_v2 SET note = 'mine' WHERE id = 60; UPDATE leads SET id = 61 WHERE id = 60",
            "3 of 3 3, 4 of 4 4, 61 mine",
        ),
    ] {
        let setup = referring("ON UPDATE CASCADE");
        let Some((bed, mut client)) = blind(&setup, Direction::Forward).await else { return };
        say(&mut client, &format!("{script}; COMMIT")).await.unwrap();
        if !further.is_empty() {
            bed.run(further).await;
        }
        assert_eq!(bed.settle().await, 0, "{what}");
        assert_eq!(bed.text(NOW).await, now, "{what}");
        assert_eq!(bed.number(WRONG).await, 0, "{what}");
    }
}

/// Notes of one row are more than a batch, and the first batch would end between them.
#[tokio::test]
async fn notes_that_belong_together_are_never_split() {
    let setup = "CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text DEFAULT 'new');
        CREATE TABLE calls (id int PRIMARY KEY, lead bigint NOT NULL REFERENCES leads_v2 ON DELETE CASCADE ON UPDATE CASCADE);
        INSERT INTO leads SELECT 1201 - n, 'e' || n, 'Open' FROM generate_series(1, 1200) AS n;";
    for (script, far) in [
        ("DELETE FROM leads WHERE id = 1; UPDATE leads SET id = id + 100000", 100_000),
        ("DELETE FROM leads WHERE id = 1; UPDATE leads SET id = id + 1", 1),
    ] {
        let Some((bed, mut client)) = blind(setup, Direction::Forward).await else { return };
        say(&mut client, &format!("{script}; COMMIT")).await.unwrap();
        assert_eq!(bed.settle().await, 0, "{script}");
        let theirs = format!(
            "SELECT count(*) FROM leads_v2 v JOIN calls c ON c.lead = v.id AND c.id = v.id - {far} WHERE v.note = 'of ' || c.id"
        );
        assert_eq!(bed.number(&theirs).await, 1_199, "{script}");
        assert_eq!(bed.number(WRONG).await, 0, "{script}");
    }
}

#[tokio::test]
async fn a_move_that_was_made_up_for_is_not_made_again_where_the_new_side_refuses_a_value() {
    let setup = "CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text UNIQUE, status_code text, note text DEFAULT 'new');
        CREATE TABLE calls (id int PRIMARY KEY, lead bigint NOT NULL REFERENCES leads_v2 ON DELETE CASCADE ON UPDATE CASCADE);
        INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 6) AS n;";
    for (script, is_refused) in [
        ("UPDATE leads SET email = 'e5' WHERE id = 40", true),
        // A value is handed on from row to row while what refers to copies would go with them.
        (
            "UPDATE leads SET email = 'x6' WHERE id = 6; UPDATE leads SET email = 'e6' WHERE id = 5; UPDATE leads SET email = 'e5' WHERE id = 3",
            false,
        ),
    ] {
        let Some((bed, mut client)) = blind(setup, Direction::Forward).await else { return };
        let script = format!(
            "UPDATE leads SET id = 40 WHERE id = 4; UPDATE leads SET id = 4 WHERE id = 2; {script}; COMMIT"
        );
        say(&mut client, &script).await.unwrap();
        if is_refused {
            let settled = bed.postgres.settle(&bed.fence, &bed.mapping).await;
            assert!(refused(settled.unwrap_err()).contains("unique"), "{script}");
            bed.run("UPDATE leads SET email = 'e4' WHERE id = 40").await;
        }
        assert_eq!(bed.settle().await, 0, "{script}");
        assert_eq!(bed.text(NOW).await, "3 of 3 3, 4 of 2 2, 40 of 4 4", "{script}");
        assert_eq!(bed.number(WRONG).await, 0, "{script}");
    }
}

#[tokio::test]
async fn a_row_that_is_deleted_takes_no_copy_of_another_one_along() {
    let Some(bed) = bed("", Direction::Forward).await else { return };
    bed.run("DELETE FROM calls WHERE id <> 2").await;
    bed.run("UPDATE leads SET id = 60 WHERE id = 2; UPDATE leads SET id = 2 WHERE id = 3; DELETE FROM leads WHERE id = 2").await;
    let settled = bed.postgres.settle(&bed.fence, &bed.mapping).await;
    assert!(refused(settled.unwrap_err()).contains("calls"));
    assert_eq!(bed.text("SELECT string_agg(id || ' ' || lead, ',') FROM calls").await, "2 2");
    bed.run("UPDATE calls SET lead = 60").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.text(NOW).await, "4 of 4, 60 of 2 2");
    assert_eq!(bed.number(WRONG).await, 0);
}

/// The server gives such a key to no row that is there.
#[tokio::test]
async fn a_row_keeps_what_is_its_own_where_the_new_side_draws_keys_itself() {
    let setup = |rest: &str, referring: &str| {
        format!("CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
        CREATE TABLE leads_v2 (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text{rest}, status_code text, note text DEFAULT 'new');
        CREATE TABLE calls (id int PRIMARY KEY, lead bigint REFERENCES leads_v2 {referring});
        INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(2, 4) AS n;")
    };
    for (rest, referring, calls) in [
        ("", "ON DELETE CASCADE ON UPDATE CASCADE", "true"),
        ("", "ON UPDATE CASCADE", "true"),
        (" UNIQUE", "ON DELETE CASCADE", "false"),
    ] {
        let setup = setup(rest, referring);
        let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
        bed.run(&chunk("true").replace(") SELECT", ") OVERRIDING SYSTEM VALUE SELECT")).await;
        bed.run(&format!("UPDATE leads_v2 SET note = 'of ' || id; INSERT INTO calls SELECT id, id FROM leads_v2 WHERE {calls}")).await;
        bed.run("UPDATE leads SET id = 40 WHERE id = 4; UPDATE leads SET id = 4 WHERE id = 2")
            .await;
        assert_eq!(bed.settle().await, 0, "{rest} {referring}");
        let now = if calls == "false" {
            "3 of 3, 4 of 2, 40 of 4"
        } else {
            "3 of 3 3, 4 of 2 2, 40 of 4 4"
        };
        assert_eq!(bed.text(NOW).await, now, "{rest} {referring}");
        assert_eq!(bed.number(WRONG).await, 0, "{rest} {referring}");
    }
}

//! What notes tell, and whom they keep from going on.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use super::fixture::class;
use super::settle::none_noted;
use super::settle_sql::Seen;
use super::shape::shape;
use super::sync_keys_tests::{NOW, bed};
use super::sync_tests::{Bed, TABLES, WRONG, chunk, id, leads, say};
use crate::driver::{Error, TxKind};
use crate::run::{Direction, FailureClass, Mapping};

/// Clients with old views note many a key that is right as it is. These are in nobody's way when names change.
#[tokio::test]
async fn only_notes_of_what_is_wrong_keep_names_from_changing() {
    for direction in [Direction::Forward, Direction::Both] {
        let Some(bed) = bed("ON UPDATE CASCADE", direction).await else { return };
        let touched = format!("phasegate.touched_{}", id(&bed.mapping));
        for (what, script, is_right) in [
            ("nothing", "SELECT 1", true),
            ("a row that is right", "INSERT INTO {t} VALUES (1), (1), (2)", true),
            ("a row that is on no side", "INSERT INTO {t} VALUES (99)", true),
            ("one that is gone", "INSERT INTO {t} (k1, event) VALUES (99, 'END')", true),
            ("a copy of another row", "INSERT INTO {t} (k1, event) VALUES (7, 'END')", false),
            (
                "a copy that was made since",
                "INSERT INTO {t} (k1, event) VALUES (7, 'END'), (7, 'MADE')",
                true,
            ),
            (
                "a row that came and went back",
                "INSERT INTO {t} (k1, event, j1) VALUES (7, 'LEFT', NULL), (70, 'MOVE', 7), (70, 'LEFT', NULL), (7, 'MOVE', 70)",
                true,
            ),
            (
                "a copy that is to go to another key",
                "INSERT INTO {t} (k1, event, j1) VALUES (7, 'LEFT', NULL), (70, 'MOVE', 7)",
                false,
            ),
            (
                "a copy that is missing",
                "DELETE FROM leads_v2 WHERE id = 3; INSERT INTO {t} VALUES (3)",
                false,
            ),
            (
                "a copy of nothing",
                "INSERT INTO leads_v2 (id) VALUES (50); INSERT INTO {t} VALUES (50)",
                false,
            ),
            (
                "a copy that is stale",
                "UPDATE leads_v2 SET email = 'x' WHERE id = 4; INSERT INTO {t} VALUES (4)",
                false,
            ),
        ] {
            bed.run(&format!(
                "DELETE FROM {touched}; SET phasegate.guard = '{}'; {}",
                id(&bed.mapping),
                script.replace("{t}", &touched)
            ))
            .await;
            let seen = looked(&bed, Seen::Now).await;
            if is_right {
                seen.unwrap_or_else(|error| panic!("{direction:?} {what}: {error}"));
            } else {
                assert_eq!(class(seen), FailureClass::Contention, "{direction:?} {what}");
            }
            assert_eq!(bed.settle().await, 0);
            assert_eq!(bed.number(WRONG).await, 0, "{direction:?} {what}");
        }
    }
}

async fn looked(bed: &Bed, seen: Seen) -> Result<(), Error> {
    let mut tx = bed.postgres.connections.begin(&bed.fence, TxKind::Settle).await.unwrap();
    let shape = shape(tx.conn().unwrap(), &bed.mapping).await.unwrap();
    let looked = none_noted(&mut tx, &shape, seen).await;
    tx.roll_back().await;
    looked
}

/// What is right now may have been wrong between two writes of clients, and somebody may have a view from there.
#[tokio::test]
async fn a_view_of_what_was_wrong_keeps_names_from_changing() {
    let Some(bed) = bed("ON UPDATE CASCADE", Direction::Forward).await else { return };
    let touched = format!("phasegate.touched_{}", id(&bed.mapping));
    for (what, noted, written, is_told) in [
        (
            "a copy that was stale",
            "(k1) VALUES (4)",
            "UPDATE leads SET email = 'now' WHERE id = 4",
            true,
        ),
        ("a row that went", "(k1) VALUES (5)", "DELETE FROM leads WHERE id = 5", false),
    ] {
        let (mut between, mut behind) = (bed.client().await, bed.client().await);
        bed.run(&format!("INSERT INTO {touched} {noted}")).await;
        say(&mut between, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
        bed.run(written).await;
        looked(&bed, Seen::Now).await.unwrap();
        let seen = looked(&bed, Seen::InAllViews).await;
        assert_eq!(class(seen), FailureClass::Contention, "{what}");
        say(&mut between, "COMMIT").await.unwrap();
        let mut seen = looked(&bed, Seen::InAllViews).await;
        for _ in 0..300 {
            // Views of other tests are of the same server.
            if seen.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            seen = looked(&bed, Seen::InAllViews).await;
        }
        seen.unwrap();
        // Who came behind the last write has a view of that; a row that is gone doesn't tell when it went. As long as an older writer is
        // open, in whatever database of the server (another test's), a view seems to be as old as that.
        let mut is_fine = false;
        for _ in 0..300 {
            say(&mut behind, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
            is_fine = looked(&bed, Seen::InAllViews).await.is_ok();
            say(&mut behind, "COMMIT").await.unwrap();
            if is_fine || !is_told {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(is_fine, is_told, "{what}");
        bed.settle().await;
    }
}

/// What refers to its row by its key goes and moves with it: nothing is to be noted of that, whatever a client's view shows.
#[tokio::test]
async fn a_copy_that_the_server_takes_along_is_not_noted() {
    for goes_along in [true, false] {
        let Some(bed) = bed("ON UPDATE CASCADE", Direction::Forward).await else { return };
        if goes_along {
            bed.run("ALTER TABLE leads_v2 ADD FOREIGN KEY (id) REFERENCES leads ON DELETE CASCADE ON UPDATE CASCADE").await;
        }
        let touched = format!("SELECT count(*) FROM phasegate.touched_{}", id(&bed.mapping));
        bed.run(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; DELETE FROM leads WHERE id = 9; UPDATE leads SET id = 40 WHERE id = 4;
             UPDATE leads SET email = 'now' WHERE id = 40; COMMIT;
             BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO leads VALUES (9, 'nine', 'New'); COMMIT; DELETE FROM leads WHERE id = 9",
        )
        .await;
        assert_eq!(bed.number(&touched).await == 0, goes_along);
        if goes_along {
            assert_eq!(bed.number(WRONG).await, 0);
        }
        assert_eq!(bed.settle().await, 0);
        assert_eq!(bed.number(WRONG).await, 0);
        assert_eq!(bed.text(NOW).await, "2 of 2 2, 3 of 3 3, 40 of 4 4");
    }
}

/// What came to its key or left the mapping with its row was right in every view.
#[tokio::test]
async fn what_was_never_wrong_keeps_no_names_from_changing() {
    let Some(bed) = bed("ON UPDATE CASCADE", Direction::Forward).await else { return };
    let mut between = bed.client().await;
    say(&mut between, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    bed.run("BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE leads SET id = 40 WHERE id = 4; COMMIT")
        .await;
    assert_eq!(bed.text(&events(&bed)).await, "40 MADE");
    assert_eq!(bed.text(NOW).await, "2 of 2 2, 3 of 3 3, 40 of 4 4");
    looked(&bed, Seen::InAllViews).await.unwrap();
    // Of a key of which more is noted nobody knows.
    bed.run(&format!("INSERT INTO phasegate.touched_{} (k1) VALUES (40)", id(&bed.mapping))).await;
    let seen = looked(&bed, Seen::InAllViews).await;
    assert_eq!(class(seen), FailureClass::Contention);
    say(&mut between, "COMMIT").await.unwrap();
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.text(NOW).await, "2 of 2 2, 3 of 3 3, 40 of 4 4");

    let filtered = Mapping { filter: Some("status <> 'Gone'".into()), ..leads() };
    let Some(bed) = Bed::with(TABLES, filtered, Direction::Forward).await else { return };
    let mut between = bed.client().await;
    bed.run(&chunk("id <> 3")).await;
    say(&mut between, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM leads LIMIT 1")
        .await
        .unwrap();
    bed.run("UPDATE leads SET status = 'Gone' WHERE id = 2").await;
    assert_eq!(bed.text(&events(&bed)).await, "2 OUT");
    looked(&bed, Seen::InAllViews).await.unwrap();
    // Its view doesn't show the copy that was made since.
    bed.run(&chunk("id = 3")).await;
    say(&mut between, "UPDATE leads SET status = 'Gone' WHERE id = 3; COMMIT").await.unwrap();
    assert_eq!(bed.text(&events(&bed)).await, "2 OUT, 3");
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2 WHERE id IN (2, 3)").await, 0);
    // What a trigger writes of a row that isn't the mapping's says nothing of its copy.
    bed.run(
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN UPDATE leads SET other = coalesce(other, 0) + 1 WHERE id = NEW.id; RETURN NULL; END';
         CREATE TRIGGER again AFTER UPDATE ON leads FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION again();
         UPDATE leads SET email = 'x' WHERE id = 2",
    )
    .await;
    assert_eq!(bed.noted().await, 0);
    bed.run("UPDATE leads SET status = 'Back' WHERE id = 2").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.text("SELECT email FROM leads_v2 WHERE id = 2").await, "x");
}

/// All notes in order.
fn events(bed: &Bed) -> String {
    format!(
        "SELECT string_agg(k1 || coalesce(' ' || event, ''), ', ' ORDER BY at) FROM phasegate.touched_{}",
        id(&bed.mapping)
    )
}

/// A client whose view is older than what others note of a key takes it for a row of its own.
#[tokio::test]
async fn a_copy_that_follows_at_once_is_no_part_of_what_its_client_cannot_see() {
    let Some(bed) = bed("ON UPDATE CASCADE", Direction::Forward).await else { return };
    let mut client = bed.client().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM leads LIMIT 1";
    say(&mut client, begin).await.unwrap();
    // What its own transaction wrote is noted, wherever it goes.
    bed.run(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO leads VALUES (50, 'fifty', 'New');
         UPDATE leads SET id = 20 WHERE id = 50; UPDATE leads SET id = 21 WHERE id = 20; COMMIT",
    )
    .await;
    assert_eq!(bed.text(&events(&bed)).await, "50 LEFT, 20 MOVE, 20 LEFT, 21 MOVE");
    say(&mut client, "UPDATE leads SET id = 20 WHERE id = 3").await.unwrap();
    say(&mut client, "UPDATE leads SET id = 3 WHERE id = 2; COMMIT").await.unwrap();
    assert_eq!(
        bed.text(&events(&bed)).await,
        "50 LEFT, 20 MOVE, 20 LEFT, 21 MOVE, 20 MADE, 3 MADE"
    );
    assert_eq!(bed.text(NOW).await, "3 of 2 2, 4 of 4 4, 20 of 3 3, 50 new");
    // Who sees that has it noted behind the others.
    bed.run("UPDATE leads SET id = 22 WHERE id = 20").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number(WRONG).await, 0);
    assert_eq!(bed.text(NOW).await, "3 of 2 2, 4 of 4 4, 21 new, 22 of 3 3");
}

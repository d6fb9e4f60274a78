//! Clients of both shapes under a live sync of columns of one table.
#![allow(clippy::unwrap_used, missing_docs)]

use super::sync_tests::{Bed, mapping, reversed};
use crate::run::{Direction, Mapping, Winner};

const PEOPLE: &str = "
    CREATE TABLE people (id INTEGER PRIMARY KEY, status TEXT DEFAULT 'none', code TEXT, name TEXT, full_name TEXT, other TEXT);
    INSERT INTO people (id, status, name) VALUES (1, 'Open', 'n1'), (2, 'Won', 'n2'), (3, NULL, 'n3');";

fn people() -> Mapping {
    let columns = [("code", "coalesce(lower(status), 'unknown')"), ("full_name", "'Mx ' || name")];
    reversed(
        mapping("people", "people", &columns),
        &[("status", "code"), ("name", "substr(full_name, 4)")],
    )
}

const PERSON: &str = "id, status, code, name, full_name";

#[tokio::test]
async fn in_place_forward() {
    for recursive in ["OFF", "ON"] {
        let mut bed = Bed::live(PEOPLE, people(), Direction::Forward).await;
        bed.run(&format!("PRAGMA recursive_triggers = {recursive}")).await;
        bed.run("UPDATE people SET status = 'LOST' WHERE id = 2; INSERT INTO people (id, name) VALUES (4, 'n4')").await;
        bed.run("UPDATE people SET id = 5 WHERE id = 3").await;
        bed.expect(
            "people",
            PERSON,
            &[
                "1 'Open' NULL 'n1' NULL",
                "2 'LOST' 'lost' 'n2' 'Mx n2'",
                "4 'none' 'none' 'n4' 'Mx n4'",
                "5 NULL 'unknown' 'n3' 'Mx n3'",
            ],
        )
        .await;
        assert_eq!(bed.copy().await, 1);
        bed.expect("people WHERE id = 1", PERSON, &["1 'Open' 'open' 'n1' 'Mx n1'"]).await;
        assert_eq!(bed.copy().await, 0);
        // Forward, the target columns are not the clients'.
        bed.run("UPDATE people SET code = 'mine' WHERE id = 1").await;
        bed.expect("people WHERE id = 1", PERSON, &["1 'Open' 'open' 'n1' 'Mx n1'"]).await;
    }
}

#[tokio::test]
async fn in_place_forward_never_replaces_another_row() {
    let schema = format!("{PEOPLE} CREATE UNIQUE INDEX by_code ON people (code);");
    let mut bed = Bed::live(&schema, people(), Direction::Forward).await;
    bed.copy().await;
    for sql in [
        "UPDATE OR REPLACE people SET status = 'OPEN' WHERE id = 2",
        "REPLACE INTO people (id, status, name) VALUES (9, 'won', 'n9')",
        "UPDATE OR IGNORE people SET status = 'OPEN' WHERE id = 2",
    ] {
        assert!(bed.try_run(sql).await.is_err(), "{sql}");
    }
    bed.expect("people", "id, code", &["1 'open'", "2 'won'", "3 'unknown'"]).await;
}

#[tokio::test]
async fn in_place_both_follows_old_and_new_clients() {
    for recursive in ["OFF", "ON"] {
        let mut bed = Bed::live(PEOPLE, people(), Direction::Both).await;
        bed.run(&format!("PRAGMA recursive_triggers = {recursive}")).await;
        // An old client writes one column: only what depends on it is converted.
        bed.run("UPDATE people SET status = 'LOST' WHERE id = 1").await;
        bed.expect("people WHERE id = 1", PERSON, &["1 'LOST' 'lost' 'n1' NULL"]).await;
        // A new client writes one.
        bed.run("UPDATE people SET code = 'sold' WHERE id = 2").await;
        bed.expect("people WHERE id = 2", PERSON, &["2 'sold' 'sold' 'n2' NULL"]).await;
        // A write of neither.
        bed.run("UPDATE people SET other = 'x'").await;
        bed.expect("people WHERE id = 3", PERSON, &["3 NULL NULL 'n3' NULL"]).await;
        assert_eq!(bed.copy().await, 3);
        bed.expect(
            "people",
            PERSON,
            &[
                "1 'LOST' 'lost' 'n1' 'Mx n1'",
                "2 'sold' 'sold' 'n2' 'Mx n2'",
                "3 NULL 'unknown' 'n3' 'Mx n3'",
            ],
        )
        .await;
        // Both in one statement: the winner is the new side.
        bed.run("UPDATE people SET status = 'old', code = 'new' WHERE id = 1").await;
        // Both named, one changed: that is the one that was written.
        bed.run("UPDATE people SET status = 'Again', code = 'sold' WHERE id = 2").await;
        bed.expect(
            "people WHERE id < 3",
            "id, status, code",
            &["1 'new' 'new'", "2 'Again' 'again'"],
        )
        .await;
        bed.expect("phasegate_kept", "part", &[]).await;
    }
}

#[tokio::test]
async fn in_place_both_an_explicit_null_of_a_new_client_stands() {
    for recursive in ["OFF", "ON"] {
        let mut bed = Bed::live(PEOPLE, people(), Direction::Both).await;
        bed.run(&format!("PRAGMA recursive_triggers = {recursive}")).await;
        // The code isn't converted yet, so this changes no value; it is a write all the same.
        bed.run("UPDATE people SET code = NULL WHERE id = 1").await;
        bed.expect("people WHERE id = 1", PERSON, &["1 NULL NULL 'n1' NULL"]).await;
        bed.copy().await;
        bed.expect("people WHERE id = 1", PERSON, &["1 NULL NULL 'n1' 'Mx n1'"]).await;
        // It follows its row, and stands until an old client writes.
        bed.run("UPDATE people SET id = 8 WHERE id = 1; UPDATE people SET other = 'x'").await;
        bed.copy().await;
        bed.expect("people WHERE id = 8", PERSON, &["8 NULL NULL 'n1' 'Mx n1'"]).await;
        bed.run("UPDATE people SET status = 'Back' WHERE id = 8").await;
        bed.expect("people WHERE id = 8", PERSON, &["8 'Back' 'back' 'n1' 'Mx n1'"]).await;
        bed.run("UPDATE people SET code = NULL WHERE id = 8; DELETE FROM people WHERE id = 8")
            .await;
        bed.expect("phasegate_kept", "part", &[]).await;
    }
}

#[tokio::test]
async fn in_place_both_an_insert_belongs_to_the_side_that_differs_from_its_default() {
    let mut bed = Bed::live(PEOPLE, people(), Direction::Both).await;
    bed.run("INSERT INTO people (id, status, full_name) VALUES (11, 'Open', 'Mx A')").await;
    bed.run("INSERT INTO people (id, code, name) VALUES (12, 'won', 'B')").await;
    bed.run("INSERT INTO people (id, status, code) VALUES (13, 'Both', 'different')").await;
    bed.run("INSERT INTO people (id) VALUES (14)").await;
    bed.expect(
        "people WHERE id > 10",
        PERSON,
        &[
            "11 'Open' 'open' 'A' 'Mx A'",
            "12 'won' 'won' 'B' 'Mx B'",
            "13 'different' 'different' NULL NULL",
            "14 'none' 'none' NULL NULL",
        ],
    )
    .await;
    let mut bed =
        Bed::live(PEOPLE, Mapping { winner: Winner::Old, ..people() }, Direction::Both).await;
    bed.run("INSERT INTO people (id, status, code) VALUES (13, 'Both', 'different')").await;
    bed.expect("people WHERE id = 13", PERSON, &["13 'Both' 'both' NULL NULL"]).await;
}

#[tokio::test]
async fn in_place_both_a_key_change_converts_the_row() {
    let mut bed = Bed::live(PEOPLE, people(), Direction::Both).await;
    bed.run("UPDATE people SET id = 30 WHERE id = 3").await;
    bed.expect("people WHERE id = 30", PERSON, &["30 NULL 'unknown' 'n3' 'Mx n3'"]).await;
}

#[tokio::test]
async fn in_place_both_a_row_that_comes_into_the_filter_is_converted() {
    let mut people = people();
    people.filter = Some("other IS NOT NULL".to_owned());
    let mut bed = Bed::live(PEOPLE, people, Direction::Both).await;
    assert_eq!(bed.copy().await, 0);
    bed.run("UPDATE people SET other = 'in' WHERE id = 1").await;
    // What the client writes of the new side on its way in stands.
    bed.run("UPDATE people SET other = 'in', code = 'mine' WHERE id = 2").await;
    bed.expect(
        "people",
        PERSON,
        &["1 'Open' 'open' 'n1' 'Mx n1'", "2 'mine' 'mine' 'n2' 'Mx n2'", "3 NULL NULL 'n3' NULL"],
    )
    .await;
    assert_eq!(bed.copy().await, 0);
}

#[tokio::test]
async fn in_place_both_users_triggers_on_the_same_row() {
    for (recursive, is_first) in [("OFF", true), ("OFF", false), ("ON", true), ("ON", false)] {
        let mut bed = Bed::new(PEOPLE, people(), Direction::Both).await;
        bed.run(&format!("PRAGMA recursive_triggers = {recursive}")).await;
        let triggers = "
            CREATE TRIGGER trim AFTER UPDATE ON people WHEN NEW.status <> trim(NEW.status)
            BEGIN UPDATE people SET status = trim(status) WHERE id = NEW.id; END;
            CREATE TRIGGER count AFTER UPDATE ON people WHEN NEW.other IS NULL
            BEGIN UPDATE people SET other = 'seen' WHERE id = NEW.id; END;";
        if is_first {
            bed.run(triggers).await;
        }
        bed.install().await;
        if !is_first {
            bed.run(triggers).await;
        }
        bed.run("UPDATE people SET status = ' X ' WHERE id = 1; UPDATE people SET code = 'y' WHERE id = 2").await;
        bed.copy().await;
        bed.expect(
            "people",
            "id, status, code, full_name, other",
            &[
                "1 'X' 'x' 'Mx n1' 'seen'",
                "2 'y' 'y' 'Mx n2' 'seen'",
                "3 NULL 'unknown' 'Mx n3' 'seen'",
            ],
        )
        .await;
    }
}

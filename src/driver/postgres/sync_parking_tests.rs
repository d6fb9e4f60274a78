//! Clients' writes that the new side refuses, parked where the plan says so.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::mapping as plain_mapping;
use super::sync_tests::{Bed, id, say};
use crate::driver::{DualWriter as _, Error, Parker as _, SyncState};
use crate::run::{Direction, Mapping, OnDelete, Parking};

const TABLES: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, n text, email text);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, amount int NOT NULL CHECK (amount <> 13), size varchar(6) UNIQUE);
    INSERT INTO leads SELECT x, x::text, 'e' || x FROM generate_series(1, 9) AS x;";

const WRONG: &str = "SELECT count(*) FROM leads FULL JOIN leads_v2 USING (id)
    WHERE n IS DISTINCT FROM amount::text OR email IS DISTINCT FROM size";

fn parking(mapping: Mapping) -> Mapping {
    Mapping { parking: Parking { rows_max: Some(1_000), writes: true }, ..mapping }
}

fn leads() -> Mapping {
    parking(Mapping {
        columns: vec![("amount".into(), "n::int".into()), ("size".into(), "email".into())],
        ..plain_mapping(("leads", &["id"]), ("leads_v2", &["id"]))
    })
}

/// The copies of all rows.
fn copied() -> String {
    format!(
        "BEGIN; SELECT set_config('phasegate.guard', '{}', true);
         INSERT INTO leads_v2 SELECT id, n::int, email FROM leads ON CONFLICT DO NOTHING; COMMIT",
        id(&leads())
    )
}

/// Keys and codes of the parked rows, and what the reasons say.
async fn parked(bed: &Bed) -> Vec<(String, String)> {
    let parked = bed.postgres.parked(&bed.mapping, bed.direction, 1_000).await.unwrap();
    assert_eq!(parked.total, parked.rows.len() as u64);
    let row = |row: crate::run::ParkedRow| {
        assert!(!row.reason.is_empty() && row.reason.chars().count() <= 1_000, "{row:?}");
        (row.key[0].1.clone(), row.code.unwrap())
    };
    parked.rows.into_iter().map(row).collect()
}

async fn left(bed: &Bed) -> u64 {
    bed.postgres.retry_parked(&bed.fence, &bed.mapping, bed.direction).await.unwrap()
}

/// What clients write that can't be mirrored, whose keys and codes are parked, and what mends it.
type Refused = (&'static str, &'static [(&'static str, &'static str)], &'static str);
const REFUSED: [Refused; 9] = [
    (
        "UPDATE leads SET n = 'many' WHERE id = 3",
        &[("3", "22P02")],
        "UPDATE leads SET n = '33' WHERE id = 3",
    ),
    ("UPDATE leads SET n = NULL WHERE id = 3", &[("3", "23502")], "DELETE FROM leads WHERE id = 3"),
    (
        "UPDATE leads SET n = '13' WHERE id = 3",
        &[("3", "23514")],
        "ALTER TABLE leads_v2 DROP CONSTRAINT leads_v2_amount_check",
    ),
    (
        "UPDATE leads SET email = 'much too long' WHERE id = 3",
        &[("3", "22001")],
        "UPDATE leads SET email = 'short' WHERE id = 3",
    ),
    (
        "INSERT INTO leads VALUES (20, 'x', 'y'), (21, '21', 'z')",
        &[("20", "22P02")],
        "UPDATE leads SET n = '20' WHERE id = 20",
    ),
    (
        "UPDATE leads SET email = 'e4' WHERE id = 3",
        &[("3", "23505")],
        "UPDATE leads SET email = 'e40' WHERE id = 4",
    ),
    (
        "UPDATE leads SET id = 30, n = 'x' WHERE id = 3",
        &[("30", "22P02")],
        "UPDATE leads SET n = '30' WHERE id = 30",
    ),
    (
        "INSERT INTO leads VALUES (3, 'x', 'y') ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n",
        &[("3", "22P02")],
        "UPDATE leads SET n = '3' WHERE id = 3",
    ),
    (
        "UPDATE leads SET n = 'x' WHERE id IN (3, 4); UPDATE leads SET n = '4' WHERE id = 4",
        &[("3", "22P02")],
        "UPDATE leads SET n = '3' WHERE id = 3",
    ),
];

/// Everything as it was, on both sides.
const ANEW: &str = "ALTER TABLE leads_v2 DROP CONSTRAINT IF EXISTS leads_v2_amount_check;
    DELETE FROM leads; ALTER TABLE leads_v2 ADD CONSTRAINT leads_v2_amount_check CHECK (amount <> 13);
    INSERT INTO leads SELECT x, x::text, 'e' || x FROM generate_series(1, 9) AS x;";

/// The copy of the row that went on has followed it when the one behind it turns out to be none.
#[tokio::test]
async fn a_row_that_cannot_be_copied_comes_to_a_key_that_another_has_left() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    let mut client = bed.client().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM leads";
    say(&mut client, begin).await.unwrap();
    bed.run(&copied()).await;
    let script =
        "UPDATE leads SET id = 30 WHERE id = 3; INSERT INTO leads VALUES (3, 'x', 'y'); COMMIT";
    say(&mut client, script).await.unwrap();
    let settled = tokio::time::timeout(std::time::Duration::from_mins(1), bed.settle()).await;
    assert_eq!(settled.unwrap(), 0, "it never ends");
    assert_eq!(parked(&bed).await, [("3".to_owned(), "22P02".to_owned())]);
    bed.run("UPDATE leads SET n = '3' WHERE id = 3").await;
    assert_eq!(left(&bed).await, 0);
    assert_eq!(bed.number(WRONG).await, 0);
}

#[tokio::test]
async fn what_a_client_writes_and_the_new_side_refuses_is_parked_and_the_client_goes_on() {
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
        bed.run(&copied()).await;
        let mut client = bed.client().await;
        for (statement, expected, mend) in REFUSED {
            bed.run(ANEW).await;
            let case = format!("{level}: {statement}");
            let script = format!("BEGIN ISOLATION LEVEL {level}; {statement}; COMMIT");
            say(&mut client, &script).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            // What is unique may be noted before it is known whose it is.
            assert_eq!(bed.settle().await, 0, "{case}");
            let found = parked(&bed).await;
            let found: Vec<(&str, &str)> =
                found.iter().map(|(key, code)| (key.as_str(), code.as_str())).collect();
            assert_eq!(found, expected, "{case}");
            assert_eq!(bed.state().await, SyncState::Active, "{case}");
            assert!(left(&bed).await > 0, "{case}");
            bed.run(mend).await;
            assert_eq!(left(&bed).await, 0, "{case}");
            assert_eq!(parked(&bed).await, [], "{case}");
            assert_eq!(bed.number(WRONG).await, 0, "{case}");
        }
    }
}

#[tokio::test]
async fn a_parked_row_whose_key_changes_keeps_what_refers_to_its_copy() {
    let written = ["id = 30", "id = 30, n = 'y'"];
    for (further, is_retried_first) in written.iter().flat_map(|it| [(it, true), (it, false)]) {
        let setup = format!(
            "{TABLES} CREATE TABLE calls (lead bigint NOT NULL REFERENCES leads_v2 ON DELETE CASCADE ON UPDATE CASCADE);"
        );
        let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
        bed.run(&copied()).await;
        bed.run("INSERT INTO calls VALUES (3), (4)").await;
        bed.run("UPDATE leads SET n = 'x' WHERE id = 3").await;
        bed.run(&format!("UPDATE leads SET {further} WHERE id = 3")).await;
        bed.run("UPDATE leads SET n = '30' WHERE id = 30").await;
        if is_retried_first {
            // The copy that is to follow has the address still.
            assert_eq!(left(&bed).await, 1, "{further}");
        }
        assert_eq!(bed.settle().await, 0, "{further}");
        assert_eq!(left(&bed).await, 0, "{further}");
        assert_eq!(bed.number(WRONG).await, 0, "{further}");
        let calls = "SELECT string_agg(lead::text, ' ' ORDER BY lead) FROM calls";
        assert_eq!(bed.text(calls).await, "4 30", "{further}");
    }
}

/// That is not the row's fault, and parking it would lead nowhere.
#[tokio::test]
async fn a_copy_that_something_holds_to_its_key_is_told_and_not_parked() {
    let setup = format!("{TABLES} CREATE TABLE calls (lead bigint REFERENCES leads_v2);");
    let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
    bed.run(&copied()).await;
    bed.run("INSERT INTO calls VALUES (3); UPDATE leads SET id = 30 WHERE id = 3").await;
    let settling = bed.postgres.settle(&bed.fence, &bed.mapping);
    let settled = tokio::time::timeout(std::time::Duration::from_mins(1), settling).await;
    let Err(Error::Failed(failure)) = settled.unwrap() else { panic!("it is right") };
    assert!(
        failure.help.as_deref().unwrap().contains("refer to the key that its row has now"),
        "{failure:?}"
    );
    assert!(parked(&bed).await.is_empty());
    bed.run("UPDATE calls SET lead = NULL").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number(WRONG).await, 0);
}

#[tokio::test]
async fn a_row_that_cannot_lose_its_values_is_parked_when_it_is_deleted() {
    let mapping = Mapping { on_delete: OnDelete::Nullify, ..leads() };
    let Some(bed) = Bed::with(TABLES, mapping, Direction::Forward).await else { return };
    bed.run(&copied()).await;
    bed.run("DELETE FROM leads WHERE id = 3").await;
    assert_eq!(parked(&bed).await, [("3".to_owned(), "23502".to_owned())]);
    bed.run("ALTER TABLE leads_v2 ALTER amount DROP NOT NULL").await;
    assert_eq!(left(&bed).await, 0);
    assert_eq!(bed.text("SELECT amount || size FROM leads_v2 WHERE id = 3").await, "NULL");
}

#[tokio::test]
async fn without_it_the_client_is_told() {
    let mapping = Mapping { parking: Parking::default(), ..leads() };
    let Some(bed) = Bed::with(TABLES, mapping, Direction::Forward).await else { return };
    bed.run(&copied()).await;
    let mut client = bed.client().await;
    let refused = say(&mut client, "UPDATE leads SET n = 'many' WHERE id = 3").await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "22P02");
    // A sync that parks is another one than this.
    let parks = bed.postgres.sync_state(&leads(), bed.direction).await.unwrap();
    assert!(matches!(parks, SyncState::Broken(why) if why.contains("was changed")));
}

#[tokio::test]
async fn in_place_the_columns_stay_as_the_client_has_them() {
    let setup = "CREATE TABLE leads (id bigint PRIMARY KEY, n text, amount int, size varchar(6));
        INSERT INTO leads SELECT x, x::text, x, 'e' FROM generate_series(1, 9) AS x;";
    let mapping = parking(Mapping {
        columns: vec![("amount".into(), "n::int".into()), ("size".into(), "n".into())],
        ..plain_mapping(("leads", &["id"]), ("leads", &["id"]))
    });
    let Some(bed) = Bed::with(setup, mapping, Direction::Forward).await else { return };
    bed.run(
        "UPDATE leads SET n = 'x' WHERE id = 3; UPDATE leads SET n = '1234567' WHERE id = 4;
         INSERT INTO leads VALUES (20, 'y', 7); UPDATE leads SET n = '55' WHERE id = 5",
    )
    .await;
    let codes = ["3", "4", "20"]
        .map(str::to_owned)
        .into_iter()
        .zip(["22P02", "22001", "22P02"].map(str::to_owned));
    assert_eq!(parked(&bed).await, codes.collect::<Vec<_>>());
    let row = |id: u32| format!("SELECT n || ' ' || amount FROM leads WHERE id = {id}");
    assert_eq!(bed.text(&row(3)).await, "x 3");
    assert_eq!(bed.text(&row(20)).await, "y 7");
    assert_eq!(bed.text(&row(5)).await, "55 55");
    bed.run("UPDATE leads SET n = '3' WHERE id = 3; UPDATE leads SET n = '4' WHERE id = 4; DELETE FROM leads WHERE id = 20").await;
    assert_eq!(left(&bed).await, 0);
    let wrong = "SELECT count(*) FROM leads WHERE amount::text <> n";
    bed.run("UPDATE leads SET n = n").await;
    assert_eq!(bed.number(wrong).await, 0);
}

/// The server lets go only of rows that it can tell apart for those who subscribe.
#[tokio::test]
async fn beside_a_publication_of_all_tables_noted_and_parked_rows_are_put_right() {
    let setup = format!("{TABLES} CREATE PUBLICATION everything FOR ALL TABLES");
    let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
    let mut client = bed.client().await;
    say(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM leads")
        .await
        .unwrap();
    bed.run(&copied()).await;
    say(&mut client, "UPDATE leads SET n = '77' WHERE id = 1; COMMIT").await.unwrap();
    assert_eq!(bed.noted().await, 1);
    assert_eq!(bed.settle().await, 0);
    bed.run("UPDATE leads SET n = 'many' WHERE id = 3; UPDATE leads SET n = 'few' WHERE id = 4")
        .await;
    assert_eq!(left(&bed).await, 2);
    bed.run("UPDATE leads SET n = '33' WHERE id = 3").await;
    bed.run("ALTER TABLE leads DISABLE TRIGGER USER; UPDATE leads SET n = '44' WHERE id = 4").await;
    assert_eq!(left(&bed).await, 0);
    assert_eq!(bed.number(WRONG).await, 0);
}

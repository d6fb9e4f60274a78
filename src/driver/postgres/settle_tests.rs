//! Putting noted keys right where their copies are in each other's way, or can't be written at all.
#![allow(clippy::unwrap_used, missing_docs)]

use super::sync_tests::{Bed, WRONG, chunk, id, leads, say};
use crate::driver::{DualWriter as _, Error, Parker as _};
use crate::run::{Direction, FailureClass, Mapping, Parking};

/// Emails are one lead's only, on both sides.
const UNIQUE: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, status text, other int);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, status_code text, note text DEFAULT 'new');
    INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 1300) AS n;";

/// Brings rows of the old side about, with copies that are as rows were before: what clients did could only be noted.
async fn stale(bed: &Bed, change: &str) {
    bed.run(&chunk("true")).await;
    bed.run(&format!(
        "BEGIN; CREATE TABLE before AS SELECT * FROM leads_v2; {change};
         DELETE FROM leads_v2; INSERT INTO leads_v2 SELECT * FROM before; DELETE FROM phasegate.touched_{id};
         INSERT INTO phasegate.touched_{id} SELECT id FROM (SELECT id, email FROM leads EXCEPT SELECT id, email FROM before) AS d;
         INSERT INTO phasegate.touched_{id} SELECT id FROM before WHERE id NOT IN (SELECT id FROM leads);
         DROP TABLE before; COMMIT",
        id = id(&bed.mapping)
    ))
    .await;
    bed.run("UPDATE leads_v2 SET note = 'mine'").await;
}

/// Emails go round among the first so many leads.
fn round(leads: u32) -> String {
    format!(
        "UPDATE leads SET email = 'away ' || id WHERE id <= {leads};
         UPDATE leads SET email = 'e' || (id % {leads} + 1) WHERE id <= {leads}"
    )
}

#[tokio::test]
async fn values_that_go_round_are_put_right_however_many_they_are() {
    for (leads_in_it, references) in [
        (2, ""),
        (2, "CREATE TABLE tags (lead bigint REFERENCES leads_v2); "),
        (600, ""),
        (1_300, "CREATE TABLE tags (lead bigint REFERENCES leads_v2); "),
    ] {
        let setup = format!("{UNIQUE} {references}");
        let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
        stale(&bed, &round(leads_in_it)).await;
        if !references.is_empty() {
            bed.run("INSERT INTO tags SELECT id FROM leads_v2 WHERE id < 3").await;
        }
        assert_eq!(bed.noted().await, i64::from(leads_in_it));
        assert_eq!(bed.settle().await, 0, "{leads_in_it}");
        assert_eq!(bed.number(WRONG).await, 0, "{leads_in_it}");
        assert_eq!(bed.noted().await, 0);
        // What only the new side has of a row stays with it.
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2 WHERE note = 'mine'").await, 1_300);
    }
}

#[tokio::test]
async fn a_chain_whose_end_is_free_is_put_right_from_there() {
    // Each takes the next one's email; the last one takes one that is free, or is gone.
    let next = "UPDATE leads SET email = 'away ' || id WHERE id > 1240; UPDATE leads SET email = 'e' || (id + 1) WHERE id > 1240";
    let cascade = "CREATE TABLE tags (lead bigint REFERENCES leads_v2 ON DELETE CASCADE);";
    for (change, references) in [
        (next.replace("1240", "0"), ""),
        (format!("DELETE FROM leads WHERE id = 1300; {next}"), ""),
        (next.to_owned(), cascade),
    ] {
        let setup = format!("{UNIQUE} {references}");
        let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
        stale(&bed, &change).await;
        if !references.is_empty() {
            bed.run("INSERT INTO tags SELECT id FROM leads_v2").await;
        }
        assert_eq!(bed.settle().await, 0, "{change}");
        assert_eq!(bed.number(WRONG).await, 0, "{change}");
        let mine = "SELECT count(*) FROM leads_v2 WHERE note <> 'mine'";
        assert_eq!(bed.number(mine).await, 0, "{change}");
        if !references.is_empty() {
            assert_eq!(bed.number("SELECT count(*) FROM tags").await, 1_300);
        }
    }
}

#[tokio::test]
async fn values_that_go_round_among_rows_that_may_not_go_for_a_moment_are_named() {
    let setup =
        format!("{UNIQUE} CREATE TABLE tags (lead bigint REFERENCES leads_v2 ON DELETE CASCADE)");
    let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
    stale(&bed, &round(3)).await;
    bed.run("INSERT INTO tags SELECT id FROM leads_v2 WHERE id < 9").await;
    let settled = bed.postgres.settle(&bed.fence, &bed.mapping).await;
    let Err(Error::Failed(failure)) = settled else { panic!("{settled:?}") };
    assert_eq!((failure.class, failure.code.as_deref()), (FailureClass::Refused, Some("23505")));
    assert!(failure.message.contains("\"id\" = 1; \"id\" = 2; \"id\" = 3 of "), "{failure:?}");
    assert_eq!(bed.number("SELECT count(*) FROM tags").await, 8);
    assert_eq!(bed.noted().await, 3);
    // One of them goes out of the way by itself.
    bed.run("UPDATE leads SET email = 'elsewhere' WHERE id = 2").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number(WRONG).await, 0);
}

#[tokio::test]
async fn values_go_round_with_both_directions_and_under_partial_and_expression_indexes() {
    for (index, direction) in [
        ("ALTER TABLE leads_v2 ADD UNIQUE (email)", Direction::Both),
        (
            "CREATE UNIQUE INDEX ON leads_v2 (lower(email)) WHERE status_code <> 'gone'",
            Direction::Forward,
        ),
        ("ALTER TABLE leads_v2 ADD EXCLUDE (email WITH =)", Direction::Both),
    ] {
        let setup = format!(
            "{} {index}; ALTER TABLE leads_v2 ADD COLUMN drawn int GENERATED ALWAYS AS IDENTITY, \
             ADD COLUMN twice text GENERATED ALWAYS AS (email || email) STORED;",
            UNIQUE.replace(
                "email text NOT NULL UNIQUE, status_code",
                "email text NOT NULL, status_code"
            )
        );
        let mapping =
            Mapping { reverse: vec![("status".into(), "initcap(status_code)".into())], ..leads() };
        let Some(bed) = Bed::with(&setup, mapping, direction).await else { return };
        bed.run(&chunk("true")).await;
        let drawn = "SELECT sum(drawn * id) FROM leads_v2";
        let before = bed.text(drawn).await;
        let touched = format!("phasegate.touched_{}", id(&bed.mapping));
        bed.run(&format!(
            "BEGIN; SELECT set_config('phasegate.guard', '{0}', true); UPDATE leads SET email = 'away' || id WHERE id < 6;
             UPDATE leads SET email = 'e' || (id % 5 + 1) WHERE id < 6; COMMIT; INSERT INTO {touched} SELECT generate_series(1, 5);",
            id(&bed.mapping)
        ))
        .await;
        if direction == Direction::Forward {
            // Forward the trigger followed all the same: the copies are made as they were.
            bed.run("UPDATE leads_v2 SET email = 'away' || id WHERE id < 6; UPDATE leads_v2 SET email = 'e' || id WHERE id < 6").await;
        }
        assert_eq!(bed.number(WRONG).await, 10, "{index}");
        assert_eq!(bed.settle().await, 0, "{index}");
        assert_eq!(bed.number(WRONG).await, 0, "{index}");
        assert_eq!(bed.text(drawn).await, before, "what the server drew stays with its row");
    }
}

/// Has a client under REPEATABLE READ write a row whose copy has changed since its snapshot: that is noted before the server
/// looks at what would be written.
async fn noted_write(bed: &Bed, statement: &str) {
    let mut client = bed.client().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM leads LIMIT 1";
    say(&mut client, begin).await.unwrap();
    bed.run("UPDATE leads_v2 SET note = 'seen' WHERE id <= 9").await;
    say(&mut client, &format!("{statement}; COMMIT")).await.unwrap();
    assert!(bed.noted().await > 0, "{statement}");
}

#[tokio::test]
async fn a_noted_row_that_the_new_side_refuses_is_named_or_parked() {
    let setup = "
        CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text CHECK (status_code <> 'refused'), note text);
        INSERT INTO leads SELECT n, 'e' || n, n::text FROM generate_series(1, 20) AS n;";
    for parks in [None, Some(5), Some(1)] {
        let mapping = Mapping { parking: Parking { rows_max: parks, writes: false }, ..leads() };
        let Some(bed) = Bed::with(setup, mapping, Direction::Forward).await else { return };
        bed.run(&chunk("true")).await;
        noted_write(&bed, "UPDATE leads SET status = 'Refused' WHERE id IN (3, 7); UPDATE leads SET status = 'Fine' WHERE id IN (4, 8)").await;
        let settled = bed.postgres.settle(&bed.fence, &bed.mapping).await;
        let fine = "SELECT count(*) FROM leads_v2 WHERE status_code = 'fine'";
        assert_eq!(bed.number(fine).await, 2, "what can be put right is");
        if parks == Some(5) {
            assert_eq!(settled, Ok(0));
            assert_eq!(bed.noted().await, 0);
            let parked = bed.postgres.parked(&bed.mapping, Direction::Forward, 10).await.unwrap();
            let rows: Vec<_> = parked
                .rows
                .iter()
                .map(|row| {
                    (
                        row.key[0].1.as_str(),
                        row.code.as_deref(),
                        row.reason.contains("violates check"),
                    )
                })
                .collect();
            assert_eq!(rows, [("3", Some("23514"), true), ("7", Some("23514"), true)]);
        } else {
            let Err(Error::Failed(failure)) = settled else { panic!("{settled:?}") };
            assert_eq!(
                (failure.class, failure.code.as_deref()),
                (FailureClass::Refused, Some("23514"))
            );
            let said =
                if parks.is_some() { "more than 1 row of " } else { "\"id\" = 3; \"id\" = 7 of " };
            assert!(failure.message.contains(said), "{failure:?}");
            assert_eq!(bed.noted().await, 2, "and is noted still");
        }
        bed.run("UPDATE leads SET status = 'Mended' WHERE id IN (3, 7)").await;
        assert_eq!(bed.settle().await, 0);
        let left = bed.postgres.retry_parked(&bed.fence, &bed.mapping, Direction::Forward);
        assert_eq!(left.await, Ok(0));
        assert_eq!(bed.number(WRONG).await, 0);
    }
}

/// Rows that hand a value on which is only one's, each followed by itself.
#[tokio::test]
async fn values_and_keys_that_rows_hand_on_trouble_no_client() {
    let default = "CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text DEFAULT 'new');
        CREATE UNIQUE INDEX ON leads (email) WHERE status = 'Default'; CREATE UNIQUE INDEX ON leads_v2 (email) WHERE status_code = 'default';
        INSERT INTO leads SELECT n, 'all', CASE WHEN n = 1 THEN 'Default' ELSE 'Open' END FROM generate_series(1, 9) AS n;
        CREATE FUNCTION hand_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          UPDATE leads SET status = 'Default' WHERE id = OLD.id + 1; RETURN NULL; END $$;
        CREATE TRIGGER hand_on AFTER UPDATE ON leads FOR EACH ROW WHEN (OLD.status = 'Default' AND NEW.status <> 'Default')
          EXECUTE FUNCTION hand_on();";
    let places = "CREATE TABLE leads (id bigint PRIMARY KEY, email text UNIQUE, status text, other int);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text UNIQUE, status_code text, note text DEFAULT 'new');
        INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n;";
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for (setup, script) in [
            (default, "UPDATE leads SET status = 'Open' WHERE id = 1"),
            (places, "DELETE FROM leads WHERE id = 1; UPDATE leads SET id = id - 1 WHERE id > 1"),
            (places, "UPDATE leads SET id = -id; UPDATE leads SET id = 10 + id"),
        ] {
            let Some(bed) = Bed::with(setup, leads(), Direction::Forward).await else { return };
            bed.run(&chunk("true")).await;
            let mut client = bed.client().await;
            let said =
                say(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}; {script}; COMMIT"))
                    .await;
            said.unwrap_or_else(|error| panic!("{isolation} {script}: {error}"));
            assert_eq!(bed.settle().await, 0);
            assert_eq!(bed.number(WRONG).await, 0, "{isolation} {script}");
        }
    }
}

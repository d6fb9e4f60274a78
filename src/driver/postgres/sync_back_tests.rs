//! Clients of the new shape who change keys, or come to what is only noted, under a live sync of two tables. What the old side
//! alone has of a row stays with it, and nobody writes to a row that is another one by then.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::postgres::PgConnection;

use super::sync_tests::{Bed, TABLES, WRONG, both_leads, chunk, id, leads, say, until_it_waits};
use crate::run::Direction;

/// The keys of the old side's rows with what it alone has of them, and with what refers to them.
const OLDS: &str = "
    SELECT string_agg(l.id || ' ' || l.email || ' ' || coalesce(l.other, 0) || coalesce(' ' || c.id, ''), ', ' ORDER BY l.id)
    FROM leads l LEFT JOIN calls c ON c.lead = l.id";

/// The same of the new side's.
const NEWS: &str = "SELECT string_agg(id || ' ' || email || ' ' || note, ', ' ORDER BY id) FROM leads_v2 WHERE id < 3 OR id > 9";

/// Four rows that lie backwards on the new side, and what refers to those of the old one. `keys` is how these come about.
async fn backwards(keys: &str, further: &str) -> Option<Bed> {
    let setup = format!(
        "CREATE TABLE leads (id bigint {keys} PRIMARY KEY, email text, status text, other int);
         CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text DEFAULT 'new');
         CREATE TABLE calls (id int PRIMARY KEY, lead bigint NOT NULL REFERENCES leads ON DELETE CASCADE ON UPDATE CASCADE);
         INSERT INTO leads (id, email, status, other) OVERRIDING SYSTEM VALUE SELECT n, 'e' || n, 'Open', n FROM generate_series(1, 4) AS n;
         INSERT INTO calls SELECT id, id FROM leads; {further}"
    );
    let bed = Bed::with(&setup, both_leads(), Direction::Both).await?;
    bed.run(&chunk("true").replace("ORDER BY id", "ORDER BY id DESC")).await;
    Some(bed)
}

async fn is_refused(client: &mut PgConnection, script: &str) -> String {
    let error = say(client, script).await.expect_err(script);
    let code = error.as_database_error().unwrap().code().unwrap().into_owned();
    assert_eq!(code, "40001", "{script}: {error}");
    say(client, "ROLLBACK").await.unwrap();
    error.to_string()
}

#[tokio::test]
async fn rows_of_the_new_side_that_take_each_others_keys_in_one_statement_keep_what_the_old_one_has()
 {
    let shifted = "2 e1 1 1, 3 e2 2 2, 4 e3 3 3, 5 e4 4 4";
    let Some(bed) = backwards("", "").await else { return };
    bed.run("UPDATE leads_v2 SET id = id + 1").await;
    assert_eq!(bed.text(OLDS).await, shifted);
    assert_eq!(bed.number(WRONG).await, 0);
    // One goes for another: whose row the old side's would be, nobody knows.
    let mut client = bed.client().await;
    let before = bed.text(OLDS).await;
    let goes = "WITH d AS (DELETE FROM leads_v2 WHERE id = 3 RETURNING id) UPDATE leads_v2 u SET id = d.id FROM d WHERE u.id = 2";
    is_refused(&mut client, goes).await;
    assert_eq!(bed.text(OLDS).await, before);
    bed.run("DELETE FROM leads_v2 WHERE id = 3; UPDATE leads_v2 SET id = 3 WHERE id = 2").await;
    assert_eq!(bed.text(OLDS).await, "3 e1 1 1, 4 e3 3 3, 5 e4 4 4");
    assert_eq!(bed.number(WRONG).await, 0);
    // A trigger puts a row of the very same content where one was, before that is followed.
    let again = "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
           INSERT INTO leads_v2 VALUES (OLD.id, OLD.email, OLD.status_code); RETURN NULL; END';
         CREATE TRIGGER again AFTER UPDATE OF id ON leads_v2 FOR EACH ROW EXECUTE FUNCTION again();";
    let Some(bed) = backwards("", again).await else { return };
    bed.run("UPDATE leads_v2 SET id = 9 WHERE id = 4").await;
    assert_eq!(bed.text(OLDS).await, "1 e1 1 1, 2 e2 2 2, 3 e3 3 3, 4 e4 0, 9 e4 4 4");
    assert_eq!(bed.number(WRONG).await, 0);
    // The server draws the old side's keys alone, so that its rows can't follow.
    let Some(bed) = backwards("GENERATED ALWAYS AS IDENTITY", "").await else { return };
    let mut client = bed.client().await;
    is_refused(&mut client, "UPDATE leads_v2 SET id = id + 1").await;
    assert_eq!(bed.text(OLDS).await, "1 e1 1 1, 2 e2 2 2, 3 e3 3 3, 4 e4 4 4");
}

/// All rows are copied, each with a note of its own.
async fn copied(direction: Direction) -> Option<Bed> {
    let mapping = if direction == Direction::Both { both_leads() } else { leads() };
    let bed = Bed::with(TABLES, mapping, direction).await?;
    bed.run(&chunk("true")).await;
    bed.run(&format!(
        "SELECT set_config('phasegate.guard', '{}', true); UPDATE leads_v2 SET note = 'of ' || id;
         CREATE TABLE calls (lead bigint NOT NULL REFERENCES leads_v2)",
        id(&bed.mapping)
    ))
    .await;
    Some(bed)
}

const KEYS: &str = "SELECT string_agg(id::text, ',' ORDER BY id) FROM leads";

#[tokio::test]
async fn a_copy_whose_row_has_another_key_by_now_is_nobodys_until_it_follows() {
    let Some(bed) = copied(Direction::Both).await else { return };
    bed.run("INSERT INTO calls VALUES (1); UPDATE leads SET id = 20 WHERE id = 1").await;
    assert!(bed.noted().await > 0);
    let mut client = bed.client().await;
    for another in [None, Some("UPDATE leads SET id = 1 WHERE id = 2")] {
        if let Some(another) = another {
            bed.run(another).await;
        }
        let before = bed.text(KEYS).await;
        for script in [
            "DELETE FROM calls; DELETE FROM leads_v2 WHERE id = 1",
            "DELETE FROM calls; UPDATE leads_v2 SET id = 50 WHERE id = 1",
            "UPDATE leads_v2 SET email = 'mine' WHERE id = 1",
            "INSERT INTO leads_v2 VALUES (1, 'mine', 'x') ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email",
            "INSERT INTO leads_v2 VALUES (20, 'mine', 'x')",
            "INSERT INTO leads_v2 VALUES (20, 'e1', 'open')",
            "UPDATE leads_v2 SET id = 20 WHERE id = 3",
        ] {
            is_refused(&mut client, script).await;
        }
        assert_eq!(bed.text(KEYS).await, before);
    }
    bed.run("DELETE FROM calls").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number(WRONG).await, 0);
    assert_eq!(bed.text(NEWS).await, "1 e2 of 2, 20 e1 of 1");
    bed.run("DELETE FROM leads_v2 WHERE id = 20; UPDATE leads_v2 SET id = 50 WHERE id = 1").await;
    assert_eq!(bed.text(KEYS).await, "3,4,5,6,7,8,9,50");
}

#[tokio::test]
async fn a_copy_whose_row_is_gone_comes_back_for_nobody() {
    let Some(bed) = copied(Direction::Both).await else { return };
    let mut client = bed.client().await;
    say(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM leads LIMIT 1")
        .await
        .unwrap();
    // One is only noted since its copy was written meanwhile, the other since something refers to it.
    bed.run("UPDATE leads_v2 SET note = 'x' WHERE id IN (1, 3); INSERT INTO calls VALUES (2)")
        .await;
    say(&mut client, "DELETE FROM leads WHERE id IN (1, 3); COMMIT").await.unwrap();
    bed.run("DELETE FROM leads WHERE id = 2").await;
    for gone in ["1", "2"] {
        for script in [
            "DELETE FROM calls; UPDATE leads_v2 SET id = 50 WHERE id = {k}",
            "UPDATE leads_v2 SET email = 'mine' WHERE id = {k}",
            "INSERT INTO leads_v2 VALUES ({k}, 'mine', 'x') ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email",
            "DELETE FROM calls; DELETE FROM leads_v2 WHERE id = {k}; INSERT INTO leads_v2 VALUES ({k}, 'mine', 'x')",
            "DELETE FROM calls; DELETE FROM leads_v2 WHERE id = {k}; UPDATE leads_v2 SET id = {k} WHERE id = 9",
        ] {
            is_refused(&mut client, &script.replace("{k}", gone)).await;
        }
    }
    // That it is to go everybody agrees.
    bed.run("DELETE FROM leads_v2 WHERE id = 3; DELETE FROM calls").await;
    assert_eq!(bed.text(KEYS).await, "4,5,6,7,8,9");
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number(WRONG).await, 0);
    bed.run("INSERT INTO leads_v2 VALUES (1, 'mine', 'x')").await;
    assert_eq!(bed.text(KEYS).await, "1,4,5,6,7,8,9");
}

/// The client of the new shape waits for the one of the old shape, whose note it couldn't see before.
#[tokio::test]
async fn what_is_noted_meanwhile_is_seen_behind_the_lock() {
    for (noted, script) in [
        (
            "UPDATE leads SET id = 20 WHERE id = 1",
            "UPDATE leads_v2 SET email = 'mine' WHERE id = 1",
        ),
        (
            "UPDATE leads SET id = 20 WHERE id = 1",
            "DELETE FROM calls; DELETE FROM leads_v2 WHERE id = 1",
        ),
        ("DELETE FROM leads WHERE id = 1", "UPDATE leads_v2 SET email = 'mine' WHERE id = 1"),
    ] {
        let Some(bed) = copied(Direction::Both).await else { return };
        bed.run("INSERT INTO calls VALUES (1)").await;
        let mut old = bed.client().await;
        say(&mut old, &format!("BEGIN; {noted}")).await.unwrap();
        let mut new = bed.client().await;
        let writing = is_refused(&mut new, script);
        let done = async {
            until_it_waits(&bed, "query LIKE '%leads_v2%'").await;
            say(&mut old, "COMMIT").await.unwrap();
        };
        let ((), _) = tokio::join!(done, writing);
    }
}

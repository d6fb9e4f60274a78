//! Clients of both shapes under a live sync of two tables.
#![allow(clippy::unwrap_used, missing_docs)]

use super::sync_tests::{Bed, TABLES, both_leads, chunk, meet_with, say, until_it_waits};
use crate::driver::DualWriter as _;
use crate::run::{Direction, FailureClass, Mapping, OnDelete, Way};

/// Rows for which neither new = f(old) nor old = g(new), part by part.
const WRONG: &str = "
    SELECT count(*) FROM leads FULL JOIN leads_v2 USING (id)
    WHERE leads.ctid IS NULL OR leads_v2.ctid IS NULL OR leads.email IS DISTINCT FROM leads_v2.email
       OR (lower(status) IS DISTINCT FROM status_code AND status IS DISTINCT FROM initcap(status_code))";

async fn bed() -> Option<Bed> {
    let bed = Bed::with(TABLES, both_leads(), Direction::Both).await?;
    bed.run(&chunk("true")).await;
    assert_eq!(bed.number(WRONG).await, 0);
    Some(bed)
}

fn old(id: u32) -> String {
    format!("SELECT email || ' ' || status FROM leads WHERE id = {id}")
}

fn new(id: u32) -> String {
    format!("SELECT email || ' ' || status_code FROM leads_v2 WHERE id = {id}")
}

#[tokio::test]
async fn writes_of_either_side_are_on_the_other_and_none_comes_back() {
    let Some(bed) = bed().await else { return };
    for (script, id, olds, news) in [
        ("UPDATE leads SET status = 'WON' WHERE id = 1", 1, "e1 WON", "e1 won"),
        ("UPDATE leads SET email = 'E1' WHERE id = 1", 1, "E1 WON", "E1 won"),
        ("UPDATE leads_v2 SET status_code = 'wOn' WHERE id = 1", 1, "E1 Won", "E1 wOn"),
        ("UPDATE leads SET email = 'e1' WHERE id = 1", 1, "e1 Won", "e1 wOn"),
        ("UPDATE leads_v2 SET note = 'n' WHERE id = 1", 1, "e1 Won", "e1 wOn"),
        ("UPDATE leads SET other = 1 WHERE id = 1", 1, "e1 Won", "e1 wOn"),
        ("INSERT INTO leads_v2 VALUES (10, 'ten', 'lost')", 10, "ten Lost", "ten lost"),
        ("UPDATE leads_v2 SET id = 11 WHERE id = 10", 11, "ten Lost", "ten lost"),
        ("DELETE FROM leads WHERE id = 11", 11, "NULL", "NULL"),
        ("DELETE FROM leads_v2 WHERE id = 2", 2, "NULL", "NULL"),
        (
            "INSERT INTO leads_v2 VALUES (3, 'up', 'sert') ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email",
            3,
            "up Open",
            "up open",
        ),
        (
            "WITH a AS (UPDATE leads SET email = 'a' WHERE id = 4) UPDATE leads_v2 SET status_code = 'b' WHERE id = 5",
            4,
            "a Open",
            "a open",
        ),
    ] {
        bed.run(script).await;
        assert_eq!(bed.text(&old(id)).await, olds, "{script}");
        assert_eq!(bed.text(&new(id)).await, news, "{script}");
        assert_eq!(bed.number(WRONG).await, 0, "{script}");
    }
    bed.run("TRUNCATE leads_v2").await;
    assert_eq!(bed.number("SELECT count(*) FROM leads").await, 0);
    bed.run(
        "INSERT INTO leads VALUES (1); INSERT INTO leads_v2 VALUES (2); TRUNCATE leads, leads_v2",
    )
    .await;
    bed.run("INSERT INTO leads VALUES (1); INSERT INTO leads_v2 VALUES (2); TRUNCATE leads").await;
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 0);
}

#[tokio::test]
async fn what_users_triggers_write_is_followed() {
    for name in ["aaa", "zzzzz"] {
        let Some(bed) = bed().await else { return };
        bed.run(&format!(
            "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.status = 'Twice' THEN UPDATE leads SET status = 'Thrice' WHERE id = NEW.id; END IF; RETURN NULL; END $$;
             CREATE FUNCTION answer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.status_code = 'ask' THEN UPDATE leads_v2 SET status_code = 'answer' WHERE id = NEW.id; END IF; RETURN NULL; END $$;
             CREATE FUNCTION across() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.status_code = 'across' THEN UPDATE leads SET email = 'crossed' WHERE id = NEW.id + 1; END IF; RETURN NULL; END $$;
             CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.email = 'change' THEN NEW.email := 'changed'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER {name}1 AFTER INSERT OR UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION again();
             CREATE TRIGGER {name}2 AFTER INSERT OR UPDATE ON leads_v2 FOR EACH ROW EXECUTE FUNCTION answer();
             CREATE TRIGGER {name}3 AFTER INSERT OR UPDATE ON leads_v2 FOR EACH ROW EXECUTE FUNCTION across();
             CREATE TRIGGER {name}4 BEFORE INSERT OR UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION change();"
        ))
        .await;
        for (script, id, olds, news) in [
            ("UPDATE leads SET status = 'Twice' WHERE id = 1", 1, "e1 Thrice", "e1 thrice"),
            ("UPDATE leads SET status = 'Ask' WHERE id = 2", 2, "e2 Answer", "e2 answer"),
            ("INSERT INTO leads_v2 VALUES (20, 'x', 'ask')", 20, "x Answer", "x answer"),
            ("UPDATE leads SET status = 'Across' WHERE id = 3", 4, "crossed Open", "crossed open"),
            ("UPDATE leads SET email = 'change' WHERE id = 5", 5, "changed Open", "changed open"),
            ("UPDATE leads_v2 SET status_code = 'twice' WHERE id = 6", 6, "e6 Thrice", "e6 thrice"),
        ] {
            bed.run(script).await;
            assert_eq!(bed.text(&old(id)).await, olds, "{name}: {script}");
            assert_eq!(bed.text(&new(id)).await, news, "{name}: {script}");
            assert_eq!(bed.number(WRONG).await, 0, "{name}: {script}");
        }
    }
}

#[tokio::test]
async fn clients_of_both_shapes_meet_on_one_row() {
    let Some(bed) = bed().await else { return };
    let mut first = bed.client().await;
    say(&mut first, "BEGIN; UPDATE leads SET email = 'first' WHERE id = 5").await.unwrap();
    let second = "UPDATE leads_v2 SET status_code = 'second' WHERE id = 5";
    meet_with(&bed, &mut first, second, "READ COMMITTED").await.unwrap();
    assert_eq!(bed.text(&old(5)).await, "first Second");
    assert_eq!(bed.text(&new(5)).await, "first second");
    let mut first = bed.client().await;
    say(&mut first, "BEGIN; UPDATE leads_v2 SET email = 'newer' WHERE id = 6").await.unwrap();
    let second = "UPDATE leads SET status = 'Older' WHERE id = 6";
    meet_with(&bed, &mut first, second, "READ COMMITTED").await.unwrap();
    assert_eq!(bed.text(&old(6)).await, "newer Older");
    assert_eq!(bed.text(&new(6)).await, "newer older");
}

#[tokio::test]
async fn an_old_snapshot_on_the_old_side_is_settled_and_new_writes_stay() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
        let mut client = bed.client().await;
        say(
            &mut client,
            &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM leads LIMIT 1"),
        )
        .await
        .unwrap();
        bed.run(&chunk("true")).await;
        bed.run("UPDATE leads_v2 SET status_code = 'wOn' WHERE id = 7").await;
        say(
            &mut client,
            "UPDATE leads SET email = 'late' WHERE id = 5; DELETE FROM leads WHERE id = 6; COMMIT",
        )
        .await
        .unwrap();
        assert_eq!(bed.settle().await, 0);
        assert_eq!(bed.number(WRONG).await, 0, "{isolation}");
        assert_eq!(bed.text(&new(7)).await, "e7 wOn");
        assert_eq!(bed.text(&new(5)).await, "late open");
    }
}

#[tokio::test]
async fn a_write_of_the_new_side_never_vanishes_behind_the_filter() {
    let mapping = Mapping { filter: Some("status <> 'Gone'".into()), ..both_leads() };
    let Some(bed) = Bed::with(TABLES, mapping, Direction::Both).await else { return };
    bed.run(&chunk("status <> 'Gone'")).await;
    let mut client = bed.client().await;
    for script in [
        "UPDATE leads_v2 SET status_code = 'gone' WHERE id = 1",
        "INSERT INTO leads_v2 VALUES (30, 'x', 'gone')",
    ] {
        let error = say(&mut client, script).await.unwrap_err();
        assert!(error.to_string().contains("outside the mapping's filter"), "{error}");
    }
    bed.run("UPDATE leads SET status = 'Gone' WHERE id = 2; INSERT INTO leads VALUES (31, 'o', 'Gone'); TRUNCATE leads_v2").await;
    assert_eq!(
        bed.number("SELECT count(*) FROM leads").await,
        2,
        "what the filter leaves out stays"
    );
}

#[tokio::test]
async fn both_ways_are_refused_where_one_would_lose_something() {
    let Some(bed) = bed().await else { return };
    for mapping in [
        Mapping { reverse: vec![], ..both_leads() },
        Mapping { on_delete: OnDelete::Ignore, ..both_leads() },
        Mapping { reverse: vec![("status".into(), "initcap(nothing)".into())], ..both_leads() },
    ] {
        let step = super::fixture::work("other", Way::Forward);
        let refused = bed.postgres.install(&bed.fence, &step, &mapping, Direction::Both).await;
        let class = super::fixture::class(refused);
        assert!(matches!(class, FailureClass::Unsafe | FailureClass::Refused), "{class:?}");
    }
}

#[tokio::test]
async fn removing_yields_to_a_client_that_comes_the_other_way() {
    let Some(bed) = bed().await else { return };
    let mut client = bed.client().await;
    say(&mut client, "BEGIN; SELECT 1 FROM leads_v2 LIMIT 1").await.unwrap();
    let stop = super::fixture::work("stop", Way::Forward);
    let removing = bed.postgres.remove(&bed.fence, &stop, &bed.mapping, bed.direction);
    let writing = async {
        until_it_waits(&bed, "query LIKE '%LOCK TABLE%leads_v2%EXCLUSIVE%'").await;
        say(&mut client, "UPDATE leads SET status = 'Through' WHERE id = 1; COMMIT").await
    };
    let (removed, written) = tokio::join!(removing, writing);
    written.unwrap();
    // It tries again as soon as the client is through, whose write was still followed.
    if removed.is_err() {
        assert_eq!(super::fixture::class(removed), FailureClass::Contention);
    }
    assert_eq!(bed.text(&new(1)).await, "e1 through");
}

#[tokio::test]
async fn both_tables_draw_their_keys_from_one_sequence_while_it_lasts() {
    for (kind, was) in [
        ("bigint GENERATED ALWAYS AS IDENTITY", "a"),
        ("bigint GENERATED BY DEFAULT AS IDENTITY", "d"),
        ("bigserial", ""),
    ] {
        let setup = format!(
            "CREATE TABLE leads (id {kind} PRIMARY KEY, email text, status text, other int);
             CREATE TABLE leads_v2 (id {kind} PRIMARY KEY, email text, status_code text, note text);
             INSERT INTO leads (email, status) SELECT 'e' || n, 'Open' FROM generate_series(1, 9) AS n;"
        );
        let Some(bed) = Bed::with(&setup, both_leads(), Direction::Both).await else { return };
        // Not copied yet: a sequence of its own would give the client the key of another row.
        bed.run("INSERT INTO leads_v2 (email, status_code) VALUES ('new', 'new')").await;
        assert_eq!(bed.text("SELECT email FROM leads WHERE id = 1").await, "e1", "{kind}");
        assert_eq!(bed.text("SELECT id FROM leads WHERE email = 'new'").await, "10", "{kind}");
        bed.run("INSERT INTO leads (email) VALUES ('old'); INSERT INTO leads_v2 (email) VALUES ('new2')").await;
        assert_eq!(bed.text("SELECT id FROM leads WHERE email = 'new2'").await, "12", "{kind}");
        bed.run("UPDATE leads SET status = 'Set' WHERE id > 9; UPDATE leads_v2 SET status_code = 'x' WHERE id > 9").await;
        let stop = super::fixture::work("stop", Way::Forward);
        bed.postgres.remove(&bed.fence, &stop, &bed.mapping, bed.direction).await.unwrap();
        let identity = "SELECT attidentity FROM pg_attribute WHERE attrelid = 'leads_v2'::regclass AND attname = 'id'";
        assert_eq!(bed.text(identity).await, was, "{kind}");
        bed.run("INSERT INTO leads_v2 (email) VALUES ('alone')").await;
        assert_eq!(bed.text("SELECT id FROM leads_v2 WHERE email = 'alone'").await, "13", "{kind}");
        assert_eq!(
            bed.number("SELECT count(*) FROM pg_class WHERE relname LIKE 'drawn%'").await,
            0
        );
    }
}

/// What a statement doesn't change of a row may be another client's, who is followed after it or could only note it.
#[tokio::test]
async fn a_client_writes_only_what_it_changed() {
    let user = "CREATE FUNCTION hand_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF TG_TABLE_NAME = 'leads' THEN UPDATE leads_v2 SET status_code = 'handed' WHERE id = NEW.id AND status_code <> 'handed';
          ELSE UPDATE leads SET status = 'Handed' WHERE id = NEW.id AND status <> 'Handed'; END IF; RETURN NULL; END $$;";
    let fires = |table: &str, column: &str| {
        format!(
            "{user} CREATE TRIGGER hand_on AFTER UPDATE OF {column} ON {table} FOR EACH ROW EXECUTE FUNCTION hand_on();"
        )
    };
    for (what, setup, script, olds, news) in [
        (
            "a trigger of the old side writes the new one",
            fires("leads", "email"),
            "UPDATE leads SET email = 'mine' WHERE id = 1",
            "mine Handed",
            "mine handed",
        ),
        (
            "a trigger of the new side writes the old one",
            fires("leads_v2", "email"),
            "UPDATE leads_v2 SET email = 'mine' WHERE id = 1",
            "mine Handed",
            "mine handed",
        ),
        (
            "one statement writes both",
            String::new(),
            "WITH q AS (UPDATE leads SET email = 'mine' WHERE id = 1) UPDATE leads_v2 SET status_code = 'theirs' WHERE id = 1",
            "mine Theirs",
            "mine theirs",
        ),
        (
            "one statement writes both the other way",
            String::new(),
            "WITH q AS (UPDATE leads_v2 SET email = 'mine' WHERE id = 1) UPDATE leads SET status = 'Theirs' WHERE id = 1",
            "mine Theirs",
            "mine theirs",
        ),
    ] {
        let Some(bed) = bed().await else { return };
        if !setup.is_empty() {
            bed.run(&setup).await;
        }
        bed.run(script).await;
        assert_eq!(bed.settle().await, 0, "{what}");
        assert_eq!(bed.text(&old(1)).await, olds, "{what}");
        assert_eq!(bed.text(&new(1)).await, news, "{what}");
    }
}

/// What a client of the old shape did could only be noted; one of the new shape comes to the copy meanwhile.
#[tokio::test]
async fn a_copy_that_is_behind_takes_nothing_back() {
    let Some(bed) = bed().await else { return };
    let mut client = bed.client().await;
    say(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM leads LIMIT 1")
        .await
        .unwrap();
    bed.run("UPDATE leads_v2 SET note = 'x' WHERE id IN (1, 2)").await;
    say(
        &mut client,
        "UPDATE leads SET email = 'mine' WHERE id = 1; DELETE FROM leads WHERE id = 2; COMMIT",
    )
    .await
    .unwrap();
    assert!(bed.noted().await > 0);
    bed.run("UPDATE leads_v2 SET status_code = 'theirs' WHERE id = 1").await;
    // The row of this one is gone: the write would be to nobody's.
    let gone = "UPDATE leads_v2 SET status_code = 'theirs' WHERE id = 2";
    let error = say(&mut client, gone).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40001", "{error}");
    assert_eq!(bed.settle().await, 0);
    bed.run(gone).await;
    assert_eq!(bed.text(&old(1)).await, "mine Theirs");
    assert_eq!(bed.text(&new(1)).await, "mine theirs");
    assert_eq!(bed.text(&old(2)).await, "NULL");
    assert_eq!(bed.text(&new(2)).await, "NULL");
}

#[tokio::test]
async fn a_row_of_the_new_side_takes_no_other_ones_key() {
    let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
    bed.run("INSERT INTO leads_v2 VALUES (20, 'twenty', 'new')").await;
    let mut client = bed.client().await;
    for script in [
        "INSERT INTO leads_v2 VALUES (5, 'five', 'new')",
        "INSERT INTO leads_v2 VALUES (5, 'five', 'new') ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email",
        "UPDATE leads_v2 SET id = 5 WHERE id = 20",
    ] {
        let error = say(&mut client, script).await.unwrap_err();
        assert_eq!(
            error.as_database_error().unwrap().code().unwrap(),
            "40001",
            "{script}: {error}"
        );
        assert!(error.to_string().contains("not copied yet"), "{script}: {error}");
    }
    assert_eq!(bed.text(&old(5)).await, "e5 Open");
    assert_eq!(bed.text(&old(20)).await, "twenty New");
    bed.run(&chunk("true")).await;
    assert_eq!(bed.number(WRONG).await, 0);
    bed.run("INSERT INTO leads_v2 VALUES (5, 'five', 'new') ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email").await;
    assert_eq!(bed.text(&old(5)).await, "five Open");
}

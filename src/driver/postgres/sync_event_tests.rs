//! What clients' statements can do to a row, beside plain writes, under a live sync of two tables.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::postgres::PgDatabaseError;

use super::sync_tests::{
    Bed, TABLES, WRONG, WRONG_COPIES, both_leads, chunk, id, leads, say, until_it_waits,
};
use crate::copy::chunk::Chunk;
use crate::driver::{DualWriter as _, Error, SyncState, Verifier as _};
use crate::run::{Direction, FailureClass, Mapping, OnDelete, Way};

fn code(error: &sqlx::Error) -> String {
    let given = error.as_database_error().unwrap().downcast_ref::<PgDatabaseError>();
    given.code().to_owned()
}

/// What says that the copies of rows are the very same as before: none was written.
const COPIES: &str = "SELECT string_agg(ctid::text || xmin::text, ',' ORDER BY id) FROM leads_v2";

#[tokio::test]
async fn what_the_mapping_does_not_read_writes_no_copy() {
    let fresh = "CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int, doc json, n numeric);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, doc json, n numeric, note text);
        INSERT INTO leads SELECT n, 'e' || n, 'Open', 0, '{}', 1.0 FROM generate_series(1, 9) AS n;";
    let copy = "INSERT INTO leads_v2 SELECT id, email, lower(status), doc, n FROM leads";
    for direction in [Direction::Forward, Direction::Both] {
        let Some(bed) = Bed::with(fresh, both_leads(), direction).await else { return };
        // A row that isn't copied yet stays so: the copy will bring it.
        bed.run("UPDATE leads SET other = 1 WHERE id = 1").await;
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 0);
        bed.run(&format!(
            "BEGIN; SELECT set_config('phasegate.guard', '{}', true); {copy}; COMMIT",
            id(&leads())
        ))
        .await;
        let before = bed.text(COPIES).await;
        bed.run("UPDATE leads SET other = 2; UPDATE leads SET email = email, doc = '{}', n = 1.0")
            .await;
        assert_eq!(bed.text(COPIES).await, before, "{direction:?}");
        // What is equal and not the same is written.
        bed.run(
            "UPDATE leads SET n = 1.00 WHERE id = 1; UPDATE leads SET doc = '{ }' WHERE id = 2",
        )
        .await;
        let row = |id: u32| format!("SELECT doc::text || n::text FROM leads_v2 WHERE id = {id}");
        assert_eq!(bed.text(&row(1)).await, "{}1.00");
        assert_eq!(bed.text(&row(2)).await, "{ }1.0");
        bed.run(
            "UPDATE leads SET email = NULL WHERE id = 3; UPDATE leads SET email = 'x' WHERE id = 3",
        )
        .await;
        assert_eq!(bed.number(WRONG).await, 0, "{direction:?}");
    }
}

#[tokio::test]
async fn an_expression_over_the_row_as_a_whole_is_followed_in_every_column() {
    let mapping = Mapping {
        columns: vec![("status_code".into(), "(to_jsonb(leads) ->> 'other')".into())],
        ..leads()
    };
    let Some(bed) = Bed::with(TABLES, mapping, Direction::Forward).await else { return };
    bed.run("UPDATE leads SET other = 7 WHERE id = 1").await;
    assert_eq!(bed.text("SELECT status_code FROM leads_v2 WHERE id = 1").await, "7");
}

#[tokio::test]
async fn users_triggers_change_the_row_before_and_after_ours() {
    for name in ["aaa", "zzzzz"] {
        let setup = format!(
            "{TABLES}
             CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.other = 5 THEN NEW.status := 'Before'; END IF; RETURN NEW; END $$;
             CREATE FUNCTION after() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.other = 6 THEN UPDATE leads SET status = 'After', other = 0 WHERE id = NEW.id;
               ELSIF NEW.other = 7 THEN UPDATE leads SET id = -id, other = 0 WHERE id = NEW.id;
               ELSIF NEW.other = 8 THEN DELETE FROM leads WHERE id = NEW.id;
               END IF; RETURN NULL; END $$;
             CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF OLD.other = 9 THEN INSERT INTO leads VALUES (OLD.id, 'back', 'Back'); END IF; RETURN NULL; END $$;
             CREATE TRIGGER {name}1 BEFORE INSERT OR UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION before();
             CREATE TRIGGER {name}2 AFTER INSERT OR UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION after();
             CREATE TRIGGER {name}3 AFTER DELETE ON leads FOR EACH ROW EXECUTE FUNCTION gone();"
        );
        for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
            bed.run(&chunk("true")).await;
            for script in [
                "UPDATE leads SET other = 5 WHERE id = 1",
                "UPDATE leads SET other = 6 WHERE id = 2",
                "UPDATE leads SET other = 6, status = 'Mine' WHERE id = 3",
                "UPDATE leads SET other = 7 WHERE id = 4",
                "UPDATE leads SET other = 8, email = 'gone' WHERE id = 5",
                "UPDATE leads SET other = 9 WHERE id = 6; DELETE FROM leads WHERE id = 6",
                "INSERT INTO leads VALUES (20, 'a', 'A', 5), (21, 'b', 'B', 6), (22, 'c', 'C', 7), (23, 'd', 'D', 8)",
            ] {
                bed.run(&format!("BEGIN ISOLATION LEVEL {isolation}; {script}; COMMIT")).await;
                assert_eq!(bed.number(WRONG).await, 0, "{name}, {isolation}: {script}");
            }
            // A row that a trigger deletes while its update is followed may leave a note, which means nothing.
            assert_eq!(bed.settle().await, 0);
            assert_eq!(bed.number(WRONG).await, 0, "{name}, {isolation}");
        }
    }
}

#[tokio::test]
async fn a_truncate_under_an_old_snapshot_is_followed_or_refused() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    // Whole: what was copied since the snapshot goes along.
    let mut client = bed.client().await;
    say(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM leads LIMIT 1")
        .await
        .unwrap();
    bed.run(&chunk("true")).await;
    say(&mut client, "TRUNCATE leads; COMMIT").await.unwrap();
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 0);

    let partitioned = "
        CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int) PARTITION BY RANGE (id);
        CREATE TABLE leads_1 PARTITION OF leads FOR VALUES FROM (0) TO (5);
        CREATE TABLE leads_2 PARTITION OF leads FOR VALUES FROM (5) TO (20);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text);
        INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n;";
    let nullified = Mapping { on_delete: OnDelete::Nullify, ..leads() };
    for (setup, mapping, statement) in
        [(partitioned, leads(), "TRUNCATE leads_1"), (TABLES, nullified, "TRUNCATE leads")]
    {
        let Some(bed) = Bed::with(setup, mapping, Direction::Forward).await else { return };
        bed.run(&chunk("true")).await;
        for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
            let mut client = bed.client().await;
            let script = format!("BEGIN ISOLATION LEVEL {isolation}; {statement}");
            let refused = say(&mut client, &script).await.unwrap_err();
            assert_eq!(code(&refused), "0A000", "{statement}: {refused}");
            say(&mut client, "ROLLBACK").await.unwrap();
        }
        bed.run(statement).await;
        let left = "SELECT count(*) FROM leads_v2 WHERE status_code IS NOT NULL";
        assert_eq!(bed.number(left).await, bed.number("SELECT count(*) FROM leads").await);
    }
}

#[tokio::test]
async fn a_comparison_beside_a_truncate_sees_both_sides_of_one_moment() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    let mut client = bed.client().await;
    say(&mut client, "BEGIN; TRUNCATE leads").await.unwrap();
    let everything = Chunk { lo: None, hi: None };
    let comparing = bed.postgres.compare_chunk(&bed.mapping, bed.direction, &everything);
    let refilling = async {
        until_it_waits(&bed, "application_name LIKE 'phasegate%'").await;
        let rows = "INSERT INTO leads SELECT n, 'again' || n, 'Open' FROM generate_series(1, 4) AS n; COMMIT";
        say(&mut client, rows).await.unwrap();
    };
    let (mut compared, ()) = tokio::join!(comparing, refilling);
    for _ in 0..20 {
        // Whoever waited for too long is asked again, as a run does it.
        match &compared {
            Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {}
            _ => break,
        }
        compared = bed.postgres.compare_chunk(&bed.mapping, bed.direction, &everything).await;
    }
    let compared = compared.unwrap();
    assert!(compared.is_clean(), "{compared:?}");
    assert_eq!(compared.rows, 4, "what was there before is gone, and what came is compared");
}

#[tokio::test]
async fn a_foreign_key_that_sets_null_or_its_default_or_follows_is_mirrored() {
    let setup = "
        CREATE TABLE owners (name text PRIMARY KEY);
        CREATE TABLE boxes (id bigint PRIMARY KEY);
        INSERT INTO owners VALUES ('ann'), ('ben'), ('cy'), ('nobody'); INSERT INTO boxes VALUES (1), (2);
        CREATE TABLE leads (id bigint PRIMARY KEY, email text DEFAULT 'nobody' REFERENCES owners ON DELETE SET DEFAULT ON UPDATE CASCADE,
            status text REFERENCES owners ON DELETE SET NULL ON UPDATE CASCADE, other bigint REFERENCES boxes ON DELETE CASCADE);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text);
        INSERT INTO leads VALUES (1, 'ann', 'ben', 1), (2, 'ben', 'ann', 1), (3, 'cy', 'cy', 2);";
    for direction in [Direction::Forward, Direction::Both] {
        let Some(bed) = Bed::with(setup, both_leads(), direction).await else { return };
        bed.run(&chunk("true")).await;
        for script in [
            "DELETE FROM owners WHERE name = 'ann'",
            "UPDATE owners SET name = 'bea' WHERE name = 'ben'",
            "DELETE FROM boxes WHERE id = 2",
            "BEGIN ISOLATION LEVEL SERIALIZABLE; DELETE FROM owners WHERE name = 'bea'; COMMIT",
        ] {
            bed.run(script).await;
            assert_eq!(bed.number(WRONG).await, 0, "{direction:?} {script}");
        }
        let rows = "SELECT string_agg(concat_ws(' ', id, email, coalesce(status_code, '-')), ',' ORDER BY id) FROM leads_v2";
        assert_eq!(bed.text(rows).await, "1 nobody -,2 nobody -");
    }
}

#[tokio::test]
async fn a_constraint_that_waits_for_the_end_undoes_both_sides() {
    let setup = format!(
        "CREATE TABLE owners (name text PRIMARY KEY); INSERT INTO owners VALUES ('Open'), ('Won'); {TABLES}
         ALTER TABLE leads ADD FOREIGN KEY (status) REFERENCES owners DEFERRABLE INITIALLY DEFERRED;"
    );
    let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    let mut client = bed.client().await;
    let refused = "BEGIN; UPDATE leads SET status = 'Nobody' WHERE id = 1; DELETE FROM leads WHERE id = 2; COMMIT";
    assert_eq!(code(&say(&mut client, refused).await.unwrap_err()), "23503");
    assert_eq!(bed.number(WRONG).await, 0);
    bed.run("BEGIN; UPDATE leads SET status = 'Later' WHERE id = 1; INSERT INTO owners VALUES ('Later'); COMMIT").await;
    assert_eq!(bed.number(WRONG).await, 0);
}

#[tokio::test]
async fn a_partition_that_is_attached_later_has_our_triggers() {
    let setup = "
        CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int) PARTITION BY RANGE (id);
        CREATE TABLE leads_1 PARTITION OF leads FOR VALUES FROM (0) TO (10);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text);
        CREATE TABLE later (other int, status text, id bigint PRIMARY KEY, email text);";
    let Some(bed) = Bed::with(setup, leads(), Direction::Forward).await else { return };
    bed.run("ALTER TABLE leads ATTACH PARTITION later FOR VALUES FROM (10) TO (20)").await;
    assert_eq!(bed.state().await, SyncState::Active);
    for script in [
        "INSERT INTO leads VALUES (1, 'a', 'A'), (11, 'b', 'B')",
        "INSERT INTO later (id, email, status) VALUES (12, 'c', 'C')",
        "UPDATE leads SET id = id + 10 WHERE id = 1 AND NOT EXISTS (SELECT 1 FROM leads WHERE id = 13)",
        "SET session_replication_role = replica; UPDATE leads SET status = 'Replicated'",
        "UPDATE leads SET id = 2 WHERE id = 12",
        "UPDATE later SET email = 'direct'",
        "DELETE FROM leads WHERE id > 10",
    ] {
        let script = script.replace("id + 10", "13");
        bed.run(&script).await;
        assert_eq!(bed.number(WRONG_COPIES).await, 0, "{script}");
        assert_eq!(bed.number(WRONG).await, 0, "{script}");
    }
    bed.run("ALTER TABLE later ENABLE TRIGGER USER").await;
    assert!(
        matches!(bed.state().await, SyncState::Broken(why) if why.contains("on later was switched off and on"))
    );
}

#[tokio::test]
async fn row_security_that_comes_later_is_noticed() {
    let owner = format!("owner_{}", uuid::Uuid::now_v7().simple());
    for table in ["leads", "leads_v2"] {
        let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
        // Whoever is above row security sees all there is.
        bed.run(&format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        ))
        .await;
        assert_eq!(bed.state().await, SyncState::Active);
        bed.run(&format!(
            "CREATE ROLE {owner}; ALTER TABLE leads OWNER TO {owner}; ALTER TABLE leads_v2 OWNER TO {owner}"
        ))
        .await;
        let said = format!("row security of {table} would hide rows from {owner}");
        let state = bed.state().await;
        assert!(matches!(&state, SyncState::Broken(why) if why.contains(&said)), "{state:?}");
        bed.run(&format!("DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}")).await;
    }
}

#[tokio::test]
async fn a_client_of_the_new_side_never_writes_a_row_that_the_filter_hides() {
    let mapping = Mapping { filter: Some("status <> 'Gone'".into()), ..both_leads() };
    let Some(bed) = Bed::with(TABLES, mapping, Direction::Both).await else { return };
    bed.run("UPDATE leads SET status = 'Gone' WHERE id IN (1, 2); UPDATE leads SET status = NULL WHERE id = 3")
        .await;
    bed.settle().await;
    bed.run(&chunk("status <> 'Gone'")).await;
    let hidden = "SELECT string_agg(concat_ws(' ', id, email, status), ',' ORDER BY id) FROM leads WHERE id <= 3";
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for statement in [
            "INSERT INTO leads_v2 VALUES (1, 'mine', 'open')",
            "INSERT INTO leads_v2 VALUES (3, 'mine', 'open')",
            "INSERT INTO leads_v2 VALUES (1, 'mine', 'open') ON CONFLICT (id) DO UPDATE SET email = 'x'",
            "UPDATE leads_v2 SET id = 2 WHERE id = 5",
        ] {
            let mut client = bed.client().await;
            let script = format!("BEGIN ISOLATION LEVEL {isolation}; {statement}");
            let refused = say(&mut client, &script).await.unwrap_err();
            assert_eq!(code(&refused), "23514", "{statement}: {refused}");
            assert!(refused.to_string().contains("another row of this key"), "{refused}");
            say(&mut client, "ROLLBACK").await.unwrap();
            assert_eq!(bed.text(hidden).await, "1 e1 Gone,2 e2 Gone,3 e3", "{statement}");
        }
    }
    // A copy that a chunk made while its row left the filter is nobody's to write through, until it is put right.
    let mut copier = bed.client().await;
    say(&mut copier, &format!("BEGIN; DELETE FROM leads_v2 WHERE id = 6; ROLLBACK; BEGIN; SELECT set_config('phasegate.guard', '{}', true);
        INSERT INTO leads_v2 (id, email, status_code) VALUES (1, 'e1', 'open'); COMMIT", id(&leads()))).await.unwrap();
    for statement in [
        "UPDATE leads_v2 SET email = 'mine' WHERE id = 1",
        "UPDATE leads_v2 SET id = 40 WHERE id = 1",
    ] {
        let mut client = bed.client().await;
        let _ = say(&mut client, statement).await;
        assert_eq!(bed.text(hidden).await, "1 e1 Gone,2 e2 Gone,3 e3", "{statement}");
    }
    bed.run("DELETE FROM leads_v2 WHERE id = 1").await;
    assert_eq!(bed.text(hidden).await, "1 e1 Gone,2 e2 Gone,3 e3");
}

#[tokio::test]
async fn a_row_of_the_old_side_that_appears_behind_the_filter_meanwhile_is_not_written_over() {
    let mapping = Mapping { filter: Some("status <> 'Gone'".into()), ..both_leads() };
    let Some(bed) = Bed::with(TABLES, mapping, Direction::Both).await else { return };
    let mut old = bed.client().await;
    say(&mut old, "BEGIN; INSERT INTO leads VALUES (50, 'theirs', 'Gone')").await.unwrap();
    let new = "INSERT INTO leads_v2 VALUES (50, 'mine', 'open')";
    let met = super::sync_tests::meet_with(&bed, &mut old, new, "READ COMMITTED").await;
    assert_eq!(code(&met.unwrap_err()), "23514");
    assert_eq!(bed.text("SELECT email FROM leads WHERE id = 50").await, "theirs");
    // Where the filter lets it pass it is the same row, and the last word is the client's who waited.
    let mut old = bed.client().await;
    say(&mut old, "BEGIN; INSERT INTO leads VALUES (51, 'theirs', 'Open')").await.unwrap();
    let new = "INSERT INTO leads_v2 VALUES (51, 'mine', 'won') ON CONFLICT (id) DO UPDATE SET email = 'mine'";
    super::sync_tests::meet_with(&bed, &mut old, new, "READ COMMITTED").await.unwrap();
    assert_eq!(bed.text("SELECT email FROM leads WHERE id = 51").await, "mine");
}

#[tokio::test]
async fn a_schema_in_which_everybody_may_create_is_told() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    let told = async |step: &str| {
        let work = super::fixture::work(step, Way::Forward);
        let applied = bed.postgres.install(&bed.fence, &work, &bed.mapping, bed.direction).await;
        applied.unwrap().detail.unwrap_or_default()
    };
    assert!(!told("closed").await.contains("REVOKE"));
    bed.run("GRANT CREATE ON SCHEMA public TO PUBLIC").await;
    let said = told("open").await;
    assert!(said.ends_with("REVOKE CREATE ON SCHEMA public FROM PUBLIC"), "{said}");
}

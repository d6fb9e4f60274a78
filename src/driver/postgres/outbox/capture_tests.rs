//! What triggers write of what clients do. What a table should come down to is said in SQL of the tests' own.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{Bed, ID, PEOPLE, Table, crossing, people, say};
use crate::copy::chunk::Chunk;
use crate::driver::crossing::{ChangeSource as _, Rows, What};
use crate::driver::postgres::error::code;
use crate::driver::postgres::fixture::{Database, claim, class, entered, work};
use crate::driver::{Claim, Session as _, SyncState, given_up};
use crate::run::{Ending, FailureClass, Mapping, Way};

const ISOLATIONS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// What the mapping of [`people`] says of the table.
const ROWS: &str = "SELECT ARRAY[id::text], ARRAY[email, lower(status)] FROM people";

fn with_status() -> Mapping {
    Mapping { filter: Some("status IS NOT NULL -- those with one".into()), ..people() }
}

/// The outbox makes of what was there before what is there now.
async fn follows(bed: &Bed, before: &mut Table, rows: &str, case: &str) {
    let now = bed.table(rows).await;
    let followed = bed.followed(std::mem::take(before)).await;
    assert_eq!(followed, now, "{case}");
    *before = now;
}

#[tokio::test]
async fn whatever_clients_do_to_rows_is_followed() {
    let filtered = format!("{ROWS} WHERE status IS NOT NULL");
    for (mapping, rows) in [(people(), ROWS), (with_status(), filtered.as_str())] {
        let Some(bed) = Bed::with(PEOPLE, mapping).await else { return };
        let mut before = bed.table(rows).await;
        // Rows stand in the order of falling keys, so that each makes room for the next.
        bed.run("UPDATE people SET id = id + 1").await;
        follows(&bed, &mut before, rows, "keys handed on").await;
        for isolation in ISOLATIONS {
            for script in [
                "INSERT INTO people VALUES (20, 'new', 'New'), (21, NULL, NULL)",
                "UPDATE people SET status = 'Won' WHERE id IN (1, 21)",
                "UPDATE people SET status = NULL WHERE id = 1; UPDATE people SET email = 'x' WHERE id = 1",
                "UPDATE people SET status = 'Back' WHERE id = 1",
                "UPDATE people SET id = 30, email = 'moved' WHERE id = 2",
                "UPDATE people SET id = 2 WHERE id = 30; UPDATE people SET id = 30 WHERE id = 3; UPDATE people SET id = 3 WHERE id = 2",
                "UPDATE people SET id = -id",
                "UPDATE people SET id = -id, status = upper(status)",
                "INSERT INTO people VALUES (40, 'a', 'A'); DELETE FROM people WHERE id = 40",
                "DELETE FROM people WHERE id = 5; INSERT INTO people VALUES (5, 'again', 'Again')",
                "DELETE FROM people WHERE id = 5; INSERT INTO people VALUES (5, 'again', 'Again'); DELETE FROM people WHERE id = 5",
                "INSERT INTO people VALUES (5, 'a', 'A'); UPDATE people SET status = 'B' WHERE id = 5; UPDATE people SET status = 'C' WHERE id = 5",
                "SAVEPOINT s; DELETE FROM people WHERE id = 6; INSERT INTO people VALUES (50, 'void', 'Void'); ROLLBACK TO s; \
                 UPDATE people SET status = 'Stays' WHERE id = 7",
                "SAVEPOINT s; UPDATE people SET status = 'In' WHERE id = 7; RELEASE s; SAVEPOINT s; UPDATE people SET email = 'out' WHERE id = 7; ROLLBACK TO s",
                "SAVEPOINT s; DELETE FROM people WHERE id = 7; INSERT INTO people VALUES (7, 's', 'S'); RELEASE s; UPDATE people SET email = 't' WHERE id = 7",
                "INSERT INTO people VALUES (7, 'c', 'C'), (51, 'd', 'D') ON CONFLICT (id) DO UPDATE SET status = excluded.status, email = excluded.email",
                "INSERT INTO people VALUES (7, 'c', 'C'), (52, 'd', 'D') ON CONFLICT DO NOTHING",
                "MERGE INTO people p USING (VALUES (7, 'm'), (8, NULL), (53, 'n')) AS v (id, email) ON p.id = v.id \
                 WHEN MATCHED AND v.email IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET email = v.email \
                 WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.email, 'Merged')",
                "WITH w AS (DELETE FROM people WHERE id > 50 RETURNING *) INSERT INTO people SELECT id + 100, email, status FROM w",
                "SELECT * FROM people FOR UPDATE; UPDATE people SET status = upper(status)",
                "DELETE FROM people WHERE id > 9; DELETE FROM people WHERE id < 1",
            ] {
                bed.run(&format!("BEGIN ISOLATION LEVEL {isolation}; {script}; COMMIT")).await;
                follows(&bed, &mut before, rows, &format!("{isolation}: {script}")).await;
            }
            bed.run("DELETE FROM people").await;
            let mut client = bed.client().await;
            let mut copy =
                client.copy_in_raw("COPY people (id, email, status) FROM STDIN").await.unwrap();
            for id in (1..=9).rev() {
                copy.send(format!("{id}\te{id}\tCopied\n").as_bytes()).await.unwrap();
            }
            copy.finish().await.unwrap();
            follows(&bed, &mut before, rows, "COPY").await;
            assert_eq!(before.len(), 9);
        }
        // What was rolled back was never there.
        bed.run("BEGIN; UPDATE people SET status = 'Void'; DELETE FROM people; ROLLBACK").await;
        assert_eq!(bed.changes().await, 0);
    }
}

#[tokio::test]
async fn users_triggers_have_the_last_word_wherever_they_come() {
    for name in ["aaa", "zzzzz"] {
        let setup = format!(
            "{PEOPLE}
             CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.other = 5 THEN NEW.status := 'Before'; END IF; RETURN NEW; END $$;
             CREATE FUNCTION after() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.other = 6 THEN UPDATE people SET status = 'After', other = 0 WHERE id = NEW.id;
               ELSIF NEW.other = 7 THEN UPDATE people SET id = -id, other = 0 WHERE id = NEW.id;
               ELSIF NEW.other = 8 THEN DELETE FROM people WHERE id = NEW.id;
               END IF; RETURN NULL; END $$;
             CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF OLD.other = 9 THEN INSERT INTO people VALUES (OLD.id, 'back', 'Back'); END IF; RETURN NULL; END $$;
             CREATE TRIGGER {name}1 BEFORE INSERT OR UPDATE ON people FOR EACH ROW EXECUTE FUNCTION before();
             CREATE TRIGGER {name}2 AFTER INSERT OR UPDATE ON people FOR EACH ROW EXECUTE FUNCTION after();
             CREATE TRIGGER {name}3 AFTER DELETE ON people FOR EACH ROW EXECUTE FUNCTION gone();"
        );
        for isolation in ISOLATIONS {
            let Some(bed) = Bed::with(&setup, people()).await else { return };
            let mut before = bed.table(ROWS).await;
            for script in [
                "UPDATE people SET other = 5 WHERE id = 1",
                "UPDATE people SET other = 6 WHERE id = 2",
                "UPDATE people SET other = 6, status = 'Mine' WHERE id = 3",
                "UPDATE people SET other = 7 WHERE id = 4",
                "UPDATE people SET other = 8, email = 'gone' WHERE id = 5",
                "UPDATE people SET other = 9 WHERE id = 6; DELETE FROM people WHERE id = 6",
                "INSERT INTO people VALUES (20, 'a', 'A', 5), (21, 'b', 'B', 6), (22, 'c', 'C', 7), (23, 'd', 'D', 8)",
            ] {
                bed.run(&format!("BEGIN ISOLATION LEVEL {isolation}; {script}; COMMIT")).await;
                follows(&bed, &mut before, ROWS, &format!("{name}, {isolation}: {script}")).await;
            }
        }
    }
}

/// A row that the transaction has written and locked again looks, but for who wrote it, like one that others have deleted since.
#[tokio::test]
async fn rows_that_are_locked_as_well_are_still_their_writers() {
    let setup = format!(
        "{PEOPLE}
         CREATE FUNCTION locks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           PERFORM 1 FROM people WHERE id = NEW.id FOR UPDATE; RETURN NULL; END $$;
         CREATE TRIGGER aaa AFTER INSERT OR UPDATE ON people FOR EACH ROW EXECUTE FUNCTION locks();
         CREATE TABLE mates (id bigint REFERENCES people ON DELETE CASCADE)"
    );
    let Some(bed) = Bed::with(&setup, people()).await else { return };
    let mut before = bed.table(ROWS).await;
    bed.run("VACUUM (FREEZE) people").await;
    for isolation in ISOLATIONS {
        for script in [
            "UPDATE people SET status = 'A' WHERE id = 1",
            "SAVEPOINT s; UPDATE people SET status = 'B' WHERE id = 1; RELEASE s; UPDATE people SET email = 'b' WHERE id = 1",
            "SAVEPOINT a; SAVEPOINT b; INSERT INTO people VALUES (60, 'n', 'N'); RELEASE b; ROLLBACK TO a; \
             SAVEPOINT b; INSERT INTO people VALUES (60, 'm', 'M'); INSERT INTO mates VALUES (60); RELEASE b; RELEASE a; \
             UPDATE people SET status = 'C' WHERE id = 60",
            "INSERT INTO people VALUES (1, 'c', 'C'), (61, 'd', 'D') ON CONFLICT (id) DO UPDATE SET email = excluded.email || '!'",
            "DELETE FROM people WHERE id > 9",
        ] {
            bed.run(&format!("BEGIN ISOLATION LEVEL {isolation}; {script}; COMMIT")).await;
            follows(&bed, &mut before, ROWS, &format!("{isolation}: {script}")).await;
        }
    }
}

#[tokio::test]
async fn a_client_with_an_old_view_makes_keys_anew_that_others_deleted() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        for (others, script) in [
            ("DELETE FROM people WHERE id = 5", "INSERT INTO people VALUES (5, 'mine', 'Mine')"),
            (
                "DELETE FROM people WHERE id = 5",
                "SAVEPOINT s; INSERT INTO people VALUES (5, 'mine', 'Mine'); RELEASE s; UPDATE people SET status = 'Again' WHERE email = 'mine'",
            ),
            (
                "DELETE FROM people WHERE id = 5",
                "INSERT INTO people VALUES (5, 'mine', 'Mine'); DELETE FROM people WHERE email = 'mine'",
            ),
            ("UPDATE people SET id = 50 WHERE id = 5", "UPDATE people SET id = 5 WHERE id = 6"),
            (
                "DELETE FROM people WHERE id = 5",
                "INSERT INTO people VALUES (5, 'mine', 'Mine') ON CONFLICT (id) DO UPDATE SET status = 'X'; \
                 UPDATE people SET id = 55 WHERE email = 'mine'",
            ),
        ] {
            let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
            let mut before = bed.table(ROWS).await;
            let mut client = bed.client().await;
            say(
                &mut client,
                &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM people"),
            )
            .await
            .unwrap();
            bed.run(others).await;
            say(&mut client, &format!("{script}; COMMIT"))
                .await
                .unwrap_or_else(|error| panic!("{isolation} {script}: {error}"));
            follows(&bed, &mut before, ROWS, &format!("{isolation} {script}")).await;
            bed.database.gone().await;
        }
    }
}

#[tokio::test]
async fn a_client_who_is_older_than_the_capture_is_captured() {
    for isolation in ISOLATIONS {
        let Some(database) =
            Database::with(&format!("{PEOPLE} CREATE TABLE elsewhere (id int)")).await
        else {
            return;
        };
        let postgres = database.open().await;
        let fences = entered(&postgres, 1).await;
        let of = people();
        let bed = Bed { database, postgres, fences, of };
        let mut before = bed.table(ROWS).await;
        let mut client = bed.client().await;
        say(
            &mut client,
            &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM elsewhere"),
        )
        .await
        .unwrap();
        bed.capture().await.unwrap();
        say(&mut client, "UPDATE people SET status = 'Late' WHERE id = 1; DELETE FROM people WHERE id = 2; COMMIT").await.unwrap();
        follows(&bed, &mut before, ROWS, isolation).await;
    }
}

#[tokio::test]
async fn a_writer_keeps_the_capture_waiting_and_is_not_missed() {
    let Some(database) = Database::with(PEOPLE).await else { return };
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    let of = people();
    let bed = Bed { database, postgres, fences, of };
    let mut client = bed.client().await;
    say(&mut client, "BEGIN; UPDATE people SET status = 'Early' WHERE id = 1").await.unwrap();
    let mut hasty = work("capture", Way::Forward);
    hasty.lock_timeout_ms = Some(50);
    let refused = bed.postgres.capture(bed.fence(), &hasty, &bed.of).await;
    assert_eq!(class(refused), FailureClass::Contention);
    say(&mut client, "COMMIT").await.unwrap();
    bed.capture().await.unwrap();
    assert_eq!(bed.changes().await, 0);
}

#[tokio::test]
async fn cascades_are_followed() {
    let setup = "CREATE TABLE firms (id int PRIMARY KEY);
        CREATE TABLE people (id bigint PRIMARY KEY, email text, status text, firm int REFERENCES firms ON DELETE CASCADE ON UPDATE CASCADE,
            boss bigint REFERENCES people ON DELETE CASCADE, mate bigint REFERENCES people ON DELETE SET NULL);
        INSERT INTO firms VALUES (1), (2); INSERT INTO people SELECT n, 'e' || n, 'Open', 1 + n % 2, nullif(n - 1, 0), nullif(n - 1, 0) FROM generate_series(1, 4) AS n;
        INSERT INTO people SELECT n, 'e' || n, 'Open', 1 + n % 2, NULL, n - 1 FROM generate_series(5, 9) AS n";
    let columns =
        [("mail", "email"), ("state", "lower(status)"), ("firm", "firm"), ("mate", "mate")];
    let rows =
        "SELECT ARRAY[id::text], ARRAY[email, lower(status), firm::text, mate::text] FROM people";
    for script in [
        "DELETE FROM people WHERE id = 2",
        "DELETE FROM people WHERE id = 1",
        "UPDATE firms SET id = 7 WHERE id = 1",
        "DELETE FROM firms WHERE id = 1",
    ] {
        for isolation in ISOLATIONS {
            let Some(bed) = Bed::with(setup, crossing("people", &["id"], &columns)).await else {
                return;
            };
            let mut before = bed.table(rows).await;
            bed.run(&format!("BEGIN ISOLATION LEVEL {isolation}; {script}; COMMIT")).await;
            assert!(bed.changes().await > 0);
            follows(&bed, &mut before, rows, &format!("{isolation} {script}")).await;
            bed.database.gone().await;
        }
    }
}

const PARTED: &str = "
    CREATE TABLE people (id bigint PRIMARY KEY, email text, status text) PARTITION BY RANGE (id);
    CREATE TABLE people_1 PARTITION OF people FOR VALUES FROM (0) TO (5);
    CREATE TABLE people_2 PARTITION OF people FOR VALUES FROM (5) TO (20) PARTITION BY RANGE (id);
    CREATE TABLE people_21 PARTITION OF people_2 FOR VALUES FROM (5) TO (10);
    CREATE TABLE people_22 PARTITION OF people_2 FOR VALUES FROM (10) TO (20);
    CREATE TABLE beside (LIKE people INCLUDING ALL);
    INSERT INTO people SELECT n, 'e' || n, 'Open' FROM generate_series(1, 15) AS n;";

#[tokio::test]
async fn partitions_are_followed_one_by_one_and_as_a_whole() {
    for isolation in ISOLATIONS {
        let Some(bed) = Bed::with(PARTED, people()).await else { return };
        let mut before = bed.table(ROWS).await;
        for script in [
            "INSERT INTO people VALUES (0, 'n', 'N'), (16, 'n', 'N'); INSERT INTO people_22 VALUES (17, 'n', 'N')",
            // From one partition to another.
            "UPDATE people SET id = 18 WHERE id = 1; UPDATE people SET id = 1, status = 'Back' WHERE id = 6",
            "DELETE FROM people_1 WHERE id = 2; UPDATE people_2 SET status = 'Won'",
            "CREATE TABLE people_3 PARTITION OF people FOR VALUES FROM (20) TO (30)",
            "INSERT INTO people VALUES (20, 'n', 'N'), (21, 'm', 'M'); UPDATE people_3 SET status = 'There' WHERE id = 20",
            "ALTER TABLE people ATTACH PARTITION beside FOR VALUES FROM (30) TO (40)",
            "INSERT INTO people VALUES (31, 'n', 'N'); UPDATE people SET id = 32 WHERE id = 3; DELETE FROM beside WHERE id = 31",
            "TRUNCATE people; INSERT INTO people SELECT n, 'again', 'Again' FROM generate_series(1, 39) AS n",
            "TRUNCATE people, people_1; INSERT INTO people VALUES (1, 'n', 'N')",
        ] {
            bed.run(&format!("BEGIN ISOLATION LEVEL {isolation}; {script}; COMMIT")).await;
            follows(&bed, &mut before, ROWS, &format!("{isolation}: {script}")).await;
        }
        assert_eq!(bed.state().await, SyncState::Active);
        bed.run("TRUNCATE people_1, people").await;
        follows(&bed, &mut before, ROWS, "a partition, and then all").await;
    }
}

#[tokio::test]
async fn a_partition_that_is_emptied_alone_takes_its_own_rows_along() {
    for statement in [
        "TRUNCATE people_1",
        "SET LOCAL phasegate.outbox_emptying = 'c9022680f888'; TRUNCATE people_1",
        "LOCK TABLE people IN ACCESS EXCLUSIVE MODE; TRUNCATE people_1",
        "TRUNCATE people_21",
        "TRUNCATE people_2",
        "TRUNCATE people_1, people_22",
    ] {
        let Some(bed) = Bed::with(PARTED, people()).await else { return };
        let mut before = bed.table(ROWS).await;
        for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
            let mut client = bed.client().await;
            let refused =
                say(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}; {statement}")).await;
            assert_eq!(code(&refused.unwrap_err()), Some("0A000"), "{statement}");
        }
        bed.run(&format!("BEGIN; INSERT INTO people VALUES (19, 'n', 'N'); {statement}; INSERT INTO people VALUES (4, 'new', 'New') ON CONFLICT DO NOTHING; COMMIT")).await;
        follows(&bed, &mut before, ROWS, statement).await;
        assert!(before.len() < 16);
    }
    // One that is none of ours any more empties nothing.
    let Some(bed) = Bed::with(PARTED, people()).await else { return };
    bed.run("ALTER TABLE people DETACH PARTITION people_1; TRUNCATE people_1").await;
    assert_eq!(bed.changes().await, 0);
}

#[tokio::test]
async fn a_table_that_is_emptied_is_one_change_whatever_its_size() {
    let setup = format!(
        "{PEOPLE} INSERT INTO people SELECT n, 'e' FROM generate_series(10, 3000) AS n;
         CREATE TABLE elsewhere (id int);
         CREATE FUNCTION refill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_setting('test.refill', true) = 'yes' THEN INSERT INTO people VALUES (7, 'refilled', 'R'); END IF; RETURN NULL; END $$;
         CREATE TRIGGER aaa AFTER TRUNCATE ON people EXECUTE FUNCTION refill();
         CREATE TABLE mates (id bigint REFERENCES people)"
    );
    let Some(bed) = Bed::with(&setup, people()).await else { return };
    let mut before = bed.table(ROWS).await;
    bed.run("TRUNCATE people CASCADE").await;
    let changes = bed.claim().await;
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].what, What::Emptied);
    follows(&bed, &mut before, ROWS, "whole").await;
    for isolation in ISOLATIONS {
        bed.run("INSERT INTO people VALUES (1, 'a', 'A'), (2, 'b', 'B')").await;
        let mut client = bed.client().await;
        say(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM elsewhere; SET LOCAL test.refill = 'yes'")).await.unwrap();
        bed.run("INSERT INTO people VALUES (3, 'unseen', 'A')").await;
        say(&mut client, "UPDATE people SET status = 'Void' WHERE id = 1; TRUNCATE people CASCADE; INSERT INTO people VALUES (1, 'new', 'New'); COMMIT").await.unwrap();
        follows(&bed, &mut before, ROWS, isolation).await;
        assert_eq!(before.len(), 2);
        bed.run("BEGIN; TRUNCATE people CASCADE; ROLLBACK").await;
        assert_eq!(bed.changes().await, 0);
        bed.run("DELETE FROM people").await;
        follows(&bed, &mut before, ROWS, isolation).await;
    }
}

#[tokio::test]
async fn what_the_mapping_does_not_read_is_passed_over_and_nothing_else() {
    let setup = "CREATE TABLE people (id bigint PRIMARY KEY, email text, status text, other int, n double precision, twice int GENERATED ALWAYS AS (other * 2) STORED);
        INSERT INTO people SELECT n, 'e' || n, 'Open', 1, 0 FROM generate_series(1, 3) AS n;
        CREATE FUNCTION mine(text) RETURNS text LANGUAGE sql AS $$ SELECT (SELECT max(id)::text FROM public.people) || $1 $$";
    let quiet = crossing("people", &["id"], &[("m", "email"), ("s", "lower(status)"), ("n", "n")]);
    let Some(bed) = Bed::with(setup, quiet).await else { return };
    bed.run("UPDATE people SET other = 2; UPDATE people SET email = email, status = status").await;
    assert_eq!(bed.changes().await, 0);
    // Equal, and not the same.
    bed.run(
        "UPDATE people SET n = '-0' WHERE id = 1; UPDATE people SET status = 'OPEN' WHERE id = 2",
    )
    .await;
    assert_eq!(bed.changes().await, 2);
    for expression in
        ["twice", "mine(email)", "(to_jsonb(people)->>'other')", "coalesce(email, mine('x'))"]
    {
        let mapping = crossing("people", &["id"], &[("x", expression)]);
        let Some(bed) = Bed::with(setup, mapping).await else { return };
        bed.run("UPDATE people SET other = 2 WHERE id = 1").await;
        assert_eq!(bed.changes().await, 1, "{expression}");
    }
}

#[tokio::test]
async fn images_are_the_same_whatever_the_clients_settings_are() {
    let setup = "SET TimeZone = 'UTC'; CREATE TABLE t (id int PRIMARY KEY, d date, m timestamptz, i interval, b bytea, r real, x double precision, l timestamptz[], f boolean);
        INSERT INTO t SELECT n, date '2024-02-29' + n, timestamptz '2024-03-31 01:00:00.5+00' + n * interval '1 h', interval '1 y 2 mon 3 d -4 h' * n,
        decode(md5(n::text), 'hex'), 1.1 * n, 0.1 * n, ARRAY[timestamptz '2024-03-31 01:00:00.5+00'], n % 2 = 0 FROM generate_series(1, 20) AS n";
    let columns = ["d", "m", "i", "b", "r", "x", "l", "f"].map(|name| (name, name));
    // What these are is for the client's settings to say, or for ours.
    let expressions =
        [("digits", r"regexp_replace('1-' || id, '\D', '', 'g')"), ("nothing", "id = NULL")];
    let columns: Vec<_> = columns.into_iter().chain(expressions).collect();
    let Some(bed) = Bed::with(setup, crossing("t", &["id"], &columns)).await else { return };
    let page =
        bed.postgres.page(&bed.of, (&Chunk { lo: None, hi: None }, Rows::All)).await.unwrap();
    bed.run(
        "SET TimeZone = 'America/New_York'; SET DateStyle = 'German, DMY'; SET IntervalStyle = 'sql_standard'; SET bytea_output = 'escape';
         SET extra_float_digits = 0; SET standard_conforming_strings = off; SET transform_null_equals = on; SET search_path = pg_temp; UPDATE public.t SET id = id + 100; UPDATE public.t SET id = id - 100",
    )
    .await;
    let mut images: Vec<_> = bed
        .claim()
        .await
        .into_iter()
        .filter_map(|change| match change.what {
            What::Is(row) => Some(row),
            _ => None,
        })
        .collect();
    let mut rows = page.rows;
    rows.sort();
    images.sort();
    assert_eq!((page.unfit.len(), rows.len()), (0, 20));
    assert_eq!(images, rows);
}

#[tokio::test]
async fn keys_that_are_equal_and_written_in_another_way_are_two_on_the_new_side() {
    let setup = "CREATE COLLATION loose (provider = icu, deterministic = false, locale = 'und-u-ks-level2');
        CREATE TABLE t (code text COLLATE loose, pad char(5), n name, v int, PRIMARY KEY (code, pad, n));
        INSERT INTO t VALUES ('a', 'p', 'n', 1), ('b', 'p', 'n', 2)";
    let rows = "SELECT ARRAY[code, pad::text, n::text], ARRAY[v::text] FROM t";
    let Some(bed) = Bed::with(setup, crossing("t", &["code", "pad", "n"], &[("v", "v")])).await
    else {
        return;
    };
    let mut before = bed.table(rows).await;
    for script in [
        "UPDATE t SET code = 'A' WHERE code = 'a'",
        "UPDATE t SET pad = 'p    '",
        "DELETE FROM t WHERE code = 'A'; INSERT INTO t VALUES ('a', 'p', 'n', 3)",
        "UPDATE t SET v = 4",
    ] {
        bed.run(script).await;
        follows(&bed, &mut before, rows, script).await;
    }
    // Nothing but a row of the very key is one of it.
    let key = |code: &str| {
        [code, "p", "n"].map(str::to_owned).map(crate::copy::row::Datum::Text).to_vec()
    };
    let keys = [key("a"), key("A"), key("B"), key("b")];
    assert_eq!(bed.postgres.which_exist(&bed.of, &keys).await.unwrap(), [true, false, false, true]);
    assert_eq!(bed.postgres.rows_of(&bed.of, &keys).await.unwrap().page.rows.len(), 2);
    bed.postgres.enqueue(bed.fence(), &bed.of, &keys).await.unwrap();
    let changes = bed.claim().await;
    assert_eq!(
        (
            changes.len(),
            changes.iter().filter(|change| matches!(change.what, What::Gone(_))).count()
        ),
        (4, 2)
    );
}

#[tokio::test]
async fn an_expression_that_fails_fails_the_write_and_loses_nothing() {
    let mapping = crossing("people", &["id"], &[("n", "CASE WHEN other = 13 THEN email::int END")]);
    let Some(bed) = Bed::with(PEOPLE, mapping).await else { return };
    let mut client = bed.client().await;
    let refused = say(&mut client, "UPDATE people SET other = 13 WHERE id = 1").await.unwrap_err();
    assert_eq!(code(&refused), Some("22P02"));
    assert_eq!(
        (bed.changes().await, bed.number("SELECT count(*) FROM people WHERE other = 13").await),
        (0, 0)
    );
}

#[tokio::test]
async fn what_is_missing_or_changed_is_found() {
    let trigger = format!("zzzz_phasegate_{ID}_o");
    let (function, truncate) =
        (format!("phasegate.phasegate_{ID}_o"), format!("{trigger}_truncate"));
    for (script, said) in [
        (format!("ALTER TABLE people DISABLE TRIGGER {trigger}"), "is disabled"),
        (format!("ALTER TABLE people_21 DISABLE TRIGGER {trigger}"), "on people_21 is disabled"),
        (format!("ALTER TABLE people ENABLE REPLICA TRIGGER {truncate}"), "is disabled for clients"),
        (format!("ALTER TABLE people DISABLE TRIGGER {trigger}; ALTER TABLE people ENABLE TRIGGER {trigger}"), "does not fire for replication"),
        (format!("DROP TRIGGER {truncate} ON people"), "is missing"),
        (format!("DROP TRIGGER {trigger} ON people"), "is missing"),
        (format!("DROP TRIGGER {trigger} ON people; CREATE TRIGGER {trigger} AFTER INSERT ON people FOR EACH ROW EXECUTE FUNCTION {function}()"), "was changed"),
        (format!("CREATE TRIGGER {trigger}_x AFTER INSERT ON people FOR EACH ROW EXECUTE FUNCTION {function}()"), "does not belong here"),
        (format!("CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"), "was changed"),
        (format!("ALTER FUNCTION {function}() SET timezone = 'CET'"), "the settings of function"),
        (format!("ALTER FUNCTION {function}() RESET intervalstyle"), "the settings of function"),
        (format!("ALTER FUNCTION {function}() SECURITY INVOKER"), "was changed"),
        ("ALTER SEQUENCE phasegate.outbox_version CACHE 20".to_owned(), "sequence outbox_version was changed"),
        ("INSERT INTO people VALUES (19, 'n', 'N'); SELECT setval('phasegate.outbox_version', 1, false)".to_owned(), "was set back"),
        ("DROP TABLE phasegate.outbox".to_owned(), "the table outbox, which the triggers write to, is missing"),
        ("DROP TABLE people".to_owned(), "there is no table people"),
        (format!("ALTER FUNCTION {function}() RESET standard_conforming_strings"), "the settings of function"),
        (format!("ALTER FUNCTION {function}() SET lc_time = 'POSIX'"), "the settings of function"),
        (format!("ALTER FUNCTION {function}() RESET enable_seqscan"), "the settings of function"),
        ("ALTER TABLE people ALTER email TYPE int USING 1".to_owned(), "what is captured of people is not what there is of it: mail One(Text) then, mail One(Integer) now"),
        ("ALTER TABLE people ALTER email TYPE numeric USING 1".to_owned(), "mail would be of type numeric"),
        ("ALTER TABLE people DROP email".to_owned(), "column \"email\" does not exist"),
        ("ALTER TABLE people RENAME TO old; CREATE TABLE people (LIKE old INCLUDING ALL)".to_owned(), "is missing"),
        ("ALTER TABLE people ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE ROLE owner_of_people_{}; GRANT CREATE ON SCHEMA public TO owner_of_people_{}; ALTER TABLE people OWNER TO owner_of_people_{}".replace("{}", &uuid::Uuid::now_v7().simple().to_string()), "row security"),
    ] {
        let Some(bed) = Bed::with(PARTED, people()).await else { return };
        // A partition that comes later is as good as those that were there.
        bed.run("CREATE TABLE people_3 PARTITION OF people FOR VALUES FROM (20) TO (30)").await;
        assert_eq!(bed.state().await, SyncState::Active);
        bed.run(&script).await;
        let SyncState::Broken(why) = bed.state().await else { panic!("{script}") };
        assert!(why.contains(said), "{script}: {why}");
        bed.database.gone().await;
    }
}

#[tokio::test]
async fn clients_need_no_right_of_ours_and_have_none() {
    let owner = format!("owner_{}", uuid::Uuid::now_v7().simple());
    let app = format!("app_{}", uuid::Uuid::now_v7().simple());
    let setup = format!(
        "CREATE ROLE {owner}; CREATE ROLE {app} LOGIN; {PEOPLE} GRANT ALL ON SCHEMA public TO {owner}; ALTER TABLE people OWNER TO {owner};
         GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON people TO {app}"
    );
    let Some(bed) = Bed::with(&setup, people()).await else { return };
    let mut before = bed.table(ROWS).await;
    bed.run(&format!("SET ROLE {app}; UPDATE people SET status = 'App'; UPDATE people SET id = 77 WHERE id = 1; TRUNCATE people; INSERT INTO people VALUES (1, 'a', 'A')")).await;
    follows(&bed, &mut before, ROWS, "application").await;
    for refused in [
        "INSERT INTO phasegate.outbox (version, mapping, key, bytes) VALUES (1, 'x', '{}', 0)",
        "SELECT nextval('phasegate.outbox_version')",
    ] {
        let mut client = bed.client().await;
        let error = say(&mut client, &format!("SET ROLE {app}; {refused}")).await.unwrap_err();
        assert_eq!(code(&error), Some("42501"), "{refused}");
    }
    assert_eq!(bed.number("SELECT count(*) FROM pg_proc p, aclexplode(p.proacl) a WHERE p.pronamespace = 'phasegate'::regnamespace AND a.grantee = 0").await, 0);
    assert_eq!(
        bed.number(&format!("SELECT has_schema_privilege('{owner}', 'phasegate', 'CREATE')::int"))
            .await,
        0
    );
    bed.database.gone().await;
    let Some(server) = Database::with(&format!("DROP ROLE {owner}, {app}")).await else { return };
    server.gone().await;
}

async fn objects(bed: &Bed) -> i64 {
    bed.number(
        "SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE 'outbox%') + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'phasegate\\_%')
            + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'zzzz%')",
    )
    .await
}

#[tokio::test]
async fn a_capture_begins_and_ends_with_its_entry_in_the_ledger() {
    let setup = format!("{PEOPLE} CREATE TABLE firms (id int PRIMARY KEY, name text)");
    let Some(bed) = Bed::with(&setup, people()).await else { return };
    let mut firms = crossing("firms", &["id"], &[("name", "name")]);
    firms.name = "firms".into();
    let (fence, postgres) = (bed.fence(), &bed.postgres);
    // Done once, it is not done again.
    assert!(bed.capture().await.unwrap().before);
    postgres.capture(fence, &work("firms", Way::Forward), &firms).await.unwrap();
    bed.run("UPDATE people SET status = 'Won' WHERE id = 1; INSERT INTO firms VALUES (1, 'f')")
        .await;
    // It is undone: what it wrote is void, and others' changes stay.
    let undone = postgres.end_capture(fence, &work("capture", Way::Back), &people()).await.unwrap();
    assert_eq!((undone.before, undone.rows, bed.changes().await), (false, 0, 1));
    assert!(matches!(bed.state().await, SyncState::Broken(_)));
    bed.run("UPDATE people SET status = 'Unseen'").await;
    assert_eq!(bed.changes().await, 1);
    // It ends: what is left is still to be applied, and then goes with the last one.
    let ended = postgres.end_capture(fence, &work("stop", Way::Forward), &firms).await.unwrap();
    assert_eq!(ended.rows, 1);
    assert!(
        ended.detail.unwrap().contains("the outbox still holds changes of firms: 1 to be applied")
    );
    let again = postgres.end_capture(fence, &work("stop", Way::Forward), &firms).await.unwrap();
    assert!(again.before);
    // A new beginning makes void what an earlier one has left.
    postgres.capture(fence, &work("firms again", Way::Forward), &firms).await.unwrap();
    assert_eq!(bed.changes().await, 0);
    bed.run("UPDATE firms SET name = 'g'").await;
    let ended = postgres.end_capture(fence, &work("stop again", Way::Forward), &firms).await;
    assert_eq!(ended.unwrap().rows, 1);
    assert!(objects(&bed).await > 0);
    let fenced = entered(postgres, 2).await;
    assert!(matches!(
        postgres.end_capture(fence, &work("x", Way::Forward), &firms).await,
        Err(crate::driver::Error::Fenced { .. })
    ));
    let gave_up = work(given_up(&"firms".into()).as_str(), Way::Forward);
    postgres.end_capture(&fenced[0], &gave_up, &firms).await.unwrap();
    assert_eq!(objects(&bed).await, 0);
    // Versions of a later beginning are higher than those of an earlier one.
    let high =
        u64::try_from(bed.number("SELECT (extract(epoch FROM now()) * 1000000)::bigint").await)
            .unwrap();
    postgres.capture(&fenced[0], &work("anew", Way::Forward), &people()).await.unwrap();
    bed.run("UPDATE people SET status = 'Seen' WHERE id = 1").await;
    let changes = postgres.claim(&fenced[0], bed.mappings(), (10, &[])).await.unwrap();
    assert!(changes[0].version > high);
    // A run that ends leaves nothing, and what it captured is captured no more.
    postgres
        .leave(&fenced[0], Ending::Completed, &crate::driver::postgres::fixture::head(9))
        .await
        .unwrap();
    assert_eq!(objects(&bed).await, 0);
    bed.run("UPDATE people SET status = 'After'").await;
}

#[tokio::test]
async fn a_run_that_leaves_takes_nothing_of_anothers() {
    let setup = format!("{PEOPLE} CREATE TABLE firms (id int PRIMARY KEY, name text)");
    let Some(bed) = Bed::with(&setup, people()).await else { return };
    bed.run("UPDATE phasegate.runs SET objects = '[\"people\"]', mappings = '[\"others\"]'").await;
    let second =
        Claim { objects: vec!["firms".into()], mappings: vec!["second".into()], ..claim("r2") };
    let fences = bed.postgres.enter(&second, 5).await.unwrap();
    let mut firms = crossing("firms", &["id"], &[("name", "name")]);
    firms.name = "second".into();
    bed.postgres.capture(&fences[0], &work("firms", Way::Forward), &firms).await.unwrap();
    // What the run had not applied goes with it.
    bed.run("INSERT INTO firms VALUES (1, 'f'); UPDATE people SET status = 'Void'").await;
    bed.postgres
        .leave(bed.fence(), Ending::Completed, &crate::driver::postgres::fixture::head(9))
        .await
        .unwrap();
    assert_eq!(bed.postgres.capture_state(&firms).await.unwrap(), SyncState::Active);
    bed.run("INSERT INTO firms VALUES (2, 'f'); UPDATE people SET status = 'Free'").await;
    assert_eq!(bed.postgres.claim(&fences[0], &[firms], (10, &[])).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_table_that_others_inherit_from_is_refused() {
    let Some(database) =
        Database::with(&format!("{PEOPLE} CREATE TABLE heirs () INHERITS (people)")).await
    else {
        return;
    };
    let postgres = database.open().await;
    let fence = entered(&postgres, 1).await.remove(0);
    let refused = postgres.capture(&fence, &work("capture", Way::Forward), &people()).await;
    assert_eq!(class(refused), FailureClass::Unsafe);
}

#[tokio::test]
async fn a_table_that_comes_to_inherit_is_found() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    bed.run("CREATE TABLE heirs () INHERITS (people)").await;
    let SyncState::Broken(why) = bed.state().await else { panic!() };
    assert!(why.contains("inherit from people"), "{why}");
}

/// The plan for it is made while the table has a page, and is kept by the session.
#[tokio::test]
async fn each_row_is_found_by_its_key_though_the_table_was_small_once() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    bed.run("ANALYZE people").await;
    let mut client = bed.client().await;
    for id in 1..=8 {
        say(&mut client, &format!("UPDATE people SET status = 'x' WHERE id = {id}")).await.unwrap();
    }
    // Numbers are handed over now and then, behind a transaction.
    let scans = async |client: &mut sqlx::PgConnection| {
        let scans = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'people'";
        sqlx::query_scalar::<_, i64>(scans).fetch_one(client).await.unwrap()
    };
    say(&mut client, "BEGIN").await.unwrap();
    let before = scans(&mut client).await;
    say(&mut client, "INSERT INTO people SELECT n, 'e', 's' FROM generate_series(10, 500) AS n")
        .await
        .unwrap();
    assert_eq!(scans(&mut client).await, before);
}

#[tokio::test]
async fn names_in_the_table_and_in_the_mapping_can_be_anything() {
    let setup = "CREATE TABLE \"New\" (\"old\" int, \"phasegate_k1\" text, image text, version int, key text, \"Odd \"\"name\" text, tg_op text, PRIMARY KEY (\"old\", \"phasegate_k1\"))";
    let columns = [
        ("a'b\"c", "image"),
        ("start.id", "\"Odd \"\"name\""),
        ("$1", "phasegate_k1 || tg_op"),
        ("v", "version"),
        ("k", "\"New\".key"),
    ];
    let mapping = crossing("\"New\"", &["old", "phasegate_k1"], &columns);
    let Some(bed) = Bed::with(setup, mapping).await else { return };
    let rows = "SELECT ARRAY[\"old\"::text, phasegate_k1], ARRAY[image, \"Odd \"\"name\", phasegate_k1 || tg_op, version::text, key] FROM \"New\"";
    let mut before = bed.table(rows).await;
    bed.run("INSERT INTO \"New\" VALUES (1, 'x', 'i', 3, 'k', 'o', 't'), (2, 'y', NULL, 4, NULL, 'p', 'u'); UPDATE \"New\" SET phasegate_k1 = 'z', key = 'kk' WHERE \"old\" = 1; DELETE FROM \"New\" WHERE \"old\" = 2").await;
    follows(&bed, &mut before, rows, "names").await;
    assert_eq!(before.len(), 1);
}

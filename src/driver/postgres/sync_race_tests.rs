//! Clients and the engine on the same row at the same moment, one step at a time.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::postgres::PgConnection;

use super::fixture::{class, entered, work};
use super::sync_tests::{Bed, TABLES, WRONG, both_leads, chunk, id, leads, say, until_it_waits};
use crate::driver::{DualWriter as _, Error, Fence, Sink as _, Source as _, Window};
use crate::run::{Direction, FailureClass, Mapping, Way};

/// A new table whose unique index on emails is older than that of its key, with an index in between that makes whoever sets
/// `test.waits` wait for an advisory lock: by then the row is in the first index, and not yet in the last.
const OLDER_INDEX: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
    CREATE TABLE leads_v2 (id bigint NOT NULL, email text, status_code text, note text DEFAULT 'new');
    CREATE FUNCTION wait_here(email text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
      IF current_setting('test.waits', true) = 'yes' THEN PERFORM pg_advisory_xact_lock(7); END IF; RETURN email; END $$;
    CREATE UNIQUE INDEX by_email ON leads_v2 (email);
    CREATE INDEX between ON leads_v2 (public.wait_here(email));
    ALTER TABLE leads_v2 ADD PRIMARY KEY (id);
    INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 3) AS n;";

/// The same with the index of the key before that on emails, and the one that waits before both.
const YOUNGER_INDEX: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
    CREATE TABLE leads_v2 (id bigint NOT NULL, email text, status_code text, note text DEFAULT 'new');
    CREATE FUNCTION wait_here(email text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
      IF current_setting('test.waits', true) = 'yes' THEN PERFORM pg_advisory_xact_lock(7); END IF; RETURN email; END $$;
    CREATE INDEX before ON leads_v2 (public.wait_here(email));
    ALTER TABLE leads_v2 ADD PRIMARY KEY (id);
    {other};
    INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 3) AS n;";

/// What the engine does, and what a client does once the engine waits for it. The engine waits for a moment only: on a slow
/// machine it may have given up before that was seen.
pub(super) async fn meet<T, C>(
    bed: &Bed,
    engine: impl Future<Output = T>,
    (condition, client): (&str, impl Future<Output = C>),
) -> (T, C) {
    let mut engine = std::pin::pin!(engine);
    let early = tokio::select! {
        done = &mut engine => Some(done),
        () = until_it_waits(bed, condition) => None,
    };
    match early {
        Some(done) => (done, client.await),
        None => tokio::join!(engine, client),
    }
}

/// What the engine's sessions are told by.
pub(super) const OURS: &str = "application_name LIKE 'phasegate%'";

/// Somebody who holds the advisory lock.
async fn gate(bed: &Bed) -> PgConnection {
    let mut gate = bed.client().await;
    say(&mut gate, "BEGIN; SELECT pg_advisory_xact_lock(7)").await.unwrap();
    gate
}

#[tokio::test]
async fn a_client_meets_the_row_of_a_chunk_in_another_unique_index_first() {
    for (statement, isolation) in [
        ("UPDATE leads SET status = 'Won' WHERE id = 2", "READ COMMITTED"),
        ("UPDATE leads SET status = 'Won' WHERE id = 2", "REPEATABLE READ"),
        ("UPDATE leads SET email = 'e2', status = 'Won' WHERE id = 2", "SERIALIZABLE"),
    ] {
        let Some(bed) = Bed::with(OLDER_INDEX, leads(), Direction::Forward).await else { return };
        let mut gate = gate(&bed).await;
        let mut copier = bed.client().await;
        let copy = format!("BEGIN; SET LOCAL test.waits = 'yes'; {}", chunk("id = 2"));
        let copying = tokio::spawn(async move {
            let done = say(&mut copier, &copy).await;
            (copier, done)
        });
        until_it_waits(&bed, "wait_event = 'advisory'").await;
        let mut client = bed.client().await;
        let script = format!("BEGIN ISOLATION LEVEL {isolation}; {statement}; COMMIT");
        let writing = tokio::spawn(async move { say(&mut client, &script).await });
        // It waits for the chunk, since it has met the chunk's row in the index on emails.
        until_it_waits(&bed, "wait_event IN ('transactionid', 'spectoken')").await;
        say(&mut gate, "COMMIT").await.unwrap();
        let (mut holder, done) = copying.await.unwrap();
        done.unwrap();
        say(&mut holder, "COMMIT").await.unwrap();
        writing.await.unwrap().unwrap_or_else(|error| panic!("{isolation} {statement}: {error}"));
        assert_eq!(bed.settle().await, 0);
        bed.run(&chunk("true")).await;
        assert_eq!(bed.number(WRONG).await, 0, "{isolation} {statement}");
        assert_eq!(bed.text("SELECT status_code FROM leads_v2 WHERE id = 2").await, "won");
    }
}

#[tokio::test]
async fn a_chunk_makes_the_row_while_a_client_looks_into_the_index_of_the_key() {
    for other in [
        "CREATE UNIQUE INDEX by_email ON leads_v2 (email)",
        "ALTER TABLE leads_v2 ADD EXCLUDE USING hash (email WITH =)",
    ] {
        for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
            let setup = YOUNGER_INDEX.replace("{other}", other);
            let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
            let mut gate = gate(&bed).await;
            let mut client = bed.client().await;
            let script = format!(
                "BEGIN ISOLATION LEVEL {isolation}; SET LOCAL test.waits = 'yes';
                 UPDATE leads SET status = 'Won' WHERE id = 2; COMMIT"
            );
            let writing = tokio::spawn(async move { say(&mut client, &script).await });
            // The key's index had nothing of the row when it was looked at, and has nothing yet.
            until_it_waits(&bed, "wait_event = 'advisory'").await;
            bed.run(&chunk("true")).await;
            say(&mut gate, "COMMIT").await.unwrap();
            let written = writing.await.unwrap();
            written.unwrap_or_else(|error| panic!("{isolation}, {other}: {error}"));
            bed.settle().await;
            assert_eq!(bed.number(WRONG).await, 0, "{isolation}, {other}");
            assert_eq!(bed.text("SELECT status_code FROM leads_v2 WHERE id = 2").await, "won");
        }
    }
}

/// Copies the only chunk there is.
async fn copy_whole(bed: &Bed, fence: &Fence) -> Result<u64, Error> {
    let step = work("copy", Way::Forward);
    let window = Window { rows: 100, count: 1, is_fixed: true };
    let planned = bed.postgres.plan_chunks(fence, &step, &bed.mapping, window).await?;
    let Some(chunk) = planned.open.first() else { return Ok(0) };
    let copied = bed.postgres.copy_chunk(fence, &step, &bed.mapping, bed.direction, chunk).await?;
    Ok(copied.rows_read)
}

#[tokio::test]
async fn a_chunk_meets_the_row_of_a_client_in_another_unique_index_first() {
    let Some(bed) = Bed::with(OLDER_INDEX, leads(), Direction::Forward).await else { return };
    let fence = entered(&bed.postgres, 2).await.remove(1);
    let mut gate = gate(&bed).await;
    let mut client = bed.client().await;
    let script =
        "BEGIN; SET LOCAL test.waits = 'yes'; UPDATE leads SET status = 'Won' WHERE id = 2; COMMIT";
    let writing = tokio::spawn(async move { say(&mut client, script).await });
    until_it_waits(&bed, "wait_event = 'advisory'").await;
    let letting_go = say(&mut gate, "COMMIT");
    let (copied, let_go) = meet(&bed, copy_whole(&bed, &fence), (OURS, letting_go)).await;
    let_go.unwrap();
    writing.await.unwrap().unwrap();
    // The chunk is told of a duplicate that is none: it is no fault of the row, and the next try finds it there.
    if let Err(error) = copied {
        assert_eq!(class::<u64>(Err(error)), FailureClass::Contention);
        assert_eq!(copy_whole(&bed, &fence).await.unwrap(), 3);
    }
    assert_eq!(bed.number(WRONG).await, 0);
    assert_eq!(bed.text("SELECT status_code FROM leads_v2 WHERE id = 2").await, "won");
}

#[tokio::test]
async fn a_chunk_commits_between_two_statements_of_a_trigger() {
    // Before a statement looks at any row it waits, with its snapshot taken.
    let setup = format!(
        "{TABLES}
         CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_setting('test.waits', true) = 'yes' THEN
             PERFORM set_config('test.waits', 'no', true), pg_advisory_xact_lock(7);
           END IF; RETURN NULL; END $$;
         CREATE TRIGGER wait_here BEFORE UPDATE ON leads_v2 FOR EACH STATEMENT EXECUTE FUNCTION wait_here();"
    );
    let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
    let mut gate = gate(&bed).await;
    let mut client = bed.client().await;
    let script =
        "BEGIN; SET LOCAL test.waits = 'yes'; UPDATE leads SET status = 'Won' WHERE id = 5; COMMIT";
    let writing = tokio::spawn(async move { say(&mut client, script).await });
    until_it_waits(&bed, "wait_event = 'advisory'").await;
    // The chunk reads the row as it was before, and lets the client change it.
    bed.run(&chunk("true")).await;
    say(&mut gate, "COMMIT").await.unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.text("SELECT status_code FROM leads_v2 WHERE id = 5").await, "won");
    assert_eq!(bed.number(WRONG).await, 0);
}

#[tokio::test]
async fn only_another_unique_index_makes_subtransactions_and_rebuilding_one_does_no_harm() {
    let catches = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'phasegate\\_%\\_a\\_key' \
        AND prosrc LIKE '%WHEN unique_violation%'";
    for (setup, expected) in [
        (TABLES.to_owned(), 0),
        (format!("{TABLES} CREATE INDEX ON leads_v2 (email)"), 0),
        (format!("{TABLES} CREATE UNIQUE INDEX ON leads_v2 (email)"), 1),
        (OLDER_INDEX.to_owned(), 1),
    ] {
        let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
        assert_eq!(bed.number(catches).await, expected, "{setup}");
        // The key's index is the youngest now.
        bed.run("REINDEX INDEX CONCURRENTLY leads_v2_pkey").await;
        bed.run("ALTER TABLE leads_v2 ADD UNIQUE (note, id)").await;
        assert_eq!(bed.state().await, crate::driver::SyncState::Active, "{setup}");
    }
}

#[tokio::test]
async fn a_noted_key_is_put_right_while_a_client_inserts_it_anew() {
    for ends in ["COMMIT", "ROLLBACK"] {
        let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
        let mut late = bed.client().await;
        say(&mut late, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM leads LIMIT 1")
            .await
            .unwrap();
        bed.run(&chunk("true")).await;
        say(&mut late, "DELETE FROM leads WHERE id = 5; COMMIT").await.unwrap();
        assert_eq!(bed.noted().await, 1);
        // The stale copy is there, and its key is on its way back.
        let mut client = bed.client().await;
        say(&mut client, "BEGIN; INSERT INTO leads VALUES (5, 'anew', 'Anew')").await.unwrap();
        let settling = bed.postgres.settle(&bed.fence, &bed.mapping);
        let (settled, ended) = meet(&bed, settling, (OURS, say(&mut client, ends))).await;
        ended.unwrap();
        // It may have yielded to the client; what was noted is noted still then.
        if let Err(error) = settled {
            assert_eq!(class::<u64>(Err(error)), FailureClass::Contention);
        }
        assert_eq!(bed.settle().await, 0);
        assert_eq!(bed.number(WRONG).await, 0, "{ends}");
        let copies = "SELECT count(*) FROM leads_v2 WHERE id = 5";
        assert_eq!(bed.number(copies).await, i64::from(ends == "COMMIT"));
    }
}

#[tokio::test]
async fn on_a_hot_key_it_is_the_chunk_that_gives_way() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    let fence = entered(&bed.postgres, 2).await.remove(1);
    let mut client = bed.client().await;
    say(&mut client, "BEGIN; DELETE FROM leads WHERE id = 9").await.unwrap();
    // The chunk has locked the rows before, and waits for that one; the client then wants one of those.
    let writing = say(&mut client, "DELETE FROM leads WHERE id = 1; COMMIT");
    let (copied, written) = meet(&bed, copy_whole(&bed, &fence), (OURS, writing)).await;
    written.unwrap();
    assert_eq!(class(copied), FailureClass::Contention);
    assert_eq!(copy_whole(&bed, &fence).await.unwrap(), 7);
    assert_eq!(bed.number(WRONG).await, 0);
}

#[tokio::test]
async fn two_clients_who_come_from_both_sides_deadlock_and_one_of_them_hears_of_it() {
    let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
    bed.run(&chunk("true")).await;
    let (mut old, mut new) = (bed.client().await, bed.client().await);
    say(&mut old, "BEGIN; UPDATE leads SET email = 'o' WHERE id = 1").await.unwrap();
    say(&mut new, "BEGIN; UPDATE leads_v2 SET email = 'n' WHERE id = 2").await.unwrap();
    let first = async { say(&mut old, "UPDATE leads SET email = 'o' WHERE id = 2; COMMIT").await };
    let second =
        async { say(&mut new, "UPDATE leads_v2 SET email = 'n' WHERE id = 1; COMMIT").await };
    let (first, second) = tokio::join!(first, second);
    let failed: Vec<String> = [first, second]
        .into_iter()
        .filter_map(|done| Some(done.err()?.as_database_error()?.code()?.into_owned()))
        .collect();
    assert_eq!(failed, ["40P01"], "they would with a trigger of anybody's");
    let parted =
        "SELECT count(*) FROM leads JOIN leads_v2 USING (id) WHERE leads.email <> leads_v2.email";
    assert_eq!(bed.number(parted).await, 0);
}

#[tokio::test]
async fn we_give_way_before_the_server_looks_for_deadlocks_whenever_it_does() {
    for deadlock in ["200ms", "1s"] {
        let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
        let name = bed.text("SELECT current_database()").await;
        bed.run(&format!("ALTER DATABASE {name} SET deadlock_timeout = '{deadlock}'")).await;
        let postgres = bed.database.open().await;
        let fence = entered(&postgres, 2).await.remove(0);
        let mut client = bed.client().await;
        say(&mut client, "BEGIN; SELECT 1 FROM leads_v2 LIMIT 1").await.unwrap();
        let stop = work("stop", Way::Forward);
        let removing = postgres.remove(&fence, &stop, &bed.mapping, bed.direction);
        let through = "UPDATE leads SET status = 'Through' WHERE id = 1; COMMIT";
        let asked = "query LIKE 'SAVEPOINT%LOCK TABLE%leads_v2%'";
        let (removed, written) = meet(&bed, removing, (asked, say(&mut client, through))).await;
        written.unwrap_or_else(|error| panic!("{deadlock}: {error}"));
        // It tries again as soon as the client is through.
        let detail = removed.unwrap_or_else(|error| panic!("{deadlock}: {error}")).detail.unwrap();
        assert!(detail.contains("clients were held for "), "{detail}");
    }
}

#[tokio::test]
async fn how_long_clients_were_held_is_told_when_a_sync_goes_in_and_out() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    assert_eq!(id(&bed.mapping).len(), 12);
    let held = |detail: Option<String>| detail.unwrap_or_default().starts_with("clients were held");
    for (step, way, expected) in
        [("again", Way::Forward, true), ("again", Way::Forward, false), ("again", Way::Back, true)]
    {
        let step = work(step, way);
        let (fence, mapping) = (&bed.fence, &bed.mapping);
        let applied = match way {
            Way::Forward => bed.postgres.install(fence, &step, mapping, bed.direction).await,
            Way::Back => bed.postgres.remove(fence, &step, mapping, bed.direction).await,
        };
        let applied = applied.unwrap();
        assert_eq!((held(applied.detail), !applied.before), (expected, expected));
    }
}

/// A chunk that finds copies there goes on without them, and reads what it copies under locks that let other columns be written:
/// its view of a row that leaves the filter is that of before.
#[tokio::test]
async fn a_copy_that_was_there_does_not_come_back_behind_the_filter() {
    let mapping = Mapping { filter: Some("status <> 'Gone'".into()), ..leads() };
    let Some(bed) = Bed::with(TABLES, mapping, Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    bed.run("UPDATE leads SET status = 'Gone' WHERE id = 5").await;
    assert!(bed.noted().await > 0, "a chunk that reads the row as it was brings it back");
    bed.run("INSERT INTO leads_v2 (id, email, status_code) VALUES (5, 'e5', 'open')").await;
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2 WHERE id = 5").await, 0);
}

/// Whoever puts a note right waits for the chunk that it is about.
#[tokio::test]
async fn a_note_is_put_right_after_the_chunk_that_is_still_open() {
    let mapping = Mapping { filter: Some("status <> 'Gone'".into()), ..leads() };
    let Some(bed) = Bed::with(TABLES, mapping, Direction::Forward).await else { return };
    let mut copier = bed.client().await;
    say(&mut copier, &format!("BEGIN; {}", chunk("true"))).await.unwrap();
    bed.run("UPDATE leads SET status = 'Gone' WHERE id = 5").await;
    assert!(bed.noted().await > 0);
    let settling = bed.postgres.settle(&bed.fence, &bed.mapping).await;
    assert_eq!(class(settling), FailureClass::Contention);
    say(&mut copier, "COMMIT").await.unwrap();
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2 WHERE id = 5").await, 0);
}

/// The milliseconds that a step says clients were held for.
fn held_ms(detail: &str) -> u64 {
    let told = detail.strip_prefix("clients were held for ").unwrap_or_else(|| panic!("{detail}"));
    let words = told.split([';', ',']).next().unwrap_or_default().split(' ');
    let ms = |word: &str| {
        let (number, times) = match word.strip_suffix("ms") {
            Some(number) => (number, 1),
            None => (word.strip_suffix('s')?, 1_000),
        };
        number.parse::<u64>().ok().map(|number| number * times)
    };
    words.map_while(ms).sum()
}

#[tokio::test]
async fn the_time_that_clients_were_held_is_that_of_the_locks() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    bed.run(
        "CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.4); END';
         CREATE EVENT TRIGGER slowly ON ddl_command_end WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION slowly();",
    )
    .await;
    let again = work("again", Way::Forward);
    let slow = bed.postgres.install(&bed.fence, &again, &bed.mapping, bed.direction).await;
    let slow = held_ms(&slow.unwrap().detail.unwrap());
    assert!((400..60_000).contains(&slow), "{slow} ms");
    // Who waits for a lock holds nobody.
    bed.run("DROP EVENT TRIGGER slowly").await;
    let mut client = bed.client().await;
    say(&mut client, "BEGIN; LOCK TABLE leads IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let stop = work("stop", Way::Forward);
    let removing = bed.postgres.remove(&bed.fence, &stop, &bed.mapping, bed.direction);
    let letting = async {
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        say(&mut client, "COMMIT").await
    };
    let (removed, _) = tokio::join!(removing, letting);
    if let Ok(applied) = removed {
        let fast = held_ms(&applied.detail.unwrap());
        assert!(fast < 1_500, "{fast} ms, while it was held itself");
    }
}

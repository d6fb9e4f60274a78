//! Clients under a live sync of two tables. What must hold is said in SQL of its own.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::Postgres;
use super::fixture::{Database, class, entered, mapping as plain_mapping, work};
use crate::driver::{DualWriter as _, Error, Fence, SyncState};
use crate::run::{Direction, FailureClass, Mapping, OnDelete, Way};

pub(super) const TABLES: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text DEFAULT 'new');
    INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n;";

/// Rows of one side that aren't on the other as they should be.
pub(super) const WRONG: &str = "
    SELECT count(*) FROM (
      (SELECT id, email, lower(status) FROM leads EXCEPT SELECT id, email, status_code FROM leads_v2)
      UNION ALL
      (SELECT id, email, status_code FROM leads_v2 EXCEPT SELECT id, email, lower(status) FROM leads)) AS d";

/// Copies of rows that were never copied before don't count.
pub(super) const WRONG_COPIES: &str = "
    SELECT count(*) FROM (SELECT id, email, status_code FROM leads_v2 EXCEPT SELECT id, email, lower(status) FROM leads) AS d";

pub(super) fn leads() -> Mapping {
    Mapping {
        columns: vec![("status_code".into(), "lower(status)".into())],
        ..plain_mapping(("leads", &["id"]), ("leads_v2", &["id"]))
    }
}

pub(super) fn both_leads() -> Mapping {
    Mapping { reverse: vec![("status".into(), "initcap(status_code)".into())], ..leads() }
}

/// A database with a sync on it.
pub(super) struct Bed {
    pub database: Database,
    pub postgres: Postgres,
    pub fence: Fence,
    pub mapping: Mapping,
    pub direction: Direction,
}

impl Bed {
    pub(super) async fn with(setup: &str, mapping: Mapping, direction: Direction) -> Option<Self> {
        let database = Database::with(setup).await?;
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await[0].clone();
        let bed = Self { database, postgres, fence, mapping, direction };
        bed.install().await.unwrap();
        assert_eq!(bed.state().await, SyncState::Active);
        Some(bed)
    }

    pub(super) async fn install(&self) -> Result<(), Error> {
        let work = work("sync", Way::Forward);
        self.postgres.install(&self.fence, &work, &self.mapping, self.direction).await.map(|_| ())
    }

    pub(super) async fn state(&self) -> SyncState {
        self.postgres.sync_state(&self.mapping, self.direction).await.unwrap()
    }

    /// As a run does it: again where others are in the way.
    pub(super) async fn settle(&self) -> u64 {
        for _ in 0..20 {
            match self.postgres.settle(&self.fence, &self.mapping).await {
                Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {}
                settled => return settled.unwrap(),
            }
        }
        panic!("others are in the way of settling for ever")
    }

    pub(super) async fn noted(&self) -> i64 {
        let id = super::sync_tests::id(&self.mapping);
        self.database.number(&format!("SELECT count(*) FROM phasegate.touched_{id}")).await
    }

    pub(super) async fn run(&self, script: &str) {
        self.database.run(script).await;
    }

    pub(super) async fn number(&self, query: &str) -> i64 {
        self.database.number(query).await
    }

    pub(super) async fn text(&self, query: &str) -> String {
        self.database.text(query).await
    }

    pub(super) async fn client(&self) -> PgConnection {
        self.database.client().await
    }
}

/// What stands for a mapping in the names of our objects.
pub(super) fn id(mapping: &Mapping) -> String {
    crate::run::Digest::of_bytes(mapping.name.as_str().as_bytes()).short().to_owned()
}

pub(super) async fn say(client: &mut PgConnection, script: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(client).await.map(|_| ())
}

/// A chunk as the copy makes it, of the rows that a filter lets pass.
pub(super) fn chunk(filter: &str) -> String {
    format!(
        "SELECT set_config('phasegate.guard', '{}', true); \
         INSERT INTO leads_v2 (id, email, status_code) SELECT id, email, lower(status) FROM leads WHERE {filter} \
         ORDER BY id FOR KEY SHARE ON CONFLICT (id) DO NOTHING",
        id(&leads())
    )
}

#[tokio::test]
async fn every_write_of_one_side_is_on_the_other() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    for (script, copies) in [
        ("INSERT INTO leads VALUES (10, 'x', 'NEW')", 1),
        ("UPDATE leads SET status = 'Won' WHERE id IN (1, 2)", 3),
        ("UPDATE leads SET other = 7 WHERE id = 1", 3),
        ("DELETE FROM leads WHERE id = 2", 2),
        ("DELETE FROM leads WHERE id = 3", 2),
        ("UPDATE leads SET id = 20, status = 'MOVED' WHERE id = 1", 2),
        (
            "INSERT INTO leads VALUES (20, 'y', 'AGAIN') ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status",
            2,
        ),
        ("INSERT INTO leads VALUES (20, 'y', 'NEVER') ON CONFLICT DO NOTHING", 2),
        (
            "MERGE INTO leads USING (VALUES (20, 'm'), (21, 'n')) AS v (id, email) ON leads.id = v.id \
          WHEN MATCHED THEN UPDATE SET email = v.email WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.email, NULL)",
            3,
        ),
        (
            "BEGIN; SAVEPOINT a; UPDATE leads SET status = 'S1' WHERE id = 20; ROLLBACK TO a; \
          SAVEPOINT b; UPDATE leads SET status = 'S2' WHERE id = 21; RELEASE b; COMMIT",
            3,
        ),
        (
            "BEGIN; DELETE FROM leads WHERE id = 21; SAVEPOINT c; INSERT INTO leads VALUES (21, 'z', 'BACK'); COMMIT",
            3,
        ),
        (
            "BEGIN; INSERT INTO leads VALUES (30, 'gone', 'X'); DELETE FROM leads WHERE id = 30; COMMIT",
            3,
        ),
        (
            "SET session_replication_role = replica; UPDATE leads SET status = 'Replica' WHERE id = 20",
            3,
        ),
        (
            "BEGIN; UPDATE leads SET id = -20 WHERE id = 20; UPDATE leads SET id = 20 WHERE id = 21; \
          UPDATE leads SET id = 21 WHERE id = -20; COMMIT",
            3,
        ),
        (&chunk("true"), 9),
        ("UPDATE leads SET id = id + 100", 9),
    ] {
        bed.run(script).await;
        assert_eq!(bed.number(WRONG_COPIES).await, 0, "{script}");
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, copies, "{script}");
    }
    assert_eq!(bed.number(WRONG).await, 0);
    let mut client = bed.client().await;
    let mut copy = client.copy_in_raw("COPY leads FROM STDIN").await.unwrap();
    copy.send("500\tcopied\tBulk\t\\N\n501\t\\N\t\\N\t\\N\n".as_bytes()).await.unwrap();
    copy.finish().await.unwrap();
    assert_eq!(bed.number(WRONG).await, 0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2 WHERE id >= 500").await, 2);
    bed.run("TRUNCATE leads").await;
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 0);
    assert_eq!(bed.noted().await, 0, "nothing of this needs a note");
}

#[tokio::test]
async fn a_row_whose_key_changes_keeps_what_only_the_new_side_has() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    bed.run(
        "UPDATE leads_v2 SET note = 'mine' WHERE id = 4; UPDATE leads SET id = 40 WHERE id = 4",
    )
    .await;
    assert_eq!(bed.text("SELECT note FROM leads_v2 WHERE id = 40").await, "mine");
    assert_eq!(bed.number(WRONG).await, 0);
}

/// What a client whose transaction began before the chunk does to a row that the chunk has copied meanwhile.
const LATE: [(&str, &str); 6] = [
    ("delete", "DELETE FROM leads WHERE id = 5"),
    ("update", "UPDATE leads SET status = 'Late' WHERE id = 5"),
    ("key", "UPDATE leads SET id = 50 WHERE id = 5"),
    ("again", "DELETE FROM leads WHERE id = 5; INSERT INTO leads VALUES (5, 'again', 'Again')"),
    (
        "there and back",
        "UPDATE leads SET id = 50 WHERE id = 5; UPDATE leads SET id = 5 WHERE id = 50",
    ),
    ("insert", "INSERT INTO leads VALUES (55, 'i', 'I')"),
];

#[tokio::test]
async fn a_client_with_an_old_snapshot_meets_a_chunk() {
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for (what, statement) in LATE {
            let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
            let mut client = bed.client().await;
            say(
                &mut client,
                &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM leads LIMIT 1"),
            )
            .await
            .unwrap();
            bed.run(&chunk("true")).await;
            say(&mut client, statement).await.unwrap_or_else(|e| panic!("{isolation} {what}: {e}"));
            say(&mut client, "COMMIT").await.unwrap();
            let noted = bed.noted().await;
            assert_eq!(bed.settle().await, 0, "{isolation} {what}");
            assert_eq!(bed.number(WRONG).await, 0, "{isolation} {what} ({noted} noted)");
            let is_blind = isolation != "READ COMMITTED" && what != "insert";
            assert_eq!(noted > 0, is_blind, "{isolation} {what}: {noted} noted");
        }
    }
}

#[tokio::test]
async fn a_key_that_others_deleted_is_inserted_under_an_old_snapshot() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
        bed.run(&chunk("true")).await;
        let mut client = bed.client().await;
        say(
            &mut client,
            &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM leads LIMIT 1"),
        )
        .await
        .unwrap();
        bed.run("DELETE FROM leads WHERE id = 5").await;
        say(&mut client, "INSERT INTO leads VALUES (5, 'anew', 'Anew'); COMMIT").await.unwrap();
        bed.settle().await;
        assert_eq!(bed.number(WRONG).await, 0, "{isolation}");
        assert_eq!(bed.text("SELECT email FROM leads_v2 WHERE id = 5").await, "anew");
    }
}

/// Looks on until a session waits for a lock of which a condition over `pg_stat_activity` holds.
pub(super) async fn until_it_waits(bed: &Bed, condition: &str) {
    let mut watcher = bed.client().await;
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND {condition}"
    );
    for _ in 0..2000 {
        let row = watcher.fetch_one(AssertSqlSafe(sql.clone())).await.unwrap();
        if row.get::<i64, _>(0) > 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("nothing waits for a lock where {condition}");
}

/// Runs a statement on its own connection until it waits for a lock, then lets go what holds it.
pub(super) async fn meet_with(
    bed: &Bed,
    holder: &mut PgConnection,
    statement: &str,
    isolation: &str,
) -> Result<(), sqlx::Error> {
    let mut waiter = bed.client().await;
    let pid: i32 =
        sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut waiter).await.unwrap().get(0);
    let begin = format!(
        "BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM leads LIMIT 1; {statement}; COMMIT"
    );
    let waiting = tokio::spawn(async move { say(&mut waiter, &begin).await });
    let mut watcher = bed.client().await;
    loop {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        let row = sqlx::query(sql).bind(pid).fetch_one(&mut watcher).await.unwrap();
        if row.get::<i64, _>(0) > 0 || waiting.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    say(holder, "COMMIT").await.unwrap();
    waiting.await.unwrap()
}

#[tokio::test]
async fn a_client_writes_a_row_while_its_chunk_is_open() {
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for (what, statement) in LATE {
            let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
            let mut copier = bed.client().await;
            say(&mut copier, &format!("BEGIN; {}", chunk("true"))).await.unwrap();
            let met = meet_with(&bed, &mut copier, statement, isolation).await;
            met.unwrap_or_else(|error| panic!("{isolation} {what}: {error}"));
            assert_eq!(bed.settle().await, 0);
            assert_eq!(bed.number(WRONG).await, 0, "{isolation} {what}");
        }
    }
}

#[tokio::test]
async fn rows_enter_and_leave_the_filter() {
    let filtered = Mapping { filter: Some("status <> 'Gone' -- those stay".into()), ..leads() };
    let wrong = "SELECT count(*) FROM (
        (SELECT id, email, lower(status) FROM leads WHERE status <> 'Gone' EXCEPT SELECT id, email, status_code FROM leads_v2)
        UNION ALL
        (SELECT id, email, status_code FROM leads_v2 EXCEPT SELECT id, email, lower(status) FROM leads WHERE status <> 'Gone')) AS d";
    let Some(bed) = Bed::with(TABLES, filtered, Direction::Forward).await else { return };
    let copy = chunk("status <> 'Gone'");
    bed.run("UPDATE leads SET status = 'Gone' WHERE id = 1").await;
    assert_eq!(bed.noted().await, 1, "its chunk may have been open");
    assert_eq!(bed.settle().await, 0);
    bed.run("UPDATE leads SET other = 1 WHERE id = 1; INSERT INTO leads VALUES (77, 'g', 'Gone')")
        .await;
    assert_eq!(bed.noted().await, 0, "no chunk can have seen it");
    bed.run(&copy).await;
    for script in [
        "UPDATE leads SET status = 'Gone' WHERE id = 2",
        "UPDATE leads SET status = 'Here' WHERE id IN (1, 2)",
        "UPDATE leads SET id = 30, status = 'Gone' WHERE id = 3",
        "DELETE FROM leads WHERE id = 30",
        "UPDATE leads SET id = 40, status = 'Gone' WHERE id = 4",
        "UPDATE leads SET id = 41, status = 'Back' WHERE id = 40",
    ] {
        bed.run(script).await;
        assert_eq!(bed.number(wrong).await, 0, "{script}");
    }
    assert_eq!(
        bed.noted().await,
        3,
        "a chunk may have read what left as it was, and bring it back"
    );
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number(wrong).await, 0);
    // The chunk is open when the row leaves, and the chunk's lock lets that happen.
    bed.run("DELETE FROM leads_v2").await;
    let mut copier = bed.client().await;
    say(&mut copier, &format!("BEGIN; {copy}")).await.unwrap();
    bed.run("UPDATE leads SET status = 'Gone' WHERE id = 6").await;
    say(&mut copier, "COMMIT").await.unwrap();
    assert_eq!(bed.number(wrong).await, 1, "without settling it lives on");
    assert_eq!(bed.settle().await, 0);
    assert_eq!(bed.number(wrong).await, 0);
}

#[tokio::test]
async fn the_copy_of_a_deleted_row_does_as_the_mapping_says() {
    for (on_delete, expected) in [(OnDelete::Nullify, "NULL"), (OnDelete::Ignore, "open")] {
        let mapping = Mapping { on_delete, ..leads() };
        let Some(bed) = Bed::with(TABLES, mapping, Direction::Forward).await else { return };
        bed.run(&format!("{}; DELETE FROM leads WHERE id = 2", chunk("true"))).await;
        assert_eq!(bed.text("SELECT status_code FROM leads_v2 WHERE id = 2").await, expected);
        bed.run("TRUNCATE leads").await;
        assert_eq!(bed.text("SELECT status_code FROM leads_v2 WHERE id = 3").await, expected);
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 9);
        bed.run("INSERT INTO leads VALUES (2, 'b', 'Back')").await;
        assert_eq!(bed.text("SELECT status_code FROM leads_v2 WHERE id = 2").await, "back");
    }
}

#[tokio::test]
async fn removing_empties_what_was_found_empty_and_only_going_back() {
    for way in [Way::Forward, Way::Back] {
        let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
        bed.run(&chunk("true")).await;
        let step = match way {
            Way::Forward => work("stop", way),
            Way::Back => work("sync", way),
        };
        for before in [false, true] {
            let done =
                bed.postgres.remove(&bed.fence, &step, &bed.mapping, bed.direction).await.unwrap();
            assert_eq!((done.before, done.rows), (before, if way == Way::Back { 9 } else { 0 }));
        }
        let left = bed.number("SELECT count(*) FROM leads_v2").await;
        assert_eq!(left, if way == Way::Back { 0 } else { 9 });
        assert!(matches!(bed.state().await, SyncState::Broken(_)));
        let objects =
            "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'phasegate'::regnamespace)
            + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%phasegate%')
            + (SELECT count(*) FROM pg_class WHERE relname ~ '^(touched|kept|parked)_')";
        assert_eq!(bed.number(objects).await, 0);
        bed.run("DELETE FROM leads WHERE id = 1; INSERT INTO leads VALUES (99)").await;
    }
}

#[tokio::test]
async fn whatever_was_changed_about_the_triggers_is_noticed() {
    let id = id(&leads());
    for (script, said) in [
        (format!("ALTER TABLE leads DISABLE TRIGGER zzzz_phasegate_{id}_a"), "is disabled"),
        ("ALTER TABLE leads DISABLE TRIGGER ALL".to_owned(), "is disabled"),
        (
            format!("ALTER TABLE leads ENABLE REPLICA TRIGGER zzzz_phasegate_{id}_a_truncate"),
            "is disabled",
        ),
        (format!("DROP TRIGGER zzzz_phasegate_{id}_a ON leads"), "is missing"),
        (
            format!(
                "CREATE OR REPLACE TRIGGER zzzz_phasegate_{id}_a AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION phasegate.phasegate_{id}_a()"
            ),
            "was changed",
        ),
        (
            format!(
                "CREATE OR REPLACE FUNCTION phasegate.phasegate_{id}_a() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
            ),
            "was changed",
        ),
        (format!("ALTER FUNCTION phasegate.phasegate_{id}_a() SECURITY INVOKER"), "was changed"),
        (format!("ALTER FUNCTION phasegate.phasegate_{id}_a() RESET search_path"), "was changed"),
        (
            format!(
                "CREATE TRIGGER zzzz_phasegate_{id}_z AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION phasegate.phasegate_{id}_a()"
            ),
            "does not belong here",
        ),
        (format!("DROP TABLE phasegate.touched_{id}"), "is missing"),
    ] {
        let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
        bed.run(&script).await;
        let state = bed.state().await;
        assert!(
            matches!(&state, SyncState::Broken(why) if why.contains(said)),
            "{script}: {state:?}"
        );
    }
}

#[tokio::test]
async fn installing_again_does_nothing_and_contention_is_told() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    bed.install().await.unwrap();
    let mut writer = bed.client().await;
    say(&mut writer, "BEGIN; UPDATE leads SET other = 1 WHERE id = 1").await.unwrap();
    let step = work("other", Way::Forward);
    let waited = bed.postgres.install(&bed.fence, &step, &bed.mapping, bed.direction).await;
    assert_eq!(class(waited), FailureClass::Contention);
    say(&mut writer, "ROLLBACK").await.unwrap();
    assert_eq!(bed.state().await, SyncState::Active);
    let mut client = bed.client().await;
    client.execute("UPDATE leads SET other = 2 WHERE id = 1").await.unwrap();
}

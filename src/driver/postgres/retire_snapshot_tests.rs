//! Clients whose view of the database is older than rows of ours, and who come to a table for the first time when it has
//! changed its name.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::Postgres;
use super::fixture::{Database, class, entered, mapping as plain_mapping, work};
use super::retire_tests::whole;
use super::sync_tests::{Bed, both_leads, leads, say};
use crate::driver::{
    Access, Applied, DualWriter as _, Error, Fence, Losses, Retirer as _, Sink as _, Source as _,
    Window, Work,
};
use crate::run::{
    CopyColumns, Direction, FailureClass, Mapping, Permit, Retire, RetireShape, RetiredColumn, Way,
};

const TABLES: &str = "
    CREATE TABLE elsewhere (id int);
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status text, status_code text, note text);
    INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 9) AS n;";

const PLACE: &str = "
    CREATE TABLE elsewhere (id int);
    CREATE TABLE t (id int PRIMARY KEY, a text, a2 text);
    INSERT INTO t (id, a) SELECT i, 'A' || i FROM generate_series(1, 9) AS i;";

fn columns() -> Mapping {
    Mapping {
        copy: CopyColumns::Listed,
        columns: vec![("a2".into(), "lower(a)".into())],
        ..plain_mapping(("t", &["id"]), ("t", &["id"]))
    }
}

fn both_columns() -> Mapping {
    Mapping { reverse: vec![("a".into(), "upper(a2)".into())], ..columns() }
}

fn renamed() -> RetireShape {
    RetireShape::Columns(vec![RetiredColumn {
        column: "a".into(),
        old_name: "a_old".into(),
        take_name: Some("a2".into()),
    }])
}

/// A client who has a view of the database, and no table of the mapping.
async fn viewer(database: &Database, isolation: &str) -> PgConnection {
    let mut client = database.client().await;
    let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM elsewhere");
    say(&mut client, &begin).await.unwrap();
    client
}

async fn number(client: &mut PgConnection, query: &str) -> i64 {
    let query = format!("SELECT ({query})::bigint");
    sqlx::query(AssertSqlSafe(query)).fetch_one(client).await.unwrap().try_get(0).unwrap()
}

/// Copies everything that there is.
async fn copy(bed: &Bed, fence: &Fence) {
    let step = work("copy", Way::Forward);
    let window = Window { rows: 100, count: 1, is_fixed: true };
    let planned = bed.postgres.plan_chunks(fence, &step, &bed.mapping, window).await.unwrap();
    let (mapping, direction) = (&bed.mapping, bed.direction);
    for chunk in &planned.open {
        bed.postgres.copy_chunk(fence, &step, mapping, direction, chunk).await.unwrap();
    }
}

/// Our work at the names, with little patience.
fn soon(way: Way) -> Work {
    Work { lock_timeout_ms: Some(150), ..work("retire", way) }
}

async fn retire(bed: &Bed, shape: &RetireShape) -> Result<Applied, Error> {
    let (fence, mapping) = (&bed.fence, &bed.mapping);
    bed.postgres
        .retire(fence, &soon(Way::Forward), mapping, bed.direction, &Retire::of(mapping, shape))
        .await
}

async fn unretire(bed: &Bed, shape: &RetireShape) -> Result<Applied, Error> {
    let (fence, mapping, work) = (&bed.fence, &bed.mapping, soon(Way::Back));
    bed.postgres.unretire(fence, &work, mapping, bed.direction, shape, Losses::Refused).await
}

/// What an error says, detail and help included.
fn told(result: Result<Applied, Error>) -> String {
    match result {
        Err(Error::Failed(failure)) => {
            assert_eq!(failure.class, FailureClass::Contention, "{failure:?}");
            format!("{} | {:?} | {:?}", failure.message, failure.detail, failure.help)
        }
        other => panic!("it did not wait: {other:?}"),
    }
}

async fn pid(client: &mut PgConnection) -> i64 {
    number(client, "SELECT pg_backend_pid()").await
}

#[tokio::test]
async fn a_table_takes_a_name_when_everybody_sees_its_rows() {
    for (direction, isolation) in [
        (Direction::Forward, "REPEATABLE READ"),
        (Direction::Forward, "SERIALIZABLE"),
        (Direction::Both, "REPEATABLE READ"),
    ] {
        let mapping = if direction == Direction::Both { both_leads() } else { leads() };
        let Some(bed) = Bed::with(TABLES, mapping, direction).await else { return };
        let mut client = viewer(&bed.database, isolation).await;
        copy(&bed, &bed.fence).await;
        let pid = pid(&mut client).await;
        let told = told(retire(&bed, &whole(true)).await);
        assert!(told.contains(&format!("pid {pid} (")), "{told}");
        assert!(told.contains(&format!("pg_terminate_backend({pid})")), "{told}");
        // It comes to the table only now, and finds what it should.
        assert_eq!(number(&mut client, "SELECT count(*) FROM leads").await, 9, "{isolation}");
        let late = "UPDATE leads SET status = 'Late' WHERE id = 5";
        let done = sqlx::query(late).execute(&mut client).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{isolation}");
        say(&mut client, "COMMIT").await.unwrap();
        retire(&bed, &whole(true)).await.unwrap();
        assert_eq!(bed.text("SELECT status_code FROM leads WHERE id = 5").await, "late");
    }
}

#[tokio::test]
async fn what_is_put_right_on_the_way_is_waited_for_too() {
    for gone in [true, false] {
        let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
        let mut blind = viewer(&bed.database, "REPEATABLE READ").await;
        copy(&bed, &bed.fence).await;
        let statement = if gone {
            "DELETE FROM leads WHERE id = 5; COMMIT"
        } else {
            "UPDATE leads SET status = 'Blind' WHERE id = 5; COMMIT"
        };
        say(&mut blind, statement).await.unwrap();
        assert_eq!(bed.noted().await, 1);
        // From here on the row is right on the one side alone.
        let mut client = viewer(&bed.database, "REPEATABLE READ").await;
        told(retire(&bed, &whole(true)).await);
        assert_eq!(bed.noted().await, 0);
        let right = if gone {
            "SELECT count(*) FROM leads WHERE id <> 5"
        } else {
            "SELECT 8 FROM leads WHERE id = 5 AND status = 'Blind'"
        };
        assert_eq!(number(&mut client, right).await, 8);
        assert_eq!(number(&mut client, "SELECT count(*) FROM leads").await, 9 - i64::from(gone));
        say(&mut client, "COMMIT").await.unwrap();
        retire(&bed, &whole(true)).await.unwrap();
    }
}

#[tokio::test]
async fn columns_take_names_when_everybody_sees_their_values() {
    for direction in [Direction::Forward, Direction::Both] {
        let mapping = if direction == Direction::Both { both_columns() } else { columns() };
        let Some(bed) = Bed::with(PLACE, mapping, direction).await else { return };
        let mut client = viewer(&bed.database, "REPEATABLE READ").await;
        copy(&bed, &bed.fence).await;
        told(retire(&bed, &renamed()).await);
        assert_eq!(number(&mut client, "SELECT count(*) FROM t WHERE a = 'A' || id").await, 9);
        say(&mut client, "COMMIT").await.unwrap();
        retire(&bed, &renamed()).await.unwrap();
        let mut client = viewer(&bed.database, "REPEATABLE READ").await;
        assert_eq!(number(&mut client, "SELECT count(*) FROM t WHERE a = 'a' || id").await, 9);
    }
}

#[tokio::test]
async fn names_come_back_when_everybody_sees_the_rows() {
    let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
    copy(&bed, &bed.fence).await;
    retire(&bed, &whole(true)).await.unwrap();
    let mut blind = viewer(&bed.database, "REPEATABLE READ").await;
    // What only the new side has changed, so that the blind one can't write the row there.
    bed.run("UPDATE leads SET note = 'mine' WHERE id = 5").await;
    let late = "UPDATE leads_old SET status = 'Blind' WHERE id = 5; COMMIT";
    say(&mut blind, late).await.unwrap();
    assert_eq!(bed.noted().await, 1);
    let mut client = viewer(&bed.database, "REPEATABLE READ").await;
    told(unretire(&bed, &whole(true)).await);
    say(&mut client, "COMMIT").await.unwrap();
    unretire(&bed, &whole(true)).await.unwrap();
    assert_eq!(bed.text("SELECT status FROM leads WHERE id = 5").await, "Blind");
    assert_eq!(bed.text("SELECT status_code FROM leads_v2 WHERE id = 5").await, "blind");
}

#[tokio::test]
async fn what_is_noted_at_the_end_is_put_right_before_the_sync_goes() {
    for drops in [true, false] {
        let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
        copy(&bed, &bed.fence).await;
        if drops {
            retire(&bed, &whole(true)).await.unwrap();
        }
        let (old, new) = if drops { ("leads_old", "leads") } else { ("leads", "leads_v2") };
        let mut blind = viewer(&bed.database, "REPEATABLE READ").await;
        bed.run(&format!("UPDATE {new} SET note = 'mine' WHERE id = 5")).await;
        let late = format!("UPDATE {old} SET status = 'Blind' WHERE id = 5; COMMIT");
        say(&mut blind, &late).await.unwrap();
        assert_eq!(bed.noted().await, 1);
        if drops {
            let (work, permit) = (work("drop", Way::Forward), Permit::for_test("drop"));
            let (fence, mapping) = (&bed.fence, &bed.mapping);
            bed.postgres.drop_retired(fence, &work, mapping, &whole(true), permit).await.unwrap();
        } else {
            let stop = work("stop", Way::Forward);
            bed.postgres.remove(&bed.fence, &stop, &bed.mapping, bed.direction).await.unwrap();
        }
        let row = format!("SELECT note || status_code FROM {new} WHERE id = 5");
        assert_eq!(bed.text(&row).await, "mineblind", "{drops}");
    }
}

#[tokio::test]
async fn nobody_else_is_waited_for() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    let mut server = url::Url::parse(&bed.database.url).unwrap();
    server.set_path("postgres");
    let mut abroad = PgConnection::connect(server.as_str()).await.unwrap();
    say(&mut abroad, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    // An open transaction sees each time what is there then, and an older writer doesn't make newer views old ones.
    let mut writer = bed.client().await;
    say(&mut writer, "BEGIN; INSERT INTO elsewhere VALUES (1)").await.unwrap();
    let mut first = viewer(&bed.database, "REPEATABLE READ").await;
    copy(&bed, &bed.fence).await;
    told(retire(&bed, &whole(true)).await);
    // Who comes later sees everything, and is not waited for in the next attempt either.
    let mut second = viewer(&bed.database, "REPEATABLE READ").await;
    say(&mut first, "COMMIT").await.unwrap();
    retire(&bed, &whole(true)).await.unwrap();
    assert_eq!(number(&mut second, "SELECT count(*) FROM leads").await, 9);
    say(&mut abroad, "COMMIT").await.unwrap();
    say(&mut writer, "COMMIT").await.unwrap();
}

#[tokio::test]
async fn what_is_repaired_between_two_attempts_is_waited_for_anew() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    let mut first = viewer(&bed.database, "REPEATABLE READ").await;
    copy(&bed, &bed.fence).await;
    told(retire(&bed, &whole(true)).await);
    bed.run("DELETE FROM leads_v2 WHERE id = 5").await;
    let mut second = viewer(&bed.database, "REPEATABLE READ").await;
    let all = crate::copy::chunk::Chunk { lo: None, hi: None };
    let repaired = crate::driver::Verifier::repair_chunk(
        &bed.postgres,
        &bed.fence,
        &bed.mapping,
        bed.direction,
        &all,
    );
    assert_eq!(repaired.await.unwrap(), 1);
    say(&mut first, "COMMIT").await.unwrap();
    told(retire(&bed, &whole(true)).await);
    assert_eq!(number(&mut second, "SELECT count(*) FROM leads").await, 9);
    say(&mut second, "COMMIT").await.unwrap();
    retire(&bed, &whole(true)).await.unwrap();
}

#[tokio::test]
async fn a_role_that_is_told_little_of_others_waits_for_them_all_the_same() {
    let owner = format!("owner_{}", uuid::Uuid::now_v7().simple());
    let setup = format!(
        "CREATE ROLE {owner} LOGIN; {TABLES} ALTER TABLE leads OWNER TO {owner}; ALTER TABLE leads_v2 OWNER TO {owner};
         GRANT CREATE ON SCHEMA public TO {owner}; CREATE SCHEMA phasegate AUTHORIZATION {owner};"
    );
    let Some(database) = Database::with(&setup).await else { return };
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&owner).unwrap();
    let postgres = Postgres::open(url.as_str(), None, Access::Full).await.unwrap();
    let fence = entered(&postgres, 1).await[0].clone();
    let sync = work("sync", Way::Forward);
    postgres.install(&fence, &sync, &leads(), Direction::Forward).await.unwrap();
    let bed = Bed { database, postgres, fence, mapping: leads(), direction: Direction::Forward };
    let mut client = viewer(&bed.database, "REPEATABLE READ").await;
    copy(&bed, &bed.fence).await;
    let pid = pid(&mut client).await;
    let told = told(retire(&bed, &whole(true)).await);
    assert!(told.contains(&format!("pid {pid} (")), "{told}");
    assert!(told.contains(&format!("GRANT pg_read_all_stats TO {owner}")), "{told}");
    say(&mut client, "COMMIT").await.unwrap();
    retire(&bed, &whole(true)).await.unwrap();
    bed.run(&format!("DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}")).await;
}

#[tokio::test]
async fn what_is_in_the_way_is_told_without_waiting() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    let _client = viewer(&bed.database, "REPEATABLE READ").await;
    copy(&bed, &bed.fence).await;
    bed.run("CREATE MATERIALIZED VIEW m AS SELECT 1 FROM leads").await;
    assert_eq!(class(retire(&bed, &whole(true)).await), FailureClass::Refused);
}

//! Tests of rows that can't be copied and are kept apart.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use super::Postgres;
use super::copy_tests::mark;
use super::fixture::{Database, class, entered, mapping, work};
use crate::copy::chunk::Planned;
use crate::driver::{Copied, DualWriter as _, Error, Fence, Parker as _, Source as _, Window};
use crate::run::{Direction, FailureClass, Mapping, Parked, ParkedRow, Way};

/// A hundred rows, of which each statement of [`TROUBLES`] spoils some.
const SCHEMA: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, email text, n text, refers int, period int4range);
    CREATE DOMAIN short_text AS text CHECK (length(value) < 10);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, n text, refers int, period int4range,
        amount int NOT NULL, size varchar(12), name short_text);
    INSERT INTO leads SELECT x, 'e' || x, x::text, NULL, int4range(x, x + 1) FROM generate_series(1, 100) AS x;";

fn leads() -> Mapping {
    let mut mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    mapping.columns = vec![
        ("amount".into(), "n::int".into()),
        ("size".into(), "email".into()),
        ("name".into(), "email".into()),
    ];
    mapping
}

async fn plan(postgres: &Postgres, fence: &Fence, rows: u32, of: &Mapping) -> Vec<Planned> {
    let (step, size) = (work("copy", Way::Forward), Window { rows, count: 20, is_fixed: true });
    postgres.plan_chunks(fence, &step, of, size).await.unwrap().open
}

async fn park(
    postgres: &Postgres,
    fence: &Fence,
    of: &Mapping,
    (chunk, most): (&Planned, u32),
) -> Result<Copied, Error> {
    let step = work("copy", Way::Forward);
    postgres.copy_parking(fence, &step, of, Direction::Forward, (chunk, most)).await
}

async fn parked(postgres: &Postgres, of: &Mapping) -> Parked {
    postgres.parked(of, Direction::Forward, 1_000).await.unwrap()
}

/// Keys of one column and codes, in the order of keys.
fn codes(parked: &Parked) -> BTreeMap<i64, String> {
    assert_eq!(parked.total, parked.rows.len() as u64);
    let one = |row: &ParkedRow| {
        assert!(row.since.ends_with('Z') && !row.reason.is_empty(), "{row:?}");
        assert_eq!((row.key.len(), row.key[0].0.as_str()), (1, "id"));
        (row.key[0].1.parse().unwrap(), row.code.clone().unwrap_or_default())
    };
    parked.rows.iter().map(one).collect()
}

/// What spoils rows, the keys of the spoilt ones, the code, and what the reason says.
const TROUBLES: [(&str, &[i64], &str, &str); 12] = [
    ("UPDATE leads SET n = 'many' WHERE id IN (1, 50, 100)", &[1, 50, 100], "22P02", "\"many\""),
    ("UPDATE leads SET n = '9999999999' WHERE id = 7", &[7], "22003", "out of range"),
    ("UPDATE leads SET n = NULL WHERE id IN (8, 9)", &[8, 9], "23502", "not-null"),
    ("UPDATE leads SET email = 'too long for it' WHERE id = 3", &[3], "22001", "too long"),
    ("UPDATE leads SET email = 'ten letter' WHERE id = 3", &[3], "23514", "short_text"),
    (
        "ALTER TABLE leads_v2 ADD CHECK (amount <> 12 AND amount <> 13)",
        &[12, 13],
        "23514",
        "violates check",
    ),
    (
        "ALTER TABLE leads_v2 ADD UNIQUE (email); UPDATE leads SET email = 'e40' WHERE id IN (41, 60)",
        &[41, 60],
        "23505",
        "(email)=(e40)",
    ),
    (
        "ALTER TABLE leads_v2 ADD UNIQUE (email) DEFERRABLE INITIALLY DEFERRED; UPDATE leads SET email = 'e40' WHERE id = 41",
        &[41],
        "23505",
        "(email)=(e40)",
    ),
    (
        "ALTER TABLE leads_v2 ADD EXCLUDE USING gist (period WITH &&); UPDATE leads SET period = '[1,3)' WHERE id = 90",
        &[90],
        "23P01",
        "conflicting key",
    ),
    (
        "CREATE TABLE others (id int PRIMARY KEY); INSERT INTO others VALUES (5);
         ALTER TABLE leads_v2 ADD FOREIGN KEY (refers) REFERENCES others;
         UPDATE leads SET refers = id WHERE id IN (5, 6)",
        &[6],
        "23503",
        "(refers)=(6)",
    ),
    (
        "CREATE TABLE others (id int PRIMARY KEY); INSERT INTO others VALUES (5);
         ALTER TABLE leads_v2 ADD FOREIGN KEY (refers) REFERENCES others DEFERRABLE INITIALLY DEFERRED;
         UPDATE leads SET refers = id WHERE id IN (5, 6)",
        &[6],
        "23503",
        "(refers)=(6)",
    ),
    (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF NEW.amount % 50 = 0 THEN RAISE ''not this one''; END IF; RETURN NEW; END';
         CREATE TRIGGER no BEFORE INSERT ON leads_v2 FOR EACH ROW EXECUTE FUNCTION no()",
        &[50, 100],
        "P0001",
        "not this one",
    ),
];

#[tokio::test]
async fn whatever_is_wrong_with_a_row_it_is_parked_and_the_others_are_copied() {
    for (trouble, keys, code, said) in TROUBLES {
        let Some(database) = Database::with(SCHEMA).await else { return };
        database.run(trouble).await;
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(1);
        mark(&postgres, &fence, &leads()).await;
        let chunks = plan(&postgres, &fence, 64, &leads()).await;
        let spoilt = keys.len() as u64;
        let (mut read, mut written) = (0, 0);
        for chunk in &chunks {
            let done = park(&postgres, &fence, &leads(), (chunk, 10)).await.unwrap();
            assert!(!done.before);
            (read, written) = (read + done.rows_read, written + done.rows_written);
            let again = park(&postgres, &fence, &leads(), (chunk, 10)).await.unwrap();
            assert!(again.before, "{trouble}");
        }
        assert_eq!((read, written), (100, 100 - spoilt), "{trouble}");
        let found = parked(&postgres, &leads()).await;
        let expected: BTreeMap<i64, String> =
            keys.iter().map(|key| (*key, code.to_owned())).collect();
        assert_eq!(codes(&found), expected, "{trouble}");
        assert!(found.rows.iter().all(|row| row.reason.contains(said)), "{found:?}");
        let there = "SELECT count(*) FROM leads_v2 WHERE amount = id";
        assert_eq!(database.number(there).await, 100 - i64::try_from(spoilt).unwrap());
        let kept = format!(
            "SELECT count(*) FROM phasegate.parked_{} WHERE run_id = 'r1' AND step = 'copy' AND parked_at <= now()",
            super::shape::id_of(&leads())
        );
        assert_eq!(database.number(&kept).await, i64::try_from(spoilt).unwrap());
        database.gone().await;
    }
}

#[tokio::test]
async fn no_more_rows_are_parked_than_allowed_however_many_do_it_at_once() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    database.run("UPDATE leads SET n = 'x' WHERE id % 10 < 3").await;
    let postgres = std::sync::Arc::new(database.open().await);
    let fences = entered(&postgres, 1).await;
    mark(&postgres, &fences[1], &leads()).await;
    let chunks = plan(&postgres, &fences[1], 10, &leads()).await;
    assert_eq!(chunks.len(), 10);
    // Three rows of each chunk are spoilt: with ten allowed three chunks go through, whichever they are.
    let mut tasks = tokio::task::JoinSet::new();
    for (chunk, fence) in chunks.into_iter().zip(fences[1..].iter().cloned().cycle()) {
        let postgres = postgres.clone();
        tasks.spawn(async move {
            loop {
                match park(&postgres, &fence, &leads(), (&chunk, 10)).await {
                    Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {}
                    other => return other,
                }
            }
        });
    }
    let all = tasks.join_all().await;
    let mut refused = 0;
    for done in &all {
        let Err(Error::Failed(failure)) = done else { continue };
        refused += 1;
        let said = [
            "more than 10 rows of ",
            "which is as many as may be parked",
            "\"id\" = ",
            "invalid input",
        ];
        assert!(said.iter().all(|said| failure.message.contains(said)), "{failure:?}");
        assert_eq!(failure.code.as_deref(), Some("22P02"));
        assert!(failure.help.as_ref().unwrap().contains("park_max"), "{failure:?}");
    }
    assert_eq!(all.len() - refused, 3, "{all:?}");
    assert_eq!(parked(&postgres, &leads()).await.total, 9);
    // Of a chunk that was refused nothing is there.
    assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 21);
    let open = "SELECT count(*) FROM phasegate.chunks WHERE NOT committed";
    assert_eq!(database.number(open).await, 7);
}

#[tokio::test]
async fn rows_that_were_mended_or_are_gone_are_tried_again_and_the_others_stay() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    database.run("UPDATE leads SET n = 'x' WHERE id <= 70").await;
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    mark(&postgres, &fences[1], &leads()).await;
    let chunks = plan(&postgres, &fences[1], 100, &leads()).await;
    let done = park(&postgres, &fences[1], &leads(), (&chunks[0], 70)).await.unwrap();
    assert_eq!((done.rows_read, done.rows_written), (100, 30));
    let of = leads();
    let retry = || postgres.retry_parked(&fences[0], &of, Direction::Forward);
    assert_eq!(retry().await.unwrap(), 70);
    // A client mends some, removes some, makes one worse, and one was brought over by hand.
    database
        .run(
            "UPDATE leads SET n = id::text WHERE id <= 60; DELETE FROM leads WHERE id IN (61, 62);
             UPDATE leads SET n = NULL WHERE id = 63; UPDATE leads SET n = '64' WHERE id = 64;
             INSERT INTO leads_v2 SELECT id, email, n, refers, period, 64, email, email FROM leads WHERE id = 64",
        )
        .await;
    // Looking alone finds those that are right already, and changes nothing.
    let before = parked(&postgres, &leads()).await;
    assert_eq!((before.total, codes(&before).contains_key(&64)), (67, false));
    let few = postgres.parked(&leads(), Direction::Forward, 2).await.unwrap();
    assert_eq!((few.total, few.rows.len()), (67, 2));
    assert_eq!(retry().await.unwrap(), 7);
    let after = codes(&parked(&postgres, &leads()).await);
    assert_eq!(after.keys().copied().collect::<Vec<_>>(), [63, 65, 66, 67, 68, 69, 70]);
    assert_eq!((after[&63].as_str(), after[&65].as_str()), ("23502", "22P02"));
    assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 91);
    database.run("UPDATE leads SET n = id::text").await;
    assert_eq!(retry().await.unwrap(), 0);
    assert_eq!(parked(&postgres, &leads()).await, Parked::default());
    let same = "SELECT count(*) FROM leads_v2 WHERE amount = id AND email = 'e' || id";
    assert_eq!(database.number(same).await, 98);
}

#[tokio::test]
async fn rows_that_refer_to_later_ones_come_in_when_those_are_there() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    database
        .run(
            "UPDATE leads SET refers = id + 1 WHERE id < 60;
             ALTER TABLE leads_v2 ALTER id TYPE int, ADD FOREIGN KEY (refers) REFERENCES leads_v2",
        )
        .await;
    let postgres = database.open().await;
    let fence = entered(&postgres, 1).await.remove(1);
    mark(&postgres, &fence, &leads()).await;
    for chunk in plan(&postgres, &fence, 10, &leads()).await {
        park(&postgres, &fence, &leads(), (&chunk, 100)).await.unwrap();
    }
    assert!(parked(&postgres, &leads()).await.total >= 5);
    assert_eq!(postgres.retry_parked(&fence, &leads(), Direction::Forward).await.unwrap(), 0);
    assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 100);
}

#[tokio::test]
async fn a_client_that_mends_a_row_through_the_sync_takes_it_off() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    database.run("UPDATE leads SET n = 'x' WHERE id IN (5, 6)").await;
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    let sync = work("sync", Way::Forward);
    postgres.install(&fences[0], &sync, &leads(), Direction::Forward).await.unwrap();
    for chunk in plan(&postgres, &fences[1], 30, &leads()).await {
        park(&postgres, &fences[1], &leads(), (&chunk, 2)).await.unwrap();
    }
    assert_eq!(codes(&parked(&postgres, &leads()).await).len(), 2);
    database.run("UPDATE leads SET n = '55' WHERE id = 5").await;
    assert_eq!(codes(&parked(&postgres, &leads()).await).into_keys().collect::<Vec<_>>(), [6]);
    // What a client has written since is not written over by the copy that comes late.
    database
        .run("UPDATE leads SET n = '6'; UPDATE leads_v2 SET email = 'by hand' WHERE id = 6")
        .await;
    assert_eq!(postgres.retry_parked(&fences[0], &leads(), Direction::Forward).await.unwrap(), 0);
    assert_eq!(database.text("SELECT email FROM leads_v2 WHERE id = 6").await, "by hand");
    let objects = "SELECT count(*) FROM pg_class WHERE relname LIKE 'parked%'";
    assert_eq!(database.number(objects).await, 2);
    let stop = work("stop", Way::Forward);
    postgres.remove(&fences[0], &stop, &leads(), Direction::Forward).await.unwrap();
    assert_eq!(database.number(objects).await, 0);
    assert_eq!(parked(&postgres, &leads()).await, Parked::default());
}

#[tokio::test]
async fn rows_are_parked_in_place_too_and_under_any_key() {
    let schema = "CREATE TABLE \"Le ads\" (region text COLLATE \"en-x-icu\", at timestamptz, n text, amount int CHECK (amount <> 3),
            PRIMARY KEY (region, at));
        INSERT INTO \"Le ads\" SELECT 'r''' || x % 3, '2026-11-20 12:00:00.000001+02'::timestamptz + x * interval '1 s',
            CASE WHEN x % 7 = 0 THEN 'x' ELSE (x % 10)::text END FROM generate_series(1, 50) AS x;";
    let Some(database) = Database::with(schema).await else { return };
    let key: &[&str] = &["region", "at"];
    let mut of = mapping(("\"Le ads\"", key), ("\"Le ads\"", key));
    of.columns = vec![("amount".into(), "n::int".into())];
    let postgres = database.open().await;
    let fence = entered(&postgres, 1).await.remove(1);
    mark(&postgres, &fence, &of).await;
    for chunk in plan(&postgres, &fence, 20, &of).await {
        park(&postgres, &fence, &of, (&chunk, 100)).await.unwrap();
    }
    let wrong = "SELECT count(*) FROM \"Le ads\" WHERE amount IS NULL";
    assert_eq!(database.number(wrong).await, 12);
    let found = parked(&postgres, &of).await;
    assert_eq!(found.total, 12);
    assert!(found.rows.iter().all(|row| row.key[0].1.starts_with("r'") && row.key[1].0 == "at"));
    database
        .run(
            "ALTER TABLE \"Le ads\" DROP CONSTRAINT \"Le ads_amount_check\"; UPDATE \"Le ads\" SET n = '3' WHERE n = 'x'",
        )
        .await;
    assert_eq!(postgres.retry_parked(&fence, &of, Direction::Forward).await.unwrap(), 0);
    assert_eq!(database.number("SELECT count(*) FROM \"Le ads\" WHERE amount = n::int").await, 50);
}

#[tokio::test]
async fn what_is_no_fault_of_a_row_parks_none() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    database.run("UPDATE leads SET n = 'x' WHERE id = 5").await;
    let postgres = database.open().await;
    let fence = entered(&postgres, 1).await.remove(1);
    mark(&postgres, &fence, &leads()).await;
    let chunks = plan(&postgres, &fence, 100, &leads()).await;
    let mut client = database.client().await;
    sqlx::raw_sql("BEGIN; DELETE FROM leads WHERE id = 30").execute(&mut client).await.unwrap();
    let kept_out = park(&postgres, &fence, &leads(), (&chunks[0], 10)).await;
    assert_eq!(class(kept_out), FailureClass::Contention);
    sqlx::raw_sql("ROLLBACK").execute(&mut client).await.unwrap();
    let mut unknown = leads();
    unknown.columns[0].1 = "no_such_function(n)".into();
    let failed = park(&postgres, &fence, &unknown, (&chunks[0], 10)).await;
    assert_eq!(class(failed), FailureClass::Refused);
    assert_eq!(parked(&postgres, &leads()).await.total, 0);
    assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 0);
    park(&postgres, &fence, &leads(), (&chunks[0], 10)).await.unwrap();
    assert_eq!(parked(&postgres, &leads()).await.total, 1);
}

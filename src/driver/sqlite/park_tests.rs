//! Tests of rows that can't be copied and are kept apart.
#![allow(clippy::unwrap_used, missing_docs)]

use super::Sqlite;
use super::fixture::{Database, class, entered, mapping, work};
use crate::copy::chunk::Planned;
use crate::driver::{Copied, DualWriter as _, Error, Fence, Parker as _, Source as _, Window};
use crate::run::{Direction, FailureClass, Mapping, Parked, Way};

const SCHEMA: &str = "
    CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT, n TEXT, refers INTEGER);
    CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT, n TEXT NOT NULL CHECK (n <> 'bad'), refers INTEGER);
    INSERT INTO leads WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100)
        SELECT x, 'e' || x, x, NULL FROM c;";

fn leads() -> Mapping {
    let mut mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    mapping.columns =
        vec![("n".into(), "CASE n WHEN 'x' THEN json_extract(n, '$') ELSE n END".into())];
    mapping
}

async fn plan(sqlite: &Sqlite, fence: &Fence, rows: u32, of: &Mapping) -> Vec<Planned> {
    let (step, size) = (work("copy", Way::Forward), Window { rows, count: 20, is_fixed: true });
    sqlite.plan_chunks(fence, &step, of, size).await.unwrap().open
}

async fn park(
    sqlite: &Sqlite,
    fence: &Fence,
    of: &Mapping,
    (chunk, most): (&Planned, u32),
) -> Result<Copied, Error> {
    let step = work("copy", Way::Forward);
    sqlite.copy_parking(fence, &step, of, Direction::Forward, (chunk, most)).await
}

async fn parked(sqlite: &Sqlite, of: &Mapping) -> Parked {
    sqlite.parked(of, Direction::Forward, 1_000).await.unwrap()
}

fn keys(parked: &Parked) -> Vec<i64> {
    assert_eq!(parked.total, parked.rows.len() as u64);
    let mut keys: Vec<i64> = parked.rows.iter().map(|row| row.key[0].1.parse().unwrap()).collect();
    keys.sort_unstable();
    keys
}

/// A database with the sync in, on which a statement was run first.
async fn begun(trouble: &str, of: &Mapping) -> (Database, Sqlite, (Fence, Fence)) {
    let database = Database::with(SCHEMA).await;
    database.run(trouble).await;
    let sqlite = database.open().await;
    let fences = entered(&sqlite, 1).await;
    let sync = work("sync", Way::Forward);
    sqlite.install(&fences.0, &sync, of, Direction::Forward).await.unwrap();
    (database, sqlite, fences)
}

#[tokio::test]
async fn whatever_is_wrong_with_a_row_it_is_parked_and_the_others_are_copied() {
    let table: [(&str, &[i64], &str); 5] = [
        ("UPDATE leads SET n = 'x' WHERE id IN (1, 50, 100)", &[1, 50, 100], "malformed JSON"),
        ("UPDATE leads SET n = NULL WHERE id = 8", &[8], "NOT NULL constraint failed"),
        ("UPDATE leads SET n = 'bad' WHERE id IN (8, 9)", &[8, 9], "CHECK constraint failed"),
        (
            "CREATE UNIQUE INDEX one ON leads_v2 (email); UPDATE leads SET email = 'e40' WHERE id IN (41, 60)",
            &[41, 60],
            "UNIQUE constraint failed",
        ),
        (
            "CREATE TRIGGER no BEFORE INSERT ON leads_v2 WHEN NEW.id % 50 = 0 BEGIN SELECT RAISE(ABORT, 'not this one'); END",
            &[50, 100],
            "not this one",
        ),
    ];
    for (trouble, spoilt, said) in table {
        let (database, sqlite, (_, fence)) = begun(trouble, &leads()).await;
        let (mut read, mut written) = (0, 0);
        for chunk in plan(&sqlite, &fence, 64, &leads()).await {
            let done = park(&sqlite, &fence, &leads(), (&chunk, 10)).await.unwrap();
            (read, written) = (read + done.rows_read, written + done.rows_written);
            assert!(park(&sqlite, &fence, &leads(), (&chunk, 10)).await.unwrap().before);
        }
        assert_eq!((read, written), (100, 100 - spoilt.len() as u64), "{trouble}");
        let found = parked(&sqlite, &leads()).await;
        assert_eq!(keys(&found), spoilt, "{trouble}");
        assert!(found.rows.iter().all(|row| row.reason.contains(said)), "{found:?}");
        assert!(found.rows.iter().all(|row| row.since.ends_with('Z') && row.code.is_some()));
        let there = database.number("SELECT count(*) FROM leads_v2").await;
        assert_eq!(there, 100 - i64::try_from(spoilt.len()).unwrap());
    }
}

#[tokio::test]
async fn no_more_rows_are_parked_than_allowed() {
    let trouble = "UPDATE leads SET n = 'bad' WHERE id % 10 < 3";
    let (database, sqlite, (_, fence)) = begun(trouble, &leads()).await;
    let mut refused = 0;
    for chunk in plan(&sqlite, &fence, 10, &leads()).await {
        match park(&sqlite, &fence, &leads(), (&chunk, 8)).await {
            Ok(_) => {}
            Err(Error::Failed(failure)) => {
                refused += 1;
                assert!(failure.message.starts_with("more than 8 rows of "), "{failure:?}");
                assert!(failure.message.contains("id = "), "{failure:?}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((refused, parked(&sqlite, &leads()).await.total), (8, 6));
    assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 14);
}

#[tokio::test]
async fn rows_that_were_mended_or_are_gone_are_tried_again_and_the_others_stay() {
    let trouble = "UPDATE leads SET n = 'bad' WHERE id <= 70";
    let (database, sqlite, (steps, fence)) = begun(trouble, &leads()).await;
    let chunks = plan(&sqlite, &fence, 100, &leads()).await;
    park(&sqlite, &fence, &leads(), (&chunks[0], 70)).await.unwrap();
    let of = leads();
    let retry = || sqlite.retry_parked(&steps, &of, Direction::Forward);
    assert_eq!(retry().await.unwrap(), 70);
    // The sync brings what a client mends; a row that is gone is nobody's.
    database
        .run("UPDATE leads SET n = id WHERE id <= 60; DELETE FROM leads WHERE id IN (61, 62)")
        .await;
    assert_eq!(keys(&parked(&sqlite, &of).await), (63..=70).collect::<Vec<_>>());
    let few = sqlite.parked(&of, Direction::Forward, 2).await.unwrap();
    assert_eq!((few.total, few.rows.len()), (8, 2));
    let kept = "SELECT count(*) FROM phasegate_parked";
    assert_eq!(database.number(kept).await, 70);
    assert_eq!((retry().await.unwrap(), database.number(kept).await), (8, 8));
    database.run("UPDATE leads SET n = id").await;
    assert_eq!((retry().await.unwrap(), database.number(kept).await), (0, 0));
    assert_eq!(parked(&sqlite, &of).await, Parked::default());
    assert_eq!(database.number("SELECT count(*) FROM leads_v2 WHERE n = id").await, 98);
    let stop = work("stop", Way::Forward);
    sqlite.remove(&steps, &stop, &of, Direction::Forward).await.unwrap();
}

#[tokio::test]
async fn rows_that_refer_to_later_ones_come_in_when_those_are_there() {
    let trouble = "DROP TABLE leads_v2;
        CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT, n TEXT, refers INTEGER REFERENCES leads_v2);
        UPDATE leads SET refers = id + 1 WHERE id < 60";
    let (database, sqlite, (steps, fence)) = begun(trouble, &leads()).await;
    for chunk in plan(&sqlite, &fence, 10, &leads()).await {
        park(&sqlite, &fence, &leads(), (&chunk, 100)).await.unwrap();
    }
    assert!(parked(&sqlite, &leads()).await.total >= 5);
    assert_eq!(sqlite.retry_parked(&steps, &leads(), Direction::Forward).await.unwrap(), 0);
    assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 100);
}

#[tokio::test]
async fn rows_are_parked_in_place_too() {
    let trouble = "ALTER TABLE leads ADD COLUMN amount INTEGER CHECK (amount <> 30)";
    let mut of = mapping(("leads", &["id"]), ("leads", &["id"]));
    of.columns = vec![("amount".into(), "id * 10".into())];
    let (database, sqlite, (steps, fence)) = begun(trouble, &of).await;
    for chunk in plan(&sqlite, &fence, 20, &of).await {
        park(&sqlite, &fence, &of, (&chunk, 100)).await.unwrap();
    }
    assert_eq!(keys(&parked(&sqlite, &of).await), [3]);
    assert_eq!(database.number("SELECT count(*) FROM leads WHERE amount IS NULL").await, 1);
    assert_eq!(sqlite.retry_parked(&steps, &of, Direction::Forward).await.unwrap(), 1);
    database.run("DELETE FROM leads WHERE id = 3").await;
    assert_eq!(parked(&sqlite, &of).await.total, 0);
}

#[tokio::test]
async fn what_is_no_fault_of_a_row_parks_none() {
    let trouble = "CREATE TRIGGER no BEFORE INSERT ON leads_v2 WHEN NEW.id = 7 BEGIN SELECT RAISE(ROLLBACK, 'all of it'); END";
    let (database, sqlite, (_, fence)) = begun(trouble, &leads()).await;
    let chunks = plan(&sqlite, &fence, 100, &leads()).await;
    // A trigger that rolls everything back leaves no transaction to park anything in.
    let undone = park(&sqlite, &fence, &leads(), (&chunks[0], 10)).await;
    assert!(matches!(undone, Err(Error::Failed(_))), "{undone:?}");
    assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 0);
    database.run("DROP TRIGGER no").await;
    let mut unknown = leads();
    unknown.columns[0].1 = "no_such_function(n)".into();
    let failed = park(&sqlite, &fence, &unknown, (&chunks[0], 10)).await;
    assert_eq!(class(failed), FailureClass::Refused);
    assert_eq!(parked(&sqlite, &leads()).await.total, 0);
    park(&sqlite, &fence, &leads(), (&chunks[0], 10)).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 100);
}

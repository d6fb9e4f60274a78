//! Clients whose view of the database is older than the sync, and who write only when it is there.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{Database, entered, mapping as plain_mapping};
use super::sync_tests::{Bed, TABLES, WRONG, both_leads, chunk, leads, say};
use crate::run::{CopyColumns, Direction, Mapping};

const PLACE: &str = "
    CREATE TABLE t (id int PRIMARY KEY, a text, a2 text);
    INSERT INTO t (id, a) SELECT i, 'A' || i FROM generate_series(1, 9) AS i;";

/// Rows whose columns don't agree.
const WRONG_IN_PLACE: &str = "SELECT count(*) FROM t WHERE a2 IS DISTINCT FROM lower(a)";

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

/// A database without a sync.
async fn bare(setup: &str, mapping: Mapping, direction: Direction) -> Option<Bed> {
    let setup = format!("CREATE TABLE elsewhere (id int); {setup}");
    let database = Database::with(&setup).await?;
    let postgres = database.open().await;
    let fence = entered(&postgres, 1).await[0].clone();
    Some(Bed { database, postgres, fence, mapping, direction })
}

/// What the client has looked at before: something else, or the very table.
const LOOKS: [&str; 2] = ["elsewhere", "leads"];

/// When the copy comes by: before the client writes, between that and its end, or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    Before,
    Between,
    After,
}

/// What the client writes, and whether that must wait for what a chunk holds, or a chunk for that.
const WRITES: [(&str, bool); 7] = [
    ("DELETE FROM leads WHERE id = 5", true),
    ("UPDATE leads SET status = 'Late' WHERE id = 5", false),
    ("UPDATE leads SET id = 50 WHERE id = 5", true),
    ("DELETE FROM leads WHERE id = 5; INSERT INTO leads VALUES (5, 'again', 'Again')", true),
    ("INSERT INTO leads VALUES (55, 'i', 'I') ON CONFLICT (id) DO UPDATE SET status = 'X'", false),
    ("INSERT INTO leads VALUES (5, 'i', 'I') ON CONFLICT (id) DO UPDATE SET status = 'X'", false),
    (
        "WITH w AS (DELETE FROM leads WHERE id > 6 RETURNING *) INSERT INTO leads SELECT id + 100, email, status FROM w",
        true,
    ),
];

pub(super) fn is_serialization_failure(error: &sqlx::Error) -> bool {
    super::error::code(error) == Some("40001")
}

#[tokio::test]
async fn a_client_who_is_older_than_the_sync_of_two_tables_writes() {
    for (direction, mapping) in [(Direction::Forward, leads()), (Direction::Both, both_leads())] {
        for (at, (statement, keeps_out)) in WRITES.into_iter().enumerate() {
            for copied in [Copied::Before, Copied::Between, Copied::After] {
                if copied == Copied::Between && (keeps_out || direction == Direction::Both) {
                    continue;
                }
                let isolation = ["REPEATABLE READ", "SERIALIZABLE"][(at + copied as usize) % 2];
                let case = format!("{direction:?} {isolation} {statement} {copied:?}");
                let Some(bed) = bare(TABLES, mapping.clone(), direction).await else { return };
                let mut client = bed.client().await;
                let look = LOOKS[at % 2];
                let begin =
                    format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM {look}");
                say(&mut client, &begin).await.unwrap();
                bed.install().await.unwrap();
                if copied == Copied::Before {
                    bed.run(&chunk("true")).await;
                }
                let said = say(&mut client, statement).await;
                let is_told = said.as_ref().is_err_and(is_serialization_failure);
                // Whoever changes the key of a row has to see its copy, where clients of the new shape may hold on to that.
                if is_told && direction == Direction::Both && statement.contains("SET id") {
                    say(&mut client, &format!("ROLLBACK; {begin}; {statement}")).await.unwrap();
                } else {
                    said.unwrap_or_else(|e| panic!("{case}: {e}"));
                }
                if copied == Copied::Between {
                    bed.run(&chunk("id NOT IN (5, 55)")).await;
                }
                say(&mut client, "COMMIT").await.unwrap_or_else(|e| panic!("{case}: {e}"));
                if copied != Copied::Before {
                    bed.run(&chunk("true")).await;
                }
                assert_eq!(bed.settle().await, 0, "{case}");
                assert_eq!(bed.number(WRONG).await, 0, "{case}");
                bed.database.gone().await;
            }
        }
    }
}

#[tokio::test]
async fn a_client_who_is_older_than_the_sync_of_columns_writes() {
    let convert = "SELECT set_config('phasegate.guard', '', true); UPDATE t SET a2 = lower(a)";
    for (direction, mapping) in [(Direction::Forward, columns()), (Direction::Both, both_columns())]
    {
        for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
            for statement in [
                "UPDATE t SET a = 'LATE' WHERE id = 5; UPDATE t SET id = 60 WHERE id = 6",
                "DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5, 'AGAIN'), (55, 'I')",
            ] {
                let case = format!("{direction:?} {isolation} {statement}");
                let Some(bed) = bare(PLACE, mapping.clone(), direction).await else { return };
                let mut client = bed.client().await;
                let begin =
                    format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM elsewhere");
                say(&mut client, &begin).await.unwrap();
                bed.install().await.unwrap();
                say(&mut client, statement).await.unwrap_or_else(|e| panic!("{case}: {e}"));
                say(&mut client, "COMMIT").await.unwrap_or_else(|e| panic!("{case}: {e}"));
                bed.run(convert).await;
                assert_eq!(bed.number(WRONG_IN_PLACE).await, 0, "{case}");
                bed.database.gone().await;
            }
        }
    }
    // A client of the new shape: its NULL over a value that nobody has converted stands.
    let Some(bed) = bare(PLACE, both_columns(), Direction::Both).await else { return };
    let mut client = bed.client().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM elsewhere";
    say(&mut client, begin).await.unwrap();
    bed.install().await.unwrap();
    say(&mut client, "UPDATE t SET a2 = NULL WHERE id = 5; COMMIT").await.unwrap();
    assert_eq!(bed.number("SELECT count(*) FROM t WHERE id = 5 AND a IS NULL").await, 1);
}

#[tokio::test]
async fn a_table_is_emptied_by_a_client_who_is_older_than_the_sync() {
    for direction in [Direction::Forward, Direction::Both] {
        let mapping = if direction == Direction::Both { both_leads() } else { leads() };
        let Some(bed) = bare(TABLES, mapping, direction).await else { return };
        let mut client = bed.client().await;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM elsewhere";
        say(&mut client, begin).await.unwrap();
        bed.install().await.unwrap();
        bed.run(&chunk("true")).await;
        say(&mut client, "TRUNCATE leads; INSERT INTO leads VALUES (5, 'r', 'Refilled'); COMMIT")
            .await
            .unwrap();
        assert_eq!(bed.settle().await, 0);
        assert_eq!(bed.number(WRONG).await, 0, "{direction:?}");
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 1);
    }
}

//! The process dies just before and just after each commit, and whoever goes on ends where it would have ended.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::fixture::{PEOPLE, people, say};
use crate::copy::chunk::Chunk;
use crate::copy::row::Datum;
use crate::driver::crossing::{Change, ChangeSource as _, Rows, What};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::fixture::{Database, entered, work};
use crate::driver::{Access, Applied, Error, Retirer as _, SyncState};
use crate::run::{Permit, RunId, Way};

/// Where a child process of a test works, and what it does there.
const URL: &str = "PHASEGATE_TEST_OUTBOX_URL";
const WHAT: &str = "PHASEGATE_TEST_OUTBOX_DOES";

/// Runs a test of this file as a child process, which dies or fails at a point. Whether it succeeded; `None` where it died.
async fn child(test: &str, database: &Database, (what, point): (&str, &str)) -> Option<bool> {
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("driver::postgres::outbox::kill_tests::{test}")])
        .env(URL, &database.url)
        .env(WHAT, what)
        .env("FAILPOINTS", point)
        .output()
        .await
        .unwrap();
    output.status.code().map(|code| code == 0)
}

/// The database and the task of a child process, whose fail points are armed.
fn given() -> Option<(Database, String, fail::FailScenario<'static>)> {
    let (url, what) = (std::env::var(URL).ok()?, std::env::var(WHAT).ok()?);
    Some((Database { url }, what, fail::FailScenario::setup()))
}

const SINK: &str = "CREATE TABLE sink (key text PRIMARY KEY, version bigint NOT NULL, row text)";

/// The new side, in a table.
async fn write(sink: &mut PgConnection, changes: &[Change]) {
    for change in changes {
        let (key, row) = match &change.what {
            What::Is(row) => (&row.key, Some(format!("{:?}", row.values))),
            What::Gone(key) => (key, None),
            other => panic!("{other:?}"),
        };
        sqlx::query(
            "INSERT INTO sink VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE SET version = excluded.version, row = excluded.row
             WHERE sink.version < excluded.version",
        )
        .bind(format!("{key:?}"))
        .bind(i64::try_from(change.version).unwrap())
        .bind(row)
        .execute(&mut *sink)
        .await
        .unwrap();
    }
}

/// Does a task under a token: `relay 2`.
async fn act(database: &Database, task: &str) -> Result<Applied, Error> {
    let (what, token) = task.split_once(' ').unwrap();
    let token = token.parse().unwrap();
    let postgres = Postgres::open(&database.url, None, Access::Full).await?;
    let fence = entered(&postgres, token).await.remove(0);
    let (of, nothing) = (people(), Applied { before: false, rows: 0, detail: None });
    match what {
        "capture" => postgres.capture(&fence, &work("capture", Way::Forward), &of).await,
        "end" => postgres.end_capture(&fence, &work("end", Way::Forward), &of).await,
        "drop" => {
            let permit = Permit::for_test("drop");
            let (drop, all) = (work("drop", Way::Forward), [of.clone()]);
            postgres.drop_old(&fence, &drop, &of, &all, permit).await
        }
        "enqueue" => {
            let keys = [vec![Datum::Integer(1)], vec![Datum::Integer(99)]];
            postgres.enqueue(&fence, &of, &keys).await.map(|rows| Applied { rows, ..nothing })
        }
        _ => {
            let fence = postgres.enter_relay(&RunId::new("r1/relay/app/graph"), token).await?;
            let mut sink = database.client().await;
            loop {
                let changes = postgres.claim(&fence, std::slice::from_ref(&of), (3, &[])).await?;
                if changes.is_empty() {
                    return Ok(nothing);
                }
                write(&mut sink, &changes).await;
                let versions: Vec<u64> = changes.iter().map(|change| change.version).collect();
                postgres.applied(&fence, &versions).await?;
            }
        }
    }
}

/// What the new side has, and what it should have.
async fn both_sides(database: &Database) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let postgres = database.open().await;
    let rows =
        postgres.page(&people(), (&Chunk { lo: None, hi: None }, Rows::All)).await.unwrap().rows;
    let old = rows.iter().map(|row| (format!("{:?}", row.key), format!("{:?}", row.values)));
    let mut client = database.client().await;
    let sql = "SELECT key, row FROM sink WHERE row IS NOT NULL";
    let new = sqlx::query(sql).fetch_all(&mut client).await.unwrap();
    client.close().await.unwrap();
    (new.iter().map(|row| (row.get(0), row.get(1))).collect(), old.collect())
}

#[tokio::test]
async fn a_capture_that_dies_at_a_commit_is_done_once_and_whole() {
    const NAME: &str = "a_capture_that_dies_at_a_commit_is_done_once_and_whole";
    if let Some((database, what, _armed)) = given() {
        act(&database, &what).await.unwrap();
        return;
    }
    for place in ["before", "after"] {
        let Some(database) = Database::with(PEOPLE).await else { return };
        let mut token = 0;
        let mut task = |what: &str| {
            token += 1;
            format!("{what} {token}")
        };
        act(&database, &task("relay")).await.unwrap();
        for (what, kind) in [("capture", "install"), ("end", "remove"), ("drop", "drop")] {
            let point = format!("postgres::{place}-commit::{kind}=return");
            let died = child(NAME, &database, (&task(what), &point)).await;
            assert_eq!(died, None, "{point}");
            let is_there =
                database.number("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'zzzz%'").await
                    == 2;
            assert_eq!(is_there, (what == "capture") == (place == "after"), "{point}");
            let done = act(&database, &task(what)).await.unwrap();
            assert_eq!(done.before, place == "after", "{point}");
            if what == "capture" {
                let state = database.open().await.capture_state(&people()).await;
                assert_eq!(state, Ok(SyncState::Active));
                continue;
            }
            let left = "SELECT (SELECT count(*) FROM pg_class WHERE relname = 'outbox') + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'phasegate\\_%')";
            assert_eq!(database.number(left).await, 0, "{point}");
            if what == "end" {
                // For the drop there is to be one again.
                database.run("DELETE FROM phasegate.steps").await;
                act(&database, &task("capture")).await.unwrap();
            }
        }
        assert_eq!(
            database.number("SELECT count(*) FROM pg_class WHERE relname = 'people'").await,
            0
        );
        database.gone().await;
    }
}

#[tokio::test]
async fn a_relay_that_dies_at_a_commit_loses_nothing_and_its_successor_goes_on() {
    const NAME: &str = "a_relay_that_dies_at_a_commit_loses_nothing_and_its_successor_goes_on";
    if let Some((database, what, _armed)) = given() {
        act(&database, &what).await.unwrap();
        return;
    }
    for point in [
        "postgres::before-commit::enter=1*off->return",
        "postgres::after-commit::enter=1*off->return",
        "postgres::before-commit::claim=1*off->return",
        "postgres::after-commit::claim=return",
        "postgres::after-commit::claim=2*off->return",
        "postgres::before-commit::relayed=1*off->return",
        "postgres::after-commit::relayed=return",
        "postgres::after-commit::relayed=1*off->return",
        "postgres::after-commit::relayed=1*off->return(unknown)",
    ] {
        let Some(database) = Database::with(&format!("{PEOPLE} {SINK}")).await else { return };
        act(&database, "capture 1").await.unwrap();
        database.run("UPDATE people SET status = 'Won'; UPDATE people SET id = 20 WHERE id = 1; DELETE FROM people WHERE id = 2; \
                      UPDATE people SET status = 'Lost' WHERE id = 3").await;
        let died = child(NAME, &database, ("relay 2", point)).await;
        let expected = if point.ends_with("(unknown)") { Some(false) } else { None };
        assert_eq!(died, expected, "{point}");
        // While nobody carries them, changes wait.
        database.run("UPDATE people SET status = 'Late' WHERE id > 7").await;
        act(&database, "relay 3").await.unwrap();
        let (new, old) = both_sides(&database).await;
        assert_eq!(new, old, "{point}");
        assert_eq!(database.number("SELECT count(*) FROM phasegate.outbox").await, 0, "{point}");
        database.gone().await;
    }
}

#[tokio::test]
async fn keys_whose_entering_dies_at_a_commit_can_be_entered_again() {
    const NAME: &str = "keys_whose_entering_dies_at_a_commit_can_be_entered_again";
    if let Some((database, what, _armed)) = given() {
        act(&database, &what).await.unwrap();
        return;
    }
    for (point, entered) in [
        ("before-commit::repair=return", 0),
        ("after-commit::repair=return", 1),
        ("before-commit::repair=1*off->return", 1),
        ("after-commit::repair=1*off->return", 2),
    ] {
        let Some(database) = Database::with(&format!("{PEOPLE} {SINK}")).await else { return };
        act(&database, "capture 1").await.unwrap();
        // The new side has what it should not have, and has not what it should.
        database.run("INSERT INTO sink VALUES ('[Integer(99)]', 0, 'x')").await;
        let died = child(NAME, &database, ("enqueue 2", &format!("postgres::{point}"))).await;
        assert_eq!(died, None, "{point}");
        assert_eq!(
            database.number("SELECT count(*) FROM phasegate.outbox").await,
            entered,
            "{point}"
        );
        assert_eq!(act(&database, "enqueue 3").await.unwrap().rows, 2);
        act(&database, "relay 3").await.unwrap();
        let (new, old) = both_sides(&database).await;
        assert_eq!(new.keys().collect::<Vec<_>>(), ["[Integer(1)]"], "{point}");
        assert_eq!(new["[Integer(1)]"], old["[Integer(1)]"]);
        database.gone().await;
    }
}

/// A client's statements, on a thread of their own: between the two looks nothing else runs.
fn meanwhile(url: &str, script: &'static str) -> Result<(), sqlx::Error> {
    let url = url.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = PgConnection::connect(&url).await.unwrap();
            let settings = "SET search_path = public; SET lock_timeout = '50ms'";
            sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut client).await.unwrap();
            say(&mut client, script).await
        })
    })
    .join()
    .unwrap()
}

#[tokio::test]
async fn between_the_looks_at_changes_and_at_rows_nothing_happens() {
    const NAME: &str = "between_the_looks_at_changes_and_at_rows_nothing_happens";
    let Some((database, what, _armed)) = given() else {
        for what in ["update", "delete", "insert", "move", "truncate"] {
            let Some(database) = Database::with(PEOPLE).await else { return };
            act(&database, "capture 1").await.unwrap();
            assert_eq!(child(NAME, &database, (what, "")).await, Some(true), "{what}");
            database.gone().await;
        }
        return;
    };
    let script = match what.as_str() {
        "update" => "UPDATE people SET status = 'New' WHERE id = 1",
        "delete" => "DELETE FROM people WHERE id = 1",
        "insert" => "INSERT INTO people VALUES (50, 'n', 'N')",
        "move" => "UPDATE people SET id = 50 WHERE id = 1",
        _ => "TRUNCATE people",
    };
    let url = database.url.clone();
    let happened = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = std::sync::Arc::clone(&happened);
    let callback = move || told.lock().unwrap().push(meanwhile(&url, script).is_ok());
    fail::cfg_callback("postgres::settled::between-looks", callback).unwrap();
    let postgres = database.open().await;
    let keys = [vec![Datum::Integer(1)], vec![Datum::Integer(50)]];
    let settled = postgres.rows_of(&people(), &keys).await.unwrap();
    fail::remove("postgres::settled::between-looks");
    // Who empties the table has to wait; all others were not kept.
    assert_eq!(*happened.lock().unwrap(), [what != "truncate"]);
    assert_eq!(settled.is_open, [false, false]);
    assert_eq!(settled.page.rows.len(), 1);
    assert_eq!(settled.page.rows[0].values["state.code"], Datum::Text("open".into()));
    // The next look sees both the row and its change.
    let settled = postgres.rows_of(&people(), &keys).await.unwrap();
    let expected = match what.as_str() {
        "update" => ([true, false], 1),
        "delete" => ([true, false], 0),
        "insert" => ([false, true], 2),
        "move" => ([true, true], 1),
        _ => ([false, false], 1),
    };
    assert_eq!(
        (settled.is_open.as_slice(), settled.page.rows.len()),
        (&expected.0[..], expected.1)
    );
}

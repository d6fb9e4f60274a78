use std::sync::Arc;
use std::time::Duration;

use super::super::fixture::{Database, entered, script, work};
use super::*;
use crate::driver::Session as _;
use crate::run::{Runnable, Traced, Transaction};

fn alone_script(statements: &[&str]) -> Script {
    Script { transaction: Transaction::None, ..script(statements) }
}

async fn execute(
    postgres: &Postgres,
    fence: &Fence,
    (step, way): (&str, Way),
    script: &Script,
) -> Result<Applied, Error> {
    let work = work(step, way);
    let runnable = Runnable::new(&work.step, script, None).unwrap();
    postgres.execute(fence, &work, runnable).await
}

const MARKS: &str = "SELECT count(*) FROM phasegate.steps WHERE step LIKE '%/statement/%'";
const VALID: &str =
    "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('t_n') AND indisvalid";

#[tokio::test]
async fn each_statement_is_done_once_and_the_step_is_one_row_in_the_end() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 2);
        CREATE TYPE mood AS ENUM ('meh')";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    let mut statements = alone_script(&[
        "SET maintenance_work_mem = '1MB'",
        "CREATE INDEX CONCURRENTLY t_n ON t (n)",
        "UPDATE t SET n = n + 1",
        "ALTER TYPE mood ADD VALUE 'fine'",
        "VACUUM t",
        "SELECT 1 / 0",
        "REINDEX TABLE CONCURRENTLY t",
    ]);
    let failed = execute(&postgres, &fences[0], ("index", Way::Forward), &statements).await;
    let Err(Error::Failed(failure)) = failed else { panic!("{failed:?}") };
    assert_eq!((failure.code.as_deref(), failure.line), (Some("22012"), Some(15)));
    assert_eq!(database.number("SELECT sum(n) FROM t").await, 5);
    assert_eq!(database.number(MARKS).await, 4);
    statements.statements[5].text = "SELECT 1".to_owned();
    let done = execute(&postgres, &fences[0], ("index", Way::Forward), &statements).await.unwrap();
    assert!(!done.before);
    assert_eq!(database.number("SELECT sum(n) FROM t").await, 5, "the update is done once");
    assert_eq!(database.number(VALID).await, 1);
    assert_eq!(database.number(MARKS).await, 0);
    let again = execute(&postgres, &fences[0], ("index", Way::Forward), &statements).await.unwrap();
    assert!(again.before);
    database.gone().await;
}

#[tokio::test]
async fn an_invalid_index_is_dropped_and_rebuilt_even_behind_if_not_exists() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 1)";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    let unique = alone_script(&["CREATE UNIQUE INDEX CONCURRENTLY t_n ON t (n)"]);
    let failed = execute(&postgres, &fences[0], ("index", Way::Forward), &unique).await;
    let Err(Error::Failed(failure)) = failed else { panic!("{failed:?}") };
    assert_eq!(failure.code.as_deref(), Some("23505"));
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(database.number(invalid).await, 1, "the server leaves it");
    assert_eq!(database.number(MARKS).await, 1, "what it leaves is to be undone");
    let in_doubt = format!("{MARKS} AND starts_with(detail, '{BEGUN}')");
    assert_eq!(database.number(&in_doubt).await, 0, "what the server refused is not in doubt");
    let traced = postgres.traced(fences[0].run(), &"index".into(), Way::Forward).await;
    assert_eq!(traced, Ok(Traced::Parts));
    // In a transaction too: `IF NOT EXISTS` would take it for the index.
    let plain = script(&["CREATE INDEX IF NOT EXISTS t_n ON t (n)"]);
    let done = execute(&postgres, &fences[0], ("plain", Way::Forward), &plain).await.unwrap();
    assert!(done.detail.unwrap().contains("dropped the INVALID index public.t_n"));
    assert_eq!(database.number(VALID).await, 1);
    database.run("DROP INDEX t_n").await;
    let failed = execute(&postgres, &fences[0], ("index", Way::Forward), &unique).await;
    assert!(failed.is_err());
    let again = alone_script(&["CREATE INDEX CONCURRENTLY IF NOT EXISTS t_n ON t (n)"]);
    let done = execute(&postgres, &fences[0], ("index", Way::Forward), &again).await.unwrap();
    assert!(done.detail.unwrap().contains("dropped the INVALID index public.t_n"));
    assert_eq!(database.number(VALID).await, 1);
    database.gone().await;
}

/// Waits until a query gives more than 0.
async fn until(database: &Database, query: &str) {
    for _ in 0..600 {
        if database.number(query).await > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {query}");
}

#[tokio::test]
async fn a_build_whose_session_was_lost_is_cleared_up_and_built_again() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 1)";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = Arc::new(database.open().await);
    let fences = entered(&postgres, 1).await;
    // A client's transaction keeps the build waiting.
    let mut client = database.client().await;
    sqlx::raw_sql("BEGIN; UPDATE t SET n = 2").execute(&mut client).await.unwrap();
    let build = {
        let (postgres, fence) = (Arc::clone(&postgres), fences[0].clone());
        tokio::spawn(async move {
            let index = alone_script(&["CREATE INDEX CONCURRENTLY t_n ON t (n)"]);
            execute(&postgres, &fence, ("index", Way::Forward), &index).await
        })
    };
    let builds = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'";
    until(&database, builds).await;
    // Meanwhile another step does not take it for a leftover.
    let plain = script(&["CREATE INDEX IF NOT EXISTS t_n ON t (n)"]);
    let failed = execute(&postgres, &fences[0], ("plain", Way::Forward), &plain).await;
    let Err(Error::Failed(failure)) = failed else { panic!("{failed:?}") };
    assert_eq!(failure.class, FailureClass::Contention, "{failure:?}");
    assert!(failure.message.contains("is building the index"), "{failure:?}");
    // Nobody's session of ours has a transaction open or holds a lock of ours meanwhile.
    let held = "SELECT count(*) FROM pg_locks WHERE relation::regclass::text LIKE 'phasegate.%'";
    assert_eq!(database.number(held).await, 0);
    database
        .number("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX%'")
        .await;
    let lost = build.await.unwrap();
    assert!(matches!(lost, Err(Error::Unknown(_))), "{lost:?}");
    assert_eq!(database.number(MARKS).await, 1);
    sqlx::raw_sql("COMMIT").execute(&mut client).await.unwrap();
    let index = alone_script(&["CREATE INDEX CONCURRENTLY t_n ON t (n)"]);
    let done = execute(&postgres, &fences[0], ("index", Way::Forward), &index).await.unwrap();
    assert!(done.detail.unwrap().contains("dropped the INVALID index"));
    assert_eq!(database.number(VALID).await, 1);
    database.gone().await;
}

/// As after a connection that was lost while the statement ran: begun, in a session that is gone.
async fn begun(database: &Database, step: &str, way: &str) {
    database
        .run(&format!(
            "INSERT INTO phasegate.steps VALUES ('r1', '{step}/statement/1', '{way}', 0,
               'begun in session 1 of 2020-01-01 00:00:00+00', 1, 7, now())"
        ))
        .await;
}

#[tokio::test]
async fn what_was_begun_is_asked_of_the_catalogue_and_else_of_people() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE INDEX t_n ON t (n);
        CREATE TABLE p (id int) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9);
        CREATE PROCEDURE count_up() LANGUAGE sql AS 'UPDATE t SET n = n + 1'";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    for (step, statement, is_known) in [
        ("build", "CREATE INDEX CONCURRENTLY t_n ON t (n)", true),
        ("drop", "DROP INDEX CONCURRENTLY nothing", true),
        ("detach", "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY", true),
        ("detached", "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY", true),
        ("vacuum", "VACUUM t", true),
        ("call", "CALL count_up()", false),
    ] {
        begun(&database, step, "forward").await;
        let statements = alone_script(&[statement]);
        let result = execute(&postgres, &fences[0], (step, Way::Forward), &statements).await;
        match (result, is_known) {
            (Ok(_), true) => {}
            (Err(Error::Ambiguous(why)), false) => assert!(why.contains("line 10"), "{why}"),
            (other, _) => panic!("{step}: {other:?}"),
        }
    }
    // Without a mark nothing is taken for done.
    let statements = alone_script(&["DROP INDEX CONCURRENTLY nothing"]);
    assert!(execute(&postgres, &fences[0], ("other", Way::Forward), &statements).await.is_err());
    let called = alone_script(&["CALL count_up()"]);
    execute(&postgres, &fences[0], ("other-call", Way::Forward), &called).await.unwrap();
    database.gone().await;
}

#[tokio::test]
async fn a_step_that_was_done_in_part_is_undone() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int)";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    let forward = alone_script(&[
        "CREATE INDEX CONCURRENTLY t_n ON t (n)",
        "CREATE INDEX CONCURRENTLY t_x ON t (x)",
    ]);
    let back = alone_script(&["DROP INDEX CONCURRENTLY t_x", "DROP INDEX CONCURRENTLY t_n"]);
    assert!(execute(&postgres, &fences[0], ("two", Way::Forward), &forward).await.is_err());
    assert_eq!(database.number(VALID).await, 1);
    let undone = execute(&postgres, &fences[0], ("two", Way::Back), &back).await.unwrap();
    assert!(!undone.before);
    assert_eq!(database.number(VALID).await, 0);
    let never = execute(&postgres, &fences[0], ("never", Way::Back), &back).await.unwrap();
    assert!(never.detail.unwrap().contains("nothing to undo"));
    // Undone in one transaction, it is seen to have been begun too.
    let forward = alone_script(&["CREATE INDEX CONCURRENTLY t_n ON t (n)", "SELECT 1 / 0"]);
    assert!(execute(&postgres, &fences[0], ("plain", Way::Forward), &forward).await.is_err());
    let back = script(&["DROP INDEX t_n"]);
    execute(&postgres, &fences[0], ("plain", Way::Back), &back).await.unwrap();
    assert_eq!(database.number(VALID).await, 0);
    database.gone().await;
}

#[tokio::test]
async fn who_takes_over_ends_what_runs_outside_a_transaction() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int)";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = Arc::new(database.open().await);
    let fences = entered(&postgres, 1).await;
    let mut client = database.client().await;
    sqlx::raw_sql("BEGIN; INSERT INTO t VALUES (1)").execute(&mut client).await.unwrap();
    let build = {
        let (postgres, fence) = (Arc::clone(&postgres), fences[0].clone());
        tokio::spawn(async move {
            let index = alone_script(&["CREATE INDEX CONCURRENTLY t_n ON t (n)"]);
            execute(&postgres, &fence, ("index", Way::Forward), &index).await
        })
    };
    until(
        &database,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'",
    )
    .await;
    let newer = entered(&database.open().await, 2).await;
    assert_eq!(newer[0].token(), 2);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'phasegate r1 1'";
    assert_eq!(database.number(left).await, 0, "gone before `enter` returns");
    assert!(build.await.unwrap().is_err());
    database.gone().await;
}

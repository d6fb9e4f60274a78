//! What stands in the way is said before anything is changed, with what to do; what comes in the way later stops the run,
//! and is said as well.

use std::time::Duration;

use super::writer::Writer;
use super::{check_rows, edit, leads};
use sqlx::{AssertSqlSafe, Row as _};

use crate::examples::Example;
use crate::examples::database::{block_on, connect};
use crate::sandbox::{Ran, wait_for};

#[track_caller]
pub fn mentions(ran: &Ran, words: &[&str]) {
    let said = format!("{}{}", ran.stdout, ran.stderr);
    for word in words {
        assert!(said.contains(word), "{word:?} is not said: {ran}");
    }
}

#[track_caller]
fn is_untouched(example: &Example, before: &[String]) {
    example.is_as(before);
    let ours = "SELECT count(*) FROM pg_namespace WHERE nspname = 'phasegate'";
    assert_eq!(example.database.value(ours), "0", "something of ours is there");
}

#[test]
fn a_missing_table_or_column_is_said_with_a_suggestion_before_the_first_change() {
    let Some(example) = leads() else { return };
    let before = example.database.dump();
    example.database.run("ALTER TABLE leads RENAME TO lead");
    let renamed = example.database.dump();
    let ran = example.run(&[]).expect(3);
    mentions(&ran, &["leads", "did you mean", "lead"]);
    is_untouched(&example, &renamed);
    example.database.run("ALTER TABLE lead RENAME TO leads");
    is_untouched(&example, &before);

    example.database.run("ALTER TABLE leads RENAME status TO stattus");
    let renamed = example.database.dump();
    let ran = example.run(&[]).expect(3);
    mentions(&ran, &["status", "leads.stattus"]);
    is_untouched(&example, &renamed);
}

/// Statements of the server's superuser in the database of an example.
pub fn as_superuser(example: &Example, statements: &str) {
    let url = example.database.as_superuser();
    block_on(async {
        let mut conn = connect(&url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut conn).await.unwrap();
    });
}

#[test]
fn a_missing_privilege_is_said_with_the_grant() {
    let Some(example) = leads() else { return };
    let owner = example.database.owner().to_owned();
    as_superuser(
        &example,
        &format!(
            "ALTER TABLE ops.backups OWNER TO CURRENT_USER; REVOKE ALL ON ops.backups FROM {owner}"
        ),
    );
    let ran = example.run(&[]);
    assert!(matches!(ran.code, Some(3 | 77)), "{ran}");
    mentions(&ran, &["GRANT SELECT ON", "backups", &owner]);
    assert_eq!(example.database.value("SELECT to_regclass('leads_v2')::text"), "NULL");
    as_superuser(&example, &format!("GRANT SELECT ON ops.backups TO {owner}"));
    match ran.code {
        Some(77) => example.phasegate(&["retry", example.name]).expect(0),
        _ => example.run(&[]).expect(0),
    };
}

#[test]
fn a_table_of_somebody_else_is_said_with_what_helps_before_the_first_change() {
    let Some(example) = leads() else { return };
    let owner = example.database.owner().to_owned();
    as_superuser(
        &example,
        &format!("ALTER TABLE leads OWNER TO CURRENT_USER; GRANT SELECT ON leads TO {owner}"),
    );
    let ran = example.run(&[]);
    assert!(matches!(ran.code, Some(3 | 77)), "{ran}");
    mentions(&ran, &["leads", &owner]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("GRANT ") || said.contains("OWNER TO"), "{ran}");
    let ours = "SELECT count(*) FROM pg_namespace WHERE nspname = 'phasegate'";
    assert_eq!(example.database.value(ours), "0", "something of ours is there");
    as_superuser(&example, &format!("ALTER TABLE leads OWNER TO {owner}"));
    example.run(&[]).expect(0);
}

/// Starts a run whose chunks rest a while, and waits until some of them are committed.
pub fn in_the_middle_of_the_copy(example: &Example) -> std::process::Child {
    // Long enough for whoever acts in between; what is stopped by it waits no longer than that.
    edit(example, "pause_between: 0s", "pause_between: 1s");
    let plan = example.plan();
    let child = example
        .command(&["run", &plan])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let some = || {
        let there = "SELECT to_regclass('public.leads_v2') IS NOT NULL";
        example.database.value(there) == "t"
            && example.database.value("SELECT count(*) >= 300 FROM leads_v2") == "t"
    };
    assert!(wait_for(Duration::from_mins(1), some), "the copy did not begin");
    child
}

#[test]
fn a_table_altered_between_two_chunks_stops_the_copy_as_stale() {
    let alterations = [
        "ALTER TABLE leads ALTER COLUMN status TYPE varchar(40)",
        "ALTER TABLE leads_v2 DROP COLUMN score",
        "ALTER TABLE leads RENAME COLUMN score TO points",
        "ALTER TABLE leads DISABLE TRIGGER USER",
    ];
    for alteration in alterations {
        let Some(example) = leads() else { return };
        let child = in_the_middle_of_the_copy(&example);
        example.database.run(alteration);
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(6), "{alteration}: {ran}");
        mentions(&ran, &["leads"]);
        assert_eq!(
            example.database.value("SELECT count(*) < 2000 FROM leads_v2"),
            "t",
            "{alteration}"
        );
    }
}

#[test]
fn a_deadlock_is_ours_to_give_way_in_and_the_client_sees_nothing_of_it() {
    let Some(example) = leads() else { return };
    edit(&example, "rows: 150", "rows: 1000");
    example.run(&["--to", "sync-leads"]).expect(0);
    let (url, plan) = (example.database.url.clone(), example.plan());
    // The client has written a lead in the middle of the first chunk, and has not committed.
    let mut client = Client::begin(&url);
    client.say("UPDATE leads SET status = 'Crossed' WHERE id = 500").unwrap();
    let run = example
        .command(&["run", &plan])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = client.pid;
    let waits = || {
        let query = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))"
        );
        example.database.value(&query) != "0"
    };
    assert!(wait_for(Duration::from_mins(1), waits), "the chunk doesn't wait for the client");
    // Now it wants a lead that the waiting chunk has copied: each waits for the other, until we give way.
    client.say("UPDATE leads SET status = 'Crossed' WHERE id = 5").unwrap();
    client.say("COMMIT").unwrap();
    let ran = Ran::from(run.wait_with_output().unwrap()).expect(0);
    assert!(!ran.stderr.contains("deadlock detected"), "{ran}");
    let crossed = "SELECT count(*) FROM leads WHERE status = 'Crossed' AND status_code = 'crossed'";
    assert_eq!(example.database.value(crossed), "2");
    example.database.run("UPDATE kept.leads SET status = 'Crossed' WHERE id IN (5, 500)");
    check_rows(&example);
}

/// A client of the database.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    conn: sqlx::postgres::PgConnection,
    pub pid: i32,
}

impl Client {
    /// A client in a transaction.
    pub fn begin(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut conn = runtime.block_on(connect(url)).unwrap();
        let asked = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut conn);
        let pid = runtime.block_on(asked).unwrap().get(0);
        let mut client = Self { runtime, conn, pid };
        client.say("BEGIN").unwrap();
        client
    }

    pub fn say(&mut self, sql: &str) -> Result<(), String> {
        let said = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.conn);
        self.runtime.block_on(said).map(|_| ()).map_err(|error| error.to_string())
    }
}

#[test]
fn a_role_whose_transactions_are_serializable_runs_the_plan_beside_a_client() {
    let Some(example) = leads() else { return };
    let owner = example.database.owner();
    example
        .database
        .run(&format!("ALTER ROLE {owner} SET default_transaction_isolation = 'serializable'"));
    // The client's role is the same; it asks for read committed, so that nothing of its own is refused.
    let writer = Writer::at_work(&example);
    let ran = example.run(&[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    writer.ends_well();
    check_rows(&example);
}

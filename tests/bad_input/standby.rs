//! A standby as the target, and one that was promoted in the middle of a run.

use std::process::Stdio;
use std::time::Duration;

use super::{Bed, MOVED, TABLES, mentions, plan};
use crate::bad_luck_postgres::server::Server;
use crate::examples::database::{block_on, connect};
use crate::sandbox::{Ran, wait_for};

/// The address of a database on another server.
fn on(server: &Server, bed: &Bed) -> String {
    let mut url = url::Url::parse(&bed.database.url).unwrap();
    url.set_port(url::Url::parse(&server.url).unwrap().port()).unwrap();
    url.into()
}

fn ask(url: &str, query: &str) -> String {
    let text = format!("SELECT ({query})::text");
    block_on(async {
        let mut conn = connect(url).await.unwrap();
        let row = sqlx::raw_sql(sqlx::AssertSqlSafe(text)).fetch_one(&mut conn).await.unwrap();
        sqlx::Row::get::<String, _>(&row, 0)
    })
}

/// Waits until a standby has everything that its primary has committed.
#[track_caller]
fn catch_up(primary: &Server, standby: &Server) {
    let there = ask(&primary.url, "pg_current_wal_flush_lsn()");
    let has = || ask(&standby.url, &format!("pg_last_wal_replay_lsn() >= '{there}'")) == "true";
    assert!(wait_for(Duration::from_secs(30), has), "the standby does not catch up");
}

fn promote(standby: &Server) {
    standby.control(&["promote"]);
    let is_primary = || ask(&standby.url, "NOT pg_is_in_recovery()") == "true";
    assert!(wait_for(Duration::from_secs(30), is_primary), "the standby is not promoted");
}

#[test]
fn a_standby_takes_dry_runs_only_and_after_a_failover_what_was_lost_is_noticed() {
    let Some(primary) = Server::new("a standby") else { return };
    let bed = Bed::on(&primary.url);
    bed.begin(TABLES, &plan(MOVED, "forward"));
    let standby = Server::following(&primary.url);
    let there = on(&standby, &bed);
    let at_standby = |args: &[&str]| bed.sandbox.run_with(args, "APP_URL", &there);
    catch_up(&primary, &standby);
    let ran = at_standby(&["run", "plan.yaml"]).expect(77);
    mentions(
        &ran,
        &["the server is a standby, which takes no writes", "name the primary in the target's URL"],
    );
    at_standby(&["dry-run", "plan.yaml", "--depth", "probe"]).expect(0);

    bed.phasegate(&["run", "plan.yaml", "--to", "sync-m"]).expect(0);
    catch_up(&primary, &standby);
    at_standby(&["run", "plan.yaml"]).expect(77);
    // The standby hears of nothing more, and then it is all that is left.
    standby.control(&["-m", "fast", "stop"]);
    bed.phasegate(&["run", "plan.yaml", "--to", "copy-m"]).expect(0);
    primary.control(&["-m", "immediate", "stop"]);
    standby.start_as(&standby);
    promote(&standby);
    let ran = at_standby(&["run", "plan.yaml"]).expect(6);
    mentions(
        &ran,
        &["the database has nothing of what was done there: copy-m", "phasegate rollback"],
    );
    assert_eq!(ask(&there, "SELECT count(*) FROM u"), "0");
    at_standby(&["rollback", "bad", "--yes"]).expect(0);
    assert_eq!(ask(&there, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"), "0");
    at_standby(&["run", "plan.yaml", "--new"]).expect(0);
    assert_eq!(ask(&there, "SELECT count(*) FROM u"), "200");
}

#[test]
fn a_standby_that_is_promoted_in_the_middle_of_a_chunk_is_noticed_and_the_run_goes_on_when_asked() {
    let Some(primary) = Server::new("a failover") else { return };
    let bed = Bed::on(&primary.url);
    bed.begin(TABLES, &plan(MOVED, "forward"));
    let standby = Server::following(&primary.url);
    bed.phasegate(&["run", "plan.yaml", "--to", "sync-m"]).expect(0);
    let run = bed
        .sandbox
        .command(&["run", "plan.yaml"])
        .env("APP_URL", &bed.database.url)
        .env("FAILPOINTS", "postgres::before-commit::chunk=1*off->1*sleep(6000)->off")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let in_a_chunk = || ask(&bed.database.as_superuser(), "SELECT count(*) > 0 FROM u") == "true";
    assert!(wait_for(Duration::from_secs(30), in_a_chunk), "no chunk is copied");
    catch_up(&primary, &standby);
    primary.control(&["-m", "immediate", "stop"]);
    promote(&standby);
    // The new primary takes the old one's address.
    standby.control(&["-m", "fast", "stop"]);
    standby.start_as(&primary);
    let ran = Ran::from(run.wait_with_output().unwrap()).expect(6);
    mentions(&ran, &["the server was followed by another: it writes timeline 2", "then retry"]);
    bed.phasegate(&["retry", "bad"]).expect(0);
    assert_eq!(bed.database.value("SELECT count(*) FROM u"), "200");
    let unlike = "SELECT count(*) FROM (TABLE t EXCEPT TABLE u) AS d";
    assert_eq!(bed.database.value(unlike), "0");
}

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
pub fn catch_up(primary: &Server, standby: &Server) {
    let there = ask(&primary.url, "pg_current_wal_flush_lsn()");
    let has = || ask(&standby.url, &format!("pg_last_wal_replay_lsn() >= '{there}'")) == "true";
    assert!(wait_for(Duration::from_secs(30), has), "the standby does not catch up");
}

pub fn promote(standby: &Server) {
    standby.control(&["promote"]);
    let is_primary = || ask(&standby.url, "NOT pg_is_in_recovery()") == "true";
    assert!(wait_for(Duration::from_secs(30), is_primary), "the standby is not promoted");
}

/// The primary is gone, and a standby that was stopped before takes its place and its address, with what it had.
pub fn takes_over(standby: &Server, primary: &Server) {
    primary.control(&["-m", "immediate", "stop"]);
    standby.start_as(standby);
    promote(standby);
    standby.control(&["-m", "fast", "stop"]);
    standby.start_as(primary);
}

/// What is compared opens a gate, behind which the tables change their names; and another before the old one goes.
const GATED: &str = "  - id: ready
    phase: contract
    gate:
      approvals: [{ group: dba, count: 1 }]
      verified_within: 1h
  - id: switch
    phase: contract
    retire: { mapping: m, old_name: t_old, take_name: true }
  - id: last
    phase: contract
    gate:
      approvals: [{ group: dba, count: 1 }]
      verified_within: 1h
  - id: gone
    phase: contract
    drop: { mapping: m }
    irreversible: a test
";

fn gated() -> String {
    format!("{}{GATED}", plan(MOVED, "forward"))
}

fn approve(bed: &Bed, gate: &str) {
    let shown = bed.phasegate(&["gates", "bad", gate, "--show", "--format", "json"]).json();
    let work = shown["gates"][0]["work"].as_str().unwrap().to_owned();
    bed.phasegate(&["approve", "bad", gate, "--as", "dee", "--digest", &work]).expect(0);
}

/// How often a step was begun.
fn attempts(bed: &Bed, step: &str) -> u64 {
    let status = bed.phasegate(&["status", "bad", "--format", "json"]).expect(0).json();
    let steps = status["steps"].as_array().unwrap();
    steps.iter().find(|one| one["id"] == step).unwrap()["attempts"].as_u64().unwrap()
}

#[test]
fn a_pass_from_before_a_failover_opens_nothing_and_what_the_ledger_vouches_for_stays() {
    let Some(primary) = Server::new("a failover between two starts") else { return };
    let bed = Bed::on(&primary.url);
    bed.begin(TABLES, &gated());
    let standby = Server::following(&primary.url);
    bed.phasegate(&["run", "plan.yaml", "--to", "copy-m"]).expect(0);
    bed.database.run("UPDATE u SET v = 'past the sync' WHERE id = 7");
    catch_up(&primary, &standby);
    standby.control(&["-m", "fast", "stop"]);
    // Of this the standby hears no more.
    bed.database.run("UPDATE u SET v = 'v7' WHERE id = 7");
    bed.phasegate(&["run", "plan.yaml"]).expect(4);
    approve(&bed, "ready");
    bed.phasegate(&["gates", "bad", "ready"]).expect(0);

    takes_over(&standby, &primary);
    let shut = bed.phasegate(&["gates", "bad", "ready", "--format", "json"]).expect(4);
    let conditions = shut.json()["gates"][0]["conditions"].clone();
    let unchanged =
        conditions.as_array().unwrap().iter().find(|it| it["condition"] == "unchanged").unwrap();
    assert_eq!(unchanged["have"], "changed: app may have lost its last transactions since");
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(7);
    mentions(
        &ran,
        &[
            "app may have lost its last transactions: it is timeline 2 of system",
            "and was timeline 1 of system",
            "what was found is void, and is found again: compare-m",
            "compare-m: 0 missing, 0 extra, 1 different of 200 rows",
        ],
    );
    assert_eq!(bed.database.value("SELECT count(*) FROM pg_class WHERE relname = 't_old'"), "0");
    let history = bed.phasegate(&["history", "bad"]).expect(0);
    mentions(&history, &["app may have lost its last transactions: it is timeline 2"]);

    bed.database.run("UPDATE u SET v = 'v7' WHERE id = 7");
    // What was approved is the same work.
    let ran = bed.phasegate(&["retry", "bad"]).expect(4);
    mentions(&ran, &["The run of plan bad waits at gate last"]);
    assert_eq!(attempts(&bed, "compare-m"), 3);
    bed.database.run("INSERT INTO t (id, v) VALUES (1000, 'only here by now')");

    let next = Server::following(&primary.url);
    catch_up(&primary, &next);
    next.control(&["-m", "fast", "stop"]);
    // It is the server that has taken the primary's place.
    standby.control(&["-m", "immediate", "stop"]);
    next.start_as(&next);
    promote(&next);
    next.control(&["-m", "fast", "stop"]);
    next.start_as(&primary);
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(4);
    mentions(&ran, &["it is timeline 3 of system"]);
    assert!(!format!("{ran}").contains("is void"), "{ran}");
    approve(&bed, "last");
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!(attempts(&bed, "compare-m"), 3, "nothing could have been compared");
    assert_eq!(bed.database.value("SELECT count(*) FROM t"), "201");
}

#[test]
fn a_failover_while_a_gate_is_waited_for_ends_the_wait_and_what_goes_on_compares_again() {
    let Some(primary) = Server::new("a failover at a gate") else { return };
    let bed = Bed::on(&primary.url);
    bed.begin(TABLES, &gated());
    let standby = Server::following(&primary.url);
    let run = bed
        .sandbox
        .command(&["run", "plan.yaml", "--wait", "3m"])
        .env("APP_URL", &bed.database.url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let gates = || bed.phasegate(&["gates", "bad", "ready", "--format", "json"]);
    let is_reached = || {
        let shown = gates();
        shown.code == Some(4) && shown.json()["gates"][0]["work"].is_string()
    };
    assert!(wait_for(Duration::from_secs(90), is_reached), "{}", gates());
    catch_up(&primary, &standby);
    standby.control(&["-m", "fast", "stop"]);
    takes_over(&standby, &primary);
    let ran = Ran::from(run.wait_with_output().unwrap()).expect(6);
    mentions(&ran, &["the server was followed by another: it writes timeline 2"]);
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(4);
    mentions(&ran, &["what was found is void, and is found again: compare-m"]);
    assert_eq!(attempts(&bed, "compare-m"), 2);
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

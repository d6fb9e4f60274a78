//! What goes away while chunks are copied and compared, and statements that are to end before they are done.

use std::process::Stdio;
use std::time::Duration;

use super::refused::{Client, as_superuser, in_the_middle_of_the_copy, mentions};
use super::{check_rows, edit, leads};
use crate::examples::Example;
use crate::failures::signal;
use crate::sandbox::{Ran, wait_for};

#[test]
fn a_table_that_is_dropped_between_two_chunks_stops_the_copy_as_stale() {
    for table in ["leads", "leads_v2"] {
        let Some(example) = leads() else { return };
        let child = in_the_middle_of_the_copy(&example);
        example.database.run(&format!("DROP TABLE {table} CASCADE"));
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(6), "{table}: {ran}");
        mentions(&ran, &[&format!("there is no table {table} any more")]);
    }
}

#[test]
fn a_privilege_that_is_lost_between_two_chunks_is_named_and_the_copy_goes_on_with_it() {
    let Some(example) = leads() else { return };
    let owner = example.database.owner().to_owned();
    let child = in_the_middle_of_the_copy(&example);
    as_superuser(&example, "ALTER TABLE leads_v2 OWNER TO CURRENT_USER");
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(77), "{ran}");
    mentions(&ran, &["permission denied for table leads_v2 [42501]", "GRANT "]);
    as_superuser(&example, &format!("ALTER TABLE leads_v2 OWNER TO {owner}"));
    example.phasegate(&["retry", example.name]).expect(0);
    check_rows(&example);
}

fn state(example: &Example, step: &str) -> String {
    let status = example.phasegate(&["status", example.name, "--format", "json"]).expect(0).json();
    let steps = status["steps"].as_array().unwrap();
    let step = steps.iter().find(|found| found["id"] == step).unwrap();
    step["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_table_that_goes_under_a_comparison_is_no_pass() {
    for (change, words) in [
        ("DROP TABLE leads_v2 CASCADE", "there is no table leads_v2 any more"),
        ("ALTER TABLE leads DISABLE TRIGGER USER", "disabled"),
        ("ALTER TABLE leads_v2 RENAME TO leads_v3", "there is no table leads_v2 any more"),
    ] {
        let Some(example) = leads() else { return };
        example.run(&["--to", "compare-samples"]).expect(0);
        // The change is made and not committed: the comparison has to wait for it.
        let mut client = Client::begin(&example.database.url);
        client.say("LOCK TABLE leads, leads_v2 IN ACCESS EXCLUSIVE MODE").unwrap();
        client.say(change).unwrap();
        let child = example
            .command(&["run", &example.plan()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = client.pid;
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))"
        );
        assert!(wait_for(Duration::from_mins(1), || example.database.value(&waits) != "0"));
        client.say("COMMIT").unwrap();
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(6), "{change}: {ran}");
        mentions(&ran, &[words]);
        assert_ne!(state(&example, "compare-every-row"), "succeeded", "{change}");
    }
}

/// Whether the server still carries the statement that sleeps.
fn sleeps(example: &Example) -> bool {
    let name = example.database.value("SELECT current_database()");
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND state = 'active' AND wait_event = 'PgSleep'"
    );
    example.database.value(&query) != "0"
}

/// leads-v2 with a step that would take ten minutes.
fn asleep(more: &str) -> Option<Example> {
    let example = leads()?;
    edit(
        &example,
        "    sql: ANALYZE leads_v2\n    undo:\n      none: statistics go with the table\n",
        &format!("    sql: SELECT pg_sleep(600)\n    undo:\n      none: nothing was done\n{more}"),
    );
    Some(example)
}

#[test]
fn a_statement_that_takes_too_long_ends_on_the_server_too() {
    let Some(example) = asleep("    timeout: 1s\n") else { return };
    let ran = example.run(&[]);
    assert_eq!(ran.code, Some(1), "{ran}");
    mentions(&ran, &["collect-statistics", "1s"]);
    assert!(wait_for(Duration::from_secs(10), || !sleeps(&example)), "the server goes on with it");
    // Nothing is open that would be in anybody's way.
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL
        AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    assert_eq!(example.database.value(open), "0");
}

#[test]
fn a_second_interrupt_ends_a_statement_on_the_server_too() {
    let Some(example) = asleep("") else { return };
    let mut child = example
        .command(&["run", &example.plan()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(wait_for(Duration::from_mins(1), || sleeps(&example)), "the step did not begin");
    signal(child.id(), "INT");
    // What is under way may end by itself, so that the first is only heard.
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none() || !sleeps(&example));
    signal(child.id(), "INT");
    let ended = wait_for(Duration::from_secs(30), || child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    assert!(ended, "it was not heard");
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{ran}");
    assert!(wait_for(Duration::from_secs(10), || !sleeps(&example)), "the server goes on with it");
    // It can be gone on with.
    edit(&example, "pg_sleep(600)", "pg_sleep(0)");
    example.phasegate(&["rollback", example.name, "--yes"]).expect(0);
}

#[test]
fn what_only_the_new_table_was_told_is_given_up_by_name_alone() {
    let Some(example) = leads() else { return };
    let before = example.database.dump();
    example.run(&["--to", "switch-leads"]).expect(0);
    example.database.run(
        "INSERT INTO leads (id, name, status, status_code, created_at) VALUES (99999, 'Late', 'NEW', 'new', now())",
    );
    let refused = example.phasegate(&["rollback", example.name, "--yes"]);
    assert_eq!(refused.code, Some(9), "{refused}");
    mentions(&refused, &["1 are only there", "--accept-loss leads"]);
    assert_eq!(example.database.value("SELECT count(*) FROM leads WHERE id = 99999"), "1");
    let wrong = ["rollback", example.name, "--yes", "--accept-loss", "laeds"];
    mentions(&example.phasegate(&wrong).expect(64), &["laeds"]);
    let args = ["rollback", example.name, "--yes", "--accept-loss", "leads"];
    example.phasegate(&args).expect(0);
    example.is_as(&before);
    assert_eq!(example.database.ours(), ["phasegate.runs"]);
}

//! A state store in a SQLite file that can't be written any more in the middle of a copy: nothing is begun without its record, and the
//! run goes on once it can.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::{TinyDisk, edit, mentions};
use crate::bad_luck::{ROWS, check_counts, sandbox};
use crate::sandbox::{Ran, Sandbox, wait_for};

/// How soon it ends: somebody else's lock is waited for 5 s, in each of what may wait for it one behind the other; thrice that.
const ENDS_WITHIN: Duration = Duration::from_secs(3 * 15);

/// In the middle of a copy that takes about a minute.
fn copying(sandbox: &Sandbox, state: &str) -> Child {
    edit(sandbox, "chunk: { rows: 150 }", "chunk: { rows: 20 }\n      pause_between: 600ms");
    sandbox.run(&["run", "plan.yaml", "--state", state, "--to", "sync"]).expect(0);
    let child = sandbox
        .command(&["run", "plan.yaml", "--state", state])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let some = || sandbox.value("app.db", "SELECT count(*) >= 60 FROM customers_v2") == "1";
    assert!(wait_for(Duration::from_mins(1), some), "the copy does not begin");
    child
}

#[track_caller]
fn ended(mut child: Child) -> Ran {
    let is_over = wait_for(ENDS_WITHIN, || child.try_wait().unwrap().is_some());
    if !is_over {
        child.kill().unwrap();
    }
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!(is_over, "it did not end within {ENDS_WITHIN:?}: {ran}");
    ran
}

/// The run is as far as its journal knows, and goes on to its end with each row copied once.
#[track_caller]
fn goes_on(sandbox: &Sandbox, state: &str) {
    let copied: u32 = sandbox.value("app.db", "SELECT count(*) FROM customers_v2").parse().unwrap();
    assert!(copied < ROWS, "the copy came to its end before");
    let history = ["history", "customers", "--state", state, "--format", "json"];
    let history = sandbox.run(&history).expect(0).json();
    let started: BTreeSet<&str> = history["records"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record["event"]["kind"] == "step_started")
        .filter_map(|record| record["event"]["step"].as_str())
        .collect();
    assert_eq!(started, BTreeSet::from(["create", "sync", "copy"]));
    let in_ledger = "SELECT step FROM phasegate_steps UNION SELECT step FROM phasegate_copies
        UNION SELECT step FROM phasegate_chunks";
    for step in sandbox.rows("app.db", in_ledger) {
        assert!(started.contains(&*step), "{step} was done without a record");
    }
    sandbox.run(&["tune", "customers", "--state", state, "--pause-between", "0s"]).expect(0);
    sandbox.run(&["run", "plan.yaml", "--state", state]).expect(0);
    assert_eq!(sandbox.value("app.db", "SELECT count(*) FROM customers"), ROWS.to_string());
    sandbox.run(&["history", "customers", "--state", state, "--verify"]).expect(0);
}

#[test]
fn locked_for_long_in_the_middle_of_a_copy_the_store_ends_the_run_and_it_goes_on_later() {
    let sandbox = sandbox("");
    let state = ".phasegate/state.db";
    let child = copying(&sandbox, state);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut other = runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(sandbox.path(state))
            .busy_timeout(Duration::from_secs(30));
        let mut other = options.connect().await.unwrap();
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        other
    });
    let ran = ended(child).expect(69);
    mentions(&ran, &["state.db", "locked"]);
    // Who has it is not driven out, and who wants it is told.
    let ran = sandbox.run(&["run", "plan.yaml", "--state", state]).expect(69);
    mentions(&ran, &["state.db"]);
    runtime.block_on(async {
        other.execute("ROLLBACK").await.unwrap();
        other.close().await.unwrap();
    });
    goes_on(&sandbox, state);
    check_counts(&sandbox, "locked for long");
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_copy_ends_the_run_and_it_goes_on_later() {
    let sandbox = sandbox("");
    let Some(disk) = TinyDisk::mount(&sandbox.path("tiny")) else {
        crate::services::not_run("a disk that is full: mounting a small file system needs root");
        return;
    };
    let child = copying(&sandbox, "tiny/state.db");
    disk.fill();
    let ran = ended(child).expect(69);
    mentions(&ran, &["state.db", "full"]);
    disk.free();
    goes_on(&sandbox, "tiny/state.db");
}

//! Who drives a run, as others see it: two that want the same one, one that was stopped and comes back, and one that is taken off.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::bad_luck::{APPROVAL, sandbox};
use crate::failures::signal;
use crate::sandbox::{Ran, Sandbox, wait_for};

/// A run that waits at its gate.
fn waiting(sandbox: &Sandbox) -> Child {
    let child = sandbox
        .command(&["run", "plan.yaml", "--wait", "10m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let waits = || {
        let status = sandbox.run(&["gates", "customers", "--format", "json"]);
        status.stdout.contains("\"work\": \"")
    };
    assert!(wait_for(Duration::from_mins(1), waits), "the gate was not reached");
    child
}

fn locks(sandbox: &Sandbox) -> Vec<Value> {
    let listed = sandbox.run(&["lock", "list", "--format", "json"]).expect(0).json();
    listed["locks"].as_array().unwrap().clone()
}

#[test]
fn whoever_comes_second_is_told_who_has_the_run_and_since_when() {
    let sandbox = sandbox(APPROVAL);
    let mut first = waiting(&sandbox);
    let refused = sandbox.run(&["run", "plan.yaml", "--format", "json"]).expect(5).json();
    let holder = &refused["holder"];
    assert_eq!(holder["pid"], first.id());
    for field in ["name", "host", "since", "last_heartbeat", "store"] {
        assert!(holder[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {holder}");
    }
    let [lock] = &locks(&sandbox)[..] else { panic!("{:?}", locks(&sandbox)) };
    assert_eq!((&lock["pid"], &lock["free"]), (&first.id().into(), &false.into()));
    let listed = sandbox.run(&["lock", "list", "customers"]).expect(0);
    assert!(listed.stdout.contains("held, lapses in"), "{listed}");
    first.kill().unwrap();
    first.wait().unwrap();
    // It is seen to be gone at once.
    let listed = sandbox.run(&["lock", "list"]).expect(0);
    assert!(listed.stdout.contains("that process is gone"), "{listed}");
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let listed = sandbox.run(&["lock", "list"]).expect(0);
    assert_eq!(listed.stdout, "Nobody holds a lock.\n", "{listed}");
}

#[test]
fn one_that_was_stopped_while_it_waits_is_followed_and_says_so_when_it_comes_back() {
    let sandbox = sandbox(APPROVAL);
    let first = waiting(&sandbox);
    signal(first.id(), "STOP");
    sandbox.run(&["run", "plan.yaml"]).expect(5);
    let follows = || sandbox.run(&["run", "plan.yaml"]).code == Some(4);
    assert!(wait_for(Duration::from_mins(1), follows), "nobody could follow");
    signal(first.id(), "CONT");
    let first = Ran::from(first.wait_with_output().unwrap()).expect(5);
    assert!(first.stderr.contains("the lease is not its own any more: it lapsed"), "{first}");
}

#[test]
fn one_that_hangs_is_taken_off_by_force_and_with_a_reason() {
    let sandbox = sandbox(APPROVAL);
    let first = waiting(&sandbox);
    signal(first.id(), "STOP");
    let pid = first.id().to_string();
    let release = ["lock", "release", "customers"];
    for extra in [&[][..], &["--force"], &["--reason", "it hangs"]] {
        let refused = sandbox.run(&[&release[..], extra].concat()).expect(64);
        assert!(refused.stderr.contains("--force --reason"), "{refused}");
        assert!(refused.stderr.contains(&pid), "{refused}");
    }
    let empty = [&release[..], &["--force", "--reason", " "]].concat();
    sandbox.run(&empty).expect(64);
    sandbox.run(&["run", "plan.yaml"]).expect(5);
    let forced = [&release[..], &["--force", "--reason", "it hangs"]].concat();
    let said = sandbox.run(&forced).expect(0);
    assert!(said.stdout.contains(&pid), "{said}");
    assert_eq!(locks(&sandbox), [] as [Value; 0]);
    // Nobody has it, so there is nothing to take.
    sandbox.run(&forced).expect(64);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    signal(first.id(), "CONT");
    let ousted = Ran::from(first.wait_with_output().unwrap()).expect(5);
    assert!(ousted.stderr.contains("`phasegate lock release` took it away"), "{ousted}");
    let history = sandbox.run(&["history", "customers", "--verify"]).expect(0);
    assert_eq!(history.stdout.matches("it hangs").count(), 1, "{history}");
    assert!(history.stdout.contains(&format!("(pid {pid} on ")), "{history}");
    let unknown = sandbox.run(&["lock", "release", "nothing", "--force", "--reason", "x"]);
    unknown.expect(64);
}

/// Nobody can end another's transaction in SQLite.
#[test]
fn one_that_was_stopped_in_a_transaction_is_named_and_followed_once_it_is_gone() {
    let sandbox = sandbox("");
    let mut first = sandbox
        .command(&["run", "plan.yaml"])
        .env("FAILPOINTS", "sqlite::before-commit::chunk=4*off->sleep(600000)")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let rows = "SELECT count(*) FROM customers_v2";
    let copied = || {
        let there = "SELECT count(*) FROM sqlite_master WHERE name = 'customers_v2'";
        sandbox.value("app.db", there) == "1" && sandbox.value("app.db", rows) == "600"
    };
    assert!(wait_for(Duration::from_mins(1), copied), "it copies nothing");
    // Four chunks are committed, and the fifth has what it holds.
    std::thread::sleep(Duration::from_millis(500));
    signal(first.id(), "STOP");
    let refused = || sandbox.run(&["run", "plan.yaml"]).expect(5);
    let (pid, hangs) = (first.id().to_string(), "in the middle of a transaction");
    let has_lapsed = || refused().stderr.contains(hangs);
    assert!(wait_for(Duration::from_mins(1), has_lapsed), "{}", refused());
    let told = refused();
    assert!(told.stderr.contains(&format!("kill -9 {pid}")), "{told}");
    assert!(told.stderr.contains("target app is locked"), "{told}");
    assert_eq!(sandbox.value("app.db", rows), "600");
    first.kill().unwrap();
    first.wait().unwrap();
    sandbox.run(&["run", "plan.yaml"]).expect(0);
    crate::bad_luck::check_counts(&sandbox, "behind one that was stopped");
}

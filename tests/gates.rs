//! Gates, as release managers meet them at the command line.

use std::time::Duration;

use serde_json::Value;

use crate::bad_luck::{APPROVAL, sandbox};
use crate::sandbox::{Ran, Sandbox};

mod people;
mod policy;
mod postgres;
mod release;
mod sync;
mod times;

/// Orders on PostgreSQL, switched behind one gate and dropped behind another.
const ORDERS: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata: { name: orders }
targets:
  app: { engine: postgres, url: "${env:ORDERS_URL}" }
mappings:
  orders:
    from: { target: app, table: orders, key: [id] }
    into: { target: app, table: orders_v2 }
    columns: { status: lower(status) }
REVERSEsteps:
  - id: create
    phase: expand
    sql: CREATE TABLE orders_v2 (LIKE orders INCLUDING ALL)
    undo: { sql: DROP TABLE orders_v2 }
  - id: sync
    phase: dual-write
    dual_write: { mapping: orders, direction: DIRECTION }
  - id: copy
    phase: backfill
    backfill: { mapping: orders }
  - id: compare
    phase: verify
    verify: { mapping: orders, method: full }
  - id: ready
    phase: contract
    gate: { FIRST }
  - id: switch
    phase: contract
    retire: { mapping: orders, old_name: orders_old, take_name: true }
  - id: last
    phase: contract
    gate: { LAST }
  - id: drop
    phase: contract
    drop: { mapping: orders }
    irreversible: every row lives on
"#;

/// That plan with a direction and what its two gates ask.
fn orders(direction: &str, [first, last]: [&str; 2]) -> String {
    let reverse = if direction == "both" { "    reverse: { status: upper(status) }\n" } else { "" };
    ORDERS
        .replace("REVERSE", reverse)
        .replace("DIRECTION", direction)
        .replace("FIRST", first)
        .replace("LAST", last)
}

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

/// A gate of the run of plan customers, as `gates` has it.
pub fn gate(sandbox: &Sandbox, id: &str, options: &[&str]) -> Value {
    let words = [&["gates", "customers", id, "--show", "--format", "json"], options].concat();
    let ran = sandbox.run(&words);
    assert!(matches!(ran.code, Some(0 | 4)), "{ran}");
    ran.json()["gates"][0].clone()
}

/// The digest of the work behind a gate; eight zeros before there is any.
pub fn digest_in(sandbox: &Sandbox, id: &str, options: &[&str]) -> String {
    gate(sandbox, id, options)["work"].as_str().unwrap_or("00000000").to_owned()
}

pub fn digest(sandbox: &Sandbox, id: &str) -> String {
    digest_in(sandbox, id, &[])
}

/// Approves what a gate releases now, as somebody who has looked at it.
pub fn approve(sandbox: &Sandbox, id: &str, by: &str) -> Ran {
    let work = digest(sandbox, id);
    sandbox.run(&["approve", "customers", id, "--as", by, "--digest", &work])
}

#[test]
fn a_shut_gate_says_what_is_missing_and_the_command_that_supplies_it() {
    let sandbox = sandbox(APPROVAL);
    let stopped = sandbox.run(&["run", "plan.yaml"]).expect(4);
    let words = said(&stopped);
    assert!(words.contains("1 approval of dba"), "{words}");
    assert!(words.contains("phasegate approve") && words.contains(" ready"), "{words}");
    // Nothing was put aside.
    assert_eq!(
        sandbox.value("app.db", "SELECT count(*) FROM sqlite_master WHERE name = 'customers_old'"),
        "0"
    );

    let work = digest(&sandbox, "ready");
    let stale = ["approve", "customers", "ready", "--as", "dee", "--digest", "0123456789abcdef"];
    sandbox.run(&stale).expect(6);
    let approve = ["approve", "customers", "ready", "--as", "dee", "--digest", &work];
    sandbox.run(&approve).expect(0);
    let twice = sandbox.run(&approve).expect(77);
    assert!(said(&twice).contains("distinct"), "{twice}");
    sandbox.run(&["run", "plan.yaml"]).expect(0);
    let history = sandbox.run(&["history", "customers"]).expect(0);
    assert!(history.stdout.contains("dee"), "{history}");
}

#[test]
fn a_rejection_stands_until_its_author_takes_it_back() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let work = digest(&sandbox, "ready");
    sandbox.run(&["reject", "customers", "ready", "--as", "ben", "--reason", "freeze"]).expect(0);
    sandbox.run(&["approve", "customers", "ready", "--as", "dee", "--digest", &work]).expect(0);
    let stopped = sandbox.run(&["run", "plan.yaml"]).expect(4);
    assert!(said(&stopped).contains("freeze"), "{stopped}");
    sandbox.run(&["revoke", "customers", "ready", "--as", "chloe"]).expect(64);
    sandbox.run(&["revoke", "customers", "ready", "--as", "ben"]).expect(0);
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}

#[test]
fn a_change_by_somebody_else_voids_what_was_approved() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let work = digest(&sandbox, "ready");
    sandbox.run(&["approve", "customers", "ready", "--as", "dee", "--digest", &work]).expect(0);
    sandbox.sql("app.db", "CREATE INDEX somebody_else ON customers_v2 (name)");
    let stopped = sandbox.run(&["run", "plan.yaml"]).expect(4);
    assert!(said(&stopped).contains("approval"), "{stopped}");
    assert_ne!(digest(&sandbox, "ready"), work);
}

#[test]
fn waiting_sees_an_approval_from_another_terminal() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let work = digest(&sandbox, "ready");
    let mut waiting = sandbox.command(&["run", "plan.yaml", "--wait", "60s"]).spawn().unwrap();
    let driven = || {
        let status = sandbox.run(&["status", "customers", "--format", "json"]);
        !status.json()["driven_by"].is_null()
    };
    let ready = crate::sandbox::wait_for(Duration::from_secs(30), driven);
    assert!(ready, "nobody drives the run");
    sandbox.run(&["approve", "customers", "ready", "--as", "dee", "--digest", &work]).expect(0);
    let ended =
        crate::sandbox::wait_for(Duration::from_secs(30), || waiting.try_wait().unwrap().is_some());
    if !ended {
        waiting.kill().unwrap();
    }
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn waiting_ends_with_the_time_it_was_given() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml", "--wait", "1s"]).expect(4);
}

#[test]
fn a_stale_verify_is_run_again_by_the_gate_itself() {
    let sandbox = sandbox(&format!("{APPROVAL}\n      soak: {{ after: compare, for: 6s }}"));
    let plan = std::fs::read_to_string(sandbox.path("plan.yaml")).unwrap();
    sandbox.write("plan.yaml", &plan.replacen("verified_within: 1h", "verified_within: 5s", 1));
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let work = digest(&sandbox, "ready");
    sandbox.run(&["approve", "customers", "ready", "--as", "dee", "--digest", &work]).expect(0);
    sandbox.run(&["run", "plan.yaml", "--wait", "30s"]).expect(0);
    let status = sandbox.run(&["status", "customers", "--format", "json"]).expect(0).json();
    let steps = status["steps"].as_array().unwrap();
    let compare = steps.iter().find(|step| step["id"] == "compare").unwrap();
    assert!(compare["attempts"].as_u64().unwrap() > 1, "{compare}");
}

#[test]
fn a_failed_refresh_shuts_the_gate_and_ends_with_7() {
    let sandbox = sandbox(APPROVAL);
    let plan = std::fs::read_to_string(sandbox.path("plan.yaml")).unwrap();
    sandbox.write("plan.yaml", &plan.replacen("verified_within: 1h", "verified_within: 1s", 1));
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let work = digest(&sandbox, "ready");
    // Somebody writes to the new side alone, where nothing mirrors it.
    sandbox.sql("app.db", "UPDATE customers_v2 SET status_code = 'wrong' WHERE id = 9");
    std::thread::sleep(Duration::from_millis(1_100));
    sandbox.run(&["approve", "customers", "ready", "--as", "dee", "--digest", &work]).expect(0);
    let differs = sandbox.run(&["run", "plan.yaml"]).expect(7);
    assert!(said(&differs).contains("status_code"), "{differs}");
    // A run with a failed step changes nothing; a retry compares again, which is what the gate names.
    sandbox.run(&["run", "plan.yaml"]).expect(7);
    let gate = sandbox.run(&["gates", "customers", "ready"]).stdout;
    assert!(gate.contains(" retry customers\n") && !gate.contains(" run plan.yaml\n"), "{gate}");
    sandbox.sql("app.db", "UPDATE customers_v2 SET status_code = 'new' WHERE id = 9");
    sandbox.sql("app.db", "UPDATE customers SET status = status WHERE id = 9");
    sandbox.run(&["retry", "customers"]).expect(0);
}

#[test]
fn a_query_condition_opens_and_shuts() {
    let condition =
        "      query:\n        - { target: app, query: select count(*) from settings, expect: 0 }";
    let sandbox = sandbox(condition);
    sandbox
        .sql("app.db", "CREATE TABLE settings (name TEXT); INSERT INTO settings VALUES ('frozen')");
    let stopped = sandbox.run(&["run", "plan.yaml"]).expect(4);
    assert!(said(&stopped).contains("settings"), "{stopped}");
    sandbox.sql("app.db", "DELETE FROM settings");
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}

//! Bad luck, arranged: the process dies at every point where it may matter, and nothing is lost.

use crate::sandbox::{Ran, Sandbox};

pub const ROWS: u32 = 2_000;

/// The quickstart's shape on a table of 2,000 rows, with small chunks so that there are many points to die at.
pub fn plan(gate: &str) -> String {
    format!(
        r#"apiVersion: phasegate/v1
kind: Plan
metadata:
  name: customers
targets:
  app:
    engine: sqlite
    url: "sqlite://app.db"
mappings:
  customers:
    from: {{ target: app, table: customers, key: [id] }}
    into: {{ target: app, table: customers_v2 }}
    columns:
      status_code: lower(status)
steps:
  - id: create
    phase: expand
    target: app
    sql: |
      CREATE TABLE customers_v2 (id INTEGER PRIMARY KEY, name TEXT NOT NULL, status TEXT, status_code TEXT);
      CREATE INDEX customers_v2_status ON customers_v2 (status_code);
    undo:
      sql: DROP TABLE customers_v2
  - id: sync
    phase: dual-write
    dual_write: {{ mapping: customers, direction: forward }}
  - id: copy
    phase: backfill
    backfill:
      mapping: customers
      chunk: {{ rows: 150 }}
  - id: compare
    phase: verify
    verify: {{ mapping: customers, method: full }}
  - id: ready
    phase: contract
    gate:
      verified_within: 1h
{gate}
  - id: retire
    phase: contract
    retire: {{ mapping: customers, old_name: customers_old, take_name: true }}
  - id: ready-to-drop
    phase: contract
    gate:
      verified_within: 1h
  - id: drop
    phase: contract
    drop: {{ mapping: customers }}
    irreversible: every row lives on in the new table
"#
    )
}

pub const APPROVAL: &str = "      approvals:\n        - { group: dba, count: 1 }";

pub fn sandbox(gate: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", &plan(gate));
    sandbox.sql(
        "app.db",
        &format!(
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, status TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             INSERT INTO customers SELECT i * 3, 'customer ' || i,
               CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN 'NEW' WHEN 2 THEN 'Active' ELSE 'closed' END FROM n;"
        ),
    );
    sandbox
}

/// What must be true at the end of a run, however often it died on the way.
#[track_caller]
pub fn check_end(sandbox: &Sandbox, expected: &[String], case: &str) {
    let found = sandbox.dump("app.db");
    let differs = found.iter().zip(expected).find(|(found, expected)| found != expected);
    assert_eq!(differs, None, "{case}: the data differ from an uninterrupted run");
    assert_eq!(found.len(), expected.len(), "{case}: there are more or fewer rows");
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"], "{case}: something of ours is left");
    let runs = sandbox.rows("app.db", "SELECT count(*) FROM phasegate_runs");
    assert_eq!(runs, ["1"], "{case}: not one row for the run");
}

#[track_caller]
pub fn check_counts(sandbox: &Sandbox, case: &str) {
    let status = sandbox.run(&["status", "customers", "--format", "json"]).expect(0).json();
    let steps = status["steps"].as_array().unwrap();
    let copy = steps.iter().find(|step| step["id"] == "copy").unwrap();
    assert_eq!(copy["rows_done"], ROWS, "{case}: {copy}");
}

/// Runs with a point armed to kill at its `hits`-th time. `None` when the point was not hit that often: the run ended well.
pub fn killed_at(sandbox: &Sandbox, args: &[&str], point: &str, hits: u32) -> Option<Ran> {
    let ran = sandbox.run_with(args, "FAILPOINTS", &format!("{point}={hits}*off->return"));
    if ran.code.is_none() { Some(ran) } else { None }
}

/// Every point at which a process may die between what it does in one place and what it does in another.
pub const POINTS: [&str; 22] = [
    "journal::before-append",
    "journal::after-append",
    "sqlite::before-commit::enter",
    "sqlite::after-commit::enter",
    "sqlite::before-commit::execute",
    "sqlite::after-commit::execute",
    "sqlite::before-commit::install",
    "sqlite::after-commit::install",
    "sqlite::before-commit::plan",
    "sqlite::after-commit::plan",
    "sqlite::before-commit::chunk",
    "sqlite::after-commit::chunk",
    "sqlite::before-commit::finish",
    "sqlite::after-commit::finish",
    "sqlite::before-commit::settle",
    "sqlite::after-commit::settle",
    "sqlite::before-commit::retire",
    "sqlite::after-commit::retire",
    "sqlite::before-commit::drop",
    "sqlite::after-commit::drop",
    "sqlite::before-commit::leave",
    "sqlite::after-commit::leave",
];

#[test]
fn killed_at_every_point_the_run_ends_the_same() {
    let whole = sandbox("");
    whole.run(&["run", "plan.yaml"]).expect(0);
    let expected = whole.dump("app.db");
    check_end(&whole, &expected, "uninterrupted");
    check_counts(&whole, "uninterrupted");
    let mut kills = 0;
    for point in POINTS {
        let mut hits = 0;
        loop {
            let sandbox = sandbox("");
            let case = format!("{point}, hit {}", hits + 1);
            if killed_at(&sandbox, &["run", "plan.yaml"], point, hits).is_none() {
                break;
            }
            kills += 1;
            let resumed = sandbox.run(&["run", "plan.yaml"]);
            assert_eq!(resumed.code, Some(0), "{case}: {resumed}");
            check_end(&sandbox, &expected, &case);
            check_counts(&sandbox, &case);
            hits += 1;
        }
        let is_hit = hits > 0 || point.ends_with("settle");
        assert!(is_hit, "{point} was never reached: the test would not notice what breaks there");
    }
    assert!(kills >= 60, "only {kills} kills: points went missing");
}

#[test]
fn a_client_that_writes_between_the_halves_of_an_undone_sync_does_not_stop_it() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml", "--to", "verify"]).expect(0);
    let args = ["rollback", "customers", "--yes"];
    assert!(killed_at(&sandbox, &args, "sqlite::after-commit::remove", 0).is_some());
    // The sync has gone, the copies have not all.
    sandbox.sql(
        "app.db",
        "UPDATE customers SET status = 'late' WHERE id = 3; DELETE FROM customers WHERE id = 6",
    );
    sandbox.run(&args).expect(0);
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"]);
    assert_eq!(
        sandbox.value("app.db", "SELECT count(*) FROM customers WHERE status = 'late'"),
        "1"
    );
}

#[test]
fn rolled_back_from_every_phase_and_killed_on_the_way_everything_is_as_before() {
    let fresh = sandbox(APPROVAL);
    let expected = fresh.dump("app.db");
    let points = [
        "journal::before-append",
        "journal::after-append",
        "sqlite::before-commit::execute",
        "sqlite::after-commit::execute",
        "sqlite::before-commit::remove",
        "sqlite::after-commit::remove",
        "sqlite::before-commit::unretire",
        "sqlite::after-commit::unretire",
        "sqlite::after-commit::leave",
    ];
    for goal in ["expand", "dual-write", "backfill", "verify", "retire"] {
        let mut reached = 0;
        for point in points {
            for hits in 0.. {
                let sandbox = sandbox(if goal == "retire" { "" } else { APPROVAL });
                let case = format!("from {goal}, {point}, hit {}", hits + 1);
                let to = sandbox.run(&["run", "plan.yaml", "--to", goal]);
                assert_eq!(to.code, Some(0), "{case}: {to}");
                let args = ["rollback", "customers", "--yes"];
                let killed = killed_at(&sandbox, &args, point, hits);
                if killed.is_some() {
                    reached += 1;
                    let again = sandbox.run(&args);
                    assert_eq!(again.code, Some(0), "{case}: {again}");
                }
                check_end(&sandbox, &expected, &case);
                if killed.is_none() {
                    break;
                }
            }
        }
        assert!(reached >= 4, "from {goal} only {reached} kills were arranged");
    }
}

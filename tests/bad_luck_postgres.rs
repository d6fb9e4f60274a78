//! Bad luck on PostgreSQL, arranged with plans/leads-v2.yaml: the process dies at every append to its journal while a client
//! writes, the server goes away in the middle of a chunk, tables change under the copy, locks cross. Nothing is lost, and
//! what can't go on says why.

mod adopted;
pub mod dying;
mod midway;
mod refused;
mod retiring;
pub mod returning;
pub mod server;
pub mod writer;

use crate::examples::Example;
use crate::lives::rows_done;
use crate::services;

/// Rows that these tests begin with: few, for there are many runs.
const ROWS: u32 = 2_000;

/// leads-v2 with so many rows as the tests want, in small chunks without rest, and with gates that open by themselves.
pub fn leads() -> Option<Example> {
    services::postgres("bad luck with leads-v2").map(|server| leads_on(&server))
}

/// The same on a server of the test's own.
pub fn leads_on(server: &str) -> Example {
    let example = Example::on(server, "leads-v2", |before| {
        assert!(before.contains("generate_series(1, 5000)"));
        before.replace("generate_series(1, 5000)", &format!("generate_series(1, {ROWS})"))
    });
    example.database.run(
        "CREATE SCHEMA kept;
         CREATE TABLE kept.leads AS SELECT *, false AS is_newer FROM leads;
         ALTER TABLE kept.leads ADD PRIMARY KEY (id)",
    );
    let plan = std::fs::read_to_string(example.sandbox.path(&example.plan())).unwrap();
    let mut plan = without_approvals(&plan);
    for (from, to) in [
        ("rows: 10000", "rows: 150"),
        ("pause_between: 1s", "pause_between: 0s"),
        // Whether a lookup is slow is not what these tests are about, and machines under load have slow moments.
        ("generate_series(1, 500) as turn", "generate_series(1, 5) as turn"),
        ("percent: 10", "percent: 1000000"),
        ("for: 3days", "for: 1ms"),
    ] {
        assert!(plan.contains(from), "the plan has no {from:?}");
        plan = plan.replace(from, to);
    }
    example.sandbox.write(&example.plan(), &plan);
    example
}

fn without_approvals(plan: &str) -> String {
    let lines = plan.lines().filter(|line| {
        !line.starts_with("      approvals:") && !line.starts_with("        - group:")
    });
    lines.collect::<Vec<&str>>().join("\n") + "\n"
}

/// Changes a line of the plan.
#[track_caller]
pub fn edit(example: &Example, from: &str, to: &str) {
    let plan = std::fs::read_to_string(example.sandbox.path(&example.plan())).unwrap();
    assert!(plan.contains(from), "the plan has no {from:?}");
    example.sandbox.write(&example.plan(), &plan.replacen(from, to, 1));
}

/// The leads are what the client made of them. Whether the new column is right can be said of rows that the client has not
/// written to the new table alone.
#[track_caller]
pub fn check_rows(example: &Example) {
    example.same_rows(
        "SELECT id, name, email, status, score, created_at FROM kept.leads",
        "SELECT id, name, email, status, score, created_at FROM leads",
    );
    let wrong = "SELECT count(*) FROM leads JOIN kept.leads AS k USING (id)
        WHERE NOT k.is_newer AND leads.status_code IS DISTINCT FROM lower(trim(leads.status))";
    assert_eq!(example.database.value(wrong), "0", "status codes that nobody wrote");
    let tables = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(example.database.value(tables), "leads");
}

/// The rows that a run counted as copied.
#[track_caller]
pub fn rows_copied(example: &Example) -> u64 {
    let status = example.phasegate(&["status", example.name, "--format", "json"]).expect(0);
    rows_done(&status, "copy-leads")
}

//! The servers that tests need. `tests/run` starts them and says where they are; a test never starts one by itself.

mod turn;

use std::io::Write as _;

pub use turn::Turn;

/// Where the private PostgreSQL server is, as a URL of its superuser. Without one the caller's test is not run: this says so
/// on the terminal, where the test harness can't swallow it, and fails under CI.
pub fn postgres(test: &str) -> Option<String> {
    server("PHASEGATE_TEST_POSTGRES", "tests/services/postgres.sh start DIR", test)
}

/// Where the private Neo4j servers are, likewise, with spaces between them. Each has one database (its Community edition makes no
/// others), so a test takes a `Turn`.
pub fn neo4j(test: &str) -> Option<String> {
    server("PHASEGATE_TEST_NEO4J", "tests/services/neo4j.sh start DIR", test)
}

fn server(variable: &str, start: &str, test: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        not_run(&format!("{test}: {variable} is not set; `{start}` starts a server and prints it"));
    }
    url
}

/// Says that a test is not run, and why; under CI that is a failure.
pub fn not_run(why: &str) {
    let said = format!("NOT RUN: {why}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{said}");
    // Not `eprintln!`, which the harness keeps to itself while a test passes.
    let mut terminal = std::io::stderr();
    writeln!(terminal, "{said}").unwrap();
}

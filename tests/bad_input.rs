//! What can't be right is refused before the first change, or noticed when it comes about in the middle: with a code, the
//! place in the plan, the cause and what to do.

use crate::examples::database::Database;
use crate::sandbox::{Ran, Sandbox};
use crate::services;

mod middle;
mod pooler;
mod refused;
pub mod standby;
mod way_back;

const HEAD: &str = "apiVersion: phasegate/v1
kind: Plan
metadata: { name: bad }
targets:
  app:
    engine: postgres
    url: \"${env:APP_URL}\"
mappings:
";

/// Two tables alike, the first with rows.
const TABLES: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text, n int); CREATE TABLE u (LIKE t INCLUDING ALL);
    INSERT INTO t SELECT g, 'v' || g, g FROM generate_series(1, 200) AS g;";

const MOVED: &str = "  m:
    from: { target: app, table: t, key: [id] }
    into: { target: app, table: u }
";

/// A plan that copies and compares a mapping called `m`.
fn plan(mappings: &str, direction: &str) -> String {
    format!("{HEAD}{mappings}steps:\n{}", steps("m", direction))
}

fn steps(mapping: &str, direction: &str) -> String {
    format!(
        "  - id: sync-{mapping}
    phase: dual-write
    dual_write: {{ mapping: {mapping}, direction: {direction} }}
  - id: copy-{mapping}
    phase: backfill
    backfill: {{ mapping: {mapping}, workers: 2, chunk: {{ rows: 60 }} }}
    undo: {{ none: a test }}
  - id: compare-{mapping}
    phase: verify
    verify: {{ mapping: {mapping}, method: full }}
"
    )
}

/// A database that is filled anew for each case, and a folder with a plan.
struct Bed {
    database: Database,
    sandbox: Sandbox,
}

impl Bed {
    fn new(test: &str) -> Option<Self> {
        Some(Self::on(&services::postgres(test)?))
    }

    fn on(server: &str) -> Self {
        Self { database: Database::on(server, ""), sandbox: Sandbox::new() }
    }

    /// Begins a case: nothing but these tables is there, and no run was.
    fn begin(&self, setup: &str, plan: &str) {
        self.database.run(
            "DROP SCHEMA IF EXISTS phasegate CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public",
        );
        self.database.run(setup);
        let _ = std::fs::remove_dir_all(self.sandbox.path(".phasegate"));
        self.sandbox.write("plan.yaml", plan);
    }

    fn phasegate(&self, args: &[&str]) -> Ran {
        self.sandbox.run_with(args, "APP_URL", &self.database.url)
    }

    /// Nothing is there that wasn't there before.
    #[track_caller]
    fn is_untouched(&self) {
        let ours = "SELECT count(*) FROM pg_namespace WHERE nspname = 'phasegate'";
        assert_eq!(self.database.value(ours), "0");
        let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
        assert_eq!(self.database.value(triggers), "0");
    }
}

#[track_caller]
fn mentions(ran: &Ran, words: &[&str]) {
    // Lines are broken to the width of a page.
    let said = format!("{}\n{}", ran.stdout, ran.stderr);
    let flat: Vec<&str> = said.split_whitespace().filter(|word| *word != "|").collect();
    let flat = flat.join(" ");
    for word in words {
        assert!(flat.contains(word), "{word:?} is not in\n{ran}");
    }
}

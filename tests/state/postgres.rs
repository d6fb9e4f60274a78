//! A run on PostgreSQL whose state store is a PostgreSQL database, and goes to a file and back.

use crate::examples::database::Database;
use crate::sandbox::{Ran, Sandbox};
use crate::services;

const PLAN: &str = "\
apiVersion: phasegate/v1
kind: Plan
metadata:
  name: orders
targets:
  shop:
    engine: postgres
    url: \"${env:SHOP_URL}\"
mappings:
  orders:
    from:
      target: shop
      table: orders
      key: [id]
    into:
      target: shop
      table: orders_v2
    columns:
      state: upper(state)
steps:
  - id: create
    phase: expand
    target: shop
    sql: CREATE TABLE orders_v2 (id bigint PRIMARY KEY, state text NOT NULL)
    undo:
      sql: DROP TABLE orders_v2
  - id: sync
    phase: dual-write
    dual_write:
      mapping: orders
      direction: forward
  - id: copy
    phase: backfill
    backfill:
      mapping: orders
  - id: compare
    phase: verify
    verify:
      mapping: orders
      method: full
  - id: ready
    phase: contract
    gate:
      approvals:
        - { group: dba, count: 1 }
      verified_within: 1h
  - id: switch
    phase: contract
    retire:
      mapping: orders
      old_name: orders_old
      take_name: true
  - id: sure
    phase: contract
    gate:
      verified_within: 1h
  - id: clean-up
    phase: contract
    drop:
      mapping: orders
    irreversible: every row lives on in the new table
";

/// The server asks for no password, and takes any.
const SECRET: &str = "s3cret-word";

struct Team {
    sandbox: Sandbox,
    shop: Database,
    store: Database,
}

fn with_secret(url: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_password(Some(SECRET)).unwrap();
    url.into()
}

impl Team {
    fn new(server: &str) -> Self {
        let sandbox = Sandbox::new();
        sandbox.write("plan.yaml", PLAN);
        let rows = "CREATE TABLE orders (id bigint PRIMARY KEY, state text NOT NULL);
            INSERT INTO orders SELECT i, 'open' FROM generate_series(1, 500) AS i;";
        Self { sandbox, shop: Database::on(server, rows), store: Database::on(server, "SELECT 1") }
    }

    fn with(&self, state: &str, args: &[&str]) -> Ran {
        let mut command = self.sandbox.command(args);
        command.env("SHOP_URL", with_secret(&self.shop.url)).env("PHASEGATE_STATE", state);
        command.output().unwrap().into()
    }

    /// In the store that is a database.
    fn shared(&self, args: &[&str]) -> Ran {
        self.with(&with_secret(&self.store.url), args)
    }

    /// In the store that is a file.
    fn local(&self, args: &[&str]) -> Ran {
        self.with("local.db", args)
    }
}

#[test]
fn a_run_goes_from_a_database_to_a_file_and_back() {
    let Some(server) = services::postgres("state::postgres::a_run_goes_there_and_back") else {
        return;
    };
    let team = Team::new(&server);
    team.shared(&["run", "plan.yaml"]).expect(4);
    team.shared(&["state", "check"]).expect(0);
    team.shared(&["state", "export", "--out", "there.jsonl"]).expect(0);
    let export = std::fs::read_to_string(team.sandbox.path("there.jsonl")).unwrap();
    assert!(!export.contains(SECRET), "{export}");

    team.local(&["state", "import", "there.jsonl"]).expect(0);
    team.local(&["history", "orders", "--verify"]).expect(0);
    team.local(&["run", "plan.yaml"]).expect(4);
    let refused = team.shared(&["run", "plan.yaml"]).expect(5);
    assert!(refused.stderr.contains("local.db"), "{refused}");
    let look = team.local(&["gates", "orders", "ready", "--show", "--format", "json"]).json();
    let digest = look["gates"][0]["work"].as_str().unwrap();
    team.local(&["approve", "orders", "ready", "--digest", digest]).expect(0);
    team.local(&["run", "plan.yaml", "--to", "switch"]).expect(0);

    team.local(&["state", "export", "orders", "--out", "back.jsonl"]).expect(0);
    let said = team.shared(&["state", "import", "back.jsonl", "--format", "json"]).expect(0);
    assert_eq!(said.json()["runs"][0]["outcome"], "extended", "{said}");
    team.shared(&["run", "plan.yaml"]).expect(0);
    team.local(&["run", "plan.yaml"]).expect(5);
    assert_eq!(team.shop.value("SELECT count(*) FROM orders WHERE state = 'OPEN'"), "500");
    team.shared(&["history", "orders", "--verify"]).expect(0);
    team.shared(&["state", "check"]).expect(0);
}

#[test]
fn damage_in_a_database_is_named_and_the_other_run_goes_on() {
    let Some(server) = services::postgres("state::postgres::damage_in_a_database") else {
        return;
    };
    let team = Team::new(&server);
    team.shared(&["run", "plan.yaml", "--to", "expand"]).expect(0);
    let run = team.store.value("SELECT run FROM phasegate.state_runs");
    team.store
        .run(&format!("DELETE FROM phasegate.state_records WHERE run = '{run}' AND version = 2"));
    let check = team.shared(&["state", "check", "--format", "json"]).expect(65).json();
    assert_eq!(check["runs"][0]["flaw"]["record"], 2, "{check:#}");
    for args in [&["status", "orders"][..], &["run", "plan.yaml"], &["state", "export"]] {
        let refused = team.shared(args).expect(65);
        assert!(refused.stderr.contains("record 2"), "{refused}");
    }
    // Its rows gone as well: the target knows whose it was.
    team.store.run("DELETE FROM phasegate.state_records; DELETE FROM phasegate.state_runs");
    let refused = team.shared(&["run", "plan.yaml"]).expect(65);
    assert!(refused.stderr.contains("of this state store, which doesn't have it"), "{refused}");
    team.store.run("DROP TABLE phasegate.state_records");
    team.shared(&["state", "check"]).expect(65);
}

//! The example plans, on a real PostgreSQL server: each is run to its end, and rolled back from just before its point of no
//! return. What is in the database then is told by SQL that knows nothing of the engine.

mod columns;
pub mod database;
mod deprecated;
mod files;
pub mod leads_v2;
mod readme;

use database::Database;

use crate::sandbox::{Ran, Sandbox};
use crate::services;

/// An example plan with its database, its folder, and the people who may decide.
pub struct Example {
    pub name: &'static str,
    pub database: Database,
    pub sandbox: Sandbox,
}

/// Every soak is cut to a second; who may decide is known by name.
const PROJECT: &str = "apiVersion: phasegate/v1
kind: Project
groups:
  dba: [dee]
  database: [dora]
  application: [ann]
  operations: [ole]
  qa: [quinn]
  product: [pia]
  realtime-chat: [ravi]
  social-service: [sam]
  checkout: [chloe]
  identity: [ida]
environments:
  rehearsal:
    policy:
      longest_wait: 1s
";

impl Example {
    /// A copy of the plan and its files, beside a database with what it begins with.
    pub fn new(name: &'static str) -> Option<Self> {
        Self::with(name, |before| before)
    }

    /// The same, with what the database begins with changed.
    pub fn with(name: &'static str, change: impl Fn(String) -> String) -> Option<Self> {
        let server = services::postgres(name)?;
        Some(Self::on(&server, name, change))
    }

    /// The same on a server whose superuser's URL is known.
    pub fn on(server: &str, name: &'static str, change: impl Fn(String) -> String) -> Self {
        let plans = format!("{}/plans", env!("CARGO_MANIFEST_DIR"));
        let before = std::fs::read_to_string(format!("{plans}/{name}/before.sql")).unwrap();
        let database = Database::on(server, &change(before));
        let sandbox = Sandbox::new();
        sandbox.write("phasegate.yaml", PROJECT);
        let plan = format!("plans/{name}.yaml");
        sandbox.write(&plan, &std::fs::read_to_string(format!("{plans}/{name}.yaml")).unwrap());
        for entry in std::fs::read_dir(format!("{plans}/{name}")).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            sandbox.write(&format!("plans/{name}/{file}"), &std::fs::read_to_string(path).unwrap());
        }
        Self { name, database, sandbox }
    }

    pub fn plan(&self) -> String {
        format!("plans/{}.yaml", self.name)
    }

    /// The binary, where the plans find their database.
    pub fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.sandbox.command(args);
        command
            .args(["--env", "rehearsal"])
            .env("APP_DATABASE_URL", &self.database.url)
            .env("PCONFIG_DATABASE_URL", &self.database.url);
        command
    }

    pub fn phasegate(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    pub fn run(&self, more: &[&str]) -> Ran {
        let plan = self.plan();
        let mut args = vec!["run", &plan];
        args.extend(more);
        self.phasegate(&args)
    }

    /// Approves a gate as each of these people.
    #[track_caller]
    pub fn approve(&self, gate: &str, people: &[&str]) {
        let gates = self.phasegate(&["gates", self.name, "--format", "json"]).expect(4).json();
        let gates = gates["gates"].as_array().unwrap();
        let shut = gates.iter().find(|shut| shut["id"] == gate).unwrap();
        let work = shut["work"].as_str().unwrap();
        for person in people {
            self.phasegate(&["approve", self.name, gate, "--as", person, "--digest", work])
                .expect(0);
        }
    }

    /// Runs to the end through every gate, each with those who approve it. The last soak is waited for.
    #[track_caller]
    pub fn run_through(&self, gates: &[(&str, &[&str])]) {
        for (gate, people) in gates {
            let stopped = self.run(&[]).expect(4);
            assert!(stopped.stdout.contains(gate) || stopped.stderr.contains(gate), "{stopped}");
            self.approve(gate, people);
        }
        self.run(&["--wait", "30s"]).expect(0);
    }

    /// Runs through every gate as far as `last`, which is just before the point of no return.
    #[track_caller]
    pub fn run_up_to(&self, last: &str, gates: &[(&str, &[&str])]) {
        for (gate, people) in gates {
            self.run(&["--to", last]).expect(4);
            self.approve(gate, people);
        }
        self.run(&["--to", last, "--wait", "30s"]).expect(0);
    }

    /// No row is in one query and not in the other.
    #[track_caller]
    pub fn same_rows(&self, one: &str, other: &str) {
        let differing = format!(
            "(({one}) EXCEPT ALL ({other})) UNION ALL (({other}) EXCEPT ALL ({one})) LIMIT 5"
        );
        assert_eq!(self.database.rows(&differing), [""; 0], "{one} and {other} differ");
        assert_ne!(self.database.value(&format!("SELECT count(*) FROM ({one}) AS o")), "0");
    }

    /// Nothing of ours is left but the row of the run, and the journal is the one that the target knows.
    #[track_caller]
    pub fn is_over(&self, outcome: &str) {
        assert_eq!(self.database.ours(), ["phasegate.runs"]);
        let runs = "SELECT count(*) FROM phasegate.runs";
        assert_eq!(self.database.value(runs), "1");
        self.phasegate(&["history", self.name, "--verify"]).expect(0);
        let status = self.phasegate(&["status", self.name, "--format", "json"]).expect(0).json();
        assert_eq!(status["state"], outcome, "{status}");
    }

    /// What is there is what was there: the first line that isn't is shown.
    #[track_caller]
    pub fn is_as(&self, before: &[String]) {
        let after = self.database.dump();
        let differs = after.iter().zip(before).find(|(after, before)| after != before);
        assert_eq!(differs, None, "{} is not as it was before", self.name);
        assert_eq!(after.len(), before.len());
    }
}

//! Runs that are given up: before its first change a run leaves nothing, past its point of no return it says what stays, and what a
//! process that dies in the middle of giving up has left is done by the next.

use std::process::Command;

use serde_json::{Value, json};

use crate::examples::database::Database;
use crate::graph::bed::Bed as Graph;
use crate::sandbox::{Ran, Sandbox};
use crate::services;

mod before_a_change;
mod killed;
mod no_return;

/// What every plan is called.
const NAME: &str = "given-up";

/// A database of one kind with rows in it, and a folder with a plan.
enum Bed {
    File(Sandbox),
    Server(Sandbox, Database),
    Graph(Box<Graph>),
}

impl Bed {
    /// One for each kind of database that there is a server of.
    fn each(test: &str) -> Vec<Self> {
        let server = services::postgres(test)
            .map(|server| Self::Server(Sandbox::new(), Database::on(&server, "SELECT 1")));
        let graph = Graph::new(test, "").map(|graph| Self::Graph(Box::new(graph)));
        [Some(Self::File(Sandbox::new())), server, graph].into_iter().flatten().collect()
    }

    /// Begins a case: the database has these rows and nothing else, and no run was.
    fn begin(&self, plan: &Plan) {
        let rows = (1..=PEOPLE).map(|id| match self {
            Self::Graph(_) => format!("CREATE (:Person {{id: {id}, name: 'p{id}'}})"),
            _ => format!("INSERT INTO people VALUES ({id}, 'p{id}')"),
        });
        let rows: Vec<String> = rows.collect();
        let rows = rows.join(";");
        let table = "CREATE TABLE people (id int NOT NULL PRIMARY KEY, name text)";
        match self {
            Self::File(sandbox) => {
                for end in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(sandbox.path(&format!("app.db{end}")));
                }
                sandbox.sql("app.db", &format!("{table};{rows}"));
            }
            Self::Server(_, database) => database.run(&format!(
                "DROP SCHEMA IF EXISTS phasegate CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public; {table};{rows}"
            )),
            Self::Graph(graph) => graph.begin(&rows),
        }
        let _ = std::fs::remove_dir_all(self.sandbox().path(".phasegate"));
        self.sandbox().write("plan.yaml", &self.text(plan));
    }

    fn sandbox(&self) -> &Sandbox {
        match self {
            Self::File(sandbox) | Self::Server(sandbox, _) => sandbox,
            Self::Graph(graph) => &graph.sandbox,
        }
    }

    /// What fail points call it.
    fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "sqlite",
            Self::Server(..) => "postgres",
            Self::Graph(_) => "neo4j",
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox().command(args);
        command.env(
            "APP_URL",
            match self {
                Self::File(_) => "sqlite://app.db",
                Self::Server(_, database) => &database.url,
                Self::Graph(graph) => &graph.url,
            },
        );
        command
    }

    fn phasegate(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// What a command says as a document.
    #[track_caller]
    fn document(&self, args: &[&str], code: i32) -> Value {
        self.phasegate(&[args, &["--format", "json"]].concat()).expect(code).json()
    }

    /// Everything that isn't ours.
    fn dump(&self) -> Vec<String> {
        match self {
            Self::File(sandbox) => sandbox.dump("app.db"),
            Self::Server(_, database) => database.dump(),
            Self::Graph(graph) => graph.dump(),
        }
    }

    /// Everything of ours.
    fn ours(&self) -> Vec<String> {
        match self {
            Self::File(sandbox) => sandbox.ours("app.db"),
            Self::Server(_, database) => database.ours(),
            Self::Graph(graph) => graph.ours(),
        }
    }

    /// What is left of ours at the end of a run: its one row, and what holds it.
    fn ours_at_the_end(&self) -> &'static [&'static str] {
        match self {
            Self::File(_) => &["phasegate_runs"],
            Self::Server(..) => &["phasegate.runs"],
            Self::Graph(_) => &["phasegate_runs", "phasegate_runs_key"],
        }
    }

    /// How the runs ended that the database knows.
    fn endings(&self) -> Vec<String> {
        match self {
            Self::File(sandbox) => sandbox.rows("app.db", "SELECT state FROM phasegate_runs"),
            Self::Server(_, database) => database.rows("SELECT state FROM phasegate.runs"),
            Self::Graph(graph) => graph.texts("MATCH (r:phasegate_runs) RETURN r.state AS it"),
        }
    }

    /// What the database has when a run has been given up: what is asked for, and of ours nothing but the run's row.
    #[track_caller]
    fn is_left(&self, dump: &[String], what: &str) {
        assert_eq!(self.dump(), dump, "{what}");
        assert_eq!(self.ours(), self.ours_at_the_end(), "{what}");
        assert_eq!(self.endings(), ["aborted"], "{what}");
    }

    /// The same, and the journal agrees.
    #[track_caller]
    fn is_given_up(&self, dump: &[String], what: &str) {
        self.is_left(dump, what);
        let status = self.document(&["status", NAME], 0);
        assert_eq!(status["state"], "aborted", "{what}: {status:#}");
        self.phasegate(&["history", NAME, "--verify"]).expect(0);
    }

    fn text(&self, plan: &Plan) -> String {
        let engine = self.kind();
        let mapping = match self {
            Self::Graph(_) => {
                "    from: { target: app, node: Person, key: [id] }
    into:
      target: app
      node: PersonV2
      key: { id: source.id }
"
            }
            _ => {
                "    from: { target: app, table: people, key: [id] }
    into: { target: app, table: people_v2 }
"
            }
        };
        let mappings =
            if plan.maps { format!("mappings:\n  people:\n{mapping}") } else { String::new() };
        let steps: String = plan.steps.iter().map(|step| self.step(step)).collect();
        format!(
            "apiVersion: phasegate/v1\nkind: Plan\nmetadata:\n  name: {NAME}\ntargets:\n  app:\n    engine: {engine}\n    url: \"${{env:APP_URL}}\"\n{mappings}steps:\n{steps}"
        )
    }

    fn step(&self, step: &Step) -> String {
        let is_graph = matches!(self, Self::Graph(_));
        match step {
            Step::AsMany(expected) => {
                let query = if is_graph {
                    "cypher: MATCH (p:Person) RETURN count(p)"
                } else {
                    "query: SELECT count(*) FROM people"
                };
                format!(
                    "  - id: as-many\n    phase: expand\n    target: app\n    verify:\n      {query}\n      expect: {expected}\n"
                )
            }
            Step::Gate(id, phase) => format!(
                "  - id: {id}\n    phase: {phase}\n    gate:\n      approvals:\n        - group: dba\n          count: 1\n"
            ),
            Step::Verified(id) => format!(
                "  - id: {id}\n    phase: contract\n    gate:\n      verified_within: 1h\n"
            ),
            Step::Make => {
                let (make, undo) = if is_graph {
                    (
                        "cypher: CREATE INDEX person_v2_name FOR (p:PersonV2) ON (p.name)",
                        "cypher: DROP INDEX person_v2_name",
                    )
                } else {
                    (
                        "sql: CREATE TABLE people_v2 (id int NOT NULL PRIMARY KEY, name text)",
                        "sql: DROP TABLE people_v2",
                    )
                };
                format!(
                    "  - id: make\n    phase: expand\n    target: app\n    {make}\n    undo:\n      {undo}\n"
                )
            }
            Step::Sync if is_graph => "  - id: sync\n    phase: dual-write\n    dual_write:\n      mapping: people\n      by: application\n      probe:\n        cypher: RETURN 0\n        expect: 0\n        for: 0s\n".to_owned(),
            Step::Sync => "  - id: sync\n    phase: dual-write\n    dual_write: { mapping: people, direction: forward }\n".to_owned(),
            Step::Copy => "  - id: copy\n    phase: backfill\n    description: Everybody\n    backfill: { mapping: people }\n".to_owned(),
            Step::Compare => "  - id: compare\n    phase: verify\n    verify: { mapping: people }\n".to_owned(),
            // A graph puts nothing aside.
            Step::Retire if is_graph => String::new(),
            Step::Retire => "  - id: switch\n    phase: contract\n    retire: { mapping: people, old_name: people_old, take_name: true }\n  - id: ready-to-drop\n    phase: contract\n    gate:\n      verified_within: 1h\n".to_owned(),
            Step::Drop => format!("  - id: drop\n    phase: contract\n    drop: {{ mapping: people }}\n    irreversible: {REASON}\n"),
            Step::Cut => {
                let cut = if is_graph { "cypher: CREATE (:Cut)" } else { "sql: CREATE TABLE cut (id int NOT NULL PRIMARY KEY, v int)" };
                format!("  - id: cut\n    phase: contract\n    target: app\n    {cut}\n    irreversible: {REASON}\n")
            }
        }
    }
}

/// How many rows there are.
const PEOPLE: u32 = 3;

/// Why something can't be undone.
const REASON: &str = "everybody lives on elsewhere";

/// A plan, as far as it is the same for every kind of database.
struct Plan {
    maps: bool,
    steps: &'static [Step],
}

/// A step of such a plan.
enum Step {
    /// There are so many people.
    AsMany(u32),
    /// A gate in a phase, of which nobody has approved.
    Gate(&'static str, &'static str),
    /// A gate that opens by itself.
    Verified(&'static str),
    Make,
    Sync,
    Copy,
    Compare,
    Retire,
    Drop,
    /// Something that can't be undone, and destroys nothing.
    Cut,
}

/// What is said of a run that is given up.
fn stays(document: &Value) -> [Value; 2] {
    [document["stays"].clone(), document["stays_on"].clone()]
}

fn nothing_stays() -> [Value; 2] {
    [json!([]), json!({})]
}

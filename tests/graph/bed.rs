//! A test server's graph, for one test at a time, and a plan beside it.

use neo4rs::{Graph, query};
use tokio::runtime::Runtime;

use crate::sandbox::{Ran, Sandbox};
use crate::services::{self, Turn};

pub struct Bed {
    pub sandbox: Sandbox,
    pub url: String,
    runtime: Runtime,
    graph: Graph,
    _turn: Turn,
}

impl Bed {
    /// The graph with nothing in it but what `begin` makes; `None`, said loudly, where there is no server.
    pub fn new(test: &str, begin: &str) -> Option<Self> {
        let turn = Turn::at(&services::neo4j(test)?);
        let url = turn.url.clone();
        let runtime = Runtime::new().unwrap();
        let graph = runtime.block_on(async { Graph::new(url.as_str(), "", "").unwrap() });
        let bed = Self { sandbox: Sandbox::new(), url, runtime, graph, _turn: turn };
        bed.begin(begin);
        Some(bed)
    }

    /// Takes everything away, and makes what a case begins with.
    pub fn begin(&self, begin: &str) {
        self.cypher("MATCH (n) DETACH DELETE n");
        for (list, kind) in [
            ("SHOW CONSTRAINTS YIELD name", "CONSTRAINT"),
            ("SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP'", "INDEX"),
        ] {
            for name in self.texts(&format!("{list} RETURN name AS it")) {
                self.cypher(&format!("DROP {kind} `{name}`"));
            }
        }
        for statement in begin.split(';').filter(|statement| !statement.trim().is_empty()) {
            self.cypher(statement);
        }
    }

    pub fn cypher(&self, statement: &str) {
        self.runtime.block_on(self.graph.run(query(statement))).unwrap();
    }

    /// The column `it` of a query.
    pub fn texts(&self, statement: &str) -> Vec<String> {
        self.runtime.block_on(async {
            let mut stream = self.graph.execute(query(statement)).await.unwrap();
            let mut texts = Vec::new();
            while let Some(row) = stream.next().await.unwrap() {
                texts.push(row.get("it").unwrap());
            }
            texts
        })
    }

    pub fn number(&self, what: &str) -> i64 {
        let texts = self.texts(&format!("{what} RETURN toString(count(n)) AS it"));
        texts.first().unwrap().parse().unwrap()
    }

    /// Indexes and constraints that the plan may have made.
    pub fn schema(&self) -> Vec<String> {
        let is_theirs = "WHERE NOT name STARTS WITH 'phasegate' AND type <> 'LOOKUP'";
        let mut names =
            self.texts(&format!("SHOW INDEXES YIELD name, type {is_theirs} RETURN name AS it"));
        names.sort();
        names
    }

    /// Everything that is not ours: indexes, and each node with its labels, what it is known by and its relationships.
    pub fn dump(&self) -> Vec<String> {
        let mut lines = self.texts(
            "MATCH (n) WHERE none(l IN labels(n) WHERE l STARTS WITH 'phasegate') \
             RETURN reduce(all = '', l IN labels(n) | all + ':' + l) + ' ' + coalesce(toString(n.id), '-') + ' ' + \
             coalesce(n.name, '-') + ' ' + size(keys(n)) + ' ' + COUNT { (n)--() } AS it",
        );
        lines.extend(self.schema());
        lines.sort();
        lines
    }

    /// What there is of ours, by labels and names.
    pub fn ours(&self) -> Vec<String> {
        let mut ours = self.texts(
            "MATCH (n) WHERE any(l IN labels(n) WHERE l STARTS WITH 'phasegate') RETURN DISTINCT labels(n)[0] AS it",
        );
        ours.extend(self.texts(
            "SHOW CONSTRAINTS YIELD name WHERE name STARTS WITH 'phasegate' RETURN name AS it",
        ));
        ours.sort();
        ours
    }

    /// A plan of these steps on the graph.
    pub fn plan(&self, steps: &str) {
        let head = "apiVersion: phasegate/v1\nkind: Plan\nmetadata:\n  name: graph\ntargets:\n  graph:\n    engine: neo4j\n    url: \"${env:GRAPH_URL}\"\nsteps:\n";
        self.sandbox.write("plan.yaml", &format!("{head}{steps}"));
    }

    pub fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.sandbox.command(args);
        command.env("GRAPH_URL", &self.url).env("PCONFIG_GRAPH_URL", &self.url);
        command
    }

    pub fn phasegate(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }
}

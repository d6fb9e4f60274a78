//! What the tests of this folder share: the test server's one database, for one test at a time, and empty.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::time::Duration;

use neo4rs::{Graph, query};
use tokio::sync::{Mutex, MutexGuard};

use super::Neo4j;
pub(super) use crate::driver::fixture::{claim, class, head, work};
use crate::driver::{Access, Fence, Session as _};
use crate::run::{Language, Script, Transaction};

/// A server has one database (its Community edition makes no others), and fail points are those of the whole process.
static TURN: Mutex<()> = Mutex::const_new(());

/// The database, until it is dropped.
pub(super) struct Database {
    pub url: String,
    graph: Graph,
    _turn: MutexGuard<'static, ()>,
}

impl Database {
    /// The database without anything in it; `None`, said loudly, where there is no test server.
    pub(super) async fn empty() -> Option<Self> {
        let Ok(urls) = std::env::var("PHASEGATE_TEST_NEO4J") else {
            let said = "NOT RUN: PHASEGATE_TEST_NEO4J is not set; tests/run starts a server";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{said}");
            writeln!(std::io::stderr(), "{said}").unwrap();
            return None;
        };
        let turn = TURN.lock().await;
        let url = urls.split_whitespace().next().unwrap().to_owned();
        let graph = Graph::new(url.as_str(), "", "").unwrap();
        let database = Self { url, graph, _turn: turn };
        database.clear().await;
        Some(database)
    }

    /// Takes everything out of it.
    pub(super) async fn clear(&self) {
        self.run("MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 10000 ROWS").await;
        for (list, kind) in [
            ("SHOW CONSTRAINTS YIELD name", "CONSTRAINT"),
            ("SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP'", "INDEX"),
        ] {
            for name in self.texts(&format!("{list} RETURN name AS it")).await {
                self.run(&format!("DROP {kind} `{name}`")).await;
            }
        }
    }

    pub(super) async fn open(&self) -> Neo4j {
        Neo4j::open(&self.url.clone().into(), Access::Full).await.unwrap()
    }

    pub(super) async fn run(&self, statement: &str) {
        self.graph.run(query(statement)).await.unwrap();
    }

    /// Whether the server takes a statement.
    pub(super) async fn takes(&self, statement: &str) -> bool {
        self.graph.run(query(statement)).await.is_ok()
    }

    /// A transaction of somebody else.
    pub(super) async fn begin(&self) -> neo4rs::Txn {
        self.graph.start_txn().await.unwrap()
    }

    /// The column `it` of a query.
    pub(super) async fn texts(&self, statement: &str) -> Vec<String> {
        let mut stream = self.graph.execute(query(statement)).await.unwrap();
        let mut texts = Vec::new();
        while let Some(row) = stream.next().await.unwrap() {
            texts.push(row.get("it").unwrap());
        }
        texts
    }

    pub(super) async fn number(&self, statement: &str) -> i64 {
        let mut stream = self.graph.execute(query(statement)).await.unwrap();
        stream.next().await.unwrap().unwrap().get("it").unwrap()
    }

    /// Waits until a transaction waits for another.
    pub(super) async fn until_blocked(&self) {
        const BLOCKED: &str = "SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN count(*) AS it";
        let waits = async {
            while self.number(BLOCKED).await == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waits).await.expect("nobody waits");
    }

    /// What there is of ours, by labels and names.
    pub(super) async fn ours(&self) -> Vec<String> {
        let mut ours = self
            .texts("MATCH (n) WHERE any(l IN labels(n) WHERE l STARTS WITH 'phasegate') RETURN DISTINCT labels(n)[0] AS it ORDER BY it")
            .await;
        ours.extend(self.texts("SHOW CONSTRAINTS YIELD name WHERE name STARTS WITH 'phasegate' RETURN name AS it ORDER BY it").await);
        ours
    }
}

/// Has somebody else run a statement behind the commit of this kind that comes next.
#[cfg(feature = "failpoints")]
pub(super) fn meanwhile(point: &'static str, url: &str, statement: &'static str) {
    let (url, once) = (url.to_owned(), std::sync::Once::new());
    fail::cfg_callback(point, move || {
        let url = url.clone();
        // What calls this runs in a runtime, in which none can be waited for.
        once.call_once(|| {
            let other = std::thread::spawn(move || {
                tokio::runtime::Runtime::new().unwrap().block_on(async {
                    Graph::new(url.as_str(), "", "").unwrap().run(query(statement)).await.unwrap();
                });
            });
            other.join().unwrap();
        });
    })
    .unwrap();
}

/// Statements as a step has them, which begin on lines 10, 11 and so on.
pub(super) fn script(statements: &[&str]) -> Script {
    let transaction = if statements.len() > 1 { Transaction::None } else { Transaction::Auto };
    Script { language: Language::Cypher, transaction, ..crate::driver::fixture::script(statements) }
}

pub(super) async fn entered(neo4j: &Neo4j, token: u64) -> Vec<Fence> {
    neo4j.enter(&claim("r1"), token).await.unwrap()
}

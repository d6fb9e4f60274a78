//! Connections, and the only way to change the database: a fenced write transaction.
//!
//! Invariants:
//! - A [`Tx`] has taken its slot's write lock before it read the slot's token, so that nobody can take over before it ends.
//! - A connection is kept for the next only after a clean end. Whatever else happens (an error, a future that is dropped) it is
//!   closed, and the server ends what it had open.
//! - What holds no slot is found all the same by who takes over: what is in no transaction of ours says whose it is in its metadata, and
//!   a change of schema has the name of its transaction in the ledger before it begins. (BEGIN of the library takes no metadata, and
//!   after `CALL tx.setMetaData` Neo4j 5.26 ends transactions of others.)
//!
//! Absent on purpose: retries. Those of the library, which are for statements outside transactions, are kept for queries.

use std::sync::{Mutex, PoisonError};

use neo4rs::{BoltMap, BoltType, ConfigBuilder, Graph, Query, Row, Txn};
use tokio::sync::watch;

use super::error::{damaged, failed, unknown};
use super::ledger;
use super::undelayed::undelay;
use super::url::Address;
use crate::bounds::neo4j::{ANSWER_WITHIN, CONNECT_WITHIN, FETCH_ROWS, IDLE_MAX};
use crate::driver::fail_point::at_commit;
use crate::driver::{Access, Error, Fence, TxKind};
use crate::run::{FailureClass, RunId};

/// The key of our transactions' metadata that holds the run, and the one that holds the token.
pub(super) const META_RUN: &str = "phasegate_run";
pub(super) const META_TOKEN: &str = "phasegate_token";

/// What names a transaction in `SHOW TRANSACTIONS`.
pub(super) const NAMED: &str = "transactionId + ' of ' + startTime";

/// The connections to one database.
pub(super) struct Connections {
    address: Address,
    access: Access,
    /// Each with the one connection of a pool of its own, so that it can be closed.
    idle: Mutex<Vec<Graph>>,
    /// How often everything that runs was cancelled.
    cancelled: watch::Sender<u64>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Connections {
    pub(super) fn new(address: Address, access: Access) -> Self {
        Self { address, access, idle: Mutex::new(Vec::new()), cancelled: watch::Sender::new(0) }
    }

    /// The user that acts; none where the server asks for none.
    pub(super) fn user(&self) -> &str {
        &self.address.user
    }

    /// One that is kept, or a new one, with whether it is new.
    fn graph(&self) -> Result<(Graph, bool), Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(graph) = idle {
            return Ok((graph, false));
        }
        let mut config = ConfigBuilder::new()
            .uri(&self.address.server)
            .user(&self.address.user)
            .password(&self.address.password)
            .fetch_size(FETCH_ROWS)
            .max_connections(1)
            .connection_timeout(ANSWER_WITHIN);
        if let Some(database) = &self.address.database {
            config = config.db(database.as_str());
        }
        if let Some(ca) = &self.address.ca {
            config = config.with_client_certificate(ca);
        }
        config
            .build()
            .and_then(Graph::connect)
            .map(|graph| (graph, true))
            .map_err(failed("connect"))
    }

    fn keep(&self, graph: Graph) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(graph);
        }
    }

    /// A connection that has greeted.
    async fn greeted(&self) -> Result<Graph, Error> {
        let (graph, is_new) = self.graph()?;
        let greeting = Box::pin(async {
            let greeted = graph.start_txn().await?;
            if is_new {
                undelay();
            }
            greeted.rollback().await
        });
        match tokio::time::timeout(CONNECT_WITHIN, greeting).await {
            Ok(greeted) => greeted.map_err(failed("connect")).map(|()| graph),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> Error {
        let message =
            format!("the server took the connection and did not greet within {CONNECT_WITHIN:?}");
        let help = if self.address.is_encrypted {
            "see whether the server is overloaded, and whether that port speaks Bolt with TLS"
        } else {
            "see whether the server is overloaded, and whether that port speaks Bolt without TLS"
        };
        Error::failed(FailureClass::Unreachable, message).with_help(help)
    }

    /// A connection for looking.
    pub(super) async fn read(&self) -> Result<Reader<'_>, Error> {
        let graph = self.greeted().await?;
        Ok(Reader { connections: self, cancelled: self.cancelled.subscribe(), graph })
    }

    /// Begins a write transaction under a fence.
    pub(super) async fn begin(&self, fence: &Fence, kind: TxKind) -> Result<Tx<'_>, Error> {
        let mut tx = self.begin_unfenced(kind).await?;
        ledger::check_fence(&mut tx, fence).await?;
        Ok(tx)
    }

    /// Begins one that no fence guards: for entering and leaving, which make and remove fences, and for changes of schema, which
    /// can't be in one with anything of ours.
    pub(super) async fn begin_unfenced(&self, kind: TxKind) -> Result<Tx<'_>, Error> {
        if self.access == Access::ReadOnly {
            let message = "the database was opened for looking only";
            return Err(Error::failed(FailureClass::NotPermitted, message));
        }
        // Before it begins: who cancels meanwhile means it, too.
        let cancelled = self.cancelled.subscribe();
        let (graph, is_new) = self.graph()?;
        let txn = match tokio::time::timeout(CONNECT_WITHIN, Box::pin(graph.start_txn())).await {
            Ok(begun) => begun.map_err(failed("connect"))?,
            Err(_) => return Err(self.silent()),
        };
        if is_new {
            undelay();
        }
        Ok(Tx { connections: self, cancelled, txn, graph, kind })
    }

    /// A connection for a statement that commits by itself.
    pub(super) async fn ready(&self) -> Result<Ready<'_>, Error> {
        let graph = self.greeted().await?;
        Ok(Ready { connections: self, cancelled: self.cancelled.subscribe(), graph })
    }

    /// Ends whatever runs now: its connections are closed, and the server ends what they had open.
    pub(super) fn cancel(&self) {
        self.cancelled.send_modify(|times| *times += 1);
    }

    pub(super) fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn whose(run: &RunId, token: u64) -> BoltType {
    let mut map = BoltMap::default();
    map.put(META_RUN.into(), run.as_str().into());
    map.put(META_TOKEN.into(), ledger::signed(token).into());
    BoltType::Map(map)
}

fn stopped() -> Error {
    Error::failed(FailureClass::Cancelled, "it was cancelled")
}

/// A connection that has greeted and sent nothing yet. Dropping it closes it.
pub(super) struct Ready<'a> {
    connections: &'a Connections,
    cancelled: watch::Receiver<u64>,
    graph: Graph,
}

impl Ready<'_> {
    /// Runs a statement that commits by itself, once.
    pub(super) async fn alone(self, fence: &Fence, text: &str) -> Result<Alone, Error> {
        let Self { connections, mut cancelled, graph } = self;
        let query = neo4rs::query(text).extra("tx_metadata", whose(fence.run(), fence.token()));
        let running = Box::pin(async {
            let sent = tokio::select! {
                biased;
                sent = graph.execute(query) => sent,
                // The library would send it again where the server says that this may help. There is one connection, and whoever waits
                // for it comes first: when it is had here, the statement has failed.
                _ = graph.start_txn() => return Alone::InVain,
            };
            let done = match sent {
                Ok(stream) => stream.finish().await,
                Err(error) => Err(error),
            };
            done.map_or_else(Alone::Failed, |summary| Alone::Done(changes(&summary)))
        });
        let done = tokio::select! {
            done = running => done,
            _ = cancelled.changed() => return Err(stopped()),
        };
        if matches!(done, Alone::Done(_)) {
            connections.keep(graph);
        }
        Ok(done)
    }
}

/// What came of a statement that commits by itself.
pub(super) enum Alone {
    /// It is done, and changed so much.
    Done(u64),
    Failed(neo4rs::Error),
    /// It failed for a reason that may pass. The library keeps the server's words to itself.
    InVain,
}

/// What a statement changed, in nodes, relationships, labels and properties, of which each counts as one.
fn changes(summary: &neo4rs::summary::ResultSummary) -> u64 {
    summary.nodes_created()
        + summary.nodes_deleted()
        + summary.relationships_created()
        + summary.relationships_deleted()
        + summary.properties_set()
        + summary.labels_added()
        + summary.labels_removed()
}

/// Whoever can be asked: one who only looks, or a transaction, which sees what it has written.
pub(super) trait Ask {
    /// All rows of a query.
    fn rows(
        &mut self,
        query: Query,
    ) -> impl Future<Output = Result<Vec<Row>, neo4rs::Error>> + Send;
}

/// A connection that reads, each query in a transaction of its own. Dropping it closes it.
///
/// In a cluster the library sends what only reads to the followers, which may be behind and know nothing of the leader's transactions:
/// what was committed would not be there, and nobody would be waited for. So our own looks go where writes go, and are rolled back.
pub(super) struct Reader<'a> {
    connections: &'a Connections,
    cancelled: watch::Receiver<u64>,
    graph: Graph,
}

impl Ask for Reader<'_> {
    async fn rows(&mut self, query: Query) -> Result<Vec<Row>, neo4rs::Error> {
        if !self.connections.address.is_routed {
            return self.first(query, usize::MAX).await;
        }
        let reading = async {
            let mut txn = self.graph.start_txn().await?;
            let rows = all(&mut txn, query).await?;
            txn.rollback().await?;
            Ok(rows)
        };
        tokio::select! {
            rows = reading => rows,
            _ = self.cancelled.changed() => Err(terminated()),
        }
    }
}

impl Reader<'_> {
    /// The first rows of somebody's query, of which there may be any number. The server refuses it where it would write.
    pub(super) async fn first(
        &mut self,
        query: Query,
        most: usize,
    ) -> Result<Vec<Row>, neo4rs::Error> {
        let reading = async {
            let mut stream = self.graph.execute_read(query).await?;
            let mut rows = Vec::new();
            while let Some(row) = stream.next().await? {
                rows.push(row);
                if rows.len() == most {
                    stream.finish().await?;
                    break;
                }
            }
            Ok(rows)
        };
        tokio::select! {
            rows = reading => rows,
            _ = self.cancelled.changed() => Err(terminated()),
        }
    }

    /// Keeps the connection.
    pub(super) fn release(self) {
        self.connections.keep(self.graph);
    }
}

/// What the server would say of a transaction that was ended.
fn terminated() -> neo4rs::Error {
    neo4rs::Error::IOError {
        detail: std::io::Error::new(std::io::ErrorKind::Interrupted, "it was cancelled"),
    }
}

/// All rows of a query in a transaction.
async fn all(txn: &mut Txn, query: Query) -> Result<Vec<Row>, neo4rs::Error> {
    let mut stream = txn.execute(query).await?;
    let mut rows = Vec::new();
    while let Some(row) = stream.next(txn.handle()).await? {
        rows.push(row);
    }
    Ok(rows)
}

/// A write transaction. Dropping it closes its connection.
pub(super) struct Tx<'a> {
    connections: &'a Connections,
    cancelled: watch::Receiver<u64>,
    // Before the pool, which closes the connection that comes back to it when it is the last that knows it.
    txn: Txn,
    graph: Graph,
    kind: TxKind,
}

impl Ask for Tx<'_> {
    async fn rows(&mut self, query: Query) -> Result<Vec<Row>, neo4rs::Error> {
        tokio::select! {
            rows = all(&mut self.txn, query) => rows,
            _ = self.cancelled.changed() => Err(terminated()),
        }
    }
}

impl<'a> Tx<'a> {
    /// Where others are to be had.
    pub(super) const fn connections(&self) -> &'a Connections {
        self.connections
    }

    /// What the server calls this transaction, with when it began: names come again when a server has been restarted.
    pub(super) async fn named(&mut self) -> Result<String, Error> {
        let mark = format!("/* {} */", uuid::Uuid::now_v7().simple());
        let ask = format!(
            "{mark} SHOW TRANSACTIONS YIELD transactionId, startTime, currentQuery WHERE currentQuery STARTS WITH '{mark}' \
             RETURN {NAMED} AS name"
        );
        let doing = "read what the transaction is called";
        let rows = self.rows(neo4rs::query(&ask)).await.map_err(failed(doing))?;
        let row = rows.first().ok_or_else(|| damaged("the server doesn't list our transaction"))?;
        ledger::get(row, "name")
    }

    /// Runs a statement, whose rows nobody wants. Returns how much it changed.
    pub(super) async fn run(&mut self, query: Query) -> Result<u64, neo4rs::Error> {
        self.summary(query).await.map(|summary| changes(&summary))
    }

    /// Runs a statement, whose rows nobody wants. Returns what it changed.
    pub(super) async fn summary(
        &mut self,
        query: Query,
    ) -> Result<neo4rs::summary::ResultSummary, neo4rs::Error> {
        let txn = &mut self.txn;
        tokio::select! {
            summary = txn.run(query) => summary,
            _ = self.cancelled.changed() => Err(terminated()),
        }
    }

    /// Runs a statement that returns one row with a column `met`. Returns that, and what the statement changed.
    pub(super) async fn met(
        &mut self,
        query: Query,
    ) -> Result<(i64, neo4rs::summary::ResultSummary), neo4rs::Error> {
        let txn = &mut self.txn;
        let running = async {
            let mut stream = txn.execute(query).await?;
            let mut met = 0;
            while let Some(row) = stream.next(txn.handle()).await? {
                met = row.get("met")?;
            }
            Ok((met, stream.finish(txn.handle()).await?))
        };
        tokio::select! {
            met = running => met,
            _ = self.cancelled.changed() => Err(terminated()),
        }
    }

    pub(super) async fn commit(self) -> Result<(), Error> {
        at_commit("neo4j", "before", self.kind.as_str())?;
        let Self { connections, txn, graph, kind, .. } = self;
        match Box::pin(txn.commit()).await {
            Ok(_) => {}
            Err(error) if super::error::is_lost(&error) => return Err(unknown(&error)),
            Err(error) => return Err(failed("commit")(error)),
        }
        connections.keep(graph);
        at_commit("neo4j", "after", kind.as_str())
    }

    pub(super) async fn roll_back(self) {
        let Self { connections, txn, graph, .. } = self;
        if txn.rollback().await.is_ok() {
            connections.keep(graph);
        }
    }
}

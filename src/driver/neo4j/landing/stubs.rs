//! Nodes that stand for rows that have not come yet, or are gone while something refers to them.
//!
//! A stub has its label, its key and a mark. Whoever takes one away has locked it before looking whether it is one and whether anything
//! refers to it: others fill it or come to refer to it meanwhile.

use neo4rs::{BoltMap, query};

use super::super::Neo4j;
use super::super::connection::{Ask as _, Tx};
use super::super::error::failed;
use super::super::ledger::{get, unsigned};
use super::super::shape::Node;
use super::nodes::list;
use super::side::{Side, keyed};
use crate::bounds::neo4j::BATCH;
use crate::driver::crossing::STUB;
use crate::driver::{Error, Fence, TxKind};
use crate::sql::cypher::quoted;

/// Makes stubs of nodes that are lacking, whose keys are `r.<name>0` …, in the order of the rows.
pub(super) async fn make(
    tx: &mut Tx<'_>,
    (node, name): (&Node, &str),
    rows: Vec<BoltMap>,
) -> Result<(), Error> {
    let text = format!(
        "UNWIND $rows AS r MERGE {} ON CREATE SET {}.{} = true",
        keyed(node, name),
        node.name,
        quoted(STUB)
    );
    let made = tx.run(query(&text).param("rows", list(rows))).await;
    made.map(|_| ()).map_err(failed("make nodes that others refer to"))
}

/// Removes those of some nodes that are stubs and that nothing refers to. Returns how many.
pub(super) async fn free(tx: &mut Tx<'_>, ids: Vec<String>) -> Result<u64, Error> {
    if ids.is_empty() {
        return Ok(0);
    }
    let lock = query(
        "UNWIND $ids AS id MATCH (n) WHERE elementId(n) = id SET n.phasegate_held = true REMOVE n.phasegate_held",
    );
    tx.run(lock.param("ids", ids.clone())).await.map_err(failed("lock nodes"))?;
    let remove = format!(
        "UNWIND $ids AS id MATCH (n) WHERE elementId(n) = id AND n.{} AND NOT (n)--() DELETE n",
        quoted(STUB)
    );
    let removed = tx.summary(query(&remove).param("ids", ids)).await;
    Ok(removed.map_err(failed("remove nodes that nothing refers to"))?.nodes_deleted())
}

impl Neo4j {
    /// Removes the stubs among a mapping's nodes that nothing refers to. Returns how many others there are.
    pub(super) async fn sweep_stubs(&self, fence: &Fence, side: &Side) -> Result<u64, Error> {
        let mut rest = 0;
        let mut labels: Vec<&str> = Vec::new();
        for node in side.pattern.nodes() {
            if labels.contains(&node.label.as_str()) {
                continue;
            }
            labels.push(&node.label);
            loop {
                let mut reader = self.connections.read().await?;
                let look = format!(
                    "MATCH (n:{}) WHERE n.{} AND NOT (n)--() WITH n LIMIT $most RETURN collect(elementId(n)) AS ids",
                    quoted(&node.label),
                    quoted(STUB)
                );
                let found = reader.rows(query(&look).param("most", i64::from(BATCH))).await;
                let found = found.map_err(failed("look for nodes that nothing refers to"))?;
                reader.release();
                let ids: Vec<String> =
                    found.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "ids"))?;
                let count = ids.len();
                if count > 0 {
                    let mut tx = self.connections.begin(fence, TxKind::Settle).await?;
                    free(&mut tx, ids).await?;
                    super::commit(tx).await?;
                }
                if count < BATCH as usize {
                    break;
                }
            }
            let count = format!(
                "MATCH (n:{}) WHERE n.{} RETURN count(n) AS count",
                quoted(&node.label),
                quoted(STUB)
            );
            let mut reader = self.connections.read().await?;
            let rows = reader.rows(query(&count)).await;
            let rows = rows.map_err(failed("count nodes that others refer to"))?;
            reader.release();
            rest += rows.first().map_or(Ok(0), |row| unsigned(get(row, "count")?))?;
        }
        Ok(rest)
    }
}

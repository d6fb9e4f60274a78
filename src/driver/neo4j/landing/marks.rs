//! The marks of nodes that stand for rows which have not come, over whole labels.

use neo4rs::query;

use super::super::Neo4j;
use super::super::connection::Ask as _;
use super::super::error::failed;
use super::super::ledger::{get, unsigned};
use crate::bounds::neo4j::BATCH;
use crate::driver::crossing::STUB;
use crate::driver::{Error, Fence, TxKind};
use crate::sql::cypher::quoted;

impl Neo4j {
    pub(super) async fn marked(&self, labels: &[String]) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let mut marked = 0;
        for label in labels {
            let count = format!(
                "MATCH (n:{}) WHERE n.{} RETURN count(n) AS count",
                quoted(label),
                quoted(STUB)
            );
            let rows = reader.rows(query(&count)).await;
            let rows = rows.map_err(failed("count nodes that others refer to"))?;
            marked += rows.first().map_or(Ok(0), |row| unsigned(get(row, "count")?))?;
        }
        reader.release();
        Ok(marked)
    }

    /// Takes the marks away, a bounded number in a transaction.
    pub(super) async fn take_marks(&self, fence: &Fence, labels: &[String]) -> Result<(), Error> {
        for label in labels {
            let (label, mark) = (quoted(label), quoted(STUB));
            let text = format!(
                "MATCH (n:{label}) WHERE n.{mark} IS NOT NULL WITH n LIMIT $most REMOVE n.{mark} RETURN count(n) AS count"
            );
            loop {
                let mut tx = self.connections.begin(fence, TxKind::Settle).await?;
                let rows = tx.rows(query(&text).param("most", i64::from(BATCH))).await;
                let rows = rows.map_err(failed("take away marks of nodes"))?;
                tx.commit().await?;
                let count = rows.first().map_or(Ok(0), |row| unsigned(get(row, "count")?))?;
                if count < u64::from(BATCH) {
                    break;
                }
            }
        }
        Ok(())
    }
}

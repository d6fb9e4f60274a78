//! Removing the old side: [`Retirer`] for Neo4j. Nothing is renamed, since labels and types have no owner.
//!
//! Invariants:
//! - What is removed is what the mapping is about and nothing else: not a node that carries another label, nor one with relationships
//!   that no mapping of the plan is about.
//! - Each batch commits with the number of rows removed so far, so that a run that died goes on, and its count is true.

use async_trait::async_trait;
use neo4rs::{BoltMap, BoltType, query};

use super::connection::Ask as _;
use super::dual_write::BATCH;
use super::error::failed;
use super::ledger::{applied, forget, get, record, unsigned};
use super::shape::{Pattern, Shape, Which};
use super::{Neo4j, ledger};
use crate::copy::chunk::Chunk;
use crate::driver::{Applied, Error, Fence, Losses, Retirer, TxKind, Work};
use crate::run::{
    Direction, Ends, FailureClass, Mapping, Permit, Retire, RetireShape, RowKind, plural,
};

const EVERYTHING: Chunk = Chunk { lo: None, hi: None };

#[async_trait]
impl Retirer for Neo4j {
    async fn retire(
        &self,
        _: &Fence,
        _: &Work,
        mapping: &Mapping,
        _: Direction,
        _: &Retire,
    ) -> Result<Applied, Error> {
        Err(nothing_to_rename(mapping))
    }

    async fn unretire(
        &self,
        _: &Fence,
        _: &Work,
        mapping: &Mapping,
        _: Direction,
        _: &RetireShape,
        _: Losses,
    ) -> Result<Applied, Error> {
        Err(nothing_to_rename(mapping))
    }

    async fn drop_retired(
        &self,
        _: &Fence,
        _: &Work,
        mapping: &Mapping,
        _: &RetireShape,
        _: Permit,
    ) -> Result<Applied, Error> {
        Err(nothing_to_rename(mapping))
    }

    async fn drop_old(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        others: &[Mapping],
        _permit: Permit,
    ) -> Result<Applied, Error> {
        let shape = Shape::of(mapping)?;
        let step = work.step.as_str();
        if let Some(before) = self.done_before(fence, work).await? {
            return Ok(before);
        }
        let old = shape.in_chunk(Which::Old, &EVERYTHING);
        let mut batches = vec![format!("{old} WITH source LIMIT $most DELETE source")];
        if let Pattern::Node(_) = &shape.old {
            Box::pin(self.nothing_else(&old, mapping, others)).await?;
            // A node of very many relationships goes in pieces, too.
            batches.insert(
                0,
                format!("{old} MATCH (source)-[r]-() WITH DISTINCT r LIMIT $most DELETE r"),
            );
        }
        let part = format!("{step}/part/rows");
        for text in batches {
            while self.batch((fence, work), &part, &text).await? > 0 {}
        }
        let mut tx = self.connections.begin(fence, TxKind::Drop).await?;
        let done = applied(&mut tx, fence.run(), &part, work.way).await?;
        let rows = done.map_or(0, |done| done.rows);
        forget(&mut tx, fence, (&part, work.way)).await?;
        let applied = record(&mut tx, fence, (step, work), (rows, None)).await?;
        tx.commit().await?;
        Ok(applied)
    }
}

impl Neo4j {
    /// Removes as much as one transaction may, and counts it. Returns how many rows or relationships that were.
    async fn batch(
        &self,
        (fence, work): (&Fence, &Work),
        part: &str,
        text: &str,
    ) -> Result<u64, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Drop).await?;
        let before = applied(&mut tx, fence.run(), part, work.way).await?;
        let before = before.map_or(0, |before| before.rows);
        let delete = query(text).param("most", i64::from(BATCH));
        let done = tx.summary(delete).await.map_err(failed("remove the old side"))?;
        let now = done.nodes_deleted() + done.relationships_deleted();
        record(&mut tx, fence, (part, work), (before + now, None)).await?;
        tx.commit().await?;
        Ok(now)
    }

    /// Refuses to remove nodes that are more than the mapping knows of them.
    async fn nothing_else(
        &self,
        old: &str,
        mapping: &Mapping,
        others: &[Mapping],
    ) -> Result<(), Error> {
        let label = &mapping.from.table;
        let mut reader = self.connections.read().await?;
        let ask = query(&format!(
            "{old} UNWIND labels(source) AS label WITH label WHERE label <> $label \
             RETURN label, count(*) AS nodes ORDER BY label LIMIT 5"
        ));
        let rows = reader.rows(ask.param("label", label.as_str())).await;
        let rows = rows.map_err(failed("look for other labels"))?;
        if let Some(row) = rows.first() {
            let (other, nodes): (String, i64) = (get(row, "label")?, get(row, "nodes")?);
            let nodes = plural(unsigned(nodes)?, "node");
            let message =
                format!("{nodes} of {label} are {other} as well, and would be gone as that, too");
            return Err(Error::failed(FailureClass::Unsafe, message).with_help(format!(
                "take the label away instead: a `cypher` step with MATCH (n:{label}) REMOVE n:{label}"
            )));
        }
        let covered: Vec<BoltType> = others.iter().filter_map(covered).collect();
        let ask = query(&format!(
            "{old} MATCH (source)-[r]-() WITH r WHERE NOT any(it IN $covered WHERE it.type = type(r) \
             AND it.start IN labels(startNode(r)) AND it.end IN labels(endNode(r))) \
             RETURN type(r) AS type, count(DISTINCT r) AS relationships ORDER BY type LIMIT 5"
        ));
        let rows = reader.rows(ask.param("covered", covered)).await;
        let rows = rows.map_err(failed("look for other relationships"))?;
        reader.release();
        let Some(row) = rows.first() else { return Ok(()) };
        let (kind, count): (String, i64) = (get(row, "type")?, get(row, "relationships")?);
        let count = plural(ledger::unsigned(count)?, "relationship");
        let message =
            format!("nodes of {label} have {count} {kind} that no mapping of the plan is about");
        Err(Error::failed(FailureClass::Unsafe, message)
            .with_help("map them, too, or remove them by a `cypher` step behind a gate"))
    }
}

/// The relationships that a mapping takes from, as a map.
fn covered(mapping: &Mapping) -> Option<BoltType> {
    let RowKind::Relationship(ends) = &mapping.from.kind else { return None };
    let Ends { start, end } = ends.as_ref();
    let mut map = BoltMap::default();
    for (key, value) in [("type", &mapping.from.table), ("start", &start.node), ("end", &end.node)]
    {
        map.put(key.into(), value.as_str().into());
    }
    Some(BoltType::Map(map))
}

fn nothing_to_rename(mapping: &Mapping) -> Error {
    let message = format!("mapping {} is of a graph, where nothing is renamed", mapping.name);
    Error::failed(FailureClass::Refused, message)
}

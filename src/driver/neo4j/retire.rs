//! Removing the old side: [`Retirer`] for Neo4j. Nothing is renamed, since labels and types have no owner.
//!
//! Invariants:
//! - What is removed is what the mapping is about and nothing else: not a node that carries another label, nor one with relationships
//!   that no mapping of the plan is about, or that its `where` leaves out. Clients may make one of it at any time, so each batch sees to
//!   that under its own locks.
//! - Each batch commits with the number of rows removed so far, so that a run that died goes on, and its count is true.

use async_trait::async_trait;
use neo4rs::{Query, query};

use super::connection::Ask as _;
use super::error::failed;
use super::ledger::{applied, forget, get, record, unsigned};
use super::shape::{Pattern, Shape, Which, hold};
use super::{Neo4j, ledger};
use crate::bounds::message::OTHERS_LOOKED_UP_MAX;
use crate::bounds::neo4j::{BATCH, RETIRE_ROUNDS_MAX};
use crate::copy::chunk::Chunk;
use crate::driver::{Applied, Error, Fence, Losses, Retirer, TxKind, Work};
use crate::run::{
    Direction, Ends, FailureClass, Mapping, Permit, Retire, RetireShape, RowKind, plural,
};
use crate::sql::cypher::quoted;

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
        let part = format!("{step}/part/rows");
        match &shape.old {
            Pattern::Node(node) => {
                let each = (node.label.as_str(), others);
                Box::pin(self.drop_nodes((fence, work), &part, (&shape, mapping), each)).await?;
            }
            Pattern::Relationship { .. } => {
                Box::pin(self.drop_relationships((fence, work), &part, (&shape, mapping))).await?;
            }
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

/// Has relationships `r` judged: `is_covered` where mappings of the plan are about one. `kept` are the names that go on.
fn judged(kept: &str, others: &[Mapping]) -> String {
    let covered: Vec<String> = others.iter().filter_map(covered).collect();
    format!(
        "CALL (r) {{ WITH r AS source, startNode(r) AS start, endNode(r) AS end \
         RETURN any(it IN [{}] WHERE it) AS is_covered }} WITH {kept}, is_covered",
        covered.join(", ")
    )
}

/// Statements that remove nodes of the old side: their relationships first, of which one node may have very many.
///
/// Each looks twice: rows are chosen, locked, and looked at again, since clients go on giving nodes labels and relationships.
fn removing(shape: &Shape, others: &[Mapping]) -> [String; 2] {
    let old = shape.in_chunk(Which::Old, &EVERYTHING);
    let hold = hold("source");
    let is_ours = format!("labels(source) = [$label]{}", shape.and_filter(Which::Old));
    let is_bare = format!("{is_ours} AND NOT (source)--()");
    [
        format!(
            "{old} AND labels(source) = [$label] MATCH (source)-[r]-() {} WHERE is_covered WITH source, r LIMIT $most \
             WITH source, collect(r) AS all {hold} WITH source, all WHERE {is_ours} \
             UNWIND all AS r WITH DISTINCT r {} WITH r {} WHERE is_covered DELETE r",
            judged("source, r", others),
            self::hold("r"),
            judged("r", others)
        ),
        format!(
            "{old} AND labels(source) = [$label] AND NOT (source)--() WITH source LIMIT $most {hold} \
             WITH source WHERE {is_bare} DELETE source"
        ),
    ]
}

impl Neo4j {
    /// Removes the relationships of the old side.
    async fn drop_relationships(
        &self,
        done: (&Fence, &Work),
        part: &str,
        (shape, mapping): (&Shape, &Mapping),
    ) -> Result<(), Error> {
        let old = shape.in_chunk(Which::Old, &EVERYTHING);
        let delete = format!(
            "{old} WITH source, start, end LIMIT $most {} WITH source, start, end{} DELETE source",
            hold("source"),
            shape.still_in(&EVERYTHING)
        );
        for _ in 0..RETIRE_ROUNDS_MAX {
            while self.batch(done, part, query(&delete)).await? > 0 {}
            // A batch may have waited for clients who removed all that it had chosen.
            if self.left(&old).await? == 0 {
                return Ok(());
            }
        }
        let left = plural(self.left(&old).await?, "relationship");
        Err(came_meanwhile(&left, &mapping.from.table))
    }

    /// Removes the nodes of the old side with the relationships that mappings of the plan are about.
    async fn drop_nodes(
        &self,
        done: (&Fence, &Work),
        part: &str,
        (shape, mapping): (&Shape, &Mapping),
        (label, others): (&str, &[Mapping]),
    ) -> Result<(), Error> {
        let old = shape.in_chunk(Which::Old, &EVERYTHING);
        for _ in 0..RETIRE_ROUNDS_MAX {
            // First of all, and of what was left: batches pass by what is not the mapping's alone.
            Box::pin(self.nothing_else(&old, mapping, others)).await?;
            for text in removing(shape, others) {
                let delete = || query(&text).param("label", label);
                while self.batch(done, part, delete()).await? > 0 {}
            }
            if self.left(&old).await? == 0 {
                return Ok(());
            }
        }
        let left = plural(self.left(&old).await?, "node");
        Err(came_meanwhile(&left, label))
    }

    /// How many rows there still are.
    async fn left(&self, old: &str) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let rows = reader.rows(query(&format!("{old} RETURN count(source) AS rows"))).await;
        let rows = rows.map_err(failed("look at what is left"))?;
        reader.release();
        rows.first().map_or(Ok(0), |row| unsigned(get(row, "rows")?))
    }

    /// Removes as much as one transaction may, and counts it. Returns how many rows or relationships that were.
    async fn batch(
        &self,
        (fence, work): (&Fence, &Work),
        part: &str,
        delete: Query,
    ) -> Result<u64, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Drop).await?;
        let before = applied(&mut tx, fence.run(), part, work.way).await?;
        let before = before.map_or(0, |before| before.rows);
        let delete = delete.param("most", i64::from(BATCH));
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
             RETURN label, count(*) AS nodes ORDER BY label LIMIT {OTHERS_LOOKED_UP_MAX}"
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
        let ask = query(&format!(
            "{old} MATCH (source)-[r]-() WITH DISTINCT r {} WHERE NOT is_covered \
             RETURN type(r) AS type, count(*) AS relationships ORDER BY type LIMIT {OTHERS_LOOKED_UP_MAX}",
            judged("r", others)
        ));
        let rows = reader.rows(ask).await;
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

/// Whether a relationship is one that a mapping takes from, as an expression. What its `where` leaves out isn't, nor what it can't tell of.
fn covered(mapping: &Mapping) -> Option<String> {
    let RowKind::Relationship(ends) = &mapping.from.kind else { return None };
    let Ends { start, end } = ends.as_ref();
    let (kind, start, end) = (quoted(&mapping.from.table), quoted(&start.node), quoted(&end.node));
    let filter = mapping.filter.as_deref().unwrap_or("true");
    // A `where` may fail on what the mapping is not about.
    Some(format!(
        "CASE WHEN source:{kind} AND start:{start} AND end:{end} THEN coalesce(({filter}\n), false) ELSE false END"
    ))
}

fn came_meanwhile(left: &str, what: &str) -> Error {
    let message = format!("{left} of {what} came while they were removed");
    Error::failed(FailureClass::Contention, message)
        .with_help("let clients stop writing the old side, then retry")
}

fn nothing_to_rename(mapping: &Mapping) -> Error {
    let message = format!("mapping {} is of a graph, where nothing is renamed", mapping.name);
    Error::failed(FailureClass::Refused, message)
}

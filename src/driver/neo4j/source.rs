//! Where chunks begin and end: [`Source`] for Neo4j.
//!
//! Invariants:
//! - Bounds come from the old side's key alone: neither the mapping's `where` nor what was copied shifts them.
//! - The upper end is frozen when the copy begins: what clients add behind it is written to both sides by them.
//! - A bound is found by the index of the node that comes first, from the last bound on. Of relationships, those of one node are
//!   gone through for each chunk that begins within them, so that a node with very many comes in pieces.

use async_trait::async_trait;
use neo4rs::{BoltType, Row, query};

use super::connection::{Ask as _, Tx};
use super::error::failed;
use super::ledger::{get, keep_head, unsigned};
use super::shape::{Pattern, Shape, Which};
use super::{Neo4j, chunks, values};
use crate::bounds::neo4j::OF_ONE_NODE_MIN;
use crate::copy::chunk::{Chunk, Key};
use crate::driver::{CopyState, Error, Fence, Source, TxKind, Window, Work};
use crate::run::{FailureClass, Mapping};
use crate::sql::cypher::quoted;

#[async_trait]
impl Source for Neo4j {
    async fn estimate(&self, mapping: &Mapping) -> Result<u64, Error> {
        let shape = Shape::of(mapping)?;
        // Of both the server keeps a count.
        let what = match &shape.old {
            Pattern::Node(node) => format!("(it:{})", quoted(&node.label)),
            Pattern::Relationship { kind, .. } => format!("()-[it:{}]->()", quoted(kind)),
        };
        let mut reader = self.connections.read().await?;
        let ask = query(&format!("MATCH {what} RETURN count(it) AS rows"));
        let rows = reader.rows(ask).await.map_err(failed("count what there is to copy"))?;
        reader.release();
        rows.first().map_or(Ok(0), |row| unsigned(get(row, "rows")?))
    }

    async fn plan_chunks(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        size: Window,
    ) -> Result<CopyState, Error> {
        let shape = Shape::of(mapping)?;
        let mut tx = self.connections.begin(fence, TxKind::Plan).await?;
        if chunks::load(&mut tx, fence.run(), &work.step).await?.is_none() {
            // Whoever made a relationship before its nodes had copies could not write it to the new side, too.
            tx.roll_back().await;
            self.drain().await?;
            tx = self.connections.begin(fence, TxKind::Plan).await?;
        }
        let state = Box::pin(plan(&mut tx, (fence, work), (mapping, &shape), size)).await?;
        tx.commit().await?;
        Ok(state)
    }

    async fn forget_chunks(&self, fence: &Fence, work: &Work, after: u64) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Plan).await?;
        chunks::forget(&mut tx, (fence.run(), &work.step), after).await?;
        tx.commit().await
    }
}

async fn plan(
    tx: &mut Tx<'_>,
    (fence, work): (&Fence, &Work),
    (mapping, shape): (&Mapping, &Shape),
    size: Window,
) -> Result<CopyState, Error> {
    let (run, step) = (fence.run(), &work.step);
    let mut copy = match chunks::load(tx, run, step).await? {
        Some(copy) => copy,
        None => chunks::Copy::up_to(last_key(tx, shape).await?),
    };
    chunks::fold(tx, (run, step), &mut copy).await?;
    for _ in 0..size.count {
        let Some(rest) = copy.rest() else { break };
        let found = next_end(tx, shape, &rest, size).await?;
        chunks::plan(tx, (fence, step), &copy.next(rest, found)).await?;
    }
    chunks::save(tx, (run, step), (&copy, Some(&mapping.name))).await?;
    keep_head(tx, run, &work.head).await?;
    chunks::state(tx, run, step).await
}

/// The key as columns `k0`, `k1` …, and their names.
pub(super) fn columns(key: &[String]) -> (String, Vec<String>) {
    let names: Vec<String> = (0..key.len()).map(|at| format!("k{at}")).collect();
    let columns: Vec<String> =
        key.iter().zip(&names).map(|(part, name)| format!("{part} AS {name}")).collect();
    (columns.join(", "), names)
}

/// The key in a row with those columns. One without a value was found by one, and is of a row that went meanwhile.
pub(super) fn read_key(row: &Row, parts: usize) -> Result<Key, Error> {
    let cells = (0..parts).map(|at| match get::<BoltType>(row, &format!("k{at}"))? {
        BoltType::Null(_) => {
            Err(Error::failed(FailureClass::Contention, "a row went while its key was read"))
        }
        value => values::cell(value),
    });
    cells.collect::<Result<_, _>>().map(Key)
}

async fn key_of(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (range, order): (&Chunk, &str),
    skip: u32,
) -> Result<Option<Key>, Error> {
    let key = shape.side(Which::Old).key();
    let (columns, names) = columns(&key);
    let by: Vec<String> = names.iter().map(|name| format!("{name}{order}")).collect();
    let text = format!(
        "{} WITH {columns} ORDER BY {} SKIP $skip LIMIT 1 RETURN {}",
        shape.walk(Which::Old, range),
        by.join(", "),
        names.join(", ")
    );
    let ask = values::with_bounds(query(&text).param("skip", i64::from(skip)), range);
    let rows = tx.rows(ask).await.map_err(failed("find where a chunk ends"))?;
    rows.first().map(|row| read_key(row, key.len())).transpose()
}

/// The largest key; `None` when there is no row.
async fn last_key(tx: &mut Tx<'_>, shape: &Shape) -> Result<Option<Key>, Error> {
    key_of(tx, shape, (&Chunk { lo: None, hi: None }, " DESC"), 0).await
}

/// Where the next chunk of a range of the old side ends; `None` when there are fewer rows.
async fn next_end(
    tx: &mut Tx<'_>,
    shape: &Shape,
    range: &Chunk,
    size: Window,
) -> Result<Option<Key>, Error> {
    let found = nth_key(tx, shape, range, size.rows).await?;
    let Pattern::Relationship { first, .. } = &shape.old else { return Ok(found) };
    let (Some(lo), Some(hi)) = (&range.lo, &found) else { return Ok(found) };
    let parts = first.key.len();
    let is_of_one_node = lo.0.get(..parts) == hi.0.get(..parts);
    if !is_of_one_node || size.is_fixed || size.rows >= OF_ONE_NODE_MIN {
        return Ok(found);
    }
    nth_key(tx, shape, range, OF_ONE_NODE_MIN).await
}

/// The key of the `rows`-th row of a range of the old side, counted from 1; `None` when it has fewer.
async fn nth_key(
    tx: &mut Tx<'_>,
    shape: &Shape,
    range: &Chunk,
    rows: u32,
) -> Result<Option<Key>, Error> {
    key_of(tx, shape, (range, ""), rows.max(1) - 1).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use neo4rs::{BoltList, BoltNull, BoltType, Row};

    use super::read_key;
    use crate::copy::chunk::{Cell, Key};
    use crate::driver::Error;
    use crate::run::FailureClass;

    #[test]
    fn a_key_of_what_went_meanwhile_is_read_once_more() {
        let row = |values: [BoltType; 2]| {
            let fields: [BoltType; 2] = ["k0".into(), "k1".into()];
            Row::new(BoltList::from(fields.to_vec()), BoltList::from(values.to_vec()))
        };
        let key = read_key(&row([1_i64.into(), "a".into()]), 2).unwrap();
        assert_eq!(key, Key(vec![Cell::Integer(1), Cell::Text("a".into())]));
        let gone = read_key(&row([1_i64.into(), BoltType::Null(BoltNull)]), 2).unwrap_err();
        assert!(
            matches!(&gone, Error::Failed(it) if it.class == FailureClass::Contention),
            "{gone:?}"
        );
        let other = read_key(&row([1_i64.into(), true.into()]), 2).unwrap_err();
        assert!(
            matches!(&other, Error::Failed(it) if it.class == FailureClass::Refused),
            "{other:?}"
        );
    }
}

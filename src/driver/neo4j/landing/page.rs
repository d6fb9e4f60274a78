//! Pages of a copy: rows that were read on the old side some time ago.

use super::super::Neo4j;
use super::super::connection::Tx;
use super::super::{chunks, ledger};
use super::nodes::Batch;
use super::side::{Placed, Side};
use super::turns::Taken;
use super::{edges, nodes, turns, versions};
use crate::clock::Stopwatch;
use crate::copy::chunk::Planned;
use crate::copy::row::Row;
use crate::driver::crossing::Crossed;
use crate::driver::ledger::Copy;
use crate::driver::{Copied, CopyState, Error, Fence, TxKind, Work};
use crate::run::{FailureClass, Mapping, OnExisting};

/// A row of a page.
struct Sent {
    /// What its version is known by.
    text: String,
    row: Row,
    placed: Placed,
}

impl Neo4j {
    /// Enters chunks in the ledger.
    pub(super) async fn enter_planned(
        &self,
        (fence, work): (&Fence, &Work),
        mapping: &Mapping,
        (before, copy, planned): (Option<&Copy>, &Copy, &[Planned]),
    ) -> Result<CopyState, Error> {
        let of = (fence.run(), &work.step);
        let mut tx = self.connections.begin(fence, TxKind::Plan).await?;
        let there = chunks::load(&mut tx, of.0, of.1).await?;
        let walked = |copy: &Copy| (copy.seq, copy.hi.clone(), copy.ended);
        if there.as_ref().map(walked) != before.map(walked) {
            tx.roll_back().await;
            let message = format!("the copy of {} has gone on meanwhile", work.step);
            return Err(Error::failed(FailureClass::Stale, message));
        }
        // What is folded may have become more since it was read.
        let Copy { watermark, rows_read, rows_written, .. } = there.unwrap_or_default();
        let mut copy = Copy { watermark, rows_read, rows_written, ..copy.clone() };
        for chunk in planned {
            chunks::plan(&mut tx, (fence, &work.step), chunk).await?;
        }
        chunks::fold(&mut tx, of, &mut copy).await?;
        chunks::save(&mut tx, of, (&copy, Some(&mapping.name))).await?;
        ledger::keep_head(&mut tx, fence.run(), &work.head).await?;
        let state = chunks::state(&mut tx, of.0, of.1).await?;
        tx.commit().await?;
        Ok(state)
    }

    /// Writes a page.
    pub(super) async fn write_page(
        &self,
        (fence, work): (&Fence, &Work),
        crossed: &Crossed,
        (chunk, rows): (&Planned, Vec<Row>),
    ) -> Result<Copied, Error> {
        let side = Side::of(crossed)?;
        let read = rows.len() as u64;
        let sent = sent(&side, rows, crossed.mapping.on_existing)?;
        let mut tx = self.connections.begin(fence, TxKind::Chunk).await?;
        let of = (fence.run(), &work.step);
        if let Some(rows) = chunks::copied_before(&mut tx, of, chunk).await? {
            tx.roll_back().await;
            return Ok(copied(true, rows, 0));
        }
        let taken = turns::take(&mut tx, fence, &side).await?;
        // From here on: a page says nothing of how long it waited for its turn.
        let watch = Stopwatch::start();
        let on_existing = crossed.mapping.on_existing;
        let written = Box::pin(write(&mut tx, &side, taken, (sent, on_existing))).await?;
        let rows = chunks::Rows { read, written };
        chunks::commit(&mut tx, (fence, &work.step), chunk.seq, rows).await?;
        ledger::keep_head(&mut tx, fence.run(), &work.head).await?;
        super::commit(tx).await?;
        Ok(copied(false, rows, watch.elapsed_us()))
    }
}

fn copied(before: bool, rows: chunks::Rows, took_us: u64) -> Copied {
    Copied { before, rows_read: rows.read, rows_written: rows.written, took_us, contended: false }
}

/// A row as a statement takes it.
fn placed(side: &Side, row: &Row, on_existing: OnExisting) -> Result<Placed, Error> {
    // What stands for a node may have had all of it.
    let is_whole = side.node().is_some() || on_existing == OnExisting::Update;
    if is_whole { side.to_write(row) } else { side.to_make(row) }
}

/// Rows as statements take them, in the order in which locks are taken.
fn sent(side: &Side, rows: Vec<Row>, on_existing: OnExisting) -> Result<Vec<Sent>, Error> {
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let placed = placed(side, &row, on_existing)?;
        all.push(Sent { text: versions::text(&side.mapping, &row.key), row, placed });
    }
    let order = |sent: &Sent| (sent.placed.ends.clone(), sent.text.clone());
    all.sort_by_cached_key(order);
    Ok(all)
}

/// Writes the rows of which no change was applied. Returns how many were written.
async fn write(
    tx: &mut Tx<'_>,
    side: &Side,
    taken: Taken,
    (mut sent, on_existing): (Vec<Sent>, OnExisting),
) -> Result<u64, Error> {
    let standing = taken.standing.ok_or_else(|| super::not_open(&side.mapping))?;
    if standing.floor.is_some() || sent.is_empty() {
        // Emptied since: what was read before is gone, and what came behind is a change.
        return Ok(0);
    }
    if taken.has_versions {
        let known = versions::known(tx, sent.iter().map(|row| &row.text)).await?;
        sent.retain(|row| !known.contains(&row.text));
    }
    if sent.is_empty() {
        return Ok(0);
    }
    let (rows, first): (Vec<Row>, Vec<Placed>) =
        sent.into_iter().map(|sent| (sent.row, sent.placed)).unzip();
    let again = || rows.iter().map(|row| placed(side, row, on_existing)).collect();
    let batch = Batch { rows: first, again: &again };
    if side.node().is_some() {
        nodes::page(tx, side, (batch, on_existing)).await
    } else {
        edges::page(tx, side, (batch, on_existing)).await
    }
}

//! The writing side of a copy: [`Sink`] for Neo4j.
//!
//! Invariants:
//! - What a chunk writes and its mark in the ledger commit together, and a marked chunk is not copied again.
//! - A chunk is copied under the bounds that the ledger has, or not at all.
//! - Rows of the old side are locked before they are read, by writing to them and taking that back: whoever writes both sides in a
//!   transaction has ended, or waits. What an application has written on the new side is found there and stays.
//! - What can't be written stops the copy and is named: a relationship whose node has no copy is not left out.
//!
//! Absent on purpose: parking.

use async_trait::async_trait;
use neo4rs::{BoltType, query};

use super::connection::{Ask as _, Connections, Tx};
use super::error::failed;
use super::ledger::{self, get, unsigned};
use super::shape::{Pattern, Shape, Which, hold};
use super::{Neo4j, chunks, values};
use crate::bounds::message::UNTIED_NAMED_MAX;
use crate::bounds::neo4j::{LOCKED_LOOK_EVERY, LOCKED_WITHIN};
use crate::clock::Stopwatch;
use crate::copy::chunk::{Chunk, Planned};
use crate::driver::{Applied, Copied, CopyState, Error, Fence, Parker, Sink, TxKind, Work};
use crate::run::{Direction, FailureClass, Mapping, OnExisting, Parked, Private, RunId, StepId};

#[async_trait]
impl Sink for Neo4j {
    async fn copy_state(&self, run: &RunId, step: &StepId) -> Result<CopyState, Error> {
        let mut reader = self.connections.read().await?;
        let state = chunks::state(&mut reader, run, step).await?;
        reader.release();
        Ok(state)
    }

    async fn copy_chunk(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        _direction: Direction,
        chunk: &Planned,
    ) -> Result<Copied, Error> {
        let shape = Shape::of(mapping)?;
        let watch = Stopwatch::start();
        let mut tx = self.connections.begin(fence, TxKind::Chunk).await?;
        let of = (fence.run(), &work.step);
        let copied = |before: bool, rows: chunks::Rows, took_us: u64| Copied {
            before,
            rows_read: rows.read,
            rows_written: rows.written,
            took_us,
            contended: false,
        };
        if let Some(rows) = chunks::copied_before(&mut tx, of, chunk).await? {
            tx.roll_back().await;
            return Ok(copied(true, rows, 0));
        }
        let read = lock(&mut tx, &shape, &chunk.chunk).await?;
        let made = Box::pin(copy(&mut tx, &shape, mapping.on_existing, &chunk.chunk)).await?;
        let writes_all = mapping.on_existing == OnExisting::Update;
        let rows = chunks::Rows { read, written: if writes_all { read } else { made } };
        chunks::commit(&mut tx, (fence, &work.step), chunk.seq, rows).await?;
        ledger::keep_head(&mut tx, fence.run(), &work.head).await?;
        tx.commit().await?;
        Ok(copied(false, rows, watch.elapsed_us()))
    }

    async fn finish_copy(&self, fence: &Fence, work: &Work) -> Result<Applied, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Finish).await?;
        let (run, step) = (fence.run(), &work.step);
        if let Some(before) = ledger::applied(&mut tx, run, step.as_str(), work.way).await? {
            tx.roll_back().await;
            return Ok(before);
        }
        let copy = chunks::load(&mut tx, run, step).await?;
        let mut copy = copy.ok_or_else(|| chunks::not_begun(step))?;
        chunks::fold(&mut tx, (run, step), &mut copy).await?;
        let told = copy.whole(step)?;
        chunks::save(&mut tx, (run, step), (&copy, None)).await?;
        let rows = (copy.rows_read, Some(told));
        let applied = ledger::record(&mut tx, fence, (step.as_str(), work), rows).await?;
        tx.commit().await?;
        Ok(applied)
    }
}

/// Locks the rows of a chunk until the end of the transaction. Returns how many they are.
pub(super) async fn lock(tx: &mut Tx<'_>, shape: &Shape, chunk: &Chunk) -> Result<u64, Error> {
    let text = format!(
        "{} {} RETURN count(source) AS rows",
        shape.in_chunk(Which::Old, chunk),
        hold("source")
    );
    // Not in the text, which the server would have to plan anew for each chunk.
    let mark = uuid::Uuid::now_v7().simple().to_string();
    let connections = tx.connections();
    let ask = values::with_bounds(query(&text), chunk).param("phasegate_mark", mark.as_str());
    let rows = tokio::select! {
        rows = tx.rows(ask) => rows.map_err(failed("lock the rows of a chunk"))?,
        error = held_up(connections, &mark) => return Err(error),
    };
    rows.first().map_or(Ok(0), |row| unsigned(get(row, "rows")?))
}

/// Ends, with an error, when a statement with this mark has gone on for long and is waiting for somebody's lock. One that still looks
/// for its rows may go on: it would not take less time the next time.
async fn held_up(connections: &Connections, mark: &str) -> Error {
    tokio::time::sleep(LOCKED_WITHIN).await;
    let mut waited = false;
    loop {
        let waits = match waits_for_a_lock(connections, mark).await {
            Ok(waits) => waits,
            Err(error) => return error,
        };
        if waits && waited {
            let message =
                format!("the rows of a chunk could not be locked within {LOCKED_WITHIN:?}");
            return Error::failed(FailureClass::Contention, message)
                .with_help("see SHOW TRANSACTIONS for who holds them");
        }
        waited = waits;
        tokio::time::sleep(LOCKED_LOOK_EVERY).await;
    }
}

async fn waits_for_a_lock(connections: &Connections, mark: &str) -> Result<bool, Error> {
    let mut reader = connections.read().await?;
    let look = query(
        "SHOW TRANSACTIONS YIELD parameters, status WHERE parameters.phasegate_mark = $mark AND status STARTS WITH 'Blocked' \
         RETURN status",
    );
    let rows = reader.rows(look.param("mark", mark)).await;
    let rows = rows.map_err(failed("look at what a chunk waits for"))?;
    reader.release();
    Ok(!rows.is_empty())
}

/// Copies the rows of a range. Returns how many were not there before.
pub(super) async fn copy(
    tx: &mut Tx<'_>,
    shape: &Shape,
    on_existing: OnExisting,
    chunk: &Chunk,
) -> Result<u64, Error> {
    let rows = shape.in_chunk(Which::Old, chunk);
    let with = |text: &str| values::with_bounds(query(text), chunk);
    if let Pattern::Node(_) = shape.new {
        let update = on_existing == OnExisting::Update;
        let text = nodes(shape, (&rows, &shape.still_in(chunk)), update);
        let summary = tx.summary(with(&text)).await;
        let summary = summary.map_err(failed("copy nodes"))?;
        return Ok(summary.nodes_created());
    }
    let lacking = tx.rows(with(&without_nodes(shape, &rows)).param("most", UNTIED_NAMED_MAX)).await;
    let lacking = lacking.map_err(failed("look for the nodes of relationships"))?;
    if !lacking.is_empty() {
        let mut keys = Vec::new();
        for row in &lacking {
            let key = super::source::read_key(row, shape.new.key().len())?;
            keys.push(key.to_string());
        }
        return Err(no_node(shape, &keys));
    }
    let summary = tx.summary(with(&relationships(shape, &rows))).await;
    Ok(summary.map_err(failed("copy relationships"))?.relationships_created())
}

/// A statement that writes the copies of nodes which `rows` matches: those that are missing; all, where `update` says so.
///
/// It locks them, and looks again whether they are `still` some of these: there may be more of them than were locked before.
pub(super) fn nodes(shape: &Shape, (rows, still): (&str, &str), update: bool) -> String {
    let key = shape.old.key();
    let copy = shape.new.keyed(&key);
    let on_match = match (update, shape.copies_all) {
        (false, _) => "",
        // Everything of the copy belongs to the mapping.
        (true, true) => " ON MATCH SET copy = row, copy += key",
        (true, false) => " ON MATCH SET copy += row",
    };
    let names = shape.new.nodes().into_iter().flat_map(|node| &node.key);
    let pairs: Vec<String> = names
        .zip(&key)
        .map(|(name, value)| format!("{}: {value}", crate::sql::cypher::quoted(name)))
        .collect();
    format!(
        "{rows} {} WITH source{still} \
         WITH source, {} AS row, {{{}}} AS key MERGE {copy} ON CREATE SET copy += row, copy += key{on_match}",
        hold("source"),
        shape.row(Which::Old),
        pairs.join(", ")
    )
}

/// A query for the keys of relationships whose new nodes aren't there.
fn without_nodes(shape: &Shape, rows: &str) -> String {
    let (columns, names) = super::source::columns(&shape.old.key());
    let lacks: Vec<String> = shape
        .new
        .keyed_nodes(&names)
        .iter()
        .map(|node| format!("NOT EXISTS {{ MATCH {node} }}"))
        .collect();
    format!(
        "{rows} WITH DISTINCT {columns} WHERE {} RETURN {} LIMIT $most",
        lacks.join(" OR "),
        names.join(", ")
    )
}

/// A statement that makes the relationships which are lacking: between the same two nodes there may be any number, of which
/// each may be alike another.
pub(super) fn relationships(shape: &Shape, rows: &str) -> String {
    let (columns, names) = super::source::columns(&shape.old.key());
    let nodes = shape.new.keyed_nodes(&names);
    let Pattern::Relationship { kind, .. } = &shape.new else { return String::new() };
    let kind = crate::sql::cypher::quoted(kind);
    format!(
        "{rows} WITH {columns}, collect({row}) AS rows ORDER BY {order} MATCH {nodes} \
         CALL (copy_start, copy_end, rows) {{ \
         OPTIONAL MATCH (copy_start)-[copy:{kind}]->(copy_end) \
         WITH copy_start, copy_end, rows, collect({there}) AS there \
         UNWIND rows AS row WITH copy_start, copy_end, there, row, count(*) AS wanted \
         WITH copy_start, copy_end, row, wanted - size([it IN there WHERE {same}]) AS lacking WHERE lacking > 0 \
         UNWIND range(1, lacking) AS nth CREATE (copy_start)-[copy:{kind}]->(copy_end) SET copy = row }}",
        row = shape.row(Which::Old),
        order = names.join(", "),
        nodes = nodes.join(", "),
        there = shape.row(Which::New),
        same = same("it", "row"),
    )
}

/// Deletes the relationships of the new side between the ends of some keys which the old side doesn't account for. They are locked
/// before they are counted: where somebody else deletes one, another one is no longer too many.
pub(super) async fn remove_surplus(
    tx: &mut Tx<'_>,
    shape: &Shape,
    keys: &[BoltType],
) -> Result<(), Error> {
    let lock = format!("{} {}", shape.among(Which::New, "$keys"), hold("copy"));
    for text in [lock, surplus(shape)] {
        let remove = query(&text).param("keys", keys.to_vec());
        tx.run(remove).await.map_err(failed("remove relationships"))?;
    }
    Ok(())
}

/// The statement for it.
fn surplus(shape: &Shape) -> String {
    let key: Vec<String> = (0..shape.new.key().len()).map(|at| format!("key[{at}]")).collect();
    format!(
        "{copies} WITH key, collect(copy) AS copies \
         CALL (key) {{ MATCH {old}{filter} RETURN collect({row}) AS rows }} \
         UNWIND copies AS copy WITH key, rows, {there} AS there, copy \
         WITH key, rows, there, collect(copy) AS alike \
         FOREACH (it IN alike[size([row IN rows WHERE {same}])..] | DELETE it)",
        copies = shape.among(Which::New, "$keys"),
        old = shape.old.keyed(&key),
        filter = shape.where_old(),
        row = shape.row(Which::Old),
        there = shape.row(Which::New),
        same = same("there", "row"),
    )
}

/// Whether two maps have the same properties: what is null isn't there.
fn same(one: &str, other: &str) -> String {
    format!(
        "all(name IN keys({one}) + keys({other}) WHERE {one}[name] = {other}[name] \
         OR ({one}[name] IS NULL AND {other}[name] IS NULL))"
    )
}

fn no_node(shape: &Shape, keys: &[String]) -> Error {
    let labels: Vec<&str> = shape.new.nodes().iter().map(|node| node.label.as_str()).collect();
    let kind = shape.new.relationship().unwrap_or_default();
    let message = format!(
        "a {kind} needs a {} and a {} that aren't both there: {}",
        labels.first().unwrap_or(&""),
        labels.last().unwrap_or(&""),
        keys.join("; ")
    );
    let error = Error::failed(FailureClass::Refused, message).with_help(
        "copy the nodes first: let this step need their backfill, and give both mappings the same `where`",
    );
    match error {
        Error::Failed(mut failure) => {
            failure.private = keys.iter().map(Private::key).collect();
            Error::Failed(failure)
        }
        other => other,
    }
}

#[async_trait]
impl Parker for Neo4j {
    async fn copy_parking(
        &self,
        _: &Fence,
        _: &Work,
        mapping: &Mapping,
        _: Direction,
        _: (&Planned, u32),
    ) -> Result<Copied, Error> {
        Err(no_parking(mapping))
    }

    async fn retry_parked(&self, _: &Fence, _: &Mapping, _: Direction) -> Result<u64, Error> {
        Ok(0)
    }

    async fn parked(&self, _: &Mapping, _: Direction, _: u32) -> Result<Parked, Error> {
        Ok(Parked::default())
    }
}

fn no_parking(mapping: &Mapping) -> Error {
    let message = format!("rows of mapping {} can't be parked in a graph", mapping.name);
    Error::failed(FailureClass::Refused, message)
}

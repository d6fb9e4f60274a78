//! Both sides of a mapping in step: [`DualWriter`] for Neo4j, where the application writes both.
//!
//! Invariants:
//! - Before the first row is copied each key has its unique constraint, online, and every transaction has ended that began before the
//!   application was seen to write both sides.
//! - What we made, and whether the new side was empty, is written down before it is made. It is taken back on the way back only.
//! - Nodes that still have relationships, or other labels, are not removed: what these are is somebody else's.

use std::collections::BTreeSet;

use async_trait::async_trait;
use neo4rs::query;

use super::connection::{Ask as _, Reader};
use super::error::failed;
use super::ledger::{self, applied, get, record};
use super::shape::{Pattern, Shape, hold};
use super::source::columns;
use super::{Neo4j, catalogue, chunks, script, sink, verify};
use crate::bounds::neo4j::{BATCH, DRAINED_LOOK_EVERY, DRAINED_WITHIN_MS};
use crate::clock::Stopwatch;
use crate::copy::chunk::Chunk;
use crate::driver::{
    Applied, DualWriter, Error, Fence, Gone, Session as _, SyncState, TxKind, Verifier as _, Work,
    emptying,
};
use crate::run::{Direction, FailureClass, Mapping, Way, plural};
use crate::sql::cypher::quoted;

/// What was found and made for a mapping.
pub(super) struct Begun {
    /// Whether the new side had nothing but copies when the step was done. It is seldom empty: the application writes it by then.
    pub(super) only_copies: bool,
    /// The statements that made constraints.
    pub(super) made: Vec<String>,
}

#[async_trait]
impl DualWriter for Neo4j {
    async fn install(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        _direction: Direction,
    ) -> Result<Applied, Error> {
        let shape = Shape::of(mapping)?;
        let step = work.step.as_str();
        if let Some(before) = self.done_before(fence, work).await? {
            return Ok(before);
        }
        let mut reader = self.connections.read().await?;
        let lacking = catalogue::unconstrained(&mut reader, &shape).await?;
        reader.release();
        let statements: Vec<String> = lacking.into_iter().map(catalogue::constrain).collect();
        self.note(fence, mapping, &statements).await?;
        if !statements.is_empty() {
            let part = format!("{step}/part/constraints");
            Box::pin(script::change_schema(self, (fence, work), part, &statements)).await?;
        }
        self.drain().await?;
        self.note_copies(fence, mapping, &shape).await?;
        let detail = match statements.len() {
            0 => None,
            some => Some(format!("made {}", plural(some as u64, "constraint"))),
        };
        let mut tx = self.connections.begin(fence, TxKind::Install).await?;
        ledger::forget(&mut tx, fence, (&format!("{step}/part/"), work.way)).await?;
        let applied = record(&mut tx, fence, (step, work), (0, detail)).await?;
        tx.commit().await?;
        Ok(applied)
    }

    async fn remove(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        _direction: Direction,
    ) -> Result<Applied, Error> {
        let shape = Shape::of(mapping)?;
        let step = work.step.as_str();
        if let Some(before) = self.done_before(fence, work).await? {
            return Ok(before);
        }
        let mut reader = self.connections.read().await?;
        let begun = begun(&mut reader, fence, mapping).await?;
        reader.release();
        let mut rows = 0;
        let mut detail = None;
        if work.way == Way::Back
            && let Some(Begun { only_copies, made }) = begun
        {
            if only_copies {
                rows = Box::pin(self.empty(fence, work, &shape.new)).await?;
                detail = Some(format!("removed {}", plural(rows, "row")));
            }
            self.take_back(fence, work, &made).await?;
        }
        let mut tx = self.connections.begin(fence, TxKind::Remove).await?;
        if work.way == Way::Back {
            let forget =
                query("MATCH (s:phasegate_syncs {run_id: $run, mapping: $mapping}) DELETE s")
                    .param("run", fence.run().as_str())
                    .param("mapping", mapping.name.as_str());
            tx.run(forget).await.map_err(failed("forget the mapping"))?;
        }
        ledger::forget(&mut tx, fence, (&format!("{step}/part/"), work.way)).await?;
        let applied = record(&mut tx, fence, (step, work), (rows, detail)).await?;
        tx.commit().await?;
        Ok(applied)
    }

    async fn sync_state(&self, mapping: &Mapping, _: Direction) -> Result<SyncState, Error> {
        let shape = Shape::of(mapping)?;
        let mut reader = self.connections.read().await?;
        let lacking = catalogue::unconstrained(&mut reader, &shape).await?;
        reader.release();
        Ok(match lacking.first() {
            None => SyncState::Active,
            Some(node) => SyncState::Broken(format!(
                "nothing makes {} of {} unique any more",
                node.key.join(", "),
                node.label
            )),
        })
    }

    /// Labels and types have no definition that could go.
    async fn gone(&self, _: &Mapping) -> Result<Gone, Error> {
        Ok(Gone::Nothing)
    }

    /// The server lets a relationship be removed without a lock that anybody could wait for: who removes both sides while the old one
    /// is copied finds no copy yet, and leaves one behind. So behind the copy, when everybody has ended who was at work in it, what
    /// the old side doesn't account for is removed again. Behind a finished copy it is for a verify to say.
    async fn settle(&self, fence: &Fence, mapping: &Mapping) -> Result<u64, Error> {
        let shape = Shape::of(mapping)?;
        let mut reader = self.connections.read().await?;
        let is_open = shape.new.relationship().is_some()
            && chunks::is_copied_now(&mut reader, fence.run(), mapping).await?;
        reader.release();
        if is_open {
            self.drain().await?;
            Box::pin(self.sweep(fence, mapping, &shape)).await?;
        }
        Ok(0)
    }
}

/// What an earlier attempt has noted of a mapping.
pub(super) async fn begun(
    reader: &mut Reader<'_>,
    fence: &Fence,
    mapping: &Mapping,
) -> Result<Option<Begun>, Error> {
    let ask = query(
        "MATCH (s:phasegate_syncs {run_id: $run, mapping: $mapping}) RETURN coalesce(s.only_copies, false) AS only_copies, s.made AS made",
    )
    .param("run", fence.run().as_str())
    .param("mapping", mapping.name.as_str());
    let rows = reader.rows(ask).await.map_err(failed("read what was made for the mapping"))?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Begun { only_copies: get(row, "only_copies")?, made: get(row, "made")? }))
}

/// A statement that removes copies. A node that carries another label is somebody's as well, and stays: where the application
/// writes both sides as two labels of one node, it *is* the old side. What is chosen is locked, and looked at again.
fn removing(side: &Pattern) -> String {
    let text = side.text();
    match side {
        Pattern::Relationship { .. } => format!("MATCH {text} WITH copy LIMIT $most DELETE copy"),
        Pattern::Node(_) => {
            let is_bare = "labels(copy) = [$label] AND NOT (copy)--()";
            format!(
                "MATCH {text} WHERE {is_bare} WITH copy LIMIT $most \
                 {} WITH copy WHERE {is_bare} DELETE copy",
                hold("copy")
            )
        }
    }
}

impl Neo4j {
    /// Writes down what is about to be made, unless an earlier attempt has.
    pub(super) async fn note(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        made: &[String],
    ) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Install).await?;
        let note = query(
            "MERGE (s:phasegate_syncs {run_id: $run, mapping: $mapping}) ON CREATE SET s.made = $made",
        )
        .param("run", fence.run().as_str())
        .param("mapping", mapping.name.as_str())
        .param("made", made.to_vec());
        tx.run(note).await.map_err(failed("note what is made for the mapping"))?;
        tx.commit().await
    }

    /// Writes down, once, whether each row of the new side has its row on the old one and is nothing else, so that going back may take
    /// all of them away.
    async fn note_copies(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        shape: &Shape,
    ) -> Result<(), Error> {
        let (columns, names) = columns(&shape.new.key());
        let others = match &shape.new {
            Pattern::Node(_) => "labels(copy) <> [$label] OR ",
            Pattern::Relationship { .. } => "",
        };
        let text = format!(
            "OPTIONAL MATCH {} WITH copy, {columns} WHERE copy IS NOT NULL AND ({others}NOT EXISTS {{ MATCH {}{} }}) \
             WITH copy LIMIT 1 WITH count(copy) = 0 AS only_copies \
             MATCH (s:phasegate_syncs {{run_id: $run, mapping: $mapping}}) SET s.only_copies = coalesce(s.only_copies, only_copies)",
            shape.new.text(),
            shape.old.keyed(&names),
            shape.where_old()
        );
        let mut tx = self.connections.begin(fence, TxKind::Install).await?;
        let note = query(&text)
            .param("run", fence.run().as_str())
            .param("mapping", mapping.name.as_str())
            .param("label", mapping.into.table.as_str());
        tx.run(note).await.map_err(failed("look at what the new side has"))?;
        tx.commit().await
    }

    /// Waits until every transaction of this database has ended that is open now.
    pub(super) async fn drain(&self) -> Result<(), Error> {
        let own = self.identity().await?.database;
        let watch = Stopwatch::start();
        let mut older: Option<BTreeSet<String>> = None;
        loop {
            let mut reader = self.connections.read().await?;
            let look = query(
                "/* phasegate looks for older transactions */ SHOW TRANSACTIONS YIELD transactionId, startTime, database, username, currentQuery \
                 WHERE database = $own AND NOT coalesce(currentQuery, '') CONTAINS 'phasegate looks for older transactions' \
                 RETURN transactionId + ' of ' + startTime AS name, username",
            )
            .param("own", own.as_str());
            let open = reader.rows(look).await.map_err(failed("look for older transactions"))?;
            reader.release();
            let names: Result<BTreeSet<String>, Error> =
                open.iter().map(|row| get(row, "name")).collect();
            let names = names?;
            let waits_for = older.get_or_insert_with(|| names.clone());
            waits_for.retain(|name| names.contains(name));
            let Some(first) = waits_for.first() else { return Ok(()) };
            if watch.elapsed_ms() > DRAINED_WITHIN_MS {
                let row = open
                    .iter()
                    .find(|row| get::<String>(row, "name").is_ok_and(|name| name == *first));
                let by: String =
                    row.map_or_else(|| Ok(String::new()), |row| get(row, "username"))?;
                let message = format!(
                    "transaction {first} of user {by:?} is open since before this step, and may know nothing of the new side"
                );
                return Err(Error::failed(FailureClass::Contention, message).with_help(
                    "let it end, or end it with TERMINATE TRANSACTIONS, then retry: what it writes would be copied by nobody",
                ));
            }
            tokio::time::sleep(DRAINED_LOOK_EVERY).await;
        }
    }

    /// Removes relationships of the new side that the old side doesn't account for.
    async fn sweep(&self, fence: &Fence, mapping: &Mapping, shape: &Shape) -> Result<(), Error> {
        let mut lo = None;
        loop {
            let hi = self.verify_bound(mapping, lo.as_ref(), BATCH).await?;
            let chunk = Chunk { lo, hi };
            let mut reader = self.connections.read().await?;
            let keys = Box::pin(verify::surplus_in(&mut reader, shape, &chunk)).await?;
            reader.release();
            if !keys.is_empty() {
                let mut tx = self.connections.begin(fence, TxKind::Settle).await?;
                sink::remove_surplus(&mut tx, shape, &keys).await?;
                tx.commit().await?;
            }
            let Some(hi) = chunk.hi else { return Ok(()) };
            lo = Some(hi);
        }
    }

    /// Removes everything of the new side, which had nothing but copies.
    pub(super) async fn empty(
        &self,
        fence: &Fence,
        work: &Work,
        side: &Pattern,
    ) -> Result<u64, Error> {
        let mark = emptying(&work.step);
        let mut tx = self.connections.begin(fence, TxKind::Remove).await?;
        if applied(&mut tx, fence.run(), mark.as_str(), work.way).await?.is_none() {
            record(&mut tx, fence, (mark.as_str(), work), (0, None)).await?;
        }
        tx.commit().await?;
        let text = removing(side);
        let label = side.nodes().first().map_or("", |node| node.label.as_str());
        let rows = loop {
            let mut tx = self.connections.begin(fence, TxKind::Remove).await?;
            let before = applied(&mut tx, fence.run(), mark.as_str(), work.way).await?;
            let delete = query(&text).param("most", i64::from(BATCH)).param("label", label);
            let done = tx.summary(delete).await.map_err(failed("remove copies"))?;
            let now = done.nodes_deleted() + done.relationships_deleted();
            // With the batch: whoever goes on after us has the count.
            let rows = before.map_or(0, |before| before.rows) + now;
            record(&mut tx, fence, (mark.as_str(), work), (rows, None)).await?;
            tx.commit().await?;
            if now == 0 {
                break rows;
            }
        };
        if let Pattern::Node(node) = side {
            self.nothing_left(&node.label).await?;
        }
        Ok(rows)
    }

    /// Nodes that were left have relationships or other labels.
    async fn nothing_left(&self, label: &str) -> Result<(), Error> {
        let text = format!(
            "MATCH (n:{}) WITH n, [it IN labels(n) WHERE it <> $label] AS own OPTIONAL MATCH (n)-[r]-() \
             WITH count(DISTINCT n) AS nodes, collect(DISTINCT type(r)) AS types, collect(DISTINCT own) AS owns \
             RETURN nodes, types, reduce(all = [], own IN owns | all + [it IN own WHERE NOT it IN all]) AS labels",
            quoted(label)
        );
        let mut reader = self.connections.read().await?;
        let rows = reader.rows(query(&text).param("label", label)).await;
        let rows = rows.map_err(failed("look at what is left"))?;
        reader.release();
        let Some(row) = rows.first() else { return Ok(()) };
        let nodes = ledger::unsigned(get(row, "nodes")?)?;
        let (types, labels): (Vec<String>, Vec<String>) = (get(row, "types")?, get(row, "labels")?);
        if nodes == 0 {
            return Ok(());
        }
        let nodes = plural(nodes, "node");
        let mut why = Vec::new();
        for (what, names) in [("relationships", types), ("other labels", labels)] {
            if !names.is_empty() {
                why.push(format!("{what} ({})", names.join(", ")));
            }
        }
        let message = if why.is_empty() {
            format!("{nodes} of {label} came back while they were removed")
        } else {
            format!("{nodes} of {label} have {}, so they stay", why.join(" and "))
        };
        Err(Error::failed(FailureClass::Unsafe, message).with_help(
            "let the application stop writing the new side, remove what it has of its own there (a label by REMOVE), then `phasegate rollback` again",
        ))
    }

    /// Removes the constraints that we made, as far as they are still there.
    pub(super) async fn take_back(
        &self,
        fence: &Fence,
        work: &Work,
        made: &[String],
    ) -> Result<(), Error> {
        if made.is_empty() {
            return Ok(());
        }
        let mut reader = self.connections.read().await?;
        let list = query(
            "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties \
             WHERE type CONTAINS 'UNIQUENESS' AND size(labelsOrTypes) = 1 \
             RETURN name, entityType = 'NODE' AS nodes, labelsOrTypes[0] AS label, properties AS key",
        );
        let rows = reader.rows(list).await.map_err(failed("look for constraints"))?;
        reader.release();
        let mut drops = Vec::new();
        for row in &rows {
            let unique = catalogue::Unique {
                is_of_nodes: get(row, "nodes")?,
                name: get(row, "label")?,
                key: get(row, "key")?,
            };
            if made.contains(&unique.constrain()) {
                let name: String = get(row, "name")?;
                drops.push(format!("DROP CONSTRAINT {} IF EXISTS", quoted(&name)));
            }
        }
        if drops.is_empty() {
            return Ok(());
        }
        let part = format!("{}/part/constraints", work.step);
        Box::pin(script::change_schema(self, (fence, work), part, &drops)).await
    }
}

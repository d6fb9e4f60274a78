//! Comparing both sides of a mapping: [`Verifier`] for Neo4j.
//!
//! Rows of both sides are read and held against each other here: the server has no snapshot in which it could compare them. So what
//! differs is read again, both sides at once, until it doesn't or has differed for a while: an application writes both sides in one
//! transaction, of which a single look may see one half.

use async_trait::async_trait;
use neo4rs::{BoltList, BoltType, Query, query};

use super::connection::{Ask, Reader, Tx};
use super::error::failed;
use super::ledger::{get, unsigned};
use super::shape::{Pattern, Shape, Which, hold};
use super::source::{columns, read_key};
use super::{Neo4j, catalogue, chunks, sink, survey, values};
use crate::bounds::verify::{GRAPH_FIRST_WAIT, GRAPH_KEYS_MAX, GRAPH_LOOKS};
use crate::clock::Stopwatch;
use crate::copy::chunk::{Chunk, Key};
use crate::copy::compare::{Compared, Named};
use crate::copy::row::{Datum, Row, Unlike, unlike};
use crate::driver::{Basis, Error, Fence, TxKind, Verifier};
use crate::run::{DifferenceKind, Direction, FailureClass, Mapping, Method, RunId, StepId};

#[async_trait]
impl Verifier for Neo4j {
    async fn verify_bound(
        &self,
        mapping: &Mapping,
        after: Option<&Key>,
        rows: u32,
    ) -> Result<Option<Key>, Error> {
        let shape = Shape::of(mapping)?;
        let rest = Chunk { lo: after.cloned(), hi: None };
        let side = |which: Which| {
            let (columns, names) = columns(&shape.side(which).key());
            let names = names.join(", ");
            let walk = shape.walk(which, &rest);
            format!("{walk} WITH {columns} ORDER BY {names} LIMIT $rows RETURN {names}")
        };
        let parts = shape.new.key().len();
        let (_, names) = columns(&shape.new.key());
        let names = names.join(", ");
        let text = format!(
            "CALL () {{ {} UNION {} }} WITH {names} ORDER BY {names} SKIP $skip LIMIT 1 RETURN {names}",
            side(Which::Old),
            side(Which::New)
        );
        let rows = rows.max(1);
        let ask = query(&text).param("rows", i64::from(rows)).param("skip", i64::from(rows) - 1);
        let mut reader = self.connections.read().await?;
        let found = reader.rows(values::with_bounds(ask, &rest)).await;
        let found = found.map_err(failed("find where a chunk ends"))?;
        reader.release();
        found.first().map(|row| read_key(row, parts)).transpose()
    }

    async fn compare_chunk(
        &self,
        mapping: &Mapping,
        _direction: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        Box::pin(compare(self, &Shape::of(mapping)?, (chunk, Named::Any))).await
    }

    /// What the mapping doesn't list goes with a copy, too.
    async fn compare_losing(
        &self,
        mapping: &Mapping,
        _direction: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        let shape = Shape::of(mapping)?.with_whole_copies();
        Box::pin(compare(self, &shape, (chunk, Named::OfNewSide))).await
    }

    async fn compare_partly(
        &self,
        mapping: &Mapping,
        _direction: Direction,
        method: Method,
    ) -> Result<Compared, Error> {
        let shape = Shape::of(mapping)?;
        let watch = Stopwatch::start();
        let mut reader = self.connections.read().await?;
        let mut counts = counts(&mut reader, &shape).await?;
        let compared = match method {
            Method::Counts | Method::Full => {
                // An application that writes both sides at once may have been seen in between.
                let mut wait = GRAPH_FIRST_WAIT;
                for _ in 0..GRAPH_LOOKS {
                    if counts[0] == counts[1] {
                        break;
                    }
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                    counts = self::counts(&mut reader, &shape).await?;
                }
                let [old, new] = counts;
                Compared {
                    rows: old.max(new),
                    missing: old.saturating_sub(new),
                    extra: new.saturating_sub(old),
                    ..Compared::default()
                }
            }
            Method::Sample(wanted) => {
                Box::pin(sample(&mut reader, &shape, (counts, wanted))).await?
            }
        };
        reader.release();
        Ok(Compared { took_us: watch.elapsed_us(), ..compared })
    }

    /// The constraints of what is mapped. What keeps both sides equal is the application, of which a database knows nothing.
    async fn basis(&self, mapping: &Mapping) -> Result<Basis, Error> {
        let shape = Shape::of(mapping)?;
        let mut reader = self.connections.read().await?;
        let constraints = catalogue::constraints(&mut reader, &shape).await?;
        reader.release();
        Ok(Basis { tables: constraints.join("\n"), sync: "the application".to_owned() })
    }

    async fn kept_pass(&self, run: &RunId, step: &StepId) -> Result<Option<String>, Error> {
        let mut reader = self.connections.read().await?;
        let kept = chunks::kept_pass(&mut reader, run, step).await?;
        reader.release();
        Ok(kept)
    }

    async fn keep_pass(
        &self,
        fence: &Fence,
        step: &StepId,
        pass: Option<&str>,
    ) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Pass).await?;
        chunks::keep_pass(&mut tx, (fence, step), pass).await?;
        tx.commit().await
    }

    async fn repair_chunk(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        _direction: Direction,
        chunk: &Chunk,
    ) -> Result<u64, Error> {
        let shape = Shape::of(mapping)?;
        let mut tx = self.connections.begin(fence, TxKind::Repair).await?;
        let rows = Box::pin(repair(&mut tx, &shape, chunk)).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

/// Compares the rows of both sides in a range of keys.
async fn compare(
    neo4j: &Neo4j,
    shape: &Shape,
    (chunk, named): (&Chunk, Named),
) -> Result<Compared, Error> {
    let watch = Stopwatch::start();
    let mut reader = neo4j.connections.read().await?;
    let sides = both_in(&mut reader, shape, chunk).await?;
    // Without the waits before what differs is read again, which say nothing of the size of a chunk.
    let took_us = watch.elapsed_us();
    let compared = Box::pin(judged(&mut reader, shape, sides, named)).await?;
    if chunk.hi.is_none() {
        Box::pin(survey::all_comparable(&mut reader, shape)).await?;
    }
    reader.release();
    Ok(Compared { took_us, ..compared })
}

/// How many rows each side has, in one statement. Of a label alone the server keeps the count, and needs no time for it.
async fn counts(reader: &mut Reader<'_>, shape: &Shape) -> Result<[u64; 2], Error> {
    let text = format!(
        "CALL () {{ MATCH {}{} RETURN count(source) AS old }} CALL () {{ MATCH {} RETURN count(copy) AS new }} RETURN old, new",
        shape.old.text(),
        shape.where_old(),
        shape.new.text()
    );
    let rows = reader.rows(query(&text)).await.map_err(failed("count rows"))?;
    let row = rows.first().ok_or_else(|| super::error::damaged("rows can't be counted"))?;
    Ok([unsigned(get(row, "old")?)?, unsigned(get(row, "new")?)?])
}

/// A query for rows that a text matches, in the shape of the new side.
fn rows_query(shape: &Shape, which: Which, rows: &str) -> Query {
    let key = shape.side(which).key().join(", ");
    query(&format!("{rows} RETURN [{key}] AS key, {} AS row", shape.row(which)))
}

fn read_rows(shape: &Shape, rows: Vec<neo4rs::Row>) -> Result<Vec<Row>, Error> {
    // A node's key stands beside its other properties on one side or both.
    let own: Vec<&String> = match &shape.new {
        Pattern::Node(node) => node.key.iter().collect(),
        Pattern::Relationship { .. } => Vec::new(),
    };
    let mut read = Vec::with_capacity(rows.len());
    for row in rows {
        let key: BoltList = get(&row, "key")?;
        let key: Result<Option<Vec<Datum>>, Error> =
            key.value.into_iter().map(values::datum).collect();
        let found = match get::<BoltType>(&row, "row")? {
            BoltType::Map(found) => Some(found),
            BoltType::Null(_) => None,
            _ => return Err(super::error::damaged("a row can't be read")),
        };
        // What went between its being found and its values being read has none of them.
        let (Some(key), Some(found)) = (key?, found) else { continue };
        let mut values = values::properties(found)?;
        values.retain(|name, _| !own.contains(&name));
        read.push(Row { key, values });
    }
    Ok(read)
}

/// The rows of both sides in a range of keys.
async fn both_in(who: &mut impl Ask, shape: &Shape, chunk: &Chunk) -> Result<[Vec<Row>; 2], Error> {
    let mut sides = [Vec::new(), Vec::new()];
    for (side, which) in sides.iter_mut().zip([Which::Old, Which::New]) {
        let ask = rows_query(shape, which, &shape.in_chunk(which, chunk));
        let rows = who.rows(values::with_bounds(ask, chunk)).await;
        *side = read_rows(shape, rows.map_err(failed("read rows to compare"))?)?;
    }
    Ok(sides)
}

/// The keys of a range of which the new side has more than the old side accounts for, and goes on having.
pub(super) async fn surplus_in(
    reader: &mut Reader<'_>,
    shape: &Shape,
    chunk: &Chunk,
) -> Result<Vec<BoltType>, Error> {
    let [old, new] = both_in(reader, shape, chunk).await?;
    let mut differing = Box::pin(settled(reader, shape, unlike(old, new))).await?;
    differing.retain(|one| !one.found.is_empty());
    Ok(asked_for(&differing).unwrap_or_default())
}

/// Keys as they are asked for; `None` where one of them can't be.
fn asked_for(unlike: &[Unlike]) -> Option<Vec<BoltType>> {
    let key = |key: &Vec<Datum>| {
        let parts: Option<Vec<BoltType>> = key.iter().map(values::key_value).collect();
        parts.map(|parts| BoltType::List(parts.into()))
    };
    unlike.iter().map(|one| key(&one.key)).collect()
}

/// What both sides' rows add up to, with what differs read again.
async fn judged(
    reader: &mut Reader<'_>,
    shape: &Shape,
    [old, new]: [Vec<Row>; 2],
    named: Named,
) -> Result<Compared, Error> {
    let rows = old.len().max(new.len()) as u64;
    let differing = settled(reader, shape, unlike(old, new)).await?;
    Ok(counted(&differing, rows, named))
}

/// What still differs when it was read again.
async fn settled(
    reader: &mut Reader<'_>,
    shape: &Shape,
    mut differing: Vec<Unlike>,
) -> Result<Vec<Unlike>, Error> {
    let mut wait = GRAPH_FIRST_WAIT;
    for _ in 0..GRAPH_LOOKS {
        let keys = asked_for(&differing);
        let Some(keys) = keys.filter(|keys| (1..=GRAPH_KEYS_MAX).contains(&keys.len())) else {
            break;
        };
        tokio::time::sleep(wait).await;
        wait *= 2;
        let (old, new) = both_among(reader, shape, &keys).await?;
        differing = unlike(old, new);
    }
    Ok(differing)
}

/// The rows of both sides with these keys, in one statement, so that little can happen between.
async fn both_among(
    reader: &mut Reader<'_>,
    shape: &Shape,
    keys: &[BoltType],
) -> Result<(Vec<Row>, Vec<Row>), Error> {
    let side = |which: Which| {
        let is_old = which == Which::Old;
        let key = shape.side(which).key().join(", ");
        let rows = shape.among(which, "$keys");
        format!("{rows} RETURN {is_old} AS old, [{key}] AS key, {} AS row", shape.row(which))
    };
    let text = format!("{} UNION ALL {}", side(Which::Old), side(Which::New));
    let rows = reader.rows(query(&text).param("keys", keys.to_vec())).await;
    let rows = rows.map_err(failed("read rows to compare again"))?;
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for row in rows {
        if get::<bool>(&row, "old")? { old.push(row) } else { new.push(row) }
    }
    Ok((read_rows(shape, old)?, read_rows(shape, new)?))
}

fn counted(differing: &[Unlike], rows: u64, named: Named) -> Compared {
    let mut compared = Compared { rows, ..Compared::default() };
    for difference in differing.iter().flat_map(Unlike::differences) {
        match difference.kind {
            DifferenceKind::Missing => compared.missing += 1,
            DifferenceKind::Extra => compared.extra += 1,
            DifferenceKind::Different => compared.different += 1,
        }
        compared.name(difference, named);
    }
    compared
}

/// About so many rows of each side, taken at random, compared with those of the other that have their keys.
async fn sample(
    reader: &mut Reader<'_>,
    shape: &Shape,
    (counts, wanted): ([u64; 2], u32),
) -> Result<Compared, Error> {
    let mut compared = Compared::default();
    for (count, which) in counts.into_iter().zip([Which::Old, Which::New]) {
        let chance = if count == 0 { 1.0 } else { f64::from(wanted) / to_real(count) };
        let everything = Chunk { lo: None, hi: None };
        let (columns, names) = columns(&shape.side(which).key());
        let text = format!(
            "{} AND rand() < $chance WITH DISTINCT {columns} RETURN [{}] AS key LIMIT $most",
            shape.in_chunk(which, &everything),
            names.join(", ")
        );
        let ask = query(&text).param("chance", chance).param("most", i64::from(wanted));
        let rows = reader.rows(ask).await.map_err(failed("take a sample"))?;
        let keys: Vec<BoltType> =
            rows.iter().map(|row| get(row, "key")).collect::<Result<_, _>>()?;
        for keys in keys.chunks(GRAPH_KEYS_MAX) {
            let (old, new) = both_among(reader, shape, keys).await?;
            compared.add(Box::pin(judged(reader, shape, [old, new], Named::Any)).await?);
        }
    }
    Ok(compared)
}

#[allow(clippy::cast_precision_loss, reason = "a share of rows needs no more digits")]
fn to_real(count: u64) -> f64 {
    count as f64
}

/// Makes the new side of a chunk as the old side says. Returns how many keys that changed.
async fn repair(tx: &mut Tx<'_>, shape: &Shape, chunk: &Chunk) -> Result<u64, Error> {
    sink::lock(tx, shape, chunk).await?;
    let [old, new] = both_in(tx, shape, chunk).await?;
    let differing = unlike(old, new);
    let Some(keys) = asked_for(&differing) else {
        let message = "a row of the new side has a key that is neither a number nor text";
        return Err(Error::failed(FailureClass::Refused, message));
    };
    if keys.is_empty() {
        return Ok(0);
    }
    let with = |text: &str| query(text).param("keys", keys.clone());
    let among = shape.among(Which::Old, "$keys");
    if shape.new.relationship().is_some() {
        sink::remove_surplus(tx, shape, &keys).await?;
        let make = sink::relationships(shape, &among);
        tx.run(with(&make)).await.map_err(failed("make relationships"))?;
        return Ok(keys.len() as u64);
    }
    let write = sink::nodes(shape, (&among, &shape.where_old()), true);
    tx.run(with(&write)).await.map_err(failed("write nodes"))?;
    let extra: Vec<Unlike> = differing.into_iter().filter(|one| one.expected.is_empty()).collect();
    let extra = asked_for(&extra).unwrap_or_default();
    let label = shape.new.nodes().first().map_or("", |node| node.label.as_str());
    let delete = query(&extra_nodes(shape)).param("keys", extra).param("label", label);
    tx.run(delete).await.map_err(failed("remove nodes that the old side doesn't have"))?;
    Ok(keys.len() as u64)
}

/// A statement that deletes the nodes of the new side with these keys, as far as the old side has none of them. The two sides were read
/// one after the other, and a client may have made both in between, so each is locked and looked up again. One with another label is
/// somebody's as well, and stays.
fn extra_nodes(shape: &Shape) -> String {
    let key: Vec<String> = (0..shape.new.key().len()).map(|at| format!("key[{at}]")).collect();
    format!(
        "{} {} WITH key, copy WHERE labels(copy) = [$label] AND NOT EXISTS {{ MATCH {}{} }} DELETE copy",
        shape.among(Which::New, "$keys"),
        hold("copy"),
        shape.old.keyed(&key),
        shape.where_old()
    )
}

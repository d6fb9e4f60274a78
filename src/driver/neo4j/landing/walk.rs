//! The rows of the new side, walked through by their keys.
//!
//! Relationships that are known by their ends are walked by the node that they leave, and of each by the other: keys of chunks are in
//! that order, whatever the order of a row's key is.

use neo4rs::{BoltType, query};

use super::super::Neo4j;
use super::super::connection::{Ask, Reader};
use super::super::error::failed;
use super::super::ledger::{get, unsigned};
use super::super::source::{columns, read_key};
use super::super::values;
use super::side::Side;
use crate::copy::chunk::{Chunk, Key};
use crate::copy::row::Datum;
use crate::driver::Error;

/// Keys in a range.
pub(super) struct Walked {
    /// As rows have them.
    pub(super) keys: Vec<Vec<Datum>>,
    /// The last, as chunks have it.
    pub(super) last: Option<Key>,
    pub(super) count: u32,
}

/// The keys of the rows in a range, or of the first of them in their order.
pub(super) async fn keys(
    who: &mut impl Ask,
    side: &Side,
    (range, most): (&Chunk, Option<u32>),
) -> Result<Walked, Error> {
    let (columns, names) = columns(&side.key());
    let names = names.join(", ");
    let order = match most {
        Some(_) => format!(" WITH {columns} ORDER BY {names} LIMIT $most RETURN {names}"),
        None => format!(" RETURN {columns}"),
    };
    let text = format!("{}{order}", side.walk(range));
    let ask = query(&text).param("most", i64::from(most.unwrap_or_default()));
    let rows = who.rows(values::with_bounds(ask, range)).await.map_err(failed("read keys"))?;
    let parts = side.key().len();
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut walked = Vec::with_capacity(parts);
        for at in 0..parts {
            walked.extend(values::datum(get::<BoltType>(row, &format!("k{at}"))?)?);
        }
        // One that went while it was read has no key any more.
        if walked.len() == parts {
            keys.push(side.row_key(&walked));
        }
    }
    let last = match most {
        Some(_) => rows.last().map(|row| read_key(row, parts)).transpose()?,
        None => None,
    };
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    Ok(Walked { keys, last, count })
}

impl Neo4j {
    pub(super) async fn bound(
        &self,
        side: &Side,
        (after, rows): (Option<&Key>, u32),
    ) -> Result<Option<Key>, Error> {
        let rest = Chunk { lo: after.cloned(), hi: None };
        let key = side.key();
        let (columns, names) = columns(&key);
        let names = names.join(", ");
        let text = format!(
            "{} WITH {columns} ORDER BY {names} SKIP $skip LIMIT 1 RETURN {names}",
            side.walk(&rest)
        );
        let ask = query(&text).param("skip", i64::from(rows.max(1)) - 1);
        let mut reader = self.connections.read().await?;
        let found = reader.rows(values::with_bounds(ask, &rest)).await;
        let found = found.map_err(failed("find where a chunk ends"))?;
        reader.release();
        found.first().map(|row| read_key(row, key.len())).transpose()
    }

    pub(super) async fn count(&self, side: &Side) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let count = counted(&mut reader, side).await?;
        reader.release();
        Ok(count)
    }

    /// How many rows no walk comes to: those without a key, with one that is of no order or of another type than most are, and
    /// those whose ends don't agree.
    pub(super) async fn unkeyed(&self, side: &Side) -> Result<u64, Error> {
        let types: Vec<String> = side
            .key()
            .iter()
            .map(|part| {
                format!(
                    "CASE WHEN {part} = {part} AND valueType({part}) IN ['INTEGER NOT NULL', 'STRING NOT NULL', 'FLOAT NOT NULL'] \
                     THEN valueType({part}) ELSE '' END"
                )
            })
            .collect();
        let agrees = side.agrees().unwrap_or_else(|| "true".to_owned());
        let pattern = side.pattern.text();
        // One that went while it was looked at has no key any more, and is not there.
        let text = format!(
            "MATCH {pattern} WITH *, CASE WHEN coalesce({agrees}, false) THEN [{}] ELSE [''] END AS types \
             WHERE NOT '' IN types OR EXISTS {{ MATCH {pattern} }} \
             WITH types, count(*) AS rows, '' IN types AS none ORDER BY rows DESC \
             WITH collect(CASE WHEN none THEN 0 ELSE rows END) AS good, sum(rows) AS rows \
             RETURN rows - reduce(most = 0, it IN good | CASE WHEN it > most THEN it ELSE most END) AS count",
            types.join(", ")
        );
        let mut reader = self.connections.read().await?;
        let rows = reader.rows(query(&text)).await.map_err(failed("look at keys"))?;
        reader.release();
        rows.first().map_or(Ok(0), |row| unsigned(get(row, "count")?))
    }

    pub(super) async fn sample(&self, side: &Side, wanted: u32) -> Result<Vec<Vec<Datum>>, Error> {
        let mut reader = self.connections.read().await?;
        let count = counted(&mut reader, side).await?;
        let chance = if count == 0 { 1.0 } else { f64::from(wanted) / to_real(count) };
        let everything = Chunk { lo: None, hi: None };
        let (columns, names) = columns(&side.key());
        let text = format!(
            "{} AND rand() < $chance WITH DISTINCT {columns} RETURN {} LIMIT $most",
            side.walk(&everything),
            names.join(", ")
        );
        let ask = query(&text).param("chance", chance).param("most", i64::from(wanted));
        let rows = reader.rows(ask).await.map_err(failed("take a sample"))?;
        reader.release();
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut walked = Vec::with_capacity(names.len());
            for name in &names {
                walked.extend(values::datum(get::<BoltType>(row, name)?)?);
            }
            keys.push(side.row_key(&walked));
        }
        Ok(keys)
    }
}

async fn counted(reader: &mut Reader<'_>, side: &Side) -> Result<u64, Error> {
    let text = format!("MATCH {} RETURN count(copy) AS count", side.pattern.text());
    let rows = reader.rows(query(&text)).await.map_err(failed("count rows"))?;
    rows.first().map_or(Ok(0), |row| unsigned(get(row, "count")?))
}

#[allow(clippy::cast_precision_loss, reason = "a share of rows needs no more digits")]
fn to_real(count: u64) -> f64 {
    count as f64
}

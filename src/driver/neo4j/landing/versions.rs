//! The versions of keys that have changed, also of those that are gone: nodes of our own, so that nothing of the user's is a tombstone.
//!
//! A version's node is known by the mapping's name and the key in one text, in which no two keys are the same. There is one for each
//! key of which a change was applied, until the mapping is closed.

use std::collections::{BTreeMap, BTreeSet};

use neo4rs::{BoltList, BoltType, query};
use sha2::{Digest as _, Sha256};

use super::super::connection::{Ask, Connections, Tx};
use super::super::error::failed;
use super::super::ledger::{get, signed, unsigned};
use crate::bounds::neo4j::{BATCH, PLAIN_KEY_BYTES_MAX};
use crate::copy::row::Datum;
use crate::driver::{Error, Fence, TxKind};
use crate::run::MappingName;

/// A key as a text that no other key has.
pub(super) fn key_text<'a>(key: impl IntoIterator<Item = &'a Datum>) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for part in key {
        // Writing to a text can't fail.
        let _ = match part {
            Datum::Integer(value) => write!(text, "i{value};"),
            Datum::Text(value) => write!(text, "t{}:{value};", value.len()),
            other => write!(text, "x{};", hex::encode(other.encoded())),
        };
    }
    if text.len() <= PLAIN_KEY_BYTES_MAX {
        return text;
    }
    format!("#{}", hex::encode(Sha256::digest(text.as_bytes())))
}

/// What a key's version is known by.
pub(super) fn text<'a>(mapping: &MappingName, key: impl IntoIterator<Item = &'a Datum>) -> String {
    format!("{}{}", prefix(mapping), key_text(key))
}

/// What the texts of a mapping begin with.
pub(super) fn prefix(mapping: &MappingName) -> String {
    format!("{mapping}:")
}

/// Which of some keys have a version.
pub(super) async fn known(
    tx: &mut Tx<'_>,
    texts: impl Iterator<Item = &String> + Send,
) -> Result<BTreeSet<String>, Error> {
    let texts: Vec<BoltType> = texts.map(|text| text.as_str().into()).collect();
    let ask = query(
        "UNWIND $texts AS text MATCH (v:phasegate_versions {key: text}) RETURN collect(text) AS known",
    )
    .param("texts", BoltType::List(BoltList { value: texts }));
    let rows = tx.rows(ask).await.map_err(failed("look for versions"))?;
    let known: Vec<String> =
        rows.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "known"))?;
    Ok(known.into_iter().collect())
}

/// Which of some keys have a version above one.
pub(super) async fn above(
    tx: &mut Tx<'_>,
    texts: impl Iterator<Item = &String> + Send,
    floor: u64,
) -> Result<BTreeSet<String>, Error> {
    let texts: Vec<BoltType> = texts.map(|text| text.as_str().into()).collect();
    let ask = query(
        "UNWIND $texts AS text MATCH (v:phasegate_versions {key: text}) WHERE v.v > $floor RETURN collect(text) AS above",
    )
    .param("texts", BoltType::List(BoltList { value: texts }))
    .param("floor", signed(floor));
    let rows = tx.rows(ask).await.map_err(failed("look for versions"))?;
    let above: Vec<String> =
        rows.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "above"))?;
    Ok(above.into_iter().collect())
}

/// Writes down the versions of some keys, of which each comes once, where they are higher than those that are kept. Returns the keys
/// of these. Whoever calls has all turns of the mapping.
pub(super) async fn raise(
    tx: &mut Tx<'_>,
    versions: &BTreeMap<&String, u64>,
) -> Result<BTreeSet<String>, Error> {
    // Lists: the server takes a fifth less time over them than over maps.
    let row = |(at, (text, version)): (i64, (&&String, &u64))| {
        let value = vec![text.as_str().into(), signed(*version).into(), at.into()];
        BoltType::List(BoltList { value })
    };
    let rows: Vec<BoltType> = (0..).zip(versions).map(row).collect();
    // What is judged is read before anything is set, with each key once. A key without a version has one below all.
    let raise = query(
        "UNWIND $rows AS r MERGE (t:phasegate_versions {key: r[0]}) ON CREATE SET t.v = -1 WITH r, t, t.v AS kept \
         SET t.v = CASE WHEN kept < r[1] THEN r[1] ELSE kept END RETURN collect(CASE WHEN kept >= r[1] THEN r[2] END) AS passed",
    )
    .param("rows", BoltType::List(BoltList { value: rows }));
    let rows = tx.rows(raise).await.map_err(failed("write versions"))?;
    let passed: Vec<i64> = rows.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "passed"))?;
    let passed: BTreeSet<i64> = passed.into_iter().collect();
    let all = (0_i64..).zip(versions.keys()).filter(|(at, _)| !passed.contains(at));
    Ok(all.map(|(_, text)| (*text).clone()).collect())
}

/// Removes the versions of a mapping, or all of them, a bounded number in a transaction.
pub(in super::super) async fn forget(
    connections: &Connections,
    (fence, kind): (&Fence, TxKind),
    mapping: Option<&MappingName>,
) -> Result<(), Error> {
    loop {
        let mut tx = connections.begin(fence, kind).await?;
        let delete = query(
            "MATCH (v:phasegate_versions) WHERE v.key STARTS WITH $prefix WITH v LIMIT $most DELETE v",
        )
        .param("prefix", mapping.map(prefix).unwrap_or_default())
        .param("most", i64::from(BATCH));
        let gone = tx.summary(delete).await.map_err(failed("remove versions"))?.nodes_deleted();
        tx.commit().await?;
        if gone < u64::from(BATCH) {
            return Ok(());
        }
    }
}

/// Removes versions of a mapping up to one, of a bounded number that come behind a text. Returns the last that was looked at;
/// `None` when those were all.
pub(super) async fn forget_up_to(
    tx: &mut Tx<'_>,
    mapping: &MappingName,
    (floor, after): (u64, &str),
) -> Result<Option<String>, Error> {
    let delete = query(
        "MATCH (v:phasegate_versions) WHERE v.key STARTS WITH $prefix AND v.key > $after \
         WITH v ORDER BY v.key LIMIT $most WITH collect(v) AS found, max(v.key) AS last \
         FOREACH (v IN [it IN found WHERE it.v <= $floor] | DELETE v) RETURN size(found) AS count, last",
    )
    .param("prefix", prefix(mapping))
    .param("after", after)
    .param("floor", signed(floor))
    .param("most", i64::from(BATCH));
    let rows = tx.rows(delete).await.map_err(failed("remove versions"))?;
    let Some(row) = rows.first() else { return Ok(None) };
    let count = unsigned(get(row, "count")?)?;
    if count < u64::from(BATCH) { Ok(None) } else { get(row, "last") }
}

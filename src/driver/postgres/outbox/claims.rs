//! Handing changes to a relay, and hearing what became of them.
//!
//! Invariants:
//! - What is claimed is what is there. There is no "behind the last version": transactions commit in another order than they draw
//!   versions, and such a cursor loses what comes late.
//! - A change stays in the outbox until it was applied, in a transaction that has checked the fence. A claim marks nothing: whoever has the
//!   fence says what it has in hand, and who comes after it has nothing.
//! - Of the changes of one key only the highest version is given, also where a claim ends before it: it might end within a client's
//!   transaction, and the new side would have what nobody ever committed. Those below it are gone. A change that was refused goes
//!   when a higher version of its key was applied.
//! - A claim is bounded by rows and by bytes ([`CLAIM_BYTES_MAX`]), whatever clients write.
//! - A refused change keeps no other key waiting.
//!
//! Absent on purpose: waiting. Changes are read, and not locked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::Resolved;
use super::tables::TABLE;
use crate::bounds::message::REASON_CHARS_MAX;
use crate::bounds::relay::CLAIM_BYTES_MAX;
use crate::driver::crossing::{Change, Unfit, What};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::connection::Tx;
use crate::driver::postgres::dual_write::finish;
use crate::driver::postgres::error::failed;
use crate::driver::postgres::ledger::{has_table, signed, unsigned};
use crate::driver::postgres::shape::id_of;
use crate::driver::postgres::source::by_index;
use crate::driver::{Error, Fence, TxKind};
use crate::run::{Mapping, MappingName};

/// Gives changes of some mappings, the lowest versions first: at most `most`, and none that is in hand.
pub(super) async fn claim(
    postgres: &Postgres,
    fence: &Fence,
    mappings: &[Mapping],
    wanted: (u32, &[u64]),
) -> Result<Vec<Change>, Error> {
    let mut tx = postgres.connections.begin(fence, TxKind::Claim).await?;
    let done = claim_in(&mut tx, mappings, wanted).await;
    let claimed = match done {
        Ok(claimed) => claimed,
        Err(error) if is_missing(&error) => {
            tx.roll_back().await;
            return Ok(Vec::new());
        }
        Err(error) => return Err(tx.give_up(error).await),
    };
    // What they are is read in the same transaction: a table that was changed meanwhile is given in the next claim.
    let read = read(postgres, &mut tx, (mappings, &claimed)).await;
    finish(tx, read).await
}

/// Takes changes away that were applied, and those that they make void: what was refused of the same key before, and all before
/// of a mapping that was emptied. Returns how many are gone by this; those that were gone already don't count.
pub(super) async fn applied(
    postgres: &Postgres,
    fence: &Fence,
    versions: &[u64],
) -> Result<u64, Error> {
    let mut tx = postgres.connections.begin(fence, TxKind::Relayed).await?;
    let done = applied_in(&mut tx, versions).await;
    finish(tx, done).await
}

/// Says why the new side refused a change. Returns whether it is parked now, having been refused `most_tries`
/// times: then it is claimed no more, until it is [`retried`](retry).
pub(super) async fn refused(
    postgres: &Postgres,
    fence: &Fence,
    version: u64,
    (said, most_tries): ((Option<&str>, &str), u32),
) -> Result<bool, Error> {
    let mut tx = postgres.connections.begin(fence, TxKind::Relayed).await?;
    let done = refused_in(&mut tx, version, said, most_tries).await;
    finish(tx, done).await
}

/// Has everything that is parked of a mapping claimed again. Returns how many changes that are.
pub(super) async fn retry(
    postgres: &Postgres,
    fence: &Fence,
    mapping: &Mapping,
) -> Result<u64, Error> {
    let mut tx = postgres.connections.begin(fence, TxKind::Relayed).await?;
    let sql = format!(
        "UPDATE {} SET parked = false, tries = 1 WHERE parked AND tries > 0 AND mapping = $1",
        tx.ours(TABLE)
    );
    let done = async {
        let done = sqlx::query(AssertSqlSafe(sql)).bind(id_of(mapping)).execute(tx.conn()?).await;
        done.map(|done| done.rows_affected()).map_err(failed("retry changes"))
    };
    let done = done.await;
    finish(tx, done).await
}

/// The ids of mappings.
pub(super) fn ids(mappings: &[Mapping]) -> Vec<String> {
    mappings.iter().map(id_of).collect()
}

/// Whether the outbox has just gone: nothing is captured, and all that was is applied.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Failed(failure) if matches!(failure.code.as_deref(), Some("42P01" | "3F000")))
}

/// What is in hand is asked for by a hashed subquery, which leaves the order of the index as it is.
fn claim_sql(outbox: &str) -> String {
    format!(
        "SELECT version, mapping, key, image, tries, bytes FROM (
           SELECT *, sum(bytes) OVER (ORDER BY version) - bytes AS before FROM (
             SELECT version, mapping, key, image, tries, bytes FROM {outbox}
             WHERE mapping = ANY ($1) AND NOT parked AND version NOT IN (SELECT unnest($3::bigint[]))
             ORDER BY version LIMIT $2) AS picked) AS summed
         WHERE before < $4 ORDER BY version"
    )
}

async fn claim_in(
    tx: &mut Tx<'_>,
    mappings: &[Mapping],
    (most, in_hand): (u32, &[u64]),
) -> Result<Vec<Claimed>, Error> {
    let outbox = tx.ours(TABLE);
    // Asked first, since the server writes down what it can't do: a relay comes here many times a second.
    if !has_table(tx.conn()?, &outbox).await? {
        return Ok(Vec::new());
    }
    let in_hand: Vec<i64> = in_hand.iter().map(|version| signed(*version)).collect();
    let rows = sqlx::query(AssertSqlSafe(claim_sql(&outbox)))
        .bind(ids(mappings))
        .bind(i64::from(most))
        .bind(&in_hand)
        .bind(signed(CLAIM_BYTES_MAX))
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed("claim changes"))?;
    let mut claimed: Vec<Claimed> = rows.iter().map(Claimed::of_row).collect::<Result<_, _>>()?;
    let bytes = claimed.iter().fold(0, |sum: i64, one| sum.saturating_add(one.bytes));
    let is_cut = claimed.len() as u64 >= u64::from(most) || bytes >= signed(CLAIM_BYTES_MAX);
    let mut highest: HashMap<(&str, &[String]), i64> = HashMap::with_capacity(claimed.len());
    for one in &claimed {
        highest.insert((&one.mapping, &one.key), one.version);
    }
    let is_void = |one: &&Claimed| {
        highest.get(&(one.mapping.as_str(), one.key.as_slice())) != Some(&one.version)
    };
    let void: Vec<i64> = claimed.iter().filter(is_void).map(|one| one.version).collect();
    if !void.is_empty() {
        let sql = format!("DELETE FROM {outbox} WHERE version = ANY ($1)");
        let done = sqlx::query(AssertSqlSafe(sql)).bind(&void).execute(tx.conn()?).await;
        done.map_err(failed("remove changes that are void"))?;
    }
    let void: HashSet<i64> = void.into_iter().collect();
    claimed.retain(|one| !void.contains(&one.version));
    if is_cut { behind(tx, claimed).await } else { Ok(claimed) }
}

/// The highest versions of claimed keys that are behind the claim, in place of theirs, and which of them fit in it. No index of versions is to be
/// used: there is one of keys.
fn behind_sql(outbox: &str) -> String {
    format!(
        "SELECT version, mapping, key, CASE WHEN before < $2 THEN image END, tries, bytes, picked, before < $2 FROM (
           SELECT h.*, p.version AS picked, sum(h.bytes) OVER (ORDER BY p.version) - h.bytes AS before FROM {outbox} AS p
           CROSS JOIN LATERAL (SELECT o.version, o.mapping, o.key, o.image, o.tries, o.bytes FROM {outbox} AS o
             WHERE o.mapping = p.mapping AND hash_array_extended(o.key, 0) = hash_array_extended(p.key, 0) AND o.key = p.key
               AND o.version + 0 > p.version AND NOT o.parked ORDER BY o.version + 0 DESC LIMIT 1) AS h
           WHERE p.version = ANY ($1) AND p.key <> '{{}}') AS behind"
    )
}

/// What was claimed up to somewhere, with the last that there is of each key in place of the last that was claimed. Where that is too much
/// for one claim, the key is left for the next.
async fn behind(tx: &mut Tx<'_>, claimed: Vec<Claimed>) -> Result<Vec<Claimed>, Error> {
    let outbox = tx.ours(TABLE);
    by_index(tx.conn()?).await?;
    let picked: Vec<i64> = claimed.iter().map(|one| one.version).collect();
    let rows = sqlx::query(AssertSqlSafe(behind_sql(&outbox)))
        .bind(&picked)
        .bind(signed(CLAIM_BYTES_MAX))
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed("claim changes"))?;
    let (mut newer, mut given) = (HashMap::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        let read = || Ok((row.try_get::<i64, _>(6)?, row.try_get::<bool, _>(7)?));
        let (picked, fits) = read().map_err(failed("read a change"))?;
        let one = Claimed::of_row(row)?;
        if fits {
            given.push(one.version);
        }
        newer.insert(picked, fits.then_some(one));
    }
    if !given.is_empty() {
        let sql = format!(
            "DELETE FROM {outbox} AS o USING {outbox} AS h WHERE h.version = ANY ($1) AND o.mapping = h.mapping
               AND hash_array_extended(o.key, 0) = hash_array_extended(h.key, 0) AND o.key = h.key
               AND o.version + 0 < h.version AND NOT o.parked"
        );
        let done = sqlx::query(AssertSqlSafe(sql)).bind(&given).execute(tx.conn()?).await;
        done.map_err(failed("remove changes that are void"))?;
    }
    let last = |one: Claimed| newer.remove(&one.version).unwrap_or(Some(one));
    let mut claimed: Vec<Claimed> = claimed.into_iter().filter_map(last).collect();
    claimed.sort_by_key(|one| one.version);
    Ok(claimed)
}

/// What claimed changes say.
async fn read(
    postgres: &Postgres,
    tx: &mut Tx<'_>,
    (mappings, claimed): (&[Mapping], &[Claimed]),
) -> Result<Vec<Change>, Error> {
    let mut known: HashMap<&str, Arc<Resolved>> = HashMap::new();
    for one in claimed {
        if known.contains_key(one.mapping.as_str()) {
            continue;
        }
        // What was claimed is of one of them.
        if let Some(mapping) = mappings.iter().find(|mapping| id_of(mapping) == one.mapping) {
            known.insert(&one.mapping, postgres.resolved(tx.conn()?, mapping).await?);
        }
    }
    claimed.iter().map(|one| one.read(known.get(one.mapping.as_str()).map(Arc::as_ref))).collect()
}

/// A row of the outbox.
struct Claimed {
    version: i64,
    mapping: String,
    key: Vec<String>,
    image: Option<Vec<Option<String>>>,
    tries: i32,
    bytes: i64,
}

impl Claimed {
    fn of_row(row: &PgRow) -> Result<Self, Error> {
        let read = || -> Result<Self, sqlx::Error> {
            Ok(Self {
                version: row.try_get(0)?,
                mapping: row.try_get(1)?,
                key: row.try_get(2)?,
                image: row.try_get(3)?,
                tries: row.try_get(4)?,
                bytes: row.try_get(5)?,
            })
        };
        read().map_err(failed("read a change"))
    }

    fn read(&self, of: Option<&Resolved>) -> Result<Change, Error> {
        let key: Vec<&str> = self.key.iter().map(String::as_str).collect();
        let what = match (of, &self.image) {
            _ if key.is_empty() => Ok(What::Emptied),
            (None, _) => {
                Err(Unfit { key: self.key.clone(), reason: "its mapping is gone".to_owned() })
            }
            (Some(of), None) => of.key(&key).map(What::Gone),
            (Some(of), Some(image)) => {
                let values: Vec<Option<&str>> = image.iter().map(Option::as_deref).collect();
                of.row(&key, &values).map(What::Is)
            }
        };
        Ok(Change {
            version: unsigned(self.version)?,
            mapping: of.map_or_else(
                || MappingName::new(self.mapping.as_str()),
                |of| of.captured.name.clone(),
            ),
            what: what.unwrap_or_else(What::Unfit),
            tries: u32::try_from(self.tries).unwrap_or_default(),
        })
    }
}

/// What somebody else is taking away at this moment is passed over: workers that finish at the same time would wait for each other. Should
/// that one give up, it is given again, which does no harm.
async fn applied_in(tx: &mut Tx<'_>, versions: &[u64]) -> Result<u64, Error> {
    let outbox = tx.ours(TABLE);
    let versions: Vec<i64> = versions.iter().map(|version| signed(*version)).collect();
    let mut gone = 0;
    for rows in [
        // A mapping that was emptied, and everything before.
        format!(
            "SELECT o.ctid FROM {outbox} AS o JOIN (SELECT mapping, max(version) AS version FROM {outbox}
               WHERE version = ANY ($1) AND key = '{{}}' GROUP BY mapping) AS d
             ON o.mapping = d.mapping AND o.version <= d.version"
        ),
        // What was refused of the same keys. These are few, and have an index of their own.
        format!(
            "SELECT o.ctid FROM {outbox} AS o JOIN (SELECT mapping, key, version FROM {outbox} WHERE version = ANY ($1)) AS d
             ON o.tries > 0 AND o.mapping = d.mapping AND hash_array_extended(o.key, 0) = hash_array_extended(d.key, 0)
               AND o.key = d.key AND o.version < d.version"
        ),
        format!("SELECT o.ctid FROM {outbox} AS o WHERE version = ANY ($1)"),
    ] {
        let sql = format!(
            "DELETE FROM {outbox} WHERE ctid = ANY (ARRAY({rows} FOR UPDATE OF o SKIP LOCKED))"
        );
        let done = sqlx::query(AssertSqlSafe(sql)).bind(&versions).execute(tx.conn()?).await;
        gone += done.map_err(failed("remove changes that were applied"))?.rows_affected();
    }
    Ok(gone)
}

async fn refused_in(
    tx: &mut Tx<'_>,
    version: u64,
    (code, reason): (Option<&str>, &str),
    most_tries: u32,
) -> Result<bool, Error> {
    let sql = format!(
        "UPDATE {} SET tries = tries + 1, parked = tries + 1 >= $2, code = $3, reason = left($4, {REASON_CHARS_MAX}),
           refused_at = clock_timestamp() WHERE version = $1 RETURNING parked",
        tx.ours(TABLE)
    );
    // A text of PostgreSQL holds no NUL.
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(signed(version))
        .bind(i64::from(most_tries))
        .bind(code.map(|code| code.replace('\0', "")))
        .bind(reason.replace('\0', ""))
        .fetch_optional(tx.conn()?)
        .await
        .map_err(failed("note a refused change"))?;
    let parked =
        row.map(|row| row.try_get(0)).transpose().map_err(failed("note a refused change"))?;
    Ok(parked.unwrap_or(false))
}

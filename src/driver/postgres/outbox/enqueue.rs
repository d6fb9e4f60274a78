//! Changes for keys that nobody has changed: for what a comparison found to be different.
//!
//! What is drawn here must be in order with what clients' triggers draw: an image of a higher version than theirs may not be older
//! than their row.
//! - A key that has a row is locked first, and read behind the lock: nobody draws a version of it meanwhile, and all versions drawn
//!   before are of transactions that are over.
//! - A key without a row can't be locked, and a client may be making one at this moment, whose version is drawn and whose row nobody
//!   sees. So the version is drawn first, then all who may have drawn a lower one are waited for (as `lag` tells), and then the
//!   row is looked for. Who draws afterwards wins anyway.

use std::collections::HashSet;

use sqlx::AssertSqlSafe;
use sqlx::Row as _;

use super::Resolved;
use super::lag::{are_over, writers};
use super::pages::pin;
use super::tables::{SEQUENCE, TABLE};
use crate::bounds::relay::{WRITERS_LOOK_EVERY, WRITERS_WITHIN_MS};
use crate::clock::Stopwatch;
use crate::copy::chunk::{Cell, Key};
use crate::copy::row::Datum;
use crate::driver::postgres::Postgres;
use crate::driver::postgres::catalogue::literal;
use crate::driver::postgres::cells::bind_keys;
use crate::driver::postgres::connection::Tx;
use crate::driver::postgres::dual_write::{finish, run};
use crate::driver::postgres::error::{failed, refused};
use crate::driver::postgres::shape_sql::{Pick, Which, all};
use crate::driver::{Error, Fence, TxKind};
use crate::run::{FailureClass, Mapping};

/// Enters a change for each of some keys, as its row is now. Keys that no row can have are left out: nothing on this side says what
/// they are. Returns how many were entered. [`FailureClass::Contention`] where clients have keys of them in hand: then some may
/// have been entered, and all can be entered again.
pub(super) async fn enqueue(
    postgres: &Postgres,
    fence: &Fence,
    (mapping, keys): (&Mapping, &[Vec<Datum>]),
) -> Result<u64, Error> {
    let mut tx = postgres.connections.begin(fence, TxKind::Repair).await?;
    let of = match postgres.resolved(tx.conn()?, mapping).await {
        Ok(of) => of,
        Err(error) => return Err(tx.give_up(error).await),
    };
    let (asked, wanted) = of.asked(keys);
    if asked.is_empty() {
        tx.roll_back().await;
        return Ok(0);
    }
    let done = of_rows(&mut tx, &of, (&asked, &wanted)).await;
    let there = finish(tx, done).await?;
    let absent: Vec<Key> = asked.into_iter().filter(|key| !there.contains(&texts(key))).collect();
    if !absent.is_empty() {
        let mut tx = postgres.connections.begin(fence, TxKind::Repair).await?;
        let done = of_none(&mut tx, &of, &absent).await;
        finish(tx, done).await?;
    }
    Ok((there.len() + absent.len()) as u64)
}

fn texts(key: &Key) -> Vec<String> {
    let text = |cell: &Cell| if let Cell::Text(text) = cell { text.clone() } else { String::new() };
    key.0.iter().map(text).collect()
}

/// Keys that have rows. Returns which those are.
async fn of_rows(
    tx: &mut Tx<'_>,
    of: &Resolved,
    (asked, wanted): (&[Key], &HashSet<Vec<String>>),
) -> Result<HashSet<Vec<String>>, Error> {
    pin(tx.conn()?).await?;
    let (shape, pick) = (of.shape(), Pick::Keys(asked));
    let sql = format!(
        "SELECT {} FROM {} WHERE {} ORDER BY {} FOR NO KEY UPDATE",
        of.key_list(),
        shape.old.sql(),
        pick.sql(shape, Which::Old),
        shape.key_names(Which::Old).join(", "),
    );
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)), shape);
    let rows = query.fetch_all(tx.conn()?).await.map_err(|error| refused(&error))?;
    let mut there = HashSet::with_capacity(rows.len());
    for row in &rows {
        let key = of.key_in(row)?;
        // Where equal keys may differ as texts, another one was found.
        if wanted.contains(&key) {
            there.insert(key);
        }
    }
    let keys: Vec<Key> =
        there.iter().map(|key| Key(key.iter().cloned().map(Cell::Text).collect())).collect();
    enter(tx, of, (&keys, None)).await?;
    Ok(there)
}

/// Keys that have none, as far as can be seen.
async fn of_none(tx: &mut Tx<'_>, of: &Resolved, keys: &[Key]) -> Result<(), Error> {
    pin(tx.conn()?).await?;
    let (outbox, sequence) = (tx.ours(TABLE), tx.ours(SEQUENCE));
    // One at a time, or two would wait for each other; and from before a version is drawn with the lock by which it is known that
    // one may have been.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("phasegate: versions of {outbox}"))
        .execute(tx.conn()?)
        .await
        .map_err(failed("wait for others who enter changes"))?;
    let lock = format!("LOCK TABLE {outbox} IN ROW EXCLUSIVE MODE");
    run(tx.conn()?, "lock the outbox", lock).await?;
    let sql =
        format!("SELECT nextval({}::regclass) FROM generate_series(1, $1)", literal(&sequence));
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(i64::try_from(keys.len()).unwrap_or(i64::MAX))
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed("draw versions"))?;
    let versions: Vec<i64> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()
        .map_err(failed("draw versions"))?;
    let open = writers(tx.conn()?, &outbox).await?;
    let watch = Stopwatch::start();
    while !are_over(tx.conn()?, &outbox, &open).await? {
        if watch.elapsed_ms() >= WRITERS_WITHIN_MS {
            let message = format!("transactions that write to {} did not end", of.captured.table);
            return Err(Error::failed(FailureClass::Contention, message));
        }
        tokio::time::sleep(WRITERS_LOOK_EVERY).await;
    }
    enter(tx, of, (keys, Some(versions))).await
}

/// Enters keys as their rows are now, under the versions that were drawn, or under new ones.
async fn enter(
    tx: &mut Tx<'_>,
    of: &Resolved,
    (keys, versions): (&[Key], Option<Vec<i64>>),
) -> Result<(), Error> {
    let (outbox, shape) = (tx.ours(TABLE), of.shape());
    let width = shape.keys.len();
    let places: Vec<String> = (0..width).map(|at| format!("u{at}")).collect();
    let mut is_it = Vec::new();
    for (at, (name, pair)) in shape.key_names(Which::Old).iter().zip(&shape.keys).enumerate() {
        is_it.push(format!("{name} = phasegate_u.u{at}::{}", pair.bound_sql()));
        if of.is_loose(at) {
            is_it.push(format!("{name}::text COLLATE \"C\" = phasegate_u.u{at} COLLATE \"C\""));
        }
    }
    let arrays: Vec<String> = (1..=width).map(|at| format!("${at}::text[]")).collect();
    let sequence = literal(&tx.ours(SEQUENCE));
    let (version, arrays, names) = match versions {
        Some(_) => (
            "phasegate_i.v".to_owned(),
            format!("{}, ${}::bigint[]", arrays.join(", "), width + 1),
            format!("{}, v", places.join(", ")),
        ),
        None => (format!("nextval({sequence}::regclass)"), arrays.join(", "), places.join(", ")),
    };
    let v = if versions.is_some() { ", phasegate_u.v" } else { "" };
    let sql = format!(
        "INSERT INTO {outbox} (version, mapping, key, image, bytes)
         SELECT {version}, {id}, phasegate_i.key, phasegate_i.image, coalesce(pg_column_size(phasegate_i.image), 0)
         FROM (SELECT ARRAY[{key}]::text[] AS key, (SELECT {image} FROM {table} WHERE {is_it}{filter}) AS image{v}
               FROM unnest({arrays}) AS phasegate_u ({names}) OFFSET 0) AS phasegate_i",
        id = literal(&of.captured.id),
        key = places.iter().map(|place| format!("phasegate_u.{place}")).collect::<Vec<_>>().join(", "),
        image = of.image(),
        table = shape.old.sql(),
        is_it = all(&is_it),
        filter = shape.filter_sql(Which::Old),
    );
    let mut query = bind_keys(sqlx::query(AssertSqlSafe(sql)), keys, width);
    if let Some(versions) = versions {
        query = query.bind(versions);
    }
    query.execute(tx.conn()?).await.map(|_| ()).map_err(|error| refused(&error))
}

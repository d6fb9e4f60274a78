//! Rows of some keys, and whether more is to come of them, in one moment.
//!
//! Why one moment, and which: a comparison that finds a difference takes it for one where no change of its key waits. A client's row
//! and its change are committed together, so in every snapshot there are both or neither; two statements at READ COMMITTED would see a
//! row from behind a commit and an outbox from before it. TRUNCATE doesn't mind snapshots: one from before would see an empty
//! table and no change that says so. So the table is locked against it before the snapshot is taken.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, Row as _};

use super::Resolved;
use super::pages::{pin, read_rows};
use super::tables::TABLE;
use crate::copy::row::Datum;
use crate::driver::Error;
use crate::driver::crossing::Settled;
use crate::driver::postgres::Postgres;
use crate::driver::postgres::cells::bind_keys;
use crate::driver::postgres::connection::Reader;
use crate::driver::postgres::error::failed;
use crate::driver::postgres::ledger::has_table;
use crate::driver::postgres::shape_sql::Pick;
use crate::run::Mapping;

/// The rows of some keys, and which of these have changes that are not applied. Keys without a row are left out, and keys that no row
/// can have have no change.
pub(super) async fn rows_of(
    postgres: &Postgres,
    mapping: &Mapping,
    keys: &[Vec<Datum>],
) -> Result<Settled, Error> {
    let mut reader = postgres.connections.snapshot_of(&[&mapping.from.table]).await?;
    let of = postgres.resolved(reader.conn()?, mapping).await?;
    let open = open(&mut reader, &of, keys).await?;
    fail::fail_point!("postgres::settled::between-looks");
    let (asked, mut wanted) = of.asked(keys);
    pin(reader.conn()?).await?;
    let mut page = read_rows(reader.conn()?, &of, (&Pick::Keys(&asked), "")).await?;
    reader.release().await;
    // Where equal keys may differ as texts, rows of others were found as well, and some by several keys.
    page.rows.retain(|row| of.key_texts(&row.key).is_some_and(|key| wanted.remove(&key)));
    page.unfit.retain(|unfit| wanted.remove(&unfit.key));
    let is_open = |key: &Vec<Datum>| {
        of.key_texts(key).is_some_and(|key| open.all || open.keys.contains(&key))
    };
    Ok(Settled { page, is_open: keys.iter().map(is_open).collect() })
}

/// What the outbox holds of a mapping.
struct Open {
    /// Changes of some keys.
    keys: HashSet<Vec<String>>,
    /// A change that is about all rows.
    all: bool,
}

async fn open(reader: &mut Reader<'_>, of: &Resolved, keys: &[Vec<Datum>]) -> Result<Open, Error> {
    let outbox = reader.ours(TABLE);
    let (asked, _) = of.asked(keys);
    if asked.is_empty() || !has_table(reader.conn()?, &outbox).await? {
        return Ok(Open { keys: HashSet::new(), all: false });
    }
    let width = of.keys.len();
    let list = |item: fn(usize) -> String| (1..=width).map(item).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT DISTINCT o.key FROM {outbox} AS o JOIN (SELECT ARRAY[{places}] AS key FROM unnest({arrays}) AS phasegate_u ({places})
             UNION ALL SELECT '{{}}') AS u
           ON hash_array_extended(o.key, 0) = hash_array_extended(u.key, 0) AND o.key = u.key
         WHERE o.mapping = ${}",
        width + 1,
        places = list(|at| format!("u{at}")),
        arrays = list(|at| format!("${at}::text[]")),
    );
    let rows = bind_keys(sqlx::query(AssertSqlSafe(sql)), &asked, width)
        .bind(&of.captured.id)
        .fetch_all(reader.conn()?)
        .await
        .map_err(failed("look for changes"))?;
    let keys: HashSet<Vec<String>> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()
        .map_err(failed("look for changes"))?;
    let all = keys.contains(&Vec::new());
    Ok(Open { keys, all })
}

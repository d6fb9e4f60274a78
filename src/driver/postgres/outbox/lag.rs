//! How far the new side is behind, and whether it has everything that was written before a moment.
//!
//! Why [`Moment`] is sound, though versions are committed in any order: a version is drawn by the statement that inserts its change
//! (see `capture_sql`), so that whoever has drawn one holds a lock on the outbox from before that until its transaction ends. The
//! moment is made of two looks, one after the other: the last version that was drawn, then who holds such a lock. Of a version up to
//! that one the transaction had drawn before the second look: it was over, or is among those. So when none of those holds
//! on any more, all versions up to that one are committed or will never be, and one look that finds none of them in the outbox says that
//! all were applied. Transactions elsewhere, however old, have no say in it.
//!
//! Absent on purpose: what the new side has in fact, which a comparison tells.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::claims::{ids, is_missing};
use super::tables::{SEQUENCE, TABLE};
use crate::bounds::relay::{COUNTED_FOR_THROTTLE_MAX, COUNTED_MAX};
use crate::copy::throttle::Part;
use crate::driver::Error;
use crate::driver::crossing::{Lag, Moment};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::error::failed;
use crate::driver::postgres::ledger::{has_table, signed, unsigned};
use crate::run::{Gauge, Mapping};

/// How far the new side is behind in some mappings.
pub(super) async fn lag(postgres: &Postgres, mappings: &[Mapping]) -> Result<Lag, Error> {
    let outbox = postgres.connections.ours(TABLE);
    let mut reader = postgres.connections.read().await?;
    if !has_table(reader.conn()?, &outbox).await? {
        reader.release().await;
        return Ok(Lag::default());
    }
    let sql = format!(
        "SELECT count(*), CASE WHEN count(*) > 0 THEN greatest(0, extract(epoch FROM clock_timestamp() - min(written_at)) * 1000)::bigint END,
           coalesce(sum(bytes), 0)::bigint,
           (SELECT count(*) FROM {outbox} WHERE mapping = ANY ($1) AND parked AND tries > 0),
           (SELECT concat_ws(': ', code, reason) FROM {outbox} WHERE mapping = ANY ($1) AND tries > 0
            ORDER BY refused_at DESC, version DESC LIMIT 1),
           (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass($2))
         FROM (SELECT version, written_at, bytes FROM {outbox} WHERE mapping = ANY ($1) ORDER BY version LIMIT {}) AS counted",
        COUNTED_MAX + 1
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(ids(mappings)).bind(&outbox);
    let row = match query.fetch_one(reader.conn()?).await.map_err(failed("ask for the lag")) {
        Err(error) if is_missing(&error) => return Ok(Lag::default()),
        other => other?,
    };
    reader.release().await;
    let count = |at: usize| unsigned(row.try_get(at).map_err(failed("ask for the lag"))?);
    let oldest: Option<i64> = row.try_get(1).map_err(failed("ask for the lag"))?;
    let (counted, bytes) = (count(0)?, count(2)?);
    let is_more = counted > COUNTED_MAX;
    // Beyond what is counted as many as the server itself counted last in the whole outbox, of which some may be others'; as large as
    // those. Versions don't tell: they leave gaps.
    let rows = if is_more { count(5)?.max(counted) } else { counted };
    let bytes = if is_more { bytes / counted * rows } else { bytes };
    Ok(Lag {
        rows,
        is_more,
        oldest_ms: oldest.map(unsigned).transpose()?,
        bytes,
        parked: count(3)?,
        last_error: row.try_get(4).map_err(failed("ask for the lag"))?,
    })
}

/// What a throttle asks of the whole outbox: how long the change of the lowest version waits that isn't parked, or how many changes there
/// are. Nothing where there is no outbox. `schema` is our own, quoted.
///
/// Of changes in the order of versions the first is the oldest, but for what was committed late: by so much it is older.
pub(in crate::driver::postgres) async fn waiting(
    conn: &mut PgConnection,
    schema: &str,
    gauge: Gauge,
) -> Result<Vec<Part>, Error> {
    let outbox = format!("{schema}.{TABLE}");
    if !has_table(conn, &outbox).await? {
        return Ok(Vec::new());
    }
    let sql = if gauge == Gauge::RelayRows {
        format!(
            "SELECT count(*)::float8 FROM (SELECT 1 FROM {outbox} LIMIT {COUNTED_FOR_THROTTLE_MAX}) AS counted"
        )
    } else {
        format!(
            "SELECT coalesce(greatest(0, extract(epoch FROM clock_timestamp() - (SELECT written_at FROM {outbox}
               WHERE NOT parked ORDER BY version LIMIT 1)) * 1000), 0)::float8"
        )
    };
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
    let value = row.and_then(|row| row.try_get(0)).map_err(failed("ask how much is behind"))?;
    Ok(vec![Part { of: None, value: Some(value) }])
}

/// This moment. Where there is no outbox, nothing was written.
pub(super) async fn moment(postgres: &Postgres) -> Result<Moment, Error> {
    let outbox = postgres.connections.ours(TABLE);
    let mut reader = postgres.connections.read().await?;
    if !has_table(reader.conn()?, &outbox).await? {
        reader.release().await;
        return Ok(Moment { version: 0, open: Vec::new() });
    }
    let sql = format!("SELECT last_value FROM {}", postgres.connections.ours(SEQUENCE));
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(reader.conn()?).await;
    let version = row.and_then(|row| row.try_get(0)).map_err(failed("read the last version"))?;
    // After that, and not before.
    let open = writers(reader.conn()?, &outbox).await?;
    reader.release().await;
    Ok(Moment { version: unsigned(version)?, open })
}

/// Whether all changes of some mappings that had been written at a moment are applied; those that are parked are not.
pub(super) async fn is_drained(
    postgres: &Postgres,
    moment: &Moment,
    mappings: &[Mapping],
) -> Result<bool, Error> {
    none_left(postgres, moment, (mappings, "")).await
}

/// Whether they are applied or parked.
pub(super) async fn is_carried(
    postgres: &Postgres,
    moment: &Moment,
    mappings: &[Mapping],
) -> Result<bool, Error> {
    none_left(postgres, moment, (mappings, " AND NOT parked")).await
}

async fn none_left(
    postgres: &Postgres,
    moment: &Moment,
    (mappings, which): (&[Mapping], &str),
) -> Result<bool, Error> {
    let outbox = postgres.connections.ours(TABLE);
    let mut reader = postgres.connections.read().await?;
    if !has_table(reader.conn()?, &outbox).await? {
        reader.release().await;
        return Ok(true);
    }
    let are_over = are_over(reader.conn()?, &outbox, &moment.open).await?;
    // A statement of its own, behind the first: it sees what they have committed.
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {outbox} WHERE version <= $1 AND mapping = ANY ($2){which})"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(signed(moment.version))
        .bind(ids(mappings))
        .fetch_one(reader.conn()?)
        .await;
    let is_left: bool = row.and_then(|row| row.try_get(0)).map_err(failed("look for changes"))?;
    reader.release().await;
    Ok(are_over && !is_left)
}

/// The transactions, prepared ones included, that hold the lock of who writes to the outbox. Ours doesn't count.
pub(super) async fn writers(conn: &mut PgConnection, outbox: &str) -> Result<Vec<String>, Error> {
    let row = sqlx::query(
        "SELECT coalesce(array_agg(DISTINCT virtualtransaction), '{}') FROM pg_locks
         WHERE locktype = 'relation' AND relation = to_regclass($1)::oid AND mode = 'RowExclusiveLock' AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND pid IS DISTINCT FROM pg_backend_pid()",
    )
    .bind(outbox)
    .fetch_one(conn)
    .await;
    row.and_then(|row| row.try_get(0)).map_err(failed("look for open transactions"))
}

/// Whether none of these transactions writes any more.
pub(super) async fn are_over(
    conn: &mut PgConnection,
    outbox: &str,
    open: &[String],
) -> Result<bool, Error> {
    if open.is_empty() {
        return Ok(true);
    }
    let now = writers(conn, outbox).await?;
    Ok(!open.iter().any(|one| now.contains(one)))
}

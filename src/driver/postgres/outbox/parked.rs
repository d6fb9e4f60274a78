//! Changes that the new side has refused as often as it may, for people.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::claims::is_missing;
use super::tables::TABLE;
use crate::driver::Error;
use crate::driver::postgres::Postgres;
use crate::driver::postgres::error::failed;
use crate::driver::postgres::ledger::{has_table, unsigned};
use crate::driver::postgres::shape::id_of;
use crate::run::{Mapping, Parked, ParkedRow};

const DOING: &str = "read parked changes";

/// The parked changes of a mapping, the first of them listed. The key of one that is about the whole table is empty.
pub(super) async fn parked(
    postgres: &Postgres,
    mapping: &Mapping,
    most: u32,
) -> Result<Parked, Error> {
    let outbox = postgres.connections.ours(TABLE);
    let mut reader = postgres.connections.snapshot().await?;
    if !has_table(reader.conn()?, &outbox).await? {
        reader.release().await;
        return Ok(Parked::default());
    }
    let sql = format!(
        "SELECT key, code, coalesce(reason, ''),
           to_char(coalesce(refused_at, written_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), count(*) OVER ()
         FROM {outbox} WHERE mapping = $1 AND parked AND tries > 0 ORDER BY version LIMIT $2"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(id_of(mapping))
        // One at least, which says how many there are.
        .bind(i64::from(most.max(1)))
        .fetch_all(reader.conn()?)
        .await;
    let rows = match rows.map_err(failed(DOING)) {
        Err(error) if is_missing(&error) => return Ok(Parked::default()),
        other => other?,
    };
    reader.release().await;
    let total: i64 = rows.first().map_or(Ok(0), |row| row.try_get(4)).map_err(failed(DOING))?;
    let listed = rows.iter().take(most as usize);
    let rows = listed.map(|row| shown(row, mapping)).collect::<Result<_, _>>();
    Ok(Parked { total: unsigned(total)?, rows: rows.map_err(failed(DOING))? })
}

fn shown(row: &PgRow, mapping: &Mapping) -> Result<ParkedRow, sqlx::Error> {
    let key: Vec<String> = row.try_get(0)?;
    Ok(ParkedRow {
        key: mapping.from.key.iter().cloned().zip(key).collect(),
        code: row.try_get(1)?,
        reason: row.try_get(2)?,
        since: row.try_get(3)?,
    })
}

//! Somebody who writes what only the new table has: a label for each of some copies.
//!
//! The twin of the row is given the same label in the same transaction. Whatever becomes of the row from then on, and of its key, the
//! label stays with it, and goes with it: a copy that were deleted and made again, or taken for another row's, would have lost it, or
//! have one that it should not have.
//!
//! A copy is labelled whose key isn't noted: until it is put right, nobody but the notes can tell whose it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::client::Shared;
use super::scene::OWN;
use crate::examples::database::{block_on, connect};
use crate::oracle::Random;
use crate::oracle::talk::text;

/// Where keys are noted; there is none before the sync is.
const NOTES: &str = "\
SELECT oid::regclass::text FROM pg_class WHERE relname LIKE 'touched\\_%' AND relkind = 'r' \
AND relnamespace = to_regnamespace('phasegate')";

/// The rows of customers that have a label, and those of the twin.
pub fn labelled() -> (String, String) {
    let of = |table: &str| format!("SELECT id, own FROM {table} WHERE own IS NOT NULL");
    (of("customers"), of("twin"))
}

/// How many live on under another key.
pub const CARRIED: &str = "SELECT count(*) FROM customers WHERE own NOT LIKE 'of ' || id || ' %'";

/// Labels copies until clients stop or names change; how many.
pub fn label(url: String, shared: Arc<Shared>, keys: u64, mut random: Random) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        block_on(async {
            let mut conn = connect(&url).await.unwrap();
            let mut labels = 0;
            while !shared.stop.load(Ordering::SeqCst) && !shared.retires.load(Ordering::SeqCst) {
                // Clients are where the copy is.
                let aim = shared.aim.load(Ordering::SeqCst);
                let from = match random.below(2) {
                    0 if aim > 0 => aim.saturating_sub(random.below(600)),
                    _ => random.below(keys),
                };
                let labelled = one(&mut conn, from, labels).await.unwrap_or(false);
                sqlx::raw_sql(if labelled { "COMMIT" } else { "ROLLBACK" })
                    .execute(&mut conn)
                    .await
                    .unwrap();
                labels += u64::from(labelled);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            labels
        })
    })
}

/// Labels the first copy from a key on. What it would have to wait for long it leaves, so that nobody waits for it in a circle.
async fn one(conn: &mut PgConnection, from: u64, number: u64) -> Result<bool, sqlx::Error> {
    sqlx::raw_sql("BEGIN; SET LOCAL lock_timeout = '40ms'").execute(&mut *conn).await?;
    let Some(notes) = sqlx::raw_sql(NOTES).fetch_optional(&mut *conn).await? else {
        return Ok(false);
    };
    let notes = text(&notes, 0);
    let first =
        format!("SELECT id FROM customers WHERE id >= {from} AND id < {OWN} ORDER BY id LIMIT 1");
    let Some(row) = sqlx::raw_sql(AssertSqlSafe(first)).fetch_optional(&mut *conn).await? else {
        return Ok(false);
    };
    let key = text(&row, 0);
    let own = format!("of {key} {number}");
    // Whoever changes the row, in whatever view, meets this in the table first, as every change.
    for sql in [
        format!("UPDATE customers SET name = name WHERE id = {key}"),
        format!(
            "UPDATE customers_v2 SET own = '{own}' WHERE id = {key} AND own IS NULL \
             AND NOT EXISTS (SELECT 1 FROM {notes} WHERE k1 = {key} OR j1 = {key})"
        ),
        format!("UPDATE twin SET own = '{own}' WHERE id = {key} AND own IS NULL"),
    ] {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

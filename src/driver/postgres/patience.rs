//! How long a transaction that has locked clients' rows waits for more of them, all its waits together.
//!
//! The server looks for deadlocks for whoever has waited for `deadlock_timeout`, once, and ends that one's statement if it finds
//! any. Each wait of ours is shorter; but while we go from one busy row to the next, a client who holds the last of them may have
//! been waiting for our first one just that long when we come to it. So it is from the first lock on that time counts: a
//! statement that locks rows is ended before it may have come to that, and what comes behind it has so much less.
//!
//! Invariants:
//! - What ran out of patience is undone, and says so as contention: it is tried again, with fewer rows where its caller can.
//! - What needs longer than that for its own work is done all the same, in a transaction that hardly waits for anybody.
//!
//! Absent on purpose: the waits of `park`, whose rows are few, and looks for a row that can't be copied, which are rare.

use sqlx::postgres::PgConnection;

use super::connection::Tx;
use super::error::failed;
use crate::bounds::postgres::SHORT_LOCK_MS;
use crate::driver::Error;
use crate::run::{Failure, FailureClass};

/// For how long rows may be waited for in all, in milliseconds, where the server looks for deadlocks after `deadlock_ms`.
pub(super) const fn all_ms(deadlock_ms: u64) -> u64 {
    let ms = deadlock_ms * 3 / 4;
    if ms == 0 { 1 } else { ms }
}

/// What is left when `$1` milliseconds are gone, for each of the statements behind.
const SPENT: &str = "\
WITH b AS MATERIALIZED (SELECT (extract(epoch FROM current_setting('statement_timeout')::interval) * 1000)::bigint AS ms)
SELECT set_config('statement_timeout', greatest(1, b.ms - $1)::text, true) FROM b WHERE b.ms > 0";

/// Rows are locked: what is left of the time is for a few waits, however long the work takes. `$1` is the shortest wait.
const HAD: &str = "\
WITH b AS MATERIALIZED (SELECT (extract(epoch FROM current_setting('statement_timeout')::interval) * 1000)::bigint AS ms,
                               (extract(epoch FROM current_setting('lock_timeout')::interval) * 1000)::bigint AS lock_ms)
SELECT set_config('lock_timeout', greatest($1, least(b.lock_ms, b.ms / 4))::text, true), set_config('statement_timeout', '0', true)
FROM b WHERE b.ms > 0";

/// From now on statements that lock rows are ended when they have taken too long.
pub(super) async fn begin(tx: &mut Tx<'_>) -> Result<(), Error> {
    let ms = all_ms(tx.deadlock_ms());
    bound(tx, "statement_timeout", ms).await
}

/// From now on hardly anybody is waited for: what is locked may be so many rows that no bound over all of them is kept.
pub(super) async fn hardly(tx: &mut Tx<'_>) -> Result<(), Error> {
    bound(tx, "lock_timeout", SHORT_LOCK_MS).await
}

async fn bound(tx: &mut Tx<'_>, setting: &str, ms: u64) -> Result<(), Error> {
    sqlx::query("SELECT set_config($1, $2, true)")
        .bind(setting)
        .bind(ms.to_string())
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("bound the wait for locks"))
}

/// A statement that locks rows took so long. Nothing where there is no bound.
pub(super) async fn spent(conn: &mut PgConnection, ms: u64) -> Result<(), sqlx::Error> {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    sqlx::query(SPENT).bind(ms).execute(conn).await.map(|_| ())
}

/// All rows that are to be written are locked. Nothing where there is no bound.
pub(super) async fn had(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let ms = i64::try_from(SHORT_LOCK_MS).unwrap_or(i64::MAX);
    sqlx::query(HAD).bind(ms).execute(conn).await.map(|_| ())
}

/// Whether an error of a statement that was bounded says that it ran out of time.
pub(super) fn is_out(error: &Error) -> bool {
    matches!(error, Error::Failed(failure) if failure.code.as_deref() == Some("57014"))
}

/// The error of such a statement: clients were in the way.
pub(super) fn yielded(error: Error) -> Error {
    match error {
        Error::Failed(failure) if failure.code.as_deref() == Some("57014") => {
            Error::Failed(Failure {
                class: FailureClass::Contention,
                message: "clients held rows, one after the other, for as long as we may wait"
                    .to_owned(),
                help: Some("it is tried again".to_owned()),
                ..failure
            })
        }
        other => other,
    }
}

//! Strong locks on clients' tables.
//!
//! Of several tables no order is safe: clients of the old shape come from the old table to the new one, and clients of the new shape
//! the other way round. While we hold the one and wait for the other, somebody who holds the other may be waiting for the one. So
//! none is waited for as long as the server takes to look for deadlocks: we yield, and not a client. Where clients are many
//! that takes many tries, and each of them holds clients up; so they are short, with rests in between in which nothing is held.
//!
//! Absent on purpose: longer patience, which is the engine's: each of its attempts is in the journal.

use std::time::Duration;

use super::connection::Tx;
use super::dual_write::run;
use super::error::failed;
use crate::clock::Stopwatch;
use crate::driver::Error;
use crate::run::FailureClass;

/// How long each of several locks is waited for, in milliseconds.
const EACH_MS: u64 = 150;
/// How long all of them are waited for in one try: whoever comes the other way round may have queued up behind us since the first,
/// and the server takes a second until it looks for deadlocks.
const ALL_MS: u64 = 750;
/// For how long several locks are tried for in one transaction, in milliseconds.
const TRIED_FOR_MS: u64 = 3_000;
/// The rests between, in milliseconds: no two alike, so that they don't fall in step with clients.
const RESTS_MS: [u64; 5] = [20, 70, 40, 110, 30];
/// How long further locks of the same transaction are waited for, in milliseconds.
const FURTHER_MS: u64 = 300;

/// Takes locks, all or none: one with the patience that the transaction has, several with short tries.
pub(super) async fn lock_all(tx: &mut Tx<'_>, statements: &[String]) -> Result<(), Error> {
    if statements.len() > 1 {
        send_vacuum_away(tx, statements).await?;
    }
    tx.locks_clients_out();
    if let [statement] = statements {
        run(tx.conn()?, "lock the table", statement.clone()).await?;
        return bound_wait(tx, FURTHER_MS).await;
    }
    let each_ms = ALL_MS / u64::try_from(statements.len()).unwrap_or(ALL_MS).max(1);
    bound_wait(tx, each_ms.min(EACH_MS)).await?;
    let watch = Stopwatch::start();
    let mut rests = RESTS_MS.iter().cycle();
    loop {
        say(tx, "SAVEPOINT phasegate_locks").await?;
        match lock_once(tx, statements).await {
            Ok(()) => break,
            Err(Error::Failed(failure))
                if failure.class == FailureClass::Contention
                    && watch.elapsed_ms() < TRIED_FOR_MS =>
            {
                say(tx, "ROLLBACK TO SAVEPOINT phasegate_locks").await?;
                let rest = rests.next().copied().unwrap_or(EACH_MS);
                tokio::time::sleep(Duration::from_millis(rest)).await;
            }
            Err(error) => return Err(error),
        }
    }
    bound_wait(tx, FURTHER_MS).await
}

/// Waits for vacuums, and keeps them away from then on. The server ends one of its own only for whoever waits for longer than
/// it takes to look for deadlocks, which a short try never does; a large table's takes hours. This lock lets reads and writes
/// through, also while it is waited for, so here the transaction's whole patience holds up nobody.
async fn send_vacuum_away(tx: &mut Tx<'_>, statements: &[String]) -> Result<(), Error> {
    for statement in statements {
        let table = statement.strip_prefix("LOCK TABLE ").and_then(|it| it.rsplit_once(" IN "));
        if let Some((table, _)) = table {
            let lock = format!("LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE");
            run(tx.conn()?, "lock the tables", lock).await?;
        }
    }
    Ok(())
}

async fn lock_once(tx: &mut Tx<'_>, statements: &[String]) -> Result<(), Error> {
    for statement in statements {
        run(tx.conn()?, "lock the tables", statement.clone()).await?;
    }
    Ok(())
}

async fn say(tx: &mut Tx<'_>, words: &str) -> Result<(), Error> {
    run(tx.conn()?, "lock the tables", words.to_owned()).await.map(|_| ())
}

/// Waits for locks so long at most, for the rest of the transaction; less where the step says so, or where the server looks for
/// deadlocks sooner than it does by itself (after a second).
async fn bound_wait(tx: &mut Tx<'_>, ms: u64) -> Result<(), Error> {
    let asked = i64::try_from(ms).unwrap_or(i64::MAX);
    sqlx::query(
        "SELECT set_config('lock_timeout', greatest(1, least(CASE WHEN l.setting::bigint > 0 THEN l.setting::bigint ELSE $1 END, \
         $1, d.setting::bigint * $1 / 1000))::text, true) \
         FROM pg_settings AS l, pg_settings AS d WHERE l.name = 'lock_timeout' AND d.name = 'deadlock_timeout'",
    )
    .bind(asked)
    .execute(tx.conn()?)
    .await
    .map(|_| ())
    .map_err(failed("bound the wait for locks"))
}

//! Strong locks on clients' tables.
//!
//! Of several tables no order is safe: clients of the old shape come from the old table to the new one, and clients of the new shape
//! the other way round. While we hold the one and wait for the other, somebody who holds the other may be waiting for the one. So
//! none is waited for as long as the server takes to look for deadlocks: we yield, and not a client. Where clients are many
//! that takes many tries, and each of them holds clients up; so they are short, with rests in between in which nothing is held.
//!
//! How long a try should wait nobody knows: where clients come both ways all the time, only one that hardly waits at all meets a
//! moment in which nobody has one lock and wants the other, and where a client's transaction is long, only one that waits for it.
//! So waits follow the sequence of Luby (1 1 2 1 1 2 4 …), which is never much worse than the best that could have been chosen; and
//! every second try begins with the last lock, for the side that is less busy. With four clients on either side that never rest
//! both locks were had after 3 s, where waits of 150 ms in one order took 11 s and held clients up for most of that.
//!
//! Absent on purpose: longer patience, which is the engine's: each of its attempts is in the journal.

use std::time::Duration;

use sqlx::Row as _;

use super::connection::Tx;
use super::dual_write::run;
use super::error::failed;
use crate::bounds::postgres::{
    FURTHER_LOCK_MS, LONGEST_TRY_MS, RESTS_MS, SHORTEST_TRY_MS, TRIED_FOR_MS, WHOLE_TRY_MS,
};
use crate::clock::Stopwatch;
use crate::driver::Error;
use crate::run::FailureClass;

/// Takes locks, all or none: one with the patience that the transaction has, several with short tries.
pub(super) async fn lock_all(tx: &mut Tx<'_>, statements: &[String]) -> Result<(), Error> {
    if statements.len() > 1 {
        send_vacuum_away(tx, statements).await?;
    }
    tx.locks_clients_out();
    let limits = Limits::of(tx).await?;
    if let [statement] = statements {
        run(tx.conn()?, "lock the table", statement.clone()).await?;
    } else {
        lock_several(tx, &limits, statements).await?;
    }
    say(tx, limits.wait(FURTHER_LOCK_MS)).await
}

async fn lock_several(
    tx: &mut Tx<'_>,
    limits: &Limits,
    statements: &[String],
) -> Result<(), Error> {
    let watch = Stopwatch::start();
    let mut rests = RESTS_MS.iter().cycle();
    for number in 1.. {
        match say(tx, one_try(number, limits, statements)).await {
            Err(Error::Failed(failure))
                if failure.class == FailureClass::Contention
                    && watch.elapsed_ms() < TRIED_FOR_MS =>
            {
                say(tx, "ROLLBACK TO SAVEPOINT phasegate_locks".to_owned()).await?;
                let rest = rests.next().copied().unwrap_or(SHORTEST_TRY_MS);
                tokio::time::sleep(Duration::from_millis(rest)).await;
            }
            tried => return tried,
        }
    }
    Ok(())
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

/// What asks for all locks once, in one message: the sooner the next one is asked for, the fewer come in between.
fn one_try(number: u64, limits: &Limits, statements: &[String]) -> String {
    let most_ms = WHOLE_TRY_MS / u64::try_from(statements.len()).unwrap_or(WHOLE_TRY_MS).max(1);
    let wait_ms = (SHORTEST_TRY_MS * luby(number)).min(LONGEST_TRY_MS).min(most_ms);
    let mut said = vec!["SAVEPOINT phasegate_locks".to_owned(), limits.wait(wait_ms)];
    if number.is_multiple_of(2) {
        said.extend(statements.iter().rev().cloned());
    } else {
        said.extend_from_slice(statements);
    }
    said.join("; ")
}

/// A number of Luby's sequence, of which the first is 1.
fn luby(mut number: u64) -> u64 {
    loop {
        let whole = 1 << (number + 1).ilog2();
        if number + 1 == whole {
            return whole / 2;
        }
        number -= whole - 1;
    }
}

async fn say(tx: &mut Tx<'_>, words: String) -> Result<(), Error> {
    run(tx.conn()?, "lock the tables", words).await.map(|_| ())
}

/// What bounds waits for locks, in milliseconds.
struct Limits {
    /// What the step says; 0: for ever.
    asked_ms: u64,
    /// How long it takes the server to look for deadlocks; a second by itself.
    deadlock_ms: u64,
}

impl Limits {
    async fn of(tx: &mut Tx<'_>) -> Result<Self, Error> {
        let doing = "bound the wait for locks";
        let row = sqlx::query(
            "SELECT l.setting::bigint, d.setting::bigint FROM pg_settings AS l, pg_settings AS d \
             WHERE l.name = 'lock_timeout' AND d.name = 'deadlock_timeout'",
        )
        .fetch_one(tx.conn()?)
        .await
        .map_err(failed(doing))?;
        let ms = |at: usize| {
            let value: i64 = row.try_get(at).map_err(failed(doing))?;
            Ok::<_, Error>(value.unsigned_abs())
        };
        Ok(Self { asked_ms: ms(0)?, deadlock_ms: ms(1)? })
    }

    /// Waits for locks so long at most, for the rest of the transaction; less where the step says so, or where the server looks for
    /// deadlocks sooner than it does by itself.
    fn wait(&self, ms: u64) -> String {
        let asked_ms = if self.asked_ms == 0 { ms } else { self.asked_ms };
        let ms = ms.min(asked_ms).min(self.deadlock_ms * ms / 1_000).max(1);
        format!("SET LOCAL lock_timeout = {ms}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_tries_are_short_and_some_are_long() {
        let first: Vec<u64> = (1..=15).map(luby).collect();
        assert_eq!(first, [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]);
        assert_eq!((luby(31), luby(63), luby(64)), (16, 32, 1));
    }

    #[test]
    fn every_second_try_begins_with_the_last_lock_and_none_waits_as_long_as_a_deadlock() {
        let limits = Limits { asked_ms: 2_000, deadlock_ms: 1_000 };
        let statements = ["A".to_owned(), "B".to_owned()];
        let said = |number| one_try(number, &limits, &statements);
        assert_eq!(said(1), "SAVEPOINT phasegate_locks; SET LOCAL lock_timeout = 10; A; B");
        assert_eq!(said(2), "SAVEPOINT phasegate_locks; SET LOCAL lock_timeout = 10; B; A");
        assert!(said(15).contains("lock_timeout = 80; A; B"));
        assert!(said(31).contains("lock_timeout = 150; A; B"));
        let many: Vec<String> = (0..30).map(|at| format!("L{at}")).collect();
        assert!(one_try(31, &limits, &many).contains("lock_timeout = 25; L0"));
        let sooner = Limits { asked_ms: 0, deadlock_ms: 100 };
        assert_eq!(sooner.wait(300), "SET LOCAL lock_timeout = 30");
        let impatient = Limits { asked_ms: 7, deadlock_ms: 1_000 };
        assert_eq!(impatient.wait(300), "SET LOCAL lock_timeout = 7");
    }
}

//! The slots of relays: who may carry changes of a run now.
//!
//! Invariants:
//! - A relay is called after its run, `RUN/relay/OLD/NEW`, and has one slot. Its tokens are its own: whoever drives the run takes no
//!   relay's slot, and no relay the run's.
//! - It has a slot as long as the run is here. Leaving takes the slots of its relays along.
//! - Its sessions are called by a digest of its name, since a name that is too long is cut off, and the token with it.

use sqlx::{AssertSqlSafe, Row as _};

use super::tables::{self, SEQUENCE, TABLE};
use crate::bounds::relay::{CALLED_BYTES_MAX, CALLED_DIGITS};
use crate::driver::ledger::no_claim;
use crate::driver::postgres::Postgres;
use crate::driver::postgres::connection::Tx;
use crate::driver::postgres::dual_write::finish;
use crate::driver::postgres::error::failed;
use crate::driver::postgres::ledger::{RUNS, has_table, signed, unsigned};
use crate::driver::{Error, Fence, TxKind};
use crate::run::{Digest, RunId};

/// What stands between a run's id and the rest of a relay's.
const RELAY: &str = "/relay/";

/// What sessions are called by that work for a run, or for a relay of it.
pub(in crate::driver::postgres) fn called(run: &RunId) -> String {
    let id = run.as_str();
    if id.len() <= CALLED_BYTES_MAX && !id.contains(RELAY) {
        return id.to_owned();
    }
    let digest = Digest::of_bytes(id.as_bytes());
    format!("relay-{}", digest.as_str().get(..CALLED_DIGITS).unwrap_or_default())
}

/// The condition on a row of our table of slots that it is a run's, `$1`, or one of its relays'.
pub(in crate::driver::postgres) fn slots_of() -> String {
    format!("run_id = $1 OR starts_with(run_id, $1 || '{RELAY}')")
}

/// Takes the slot of a relay.
pub(super) async fn enter(postgres: &Postgres, relay: &RunId, token: u64) -> Result<Fence, Error> {
    postgres.end_earlier(relay, token).await?;
    let mut tx = postgres.connections.begin_unfenced(TxKind::Enter).await?;
    let entered = enter_in(&mut tx, relay, token).await;
    finish(tx, entered).await?;
    // As where a run is entered: who had just checked its token runs on, and is the last.
    postgres.end_earlier(relay, token).await?;
    Ok(Fence::new(relay.clone(), 0, token))
}

async fn enter_in(tx: &mut Tx<'_>, relay: &RunId, token: u64) -> Result<(), Error> {
    let (runs, slots) = (tx.ours(RUNS), tx.ours("slots"));
    let run = relay.as_str().split_once(RELAY).map_or(relay.as_str(), |(run, _)| run);
    let doing = "take the slot of a relay";
    if !has_table(tx.conn()?, &slots).await? {
        return Err(no_claim(&RunId::new(run)));
    }
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {runs} WHERE run_id = $1 AND starts_with(state, 'active'))"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(run).fetch_one(tx.conn()?).await;
    let is_here: bool = row.and_then(|row| row.try_get(0)).map_err(failed(doing))?;
    if !is_here {
        return Err(no_claim(&RunId::new(run)));
    }
    let sql = format!(
        "INSERT INTO {slots} AS s (run_id, slot, token) VALUES ($1, 0, $2)
         ON CONFLICT (run_id, slot) DO UPDATE SET token = greatest(s.token, excluded.token) RETURNING token"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(relay.as_str())
        .bind(signed(token))
        .fetch_one(tx.conn()?)
        .await;
    let newest = unsigned(row.and_then(|row| row.try_get(0)).map_err(failed(doing))?)?;
    if newest > token {
        return Err(Error::Fenced { ours: token, newest });
    }
    catch_up(tx).await
}

/// Has versions go on above all that were ever drawn. A server that lost its last commits, in a failover or a restore, would draw some
/// of them again, which the new side may have kept: what comes with them would be passed over.
///
/// None was drawn above the microseconds since 1970: there the sequence began, and no server writes a million rows a second for long. By
/// the second that is spared, whoever draws one at this moment draws none above that, either.
async fn catch_up(tx: &mut Tx<'_>) -> Result<(), Error> {
    let (outbox, sequence) = (tx.ours(TABLE), tx.ours(SEQUENCE));
    tables::alone(tx).await?;
    if !has_table(tx.conn()?, &outbox).await? {
        return Ok(());
    }
    let sql = format!(
        "SELECT setval($1::text::regclass, clock.us) FROM {sequence} AS s,
           (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us OFFSET 0) AS clock
         WHERE s.last_value < clock.us - 1000000"
    );
    let done = sqlx::query(AssertSqlSafe(sql)).bind(sequence).execute(tx.conn()?).await;
    done.map(|_| ()).map_err(failed("have versions go on above those that were drawn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sessions_are_called_by_leaves_room_for_any_token() {
        let run = "0190c5d8-7b1e-7c3a-9f00-1a2b3c4d5e6f";
        let relay = |ends: &str| RunId::new(format!("{run}/relay/{ends}"));
        assert_eq!(called(&RunId::new(run)), run);
        assert_ne!(called(&relay("app/graph")), called(&relay("app/graph2")));
        for (id, most) in [
            // More than all seconds since runs were thought of.
            (RunId::new(run), 9_999_999_999_999_999),
            (relay("app/graph"), u64::MAX),
            (relay(&"x".repeat(500)), u64::MAX),
        ] {
            let name = format!("phasegate {} {most}", called(&id));
            assert!(name.len() <= 63, "{name}");
        }
    }
}

//! The slot of a relay, whose token holds for what it applies here.
//!
//! A relay is named below its run, `RUN/relay/…`, and has one slot. It may run in another process than its run, and be taken over by
//! itself; it goes when its run leaves.

use neo4rs::{Query, query};

use super::super::Neo4j;
use super::super::claim::{clear_the_way, end_earlier};
use super::super::connection::{Ask, Tx};
use super::super::error::failed;
use super::super::ledger::{get, signed, unsigned};
use crate::driver::ledger::no_claim;
use crate::driver::{Error, Fence, TxKind};
use crate::run::RunId;

/// What stands between a run's id and the rest of a relay's.
const BELOW: &str = "/relay/";

/// What the ids of a run's relays begin with.
pub(in super::super) fn below(run: &RunId) -> String {
    format!("{run}{BELOW}")
}

impl Neo4j {
    pub(super) async fn take_slot(&self, relay: &RunId, token: u64) -> Result<Fence, Error> {
        let mut tx = self.connections.begin_unfenced(TxKind::Enter).await?;
        // Before anybody is ended: who has a higher token isn't.
        is_newest(&mut tx, relay, token).await?;
        let mark = uuid::Uuid::now_v7().simple().to_string();
        let hold = of(
            &format!(
                "/* {mark} */ MERGE (s:phasegate_slots {{run_id: $run, slot: 0}}) SET s.held = true"
            ),
            relay,
        );
        tokio::select! {
            done = tx.run(hold) => done.map(|_| ()).map_err(failed("take the relay's slot")),
            error = clear_the_way(&self.connections, &mark) => Err(error),
        }?;
        is_newest(&mut tx, relay, token).await?;
        let set = of("MATCH (s:phasegate_slots {run_id: $run}) SET s.token = $token", relay)
            .param("token", signed(token));
        tx.run(set).await.map_err(failed("write the fencing token"))?;
        tx.commit().await?;
        end_earlier(self, relay, token).await?;
        Ok(Fence::new(relay.clone(), 0, token))
    }
}

fn of(text: &str, relay: &RunId) -> Query {
    query(text).param("run", relay.as_str())
}

/// Refuses a token below the one that is there, and a relay whose run has left.
async fn is_newest(tx: &mut Tx<'_>, relay: &RunId, token: u64) -> Result<(), Error> {
    if let Some((run, _)) = relay.as_str().split_once(BELOW) {
        let run = RunId::new(run);
        let ask = of(
            "MATCH (r:phasegate_runs {run_id: $run}) WHERE r.state STARTS WITH 'active' RETURN 1 AS one",
            &run,
        );
        if tx.rows(ask).await.map_err(failed("look for the relay's run"))?.is_empty() {
            return Err(no_claim(&run));
        }
    }
    let ask = of(
        "MATCH (s:phasegate_slots {run_id: $run}) WHERE s.token IS NOT NULL RETURN max(s.token) AS newest",
        relay,
    );
    let rows = tx.rows(ask).await.map_err(failed("check the fencing token"))?;
    let newest: Option<i64> = rows.first().map_or(Ok(None), |row| get(row, "newest"))?;
    match newest.map(unsigned).transpose()? {
        Some(newest) if newest > token => Err(Error::Fenced { ours: token, newest }),
        _ => Ok(()),
    }
}

//! Somebody who looks on: where the copy is, and whether it and the clients really meet.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::Shared;
use crate::examples::database::{block_on, connect};
use crate::oracle::talk::{is, text};

/// Transactions of ours that were seen beside clients'.
#[derive(Debug, Default)]
pub struct Seen {
    /// Those that wrote while clients did.
    pub beside: HashSet<String>,
    /// Those of which one waited for the other.
    pub contended: HashSet<String>,
}

/// Each of our transactions that has written, with what it and the clients wait for; and where the copy is. One that is ending has an
/// xid, and no beginning, for a moment.
const LOOK: &str = "\
SELECT p.pid || ' ' || p.xact_start,
       EXISTS (SELECT FROM pg_stat_activity c WHERE c.datname = p.datname AND c.application_name = 'client'
               AND c.backend_xid IS NOT NULL),
       EXISTS (SELECT FROM pg_stat_activity c WHERE c.datname = p.datname AND c.application_name = 'client'
               AND (c.wait_event_type = 'Lock' AND p.pid = ANY (pg_blocking_pids(c.pid))
                 OR p.wait_event_type = 'Lock' AND c.pid = ANY (pg_blocking_pids(p.pid))))
FROM pg_stat_activity p
WHERE p.datname = current_database() AND p.application_name LIKE 'phasegate%' AND p.backend_xid IS NOT NULL
  AND p.xact_start IS NOT NULL";

const AIM: &str = "\
SELECT coalesce(min(substring(hi from '\\d+')::bigint), 0) FROM phasegate.chunks WHERE NOT committed";

/// Looks on until clients stop.
pub fn look_on(url: String, shared: Arc<Shared>) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        block_on(async {
            let mut conn = connect(&url).await.unwrap();
            let mut seen = Seen::default();
            while !shared.stop.load(Ordering::SeqCst) {
                let rows = sqlx::raw_sql(LOOK).fetch_all(&mut conn).await.unwrap();
                for row in rows {
                    let transaction = text(&row, 0);
                    if is(&row, 1) {
                        seen.beside.insert(transaction.clone());
                    }
                    if is(&row, 2) {
                        seen.contended.insert(transaction);
                    }
                }
                // There is no ledger before the first step, and none after the last.
                let aim = match sqlx::raw_sql(AIM).fetch_one(&mut conn).await {
                    Ok(row) => text(&row, 0).parse().unwrap(),
                    Err(_) => 0,
                };
                shared.aim.store(aim, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            seen
        })
    })
}

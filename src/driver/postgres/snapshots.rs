//! Clients' views of the database that are older than rows of ours.
//!
//! Under REPEATABLE READ and SERIALIZABLE, and as long as a statement runs, a client reads one moment of the database. Names it
//! looks up as they are: who comes to a table for the first time after it took another's name finds the new one, with the rows
//! that it had at that moment. Both sides are equal at every moment from when all that we write was committed and nothing was
//! noted; before, the new one is without the rows that chunks brought later, and an UPDATE finds none without an error. So
//! names change when nobody has such a view any more, as indexes that are built concurrently become valid.
//!
//! Invariants:
//! - The moment is taken when all of ours is committed, and holds across attempts until something of ours is written.
//! - Who came after the moment is not waited for, as far as the server tells: of views that end at the very transaction that
//!   was the oldest then, those that were there at the first look count.
//! - Nothing is held while we wait, no lock and no transaction; each look is one of its own.
//!
//! Absent on purpose: clients of replicas, whose views no role here can see; prepared transactions, which have none; views
//! that were exported before the moment and are taken up after it by somebody else, where they end as said above.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::Postgres;
use super::error::failed;
use super::planted::Fault;
use super::wait::{age, shown};
use crate::bounds::message::VIEWERS_NAMED_MAX;
use crate::bounds::postgres::{VIEWS_REST_MS, VIEWS_WITHIN_MS};
use crate::clock::Stopwatch;
use crate::driver::{Error, Fence, Work};
use crate::run::{FailureClass, Mapping, MappingName, plural};

const MOMENT: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text";

/// That a session, `a`, is another one of this database and looks up names by a view. One that does nothing but VACUUM or build an index
/// concurrently looks up none; autovacuum has no user.
pub(super) const LOOKS_UP: &str = "\
  a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND a.usesysid IS NOT NULL AND a.pid <> pg_backend_pid()
  AND a.pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
  AND a.pid NOT IN (SELECT pid FROM pg_stat_progress_create_index WHERE command LIKE '%CONCURRENTLY')";

/// Sessions of this database whose views may be older than a moment ($1), oldest first. Which they are every role may see.
fn look() -> String {
    format!(
        "\
SELECT a.pid, coalesce(v.virtualxid, '') AS transaction, age(a.backend_xmin) > age($1::xid8::xid) AS is_older,
       a.usename::text AS role, coalesce(a.application_name, '') AS application, a.state,
       (extract(epoch FROM clock_timestamp() - a.xact_start) * 1000)::bigint AS open_ms,
       coalesce(a.query, '') AS query, quote_ident(current_user) AS me
FROM pg_stat_activity a
LEFT JOIN pg_locks v ON v.pid = a.pid AND v.locktype = 'virtualxid' AND v.mode = 'ExclusiveLock' AND v.granted
WHERE {LOOKS_UP} AND age(a.backend_xmin) >= age($1::xid8::xid)
ORDER BY a.xact_start NULLS LAST, a.pid"
    )
}

/// The moments from which on both sides of mappings are equal in every view.
#[derive(Debug, Default)]
pub(super) struct Moments {
    known: Mutex<BTreeMap<MappingName, Known>>,
}

/// What is known of a mapping's rows.
#[derive(Debug, Default)]
struct Known {
    /// How often they were written.
    writes: u64,
    /// The moment since which they were not, if it was asked for.
    moment: Option<Moment>,
}

/// From when on nothing of ours was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    /// The oldest transaction that was running then: views that end before it are older than the moment.
    oldest: String,
    /// Of the views that end there, those that were there at the first look: by pid and transaction.
    there: Vec<(i32, String)>,
}

impl Moments {
    /// Says that rows of a mapping are about to be written, or have been: to be called before the commit and after it.
    pub(super) fn wrote(&self, mapping: &Mapping) {
        self.with(mapping, |known| {
            known.writes += 1;
            known.moment = None;
        });
    }

    /// Sees that nothing of ours was written since older views were waited for.
    pub(super) fn stands(&self, mapping: &Mapping) -> Result<(), Error> {
        if self.of(mapping).is_some() {
            return Ok(());
        }
        Err(Error::failed(FailureClass::Contention, "rows of ours were written just now"))
    }

    fn of(&self, mapping: &Mapping) -> Option<Moment> {
        self.with(mapping, |known| known.moment.clone())
    }

    fn writes(&self, mapping: &Mapping) -> u64 {
        self.with(mapping, |known| known.writes)
    }

    /// Keeps a moment, unless something was written since `writes` was read.
    fn keep(&self, mapping: &Mapping, moment: &Moment, writes: u64) -> bool {
        self.with(mapping, |known| {
            let is_last = known.writes == writes;
            if is_last {
                known.moment = Some(moment.clone());
            }
            is_last
        })
    }

    fn with<T>(&self, mapping: &Mapping, look: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        look(known.entry(mapping.name.clone()).or_default())
    }
}

/// A session whose view is older than the moment.
#[derive(Clone, Debug)]
struct Viewer {
    pid: i32,
    transaction: String,
    is_older: bool,
    role: String,
    application: String,
    /// Not told to a role that is no member of `pg_read_all_stats`.
    state: Option<String>,
    open_ms: Option<i64>,
    query: String,
    me: String,
}

impl Viewer {
    fn of_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let role: Option<String> = row.try_get("role")?;
        Ok(Self {
            pid: row.try_get("pid")?,
            transaction: row.try_get("transaction")?,
            is_older: row.try_get("is_older")?,
            role: role.unwrap_or_else(|| "unknown role".to_owned()),
            application: row.try_get("application")?,
            state: row.try_get("state")?,
            open_ms: row.try_get("open_ms")?,
            query: shown(row.try_get("query")?),
            me: row.try_get("me")?,
        })
    }

    fn counts(&self, there: &[(i32, String)]) -> bool {
        let is_it = |(pid, transaction): &(i32, String)| {
            *pid == self.pid && *transaction == self.transaction
        };
        self.is_older || there.iter().any(is_it)
    }

    fn said(&self) -> String {
        let mut words = vec![self.role.clone()];
        if !self.application.is_empty() {
            words.push(format!("application {}", self.application));
        }
        words.extend(self.state.clone());
        words.extend(self.open_ms.map(|ms| format!("its transaction open for {}", age(ms))));
        format!("pid {} ({}): {}", self.pid, words.join(", "), self.query)
    }
}

/// The error for those who are still there.
fn in_the_way(mapping: &Mapping, viewers: &[Viewer]) -> Error {
    let message = format!(
        "mapping {}: {} of clients began before the last rows were written, and would miss them under the new names",
        mapping.name,
        plural(u64::try_from(viewers.len()).unwrap_or(u64::MAX), "transaction"),
    );
    let mut named: Vec<String> = viewers.iter().take(VIEWERS_NAMED_MAX).map(Viewer::said).collect();
    if viewers.len() > VIEWERS_NAMED_MAX {
        named.push(format!("and {} more", viewers.len() - VIEWERS_NAMED_MAX));
    }
    let pid = viewers.first().map_or_else(|| "pid".to_owned(), |it| it.pid.to_string());
    let mut help =
        format!("let it end, or end it with SELECT pg_terminate_backend({pid}); then retry");
    if let Some(hidden) = viewers.iter().find(|it| it.state.is_none()) {
        let grant = format!("; GRANT pg_read_all_stats TO {} shows what it does", hidden.me);
        help.push_str(&grant);
    }
    match Error::failed(FailureClass::Contention, message).with_help(help) {
        Error::Failed(mut failure) => {
            let detail = format!("waiting for older transactions: {}", named.join("; "));
            failure.detail = Some(detail);
            Error::Failed(failure)
        }
        other => other,
    }
}

impl Postgres {
    /// Puts right what is noted, and waits until no client has a view that is older. Then both sides are equal in every view
    /// there is, and in all that come, unless something is noted anew: that is seen under the lock.
    pub(super) async fn outlast(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
    ) -> Result<(), Error> {
        self.settle_all(fence, mapping).await?;
        let patience_ms = work.lock_timeout_ms.unwrap_or(VIEWS_WITHIN_MS);
        let (watch, mut rest_ms) = (Stopwatch::start(), VIEWS_REST_MS.0);
        loop {
            let moment = match self.connections.moments.of(mapping) {
                Some(moment) => moment,
                None => self.moment(mapping).await?,
            };
            let mut viewers = self.look(&moment).await?;
            viewers.retain(|it| it.counts(&moment.there));
            if viewers.is_empty() || Fault::NamesChangeAtOnce.is_planted() {
                return Ok(());
            }
            if watch.elapsed_ms() >= patience_ms {
                return Err(in_the_way(mapping, &viewers));
            }
            tokio::time::sleep(Duration::from_millis(rest_ms)).await;
            rest_ms = (rest_ms * 2).min(VIEWS_REST_MS.1);
        }
    }

    /// Takes a moment at which nothing of ours is being written.
    async fn moment(&self, mapping: &Mapping) -> Result<Moment, Error> {
        let doing = "look for older transactions";
        loop {
            let writes = self.connections.moments.writes(mapping);
            let mut reader = self.connections.read().await?;
            let row = sqlx::query(MOMENT).fetch_one(reader.conn()?).await.map_err(failed(doing))?;
            reader.release().await;
            let oldest = row.try_get(0).map_err(failed(doing))?;
            let mut moment = Moment { oldest, there: Vec::new() };
            let ends_there = self.look(&moment).await?.into_iter().filter(|it| !it.is_older);
            moment.there = ends_there.map(|it| (it.pid, it.transaction)).collect();
            if self.connections.moments.keep(mapping, &moment, writes) {
                return Ok(moment);
            }
        }
    }

    /// Those whose views are not surely newer. In a transaction of its own: the server tells one transaction the same again.
    async fn look(&self, moment: &Moment) -> Result<Vec<Viewer>, Error> {
        let doing = "look for older transactions";
        let mut reader = self.connections.read().await?;
        let rows =
            sqlx::query(AssertSqlSafe(look())).bind(&moment.oldest).fetch_all(reader.conn()?).await;
        let rows = rows.map_err(failed(doing))?;
        reader.release().await;
        rows.iter().map(Viewer::of_row).collect::<Result<_, _>>().map_err(failed(doing))
    }
}

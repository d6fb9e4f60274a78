//! What PostgreSQL knows of its own state, for throttles: [`Signals`].
//!
//! What others do is hidden from plain roles: their sessions look idle and their replicas have no lag. Whoever may not see is
//! told so, and never that all is well. Our own sessions count nowhere.
//!
//! The lag that the server shows of a replica is the one at its last answer, which may be 10 s old: a replica that has stopped
//! replaying looks as near as it was then (measured). So positions of the log are remembered with their times here, and a
//! replica is at least as far behind as the oldest of them that it has not replayed.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::catalogue::name_sql;
use super::error::failed;
use super::{Postgres, outbox};
use crate::bounds::throttle::{POSITIONS_MAX, REPLICA_LOOK_EVERY, REPLICA_LOOKS};
use crate::clock::Stopwatch;
use crate::copy::throttle::Part;
use crate::driver::{Error, Signals};
use crate::run::{FailureClass, Gauge};

const RIGHTS: &str = "\
SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS may_see, quote_ident(current_user) AS me";

/// Where the primary writes; nothing on a standby.
const POSITION: &str = "\
SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint END";

/// Those who replay. What copies the log elsewhere replays nothing, and the first copy of a subscribed table comes and goes.
const REPLICAS: &str = "\
SELECT CASE WHEN application_name IN ('', 'walreceiver') THEN concat_ws(' ', 'replica', client_addr::text)
            ELSE application_name END AS name,
       pg_wal_lsn_diff(replay_lsn, '0/0')::bigint AS replayed,
       (extract(epoch FROM replay_lag) * 1000)::float8 AS lag_ms
FROM pg_catalog.pg_stat_replication
WHERE state IN ('streaming', 'catchup')
  AND application_name NOT IN ('pg_basebackup', 'pg_receivewal', 'pg_recvlogical')
  AND application_name !~ '^pg_[0-9]+_sync_[0-9]+_[0-9]+$'
ORDER BY 1, client_addr, client_port";

/// A slot that is lost keeps nothing, and neither does one without a position: it was never used.
const SLOTS: &str = "\
SELECT slot_name::text AS name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 AS value
FROM pg_catalog.pg_replication_slots WHERE restart_lsn IS NOT NULL AND wal_status IS DISTINCT FROM 'lost'";

const SESSIONS: &str = "\
SELECT NULL::text AS name, count(*)::float8 AS value FROM pg_catalog.pg_stat_activity
WHERE state IN ('active', 'fastpath function call') AND backend_type = 'client backend'
  AND application_name !~ '^phasegate( |$)'";

/// Locks are seen by everybody, and our own sessions are of our own role.
const WAITERS: &str = "\
SELECT NULL::text AS name, count(DISTINCT l.pid)::float8 AS value
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE NOT l.granted AND coalesce(a.application_name, '') !~ '^phasegate( |$)'";

const TRANSACTIONS: &str = "\
SELECT NULL::text AS name, greatest(coalesce(max(age_ms), 0), 0)::float8 AS value FROM (
    SELECT extract(epoch FROM clock_timestamp() - xact_start) * 1000 AS age_ms FROM pg_catalog.pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name !~ '^phasegate( |$)'
    UNION ALL
    SELECT extract(epoch FROM clock_timestamp() - prepared) * 1000 FROM pg_catalog.pg_prepared_xacts
) AS transactions";

/// Tables with all of their partitions.
const DEAD: &str = "\
WITH RECURSIVE parts(at, oid) AS (
    SELECT n.at, to_regclass(n.name)::oid FROM unnest($1::text[]) WITH ORDINALITY AS n (name, at)
    UNION
    SELECT p.at, i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON i.inhparent = p.oid
)
SELECT bool_and(p.oid IS NOT NULL) AS is_there, current_setting('track_counts')::boolean AS is_counting,
       coalesce(sum(s.n_dead_tup), 0)::float8 AS dead, coalesce(sum(s.n_live_tup), 0)::float8 AS live
FROM parts p LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = p.oid GROUP BY p.at ORDER BY p.at";

/// Positions of the log that were seen, each with the time since, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Positions(Mutex<VecDeque<(Stopwatch, i64)>>);

impl Positions {
    fn see(&self, position: i64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.back().is_some_and(|(_, last)| *last >= position) {
            return;
        }
        if seen.len() >= POSITIONS_MAX {
            // Every second one is enough: what is left is as old as before.
            let mut at = 0_usize;
            seen.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
        seen.push_back((Stopwatch::start(), position));
    }

    /// For how long at least somebody who has replayed up to here has been behind, in milliseconds.
    fn behind_ms(&self, replayed: i64) -> u64 {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = seen.iter().find(|(_, position)| *position > replayed);
        oldest.map_or(0, |(since, _)| since.elapsed_ms())
    }

    /// Forgets what everybody has replayed.
    fn forget_up_to(&self, replayed: i64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while seen.front().is_some_and(|(_, position)| *position <= replayed) {
            seen.pop_front();
        }
    }
}

/// One that replays, as the server shows it.
struct Replica {
    name: String,
    replayed: Option<i64>,
    lag_ms: Option<f64>,
}

#[async_trait]
impl Signals for Postgres {
    async fn gauge(&self, gauge: Gauge, tables: &[String]) -> Result<Vec<Part>, Error> {
        let mut reader = self.connections.read().await?;
        let conn = reader.conn()?;
        let parts = match gauge {
            Gauge::ReplicaLag => self.lag_ms(conn).await?,
            Gauge::ReplicaLagBytes => lag_bytes(conn).await?,
            Gauge::SlotWal => {
                position(conn).await?;
                parts(conn, SLOTS).await?
            }
            Gauge::RelayLag | Gauge::RelayRows => {
                outbox::waiting(conn, self.connections.schema(), gauge).await?
            }
            Gauge::LockWaiters => parts(conn, WAITERS).await?,
            Gauge::ActiveSessions => {
                may_see(conn, "the sessions of others").await?;
                parts(conn, SESSIONS).await?
            }
            Gauge::OldestTransaction => {
                may_see(conn, "the transactions of others").await?;
                parts(conn, TRANSACTIONS).await?
            }
            Gauge::DeadTuples => dead(conn, tables, |dead, _| dead).await?,
            Gauge::DeadTuplesPercent => {
                let percent = |dead: f64, live: f64| {
                    if dead > 0.0 { 100.0 * dead / (dead + live) } else { 0.0 }
                };
                dead(conn, tables, percent).await?
            }
        };
        reader.release().await;
        Ok(parts)
    }
}

impl Postgres {
    async fn lag_ms(&self, conn: &mut PgConnection) -> Result<Vec<Part>, Error> {
        may_see(conn, "replicas").await?;
        // Read first: who has replayed up to here is not behind, whatever else is written meanwhile.
        let written = position(conn).await?;
        self.positions.see(written);
        let mut replicas = replicas(conn).await?;
        let is_open = |one: &Replica| {
            one.lag_ms.is_none() && one.replayed.is_none_or(|replayed| replayed < written)
        };
        for _ in 0..REPLICA_LOOKS {
            if !replicas.iter().any(is_open) {
                break;
            }
            tokio::time::sleep(REPLICA_LOOK_EVERY).await;
            replicas = self::replicas(conn).await?;
        }
        let parts = replicas.iter().map(|one| {
            let value = match (one.replayed, one.lag_ms) {
                (Some(replayed), _) if replayed >= written => Some(0.0),
                (Some(replayed), Some(lag_ms)) => {
                    #[allow(clippy::cast_precision_loss)] // of thousands of years
                    let least_ms = self.positions.behind_ms(replayed) as f64;
                    Some(lag_ms.max(least_ms))
                }
                (None, _) | (_, None) => None,
            };
            Part { of: Some(one.name.clone()), value }
        });
        let parts = parts.collect();
        let least = replicas.iter().map(|one| one.replayed.unwrap_or(0)).min();
        self.positions.forget_up_to(least.unwrap_or(i64::MAX));
        Ok(parts)
    }
}

async fn lag_bytes(conn: &mut PgConnection) -> Result<Vec<Part>, Error> {
    may_see(conn, "replicas").await?;
    let written = position(conn).await?;
    let part = |one: Replica| {
        #[allow(clippy::cast_precision_loss)] // of petabytes
        let behind = one.replayed.map(|replayed| (written - replayed).max(0) as f64);
        Part { of: Some(one.name), value: behind }
    };
    Ok(replicas(conn).await?.into_iter().map(part).collect())
}

/// Whether this role sees what others do; [`FailureClass::NotPermitted`] with the right that it lacks.
async fn may_see(conn: &mut PgConnection, what: &str) -> Result<(), Error> {
    let row = sqlx::query(RIGHTS).fetch_one(conn).await.map_err(failed(DOING))?;
    if row.try_get("may_see").map_err(failed(DOING))? {
        return Ok(());
    }
    let me: String = row.try_get("me").map_err(failed(DOING))?;
    let message = format!("the role {me} may not see {what}");
    Err(Error::failed(FailureClass::NotPermitted, message)
        .with_help(format!("GRANT pg_monitor TO {me}")))
}

/// What is being done, in errors.
const DOING: &str = "read the server's state";

async fn position(conn: &mut PgConnection) -> Result<i64, Error> {
    let row = sqlx::query(POSITION).fetch_one(conn).await.map_err(failed(DOING))?;
    let position: Option<i64> = row.try_get(0).map_err(failed(DOING))?;
    position.ok_or_else(|| {
        Error::failed(FailureClass::Refused, "this server is a standby, and writes no log itself")
            .with_help("let the throttle ask the primary")
    })
}

/// Those who replay; of several with one name the second is called `name #2`.
async fn replicas(conn: &mut PgConnection) -> Result<Vec<Replica>, Error> {
    let rows = sqlx::query(REPLICAS).fetch_all(conn).await.map_err(failed(DOING))?;
    let mut found: Vec<Replica> = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = row.try_get("name").map_err(failed(DOING))?;
        let alike = |one: &&Replica| {
            one.name
                .strip_prefix(&name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(" #"))
        };
        let earlier = found.iter().filter(alike).count();
        let name = if earlier == 0 { name } else { format!("{name} #{}", earlier + 1) };
        let replayed = row.try_get("replayed").map_err(failed(DOING))?;
        let lag_ms = row.try_get("lag_ms").map_err(failed(DOING))?;
        found.push(Replica { name, replayed, lag_ms });
    }
    Ok(found)
}

async fn parts(conn: &mut PgConnection, query: &'static str) -> Result<Vec<Part>, Error> {
    let rows = sqlx::query(query).fetch_all(conn).await.map_err(failed(DOING))?;
    let part = |row: &PgRow| {
        let of = row.try_get("name").map_err(failed(DOING))?;
        Ok(Part { of, value: row.try_get("value").map_err(failed(DOING))? })
    };
    rows.iter().map(part).collect()
}

async fn dead(
    conn: &mut PgConnection,
    tables: &[String],
    share: impl Fn(f64, f64) -> f64,
) -> Result<Vec<Part>, Error> {
    let names: Vec<String> = tables.iter().map(|name| name_sql(name)).collect();
    let rows = sqlx::query(DEAD).bind(&names).fetch_all(conn).await.map_err(failed(DOING))?;
    let mut parts = Vec::with_capacity(rows.len());
    for (row, table) in rows.iter().zip(tables) {
        let is = |name: &str| row.try_get::<bool, _>(name).map_err(failed(DOING));
        let number = |name: &str| row.try_get::<f64, _>(name).map_err(failed(DOING));
        if !is("is_there")? {
            return Err(Error::failed(FailureClass::Stale, format!("there is no table {table}")));
        }
        if !is("is_counting")? {
            let message = "track_counts is off: the server counts no dead rows";
            return Err(Error::failed(FailureClass::Refused, message).with_help("turn it on"));
        }
        let value = share(number("dead")?, number("live")?);
        parts.push(Part { of: Some(table.clone()), value: Some(value) });
    }
    Ok(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use std::time::Duration;

    use sqlx::Connection as _;

    use super::super::fixture::{Database, class};
    use super::*;
    use crate::driver::{Access, Session as _};

    async fn one(postgres: &Postgres, gauge: Gauge) -> f64 {
        let parts = postgres.gauge(gauge, &[]).await.unwrap();
        assert_eq!(parts.len(), 1, "{gauge:?}: {parts:?}");
        parts[0].value.unwrap()
    }

    #[tokio::test]
    async fn what_clients_do_is_counted() {
        let Some(database) = Database::with("CREATE TABLE t (id int PRIMARY KEY)").await else {
            return;
        };
        let postgres = database.open().await;
        let mut first = database.client().await;
        let mut second = database.client().await;
        sqlx::raw_sql("BEGIN; INSERT INTO t VALUES (1)").execute(&mut first).await.unwrap();
        assert!(one(&postgres, Gauge::OldestTransaction).await > 0.0);
        let waits = tokio::spawn(async move {
            sqlx::raw_sql("INSERT INTO t VALUES (1)").execute(&mut second).await.unwrap_err();
            second
        });
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while database.number(waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(one(&postgres, Gauge::LockWaiters).await >= 1.0);
        assert!(one(&postgres, Gauge::ActiveSessions).await >= 1.0);
        sqlx::raw_sql("COMMIT").execute(&mut first).await.unwrap();
        waits.await.unwrap().close().await.unwrap();
        first.close().await.unwrap();
    }

    #[tokio::test]
    async fn dead_rows_are_those_of_the_table_and_its_partitions() {
        let Some(database) = Database::with(
            "CREATE TABLE calm (id int); CREATE TABLE parts (id int) PARTITION BY RANGE (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000) WITH (autovacuum_enabled = off)",
        )
        .await
        else {
            return;
        };
        database.run("INSERT INTO parts SELECT generate_series(1, 300)").await;
        database.run("DELETE FROM parts WHERE id <= 75").await;
        database.is_left().await;
        let postgres = database.open().await;
        let tables = ["calm".to_owned(), "parts".to_owned()];
        let read = async |gauge| {
            let parts = postgres.gauge(gauge, &tables).await.unwrap();
            parts
                .into_iter()
                .map(|part| (part.of.unwrap(), part.value.unwrap()))
                .collect::<Vec<_>>()
        };
        let dead = read(Gauge::DeadTuples).await;
        assert_eq!(dead, [("calm".to_owned(), 0.0), ("parts".to_owned(), 75.0)]);
        assert_eq!(read(Gauge::DeadTuplesPercent).await[1].1.to_bits(), 25.0_f64.to_bits());
        let nothing = ["nothing".to_owned()];
        assert_eq!(class(postgres.gauge(Gauge::DeadTuples, &nothing).await), FailureClass::Stale);
    }

    #[tokio::test]
    async fn a_role_that_may_not_see_is_told_so_and_never_that_all_is_well() {
        let Some(database) = Database::with("CREATE TABLE t (id int)").await else { return };
        let name = format!("plain_{}", uuid::Uuid::now_v7().simple());
        database.run(&format!("CREATE ROLE {name} LOGIN")).await;
        let mut url = url::Url::parse(&database.url).unwrap();
        url.set_username(&name).unwrap();
        let plain = Postgres::open(url.as_str(), None, Access::ReadOnly).await.unwrap();
        for gauge in [
            Gauge::ReplicaLag,
            Gauge::ReplicaLagBytes,
            Gauge::ActiveSessions,
            Gauge::OldestTransaction,
        ] {
            let Err(Error::Failed(failure)) = plain.gauge(gauge, &[]).await else { panic!() };
            assert_eq!(failure.class, FailureClass::NotPermitted, "{gauge:?}");
            assert!(failure.help.unwrap().starts_with("GRANT pg_monitor TO "), "{gauge:?}");
        }
        plain.gauge(Gauge::LockWaiters, &[]).await.unwrap();
        plain.gauge(Gauge::SlotWal, &[]).await.unwrap();
        database.run(&format!("GRANT pg_monitor TO {name}")).await;
        assert_eq!(plain.gauge(Gauge::OldestTransaction, &[]).await.unwrap().len(), 1);
        plain.close().await;
        database.run(&format!("DROP ROLE {name}")).await;
    }

    #[test]
    fn a_position_that_is_not_replayed_tells_how_long_somebody_is_behind() {
        let positions = Positions::default();
        positions.see(100);
        std::thread::sleep(Duration::from_secs(1));
        positions.see(200);
        positions.see(150);
        assert!(positions.behind_ms(99) >= 1_000);
        assert!(positions.behind_ms(100) < 1_000);
        assert_eq!(positions.behind_ms(200), 0);
        positions.forget_up_to(100);
        assert!(positions.behind_ms(0) < 1_000);
        for position in 300..2_000 {
            positions.see(position);
        }
        assert!(positions.0.lock().unwrap().len() <= POSITIONS_MAX);
        assert!(positions.behind_ms(1_998) < 1_000, "the newest is kept");
    }
}

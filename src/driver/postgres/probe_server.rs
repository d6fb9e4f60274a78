//! What a dry run learns of the server itself: who else is at work, connections, replicas, settings that matter.
//!
//! A plain role is shown the sessions of others without what they do: that is said, with the GRANT, and nothing made of it.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::error::failed;
use crate::bounds::message::{LONG_TRANSACTION_MS, QUERY_CHARS_MAX, SESSIONS_MAX};
use crate::bounds::postgres::CHUNK_LOCK_MS;
use crate::driver::probed::{Connections, ReplicaFacts, Seen, SessionFacts};
use crate::driver::{Error, Probed};

/// Fills in what the server tells. `oids` are the plan's tables.
pub(super) async fn look(
    conn: &mut PgConnection,
    oids: &[u32],
    probed: &mut Probed,
) -> Result<(), Error> {
    let server = server(conn).await?;
    probed.server = format!("PostgreSQL {}", server.version);
    probed.disk_free_bytes = Seen::hidden("PostgreSQL doesn't tell how much room the disk has");
    probed.connections = Seen::Known(server.connections);
    if server.sees_others {
        probed.sessions = Seen::Known(sessions(conn, oids).await?);
        probed.replicas = Seen::Known(replicas(conn).await?);
    } else {
        probed.sessions = hidden(&server.role, "the sessions of others");
        probed.replicas = hidden(&server.role, "replicas");
    }
    probed.notes.extend(server.notes);
    Ok(())
}

fn hidden<T>(role: &str, what: &str) -> Seen<T> {
    Seen::hidden(format!("{role} may not see {what}; GRANT pg_read_all_stats TO {role}"))
}

struct Server {
    version: String,
    role: String,
    sees_others: bool,
    connections: Connections,
    notes: Vec<String>,
}

const SERVER: &str = "\
SELECT current_setting('server_version'), quote_ident(current_user), pg_has_role('pg_read_all_stats', 'USAGE'),
       (SELECT sum(numbackends) FROM pg_stat_database)::bigint,
       least(current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
             (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
             (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())),
       pg_is_in_recovery(), current_setting('synchronous_commit'), current_setting('autovacuum'),
       current_setting('track_counts'), (SELECT setting::bigint FROM pg_settings WHERE name = 'deadlock_timeout')";

async fn server(conn: &mut PgConnection) -> Result<Server, Error> {
    let doing = "read what the server is";
    let row = sqlx::query(SERVER).fetch_one(conn).await.map_err(failed(doing))?;
    let text = |at: usize| row.try_get::<String, _>(at).map_err(failed(doing));
    let flag = |at: usize| row.try_get::<bool, _>(at).map_err(failed(doing));
    let count = |at: usize| -> Result<u32, Error> {
        let value: i64 = row.try_get(at).map_err(failed(doing))?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let mut notes = Vec::new();
    if flag(5)? {
        notes.push("the server is a standby: it takes no writes".to_owned());
    }
    if text(6)? == "off" {
        notes.push(
            "synchronous_commit is off: after a crash of the server the last chunks may be gone from it"
                .to_owned(),
        );
    }
    if text(7)? == "off" {
        notes.push("autovacuum is off: what a backfill leaves behind is not cleaned up".to_owned());
    }
    if text(8)? == "off" {
        notes.push("track_counts is off: counters can't tell whether a table is used".to_owned());
    }
    let deadlock_ms: i64 = row.try_get(9).map_err(failed(doing))?;
    if deadlock_ms <= i64::try_from(CHUNK_LOCK_MS).unwrap_or(i64::MAX) {
        notes.push(format!(
            "deadlock_timeout is {deadlock_ms} ms: a client may be the one that is ended where a chunk would have yielded"
        ));
    }
    Ok(Server {
        version: text(0)?,
        role: text(1)?,
        sees_others: flag(2)?,
        connections: Connections { used: count(3)?, limit: count(4)? },
        notes,
    })
}

/// `$1`: the plan's tables; `$2`: from when on a transaction is long; `$3`: how many.
const SESSIONS: &str = "\
WITH held AS (
    SELECT l.pid, array_agg(DISTINCT l.relation::regclass::text || ' (' || l.mode || ')') FILTER (WHERE l.granted) AS locks
    FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = ANY ($1::bigint[]::oid[])
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    GROUP BY l.pid)
SELECT a.pid::text, a.usename::text, nullif(a.application_name, ''), coalesce(a.state, 'unknown'),
       (extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start, a.backend_start)) * 1000)::bigint,
       coalesce(a.query, ''), coalesce(h.locks, '{}'),
       CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid)::text[] ELSE '{}' END
FROM pg_stat_activity a LEFT JOIN held h ON h.pid = a.pid
WHERE a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
  AND NOT (a.application_name LIKE 'phasegate%' AND a.usename = current_user)
  AND (h.pid IS NOT NULL OR a.xact_start < clock_timestamp() - $2::bigint * interval '1 millisecond')
ORDER BY a.xact_start NULLS LAST LIMIT $3";

async fn sessions(conn: &mut PgConnection, oids: &[u32]) -> Result<Vec<SessionFacts>, Error> {
    let oids: Vec<i64> = oids.iter().copied().map(i64::from).collect();
    let rows = sqlx::query(SESSIONS)
        .bind(oids)
        .bind(LONG_TRANSACTION_MS)
        .bind(SESSIONS_MAX)
        .fetch_all(conn)
        .await
        .map_err(failed("look who else is at work"))?;
    rows.iter().map(session).collect::<Result<_, _>>().map_err(failed("look who else is at work"))
}

fn session(row: &PgRow) -> Result<SessionFacts, sqlx::Error> {
    let query: String = row.try_get(5)?;
    let words: Vec<&str> = query.split_whitespace().collect();
    let age_ms: Option<i64> = row.try_get(4)?;
    Ok(SessionFacts {
        id: row.try_get(0)?,
        role: row.try_get(1)?,
        application: row.try_get(2)?,
        state: row.try_get(3)?,
        age_ms: age_ms.and_then(|age| u64::try_from(age).ok()).unwrap_or(0),
        query: words.join(" ").chars().take(QUERY_CHARS_MAX).collect(),
        locks: row.try_get(6)?,
        waits_for: row.try_get(7)?,
    })
}

async fn replicas(conn: &mut PgConnection) -> Result<Vec<ReplicaFacts>, Error> {
    let doing = "look for replicas";
    let rows = sqlx::query(
        "SELECT coalesce(nullif(application_name, ''), client_addr::text, pid::text), coalesce(state, 'unknown'),
                CASE WHEN replay_lag IS NOT NULL THEN (extract(epoch FROM replay_lag) * 1000)::bigint
                     WHEN NOT pg_is_in_recovery() AND replay_lsn >= pg_current_wal_flush_lsn() THEN 0 END
         FROM pg_stat_replication ORDER BY 1",
    )
    .fetch_all(conn)
    .await
    .map_err(failed(doing))?;
    let replica = |row: &PgRow| -> Result<ReplicaFacts, sqlx::Error> {
        let lag: Option<i64> = row.try_get(2)?;
        Ok(ReplicaFacts {
            name: row.try_get(0)?,
            state: row.try_get(1)?,
            lag_ms: lag.and_then(|lag| u64::try_from(lag).ok()),
        })
    };
    rows.iter().map(replica).collect::<Result<_, _>>().map_err(failed(doing))
}

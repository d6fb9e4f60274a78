//! One session on the server: how it is opened, set up, and ended whatever happens.
//!
//! Invariants:
//! - A session is set up before anything else is done on it, and it is known by pid and start time, which together can't be
//!   another's.
//! - A session that is not given back at a clean end is ended on the server.
//! - The backend that answers is the one that was set up: where a pooler lends one session to several clients by
//!   transaction, our settings, locks and snapshots would be anybody's, so that is refused as soon as it shows.
//!
//! Absent on purpose: which sessions there are at once, which is `connection`'s.

use std::sync::{Arc, OnceLock};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::error::{code, failed, unconnected};
use crate::bounds::postgres::{
    CONNECT_WITHIN, CONNECTION_CHECK_MS, FRESH_MS, IDLE_IN_TRANSACTION_MS, ONCE_LOCK_MS,
};
use crate::clock::Stopwatch;
use crate::driver::{Access, Error};
use crate::run::FailureClass;

/// Settings of every session. A name that the server doesn't know is left out (`client_connection_check_interval` came with
/// version 14, `transaction_timeout` with 17). Values are written so that they can be read again whatever the role's own
/// settings are; a stopped process does not hold its locks for ever; what is recorded as done is on the server's disk (but for chunks, of which `connection` says more); and
/// what row security would hide from us is an error instead of missing rows. Timeouts of the role's own are for clients: a
/// step says in its `timeout` how long it may take. Our statements are short and many look dear to the planner: to compile one would
/// take many times longer than it does. A role that is called like our schema ($1, quoted) would find our tables
/// before the plan's, and make the plan's there: `"$user"` is taken out of its search path.
const SETTINGS: &str = r#"
SELECT pg_backend_pid(), set_config(s.name, v.value, false) FROM (VALUES
    ('datestyle', 'ISO, YMD'), ('intervalstyle', 'postgres'), ('bytea_output', 'hex'), ('extra_float_digits', '1'),
    ('standard_conforming_strings', 'on'), ('row_security', 'off'), ('idle_in_transaction_session_timeout', $2),
    ('client_connection_check_interval', $3), ('default_transaction_isolation', 'read committed'),
    ('lock_timeout', $4), ('jit', 'off'), ('statement_timeout', '0'), ('transaction_timeout', '0'), ('idle_session_timeout', '0'),
    ('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
        ELSE current_setting('synchronous_commit') END),
    ('search_path', CASE WHEN '"' || replace(current_user, '"', '""') || '"' = $1
        THEN regexp_replace(current_setting('search_path'), '"\$user"\s*,?\s*', '')
        ELSE current_setting('search_path') END)) AS v (name, value)
JOIN pg_settings s ON lower(s.name) = v.name"#;

/// Who answers, after how long a wait for a lock the server looks for deadlocks, and the timeline that it writes: none on a
/// standby. A file's name begins with it, and is right from the moment of a promotion on; what `pg_control_checkpoint` has
/// is not before the next checkpoint.
const IDENTIFY: &str = "SELECT a.pid, a.backend_start::text, s.setting::bigint, \
     CASE WHEN NOT pg_is_in_recovery() THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END \
     FROM pg_stat_activity a, pg_settings s WHERE a.pid = pg_backend_pid() AND s.name = 'deadlock_timeout'";

/// A session of ours on the server, by what can't be another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionId {
    pub pid: i32,
    /// When it began, as the server writes it: pids come again.
    pub began: String,
}

/// An open connection. Dropped anywhere but at its clean end, its session is ended on the server.
#[derive(Debug)]
pub(super) struct Live {
    /// `None` only when the connection was given back or closed.
    sqlx: Option<PgConnection>,
    pub session: SessionId,
    /// What it is called in `pg_stat_activity`: which run and token it works for.
    name: String,
    /// The server's `deadlock_timeout` in milliseconds.
    pub deadlock_ms: u64,
    /// The timeline that the server writes; none on a standby.
    timeline: Option<i64>,
    ender: Arc<Ender>,
    idle: Stopwatch,
}

/// Ends sessions of ours through a connection of its own.
#[derive(Debug)]
pub(super) struct Ender {
    options: PgConnectOptions,
    /// The timeline of the first session that was opened for writing.
    timeline: OnceLock<i64>,
}

impl Ender {
    pub(super) const fn new(options: PgConnectOptions) -> Self {
        Self { options, timeline: OnceLock::new() }
    }

    /// That the server is no standby, and goes on where the one before it stood: after a failover the last transactions
    /// may be missing, and whoever still has them in mind must not build on them.
    fn goes_on(&self, timeline: Option<i64>) -> Result<(), Error> {
        let Some(timeline) = timeline else { return Err(standby(self.timeline.get().is_some())) };
        let before = *self.timeline.get_or_init(|| timeline);
        if before == timeline { Ok(()) } else { Err(promoted(before, timeline)) }
    }

    /// Ends a session of ours, if it is still there.
    pub(super) async fn end(&self, session: &SessionId) -> Result<(), sqlx::Error> {
        let mut connection = self.options.connect().await?;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE pid = $1 AND backend_start::text = $2",
        )
        .bind(session.pid)
        .bind(&session.began)
        .fetch_optional(&mut connection)
        .await?;
        connection.close().await
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let Some(connection) = self.sqlx.take() else { return };
        drop(connection);
        let (ender, session) = (Arc::clone(&self.ender), self.session.clone());
        // Without a runtime the process is ending, and the server notices that by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = ender.end(&session).await {
                    tracing::debug!(pid = session.pid, %error, "ending a session of ours");
                }
            });
        }
    }
}

impl Live {
    /// Opens a session and sets it up. `schema` is our own schema, quoted.
    pub(super) async fn open(
        ender: &Arc<Ender>,
        access: Access,
        schema: &str,
    ) -> Result<Self, Error> {
        let opened = tokio::time::timeout(CONNECT_WITHIN, ender.options.connect()).await;
        let mut sqlx = opened
            .map_err(|_| {
                Error::failed(FailureClass::Unreachable, "the server did not answer within 10 s")
                    .with_help("see whether the server is overloaded, and whether that port is PostgreSQL's")
            })?
            .map_err(unconnected)?;
        let set = sqlx::query(SETTINGS)
            .bind(schema)
            .bind(format!("{IDLE_IN_TRANSACTION_MS}ms"))
            .bind(format!("{CONNECTION_CHECK_MS}ms"))
            .bind(format!("{ONCE_LOCK_MS}ms"))
            .fetch_all(&mut sqlx)
            .await;
        let set = set.map_err(unprepared)?;
        if access == Access::ReadOnly {
            sqlx::query("SELECT set_config('default_transaction_read_only', 'on', false)")
                .execute(&mut sqlx)
                .await
                .map_err(failed("prepare the connection"))?;
        }
        let row = sqlx::query(IDENTIFY).fetch_one(&mut sqlx).await.map_err(unprepared)?;
        let (session, deadlock_ms) = identified(&row).map_err(failed("prepare the connection"))?;
        for row in &set {
            let pid: i32 = row.try_get(0).map_err(failed("prepare the connection"))?;
            if pid != session.pid {
                return Err(pooled());
            }
        }
        let timeline = row.try_get(3).map_err(failed("prepare the connection"))?;
        if access == Access::Full {
            ender.goes_on(timeline)?;
        }
        let (ender, idle) = (Arc::clone(ender), Stopwatch::start());
        let (sqlx, name) = (Some(sqlx), String::new());
        Ok(Self { sqlx, session, name, deadlock_ms, timeline, ender, idle })
    }

    /// The timeline that the server writes. It stays the same while the session lasts.
    pub(super) fn timeline(&self) -> Result<i64, Error> {
        self.timeline.ok_or_else(|| standby(false))
    }

    /// The connection.
    pub(super) fn conn(&mut self) -> Result<&mut PgConnection, Error> {
        self.sqlx.as_mut().ok_or_else(|| {
            Error::failed(FailureClass::Unreachable, "the connection was closed before")
        })
    }

    /// Makes it ready for work under a name; fails when the session is gone or another backend answers.
    pub(super) async fn be(&mut self, name: &str) -> Result<(), Error> {
        if self.name == name && self.idle.elapsed_ms() < FRESH_MS {
            return Ok(());
        }
        let row =
            sqlx::query("SELECT pg_backend_pid() FROM set_config('application_name', $1, false)")
                .bind(name)
                .fetch_one(self.conn()?)
                .await
                .map_err(unprepared)?;
        self.is_answered_by(&row)?;
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// That the backend whose pid a row begins with is this session's. Otherwise it is given up as it is: to end it would
    /// hit whomever it is lent to now.
    pub(super) fn is_answered_by(&mut self, row: &PgRow) -> Result<(), Error> {
        let pid: i32 = row.try_get(0).map_err(failed("prepare the connection"))?;
        if pid == self.session.pid {
            return Ok(());
        }
        Err(self.lent())
    }

    /// The error for a session that is somebody else's, too. What is left of it is dropped without being ended.
    pub(super) fn lent(&mut self) -> Error {
        drop(self.sqlx.take());
        pooled()
    }

    /// The same session, for the next user; this value no longer ends it.
    pub(super) fn pass_on(&mut self) -> Option<Self> {
        let sqlx = self.sqlx.take()?;
        Some(Self {
            sqlx: Some(sqlx),
            session: self.session.clone(),
            name: self.name.clone(),
            deadlock_ms: self.deadlock_ms,
            timeline: self.timeline,
            ender: Arc::clone(&self.ender),
            idle: Stopwatch::start(),
        })
    }

    /// Closes it in order; nothing is open on it.
    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.sqlx.take()
            && let Err(error) = connection.close().await
        {
            // Nothing is open on it; a failure to close loses nothing.
            tracing::debug!(%error, "closing a connection");
        }
    }
}

fn identified(row: &PgRow) -> Result<(SessionId, u64), sqlx::Error> {
    let session = SessionId { pid: row.try_get(0)?, began: row.try_get(1)? };
    let deadlock_ms: i64 = row.try_get(2)?;
    Ok((session, deadlock_ms.max(1).cast_unsigned()))
}

/// What a failed preparation means: where a statement that was prepared here is known to a backend already, or not known to
/// it any more, another one answers.
fn unprepared(error: sqlx::Error) -> Error {
    match code(&error) {
        Some("42P05" | "26000") => pooled(),
        _ => failed("prepare the connection")(error),
    }
}

/// The server takes no writes. `was_primary`: it, or the one at its address, did before.
fn standby(was_primary: bool) -> Error {
    let (class, help) = if was_primary {
        (
            FailureClass::Unreachable,
            "go on when a standby was promoted, or name the new primary in the target's URL",
        )
    } else {
        (
            FailureClass::NotPermitted,
            "name the primary in the target's URL; only a dry run can look at a standby",
        )
    };
    Error::failed(class, "the server is a standby, which takes no writes").with_help(help)
}

/// Another server answers at the address.
fn promoted(before: i64, now: i64) -> Error {
    let message = format!(
        "the server was followed by another: it writes timeline {now}, and timeline {before} was written when this began"
    );
    Error::failed(FailureClass::Stale, message).with_help(
        "its last transactions may be lost; see that the new primary stays, then retry: what is recorded as done is held \
         against what is there before anything goes on",
    )
}

/// Two statements on one connection were answered by different backends.
fn pooled() -> Error {
    Error::failed(
        FailureClass::Refused,
        "the URL leads to a pooler that lends one session to several clients",
    )
    .with_help(
        "name the server itself, or a pool in session mode: settings and locks must stay ours",
    )
}

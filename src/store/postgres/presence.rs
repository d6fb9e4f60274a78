//! How others see that a holder of leases is still there: a session that it keeps open, and that the server ends with it.
//!
//! Invariants:
//! - A session counts as gone only when the server shows that it is: no session has its process id, or the one that has it
//!   began at another time. What a role may not see proves nothing.
//! - Nothing depends on a session being there. A holder that has lost its own opens another; a lease without one lapses by
//!   time.

use std::fmt;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::Mutex;

use crate::bounds::store::POSTGRES_SHOWN_WITHIN;

/// A session by what can't be another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionId {
    pid: i32,
    /// When it began, in microseconds since 1970.
    began_us: i64,
}

impl SessionId {
    /// As a lease's row has it.
    pub(super) fn new(pid: Option<i32>, began_us: Option<i64>) -> Option<Self> {
        Some(Self { pid: pid?, began_us: began_us? })
    }

    pub(super) const fn pid(self) -> i32 {
        self.pid
    }

    pub(super) const fn began_us(self) -> i64 {
        self.began_us
    }
}

/// This process's own session, opened when it first holds a lease.
pub(super) struct Presence {
    options: PgConnectOptions,
    open: Mutex<Option<(PgConnection, SessionId)>>,
}

impl fmt::Debug for Presence {
    /// Without the options, which hold the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}

impl Presence {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, open: Mutex::default() }
    }

    /// The session, which is there now; `None` where there can't be one.
    pub(super) async fn session(&self) -> Option<SessionId> {
        let mut open = self.open.lock().await;
        // Taken out while it is asked: one that is given up in the middle of an answer is not used again.
        let before = open.take();
        match tokio::time::timeout(POSTGRES_SHOWN_WITHIN, shown(&self.options, before)).await {
            Ok(Ok((connection, id))) => {
                *open = Some((connection, id));
                drop(open);
                Some(id)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "opening the session that shows that this process is there");
                None
            }
            Err(_) => None,
        }
    }

    /// Ends the session.
    pub(super) async fn end(&self) {
        let open = self.open.lock().await.take();
        if let Some((connection, _)) = open {
            let _ = connection.close().await;
        }
    }
}

/// The session as it was, if it is still there, or another.
async fn shown(
    options: &PgConnectOptions,
    before: Option<(PgConnection, SessionId)>,
) -> Result<(PgConnection, SessionId), sqlx::Error> {
    if let Some((mut connection, id)) = before
        && connection.ping().await.is_ok()
    {
        return Ok((connection, id));
    }
    enter(options).await
}

async fn enter(options: &PgConnectOptions) -> Result<(PgConnection, SessionId), sqlx::Error> {
    let mut connection = options.connect().await?;
    // It is idle for as long as the lease is held.
    sqlx::query(
        "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
    )
    .execute(&mut connection)
    .await?;
    let row = sqlx::query(
        "SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint FROM pg_stat_activity \
         WHERE pid = pg_backend_pid()",
    )
    .fetch_one(&mut connection)
    .await?;
    let id = SessionId { pid: row.try_get(0)?, began_us: row.try_get(1)? };
    Ok((connection, id))
}

/// Whether a session is gone for sure.
pub(super) async fn is_gone(
    db: &mut PgConnection,
    session: SessionId,
) -> Result<bool, sqlx::Error> {
    // Of other roles' sessions a plain role sees the process id alone.
    sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND (backend_start IS NULL \
         OR (extract(epoch FROM backend_start) * 1000000)::bigint = $2))",
    )
    .bind(session.pid)
    .bind(session.began_us)
    .fetch_one(db)
    .await
}

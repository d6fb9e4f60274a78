//! Connections, and the only way to change the database: a fenced transaction.
//!
//! Invariants:
//! - Every connection is set up alike when it is opened, before anything else is done on it.
//! - A [`Tx`] has locked its slot's row and held the fence's token against it before it does anything else, so that nobody
//!   can take over before it ends. Only [`Tx::commit`] commits.
//! - A connection goes back to its place only after a clean end. Whatever else happens (an error, a future that is dropped)
//!   its session is ended on the server, by pid and start time, so that nothing of it runs on and nobody else's is touched.
//! - Reading transactions are READ ONLY: the server refuses every write in them.
//!
//! Absent on purpose: sqlx's pool, which gives a connection back in whatever state it is, and transaction poolers, which
//! would lend one session to several clients.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{commit_failed, failed};
use super::ledger;
use crate::clock::Stopwatch;
use crate::driver::{Access, Error, Fence};
use crate::run::FailureClass;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long chunks wait for a lock, in milliseconds: under any sensible `deadlock_timeout` (1 s by default), so that we yield
/// and not a client.
const CHUNK_LOCK_MS: u64 = 300;

/// How long everything else that writes waits, in milliseconds: what waits for a strong lock holds up everybody behind it.
const ONCE_LOCK_MS: u64 = 2_000;

/// Connections that work at once, workers of copies and steps in parallel included.
const CONNECTIONS_MAX: usize = 24;

/// Settings of every session. A name that the server doesn't know is left out (`client_connection_check_interval` came with
/// version 14). Values are written so that they can be read again whatever the role's own settings are; a stopped process
/// does not hold its locks for ever; and what row security would hide from us is an error instead of missing rows.
const SETTINGS: &str = "SELECT set_config(s.name, v.value, false) FROM (VALUES \
     ('datestyle', 'ISO, YMD'), ('intervalstyle', 'postgres'), ('bytea_output', 'hex'), \
     ('extra_float_digits', '1'), ('standard_conforming_strings', 'on'), ('row_security', 'off'), \
     ('idle_in_transaction_session_timeout', '10s'), ('client_connection_check_interval', '5s'), \
     ('default_transaction_isolation', 'read committed'), ('lock_timeout', '2s'), \
     ('statement_timeout', '0')) AS v (name, value) JOIN pg_settings s ON lower(s.name) = v.name";

/// What a transaction is for. Names the fail points around its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TxKind {
    Execute,
    Chunk,
    Plan,
    Finish,
    Enter,
    Leave,
    Install,
    Remove,
    Settle,
    Repair,
    Retire,
    Unretire,
    Drop,
}

impl TxKind {
    /// How long to wait for a lock, in milliseconds.
    const fn lock_ms(self) -> u64 {
        match self {
            Self::Chunk | Self::Plan | Self::Settle | Self::Repair => CHUNK_LOCK_MS,
            Self::Execute
            | Self::Finish
            | Self::Enter
            | Self::Leave
            | Self::Install
            | Self::Remove
            | Self::Retire
            | Self::Unretire
            | Self::Drop => ONCE_LOCK_MS,
        }
    }

    /// The kind as fail points name it.
    #[cfg(feature = "failpoints")]
    const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Chunk => "chunk",
            Self::Plan => "plan",
            Self::Finish => "finish",
            Self::Enter => "enter",
            Self::Leave => "leave",
            Self::Install => "install",
            Self::Remove => "remove",
            Self::Settle => "settle",
            Self::Repair => "repair",
            Self::Retire => "retire",
            Self::Unretire => "unretire",
            Self::Drop => "drop",
        }
    }
}

/// A session of ours on the server, by what can't be another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionId {
    pub pid: i32,
    /// When it began, as the server writes it: pids come again.
    pub began: String,
}

/// An open connection. Dropped anywhere but at its clean end, its session is ended on the server.
#[derive(Debug)]
struct Live {
    /// `None` only when the connection was given back or closed.
    sqlx: Option<PgConnection>,
    session: SessionId,
    /// What it is called in `pg_stat_activity`: which run and token it works for.
    name: String,
    ender: Arc<Ender>,
}

/// Ends sessions of ours through a connection of its own.
#[derive(Debug)]
struct Ender {
    options: PgConnectOptions,
}

impl Ender {
    async fn end(&self, session: &SessionId) -> Result<(), sqlx::Error> {
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
    fn conn(&mut self) -> Result<&mut PgConnection, Error> {
        self.sqlx.as_mut().ok_or_else(|| {
            Error::failed(FailureClass::Unreachable, "the connection was closed before")
        })
    }
}

/// The connections to one database.
pub(super) struct Connections {
    options: PgConnectOptions,
    access: Access,
    /// Our schema, quoted.
    schema: String,
    ender: Arc<Ender>,
    permits: Semaphore,
    idle: Mutex<Vec<Live>>,
    /// Sessions that work now.
    busy: Mutex<Vec<SessionId>>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Connections {
    /// Connections to a database, none of which is open yet. `schema` is our own schema's name, quoted.
    pub(super) fn new(options: PgConnectOptions, access: Access, schema: String) -> Self {
        let options = options.application_name("phasegate").disable_statement_logging();
        Self {
            ender: Arc::new(Ender { options: options.clone() }),
            options,
            access,
            schema,
            permits: Semaphore::new(CONNECTIONS_MAX),
            idle: Mutex::new(Vec::new()),
            busy: Mutex::new(Vec::new()),
        }
    }

    /// A name in our own schema, qualified and quoted.
    pub(super) fn ours(&self, name: &str) -> String {
        format!("{}.\"{name}\"", self.schema)
    }

    /// Our own schema, quoted.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// Begins a transaction under a fence, whose token is held against the slot's row in the same transaction.
    pub(super) async fn begin(&self, fence: &Fence, kind: TxKind) -> Result<Tx<'_>, Error> {
        self.begin_waiting(fence, kind, None).await
    }

    /// As [`begin`](Self::begin), waiting for locks as long as a step says.
    pub(super) async fn begin_waiting(
        &self,
        fence: &Fence,
        kind: TxKind,
        lock_timeout_ms: Option<u64>,
    ) -> Result<Tx<'_>, Error> {
        let name = format!("phasegate {} {}", fence.run(), fence.token());
        let mut tx = self.begin_called(kind, lock_timeout_ms, &name).await?;
        match ledger::check_fence(&mut tx, fence).await {
            Ok(()) => Ok(tx),
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }

    /// Begins a transaction that no fence guards: for entering and leaving, which make and remove fences.
    pub(super) async fn begin_unfenced(&self, kind: TxKind) -> Result<Tx<'_>, Error> {
        self.begin_called(kind, None, "phasegate").await
    }

    async fn begin_called(
        &self,
        kind: TxKind,
        lock_timeout_ms: Option<u64>,
        name: &str,
    ) -> Result<Tx<'_>, Error> {
        if self.access == Access::ReadOnly {
            return Err(Error::failed(
                FailureClass::NotPermitted,
                "the target is open for reading only",
            ));
        }
        let mut held = self.take(name).await?;
        let lock_ms = lock_timeout_ms.unwrap_or(kind.lock_ms());
        let begin =
            format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {lock_ms}");
        let watch = Stopwatch::start();
        sqlx::raw_sql(AssertSqlSafe(begin))
            .execute(held.live.conn()?)
            .await
            .map_err(failed("begin a transaction"))?;
        Ok(Tx { held, kind, is_kept: true, watch })
    }

    /// A connection that reads: each statement sees what is committed when it begins, and none can write.
    pub(super) async fn read(&self) -> Result<Reader<'_>, Error> {
        self.reader("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY").await
    }

    /// A connection that reads one moment of the database for as long as it is held.
    pub(super) async fn snapshot(&self) -> Result<Reader<'_>, Error> {
        self.reader("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn reader(&self, begin: &'static str) -> Result<Reader<'_>, Error> {
        let mut held = self.take("phasegate").await?;
        // After a first statement with a snapshot the server takes no SET TRANSACTION READ WRITE any more.
        sqlx::raw_sql(AssertSqlSafe(format!("{begin}; SELECT 1")))
            .execute(held.live.conn()?)
            .await
            .map_err(failed("begin to read"))?;
        Ok(Reader { held })
    }

    /// A connection outside any transaction, for statements that the server refuses inside one. Its locks are waited for as
    /// long as the session's `lock_timeout` says, which the caller sets. It is never used again afterwards.
    pub(super) async fn bare(&self, fence: &Fence) -> Result<Bare<'_>, Error> {
        if self.access == Access::ReadOnly {
            return Err(Error::failed(
                FailureClass::NotPermitted,
                "the target is open for reading only",
            ));
        }
        let name = format!("phasegate {} {}", fence.run(), fence.token());
        Ok(Bare { held: self.take(&name).await? })
    }

    async fn take(&self, name: &str) -> Result<Held<'_>, Error> {
        // The semaphore is never closed; an error here would be a mistake of ours.
        let permit =
            self.permits.acquire().await.map_err(|_| {
                Error::failed(FailureClass::Unreachable, "the connections are closed")
            })?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut live = match idle {
            Some(live) => live,
            None => self.open().await?,
        };
        if live.name != name {
            let set = sqlx::query("SELECT set_config('application_name', $1, false)")
                .bind(name)
                .execute(live.conn()?)
                .await;
            match set {
                Ok(_) => name.clone_into(&mut live.name),
                // It had been idle, and the server may have gone and come back meanwhile.
                Err(_) => {
                    live = self.open().await?;
                    sqlx::query("SELECT set_config('application_name', $1, false)")
                        .bind(name)
                        .execute(live.conn()?)
                        .await
                        .map_err(failed("prepare the connection"))?;
                    name.clone_into(&mut live.name);
                }
            }
        }
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(live.session.clone());
        Ok(Held { live, connections: self, _permit: permit })
    }

    async fn open(&self) -> Result<Live, Error> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.options.connect()).await;
        let mut sqlx = opened
            .map_err(|_| {
                Error::failed(FailureClass::Unreachable, "the server did not answer within 10 s")
            })?
            .map_err(failed("connect"))?;
        sqlx::query(SETTINGS).execute(&mut sqlx).await.map_err(failed("prepare the connection"))?;
        if self.access == Access::ReadOnly {
            sqlx::query("SELECT set_config('default_transaction_read_only', 'on', false)")
                .execute(&mut sqlx)
                .await
                .map_err(failed("prepare the connection"))?;
        }
        let row = sqlx::query(
            "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        )
        .fetch_one(&mut sqlx)
        .await
        .map_err(failed("prepare the connection"))?;
        let session = SessionId {
            pid: row.try_get(0).map_err(failed("prepare the connection"))?,
            began: row.try_get(1).map_err(failed("prepare the connection"))?,
        };
        let (name, ender) = ("phasegate".to_owned(), Arc::clone(&self.ender));
        Ok(Live { sqlx: Some(sqlx), session, name, ender })
    }

    /// Ends what runs now on every connection, on the server.
    pub(super) async fn cancel(&self) {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for session in busy {
            if let Err(error) = self.ender.end(&session).await {
                tracing::debug!(pid = session.pid, %error, "ending a session of ours");
            }
        }
    }

    /// Closes every connection that does not work now.
    pub(super) async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for mut live in idle {
            if let Some(connection) = live.sqlx.take()
                && let Err(error) = connection.close().await
            {
                // Nothing is open on it; a failure to close loses nothing.
                tracing::debug!(%error, "closing a connection");
            }
        }
    }
}

/// A connection in use.
struct Held<'a> {
    live: Live,
    connections: &'a Connections,
    _permit: SemaphorePermit<'a>,
}

impl Held<'_> {
    /// Gives the connection back, to be used again.
    fn give_back(mut self) {
        let Some(sqlx) = self.live.sqlx.take() else { return };
        let live = Live {
            sqlx: Some(sqlx),
            session: self.live.session.clone(),
            name: self.live.name.clone(),
            ender: Arc::clone(&self.live.ender),
        };
        self.connections.idle.lock().unwrap_or_else(PoisonError::into_inner).push(live);
    }

    /// Closes the connection in order; nothing is open on it.
    async fn close(mut self) {
        if let Some(connection) = self.live.sqlx.take()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "closing a connection");
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut busy = self.connections.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|session| *session != self.live.session);
    }
}

/// A transaction that writes. Dropped without [`commit`](Self::commit) its session is ended.
pub(super) struct Tx<'a> {
    held: Held<'a>,
    kind: TxKind,
    is_kept: bool,
    watch: Stopwatch,
}

impl Tx<'_> {
    /// The connection, inside the transaction.
    pub(super) fn conn(&mut self) -> Result<&mut PgConnection, Error> {
        self.held.live.conn()
    }

    /// A name in our own schema, qualified and quoted.
    pub(super) fn ours(&self, name: &str) -> String {
        self.held.connections.ours(name)
    }

    /// Our own schema, quoted.
    pub(super) fn schema(&self) -> &str {
        self.held.connections.schema()
    }

    /// The session it runs in.
    pub(super) fn session(&self) -> &SessionId {
        &self.held.live.session
    }

    /// Has the connection closed after the transaction, since what runs in it may leave settings or temporary objects
    /// behind.
    pub(super) fn close_afterwards(&mut self) {
        self.is_kept = false;
    }

    /// Commits. Returns the microseconds from the beginning of the transaction to the end of the commit. A future dropped
    /// in here may have committed: ask the ledger.
    pub(super) async fn commit(mut self) -> Result<u64, Error> {
        fail_point("before", self.kind)?;
        if let Err(error) = sqlx::query("COMMIT").execute(self.conn()?).await {
            return Err(commit_failed(&error));
        }
        let (took_us, kind) = (self.watch.elapsed_us(), self.kind);
        if self.is_kept {
            self.held.give_back();
        } else {
            self.held.close().await;
        }
        fail_point("after", kind)?;
        Ok(took_us)
    }

    /// Rolls back now, and keeps the connection where that works.
    pub(super) async fn roll_back(mut self) {
        let Ok(conn) = self.conn() else { return };
        if sqlx::query("ROLLBACK").execute(conn).await.is_err() {
            return;
        }
        if self.is_kept {
            self.held.give_back();
        } else {
            self.held.close().await;
        }
    }
}

/// A connection in a reading transaction. Dropped without [`release`](Self::release) its session is ended.
pub(super) struct Reader<'a> {
    held: Held<'a>,
}

impl Reader<'_> {
    /// The connection, inside the transaction.
    pub(super) fn conn(&mut self) -> Result<&mut PgConnection, Error> {
        self.held.live.conn()
    }

    /// A name in our own schema, qualified and quoted.
    pub(super) fn ours(&self, name: &str) -> String {
        self.held.connections.ours(name)
    }

    /// Our own schema, quoted.
    pub(super) fn schema(&self) -> &str {
        self.held.connections.schema()
    }

    /// Ends the transaction and gives the connection back, to be used again.
    pub(super) async fn release(mut self) {
        let Ok(conn) = self.conn() else { return };
        if sqlx::query("ROLLBACK").execute(conn).await.is_ok() {
            self.held.give_back();
        }
    }
}

/// A connection outside any transaction. Dropped without [`close`](Self::close) its session is ended.
pub(super) struct Bare<'a> {
    held: Held<'a>,
}

impl Bare<'_> {
    /// The connection.
    pub(super) fn conn(&mut self) -> Result<&mut PgConnection, Error> {
        self.held.live.conn()
    }

    /// The session.
    pub(super) fn session(&self) -> &SessionId {
        &self.held.live.session
    }

    /// Closes it.
    pub(super) async fn close(self) {
        self.held.close().await;
    }
}

/// Where a test makes the process die, or a commit seem to fail: `postgres::before-commit::<kind>` and
/// `postgres::after-commit::<kind>`, with the action `return` (the process aborts), `return(unknown)` (the outcome is
/// reported as unknown) or `return(contention)`.
#[cfg(feature = "failpoints")]
fn fail_point(place: &str, kind: TxKind) -> Result<(), Error> {
    let name = format!("postgres::{place}-commit::{}", kind.as_str());
    fail::fail_point!(&name, |told: Option<String>| match told.as_deref() {
        Some("unknown") => Err(Error::Unknown(crate::run::Failure {
            class: FailureClass::Unreachable,
            code: None,
            message: format!("fail point {name}"),
            detail: None,
            help: None,
            line: None,
        })),
        Some("contention") => Err(Error::failed(FailureClass::Contention, "fail point")),
        _ => std::process::abort(),
    });
    Ok(())
}

#[cfg(not(feature = "failpoints"))]
#[allow(clippy::unnecessary_wraps)] // so that both forms are called alike
const fn fail_point(_place: &str, _kind: TxKind) -> Result<(), Error> {
    Ok(())
}

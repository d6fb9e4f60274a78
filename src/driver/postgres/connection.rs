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

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::catalogue::name_sql;
use super::error::{commit_failed, failed};
use super::live::{Ender, Live};
use super::lock_wait::lock_ms;
use super::snapshots::Moments;
use super::wait::{Looker, Watcher};
use super::{ledger, outbox, patience};
use crate::bounds::postgres::CONNECTIONS_MAX;
use crate::clock::Stopwatch;
use crate::driver::fail_point::at_commit;
use crate::driver::{Access, Error, Fence, TxKind};
use crate::run::FailureClass;

pub(super) use super::live::SessionId;

/// A chunk's commit does not wait for the disk, and its locks are gone that much sooner. Its rows and its mark in the ledger are
/// lost together, if the server dies within the next moment, and the chunk is then copied again; the commit that ends the copy
/// waits for the disk, and with it for everything before it.
const NOT_FLUSHED: &str = "; SET LOCAL synchronous_commit = off";

/// The connections to one database.
pub(super) struct Connections {
    access: Access,
    /// Our schema, quoted.
    schema: String,
    ender: Arc<Ender>,
    looker: Arc<Looker>,
    /// The server's `deadlock_timeout` in milliseconds; 0 until a session was opened.
    deadlock_ms: AtomicU64,
    permits: Semaphore,
    idle: Mutex<Vec<Live>>,
    /// Sessions that work now.
    busy: Mutex<Vec<SessionId>>,
    /// When rows of mappings were written last by us.
    pub(super) moments: Moments,
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
            ender: Arc::new(Ender::new(options.clone())),
            looker: Arc::new(Looker::new(options)),
            deadlock_ms: AtomicU64::new(0),
            access,
            schema,
            permits: Semaphore::new(CONNECTIONS_MAX),
            idle: Mutex::new(Vec::new()),
            busy: Mutex::new(Vec::new()),
            moments: Moments::default(),
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
        let name = session_name(fence);
        let mut tx = self.begin_called((kind, lock_timeout_ms), &name, Some(fence)).await?;
        let slot = std::mem::replace(&mut tx.slot, Ok(None));
        match ledger::judge_fence(slot, fence) {
            Ok(()) => Ok(tx),
            Err(error) => Err(tx.give_up(error).await),
        }
    }

    /// Begins a transaction that no fence guards: for entering and leaving, which make and remove fences. They come one
    /// after another, whichever run's they are: two can't make our tables at once, and none may find them there and see
    /// them go.
    pub(super) async fn begin_unfenced(&self, kind: TxKind) -> Result<Tx<'_>, Error> {
        let mut tx = self.begin_called((kind, None), "phasegate", None).await?;
        let alone = sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(format!("phasegate: runs of {}", self.schema))
            .execute(tx.conn()?)
            .await;
        match alone {
            Ok(_) => Ok(tx),
            Err(error) => {
                Err(tx.give_up(failed("wait for other runs to enter or leave")(error)).await)
            }
        }
    }

    async fn begin_called(
        &self,
        (kind, lock_timeout_ms): (TxKind, Option<u64>),
        name: &str,
        fence: Option<&Fence>,
    ) -> Result<Tx<'_>, Error> {
        if self.access == Access::ReadOnly {
            return Err(Error::failed(
                FailureClass::NotPermitted,
                "the target is open for reading only",
            ));
        }
        self.take(name).await?.begin(kind, lock_timeout_ms, fence).await
    }

    /// A connection that reads: each statement sees what is committed when it begins, and none can write.
    pub(super) async fn read(&self) -> Result<Reader<'_>, Error> {
        self.reader("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY").await
    }

    /// A connection that reads one moment of the database for as long as it is held.
    pub(super) async fn snapshot(&self) -> Result<Reader<'_>, Error> {
        self.reader("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// As [`snapshot`](Self::snapshot), of a moment at which nobody is emptying these tables. TRUNCATE doesn't mind older moments:
    /// whoever has one from before sees no row of the table, and all of what follows it by deleting. Locks come before the
    /// moment, so that there is none.
    pub(super) async fn snapshot_of(&self, tables: &[&str]) -> Result<Reader<'_>, Error> {
        let names: Vec<String> = tables.iter().map(|name| name_sql(name)).collect();
        let names = names.join(", ");
        self.reader(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {names} IN ACCESS SHARE MODE"
        ))
        .await
    }

    /// Comes back where the server answers a session that does nothing else.
    pub(super) async fn answers(&self) -> Result<(), Error> {
        self.looker.answers().await.map_err(failed("ask whether the server answers"))
    }

    async fn reader(&self, begin: &str) -> Result<Reader<'_>, Error> {
        let mut held = self.take("phasegate").await?;
        // After a first statement with a snapshot the server takes no SET TRANSACTION READ WRITE any more.
        let answer = sqlx::raw_sql(AssertSqlSafe(format!("{begin}; SELECT pg_backend_pid()")))
            .fetch_all(held.live.conn()?)
            .await
            .map_err(failed("begin to read"))?;
        held.is_answered_by(&answer)?;
        Ok(Reader { held })
    }

    /// A connection outside any transaction, for statements that the server refuses inside one. Nothing is checked yet:
    /// that takes a transaction ([`Bare::begin`]). It is never used again afterwards.
    pub(super) async fn bare(&self, fence: &Fence) -> Result<Bare<'_>, Error> {
        if self.access == Access::ReadOnly {
            return Err(Error::failed(
                FailureClass::NotPermitted,
                "the target is open for reading only",
            ));
        }
        let name = session_name(fence);
        Ok(Bare { held: self.take(&name).await? })
    }

    async fn take(&self, name: &str) -> Result<Held<'_>, Error> {
        // The semaphore is never closed; an error here would be a mistake of ours.
        let permit =
            self.permits.acquire().await.map_err(|_| {
                Error::failed(FailureClass::Unreachable, "the connections are closed")
            })?;
        let live = loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut live) = idle else {
                let mut live = Live::open(&self.ender, self.access, &self.schema).await?;
                live.be(name).await?;
                self.deadlock_ms.store(live.deadlock_ms, Ordering::Relaxed);
                break live;
            };
            // It had been idle, and the server may have gone and come back meanwhile.
            match live.be(name).await {
                Ok(()) => break live,
                Err(Error::Failed(failure)) if failure.class == FailureClass::Unreachable => {}
                Err(error) => return Err(error),
            }
        };
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(live.session.clone());
        Ok(Held { live, connections: self, _permit: permit })
    }

    /// That two connections are two sessions. Where a pooler lends them by transaction, the second is given what the first
    /// has just left. What else keeps the second from being opened, such as a limit of connections, is not asked here.
    pub(super) async fn are_sessions(&self) -> Result<(), Error> {
        let mut first = self.take("phasegate").await?;
        match self.take("phasegate").await {
            Ok(mut second) if second.live.session == first.live.session => {
                first.live.lent();
                Err(second.live.lent())
            }
            Ok(second) => {
                second.give_back();
                first.give_back();
                Ok(())
            }
            Err(Error::Failed(failure)) if failure.class == FailureClass::Unreachable => {
                first.give_back();
                Ok(())
            }
            Err(error) => {
                first.live.lent();
                Err(error)
            }
        }
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
            live.close().await;
        }
        self.looker.close().await;
    }
}

/// A connection in use.
struct Held<'a> {
    live: Live,
    connections: &'a Connections,
    _permit: SemaphorePermit<'a>,
}

impl<'a> Held<'a> {
    /// Begins a transaction on it, and locks the slot's row of a fence in the same message: chunks are many, and each way to
    /// the server and back is time in which the transaction is open. The row is still to be judged.
    async fn begin(
        self,
        kind: TxKind,
        lock_timeout_ms: Option<u64>,
        fence: Option<&Fence>,
    ) -> Result<Tx<'a>, Error> {
        let deadlock_ms = self.connections.deadlock_ms.load(Ordering::Relaxed);
        let lock_ms = lock_ms(kind, lock_timeout_ms, deadlock_ms);
        let mut begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {lock_ms}; SELECT pg_backend_pid()"
        );
        if kind == TxKind::Chunk {
            begin.push_str(NOT_FLUSHED);
            // Whoever says how long a lock is waited for hardly waits at all.
            if lock_timeout_ms.is_none() {
                let all_ms = patience::all_ms(deadlock_ms);
                begin = format!("{begin}; SET LOCAL statement_timeout = {all_ms}");
            }
        }
        if let Some(fence) = fence {
            begin.push_str("; ");
            begin.push_str(&ledger::fence_sql(&self.connections.ours("slots"), fence));
        }
        let watch = Stopwatch::start();
        let watcher = Watcher::start(&self.connections.looker, &self.live.session, lock_ms);
        let slot = Ok(None);
        let mut tx = Tx { held: self, kind, is_kept: true, watch, locked: None, watcher, slot };
        let answered = sqlx::raw_sql(AssertSqlSafe(begin)).fetch_all(tx.conn()?).await;
        match answered {
            Ok(mut rows) => {
                let slot = rows.split_off(rows.len().min(1)).pop();
                tx.held.is_answered_by(&rows)?;
                tx.slot = Ok(slot);
            }
            Err(error) if fence.is_some() => tx.slot = Err(error),
            Err(error) => return Err(failed("begin a transaction")(error)),
        }
        Ok(tx)
    }

    /// That a transaction began on the backend that was set up, and not on one that a pooler has lent us.
    fn is_answered_by(&mut self, answer: &[PgRow]) -> Result<(), Error> {
        answer.iter().try_for_each(|row| self.live.is_answered_by(row))
    }

    /// Gives the connection back, to be used again.
    fn give_back(mut self) {
        if let Some(live) = self.live.pass_on() {
            self.connections.idle.lock().unwrap_or_else(PoisonError::into_inner).push(live);
        }
    }

    /// Closes the connection in order; nothing is open on it.
    async fn close(mut self) {
        self.live.close().await;
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
    /// Since when clients are held up by a lock that is asked for or held.
    locked: Option<Stopwatch>,
    watcher: Watcher,
    /// The slot's row, until it is judged.
    slot: Result<Option<PgRow>, sqlx::Error>,
}

impl<'a> Tx<'a> {
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

    /// How long it takes the server to look for deadlocks, in milliseconds.
    pub(super) fn deadlock_ms(&self) -> u64 {
        self.held.connections.deadlock_ms.load(Ordering::Relaxed)
    }

    /// Whether it was seen to wait for a lock, so that the time it takes says little of what its work costs.
    pub(super) fn has_waited(&self) -> bool {
        self.watcher.has_seen()
    }

    /// Has the connection closed after the transaction, since what runs in it may leave settings or temporary objects
    /// behind.
    pub(super) fn close_afterwards(&mut self) {
        self.is_kept = false;
    }

    /// Says that clients are held up from now on.
    pub(super) fn locks_clients_out(&mut self) {
        self.locked.get_or_insert_with(Stopwatch::start);
    }

    /// Since when they are, if they are.
    pub(super) const fn locked_since(&self) -> Option<Stopwatch> {
        self.locked
    }

    /// Commits. Returns the microseconds from the beginning of the transaction to the end of the commit. A future dropped
    /// in here may have committed: ask the ledger.
    pub(super) async fn commit(self) -> Result<u64, Error> {
        let (watch, kind, is_kept) = (self.watch, self.kind, self.is_kept);
        let held = self.commit_held().await?;
        let took_us = watch.elapsed_us();
        if is_kept {
            held.give_back();
        } else {
            held.close().await;
        }
        at_commit("postgres", "after", kind.as_str())?;
        Ok(took_us)
    }

    /// Commits, and goes on outside any transaction in the same session.
    pub(super) async fn commit_bare(self) -> Result<Bare<'a>, Error> {
        let kind = self.kind;
        let held = self.commit_held().await?;
        at_commit("postgres", "after", kind.as_str())?;
        Ok(Bare { held })
    }

    async fn commit_held(mut self) -> Result<Held<'a>, Error> {
        at_commit("postgres", "before", self.kind.as_str())?;
        if let Err(error) = sqlx::query("COMMIT").execute(self.conn()?).await {
            return Err(self.watcher.explain(commit_failed(&error)));
        }
        Ok(self.held)
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

    /// Rolls back because of an error, and adds who was in the way where it is that a lock was not had.
    pub(super) async fn give_up(self, error: Error) -> Error {
        let explained = self.watcher.explain(error);
        self.roll_back().await;
        explained
    }

    /// Rolls back, and goes on outside any transaction in the same session; `None` where the session is gone.
    pub(super) async fn give_up_bare(mut self) -> Option<Bare<'a>> {
        let rolled_back = sqlx::query("ROLLBACK").execute(self.conn().ok()?).await;
        rolled_back.is_ok().then(|| Bare { held: self.held })
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

    /// The timeline that the server writes.
    pub(super) fn timeline(&self) -> Result<i64, Error> {
        self.held.live.timeline()
    }

    /// A name in our own schema, qualified and quoted.
    pub(super) fn ours(&self, name: &str) -> String {
        self.held.connections.ours(name)
    }

    /// Our own schema, quoted.
    pub(super) fn schema(&self) -> &str {
        self.held.connections.schema()
    }

    /// Ends the transaction and the session with it.
    pub(super) async fn close(mut self) {
        let Ok(conn) = self.conn() else { return };
        if sqlx::query("ROLLBACK").execute(conn).await.is_ok() {
            self.held.close().await;
        }
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

impl<'a> Bare<'a> {
    /// The connection.
    pub(super) fn conn(&mut self) -> Result<&mut PgConnection, Error> {
        self.held.live.conn()
    }

    /// The session.
    pub(super) fn session(&self) -> &SessionId {
        &self.held.live.session
    }

    /// A name in our own schema, qualified and quoted.
    pub(super) fn ours(&self, name: &str) -> String {
        self.held.connections.ours(name)
    }

    /// Begins a transaction in this very session, under a fence.
    pub(super) async fn begin(
        self,
        fence: &Fence,
        kind: TxKind,
        lock_timeout_ms: Option<u64>,
    ) -> Result<Tx<'a>, Error> {
        let mut tx = self.held.begin(kind, lock_timeout_ms, None).await?;
        tx.close_afterwards();
        checked(tx, fence).await
    }

    /// Says how long statements wait for locks from now on (milliseconds; 0: for ever), and watches what they wait for.
    pub(super) async fn wait_for_locks(&mut self, lock_ms: u64) -> Result<Watcher, Error> {
        sqlx::query("SELECT set_config('lock_timeout', $1, false)")
            .bind(lock_ms.to_string())
            .execute(self.conn()?)
            .await
            .map_err(failed("prepare the connection"))?;
        Ok(Watcher::start(&self.held.connections.looker, self.session(), lock_ms))
    }

    /// Closes it.
    pub(super) async fn close(self) {
        self.held.close().await;
    }
}

/// What sessions that work under a fence are called.
fn session_name(fence: &Fence) -> String {
    format!("phasegate {} {}", outbox::called(fence.run()), fence.token())
}

/// Holds a fence's token against its slot's row in a transaction that has just begun.
async fn checked<'a>(mut tx: Tx<'a>, fence: &Fence) -> Result<Tx<'a>, Error> {
    match ledger::check_fence(&mut tx, fence).await {
        Ok(()) => Ok(tx),
        Err(error) => Err(tx.give_up(error).await),
    }
}

//! Connections, and the only way to change the database: a fenced write transaction.
//!
//! Invariants:
//! - There is one writing connection, so steps of one process never contend with each other. A [`Tx`] begins with
//!   `BEGIN IMMEDIATE` and has read the slot's token under that lock, so that nobody can take over before it ends.
//! - Only [`Tx::commit`] commits. A commit hook refuses every other one, so that a COMMIT inside a script, or a query that
//!   writes, changes nothing.
//! - A connection goes back to its place only after a clean end. Whatever else happens (an error, a future that is
//!   dropped) it is interrupted and closed, and SQLite rolls back what it had open.
//!
//! Absent on purpose: changing the database's journal mode, page size or `recursive_triggers`, which are the user's.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, Semaphore, SemaphorePermit};

use super::error::{commit_failed, failed};
use super::turns::Turns;
use crate::bounds::sqlite::{
    BUSY_TIMEOUT, ONCE_TIMEOUT, READERS_MAX, STEPS_BETWEEN_LOOKS, WRITER_CACHE_KIB,
};
use crate::clock::Stopwatch;
use crate::driver::fail_point::at_commit;
use crate::driver::{Error, Fence, TxKind};
use crate::run::FailureClass;

/// How long a transaction waits for the lock.
const fn waits(kind: TxKind) -> Duration {
    match kind {
        TxKind::Chunk | TxKind::Plan => BUSY_TIMEOUT,
        _ => ONCE_TIMEOUT,
    }
}

/// What is told to, and known of, a connection while it works.
#[derive(Debug, Default)]
struct Switch {
    /// Whatever runs is to be interrupted. Never taken back: the connection is closed afterwards.
    stop: AtomicBool,
    /// A commit is ours.
    may_commit: AtomicBool,
    /// The transaction was rolled back by something other than the end of the connection.
    rolled_back: AtomicBool,
}

/// Interrupts what a connection runs when it is dropped.
#[derive(Debug)]
struct StopOnDrop(Arc<Switch>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

/// An open connection. Dropping it interrupts and closes it.
#[derive(Debug)]
struct Live {
    // Dropped before the connection, so that what runs in its thread ends first.
    switch: StopOnDrop,
    sqlx: SqliteConnection,
}

impl Live {
    async fn open(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let mut sqlx = options.connect().await?;
        let switch = Arc::new(Switch::default());
        let mut handle = sqlx.lock_handle().await?;
        let told = Arc::clone(&switch);
        handle
            .set_progress_handler(STEPS_BETWEEN_LOOKS, move || !told.stop.load(Ordering::Acquire));
        let told = Arc::clone(&switch);
        handle.set_commit_hook(move || told.may_commit.load(Ordering::Acquire));
        let tells = Arc::clone(&switch);
        handle.set_rollback_hook(move || tells.rolled_back.store(true, Ordering::Release));
        drop(handle);
        Ok(Self { switch: StopOnDrop(switch), sqlx })
    }

    fn is_stopped(&self) -> bool {
        self.switch.0.stop.load(Ordering::Acquire)
    }
}

/// The writing connection's place, and whose turn it is to write.
#[derive(Debug, Default)]
struct Lane {
    live: Option<Live>,
    /// How long that connection waits for a lock.
    waits: Duration,
    turns: Turns,
}

/// What becomes of a database file that isn't there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MissingFile {
    /// It is an error.
    Refused,
    /// The first write makes it, and until then reads find an empty database.
    Made,
    /// Nothing makes it, and reads find an empty database.
    Empty,
}

/// The connections to one database file.
pub(super) struct Connections {
    options: SqliteConnectOptions,
    file: PathBuf,
    missing: MissingFile,
    writer: AsyncMutex<Lane>,
    readers: Semaphore,
    idle: Mutex<Vec<Live>>,
    /// The switches of connections that work now.
    busy: Mutex<Vec<Arc<Switch>>>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Connections {
    /// Connections to the file of `options`, none of which is open yet.
    pub(super) fn new(options: SqliteConnectOptions, missing: MissingFile) -> Self {
        let file = options.get_filename().to_owned();
        let options = options.busy_timeout(BUSY_TIMEOUT).disable_statement_logging();
        Self {
            options,
            file,
            missing,
            writer: AsyncMutex::new(Lane::default()),
            readers: Semaphore::new(READERS_MAX),
            idle: Mutex::new(Vec::new()),
            busy: Mutex::new(Vec::new()),
        }
    }

    /// The database file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Begins a write transaction under a fence, whose token is held against the slot's row in the same transaction.
    pub(super) async fn begin(&self, fence: &Fence, kind: TxKind) -> Result<Tx<'_>, Error> {
        self.begin_set(fence, kind, &[]).await
    }

    /// As [`begin`](Self::begin), with settings of the connection that must be made before BEGIN (`PRAGMA …`). The
    /// connection is closed afterwards, so that nothing else ever runs under them.
    pub(super) async fn begin_set(
        &self,
        fence: &Fence,
        kind: TxKind,
        settings: &'static [&'static str],
    ) -> Result<Tx<'_>, Error> {
        let mut tx = self.begin_unfenced(kind, settings).await?;
        match super::ledger::check_fence(tx.conn(), fence).await {
            Ok(()) => Ok(tx),
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }

    /// Begins a write transaction that no fence guards: for entering and leaving, which make and remove fences.
    pub(super) async fn begin_unfenced(
        &self,
        kind: TxKind,
        settings: &'static [&'static str],
    ) -> Result<Tx<'_>, Error> {
        let mut lane = self.writer.lock().await;
        give_way(&mut lane).await?;
        let mut live = match lane.live.take().filter(|live| !live.is_stopped()) {
            Some(live) => live,
            None => {
                lane.turns.reopened();
                lane.waits = BUSY_TIMEOUT;
                self.open_writer().await?
            }
        };
        if lane.waits != waits(kind) {
            lane.waits = waits(kind);
            let setting = format!("PRAGMA busy_timeout = {}", lane.waits.as_millis());
            let set = sqlx::query(sqlx::AssertSqlSafe(setting)).execute(&mut live.sqlx).await;
            set.map_err(failed("prepare the connection"))?;
        }
        for setting in settings {
            sqlx::query(*setting)
                .execute(&mut live.sqlx)
                .await
                .map_err(failed("prepare the connection"))?;
        }
        let busy = self.work(&live);
        live.switch.0.rolled_back.store(false, Ordering::Release);
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut live.sqlx).await;
        if let Err(error) = begun {
            let error = failed("begin to write")(error);
            if settings.is_empty() && error.class() == Some(FailureClass::Contention) {
                lane.live = Some(live);
            }
            return Err(error);
        }
        let is_kept = settings.is_empty();
        Ok(Tx { live, lane, _busy: busy, kind, is_kept, watch: Stopwatch::start() })
    }

    /// A connection that reads, outside a transaction.
    pub(super) async fn read(&self) -> Result<Reader<'_>, Error> {
        // The semaphore is never closed; an error here would be a mistake of ours.
        let permit =
            self.readers.acquire().await.map_err(|_| {
                Error::failed(FailureClass::Unreachable, "the connections are closed")
            })?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (live, is_kept) = match idle {
            Some(live) => (live, true),
            None => self.open_reader().await?,
        };
        let busy = self.work(&live);
        Ok(Reader {
            live,
            _permit: permit,
            _busy: busy,
            connections: self,
            is_kept,
            in_snapshot: false,
        })
    }

    /// A connection that reads one moment of the database for as long as it is held.
    pub(super) async fn snapshot(&self) -> Result<Reader<'_>, Error> {
        let mut reader = self.read().await?;
        reader.in_snapshot = true;
        sqlx::query("BEGIN").execute(reader.conn()).await.map_err(failed("begin to read"))?;
        Ok(reader)
    }

    /// Interrupts what runs now on every connection.
    pub(super) fn cancel(&self) {
        for switch in self.busy.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            switch.stop.store(true, Ordering::Release);
        }
    }

    /// How many connections work now.
    #[cfg(test)]
    pub(super) fn busy_count(&self) -> usize {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Closes every connection that does not work now.
    pub(super) async fn close(&self) {
        let writer = self.writer.lock().await.live.take();
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for live in writer.into_iter().chain(idle) {
            // Nothing is open on it; a failure to close loses nothing.
            if let Err(error) = live.sqlx.close().await {
                tracing::debug!(%error, "closing a connection");
            }
        }
    }

    async fn open_writer(&self) -> Result<Live, Error> {
        let mut options = self.options.clone().pragma("cache_size", format!("-{WRITER_CACHE_KIB}"));
        if self.missing == MissingFile::Made {
            options = options.create_if_missing(true);
            if let Some(parent) = self.file.parent() {
                tokio::fs::create_dir_all(parent).await.map_err(|error| {
                    Error::failed(
                        FailureClass::NotPermitted,
                        format!("could not make the folder {}: {error}", parent.display()),
                    )
                })?;
            }
        }
        Live::open(&options).await.map_err(failed("open the database"))
    }

    /// Opens a reader; the second value says whether it may be used again.
    async fn open_reader(&self) -> Result<(Live, bool), Error> {
        let is_there = tokio::fs::try_exists(&self.file).await.unwrap_or(true);
        if !is_there && self.missing != MissingFile::Refused {
            let empty = SqliteConnectOptions::new().disable_statement_logging();
            let live = Live::open(&empty).await.map_err(failed("open an empty database"))?;
            return Ok((live, false));
        }
        // Opened for writing all the same: only so can SQLite put right what a killed process left behind in the
        // journal. The commit hook and `query_only` see to it that a reader changes nothing else.
        let options = self.options.clone().pragma("query_only", "ON");
        let live = Live::open(&options).await.map_err(failed("open the database"))?;
        Ok((live, true))
    }

    /// Notes that a connection works, until the value is dropped.
    fn work(&self, live: &Live) -> Busy<'_> {
        let switch = Arc::clone(&live.switch.0);
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&switch));
        Busy { connections: self, switch }
    }
}

/// Leaves the lock free for as long as others may need to get it.
async fn give_way(lane: &mut Lane) -> Result<(), Error> {
    let Some(live) = lane.live.as_mut().filter(|live| !live.is_stopped()) else { return Ok(()) };
    let row = sqlx::query("PRAGMA data_version").fetch_one(&mut live.sqlx).await;
    let version = match row.and_then(|row| row.try_get(0)) {
        Ok(version) => version,
        Err(error) => {
            let error = failed("look for other writers")(error);
            if error.class() != Some(FailureClass::Contention) {
                lane.live = None;
            }
            return Err(error);
        }
    };
    let rest = lane.turns.rest(version);
    if !rest.is_zero() {
        tokio::time::sleep(rest).await;
    }
    Ok(())
}

/// A connection that works now, and can be cancelled.
#[derive(Debug)]
struct Busy<'a> {
    connections: &'a Connections,
    switch: Arc<Switch>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut busy = self.connections.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|switch| !Arc::ptr_eq(switch, &self.switch));
    }
}

/// A write transaction. Dropped without [`commit`](Self::commit) it is rolled back, and whatever it runs is interrupted.
pub(super) struct Tx<'a> {
    live: Live,
    lane: MutexGuard<'a, Lane>,
    _busy: Busy<'a>,
    kind: TxKind,
    is_kept: bool,
    watch: Stopwatch,
}

impl Tx<'_> {
    /// The connection, inside the transaction.
    pub(super) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.live.sqlx
    }

    /// Has the connection closed after the transaction, since what runs in it may leave settings or temporary objects
    /// behind.
    pub(super) fn close_afterwards(&mut self) {
        self.is_kept = false;
    }

    /// Commits. Returns the microseconds from the lock to the end of the commit. A future dropped in here may have
    /// committed: ask the ledger.
    pub(super) async fn commit(mut self) -> Result<u64, Error> {
        at_commit("sqlite", "before", self.kind.as_str())?;
        if self.live.switch.0.rolled_back.load(Ordering::Acquire) {
            return Err(Error::failed(
                FailureClass::Refused,
                "a statement ended the transaction that the step runs in; nothing was changed",
            )
            .with_help("remove COMMIT, END, ROLLBACK and RAISE(ROLLBACK, …) from the statements"));
        }
        self.live.switch.0.may_commit.store(true, Ordering::Release);
        let ended = sqlx::query("COMMIT").execute(&mut self.live.sqlx).await;
        self.live.switch.0.may_commit.store(false, Ordering::Release);
        if let Err(error) = ended {
            let error = commit_failed(&error);
            if matches!(error, Error::Failed(_)) {
                self.roll_back().await;
            }
            return Err(error);
        }
        let took_us = self.watch.elapsed_us();
        self.lane.turns.ended();
        if self.is_kept {
            self.lane.live = Some(self.live);
        }
        at_commit("sqlite", "after", self.kind.as_str())?;
        Ok(took_us)
    }

    /// Rolls back now, and keeps the connection where that works.
    pub(super) async fn roll_back(mut self) {
        let ended = sqlx::query("ROLLBACK").execute(&mut self.live.sqlx).await;
        self.lane.turns.ended();
        if ended.is_ok() && self.is_kept {
            self.lane.live = Some(self.live);
        }
    }
}

/// A connection that reads. Dropped without [`release`](Self::release) it is interrupted and closed.
pub(super) struct Reader<'a> {
    live: Live,
    _permit: SemaphorePermit<'a>,
    _busy: Busy<'a>,
    connections: &'a Connections,
    is_kept: bool,
    in_snapshot: bool,
}

impl Reader<'_> {
    /// The connection.
    pub(super) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.live.sqlx
    }

    /// Gives the connection back, to be used again.
    pub(super) async fn release(mut self) {
        if !self.is_kept || self.live.is_stopped() {
            return;
        }
        if self.in_snapshot && sqlx::query("ROLLBACK").execute(self.conn()).await.is_err() {
            return;
        }
        let mut idle = self.connections.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(self.live);
    }
}

#[cfg(all(test, feature = "failpoints"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture::{Database, entered, work};
    use super::super::{Sqlite, ledger};
    use super::*;
    use crate::driver::Session as _;
    use crate::run::Way;

    /// Where a child process of the test works.
    const URL: &str = "PHASEGATE_TEST_FAIL_POINT_URL";

    /// A step that is recorded in the ledger, through the transaction that has the fail points.
    async fn record(url: &str, token: u64) -> Result<(), Error> {
        let sqlite = Sqlite::open(url).await?;
        let (fence, _) = entered(&sqlite, token).await;
        let mut tx = sqlite.connections.begin(&fence, TxKind::Execute).await?;
        ledger::record(tx.conn(), &fence, &work("s", Way::Forward), 1, None).await?;
        tx.commit().await.map(|_| ())
    }

    /// The test runs itself as a child process, which dies or fails at a point that the environment names.
    #[tokio::test]
    async fn a_process_can_die_just_before_and_just_after_its_commit() {
        if let Ok(url) = std::env::var(URL) {
            let _scenario = fail::FailScenario::setup();
            assert!(matches!(record(&url, 1).await, Err(Error::Unknown(_))));
            return;
        }
        let table = [
            ("sqlite::before-commit::execute=return", "before", false),
            ("sqlite::after-commit::execute=return", "after", true),
            ("sqlite::after-commit::execute=return(unknown)", "unknown", true),
        ];
        for (point, case, is_committed) in table {
            let database = Database::with("").await;
            let name = "a_process_can_die_just_before_and_just_after_its_commit";
            let status = tokio::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &format!("driver::sqlite::connection::tests::{name}")])
                .env(URL, database.url(""))
                .env("FAILPOINTS", point)
                .output()
                .await
                .unwrap()
                .status;
            assert_eq!(status.success(), case == "unknown", "{case}: {status}");
            let sqlite = database.open().await;
            let is_applied = sqlite.is_applied(&"r1".into(), &"s".into(), Way::Forward).await;
            assert_eq!(is_applied.unwrap(), is_committed, "{case}");
        }
    }
}

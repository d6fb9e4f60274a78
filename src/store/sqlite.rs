//! Journals in a SQLite file: the default, for one machine.
//!
//! Invariants:
//! - Everything that decides and writes does so in one `BEGIN IMMEDIATE` transaction, on the one connection that this
//!   process writes with; SQLite itself keeps other processes out meanwhile.
//! - `synchronous=FULL` in write-ahead mode: a commit returns when the log is on disk.
//! - A connection on which a write failed or was given up half-way is dropped, never used again: dropping it rolls back.
//! - Reads are single statements, so each sees one moment of the file.
//!
//! Absent on purpose: repair. A damaged file is reported and left as it is.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, MutexGuard};

use crate::bounds::store::{SQLITE_READER_WITHIN, SQLITE_READERS_MAX};
use crate::run::{Actor, Event, RunId, Timestamp};

use super::chain::{self, Append, Head, Page, Sealed, Stamp, Stored};
use super::write::{Writing, is_end};
use super::{
    Arrival, Claimant, Create, Entry, Error, Fit, Lease, RunHeader, StepProgress, Store, lease,
    rows,
};

mod archive;
mod error;
mod file;

pub use archive::SqliteArchive;

use error::explain;

/// A state store in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    location: String,
    identity: String,
    readers: SqlitePool,
    /// The connection that writes, while nobody uses it; none until the first write, and after one that failed.
    writer: Mutex<Option<SqliteConnection>>,
}

/// A write transaction. Dropped without [`Write::finish`], it takes its connection along, which rolls it back.
struct Write<'a> {
    path: &'a Path,
    slot: MutexGuard<'a, Option<SqliteConnection>>,
    db: SqliteConnection,
}

impl SqliteStore {
    /// Opens the store in a file, and makes it when it is missing and `create` says so.
    pub async fn open(path: &Path, create: Create) -> Result<Self, Error> {
        let location = path.display().to_string();
        if location.is_empty() || location.starts_with(":memory:") {
            return Err(Error::Unreachable {
                message: format!(
                    "a state store can't be kept at \"{location}\": it must be a file"
                ),
            });
        }
        // Absolute, so that neither a change of folder nor a name like `file:x` means something else to SQLite.
        let path = std::path::absolute(path).map_err(|error| Error::Unreachable {
            message: format!("the state store {location} can't be opened: {error}"),
        })?;
        let identity = file::prepare(&path, create).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS_MAX)
            .acquire_timeout(SQLITE_READER_WITHIN)
            .test_before_acquire(false)
            .connect_lazy_with(file::options(&path).pragma("query_only", "ON"));
        Ok(Self { path, location, identity, readers, writer: Mutex::new(None) })
    }

    fn failed(&self) -> impl Fn(sqlx::Error) -> Error + '_ {
        |error| explain(&self.path, &error)
    }

    /// Begins a write transaction, behind those of this process that came before.
    async fn write(&self) -> Result<Write<'_>, Error> {
        let mut slot = self.writer.lock().await;
        if self.readers.is_closed() {
            return Err(explain(&self.path, &sqlx::Error::PoolClosed));
        }
        let mut db = match slot.take() {
            Some(db) => db,
            None => file::options(&self.path).connect().await.map_err(self.failed())?,
        };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut db).await.map_err(self.failed())?;
        Ok(Write { path: &self.path, slot, db })
    }
}

impl Write<'_> {
    /// Commits what succeeded, rolls back what was refused, and keeps the connection when that went well.
    async fn finish<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        let ended = match &result {
            Ok(_) => sqlx::query("COMMIT").execute(&mut self.db).await,
            Err(_) => sqlx::query("ROLLBACK").execute(&mut self.db).await,
        };
        match (result, ended) {
            (result, Ok(_)) => {
                *self.slot = Some(self.db);
                result
            }
            (Ok(_), Err(error)) => Err(explain(self.path, &error)),
            (Err(refusal), Err(_)) => Err(refusal),
        }
    }

    async fn create(
        &mut self,
        header: &RunHeader,
        by: &Actor,
        started: Event,
    ) -> Result<Entry, Error> {
        match self.head(&header.run).await {
            Err(Error::NoRun(_)) => {}
            Ok(head) => return Err(Error::Conflict { expected: 0, found: head.version }),
            Err(error) => return Err(error),
        }
        let stamp = Stamp { by, at: self.now().await? };
        let first = chain::first(&header.run, &stamp, started)?;
        let head = Head { version: 1, hash: first.entry.hash.as_str().to_owned() };
        self.put_run(header, &head).await?;
        let entry = first.entry.clone();
        self.insert(&header.run, vec![first]).await?;
        Ok(entry)
    }

    async fn put_lease(&mut self, lease: &Lease) -> Result<(), Error> {
        sqlx::query(PUT_LEASE)
            .bind(lease.run.as_str())
            .bind(lease.token.cast_signed())
            .bind(&lease.holder.id)
            .bind(&lease.holder.name)
            .bind(&lease.holder.host)
            .bind(&lease.holder.boot)
            .bind(i64::from(lease.holder.pid))
            .bind(lease.holder.pid_started.cast_signed())
            .bind(lease.since.as_unix_ms())
            .bind(lease.renewed_at.as_unix_ms())
            .bind(lease.expires_at.as_unix_ms())
            .execute(&mut self.db)
            .await
            .map_err(|error| explain(self.path, &error))?;
        Ok(())
    }

    async fn renew(&mut self, lease: &Lease, ttl_ms: u64) -> Result<Lease, Error> {
        let now = self.now().await?;
        let present = self.lease(&lease.run).await?;
        let renewed = lease::renew(present, lease, now, ttl_ms)?;
        self.put_lease(&renewed).await?;
        Ok(renewed)
    }

    async fn put_progress(&mut self, run: &RunId, progress: &[StepProgress]) -> Result<(), Error> {
        self.head(run).await?;
        for step in progress {
            sqlx::query(PUT_PROGRESS)
                .bind(run.as_str())
                .bind(step.step.as_str())
                .bind(step.rows_done.cast_signed())
                .bind(step.rows_total.map(u64::cast_signed))
                .bind(step.at.as_unix_ms())
                .bind(rows::throttled_json(step))
                .execute(&mut self.db)
                .await
                .map_err(|error| explain(self.path, &error))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Writing for Write<'_> {
    async fn now(&mut self) -> Result<Timestamp, Error> {
        let ms: i64 = sqlx::query_scalar(NOW)
            .fetch_one(&mut self.db)
            .await
            .map_err(|error| explain(self.path, &error))?;
        Ok(Timestamp::from_unix_ms(ms))
    }

    /// The head of a run's journal; [`Error::NoRun`] without one.
    async fn head(&mut self, run: &RunId) -> Result<Head, Error> {
        let row: Option<(i64, String)> =
            sqlx::query_as("SELECT head_version, head_hash FROM runs WHERE run = $1")
                .bind(run.as_str())
                .fetch_optional(&mut self.db)
                .await
                .map_err(|error| explain(self.path, &error))?;
        let (version, hash) = row.ok_or_else(|| Error::NoRun(run.clone()))?;
        Ok(Head { version: version.cast_unsigned(), hash })
    }

    async fn lease(&mut self, run: &RunId) -> Result<Option<lease::Row>, Error> {
        sqlx::query_as(LEASE)
            .bind(run.as_str())
            .fetch_optional(&mut self.db)
            .await
            .map_err(|error| explain(self.path, &error))
    }

    async fn insert(&mut self, run: &RunId, sealed: Vec<Sealed>) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::with_capacity(sealed.len());
        for Sealed { entry, body } in sealed {
            sqlx::query("INSERT INTO records (run, version, body, hash) VALUES ($1, $2, $3, $4)")
                .bind(run.as_str())
                .bind(entry.record.version.cast_signed())
                .bind(body)
                .bind(entry.hash.as_str())
                .execute(&mut self.db)
                .await
                .map_err(|error| explain(self.path, &error))?;
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn insert_stored(&mut self, run: &RunId, records: &[Stored]) -> Result<(), Error> {
        for record in records {
            sqlx::query("INSERT INTO records (run, version, body, hash) VALUES ($1, $2, $3, $4)")
                .bind(run.as_str())
                .bind(record.version)
                .bind(&record.body)
                .bind(&record.hash)
                .execute(&mut self.db)
                .await
                .map_err(|error| explain(self.path, &error))?;
        }
        Ok(())
    }

    async fn put_run(&mut self, header: &RunHeader, head: &Head) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO runs (run, plan, environment, started_ms, ended, head_version, head_hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(header.run.as_str())
        .bind(&header.plan)
        .bind(header.environment.as_str())
        .bind(header.started_at.as_unix_ms())
        .bind(header.ended)
        .bind(head.version.cast_signed())
        .bind(&head.hash)
        .execute(&mut self.db)
        .await
        .map_err(|error| explain(self.path, &error))?;
        Ok(())
    }

    async fn move_head(&mut self, header: &RunHeader, head: &Head) -> Result<(), Error> {
        sqlx::query("UPDATE runs SET head_version = $2, head_hash = $3, ended = $4 WHERE run = $1")
            .bind(header.run.as_str())
            .bind(head.version.cast_signed())
            .bind(&head.hash)
            .bind(header.ended)
            .execute(&mut self.db)
            .await
            .map_err(|error| explain(self.path, &error))?;
        Ok(())
    }

    async fn raise_token(&mut self, of: &RunId, token: u64) -> Result<(), Error> {
        sqlx::query(RAISE_TOKEN)
            .bind(of.as_str())
            .bind(token.cast_signed())
            .execute(&mut self.db)
            .await
            .map_err(|error| explain(self.path, &error))?;
        Ok(())
    }

    async fn taken_up_to(&mut self, run: &RunId) -> Result<Option<u64>, Error> {
        let row: Option<(Option<i64>,)> = sqlx::query_as(TAKEN_UP_TO)
            .bind(run.as_str())
            .fetch_optional(&mut self.db)
            .await
            .map_err(|error| explain(self.path, &error))?;
        Ok(row.and_then(|(token,)| token).map(i64::cast_unsigned))
    }

    async fn put_taken_up_to(&mut self, run: &RunId, token: u64) -> Result<(), Error> {
        sqlx::query("UPDATE runs SET taken_up_to = $2 WHERE run = $1")
            .bind(run.as_str())
            .bind(token.cast_signed())
            .execute(&mut self.db)
            .await
            .map_err(|error| explain(self.path, &error))?;
        Ok(())
    }

    async fn put_head(&mut self, run: &RunId, last: &Entry) -> Result<(), Error> {
        sqlx::query("UPDATE runs SET head_version = $2, head_hash = $3, ended = $4 WHERE run = $1")
            .bind(run.as_str())
            .bind(last.record.version.cast_signed())
            .bind(last.hash.as_str())
            .bind(is_end(last))
            .execute(&mut self.db)
            .await
            .map_err(|error| explain(self.path, &error))?;
        Ok(())
    }
}

const NOW: &str = "SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)";

const LEASE: &str = "SELECT token, holder_id, holder_name, holder_host, holder_boot, holder_pid, holder_pid_started, \
     since_ms, renewed_ms, expires_ms FROM leases WHERE run = $1";

const PUT_LEASE: &str = "INSERT INTO leases (run, token, holder_id, holder_name, holder_host, holder_boot, holder_pid, \
     holder_pid_started, since_ms, renewed_ms, expires_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
     ON CONFLICT (run) DO UPDATE SET token = excluded.token, holder_id = excluded.holder_id, \
     holder_name = excluded.holder_name, holder_host = excluded.holder_host, holder_boot = excluded.holder_boot, \
     holder_pid = excluded.holder_pid, holder_pid_started = excluded.holder_pid_started, \
     since_ms = excluded.since_ms, renewed_ms = excluded.renewed_ms, expires_ms = excluded.expires_ms";

/// A lease that was given back, if there was none; otherwise only its token changes.
const RAISE_TOKEN: &str = "INSERT INTO leases (run, token, holder_id, holder_name, holder_host, holder_boot, holder_pid, \
     holder_pid_started, since_ms, renewed_ms, expires_ms) VALUES ($1, $2, NULL, '', '', '', 0, 0, 0, 0, 0) \
     ON CONFLICT (run) DO UPDATE SET token = max(token, excluded.token)";

const TAKEN_UP_TO: &str = "SELECT taken_up_to FROM runs WHERE run = $1";

const PUT_PROGRESS: &str = "INSERT INTO progress (run, step, rows_done, rows_total, at_ms, throttled) \
     VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (run, step) DO UPDATE SET rows_done = excluded.rows_done, rows_total = excluded.rows_total, \
     at_ms = excluded.at_ms, throttled = excluded.throttled";

/// The head on every row, so that one statement sees both at one moment; the record's columns are NULL when there is none.
const READ: &str = "SELECT r.head_version, r.head_hash, e.version, e.body, e.hash FROM runs r \
     LEFT JOIN records e ON e.run = r.run AND e.version >= $2 WHERE r.run = $1 ORDER BY e.version LIMIT $3";

#[async_trait]
impl Store for SqliteStore {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn location(&self) -> String {
        self.location.clone()
    }

    fn place(&self) -> String {
        let absolute = std::path::absolute(&self.path);
        absolute.map_or_else(|_| self.location.clone(), |path| path.display().to_string())
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        let ms: i64 =
            sqlx::query_scalar(NOW).fetch_one(&self.readers).await.map_err(self.failed())?;
        Ok(Timestamp::from_unix_ms(ms))
    }

    async fn create(&self, header: &RunHeader, by: &Actor, started: Event) -> Result<Entry, Error> {
        let mut write = self.write().await?;
        let created = write.create(header, by, started).await;
        write.finish(created).await
    }

    async fn append(
        &self,
        run: &RunId,
        expected_version: u64,
        lease: Option<&Lease>,
        by: &Actor,
        events: Vec<Event>,
    ) -> Result<Vec<Entry>, Error> {
        let mut write = self.write().await?;
        let appended = write.append(&Append { run, expected_version, by }, lease, events).await;
        write.finish(appended).await
    }

    async fn read(&self, run: &RunId, after_version: u64, limit: u32) -> Result<Vec<Entry>, Error> {
        let page = Page { after_version, limit };
        let rows = sqlx::query_as(READ)
            .bind(run.as_str())
            .bind(after_version.cast_signed())
            .bind(page.rows())
            .fetch_all(&self.readers)
            .await
            .map_err(self.failed())?;
        rows::entries(run, page, rows)
    }

    async fn version(&self, run: &RunId) -> Result<u64, Error> {
        let version: Option<i64> =
            sqlx::query_scalar("SELECT head_version FROM runs WHERE run = $1")
                .bind(run.as_str())
                .fetch_optional(&self.readers)
                .await
                .map_err(self.failed())?;
        version.map(i64::cast_unsigned).ok_or_else(|| Error::NoRun(run.clone()))
    }

    async fn runs(&self) -> Result<Vec<RunHeader>, Error> {
        let rows: Vec<rows::RunRow> = sqlx::query_as(
            "SELECT run, plan, environment, started_ms, ended FROM runs ORDER BY started_ms DESC, run DESC",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(self.failed())?;
        Ok(rows.into_iter().map(RunHeader::from).collect())
    }

    async fn acquire(
        &self,
        run: &RunId,
        claimant: &Claimant,
        ttl_ms: u64,
        is_dead: &(dyn for<'a> Fn(&'a Claimant) -> bool + Send + Sync),
    ) -> Result<Lease, Error> {
        let mut write = self.write().await?;
        let acquired = async {
            write.head(&run.served()).await?;
            let present = write.lease(run).await?;
            let now = write.now().await?;
            let claim = lease::Claim { run, claimant, ttl_ms, now };
            let lease = lease::claim(present, &claim, is_dead)?;
            write.put_lease(&lease).await?;
            Ok(lease)
        }
        .await;
        write.finish(acquired).await
    }

    async fn renew(&self, lease: &Lease, ttl_ms: u64) -> Result<Lease, Error> {
        let mut write = self.write().await?;
        let renewed = write.renew(lease, ttl_ms).await;
        write.finish(renewed).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), Error> {
        let mut write = self.write().await?;
        let released = sqlx::query(
            "UPDATE leases SET holder_id = NULL WHERE run = $1 AND token = $2 AND holder_id = $3",
        )
        .bind(lease.run.as_str())
        .bind(lease.token.cast_signed())
        .bind(&lease.holder.id)
        .execute(&mut write.db)
        .await
        .map(|_| ())
        .map_err(self.failed());
        write.finish(released).await
    }

    async fn lease(&self, run: &RunId) -> Result<Option<Lease>, Error> {
        let row: Option<lease::Row> = sqlx::query_as(LEASE)
            .bind(run.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(self.failed())?;
        Ok(row.and_then(|row| row.into_lease(run)))
    }

    async fn put_progress(&self, run: &RunId, progress: &[StepProgress]) -> Result<(), Error> {
        let mut write = self.write().await?;
        let put = write.put_progress(run, progress).await;
        write.finish(put).await
    }

    async fn progress(&self, run: &RunId) -> Result<Vec<StepProgress>, Error> {
        let rows: Vec<rows::ProgressRow> = sqlx::query_as(
            "SELECT step, rows_done, rows_total, at_ms, throttled FROM progress WHERE run = $1 ORDER BY step",
        )
        .bind(run.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(self.failed())?;
        Ok(rows.into_iter().map(StepProgress::from).collect())
    }

    async fn import(
        &self,
        arrival: &Arrival,
        is_dead: &(dyn for<'a> Fn(&'a Claimant) -> bool + Send + Sync),
    ) -> Result<Fit, Error> {
        let mut write = self.write().await?;
        let imported = write.import(&self.identity, arrival, is_dead).await;
        write.finish(imported).await
    }

    async fn taken_up_to(&self, run: &RunId) -> Result<Option<u64>, Error> {
        let row: Option<(Option<i64>,)> = sqlx::query_as(TAKEN_UP_TO)
            .bind(run.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(self.failed())?;
        Ok(row.and_then(|(token,)| token).map(i64::cast_unsigned))
    }

    async fn close(&self) {
        self.readers.close().await;
        if let Some(db) = self.writer.lock().await.take() {
            // Closing writes nothing that is needed: every commit is in the log already.
            let _ = db.close().await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::run::{EnvironmentName, Proof};

    async fn pragma<T>(db: &mut SqliteConnection, sql: &'static str) -> T
    where
        for<'r> T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
    {
        sqlx::query_scalar(sql).fetch_one(db).await.unwrap()
    }

    async fn open(folder: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open(&folder.path().join("state.db"), Create::IfMissing).await.unwrap()
    }

    /// What durability rests on, read back from the connection that writes.
    #[tokio::test]
    async fn commits_wait_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder).await;
        let mut write = store.write().await.unwrap();
        assert_eq!(pragma::<i64>(&mut write.db, "PRAGMA synchronous").await, 2);
        assert_eq!(pragma::<String>(&mut write.db, "PRAGMA journal_mode").await, "wal");
        assert_eq!(pragma::<i64>(&mut write.db, "PRAGMA foreign_keys").await, 1);
        assert_eq!(pragma::<i64>(&mut write.db, "PRAGMA busy_timeout").await, 5_000);
        write.finish(Ok(())).await.unwrap();
        let mut reader = store.readers.acquire().await.unwrap();
        assert_eq!(pragma::<i64>(&mut reader, "PRAGMA query_only").await, 1);
        drop(reader);
        store.close().await;
    }

    /// SQLite's own "database or disk is full", by a limit on the pages of the connection that writes.
    #[tokio::test]
    async fn a_full_disk_keeps_what_was_there_and_nothing_of_what_was_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder).await;
        let by = Actor { name: "ana".into(), proof: Proof::Claimed, host: "box".into() };
        let run = RunId::new("0190aaaa-0000-7000-8000-000000000001");
        begin(&store, &run).await;
        let mut write = store.write().await.unwrap();
        sqlx::query("PRAGMA max_page_count = 40").execute(&mut write.db).await.unwrap();
        write.finish(Ok(())).await.unwrap();

        let big = || Event::Paused { reason: Some("x".repeat(20_000)) };
        let mut version = 1;
        let error = loop {
            match store.append(&run, version, None, &by, vec![big(), big()]).await {
                Ok(_) => version += 2,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
        assert!(error.to_string().contains("no room left"), "{error}");
        assert!(version > 1);
        assert_eq!(store.version(&run).await.unwrap(), version);
        assert_eq!(store.read(&run, 0, 100).await.unwrap().len() as u64, version);
        // The connection with the limit was given up with the failed write, so this one has room.
        store.append(&run, version, None, &by, vec![big()]).await.unwrap();
        store.close().await;
    }

    /// Puts a run there without a plan, which is nothing to these tests.
    async fn begin(store: &SqliteStore, run: &RunId) {
        let by = Actor { name: "ana".into(), proof: Proof::Claimed, host: "box".into() };
        let mut write = store.write().await.unwrap();
        let at = write.now().await.unwrap();
        let first =
            chain::seal(run, &Head::origin(run), &Stamp { by: &by, at }, vec![Event::Resumed]);
        let first = first.unwrap();
        let header = RunHeader {
            run: run.clone(),
            plan: "p".into(),
            environment: EnvironmentName::new("default"),
            started_at: at,
            ended: false,
        };
        let head = Head { version: 1, hash: first[0].entry.hash.as_str().to_owned() };
        write.put_run(&header, &head).await.unwrap();
        write.insert(run, first).await.unwrap();
        write.finish(Ok(())).await.unwrap();
    }
}

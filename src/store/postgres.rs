//! Journals in PostgreSQL: for teams, whose machines see and drive the same runs.
//!
//! Invariants:
//! - Everything that decides and writes for a run does so in one READ COMMITTED transaction that first locks the run's row,
//!   so appends and leases of a run come one after another, and the clock is read behind the lock.
//! - `synchronous_commit` is `on` (or stronger) in every session: a commit returns when the log is on disk.
//! - A commit whose answer was lost is looked up before anything is said about it (see `PostgresStore::settle`).
//! - Reads are single statements, so each sees one moment.
//! - Whoever holds a lease keeps a session open, and the lease is free as soon as that is gone (see `presence`).
//!
//! Absent on purpose: support for poolers that share a session among clients by transaction; the settings of a session
//! must hold. Any role will do that may create a schema, or owns one called `phasegate`.

use async_trait::async_trait;
use sqlx::Postgres;
use sqlx::postgres::{PgConnection, PgPool};

use crate::bounds::store::POSTGRES_CONNECTIONS_MAX;
use crate::run::{Actor, Event, RunId, Timestamp};

use super::chain::{self, Append, Head, Page, Sealed, Stamp, Stored};
use super::write::{Writing, is_end};
use super::{
    Arrival, Claimant, Create, Entry, Error, Fit, Lease, RunHeader, StepProgress, Store, lease,
    rows,
};

mod archive;
mod error;
mod presence;
mod server;

pub use archive::PostgresArchive;

use error::{explain, unreachable};
use presence::{Presence, SessionId};

/// A state store in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    place: String,
    identity: String,
    pool: PgPool,
    presence: Presence,
}

/// A transaction that writes. Dropped without a commit, it is rolled back.
struct Write<'a> {
    place: &'a str,
    tx: sqlx::Transaction<'static, Postgres>,
}

impl PostgresStore {
    /// Opens the store in the database of a URL, and makes it when it is missing and `create` says so.
    pub async fn open(url: &str, create: Create) -> Result<Self, Error> {
        let (options, place) = server::read_url(url)?;
        let identity = server::prepare(&options, &place, create).await?;
        let pool = server::pool(options.clone(), POSTGRES_CONNECTIONS_MAX);
        Ok(Self { place, identity, pool, presence: Presence::new(options) })
    }

    fn failed(&self) -> impl Fn(sqlx::Error) -> Error + '_ {
        |error| explain(&self.place, &error)
    }

    async fn write(&self) -> Result<Write<'_>, Error> {
        let tx = self
            .pool
            .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await
            .map_err(self.failed())?;
        Ok(Write { place: &self.place, tx })
    }

    /// Commits an append. When the answer is lost, says what became of it: the run's row is locked again, which waits until
    /// the lost session is over, and then the last record is there with our hash, or it never will be.
    async fn settle(&self, write: Write<'_>, run: &RunId, last: &Entry) -> Result<(), Error> {
        let Err(error) = write.commit().await else { return Ok(()) };
        if !matches!(error, Error::Unreachable { .. }) {
            return Err(error);
        }
        let kept = async {
            let mut again = self.write().await?;
            again.head(run).await?;
            sqlx::query_scalar::<_, String>(
                "SELECT hash FROM phasegate.state_records WHERE run = $1 AND version = $2",
            )
            .bind(run.as_str())
            .bind(last.record.version.cast_signed())
            .fetch_optional(&mut *again.tx)
            .await
            .map_err(self.failed())
        };
        match kept.await {
            Ok(Some(hash)) if hash == last.hash.as_str() => Ok(()),
            Ok(_) => Err(error),
            Err(_) => Err(unreachable(
                &self.place,
                "the connection was lost during a commit, and whether its records were kept is not known",
            )),
        }
    }
}

impl Write<'_> {
    async fn commit(self) -> Result<(), Error> {
        self.tx.commit().await.map_err(|error| explain(self.place, &error))
    }

    async fn create(
        &mut self,
        header: &RunHeader,
        by: &Actor,
        started: Event,
    ) -> Result<Entry, Error> {
        let stamp = Stamp { by, at: self.now().await? };
        let first = chain::first(&header.run, &stamp, started)?;
        let head = Head { version: 1, hash: first.entry.hash.as_str().to_owned() };
        self.put_run(header, &head).await?;
        let entry = first.entry.clone();
        self.insert(&header.run, vec![first]).await?;
        Ok(entry)
    }

    async fn put_lease(&mut self, lease: &Lease, session: Option<SessionId>) -> Result<(), Error> {
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
            .bind(session.map(SessionId::pid))
            .bind(session.map(SessionId::began_us))
            .execute(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))?;
        Ok(())
    }
}

#[async_trait]
impl Writing for Write<'_> {
    async fn now(&mut self) -> Result<Timestamp, Error> {
        let ms: i64 = sqlx::query_scalar(NOW)
            .fetch_one(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))?;
        Ok(Timestamp::from_unix_ms(ms))
    }

    /// Locks a run, and gives the head of its journal; [`Error::NoRun`] without one.
    async fn head(&mut self, run: &RunId) -> Result<Head, Error> {
        let row: Option<(i64, String)> = sqlx::query_as(
            "SELECT head_version, head_hash FROM phasegate.state_runs WHERE run = $1 FOR UPDATE",
        )
        .bind(run.as_str())
        .fetch_optional(&mut *self.tx)
        .await
        .map_err(|error| explain(self.place, &error))?;
        let (version, hash) = row.ok_or_else(|| Error::NoRun(run.clone()))?;
        Ok(Head { version: version.cast_unsigned(), hash })
    }

    async fn lease(&mut self, run: &RunId) -> Result<Option<lease::Row>, Error> {
        sqlx::query_as(LEASE)
            .bind(run.as_str())
            .fetch_optional(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))
    }

    async fn insert(&mut self, run: &RunId, sealed: Vec<Sealed>) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::with_capacity(sealed.len());
        for Sealed { entry, body } in sealed {
            sqlx::query(
                "INSERT INTO phasegate.state_records (run, version, body, hash) VALUES ($1, $2, $3, $4)",
            )
            .bind(run.as_str())
            .bind(entry.record.version.cast_signed())
            .bind(body)
            .bind(entry.hash.as_str())
            .execute(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))?;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Whether the session of whoever holds the lease of a run is gone for sure.
    async fn is_left_alone(&mut self, run: &RunId) -> Result<bool, Error> {
        is_left_alone(&mut self.tx, run).await.map_err(|error| explain(self.place, &error))
    }

    async fn insert_stored(&mut self, run: &RunId, records: &[Stored]) -> Result<(), Error> {
        for record in records {
            sqlx::query(
                "INSERT INTO phasegate.state_records (run, version, body, hash) VALUES ($1, $2, $3, $4)",
            )
            .bind(run.as_str())
            .bind(record.version)
            .bind(&record.body)
            .bind(&record.hash)
            .execute(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))?;
        }
        Ok(())
    }

    async fn put_run(&mut self, header: &RunHeader, head: &Head) -> Result<(), Error> {
        let inserted = sqlx::query(
            "INSERT INTO phasegate.state_runs (run, plan, environment, started_ms, ended, head_version, head_hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (run) DO NOTHING",
        )
        .bind(header.run.as_str())
        .bind(&header.plan)
        .bind(header.environment.as_str())
        .bind(header.started_at.as_unix_ms())
        .bind(header.ended)
        .bind(head.version.cast_signed())
        .bind(&head.hash)
        .execute(&mut *self.tx)
        .await
        .map_err(|error| explain(self.place, &error))?;
        if inserted.rows_affected() == 0 {
            let found = self.head(&header.run).await?.version;
            return Err(Error::Conflict { expected: 0, found });
        }
        Ok(())
    }

    async fn move_head(&mut self, header: &RunHeader, head: &Head) -> Result<(), Error> {
        sqlx::query("UPDATE phasegate.state_runs SET head_version = $2, head_hash = $3, ended = $4 WHERE run = $1")
            .bind(header.run.as_str())
            .bind(head.version.cast_signed())
            .bind(&head.hash)
            .bind(header.ended)
            .execute(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))?;
        Ok(())
    }

    async fn raise_token(&mut self, of: &RunId, token: u64) -> Result<(), Error> {
        sqlx::query(RAISE_TOKEN)
            .bind(of.as_str())
            .bind(token.cast_signed())
            .execute(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))?;
        Ok(())
    }

    async fn taken_up_to(&mut self, run: &RunId) -> Result<Option<u64>, Error> {
        let row: Option<(Option<i64>,)> = sqlx::query_as(TAKEN_UP_TO)
            .bind(run.as_str())
            .fetch_optional(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))?;
        Ok(row.and_then(|(token,)| token).map(i64::cast_unsigned))
    }

    async fn put_taken_up_to(&mut self, run: &RunId, token: u64) -> Result<(), Error> {
        sqlx::query("UPDATE phasegate.state_runs SET taken_up_to = $2 WHERE run = $1")
            .bind(run.as_str())
            .bind(token.cast_signed())
            .execute(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))?;
        Ok(())
    }

    async fn put_head(&mut self, run: &RunId, last: &Entry) -> Result<(), Error> {
        sqlx::query("UPDATE phasegate.state_runs SET head_version = $2, head_hash = $3, ended = $4 WHERE run = $1")
            .bind(run.as_str())
            .bind(last.record.version.cast_signed())
            .bind(last.hash.as_str())
            .bind(is_end(last))
            .execute(&mut *self.tx)
            .await
            .map_err(|error| explain(self.place, &error))?;
        Ok(())
    }
}

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

const LEASE: &str = "SELECT token, holder_id, holder_name, holder_host, holder_boot, holder_pid, holder_pid_started, \
     since_ms, renewed_ms, expires_ms FROM phasegate.state_leases WHERE run = $1";

const HOLDERS_SESSION: &str =
    "SELECT session_pid, session_began_us FROM phasegate.state_leases WHERE run = $1";

const PUT_LEASE: &str = "INSERT INTO phasegate.state_leases (run, token, holder_id, holder_name, holder_host, holder_boot, \
     holder_pid, holder_pid_started, since_ms, renewed_ms, expires_ms, session_pid, session_began_us) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
     ON CONFLICT (run) DO UPDATE SET token = excluded.token, holder_id = excluded.holder_id, \
     holder_name = excluded.holder_name, holder_host = excluded.holder_host, holder_boot = excluded.holder_boot, \
     holder_pid = excluded.holder_pid, holder_pid_started = excluded.holder_pid_started, \
     since_ms = excluded.since_ms, renewed_ms = excluded.renewed_ms, expires_ms = excluded.expires_ms, \
     session_pid = excluded.session_pid, session_began_us = excluded.session_began_us";

/// A lease that was given back, if there was none; otherwise only its token changes.
const RAISE_TOKEN: &str = "INSERT INTO phasegate.state_leases AS known (run, token, holder_id, holder_name, holder_host, \
     holder_boot, holder_pid, holder_pid_started, since_ms, renewed_ms, expires_ms) \
     VALUES ($1, $2, NULL, '', '', '', 0, 0, 0, 0, 0) \
     ON CONFLICT (run) DO UPDATE SET token = greatest(known.token, excluded.token)";

const TAKEN_UP_TO: &str = "SELECT taken_up_to FROM phasegate.state_runs WHERE run = $1";

const PUT_PROGRESS: &str = "INSERT INTO phasegate.state_progress (run, step, rows_done, rows_total, at_ms, throttled) \
     VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (run, step) DO UPDATE SET rows_done = excluded.rows_done, rows_total = excluded.rows_total, \
     at_ms = excluded.at_ms, throttled = excluded.throttled";

/// The head on every row, so that one statement sees both at one moment; the record's columns are NULL when there is none.
const READ: &str = "SELECT r.head_version, r.head_hash, e.version, e.body, e.hash FROM phasegate.state_runs r \
     LEFT JOIN phasegate.state_records e ON e.run = r.run AND e.version >= $2 \
     WHERE r.run = $1 ORDER BY e.version LIMIT $3";

/// Whether the session of whoever holds the lease of a run is gone for sure.
async fn is_left_alone(conn: &mut PgConnection, run: &RunId) -> Result<bool, sqlx::Error> {
    let row: Option<(Option<i32>, Option<i64>)> =
        sqlx::query_as(HOLDERS_SESSION).bind(run.as_str()).fetch_optional(&mut *conn).await?;
    match row.and_then(|(pid, began_us)| SessionId::new(pid, began_us)) {
        Some(session) => presence::is_gone(conn, session).await,
        None => Ok(false),
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn location(&self) -> String {
        self.place.clone()
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        let ms: i64 = sqlx::query_scalar(NOW).fetch_one(&self.pool).await.map_err(self.failed())?;
        Ok(Timestamp::from_unix_ms(ms))
    }

    async fn create(&self, header: &RunHeader, by: &Actor, started: Event) -> Result<Entry, Error> {
        let mut write = self.write().await?;
        let entry = write.create(header, by, started).await?;
        self.settle(write, &header.run, &entry).await?;
        Ok(entry)
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
        let entries = write.append(&Append { run, expected_version, by }, lease, events).await?;
        match entries.last() {
            Some(last) => self.settle(write, run, last).await?,
            None => write.commit().await?,
        }
        Ok(entries)
    }

    async fn read(&self, run: &RunId, after_version: u64, limit: u32) -> Result<Vec<Entry>, Error> {
        let page = Page { after_version, limit };
        let rows = sqlx::query_as(READ)
            .bind(run.as_str())
            .bind(after_version.cast_signed())
            .bind(page.rows())
            .fetch_all(&self.pool)
            .await
            .map_err(self.failed())?;
        rows::entries(run, page, rows)
    }

    async fn version(&self, run: &RunId) -> Result<u64, Error> {
        let version: Option<i64> =
            sqlx::query_scalar("SELECT head_version FROM phasegate.state_runs WHERE run = $1")
                .bind(run.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(self.failed())?;
        version.map(i64::cast_unsigned).ok_or_else(|| Error::NoRun(run.clone()))
    }

    async fn runs(&self) -> Result<Vec<RunHeader>, Error> {
        let rows: Vec<rows::RunRow> = sqlx::query_as(
            "SELECT run, plan, environment, started_ms, ended FROM phasegate.state_runs \
             ORDER BY started_ms DESC, run COLLATE \"C\" DESC",
        )
        .fetch_all(&self.pool)
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
        let session = self.presence.session().await;
        let mut write = self.write().await?;
        write.head(&run.served()).await?;
        let present = write.lease(run).await?;
        let is_left_alone = write.is_left_alone(run).await?;
        let now = write.now().await?;
        let claim = lease::Claim { run, claimant, ttl_ms, now };
        let is_gone = |holder: &Claimant| is_left_alone || is_dead(holder);
        let lease = lease::claim(present, &claim, &is_gone)?;
        write.put_lease(&lease, session).await?;
        write.commit().await?;
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease, ttl_ms: u64) -> Result<Lease, Error> {
        let session = self.presence.session().await;
        let mut write = self.write().await?;
        write.head(&lease.run.served()).await?;
        let now = write.now().await?;
        let present = write.lease(&lease.run).await?;
        let renewed = lease::renew(present, lease, now, ttl_ms)?;
        write.put_lease(&renewed, session).await?;
        write.commit().await?;
        Ok(renewed)
    }

    async fn release(&self, lease: &Lease) -> Result<(), Error> {
        sqlx::query(
            "UPDATE phasegate.state_leases SET holder_id = NULL WHERE run = $1 AND token = $2 AND holder_id = $3",
        )
        .bind(lease.run.as_str())
        .bind(lease.token.cast_signed())
        .bind(&lease.holder.id)
        .execute(&self.pool)
        .await
        .map_err(self.failed())?;
        Ok(())
    }

    async fn lease(&self, run: &RunId) -> Result<Option<Lease>, Error> {
        let mut conn = self.pool.acquire().await.map_err(self.failed())?;
        // Asked first: whoever takes the lease meanwhile is not taken for one who left it.
        let is_left_alone = is_left_alone(&mut conn, run).await.map_err(self.failed())?;
        let row: Option<lease::Row> = sqlx::query_as(LEASE)
            .bind(run.as_str())
            .fetch_optional(&mut *conn)
            .await
            .map_err(self.failed())?;
        let lease = row.and_then(|row| row.into_lease(run));
        Ok(lease.map(|lease| Lease { is_left_alone, ..lease }))
    }

    async fn put_progress(&self, run: &RunId, progress: &[StepProgress]) -> Result<(), Error> {
        let mut write = self.write().await?;
        write.head(run).await?;
        for step in progress {
            sqlx::query(PUT_PROGRESS)
                .bind(run.as_str())
                .bind(step.step.as_str())
                .bind(step.rows_done.cast_signed())
                .bind(step.rows_total.map(u64::cast_signed))
                .bind(step.at.as_unix_ms())
                .bind(rows::throttled_json(step))
                .execute(&mut *write.tx)
                .await
                .map_err(self.failed())?;
        }
        write.commit().await
    }

    async fn progress(&self, run: &RunId) -> Result<Vec<StepProgress>, Error> {
        let rows: Vec<rows::ProgressRow> = sqlx::query_as(
            "SELECT step, rows_done, rows_total, at_ms, throttled FROM phasegate.state_progress WHERE run = $1 \
             ORDER BY step COLLATE \"C\"",
        )
        .bind(run.as_str())
        .fetch_all(&self.pool)
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
        let fit = write.import(&self.identity, arrival, is_dead).await?;
        // A commit whose answer is lost needs no looking up: importing it again finds out, and changes nothing twice.
        write.commit().await?;
        Ok(fit)
    }

    async fn taken_up_to(&self, run: &RunId) -> Result<Option<u64>, Error> {
        let row: Option<(Option<i64>,)> = sqlx::query_as(TAKEN_UP_TO)
            .bind(run.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(self.failed())?;
        Ok(row.and_then(|(token,)| token).map(i64::cast_unsigned))
    }

    async fn close(&self) {
        self.presence.end().await;
        self.pool.close().await;
    }
}

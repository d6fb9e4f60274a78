//! A PostgreSQL store that is only read: on one connection whose transactions are read-only.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use crate::bounds::store::PAGE_RECORDS;
use crate::run::{RunId, Timestamp};

use super::super::archive::{Archive, KeptLease, Reading};
use super::super::history::Kept;
use super::super::{Error, lease};
use super::NOW;
use super::error::damaged;
use super::server::{self, answered};

/// A database with a store in it.
#[derive(Debug)]
pub struct PostgresArchive {
    place: String,
    db: PgConnection,
}

/// A lease with its name.
#[derive(sqlx::FromRow)]
struct LeaseRow {
    run: String,
    #[sqlx(flatten)]
    row: lease::Row,
}

impl PostgresArchive {
    /// Opens the store in the database of a URL.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let (options, place) = server::read_url(url)?;
        let db = server::look_at(&options, &place).await?;
        Ok(Self { place, db })
    }
}

#[async_trait]
impl Archive for PostgresArchive {
    fn location(&self) -> String {
        self.place.clone()
    }

    async fn identity(&mut self) -> Result<String, Error> {
        let identity = sqlx::query_scalar("SELECT identity FROM phasegate.state_store");
        let identity: Option<String> =
            answered(&self.place, identity.fetch_optional(&mut self.db)).await?;
        identity.ok_or_else(|| damaged(&self.place, "its identity is missing"))
    }

    async fn now(&mut self) -> Result<Timestamp, Error> {
        let now = sqlx::query_scalar(NOW).fetch_one(&mut self.db);
        let ms: i64 = answered(&self.place, now).await?;
        Ok(Timestamp::from_unix_ms(ms))
    }

    /// The server checks its pages as they are read, and a check reads all of them; beyond that it has nothing to ask that
    /// every role may.
    async fn integrity(&mut self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    async fn names(&mut self) -> Result<Vec<RunId>, Error> {
        let names = sqlx::query_scalar(
            "SELECT run FROM (SELECT run, started_ms FROM phasegate.state_runs UNION ALL \
             SELECT DISTINCT e.run, 0 FROM phasegate.state_records e \
             WHERE NOT EXISTS (SELECT FROM phasegate.state_runs r WHERE r.run = e.run)) AS known \
             ORDER BY started_ms DESC, run COLLATE \"C\" DESC",
        );
        let names: Vec<String> = answered(&self.place, names.fetch_all(&mut self.db)).await?;
        Ok(names.into_iter().map(RunId::new).collect())
    }

    async fn run(&mut self, run: &RunId) -> Result<Option<Kept>, Error> {
        let mut reading = Reading::of(run);
        loop {
            let page = sqlx::query_as(
                "SELECT r.plan, r.environment, r.started_ms, r.ended, r.head_version, r.head_hash, \
                 e.version, e.body, e.hash FROM phasegate.state_runs r \
                 LEFT JOIN phasegate.state_records e ON e.run = r.run AND e.version > $2 \
                 WHERE r.run = $1 ORDER BY e.version LIMIT $3",
            )
            .bind(run.as_str())
            .bind(reading.after())
            .bind(i64::from(PAGE_RECORDS))
            .fetch_all(&mut self.db);
            let page = answered(&self.place, page).await?;
            if !reading.take(page) {
                return Ok(reading.done());
            }
        }
    }

    async fn leases(&mut self) -> Result<Vec<KeptLease>, Error> {
        let rows = sqlx::query_as(
            "SELECT run, token, holder_id, holder_name, holder_host, holder_boot, holder_pid, holder_pid_started, \
             since_ms, renewed_ms, expires_ms FROM phasegate.state_leases ORDER BY run COLLATE \"C\"",
        );
        let rows: Vec<LeaseRow> = answered(&self.place, rows.fetch_all(&mut self.db)).await?;
        Ok(rows
            .into_iter()
            .map(|row| KeptLease { of: RunId::new(row.run), row: row.row })
            .collect())
    }
}

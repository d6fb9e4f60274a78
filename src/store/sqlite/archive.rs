//! A SQLite store that is only read. The file is opened read-only, so that not even its log is written back into it.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use crate::bounds::message::DAMAGE_LINES_MAX;
use crate::bounds::store::PAGE_RECORDS;
use crate::run::{RunId, Timestamp};

use super::super::archive::{Archive, KeptLease, Reading};
use super::super::history::Kept;
use super::super::{Error, lease};
use super::error::{damaged, explain};
use super::{NOW, file};

/// A SQLite file with a store in it.
#[derive(Debug)]
pub struct SqliteArchive {
    path: PathBuf,
    db: SqliteConnection,
}

/// A lease with its name.
#[derive(sqlx::FromRow)]
struct LeaseRow {
    run: String,
    #[sqlx(flatten)]
    row: lease::Row,
}

impl SqliteArchive {
    /// Opens a file.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|error| Error::Unreachable {
            message: format!("the state store {} can't be opened: {error}", path.display()),
        })?;
        let db = file::look_at(&path).await?;
        Ok(Self { path, db })
    }

    fn failed(&self) -> impl Fn(sqlx::Error) -> Error + use<> {
        let path = self.path.clone();
        move |error| explain(&path, &error)
    }
}

#[async_trait]
impl Archive for SqliteArchive {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    async fn identity(&mut self) -> Result<String, Error> {
        let failed = self.failed();
        let identity: Option<String> = sqlx::query_scalar("SELECT identity FROM store")
            .fetch_optional(&mut self.db)
            .await
            .map_err(failed)?;
        identity.ok_or_else(|| damaged(&self.path, "its identity is missing"))
    }

    async fn now(&mut self) -> Result<Timestamp, Error> {
        let failed = self.failed();
        let ms: i64 = sqlx::query_scalar(NOW).fetch_one(&mut self.db).await.map_err(failed)?;
        Ok(Timestamp::from_unix_ms(ms))
    }

    async fn integrity(&mut self) -> Result<Vec<String>, Error> {
        let failed = self.failed();
        let rows = sqlx::query("PRAGMA integrity_check(20)").fetch_all(&mut self.db).await;
        let mut found = Vec::new();
        for row in rows.map_err(&failed)? {
            let text: String = row.try_get(0).map_err(&failed)?;
            found.extend(text.lines().map(str::to_owned).filter(|line| line != "ok"));
        }
        found.truncate(DAMAGE_LINES_MAX);
        Ok(found)
    }

    async fn names(&mut self) -> Result<Vec<RunId>, Error> {
        let failed = self.failed();
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT run FROM (SELECT run, started_ms FROM runs UNION ALL \
             SELECT DISTINCT run, 0 FROM records WHERE run NOT IN (SELECT run FROM runs)) \
             ORDER BY started_ms DESC, run DESC",
        )
        .fetch_all(&mut self.db)
        .await
        .map_err(failed)?;
        Ok(names.into_iter().map(RunId::new).collect())
    }

    async fn run(&mut self, run: &RunId) -> Result<Option<Kept>, Error> {
        let failed = self.failed();
        let mut reading = Reading::of(run);
        loop {
            let page = sqlx::query_as(
                "SELECT r.plan, r.environment, r.started_ms, r.ended, r.head_version, r.head_hash, \
                 e.version, e.body, e.hash FROM runs r \
                 LEFT JOIN records e ON e.run = r.run AND e.version > $2 \
                 WHERE r.run = $1 ORDER BY e.version LIMIT $3",
            )
            .bind(run.as_str())
            .bind(reading.after())
            .bind(i64::from(PAGE_RECORDS))
            .fetch_all(&mut self.db)
            .await
            .map_err(&failed)?;
            if !reading.take(page) {
                return Ok(reading.done());
            }
        }
    }

    async fn leases(&mut self) -> Result<Vec<KeptLease>, Error> {
        let failed = self.failed();
        let rows: Vec<LeaseRow> = sqlx::query_as(
            "SELECT run, token, holder_id, holder_name, holder_host, holder_boot, holder_pid, holder_pid_started, \
             since_ms, renewed_ms, expires_ms FROM leases ORDER BY run",
        )
        .fetch_all(&mut self.db)
        .await
        .map_err(failed)?;
        Ok(rows
            .into_iter()
            .map(|row| KeptLease { of: RunId::new(row.run), row: row.row })
            .collect())
    }
}

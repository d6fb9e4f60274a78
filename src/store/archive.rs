//! A store read as it is: for checking it, and for carrying runs to another one.
//!
//! Invariants:
//! - Nothing is written, migrated or repaired, whatever is found. So a store that can't be worked with any more can still be
//!   looked at, run by run.
//! - What comes out is unchecked; `check` and `history` judge it.

use std::path::Path;

use async_trait::async_trait;

use crate::bounds::store::PAGE_RECORDS;
use crate::run::{EnvironmentName, RunId, Timestamp};

use super::chain::{Head, Stored};
use super::history::Kept;
use super::{Claimant, Error, RunHeader, lease, postgres, sqlite, sqlite_path};

/// A lease as a store keeps it, unchecked; without a holder it was given back.
#[derive(Clone, Debug)]
pub struct KeptLease {
    /// The run, or the relay that works for it.
    pub of: RunId,
    pub(super) row: lease::Row,
}

impl KeptLease {
    /// Its newest token.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.row.token.cast_unsigned()
    }

    /// Who holds it at a moment, unless known to be dead.
    #[must_use]
    pub fn holder(&self, now: Timestamp, is_dead: fn(&Claimant) -> bool) -> Option<Claimant> {
        let lease = self.row.clone().into_lease(&self.of)?;
        (lease.expires_at > now && !is_dead(&lease.holder)).then_some(lease.holder)
    }
}

/// A store that is only read.
#[async_trait]
pub trait Archive: Send {
    /// What people call it: a path, or a URL without secrets.
    fn location(&self) -> String;

    /// What names it in targets' claims.
    async fn identity(&mut self) -> Result<String, Error>;

    /// What time it is, by the store's clock.
    async fn now(&mut self) -> Result<Timestamp, Error>;

    /// What the database finds wrong with itself; nothing where it finds nothing.
    async fn integrity(&mut self) -> Result<Vec<String>, Error>;

    /// Every run of which there is a row or a record, newest first.
    async fn names(&mut self) -> Result<Vec<RunId>, Error>;

    /// A run with all its records; none where its row is missing.
    async fn run(&mut self, run: &RunId) -> Result<Option<Kept>, Error>;

    /// Every lease that ever was.
    async fn leases(&mut self) -> Result<Vec<KeptLease>, Error>;
}

/// Opens the store at a location for reading only. [`Error::Unreachable`] where there is none.
pub async fn open_archive(location: &str) -> Result<Box<dyn Archive>, Error> {
    match location.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest)) {
        None => Ok(Box::new(sqlite::SqliteArchive::open(Path::new(location)).await?)),
        Some((scheme, rest)) if scheme == "sqlite" => {
            Ok(Box::new(sqlite::SqliteArchive::open(sqlite_path(rest)?).await?))
        }
        Some((scheme, _)) if scheme == "postgres" || scheme == "postgresql" => {
            Ok(Box::new(postgres::PostgresArchive::open(location).await?))
        }
        Some((scheme, _)) => Err(super::no_store_at(&scheme)),
    }
}

/// A record beside its run's row; the record's columns are NULL when there is none.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Row {
    plan: String,
    environment: String,
    started_ms: i64,
    ended: bool,
    head_version: i64,
    head_hash: String,
    version: Option<i64>,
    body: Option<Vec<u8>>,
    hash: Option<String>,
}

/// A run as its pages are read. Each page shows the run's row at the moment of its records, so the last one is the one that
/// goes with them, also while somebody appends.
#[derive(Debug)]
pub(super) struct Reading {
    run: RunId,
    kept: Option<Kept>,
}

impl Reading {
    pub(super) fn of(run: &RunId) -> Self {
        Self { run: run.clone(), kept: None }
    }

    /// The version that the next page goes on from.
    pub(super) fn after(&self) -> i64 {
        let last = self.kept.as_ref().and_then(|kept| kept.records.last());
        last.map_or(i64::MIN, |record| record.version)
    }

    /// Takes a page; says whether there may be another.
    pub(super) fn take(&mut self, page: Vec<Row>) -> bool {
        let is_full = page.len() >= PAGE_RECORDS as usize;
        let mut records = self.kept.take().map_or_else(Vec::new, |kept| kept.records);
        for row in page {
            let header = RunHeader {
                run: self.run.clone(),
                plan: row.plan,
                environment: EnvironmentName::new(row.environment),
                started_at: Timestamp::from_unix_ms(row.started_ms),
                ended: row.ended,
            };
            let head = Head { version: row.head_version.cast_unsigned(), hash: row.head_hash };
            if let (Some(version), Some(body), Some(hash)) = (row.version, row.body, row.hash) {
                records.push(Stored { version, body, hash });
            }
            self.kept = Some(Kept { header, head, records: Vec::new() });
        }
        if let Some(kept) = &mut self.kept {
            kept.records = records;
        }
        is_full
    }

    pub(super) fn done(self) -> Option<Kept> {
        self.kept
    }
}

//! The rows that both stores read, and what they become. Unsigned numbers are stored signed, with the same bits.

use crate::run::{EnvironmentName, RunId, StepId, Timestamp};

use super::chain::{self, Head, Page, Stored};
use super::{Entry, Error, RunHeader, StepProgress};

/// A record beside its journal's head; the record's columns are NULL when there is none.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct RecordRow {
    pub head_version: i64,
    pub head_hash: String,
    pub version: Option<i64>,
    pub body: Option<Vec<u8>>,
    pub hash: Option<String>,
}

/// A run as it is listed.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct RunRow {
    pub run: String,
    pub plan: String,
    pub environment: String,
    pub started_ms: i64,
    pub ended: bool,
}

/// How far a step has come.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ProgressRow {
    pub step: String,
    pub rows_done: i64,
    pub rows_total: Option<i64>,
    pub at_ms: i64,
    /// As JSON.
    pub throttled: String,
}

/// The checked records of a page; no rows mean no run.
pub(super) fn entries(run: &RunId, page: Page, rows: Vec<RecordRow>) -> Result<Vec<Entry>, Error> {
    let first = rows.first().ok_or_else(|| Error::NoRun(run.clone()))?;
    let head = Head { version: first.head_version.cast_unsigned(), hash: first.head_hash.clone() };
    let stored = rows
        .into_iter()
        .filter_map(|row| Some(Stored { version: row.version?, body: row.body?, hash: row.hash? }));
    chain::check(run, page, &head, stored.collect())
}

impl From<RunRow> for RunHeader {
    fn from(row: RunRow) -> Self {
        Self {
            run: RunId::new(row.run),
            plan: row.plan,
            environment: EnvironmentName::new(row.environment),
            started_at: Timestamp::from_unix_ms(row.started_ms),
            ended: row.ended,
        }
    }
}

impl From<ProgressRow> for StepProgress {
    fn from(row: ProgressRow) -> Self {
        Self {
            step: StepId::new(row.step),
            rows_done: row.rows_done.cast_unsigned(),
            rows_total: row.rows_total.map(i64::cast_unsigned),
            at: Timestamp::from_unix_ms(row.at_ms),
            // Another version's is nothing that anybody depends on.
            throttled: serde_json::from_str(&row.throttled).unwrap_or_default(),
        }
    }
}

/// What holds a step back, as both stores keep it.
pub(super) fn throttled_json(progress: &StepProgress) -> String {
    serde_json::to_string(&progress.throttled).unwrap_or_else(|_| "[]".to_owned())
}

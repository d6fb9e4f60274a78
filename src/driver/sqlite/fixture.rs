//! What the tests of this folder share: a database file of their own, a run that has entered it, work to do.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::Sqlite;
pub(super) use crate::driver::fixture::{claim, class, head, mapping, script, work};
use crate::driver::{Fence, Session as _};

/// A database file that goes with the value.
pub(super) struct Database {
    pub folder: tempfile::TempDir,
}

impl Database {
    /// A new file on which `script` was run.
    pub(super) async fn with(script: &str) -> Self {
        let database = Self { folder: tempfile::tempdir().unwrap() };
        database.client().await.close().await.unwrap();
        database.run(script).await;
        database
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    pub(super) fn url(&self, params: &str) -> String {
        format!("sqlite:{}{params}", self.file().display())
    }

    pub(super) async fn open(&self) -> Sqlite {
        Sqlite::open(&self.url("")).await.unwrap()
    }

    /// Another user of the database, whose connection has nothing of ours.
    pub(super) async fn client(&self) -> SqliteConnection {
        SqliteConnection::connect(&self.url("?mode=rwc")).await.unwrap()
    }

    /// Runs statements as that user.
    pub(super) async fn run(&self, script: &str) {
        let mut client = self.client().await;
        sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(&mut client).await.unwrap();
        client.close().await.unwrap();
    }

    /// The whole number that a query gives to that user.
    pub(super) async fn number(&self, query: &str) -> i64 {
        let mut client = self.client().await;
        let row =
            sqlx::query(AssertSqlSafe(query.to_owned())).fetch_one(&mut client).await.unwrap();
        client.close().await.unwrap();
        row.try_get(0).unwrap()
    }
}

/// The fences of run `r1` under a token: for steps, and for the one worker.
pub(super) async fn entered(sqlite: &Sqlite, token: u64) -> (Fence, Fence) {
    let mut fences = sqlite.enter(&claim("r1"), token).await.unwrap();
    let worker = fences.pop().unwrap();
    (fences.pop().unwrap(), worker)
}

//! What the tests of this folder share: a database file of their own, a run that has entered it, work to do.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::Sqlite;
use crate::driver::{Claim, Error, Fence, Head, Session as _, Work};
use crate::run::{
    CopyColumns, Digest, FailureClass, Hazard, Mapping, OnDelete, OnExisting, Relation, RunId,
    Script, Statement, Transaction, Way, Winner,
};

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

pub(super) fn claim(run: &str) -> Claim {
    Claim {
        run: RunId::new(run),
        plan: "leads-v2".into(),
        digest: Digest::of_bytes(b"plan"),
        store: "store-1".into(),
        host: "here".into(),
        pid: 42,
        objects: vec![],
    }
}

/// The fences of run `r1` under a token: for steps, and for the one worker.
pub(super) async fn entered(sqlite: &Sqlite, token: u64) -> (Fence, Fence) {
    let mut fences = sqlite.enter(&claim("r1"), token).await.unwrap();
    let worker = fences.pop().unwrap();
    (fences.pop().unwrap(), worker)
}

pub(super) fn head(version: u64) -> Head {
    Head { version, hash: Digest::of_bytes(&version.to_be_bytes()) }
}

pub(super) fn work(step: &str, way: Way) -> Work {
    Work { step: step.into(), way, head: head(7), lock_timeout_ms: None }
}

pub(super) fn script(statements: &[&str]) -> Script {
    let statements = statements
        .iter()
        .zip(10..)
        .map(|(text, line)| Statement { text: (*text).to_owned(), line })
        .collect();
    Script {
        statements,
        file: None,
        hazard: Hazard::None,
        tables: Vec::new(),
        creates: Vec::new(),
        transaction: Transaction::Auto,
        is_opaque: false,
    }
}

pub(super) fn mapping(from: (&str, &[&str]), into: (&str, &[&str])) -> Mapping {
    let relation = |(table, key): (&str, &[&str])| Relation {
        target: "app".into(),
        table: table.into(),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
    };
    Mapping {
        name: "leads".into(),
        from: relation(from),
        into: relation(into),
        copy: CopyColumns::All,
        columns: vec![],
        reverse: vec![],
        winner: Winner::New,
        filter: None,
        on_existing: OnExisting::Keep,
        on_delete: OnDelete::Delete,
        parking: crate::run::Parking::default(),
    }
}

/// The class of a failure of which nothing was committed.
pub(super) fn class<T: std::fmt::Debug>(result: Result<T, Error>) -> FailureClass {
    match result {
        Err(Error::Failed(failure)) => failure.class,
        other => panic!("not a plain failure: {other:?}"),
    }
}

//! A fresh store for a test, with a way around it: raw SQL.

use phasegate::store::{self, Create, SharedStore};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use crate::services;

/// Where a store is or will be.
pub struct Bed {
    location: String,
    place: Place,
}

enum Place {
    File(tempfile::TempDir),
    Database { server: String, name: String },
}

impl Bed {
    /// A path in a new folder.
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("state.db").to_str().unwrap().to_owned();
        Self { location, place: Place::File(folder) }
    }

    /// A new database on the private server; `None`, loudly, without one.
    pub async fn postgres(test: &str) -> Option<Self> {
        let server = services::postgres(test)?;
        let name = format!("store_{}", uuid::Uuid::now_v7().simple());
        let mut db = PgConnection::connect(&server).await.unwrap();
        db.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let mut url = url::Url::parse(&server).unwrap();
        url.set_path(&name);
        Some(Self { location: url.into(), place: Place::Database { server, name } })
    }

    /// The location to open.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Whether it is a file.
    pub const fn is_file(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// Opens the store, and makes it when it is missing.
    pub async fn open(&self) -> SharedStore {
        store::open(&self.location, Create::IfMissing).await.unwrap()
    }

    /// Runs statements behind the store's back. Tables are named as in SQLite; in PostgreSQL they have another prefix.
    pub async fn tamper(&self, sql: &str) {
        match &self.place {
            Place::File(_) => {
                self.file().await.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
            }
            Place::Database { .. } => {
                let mut db = PgConnection::connect(&self.location).await.unwrap();
                let sql = in_postgres(sql);
                db.execute(AssertSqlSafe(sql)).await.unwrap();
            }
        }
    }

    /// Bytes as a literal of this database.
    pub fn literal(&self, bytes: &[u8]) -> String {
        let digits = hex::encode(bytes);
        match &self.place {
            Place::File(_) => format!("x'{digits}'"),
            Place::Database { .. } => format!("'\\x{digits}'::bytea"),
        }
    }

    /// The migrations that were applied, each with the checksum of its text.
    pub async fn migrations(&self) -> Vec<(i64, Vec<u8>)> {
        let sql = "SELECT version, checksum FROM phasegate_migrations ORDER BY version";
        match &self.place {
            Place::File(_) => sqlx::query_as(sql).fetch_all(&mut self.file().await).await.unwrap(),
            Place::Database { .. } => {
                let mut db = PgConnection::connect(&self.location).await.unwrap();
                sqlx::query_as(AssertSqlSafe(in_postgres(sql))).fetch_all(&mut db).await.unwrap()
            }
        }
    }

    /// Where the migrations of such a store are, in the repository.
    pub fn folder(&self) -> &'static str {
        match &self.place {
            Place::File(_) => concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite"),
            Place::Database { .. } => concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres"),
        }
    }

    /// Whether anything was made where the store would be.
    pub async fn is_untouched(&self) -> bool {
        match &self.place {
            Place::File(folder) => folder.path().read_dir().unwrap().next().is_none(),
            Place::Database { .. } => {
                let mut db = PgConnection::connect(&self.location).await.unwrap();
                let found: Option<String> =
                    sqlx::query_scalar("SELECT to_regnamespace('phasegate')::text")
                        .fetch_one(&mut db)
                        .await
                        .unwrap();
                found.is_none()
            }
        }
    }

    /// Removes all of it.
    pub async fn remove(self) {
        if let Place::Database { server, name } = &self.place {
            let mut db = PgConnection::connect(server).await.unwrap();
            db.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
        }
    }

    async fn file(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(&self.location).foreign_keys(false);
        options.connect().await.unwrap()
    }
}

fn in_postgres(sql: &str) -> String {
    let mut sql = sql.replace("phasegate_migrations", "phasegate.state_migrations");
    for table in ["runs", "records", "leases", "progress"] {
        sql = sql.replace(&format!(" {table} "), &format!(" phasegate.state_{table} "));
    }
    sql
}

//! A folder of its own for a test, with a plan, a SQLite database and the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Column, Row, ValueRef};
use tempfile::TempDir;

pub struct Sandbox {
    dir: TempDir,
}

/// What a run of the binary came to.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Sandbox {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The binary, to be run in this folder, in an environment that tells it nothing.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phasegate"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_remove("PHASEGATE_STATE")
            .env_remove("FAILPOINTS")
            .env("NO_COLOR", "1");
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    pub fn run_with(&self, args: &[&str], name: &str, value: &str) -> Ran {
        self.command(args).env(name, value).output().unwrap().into()
    }

    /// Runs statements on a database of this folder, making it where it is missing.
    pub fn sql(&self, database: &str, statements: &str) {
        let path = self.path(database);
        block_on(async move {
            let options = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(true)
                .busy_timeout(std::time::Duration::from_secs(30));
            let pool =
                SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&pool).await.unwrap();
            pool.close().await;
        });
    }

    /// The rows of a query, as text.
    pub fn rows(&self, database: &str, query: &str) -> Vec<String> {
        rows(&self.path(database), query)
    }

    /// The first value of a query, as text.
    pub fn value(&self, database: &str, query: &str) -> String {
        self.rows(database, query).into_iter().next().unwrap_or_default()
    }

    /// Everything in a database that is the user's: definitions and rows.
    pub fn dump(&self, database: &str) -> Vec<String> {
        dump(&self.path(database))
    }

    /// Everything of ours in a database.
    pub fn ours(&self, database: &str) -> Vec<String> {
        self.rows(
            database,
            "SELECT name FROM sqlite_master WHERE name LIKE 'phasegate%' ORDER BY name",
        )
    }
}

fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn rows(path: &Path, query: &str) -> Vec<String> {
    let query = query.to_owned();
    let path = path.to_owned();
    block_on(async move {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&pool).await.unwrap();
        pool.close().await;
        rows.iter().map(row_text).collect()
    })
}

fn row_text(row: &sqlx::sqlite::SqliteRow) -> String {
    let cells: Vec<String> = row
        .columns()
        .iter()
        .map(|column| {
            let raw = row.try_get_raw(column.ordinal()).unwrap();
            if raw.is_null() {
                return "NULL".to_owned();
            }
            row.try_get_unchecked::<String, _>(column.ordinal()).unwrap_or_else(|_| "?".to_owned())
        })
        .collect();
    cells.join("|")
}

pub fn dump(path: &Path) -> Vec<String> {
    let mut lines = rows(
        path,
        "SELECT type, name, tbl_name, sql FROM sqlite_master
         WHERE name NOT LIKE 'phasegate%' AND name NOT LIKE 'sqlite%' ORDER BY type, name",
    );
    // A rename quotes the name it writes; that is no difference.
    for line in &mut lines {
        *line = line.replace('"', "");
    }
    let tables = rows(
        path,
        "SELECT name FROM sqlite_master WHERE type = 'table'
         AND name NOT LIKE 'phasegate%' AND name NOT LIKE 'sqlite%' ORDER BY name",
    );
    for table in tables {
        let rows = rows(path, &format!("SELECT * FROM \"{table}\" ORDER BY 1, 2"));
        lines.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    lines
}

/// Waits until something holds, at most so long. The limit is far beyond what it takes; only a hang reaches it.
pub fn wait_for(limit: std::time::Duration, mut holds: impl FnMut() -> bool) -> bool {
    let began = std::time::Instant::now();
    while began.elapsed() < limit {
        if holds() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    holds()
}

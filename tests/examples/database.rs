//! A PostgreSQL database of a test's own, with a plain role that owns it, and what is seen in it from outside.

use std::path::PathBuf;
use std::process::Command;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Column as _, Connection as _, Row as _, ValueRef as _};
use url::Url;

/// A database and the role that owns it, which is no superuser. Both are gone when this is.
pub struct Database {
    /// The database as its owner reaches it.
    pub url: String,
    admin: String,
    name: String,
}

impl Database {
    /// A new database on the server of a superuser's URL, on which `script` was run by its owner.
    pub fn on(server: &str, script: &str) -> Self {
        let name = format!("it_{}", uuid::Uuid::now_v7().simple());
        for statement in [
            format!("CREATE ROLE {name} LOGIN"),
            // Replicas' lag and others' queries are looked at by this right.
            format!("GRANT pg_read_all_stats TO {name}"),
            format!("CREATE DATABASE {name} OWNER {name}"),
        ] {
            run(server, &statement).unwrap();
        }
        let mut url = Url::parse(server).unwrap();
        url.set_path(&name);
        url.set_username(&name).unwrap();
        let database = Self { url: url.into(), admin: server.to_owned(), name };
        database.run(script);
        database
    }

    /// The database as the server's superuser reaches it.
    pub fn as_superuser(&self) -> String {
        let mut url = Url::parse(&self.admin).unwrap();
        url.set_path(&self.name);
        url.into()
    }

    /// The role that owns the database, which has its name.
    pub fn owner(&self) -> &str {
        &self.name
    }

    /// The database as another role reaches it, which owns nothing and is made here: what it may do is granted by the caller.
    pub fn as_application(&self) -> (String, String) {
        let role = format!("{}_app", self.name);
        self.run_as_superuser(&format!("CREATE ROLE {role} LOGIN"));
        let mut url = Url::parse(&self.url).unwrap();
        url.set_username(&role).unwrap();
        (url.into(), role)
    }

    /// Runs statements as the owner.
    #[track_caller]
    pub fn run(&self, statements: &str) {
        run(&self.url, statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Runs statements as the server's superuser.
    #[track_caller]
    pub fn run_as_superuser(&self, statements: &str) {
        let ran = run(&self.as_superuser(), statements);
        ran.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// What the owner is told who runs statements that are refused.
    #[track_caller]
    pub fn refused(&self, statements: &str) -> String {
        run(&self.url, statements).expect_err(statements).to_string()
    }

    /// The rows of a query, as text.
    #[track_caller]
    pub fn rows(&self, query: &str) -> Vec<String> {
        rows(&self.url, query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The rows of a query that the owner may not make, as text.
    #[track_caller]
    pub fn rows_as_superuser(&self, query: &str) -> Vec<String> {
        rows(&self.as_superuser(), query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The first value of a query, as text.
    #[track_caller]
    pub fn value(&self, query: &str) -> String {
        self.rows(query).into_iter().next().unwrap_or_default()
    }

    /// Everything in the database that isn't ours: definitions as `pg_dump` writes them, then every row, then how far
    /// every sequence is.
    pub fn dump(&self) -> Vec<String> {
        let mut lines = self.definitions();
        let tables = self.rows(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'phasegate') ORDER BY 1",
        );
        for table in tables {
            let query = format!("SELECT t::text FROM {table} AS t ORDER BY 1");
            lines.extend(self.rows(&query).into_iter().map(|row| format!("{table}: {row}")));
        }
        lines.extend(self.rows(
            "SELECT format('%I.%I: %s', schemaname, sequencename, last_value) FROM pg_sequences
             WHERE schemaname <> 'phasegate' ORDER BY 1",
        ));
        lines
    }

    /// What `pg_dump` says of the schema, without what it writes anew each time.
    fn definitions(&self) -> Vec<String> {
        let dumped = Command::new(programs().join("pg_dump"))
            .args(["--schema-only", "--exclude-schema=phasegate", "--dbname"])
            .arg(&self.url)
            .output()
            .unwrap();
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        let text = String::from_utf8(dumped.stdout).unwrap();
        let is_said = |line: &&str| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("--") && !line.starts_with('\\')
        };
        text.lines().filter(is_said).map(ToOwned::to_owned).collect()
    }

    /// Everything of ours in the database: schemas, tables, functions and triggers.
    pub fn ours(&self) -> Vec<String> {
        self.rows(
            "SELECT format('%s.%s', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
               WHERE nspname = 'phasegate' AND relkind IN ('r', 'p', 'v', 'S') AND relname NOT LIKE 'runs_%'
             UNION ALL
             SELECT format('%s.%s()', nspname, proname) FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
               WHERE nspname = 'phasegate' OR proname LIKE '%phasegate%'
             UNION ALL
             SELECT format('trigger %s', tgname) FROM pg_trigger WHERE tgname LIKE '%phasegate%'
             ORDER BY 1",
        )
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Self { name, admin, .. } = self;
        // A server that the test has stopped takes the database along.
        let _ = run(admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        let _ = run(admin, &format!("DROP ROLE IF EXISTS {name}"));
        let _ = run(admin, &format!("DROP ROLE IF EXISTS {name}_app"));
    }
}

/// Where the server's own programs are: a distribution hides them from PATH.
pub fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .filter(|(_, bin)| bin.join("pg_dump").exists())
        .collect();
    found.sort();
    found.pop().map_or_else(PathBuf::new, |(_, bin)| bin)
}

fn run(url: &str, statements: &str) -> Result<(), sqlx::Error> {
    block_on(async {
        let mut conn = connect(url).await?;
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut conn).await?;
        conn.close().await
    })
}

fn rows(url: &str, query: &str) -> Result<Vec<String>, sqlx::Error> {
    block_on(async {
        let mut conn = connect(url).await?;
        // The simple protocol answers in text, whatever the types are.
        let rows = sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_all(&mut conn).await?;
        conn.close().await?;
        Ok(rows.iter().map(row_text).collect())
    })
}

fn row_text(row: &sqlx::postgres::PgRow) -> String {
    let cells = row.columns().iter().map(|column| {
        let raw = row.try_get_raw(column.ordinal()).unwrap();
        if raw.is_null() { "NULL".to_owned() } else { raw.as_str().unwrap().to_owned() }
    });
    cells.collect::<Vec<String>>().join("|")
}

pub async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect(url).await
}

pub fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

//! What the tests of this folder share: a database of their own on the test server, a run that has entered it, work to do.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::Postgres;
pub(super) use crate::driver::fixture::{claim, class, head, mapping, script, work};
use crate::driver::{Access, Fence, Session as _};

/// A database of a test's own, dropped by [`Database::gone`] or left to the server's end.
pub(super) struct Database {
    pub url: String,
}

impl Database {
    /// A new database on which `script` was run; `None`, said loudly, where there is no test server.
    pub(super) async fn with(script: &str) -> Option<Self> {
        let Ok(server) = std::env::var("PHASEGATE_TEST_POSTGRES") else {
            let said = "NOT RUN: PHASEGATE_TEST_POSTGRES is not set; tests/run starts a server";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{said}");
            writeln!(std::io::stderr(), "{said}").unwrap();
            return None;
        };
        let name = format!("unit_{}", uuid::Uuid::now_v7().simple());
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await
            .unwrap();
        admin.close().await.unwrap();
        let mut url = url::Url::parse(&server).unwrap();
        url.set_path(&name);
        let database = Self { url: url.into() };
        database.run(script).await;
        Some(database)
    }

    /// Drops the database.
    pub(super) async fn gone(&self) {
        let mut server = url::Url::parse(&self.url).unwrap();
        let name = server.path().trim_start_matches('/').to_owned();
        server.set_path("postgres");
        let mut admin = PgConnection::connect(server.as_str()).await.unwrap();
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        sqlx::query(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
    }

    pub(super) async fn open(&self) -> Postgres {
        Postgres::open(&self.url, None, Access::Full).await.unwrap()
    }

    /// Another user of the database, whose connection has nothing of ours. The test server's role may be called as our schema,
    /// which no user's tables should be in.
    pub(super) async fn client(&self) -> PgConnection {
        let options: PgConnectOptions = self.url.parse().unwrap();
        PgConnection::connect_with(&options.options([("search_path", "public")])).await.unwrap()
    }

    /// Waits until those who were connected are gone, but for who is in a transaction: a connection reports what it did when it ends,
    /// and ends some time after its client has left.
    pub(super) async fn is_left(&self) {
        const LEAVING: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle in transaction'";
        let mut client = self.client().await;
        while sqlx::query_scalar::<_, i64>(LEAVING).fetch_one(&mut client).await.unwrap() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        client.close().await.unwrap();
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
        let query = format!("SELECT ({query})::bigint");
        let row = sqlx::query(AssertSqlSafe(query)).fetch_one(&mut client).await.unwrap();
        client.close().await.unwrap();
        row.try_get(0).unwrap()
    }

    /// The text that a query gives to that user; NULL is "NULL".
    pub(super) async fn text(&self, query: &str) -> String {
        let mut client = self.client().await;
        let query = format!("SELECT coalesce(({query})::text, 'NULL')");
        let row = sqlx::query(AssertSqlSafe(query)).fetch_one(&mut client).await.unwrap();
        client.close().await.unwrap();
        row.try_get(0).unwrap()
    }
}

/// Makes a schema `older`, whose catalogue has not what came with PostgreSQL 14 and 15. With it on the path before
/// `pg_catalog`, a query finds what it would find on a server of version 13.
pub(super) const OLDER: &str = "
    CREATE SCHEMA older;
    DO $$ DECLARE name text; BEGIN
        FOREACH name IN ARRAY '{pg_attribute,pg_constraint,pg_publication_rel}'::text[] LOOP
            EXECUTE (SELECT format('CREATE VIEW older.%I AS SELECT %s FROM pg_catalog.%1$I', name,
                    string_agg(quote_ident(attname), ', ' ORDER BY attnum))
                FROM pg_attribute WHERE attrelid = to_regclass(name) AND attnum > 0 AND NOT attisdropped
                AND attname NOT IN ('attmissingval', 'attcompression', 'confdelsetcols', 'prattrs', 'prqual'));
        END LOOP;
    END $$;";

/// The fences of run `r1` under a token: the first is for steps, the others for workers.
pub(super) async fn entered(postgres: &Postgres, token: u64) -> Vec<Fence> {
    postgres.enter(&claim("r1"), token).await.unwrap()
}

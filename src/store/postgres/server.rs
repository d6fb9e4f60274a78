//! Reaching the server: connections that are all set up alike, and the schema.

use std::str::FromStr;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use super::super::schema::{self, Standing};
use super::super::{Create, Error};
use super::error::{damaged, explain, unreachable};
use crate::bounds::store::{
    POSTGRES_CONNECT_WITHIN, POSTGRES_CONNECTION_CHECK_MS, POSTGRES_IDLE_IN_TRANSACTION_MS,
    POSTGRES_LOCK_WAIT_MS, POSTGRES_MIGRATED_WITHIN, POSTGRES_PINGED_WITHIN,
    POSTGRES_STATEMENT_ANSWERED_WITHIN, POSTGRES_STATEMENT_WITHIN_MS,
};

/// What people see of us in `pg_stat_activity`.
const APPLICATION_NAME: &str = "phasegate";

/// Settings of every session. A name that the server doesn't know is left out (`client_connection_check_interval` came
/// with version 14). Commits wait for the disk, and for more where the server asks for more.
const SETTINGS: &str = "SELECT set_config(s.name, v.value, false) FROM (VALUES \
     ('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END), \
     ('lock_timeout', $1), ('statement_timeout', $2), ('idle_in_transaction_session_timeout', $3), \
     ('client_connection_check_interval', $4), ('default_transaction_isolation', 'read committed')) \
     AS v (name, value) JOIN pg_settings s ON s.name = v.name";

/// This program's migrations, under a table of our own in our own schema.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("migrations/postgres");
    migrator.dangerous_set_table_name("phasegate.state_migrations");
    // sqlx's own lock is a session's; ours ends with the transaction, whatever happens.
    migrator.set_locking(false);
    migrator
}

/// Reads a URL, and gives what people may see of it: no password, no parameters.
pub(super) fn read_url(url: &str) -> Result<(PgConnectOptions, String), Error> {
    // A parse error may repeat a piece of the URL, so it is not shown.
    let options = PgConnectOptions::from_str(url).map_err(|_| Error::Unreachable {
        message: "the state store's URL is not a valid postgres:// URL".into(),
    })?;
    let host = options
        .get_socket()
        .map_or_else(|| options.get_host().to_owned(), |socket| socket.display().to_string());
    let place = format!(
        "postgres://{}@{host}:{}/{}",
        options.get_username(),
        options.get_port(),
        options.get_database().unwrap_or(options.get_username()),
    );
    Ok((options.application_name(APPLICATION_NAME).disable_statement_logging(), place))
}

/// The pool that a store works with. What no answer comes over any more goes from it, whether it is about to be used or was given up in the
/// middle of a call: otherwise each such connection would keep a place in it until the system gives the connection up, a quarter of an
/// hour later, and calls would wait for a place while the server can be reached again.
pub(super) fn pool(options: PgConnectOptions, connections_max: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(POSTGRES_CONNECT_WITHIN)
        .after_connect(|db, _| Box::pin(set_up(db)))
        .test_before_acquire(false)
        .before_acquire(|db, _| Box::pin(shown(db)))
        .after_release(|db, _| Box::pin(shown(db)))
        .connect_lazy_with(options)
}

/// Fails where nothing is answered.
async fn shown(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let pinged = tokio::time::timeout(POSTGRES_PINGED_WITHIN, db.ping()).await;
    pinged.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    Ok(true)
}

/// What the server answers in time.
pub(super) async fn answered<T>(
    place: &str,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Error> {
    let answer = tokio::time::timeout(POSTGRES_STATEMENT_ANSWERED_WITHIN, call).await;
    answer.map_err(|_| mute(place))?.map_err(|error| explain(place, &error))
}

fn mute(place: &str) -> Error {
    unreachable(place, "the server did not answer in time")
}

/// Sets up a session.
pub(super) async fn set_up(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    let waits_ms = [
        POSTGRES_LOCK_WAIT_MS,
        POSTGRES_STATEMENT_WITHIN_MS,
        POSTGRES_IDLE_IN_TRANSACTION_MS,
        POSTGRES_CONNECTION_CHECK_MS,
    ];
    let mut settings = sqlx::query(SETTINGS);
    for ms in waits_ms {
        settings = settings.bind(format!("{ms}ms"));
    }
    settings.execute(db).await.map(|_| ())
}

async fn connect(options: &PgConnectOptions, place: &str) -> Result<PgConnection, Error> {
    let mut db = tokio::time::timeout(POSTGRES_CONNECT_WITHIN, options.connect())
        .await
        .map_err(|_| mute(place))?
        .map_err(|error| explain(place, &error))?;
    answered(place, set_up(&mut db)).await?;
    Ok(db)
}

/// Opens a connection for reading only, after looking whether there is a store that this program knows.
pub(super) async fn look_at(
    options: &PgConnectOptions,
    place: &str,
) -> Result<PgConnection, Error> {
    let mut db = connect(options, place).await?;
    answered(place, sqlx::query("SET default_transaction_read_only = on").execute(&mut db)).await?;
    match standing(place, &mut db).await? {
        Some(_) => Ok(db),
        None => Err(Error::Unreachable { message: format!("there is no state store at {place}") }),
    }
}

/// Looks at the schema on a connection of its own, makes it or brings it up to date, and gives the store's identity.
pub(super) async fn prepare(
    options: &PgConnectOptions,
    place: &str,
    create: Create,
) -> Result<String, Error> {
    let mut db = connect(options, place).await?;
    match standing(place, &mut db).await? {
        Some(Standing::Current) => {}
        None if create == Create::Never => {
            return Err(Error::Unreachable {
                message: format!("there is no state store at {place}"),
            });
        }
        _ => tokio::time::timeout(POSTGRES_MIGRATED_WITHIN, migrate(place, &mut db))
            .await
            .map_err(|_| mute(place))??,
    }
    let identity = sqlx::query_scalar("SELECT identity FROM phasegate.state_store");
    let identity: Option<String> = answered(place, identity.fetch_optional(&mut db)).await?;
    let _ = db.close().await;
    identity.ok_or_else(|| damaged(place, "its identity is missing"))
}

/// Where the schema stands, `None` where there is no store; newer and altered ones are errors.
async fn standing(place: &str, db: &mut PgConnection) -> Result<Option<Standing>, Error> {
    let is_there = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'phasegate' AND c.relname = 'state_migrations')",
    );
    let is_there: bool = answered(place, is_there.fetch_one(&mut *db)).await?;
    if !is_there {
        return Ok(None);
    }
    let applied = sqlx::query_as(
        "SELECT version, success, checksum FROM phasegate.state_migrations ORDER BY version",
    );
    let applied: Vec<schema::Applied> = answered(place, applied.fetch_all(db)).await?;
    match schema::standing(&migrator(), &applied) {
        Standing::Newer { found, known } => Err(Error::Newer {
            message: format!(
                "the state store {place} was written by a newer version of this program: its schema has version {found}, \
                 this program knows {known}; use that version"
            ),
        }),
        Standing::Altered(version) => Err(damaged(
            place,
            &format!("its schema's version {version} is not the one of that number"),
        )),
        standing => Ok(Some(standing)),
    }
}

/// Makes the schema and applies what is missing in one transaction, one process at a time.
///
/// `CREATE SCHEMA IF NOT EXISTS` wants the right to create schemas even when there is nothing to do, so a schema that was
/// made for us is looked for first.
async fn migrate(place: &str, db: &mut PgConnection) -> Result<(), Error> {
    let failed = |error: sqlx::Error| explain(place, &error);
    let mut tx = db.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('phasegate state store', 0))")
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    let has_schema: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'phasegate')")
            .fetch_one(&mut *tx)
            .await
            .map_err(failed)?;
    if !has_schema {
        sqlx::query("CREATE SCHEMA phasegate").execute(&mut *tx).await.map_err(failed)?;
    }
    migrator().run_direct(None, &mut *tx, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(error),
        error => damaged(place, &error.to_string()),
    })?;
    tx.commit().await.map_err(failed)
}

//! What statements that ran outside any transaction left behind, as the catalogue has it.
//!
//! An index whose concurrent build failed stays there, INVALID: it costs every write and serves no read, and
//! `IF NOT EXISTS` takes it for what was wanted. It is dropped, unless somebody is building it right now.
//!
//! Absent on purpose: leftovers that no statement of the plan names. They are somebody else's.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::connection::SessionId;
use super::error::failed;
use crate::driver::Error;
use crate::run::FailureClass;
use crate::sql::{NewIndex, Reindexed};

/// How an index stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IndexState {
    /// There is none of this name beside the table, or it is of another table, which the server will object to.
    Absent,
    /// It is there and in use.
    Valid,
    /// A session is building it.
    Building(i32),
    /// It was left by a build that failed. Its name, qualified and quoted.
    Invalid(String),
}

/// The session that builds an index of `$table`: the lock that a build takes there excludes other builds, and which index
/// it is building only roles see that may.
macro_rules! builder {
    ($table:literal, $index:literal) => {
        concat!(
            "(SELECT p.pid FROM pg_stat_progress_create_index p JOIN pg_locks l ON l.pid = p.pid
             WHERE l.locktype = 'relation' AND l.relation = ",
            $table,
            " AND l.granted
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock')
               AND coalesce(p.index_relid, 0) IN (0, ",
            $index,
            ") LIMIT 1)"
        )
    };
}

const INDEX: &str = concat!(
    "SELECT x.indisvalid, quote_ident(n.nspname) || '.' || quote_ident(i.relname), ",
    builder!("x.indrelid", "i.oid"),
    " FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
     JOIN pg_class i ON i.relnamespace = n.oid AND i.relname = (parse_ident($2))[1]::name AND i.relkind = 'i'
     JOIN pg_index x ON x.indexrelid = i.oid AND x.indrelid = t.oid
     WHERE t.oid = to_regclass($1)"
);

/// What a REINDEX CONCURRENTLY that failed leaves on a table beside its indexes.
const REBUILT: &str = concat!(
    "SELECT quote_ident(n.nspname) || '.' || quote_ident(i.relname), ",
    builder!("x.indrelid", "i.oid"),
    " FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_namespace n ON n.oid = i.relnamespace
     WHERE NOT x.indisvalid AND i.relkind = 'i' AND i.relname ~ '_cc(new|old)[0-9]*$' AND x.indrelid = CASE $2
         WHEN 'table' THEN to_regclass($1)::oid
         ELSE (SELECT indrelid FROM pg_index WHERE indexrelid = to_regclass($1)) END"
);

/// How the index stands that a statement makes; `None` where the statement doesn't name it.
pub(super) async fn index(
    conn: &mut PgConnection,
    index: &NewIndex,
) -> Result<Option<IndexState>, Error> {
    let Some(name) = &index.name else { return Ok(None) };
    let row = sqlx::query(INDEX)
        .bind(&index.table)
        .bind(name)
        .fetch_optional(conn)
        .await
        .map_err(failed("look for the index"))?;
    let Some(row) = row else { return Ok(Some(IndexState::Absent)) };
    let read = || {
        let builder: Option<i32> = row.try_get(2)?;
        Ok(match (row.try_get(0)?, builder) {
            (true, _) => IndexState::Valid,
            (false, Some(pid)) => IndexState::Building(pid),
            (false, None) => IndexState::Invalid(row.try_get(1)?),
        })
    };
    read().map(Some).map_err(failed("look for the index"))
}

/// What a REINDEX CONCURRENTLY of the same objects left behind.
pub(super) async fn rebuilt(
    conn: &mut PgConnection,
    what: &Reindexed,
) -> Result<Vec<String>, Error> {
    let (name, kind) = match what {
        Reindexed::Index(name) => (name, "index"),
        Reindexed::Table(name) => (name, "table"),
    };
    let rows = sqlx::query(REBUILT)
        .bind(name)
        .bind(kind)
        .fetch_all(conn)
        .await
        .map_err(failed("look for what an earlier REINDEX left"))?;
    let mut left = Vec::new();
    for row in rows {
        let read = || Ok((row.try_get(0)?, row.try_get(1)?));
        let (name, builder): (String, Option<i32>) =
            read().map_err(failed("look for what an earlier REINDEX left"))?;
        match builder {
            Some(pid) => return Err(building(&name, pid)),
            None => left.push(name),
        }
    }
    Ok(left)
}

/// The error for an index that somebody else is building.
pub(super) fn building(name: &str, pid: i32) -> Error {
    let message = format!("session {pid} is building the index {name}");
    Error::failed(FailureClass::Contention, message)
        .with_help("wait until it is done, or end it, then retry")
}

/// What there is to say of a leftover that was dropped.
pub(super) fn dropped(name: &str) -> String {
    format!("dropped the INVALID index {name} that an earlier build had left")
}

/// Drops a leftover without keeping anybody from the table.
pub(super) async fn drop_index(conn: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let statement = format!("DROP INDEX CONCURRENTLY IF EXISTS {name}");
    sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(conn).await.map(|_| ())
}

/// Whether a relation is there.
pub(super) async fn is_there(conn: &mut PgConnection, name: &str) -> Result<bool, Error> {
    sqlx::query("SELECT to_regclass($1) IS NOT NULL")
        .bind(name)
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("look for the index"))
}

/// Whether an index is there and of no use: who drops it concurrently and fails has made it so.
pub(super) async fn is_invalid(conn: &mut PgConnection, name: &str) -> Result<bool, Error> {
    let ask = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid)";
    sqlx::query(ask)
        .bind(name)
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("look for the index"))
}

/// Whether a partition is attached, and whether its detaching was begun and not ended.
pub(super) async fn partition(
    conn: &mut PgConnection,
    parent: &str,
    partition: &str,
) -> Result<Option<bool>, Error> {
    let row = sqlx::query(
        "SELECT inhdetachpending FROM pg_inherits
         WHERE inhparent = to_regclass($1) AND inhrelid = to_regclass($2)",
    )
    .bind(parent)
    .bind(partition)
    .fetch_optional(conn)
    .await
    .map_err(failed("look for the partition"))?;
    row.map(|row| row.try_get(0)).transpose().map_err(failed("look for the partition"))
}

/// Whether a session is still there.
pub(super) async fn is_alive(conn: &mut PgConnection, session: &SessionId) -> Result<bool, Error> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2)",
    )
    .bind(session.pid)
    .bind(&session.began)
    .fetch_one(conn)
    .await;
    row.and_then(|row| row.try_get(0)).map_err(failed("look for an earlier session"))
}

/// Ends a session of our role.
pub(super) async fn end_session(conn: &mut PgConnection, session: &SessionId) -> Result<(), Error> {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2",
    )
    .bind(session.pid)
    .bind(&session.began)
    .execute(conn)
    .await
    .map(|_| ())
    .map_err(failed("end an earlier session"))
}

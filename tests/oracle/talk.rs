//! How clients talk to PostgreSQL, and what they make of its answers.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgDatabaseError, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use crate::examples::database::{block_on, connect};

/// What became of a transaction or a statement.
pub enum Trouble {
    /// It has to be tried again: the catalogue is another one now, or an error said so that a client may see.
    Again,
    /// What no client should see.
    Refused(String),
}

/// How steady the view of a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    pub const fn begin(self) -> &'static str {
        match self {
            Self::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Self::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        }
    }

    /// Whether a transaction sees one moment, and may be told to try again.
    pub fn is_steady(self) -> bool {
        self != Self::ReadCommitted
    }
}

/// An application that writes transaction after transaction.
pub trait Talks {
    /// What is said once, on a new connection.
    fn settings(&self) -> String;
    /// Whether it is to stop.
    fn stops(&self) -> bool;
    /// For how long it does something else between two transactions.
    fn rests_for_ms(&mut self) -> u64;
    /// One transaction.
    async fn turn(&mut self, conn: &mut PgConnection) -> Result<(), Trouble>;
}

/// Lets a client write until it is to stop. The error is what no client should see.
pub fn talk(client: &mut impl Talks, url: &str) -> Result<(), String> {
    block_on(async {
        let mut conn = connect(url).await.unwrap();
        say(&mut conn, &client.settings()).await.unwrap();
        while !client.stops() {
            if let Err(trouble) = client.turn(&mut conn).await {
                drop(say(&mut conn, "ROLLBACK").await);
                if let Trouble::Refused(what) = trouble {
                    return Err(what);
                }
            }
            drop(say(&mut conn, "SELECT pg_advisory_unlock_all()").await);
            rest(client.rests_for_ms()).await;
        }
        Ok(())
    })
}

pub async fn rest(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

pub async fn say(conn: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    write(conn, sql).await.map(|_| ())
}

/// The number of rows that statements write, or lock. Of a COPY the rows stand behind its first line.
pub async fn write(conn: &mut PgConnection, sql: &str) -> Result<u64, sqlx::Error> {
    if let Some((copy, rows)) = sql.split_once("FROM STDIN\n") {
        let mut copy = conn.copy_in_raw(&format!("{copy} FROM STDIN")).await?;
        copy.send(rows.as_bytes()).await?;
        return copy.finish().await;
    }
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await?;
    Ok(done.rows_affected())
}

pub async fn read(conn: &mut PgConnection, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(conn).await
}

/// A value as the server writes it.
pub fn text(row: &PgRow, column: usize) -> String {
    row.get_unchecked(column)
}

pub fn is(row: &PgRow, column: usize) -> bool {
    text(row, column) == "t"
}

pub fn code(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.unwrap_or_default().into_owned()
}

/// The error as PostgreSQL has it.
fn of_server(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error().and_then(|error| error.try_downcast_ref())
}

/// The table whose constraint refused.
pub fn refused_by(error: &sqlx::Error) -> Option<String> {
    of_server(error).and_then(|error| error.table().map(ToOwned::to_owned))
}

/// Whether a constraint refused.
pub fn is_refusal(error: &sqlx::Error) -> bool {
    code(error).starts_with("23")
}

/// The constraint that refused, without the name of its table: the twin calls its own the same then.
pub fn rule(error: &sqlx::Error) -> String {
    let name = of_server(error).and_then(PgDatabaseError::constraint).unwrap_or_default();
    let tables = [
        "twin_",
        "customers_v2_",
        "customers_0_",
        "customers_1_",
        "customers_2_",
        "customers_",
        "users_",
        "profiles_",
    ];
    tables.iter().find_map(|table| name.strip_prefix(table)).unwrap_or(name).to_owned()
}

/// An error with what the server adds to it.
pub fn whole(error: &sqlx::Error) -> String {
    let more = of_server(error).map(|error| (error.detail(), error.hint(), error.r#where()));
    format!("{} {error} {more:?}", code(error))
}

/// Whether the new side refuses a row whose key the old one has and the copy has not come to.
pub fn is_not_copied_yet(error: &sqlx::Error) -> bool {
    error.to_string().contains("is not copied yet")
}

/// Whether it refuses one to a client of its own of whose key it is only noted that the row there is gone, or goes elsewhere.
pub fn is_being_changed(error: &sqlx::Error) -> bool {
    error.to_string().contains("is being changed")
}

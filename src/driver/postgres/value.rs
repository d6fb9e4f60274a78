//! The value of a plan's query: one statement, one row, one column, on a connection that can't write.
//!
//! Invariants:
//! - The server refuses writes, of functions that the query calls too: the transaction is READ ONLY. What such a transaction
//!   lets pass (settings, session locks) ends with its session, which is used for nothing else.
//! - Only a statement that gives rows is run: `COPY … TO PROGRAM` writes in a READ ONLY transaction too.
//!
//! Numbers are compared as numbers, so whole ones stay exact and others become the nearest double; everything that is neither
//! number, text nor truth is the server's own text of it (ISO dates, UTC).

use sqlx::{AssertSqlSafe, Column as _, Either, Executor as _, Row as _, SqlSafeStr as _};
use sqlx::{Statement as _, TypeInfo as _, ValueRef as _};

use super::error::{failed, refused};
use super::{Postgres, hints};
use crate::driver::Error;
use crate::run::{FailureClass, Statement, Value};

/// The value of a query.
pub(super) async fn of(postgres: &Postgres, query: &str) -> Result<Value, Error> {
    let text = query.trim_end().trim_end_matches(';').to_owned();
    let mut reader = postgres.connections.read().await?;
    let got = ask(reader.conn()?, &text).await;
    reader.close().await;
    match got {
        Ok(value) => Ok(value),
        Err(error) => {
            // Where it stands in the plan is the step's to say.
            let statement = Statement { text, line: 0 };
            let mut error = hints::explain(postgres, error, &statement, None).await;
            if let Error::Failed(failure) = &mut error {
                failure.line = None;
            }
            Err(error)
        }
    }
}

async fn ask(conn: &mut sqlx::PgConnection, text: &str) -> Result<Value, Error> {
    let sql = AssertSqlSafe(text.to_owned()).into_sql_str();
    // The server takes one statement only here, and says what it gives before anything is run.
    let prepared = (&mut *conn).prepare(sql.clone()).await.map_err(|error| refused(&error))?;
    if matches!(prepared.parameters(), Some(Either::Left([_, ..]) | Either::Right(1..))) {
        return Err(refuse("the query has a placeholder, and a plan gives no values for it"));
    }
    match prepared.columns() {
        [_] => {}
        [] => return Err(refuse("the query gives no rows")),
        columns => {
            let names: Vec<&str> = columns.iter().map(sqlx::Column::name).collect();
            return Err(refuse(&format!("the query gave the columns {}", names.join(", "))));
        }
    }
    let rows = sqlx::raw_sql(sql).fetch_all(conn).await.map_err(|error| refused(&error))?;
    match rows.as_slice() {
        [row] => read(row),
        [] => Err(refuse("the query gave no row")),
        _ => Err(refuse("the query gave more than one row")),
    }
}

fn refuse(message: &str) -> Error {
    Error::failed(FailureClass::Refused, message)
        .with_help("write a query that gives exactly one row with one column")
}

/// A row's only column, which the server gave as text.
fn read(row: &sqlx::postgres::PgRow) -> Result<Value, Error> {
    let doing = "read the query's value";
    let raw = row.try_get_raw(0).map_err(failed(doing))?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let text = raw.as_str().map_err(|error| failed(doing)(sqlx::Error::Decode(error)))?;
    Ok(of_text(row.columns()[0].type_info().name(), text))
}

/// A value from the name of its type and its text.
fn of_text(kind: &str, text: &str) -> Value {
    let as_text = || Value::Text(text.to_owned());
    match kind {
        "BOOL" => Value::Boolean(text == "t"),
        "INT2" | "INT4" | "INT8" | "OID" => text.parse().map_or_else(|_| as_text(), Value::Integer),
        "NUMERIC" | "FLOAT4" | "FLOAT8" => number(text).unwrap_or_else(as_text),
        _ => as_text(),
    }
}

/// `12.00` is a whole number; so is what `sum` gives of whole numbers.
fn number(text: &str) -> Option<Value> {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|digit| digit == b'0') => whole,
        _ => text,
    };
    match whole.parse() {
        Ok(number) => Some(Value::Integer(number)),
        Err(_) => text.parse().ok().map(Value::Real),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture::{Database, class};
    use super::*;
    use crate::driver::Session as _;

    #[tokio::test]
    async fn values_have_the_kind_that_people_compare_them_by() {
        let Some(database) = Database::with("CREATE TYPE mood AS ENUM ('meh')").await else {
            return;
        };
        let postgres = database.open().await;
        let text = |text: &str| Value::Text(text.to_owned());
        for (query, expected) in [
            ("SELECT count(*) FROM pg_class WHERE false;  ", Value::Integer(0)),
            ("SELECT sum(x) FROM (VALUES (1::bigint), (2)) AS v (x)", Value::Integer(3)),
            ("SELECT 12.00", Value::Integer(12)),
            ("SELECT 0.1::numeric", Value::Real(0.1)),
            ("SELECT -2.5::float4", Value::Real(-2.5)),
            ("SELECT 99999999999999999999", Value::Real(1e20)),
            ("SELECT true", Value::Boolean(true)),
            ("SELECT NULL::int", Value::Null),
            ("SELECT 'a''b'", text("a'b")),
            ("SELECT 'x'::\"char\"", text("x")),
            ("SELECT date '2026-03-01'", text("2026-03-01")),
            ("SELECT timestamptz '2026-03-01 12:00+02'", text("2026-03-01 10:00:00+00")),
            ("SELECT interval '90 min'", text("01:30:00")),
            ("SELECT '{\"a\": 1}'::jsonb", text("{\"a\": 1}")),
            ("SELECT 'meh'::mood", text("meh")),
            (
                "SELECT uuid '00000000-0000-0000-0000-000000000001'",
                text("00000000-0000-0000-0000-000000000001"),
            ),
            ("WITH x AS (SELECT 1 AS n) SELECT n FROM x -- so", Value::Integer(1)),
            ("SHOW standard_conforming_strings", text("on")),
        ] {
            assert_eq!(postgres.value(query).await.unwrap(), expected, "{query}");
        }
    }

    #[tokio::test]
    async fn a_query_is_one_that_reads_one_value() {
        let setup = "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2);
            CREATE FUNCTION write() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (3) RETURNING n'";
        let Some(database) = Database::with(setup).await else { return };
        let postgres = database.open().await;
        for (query, expected) in [
            ("SELECT n FROM t", FailureClass::Refused),
            ("SELECT n FROM t WHERE n > 5", FailureClass::Refused),
            ("SELECT 1, 2", FailureClass::Refused),
            ("SELECT $1::int", FailureClass::Refused),
            ("SELECT 1; DELETE FROM t", FailureClass::Refused),
            ("COMMIT", FailureClass::Refused),
            ("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'", FailureClass::Refused),
            ("INSERT INTO t VALUES (3) RETURNING n", FailureClass::NotPermitted),
            (
                "WITH x AS (DELETE FROM t RETURNING n) SELECT count(*) FROM x",
                FailureClass::NotPermitted,
            ),
            ("SELECT write()", FailureClass::NotPermitted),
        ] {
            assert_eq!(class(postgres.value(query).await), expected, "{query}");
        }
        assert_eq!(database.number("SELECT count(*) FROM t").await, 2);
        // What a query set is gone with its session.
        postgres.value("SELECT set_config('lock_timeout', '7s', false)").await.unwrap();
        assert_eq!(postgres.value("SHOW lock_timeout").await.unwrap(), Value::Text("2s".into()));
    }
}

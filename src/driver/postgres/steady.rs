//! Whether an expression gives the same value in a client's trigger and in our copy.
//!
//! The server judges: a condition that contradicts itself is folded away by the planner only where nothing in it can change
//! (`constraint_exclusion = on`, which the caller sets for its transaction), which takes in functions, operators and casts, after inlining. What isn't immutable may still
//! be meant, so it is a warning; what gives another value each time is an error.
//!
//! Absent on purpose: running the expression.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

/// Functions and words whose value is another at each call, in each session or in each transaction.
const UNSTEADY: [&str; 36] = [
    "clock_timestamp",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_setting",
    "current_time",
    "current_timestamp",
    "current_user",
    "currval",
    "gen_random_uuid",
    "inet_client_addr",
    "lastval",
    "localtime",
    "localtimestamp",
    "nextval",
    "now",
    "pg_backend_pid",
    "pg_current_xact_id",
    "pg_trigger_depth",
    "random",
    "session_user",
    "setval",
    "statement_timestamp",
    "system_user",
    "timeofday",
    "transaction_timestamp",
    "txid_current",
    "user",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "gen_random_bytes",
    "gen_salt",
    "setseed",
    "uuidv7",
];

/// How steady an expression is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Steadiness {
    /// The same for the same row, always.
    Immutable,
    /// It may depend on settings, on other rows, or on whatever a function does that doesn't promise more.
    Depends,
    /// It names what gives another value each time.
    Unsteady(&'static str),
}

/// How steady an expression over a row of `table` (SQL text) is; the server's error where it refuses to plan it.
pub(super) async fn steadiness(
    conn: &mut PgConnection,
    table: &str,
    expression: &str,
) -> Result<Steadiness, sqlx::Error> {
    let sql = format!(
        "EXPLAIN (COSTS off) SELECT (\n{expression}\n) FROM {table} WHERE (\n{expression}\n) IS NULL AND (\n{expression}\n) IS NOT NULL"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_all(conn).await?;
    let mut is_folded = false;
    for row in &rows {
        let line: String = row.try_get(0)?;
        is_folded |= line.trim() == "One-Time Filter: false";
    }
    if is_folded {
        return Ok(Steadiness::Immutable);
    }
    Ok(unsteady_word(expression).map_or(Steadiness::Depends, Steadiness::Unsteady))
}

/// A word of the expression that stands for something unsteady. It is looked for only where the server says that something
/// is: a column of such a name doesn't count otherwise.
fn unsteady_word(expression: &str) -> Option<&'static str> {
    let mut outside = String::with_capacity(expression.len());
    let mut in_text = false;
    for char in expression.chars() {
        in_text ^= char == '\'';
        outside.push(if in_text { ' ' } else { char.to_ascii_lowercase() });
    }
    outside
        .split(|char: char| !(char.is_alphanumeric() || char == '_'))
        .find_map(|word| UNSTEADY.iter().find(|unsteady| **unsteady == word).copied())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture::Database;
    use super::*;

    #[test]
    fn words_in_strings_are_no_functions() {
        assert_eq!(unsteady_word("coalesce(a, NOW())"), Some("now"));
        assert_eq!(unsteady_word("a || ' now '"), None);
        assert_eq!(unsteady_word("known"), None);
    }

    #[tokio::test]
    async fn the_server_says_what_is_steady() {
        let setup = "CREATE TABLE t (a text, at timestamptz, n int NOT NULL, random int);
             CREATE FUNCTION loose(x text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN x; END';
             CREATE FUNCTION firm(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN x; END'";
        let Some(database) = Database::with(setup).await else { return };
        let mut conn = database.client().await;
        sqlx::query("SET constraint_exclusion = on").execute(&mut conn).await.unwrap();
        for (expression, expected) in [
            ("lower(a) -- folded", Steadiness::Immutable),
            ("n + 1", Steadiness::Immutable),
            ("1", Steadiness::Immutable),
            ("random", Steadiness::Immutable),
            ("CASE WHEN n > 1 THEN a ELSE firm(a) END", Steadiness::Immutable),
            ("loose(a)", Steadiness::Depends),
            ("at::text", Steadiness::Depends),
            ("at::date", Steadiness::Depends),
            ("coalesce(at, now())", Steadiness::Unsteady("now")),
            ("a || random()::text", Steadiness::Unsteady("random")),
            ("CURRENT_USER", Steadiness::Unsteady("current_user")),
            ("nextval('s')", Steadiness::Unsteady("nextval")),
        ] {
            if expression.starts_with("nextval") {
                database.run("CREATE SEQUENCE s").await;
            }
            let found = steadiness(&mut conn, "t", expression).await.unwrap();
            assert_eq!(found, expected, "{expression}");
        }
    }
}

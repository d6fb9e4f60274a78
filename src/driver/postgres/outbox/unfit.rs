//! Values that no other database has though their types have a form, looked for in all rows before the plan's first change.
//!
//! The table is read once, and not at all where no column can hold such a value and no expression may fail. A look has its time: what is
//! not through by then is said not to be known. What is not found here is met by the copy and the relay.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::findings::{Found, may_fail};
use super::form::{Form, Scalar};
use super::mapped::Captured;
use crate::driver::postgres::catalogue::{Table, quote};
use crate::driver::postgres::error::{failed, refused};
use crate::driver::postgres::shape::enclosed;
use crate::driver::{Error, Severity};
use crate::run::plural;

/// Rows that can't cross as they are.
const UNFIT: &str = "D224";

/// What a column may hold that can't cross: when that is so, in words, and what to write instead.
struct Against {
    when: String,
    words: &'static str,
    instead: String,
}

/// What of the rows can't cross. Refused, in the server's words, where an expression fails for a row.
pub(super) async fn all(
    conn: &mut PgConnection,
    captured: &Captured,
    table: &Table,
) -> Result<Vec<Found>, Error> {
    let kinds = super::kinds(conn, captured, table).await?;
    let mut counts = Vec::new();
    let mut against = Vec::new();
    for ((name, expression), kind) in captured.columns.iter().zip(&kinds) {
        let value = enclosed(expression);
        if let Some(one) = kind.form().and_then(|form| of(form, expression.trim(), &value)) {
            counts.push(format!("count(*) FILTER (WHERE {})", one.when));
            against.push((name, one));
        }
    }
    // Where nothing but a failure is looked for its count is not read.
    let risky = captured.columns.iter().filter(|(_, expression)| may_fail(expression));
    counts.extend(risky.map(|(_, expression)| format!("count({})", enclosed(expression))));
    if counts.is_empty() && !captured.filter.as_deref().is_some_and(may_fail) {
        return Ok(Vec::new());
    }
    counts.push("count(*)".to_owned());
    let filter = captured
        .filter
        .as_ref()
        .map(|filter| format!(" WHERE {}", enclosed(filter)))
        .unwrap_or_default();
    let count = format!("SELECT {} FROM {}{filter}", counts.join(", "), table.sql());
    let counted = sqlx::query(AssertSqlSafe(count)).fetch_one(conn).await;
    let counted = counted.map_err(|error| refused(&error))?;
    let key: Vec<String> = captured.key.iter().map(|name| quote(name)).collect();
    let mut found = Vec::new();
    for (at, (name, one)) in against.into_iter().enumerate() {
        let rows: i64 = counted.try_get(at).map_err(failed("count rows that can't cross"))?;
        if rows == 0 {
            continue;
        }
        let message = format!(
            "{name}: of {} of {} the value {}",
            plural(rows.unsigned_abs(), "row"),
            table.name,
            one.words
        );
        let also = captured.filter.as_ref().map(|it| format!(" AND {}", enclosed(it)));
        let list = format!(
            "SELECT {} FROM {} WHERE {}{}",
            key.join(", "),
            table.sql(),
            one.when,
            also.unwrap_or_default()
        );
        let help = format!(
            "{}; or leave such rows out with `where`; they are listed by: {}",
            one.instead,
            list.replace('\n', "")
        );
        found.push(Found { severity: Severity::Error, code: UNFIT, message, help: Some(help) });
    }
    Ok(found)
}

/// That the look's time was over before the table's end.
pub(super) fn not_looked_through(table: &Table) -> Found {
    let message = format!(
        "{} is too large to be looked through now for values that the other database can't hold, and for rows whose expressions fail",
        table.name
    );
    let help = "a row that can't cross fails the copy, which names it and goes on by `phasegate retry` when that is mended".to_owned();
    Found { severity: Severity::Warning, code: UNFIT, message, help: Some(help) }
}

fn of(form: Form, expression: &str, value: &str) -> Option<Against> {
    let (when, words, instead) = match form {
        Form::One(scalar) => {
            let when = scalar_is(scalar, value)?;
            let (words, instead) = if scalar.may_be_endless() {
                let instead = format!(
                    "write CASE WHEN isfinite({expression}) THEN {expression} END to carry nothing for it"
                );
                ("is infinite, which no other database has", instead)
            } else {
                let instead = format!("write ({expression})::text");
                ("is 24:00:00, which no other database has", instead)
            };
            (when, words, instead)
        }
        Form::List(scalar) => {
            let unfit = scalar_is(scalar, "it").map(|when| format!(" OR {when}"));
            let when = format!(
                "(array_ndims({value}) > 1 OR EXISTS (SELECT FROM unnest({value}) AS all_of (it) WHERE it IS NULL{}))",
                unfit.unwrap_or_default()
            );
            let instead =
                format!("write array_remove({expression}, NULL), or ({expression})::text");
            (
                when,
                "is a list of lists, or has a NULL or another value in it that a graph can't hold",
                instead,
            )
        }
    };
    Some(Against { when, words, instead })
}

/// When a value can't cross; none where all of its type can.
fn scalar_is(scalar: Scalar, value: &str) -> Option<String> {
    match scalar {
        Scalar::LocalTime => Some(format!("{value} = '24:00'")),
        Scalar::Time => Some(format!("{value}::time = '24:00'")),
        scalar => scalar.may_be_endless().then(|| format!("NOT isfinite({value})")),
    }
}

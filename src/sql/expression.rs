//! Expressions over one row: which columns they read, and why some are none. Here those of SQLite; PostgreSQL's are read
//! beside its statements.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Value, ValueWithSpan,
    Visit as _, Visitor,
};

use super::token::{Kind, tokens};
use super::{Dialect, postgres, sqlite};

/// Functions that make one value out of many rows. `min` and `max` do so with one argument only.
const AGGREGATES: [&str; 17] = [
    "avg",
    "count",
    "group_concat",
    "json_group_array",
    "json_group_object",
    "jsonb_group_array",
    "jsonb_group_object",
    "median",
    "percentile",
    "percentile_cont",
    "percentile_disc",
    "row_number",
    "rank",
    "string_agg",
    "sum",
    "total",
    "dense_rank",
];

/// Functions whose value is another at each call or on each connection: what they gave a copy can never be compared.
const UNSTEADY: [&str; 9] = [
    "changes",
    "current_date",
    "current_time",
    "current_timestamp",
    "last_insert_rowid",
    "random",
    "randomblob",
    "sqlite_offset",
    "total_changes",
];

/// Functions that mean the present moment when told so, or when told nothing.
const OF_TIME: [(&str, usize); 6] = [
    ("date", 0),
    ("time", 0),
    ("datetime", 0),
    ("julianday", 0),
    ("unixepoch", 0),
    // Its first argument is the format.
    ("strftime", 1),
];

/// Whether an expression calls no function but those of the database's own that are known here. Any other may read tables, so that
/// its value depends on more than the columns that it names. Where that can't be told it is no.
#[must_use]
pub fn calls_known_only(dialect: Dialect, expression: &str) -> bool {
    dialect == Dialect::Postgres && postgres::calls_known_only(expression)
}

/// The columns that an expression over one row reads, as written. The error is a sentence for people.
///
/// Errors: what isn't one expression; subqueries, aggregates, window functions and parameters, which are no expressions
/// over one row; qualified names, since the row has no name; functions whose value can't be had twice.
pub fn column_refs(dialect: Dialect, expression: &str) -> Result<BTreeSet<String>, String> {
    match dialect {
        Dialect::Sqlite => {}
        Dialect::Postgres => return postgres::column_refs(expression),
        Dialect::Mysql | Dialect::Sqlserver | Dialect::Cypher => {
            return Err(format!("expressions of {} can't be read yet", dialect.name()));
        }
    }
    let parsed = sqlite::expression(expression)
        .map_err(|reason| format!("it is not an expression: {reason}"))?;
    let mut columns = Columns { found: BTreeSet::new() };
    match parsed.visit(&mut columns) {
        ControlFlow::Break(complaint) => Err(complaint),
        ControlFlow::Continue(()) => Ok(columns.found),
    }
}

/// The column that an expression is the plain value of, spelled as the catalogue spells it. None where it is anything else.
#[must_use]
pub fn plain_column(dialect: Dialect, expression: &str) -> Option<String> {
    let all = tokens(dialect, expression, 1).ok()?;
    let is_name = all.len() == 1 && matches!(all[0].kind, Kind::Word | Kind::Quoted);
    // A word may be a value: `null`, `true`, `1`.
    let read = column_refs(dialect, expression).ok().filter(|read| is_name && read.len() == 1)?;
    read.into_iter().next()
}

struct Columns {
    found: BTreeSet<String>,
}

impl Visitor for Columns {
    type Break = String;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<String> {
        ControlFlow::Break("it reads other rows: a subquery is no expression over one row".into())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<String> {
        match &value.value {
            Value::Placeholder(name) => {
                ControlFlow::Break(format!("{name} is a parameter, which nothing gives a value"))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        match expr {
            Expr::Identifier(ident) => {
                if ident.quote_style.is_none() && is_one_of(&ident.value, &UNSTEADY) {
                    return ControlFlow::Break(unsteady(&ident.value));
                }
                self.found.insert(ident.value.clone());
                ControlFlow::Continue(())
            }
            Expr::CompoundIdentifier(parts) => {
                let column = parts.last().map(|ident| ident.value.as_str()).unwrap_or_default();
                let written =
                    parts.iter().map(|ident| ident.value.as_str()).collect::<Vec<_>>().join(".");
                ControlFlow::Break(format!(
                    "{written} names a table; there is one row only: write {column}"
                ))
            }
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                ControlFlow::Break("* is no value".into())
            }
            Expr::Function(function) => judge(function),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn unsteady(name: &str) -> String {
    format!("{name} gives another value each time, so what was copied could never be compared")
}

fn judge(function: &Function) -> ControlFlow<String> {
    let name = function.name.to_string().to_ascii_lowercase();
    let arguments = match &function.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        FunctionArguments::None | FunctionArguments::Subquery(_) => &[],
    };
    let aggregates = is_one_of(&name, &AGGREGATES)
        || (matches!(name.as_str(), "min" | "max") && arguments.len() == 1)
        || function.over.is_some()
        || function.filter.is_some()
        || !function.within_group.is_empty();
    if aggregates {
        return ControlFlow::Break(format!(
            "{name}() is taken over many rows; an expression here sees one"
        ));
    }
    let is_now = OF_TIME.iter().any(|(of_time, format)| {
        name == *of_time && (arguments.len() <= *format || arguments.iter().any(says_now))
    });
    if is_now || is_one_of(&name, &UNSTEADY) {
        return ControlFlow::Break(unsteady(&format!("{name}()")));
    }
    ControlFlow::Continue(())
}

fn says_now(argument: &FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = argument else {
        return false;
    };
    matches!(&value.value, Value::SingleQuotedString(text) if text.eq_ignore_ascii_case("now"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_is_not_known_may_read_tables() {
        let known = |expression: &str| calls_known_only(Dialect::Postgres, expression);
        for steady in ["lower(trim(status))", "id", "coalesce(a, b) || 'x'", "pg_catalog.upper(a)"]
        {
            assert!(known(steady), "{steady}");
        }
        for other in ["name_of(id)", "app.lower(a)", "lower(name_of(id))", "not an expression ("] {
            assert!(!known(other), "{other}");
        }
        assert!(!calls_known_only(Dialect::Sqlite, "lower(a)"));
    }

    #[test]
    fn the_plain_value_of_a_column_is_told_from_others() {
        for (expression, column) in [
            ("id", Some("id")),
            (" Id ", Some("id")),
            ("\"Id\"", Some("Id")),
            ("\"say \"\"a\"\"\"", Some("say \"a\"")),
            ("null", None),
            ("true", None),
            ("1", None),
            ("'id'", None),
            ("current_date", None),
            ("lower(id)", None),
            ("id::text", None),
            ("(id)", None),
            ("t.id", None),
            ("", None),
        ] {
            let found = plain_column(Dialect::Postgres, expression);
            assert_eq!(found.as_deref(), column, "{expression}");
        }
    }

    #[test]
    fn columns_are_found_wherever_they_stand() {
        let cases: [(&str, &[&str]); 22] = [
            ("1", &[]),
            ("NULL", &[]),
            ("'status'", &[]),
            ("status", &["status"]),
            ("lower(status)", &["status"]),
            ("LOWER(TRIM(Status))", &["Status"]),
            ("first || ' ' || last", &["first", "last"]),
            ("\"order\" + [group by] + `x`", &["group by", "order", "x"]),
            ("CASE WHEN a > 1 THEN b ELSE c END", &["a", "b", "c"]),
            ("CASE a WHEN b THEN 1 END", &["a", "b"]),
            ("CAST(amount * 100 AS INTEGER)", &["amount"]),
            ("coalesce(a, nullif(b, ''), 0)", &["a", "b"]),
            ("a IS b", &["a", "b"]),
            ("a IS NOT b AND c IS NULL", &["a", "b", "c"]),
            ("a IN (1, b) OR c BETWEEN d AND 5", &["a", "b", "c", "d"]),
            ("json_extract(data, '$.email')", &["data"]),
            ("data ->> '$.email'", &["data"]),
            ("min(a, b) + max(a, b, 3)", &["a", "b"]),
            ("name COLLATE NOCASE GLOB 'a*'", &["name"]),
            ("strftime('%Y', created_at)", &["created_at"]),
            ("date(created_at, '+1 day')", &["created_at"]),
            ("a << 2 /* ; */ -- b", &["a"]),
        ];
        for (expression, columns) in cases {
            let found = column_refs(Dialect::Sqlite, expression)
                .unwrap_or_else(|error| panic!("{expression}: {error}"));
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            assert_eq!(found, columns, "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_over_one_row_is_refused_with_its_reason() {
        let cases = [
            ("", "not an expression"),
            ("a b c", "not an expression"),
            ("a; DROP TABLE t", "not an expression"),
            ("a, b", "not an expression"),
            ("lower(", "not an expression"),
            ("'open", "not an expression"),
            ("SELECT 1", "not an expression"),
            ("(SELECT max(a) FROM t)", "subquery"),
            ("EXISTS (SELECT 1)", "subquery"),
            ("a IN (SELECT b FROM t)", "subquery"),
            ("a IN t", "subquery"),
            ("count(*)", "many rows"),
            ("sum(a) + 1", "many rows"),
            ("max(a)", "many rows"),
            ("group_concat(a)", "many rows"),
            ("row_number() OVER (ORDER BY a)", "many rows"),
            ("leads.status", "write status"),
            ("new.status", "write status"),
            ("main.leads.status", "write status"),
            ("?", "parameter"),
            (":a", "parameter"),
            ("random()", "another value"),
            ("hex(randomblob(16))", "another value"),
            ("CURRENT_TIMESTAMP", "another value"),
            ("datetime('now')", "another value"),
            ("strftime('%s', 'NOW')", "another value"),
            ("unixepoch()", "another value"),
            ("last_insert_rowid()", "another value"),
        ];
        for (expression, part) in cases {
            let error = column_refs(Dialect::Sqlite, expression).expect_err(expression);
            assert!(error.contains(part), "{expression}: {error}");
        }
        let error = column_refs(Dialect::Mysql, "a").unwrap_err();
        assert!(error.contains("MySQL"), "{error}");
    }
}

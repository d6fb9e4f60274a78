//! Expressions over one row: which columns they read, and why some are none.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Value, ValueWithSpan,
    Visit as _, Visitor,
};

use super::{Dialect, sqlite};

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

/// The columns that an expression over one row reads, as written. The error is a sentence for people.
///
/// Errors: what isn't one expression; subqueries, aggregates, window functions and parameters, which are no expressions
/// over one row; qualified names, since the row has no name; functions whose value can't be had twice.
pub fn column_refs(dialect: Dialect, expression: &str) -> Result<BTreeSet<String>, String> {
    if dialect != Dialect::Sqlite {
        return Err(format!("expressions of {} can't be read yet", dialect.name()));
    }
    let parsed = sqlite::expression(expression)
        .map_err(|reason| format!("it is not an expression: {reason}"))?;
    let mut columns = Columns { found: BTreeSet::new() };
    match parsed.visit(&mut columns) {
        ControlFlow::Break(complaint) => Err(complaint),
        ControlFlow::Continue(()) => Ok(columns.found),
    }
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

//! How values cross: every one as the server's own text of it, and how that text is read.
//!
//! Invariants:
//! - The same value has the same text in a page and in a trigger, since both are written under [`PINNED`].
//! - A type that isn't known here has no form. Nothing is taken for text because nobody knew better.
//! - A value that its form can't hold is [`Unread`], with a reason that shows nothing of it.
//!
//! What might be expected otherwise:
//! - `real` is widened bit by bit, as the server widens it: 1.1 becomes 1.10000002384185791.
//! - `character(n)` loses its padding, since that is what `::text` makes of it and its comparison ignores it; so do the elements
//!   of lists, which `::text` would keep it for.
//! - 24:00:00 is a time of day in PostgreSQL alone, and is refused.
//!
//! Absent on purpose: types with another notion of sameness than their text (`numeric`, `json`) or without one in a graph.
//! A mapping says what it means by them, such as `(balance * 100)::bigint`.

use sqlx::Statement as _;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Either, Executor as _, Row as _, SqlSafeStr as _};

use super::moments;
use crate::copy::row::Datum;
use crate::driver::Error;
use crate::driver::postgres::error::{failed, refused};
use crate::run::FailureClass;

/// The settings that expressions and the texts of values depend on: those of the triggers' functions, and of transactions that read
/// rows.
pub(super) const PINNED: [(&str, &str); 7] = [
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "iso_8601"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    // What a literal with a backslash says, and what `= NULL` does.
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
];

/// Settings that a database may have of its own, such as how many digits its money has: the functions have them as the sessions that
/// read rows do.
pub(super) const AS_HERE: [&str; 3] = ["lc_monetary", "lc_numeric", "lc_time"];

/// What a value is, but for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Boolean,
    Integer,
    /// A number of four bytes.
    Narrow,
    Real,
    Text,
    /// Text that is filled up with blanks.
    Padded,
    Bytes,
    Date,
    LocalTime,
    Time,
    LocalDateTime,
    DateTime,
    Duration,
}

/// How the text of a column is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    One(Scalar),
    /// Values in order, in one dimension and without NULL.
    List(Scalar),
}

/// Why a value can't cross, in words that fit behind the column's name.
pub(super) type Unread = &'static str;

const GARBLED: Unread = "has a text that is not of its type";
const ENDLESS: Unread = "is infinite, which no other database has";
const MIDNIGHT: Unread = "is 24:00:00, which no other database has";
const HOLE: Unread = "is a list with a NULL in it, which a graph can't hold";
const NESTED: Unread = "is a list of lists, which a graph can't hold";

impl Scalar {
    /// The value in a text.
    pub(super) fn read(self, text: &str) -> Result<Datum, Unread> {
        if self.may_be_endless() && matches!(text, "infinity" | "-infinity") {
            return Err(ENDLESS);
        }
        let read = match self {
            Self::Boolean => match text {
                "true" | "t" => Some(Datum::Boolean(true)),
                "false" | "f" => Some(Datum::Boolean(false)),
                _ => None,
            },
            Self::Integer => text.parse().ok().map(Datum::Integer),
            Self::Narrow => text.parse::<f32>().ok().map(|value| Datum::Real(f64::from(value))),
            Self::Real => text.parse().ok().map(Datum::Real),
            Self::Text => Some(Datum::Text(text.to_owned())),
            Self::Padded => Some(Datum::Text(text.trim_end_matches(' ').to_owned())),
            Self::Bytes => text
                .strip_prefix("\\x")
                .and_then(|digits| hex::decode(digits).ok())
                .map(Datum::Bytes),
            Self::Date => moments::date(text).map(Datum::Date),
            Self::LocalTime | Self::Time if text.starts_with("24:") => return Err(MIDNIGHT),
            Self::LocalTime => moments::time(text).map(Datum::LocalTime),
            Self::Time => moments::time_in_zone(text),
            Self::LocalDateTime => moments::date_time(text)
                .map(|(seconds, nanos)| Datum::LocalDateTime { seconds, nanos }),
            Self::DateTime => {
                moments::instant(text).map(|(seconds, nanos)| Datum::DateTime { seconds, nanos })
            }
            Self::Duration => moments::duration(text),
        };
        read.ok_or(GARBLED)
    }

    /// Whether values of the type may be infinite.
    pub(super) const fn may_be_endless(self) -> bool {
        matches!(self, Self::Date | Self::LocalDateTime | Self::DateTime | Self::Duration)
    }
}

impl Form {
    /// The value in a text.
    pub(super) fn read(self, text: &str) -> Result<Datum, Unread> {
        match self {
            Self::One(scalar) => scalar.read(text),
            Self::List(scalar) => {
                let elements = elements(text)?;
                elements
                    .iter()
                    .map(|text| scalar.read(text))
                    .collect::<Result<_, _>>()
                    .map(Datum::List)
            }
        }
    }
}

/// The texts of a list's values: <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>.
fn elements(text: &str) -> Result<Vec<String>, Unread> {
    // Where the first place isn't 1 the bounds come first: `[0:1]={…}`.
    let text = if text.starts_with('[') {
        text.split_once('=').map(|(_, text)| text).ok_or(GARBLED)?
    } else {
        text
    };
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or(GARBLED)?;
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut chars = inner.chars().peekable();
    loop {
        let mut element = String::new();
        match chars.peek() {
            Some('{') => return Err(NESTED),
            Some('"') => {
                chars.next();
                loop {
                    match chars.next().ok_or(GARBLED)? {
                        '"' => break,
                        '\\' => element.push(chars.next().ok_or(GARBLED)?),
                        char => element.push(char),
                    }
                }
            }
            _ => {
                while let Some(char) = chars.next_if(|char| *char != ',') {
                    element.push(if char == '\\' { chars.next().ok_or(GARBLED)? } else { char });
                }
                if element == "NULL" {
                    return Err(HOLE);
                }
            }
        }
        found.push(element);
        match chars.next() {
            None => return Ok(found),
            Some(',') => {}
            Some(_) => return Err(GARBLED),
        }
    }
}

/// A type as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The type's name for people.
    pub(super) shown: String,
    /// What it is built on: the name of a built-in type, or of `citext`; empty for others.
    base: String,
    /// `e` for an enumeration, `c` for a composite and so on, as `pg_type` has it.
    class: String,
    /// The same of what a list's elements are built on.
    element: Option<(String, String)>,
}

impl Kind {
    /// How values of the type are read; none where the type has no form.
    pub(super) fn form(&self) -> Option<Form> {
        match &self.element {
            Some((base, class)) => scalar(base, class).map(Form::List),
            None => scalar(&self.base, &self.class).map(Form::One),
        }
    }

    /// What to write in a mapping instead of an expression whose type has no form.
    pub(super) fn instead(&self, expression: &str) -> String {
        let expression = expression.trim();
        let is_name = expression.chars().all(|char| char.is_alphanumeric() || char == '_');
        let it = if is_name { expression.to_owned() } else { format!("({expression})") };
        match (self.element.is_some(), self.base.as_str(), self.class.as_str()) {
            (false, "numeric", _) => format!(
                "write {it}::text to keep it exactly, or ({it} * 100)::bigint to count in hundredths"
            ),
            (false, "json" | "jsonb", _) => {
                format!("write {it}::text, or one of its fields: {it}->>'field'")
            }
            (false, "money", _) => format!("write {it}::numeric::text"),
            (false, _, "r" | "m") => format!("write its ends: lower({it}) and upper({it})"),
            (false, _, "c") => format!("write its fields one by one: ({it}).field"),
            (true, _, _) => {
                format!("write it as text, {it}::text, or as a list of a type that has a form")
            }
            _ => format!("write {it}::text"),
        }
    }
}

fn scalar(base: &str, class: &str) -> Option<Scalar> {
    Some(match base {
        _ if class == "e" => Scalar::Text,
        "bool" => Scalar::Boolean,
        "int2" | "int4" | "int8" => Scalar::Integer,
        "float4" => Scalar::Narrow,
        "float8" => Scalar::Real,
        "text" | "varchar" | "name" | "citext" | "uuid" => Scalar::Text,
        "bpchar" => Scalar::Padded,
        "bytea" => Scalar::Bytes,
        "date" => Scalar::Date,
        "time" => Scalar::LocalTime,
        "timetz" => Scalar::Time,
        "timestamp" => Scalar::LocalDateTime,
        "timestamptz" => Scalar::DateTime,
        "interval" => Scalar::Duration,
        _ => return None,
    })
}

/// What types are, in the order of their oids in `$1`. A list is told by its element's type naming it, which vectors of the
/// catalogue's own aren't.
const KINDS: &str = "\
SELECT format_type(o.oid, NULL) AS shown,
       CASE WHEN n.nspname = 'pg_catalog' OR t.typname = 'citext' THEN t.typname::text ELSE '' END AS base,
       t.typtype::text AS class,
       CASE WHEN en.nspname = 'pg_catalog' OR e.typname = 'citext' THEN e.typname::text
            WHEN e.oid IS NOT NULL THEN '' END AS element, e.typtype::text AS element_class
FROM unnest($1::bigint[]) WITH ORDINALITY AS a (number, at)
CROSS JOIN LATERAL (SELECT a.number::oid AS oid) AS o
CROSS JOIN LATERAL (
  WITH RECURSIVE under (oid, depth) AS (
    SELECT o.oid, 0 UNION ALL SELECT d.typbasetype, depth + 1 FROM under JOIN pg_type d ON d.oid = under.oid AND d.typtype = 'd')
  SELECT oid FROM under ORDER BY depth DESC LIMIT 1) AS b
JOIN pg_type t ON t.oid = b.oid JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_type l ON l.typarray = t.oid
LEFT JOIN LATERAL (
  WITH RECURSIVE under (oid, depth) AS (
    SELECT l.oid, 0 UNION ALL SELECT d.typbasetype, depth + 1 FROM under JOIN pg_type d ON d.oid = under.oid AND d.typtype = 'd')
  SELECT oid FROM under ORDER BY depth DESC LIMIT 1) AS be ON l.oid IS NOT NULL
LEFT JOIN pg_type e ON e.oid = be.oid LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
ORDER BY a.at";

/// What expressions over a table are, which are not evaluated. `Err` is what the server says against them and the filter, such as
/// that a column isn't there.
///
/// They are planned as pages read them, and then their types are asked for, which the server knows of a branch that is never taken.
pub(super) async fn kinds(
    conn: &mut PgConnection,
    values: &[String],
    filter: &str,
    table: &str,
) -> Result<Vec<Kind>, Error> {
    let list: Vec<String> = values.iter().map(|value| format!(", {value}")).collect();
    // The bare column beside them keeps out what works out one row of many.
    let select =
        format!("EXPLAIN SELECT {table}.xmin{} FROM {table} WHERE {filter}", list.concat());
    let sql = AssertSqlSafe(select).into_sql_str();
    let prepared = (&mut *conn).prepare(sql).await.map_err(|error| refused(&error))?;
    if matches!(prepared.parameters(), Some(Either::Left([_, ..]) | Either::Right(1..))) {
        let message = "an expression has a placeholder, and nothing gives it a value";
        return Err(Error::failed(FailureClass::Refused, message));
    }
    let types: Vec<String> = values
        .iter()
        .map(|value| format!("pg_typeof(CASE WHEN false THEN {value} END)::oid::bigint"))
        .collect();
    let sql = format!(
        "SELECT ARRAY[{}]::bigint[] FROM (SELECT 1) AS phasegate_one LEFT JOIN {table} ON false",
        types.join(", ")
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut *conn).await;
    let doing = "read the types of the mapping's expressions";
    let oids: Vec<i64> = row.map_err(|error| refused(&error))?.try_get(0).map_err(failed(doing))?;
    let rows = sqlx::query(KINDS).bind(oids).fetch_all(conn).await.map_err(failed(doing))?;
    let read = |row: &sqlx::postgres::PgRow| -> Result<Kind, sqlx::Error> {
        let element: Option<String> = row.try_get("element")?;
        let class: Option<String> = row.try_get("element_class")?;
        Ok(Kind {
            shown: row.try_get("shown")?,
            base: row.try_get("base")?,
            class: row.try_get("class")?,
            element: element.zip(class),
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed(doing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Datum {
        Datum::List(values.iter().map(|text| Datum::Text((*text).to_owned())).collect())
    }

    #[test]
    fn lists_are_taken_apart_as_the_server_puts_them_together() {
        let list = Form::List(Scalar::Text);
        for (text, expected) in [
            ("{}", Ok(texts(&[]))),
            ("{a}", Ok(texts(&["a"]))),
            ("{a,b c,\"\"}", Ok(texts(&["a", "b c", ""]))),
            (r#"{"a,b","c\"d","e\\f","{g}","NULL","null"}"#, {
                Ok(texts(&["a,b", "c\"d", "e\\f", "{g}", "NULL", "null"]))
            }),
            ("[0:1]={a,b}", Ok(texts(&["a", "b"]))),
            ("{a,NULL}", Err(HOLE)),
            ("{{a},{b}}", Err(NESTED)),
            ("[1:2][1:1]={{a},{b}}", Err(NESTED)),
            ("", Err(GARBLED)),
            ("{a", Err(GARBLED)),
            ("{\"a}", Err(GARBLED)),
            ("{\"a\"b}", Err(GARBLED)),
        ] {
            assert_eq!(list.read(text), expected, "{text}");
        }
        let integers = Form::List(Scalar::Integer).read("{1,-2}");
        assert_eq!(integers, Ok(Datum::List(vec![Datum::Integer(1), Datum::Integer(-2)])));
        let truths = Form::List(Scalar::Boolean).read("{t,f}");
        assert_eq!(truths, Ok(Datum::List(vec![Datum::Boolean(true), Datum::Boolean(false)])));
    }

    #[test]
    fn values_are_read_by_their_form_and_by_no_other() {
        assert_eq!(Scalar::Narrow.read("1.1"), Ok(Datum::Real(1.100_000_023_841_858)));
        assert_eq!(Scalar::Real.read("1.1"), Ok(Datum::Real(1.1)));
        assert_eq!(Scalar::Real.read("-Infinity"), Ok(Datum::Real(f64::NEG_INFINITY)));
        assert_eq!(Scalar::Real.read("NaN"), Ok(Datum::Real(f64::NAN)));
        assert_eq!(Scalar::Bytes.read("\\x00ff"), Ok(Datum::Bytes(vec![0, 255])));
        assert_eq!(Scalar::Padded.read("a  "), Ok(Datum::Text("a".into())));
        assert_eq!(Scalar::Text.read("infinity"), Ok(Datum::Text("infinity".into())));
        for (scalar, text, why) in [
            (Scalar::Date, "infinity", ENDLESS),
            (Scalar::DateTime, "-infinity", ENDLESS),
            (Scalar::LocalTime, "24:00:00", MIDNIGHT),
            (Scalar::Time, "24:00:00+01", MIDNIGHT),
            (Scalar::Integer, "1.0", GARBLED),
            (Scalar::Bytes, "00", GARBLED),
            (Scalar::Boolean, "yes", GARBLED),
        ] {
            assert_eq!(scalar.read(text), Err(why), "{text}");
        }
    }
}

//! The defaults of columns that others take the names of in one table.
//!
//! A client of the new shape that leaves the column out is to find what it would have found before: the old default's value, as
//! the mapping makes it. It is given in the transaction that renames, since with `both` the sync's functions know the defaults:
//! changed by hand while they are at work, an insert of the old shape would be taken for one of the new.
//!
//! Absent on purpose: defaults that are computed anew for each row where the mapping computes something of them. With `both`
//! the sync goes on filling the column until `drop`; with `forward` the author has to say what clients get.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::carried::{Gift, Need};
use super::catalogue::{Column, literal, quote};
use super::error::refused;
use super::shape::Shape;
use crate::driver::Error;
use crate::run::RetiredColumn;
use crate::sql::{Dialect, column_refs};

/// A default that goes over, or whose counterpart nobody can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    /// The column that takes the other one's name.
    pub column: String,
    /// The old column's default.
    pub was: String,
    /// What it is for the new one.
    pub is: Option<String>,
}

/// The defaults that the columns lack which take others' names.
pub(super) async fn inherited(
    conn: &mut PgConnection,
    shape: &Shape,
    columns: &[RetiredColumn],
) -> Result<Vec<Inherited>, Error> {
    let mut all = Vec::new();
    for retired in columns {
        let Some(taken) = &retired.take_name else { continue };
        let (Some(old), Some(new)) = (shape.old.column(&retired.column), shape.old.column(taken))
        else {
            continue;
        };
        let has_own = new.default.is_some() || new.identity.is_some() || new.is_generated;
        let Some(was) = old.default.as_ref().filter(|_| !old.is_generated && !has_own) else {
            continue;
        };
        let is = converted(conn, shape, (old, new, was)).await?;
        all.push(Inherited { column: taken.clone(), was: was.clone(), is });
    }
    Ok(all)
}

/// What the mapping makes of a default: the same where it copies, the value's counterpart where it is one value for ever.
async fn converted(
    conn: &mut PgConnection,
    shape: &Shape,
    (old, new, default): (&Column, &Column, &str),
) -> Result<Option<String>, Error> {
    let Some(write) = shape.writes.iter().find(|write| write.column == new.name) else {
        return Ok(None);
    };
    let reads = column_refs(Dialect::Postgres, &write.value).unwrap_or_default();
    if reads.len() != 1 || !reads.contains(&old.name) {
        return Ok(None);
    }
    if write.is_plain {
        return Ok(Some(default.to_owned()));
    }
    if !is_constant(default) {
        return Ok(None);
    }
    let sql = format!(
        "SELECT (({})::{})::text FROM (SELECT ({default})::{} AS {}) AS {}",
        write.value,
        new.stored_sql,
        old.stored_sql,
        quote(&old.name),
        quote(&shape.old.name)
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await.map_err(|it| refused(&it))?;
    let value: Option<String> = row.try_get(0).map_err(|it| refused(&it))?;
    Ok(value.map(|value| format!("{}::{}", literal(&value), new.stored_sql)))
}

/// Whether a default is one value, as the server writes it: a text or a number, and maybe its type.
fn is_constant(default: &str) -> bool {
    let value = match default.strip_prefix('\'') {
        Some(text) => {
            let mut rest = text;
            loop {
                let Some(at) = rest.find('\'') else { return false };
                rest = &rest[at + 1..];
                match rest.strip_prefix('\'') {
                    Some(more) => rest = more,
                    None => break rest,
                }
            }
        }
        None => {
            let bare = default.trim_start_matches(['(', '-']);
            let end = bare.find("::").unwrap_or(bare.len());
            let (number, behind) = bare.split_at(end);
            let number = number.trim_end_matches(')');
            let is_number = number.starts_with(|c: char| c.is_ascii_digit())
                && number.chars().all(|c| c.is_ascii_digit() || c == '.');
            if !is_number && !matches!(number, "true" | "false") {
                return false;
            }
            behind
        }
    };
    let kind = value.strip_prefix("::");
    value.is_empty()
        || kind.is_some_and(|kind| {
            kind.chars().all(|c| {
                c.is_alphanumeric()
                    || matches!(c, '_' | ' ' | '(' | ')' | ',' | '.' | '"' | '[' | ']')
            })
        })
}

impl Inherited {
    /// It, to be given and taken back, under the names from before.
    pub(super) fn gift(&self, on: &str) -> Option<Gift> {
        let name = quote(&self.column);
        let is = self.is.as_ref()?;
        Some(Gift {
            what: "default".to_owned(),
            on: None,
            role: None,
            forward: format!("ALTER TABLE {on} ALTER COLUMN {name} SET DEFAULT {is}"),
            back: format!("ALTER TABLE {on} ALTER COLUMN {name} DROP DEFAULT"),
            need: Need::Must,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_told_from_what_is_computed() {
        for (default, expected) in [
            ("'none'::text", true),
            ("'it''s'::character varying", true),
            ("''::text", true),
            ("3", true),
            ("(-3)", true),
            ("'-3'::integer", true),
            ("0.5", true),
            ("(0)::numeric(12,2)", true),
            ("true", true),
            ("'{}'::text[]", true),
            ("now()", false),
            ("CURRENT_USER", false),
            ("nextval('s'::regclass)", false),
            ("('a'::text || 'b'::text)", false),
            ("'a'::text || 'b'::text", false),
            ("(1 + 2)", false),
            ("gen_random_uuid()", false),
            ("'now'::text::timestamp", false),
        ] {
            assert_eq!(is_constant(default), expected, "{default}");
        }
    }
}

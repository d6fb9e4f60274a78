//! The foreign keys of a table, or of columns, put aside.
//!
//! What is put aside stands still from then on, so it would hold on to rows of other tables that no client sees a reason to
//! keep: a delete there fails, or cascades into the table that takes no writes, or into rows that have nothing to do with
//! it any more. So it lets go of them, and gets them back with the definition from before when `retire` is taken back.
//!
//! Absent on purpose: foreign keys of other tables to it, which `retire` has point to what takes its place.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::catalogue::{Table, same_name};
use super::counterpart::normal;
use super::error::failed;
use super::expression::{Spanned, Word, definitions};
use super::rename::{self, Object};
use super::shape_sql::literal;
use crate::driver::Error;
use crate::run::FailureClass;

/// Takes the foreign keys from a table's definition. `table` is as it was, under the name it had.
pub(super) async fn let_go(
    conn: &mut SqliteConnection,
    id: &str,
    table: &Table,
    aside: &str,
) -> Result<(), Error> {
    if table.foreign_keys.is_empty() {
        return Ok(());
    }
    let (name, sql) = (table.name.clone(), table.sql.clone());
    let before = Object { kind: "table".to_owned(), name: name.clone(), table: name, sql };
    rename::keep(conn, id, &before).await?;
    let without = without_foreign_keys(&definition(conn, aside).await?, None);
    define(conn, aside, &without).await
}

/// Takes the foreign keys of columns from a table's definition.
pub(super) async fn let_columns_go(
    conn: &mut SqliteConnection,
    id: &str,
    (table, columns): (&str, &[String]),
) -> Result<(), Error> {
    let sql = definition(conn, table).await?;
    let without = without_foreign_keys(&sql, Some(columns));
    if without == sql {
        return Ok(());
    }
    let (kind, name) = ("table".to_owned(), table.to_owned());
    rename::keep(conn, id, &Object { kind, name: name.clone(), table: name, sql }).await?;
    define(conn, table, &without).await
}

async fn define(conn: &mut SqliteConnection, table: &str, definition: &str) -> Result<(), Error> {
    let sql = format!(
        "UPDATE sqlite_schema SET sql = {} WHERE type = 'table' AND name = {} COLLATE NOCASE",
        literal(definition),
        literal(table)
    );
    rename::edit_schema(conn, "let go of foreign keys", sql).await
}

/// Refuses to bring back a definition from before if the table has another one by now for any other reason.
pub(super) async fn check_kept(
    conn: &mut SqliteConnection,
    id: &str,
    (name, aside, columns): (&str, &str, Option<&[String]>),
) -> Result<(), Error> {
    let Some(kept) = rename::kept(conn, id, "table", name).await? else { return Ok(()) };
    let now = definition(conn, name).await?;
    if normal(&without_foreign_keys(&kept, columns), name, aside) == normal(&now, name, aside) {
        return Ok(());
    }
    let message =
        format!("{aside} was changed since it was put aside, and can't take its name back");
    Err(Error::failed(FailureClass::Stale, message)
        .with_help("undo that change, then go on with the rollback"))
}

async fn definition(conn: &mut SqliteConnection, table: &str) -> Result<String, Error> {
    let doing = "read a table's definition";
    sqlx::query("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE")
        .bind(table)
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed(doing))
}

/// A CREATE TABLE statement without its foreign keys, or without those of some columns.
fn without_foreign_keys(create: &str, columns: Option<&[String]>) -> String {
    let (mut out, mut at) = (String::with_capacity(create.len()), 0);
    let mut before = 0;
    for part in definitions(create) {
        let (mut from, mut is_bare) = (0, true);
        while let Some((start, end)) = clause(&part, from) {
            let goes = columns.is_none_or(|columns| is_of(&part, (start, end), columns));
            is_bare &= start == from && goes;
            if !goes {
                from = end;
                continue;
            }
            // With all of it goes the comma before it.
            let is_all = is_bare && end == part.len();
            let cut = if is_all { before } else { part[start].start };
            out.push_str(&create[at..cut.max(at)]);
            at = part[end - 1].end;
            from = end;
        }
        before = part.last().map_or(before, |last| last.end);
    }
    out.push_str(&create[at..]);
    out
}

/// Whether a foreign key is one of some columns: it stands behind their name, or names them itself.
fn is_of(part: &[Spanned], (start, end): (usize, usize), columns: &[String]) -> bool {
    let name = |at: usize| match part.get(at).map(|it| &it.word) {
        Some(Word::Name(name) | Word::Quoted(name)) => Some(name.as_str()),
        _ => None,
    };
    let is = |at, wanted| name(at).is_some_and(|name| same_name(name, wanted));
    let is_meant = |at| columns.iter().any(|column| is(at, column));
    let foreign = (start..end).find(|at| is(*at, "foreign") && is(*at + 1, "key"));
    match foreign {
        Some(foreign) => (foreign + 2..end).take_while(|at| !is(*at, "references")).any(is_meant),
        None => is_meant(0),
    }
}

/// Where the next foreign key of a definition begins and ends, in words.
fn clause(part: &[Spanned], from: usize) -> Option<(usize, usize)> {
    let is = |at: usize, wanted: &str| matches!(part.get(at).map(|it| &it.word), Some(Word::Name(name)) if same_name(name, wanted));
    let mut depth = 0_usize;
    let (mut start, mut references) = (None, None);
    for at in from..part.len() {
        match part[at].word {
            Word::Mark('(') => depth += 1,
            Word::Mark(')') => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            _ if is(at, "foreign") && is(at + 1, "key") => start = Some(at),
            // A column may be called so, but a name has nothing before it.
            _ if is(at, "references") && at > 0 => {
                references = Some(at);
                break;
            }
            _ => {}
        }
    }
    let references = references?;
    let start = start.unwrap_or(references);
    let is_named = start >= from + 2 && is(start - 2, "constraint");
    let mut end = references + 2;
    if part.get(end).is_some_and(|it| it.word == Word::Mark('(')) {
        let close = part[end..].iter().position(|it| it.word == Word::Mark(')'));
        end += close.map_or(1, |close| close + 1);
    }
    loop {
        end += match () {
            () if is(end, "on") && (is(end + 2, "set") || is(end + 2, "no")) => 4,
            () if is(end, "on") => 3,
            () if is(end, "match") || is(end, "initially") => 2,
            () if is(end, "not") && is(end + 1, "deferrable") => 2,
            () if is(end, "deferrable") => 1,
            () => break,
        };
    }
    Some((if is_named { start - 2 } else { start }, end.min(part.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_go_and_nothing_else_does() {
        let table = [
            ("CREATE TABLE t (a INT REFERENCES p, b)", "CREATE TABLE t (a INT , b)"),
            (
                "CREATE TABLE t (a INT REFERENCES p (x, y) ON DELETE SET NULL ON UPDATE CASCADE NOT NULL)",
                "CREATE TABLE t (a INT  NOT NULL)",
            ),
            (
                "CREATE TABLE t (a INT CONSTRAINT k REFERENCES p NOT DEFERRABLE INITIALLY IMMEDIATE MATCH FULL DEFAULT 3)",
                "CREATE TABLE t (a INT  DEFAULT 3)",
            ),
            (
                "CREATE TABLE t (a INT, b INT, FOREIGN KEY (a, b) REFERENCES p (a, b) ON DELETE NO ACTION, CHECK (a > 0))",
                "CREATE TABLE t (a INT, b INT, CHECK (a > 0))",
            ),
            (
                "CREATE TABLE t (a INT, CONSTRAINT k FOREIGN KEY (a) REFERENCES p, FOREIGN KEY (a) REFERENCES q) STRICT",
                "CREATE TABLE t (a INT) STRICT",
            ),
            (
                "CREATE TABLE t (a INT, UNIQUE (a) FOREIGN KEY (a) REFERENCES p CHECK (a))",
                "CREATE TABLE t (a INT, UNIQUE (a)  CHECK (a))",
            ),
            (
                "CREATE TABLE t (\"references\" INT, b CHECK (b <> 'references p'))",
                "CREATE TABLE t (\"references\" INT, b CHECK (b <> 'references p'))",
            ),
        ];
        for (create, expected) in table {
            assert_eq!(without_foreign_keys(create, None), expected);
        }
        let create = "CREATE TABLE t (a INT REFERENCES p, b INT REFERENCES a, FOREIGN KEY (b, a) REFERENCES p, FOREIGN KEY (b) REFERENCES a)";
        assert_eq!(
            without_foreign_keys(create, Some(&["A".to_owned()])),
            "CREATE TABLE t (a INT , b INT REFERENCES a, FOREIGN KEY (b) REFERENCES a)"
        );
    }
}

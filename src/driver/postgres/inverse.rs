//! Whether the way back of a mapping leads back: f(g(x)) = x, tried on rows that are there.
//!
//! With `direction: both` a value x of the new side is written to the old one as g(x), and what the old one then holds
//! must give x again, or the two sides undo each other. What may stand on the new side is what f makes of the rows that
//! are there, so x = f(row), each value as its column would store it.
//!
//! Absent on purpose: values that only clients of the new shape will write, which nobody knows yet, and a proof.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{Column, Table, quote};
use super::error::given;
use super::survey::{Look, Side};
use crate::bounds::message::TRIED_VALUE_CHARS_MAX;
use crate::bounds::verify::INVERSE_ROWS;
use crate::driver::Error;
use crate::run::{CopyColumns, Mapping, Private};

/// A way back that doesn't lead back.
pub(super) const NO_INVERSE: &str = "D220";

impl Look<'_> {
    /// Tries the way back of a mapping.
    pub(super) async fn inverse(
        &mut self,
        mapping: &Mapping,
        from: &Side,
        into: Option<&Side>,
    ) -> Result<(), Error> {
        if mapping.columns.is_empty() {
            return Ok(());
        }
        let sql = statement(mapping, &from.table, into.map(|into| into.table.as_ref()));
        let tried =
            sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_optional(&mut *self.conn).await;
        match tried {
            Ok(None) => Ok(()),
            Ok(Some(row)) => {
                let (message, private) = said(mapping, &row).map_err(|error| {
                    super::error::failed("try the way back of a mapping")(error)
                })?;
                let help = "make reverse the inverse of columns for every value, or use direction: forward";
                self.error(NO_INVERSE, message, Some(help.to_owned()));
                self.private(private);
                Ok(())
            }
            Err(error) => self.not_tried(mapping, &error).await,
        }
    }

    /// Nobody knows then whether it leads back, which is said.
    async fn not_tried(&mut self, mapping: &Mapping, error: &sqlx::Error) -> Result<(), Error> {
        let (reason, private) = if given(error).is_some_and(|given| given.code() == "57014") {
            sqlx::query("ROLLBACK TO SAVEPOINT look")
                .execute(&mut *self.conn)
                .await
                .map_err(super::error::failed("go on looking"))?;
            ("it took longer than 10 s".to_owned(), Vec::new())
        } else {
            let Some(refusal) = self.refusal(error).await? else { return Ok(()) };
            (refusal.message, refusal.private)
        };
        let message = format!(
            "the way back of mapping {} could not be tried on rows: {reason}",
            mapping.name
        );
        let help = "see that columns and reverse can be computed for every row";
        self.warning(NO_INVERSE, message, Some(help.to_owned()));
        self.private(private);
        Ok(())
    }
}

/// What is wrong with a row, and which parts of that are taken from it.
fn said(mapping: &Mapping, row: &PgRow) -> Result<(String, Vec<Private>), sqlx::Error> {
    let column: String = row.try_get(0)?;
    let (was, became): (Option<String>, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
    let key: String = row.try_get(3)?;
    let shown =
        |value: Option<String>| value.map_or("NULL".to_owned(), |value| format!("'{value}'"));
    let key = format!("{} = {key}", mapping.from.key.join(", "));
    let (was, became) = (shown(was), shown(became));
    let is = format!("{column} is {was}");
    let gives = format!("gives {became}");
    let message = format!(
        "the way back of mapping {} does not lead back: of the row with {key}, {is}, and what reverse makes of that {gives}",
        mapping.name,
    );
    let private = vec![
        Private::key(key),
        Private::value(is).instead(format!("{column} is one value")),
        Private::value(gives).instead("gives another"),
    ];
    Ok((message, private))
}

/// A row of a table that isn't there: expressions, each with its column's name.
type Composed = Vec<(String, String)>;

/// The statement that gives the first row of those tried whose values don't come back.
fn statement(mapping: &Mapping, from: &Table, into: Option<&Table>) -> String {
    let writes: Vec<(&str, String)> = mapping
        .columns
        .iter()
        .map(|(name, value)| {
            (name.as_str(), stored(into.and_then(|into| into.column(name)), value))
        })
        .collect();
    let values = numbered(&writes, "w");
    let reverse: Vec<(&str, String)> = mapping
        .reverse
        .iter()
        .map(|(name, value)| (name.as_str(), stored(from.column(name), value)))
        .collect();
    let back = if reverse.is_empty() { "1 AS r".to_owned() } else { numbered(&reverse, "r") };
    let filter = mapping.filter.as_ref().map_or(String::new(), |it| format!(" WHERE (\n{it}\n)"));
    let (old, own) = (quote(&from.name), from.sql());
    // In place both rows go by one name.
    let new = into.map_or_else(
        || quote(&super::catalogue::parts(&mapping.into.table).1),
        |into| quote(&into.name),
    );
    let differs: Vec<String> = (0..writes.len())
        .map(|at| format!("phasegate_o.phasegate_w{at}::text IS DISTINCT FROM phasegate_a.phasegate_w{at}::text"))
        .collect();
    let first = |of: &dyn Fn(usize) -> String| {
        let cases: Vec<String> = differs
            .iter()
            .enumerate()
            .map(|(at, differs)| format!("WHEN {differs} THEN {}", of(at)))
            .collect();
        format!("CASE {} END", cases.join(" "))
    };
    let value = |side: &'static str| {
        move |at: usize| format!("left({side}.phasegate_w{at}::text, {TRIED_VALUE_CHARS_MAX})")
    };
    let key: Vec<String> =
        mapping.from.key.iter().map(|name| format!("phasegate_o.{}::text", quote(name))).collect();
    format!(
        "SELECT {column}, {was}, {became}, concat_ws(', ', {key})
         FROM (SELECT {own}.*, {values} FROM {own}{filter} LIMIT {INVERSE_ROWS}) AS phasegate_o
         CROSS JOIN LATERAL (SELECT {back} FROM (SELECT {new_row}) AS {new}) AS phasegate_b
         CROSS JOIN LATERAL (SELECT {values} FROM (SELECT {old_row}) AS {old}) AS phasegate_a
         WHERE {differ} LIMIT 1",
        column = first(&|at| super::catalogue::literal(writes[at].0)),
        was = first(&value("phasegate_o")),
        became = first(&value("phasegate_a")),
        key = key.join(", "),
        new_row = composed(&new_row(mapping, from, into)),
        old_row = composed(&old_row(mapping, from, into)),
        differ = differs.join(" OR "),
    )
}

fn numbered(writes: &[(&str, String)], letter: &str) -> String {
    let items = writes.iter().enumerate();
    items
        .map(|(at, (_, value))| format!("{value} AS phasegate_{letter}{at}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A value as its column would hold it.
fn stored(column: Option<&Column>, value: &str) -> String {
    match column {
        Some(column) => format!("CAST((\n{value}\n) AS {})", column.stored_sql),
        None => format!("(\n{value}\n)"),
    }
}

fn composed(row: &Composed) -> String {
    let items = row.iter().map(|(name, value)| format!("{value} AS {}", quote(name)));
    items.collect::<Vec<_>>().join(", ")
}

/// Whether a column is copied under its own name, and so comes back under it.
fn is_shared(mapping: &Mapping, name: &str, into: Option<&Table>) -> bool {
    mapping.copy == CopyColumns::All
        && !mapping.is_in_place()
        && !mapping.columns.iter().any(|(listed, _)| listed == name)
        && into.is_none_or(|into| into.column(name).is_some())
}

/// The row of the new side that comes of an old one.
fn new_row(mapping: &Mapping, from: &Table, into: Option<&Table>) -> Composed {
    let mut row: Composed = Vec::new();
    for (at, (name, _)) in mapping.columns.iter().enumerate() {
        row.push((name.clone(), format!("phasegate_o.phasegate_w{at}")));
    }
    for (old, new) in mapping.from.key.iter().zip(&mapping.into.key) {
        if !row.iter().any(|(name, _)| name == new) {
            row.push((new.clone(), format!("phasegate_o.{}", quote(old))));
        }
    }
    for column in &from.columns {
        let is_there = row.iter().any(|(name, _)| *name == column.name);
        if !is_there && (mapping.is_in_place() || is_shared(mapping, &column.name, into)) {
            row.push((column.name.clone(), format!("phasegate_o.{}", quote(&column.name))));
        }
    }
    for column in into.iter().flat_map(|into| &into.columns) {
        if !row.iter().any(|(name, _)| *name == column.name) {
            row.push((column.name.clone(), format!("CAST(NULL AS {})", column.type_sql)));
        }
    }
    row
}

/// The old row after what was made of it was written back.
fn old_row(mapping: &Mapping, from: &Table, into: Option<&Table>) -> Composed {
    let value = |column: &Column| {
        let at = mapping.reverse.iter().position(|(name, _)| *name == column.name);
        let written = mapping.columns.iter().position(|(name, _)| *name == column.name);
        match (at, written) {
            (Some(at), _) => format!("phasegate_b.phasegate_r{at}"),
            // A column that is listed as nothing but itself comes back under its own name.
            (None, Some(written)) if !mapping.is_in_place() && into.is_some() => {
                stored(Some(column), &format!("phasegate_o.phasegate_w{written}"))
            }
            _ => format!("phasegate_o.{}", quote(&column.name)),
        }
    };
    from.columns.iter().map(|column| (column.name.clone(), value(column))).collect()
}

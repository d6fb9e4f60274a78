//! A mapping held against the two tables as they are: which columns are written with which values, how keys pair, and
//! which groups of columns depend on each other.
//!
//! Invariants:
//! - A shape exists only where keys of both sides are compared alike (type family and collation), so that one comparison
//!   serves either table's index.
//! - Expressions are kept as text in parentheses with a line break behind them, so that a comment in one ends with it. They
//!   stand where the columns of their own table, and no others, can be seen, the table under its bare name.
//!
//! Absent on purpose: asking the database. A shape is made of what `catalogue` has read.

use std::sync::Arc;

use sqlx::postgres::PgConnection;

use super::catalogue::{self, Column, Table, quote};
use crate::bounds::copying::KEY_COLUMNS_MAX;
use crate::driver::Error;
use crate::driver::shape::{Names, Written};
pub(super) use crate::driver::shape::{Part, id_of, id_of_name};
use crate::run::{CopyColumns, FailureClass, Mapping, OnDelete, OnExisting, Winner};
use crate::sql::{Dialect, column_refs};

/// A mapping between two tables that are there.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The mapping's name, for people.
    pub mapping: String,
    /// Stands for the mapping in the names of our objects: short, of hexadecimal digits.
    pub id: String,
    pub in_place: bool,
    pub old: Arc<Table>,
    pub new: Arc<Table>,
    /// The pairs of key columns.
    pub keys: Vec<KeyPair>,
    /// Columns of the new side and their values over a row of the old one. Keys aren't among them, but for those whose
    /// equality is looser than sameness.
    pub writes: Vec<Write>,
    /// Columns of the old side and their values over a row of the new one; meaningful with `both` only.
    pub reverse: Vec<Write>,
    /// Groups of columns that depend on each other.
    pub parts: Vec<Part>,
    /// In parentheses, over a row of the old side.
    pub filter: Option<String>,
    pub on_existing: OnExisting,
    pub on_delete: OnDelete,
    pub winner: Winner,
    /// How many rows that the new side refuses the engine may park, where it may.
    pub park_max: Option<u32>,
    /// Whether triggers park what clients write and the new side refuses.
    pub parks_writes: bool,
}

/// A pair of key columns.
#[derive(Clone, Debug)]
pub(super) struct KeyPair {
    pub old: String,
    pub new: String,
    /// The type of the old side's column, without modifier.
    pub type_sql: String,
    /// Whether equal keys are always the same text.
    pub is_exact: bool,
}

/// A column to write.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub column: String,
    /// The value's expression, ready to stand in a list.
    pub value: String,
    /// The type of the column, as a cast takes it.
    pub type_sql: String,
    /// Whether the value is a column of the same type, so that it needs no cast.
    pub is_plain: bool,
    /// Whether the types' modifiers are the same as well, so that storing it converts nothing.
    pub is_same: bool,
}

/// The shape of a mapping on its tables as they are now.
pub(super) async fn shape(conn: &mut PgConnection, mapping: &Mapping) -> Result<Shape, Error> {
    let from = table(conn, &mapping.from.table).await?;
    let into = table(conn, &mapping.into.table).await?;
    Shape::resolve(mapping, Arc::new(from), Arc::new(into))
}

/// A table of a mapping, which must be there.
async fn table(conn: &mut PgConnection, name: &str) -> Result<Table, Error> {
    catalogue::table(conn, name).await?.ok_or_else(|| {
        Error::failed(FailureClass::Stale, format!("there is no table {name} any more"))
            .with_help("make it again as it was, then retry")
    })
}

impl Shape {
    /// The two tables of a mapping that may fit them no more, with nothing mapped: for removing what is ours, which goes by
    /// the mapping's name.
    pub(super) async fn of_tables(
        conn: &mut PgConnection,
        mapping: &Mapping,
    ) -> Result<Self, Error> {
        let from = Arc::new(table(conn, &mapping.from.table).await?);
        let into = Arc::new(table(conn, &mapping.into.table).await?);
        Ok(Self::bare(mapping, from, into))
    }

    /// The same of tables that were looked up already.
    pub(super) fn bare(mapping: &Mapping, from: Arc<Table>, into: Arc<Table>) -> Self {
        Self {
            mapping: mapping.name.as_str().to_owned(),
            id: id_of(mapping),
            in_place: from.oid == into.oid,
            old: from,
            new: into,
            keys: Vec::new(),
            writes: Vec::new(),
            reverse: Vec::new(),
            parts: Vec::new(),
            filter: mapping.filter.as_ref().map(|filter| enclosed(filter)),
            on_existing: mapping.on_existing,
            on_delete: mapping.on_delete,
            winner: mapping.winner,
            park_max: mapping.parking.rows_max,
            parks_writes: mapping.parking.writes,
        }
    }

    /// Holds a mapping against its tables.
    pub(super) fn resolve(
        mapping: &Mapping,
        from: Arc<Table>,
        into: Arc<Table>,
    ) -> Result<Self, Error> {
        let in_place = from.oid == into.oid;
        for table in [&from, &into] {
            if !matches!(table.kind, 'r' | 'p') {
                return Err(refused(mapping, format!("{} is not a table", table.name)));
            }
        }
        let keys = key_pairs(mapping, &from, &into)?;
        let mut writes = forward_writes(mapping, &from, &into, in_place)?;
        let mut reverse = reverse_writes(mapping, &from, &into, &writes)?;
        if !in_place {
            for pair in keys.iter().filter(|pair| !pair.is_exact) {
                if let (Some(old), Some(new)) = (from.column(&pair.old), into.column(&pair.new)) {
                    writes.push(plain(new, old));
                    reverse.push(plain(old, new));
                }
            }
        }
        if writes.is_empty() && in_place {
            return Err(refused(mapping, "no column is mapped".to_owned()));
        }
        let parts = parts(&writes, &reverse, (&from, &into), &keys);
        let bare = Self::bare(mapping, from, into);
        Ok(Self { keys, writes, reverse, parts, ..bare })
    }
}

impl Shape {
    /// Whether copying inserts rows that aren't there, and writes over none.
    pub(super) fn inserts_only(&self) -> bool {
        !self.in_place && self.on_existing == OnExisting::Keep
    }
}

fn refused(mapping: &Mapping, what: impl std::fmt::Display) -> Error {
    Error::failed(FailureClass::Refused, format!("mapping {}: {what}", mapping.name))
}

/// An expression ready to stand in a list, whatever it ends with.
pub(super) fn enclosed(expression: &str) -> String {
    format!("({}\n)", expression.trim())
}

fn plain(target: &Column, source: &Column) -> Write {
    write(target, enclosed(&quote(&source.name)), Some(source))
}

/// A column with its value, which may be nothing but a column of the other table.
fn write(target: &Column, value: String, source: Option<&Column>) -> Write {
    // A domain's values are taken for what the domain is over.
    let is_plain = source.is_some_and(|source| {
        source.base_oid == target.base_oid && !source.is_of_domain() && !target.is_of_domain()
    });
    let is_same = is_plain && source.is_some_and(|source| source.declared == target.declared);
    Write {
        column: target.name.clone(),
        value,
        type_sql: target.type_sql.clone(),
        is_plain,
        is_same,
    }
}

/// Types whose values compare alike across the types of one family, with an index on either.
fn family(column: &Column) -> &str {
    match column.type_sql.as_str() {
        "smallint" | "integer" | "bigint" => "integer",
        "text" | "character varying" => "text",
        other => other,
    }
}

/// Whether equal values are always the same. Numbers with another scale, blank-padded text, texts without regard to case, and
/// whatever isn't known here may be equal without that.
pub(super) fn is_exact(column: &Column) -> bool {
    !column.is_nondeterministic
        && matches!(
            column.type_sql.as_str(),
            "smallint"
                | "integer"
                | "bigint"
                | "oid"
                | "text"
                | "character varying"
                | "name"
                | "uuid"
                | "bytea"
                | "boolean"
                | "date"
                | "timestamp without time zone"
                | "timestamp with time zone"
                | "time without time zone"
        )
}

impl KeyPair {
    /// Whether the columns hold whole numbers.
    pub(super) fn is_integer(&self) -> bool {
        matches!(self.type_sql.as_str(), "smallint" | "integer" | "bigint")
    }

    /// The type that bounds are cast to: one that holds the keys of either side.
    pub(super) fn bound_sql(&self) -> &str {
        match self.type_sql.as_str() {
            "smallint" | "integer" => "bigint",
            "character varying" => "text",
            other => other,
        }
    }
}

fn key_pairs(mapping: &Mapping, from: &Table, into: &Table) -> Result<Vec<KeyPair>, Error> {
    let (old, new) = (&mapping.from.key, &mapping.into.key);
    if old.is_empty() || old.len() != new.len() || old.len() > KEY_COLUMNS_MAX {
        let message = format!(
            "the keys need the same number of columns on both sides, from 1 to {KEY_COLUMNS_MAX}"
        );
        return Err(refused(mapping, message));
    }
    identifies(mapping, from, old)?;
    identifies(mapping, into, new)?;
    let mut pairs = Vec::with_capacity(old.len());
    for (old_name, new_name) in old.iter().zip(new) {
        let old = column(mapping, from, old_name)?;
        let new = column(mapping, into, new_name)?;
        if new.is_generated && from.oid != into.oid {
            let message = format!(
                "the key column {}.{} is generated and can't be copied",
                into.name, new.name
            );
            return Err(refused(mapping, message).with_help(
                "let it be an ordinary column there, or use a key that the new table can be given",
            ));
        }
        if family(old) != family(new) || old.collation != new.collation {
            let message = format!(
                "the key columns {}.{} ({}) and {}.{} ({}) are not compared alike",
                from.name, old.name, old.declared, into.name, new.name, new.declared,
            );
            return Err(refused(mapping, message)
                .with_help("give both the same kind of type and the same collation"));
        }
        pairs.push(KeyPair {
            old: old.name.clone(),
            new: new.name.clone(),
            type_sql: old.type_sql.clone(),
            is_exact: is_exact(old),
        });
    }
    Ok(pairs)
}

/// A key must identify rows: a unique index of just its columns, checked at once, whole, and without NULL.
fn identifies(mapping: &Mapping, table: &Table, key: &[String]) -> Result<(), Error> {
    for name in key {
        column(mapping, table, name)?;
    }
    let identities = table.identities();
    let is_key = |columns: &Vec<&str>| {
        columns.len() == key.len() && key.iter().all(|name| columns.contains(&name.as_str()))
    };
    if identities.iter().any(is_key) {
        return Ok(());
    }
    let candidates: Vec<String> =
        identities.iter().map(|columns| format!("[{}]", columns.join(", "))).collect();
    let help = if candidates.is_empty() {
        format!("{} has no unique key that is never NULL: add one", table.name)
    } else {
        format!("use key: {}", candidates.join(" or "))
    };
    let message = format!(
        "({}) does not identify rows of {}: it takes a unique index over exactly these columns, not partial, not deferrable, \
         and none of them NULL",
        key.join(", "),
        table.name
    );
    Err(refused(mapping, message).with_help(help))
}

fn column<'a>(mapping: &Mapping, table: &'a Table, name: &str) -> Result<&'a Column, Error> {
    table
        .column(name)
        .ok_or_else(|| refused(mapping, format!("table {} has no column {name}", table.name)))
}

/// A column that the mapping writes by an expression: no key, and not computed by the database.
fn writable<'a>(
    mapping: &Mapping,
    table: &'a Table,
    (name, key): (&str, &[String]),
) -> Result<&'a Column, Error> {
    let target = column(mapping, table, name)?;
    if key.iter().any(|key| key == name) {
        let message = format!("{name} is a key column, and keys are copied as they are");
        return Err(refused(mapping, message));
    }
    if target.is_generated {
        let message = format!("{}.{} is generated and can't be written", table.name, target.name);
        return Err(refused(mapping, message));
    }
    Ok(target)
}

fn forward_writes(
    mapping: &Mapping,
    from: &Table,
    into: &Table,
    in_place: bool,
) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    let listed = |name: &str| mapping.columns.iter().any(|(column, _)| column == name);
    let is_key = |name: &str| mapping.into.key.iter().any(|key| key == name);
    if mapping.copy == CopyColumns::All && !in_place {
        for target in &into.columns {
            let is_ours = !target.is_generated && !is_key(&target.name) && !listed(&target.name);
            if let Some(source) = from.column(&target.name).filter(|_| is_ours) {
                writes.push(plain(target, source));
            }
        }
    }
    for (name, expression) in &mapping.columns {
        let source = only_column(from, expression);
        let at = mapping.into.key.iter().position(|key| key == name);
        if let (Some(at), Some(source), false) = (at, source, in_place)
            && source.name == mapping.from.key[at]
        {
            continue;
        }
        let target = writable(mapping, into, (name, &mapping.into.key))?;
        writes.push(write(target, enclosed(expression), source));
    }
    if in_place {
        for write in &writes {
            let others = writes.iter().map(|write| write.column.as_str());
            if let Some(read) = reads(&write.value, others).first() {
                let message = format!(
                    "{} is computed from {read}, which the mapping writes itself",
                    write.column
                );
                return Err(refused(mapping, message)
                    .with_help("compute it from columns that the mapping doesn't write"));
            }
        }
    }
    Ok(writes)
}

fn reverse_writes(
    mapping: &Mapping,
    from: &Table,
    into: &Table,
    writes: &[Write],
) -> Result<Vec<Write>, Error> {
    let mut reverse = Vec::new();
    for (name, expression) in &mapping.reverse {
        let target = writable(mapping, from, (name, &mapping.from.key))?;
        let source = only_column(into, expression);
        reverse.push(write(target, enclosed(expression), source));
    }
    if from.oid == into.oid {
        return Ok(reverse);
    }
    let listed = |name: &str| mapping.reverse.iter().any(|(column, _)| column == name);
    for write in writes {
        let (Some(target), Some(source)) = (from.column(&write.column), into.column(&write.column))
        else {
            continue;
        };
        let own_name =
            only_column(from, &write.value).is_some_and(|column| column.name == write.column);
        let is_key = mapping.from.key.contains(&target.name);
        if own_name && !target.is_generated && !is_key && !listed(&target.name) {
            reverse.push(plain(target, source));
        }
    }
    Ok(reverse)
}

/// The column, if an expression is nothing but a column's name.
pub(super) fn only_column<'a>(table: &'a Table, expression: &str) -> Option<&'a Column> {
    let text = expression.trim().trim_start_matches('(').trim_end_matches(')').trim();
    let is_name = |column: &&Column| {
        text == quote(&column.name)
            || (text.to_ascii_lowercase() == column.name
                && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_'))
    };
    table.columns.iter().find(is_name)
}

/// Those of `columns` that an expression reads. One that can't be read may read any of them.
pub(super) fn reads<'a>(
    expression: &str,
    columns: impl IntoIterator<Item = &'a str>,
) -> Vec<&'a str> {
    match column_refs(Dialect::Postgres, expression) {
        Ok(found) => columns.into_iter().filter(|column| found.contains(*column)).collect(),
        Err(_) => {
            let text = expression.to_lowercase();
            let is_part = |char: char| char.is_alphanumeric() || char == '_';
            let names = |column: &str| {
                if column.chars().all(is_part) {
                    text.split(|char| !is_part(char)).any(|word| word == column)
                } else {
                    text.contains(column)
                }
            };
            columns.into_iter().filter(|column| names(&column.to_lowercase())).collect()
        }
    }
}

/// Groups columns of both sides that depend on each other. Keys tie nothing together.
fn parts(
    writes: &[Write],
    reverse: &[Write],
    (from, into): (&Table, &Table),
    keys: &[KeyPair],
) -> Vec<Part> {
    let names = Names {
        olds: from.columns.iter().map(|column| column.name.as_str()).collect(),
        news: into.columns.iter().map(|column| column.name.as_str()).collect(),
        keys: keys.iter().map(|key| (key.old.as_str(), key.new.as_str())).collect(),
        in_place: from.oid == into.oid,
        is_same: |one, other| one == other,
    };
    let forward = writes.iter().map(|write| written(write, &names.olds));
    let back = reverse.iter().map(|write| written(write, &names.news));
    names.parts(&forward.collect::<Vec<_>>(), &back.collect::<Vec<_>>())
}

fn written<'a>(write: &'a Write, columns: &[&'a str]) -> Written<'a> {
    Written { column: &write.column, reads: reads(&write.value, columns.iter().copied()) }
}

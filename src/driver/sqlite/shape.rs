//! A mapping held against the two tables as they are: which columns are written with which values, how keys pair, and
//! which groups of columns depend on each other.
//!
//! Invariants:
//! - A shape exists only where keys of both sides are compared alike (affinity and collation), so that one comparison
//!   serves either table's index.
//! - Expressions are kept as text in parentheses with a line break behind them, so that a comment in one ends with it.
//!
//! Absent on purpose: asking the database. A shape is made of what `catalogue` has read; whether expressions can be
//! evaluated, SQLite says when the statements of `shape_sql` are prepared.

use super::catalogue::{Affinity, Column, Generated, Table, TableKind, quote, same_name};
use super::expression::{column_collation, index_parts, only_column, reads, text_in_double_quotes};
use crate::bounds::copying::KEY_COLUMNS_MAX;
use crate::driver::Error;
use crate::driver::shape::{Names, Written};
pub(super) use crate::driver::shape::{Part, id_of};
use crate::run::{CopyColumns, FailureClass, Mapping, OnDelete, OnExisting, Winner};

/// A mapping between two tables that are there.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The mapping's name, for people.
    pub mapping: String,
    /// Stands for the mapping in the names of triggers and in our own tables.
    pub id: String,
    pub in_place: bool,
    pub old: Side,
    pub new: Side,
    /// The pairs of key columns.
    pub keys: Vec<KeyPair>,
    /// Columns of the new side and their values over a row of the old one. Keys aren't among them, but for those whose
    /// equality is looser than sameness.
    pub writes: Vec<Write>,
    /// Columns of the old side and their values over a row of the new one; meaningful with `both` only.
    pub reverse: Vec<Write>,
    /// Groups of columns that depend on each other.
    pub parts: Vec<Part>,
    pub filter: Option<String>,
    pub on_existing: OnExisting,
    pub on_delete: OnDelete,
    pub winner: Winner,
}

/// One of the two tables.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// As the catalogue spells it.
    pub table: String,
    pub columns: Vec<Column>,
    /// What else than the key is unique: rows can vanish through it without a delete trigger.
    pub uniques: Vec<Unique>,
    /// Whether the key is the rowid, whose value a BEFORE INSERT trigger doesn't know yet.
    pub key_is_rowid: bool,
    /// Whether the key has a default that may be another one each time it is asked.
    pub key_is_drawn: bool,
}

/// A pair of key columns.
#[derive(Clone, Debug)]
pub(super) struct KeyPair {
    pub old: String,
    pub new: String,
    /// The collation to name in comparisons; `None` where the columns' own is the one that the key is unique by. Naming
    /// one keeps SQLite from searching an index for a range of row values.
    pub collation: Option<String>,
    /// Whether equal keys are the same bytes.
    pub is_binary: bool,
}

/// A column to write.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub column: String,
    /// The value's expression, ready to stand in a list.
    pub value: String,
    pub affinity: Affinity,
    /// Whether the value comes out of a column of the same affinity, so that storing it converts nothing.
    pub is_plain: bool,
}

/// A unique index other than the key's.
#[derive(Clone, Debug)]
pub(super) struct Unique {
    /// Each part's expression over the table and its collation.
    pub parts: Vec<(String, String)>,
    /// The columns that it reads.
    pub reads: Vec<String>,
    /// Whether a row can only come to share it by a change of its columns: not partial, no expression.
    pub is_plain: bool,
}

impl Side {
    /// The column of a name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| same_name(&column.name, name))
    }
}

impl Shape {
    /// Holds a mapping against its tables.
    pub(super) fn resolve(mapping: &Mapping, from: &Table, into: &Table) -> Result<Self, Error> {
        let in_place = same_name(&from.name, &into.name);
        for table in [from, into] {
            if table.kind != TableKind::Table {
                return Err(refused(mapping, format!("{} is not a table", table.name)));
            }
        }
        let keys = key_pairs(mapping, from, into)?;
        let mut writes = forward_writes(mapping, from, into, in_place)?;
        let mut reverse = reverse_writes(mapping, from, into, in_place, &writes)?;
        if !in_place {
            for (pair, old, new) in loose_keys(&keys, from, into) {
                writes.push(plain(&pair.new, &pair.old, new.affinity));
                reverse.push(plain(&pair.old, &pair.new, old.affinity));
            }
        }
        if writes.is_empty() && in_place {
            return Err(refused(mapping, "no column is mapped".to_owned()));
        }
        let expressions = writes.iter().map(|write| (&write.value, from));
        let filter = mapping.filter.as_ref().map(|filter| enclosed(filter));
        let filters = filter.iter().map(|filter| (filter, from));
        let backward = reverse.iter().map(|write| (&write.value, into));
        for (expression, table) in expressions.chain(filters).chain(backward) {
            let columns: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
            if let Some(text) = text_in_double_quotes(expression, &table.name, &columns) {
                let message = format!(
                    "\"{text}\" in {} names no column of {}",
                    expression.trim(),
                    table.name
                );
                return Err(refused(mapping, message).with_help("write text in single quotes"));
            }
        }
        let parts = parts(&writes, &reverse, (from, into), &keys);
        Ok(Self {
            mapping: mapping.name.as_str().to_owned(),
            id: id_of(mapping),
            in_place,
            old: side(from, &mapping.from.key),
            new: side(into, &mapping.into.key),
            keys,
            writes,
            reverse,
            parts,
            filter,
            on_existing: mapping.on_existing,
            on_delete: mapping.on_delete,
            winner: mapping.winner,
        })
    }
}

fn refused(mapping: &Mapping, what: impl std::fmt::Display) -> Error {
    Error::failed(FailureClass::Refused, format!("mapping {}: {what}", mapping.name))
}

/// An expression ready to stand in a list, whatever it ends with.
fn enclosed(expression: &str) -> String {
    format!("({}\n)", expression.trim())
}

fn plain(column: &str, source: &str, affinity: Affinity) -> Write {
    Write { column: column.to_owned(), value: enclosed(&quote(source)), affinity, is_plain: true }
}

/// Keys of one affinity and collation on both sides, so that they are compared alike.
fn key_pairs(mapping: &Mapping, from: &Table, into: &Table) -> Result<Vec<KeyPair>, Error> {
    let (old, new) = (&mapping.from.key, &mapping.into.key);
    if old.is_empty() || old.len() != new.len() || old.len() > KEY_COLUMNS_MAX {
        let message = format!(
            "the keys need the same number of columns on both sides, from 1 to {KEY_COLUMNS_MAX}"
        );
        return Err(refused(mapping, message));
    }
    let old_collations = key_collations(mapping, from, old)?;
    let new_collations = key_collations(mapping, into, new)?;
    let mut pairs = Vec::with_capacity(old.len());
    for (at, (old_name, new_name)) in old.iter().zip(new).enumerate() {
        let old = column(mapping, from, old_name)?;
        let new = column(mapping, into, new_name)?;
        let whole = |affinity| match affinity {
            Affinity::Integer => Affinity::Numeric,
            other => other,
        };
        let alike = whole(old.affinity) == whole(new.affinity)
            && same_name(&old_collations[at], &new_collations[at]);
        if !alike {
            let message = format!(
                "the key columns {}.{} ({} {}) and {}.{} ({} {}) are not compared alike",
                from.name,
                old.name,
                old.declared,
                old_collations[at],
                into.name,
                new.name,
                new.declared,
                new_collations[at],
            );
            return Err(refused(mapping, message)
                .with_help("give both the same kind of type and the same collation"));
        }
        let collation = &old_collations[at];
        let is_own = [(from, &old.name), (into, &new.name)]
            .iter()
            .all(|(table, name)| same_name(&column_collation(&table.sql, name), collation));
        pairs.push(KeyPair {
            old: old.name.clone(),
            new: new.name.clone(),
            collation: (!is_own).then(|| collation.clone()),
            is_binary: same_name(collation, "BINARY"),
        });
    }
    Ok(pairs)
}

fn column<'a>(mapping: &Mapping, table: &'a Table, name: &str) -> Result<&'a Column, Error> {
    table
        .column(name)
        .ok_or_else(|| refused(mapping, format!("table {} has no column {name}", table.name)))
}

/// The collation by which each column of a key is unique.
fn key_collations(mapping: &Mapping, table: &Table, key: &[String]) -> Result<Vec<String>, Error> {
    if let (Some(alias), [only]) = (table.rowid_alias(), key)
        && same_name(&alias.name, only)
    {
        return Ok(vec!["BINARY".to_owned()]);
    }
    let place = |index: &super::catalogue::Index, name: &str| {
        index
            .columns
            .iter()
            .find(|part| part.name.as_deref().is_some_and(|part| same_name(part, name)))
            .map(|part| part.collation.clone())
    };
    let found = table
        .indexes
        .iter()
        .filter(|index| index.unique && !index.partial && index.columns.len() == key.len())
        .find_map(|index| key.iter().map(|name| place(index, name)).collect::<Option<Vec<_>>>());
    let is_never_null = |name: &String| table.column(name).is_some_and(|c| !table.may_be_null(c));
    match found {
        Some(found) if key.iter().all(is_never_null) => Ok(found),
        Some(_) => Err(refused(
            mapping,
            format!("the key ({}) of {} can be NULL", key.join(", "), table.name),
        )
        .with_help("declare its columns NOT NULL, or choose another key")),
        None => {
            Err(refused(mapping, format!("({}) is not unique in {}", key.join(", "), table.name))
                .with_help("a key needs a UNIQUE index over exactly its columns, not partial"))
        }
    }
}

/// Keys for which equal does not mean the same: compared and written as other columns are, too.
fn loose_keys<'a>(
    keys: &'a [KeyPair],
    from: &'a Table,
    into: &'a Table,
) -> impl Iterator<Item = (&'a KeyPair, &'a Column, &'a Column)> {
    keys.iter().filter_map(|pair| {
        let (old, new) = (from.column(&pair.old)?, into.column(&pair.new)?);
        (!pair.is_binary || old.affinity == Affinity::Blob).then_some((pair, old, new))
    })
}

fn forward_writes(
    mapping: &Mapping,
    from: &Table,
    into: &Table,
    in_place: bool,
) -> Result<Vec<Write>, Error> {
    let key_at = |name: &str| mapping.into.key.iter().position(|key| same_name(key, name));
    let mut writes = Vec::new();
    let listed = |name: &str| mapping.columns.iter().any(|(column, _)| same_name(column, name));
    if mapping.copy == CopyColumns::All && !in_place {
        for target in &into.columns {
            let is_ours = target.generated == Generated::No
                && key_at(&target.name).is_none()
                && !listed(&target.name);
            if let Some(source) = from.column(&target.name).filter(|_| is_ours) {
                let is_plain = source.affinity == target.affinity;
                writes
                    .push(Write { is_plain, ..plain(&target.name, &source.name, target.affinity) });
            }
        }
    }
    for (name, expression) in &mapping.columns {
        let target = column(mapping, into, name)?;
        let source = only_column(expression).and_then(|name| from.column(&name));
        if let Some(at) = key_at(name) {
            let is_the_key =
                source.is_some_and(|source| same_name(&source.name, &mapping.from.key[at]));
            if is_the_key && !in_place {
                continue;
            }
            let message = format!("{name} is a key column, and keys are copied as they are");
            return Err(refused(mapping, message));
        }
        if target.generated != Generated::No {
            let message =
                format!("{}.{} is generated and can't be written", into.name, target.name);
            return Err(refused(mapping, message));
        }
        writes.push(Write {
            column: target.name.clone(),
            value: enclosed(expression),
            affinity: target.affinity,
            is_plain: source.is_some_and(|source| source.affinity == target.affinity),
        });
    }
    if in_place {
        for write in &writes {
            let own = writes.iter().map(|write| write.column.as_str());
            if let Some(read) = reads(&write.value, own).first() {
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
    in_place: bool,
    writes: &[Write],
) -> Result<Vec<Write>, Error> {
    let mut reverse = Vec::new();
    for (name, expression) in &mapping.reverse {
        let target = column(mapping, from, name)?;
        if mapping.from.key.iter().any(|key| same_name(key, name)) {
            let message = format!("{name} is a key column, and keys are copied as they are");
            return Err(refused(mapping, message));
        }
        if target.generated != Generated::No {
            let message =
                format!("{}.{} is generated and can't be written", from.name, target.name);
            return Err(refused(mapping, message));
        }
        let source = only_column(expression).and_then(|name| into.column(&name));
        reverse.push(Write {
            column: target.name.clone(),
            value: enclosed(expression),
            affinity: target.affinity,
            is_plain: source.is_some_and(|source| source.affinity == target.affinity),
        });
    }
    if in_place {
        return Ok(reverse);
    }
    let listed = |name: &str| mapping.reverse.iter().any(|(column, _)| same_name(column, name));
    for write in writes {
        let own_name = only_column(&write.value[1..write.value.len() - 1])
            .is_some_and(|name| same_name(&name, &write.column));
        let Some(target) = from.column(&write.column).filter(|_| own_name) else { continue };
        let is_key = mapping.from.key.iter().any(|key| same_name(key, &target.name));
        if target.generated == Generated::No && !is_key && !listed(&target.name) {
            let is_plain = target.affinity == write.affinity;
            reverse.push(Write { is_plain, ..plain(&target.name, &write.column, target.affinity) });
        }
    }
    Ok(reverse)
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
        in_place: same_name(&from.name, &into.name),
        is_same: same_name,
    };
    let forward = writes.iter().map(|write| written(write, &names.olds));
    let back = reverse.iter().map(|write| written(write, &names.news));
    names.parts(&forward.collect::<Vec<_>>(), &back.collect::<Vec<_>>())
}

fn written<'a>(write: &'a Write, columns: &[&'a str]) -> Written<'a> {
    Written { column: &write.column, reads: reads(&write.value, columns.iter().copied()) }
}

fn side(table: &Table, key: &[String]) -> Side {
    let key_is_rowid = match (table.rowid_alias(), key) {
        (Some(alias), [only]) => same_name(&alias.name, only),
        _ => false,
    };
    let is_drawn = |name: &String| {
        let default = table.column(name).and_then(|column| column.default.as_deref());
        default.is_some_and(|default| {
            default.contains('(') || default.to_ascii_uppercase().contains("CURRENT_")
        })
    };
    Side {
        table: table.name.clone(),
        columns: table.columns.clone(),
        uniques: uniques(table, key),
        key_is_rowid,
        key_is_drawn: key.iter().any(is_drawn),
    }
}

fn uniques(table: &Table, key: &[String]) -> Vec<Unique> {
    let all = || table.columns.iter().map(|column| column.name.as_str());
    let owned = |reads: Vec<&str>| reads.into_iter().map(str::to_owned).collect::<Vec<String>>();
    let is_key = |names: &[String]| {
        names.len() == key.len()
            && names.iter().all(|name| key.iter().any(|key| same_name(key, name)))
    };
    let mut found = Vec::new();
    for index in table.indexes.iter().filter(|index| index.unique) {
        let texts = index.sql.as_deref().map(index_parts).unwrap_or_default();
        let part = |at: usize, part: &super::catalogue::IndexColumn| {
            let text = match &part.name {
                Some(name) => quote(name),
                None => enclosed(texts.get(at)?),
            };
            Some((text, part.collation.clone()))
        };
        let parts: Option<Vec<_>> =
            index.columns.iter().enumerate().map(|(at, column)| part(at, column)).collect();
        let Some(parts) = parts else { continue };
        let names: Vec<String> =
            index.columns.iter().filter_map(|part| part.name.clone()).collect();
        if names.len() == parts.len() && is_key(&names) && !index.partial {
            continue;
        }
        let text: Vec<&str> = parts.iter().map(|(text, _)| text.as_str()).collect();
        let is_plain = !index.partial && names.len() == parts.len();
        found.push(Unique { reads: owned(reads(&text.join(" "), all())), parts, is_plain });
    }
    if let Some(rowid) = rowid(table)
        && !is_key(std::slice::from_ref(&rowid))
    {
        let reads = owned(reads(&rowid, all()));
        let parts = vec![(quote(&rowid), "BINARY".to_owned())];
        found.push(Unique { parts, reads, is_plain: true });
    }
    found
}

/// A name under which a table's rowid can be read, if it has one.
fn rowid(table: &Table) -> Option<String> {
    if let Some(alias) = table.rowid_alias() {
        return Some(alias.name.clone());
    }
    let free = |name: &&str| table.column(name).is_none();
    let name = ["rowid", "_rowid_", "oid"].into_iter().find(free)?;
    (!table.without_rowid).then(|| name.to_owned())
}

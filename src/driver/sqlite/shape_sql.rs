//! The SQL that a shape comes down to: keys, ranges, values and their comparison, and the statement that copies a chunk.
//!
//! Invariants:
//! - There is one text for "this column is as the mapping says" ([`Shape::same`]), used by triggers, copy, repair and verify
//!   alike, and it holds exactly when storing the value would give what is stored: it applies the column's affinity to the
//!   value as storage does, compares bytes whatever the column's collation, and tells 1 from 1.0 and '1' where the column
//!   keeps them apart. Equal here as to SQLite are 0.0 and -0.0, and -2^63 as a whole and as a real number.
//! - Expressions are evaluated over their own table alone, and the results meet under names that they can't see.
//! - Values that triggers read must parse in old versions of SQLite, which applications may be linked with: nothing here
//!   that a trigger uses is younger than 3.15.

use super::catalogue::{Affinity, quote, same_name};
use super::shape::{KeyPair, Part, Shape, Write};
use crate::copy::chunk::Chunk;
use crate::run::{Direction, OnExisting};

/// Keys of rows whose target columns a client of the new shape wrote in place, so that they stand though the mapping
/// would have them otherwise. One row per key and part.
pub(super) const KEPT: &str = "phasegate_kept";
/// Rows that could not be copied, by key and reason.
pub(super) const PARKED: &str = "phasegate_parked";

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Old,
    New,
}

impl Which {
    /// The other table.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }
}

/// How the columns of a comparison are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// As the lists of [`Shape::pair`] call them.
    Pair,
    /// By the table's own names, where one row holds both sides.
    Row,
}

/// Text as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Conditions that must all hold.
pub(super) fn all(conditions: &[String]) -> String {
    if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") }
}

/// Conditions of which one must hold.
pub(super) fn any(conditions: &[String]) -> String {
    if conditions.is_empty() { "0".to_owned() } else { format!("({})", conditions.join(" OR ")) }
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(", ")
}

impl KeyPair {
    /// What a comparison of the columns names behind it.
    pub(super) fn collate(&self) -> String {
        self.collation.as_ref().map_or_else(String::new, |name| format!(" COLLATE {}", quote(name)))
    }

    fn name(&self, which: Which) -> &str {
        match which {
            Which::Old => &self.old,
            Which::New => &self.new,
        }
    }
}

impl Shape {
    /// One of the tables, quoted.
    pub(super) fn table(&self, which: Which) -> String {
        quote(match which {
            Which::Old => &self.old.table,
            Which::New => &self.new.table,
        })
    }

    /// The names of a table's key columns, quoted and qualified.
    pub(super) fn key(&self, which: Which) -> Vec<String> {
        let table = self.table(which);
        self.keys.iter().map(|pair| format!("{table}.{}", quote(pair.name(which)))).collect()
    }

    /// The names of a table's key columns, quoted and not qualified.
    pub(super) fn key_names(&self, which: Which) -> Vec<String> {
        self.keys.iter().map(|pair| quote(pair.name(which))).collect()
    }

    /// The key of the row that a trigger is about: `NEW` or `OLD`.
    pub(super) fn trigger_key(&self, which: Which, image: &str) -> Vec<String> {
        self.keys.iter().map(|pair| format!("{image}.{}", quote(pair.name(which)))).collect()
    }

    /// That a row of a table has a key.
    pub(super) fn key_is(&self, which: Which, key: &[String]) -> String {
        let table = self.table(which);
        let conditions: Vec<String> = self
            .keys
            .iter()
            .zip(key)
            .map(|(pair, value)| {
                // A plus takes the value's affinity away, so that the column's own is applied to it and its index serves.
                format!("{table}.{} = +{value}{}", quote(pair.name(which)), pair.collate())
            })
            .collect();
        all(&conditions)
    }

    /// That two keys are one.
    pub(super) fn keys_are_equal(&self, one: &[String], two: &[String]) -> String {
        let pairs = self.keys.iter().zip(one.iter().zip(two));
        let conditions: Vec<String> =
            pairs.map(|(pair, (one, two))| format!("{one} = {two}{}", pair.collate())).collect();
        format!("({})", all(&conditions))
    }

    /// The key columns of a table as a row value that compares as the key does.
    pub(super) fn key_row(&self, which: Which) -> String {
        let table = self.table(which);
        let columns = self
            .keys
            .iter()
            .map(|pair| format!("{table}.{}{}", quote(pair.name(which)), pair.collate()));
        if self.keys.len() == 1 { list(columns) } else { format!("({})", list(columns)) }
    }

    /// The order of keys in a table.
    pub(super) fn key_order(&self, which: Which) -> String {
        let table = self.table(which);
        list(
            self.keys
                .iter()
                .map(|pair| format!("{table}.{}{}", quote(pair.name(which)), pair.collate())),
        )
    }

    /// That a row's key is in a chunk, whose bounds are bound in order: first those of `lo`, then those of `hi`.
    pub(super) fn in_chunk(&self, which: Which, chunk: &Chunk) -> String {
        let row = self.key_row(which);
        let width = self.keys.len();
        let bound = |from: usize| {
            let marks = list((from + 1..=from + width).map(|at| format!("?{at}")));
            if width == 1 { marks } else { format!("({marks})") }
        };
        let mut conditions = Vec::new();
        if chunk.lo.is_some() {
            conditions.push(format!("{row} > {}", bound(0)));
        }
        if chunk.hi.is_some() {
            let from = if chunk.lo.is_some() { width } else { 0 };
            conditions.push(format!("{row} <= {}", bound(from)));
        }
        all(&conditions)
    }

    /// The mapping's filter as a further condition on rows of the old side.
    pub(super) fn and_filter(&self, which: Which) -> String {
        match (&self.filter, which) {
            (Some(filter), Which::Old) => format!(" AND {filter}"),
            _ => String::new(),
        }
    }

    /// That a table has a row of a key; on the old side one that the filter lets pass.
    pub(super) fn has(&self, which: Which, key: &[String]) -> String {
        let (table, is) = (self.table(which), self.key_is(which, key));
        format!("EXISTS (SELECT 1 FROM {table} WHERE {is}{})", self.and_filter(which))
    }

    /// What is written into a table: from the other one, or with `both` back.
    pub(super) fn written(&self, which: Which) -> &[Write] {
        match which {
            Which::New => &self.writes,
            Which::Old => &self.reverse,
        }
    }

    /// What is written into a table beside its key.
    pub(super) fn written_beside_key(&self, which: Which) -> impl Iterator<Item = (usize, &Write)> {
        let is_key = move |write: &Write| {
            self.keys.iter().any(|pair| same_name(pair.name(which), &write.column))
        };
        self.written(which).iter().enumerate().filter(move |(_, write)| !is_key(write))
    }

    /// What [`pair`](Self::pair) reads of the old side: its key `k…`, values for the new side `w…`, and with `both` the
    /// columns `o…` that are written back.
    pub(super) fn old_list(&self, direction: Direction) -> String {
        let table = self.table(Which::Old);
        let mut items: Vec<String> = self
            .key(Which::Old)
            .iter()
            .enumerate()
            .map(|(at, name)| format!("{name} AS k{at}"))
            .collect();
        items.extend(self.writes.iter().enumerate().map(|(at, w)| format!("{} AS w{at}", w.value)));
        if direction == Direction::Both {
            let columns = self.reverse.iter().enumerate();
            items.extend(columns.map(|(at, w)| format!("{table}.{} AS o{at}", quote(&w.column))));
        }
        list(items)
    }

    /// What [`pair`](Self::pair) reads of the new side: its key `q…`, its columns `n…`, and with `both` the values `r…`
    /// for the old side.
    pub(super) fn new_list(&self, direction: Direction) -> String {
        let table = self.table(Which::New);
        let mut items: Vec<String> = self
            .key(Which::New)
            .iter()
            .enumerate()
            .map(|(at, name)| format!("{name} AS q{at}"))
            .collect();
        let columns = self.writes.iter().enumerate();
        items.extend(columns.map(|(at, w)| format!("{table}.{} AS n{at}", quote(&w.column))));
        if direction == Direction::Both {
            let values = self.reverse.iter().enumerate();
            items.extend(values.map(|(at, w)| format!("{} AS r{at}", w.value)));
        }
        list(items)
    }

    /// Rows of both sides, side by side, as what follows FROM. In place there is one table, and `new` is not used.
    pub(super) fn pair(&self, direction: Direction, old: &str, new: &str) -> String {
        let (olds, news) = (self.old_list(direction), self.new_list(direction));
        let (old_table, new_table) = (self.table(Which::Old), self.table(Which::New));
        if self.in_place {
            return format!("(SELECT {olds}, {news} FROM {old_table} WHERE {old}) AS f");
        }
        format!(
            "(SELECT {olds} FROM {old_table} WHERE {old}) AS f, (SELECT {news} FROM {new_table} WHERE {new}) AS t"
        )
    }

    /// The pair of one key, where the filter lets the old side pass.
    pub(super) fn pair_of(&self, direction: Direction, old: &[String], new: &[String]) -> String {
        let old = format!("{}{}", self.key_is(Which::Old, old), self.and_filter(Which::Old));
        self.pair(direction, &old, &self.key_is(Which::New, new))
    }

    /// That a column holds what storing a value in it would give.
    pub(super) fn same(write: &Write, stored: &str, value: &str) -> String {
        let is = format!("{stored} COLLATE BINARY IS +{value}");
        match write.affinity {
            // A whole number becomes a real one when stored, and may lose digits that a comparison would still see. Text
            // that reads as a number does as well: it sorts below infinity once the cast gives it a number's affinity.
            Affinity::Real if !write.is_plain => format!(
                "(CASE WHEN typeof({stored}) = 'real' AND +{value} <= CAST(9e999 AS REAL) \
                 THEN {stored} = CAST(+{value} AS REAL) ELSE {is} END)"
            ),
            Affinity::Blob => format!("({is} AND typeof({stored}) = typeof({value}))"),
            _ => format!("({is})"),
        }
    }

    /// That the new side's columns of a part are as the old side says.
    pub(super) fn forward_holds(&self, part: &Part, naming: Naming) -> String {
        let table = self.table(Which::New);
        let holds = |at: &usize| {
            let write = &self.writes[*at];
            match naming {
                Naming::Pair => Self::same(write, &format!("n{at}"), &format!("w{at}")),
                Naming::Row => {
                    Self::same(write, &format!("{table}.{}", quote(&write.column)), &write.value)
                }
            }
        };
        all(&part.writes.iter().map(holds).collect::<Vec<_>>())
    }

    /// That the old side's columns of a part are as the new side says.
    pub(super) fn back_holds(&self, part: &Part, naming: Naming) -> String {
        let table = self.table(Which::Old);
        if part.reverse.is_empty() {
            return if part.is_constant() { "1" } else { "0" }.to_owned();
        }
        let holds = |at: &usize| {
            let write = &self.reverse[*at];
            match naming {
                Naming::Pair => Self::same(write, &format!("o{at}"), &format!("r{at}")),
                Naming::Row => {
                    Self::same(write, &format!("{table}.{}", quote(&write.column)), &write.value)
                }
            }
        };
        all(&part.reverse.iter().map(holds).collect::<Vec<_>>())
    }

    /// That a part of a row is right, in the meaning of verify: new = f(old), or with `both` old = g(new), in place only
    /// where a client of the new shape is known to have written it.
    pub(super) fn part_is_right(&self, at: usize, direction: Direction, naming: Naming) -> String {
        let part = &self.parts[at];
        let forward = self.forward_holds(part, naming);
        match direction {
            Direction::Forward => format!("({forward})"),
            Direction::Both if self.in_place => {
                let keys = match naming {
                    Naming::Pair => (0..self.keys.len()).map(|at| format!("k{at}")).collect(),
                    Naming::Row => self.key(Which::Old),
                };
                let (kept, back) = (self.is_kept(at, &keys), self.back_holds(part, naming));
                format!("({forward} OR ({kept} AND {back}))")
            }
            Direction::Both if part.is_constant() => "1".to_owned(),
            Direction::Both => format!("({forward} OR ({}))", self.back_holds(part, naming)),
        }
    }

    /// That a row is right in all its parts.
    pub(super) fn is_right(&self, direction: Direction, naming: Naming) -> String {
        let part = |at| self.part_is_right(at, direction, naming);
        all(&(0..self.parts.len()).map(part).collect::<Vec<_>>())
    }

    /// That both sides have a row of a key, and it is right.
    pub(super) fn is_right_at(
        &self,
        direction: Direction,
        old: &[String],
        new: &[String],
    ) -> String {
        let pair = self.pair_of(direction, old, new);
        format!("EXISTS (SELECT 1 FROM {pair} WHERE {})", self.is_right(direction, Naming::Pair))
    }

    /// Which rows of our own table of kept keys belong to a key.
    pub(super) fn kept_key(&self, part: Option<usize>, key: &[String]) -> String {
        let mut conditions = vec![format!("{KEPT}.mapping = {}", literal(&self.id))];
        conditions.extend(part.map(|part| format!("{KEPT}.part = {part}")));
        let columns = key.iter().enumerate();
        conditions.extend(columns.map(|(at, value)| format!("{KEPT}.k{} IS +{value}", at + 1)));
        all(&conditions)
    }

    /// That a client of the new shape wrote a part of a row in place.
    pub(super) fn is_kept(&self, part: usize, key: &[String]) -> String {
        format!("EXISTS (SELECT 1 FROM {KEPT} WHERE {})", self.kept_key(Some(part), key))
    }

    /// The columns of a new row in a table, and over a row of the other table their values.
    pub(super) fn insertion(&self, into: Which) -> (String, String) {
        let columns = self
            .key_names(into)
            .into_iter()
            .chain(self.written_beside_key(into).map(|(_, write)| quote(&write.column)));
        let values = self
            .key(into.other())
            .into_iter()
            .chain(self.written_beside_key(into).map(|(_, write)| write.value.clone()));
        (list(columns), list(values))
    }
}

/// The statement that copies a chunk, with `?1…` bound to the cells of `lo`, if it has one, and then to those of `hi`.
///
/// To another table it inserts what isn't there (or, as the mapping asks, writes over rows that differ); in place it
/// writes the target columns of rows that differ, and never what a client of the new shape has written. Nothing that
/// dual-write has brought about is changed by it.
pub(super) fn copy_sql(shape: &Shape, direction: Direction, chunk: &Chunk) -> String {
    copy_where(shape, direction, &shape.in_chunk(Which::Old, chunk))
}

/// As [`copy_sql`], for rows of the old side under a condition.
pub(super) fn copy_where(shape: &Shape, direction: Direction, which: &str) -> String {
    let (old, new) = (shape.table(Which::Old), shape.table(Which::New));
    let rows = format!("{which}{}", shape.and_filter(Which::Old));
    if shape.in_place {
        let (sets, wrong) = in_place_sets(shape, direction);
        return format!("UPDATE {old} SET {sets} WHERE {rows} AND {wrong}");
    }
    let (columns, values) = shape.insertion(Which::New);
    let keys = shape.key_names(Which::New).join(", ");
    let conflict = match shape.on_existing {
        OnExisting::Update if !shape.writes.is_empty() => {
            format!("DO UPDATE SET {}", existing_sets(shape, direction))
        }
        _ => "DO NOTHING".to_owned(),
    };
    format!(
        "INSERT INTO {new} ({columns}) SELECT {values} FROM {old} WHERE {rows} ON CONFLICT ({keys}) {conflict}"
    )
}

/// What the copy in place sets, and which rows it sets it on.
fn in_place_sets(shape: &Shape, direction: Direction) -> (String, String) {
    let keys = shape.key(Which::Old);
    let mut sets = Vec::new();
    let mut wrong = Vec::new();
    for (at, part) in shape.parts.iter().enumerate().filter(|(_, part)| !part.writes.is_empty()) {
        let stands = match direction {
            Direction::Forward => format!("({})", shape.forward_holds(part, Naming::Row)),
            Direction::Both => format!(
                "({} OR {})",
                shape.forward_holds(part, Naming::Row),
                shape.is_kept(at, &keys)
            ),
        };
        wrong.push(format!("NOT {stands}"));
        for write in part.writes.iter().map(|at| &shape.writes[*at]) {
            let column = quote(&write.column);
            sets.push(match direction {
                Direction::Forward => format!("{column} = {}", write.value),
                Direction::Both => {
                    format!("{column} = CASE WHEN {stands} THEN {column} ELSE {} END", write.value)
                }
            });
        }
    }
    (list(sets), any(&wrong))
}

/// What the copy sets on rows that were there, and on which of them.
fn existing_sets(shape: &Shape, direction: Direction) -> String {
    let new = shape.table(Which::New);
    let sets = list(shape.writes.iter().map(|write| {
        let column = quote(&write.column);
        format!("{column} = excluded.{column}")
    }));
    let holds: Vec<String> = shape
        .writes
        .iter()
        .map(|write| {
            let column = quote(&write.column);
            Shape::same(write, &format!("{new}.{column}"), &format!("excluded.{column}"))
        })
        .collect();
    let right = match direction {
        Direction::Forward => format!("({})", all(&holds)),
        Direction::Both => {
            let key: Vec<String> = shape
                .key_names(Which::New)
                .into_iter()
                .map(|name| format!("excluded.{name}"))
                .collect();
            shape.is_right_at(direction, &key, &key)
        }
    };
    format!("{sets} WHERE NOT {right}")
}

//! What the functions and triggers of a sync are made of: their names, the rows they read, and what is right.
//!
//! Invariants:
//! - There is one text for "this column is as the mapping says", that of `same`, which the comparison has as well.
//! - Expressions are evaluated over their own table alone, and the results meet under names that no column has.

use super::catalogue::{Table, literal, quote};
use super::marks::GUARD;
use super::same::{held_by, same, stored_by};
use super::shape::{Part, Shape, Write, reads};
pub(super) use super::shape_sql::{Which as Side, all};
use crate::run::{Direction, OnDelete};

/// What names of triggers of ours begin with: behind every other name, since PostgreSQL fires them by name.
pub(super) const TRIGGER_PREFIX: &str = "zzzz_phasegate_";

/// What the names of a sync's functions begin with, before the mapping's id.
pub(super) const FUNCTION_PREFIX: &str = "phasegate_";

/// Bits of `pg_trigger.tgtype`.
pub(super) mod fires {
    pub const ROW: i16 = 1;
    pub const BEFORE: i16 = 2;
    pub const INSERT: i16 = 4;
    pub const DELETE: i16 = 8;
    pub const UPDATE: i16 = 16;
    pub const TRUNCATE: i16 = 32;
}

impl Side {
    /// The other one.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }

    /// Its letter in the names of our objects.
    pub(super) const fn letter(self) -> &'static str {
        match self {
            Self::Old => "a",
            Self::New => "b",
        }
    }
}

/// A function of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// Its bare name.
    pub name: String,
    /// The list of its parameters.
    pub parameters: String,
    /// What it returns; a function that returns `trigger` runs as its owner.
    pub returns: &'static str,
    pub body: String,
    /// Another text that does as well: what it is made for comes and goes without harm.
    pub also: Option<String>,
}

/// A trigger of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub name: String,
    /// The table that it stands on.
    pub side: Side,
    /// When it fires, in the bits of [`fires`].
    pub fires: i16,
    /// The columns of an UPDATE that it asks for; none: all.
    pub columns: Vec<String>,
    /// The bare name of its function.
    pub function: String,
    /// What its function is told.
    pub argument: Option<String>,
}

/// Everything of ours that keeps a mapping in step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SyncSql {
    pub functions: Vec<Function>,
    pub triggers: Vec<Trigger>,
}

impl Trigger {
    /// The words between the trigger's name and its table.
    pub(super) fn head(&self) -> String {
        let mut events = Vec::new();
        for (bit, word) in [
            (fires::INSERT, "INSERT"),
            (fires::UPDATE, "UPDATE"),
            (fires::DELETE, "DELETE"),
            (fires::TRUNCATE, "TRUNCATE"),
        ] {
            if self.fires & bit != 0 {
                events.push(word.to_owned());
            }
        }
        if !self.columns.is_empty() {
            let columns: Vec<String> = self.columns.iter().map(|name| quote(name)).collect();
            events = vec![format!("UPDATE OF {}", columns.join(", "))];
        }
        let when = if self.fires & fires::BEFORE == 0 { "AFTER" } else { "BEFORE" };
        format!("{when} {}", events.join(" OR "))
    }

    /// Whether it fires for each row, so that PostgreSQL gives every partition its own.
    pub(super) const fn is_for_rows(&self) -> bool {
        self.fires & fires::ROW != 0
    }
}

/// The name of a function of a mapping.
pub(super) fn function_name(shape: &Shape, kind: &str) -> String {
    format!("{FUNCTION_PREFIX}{}_{kind}", shape.id)
}

/// The name of a trigger of a mapping.
pub(super) fn trigger_name(shape: &Shape, kind: &str) -> String {
    format!("{TRIGGER_PREFIX}{}_{kind}", shape.id)
}

/// Conditions of which one must hold.
pub(super) fn any(conditions: &[String]) -> String {
    if conditions.is_empty() {
        "false".to_owned()
    } else {
        format!("({})", conditions.join(" OR "))
    }
}

/// That a trigger fires for a write of ours: the engine's own statements fire it at depth 1 under the bare id.
pub(super) fn is_guarded(shape: &Shape) -> String {
    let id = literal(&shape.id);
    format!(
        "(coalesce(current_setting({}, true), '') = CASE pg_trigger_depth() WHEN 1 THEN {id} ELSE {id} || '/' || pg_trigger_depth() END)",
        literal(GUARD)
    )
}

impl Shape {
    /// A table as what follows FROM, so that its columns, and its bare name, can be seen.
    pub(super) fn named(&self, side: Side) -> String {
        let table = self.side(side);
        format!("{} AS {}", table.sql(), quote(&table.name))
    }

    /// The names of a table's key columns under its bare name.
    pub(super) fn named_key(&self, side: Side) -> Vec<String> {
        let alias = quote(&self.side(side).name);
        self.bare_key(side).iter().map(|name| format!("{alias}.{name}")).collect()
    }

    /// What is written into a table from the other one.
    pub(super) fn written(&self, side: Side) -> &[Write] {
        match side {
            Side::New => &self.writes,
            Side::Old => &self.reverse,
        }
    }

    /// What is written into a table beside its key.
    pub(super) fn written_beside_keys(&self, side: Side) -> impl Iterator<Item = (usize, &Write)> {
        let keys = self.bare_key(side);
        let is_key = move |write: &Write| keys.contains(&quote(&write.column));
        self.written(side).iter().enumerate().filter(move |(_, write)| !is_key(write))
    }

    /// What is written over in a table's rows: the server draws identities of its own alone.
    pub(super) fn written_over(&self, side: Side) -> impl Iterator<Item = (usize, &Write)> {
        let table = self.side(side);
        let is_drawn = |write: &Write| {
            table.column(&write.column).is_some_and(|column| column.identity == Some('a'))
        };
        self.written(side).iter().enumerate().filter(move |(_, write)| !is_drawn(write))
    }

    /// The filter as a further condition on rows of the old side.
    pub(super) fn and_filter(&self, side: Side) -> String {
        match (&self.filter, side) {
            (Some(filter), Side::Old) => format!(" AND {filter}"),
            _ => String::new(),
        }
    }

    /// What is read of the old side: values for the new one `phasegate_w…`, and with `both` the
    /// columns `phasegate_o…` that are written back.
    pub(super) fn old_list(&self, direction: Direction) -> String {
        let alias = quote(&self.old.name);
        let mut items = vec!["true AS phasegate_here".to_owned()];
        items.extend(
            self.writes.iter().enumerate().map(|(at, w)| format!("{} AS phasegate_w{at}", cast(w))),
        );
        if direction == Direction::Both {
            let columns = self.reverse.iter().enumerate();
            let held = |w: &Write| held_by(&self.old, w, &format!("{alias}.{}", quote(&w.column)));
            items.extend(columns.map(|(at, w)| format!("{} AS phasegate_o{at}", held(w))));
        }
        items.join(", ")
    }

    /// What is read of the new side: its columns `phasegate_n…`, and with `both` the values `phasegate_r…` for the
    /// old side.
    pub(super) fn new_list(&self, direction: Direction) -> String {
        let alias = quote(&self.new.name);
        let mut items = vec!["true AS phasegate_there".to_owned()];
        let columns = self.writes.iter().enumerate();
        let held = |w: &Write| held_by(&self.new, w, &format!("{alias}.{}", quote(&w.column)));
        items.extend(columns.map(|(at, w)| format!("{} AS phasegate_n{at}", held(w))));
        if direction == Direction::Both {
            let values = self.reverse.iter().enumerate();
            items.extend(values.map(|(at, w)| format!("{} AS phasegate_r{at}", cast(w))));
        }
        items.join(", ")
    }

    /// That the new side's columns of a part are as the old side says, in the names of the lists.
    pub(super) fn forward_holds(&self, part: &Part) -> String {
        let holds = |at: &usize| {
            let value = format!("phasegate_w{at}");
            same(&[format!("phasegate_n{at}")], &[stored_by(&self.new, &self.writes[*at], &value)])
        };
        all(&part.writes.iter().map(holds).collect::<Vec<_>>())
    }

    /// That the old side's columns of a part are as the new side says, likewise.
    pub(super) fn back_holds(&self, part: &Part) -> String {
        if part.reverse.is_empty() {
            return if part.is_alone() { "true" } else { "false" }.to_owned();
        }
        let holds = |at: &usize| {
            let value = format!("phasegate_r{at}");
            same(&[format!("phasegate_o{at}")], &[stored_by(&self.old, &self.reverse[*at], &value)])
        };
        all(&part.reverse.iter().map(holds).collect::<Vec<_>>())
    }

    /// That a part of a pair of rows is right: new = f(old), or with `both` old = g(new).
    pub(super) fn part_is_right(&self, part: &Part, direction: Direction) -> String {
        let forward = self.forward_holds(part);
        match direction {
            Direction::Forward => format!("({forward})"),
            Direction::Both if part.is_alone() => "true".to_owned(),
            Direction::Both => format!("({forward} OR ({}))", self.back_holds(part)),
        }
    }

    /// That a pair of rows is right, part by part.
    pub(super) fn rights(&self, direction: Direction) -> Vec<String> {
        self.parts.iter().map(|part| self.part_is_right(part, direction)).collect()
    }

    /// That a pair of rows is right in all its parts.
    pub(super) fn is_right(&self, direction: Direction) -> String {
        format!("({})", all(&self.rights(direction)))
    }

    /// A column's value in a pair for one side: what the other side says, but for parts that are to stay as they are, which
    /// `stays` tells. Forward all are one.
    pub(super) fn value_in_pair(
        &self,
        to: Side,
        at: usize,
        (direction, stays): (Direction, &[String]),
    ) -> String {
        let (theirs, ours) = match to {
            Side::New => (format!("phasegate_w{at}"), format!("phasegate_n{at}")),
            Side::Old => (format!("phasegate_r{at}"), format!("phasegate_o{at}")),
        };
        if direction == Direction::Forward {
            return theirs;
        }
        let is_in = |part: &Part| match to {
            Side::New => part.writes.contains(&at),
            Side::Old => part.reverse.contains(&at),
        };
        match self.parts.iter().position(is_in) {
            Some(part) => format!("CASE WHEN {} THEN {ours} ELSE {theirs} END", stays[part]),
            None => theirs,
        }
    }
}

impl Part {
    /// Every column of the new side in it: those that are written there, and those that what is written back reads.
    pub(super) fn new_columns(
        &self,
        writes: &[Write],
        reverse: &[Write],
        new: &Table,
    ) -> Vec<String> {
        let names = || new.columns.iter().map(|column| column.name.as_str());
        let written = self.writes.iter().map(|at| writes[*at].column.clone());
        let read = self.reverse.iter().flat_map(|at| reads(&reverse[*at].value, names()));
        written.chain(read.map(str::to_owned)).collect()
    }

    /// Whether nothing of the old side has to do with it.
    pub(super) fn is_alone(&self) -> bool {
        self.old_columns.is_empty() && self.reverse.is_empty()
    }
}

/// A value as it may stand in a list: a bare literal has no type of its own there.
pub(super) fn cast(write: &Write) -> String {
    if write.is_plain {
        return write.value.clone();
    }
    format!("CAST({} AS {})", write.value, write.type_sql)
}

/// A function's text.
pub(super) fn body(declare: &str, inner: &str) -> String {
    let declare = if declare.is_empty() { String::new() } else { format!("DECLARE\n{declare}") };
    format!("\n#variable_conflict use_column\n{declare}BEGIN\n{inner}\nEND\n")
}

/// A function's text whose variables can be qualified by a label.
pub(super) fn labelled(label: &str, declare: &str, inner: &str) -> String {
    let declare = if declare.is_empty() { String::new() } else { format!("DECLARE\n{declare}") };
    let label = quote(label);
    format!("\n#variable_conflict use_column\n<<{label}>>\n{declare}BEGIN\n{inner}\nEND\n")
}

/// The statement for rows of one side whose counterpart is gone. `which` sees the table under its bare name.
pub(super) fn removal(shape: &Shape, to: Side, which: &str) -> Option<String> {
    let table = shape.named(to);
    match (shape.on_delete, to) {
        (OnDelete::Delete, _) | (_, Side::Old) => {
            Some(format!("DELETE FROM {table} WHERE {which};"))
        }
        (OnDelete::Nullify, Side::New) => {
            let sets: Vec<String> = shape
                .written_beside_keys(to)
                .map(|(_, write)| format!("{} = NULL", quote(&write.column)))
                .collect();
            (!sets.is_empty())
                .then(|| format!("UPDATE {table} SET {} WHERE {which};", sets.join(", ")))
        }
        (OnDelete::Ignore, Side::New) => None,
    }
}

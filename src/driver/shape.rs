//! What the shapes of all drivers share: a mapping held against its two tables, as far as names of columns tell.

use crate::copy::parts::{Group, Tie, groups};
use crate::run::{Digest, Mapping};

/// What stands for a mapping in the names of our objects and in our own tables: short, of hexadecimal digits.
pub(super) fn id_of(mapping: &Mapping) -> String {
    id_of_name(mapping.name.as_str())
}

/// As [`id_of`], of a mapping of which only the name is known. No two runs work on mappings of one name at the same time.
pub(super) fn id_of_name(mapping: &str) -> String {
    Digest::of_bytes(mapping.as_bytes()).short().to_owned()
}

/// Columns of both sides that depend on each other, through the mapping's expressions or its reverse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Places among the columns written on the new side.
    pub(super) writes: Vec<usize>,
    /// Places among the columns written back.
    pub(super) reverse: Vec<usize>,
    /// Every column of the old side in it.
    pub(super) old_columns: Vec<String>,
}

impl Part {
    /// Whether no column of the old side has a say in it: with `both` it is the new side's own.
    pub(super) fn is_constant(&self) -> bool {
        self.old_columns.is_empty()
    }
}

/// A column that is written, and the columns of the other side that its value reads.
pub(super) struct Written<'a> {
    pub(super) column: &'a str,
    pub(super) reads: Vec<&'a str>,
}

/// The columns of both sides, and how a database compares their names.
pub(super) struct Names<'a> {
    pub(super) olds: Vec<&'a str>,
    pub(super) news: Vec<&'a str>,
    /// The pairs of key columns, which tie nothing together.
    pub(super) keys: Vec<(&'a str, &'a str)>,
    /// Both sides are one table.
    pub(super) in_place: bool,
    pub(super) is_same: fn(&str, &str) -> bool,
}

impl Names<'_> {
    /// Groups columns of both sides that depend on each other.
    pub(super) fn parts(&self, writes: &[Written<'_>], reverse: &[Written<'_>]) -> Vec<Part> {
        let is_written = |name: &str| writes.iter().any(|write| (self.is_same)(write.column, name));
        // Columns are numbered: those of the old side first, then those of the new one.
        let place = |names: &[&str], name: &str| {
            names.iter().position(|column| (self.is_same)(column, name))
        };
        let old_at = |name: &str| place(&self.olds, name);
        let new_at = |name: &str| {
            if self.in_place && !is_written(name) {
                return old_at(name);
            }
            place(&self.news, name).map(|at| self.olds.len() + at)
        };
        let forward = |write: &Written<'_>| Tie {
            column: new_at(write.column),
            reads: self.ties(write).filter_map(old_at).collect(),
        };
        let back = |write: &Written<'_>| Tie {
            column: old_at(write.column),
            reads: self.ties(write).filter_map(new_at).collect(),
        };
        let forward: Vec<Tie> = writes.iter().map(forward).collect();
        let back: Vec<Tie> = reverse.iter().map(back).collect();
        let part = |group: Group| {
            let names = group.columns.iter().filter_map(|at| self.olds.get(*at));
            let names = names.filter(|name| !(self.in_place && is_written(name)));
            Part {
                writes: group.writes,
                reverse: group.reverse,
                old_columns: names.map(|name| (*name).to_owned()).collect(),
            }
        };
        groups(self.olds.len() + self.news.len(), &forward, &back).into_iter().map(part).collect()
    }

    fn is_key(&self, name: &str) -> bool {
        self.keys.iter().any(|(old, new)| (self.is_same)(old, name) || (self.is_same)(new, name))
    }

    /// What a column's value reads, but for keys, unless it is one itself.
    fn ties<'a>(&self, write: &'a Written<'a>) -> impl Iterator<Item = &'a str> {
        let is_key = self.is_key(write.column);
        write.reads.iter().copied().filter(move |read| is_key || !self.is_key(read))
    }
}

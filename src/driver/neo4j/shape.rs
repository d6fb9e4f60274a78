//! A mapping in Cypher: the patterns of both sides, what they are known by, and what one makes of the other.
//!
//! The old side is called `source`, with `start` and `end` where it is a relationship, as the mapping's expressions do; the new one
//! `copy`, with `copy_start` and `copy_end`. Rows of both sides are known by the same values, in the order of the new side's key: of a
//! relationship these are the key of the node that it leaves and that of the node it comes to.
//!
//! Absent on purpose: the server.

use crate::copy::chunk::Chunk;
use crate::driver::Error;
use crate::run::{CopyColumns, End, Ends, FailureClass, Mapping, Relation, RowKind};
use crate::sql::cypher::{plain_property, quoted};

/// All properties of a row of the new side.
const WHOLE: &str = "copy {.*}";

/// Locks something until the end of the transaction: writes to it and takes that back.
pub(super) fn hold(name: &str) -> String {
    format!("SET {name}.phasegate_held = true REMOVE {name}.phasegate_held")
}

/// One of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Old,
    New,
}

/// A node of one side: what it is called in patterns, its label and the properties that it is known by.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) label: String,
    pub(super) key: Vec<String>,
}

impl Node {
    pub(super) fn pattern(&self) -> String {
        format!("({}:{})", self.name, quoted(&self.label))
    }

    pub(super) fn key_expressions(&self) -> Vec<String> {
        self.key.iter().map(|key| format!("{}.{}", self.name, quoted(key))).collect()
    }

    fn hint(&self) -> String {
        let keys: Vec<String> = self.key.iter().map(|key| quoted(key)).collect();
        format!("USING INDEX {}:{}({})", self.name, quoted(&self.label), keys.join(", "))
    }

    /// A pattern of the node whose key has these values.
    pub(super) fn keyed(&self, values: &[String]) -> String {
        let pairs = self.key.iter().zip(values);
        let pairs: Vec<String> =
            pairs.map(|(key, value)| format!("{}: {value}", quoted(key))).collect();
        format!("({}:{} {{{}}})", self.name, quoted(&self.label), pairs.join(", "))
    }
}

/// What one side is.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Node(Node),
    /// The node that rows are walked by comes first: on the old side it may be the one that the relationship comes to.
    Relationship {
        kind: String,
        first: Node,
        second: Node,
        leaves_first: bool,
    },
}

/// A mapping inside one graph.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) old: Pattern,
    pub(super) new: Pattern,
    /// What a row of the old side becomes, without its key: a map.
    row: String,
    /// What there is of it on the new side.
    there: String,
    filter: Option<String>,
    pub(super) copies_all: bool,
}

impl Shape {
    pub(super) fn of(mapping: &Mapping) -> Result<Self, Error> {
        let (old, new) = match (&mapping.from.kind, &mapping.into.kind) {
            (RowKind::Node, RowKind::Node) => {
                (of_node("source", &mapping.from), of_node("copy", &mapping.into))
            }
            (RowKind::Relationship(old), RowKind::Relationship(new)) => {
                of_relationships((&mapping.from, old), (&mapping.into, new))?
            }
            _ => return Err(not_of_graph(mapping)),
        };
        let copies_all = mapping.copy == CopyColumns::All;
        let given = mapping.columns.iter();
        let mut entries: Vec<String> =
            given.map(|(name, value)| format!("{}: ({value}\n)", quoted(name))).collect();
        let there = if copies_all {
            // Its key goes under the names of the new side.
            for key in &mapping.from.key {
                let is_given = mapping.columns.iter().any(|(name, _)| name == key);
                if !is_given && !mapping.into.key.contains(key) {
                    entries.push(format!("{}: null", quoted(key)));
                }
            }
            entries.insert(0, ".*".to_owned());
            WHOLE.to_owned()
        } else {
            let own: Vec<String> =
                mapping.columns.iter().map(|(name, _)| format!(".{}", quoted(name))).collect();
            format!("copy {{{}}}", own.join(", "))
        };
        Ok(Self {
            old,
            new,
            row: format!("source {{{}}}", entries.join(", ")),
            there,
            filter: mapping.filter.clone(),
            copies_all,
        })
    }

    /// The same, with everything that copies have taken for the mapping's.
    pub(super) fn with_whole_copies(self) -> Self {
        Self { there: WHOLE.to_owned(), ..self }
    }

    pub(super) const fn side(&self, which: Which) -> &Pattern {
        match which {
            Which::Old => &self.old,
            Which::New => &self.new,
        }
    }

    /// What of the row is compared and written, beside its key.
    pub(super) fn row(&self, which: Which) -> &str {
        match which {
            Which::Old => &self.row,
            Which::New => &self.there,
        }
    }

    /// `MATCH` of a side, by its index, in a range of keys, without the mapping's own `where`.
    pub(super) fn walk(&self, which: Which, chunk: &Chunk) -> String {
        let side = self.side(which);
        format!("MATCH {} {} WHERE {}", side.text(), side.hint(), range(&side.key(), chunk))
    }

    /// The same with it.
    pub(super) fn in_chunk(&self, which: Which, chunk: &Chunk) -> String {
        format!("{}{}", self.walk(which, chunk), self.and_filter(which))
    }

    /// Whether a row of the old side, which was locked, is still one of a range.
    pub(super) fn still_in(&self, chunk: &Chunk) -> String {
        format!(" WHERE {}{}", range(&self.old.key(), chunk), self.and_filter(Which::Old))
    }

    /// `MATCH` of the rows of a side whose keys are in the list `keys`.
    pub(super) fn among(&self, which: Which, keys: &str) -> String {
        let side = self.side(which);
        let values: Vec<String> = (0..side.key().len()).map(|at| format!("key[{at}]")).collect();
        let filter = if which == Which::Old { self.where_old() } else { String::new() };
        format!("UNWIND {keys} AS key MATCH {}{filter}", side.keyed(&values))
    }

    /// The mapping's `where`, if it has one.
    pub(super) fn where_old(&self) -> String {
        self.filter.as_ref().map_or_else(String::new, |filter| format!(" WHERE ({filter}\n)"))
    }

    /// The mapping's `where` behind other predicates of a side, if it has one there.
    pub(super) fn and_filter(&self, which: Which) -> String {
        match (&self.filter, which) {
            (Some(filter), Which::Old) => format!(" AND ({filter}\n)"),
            _ => String::new(),
        }
    }
}

fn of_node(name: &'static str, relation: &Relation) -> Pattern {
    Pattern::Node(Node { name, label: relation.table.clone(), key: relation.key.clone() })
}

fn of_relationships(
    (from, old): (&Relation, &Ends),
    (into, new): (&Relation, &Ends),
) -> Result<(Pattern, Pattern), Error> {
    let node = |name: &'static str, end: &End, key: Vec<String>| Node {
        name,
        label: end.node.clone(),
        key,
    };
    let names = |end: &End| end.key.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    // Which end of the old side a new end is known by, and by which properties, in the order of its own.
    let known_by = |end: &End| {
        let read: Option<Vec<_>> = end.key.iter().map(|(_, value)| plain_property(value)).collect();
        let read = read.filter(|read| !read.is_empty())?;
        let is_start = read.first().is_some_and(|(whose, _)| *whose == "start");
        Some((is_start, read.into_iter().map(|(_, name)| name).collect::<Vec<_>>()))
    };
    let ends = known_by(&new.start).zip(known_by(&new.end));
    let ((leaves_first, first), (_, second)) = ends.ok_or_else(|| {
        Error::failed(FailureClass::Damaged, "an end of a relationship is known by nothing")
    })?;
    let (first, second) = if leaves_first {
        (node("start", &old.start, first), node("end", &old.end, second))
    } else {
        (node("end", &old.end, first), node("start", &old.start, second))
    };
    Ok((
        Pattern::Relationship { kind: from.table.clone(), first, second, leaves_first },
        Pattern::Relationship {
            kind: into.table.clone(),
            first: node("copy_start", &new.start, names(&new.start)),
            second: node("copy_end", &new.end, names(&new.end)),
            leaves_first: true,
        },
    ))
}

fn not_of_graph(mapping: &Mapping) -> Error {
    let message = format!("mapping {} is not between two sides of one graph", mapping.name);
    Error::failed(FailureClass::Damaged, message)
}

impl Pattern {
    /// The nodes of the pattern.
    pub(super) fn nodes(&self) -> Vec<&Node> {
        match self {
            Self::Node(node) => vec![node],
            Self::Relationship { first, second, .. } => vec![first, second],
        }
    }

    /// The type of the relationship, if it is one.
    pub(super) fn relationship(&self) -> Option<&str> {
        match self {
            Self::Node(_) => None,
            Self::Relationship { kind, .. } => Some(kind),
        }
    }

    fn row_name(&self) -> &'static str {
        let is_new = self.nodes().first().is_some_and(|node| node.name.starts_with("copy"));
        if is_new { "copy" } else { "source" }
    }

    fn between(&self, first: &str, second: &str) -> String {
        match self {
            Self::Node(_) => first.to_owned(),
            Self::Relationship { kind, leaves_first, .. } => {
                let row = format!("[{}:{}]", self.row_name(), quoted(kind));
                if *leaves_first {
                    format!("{first}-{row}->{second}")
                } else {
                    format!("{first}<-{row}-{second}")
                }
            }
        }
    }

    /// The pattern.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Node(node) => node.pattern(),
            Self::Relationship { first, second, .. } => {
                self.between(&first.pattern(), &second.pattern())
            }
        }
    }

    /// The pattern of rows whose key has these values.
    pub(super) fn keyed(&self, values: &[String]) -> String {
        match self {
            Self::Node(node) => node.keyed(values),
            Self::Relationship { first, second, .. } => {
                let (of_first, of_second) = values.split_at(first.key.len().min(values.len()));
                self.between(&first.keyed(of_first), &second.keyed(of_second))
            }
        }
    }

    /// Patterns of its nodes whose keys have these values.
    pub(super) fn keyed_nodes(&self, values: &[String]) -> Vec<String> {
        let mut rest = values;
        let mut patterns = Vec::new();
        for node in self.nodes() {
            let (own, others) = rest.split_at(node.key.len().min(rest.len()));
            patterns.push(node.keyed(own));
            rest = others;
        }
        patterns
    }

    /// What rows are known by, as expressions.
    pub(super) fn key(&self) -> Vec<String> {
        self.nodes().into_iter().flat_map(Node::key_expressions).collect()
    }

    /// Has the server begin with the index of the node that comes first: without it, it may read everything for each chunk.
    pub(super) fn hint(&self) -> String {
        self.nodes().first().map(|node| node.hint()).unwrap_or_default()
    }
}

/// The predicate of a range of keys, which are compared part by part: Cypher compares no lists.
pub(super) fn range(key: &[String], chunk: &Chunk) -> String {
    let mut all: Vec<String> = key.iter().map(|part| format!("{part} IS NOT NULL")).collect();
    if chunk.lo.is_some() {
        all.push(beyond(key, (">", "lo"), false));
    }
    if chunk.hi.is_some() {
        all.push(beyond(key, ("<", "hi"), true));
    }
    all.join(" AND ")
}

/// Parts from one on are beyond a bound, or at it where that is included.
fn beyond(key: &[String], (than, bound): (&str, &str), is_included: bool) -> String {
    let mut text = String::new();
    for (at, part) in key.iter().enumerate().rev() {
        let orequal = if text.is_empty() && !is_included { "" } else { "=" };
        let own = format!("{part} {than}{orequal} ${bound}{at}");
        text = if text.is_empty() {
            own
        } else {
            format!("({own} AND ({part} {than} ${bound}{at} OR {text}))")
        };
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::copy::chunk::{Cell, Key};

    #[test]
    fn ranges_are_compared_part_by_part() {
        let chunk = |lo: bool, hi: bool| {
            let key = |is: bool| is.then(|| Key(vec![Cell::Integer(1), Cell::Integer(2)]));
            Chunk { lo: key(lo), hi: key(hi) }
        };
        let key = ["a".to_owned(), "b".to_owned()];
        assert_eq!(range(&key, &chunk(false, false)), "a IS NOT NULL AND b IS NOT NULL");
        assert_eq!(
            range(&key, &chunk(true, true)),
            "a IS NOT NULL AND b IS NOT NULL AND (a >= $lo0 AND (a > $lo0 OR b > $lo1)) \
             AND (a <= $hi0 AND (a < $hi0 OR b <= $hi1))"
        );
        assert_eq!(
            range(&key[..1], &chunk(true, true)),
            "a IS NOT NULL AND a > $lo0 AND a <= $hi0"
        );
    }
}

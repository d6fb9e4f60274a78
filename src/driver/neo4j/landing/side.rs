//! The new side of a mapping out of another database: its pattern, what of a row each part of it is, and rows as statements take them.
//!
//! A statement gets a row as a map `r`: `k0`, `k1` … are its own key (of a node, or of a relationship that has one), `s0` … and `e0` …
//! the keys of the nodes that a relationship leaves and comes to, and `p` its properties.
//!
//! Absent on purpose: the server.

use std::collections::BTreeMap;

use neo4rs::{BoltMap, BoltNull, BoltType};

use super::super::catalogue::Unique;
use super::super::shape::{Node, Pattern, range};
use super::super::values;
use super::versions;
use crate::copy::chunk::Chunk;
use crate::copy::row::{Datum, Row};
use crate::driver::Error;
use crate::driver::crossing::{Crossed, STUB, end_name};
use crate::run::{End, Ends, FailureClass, Mapping, MappingName, RowKind};
use crate::sql::cypher::quoted;

/// Where a row has the value of a property that an end is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    /// In this part of its key.
    Key(usize),
    /// Among its values, under this name.
    Value(String),
}

/// The new side.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) mapping: MappingName,
    /// The node, or the relationship with its ends: `copy`, `copy_start` and `copy_end`.
    pub(super) pattern: Pattern,
    /// What a relationship is known by that has a key of its own.
    pub(super) own: Vec<String>,
    /// The properties that the mapping writes, keys aside.
    pub(super) names: Vec<String>,
    /// How the ends are known, in the order of their keys.
    ends: [Vec<Given>; 2],
}

impl Side {
    pub(super) fn of(crossed: &Crossed) -> Result<Self, Error> {
        let mut side = Self::of_mapping(&crossed.mapping)?;
        let [start, end] = &side.ends;
        let is_of_end = |name: &String| {
            start
                .iter()
                .chain(end)
                .any(|given| matches!(given, Given::Value(value) if value == name))
        };
        side.names = crossed.names.iter().filter(|name| !is_of_end(name)).cloned().collect();
        Ok(side)
    }

    /// The same without the names of what it writes.
    pub(super) fn of_mapping(mapping: &Mapping) -> Result<Self, Error> {
        let into = &mapping.into;
        let side = |pattern, own, ends| Self {
            mapping: mapping.name.clone(),
            pattern,
            own,
            names: Vec::new(),
            ends,
        };
        match &into.kind {
            RowKind::Table => {
                let message = format!("mapping {} comes to no graph", mapping.name);
                Err(Error::failed(FailureClass::Damaged, message))
            }
            RowKind::Node => {
                let node = Node { name: "copy", label: into.table.clone(), key: into.key.clone() };
                Ok(side(Pattern::Node(node), Vec::new(), [Vec::new(), Vec::new()]))
            }
            RowKind::Relationship(ends) => {
                let pattern = Pattern::Relationship {
                    kind: into.table.clone(),
                    first: node("copy_start", &ends.start),
                    second: node("copy_end", &ends.end),
                    leaves_first: true,
                };
                Ok(side(pattern, into.key.clone(), given(mapping, ends)?))
            }
        }
    }

    /// What makes its keys unique: those of its nodes, and its own.
    pub(super) fn unique(&self) -> Vec<Unique> {
        let mut all: Vec<Unique> = Vec::new();
        for node in self.pattern.nodes() {
            let unique = Unique::node(node);
            if !all.contains(&unique) {
                all.push(unique);
            }
        }
        if let Pattern::Relationship { kind, .. } = &self.pattern
            && !self.own.is_empty()
        {
            let (name, key) = (kind.clone(), self.own.clone());
            all.push(Unique { is_of_nodes: false, name, key });
        }
        all
    }

    /// Its labels and its type.
    pub(super) fn labels(&self) -> Vec<String> {
        let labels = self.pattern.nodes().into_iter().map(|node| node.label.clone());
        labels.chain(self.pattern.relationship().map(str::to_owned)).collect()
    }

    /// What its rows are walked by, as expressions.
    pub(super) fn key(&self) -> Vec<String> {
        if self.own.is_empty() {
            return self.pattern.key();
        }
        self.own.iter().map(|key| format!("copy.{}", quoted(key))).collect()
    }

    /// Which part of a row's key each of these is.
    pub(super) fn order(&self) -> Vec<usize> {
        let [start, end] = &self.ends;
        let of_ends: Vec<usize> = start
            .iter()
            .chain(end)
            .filter_map(|given| match given {
                Given::Key(at) => Some(*at),
                Given::Value(_) => None,
            })
            .collect();
        if of_ends.is_empty() { (0..self.key().len()).collect() } else { of_ends }
    }

    /// A row's key out of what it is walked by.
    pub(super) fn row_key(&self, walked: &[Datum]) -> Vec<Datum> {
        let order = self.order();
        let parts = order.iter().max().map_or(0, |last| last + 1);
        let part = |part| order.iter().position(|at| *at == part);
        (0..parts).filter_map(|at| walked.get(part(at)?).cloned()).collect()
    }

    /// `MATCH` of its rows by their index, in a range of keys. Where both ends have the same part of a key, no row has two values of it.
    pub(super) fn walk(&self, chunk: &Chunk) -> String {
        let key = self.key();
        format!(
            "MATCH {} {} WHERE {}{}",
            self.pattern.text(),
            if chunk.lo.is_some() || chunk.hi.is_some() { self.seek() } else { self.hint() },
            range(&key, chunk),
            self.agrees().map(|text| format!(" AND {text}")).unwrap_or_default()
        )
    }

    /// That both ends agree in what they have in common.
    pub(super) fn agrees(&self) -> Option<String> {
        let (order, key) = (self.order(), self.key());
        let twice = order.iter().enumerate().filter_map(|(at, part)| {
            let first = order.iter().position(|other| other == part)?;
            (first < at).then(|| format!("{} = {}", key[first], key[at]))
        });
        let all: Vec<String> = twice.collect();
        (!all.is_empty()).then(|| all.join(" AND "))
    }

    /// Has the server begin with the index.
    fn hint(&self) -> String {
        match self.pattern.relationship() {
            Some(kind) if !self.own.is_empty() => {
                let keys: Vec<String> = self.own.iter().map(|key| quoted(key)).collect();
                format!("USING INDEX copy:{}({})", quoted(kind), keys.join(", "))
            }
            _ => self.pattern.hint(),
        }
    }

    /// Has it go straight to what is asked for: by what it knows of an index that was empty a moment ago, it would as soon go
    /// through all of it, for each row.
    fn seek(&self) -> String {
        self.hint().replacen("USING INDEX", "USING INDEX SEEK", 1)
    }

    /// `MATCH` of the row `r` of a relationship with a key of its own, by that.
    pub(super) fn by_own_key(&self) -> String {
        let pairs = self.own.iter().enumerate();
        let pairs: Vec<String> =
            pairs.map(|(at, key)| format!("copy.{} = r.k{at}", quoted(key))).collect();
        format!("MATCH {} {} WHERE {}", self.pattern.text(), self.seek(), pairs.join(" AND "))
    }

    /// Patterns of the ends of the row `r`.
    pub(super) fn ends(&self) -> [String; 2] {
        let values = |name: &str, end: &Node| -> Vec<String> {
            (0..end.key.len()).map(|at| format!("r.{name}{at}")).collect()
        };
        match &self.pattern {
            Pattern::Node(_) => [String::new(), String::new()],
            Pattern::Relationship { first, second, .. } => {
                [first.keyed(&values("s", first)), second.keyed(&values("e", second))]
            }
        }
    }

    /// The pattern of the node `r`.
    pub(super) fn node(&self) -> Option<(&Node, String)> {
        match &self.pattern {
            Pattern::Node(node) => Some((node, keyed(node, "k"))),
            Pattern::Relationship { .. } => None,
        }
    }

    /// The key of a row that is gone, as `k0` …, or `s0` … and `e0` … where it is known by its ends.
    pub(super) fn gone(&self, key: &[Datum]) -> Result<Placed, Error> {
        if self.pattern.relationship().is_none() || !self.own.is_empty() {
            return Ok(Placed { ends: Vec::new(), map: self.own_key(key)? });
        }
        self.place(key, &BTreeMap::new())
    }

    fn own_key(&self, key: &[Datum]) -> Result<BoltMap, Error> {
        let mut map = BoltMap::with_capacity(8);
        if self.pattern.relationship().is_none() || !self.own.is_empty() {
            for (at, part) in key.iter().enumerate() {
                self.is_equal_to_itself(part)?;
                map.put(format!("k{at}").as_str().into(), self.sent("key", part)?);
            }
        }
        Ok(map)
    }

    /// The same of a row, with the keys of its ends.
    fn place(&self, key: &[Datum], values: &BTreeMap<String, Datum>) -> Result<Placed, Error> {
        let mut map = self.own_key(key)?;
        let mut nodes = Vec::with_capacity(2);
        for (name, end, all) in [("s", "start", &self.ends[0]), ("e", "end", &self.ends[1])] {
            let mut parts = Vec::with_capacity(all.len());
            for (at, given) in all.iter().enumerate() {
                let part = match given {
                    Given::Key(at) => key.get(*at),
                    Given::Value(name) => values.get(name),
                };
                let part = part.ok_or_else(|| self.endless(end))?;
                map.put(format!("{name}{at}").as_str().into(), self.sent(end, part)?);
                parts.push(part);
            }
            nodes.push(versions::key_text(parts));
        }
        Ok(Placed { ends: nodes, map })
    }

    /// A row as it is made where it is lacking.
    pub(super) fn to_make(&self, row: &Row) -> Result<Placed, Error> {
        self.with(row, self.made(row)?)
    }

    /// A row as it is written, whatever there was.
    pub(super) fn to_write(&self, row: &Row) -> Result<Placed, Error> {
        self.with(row, self.written(row)?)
    }

    fn with(&self, row: &Row, properties: BoltMap) -> Result<Placed, Error> {
        let mut placed = self.place(&row.key, &row.values)?;
        placed.map.put("p".into(), BoltType::Map(properties));
        Ok(placed)
    }

    /// Refuses what no key can be: nothing is found by it.
    fn is_equal_to_itself(&self, part: &Datum) -> Result<(), Error> {
        let Datum::Real(value) = part else { return Ok(()) };
        if !value.is_nan() {
            return Ok(());
        }
        let message = format!("the key of a row of mapping {} is NaN", self.mapping);
        Err(Error::failed(FailureClass::Refused, message)
            .with_help("leave such rows out with the mapping's `where`"))
    }

    /// A relationship that has no end.
    fn endless(&self, end: &str) -> Error {
        let kind = self.pattern.relationship().unwrap_or_default();
        let message = format!("a {kind} of mapping {} has no {end}: its key is NULL", self.mapping);
        Error::failed(FailureClass::Refused, message)
            .with_help("leave such rows out with the mapping's `where`")
    }

    fn sent(&self, name: &str, value: &Datum) -> Result<BoltType, Error> {
        values::sent(value).ok_or_else(|| {
            let message = format!(
                "{name} of a row of mapping {} is further from now than dates can be written",
                self.mapping
            );
            Error::failed(FailureClass::Refused, message)
        })
    }

    /// A row's properties as they are made: its own key and the ends' aside, and without what is null.
    fn made(&self, row: &Row) -> Result<BoltMap, Error> {
        let mut map = BoltMap::with_capacity(row.values.len());
        for name in &self.names {
            if let Some(value) = row.values.get(name) {
                map.put(name.as_str().into(), self.sent(name, value)?);
            }
        }
        Ok(map)
    }

    /// The same as they are written over others: with what is null, and with the mark of a stub that is none any more.
    fn written(&self, row: &Row) -> Result<BoltMap, Error> {
        let mut map = self.made(row)?;
        let absent = self.names.iter().filter(|name| !row.values.contains_key(*name));
        for name in absent.map(String::as_str).chain(self.node().map(|_| STUB)) {
            map.put(name.into(), BoltType::Null(BoltNull));
        }
        Ok(map)
    }
}

/// A row, as statements take it.
pub(super) struct Placed {
    /// The same of each end of a relationship as a text. Rows are written in the order of these, so that locks are taken in one.
    pub(super) ends: Vec<String>,
    pub(super) map: BoltMap,
}

/// A pattern of a node whose key is `r.<name>0` ….
pub(super) fn keyed(node: &Node, name: &str) -> String {
    let values: Vec<String> = (0..node.key.len()).map(|at| format!("r.{name}{at}")).collect();
    node.keyed(&values)
}

fn node(name: &'static str, end: &End) -> Node {
    let key = end.key.iter().map(|(property, _)| property.clone()).collect();
    Node { name, label: end.node.clone(), key }
}

/// Where rows have the keys of the ends.
fn given(mapping: &Mapping, ends: &Ends) -> Result<[Vec<Given>; 2], Error> {
    let of = |name: &str, end: &End| -> Result<Vec<Given>, Error> {
        let mut all = Vec::new();
        for (property, expression) in &end.key {
            all.push(if mapping.into.key.is_empty() {
                let at = mapping.from.key.iter().position(|key| key == expression);
                Given::Key(at.ok_or_else(|| {
                    let message = format!(
                        "{property} of mapping {} is not one of the columns that its rows are known by",
                        mapping.name
                    );
                    Error::failed(FailureClass::Damaged, message)
                })?)
            } else {
                Given::Value(end_name(name, property))
            });
        }
        Ok(all)
    };
    Ok([of("start", &ends.start)?, of("end", &ends.end)?])
}

//! A document as a tree of values that know where they stand.
//!
//! Invariants: the keys of a map are unique; depth and number of nodes are bounded by the reader that made the tree.
//! Absent on purpose: YAML. This is what is left when it has been read.

use serde_json::{Map, Number, Value};

/// Where a value stands: line and column from 1, length in characters (0: to the end of the line).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
    /// How many characters.
    pub length: u32,
}

/// A value with its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub span: Span,
}

impl<T> At<T> {
    /// Another value at the same place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), span: self.span }
    }
}

/// A node of the document.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number, finite.
    Real(f64),
    /// Text.
    Text {
        /// The text.
        text: String,
        /// The line on which its first line stands.
        first_line: u32,
    },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: At<String>,
    /// The value.
    pub value: Node,
}

impl Node {
    /// What it is, for messages.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Integer(_) | Kind::Real(_) => "a number",
            Kind::Text { .. } => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The value without its places.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Integer(value) => Value::from(*value),
            Kind::Real(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Kind::Text { text, .. } => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.value.clone(), entry.value.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The first node whose value differs from `other`, which another reader made of the same text.
    #[must_use]
    pub fn first_difference<'a>(&'a self, other: &Value) -> Option<&'a Self> {
        match (&self.kind, other) {
            (Kind::List(items), Value::Array(others)) if items.len() == others.len() => {
                items.iter().zip(others).find_map(|(item, other)| item.first_difference(other))
            }
            (Kind::Map(entries), Value::Object(others)) if entries.len() == others.len() => {
                entries.iter().find_map(|entry| match others.get(&entry.key.value) {
                    Some(other) => entry.value.first_difference(other),
                    None => Some(&entry.value),
                })
            }
            (Kind::Text { text, .. }, Value::String(other)) => (text != other).then_some(self),
            (Kind::List(_) | Kind::Map(_), _) => Some(self),
            _ => (self.to_json() != *other).then_some(self),
        }
    }
}

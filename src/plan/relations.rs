//! What the rows of both sides of a mapping are, and how those of one are known by those of the other: where a graph takes part, this
//! is more than names of columns that correspond by position.
//!
//! One reading serves both the rule that reports what is wrong and the compiler, so that they can't differ.

use crate::run::{End, Ends, Relation, RowKind, TargetName};
use crate::sql::cypher::plain_property;

use super::document::{EndDef, MappingDef, RelationDef, SideDef};
use super::into_graph;
use super::node::{At, Span};

/// What keeps two sides from being a mapping.
#[derive(Debug)]
pub struct Problem {
    /// Where.
    pub span: Span,
    /// A sentence.
    pub message: String,
    /// What to do.
    pub help: String,
}

pub(super) fn problem<T>(
    span: Span,
    message: impl Into<String>,
    help: impl Into<String>,
) -> Result<T, Problem> {
    Err(Problem { span, message: message.into(), help: help.into() })
}

/// Both sides of a mapping that is about a graph. `None` where a part could not be read, which was said.
pub fn of_graph(def: &MappingDef) -> Option<Result<(Relation, Relation), Problem>> {
    let (from, into) = (def.from.as_ref()?, def.into.as_ref()?);
    Some(match (&from.relation, &into.relation) {
        (RelationDef::Node(old), RelationDef::Node(new)) => nodes((from, old), (into, new)),
        (RelationDef::Relationship(old), RelationDef::Relationship(new)) => {
            relationships((from, old), (into, new))
        }
        (RelationDef::Table(table), RelationDef::Node(label)) => {
            into_graph::nodes((from, table), (into, label))
        }
        (RelationDef::Table(table), RelationDef::Relationship(kind)) => {
            into_graph::relationships((from, table), (into, kind))
        }
        _ => problem(
            into.span,
            "these two sides don't go together",
            "nodes become nodes, relationships become relationships, and rows of a table become either",
        ),
    })
}

pub(super) fn relation(
    side: &SideDef,
    name: &At<String>,
    key: Vec<String>,
    kind: RowKind,
) -> Relation {
    let target = TargetName::new(side.target.value.as_str());
    Relation { target, table: name.value.clone(), key, kind }
}

fn nodes(
    (from, old): (&SideDef, &At<String>),
    (into, new): (&SideDef, &At<String>),
) -> Result<(Relation, Relation), Problem> {
    if from.target.value == into.target.value && old.value == new.value {
        return problem(
            new.span,
            format!("both sides are the label `{}`", new.value),
            "copy into another label; what changes nodes in their place is a `cypher` step",
        );
    }
    let own = from.key.iter().flatten().map(|name| name.value.clone()).collect::<Vec<_>>();
    let theirs = match (&into.given, &into.key) {
        (Some(given), _) => given_by(into, given, &own)?,
        (None, Some(names)) => names.iter().map(|name| name.value.clone()).collect(),
        (None, None) => own.clone(),
    };
    if theirs.len() != own.len() {
        return problem(
            into.span,
            format!(
                "the key of `into` has {} properties, that of `from` has {}",
                theirs.len(),
                own.len()
            ),
            "a node is known by the same values on both sides",
        );
    }
    for (name, _) in &into.properties {
        if theirs.contains(&name.value) {
            return problem(
                name.span,
                format!("the key property `{}` can't be given by an expression", name.value),
                "keys are copied as they are: give it in `key`",
            );
        }
    }
    Ok((relation(from, old, own, RowKind::Node), relation(into, new, theirs, RowKind::Node)))
}

/// The properties of a key that is a map, in the order of the key that they take their values from.
fn given_by(
    into: &SideDef,
    given: &[(At<String>, At<String>)],
    own: &[String],
) -> Result<Vec<String>, Problem> {
    let mut theirs = vec![None; own.len()];
    for (name, value) in given {
        let read = plain_property(&value.value).filter(|(whose, _)| *whose == "source");
        let at = read.and_then(|(_, read)| own.iter().position(|key| *key == read));
        match at.and_then(|at| theirs.get_mut(at)) {
            Some(place) if place.is_none() => *place = Some(name.value.clone()),
            _ => {
                let keys: Vec<String> = own.iter().map(|key| format!("`{key}`")).collect();
                return problem(
                    value.span,
                    format!(
                        "`{}` isn't a key property of `from`, or stands twice",
                        value.value.trim()
                    ),
                    format!("keys are copied as they are: give each of {} once", keys.join(", ")),
                );
            }
        }
    }
    let complete: Option<Vec<String>> = theirs.into_iter().collect();
    complete.map_or_else(
        || {
            problem(
                into.span,
                "the key of `into` leaves out a key property of `from`",
                "give all of them",
            )
        },
        Ok,
    )
}

fn relationships(
    (from, old): (&SideDef, &At<String>),
    (into, new): (&SideDef, &At<String>),
) -> Result<(Relation, Relation), Problem> {
    if let Some(key) =
        [from, into].into_iter().find(|side| side.key.is_some() || side.given.is_some())
    {
        return problem(
            key.span,
            "a relationship that is copied from another has no key of its own",
            "it is known by its ends: remove `key`",
        );
    }
    let lacks = || problem(from.span, "a relationship lacks its ends", "add `start` and `end`");
    let (Some(own), Some(theirs)) = (&from.ends, &into.ends) else { return lacks() };
    let [start, end] = own;
    let sources = [old_end(start)?, old_end(end)?];
    let (first, first_of) = new_end(&theirs[0], "start", &sources)?;
    let (second, second_of) = new_end(&theirs[1], "end", &sources)?;
    if first_of == second_of {
        return problem(
            theirs[1].node.span,
            "both ends take their keys from the same node",
            "one is known by `start`, the other by `end`",
        );
    }
    let [old_start, old_end] = sources;
    let is_same = from.target.value == into.target.value
        && old.value == new.value
        && old_start.node == first.node
        && old_end.node == second.node;
    if is_same {
        return problem(
            new.span,
            "both sides are the same relationships",
            "give the new ones another type, or other nodes at their ends",
        );
    }
    let ends = |start, end| RowKind::Relationship(Box::new(Ends { start, end }));
    Ok((
        relation(from, old, Vec::new(), ends(old_start, old_end)),
        relation(into, new, Vec::new(), ends(first, second)),
    ))
}

fn old_end(def: &EndDef) -> Result<End, Problem> {
    let mut key = Vec::new();
    for (name, value) in &def.key {
        if let Some(value) = value {
            return problem(
                value.span,
                "an end of `from` is known by its own properties",
                format!("write `key: [{}]`", name.value),
            );
        }
        key.push((name.value.clone(), name.value.clone()));
    }
    Ok(End { node: def.node.value.clone(), key })
}

/// An end of a new relationship, and which end of the old one it is known by.
fn new_end(def: &EndDef, own: &'static str, sources: &[End; 2]) -> Result<(End, usize), Problem> {
    let mut key = Vec::new();
    let mut from = None;
    let mut left: Vec<&str> = Vec::new();
    for (name, value) in &def.key {
        let (text, span) = match value {
            Some(value) => (value.value.trim().to_owned(), value.span),
            None => (format!("{own}.{}", crate::sql::cypher::quoted(&name.value)), name.span),
        };
        let read = plain_property(&text);
        let of = read
            .as_ref()
            .and_then(|(whose, _)| ["start", "end"].iter().position(|end| end == whose));
        let (Some(of), Some((_, read))) = (of, read) else {
            return problem(
                span,
                format!("`{text}` isn't a key property of an end"),
                format!(
                    "write `{}: {own}.…` with a key property of that end of `from`",
                    name.value
                ),
            );
        };
        if *from.get_or_insert(of) != of {
            return problem(
                span,
                "one end takes its key from two nodes",
                "take all of it from one",
            );
        }
        if key.is_empty() {
            left = sources[of].key.iter().map(|(name, _)| name.as_str()).collect();
        }
        let Some(at) = left.iter().position(|name| *name == read) else {
            return problem(
                span,
                format!("`{text}` isn't a key property of that end of `from`, or stands twice"),
                "give each of its key properties once",
            );
        };
        left.remove(at);
        key.push((name.value.clone(), text));
    }
    match (from, left.as_slice()) {
        (Some(of), []) => Ok((End { node: def.node.value.clone(), key }, of)),
        _ => problem(
            def.node.span,
            "the key of this end leaves out a key property",
            "give all by which the node is known in `from`",
        ),
    }
}

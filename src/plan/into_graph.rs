//! Rows of a table that become nodes or relationships of a graph in another database.
//!
//! Expressions are SQL over a row of the table. What a row is known by is copied as it is: its key becomes the key of a node, of a
//! relationship, or, column by column, of the two nodes at the ends of a relationship. So each row has one place in the graph, and
//! a row that is deleted or has another key leaves nothing behind.

use crate::run::{End, Ends, Relation, RowKind};
use crate::sql::{self, Dialect};

use super::document::{EndDef, SideDef};
use super::node::{At, Span};
use super::relations::{Problem, problem, relation};

/// Whose SQL the expressions are: rows of no other database become parts of a graph.
const SPOKEN: Dialect = Dialect::Postgres;

/// What the engine's own properties begin with.
const OURS: &str = "phasegate_";

/// Rows that become nodes.
pub(super) fn nodes(
    (from, table): (&SideDef, &At<String>),
    (into, label): (&SideDef, &At<String>),
) -> Result<(Relation, Relation), Problem> {
    let own = columns(from);
    let theirs = key_of(into, &own)?.unwrap_or_else(|| own.clone());
    properties(into, &theirs)?;
    Ok((relation(from, table, own, RowKind::Table), relation(into, label, theirs, RowKind::Node)))
}

/// Rows that become relationships.
pub(super) fn relationships(
    (from, table): (&SideDef, &At<String>),
    (into, kind): (&SideDef, &At<String>),
) -> Result<(Relation, Relation), Problem> {
    let own = columns(from);
    let Some([start, end]) = &into.ends else {
        return problem(into.span, "the relationship lacks its ends", "add `start` and `end`");
    };
    let (key, ends) = match key_of(into, &own)? {
        Some(key) => {
            no_name_of_an_end(into, &key)?;
            (key, Ends { start: any_end(start)?, end: any_end(end)? })
        }
        None => (Vec::new(), by_its_ends((start, end), kind.span, &own)?),
    };
    properties(into, &key)?;
    Ok((
        relation(from, table, own, RowKind::Table),
        relation(into, kind, key, RowKind::Relationship(Box::new(ends))),
    ))
}

fn columns(from: &SideDef) -> Vec<String> {
    from.key.iter().flatten().map(|column| column.value.clone()).collect()
}

/// The properties of the new side's own key, in the order of the columns that they take their values from. None where it has no key.
fn key_of(into: &SideDef, own: &[String]) -> Result<Option<Vec<String>>, Problem> {
    let theirs = match (&into.given, &into.key) {
        (Some(given), _) => given_by(into, given, own)?,
        (None, Some(names)) => {
            for name in names {
                not_ours(name)?;
            }
            names.iter().map(|name| name.value.clone()).collect()
        }
        (None, None) => return Ok(None),
    };
    if theirs.len() != own.len() {
        return problem(
            into.span,
            format!(
                "the key of `into` has {}, that of `from` has {}",
                counted(theirs.len(), "property", "properties"),
                counted(own.len(), "column", "columns")
            ),
            "they correspond by position: name as many on both sides",
        );
    }
    Ok(Some(theirs))
}

fn counted(count: usize, one: &str, more: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

/// The properties of a key that is a map.
fn given_by(
    into: &SideDef,
    given: &[(At<String>, At<String>)],
    own: &[String],
) -> Result<Vec<String>, Problem> {
    let mut theirs = vec![None; own.len()];
    for (name, value) in given {
        not_ours(name)?;
        let at = key_column(own, &value.value);
        match at.and_then(|at| theirs.get_mut(at)) {
            Some(place) if place.is_none() => *place = Some(name.value.clone()),
            Some(_) => {
                return problem(
                    value.span,
                    format!("`{}` stands in the key twice", value.value.trim()),
                    "name each key column of `from` once",
                );
            }
            None => {
                return problem(
                    value.span,
                    format!("`{}` isn't a key column of `from`", value.value.trim()),
                    format!("keys are copied as they are: give each of {} once", listed(own)),
                );
            }
        }
    }
    let complete: Option<Vec<String>> = theirs.into_iter().collect();
    complete.map_or_else(
        || {
            problem(
                into.span,
                "the key of `into` leaves out a key column of `from`",
                format!("give each of {} once", listed(own)),
            )
        },
        Ok,
    )
}

/// Which key column an expression is plainly the value of. A name that is written as in `from` is meant, too, where SQL would fold it.
fn key_column(own: &[String], expression: &str) -> Option<usize> {
    let written = expression.trim();
    own.iter().position(|column| column == written).or_else(|| {
        let column = sql::plain_column(SPOKEN, written)?;
        own.iter().position(|own| *own == column)
    })
}

/// Names as people list them.
fn listed(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Properties that an expression gives: none of the key, and none of the engine's own.
fn properties(into: &SideDef, key: &[String]) -> Result<(), Problem> {
    for (name, _) in &into.properties {
        not_ours(name)?;
        if key.contains(&name.value) {
            return problem(
                name.span,
                format!("the key property `{}` can't be given by an expression", name.value),
                "keys are copied as they are: give it in `key`",
            );
        }
    }
    Ok(())
}

fn not_ours(name: &At<String>) -> Result<(), Problem> {
    if !name.value.starts_with(OURS) {
        return Ok(());
    }
    problem(
        name.span,
        format!("`{}` can't be a property of the plan's own", name.value),
        format!("names that begin with `{OURS}` are the engine's: choose another"),
    )
}

/// Rows of a relationship with a key of its own call a key property of an end `start.…` or `end.…`, beside its properties.
fn no_name_of_an_end(into: &SideDef, key: &[String]) -> Result<(), Problem> {
    let is_taken = |name: &str| name.starts_with("start.") || name.starts_with("end.");
    let property = into.properties.iter().map(|(name, _)| name).find(|it| is_taken(&it.value));
    let named = match (property, key.iter().find(|name| is_taken(name))) {
        (Some(property), _) => Some((property.span, property.value.as_str())),
        (None, Some(name)) => Some((into.span, name.as_str())),
        (None, None) => None,
    };
    let Some((span, name)) = named else { return Ok(()) };
    problem(
        span,
        format!("the property `{name}` can't be told from what an end is known by"),
        "choose a name that doesn't begin with `start.` or `end.`",
    )
}

/// An end of a relationship with a key of its own: what its node is known by may be any expressions.
fn any_end(def: &EndDef) -> Result<End, Problem> {
    let mut key: Vec<(String, String)> = Vec::new();
    for (name, value) in &def.key {
        once(&key, name)?;
        let expression = match value {
            Some(value) => value.value.trim().to_owned(),
            // In quotes it is a column, whatever word it is.
            None => sql::quote(SPOKEN, &name.value),
        };
        key.push((name.value.clone(), expression));
    }
    Ok(End { node: def.node.value.clone(), key })
}

fn once(key: &[(String, String)], name: &At<String>) -> Result<(), Problem> {
    not_ours(name)?;
    if key.iter().all(|(other, _)| *other != name.value) {
        return Ok(());
    }
    problem(name.span, format!("`{}` stands in the key twice", name.value), "name it once")
}

/// The ends of a relationship that is known by them: between them they have the key of its row, each column once.
fn by_its_ends(
    (start, end): (&EndDef, &EndDef),
    span: Span,
    own: &[String],
) -> Result<Ends, Problem> {
    const OWN_KEY: &str = "give the relationship a key of its own";
    let help = |example: &str| format!("{OWN_KEY}: `key: {example}` beside `start` and `end`");
    let example = match own {
        [only] => format!("{{ {only}: {only} }}"),
        _ => format!("[{}]", own.join(", ")),
    };
    let mut left: Vec<&String> = own.iter().collect();
    let mut of_end = |def: &EndDef| {
        let mut key: Vec<(String, String)> = Vec::new();
        for (name, value) in &def.key {
            once(&key, name)?;
            let written = value.as_ref().unwrap_or(name);
            let column = key_column(own, &written.value).map(|at| &own[at]);
            let Some(column) = column else {
                return problem(
                    written.span,
                    format!(
                        "`{}` isn't a key column of `from`, by which the relationship is known",
                        written.value.trim()
                    ),
                    format!(
                        "take the keys of the ends from {}, or {}",
                        listed(own),
                        help(&example)
                    ),
                );
            };
            let Some(at) = left.iter().position(|it| *it == column) else {
                return problem(
                    written.span,
                    format!("`{column}` is taken for the ends twice"),
                    format!("take each key column once, or {}", help(&example)),
                );
            };
            left.remove(at);
            key.push((name.value.clone(), column.clone()));
        }
        Ok(End { node: def.node.value.clone(), key })
    };
    let ends = Ends { start: of_end(start)?, end: of_end(end)? };
    if let Some(column) = left.first() {
        return problem(
            span,
            format!(
                "two rows that differ in `{column}` only would be one relationship: its ends don't have it"
            ),
            help(&example),
        );
    }
    Ok(ends)
}

//! CREATE. Nothing here changes a row that is there; what counts is what is made, what is locked meanwhile, and what code of
//! others runs.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::super::facts::{Change, Facts, LockMode, Object, RowWork};
use super::parse::{all_named, child, descendants, has, name, qualified};
use super::{is_unknown, lock, rows};

const LOOKED_UP: (LockMode, RowWork) = (LockMode::AccessShare, RowWork::None);

/// Reads a CREATE; false if it is something else.
pub(super) fn read(node: &SyntaxNode, facts: &mut Facts) -> bool {
    match node.kind() {
        SyntaxKind::CREATE_TABLE | SyntaxKind::CREATE_FOREIGN_TABLE => table(node, facts),
        SyntaxKind::CREATE_TABLE_AS => table_as(node, SyntaxKind::TABLE_NAME, facts),
        SyntaxKind::CREATE_MATERIALIZED_VIEW => table_as(node, SyntaxKind::VIEW, facts),
        SyntaxKind::CREATE_VIEW => view(node, facts),
        SyntaxKind::CREATE_INDEX => index(node, facts),
        SyntaxKind::CREATE_TRIGGER => trigger(node, facts),
        SyntaxKind::CREATE_RULE => rule(node, facts),
        SyntaxKind::CREATE_POLICY => {
            on_table(
                node,
                (LockMode::AccessExclusive, RowWork::None),
                "it decides who sees which rows",
                facts,
            );
        }
        SyntaxKind::CREATE_STATISTICS => {
            let held = (LockMode::ShareUpdateExclusive, RowWork::None);
            on_table(node, held, "the next ANALYZE gathers them", facts);
        }
        SyntaxKind::CREATE_SCHEMA => {
            let has_elements = node.children().any(|child| {
                !matches!(
                    child.kind(),
                    SyntaxKind::IF_NOT_EXISTS
                        | SyntaxKind::NAMED_SCHEMA
                        | SyntaxKind::AUTHORIZATION_SCHEMA
                )
            });
            if has_elements {
                is_unknown(facts, "what stands inside CREATE SCHEMA isn't read");
            }
        }
        SyntaxKind::CREATE_PUBLICATION => publication(node, facts),
        SyntaxKind::CREATE_EXTENSION => {
            is_unknown(facts, "it runs the extension's own script");
        }
        SyntaxKind::CREATE_EVENT_TRIGGER => {
            is_unknown(facts, "what the trigger does whenever a schema changes can't be told");
        }
        SyntaxKind::CREATE_SUBSCRIPTION => {
            facts.outside_transaction =
                Some("CREATE SUBSCRIPTION makes a slot on the other server".to_owned());
            is_unknown(facts, "what a subscription writes, and when, is decided on another server");
        }
        SyntaxKind::CREATE_DATABASE => {
            facts.outside_transaction = Some("CREATE DATABASE copies a whole database".to_owned());
        }
        SyntaxKind::CREATE_TABLESPACE => {
            facts.outside_transaction =
                Some("CREATE TABLESPACE makes a folder on the server".to_owned());
        }
        kind => return is_harmless(kind),
    }
    true
}

/// What only adds to the catalogue.
const fn is_harmless(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::CREATE_ACCESS_METHOD
            | SyntaxKind::CREATE_AGGREGATE
            | SyntaxKind::CREATE_CAST
            | SyntaxKind::CREATE_COLLATION
            | SyntaxKind::CREATE_CONVERSION
            | SyntaxKind::CREATE_DOMAIN
            | SyntaxKind::CREATE_FOREIGN_DATA_WRAPPER
            | SyntaxKind::CREATE_FUNCTION
            | SyntaxKind::CREATE_GROUP
            | SyntaxKind::CREATE_LANGUAGE
            | SyntaxKind::CREATE_OPERATOR
            | SyntaxKind::CREATE_OPERATOR_CLASS
            | SyntaxKind::CREATE_OPERATOR_FAMILY
            | SyntaxKind::CREATE_PROCEDURE
            | SyntaxKind::CREATE_ROLE
            | SyntaxKind::CREATE_SEQUENCE
            | SyntaxKind::CREATE_SERVER
            | SyntaxKind::CREATE_TEXT_SEARCH_CONFIGURATION
            | SyntaxKind::CREATE_TEXT_SEARCH_DICTIONARY
            | SyntaxKind::CREATE_TEXT_SEARCH_PARSER
            | SyntaxKind::CREATE_TEXT_SEARCH_TEMPLATE
            | SyntaxKind::CREATE_TRANSFORM
            | SyntaxKind::CREATE_TYPE
            | SyntaxKind::CREATE_USER
            | SyntaxKind::CREATE_USER_MAPPING
    )
}

/// Enters what is made where it belongs: a temporary thing nowhere, and what may have been there under `ensures`.
fn made(node: &SyntaxNode, kind: SyntaxKind, facts: &mut Facts) -> Option<String> {
    let name = child(node, kind).and_then(|name| qualified(&name))?;
    facts.mention(name.clone());
    let is_temporary = has(node, SyntaxKind::TEMP) || name.starts_with("pg_temp.");
    let may_exist = has(node, SyntaxKind::IF_NOT_EXISTS) || has(node, SyntaxKind::OR_REPLACE);
    if !is_temporary {
        let list = if may_exist { &mut facts.ensures } else { &mut facts.creates };
        list.push(Object::table(name.clone()));
    }
    Some(name)
}

fn table(node: &SyntaxNode, facts: &mut Facts) {
    let Some(table) = made(node, SyntaxKind::TABLE_NAME, facts) else {
        return is_unknown(facts, "what it makes can't be told");
    };
    for like in descendants(node, SyntaxKind::LIKE_CLAUSE).filter_map(|like| qualified(&like)) {
        lock(facts, &like, LOOKED_UP, "its shape is copied");
    }
    for parents in descendants(node, SyntaxKind::INHERITS) {
        for parent in all_named(&parents, SyntaxKind::TABLE_NAME_REF) {
            let held = (LockMode::ShareUpdateExclusive, RowWork::None);
            lock(facts, &parent, held, "it gets a child table");
            facts.changes.push(Change::Attach { table: parent, part: table.clone() });
        }
    }
    if let Some(parent) = child(node, SyntaxKind::PARTITION_OF).and_then(|part| qualified(&part)) {
        let held = (LockMode::AccessExclusive, RowWork::None);
        lock(
            facts,
            &parent,
            held,
            "it gets a partition; make the table by itself and ATTACH it for a weaker lock",
        );
        facts.changes.push(Change::Attach { table: parent, part: table.clone() });
        // Its bounds are worked out now, unlike what a definition says of rows to come.
        let bounds = node.children().filter(|child| {
            matches!(
                child.kind(),
                SyntaxKind::PARTITION_FOR_VALUES_FROM | SyntaxKind::PARTITION_FOR_VALUES_IN
            )
        });
        bounds.for_each(|bounds| rows::calls(&bounds, facts));
    }
    referenced(node, &table, RowWork::None, facts);
}

/// The tables that foreign keys in a definition point to, and whether rows are looked up in them now.
pub(super) fn referenced(node: &SyntaxNode, own: &str, work: RowWork, facts: &mut Facts) {
    let keys = node.descendants().filter(|node| {
        matches!(
            node.kind(),
            SyntaxKind::REFERENCES_CONSTRAINT | SyntaxKind::FOREIGN_KEY_CONSTRAINT
        )
    });
    for other in keys.filter_map(|key| child(&key, SyntaxKind::TABLE_NAME_REF)) {
        let Some(other) = qualified(&other).filter(|other| other != own) else { continue };
        let held = (LockMode::ShareRowExclusive, work);
        lock(facts, &other, held, "it gets the triggers of a foreign key");
    }
}

fn table_as(node: &SyntaxNode, kind: SyntaxKind, facts: &mut Facts) {
    if made(node, kind, facts).is_none() {
        return is_unknown(facts, "what it makes can't be told");
    }
    if has(node, SyntaxKind::EXECUTE) {
        is_unknown(facts, "what a prepared statement does can't be told");
    }
    if has(node, SyntaxKind::WITH_NO_DATA) {
        rows::mention(node, facts);
    } else {
        rows::read(node, facts);
    }
}

fn view(node: &SyntaxNode, facts: &mut Facts) {
    let Some(view) = made(node, SyntaxKind::VIEW, facts) else {
        return is_unknown(facts, "what it makes can't be told");
    };
    rows::mention(node, facts);
    if has(node, SyntaxKind::OR_REPLACE) {
        let held = (LockMode::AccessExclusive, RowWork::None);
        lock(facts, &view, held, "its definition is replaced");
    }
}

fn index(node: &SyntaxNode, facts: &mut Facts) {
    let Some(table) =
        child(node, SyntaxKind::TABLE_RELATION_NAME).and_then(|table| qualified(&table))
    else {
        return is_unknown(facts, "what it indexes can't be told");
    };
    rows::calls(node, facts);
    if has(node, SyntaxKind::CONCURRENTLY_KW) {
        facts.outside_transaction =
            Some("CREATE INDEX CONCURRENTLY works in several transactions of its own".to_owned());
        let held = (LockMode::ShareUpdateExclusive, RowWork::IndexBuild);
        lock(facts, &table, held, "the index is built beside reads and writes");
    } else {
        let held = (LockMode::Share, RowWork::IndexBuild);
        lock(facts, &table, held, "the index is built from every row");
    }
}

fn trigger(node: &SyntaxNode, facts: &mut Facts) {
    const KNOWN: [&str; 3] = [
        "suppress_redundant_updates_trigger",
        "tsvector_update_trigger",
        "tsvector_update_trigger_column",
    ];
    let table = child(node, SyntaxKind::ON_RELATION).and_then(|on| qualified(&on));
    let trigger = child(node, SyntaxKind::TRIGGER).map(|trigger| name(&trigger));
    let (Some(table), Some(trigger)) = (table, trigger) else {
        return is_unknown(facts, "what triggers it can't be told");
    };
    let held = (LockMode::ShareRowExclusive, RowWork::None);
    lock(facts, &table, held, "it gets a trigger");
    if let Some(other) = child(node, SyntaxKind::FROM_TABLE).and_then(|from| qualified(&from)) {
        lock(facts, &other, held, "the constraint refers to it");
    }
    let function = node
        .children()
        .filter(|child| child.kind() == SyntaxKind::CALL_EXPR)
        .last()
        .and_then(|call| rows::called(&call).next())
        .unwrap_or_default();
    if !KNOWN.contains(&function.as_str()) {
        is_unknown(
            facts,
            format!(
                "whenever the trigger fires it calls {function}(), and what that does can't be told"
            ),
        );
    }
    facts.changes.push(Change::CreateTrigger { table, trigger });
}

fn rule(node: &SyntaxNode, facts: &mut Facts) {
    if let Some(table) = child(node, SyntaxKind::RULE_ON).and_then(|on| qualified(&on)) {
        let held = (LockMode::AccessExclusive, RowWork::None);
        lock(facts, &table, held, "statements on it are rewritten from then on");
    }
    is_unknown(facts, "a rule makes other statements of those on its table");
}

/// What is said ON or FROM one table.
fn on_table(node: &SyntaxNode, held: (LockMode, RowWork), reason: &str, facts: &mut Facts) {
    let table = node.children().find_map(|child| {
        matches!(
            child.kind(),
            SyntaxKind::ON_TABLE | SyntaxKind::ON_RELATION | SyntaxKind::FROM_TABLE
        )
        .then(|| qualified(&child))
        .flatten()
    });
    match table {
        Some(table) => lock(facts, &table, held, reason),
        None => is_unknown(facts, "the table can't be told"),
    }
}

fn publication(node: &SyntaxNode, facts: &mut Facts) {
    for table in
        descendants(node, SyntaxKind::PUBLICATION_OBJECT_TABLE).filter_map(|t| qualified(&t))
    {
        let held = (LockMode::ShareUpdateExclusive, RowWork::None);
        lock(facts, &table, held, "its changes are published from then on");
    }
}

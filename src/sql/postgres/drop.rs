//! DROP and TRUNCATE.
//!
//! Decisions:
//! - What can be made again from its text is harmless to drop: indexes, functions, triggers, policies, statistics. A trigger
//!   that goes is a [`Change`], for whoever needs it.
//! - CASCADE drops what the text doesn't name, and always destroys.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::super::facts::{Change, Facts, LockMode, Object, RowWork};
use super::parse::{all_named, child, descendants, has, name, qualified};
use super::{cascades, destroys, is_unknown, lock};

const GONE: (LockMode, RowWork) = (LockMode::AccessExclusive, RowWork::None);

/// Reads a DROP or TRUNCATE; false if it is something else.
pub(super) fn read(node: &SyntaxNode, facts: &mut Facts) -> bool {
    match node.kind() {
        SyntaxKind::DROP_TABLE | SyntaxKind::DROP_FOREIGN_TABLE => {
            relations(node, (SyntaxKind::TABLE_NAME_REF, "table"), facts);
        }
        SyntaxKind::DROP_VIEW | SyntaxKind::DROP_MATERIALIZED_VIEW => {
            relations(node, (SyntaxKind::VIEW_REF, "view"), facts);
        }
        SyntaxKind::TRUNCATE => truncate(node, facts),
        SyntaxKind::DROP_SCHEMA => {
            for schema in node.children().filter(|child| child.kind() == SyntaxKind::SCHEMA_REF) {
                let schema = name(&schema);
                destroys(facts, format!("it drops schema {schema}"));
                facts.changes.push(Change::Schema { schema });
            }
        }
        SyntaxKind::DROP_SEQUENCE => named(node, (SyntaxKind::SEQUENCE_REF, "sequence"), facts),
        SyntaxKind::DROP_TYPE => destroys(facts, "it drops a type"),
        SyntaxKind::DROP_DOMAIN => named(node, (SyntaxKind::DOMAIN_REF, "domain"), facts),
        SyntaxKind::DROP_EXTENSION => {
            destroys(facts, "it drops an extension with all that belongs to it");
        }
        SyntaxKind::DROP_DATABASE => {
            facts.outside_transaction = Some("DROP DATABASE removes a whole database".to_owned());
            destroys(facts, "it drops a database");
        }
        SyntaxKind::DROP_TABLESPACE => {
            facts.outside_transaction =
                Some("DROP TABLESPACE removes a folder of the server".to_owned());
            is_unknown(facts, "what is kept in the tablespace can't be told");
        }
        SyntaxKind::DROP_OWNED => destroys(facts, "it drops all that a role owns"),
        SyntaxKind::DROP_SUBSCRIPTION => {
            facts.outside_transaction =
                Some("DROP SUBSCRIPTION drops a slot on the other server".to_owned());
            is_unknown(facts, "what else follows the subscription can't be told");
        }
        SyntaxKind::DROP_INDEX => {
            if has(node, SyntaxKind::CONCURRENTLY_KW) {
                facts.outside_transaction = Some(
                    "DROP INDEX CONCURRENTLY works in several transactions of its own".to_owned(),
                );
            }
        }
        SyntaxKind::DROP_TRIGGER => trigger(node, facts),
        SyntaxKind::DROP_POLICY | SyntaxKind::DROP_RULE => {
            let on = node.children().find(|child| {
                matches!(child.kind(), SyntaxKind::ON_TABLE | SyntaxKind::ON_RELATION)
            });
            match on.and_then(|on| qualified(&on)) {
                Some(table) => lock(facts, &table, GONE, "what holds for its rows changes"),
                None => is_unknown(facts, "the table can't be told"),
            }
        }
        kind if is_harmless(kind) => {}
        _ => return false,
    }
    cascades(facts, node);
    true
}

/// What can be made again from its text, and holds no rows.
const fn is_harmless(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::DROP_AGGREGATE
            | SyntaxKind::DROP_CAST
            | SyntaxKind::DROP_COLLATION
            | SyntaxKind::DROP_CONVERSION
            | SyntaxKind::DROP_EVENT_TRIGGER
            | SyntaxKind::DROP_FUNCTION
            | SyntaxKind::DROP_LANGUAGE
            | SyntaxKind::DROP_OPERATOR
            | SyntaxKind::DROP_OPERATOR_CLASS
            | SyntaxKind::DROP_OPERATOR_FAMILY
            | SyntaxKind::DROP_PROCEDURE
            | SyntaxKind::DROP_PUBLICATION
            | SyntaxKind::DROP_ROUTINE
            | SyntaxKind::DROP_STATISTICS
            | SyntaxKind::DROP_TEXT_SEARCH_CONFIG
            | SyntaxKind::DROP_TEXT_SEARCH_DICT
            | SyntaxKind::DROP_TEXT_SEARCH_PARSER
            | SyntaxKind::DROP_TEXT_SEARCH_TEMPLATE
            | SyntaxKind::DROP_TRANSFORM
    )
}

fn relations(node: &SyntaxNode, (kind, word): (SyntaxKind, &str), facts: &mut Facts) {
    for table in all_named(node, kind) {
        lock(facts, &table, GONE, "it goes");
        destroys(facts, format!("it drops {word} {table}"));
        facts.drops.push(Object::table(table.clone()));
        if word == "table" {
            facts.changes.push(Change::DropTable { table });
        }
    }
    if facts.drops.is_empty() {
        destroys(facts, format!("it drops a {word}"));
    }
}

fn named(node: &SyntaxNode, (kind, word): (SyntaxKind, &str), facts: &mut Facts) {
    let names = all_named(node, kind).join(", ");
    destroys(facts, format!("it drops {word} {names}"));
}

fn truncate(node: &SyntaxNode, facts: &mut Facts) {
    for table in
        descendants(node, SyntaxKind::TABLE_RELATION_NAME).filter_map(|table| qualified(&table))
    {
        lock(facts, &table, GONE, "its file is replaced by an empty one");
        destroys(facts, format!("it deletes all rows of {table}"));
        facts.changes.push(Change::Truncate { table });
    }
    if facts.changes.is_empty() {
        destroys(facts, "it deletes all rows of a table");
    }
}

fn trigger(node: &SyntaxNode, facts: &mut Facts) {
    let table = child(node, SyntaxKind::ON_RELATION).and_then(|on| qualified(&on));
    let trigger = child(node, SyntaxKind::TRIGGER_REF).map(|trigger| name(&trigger));
    if let Some(table) = &table {
        lock(facts, table, GONE, "the trigger goes");
    }
    facts.changes.push(Change::DropTrigger { table, trigger: trigger.unwrap_or_default() });
}

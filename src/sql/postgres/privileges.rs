//! Who owns what and may do what, and what is said of objects. Nothing of it touches a row.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::super::facts::{Facts, LockMode, RowWork};
use super::lock;
use super::parse::{descendants, parts, qualified, unschemed};

/// Reads one of them; false if it is something else.
pub(super) fn read(node: &SyntaxNode, facts: &mut Facts) -> bool {
    match node.kind() {
        SyntaxKind::GRANT | SyntaxKind::REVOKE => {
            let objects = node.descendants().filter(|node| {
                matches!(node.kind(), SyntaxKind::PRIVILEGE_TABLE | SyntaxKind::PRIVILEGE_DEFAULT)
            });
            for object in objects {
                for table in descendants(&object, SyntaxKind::RELATION_NAME_REF) {
                    if let Some(table) = qualified(&table) {
                        facts.mention(table);
                    }
                }
            }
        }
        SyntaxKind::COMMENT_ON => comment(node, facts),
        _ => return false,
    }
    true
}

fn comment(node: &SyntaxNode, facts: &mut Facts) {
    let Some(object) = node.first_child() else { return };
    let table = match object.kind() {
        SyntaxKind::OBJECT_TABLE
        | SyntaxKind::OBJECT_VIEW
        | SyntaxKind::OBJECT_MATERIALIZED_VIEW => qualified(&object),
        SyntaxKind::OBJECT_COLUMN => parts(&object).and_then(|mut parts| {
            parts.pop();
            let table = parts.pop()?;
            let schema = parts.pop();
            Some(unschemed(schema.as_deref(), &table))
        }),
        _ => None,
    };
    if let Some(table) = table {
        let held = (LockMode::ShareUpdateExclusive, RowWork::None);
        lock(facts, &table, held, "only the catalogue changes");
    }
}

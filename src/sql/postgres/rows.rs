//! SELECT, INSERT, UPDATE, DELETE and MERGE, wherever they stand: `WITH x AS (DELETE …) SELECT …` deletes.
//!
//! Decisions:
//! - `INSERT … ON CONFLICT DO UPDATE` is an UPDATE of the columns it sets, and so is `MERGE … THEN UPDATE`.
//! - `SELECT … INTO` makes a table, and fails where there is one.
//! - An INSERT is harmless; a trigger or rule that it fires is the database's, and not in the text.
//! - How many rows a condition finds can't be told, so the work of an UPDATE or DELETE with one is unknown.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::super::facts::{Facts, LockMode, Object, RowWork};
use super::parse::{child, has, name, parts, qualified};
use super::{destroys, functions, is_unknown, lock};

const READS: (LockMode, RowWork) = (LockMode::AccessShare, RowWork::Scan);

/// What a statement over rows does, and every statement inside it.
pub(super) fn read(statement: &SyntaxNode, facts: &mut Facts) {
    let hidden = common_tables(statement);
    for node in statement.descendants() {
        match node.kind() {
            SyntaxKind::INSERT => insert(&node, facts),
            SyntaxKind::UPDATE => update(&node, facts),
            SyntaxKind::DELETE => delete(&node, facts),
            SyntaxKind::MERGE => merge(&node, facts),
            SyntaxKind::INTO_CLAUSE => into(&node, facts),
            SyntaxKind::LOCKING_CLAUSE => locking(&node, &hidden, facts),
            _ => {}
        }
    }
    for table in sources(statement, &hidden) {
        lock(facts, &table, READS, "it may read every row");
    }
    calls(statement, facts);
}

/// Names the tables of a query that isn't run yet, as that of a view.
pub(super) fn mention(query: &SyntaxNode, facts: &mut Facts) {
    for table in sources(query, &common_tables(query)) {
        lock(
            facts,
            &table,
            (LockMode::AccessShare, RowWork::None),
            "it is looked up in the catalogue",
        );
    }
}

/// Looks for calls of functions, and of operators by their schema, that aren't known.
pub(super) fn calls(node: &SyntaxNode, facts: &mut Facts) {
    for function in called(node) {
        if !functions::is_known(&function) {
            is_unknown(facts, format!("what function {function}() does can't be told"));
        }
    }
    let operators = node.descendants().filter(|node| node.kind() == SyntaxKind::OPERATOR_CALL);
    for schema in operators.filter_map(|operator| parts(&operator)?.into_iter().next()) {
        if schema != "pg_catalog" {
            is_unknown(facts, format!("what an operator of schema {schema} does can't be told"));
        }
    }
}

/// The functions that a tree calls, without `pg_catalog`.
pub(super) fn called(node: &SyntaxNode) -> impl Iterator<Item = String> + use<> {
    node.descendants().filter(|node| node.kind() == SyntaxKind::CALL_EXPR).filter_map(|call| {
        let callee = call.first_child()?;
        match callee.kind() {
            SyntaxKind::NAME_REF => Some(name(&callee)),
            SyntaxKind::FIELD_EXPR => {
                let names = callee.descendants().filter(|node| node.kind() == SyntaxKind::NAME_REF);
                let names: Vec<String> = names.map(|node| name(&node)).collect();
                let names = names.join(".");
                Some(names.strip_prefix("pg_catalog.").map_or(names.clone(), ToOwned::to_owned))
            }
            // Those that the grammar knows by words of their own, such as EXTRACT.
            _ => None,
        }
    })
}

fn common_tables(statement: &SyntaxNode) -> Vec<String> {
    let names = statement.descendants().filter(|node| node.kind() == SyntaxKind::CTE_NAME);
    names.map(|node| name(&node)).collect()
}

/// The tables and views that are read, those of WITH left out.
fn sources(statement: &SyntaxNode, hidden: &[String]) -> Vec<String> {
    let items = statement
        .descendants()
        .filter(|node| matches!(node.kind(), SyntaxKind::RELATION_FROM_ITEM | SyntaxKind::TABLE));
    let names = items.filter_map(|item| {
        let reference = item.children().find(|child| {
            matches!(child.kind(), SyntaxKind::RELATION_NAME_REF | SyntaxKind::RELATION_NAME)
        })?;
        qualified(&reference)
    });
    names.filter(|name| !hidden.contains(name)).collect()
}

fn target(node: &SyntaxNode) -> Option<String> {
    let reference = node.children().find(|child| {
        matches!(
            child.kind(),
            SyntaxKind::RELATION_NAME_REF
                | SyntaxKind::RELATION_NAME
                | SyntaxKind::TABLE_RELATION_NAME
        )
    })?;
    qualified(&reference)
}

fn writes(facts: &mut Facts, table: &str, work: RowWork, reason: &str) {
    lock(facts, table, (LockMode::RowExclusive, work), reason);
    let bare = table.strip_prefix("pg_catalog.").unwrap_or(table);
    if bare.starts_with("pg_") {
        is_unknown(facts, format!("it writes into {table}, which is PostgreSQL's own"));
    }
}

fn insert(node: &SyntaxNode, facts: &mut Facts) {
    let Some(table) = target(node) else {
        return is_unknown(facts, "it inserts into what is no table");
    };
    let conflict = child(node, SyntaxKind::ON_CONFLICT_CLAUSE);
    let update = conflict.and_then(|clause| child(&clause, SyntaxKind::CONFLICT_DO_UPDATE_SET));
    match update.and_then(|update| child(&update, SyntaxKind::SET_CLAUSE)) {
        Some(set) => {
            writes(
                facts,
                &table,
                RowWork::Unknown,
                "it adds rows, and writes over those in their way",
            );
            overwrite(facts, &table, &set);
        }
        None => writes(facts, &table, RowWork::None, "it adds rows"),
    }
}

fn update(node: &SyntaxNode, facts: &mut Facts) {
    let (Some(table), Some(set)) = (target(node), child(node, SyntaxKind::SET_CLAUSE)) else {
        return destroys(facts, "it updates rows");
    };
    if has_condition(node) {
        writes(facts, &table, RowWork::Unknown, "it writes as many rows as its condition finds");
    } else {
        writes(facts, &table, RowWork::Rewrite, "it writes every row");
    }
    overwrite(facts, &table, &set);
}

fn delete(node: &SyntaxNode, facts: &mut Facts) {
    let Some(table) = target(node) else {
        return destroys(facts, "it deletes rows");
    };
    if has_condition(node) {
        writes(facts, &table, RowWork::Unknown, "it deletes as many rows as its condition finds");
    } else {
        writes(facts, &table, RowWork::Scan, "it goes through every row");
    }
    destroys(facts, format!("it deletes rows of {table}"));
}

fn has_condition(node: &SyntaxNode) -> bool {
    has(node, SyntaxKind::WHERE_CLAUSE) || has(node, SyntaxKind::WHERE_CURRENT_OF)
}

fn merge(node: &SyntaxNode, facts: &mut Facts) {
    let Some(table) = target(node) else {
        return destroys(facts, "it merges rows");
    };
    writes(facts, &table, RowWork::Unknown, "it writes as many rows as its condition finds");
    for part in node.descendants() {
        match part.kind() {
            SyntaxKind::MERGE_DELETE => destroys(facts, format!("it deletes rows of {table}")),
            SyntaxKind::MERGE_UPDATE => match child(&part, SyntaxKind::SET_CLAUSE) {
                Some(set) => overwrite(facts, &table, &set),
                None => destroys(facts, format!("it updates rows of {table}")),
            },
            _ => {}
        }
    }
}

/// Notes the columns that a SET clause writes over.
fn overwrite(facts: &mut Facts, table: &str, set: &SyntaxNode) {
    let targets = set.descendants().filter(|node| node.kind() == SyntaxKind::COLUMN_TARGET);
    let columns: Vec<String> = targets
        .filter_map(|target| child(&target, SyntaxKind::COLUMN_NAME_REF))
        .map(|column| name(&column))
        .collect();
    if columns.is_empty() {
        destroys(facts, format!("it updates rows of {table}"));
    } else {
        facts.overwrite(table, columns);
    }
}

fn into(node: &SyntaxNode, facts: &mut Facts) {
    let Some(table) = child(node, SyntaxKind::TABLE_NAME).and_then(|name| qualified(&name)) else {
        return is_unknown(facts, "what it selects into can't be told");
    };
    facts.mention(table.clone());
    if !has(node, SyntaxKind::TEMP) {
        facts.creates.push(Object::table(table));
    }
}

/// `FOR UPDATE` and its kin lock all tables of their SELECT, or those that OF names by whatever alias they have.
fn locking(clause: &SyntaxNode, hidden: &[String], facts: &mut Facts) {
    let Some(select) = clause.parent() else { return };
    for table in sources(&select, hidden) {
        let held = (LockMode::RowShare, RowWork::Scan);
        lock(facts, &table, held, "it locks the rows that it finds");
    }
}

//! Columns: what adding one does to the rows that are there, what changing one does, and which of them an expression reads.

use std::collections::BTreeSet;

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::super::facts::{Change, Facts, LockMode, Object, RowWork};
use super::parse::{self, child, descendants, has, name};
use super::types::{self, column};
use super::{create, functions, is_unknown, lock, rows};

/// `ADD COLUMN`.
pub(super) fn add(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    let Some(column) = column(part, SyntaxKind::COLUMN_NAME) else {
        return is_unknown(facts, format!("what column {table} gets can't be told"));
    };
    let object = Object::column(table, column);
    if has(part, SyntaxKind::IF_NOT_EXISTS) {
        facts.ensures.push(object);
    } else {
        facts.creates.push(object);
    }
    for (work, reason) in added_work(part) {
        lock(facts, table, (LockMode::AccessExclusive, work), reason);
    }
    rows::calls(part, facts);
    let work = if looks_up_default(part) { RowWork::Scan } else { RowWork::None };
    create::referenced(part, table, work, facts);
}

/// Whether the rows that are there get a value that has to be in another table. Without a default they get NULL.
fn looks_up_default(part: &SyntaxNode) -> bool {
    let default = child(part, SyntaxKind::DEFAULT_CONSTRAINT);
    has(part, SyntaxKind::REFERENCES_CONSTRAINT)
        && default.is_some_and(|default| !is_null(&default))
}

/// What each part of a new column's definition does to the rows.
fn added_work(part: &SyntaxNode) -> Vec<(RowWork, &'static str)> {
    let mut work =
        vec![(RowWork::None, "only the catalogue changes: rows get the column when they are read")];
    let kind = types::written(part);
    if kind.as_ref().is_some_and(types::is_serial) {
        work.push((RowWork::Rewrite, "every row gets a number of its own"));
    }
    let (mut has_default, mut is_required) = (false, false);
    for constraint in part.children() {
        match constraint.kind() {
            SyntaxKind::DEFAULT_CONSTRAINT => {
                has_default |= !is_null(&constraint);
                let called: Vec<String> = rows::called(&constraint).collect();
                if called.iter().any(|function| functions::is_volatile(function)) {
                    work.push((
                        RowWork::Rewrite,
                        "the default is volatile: it is worked out and written for each row",
                    ));
                } else if !called.iter().all(|function| functions::is_known(function)) {
                    work.push((RowWork::Unknown, "every row is written if the default's function is volatile, and none otherwise"));
                }
            }
            SyntaxKind::GENERATED_CONSTRAINT
                if descendants(&constraint, SyntaxKind::VIRTUAL).next().is_none() =>
            {
                work.push((RowWork::Rewrite, "its value is worked out and written for each row"));
            }
            SyntaxKind::NOT_NULL_CONSTRAINT => is_required = true,
            SyntaxKind::CHECK_CONSTRAINT => work.push((RowWork::Scan, "every row is checked")),
            SyntaxKind::UNIQUE_CONSTRAINT | SyntaxKind::PRIMARY_KEY_CONSTRAINT => {
                work.push((RowWork::IndexBuild, "its index is built"));
            }
            _ => {}
        }
    }
    if is_required && !has_default {
        work.push((RowWork::Scan, "every row is checked, and has no value to pass with"));
    }
    if looks_up_default(part) {
        work.push((RowWork::Scan, "the default of every row is looked up in the other table"));
    }
    if kind.is_some_and(|kind| !types::is_built_in(&kind)) {
        work.push((
            RowWork::Unknown,
            "every row is written if the type is a domain with constraints, and none otherwise",
        ));
    }
    work
}

fn is_null(default: &SyntaxNode) -> bool {
    child(default, SyntaxKind::LITERAL).is_some_and(|value| has(&value, SyntaxKind::NULL_KW))
}

/// `ALTER COLUMN`.
pub(super) fn alter(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    let (Some(column), Some(option)) =
        (column(part, SyntaxKind::COLUMN_NAME_REF), part.last_child())
    else {
        return is_unknown(facts, format!("what happens to a column of {table} can't be told"));
    };
    let mut hold = |mode, work, reason: &str| lock(facts, table, (mode, work), reason);
    match option.kind() {
        SyntaxKind::SET_TYPE => change_type(&option, table, column, facts),
        SyntaxKind::SET_NOT_NULL => hold(
            LockMode::AccessExclusive,
            RowWork::Scan,
            "every row is checked, unless a valid CHECK says already that none is NULL",
        ),
        SyntaxKind::SET_STATISTICS | SyntaxKind::SET_OPTIONS | SyntaxKind::RESET_OPTIONS => {
            hold(LockMode::ShareUpdateExclusive, RowWork::None, "the next ANALYZE goes by it");
        }
        SyntaxKind::SET_EXPRESSION => {
            hold(
                LockMode::AccessExclusive,
                RowWork::Rewrite,
                "its value is worked out and written for each row",
            );
            let what = format!("it writes over {table}.{column}");
            facts.write_over(vec![Object::column(table, column)], what);
            rows::calls(&option, facts);
        }
        SyntaxKind::SET_DEFAULT
        | SyntaxKind::DROP_DEFAULT
        | SyntaxKind::DROP_NOT_NULL
        | SyntaxKind::DROP_IDENTITY
        | SyntaxKind::DROP_EXPRESSION
        | SyntaxKind::ADD_GENERATED
        | SyntaxKind::SET_GENERATED
        | SyntaxKind::SET_GENERATED_OPTIONS
        | SyntaxKind::SET_SEQUENCE_OPTION
        | SyntaxKind::RESTART
        | SyntaxKind::SET_STORAGE
        | SyntaxKind::SET_COMPRESSION => {
            hold(LockMode::AccessExclusive, RowWork::None, "only the catalogue changes");
        }
        _ => {
            hold(
                LockMode::AccessExclusive,
                RowWork::Unknown,
                "what it does to the rows can't be told",
            );
            is_unknown(facts, format!("what happens to {table}.{column} can't be told"));
        }
    }
}

fn change_type(option: &SyntaxNode, table: &str, column: String, facts: &mut Facts) {
    let (work, reason) = types::change_work(option);
    lock(facts, table, (LockMode::AccessExclusive, work), reason);
    rows::calls(option, facts);
    let object = Object::column(table, column.clone());
    let using = has(option, SyntaxKind::USING_EXPR);
    let widens = !using && types::written(option).is_some_and(|kind| types::is_text(&kind));
    if !widens {
        let what = format!(
            "it changes the type of {object}, and the text doesn't prove that every value fits"
        );
        facts.write_over(vec![object], what);
    }
    facts.changes.push(Change::ChangeType { table: table.to_owned(), column });
}

/// The columns that an expression over one row reads, as the catalogue spells them.
pub(in crate::sql) fn column_refs(expression: &str) -> Result<BTreeSet<String>, String> {
    let tree = parse::expression(expression)
        .map_err(|reason| format!("it is not an expression: {reason}"))?;
    let mut found = BTreeSet::new();
    for node in tree.descendants() {
        match node.kind() {
            SyntaxKind::SELECT
            | SyntaxKind::COMPOUND_SELECT
            | SyntaxKind::VALUES
            | SyntaxKind::TABLE
            | SyntaxKind::FROM_CLAUSE
            | SyntaxKind::PAREN_SELECT => {
                return Err(
                    "it reads other rows: a subquery is no expression over one row".to_owned()
                );
            }
            SyntaxKind::OVER_CLAUSE | SyntaxKind::FILTER_CLAUSE | SyntaxKind::WITHIN_CLAUSE => {
                return Err("it is taken over many rows; an expression here sees one".to_owned());
            }
            SyntaxKind::LITERAL if has(&node, SyntaxKind::POSITIONAL_PARAM) => {
                return Err(format!("{} is a parameter, which nothing gives a value", node.text()));
            }
            SyntaxKind::CALL_EXPR => judge(&node)?,
            SyntaxKind::FIELD_EXPR if !is_callee(&node) => field(&node)?,
            SyntaxKind::NAME_REF if !is_callee(&node) && !is_part_of_callee(&node) => {
                let name = name(&node);
                if is_moment(&node) {
                    return Err(unsteady(&name));
                }
                found.insert(name);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Whether an expression calls nothing but functions of the server's own that are known here, so that its value depends on
/// nothing but the columns that it names.
pub(in crate::sql) fn calls_known_only(expression: &str) -> bool {
    let Ok(tree) = parse::expression(expression) else { return false };
    tree.descendants().filter(|node| node.kind() == SyntaxKind::CALL_EXPR).all(|call| {
        // What isn't called by a name is the server's own syntax.
        let by_name =
            |it: &SyntaxNode| matches!(it.kind(), SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR);
        let Some(callee) = call.first_child().filter(by_name) else { return true };
        let names: Vec<String> =
            descendants(&callee, SyntaxKind::NAME_REF).map(|part| name(&part)).collect();
        match names.as_slice() {
            [function] => functions::is_known(function),
            [schema, function] => schema == "pg_catalog" && functions::is_known(function),
            _ => false,
        }
    })
}

fn judge(call: &SyntaxNode) -> Result<(), String> {
    let arguments = descendants(call, SyntaxKind::ARG).count();
    let Some(callee) = call.first_child() else { return Ok(()) };
    let names: Vec<String> =
        descendants(&callee, SyntaxKind::NAME_REF).map(|part| name(&part)).collect();
    let is_named = matches!(callee.kind(), SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR);
    let Some(function) = names.last().filter(|_| is_named) else { return Ok(()) };
    if functions::is_over_rows(function) {
        return Err(format!("{function}() is taken over many rows; an expression here sees one"));
    }
    // With one argument it counts from today.
    if functions::is_unsteady(function) || (function == "age" && arguments == 1) {
        return Err(unsteady(&format!("{function}()")));
    }
    Ok(())
}

/// `a.b` names a table, or a field of a composite value where `a` stands in parentheses.
fn field(node: &SyntaxNode) -> Result<(), String> {
    let base = node.first_child().map(|base| base.kind());
    if matches!(base, Some(SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR)) {
        let names: Vec<String> =
            descendants(node, SyntaxKind::NAME_REF).map(|part| name(&part)).collect();
        let column = names.last().map(String::as_str).unwrap_or_default();
        return Err(format!(
            "{} names a table; there is one row only: write {column}",
            names.join(".")
        ));
    }
    Err(format!("{} reaches into a value, which can't be followed to its column", node.text()))
}

/// Whether a name is that of a called function.
fn is_callee(node: &SyntaxNode) -> bool {
    node.parent().is_some_and(|parent| {
        parent.kind() == SyntaxKind::CALL_EXPR && parent.first_child().as_ref() == Some(node)
    })
}

fn is_part_of_callee(node: &SyntaxNode) -> bool {
    node.parent()
        .is_some_and(|parent| parent.kind() == SyntaxKind::FIELD_EXPR && is_callee(&parent))
}

/// `current_timestamp` and its kin, which are words of the grammar.
fn is_moment(node: &SyntaxNode) -> bool {
    node.children_with_tokens().any(|part| {
        matches!(
            part.kind(),
            SyntaxKind::CURRENT_CATALOG_KW
                | SyntaxKind::CURRENT_DATE_KW
                | SyntaxKind::CURRENT_ROLE_KW
                | SyntaxKind::CURRENT_SCHEMA_KW
                | SyntaxKind::CURRENT_TIME_KW
                | SyntaxKind::CURRENT_TIMESTAMP_KW
                | SyntaxKind::CURRENT_USER_KW
                | SyntaxKind::LOCALTIME_KW
                | SyntaxKind::LOCALTIMESTAMP_KW
                | SyntaxKind::SESSION_USER_KW
                | SyntaxKind::SYSTEM_USER_KW
                | SyntaxKind::USER_KW
        )
    })
}

fn unsteady(name: &str) -> String {
    format!("{name} gives another value each time, so what was copied could never be compared")
}

//! ALTER. Most of it is ALTER TABLE, whose lock is the strongest that any of its actions asks for.
//!
//! Decisions:
//! - A change of type writes over the column: it destroys what a narrower type can't hold. To `text` or `varchar` without a
//!   length nothing is lost.
//! - DETACH and NO INHERIT take rows out of the table that they were read from, and count as destructive.
//! - A new name destroys nothing. But a table under its new name is as old as its data, so it is in [`Facts::ensures`].

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::super::facts::{Change, Facts, LockMode, Object, RowWork};
use super::super::qualified_name;
use super::parse::{child, has, name, parts, qualified, unschemed};
use super::types::{self, column};
use super::{cascades, columns, create, destroys, is_unknown, lock, rows};

const NOTHING: (LockMode, RowWork) = (LockMode::AccessExclusive, RowWork::None);

/// Reads an ALTER; false if it is something else.
pub(super) fn read(node: &SyntaxNode, facts: &mut Facts) -> bool {
    match node.kind() {
        SyntaxKind::ALTER_TABLE
        | SyntaxKind::ALTER_FOREIGN_TABLE
        | SyntaxKind::ALTER_VIEW
        | SyntaxKind::ALTER_MATERIALIZED_VIEW => relation(node, facts),
        SyntaxKind::ALTER_TYPE => kind(node, facts),
        // A new constraint is checked against the columns of that type.
        SyntaxKind::ALTER_DOMAIN => rows::calls(node, facts),
        SyntaxKind::ALTER_SCHEMA => schema(node, facts),
        SyntaxKind::ALTER_TRIGGER => trigger(node, facts),
        SyntaxKind::ALTER_POLICY | SyntaxKind::ALTER_RULE => {
            let on = node.children().find(|child| {
                matches!(child.kind(), SyntaxKind::ON_TABLE | SyntaxKind::ON_RELATION)
            });
            if let Some(table) = on.and_then(|on| qualified(&on)) {
                lock(facts, &table, NOTHING, "what holds for its rows changes");
            }
        }
        SyntaxKind::ALTER_SYSTEM => {
            facts.outside_transaction =
                Some("ALTER SYSTEM writes the server's settings".to_owned());
            is_unknown(facts, "it changes settings of the whole server");
        }
        kind => return is_harmless(kind),
    }
    true
}

/// What changes only how things are called, who owns them, or what can be said again.
const fn is_harmless(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::ALTER_AGGREGATE
            | SyntaxKind::ALTER_COLLATION
            | SyntaxKind::ALTER_CONVERSION
            | SyntaxKind::ALTER_DEFAULT_PRIVILEGES
            | SyntaxKind::ALTER_FUNCTION
            | SyntaxKind::ALTER_INDEX
            | SyntaxKind::ALTER_LANGUAGE
            | SyntaxKind::ALTER_LARGE_OBJECT
            | SyntaxKind::ALTER_OPERATOR
            | SyntaxKind::ALTER_OPERATOR_CLASS
            | SyntaxKind::ALTER_OPERATOR_FAMILY
            | SyntaxKind::ALTER_PROCEDURE
            | SyntaxKind::ALTER_PUBLICATION
            | SyntaxKind::ALTER_ROUTINE
            | SyntaxKind::ALTER_SEQUENCE
            | SyntaxKind::ALTER_STATISTICS
            | SyntaxKind::ALTER_TEXT_SEARCH_CONFIGURATION
            | SyntaxKind::ALTER_TEXT_SEARCH_DICTIONARY
            | SyntaxKind::ALTER_TEXT_SEARCH_PARSER
            | SyntaxKind::ALTER_TEXT_SEARCH_TEMPLATE
    )
}

fn relation(node: &SyntaxNode, facts: &mut Facts) {
    let own = node.children().find(|child| {
        matches!(child.kind(), SyntaxKind::TABLE_RELATION_NAME | SyntaxKind::VIEW_REF)
    });
    let Some(own) = own else {
        return is_unknown(facts, "it moves every table of a tablespace");
    };
    let Some(table) = qualified(&own) else {
        return is_unknown(facts, "the table can't be told");
    };
    facts.mention(table.clone());
    for part in node.children().filter(|child| *child != own) {
        action(&part, &table, facts);
    }
}

/// One action of an ALTER TABLE.
fn action(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    let mut hold = |held, reason: &str| lock(facts, table, held, reason);
    match part.kind() {
        SyntaxKind::IF_EXISTS => {}
        SyntaxKind::ADD_COLUMN => columns::add(part, table, facts),
        SyntaxKind::ALTER_COLUMN | SyntaxKind::ALTER_VIEW_COLUMN => {
            columns::alter(part, table, facts);
        }
        SyntaxKind::DROP_COLUMN => drop_column(part, table, facts),
        SyntaxKind::RENAME_COLUMN => rename_column(part, table, facts),
        SyntaxKind::TABLE_RENAME_TO | SyntaxKind::VIEW_RENAME_TO => rename(part, table, facts),
        SyntaxKind::SET_SCHEMA => set_schema(part, table, facts),
        SyntaxKind::ADD_CONSTRAINT => add_constraint(part, table, facts),
        SyntaxKind::VALIDATE_CONSTRAINT => hold(
            (LockMode::ShareUpdateExclusive, RowWork::Scan),
            "every row is checked, beside reads and writes",
        ),
        SyntaxKind::DROP_CONSTRAINT => {
            hold(NOTHING, "the constraint goes");
            cascades(facts, part);
        }
        SyntaxKind::ATTACH_PARTITION => attach(part, table, facts),
        SyntaxKind::INHERIT_TABLE => inherit(part, table, facts),
        SyntaxKind::DETACH_PARTITION => detach(part, table, facts),
        SyntaxKind::NO_INHERIT_TABLE => no_inherit(part, table, facts),
        SyntaxKind::ENABLE_TRIGGER
        | SyntaxKind::DISABLE_TRIGGER
        | SyntaxKind::ENABLE_ALWAYS_TRIGGER
        | SyntaxKind::ENABLE_REPLICA_TRIGGER => switch_triggers(part, table, facts),
        SyntaxKind::CLUSTER_ON | SyntaxKind::SET_WITHOUT_CLUSTER => {
            hold((LockMode::ShareUpdateExclusive, RowWork::None), "the next CLUSTER goes by it");
        }
        SyntaxKind::SET_OPTIONS | SyntaxKind::RESET_OPTIONS => {
            hold((options_mode(part), RowWork::None), "a setting of the table changes");
        }
        SyntaxKind::SET_TABLESPACE => hold(
            (LockMode::AccessExclusive, RowWork::Rewrite),
            "the whole table is copied into the other tablespace",
        ),
        SyntaxKind::ALTER_CONSTRAINT => {
            hold(
                (LockMode::AccessExclusive, RowWork::None),
                "when the constraint is checked changes",
            );
        }
        SyntaxKind::SET_LOGGED | SyntaxKind::SET_UNLOGGED | SyntaxKind::SET_ACCESS_METHOD => {
            hold((LockMode::AccessExclusive, RowWork::Rewrite), "every row is written anew");
        }
        kind if is_catalogue_only(kind) => hold(NOTHING, "only the catalogue changes"),
        kind => {
            let what = format!("{kind:?}").replace('_', " ");
            hold(
                (LockMode::AccessExclusive, RowWork::Unknown),
                "what it does to the rows can't be told",
            );
            is_unknown(facts, format!("what {what} does to {table} can't be told from its text"));
        }
    }
}

const fn is_catalogue_only(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::OWNER_TO
            | SyntaxKind::ENABLE_RLS
            | SyntaxKind::DISABLE_RLS
            | SyntaxKind::FORCE_RLS
            | SyntaxKind::NO_FORCE_RLS
            | SyntaxKind::ENABLE_RULE
            | SyntaxKind::DISABLE_RULE
            | SyntaxKind::ENABLE_ALWAYS_RULE
            | SyntaxKind::ENABLE_REPLICA_RULE
            | SyntaxKind::REPLICA_IDENTITY
            | SyntaxKind::RENAME_CONSTRAINT
            | SyntaxKind::OF_TYPE
            | SyntaxKind::NOT_OF
            | SyntaxKind::DEPENDS_ON_EXTENSION
            | SyntaxKind::NO_DEPENDS_ON_EXTENSION
            | SyntaxKind::ALTER_OPTION_LIST
    )
}

/// Most of a table's settings only matter to later work, and take a weak lock.
fn options_mode(part: &SyntaxNode) -> LockMode {
    let is_weak = |option: &str| {
        option.starts_with("autovacuum_")
            || option.starts_with("toast.autovacuum_")
            || option.starts_with("vacuum_")
            || matches!(
                option,
                "fillfactor"
                    | "toast_tuple_target"
                    | "parallel_workers"
                    | "log_autovacuum_min_duration"
            )
    };
    let options = part.descendants().filter(|node| node.kind() == SyntaxKind::ATTRIBUTE_OPTION);
    let mut names = options.map(|option| {
        let written = option.text().to_string().to_ascii_lowercase();
        written.split('=').next().unwrap_or_default().trim().to_owned()
    });
    if names.all(|name| is_weak(&name)) {
        LockMode::ShareUpdateExclusive
    } else {
        LockMode::AccessExclusive
    }
}

fn drop_column(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    let Some(column) = column(part, SyntaxKind::COLUMN_NAME_REF) else {
        return destroys(facts, format!("it drops a column of {table}"));
    };
    lock(facts, table, NOTHING, "the column is marked as gone, and its values stay in the rows");
    destroys(facts, format!("it drops column {table}.{column}"));
    cascades(facts, part);
    facts.drops.push(Object::column(table, column.clone()));
    facts.changes.push(Change::DropColumn { table: table.to_owned(), column });
}

fn rename_column(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    lock(facts, table, NOTHING, "only the name in the catalogue changes");
    let from = column(part, SyntaxKind::COLUMN_NAME_REF);
    let (Some(column), Some(to)) = (from, column(part, SyntaxKind::COLUMN_NAME)) else {
        return is_unknown(facts, format!("which column of {table} is renamed can't be told"));
    };
    facts.ensures.push(Object::column(table, to.clone()));
    facts.changes.push(Change::RenameColumn { table: table.to_owned(), column, to });
}

fn rename(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    lock(facts, table, NOTHING, "only the name in the catalogue changes");
    let Some(to) = parts(part).and_then(|mut parts| parts.pop()) else {
        return is_unknown(facts, format!("the new name of {table} can't be told"));
    };
    // A new name stays in the schema of the old one.
    let (schema, _) = qualified_name(table);
    renamed(table, unschemed(schema.as_deref(), &to), facts);
}

fn renamed(table: &str, to: String, facts: &mut Facts) {
    facts.mention(to.clone());
    facts.ensures.push(Object::table(to.clone()));
    facts.changes.push(Change::RenameTable { table: table.to_owned(), to });
}

fn set_schema(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    lock(facts, table, NOTHING, "only the name in the catalogue changes");
    let Some(schema) = child(part, SyntaxKind::SCHEMA_REF).map(|schema| name(&schema)) else {
        return is_unknown(facts, format!("the new schema of {table} can't be told"));
    };
    let (_, bare) = qualified_name(table);
    renamed(table, unschemed(Some(&schema), &bare), facts);
}

fn add_constraint(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    let Some(constraint) = part.first_child() else {
        return is_unknown(facts, format!("what constraint {table} gets can't be told"));
    };
    let is_checked =
        !has(&constraint, SyntaxKind::NOT_VALID) && !has(&constraint, SyntaxKind::NOT_ENFORCED);
    let scan = if is_checked { RowWork::Scan } else { RowWork::None };
    match constraint.kind() {
        SyntaxKind::FOREIGN_KEY_CONSTRAINT => {
            let reason = if is_checked {
                "every row is looked up in the other table; NOT VALID and a VALIDATE later do so beside writes"
            } else {
                "rows that are there aren't looked up before VALIDATE"
            };
            lock(facts, table, (LockMode::ShareRowExclusive, scan), reason);
            create::referenced(part, table, scan, facts);
        }
        SyntaxKind::CHECK_CONSTRAINT => {
            let reason = if is_checked {
                rows::calls(&constraint, facts);
                "every row is checked; NOT VALID and a VALIDATE later do so beside reads and writes"
            } else {
                "rows that are there aren't checked before VALIDATE"
            };
            lock(facts, table, (LockMode::AccessExclusive, scan), reason);
        }
        SyntaxKind::NOT_NULL_CONSTRAINT => {
            lock(facts, table, (LockMode::AccessExclusive, scan), "every row is checked");
        }
        SyntaxKind::UNIQUE_CONSTRAINT | SyntaxKind::PRIMARY_KEY_CONSTRAINT => {
            if has(&constraint, SyntaxKind::USING_INDEX_NAME) {
                // A primary key makes its columns NOT NULL, and looks at every row unless they are already.
                let (work, reason) = if constraint.kind() == SyntaxKind::PRIMARY_KEY_CONSTRAINT {
                    (
                        RowWork::Unknown,
                        "every row is read unless the columns are NOT NULL already, which the text doesn't tell",
                    )
                } else {
                    (RowWork::None, "the index is there already")
                };
                lock(facts, table, (LockMode::AccessExclusive, work), reason);
            } else {
                let held = (LockMode::AccessExclusive, RowWork::IndexBuild);
                lock(
                    facts,
                    table,
                    held,
                    "its index is built; make it CONCURRENTLY first and add the constraint USING INDEX",
                );
            }
        }
        SyntaxKind::EXCLUDE_CONSTRAINT => {
            rows::calls(&constraint, facts);
            let held = (LockMode::AccessExclusive, RowWork::IndexBuild);
            lock(facts, table, held, "its index is built, and every row compared");
        }
        _ => is_unknown(facts, format!("what constraint {table} gets can't be told")),
    }
}

fn attach(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    lock(facts, table, (LockMode::ShareUpdateExclusive, RowWork::None), "it gets a partition");
    let Some(new) = qualified(part) else {
        return is_unknown(facts, format!("what {table} gets for a partition can't be told"));
    };
    rows::calls(part, facts);
    let held = (LockMode::AccessExclusive, RowWork::Scan);
    lock(
        facts,
        &new,
        held,
        "every row is checked against the bounds, unless a valid CHECK says the same",
    );
    facts.changes.push(Change::Attach { table: table.to_owned(), part: new });
}

fn inherit(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    lock(facts, table, NOTHING, "it becomes a child table");
    let Some(parent) = qualified(part) else {
        return is_unknown(facts, format!("the parent of {table} can't be told"));
    };
    lock(facts, &parent, (LockMode::ShareUpdateExclusive, RowWork::None), "it gets a child table");
    facts.changes.push(Change::Attach { table: parent, part: table.to_owned() });
}

fn detach(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    let gone = qualified(part).unwrap_or_default();
    if has(part, SyntaxKind::DETACH_CONCURRENTLY) {
        facts.outside_transaction =
            Some("DETACH PARTITION CONCURRENTLY works in two transactions of its own".to_owned());
        lock(
            facts,
            table,
            (LockMode::ShareUpdateExclusive, RowWork::None),
            "the partition goes beside reads and writes",
        );
        lock(facts, &gone, NOTHING, "it stands by itself from then on");
    } else if has(part, SyntaxKind::DETACH_FINALIZE) {
        lock(
            facts,
            table,
            (LockMode::ShareUpdateExclusive, RowWork::None),
            "an interrupted DETACH is ended",
        );
        lock(facts, &gone, NOTHING, "it stands by itself from then on");
    } else {
        lock(facts, table, NOTHING, "the partition goes");
        lock(facts, &gone, NOTHING, "it stands by itself from then on");
    }
    destroys(facts, format!("it takes the rows of {gone} out of {table}"));
    facts.changes.push(Change::Detach { table: table.to_owned(), part: gone });
}

fn no_inherit(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    let parent = qualified(part).unwrap_or_default();
    lock(facts, table, NOTHING, "it stands by itself from then on");
    lock(facts, &parent, (LockMode::AccessShare, RowWork::None), "it loses a child table");
    destroys(facts, format!("it takes the rows of {table} out of {parent}"));
    facts.changes.push(Change::Detach { table: parent, part: table.to_owned() });
}

fn switch_triggers(part: &SyntaxNode, table: &str, facts: &mut Facts) {
    lock(facts, table, (LockMode::ShareRowExclusive, RowWork::None), "its triggers are switched");
    let trigger = child(part, SyntaxKind::TRIGGER_REF).map(|trigger| name(&trigger));
    facts.changes.push(Change::SwitchTriggers { table: table.to_owned(), trigger });
}

fn trigger(node: &SyntaxNode, facts: &mut Facts) {
    let table = child(node, SyntaxKind::ON_RELATION).and_then(|on| qualified(&on));
    let trigger = child(node, SyntaxKind::TRIGGER_REF).map(|trigger| name(&trigger));
    let Some(table) = table else {
        return is_unknown(facts, "whose trigger it is can't be told");
    };
    lock(facts, &table, NOTHING, "a trigger gets another name");
    facts.changes.push(Change::SwitchTriggers { table, trigger });
}

fn schema(node: &SyntaxNode, facts: &mut Facts) {
    let Some(schema) = child(node, SyntaxKind::SCHEMA_REF).map(|schema| name(&schema)) else {
        return is_unknown(facts, "which schema it is can't be told");
    };
    if has(node, SyntaxKind::SCHEMA_RENAME_TO) {
        facts.changes.push(Change::Schema { schema });
    }
}

/// ALTER TYPE: attributes of a composite type are columns of every table that has one.
fn kind(node: &SyntaxNode, facts: &mut Facts) {
    for part in node.descendants() {
        match part.kind() {
            SyntaxKind::DROP_ATTRIBUTE => destroys(facts, "it drops an attribute of a type"),
            SyntaxKind::ALTER_ATTRIBUTE => {
                let widens = types::written(&part).is_some_and(|kind| types::is_text(&kind));
                if !widens {
                    destroys(facts, "it changes the type of an attribute");
                }
            }
            _ => {}
        }
    }
}

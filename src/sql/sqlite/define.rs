//! CREATE, ALTER and DROP. SQLite's grammar of these is small and its own, so it is read from tokens.
//!
//! Decisions:
//! - DROP of an index is harmless: it can be made again from its text, which the step's undo has.
//! - So is DROP of a trigger. What it guarded or mirrored is lost from then on, which nobody can see from its name; it is
//!   reported as a [`Change`], and refused by whoever needs the trigger.
//! - A new name destroys nothing. But a table under its new name is as old as its data, so it is in [`Facts::ensures`] and
//!   not in [`Facts::creates`]: an UPDATE of it is still an UPDATE of what the plan did not make.

use crate::run::Hazard;

use super::super::facts::{Change, Facts, Object};
use super::super::reader::Reader;
use super::{destructive, parse, qualified, refused, unreadable};

/// Modules whose tables keep their rows in the database itself and do nothing else when they are made.
const KNOWN_MODULES: [&str; 8] =
    ["fts3", "fts4", "fts5", "fts5vocab", "rtree", "rtree_i32", "geopoly", "fts4aux"];

/// Whether a trigger is made here.
pub(super) fn is_trigger(mut reader: Reader<'_>) -> bool {
    reader.eats(&["create"]) && {
        let _ = reader.eats(&["temp"]) || reader.eats(&["temporary"]);
        reader.sees("trigger")
    }
}

/// What stands behind CREATE.
pub(super) fn create(mut reader: Reader<'_>) -> Facts {
    let is_temporary = reader.eats(&["temp"]) || reader.eats(&["temporary"]);
    let facts = if reader.eats(&["table"]) || reader.eats(&["view"]) {
        relation(reader)
    } else if reader.eats(&["virtual", "table"]) {
        virtual_table(reader)
    } else if reader.eats(&["index"]) || reader.eats(&["unique", "index"]) {
        index(reader)
    } else {
        None
    };
    let mut facts = facts.unwrap_or_else(unreadable);
    let is_temporary = is_temporary
        || facts.creates.iter().chain(&facts.ensures).any(|object| {
            object.table.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("temp."))
        });
    if is_temporary {
        complain_of_temporary(&mut facts);
    }
    facts
}

/// A temporary object hides a lasting one of its name from whoever uses the connection next, which is us.
pub(super) fn complain_of_temporary(facts: &mut Facts) {
    facts.complain(
        "a temporary object lives in one connection only, and hides others of its name there",
        "make an ordinary one and drop it in a later step",
    );
}

/// `[IF NOT EXISTS] name` of what is made, entered where it belongs.
fn made(reader: &mut Reader<'_>, facts: &mut Facts) -> Option<String> {
    let may_exist = reader.eats(&["if", "not", "exists"]);
    let name = qualified(reader)?;
    facts.mention(name.clone());
    let list = if may_exist { &mut facts.ensures } else { &mut facts.creates };
    list.push(Object::table(name.clone()));
    Some(name)
}

/// CREATE TABLE and CREATE VIEW. Neither can change a row that is there, whatever stands in it.
fn relation(mut reader: Reader<'_>) -> Option<Facts> {
    let mut facts = Facts::harmless();
    made(&mut reader, &mut facts)?;
    for table in query(reader).map(parse::tables).unwrap_or_default() {
        facts.mention(table);
    }
    Some(facts)
}

/// What stands behind `AS`, where that is a query and no column's expression.
fn query(mut reader: Reader<'_>) -> Option<&str> {
    while reader.skip_to("as") {
        reader.skip();
        if ["select", "with", "values"].iter().any(|word| reader.sees(word)) {
            return Some(reader.rest_text());
        }
    }
    None
}

fn virtual_table(mut reader: Reader<'_>) -> Option<Facts> {
    let mut facts = Facts::harmless();
    made(&mut reader, &mut facts)?;
    if !reader.eats(&["using"]) {
        return None;
    }
    let module = reader.name()?;
    if !KNOWN_MODULES.iter().any(|known| module.eq_ignore_ascii_case(known)) {
        facts.endanger(Hazard::Unknown(format!("what module {module} does can't be told")));
    }
    Some(facts)
}

fn index(mut reader: Reader<'_>) -> Option<Facts> {
    let mut facts = Facts::harmless();
    reader.eats(&["if", "not", "exists"]);
    qualified(&mut reader)?;
    if !reader.eats(&["on"]) {
        return None;
    }
    facts.mention(reader.name()?);
    Some(facts)
}

/// What stands behind ALTER.
pub(super) fn alter(mut reader: Reader<'_>) -> Facts {
    if !reader.eats(&["table"]) {
        return unreadable();
    }
    let Some(table) = qualified(&mut reader) else { return unreadable() };
    let mut facts = Facts::harmless();
    facts.mention(table.clone());
    match altered(reader, &table, &mut facts) {
        Some(()) => facts,
        None => {
            facts.endanger(Hazard::Unknown(format!("this change of {table} can't be read")));
            facts
        }
    }
}

fn altered(mut reader: Reader<'_>, table: &str, facts: &mut Facts) -> Option<()> {
    let table_owned = table.to_owned();
    if reader.eats(&["rename", "to"]) {
        let to = reader.name()?;
        facts.mention(to.clone());
        facts.ensures.push(Object::table(to.clone()));
        facts.changes.push(Change::RenameTable { table: table_owned, to });
    } else if reader.eats(&["rename"]) {
        reader.eats(&["column"]);
        let column = reader.name()?;
        if !reader.eats(&["to"]) {
            return None;
        }
        let to = reader.name()?;
        facts.ensures.push(Object::column(table, to.clone()));
        facts.changes.push(Change::RenameColumn { table: table_owned, column, to });
    } else if reader.eats(&["add"]) {
        reader.eats(&["column"]);
        if ["constraint", "check", "foreign", "unique", "primary"].iter().any(|w| reader.sees(w)) {
            return None;
        }
        facts.creates.push(Object::column(table, reader.name()?));
        return Some(());
    } else if reader.eats(&["drop"]) {
        reader.eats(&["column"]);
        if reader.sees("constraint") {
            return None;
        }
        let column = reader.name()?;
        facts.endanger(destructive(format!("it drops column {table}.{column}")));
        facts.drops.push(Object::column(table, column.clone()));
        facts.changes.push(Change::DropColumn { table: table_owned, column });
    } else {
        return None;
    }
    reader.is_at_end().then_some(())
}

/// What stands behind DROP.
pub(super) fn drop(mut reader: Reader<'_>) -> Facts {
    let Some(kind) = reader.word() else { return unreadable() };
    reader.eats(&["if", "exists"]);
    let Some(name) = qualified(&mut reader).filter(|_| reader.is_at_end()) else {
        return if matches!(kind.as_str(), "table" | "view") {
            refused("this DROP can't be read", "name one object: DROP TABLE name")
        } else {
            unreadable()
        };
    };
    let mut facts = Facts::harmless();
    match kind.as_str() {
        "table" | "view" => {
            facts.mention(name.clone());
            facts.endanger(destructive(format!("it drops {kind} {name}")));
            facts.drops.push(Object::table(name.clone()));
            if kind == "table" {
                facts.changes.push(Change::DropTable { table: name });
            }
        }
        "index" => {}
        "trigger" => facts.changes.push(Change::DropTrigger { table: None, trigger: name }),
        _ => return unreadable(),
    }
    facts
}

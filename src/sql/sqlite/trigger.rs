//! CREATE TRIGGER.
//!
//! Making a trigger changes no row. What its body does happens later, when somebody writes, and how often nobody can tell
//! from the text: so a body that writes over or deletes rows makes the statement *unknown*, with what the body does for a
//! reason, and not destructive. Destructive would keep every hand-made sync out of the phases it belongs to; harmless would
//! let a plan delete without a gate by way of a trigger and an INSERT that fires it.

use crate::run::Hazard;

use super::super::facts::{Change, Facts};
use super::super::reader::Reader;
use super::super::token::Token;
use super::{define, qualified, rows, unreadable};

/// What making this trigger does.
pub(super) fn facts(reader: Reader<'_>) -> Facts {
    read(reader).unwrap_or_else(unreadable)
}

fn read(mut reader: Reader<'_>) -> Option<Facts> {
    let mut facts = Facts::harmless();
    reader.eats(&["create"]);
    if reader.eats(&["temp"]) || reader.eats(&["temporary"]) {
        define::complain_of_temporary(&mut facts);
    }
    reader.eats(&["trigger"]);
    reader.eats(&["if", "not", "exists"]);
    let trigger = qualified(&mut reader)?;
    // The event names columns at most, none of which can be an unquoted ON.
    if !reader.skip_to("on") {
        return None;
    }
    reader.skip();
    let table = qualified(&mut reader)?;
    facts.mention(table.clone());
    facts.changes.push(Change::CreateTrigger { table, trigger });
    if !reader.skip_to("begin") {
        return None;
    }
    reader.skip();
    body(reader, &mut facts)?;
    Some(facts)
}

/// The statements up to END, which must be the last word.
fn body(reader: Reader<'_>, facts: &mut Facts) -> Option<()> {
    let mut rest = reader;
    loop {
        let mut end = rest;
        if end.eats(&["end"]) && end.is_at_end() {
            return Some(());
        }
        let (statement, after) = until_semicolon(rest)?;
        add(facts, &rows::facts(statement));
        rest = after;
    }
}

fn until_semicolon(reader: Reader<'_>) -> Option<(Reader<'_>, Reader<'_>)> {
    let is_semicolon = |token: &Token| reader.is_punct(token, ";");
    let at = reader.rest().iter().position(is_semicolon)?;
    Some((reader.up_to(at), reader.behind(at)))
}

/// What a statement of the body adds to what is said of the trigger.
fn add(facts: &mut Facts, body: &Facts) {
    for table in &body.tables {
        facts.mention(table.clone());
    }
    if let Some(complaint) = &body.complaint {
        facts.complain(complaint.message.clone(), complaint.help.clone());
    }
    if let Hazard::Destructive(what) | Hazard::Unknown(what) = &body.hazard {
        facts.endanger(Hazard::Unknown(format!("whenever the trigger fires, {what}")));
    }
}

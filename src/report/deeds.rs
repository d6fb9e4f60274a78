//! What the engine does by itself for a step, in words, with the objects it does it to. Statements of a plan need no words.

use crate::run::{
    Action, Direction, DualWrite, Mapping, Relation, Retire, RetireShape, State, Step, Undo, Writer,
};

/// What the engine does for a step that isn't written in statements, one thing each.
#[must_use]
pub fn deeds(state: &State, step: &Step) -> Vec<String> {
    let program = state.program();
    let planned = step.action.mapping().and_then(|name| program.mappings().get(name));
    let (Some(mapping), Some(name)) = (planned, step.action.mapping()) else { return Vec::new() };
    let direction = state.direction(name).unwrap_or(Direction::Forward);
    let (from, into) = (&mapping.from.table, &mapping.into.table);
    if !mapping.is_pushdown() {
        return between(mapping, &step.action);
    }
    match &step.action {
        Action::DualWrite(DualWrite { by: Writer::Application(_), .. }) => {
            vec![format!("has the application prove that it writes {from} and {into} both")]
        }
        Action::Drop { .. } if mapping.is_of_graph() => vec![
            "in transactions of bounded size, after a look at what else would go:".to_owned(),
            format!("removes every {from} that the mapping is about"),
        ],
        Action::DualWrite(DualWrite { direction, .. }) => vec![match direction {
            Direction::Forward => format!("mirrors every write to {from} into {into}"),
            Direction::Both => format!("mirrors every write to {from} into {into}, and back"),
        }],
        Action::Backfill(_) => {
            vec![format!("copies the rows of {from} into {into}, chunk by chunk")]
        }
        Action::Verify(_) => vec![format!("compares {from} with {into}")],
        Action::Retire(Retire { shape, .. }) => retiring(mapping, shape, direction),
        Action::Drop { .. } => {
            let shape = program.steps().iter().find_map(|step| match &step.action {
                Action::Retire(Retire { mapping, shape, .. }) if mapping == name => Some(shape),
                _ => None,
            });
            dropping(mapping, shape, direction)
        }
        Action::StopDualWrite { .. } => {
            vec![format!("removes the sync from {from} into {into}; both tables stay")]
        }
        Action::Sql(_) | Action::Gate(_) => Vec::new(),
    }
}

/// What it does between two databases.
fn between(mapping: &Mapping, action: &Action) -> Vec<String> {
    let named = |relation: &Relation| format!("{} in {}", relation.table, relation.target);
    let (from, into) = (named(&mapping.from), named(&mapping.into));
    match action {
        Action::DualWrite(_) => vec![
            format!("captures every write to {from}"),
            format!("has a relay carry what was captured to {into}"),
        ],
        Action::Backfill(_) => vec![format!("copies the rows of {from} to {into}, chunk by chunk")],
        Action::Verify(_) => vec![format!("compares {from} with {into}")],
        Action::Drop { .. } => vec![
            "in one transaction, after a look at what depends on it:".to_owned(),
            "removes what is left of the capture".to_owned(),
            format!("drops table {} with all its rows; {into} stays", mapping.from.table),
        ],
        Action::StopDualWrite { .. } => {
            vec![format!("ends the capture of writes to {from}; both sides stay")]
        }
        Action::Sql(_) | Action::Gate(_) | Action::Retire(_) => Vec::new(),
    }
}

/// How a step is undone, or why it can't be. Statements of the plan stand below it.
#[must_use]
pub fn way_back(state: &State, step: &Step) -> String {
    match &step.undo {
        Undo::Script(_) => "can be undone by:".to_owned(),
        Undo::Derived => {
            let name = step.action.mapping();
            let direction = name.and_then(|name| state.direction(name));
            let mapping = name.and_then(|name| state.program().mappings().get(name));
            let way = derived(&step.action, direction.unwrap_or(Direction::Forward), mapping);
            format!("can be undone: {way}")
        }
        Undo::None(None) => "leaves nothing to undo".to_owned(),
        Undo::None(Some(reason)) => format!("leaves nothing to undo: {reason}"),
        Undo::Impossible => {
            let reason = step.irreversible.as_deref().unwrap_or("the plan gives no reason");
            format!("can't be undone: {reason}")
        }
    }
}

/// How the engine takes back what it did by itself; empty for what it leaves as it is.
#[must_use]
pub fn derived(action: &Action, direction: Direction, mapping: Option<&Mapping>) -> &'static str {
    let is_between = mapping.is_some_and(|mapping| !mapping.is_pushdown());
    match (action, direction) {
        (Action::DualWrite(_), _) if is_between => {
            "ends the capture, drops what was captured and not carried, and empties a new side that was empty before"
        }
        (Action::Backfill(_), _) if is_between => {
            "nothing by itself: what was copied goes with the capture that found the new side empty"
        }
        (Action::StopDualWrite { .. }, _) if is_between => {
            "captures writes again; refused where the sides differ since, and a verify is needed anew"
        }
        (Action::DualWrite(DualWrite { by: Writer::Application(_), .. }), _) => {
            "removes what there is on a side that had nothing but copies before, and the constraints that it made; refused where \
             clients wrote to the new side alone"
        }
        (Action::DualWrite(_), _) => {
            "takes the triggers out again, with what they and the copy wrote into a side that was empty before; \
             refused where clients wrote to the new side alone"
        }
        (Action::Backfill(_), _) => {
            "nothing by itself: the rows go with the sync that found the new side empty, or with the object they are in"
        }
        (Action::Retire(_), Direction::Forward) => {
            "renames back; refused where clients wrote to the new side since, unless the loss is accepted"
        }
        (Action::Retire(_), Direction::Both) => "renames back; the sync has kept both sides alike",
        (Action::StopDualWrite { .. }, _) => {
            "puts the sync in again; refused where the sides differ since, and a verify is needed anew"
        }
        _ => "",
    }
}

fn retiring(mapping: &Mapping, shape: &RetireShape, direction: Direction) -> Vec<String> {
    let (from, into) = (&mapping.from.table, &mapping.into.table);
    let mut deeds = vec!["in one transaction, with both sides locked:".to_owned()];
    match shape {
        RetireShape::Table { old_name, take_name } => {
            deeds.push(format!("renames table {from} to {old_name}"));
            if *take_name {
                deeds.push(format!("renames table {into} to {from}"));
            }
            deeds.push(match direction {
                Direction::Forward => format!("ends the sync; {old_name} takes no more writes"),
                Direction::Both => "keeps the sync under the new names until `drop`".to_owned(),
            });
        }
        RetireShape::Columns(columns) => {
            for column in columns {
                deeds.push(format!(
                    "renames column {from}.{} to {}",
                    column.column, column.old_name
                ));
                if let Some(taker) = &column.take_name {
                    deeds.push(format!("renames column {into}.{taker} to {}", column.column));
                }
            }
            deeds.push(match direction {
                Direction::Forward => "ends the sync".to_owned(),
                Direction::Both => "keeps the sync under the new names until `drop`".to_owned(),
            });
        }
    }
    deeds
}

fn dropping(mapping: &Mapping, shape: Option<&RetireShape>, direction: Direction) -> Vec<String> {
    let mut deeds = vec!["in one transaction, after a look at what depends on it:".to_owned()];
    deeds.push(match direction {
        Direction::Forward => "removes what is left of the sync".to_owned(),
        Direction::Both => "removes the sync".to_owned(),
    });
    match shape {
        Some(RetireShape::Table { old_name, .. }) => {
            deeds.push(format!("drops table {old_name} with all its rows"));
        }
        Some(RetireShape::Columns(columns)) => {
            let table = &mapping.from.table;
            let of = |old: &String| format!("drops column {table}.{old} with all its values");
            deeds.extend(columns.iter().map(|column| of(&column.old_name)));
        }
        None => deeds.push(format!("removes the rows of {}", mapping.from.table)),
    }
    deeds
}

//! What the engine does in a step on a mapping between two databases: on which side, and what it locks there. Tables are locked on the
//! old side only; a graph has no locks but on single nodes and relationships.

use crate::report::words;
use crate::run::{
    Action, Backfill, ChunkRows, Mapping, Method, OnExisting, OutboxLimits, Relation, RowKind,
    Verify,
};
use crate::sql::{LockMode, RowWork};

use super::effects::Effect;
use super::graphs::named;
use super::{locks, look};

/// What a step does with a mapping between two databases, and what it locks.
pub(super) fn of(action: &Action, mapping: &Mapping) -> Effect {
    match action {
        Action::DualWrite(dual_write) => syncing(mapping, dual_write.outbox),
        Action::Backfill(backfill) => copying(mapping, backfill),
        Action::Verify(Verify::Mapping { method, repair, .. }) => {
            comparing(mapping, *method, *repair)
        }
        Action::Drop { .. } => dropping(mapping),
        Action::StopDualWrite { .. } => stopping(mapping),
        Action::Sql(_) | Action::Verify(Verify::Query(_)) | Action::Gate(_) | Action::Retire(_) => {
            Effect::default()
        }
    }
}

/// A side with the database that it is in.
fn placed(side: &Relation) -> String {
    format!("{} in {}", named(side), side.target)
}

fn sides(mapping: &Mapping) -> (String, String) {
    (placed(&mapping.from), placed(&mapping.into))
}

fn syncing(mapping: &Mapping, limits: OutboxLimits) -> Effect {
    let (from, into) = sides(mapping);
    let OutboxLimits { rows, age_ms, bytes } = limits;
    let unique = match &mapping.into.kind {
        RowKind::Relationship(ends) if ends.start.node == ends.end.node => {
            format!("what {} nodes are known by", ends.start.node)
        }
        RowKind::Relationship(ends) => {
            format!("what {} and {} nodes are known by", ends.start.node, ends.end.node)
        }
        RowKind::Node | RowKind::Table => format!("what {} nodes are known by", mapping.into.table),
    };
    let does = vec![
        format!(
            "in {}, makes {unique} unique where it isn't, for which the server reads each of the nodes once",
            mapping.into.target
        ),
        format!("puts triggers on {from}: every write to it is captured in its own transaction"),
        format!("from then on a relay carries what was captured to {into}"),
        format!(
            "steps of {} fail once {} wait, one waits for {}, or they take {}; at 80 % of that it is warned of",
            mapping.name,
            words::plural(rows, "change"),
            words::duration(age_ms),
            look::size(bytes),
        ),
    ];
    let reason =
        "CREATE TRIGGER waits for transactions that wrote to it, and new writes wait behind it";
    let lock = locks::own(&from, LockMode::ShareRowExclusive, RowWork::None, reason);
    Effect { does, locks: vec![lock] }
}

fn copying(mapping: &Mapping, backfill: &Backfill) -> Effect {
    let (from, into) = sides(mapping);
    let size = match backfill.chunk_rows {
        ChunkRows::Auto => "as many rows as take".to_owned(),
        ChunkRows::Fixed(rows) => {
            format!("{}, meant to take", words::plural(u64::from(rows), "row"))
        }
    };
    let rests = match backfill.pause_between_ms {
        0 => String::new(),
        ms => format!(", resting {} after each", words::duration(ms)),
    };
    let there = match mapping.on_existing {
        OnExisting::Keep => "stays",
        OnExisting::Update => "is written over",
    };
    let mut does = vec![
        format!(
            "copies the rows of {from} that were there before to {into}, in chunks of {size} {}, {}{rests}",
            words::duration(backfill.chunk_time_ms),
            words::plural(u64::from(backfill.workers), "worker"),
        ),
        format!(
            "leaves what has changed since to the relay; what was in {} before {there}",
            mapping.into.target
        ),
    ];
    if let RowKind::Relationship(_) = mapping.into.kind {
        does.push(
            "a node that is not there yet is stood in for by one with nothing but its key"
                .to_owned(),
        );
    }
    does.extend(mapping.filter.as_ref().map(|filter| format!("only rows where {filter}")));
    if !backfill.throttle.is_empty() {
        let held: Vec<String> = backfill.throttle.iter().map(ToString::to_string).collect();
        does.push(format!("no chunk begins while it is held back by {}", held.join(", ")));
    }
    let reason = "each chunk is read in a transaction of its own";
    Effect { does, locks: vec![locks::of_chunks(&from, LockMode::AccessShare, reason)] }
}

fn comparing(mapping: &Mapping, method: Method, repair: bool) -> Effect {
    let (from, into) = sides(mapping);
    let mut does = vec![match method {
        Method::Full => format!(
            "compares every row of {from} with {into}, both ways, and looks again at what differs once the relay has carried it"
        ),
        Method::Counts => format!("counts {from} and {into}: a partial verify"),
        Method::Sample(rows) => format!(
            "compares {} of {from} and of {into}: a partial verify",
            words::plural(u64::from(rows), "row")
        ),
    }];
    if repair {
        does.push(
            "has the relay carry rows that differ as they are on the old side, and compares again"
                .to_owned(),
        );
    }
    let (work, reason) = match method {
        Method::Full => (RowWork::Scan, "chunk by chunk"),
        Method::Counts => (RowWork::Scan, "it counts the rows"),
        Method::Sample(_) => (RowWork::None, "some rows, found by their keys"),
    };
    Effect { does, locks: vec![locks::own(&from, LockMode::AccessShare, work, reason)] }
}

fn dropping(mapping: &Mapping) -> Effect {
    let (from, into) = sides(mapping);
    let left_out = mapping.filter.as_ref().map(|filter| {
        format!("with it go the rows that were never copied: all but where {filter}")
    });
    let does = ["takes out what is left of the capture".to_owned()]
        .into_iter()
        .chain([format!("drops {from}, with every row of it; {into} stays")])
        .chain(left_out);
    let reason = "DROP takes it; files are unlinked, no row is read";
    let lock = locks::own(&from, LockMode::AccessExclusive, RowWork::None, reason);
    Effect { does: does.collect(), locks: vec![lock] }
}

fn stopping(mapping: &Mapping) -> Effect {
    let (from, into) = sides(mapping);
    let reason = "DROP TRIGGER takes it";
    let lock = locks::own(&from, LockMode::AccessExclusive, RowWork::None, reason);
    let does = vec![
        format!("takes the triggers of the capture off {from}"),
        format!("has the relay carry what is left to {into}, and removes what it kept there"),
        "both sides stay as they are".to_owned(),
    ];
    Effect { does, locks: vec![lock] }
}

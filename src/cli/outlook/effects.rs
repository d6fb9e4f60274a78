//! What the engine itself does in a step, and what it locks: in words. How it takes it back is [`crate::report::deeds`]'s.
//!
//! The modes are those of PostgreSQL's manual for the statements that each action runs (CREATE TRIGGER, RENAME, DROP);
//! SQLite locks the file.

use crate::driver::probed::Beside;
use crate::report::dry_run::LockOutlook;
use crate::report::words;
use crate::run::{
    Action, Backfill, ChunkRows, Direction, DualWrite, Engine, Mapping, MappingName, Method,
    Program, QueryCheck, Retire, RetireShape, Step, Transaction, Verify, Winner,
};
use crate::sql::{self, Dialect, LockMode, RowWork};

use super::locks::{self, Whole};
use super::{Looks, crossing, graphs};

/// What a step does, in words.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// Sentences without a full stop.
    pub does: Vec<String>,
    /// What is locked.
    pub locks: Vec<LockOutlook>,
}

/// What a step does. Statements of the plan are not its own doing; on SQLite their lock is.
pub(super) fn of(program: &Program, step: &Step) -> Effect {
    let is_whole = is_sqlite(program, step);
    let mapping = step.action.mapping().and_then(|name| program.mappings().get(name));
    let mut effect = match (&step.action, mapping) {
        (Action::Sql(script), _) => {
            let locks = if is_whole { vec![locks::whole(Whole::Writing)] } else { Vec::new() };
            let mut does = Vec::new();
            if script.transaction == Transaction::None {
                does.push("runs each statement by itself, outside a transaction".to_owned());
            }
            does.extend(limits(step));
            return Effect { does, locks };
        }
        (Action::Verify(Verify::Query(query)), _) => asking(query, dialect_of(program, step)),
        (action, Some(mapping)) if !mapping.is_pushdown() => crossing::of(action, mapping),
        (action, Some(mapping)) if mapping.is_of_graph() => {
            Effect { does: graphs::does(action, mapping), locks: Vec::new() }
        }
        (Action::Verify(Verify::Mapping { method, repair, .. }), Some(mapping)) => {
            comparing((mapping, direction(program, &mapping.name)), *method, *repair)
        }
        (Action::DualWrite(dual_write), Some(mapping)) => syncing(mapping, dual_write),
        (Action::Backfill(backfill), Some(mapping)) => copying(mapping, backfill),
        (Action::Retire(retire), Some(mapping)) => {
            retiring(mapping, retire, direction(program, &retire.mapping))
        }
        (Action::Drop { .. }, Some(mapping)) => dropping(program, mapping),
        (Action::StopDualWrite { .. }, Some(mapping)) => stopping(mapping),
        _ => Effect::default(),
    };
    if is_whole && !effect.does.is_empty() {
        let how = match &step.action {
            Action::Backfill(_) => Whole::Chunks,
            Action::Verify(_) => Whole::Reading,
            _ => Whole::Writing,
        };
        effect.locks = vec![locks::whole(how)];
    }
    effect.does.extend(limits(step));
    effect
}

/// What the step says of its own time.
fn limits(step: &Step) -> impl Iterator<Item = String> {
    let lock = step.lock_timeout_ms.map(words::duration);
    let whole = step.timeout_ms.map(words::duration);
    let lock = lock.map(|length| format!("waits for a lock {length} at most"));
    lock.into_iter().chain(whole.map(|length| format!("is given up after {length}")))
}

fn dialect_of(program: &Program, step: &Step) -> Option<Dialect> {
    let target = step.target.as_ref().and_then(|name| program.targets().get(name));
    target.and_then(|target| Dialect::of(target.engine))
}

fn is_sqlite(program: &Program, step: &Step) -> bool {
    let target = step.target.as_ref().and_then(|name| program.targets().get(name));
    target.is_some_and(|target| target.engine == Engine::Sqlite)
}

/// Which way a mapping is kept in step.
pub(super) fn direction(program: &Program, mapping: &MappingName) -> Direction {
    let of = program.steps().iter().find_map(|step| match &step.action {
        Action::DualWrite(one) if one.mapping == *mapping => Some(one.direction),
        _ => None,
    });
    of.unwrap_or(Direction::Forward)
}

/// What `retire` renames of a mapping, if the plan retires it.
pub(super) fn shape<'a>(program: &'a Program, mapping: &MappingName) -> Option<&'a RetireShape> {
    program.steps().iter().find_map(|step| match &step.action {
        Action::Retire(retire) if retire.mapping == *mapping => Some(&retire.shape),
        _ => None,
    })
}

fn listed(mapping: &Mapping) -> String {
    mapping.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn asking(query: &QueryCheck, dialect: Option<Dialect>) -> Effect {
    let mut does = vec![format!("asks: {}", query.query)];
    does.extend(query.expect.as_ref().map(|expect| format!("expects {expect}")));
    does.extend(query.capture.as_ref().map(|name| format!("keeps the value as {name}")));
    does.extend(
        query
            .within
            .as_ref()
            .map(|within| format!("expects it within {} % of {}", within.percent, within.of)),
    );
    let facts = dialect.map(|dialect| sql::classify(dialect, &query.query));
    let locks = facts.iter().flat_map(|facts| &facts.locks);
    let locks = locks.filter(|lock| !locks::is_catalogue(&lock.table)).map(locks::shown).collect();
    Effect { does, locks }
}

fn comparing((mapping, direction): (&Mapping, Direction), method: Method, repair: bool) -> Effect {
    let (from, into) = (&mapping.from.table, &mapping.into.table);
    let what = match method {
        Method::Full => format!("compares every row of {from} with {into}, both ways"),
        Method::Counts => format!("counts the rows of {from} and {into}: a partial verify"),
        Method::Sample(rows) => format!(
            "compares {} of {from} with {into}: a partial verify",
            words::plural(u64::from(rows), "row")
        ),
    };
    let mut does = vec![what];
    if repair {
        let where_sure = match (direction, mapping.winner) {
            (Direction::Both, Winner::New) => {
                " where no write of the new side can have been missed"
            }
            _ => "",
        };
        does.push(format!(
            "puts differences right by the old side{where_sure}, and compares again"
        ));
    }
    let (work, reason) = match method {
        Method::Full => (RowWork::Scan, "both sides, chunk by chunk"),
        Method::Counts => (RowWork::Scan, "it counts both sides"),
        Method::Sample(_) => (RowWork::None, "some rows, found by their keys"),
    };
    let mut locks = vec![locks::own(from, LockMode::AccessShare, work, reason)];
    if !mapping.is_in_place() {
        locks.push(locks::own(into, LockMode::AccessShare, work, reason));
    }
    Effect { does, locks }
}

fn syncing(mapping: &Mapping, dual_write: &DualWrite) -> Effect {
    let (from, into) = (&mapping.from.table, &mapping.into.table);
    let is_both = dual_write.direction == Direction::Both;
    let does = match (mapping.is_in_place(), is_both) {
        (true, false) => {
            format!("puts triggers on {from}: every write to it fills {}", listed(mapping))
        }
        (true, true) => format!(
            "puts triggers on {from}: a write of the old columns fills {}, and one of those the old",
            listed(mapping)
        ),
        (false, false) => format!(
            "puts triggers on {from}: every write to it reaches {into} in the same transaction"
        ),
        (false, true) => format!(
            "puts triggers on {from} and {into}: a write to either reaches the other in the same transaction"
        ),
    };
    let reason =
        "CREATE TRIGGER waits for transactions that wrote to it, and new writes wait behind it";
    let lock = |table: &str| locks::own(table, LockMode::ShareRowExclusive, RowWork::None, reason);
    let mut locks = vec![lock(from)];
    if is_both && !mapping.is_in_place() {
        locks.push(lock(into));
    }
    let mut does = vec![does];
    if mapping.parking.writes {
        does.push(format!(
            "what {into} refuses of a client's write is parked, and the client goes on"
        ));
    }
    Effect { does, locks }
}

fn copying(mapping: &Mapping, backfill: &Backfill) -> Effect {
    let (from, into) = (&mapping.from.table, &mapping.into.table);
    let rows = match backfill.chunk_rows {
        ChunkRows::Auto => "as many rows as take".to_owned(),
        ChunkRows::Fixed(rows) => {
            format!("{}, meant to take", words::plural(u64::from(rows), "row"))
        }
    };
    let mut chunks = format!(
        "in chunks of {rows} {}, {}",
        words::duration(backfill.chunk_time_ms),
        words::plural(u64::from(backfill.workers), "worker"),
    );
    if backfill.pause_between_ms > 0 {
        chunks.push_str(", resting ");
        chunks.push_str(&words::duration(backfill.pause_between_ms));
        chunks.push_str(" after each");
    }
    if let Some(most) = backfill.park_max {
        let rows = words::plural(u64::from(most), "row");
        for part in ["; up to ", &rows, " that can't be copied are parked with the reason"] {
            chunks.push_str(part);
        }
    }
    let what = if mapping.is_in_place() {
        format!("fills {} of the rows of {from} that were there before, {chunks}", listed(mapping))
    } else {
        format!("copies the rows of {from} that were there before into {into}, {chunks}")
    };
    let mut does = vec![what];
    does.extend(mapping.filter.as_ref().map(|filter| format!("only rows where {filter}")));
    if !backfill.throttle.is_empty() {
        let held: Vec<String> = backfill.throttle.iter().map(ToString::to_string).collect();
        does.push(format!("no chunk begins while it is held back by {}", held.join(", ")));
    }
    let each = "each chunk is a transaction of its own";
    let locks = if mapping.is_in_place() {
        vec![locks::of_chunks(from, LockMode::RowExclusive, each)]
    } else {
        vec![
            locks::of_chunks(
                from,
                LockMode::RowShare,
                "each chunk keeps the rows it reads from being deleted",
            ),
            locks::of_chunks(into, LockMode::RowExclusive, each),
        ]
    };
    Effect { does, locks }
}

fn retiring(mapping: &Mapping, retire: &Retire, direction: Direction) -> Effect {
    let (from, into) = (&mapping.from.table, &mapping.into.table);
    let mut does = Vec::new();
    match &retire.shape {
        RetireShape::Table { old_name, take_name } => {
            does.push(format!("renames {from} to {old_name}"));
            if *take_name {
                does.push(format!("renames {into} to {from}, in the same transaction"));
            }
            does.push(match direction {
                Direction::Forward => {
                    format!("ends the sync; from then on {old_name} refuses the writes of clients")
                }
                Direction::Both => "the sync lives on under the new names".to_owned(),
            });
        }
        RetireShape::Columns(columns) => {
            for one in columns {
                does.push(format!("renames column {} of {from} to {}", one.column, one.old_name));
                if let Some(taken) = &one.take_name {
                    does.push(format!("renames column {taken} of {into} to {}", one.column));
                }
            }
        }
    }
    let reason = "a rename takes it; it is waited for within the lock budget, and given up and tried again beyond that";
    let lock = |table: &str| locks::own(table, LockMode::AccessExclusive, RowWork::None, reason);
    let mut locks = vec![lock(from)];
    if !mapping.is_in_place() {
        locks.push(lock(into));
    }
    Effect { does, locks }
}

/// What a step locks beside the tables of its mapping, by what its database showed.
pub(super) fn beside(step: &Step, looks: Option<&Looks>) -> Vec<LockOutlook> {
    let seen = step.target.as_ref().and_then(|target| looks?.get(target));
    let (Action::Retire(retire), Some(Ok(looked))) = (&step.action, seen) else {
        return Vec::new();
    };
    let all = &looked.probed.beside;
    let Some(of) = all.iter().find(|of| of.mapping == retire.mapping) else { return Vec::new() };
    let why = |beside: Beside| match beside {
        Beside::View => "it is made again from its definition",
        Beside::Policy => "a policy on it is made again",
        Beside::RefersToIt => {
            "its foreign key goes over; right after that it is checked, which holds up no client"
        }
        Beside::IsReferredTo => "a foreign key to it goes with what is put aside",
    };
    let lock = |(name, beside): &(String, Beside)| {
        locks::own(name, LockMode::AccessExclusive, RowWork::None, why(*beside))
    };
    of.locked.iter().map(lock).collect()
}

fn dropping(program: &Program, mapping: &Mapping) -> Effect {
    let shape = shape(program, &mapping.name);
    let aside = shape.map_or_else(|| mapping.clone(), |shape| mapping.retired(shape));
    let from = aside.from.table.clone();
    let what = match shape {
        Some(RetireShape::Columns(columns)) => {
            let names: Vec<&str> = columns.iter().map(|one| one.old_name.as_str()).collect();
            format!("drops {} of {from}, with everything in them", names.join(", "))
        }
        _ => format!("drops {from}, with every row of it"),
    };
    let lock =
        |table: &str, reason| locks::own(table, LockMode::AccessExclusive, RowWork::None, reason);
    let mut locks = vec![lock(&from, "DROP takes it; files are unlinked, no row is read")];
    if !aside.is_in_place() {
        let reason = "its triggers of the sync go, if any are left; nobody writes to it meanwhile";
        locks.push(lock(&aside.into.table, reason));
    }
    let does = vec!["takes out what is left of the sync".to_owned(), what];
    Effect { does, locks }
}

fn stopping(mapping: &Mapping) -> Effect {
    let from = &mapping.from.table;
    let lock = locks::own(from, LockMode::AccessExclusive, RowWork::None, "DROP TRIGGER takes it");
    Effect {
        does: vec![format!(
            "takes the triggers of the sync off {from}; both sides stay as they are"
        )],
        locks: vec![lock],
    }
}

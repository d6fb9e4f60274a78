//! What a database showed, in lines for people; programs get it as it is.

use serde_json::{Map, Value};

use crate::bounds::message::OBJECTS_NAMED_MAX;
use crate::diagnostic::masked;
use crate::driver::probed::{
    MappingFacts, ObjectFacts, Probed, ReplicaFacts, Seen, SessionFacts, TableFacts,
};
use crate::report::dry_run::{Line, Look, TableRow};
use crate::report::words;
use crate::run::{Action, Program, TargetName};

use super::{Looked, guess, judge, uses};

/// What was seen in a database.
pub(super) fn of(program: &Program, target: &TargetName, looked: &Looked) -> Look {
    let probed = &looked.probed;
    let identity = &looked.identity;
    let role = match identity.role.as_str() {
        "" => String::new(),
        role => format!(" as {role}"),
    };
    let mut shown = probed.clone();
    if let Seen::Known(sessions) = &mut shown.sessions {
        for session in sessions {
            session.query = masked(&session.query);
        }
    }
    let facts = match serde_json::to_value(&shown) {
        Ok(Value::Object(facts)) => facts,
        _ => Map::new(),
    };
    Look {
        server: probed.server.clone(),
        identity: format!("{} of {}{role}", identity.database, identity.system),
        took_ms: looked.took_ms,
        tables: probed.tables.iter().map(row).collect(),
        lines: lines(program, target, looked),
        facts,
    }
}

fn row(table: &TableFacts) -> TableRow {
    let unknown = || "?".to_owned();
    let rows = table
        .rows
        .as_ref()
        .map_or_else(unknown, |rows| format!("{} ({})", words::count(rows.rows), rows.basis));
    TableRow {
        table: table.table.clone(),
        rows: table.kind.as_ref().map_or_else(|| rows.clone(), |kind| format!("{rows}, {kind}")),
        size: table.table_bytes.map_or_else(unknown, size),
        indexes: table.index_bytes.map_or_else(unknown, size),
        owner: table.owner.clone().unwrap_or_else(|| "-".to_owned()),
    }
}

fn line(topic: impl Into<String>, text: impl Into<String>) -> Line {
    Line { topic: topic.into(), text: text.into() }
}

fn lines(program: &Program, target: &TargetName, looked: &Looked) -> Vec<Line> {
    let probed = &looked.probed;
    let mut lines = Vec::new();
    let copied = uses::copied_shapes(program, target);
    for table in &probed.tables {
        lines.extend(of_table(table));
        if copied.contains(&table.table) {
            lines.extend(of_its_copy(table, &looked.identity.role));
        }
    }
    for mapping in &probed.mappings {
        lines.extend(of_mapping(program, (target, probed), mapping));
    }
    lines.push(rights(probed));
    let needed = bytes_needed(program, target, probed);
    let room = match (&probed.disk_free_bytes, needed) {
        (Seen::Known(free), 0) => format!("{} free", size(*free)),
        (Seen::Known(free), needed) => {
            format!("{} free, about {} needed for copies", size(*free), size(needed))
        }
        (Seen::Hidden(why), 0) => format!("not visible: {why}"),
        (Seen::Hidden(why), needed) => {
            format!("not visible: {why}; about {} needed for copies", size(needed))
        }
    };
    lines.push(line("disk", room));
    lines.extend(sessions(&probed.sessions));
    lines.push(line(
        "connections",
        seen(&probed.connections, |it| format!("{} of {} in use", it.used, it.limit)),
    ));
    lines.push(line("replicas", seen(&probed.replicas, |all| replicas(all))));
    lines.extend(probed.notes.iter().map(|note| line("note", note)));
    lines
}

fn seen<T>(value: &Seen<T>, says: impl Fn(&T) -> String) -> String {
    match value {
        Seen::Known(value) => says(value),
        Seen::Hidden(why) => format!("not visible: {why}"),
    }
}

fn of_table(table: &TableFacts) -> Vec<Line> {
    let name = &table.table;
    let mut lines = Vec::new();
    if !table.dependents.is_empty() {
        lines.push(line(format!("on {name} depend"), objects(&table.dependents)));
    }
    if !table.triggers.is_empty() {
        lines.push(line(format!("triggers of {name}"), objects(&table.triggers)));
    }
    if let Some(security) = &table.row_security {
        let forced = if security.is_forced { ", forced for its owner too" } else { "" };
        let bound =
            if security.binds_us { "hides rows from this role" } else { "binds this role not" };
        lines.push(line(
            format!("row security of {name}"),
            format!("{bound}{forced}; policies: {}", security.policies.join(", ")),
        ));
    }
    lines
}

/// What a copy of the table's shape would not have. An owner who makes the copy owns that, too.
fn of_its_copy(table: &TableFacts, role: &str) -> Option<Line> {
    let is_worth_it = |it: &&ObjectFacts| it.kind != "owner" || it.name != role;
    let lacks: Vec<ObjectFacts> = table.not_copied.iter().filter(is_worth_it).cloned().collect();
    let topic = format!("LIKE {} lacks", table.table);
    (!lacks.is_empty()).then(|| line(topic, objects(&lacks)))
}

fn of_mapping(
    program: &Program,
    (target, probed): (&TargetName, &Probed),
    facts: &MappingFacts,
) -> Vec<Line> {
    let Some(mapping) = program.mappings().get(&facts.mapping) else { return Vec::new() };
    // Both facts are of where rows come from.
    if mapping.from.target != *target {
        return Vec::new();
    }
    let key = mapping.from.key.join(", ");
    let served = match &facts.key.index {
        Some(index) => format!("found by {index}"),
        None => format!("no index serves it: {}", facts.key.plan.join("; ")),
    };
    let mut lines = vec![line(format!("key of {}", facts.mapping), format!("({key}) {served}"))];
    let table = probed.tables.iter().find(|table| table.table == mapping.from.table);
    let engine = program.targets().get(&mapping.from.target).map(|target| target.engine);
    let (Some(table), Some(engine)) = (table, engine) else { return lines };
    for step in program.steps() {
        let Action::Backfill(backfill) = &step.action else { continue };
        if backfill.mapping == facts.mapping {
            let copy = guess::Copy { step: step.id.as_str(), backfill, mapping, engine };
            lines.push(line(format!("copy of {}", facts.mapping), copy.says(table, facts.sample)));
        }
    }
    lines
}

fn rights(probed: &Probed) -> Line {
    if probed.rights.is_empty() {
        let none = if probed.server.starts_with("SQLite") {
            "the database knows none: who may write the file may do all"
        } else {
            "not visible: the server says what the role lacks when it refuses something"
        };
        return line("rights", none);
    }
    let lacking: Vec<String> = probed
        .rights
        .iter()
        .filter(|right| !right.lacking.is_empty())
        .map(|right| {
            format!("{} lacks {} on {}", right.step, right.lacking.join(", "), right.object)
        })
        .collect();
    if lacking.is_empty() {
        let checked = words::plural(probed.rights.len() as u64, "need");
        return line("rights", format!("the role has what the steps need ({checked} looked at)"));
    }
    line("rights", lacking.join("; "))
}

fn sessions(sessions: &Seen<Vec<SessionFacts>>) -> Vec<Line> {
    match sessions {
        Seen::Hidden(why) => vec![line("sessions", format!("not visible: {why}"))],
        Seen::Known(all) if all.is_empty() => {
            vec![line("sessions", "nobody holds a lock that is in the way now")]
        }
        Seen::Known(all) => all.iter().map(|one| line("session", session(one))).collect(),
    }
}

/// A session in one sentence: who, since when, what it holds, what it runs.
pub(super) fn session(session: &SessionFacts) -> String {
    let role = session.role.as_ref().map(|role| format!(" of {role}"));
    let application = session.application.as_ref().filter(|name| !name.is_empty());
    let application = application.map(|name| format!(" ({name})"));
    let list = |before: &str, all: &[String]| {
        (!all.is_empty()).then(|| format!(", {before} {}", all.join(", ")))
    };
    format!(
        "pid {}{}{}, {}, open for {}{}{}: {}",
        session.id,
        role.unwrap_or_default(),
        application.unwrap_or_default(),
        session.state,
        words::duration(session.age_ms),
        list("holds", &session.locks).unwrap_or_default(),
        list("waits for pid", &session.waits_for).unwrap_or_default(),
        masked(&session.query),
    )
}

fn replicas(all: &[ReplicaFacts]) -> String {
    if all.is_empty() {
        return "none".to_owned();
    }
    let each = all.iter().map(|one| {
        let lag = one.lag_ms.map_or_else(
            || "lag unknown".to_owned(),
            |ms| format!("{} behind", words::duration(ms)),
        );
        format!("{} {}, {lag}", one.name, one.state)
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Objects by kind and name; of many only the first.
pub(super) fn objects(objects: &[ObjectFacts]) -> String {
    let mut names: Vec<String> = objects.iter().take(OBJECTS_NAMED_MAX).map(judge::named).collect();
    if objects.len() > OBJECTS_NAMED_MAX {
        names.push(format!("and {} more", objects.len() - OBJECTS_NAMED_MAX));
    }
    names.join(", ")
}

/// How much room the copies into other tables need: as much as their sources take, indexes included. A copy in place writes
/// every row anew, and the old versions stay until they are vacuumed.
pub(super) fn bytes_needed(program: &Program, target: &TargetName, probed: &Probed) -> u64 {
    let copied = program.steps().iter().filter_map(|step| match &step.action {
        Action::Backfill(backfill) => program.mappings().get(&backfill.mapping),
        _ => None,
    });
    let mut tables: Vec<&str> = copied
        .filter(|mapping| mapping.is_pushdown() && mapping.into.target == *target)
        .map(|mapping| mapping.from.table.as_str())
        .collect();
    tables.sort_unstable();
    tables.dedup();
    let of = |name: &&str| probed.tables.iter().find(|table| table.table == **name);
    let bytes = tables
        .iter()
        .filter_map(of)
        .map(|table| table.table_bytes.unwrap_or(0).saturating_add(table.index_bytes.unwrap_or(0)));
    bytes.fold(0, u64::saturating_add)
}

/// Bytes in the unit that people read them in.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

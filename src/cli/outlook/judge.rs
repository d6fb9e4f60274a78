//! What a dry run makes of what it saw, beyond the findings of plans and drivers: codes R102 and up. Long locks
//! are findings of the plan itself.
//!
//! Warnings, but for a disk that can't hold the copy: what stands in the way now may be gone when the plan runs. What the new
//! table lacks that the old one has is among the driver's findings.

use crate::bounds::probe::{CONNECTIONS_MIN, OLD_TRANSACTION_MS};
use crate::diagnostic::{Code, Diagnostic, Location, known as codes};
use crate::driver::Purpose;
use crate::driver::probed::{ObjectFacts, Probed, Seen};
use crate::report::dry_run::Noted;
use crate::report::words;
use crate::run::{Action, Engine, Pin, RetireShape, Step, StepId, TargetName};
use crate::sql;

use super::Looked;
use super::effects;
use super::look;
use super::uses;

fn place((file, line): (&str, u32)) -> Location {
    Location { file: file.into(), line, column: 1, length: 0 }
}

/// What a database showed, judged.
pub(super) fn database(pin: &Pin, (target, looked): (&TargetName, &Looked)) -> Vec<Noted> {
    let probed = &looked.probed;
    let mut judge = Judge { pin, target, found: Vec::new() };
    judge.keys(probed);
    judge.disk(probed);
    judge.dependents(probed);
    judge.sessions(probed);
    judge.connections(probed);
    judge.found
}

struct Judge<'a> {
    pin: &'a Pin,
    target: &'a TargetName,
    found: Vec<Noted>,
}

impl Judge<'_> {
    fn warn(&mut self, code: Code, step: Option<&StepId>, message: &str) -> &mut Diagnostic {
        let mut diagnostic =
            Diagnostic::warning(code, format!("target {}: {message}", self.target));
        let line = step.and_then(|id| self.pin.program.step(id)).map(|step| step.line);
        if let Some(line) = line {
            diagnostic = diagnostic.at(place((&self.pin.path, line)));
        }
        self.found.push(Noted {
            diagnostic,
            step: step.map(ToString::to_string),
            target: Some(self.target.to_string()),
        });
        let last = self.found.len() - 1;
        &mut self.found[last].diagnostic
    }

    /// The steps on this target whose action is on a mapping.
    fn steps_of<'s>(
        &'s self,
        mapping: &'s crate::run::MappingName,
    ) -> impl Iterator<Item = &'s Step> {
        let steps = self.pin.program.steps().iter();
        steps.filter(move |step| step.action.mapping() == Some(mapping))
    }

    fn keys(&mut self, probed: &Probed) {
        for facts in &probed.mappings {
            if facts.key.index.is_some() {
                continue;
            }
            let copies = |step: &&Step| matches!(step.action, Action::Backfill(_));
            let step = self.steps_of(&facts.mapping).find(copies).map(|step| step.id.clone());
            let message = format!(
                "no index serves the key of mapping {}: each chunk would go through the table",
                facts.mapping
            );
            self.warn(codes::KEY_NOT_SERVED, step.as_ref(), &message).help =
                Some(format!("the database plans: {}", facts.key.plan.join("; ")));
        }
    }

    fn disk(&mut self, probed: &Probed) {
        let Seen::Known(free) = &probed.disk_free_bytes else { return };
        let needed = look::bytes_needed(&self.pin.program, self.target, probed);
        if needed <= *free {
            return;
        }
        let message = format!(
            "the copies need about {} and {} are free",
            look::size(needed),
            look::size(*free)
        );
        let diagnostic = self.warn(codes::NO_ROOM, None, &message);
        diagnostic.severity = crate::diagnostic::Severity::Error;
        diagnostic.help = Some("make room, or copy less: `where` restricts a mapping".to_owned());
    }

    /// What names a table that is put aside or goes.
    fn dependents(&mut self, probed: &Probed) {
        let survey = uses::survey(&self.pin.program, self.target);
        let dropped: Vec<&str> = survey
            .uses
            .iter()
            .filter(|used| used.purpose == Purpose::Drop)
            .map(|used| used.table.as_str())
            .collect();
        for table in &probed.tables {
            let goes = survey.uses.iter().find(|used| {
                used.table == table.table && matches!(used.purpose, Purpose::Retire | Purpose::Drop)
            });
            let Some(goes) = goes else { continue };
            let columns = self.columns_aside(&goes.step);
            let is_ours = goes.purpose == Purpose::Retire && self.is_of_an_action(&goes.step);
            let known = self.known(&goes.step);
            let left = |it: &&ObjectFacts| {
                let is_carried = is_ours && columns.is_none() && goes_over(it);
                !goes_too(it, &dropped)
                    && !is_known(it, known)
                    && !is_carried
                    && columns.as_ref().is_none_or(|all| may_name(it, all))
            };
            let left: Vec<ObjectFacts> = table.dependents.iter().filter(left).cloned().collect();
            if left.is_empty() {
                continue;
            }
            let what = if goes.purpose == Purpose::Retire { "puts aside" } else { "drops" };
            let goes_of_it = columns.map_or_else(
                || format!(", which {} {what}", goes.step),
                |all| format!(", of which {} {what} {}", goes.step, all.join(", ")),
            );
            let depend = if left.len() == 1 { "depends" } else { "depend" };
            let message = format!(
                "{} {depend} on {}{goes_of_it}: {}",
                words::plural(left.len() as u64, "object"),
                table.table,
                look::objects(&left)
            );
            let step = goes.step.clone();
            let help = self.help_for_dependents(&step);
            self.warn(codes::DEPENDENTS, Some(&step), &message).help = Some(help.to_owned());
        }
    }

    /// Functions that a `retire` says are known.
    fn known(&self, step: &StepId) -> &[String] {
        match self.pin.program.step(step).map(|step| &step.action) {
            Some(Action::Retire(retire)) => &retire.known,
            _ => &[],
        }
    }

    /// The columns of a mapping's table that a step puts aside or drops; none where the whole table goes.
    fn columns_aside(&self, step: &StepId) -> Option<Vec<String>> {
        let program = &self.pin.program;
        let mapping = program.step(step)?.action.mapping()?;
        match effects::shape(program, mapping)? {
            RetireShape::Columns(columns) => {
                Some(columns.iter().map(|one| one.column.clone()).collect())
            }
            RetireShape::Table { .. } => None,
        }
    }

    /// What to do about dependents: our own steps look for them, and a statement of the plan is the server's to refuse.
    fn help_for_dependents(&self, step: &StepId) -> &'static str {
        match self.pin.program.step(step).map(|step| &step.action) {
            Some(Action::Sql(_)) => {
                "make those that must go on name the new table, or drop them, too; the server refuses a DROP while a view or \
                 a foreign key is left, and knows nothing of functions that name the table in their text"
            }
            Some(Action::Retire(_)) if self.is_postgres() => {
                "drop them, or make them anew on the new table, in a step before it: retire is refused while any is left, but \
                 for functions that name it in their text and are listed under its `known`; plain views of whole tables it \
                 makes again itself"
            }
            _ => {
                "make those that must go on name the new table; a drop is refused while any is left"
            }
        }
    }

    /// Whether it is `retire` on PostgreSQL that puts something aside, which carries over what it can, and no statement.
    fn is_of_an_action(&self, step: &StepId) -> bool {
        let action = self.pin.program.step(step).map(|step| &step.action);
        self.is_postgres() && matches!(action, Some(Action::Retire(_)))
    }

    fn is_postgres(&self) -> bool {
        let target = self.pin.program.targets().get(self.target);
        target.is_some_and(|target| target.engine == Engine::Postgres)
    }

    fn sessions(&mut self, probed: &Probed) {
        let Seen::Known(sessions) = &probed.sessions else { return };
        for session in
            sessions.iter().filter(|it| it.age_ms >= OLD_TRANSACTION_MS || !it.waits_for.is_empty())
        {
            let message = format!("a change would wait now: {}", look::session(session));
            self.warn(codes::IN_THE_WAY, None, &message).help =
                Some("wait for it to end, or end it with its owner's consent".to_owned());
        }
    }

    fn connections(&mut self, probed: &Probed) {
        let Seen::Known(connections) = &probed.connections else { return };
        let left = connections.limit.saturating_sub(connections.used);
        if left >= CONNECTIONS_MIN {
            return;
        }
        let message = format!(
            "{} of {} connections are in use, and a run opens up to {CONNECTIONS_MIN}",
            connections.used, connections.limit
        );
        self.warn(codes::FEW_CONNECTIONS, None, &message).help =
            Some("free some, or raise max_connections".to_owned());
    }
}

/// Whether the plan says that a function which names the object in its text is known.
fn is_known(object: &ObjectFacts, known: &[String]) -> bool {
    let (schema, name) = sql::qualified_name(object.name.split('(').next().unwrap_or_default());
    let is_it = |known: &String| {
        let (wanted_schema, wanted) = sql::qualified_name(known);
        wanted == name && (schema.is_none() || wanted_schema == schema)
    };
    object.kind == "function"
        && object.detail.as_deref() == Some("by its text")
        && known.iter().any(is_it)
}

/// Whether `retire` carries it over itself: plain views, other tables' policies and foreign keys, publications.
fn goes_over(object: &ObjectFacts) -> bool {
    matches!(object.kind.as_str(), "view" | "policy" | "foreign key" | "publication")
}

/// Whether a foreign key goes with its own table, which the plan drops, too.
fn goes_too(object: &ObjectFacts, dropped: &[&str]) -> bool {
    let table = object.name.rsplit_once(" on table ").map(|(_, table)| table);
    object.kind == "foreign key" && table.is_some_and(|table| dropped.contains(&table))
}

/// Whether an object may name one of the columns. Of a foreign key that stands in its definition; of others it isn't known.
fn may_name(object: &ObjectFacts, columns: &[String]) -> bool {
    let referenced = object.detail.as_deref().and_then(|detail| detail.split_once("REFERENCES "));
    let Some((_, referenced)) = referenced.filter(|_| object.kind == "foreign key") else {
        return true;
    };
    let referenced = referenced.split_once(')').map_or(referenced, |(list, _)| list);
    let list = referenced.split_once('(').map_or(referenced, |(_, list)| list);
    let mut names = list.split(',').map(|name| name.trim().trim_matches('"'));
    names.any(|name| columns.iter().any(|column| column == name))
}

/// Whether an object is worth naming: kept here so that [`look`] and the findings say the same.
pub(super) fn named(object: &ObjectFacts) -> String {
    match &object.detail {
        Some(detail) => format!("{} {} ({detail})", object.kind, object.name),
        None => format!("{} {}", object.kind, object.name),
    }
}

//! What a dry run makes of what it saw, beyond the findings of plans and drivers: codes R101 and up.
//!
//! Warnings, but for a disk that can't hold the copy: what stands in the way now may be gone when the plan runs, and whether a
//! long lock is bearable is for people to say. What the new table lacks that the old one has is among the driver's findings.

use std::path::Path;

use crate::diagnostic::{Code, Diagnostic, Location, known as codes};
use crate::driver::Purpose;
use crate::driver::probed::{ObjectFacts, Probed, Seen};
use crate::report::dry_run::{LockOutlook, Noted, StatementOutlook, StepOutlook};
use crate::report::words;
use crate::run::{Action, Pin, Step, StepId, TargetName};

use super::Looked;
use super::look;
use super::uses;

/// Locks that keep clients out while rows are worked on.
pub(super) fn statements(pin: &Pin, steps: &[StepOutlook]) -> Vec<Noted> {
    let mut found = Vec::new();
    for step in steps {
        for statement in &step.statements {
            let long = statement.locks.iter().filter(|lock| is_long(lock));
            let long = long.filter(|lock| !is_unused_yet(pin, step, &lock.object));
            found.extend(long.map(|lock| Noted {
                diagnostic: long_lock(pin, statement, lock),
                step: Some(step.id.clone()),
                target: step.target.clone(),
            }));
        }
    }
    found
}

fn long_lock(pin: &Pin, statement: &StatementOutlook, lock: &LockOutlook) -> Diagnostic {
    let file = statement.file.as_ref().map(|name| beside(&pin.path, name));
    let file = file.as_deref().unwrap_or(&pin.path);
    let message =
        format!("{} {} while it {}: {}", lock.object, blocks(lock), lock.work, lock.reason);
    Diagnostic::warning(codes::LONG_LOCK, message)
        .with_help("see `phasegate explain R101` for the form that does it without the wait")
        .at(place((file, statement.line)))
}

/// A file that the plan names, as it is named from here.
fn beside(plan: &str, name: &str) -> String {
    let folder = Path::new(plan).parent().unwrap_or_else(|| Path::new(""));
    folder.join(name).display().to_string()
}

fn is_long(lock: &LockOutlook) -> bool {
    let keeps_out = matches!(
        lock.mode.as_str(),
        "SHARE" | "SHARE ROW EXCLUSIVE" | "EXCLUSIVE" | "ACCESS EXCLUSIVE"
    );
    keeps_out && matches!(lock.rewrite, "scan" | "index_build" | "rewrite" | "unknown")
}

fn blocks(lock: &LockOutlook) -> &'static str {
    if lock.mode == "ACCESS EXCLUSIVE" {
        "can be neither read nor written"
    } else {
        "can't be written"
    }
}

/// Whether the plan made the table itself, and no write of a client reaches it yet.
fn is_unused_yet(pin: &Pin, step: &StepOutlook, table: &str) -> bool {
    let is_made = pin.program.steps().iter().any(|one| match &one.action {
        Action::Sql(script) => script
            .creates
            .iter()
            .any(|created| created.column.is_none() && created.table.eq_ignore_ascii_case(table)),
        _ => false,
    });
    is_made && step.phase == crate::run::Phase::Expand.as_str()
}

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
        for table in &probed.tables {
            if table.dependents.is_empty() {
                continue;
            }
            let goes = survey.uses.iter().find(|used| {
                used.table == table.table && matches!(used.purpose, Purpose::Retire | Purpose::Drop)
            });
            let Some(goes) = goes else { continue };
            let what = if goes.purpose == Purpose::Retire { "puts aside" } else { "drops" };
            let message = format!(
                "{} depend on {}, which {} {what}: {}",
                words::plural(table.dependents.len() as u64, "object"),
                table.table,
                goes.step,
                look::objects(&table.dependents)
            );
            let step = goes.step.clone();
            self.warn(codes::DEPENDENTS, Some(&step), &message).help = Some(
                "make those that must go on name the new table; a drop is refused while any is left"
                    .to_owned(),
            );
        }
    }

    fn sessions(&mut self, probed: &Probed) {
        let Seen::Known(sessions) = &probed.sessions else { return };
        for session in sessions.iter().filter(|it| it.age_ms >= OLD_MS || !it.waits_for.is_empty())
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

/// From which age on a transaction is worth a warning: longer than any lock is waited for.
const OLD_MS: u64 = 60_000;

/// How many connections a run may open: one for steps, one for questions, and some workers.
const CONNECTIONS_MIN: u32 = 6;

/// Whether an object is worth naming: kept here so that [`look`] and the findings say the same.
pub(super) fn named(object: &ObjectFacts) -> String {
    match &object.detail {
        Some(detail) => format!("{} {} ({detail})", object.kind, object.name),
        None => format!("{} {}", object.kind, object.name),
    }
}

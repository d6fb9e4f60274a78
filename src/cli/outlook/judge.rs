//! What a dry run makes of what it saw, beyond the findings of plans and drivers: codes R102 and up. Long locks
//! are findings of the plan itself.
//!
//! Warnings, but for a disk that can't hold the copy: what stands in the way now may be gone when the plan runs. What the new
//! table lacks that the old one has is among the driver's findings.

use crate::diagnostic::{Code, Diagnostic, Location, known as codes};
use crate::driver::Purpose;
use crate::driver::probed::{ObjectFacts, Probed, Seen};
use crate::report::dry_run::Noted;
use crate::report::words;
use crate::run::{Action, Pin, Step, StepId, TargetName};

use super::Looked;
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

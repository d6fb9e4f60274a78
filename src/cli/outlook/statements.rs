//! The statements of a program, read again: the program keeps their texts and not what they do.

use std::collections::BTreeMap;

use crate::diagnostic::masked;
use crate::report::dry_run::StatementOutlook;
use crate::run::{Action, Hazard, Program, Script, Step, StepId, TargetName, Undo};
use crate::sql::{self, Dialect, Facts, Object};

use super::{danger, locks};

/// Which of a step's two scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// What it does.
    Step,
    /// How it is undone.
    Undo,
}

/// What the statements of a program do.
#[derive(Debug, Default)]
pub(super) struct Readings {
    of: BTreeMap<(StepId, Part), Vec<Reading>>,
}

/// What one statement does.
#[derive(Debug)]
pub(super) struct Reading {
    /// By its text.
    pub facts: Facts,
    /// What it may destroy, given what the plan had made before.
    pub hazard: Hazard,
    /// Whether the database locks tables one by one.
    pub knows_locks: bool,
}

impl Readings {
    /// Reads every statement once, in the plan's order.
    pub(super) fn of(program: &Program) -> Self {
        let mut readings = Self::default();
        let mut created: BTreeMap<&TargetName, Vec<Object>> = BTreeMap::new();
        for step in program.steps() {
            let Some(target) = &step.target else { continue };
            let Some(dialect) = program.targets().get(target).and_then(|it| Dialect::of(it.engine))
            else {
                continue;
            };
            let made = created.entry(target).or_default();
            if let Action::Sql(script) = &step.action {
                let read = read(script, dialect, made);
                made.extend(read.iter().flat_map(|one| one.facts.creates.iter().cloned()));
                readings.of.insert((step.id.clone(), Part::Step), read);
            }
            if let Undo::Script(script) = &step.undo {
                readings.of.insert((step.id.clone(), Part::Undo), read(script, dialect, made));
            }
        }
        readings
    }

    /// What the statements of a step do, in their order.
    pub(super) fn of_step(&self, step: &Step) -> &[Reading] {
        self.of.get(&(step.id.clone(), Part::Step)).map_or(&[], Vec::as_slice)
    }

    /// A script as a dry run shows it.
    pub(super) fn show(
        &self,
        script: &Script,
        (step, part): (&StepId, Part),
    ) -> Vec<StatementOutlook> {
        let readings = self.of.get(&(step.clone(), part)).map_or(&[][..], Vec::as_slice);
        let shown = script.statements.iter().enumerate().map(|(at, statement)| {
            let reading = readings.get(at);
            StatementOutlook {
                text: masked(&statement.text),
                file: script.file.clone(),
                line: statement.line,
                danger: danger::of_statement(
                    reading.map_or(&Hazard::None, |reading| &reading.hazard),
                    &script.hazard,
                ),
                outside_transaction: reading.and_then(|it| it.facts.outside_transaction.clone()),
                locks: reading.map_or_else(Vec::new, locks::of_statement),
            }
        });
        shown.collect()
    }
}

fn read(script: &Script, dialect: Dialect, created: &[Object]) -> Vec<Reading> {
    let statements = script.statements.iter();
    statements
        .map(|statement| {
            let facts = sql::classify(dialect, &statement.text);
            let hazard = facts.hazard_given(dialect, created);
            Reading { facts, hazard, knows_locks: dialect == Dialect::Postgres }
        })
        .collect()
}

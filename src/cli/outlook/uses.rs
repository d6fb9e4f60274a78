//! What a plan does with tables that are there before it: the question that a probe asks beyond the survey of a run.

use std::collections::BTreeSet;

use crate::driver::{Purpose, Survey, TableUse};
use crate::engine;
use crate::run::{Action, CopyColumns, Program, Step, TargetName};
use crate::sql::{self, Change, Dialect, Facts, LockMode, RowWork};

use super::statements::Readings;

/// The survey of a target, with what statements do with tables as far as their text tells.
#[must_use]
pub fn survey(program: &Program, target: &TargetName) -> Survey {
    let mut survey = engine::survey(program, target);
    let readings = Readings::of(program);
    let mut uses: Vec<TableUse> = Vec::new();
    for step in program.steps() {
        // A step on a mapping between two databases uses something in each.
        uses.extend(survey.uses.iter().filter(|used| used.step == step.id).cloned());
        if step.target.as_ref() != Some(target) {
            continue;
        }
        let read = readings.of_step(step);
        let statements = match &step.action {
            Action::Sql(script) => script.statements.as_slice(),
            _ => &[],
        };
        for (reading, statement) in read.iter().zip(statements) {
            uses.extend(of_statement(step, &reading.facts, &statement.text));
        }
    }
    let dialect = program.targets().get(target).and_then(|target| Dialect::of(target.engine));
    for (id, query) in &survey.queries {
        let (Some(step), Some(dialect)) = (program.step(id), dialect) else { continue };
        uses.extend(of_statement(step, &sql::classify(dialect, query), query));
    }
    let mut once: Vec<TableUse> = Vec::new();
    for used in uses {
        if !once.contains(&used) {
            once.push(used);
        }
    }
    survey.uses = once;
    survey
}

/// The tables whose shape the plan copies: sources that go into another table whole, and what a statement's `LIKE` names.
pub(super) fn copied_shapes(program: &Program, target: &TargetName) -> BTreeSet<String> {
    let mappings = program.mappings().values().filter(|it| it.from.target == *target);
    let whole =
        mappings.filter(|it| it.is_pushdown() && !it.is_in_place() && it.copy == CopyColumns::All);
    let mut tables: BTreeSet<String> = whole.map(|it| it.from.table.clone()).collect();
    let readings = Readings::of(program);
    for step in program.steps().iter().filter(|step| step.target.as_ref() == Some(target)) {
        let locks = readings.of_step(step).iter().flat_map(|reading| &reading.facts.locks);
        // A lock for reading without reading rows: the shape alone is wanted.
        let shapes =
            locks.filter(|it| it.mode == LockMode::AccessShare && it.work == RowWork::None);
        tables.extend(shapes.map(|lock| lock.table.clone()));
    }
    tables
}

/// What one statement does with each table that it names. A right is asked for only where it is sure to be needed: one that is
/// asked for in vain would stop a plan that works.
fn of_statement(step: &Step, facts: &Facts, text: &str) -> Vec<TableUse> {
    let mut uses: Vec<TableUse> = Vec::new();
    let mut add = |table: &str, purpose: Purpose| {
        uses.push(TableUse { step: step.id.clone(), table: table.to_owned(), purpose });
    };
    for dropped in &facts.drops {
        add(&dropped.table, Purpose::Drop);
    }
    for change in &facts.changes {
        if let Change::RenameTable { table, .. } | Change::RenameColumn { table, .. } = change {
            add(table, Purpose::Retire);
        }
    }
    let first = first_word(text);
    let subject = subject(facts, text);
    for table in &facts.tables {
        let lock = facts.locks.iter().find(|lock| lock.table == *table).map(|lock| lock.mode);
        let is_subject = subject == Some(table.as_str());
        let purpose = match (first.as_str(), lock) {
            ("alter", Some(mode)) if is_subject && mode >= LockMode::ShareUpdateExclusive => {
                Purpose::Change
            }
            ("create", Some(LockMode::Share | LockMode::ShareUpdateExclusive)) if is_subject => {
                Purpose::Change
            }
            ("insert", Some(LockMode::RowExclusive)) if is_subject => Purpose::Insert,
            ("update", Some(LockMode::RowExclusive)) if is_subject => Purpose::Update,
            ("delete", Some(LockMode::RowExclusive)) if is_subject => Purpose::Delete,
            ("select" | "insert" | "update" | "delete", Some(LockMode::AccessShare)) => {
                Purpose::Read
            }
            _ => Purpose::Named,
        };
        add(table, purpose);
    }
    uses
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase()
}

/// The locked table that is named first: what ALTER TABLE alters, what an index is made on, what is written.
fn subject<'a>(facts: &'a Facts, text: &str) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    let at = |table: &str| {
        let (_, name) = sql::qualified_name(table);
        text.find(&name.to_ascii_lowercase())
    };
    let mut named: Vec<(usize, &str)> = facts
        .locks
        .iter()
        .filter_map(|lock| Some((at(&lock.table)?, lock.table.as_str())))
        .collect();
    named.sort_unstable();
    named.first().map(|(_, table)| *table)
}

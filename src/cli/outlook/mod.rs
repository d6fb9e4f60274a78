//! From a plan, and from what its databases showed, to a [`DryRun`]: the one place that puts a dry run into words.
//!
//! Invariants:
//! - Nothing here opens anything: it is given a plan and, after a probe, what each database told.
//! - What a statement may destroy is what the run will hold it for: a statement of a step that needs no gate is never shown as
//!   one that does.
//! - What gates ask is worded by gate logic itself, so that the words here and in `gates` are the same.

mod crossing;
mod danger;
mod effects;
mod gate;
mod graphs;
mod guess;
mod judge;
mod locks;
mod look;
mod statements;
#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests;
mod uses;

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, masked};
use crate::driver::{Identity, Probed};
use crate::report::deeds;
use crate::report::dry_run::{
    Depth, DryRun, Noted, StepOutlook, TargetError, TargetOutlook, UndoKind, UndoOutlook,
};
use crate::run::{
    Action, Direction, Engine, EnvironmentName, Pin, Program, Step, TargetName, Undo,
};

use super::answer::Failure;
use super::trouble;
use super::wiring::LoadedPlan;
use statements::Readings;

pub use uses::survey;

/// What a database told.
#[derive(Debug)]
pub struct Looked {
    /// Who it is.
    pub identity: Identity,
    /// What was seen.
    pub probed: Probed,
    /// How long looking took, in milliseconds.
    pub took_ms: u64,
    /// What kept the plan's needs from being looked at: nobody knows then what else is wrong.
    pub unseen: Option<Failure>,
}

/// What each database told, or why nothing could be seen.
pub type Looks = BTreeMap<TargetName, Result<Looked, Failure>>;

/// The dry run of a valid plan; with what its databases told, where they were asked.
#[must_use]
pub fn of_plan(plan: &LoadedPlan, looks: Option<&Looks>) -> DryRun {
    let (pin, program) = (&plan.pin, &plan.pin.program);
    let readings = Readings::of(program);
    let waves = waves(program);
    let steps: Vec<StepOutlook> = waves
        .iter()
        .zip(1..)
        .flat_map(|(wave, number)| wave.iter().map(move |step| (*step, number)))
        .map(|(step, wave)| {
            let mut outlook = of_step(pin, &readings, (step, wave));
            outlook.locks.extend(effects::beside(step, looks));
            outlook
        })
        .collect();
    let irreversible =
        |id: &&crate::run::StepId| program.step(id).is_some_and(|it| it.irreversible.is_some());
    let mut findings: Vec<Noted> =
        plan.warnings.iter().map(|warning| of_warning(pin, warning)).collect();
    for (target, look) in looks.into_iter().flatten() {
        let Ok(looked) = look else { continue };
        findings.extend(of_database(pin, target, looked));
        findings.extend(judge::database(pin, (target, looked)));
    }
    DryRun {
        file: pin.path.clone(),
        plan: Some(program.plan().to_owned()),
        digest: Some(program.digest().as_str().to_owned()),
        environment: program.environment().to_string(),
        depth: if looks.is_some() { Depth::Probe } else { Depth::Render },
        waves: waves
            .iter()
            .map(|wave| wave.iter().map(|step| step.id.to_string()).collect())
            .collect(),
        steps,
        point_of_no_return: program.order().iter().find(irreversible).map(ToString::to_string),
        targets: targets(program, looks),
        findings,
        sources: plan.sources.clone(),
    }
}

/// The dry run of a file that is no valid plan: its findings.
#[must_use]
pub fn of_findings(
    file: &str,
    environment: &EnvironmentName,
    depth: Depth,
    failure: &Failure,
) -> DryRun {
    let alone =
        |finding: &Diagnostic| Noted { diagnostic: finding.clone(), step: None, target: None };
    DryRun {
        file: file.to_owned(),
        plan: None,
        digest: None,
        environment: environment.to_string(),
        depth,
        steps: Vec::new(),
        waves: Vec::new(),
        point_of_no_return: None,
        targets: Vec::new(),
        findings: failure.found.findings.iter().map(alone).collect(),
        sources: failure.found.sources.clone(),
    }
}

/// Steps that need no other of the same group, each group behind those it needs.
fn waves(program: &Program) -> Vec<Vec<&Step>> {
    let mut levels: BTreeMap<&crate::run::StepId, usize> = BTreeMap::new();
    let mut waves: Vec<Vec<&Step>> = Vec::new();
    for step in program.order().iter().filter_map(|id| program.step(id)) {
        let level = step.needs.iter().filter_map(|need| levels.get(need)).max();
        let level = level.map_or(0, |deepest| deepest + 1);
        levels.insert(&step.id, level);
        if waves.len() <= level {
            waves.resize(level + 1, Vec::new());
        }
        waves[level].push(step);
    }
    waves
}

fn of_step(pin: &Pin, readings: &Readings, (step, wave): (&Step, usize)) -> StepOutlook {
    let program = &pin.program;
    let effect = effects::of(program, step);
    let statements = match &step.action {
        Action::Sql(script) => readings.show(script, (&step.id, statements::Part::Step)),
        _ => Vec::new(),
    };
    StepOutlook {
        id: step.id.to_string(),
        phase: step.phase.as_str(),
        action: step.action.name(),
        target: step.target.as_ref().map(ToString::to_string),
        line: step.line,
        wave,
        needs: step.needs.iter().map(ToString::to_string).collect(),
        description: step.description.as_deref().map(masked),
        does: effect.does.iter().map(|words| masked(words)).collect(),
        statements,
        locks: effect.locks,
        danger: danger::of(&step.hazard),
        irreversible: step.irreversible.clone(),
        undo: undo(program, step, readings),
        gate: gate::of(pin, step),
        behind: program.releasing_gates(&step.id).map(ToString::to_string).collect(),
    }
}

fn undo(program: &Program, step: &Step, readings: &Readings) -> UndoOutlook {
    let (kind, says, statements) = match &step.undo {
        Undo::None(None) => (UndoKind::Nothing, "there is nothing to undo".to_owned(), Vec::new()),
        Undo::None(Some(reason)) => {
            (UndoKind::Nothing, format!("nothing is undone: {reason}"), Vec::new())
        }
        Undo::Script(script) => {
            let shown = readings.show(script, (&step.id, statements::Part::Undo));
            (UndoKind::Statements, "by these statements".to_owned(), shown)
        }
        Undo::Derived => {
            let mapping = step.action.mapping();
            let direction =
                mapping.map_or(Direction::Forward, |it| effects::direction(program, it));
            let planned = mapping.and_then(|name| program.mappings().get(name));
            let says = deeds::derived(&step.action, direction, planned).to_owned();
            (UndoKind::Derived, says, Vec::new())
        }
        Undo::Impossible => {
            let reason = step.irreversible.as_deref().unwrap_or("the plan doesn't say why");
            (UndoKind::Impossible, format!("impossible: {reason}"), Vec::new())
        }
    };
    UndoOutlook { kind, says: masked(&says), statements }
}

/// A warning of the plan, with the step in whose lines it stands.
fn of_warning(pin: &Pin, warning: &Diagnostic) -> Noted {
    let place = warning.location.as_ref().filter(|location| *location.file == *pin.path);
    let step = place.and_then(|place| {
        let before = pin.program.steps().iter().filter(|step| step.line <= place.line);
        before.max_by_key(|step| step.line)
    });
    Noted { diagnostic: warning.clone(), step: step.map(|step| step.id.to_string()), target: None }
}

/// The findings of a driver.
fn of_database(pin: &Pin, target: &TargetName, looked: &Looked) -> Vec<Noted> {
    let findings = looked.probed.findings.iter();
    findings
        .map(|finding| Noted {
            diagnostic: trouble::as_diagnostic(target, finding, pin),
            step: Some(finding.step.to_string()),
            target: Some(target.to_string()),
        })
        .collect()
}

fn targets(program: &Program, looks: Option<&Looks>) -> Vec<TargetOutlook> {
    let outlook = |(name, target): (&TargetName, &crate::run::Target)| {
        let look = looks.and_then(|looks| looks.get(name));
        TargetOutlook {
            name: name.to_string(),
            engine: engine_name(target.engine).to_owned(),
            url: masked(&target.url),
            look: look.and_then(|look| look.as_ref().ok()).map(|it| look::of(program, name, it)),
            error: look.and_then(|look| look.as_ref().err()).map(|failure| TargetError {
                message: failure.message.clone(),
                causes: failure.causes.clone(),
                help: failure.help.clone(),
            }),
        }
    };
    program.targets().iter().map(outlook).collect()
}

/// A product's name, as people write it.
const fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgres => "PostgreSQL",
        Engine::Neo4j => "Neo4j",
        Engine::Redis => "Redis",
        Engine::Sqlserver => "SQL Server",
        Engine::Mysql => "MySQL",
        Engine::Sqlite => "SQLite",
    }
}

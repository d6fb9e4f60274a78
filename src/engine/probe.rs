//! Reading from the targets what gates ask.

use std::collections::{BTreeMap, BTreeSet};

use crate::driver::{self, SharedDriver};
use crate::run::{
    Action, Observations, Program, State, Step, StepId, TargetFacts, TargetName, Value,
};

use super::patience::{PROBE_WITHIN_MS, patiently, within};

/// What a gate's conditions ask of the targets, gathered before anything is awaited.
pub(super) struct Questions {
    queries: Vec<(TargetName, String)>,
    tables: BTreeMap<TargetName, Vec<String>>,
}

impl Questions {
    pub(super) fn of(state: &State, gate: &StepId) -> Self {
        let program = state.program();
        let queries = match program.step(gate).map(|step| &step.action) {
            Some(Action::Gate(gate)) => gate
                .queries
                .iter()
                .map(|query| (query.target.clone(), query.query.clone()))
                .collect(),
            _ => Vec::new(),
        };
        Self { queries, tables: tables_behind(program, gate) }
    }

    pub(super) async fn ask(self, drivers: &BTreeMap<TargetName, SharedDriver>) -> Observations {
        let mut seen = Observations::default();
        for (target, query) in &self.queries {
            let answer = match drivers.get(target) {
                Some(driver) => asked(|| driver.value(query)).await,
                None => Err(unknown(target)),
            };
            seen.queries.push(answer.map_err(|error| error.to_string()));
        }
        for (target, tables) in &self.tables {
            let facts = match drivers.get(target) {
                Some(driver) => facts(driver, tables).await,
                None => Err(unknown(target)),
            };
            seen.targets.insert(target.clone(), facts.map_err(|error| error.to_string()));
        }
        seen
    }
}

fn unknown(target: &TargetName) -> driver::Error {
    driver::Error::failed(crate::run::FailureClass::Stale, format!("no target {target}"))
}

/// Asks again while others are in the way, and not for ever.
pub(super) async fn asked<T, F>(call: impl FnMut() -> F) -> Result<T, driver::Error>
where
    F: Future<Output = Result<T, driver::Error>>,
{
    within(PROBE_WITHIN_MS, patiently(|| false, call)).await
}

async fn facts(driver: &SharedDriver, tables: &[String]) -> Result<TargetFacts, driver::Error> {
    let identity = asked(|| driver.identity()).await?;
    let fingerprint = asked(|| driver.fingerprint(tables)).await?;
    let identity = format!("{} / {} as {}", identity.system, identity.database, identity.role);
    Ok(TargetFacts { identity, fingerprint })
}

/// The tables that the work behind a gate touches, by target.
pub(super) fn tables_behind(program: &Program, gate: &StepId) -> BTreeMap<TargetName, Vec<String>> {
    let mut tables: BTreeMap<TargetName, BTreeSet<String>> = BTreeMap::new();
    for step in program.released_by(gate) {
        let Some(target) = &step.target else { continue };
        tables.entry(target.clone()).or_default().extend(touched(program, step));
    }
    tables.into_iter().map(|(target, tables)| (target, tables.into_iter().collect())).collect()
}

/// The tables that a step touches. Of a mapping that is retired in the course of the plan, both names of each side: so the
/// list is the same before and after, and a table that isn't there is part of the fingerprint too.
pub(super) fn touched(program: &Program, step: &Step) -> Vec<String> {
    let mut tables: Vec<String> = match &step.action {
        Action::Sql(script) => script.tables.clone(),
        _ => Vec::new(),
    };
    let mapping = step.action.mapping().and_then(|name| program.mappings().get(name));
    if let Some(mapping) = mapping {
        tables.extend([mapping.from.table.clone(), mapping.into.table.clone()]);
        let shape = super::step::shape_of(program, &mapping.name);
        if let Some(shape) = shape {
            let retired = mapping.retired(shape);
            tables.extend([retired.from.table, retired.into.table]);
        }
    }
    tables
}

/// A value for logs: never longer than a line.
pub(super) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

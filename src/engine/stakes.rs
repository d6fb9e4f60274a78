//! What is at stake behind a gate: the tables that the work destroys or puts aside, and how large they are.

use std::collections::BTreeSet;

use crate::driver::TableSize;
use crate::run::{Action, State, Step, StepId, TargetName, is_guarded};

use super::Context;
use super::probe::asked;

/// A table that a step behind a gate may destroy or puts aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stake {
    /// The step.
    pub step: StepId,
    /// The database.
    pub target: TargetName,
    /// The table, under the name that it has now.
    pub table: String,
    /// How large it is, or why that can't be told.
    pub size: Result<TableSize, String>,
}

/// The tables at stake behind a gate. A database that doesn't answer costs only the sizes.
pub async fn stakes(ctx: &Context, state: &State, gate: &StepId) -> Vec<Stake> {
    let mut stakes = Vec::new();
    for step in state.program().released_by(gate).filter(|step| is_guarded(step)) {
        let Some(target) = &step.target else { continue };
        for table in tables(state, step) {
            let size = match ctx.drivers.get(target) {
                Some(driver) => {
                    asked(|| driver.size(&table)).await.map_err(|error| error.to_string())
                }
                None => Err("its database was not opened".to_owned()),
            };
            stakes.push(Stake { step: step.id.clone(), target: target.clone(), table, size });
        }
    }
    stakes
}

fn tables(state: &State, step: &Step) -> BTreeSet<String> {
    let mut tables = BTreeSet::new();
    if let Action::Sql(script) = &step.action {
        tables.extend(script.tables.iter().cloned());
    }
    if let Some(mapping) = step.action.mapping().and_then(|name| state.mapping(name)) {
        tables.insert(mapping.from.table);
    }
    tables
}

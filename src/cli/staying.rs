//! What stays of a run that is left where it is: the steps whose changes remain, by the databases that have them. `abort --leave`
//! says it of a run that ends there, `rollback` of one that can't go back any more.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::engine;
use crate::run::{self, Action, DualWrite, Progress, State, Step, TargetName};

/// What becomes of the syncs that are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// They go with the run.
    Go,
    /// They are as the run's steps left them.
    Stay,
}

/// The steps whose changes stay where they are, those that failed in part and those in doubt among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staying {
    steps: Vec<Stays>,
}

/// A step, and the databases that have what it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stays {
    step: String,
    said: String,
    targets: Vec<TargetName>,
}

impl Staying {
    /// What stays of a run as it stands.
    #[must_use]
    pub fn of(state: &State, syncs: Syncs) -> Self {
        let steps = run::changed(state).filter(|step| has_left_something(state, step, syncs));
        let stays = |step: &Step| Stays {
            step: step.id.to_string(),
            said: said(state, step),
            targets: state.program().databases(step).cloned().collect(),
        };
        Self { steps: steps.map(stays).collect() }
    }

    /// The same as lines: each database with its steps below it. None where nothing stays.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (target, steps) in self.by_target() {
            lines.push(format!("on {target}:"));
            lines.extend(steps.iter().map(|stays| format!("  {}", stays.said)));
        }
        lines
    }

    /// The same as fields of a document: the steps as people read them, and their ids by database.
    #[must_use]
    pub fn document(&self) -> Map<String, Value> {
        let said: Vec<&str> = self.steps.iter().map(|stays| stays.said.as_str()).collect();
        let ids =
            |steps: Vec<&Stays>| -> Value { steps.iter().map(|it| it.step.as_str()).collect() };
        let by_target = self.by_target().into_iter();
        let on: Map<String, Value> =
            by_target.map(|(target, steps)| (target.to_string(), ids(steps))).collect();
        Map::from_iter([("stays".to_owned(), json!(said)), ("stays_on".to_owned(), json!(on))])
    }

    fn by_target(&self) -> BTreeMap<&TargetName, Vec<&Stays>> {
        let mut all: BTreeMap<&TargetName, Vec<&Stays>> = BTreeMap::new();
        for stays in &self.steps {
            for target in &stays.targets {
                all.entry(target).or_default().push(stays);
            }
        }
        all
    }
}

/// Of a sync that went nothing is left in a database that has triggers. A graph keeps the constraints that were made for it.
fn has_left_something(state: &State, step: &Step, syncs: Syncs) -> bool {
    let Action::DualWrite(DualWrite { mapping, .. }) = &step.action else { return true };
    let Some(mapping) = state.program().mappings().get(mapping) else { return true };
    let is_out = || {
        let live = engine::live_syncs(state);
        state.is_applied(&step.id) && live.iter().all(|(live, _)| live.name != mapping.name)
    };
    mapping.is_of_graph() || (syncs == Syncs::Stay && !is_out())
}

fn said(state: &State, step: &Step) -> String {
    let action = step.action.name();
    let is_whole = state.step(&step.id).progress == Progress::Succeeded;
    let rest = if is_whole { "" } else { ", not finished" };
    let description = step.description.as_ref().map_or(String::new(), |it| format!(": {it}"));
    format!("{} ({action}{rest}){description}", step.id)
}

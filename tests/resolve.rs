//! `resolve` on real servers: statements that no transaction holds are lost in the middle, people say what came of them, and the run
//! goes on with every effect once.

mod graph;
mod postgres;

use serde_json::Value;

use crate::sandbox::Ran;

/// The command that answers for a step.
fn answer<'a>(step: &'a str, outcome: &'a str) -> [&'a str; 7] {
    ["resolve", "counted", step, "--outcome", outcome, "--reason", "looked at the rows"]
}

/// The entries of a history that are answers.
fn answers(history: &Ran) -> Vec<Value> {
    let history = history.json();
    let records = history["records"].as_array().unwrap();
    let is_answer = |record: &&Value| record["event"]["kind"] == "step_resolved";
    records.iter().filter(is_answer).cloned().collect()
}

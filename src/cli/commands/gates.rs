//! `gates`: each gate's conditions, asked of the targets now. It answers 4 while the run stands before a shut one, so that a
//! script can wait for it.

use serde_json::{Value, json};

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::RunArg;
use crate::cli::drive::Cockpit;
use crate::cli::exit::Exit;
use crate::cli::session::{OpenRun, Session};
use crate::engine;
use crate::report::gates::{self, GateView};
use crate::run::{Action, GateReport, StepId};

pub async fn perform(session: &Session, args: &RunArg) -> Result<Answer, Failure> {
    let run = session.open(&args.run).await?;
    let all: Vec<StepId> = gates_of(&run);
    if all.is_empty() {
        let plan = run.state().program().plan();
        return Ok(Answer::done(format!("Plan {plan} has no gates.\n")).with("gates", json!([])));
    }
    let live =
        all.iter().filter(|gate| !run.state().is_ended() && !gates::is_used(run.state(), gate));
    let live: Vec<StepId> = live.cloned().collect();
    let reports = inspect(session, &run, &live).await?;
    let colour = session.printer.result_colour();
    let mut exit = Exit::Done;
    let mut human = Vec::new();
    let mut documents: Vec<Value> = Vec::new();
    for gate in &all {
        match reports.iter().find(|report| report.gate == *gate) {
            Some(report) => {
                let view = GateView { report, state: run.state(), line: &run.line, now: run.now };
                if view.holds_the_run() {
                    exit = Exit::AtGate;
                }
                human.push(view.render(colour));
                documents.push(view.document());
            }
            None => {
                let over = if run.state().is_applied(gate) { "used" } else { "not reached" };
                human.push(format!("gate {gate} guards nothing any more: {over}\n"));
                documents.push(json!({ "id": gate, "used": true, "conditions": [] }));
            }
        }
    }
    Ok(Answer::done(human.join("\n"))
        .exiting(exit)
        .with("run", json!(run.id))
        .with("plan", json!(run.state().program().plan()))
        .with("gates", Value::Array(documents)))
}

fn gates_of(run: &OpenRun) -> Vec<StepId> {
    let steps = run.state().program().steps().iter();
    steps
        .filter(|step| matches!(step.action, Action::Gate(_)))
        .map(|step| step.id.clone())
        .collect()
}

/// Databases are opened only when there is something to ask them.
async fn inspect(
    session: &Session,
    run: &OpenRun,
    gates: &[StepId],
) -> Result<Vec<GateReport>, Failure> {
    if gates.is_empty() {
        return Ok(Vec::new());
    }
    let cockpit = Cockpit::open(session, &run.desk, run.state().pin(), &run.line).await?;
    let mut reports = Vec::with_capacity(gates.len());
    let mut failed = None;
    for gate in gates {
        match engine::inspect(&cockpit.ctx, &run.id, gate).await {
            Ok(report) => reports.push(report),
            Err(error) => {
                failed = Some(run.failure(&error));
                break;
            }
        }
    }
    cockpit.close().await;
    failed.map_or(Ok(reports), Err)
}

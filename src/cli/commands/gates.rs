//! `gates`: each gate's conditions, asked of the targets now; with `--show` what each lets go, exactly. It answers 4 while
//! the run stands before a shut one, so that a script can wait for it.

use serde_json::{Value, json};

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Gates;
use crate::cli::drive::Cockpit;
use crate::cli::exit::Exit;
use crate::cli::pinned;
use crate::cli::session::{OpenRun, Session};
use crate::cli::suggest;
use crate::driver::TableSize;
use crate::engine;
use crate::report::gates::{self, GateView};
use crate::report::release::{AtStake, ReleaseView};
use crate::run::{Action, GateReport, State, StepId};

pub async fn perform(session: &Session, args: &Gates) -> Result<Answer, Failure> {
    let run = session.open(&args.run.run).await?;
    let all: Vec<StepId> = chosen(&run, args.gate.as_deref())?;
    if all.is_empty() {
        let plan = run.state().program().plan();
        return Ok(Answer::done(format!("Plan {plan} has no gates.\n")).with("gates", json!([])));
    }
    if let Err(stale) = pinned::refuse_other_policy(session, &run) {
        session.printer.message(&format!("warning: {}", stale.message));
        for help in &stale.help {
            session.printer.message(&format!("  {help}"));
        }
    }
    let live = |gate: &&StepId| !run.state().is_ended() && !gates::is_used(run.state(), gate);
    let live: Vec<StepId> = all.iter().filter(live).cloned().collect();
    let reports = inspect(session, &run, &live).await?;
    let stakes = if args.show { Some(stakes_of(session, &run, &live).await) } else { None };
    Ok(answer(session, &run, &all, (&reports, stakes.as_deref())))
}

/// The gates to show: all of them, or the one that was typed.
fn chosen(run: &OpenRun, typed: Option<&str>) -> Result<Vec<StepId>, Failure> {
    let all = gates_of(run.state());
    let Some(typed) = typed else { return Ok(all) };
    if let Some(gate) = all.iter().find(|gate| gate.as_str() == typed) {
        return Ok(vec![gate.clone()]);
    }
    let names: Vec<&str> = all.iter().map(StepId::as_str).collect();
    Err(Failure::usage(format!("the plan has no gate {typed}")).help(suggest::help(typed, &names)))
}

fn gates_of(state: &State) -> Vec<StepId> {
    let steps = state.program().steps().iter();
    steps
        .filter(|step| matches!(step.action, Action::Gate(_)))
        .map(|step| step.id.clone())
        .collect()
}

/// The answer; with what is at stake where the work itself is to be shown.
fn answer(
    session: &Session,
    run: &OpenRun,
    all: &[StepId],
    (reports, stakes): (&[GateReport], Option<&[AtStake]>),
) -> Answer {
    let colour = session.printer.result_colour();
    let mut exit = Exit::Done;
    let mut human = Vec::new();
    let mut documents: Vec<Value> = Vec::new();
    for gate in all {
        let mut document = match reports.iter().find(|report| report.gate == *gate) {
            Some(report) => {
                let view = GateView { report, state: run.state(), line: &run.line, now: run.now };
                if view.holds_the_run() {
                    exit = Exit::AtGate;
                }
                human.push(view.render(colour));
                view.document()
            }
            None => {
                let over = if run.state().is_applied(gate) { "used" } else { "not reached" };
                human.push(format!("gate {gate} guards nothing any more: {over}\n"));
                json!({ "id": gate, "used": true, "conditions": [] })
            }
        };
        if let Some(stakes) = stakes {
            let view = ReleaseView { gate, state: run.state(), stakes, now: run.now };
            human.push(view.render(colour));
            document["release"] = view.document();
        }
        documents.push(document);
    }
    Answer::done(human.join("\n"))
        .exiting(exit)
        .with("run", json!(run.id))
        .with("plan", json!(run.state().program().plan()))
        .with("gates", Value::Array(documents))
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

/// What is at stake behind gates, with sizes where the databases tell. Whoever may not open them is shown the rest.
pub async fn stakes_of(session: &Session, run: &OpenRun, gates: &[StepId]) -> Vec<AtStake> {
    if gates.is_empty() {
        return Vec::new();
    }
    let opened = Cockpit::open(session, &run.desk, run.state().pin(), &run.line).await;
    let cockpit = match opened {
        Ok(cockpit) => cockpit,
        Err(failure) => {
            session.printer.message(&format!("sizes are not known: {}", failure.message));
            return Vec::new();
        }
    };
    let mut stakes = Vec::new();
    for gate in gates {
        let found = engine::stakes(&cockpit.ctx, run.state(), gate).await;
        stakes.extend(found.into_iter().map(at_stake));
    }
    cockpit.close().await;
    stakes
}

fn at_stake(stake: engine::Stake) -> AtStake {
    let (size, unknown) = match stake.size {
        Ok(size) => (size, None),
        Err(reason) => (TableSize::default(), Some(reason)),
    };
    AtStake {
        step: stake.step,
        table: format!("{}.{}", stake.target, stake.table),
        rows: size.rows,
        bytes: size.bytes,
        unknown,
    }
}

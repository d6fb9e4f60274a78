//! `run`: starts the run of a plan, or goes on with the unfinished one.

use serde_json::json;

use crate::cli::answer::{self, Answer, Failure};
use crate::cli::args::Run;
use crate::cli::difference;
use crate::cli::drive::{Cockpit, Journey, drive};
use crate::cli::exit::Exit;
use crate::cli::goal;
use crate::cli::pinned;
use crate::cli::session::{Desk, OpenRun, Session};
use crate::cli::trouble;
use crate::cli::wiring::{self, LoadedPlan};
use crate::diagnostic;
use crate::engine;
use crate::report::advice::quoted;
use crate::report::status::StatusView;
use crate::report::words;
use crate::run::{self, Pin, Standing};
use crate::store::{Create, RunHeader};

pub async fn perform(session: &Session, args: &Run) -> Result<Answer, Failure> {
    let path = &args.plan.plan;
    let settings = session.settings_for_plan(path)?;
    let environment = settings.environment_of_plan();
    let plan = wiring::load_plan(path, settings.project.as_ref(), &environment)?;
    warn(session, &plan);
    let goal = goal::to(&plan.pin.program, args.to.as_deref())?;
    let desk = session.desk(settings, Create::IfMissing).await?;
    let runs = desk.runs().await?;
    let of_plan =
        |run: &&RunHeader| run.plan == plan.pin.program.plan() && run.environment == environment;
    let unfinished = runs.iter().find(|run| of_plan(run) && !run.ended);
    let newest = runs.iter().find(of_plan);
    let journey = Journey::forward(goal, &args.drive);
    match (unfinished, newest) {
        (Some(header), _) => {
            let run = desk.open(header.run.clone(), &runs).await?;
            if args.new {
                return Err(unfinished_already(&run));
            }
            refuse_other_meaning(session, &run, &plan.pin)?;
            drive(session, run, &journey).await
        }
        (None, Some(header)) if !args.new => {
            let run = desk.open(header.run.clone(), &runs).await?;
            over(session, &run, &plan.pin)
        }
        _ => {
            let run = start(session, &desk, plan.pin).await?;
            drive(session, run, &journey).await
        }
    }
}

/// Warnings are said before anything is done, and stop nothing.
pub fn warn(session: &Session, plan: &LoadedPlan) {
    if !plan.warnings.is_empty() {
        let style = answer::style(session.printer.message_colour());
        session.printer.message(&diagnostic::render_all(&plan.warnings, &plan.sources, style));
    }
}

async fn start(session: &Session, desk: &Desk, pin: Pin) -> Result<OpenRun, Failure> {
    refuse_unfillable(&pin, &desk.actor().name)?;
    let line = desk.settings.line(pin.program.plan());
    let cockpit = Cockpit::open(session, desk, &pin, &line).await?;
    let started = engine::start(&cockpit.ctx, pin.clone()).await;
    cockpit.close().await;
    let engine::Started { run: id, warnings } =
        started.map_err(|error| trouble::of_engine(&error, desk, Some((&pin, &line))))?;
    let (known, others) = trouble::found(&warnings, Some(&pin));
    if !known.findings.is_empty() {
        let style = answer::style(session.printer.message_colour());
        session.printer.message(&diagnostic::render_all(&known.findings, &known.sources, style));
    }
    for other in others {
        session.printer.message(&format!("warning: {other}"));
    }
    session.printer.message(&format!(
        "run {id} of plan {}, {} in environment {}, journal in {}",
        pin.program.plan(),
        words::plural(pin.program.steps().len() as u64, "step"),
        pin.program.environment(),
        desk.store.location(),
    ));
    let runs = desk.runs().await?;
    desk.open(id, &runs).await
}

/// A gate that waits for people who may not approve, since they start the run themselves, would never open.
pub fn refuse_unfillable(pin: &Pin, author: &str) -> Result<(), Failure> {
    let lacking = run::unfillable(&pin.program, author);
    if lacking.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::new(Exit::Findings, format!("{author} can't start this run"))
        .because("authors may not approve here, and nobody else is left for some approvals");
    for one in &lacking {
        let line = pin.program.step(&one.gate).map_or(1, |step| step.line);
        let message = format!(
            "gate `{}` could never open: too few of `{}` but {author}",
            one.gate, one.group
        );
        let place =
            diagnostic::Location { file: pin.path.as_str().into(), line, column: 1, length: 0 };
        let finding = diagnostic::Diagnostic::error(diagnostic::known::GROUP_TOO_SMALL, message)
            .at(place)
            .with_help("let somebody start it who is not in that group, or name more people in phasegate.yaml");
        failure.found.findings.push(finding);
    }
    Err(failure)
}

fn unfinished_already(run: &OpenRun) -> Failure {
    let plan = run.state().program().plan();
    Failure::usage(format!("run {} of plan {plan} isn't finished", run.id))
        .help(format!("`{}` goes on with it", run.line.go_on(run.state())))
        .help(format!("`{}` undoes it; then --new starts another", run.line.of("rollback {run}")))
}

/// The file may say something else than the run was started with; then nothing is done, whoever is right.
fn refuse_other_meaning(session: &Session, run: &OpenRun, typed: &Pin) -> Result<(), Failure> {
    let pinned = run.state().pin();
    if pinned.program.digest() == typed.program.digest() {
        let is_same = pinned.program.policy() == typed.program.policy();
        let is_forward = *run.state().standing() == Standing::Forward;
        if is_forward && !is_same {
            return Err(pinned::changed(session, run, typed.program.policy()));
        }
        return Ok(());
    }
    let amend = run.line.of(&format!("amend {{run}} {}", quoted(&typed.path)));
    Err(changed(
        session,
        pinned,
        typed,
        &format!("run {} is under way with the plan as it was", run.id),
    )
    .help(format!("`{amend}` takes the new plan, for steps that haven't started"))
    .help(format!("or undo the change in {}, and run again", typed.path))
    .help(format!("or end the run first: `{}`", run.line.of("rollback {run}"))))
}

fn changed(session: &Session, pinned: &Pin, typed: &Pin, cause: &str) -> Failure {
    let changes = wiring::difference(&pinned.meaning, &typed.meaning);
    session.printer.message(&difference::render(&changes, session.printer.message_colour()));
    let message = format!(
        "the meaning of plan {} has changed: digest {} is now {}",
        typed.program.plan(),
        pinned.program.digest(),
        typed.program.digest(),
    );
    Failure::new(Exit::Stale, message)
        .because(cause)
        .with("difference", difference::document(&changes))
}

/// The newest run of the plan is over, and nobody asked for another.
fn over(session: &Session, run: &OpenRun, typed: &Pin) -> Result<Answer, Failure> {
    let state = run.state();
    let new = run.line.of(&format!("run {} --new", quoted(&typed.path)));
    if state.pin().program.digest() != typed.program.digest() {
        let cause = format!("run {} is over, and was of the plan as it was", run.id);
        return Err(changed(session, state.pin(), typed, &cause)
            .help(format!("`{new}` starts a run of the plan as it is now")));
    }
    let (how, at) = match state.standing() {
        Standing::Ended { ending, at } => (ending.as_str(), *at),
        Standing::Forward | Standing::Back | Standing::Aborting { .. } => ("over", run.now),
    };
    let how = if how == "completed" { "complete" } else { how };
    let view = StatusView { state, driver: None, live: &[], line: &run.line, now: run.now };
    let human = format!(
        "The run of plan {} is {how}, since {}; nothing was done.\n`{new}` starts another.\n",
        typed.program.plan(),
        words::moment(at),
    );
    Ok(Answer::done(human).with_all(view.document()).with("stop", json!({ "kind": "ended" })))
}

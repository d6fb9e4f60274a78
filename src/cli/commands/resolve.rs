//! `resolve`: shows what there is to go by where nobody can tell whether a step was done, and takes an operator's answer. It looks at
//! databases on connections that can't write: the answer reaches their ledgers with the step's next attempt.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::{self, Resolve};
use crate::cli::exit::Exit;
use crate::cli::session::{OpenRun, Session};
use crate::cli::wiring;
use crate::driver::Access;
use crate::engine;
use crate::report::doubt::{self, DoubtView};
use crate::report::words;
use crate::run::{self, Command, InLedger, Resolution, Step, StepId, TargetName, Way};

pub async fn perform(session: &Session, args: Resolve) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    let step = StepId::new(args.step);
    let (Some(outcome), Some(reason)) = (args.outcome, args.reason) else {
        return evidence(session, &run, &step).await;
    };
    let outcome = match outcome {
        args::Outcome::Applied => Resolution::Applied,
        args::Outcome::NotApplied => Resolution::NotApplied,
    };
    let attempt = args.attempt;
    run.ask(session, Command::Resolve { step: step.clone(), outcome, reason, attempt }).await?;
    let by = words::actor(run.desk.actor());
    let sentence = format!("Step {step} resolved as {} by {by}.", outcome.as_str());
    Ok(super::recorded(session, &run, &sentence).with("step", step.as_str().into()))
}

/// What there is to go by. Nothing is changed, and the step stays as it is.
async fn evidence(session: &Session, run: &OpenRun, id: &StepId) -> Result<Answer, Failure> {
    let state = run.state();
    let (way, detail) =
        run::ambiguous(state, id).map_err(|refusal| run.failure(&engine::Error::from(refusal)))?;
    let Some(step) = state.program().step(id) else {
        return Err(Failure::usage(format!("the plan has no step {id}")));
    };
    let mut entries = super::history::entries(run, 0).await?;
    entries.retain(|entry| doubt::is_about(entry, id));
    let mut found = Vec::new();
    for target in state.program().databases(step) {
        found.push((target.clone(), look(session, run, target, (step, way)).await));
    }
    let (entries, found, line) = (&entries, &found, &run.line);
    let view = DoubtView { state, step, way, detail, entries, found, line };
    let human = view.render(session.printer.result_colour());
    Ok(Answer::done(human).exiting(Exit::Stuck).with_all(view.document()))
}

/// What a database has of the step. Whoever can't open it is shown the rest.
async fn look(
    session: &Session,
    run: &OpenRun,
    target: &TargetName,
    at: (&Step, Way),
) -> Result<InLedger, String> {
    let pinned = (run.state().pin(), &run.line);
    let redact = session.global.redact();
    let driver = wiring::open_driver(pinned, target, Access::ReadOnly, redact).await;
    let driver = driver.map_err(|failure| failure.message)?;
    let found = engine::doubt(&driver, run.state(), at).await;
    driver.close().await;
    found
}

//! `validate`: every finding in a plan at once, without a database.

use serde_json::json;

use crate::cli::answer::{self, Answer, Failure};
use crate::cli::args::PlanArg;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::cli::wiring;
use crate::diagnostic;
use crate::report::words;
use crate::run::{Action, Program};

pub fn perform(session: &Session, args: &PlanArg) -> Result<Answer, Failure> {
    let settings = session.settings_for_plan(&args.plan)?;
    let environment = settings.environment_of_plan();
    let loaded = wiring::load_plan(&args.plan, settings.project.as_ref(), &environment);
    let plan = match loaded {
        // Findings are what was asked for: a result, and not a failure to give one.
        Err(failure) if failure.exit == Exit::Findings => return Ok(found(session, &failure)),
        loaded => loaded?,
    };
    let program = &plan.pin.program;
    let colour = session.printer.result_colour();
    let mut human = diagnostic::render_all(&plan.warnings, &plan.sources, answer::style(colour));
    human.push_str(&sentence(program, plan.warnings.len()));
    Ok(Answer::done(human)
        .with("valid", json!(true))
        .with("plan", json!(program.plan()))
        .with("digest", json!(program.digest().as_str()))
        .with("environment", json!(environment))
        .with("steps", json!(program.steps().len()))
        .with("findings", answer::findings_document(&plan.warnings)))
}

fn found(session: &Session, failure: &Failure) -> Answer {
    let human = failure.render(session.printer.result_colour());
    Answer::done(human)
        .exiting(failure.exit)
        .with("valid", json!(false))
        .with("findings", answer::findings_document(&failure.found.findings))
}

fn sentence(program: &Program, warnings: usize) -> String {
    let is_gate = |action: &Action| matches!(action, Action::Gate(_));
    let gates = program.steps().iter().filter(|step| is_gate(&step.action)).count();
    let warned = match warnings {
        0 => String::new(),
        some => format!(", with {}", words::plural(some as u64, "warning")),
    };
    let point = program.steps().iter().find(|step| step.irreversible.is_some());
    let point = point.map_or_else(
        || "every step can be undone".to_owned(),
        |step| format!("point of no return: {}", step.id),
    );
    format!(
        "Plan {} is valid in environment {}{warned}: {}, {}, {point}; digest {}.\n",
        program.plan(),
        program.environment(),
        words::plural(program.steps().len() as u64, "step"),
        words::plural(gates as u64, "gate"),
        program.digest(),
    )
}

//! `abort`: gives a run up.

use serde_json::json;

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Abort;
use crate::cli::drive::{Journey, drive};
use crate::cli::session::{OpenRun, Session};
use crate::run::{self, Command, Ending, Standing};

pub async fn perform(session: &Session, args: Abort) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    let is_aborting = matches!(run.state().standing(), Standing::Aborting { .. });
    if !is_aborting {
        run.ask(session, Command::Abort { leave: args.leave, reason: args.reason }).await?;
    }
    if run.driver().is_some() {
        return Ok(super::recorded(session, &run, "Given up: its driver ends it."));
    }
    let stays = if args.leave { staying(&run) } else { Vec::new() };
    let mut answer = drive(session, run, &Journey::ending(Ending::Aborted)).await?;
    if !stays.is_empty() {
        answer.human.push_str("\nWhat stays as these steps left it:\n");
        for step in &stays {
            answer.human.push_str("  ");
            answer.human.push_str(step);
            answer.human.push('\n');
        }
    }
    Ok(answer.with("stays", json!(stays)))
}

/// The steps whose changes stay where they are, those that failed in part and those in doubt among them.
fn staying(open: &OpenRun) -> Vec<String> {
    run::changed(open.state())
        .map(|step| match &step.description {
            Some(description) => format!("{} ({}): {description}", step.id, step.action.name()),
            None => format!("{} ({})", step.id, step.action.name()),
        })
        .collect()
}

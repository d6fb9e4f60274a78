//! `abort`: gives a run up.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Abort;
use crate::cli::drive::{Journey, drive};
use crate::cli::session::Session;
use crate::cli::staying::{Staying, Syncs};
use crate::report::words;
use crate::run::{Command, Ending, Standing};

pub async fn perform(session: &Session, args: Abort) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    let is_aborting = matches!(run.state().standing(), Standing::Aborting { .. });
    if !is_aborting {
        run.ask(session, Command::Abort { leave: args.leave, reason: args.reason }).await?;
    }
    if run.driver().is_some() {
        return Ok(super::recorded(session, &run, "Given up: its driver ends it."));
    }
    // Of a run that has changed nothing, nothing stays.
    let stays = Staying::of(run.state(), Syncs::Go);
    let mut answer = drive(session, run, &Journey::ending(Ending::Aborted)).await?;
    let lines = stays.lines();
    if !lines.is_empty() {
        answer.human.push_str("\nWhat stays as these steps left it:\n");
        for line in lines {
            answer.human.push_str("  ");
            answer.human.push_str(&words::visible(&line));
            answer.human.push('\n');
        }
    }
    Ok(answer.with_all(stays.document()))
}

//! `resume`: a paused run goes on.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::GoOn;
use crate::cli::drive::{Journey, drive};
use crate::cli::goal;
use crate::cli::pinned;
use crate::cli::session::Session;
use crate::run::Command;

pub async fn perform(session: &Session, args: &GoOn) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    pinned::refuse_other_policy(session, &run)?;
    let goal = goal::to(run.state().program(), args.to.as_deref())?;
    run.ask(session, Command::Resume).await?;
    if run.driver().is_some() {
        return Ok(super::recorded(session, &run, "Resumed: its driver goes on."));
    }
    drive(session, run, &Journey::forward(goal, &args.drive)).await
}

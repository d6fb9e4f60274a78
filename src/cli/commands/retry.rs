//! `retry`: failed steps are tried again, a verify that found differences too; then the run goes on.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::GoOn;
use crate::cli::drive::{Journey, drive};
use crate::cli::goal;
use crate::cli::pinned;
use crate::cli::session::Session;
use crate::run::{Command, Ending, Standing};

pub async fn perform(session: &Session, args: &GoOn) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    pinned::refuse_other_policy(session, &run)?;
    let goal = goal::to(run.state().program(), args.to.as_deref())?;
    run.ask(session, Command::Retry).await?;
    if run.driver().is_some() {
        return Ok(super::recorded(session, &run, "Its driver tries again."));
    }
    let wanted = match run.state().standing() {
        Standing::Back => Ending::RolledBack,
        Standing::Aborting { .. } => Ending::Aborted,
        Standing::Forward | Standing::Ended { .. } => Ending::Completed,
    };
    let journey = match wanted {
        Ending::Completed => Journey::forward(goal, &args.drive),
        other => Journey::ending(other),
    };
    drive(session, run, &journey).await
}

//! `advance`: to the end of the first phase that has an unfinished step.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Advance;
use crate::cli::drive::{Journey, drive};
use crate::cli::goal;
use crate::cli::pinned;
use crate::cli::session::Session;

pub async fn perform(session: &Session, args: &Advance) -> Result<Answer, Failure> {
    let run = session.open(&args.run.run).await?;
    pinned::refuse_other_policy(session, &run)?;
    let goal = goal::next_phase(run.state());
    drive(session, run, &Journey::forward(goal, &args.drive)).await
}

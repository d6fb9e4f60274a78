//! `pause`: the run stops before its next chunk or step.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Pause;
use crate::cli::session::Session;
use crate::run::Command;

pub async fn perform(session: &Session, args: Pause) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    run.ask(session, Command::Pause { reason: args.reason }).await?;
    let sentence = match run.driver() {
        Some(lease) => {
            format!("Paused: {} stops before its next chunk or step.", lease.holder.name)
        }
        None => "Paused: it starts nothing until it is resumed.".to_owned(),
    };
    Ok(super::recorded(session, &run, &sentence))
}

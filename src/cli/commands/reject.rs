//! `reject`: keeps a gate shut.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Reject;
use crate::cli::session::Session;
use crate::report::words;
use crate::run::{Command, StepId};

pub async fn perform(session: &Session, args: Reject) -> Result<Answer, Failure> {
    let mut run = session.open(&args.gate.run.run).await?;
    let gate = StepId::new(args.gate.gate);
    run.ask(session, Command::Reject { gate: gate.clone(), reason: args.reason }).await?;
    let by = words::actor(run.desk.actor());
    let sentence = format!("Gate {gate} rejected by {by}: it stays shut until they revoke that.");
    Ok(super::recorded(session, &run, &sentence).with("gate", gate.as_str().into()))
}

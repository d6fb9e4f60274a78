//! `revoke`: takes back one's own approval or rejection.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::GateArg;
use crate::cli::session::Session;
use crate::report::words;
use crate::run::{Command, StepId};

pub async fn perform(session: &Session, args: &GateArg) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    let gate = StepId::new(&args.gate);
    run.ask(session, Command::Revoke { gate: gate.clone() }).await?;
    let by = words::actor(run.desk.actor());
    let sentence = format!("Gate {gate}: the decision of {by} is taken back.");
    Ok(super::recorded(session, &run, &sentence).with("gate", gate.as_str().into()))
}

//! `approve`: says yes to what a gate releases.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Approve;
use crate::cli::session::Session;
use crate::run::{Command, GroupName, StepId};

pub async fn perform(session: &Session, args: Approve) -> Result<Answer, Failure> {
    let mut run = session.open(&args.gate.run.run).await?;
    let gate = StepId::new(args.gate.gate);
    run.ask(Command::Approve {
        gate: gate.clone(),
        work: args.digest,
        group: args.group.map(GroupName::new),
        comment: args.comment,
    })
    .await?;
    let work = run.state().gate(&gate).and_then(|known| known.work.as_ref());
    let work = work.map_or(String::new(), |work| format!(" for digest {work}"));
    let by = crate::report::words::actor(run.desk.actor());
    let sentence = format!("Gate {gate} approved by {by}{work}.");
    Ok(super::recorded(session, &run, &sentence).with("gate", gate.as_str().into()))
}

//! `approve`: says yes to what a gate releases. Whoever approves has seen what that is: the digest stands for it, or the
//! work itself is shown on the terminal that the answer is typed on.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Approve;
use crate::cli::confirm::{self, Agreed};
use crate::cli::pinned;
use crate::cli::session::{OpenRun, Session};
use crate::report::release::ReleaseView;
use crate::report::words;
use crate::run::{Command, GroupName, StepId};

pub async fn perform(session: &Session, args: Approve) -> Result<Answer, Failure> {
    let mut run = session.open(&args.gate.run.run).await?;
    pinned::refuse_other_policy(session, &run)?;
    let gate = StepId::new(args.gate.gate);
    let work = match args.digest {
        Some(digest) => Some(digest),
        None => agreed(session, &run, &gate).await?,
    };
    run.ask(
        session,
        Command::Approve {
            gate: gate.clone(),
            work,
            group: args.group.map(GroupName::new),
            comment: args.comment,
        },
    )
    .await?;
    let work = run.state().gate(&gate).and_then(|known| known.work.as_ref());
    let work = work.map_or(String::new(), |work| format!(" for digest {work}"));
    let by = words::actor(run.desk.actor());
    let sentence = format!("Gate {gate} approved by {by}{work}.");
    Ok(super::recorded(session, &run, &sentence).with("gate", gate.as_str().into()))
}

/// The digest of the work that was shown here and agreed to. None where the gate takes no approvals, which the refusal of
/// the wish itself explains.
async fn agreed(
    session: &Session,
    run: &OpenRun,
    gate: &StepId,
) -> Result<Option<String>, Failure> {
    let Some(work) = run.state().gate(gate).and_then(|known| known.work.clone()) else {
        return Ok(None);
    };
    if !session.printer.can_ask() {
        let show = run.line.of(&format!("gates {{run}} {gate} --show"));
        let approve = run.line.of(&format!("approve {{run}} {gate} --digest DIGEST"));
        return Err(Failure::usage("an approval names the digest of what was looked at")
            .because("nobody can be shown it here, and --digest was not given")
            .help(format!("`{show}` shows what the gate lets go, and its digest"))
            .help(format!("then `{approve}`")));
    }
    let stakes = super::gates::stakes_of(session, run, std::slice::from_ref(gate)).await;
    let view = ReleaseView { gate, state: run.state(), stakes: &stakes, now: run.now };
    let shown = view.render(session.printer.message_colour());
    let question = format!("Approve digest {work}?");
    confirm::confirm(session, Agreed::NotYet, &shown, &question).await?;
    Ok(Some(work.as_str().to_owned()))
}

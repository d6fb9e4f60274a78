//! `amend`: a corrected plan takes the place of the pinned one, for steps that haven't started.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Amend;
use crate::cli::confirm::{self, Agreed};
use crate::cli::difference;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::cli::wiring;
use crate::report::words;
use crate::run::Command;

pub async fn perform(session: &Session, args: &Amend) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    let settings = session.settings_for_plan(&args.plan)?;
    let environment = run.state().program().environment().clone();
    let plan = wiring::load_plan(&args.plan, settings.project.as_ref(), &environment)?;
    let pinned = run.state().pin();
    if pinned.program.plan() != plan.pin.program.plan() {
        return Err(Failure::usage(format!(
            "{} is plan {}, and the run is of plan {}",
            args.plan.display(),
            plan.pin.program.plan(),
            pinned.program.plan(),
        )));
    }
    let is_same = pinned.program.digest() == plan.pin.program.digest()
        && pinned.program.policy() == plan.pin.program.policy();
    if is_same {
        let same = "Nothing to amend: the plan means the same, and so does the policy.";
        return Ok(super::recorded(session, &run, same));
    }
    if run.state().is_ended() {
        return Err(Failure::new(Exit::Usage, "the run is over, and can't be amended"));
    }
    let mut changes = wiring::difference(&pinned.meaning, &plan.pin.meaning);
    let (old, new) = (pinned.program.policy(), plan.pin.program.policy());
    changes.extend(wiring::policy_difference(old, new));
    let shown = difference::render(&changes, session.printer.message_colour());
    confirm::confirm(session, Agreed::from(args.yes), &shown, "Amend the plan?").await?;
    run.ask(session, Command::Amend { pin: Box::new(plan.pin) }).await?;
    let sentence = format!(
        "Amended: {}; digest {} now. Gates whose work changed want new approvals.",
        words::plural(changes.len() as u64, "change"),
        run.state().program().digest(),
    );
    Ok(super::recorded(session, &run, &sentence).with("difference", difference::document(&changes)))
}

//! `rollback`: shows what will be undone, asks, and undoes it in reverse order, in the same run.

use serde_json::{Value, json};

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Rollback;
use crate::cli::confirm::{self, Agreed};
use crate::cli::drive::{Journey, drive};
use crate::cli::exit::Exit;
use crate::cli::session::{OpenRun, Session};
use crate::cli::staying::{Staying, Syncs};
use crate::cli::suggest;
use crate::report::{Tone, steps, words};
use crate::run::{self, Command, Ending, MappingName, Standing, to_undo};

pub async fn perform(session: &Session, args: &Rollback) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    let accept_loss = mappings(&run, &args.accept_loss)?;
    let goes_back = matches!(run.state().standing(), Standing::Back);
    if !run.state().is_ended() && !goes_back {
        refuse_past_no_return(&run)?;
    }
    if !run.state().is_ended() {
        let listed = listed(session, &run);
        confirm::confirm(session, Agreed::from(args.yes), &listed, "Undo these steps?").await?;
    }
    // A rollback that was interrupted goes on as it is; what is asked again is only a loss that was not accepted before.
    if !goes_back || !accept_loss.is_empty() {
        run.ask(session, Command::Rollback { accept_loss }).await?;
    }
    if run.driver().is_some() {
        return Ok(super::recorded(session, &run, "Its driver goes back from here."));
    }
    drive(session, run, &Journey::ending(Ending::RolledBack)).await
}

fn mappings(run: &OpenRun, typed: &[String]) -> Result<Vec<MappingName>, Failure> {
    let known = run.state().program().mappings();
    let names: Vec<&str> = known.keys().map(MappingName::as_str).collect();
    let mut mappings = Vec::with_capacity(typed.len());
    for name in typed {
        if !names.contains(&name.as_str()) {
            return Err(Failure::usage(format!("the plan has no mapping {name}"))
                .help(suggest::help(name, &names)));
        }
        mappings.push(MappingName::new(name));
    }
    Ok(mappings)
}

/// Nobody is asked to confirm what can't be done: what can't be undone is said, and with it what stays where it is. The core refuses
/// it too.
fn refuse_past_no_return(open: &OpenRun) -> Result<(), Failure> {
    let state = open.state();
    let gone: Vec<(&str, &str)> = run::beyond_return(state)
        .map(|step| (step.id.as_str(), step.irreversible.as_deref().unwrap_or_default()))
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::new(
        Exit::NotPermitted,
        "the run is past its point of no return: what these steps did can't be undone",
    );
    failure.causes = gone.iter().map(|(step, reason)| format!("{step}: {reason}")).collect();
    let gone: Vec<Value> =
        gone.iter().map(|(step, reason)| json!({ "step": step, "reason": reason })).collect();
    let stays = Staying::of(state, Syncs::Stay);
    failure.found.stays = stays.lines();
    failure.body = stays.document();
    let leave = open.line.of("abort {run} --leave --reason 'why'");
    Err(failure
        .with("irreversible", json!(gone))
        .help(format!("`{}` goes on to the end", open.line.go_on(state)))
        .help(format!("`{leave}` ends the run where it is")))
}

/// The steps in the order in which they will be undone, each with its statements.
fn listed(session: &Session, run: &OpenRun) -> String {
    let state = run.state();
    let colour = session.printer.message_colour();
    let undone = to_undo(state);
    let mut text =
        format!("{} to undo, in this order:\n", words::plural(undone.len() as u64, "step"));
    for step in undone.iter().filter_map(|id| state.program().step(id)) {
        text.push_str("  ");
        text.push_str(&colour.paint(Tone::Strong, step.id.as_str()));
        text.push('\n');
        for line in steps::undo_lines(step).iter().flat_map(|line| line.lines()) {
            text.push_str("    ");
            text.push_str(&words::visible(line));
            text.push('\n');
        }
    }
    text
}

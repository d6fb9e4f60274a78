//! One file for each command: from its arguments to an answer.

mod abort;
mod advance;
mod amend;
mod approve;
mod dry_run;
mod events;
mod explain;
mod gates;
mod graph;
mod history;
mod lock;
mod pause;
mod reject;
mod relay;
mod resolve;
mod resume;
mod retry;
mod revoke;
mod rollback;
mod run;
mod schema;
mod state;
mod status;
mod tune;
mod validate;
mod version;

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests;

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Command;
use crate::cli::session::{OpenRun, Session};
use crate::report::status::StatusView;
use crate::report::{Colour, words};

/// Does what a command says.
pub async fn perform(session: &Session, command: Command) -> Result<Answer, Failure> {
    match command {
        Command::Validate(args) => validate::perform(session, &args),
        Command::Graph(args) => graph::perform(session, &args).await,
        Command::DryRun(args) => dry_run::perform(session, &args).await,
        Command::Run(args) => run::perform(session, &args).await,
        Command::Advance(args) => advance::perform(session, &args).await,
        Command::Pause(args) => pause::perform(session, args).await,
        Command::Resume(args) => resume::perform(session, &args).await,
        Command::Retry(args) => retry::perform(session, &args).await,
        Command::Abort(args) => abort::perform(session, args).await,
        Command::Rollback(args) => rollback::perform(session, &args).await,
        Command::Amend(args) => amend::perform(session, &args).await,
        Command::Tune(args) => tune::perform(session, &args).await,
        Command::Gates(args) => gates::perform(session, &args).await,
        Command::Approve(args) => approve::perform(session, args).await,
        Command::Resolve(args) => resolve::perform(session, args).await,
        Command::Relay(args) => relay::perform(session, &args).await,
        Command::Reject(args) => reject::perform(session, args).await,
        Command::Revoke(args) => revoke::perform(session, &args).await,
        Command::Status(args) => status::perform(session, &args).await,
        Command::History(args) => history::perform(session, &args).await,
        Command::Events(args) => events::perform(session, &args).await,
        Command::Lock(args) => lock::perform(session, args.command).await,
        Command::State(args) => state::perform(session, &args.command).await,
        Command::Schema(args) => Ok(schema::perform(&args)),
        Command::Explain(args) => explain::perform(session, &args),
        Command::Version => Ok(version::perform()),
    }
}

/// The answer of a command that wrote a record and drives nothing: a sentence, where the run stands now, and what helps.
fn recorded(session: &Session, run: &OpenRun, sentence: &str) -> Answer {
    let view = StatusView {
        state: run.state(),
        driver: run.driver(),
        live: &[],
        line: &run.line,
        now: run.now,
    };
    let human = with_advice(sentence, &view, session.printer.result_colour());
    Answer::done(human).with_all(view.document())
}

fn with_advice(sentence: &str, view: &StatusView<'_>, colour: Colour) -> String {
    let advice = view.advice();
    let mut text = words::visible(sentence);
    text.push('\n');
    text.push_str(&colour.paint(advice.tone, &words::visible(&advice.sentence)));
    text.push('\n');
    text.push_str(&advice.lines(colour));
    text
}

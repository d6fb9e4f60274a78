//! `state`: the store itself, one file for each thing to do with it.

mod adopt;
mod check;
mod export;
mod import;

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::StateCommand;
use crate::cli::session::Session;

pub async fn perform(session: &Session, command: &StateCommand) -> Result<Answer, Failure> {
    match command {
        StateCommand::Check => check::perform(session).await,
        StateCommand::Export(args) => export::perform(session, args).await,
        StateCommand::Import(args) => import::perform(session, args).await,
        StateCommand::Adopt(args) => adopt::perform(session, args).await,
    }
}

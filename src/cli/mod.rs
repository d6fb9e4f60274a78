//! What people type, and what comes back: the only room that knows all others.
//!
//! A command is read ([`args`]), its settings are found (`settings`), and its file in `commands` comes to an
//! `Answer` or a `Failure`. Both have an exit code ([`exit`]) and are printed here,
//! in one place, as text or as one JSON document.

pub mod answer;
pub mod args;
mod commands;
mod confirm;
mod difference;
mod drive;
pub mod exit;
mod goal;
mod here;
mod logging;
mod outlook;
mod people;
mod pinned;
mod redacted;
mod relays;
mod select;
mod session;
mod settings;
mod signals;
mod staying;
mod suggest;
mod trouble;
mod wiring;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::report::{Colour, Format, Printer};

use answer::{Answer, Failure, Form};
use args::{Command, Typed};
use exit::Exit;
use session::Session;

/// Reads the command line, does what it says, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let exit = match Typed::try_parse() {
        Ok(typed) => perform(typed),
        Err(error) => unreadable(&error),
    };
    ExitCode::from(exit.code())
}

fn perform(typed: Typed) -> Exit {
    let printer = printer(&typed);
    logging::start(&typed.global, &printer);
    let name = typed.command.name();
    let form = match &typed.command {
        Command::Events(_) => Form::Line,
        Command::Status(status) if status.watch => Form::Line,
        _ => Form::Whole,
    };
    let result = runtime().and_then(|runtime| {
        let result = runtime.block_on(dispatch(typed, &printer));
        // A question that nobody answered must not keep the process.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(answer) => {
            show(&printer, name, &answer);
            answer.exit
        }
        Err(failure) => {
            show_failure(&printer, name, &failure, form);
            failure.exit
        }
    }
}

fn printer(typed: &Typed) -> Printer {
    let format = match typed.global.format {
        args::Format::Json => Format::Json,
        _ => Format::Human,
    };
    let colour = if typed.global.no_color { Colour::Off } else { Colour::On };
    Printer::new(format, colour)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(Exit::Unreachable, "the system gives no threads to work with")
            .because(error.to_string())
    })
}

async fn dispatch(typed: Typed, printer: &Printer) -> Result<Answer, Failure> {
    if !has_form(&typed.command, typed.global.format) {
        let more = match typed.command {
            Command::Graph(_) => "human, json, text, mermaid or dot",
            Command::DryRun(_) => "human, json, junit, markdown or github",
            _ => "human or json; other forms are those of graph and dry-run",
        };
        return Err(Failure::usage(format!("{} writes {more}", typed.command.name())));
    }
    let session = Session::new(typed.global, printer.clone(), signals::listen());
    tokio::select! {
        result = commands::perform(&session, typed.command) => result,
        signal = session.interrupted() => {
            Err(Failure::new(Exit::of_signal(signal), "interrupted before any run was driven"))
        }
    }
}

/// Whether a command writes results in a form.
const fn has_form(command: &Command, format: args::Format) -> bool {
    match format {
        args::Format::Human | args::Format::Json => true,
        args::Format::Text | args::Format::Mermaid | args::Format::Dot => {
            matches!(command, Command::Graph(_))
        }
        args::Format::Junit | args::Format::Markdown | args::Format::Github => {
            matches!(command, Command::DryRun(_))
        }
    }
}

fn show(printer: &Printer, command: &str, answer: &Answer) {
    match printer.format() {
        Format::Human => printer.result(&answer.human),
        Format::Json => match answer.form {
            Form::Whole => printer.document(&answer.document(command)),
            Form::Line => printer.line(&answer.document(command)),
        },
    }
}

fn show_failure(printer: &Printer, command: &str, failure: &Failure, form: Form) {
    match (printer.format(), form) {
        (Format::Human, _) => printer.message(&failure.render(printer.message_colour())),
        (Format::Json, Form::Whole) => printer.document(&failure.document(command)),
        (Format::Json, Form::Line) => printer.line(&failure.document(command)),
    }
}

/// Help and version are what was asked for; all else is a command that makes no sense.
fn unreadable(error: &clap::Error) -> Exit {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let printer = Printer::new(Format::Human, Colour::Off);
        printer.result(&error.render().to_string());
        return Exit::Done;
    }
    let words: Vec<OsString> = std::env::args_os().collect();
    let wants_json = words.iter().any(|word| word == "--format=json")
        || words.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json");
    let format = if wants_json { Format::Json } else { Format::Human };
    let printer = Printer::new(format, Colour::Off);
    let text = error.render().to_string();
    match format {
        Format::Human => printer.message(&text),
        Format::Json => {
            let message = text.trim().trim_start_matches("error: ").to_owned();
            printer.document(&Failure::usage(message).document("phasegate"));
        }
    }
    Exit::Usage
}

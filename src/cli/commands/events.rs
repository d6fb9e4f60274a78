//! `events`: a run's records as newline-delimited JSON, for programs that follow it.

use serde_json::json;

use crate::bounds::cli::FOLLOW_EVERY;
use crate::cli::answer::{Answer, Failure, SCHEMA_VERSION};
use crate::cli::args::Events;
use crate::cli::session::{OpenRun, Session};
use crate::engine::Signal;
use crate::report::history;

/// The last line of the stream is the command's own document, with its exit; each line before it is a record.
pub async fn perform(session: &Session, args: &Events) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    session.catch_signals();
    let mut signal = session.signal.clone();
    let mut written = 0;
    loop {
        written = write(session, &run, written).await?;
        let is_over = run.state().is_ended() && run.state().version() <= written;
        if !args.follow || is_over || *signal.borrow() != Signal::None {
            return Ok(Answer::done(String::new()).ending_a_stream());
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
            changed = signal.changed() => {
                if changed.is_err() {
                    return Ok(Answer::done(String::new()).ending_a_stream());
                }
            }
        }
        run.reload().await?;
    }
}

async fn write(session: &Session, run: &OpenRun, after_version: u64) -> Result<u64, Failure> {
    let entries = super::history::entries(run, after_version).await?;
    for entry in &entries {
        let mut line = history::document(entry);
        line["schema_version"] = json!(SCHEMA_VERSION);
        line["run"] = json!(run.id);
        session.printer.line(&line);
    }
    Ok(entries.last().map_or(after_version, |entry| entry.record.version))
}

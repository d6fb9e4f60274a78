//! `tune`: other settings for a backfill that runs or will run. Whoever drives it takes them up within a second.

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::{self, Tune};
use crate::cli::session::Session;
use crate::run::{ChunkRows, Command, StepId, Tuning};

pub async fn perform(session: &Session, args: &Tune) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    let chunk_rows = args.chunk_rows.map(|rows| match rows {
        args::ChunkRows::Auto => ChunkRows::Auto,
        args::ChunkRows::Fixed(rows) => ChunkRows::Fixed(rows),
    });
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let tuning = Tuning {
        chunk_rows,
        pause_between_ms: args.pause_between.map(ms),
        chunk_time_ms: args.chunk_time.map(ms),
        workers: args.workers,
        limits: args.limits.iter().cloned().collect(),
    };
    run.ask(session, Command::Tune { step: args.step.as_ref().map(StepId::new), tuning }).await?;
    let sentence = if run.driver().is_some() {
        "Tuned: its driver takes that up within a second."
    } else {
        "Tuned: that holds when the run goes on."
    };
    Ok(super::recorded(session, &run, sentence))
}

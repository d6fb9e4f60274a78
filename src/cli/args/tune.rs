//! What is typed behind `tune`.

use std::time::Duration;

use clap::Args;

use super::RunArg;
use crate::bounds::document::WORKERS_MAX;

/// `tune`.
#[derive(Clone, Debug, Args)]
// What is made by itself names every setting, of which one is enough.
#[command(override_usage = "phasegate tune [OPTIONS] <RUN> [STEP]")]
#[group(
    id = "settings",
    required = true,
    multiple = true,
    args = ["workers", "chunk_time", "chunk_rows", "pause_between", "limits"]
)]
pub struct Tune {
    /// The run.
    #[command(flatten)]
    pub run: RunArg,
    /// The backfill; may be left out when the plan has only one
    #[arg(value_name = "STEP")]
    pub step: Option<String>,
    /// Chunks at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(WORKERS_MAX)))]
    pub workers: Option<u32>,
    /// How long a chunk should take
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub chunk_time: Option<Duration>,
    /// Rows in a chunk
    #[arg(long, value_name = "auto|N", value_parser = chunk_rows)]
    pub chunk_rows: Option<ChunkRows>,
    /// How long to rest between chunks
    #[arg(long, value_name = "DURATION", alias = "pause", value_parser = humantime::parse_duration)]
    pub pause_between: Option<Duration>,
    /// Another limit for a throttle, such as lag=10s; off takes it off, plan undoes that; may be given again
    #[arg(long = "limit", value_name = "THROTTLE=VALUE", value_parser = limit)]
    pub limits: Vec<(String, crate::run::Moved)>,
}

/// Rows in a chunk, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkRows {
    /// `auto`.
    Auto,
    /// A number, from 1.
    Fixed(u32),
}

fn chunk_rows(typed: &str) -> Result<ChunkRows, String> {
    match (typed, typed.parse::<u32>()) {
        ("auto", _) => Ok(ChunkRows::Auto),
        (_, Ok(rows)) if rows > 0 => Ok(ChunkRows::Fixed(rows)),
        _ => Err("either auto or a number from 1".to_owned()),
    }
}

fn limit(typed: &str) -> Result<(String, crate::run::Moved), String> {
    let (name, value) = typed.split_once('=').ok_or("a throttle and its limit, such as lag=10s")?;
    let moved = match value.trim() {
        "off" => crate::run::Moved::Off,
        "plan" => crate::run::Moved::Plan,
        value => crate::run::Moved::To(crate::plan::limit(value)?),
    };
    Ok((name.trim().to_owned(), moved))
}

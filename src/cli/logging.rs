//! Logs, for those who look for a fault: to stderr, off unless asked for.
//!
//! What is logged holds no secret: URLs are never logged by anybody but through the store's and the drivers' own redacted
//! names, and of the libraries below only their warnings are let through up to `-vv`; neo4rs, which warns of each `neo4j://` that it
//! opens, only its errors.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::report::{Colour, Printer};

use super::args::{Global, LogFormat};

/// Begins to log as asked. A second call in one process changes nothing.
pub fn start(global: &Global, printer: &Printer) {
    let filter = match global.verbose {
        0 => "warn,sqlx=error,neo4rs=error",
        1 => "warn,neo4rs=error,phasegate=info",
        2 => "warn,neo4rs=error,phasegate=debug",
        _ => "info,phasegate=trace,sqlx=debug",
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(printer.clone())
        .with_ansi(printer.message_colour() == Colour::On)
        .with_span_events(FmtSpan::NONE);
    let started = match global.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
    // Somebody else in this process logs already; there is nothing to add to that.
    drop(started);
}

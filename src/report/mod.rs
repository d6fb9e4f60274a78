//! What people and programs are shown: results, progress, tables, sentences.
//!
//! Invariants:
//! - Only [`Printer`] writes, and it alone knows where: results to stdout, everything else to stderr.
//! - Everything reads well without colour; colour repeats what the words already say.
//! - Nothing here decides: it turns a state, a journal or an event into text or JSON.
//!
//! Absent on purpose: reading stores and databases, and exit codes.

pub mod advice;
pub mod deeds;
mod difference;
pub mod doubt;
pub mod dry_run;
pub mod events;
#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
pub(crate) mod fixture;
pub mod gates;
pub mod graph;
pub mod history;
mod layout;
mod paint;
pub mod parked;
mod plain;
mod printer;
mod progress;
pub mod relay;
pub mod release;
pub mod status;
pub mod steps;
pub mod summary;
mod table;
pub mod words;

pub use advice::{Advice, CommandLine, Suggestion};
pub use paint::{Colour, Tone};
pub use plain::Plain;
pub use printer::{Format, Printer};
pub use progress::Bars;
pub use table::{Alignment, Table};

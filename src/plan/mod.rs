//! From YAML to a valid plan.

mod document;
mod fields;
mod files;
mod findings;
mod graph;
mod lint;
mod node;
mod not_yet;
mod project;
mod read;
mod reports;
mod resolve;
mod secret;
mod source;
mod statements;
mod suggest;

pub use findings::Findings;

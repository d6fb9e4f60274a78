//! From YAML to a valid plan.

mod document;
mod fields;
mod files;
mod graph;
mod node;
mod read;
mod reports;
mod source;
mod suggest;

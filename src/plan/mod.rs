//! From YAML to a valid plan.

mod node;
mod reports;
mod source;

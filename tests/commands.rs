//! The program as it is typed: exit codes, what goes to which stream, documents, help.

#[path = "commands/documents.rs"]
mod documents;
#[path = "commands/driving.rs"]
mod driving;
#[path = "commands/help.rs"]
mod help;
#[path = "commands/plans.rs"]
mod plans;
#[path = "commands/tool.rs"]
mod tool;

//! The one integration binary. Servers are started by `tests/services/`; `tests/run` does both.
#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod bad_luck;
mod bad_luck_postgres;
mod commands;
mod copying;
mod docs;
mod dry_run;
mod examples;
mod failures;
mod gates;
mod graph;
mod house;
mod oracle;
mod plans;
mod postgres;
mod quickstart;
mod redaction;
mod rights;
mod sandbox;
mod services;
mod sqlite;
mod statements;
mod store;
mod turns;
mod verify;

//! The one integration binary. Servers are started by `tests/services/`; `tests/run` does both.
#![allow(clippy::unwrap_used, missing_docs)]

mod bad_luck;
mod commands;
mod docs;
mod failures;
mod gates;
mod house;
mod oracle;
mod plans;
mod postgres;
mod quickstart;
mod sandbox;
mod services;
mod sqlite;
mod store;
mod turns;

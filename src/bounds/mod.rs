//! Every limit of the program, each with its reason: how much of something is taken at once, how long is waited, how often is looked
//! and tried again, how much is kept, and how much of it a message shows.
//!
//! One file for each subject. What holds for a single database is in that database's file, what a plan may say in [`document`], what
//! holds where it says nothing in [`defaults`], and how much people are shown in [`message`].
//!
//! Units: whole numbers carry theirs at the end of the name (`_MS`, `_US`, `_S`, `_BYTES`, `_CHARS`, `_ROWS`), or count what the name
//! says; a [`Duration`](std::time::Duration) needs none. A limit has the type that its users need.
//!
//! Invariants: knows nothing but the standard library, computes nothing but one limit from another, and every room may know it.
//! Two names for one limit are a mistake; one name for two that happen to be equal is another.
//!
//! Absent on purpose: formats, codes and protocol numbers; units (seconds of a day); the parameters of an algorithm that are no limit
//! (the chunk sizer's, in `copy::sizer`); and how wide a page or a terminal is laid out. `tests/house/limits.rs` lists those by name.

pub mod cli;
pub mod copying;
pub mod defaults;
pub mod document;
pub mod engine;
pub mod message;
pub mod neo4j;
pub mod postgres;
pub mod probe;
pub mod relay;
pub mod sql;
pub mod sqlite;
pub mod store;
pub mod throttle;
pub mod verify;

//! Phasegate: expand-contract migrations as resumable, gated plans over several databases.
//!
//! The rooms, from the inside out: [`run`], [`copy`] and [`sql`] are pure; [`plan`] reads what people write and compiles it to
//! a [`run::Program`]; [`driver`] and [`store`] talk to databases; [`engine`] brings them together; [`report`] shows what
//! happens; [`cli`] is what people type. [`clock`] is the only place that reads a clock, and [`bounds`] has every limit with its
//! reason.

pub mod bounds;
pub mod cli;
pub mod clock;
pub mod copy;
pub mod diagnostic;
pub mod driver;
pub mod engine;
pub mod plan;
pub mod report;
pub mod run;
pub mod sql;
pub mod store;

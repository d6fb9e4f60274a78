//! The loop that carries a run: inputs to decisions, decisions to the journal, the journal to effects.
//!
//! Absent on purpose: printing, reading plans, and any knowledge of a particular database or store.

pub mod event;

//! The pure part of copying and comparing: bounds, sizes, what a comparison adds up to.
//!
//! Absent on purpose: I/O, clocks, and any comparison of keys. Keys are opaque here; only databases order them.

pub mod chunk;
pub mod compare;
pub mod parts;
pub mod row;
pub mod sizer;
pub mod throttle;

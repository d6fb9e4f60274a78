//! house tests.

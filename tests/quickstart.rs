//! quickstart tests.

//! bad_luck tests.

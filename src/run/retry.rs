//! When a failed attempt is made again.

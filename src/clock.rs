//! The one place that reads a clock.
//!
//! Two things are measured here and nothing else: how long something took (by the monotonic clock), and what time it is
//! (by the machine's clock, for stores that have none of their own and for logs). The pure rooms get both as arguments;
//! a test of the house refuses any other reading of a clock in `src`.
//!
//! Absent on purpose: waiting. That is `tokio::time`'s, which tests can stop and wind on.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Measures how long something takes. Not affected by anybody who sets the machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    began: Instant,
}

impl Stopwatch {
    /// Begins to measure.
    #[must_use]
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Microseconds since the start; half a million years are taken for the most.
    #[must_use]
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Whole milliseconds since the start.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.elapsed_us() / 1_000
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z by this machine's clock; 0 for a clock set to before that.
#[must_use]
pub fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopwatch_never_runs_backwards() {
        let watch = Stopwatch::start();
        let first = watch.elapsed_us();
        assert!(watch.elapsed_us() >= first);
        assert!(watch.elapsed_ms() <= watch.elapsed_us());
    }

    #[test]
    fn the_wall_clock_is_in_milliseconds() {
        // 2020-01-01 and 2200-01-01: off by a factor of a thousand either way and this fails.
        assert!((1_577_836_800_000..7_258_118_400_000).contains(&wall_ms()));
    }
}

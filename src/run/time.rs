//! Points in time, as the state store's clock gives them.
//!
//! Absent on purpose: any way to ask what time it is. The pure rooms are told.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, by the clock of the state store.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A point in time from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_unix_ms(self) -> i64 {
        self.0
    }

    /// This point moved later; saturates at the end of time.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        let ms = if ms > i64::MAX as u64 { i64::MAX } else { ms.cast_signed() };
        Self(self.0.saturating_add(ms))
    }

    /// This point moved earlier; saturates at the beginning of time.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        let ms = if ms > i64::MAX as u64 { i64::MAX } else { ms.cast_signed() };
        Self(self.0.saturating_sub(ms))
    }

    /// How long after `earlier` this is, in milliseconds; 0 when it is before it (a clock that was set back).
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        let ms = self.0.saturating_sub(earlier.0);
        if ms < 0 { 0 } else { ms.cast_unsigned() }
    }
}

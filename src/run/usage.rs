//! Whether something that was put aside is still used.
//!
//! Counters only rise, so two readings that are equal say that nothing happened between them, however far apart they are. The
//! journal keeps the reading from which the time counts, so that it survives restarts. Counters that moved, or that began
//! anew, count from then on: what was before is unknown, and unknown is not unused.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use crate::bounds::engine::USAGE_RECORDED_EVERY_MS;

/// A table's counters of reads and writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Which counters they are. Another text means that they began anew, or that the table is another one.
    pub counters: String,
    /// How many reads and writes they have seen.
    pub count: u64,
    /// Whether somebody is in the middle of something with the table, which the counters see when it ends.
    pub is_in_use: bool,
}

/// A reading of counters, and since when they stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The reading.
    pub usage: Usage,
    /// When it was recorded.
    pub since: Timestamp,
}

/// What was found of something's last use.
#[derive(Clone, Debug, PartialEq)]
pub enum Unused {
    /// Its last use was so long ago, in milliseconds, as a query says.
    ForMs(u64),
    /// Its counters.
    Counted(Usage),
}

impl Baseline {
    /// Whether the counters have seen no use since.
    #[must_use]
    pub fn stands(&self, now: &Usage) -> bool {
        self.usage.counters == now.counters && self.usage.count == now.count
    }
}

/// Whether a reading is to be recorded as the one that counts from now on, where a table is to be unused for `for_ms`.
#[must_use]
pub(super) fn begins_anew(
    known: Option<&Baseline>,
    seen: &Usage,
    for_ms: u64,
    now: Timestamp,
) -> bool {
    let Some(known) = known else { return true };
    !known.stands(seen) && now.since_ms(known.since) >= USAGE_RECORDED_EVERY_MS.min(for_ms / 4)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn usage(counters: &str, count: u64, is_in_use: bool) -> Usage {
        Usage { counters: counters.into(), count, is_in_use }
    }

    #[test]
    fn only_the_same_counters_at_the_same_count_prove_anything() {
        let since = Timestamp::from_unix_ms(0);
        let known = Baseline { usage: usage("a", 7, false), since };
        assert!(known.stands(&usage("a", 7, false)));
        for other in [usage("a", 8, false), usage("b", 7, false), usage("a", 0, false)] {
            assert!(!known.stands(&other), "{other:?}");
        }
        // Whoever is there now is seen by the counters when they have done; until then nothing begins anew.
        assert!(known.stands(&usage("a", 7, true)));
    }

    #[test]
    fn a_table_in_use_is_recorded_now_and_then_only() {
        let known = Baseline { usage: usage("a", 7, false), since: Timestamp::from_unix_ms(0) };
        let day = 86_400_000;
        let moved = usage("a", 8, false);
        let anew = |known, seen, at| begins_anew(known, seen, day, Timestamp::from_unix_ms(at));
        assert!(anew(None, &moved, 1));
        assert!(!anew(Some(&known), &moved, 59_999));
        assert!(anew(Some(&known), &moved, 60_000));
        assert!(!anew(Some(&known), &usage("a", 7, false), 60_000));
    }
}

//! Leaving room for other writers.
//!
//! SQLite has no queue for its one write lock: whoever waits looks again after pauses of its own, 1 to 25 ms apart for the
//! first 128 ms and up to 100 ms apart later (`sqliteDefaultBusyCallback`). A copy that takes the lock again at once is
//! nearly always there first: a client that writes one row has been seen to wait 3.5 s, and its driver gives up after 5 s
//! (measured in rollback-journal mode, chunks of 50 ms). So transactions that follow each other leave the lock free between
//! them: for as long as a waiting client looks away, where clients are known to write, and now and then where none is,
//! since one that never gets its turn can't be known.

use std::time::Duration;

use crate::bounds::sqlite::{EXPECTED_MS, LONG_REST_MS, REST_MS, STREAK_MS};
use crate::clock::Stopwatch;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Since when our transactions have followed each other.
    streak: Option<Stopwatch>,
    /// Since when the lock has been free.
    ended: Option<Stopwatch>,
    /// Since when another connection has written nothing.
    others: Option<Stopwatch>,
    /// SQLite's count of other connections' commits, as this connection saw it last.
    data_version: Option<i64>,
}

impl Turns {
    /// How long to leave the lock free before the next transaction. `data_version` is what SQLite's pragma of that name
    /// gives now: it changes when another connection has committed.
    pub(super) fn rest(&mut self, data_version: i64) -> Duration {
        if self.data_version.replace(data_version).is_some_and(|seen| seen != data_version) {
            self.others = Some(Stopwatch::start());
        }
        let free_ms = self.ended.map_or(u64::MAX, |ended| ended.elapsed_ms());
        if free_ms >= LONG_REST_MS {
            self.streak = None;
        }
        let streak_ms = self.streak.get_or_insert_with(Stopwatch::start).elapsed_ms();
        let rest_ms = rest_ms(streak_ms, self.others.map(|others| others.elapsed_ms()));
        if rest_ms >= LONG_REST_MS {
            self.streak = None;
        }
        Duration::from_millis(rest_ms.saturating_sub(free_ms))
    }

    /// Our transaction has ended, and the lock is free.
    pub(super) fn ended(&mut self) {
        self.ended = Some(Stopwatch::start());
    }

    /// The connection is another one, which counts from elsewhere.
    pub(super) fn reopened(&mut self) {
        self.data_version = None;
    }
}

/// The rest after a streak of transactions, when others wrote so long ago, if ever.
fn rest_ms(streak_ms: u64, others_ms: Option<u64>) -> u64 {
    if streak_ms >= STREAK_MS {
        LONG_REST_MS
    } else if others_ms.is_some_and(|ago| ago <= EXPECTED_MS) {
        REST_MS
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_their_turn() {
        let table = [
            (0, None, 0),
            (1_999, None, 0),
            (2_000, None, 100),
            (0, Some(0), 25),
            (1_999, Some(5_000), 25),
            (1_999, Some(5_001), 0),
            (2_000, Some(0), 100),
        ];
        for (streak_ms, others_ms, expected) in table {
            assert_eq!(rest_ms(streak_ms, others_ms), expected, "{streak_ms} {others_ms:?}");
        }
    }

    #[test]
    fn another_commit_is_noticed_and_a_new_connection_is_none() {
        let mut turns = Turns::default();
        assert_eq!(turns.rest(1), Duration::ZERO);
        turns.ended();
        assert_eq!(turns.rest(1), Duration::ZERO);
        turns.ended();
        turns.reopened();
        assert_eq!(turns.rest(7), Duration::ZERO);
        turns.ended();
        assert!(turns.rest(8) > Duration::from_millis(1));
    }
}

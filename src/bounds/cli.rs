//! Commands that go on looking: how often. A person reads what they show.

use std::time::Duration;

/// Between two looks of `events --follow`: new lines come as they would from a log.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Between two looks of `status --watch`: a page that changes more often can't be read.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Between two looks of `relay` at what waits: it counts the outbox, which is work for the server.
pub const RELAY_EVERY: Duration = Duration::from_secs(2);

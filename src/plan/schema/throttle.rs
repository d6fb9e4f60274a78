//! What the throttles of a backfill look like.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Duration;
use super::plan::Window;

/// A signal that holds a backfill back: exactly one of them, and its limit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Throttle {
    /// What `status` and `tune` call it.
    name: String,
    /// How far behind the last replica is: a duration, or a size of log.
    replica_lag: Option<LagLimit>,
    /// How long the oldest change has waited that goes to another database.
    relay_lag: Option<TimeLimit>,
    /// How many changes wait for other databases.
    relay_rows: Option<NumberLimit>,
    /// How much log the replication slot furthest behind keeps.
    slot_wal: Option<SizeLimit>,
    /// How many clients' sessions are at work.
    active_sessions: Option<NumberLimit>,
    /// How many clients' sessions wait for a lock.
    lock_waiters: Option<NumberLimit>,
    /// How old the oldest open transaction is.
    oldest_transaction: Option<TimeLimit>,
    /// How many rows of the mapping's worst table are dead: a number, or a percentage.
    dead_tuples: Option<ShareLimit>,
    /// One value, held against `max` or `min`.
    query: Option<String>,
    /// The same in Cypher, of a graph.
    cypher: Option<String>,
    /// A URL: it holds unless that answers 2xx, and, with `max` or `min`, a number.
    http: Option<Http>,
    /// An absolute path: it holds while a file is there.
    file: Option<String>,
    /// It holds outside of these times.
    window: Option<Window>,
    /// The database asked; the backfill's, if not given.
    target: Option<String>,
    /// It holds from here downwards.
    min: Option<f64>,
    /// It holds from here upwards.
    max: Option<f64>,
    /// How often it is looked at: every second, if not given.
    every: Option<Duration>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Http {
    Url(String),
    Map(HttpUrl),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HttpUrl {
    url: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LagLimit {
    /// Such as 5s, or 64MiB.
    max: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SizeLimit {
    /// Such as 64MiB.
    max: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NumberLimit {
    max: f64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeLimit {
    max: Duration,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ShareLimit {
    /// Such as 100000, or 20%.
    max: NumberOrPercent,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum NumberOrPercent {
    Number(f64),
    Percent(String),
}

//! What holds a copy back: the signals that a plan names, their limits, and what is said while one of them holds.
//!
//! Absent on purpose: when a signal holds and lets go. That is `copy::throttle`'s, which has samples and times.

use serde::{Deserialize, Serialize};

use super::name::TargetName;
use super::window::Window;
use super::words::duration;

/// One signal that may hold a copy back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throttle {
    /// Its name, unique in its backfill.
    pub name: String,
    /// What is looked at.
    pub signal: Signal,
    /// The limit; none where the signal itself says yes or no.
    pub bound: Option<Bound>,
    /// How often it is looked at, in milliseconds.
    pub every_ms: u64,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// What a database knows of itself.
    Gauge {
        /// The database.
        target: TargetName,
        /// What of it.
        gauge: Gauge,
    },
    /// The value of a query.
    Query {
        /// The database asked.
        target: TargetName,
        /// The query: one row, one column.
        query: String,
    },
    /// What answers at a URL: anything but a 2xx holds, and so does a number in the answer that is beyond the limit.
    Http {
        /// The URL, without secrets.
        url: String,
    },
    /// A file: as long as it is there, it holds.
    File {
        /// Its absolute path, on the machine that drives the run.
        path: String,
    },
    /// Local times: outside of them it holds.
    Window(Window),
}

/// What a database knows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gauge {
    /// How long the replica that is furthest behind needs to show a change, in milliseconds.
    ReplicaLag,
    /// How much log the replica that is furthest behind has not replayed, in bytes.
    ReplicaLagBytes,
    /// How much log the replication slot that is furthest behind keeps on the disk, in bytes.
    SlotWal,
    /// How many clients' sessions are at work.
    ActiveSessions,
    /// How many clients' sessions wait for a lock.
    LockWaiters,
    /// How old the oldest open transaction is, in milliseconds.
    OldestTransaction,
    /// How many dead rows the mapping's table with the most of them has.
    DeadTuples,
    /// How many of 100 rows are dead in the mapping's table with the most of them.
    DeadTuplesPercent,
    /// How long ago the oldest change was written that waits for another database, in milliseconds. What is parked waits for people.
    RelayLag,
    /// How many changes wait for other databases, those that are parked included.
    RelayRows,
}

/// From where on a signal holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// From this value upwards.
    Max(f64),
    /// From this value downwards.
    Min(f64),
}

/// What a signal's values are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// Of 100.
    Percent,
    /// Nothing: a plain number.
    Number,
}

/// A limit with what it is counted in, as an operator gives it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// The value.
    pub value: f64,
    /// What it is counted in.
    pub unit: Unit,
}

/// Where an operator moves a limit. A backfill that has begun can't be amended, and a signal that nobody can read any more
/// would hold it for ever; so a throttle can be taken off, too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moved {
    /// To this value.
    To(Limit),
    /// Away: the throttle holds nothing any more.
    Off,
    /// Back to what the plan says.
    Plan,
}

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::To(limit) => limit.fmt(f),
            Self::Off => f.write_str("off"),
            Self::Plan => f.write_str("as planned"),
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.unit.show(self.value))
    }
}

/// A signal that holds a copy back now, for people and programs that look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throttled {
    /// The throttle.
    pub name: String,
    /// Why it holds, in words, without since when.
    pub reason: String,
    /// Which of several is meant: a replica, a slot, a table.
    pub of: Option<String>,
    /// The last value, where there is one.
    pub value: Option<f64>,
    /// The limit, where it has one.
    pub limit: Option<f64>,
    /// What both are counted in.
    pub unit: Unit,
    /// For how long it has held, in milliseconds, when this was written down.
    pub for_ms: u64,
}

impl std::fmt::Display for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |limit| self.signal.unit().show(limit);
        match self.bound {
            Some(Bound::Max(limit)) => write!(f, "{} (from {})", self.name, shown(limit)),
            Some(Bound::Min(limit)) => write!(f, "{} (down from {})", self.name, shown(limit)),
            None => f.write_str(&self.name),
        }
    }
}

impl Signal {
    /// What its values are counted in.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        match self {
            Self::Gauge { gauge, .. } => gauge.unit(),
            Self::Query { .. } | Self::Http { .. } | Self::File { .. } | Self::Window(_) => {
                Unit::Number
            }
        }
    }

    /// What it asks of a database, where that is what it does.
    #[must_use]
    pub const fn gauge(&self) -> Option<Gauge> {
        match self {
            Self::Gauge { gauge, .. } => Some(*gauge),
            _ => None,
        }
    }

    /// The database it asks, if any.
    #[must_use]
    pub const fn target(&self) -> Option<&TargetName> {
        match self {
            Self::Gauge { target, .. } | Self::Query { target, .. } => Some(target),
            Self::Http { .. } | Self::File { .. } | Self::Window(_) => None,
        }
    }

    /// Whether that which it looks at may go away without being well: a replica that is gone is not one that has caught up.
    #[must_use]
    pub const fn minds_absence(&self) -> bool {
        matches!(self, Self::Gauge { gauge: Gauge::ReplicaLag | Gauge::ReplicaLagBytes, .. })
    }
}

impl Gauge {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ReplicaLag,
        Self::ReplicaLagBytes,
        Self::SlotWal,
        Self::ActiveSessions,
        Self::LockWaiters,
        Self::OldestTransaction,
        Self::DeadTuples,
        Self::DeadTuplesPercent,
        Self::RelayLag,
        Self::RelayRows,
    ];

    /// What its values are counted in.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::ReplicaLag | Self::OldestTransaction | Self::RelayLag => Unit::Ms,
            Self::ReplicaLagBytes | Self::SlotWal => Unit::Bytes,
            Self::DeadTuplesPercent => Unit::Percent,
            Self::ActiveSessions | Self::LockWaiters | Self::DeadTuples | Self::RelayRows => {
                Unit::Number
            }
        }
    }

    /// As plans write it; the unit of the limit tells two of one name apart.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReplicaLag | Self::ReplicaLagBytes => "replica_lag",
            Self::SlotWal => "slot_wal",
            Self::ActiveSessions => "active_sessions",
            Self::LockWaiters => "lock_waiters",
            Self::OldestTransaction => "oldest_transaction",
            Self::DeadTuples | Self::DeadTuplesPercent => "dead_tuples",
            Self::RelayLag => "relay_lag",
            Self::RelayRows => "relay_rows",
        }
    }
}

impl Bound {
    /// The limit as a number.
    #[must_use]
    pub const fn limit(self) -> f64 {
        match self {
            Self::Max(limit) | Self::Min(limit) => limit,
        }
    }

    /// The same side with another limit.
    #[must_use]
    pub const fn with_limit(self, limit: f64) -> Self {
        match self {
            Self::Max(_) => Self::Max(limit),
            Self::Min(_) => Self::Min(limit),
        }
    }

    /// Why it can't be a limit of such a signal: it would hold for ever, or never.
    #[must_use]
    pub fn complaint(self, gauge: Option<Gauge>) -> Option<&'static str> {
        let limit = self.limit();
        match self {
            _ if !limit.is_finite() => Some("a limit is a finite number"),
            Self::Max(_) if limit == 0.0 || (gauge.is_some() && limit < 0.0) => {
                Some("it holds from `max` on, so that it would never let go")
            }
            Self::Max(_) if gauge.map(Gauge::unit) == Some(Unit::Percent) && limit > 100.0 => {
                Some("more than 100 of 100 rows are never dead")
            }
            Self::Max(_) | Self::Min(_) => None,
        }
    }
}

/// Sizes, the largest first.
const SIZES: [(f64, &str); 4] = [
    (1_099_511_627_776.0, "TiB"),
    (1_073_741_824.0, "GiB"),
    (1_048_576.0, "MiB"),
    (1_024.0, "KiB"),
];

impl Unit {
    /// A value as people read it: `850ms`, `3.2s`, `64 MiB`, `20%`, `1.5`.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Ms => time(value),
            Self::Bytes => match SIZES.iter().find(|(size, _)| value >= *size) {
                Some((size, name)) => format!("{} {name}", short(value / size)),
                None => format!("{} B", short(value)),
            },
            Self::Percent => format!("{}%", short(value)),
            Self::Number => plain(value),
        }
    }
}

fn time(ms: f64) -> String {
    match ms {
        ..1_000.0 => format!("{}ms", short(ms.round())),
        1_000.0..60_000.0 => format!("{}s", short(ms / 1_000.0)),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
        _ => duration(ms as u64),
    }
}

/// At most one digit behind the point, and none that is 0.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), ToOwned::to_owned)
}

fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

impl Throttled {
    /// Why and for how long, in one line: `lag replica-2 3.2s >= 1.5s for 14s`. `for_ms` is counted by whoever shows it.
    #[must_use]
    pub fn sentence(&self, for_ms: u64) -> String {
        #[allow(clippy::cast_precision_loss)] // of thousands of years
        let seconds = (for_ms / 1_000) as f64 * 1_000.0;
        let held = if for_ms < 1_000 { "now".to_owned() } else { format!("for {}", time(seconds)) };
        format!("{} {} {held}", self.name, self.reason)
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_what_they_are_counted_in() {
        for (unit, value, shown) in [
            (Unit::Ms, 0.0, "0ms"),
            (Unit::Ms, 850.4, "850ms"),
            (Unit::Ms, 1_500.0, "1.5s"),
            (Unit::Ms, 14_000.0, "14s"),
            (Unit::Ms, 90_000.0, "1m 30s"),
            (Unit::Bytes, 12.0, "12 B"),
            (Unit::Bytes, 1_536.0, "1.5 KiB"),
            (Unit::Bytes, 67_108_864.0, "64 MiB"),
            (Unit::Percent, 20.0, "20%"),
            (Unit::Number, 10.0, "10"),
            (Unit::Number, 0.125, "0.125"),
            (Unit::Number, -0.0, "0"),
        ] {
            assert_eq!(unit.show(value), shown);
        }
    }

    #[test]
    fn a_limit_that_never_lets_go_is_complained_of() {
        assert!(Bound::Max(0.0).complaint(Some(Gauge::LockWaiters)).is_some());
        assert!(Bound::Max(-1.0).complaint(Some(Gauge::LockWaiters)).is_some());
        assert!(Bound::Max(101.0).complaint(Some(Gauge::DeadTuplesPercent)).is_some());
        assert!(Bound::Max(f64::NAN).complaint(None).is_some());
        assert!(Bound::Max(1.0).complaint(Some(Gauge::LockWaiters)).is_none());
        assert!(Bound::Max(-1.0).complaint(None).is_none());
        assert!(Bound::Min(0.0).complaint(None).is_none());
    }

    #[test]
    fn the_sentence_says_what_and_for_how_long() {
        let throttled = Throttled {
            name: "lag".into(),
            reason: "replica-2 3.2s >= 1.5s".into(),
            of: Some("replica-2".into()),
            value: Some(3_200.0),
            limit: Some(1_500.0),
            unit: Unit::Ms,
            for_ms: 14_200,
        };
        assert_eq!(throttled.sentence(14_200), "lag replica-2 3.2s >= 1.5s for 14s");
        assert_eq!(throttled.sentence(200), "lag replica-2 3.2s >= 1.5s now");
    }
}

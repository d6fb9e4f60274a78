//! Whether a signal holds a copy back, as a pure function of its samples and their times.
//!
//! Invariants:
//! - Nobody knows is shut: before the first sample, when a sample failed or had no value, and when the last one is too old.
//! - It shuts at the first sample beyond the limit, and lets go only after [`CALM_SAMPLES`] in a row at [`CALM_AT`] of it, so
//!   that a value which dances around its limit does not make the copy stutter.
//! - What was shut stays shut since the same moment until it lets go, whatever the reason is meanwhile.
//!
//! Absent on purpose: clocks and reading. Whoever samples says when; whoever looks says when.

use std::collections::BTreeSet;

use crate::bounds::throttle::{CALM_AT, CALM_SAMPLES, STALE_AFTER_MS, STALE_AFTER_PERIODS};
use crate::run::{Bound, Throttle, Throttled, Unit};

/// What one look at a signal gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Values, the worst of which counts. None at all is well: there is nothing that could be behind.
    Parts(Vec<Part>),
    /// It says itself that all is well.
    Go,
    /// It says itself that the copy is to hold, and why.
    Hold(String),
    /// It could not be read, and why.
    Failed(String),
}

/// A value, and what it is of where there are several.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// A replica, a slot, a table; none where the signal has one value.
    pub of: Option<String>,
    /// The value; none where it can't be told, which is no good sign.
    pub value: Option<f64>,
}

impl Reading {
    /// One value of one thing.
    #[must_use]
    pub fn value(value: f64) -> Self {
        Self::Parts(vec![Part { of: None, value: Some(value) }])
    }
}

/// One signal with what is remembered of it.
#[derive(Clone, Debug)]
pub struct Valve {
    name: String,
    bound: Option<Bound>,
    unit: Unit,
    stale_after_ms: u64,
    /// The parts that the first sample had, where one that is gone is no good sign.
    first_parts: Option<BTreeSet<String>>,
    minds_absence: bool,
    last: Option<(u64, Reading)>,
    /// None while it is open.
    shut: Option<Shut>,
}

#[derive(Clone, Debug)]
struct Shut {
    since_ms: u64,
    cause: Cause,
    calm_samples: u32,
}

#[derive(Clone, Debug)]
struct Cause {
    reason: String,
    of: Option<String>,
    value: Option<f64>,
}

impl Cause {
    fn plain(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), of: None, value: None }
    }

    fn of(reason: String, part: &Part) -> Self {
        Self { reason, of: part.of.clone(), value: part.value }
    }
}

/// What a sample says by itself.
enum Judged {
    /// It shuts.
    Bad(Cause),
    /// It neither shuts nor counts towards letting go.
    Middling(Cause),
    /// It counts towards letting go.
    Calm(Cause),
}

impl Valve {
    /// A signal of which nothing is known yet, which is shut.
    #[must_use]
    pub fn new(throttle: &Throttle, now_ms: u64) -> Self {
        let cause = Cause::plain("has not been looked at yet");
        Self {
            name: throttle.name.clone(),
            bound: throttle.bound,
            unit: throttle.signal.unit(),
            stale_after_ms: (STALE_AFTER_PERIODS * throttle.every_ms).max(STALE_AFTER_MS),
            first_parts: None,
            minds_absence: throttle.signal.minds_absence(),
            last: None,
            shut: Some(Shut { since_ms: now_ms, cause, calm_samples: 0 }),
        }
    }

    /// Takes in what a look at `now_ms` gave.
    pub fn sample(&mut self, now_ms: u64, reading: Reading) {
        if let Some(stale_since_ms) = self.stale_since(now_ms)
            && self.shut.is_none()
        {
            // Nobody may have asked meanwhile, and it was shut all the same.
            let cause = Cause::plain("");
            self.shut = Some(Shut { since_ms: stale_since_ms, cause, calm_samples: 0 });
        }
        let is_first = self.last.is_none();
        let judged = self.judge(&reading);
        if let (true, Reading::Parts(parts)) = (self.minds_absence, &reading)
            && self.first_parts.is_none()
        {
            self.first_parts = Some(parts.iter().filter_map(|part| part.of.clone()).collect());
        }
        self.shut = match (self.shut.take(), judged) {
            (None, Judged::Bad(cause)) => Some(Shut { since_ms: now_ms, cause, calm_samples: 0 }),
            (None, Judged::Middling(_) | Judged::Calm(_)) => None,
            (Some(_), Judged::Middling(_) | Judged::Calm(_)) if is_first => None,
            (Some(shut), Judged::Bad(cause) | Judged::Middling(cause)) => {
                Some(Shut { cause, calm_samples: 0, ..shut })
            }
            (Some(shut), Judged::Calm(cause)) => {
                let calm_samples = shut.calm_samples + 1;
                let reason =
                    format!("{}, calm {calm_samples} of {CALM_SAMPLES} times", cause.reason);
                let cause = Cause { reason, ..cause };
                (calm_samples < CALM_SAMPLES).then_some(Shut { cause, calm_samples, ..shut })
            }
        };
        self.last = Some((now_ms, reading));
    }

    /// Why it holds at `now_ms`; none while it is open.
    #[must_use]
    pub fn look(&self, now_ms: u64) -> Option<Throttled> {
        let stale_since_ms = self.stale_since(now_ms);
        let since_ms = match (&self.shut, stale_since_ms) {
            (Some(shut), _) => shut.since_ms,
            (None, Some(stale_since_ms)) => stale_since_ms,
            (None, None) => return None,
        };
        let stale = stale_since_ms.and(self.last.as_ref()).map(|(at_ms, _)| {
            let age = Unit::Ms.show(rounded(now_ms.saturating_sub(*at_ms)));
            Cause::plain(format!("has not answered for {age}"))
        });
        let known = self.shut.as_ref().map(|shut| shut.cause.clone());
        let Cause { reason, of, value } = stale.or(known)?;
        Some(Throttled {
            name: self.name.clone(),
            reason,
            of,
            value,
            limit: self.bound.map(Bound::limit),
            unit: self.unit,
            for_ms: now_ms.saturating_sub(since_ms),
        })
    }

    /// The limit now.
    #[must_use]
    pub const fn bound(&self) -> Option<Bound> {
        self.bound
    }

    /// Gives it another limit. What is known is judged by that at once, as if it had been the first sample: whoever moves a
    /// limit means what is there now.
    pub fn set_bound(&mut self, now_ms: u64, bound: Bound) {
        if self.bound == Some(bound) {
            return;
        }
        self.bound = Some(bound);
        if let Some((at_ms, reading)) =
            self.last.clone().filter(|_| self.stale_since(now_ms).is_none())
        {
            self.shut = match (self.shut.take(), self.judge(&reading)) {
                (Some(shut), Judged::Bad(cause)) => Some(Shut { cause, calm_samples: 0, ..shut }),
                (None, Judged::Bad(cause)) => {
                    Some(Shut { since_ms: now_ms.max(at_ms), cause, calm_samples: 0 })
                }
                (_, Judged::Middling(_) | Judged::Calm(_)) => None,
            };
        }
    }

    /// Since when the last sample is too old to say anything.
    fn stale_since(&self, now_ms: u64) -> Option<u64> {
        let (at_ms, _) = self.last.as_ref()?;
        let stale_ms = at_ms.saturating_add(self.stale_after_ms);
        (now_ms > stale_ms).then_some(stale_ms)
    }

    fn judge(&self, reading: &Reading) -> Judged {
        let parts = match reading {
            Reading::Go => return Judged::Calm(Cause::plain("lets go")),
            Reading::Hold(why) => return Judged::Bad(Cause::plain(why.clone())),
            Reading::Failed(why) => {
                return Judged::Bad(Cause::plain(format!("can't be read: {why}")));
            }
            Reading::Parts(parts) => parts,
        };
        if let Some(gone) = self
            .first_parts
            .iter()
            .flatten()
            .find(|first| !parts.iter().any(|part| part.of.as_ref() == Some(first)))
        {
            let reason = format!("{gone} is gone");
            return Judged::Bad(Cause { of: Some(gone.clone()), ..Cause::plain(reason) });
        }
        if let Some(part) = parts.iter().find(|part| part.value.is_none_or(f64::is_nan)) {
            return Judged::Bad(Cause::of(format!("{}gives no value", called(part)), part));
        }
        let Some(bound) = self.bound else { return Judged::Calm(Cause::plain("lets go")) };
        let worse = |one: &&Part, other: &&Part| {
            let (one, other) = (one.value.unwrap_or(0.0), other.value.unwrap_or(0.0));
            match bound {
                Bound::Max(_) => one.total_cmp(&other),
                Bound::Min(_) => other.total_cmp(&one),
            }
        };
        match parts.iter().max_by(worse) {
            Some(part) => self.judge_value(part, part.value.unwrap_or(0.0), bound),
            None => Judged::Calm(Cause::plain("has nothing to wait for")),
        }
    }

    fn judge_value(&self, part: &Part, value: f64, bound: Bound) -> Judged {
        let shown = format!("{}{}", called(part), self.unit.show(value));
        let limit = self.unit.show(bound.limit());
        let (is_bad, is_calm, sign) = match bound {
            Bound::Max(max) => (value >= max, value <= calm_below(max), ">="),
            Bound::Min(min) => (value <= min, value >= calm_above(min), "<="),
        };
        if is_bad {
            return Judged::Bad(Cause::of(format!("{shown} {sign} {limit}"), part));
        }
        if is_calm {
            return Judged::Calm(Cause::of(shown, part));
        }
        let reason = match bound {
            Bound::Max(max) => {
                format!("{shown} is not down to {} yet", self.unit.show(calm_below(max)))
            }
            Bound::Min(min) => {
                format!("{shown} is not up to {} yet", self.unit.show(calm_above(min)))
            }
        };
        Judged::Middling(Cause::of(reason, part))
    }
}

/// The largest calm value under a largest one. A share of nothing, or of less, is no distance: there everything that does
/// not shut is calm.
fn calm_below(max: f64) -> f64 {
    if max > 0.0 { max * CALM_AT } else { max }
}

fn calm_above(min: f64) -> f64 {
    if min > 0.0 { min / CALM_AT } else { min }
}

fn called(part: &Part) -> String {
    part.of.as_ref().map_or_else(String::new, |of| format!("{of} "))
}

/// Whole seconds, as a number to be shown.
#[allow(clippy::cast_precision_loss)] // of thousands of years
fn rounded(ms: u64) -> f64 {
    (ms / 1_000 * 1_000) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::run::{Gauge, Signal};

    fn valve(gauge: Gauge, bound: Bound) -> Valve {
        let signal = Signal::Gauge { target: "app".into(), gauge };
        let name = "lag".to_owned();
        Valve::new(&Throttle { name, signal, bound: Some(bound), every_ms: 1_000 }, 0)
    }

    fn lag() -> Valve {
        valve(Gauge::ReplicaLag, Bound::Max(1_500.0))
    }

    fn replicas(lags: &[(&str, Option<f64>)]) -> Reading {
        let part =
            |(of, value): &(&str, Option<f64>)| Part { of: Some((*of).to_owned()), value: *value };
        Reading::Parts(lags.iter().map(part).collect())
    }

    /// Samples in seconds from 1 on, each with the reason that is given right after it; empty when it is open.
    #[track_caller]
    fn check(mut valve: Valve, samples: &[(Reading, &str)]) -> Valve {
        for ((reading, expected), at_s) in samples.iter().zip(1_u64..) {
            valve.sample(at_s * 1_000, reading.clone());
            let seen = valve.look(at_s * 1_000).map(|shut| shut.sentence(shut.for_ms));
            assert_eq!(seen.unwrap_or_default(), *expected, "sample {at_s}: {reading:?}");
        }
        valve
    }

    #[test]
    fn it_is_shut_until_the_first_sample_and_opens_with_it() {
        let mut lag = lag();
        let shut = lag.look(2_000).unwrap();
        assert_eq!(shut.sentence(shut.for_ms), "lag has not been looked at yet for 2s");
        lag.sample(2_100, replicas(&[("a", Some(1_400.0))]));
        assert_eq!(lag.look(2_100), None, "under its limit is enough for the first");
    }

    #[test]
    fn it_shuts_at_once_and_lets_go_after_three_calm_samples_in_a_row() {
        let calm = || replicas(&[("a", Some(100.0)), ("b", Some(1_200.0))]);
        check(
            lag(),
            &[
                (calm(), ""),
                (replicas(&[("a", Some(100.0)), ("b", Some(3_200.0))]), "lag b 3.2s >= 1.5s now"),
                (calm(), "lag b 1.2s, calm 1 of 3 times for 1s"),
                (calm(), "lag b 1.2s, calm 2 of 3 times for 2s"),
                (replicas(&[("a", Some(1_300.0))]), "lag b is gone for 3s"),
                (calm(), "lag b 1.2s, calm 1 of 3 times for 4s"),
                (
                    replicas(&[("a", Some(1_300.0)), ("b", Some(0.0))]),
                    "lag a 1.3s is not down to 1.2s yet for 5s",
                ),
                (calm(), "lag b 1.2s, calm 1 of 3 times for 6s"),
                (calm(), "lag b 1.2s, calm 2 of 3 times for 7s"),
                (calm(), ""),
                (replicas(&[("a", Some(1_500.0)), ("b", None)]), "lag b gives no value now"),
            ],
        );
    }

    #[test]
    fn an_error_is_shut_and_so_is_no_value() {
        let go = || Reading::value(1.0);
        check(
            valve(Gauge::LockWaiters, Bound::Max(10.0)),
            &[
                (
                    Reading::Failed("no such table".into()),
                    "lag can't be read: no such table for 1s",
                ),
                (go(), "lag 1, calm 1 of 3 times for 2s"),
                (Reading::Parts(vec![Part { of: None, value: None }]), "lag gives no value for 3s"),
                (go(), "lag 1, calm 1 of 3 times for 4s"),
                (Reading::value(f64::NAN), "lag gives no value for 5s"),
                (go(), "lag 1, calm 1 of 3 times for 6s"),
                (go(), "lag 1, calm 2 of 3 times for 7s"),
                (go(), ""),
                (Reading::value(10.0), "lag 10 >= 10 now"),
            ],
        );
    }

    #[test]
    fn what_is_too_old_is_shut_since_it_became_so() {
        let mut valve = check(lag(), &[(replicas(&[("a", Some(0.0))]), "")]);
        assert_eq!(valve.look(6_000), None);
        let shut = valve.look(7_500).unwrap();
        assert_eq!(shut.sentence(shut.for_ms), "lag has not answered for 6s for 1s");
        // It does not open by itself with the next one: something was wrong.
        valve.sample(8_000, replicas(&[("a", Some(0.0))]));
        let shut = valve.look(8_000).unwrap();
        assert_eq!(shut.sentence(shut.for_ms), "lag a 0ms, calm 1 of 3 times for 2s");
        valve.sample(9_000, replicas(&[("a", Some(0.0))]));
        valve.sample(10_000, replicas(&[("a", Some(0.0))]));
        assert_eq!(valve.look(10_000), None);
        let slow = Throttle { every_ms: 60_000, ..throttle("slow") };
        let mut slow = Valve::new(&slow, 0);
        slow.sample(1, Reading::Go);
        assert_eq!(slow.look(180_000), None, "three periods");
        assert!(slow.look(180_002).is_some());
    }

    fn throttle(name: &str) -> Throttle {
        let signal = Signal::File { path: "/run/stop".into() };
        Throttle { name: name.into(), signal, bound: None, every_ms: 1_000 }
    }

    #[test]
    fn no_replica_at_the_start_is_none_and_one_that_comes_later_may_go() {
        check(
            lag(),
            &[
                (replicas(&[]), ""),
                (replicas(&[("late", Some(9_000.0))]), "lag late 9s >= 1.5s now"),
                (replicas(&[]), "lag has nothing to wait for, calm 1 of 3 times for 1s"),
                (replicas(&[]), "lag has nothing to wait for, calm 2 of 3 times for 2s"),
                (replicas(&[]), ""),
            ],
        );
        // A slot that is dropped keeps nothing any more.
        check(
            valve(Gauge::SlotWal, Bound::Max(1_024.0)),
            &[
                (replicas(&[("slot", Some(2_048.0))]), "lag slot 2 KiB >= 1 KiB for 1s"),
                (replicas(&[]), "lag has nothing to wait for, calm 1 of 3 times for 2s"),
            ],
        );
    }

    #[test]
    fn a_lowest_value_works_the_other_way_round() {
        let free = |value| Reading::value(value);
        let signal = Signal::Query { target: "app".into(), query: "select 1".into() };
        let name = "free".to_owned();
        let throttle = Throttle { name, signal, bound: Some(Bound::Min(10.0)), every_ms: 1_000 };
        check(
            Valve::new(&throttle, 0),
            &[
                (free(11.0), ""),
                (free(10.0), "free 10 <= 10 now"),
                (free(12.0), "free 12 is not up to 12.5 yet for 1s"),
                (free(12.5), "free 12.5, calm 1 of 3 times for 2s"),
                (free(99.0), "free 99, calm 2 of 3 times for 3s"),
                (free(99.0), ""),
            ],
        );
    }

    #[test]
    fn a_signal_may_say_so_itself() {
        check(
            Valve::new(&throttle("stop"), 0),
            &[
                (Reading::Hold("/run/stop is there".into()), "stop /run/stop is there for 1s"),
                (Reading::Go, "stop lets go, calm 1 of 3 times for 2s"),
                (Reading::Go, "stop lets go, calm 2 of 3 times for 3s"),
                (Reading::Go, ""),
            ],
        );
    }

    #[test]
    fn another_limit_counts_at_once() {
        let mut valve = check(
            lag(),
            &[(replicas(&[]), ""), (replicas(&[("a", Some(2_000.0))]), "lag a 2s >= 1.5s now")],
        );
        valve.set_bound(2_500, Bound::Max(1_500.0));
        assert!(valve.look(2_500).is_some(), "the same limit changes nothing");
        valve.set_bound(2_500, Bound::Max(3_000.0));
        assert_eq!(valve.look(2_500), None);
        valve.set_bound(2_600, Bound::Max(1_000.0));
        let shut = valve.look(3_600).unwrap();
        assert_eq!(shut.sentence(shut.for_ms), "lag a 2s >= 1s for 1s");
        assert_eq!((shut.value, shut.limit), (Some(2_000.0), Some(1_000.0)));
        // What has not been looked at does not open for that.
        let mut unknown = lag();
        unknown.set_bound(1, Bound::Max(3_000.0));
        assert!(unknown.look(1).is_some());
    }

    /// Whatever comes: it is never open when the last sample is bad or old, and always open after enough calm ones.
    #[test]
    fn it_is_never_open_on_what_is_bad_or_old() {
        let mut seed = 7_u64;
        let mut draw = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let (mut valve, mut now_ms, mut calm) = (lag(), 0, 0);
            for _ in 0..60 {
                now_ms += draw(7_000);
                let gap_is_stale =
                    valve.look(now_ms).is_some_and(|s| s.reason.contains("answered"));
                let (reading, is_bad, is_calm) = match draw(6) {
                    0 => (Reading::Failed("x".into()), true, false),
                    1 => (replicas(&[("a", None)]), true, false),
                    2 => (replicas(&[("a", Some(1_500.0))]), true, false),
                    3 => (replicas(&[("a", Some(1_201.0))]), false, false),
                    _ => (replicas(&[("a", Some(1_200.0))]), false, true),
                };
                calm = if is_calm { if gap_is_stale { 1 } else { calm + 1 } } else { 0 };
                valve.sample(now_ms, reading);
                assert!(!is_bad || valve.look(now_ms).is_some());
                assert!(calm < CALM_SAMPLES || valve.look(now_ms).is_none());
                assert!(valve.look(now_ms + STALE_AFTER_MS + 1).is_some());
            }
        }
    }
}

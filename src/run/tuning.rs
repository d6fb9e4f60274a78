//! Whether a backfill can have the settings that an operator asks for.

use super::action::Backfill;
use super::command::{Refusal, RefusalKind};
use super::name::StepId;
use super::record::Tuning;
use super::throttle::Moved;
use crate::bounds::document::WORKERS_MAX;

/// Whether the settings are ones that this backfill can have.
pub(super) fn check(id: &StepId, backfill: &Backfill, tuning: &Tuning) -> Result<(), Refusal> {
    if tuning.chunk_time_ms == Some(0) {
        return Err(usage("a chunk takes some time").with_help("give a time such as 50ms"));
    }
    if tuning.workers.is_some_and(|workers| !(1..=WORKERS_MAX).contains(&workers)) {
        return Err(usage(format!("a backfill has from 1 to {WORKERS_MAX} workers")));
    }
    for (name, moved) in &tuning.limits {
        let known: Vec<&str> = backfill.throttle.iter().map(|one| one.name.as_str()).collect();
        let Some(throttle) = backfill.throttle.iter().find(|one| one.name == *name) else {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(usage(format!("{id} has no throttle {name}"))
                .with_help(format!("its throttles: {known}")));
        };
        let Moved::To(limit) = moved else { continue };
        let Some(bound) = throttle.bound else {
            return Err(usage(format!("throttle {name} of {id} has no limit"))
                .with_help(format!("`--limit {name}=off` takes it off")));
        };
        let unit = throttle.signal.unit();
        if limit.unit != unit {
            let now = unit.show(bound.limit());
            return Err(usage(format!("{limit} is no limit for throttle {name} of {id}"))
                .with_help(format!("the plan's is {now}")));
        }
        if let Some(complaint) = bound.with_limit(limit.value).complaint(throttle.signal.gauge()) {
            return Err(usage(format!("{limit} is no limit for throttle {name}: {complaint}")));
        }
    }
    Ok(())
}

fn usage(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Usage, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::run::{Bound, ChunkRows, Gauge, Limit, Signal, Throttle, Unit};

    fn backfill() -> Backfill {
        let throttle = |name: &str, signal, bound| Throttle {
            name: name.into(),
            signal,
            bound,
            every_ms: 1_000,
        };
        let lag = Signal::Gauge { target: "app".into(), gauge: Gauge::ReplicaLag };
        let stop = Signal::File { path: "/run/stop".into() };
        Backfill {
            mapping: "leads".into(),
            chunk_rows: ChunkRows::Auto,
            chunk_time_ms: 100,
            workers: 1,
            pause_between_ms: 0,
            park_max: None,
            throttle: vec![
                throttle("lag", lag, Some(Bound::Max(5_000.0))),
                throttle("stop", stop, None),
            ],
            max_throttled_for_ms: None,
        }
    }

    fn limited(name: &str, value: f64, unit: Unit) -> Tuning {
        moved(name, Moved::To(Limit { value, unit }))
    }

    fn moved(name: &str, moved: Moved) -> Tuning {
        Tuning { limits: [(name.to_owned(), moved)].into(), ..Tuning::NONE }
    }

    #[test]
    fn only_settings_that_the_backfill_can_have_are_taken() {
        let workers = |workers| Tuning { workers: Some(workers), ..Tuning::NONE };
        let chunk_time = |ms| Tuning { chunk_time_ms: Some(ms), ..Tuning::NONE };
        for (tuning, complaint) in [
            (workers(1), ""),
            (workers(64), ""),
            (workers(0), "from 1 to 64 workers"),
            (workers(65), "from 1 to 64 workers"),
            (chunk_time(1), ""),
            (chunk_time(0), "a chunk takes some time"),
            (limited("lag", 10_000.0, Unit::Ms), ""),
            (limited("lag", 0.0, Unit::Ms), "never let go"),
            (limited("lag", 10.0, Unit::Number), "10 is no limit for throttle lag"),
            (moved("stop", Moved::Off), ""),
            (moved("lag", Moved::Plan), ""),
            (moved("lga", Moved::Off), "copy has no throttle lga"),
            (limited("lga", 10_000.0, Unit::Ms), "copy has no throttle lga"),
            (limited("stop", 1.0, Unit::Number), "throttle stop of copy has no limit"),
        ] {
            match check(&"copy".into(), &backfill(), &tuning) {
                Ok(()) => assert_eq!(complaint, "", "{tuning:?}"),
                Err(refusal) => {
                    assert!(!complaint.is_empty(), "{tuning:?}: {refusal}");
                    assert!(refusal.message.contains(complaint), "{tuning:?}: {refusal}");
                    assert_eq!(refusal.kind, RefusalKind::Usage);
                }
            }
        }
    }
}

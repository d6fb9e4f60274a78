//! Whether a backfill can have the settings that an operator asks for.

use super::action::Backfill;
use super::command::{Refusal, RefusalKind};
use super::name::StepId;
use super::record::Tuning;

/// The most chunks at once that may be asked for, as in plans.
const WORKERS_MAX: u32 = 64;

/// Whether the settings are ones that this backfill can have.
pub(super) fn check(id: &StepId, backfill: &Backfill, tuning: &Tuning) -> Result<(), Refusal> {
    if tuning.chunk_time_ms == Some(0) {
        return Err(usage("a chunk takes some time").with_help("give a time such as 50ms"));
    }
    if tuning.workers.is_some_and(|workers| !(1..=WORKERS_MAX).contains(&workers)) {
        return Err(usage(format!("a backfill has from 1 to {WORKERS_MAX} workers")));
    }
    for (name, limit) in &tuning.limits {
        let known: Vec<&str> = backfill.throttle.iter().map(|one| one.name.as_str()).collect();
        let Some(throttle) = backfill.throttle.iter().find(|one| one.name == *name) else {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(usage(format!("{id} has no throttle {name}"))
                .with_help(format!("its throttles: {known}")));
        };
        let Some(bound) = throttle.bound else {
            return Err(usage(format!("throttle {name} of {id} has no limit")));
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

//! How far the outbox of a mapping may grow while a step works on it: near a limit it is said, past one the step fails. Nothing is
//! thrown away either way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bounds::relay::NEAR_PERCENT;
use crate::driver::crossing::Lag;
use crate::driver::{Error, SharedDriver};
use crate::run::{FailureClass, Mapping, OutboxLimits, duration, plural};

use super::{Fault, Job};

/// The limits of a mapping's outbox, and whether it was said that one is near.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Outbox {
    limits: OutboxLimits,
    is_said: Arc<AtomicBool>,
}

impl Outbox {
    /// With these limits.
    pub(in crate::engine) fn of(limits: OutboxLimits) -> Self {
        Self { limits, is_said: Arc::default() }
    }

    /// Fails where the outbox is over one of them. A mapping inside one database has none.
    pub(super) async fn hold(&self, driver: &SharedDriver, mapping: &Mapping) -> Result<(), Error> {
        let Some(source) = driver.change_source().filter(|_| !mapping.is_pushdown()) else {
            return Ok(());
        };
        let lag = source.lag(std::slice::from_ref(mapping)).await;
        let lag = lag.map_err(|error| driver.told(error))?;
        if let Some(found) = passed(&lag, self.limits, 100) {
            let (why, data) = lag.refused("; last refused: ");
            let message =
                format!("the outbox of mapping {} is over its limit: {found}{why}", mapping.name);
            let over = Error::failed(FailureClass::Unsafe, message).with_help(
                "see `phasegate status RUN` for what keeps the relay from catching up, let it, and retry: no change is lost; or raise \
                 the limit in the plan's `outbox` and `phasegate amend`",
            );
            return Err(data.into_iter().fold(over, Error::with_private));
        }
        if let Some(found) = passed(&lag, self.limits, NEAR_PERCENT)
            && !self.is_said.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("the outbox of mapping {} nears its limit: {found}", mapping.name);
        }
        Ok(())
    }
}

/// What is beyond so many percent of its limit.
fn passed(lag: &Lag, limits: OutboxLimits, percent: u64) -> Option<String> {
    let is_beyond =
        |found: u64, limit: u64| found > limit / 100 * percent + limit % 100 * percent / 100;
    if is_beyond(lag.rows, limits.rows) {
        let most = plural(limits.rows, "change");
        return Some(format!("{} wait, where {most} may", plural(lag.rows, "change")));
    }
    let age_ms = lag.oldest_ms.unwrap_or_default();
    if is_beyond(age_ms, limits.age_ms) {
        let (age, most) = (duration(age_ms), duration(limits.age_ms));
        return Some(format!("a change has waited for {age}, where {most} may pass"));
    }
    if is_beyond(lag.bytes, limits.bytes) {
        return Some(format!("{} bytes wait, where {} may", lag.bytes, limits.bytes));
    }
    None
}

/// As [`Outbox::hold`], for a step.
pub(super) async fn hold(job: &Job) -> Result<(), Fault> {
    let Some(mapping) = &job.mapping else { return Ok(()) };
    job.patient(|| job.outbox.hold(&job.driver, mapping)).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_held_and_told() {
        let limits = OutboxLimits { rows: 10, age_ms: 10_000, bytes: 1_000 };
        let lag = |rows, age, bytes| Lag { rows, oldest_ms: Some(age), bytes, ..Lag::default() };
        for (lag, percent, found) in [
            (lag(10, 10_000, 1_000), 100, None),
            (lag(8, 8_000, 800), 80, None),
            (lag(9, 0, 0), 80, Some("9 changes wait, where 10 changes may")),
            (lag(11, 0, 0), 100, Some("11 changes wait, where 10 changes may")),
            (lag(1, 20_000, 0), 100, Some("a change has waited for 20s, where 10s may pass")),
            (lag(1, 0, 1_001), 100, Some("1001 bytes wait, where 1000 may")),
        ] {
            assert_eq!(passed(&lag, limits, percent).as_deref(), found, "{lag:?}");
        }
        let most = OutboxLimits { rows: u64::MAX, age_ms: u64::MAX, bytes: u64::MAX };
        assert_eq!(passed(&lag(u64::MAX, 0, 0), most, 100), None);
    }
}

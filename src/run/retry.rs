//! When a failed attempt is made again by itself.

use super::action::RetryPolicy;
use super::record::FailureClass;
use super::time::Timestamp;

/// Whether trying again can help without anybody doing something first.
#[must_use]
pub const fn is_transient(class: FailureClass) -> bool {
    matches!(class, FailureClass::Contention | FailureClass::Unreachable | FailureClass::Unknown)
}

/// When the next attempt is to be made after `tried` ones, if at all: exponential back-off with equal jitter (half of the
/// wait is fixed, half is random), so that runners which failed together don't come back together.
/// `jitter` is a random number from 0 to 1.
#[must_use]
pub fn next_attempt(
    policy: RetryPolicy,
    tried: u32,
    class: FailureClass,
    jitter: f64,
    now: Timestamp,
) -> Option<Timestamp> {
    if !is_transient(class) || tried >= policy.attempts {
        return None;
    }
    Some(now.plus_ms(back_off_ms(policy, tried, jitter)))
}

/// The wait after `tried` attempts, in milliseconds.
#[must_use]
pub fn back_off_ms(policy: RetryPolicy, tried: u32, jitter: f64) -> u64 {
    let doublings = tried.saturating_sub(1).min(32);
    let full = policy.first_wait_ms.saturating_mul(1 << doublings).min(policy.longest_wait_ms);
    let half = full / 2;
    let share = jitter.clamp(0.0, 1.0);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "waits are far below 2^52 ms and not negative"
    )]
    let random = (half as f64 * share) as u64;
    full - half + random
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 4, first_wait_ms: 100, longest_wait_ms: 300 };

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_attempts() {
        let now = Timestamp::from_unix_ms(1_000);
        let wait = |tried, jitter| {
            next_attempt(POLICY, tried, FailureClass::Contention, jitter, now)
                .map(|at| at.since_ms(now))
        };
        assert_eq!(wait(1, 1.0), Some(100));
        assert_eq!(wait(1, 0.0), Some(50));
        assert_eq!(wait(2, 1.0), Some(200));
        assert_eq!(wait(3, 1.0), Some(300));
        assert_eq!(wait(3, 0.5), Some(225));
        assert_eq!(wait(4, 1.0), None);
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        let now = Timestamp::default();
        for class in [
            FailureClass::TimedOut,
            FailureClass::Refused,
            FailureClass::NotPermitted,
            FailureClass::Full,
            FailureClass::Damaged,
            FailureClass::Stale,
            FailureClass::Unsafe,
            FailureClass::Cancelled,
        ] {
            assert_eq!(next_attempt(POLICY, 1, class, 0.5, now), None, "{class:?}");
        }
        for class in [FailureClass::Unreachable, FailureClass::Unknown] {
            assert!(next_attempt(POLICY, 1, class, 0.5, now).is_some());
        }
    }
}

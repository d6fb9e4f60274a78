//! Trying again while somebody else holds a target's locks.
//!
//! Only what certainly changed nothing is tried again by itself: a driver's [`Contention`](FailureClass::Contention). Backfill
//! has rules of its own, since its chunks go back to the queue.

use std::time::Duration;

use crate::clock::Stopwatch;
use crate::driver::Error;
use crate::run::FailureClass;

/// How long around the steps, in milliseconds: entering and leaving a target, and looking at it. Somebody is watching.
pub(super) const AROUND_STEPS_MS: u64 = 10_000;
/// How long inside a step, in milliseconds, before it has failed.
pub(super) const INSIDE_STEPS_MS: u64 = 120_000;
/// The pause between two tries. The driver itself has waited before that.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// Acts until it isn't locked out, for so long at most, or until told to stop.
pub(super) async fn patiently<T, F: Future<Output = Result<T, Error>>>(
    limit_ms: u64,
    is_stopped: impl Fn() -> bool,
    mut act: impl FnMut() -> F,
) -> Result<T, Error> {
    let since = Stopwatch::start();
    loop {
        match act().await {
            Err(error)
                if is_locked_out(&error) && since.elapsed_ms() < limit_ms && !is_stopped() =>
            {
                tracing::debug!(%error, "trying again");
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

fn is_locked_out(error: &Error) -> bool {
    error.class() == Some(FailureClass::Contention)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Fails so often with a class; the result and how often it was asked.
    async fn tried(class: FailureClass, failures: u32, limit_ms: u64) -> (bool, u32) {
        let mut asked = 0;
        let done = patiently(
            limit_ms,
            || false,
            || {
                asked += 1;
                let fails = asked <= failures;
                async move { if fails { Err(Error::failed(class, "no")) } else { Ok(()) } }
            },
        )
        .await;
        (done.is_ok(), asked)
    }

    #[tokio::test]
    async fn only_locks_are_waited_for_and_not_for_ever() {
        assert_eq!(tried(FailureClass::Contention, 3, 10_000).await, (true, 4));
        assert_eq!(tried(FailureClass::Contention, 3, 0).await, (false, 1));
        assert_eq!(tried(FailureClass::Unreachable, 3, 10_000).await, (false, 1));
    }

    #[tokio::test]
    async fn a_signal_ends_it() {
        let locked = || async { Err::<(), _>(Error::failed(FailureClass::Contention, "no")) };
        assert!(patiently(u64::MAX, || true, locked).await.is_err());
    }
}

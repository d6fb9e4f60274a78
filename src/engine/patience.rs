//! Patience with databases that are busy, and its end with those that don't answer.
//!
//! A driver tries once and says how it went. Outside the one transaction of a step nothing is recorded about an attempt, so
//! a client that held a lock for a moment would end the whole command: here such calls are made again, for a bounded time.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::driver::Error;
use crate::run::{Failure, FailureClass, RetryPolicy, back_off_ms, duration};

/// How long to go on, and at what pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long a call is made again while others are in the way, in milliseconds.
    for_ms: u64,
    /// The waits between.
    waits: RetryPolicy,
}

impl Patience {
    /// For what only looks, or holds nobody up while it waits. The waits are short: what others hold a lock for is a
    /// transaction of theirs.
    pub(super) const BRIEF: Self = Self {
        for_ms: 10_000,
        waits: RetryPolicy { attempts: u32::MAX, first_wait_ms: 50, longest_wait_ms: 500 },
    };

    /// For what wants a strong lock, behind which everybody waits who comes after: between two tries they get their turn.
    /// `for_ms` is how long the database is worth trying.
    pub(super) const fn for_locks(for_ms: u64) -> Self {
        let waits = RetryPolicy { attempts: u32::MAX, first_wait_ms: 500, longest_wait_ms: 5_000 };
        Self { for_ms, waits }
    }
}

/// How often a wait that goes on is said again, in milliseconds.
const SAY_EVERY_MS: u64 = 30_000;
/// How long a database may take over anything that is no step, in milliseconds.
pub(super) const ANSWER_WITHIN_MS: u64 = 120_000;
/// How long it may take over what a gate asks, in milliseconds.
pub(super) const PROBE_WITHIN_MS: u64 = 30_000;

/// Makes a call to a database again while others are in the way, until it has been long enough or `give_up` says so.
pub async fn patiently<T, F>(
    give_up: impl Fn() -> bool,
    call: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    with_patience(Patience::BRIEF, give_up, call).await
}

/// As [`patiently`], for as long as is worth while.
pub(super) async fn with_patience<T, F>(
    patience: Patience,
    give_up: impl Fn() -> bool,
    mut call: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let watch = Stopwatch::start();
    let mut tried = 0;
    let mut said: Option<Stopwatch> = None;
    loop {
        tried += 1;
        let failure = match call().await {
            Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => failure,
            other => return other,
        };
        if watch.elapsed_ms() >= patience.for_ms || give_up() {
            return Err(Error::Failed(failure));
        }
        say(&failure, tried, &mut said);
        let wait_ms = back_off_ms(patience.waits, tried, jitter());
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
}

/// Says who is in the way, where that is known: at once, and again now and then.
pub(super) fn say(failure: &Failure, tried: u32, said: &mut Option<Stopwatch>) {
    let Some(detail) = &failure.detail else {
        tracing::debug!(message = failure.message, tried, "the database is busy");
        return;
    };
    if said.is_none_or(|said| said.elapsed_ms() >= SAY_EVERY_MS) {
        tracing::warn!("tried {}, {detail}", crate::run::plural(u64::from(tried), "time"));
        *said = Some(Stopwatch::start());
    }
}

/// Ends a call that takes too long: a driver ends on the server what a dropped future had begun.
pub(super) async fn within<T>(
    limit_ms: u64,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let timed = tokio::time::timeout(Duration::from_millis(limit_ms), call).await;
    timed.unwrap_or_else(|_| {
        let limit = duration(limit_ms);
        let message = format!("the database did not answer within {limit}");
        Err(Error::failed(FailureClass::TimedOut, message))
    })
}

/// A random number from 0 to 1. The standard library's hash keys are random enough to spread retries.
#[allow(clippy::cast_precision_loss, reason = "53 bits are plenty")]
pub(super) fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish() >> 11;
    random as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn busy() -> Error {
        Error::failed(FailureClass::Contention, "busy")
    }

    #[tokio::test]
    async fn what_is_busy_is_asked_again_and_what_is_refused_is_not() {
        let mut calls = 0;
        let answer = patiently(
            || false,
            || {
                calls += 1;
                std::future::ready(if calls < 4 { Err(busy()) } else { Ok(calls) })
            },
        );
        assert_eq!(answer.await.unwrap(), 4);
        let mut calls = 0;
        let refused = Error::failed(FailureClass::Refused, "no");
        let answer = patiently(
            || false,
            || {
                calls += 1;
                std::future::ready(Err::<(), _>(refused.clone()))
            },
        );
        assert_eq!(answer.await.unwrap_err(), refused);
        assert_eq!(calls, 1);
    }

    #[tokio::test]
    async fn patience_ends_when_it_is_told_to() {
        let answer = patiently(|| true, || std::future::ready(Err::<(), _>(busy()))).await;
        assert_eq!(answer.unwrap_err(), busy());
    }

    #[tokio::test]
    async fn patience_fits_what_is_done() {
        for (patience, tries) in
            [(Patience::for_locks(0), 1..=1), (Patience::for_locks(400), 2..=3)]
        {
            let mut calls = 0;
            let call = || {
                calls += 1;
                std::future::ready(Err::<(), _>(busy()))
            };
            assert_eq!(with_patience(patience, || false, call).await.unwrap_err(), busy());
            assert!(tries.contains(&calls), "{patience:?}: {calls}");
        }
    }

    #[tokio::test]
    async fn what_does_not_answer_is_given_up() {
        let answer = within(10, std::future::pending::<Result<(), Error>>()).await;
        assert_eq!(answer.unwrap_err().class(), Some(FailureClass::TimedOut));
    }
}

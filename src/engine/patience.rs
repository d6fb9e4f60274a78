//! Patience with databases that are busy, and its end with those that don't answer.
//!
//! A driver tries once and says how it went. Outside the one transaction of a step nothing is recorded about an attempt, so
//! a client that held a lock for a moment would end the whole command: here such calls are made again, for a bounded time.
//!
//! Absent on purpose: patience with the locks that a step itself wants. Each of its tries is an attempt in the journal, and
//! the step's `retry` says how many there are (by default for about two minutes).

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::bounds::engine::{BUSY_FIRST_WAIT_MS, BUSY_FOR_MS, BUSY_LONGEST_WAIT_MS};
use crate::bounds::message::SAID_AGAIN_EVERY_MS;
use crate::clock::Stopwatch;
use crate::driver::Error;
use crate::run::{Failure, FailureClass, RetryPolicy, back_off_ms, duration, plural};

/// The waits between.
const WAITS: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    first_wait_ms: BUSY_FIRST_WAIT_MS,
    longest_wait_ms: BUSY_LONGEST_WAIT_MS,
};

/// Makes a call to a database again while others are in the way, until it has been long enough or `give_up` says so.
pub async fn patiently<T, F>(
    give_up: impl Fn() -> bool,
    mut call: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let watch = Stopwatch::start();
    let mut tried = 0;
    let mut said = None;
    loop {
        tried += 1;
        let failure = match call().await {
            Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => failure,
            other => return other,
        };
        if watch.elapsed_ms() >= BUSY_FOR_MS || give_up() {
            return Err(Error::Failed(failure));
        }
        say(&failure, tried, &mut said);
        tokio::time::sleep(Duration::from_millis(back_off_ms(WAITS, tried, jitter()))).await;
    }
}

/// Says who is in the way, where that is known: at once, and again now and then.
pub(super) fn say(failure: &Failure, tried: u32, said: &mut Option<Stopwatch>) {
    let Some(detail) = &failure.detail else {
        tracing::debug!(message = failure.message, tried, "the database is busy");
        return;
    };
    if said.is_none_or(|said| said.elapsed_ms() >= SAID_AGAIN_EVERY_MS) {
        tracing::warn!("tried {}, {detail}", plural(u64::from(tried), "time"));
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
    async fn what_does_not_answer_is_given_up() {
        let answer = within(10, std::future::pending::<Result<(), Error>>()).await;
        assert_eq!(answer.unwrap_err().class(), Some(FailureClass::TimedOut));
    }
}

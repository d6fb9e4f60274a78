//! What an application says of itself: that it writes both sides of a mapping, as its probe has it.
//!
//! A probe that answers anything else than it should ends the attempt: whoever has the application write both tries it again.
//! Absent on purpose: draining writers from before, which the driver does behind the probe.

use std::time::Duration;

use crate::bounds::engine::{HOLD_EVERY_MAX_MS, HOLD_EVERY_MIN_MS};
use crate::clock::Stopwatch;
use crate::copy::throttle::Reading;
use crate::engine::probe::brief;
use crate::engine::throttle;
use crate::run::{FailureClass, Probe, Question, Value, Writer, check, duration};

use super::{Fault, Job};

/// Waits until the probe has held as long as the plan says, without a break. Says how long that was.
pub(super) async fn hold(job: &Job) -> Result<Option<String>, Fault> {
    let Writer::Application(probe) = &job.writer else { return Ok(None) };
    let for_ms = job.longest_wait_ms.map_or(probe.for_ms, |longest| longest.min(probe.for_ms));
    let every = Duration::from_millis((for_ms / 10).clamp(HOLD_EVERY_MIN_MS, HOLD_EVERY_MAX_MS));
    let watch = Stopwatch::start();
    loop {
        look(job, probe).await?;
        if watch.elapsed_ms() >= for_ms {
            let cut = if for_ms < probe.for_ms { ", cut by policy" } else { "" };
            return Ok(Some(format!("the probe held for {}{cut}", duration(for_ms))));
        }
        if job.is_halted() {
            return Err(Fault::Interrupted);
        }
        tokio::time::sleep(every).await;
    }
}

/// Looks once.
pub(super) async fn still_writes(job: &Job) -> Result<(), Fault> {
    match &job.writer {
        Writer::Application(probe) => look(job, probe).await,
        Writer::Engine => Ok(()),
    }
}

async fn look(job: &Job, probe: &Probe) -> Result<(), Fault> {
    let value = answer(job, &probe.question).await?;
    if check(&probe.expect, &value) {
        return Ok(());
    }
    let message = format!(
        "the application does not write both sides: its probe gave {}, expected {}",
        brief(&value),
        probe.expect
    );
    Err(Fault::failed(FailureClass::Unsafe, message).with_help(
        "see that the version which writes both runs everywhere, then `phasegate retry`",
    ))
}

async fn answer(job: &Job, question: &Question) -> Result<Value, Fault> {
    match question {
        Question::Query { target, query } => {
            let driver = job.drivers.get(target).ok_or_else(|| {
                Fault::failed(FailureClass::Stale, format!("there is no target {target}"))
            })?;
            job.patient(|| driver.value(query)).await
        }
        Question::Http { url } => match throttle::number_at(url.clone()).await {
            Reading::Parts(parts) => {
                Ok(parts.first().and_then(|part| part.value).map_or(Value::Null, Value::Real))
            }
            Reading::Go => Ok(Value::Null),
            Reading::Hold(why) | Reading::Failed(why) => {
                let message = format!("the probe could not be asked: {why}");
                Err(Fault::failed(FailureClass::Unreachable, message))
            }
        },
    }
}

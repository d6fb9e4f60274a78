//! Whether the databases of an attempt still answer.
//!
//! A statement may take hours, so nothing tells by itself that its answer will never come: a server that hangs, or a network that swallows
//! what is sent. So each database is asked something small on another connection all the while, and one that has not answered that
//! several times in a row is given up. What came of the attempt is in its ledger, as always.

use crate::bounds::engine::{PULSE_EVERY, PULSE_WITHIN, PULSES_MISSED_MAX};
use crate::driver::{Error, SharedDriver};
use crate::run::{FailureClass, TargetName};

use super::{Fault, Job};

/// The databases of an attempt.
pub(super) struct Pulse {
    databases: Vec<(TargetName, SharedDriver)>,
}

impl Pulse {
    pub(super) fn of(job: &Job) -> Self {
        let of_mapping = job.planned.iter().flat_map(|it| [&it.from.target, &it.into.target]);
        let mut targets: Vec<&TargetName> = of_mapping.chain(&job.step.target).collect();
        targets.sort();
        targets.dedup();
        let databases = targets
            .into_iter()
            .filter_map(|name| Some((name.clone(), job.drivers.get(name)?.clone())))
            .collect();
        Self { databases }
    }

    /// Ends when one of them doesn't answer any more.
    pub(super) async fn stops(self) -> Fault {
        let mut missed = vec![0; self.databases.len()];
        loop {
            tokio::time::sleep(PULSE_EVERY).await;
            for ((target, driver), missed) in self.databases.iter().zip(&mut missed) {
                let answer = tokio::time::timeout(PULSE_WITHIN, driver.answers()).await;
                let is_silent = match answer {
                    Err(_) => true,
                    // What the server itself says, as that it has no more connections to give, is an answer.
                    Ok(Err(Error::Failed(failure))) => {
                        failure.class == FailureClass::Unreachable && failure.code.is_none()
                    }
                    Ok(_) => false,
                };
                *missed = if is_silent { *missed + 1 } else { 0 };
                if *missed == PULSES_MISSED_MAX {
                    return silent(target);
                }
            }
        }
    }
}

fn silent(target: &TargetName) -> Fault {
    let message = format!(
        "target {target} has not answered within {PULSE_WITHIN:?}, {PULSES_MISSED_MAX} times in a row, while it worked on the step"
    );
    Fault::failed(FailureClass::Unreachable, message)
        .with_help("see whether its server hangs; what it was asked to do may still end there, and the ledger tells")
}

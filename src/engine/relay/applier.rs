//! What a relay does on the new side with the changes that it has in hand.
//!
//! Invariants:
//! - The old side is not asked meanwhile: its slot has one place, which is the claim's that is made at the same time. What is to be
//!   told to it is given back with the rest.
//! - What was landed or refused before something went wrong is given back, too.
//!
//! Absent on purpose: what becomes of it in the outbox.

use tokio::sync::watch;

use crate::bounds::relay::{FAILED_MAX, LOOK_EVERY, REFUSED_MAX};
use crate::driver::crossing::{Change, ChangeSink, Crossed, Unfit, What};
use crate::driver::{Error, Fence};
use crate::run::{Failure, FailureClass};

use super::super::patience::within;
use super::{Landed, rested};

/// What became of changes.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// They are on the new side.
    pub landed: Vec<Landed>,
    /// The new side took none of them.
    pub refused: Vec<Refused>,
    /// These failed alone, and not for what is in them: they wait, and count no try.
    pub failed: Vec<(u64, Failure)>,
    /// Why the others were left.
    pub cut: Option<Cut>,
}

impl Applied {
    /// Whether nothing has become of any of them.
    pub(super) const fn is_empty(&self) -> bool {
        self.landed.is_empty() && self.refused.is_empty() && self.failed.is_empty()
    }
}

/// Why changes were left as they were.
#[derive(Debug)]
pub(super) enum Cut {
    /// The relay is to stop: whoever comes next is given them.
    Halted,
    Failed(Error),
}

/// A change that the new side doesn't take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub version: u64,
    pub code: Option<String>,
    pub reason: String,
    /// How often that may be before it is parked.
    pub most_tries: u32,
}

impl Refused {
    /// Trying it again makes no other row of it.
    fn unfit(version: u64, unfit: Unfit) -> Self {
        Self { version, code: None, reason: unfit.reason, most_tries: 1 }
    }

    fn by(failure: &Failure, version: u64, most_tries: u32) -> Self {
        let (code, reason) = (failure.code.clone(), failure.message.clone());
        Self { version, code, reason, most_tries }
    }
}

/// The new side, as a relay writes there.
pub(super) struct Applier<'a> {
    pub sink: &'a dyn ChangeSink,
    pub fence: &'a Fence,
    /// The mappings of the changes.
    pub of: &'a [Crossed],
    pub halt: watch::Receiver<bool>,
    /// How long the server may take over a call, in milliseconds.
    pub within_ms: u64,
}

impl Applier<'_> {
    /// Applies what was claimed.
    pub(super) async fn apply(&self, changes: Vec<Change>) -> Applied {
        let mut done = Applied::default();
        done.cut = self.apply_all(changes, &mut done).await.err();
        done
    }

    async fn apply_all(&self, changes: Vec<Change>, done: &mut Applied) -> Result<(), Cut> {
        let mut rows = Vec::new();
        for change in changes {
            match change.what {
                What::Emptied => self.empty(change, done).await?,
                What::Unfit(unfit) => done.refused.push(Refused::unfit(change.version, unfit)),
                What::Is(_) | What::Gone(_) => rows.push(change),
            }
        }
        self.land(rows, done).await
    }

    /// Empties the new side.
    async fn empty(&self, change: Change, done: &mut Applied) -> Result<(), Cut> {
        let landed = (change.version, change.mapping);
        let Some(crossed) = self.of.iter().find(|one| one.mapping.name == landed.1) else {
            done.landed.push(landed);
            return Ok(());
        };
        loop {
            match self.timed(self.sink.land_emptied(self.fence, crossed, landed.0)).await? {
                Ok(false) => {
                    done.landed.push(landed);
                    return Ok(());
                }
                Ok(true) => {}
                Err(Error::Failed(failure)) if self.sink.is_about_rows(&failure) => {
                    done.refused.push(Refused::by(&failure, landed.0, 1));
                    return Ok(());
                }
                Err(error) => self.passing(error).await?,
            }
            self.goes_on()?;
        }
    }

    /// Applies rows; where some are refused, all the others. What failed for a reason of the server may pass in smaller pieces, and
    /// where it doesn't, is left: who knows whether the row or the hour is to blame. Where one after another is left, it is the hour.
    async fn land(&self, rows: Vec<Change>, done: &mut Applied) -> Result<(), Cut> {
        let (mut open, mut in_vain) = (vec![rows], 0);
        while let Some(mut batch) = open.pop() {
            if batch.is_empty() {
                continue;
            }
            self.goes_on()?;
            match self.timed(self.sink.land(self.fence, self.of, &batch)).await? {
                Ok(()) => {
                    in_vain = 0;
                    let landed = batch.into_iter().map(|change| (change.version, change.mapping));
                    done.landed.extend(landed);
                }
                Err(Error::Failed(failure)) if batch.len() > 1 && may_be_less(failure.class) => {
                    let behind = batch.split_off(batch.len() / 2);
                    open.push(behind);
                    open.push(batch);
                }
                Err(Error::Failed(failure)) if self.sink.is_about_rows(&failure) => {
                    in_vain = 0;
                    let refused =
                        batch.iter().map(|it| Refused::by(&failure, it.version, REFUSED_MAX));
                    done.refused.extend(refused);
                }
                Err(Error::Failed(failure)) if may_be_less(failure.class) => {
                    in_vain += 1;
                    if in_vain >= FAILED_MAX {
                        return Err(Cut::Failed(Error::Failed(failure)));
                    }
                    let failed = batch.iter().map(|it| (it.version, failure.clone()));
                    done.failed.extend(failed);
                }
                Err(error) => {
                    self.passing(error).await?;
                    open.push(batch);
                }
            }
        }
        Ok(())
    }

    /// What a server says in time. One that says nothing is no server that has said that it took too long.
    async fn timed<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, Cut> {
        within(self.within_ms, async { Ok(call.await) }).await.map_err(Cut::Failed)
    }

    fn goes_on(&self) -> Result<(), Cut> {
        if *self.halt.borrow() { Err(Cut::Halted) } else { Ok(()) }
    }

    /// Waits for what others have locked to be free; anything else is an end.
    async fn passing(&self, error: Error) -> Result<(), Cut> {
        if error.class() != Some(FailureClass::Contention) {
            return Err(Cut::Failed(error));
        }
        tracing::debug!(%error, "changes wait for locks");
        if rested(&self.halt, LOOK_EVERY).await { Err(Cut::Halted) } else { Ok(()) }
    }
}

/// Whether a failure may come of how much was to be written at once: one row of it, or all of it together.
const fn may_be_less(class: FailureClass) -> bool {
    is_about_data(class) || matches!(class, FailureClass::TimedOut | FailureClass::Cancelled)
}

/// Whether a failure is about what was to be written, so that time alone mends nothing.
const fn is_about_data(class: FailureClass) -> bool {
    matches!(class, FailureClass::Refused | FailureClass::Unsafe)
}

#[cfg(test)]
mod tests;

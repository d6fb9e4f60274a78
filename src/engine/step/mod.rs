//! Performing one attempt at a step: one file per action.
//!
//! An attempt gets everything it needs in a [`Job`] and answers with an outcome or a [`Fault`]. It never touches the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock::Stopwatch;
use crate::driver::{self, Fence, Losses, SharedDriver, Work};
use crate::run::{
    Action, Direction, Evidence, Failure, FailureClass, GateFingerprint, Mapping, MappingName,
    Observation, Outcome, Permit, Program, Retire, RetireShape, Step, StepId, TargetName, Tuning,
    Value, Way,
};
use crate::store::{self, SharedStore};

use super::event::Progress;
use super::patience::{INSIDE_STEPS_MS, PAUSE, patiently};

mod backfill;
mod drop;
mod dual_write;
mod retire;
mod sql;
mod stop_dual_write;
mod verify;

/// All that one attempt needs.
pub(super) struct Job {
    pub(super) step: Step,
    pub(super) work: Work,
    pub(super) permit: Option<Permit>,
    pub(super) driver: SharedDriver,
    /// One for each worker slot; the first is the step's own.
    pub(super) fences: Vec<Fence>,
    /// The mapping under the names of the plan.
    pub(super) planned: Option<Mapping>,
    /// The mapping under the names that hold now.
    pub(super) mapping: Option<Mapping>,
    pub(super) direction: Direction,
    /// What the plan's `retire` of this mapping renames.
    pub(super) shape: Option<RetireShape>,
    pub(super) losses: Losses,
    pub(super) captures: BTreeMap<String, Value>,
    /// The gates whose fingerprints this step moves on, with the tables behind them on this target.
    pub(super) gates: Vec<(StepId, TargetName, Vec<String>)>,
    pub(super) store: SharedStore,
    pub(super) tuning: watch::Receiver<Tuning>,
    pub(super) halt: watch::Receiver<Halt>,
    pub(super) progress: mpsc::Sender<Progress>,
}

/// Whether an attempt is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Halt {
    /// Go on.
    No,
    /// End at the next chunk.
    Soon,
    /// End now; what the database is doing is being cancelled.
    Now,
}

/// Why an attempt did not end well.
#[derive(Debug)]
pub(super) enum Fault {
    Failed(Failure),
    Differs(Evidence),
    Interrupted,
    Fenced(String),
    Store(store::Error),
}

impl From<driver::Error> for Fault {
    fn from(error: driver::Error) -> Self {
        match error {
            driver::Error::Failed(failure) => Self::Failed(failure),
            // Everything here is transactional with its ledger row, so the next attempt finds out by asking the ledger.
            driver::Error::Unknown(failure) => {
                Self::Failed(Failure { class: FailureClass::Unreachable, ..failure })
            }
            driver::Error::Held(holder) => Self::Failed(Failure {
                class: FailureClass::Stale,
                code: None,
                message: format!("run {} of plan {} holds this database", holder.run, holder.plan),
                detail: None,
                help: None,
                line: None,
            }),
            driver::Error::Fenced { .. } => Self::Fenced(error.to_string()),
        }
    }
}

impl From<store::Error> for Fault {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    fn failed(class: FailureClass, message: impl Into<String>) -> Self {
        driver::Error::failed(class, message).into()
    }

    fn with_help(mut self, help: impl Into<String>) -> Self {
        if let Self::Failed(failure) = &mut self {
            failure.help = Some(help.into());
        }
        self
    }
}

/// How an attempt ended, for the loop.
pub(super) enum End {
    Seen(Observation),
    Fenced(String),
    Store(store::Error),
}

impl Job {
    /// Performs the attempt under its deadline.
    pub(super) async fn perform(mut self) -> End {
        let limit = self.step.timeout_ms;
        let result = match limit {
            None => self.act_patiently().await,
            Some(ms) => {
                if let Ok(result) =
                    tokio::time::timeout(Duration::from_millis(ms), self.act_patiently()).await
                {
                    result
                } else {
                    self.driver.cancel().await;
                    let limit = crate::run::duration(ms);
                    Err(Fault::failed(
                        FailureClass::TimedOut,
                        format!("{} took longer than its timeout of {limit}", self.step.id),
                    )
                    .with_help("what is committed stays; `phasegate retry` goes on from there"))
                }
            }
        };
        let result = match result {
            Ok(outcome) => self.with_fingerprints(outcome).await,
            Err(fault) => Err(fault),
        };
        match result {
            Ok(outcome) => End::Seen(Observation::Done(outcome)),
            Err(Fault::Interrupted) => End::Seen(Observation::Interrupted),
            // What failed because it was cancelled has not failed: it goes on later.
            Err(Fault::Failed(_)) if *self.halt.borrow() == Halt::Now => {
                End::Seen(Observation::Interrupted)
            }
            Err(Fault::Failed(failure)) => End::Seen(Observation::Failed(failure)),
            Err(Fault::Differs(evidence)) => End::Seen(Observation::Differs(evidence)),
            Err(Fault::Fenced(by)) => End::Fenced(by),
            Err(Fault::Store(error)) => End::Store(error),
        }
    }

    /// Acts until nobody else's locks are in the way, for a while. What a permit allows is tried once: the next attempt
    /// needs a new one, for which everything is looked at again.
    async fn act_patiently(&mut self) -> Result<Outcome, Fault> {
        let since = Stopwatch::start();
        let is_permitted = self.permit.is_some();
        loop {
            match self.act().await {
                Err(Fault::Failed(failure))
                    if failure.class == FailureClass::Contention
                        && !is_permitted
                        && since.elapsed_ms() < INSIDE_STEPS_MS =>
                {
                    tracing::debug!(step = %self.step.id, %failure.message, "trying again");
                    if self.is_halted() {
                        return Err(Fault::Interrupted);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn act(&mut self) -> Result<Outcome, Fault> {
        let action = self.step.action.clone();
        match (&action, self.work.way) {
            (Action::Sql(script), Way::Forward) => sql::perform(self, script).await,
            (Action::Sql(_), Way::Back) => sql::undo(self).await,
            (Action::DualWrite(_), Way::Forward) => dual_write::perform(self).await,
            (Action::DualWrite(_), Way::Back) => dual_write::undo(self).await,
            (Action::Backfill(backfill), Way::Forward) => backfill::perform(self, backfill).await,
            (Action::Verify(verify), Way::Forward) => verify::perform(self, verify).await,
            (Action::Retire(retire), Way::Forward) => retire::perform(self, retire).await,
            (Action::Retire(retire), Way::Back) => retire::undo(self, retire).await,
            (Action::Drop { .. }, Way::Forward) => drop::perform(self).await,
            (Action::StopDualWrite { .. }, Way::Forward) => stop_dual_write::perform(self).await,
            (Action::StopDualWrite { .. }, Way::Back) => stop_dual_write::undo(self).await,
            // The rows of a backfill go with the object they are in, or with the sync that found it empty.
            (Action::Backfill(_) | Action::Verify(_) | Action::Gate(_), _)
            | (Action::Drop { .. }, Way::Back) => Ok(Outcome::default()),
        }
    }

    /// The fence of the step's own slot.
    fn fence(&self) -> Result<&Fence, Fault> {
        self.fences.first().ok_or_else(|| {
            Fault::failed(FailureClass::Stale, "the target has not been entered for this run")
        })
    }

    fn mapping(&self) -> Result<&Mapping, Fault> {
        self.mapping.as_ref().ok_or_else(|| no_mapping(&self.step.id))
    }

    fn planned(&self) -> Result<&Mapping, Fault> {
        self.planned.as_ref().ok_or_else(|| no_mapping(&self.step.id))
    }

    /// Whether the ledger has this very piece of work: an earlier attempt died between its commit and the journal.
    async fn is_in_ledger(&self) -> Result<bool, Fault> {
        let run = self.fence()?.run();
        Ok(self.driver.is_applied(run, &self.work.step, self.work.way).await?)
    }

    /// Whether the ledger has the way forward of a step that is being undone.
    async fn was_done(&self) -> Result<bool, Fault> {
        let run = self.fence()?.run();
        Ok(self.driver.is_applied(run, &self.work.step, Way::Forward).await?)
    }

    fn is_halted(&self) -> bool {
        *self.halt.borrow() > Halt::No
    }

    /// Tells how far the step has come. Lost when nobody keeps up: the next one says it again.
    fn tell(&self, rows_done: u64, rows_total: Option<u64>, chunk_rows: u32) {
        let step = self.step.id.clone();
        let _ = self.progress.try_send(Progress { step, rows_done, rows_total, chunk_rows });
    }

    /// Reads what the objects behind open gates look like after the step, so that the run's own work does not shut them.
    async fn with_fingerprints(&self, mut outcome: Outcome) -> Result<Outcome, Fault> {
        for (gate, target, tables) in &self.gates {
            let look = || self.driver.fingerprint(tables);
            let fingerprint = patiently(INSIDE_STEPS_MS, || self.is_halted(), look).await?;
            let (gate, target) = (gate.clone(), target.clone());
            outcome.fingerprints.push(GateFingerprint { gate, target, fingerprint });
        }
        Ok(outcome)
    }
}

fn no_mapping(step: &StepId) -> Fault {
    Fault::failed(FailureClass::Stale, format!("the mapping of {step} is not in the plan"))
}

fn outcome(applied: driver::Applied) -> Outcome {
    Outcome { rows: Some(applied.rows), detail: applied.detail, ..Outcome::default() }
}

/// What the plan's `retire` of a mapping renames.
pub(super) fn shape_of<'a>(program: &'a Program, mapping: &MappingName) -> Option<&'a RetireShape> {
    program.steps().iter().find_map(|step| match &step.action {
        Action::Retire(Retire { mapping: of, shape }) if of == mapping => Some(shape),
        _ => None,
    })
}

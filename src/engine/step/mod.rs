//! Performing one attempt at a step: one file per action.
//!
//! An attempt gets everything it needs in a [`Job`] and answers with an outcome or a [`Fault`]. It never touches the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::bounds::engine::GRACE_MS;
use crate::driver::{self, Fence, Losses, SharedDriver, Work};
use crate::run::{
    Action, Digest, Direction, Evidence, Failure, FailureClass, GateFingerprint, Mapping,
    MappingName, Observation, Outcome, Permit, Program, Redact, Retire, RetireShape, Step, StepId,
    TargetName, Throttled, Traced, Tuning, Value, Way, Writer, is_told_undone, is_transient,
};
use crate::store::{self, SharedStore};

use super::event::Progress;
use super::patience::patiently;
use super::probe::asked;

mod application;
mod backfill;
mod brake;
mod drop;
mod dual_write;
pub(super) mod outbox;
mod park;
mod pass;
mod pulse;
mod queue;
mod retire;
mod settings;
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
    /// What the databases it works on were said to be when the run was last entered there.
    pub(super) lineages: BTreeMap<TargetName, String>,
    /// The mapping under the names of the plan.
    pub(super) planned: Option<Mapping>,
    /// The mapping under the names that hold now.
    pub(super) mapping: Option<Mapping>,
    /// The other mappings on this target that are kept in step now, under the names that hold now.
    pub(super) beside: Vec<Mapping>,
    pub(super) direction: Direction,
    /// The step that put the sync of this mapping in.
    pub(super) sync: Option<StepId>,
    /// Who writes both sides of the mapping.
    pub(super) writer: Writer,
    /// How far the mapping's outbox may grow.
    pub(super) outbox: outbox::Outbox,
    /// How long a wait may be, where policy says.
    pub(super) longest_wait_ms: Option<u64>,
    /// All mappings of the plan in this database, under the names of the plan.
    pub(super) mappings: Vec<Mapping>,
    /// Whether both sides are being kept in step now.
    pub(super) is_synced: bool,
    /// What the plan's `retire` of this mapping renames.
    pub(super) shape: Option<RetireShape>,
    pub(super) losses: Losses,
    /// What of differences is not to be recorded.
    pub(super) redact: Redact,
    pub(super) captures: BTreeMap<String, Value>,
    /// The gates whose fingerprints this step moves on.
    pub(super) gates: Vec<Moved>,
    pub(super) store: SharedStore,
    pub(super) tuning: watch::Receiver<Tuning>,
    pub(super) halt: watch::Receiver<Halt>,
    pub(super) progress: mpsc::Sender<Progress>,
    /// All databases of the plan, for throttles.
    pub(super) drivers: BTreeMap<TargetName, SharedDriver>,
    /// What holds the copy back now.
    pub(super) throttled: watch::Sender<Vec<Throttled>>,
}

/// A gate whose fingerprint on one target a step may move on.
pub(super) struct Moved {
    pub(super) gate: StepId,
    pub(super) target: TargetName,
    /// The tables behind the gate there.
    pub(super) tables: Vec<String>,
    /// What they must look like before the step.
    pub(super) expected: Option<Digest>,
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
    Ambiguous(String),
    Differs(Evidence),
    Interrupted,
    Fenced(String),
    Store(store::Error),
}

impl From<driver::Error> for Fault {
    fn from(error: driver::Error) -> Self {
        match error {
            driver::Error::Fenced { .. } => Self::Fenced(error.to_string()),
            driver::Error::Ambiguous(why) => Self::Ambiguous(why),
            other => Self::Failed(failure_of(other)),
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
        let halt = self.halt.clone();
        let id = self.step.id.clone();
        let pulse = pulse::Pulse::of(&self);
        let result = tokio::select! {
            biased;
            result = self.attempt() => result,
            fault = pulse.stops() => Err(fault),
            () = after(limit) => Err(timed_out(&id, limit.unwrap_or_default())),
            // What was to end now and does not is left to the database: its ledger has what came of it.
            () = past_grace(halt) => Err(Fault::Interrupted),
        };
        let result = match result {
            Ok(outcome) => self.with_fingerprints(outcome).await,
            // What can't be asked now is asked by the next attempt: it finds the same in doubt, and does nothing before.
            Err(Fault::Ambiguous(detail)) => match self.had_left().await {
                Ok(has_left) => return End::Seen(Observation::Ambiguous { detail, has_left }),
                Err(error) => Err(error.into()),
            },
            Err(fault) => Err(fault),
        };
        match result {
            Ok(outcome) => End::Seen(Observation::Done(outcome)),
            Err(Fault::Interrupted) => End::Seen(Observation::Interrupted),
            Err(Fault::Ambiguous(detail)) => {
                End::Seen(Observation::Ambiguous { detail, has_left: true })
            }
            // What failed because it was cancelled has not failed: it goes on later.
            Err(Fault::Failed(_)) if *self.halt.borrow() == Halt::Now => {
                End::Seen(Observation::Interrupted)
            }
            Err(Fault::Failed(failure)) => {
                let (failure, committed) = self.as_the_ledger_has_it(failure).await;
                let mut failure = self.with_what_is_gone(failure).await;
                failure.redact(self.redact);
                End::Seen(Observation::Failed(failure, committed))
            }
            Err(Fault::Differs(evidence)) => End::Seen(Observation::Differs(evidence)),
            Err(Fault::Fenced(by)) => End::Fenced(by),
            Err(Fault::Store(error)) => End::Store(error),
        }
    }

    async fn attempt(&mut self) -> Result<Outcome, Fault> {
        self.leave_out_changed_gates().await?;
        self.act().await
    }

    async fn act(&mut self) -> Result<Outcome, Fault> {
        let action = self.step.action.clone();
        match (&action, self.work.way) {
            (Action::Sql(script), Way::Forward) => sql::perform(self, script).await,
            (Action::Sql(_), Way::Back) => sql::undo(self).await,
            (Action::DualWrite(_), Way::Forward) => dual_write::perform(self).await,
            (Action::DualWrite(_), Way::Back) => dual_write::undo(self).await,
            (Action::Backfill(backfill), Way::Forward) => backfill::perform(self, backfill).await,
            (Action::Backfill(_), Way::Back) => backfill::undo(self).await,
            (Action::Verify(verify), Way::Forward) => verify::perform(self, verify).await,
            (Action::Retire(retire), Way::Forward) => retire::perform(self, retire).await,
            (Action::Retire(retire), Way::Back) => retire::undo(self, retire).await,
            (Action::Drop { .. }, Way::Forward) => drop::perform(self).await,
            (Action::StopDualWrite { .. }, Way::Forward) => stop_dual_write::perform(self).await,
            (Action::StopDualWrite { .. }, Way::Back) => stop_dual_write::undo(self).await,
            (Action::Drop { .. }, Way::Back) => self.has_nothing_to_undo().await,
            (Action::Verify(_) | Action::Gate(_), _) => Ok(Outcome::default()),
        }
    }

    /// A failure says that nothing was committed, and only the ledger knows that: the connection may have been lost while
    /// it was, or a process that is gone may have done it, so that this attempt did not even come as far as to find out. And whether
    /// something of the step is committed, or may be; `None` where nobody could ask.
    async fn as_the_ledger_has_it(&self, failure: Failure) -> (Failure, Option<bool>) {
        if !self.step.action.changes_data() {
            return (failure, Some(false));
        }
        let Some(fence) = self.fences.first() else { return (failure, None) };
        let traced = asked(|| self.traced(fence, self.work.way)).await;
        // What a `retire` carries over is checked behind its commit.
        let may_stand = matches!(self.step.action, Action::Retire(_));
        let is_open = is_transient(failure.class) || failure.class == FailureClass::TimedOut;
        let class = match traced {
            _ if failure.class == FailureClass::Refused && !may_stand => failure.class,
            Ok(Traced::Whole) => FailureClass::Unknown,
            Err(_) if is_open => FailureClass::Unknown,
            Ok(Traced::Nothing) if failure.class == FailureClass::Unknown => {
                FailureClass::Unreachable
            }
            Ok(Traced::Nothing | Traced::InDoubt | Traced::Parts) | Err(_) => failure.class,
        };
        let committed = !matches!(traced, Ok(Traced::Nothing));
        (Failure { class, ..failure }, Some(committed))
    }

    /// Whether something of the step is committed beside what is in doubt.
    async fn had_left(&self) -> Result<bool, driver::Error> {
        let Some(fence) = self.fences.first() else { return Ok(true) };
        let traced = asked(|| self.traced(fence, self.work.way)).await?;
        Ok(!matches!(traced, Traced::Nothing | Traced::InDoubt))
    }

    /// A failure of a step whose mapping is kept in step, and a table of which somebody took away, is about clients too: going
    /// back is what helps them.
    async fn with_what_is_gone(&self, failure: Failure) -> Failure {
        let may_be_that = matches!(failure.class, FailureClass::Stale | FailureClass::Refused)
            && self.work.way == Way::Forward
            && self.is_synced;
        let (true, Some(mapping)) = (may_be_that, &self.mapping) else { return failure };
        let gone = asked(|| self.driver.gone(mapping)).await;
        match gone.ok().and_then(|gone| dual_write::helps(mapping, gone)) {
            Some(help) => Failure { help: Some(help), ..failure },
            None => failure,
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
        self.ledger_has(&self.work.step, self.work.way).await
    }

    async fn ledger_has(&self, step: &StepId, way: Way) -> Result<bool, Fault> {
        let fence = self.fence()?;
        let has = || async {
            self.driver.ended(fence, step, way).await?;
            self.driver.is_applied(fence.run(), step, way).await
        };
        self.patient(has).await
    }

    /// How much of its work the ledger has, once all that was sent about it has ended.
    async fn traced(&self, fence: &Fence, way: Way) -> Result<Traced, driver::Error> {
        let step = &self.work.step;
        self.driver.ended(fence, step, way).await?;
        self.driver.traced(fence.run(), step, way).await
    }

    /// Whether the ledger has the way forward of a step that is being undone.
    async fn was_done(&self) -> Result<bool, Fault> {
        self.ledger_has(&self.work.step, Way::Forward).await
    }

    /// Of what can't be undone: an attempt of which nothing was committed has left nothing that would have to be.
    async fn has_nothing_to_undo(&self) -> Result<Outcome, Fault> {
        let (fence, step) = (self.fence()?, &self.work.step);
        let traced = self.patient(|| self.traced(fence, Way::Forward)).await?;
        let is_told = is_told_undone(&self.step, self.work.resolved);
        if traced == Traced::Nothing || traced == Traced::InDoubt && is_told {
            return Ok(Outcome::default());
        }
        let why = self.step.irreversible.as_deref().unwrap_or_default();
        Err(Fault::failed(FailureClass::Unsafe, format!("{step} can't be undone: {why}")))
    }

    /// Makes a call that changes nothing, or nothing that can't be done twice, again while others are in the way.
    async fn patient<T, F>(&self, call: impl FnMut() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, driver::Error>>,
    {
        Ok(patiently(|| self.is_halted(), call).await?)
    }

    fn is_halted(&self) -> bool {
        *self.halt.borrow() > Halt::No
    }

    /// Tells how far the step has come. Lost when nobody keeps up: the next one says it again.
    fn tell(&self, rows_done: u64, rows_total: Option<u64>, chunk_rows: u32) {
        let step = self.step.id.clone();
        let throttled = self.throttled.borrow().clone();
        let progress = Progress { step, rows_done, rows_total, chunk_rows, throttled };
        let _ = self.progress.try_send(progress);
    }

    /// A gate behind which somebody else has changed something is not moved on by this step: what the step leaves there would
    /// pass for its own work. When the step is in the ledger already, its work can't be told apart any more.
    async fn leave_out_changed_gates(&mut self) -> Result<(), Fault> {
        if self.gates.is_empty() || self.is_in_ledger().await? {
            return Ok(());
        }
        let mut as_expected = Vec::new();
        for moved in std::mem::take(&mut self.gates) {
            let now = self.patient(|| self.driver.fingerprint(&moved.tables)).await?;
            if moved.expected.as_ref().is_none_or(|expected| *expected == now) {
                as_expected.push(moved);
            }
        }
        self.gates = as_expected;
        Ok(())
    }

    /// Reads what the objects behind open gates look like after the step, so that the run's own work does not shut them.
    async fn with_fingerprints(&self, mut outcome: Outcome) -> Result<Outcome, Fault> {
        for Moved { gate, target, tables, .. } in &self.gates {
            let fingerprint = self.patient(|| self.driver.fingerprint(tables)).await?;
            let (gate, target) = (gate.clone(), target.clone());
            outcome.fingerprints.push(GateFingerprint { gate, target, fingerprint });
        }
        Ok(outcome)
    }
}

async fn after(limit_ms: Option<u64>) {
    match limit_ms {
        Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        None => std::future::pending().await,
    }
}

async fn past_grace(mut halt: watch::Receiver<Halt>) {
    if halt.wait_for(|halt| *halt == Halt::Now).await.is_err() {
        std::future::pending::<()>().await;
    }
    after(Some(GRACE_MS)).await;
}

/// The attempt is dropped, and with it whatever it had under way: a driver ends that, and that only, on the server.
fn timed_out(step: &StepId, limit_ms: u64) -> Fault {
    let limit = crate::run::duration(limit_ms);
    let message = format!("{step} took longer than its timeout of {limit}");
    Fault::failed(FailureClass::TimedOut, message)
        .with_help("what is committed stays; `phasegate retry` goes on from there")
}

/// A failure as the journal records it.
pub(super) fn failure_of(error: driver::Error) -> Failure {
    match error {
        driver::Error::Failed(failure) => failure,
        // What is transactional has its ledger row and what is not its mark there, so the next attempt finds out.
        driver::Error::Unknown(failure) => Failure { class: FailureClass::Unknown, ..failure },
        other @ (driver::Error::Ambiguous(_)
        | driver::Error::Held(_)
        | driver::Error::Fenced { .. }) => Failure {
            class: FailureClass::Stale,
            code: None,
            message: other.to_string(),
            detail: None,
            help: None,
            line: None,
            private: Vec::new(),
        },
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
        Action::Retire(Retire { mapping: of, shape, .. }) if of == mapping => Some(shape),
        _ => None,
    })
}

//! Carrying changes from one database to another: the relay.
//!
//! It works inside every process that drives the run, and in `phasegate relay`, but in one of them at a time: it has a lease of its own
//! for each pair of databases, and a slot of its own in both, so that whoever was overtaken can commit nothing. Where nobody is at
//! work, changes stay in the outbox.
//!
//! Invariants:
//! - A change is taken from the outbox when it is committed on the new side, and not before. Whatever happens in between, it is
//!   applied again, which does no harm.
//! - While changes are applied on the new side, those before them are taken from the outbox and the next are claimed: none of those that
//!   are in hand.
//! - What the new side refuses keeps no other key waiting: a batch with something of it is applied in halves, and what is
//!   refused alone is told to the outbox, which parks it in the end.
//! - Of its transactions on the old side one is open at a time: they all lock the slot, and wait for it hardly at all.
//! - A mapping whose table no longer fits it keeps no other mapping waiting: it is left out until somebody has mended that.
//! - A failure that is the server's own counts against no change. One that fails alone is let be for some seconds, and the others go on.
//! - What can pass (locks, a server that is away) is waited for, however long that takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::bounds::engine::LEASE_TTL_MS;
use crate::bounds::relay::{
    CHANGES_AT_ONCE, DONE_WITHIN_MS, FIRST_WAIT_MS, HELD_FOR, LEARN_EVERY_MS, LONGEST_WAIT_MS,
    LOOK_EVERY, REFUSED_FOR,
};
use crate::clock::Stopwatch;
use crate::driver::crossing::{Change, ChangeSink, ChangeSource, Crossed};
use crate::driver::{self, Fence, SharedDriver};
use crate::run::{
    Action, Failure, FailureClass, Mapping, MappingName, RetryPolicy, RunId, State, StepId,
    TargetName, back_off_ms,
};
use crate::store;

use super::journal::Journal;
use super::lease::Keeper;
use super::patience::{jitter, within};
use super::{Context, Error, process};

mod applier;
mod aside;
mod beside;
mod done;

use applier::{Applied, Applier, Cut, Refused};
use aside::Aside;
pub use beside::Relays;
use done::Done;

/// Between attempts while a database is busy or away.
const WAITS: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    first_wait_ms: FIRST_WAIT_MS,
    longest_wait_ms: LONGEST_WAIT_MS,
};

/// Two databases between which changes are carried.
type Stream = (TargetName, TargetName);

/// The mappings whose changes are captured, with the steps that begin that. One that was stopped is among them: what is left of it is
/// carried, or passed over.
#[must_use]
pub fn captured(state: &State) -> Vec<(StepId, Mapping)> {
    let live = |step: &crate::run::Step| match &step.action {
        Action::DualWrite(dual_write) if state.is_applied(&step.id) => {
            let mapping = state.mapping(&dual_write.mapping).filter(|it| !it.is_pushdown())?;
            Some((step.id.clone(), mapping))
        }
        _ => None,
    };
    state.program().steps().iter().filter_map(live).collect()
}

/// [`DONE_WITHIN_MS`], or what a test says.
fn done_within_ms() -> u64 {
    #[cfg(feature = "failpoints")]
    fail::fail_point!("relay::done-within", |ms| {
        ms.and_then(|ms| ms.parse().ok()).unwrap_or(DONE_WITHIN_MS)
    });
    DONE_WITHIN_MS
}

/// Rests. True when it is to stop.
async fn rested(halt: &watch::Receiver<bool>, rest: Duration) -> bool {
    let mut told = halt.clone();
    tokio::select! {
        () = tokio::time::sleep(rest) => *halt.borrow(),
        _ = told.wait_for(|halt| *halt) => true,
    }
}

/// Changes in hand, and the mappings that they are of.
#[derive(Default)]
struct Claimed {
    mappings: Vec<Mapping>,
    changes: Vec<Change>,
}

/// A mapping whose table doesn't fit it any more, and why.
type Misfit = (MappingName, driver::Error);

/// A change that is committed on the new side, by its version.
type Landed = (u64, MappingName);

/// A relay between two databases.
struct Relay {
    ctx: Context,
    run: RunId,
    /// The name of its lease and of its slots.
    name: RunId,
    stream: Stream,
    old: SharedDriver,
    new: SharedDriver,
    halt: watch::Receiver<bool>,
    said: Arc<Said>,
    /// The same of changes that wait while others go on.
    said_of_some: Arc<Said>,
}

/// What was said last, so that a server that stays away is told of once.
#[derive(Debug, Default)]
struct Said(std::sync::Mutex<Option<String>>);

impl Said {
    fn is_news(&self, text: &str) -> bool {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_news = last.as_deref() != Some(text);
        *last = Some(text.to_owned());
        is_news
    }

    fn forget(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }
}

/// Why a relay stops for now.
enum Stopped {
    /// It was told to, or the run is over.
    Over,
    /// Nothing is captured now.
    Idle,
    /// Another one is at work.
    Overtaken(String),
    Driver(TargetName, driver::Error),
    Store(store::Error),
    Journal(Error),
}

impl Stopped {
    fn by(target: &TargetName, error: driver::Error) -> Self {
        match error {
            driver::Error::Fenced { .. } => Self::Overtaken(error.to_string()),
            other => Self::Driver(target.clone(), other),
        }
    }
}

impl From<store::Error> for Stopped {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Held(lease) => {
                let by = &lease.holder;
                Self::Overtaken(format!("{} (pid {} on {})", by.name, by.pid, by.host))
            }
            other => Self::Store(other),
        }
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            other => Self::Journal(other),
        }
    }
}

impl Relay {
    fn of(ctx: &Context, run: &RunId, stream: Stream, halt: watch::Receiver<bool>) -> Option<Self> {
        let (from, into) = stream.clone();
        Some(Self {
            ctx: ctx.clone(),
            run: run.clone(),
            name: run.relay(&from, &into),
            old: ctx.drivers.get(&from)?.clone(),
            new: ctx.drivers.get(&into)?.clone(),
            stream,
            halt,
            said: Arc::default(),
            said_of_some: Arc::default(),
        })
    }

    /// Works until it is told to stop or the run is over.
    async fn run(self) {
        let mut in_vain = 0;
        loop {
            let stopped = self.work(&mut in_vain).await;
            let rest = match stopped {
                Stopped::Over => return,
                Stopped::Idle => Duration::from_millis(LEARN_EVERY_MS),
                Stopped::Overtaken(by) => {
                    let text = format!("the relay is at work elsewhere: {by}");
                    if self.said.is_news(&text) {
                        tracing::info!("{text}");
                    }
                    HELD_FOR
                }
                Stopped::Driver(target, error) => {
                    let rest = self.rest_after(&format!("target {target}: {error}"), &mut in_vain);
                    let is_refused = error.class() == Some(FailureClass::NotPermitted);
                    if is_refused { rest.max(REFUSED_FOR) } else { rest }
                }
                Stopped::Store(error) => self.rest_after(&error.to_string(), &mut in_vain),
                Stopped::Journal(error) => self.rest_after(&error.to_string(), &mut in_vain),
            };
            if self.rested(rest).await {
                return;
            }
        }
    }

    fn rest_after(&self, error: &str, in_vain: &mut u32) -> Duration {
        *in_vain = in_vain.saturating_add(1);
        let text = format!("changes wait in the outbox until this has passed: {error}");
        if self.said.is_news(&text) {
            tracing::warn!("{text}");
        }
        Duration::from_millis(back_off_ms(WAITS, *in_vain, jitter()))
    }

    fn is_halted(&self) -> bool {
        *self.halt.borrow()
    }

    async fn rested(&self, rest: Duration) -> bool {
        rested(&self.halt, rest).await
    }

    fn told_old(&self, error: driver::Error) -> Stopped {
        Stopped::by(&self.stream.0, self.old.told(error))
    }

    fn told_new(&self, error: driver::Error) -> Stopped {
        Stopped::by(&self.stream.1, self.new.told(error))
    }

    /// What the old side says in time: whoever waits for a database that has gone mute keeps its lease from others, whom it may answer.
    async fn of_old<T>(
        &self,
        call: impl Future<Output = Result<T, driver::Error>>,
    ) -> Result<T, Stopped> {
        within(done_within_ms(), call).await.map_err(|error| self.told_old(error))
    }

    fn source(&self) -> Result<&dyn ChangeSource, Stopped> {
        self.old.change_source().ok_or(Stopped::Over)
    }

    fn sink(&self) -> Result<&dyn ChangeSink, Stopped> {
        self.new.change_sink().ok_or(Stopped::Over)
    }

    /// Takes the lease and the slots, and carries changes while it has them.
    async fn work(&self, in_vain: &mut u32) -> Stopped {
        match self.leased(in_vain).await {
            Ok(never) => never,
            Err(stopped) => stopped,
        }
    }

    async fn leased(&self, in_vain: &mut u32) -> Result<Stopped, Stopped> {
        let mut journal = Journal::load(&self.ctx.store, &self.run).await?;
        while self.mappings(&journal.state).is_empty() {
            if journal.state.is_ended() || self.rested(Duration::from_millis(LEARN_EVERY_MS)).await
            {
                return Err(Stopped::Over);
            }
            journal.catch_up().await?;
        }
        if self.is_halted() || journal.state.is_ended() {
            return Err(Stopped::Over);
        }
        let (store, claimant) = (&self.ctx.store, &self.ctx.claimant);
        let lease = store.acquire(&self.name, claimant, LEASE_TTL_MS, &process::is_dead).await?;
        let mut keeper = Keeper::start(store.clone(), lease.clone());
        let stopped = tokio::select! {
            biased;
            lost = keeper.lost() => Stopped::Overtaken(lost),
            stopped = self.carry(&mut journal, lease.token, in_vain) => match stopped {
                Ok(never) => never,
                Err(stopped) => stopped,
            },
        };
        drop(keeper);
        let _ = store.release(&lease).await;
        Ok(stopped)
    }

    fn mappings(&self, state: &State) -> Vec<(StepId, Mapping)> {
        let all = captured(state).into_iter();
        let name = |mapping: &Mapping| self.run.relay(&mapping.from.target, &mapping.into.target);
        all.filter(|(_, mapping)| name(mapping) == self.name).collect()
    }

    async fn carry(
        &self,
        journal: &mut Journal,
        token: u64,
        in_vain: &mut u32,
    ) -> Result<Stopped, Stopped> {
        fail::fail_point!("relay::carry");
        let (source, sink) = (self.source()?, self.sink()?);
        let old = self.of_old(source.enter_relay(&self.name, token)).await?;
        let entered = within(done_within_ms(), sink.enter_relay(&self.name, token)).await;
        let new = entered.map_err(|error| self.told_new(error))?;
        let mut done = Done::of(&self.ctx.store, &self.run).await?;
        let mut learned = Stopwatch::start();
        let mut all = Vec::new();
        let mut last = 0;
        let (mut open, mut landed) = (Claimed::default(), Vec::new());
        let mut aside = Aside::default();
        loop {
            if self.is_halted() {
                self.take_out(&old, &landed).await?;
                return Ok(Stopped::Over);
            }
            if all.is_empty() || learned.elapsed_ms() >= LEARN_EVERY_MS {
                journal.catch_up().await?;
                if journal.state.is_ended() {
                    return Ok(Stopped::Over);
                }
                all = self.mappings(&journal.state);
                if all.is_empty() {
                    return Ok(Stopped::Idle);
                }
                learned = Stopwatch::start();
            }
            aside.come_again();
            let mappings = all.iter().map(|(_, mapping)| mapping);
            let mappings: Vec<Mapping> =
                mappings.filter(|mapping| !aside.has(&mapping.name)).cloned().collect();
            let in_hand = open.changes.iter().map(|change| change.version);
            let in_hand: Vec<u64> = in_hand.chain(aside.changes()).collect();
            let claim = async {
                self.take_out(&old, &landed).await?;
                let wanted = (CHANGES_AT_ONCE, in_hand.as_slice());
                let claimed = self.of_old(source.claim(&old, &mappings, wanted)).await?;
                self.as_a_cursor(&old, claimed, &mut last).await
            };
            let (applied, claimed) = tokio::join!(self.apply(&new, open), claim);
            let (applied, mut misfits) = applied?;
            // Behind the claim, which has had the slot.
            self.refuse(&old, &applied.refused).await?;
            self.leave(&mut aside, &applied.failed);
            if let Some(Cut::Failed(error)) = applied.cut {
                self.take_out(&old, &applied.landed).await?;
                return Err(self.told_new(error));
            }
            let changes = match claimed {
                Err(Stopped::Driver(target, error)) if is_about_table(&error) => {
                    let found = self.misfits(&mappings).await?;
                    if found.is_empty() {
                        return Err(Stopped::Driver(target, error));
                    }
                    misfits.extend(found);
                    Vec::new()
                }
                other => other?,
            };
            self.leave_out(&mut aside, misfits, &changes);
            done.count(&all, &landed);
            let is_empty = applied.is_empty() && changes.is_empty();
            (open, landed) = (Claimed { mappings, changes }, applied.landed);
            // From here on what went wrong has passed.
            *in_vain = 0;
            self.said.forget();
            done.write(&self.ctx.store, &self.run, is_empty).await?;
            if is_empty && self.rested(LOOK_EVERY).await {
                return Ok(Stopped::Over);
            }
        }
    }

    /// What a relay would take that reads "the changes behind the last": where a test wants to see what is lost by that.
    #[cfg(feature = "failpoints")]
    async fn as_a_cursor(
        &self,
        fence: &Fence,
        claimed: Vec<Change>,
        last: &mut u64,
    ) -> Result<Vec<Change>, Stopped> {
        let is_one = || {
            fail::fail_point!("relay::cursor", |_| true);
            false
        };
        if !is_one() {
            return Ok(claimed);
        }
        let (behind, passed): (Vec<Change>, Vec<Change>) =
            claimed.into_iter().partition(|change| change.version > *last);
        *last = behind.iter().map(|change| change.version).max().unwrap_or(*last);
        let passed: Vec<u64> = passed.iter().map(|change| change.version).collect();
        self.of_old(self.source()?.applied(fence, &passed)).await?;
        Ok(behind)
    }

    #[cfg(not(feature = "failpoints"))]
    #[allow(clippy::unused_async, clippy::unused_self)] // so that both forms are called alike
    async fn as_a_cursor(
        &self,
        _: &Fence,
        claimed: Vec<Change>,
        _: &mut u64,
    ) -> Result<Vec<Change>, Stopped> {
        Ok(claimed)
    }

    /// Takes what is applied from the outbox.
    async fn take_out(&self, fence: &Fence, landed: &[Landed]) -> Result<(), Stopped> {
        if landed.is_empty() {
            return Ok(());
        }
        let versions: Vec<u64> = landed.iter().map(|(version, _)| *version).collect();
        self.of_old(self.source()?.applied(fence, &versions)).await.map(|_| ())
    }

    /// Applies what was claimed. Gives the mappings, too, whose changes were left because the table no longer fits.
    async fn apply(
        &self,
        fence: &Fence,
        mut claimed: Claimed,
    ) -> Result<(Applied, Vec<Misfit>), Stopped> {
        let Claimed { mappings, changes } = &mut claimed;
        mappings.retain(|mapping| changes.iter().any(|change| change.mapping == mapping.name));
        let (of, misfits) = self.crossed(mappings).await?;
        changes.retain(|change| !misfits.iter().any(|(name, _)| *name == change.mapping));
        let halt = self.halt.clone();
        let within_ms = done_within_ms();
        let applier = Applier { sink: self.sink()?, fence, of: &of, halt, within_ms };
        Ok((applier.apply(claimed.changes).await, misfits))
    }

    /// What rows of mappings carry, and the mappings whose tables don't fit them any more.
    async fn crossed(&self, mappings: &[Mapping]) -> Result<(Vec<Crossed>, Vec<Misfit>), Stopped> {
        let (mut of, mut misfits) = (Vec::new(), Vec::new());
        for mapping in mappings {
            match self.of_old(self.source()?.crossed(mapping)).await {
                Ok(crossed) => of.push(crossed),
                Err(Stopped::Driver(_, error)) if is_about_table(&error) => {
                    misfits.push((mapping.name.clone(), error));
                }
                Err(stopped) => return Err(stopped),
            }
        }
        Ok((of, misfits))
    }

    async fn misfits(&self, mappings: &[Mapping]) -> Result<Vec<Misfit>, Stopped> {
        self.crossed(mappings).await.map(|(_, misfits)| misfits)
    }

    /// Lets mappings be whose tables don't fit them, and says so once; and says which of them are carried again.
    fn leave_out(&self, aside: &mut Aside, misfits: Vec<Misfit>, changes: &[Change]) {
        for (mapping, error) in misfits {
            let text = format!(
                "changes of mapping {mapping} wait in the outbox until this is mended: target {}: {error}",
                self.stream.0
            );
            if aside.leave_all_of(mapping, &text) {
                tracing::warn!("{text}");
            }
        }
        for mapping in aside.carried_again(changes) {
            tracing::info!("changes of mapping {mapping} are carried again");
        }
    }

    /// Leaves changes for a while, and says so once.
    fn leave(&self, aside: &mut Aside, failed: &[(u64, Failure)]) {
        if let Some((_, failure)) = failed.last() {
            let error = self.new.told(driver::Error::Failed(failure.clone()));
            let text = format!(
                "some changes wait in the outbox until this has passed: target {}: {error}",
                self.stream.1
            );
            if self.said_of_some.is_news(&text) {
                tracing::warn!("{text}");
            }
        }
        for (version, _) in failed {
            aside.leave(*version);
        }
    }

    /// Tells the outbox what the new side refused, and why.
    async fn refuse(&self, fence: &Fence, refused: &[Refused]) -> Result<(), Stopped> {
        let source = self.source()?;
        for one in refused {
            if self.is_halted() {
                // The rest is refused again.
                return Ok(());
            }
            let why = (one.code.as_deref(), one.reason.as_str());
            self.of_old(source.change_refused(fence, one.version, why, one.most_tries)).await?;
        }
        Ok(())
    }
}

/// Whether a failure may be about a table that isn't what a mapping says of it: dropped, without its key, or with a column of another type.
fn is_about_table(error: &driver::Error) -> bool {
    matches!(error.class(), Some(FailureClass::Stale | FailureClass::Refused))
}

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
//! - What can pass (locks, a server that is away) is waited for, however long that takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::Stopwatch;
use crate::driver::crossing::{Change, ChangeSink, ChangeSource, Crossed, What};
use crate::driver::{self, Fence, SharedDriver};
use crate::run::{
    Action, Failure, FailureClass, Mapping, MappingName, Program, RetryPolicy, RunId, State,
    StepId, TargetName, back_off_ms,
};
use crate::store;

use super::journal::Journal;
use super::lease::{Keeper, TTL_MS};
use super::patience::{jitter, within};
use super::{Context, Error, process};

mod done;

use done::Done;

/// Changes that are carried at once.
const BATCH: u32 = 5_000;
/// How often an empty outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the journal is read for mappings that came or went, in milliseconds.
const LEARN_EVERY_MS: u64 = 500;
/// How long what a relay has in hand may take when it is to stop: a server that doesn't answer must not keep a command.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);
/// How long a database may take over what a relay asks, in milliseconds. Far more than a batch takes: what was given up begins anew.
const DONE_WITHIN_MS: u64 = 600_000;
/// How long a relay waits while another has its lease.
const HELD_FOR: Duration = Duration::from_secs(1);
/// How long a relay waits at least where a database doesn't permit what it does: people have to mend that, and a server that is given a
/// wrong password again and again lets nobody of that name in.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// How often a change may be refused before it is parked.
const REFUSED_MAX: u32 = 3;
/// Between attempts while a database is busy or away.
const WAITS: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, first_wait_ms: 50, longest_wait_ms: 5_000 };

/// Two databases between which changes are carried.
type Stream = (TargetName, TargetName);

/// The pairs of databases of a plan's mappings.
fn streams(program: &Program) -> BTreeSet<Stream> {
    let across = program.mappings().values().filter(|mapping| !mapping.is_pushdown());
    across.map(|it| (it.from.target.clone(), it.into.target.clone())).collect()
}

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

/// Relays beside a drive.
pub struct Relays {
    halt: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Relays {
    /// Begins to carry the changes of a run.
    #[must_use]
    pub fn start(ctx: &Context, state: &State) -> Self {
        let (halt, halted) = watch::channel(false);
        let tasks = streams(state.program()).into_iter().filter_map(|stream| {
            let relay = Relay::of(ctx, state.run(), stream, halted.clone())?;
            Some(tokio::spawn(relay.run()))
        });
        Self { halt, tasks: tasks.collect() }
    }

    /// Ends when the run is over, or nothing of it has to be carried.
    pub async fn ended(&mut self) {
        for task in &mut self.tasks {
            let _ = task.await;
        }
        self.tasks.clear();
    }

    /// Ends them behind what they have in hand. What takes too long is dropped, and carried again by whoever comes next.
    pub async fn stop(&mut self) {
        self.halt.send_replace(true);
        if tokio::time::timeout(STOPPED_WITHIN, self.ended()).await.is_err() {
            for task in &self.tasks {
                task.abort();
            }
            self.ended().await;
        }
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.halt.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Changes in hand, and the mappings that they are of.
#[derive(Default)]
struct Claimed {
    mappings: Vec<Mapping>,
    changes: Vec<Change>,
}

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

    /// Rests. True when it is to stop.
    async fn rested(&self, rest: Duration) -> bool {
        let mut halt = self.halt.clone();
        tokio::select! {
            () = tokio::time::sleep(rest) => self.is_halted(),
            _ = halt.wait_for(|halt| *halt) => true,
        }
    }

    fn told_old(&self, error: driver::Error) -> Stopped {
        Stopped::by(&self.stream.0, self.old.told(error))
    }

    fn told_new(&self, error: driver::Error) -> Stopped {
        Stopped::by(&self.stream.1, self.new.told(error))
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
        let lease = store.acquire(&self.name, claimant, TTL_MS, &process::is_dead).await?;
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
        let (source, sink) = (self.source()?, self.sink()?);
        let told_old = |error| self.told_old(error);
        let told_new = |error| self.told_new(error);
        let entered = within(DONE_WITHIN_MS, source.enter_relay(&self.name, token)).await;
        let old = entered.map_err(told_old)?;
        let entered = within(DONE_WITHIN_MS, sink.enter_relay(&self.name, token)).await;
        let new = entered.map_err(told_new)?;
        let mut done = Done::of(&self.ctx.store, &self.run).await?;
        let mut learned = Stopwatch::start();
        let mut all = Vec::new();
        let mut last = 0;
        let (mut open, mut landed) = (Claimed::default(), Vec::new());
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
            let mappings: Vec<Mapping> = all.iter().map(|(_, mapping)| mapping.clone()).collect();
            let in_hand: Vec<u64> = open.changes.iter().map(|change| change.version).collect();
            let claim = async {
                self.take_out(&old, &landed).await?;
                let wanted = (BATCH, in_hand.as_slice());
                let claimed = source.claim(&old, &mappings, wanted).await.map_err(told_old)?;
                self.as_a_cursor(&old, claimed, &mut last).await
            };
            let (applied, claimed) = tokio::join!(self.apply([&old, &new], open), claim);
            let (applied, changes) = (applied?, claimed?);
            done.count(&all, &landed);
            let is_empty = applied.is_empty() && changes.is_empty();
            (open, landed) = (Claimed { mappings, changes }, applied);
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
        let applied = self.source()?.applied(fence, &passed).await;
        applied.map_err(|error| self.told_old(error))?;
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
        let gone = self.source()?.applied(fence, &versions).await;
        gone.map(|_| ()).map_err(|error| self.told_old(error))
    }

    /// Applies what was claimed. Returns what is done with.
    async fn apply(&self, fences: [&Fence; 2], claimed: Claimed) -> Result<Vec<Landed>, Stopped> {
        let source = self.source()?;
        let told_old = |error| self.told_old(error);
        let mut of = Vec::new();
        for mapping in &claimed.mappings {
            if claimed.changes.iter().any(|change| change.mapping == mapping.name) {
                of.push(source.crossed(mapping).await.map_err(told_old)?);
            }
        }
        let mut done = Vec::new();
        let mut rows = Vec::new();
        for change in claimed.changes {
            match &change.what {
                What::Emptied => {
                    if self.emptied(fences, &of, &change).await? {
                        done.push((change.version, change.mapping));
                    }
                }
                What::Unfit(unfit) => {
                    // Trying it again makes no other row of it.
                    let why = (None, unfit.reason.as_str());
                    let refused = source.change_refused(fences[0], change.version, why, 1).await;
                    refused.map_err(told_old)?;
                }
                What::Is(_) | What::Gone(_) => rows.push(change),
            }
        }
        self.land(fences, &of, rows, &mut done).await?;
        Ok(done)
    }

    /// Empties the new side. False where that was refused.
    async fn emptied(
        &self,
        fences: [&Fence; 2],
        of: &[Crossed],
        change: &Change,
    ) -> Result<bool, Stopped> {
        let Some(crossed) = of.iter().find(|one| one.mapping.name == change.mapping) else {
            return Ok(true);
        };
        loop {
            let landed = self.sink()?.land_emptied(fences[1], crossed, change.version).await;
            match landed {
                Ok(false) => return Ok(true),
                Ok(true) => {}
                Err(driver::Error::Failed(failure)) if is_about_data(failure.class) => {
                    self.refused(fences[0], change.version, &failure, 1).await?;
                    return Ok(false);
                }
                Err(error) => self.passing(error).await?,
            }
            if self.is_halted() {
                return Err(Stopped::Over);
            }
        }
    }

    /// Applies rows; where some are refused, all the others.
    async fn land(
        &self,
        fences: [&Fence; 2],
        of: &[Crossed],
        rows: Vec<Change>,
        done: &mut Vec<Landed>,
    ) -> Result<(), Stopped> {
        let mut open = vec![rows];
        while let Some(mut batch) = open.pop() {
            if batch.is_empty() {
                continue;
            }
            if self.is_halted() {
                // The rest is given to whoever comes next.
                return Ok(());
            }
            match within(DONE_WITHIN_MS, self.sink()?.land(fences[1], of, &batch)).await {
                Ok(()) => {
                    done.extend(batch.into_iter().map(|change| (change.version, change.mapping)));
                }
                Err(driver::Error::Failed(failure)) if is_about_data(failure.class) => {
                    if batch.len() > 1 {
                        let behind = batch.split_off(batch.len() / 2);
                        open.push(behind);
                        open.push(batch);
                        continue;
                    }
                    for change in batch {
                        self.refused(fences[0], change.version, &failure, REFUSED_MAX).await?;
                    }
                }
                Err(error) => {
                    self.passing(error).await?;
                    open.push(batch);
                }
            }
        }
        Ok(())
    }

    /// Tells the outbox why a change was refused.
    async fn refused(
        &self,
        fence: &Fence,
        version: u64,
        failure: &Failure,
        most_tries: u32,
    ) -> Result<(), Stopped> {
        let why = (failure.code.as_deref(), failure.message.as_str());
        let refused = self.source()?.change_refused(fence, version, why, most_tries).await;
        refused.map(|_| ()).map_err(|error| self.told_old(error))
    }

    /// Waits for what others have locked to be free; anything else is an end.
    async fn passing(&self, error: driver::Error) -> Result<(), Stopped> {
        if error.class() != Some(FailureClass::Contention) {
            return Err(self.told_new(error));
        }
        tracing::debug!(%error, "changes wait for locks");
        if self.rested(LOOK_EVERY).await { Err(Stopped::Over) } else { Ok(()) }
    }
}

/// Whether a failure is about what was to be written, so that time alone mends nothing.
const fn is_about_data(class: FailureClass) -> bool {
    matches!(class, FailureClass::Refused | FailureClass::Unsafe)
}

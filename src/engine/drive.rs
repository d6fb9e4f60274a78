//! Driving a run: one loop that joins the world outside (ended attempts, other terminals, signals, the lease) with the pure
//! core, and performs what the core says is ready.
//!
//! Invariants:
//! - An effect starts only after the record that says so is durable, and only when no process of a newer lease can exist that
//!   does not fence this one off.
//! - The loop waits for what it started before it returns, except when its process dies.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use crate::clock::Stopwatch;
use crate::driver::{Fence, Losses, Work};
use crate::run::{
    Direction, Effect, Ending, GateReport, Goal, Input, Observations, Permit, Progress as StepAt,
    RunId, Standing, State, StepId, Stop, TargetName, Tuning, Way, is_guarded, ready, report, stop,
};
use crate::store::{self, Entry, Lease, StepProgress};

use super::event::{Event, Progress};
use super::journal::Journal;
use super::lease::{Keeper, TTL_MS, lost_to};
use super::probe::{Questions, tables_behind};
use super::start::{at, claim};
use super::step::{End, Halt, Job, shape_of};
use super::{Context, Driven, Error, Options, Signal, finish, process};

/// How often other terminals' records are looked for, in milliseconds. The promise is that they take effect within 1 s.
const LOOK_EVERY_MS: u64 = 300;
/// How often a shut gate's conditions are read while waiting for it, in milliseconds.
const PROBE_EVERY_MS: u64 = 1_000;
/// Progress reports kept while the loop is busy; more are lost, and the next one says the same better.
const PROGRESS_QUEUE: usize = 64;
/// How often progress is written to the store for other terminals, in milliseconds.
const WRITE_PROGRESS_EVERY_MS: u64 = 500;

/// Drives a run until it is over, the goal is reached, a gate is shut, a step needs an operator, or a signal comes.
pub async fn drive(ctx: &Context, run: &RunId, options: &Options) -> Result<Driven, Error> {
    let mut journal = Journal::load(&ctx.store, run).await?;
    if let Some(stop) = stop(&journal.state, &options.goal, &[]) {
        return Ok(Driven::Stopped(stop));
    }
    let before = ctx.store.lease(run).await?;
    let lease = ctx.store.acquire(run, &ctx.claimant, TTL_MS, &process::is_dead).await?;
    journal.lease = Some(lease.clone());
    // Others may have appended between the first look and the lease.
    journal.catch_up().await?;
    let driven = drive_leased(ctx, journal, options, (before, &lease)).await;
    ctx.store.release(&lease).await.or_else(|error| match error {
        // It is somebody else's already, which the result says.
        store::Error::LeaseLost(_) => Ok(()),
        other => {
            if driven.is_err() {
                Ok(())
            } else {
                Err(other)
            }
        }
    })?;
    driven
}

async fn drive_leased(
    ctx: &Context,
    journal: Journal,
    options: &Options,
    (before, lease): (Option<Lease>, &Lease),
) -> Result<Driven, Error> {
    let keeper = Keeper::start(ctx.store.clone(), lease.clone());
    let mut fences = BTreeMap::new();
    for (target, driver) in &ctx.drivers {
        let claim = claim(ctx, journal.state.program(), journal.state.run());
        let entered = ctx.patiently(|| driver.enter(&claim, lease.token)).await;
        fences.insert(target.clone(), entered.map_err(|source| at(target, source))?);
    }
    let (tell, told) = mpsc::channel(PROGRESS_QUEUE);
    let mut drive = Drive {
        ctx,
        journal,
        goal: options.goal.clone(),
        wait_ms: options.wait_ms,
        keeper,
        fences,
        running: BTreeMap::new(),
        asking: BTreeMap::new(),
        shut: BTreeMap::new(),
        tasks: JoinSet::new(),
        tell,
        told,
        known_progress: BTreeMap::new(),
        progress_written: Stopwatch::start(),
        waiting_since: None,
        cancelled: false,
    };
    if let Some(before) = before.filter(|before| before.holder.id != ctx.claimant.id) {
        drive.note_takeover(&before);
    }
    let driven = drive.run().await;
    drive.quiet().await;
    driven
}

/// An attempt under way in this process.
struct Running {
    way: Way,
    halt: watch::Sender<Halt>,
    tuning: watch::Sender<Tuning>,
}

/// The last reading of a shut gate.
struct Shut {
    version: u64,
    since: Stopwatch,
    report: GateReport,
}

/// Something that a task of the loop came to.
enum Came {
    Step { step: StepId, attempt: u32, way: Way, end: End },
    Gate { gate: StepId, version: u64, seen: Observations },
    Recheck { step: StepId, seen: Vec<(StepId, Observations)> },
}

struct Drive<'a> {
    ctx: &'a Context,
    journal: Journal,
    goal: Goal,
    wait_ms: u64,
    keeper: Keeper,
    fences: BTreeMap<TargetName, Vec<Fence>>,
    running: BTreeMap<StepId, Running>,
    /// Probes under way, by gate or guarded step, with the version they were begun at.
    asking: BTreeMap<StepId, u64>,
    shut: BTreeMap<StepId, Shut>,
    tasks: JoinSet<Came>,
    tell: mpsc::Sender<Progress>,
    told: mpsc::Receiver<Progress>,
    known_progress: BTreeMap<StepId, Progress>,
    progress_written: Stopwatch,
    waiting_since: Option<Stopwatch>,
    cancelled: bool,
}

impl Drive<'_> {
    async fn run(&mut self) -> Result<Driven, Error> {
        loop {
            let foreign = self.journal.catch_up().await?;
            self.publish(&foreign);
            self.pass_on();
            let signal = *self.ctx.signal.borrow();
            self.cancel_if(signal).await;
            let wake = if signal == Signal::None { self.advance().await? } else { Wake::Idle };
            if self.tasks.is_empty() {
                if signal != Signal::None {
                    return Ok(Driven::Interrupted(signal));
                }
                if let Some(stop) = self.may_stop(wake).await? {
                    return Ok(Driven::Stopped(stop));
                }
            }
            self.wait(wake).await?;
        }
    }

    /// After a second signal, what the databases are doing is cancelled there, once.
    async fn cancel_if(&mut self, signal: Signal) {
        if matches!(signal, Signal::Now(_)) && !self.cancelled {
            self.cancelled = true;
            for driver in self.ctx.drivers.values() {
                driver.cancel().await;
            }
        }
    }

    /// Begins what may begin. Going back waits until nothing that goes forward is under way.
    async fn advance(&mut self) -> Result<Wake, Error> {
        let turning = *self.state().standing() != Standing::Forward
            && self.running.values().any(|running| running.way == Way::Forward);
        if turning {
            return Ok(Wake::Idle);
        }
        self.feed(&Input::Tick).await?;
        let now = self.ctx.store.now().await?;
        let mut wake = Wake::Idle;
        for effect in ready(self.state(), &self.goal, now) {
            match effect {
                Effect::Perform { step, attempt, way, permit } => {
                    self.perform(step, attempt, way, permit);
                }
                Effect::ProbeGate { gate } => self.probe(gate),
                Effect::Recheck { step, gates } => self.recheck(step, gates),
                Effect::WakeAt(at) => wake = Wake::InMs(at.since_ms(now)),
                Effect::Finish { ending } => {
                    if self.tasks.is_empty() {
                        self.finish(ending).await?;
                        return Ok(Wake::Now);
                    }
                }
            }
        }
        Ok(wake)
    }

    fn state(&self) -> &State {
        &self.journal.state
    }

    fn perform(&mut self, id: StepId, attempt: u32, way: Way, permit: Option<Permit>) {
        if self.running.contains_key(&id) {
            return;
        }
        let Some((job, running)) = self.job(&id, way, permit) else { return };
        self.running.insert(id.clone(), running);
        self.tasks.spawn(async move {
            let end = job.perform().await;
            Came::Step { step: id, attempt, way, end }
        });
    }

    fn job(&self, id: &StepId, way: Way, permit: Option<Permit>) -> Option<(Job, Running)> {
        let state = self.state();
        let program = state.program();
        let step = program.step(id)?.clone();
        let target = step.target.clone()?;
        let driver = self.ctx.drivers.get(&target)?.clone();
        let name = step.action.mapping().cloned();
        let (halt, halted) = watch::channel(Halt::No);
        let (tuning, tuned) = watch::channel(state.step(id).tuning);
        let losses = match &name {
            Some(name) if state.accepted_losses().contains(name) => Losses::Accepted,
            _ => Losses::Refused,
        };
        let captures = program
            .steps()
            .iter()
            .filter_map(captured_name)
            .filter_map(|name| Some((name.clone(), state.captured(&name)?.clone())))
            .collect();
        let job = Job {
            work: Work { step: id.clone(), way, head: self.journal.head.clone() },
            permit,
            driver,
            fences: self.fences.get(&target).cloned().unwrap_or_default(),
            planned: name.as_ref().and_then(|name| program.mappings().get(name).cloned()),
            mapping: name.as_ref().and_then(|name| state.mapping(name)),
            direction: name
                .as_ref()
                .and_then(|name| state.direction(name))
                .unwrap_or(Direction::Forward),
            shape: name.as_ref().and_then(|name| shape_of(program, name).cloned()),
            losses,
            captures,
            gates: if way == Way::Forward {
                gates_moved_by(state, id, &target)
            } else {
                Vec::new()
            },
            store: self.ctx.store.clone(),
            tuning: tuned,
            halt: halted,
            progress: self.tell.clone(),
            step,
        };
        Some((job, Running { way, halt, tuning }))
    }

    /// Reads a gate's conditions, unless that was just done and nothing has changed since.
    fn probe(&mut self, gate: StepId) {
        let version = self.state().version();
        let is_fresh = self.shut.get(&gate).is_some_and(|shut| {
            shut.version == version && shut.since.elapsed_ms() < PROBE_EVERY_MS
        });
        if is_fresh || self.asking.contains_key(&gate) {
            return;
        }
        self.asking.insert(gate.clone(), version);
        let questions = Questions::of(self.state(), &gate);
        let drivers = self.ctx.drivers.clone();
        self.tasks.spawn(async move {
            let seen = questions.ask(&drivers).await;
            Came::Gate { gate, version, seen }
        });
    }

    fn recheck(&mut self, step: StepId, gates: Vec<StepId>) {
        if self.asking.contains_key(&step) {
            return;
        }
        self.asking.insert(step.clone(), self.state().version());
        let questions: Vec<_> = gates
            .into_iter()
            .map(|gate| (gate.clone(), Questions::of(self.state(), &gate)))
            .collect();
        let drivers = self.ctx.drivers.clone();
        self.tasks.spawn(async move {
            let mut seen = Vec::new();
            for (gate, questions) in questions {
                seen.push((gate, questions.ask(&drivers).await));
            }
            Came::Recheck { step, seen }
        });
    }

    async fn finish(&mut self, ending: Ending) -> Result<(), Error> {
        self.write_progress().await?;
        let (state, head) = (&self.journal.state, &self.journal.head);
        finish::leave(self.ctx, state, head, &self.fences, ending).await?;
        self.feed(&Input::Finished).await
    }

    /// Tells running attempts what has changed for them: a pause, a turn, a signal, a tuning.
    fn pass_on(&mut self) {
        let signal = *self.ctx.signal.borrow();
        let state = &self.journal.state;
        for (id, running) in &self.running {
            let turned = matches!(state.standing(), Standing::Back | Standing::Aborting { .. })
                && running.way == Way::Forward;
            let halt = match signal {
                Signal::Now(_) => Halt::Now,
                Signal::Interrupt | Signal::Terminate => Halt::Soon,
                Signal::None if turned || state.paused().is_some() => Halt::Soon,
                Signal::None => Halt::No,
            };
            running.halt.send_if_modified(|now| std::mem::replace(now, halt) != halt);
            let tuning = state.step(id).tuning;
            running.tuning.send_if_modified(|now| std::mem::replace(now, tuning) != tuning);
        }
    }

    /// Whether there is a reason to stop, when nothing is under way.
    async fn may_stop(&mut self, wake: Wake) -> Result<Option<Stop>, Error> {
        if wake != Wake::Idle && !self.state().is_ended() {
            return Ok(None);
        }
        let now = self.ctx.store.now().await?;
        let effects = ready(self.state(), &self.goal, now);
        let is_probe =
            |effect: &Effect| matches!(effect, Effect::ProbeGate { .. } | Effect::WakeAt(_));
        if !effects.iter().all(is_probe) {
            return Ok(None);
        }
        let version = self.state().version();
        let mut reports = Vec::new();
        for effect in &effects {
            let Effect::ProbeGate { gate } = effect else { continue };
            match self.shut.get(gate) {
                Some(shut) if shut.version == version => reports.push(shut.report.clone()),
                _ => return Ok(None),
            }
        }
        let found = stop(self.state(), &self.goal, &reports);
        if let Some(Stop::AtGate(_)) = &found
            && self.wait_ms > 0
        {
            let waiting = *self.waiting_since.get_or_insert_with(Stopwatch::start);
            if waiting.elapsed_ms() < self.wait_ms {
                return Ok(None);
            }
        }
        Ok(found)
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self, wake: Wake) -> Result<(), Error> {
        if wake == Wake::Now {
            return Ok(());
        }
        let idle = LOOK_EVERY_MS.min(match wake {
            Wake::InMs(ms) => ms.max(1),
            Wake::Idle | Wake::Now => LOOK_EVERY_MS,
        });
        let mut signal = self.ctx.signal.clone();
        signal.mark_unchanged();
        let reason = tokio::select! {
            biased;
            lost = self.keeper.lost() => Woke::Lost(lost),
            // A sender that is gone sends no more signals; the other branches go on.
            Ok(()) = signal.changed() => Woke::Look,
            Some(joined) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                Woke::Ended(joined.map(Box::new))
            }
            Some(progress) = self.told.recv() => Woke::Progress(progress),
            () = tokio::time::sleep(Duration::from_millis(idle)) => Woke::Look,
        };
        match reason {
            Woke::Lost(words) => Err(Error::TakenOver(words)),
            Woke::Ended(Ok(came)) => self.take(*came).await,
            Woke::Ended(Err(error)) => Err(Error::Crashed(error.to_string())),
            Woke::Progress(progress) => self.progressed(progress).await,
            Woke::Look => Ok(()),
        }
    }

    async fn take(&mut self, came: Came) -> Result<(), Error> {
        match came {
            Came::Step { step, attempt, way, end } => {
                self.drain_progress().await?;
                self.running.remove(&step);
                match end {
                    End::Seen(result) => {
                        let jitter = jitter();
                        self.feed(&Input::Ended { step, attempt, way, result, jitter }).await
                    }
                    End::Fenced(by) => Err(Error::TakenOver(by)),
                    End::Store(error) => Err(error.into()),
                }
            }
            Came::Gate { gate, version, seen } => {
                self.asking.remove(&gate);
                self.feed(&Input::Probed { gate: gate.clone(), seen: seen.clone() }).await?;
                self.note_gate(gate, version, &seen).await
            }
            Came::Recheck { step, seen } => {
                self.asking.remove(&step);
                self.feed(&Input::Rechecked { step, seen }).await
            }
        }
    }

    /// Keeps what holds of a gate that is still shut. What was read counts for the version it was read at and for the
    /// records that it led to itself.
    async fn note_gate(
        &mut self,
        gate: StepId,
        read_at: u64,
        seen: &Observations,
    ) -> Result<(), Error> {
        if self.state().step(&gate).progress == StepAt::Succeeded {
            self.shut.remove(&gate);
            return Ok(());
        }
        let now = self.ctx.store.now().await?;
        let report = report(self.state(), &gate, seen, now);
        // Somebody approved while it was being read: it is read again at once, and opens then.
        if report.is_open() {
            self.shut.remove(&gate);
            return Ok(());
        }
        let is_news = self.shut.get(&gate).is_none_or(|known| known.report != report);
        if is_news {
            let event = Event::Waiting(Box::new(report.clone()));
            self.ctx.observer.observe(&event, self.state());
        }
        let own = self.state().gate(&gate).is_some_and(|known| known.work.is_some());
        let version = if own { self.state().version() } else { read_at };
        self.shut.insert(gate, Shut { version, since: Stopwatch::start(), report });
        Ok(())
    }

    async fn feed(&mut self, input: &Input) -> Result<(), Error> {
        let by = crate::run::Actor::engine(&self.ctx.claimant.host);
        let entries = match self.journal.feed(input, &self.goal, &by).await {
            Err(Error::Store(store::Error::LeaseLost(_))) => {
                let words = match &self.journal.lease {
                    Some(lease) => lost_to(&self.ctx.store, lease).await,
                    None => "there was no lease".to_owned(),
                };
                return Err(Error::TakenOver(words));
            }
            other => other?,
        };
        self.publish(&entries);
        Ok(())
    }

    fn publish(&self, entries: &[Entry]) {
        for entry in entries {
            let event = Event::Recorded(Box::new(entry.clone()));
            self.ctx.observer.observe(&event, self.state());
        }
    }

    fn note_takeover(&self, before: &Lease) {
        let from =
            format!("{} (pid {} on {})", before.holder.name, before.holder.pid, before.holder.host);
        self.ctx.observer.observe(&Event::TookOver { from }, self.state());
    }

    async fn drain_progress(&mut self) -> Result<(), Error> {
        while let Ok(progress) = self.told.try_recv() {
            self.progressed(progress).await?;
        }
        Ok(())
    }

    async fn progressed(&mut self, progress: Progress) -> Result<(), Error> {
        self.ctx.observer.observe(&Event::Progress(progress.clone()), self.state());
        self.known_progress.insert(progress.step.clone(), progress);
        if self.progress_written.elapsed_ms() >= WRITE_PROGRESS_EVERY_MS {
            self.write_progress().await?;
        }
        Ok(())
    }

    async fn write_progress(&mut self) -> Result<(), Error> {
        self.progress_written = Stopwatch::start();
        if self.known_progress.is_empty() {
            return Ok(());
        }
        let at = self.ctx.store.now().await?;
        let rows: Vec<StepProgress> = std::mem::take(&mut self.known_progress)
            .into_values()
            .map(|progress| StepProgress {
                step: progress.step,
                rows_done: progress.rows_done,
                rows_total: progress.rows_total,
                at,
            })
            .collect();
        Ok(self.ctx.store.put_progress(self.state().run(), &rows).await?)
    }

    /// Before returning, for whatever reason: attempts under way are told to end and waited for; what they came to is found
    /// in the ledger when the run goes on.
    async fn quiet(&mut self) {
        for running in self.running.values() {
            let _ = running.halt.send(Halt::Soon);
        }
        while self.tasks.join_next().await.is_some() {}
        // Only for other terminals to look at; the ledger has the truth.
        let _ = self.write_progress().await;
    }
}

/// What the loop woke up for.
enum Woke {
    Lost(String),
    Ended(Result<Box<Came>, JoinError>),
    Progress(Progress),
    Look,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    Now,
    InMs(u64),
    Idle,
}

fn captured_name(step: &crate::run::Step) -> Option<String> {
    match &step.action {
        crate::run::Action::Verify(crate::run::Verify::Query(query)) => query.capture.clone(),
        _ => None,
    }
}

/// The gates that are open for further guarded steps after this one, with the tables behind them on this target.
fn gates_moved_by(
    state: &State,
    id: &StepId,
    target: &TargetName,
) -> Vec<(StepId, TargetName, Vec<String>)> {
    let program = state.program();
    let changes = program.step(id).is_some_and(|step| step.action.changes_data());
    if !changes {
        return Vec::new();
    }
    program
        .steps()
        .iter()
        .filter(|gate| state.gate(&gate.id).is_some_and(|known| known.work.is_some()))
        .filter(|gate| {
            program.released_by(&gate.id).any(|step| {
                step.id != *id
                    && is_guarded(step)
                    && state.step(&step.id).progress != StepAt::Succeeded
            })
        })
        .filter_map(|gate| {
            let tables = tables_behind(program, &gate.id).remove(target)?;
            Some((gate.id.clone(), target.clone(), tables))
        })
        .collect()
}

/// A random number from 0 to 1. The standard library's hash keys are random enough to spread retries.
#[allow(clippy::cast_precision_loss, reason = "53 bits are plenty")]
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish() >> 11;
    random as f64 / (1_u64 << 53) as f64
}

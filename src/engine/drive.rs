//! Driving a run: one loop that joins the world outside (ended attempts, other terminals, signals, the lease) with the pure
//! core, and performs what the core says is ready.
//!
//! Invariants:
//! - An effect starts only after the record that says so is durable, and only when no process of a newer lease can exist that
//!   does not fence this one off.
//! - The loop waits for what it started before it returns, except when its process dies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::bounds::engine::{
    GATE_PROBE_EVERY_MS, LAST_WORDS_WITHIN, LEASE_TTL_MS, LOOK_EVERY_MS, PROGRESS_QUEUE,
};
use crate::clock::Stopwatch;
use crate::driver;
use crate::run::{
    Effect, Ending, Failure, FailureClass, GateReport, Goal, Input, Looked, Observation,
    Observations, Permit, Progress as StepAt, RunId, Standing, State, StepId, Stop, Target,
    TargetName, Traced, Tuning, Way, ready, report, stop,
};
use crate::store::{self, Lease};

use super::event::{Event, Progress};
use super::journal::Journal;
use super::lease::{Keeper, give_back, lost_to};
use super::patience::jitter;
use super::probe::{Questions, asked};
use super::relay::Relays;
use super::start::{Claimed, all_claimed, claim};
use super::step::{End, Halt, failure_of};
use super::throttle::Told;
use super::{
    Context, Driven, Error, Options, Signal, adopt, confirm, finish, is_signalled, process,
};

mod amended;
mod assign;
mod progress;
mod slots;

use assign::Assigned;
use slots::Slots;

/// Drives a run until it is over, the goal is reached, a gate is shut, a step needs an operator, or a signal comes.
pub async fn drive(ctx: &Context, run: &RunId, options: &Options) -> Result<Driven, Error> {
    let mut journal = Journal::load(&ctx.store, run).await?;
    let before = ctx.store.lease(run).await?;
    if let Some(stop) = stop(&journal.state, &options.goal, &[]) {
        // How it stands here is not how it stands where another store has it.
        confirm::is_ours(ctx, &journal.state).await?;
        return Ok(Driven::Stopped(stop));
    }
    confirm::may_draw(ctx, &journal.state, before.as_ref()).await?;
    let lease = ctx.store.acquire(run, &ctx.claimant, LEASE_TTL_MS, &process::is_dead).await?;
    journal.lease = Some(lease.clone());
    // Others may have appended between the first look and the lease.
    journal.catch_up().await?;
    let driven = drive_leased(ctx, journal, options, (before, &lease)).await;
    give_back(&ctx.store, &lease, driven).await
}

async fn drive_leased(
    ctx: &Context,
    mut journal: Journal,
    options: &Options,
    (before, lease): (Option<Lease>, &Lease),
) -> Result<Driven, Error> {
    let keeper = Keeper::start(ctx.store.clone(), lease.clone());
    let mut slots = BTreeMap::new();
    let taken_up_to = ctx.store.taken_up_to(journal.state.run()).await?;
    // All of them are looked at before the first learns of us: what one refuses leaves no trace in another.
    let mut claims = Vec::new();
    for (target, driver) in &ctx.drivers {
        let (program, run) = (journal.state.program(), journal.state.run());
        let Some(mut claim) = claim(ctx, program, run, target) else { continue };
        let state = &journal.state;
        let head = confirm::known((ctx, state), (target, driver), &claim).await?;
        claim.adopts = confirm::adopts((state, target), taken_up_to, head, Some(&journal.head));
        confirm::confirm(ctx, &journal.state, (target, driver)).await?;
        claims.push((target, driver, claim));
    }
    for (target, driver, claim) in claims {
        let entered = confirm::enter(ctx, (target, driver), &claim, lease.token).await;
        if entered.is_err() && is_signalled(ctx) {
            return Ok(Driven::Interrupted(*ctx.signal.borrow()));
        }
        let copy_workers = driver.capabilities().copy_workers;
        slots.insert(target.clone(), Slots::share(&entered?, copy_workers));
    }
    if journal.state.is_being_adopted() {
        adopt::read(ctx, &mut journal).await?;
        if options.goal == Goal::Through(BTreeSet::new()) {
            return Ok(Driven::Stopped(Stop::ReachedGoal));
        }
    }
    let looked = confirm::look(ctx, &journal.state).await;
    if looked.is_err() && is_signalled(ctx) {
        return Ok(Driven::Interrupted(*ctx.signal.borrow()));
    }
    let looked = looked?;
    let (tell, told) = mpsc::channel(PROGRESS_QUEUE);
    let targets = journal.state.program().targets().clone();
    let claimed = all_claimed(journal.state.program());
    let relays = Relays::start(ctx, &journal.state);
    let mut drive = Drive {
        ctx,
        targets,
        claimed,
        journal,
        goal: options.goal.clone(),
        wait_ms: options.wait_ms,
        keeper,
        slots,
        running: BTreeMap::new(),
        asking: BTreeMap::new(),
        shut: BTreeMap::new(),
        tasks: JoinSet::new(),
        tell,
        told,
        known_progress: BTreeMap::new(),
        throttles: Told::default(),
        progress_written: Stopwatch::start(),
        waiting_since: None,
        cancelled: false,
        relays,
        amended: BTreeSet::new(),
    };
    if let Some(before) = before.filter(|before| before.holder.id != ctx.claimant.id) {
        drive.note_takeover(&before);
    }
    let driven = drive.run(looked).await;
    drive.quiet(matches!(driven, Err(Error::TakenOver(_)))).await;
    drive.relays.stop().await;
    driven
}

/// An attempt under way in this process.
struct Running {
    way: Way,
    /// The blocks of slots that it has, where its databases were entered.
    blocks: Vec<(TargetName, usize)>,
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
    Step {
        step: StepId,
        attempt: u32,
        way: Way,
        end: End,
    },
    Gate {
        gate: StepId,
        version: u64,
        seen: Observations,
    },
    Recheck {
        step: StepId,
        attempts: u32,
        ledger: Result<Traced, Failure>,
        seen: Vec<(StepId, Observations)>,
    },
}

struct Drive<'a> {
    ctx: &'a Context,
    /// The databases that were opened and entered.
    targets: BTreeMap<TargetName, Target>,
    /// What was claimed in them.
    claimed: Claimed,
    journal: Journal,
    goal: Goal,
    wait_ms: u64,
    keeper: Keeper,
    /// Those of the targets that were entered.
    slots: BTreeMap<TargetName, Slots>,
    running: BTreeMap<StepId, Running>,
    /// Probes under way, by gate or guarded step. They only look, so they may be ended at any time.
    asking: BTreeMap<StepId, AbortHandle>,
    shut: BTreeMap<StepId, Shut>,
    tasks: JoinSet<Came>,
    tell: mpsc::Sender<Progress>,
    told: mpsc::Receiver<Progress>,
    known_progress: BTreeMap<StepId, Progress>,
    throttles: Told,
    progress_written: Stopwatch,
    waiting_since: Option<Stopwatch>,
    cancelled: bool,
    relays: Relays,
    /// Where another plan is still to be written down than the one that was entered with.
    amended: BTreeSet<TargetName>,
}

impl Drive<'_> {
    async fn run(&mut self, looked: Looked) -> Result<Driven, Error> {
        self.feed(&Input::Looked(looked)).await?;
        loop {
            let foreign = self.journal.catch_up().await?;
            self.learn(&foreign)?;
            self.keep_plan().await?;
            self.pass_on();
            let signal = *self.ctx.signal.borrow();
            if matches!(signal, Signal::Now(_)) {
                self.end_now().await;
            }
            let wake = if signal == Signal::None {
                self.advance().await?
            } else {
                self.ask_no_more();
                Wake::Idle
            };
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

    /// Begins what may begin. Going back waits until nothing that goes forward is under way, and what another plan says until the
    /// targets have it.
    async fn advance(&mut self) -> Result<Wake, Error> {
        let turning = *self.state().standing() != Standing::Forward
            && self.running.values().any(|running| running.way == Way::Forward);
        if turning || !self.amended.is_empty() {
            return Ok(Wake::Idle);
        }
        self.feed(&Input::Tick).await?;
        if !self.amended.is_empty() {
            return Ok(Wake::Now);
        }
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
        let job = match self.job(&id, way, permit) {
            Assigned::Job(job, running) => {
                self.running.insert(id.clone(), *running);
                Ok(job)
            }
            // The journal has it as begun, so it is among what is ready when a step has ended.
            Assigned::NoSlots => return,
            Assigned::NoDatabase => Err(driver::Error::failed(
                FailureClass::Stale,
                format!("{id} works on a database that was not opened"),
            )),
        };
        self.tasks.spawn(async move {
            let end = match job {
                Ok(job) => (*job).perform().await,
                Err(error) => End::Seen(Observation::Failed(failure_of(error), None)),
            };
            Came::Step { step: id, attempt, way, end }
        });
    }

    /// Reads a gate's conditions, unless that was just done and nothing has changed since.
    fn probe(&mut self, gate: StepId) {
        let version = self.state().version();
        let is_fresh = self.shut.get(&gate).is_some_and(|shut| {
            shut.version == version && shut.since.elapsed_ms() < GATE_PROBE_EVERY_MS
        });
        if is_fresh || self.asking.contains_key(&gate) {
            return;
        }
        let questions = Questions::of(self.ctx, self.state(), &gate);
        let (drivers, store) = (self.ctx.drivers.clone(), self.ctx.store.clone());
        let id = gate.clone();
        let asking = self.tasks.spawn(async move {
            let seen = questions.ask(&drivers, &store).await;
            Came::Gate { gate, version, seen }
        });
        self.asking.insert(id, asking);
    }

    /// Reads what a guarded step may start by, unless it is under way here. The ledger comes first: what it has is done, and
    /// needs no gate any more.
    fn recheck(&mut self, step: StepId, gates: Vec<StepId>) {
        if self.asking.contains_key(&step) || self.running.contains_key(&step) {
            return;
        }
        let questions: Vec<_> = gates
            .into_iter()
            .map(|gate| (gate.clone(), Questions::of(self.ctx, self.state(), &gate)))
            .collect();
        let (drivers, store) = (self.ctx.drivers.clone(), self.ctx.store.clone());
        let run = self.state().run().clone();
        let attempts = self.state().step(&step).attempts;
        let target = self.state().program().step(&step).and_then(|step| step.target.clone());
        let id = step.clone();
        let asking = self.tasks.spawn(async move {
            let ledger = match target.and_then(|target| drivers.get(&target)) {
                Some(driver) => asked(|| driver.traced(&run, &step, Way::Forward)).await,
                None => Err(driver::Error::failed(FailureClass::Stale, "no such target")),
            };
            let mut seen = Vec::new();
            for (gate, questions) in questions {
                if matches!(ledger, Ok(Traced::Nothing | Traced::InDoubt | Traced::Parts)) {
                    seen.push((gate, questions.ask(&drivers, &store).await));
                }
            }
            Came::Recheck { step, attempts, ledger: ledger.map_err(failure_of), seen }
        });
        self.asking.insert(id, asking);
    }

    /// Ends what only looks, so that nobody waits for a database that doesn't answer.
    fn ask_no_more(&mut self) {
        for (_, asking) in std::mem::take(&mut self.asking) {
            asking.abort();
        }
    }

    async fn finish(&mut self, ending: Ending) -> Result<(), Error> {
        self.write_progress().await?;
        let (state, head) = (&self.journal.state, &self.journal.head);
        let fences = self.slots.iter();
        let fences =
            fences.filter_map(|(target, slots)| Some((target.clone(), slots.first()?.clone())));
        finish::end(self.ctx, state, (head, &fences.collect()), ending, &mut self.relays).await?;
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
            let tuning = &state.step(id).tuning;
            running.tuning.send_if_modified(|now| {
                let is_other = now != tuning;
                now.clone_from(tuning);
                is_other
            });
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
            Woke::Ended(Err(error)) if error.is_cancelled() => Ok(()),
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
                // The wait at a gate counts from when there was nothing else to do.
                self.waiting_since = None;
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
                confirm::goes_on(self.state(), &seen)?;
                self.feed(&Input::Probed { gate: gate.clone(), seen: seen.clone() }).await?;
                self.note_gate(gate, version, &seen).await
            }
            Came::Recheck { step, attempts, ledger, seen } => {
                self.asking.remove(&step);
                seen.iter().try_for_each(|(_, seen)| confirm::goes_on(self.state(), seen))?;
                let jitter = jitter();
                self.feed(&Input::Rechecked { step, attempts, ledger, jitter, seen }).await
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
        self.learn(&entries)
    }

    /// Before returning, for whatever reason: attempts under way are told to end and waited for; what they came to is found
    /// in the ledger when the run goes on. Whoever was overtaken ends at once: nothing of it can be committed any more. So does
    /// whoever loses the lease meanwhile, because the store is away: others may have the run, and this one must come to an end.
    async fn quiet(&mut self, is_overtaken: bool) {
        self.ask_no_more();
        if is_overtaken {
            self.end_now().await;
        }
        for running in self.running.values() {
            let soon = |halt: &mut Halt| {
                *halt < Halt::Soon && {
                    *halt = Halt::Soon;
                    true
                }
            };
            running.halt.send_if_modified(soon);
        }
        while !self.tasks.is_empty() {
            if matches!(*self.ctx.signal.borrow(), Signal::Now(_)) {
                self.end_now().await;
            }
            tokio::select! {
                _ = self.tasks.join_next() => {}
                _ = self.keeper.lost(), if !self.cancelled => self.end_now().await,
                () = tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)) => {}
            }
        }
        // Only for other terminals to look at; the ledger has the truth.
        let _ = tokio::time::timeout(LAST_WORDS_WITHIN, self.write_progress()).await;
    }

    /// Cancels on the databases, once, what attempts have under way there.
    async fn end_now(&mut self) {
        if std::mem::replace(&mut self.cancelled, true) {
            return;
        }
        for running in self.running.values() {
            running.halt.send_replace(Halt::Now);
        }
        for driver in self.ctx.drivers.values() {
            driver.cancel().await;
        }
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

//! Attempts in hand, one stage at a time, as the engine's steps and the drivers go about them. Between any two stages anything may happen.

use super::super::super::*;
use super::dice::pick;
use super::promises;
use super::shapes::is_opaque;
use super::shell::{Fault, Gone, Luck, Runner, failed};
use super::sides::{Blind, CHUNKS, Page, Sides};
use super::target::{Mark, Part, Session, parts};
use super::world::{Pass, World, digest_of, in_part, is_live};

/// The most chunks that a target of these worlds takes at once.
pub(super) const WORKERS_MAX: usize = 3;

/// An attempt in hand.
pub(super) struct Task {
    pub step: Step,
    pub attempt: u32,
    pub way: Way,
    pub stage: Stage,
    /// The gates whose fingerprints it moves on.
    moves: Vec<StepId>,
    /// Whether what only the new side has may be lost.
    may_lose: bool,
    /// Whether the sides of its mapping are to be in step.
    is_synced: bool,
}

pub(super) enum Stage {
    /// Nothing has been done.
    Begun,
    /// The ledger was asked, and had nothing of it, or all of its parts.
    Asked,
    /// It is at a statement outside a transaction, counted from 0.
    At(usize),
    /// That statement was sent.
    Sent(usize),
    /// That statement has ended; the ledger doesn't know yet.
    Answered(usize),
    /// It copies; these chunks were read and are to be written.
    Copies(Vec<Page>),
    Compares(Pass),
    /// It is over, and the loop has not heard of it.
    Ended(Observation),
}

impl Task {
    pub fn new(state: &State, (step, attempt, way): (&StepId, u32, Way)) -> Option<Self> {
        let step = state.program().step(step)?.clone();
        let mapping = step.action.mapping();
        let may_lose = mapping.is_some_and(|it| state.accepted_losses().contains(it));
        let is_synced = mapping.is_some_and(|it| is_live(state, it));
        let moves = Vec::new();
        Some(Self { step, attempt, way, stage: Stage::Begun, moves, may_lose, is_synced })
    }

    fn is_outside(&self) -> bool {
        matches!(&self.step.action, Action::Sql(script) if script.commits_in_parts())
            && self.way == Way::Forward
    }

    fn part(&self, at: usize) -> Part {
        (self.step.id.clone(), at)
    }
}

impl Runner {
    /// The next stage of an attempt.
    pub fn stage(
        &self,
        world: &mut World,
        task: &mut Task,
        (by, luck): (u64, Luck),
    ) -> Result<Stage, Gone> {
        match std::mem::replace(&mut task.stage, Stage::Begun) {
            Stage::Begun if matches!(task.step.action, Action::Verify(_)) => {
                Ok(begin_comparing(world, task))
            }
            Stage::Compares(pass) => Ok(self.compare(world, task, pass, luck)),
            Stage::Begun => self.begin(world, task, (by, luck)),
            Stage::Copies(pages) => self.copy(world, task, pages, (by, luck)),
            Stage::At(at) => self.statement(world, task, at),
            Stage::Sent(at) => Ok(Self::sent(world, task, at, (by, luck))),
            Stage::Answered(at) => {
                if luck.0 == 0 {
                    return Ok(failing(world, task, FailureClass::Unknown));
                }
                self.transacts(world, task)?;
                world.target_of(&task.step).marks.insert(task.part(at), Mark::Done);
                Ok(Stage::At(at + 1))
            }
            Stage::Asked => self.commit(world, task, (by, luck)),
            Stage::Ended(_) => unreachable!("what has ended is told to the loop"),
        }
    }

    fn halts(&self, task: &Task) -> bool {
        let turned = *self.state.standing() != Standing::Forward && task.way == Way::Forward;
        self.state.paused().is_some() || turned
    }

    fn begin(
        &self,
        world: &mut World,
        task: &mut Task,
        (by, luck): (u64, Luck),
    ) -> Result<Stage, Gone> {
        let is_in = world.target_of(&task.step).ledger.contains(&task.step.id);
        let is_blind = world.has(Fault::RetriedBlindly) && task.attempt > 1;
        let is_done = match task.way {
            Way::Forward => is_in && !is_blind,
            Way::Back => world.traced(&task.step, Way::Back) == Traced::Whole,
        };
        match luck.0 {
            0 => return Ok(failing(world, task, FailureClass::Unknown)),
            1 => return Ok(Stage::Ended(Observation::Interrupted)),
            2..=3 if !is_in => return Ok(failing(world, task, class(by))),
            _ if is_done => return Ok(Stage::Ended(Observation::Done(outcome(world, task)))),
            _ if world.is_under_way(&task.step.id) => {
                // Somebody is still at it.
                return Ok(failing(world, task, FailureClass::Contention));
            }
            _ => {}
        }
        let told = self.state.step(&task.step.id).resolved;
        if task.way == Way::Back
            && matches!(task.step.undo, Undo::Impossible)
            && world.traced(&task.step, Way::Forward) == Traced::InDoubt
            && is_told_undone(&task.step, told)
        {
            // It was not done, as somebody has said.
            return Ok(Stage::Ended(Observation::Done(Outcome::default())));
        }
        task.moves = unchanged(world, &task.step);
        if task.way == Way::Back {
            return Ok(Stage::Asked);
        }
        if matches!(task.step.action, Action::Backfill(_)) {
            return Ok(Stage::Copies(Vec::new()));
        }
        if !task.is_outside() {
            return Ok(Stage::Asked);
        }
        self.fenced(world, task)?;
        let target = world.target_of(&task.step);
        if is_blind {
            target.forget(&task.step.id);
        }
        if let Some(told) = told.filter(|told| told.way == Way::Forward) {
            target.settle(&task.step.id, told);
        }
        Ok(Stage::At(0))
    }

    /// The next statement that is not done.
    fn statement(&self, world: &mut World, task: &Task, at: usize) -> Result<Stage, Gone> {
        if at == parts(&task.step) {
            return Ok(Stage::Asked);
        }
        let part = task.part(at);
        let starts_over = world.has(Fault::PartsRunAgain);
        let target = world.target_of(&task.step);
        let mark = target.marks.get(&part).copied();
        let was_begun = matches!(mark, Some(Mark::Begun { .. }));
        let is_there = target.effects.contains_key(&part);
        let is_again = mark.is_some_and(|mark| mark.has_left() && mark != Mark::Done);
        match mark {
            Some(Mark::Done) if !starts_over => return Ok(Stage::At(at + 1)),
            Some(Mark::Begun { .. }) if is_opaque(&task.step.id, at) => {
                let detail = format!("{} may have been done", in_part(&part));
                let has_left =
                    !matches!(target.traced(&task.step.id), Traced::Nothing | Traced::InDoubt);
                return Ok(Stage::Ended(Observation::Ambiguous { detail, has_left }));
            }
            _ if was_begun && is_there => {
                self.transacts(world, task)?;
                world.target_of(&task.step).marks.insert(part, Mark::Done);
                return Ok(Stage::At(at + 1));
            }
            _ => {}
        }
        self.transacts(world, task)?;
        let (version, token) = (self.state.version(), self.token);
        world.tell(|| format!("process {} sends {}", self.id, in_part(&part)));
        let target = world.target_of(&task.step);
        target.marks.insert(part.clone(), Mark::Begun { version, is_again });
        target.sessions.push(Session { part, token });
        Ok(Stage::Sent(at))
    }

    /// What comes of a statement that was sent.
    fn sent(world: &mut World, task: &Task, at: usize, (by, luck): (u64, Luck)) -> Stage {
        if luck.0 == 0 {
            // The connection is lost, and the statement goes on.
            return failing(world, task, FailureClass::Unknown);
        }
        let part = task.part(at);
        let target = world.target_of(&task.step);
        let session = target.sessions.iter().position(|session| session.part == part);
        let Some(session) = session else {
            return if target.effects.contains_key(&part) {
                Stage::Answered(at)
            } else {
                // Somebody ended it.
                failing(world, task, FailureClass::Unknown)
            };
        };
        target.sessions.remove(session);
        if luck.0 != 1 {
            world.add_effect(task.step.target.as_ref().unwrap(), &part);
            return Stage::Answered(at);
        }
        // The server says that it was not done. It may have left something all the same, or have found something that was left.
        let was_again = matches!(target.marks.get(&part), Some(Mark::Begun { is_again: true, .. }));
        if by.is_multiple_of(3) {
            target.halves.insert(part.clone());
        }
        if was_again || by.is_multiple_of(3) {
            target.marks.insert(part, Mark::InPart);
        } else {
            target.marks.remove(&part);
        }
        failing(world, task, FailureClass::Refused)
    }

    /// Commits what a step does together with its row in the ledger.
    fn commit(
        &self,
        world: &mut World,
        task: &Task,
        (by, luck): (u64, Luck),
    ) -> Result<Stage, Gone> {
        match luck.0 {
            0 => return Ok(failing(world, task, FailureClass::Unreachable)),
            1 if by.is_multiple_of(2) => return Ok(failing(world, task, FailureClass::Unknown)),
            _ => {}
        }
        let is_unretire = task.way == Way::Back && matches!(task.step.action, Action::Retire(_));
        let would_lose =
            is_unretire && world.sides_of(&task.step).is_some_and(|sides| sides.has_only_new());
        if would_lose && !task.may_lose && !world.has(Fault::LossUnasked) {
            return Ok(failing(world, task, FailureClass::Unsafe));
        }
        self.transacts(world, task)?;
        if would_lose {
            promises::of_loss(world, &task.step);
        }
        let id = &task.step.id;
        match task.way {
            Way::Forward => {
                let is_half = world.has(Fault::LedgerApart) && luck.0 == 2;
                if !task.is_outside() && !is_half {
                    world.add_effect(task.step.target.as_ref().unwrap(), &task.part(0));
                }
                let target = world.target_of(&task.step);
                target.forget(id);
                target.ledger.insert(id.clone());
            }
            Way::Back => world.target_of(&task.step).undo(id),
        }
        act(world, &task.step, task.way);
        world.tell(|| format!("process {} commits {id} {:?}", self.id, task.way));
        match luck.0 {
            // It was committed, and nobody hears of it.
            1 | 2 => Ok(failing(world, task, FailureClass::Unknown)),
            3 => Err(Gone),
            _ => Ok(Stage::Ended(Observation::Done(outcome(world, task)))),
        }
    }

    /// Enters a chunk in the ledger, reads one that is open, writes one that was read, or finds that all are copied.
    fn copy(
        &self,
        world: &mut World,
        task: &Task,
        mut pages: Vec<Page>,
        (by, luck): (u64, Luck),
    ) -> Result<Stage, Gone> {
        let halts = self.halts(task);
        let workers = workers(&self.state, &task.step);
        let ignores = world.has(Fault::TuningIgnored);
        let is_hasty = world.has(Fault::DoneTooEarly);
        let sides = world.sides_of(&task.step).unwrap();
        let waiting: Vec<u32> =
            sides.copy.open().filter(|seq| pages.iter().all(|page| page.seq != *seq)).collect();
        let plans = sides.copy.planned < CHUNKS && !halts;
        let room = if ignores { 4 } else { workers };
        let reads = !waiting.is_empty() && pages.len() < room && !halts;
        if halts && pages.is_empty() {
            return Ok(Stage::Ended(Observation::Interrupted));
        }
        if !plans && !reads && (pages.is_empty() || is_hasty && waiting.is_empty()) {
            return self.commit(world, task, (by, luck));
        }
        let is_on = sides.is_synced();
        if luck.0 == 0 {
            return Ok(failing(world, task, FailureClass::Unreachable));
        }
        if plans && (waiting.is_empty() && pages.is_empty() || by.is_multiple_of(3)) {
            if !is_on && task.is_synced {
                // It was switched off, which is looked at whenever chunks are entered.
                return Ok(failing(world, task, FailureClass::Unsafe));
            }
            self.transacts(world, task)?;
            world.sides_of(&task.step).unwrap().copy.planned += 1;
            return Ok(Stage::Copies(pages));
        }
        if reads && (pages.is_empty() || (by / 3).is_multiple_of(2)) {
            let page = sides.read(waiting[pick(&waiting, by).unwrap()]);
            pages.push(page);
            promises::of_chunks(world, &task.step, (pages.len(), workers));
            return Ok(Stage::Copies(pages));
        }
        let Some(at) = pick(&pages, by / 5) else { return Ok(Stage::Copies(pages)) };
        let page = pages.swap_remove(at);
        self.transacts(world, task)?;
        self.chunk(world, &task.step, &page, luck);
        Ok(match luck.0 {
            1 => failing(world, task, FailureClass::Unknown),
            2 => failing(world, task, FailureClass::Contention),
            _ => Stage::Copies(pages),
        })
    }

    /// The rows of a chunk and its row in the ledger, in one transaction.
    fn chunk(&self, world: &mut World, step: &Step, page: &Page, luck: Luck) {
        promises::of_chunk(world, step);
        let blind = match () {
            () if world.has(Fault::ChunkOverwrites) => Blind::Written,
            () if world.has(Fault::ChunkResurrects) => Blind::Deleted,
            () => Blind::No,
        };
        // Where they are not one transaction, a connection may be lost between the two.
        let is_half = world.has(Fault::LedgerApart) && luck.0 == 1;
        let is_too_high = world.has(Fault::WatermarkTooHigh);
        world.tell(|| format!("process {} copies chunk {} of {}", self.id, page.seq, step.id));
        let sides = world.sides_of(step).unwrap();
        sides.copy.enter(page.seq, page.rows());
        sides.copy.fold(is_too_high);
        if !is_half {
            sides.bring(page, blind);
        }
    }

    /// A transaction of an attempt: it checks the token.
    fn transacts(&self, world: &mut World, task: &Task) -> Result<(), Gone> {
        self.fenced(world, task)?;
        promises::of_commit(world, self.token, (&task.step, task.attempt, task.way));
        Ok(())
    }

    fn fenced(&self, world: &mut World, task: &Task) -> Result<(), Gone> {
        if self.token >= world.target_of(&task.step).token || world.has(Fault::TokenUnchecked) {
            return Ok(());
        }
        world.tell(|| format!("process {} is shut out with {}", self.id, task.step.id));
        Err(Gone)
    }
}

/// What the databases make of a step.
fn act(world: &mut World, step: &Step, way: Way) {
    let tick = world.tick;
    if step.id.as_str() == "create" && way == Way::Back {
        world.sides.values_mut().for_each(Sides::empty);
    }
    let Some(sides) = world.sides_of(step) else { return };
    match (&step.action, way) {
        (Action::DualWrite(_), Way::Forward) | (Action::StopDualWrite { .. }, Way::Back) => {
            sides.install(tick);
        }
        (Action::DualWrite(_), Way::Back)
        | (Action::StopDualWrite { .. } | Action::Drop { .. }, Way::Forward) => sides.sync = None,
        (Action::Backfill(_), Way::Back) => sides.uncopy(),
        (Action::Retire(_), Way::Forward) => sides.retire(tick),
        (Action::Retire(_), Way::Back) => sides.unretire(tick),
        _ => {}
    }
}

/// How many chunks may be copied at once.
fn workers(state: &State, step: &Step) -> usize {
    let Action::Backfill(backfill) = &step.action else { return 1 };
    let workers = state.step(&step.id).tuning.workers.unwrap_or(backfill.workers);
    usize::try_from(workers).unwrap().min(WORKERS_MAX)
}

fn begin_comparing(world: &mut World, task: &Task) -> Stage {
    let (tick, began_at) = (world.tick, world.now);
    let Action::Verify(Verify::Mapping { method, .. }) = task.step.action else {
        unreachable!("no other verify is in these plans")
    };
    let Some(sides) = world.sides_of(&task.step) else { unreachable!("it has two sides") };
    if sides.has_parted() || task.is_synced && !sides.is_synced() {
        return failing(world, task, FailureClass::Stale);
    }
    let (step, attempt) = (task.step.id.clone(), task.attempt);
    let sync = Some(digest_of(sides));
    let (regions, rows, differing) = (0, 0, 0);
    Stage::Compares(Pass { step, attempt, method, began_at, tick, sync, regions, rows, differing })
}

impl Runner {
    /// Another part of a comparison.
    fn compare(&self, world: &mut World, task: &Task, mut pass: Pass, luck: Luck) -> Stage {
        let is_cancelled = luck.0 == 1 || self.halts(task);
        match luck.0 {
            0 => return failing(world, task, FailureClass::Unreachable),
            _ if is_cancelled && world.has(Fault::CancelledPasses) => {
                return concluded(world, pass);
            }
            _ if is_cancelled => return Stage::Ended(Observation::Interrupted),
            _ => {}
        }
        let is_skipped = pass.regions > 0 && world.has(Fault::PartSkipped);
        let sides = world.sides_of(&task.step).unwrap();
        let (differing, rows) = if is_skipped { (0, 0) } else { sides.compare(pass.regions) };
        pass.regions += 1;
        pass.rows += rows;
        pass.differing += differing;
        if !pass.is_whole() {
            return Stage::Compares(pass);
        }
        if task.is_synced && !sides.is_synced() {
            return failing(world, task, FailureClass::Stale);
        }
        concluded(world, pass)
    }
}

/// What a comparison found. The detail says which comparison it was.
fn concluded(world: &mut World, pass: Pass) -> Stage {
    let clean = if pass.method == Method::Full { Verdict::Pass } else { Verdict::Partial };
    let evidence = Evidence {
        resumed: false,
        sync: pass.sync.clone(),
        verdict: if pass.differing > 0 { Verdict::Fail } else { clean },
        began_at: pass.began_at,
        ended_at: world.now,
        rows: pass.rows,
        missing: 0,
        extra: 0,
        different: pass.differing,
        samples: Vec::new(),
    };
    let detail = Some(world.passes.len().to_string());
    world.passes.push(pass);
    Stage::Ended(if evidence.verdict == Verdict::Fail {
        Observation::Differs(evidence)
    } else {
        Observation::Done(Outcome { detail, evidence: Some(evidence), ..Outcome::default() })
    })
}

fn outcome(world: &mut World, task: &Task) -> Outcome {
    let is_copy = matches!(task.step.action, Action::Backfill(_)) && task.way == Way::Forward;
    let rows = world.sides_of(&task.step).filter(|_| is_copy).map(|sides| sides.copy.rows);
    let target = task.step.target.clone().unwrap();
    let fingerprint = world.fingerprint(&target);
    let moved = task.moves.iter().map(|gate| GateFingerprint {
        gate: gate.clone(),
        target: target.clone(),
        fingerprint: fingerprint.clone(),
    });
    Outcome { rows, fingerprints: moved.collect(), ..Outcome::default() }
}

/// The gates behind which nobody else has changed anything, which a step of the run may move on.
fn unchanged(world: &World, step: &Step) -> Vec<StepId> {
    let target = step.target.as_ref().unwrap();
    let now = world.fingerprint(target);
    let gates = world.truth.gates.iter().filter(|(_, known)| known.work.is_some());
    gates
        .filter(|(_, known)| known.expected.get(target) == Some(&now))
        .map(|(gate, _)| gate.clone())
        .collect()
}

/// A failure with what the ledger has of it, as the engine makes it. Now and then the ledger doesn't answer.
fn failing(world: &World, task: &Task, class: FailureClass) -> Stage {
    let changes = task.step.action.changes_data();
    let answers = !world.now.since_ms(Timestamp::from_unix_ms(0)).is_multiple_of(5);
    let is_open = is_transient(class) || class == FailureClass::TimedOut;
    let traced = world.traced(&task.step, task.way);
    let class = match traced {
        _ if !changes || class == FailureClass::Refused => class,
        _ if !answers && is_open => FailureClass::Unknown,
        Traced::Whole if answers => FailureClass::Unknown,
        Traced::Nothing if answers && class == FailureClass::Unknown => FailureClass::Unreachable,
        _ => class,
    };
    let committed = changes && (!answers || traced != Traced::Nothing);
    Stage::Ended(Observation::Failed(failed(class), Some(committed)))
}

fn class(by: u64) -> FailureClass {
    const CLASSES: [FailureClass; 10] = [
        FailureClass::Contention,
        FailureClass::Unreachable,
        FailureClass::TimedOut,
        FailureClass::Refused,
        FailureClass::NotPermitted,
        FailureClass::Full,
        FailureClass::Damaged,
        FailureClass::Stale,
        FailureClass::Unsafe,
        FailureClass::Cancelled,
    ];
    CLASSES[pick(&CLASSES, by).unwrap()]
}

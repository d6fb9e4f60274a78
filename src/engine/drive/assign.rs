//! What an attempt is given when it begins: everything it needs to know of the run, so that it never looks at the journal.

use tokio::sync::watch;

use super::{Drive, Running};
use crate::driver::{Fence, Losses, SharedDriver, Work};
use crate::engine::probe::{live_syncs, tables_behind};
use crate::engine::step::{Halt, Job, Moved, shape_of};
use crate::run::{
    Action, Direction, MappingName, Permit, Program, Progress, State, Step, StepId, TargetName,
    Tuning, Verify, Way, is_guarded,
};

/// Slots for an attempt: which block of its target they are, where that was entered, and their fences.
type Block = (Option<(TargetName, usize)>, Vec<Fence>);

/// What becomes of an attempt that is to begin.
pub(super) enum Assigned {
    /// All that it needs, and what the loop keeps of it.
    Job(Box<Job>, Box<Running>),
    /// As many steps as may be work on its database now.
    NoSlots,
    /// Its database is not among those that were opened.
    NoDatabase,
}

impl Drive<'_> {
    /// Gives an attempt all that it needs.
    pub(super) fn job(&self, id: &StepId, way: Way, permit: Option<Permit>) -> Assigned {
        let step = self.state().program().step(id);
        let target = step.and_then(|step| step.target.clone());
        let driver = target.as_ref().and_then(|target| self.ctx.drivers.get(target));
        let (Some(step), Some(target), Some(driver)) = (step, target, driver) else {
            return Assigned::NoDatabase;
        };
        let Some((block, fences)) = self.block(&target) else { return Assigned::NoSlots };
        let (halt, halted) = watch::channel(Halt::No);
        let (tuning, tuned) = watch::channel(self.state().step(id).tuning.clone());
        let running = Running { way, block, halt, tuning };
        let on = (target, driver.clone(), fences);
        let job = self.prepared(step.clone(), (way, permit), on, (halted, tuned));
        Assigned::Job(Box::new(job), Box::new(running))
    }

    /// Slots that no attempt has; none of them where the target needs none. `None` while all are taken.
    fn block(&self, target: &TargetName) -> Option<Block> {
        let Some(slots) = self.slots.get(target) else { return Some((None, Vec::new())) };
        let taken: Vec<usize> = self
            .running
            .values()
            .filter_map(|running| running.block.as_ref())
            .filter(|(of, _)| of == target)
            .map(|(_, at)| *at)
            .collect();
        let (at, fences) = slots.free(&taken)?;
        Some((Some((target.clone(), at)), fences))
    }

    fn prepared(
        &self,
        step: Step,
        (way, permit): (Way, Option<Permit>),
        (target, driver, fences): (TargetName, SharedDriver, Vec<Fence>),
        (halt, tuning): (watch::Receiver<Halt>, watch::Receiver<Tuning>),
    ) -> Job {
        let (state, id) = (self.state(), &step.id);
        let program = state.program();
        let name = step.action.mapping().cloned();
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
        Job {
            work: Work {
                step: id.clone(),
                way,
                head: self.journal.head.clone(),
                lock_timeout_ms: step.lock_timeout_ms,
            },
            permit,
            driver,
            fences,
            planned: name.as_ref().and_then(|name| program.mappings().get(name).cloned()),
            mapping: name.as_ref().and_then(|name| state.mapping(name)),
            beside: live_syncs(state)
                .into_iter()
                .map(|(mapping, _)| mapping)
                .filter(|other| other.from.target == target && Some(&other.name) != name.as_ref())
                .collect(),
            direction: name
                .as_ref()
                .and_then(|name| state.direction(name))
                .unwrap_or(Direction::Forward),
            sync: name.as_ref().and_then(|name| sync_of(program, name)),
            is_synced: live_syncs(state).iter().any(|(live, _)| Some(&live.name) == name.as_ref()),
            shape: name.as_ref().and_then(|name| shape_of(program, name).cloned()),
            losses,
            redact: self.ctx.redact.max(program.policy().redact),
            captures,
            gates: if way == Way::Forward {
                gates_moved_by(state, id, &target)
            } else {
                Vec::new()
            },
            store: self.ctx.store.clone(),
            tuning,
            halt,
            progress: self.tell.clone(),
            drivers: self.ctx.drivers.clone(),
            throttled: watch::Sender::default(),
            step,
        }
    }
}

fn sync_of(program: &Program, mapping: &MappingName) -> Option<StepId> {
    let is_sync = |step: &&Step| matches!(&step.action, Action::DualWrite(dual_write) if dual_write.mapping == *mapping);
    program.steps().iter().find(is_sync).map(|step| step.id.clone())
}

fn captured_name(step: &Step) -> Option<String> {
    match &step.action {
        Action::Verify(Verify::Query(query)) => query.capture.clone(),
        _ => None,
    }
}

/// The gates that are open for further guarded steps after this one, with the tables behind them on this target.
fn gates_moved_by(state: &State, id: &StepId, target: &TargetName) -> Vec<Moved> {
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
                    && state.step(&step.id).progress != Progress::Succeeded
            })
        })
        .filter_map(|gate| {
            let tables = tables_behind(program, &gate.id).remove(target)?;
            let expected = state.gate(&gate.id).and_then(|known| known.expected.get(target));
            let expected = expected.cloned();
            Some(Moved { gate: gate.id.clone(), target: target.clone(), tables, expected })
        })
        .collect()
}

//! What an attempt is given when it begins: everything it needs to know of the run, so that it never looks at the journal.

use tokio::sync::watch;

use super::{Drive, Running};
use crate::driver::crossing::{Entered, Sides, of_mapping};
use crate::driver::{Fence, Losses, SharedDriver, Work};
use crate::engine::probe::{live_syncs, tables_behind};
use crate::engine::step::outbox::Outbox;
use crate::engine::step::{Halt, Job, Moved, shape_of};
use crate::run::{
    Action, Digest, Direction, DualWrite, MappingName, Permit, Program, Progress, State, Step,
    StepId, TargetName, Tuning, Verify, Way, is_guarded,
};

/// Slots for an attempt: which block of a target they are, where that was entered, and their fences.
type Block = (Option<(TargetName, usize)>, Vec<Fence>);

/// What an attempt works on: its own target, the databases of its mapping as one, and the fences there.
type On = (TargetName, SharedDriver, Vec<Fence>);

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
        let program = self.state().program();
        let step = program.step(id);
        let target = step.and_then(|step| step.target.clone());
        let (Some(step), Some(target)) = (step, target) else { return Assigned::NoDatabase };
        let mut fences = Vec::new();
        let mut blocks = Vec::new();
        for database in program.databases(step) {
            let Some((block, own)) = self.block(database) else { return Assigned::NoSlots };
            blocks.extend(block);
            fences.push(own);
        }
        let mut fences = fences.into_iter();
        let (own, beside) = (fences.next().unwrap_or_default(), fences.next().unwrap_or_default());
        let Some(driver) = self.driver(step, &target, beside.into_iter().next()) else {
            return Assigned::NoDatabase;
        };
        let (halt, halted) = watch::channel(Halt::No);
        let (tuning, tuned) = watch::channel(self.state().step(id).tuning.clone());
        let running = Running { way, blocks, halt, tuning };
        let on = (target, driver, own);
        let job = self.prepared(step.clone(), (way, permit), on, (halted, tuned));
        Assigned::Job(Box::new(job), Box::new(running))
    }

    /// The database that a step works on, or both as one.
    fn driver(
        &self,
        step: &Step,
        target: &TargetName,
        beside: Option<Fence>,
    ) -> Option<SharedDriver> {
        let state = self.state();
        let mapping = step.action.mapping().and_then(|name| state.mapping(name));
        let Some(mapping) = mapping else { return self.ctx.drivers.get(target).cloned() };
        let is_entered_twice =
            matches!(step.action, Action::DualWrite(_) | Action::StopDualWrite { .. });
        let sides = Sides {
            home: target.clone(),
            entered: if is_entered_twice { Entered::Both } else { Entered::Home },
            beside,
            live: live_syncs(state).into_iter().map(|(live, _)| live).collect(),
        };
        of_mapping(&self.ctx.drivers, &mapping, sides)
    }

    /// Slots that no attempt has; none of them where the target needs none. `None` while all are taken.
    pub(super) fn block(&self, target: &TargetName) -> Option<Block> {
        let Some(slots) = self.slots.get(target) else { return Some((None, Vec::new())) };
        let taken: Vec<usize> = self
            .running
            .values()
            .flat_map(|running| running.blocks.iter())
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
        (target, driver, fences): On,
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
                compared_under: compared_under(state, &step, way),
                resolved: state.step(id).resolved,
            },
            permit,
            driver,
            fences,
            lineages: program
                .databases(&step)
                .filter_map(|on| Some((on.clone(), state.lineage(on)?.to_owned())))
                .collect(),
            planned: name.as_ref().and_then(|name| program.mappings().get(name).cloned()),
            mapping: name.as_ref().and_then(|name| state.mapping(name)),
            beside: live_syncs(state)
                .into_iter()
                .map(|(mapping, _)| mapping)
                .filter(|other| other.is_pushdown() && other.from.target == target)
                .filter(|other| Some(&other.name) != name.as_ref())
                .collect(),
            direction: name
                .as_ref()
                .and_then(|name| state.direction(name))
                .unwrap_or(Direction::Forward),
            sync: name.as_ref().and_then(|name| Some(sync_of(program, name)?.0.id.clone())),
            writer: name
                .as_ref()
                .and_then(|name| Some(sync_of(program, name)?.1.by.clone()))
                .unwrap_or_default(),
            outbox: name
                .as_ref()
                .and_then(|name| Some(Outbox::of(sync_of(program, name)?.1.outbox)))
                .unwrap_or_default(),
            longest_wait_ms: program.policy().longest_wait_ms,
            mappings: program
                .mappings()
                .values()
                .filter(|other| other.from.target == target)
                .cloned()
                .collect(),
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

/// The sync under which the sides were compared that a step is about to part. The gate before it wants every comparison of them
/// made under one, so the last stands for all.
fn compared_under(state: &State, step: &Step, way: Way) -> Option<Digest> {
    let (Action::Retire(_) | Action::Drop { .. }, Way::Forward) = (&step.action, way) else {
        return None;
    };
    let mapping = step.action.mapping()?;
    live_syncs(state).iter().find(|(live, _)| live.name == *mapping)?;
    let compares = |step: &&Step| matches!(&step.action, Action::Verify(Verify::Mapping { mapping: of, .. }) if of == mapping);
    let steps = state.program().steps().iter().filter(compares);
    let evidence = steps.filter_map(|step| state.step(&step.id).evidence.as_ref());
    evidence.max_by_key(|evidence| evidence.ended_at)?.sync.clone()
}

/// The step that puts the sync of a mapping in, and what it does.
fn sync_of<'a>(program: &'a Program, mapping: &MappingName) -> Option<(&'a Step, &'a DualWrite)> {
    program.steps().iter().find_map(|step| match &step.action {
        Action::DualWrite(dual_write) if dual_write.mapping == *mapping => Some((step, dual_write)),
        _ => None,
    })
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

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::report::fixture::{begun, evidence, pin, succeeded};
    use crate::run::{
        Actor, Event, Evidence, Outcome, Phase, ProgramParts, Record, Retire, RetireShape,
        Timestamp, Verdict, apply, begin,
    };

    fn record(version: u64, event: Event) -> Record {
        Record { version, at: Timestamp::from_unix_ms(1_000), by: Actor::engine("here"), event }
    }

    /// A run whose mapping is in step, and was compared twice.
    fn compared() -> State {
        let mut pin = pin();
        let mut parts: ProgramParts = pin.program.into();
        let mut again = parts.steps[3].clone();
        again.id = "again".into();
        let mut retire = parts.steps[5].clone();
        retire.id = "retire".into();
        retire.phase = Phase::Contract;
        let shape = RetireShape::Table { old_name: "leads_old".into(), take_name: true };
        retire.action =
            Action::Retire(Retire { mapping: "leads".into(), shape, known: Vec::new() });
        parts.steps.extend([again, retire]);
        pin.program = Program::new(parts).unwrap();
        let event = Event::RunStarted { run: "run".into(), pin: Box::new(pin) };
        let mut state = begin(&record(1, event)).unwrap();
        let seen = |ended_at, sync: &[u8]| Outcome {
            evidence: Some(Evidence {
                ended_at: Timestamp::from_unix_ms(ended_at),
                sync: Some(Digest::of_bytes(sync)),
                ..evidence(Verdict::Pass, 0)
            }),
            ..Outcome::default()
        };
        let steps = [
            ("sync", Outcome::default()),
            ("again", seen(9_000, b"now")),
            ("compare", seen(5_000, b"then")),
        ];
        let mut version = 1;
        for (step, outcome) in steps {
            for event in [begun(step), succeeded(step, outcome)] {
                version += 1;
                apply(&mut state, &record(version, event)).unwrap();
            }
        }
        state
    }

    #[test]
    fn what_parts_the_sides_rests_on_the_sync_of_their_last_comparison() {
        let state = compared();
        let under =
            |id: &str, way| compared_under(&state, state.program().step(&id.into()).unwrap(), way);
        let now = Some(Digest::of_bytes(b"now"));
        assert_eq!(under("retire", Way::Forward), now);
        assert_eq!(under("drop", Way::Forward), now);
        assert_eq!(under("retire", Way::Back), None);
        assert_eq!(under("copy", Way::Forward), None);
    }
}

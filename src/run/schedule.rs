//! What may start now.
//!
//! Nothing new starts while the run is paused or while a step waits for an operator; what is under way ends first.

use std::collections::{BTreeMap, BTreeSet};

use super::action::Undo;
use super::gate::{gate_of, is_guarded};
use super::name::{StepId, TargetName};
use super::planted::{Fault, is_planted};
use super::program::{Program, Step};
use super::ready::{Goal, startable};
use super::record::{Event, Outcome, Way};
use super::state::{Progress, Standing, State};
use super::time::Timestamp;

/// The attempts to begin.
pub(super) fn tick(state: &State, goal: &Goal, now: Timestamp) -> Vec<Event> {
    if state.paused().is_some() {
        return Vec::new();
    }
    match state.standing() {
        Standing::Forward => forward(state, goal, now),
        Standing::Back => back(state, now),
        Standing::Aborting { .. } | Standing::Ended { .. } => Vec::new(),
    }
}

/// Whether a step waits for an operator, so that nothing new is begun.
pub(super) fn is_halted(state: &State) -> bool {
    state.program().steps().iter().any(|step| {
        matches!(
            state.step(&step.id).progress,
            Progress::Failed { .. } | Progress::Differs | Progress::Ambiguous { .. }
        )
    })
}

/// Whether a gate waits for its conditions: everything it needs has succeeded, and it has not opened.
pub(super) fn is_waiting_gate(state: &State, id: &StepId) -> bool {
    let Some(step) = state.program().step(id) else { return false };
    *state.standing() == Standing::Forward
        && gate_of(step).is_some()
        && matches!(
            state.step(id).progress,
            Progress::Pending | Progress::Running { way: Way::Forward }
        )
        && step.needs.iter().all(|need| state.step(need).progress == Progress::Succeeded)
}

fn forward(state: &State, goal: &Goal, now: Timestamp) -> Vec<Event> {
    if is_halted(state) {
        return Vec::new();
    }
    let mut room = Room::of(state, goal);
    let mut events = Vec::new();
    for step in state.program().steps() {
        let may_start = goal.includes(&step.id)
            && gate_of(step).is_none()
            && !is_guarded(step)
            && startable(state, step, now);
        if may_start && room.take(state.program(), step) {
            events.push(Event::StepStarted {
                step: step.id.clone(),
                attempt: state.step(&step.id).attempts + 1,
                way: Way::Forward,
                permit: None,
            });
        }
    }
    events
}

/// Undoes what has been done, each step after everything that needed it. Steps that left nothing behind are settled at
/// once; the rest are attempts like any other.
fn back(state: &State, now: Timestamp) -> Vec<Event> {
    let halted = state.program().steps().iter().any(|step| {
        matches!(
            state.step(&step.id).progress,
            Progress::Failed { way: Way::Back, .. } | Progress::Ambiguous { way: Way::Back, .. }
        )
    });
    if halted {
        return Vec::new();
    }
    let mut room = Room::of(state, &Goal::End);
    let mut events = Vec::new();
    // Steps that are not undone yet, or on which one rests that isn't: what stands between may never have been done, or is to be done again.
    let mut open: BTreeSet<&StepId> = BTreeSet::new();
    for id in state.program().order().iter().rev() {
        let Some(step) = state.program().step(id) else { continue };
        let known = state.step(id);
        let is_free = !state.program().dependents(id).iter().any(|it| open.contains(it));
        if !is_free || !is_settled(&known.progress) {
            open.insert(id);
        }
        if !is_free && !is_planted(Fault::UndoneTooEarly) {
            continue;
        }
        let attempt = match &known.progress {
            Progress::Pending | Progress::Undone | Progress::Running { way: Way::Back } => continue,
            Progress::Retrying { way: Way::Back, at, .. } if *at > now => continue,
            _ => known.attempts + 1,
        };
        if leaves_nothing(step) {
            if is_free {
                open.remove(id);
            }
            events.push(Event::StepSucceeded {
                step: id.clone(),
                attempt,
                way: Way::Back,
                outcome: Outcome::default(),
            });
        } else if room.take(state.program(), step) {
            events.push(Event::StepStarted {
                step: id.clone(),
                attempt,
                way: Way::Back,
                permit: None,
            });
        }
    }
    events
}

fn is_settled(progress: &Progress) -> bool {
    matches!(progress, Progress::Pending | Progress::Undone)
}

/// Whether a step has nothing to undo.
pub(super) fn leaves_nothing(step: &Step) -> bool {
    !step.action.changes_data() || matches!(step.undo, Undo::None(_))
}

/// How many more steps each target takes at once.
pub(super) struct Room(BTreeMap<TargetName, u32>);

impl Room {
    /// What a process that died left under way takes no room while it is not among what is asked for, nor, going back, what it had
    /// begun going forward: that is not taken up again.
    pub(super) fn of(state: &State, goal: &Goal) -> Self {
        let turned = match state.standing() {
            Standing::Back => Way::Back,
            _ => Way::Forward,
        };
        let mut room: BTreeMap<TargetName, u32> = state
            .program()
            .targets()
            .iter()
            .map(|(name, target)| (name.clone(), target.parallel.max(1)))
            .collect();
        for step in state.program().steps() {
            let runs = state.step(&step.id).progress == (Progress::Running { way: turned });
            if runs && goal.includes(&step.id) && gate_of(step).is_none() {
                for target in state.program().databases(step) {
                    if let Some(free) = room.get_mut(target) {
                        *free = free.saturating_sub(1);
                    }
                }
            }
        }
        Self(room)
    }

    /// Whether there is room for a step, which it takes.
    pub(super) fn take(&mut self, program: &Program, step: &Step) -> bool {
        let mut has_room = true;
        for target in program.databases(step) {
            let Some(free) = self.0.get_mut(target) else { continue };
            has_room &= *free > 0;
            *free = free.saturating_sub(1);
        }
        has_room
    }
}

//! A run whose journal is lost, told again from what its targets have of it.
//!
//! What a ledger has was done; and since no step starts before everything it needs has succeeded, all that such a step needs was
//! done too. Nothing else is known. Approvals are void, and so is evidence, but for one case: sides that have parted can't be
//! compared any more, and the step that parted them stands for the PASS that it was let go by.
//!
//! Invariant: what is told here permits nothing. A destructive step that the ledger does not have whole waits for its gates anew.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::action::{Action, Method, QueryCheck, Verify};
use super::digest::Digest;
use super::gate::{gate_of, is_guarded, judged_verifies};
use super::marked::Traced;
use super::name::{MappingName, StepId, TargetName};
use super::program::Step;
use super::record::{Ending, Evidence, Failure, FailureClass, Outcome, PermitRecord, Verdict, Way};
use super::state::{Progress, Standing, State, StepState};
use super::time::Timestamp;

/// What a target knew of the lost journal's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostHead {
    /// The version of the last record that the target knows of.
    pub version: u64,
    /// The hash of the chain up to it.
    pub hash: Digest,
}

/// What the ledgers have of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traces {
    /// The steps of which there is anything, in the plan's order.
    pub steps: Vec<StepTrace>,
    /// How the run ended, where it has left a target already.
    pub left: Option<Ending>,
    /// Whether it had begun to end the syncs that no step ends, which is done when every step has succeeded.
    pub ends: bool,
    /// Whether it was being given up.
    pub gives_up: bool,
}

/// What the ledgers have of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTrace {
    /// Which.
    pub step: StepId,
    /// How much of it was done.
    pub done: Traced,
    /// How much of that was undone.
    pub undone: Traced,
    /// Rows, where it is done.
    pub rows: Option<u64>,
    /// What the ledger says of it beside that.
    pub detail: Option<String>,
}

/// Where a run stands with the loss of its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// What the targets knew of the lost journal. No record of this one is meant.
    pub heads: BTreeMap<TargetName, LostHead>,
    /// Whether the ledgers are still to be read.
    pub is_pending: bool,
    /// The steps that the ledgers have whole, and that are looked at once more for what there is to do behind their entries.
    pub whole: BTreeSet<StepId>,
}

/// The state that the ledgers prove.
pub(super) fn apply(state: &mut State, traces: &Traces, at: Timestamp) {
    let told = Told::of(state, traces, at);
    let steps: Vec<(StepId, StepState)> = state
        .program()
        .steps()
        .iter()
        .filter_map(|step| Some((step.id.clone(), told.step(state, step)?)))
        .collect();
    state.standing = told.standing();
    state.steps.extend(steps);
    let is_under_way = |id: &StepId| matches!(state.step(id).progress, Progress::Running { .. });
    let whole = traces.steps.iter().filter(|trace| trace.done == Traced::Whole);
    let whole = whole.map(|trace| trace.step.clone()).filter(is_under_way).collect();
    if let Some(adoption) = &mut state.adoption {
        adoption.is_pending = false;
        adoption.whole = whole;
    }
}

struct Told<'a> {
    traces: &'a Traces,
    by_step: BTreeMap<&'a StepId, &'a StepTrace>,
    /// Steps that are needed by one of which there is a trace.
    needed: BTreeSet<StepId>,
    /// Steps that need one whose undoing there is a trace of.
    undone_before: BTreeSet<StepId>,
    at: Timestamp,
}

impl<'a> Told<'a> {
    fn of(state: &State, traces: &'a Traces, at: Timestamp) -> Self {
        let program = state.program();
        let by_step: BTreeMap<_, _> = traces.steps.iter().map(|it| (&it.step, it)).collect();
        let needed = by_step.keys().flat_map(|id| program.needed_by(id)).collect();
        let is_undone =
            |id: &StepId| by_step.get(id).is_some_and(|it| it.undone != Traced::Nothing);
        let undone_before = program
            .steps()
            .iter()
            .filter(|step| program.needed_by(&step.id).iter().any(is_undone))
            .map(|step| step.id.clone())
            .collect();
        Self { traces, by_step, needed, undone_before, at }
    }

    fn goes_back(&self) -> bool {
        self.traces.left == Some(Ending::RolledBack)
            || self.by_step.values().any(|it| it.undone != Traced::Nothing)
    }

    fn is_complete(&self) -> bool {
        self.traces.left == Some(Ending::Completed) || self.traces.ends
    }

    fn standing(&self) -> Standing {
        if self.traces.gives_up || self.traces.left == Some(Ending::Aborted) {
            Standing::Aborting { leave: true }
        } else if self.goes_back() {
            Standing::Back
        } else {
            Standing::Forward
        }
    }

    /// What is known of a step; nothing where it has not begun.
    fn step(&self, state: &State, step: &Step) -> Option<StepState> {
        if self.is_complete() {
            return Some(self.succeeded(step));
        }
        if self.goes_back() {
            return self.going_back(step);
        }
        match &step.action {
            Action::Gate(_) => self.is_used_up(state, step).then(|| self.succeeded(step)),
            Action::Verify(verify) => self.verified(state, step, verify),
            _ => self.begun(state, step),
        }
    }

    /// A step of a run that goes back: all that is left of it is to be undone.
    fn going_back(&self, step: &Step) -> Option<StepState> {
        if !step.action.changes_data() {
            return None;
        }
        let is_begun = self.needed.contains(&step.id) || self.by_step.contains_key(&step.id);
        if self.traces.left.is_some() || is_begun && self.undone_before.contains(&step.id) {
            return Some(self.at(Progress::Undone));
        }
        // What the ledger has as undone is looked at once more: there may be work behind the entry.
        is_begun.then(|| StepState { may_be_done: true, ..self.succeeded(step) })
    }

    /// A step that changes data, of a run that goes forward.
    fn begun(&self, state: &State, step: &Step) -> Option<StepState> {
        let trace = self.by_step.get(&step.id);
        let is_settled = self.needed.contains(&step.id);
        let may_park = matches!(&step.action, Action::Backfill(backfill)
            if backfill.park_max.is_some() && !self.is_retired(state, &backfill.mapping));
        if is_settled && !may_park {
            return Some(self.succeeded(step));
        }
        let trace = trace?;
        let begun = StepState { may_be_done: true, ended_at: None, ..self.succeeded(step) };
        // Whatever it is, the next look at the ledger finds it, and does what is left to do behind the entry.
        let running = Progress::Running { way: Way::Forward };
        Some(match (is_guarded(step), trace.done) {
            (false, _) => StepState { progress: running, outcome: None, ..begun },
            // It destroys nothing any more, and needs nobody's leave for that.
            (true, Traced::Whole) => StepState {
                progress: running,
                outcome: None,
                permit: Some(PermitRecord { gates: Vec::new() }),
                ..begun
            },
            (true, traced) => StepState {
                progress: Progress::Retrying {
                    way: Way::Forward,
                    at: self.at,
                    failure: in_the_middle(&step.id),
                },
                outcome: None,
                is_in_part: traced == Traced::Parts,
                ended_at: Some(self.at),
                ..begun
            },
        })
    }

    /// Whether a gate has nothing left to let go.
    fn is_used_up(&self, state: &State, gate: &Step) -> bool {
        let is_done = |step: &Step| {
            self.needed.contains(&step.id)
                || self.by_step.get(&step.id).is_some_and(|it| it.done == Traced::Whole)
        };
        // What only looks leaves no trace, and runs again by itself.
        let released = state.program().released_by(&gate.id);
        let mut released = released.filter(|step| step.action.changes_data()).peekable();
        let is_needed = self.needed.contains(&gate.id);
        is_needed && (released.peek().is_none() || released.all(is_done))
    }

    /// A verify runs again where somebody still looks at its result; and else, where the run has gone on behind it, it is over.
    fn verified(&self, state: &State, step: &Step, verify: &Verify) -> Option<StepState> {
        if !self.needed.contains(&step.id) {
            return None;
        }
        let over = StepState { passing_since: Some(self.at), ..self.succeeded(step) };
        let program = state.program();
        let mut gates = program.steps().iter().filter(|it| gate_of(it).is_some());
        let is_looked_at = gates.any(|gate| {
            !self.is_used_up(state, gate)
                && judged_verifies(state, &gate.id).any(|judged| judged.id == step.id)
        });
        match verify {
            Verify::Mapping { mapping, method, .. } if is_looked_at => {
                let parted = self.parted_by(state, mapping)?;
                let evidence = self.stands_for(state, parted, (step, *method));
                let detail = format!("as {} proves, which came after it", parted.id);
                let outcome = Outcome { detail: Some(detail), ..Outcome::default() };
                Some(StepState { evidence, outcome: Some(outcome), ..over })
            }
            Verify::Query(QueryCheck { capture: Some(name), .. }) => {
                let is_used = |it: &Step| {
                    !self.needed.contains(&it.id)
                        && matches!(&it.action, Action::Verify(Verify::Query(QueryCheck { within: Some(within), .. }))
                            if within.of == *name)
                };
                (!program.steps().iter().any(is_used)).then_some(over)
            }
            _ => (!is_looked_at).then_some(over),
        }
    }

    /// Whether a mapping's old side was put aside, after which its rows are copied no more.
    fn is_retired(&self, state: &State, mapping: &MappingName) -> bool {
        state.program().steps().iter().any(|step| {
            self.by_step.contains_key(&step.id)
                && matches!(&step.action, Action::Retire(retire) if retire.mapping == *mapping)
        })
    }

    /// The step of which there is a trace, and since which both sides of a mapping can't be compared.
    fn parted_by<'s>(&self, state: &'s State, mapping: &MappingName) -> Option<&'s Step> {
        let parts =
            |step: &&Step| self.by_step.contains_key(&step.id) && state.parts_sides(step, mapping);
        state.program().steps().iter().find(parts)
    }

    /// The evidence that a step was let go by, as old as it may have been.
    fn stands_for(
        &self,
        state: &State,
        parted: &Step,
        (verify, method): (&Step, Method),
    ) -> Option<Evidence> {
        let gates = state.program().releasing_gates(&parted.id);
        let limits = gates.filter_map(|gate| {
            let asks = state.program().step(gate).and_then(gate_of)?;
            let judges = judged_verifies(state, gate).any(|judged| judged.id == verify.id);
            asks.verified_within_ms.filter(|_| judges)
        });
        let began_at = self.at.minus_ms(limits.min()?);
        Some(Evidence {
            verdict: if method == Method::Full { Verdict::Pass } else { Verdict::Partial },
            began_at,
            ended_at: began_at,
            rows: 0,
            missing: 0,
            extra: 0,
            different: 0,
            samples: Vec::new(),
            resumed: true,
            sync: None,
        })
    }

    fn succeeded(&self, step: &Step) -> StepState {
        let outcome = self.by_step.get(&step.id).map(|trace| Outcome {
            rows: trace.rows,
            detail: trace.detail.clone(),
            ..Outcome::default()
        });
        StepState { outcome: Some(outcome.unwrap_or_default()), ..self.at(Progress::Succeeded) }
    }

    fn at(&self, progress: Progress) -> StepState {
        StepState {
            progress,
            attempts: 1,
            tried: 1,
            started_at: Some(self.at),
            ended_at: Some(self.at),
            ..StepState::default()
        }
    }
}

fn in_the_middle(step: &StepId) -> Failure {
    Failure {
        class: FailureClass::Stale,
        code: None,
        message: format!("{step} had begun when the journal was lost"),
        detail: None,
        help: None,
        line: None,
        private: Vec::new(),
    }
}

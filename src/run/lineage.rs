//! What a database that may have lost its last transactions means for evidence.
//!
//! A database tells its *lineage*: a text that is another one when it may lack what was committed there before. A standby was promoted that
//! had not received everything; it was made anew; the URL leads elsewhere now. What was compared before says nothing of what is there
//! since, so it is void, whatever it was: it runs again, and every gate that had opened on it opens again first.
//!
//! One thing outlives such a change: evidence that the database's own ledger vouches for. What is in a ledger was committed, and so was
//! everything before it. A step that parted the sides (`retire` forward, `drop`, `stop_dual_write`) came behind the comparison that let it go:
//! where it is there, nothing was lost that this comparison is about. It has to be so, too, since sides that have parted can't be
//! compared any more. Where the step is entered in another database than the one that changed, nobody can vouch: that evidence is void for
//! good, and no gate opens on it.
//!
//! Absent on purpose: looking at databases, and whether they have the steps that are recorded as done, which the engine sees to
//! before it goes on.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Direction, Gate, Verify};
use super::gate::{gate_of, is_guarded, is_judged, judged_verifies};
use super::name::{MappingName, StepId, TargetName};
use super::planted::{Fault, is_planted};
use super::program::Step;
use super::record::{Event, Failure, FailureClass, Verdict, Way};
use super::state::{Progress, Standing, State};
use super::time::Timestamp;

/// What was read of the databases before a run goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// The lineage of each database that tells one.
    pub lineages: BTreeMap<TargetName, String>,
    /// Of the steps that [`in_doubt`] names, those that their ledgers have.
    pub done: BTreeSet<StepId>,
}

impl Looked {
    /// The databases that are not what they were.
    fn changed<'a>(
        &'a self,
        state: &'a State,
    ) -> impl Iterator<Item = (&'a TargetName, &'a String)> {
        self.lineages.iter().filter(|(target, now)| state.lineage(target) != Some(now.as_str()))
    }

    /// Whether a database is not what it was, or is looked at for the first time.
    #[must_use]
    pub fn is_news(&self, state: &State) -> bool {
        self.changed(state).next().is_some()
    }
}

/// The steps that evidence may rest on and of which nobody knows whether they are done: an attempt was begun, and its end is not
/// recorded. Their ledgers know.
#[must_use]
pub fn in_doubt(state: &State) -> Vec<&Step> {
    let may_be = |step: &&Step| {
        let known = state.step(&step.id);
        let is_begun = known.may_be_done || matches!(known.progress, Progress::Running { .. });
        is_begun && !state.is_applied(&step.id)
    };
    let steps = state.program().steps().iter();
    steps.filter(|step| is_guarded(step) || ends_sync(step)).filter(may_be).collect()
}

/// What is recorded of databases that are not what they were.
pub(super) fn looked(state: &State, looked: &Looked) -> Vec<Event> {
    looked.changed(state).flat_map(|(target, now)| changed(state, (target, now), looked)).collect()
}

fn changed(state: &State, (target, now): (&TargetName, &str), looked: &Looked) -> Vec<Event> {
    let (mut void, mut lost) = (Vec::new(), Vec::new());
    // Whoever goes back relies on no evidence: every undo looks by itself.
    if *state.standing() == Standing::Forward && !is_planted(Fault::LineageForgotten) {
        for step in state.program().steps() {
            match fate(state, step, target, &looked.done) {
                Fate::Stands => {}
                Fate::Void => void.push(step.id.clone()),
                Fate::Lost => lost.push(step.id.clone()),
            }
        }
    }
    let gone: BTreeSet<&StepId> = void.iter().chain(&lost).collect();
    let shut: Vec<Event> = shut(state, target, &gone).collect();
    let (target, now) = (target.clone(), now.to_owned());
    let before = state.lineage(&target).map(str::to_owned);
    let event = Event::LineageSeen { target, before, now, void, lost };
    std::iter::once(event).chain(shut).collect()
}

/// What becomes of what a verify step has found.
enum Fate {
    /// There is nothing, or it has nothing to do with this database, or its ledger vouches for it.
    Stands,
    /// It is found again.
    Void,
    /// It can't be found again.
    Lost,
}

fn fate(state: &State, verify: &Step, target: &TargetName, done: &BTreeSet<StepId>) -> Fate {
    // Differences that were found keep every gate shut, whatever becomes of the database.
    let evidence = state.step(&verify.id).evidence.as_ref();
    let has_found = evidence.is_some_and(|evidence| evidence.verdict != Verdict::Fail);
    if !has_found || !is_judged(verify) || !state.program().works_on(verify, target) {
        return Fate::Stands;
    }
    let is_done = |step: &&Step| state.is_applied(&step.id) || done.contains(&step.id);
    let steps = state.program().steps().iter().filter(is_done);
    let rest: Vec<&Step> = steps.filter(|step| rests_on(state, step, verify)).collect();
    if rest.iter().any(|step| state.program().enters(step, target)) {
        return Fate::Stands;
    }
    // A question can always be asked again.
    if rest.is_empty() || verify.action.mapping().is_none() { Fate::Void } else { Fate::Lost }
}

/// Whether a step, once done, has used up what a verify found: it parted the sides that were compared, or destroyed what was asked
/// about.
fn rests_on(state: &State, step: &Step, verify: &Step) -> bool {
    match &verify.action {
        Action::Verify(Verify::Mapping { mapping, .. }) => parts(state, step, mapping),
        _ => is_guarded(step) && state.program().needed_by(&step.id).contains(&verify.id),
    }
}

/// Whether both sides of a mapping go ways of their own behind a step.
fn parts(state: &State, step: &Step, mapping: &MappingName) -> bool {
    match &step.action {
        Action::Retire(retire) => {
            retire.mapping == *mapping && state.direction(mapping) == Some(Direction::Forward)
        }
        Action::Drop { mapping: of } | Action::StopDualWrite { mapping: of } => of == mapping,
        _ => false,
    }
}

const fn ends_sync(step: &Step) -> bool {
    matches!(step.action, Action::StopDualWrite { .. })
}

/// Shuts the gates that are open on what is void now, where they have something to let go still.
fn shut<'a>(
    state: &'a State,
    target: &'a TargetName,
    gone: &'a BTreeSet<&'a StepId>,
) -> impl Iterator<Item = Event> + 'a {
    let program = state.program();
    let is_open = |step: &&Step| state.step(&step.id).progress == Progress::Succeeded;
    program.steps().iter().filter(is_open).filter_map(move |step| {
        let asks = gate_of(step)?;
        let has_work = program
            .released_by(&step.id)
            .any(|one| state.step(&one.id).progress != Progress::Succeeded);
        let judged = judged_verifies(state, &step.id).map(|verify| &verify.id);
        let on: Vec<&str> = judged.filter(|id| gone.contains(id)).map(StepId::as_str).collect();
        let (gate, names) = (step.id.clone(), on.join(", "));
        (has_work && !on.is_empty() && relies(state, step, asks, gone)).then(|| Event::GateShut {
            gate,
            reasons: vec![format!("what {names} found is void: {}", may_lack(target))],
        })
    })
}

/// Whether a gate asks for evidence at all, or for the time since it was good.
fn relies(state: &State, gate: &Step, asks: &Gate, gone: &BTreeSet<&StepId>) -> bool {
    asks.verified_within_ms.is_some()
        || asks.soak.as_ref().is_some_and(|soak| gone.contains(&soak.after))
        || state.program().released_by(&gate.id).any(is_guarded)
}

/// Takes what was found away, and has it found again.
pub(super) fn apply(state: &mut State, event: &Event, at: Timestamp) {
    let Event::LineageSeen { target, now, void, lost, .. } = event else { return };
    state.lineages.insert(target.clone(), now.clone());
    for id in void.iter().chain(lost) {
        let entry = state.steps.entry(id.clone()).or_default();
        entry.evidence = None;
        entry.passing_since = None;
        entry.outcome = None;
    }
    for id in void {
        let entry = state.steps.entry(id.clone()).or_default();
        if entry.progress != Progress::Succeeded {
            continue;
        }
        // Not as if it had never been: what was done behind it is undone before it, should the run go back.
        entry.tried = 0;
        entry.progress = Progress::Retrying { way: Way::Forward, at, failure: void_by(target) };
    }
}

/// What a database may lack, in words.
pub(super) fn may_lack(target: &TargetName) -> String {
    format!("{target} may have lost its last transactions since")
}

/// Why a verify that had ended runs again.
fn void_by(target: &TargetName) -> Failure {
    Failure {
        class: FailureClass::Stale,
        code: None,
        message: format!("what it found is void: {}", may_lack(target)),
        detail: None,
        help: None,
        line: None,
        private: Vec::new(),
    }
}

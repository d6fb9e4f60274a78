//! What an operator says came of an attempt of which nobody could tell: only then, and in place of nothing else.
//!
//! Invariants:
//! - An answer settles no step. The step is tried again like any other that waits for another attempt: after everything it needs,
//!   and with its gates judged again where it is guarded. That attempt brings the target's ledger in line with the answer before
//!   it does anything.
//! - An answer is about the attempts before it. What is begun after it and lost as well is in doubt anew.

use super::action::{Action, Language};
use super::command::{Refusal, RefusalKind};
use super::decide::Decided;
use super::name::StepId;
use super::program::Step;
use super::record::{Event, Failure, FailureClass, Record, Resolution, Way};
use super::state::{Progress, Resolved, State};

/// Which way an attempt at a step went of which nobody can tell, and what is known of it. Refused for any other step.
pub fn ambiguous<'a>(state: &'a State, id: &StepId) -> Result<(Way, &'a str), Refusal> {
    let usage = |message| Refusal::new(RefusalKind::Usage, message);
    if state.is_ended() {
        return Err(usage(format!("run {} is over: nothing of it is in doubt", state.run()))
            .with_help("`phasegate status RUN` shows how it ended"));
    }
    if state.program().step(id).is_none() {
        let steps: Vec<&str> = state.program().steps().iter().map(|it| it.id.as_str()).collect();
        return Err(usage(format!("the plan has no step {id}"))
            .with_help(format!("its steps are: {}", steps.join(", "))));
    }
    let known = state.step(id);
    let (stands, help) = match &known.progress {
        Progress::Ambiguous { way, detail } => return Ok((*way, detail)),
        Progress::Retrying { .. } | Progress::Running { .. } if known.resolved.is_some() => {
            ("it was resolved, and goes on from there", "`phasegate history RUN` shows by whom")
        }
        Progress::Pending => ("it has not begun", "`phasegate status RUN` shows where it stands"),
        Progress::Running { .. } => {
            ("it is under way", "`phasegate run PLAN` finds out what came of it")
        }
        Progress::Retrying { .. } => {
            ("it is to be tried again by itself", "`phasegate run PLAN` goes on")
        }
        Progress::Failed { .. } => ("it has failed", "`phasegate retry RUN` tries it again"),
        Progress::Differs => ("it found differences", "`phasegate retry RUN` compares again"),
        Progress::Succeeded => ("it is done", "`phasegate status RUN` shows where the run stands"),
        Progress::Undone => ("it is undone", "`phasegate status RUN` shows where the run stands"),
    };
    Err(usage(format!("step {id} is not ambiguous: {stands}")).with_help(help))
}

/// The record that an answer comes to. Whoever says which attempt they looked at has not looked at any later one.
pub(super) fn decide(
    state: &State,
    (id, looked_at): (&StepId, Option<u32>),
    outcome: Resolution,
    reason: &str,
) -> Decided {
    let (way, _) = ambiguous(state, id)?;
    let lost = state.step(id).attempts;
    if let Some(other) = looked_at.filter(|looked_at| *looked_at != lost) {
        let message = format!("attempt {lost} at step {id} is in doubt, not attempt {other}");
        return Err(Refusal::new(RefusalKind::Stale, message)
            .with_help(format!("look again: `phasegate resolve RUN {id}`")));
    }
    if reason.trim().is_empty() {
        let message = "an answer needs a reason: nothing else tells later how it was known";
        return Err(Refusal::new(RefusalKind::Usage, message).with_help("add --reason"));
    }
    let (step, attempt, reason) = (id.clone(), state.step(id).attempts, reason.to_owned());
    Ok(vec![Event::StepResolved { step, attempt, way, outcome, reason }])
}

/// What becomes of the step: it waits for its next attempt, which is handed the answer.
pub(super) fn apply(state: &mut State, record: &Record) {
    let Event::StepResolved { step, way, outcome, reason, .. } = &record.event else { return };
    let is_whole = state.program().step(step).is_some_and(is_done_at_once);
    let entry = state.steps.entry(step.clone()).or_default();
    entry.tried = 0;
    // It was done, or it was not and others of its statements, or attempts before it, may have left something: until the ledger is asked
    // the next time.
    entry.may_be_done |= *outcome == Resolution::Applied || !is_whole;
    entry.resolved = Some(Resolved { way: *way, outcome: *outcome, version: record.version });
    entry.progress = Progress::Retrying {
        way: *way,
        at: record.at,
        failure: Failure {
            class: FailureClass::Unknown,
            code: None,
            message: format!("resolved as {} by {}: {reason}", outcome.as_str(), record.by.name),
            detail: None,
            help: None,
            line: None,
            private: Vec::new(),
        },
    };
}

/// Whether all that a step is to do was done, as an operator says: its next attempt only enters that in the ledger, and destroys
/// nothing more. A script of several statements goes on behind the one in doubt.
pub(super) fn leaves_nothing_to_do(state: &State, step: &Step) -> bool {
    let told = state.step(&step.id).resolved;
    told.is_some_and(|it| it.way == Way::Forward && it.outcome == Resolution::Applied)
        && is_only_statement(step)
}

/// Whether an operator has said that a step which does all it does at once was not done. The ledger learns of that with the next attempt
/// only, and has it as begun until then.
#[must_use]
pub fn is_told_undone(step: &Step, told: Option<Resolved>) -> bool {
    told.is_some_and(|it| it.way == Way::Forward && it.outcome == Resolution::NotApplied)
        && is_done_at_once(step)
}

/// Whether a step that was not done has done nothing: it is one statement, and not one that commits batch after batch, of which
/// "not done" says that it did not come to its end.
fn is_done_at_once(step: &Step) -> bool {
    is_only_statement(step)
        && !matches!(&step.action, Action::Sql(script)
            if script.language == Language::Cypher && script.commits_in_parts())
}

fn is_only_statement(step: &Step) -> bool {
    matches!(&step.action, Action::Sql(script) if script.statements.len() == 1)
}

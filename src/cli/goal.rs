//! How far to go, from what was typed.

use std::collections::BTreeSet;

use crate::run::{Goal, Phase, Program, State, StepId};

use super::answer::Failure;
use super::suggest;

/// The goal of `--to`: a phase means all of its steps and all earlier phases, a step means itself and everything it needs.
/// A phase wins over a step of the same name. Without `--to` it is the end.
pub fn to(program: &Program, typed: Option<&str>) -> Result<Goal, Failure> {
    let Some(typed) = typed else { return Ok(Goal::End) };
    if let Some(phase) = Phase::ALL.into_iter().find(|phase| phase.as_str() == typed) {
        if program.steps().iter().all(|step| step.phase != phase) {
            return Err(Failure::usage(format!("the plan has no step in phase {phase}")));
        }
        return Ok(through_phase(program, phase));
    }
    let id = StepId::new(typed);
    if program.step(&id).is_none() {
        let phases = Phase::ALL.iter().map(|phase| phase.as_str());
        let names: Vec<&str> =
            phases.chain(program.steps().iter().map(|step| step.id.as_str())).collect();
        return Err(Failure::usage(format!("{typed} is neither a phase nor a step of the plan"))
            .help(suggest::help(typed, &names)));
    }
    let mut steps = program.needed_by(&id);
    steps.insert(id);
    Ok(Goal::Through(steps))
}

fn through_phase(program: &Program, phase: Phase) -> Goal {
    let steps = program.steps().iter().filter(|step| step.phase <= phase);
    Goal::Through(steps.map(|step| step.id.clone()).collect::<BTreeSet<_>>())
}

/// The goal of `advance`: the first phase that has an unfinished step; the end where that is the last one that has steps.
#[must_use]
pub fn next_phase(state: &State) -> Goal {
    let program = state.program();
    let unfinished = program.steps().iter().filter(|step| !state.is_applied(&step.id));
    let last = program.steps().iter().map(|step| step.phase).max();
    match unfinished.map(|step| step.phase).min() {
        Some(phase) if Some(phase) != last => through_phase(program, phase),
        _ => Goal::End,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::report::fixture::{done, pin, started, state, up_to_gate};

    fn through(goal: Goal) -> Vec<String> {
        match goal {
            Goal::Through(steps) => steps.iter().map(ToString::to_string).collect(),
            Goal::End => vec!["end".into()],
        }
    }

    #[test]
    fn a_phase_brings_the_earlier_ones_and_a_step_what_it_needs() {
        let program = pin().program;
        let table: [(&str, &[&str]); 3] = [
            ("dual-write", &["create", "sync"]),
            ("copy", &["copy", "create", "sync"]),
            ("contract", &["compare", "copy", "create", "drop", "ready", "sync"]),
        ];
        for (typed, steps) in table {
            assert_eq!(through(to(&program, Some(typed)).unwrap()), steps, "{typed}");
        }
        assert_eq!(to(&program, None).unwrap(), Goal::End);
        let unknown = to(&program, Some("contarct")).unwrap_err();
        assert_eq!(unknown.exit.code(), 64);
        assert_eq!(unknown.help, ["did you mean contract?"]);
    }

    #[test]
    fn advancing_takes_the_first_unfinished_phase() {
        assert_eq!(through(next_phase(&state(vec![started()]))), ["create"]);
        let mut events = vec![started()];
        events.extend(done("create", None));
        assert_eq!(through(next_phase(&state(events))), ["create", "sync"]);
        assert_eq!(next_phase(&state(up_to_gate())), Goal::End);
    }
}

//! What gates ask, by the words of gate logic.

use crate::report::dry_run::{ConditionOutlook, GateOutlook};
use crate::report::gates::condition_name;
use crate::report::words;
use crate::run::{
    Action, Actor, ConditionKind, Event, Observations, Pin, Record, RunId, Step, Timestamp, begin,
    report,
};

/// What a gate asks, if the step is one: everything that would be missing in a run that has just begun.
pub(super) fn of(pin: &Pin, step: &Step) -> Option<GateOutlook> {
    let Action::Gate(gate) = &step.action else { return None };
    let (at, run) = (Timestamp::default(), RunId::new("dry-run"));
    let event = Event::RunStarted { run, pin: Box::new(pin.clone()) };
    let state = begin(&Record { version: 1, at, by: Actor::engine("here"), event }).ok()?;
    let report = report(&state, &step.id, &Observations::default(), at);
    let asked = report
        .conditions
        .iter()
        // Those before it have their place in the waves.
        .filter(|one| one.kind != ConditionKind::Needs)
        .map(|one| ConditionOutlook {
            condition: condition_name(&one.kind),
            needed: one.needed.clone(),
            from_policy: one.from_policy,
        });
    Some(GateOutlook {
        releases: pin.program.released_by(&step.id).map(|step| step.id.to_string()).collect(),
        conditions: asked.collect(),
        approvals_expire_after: (!gate.approvals.is_empty())
            .then(|| words::duration(gate.expires_ms)),
    })
}

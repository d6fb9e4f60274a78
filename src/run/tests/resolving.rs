//! What an operator says came of a step of which nobody could tell.

use super::*;

fn resolve(step: &str, outcome: Resolution) -> Command {
    Command::Resolve { step: step.into(), outcome, reason: "looked".into(), attempt: None }
}

/// Steps whose last one runs these statements, may destroy, and stands behind a gate that asks for an approval.
fn purging(statements: &[&str]) -> Vec<Step> {
    let end = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut steps = leads_steps(gate(), end);
    let last = steps.last_mut().unwrap();
    let one = script(statements[0]);
    let statements = statements.iter().map(|text| script(text).statements[0].clone()).collect();
    last.action = Action::Sql(Script { statements, transaction: Transaction::None, ..one });
    steps
}

impl World {
    /// Begins everything up to this step, of which nobody can tell then what came of it.
    fn loses(&mut self, step: &str) {
        self.loses_again(step, false);
    }

    /// The same, of a step of which something is known to be committed beside that.
    fn loses_again(&mut self, step: &str, has_left: bool) {
        for _ in 0..100 {
            if matches!(self.is(step), Progress::Running { .. }) {
                break;
            }
            self.feed(&Input::Tick);
            for effect in ready(&self.state, &Goal::End, self.now) {
                if !matches!(&effect, Effect::Perform { step: of, .. } if of.as_str() == step) {
                    self.perform(effect);
                }
            }
        }
        let Progress::Running { way } = *self.is(step) else { panic!("{:?}", self.is(step)) };
        let (step, attempt) = (step.into(), self.state.step(&step.into()).attempts);
        let result = Observation::Ambiguous { detail: "nothing tells".into(), has_left };
        self.feed(&Input::Ended { step, attempt, way, result, jitter: 0.0 });
    }

    fn is_over(&self) -> bool {
        self.state.is_ended()
    }
}

#[test]
fn only_what_is_ambiguous_now_is_answered_for_and_with_a_reason() {
    let mut world = World::new(leads_steps(gate(), gate()));
    for (step, words) in [("create", "has not begun"), ("nothing", "no step nothing")] {
        let refusal = world.ask("ana", resolve(step, Resolution::Applied)).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Usage);
        assert!(refusal.message.contains(words) && refusal.help.is_some(), "{refusal:?}");
    }
    world.loses("create");
    let reason = " ".to_owned();
    let (outcome, attempt) = (Resolution::Applied, Some(1));
    let mute = Command::Resolve { step: "create".into(), outcome, reason, attempt };
    assert!(world.ask("ana", mute).unwrap_err().message.contains("reason"));
    // What was seen of another attempt says nothing of this one.
    let reason = "looked".to_owned();
    let late = Command::Resolve { step: "create".into(), outcome, reason, attempt: Some(2) };
    assert_eq!(world.ask("ana", late).unwrap_err().kind, RefusalKind::Stale);
    let events = world.ask("ana", resolve("create", Resolution::Applied)).unwrap();
    let [Event::StepResolved { attempt: 1, way: Way::Forward, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    let again = world.ask("ana", resolve("create", Resolution::NotApplied)).unwrap_err();
    assert!(again.message.contains("it was resolved"), "{again:?}");
    world.go();
    assert!(world.is_over());
    let late = world.ask("ana", resolve("create", Resolution::Applied)).unwrap_err();
    assert!(late.message.contains("is over"), "{late:?}");
}

#[test]
fn an_answer_settles_nothing_by_itself_and_the_next_attempt_is_handed_it() {
    for outcome in [Resolution::Applied, Resolution::NotApplied] {
        let mut world = World::new(leads_steps(gate(), gate()));
        world.loses("create");
        assert!(world.feed(&Input::Tick).is_empty());
        world.ask("ana", resolve("create", outcome)).unwrap();
        let version = world.state.version();
        assert!(!world.has("create") && *world.is("sync") == Progress::Pending);
        let events = world.feed(&Input::Tick);
        let [Event::StepStarted { attempt: 2, .. }] = events.as_slice() else {
            panic!("{events:?}")
        };
        let told = Resolved { way: Way::Forward, outcome, version };
        assert_eq!(world.state.step(&"create".into()).resolved, Some(told));
        world.go();
        assert!(world.is_over());
    }
}

#[test]
fn an_undo_is_answered_for_too() {
    for outcome in [Resolution::Applied, Resolution::NotApplied] {
        let mut world =
            World::new(leads_steps(gate(), Gate { approvals: approvals("dba", 1), ..gate() }));
        world.go();
        world.ask("ana", Command::Rollback { accept_loss: Vec::new() }).unwrap();
        world.loses("create");
        assert!(matches!(stop(&world.state, &Goal::End, &[]), Some(Stop::Ambiguous { .. })));
        world.ask("ana", resolve("create", outcome)).unwrap();
        world.go();
        let told = world.state.step(&"create".into()).resolved.unwrap();
        assert_eq!((told.way, told.outcome), (Way::Back, outcome));
        assert!(world.is_over() && *world.is("create") == Progress::Undone);
    }
}

#[test]
fn what_destroys_and_was_not_done_is_held_against_its_gates_again() {
    let mut world = World::new(purging(&["CALL purge()"]));
    world.go();
    world.approve("dee", "end").unwrap();
    world.loses("drop");
    world.ask("ana", resolve("drop", Resolution::NotApplied)).unwrap();
    // The objects behind the gate were changed by somebody meanwhile.
    world.seen = facts("somebody was here");
    let events = world.recheck("drop", vec![("end".into(), world.seen.clone())]);
    assert!(matches!(events.as_slice(), [Event::GateShut { .. }]), "{events:?}");
    world.go();
    assert!(!world.has("drop") && !world.is_over());
    let mut world = World::new(purging(&["CALL purge()"]));
    world.go();
    world.approve("dee", "end").unwrap();
    world.loses("drop");
    world.ask("dee", Command::Revoke { gate: "end".into() }).unwrap_or_default();
    world.ask("ana", resolve("drop", Resolution::NotApplied)).unwrap();
    world.ask("eve", Command::Reject { gate: "end".into(), reason: "no".into() }).unwrap();
    world.go();
    assert!(!world.has("drop"));
}

/// What was destroyed can't be taken back by a gate that shuts: its conditions may well fail for the very reason that it was done.
#[test]
fn what_destroys_and_was_done_is_only_entered_unless_statements_are_left() {
    for (statements, is_entered) in
        [(&["CALL purge()"][..], true), (&["CALL purge()", "DROP TABLE more"], false)]
    {
        let mut world = World::new(purging(statements));
        world.go();
        world.approve("dee", "end").unwrap();
        world.loses("drop");
        world.ask("ana", resolve("drop", Resolution::Applied)).unwrap();
        let changed = vec![("end".into(), facts("the rows are gone"))];
        let events = world.recheck("drop", changed);
        let is_started = matches!(events.as_slice(), [Event::StepStarted { permit: Some(_), .. }]);
        assert_eq!(is_started, is_entered, "{events:?}");
    }
    // A gate that was shut meanwhile has to open first.
    let mut world = World::new(purging(&["CALL purge()"]));
    world.go();
    world.approve("dee", "end").unwrap();
    world.loses("drop");
    world.ask("ana", resolve("drop", Resolution::Applied)).unwrap();
    world.ask("eve", Command::Reject { gate: "end".into(), reason: "no".into() }).unwrap();
    world.go();
    assert!(!world.has("drop"));
}

#[test]
fn what_was_not_done_has_left_nothing_and_what_was_has() {
    let back = || Command::Rollback { accept_loss: Vec::new() };
    // What the ledger says of it after the next attempt, which does not come as far as to do anything; where nobody can ask it, nobody knows.
    for (statements, outcome, committed, leaves_traces) in [
        (&["CALL purge()"][..], Resolution::NotApplied, Some(false), false),
        (&["CALL purge()"], Resolution::NotApplied, None, true),
        (&["CALL purge()"], Resolution::Applied, Some(true), true),
        (&["CALL purge()"], Resolution::Applied, None, true),
        (&["CALL purge()", "CALL more()"], Resolution::NotApplied, Some(true), true),
        (&["CALL purge()", "CALL more()"], Resolution::NotApplied, None, true),
    ] {
        let mut world = World::new(purging(statements));
        world.go();
        world.approve("dee", "end").unwrap();
        world.loses("drop");
        assert!(world.ask("ana", back()).is_err(), "nobody knows");
        world.ask("ana", resolve("drop", outcome)).unwrap();
        let what = format!("{statements:?} {outcome:?} {committed:?}");
        let is_only = statements.len() == 1;
        let is_told = is_only && outcome == Resolution::NotApplied;
        assert_eq!(world.state.step(&"drop".into()).may_be_done, !is_told, "{what}");
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            if matches!(effect, Effect::Recheck { .. }) {
                world.perform(effect);
            }
        }
        let attempt = world.state.step(&"drop".into()).attempts;
        let failure = Failure {
            class: FailureClass::Unreachable,
            code: None,
            message: "no".into(),
            detail: None,
            help: None,
            line: None,
            private: Vec::new(),
        };
        let (step, way) = ("drop".into(), Way::Forward);
        let result = Observation::Failed(failure, committed);
        world.feed(&Input::Ended { step, attempt, way, result, jitter: 0.0 });
        assert!(matches!(world.is("drop"), Progress::Retrying { .. }), "{:?}", world.is("drop"));
        assert_eq!(world.ask("ana", back()).is_err(), leaves_traces, "{what}");
    }
}

/// An answer is about one attempt. What those before it have left stays.
#[test]
fn what_an_earlier_attempt_has_left_is_not_answered_for() {
    for has_left in [false, true] {
        let mut world = World::new(purging(&["CALL purge()"]));
        world.go();
        world.approve("dee", "end").unwrap();
        world.loses_again("drop", has_left);
        world.ask("ana", resolve("drop", Resolution::NotApplied)).unwrap();
        let back = Command::Rollback { accept_loss: Vec::new() };
        assert_eq!(world.ask("ana", back).is_err(), has_left);
    }
}

/// `--attempt` says what somebody has looked at: no other attempt has its number, not one on the way back, nor one at an amended step.
#[test]
fn no_two_attempts_at_a_step_have_the_same_number() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.loses("create");
    world.ask("ana", resolve("create", Resolution::Applied)).unwrap();
    world.ask("ana", Command::Rollback { accept_loss: Vec::new() }).unwrap();
    world.loses("create");
    assert_eq!(world.state.step(&"create".into()).attempts, 2);
    let command = |attempt| Command::Resolve {
        step: "create".into(),
        outcome: Resolution::Applied,
        reason: "seen".into(),
        attempt: Some(attempt),
    };
    assert!(world.ask("ana", command(1)).is_err(), "that was the way there");
    world.ask("ana", command(2)).unwrap();
}

#[test]
fn a_step_that_is_amended_hands_its_answer_on() {
    let steps = || {
        let mut steps = leads_steps(gate(), gate());
        steps[0].action =
            Action::Sql(Script { transaction: Transaction::None, ..script("CALL fill()") });
        steps
    };
    let mut world = World::new(steps());
    world.loses("create");
    world.ask("ana", resolve("create", Resolution::NotApplied)).unwrap();
    let mut changed = steps();
    changed[0].digest = Digest::of_bytes(b"another statement");
    let amend = Command::Amend { pin: Box::new(pin(changed, Policy::default())) };
    world.ask("ana", amend).unwrap();
    let known = world.state.step(&"create".into());
    assert_eq!(known.progress, Progress::Pending);
    assert!(known.resolved.is_some(), "the ledger still has the mark that was answered for");
    assert_eq!(known.attempts, 1, "the next one is another");
    world.go();
    assert!(world.is_over());
}

//! Turns that a run takes: given up, gone back, amended, and taken up again by a process that knows nothing of the last one.

use super::*;

fn rollback(accept: &[&str]) -> Command {
    Command::Rollback { accept_loss: accept.iter().map(|name| (*name).into()).collect() }
}

fn abort(leave: bool) -> Command {
    Command::Abort { leave, reason: leave.then(|| "enough".to_owned()) }
}

impl World {
    /// Begins whatever may begin until this step is under way, and performs everything but that.
    fn up_to(&mut self, step: &str) {
        for _ in 0..100 {
            if matches!(self.is(step), Progress::Running { .. }) {
                return;
            }
            self.feed(&Input::Tick);
            for effect in ready(&self.state, &Goal::End, self.now) {
                if !matches!(&effect, Effect::Perform { step: of, .. } if of.as_str() == step) {
                    self.perform(effect);
                }
            }
        }
        panic!("{step} does not begin: {:?}", self.is(step));
    }

    fn fails(&mut self, step: &str, way: Way, class: FailureClass) {
        let attempt = self.state.step(&step.into()).attempts;
        // As the ledger says where it can be asked.
        let result = Observation::Failed(failure(class), Some(class == FailureClass::Unknown));
        self.feed(&Input::Ended { step: step.into(), attempt, way, result, jitter: 0.5 });
    }

    fn performs(&self) -> Vec<String> {
        let effects = ready(&self.state, &Goal::End, self.now).into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Perform { step, .. } => Some(step.to_string()),
                _ => None,
            })
            .collect()
    }

    fn ended(&self) -> Option<Ending> {
        match self.state.standing() {
            Standing::Ended { ending, .. } => Some(*ending),
            _ => None,
        }
    }
}

#[test]
fn a_failed_run_can_be_given_up() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.up_to("sync");
    world.fails("sync", Way::Forward, FailureClass::Refused);
    assert!(matches!(stop(&world.state, &Goal::End, &[]), Some(Stop::StepFailed { .. })));
    world.ask("ana", abort(true)).unwrap();
    assert_eq!(stop(&world.state, &Goal::End, &[]), None, "what failed keeps it from ending");
    world.go();
    assert_eq!(world.ended(), Some(Ending::Aborted));
}

#[test]
fn a_run_that_only_clears_up_takes_no_other_direction() {
    let drop = |steps: &mut Vec<Step>| steps.truncate(3);
    let mut steps = leads_steps(gate(), gate());
    drop(&mut steps);
    let mut world = World::new(steps);
    for step in ["create", "sync", "copy"] {
        world.up_to(step);
        let attempt = 1;
        let (result, way) = (Observation::Done(Outcome::default()), Way::Forward);
        world.feed(&Input::Ended { step: step.into(), attempt, way, result, jitter: 0.0 });
    }
    // Everything is done, and the ledger may be gone from some target already: an undo would find nothing to undo there.
    let mut steps = leads_steps(gate(), gate());
    drop(&mut steps);
    let amend = Command::Amend { pin: Box::new(pin(steps, Policy::default())) };
    for command in [rollback(&[]), abort(true), amend] {
        assert_eq!(world.ask("ana", command).unwrap_err().kind, RefusalKind::Usage);
    }
    world.go();
    assert_eq!(world.ended(), Some(Ending::Completed));

    let mut world = World::new(leads_steps(gate(), gate()));
    world.up_to("sync");
    world.ask("ana", abort(true)).unwrap();
    assert_eq!(world.ask("ana", rollback(&[])).unwrap_err().kind, RefusalKind::Usage);
    assert!(world.ask("ana", abort(true)).unwrap().is_empty());
}

#[test]
fn a_loss_accepted_on_the_way_back_tries_the_undo_again() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.up_to("copy");
    world.ask("ana", rollback(&[])).unwrap();
    world.up_to("sync");
    world.fails("sync", Way::Back, FailureClass::Unsafe);
    assert!(world.ask("ana", rollback(&[])).unwrap().is_empty(), "nothing new was said");
    world.ask("ana", rollback(&["leads"])).unwrap();
    assert_eq!(world.state.accepted_losses(), ["leads".into()]);
    assert!(world.ask("ana", rollback(&[])).unwrap().is_empty(), "an accepted loss was forgotten");
    world.go();
    assert_eq!(world.ended(), Some(Ending::RolledBack));
}

#[test]
fn what_may_have_been_committed_when_the_connection_was_lost_counts_as_done() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.up_to("drop");
    world.fails("drop", Way::Forward, FailureClass::Unknown);
    assert!(matches!(world.is("drop"), Progress::Retrying { .. }));
    let refusal = world.ask("ana", rollback(&[])).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotPermitted);
    let mut steps = leads_steps(gate(), gate());
    steps[7].digest = Digest::of_bytes(b"drops something else");
    let amend = Command::Amend { pin: Box::new(pin(steps, Policy::default())) };
    assert_eq!(world.ask("ana", amend).unwrap_err().kind, RefusalKind::Findings);
    // That nobody can ask the ledger says nothing new, before an attempt as behind the death of whoever made one.
    let unread = |world: &mut World| {
        let ledger = Err(failure(FailureClass::Unreachable));
        world.reread("drop", ledger, Vec::new());
        assert!(matches!(world.is("drop"), Progress::Retrying { .. }), "{:?}", world.is("drop"));
        assert!(world.ask("ana", rollback(&[])).is_err());
        world.wait(10_000);
    };
    world.wait(1_000);
    unread(&mut world);
    world.ask("ana", Command::Retry).unwrap();
    world.up_to("drop");
    world.wait(10_000);
    unread(&mut world);
    // The ledger could be asked the next time: nothing is committed.
    world.up_to("drop");
    world.fails("drop", Way::Forward, FailureClass::Contention);
    world.ask("ana", rollback(&[])).unwrap();
}

/// A step outside a transaction whose process died, and whose gate is found shut: what the ledger has of it decides what it counts as.
#[test]
fn what_had_begun_when_its_gate_shut_is_not_taken_for_undone() {
    for (traced, is_begun) in [(Traced::Nothing, false), (Traced::Parts, true)] {
        let mut world = World::new(leads_steps(gate(), gate()));
        world.up_to("drop");
        world.wait(10_000);
        let gate = StepId::from("end");
        let seen = vec![(gate, Observations::default())];
        let events = world.reread("drop", Ok(traced), seen);
        let failed = events.iter().find_map(|event| match event {
            Event::StepFailed { failure, committed, .. } => Some((failure, *committed)),
            _ => None,
        });
        let (failure, committed) = failed.unwrap();
        assert_eq!(committed, Some(is_begun));
        let words = if is_begun { "in the middle of it" } else { "before it had done anything" };
        assert!(failure.message.ends_with(words), "{}", failure.message);
        let mut steps = leads_steps(super::gate(), super::gate());
        steps[7].digest = Digest::of_bytes(b"drops something else");
        let amend = Command::Amend { pin: Box::new(pin(steps, Policy::default())) };
        assert_eq!(world.ask("ana", amend).is_err(), is_begun);
        assert_eq!(world.ask("ana", rollback(&[])).is_err(), is_begun);
    }
}

/// Whatever a step outside a transaction ends with, it is the ledger that tells whether it did nothing.
#[test]
fn a_failure_of_any_class_may_have_left_something() {
    for class in [FailureClass::TimedOut, FailureClass::Contention, FailureClass::Refused] {
        for committed in [None, Some(false), Some(true)] {
            let mut world = World::new(leads_steps(gate(), gate()));
            world.up_to("drop");
            let result = Observation::Failed(failure(class), committed);
            let (step, way) = ("drop".into(), Way::Forward);
            world.feed(&Input::Ended { step, attempt: 1, way, result, jitter: 0.5 });
            let is_refused = world.ask("ana", rollback(&[])).is_err();
            assert_eq!(is_refused, committed == Some(true), "{class:?} {committed:?}");
        }
    }
    // One that died is not known to have done nothing until the ledger says so, however the next one fails.
    for (committed, is_refused) in [(None, true), (Some(false), false)] {
        let mut world = World::new(leads_steps(gate(), gate()));
        world.up_to("drop");
        world.wait(10_000);
        let seen = vec![("end".into(), world.seen.clone())];
        world.recheck("drop", seen);
        let attempt = world.state.step(&"drop".into()).attempts;
        assert_eq!(attempt, 2);
        let result = Observation::Failed(failure(FailureClass::Refused), committed);
        let (step, way) = ("drop".into(), Way::Forward);
        world.feed(&Input::Ended { step, attempt, way, result, jitter: 0.5 });
        assert_eq!(world.ask("ana", rollback(&[])).is_err(), is_refused, "{committed:?}");
    }
}

#[test]
fn nobody_tries_an_ambiguous_undo_again() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.up_to("copy");
    world.ask("ana", rollback(&[])).unwrap();
    world.up_to("create");
    let (step, way) = ("create".into(), Way::Back);
    let attempt = world.state.step(&step).attempts;
    let detail = "the catalogue says neither".into();
    let result = Observation::Ambiguous { detail, has_left: false };
    world.feed(&Input::Ended { step, attempt, way, result, jitter: 0.0 });
    assert!(world.feed(&Input::Tick).is_empty());
    assert!(matches!(stop(&world.state, &Goal::End, &[]), Some(Stop::Ambiguous { .. })));
}

#[test]
fn what_the_run_itself_changed_voids_no_approval_unless_it_is_gone() {
    // Somebody's change is taken back, or what the run had changed with it: then it is as it was when the gate was reached, and what
    // is to be done to it isn't.
    for left in ["after retire", "before"] {
        let mut steps = leads_steps(Gate { approvals: approvals("dba", 1), ..gate() }, gate());
        let drop = steps.pop().unwrap();
        steps.truncate(6);
        steps.push(Step { needs: BTreeSet::from(["retire".into()]), ..drop });
        let mut world = World::new(steps);
        world.go();
        world.approve("dee", "switch").unwrap();
        world.up_to("retire");
        world.seen = facts("after retire");
        let fingerprint = Digest::of_bytes(b"after retire");
        let moved = GateFingerprint { gate: "switch".into(), target: "app".into(), fingerprint };
        let outcome = Outcome { fingerprints: vec![moved], ..Outcome::default() };
        let (result, way) = (Observation::Done(outcome), Way::Forward);
        world.feed(&Input::Ended { step: "retire".into(), attempt: 1, way, result, jitter: 0.0 });
        world.recheck("drop", vec![("switch".into(), facts("somebody was here"))]);
        assert!(!world.has("switch"));
        world.seen = facts(left);
        if left == "before" {
            let reject =
                Command::Reject { gate: "switch".into(), reason: "who was that".to_owned() };
            world.ask("eve", reject).unwrap();
            world.go();
            assert_eq!(
                world.state.gate(&"switch".into()).unwrap().decisions.len(),
                1,
                "hers alone stands"
            );
            world.ask("eve", Command::Revoke { gate: "switch".into() }).unwrap();
            world.go();
            assert_eq!(world.ended(), None);
            world.approve("dee", "switch").unwrap();
        }
        world.go();
        assert_eq!(world.ended(), Some(Ending::Completed), "{left}: {:?}", world.missing("switch"));
    }
}

#[test]
fn evidence_of_several_verifies_is_refreshed_together() {
    let query = |text: &str| {
        Action::Verify(Verify::Query(QueryCheck {
            query: text.into(),
            expect: Some(Expect::Value(Value::Integer(0))),
            capture: None,
            within: None,
        }))
    };
    let mut steps = leads_steps(Gate { verified_within_ms: Some(10_000), ..gate() }, gate());
    steps.insert(4, step("second", Phase::Verify, &["copy"], query("SELECT 0")));
    steps[5].needs.insert("second".into());
    let soak = Soak { after: "copy".into(), for_ms: 60_000 };
    let Action::Gate(switch) = &mut steps[5].action else { panic!() };
    switch.soak = Some(soak);
    let mut world = World::new(steps);
    world.go();
    // The second one was judged later than the first, so that their evidence grows old at different times.
    world.wait(53_000);
    let mut evidence = world.outcome(&"second".into(), Way::Forward).evidence.unwrap();
    evidence.began_at = world.now;
    world.state.steps.get_mut("second").unwrap().evidence = Some(evidence);
    world.wait(7_000);
    let events = world.feed(&Input::Probed { gate: "switch".into(), seen: world.seen.clone() });
    let started = |event: &Event| matches!(event, Event::StepStarted { .. });
    assert_eq!(events.iter().filter(|event| started(event)).count(), 2, "{events:?}");
}

#[test]
fn an_approval_of_whoever_amends_the_run_afterwards_counts_no_more() {
    let groups = BTreeMap::from([("dba".into(), BTreeSet::from(["dee".into(), "ana".into()]))]);
    let policy =
        Policy { groups: Some(groups), author_may_approve: Some(false), ..Policy::default() };
    let switch = || Gate { approvals: approvals("dba", 1), soak: None, ..gate() };
    let late = || {
        let query = "SELECT 0".to_owned();
        let expect = Expect::Value(Value::Integer(1));
        let queries = vec![GateQuery { target: "app".into(), query, expect }];
        Gate { queries, ..switch() }
    };
    let mut world = World::under(leads_steps(late(), gate()), policy.clone());
    world.seen.queries = vec![Ok(Value::Integer(0))];
    world.go();
    world.approve("dee", "switch").unwrap();
    let mut steps = leads_steps(late(), gate());
    steps[7].digest = Digest::of_bytes(b"another reason");
    world.ask("dee", Command::Amend { pin: Box::new(pin(steps, policy)) }).unwrap();
    assert!(world.missing("switch").contains(&ConditionKind::Approvals("dba".into())));
}

#[test]
fn a_destructive_step_found_under_way_is_checked_again_before_it_is_performed() {
    let end = || Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::new(leads_steps(gate(), end()));
    world.go();
    world.approve("dee", "end").unwrap();
    world.up_to("drop");
    assert_eq!(world.performs(), ["drop"]);
    // Its process dies. Somebody has second thoughts before the run goes on.
    let reject = Command::Reject { gate: "end".into(), reason: "wait".to_owned() };
    world.ask("eve", reject).unwrap();
    assert!(world.performs().is_empty(), "it would run against a rejection");
    let effects = ready(&world.state, &Goal::End, world.now);
    assert!(matches!(effects.as_slice(), [Effect::Recheck { .. }]), "{effects:?}");
    world.go();
    assert!(!world.has("end") && !world.has("drop"));
    world.ask("eve", Command::Revoke { gate: "end".into() }).unwrap();
    world.go();
    assert_eq!(world.ended(), Some(Ending::Completed));

    // The same when nothing was said, but time has passed.
    let mut world = World::new(leads_steps(gate(), end()));
    world.go();
    world.approve("dee", "end").unwrap();
    world.up_to("drop");
    world.wait(2_000_000);
    assert!(world.performs().is_empty(), "the approval has expired");
    world.go();
    assert_eq!(world.missing("end"), [ConditionKind::Approvals("dba".into())]);
}

#[test]
fn what_the_ledger_has_needs_no_gate_any_more() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.up_to("retire");
    // Committed, and the connection lost: the schema is another one now.
    world.ledger.insert("retire".into());
    world.seen = facts("after retire");
    world.fails("retire", Way::Forward, FailureClass::Unknown);
    world.wait(1_000);
    world.go();
    assert!(world.has("retire"), "{:?}", world.is("retire"));
    assert_eq!(world.ended(), Some(Ending::Completed));
}

#[test]
fn a_ledger_that_can_not_be_read_is_asked_a_bounded_number_of_times() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.up_to("retire");
    world.fails("retire", Way::Forward, FailureClass::Unreachable);
    for _ in 0..10 {
        world.wait(1_000);
        let ledger = Err(failure(FailureClass::Unreachable));
        world.reread("retire", ledger, Vec::new());
    }
    assert!(matches!(world.is("retire"), Progress::Failed { .. }), "{:?}", world.is("retire"));
    assert_eq!(world.state.step(&"retire".into()).attempts, 3);
}

#[test]
fn nothing_guarded_starts_while_the_run_is_paused() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.up_to("retire");
    world.fails("retire", Way::Forward, FailureClass::Contention);
    world.wait(1_000);
    world.ask("ana", Command::Pause { reason: None }).unwrap();
    let seen = vec![("switch".into(), world.seen.clone())];
    assert!(world.recheck("retire", seen).is_empty());
}

#[test]
fn what_was_left_under_way_beyond_the_goal_takes_no_room_of_it() {
    let sql = || Action::Sql(script("SELECT 1"));
    let mut steps: Vec<Step> =
        (0..3).map(|n| step(&format!("s{n}"), Phase::Expand, &[], sql())).collect();
    steps.push(step("late", Phase::Expand, &[], sql()));
    let mut world = World::new(steps);
    assert_eq!(world.feed(&Input::Tick).len(), 2);
    let goal = Goal::Through(BTreeSet::from(["late".into()]));
    let by = actor("phasegate");
    let events = decide(&world.state, &Input::Tick, &goal, &by, world.now).unwrap();
    assert!(
        matches!(events.as_slice(), [Event::StepStarted { step, .. }] if step.as_str() == "late"),
        "{events:?}"
    );
}

#[test]
fn a_run_that_goes_back_has_not_reached_a_goal() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.up_to("sync");
    world.ask("ana", rollback(&[])).unwrap();
    let goal = Goal::Through(BTreeSet::from(["create".into()]));
    assert_eq!(stop(&world.state, &goal, &[]), None);
}

#[test]
fn a_goal_follows_the_amended_plan() {
    let mut world = World::new(leads_steps(gate(), gate()));
    let goal = Goal::Through(BTreeSet::from(["create".into(), "sync".into()]));
    let mut steps = leads_steps(gate(), gate());
    steps[0].id = "make".into();
    steps[1].needs = BTreeSet::from(["make".into()]);
    let amend = Command::Amend { pin: Box::new(pin(steps, Policy::default())) };
    world.ask("ana", amend).unwrap();
    let goal = goal.within(world.state.program());
    assert_eq!(goal, Goal::Through(BTreeSet::from(["make".into(), "sync".into()])));
}

#[test]
fn a_gate_that_needs_more_after_an_amendment_opens_anew() {
    let mut steps = leads_steps(gate(), gate());
    let mut world = World::new(steps.clone());
    world.up_to("retire");
    world.fails("retire", Way::Forward, FailureClass::Refused);
    assert!(world.has("switch"));
    let again = Step { needs: BTreeSet::from(["compare".into()]), ..steps[3].clone() };
    steps.insert(4, Step { id: "again".into(), ..again });
    steps[5].needs.insert("again".into());
    let amend = Command::Amend { pin: Box::new(pin(steps, Policy::default())) };
    world.ask("ana", amend).unwrap();
    assert!(!world.has("switch"));
    world.ask("ana", Command::Retry).unwrap();
    world.go();
    assert_eq!(world.ended(), Some(Ending::Completed));
}

/// What a process that died had under way is not taken up again going back, and is in nobody's way.
#[test]
fn what_had_begun_going_forward_takes_no_room_on_the_way_back() {
    let sql = || Action::Sql(script("CREATE TABLE one (id)"));
    let steps = (0..3).map(|n| step(&format!("s{n}"), Phase::Expand, &[], sql())).collect();
    let mut world = World::new(steps);
    // As many as the target takes at once.
    assert_eq!(world.feed(&Input::Tick).len(), 2);
    world.ask("ana", rollback(&[])).unwrap();
    world.go();
    assert_eq!(world.ended(), Some(Ending::RolledBack));
}

#[test]
fn what_a_voided_gate_has_let_go_is_undone_before_what_stands_before_the_gate() {
    let stop = |mapping: &str| Action::StopDualWrite { mapping: mapping.into() };
    let mut steps = leads_steps(gate(), gate());
    steps.truncate(5);
    steps.push(step("stop", Phase::Contract, &["switch"], stop("leads")));
    let late = step("late", Phase::Contract, &["switch"], Action::Sql(script("DELETE")));
    steps.push(Step { hazard: Hazard::Destructive("removes rows".into()), ..late });
    let mut world = World::new(steps.clone());
    world.up_to("late");
    world.fails("late", Way::Forward, FailureClass::Refused);
    assert!(world.has("stop"));
    // What the gate lets go is something else now, so that it has to open again. What it had let go has been done all the same.
    steps[6].digest = Digest::of_bytes(b"deletes something else");
    let amend = Command::Amend { pin: Box::new(pin(steps, Policy::default())) };
    world.ask("ana", amend).unwrap();
    assert_eq!(*world.is("switch"), Progress::Pending);
    world.ask("ana", rollback(&[])).unwrap();
    world.feed(&Input::Tick);
    assert_eq!(world.performs(), ["stop"]);
    assert!(world.has("copy") && world.has("compare"), "they are undone before the sync is back");
    world.go();
    assert_eq!(world.ended(), Some(Ending::RolledBack));
}

#[test]
fn what_was_read_before_an_attempt_says_nothing_of_it_however_late_it_comes() {
    let end = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::new(leads_steps(gate(), end));
    world.go();
    world.approve("dee", "end").unwrap();
    world.up_to("drop");
    // The permit is too old to begin by, and the attempt is under way all the same.
    world.wait(10_000);
    let seen = vec![("end".into(), world.seen.clone())];
    let (step, attempts, ledger) = ("drop".into(), 0, Ok(Traced::Nothing));
    let late = Input::Rechecked { step, attempts, ledger, jitter: 0.5, seen };
    assert_eq!(world.feed(&late), [], "another attempt begins beside it");
}

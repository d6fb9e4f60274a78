//! What an operator asks of a run that is under way: to go back, to give up, to go on otherwise, to stop.

use super::*;

#[test]
fn rollback_goes_in_reverse_and_not_past_the_point_of_no_return() {
    let end = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::new(leads_steps(gate(), end));
    world.go();
    world.ask("ana", Command::Rollback { accept_loss: Vec::new() }).unwrap();
    let mut undone = Vec::new();
    for _ in 0..20 {
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            if let Effect::Perform { step, way, permit, .. } = &effect {
                assert_eq!(*way, Way::Back);
                assert!(permit.is_some());
                undone.push(step.to_string());
            }
            world.perform(effect);
        }
    }
    assert_eq!(undone, ["retire", "copy", "sync", "create"]);
    let ending = Ending::RolledBack;
    assert!(matches!(world.state.standing(), Standing::Ended { ending: e, .. } if *e == ending));

    let mut world = World::new(leads_steps(gate(), gate()));
    while !matches!(world.is("drop"), Progress::Running { .. }) {
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            if !matches!(&effect, Effect::Perform { step, .. } if step.as_str() == "drop") {
                world.perform(effect);
            }
        }
    }
    let refusal = world.ask("ana", Command::Rollback { accept_loss: Vec::new() }).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotPermitted);
}

#[test]
fn abort_ends_an_untouched_run_and_is_refused_later_in_favour_of_rollback() {
    let abort =
        |leave, reason: Option<&str>| Command::Abort { leave, reason: reason.map(str::to_owned) };
    let mut world = World::new(leads_steps(gate(), gate()));
    world.ask("ana", abort(false, None)).unwrap();
    world.go();
    let aborted = Ending::Aborted;
    assert!(matches!(world.state.standing(), Standing::Ended { ending: e, .. } if *e == aborted));

    let switch = Gate { approvals: approvals("release", 1), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    world.go();
    let kind = world.ask("ana", abort(false, None)).unwrap_err().kind;
    assert_eq!(kind, RefusalKind::NotPermitted);
    assert_eq!(world.ask("ana", abort(true, None)).unwrap_err().kind, RefusalKind::Usage);
    world.ask("ana", abort(true, Some("moved on"))).unwrap();
    world.go();
    assert!(world.state.is_ended());
}

/// What committed part after part until it failed is still there, as the ledger says.
#[test]
fn a_script_that_failed_has_left_what_the_ledger_says() {
    for committed in [None, Some(false), Some(true)] {
        let mut steps = leads_steps(gate(), gate());
        let script = Script { transaction: Transaction::None, ..script("RETURN 1") };
        steps[0].action = Action::Sql(script);
        let mut world = World::new(steps);
        world.feed(&Input::Tick);
        let result = Observation::Failed(failure(FailureClass::Refused), committed);
        let (step, way) = ("create".into(), Way::Forward);
        world.feed(&Input::Ended { step, attempt: 1, way, result, jitter: 0.5 });
        let abort = world.ask("ana", Command::Abort { leave: false, reason: None });
        // Where the ledger was not asked nobody knows.
        assert_eq!(abort.is_err(), committed != Some(false), "{abort:?}");
    }
}

/// The gate is shut and the ledger, which could not be asked before, has nothing of it: that is known from then on.
#[test]
fn what_the_ledger_says_at_last_is_known_though_the_gate_is_shut() {
    let mut world = World::new(leads_steps(gate(), gate()));
    for _ in 0..20 {
        if matches!(world.is("drop"), Progress::Running { .. }) {
            break;
        }
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            if !matches!(&effect, Effect::Perform { step, .. } if step.as_str() == "drop") {
                world.perform(effect);
            }
        }
    }
    world.wait(10_000);
    let recheck = |world: &mut World, ledger| {
        let seen = vec![("end".into(), Observations::default())];
        world.reread("drop", ledger, seen)
    };
    recheck(&mut world, Err(failure(FailureClass::Unreachable)));
    let back = || Command::Rollback { accept_loss: Vec::new() };
    assert_eq!(world.ask("ana", back()).unwrap_err().kind, RefusalKind::NotPermitted);
    world.wait(10_000);
    recheck(&mut world, Ok(Traced::Nothing));
    world.ask("ana", back()).unwrap();
}

#[test]
fn amending_replaces_what_has_not_begun_and_voids_changed_gates() {
    let switch = || Gate { approvals: approvals("release", 1), ..gate() };
    let mut world = World::new(leads_steps(switch(), gate()));
    world.go();
    world.approve("ben", "switch").unwrap();
    let mut begun = leads_steps(switch(), gate());
    begun[0].digest = Digest::of_bytes(b"other statements");
    let begun = Command::Amend { pin: Box::new(pin(begun, Policy::default())) };
    assert_eq!(world.ask("ana", begun).unwrap_err().kind, RefusalKind::Findings);

    let mut later = leads_steps(switch(), gate());
    later[5].digest = Digest::of_bytes(b"another name");
    let later = Command::Amend { pin: Box::new(pin(later, Policy::default())) };
    world.ask("chloe", later).unwrap();
    assert_eq!(world.state.author().name, "chloe");
    world.go();
    let missing = world.missing("switch");
    assert_eq!(missing, [ConditionKind::Approvals("release".into())], "an approval survived");
}

#[test]
fn a_pause_starts_nothing_and_resume_goes_on() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.ask("ana", Command::Pause { reason: Some("lunch".into()) }).unwrap();
    world.go();
    assert_eq!(*world.is("create"), Progress::Pending);
    let stopped = stop(&world.state, &Goal::End, &[]);
    assert_eq!(stopped, Some(Stop::Paused { reason: Some("lunch".into()) }));
    world.ask("ana", Command::Resume).unwrap();
    world.go();
    assert!(world.state.is_ended());
}

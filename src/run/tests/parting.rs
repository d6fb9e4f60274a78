//! Sides that part, and gates that would have them compared: the journal may not know yet that they have.

use super::*;

fn stop(id: &str, needs: &[&str]) -> Step {
    step(id, Phase::Contract, needs, Action::StopDualWrite { mapping: "leads".into() })
}

/// A sync that ends behind one gate, and behind that, or beside it, another gate with what it guards.
fn stopping(late_needs: &[&str]) -> Vec<Step> {
    let mut steps = leads_steps(gate(), gate());
    steps.truncate(5);
    steps.push(stop("stop", &["switch"]));
    steps.push(step("late", Phase::Contract, late_needs, Action::Gate(gate())));
    let scrub = step("scrub", Phase::Contract, &["late"], Action::Sql(script("DELETE")));
    steps.push(Step { hazard: Hazard::Destructive("removes rows".into()), ..scrub });
    steps
}

/// The sync that there is, and whether anything is wrong with it.
fn is_synced(world: &mut World, wrong: Option<&str>) {
    let wrong = wrong.map(str::to_owned);
    let seen = SyncSeen { wrong, digest: Digest::of_bytes(b"one") };
    world.seen.syncs = BTreeMap::from([("leads".into(), Ok(seen))]);
}

fn begins(world: &mut World, step: &str) {
    for _ in 0..100 {
        if matches!(world.is(step), Progress::Running { .. }) {
            return;
        }
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            if !matches!(&effect, Effect::Perform { step: of, .. } if of.as_str() == step) {
                world.perform(effect);
            }
        }
    }
    panic!("{step} does not begin: {:?}", world.is(step));
}

fn ends(world: &mut World, step: &str, result: Observation) {
    let attempt = world.state.step(&step.into()).attempts;
    let way = Way::Forward;
    world.feed(&Input::Ended { step: step.into(), attempt, way, result, jitter: 0.5 });
}

fn attempts(world: &World, step: &str) -> u32 {
    world.state.step(&step.into()).attempts
}

#[test]
fn sides_that_have_gone_their_own_ways_are_not_compared_again() {
    let mut world = World::new(stopping(&["stop"]));
    begins(&mut world, "stop");
    // The evidence may be too old already when they part: nothing could make it anew.
    world.wait(10 * 60_000);
    ends(&mut world, "stop", Observation::Done(Outcome::default()));
    world.wait(10 * 60_000);
    world.go();
    assert_eq!(attempts(&world, "compare"), 1, "it was compared again");
    assert!(world.state.is_ended(), "{:?}", world.missing("late"));
}

#[test]
fn nor_are_those_of_which_one_is_gone() {
    let mut steps = leads_steps(gate(), gate());
    if let Action::DualWrite(dual) = &mut steps[1].action {
        dual.direction = Direction::Both;
    }
    steps.push(step("late", Phase::Contract, &["drop", "compare"], Action::Gate(gate())));
    let scrub = step("scrub", Phase::Contract, &["late"], Action::Sql(script("DELETE")));
    steps.push(Step { hazard: Hazard::Destructive("removes rows".into()), ..scrub });
    let mut world = World::new(steps);
    begins(&mut world, "drop");
    let compared = attempts(&world, "compare");
    ends(&mut world, "drop", Observation::Done(Outcome::default()));
    world.wait(10 * 60_000);
    world.go();
    assert_eq!(attempts(&world, "compare"), compared, "it was compared again");
    assert!(world.state.is_ended(), "{:?}", world.missing("late"));
}

#[test]
fn sides_do_not_part_while_they_are_compared() {
    // The gate beside it has them compared anew before the sync ends.
    let mut world = World::new(stopping(&["compare"]));
    while !world.has("compare") {
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            world.perform(effect);
        }
    }
    world.feed(&Input::Probed { gate: "switch".into(), seen: world.seen.clone() });
    assert!(world.has("switch"));
    world.wait(10 * 60_000);
    world.feed(&Input::Probed { gate: "late".into(), seen: world.seen.clone() });
    assert!(matches!(world.is("compare"), Progress::Running { .. }));
    world.feed(&Input::Tick);
    assert_eq!(*world.is("stop"), Progress::Pending, "it begins in the middle of a comparison");
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn what_may_be_parting_two_sides_ends_before_they_are_compared() {
    let mut steps = stopping(&["compare"]);
    steps[6].action = Action::Gate(Gate { approvals: approvals("dba", 1), ..gate() });
    let mut world = World::new(steps);
    begins(&mut world, "stop");
    world.wait(10 * 60_000);
    world.approve("dee", "late").unwrap();
    let probed = Input::Probed { gate: "late".into(), seen: world.seen.clone() };
    world.feed(&probed);
    assert!(world.has("compare"), "it is compared while the sync is ending");
    // Nothing of it was done, and then it is compared.
    ends(&mut world, "stop", Observation::Failed(failure(FailureClass::Unreachable), Some(false)));
    world.feed(&probed);
    assert!(matches!(world.is("compare"), Progress::Running { .. }));
}

/// A retire was committed, nobody has heard of it, and its gate has shut. That the sync is gone is what keeps the gate shut.
fn unheard(class: FailureClass) -> World {
    let mut world = World::new(leads_steps(gate(), gate()));
    is_synced(&mut world, None);
    begins(&mut world, "retire");
    ends(&mut world, "retire", Observation::Failed(failure(class), Some(true)));
    is_synced(&mut world, Some("the triggers are gone"));
    let reject = Command::Reject { gate: "switch".into(), reason: "wait".into() };
    world.ask("eve", reject).unwrap();
    world.ask("eve", Command::Revoke { gate: "switch".into() }).unwrap();
    assert!(!world.has("switch"));
    world
}

#[test]
fn what_may_have_been_done_is_asked_of_the_ledger_though_its_gate_has_shut() {
    let mut world = unheard(FailureClass::Unknown);
    world.ledger.insert("retire".into());
    world.wait(1_000);
    world.go();
    assert!(world.has("retire"), "{:?}, {:?}", world.is("retire"), world.missing("switch"));
    assert_eq!(attempts(&world, "compare"), 1, "sides that have parted were compared");
}

#[test]
fn what_was_not_done_waits_for_its_gate_again() {
    let mut world = unheard(FailureClass::Unknown);
    // As long as the ledger can't be asked it may have been done.
    world.wait(1_000);
    world.reread("retire", Err(failure(FailureClass::Unreachable)), Vec::new());
    assert!(world.state.step(&"retire".into()).may_be_done);
    world.wait(1_000);
    world.go();
    assert!(!world.state.step(&"retire".into()).may_be_done);
    assert!(!world.has("switch"), "its gate is shut for what is wrong with the sync");
    is_synced(&mut world, None);
    world.go();
    assert!(world.has("retire"));
}

#[test]
fn a_ledger_that_has_parts_is_asked_once_and_again_when_an_operator_wants_it() {
    let mut world = unheard(FailureClass::Unknown);
    world.wait(1_000);
    let asks = |world: &World| {
        let effects = ready(&world.state, &Goal::End, world.now);
        effects.iter().any(|effect| matches!(effect, Effect::Recheck { .. }))
    };
    assert!(asks(&world));
    world.reread("retire", Ok(Traced::Parts), Vec::new());
    assert!(!asks(&world), "it is asked for ever");
    assert!(world.state.step(&"retire".into()).may_be_done);
    world.ask("ana", Command::Retry).unwrap();
    assert!(asks(&world));
}

#[test]
fn what_failed_for_another_reason_may_have_been_done_too() {
    let mut world = unheard(FailureClass::Stale);
    assert!(matches!(world.is("retire"), Progress::Failed { .. }));
    world.ledger.insert("retire".into());
    world.ask("ana", Command::Retry).unwrap();
    world.go();
    assert!(world.has("retire"), "{:?}, {:?}", world.is("retire"), world.missing("switch"));
}

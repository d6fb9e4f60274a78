//! A journal that is lost, and what the ledgers make of it.

use super::*;

fn trace(step: &str, done: Traced, undone: Traced) -> StepTrace {
    StepTrace { step: step.into(), done, undone, rows: Some(7), detail: None }
}

fn done(steps: &[&str]) -> Vec<StepTrace> {
    steps.iter().map(|step| trace(step, Traced::Whole, Traced::Nothing)).collect()
}

fn begun(steps: Vec<Step>) -> World {
    let mut world = World::new(steps);
    let event = Event::AdoptionBegun { from: "pid 7 on box".into(), heads: BTreeMap::new() };
    let record = Record { version: 2, at: world.now, by: actor("ana"), event };
    apply(&mut world.state, &record).unwrap();
    world
}

fn adopted(steps: Vec<Step>, traces: Traces) -> World {
    let mut world = begun(steps);
    // Whatever the ledger has whole stays whole.
    let whole = traces.steps.iter().filter(|it| it.done == Traced::Whole);
    world.ledger = whole.map(|it| it.step.clone()).collect();
    world.wait(1_000);
    assert_eq!(world.feed(&Input::Adopted(traces)).len(), 1);
    world
}

fn of(steps: Vec<StepTrace>) -> Traces {
    Traces { steps, ..Traces::default() }
}

fn is_completed(world: &World) -> bool {
    matches!(world.state.standing(), Standing::Ended { ending: Ending::Completed, .. })
}

#[test]
fn nothing_else_is_decided_before_the_ledgers_are_read() {
    let mut world = begun(leads_steps(gate(), gate()));
    assert!(world.feed(&Input::Tick).is_empty());
    assert!(ready(&world.state, &Goal::End, world.now).is_empty());
    assert_eq!(stop(&world.state, &Goal::Through(BTreeSet::new()), &[]), None);
    let rollback = Command::Rollback { accept_loss: Vec::new() };
    assert_eq!(world.ask("ana", rollback).unwrap_err().kind, RefusalKind::Usage);
    assert_eq!(world.feed(&Input::Adopted(Traces::default())).len(), 1);
    assert!(world.feed(&Input::Adopted(of(done(&["drop"])))).is_empty(), "once is enough");
    world.go();
    assert!(is_completed(&world));
}

#[test]
fn what_a_ledger_has_was_done_and_so_was_all_that_it_needed() {
    let mut world = adopted(
        leads_steps(gate(), gate()),
        of(vec![trace("copy", Traced::Parts, Traced::Nothing)]),
    );
    assert!(world.has("create") && world.has("sync"));
    assert_eq!(*world.is("copy"), Progress::Running { way: Way::Forward });
    assert_eq!(*world.is("compare"), Progress::Pending);
    world.go();
    assert!(is_completed(&world));
}

/// Wherever a run was, it comes to its end from what its ledger has; and never past a gate that asks for people.
#[test]
fn from_every_record_of_a_run_its_traces_lead_to_the_same_end() {
    let mut whole = World::new(leads_steps(gate(), gate()));
    whole.go();
    for length in 1..=whole.records.len() {
        let state = replay(&whole.records[..length]).unwrap();
        let ledger: Vec<&str> = state
            .program()
            .steps()
            .iter()
            .filter(|step| step.action.changes_data())
            .map(|step| step.id.as_str())
            .filter(|id| state.step(&(*id).into()).progress == Progress::Succeeded)
            .collect();
        let mut world = adopted(leads_steps(gate(), gate()), of(done(&ledger)));
        world.go();
        assert!(is_completed(&world), "from record {length}, with {ledger:?}");
        let asked = Gate { approvals: approvals("dba", 1), ..gate() };
        let mut world = adopted(leads_steps(asked.clone(), asked), of(done(&ledger)));
        world.go();
        assert_eq!(world.has("drop"), ledger.contains(&"drop"), "from record {length}");
        assert_eq!(world.has("retire"), ledger.contains(&"retire"), "from record {length}");
    }
}

#[test]
fn a_retire_stands_for_the_comparison_that_it_was_let_go_by_as_old_as_that_may_have_been() {
    let steps = ["create", "sync", "copy", "retire"];
    let mut world = adopted(leads_steps(gate(), gate()), of(done(&steps)));
    let evidence = world.state.step(&"compare".into()).evidence.clone().unwrap();
    assert_eq!(evidence.verdict, Verdict::Pass);
    assert_eq!(world.now.since_ms(evidence.began_at), 60_000);
    // It grows no older.
    world.wait(10_000_000);
    world.go();
    assert!(is_completed(&world));
    // Whoever wants it younger than that can't have it.
    let end = Gate { verified_within_ms: Some(59_999), ..gate() };
    let mut world = adopted(leads_steps(gate(), end), of(done(&steps)));
    world.go();
    assert_eq!(*world.is("drop"), Progress::Pending);
    assert_eq!(world.missing("end"), [ConditionKind::VerifiedWithin]);
    // Where the sides go on being equal they are compared again.
    let both = |mut steps: Vec<Step>| {
        for step in &mut steps {
            if let Action::DualWrite(dual) = &mut step.action {
                dual.direction = Direction::Both;
            }
        }
        steps
    };
    let world = adopted(both(leads_steps(gate(), gate())), of(done(&steps)));
    assert_eq!(*world.is("compare"), Progress::Pending);
}

#[test]
fn what_was_destroyed_in_part_goes_on_behind_its_gate_and_is_not_compared_again() {
    let end = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut steps = leads_steps(gate(), end);
    // As into a graph: nothing is put aside, the old side goes in parts.
    steps.retain(|step| !["switch", "retire"].contains(&step.id.as_str()));
    for step in &mut steps {
        if step.id.as_str() == "end" {
            step.needs = BTreeSet::from(["compare".into()]);
        }
    }
    let mut traces = done(&["create", "sync", "copy"]);
    traces.push(trace("drop", Traced::Parts, Traced::Nothing));
    let mut world = adopted(steps, of(traces));
    world.go();
    assert!(matches!(world.is("drop"), Progress::Retrying { .. }), "{:?}", world.is("drop"));
    assert_eq!(world.missing("end"), [ConditionKind::Approvals("dba".into())]);
    world.wait(10_000_000);
    world.go();
    world.approve("dee", "end").unwrap();
    world.go();
    assert!(is_completed(&world));
}

#[test]
fn what_a_run_going_back_had_undone_is_not_undone_again() {
    let mut traces = done(&["create", "sync"]);
    traces.push(trace("copy", Traced::Whole, Traced::Whole));
    traces.push(trace("retire", Traced::Whole, Traced::Whole));
    let mut world = adopted(leads_steps(gate(), gate()), of(traces));
    assert_eq!(*world.state.standing(), Standing::Back);
    assert_eq!(*world.is("retire"), Progress::Undone);
    // The last of them is looked at once more.
    assert!(world.has("copy"));
    world.go();
    let ending = Ending::RolledBack;
    assert!(matches!(world.state.standing(), Standing::Ended { ending: e, .. } if *e == ending));
}

#[test]
fn a_run_that_was_ending_ends() {
    for (traces, expected) in [
        (Traces { left: Some(Ending::Completed), ..of(Vec::new()) }, Ending::Completed),
        (Traces { ends: true, ..of(done(&["create"])) }, Ending::Completed),
        (Traces { left: Some(Ending::RolledBack), ..of(Vec::new()) }, Ending::RolledBack),
        (Traces { left: Some(Ending::Aborted), ..of(Vec::new()) }, Ending::Aborted),
        (
            Traces { gives_up: true, ..of(vec![trace("copy", Traced::Whole, Traced::Whole)]) },
            Ending::Aborted,
        ),
    ] {
        let mut world = adopted(leads_steps(gate(), gate()), traces.clone());
        world.go();
        let standing = world.state.standing();
        let ended = matches!(standing, Standing::Ended { ending, .. } if *ending == expected);
        assert!(ended, "{standing:?} from {traces:?}");
    }
}

#[test]
fn what_is_to_be_compared_again_does_not_let_anything_be_undone_too_early() {
    let end = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut steps = leads_steps(gate(), end);
    for step in &mut steps {
        if let Action::DualWrite(dual) = &mut step.action {
            dual.direction = Direction::Both;
        }
    }
    let mut world = adopted(steps, of(done(&["create", "sync", "copy", "retire"])));
    assert_eq!(*world.is("compare"), Progress::Pending);
    world.ask("ana", Command::Rollback { accept_loss: Vec::new() }).unwrap();
    let begun = world.feed(&Input::Tick);
    let steps: Vec<&str> = begun
        .iter()
        .filter_map(|event| match event {
            Event::StepStarted { step, .. } => Some(step.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(steps, ["retire"]);
}

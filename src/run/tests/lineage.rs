//! Databases that are followed by others between two starts of the program: what was found there before, and what that opens.

use super::*;

const FIRST: &str = "timeline 1";
const SECOND: &str = "timeline 2";

/// What a look at the one database gives.
fn look(lineage: &str, done: &[&str]) -> Input {
    Input::Looked(Looked {
        lineages: BTreeMap::from([("app".into(), lineage.into())]),
        done: done.iter().map(|step| (*step).into()).collect(),
    })
}

/// A run that was entered on the first timeline, and gates that see it there.
fn world(switch: Gate, end: Gate) -> World {
    let mut world = World::new(leads_steps(switch, end));
    world.feed(&look(FIRST, &[]));
    is_on(&mut world, FIRST);
    world
}

fn is_on(world: &mut World, lineage: &str) {
    world.seen.lineages = BTreeMap::from([("app".into(), Ok(lineage.into()))]);
}

/// Another process goes on, from the records alone, and looks.
fn promoted(world: &mut World, done: &[&str]) -> Vec<Event> {
    world.state = replay(&world.records).unwrap();
    is_on(world, SECOND);
    world.feed(&look(SECOND, done))
}

/// What a record says of evidence that is void: what is found again, and what can't be.
fn void(events: &[Event]) -> (Vec<&str>, Vec<&str>) {
    let Some(Event::LineageSeen { void, lost, .. }) = events.first() else { panic!("{events:?}") };
    (void.iter().map(StepId::as_str).collect(), lost.iter().map(StepId::as_str).collect())
}

/// Steps up to the moment when one of them could be started, and it isn't.
fn up_to(world: &mut World, step: &str) {
    for _ in 0..50 {
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            let is_it = match &effect {
                Effect::Perform { step: of, .. } | Effect::Recheck { step: of, .. } => {
                    of.as_str() == step
                }
                _ => false,
            };
            if is_it {
                return;
            }
            world.perform(effect);
        }
    }
    panic!("{step} is never ready");
}

fn attempts(world: &World, step: &str) -> u32 {
    world.state.step(&step.into()).attempts
}

#[test]
fn a_database_is_recorded_when_it_is_first_looked_at_and_when_it_is_another() {
    let switch = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = world(switch, gate());
    assert!(world.feed(&look(FIRST, &[])).is_empty());
    world.go();
    assert!(world.feed(&look(FIRST, &[])).is_empty());
    assert!(world.has("compare"));
    let events = promoted(&mut world, &[]);
    assert_eq!(void(&events), (vec!["compare"], vec![]));
    let [Event::LineageSeen { target, before, now, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((target.as_str(), before.as_deref(), now.as_str()), ("app", Some(FIRST), SECOND));
    assert!(world.feed(&look(SECOND, &[])).is_empty());
}

#[test]
fn what_was_compared_before_a_failover_opens_nothing_until_it_is_compared_again() {
    let switch = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = world(switch, gate());
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::Approvals("dba".into())]);
    world.approve("dee", "switch").unwrap();
    promoted(&mut world, &[]);
    assert_eq!(world.state.step(&"compare".into()).evidence, None);
    let Progress::Retrying { failure, .. } = world.is("compare") else { panic!() };
    assert_eq!(
        failure.message,
        "what it found is void: app may have lost its last transactions since"
    );
    assert_eq!(world.missing("switch"), [ConditionKind::Needs, ConditionKind::VerifiedWithin]);
    let seen = world.seen.clone();
    assert!(world.feed(&Input::Probed { gate: "switch".into(), seen }).is_empty());
    up_to(&mut world, "compare");
    assert!(!world.has("switch"));
    let (step, way, attempt) = ("compare".into(), Way::Forward, attempts(&world, "compare"));
    let evidence = world.outcome(&step, way).evidence.unwrap();
    let differs = Evidence { verdict: Verdict::Fail, extra: 1, ..evidence };
    let result = Observation::Differs(differs);
    world.feed(&Input::Ended { step, attempt, way, result, jitter: 0.5 });
    world.go();
    let stopped = stop(&world.state, &Goal::End, &[]);
    assert!(matches!(stopped, Some(Stop::Differs { .. })), "{stopped:?}");
    world.ask("ana", Command::Retry).unwrap();
    world.go();
    assert!(world.state.is_ended());
    assert_eq!(attempts(&world, "compare"), 3);
}

#[test]
fn gates_that_had_opened_shut_and_their_work_waits_for_the_new_evidence() {
    // With a limit and without one: the retire itself wants evidence.
    for verified_within_ms in [Some(60_000), None] {
        let mut world = world(Gate { verified_within_ms, ..gate() }, gate());
        up_to(&mut world, "retire");
        assert!(world.has("switch"));
        let events = promoted(&mut world, &[]);
        assert_eq!(void(&events), (vec!["compare"], vec![]));
        let [_, Event::GateShut { gate, reasons }] = events.as_slice() else {
            panic!("{events:?}")
        };
        let reason =
            "what compare found is void: app may have lost its last transactions since".to_owned();
        assert_eq!((gate.as_str(), reasons), ("switch", &vec![reason]));
        let seen = vec![("switch".into(), world.seen.clone())];
        assert!(world.recheck("retire", seen).is_empty());
        world.go();
        assert_eq!(attempts(&world, "compare"), 2);
        assert!(world.state.is_ended());
    }
}

#[test]
fn a_soak_begins_again() {
    let soak = Some(Soak { after: "compare".into(), for_ms: 10_000 });
    let switch = Gate { soak, verified_within_ms: None, ..gate() };
    let mut world = world(switch, gate());
    world.go();
    world.wait(9_000);
    promoted(&mut world, &[]);
    world.go();
    assert_eq!(attempts(&world, "compare"), 2);
    world.wait(9_000);
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::Soak]);
    world.wait(1_000);
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn a_gate_that_asks_for_no_evidence_stays_open() {
    let mut steps = leads_steps(gate(), gate());
    let alter = Action::Sql(script("ALTER TABLE other ADD COLUMN x int"));
    steps[5] = step("alter", Phase::Contract, &["switch"], alter);
    steps.truncate(6);
    for (switch, shuts) in [(Gate { verified_within_ms: None, ..gate() }, 0), (gate(), 1)] {
        steps[4] = step("switch", Phase::Contract, &["compare"], Action::Gate(switch));
        let mut world = World::new(steps.clone());
        world.feed(&look(FIRST, &[]));
        up_to(&mut world, "alter");
        let events = promoted(&mut world, &[]);
        assert_eq!(events.len(), 1 + shuts, "{events:?}");
        assert_eq!(void(&events), (vec!["compare"], vec![]));
    }
}

#[test]
fn behind_what_parted_the_sides_its_ledger_vouches_for_what_was_compared() {
    let end = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = world(gate(), end);
    world.go();
    assert!(world.has("retire"));
    let events = promoted(&mut world, &[]);
    assert_eq!(void(&events), (vec![], vec![]));
    assert_eq!(events.len(), 1, "{events:?}");
    world.approve("dee", "end").unwrap();
    world.go();
    assert_eq!(attempts(&world, "compare"), 1);
    assert!(world.state.is_ended());
}

#[test]
fn of_a_step_whose_end_nobody_recorded_the_ledger_says_whether_it_vouches() {
    for has_it in [true, false] {
        let mut world = world(gate(), gate());
        up_to(&mut world, "retire");
        let seen = vec![("switch".into(), world.seen.clone())];
        let started = world.recheck("retire", seen);
        assert!(matches!(started.as_slice(), [Event::StepStarted { .. }]), "{started:?}");
        let doubted: Vec<&str> =
            in_doubt(&world.state).into_iter().map(|step| step.id.as_str()).collect();
        assert_eq!(doubted, ["retire"]);
        let done: &[&str] = if has_it { &["retire"] } else { &[] };
        world.ledger.extend(done.iter().map(|step| StepId::from(*step)));
        let events = promoted(&mut world, done);
        let expected = if has_it { vec![] } else { vec!["compare"] };
        assert_eq!(void(&events), (expected, vec![]));
        world.go();
        assert_eq!(attempts(&world, "compare"), if has_it { 1 } else { 2 });
        assert!(world.state.is_ended());
    }
}

#[test]
fn what_stands_before_the_comparisons_is_judged_once() {
    let ask = |capture: Option<&str>| {
        Action::Verify(Verify::Query(QueryCheck {
            query: "SELECT count(*) FROM leads".into(),
            expect: None,
            capture: capture.map(str::to_owned),
            within: None,
        }))
    };
    let switch = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut steps = leads_steps(switch, gate());
    steps.insert(3, step("asked", Phase::Verify, &["copy"], ask(None)));
    steps.insert(3, step("before", Phase::Verify, &["copy"], ask(Some("rows"))));
    steps.insert(0, step("free", Phase::Expand, &[], ask(None)));
    steps[7].needs.insert("asked".into());
    let mut world = World::new(steps);
    world.feed(&look(FIRST, &[]));
    world.go();
    assert!(world.has("compare") && world.has("asked"));
    let events = promoted(&mut world, &[]);
    assert_eq!(void(&events), (vec!["asked", "compare"], vec![]));
}

#[test]
fn a_journal_from_before_anybody_looked_vouches_for_nothing() {
    let switch = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    world.go();
    let events = world.feed(&look(FIRST, &[]));
    assert_eq!(void(&events), (vec!["compare"], vec![]));
}

#[test]
fn what_was_found_to_differ_stays_so() {
    let mut world = world(gate(), gate());
    up_to(&mut world, "compare");
    let (step, way) = (StepId::from("compare"), Way::Forward);
    let evidence = world.outcome(&step, way).evidence.unwrap();
    let result = Observation::Differs(Evidence { verdict: Verdict::Fail, ..evidence });
    world.feed(&Input::Ended { step, attempt: 1, way, result, jitter: 0.5 });
    let events = promoted(&mut world, &[]);
    assert_eq!(void(&events), (vec![], vec![]));
    let stopped = stop(&world.state, &Goal::End, &[]);
    assert!(matches!(stopped, Some(Stop::Differs { .. })), "{stopped:?}");
}

/// The plan between two databases: nothing is put aside, and the old side is dropped in its own.
fn crossing() -> World {
    let mut steps = leads_steps(gate(), gate());
    steps.remove(5);
    steps[5].needs.remove(&StepId::from("retire"));
    let last = Gate { approvals: approvals("dba", 1), ..gate() };
    steps.push(step("last", Phase::Contract, &["drop"], Action::Gate(last)));
    let mut pin = pin(steps, Policy::default());
    let mut parts: ProgramParts = pin.program.into();
    let graph = parts.targets[&TargetName::from("app")].clone();
    parts.targets.insert("graph".into(), graph);
    // In the ledger of the graph.
    parts.steps[2].target = Some("graph".into());
    parts.steps[3].target = Some("graph".into());
    parts.mappings.get_mut(&MappingName::from("leads")).unwrap().into.target = "graph".into();
    pin.program = Program::new(parts).unwrap();
    let mut world = World::new(leads_steps(gate(), gate()));
    let event = Event::RunStarted { run: "run".into(), pin: Box::new(pin) };
    let first = Record { version: 1, at: world.now, by: actor("ana"), event };
    world.state = begin(&first).unwrap();
    world.records = vec![first];
    world.seen.parked = Some(Ok(0));
    world.feed(&on_both(FIRST, FIRST));
    world
}

fn on_both(app: &str, graph: &str) -> Input {
    let lineages = BTreeMap::from([("app".into(), app.into()), ("graph".into(), graph.into())]);
    Input::Looked(Looked { lineages, done: BTreeSet::new() })
}

#[test]
fn what_was_compared_between_two_databases_is_void_when_either_is_another() {
    for (app, graph) in [(SECOND, FIRST), (FIRST, SECOND)] {
        let mut world = crossing();
        up_to(&mut world, "drop");
        let events = world.feed(&on_both(app, graph));
        assert_eq!(void(&events), (vec!["compare"], vec![]));
    }
}

#[test]
fn behind_the_drop_the_source_vouches_and_the_graph_can_not() {
    let mut world = crossing();
    world.go();
    assert!(world.has("drop") && !world.has("last"));
    let events = world.feed(&on_both(SECOND, FIRST));
    assert_eq!(void(&events), (vec![], vec![]));
    let events = world.feed(&on_both(SECOND, SECOND));
    assert_eq!(void(&events), (vec![], vec!["compare"]));
    world.go();
    assert_eq!(attempts(&world, "compare"), 1, "there is nothing to compare with");
    world.approve("dee", "last").unwrap();
    world.go();
    assert!(!world.has("last"));
    let report = report(&world.state, &"last".into(), &world.seen, world.now);
    let evidence = report.conditions.iter().find(|it| it.kind == ConditionKind::VerifiedWithin);
    let evidence = evidence.unwrap();
    assert_eq!(evidence.verdict, ConditionVerdict::Unknown);
    assert!(evidence.have.contains("can't be found again"), "{}", evidence.have);
}

#[test]
fn a_gate_that_sees_another_database_than_was_recorded_is_shut() {
    let switch = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = world(switch, gate());
    world.go();
    world.approve("dee", "switch").unwrap();
    let lost = failure(FailureClass::Stale);
    for (lineage, verdict) in
        [(Ok(SECOND.into()), ConditionVerdict::Fail), (Err(lost), ConditionVerdict::Unknown)]
    {
        world.seen.lineages = BTreeMap::from([("app".into(), lineage)]);
        world.go();
        let shut = report(&world.state, &"switch".into(), &world.seen, world.now);
        let wanting = shut.conditions.iter().find(|it| it.verdict != ConditionVerdict::Pass);
        let wanting = wanting.unwrap();
        assert_eq!((&wanting.kind, wanting.verdict), (&ConditionKind::Unchanged, verdict));
        assert!(!world.has("switch"));
    }
}

#[test]
fn the_way_back_needs_no_evidence_and_keeps_its_order() {
    let mut steps = leads_steps(gate(), Gate { approvals: approvals("dba", 1), ..gate() });
    // Both ways, so that the sides stay equal behind the retire.
    let Action::DualWrite(sync) = &mut steps[1].action else { panic!() };
    sync.direction = Direction::Both;
    let mut world = World::new(steps);
    world.feed(&look(FIRST, &[]));
    world.go();
    assert!(world.has("retire"));
    let events = promoted(&mut world, &[]);
    assert_eq!(void(&events), (vec!["compare"], vec![]));
    world.ask("ana", Command::Rollback { accept_loss: Vec::new() }).unwrap();
    let begun = world.feed(&Input::Tick);
    let begins = |event: &Event| match event {
        Event::StepStarted { step, .. } => Some(step.to_string()),
        _ => None,
    };
    let begun: Vec<String> = begun.iter().filter_map(begins).collect();
    assert_eq!(begun, ["retire"], "and the copy before it is still there");
    assert_eq!(void(&world.feed(&look("timeline 3", &[]))), (vec![], vec![]));
    world.go();
    let ended = world.state.standing();
    assert!(matches!(ended, Standing::Ended { ending: Ending::RolledBack, .. }), "{ended:?}");
}

//! Gates whose conditions are windows, counters and policy, and what shuts them between opening and the work.

use super::*;

fn window() -> Window {
    Window {
        days: BTreeSet::from([Weekday::Fri]),
        hours: vec![Hours { from: 1_320, to: 360 }],
        zone: "Europe/Berlin".into(),
        freezes: Vec::new(),
    }
}

fn seen_window(shut: Option<&str>, changes_at: Timestamp) -> WindowSeen {
    WindowSeen { shut: shut.map(str::to_owned), changes: Some((changes_at, "then".to_owned())) }
}

/// The run up to where a gate has opened and its step has not begun.
fn open_and_wait(world: &mut World, gate: &str) {
    world.feed(&Input::Tick);
    for _ in 0..50 {
        for effect in ready(&world.state, &Goal::End, world.now) {
            if !matches!(effect, Effect::Recheck { .. }) {
                world.perform(effect);
            }
        }
        world.feed(&Input::Tick);
        if world.has(gate) {
            return;
        }
    }
    panic!("gate {gate} does not open: {:?}", world.missing(gate));
}

#[test]
fn a_window_that_closes_between_opening_and_start_shuts_the_gate() {
    let switch = Gate { window: Some(window()), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    let closes = world.now.plus_ms(1_000);
    world.seen.window = Some(Ok(seen_window(None, closes)));
    open_and_wait(&mut world, "switch");
    world.wait(1_000);
    // What was read when it was open counts no longer, even before anybody looks again.
    let seen = vec![("switch".into(), world.seen.clone())];
    let events = world.recheck("retire", seen);
    assert!(matches!(events.as_slice(), [Event::GateShut { .. }]), "{events:?}");
    let opens = world.now.plus_ms(3_600_000);
    world.seen.window = Some(Ok(seen_window(Some("these are not its hours"), opens)));
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::Window]);
    assert_eq!(*world.is("retire"), Progress::Pending);
    let shut = report(&world.state, &"switch".into(), &world.seen, world.now);
    let condition = shut.conditions.iter().find(|one| one.kind == ConditionKind::Window).unwrap();
    assert_eq!(condition.holds_at, Some(opens));
    world.wait(3_600_000);
    world.seen.window = Some(Ok(seen_window(None, world.now.plus_ms(1_000))));
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn a_window_that_nobody_could_look_at_opens_nothing() {
    let switch = Gate { window: Some(window()), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::Window]);
    world.seen.window = Some(Err("there is no time zone Europe/Berlin".into()));
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::Window]);
    let verdict = report(&world.state, &"switch".into(), &world.seen, world.now);
    assert!(verdict.conditions.iter().any(|one| one.verdict == ConditionVerdict::Unknown));
}

#[test]
fn evidence_that_grows_stale_between_opening_and_start_is_made_anew_first() {
    let mut world = World::new(leads_steps(gate(), gate()));
    open_and_wait(&mut world, "switch");
    world.wait(60_001);
    let seen = vec![("switch".into(), world.seen.clone())];
    let events = world.recheck("retire", seen);
    assert!(matches!(events.as_slice(), [Event::GateShut { .. }]), "{events:?}");
    world.go();
    assert_eq!(world.state.step(&"compare".into()).attempts, 2);
    assert!(world.state.is_ended());
}

/// What is seen of the sync from now on.
fn is_synced(world: &mut World, sync: &str) {
    let digest = Digest::of_bytes(sync.as_bytes());
    world.seen.syncs = BTreeMap::from([("leads".into(), Ok(SyncSeen { wrong: None, digest }))]);
}

#[test]
fn what_was_compared_under_another_sync_is_compared_again() {
    // With a limit and without one: the retire itself wants evidence.
    for verified_within_ms in [Some(60_000), None] {
        let switch = Gate { verified_within_ms, ..gate() };
        let mut world = World::new(leads_steps(switch, gate()));
        is_synced(&mut world, "one");
        open_and_wait(&mut world, "switch");
        is_synced(&mut world, "off and on again");
        let seen = vec![("switch".into(), world.seen.clone())];
        let events = world.recheck("retire", seen);
        let [Event::GateShut { reasons, .. }] = events.as_slice() else { panic!("{events:?}") };
        assert!(reasons[0].contains("switched off and on again"), "{reasons:?}");
        assert_eq!(world.missing("switch"), [ConditionKind::VerifiedWithin]);
        world.go();
        assert_eq!(world.state.step(&"compare".into()).attempts, 2);
        assert!(world.state.is_ended());
    }
}

#[test]
fn evidence_counts_for_nothing_while_nobody_can_tell_what_became_of_the_sync() {
    let mut world = World::new(leads_steps(gate(), gate()));
    is_synced(&mut world, "one");
    open_and_wait(&mut world, "switch");
    world.seen.syncs = BTreeMap::from([("leads".into(), Err("the database is gone".into()))]);
    world.go();
    let missing = [ConditionKind::InStep("leads".into()), ConditionKind::VerifiedWithin];
    assert_eq!(world.missing("switch"), missing);
    assert_eq!(world.state.step(&"compare".into()).attempts, 1);
    is_synced(&mut world, "one");
    world.go();
    assert_eq!(world.state.step(&"compare".into()).attempts, 1);
    assert!(world.state.is_ended());
}

#[test]
fn a_guarded_step_is_judged_when_there_is_room_for_it() {
    let mut steps = leads_steps(gate(), gate());
    for id in ["one", "two"] {
        let sql = Action::Sql(script("ALTER TABLE other ADD COLUMN x int"));
        steps.insert(5, step(id, Phase::Contract, &["switch"], sql));
    }
    let mut world = World::new(steps);
    open_and_wait(&mut world, "switch");
    world.feed(&Input::Tick);
    let begun = |world: &World, id: &str| matches!(world.is(id), Progress::Running { .. });
    assert!(begun(&world, "one") && begun(&world, "two"), "the target takes two at once");
    let is_judged = |world: &World| {
        let ready = ready(&world.state, &Goal::End, world.now);
        ready.iter().any(|effect| matches!(effect, Effect::Recheck { .. }))
    };
    assert!(!is_judged(&world));
    let (step, way, result) = ("one".into(), Way::Forward, Observation::Done(Outcome::default()));
    world.feed(&Input::Ended { step, attempt: 1, way, result, jitter: 0.0 });
    assert!(is_judged(&world));
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn an_approval_that_is_taken_back_or_expires_before_the_start_shuts_the_gate() {
    let switch = || Gate { approvals: approvals("dba", 1), expires_ms: 10_000, ..gate() };
    for expires in [false, true] {
        let mut world = World::new(leads_steps(switch(), gate()));
        world.go();
        world.approve("dee", "switch").unwrap();
        open_and_wait(&mut world, "switch");
        if expires {
            world.wait(10_000);
        } else {
            world.ask("dee", Command::Revoke { gate: "switch".into() }).unwrap();
        }
        world.go();
        assert!(!world.has("retire"));
        assert_eq!(world.missing("switch"), [ConditionKind::Approvals("dba".into())]);
    }
}

fn unused(for_ms: u64) -> Vec<UnusedFor> {
    vec![UnusedFor { by: UsedBy::Counters("leads".into()), for_ms }]
}

fn counted(counters: &str, count: u64) -> Vec<Result<Unused, String>> {
    let usage = Usage { counters: counters.into(), count, is_in_use: false };
    vec![Ok(Unused::Counted(usage))]
}

#[test]
fn a_table_is_unused_when_its_counters_stood_still_and_a_restart_forgets_nothing() {
    let day = 86_400_000;
    let end = Gate { unused_for: unused(day), ..gate() };
    let mut world = World::new(leads_steps(gate(), end));
    world.seen.unused = counted("a", 7);
    world.go();
    assert!(world.has("retire"));
    assert_eq!(world.missing("end"), [ConditionKind::UnusedFor(0)]);
    world.wait(day - 1);
    // Another process goes on, from the records alone.
    world.state = replay(&world.records).unwrap();
    world.go();
    assert_eq!(world.missing("end"), [ConditionKind::UnusedFor(0)]);
    world.wait(1);
    world.go();
    assert!(world.state.is_ended());
    let seen = |record: &&Record| matches!(record.event, Event::UsageSeen { .. });
    assert_eq!(world.records.iter().filter(seen).count(), 1);
}

#[test]
fn a_use_and_counters_that_begin_anew_start_the_time_again() {
    let day = 86_400_000;
    for other in [counted("a", 8), counted("a", 0), counted("b", 7)] {
        let end = Gate { unused_for: unused(day), ..gate() };
        let mut world = World::new(leads_steps(gate(), end));
        world.seen.unused = counted("a", 7);
        world.go();
        world.wait(day);
        world.seen.unused = other;
        world.go();
        assert_eq!(world.missing("end"), [ConditionKind::UnusedFor(0)]);
        world.wait(day);
        world.go();
        assert!(world.state.is_ended());
    }
}

#[test]
fn a_use_between_opening_and_start_shuts_the_gate() {
    let end = Gate { unused_for: unused(1_000), ..gate() };
    let mut world = World::new(leads_steps(gate(), end));
    world.seen.unused = counted("a", 7);
    world.go();
    world.wait(1_000);
    open_and_wait(&mut world, "end");
    for used in [counted("a", 8), vec![Err("the database is gone".into())]] {
        let mut seen = world.seen.clone();
        seen.unused = used;
        let mut other = World {
            state: world.state.clone(),
            seen,
            records: world.records.clone(),
            ledger: BTreeSet::new(),
            now: world.now,
        };
        let seen = vec![("end".into(), other.seen.clone())];
        let events = other.recheck("drop", seen);
        assert!(matches!(events.as_slice(), [Event::GateShut { .. }]), "{events:?}");
    }
    let mut busy = world.seen.clone();
    busy.unused =
        vec![Ok(Unused::Counted(Usage { counters: "a".into(), count: 7, is_in_use: true }))];
    let events = world.recheck("drop", vec![("end".into(), busy)]);
    assert!(matches!(events.as_slice(), [Event::GateShut { .. }]), "{events:?}");
}

#[test]
fn a_query_says_how_long_ago_the_last_use_was() {
    let by = UsedBy::Query { target: "app".into(), query: "select 1".into() };
    let end = Gate { unused_for: vec![UnusedFor { by, for_ms: 5_000 }], ..gate() };
    let mut world = World::new(leads_steps(gate(), end));
    world.seen.unused = vec![Ok(Unused::ForMs(4_999))];
    world.go();
    assert_eq!(world.missing("end"), [ConditionKind::UnusedFor(0)]);
    world.seen.unused = vec![Err("the query gave NULL".into())];
    world.go();
    assert_eq!(world.missing("end"), [ConditionKind::UnusedFor(0)]);
    world.seen.unused = vec![Ok(Unused::ForMs(5_000))];
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn a_longest_wait_cuts_every_wait_and_lifts_every_window_and_says_so() {
    let policy = Policy { longest_wait_ms: Some(5_000), ..Policy::default() };
    let soak = Some(Soak { after: "compare".into(), for_ms: 86_400_000 });
    let switch = Gate { soak, window: Some(window()), ..gate() };
    let end = Gate { unused_for: unused(86_400_000), ..gate() };
    let mut world = World::under(leads_steps(switch, end), policy);
    world.seen.window = Some(Ok(seen_window(Some("these are not its hours"), world.now)));
    world.seen.unused = counted("a", 7);
    world.go();
    let shown = report(&world.state, &"switch".into(), &world.seen, world.now);
    let needed: Vec<&str> = shown.conditions.iter().map(|one| one.needed.as_str()).collect();
    assert!(needed.iter().any(|text| text.contains("5s after compare (cut from 1d")), "{needed:?}");
    assert!(needed.iter().any(|text| text.contains("(lifted by policy)")), "{needed:?}");
    assert_eq!(world.missing("switch"), [ConditionKind::Soak]);
    world.wait(5_000);
    world.go();
    let shown = report(&world.state, &"end".into(), &world.seen, world.now);
    let needed: Vec<&str> = shown.conditions.iter().map(|one| one.needed.as_str()).collect();
    assert!(needed.iter().any(|text| text.contains("unused for 5s (cut from 1d")), "{needed:?}");
    world.wait(5_000);
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn where_accounts_count_a_given_name_decides_nothing() {
    let policy = Policy { identity: Identity::Os, ..Policy::default() };
    let switch = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::under(leads_steps(switch, gate()), policy);
    world.go();
    for command in [
        Command::Approve { gate: "switch".into(), work: None, group: None, comment: None },
        Command::Reject { gate: "switch".into(), reason: "no".into() },
        Command::Pause { reason: None },
    ] {
        assert_eq!(world.ask("dee", command).unwrap_err().kind, RefusalKind::NotPermitted);
    }
    let known = Actor { proof: Proof::Os, ..actor("dee") };
    let approve = Input::Asked(Command::Approve {
        gate: "switch".into(),
        work: None,
        group: None,
        comment: None,
    });
    let events = decide(&world.state, &approve, &Goal::End, &known, world.now).unwrap();
    assert!(matches!(events.as_slice(), [Event::Approved { .. }]));
}

#[test]
fn a_used_gate_takes_no_more_decisions() {
    let switch = Gate { approvals: approvals("release", 1), ..gate() };
    let end = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::new(leads_steps(switch, end));
    world.go();
    world.approve("ben", "switch").unwrap();
    world.go();
    assert!(world.has("retire"));
    let refusal = world.approve("chloe", "switch").unwrap_err();
    assert!(refusal.message.contains("is used"), "{refusal}");
    let reject = Command::Reject { gate: "switch".into(), reason: "late".into() };
    assert_eq!(world.ask("chloe", reject).unwrap_err().kind, RefusalKind::Usage);
    // What was said there is not said of the next gate.
    assert_eq!(world.missing("end"), [ConditionKind::Approvals("dba".into())]);
    world.ask("ana", Command::Rollback { accept_loss: Vec::new() }).unwrap();
    assert_eq!(world.approve("dee", "end").unwrap_err().kind, RefusalKind::Usage);
}

#[test]
fn a_failed_step_uses_its_approvals_again() {
    let switch = Gate { approvals: approvals("release", 1), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    world.go();
    world.approve("ben", "switch").unwrap();
    for _ in 0..50 {
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            if !matches!(&effect, Effect::Perform { step, .. } if step.as_str() == "retire") {
                world.perform(effect);
            }
        }
    }
    let failure = Failure {
        class: FailureClass::Refused,
        code: None,
        message: "no".into(),
        detail: None,
        help: None,
        line: None,
        private: Vec::new(),
    };
    let (result, way) = (Observation::Failed(failure, None), Way::Forward);
    world.feed(&Input::Ended { step: "retire".into(), attempt: 1, way, result, jitter: 0.0 });
    assert!(matches!(world.is("retire"), Progress::Failed { .. }));
    world.ask("ana", Command::Retry).unwrap();
    world.go();
    assert!(world.state.is_ended(), "the approval did not count for the second attempt");
}

#[test]
fn a_policy_taken_over_voids_what_was_approved_under_the_other_and_no_used_gate() {
    let groups = |people: &[&str]| {
        let people = people.iter().map(|person| (*person).to_owned()).collect();
        Some(BTreeMap::from([("dba".into(), people)]))
    };
    let policy = |people: &[&str]| Policy { groups: groups(people), ..Policy::default() };
    let asks = || Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::under(leads_steps(asks(), asks()), policy(&["dee", "eli"]));
    world.go();
    world.approve("dee", "switch").unwrap();
    world.go();
    assert!(world.has("retire"));
    world.approve("dee", "end").unwrap();
    // Before anybody looks again, dee leaves the group, and more is asked of both gates.
    let tighter = || Gate { verified_within_ms: Some(30_000), ..asks() };
    let pin = pin(leads_steps(tighter(), tighter()), policy(&["eli"]));
    world.ask("ana", Command::Amend { pin: Box::new(pin) }).unwrap();
    world.go();
    assert!(world.has("switch"), "a used gate was voided");
    assert_eq!(world.missing("end"), [ConditionKind::Approvals("dba".into())]);
    assert_eq!(world.approve("dee", "end").unwrap_err().kind, RefusalKind::NotPermitted);
    world.approve("eli", "end").unwrap();
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn nobody_amends_themselves_out_of_the_only_approval() {
    let groups = Some(BTreeMap::from([("dba".into(), BTreeSet::from(["dee".to_owned()]))]));
    let policy = Policy { groups, author_may_approve: Some(false), ..Policy::default() };
    let asks = || Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::under(leads_steps(asks(), gate()), policy.clone());
    world.go();
    let mut steps = leads_steps(asks(), gate());
    steps[5].digest = Digest::of_bytes(b"another name");
    let amend = || Command::Amend { pin: Box::new(pin(steps.clone(), policy.clone())) };
    assert_eq!(world.ask("dee", amend()).unwrap_err().kind, RefusalKind::Findings);
    world.ask("ben", amend()).unwrap();
    assert_eq!(unfillable(world.state.program(), "dee").len(), 1);
    assert!(unfillable(world.state.program(), "ben").is_empty());
}

/// The run whose copy may park rows, up to where the copy is under way.
fn copying() -> World {
    let mut steps = leads_steps(gate(), gate());
    if let Action::Backfill(backfill) = &mut steps[2].action {
        backfill.park_max = Some(10);
    }
    let mut world = World::new(steps);
    while *world.is("copy") == Progress::Pending {
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            if !matches!(&effect, Effect::Perform { step, .. } if step.as_str() == "copy") {
                world.perform(effect);
            }
        }
    }
    world
}

fn copied(world: &mut World, parked: u64) {
    let result = Observation::Done(Outcome { parked: Some(parked), ..Outcome::default() });
    let (step, way) = ("copy".into(), Way::Forward);
    world.feed(&Input::Ended { step, attempt: 1, way, result, jitter: 0.5 });
}

#[test]
fn a_parked_row_shuts_every_gate_and_so_does_not_knowing() {
    let mut world = copying();
    copied(&mut world, 3);
    for seen in [None, Some(Err("no answer".to_owned())), Some(Ok(1))] {
        world.seen.parked = seen;
        world.go();
        assert_eq!(world.missing("switch"), [ConditionKind::NotParked]);
    }
    world.seen.parked = Some(Ok(0));
    open_and_wait(&mut world, "switch");
    // One that is parked between opening and start.
    let parked = Observations { parked: Some(Ok(1)), ..world.seen.clone() };
    let events = world.recheck("retire", vec![("switch".into(), parked)]);
    assert!(matches!(events.as_slice(), [Event::GateShut { .. }]), "{events:?}");
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn a_retry_tries_parked_rows_again_and_the_copy_keeps_its_traces() {
    let mut world = copying();
    copied(&mut world, 0);
    world.seen.parked = Some(Ok(1));
    world.go();
    assert!(world.ask("ana", Command::Retry).is_err(), "there was nothing to try again");
    let mut world = copying();
    copied(&mut world, 3);
    world.seen.parked = Some(Ok(3));
    world.go();
    world.ask("ana", Command::Retry).unwrap();
    assert!(matches!(world.is("copy"), Progress::Retrying { way: Way::Forward, .. }));
    assert!(world.ask("ana", Command::Abort { leave: false, reason: None }).is_err());
    world.seen.parked = Some(Ok(0));
    world.go();
    assert!(world.state.is_ended());
    assert_eq!(world.state.step(&"copy".into()).attempts, 2);
    let again = super::super::replay(&world.records).unwrap();
    assert_eq!(again.step(&"copy".into()).parked(), None);
}

fn behind(rows: u64, oldest_ms: Option<u64>) -> BTreeMap<TargetName, Result<Behind, String>> {
    let behind = Behind { rows, is_more: false, oldest_ms };
    BTreeMap::from([("app".into(), Ok(behind))])
}

#[test]
fn a_gate_waits_until_other_databases_have_what_was_captured() {
    let switch = Gate { relay_lag_max_ms: Some(5_000), relay_rows_max: Some(10), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    world.go();
    let both = [ConditionKind::RelayLag, ConditionKind::RelayRows];
    assert_eq!(world.missing("switch"), both, "nobody has looked");
    for (seen, missing, have) in [
        (behind(10, Some(5_001)), &both[..1], "10 changes wait, the oldest for 5s 1ms"),
        (behind(11, Some(5_000)), &both[1..], "11 changes wait, the oldest for 5s"),
        (behind(1, Some(90_000)), &both[..1], "1 change waits, for 1m 30s"),
        (
            BTreeMap::from([("app".into(), Err("no such table".to_owned()))]),
            &both[..],
            "what waits in app is not known: no such table",
        ),
    ] {
        world.seen.behind = Some(seen);
        world.go();
        assert_eq!(world.missing("switch"), missing);
        let shut = report(&world.state, &"switch".into(), &world.seen, world.now);
        let unmet = shut.conditions.iter().find(|one| one.kind == missing[0]).unwrap();
        assert_eq!(unmet.have, have);
        assert!(!world.has("switch"));
    }
    world.seen.behind = Some(behind(10, Some(5_000)));
    world.go();
    assert!(world.has("switch"));
}

#[test]
fn what_several_databases_capture_counts_together_and_nothing_captured_is_nothing_behind() {
    let switch = Gate { relay_lag_max_ms: Some(0), relay_rows_max: Some(9), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    let one = |rows| Ok(Behind { rows, is_more: true, oldest_ms: Some(rows) });
    world.seen.behind = Some(BTreeMap::from([("app".into(), one(4)), ("shop".into(), one(6))]));
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::RelayLag, ConditionKind::RelayRows]);
    let shut = report(&world.state, &"switch".into(), &world.seen, world.now);
    let have = "about 10 changes wait, the oldest for 6ms";
    assert_eq!(shut.conditions.iter().filter(|one| one.have == have).count(), 2);
    world.seen.behind = Some(BTreeMap::new());
    let open = report(&world.state, &"switch".into(), &world.seen, world.now);
    assert!(open.is_open());
    let have = "nothing is captured";
    assert_eq!(open.conditions.iter().filter(|one| one.have == have).count(), 2);
}

#[test]
fn changes_that_wait_between_opening_and_start_shut_the_gate() {
    let end = Gate { relay_rows_max: Some(0), ..gate() };
    let mut world = World::new(leads_steps(gate(), end));
    world.seen.behind = Some(behind(1, Some(3)));
    world.go();
    assert_eq!(world.missing("end"), [ConditionKind::RelayRows]);
    world.seen.behind = Some(behind(0, None));
    open_and_wait(&mut world, "end");
    for late in [Some(behind(1, Some(3))), None] {
        let mut other = World {
            state: world.state.clone(),
            seen: Observations { behind: late, ..world.seen.clone() },
            records: world.records.clone(),
            ledger: BTreeSet::new(),
            now: world.now,
        };
        let events = other.recheck("drop", vec![("end".into(), other.seen.clone())]);
        assert!(matches!(events.as_slice(), [Event::GateShut { .. }]), "{events:?}");
    }
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn what_destroys_without_a_mapping_takes_a_pass_too() {
    let scrubbing = || {
        let mut steps = leads_steps(gate(), gate());
        steps.truncate(5);
        let scrub = step("scrub", Phase::Contract, &["switch"], Action::Sql(script("DELETE")));
        steps.push(Step { hazard: Hazard::Destructive("removes rows".into()), ..scrub });
        steps
    };
    let partly = |world: &mut World| {
        while !matches!(world.is("compare"), Progress::Running { .. }) {
            world.feed(&Input::Tick);
            for effect in ready(&world.state, &Goal::End, world.now) {
                if !matches!(&effect, Effect::Perform { step, .. } if step.as_str() == "compare") {
                    world.perform(effect);
                }
            }
        }
        let mut outcome = world.outcome(&"compare".into(), Way::Forward);
        outcome.evidence.as_mut().unwrap().verdict = Verdict::Partial;
        let (step, attempt, way) = ("compare".into(), 1, Way::Forward);
        let result = Observation::Done(outcome);
        world.feed(&Input::Ended { step, attempt, way, result, jitter: 0.5 });
        world.go();
    };
    let mut world = World::new(scrubbing());
    partly(&mut world);
    assert_eq!(world.missing("switch"), [ConditionKind::VerifiedWithin]);
    assert!(!world.has("scrub"));
    // Unless policy says so.
    let policy = Policy { allow_partial_verify: true, ..Policy::default() };
    let mut world = World::under(scrubbing(), policy);
    partly(&mut world);
    assert!(world.state.is_ended());
}

//! The pure core, driven by hand.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

mod adopting;
mod fixture;
mod gates;
mod lineage;
mod operator;
mod parting;
mod resolving;
mod simulation;
mod turns;

use fixture::*;

#[test]
fn a_plan_without_waits_runs_to_its_end() {
    let mut world = World::new(leads_steps(gate(), gate()));
    world.go();
    let ended = matches!(world.state.standing(), Standing::Ended { ending: Ending::Completed, .. });
    assert!(ended, "{:?}", world.state.standing());
}

#[test]
fn nothing_starts_before_what_it_needs() {
    let mut world = World::new(leads_steps(gate(), gate()));
    let started: Vec<_> = world.feed(&Input::Tick);
    assert_eq!(started.len(), 1);
    assert!(matches!(&started[0], Event::StepStarted { step, .. } if step.as_str() == "create"));
    assert!(world.feed(&Input::Tick).is_empty(), "what is under way is not started again");
}

#[test]
fn at_most_as_many_steps_as_the_target_takes_run_at_once() {
    let sql = || Action::Sql(script("SELECT 1"));
    let steps = (0..5).map(|n| step(&format!("s{n}"), Phase::Expand, &[], sql())).collect();
    let mut world = World::new(steps);
    assert_eq!(world.feed(&Input::Tick).len(), 2);
}

#[test]
fn an_attempt_found_under_way_after_a_death_is_taken_up_again_with_its_permit() {
    let mut world = World::new(leads_steps(gate(), gate()));
    for _ in 0..100 {
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
    let effects = ready(&world.state, &Goal::End, world.now);
    let [Effect::Perform { step, permit: Some(permit), .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!((step.as_str(), permit.step().as_str()), ("drop", "drop"));
}

#[test]
fn what_destroys_gets_no_permit_while_its_gate_is_shut() {
    let end = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::new(leads_steps(gate(), end));
    world.go();
    assert!(world.has("retire"));
    assert_eq!(*world.is("drop"), Progress::Pending);
    assert_eq!(world.missing("end"), [ConditionKind::Approvals("dba".into())]);
    // Even if somebody fed a recheck out of turn.
    let seen = vec![("end".into(), world.seen.clone())];
    world.recheck("drop", seen);
    assert_eq!(*world.is("drop"), Progress::Pending);
    world.approve("dee", "end").unwrap();
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn approvals_come_from_distinct_people_and_bind_to_the_work() {
    let switch = Gate { approvals: approvals("release", 2), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    assert_eq!(world.approve("ana", "switch").unwrap_err().kind, RefusalKind::Usage);
    world.go();
    world.approve("ana", "switch").unwrap();
    assert_eq!(world.approve("ana", "switch").unwrap_err().kind, RefusalKind::NotPermitted);
    world.go();
    assert!(!world.has("switch"));
    // The schema changes under the gate: what ana saw is no longer what it releases.
    world.seen = facts("after");
    world.go();
    world.approve("ben", "switch").unwrap();
    world.go();
    assert!(!world.has("switch"), "an approval of other work counted");
    let stale = Command::Approve {
        gate: "switch".into(),
        work: Some("0123456789ab".into()),
        group: None,
        comment: None,
    };
    assert_eq!(world.ask("chloe", stale).unwrap_err().kind, RefusalKind::Stale);
    world.approve("ana", "switch").unwrap();
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn approvals_expire_and_rejections_stand_until_taken_back() {
    let switch = Gate { approvals: approvals("release", 1), expires_ms: 5_000, ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    world.go();
    let reject = Command::Reject { gate: "switch".into(), reason: "not today".into() };
    world.ask("ben", reject).unwrap();
    world.approve("ana", "switch").unwrap();
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::NotRejected]);
    assert_eq!(world.approve("ben", "switch").unwrap_err().kind, RefusalKind::NotPermitted);
    world.wait(5_000);
    world.ask("ben", Command::Revoke { gate: "switch".into() }).unwrap();
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::Approvals("release".into())]);
    world.approve("ana", "switch").unwrap();
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn members_only_and_authors_not_where_policy_says_so() {
    let groups = BTreeMap::from([("dba".into(), BTreeSet::from(["dee".into(), "ana".into()]))]);
    let policy =
        Policy { groups: Some(groups), author_may_approve: Some(false), ..Policy::default() };
    let switch = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::under(leads_steps(switch, gate()), policy);
    world.go();
    for refused in ["ben", "ana"] {
        let refusal = world.approve(refused, "switch").unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NotPermitted, "{refused}");
    }
    world.approve("dee", "switch").unwrap();
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn claimed_names_never_make_up_two_approvals_in_production() {
    let policy = Policy { production: true, ..Policy::default() };
    let switch = Gate { approvals: approvals("release", 2), ..gate() };
    let mut world = World::under(leads_steps(switch, gate()), policy);
    world.go();
    world.approve("ben", "switch").unwrap();
    world.approve("chloe", "switch").unwrap();
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::Approvals("release".into())]);
}

#[test]
fn stale_evidence_is_refreshed_by_the_gate_once_all_else_holds() {
    let switch = Gate { approvals: approvals("release", 1), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    world.go();
    let attempts = |world: &World| world.state.step(&"compare".into()).attempts;
    world.wait(120_000);
    world.go();
    assert_eq!(attempts(&world), 1, "it was refreshed although an approval is missing");
    world.approve("ben", "switch").unwrap();
    world.go();
    assert_eq!(attempts(&world), 2);
    assert!(world.state.is_ended());
}

#[test]
fn a_failed_refresh_shuts_the_gate_and_restarts_the_soak() {
    let soak = Soak { after: "compare".into(), for_ms: 10_000 };
    let switch = Gate { soak: Some(soak), verified_within_ms: Some(5_000), ..gate() };
    let mut world = World::new(leads_steps(switch, gate()));
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::Soak]);
    world.wait(10_000);
    world.feed(&Input::Probed { gate: "switch".into(), seen: world.seen.clone() });
    assert!(matches!(world.is("compare"), Progress::Running { .. }));
    let evidence = Evidence {
        resumed: false,
        sync: None,
        verdict: Verdict::Fail,
        began_at: world.now,
        ended_at: world.now,
        rows: 10,
        missing: 1,
        extra: 0,
        different: 0,
        samples: Vec::new(),
    };
    let result = Observation::Differs(evidence);
    let way = Way::Forward;
    world.feed(&Input::Ended { step: "compare".into(), attempt: 2, way, result, jitter: 0.0 });
    let stopped = stop(&world.state, &Goal::End, &[]);
    assert!(matches!(stopped, Some(Stop::Differs { .. })), "{stopped:?}");
    let took = world.state.step(&"compare".into()).took_ms(world.now);
    assert_eq!(took, Some(0), "the soak between two passes is no time that one of them took");
    world.ask("ana", Command::Retry).unwrap();
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::Soak], "the soak did not start again");
    world.wait(10_000);
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn evidence_stands_still_after_a_forward_retire() {
    let end = Gate { approvals: approvals("dba", 1), ..gate() };
    let mut world = World::new(leads_steps(gate(), end));
    world.go();
    world.wait(10 * 60_000);
    world.approve("dee", "end").unwrap();
    world.go();
    assert_eq!(world.state.step(&"compare".into()).attempts, 1);
    assert!(world.state.is_ended());
}

#[test]
fn counts_open_no_destructive_gate() {
    let mut steps = leads_steps(gate(), gate());
    let mapping = "leads".into();
    steps[3].action = Action::Verify(Verify::Mapping {
        mapping,
        method: Method::Counts,
        repair: false,
        workers: None,
    });
    let mut world = World::new(steps);
    world.go();
    assert_eq!(world.missing("switch"), [ConditionKind::VerifiedWithin]);
}

#[test]
fn the_run_s_own_steps_move_the_fingerprint_on_and_others_shut_the_gate() {
    let drop = leads_steps(gate(), gate()).pop().unwrap();
    let mut steps = leads_steps(gate(), gate());
    steps.truncate(6);
    steps.push(Step { needs: BTreeSet::from(["retire".into()]), ..drop });
    let mut world = World::new(steps);
    // Up to the retire, which changes the schema, as the run itself may.
    while !matches!(world.is("retire"), Progress::Running { .. }) {
        world.feed(&Input::Tick);
        for effect in ready(&world.state, &Goal::End, world.now) {
            world.perform(effect);
            if matches!(world.is("retire"), Progress::Running { .. }) {
                break;
            }
        }
    }
    world.seen = facts("after retire");
    let fingerprint = Digest::of_bytes(b"after retire");
    let moved = GateFingerprint { gate: "switch".into(), target: "app".into(), fingerprint };
    let outcome = Outcome { fingerprints: vec![moved], ..Outcome::default() };
    let (result, way) = (Observation::Done(outcome), Way::Forward);
    world.feed(&Input::Ended { step: "retire".into(), attempt: 1, way, result, jitter: 0.0 });
    // Somebody else's change shuts the gate again.
    let strange = vec![("switch".into(), facts("somebody was here"))];
    let events = world.recheck("drop", strange);
    assert!(matches!(events.as_slice(), [Event::GateShut { .. }]), "{events:?}");
    world.go();
    assert!(world.state.is_ended());
}

#[test]
fn contention_is_tried_again_and_refusal_is_not() {
    let mut world = World::new(leads_steps(gate(), gate()));
    let failure = |class| Failure {
        class,
        code: None,
        message: "no".into(),
        detail: None,
        help: None,
        line: None,
        private: Vec::new(),
    };
    for attempt in 1..=3 {
        world.feed(&Input::Tick);
        let result = Observation::Failed(failure(FailureClass::Contention), None);
        let (step, way) = ("create".into(), Way::Forward);
        world.feed(&Input::Ended { step, attempt, way, result, jitter: 1.0 });
        world.wait(1_000);
    }
    assert!(matches!(world.is("create"), Progress::Failed { .. }));
    assert!(world.feed(&Input::Tick).is_empty(), "a failed step waits for an operator");
    world.ask("ana", Command::Retry).unwrap();
    world.feed(&Input::Tick);
    let result = Observation::Failed(failure(FailureClass::Refused), None);
    let (step, way) = ("create".into(), Way::Forward);
    world.feed(&Input::Ended { step, attempt: 4, way, result, jitter: 0.0 });
    assert!(matches!(world.is("create"), Progress::Failed { .. }));
}

#[test]
fn a_program_holds_no_cycle_no_unknown_need_and_no_later_phase() {
    let sql = || Action::Sql(script("SELECT 1"));
    let parts = |steps| {
        let mut parts: ProgramParts =
            pin(leads_steps(gate(), gate()), Policy::default()).program.into();
        parts.steps = steps;
        Program::new(parts)
    };
    let circle = parts(vec![
        step("a", Phase::Expand, &["c"], sql()),
        step("b", Phase::Expand, &["a"], sql()),
        step("c", Phase::Expand, &["b"], sql()),
    ]);
    let words = circle.unwrap_err().to_string();
    assert!(
        words.contains("a -> b -> c -> a")
            || words.contains("b -> c -> a -> b")
            || words.contains("c -> a -> b -> c"),
        "{words}"
    );
    let unknown = parts(vec![step("a", Phase::Expand, &["x"], sql())]);
    assert!(matches!(unknown, Err(ProgramError::UnknownNeed { .. })));
    let later =
        parts(vec![step("a", Phase::Expand, &["b"], sql()), step("b", Phase::Verify, &[], sql())]);
    assert!(matches!(later, Err(ProgramError::LaterPhase { .. })));
}

#[test]
fn a_gate_releases_what_stands_behind_it_with_no_gate_between() {
    let program = pin(leads_steps(gate(), gate()), Policy::default()).program;
    let released = |gate: &str| -> Vec<String> {
        let gate = gate.into();
        program.released_by(&gate).map(|step| step.id.to_string()).collect()
    };
    assert_eq!(released("switch"), ["retire"]);
    assert_eq!(released("end"), ["drop"]);
}

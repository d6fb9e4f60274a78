//! Histories drawn by lot: processes that die, connections that are lost, operators that change their minds. The target of
//! this world knows what was really committed, so the promises are held against that and not against the journal alone.

use super::*;

/// A cheap deterministic generator: the constants are those of Knuth's MMIX.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

const CLASSES: [FailureClass; 10] = [
    FailureClass::Contention,
    FailureClass::Unreachable,
    FailureClass::TimedOut,
    FailureClass::Refused,
    FailureClass::NotPermitted,
    FailureClass::Full,
    FailureClass::Damaged,
    FailureClass::Stale,
    FailureClass::Unsafe,
    FailureClass::Cancelled,
];

/// One world and what has been drawn for it.
struct History {
    world: World,
    dice: Dice,
    seed: u64,
    goal: Goal,
    /// Whether somebody else has changed the objects behind the gates.
    strange: bool,
    /// How many records were checked.
    checked: usize,
    /// The state as recovery makes it: from records that were written and read again.
    recovered: State,
}

/// The plan of a history: two gates, or one before both guarded steps; approvals or none.
fn drawn_steps(dice: &mut Dice) -> Vec<Step> {
    let asked = |count: u64| match count {
        0 => gate(),
        count => Gate { approvals: approvals("release", u32::try_from(count).unwrap()), ..gate() },
    };
    let (switch, end) = (asked(dice.roll(3)), asked(dice.roll(2)));
    let mut steps = leads_steps(switch, end);
    if dice.one_in(2) {
        let drop = steps.pop().unwrap();
        steps.truncate(6);
        steps.push(Step { needs: BTreeSet::from(["retire".into(), "switch".into()]), ..drop });
    }
    steps
}

impl History {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let world = World::new(drawn_steps(&mut dice));
        let goal = match dice.roll(4) {
            0 => {
                let program = world.state.program();
                let at = usize::try_from(dice.roll(program.order().len() as u64)).unwrap();
                let step = program.order()[at].clone();
                let needed = program.needed_by(&step);
                Goal::Through(needed.into_iter().chain([step]).collect())
            }
            _ => Goal::End,
        };
        let recovered = begin(&world.records[0]).unwrap();
        Self { world, dice, seed, goal, strange: false, checked: 1, recovered }
    }

    /// What can be seen in the target: its schema follows what is committed there.
    fn look(&mut self) {
        let retired = self.world.ledger.contains("retire");
        self.world.seen = facts(&format!("retired {retired}, strange {}", self.strange));
    }

    fn feed(&mut self, input: &Input) {
        let by = actor("phasegate");
        let events = decide(&self.world.state, input, &self.goal, &by, self.world.now).unwrap();
        self.record(&by, events);
    }

    fn ask(&mut self, by: &str, command: Command) {
        let by = actor(by);
        let input = Input::Asked(command);
        if let Ok(events) = decide(&self.world.state, &input, &self.goal, &by, self.world.now) {
            self.record(&by, events);
        }
    }

    fn record(&mut self, by: &Actor, events: Vec<Event>) {
        for event in events {
            self.check_event(&event);
            let version = self.world.state.version() + 1;
            let record = Record { version, at: self.world.now, by: by.clone(), event };
            apply(&mut self.world.state, &record).unwrap();
            self.world.records.push(record);
        }
    }

    /// What must hold of a record at the moment it is made.
    fn check_event(&self, event: &Event) {
        let seed = self.seed;
        let state = &self.world.state;
        match event {
            Event::StepStarted { step, way: Way::Forward, permit, .. } => {
                let definition = state.program().step(step).unwrap();
                for need in &definition.needs {
                    let done = state.step(need).progress == Progress::Succeeded;
                    // What is in the ledger has begun before; the journal only learns of it.
                    let known = self.world.ledger.contains(step);
                    assert!(done || known, "seed {seed}: {step} begins before {need}");
                }
                if definition.hazard.needs_permit() && !self.world.ledger.contains(step) {
                    let gates = &permit.as_ref().expect("a permit").gates;
                    assert!(!gates.is_empty(), "seed {seed}: {step} begins without a gate");
                    for (gate, _) in gates {
                        let report = report(state, gate, &self.world.seen, self.world.now);
                        assert!(report.is_open(), "seed {seed}: {gate} is shut: {report:?}");
                    }
                }
            }
            Event::PlanAmended { changed, .. } => {
                for step in changed {
                    let committed = self.world.ledger.contains(step);
                    assert!(!committed, "seed {seed}: {step} is done, and was amended");
                }
            }
            Event::RunEnded { ending } => self.check_end(*ending),
            _ => {}
        }
    }

    fn check_end(&self, ending: Ending) {
        let program = self.world.state.program();
        let all: BTreeSet<StepId> = program
            .steps()
            .iter()
            .filter(|step| step.action.changes_data())
            .map(|step| step.id.clone())
            .collect();
        let seed = self.seed;
        match ending {
            Ending::Completed => assert_eq!(self.world.ledger, all, "seed {seed}"),
            Ending::RolledBack => assert!(self.world.ledger.is_empty(), "seed {seed}"),
            Ending::Aborted => {}
        }
    }

    /// The target commits an attempt, if its ledger doesn't have it.
    fn commit(&mut self, step: &StepId, way: Way, permit: Option<&Permit>) {
        let seed = self.seed;
        let state = &self.world.state;
        let program = state.program();
        let definition = program.step(step).unwrap();
        if !definition.action.changes_data() {
            return;
        }
        let is_in = self.world.ledger.contains(step);
        match way {
            Way::Forward if !is_in => {
                for need in definition.needs.iter().filter_map(|need| program.step(need)) {
                    let done = !need.action.changes_data() || self.world.ledger.contains(&need.id);
                    assert!(done, "seed {seed}: {step} is done before {}", need.id);
                }
                if definition.hazard.needs_permit() {
                    assert!(permit.is_some(), "seed {seed}: {step} destroys without a permit");
                    assert_eq!(*state.standing(), Standing::Forward, "seed {seed}");
                    for gate in program.releasing_gates(step) {
                        let open = state.step(gate).progress == Progress::Succeeded;
                        assert!(open, "seed {seed}: {step} destroys behind the shut gate {gate}");
                        let rejected = state.gate(gate).is_some_and(|known| {
                            known
                                .decisions
                                .iter()
                                .any(|it| matches!(it.verdict, DecisionVerdict::Rejected(_)))
                        });
                        assert!(!rejected, "seed {seed}: {step} destroys against a rejection");
                    }
                }
                self.world.ledger.insert(step.clone());
            }
            Way::Back if is_in => {
                assert!(definition.irreversible.is_none(), "seed {seed}: {step} came back");
                for dependent in program.dependents(step) {
                    let left = self.world.ledger.contains(dependent);
                    assert!(!left, "seed {seed}: {step} is undone before {dependent}");
                }
                self.world.ledger.remove(step);
            }
            Way::Forward | Way::Back => {}
        }
        self.look();
    }

    fn perform(&mut self, effect: Effect, calm: bool) {
        match effect {
            Effect::Perform { step, attempt, way, permit } => {
                let (commits, result) = self.draw(&step, way, calm);
                if commits {
                    self.commit(&step, way, permit.as_ref());
                }
                let Some(result) = result else { return };
                let result = match result {
                    Observation::Done(outcome) => Observation::Done(self.moved(outcome)),
                    other => other,
                };
                self.feed(&Input::Ended { step, attempt, way, result, jitter: 0.5 });
            }
            Effect::ProbeGate { gate } => {
                let seen = self.world.seen.clone();
                self.feed(&Input::Probed { gate, seen });
            }
            Effect::Recheck { step, gates } => {
                let seen = self.world.seen.clone();
                let seen = gates.into_iter().map(|gate| (gate, seen.clone())).collect();
                let ledger = match self.dice.roll(10) {
                    0 if !calm => Err(failed(FailureClass::Unreachable)),
                    _ => Ok(self.world.ledger.contains(&step)),
                };
                self.feed(&Input::Rechecked { step, ledger, jitter: 0.5, seen });
            }
            Effect::WakeAt(at) if calm => self.world.now = self.world.now.max(at),
            Effect::WakeAt(_) => {}
            Effect::Finish { .. } => self.feed(&Input::Finished),
        }
    }

    /// Whether an attempt is committed, and what the engine sees of it, if its process lives to see it.
    fn draw(&mut self, step: &StepId, way: Way, calm: bool) -> (bool, Option<Observation>) {
        let done = Observation::Done(self.world.outcome(step, way));
        if calm {
            return (true, Some(done));
        }
        let program = self.world.state.program();
        let is_verify = program.step(step).is_some_and(|it| !it.action.changes_data());
        match self.dice.roll(14) {
            0 => (false, None),
            1 => (true, None),
            2 => (self.dice.one_in(2), Some(Observation::Failed(failed(FailureClass::Unknown)))),
            3 | 4 => {
                let class = CLASSES[usize::try_from(self.dice.roll(10)).unwrap()];
                // The engine asks the ledger before it says that nothing was committed.
                let is_in = way == Way::Forward && self.world.ledger.contains(step);
                let class = if is_in { FailureClass::Unknown } else { class };
                (false, Some(Observation::Failed(failed(class))))
            }
            5 => (false, Some(Observation::Interrupted)),
            6 if self.dice.one_in(6) => (false, Some(Observation::Ambiguous("?".into()))),
            7 if is_verify && self.dice.one_in(3) => {
                let outcome = self.world.outcome(step, way);
                let found = |evidence| Evidence { verdict: Verdict::Fail, missing: 1, ..evidence };
                (false, outcome.evidence.map(found).map(Observation::Differs))
            }
            _ => (true, Some(done)),
        }
    }

    /// The fingerprints that the run's own step moves on, as the engine reads them after it.
    fn moved(&self, mut outcome: Outcome) -> Outcome {
        let Some(Ok(facts)) = self.world.seen.targets.get("app").filter(|_| !self.strange) else {
            return outcome;
        };
        for (gate, known) in &self.world.state.gates {
            if known.work.is_some() {
                let (gate, target) = (gate.clone(), "app".into());
                let fingerprint = facts.fingerprint.clone();
                outcome.fingerprints.push(GateFingerprint { gate, target, fingerprint });
            }
        }
        outcome
    }

    fn one_turn(&mut self, calm: bool) {
        self.feed(&Input::Tick);
        for effect in ready(&self.world.state, &self.goal, self.world.now) {
            self.perform(effect, calm);
        }
    }

    fn anything(&mut self) {
        let order = self.world.state.program().order();
        let any = order[usize::try_from(self.dice.roll(order.len() as u64)).unwrap()].clone();
        let gate = || StepId::from("switch");
        match self.dice.roll(23) {
            0 => self.world.wait(self.dice.roll(50_000)),
            1 => self.approve("ben", "switch"),
            2 => self.approve("chloe", "switch"),
            3 => self.approve("dee", "end"),
            4 => self.ask("ben", Command::Revoke { gate: gate() }),
            5 => self.ask("eve", Command::Reject { gate: gate(), reason: "no".into() }),
            6 => self.ask("eve", Command::Revoke { gate: gate() }),
            7 | 8 => self.ask("ana", Command::Retry),
            9 => self.ask("ana", Command::Pause { reason: None }),
            10 => self.ask("ana", Command::Resume),
            11 if self.dice.one_in(12) => {
                self.ask("ana", Command::Rollback { accept_loss: Vec::new() });
            }
            12 if self.dice.one_in(12) => {
                let reason = Some("enough".to_owned());
                let leave = self.dice.one_in(2);
                self.ask("ana", Command::Abort { leave, reason });
            }
            13 => self.amend(),
            14 => {
                self.strange = self.dice.one_in(4);
                self.look();
            }
            // Late news of attempts that may be over.
            15 => {
                let way = if self.dice.one_in(2) { Way::Forward } else { Way::Back };
                let attempt = u32::try_from(1 + self.dice.roll(3)).unwrap();
                let result = Observation::Failed(failed(FailureClass::Unknown));
                self.feed(&Input::Ended { step: any, attempt, way, result, jitter: 0.3 });
            }
            16 => self.resolve(),
            _ => self.one_turn(false),
        }
    }

    /// Somebody has looked, and says what came of what nobody could tell.
    fn resolve(&mut self) {
        let steps = self.world.state.program().order().to_vec();
        for step in steps {
            if !matches!(self.world.state.step(&step).progress, Progress::Ambiguous { .. }) {
                continue;
            }
            let is_in = self.world.ledger.contains(&step);
            let outcome = if is_in { Resolution::Applied } else { Resolution::NotApplied };
            self.ask("ana", Command::Resolve { step, outcome, reason: "looked".into() });
        }
    }

    fn approve(&mut self, by: &str, gate: &str) {
        let (gate, work) = (gate.into(), None);
        self.ask(by, Command::Approve { gate, work, group: None, comment: None });
    }

    /// Another plan: one step does something else.
    fn amend(&mut self) {
        let parts: ProgramParts = self.world.state.program().clone().into();
        let mut steps = parts.steps;
        let at = usize::try_from(self.dice.roll(steps.len() as u64)).unwrap();
        steps[at].digest = Digest::of_bytes(&self.dice.roll(1_000).to_be_bytes());
        let pin = pin(steps, Policy::default());
        self.ask("chloe", Command::Amend { pin: Box::new(pin) });
        self.goal = self.goal.within(self.world.state.program());
    }

    /// Recovery makes the same of the records as the live run did, at each version.
    fn check_recovery(&mut self) {
        for record in &self.world.records[self.checked..] {
            let text = serde_json::to_string(record).unwrap();
            let read: Record = serde_json::from_str(&text).unwrap();
            apply(&mut self.recovered, &read).unwrap();
        }
        self.checked = self.world.records.len();
        let plain = |state: &State| {
            format!(
                "{:?}",
                (
                    (state.version, &state.standing, &state.paused, &state.steps),
                    (&state.gates, &state.captures, &state.accepted_losses, &state.author),
                )
            )
        };
        assert_eq!(plain(&self.recovered), plain(&self.world.state), "seed {}", self.seed);
    }

    /// Left to itself in a world where all goes well, a run ends or there is a reason why it does not.
    fn comes_to_rest(&mut self) {
        self.strange = false;
        self.look();
        for _ in 0..200 {
            let before = (self.world.state.version(), self.world.now);
            self.one_turn(true);
            if (self.world.state.version(), self.world.now) == before {
                let shut: Vec<GateReport> = ready(&self.world.state, &self.goal, self.world.now)
                    .into_iter()
                    .map(|effect| match effect {
                        Effect::ProbeGate { gate } => {
                            report(&self.world.state, &gate, &self.world.seen, self.world.now)
                        }
                        other => panic!("seed {}: {other:?} is never done", self.seed),
                    })
                    .collect();
                let why = stop(&self.world.state, &self.goal, &shut);
                assert!(
                    why.is_some(),
                    "seed {}: it hangs: {:?}",
                    self.seed,
                    self.world.state.steps
                );
                return;
            }
        }
        panic!("seed {}: it goes on for ever", self.seed);
    }
}

fn failed(class: FailureClass) -> Failure {
    Failure {
        class,
        code: None,
        message: "no".into(),
        detail: None,
        help: None,
        line: None,
        private: Vec::new(),
    }
}

/// Any history keeps the promises on order, permits and the way back, and comes to an end or to a reason.
#[test]
fn random_histories_keep_the_promises() {
    let mut endings = BTreeMap::new();
    for seed in 0..600 {
        let mut history = History::new(seed);
        history.look();
        for _ in 0..150 {
            history.anything();
            history.check_recovery();
        }
        history.comes_to_rest();
        // Operators help wherever they can.
        for _ in 0..4 {
            history.ask("ana", Command::Resume);
            history.ask("ana", Command::Retry);
            history.resolve();
            history.ask("eve", Command::Revoke { gate: "switch".into() });
            for (by, gate) in [("ben", "switch"), ("chloe", "switch"), ("dee", "end")] {
                history.approve(by, gate);
            }
            history.goal = Goal::End;
            history.comes_to_rest();
        }
        history.check_recovery();
        let state = &history.world.state;
        let why = match (state.standing(), stop(state, &Goal::End, &[])) {
            (Standing::Ended { ending, .. }, _) => ending.as_str(),
            other => panic!("seed {seed}: nobody can bring it to an end: {other:?}"),
        };
        *endings.entry(why).or_insert(0) += 1;
    }
    for why in ["completed", "rolled back", "aborted"] {
        assert!(endings.get(why).is_some_and(|count| *count > 5), "{endings:?}");
    }
}

//! A small run whose world is a test.

use super::*;

/// A run in memory. Time moves only when a test says so.
pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Timestamp,
    pub(super) seen: Observations,
    /// The steps that are committed in the target.
    pub(super) ledger: BTreeSet<StepId>,
    pub(super) records: Vec<Record>,
}

pub(super) fn actor(name: &str) -> Actor {
    Actor { name: name.into(), proof: Proof::Claimed, host: "here".into() }
}

pub(super) fn failure(class: FailureClass) -> Failure {
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

pub(super) fn facts(fingerprint: &str) -> Observations {
    let facts = TargetFacts {
        identity: "system / database as role".into(),
        fingerprint: Digest::of_bytes(fingerprint.as_bytes()),
    };
    Observations { targets: BTreeMap::from([("app".into(), Ok(facts))]), ..Observations::default() }
}

pub(super) fn mapping() -> Mapping {
    let relation = |table: &str| Relation {
        target: "app".into(),
        table: table.into(),
        key: vec!["id".into()],
        kind: crate::run::RowKind::Table,
    };
    Mapping {
        name: "leads".into(),
        from: relation("leads"),
        into: relation("leads_v2"),
        copy: CopyColumns::All,
        columns: Vec::new(),
        reverse: Vec::new(),
        winner: Winner::New,
        filter: None,
        on_existing: OnExisting::Keep,
        on_delete: OnDelete::Delete,
        parking: crate::run::Parking::default(),
    }
}

pub(super) fn step(id: &str, phase: Phase, needs: &[&str], action: Action) -> Step {
    let hazard = match &action {
        Action::Drop { .. } => Hazard::Destructive("drops leads_old".into()),
        _ => Hazard::None,
    };
    let irreversible = matches!(action, Action::Drop { .. }).then(|| "it is gone".to_owned());
    let undo = match &action {
        Action::Sql(_) => Undo::Script(script("DROP TABLE leads_v2")),
        Action::Drop { .. } => Undo::Impossible,
        Action::Verify(_) | Action::Gate(_) => Undo::None(None),
        _ => Undo::Derived,
    };
    let meaning = serde_json::to_value(&action).unwrap();
    Step {
        id: id.into(),
        phase,
        needs: needs.iter().map(|need| (*need).into()).collect(),
        target: (!matches!(action, Action::Gate(_))).then(|| "app".into()),
        digest: Digest::of("step", &meaning),
        action,
        undo,
        irreversible,
        hazard,
        timeout_ms: None,
        lock_timeout_ms: None,
        retry: RetryPolicy { attempts: 3, first_wait_ms: 100, longest_wait_ms: 1_000 },
        line: 1,
        description: None,
    }
}

pub(super) fn script(text: &str) -> Script {
    let statement = Statement { text: text.into(), line: 1 };
    Script {
        statements: vec![statement],
        file: None,
        hazard: Hazard::None,
        tables: Vec::new(),
        creates: Vec::new(),
        language: Language::Sql,
        transaction: Transaction::Auto,
        is_opaque: false,
    }
}

pub(super) fn full_verify() -> Action {
    let mapping = "leads".into();
    Action::Verify(Verify::Mapping { mapping, method: Method::Full, repair: false, workers: None })
}

pub(super) fn gate() -> Gate {
    Gate { expires_ms: 1_000_000, verified_within_ms: Some(60_000), ..Gate::default() }
}

pub(super) fn leads_steps(switch: Gate, end: Gate) -> Vec<Step> {
    let mapping = || MappingName::from("leads");
    let shape = RetireShape::Table { old_name: "leads_old".into(), take_name: true };
    let backfill = Backfill {
        mapping: mapping(),
        chunk_rows: ChunkRows::Auto,
        chunk_time_ms: 100,
        workers: 1,
        pause_between_ms: 0,
        park_max: None,
        throttle: Vec::new(),
        max_throttled_for_ms: None,
    };
    let dual = DualWrite {
        mapping: mapping(),
        direction: Direction::Forward,
        by: crate::run::Writer::Engine,
        outbox: crate::run::OutboxLimits::default(),
    };
    vec![
        step("create", Phase::Expand, &[], Action::Sql(script("CREATE TABLE leads_v2 (id)"))),
        step("sync", Phase::DualWrite, &["create"], Action::DualWrite(dual)),
        step("copy", Phase::Backfill, &["sync"], Action::Backfill(backfill)),
        step("compare", Phase::Verify, &["copy"], full_verify()),
        step("switch", Phase::Contract, &["compare"], Action::Gate(switch)),
        step(
            "retire",
            Phase::Contract,
            &["switch"],
            Action::Retire(Retire { mapping: mapping(), shape, known: Vec::new() }),
        ),
        step("end", Phase::Contract, &["retire", "switch"], Action::Gate(end)),
        step("drop", Phase::Contract, &["end"], Action::Drop { mapping: mapping() }),
    ]
}

pub(super) fn pin(steps: Vec<Step>, policy: Policy) -> Pin {
    let target =
        Target { engine: Engine::Sqlite, url: "sqlite://app.db".into(), schema: None, parallel: 2 };
    let digest = Digest::of("plan", &serde_json::to_value(&steps).unwrap());
    let parts = ProgramParts {
        plan: "leads".into(),
        digest,
        environment: "default".into(),
        targets: BTreeMap::from([("app".into(), target)]),
        mappings: BTreeMap::from([("leads".into(), mapping())]),
        steps,
        policy,
    };
    Pin {
        path: "plan.yaml".into(),
        source: String::new(),
        meaning: serde_json::Value::Null,
        program: Program::new(parts).unwrap(),
    }
}

impl World {
    pub(super) fn new(steps: Vec<Step>) -> Self {
        Self::under(steps, Policy::default())
    }

    pub(super) fn under(steps: Vec<Step>, policy: Policy) -> Self {
        let now = Timestamp::from_unix_ms(1_000_000);
        let event = Event::RunStarted { run: "run".into(), pin: Box::new(pin(steps, policy)) };
        let first = Record { version: 1, at: now, by: actor("ana"), event };
        let state = begin(&first).unwrap();
        Self { state, now, seen: facts("before"), ledger: BTreeSet::new(), records: vec![first] }
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    pub(super) fn feed_as(&mut self, by: &str, input: &Input) -> Result<Vec<Event>, Refusal> {
        let events = decide(&self.state, input, &Goal::End, &actor(by), self.now)?;
        for event in &events {
            let version = self.state.version() + 1;
            let record = Record { version, at: self.now, by: actor(by), event: event.clone() };
            apply(&mut self.state, &record).unwrap();
            self.records.push(record);
        }
        Ok(events)
    }

    pub(super) fn feed(&mut self, input: &Input) -> Vec<Event> {
        self.feed_as("phasegate", input).unwrap()
    }

    pub(super) fn ask(&mut self, by: &str, command: Command) -> Result<Vec<Event>, Refusal> {
        self.feed_as(by, &Input::Asked(command))
    }

    pub(super) fn approve(&mut self, by: &str, gate: &str) -> Result<Vec<Event>, Refusal> {
        let gate = gate.into();
        self.ask(by, Command::Approve { gate, work: None, group: None, comment: None })
    }

    /// Performs everything that is ready until nothing but gates is, each step ending well at once.
    pub(super) fn go(&mut self) {
        for _ in 0..100 {
            let before = self.state.version();
            self.feed(&Input::Tick);
            for effect in ready(&self.state, &Goal::End, self.now) {
                self.perform(effect);
            }
            if self.state.version() == before {
                return;
            }
        }
        panic!("the run does not come to rest");
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Perform { step, attempt, way, .. } => {
                let result = Observation::Done(self.outcome(&step, way));
                self.feed(&Input::Ended { step, attempt, way, result, jitter: 0.5 });
            }
            Effect::ProbeGate { gate } => {
                let seen = self.seen.clone();
                self.feed(&Input::Probed { gate, seen });
            }
            Effect::Recheck { step, gates } => {
                let seen = gates.into_iter().map(|gate| (gate, self.seen.clone())).collect();
                self.recheck(step.as_str(), seen);
            }
            Effect::WakeAt(at) => self.now = self.now.max(at),
            Effect::Finish { .. } => {
                self.feed(&Input::Finished);
            }
        }
    }

    pub(super) fn recheck(&mut self, step: &str, seen: Vec<(StepId, Observations)>) -> Vec<Event> {
        let ledger = Ok(self.traced(&step.into()));
        self.reread(step, ledger, seen)
    }

    /// What was read just now for a guarded step.
    pub(super) fn reread(
        &mut self,
        step: &str,
        ledger: Result<Traced, Failure>,
        seen: Vec<(StepId, Observations)>,
    ) -> Vec<Event> {
        let step = StepId::from(step);
        let attempts = self.state.step(&step).attempts;
        self.feed(&Input::Rechecked { step, attempts, ledger, jitter: 0.5, seen })
    }

    pub(super) fn traced(&self, step: &StepId) -> Traced {
        if self.ledger.contains(step) { Traced::Whole } else { Traced::Nothing }
    }

    pub(super) fn outcome(&self, step: &StepId, way: Way) -> Outcome {
        let is_verify = matches!(
            self.state.program().step(step).map(|step| &step.action),
            Some(Action::Verify(_))
        );
        let evidence = (is_verify && way == Way::Forward).then(|| Evidence {
            resumed: false,
            sync: self.sync(),
            verdict: Verdict::Pass,
            began_at: self.now,
            ended_at: self.now,
            rows: 10,
            missing: 0,
            extra: 0,
            different: 0,
            samples: Vec::new(),
        });
        Outcome { evidence, ..Outcome::default() }
    }

    /// What stands for the sync of now, where there is one.
    pub(super) fn sync(&self) -> Option<Digest> {
        Some(self.seen.syncs.get("leads")?.as_ref().ok()?.digest.clone())
    }

    pub(super) fn is(&self, step: &str) -> &Progress {
        &self.state.step(&step.into()).progress
    }

    pub(super) fn has(&self, step: &str) -> bool {
        *self.is(step) == Progress::Succeeded
    }

    pub(super) fn missing(&self, gate: &str) -> Vec<ConditionKind> {
        report(&self.state, &gate.into(), &self.seen, self.now)
            .conditions
            .into_iter()
            .filter(|condition| condition.verdict != ConditionVerdict::Pass)
            .map(|condition| condition.kind)
            .collect()
    }
}

pub(super) fn approvals(group: &str, count: u32) -> Vec<Approvals> {
    vec![Approvals { group: group.into(), count }]
}

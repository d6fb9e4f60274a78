//! A small plan and its journal, for the tests of what is shown.

use std::collections::BTreeMap;

use crate::report::CommandLine;
use crate::run::{
    Action, Actor, Approvals, Backfill, ChunkRows, CopyColumns, Digest, Direction, DualWrite,
    Engine, Event, Evidence, Failure, FailureClass, Gate, Hazard, Language, Mapping, Method,
    OnDelete, OnExisting, Outcome, Phase, Pin, Policy, Program, ProgramParts, Proof, Record,
    Relation, RetryPolicy, RunId, Script, State, Statement, Step, Target, Timestamp, Transaction,
    Undo, Verdict, Verify, Way, Winner, replay,
};

pub const RUN: &str = "0199aaaa-0000-7000-8000-000000000001";

pub fn actor(name: &str) -> Actor {
    Actor { name: name.into(), proof: Proof::Claimed, host: "here".into() }
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_700_000_000_000 + seconds * 1_000)
}

pub fn line() -> CommandLine {
    CommandLine { program: "phasegate".into(), run: "leads".into() }
}

fn relation(table: &str) -> Relation {
    Relation {
        target: "app".into(),
        table: table.into(),
        key: vec!["id".into()],
        kind: crate::run::RowKind::Table,
    }
}

fn mapping() -> Mapping {
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

fn step(id: &str, phase: Phase, needs: &[&str], action: Action) -> Step {
    let is_drop = matches!(action, Action::Drop { .. });
    Step {
        id: id.into(),
        phase,
        target: (!matches!(action, Action::Gate(_))).then(|| "app".into()),
        needs: needs.iter().map(|need| (*need).into()).collect(),
        digest: Digest::of_bytes(id.as_bytes()),
        undo: match &action {
            Action::Sql(_) => Undo::Script(script("DROP TABLE leads_v2")),
            Action::Drop { .. } => Undo::Impossible,
            Action::Verify(_) | Action::Gate(_) => Undo::None(None),
            _ => Undo::Derived,
        },
        action,
        irreversible: is_drop.then(|| "every row lives on in the new table".to_owned()),
        hazard: if is_drop { Hazard::Destructive("drops leads".into()) } else { Hazard::None },
        timeout_ms: None,
        lock_timeout_ms: None,
        retry: RetryPolicy { attempts: 3, first_wait_ms: 100, longest_wait_ms: 1_000 },
        line: 1,
        description: None,
    }
}

fn script(text: &str) -> Script {
    Script {
        statements: vec![Statement { text: text.into(), line: 1 }],
        file: None,
        hazard: Hazard::None,
        tables: Vec::new(),
        creates: Vec::new(),
        language: Language::Sql,
        transaction: Transaction::Auto,
        is_opaque: false,
    }
}

pub fn pin() -> Pin {
    let mapping_name = || "leads".into();
    let backfill = Backfill {
        mapping: mapping_name(),
        chunk_rows: ChunkRows::Auto,
        chunk_time_ms: 100,
        workers: 1,
        pause_between_ms: 0,
        park_max: None,
        throttle: Vec::new(),
        max_throttled_for_ms: None,
    };
    let dual_write = DualWrite {
        mapping: mapping_name(),
        direction: Direction::Forward,
        by: crate::run::Writer::Engine,
        outbox: crate::run::OutboxLimits::default(),
    };
    let gate = Gate {
        approvals: vec![Approvals { group: "release".into(), count: 2 }],
        verified_within_ms: Some(3_600_000),
        expires_ms: 259_200_000,
        ..Gate::default()
    };
    let verify = Verify::Mapping {
        mapping: mapping_name(),
        method: Method::Full,
        repair: false,
        workers: None,
    };
    let steps = vec![
        step("create", Phase::Expand, &[], Action::Sql(script("CREATE TABLE leads_v2 (id)"))),
        step("sync", Phase::DualWrite, &["create"], Action::DualWrite(dual_write)),
        step("copy", Phase::Backfill, &["sync"], Action::Backfill(backfill)),
        step("compare", Phase::Verify, &["copy"], Action::Verify(verify)),
        step("ready", Phase::Contract, &["compare"], Action::Gate(gate)),
        step(
            "drop",
            Phase::Contract,
            &["ready", "compare"],
            Action::Drop { mapping: mapping_name() },
        ),
    ];
    let target =
        Target { engine: Engine::Sqlite, url: "sqlite://app.db".into(), schema: None, parallel: 2 };
    let parts = ProgramParts {
        plan: "leads".into(),
        digest: Digest::of_bytes(b"plan"),
        environment: "default".into(),
        targets: BTreeMap::from([("app".into(), target)]),
        mappings: BTreeMap::from([("leads".into(), mapping())]),
        steps,
        policy: Policy::default(),
    };
    Pin {
        path: "plans/leads.yaml".into(),
        source: String::new(),
        meaning: serde_json::Value::Null,
        program: Program::new(parts).unwrap(),
    }
}

pub fn started() -> Event {
    Event::RunStarted { run: RunId::new(RUN), pin: Box::new(pin()) }
}

/// A step that began and succeeded with so many rows.
pub fn done(step: &str, rows: Option<u64>) -> Vec<Event> {
    let outcome = Outcome { rows, ..Outcome::default() };
    vec![begun(step), succeeded(step, outcome)]
}

pub fn begun(step: &str) -> Event {
    Event::StepStarted { step: step.into(), attempt: 1, way: Way::Forward, permit: None }
}

pub fn succeeded(step: &str, outcome: Outcome) -> Event {
    Event::StepSucceeded { step: step.into(), attempt: 1, way: Way::Forward, outcome }
}

pub fn failed(step: &str) -> Event {
    let failure = Failure {
        class: FailureClass::Refused,
        code: Some("SQLITE_ERROR".into()),
        message: "no such table: leads_v3".into(),
        detail: None,
        help: None,
        line: Some(7),
        private: Vec::new(),
    };
    Event::StepFailed {
        step: step.into(),
        attempt: 1,
        way: Way::Forward,
        failure,
        retry_at: None,
        committed: None,
        in_part: false,
    }
}

pub fn evidence(verdict: Verdict, different: u64) -> Evidence {
    Evidence {
        resumed: false,
        sync: None,
        verdict,
        began_at: at(10),
        ended_at: at(11),
        rows: 1_000,
        missing: 0,
        extra: 0,
        different,
        samples: Vec::new(),
    }
}

/// Everything up to the gate.
pub fn up_to_gate() -> Vec<Event> {
    let compared = Outcome { evidence: Some(evidence(Verdict::Pass, 0)), ..Outcome::default() };
    let mut events = vec![started()];
    events.extend(done("create", None));
    events.extend(done("sync", None));
    events.extend(done("copy", Some(1_000)));
    events.extend([begun("compare"), succeeded("compare", compared)]);
    events
}

/// The records of events that came a second apart.
pub fn records(events: Vec<Event>) -> Vec<Record> {
    let numbered = events.into_iter().zip(1_u64..);
    numbered
        .map(|(event, version)| Record {
            version,
            at: at(i64::try_from(version).unwrap()),
            by: actor("ana"),
            event,
        })
        .collect()
}

pub fn state(events: Vec<Event>) -> State {
    replay(&records(events)).unwrap()
}

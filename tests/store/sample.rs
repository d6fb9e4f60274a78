//! Events, runs and claimants to fill stores with. Written as the JSON that they are stored as, so that a change of the
//! types shows in the fixture of the format and not here.

use phasegate::run::{Actor, EnvironmentName, Event, Proof, RunId};
use phasegate::store::{Claimant, RunHeader, SharedStore};
use serde_json::{Value, json};

/// Who does things in tests.
pub fn ana() -> Actor {
    Actor { name: "ana".into(), proof: Proof::Claimed, host: "box".into() }
}

/// A new run's id.
pub fn run_id() -> RunId {
    RunId::new(uuid::Uuid::now_v7().to_string())
}

/// What a store lists of a run.
pub async fn header(store: &SharedStore, run: &RunId) -> RunHeader {
    RunHeader {
        run: run.clone(),
        plan: "leads-v2".into(),
        environment: EnvironmentName::new("default"),
        started_at: store.now().await.unwrap(),
        ended: false,
    }
}

/// Begins a journal and gives the run.
pub async fn begin(store: &SharedStore) -> RunId {
    let run = run_id();
    let header = header(store, &run).await;
    store.create(&header, &ana(), started(&run, "a plan")).await.unwrap();
    run
}

/// Begins a journal of a run that carries rows from one database, `app`, to another, `graph`.
pub async fn begin_across(store: &SharedStore) -> RunId {
    let run = run_id();
    let mut started = serde_json::to_value(started(&run, "a plan")).unwrap();
    let program = started.pointer_mut("/pin/program").unwrap();
    program["targets"]["graph"] = program["targets"]["app"].clone();
    let mut across = program["mappings"]["leads"].clone();
    across["name"] = "across".into();
    across["into"]["target"] = "graph".into();
    program["mappings"]["across"] = across;
    let header = header(store, &run).await;
    store.create(&header, &ana(), serde_json::from_value(started).unwrap()).await.unwrap();
    run
}

/// Begins a journal of so many records.
pub async fn begin_with(store: &SharedStore, records: u64) -> RunId {
    let run = begin(store).await;
    for version in 1..records {
        store
            .append(&run, version, None, &ana(), vec![paused(&version.to_string())])
            .await
            .unwrap();
    }
    run
}

/// A process, by a number.
pub fn claimant(number: u32) -> Claimant {
    Claimant {
        id: format!("process-{number}"),
        name: format!("name-{number}"),
        host: "box".into(),
        boot: "b00t".into(),
        pid: number,
        pid_started: 1_000 + u64::from(number),
    }
}

/// An event that tells itself from others by a text.
pub fn paused(reason: &str) -> Event {
    Event::Paused { reason: Some(reason.to_owned()) }
}

/// The start of a run, with a plan of this text.
pub fn started(run: &RunId, source: &str) -> Event {
    event(json!({ "kind": "run_started", "run": run.as_str(), "pin": pin(source) }))
}

fn event(value: Value) -> Event {
    serde_json::from_value(value).unwrap()
}

fn digest(seed: char) -> String {
    seed.to_string().repeat(64)
}

/// One event of each kind, with every shape that an event's parts can have.
pub fn every_event() -> Vec<Event> {
    let outcome = json!({
        "rows": 200_000, "detail": "copied 200,000 rows", "evidence": evidence("partial"),
        "value": { "real": 0.1 }, "fingerprint": digest('a'),
        "fingerprints": [{ "gate": "ready", "target": "app", "fingerprint": digest('a') }],
    });
    let failure = json!({
        "class": "contention", "code": "5", "message": "database is locked", "detail": null,
        "help": "try again", "line": 12,
    });
    let tuning = json!({
        "chunk_rows": { "fixed": 500 }, "pause_between_ms": 10, "chunk_time_ms": 50, "workers": 4,
        "limits": { "lag": { "to": { "value": 10_000.0, "unit": "ms" } }, "old": "off", "stop": "plan" } });
    let events = vec![
        json!({ "kind": "run_started", "run": "0190aaaa-0000-7000-8000-000000000001", "pin": pin("kind: Plan\n") }),
        json!({ "kind": "plan_amended", "pin": pin("kind: Plan # amended\n"), "changed": ["copy"], "voided": ["ready"] }),
        json!({ "kind": "step_started", "step": "copy", "attempt": 1, "way": "forward", "permit": null }),
        json!({ "kind": "step_started", "step": "drop", "attempt": 2, "way": "back", "permit": { "gates": [["ready", digest('b')]] } }),
        json!({ "kind": "step_succeeded", "step": "copy", "attempt": 1, "way": "forward", "outcome": outcome }),
        json!({ "kind": "step_failed", "step": "copy", "attempt": 1, "way": "forward", "failure": failure, "retry_at": 1_700_000_001_000_i64 }),
        json!({ "kind": "step_differs", "step": "compare", "attempt": 1, "evidence": evidence("fail") }),
        json!({ "kind": "step_ambiguous", "step": "drop", "attempt": 1, "way": "forward", "detail": "connection lost" }),
        json!({ "kind": "step_resolved", "step": "drop", "attempt": 1, "way": "forward", "outcome": "not_applied", "reason": "the table is there" }),
        json!({ "kind": "retry_asked", "steps": ["copy"] }),
        json!({ "kind": "gate_reached", "gate": "ready", "work": digest('b'), "fingerprints": { "app": digest('a') } }),
        json!({ "kind": "gate_opened", "gate": "ready", "work": digest('b') }),
        json!({ "kind": "gate_shut", "gate": "ready", "reasons": ["the evidence is 2h old"] }),
        json!({ "kind": "approved", "gate": "ready", "work": digest('b'), "group": "dba", "comment": "go \u{1F680}" }),
        json!({ "kind": "rejected", "gate": "ready", "work": digest('b'), "reason": "not today" }),
        json!({ "kind": "revoked", "gate": "ready" }),
        json!({ "kind": "usage_seen", "mapping": "leads", "usage": { "counters": "7", "count": 12, "is_in_use": true } }),
        json!({ "kind": "lineage_seen", "target": "app", "before": null, "now": "timeline 1" }),
        json!({ "kind": "lineage_seen", "target": "app", "before": "timeline 1", "now": "timeline 2", "void": ["compare"], "lost": ["ask"] }),
        json!({ "kind": "paused", "reason": "lunch" }),
        json!({ "kind": "resumed" }),
        json!({ "kind": "tuned", "step": "copy", "tuning": tuning }),
        json!({ "kind": "rollback_begun", "accept_loss": ["leads"] }),
        json!({ "kind": "abort_begun", "leave": true, "reason": "no longer wanted" }),
        json!({ "kind": "run_ended", "ending": "completed" }),
        json!({ "kind": "run_ended", "ending": "rolled_back" }),
        json!({ "kind": "run_ended", "ending": "aborted" }),
        json!({ "kind": "step_failed", "step": "make", "attempt": 1, "way": "forward", "failure": failure, "retry_at": null, "committed": true }),
        json!({ "kind": "step_failed", "step": "drop", "attempt": 1, "way": "forward", "failure": failure, "retry_at": 1, "committed": true, "in_part": true }),
        json!({ "kind": "adoption_begun", "from": "pid 7 on box", "heads": { "app": { "version": 7, "hash": digest('c') } } }),
        json!({ "kind": "run_adopted", "traces": { "steps": [{ "step": "make", "done": "whole", "undone": "nothing", "rows": 3, "detail": "in 1 chunk" }], "left": null, "ends": false, "gives_up": false } }),
        json!({ "kind": "lock_released", "lock": "0190aaaa-0000-7000-8000-000000000001", "holder": "ana (pid 7 on box)", "reason": "it hangs" }),
    ];
    events.into_iter().map(event).collect()
}

/// The kind of an event. A match without a rest, so that a new kind of event does not compile until it is in
/// [`every_event`] too.
pub fn kind(event: &Event) -> &'static str {
    match event {
        Event::RunStarted { .. } => "run_started",
        Event::PlanAmended { .. } => "plan_amended",
        Event::AdoptionBegun { .. } => "adoption_begun",
        Event::RunAdopted { .. } => "run_adopted",
        Event::StepStarted { .. } => "step_started",
        Event::StepSucceeded { .. } => "step_succeeded",
        Event::StepFailed { .. } => "step_failed",
        Event::StepDiffers { .. } => "step_differs",
        Event::StepAmbiguous { .. } => "step_ambiguous",
        Event::StepResolved { .. } => "step_resolved",
        Event::RetryAsked { .. } => "retry_asked",
        Event::GateReached { .. } => "gate_reached",
        Event::GateOpened { .. } => "gate_opened",
        Event::GateShut { .. } => "gate_shut",
        Event::Approved { .. } => "approved",
        Event::Rejected { .. } => "rejected",
        Event::Revoked { .. } => "revoked",
        Event::LockReleased { .. } => "lock_released",
        Event::UsageSeen { .. } => "usage_seen",
        Event::LineageSeen { .. } => "lineage_seen",
        Event::Paused { .. } => "paused",
        Event::Resumed => "resumed",
        Event::Tuned { .. } => "tuned",
        Event::RollbackBegun { .. } => "rollback_begun",
        Event::AbortBegun { .. } => "abort_begun",
        Event::RunEnded { .. } => "run_ended",
    }
}

/// How many kinds [`kind`] tells apart.
pub const KINDS: usize = 26;

fn evidence(verdict: &str) -> Value {
    json!({
        "verdict": verdict, "began_at": 1_700_000_000_000_i64, "ended_at": 1_700_000_000_500_i64,
        "rows": 10, "missing": 1, "extra": 1, "different": 1,
        "samples": [
            { "kind": "missing", "key": "id=1", "columns": [] },
            { "kind": "extra", "key": "id=2", "columns": [] },
            { "kind": "different", "key": "id=3", "columns": ["email"] },
        ],
    })
}

fn pin(source: &str) -> Value {
    json!({
        "path": "plans/leads.yaml",
        "source": source,
        "meaning": { "kind": "Plan", "deep": [1, 2.5, null, { "x": true }] },
        "program": program(),
    })
}

/// A program with every action, and every shape of what steps hold.
fn program() -> Value {
    let script = json!({
        "statements": [{ "text": "CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY)", "line": 14 }],
        "file": "expand.sql", "hazard": "none",
    });
    let mut steps = vec![
        step(
            "calm",
            "expand",
            &[],
            &json!({ "verify": { "query": {
            "query": "SELECT 1", "expect": { "range": { "min": null, "max": 5.0 } }, "capture": "ones", "within": null } } }),
        ),
        step("make", "expand", &["calm"], &json!({ "sql": script })),
        step(
            "sync",
            "dual-write",
            &["make"],
            &json!({ "dual_write": { "mapping": "leads", "direction": "both" } }),
        ),
        step(
            "copy",
            "backfill",
            &["sync"],
            &json!({ "backfill": {
            "mapping": "leads", "chunk_rows": "auto", "chunk_time_ms": 100, "workers": 2, "pause_between_ms": 0,
            "throttle": throttles(), "max_throttled_for_ms": 3_600_000 } }),
        ),
        step(
            "compare",
            "verify",
            &["copy"],
            &json!({ "verify": { "mapping": {
            "mapping": "leads", "method": { "sample": 100 }, "repair": true } } }),
        ),
        step(
            "count",
            "verify",
            &["copy"],
            &json!({ "verify": { "query": {
            "query": "SELECT 1", "expect": { "value": { "integer": 1 } }, "capture": null,
            "within": { "of": "ones", "percent": 10.0 } } } }),
        ),
        step(
            "ready",
            "contract",
            &["compare", "count"],
            &json!({ "gate": {
            "approvals": [{ "group": "dba", "count": 1 }], "verified_within_ms": 3_600_000,
            "soak": { "after": "compare", "for_ms": 1000 },
            "queries": [{ "target": "app", "query": "SELECT 0", "expect": { "value": { "text": "0" } } }],
            "window": { "days": ["mon", "sun"], "hours": [{ "from": 1320, "to": 360 }], "zone": "Europe/Berlin",
                "freezes": [{ "from": "2026-12-20", "to": "2027-01-06", "reason": "holidays" }] },
            "unused_for": [
                { "by": { "counters": "leads" }, "for_ms": 1000 },
                { "by": { "query": { "target": "app", "query": "SELECT 0" } }, "for_ms": 1000 }],
            "expires_ms": 259_200_000, "from_policy": ["approvals"] } }),
        ),
        step(
            "retire",
            "contract",
            &["ready"],
            &json!({ "retire": {
            "mapping": "leads", "shape": { "table": { "old_name": "leads_old", "take_name": true } } } }),
        ),
        step(
            "retire-columns",
            "contract",
            &["ready"],
            &json!({ "retire": {
            "mapping": "leads", "shape": { "columns": [{ "column": "email", "old_name": "email_old", "take_name": null }] } } }),
        ),
        step(
            "stop",
            "contract",
            &["retire"],
            &json!({ "stop_dual_write": { "mapping": "leads" } }),
        ),
        step("drop", "contract", &["retire"], &json!({ "drop": { "mapping": "leads" } })),
    ];
    steps[1]["undo"] = json!({ "script": script });
    steps[2]["hazard"] = json!({ "unknown": "a function" });
    let last = steps.len() - 1;
    steps[last]["hazard"] = json!({ "destructive": "drops leads_old" });
    steps[last]["undo"] = json!("impossible");
    steps[last]["irreversible"] = json!("it is gone");
    json!({
        "plan": "leads-v2", "digest": digest('d'), "environment": "default",
        "targets": { "app": { "engine": "sqlite", "url": "${env:APP}", "schema": null, "parallel": 4 } },
        "mappings": { "leads": {
            "name": "leads",
            "from": { "target": "app", "table": "leads", "key": ["id"] },
            "into": { "target": "app", "table": "leads_v2", "key": ["id"] },
            "copy": "all", "columns": [["status", "lower(status)"]], "reverse": [["status", "upper(status)"]],
            "winner": "new", "filter": "id > 0", "on_existing": "keep", "on_delete": "delete" } },
        "steps": steps,
        "policy": { "production": true, "groups": { "dba": ["dee"] }, "author_may_approve": false,
            "longest_wait_ms": 5000, "allow_partial_verify": false, "identity": "os",
            "destructive": { "approvals": [{ "group": "dba", "count": 1 }], "verified_within_ms": 1000 },
            "allow_reviewed": true, "allow_commands": false },
    })
}

fn step(id: &str, phase: &str, needs: &[&str], action: &Value) -> Value {
    json!({
        "id": id, "phase": phase, "target": "app", "needs": needs, "action": action, "undo": "derived",
        "irreversible": null, "hazard": "none", "timeout_ms": 1000, "lock_timeout_ms": 300,
        "retry": { "attempts": 5, "first_wait_ms": 250, "longest_wait_ms": 10_000 },
        "digest": digest('e'), "line": 3, "description": "a step",
    })
}

/// One of every kind of signal.
fn throttles() -> serde_json::Value {
    let one = |name: &str, signal: serde_json::Value, bound: serde_json::Value| json!({ "name": name, "signal": signal, "bound": bound, "every_ms": 1_000 });
    let lag = json!({ "gauge": { "target": "app", "gauge": "replica_lag" } });
    json!([
        one("lag", lag, json!({ "max": 5_000.0 })),
        one(
            "free",
            json!({ "query": { "target": "app", "query": "SELECT 1" } }),
            json!({ "min": 0.25 })
        ),
        one("health", json!({ "http": { "url": "http://127.0.0.1/" } }), json!(null)),
        one("stop", json!({ "file": { "path": "/run/stop" } }), json!(null)),
        one(
            "night",
            json!({ "window": {
            "days": ["mon"], "hours": [{ "from": 1320, "to": 360 }], "zone": "Europe/Berlin" } }),
            json!(null)
        ),
    ])
}

//! What a dry run makes of what databases told it. A probe of PostgreSQL is stood in for by the values that its driver fills.

use serde_json::Value;

use super::*;

use crate::driver::probed::{
    Connections, Estimate, KeyAccess, MappingFacts, ObjectFacts, ReplicaFacts, Right, Sample, Seen,
    SessionFacts, TableFacts,
};
use crate::driver::{Finding, Purpose};
use crate::report::dry_run::DangerKind;

const PLAN: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata: { name: leads-v2 }
targets:
  app: { engine: sqlite, url: "sqlite:app.db" }
mappings:
  leads:
    from: { target: app, table: leads, key: [id] }
    into: { target: app, table: leads_v2 }
  inplace:
    from: { target: app, table: notes, key: [id] }
    into: { target: app, table: notes }
    columns: { text_v2: lower(text) }
    reverse: { text: text_v2 }
steps:
  - id: create
    phase: expand
    sql: CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY)
    undo: { sql: DROP TABLE leads_v2 }
  - id: change
    phase: expand
    sql: |
      ALTER TABLE notes ADD COLUMN text_v2 TEXT;
      UPDATE notes SET text_v2 = '';
    undo: { none: nobody reads it }
  - id: sync
    phase: dual-write
    dual_write: { mapping: leads, direction: forward }
  - id: sync-notes
    phase: dual-write
    dual_write: { mapping: inplace, direction: both }
  - id: copy
    phase: backfill
    backfill: { mapping: leads, chunk: { rows: 1000 } }
    timeout: 2h
  - id: compare
    phase: verify
    verify: { mapping: leads, method: full }
  - id: ready
    phase: contract
    gate: { verified_within: 1h }
  - id: retire
    phase: contract
    retire: { mapping: leads, old_name: leads_old, take_name: true }
  - id: drop
    phase: contract
    drop: { mapping: leads }
    irreversible: it lives on
  - id: stop
    phase: contract
    stop_dual_write: { mapping: inplace }
"#;

fn plan() -> LoadedPlan {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.yaml");
    std::fs::write(&path, PLAN).unwrap();
    let environment = EnvironmentName::new("default");
    super::super::wiring::load_plan(&path, None, &environment)
        .unwrap_or_else(|failure| panic!("{:?}", failure.found.findings))
}

fn object(kind: &str, name: &str) -> ObjectFacts {
    ObjectFacts { kind: kind.into(), name: name.into(), detail: None }
}

fn probed() -> Probed {
    Probed {
        server: "PostgreSQL 15.7".into(),
        findings: Vec::new(),
        tables: vec![TableFacts {
            table: "leads".into(),
            rows: Some(Estimate { rows: 10_000, basis: "counted".into() }),
            table_bytes: Some(4 << 20),
            index_bytes: Some(2 << 20),
            owner: Some("ann".into()),
            ..TableFacts::default()
        }],
        beside: Vec::new(),
        mappings: vec![MappingFacts {
            mapping: "leads".into(),
            key: KeyAccess {
                index: Some("leads_pkey".into()),
                plan: vec!["Index Only Scan".into()],
            },
            sample: Some(Sample { rows: 5_000, took_us: 2_000 }),
        }],
        rights: Vec::new(),
        sessions: Seen::Known(Vec::new()),
        disk_free_bytes: Seen::Known(1 << 30),
        connections: Seen::Known(Connections { used: 5, limit: 97 }),
        replicas: Seen::Known(Vec::new()),
        notes: Vec::new(),
        unseen: None,
    }
}

fn dry_run(probed: Probed) -> DryRun {
    let identity = Identity { system: "7".into(), database: "app".into(), role: "ann".into() };
    let looked = Looked { identity, probed, took_ms: 1, unseen: None };
    of_plan(&plan(), Some(&Looks::from([(TargetName::new("app"), Ok(looked))])))
}

/// The findings of a probe: code, severity, step.
fn found(probed: Probed) -> Vec<String> {
    let run = dry_run(probed);
    run.findings
        .iter()
        .map(|one| {
            let step = one.step.as_deref().unwrap_or("-");
            format!("{} {} {step}", one.diagnostic.code, one.diagnostic.severity)
        })
        .collect()
}

/// What is said under a topic.
fn says(probed: Probed, topic: &str) -> Vec<String> {
    let run = dry_run(probed);
    let look = run.targets[0].look.clone().unwrap();
    look.lines.into_iter().filter(|line| line.topic == topic).map(|line| line.text).collect()
}

#[test]
fn a_database_in_good_order_has_no_findings() {
    assert_eq!(found(probed()), [""; 0]);
    assert_eq!(says(probed(), "sessions"), ["nobody holds a lock that is in the way now"]);
    assert_eq!(says(probed(), "disk"), ["1.0 GiB free, about 6.0 MiB needed for copies"]);
    assert_eq!(says(probed(), "replicas"), ["none"]);
    assert_eq!(says(probed(), "connections"), ["5 of 97 in use"]);
    assert_eq!(says(probed(), "key of leads"), ["(id) found by leads_pkey"]);
    let copy = says(probed(), "copy of leads");
    assert!(copy[0].starts_with("copy: 10,000 rows (counted), in 10 chunks; between "), "{copy:?}");
}

#[test]
fn what_stands_in_the_way_is_found_with_its_step() {
    let mut full = probed();
    full.disk_free_bytes = Seen::Known(1 << 20);
    assert_eq!(found(full), ["R103 error -"]);

    let mut unserved = probed();
    unserved.mappings[0].key = KeyAccess { index: None, plan: vec!["Seq Scan on leads".into()] };
    assert_eq!(found(unserved), ["R102 warning copy"]);

    let mut named = probed();
    named.tables[0].dependents = (0..9).map(|at| object("view", &format!("v{at}"))).collect();
    assert_eq!(found(named.clone()), ["R104 warning retire"]);
    assert!(says(named, "on leads depend")[0].ends_with("view v7, and 1 more"));

    let mut crowded = probed();
    crowded.connections = Seen::Known(Connections { used: 95, limit: 97 });
    assert_eq!(found(crowded), ["R106 warning -"]);
}

#[test]
fn sessions_are_named_and_only_those_in_the_way_are_findings() {
    let session = |age_ms: u64, waits_for: &[&str]| SessionFacts {
        id: "4711".into(),
        role: Some("web".into()),
        application: Some("shop".into()),
        state: "idle in transaction".into(),
        age_ms,
        query: "UPDATE leads SET x = 'password=hunter2'".into(),
        locks: vec!["leads (RowExclusiveLock)".into()],
        waits_for: waits_for.iter().map(|id| (*id).to_owned()).collect(),
    };
    let with = |sessions: Vec<SessionFacts>| Probed { sessions: Seen::Known(sessions), ..probed() };
    assert_eq!(found(with(vec![session(500, &[])])), [""; 0]);
    assert_eq!(found(with(vec![session(90_000, &[]), session(500, &["12"])])).len(), 2);
    let document = Value::Object(dry_run(with(vec![session(1, &[])])).document()).to_string();
    assert!(document.contains("4711") && !document.contains("hunter2"), "{document}");
    let said = says(with(vec![session(90_000, &["12"])]), "session");
    assert_eq!(
        said,
        [
            "pid 4711 of web (shop), idle in transaction, open for 1m 30s, holds leads (RowExclusiveLock), \
          waits for pid 12: UPDATE leads SET x = 'password=*******'"
        ]
    );
}

#[test]
fn what_is_not_visible_is_said_to_be_so() {
    let blind = Probed {
        sessions: Seen::hidden("pg_monitor is needed"),
        disk_free_bytes: Seen::hidden("the server doesn't tell"),
        replicas: Seen::hidden("pg_monitor is needed"),
        ..probed()
    };
    assert_eq!(says(blind.clone(), "sessions"), ["not visible: pg_monitor is needed"]);
    assert_eq!(
        says(blind.clone(), "disk"),
        ["not visible: the server doesn't tell; about 6.0 MiB needed for copies"]
    );
    assert_eq!(found(blind.clone()), [""; 0]);
    let document = dry_run(blind).document();
    assert_eq!(document["targets"][0]["look"]["replicas"]["hidden"], "pg_monitor is needed");
}

#[test]
fn rights_replicas_and_a_drivers_findings_are_shown() {
    let mut poor = probed();
    poor.rights = vec![
        Right {
            step: "copy".into(),
            object: "leads".into(),
            needed: vec!["SELECT".into()],
            lacking: vec![],
        },
        Right {
            step: "sync".into(),
            object: "leads".into(),
            needed: vec!["owner".into()],
            lacking: vec!["owner".into()],
        },
    ];
    poor.replicas = Seen::Known(vec![ReplicaFacts {
        name: "r1".into(),
        state: "streaming".into(),
        lag_ms: Some(1_200),
    }]);
    poor.findings = vec![Finding {
        severity: crate::driver::Severity::Error,
        step: "sync".into(),
        code: "D212",
        message: "the role lacks owner on leads".into(),
        help: Some("GRANT ann TO ben".into()),
        private: Vec::new(),
    }];
    assert_eq!(says(poor.clone(), "rights"), ["sync lacks owner on leads"]);
    assert_eq!(says(poor.clone(), "replicas"), ["r1 streaming, 1.2s behind"]);
    assert_eq!(found(poor.clone()), ["D212 error sync"]);
    let run = dry_run(poor);
    assert_eq!(run.findings[0].diagnostic.help.as_deref(), Some("GRANT ann TO ben"));
    assert_eq!(run.findings[0].diagnostic.location.as_ref().unwrap().line, 26);
}

#[test]
fn a_table_is_asked_for_with_what_is_done_to_it() {
    let plan = plan();
    let survey = survey(&plan.pin.program, &TargetName::new("app"));
    let of = |table: &str| -> Vec<(&str, Purpose)> {
        let uses = survey.uses.iter().filter(|used| used.table == table);
        uses.map(|used| (used.step.as_str(), used.purpose)).collect()
    };
    assert_eq!(
        of("leads"),
        [
            ("sync", Purpose::Sync),
            ("copy", Purpose::Read),
            ("compare", Purpose::Read),
            ("retire", Purpose::Retire),
            ("drop", Purpose::Drop),
        ]
    );
    assert_eq!(
        of("notes"),
        [("change", Purpose::Named), ("sync-notes", Purpose::Sync), ("stop", Purpose::Sync)]
    );
    assert!(of("leads_v2").contains(&("sync", Purpose::Write)));
}

/// Locks are those of PostgreSQL, which the plan here is not on: the judgement sees what is shown.
#[test]
fn a_statement_is_never_shown_as_more_than_its_step_is_held_for() {
    use crate::run::Hazard;
    let (gone, opaque) = (Hazard::Destructive("it goes".into()), Hazard::Unknown("DO".into()));
    let cases = [
        (&gone, &gone, DangerKind::Destructive),
        (&opaque, &opaque, DangerKind::Unknown),
        (&opaque, &Hazard::None, DangerKind::Reviewed),
        (&gone, &Hazard::None, DangerKind::None),
        (&Hazard::None, &gone, DangerKind::None),
    ];
    for (read, script, expected) in cases {
        assert_eq!(danger::of_statement(read, script).kind, expected, "{read:?} {script:?}");
    }
    let run = of_plan(&plan(), None);
    let change = run.steps.iter().find(|step| step.id == "change").unwrap();
    assert!(change.statements.iter().all(|one| one.danger.kind == DangerKind::None), "{change:?}");
}

#[test]
fn what_the_engine_does_itself_is_said_in_words() {
    let run = of_plan(&plan(), None);
    let does = |id: &str| run.steps.iter().find(|step| step.id == id).unwrap().does.join("; ");
    assert!(does("sync").contains("every write to it reaches leads_v2"), "{}", does("sync"));
    assert!(does("sync-notes").contains("a write of the old columns fills text_v2"));
    assert!(
        does("copy").contains(
            "in chunks of 1,000 rows, meant to take 50ms, 1 worker; is given up after 2h"
        )
    );
    assert!(does("retire").contains("renames leads_v2 to leads"));
    assert!(does("drop").contains("drops leads_old"));
    assert!(does("stop").contains("off notes"));
    assert_eq!(run.point_of_no_return.as_deref(), Some("drop"));
}

#[test]
fn what_retire_locks_beside_its_tables_is_among_its_locks() {
    use crate::driver::probed::{Beside, LockedBeside};

    let locked = vec![("hot".to_owned(), Beside::View), ("notes".to_owned(), Beside::RefersToIt)];
    let beside = vec![LockedBeside { mapping: "leads".into(), locked }];
    let locks = |probed: Probed, id: &str| -> Vec<String> {
        let run = dry_run(probed);
        let step = run.steps.iter().find(|step| step.id == id).unwrap();
        step.locks.iter().map(|lock| format!("{} {}", lock.object, lock.mode)).collect()
    };
    let seen = locks(Probed { beside, ..probed() }, "retire");
    let alone = locks(probed(), "retire");
    assert_eq!(seen[alone.len()..], ["hot ACCESS EXCLUSIVE", "notes ACCESS EXCLUSIVE"]);
    assert_eq!(seen[..alone.len()], alone);
}

#[test]
fn between_two_databases_each_side_is_named_with_its_database_and_only_tables_are_locked() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plans/good/cross-mappings.yaml");
    let environment = EnvironmentName::new("default");
    let plan = super::super::wiring::load_plan(path.as_ref(), None, &environment).unwrap();
    let run = of_plan(&plan, None);
    let step = |id: &str| run.steps.iter().find(|step| step.id == id).unwrap();
    let locks = |id: &str| -> Vec<String> {
        step(id).locks.iter().map(|lock| format!("{} {}", lock.object, lock.mode)).collect()
    };
    let does = |id: &str| step(id).does.join("; ");
    assert!(does("sync-follows").contains("puts triggers on follows in app"));
    assert!(
        does("sync-follows")
            .contains("carries what was captured to (User)-[FOLLOWS]->(User) in graph")
    );
    assert!(does("sync-users").contains("once 1,000,000 changes wait, one waits for 1h"));
    assert_eq!(locks("sync-users"), ["app.users in app SHARE ROW EXCLUSIVE"]);
    assert_eq!(locks("copy-users"), ["app.users in app ACCESS SHARE"]);
    assert!(does("copy-follows").contains("stood in for"));
    assert_eq!(locks("compare-users"), ["app.users in app ACCESS SHARE"]);
    assert!(does("drop-follows").contains("drops follows in app, with every row of it"));
    assert_eq!(locks("drop-follows"), ["follows in app ACCESS EXCLUSIVE"]);
    assert!(does("stop-users").contains("both sides stay as they are"));
    assert!(step("sync-users").undo.says.contains("empties a new side that was empty before"));
    // What a graph is filled from takes no room of its own and has no shape to copy.
    for target in ["app", "graph"].map(TargetName::new) {
        assert!(uses::copied_shapes(&plan.pin.program, &target).is_empty());
        assert_eq!(look::bytes_needed(&plan.pin.program, &target, &probed()), 0);
    }
}

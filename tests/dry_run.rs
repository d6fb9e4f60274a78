//! `dry-run`: what it shows, in which form, with which exit code; and that it leaves nothing behind.

use serde_json::Value;

use crate::sandbox::Sandbox;

#[path = "dry_run/ci_page.rs"]
mod ci_page;
#[path = "dry_run/postgres.rs"]
mod postgres;

const SCHEMA: &str = "
    CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT NOT NULL, status TEXT);
    CREATE VIEW hot AS SELECT * FROM leads WHERE status = 'hot';
    CREATE TRIGGER theirs AFTER INSERT ON leads BEGIN SELECT 1; END;
    INSERT INTO leads WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 3000)
        SELECT x, 'person' || x, CASE x % 2 WHEN 0 THEN 'HOT' ELSE 'cold' END FROM n;";

/// A plan with steps at the same time, a file, a review, two gates and an end that can't be undone.
const PLAN: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata: { name: leads-v2 }
targets:
  app: { engine: sqlite, url: "${env:LEADS_URL}" }
mappings:
  leads:
    from: { target: app, table: leads, key: [id] }
    into: { target: app, table: leads_v2 }
    columns: { status: lower(status) }
steps:
  - id: create
    phase: expand
    sql: { file: up.sql }
    undo: { sql: DROP TABLE leads_v2 }
  - id: index
    phase: expand
    needs: [create]
    sql: CREATE INDEX leads_v2_status ON leads_v2 (status)
    undo: { none: it goes with the table }
  - id: calm
    phase: expand
    needs: [create]
    target: app
    verify: { query: SELECT count(*) FROM leads WHERE email = 'password=hunter2', expect: { max: 5 } }
  - id: sync
    phase: dual-write
    dual_write: { mapping: leads, direction: forward }
  - id: copy
    phase: backfill
    backfill: { mapping: leads, chunk: { rows: 500 }, pause_between: 10ms }
  - id: compare
    phase: verify
    verify: { mapping: leads, method: full }
  - id: ready
    phase: contract
    gate: { verified_within: 1h, soak: { after: compare, for: 24h } }
  - id: retire
    phase: contract
    retire: { mapping: leads, old_name: leads_old, take_name: true }
  - id: sure
    phase: contract
    gate: { approvals: [{ group: dba, count: 1 }], verified_within: 2h }
  - id: drop
    phase: contract
    drop: { mapping: leads }
    irreversible: every row lives on
"#;

const UP: &str =
    "-- up\nCREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT NOT NULL, status TEXT);\n";

const PROJECT: &str = "apiVersion: phasegate/v1
kind: Project
groups:
  dba: [dee]
  release: [ana, ben, chloe]
environments:
  staging:
    state: ${env:STATE_OF_STAGING}
    policy:
      longest_wait: 5s
      destructive: { approvals: [{ group: release, count: 2 }], verified_within: 1h }
";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", PLAN);
    sandbox.write("up.sql", UP);
    sandbox
}

/// The files of a sandbox with their contents.
fn files(sandbox: &Sandbox) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(sandbox.path("."))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            (entry.file_name().into_string().unwrap(), bytes)
        })
        .collect();
    files.sort();
    files
}

fn probe(sandbox: &Sandbox, more: &[&str]) -> crate::sandbox::Ran {
    let words = [&["dry-run", "plan.yaml", "--depth", "probe"], more].concat();
    sandbox.run_with(&words, "LEADS_URL", &format!("sqlite:{}", sandbox.path("app.db").display()))
}

fn step<'a>(document: &'a Value, id: &str) -> &'a Value {
    let steps = document["steps"].as_array().unwrap();
    steps.iter().find(|step| step["id"] == id).unwrap_or_else(|| panic!("no step {id}"))
}

fn texts(list: &Value, field: &str) -> Vec<String> {
    let list = list.as_array().unwrap();
    list.iter().map(|one| one[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn render_needs_no_secret_no_database_and_no_store() {
    let sandbox = sandbox();
    let before = files(&sandbox);
    let ran = sandbox.run(&["dry-run", "plan.yaml", "--format", "json"]).expect(0);
    let document = ran.json();
    assert_eq!(document["command"], "dry-run");
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["exit"]["reason"], "done");
    assert_eq!(document["depth"], "render");
    assert_eq!(document["waves"][1], serde_json::json!(["index", "calm"]));
    assert_eq!(document["point_of_no_return"], "drop");
    assert_eq!(document["targets"][0]["url"], "${env:LEADS_URL}");

    let create = step(&document, "create");
    assert_eq!(create["statements"][0]["file"], "up.sql");
    assert_eq!(create["statements"][0]["line"], 2);
    assert_eq!(create["locks"][0]["object"], "whole database");
    assert_eq!(create["undo"]["statements"][0]["danger"]["kind"], "destructive");
    let drop = step(&document, "drop");
    assert_eq!(drop["danger"]["kind"], "destructive");
    assert_eq!(drop["undo"]["kind"], "impossible");
    assert!(
        texts(&drop["does"], "").len() == 2
            && drop["does"][1].as_str().unwrap().contains("leads_old")
    );
    assert_eq!(step(&document, "ready")["gate"]["releases"], serde_json::json!(["retire"]));
    assert_eq!(files(&sandbox), before, "a dry run leaves nothing behind");
}

#[test]
fn what_policy_adds_is_among_the_conditions_and_marked() {
    let sandbox = sandbox();
    sandbox.write("phasegate.yaml", PROJECT);
    let words = ["dry-run", "plan.yaml", "--env", "staging", "--format", "json"];
    let document = sandbox.run(&words).expect(0).json();
    let conditions = &step(&document, "sure")["gate"]["conditions"];
    let said: Vec<String> = conditions
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["needed"].as_str().unwrap(), one["from_policy"]))
        .collect();
    assert_eq!(
        said,
        ["1 approval of dba false", "2 approvals of release true", "a PASS not older than 1h true"]
    );
    let soak = &step(&document, "ready")["gate"]["conditions"];
    assert!(
        texts(soak, "needed").contains(&"5s after compare (cut from 1d by policy)".to_owned()),
        "{soak}"
    );
    let human = sandbox.run(&words[..4]).expect(0).stdout;
    assert!(human.contains("2 approvals of release (from policy)"), "{human}");
    assert!(!sandbox.path(".phasegate").exists());
}

#[test]
fn people_read_it_in_a_hundred_columns_and_no_secret_is_in_it() {
    let sandbox = sandbox();
    let human = sandbox.run(&["dry-run", "plan.yaml"]).expect(0).stdout;
    for line in human.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let parts = [
        "wave 2, at the same time",
        "from    up.sql",
        "locks   whole database",
        "lets go retire",
        "==== point of no return",
        "destructive: ",
        "undo    impossible: every row lives on",
        "nothing stands in the plan's way",
    ];
    for part in parts {
        assert!(human.contains(part), "{part} is not in {human}");
    }
    for format in ["human", "json", "junit", "markdown", "github"] {
        let ran = sandbox.run(&["dry-run", "plan.yaml", "--format", format]).expect(0);
        assert!(!ran.stdout.contains("hunter2"), "{}", ran.stdout);
    }
}

#[test]
fn a_probe_looks_and_leaves_everything_as_it_was() {
    let sandbox = sandbox();
    sandbox.sql("app.db", SCHEMA);
    let before = files(&sandbox);
    let document = probe(&sandbox, &["--format", "json"]).expect(0).json();
    assert_eq!(files(&sandbox), before, "no state, no journal, no byte of the database");
    let look = &document["targets"][0]["look"];
    assert!(look["server"].as_str().unwrap().starts_with("SQLite 3."));
    let tables = look["tables"].as_array().unwrap();
    let leads = tables.iter().find(|table| table["table"] == "leads").unwrap();
    assert_eq!(leads["rows"]["rows"], 3000);
    assert!(leads["table_bytes"].as_u64().unwrap() > 3000 * 8, "{leads}");
    assert_eq!(leads["triggers"][0]["name"], "theirs");
    assert_eq!(leads["dependents"][0]["name"], "hot");
    assert_eq!(look["mappings"][0]["key"]["index"], "the rowid");
    assert_eq!(look["mappings"][0]["sample"]["rows"], 3000);
    assert!(look["sessions"]["hidden"].is_string(), "{look}");
    let found = texts(&document["findings"], "code");
    assert_eq!(found, ["R104"], "{document:#}");
    assert_eq!(document["findings"][0]["step"], "retire");

    let human = probe(&sandbox, &[]).expect(0).stdout;
    for part in [
        "copy: 3,000 rows (counted), in 6 chunks; between",
        "found by the rowid",
        "not visible",
        "view hot",
    ] {
        assert!(human.contains(part), "{part} is not in {human}");
    }
    probe(&sandbox, &["--fail-on", "warning"]).expect(3);
}

#[test]
fn findings_are_in_every_form_with_their_line_and_answer_3() {
    let sandbox = sandbox();
    sandbox.sql("app.db", "CREATE TABLE leeds (id INTEGER PRIMARY KEY, email TEXT, status TEXT)");
    let line = PLAN.lines().position(|line| line == "  - id: sync").unwrap() + 1;
    let cases = [
        ("human", format!("plan.yaml:{line}:")),
        ("json", "\"code\": \"D201\"".to_owned()),
        ("junit", "type=\"D201\"".to_owned()),
        ("markdown", format!("(`plan.yaml:{line}`)")),
        (
            "github",
            format!(
                "::error file=plan.yaml,line={line},title=D201 a table isn't there::target app"
            ),
        ),
    ];
    for (format, expected) in cases {
        let ran = probe(&sandbox, &["--format", format]).expect(3);
        assert!(ran.stdout.contains(&expected), "{format} lacks {expected}: {ran}");
        assert!(ran.stdout.contains("did you mean "), "{ran}");
        assert_eq!(ran.stderr, "", "findings are the result");
    }
}

#[test]
fn a_plan_with_errors_is_shown_in_every_form_and_an_unreadable_one_is_65() {
    let sandbox = sandbox();
    sandbox.write("plan.yaml", &PLAN.replace("    undo: { sql: DROP TABLE leads_v2 }\n", ""));
    for (format, expected) in [
        ("human", "error[P403]"),
        ("json", "\"P403\""),
        ("junit", "type=\"P403\""),
        ("markdown", "`P403`"),
        ("github", "::error file=plan.yaml,line="),
    ] {
        let ran = sandbox.run(&["dry-run", "plan.yaml", "--format", format]).expect(3);
        assert!(ran.stdout.contains(expected), "{ran}");
    }
    sandbox.run(&["dry-run", "nowhere.yaml"]).expect(65);
}

#[test]
fn a_database_that_can_not_be_seen_answers_for_itself_and_the_plan_is_shown_all_the_same() {
    let sandbox = sandbox();
    let ran = probe(&sandbox, &[]).expect(69);
    assert!(ran.stdout.contains("wave 8") && ran.stdout.contains("target app: not seen"), "{ran}");
    assert!(ran.stderr.contains("there is no database file"), "{ran}");
    let document = probe(&sandbox, &["--format", "json"]).expect(69).json();
    assert_eq!(document["exit"]["reason"], "unreachable");
    assert!(document["error"]["message"].as_str().unwrap().contains("no database file"));
    assert!(document["targets"][0]["error"]["message"].is_string());
    let junit = probe(&sandbox, &["--format", "junit"]).expect(69);
    assert!(
        junit.stdout.contains("<testcase name=\"target app\"") && junit.stdout.contains("<error "),
        "{junit}"
    );
    // Without its secret the database has no URL.
    let ran = sandbox.run(&["dry-run", "plan.yaml", "--depth", "probe"]).expect(64);
    assert!(ran.stderr.contains("LEADS_URL"), "{ran}");
    sandbox.write("app.db", &"this is no database. ".repeat(100));
    probe(&sandbox, &[]).expect(65);
}

#[test]
fn reports_are_written_whole_beside_what_is_printed() {
    let sandbox = sandbox();
    sandbox.write("out/old.json", "what was there before");
    let words = [
        "dry-run",
        "plan.yaml",
        "--report",
        "json=out/old.json",
        "--report",
        "junit=out/a.xml",
        "--report",
        "markdown=b.md",
        "--report",
        "github=out/c.txt",
        "--report",
        "human=out/d.txt",
    ];
    let ran = sandbox.run(&words).expect(0);
    assert!(ran.stdout.starts_with("Dry run of plan leads-v2"), "{ran}");
    let read = |name: &str| std::fs::read_to_string(sandbox.path(name)).unwrap();
    let document: Value = serde_json::from_str(&read("out/old.json")).unwrap();
    assert_eq!((&document["command"], &document["exit"]["code"]), (&"dry-run".into(), &0.into()));
    assert!(read("out/a.xml").starts_with("<?xml"));
    assert!(read("b.md").starts_with("### Dry run"));
    assert!(read("out/c.txt").starts_with("::notice"));
    assert_eq!(read("out/d.txt"), ran.stdout);
    assert_eq!(std::fs::read_dir(sandbox.path("out")).unwrap().count(), 4, "nothing is left over");
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_asked() {
    let sandbox = sandbox();
    for (words, expected) in [
        (&["dry-run", "plan.yaml", "--report", "junit=gone/a.xml"][..], "mkdir -p gone"),
        (
            &["dry-run", "plan.yaml", "--report", "pdf=a.pdf"],
            "human, json, junit, markdown or github",
        ),
        (&["dry-run", "plan.yaml", "--report", "junit"], "KIND=FILE"),
        (&["dry-run", "plan.yaml", "--depth", "rehearse"], "render, probe"),
        (&["dry-run", "plan.yaml", "--format", "mermaid"], "junit, markdown or github"),
        (&["validate", "plan.yaml", "--format", "junit"], "human or json"),
        (&["graph", "plan.yaml", "--format", "github"], "mermaid or dot"),
    ] {
        let ran = sandbox.run(words).expect(64);
        assert!(ran.stderr.contains(expected), "{ran}");
        assert_eq!(ran.stdout, "");
    }
}

//! `gates --show`, approvals without a digest, and what shuts a gate between its opening and the work.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use super::{approve, digest, gate, said};
use crate::bad_luck::{APPROVAL, plan, sandbox};

#[test]
fn what_will_run_is_shown_with_its_places_sizes_way_back_evidence_and_decisions() {
    let sandbox = sandbox(APPROVAL);
    let tidy = "  - id: tidy\n    phase: contract\n    target: app\n    sql: |\n      DELETE FROM customers_v2 WHERE status_code = 'closed';\n      CREATE INDEX names ON customers_v2 (name);\n    irreversible: closed customers are of no use\n  - id: archive\n    phase: contract\n    target: app\n    sql: { file: archive.sql }\n    undo:\n      sql: DROP TABLE archive\n  - id: retire\n";
    sandbox.write("archive.sql", "-- kept for audits\n\nCREATE TABLE archive (id INTEGER);\n");
    let text = plan(APPROVAL).replace("  - id: retire\n", tidy);
    sandbox.write("plan.yaml", &text);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let shown = sandbox.run(&["gates", "customers", "ready", "--show"]).expect(4).stdout;
    let line = |wanted: &str| text.lines().position(|line| line.contains(wanted)).unwrap() + 1;
    for words in [
        format!("digest {}", digest(&sandbox, "ready")),
        format!("plan.yaml:{}", line("DELETE FROM customers_v2")),
        "DELETE FROM customers_v2 WHERE status_code = 'closed'".to_owned(),
        format!("plan.yaml:{}", line("CREATE INDEX names")),
        "archive.sql:3".to_owned(),
        "can be undone by:".to_owned(),
        "DROP TABLE archive".to_owned(),
        "destructive".to_owned(),
        "can't be undone: closed customers are of no use".to_owned(),
        "at stake: app.customers_v2, about 2,000 rows".to_owned(),
        "renames table customers to customers_old".to_owned(),
        "renames table customers_v2 to customers".to_owned(),
        "at stake: app.customers, about 2,000 rows".to_owned(),
        "PASS compare".to_owned(),
        "2,000 rows compared".to_owned(),
        "none yet".to_owned(),
    ] {
        assert!(shown.contains(&words), "{words:?} is not in\n{shown}");
    }
    assert!(!shown.contains("ready-to-drop"), "{shown}");
    approve(&sandbox, "ready", "dee").expect(0);
    let decided = sandbox.run(&["gates", "customers", "ready", "--show"]).expect(0).stdout;
    assert!(decided.contains("approved by dee (claimed)"), "{decided}");

    let document = gate(&sandbox, "ready", &[]);
    let release = &document["release"];
    assert_eq!(release["digest"], document["work"]);
    assert_eq!(
        release["steps"][0]["statements"][0]["place"],
        format!("plan.yaml:{}", line("DELETE FROM"))
    );
    assert_eq!(release["steps"][0]["at_stake"][0]["rows"], 2_000);
    assert_eq!(release["evidence"][0]["verdict"], "PASS");
    assert!(release["evidence"][0]["age_ms"].is_u64());
    assert_eq!(release["decisions"][0]["by"]["name"], "dee");
    assert_eq!(release["decisions"][0]["void"], false);
    // The work changes: what dee said is shown as what it is.
    sandbox.sql("app.db", "CREATE INDEX somebody_s ON customers_v2 (status)");
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let voided = gate(&sandbox, "ready", &[]);
    assert_eq!(voided["release"]["decisions"][0]["void"], true);
    let slip = sandbox.run(&["gates", "customers", "raedy", "--show"]).expect(64);
    assert!(said(&slip).contains("did you mean ready?"), "{slip}");
}

#[test]
fn a_drop_is_shown_in_words_with_what_it_removes() {
    let sandbox = sandbox("");
    sandbox.run(&["run", "plan.yaml", "--to", "retire"]).expect(0);
    let shown = sandbox.run(&["gates", "customers", "ready-to-drop", "--show"]);
    for words in [
        "drops table customers_old with all its rows",
        "can't be undone: every row lives on in the new table",
        "at stake: app.customers_old, about 2,000 rows",
        "old when the old side was put aside",
    ] {
        assert!(shown.stdout.contains(words), "{words:?} is not in\n{shown}");
    }
}

#[test]
fn without_a_terminal_an_approval_needs_the_digest() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let refused = sandbox.run(&["approve", "customers", "ready", "--as", "dee"]).expect(64);
    assert!(said(&refused).contains("gates customers ready --show"), "{refused}");
    let before = sandbox.run(&["history", "customers"]).expect(0).stdout;
    let wrong = ["approve", "customers", "ready", "--as", "dee", "--digest"];
    let work = digest(&sandbox, "ready");
    for typed in ["0123456789abcdef", &work[..7], ""] {
        sandbox.run(&[&wrong[..], &[typed]].concat()).expect(6);
    }
    assert_eq!(sandbox.run(&["history", "customers"]).expect(0).stdout, before);
    sandbox.run(&[&wrong[..], &[&work[..8].to_uppercase()]].concat()).expect(0);
}

/// `script` gives the program a terminal to ask on.
#[test]
fn on_a_terminal_the_work_is_shown_and_asked_about() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let answered = |answer: &str| {
        let program = env!("CARGO_BIN_EXE_phasegate");
        let line = format!("'{program}' approve customers ready --as dee");
        let mut child = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(sandbox.path(""))
            .env_remove("PHASEGATE_STATE")
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, shown) = answered("n\n");
    assert_eq!(code, Some(64), "{shown}");
    for words in ["renames table customers to customers_old", "about 2,000 rows", "Approve digest"]
    {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let (code, shown) = answered("y\n");
    assert_eq!(code, Some(0), "{shown}");
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}

#[test]
fn an_approval_taken_back_behind_an_open_gate_keeps_the_work_from_starting() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    approve(&sandbox, "ready", "dee").expect(0);
    sandbox.run(&["run", "plan.yaml", "--to", "ready"]).expect(0);
    sandbox.run(&["revoke", "customers", "ready", "--as", "dee"]).expect(0);
    let stopped = sandbox.run(&["run", "plan.yaml"]).expect(4);
    assert!(said(&stopped).contains("1 approval of dba"), "{stopped}");
    assert_eq!(
        sandbox.value("app.db", "SELECT count(*) FROM sqlite_master WHERE name = 'customers_old'"),
        "0"
    );
}

#[test]
fn evidence_that_grows_stale_behind_an_open_gate_is_made_anew_before_the_work_starts() {
    let sandbox = sandbox("");
    sandbox.write(
        "plan.yaml",
        &plan("").replacen("verified_within: 1h", "verified_within: 5s", 1).replacen(
            "verified_within: 1h",
            "verified_within: 10s",
            1,
        ),
    );
    sandbox.run(&["run", "plan.yaml", "--to", "ready"]).expect(0);
    std::thread::sleep(Duration::from_millis(5_100));
    sandbox.run(&["run", "plan.yaml"]).expect(0);
    let history = sandbox.run(&["history", "customers"]).expect(0).stdout;
    assert!(history.contains("gate ready: shut again"), "{history}");
    assert!(history.contains("attempt 2 began"), "{history}");
}

#[test]
fn a_query_that_changes_its_mind_behind_an_open_gate_shuts_it() {
    let sandbox =
        sandbox("      query: { target: app, query: select count(*) from settings, expect: 0 }");
    sandbox.sql("app.db", "CREATE TABLE settings (name TEXT)");
    sandbox.run(&["run", "plan.yaml", "--to", "ready"]).expect(0);
    sandbox.sql("app.db", "INSERT INTO settings VALUES ('frozen')");
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let status = sandbox.run(&["history", "customers"]).expect(0).stdout;
    assert!(status.contains("gate ready: shut again"), "{status}");
    sandbox.sql("app.db", "DELETE FROM settings");
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}

//! Things that go wrong around a run: files, locks, edits, rivals, signals. Each has a code, a sentence and a way out, and
//! nothing is lost.

mod state;

use std::process::Stdio;
use std::time::Duration;

use crate::bad_luck::{APPROVAL, ROWS, plan, sandbox};
use crate::sandbox::{Ran, Sandbox, wait_for};

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

#[track_caller]
fn mentions(ran: &Ran, words: &[&str]) {
    let said = said(ran);
    for word in words {
        assert!(said.contains(word), "{word:?} is not said: {ran}");
    }
}

fn edit(sandbox: &Sandbox, from: &str, to: &str) {
    let text = std::fs::read_to_string(sandbox.path("plan.yaml")).unwrap();
    assert!(text.contains(from), "the plan has no {from:?}");
    sandbox.write("plan.yaml", &text.replacen(from, to, 1));
}

#[test]
fn a_missing_target_file_is_an_error_and_never_made() {
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", &plan(""));
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(69);
    mentions(&ran, &["app.db", "mode=rwc"]);
    assert!(!sandbox.path("app.db").exists());
}

#[test]
fn a_read_only_target_is_not_permitted_and_stays_as_it_was() {
    let sandbox = sandbox("");
    let before = sandbox.dump("app.db");
    edit(&sandbox, "sqlite://app.db", "sqlite://app.db?mode=ro");
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(77);
    mentions(&ran, &["app"]);
    assert_eq!(sandbox.dump("app.db"), before);
    assert!(sandbox.ours("app.db").is_empty());
}

#[test]
fn a_target_locked_by_another_process_is_waited_for_and_then_said() {
    let sandbox = sandbox("");
    let lock = Locked::new(&sandbox, "app.db");
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(69);
    mentions(&ran, &["locked"]);
    drop(lock);
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}

#[test]
fn a_corrupt_target_is_said_and_not_written_to() {
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", &plan(""));
    let garbage = "this is no database, whatever its name says. ".repeat(200);
    sandbox.write("app.db", &garbage);
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(65);
    mentions(&ran, &["app.db"]);
    assert_eq!(std::fs::read_to_string(sandbox.path("app.db")).unwrap(), garbage);
}

#[test]
fn a_corrupt_state_store_is_refused_and_not_repaired() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let state = ".phasegate/state.db";
    let garbage = "no state store any more. ".repeat(500);
    sandbox.write(state, &garbage);
    for name in ["state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(sandbox.path(".phasegate").join(name));
    }
    let ran = sandbox.run(&["status", "customers"]).expect(65);
    mentions(&ran, &["state.db"]);
    assert_eq!(std::fs::read_to_string(sandbox.path(state)).unwrap(), garbage);
}

#[test]
fn a_missing_state_store_is_said_by_whoever_only_looks() {
    let sandbox = sandbox("");
    let ran = sandbox.run(&["status"]);
    assert_ne!(ran.code, Some(0), "{ran}");
    assert!(!sandbox.path(".phasegate").exists(), "looking made a state store");
    mentions(&ran, &["state.db"]);
}

#[test]
fn a_lost_state_store_does_not_let_a_second_run_over_the_first() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    std::fs::remove_dir_all(sandbox.path(".phasegate")).unwrap();
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(5);
    mentions(&ran, &["customers", "state.db"]);
}

#[test]
fn a_state_store_of_a_newer_version_is_left_alone() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let tables = "SELECT name FROM sqlite_master WHERE name LIKE '%migrations%'";
    let table = sandbox.value(".phasegate/state.db", tables);
    sandbox.sql(
        ".phasegate/state.db",
        &format!(
            "INSERT INTO {table} (version, description, success, checksum, execution_time)
             VALUES (99999999999999, 'from the future', 1, x'00', 0)"
        ),
    );
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(65);
    mentions(&ran, &["newer"]);
}

#[test]
fn a_locked_state_store_is_waited_for_and_then_said() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let lock = Locked::new(&sandbox, ".phasegate/state.db");
    let ran =
        sandbox.run(&["approve", "customers", "ready", "--as", "dee", "--digest", "00000000"]);
    assert_eq!(ran.code, Some(69), "{ran}");
    drop(lock);
    sandbox.run(&["status", "customers"]).expect(0);
}

/// A row that the new table refuses: the copy names it, everything before it stays, and a retry goes on from there.
#[test]
fn a_step_that_fails_half_way_goes_on_after_its_cause_is_gone() {
    let sandbox = sandbox("");
    sandbox.sql("app.db", "UPDATE customers SET name = 'too long a name for this' WHERE id = 3000");
    edit(&sandbox, "name TEXT NOT NULL", "name TEXT NOT NULL CHECK (length(name) < 20)");
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(1);
    mentions(&ran, &["3000", "CHECK"]);
    let status = sandbox.run(&["status", "customers", "--format", "json"]).json();
    let copy = status["steps"].as_array().unwrap().iter().find(|s| s["id"] == "copy").unwrap();
    assert_eq!(copy["state"], "failed", "{copy}");
    assert_eq!(copy["rows_done"], 900, "{copy}");
    // Nothing happens by itself, and the code says why.
    sandbox.run(&["run", "plan.yaml"]).expect(1);
    sandbox.sql("app.db", "UPDATE customers SET name = 'short' WHERE id = 3000");
    sandbox.run(&["retry", "customers"]).expect(0);
    let rows = sandbox.value("app.db", "SELECT count(*) FROM customers");
    assert_eq!(rows, ROWS.to_string());
}

/// It died with as many steps under way as a database takes at once.
#[test]
fn a_run_that_died_with_its_hands_full_goes_back() {
    let sandbox = Sandbox::new();
    sandbox.sql("app.db", "CREATE TABLE leads (id INTEGER PRIMARY KEY, name TEXT)");
    let head = "apiVersion: phasegate/v1\nkind: Plan\nmetadata:\n  name: full\ntargets:\n  app:\n    engine: sqlite\n    url: sqlite://app.db\nsteps:\n";
    let step = |id: &str, needs: &str| {
        format!(
            "  - id: {id}\n    phase: expand\n    needs: [{needs}]\n    sql: CREATE TABLE {id} (id INTEGER)\n    undo:\n      sql: DROP TABLE {id}\n"
        )
    };
    let beside: String = (0..8).map(|n| step(&format!("t{n}"), "first")).collect();
    sandbox.write("plan.yaml", &format!("{head}{}{beside}", step("first", "")));
    let before = sandbox.dump("app.db");
    sandbox.run(&["run", "plan.yaml", "--to", "first"]).expect(0);
    let mut dying = sandbox.command(&["run", "plan.yaml"]);
    let died = dying.env("FAILPOINTS", "sqlite::before-commit::execute=return").output().unwrap();
    assert_eq!(died.status.code(), None);
    sandbox.run(&["rollback", "full", "--yes"]).expect(0);
    assert_eq!(sandbox.dump("app.db"), before);
}

#[test]
fn a_plan_edited_between_two_runs_is_stale_and_can_be_amended() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    // Layout and comments are no change.
    let text = std::fs::read_to_string(sandbox.path("plan.yaml")).unwrap();
    sandbox.write("plan.yaml", &format!("# a comment\n{text}\n\n"));
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    edit(&sandbox, "old_name: customers_old", "old_name: customers_before");
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(6);
    mentions(&ran, &["customers_old", "customers_before", "amend"]);
    let ran = sandbox.run(&["amend", "customers", "plan.yaml", "--yes"]).expect(0);
    mentions(&ran, &["customers_before"]);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    edit(&sandbox, "CREATE TABLE customers_v2", "CREATE TABLE /* begun */ customers_v2");
    sandbox.run(&["amend", "customers", "plan.yaml", "--yes"]).expect(3);
}

#[test]
fn what_is_only_said_changes_nothing_and_how_a_copy_goes_is_amended_in_the_middle_of_it() {
    let sandbox = sandbox(APPROVAL);
    edit(&sandbox, "chunk: { rows: 150 }", "chunk: { rows: 150 }\n      pause_between: 300ms");
    edit(&sandbox, "  - id: copy\n", "  - id: copy\n    timeout: 1s\n");
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(1);
    mentions(&ran, &["copy took longer than its timeout of 1s"]);
    // The same second in other units, and more words.
    edit(&sandbox, "timeout: 1s", "timeout: 1000ms\n    description: takes a while");
    edit(&sandbox, "kind: Plan\nmetadata:\n", "kind: Plan\nmetadata:\n  description: customers\n");
    let ran = sandbox.run(&["retry", "customers"]).expect(1);
    mentions(&ran, &["timeout of 1s"]);
    sandbox.run(&["run", "plan.yaml"]).expect(1);

    edit(&sandbox, "timeout: 1000ms", "timeout: 1h");
    edit(&sandbox, "pause_between: 300ms", "pause_between: 0s");
    edit(&sandbox, "rows: 150", "rows: 500");
    sandbox.run(&["run", "plan.yaml"]).expect(6);
    let ran = sandbox.run(&["amend", "customers", "plan.yaml", "--yes"]).expect(0);
    mentions(&ran, &["steps.copy.timeout", "steps.copy.backfill.chunk.rows"]);
    sandbox.run(&["retry", "customers"]).expect(4);
    let rows = sandbox.value("app.db", "SELECT count(*) FROM customers_v2");
    assert_eq!(rows, ROWS.to_string());
    // What it copies is its work.
    edit(&sandbox, "lower(status)", "upper(status)");
    sandbox.run(&["amend", "customers", "plan.yaml", "--yes"]).expect(3);
}

#[test]
fn two_terminals_and_the_signals() {
    let sandbox = sandbox("");
    edit(&sandbox, "chunk: { rows: 150 }", "chunk: { rows: 20 }\n      pause_between: 200ms");
    let mut first = sandbox
        .command(&["run", "plan.yaml"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let copying = || {
        let status = sandbox.run(&["status", "customers", "--format", "json"]);
        status.code == Some(0)
            && status.json()["steps"].as_array().unwrap().iter().any(|step| {
                step["id"] == "copy" && step["rows_done"].as_u64().is_some_and(|rows| rows > 0)
            })
    };
    assert!(wait_for(Duration::from_mins(1), copying), "the copy did not begin");
    let second = sandbox.run(&["run", "plan.yaml"]).expect(5);
    mentions(&second, &[&first.id().to_string()]);

    // Tuned and paused from another terminal.
    sandbox.run(&["tune", "customers", "--chunk-rows", "10"]).expect(0);
    sandbox.run(&["pause", "customers"]).expect(0);
    let ended = wait_for(Duration::from_secs(30), || first.try_wait().unwrap().is_some());
    assert!(ended, "the pause was not seen");
    assert_eq!(first.wait().unwrap().code(), Some(8));
    sandbox.run(&["run", "plan.yaml"]).expect(8);

    // SIGTERM ends after a checkpoint.
    sandbox.run(&["tune", "customers", "--chunk-rows", "20"]).expect(0);
    let mut third = sandbox
        .command(&["resume", "customers"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let driven = || {
        let status = sandbox.run(&["status", "customers", "--format", "json"]).json();
        !status["driven_by"].is_null()
    };
    assert!(wait_for(Duration::from_secs(30), driven), "nobody drives");
    signal(third.id(), "TERM");
    let ended = wait_for(Duration::from_secs(30), || third.try_wait().unwrap().is_some());
    assert!(ended, "SIGTERM was not heard");
    assert_eq!(third.wait().unwrap().code(), Some(143));

    let mut fourth = sandbox
        .command(&["run", "plan.yaml"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(wait_for(Duration::from_secs(30), driven), "nobody drives");
    signal(fourth.id(), "INT");
    let ended = wait_for(Duration::from_secs(30), || fourth.try_wait().unwrap().is_some());
    assert!(ended, "Ctrl-C was not heard");
    assert_eq!(fourth.wait().unwrap().code(), Some(130));

    sandbox.run(&["tune", "customers", "--chunk-rows", "auto", "--pause-between", "0s"]).expect(0);
    sandbox.run(&["run", "plan.yaml"]).expect(0);
    let rows = sandbox.value("app.db", "SELECT count(*) FROM customers");
    assert_eq!(rows, ROWS.to_string());
}

pub fn signal(pid: u32, name: &str) {
    let killed =
        std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(killed.unwrap().success());
}

#[test]
fn two_state_stores_on_one_database() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml", "--state", "one.db"]).expect(4);
    let ran = sandbox.run(&["run", "plan.yaml", "--state", "two.db"]).expect(5);
    // Whoever reads it may stand in another folder.
    let there = format!("phasegate --state {} status ", sandbox.path("one.db").display());
    mentions(&ran, &["one.db", "customers", &there]);
    assert!(!ran.stderr.contains("--state two.db"), "{ran}");
    // The second one left nothing behind that would have to be cleaned up.
    let status = sandbox.run(&["status", "--state", "two.db", "--format", "json"]);
    assert!(!status.stdout.contains("\"run\":\""), "{status}");
}

#[test]
fn a_missing_table_or_column_is_said_with_a_suggestion_before_the_first_change() {
    let sandbox = sandbox("");
    let before = sandbox.dump("app.db");
    edit(&sandbox, "table: customers,", "table: custommers,");
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(3);
    mentions(&ran, &["custommers", "customers", "did you mean"]);
    edit(&sandbox, "table: custommers,", "table: customers,");
    edit(&sandbox, "lower(status)", "lower(statsu)");
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(3);
    mentions(&ran, &["statsu", "status"]);
    assert_eq!(sandbox.dump("app.db"), before);
    assert!(sandbox.ours("app.db").is_empty());
    edit(&sandbox, "lower(statsu)", "lower(status)");
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}

#[test]
fn a_password_is_shown_nowhere() {
    let sandbox = sandbox(APPROVAL);
    let secret = "hunter2-Zq";
    // In a plan it is a finding, and the finding does not repeat it.
    let literal = format!("url: \"postgres://app:{secret}@db/app\"");
    edit(&sandbox, "url: \"sqlite://app.db\"", &literal);
    let ran = sandbox.run(&["validate", "plan.yaml"]).expect(3);
    assert!(!said(&ran).contains(secret), "{ran}");
    edit(&sandbox, &literal, "url: \"${env:APP_URL}\"");
    // Not even a comment of the plan is stored with one.
    edit(&sandbox, "apiVersion", &format!("# was postgres://app:{secret}@db/app\napiVersion"));

    let url = format!("sqlite://app.db?key={secret}");
    let state = format!("postgres://phasegate:{secret}@127.0.0.1:1/state");
    for format in ["human", "json"] {
        let args = ["run", "plan.yaml", "--state", &state, "--format", format, "-vvv"];
        let ran = sandbox.run_with(&args, "APP_URL", "sqlite://app.db");
        assert_eq!(ran.code, Some(69), "{ran}");
        assert!(!said(&ran).contains(secret), "{ran}");
        let args = ["run", "plan.yaml", "--format", format, "-vvv", "--log-format", "json"];
        let ran = sandbox.run_with(&args, "APP_URL", &url);
        assert!(!said(&ran).contains(secret), "{ran}");
        let ran = sandbox.run_with(&args, "APP_URL", &format!("mysql://root:{secret}@h/x"));
        assert!(!said(&ran).contains(secret), "{ran}");
    }
    let ran = sandbox.run_with(&["run", "plan.yaml"], "APP_URL", "sqlite://app.db").expect(4);
    assert!(!said(&ran).contains(secret), "{ran}");
    for file in ["state.db", "state.db-wal"] {
        let bytes = std::fs::read(sandbox.path(".phasegate").join(file)).unwrap_or_default();
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{file} holds the password");
    }
}

/// The state store's disk is full: nothing starts without its record, and the run goes on when there is room again.
#[test]
fn a_full_disk_under_the_state_store_loses_nothing() {
    let sandbox = sandbox("");
    let Some(disk) = TinyDisk::mount(&sandbox.path("tiny")) else {
        crate::services::not_run("a full disk: mounting a small file system needs root");
        return;
    };
    let state = sandbox.path("tiny/state.db");
    let state = state.to_str().unwrap();
    disk.fill();
    let ran = sandbox.run(&["run", "plan.yaml", "--state", state]);
    assert!(matches!(ran.code, Some(65 | 69)), "{ran}");
    mentions(&ran, &["state.db"]);
    disk.free();
    sandbox.run(&["run", "plan.yaml", "--state", state, "--to", "dual-write"]).expect(0);
    disk.fill();
    let ran = sandbox.run(&["run", "plan.yaml", "--state", state]);
    assert!(matches!(ran.code, Some(65 | 69)), "{ran}");
    disk.free();
    sandbox.run(&["run", "plan.yaml", "--state", state]).expect(0);
    let rows = sandbox.value("app.db", "SELECT count(*) FROM customers");
    assert_eq!(rows, ROWS.to_string());
}

/// A file system of one megabyte, which root can mount.
struct TinyDisk {
    path: std::path::PathBuf,
}

impl TinyDisk {
    fn mount(path: &std::path::Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self { path: path.to_owned() })
    }

    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.path.join("filler")).unwrap();
        let block = [0_u8; 512];
        while file.write_all(&block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// A database that another connection holds exclusively until this is dropped.
pub struct Locked {
    release: std::sync::mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Locked {
    pub fn new(sandbox: &Sandbox, database: &str) -> Self {
        let path = sandbox.path(database);
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (locked, is_locked) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                use sqlx::{ConnectOptions, Connection, Executor};
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut connection = options.connect().await.unwrap();
                connection.execute("PRAGMA locking_mode = EXCLUSIVE").await.unwrap();
                connection.execute("BEGIN EXCLUSIVE").await.unwrap();
                locked.send(()).unwrap();
                let _ = released.recv();
                connection.execute("ROLLBACK").await.unwrap();
                connection.close().await.unwrap();
            });
        });
        is_locked.recv().unwrap();
        Self { release, thread: Some(thread) }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.release.send(());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A step that takes longer than it may is ended in the database too, leaves nothing behind, and can be replaced.
#[test]
fn a_step_that_takes_too_long_is_ended_and_leaves_nothing() {
    let sandbox = sandbox("");
    let before = sandbox.dump("app.db");
    let slow = "CREATE TABLE slow AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
         WHERE i < 100000000000) SELECT count(*) AS c FROM n;";
    edit(
        &sandbox,
        "    undo:\n      sql: DROP TABLE customers_v2",
        &format!("      {slow}\n    timeout: 300ms\n    undo:\n      sql: DROP TABLE customers_v2"),
    );
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(1);
    mentions(&ran, &["create", "timeout of 300ms"]);
    assert_eq!(sandbox.dump("app.db"), before, "something of the attempt was kept");
    edit(&sandbox, &format!("      {slow}\n    timeout: 300ms\n"), "");
    sandbox.run(&["amend", "customers", "plan.yaml", "--yes"]).expect(0);
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}

#[test]
fn rows_that_cant_be_copied_are_parked_until_they_are_mended() {
    let sandbox = sandbox("");
    edit(&sandbox, "rows: 150 }\n", "rows: 150 }\n      on_row_error: park\n");
    edit(&sandbox, "status TEXT, status_code", "status TEXT CHECK (status <> 'bad'), status_code");
    sandbox.sql("app.db", "UPDATE customers SET status = 'bad' WHERE id IN (3, 3000)");
    let ran = sandbox.run(&["run", "plan.yaml"]).expect(7);
    mentions(&ran, &["3 (parked: SQLITE_CONSTRAINT", "3000 (parked: SQLITE_CONSTRAINT"]);
    let status = ["status", "customers", "--parked", "--format", "json"];
    let parked = &sandbox.run(&status).expect(0).json()["parked"]["customers"];
    assert_eq!((&parked["total"], &parked["rows"][1]["key"]["id"]), (&2.into(), &"3000".into()));
    sandbox.run(&["retry", "customers"]).expect(7);
    sandbox.sql("app.db", "UPDATE customers SET status = 'good' WHERE id IN (3, 3000)");
    assert_eq!(sandbox.run(&status).expect(0).json()["parked"]["customers"]["total"], 0);
    sandbox.run(&["retry", "customers"]).expect(0);
    assert_eq!(sandbox.value("app.db", "SELECT count(*) FROM customers"), ROWS.to_string());
}

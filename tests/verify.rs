//! A full verify at the command line, on both databases: what it says of rows that differ and what it hides, and that nothing
//! but a whole comparison is a PASS: not one that was killed, interrupted, failed or lost a worker, nor one that repaired.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::examples::database::Database;
use crate::failures::signal;
use crate::sandbox::{Ran, Sandbox, wait_for};
use crate::services;

/// Enough for several chunks, whose first ones have 2,000 rows.
const ROWS: u64 = 30_000;

const PLAN: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata:
  name: leads
targets:
  app:
    engine: ENGINE
    url: "${env:APP_URL}"
mappings:
  leads:
    from: { target: app, table: leads, key: [id] }
    into: { target: app, table: leads_v2 }
    columns:
      status_code: lower(status)
steps:
  - id: create
    phase: expand
    target: app
    sql: CREATE TABLE leads_v2 (id bigint NOT NULL PRIMARY KEY, email text, status text, status_code text)
    undo:
      sql: DROP TABLE leads_v2
  - id: sync
    phase: dual-write
    dual_write: { mapping: leads, direction: forward }
  - id: copy
    phase: backfill
    backfill:
      mapping: leads
  - id: compare
    phase: verify
    verify: { mapping: leads, method: full }
"#;

/// The table that is moved, with so many rows.
fn table(rows: u64) -> String {
    let rows = match rows {
        0 => String::new(),
        _ => format!(
            "; INSERT INTO leads WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {rows})
             SELECT x, 'e' || x, 'Open' FROM c"
        ),
    };
    format!("CREATE TABLE leads (id bigint NOT NULL PRIMARY KEY, email text, status text){rows}")
}

/// A database of one kind or the other, and a folder with the plan.
struct Bed {
    sandbox: Sandbox,
    /// None: it is a file in the folder.
    server: Option<Database>,
}

impl Bed {
    /// One of each kind, with so many rows.
    fn both(test: &str, rows: u64) -> Vec<Self> {
        let file = Self { sandbox: Sandbox::new(), server: None };
        file.sandbox.sql("app.db", &format!("PRAGMA journal_mode = WAL; {}", table(rows)));
        file.sandbox.write("plan.yaml", &PLAN.replace("ENGINE", "sqlite"));
        [file].into_iter().chain(Self::on_server(test, rows)).collect()
    }

    fn on_server(test: &str, rows: u64) -> Option<Self> {
        let server = services::postgres(test)?;
        let server = Some(Database::on(&server, &table(rows)));
        let bed = Self { sandbox: Sandbox::new(), server };
        bed.sandbox.write("plan.yaml", &PLAN.replace("ENGINE", "postgres"));
        Some(bed)
    }

    fn kind(&self) -> &'static str {
        if self.server.is_some() { "postgres" } else { "sqlite" }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let url = self.server.as_ref().map_or("sqlite://app.db", |server| server.url.as_str());
        let mut command = self.sandbox.command(args);
        command.env("APP_URL", url);
        command
    }

    fn phasegate(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// Runs with a fail point armed.
    fn with_point(&self, args: &[&str], point: &str) -> Ran {
        self.command(args).env("FAILPOINTS", point).output().unwrap().into()
    }

    /// The name of a point in a transaction of this kind of database.
    fn point(&self, place: &str, action: &str) -> String {
        format!("{}::{place}={action}", self.kind())
    }

    fn sql(&self, statements: &str) {
        match &self.server {
            Some(server) => server.run(statements),
            None => self.sandbox.sql("app.db", statements),
        }
    }

    fn value(&self, query: &str) -> String {
        match &self.server {
            Some(server) => server.value(query),
            None => self.sandbox.value("app.db", query),
        }
    }

    fn edit(&self, from: &str, to: &str) {
        let plan = std::fs::read_to_string(self.sandbox.path("plan.yaml")).unwrap();
        assert!(plan.contains(from), "the plan has no {from:?}");
        self.sandbox.write("plan.yaml", &plan.replacen(from, to, 1));
    }

    /// With one worker the chunks end in their order, so that each of them is kept. What is whole is not kept; and it is whole
    /// at once where the first chunk ends last.
    fn one_by_one(&self) {
        self.edit("method: full }", "method: full, workers: 1 }");
    }

    fn copied(&self) {
        self.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
    }

    /// What the target keeps of an unfinished pass.
    fn kept(&self) -> Option<Value> {
        let passes = if self.server.is_some() { "phasegate.passes" } else { "phasegate_passes" };
        let kept = self.value(&format!("SELECT pass FROM {passes} WHERE step = 'compare'"));
        (!kept.is_empty()).then(|| serde_json::from_str(&kept).unwrap())
    }

    /// The newest evidence in the journal.
    fn evidence(&self) -> Option<Value> {
        let history = self.phasegate(&["history", "leads", "--format", "json"]).expect(0).json();
        let records = history["records"].as_array().unwrap().iter().rev();
        let of = |record: &Value| {
            let event = &record["event"];
            [&event["evidence"], &event["outcome"]["evidence"]]
                .into_iter()
                .find(|one| one.is_object())
                .cloned()
        };
        records.into_iter().find_map(of)
    }

    fn state_of_compare(&self) -> String {
        let status = self.phasegate(&["status", "leads", "--format", "json"]).expect(0).json();
        let steps = status["steps"].as_array().unwrap();
        steps.iter().find(|step| step["id"] == "compare").unwrap()["state"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[track_caller]
    fn has_no_verdict(&self) {
        assert_eq!(self.evidence(), None, "{}: a verdict on what was not compared", self.kind());
        assert_ne!(self.state_of_compare(), "succeeded", "{}", self.kind());
    }
}

#[test]
fn a_pass_that_was_killed_goes_on_where_it_stood_and_is_as_old_as_its_beginning() {
    for bed in Bed::both("a verify that is killed", ROWS) {
        bed.one_by_one();
        bed.copied();
        // It is found in the first chunks, and no more there when the rest is compared.
        bed.sql("UPDATE leads_v2 SET status_code = 'OPEN' WHERE id = 7");
        let mut kills = 0;
        let mut upto = Vec::new();
        let mut began_at = None;
        loop {
            // The first life ends when something was kept, each other one before its second commit.
            let point = match kills {
                0 => bed.point("after-commit::pass", "return"),
                _ => bed.point("before-commit::pass", "1*off->return"),
            };
            let ran = bed.with_point(&["run", "plan.yaml", "--to", "compare"], &point);
            if ran.code.is_some() {
                assert_eq!(ran.code, Some(7), "{}: {ran}", bed.kind());
                break;
            }
            kills += 1;
            assert!(kills < 20, "it gets no further");
            bed.has_no_verdict();
            let kept = bed.kept().unwrap();
            bed.sql("UPDATE leads_v2 SET status_code = 'open' WHERE id = 7");
            assert_eq!(*began_at.get_or_insert(kept["began_at"].clone()), kept["began_at"]);
            upto.push(kept["folded"]["upto"][0]["integer"].as_u64().unwrap());
        }
        assert!(kills >= 2 && upto.len() >= 2, "{}: {kills} kills, {upto:?}", bed.kind());
        assert!(upto.is_sorted() && upto[0] < upto[upto.len() - 1], "{upto:?}");
        let evidence = bed.evidence().unwrap();
        assert_eq!(evidence["rows"], ROWS, "no row twice, and none left out");
        assert_eq!((&evidence["verdict"], &evidence["different"]), (&"fail".into(), &1.into()));
        assert_eq!(Some(&evidence["began_at"]), began_at.as_ref());
        assert_eq!(bed.kept(), None, "a pass that has its result is no other's beginning");
        // Another attempt is another pass.
        bed.phasegate(&["retry", "leads", "--to", "compare"]).expect(0);
        let evidence = bed.evidence().unwrap();
        assert_eq!(evidence["verdict"], "pass");
        assert!(evidence["began_at"].as_i64() > began_at.unwrap().as_i64());
    }
}

#[test]
fn a_pass_begins_anew_when_the_tables_are_others() {
    for bed in Bed::both("a verify whose tables change", ROWS) {
        bed.one_by_one();
        bed.copied();
        bed.sql("UPDATE leads_v2 SET status_code = 'OPEN' WHERE id = 7");
        let point = bed.point("after-commit::pass", "return");
        let killed = bed.with_point(&["run", "plan.yaml", "--to", "compare"], &point);
        assert_eq!(killed.code, None, "{killed}");
        let began_at = bed.kept().unwrap()["began_at"].as_i64();
        bed.sql("UPDATE leads_v2 SET status_code = 'open' WHERE id = 7");
        bed.sql("ALTER TABLE leads_v2 ADD COLUMN more int");
        bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
        let evidence = bed.evidence().unwrap();
        assert_eq!((&evidence["verdict"], &evidence["rows"]), (&"pass".into(), &ROWS.into()));
        assert!(evidence["began_at"].as_i64() > began_at, "{}", bed.kind());
    }
}

#[test]
fn one_chunk_s_error_and_a_worker_that_died_are_no_pass() {
    for bed in Bed::both("a verify with a failing chunk", ROWS) {
        bed.copied();
        for (words, point, said) in [
            (["run", "plan.yaml", "--to", "compare"], "pass::chunk=2*off->return", "fail point"),
            (["retry", "leads", "--to", "compare"], "pass::chunk=1*off->panic", "ended early"),
        ] {
            let ran = bed.with_point(&words, point);
            assert_eq!(ran.code, Some(1), "{}: {ran}", bed.kind());
            assert!(format!("{}{}", ran.stdout, ran.stderr).contains(said), "{ran}");
            bed.has_no_verdict();
        }
        bed.phasegate(&["retry", "leads", "--to", "compare"]).expect(0);
        let evidence = bed.evidence().unwrap();
        assert_eq!((&evidence["verdict"], &evidence["rows"]), (&"pass".into(), &ROWS.into()));
    }
}

#[test]
fn a_signal_and_a_pause_leave_no_verdict_and_nothing_is_compared_twice() {
    for (signalled, code, next) in [
        (true, 130, ["run", "plan.yaml", "--to", "compare"]),
        (false, 8, ["resume", "leads", "--to", "compare"]),
    ] {
        for bed in Bed::both("a verify that is interrupted", ROWS) {
            bed.copied();
            let mut child = bed
                .command(&["run", "plan.yaml", "--to", "compare"])
                .env("FAILPOINTS", "pass::chunk=sleep(1000)")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let is_kept = || bed.kept().is_some();
            assert!(wait_for(Duration::from_mins(1), is_kept), "nothing was kept");
            if signalled {
                signal(child.id(), "INT");
            } else {
                bed.phasegate(&["pause", "leads"]).expect(0);
            }
            assert_eq!(child.wait().unwrap().code(), Some(code), "{}", bed.kind());
            bed.has_no_verdict();
            let began_at = bed.kept().expect("what was compared is kept")["began_at"].clone();
            bed.phasegate(&next).expect(0);
            let evidence = bed.evidence().unwrap();
            assert_eq!((&evidence["verdict"], &evidence["rows"]), (&"pass".into(), &ROWS.into()));
            assert_eq!(evidence["began_at"], began_at);
        }
    }
}

#[test]
fn a_repair_that_is_killed_is_no_pass_and_the_next_one_needs_a_clean_pass_too() {
    for bed in Bed::both("a repair that is killed", ROWS) {
        bed.edit("method: full }", "method: full, repair: true }");
        bed.copied();
        let spoil = "UPDATE leads_v2 SET status_code = 'bad' WHERE id IN (12, 29000); DELETE FROM leads_v2 WHERE id = 13;
            INSERT INTO leads_v2 VALUES (99000, 'x', 'y', 'z')";
        for place in ["before-commit::repair", "after-commit::repair"] {
            bed.sql(spoil);
            let killed = bed
                .with_point(&["run", "plan.yaml", "--to", "compare"], &bed.point(place, "return"));
            assert_eq!(killed.code, None, "{}: {killed}", bed.kind());
            bed.has_no_verdict();
            bed.sql("DELETE FROM leads_v2 WHERE id = 99000");
        }
        bed.sql(spoil);
        bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
        let evidence = bed.evidence().unwrap();
        assert_eq!((&evidence["verdict"], &evidence["rows"]), (&"pass".into(), &ROWS.into()));
        let wrong = "SELECT count(*) FROM leads l LEFT JOIN leads_v2 v ON v.id = l.id WHERE v.status_code IS NULL OR v.status_code <> 'open'";
        assert_eq!(bed.value(wrong), "0");
        assert_eq!(bed.value("SELECT count(*) FROM leads_v2"), ROWS.to_string());
    }
}

#[test]
fn with_both_what_clients_of_the_new_shape_wrote_unfollowed_is_left_and_said() {
    for bed in Bed::both("a repair with both", 100) {
        bed.edit("    columns:\n      status_code: lower(status)\n", "");
        bed.edit("direction: forward", "direction: both");
        bed.edit("method: full }", "method: full, repair: true }");
        bed.copied();
        // The new table's triggers are away while a client writes, and back as they were.
        let theirs = "FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'leads_v2'";
        let (off, on) = if bed.server.is_some() {
            let switch = |how: &str| {
                format!(
                    "DO $$ DECLARE name text; BEGIN
                       FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'leads_v2'::regclass AND NOT tgisinternal LOOP
                         EXECUTE format('ALTER TABLE leads_v2 {how} TRIGGER %I', name);
                       END LOOP; END $$"
                )
            };
            (switch("DISABLE"), switch("ENABLE ALWAYS"))
        } else {
            let names =
                format!("SELECT group_concat('DROP TRIGGER \"' || name || '\"', ';') {theirs}");
            (bed.value(&names), bed.value(&format!("SELECT group_concat(sql, ';') {theirs}")))
        };
        bed.sql(&off);
        bed.sql("INSERT INTO leads_v2 VALUES (900, 'mine', 'Mine', NULL); DELETE FROM leads_v2 WHERE id = 2;
            UPDATE leads_v2 SET status = 'Mine' WHERE id = 3");
        bed.sql(&on);
        let told = bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(7);
        let said = format!("{}{}", told.stdout, told.stderr);
        assert!(said.contains("see for each row which side is right"), "{}: {told}", bed.kind());
        let evidence = bed.evidence().unwrap();
        for (what, count) in [("missing", 1), ("extra", 1), ("different", 1)] {
            assert_eq!(evidence[what], count, "{}: {what}", bed.kind());
        }
        let mine = "SELECT count(*) FROM leads_v2 WHERE status = 'Mine' AND id IN (3, 900)";
        assert_eq!(bed.value(mine), "2", "{}", bed.kind());
        assert_eq!(bed.value("SELECT count(*) FROM leads_v2 WHERE id = 2"), "0", "{}", bed.kind());
        // As it says: what is right is written on the other side.
        bed.sql(
            "INSERT INTO leads VALUES (900, 'mine', 'Mine'); DELETE FROM leads WHERE id = 2;
            UPDATE leads SET status = 'Mine' WHERE id = 3",
        );
        bed.phasegate(&["retry", "leads", "--to", "compare"]).expect(0);
        assert_eq!(bed.value(mine), "2", "{}", bed.kind());
        assert_eq!(bed.value("SELECT count(*) FROM leads_v2"), "100", "{}", bed.kind());
    }
}

#[test]
fn rows_are_repaired_while_a_client_writes_them() {
    let Some(bed) = Bed::on_server("a repair beside a client", 6_000) else { return };
    // A run that is over has taken its triggers along, while the client still writes.
    let goes_on = "method: full, repair: true }
  - id: stop
    phase: contract
    stop_dual_write: { mapping: leads }";
    bed.edit("method: full }", goes_on);
    bed.copied();
    bed.sql(
        "UPDATE leads_v2 SET status_code = 'bad' WHERE id % 3 = 0; DELETE FROM leads_v2 WHERE id % 5 = 0;
         INSERT INTO leads_v2 SELECT n, 'x', 'x', 'x' FROM generate_series(6001, 7000) AS n",
    );
    let ended = AtomicBool::new(false);
    let writes = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut turn: u64 = 0;
            while !ended.load(Ordering::Relaxed) {
                turn += 1;
                let at = turn * 7919 % 6_000 + 1;
                let written = [
                    format!("UPDATE leads SET status = 'W{turn}' WHERE id BETWEEN {at} AND {at} + 20"),
                    format!("DELETE FROM leads WHERE id BETWEEN {at} AND {at} + 3"),
                    format!(
                        "UPDATE leads SET id = {at} + 100000 WHERE id = {at} AND NOT EXISTS (SELECT FROM leads WHERE id = {at} + 100000)"
                    ),
                    format!(
                        "INSERT INTO leads VALUES (6000 + {turn} % 1000, 'y', 'Y{turn}') ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status"
                    ),
                    format!(
                        "WITH gone AS (DELETE FROM leads WHERE id = {at} RETURNING *) SELECT count(*) FROM gone; \
                         INSERT INTO leads VALUES ({at}, 'again', 'Again') ON CONFLICT DO NOTHING"
                    ),
                ];
                bed.sql(&written.join("; "));
            }
            turn
        });
        let told = bed.phasegate(&["run", "plan.yaml", "--to", "compare"]);
        ended.store(true, Ordering::Relaxed);
        let writes = client.join().unwrap();
        told.expect(0);
        writes
    });
    assert!(writes > 0, "the client came too late");
    let wrong = "SELECT count(*) FROM (
        (SELECT id, email, status, lower(status) FROM leads EXCEPT SELECT id, email, status, status_code FROM leads_v2)
        UNION ALL
        (SELECT id, email, status, status_code FROM leads_v2 EXCEPT SELECT id, email, status, lower(status) FROM leads)) AS d";
    assert_eq!(bed.value(wrong), "0", "{writes} rounds of writes");
    let history = bed.phasegate(&["history", "leads"]).expect(0);
    assert!(history.stdout.contains("repaired"), "{history}");
}

#[test]
fn nothing_on_both_sides_is_a_pass_and_nothing_on_one_is_none() {
    for bed in Bed::both("a verify of nothing", 0) {
        bed.copied();
        bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
        let evidence = bed.evidence().unwrap();
        assert_eq!((&evidence["verdict"], &evidence["rows"]), (&"pass".into(), &0.into()));
    }
    for bed in Bed::both("a verify of nothing", 0) {
        bed.copied();
        bed.sql("INSERT INTO leads_v2 VALUES (1, 'x', 'y', 'z')");
        bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(7);
        assert_eq!(bed.evidence().unwrap()["extra"], 1);
    }
}

/// Equal numbers of rows, or equal samples, are evidence of no more than that.
#[test]
fn a_comparison_of_less_than_every_row_is_no_pass() {
    for method in ["counts", "sample"] {
        for bed in Bed::both("a verify of less than everything", 300) {
            bed.edit("method: full", &format!("method: {method}"));
            bed.copied();
            bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
            let evidence = bed.evidence().unwrap();
            assert_eq!(evidence["verdict"], "partial", "{}, {method}", bed.kind());
        }
    }
}

#[test]
fn rows_that_a_policy_hides_are_no_pass() {
    let Some(bed) = Bed::on_server("a verify under row security", 10) else { return };
    bed.copied();
    bed.sql("ALTER TABLE leads_v2 ENABLE ROW LEVEL SECURITY; ALTER TABLE leads_v2 FORCE ROW LEVEL SECURITY;
        CREATE POLICY few ON leads_v2 USING (id < 5)");
    let ran = bed.phasegate(&["run", "plan.yaml", "--to", "compare"]);
    assert_eq!(ran.code, Some(6), "{ran}");
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("row security of leads_v2"), "{ran}");
    bed.has_no_verdict();
}

/// A value that is found nowhere else.
const SECRET: &str = "hush-5f1c";

fn spoiled(bed: &Bed) {
    bed.copied();
    bed.sql(&format!(
        "UPDATE leads_v2 SET status_code = '{SECRET}' WHERE id = 1; DELETE FROM leads_v2 WHERE id = 2;
         UPDATE leads_v2 SET email = NULL WHERE id = 3; INSERT INTO leads_v2 VALUES (77, '{SECRET}', 'b', 'c');
         UPDATE leads_v2 SET status_code = (SELECT group_concat_ FROM long_) WHERE id = 4",
    ));
}

#[test]
fn differences_are_shown_with_both_values_and_long_ones_cut() {
    for bed in Bed::both("differences with values", 10) {
        bed.sql("CREATE TABLE long_ (group_concat_ text)");
        bed.sql(&format!("INSERT INTO long_ VALUES ('{}')", "x".repeat(5_000)));
        spoiled(&bed);
        let ran = bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(7);
        let status = bed.phasegate(&["status", "leads"]).expect(0).stdout;
        let x64 = "x".repeat(64);
        for line in [
            "key 1: differs in status_code".to_owned(),
            format!("status_code: holds \"{SECRET}\", should hold \"open\""),
            "key 2: missing on the new side".to_owned(),
            "email = \"e2\", status = \"Open\", status_code = \"open\"".to_owned(),
            "email: holds NULL, should hold \"e3\"".to_owned(),
            format!("status_code: holds \"{x64}\"… (5,000 characters), should hold \"open\""),
            "key 77: only on the new side".to_owned(),
            format!("email = \"{SECRET}\", status = \"b\", status_code = \"c\""),
        ] {
            assert!(status.contains(&line), "{}: {line}\n{status}", bed.kind());
            assert!(ran.stdout.contains(&line), "{}: {line}\n{ran}", bed.kind());
        }
        let evidence = bed.evidence().unwrap();
        let values = &evidence["samples"][0]["values"][0];
        assert_eq!(values["column"], "status_code");
        assert_eq!(
            (&values["expected"]["text"], &values["found"]["text"]),
            (&"open".into(), &SECRET.into())
        );
        // What was recorded can still be kept from being shown.
        for command in [
            &["status", "leads"][..],
            &["status", "leads", "--format", "json"],
            &["history", "leads", "--format", "json"],
            &["events", "leads"],
        ] {
            let shown =
                |redact: &str| bed.phasegate(&[command, &[redact][..]].concat()).expect(0).stdout;
            assert!(!shown("--redact").contains(SECRET), "{command:?}");
            let hidden = shown("--redact=keys");
            assert!(!hidden.contains("key 77") && !hidden.contains("\"77\""), "{hidden}");
        }
        let keys = bed.phasegate(&["status", "leads", "--redact"]).expect(0).stdout;
        assert!(keys.contains("key 77: only on the new side"), "{keys}");
        bed.phasegate(&["history", "leads", "--verify", "--redact"]).expect(0);
    }
}

#[test]
fn what_is_redacted_is_recorded_nowhere() {
    let project = "apiVersion: phasegate/v1
kind: Project
environments:
  quiet:
    state: state.db
    policy:
      redact: values
";
    for by_policy in [false, true] {
        for bed in Bed::both("differences without values", 10) {
            bed.sql("CREATE TABLE long_ (group_concat_ text)");
            let mut words = vec!["run", "plan.yaml", "--to", "compare"];
            if by_policy {
                bed.sandbox.write("phasegate.yaml", project);
                bed.phasegate(&["run", "plan.yaml", "--to", "copy", "--env", "quiet"]).expect(0);
                bed.sql(&format!("UPDATE leads_v2 SET status_code = '{SECRET}' WHERE id = 1"));
                words.extend(["--env", "quiet"]);
            } else {
                spoiled(&bed);
                words.extend(["--redact", "--state", ".phasegate/state.db"]);
            }
            let ran = bed.phasegate(&words).expect(7);
            assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(SECRET), "{ran}");
            assert!(ran.stdout.contains("key 1: differs in status_code"), "{ran}");
            let state = if by_policy { "state.db" } else { ".phasegate/state.db" };
            for file in [state.to_owned(), format!("{state}-wal")] {
                let bytes = std::fs::read(bed.sandbox.path(&file)).unwrap_or_default();
                let is_there =
                    bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
                assert!(!is_there, "{file} holds a value");
            }
            assert_eq!(bed.kept(), None);
        }
    }
}

#[test]
fn sides_that_are_no_longer_kept_in_step_are_not_compared() {
    for trouble in
        ["ALTER TABLE leads_v2 DROP COLUMN email", "ALTER TABLE leads DISABLE TRIGGER USER"]
    {
        let Some(bed) = Bed::on_server("a verify without a sync", 100) else { return };
        bed.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
        let Some(server) = &bed.server else { unreachable!() };
        server.run(trouble);
        let ran = bed.phasegate(&["run", "plan.yaml"]).expect(6);
        assert!(ran.stderr.contains("not as the run left them"), "{trouble}: {ran}");
        let status = bed.phasegate(&["status", "leads", "--format", "json"]).expect(0);
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        let steps = status["steps"].as_array().unwrap();
        let compare = steps.iter().find(|step| step["id"] == "compare").unwrap();
        assert_eq!(compare["state"], "failed", "{trouble}: {status}");
    }
}

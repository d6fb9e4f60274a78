//! Several runners at once: of runs that have nothing in common, and of one run on two machines.

use super::{Bed, HEAD, MOVE, did, mentions, step};
use crate::sandbox::Ran;
use crate::services;

#[test]
fn two_runs_of_disjoint_tables_that_begin_at_once_go_side_by_side() {
    let plan = |table: &str| {
        let plan = step("", &format!("ALTER TABLE {table} ADD COLUMN note text"));
        HEAD.replace("name: leads", &format!("name: {table}")) + &plan
    };
    for _ in 0..3 {
        let Some(bed) = Bed::new("two runs at once", "") else { return };
        bed.run(&format!(
            "CREATE TABLE public.other (id int); ALTER TABLE public.other OWNER TO {}",
            bed.name
        ));
        let start = |table: &str| {
            bed.sandbox.write(&format!("{table}.yaml"), &plan(table));
            let (file, state) = (format!("{table}.yaml"), format!("{table}.db"));
            let mut run = bed.sandbox.command(&["--state", &state, "run", &file]);
            let run = run.env("APP_URL", bed.app()).stdout(std::process::Stdio::piped());
            run.stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let runs = [start("leads"), start("other")];
        for run in runs {
            Ran::from(run.wait_with_output().unwrap()).expect(0);
        }
        assert_eq!(bed.number("SELECT count(*) FROM phasegate.runs WHERE state = 'completed'"), 2);
    }
}

#[test]
fn where_teams_keep_state_in_postgresql_a_runner_killed_on_another_machine_is_followed_at_once() {
    let Some(bed) = Bed::new("another machine", MOVE) else { return };
    if !did("unshare", &["--uts", "true"]) {
        return services::not_run("another machine's name can't be had here");
    }
    let state = bed.app();
    let mut run = std::process::Command::new("unshare");
    let mut run = run
        .args(["--uts", "sh", "-c", "hostname elsewhere && exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_phasegate"))
        .args(["--state", &state, "run", "plan.yaml"])
        .current_dir(bed.sandbox.path(""))
        .env("APP_URL", bed.app())
        .env("FAILPOINTS", "postgres::before-commit::chunk=5*off->1*sleep(60000)")
        .spawn()
        .unwrap();
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'state_leases'");
    bed.until("SELECT count(*) FROM phasegate.state_leases WHERE holder_host = 'elsewhere'");
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'chunks'");
    bed.until("SELECT count(*) FROM phasegate.chunks WHERE committed");
    let again = || bed.phasegate(&["--state", &state, "run", "plan.yaml"]);
    mentions(&again().expect(5), &["elsewhere"]);
    run.kill().unwrap();
    run.wait().unwrap();
    bed.until(
        "SELECT count(*) FROM phasegate.state_leases WHERE NOT EXISTS
         (SELECT FROM pg_stat_activity WHERE pid = session_pid)",
    );
    let still = "SELECT count(*) FROM phasegate.state_leases
        WHERE expires_ms > extract(epoch FROM clock_timestamp()) * 1000 + 3000";
    assert_eq!(bed.number(still), 1, "the lease was about to lapse by itself");
    again().expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
}

#[test]
fn two_plans_over_different_tables_with_a_mapping_of_one_name_come_one_after_the_other() {
    let Some(bed) = Bed::new("a mapping of one name", MOVE) else { return };
    bed.run(&format!(
        "SET search_path TO public; CREATE TABLE other (id int PRIMARY KEY, email text);
         INSERT INTO other VALUES (1, 'one'); ALTER TABLE other OWNER TO {}",
        bed.name
    ));
    let other = format!("{HEAD}{MOVE}").replace("name: leads", "name: other");
    let other = other.replace("table: leads", "table: other");
    let other = other.replace("TABLE leads_v2 (LIKE leads", "TABLE other_v2 (LIKE other");
    let other = other.replace("DROP TABLE leads_v2", "DROP TABLE other_v2");
    bed.sandbox.write("other.yaml", &other);
    bed.sandbox.write(
        "renamed.yaml",
        &other.replace("  leads:", "  others:").replace("mapping: leads", "mapping: others"),
    );

    bed.phasegate(&["run", "plan.yaml", "--to", "sync"]).expect(0);
    let of_first =
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'leads'::regclass AND NOT tgisinternal";
    let triggers = bed.number(of_first);
    assert!(triggers > 0);
    let refused = bed.phasegate(&["--state", "other.db", "run", "other.yaml"]).expect(5);
    mentions(&refused, &["of plan leads has a mapping called leads too", "another name"]);
    let refused = bed.phasegate(&["--state", "other.db", "run", "other.yaml", "--format", "json"]);
    assert_eq!(refused.expect(5).json()["holder"]["over"], "mapping leads");
    assert_eq!(bed.number("SELECT count(*) FROM pg_tables WHERE tablename = 'other_v2'"), 0);
    // Under another name they go side by side, and each has its own.
    bed.phasegate(&["--state", "other.db", "run", "renamed.yaml"]).expect(0);
    assert_eq!(bed.number(of_first), triggers);
    // What has ended took its own along, though the other's tables of the ledger are in use.
    let of_second =
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'other'::regclass AND NOT tgisinternal";
    assert_eq!(bed.number(of_second), 0);
    let marks = "SELECT count(*) FROM pg_tables WHERE schemaname = 'phasegate' AND tablename LIKE 'touched%'";
    assert_eq!(bed.number(marks), 1);
    bed.run(
        "INSERT INTO public.leads VALUES (1000, 'late'); DELETE FROM public.leads WHERE id = 1000",
    );
    bed.run("DROP TABLE public.other_v2");
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
    bed.phasegate(&["--state", "third.db", "run", "other.yaml"]).expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM other_v2"), 1);
}

/// What stands in the way names the run, whose it is and where, whichever store it is in; from another store it can be brought here.
#[test]
fn two_plans_over_one_table_come_one_after_the_other_wherever_their_runs_are_kept() {
    let Some(bed) = Bed::new("one table in two plans", MOVE) else { return };
    let other = format!("{HEAD}{MOVE}").replace("name: leads", "name: other");
    let other = other.replace("leads_v2", "leads_v3").replace("  leads:", "  others:");
    bed.sandbox.write("other.yaml", &other.replace("mapping: leads", "mapping: others"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let there = ["--state", "first.db"];
    bed.phasegate(&[&there[..], &["run", "plan.yaml", "--to", "copy"]].concat()).expect(0);
    let run = &bed.phasegate(&[&there[..], &["status", "leads", "--format", "json"]].concat());
    let run = run.json()["run"].as_str().unwrap().to_owned();
    for here in ["first.db", "second.db"] {
        let begin = ["--state", here, "run", "other.yaml"];
        let refused = bed.phasegate(&begin).expect(5);
        mentions(&refused, &[&format!("held by run {run} of plan leads"), host.trim(), "first.db"]);
        mentions(&refused, &["both work on table leads"]);
        let holder = bed.phasegate(&[&begin[..], &["--format", "json"]].concat()).expect(5).json();
        assert_eq!(holder["holder"]["plan"], "leads", "{holder:#}");
        assert_eq!(holder["holder"]["over"], "table leads", "{holder:#}");
        assert_eq!(holder["holder"]["run"], run, "{holder:#}");
        assert_eq!(bed.number("SELECT count(*) FROM pg_tables WHERE tablename = 'leads_v3'"), 0);
    }
    let refused = bed.phasegate(&["--state", "second.db", "run", "other.yaml"]).expect(5);
    mentions(&refused, &[&format!("first.db state export {run} --out FILE"), "state import FILE"]);

    // As it says: the first goes on here, and when it is over the second has its turn.
    bed.phasegate(&["--state", "first.db", "state", "export", &run, "--out", "leads.jsonl"])
        .expect(0);
    bed.phasegate(&["--state", "second.db", "state", "import", "leads.jsonl"]).expect(0);
    bed.phasegate(&["--state", "second.db", "run", "other.yaml"]).expect(5);
    bed.phasegate(&["--state", "second.db", "run", "plan.yaml"]).expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
    bed.phasegate(&["--state", "second.db", "run", "other.yaml"]).expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v3"), 400);
    assert_eq!(bed.number("SELECT count(*) FROM phasegate.runs WHERE state = 'completed'"), 2);
}

/// A copy beside a statement that may take as long as it likes.
const BESIDE: &str = r"mappings:
  leads:
    from: { target: app, table: leads, key: [id] }
    into: { target: app, table: leads_v2 }
steps:
  - id: create
    phase: expand
    target: app
    sql: CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL)
    undo:
      sql: DROP TABLE leads_v2
  - id: sync
    phase: dual-write
    dual_write: { mapping: leads, direction: forward }
  - id: copy
    phase: backfill
    needs: [sync]
    backfill:
      mapping: leads
      workers: 1
      chunk: { rows: 10 }
      pause_between: 50ms
  - id: slow
    phase: backfill
    needs: [sync]
    target: app
    lock_timeout: 1m
    sql: ALTER TABLE beside ADD COLUMN note text
    undo:
      none: a test
  - id: compare
    phase: verify
    verify: { mapping: leads, method: full }
";

#[test]
fn a_copy_goes_on_beside_a_statement_that_waits_and_a_takeover_fences_both_off() {
    let Some(bed) = Bed::new("a copy beside a statement", BESIDE) else { return };
    bed.run(&format!(
        "CREATE TABLE public.beside (id int); ALTER TABLE public.beside OWNER TO {}",
        bed.name
    ));
    let mut client = bed.client(&bed.name);
    bed.on(&mut client, "BEGIN; LOCK TABLE public.beside IN ACCESS SHARE MODE");
    let start = || {
        let mut run = bed.sandbox.command(&["run", "plan.yaml"]);
        run.env("APP_URL", bed.app()).spawn().unwrap()
    };
    let mut run = start();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE beside%'";
    bed.until(waits);
    assert_eq!(bed.number("SELECT count(*) FROM phasegate.steps WHERE step = 'copy'"), 0);
    let committed = "SELECT coalesce(sum(watermark), 0) FROM phasegate.copies";
    bed.until(&format!("SELECT (({committed}) > 2)::int"));
    assert_eq!(bed.number(waits), 1);

    // Whoever takes over ends both, and goes on with both.
    run.kill().unwrap();
    run.wait().unwrap();
    let sessions = "SELECT count(*) FROM phasegate.slots WHERE token = 1";
    assert!(bed.number(sessions) > 0);
    let mut run = start();
    bed.until("SELECT count(*) FROM phasegate.slots WHERE token = 2");
    assert_eq!(bed.number(sessions), 0);
    bed.until("SELECT count(*) FROM phasegate.steps WHERE step = 'copy'");
    bed.until(waits);
    assert_eq!(bed.number(waits), 1);
    bed.on(&mut client, "COMMIT");
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
}

//! Who is in the way, and what becomes of whatever waits: locks, deadlocks, concurrent builds.

use std::io::{BufRead as _, BufReader};

use super::{Bed, MOVE, mentions, step};
use crate::sandbox::Ran;

#[test]
fn whatever_waits_for_a_lock_names_its_holder() {
    let plan = guarded("lock_timeout: 300ms\n    retry: { attempts: 1 }");
    let Some(bed) = Bed::new("who holds a lock", &plan) else { return };
    bed.run(&format!("GRANT pg_read_all_stats TO {}", bed.name));
    let mut client = bed.client(&bed.name);
    for (table, to) in [("leads", "sync"), ("leads", "retire"), ("leads_old", "drop")] {
        if to == "retire" {
            bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
        }
        bed.on(&mut client, &format!("BEGIN; LOCK TABLE public.{table} IN ROW EXCLUSIVE MODE"));
        let ran = bed.phasegate(&["run", "plan.yaml", "--to", to]).expect(1);
        let holder = "idle in transaction";
        mentions(&ran, &["waiting for ", "Lock on leads", " pid ", holder, "LOCK TABLE public."]);
        mentions(&ran, &["pg_terminate_backend("]);
        bed.on(&mut client, "ROLLBACK");
        bed.phasegate(&["retry", "leads", "--to", to]).expect(0);
    }
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
}

/// The whole way of leads, with these keys at whatever takes a lock.
fn guarded(keys: &str) -> String {
    let sync = MOVE.replace("    dual_write:", "    KEYS\n    dual_write:");
    format!("{sync}{CONTRACT}").replace("KEYS", keys)
}

const CONTRACT: &str = r"  - id: ready
    phase: contract
    gate: { verified_within: 1h }
  - id: retire
    phase: contract
    KEYS
    retire: { mapping: leads, old_name: leads_old, take_name: true }
  - id: ready-to-drop
    phase: contract
    gate: { verified_within: 1h }
  - id: drop
    phase: contract
    KEYS
    drop: { mapping: leads }
    irreversible: every row lives on in the new table
";

/// Reads what a run says until a line has these words in it.
fn until_said(run: &mut std::process::Child, words: &str) {
    let mut lines = BufReader::new(run.stderr.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(words)), "it ended without saying {words:?}");
}

#[test]
fn a_chunk_and_a_concurrent_build_say_whom_they_wait_for_while_they_wait() {
    let build =
        step("    transaction: none\n", "CREATE INDEX CONCURRENTLY by_email ON leads (email)");
    for (plan, blocking) in [
        (MOVE, "BEGIN; SELECT FROM public.leads WHERE id = 5 FOR UPDATE"),
        (&build, "BEGIN; UPDATE public.leads SET email = 'x' WHERE id = 5"),
    ] {
        let Some(bed) = Bed::new("who is in the way", plan) else { return };
        bed.run(&format!("GRANT pg_read_all_stats TO {}", bed.name));
        let mut client = bed.client(&bed.name);
        bed.on(&mut client, blocking);
        let mut run = bed.sandbox.command(&["run", "plan.yaml"]);
        let mut run =
            run.env("APP_URL", bed.app()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        until_said(&mut run, "idle in transaction");
        bed.on(&mut client, "ROLLBACK");
        assert_eq!(run.wait_with_output().unwrap().status.code(), Some(0), "{blocking}");
    }
}

#[test]
fn killed_in_a_concurrent_build_the_next_run_builds_it_anew() {
    let keys = "    transaction: none\n";
    let plan = step(keys, "CREATE UNIQUE INDEX CONCURRENTLY by_email ON leads (email)");
    let Some(bed) = Bed::new("killed in a concurrent build", &plan) else { return };
    let mut client = bed.client(&bed.name);
    bed.on(&mut client, "BEGIN; UPDATE public.leads SET email = 'x' WHERE id = 5");
    let mut run = bed.sandbox.command(&["run", "plan.yaml"]);
    let mut run = run.env("APP_URL", bed.app()).spawn().unwrap();
    bed.until("SELECT count(*) FROM pg_index WHERE NOT indisvalid");
    run.kill().unwrap();
    run.wait().unwrap();
    // Left alone, the server would build on for whoever is dead once the client is gone: so the client stays until then.
    let mut run = bed.sandbox.command(&["run", "plan.yaml"]);
    let run = run.env("APP_URL", bed.app()).stdout(std::process::Stdio::piped());
    let run = run.stderr(std::process::Stdio::piped()).spawn().unwrap();
    bed.until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'DROP INDEX CONCURRENTLY%'");
    bed.on(&mut client, "ROLLBACK");
    let ran = Ran::from(run.wait_with_output().unwrap()).expect(0);
    mentions(&ran, &["dropped the INVALID index"]);
    let valid =
        "SELECT count(*) FROM pg_index WHERE indexrelid = 'by_email'::regclass AND indisvalid";
    assert_eq!(bed.number(valid), 1);
}

#[test]
fn a_deadlock_of_a_step_and_a_serialization_failure_are_tried_again_and_counted() {
    let sql = "ALTER TABLE leads ADD COLUMN one int; ALTER TABLE other ADD COLUMN one int; INSERT INTO other VALUES (1)";
    let Some(bed) = Bed::new("deadlock", &step("    lock_timeout: 1m\n", sql)) else { return };
    // So long there is for the client to get into the way, once it is waited for.
    bed.run(&format!("ALTER ROLE {} SET deadlock_timeout = '5s'", bed.name));
    // The first attempt to get through meets a serialization failure; a sequence counts whatever is rolled back.
    bed.run(&format!(
        "CREATE TABLE public.other (id int); ALTER TABLE public.other OWNER TO {0}; CREATE SEQUENCE public.tries;
         GRANT USAGE ON SEQUENCE public.tries TO {0};
         CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF nextval('public.tries') < 2 THEN RAISE 'not now' USING ERRCODE = '40001'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON public.other FOR EACH ROW EXECUTE FUNCTION public.refuse()",
        bed.name
    ));
    let mut client = bed.client(&bed.name);
    bed.on(&mut client, "SET deadlock_timeout = '1min'; BEGIN; LOCK TABLE public.other");
    let mut run = bed.sandbox.command(&["run", "plan.yaml"]);
    let run = run
        .env("APP_URL", bed.app())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    bed.until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE other%'");
    bed.on(&mut client, "LOCK TABLE public.leads");
    bed.on(&mut client, "COMMIT");
    let ran = Ran::from(run.wait_with_output().unwrap()).expect(0);
    mentions(&ran, &["deadlock detected [40P01]", "not now [40001]"]);
    let status = bed.phasegate(&["status", "leads", "--format", "json"]).expect(0).json();
    assert_eq!(status["steps"][0]["attempts"], 3, "{status}");
}

//! What holds a copy back, at the command line: why is said while it does, everything else works meanwhile, and it goes on.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Bed, MOVE, mentions};
use crate::sandbox::{Ran, wait_for};

/// Far beyond what it takes; only a hang reaches it.
const LIMIT: Duration = Duration::from_mins(1);

/// The plan with these keys beside the mapping of its backfill, in small chunks with rests between them.
pub fn plan(keys: &str) -> String {
    let slow = "    backfill:\n      mapping: leads\n      pause_between: 200ms\n";
    let text = MOVE.replace("      workers: 4\n", "");
    text.replace("    backfill:\n      mapping: leads\n", &format!("{slow}{keys}"))
}

/// Held back by the number in a table that clients may change.
const BLOCKED: &str = "      throttle:
        - name: blocked
          query: select n from hold
          max: 10
          every: 100ms
";

impl Bed {
    pub(super) fn throttled(test: &str, keys: &str) -> Option<Self> {
        let bed = Self::new(test, &plan(keys))?;
        bed.run(&format!(
            "CREATE TABLE public.hold (n int); INSERT INTO public.hold VALUES (50);
             GRANT SELECT ON public.hold TO {}",
            bed.name
        ));
        Some(bed)
    }

    fn hold(&self, number: &str) {
        self.run(&format!("UPDATE public.hold SET n = {number}"));
    }

    pub(super) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.sandbox.command(args);
        let command = command.env("APP_URL", self.app()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The backfill as `status` has it; null before there is one.
    pub(super) fn copy(&self) -> Value {
        let status = self.phasegate(&["status", "leads", "--format", "json"]);
        if status.code != Some(0) {
            return Value::Null;
        }
        let document = status.json();
        let steps = document["steps"].as_array().cloned().unwrap_or_default();
        steps.into_iter().find(|step| step["id"] == "copy").unwrap_or_default()
    }

    /// Waits until the copy is held back for a reason with these words, and gives that.
    #[track_caller]
    pub(super) fn until_held(&self, words: &str) -> Value {
        let mut last = Value::Null;
        let is_held = wait_for(LIMIT, || {
            last = self.copy();
            last["throttled"][0]["reason"].as_str().is_some_and(|reason| reason.contains(words))
        });
        assert!(is_held, "it is not held by {words:?}: {last:#}");
        last["throttled"][0].clone()
    }

    fn until_copied(&self, rows: i64) {
        assert!(wait_for(LIMIT, || self.copied() >= rows), "{:#}", self.copy());
    }

    fn copied(&self) -> i64 {
        let there = "SELECT count(*) FROM pg_class WHERE relname = 'leads_v2'";
        if self.number(there) == 0 { 0 } else { self.number("SELECT count(*) FROM leads_v2") }
    }
}

#[track_caller]
pub fn ended(child: Child, code: i32) -> Ran {
    Ran::from(child.wait_with_output().unwrap()).expect(code)
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_query_holds_a_copy_and_everything_else_works_meanwhile() {
    let Some(bed) = Bed::throttled("a query holds a copy", BLOCKED) else { return };
    let run = bed.spawn(&["run", "plan.yaml"]);
    let held = bed.until_held("50 >= 10");
    assert_eq!(
        (&held["name"], &held["value"], &held["limit"]),
        (&"blocked".into(), &50.0.into(), &10.0.into())
    );
    assert_eq!(held["unit"], "number");
    assert!(held["since"].as_str().unwrap().starts_with("20"), "{held}");
    assert_eq!(bed.copied(), 0, "no chunk began");
    let status = bed.phasegate(&["status", "leads"]).expect(0);
    mentions(&status, &["held back: blocked 50 >= 10"]);
    let json = bed.phasegate(&["status", "leads", "--format", "json"]).json();
    assert_eq!(json["waiting_for"][0], "throttle blocked");

    // It lets go, and holds again in the middle.
    bed.hold("0");
    bed.until_copied(60);
    bed.hold("99");
    bed.until_held("99 >= 10");
    let so_far = bed.copied();
    assert!(so_far < 400, "there was nothing left to hold");
    // What can't be read holds too, and so does what is no value: it is not 0.
    bed.hold("NULL");
    bed.until_held("gives no value");
    bed.run("ALTER TABLE public.hold RENAME n TO m");
    bed.until_held("can't be read");
    bed.run("ALTER TABLE public.hold RENAME m TO n");
    assert_eq!(bed.copied(), so_far, "a chunk began while it was held");

    // A pause works at once; then nothing holds anything any more.
    bed.phasegate(&["pause", "leads"]).expect(0);
    let ran = ended(run, 8);
    mentions(&ran, &["held back: blocked", "blocked lets go"]);
    assert_eq!(bed.copy()["throttled"], serde_json::json!([]));
    bed.hold("99");
    let run = bed.spawn(&["resume", "leads"]);
    bed.until_held("99 >= 10");

    // Killed while it is held, it goes on from where it was, and is held until it was looked at.
    kill(run);
    let run = bed.spawn(&["run", "plan.yaml"]);
    bed.until_held("99 >= 10");
    assert_eq!(bed.copied(), so_far);
    bed.hold("0");
    ended(run, 0);
    assert_eq!(bed.copied(), 400);
    assert_eq!(bed.copy()["rows_done"], 400);
}

#[test]
fn a_query_that_hangs_holds_a_copy_until_it_answers() {
    let Some(bed) = Bed::throttled("a query that hangs", BLOCKED) else { return };
    bed.run(&format!(
        "ALTER TABLE public.hold RENAME TO held;
         CREATE VIEW public.hold AS SELECT n FROM public.held WHERE n >= 0 OR pg_sleep(600) IS NULL;
         GRANT SELECT ON public.hold TO {}",
        bed.name
    ));
    bed.hold("0");
    let run = bed.spawn(&["run", "plan.yaml"]);
    bed.until_copied(20);
    bed.phasegate(&["tune", "leads", "--pause-between", "1s"]).expect(0);
    bed.run("UPDATE public.held SET n = -1");
    // What was answered last counts for 5 s.
    bed.until_held("answer");
    let so_far = bed.copied();
    assert!(so_far < 400, "there was nothing left to hold");
    // Asked again, it does not answer again.
    std::thread::sleep(Duration::from_secs(3));
    bed.until_held("answer");
    assert_eq!(bed.copied(), so_far, "a chunk began while nobody knew");
    bed.run("UPDATE public.held SET n = 0");
    bed.phasegate(&["tune", "leads", "--pause-between", "0s"]).expect(0);
    ended(run, 0);
    assert_eq!(bed.copied(), 400);
}

#[test]
fn what_is_held_for_too_long_fails_and_can_be_tried_again() {
    let keys = format!("      max_throttled_for: 1s\n{BLOCKED}");
    let Some(bed) = Bed::throttled("held for too long", &keys) else { return };
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(1);
    mentions(&ran, &["held back for longer than 1s: blocked 50 >= 10 for 1s", "retry", "--limit"]);
    assert_eq!(bed.copied(), 0);
    bed.hold("0");
    bed.phasegate(&["retry", "leads"]).expect(0);
    assert_eq!(bed.copied(), 400);
}

#[test]
fn a_limit_is_moved_while_the_copy_is_held() {
    let Some(bed) = Bed::throttled("a limit is moved", BLOCKED) else { return };
    let run = bed.spawn(&["run", "plan.yaml"]);
    bed.until_held("50 >= 10");
    for (limit, words) in [
        ("blockde=20", "its throttles: blocked"),
        ("blocked=5s", "the plan's is 10"),
        ("blocked=0", "never let go"),
    ] {
        let ran = bed.phasegate(&["tune", "leads", "--limit", limit]).expect(64);
        mentions(&ran, &[words]);
    }
    bed.phasegate(&["tune", "leads", "copy", "--limit", "blocked=40", "--pause-between", "1s"])
        .expect(0);
    let held = bed.until_held("50 >= 40");
    assert_eq!(held["limit"], 40.0);
    assert_eq!(bed.copy()["tuning"]["limits"]["blocked"]["to"]["value"], 40.0);
    // Taken off, it holds nothing; put back, it does.
    bed.phasegate(&["tune", "leads", "--limit", "blocked=off"]).expect(0);
    bed.until_copied(20);
    bed.phasegate(&["tune", "leads", "--limit", "blocked=plan"]).expect(0);
    bed.until_held("50 >= 10");
    assert!(bed.copied() < 400, "it was off for too long to tell");
    bed.phasegate(&["tune", "leads", "--limit", "blocked=100", "--pause-between", "0s"]).expect(0);
    ended(run, 0);
    assert_eq!(bed.copied(), 400);
    let history = bed.phasegate(&["history", "leads"]).expect(0);
    mentions(
        &history,
        &["between chunks, blocked 40", "blocked off", "0ms between chunks, blocked 100"],
    );
}

#[test]
fn workers_and_the_size_of_chunks_change_while_the_copy_runs() {
    let slow = plan("")
        .replace("table: leads_v2 }\n", "table: leads_v2 }\n    columns: { email: slow(email) }\n");
    let Some(bed) = Bed::new("workers change", &slow) else { return };
    bed.run(
        "CREATE FUNCTION public.slow(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
         $$BEGIN PERFORM pg_sleep(0.01); RETURN $1; END$$;
         INSERT INTO public.leads SELECT g, 'lead ' || g FROM generate_series(401, 1200) AS g",
    );
    let run = bed.spawn(&["run", "plan.yaml", "--to", "copy"]);
    bed.until_copied(20);
    let at_work = || {
        bed.number(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND wait_event = 'PgSleep' AND application_name LIKE 'phasegate %'",
        )
    };
    assert!(at_work() <= 1);
    bed.phasegate(&["tune", "leads", "copy", "--workers", "3", "--pause-between", "0s"]).expect(0);
    assert!(wait_for(LIMIT, || at_work() == 3), "never three at once");
    bed.phasegate(&["tune", "leads", "--workers", "1", "--chunk-rows", "37"]).expect(0);
    assert!(wait_for(LIMIT, || at_work() <= 1), "three for ever");
    for _ in 0..5 {
        assert!(at_work() <= 1, "more than one again");
    }
    let of_37 = "SELECT count(*) FROM phasegate.chunks
        WHERE (hi::jsonb -> 0 ->> 'integer')::int - (lo::jsonb -> 0 ->> 'integer')::int = 37";
    assert!(wait_for(LIMIT, || bed.number(of_37) > 0), "no chunk of that size");
    let tuning = bed.copy()["tuning"].clone();
    assert_eq!((&tuning["workers"], &tuning["chunk_rows"]), (&1.into(), &37.into()), "{tuning}");
    bed.phasegate(&["tune", "leads", "--workers", "8"]).expect(0);
    ended(run, 0);
    assert_eq!(bed.copied(), 1_200);
    let history = bed.phasegate(&["history", "leads"]).expect(0);
    mentions(&history, &["copy: tuned: 3 workers", "1 worker, chunks of 37 rows"]);
}

#[test]
fn a_file_holds_a_copy_and_so_do_the_hours() {
    let file = std::env::temp_dir().join(format!("stop-{}", uuid::Uuid::now_v7().simple()));
    std::fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    let keys = |freeze: &str| {
        format!(
            "      max_throttled_for: 1s
      throttle:
        - name: hours
          window: {{ zone: UTC, freezes: [{freeze}] }}
          every: 100ms
        - name: stop
          file: {path}
          every: 100ms
"
        )
    };
    let Some(bed) = Bed::throttled("a file holds a copy", &keys("2020-12-24")) else { return };
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(1);
    mentions(&ran, &[&format!("stop {path} is there")]);
    std::fs::remove_file(&file).unwrap();
    bed.phasegate(&["retry", "leads"]).expect(0);
    assert_eq!(bed.copied(), 400);
    drop(bed);

    // Waiting for a window is no trouble, however long it takes.
    let today = chrono::Utc::now().date_naive();
    let (from, to) = (today - chrono::Days::new(1), today + chrono::Days::new(2));
    let frozen = keys(&format!("{from}..{to}"));
    let Some(bed) = Bed::throttled("hours hold a copy", &frozen) else { return };
    let run = bed.spawn(&["run", "plan.yaml"]);
    bed.until_held(&format!("frozen {from} to {to}; opens"));
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(bed.copy()["state"], "running");
    kill(run);
}

#[test]
fn a_role_that_may_not_see_replicas_is_held_and_told_what_it_needs() {
    let keys = "      throttle:
        - name: lag
          replica_lag: { max: 1h }
          every: 100ms
";
    let Some(bed) = Bed::throttled("may not see replicas", keys) else { return };
    let run = bed.spawn(&["run", "plan.yaml"]);
    bed.until_held("may not see replicas (GRANT pg_monitor TO bin_");
    bed.run(&format!("GRANT pg_monitor TO {}", bed.name));
    ended(run, 0);
}

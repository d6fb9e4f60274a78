//! The state store goes mute, or is gone, while a run is driven: connections are open, and nothing is answered. No effect starts without
//! its record, what is under way in the target ends, the process ends in time with 69, and the next start goes on.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use phasegate::bounds::store::ANSWER_WITHIN;

use super::wire::{Fault, Wire};
use super::{Between, Run};
use crate::bad_luck_postgres::server::Server;
use crate::bad_luck_postgres::writer::Writer;
use crate::bad_luck_postgres::{edit, leads};
use crate::examples::Example;
use crate::examples::database::Database;
use crate::failures::signal;
use crate::lives::note_chunks;
use crate::sandbox::{Ran, wait_for};

/// How soon a process ends whose store is mute: what it may wait for an answer, thrice that.
const ENDS_WITHIN: Duration = Duration::from_secs(3 * ANSWER_WITHIN.as_secs());
/// The same of one that opens the store meanwhile: a statement of that may take 20 s, thrice that.
const OPENS_WITHIN: Duration = Duration::from_mins(1);

/// The beginning of the copy is about to be durable.
const STARTS: &[&str] = &[r#""kind":"step_started","step":"copy-leads""#, "COMMIT\0"];
/// Its end is.
const ENDS: &[&str] = &[r#""kind":"step_succeeded","step":"copy-leads""#, "COMMIT\0"];

/// What a process comes to that is to end soon.
#[track_caller]
fn ended(mut child: Child, within: Duration) -> Ran {
    let is_over = wait_for(within, || child.try_wait().unwrap().is_some());
    if !is_over {
        child.kill().unwrap();
    }
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!(is_over, "it did not end within {within:?}: {ran}");
    ran
}

impl Run {
    /// The same with a state store on a server of its own, in which each may have as many connections as it wants.
    fn on_its_own_server(test: &str) -> Option<(Self, Server)> {
        let server = Server::with(test, "-c max_connections=500")?;
        let example = leads()?;
        let stored = Database::on(&server.url, "SELECT 1");
        let (store, wire) = (stored.url.clone(), Wire::to(&stored.url));
        let run = Self { example, wire, between: Between::Store, store, stored: Some(stored) };
        run.phasegate(&["run", &run.example.plan(), "--to", "create-leads-v2"]).expect(0);
        note_chunks(&run.example.database);
        Some((run, server))
    }

    /// In the middle of its copy, which takes about a minute.
    fn copying() -> Option<(Self, Child)> {
        let run = Self::with(Between::Store, |example| {
            edit(example, "rows: 150", "rows: 20");
            edit(example, "pause_between: 0s", "pause_between: 2s");
        })?;
        let child = run.driving();
        let some = || run.chunks() >= 4;
        assert!(wait_for(Duration::from_mins(1), some), "the copy does not begin");
        Some((run, child))
    }

    fn driving(&self) -> Child {
        let mut command = self.command(&["run", &self.example.plan()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Has the store go mute while it is asked something, so that an answer is waited for.
    fn goes_mute(&self) {
        let run = self.stored.as_ref().unwrap().value("SELECT run FROM phasegate.state_runs");
        self.wire.plan_behind(&[&run], Fault::Mute);
        let is_mute = wait_for(Duration::from_mins(1), || self.wire.has_held());
        assert!(is_mute, "nothing was asked");
    }

    /// Chunks that were committed.
    fn chunks(&self) -> u64 {
        let count = "SELECT count(*) FROM noted.chunks";
        self.example.database.rows_as_superuser(count)[0].parse().unwrap()
    }

    fn no_more_pauses(&self) {
        self.phasegate(&["tune", self.example.name, "--pause-between", "0s"]).expect(0);
    }

    fn goes_on(&self, case: &str) {
        let ran = self.phasegate(&["run", &self.example.plan()]);
        assert_eq!(ran.code, Some(0), "{case}: {ran}");
    }

    /// What the target's ledger has was begun, by the journal.
    #[track_caller]
    fn nothing_was_done_without_a_record(&self) {
        let in_ledger = "SELECT step FROM phasegate.steps UNION SELECT step FROM phasegate.copies
            UNION SELECT step FROM phasegate.chunks ORDER BY 1";
        let history = self.phasegate(&["history", self.example.name, "--format", "json"]);
        let history = history.expect(0).json();
        let started: BTreeSet<&str> = history["records"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|record| record["event"]["kind"] == "step_started")
            .filter_map(|record| record["event"]["step"].as_str())
            .collect();
        let done = self.example.database.rows(in_ledger);
        assert!(!done.is_empty(), "nothing was done at all");
        for step in done {
            assert!(started.contains(&*step), "{step} was done without a record: {started:?}");
        }
    }
}

#[test]
fn mute_in_the_middle_of_a_copy_the_store_ends_the_run_and_the_next_start_goes_on() {
    let Some((run, child)) = Run::copying() else { return };
    let writer = Writer::at_work(&run.example);
    run.goes_mute();
    let ran = ended(child, ENDS_WITHIN).expect(69);
    assert!(ran.stderr.contains("can't be reached"), "{ran}");
    let copied = run.chunks();
    assert!(copied < 100, "the copy came to its end before");
    // It still is, and nobody waits for it without end.
    ended(run.driving(), OPENS_WITHIN).expect(69);
    run.wire.unmute();
    run.nothing_was_done_without_a_record();
    assert_eq!(run.chunks(), copied, "somebody went on");
    run.no_more_pauses();
    run.goes_on("mute in a copy");
    writer.ends_well();
    run.was_once("mute in a copy");
}

/// Whether or not the commit of a record comes to the store, its answer does not come back: the next start reads what became of it.
#[test]
fn mute_at_the_commit_of_a_record_the_store_has_it_or_has_not_and_the_next_start_is_right() {
    let cases = [STARTS, ENDS]
        .into_iter()
        .flat_map(|words| [Fault::Mute, Fault::AnswerMute].map(|fault| (words, fault)));
    std::thread::scope(|scope| {
        for (words, fault) in cases {
            scope.spawn(move || {
                let case = format!("{fault:?} at {words:?}");
                let Some(run) = Run::new(Between::Store) else { return };
                let writer = Writer::at_work(&run.example);
                run.wire.plan_behind(words, fault);
                let child = run.driving();
                let is_mute = wait_for(Duration::from_mins(1), || run.wire.has_held());
                assert!(is_mute, "{case}: nothing was held: {}", ended(child, ENDS_WITHIN));
                let ran = ended(child, ENDS_WITHIN);
                // What begins only when its record is durable has not begun.
                assert_eq!(run.chunks() == 0, words == STARTS, "{case}: {ran}");
                assert!(ran.stderr.contains("is not known"), "{case}: {ran}");
                ran.expect(69);
                run.wire.unmute();
                run.nothing_was_done_without_a_record();
                run.goes_on(&case);
                writer.ends_well();
                run.was_once(&case);
            });
        }
    });
}

#[test]
fn a_signal_ends_a_run_whose_store_is_mute() {
    std::thread::scope(|scope| {
        for signals in [&["INT"][..], &["TERM"], &["INT", "INT"]] {
            scope.spawn(move || {
                let Some((run, child)) = Run::copying() else { return };
                run.goes_mute();
                for name in signals {
                    signal(child.id(), name);
                    std::thread::sleep(Duration::from_millis(500));
                }
                ended(child, ENDS_WITHIN).expect(69);
                run.wire.unmute();
                run.no_more_pauses();
                run.goes_on("a signal");
                run.was_once("a signal");
            });
        }
    });
}

/// Others may have the run once its lease has lapsed, so nobody works on it without end.
#[test]
fn a_statement_without_an_end_is_ended_when_the_lease_has_lapsed_because_the_store_is_mute() {
    let endless = |example: &Example| {
        edit(
            example,
            "    sql: ANALYZE leads_v2\n    undo:\n      none: statistics go with the table\n",
            "    sql: SELECT pg_sleep(600)\n    undo:\n      none: nothing was done\n",
        );
    };
    let Some(run) = Run::with(Between::Store, endless) else { return };
    let sleeps = || {
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND state = 'active' AND wait_event = 'PgSleep'";
        run.example.database.value(sleeping) != "0"
    };
    let child = run.driving();
    assert!(wait_for(Duration::from_mins(1), sleeps), "the step did not begin");
    run.goes_mute();
    // The lease lapses some 25 s later: it is renewed every 5 s, lasts 15 s, and two renewals are waited for.
    ended(child, Duration::from_secs(3 * 25)).expect(69);
    let is_over = wait_for(Duration::from_secs(10), || !sleeps());
    assert!(is_over, "the server goes on with it");
    run.wire.unmute();
    edit(&run.example, "pg_sleep(600)", "pg_sleep(0)");
    run.nothing_was_done_without_a_record();
    run.phasegate(&["rollback", run.example.name, "--yes"]).expect(0);
}

/// Wherever it goes mute, whoever only looks is told.
#[test]
fn who_only_looks_at_a_store_that_is_mute_is_told_so() {
    let made = Run::on_its_own_server("a store that is mute, looked at");
    let Some((run, _server)) = made else { return };
    let (stored, told) = (run.stored.as_ref().unwrap(), AtomicU64::new(0));
    let mut all = 0;
    let looks: [&[&str]; 4] = [
        &["status", run.example.name],
        &["history", run.example.name],
        &["lock", "list"],
        &["state", "check"],
    ];
    std::thread::scope(|scope| {
        for look in looks {
            let looking = |wire: &Wire| {
                let args: Vec<&str> =
                    ["--state", &wire.url].into_iter().chain(look.iter().copied()).collect();
                let mut command = run.example.command(&args);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            };
            let whole = Wire::to(&stored.url);
            ended(looking(&whole), OPENS_WITHIN).expect(0);
            let pieces = whole.sent();
            assert!(pieces >= 5, "{look:?} sent {pieces} pieces");
            all += pieces;
            for nth in 1..=pieces {
                let told = &told;
                scope.spawn(move || {
                    let wire = Wire::to(&stored.url);
                    wire.plan(nth, Fault::Mute);
                    let began = Instant::now();
                    let ran = ended(looking(&wire), OPENS_WITHIN);
                    // Behind the last answer connections are tried once more, which nobody waits for.
                    if ran.code == Some(0) && began.elapsed() < ANSWER_WITHIN {
                        return;
                    }
                    assert_eq!(ran.code, Some(69), "{look:?}, mute at {nth} of {pieces}: {ran}");
                    told.fetch_add(1, Ordering::SeqCst);
                });
            }
        }
    });
    let told = told.into_inner();
    assert!(told * 4 > all * 3, "{told} of {all} were told");
}

#[test]
fn an_answer_that_an_operator_lost_is_not_known_and_can_be_asked_for_again() {
    for fault in [Fault::Mute, Fault::AnswerMute] {
        let Some(run) = Run::new(Between::Store) else { return };
        let name = run.example.name;
        run.wire.plan_behind(&[r#""kind":"paused""#, "COMMIT\0"], fault);
        let mut command = run.command(&["pause", name]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let ran = ended(child, ENDS_WITHIN).expect(69);
        assert!(ran.stderr.contains("is not known"), "{fault:?}: {ran}");
        run.wire.unmute();
        run.phasegate(&["pause", name]).expect(0);
        run.phasegate(&["run", &run.example.plan()]).expect(8);
        run.phasegate(&["resume", name]).expect(0);
        run.was_once("paused");
    }
}

#[test]
fn gone_while_a_chunk_sleeps_the_store_ends_the_run_and_has_begun_all_that_was_done() {
    for how in ["immediate", "fast"] {
        let made = Run::on_its_own_server("a state store that goes away");
        let Some((run, server)) = made else { return };
        let child = run
            .command(&["run", &run.example.plan()])
            .env("FAILPOINTS", "postgres::before-commit::chunk=3*off->1*sleep(4000)->off")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND state = 'idle in transaction' AND now() - state_change > interval '500 milliseconds'";
        let sleeps = || run.chunks() >= 2 && run.example.database.value(sleeping) == "1";
        assert!(wait_for(Duration::from_mins(1), sleeps), "{how}: no chunk is asleep");
        server.control(&["-m", how, "stop"]);
        let ran = ended(child, ENDS_WITHIN).expect(69);
        assert!(!ran.stderr.contains(&server.url), "{ran}");
        // As long as it is gone, nothing can be asked of it.
        ended(run.driving(), OPENS_WITHIN).expect(69);
        server.start_again();
        run.nothing_was_done_without_a_record();
        run.goes_on(how);
        run.was_once(how);
    }
}

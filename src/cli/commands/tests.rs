//! Commands on runs, against a real state store that holds a journal made for the test. No database is touched: what drives
//! a run is tested with the built program.

use std::collections::BTreeMap;

use clap::Parser as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Typed;
use crate::cli::session::Session;
use crate::cli::signals;
use crate::report::fixture::{RUN, actor, begun, failed, started, up_to_gate};
use crate::report::{Colour, Format, Printer};
use crate::run::{Digest, Ending, Event, RunId};
use crate::store::{self, Create, RunHeader, SharedStore};

struct Bench {
    folder: TempDir,
}

impl Bench {
    /// A state store with one run of these events.
    async fn with(events: Vec<Event>) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let store = bench.store().await;
        let ended = matches!(events.last(), Some(Event::RunEnded { .. }));
        add(&store, RUN, "leads", events, ended).await;
        store.close().await;
        bench
    }

    fn state(&self) -> String {
        self.folder.path().join("state.db").display().to_string()
    }

    async fn store(&self) -> SharedStore {
        store::open(&self.state(), Create::IfMissing).await.unwrap()
    }

    async fn run(&self, words: &[&str]) -> Result<Answer, Failure> {
        let state = self.state();
        let line = ["phasegate", "--state", &state].into_iter().chain(words.iter().copied());
        let typed = Typed::try_parse_from(line).unwrap();
        let printer = Printer::new(Format::Human, Colour::Off);
        let session = Session::new(typed.global, printer, signals::listen());
        super::perform(&session, typed.command).await
    }

    async fn body(&self, words: &[&str]) -> Value {
        Value::Object(self.run(words).await.unwrap().body)
    }
}

async fn add(store: &SharedStore, id: &str, plan: &str, events: Vec<Event>, ended: bool) {
    let run = RunId::new(id);
    let header = RunHeader {
        run: run.clone(),
        plan: plan.to_owned(),
        environment: "default".into(),
        started_at: store.now().await.unwrap(),
        ended,
    };
    let mut events = events.into_iter();
    store.create(&header, &actor("ana"), events.next().unwrap()).await.unwrap();
    store.append(&run, 1, None, &actor("ana"), events.collect()).await.unwrap();
}

fn at_gate() -> Vec<Event> {
    let mut events = up_to_gate();
    events.push(Event::GateReached {
        gate: "ready".into(),
        work: Digest::of_bytes(b"work"),
        fingerprints: BTreeMap::new(),
    });
    events
}

#[tokio::test]
async fn status_finds_the_run_by_name_by_beginning_and_by_itself() {
    let bench = Bench::with(at_gate()).await;
    for words in [&["status"][..], &["status", "leads"], &["status", "0199aaaa"]] {
        let body = bench.body(words).await;
        assert_eq!(body["run"], RUN, "{words:?}");
        assert_eq!(body["state"], "waiting", "{words:?}");
        assert_eq!(body["headline"], "The run of plan leads waits at gate ready.", "{words:?}");
    }
    let unknown = bench.run(&["status", "leeds"]).await.unwrap_err();
    assert_eq!(unknown.exit.code(), 64);
    assert_eq!(unknown.help, ["did you mean leads?"]);
}

#[tokio::test]
async fn an_empty_store_is_no_error_for_status() {
    let bench = Bench { folder: tempfile::tempdir().unwrap() };
    bench.store().await.close().await;
    let answer = bench.run(&["status"]).await.unwrap();
    assert_eq!(answer.exit.code(), 0);
    assert!(answer.human.contains("No runs yet"), "{}", answer.human);
}

#[tokio::test]
async fn history_tells_every_record_and_events_give_the_same() {
    let bench = Bench::with(at_gate()).await;
    let body = bench.body(&["history", "leads"]).await;
    let records = body["records"].as_array().unwrap();
    assert_eq!(records.len(), at_gate().len());
    assert_eq!(records[0]["event"]["kind"], "run_started");
    assert_eq!(records[0]["by"]["proof"], "claimed");
    bench.run(&["events", "leads"]).await.unwrap();
}

#[tokio::test]
async fn people_decide_at_gates_under_the_name_they_give() {
    let bench = Bench::with(at_gate()).await;
    let blind = bench.run(&["approve", "leads", "ready", "--as", "ben"]).await.unwrap_err();
    assert_eq!(blind.exit.code(), 64);
    assert!(blind.help[0].contains("gates leads ready --show"), "{blind:?}");
    let work = Digest::of_bytes(b"work");
    let (short, long) = (&work.as_str()[..8], work.as_str());
    let ben = ["approve", "leads", "ready", "--as", "ben", "--digest"];
    let too_short = bench.run(&[&ben[..], &[&short[..7]]].concat()).await.unwrap_err();
    assert_eq!(too_short.exit.code(), 6, "{too_short:?}");
    let approved = bench.run(&[&ben[..], &[short]].concat()).await.unwrap();
    assert!(
        approved.human.starts_with("Gate ready approved by ben (claimed)"),
        "{}",
        approved.human
    );
    let stale =
        bench.run(&["approve", "leads", "ready", "--as", "chloe", "--digest", "deadbeef00"]).await;
    assert_eq!(stale.unwrap_err().exit.code(), 6);
    let twice = bench.run(&[&ben[..], &[long]].concat()).await.unwrap_err();
    assert_eq!(twice.exit.code(), 77, "{twice:?}");
    bench.run(&["revoke", "leads", "ready", "--as", "ben"]).await.unwrap();
    let reject = ["reject", "leads", "ready", "--as", "dee", "--reason", "not today"];
    bench.run(&reject).await.unwrap();
    let unknown = bench.run(&["approve", "leads", "raedy"]).await.unwrap_err();
    assert_eq!(unknown.exit.code(), 64);
    let history = bench.run(&["history", "leads"]).await.unwrap().human;
    for text in ["ben (claimed)", "took back the own decision", "not today"] {
        assert!(history.contains(text), "{text} in\n{history}");
    }
}

#[tokio::test]
async fn pausing_is_recorded_with_its_reason_and_shown() {
    let bench = Bench::with(at_gate()).await;
    let body = bench.body(&["pause", "leads", "--reason", "lunch"]).await;
    assert_eq!(body["state"], "paused");
    assert_eq!(body["waiting_for"][0], "resume: lunch");
}

#[tokio::test]
async fn tuning_names_its_backfill_or_the_only_one() {
    let bench = Bench::with(vec![started()]).await;
    bench.run(&["tune", "leads", "--chunk-rows", "500"]).await.unwrap();
    bench
        .run(&["tune", "leads", "copy", "--pause-between", "50ms", "--workers", "3"])
        .await
        .unwrap();
    let history = bench.run(&["history", "leads"]).await.unwrap().human;
    assert!(history.contains("chunks of 500 rows"), "{history}");
    let no_backfill = bench.run(&["tune", "leads", "sync", "--pause-between", "1s"]).await;
    assert_eq!(no_backfill.unwrap_err().exit.code(), 64);
}

#[tokio::test]
async fn refusals_name_this_run_in_their_advice() {
    let bench = Bench::with(at_gate()).await;
    let refused = bench.run(&["abort", "leads"]).await.unwrap_err();
    assert_ne!(refused.exit.code(), 0);
    let help = refused.help.join("\n");
    assert!(help.contains(" leads"), "{help}");
    assert!(!help.contains("RUN"), "{help}");
}

#[tokio::test]
async fn a_rollback_that_nobody_confirms_does_nothing() {
    let bench = Bench::with(at_gate()).await;
    let refused = bench.run(&["rollback", "leads"]).await.unwrap_err();
    assert_eq!(refused.exit.code(), 64);
    assert!(refused.help[0].contains("--yes"), "{refused:?}");
    let unknown = bench.run(&["rollback", "leads", "--accept-loss", "laeds"]).await.unwrap_err();
    assert_eq!(unknown.help, ["did you mean leads?"]);
    assert_eq!(bench.body(&["status"]).await["state"], "waiting");
}

#[tokio::test]
async fn past_the_point_of_no_return_a_rollback_is_not_permitted() {
    let mut events = at_gate();
    let work = Digest::of_bytes(b"work");
    events.push(Event::GateOpened { gate: "ready".into(), work });
    events.extend(crate::report::fixture::done("drop", None));
    let bench = Bench::with(events).await;
    let refused = bench.run(&["rollback", "leads", "--yes"]).await.unwrap_err();
    assert_eq!(refused.exit.code(), 77, "{refused:?}");
    assert!(refused.causes[0].starts_with("drop: every row lives on"), "{refused:?}");
}

#[tokio::test]
async fn only_a_run_with_something_failed_can_be_retried_and_only_a_paused_one_resumed() {
    let bench = Bench::with(at_gate()).await;
    assert_eq!(bench.run(&["retry", "leads"]).await.unwrap_err().exit.code(), 64);
    assert_eq!(bench.run(&["resume", "leads"]).await.unwrap_err().exit.code(), 64);
}

#[tokio::test]
async fn a_failed_step_is_the_first_thing_that_status_says() {
    let bench = Bench::with(vec![started(), begun("create"), failed("create")]).await;
    let answer = bench.run(&["status"]).await.unwrap();
    assert!(answer.human.starts_with("Step create failed: no such table"), "{}", answer.human);
    assert_eq!(answer.exit.code(), 0, "looking is no failure");
}

#[tokio::test]
async fn other_unfinished_runs_are_named() {
    let bench = Bench::with(vec![started(), Event::RunEnded { ending: Ending::Completed }]).await;
    let store = bench.store().await;
    let other = Event::RunStarted {
        run: RunId::new("0199bbbb"),
        pin: Box::new(crate::report::fixture::pin()),
    };
    add(&store, "0199bbbb", "leads", vec![other, Event::Paused { reason: None }], false).await;
    let body = bench.body(&["status"]).await;
    assert_eq!(body["run"], "0199bbbb", "the unfinished one");
    let body = bench.body(&["status", RUN]).await;
    assert_eq!(body["state"], "completed");
    assert_eq!(body["other_unfinished_runs"][0], "leads (0199bbbb)");
}

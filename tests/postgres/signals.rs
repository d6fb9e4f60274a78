//! Every signal that a throttle may look at holds a real copy and lets it go on, one after the other: what PostgreSQL tells of
//! itself, a query, a URL, a file and the hours. Replicas are in `replica.rs`, certificates in `https.rs`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::throttle::{ended, plan};
use super::{Bed, mentions};
use crate::bad_luck_postgres::server::Server;
use crate::sandbox::wait_for;

/// Far beyond what it takes; only a hang reaches it.
const LIMIT: Duration = Duration::from_mins(1);

impl Bed {
    /// The throttles that hold the copy now.
    fn held(&self) -> Vec<Value> {
        self.copy()["throttled"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until a throttle is among those that hold the copy, for a reason with these words; `status` says so, too.
    #[track_caller]
    pub(super) fn until_held_by(&self, name: &str, words: &str) -> Value {
        let mut found = None;
        let mut last = Vec::new();
        let is_held = wait_for(LIMIT, || {
            last = self.held();
            found = last
                .iter()
                .find(|held| {
                    held["name"] == name
                        && held["reason"].as_str().is_some_and(|reason| reason.contains(words))
                })
                .cloned();
            found.is_some()
        });
        assert!(is_held, "{name} does not hold by {words:?}: {last:#?}");
        found.unwrap()
    }

    /// Waits until a throttle doesn't hold the copy any more.
    #[track_caller]
    fn until_free_of(&self, name: &str) {
        let mut last = Vec::new();
        let is_free = wait_for(LIMIT, || {
            last = self.held();
            last.iter().all(|held| held["name"] != name)
        });
        assert!(is_free, "{name} holds on: {last:#?}");
    }

    /// Waits until nothing holds the copy, and it has gone on.
    #[track_caller]
    pub(super) fn until_free(&self) {
        let before = self.copy()["rows_done"].as_u64();
        let goes_on = wait_for(LIMIT, || {
            let copy = self.copy();
            copy["throttled"] == serde_json::json!([]) && copy["rows_done"].as_u64() > before
        });
        assert!(goes_on, "it does not go on: {:#}", self.copy());
    }

    /// A client's statement that goes on beside everything else; it ends with its session.
    fn beside(&self, sql: &str) -> tokio::task::JoinHandle<()> {
        let mut client = self.client(&self.name);
        let sql = AssertSqlSafe(sql.to_owned());
        self.runtime.spawn(async move {
            // Ended by the test.
            let _ = sqlx::raw_sql(sql).execute(&mut client).await;
        })
    }

    fn close(&self, client: PgConnection) {
        self.runtime.block_on(client.close()).unwrap();
    }
}

/// Answers every request with what it was last told to, until it is dropped.
struct Answering {
    url: String,
    answer: Arc<Mutex<Option<(&'static str, &'static str)>>>,
}

impl Answering {
    fn with(status: &'static str, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/throttle", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(Some((status, body))));
        let answers = Arc::clone(&answer);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let Some((status, body)) = *answers.lock().unwrap() else { return };
                let mut request = [0; 1_024];
                let _ = client.read(&mut request);
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                let _ = client.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { url, answer }
    }

    fn answers(&self, status: &'static str, body: &'static str) {
        *self.answer.lock().unwrap() = Some((status, body));
    }

    /// From the next request on nobody is there.
    fn is_gone(&self) {
        *self.answer.lock().unwrap() = None;
    }
}

/// The move of leads with these throttles, each looked at ten times a second. It is slow enough for every test here.
pub(super) fn slow(throttles: &[&str]) -> String {
    let mut keys = "      throttle:\n".to_owned();
    for throttle in throttles {
        let (name, signal) = throttle.split_once(' ').unwrap();
        let signal = signal.replace("; ", "\n          ");
        let limit = format!("        - name: {name}\n          {signal}\n          every: 100ms\n");
        keys.push_str(&limit);
    }
    plan(&keys).replace("rows: 20 }", "rows: 2 }")
}

#[track_caller]
fn is(held: &Value, of: Option<&str>, unit: &str, limit: f64) {
    assert_eq!((held["of"].as_str(), held["unit"].as_str()), (of, Some(unit)), "{held}");
    assert_eq!(held["limit"].as_f64(), Some(limit), "{held}");
    assert!(held["value"].as_f64().unwrap() >= limit, "{held}");
    assert!(held["since"].as_str().unwrap().starts_with("20"), "{held}");
}

/// The rest of the copy without a rest.
pub(super) fn finish(bed: &Bed, run: std::process::Child) {
    bed.phasegate(&["tune", "leads", "--pause-between", "0s", "--chunk-rows", "100"]).expect(0);
    let ran = ended(run, 0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
    assert_eq!(bed.copy()["rows_done"], 400);
    mentions(&ran, &["held back: ", " lets go"]);
}

#[test]
fn what_the_server_tells_of_its_sessions_and_rows_holds_a_copy() {
    // Others must not be counted, and it has to be restarted.
    let Some(server) = Server::new("what a server tells of itself") else { return };
    let bed = Bed::at(
        &server.url,
        &slow(&[
            "sessions active_sessions: { max: 4 }",
            "waiters lock_waiters: { max: 2 }",
            "old oldest_transaction: { max: 2s }",
            "dead dead_tuples: { max: 300 }",
            "share dead_tuples: { max: 40% }",
        ]),
    );
    bed.run_in("postgres", "ALTER SYSTEM SET max_prepared_transactions = 5");
    server.control(&["-m", "fast", "restart"]);
    bed.run(&format!("GRANT pg_monitor TO {}", bed.name));
    bed.run("CREATE TABLE public.busy (id int PRIMARY KEY); INSERT INTO busy VALUES (1)");
    bed.run("ALTER TABLE public.leads SET (autovacuum_enabled = off)");
    let run = bed.spawn(&["run", "plan.yaml"]);
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'leads_v2'");
    bed.until("SELECT count(*) FROM leads_v2");

    // Sessions at work.
    let at_work: Vec<_> = (0..4).map(|_| bed.beside("SELECT pg_sleep(600)")).collect();
    is(&bed.until_held_by("sessions", "4 >= 4"), None, "number", 4.0);
    let cancel = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE query = 'SELECT pg_sleep(600)'";
    assert_eq!(bed.number(cancel), 4);
    bed.until_free();
    for client in at_work {
        bed.runtime.block_on(client).unwrap();
    }

    // Sessions that wait for a lock, and, a little later, the transaction that they wait for.
    let mut first = bed.client(&bed.name);
    bed.on(&mut first, "BEGIN; UPDATE public.busy SET id = 1");
    let waiting: Vec<_> =
        (0..2).map(|_| bed.beside("UPDATE public.busy SET id = 1 WHERE id = 1")).collect();
    is(&bed.until_held_by("waiters", "2 >= 2"), None, "number", 2.0);
    is(&bed.until_held_by("old", ">= 2s"), None, "ms", 2_000.0);
    bed.on(&mut first, "COMMIT");
    bed.until_free();
    for client in waiting {
        bed.runtime.block_on(client).unwrap();
    }

    // One that was prepared and forgotten has no session.
    bed.on(
        &mut first,
        "BEGIN; INSERT INTO public.busy VALUES (2); PREPARE TRANSACTION 'forgotten'",
    );
    bed.close(first);
    bed.until_held_by("old", ">= 2s");
    bed.run("ROLLBACK PREPARED 'forgotten'");
    bed.until_free();

    // Dead rows of the old side, three for each that lives; fewer where the copy that reads a page clears it.
    for _ in 0..3 {
        bed.run("UPDATE public.leads SET email = email || '.'");
    }
    is(&bed.until_held_by("dead", " >= 300"), Some("leads"), "number", 300.0);
    is(&bed.until_held_by("share", "% >= 40%"), Some("leads"), "percent", 40.0);
    bed.run("VACUUM public.leads");
    bed.run("VACUUM public.leads_v2");
    bed.until_free();
    finish(&bed, run);
}

#[test]
fn the_log_that_a_slot_keeps_holds_a_copy() {
    let Some(server) = Server::new("the log that a slot keeps") else { return };
    let bed = Bed::at(&server.url, &slow(&["slots slot_wal: { max: 8MiB }"]));
    // One that was never used keeps nothing.
    bed.run("SELECT pg_create_physical_replication_slot('unused')");
    bed.run("SELECT pg_create_physical_replication_slot('consumer', true)");
    let run = bed.spawn(&["run", "plan.yaml"]);
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'leads_v2'");
    bed.until("SELECT count(*) FROM leads_v2");
    let much = |name: &str| {
        bed.run(&format!(
            "CREATE TABLE public.{name} AS SELECT repeat(md5(g::text), 30) AS x FROM generate_series(1, 12000) AS g"
        ));
    };
    much("one");
    let held = bed.until_held_by("slots", ">= 8 MiB");
    is(&held, Some("consumer"), "bytes", 8.0 * 1024.0 * 1024.0);
    let status = bed.phasegate(&["status", "leads"]).expect(0);
    mentions(&status, &["held back: slots consumer ", ">= 8 MiB"]);
    // Who consumes it catches up.
    bed.run("SELECT pg_replication_slot_advance('consumer', pg_current_wal_lsn())");
    bed.until_free();
    // Who does not keeps the log until the server gives the slot up: then it is lost, and keeps nothing.
    much("two");
    bed.until_held_by("slots", ">= 8 MiB");
    bed.run_in("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    bed.run("SELECT pg_reload_conf()");
    let lost = "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'";
    for _ in 0..100 {
        if bed.number(lost) == 1 {
            break;
        }
        bed.run("SELECT pg_switch_wal()");
        bed.run("CHECKPOINT");
    }
    assert_eq!(bed.number(lost), 1, "the server keeps the slot");
    bed.until_free();
    finish(&bed, run);
    bed.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
}

#[test]
fn what_is_asked_elsewhere_holds_a_copy() {
    let yes_or_no = Answering::with("204 No Content", "");
    let number = Answering::with("200 OK", "3\n");
    let folder = tempfile::tempdir().unwrap();
    let stop = folder.path().join("stop");
    let path = stop.to_str().unwrap();
    let (today, day) = (chrono::Utc::now().date_naive(), chrono::Days::new(1));
    let throttles = [
        format!("open http: {}", yes_or_no.url),
        format!("load http: {{ url: {} }}; max: 10", number.url),
        "rows query: select n from hold; min: 5".to_owned(),
        format!("stop file: {path}"),
        format!("hours window: {{ zone: UTC, freezes: [{}..{}] }}", today - day, today + day),
    ];
    let throttles: Vec<&str> = throttles.iter().map(String::as_str).collect();
    let Some(bed) = Bed::new("what is asked elsewhere", &slow(&throttles)) else { return };
    bed.run(&format!(
        "CREATE TABLE public.hold (n int); INSERT INTO public.hold VALUES (50); GRANT SELECT ON public.hold TO {}",
        bed.name
    ));
    let run = bed.spawn(&["run", "plan.yaml"]);
    bed.until_held_by("hours", &format!("frozen {} to {}; opens", today - day, today + day));
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 0);
    bed.phasegate(&["tune", "leads", "--limit", "hours=off"]).expect(0);
    bed.until_free();

    yes_or_no.answers("503 Service Unavailable", "");
    bed.until_held_by("open", "answered 503");
    yes_or_no.answers("200 OK", "");
    bed.until_free();

    number.answers("200 OK", "12.5");
    is(&bed.until_held_by("load", "12.5 >= 10"), None, "number", 10.0);
    // It is calm at 80 % of the limit, and not before.
    number.answers("200 OK", "9");
    bed.until_held_by("load", "9 is not down to 8 yet");
    number.answers("200 OK", "busy");
    bed.until_held_by("load", "the answer is no number");
    number.answers("200 OK", "8");
    bed.until_free();

    // From 5 down, and free from a quarter above that.
    bed.run("UPDATE public.hold SET n = 5");
    let held = bed.until_held_by("rows", "5 <= 5");
    assert_eq!((held["value"].as_f64(), held["limit"].as_f64()), (Some(5.0), Some(5.0)));
    bed.run("UPDATE public.hold SET n = 7");
    bed.until_free();

    std::fs::write(&stop, "").unwrap();
    bed.until_held_by("stop", &format!("{path} is there"));
    std::fs::remove_file(&stop).unwrap();
    bed.until_free();

    // Whoever has gone says nothing, which is no good sign; an operator who knows better takes the throttle off.
    yes_or_no.is_gone();
    number.is_gone();
    bed.until_held_by("open", "can't be read");
    bed.until_held_by("load", "can't be read");
    bed.phasegate(&["tune", "leads", "--limit", "open=off"]).expect(0);
    bed.until_free_of("open");
    bed.until_held_by("load", "can't be read");
    bed.phasegate(&["tune", "leads", "--limit", "load=off"]).expect(0);
    bed.until_free();
    finish(&bed, run);
}

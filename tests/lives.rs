//! What holds of a run from one life of the program to the next, wherever it is killed.
//!
//! Each life has the run soon, without being told anything; what `status` counts is never less than it was; and no chunk that is
//! committed is copied once more.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::examples::database::Database;
use crate::sandbox::Ran;

/// How soon a process has the run after the one before was killed: within 5 s, and thrice that on a machine that has more to do.
const TAKEN_WITHIN: Duration = Duration::from_secs(15);

/// Lives of a run, one behind the other.
#[derive(Default)]
pub struct Lives {
    /// The rows of each step that were counted last. Those of a comparison are of one pass, by its number: a gate that finds its evidence
    /// too old has it made again from the beginning, over what the tables have by then.
    counted: BTreeMap<(String, usize), u64>,
    began: Option<SystemTime>,
    /// How long a life took at most to have the run.
    slowest: Duration,
    kills: u32,
}

impl Lives {
    /// A process is about to be started.
    pub fn begins(&mut self) {
        self.began = Some(SystemTime::now());
    }

    /// The process was killed. The program is asked for what others are told now.
    #[track_caller]
    pub fn was_killed(&mut self, pid: u32, run: &str, ask: impl Fn(&[&str]) -> Ran) {
        self.kills += 1;
        let began = self.began.take().expect("a life that began");
        let locks = ask(&["lock", "list", run, "--format", "json"]);
        if self.counted.is_empty() && matches!(locks.code, Some(64 | 69)) {
            // It died while it looked at the databases, before there was a run, or before it had made the store.
            let took = began.elapsed().unwrap_or_default();
            assert!(took < TAKEN_WITHIN, "kill {}: no run was begun for {took:?}", self.kills);
            return;
        }
        let locks = locks.expect(0).json();
        let locks = locks["locks"].as_array().unwrap();
        let took = match locks.iter().find(|lock| lock["pid"] == pid) {
            Some(lock) => {
                let since = lock["since"].as_str().unwrap();
                let since = chrono::DateTime::parse_from_rfc3339(since).unwrap();
                SystemTime::from(since).duration_since(began).unwrap_or_default()
            }
            None => began.elapsed().unwrap_or_default(),
        };
        assert!(took < TAKEN_WITHIN, "kill {}: the run was not had for {took:?}", self.kills);
        self.slowest = self.slowest.max(took);
        let status = ask(&["status", run, "--format", "json"]).expect(0).json();
        let history = ask(&["history", run, "--format", "json"]).expect(0).json();
        for step in status["steps"].as_array().unwrap() {
            let (id, rows) = (step["id"].as_str().unwrap(), step["rows_done"].as_u64());
            let rows = rows.unwrap_or(0);
            let is_back = status["state"] == "rolling_back";
            let pass = match step["action"].as_str().unwrap() {
                "verify" => pass(step, &history),
                // It compares what the way back would lose, from the beginning in each attempt.
                "dual_write" if is_back => {
                    usize::try_from(step["attempts"].as_u64().unwrap()).unwrap()
                }
                _ => 0,
            };
            let before = self.counted.insert((id.to_owned(), pass), rows).unwrap_or(0);
            assert!(rows >= before, "kill {}: {id} has {rows} rows, and had {before}", self.kills);
        }
    }

    /// What they were like, for the test's output.
    pub fn told(&self) -> String {
        let Self { kills, slowest, .. } = self;
        format!("{kills} kills, after each of which the run was had again within {slowest:?}")
    }
}

/// Which pass of a comparison a run is at, or was last: from 1.
fn pass(step: &Value, history: &Value) -> usize {
    let ended = |record: &&Value| {
        let event = &record["event"];
        event["step"] == step["id"]
            && (event["kind"] == "step_succeeded" || event["kind"] == "step_differs")
    };
    let ended = history["records"].as_array().unwrap().iter().filter(ended).count();
    let is_over = step["state"] == "succeeded" || step["state"] == "differs";
    if is_over { ended } else { ended + 1 }
}

/// Has the database note each chunk that is committed: of a run that has entered it.
#[track_caller]
pub fn note_chunks(database: &Database) {
    database.run_as_superuser(
        "CREATE SCHEMA noted;
         CREATE TABLE noted.chunks (step text, seq bigint, rows bigint);
         CREATE FUNCTION noted.chunk() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
           $$ BEGIN INSERT INTO noted.chunks VALUES (NEW.step, NEW.seq, NEW.rows_read); RETURN NULL; END $$;
         CREATE TRIGGER noted AFTER UPDATE OF committed ON phasegate.chunks FOR EACH ROW WHEN (NEW.committed)
           EXECUTE FUNCTION noted.chunk()",
    );
}

/// Each chunk was committed once, and the rows of all are those that the run counts.
#[track_caller]
pub fn chunks_were_once(database: &Database, (step, counted): (&str, u64)) {
    let twice = "SELECT step, seq, count(*) FROM noted.chunks GROUP BY 1, 2 HAVING count(*) > 1";
    assert_eq!(database.rows_as_superuser(twice), [""; 0], "chunks were committed more than once");
    let rows = format!("SELECT coalesce(sum(rows), 0) FROM noted.chunks WHERE step = '{step}'");
    assert_eq!(database.rows_as_superuser(&rows), [counted.to_string()], "rows of {step}");
}

/// The rows that `status` counts for a step.
#[track_caller]
pub fn rows_done(status: &Ran, step: &str) -> u64 {
    let status = status.json();
    let steps = status["steps"].as_array().unwrap();
    steps.iter().find(|one| one["id"] == step).unwrap()["rows_done"].as_u64().unwrap()
}

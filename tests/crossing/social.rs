//! plans/social-graph.yaml: users and who follows whom, in a graph beside PostgreSQL, while clients write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use neo4rs::query;

use super::bed::{Application, Bed, LONG, PLAN, Wire};
use crate::failures::signal;
use crate::sandbox::{Ran, wait_for};

#[test]
fn users_and_who_follows_whom_get_a_graph_while_clients_write() {
    let Some(bed) = Bed::example() else { return };
    let bed = bed.with_chunks(100);
    bed.phasegate(&["validate", PLAN]).expect(0);
    let application = Application::start(&bed, 8);
    let watcher = Watcher::start(&bed.graph.url);
    let stopped = bed.phasegate(&["run", PLAN]).expect(4);
    // Nobody drives it now: what is written waits.
    let waits = wait_for(LONG, || bed.carried("users")["lag_rows"].as_u64() > Some(100));
    assert!(waits, "nothing waits: {}", bed.status());
    assert_eq!(bed.carried("users")["sync_status"], "pending");
    let relay = bed.relay();
    assert!(application.end() > 500);
    bed.is_synced();
    bed.are_same(&format!("{stopped}"));
    let users = bed.carried("users");
    assert!(users["applied"].as_u64() > Some(100), "{users}");
    assert!(users["carried_by"].as_str().is_some_and(|by| by.contains("pid")), "{users}");
    drop(relay);
    let application = Application::start(&bed, 4);
    bed.released();
    let ended = bed.phasegate(&["run", PLAN, "--wait", "60s"]);
    assert!(application.end() > 20);
    ended.expect(0);
    bed.nothing_is_left("completed");
    let unique = "SHOW CONSTRAINTS YIELD labelsOrTypes, properties WHERE labelsOrTypes[0] = 'User' RETURN properties[0] AS it";
    assert_eq!(bed.graph.texts(unique), ["id"], "what nodes are known by stays unique");
    assert!(watcher.end() > 10);
    let [old, _] = bed.sides();
    assert!(old.len() > 5_000);
    bed.phasegate(&["history", "social-graph", "--verify"]).expect(0);
}

/// The revisions that the application gives hot users, as the graph has them: none is ever older than one that was seen before.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Watcher {
    pub fn start(url: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, url) = (Arc::clone(&stop), url.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(watch(&url, &told))
        });
        Self { stop, thread }
    }

    pub fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn watch(url: &str, stop: &AtomicBool) -> u64 {
    let graph = neo4rs::Graph::new(url, "", "").unwrap();
    let mut newest: BTreeMap<i64, u64> = BTreeMap::new();
    let mut changes = 0;
    while !stop.load(Ordering::Relaxed) {
        let asked = "MATCH (u:User) WHERE u.id <= 20 AND u.name STARTS WITH 'r' RETURN u.id AS id, u.name AS name";
        let mut rows = graph.execute(query(asked)).await.unwrap();
        while let Some(row) = rows.next().await.unwrap() {
            let (id, name): (i64, String) = (row.get("id").unwrap(), row.get("name").unwrap());
            let revision: u64 = name.trim_start_matches('r').parse().unwrap();
            let last = newest.insert(id, revision).unwrap_or_default();
            assert!(last <= revision, "user {id} went from revision {last} back to {revision}");
            changes += u64::from(last < revision);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    changes
}

#[test]
fn from_every_point_before_the_end_everything_can_be_taken_back() {
    let Some(bed) = Bed::example() else { return };
    for to in [
        "sync-users",
        "sync-follows",
        "copy-users",
        "copy-follows",
        "as-many-users",
        "compare-users",
        "compare-follows",
    ] {
        let before = bed.database.dump();
        let run: &[&str] = if to == "sync-users" {
            &["run", PLAN, "--to", to]
        } else {
            &["run", PLAN, "--to", to, "--new"]
        };
        bed.phasegate(run).expect(0);
        let back = bed.phasegate(&["rollback", "social-graph", "--yes"]).expect(0);
        assert_eq!(bed.graph.number("MATCH (n:User)"), 0, "{to}: {back}");
        assert_eq!(bed.graph.schema(), [""; 0], "{to}");
        assert_eq!(bed.database.dump(), before, "{to}");
        bed.nothing_is_left(to);
    }
    // While clients write.
    let application = Application::start(&bed, 4);
    bed.phasegate(&["run", PLAN, "--new"]).expect(4);
    bed.phasegate(&["rollback", "social-graph", "--yes"]).expect(0);
    assert!(application.end() > 20);
    assert_eq!(bed.graph.number("MATCH (n:User)"), 0);
    assert_eq!(bed.graph.schema(), [""; 0]);
    bed.nothing_is_left("while clients write");
    // What the graph alone has is not taken away without a word.
    bed.phasegate(&["run", PLAN, "--new"]).expect(4);
    bed.graph.cypher("CREATE (:User {id: 99999})");
    let refused = bed.phasegate(&["rollback", "social-graph", "--yes"]).expect(9);
    assert!(format!("{refused}").contains("--accept-loss users"), "{refused}");
    assert!(format!("{refused}").contains("undoing would lose them; its key: 99999"), "{refused}");
    let accepted = ["rollback", "social-graph", "--yes", "--accept-loss", "users"];
    bed.phasegate(&accepted).expect(0);
    assert_eq!(bed.graph.number("MATCH (n:User)"), 0);
    bed.nothing_is_left("accepted");
    // Nor is it lost among thousands of rows that are still to be copied.
    bed.phasegate(&["run", PLAN, "--new", "--to", "sync-users"]).expect(0);
    bed.graph.cypher("CREATE (:User {id: 99999})");
    let refused = bed.phasegate(&["rollback", "social-graph", "--yes"]).expect(9);
    assert!(format!("{refused}").contains("1 row on the new side of users"), "{refused}");
    assert!(format!("{refused}").contains("its key: 99999"), "{refused}");
}

#[test]
fn a_sync_that_was_stopped_can_be_taken_back_where_both_sides_are_the_same() {
    let Some(bed) = Bed::example() else { return };
    // Something is left to do, so that the run is not over.
    let plan = std::fs::read_to_string(bed.graph.sandbox.path(PLAN)).unwrap();
    let more = "\n  - id: never\n    phase: contract\n    gate:\n      query:\n        target: app\n        query: select 0\n        expect: 1\n";
    bed.graph.sandbox.write(PLAN, &format!("{plan}{more}"));
    bed.phasegate(&["run", PLAN]).expect(4);
    bed.released();
    bed.phasegate(&["run", PLAN, "--wait", "20s"]).expect(4);
    let status = bed.status();
    let steps = status["steps"].as_array().unwrap();
    assert!(
        steps.iter().any(|step| step["id"] == "stop-users" && step["state"] == "succeeded"),
        "{status}"
    );
    bed.database.run("UPDATE users SET bio = 'nobody follows' WHERE id = 5");
    let refused = bed.phasegate(&["rollback", "social-graph", "--yes"]).expect(9);
    assert!(format!("{refused}").contains("--accept-loss users"), "{refused}");
    assert!(format!("{refused}").contains("undoing would lose them; its key: 5"), "{refused}");
    bed.database.run("UPDATE users SET bio = 'Bio of 5' WHERE id = 5");
    bed.phasegate(&["retry", "social-graph"]).expect(0);
    assert_eq!(bed.graph.number("MATCH (n:User)"), 0);
    bed.nothing_is_left("taken back from the end");
}

#[test]
fn a_relay_alone_carries_what_waits_and_another_takes_over() {
    let Some(bed) = Bed::example() else { return };
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    bed.database.run("UPDATE users SET bio = 'changed'; DELETE FROM users WHERE id = 7");
    let waiting = bed.carried("users");
    assert_eq!((&waiting["lag_rows"], &waiting["sync_status"]), (&3_001.into(), &"pending".into()));
    assert!(waiting["lag_ms"].as_u64() > Some(0), "{waiting}");
    assert_eq!(waiting["carried_by"], serde_json::Value::Null);
    assert_eq!(waiting["last_applied_at"], serde_json::Value::Null);
    let mut first = bed.relay();
    bed.is_synced();
    bed.are_same("by a relay alone");
    let users = bed.carried("users");
    let at = users["last_applied_at"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok());
    let since = at.map(|at| Utc::now().signed_duration_since(at).num_seconds());
    assert!(since.is_some_and(|since| (-2..90).contains(&since)), "{users}");
    // A second one waits, and goes on where the first is no more.
    let mut second = bed.relay();
    let pid = |relay: &super::bed::Relay| format!("pid {}", relay.0.id());
    let by =
        |pid: &str| bed.carried("users")["carried_by"].as_str().is_some_and(|by| by.contains(pid));
    assert!(wait_for(LONG, || by(&pid(&first))), "{}", bed.status());
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    bed.database.run("UPDATE users SET bio = 'changed again'");
    assert!(wait_for(LONG, || by(&pid(&second))), "{}", bed.status());
    bed.is_synced();
    bed.are_same("by the second relay");
    signal(second.0.id(), "INT");
    let ended = second.0.wait().unwrap();
    assert_eq!(ended.code(), Some(130));
    // Whoever drives the run carries, too.
    bed.database.run("UPDATE users SET bio = 'a third time'");
    bed.phasegate(&["run", PLAN, "--wait", "10s"]).expect(4);
    bed.are_same("by a drive");
}

#[test]
fn a_page_that_comes_late_brings_nothing_back() {
    let Some(bed) = Bed::example() else { return };
    let bed = bed.with_chunks(1_000);
    bed.phasegate(&["run", PLAN, "--to", "sync-follows"]).expect(0);
    for step in ["copy-users", "copy-follows"] {
        // The first page was read, and is not written for some seconds.
        let late =
            bed.start(&["run", PLAN, "--to", step], "crossing::page-read=1*sleep(6000)->off");
        std::thread::sleep(Duration::from_millis(2_500));
        bed.database.run(
            "DELETE FROM users WHERE id BETWEEN 10 AND 20; UPDATE users SET bio = 'newer' WHERE id BETWEEN 21 AND 30;
             DELETE FROM relations WHERE follower_id BETWEEN 31 AND 40;
             UPDATE relations SET since = date '2020-02-02' WHERE follower_id BETWEEN 41 AND 50;
             DELETE FROM users WHERE id = 51;
             INSERT INTO users (id, handle, name, email) VALUES (51, 'Back', 'Back', 'x') ON CONFLICT DO NOTHING",
        );
        let ended: Ran = late.wait_with_output().unwrap().into();
        ended.expect(0);
    }
    bed.phasegate(&["run", PLAN]).expect(4);
    bed.are_same("late pages");
    assert_eq!(bed.graph.number("MATCH (n:User) WHERE n.id >= 10 AND n.id <= 20"), 0);
    assert_eq!(bed.graph.number("MATCH (n:User {bio: 'newer'})"), 10);
}

#[test]
fn an_emptied_table_empties_the_graph_also_under_the_copy() {
    let Some(bed) = Bed::example() else { return };
    let bed = bed.with_chunks(1_000);
    bed.phasegate(&["run", PLAN, "--to", "sync-follows"]).expect(0);
    let late =
        bed.start(&["run", PLAN, "--to", "copy-users"], "crossing::page-read=1*sleep(5000)->off");
    std::thread::sleep(Duration::from_millis(2_500));
    bed.database.run(
        "TRUNCATE users CASCADE; INSERT INTO users (id, handle, name, email) VALUES (1, 'First', 'First', 'x'), (9, 'Ninth', 'Ninth', 'x');
         INSERT INTO relations (follower_id, followee_id) VALUES (1, 9)",
    );
    let ended: Ran = late.wait_with_output().unwrap().into();
    ended.expect(0);
    bed.phasegate(&["run", PLAN]).expect(4);
    bed.are_same("truncated under the copy");
    bed.database.run("TRUNCATE users CASCADE; INSERT INTO users (id, handle, name, email) VALUES (5, 'Fifth', 'Fifth', 'x')");
    let _relay = bed.relay();
    bed.is_synced();
    bed.are_same("truncated behind the copy");
    assert_eq!(bed.graph.number("MATCH (n:User)"), 1);
}

#[test]
fn what_a_user_s_own_trigger_writes_is_what_the_graph_has_at_last() {
    let Some(bed) = Bed::example() else { return };
    bed.database.run(
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           UPDATE users SET bio = 'stamped ' || new.name WHERE id = new.id AND bio IS DISTINCT FROM 'stamped ' || new.name; RETURN NULL; END $$;
         CREATE TRIGGER a_stamp AFTER INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION stamp()",
    );
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    bed.database.run("UPDATE users SET name = 'N' || id WHERE id <= 500; INSERT INTO users (id, handle, name, email) VALUES (4000, 'h', 'Late', 'x')");
    let _relay = bed.relay();
    bed.is_synced();
    bed.are_same("a trigger writes the row again");
    assert_eq!(bed.graph.number("MATCH (n:User {bio: 'stamped N7'})"), 1);
    assert_eq!(bed.graph.number("MATCH (n:User {bio: 'stamped Late'})"), 1);
}

#[test]
fn a_graph_that_is_away_is_caught_up_with() {
    let Some(bed) = Bed::example() else { return };
    let wire = Wire::to(&bed.graph.url);
    let bed = bed.reached_at(wire.url.clone());
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    let mut relay = bed.relay();
    let application = Application::start(&bed, 4);
    assert!(wait_for(LONG, || bed.carried("users")["applied"].as_u64() > Some(50)));
    wire.cut();
    assert!(wait_for(LONG, || bed.carried("users")["lag_rows"].as_u64() > Some(500)));
    assert!(relay.0.try_wait().unwrap().is_none(), "the relay gave up");
    wire.mend();
    assert!(application.end() > 500);
    bed.is_synced();
    bed.are_same("the graph was away");
}

#[test]
fn a_process_that_dies_at_any_commit_of_either_side_loses_nothing() {
    let Some(bed) = Bed::example() else { return };
    let bed = bed.with_chunks(300);
    bed.database.run("DELETE FROM users WHERE id > 700");
    let kinds = [
        ("neo4j", "install"),
        ("postgres", "install"),
        ("neo4j", "plan"),
        ("neo4j", "chunk"),
        ("neo4j", "land"),
        ("postgres", "claim"),
        ("postgres", "relayed"),
        ("neo4j", "finish"),
    ];
    let mut is_first = true;
    for (side, kind) in kinds {
        for place in ["before", "after"] {
            let what = format!("{place} {side} {kind}");
            let point = format!("{side}::{place}-commit::{kind}=1*return->off");
            bed.phasegate(if is_first {
                &["run", PLAN, "--to", "find-by-handle"]
            } else {
                &["run", PLAN, "--to", "find-by-handle", "--new"]
            })
            .expect(0);
            is_first = false;
            let application = Application::start(&bed, 2);
            let died = bed.with_point(&["run", PLAN], &point);
            assert_eq!(died.code, None, "{what}: {died}");
            let gone_on = bed.phasegate(&["run", PLAN]);
            assert!(application.end() > 0);
            gone_on.expect(4);
            let relay = bed.relay();
            bed.is_synced();
            bed.are_same(&what);
            drop(relay);
            bed.phasegate(&["rollback", "social-graph", "--yes"]).expect(0);
            bed.nothing_is_left(&what);
            assert_eq!(bed.graph.number("MATCH (n:User)"), 0, "{what}");
        }
    }
}

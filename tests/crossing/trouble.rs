//! What goes wrong between two databases: rows that the graph refuses, triggers that are switched off, an outbox that grows, a relay that
//! takes changes in another way. Each is noticed, and none keeps what has nothing to do with it.

use std::time::{Duration, Instant};

use sqlx::Connection as _;

use super::bed::{Bed, LONG, NOTES, PLAN, Relay, heard, wait_to_hear};
use crate::examples::database::connect;
use crate::sandbox::wait_for;

/// The state store of the example.
const STORE: &str = ".phasegate/state.db";

#[test]
fn what_the_graph_refuses_is_parked_and_keeps_no_other_row() {
    let Some(bed) = Bed::example() else { return };
    bed.graph.cypher("CREATE CONSTRAINT one_name FOR (u:User) REQUIRE u.name IS UNIQUE");
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    bed.database.run("UPDATE users SET name = 'Same' WHERE id IN (1, 2); UPDATE users SET bio = 'goes on' WHERE id BETWEEN 3 AND 900");
    let relay = bed.relay();
    let is_parked = || bed.carried("users")["parked"] == 1;
    assert!(wait_for(LONG, is_parked), "{}", bed.status());
    let goes_on = || bed.graph.number("MATCH (n:User {bio: 'goes on'})") == 898;
    assert!(wait_for(LONG, goes_on), "others were kept waiting");
    let users = bed.carried("users");
    assert_eq!(users["sync_status"], "failed", "{users}");
    assert!(users["last_error"].as_str().is_some_and(|why| why.contains("name")), "{users}");
    let told = bed.phasegate(&["status", "social-graph", "--parked"]).expect(0);
    assert!(told.stdout.contains("1 row of mapping users parked"), "{told}");
    // It is no PASS, and the sync doesn't end with it.
    drop(relay);
    bed.database.run("UPDATE instances SET writes_graph = true, seen_at = now()");
    let shut = bed.phasegate(&["run", PLAN]).expect(4);
    assert!(format!("{shut}").contains("parked"), "{shut}");
    // A newer change of the row takes its place.
    bed.database.run("UPDATE users SET name = 'N' || id WHERE id IN (1, 2)");
    let _relay = bed.relay();
    bed.is_synced();
    bed.are_same("mended");
}

#[test]
fn a_trigger_that_is_switched_off_shuts_the_gate() {
    let Some(bed) = Bed::example() else { return };
    bed.phasegate(&["run", PLAN]).expect(4);
    bed.released();
    bed.database.run(
        "ALTER TABLE users DISABLE TRIGGER USER; UPDATE users SET bio = 'unseen' WHERE id = 7",
    );
    let users = bed.carried("users");
    assert_eq!(users["sync_status"], "broken", "{users}");
    assert!(users["broken"].as_str().is_some_and(|why| why.contains("disabled")), "{users}");
    assert_eq!(bed.carried("follows")["sync_status"], "synced");
    let shut = bed.phasegate(&["run", PLAN]).expect(4);
    assert!(format!("{shut}").contains("disabled"), "{shut}");
    bed.database.run(
        "DO $$ DECLARE name text; BEGIN
           FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'users'::regclass AND NOT tgisinternal
           LOOP EXECUTE format('ALTER TABLE users ENABLE ALWAYS TRIGGER %I', name); END LOOP; END $$",
    );
    // What was written meanwhile is found.
    let found = bed.phasegate(&["run", PLAN, "--wait", "30s"]);
    assert_eq!(found.code, Some(7), "{found}");
    assert!(format!("{found}").contains("unseen"), "{found}");
}

#[test]
fn an_outbox_over_its_limit_fails_the_step_and_loses_nothing() {
    let Some(bed) = Bed::example() else { return };
    let path = bed.graph.sandbox.path(PLAN);
    let plan = std::fs::read_to_string(path).unwrap();
    assert!(plan.contains("max_rows: 1000000"));
    bed.graph.sandbox.write(PLAN, &plan.replace("max_rows: 1000000", "max_rows: 50"));
    bed.phasegate(&["run", PLAN, "--to", "sync-follows"]).expect(0);
    // A relay that has stopped keeps its lease until that lapses.
    let mut stopped: Relay = bed.relay();
    assert!(wait_for(LONG, || bed.carried("users")["carried_by"].is_string()));
    bed.holds(&stopped);
    bed.database.run("UPDATE users SET bio = 'waits' WHERE id <= 100");
    let failed = bed.phasegate(&["run", PLAN, "--to", "copy-users"]).expect(1);
    let said = format!("{failed}");
    assert!(
        said.contains("over its limit") && said.contains("100 changes wait, where 50 changes may"),
        "{said}"
    );
    stopped.0.kill().unwrap();
    stopped.0.wait().unwrap();
    let relay = bed.relay();
    bed.is_synced();
    drop(relay);
    bed.phasegate(&["retry", "social-graph"]).expect(4);
    bed.are_same("behind the limit");
}

#[test]
fn a_relay_that_reads_behind_the_last_change_is_found_out() {
    let Some(bed) = Bed::example() else { return };
    bed.phasegate(&["run", PLAN, "--to", "copy-follows"]).expect(0);
    let relay = Relay(bed.start(&["relay", "social-graph"], "relay::cursor=return"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Its version is drawn first, and committed last.
    let mut late = runtime.block_on(connect(&bed.database.url)).unwrap();
    let begin = "BEGIN; UPDATE users SET bio = 'late' WHERE id = 5";
    runtime.block_on(sqlx::raw_sql(begin).execute(&mut late)).unwrap();
    bed.database.run("UPDATE users SET bio = 'soon' WHERE id = 6");
    assert!(wait_for(LONG, || bed.graph.number("MATCH (n:User {bio: 'soon'})") == 1));
    runtime.block_on(sqlx::raw_sql("COMMIT").execute(&mut late)).unwrap();
    runtime.block_on(late.close()).unwrap();
    bed.is_synced();
    drop(relay);
    let found = bed.phasegate(&["run", PLAN, "--to", "compare-users"]).expect(7);
    assert!(format!("{found}").contains("late"), "{found}");
}

#[test]
fn a_capture_does_not_end_with_changes_that_nobody_can_read() {
    let table = "CREATE TABLE notes (id int PRIMARY KEY, word text, score int);
        INSERT INTO notes SELECT n, 'w' || n, n FROM generate_series(1, 9) AS n";
    let Some(bed) = Bed::new("unread changes", table) else { return };
    let [mappings, steps] = NOTES;
    bed.plan(&format!("{mappings}steps:\n{steps}"));
    bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
    bed.database.run(
        "UPDATE notes SET word = 'late' WHERE id = 1; ALTER TABLE notes ALTER score TYPE numeric",
    );
    let late = || bed.graph.number("MATCH (n:Note {word: 'late'})");
    for command in [&["run", "plan.yaml"][..], &["retry", "social-graph"]] {
        let failed = bed.phasegate(command).expect(1);
        let said = format!("{failed}").split_whitespace().collect::<Vec<_>>().join(" ");
        let why = "1 change of mapping notes is left in the outbox, and can't be read";
        assert!(said.contains(why) && said.contains("score"), "{said}");
        assert_eq!(late(), 0);
    }
    // The capture goes on meanwhile, and so nothing is lost.
    bed.database.run("ALTER TABLE notes ALTER score TYPE int; ALTER TABLE notes ADD later jsonb; UPDATE notes SET word = 'late' WHERE id = 2");
    bed.phasegate(&["retry", "social-graph"]).expect(0);
    assert_eq!(late(), 2);
    bed.nothing_is_left("completed");
}

#[test]
fn what_is_parked_when_a_copy_begins_is_carried_once_more() {
    let Some(bed) = Bed::example() else { return };
    bed.graph.cypher("CREATE CONSTRAINT one_name FOR (u:User) REQUIRE u.name IS UNIQUE");
    bed.phasegate(&["run", PLAN, "--to", "sync-follows"]).expect(0);
    bed.database.run("UPDATE users SET name = 'Same' WHERE id IN (1, 2)");
    let relay = bed.relay();
    assert!(wait_for(LONG, || bed.carried("users")["parked"] == 1), "{}", bed.status());
    drop(relay);
    bed.graph.cypher("DROP CONSTRAINT one_name");
    bed.phasegate(&["run", PLAN, "--to", "copy-users"]).expect(0);
    assert_eq!(bed.graph.number("MATCH (n:User {name: 'Same'})"), 2);
}

#[test]
fn a_parked_change_of_one_mapping_keeps_no_other_from_being_compared() {
    let Some(bed) = Bed::example() else { return };
    bed.phasegate(&["run", PLAN, "--to", "as-many-users"]).expect(0);
    bed.database.run(
        "UPDATE relations SET since = 'infinity' WHERE (follower_id, followee_id) =
           (SELECT follower_id, followee_id FROM relations WHERE kind = 'follow' LIMIT 1)",
    );
    let relay = bed.relay();
    assert!(wait_for(LONG, || bed.carried("follows")["parked"] == 1), "{}", bed.status());
    drop(relay);
    bed.graph.cypher("CREATE (:User {id: 999999, phasegate_stub: true})");
    let began = Instant::now();
    let found = bed.phasegate(&["run", PLAN, "--to", "compare-users"]).expect(7);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}: {found}", began.elapsed());
    assert_eq!(bed.status()["differences"]["compare-users"]["extra"], 1, "{found}");
}

#[test]
fn a_table_that_no_longer_fits_keeps_no_other_mapping_waiting() {
    let Some(bed) = Bed::example() else { return };
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    // These come first, and their table is not there when they are read.
    bed.database.run("UPDATE users SET bio = 'waits' WHERE id <= 50");
    bed.database.run("ALTER TABLE users RENAME TO mislaid");
    bed.database.run("UPDATE relations SET since = date '2020-02-02' WHERE follower_id <= 50");
    let mut relay = bed.relay();
    let said = heard(&mut relay);
    let follows = || bed.carried("follows")["lag_rows"] == 0;
    assert!(wait_for(LONG, follows), "{}: {}", bed.status(), said.lock().unwrap());
    assert!(bed.carried("users")["lag_rows"].as_u64() >= Some(50), "{}", bed.status());
    assert_eq!(bed.carried("users")["sync_status"], "broken", "{}", bed.status());
    wait_to_hear(&said, "changes of mapping users wait in the outbox until this is mended");
    bed.database.run("ALTER TABLE mislaid RENAME TO users");
    bed.is_synced();
    let times = said.lock().unwrap().matches("until this is mended").count();
    assert_eq!(times, 1, "{}", said.lock().unwrap());
    bed.are_same("mended");
}

#[test]
fn a_relay_outlives_a_state_store_that_stumbles_and_tells_of_its_own_end() {
    let Some(bed) = Bed::example() else { return };
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    let mut relay = bed.relay();
    let said = heard(&mut relay);
    assert!(wait_for(LONG, || bed.carried("users")["carried_by"].is_string()));
    bed.graph.sandbox.sql(STORE, "ALTER TABLE records RENAME TO mislaid");
    wait_to_hear(&said, "what waits can't be told now");
    bed.graph.sandbox.sql(STORE, "ALTER TABLE mislaid RENAME TO records");
    bed.database.run("UPDATE users SET bio = 'goes on' WHERE id <= 50");
    assert!(relay.0.try_wait().unwrap().is_none(), "the relay gave up");
    bed.is_synced();
    bed.are_same("the store stumbled");
    drop(relay);
    let crashed =
        bed.with_point(&["relay", "social-graph"], "relay::carry=panic(planted)").expect(1);
    assert!(format!("{crashed}").contains("planted"), "{crashed}");
}

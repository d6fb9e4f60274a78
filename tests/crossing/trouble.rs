//! What goes wrong between two databases: rows that the graph refuses, triggers that are switched off, an outbox that grows, a relay that
//! takes changes in another way. Each is noticed, and none keeps what has nothing to do with it.

use sqlx::Connection as _;

use super::bed::{Bed, LONG, PLAN, Relay};
use crate::examples::database::connect;
use crate::failures::signal;
use crate::sandbox::wait_for;

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
    signal(stopped.0.id(), "STOP");
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

//! What is said where one of the two databases is not as it must be: which one, why, and what to do; and that it goes on once that is
//! mended.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::bed::{Bed, LONG, PLAN, Relay, Wire, heard, wait_to_hear};
use crate::graph::server::{PASSWORDS, Server};
use crate::sandbox::{Ran, wait_for};

/// How long a command may take that gets no answer.
const SOON: Duration = Duration::from_secs(40);

/// How long a step may go on with a server that hangs: known within a minute, and said within another, thrice that.
const GIVEN_UP_WITHIN: Duration = Duration::from_mins(6);

#[track_caller]
fn says(ran: &Ran, parts: &[&str]) {
    let text = format!("{ran}").split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(text.contains(part), "{part}: {ran}");
    }
}

/// A relay that has the lease.
fn at_work(bed: &Bed) -> (Relay, Arc<Mutex<String>>) {
    let mut relay = bed.relay();
    let said = heard(&mut relay);
    assert!(wait_for(LONG, || bed.carried("users")["carried_by"].is_string()));
    (relay, said)
}

#[track_caller]
fn nothing_has_changed(bed: &Bed) {
    assert_eq!(bed.database.ours(), [""; 0]);
    assert_eq!(bed.graph.ours(), [""; 0]);
    assert_eq!(bed.graph.schema(), [""; 0]);
}

#[test]
fn a_wrong_password_is_told_at_once_and_a_relay_waits_for_the_right_one() {
    let Some(bed) = Bed::example() else { return };
    let started = Server::with("wrong passwords", |_| PASSWORDS.to_owned());
    let Some(server) = started else { return };
    server.change_password("neo4j", "first");
    let bed = bed.reached_at(server.url("wrong"));
    let refused = bed.phasegate(&["run", PLAN]).expect(77);
    says(&refused, &["target graph: could not connect", "check user and password"]);
    assert!(!format!("{refused}").contains("wrong"), "{refused}");
    nothing_has_changed(&bed);
    assert_eq!(server.texts("first", "MATCH (n) RETURN labels(n)[0] AS it"), [""; 0]);

    let wire = Wire::to(&server.url("first"));
    let bed = bed.reached_at(wire.url.clone());
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    let (mut relay, said) = at_work(&bed);
    // It has the lease before it has been let in.
    bed.database.run("UPDATE users SET bio = 'heard' WHERE id <= 50");
    bed.is_synced();
    server.change_password("first", "second");
    wire.cut();
    wire.mend();
    bed.database.run("UPDATE users SET bio = 'unheard' WHERE id <= 50");
    wait_to_hear(&said, "target graph: could not connect: The client is unauthorized");
    assert_eq!(bed.carried("users")["lag_rows"], 50);
    // It does not knock so often that the server lets nobody of that name in.
    std::thread::sleep(Duration::from_secs(10));
    let knocked = said.lock().unwrap().matches("could not connect").count();
    assert_eq!(knocked, 1, "{}", said.lock().unwrap());
    assert!(relay.0.try_wait().unwrap().is_none(), "the relay gave up");
    server.change_password("second", "first");
    bed.is_synced();
    let there = "MATCH (u:User {bio: 'unheard'}) RETURN toString(count(u)) AS it";
    assert_eq!(server.texts("first", there), ["50"]);
    drop(relay);
    bed.phasegate(&["run", PLAN]).expect(4);
}

#[test]
fn a_graph_that_takes_no_writes_any_more_stops_the_copy_and_loses_nothing() {
    let Some(bed) = Bed::example() else { return };
    let Some(server) = Server::with("a graph for reading", |_| String::new()) else { return };
    let bed = bed.with_chunks(50).reached_at(server.url("any"));
    // The server may be away for a while before it is there for reading.
    bed.tries("copy-users", 60);
    bed.phasegate(&["run", PLAN, "--to", "sync-follows"]).expect(0);
    let copying = bed.start(&["run", PLAN], "crossing::page-read=sleep(100)");
    let users = || server.texts("any", "MATCH (u:User) RETURN toString(count(u)) AS it");
    assert!(wait_for(LONG, || users() != ["0"]));
    server.again("server.databases.read_only=neo4j\n");
    let stopped: Ran = copying.wait_with_output().unwrap().into();
    let why = ["read-only mode", "the database takes no writes here"];
    says(&stopped.expect(77), &why);
    assert!(users() != ["0"] && users() != ["3000"], "{:?}", users());
    bed.database.run("UPDATE users SET bio = 'meanwhile' WHERE id <= 50");
    // It has the lease for moments only.
    let mut relay = bed.relay();
    let said = heard(&mut relay);
    wait_to_hear(&said, "target graph: could not take the relay's slot");
    assert!(relay.0.try_wait().unwrap().is_none(), "the relay gave up");
    let refused = bed.phasegate(&["run", PLAN]).expect(77);
    says(&refused, &why);
    server.again("");
    bed.phasegate(&["retry", "social-graph"]).expect(4);
    bed.is_synced();
    assert_eq!(users(), ["3000"]);
    let there = "MATCH (u:User {bio: 'meanwhile'}) RETURN toString(count(u)) AS it";
    assert_eq!(server.texts("any", there), ["50"]);
}

#[test]
fn a_graph_whose_server_is_stopped_for_a_while_is_caught_up_with_by_a_relay_alone() {
    let Some(bed) = Bed::example() else { return };
    let Some(server) = Server::with("a graph that is stopped", |_| String::new()) else { return };
    let bed = bed.reached_at(server.url("any"));
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    let (mut relay, said) = at_work(&bed);
    server.end();
    bed.database
        .run("UPDATE users SET bio = 'unheard' WHERE id <= 50; DELETE FROM users WHERE id = 51");
    wait_to_hear(&said, "changes wait in the outbox until this has passed: target graph");
    // Beyond every wait of the relay's own, where there is time.
    let away = if std::env::var_os("PHASEGATE_SOAK").is_some() { 60 } else { 7 };
    std::thread::sleep(Duration::from_secs(away));
    assert!(relay.0.try_wait().unwrap().is_none(), "the relay gave up");
    assert_eq!(bed.carried("users")["lag_rows"], 51);
    server.start_again("");
    bed.is_synced();
    let there = "MATCH (u:User) RETURN toString(count(CASE u.bio WHEN 'unheard' THEN 1 END)) + ' of ' + count(u) AS it";
    assert_eq!(server.texts("any", there), ["50 of 2999"]);
    drop(relay);
    bed.phasegate(&["run", PLAN]).expect(4);
}

/// What waits for its answer would wait for ever, since a statement may take as long as it likes.
#[test]
fn a_server_that_hangs_in_the_middle_of_a_step_is_given_up() {
    for mutes_graph in [true, false] {
        let Some(bed) = Bed::example() else { return };
        let (graph, app) = (Wire::to(&bed.graph.url), Wire::to(&bed.database.url));
        let bed = bed.with_chunks(50).reached_at(graph.url.clone());
        bed.tries("copy-users", 1);
        bed.phasegate(&["run", PLAN, "--to", "sync-follows"]).expect(0);
        let mut command = bed.command(&["run", PLAN]);
        command.env("APP_DATABASE_URL", &app.url);
        command.env("FAILPOINTS", "crossing::page-read=sleep(100)");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let copying = command.spawn().unwrap();
        assert!(wait_for(LONG, || bed.graph.number("MATCH (n:User)") > 0));
        let began = Instant::now();
        // Whoever begins to read meanwhile finds out by itself.
        let (mute, told) = if mutes_graph {
            (&graph, "target graph has not answered within 15s")
        } else {
            (&app, "answer")
        };
        mute.mute();
        let ended: Ran = copying.wait_with_output().unwrap().into();
        assert!(began.elapsed() < GIVEN_UP_WITHIN, "{:?}: {ended}", began.elapsed());
        says(&ended.expect(69), &[told]);
        mute.mend();
        bed.phasegate(&["retry", "social-graph"]).expect(4);
        bed.are_same("given up and gone on with");
    }
}

#[test]
fn a_server_that_hangs_is_named_in_time() {
    let Some(bed) = Bed::example() else { return };
    let (graph, app) = (Wire::to(&bed.graph.url), Wire::to(&bed.database.url));
    let bed = bed.reached_at(graph.url.clone());
    let in_time = |args: &[&str], code: i32, part: &str| {
        let began = Instant::now();
        let ran = bed.command(args).env("APP_DATABASE_URL", &app.url).output().unwrap();
        let ran = Ran::from(ran).expect(code);
        assert!(began.elapsed() < SOON, "{:?}: {ran}", began.elapsed());
        says(&ran, &[part]);
    };
    let commands: [&[&str]; 3] =
        [&["run", PLAN], &["relay", "social-graph"], &["gates", "social-graph"]];
    let told = "target graph: the server took the connection and did not greet within 10s";
    graph.mute();
    in_time(commands[0], 69, told);
    nothing_has_changed(&bed);
    graph.mend();
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    graph.mute();
    for args in commands {
        in_time(args, 69, told);
    }
    in_time(&["status", "social-graph"], 0, "users: synced");
    graph.mend();
    app.mute();
    let told = "target app: the server did not answer within 10 s";
    for args in commands {
        in_time(args, 69, told);
    }
    in_time(&["status", "social-graph"], 0, told);
    app.mend();
    let (mut relay, said) = at_work(&bed);
    bed.database.run("UPDATE users SET bio = 'sooner' WHERE id <= 50");
    bed.is_synced();
    graph.mute();
    bed.database.run("UPDATE users SET bio = 'later' WHERE id <= 50");
    wait_to_hear(&said, "changes wait in the outbox until this has passed: target graph");
    assert!(relay.0.try_wait().unwrap().is_none(), "the relay gave up");
    assert_eq!(bed.carried("users")["lag_rows"], 50);
    graph.mend();
    bed.is_synced();
    drop(relay);
    bed.phasegate(&["run", PLAN]).expect(4);
    bed.are_same("a server hung");
}

#[test]
fn a_database_that_goes_mute_is_given_up_and_caught_up_with() {
    let Some(bed) = Bed::example() else { return };
    bed.phasegate(&["run", PLAN, "--to", "compare-follows"]).expect(0);
    let app = Wire::to(&bed.database.url);
    let mut relay = bed.command(&["relay", "social-graph"]);
    relay.env("APP_DATABASE_URL", &app.url).env("FAILPOINTS", "relay::done-within=return(2000)");
    let relay = relay.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut relay = Relay(relay);
    let said = heard(&mut relay);
    assert!(wait_for(LONG, || bed.carried("users")["carried_by"].is_string()));
    bed.database.run("UPDATE users SET bio = 'sooner' WHERE id <= 50");
    bed.is_synced();
    app.mute();
    bed.database.run("UPDATE users SET bio = 'later' WHERE id <= 50");
    wait_to_hear(&said, "changes wait in the outbox until this has passed: target app");
    app.mend();
    bed.is_synced();
    bed.are_same("the database was mute");
}

#[test]
fn encryption_that_the_server_does_not_speak_is_told() {
    let Some(bed) = Bed::example() else { return };
    let plain = bed.graph.url.clone();
    let direct = "a port without TLS wants bolt:// or neo4j://";
    let routed = "with or without TLS as the URL says";
    for (scheme, said) in [("bolt+s", direct), ("bolt+ssc", direct), ("neo4j+s", routed)] {
        let refused = bed.phasegate_at(&plain.replace("bolt", scheme), &["run", PLAN]);
        says(&refused.expect(69), &["target graph", said]);
    }
    nothing_has_changed(&bed);
    bed.phasegate(&["run", PLAN, "--to", "sync-follows"]).expect(0);
}

#[test]
fn what_either_side_lacks_is_found_before_anything_changes() {
    let Some(bed) = Bed::example() else { return };
    let sql = |text: &'static str| -> Box<dyn Fn(&Bed)> { Box::new(|bed| bed.database.run(text)) };
    let cypher =
        |text: &'static str| -> Box<dyn Fn(&Bed)> { Box::new(|bed| bed.graph.cypher(text)) };
    for (spoil, mend, said) in [
        (
            sql("ALTER TABLE relations RENAME TO relationships"),
            sql("ALTER TABLE relationships RENAME TO relations"),
            &["D201", "target app", "relations"][..],
        ),
        (
            sql("ALTER TABLE users RENAME COLUMN bio TO about"),
            sql("ALTER TABLE users RENAME COLUMN about TO bio"),
            &["D205", "target app", "bio"][..],
        ),
        (
            sql("ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE"),
            sql("ALTER TABLE users ADD PRIMARY KEY (id)"),
            &["D204", "target app", "the key (id) of users does not identify rows"][..],
        ),
        (
            cypher("UNWIND [7, 7, 8] AS id CREATE (:User {id: id})"),
            cypher("MATCH (u:User) DELETE u"),
            &["D204", "target graph", "7"][..],
        ),
        (
            cypher("UNWIND [1, 2, 3] AS n CREATE (:User {handle: 'h' + n})"),
            cypher("MATCH (u:User) DELETE u"),
            &["D204", "target graph", "3 nodes"][..],
        ),
    ] {
        spoil(&bed);
        let found = bed.phasegate(&["run", PLAN]).expect(3);
        says(&found, said);
        says(&found, &["nothing was changed"]);
        nothing_has_changed(&bed);
        mend(&bed);
    }
    bed.phasegate(&["run", PLAN]).expect(4);
    bed.are_same("mended");
}

//! What the oracle found, reduced to two sessions.

use super::scene::Kind;
use super::stage::{Session, Stage};
use crate::services;

/// A copy that has passed the first keys and died, and a client whose snapshot is older than that.
fn older_than_a_copy(stage: &Stage) -> Session {
    stage.to("sync", "").expect(0);
    let mut older = Session::new(&stage.database.url);
    older.say("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM customers LIMIT 1");
    // Of sixteen chunks four are under way at once, the first maybe longest: what is open goes first when the copy goes on.
    let is_copied =
        || stage.database.value("SELECT count(*) FROM customers_v2 WHERE id = 13") == "1";
    let mut deaths = 0;
    while !is_copied() {
        let died = stage.to("copy", "postgres::after-commit::chunk=3*off->return");
        assert_eq!(died.code, None, "{died}");
        deaths += 1;
        assert!(deaths < 4, "three times four chunks, and not the first");
    }
    older
}

/// The client gives a row that it sees uncopied another key. The old key's copy, which it can't see, stays until it is put
/// right, and with it the row's address, which must be unique: the chunk that comes to the new key puts that right first.
#[test]
fn the_copy_of_a_row_that_is_gone_is_not_in_the_way_of_a_chunk() {
    let Some(server) = services::postgres("a copy in a chunk's way") else { return };
    let stage = Stage::new(&server, "");
    let mut older = older_than_a_copy(&stage);
    older.say("UPDATE customers SET id = 395 WHERE id = 13; COMMIT");
    stage.database.run("UPDATE twin SET id = 395 WHERE id = 13");
    stage.to("compare", "").expect(0);
    assert!(stage.is_alike());
}

/// Nor is it in the way of another client, who may take the address as soon as it is free.
#[test]
fn the_copy_of_a_row_that_is_gone_is_not_in_the_way_of_a_client() {
    let Some(server) = services::postgres("a copy in a client's way") else { return };
    let stage = Stage::new(&server, "");
    let mut older = older_than_a_copy(&stage);
    older.say("DELETE FROM customers WHERE id = 13; COMMIT");
    stage.database.run("DELETE FROM twin WHERE id = 13");
    stage.write("INSERT INTO TABLE VALUES (777, 'newer', 'first13', 'NEW')");
    stage.write("UPDATE TABLE SET email = 'first777' WHERE id = 777");
    stage.write("UPDATE TABLE SET email = 'first13' WHERE id = 14");
    stage.to("compare", "").expect(0);
    assert!(stage.is_alike());
}

/// What is truly another row's is refused, notes or not.
#[test]
fn a_client_is_told_of_a_value_that_a_stricter_table_has_already() {
    let Some(server) = services::postgres("a stricter table") else { return };
    let stage = Stage::new(&server, "");
    stage.to("sync", "").expect(0);
    stage.database.run(
        "INSERT INTO customers VALUES (777, 'newer', 'taken', 'NEW');
        ALTER TABLE customers DROP CONSTRAINT customers_email_key",
    );
    let told =
        stage.database.refused("INSERT INTO customers VALUES (778, 'newer', 'taken', 'NEW')");
    assert!(told.contains("customers_v2_email_key"), "{told}");
}

/// A client whose snapshot shows a value not copied yet empties it: by that snapshot the copy is empty already.
#[test]
fn a_null_over_a_value_copied_since_the_snapshot_is_not_lost() {
    let Some(server) = services::postgres("a NULL over a copied value") else { return };
    let stage = Stage::of(Kind::SplitEmail, &server, "");
    stage.to("sync", "").expect(0);
    let mut older = Session::new(&stage.database.url);
    older.say("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM users LIMIT 1");
    stage.to("copy", "").expect(0);
    older.say("UPDATE users SET email = NULL WHERE id = 13; COMMIT");
    stage.database.run("UPDATE twin SET email = NULL WHERE id = 13");
    stage.to("compare", "").expect(0);
    assert!(stage.is_alike());
}

/// Clients whose view is older than the copy, and whom `retire` doesn't know of, write to the old shape until it is dropped: what its
/// triggers could only note is put right before the notes go. That it waits for those that it knows is left out here.
#[test]
fn what_was_noted_after_retire_is_put_right_before_the_drop() {
    let Some(server) = services::postgres("notes before a drop") else { return };
    let stage =
        Stage::of(Kind::TableBoth, &server, "postgres::planted::names-change-at-once=return");
    stage.to("sync", "").expect(0);
    let mut older = Session::new(&stage.database.url);
    // It locks no table of the mapping, which `retire` would wait for.
    older.say("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM twin LIMIT 1");
    stage.to("retire", "").expect(0);
    older.say(
        "DELETE FROM customers_old WHERE id = 13;
         UPDATE customers_old SET status = 'LATE 1' WHERE id = 14; COMMIT",
    );
    stage
        .database
        .run("DELETE FROM twin WHERE id = 13; UPDATE twin SET status = 'LATE 1' WHERE id = 14");
    stage.to("drop", "").expect(0);
    assert!(stage.are_alike(&stage.kind.left()));
}

/// The same where both tables stay: nobody puts it right later.
#[test]
fn what_was_noted_is_put_right_when_the_sync_stops() {
    let Some(server) = services::postgres("notes before the end of a sync") else { return };
    let stage = Stage::that_stops(&server);
    let mut older = older_than_a_copy(&stage);
    stage.to("compare-at-rest", "").expect(0);
    older.say("DELETE FROM customers WHERE id = 13; COMMIT");
    stage.database.run("DELETE FROM twin WHERE id = 13");
    stage.to("stop", "").expect(0);
    assert!(stage.is_alike());
}

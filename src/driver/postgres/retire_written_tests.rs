//! Writes that reached the new side alone after a forward `retire`: none is lost by taking it back, however it was made.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{mapping, work};
use super::retire_tests::{Live, failure};
use super::sync_tests::say;
use crate::driver::{DualWriter as _, Losses};
use crate::run::{Direction, FailureClass, Mapping, OnDelete, RetireShape, Way};

const PAIR: &str = "
    CREATE TABLE a (id int PRIMARY KEY, v text);
    CREATE TABLE b (id int PRIMARY KEY, v text, note text);";

const IN_PARTS: &str = "
    CREATE TABLE a (id int PRIMARY KEY, v text);
    CREATE TABLE b (id int PRIMARY KEY, v text, note text) PARTITION BY RANGE (id);
    CREATE TABLE b_1 PARTITION OF b FOR VALUES FROM (0) TO (500);
    CREATE TABLE b_2 PARTITION OF b FOR VALUES FROM (500) TO (1000);";

fn aside() -> RetireShape {
    RetireShape::Table { old_name: "a_old".into(), take_name: true }
}

/// A sync from `a` to `b` that has three rows.
async fn live(tables: &str, on_delete: OnDelete) -> Option<Live> {
    let mapping = Mapping { on_delete, ..mapping(("a", &["id"]), ("b", &["id"])) };
    let live = Live::of(tables, mapping, Direction::Forward).await?;
    live.database.run("INSERT INTO a SELECT n, 'v' || n FROM generate_series(1, 3) AS n").await;
    Some(live)
}

#[tokio::test]
async fn what_only_the_new_side_has_of_rows_is_not_lost() {
    for (tables, on_delete, write) in [
        (PAIR, OnDelete::Ignore, "INSERT INTO a VALUES (888, 'new client')"),
        (PAIR, OnDelete::Delete, "UPDATE a SET note = 'mine' WHERE id = 1"),
        (PAIR, OnDelete::Nullify, "COPY a FROM PROGRAM 'echo 888'"),
        (IN_PARTS, OnDelete::Ignore, "COPY a (id) FROM PROGRAM 'echo 888'"),
        (IN_PARTS, OnDelete::Delete, "UPDATE b_1 SET note = 'mine' WHERE id = 1"),
        (
            IN_PARTS,
            OnDelete::Ignore,
            "CREATE TABLE b_3 PARTITION OF a FOR VALUES FROM (1000) TO (2000); INSERT INTO b_3 VALUES (1888)",
        ),
        (
            IN_PARTS,
            OnDelete::Ignore,
            "SET session_replication_role = replica; INSERT INTO a VALUES (888)",
        ),
        (IN_PARTS, OnDelete::Ignore, "TRUNCATE b_2"),
    ] {
        let write = write.replace("COPY a FROM PROGRAM", "COPY a (id) FROM PROGRAM");
        let Some(live) = live(tables, on_delete).await else { return };
        live.retire(&aside()).await.unwrap();
        live.database.run(&format!("BEGIN; {write}; ROLLBACK; {write}")).await;
        let rows = "SELECT string_agg(a::text, ' ' ORDER BY id) FROM a";
        let before = live.database.text(rows).await;
        let (class, message) = failure(live.unretire(&aside(), Losses::Refused).await);
        assert_eq!(class, FailureClass::Unsafe, "{write}: {message}");
        assert!(message.contains("since retire"), "{write}: {message}");
        assert_eq!(live.database.text(rows).await, before, "{write}");
        live.unretire(&aside(), Losses::Accepted).await.unwrap();
        let back = work("sync", Way::Back);
        live.postgres.remove(&live.fence, &back, &live.mapping, live.direction).await.unwrap();
        assert_eq!(live.ours_left().await, 0, "{write}");
        let left = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'written%'";
        assert_eq!(live.database.number(left).await, 0, "{write}");
        live.database.gone().await;
    }
}

#[tokio::test]
async fn unwritten_it_goes_back_and_forth_and_nothing_of_ours_is_left_at_the_drop() {
    for tables in [PAIR, IN_PARTS] {
        let Some(live) = live(tables, OnDelete::Delete).await else { return };
        live.retire(&aside()).await.unwrap();
        live.database.run("BEGIN; UPDATE a SET note = 'x'; ROLLBACK; SELECT count(*) FROM a").await;
        live.unretire(&aside(), Losses::Refused).await.unwrap();
        live.database.run("UPDATE b SET note = 'kept'").await;
        live.ledger_forgets("retire").await;
        live.retire(&aside()).await.unwrap();
        if tables == IN_PARTS {
            live.database.run("ALTER TABLE a DETACH PARTITION b_2").await;
        }
        live.database.run("INSERT INTO a VALUES (8)").await;
        live.drop(&aside()).await.unwrap();
        assert_eq!(live.ours_left().await, 0);
        live.database.run("INSERT INTO a VALUES (9)").await;
        assert_eq!(live.database.number("SELECT count(*) FROM a WHERE note = 'kept'").await, 3);
        live.database.gone().await;
    }
}

#[tokio::test]
async fn where_writes_were_not_noted_nothing_is_taken_for_certain() {
    for (meanwhile, named) in [
        (
            "ALTER TABLE a DISABLE TRIGGER USER; UPDATE a SET note = 'mine'; ALTER TABLE a ENABLE TRIGGER USER",
            "was switched off",
        ),
        ("UPDATE a SET note = 'mine'; DROP TABLE phasegate.written_{id} CASCADE", "is missing"),
    ] {
        let Some(live) = live(PAIR, OnDelete::Delete).await else { return };
        live.retire(&aside()).await.unwrap();
        let meanwhile = meanwhile.replace("{id}", &super::sync_tests::id(&live.mapping));
        live.database.run(&meanwhile).await;
        let (class, message) = failure(live.unretire(&aside(), Losses::Refused).await);
        assert_eq!(class, FailureClass::Unsafe, "{message}");
        assert!(message.contains(named), "{message}");
        live.unretire(&aside(), Losses::Accepted).await.unwrap();
        live.database.gone().await;
    }
}

#[tokio::test]
async fn writes_leave_few_notes_and_serializable_clients_do_not_fail_each_other() {
    let Some(live) = live(PAIR, OnDelete::Delete).await else { return };
    live.retire(&aside()).await.unwrap();
    let (mut one, mut other) = (live.database.client().await, live.database.client().await);
    let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM pg_class";
    for client in [&mut one, &mut other] {
        say(client, begin).await.unwrap();
    }
    say(&mut one, "INSERT INTO a VALUES (101)").await.unwrap();
    say(&mut other, "INSERT INTO a VALUES (102)").await.unwrap();
    for client in [&mut one, &mut other] {
        say(client, "COMMIT").await.unwrap();
    }
    let notes =
        format!("SELECT count(*) FROM phasegate.written_{}", super::sync_tests::id(&live.mapping));
    assert_eq!(live.database.number(&notes).await, 2);
    let many = "INSERT INTO a SELECT n FROM generate_series(1000, 9000) AS n";
    live.database.run(many).await;
    assert_eq!(live.database.number(&notes).await, 2);
    live.database.run("DELETE FROM a WHERE id > 9").await;
    live.database.run(&format!("BEGIN ISOLATION LEVEL SERIALIZABLE; {many}; COMMIT")).await;
    assert!(live.database.number(&notes).await < 3_000);
    live.database.gone().await;
}

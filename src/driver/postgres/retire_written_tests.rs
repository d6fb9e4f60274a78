//! Writes that reached the new side alone: none is lost by going back, however it was made.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{mapping, work};
use super::retire_tests::{Live, failure};
use super::sync_tests::say;
use crate::driver::{Applied, DualWriter as _, Error, Losses, SyncState, Verifier as _, Work};
use crate::run::{
    CopyColumns, Direction, FailureClass, Mapping, OnDelete, RetireShape, RetiredColumn, Way,
};

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

/// What has a partition of the new side written to while it is none, by its name after `retire`.
const AWAY: &str = "ALTER TABLE a DETACH PARTITION b_1; UPDATE b_1 SET note = 'mine'; ALTER TABLE a ATTACH PARTITION b_1 FOR VALUES FROM (0) TO (500)";

/// What switches triggers of a table off, does something, and makes them as they were.
fn beside(table: &str, write: &str) -> String {
    format!(
        "DO $$ DECLARE name text; BEGIN
           ALTER TABLE {table} DISABLE TRIGGER USER; {write};
           FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND NOT tgisinternal LOOP
             EXECUTE format('ALTER TABLE {table} ENABLE ALWAYS TRIGGER %I', name); END LOOP; END $$"
    )
}

/// No comparison sees what the old side hasn't.
#[tokio::test]
async fn rows_of_a_partition_whose_trigger_is_newer_than_the_others_are_not_believed() {
    for (tables, write) in [
        (IN_PARTS, AWAY.to_owned()),
        (
            IN_PARTS,
            "ALTER TABLE a DETACH PARTITION b_1; CREATE TABLE b_3 (LIKE b_1); INSERT INTO b_3 SELECT id, v, 'mine' FROM b_1;
             ALTER TABLE a ATTACH PARTITION b_3 FOR VALUES FROM (0) TO (500)"
                .to_owned(),
        ),
        (IN_PARTS, beside("b_1", "UPDATE b_1 SET note = 'mine'")),
        (PAIR, beside("a", "UPDATE a SET note = 'mine'")),
    ] {
        let Some(live) = live(tables, OnDelete::Delete).await else { return };
        live.retire(&aside()).await.unwrap();
        live.database.run(&write).await;
        let (class, message) = failure(live.unretire(&aside(), Losses::Refused).await);
        assert_eq!(class, FailureClass::Unsafe, "{write}: {message}");
        assert!(message.contains("was made anew, or switched off and on again"), "{message}");
        let kept = "SELECT count(*) FROM a WHERE note = 'mine'";
        assert_eq!(live.database.number(kept).await, 3, "{write}");
        live.unretire(&aside(), Losses::Accepted).await.unwrap();
        live.database.gone().await;
    }
    // A partition that is empty has missed nothing.
    let Some(live) = live(IN_PARTS, OnDelete::Delete).await else { return };
    live.retire(&aside()).await.unwrap();
    live.database
        .run("CREATE TABLE b_3 PARTITION OF a FOR VALUES FROM (1000) TO (2000); ALTER TABLE a DETACH PARTITION b_2;
              ALTER TABLE a ATTACH PARTITION b_2 FOR VALUES FROM (500) TO (1000)")
        .await;
    live.unretire(&aside(), Losses::Refused).await.unwrap();
    live.database.gone().await;
}

#[tokio::test]
async fn with_both_what_passed_the_sync_by_is_not_lost() {
    let filled = "CREATE TABLE b_3 (LIKE b_1); ALTER TABLE b_3 ADD PRIMARY KEY (id); INSERT INTO b_3 VALUES (1888, 'mine');
        ALTER TABLE a ATTACH PARTITION b_3 FOR VALUES FROM (1000) TO (2000)";
    for (tables, write, counts) in [
        (
            PAIR,
            beside("a", "UPDATE a SET v = 'mine' WHERE id = 1; INSERT INTO a VALUES (50, 'mine')"),
            "0 rows are missing there, 1 are only there, 1 differ",
        ),
        (PAIR, beside("a", "DELETE FROM a WHERE id = 1"), "1 rows are missing there, 0 are only"),
        (IN_PARTS, filled.to_owned(), "0 rows are missing there, 1 are only there, 0 differ"),
        (
            IN_PARTS,
            AWAY.replace("note =", "v ="),
            "0 rows are missing there, 0 are only there, 3 differ",
        ),
    ] {
        let of = mapping(("a", &["id"]), ("b", &["id"]));
        let Some(live) = Live::of(tables, of, Direction::Both).await else { return };
        let database = &live.database;
        database.run("INSERT INTO a SELECT n, 'v' || n FROM generate_series(1, 3) AS n").await;
        live.retire(&aside()).await.unwrap();
        database.run(&write).await;
        let rows = "SELECT string_agg(a::text, ' ' ORDER BY id) FROM a";
        let before = database.text(rows).await;
        let (class, message) = failure(live.unretire(&aside(), Losses::Refused).await);
        assert_eq!(class, FailureClass::Unsafe, "{write}: {message}");
        assert!(message.contains(counts), "{write}: {message}");
        assert_eq!(database.text(rows).await, before, "{write}");
        live.unretire(&aside(), Losses::Accepted).await.unwrap();
        database.gone().await;
    }
}

#[tokio::test]
async fn with_both_what_passed_the_sync_by_in_place_is_not_lost() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int, n8 bigint)";
    let of = Mapping {
        copy: CopyColumns::Listed,
        columns: vec![("n8".into(), "n".into())],
        reverse: vec![("n".into(), "n8".into())],
        ..mapping(("t", &["id"]), ("t", &["id"]))
    };
    let shape = RetireShape::Columns(vec![RetiredColumn {
        column: "n".into(),
        old_name: "n_old".into(),
        take_name: Some("n8".into()),
    }]);
    let Some(live) = Live::of(setup, of, Direction::Both).await else { return };
    live.database.run("INSERT INTO t (id, n) SELECT x, x FROM generate_series(1, 5) AS x").await;
    live.retire(&shape).await.unwrap();
    live.database.run(&beside("t", "UPDATE t SET n = 777 WHERE id = 1")).await;
    let (class, message) = failure(live.unretire(&shape, Losses::Refused).await);
    assert_eq!(class, FailureClass::Unsafe, "{message}");
    assert!(message.contains("1 differ; its key: 1"), "{message}");
    assert_eq!(live.database.number("SELECT n FROM t WHERE id = 1").await, 777);
    // Brought over by a client, it goes back.
    live.database.run("UPDATE t SET n = 778 WHERE id = 1").await;
    live.unretire(&shape, Losses::Refused).await.unwrap();
    assert_eq!(live.database.number("SELECT n FROM t WHERE id = 1").await, 778);
    live.database.gone().await;
}

impl Live {
    async fn watched(&self) -> Result<(), Error> {
        let work = Work { lock_timeout_ms: Some(50), ..work("sync", Way::Back) };
        self.postgres.watch(&self.fence, &work, &self.mapping).await
    }

    /// The work of going back on the strength of a comparison that ends now.
    async fn compared_now(&self, step: &str) -> Work {
        let under = self.postgres.basis(&self.mapping).await.unwrap().of_sync();
        Work { compared_under: Some(under), ..work(step, Way::Back) }
    }

    async fn take_out(&self, work: &Work) -> Result<Applied, Error> {
        self.postgres.remove(&self.fence, work, &self.mapping, self.direction).await
    }

    async fn put_in(&self, work: &Work) -> Result<Applied, Error> {
        self.postgres.install(&self.fence, work, &self.mapping, self.direction).await
    }

    async fn watches_left(&self) -> i64 {
        let left = "SELECT (SELECT count(*) FROM pg_tables WHERE tablename LIKE 'written%')
            + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'phasegate_written%')";
        self.database.number(left).await
    }
}

/// Where the sync had ended and comes in again, both sides were compared before.
#[tokio::test]
async fn a_write_to_the_new_side_behind_the_comparison_keeps_the_sync_out() {
    for (tables, direction) in
        [(PAIR, Direction::Forward), (PAIR, Direction::Both), (IN_PARTS, Direction::Forward)]
    {
        let of = mapping(("a", &["id"]), ("b", &["id"]));
        let Some(live) = Live::of(tables, of, direction).await else { return };
        live.database.run("INSERT INTO a SELECT n, 'v' || n FROM generate_series(1, 3) AS n").await;
        live.take_out(&work("stop", Way::Forward)).await.unwrap();
        let mut client = live.database.client().await;
        say(&mut client, "BEGIN; INSERT INTO b VALUES (50, 'mine')").await.unwrap();
        // Nothing is compared before they have ended.
        let held = live.watched().await.unwrap_err();
        assert_eq!(held.class(), Some(FailureClass::Contention), "{held}");
        say(&mut client, "ROLLBACK").await.unwrap();
        live.watched().await.unwrap();
        let back = live.compared_now("stop").await;
        say(&mut client, "BEGIN; UPDATE b SET note = 'mine' WHERE id = 1; COMMIT").await.unwrap();
        let (class, message) = failure(live.put_in(&back).await);
        assert_eq!(class, FailureClass::Contention, "{message}");
        assert!(message.contains("wrote to the new side while it was compared"), "{message}");
        live.watched().await.unwrap();
        let back = live.compared_now("stop").await;
        say(&mut client, "INSERT INTO a VALUES (9, 'old'); BEGIN; DELETE FROM b; ROLLBACK")
            .await
            .unwrap();
        live.put_in(&back).await.unwrap();
        assert_eq!(live.sync().await, SyncState::Active);
        assert_eq!(live.watches_left().await, 0);
        live.database.gone().await;
    }
}

#[tokio::test]
async fn a_write_to_the_new_side_beside_the_sync_keeps_it_from_being_emptied() {
    for tables in [PAIR, IN_PARTS] {
        let Some(live) = live(tables, OnDelete::Delete).await else { return };
        live.watched().await.unwrap();
        let back = live.compared_now("sync").await;
        live.database.run("INSERT INTO b VALUES (50, 'mine')").await;
        let (class, message) = failure(live.take_out(&back).await);
        assert_eq!(class, FailureClass::Contention, "{message}");
        assert_eq!(live.sync().await, SyncState::Active);
        assert_eq!(live.database.number("SELECT count(*) FROM b").await, 4);
        live.database.run("DELETE FROM b WHERE id = 50").await;
        live.watched().await.unwrap();
        let back = live.compared_now("sync").await;
        // What the sync brings there, however clients write, is no write to the new side.
        live.database
            .run("UPDATE a SET v = 'x'; UPDATE a SET id = id + 10; DELETE FROM a WHERE id = 11; INSERT INTO a VALUES (1, 'v')
                  ON CONFLICT (id) DO UPDATE SET v = 'w'; SET lc_messages = 'C'; TRUNCATE a; INSERT INTO a VALUES (7, 'v7')")
            .await;
        live.take_out(&back).await.unwrap();
        assert_eq!(live.database.number("SELECT count(*) FROM b").await, 0);
        assert_eq!((live.watches_left().await, live.ours_left().await), (0, 0));
        live.database.gone().await;
    }
    // Whoever gives them up is not kept from it.
    let Some(live) = live(PAIR, OnDelete::Delete).await else { return };
    live.watched().await.unwrap();
    live.database.run("INSERT INTO b VALUES (50, 'mine')").await;
    live.take_out(&work("sync", Way::Back)).await.unwrap();
    assert_eq!(live.watches_left().await, 0);
    live.database.gone().await;
}

/// With `both` it is the sync that keeps the sides equal behind a comparison.
#[tokio::test]
async fn with_both_a_sync_that_is_another_than_was_compared_under_is_not_taken_out() {
    let of = mapping(("a", &["id"]), ("b", &["id"]));
    let Some(live) = Live::of(PAIR, of, Direction::Both).await else { return };
    live.database.run("INSERT INTO a VALUES (1, 'v')").await;
    let back = live.compared_now("sync").await;
    live.database.run(&beside("b", "UPDATE b SET v = 'mine'")).await;
    let (class, message) = failure(live.take_out(&back).await);
    assert_eq!(class, FailureClass::Contention, "{message}");
    assert_eq!(live.database.text("SELECT v FROM b").await, "mine");
    let back = live.compared_now("sync").await;
    live.database.run("UPDATE b SET v = 'both'").await;
    live.take_out(&back).await.unwrap();
    assert_eq!(live.database.text("SELECT v FROM a").await, "both");
    live.database.gone().await;
}

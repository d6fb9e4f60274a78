//! Changes that are claimed, applied, refused and asked for, one step at a time.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{Bed, ID, PEOPLE, Sink, crossing, people, say};
use crate::bounds::relay::CLAIM_BYTES_MAX;
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::copy::row::Datum;
use crate::driver::Error;
use crate::driver::crossing::{Change, ChangeSource as _, Lag, Moment, Rows, What};
use crate::driver::postgres::fixture::{class, entered};
use crate::run::{FailureClass, Mapping};

const ALL: Chunk = Chunk { lo: None, hi: None };

fn key(id: i64) -> Vec<Datum> {
    vec![Datum::Integer(id)]
}

/// What changes are about, in their order.
fn ids(changes: &[Change]) -> Vec<i64> {
    let id = |change: &Change| match &change.what {
        What::Is(row) => row.key.clone(),
        What::Gone(key) => key.clone(),
        What::Emptied => vec![Datum::Integer(0)],
        What::Unfit(unfit) => vec![Datum::Integer(unfit.key[0].parse().unwrap())],
    };
    changes
        .iter()
        .map(|change| match id(change).as_slice() {
            [Datum::Integer(id)] => *id,
            other => panic!("{other:?}"),
        })
        .collect()
}

async fn update(bed: &Bed, ids: &[i64]) {
    for id in ids {
        bed.run(&format!("UPDATE people SET status = status || '.' WHERE id = {id}")).await;
    }
}

#[tokio::test]
async fn what_is_committed_late_is_claimed_late_and_not_lost() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let mut late = bed.client().await;
    say(&mut late, "BEGIN; UPDATE people SET status = 'Late' WHERE id = 1").await.unwrap();
    update(&bed, &[2]).await;
    let first = bed.claim().await;
    assert_eq!(ids(&first), [2]);
    assert_eq!(bed.applied(&first).await, 1);
    say(&mut late, "COMMIT").await.unwrap();
    let second = bed.claim().await;
    assert_eq!(ids(&second), [1]);
    assert!(second[0].version < first[0].version);
    assert_eq!(bed.applied(&second).await, 1);
    assert_eq!(bed.applied(&second).await, 0);
    assert_eq!(bed.claim().await, []);
}

#[tokio::test]
async fn claims_are_bounded_and_give_the_lowest_versions_first() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    update(&bed, &[3, 1, 2]).await;
    let two = bed.postgres.claim(bed.fence(), bed.mappings(), (2, &[])).await.unwrap();
    assert_eq!(ids(&two), [3, 1]);
    bed.applied(&two).await;
    // Images of three quarters of a claim each, and compressed to next to nothing in the table.
    let third = CLAIM_BYTES_MAX * 3 / 4;
    bed.run(&format!("UPDATE people SET email = repeat('x', {third}) WHERE id IN (4, 5, 6)")).await;
    // What passes the bound is the last one; a change that does so alone is given alone.
    assert_eq!(ids(&bed.claim().await), [2, 6, 5]);
    bed.run(&format!("DELETE FROM phasegate.outbox; UPDATE people SET email = repeat('x', {CLAIM_BYTES_MAX}) WHERE id IN (7, 8)")).await;
    let one = bed.claim().await;
    assert_eq!(ids(&one), [8]);
    bed.applied(&one).await;
    assert_eq!(ids(&bed.claim().await), [7]);
}

#[tokio::test]
async fn what_is_in_hand_is_not_given_and_who_takes_over_has_nothing_in_hand() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    update(&bed, &[1, 2, 3]).await;
    let of = [bed.of.clone()];
    let claim =
        async |fence, most, in_hand: &[u64]| bed.postgres.claim(fence, &of, (most, in_hand)).await;
    let first = claim(&bed.fences[0], 2, &[]).await.unwrap();
    assert_eq!(ids(&first), [1, 2]);
    let in_hand = [first[0].version, first[1].version];
    assert_eq!(ids(&claim(&bed.fences[0], 1, &in_hand).await.unwrap()), [3]);
    assert_eq!(ids(&claim(&bed.fences[0], 9, &in_hand[1..]).await.unwrap()), [1, 3]);
    // Whoever has lost the answer gets the same again.
    assert_eq!(claim(&bed.fences[0], 2, &[]).await.unwrap(), first);
    let other = [Mapping { name: "others".into(), ..people() }];
    assert_eq!(bed.postgres.claim(&bed.fences[0], &other, (9, &[])).await.unwrap(), []);
    let newer = entered(&bed.postgres, 2).await;
    assert_eq!(ids(&claim(&newer[1], 9, &[]).await.unwrap()), [1, 2, 3]);
    for refused in [
        claim(&bed.fences[0], 9, &[]).await.map(|_| ()),
        bed.postgres.applied(&bed.fences[0], &[first[0].version]).await.map(|_| ()),
        bed.postgres
            .change_refused(&bed.fences[0], first[0].version, (None, "x"), 1)
            .await
            .map(|_| ()),
        bed.postgres.enqueue(&bed.fences[0], &bed.of, &[key(1)]).await.map(|_| ()),
    ] {
        assert!(matches!(refused, Err(Error::Fenced { ours: 1, newest: 2 })), "{refused:?}");
    }
    assert_eq!(bed.changes().await, 3);
}

/// A claim may end within a client's transaction: what that has left is given, and never what was on the way.
#[tokio::test]
async fn of_a_key_that_a_claim_reaches_the_last_change_is_given() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let claim = async |most, in_hand: &[u64]| {
        bed.postgres.claim(bed.fence(), bed.mappings(), (most, in_hand)).await
    };
    update(&bed, &[1, 2, 1, 3, 1]).await;
    let two = claim(2, &[]).await.unwrap();
    assert_eq!((ids(&two), bed.changes().await), (vec![2, 1], 3));
    let What::Is(row) = &two[1].what else { panic!() };
    assert_eq!(row.values["state.code"], Datum::Text("open...".into()));
    let in_hand = [two[0].version, two[1].version];
    assert_eq!(ids(&claim(2, &in_hand).await.unwrap()), [3]);
    // What comes and goes within one transaction was never there.
    bed.run("DELETE FROM phasegate.outbox").await;
    bed.run(
        "BEGIN; INSERT INTO people VALUES (50, 'n', 'N'); DELETE FROM people WHERE id = 50; COMMIT",
    )
    .await;
    let one = claim(1, &[]).await.unwrap();
    assert_eq!((one[0].what.clone(), bed.changes().await), (What::Gone(key(50)), 1));
    // What is too much for a claim is left for the next, and what is parked for those who park it.
    bed.run("DELETE FROM phasegate.outbox").await;
    update(&bed, &[4, 5, 6]).await;
    bed.run(&format!(
        "UPDATE people SET email = repeat('x', {CLAIM_BYTES_MAX}) WHERE id IN (4, 5)"
    ))
    .await;
    update(&bed, &[6]).await;
    bed.run("UPDATE phasegate.outbox SET parked = true WHERE version = (SELECT max(version) FROM phasegate.outbox)").await;
    let first = claim(3, &[]).await.unwrap();
    assert_eq!(ids(&first), [6, 4]);
    let in_hand = [first[0].version, first[1].version];
    assert_eq!(ids(&claim(3, &in_hand).await.unwrap()), [5]);
}

#[tokio::test]
async fn of_one_key_the_highest_version_is_given() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    update(&bed, &[1, 2, 1, 1]).await;
    bed.run("DELETE FROM people WHERE id = 2").await;
    let changes = bed.claim().await;
    assert_eq!((ids(&changes), bed.changes().await), (vec![1, 2], 2));
    let What::Is(row) = &changes[0].what else { panic!() };
    assert_eq!(row.values["state.code"], Datum::Text("open...".into()));
    assert_eq!(changes[1].what, What::Gone(key(2)));
}

#[tokio::test]
async fn of_more_than_is_counted_the_server_says_how_many_and_versions_do_not() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    // A relay has been here since, which draws versions from the clock.
    bed.run(&format!(
        "INSERT INTO phasegate.outbox (version, mapping, key, bytes)
           SELECT n + CASE WHEN n > 500000 THEN 3600000000 ELSE 0 END, '{ID}', ARRAY[n::text], 10 FROM generate_series(1, 1200000) AS n;
         ANALYZE phasegate.outbox"
    ))
    .await;
    let Lag { rows, is_more, bytes, .. } = bed.postgres.lag(bed.mappings()).await.unwrap();
    assert!(is_more && (1_100_000..1_300_000).contains(&rows), "{rows}");
    assert_eq!(bytes, rows * 10);
}

#[tokio::test]
async fn what_is_refused_waits_for_nobody_and_goes_with_what_comes_after_it() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let refuse = async |change: &Change| {
        let said = (Some("Neo.X"), "no\0 such thing");
        bed.postgres.change_refused(bed.fence(), change.version, said, 2).await.unwrap()
    };
    let lag = async || bed.postgres.lag(bed.mappings()).await.unwrap();
    update(&bed, &[1, 2]).await;
    let changes = bed.claim().await;
    assert!(!refuse(&changes[0]).await);
    bed.applied(&changes[1..]).await;
    update(&bed, &[3]).await;
    let changes = bed.claim().await;
    assert_eq!((ids(&changes), changes[0].tries), (vec![1, 3], 1));
    assert!(refuse(&changes[0]).await);
    bed.applied(&changes[1..]).await;
    // It is parked, and said so.
    assert_eq!(bed.claim().await, []);
    let Lag { rows, parked, last_error, oldest_ms, .. } = lag().await;
    assert_eq!((rows, parked, last_error.as_deref()), (1, 1, Some("Neo.X: no such thing")));
    assert!(oldest_ms.is_some());
    // Asked to, it comes again.
    assert_eq!(bed.postgres.retry_changes(bed.fence(), &bed.of).await.unwrap(), 1);
    let changes = bed.claim().await;
    assert_eq!(ids(&changes), [1]);
    assert!(refuse(&changes[0]).await);
    // A later change of its key takes its place, and another key's doesn't.
    update(&bed, &[4]).await;
    let other = bed.claim().await;
    assert_eq!(bed.applied(&other).await, 1);
    update(&bed, &[1]).await;
    let newer = bed.claim().await;
    assert_eq!((ids(&newer), newer[0].tries), (vec![1], 0));
    assert_eq!(bed.applied(&newer).await, 2);
    assert_eq!(lag().await, Lag::default());
    // What is gone already is refused by nobody.
    assert!(!refuse(&newer[0]).await);
}

#[tokio::test]
async fn what_can_not_cross_is_told_and_keeps_nobody_waiting() {
    let setup = "CREATE TABLE t (id bigint PRIMARY KEY, d date); INSERT INTO t VALUES (1, 'infinity'), (2, '2024-01-01')";
    let Some(bed) = Bed::with(setup, crossing("t", &["id"], &[("d", "d")])).await else { return };
    bed.run("UPDATE t SET d = d - 1 WHERE id = 2; UPDATE t SET d = '-infinity' WHERE id = 1").await;
    let changes = bed.claim().await;
    assert_eq!(ids(&changes), [2, 1]);
    let What::Unfit(unfit) = &changes[1].what else { panic!() };
    assert_eq!(unfit.reason, "d is infinite, which no other database has");
}

#[tokio::test]
async fn a_table_that_was_emptied_makes_void_what_was_written_before() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    update(&bed, &[1, 2]).await;
    bed.run("TRUNCATE people; INSERT INTO people VALUES (5, 'n', 'N')").await;
    let changes = bed.claim().await;
    assert_eq!(ids(&changes), [1, 2, 0, 5]);
    assert_eq!(bed.applied(&changes[2..3]).await, 3);
    assert_eq!(ids(&bed.claim().await), [5]);
}

#[tokio::test]
async fn a_moment_is_over_when_all_that_was_written_before_it_is_applied() {
    let Some(bed) = Bed::with(&format!("{PEOPLE} CREATE TABLE elsewhere (id int)"), people()).await
    else {
        return;
    };
    let of = [bed.of.clone()];
    let drained = async |moment: &Moment| bed.postgres.is_drained(moment, &of).await.unwrap();
    let mut elsewhere = bed.client().await;
    say(&mut elsewhere, "BEGIN; INSERT INTO elsewhere VALUES (1)").await.unwrap();
    for end in ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'outbox'"] {
        let mut open = bed.client().await;
        say(
            &mut open,
            "BEGIN; UPDATE people SET status = 'Open' || clock_timestamp() WHERE id = 1",
        )
        .await
        .unwrap();
        update(&bed, &[2]).await;
        let moment = bed.postgres.moment().await.unwrap();
        assert!(!drained(&moment).await);
        let changes = bed.claim().await;
        assert_eq!(ids(&changes), [2]);
        bed.applied(&changes).await;
        // The outbox looks empty, and a version below is still to come.
        assert!(!drained(&moment).await, "{end}");
        say(&mut open, end).await.unwrap();
        if end.starts_with("PREPARE") {
            assert!(!drained(&moment).await);
            say(&mut open, "COMMIT PREPARED 'outbox'").await.unwrap();
        }
        assert_eq!(drained(&moment).await, end == "ROLLBACK", "{end}");
        let changes = bed.claim().await;
        // What comes afterwards is none of it.
        update(&bed, &[3]).await;
        bed.applied(&changes).await;
        assert!(drained(&moment).await, "{end}");
        assert!(!drained(&bed.postgres.moment().await.unwrap()).await);
        bed.run("DELETE FROM phasegate.outbox").await;
    }
    say(&mut elsewhere, "COMMIT").await.unwrap();
}

#[tokio::test]
async fn keys_are_entered_as_their_rows_are() {
    let Some(bed) =
        Bed::with(PEOPLE, Mapping { filter: Some("status <> 'Hidden'".into()), ..people() }).await
    else {
        return;
    };
    update(&bed, &[1]).await;
    bed.run("UPDATE people SET status = 'Hidden' WHERE id = 2; DELETE FROM phasegate.outbox WHERE key = '{2}'").await;
    let odd = vec![Datum::Text("x".into())];
    let keys = [key(1), key(2), key(77), odd.clone(), key(1)];
    assert_eq!(bed.postgres.enqueue(bed.fence(), &bed.of, &keys).await, Ok(3));
    let changes = bed.claim().await;
    let mut sink = Sink::default();
    for change in &changes {
        sink.change(change);
    }
    let mut found = ids(&changes);
    found.sort_unstable();
    assert_eq!((found, sink.rows().len()), (vec![1, 2, 77], 1));
    assert_eq!(sink.rows()[0].values["state.code"], Datum::Text("open.".into()));
    assert_eq!(bed.postgres.enqueue(bed.fence(), &bed.of, &[odd]).await, Ok(0));
    let keys = [key(1), key(2), key(3), vec![Datum::Text("3".into())]];
    assert_eq!(bed.postgres.which_exist(&bed.of, &keys).await, Ok(vec![true, false, true, false]));
    assert_eq!(bed.postgres.rows_of(&bed.of, &keys).await.unwrap().page.rows.len(), 2);
}

#[tokio::test]
async fn a_key_that_a_client_has_in_hand_is_not_entered_as_it_was() {
    for script in [
        "UPDATE people SET status = 'New' WHERE id = 1",
        "DELETE FROM people WHERE id = 1",
        "INSERT INTO people VALUES (50, 'n', 'N')",
        "UPDATE people SET id = 50 WHERE id = 1",
        "UPDATE people SET status = 'New' WHERE id = 1; DELETE FROM people WHERE id = 1; INSERT INTO people VALUES (1, 'n', 'N')",
    ] {
        let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
        let keys = [key(1), key(50)];
        let mut sink = Sink::default();
        sink.page(bed.postgres.page(&bed.of, (&ALL, Rows::All)).await.unwrap());
        let mut client = bed.client().await;
        say(&mut client, &format!("BEGIN; {script}")).await.unwrap();
        let refused = bed.postgres.enqueue(bed.fence(), &bed.of, &keys).await;
        assert_eq!(class(refused), FailureClass::Contention, "{script}");
        // A client that ends while it is waited for is seen.
        let (entered, ()) =
            tokio::join!(bed.postgres.enqueue(bed.fence(), &bed.of, &keys[1..]), async {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                say(&mut client, "COMMIT").await.unwrap();
            });
        assert_eq!(entered, Ok(1), "{script}");
        for change in bed.claim().await {
            sink.change(&change);
        }
        let mut rows = bed.postgres.page(&bed.of, (&ALL, Rows::All)).await.unwrap().rows;
        rows.sort();
        assert_eq!(sink.rows(), rows, "{script}");
        bed.database.gone().await;
    }
}

#[tokio::test]
async fn a_page_that_comes_late_brings_nothing_back() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let (lo, hi) = (Key(vec![Cell::Integer(1)]), Key(vec![Cell::Integer(6)]));
    let early = bed
        .postgres
        .page(&bed.of, (&Chunk { lo: None, hi: Some(lo.clone()) }, Rows::All))
        .await
        .unwrap();
    let late = bed
        .postgres
        .page(&bed.of, (&Chunk { lo: Some(lo), hi: Some(hi) }, Rows::All))
        .await
        .unwrap();
    let mut sink = Sink::default();
    sink.page(early);
    bed.run("DELETE FROM people WHERE id = 3; UPDATE people SET id = 30 WHERE id = 4; UPDATE people SET status = 'Won' WHERE id IN (1, 5)").await;
    for change in bed.claim().await {
        sink.change(&change);
    }
    sink.page(late.clone());
    let mut there: Vec<i64> = sink
        .rows()
        .iter()
        .map(|row| match row.key[0] {
            Datum::Integer(id) => id,
            _ => 0,
        })
        .collect();
    there.sort_unstable();
    assert_eq!(there, [1, 2, 5, 6, 30]);
    assert!(
        sink.rows()
            .iter()
            .any(|row| row.key == key(5) && row.values["state.code"] == Datum::Text("won".into()))
    );
    // Nor does it after the table was emptied, of which the new side hasn't known every row.
    let mut sink = Sink::default();
    bed.run("TRUNCATE people; INSERT INTO people VALUES (2, 'again', 'Again')").await;
    for change in bed.claim().await {
        sink.change(&change);
    }
    sink.page(late);
    assert_eq!(sink.rows(), bed.postgres.page(&bed.of, (&ALL, Rows::All)).await.unwrap().rows);
}

#[tokio::test]
async fn where_there_is_no_outbox_nothing_waits_and_nothing_fails() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    bed.claim().await;
    let session = async || {
        let mut reader = bed.postgres.connections.read().await.unwrap();
        let sql = "SELECT pg_backend_pid()";
        let pid: i32 = sqlx::query_scalar(sql).fetch_one(reader.conn().unwrap()).await.unwrap();
        reader.release().await;
        pid
    };
    let before = session().await;
    bed.run("DROP TABLE phasegate.outbox").await;
    for _ in 0..3 {
        assert_eq!(bed.claim().await, []);
        assert_eq!(bed.postgres.lag(bed.mappings()).await.unwrap(), Lag::default());
        assert_eq!(bed.postgres.parked_changes(&bed.of, 5).await.unwrap().total, 0);
    }
    // Whoever reads without an error keeps its session.
    assert_eq!(session().await, before);
}

#[tokio::test]
async fn vacuum_keeps_no_client_from_writing() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let off = "SELECT count(*) FROM pg_class WHERE oid = 'phasegate.outbox'::regclass AND 'vacuum_truncate=off' = ANY (reloptions)";
    assert_eq!(bed.number(off).await, 1);
}

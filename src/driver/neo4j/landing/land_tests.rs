//! Changes and pages, one after the other, on a real server.
#![allow(clippy::unwrap_used, missing_docs)]

use super::super::fixture::class;
use super::fixture::{
    Bed, follow, follows, gone, int, is, order, orders, people, person, row, stub,
};
use crate::copy::row::Datum;
use crate::driver::crossing::{ChangeSink as _, Crossed};
use crate::run::{FailureClass, OnExisting};

#[tokio::test]
async fn of_a_key_the_highest_version_stays_however_changes_come() {
    let of = people();
    let Some(bed) = Bed::open(&[&of]).await else { return };
    let version = |version: u64| is(&of, version, person(1, &format!("v{version}")));
    bed.land(&[&of], &[version(1), version(3), version(2)]).await;
    let one: &[Datum] = &[int(1)];
    let held = bed.held(&of, &[one]).await;
    assert_eq!((held.rows, held.versions), (vec![person(1, "v3")], vec![3]));
    bed.land(&[&of], &[version(2)]).await;
    assert_eq!(bed.rows(&of, &[one]).await, [person(1, "v3")]);
    // What comes once more does nothing, also behind what was done to it by others.
    bed.database.run("MATCH (p:Person) SET p.name = 'theirs', p.own = 7").await;
    bed.land(&[&of], &[version(3)]).await;
    assert_eq!(bed.rows(&of, &[one]).await, [person(1, "theirs")]);
    // What the row doesn't have is null, and what is nobody's business stays.
    bed.land(&[&of], &[is(&of, 4, row(one, &[("n", int(4))]))]).await;
    assert_eq!(bed.rows(&of, &[one]).await, [row(one, &[("n", int(4))])]);
    assert_eq!(bed.database.number("MATCH (p:Person {own: 7}) RETURN count(p) AS it").await, 1);
    bed.land(&[&of], &[gone(&of, 6, one), version(5)]).await;
    bed.land(&[&of], &[version(5), is(&of, 1, person(2, "other"))]).await;
    let held = bed.held(&of, &[one, &[int(2)], &[int(3)]]).await;
    assert_eq!((held.rows, held.versions), (vec![person(2, "other")], vec![6, 1, 0]));
    bed.land(&[&of], &[version(7)]).await;
    assert_eq!(bed.rows(&of, &[one]).await, [person(1, "v7")]);
}

#[tokio::test]
async fn a_late_page_brings_nothing_back_and_overwrites_nothing() {
    for on_existing in [OnExisting::Keep, OnExisting::Update] {
        let mut all = [people(), follows(), orders()];
        for of in &mut all {
            of.mapping.on_existing = on_existing;
        }
        let [people, follows, orders] = &all;
        let Some(bed) = Bed::open(&[people, follows, orders]).await else { return };
        bed.page(people, (1..=4).map(|id| person(id, "old")).collect()).await;
        let rows = [
            (people, (1..=4).map(|id| person(id, "read")).collect::<Vec<_>>(), person(2, "new")),
            (follows, (1..=4).map(|id| follow(id, 1, 1)).collect::<Vec<_>>(), follow(2, 1, 2)),
            (orders, (1..=4).map(|id| order(id, (id, "a"), 1)).collect(), order(2, (3, "b"), 2)),
        ];
        for (of, read, new) in rows {
            let keys: Vec<Vec<Datum>> = read.iter().map(|row| row.key.clone()).collect();
            // Read, and then one is deleted and one updated before the page comes.
            bed.land(&[of], &[gone(of, 1, &keys[0]), is(of, 2, new.clone())]).await;
            let copied = bed.page(of, read.clone()).await;
            let nodes_are_there =
                of.mapping.name == people.mapping.name && on_existing == OnExisting::Keep;
            let written = if nodes_are_there { 0 } else { 2 };
            assert_eq!(
                (copied.rows_read, copied.rows_written),
                (4, written),
                "{}",
                of.mapping.name
            );
            let mut expected = vec![new, read[2].clone(), read[3].clone()];
            if nodes_are_there {
                expected[1..].clone_from_slice(&[person(3, "old"), person(4, "old")]);
            }
            let keys: Vec<&[Datum]> = keys.iter().map(Vec::as_slice).collect();
            let held = bed.rows(of, &keys).await;
            let held: Vec<_> = held.into_iter().filter(|row| row.key != keys[0]).collect();
            assert_eq!(held, expected, "{}", of.mapping.name);
        }
        assert_eq!(bed.rows(follows, &[&[int(1), int(1)]]).await, []);
        assert_eq!(bed.rows(orders, &[&[int(1)]]).await, []);
    }
}

#[tokio::test]
async fn a_relationship_may_come_before_its_nodes_and_outlive_them() {
    let (people, follows, orders) = (people(), follows(), orders());
    let all: [&Crossed; 3] = [&people, &follows, &orders];
    let Some(bed) = Bed::open(&all).await else { return };
    let one: &[Datum] = &[int(1)];
    bed.page(&follows, vec![follow(1, 2, 5), follow(2, 2, 6)]).await;
    bed.land(&all, &[is(&orders, 1, order(9, (1, "a"), 1))]).await;
    assert_eq!(bed.rows(&people, &[one, &[int(2)]]).await, [stub(one), stub(&[int(2)])]);
    assert_eq!(bed.neo4j.held_count(&people).await.unwrap(), 2);
    // One is filled by a page, the other by a change.
    let copied = bed.page(&people, vec![person(1, "a"), person(3, "c")]).await;
    assert_eq!(copied.rows_written, 2);
    bed.land(&all, &[is(&people, 2, person(2, "b"))]).await;
    let keys: [&[Datum]; 3] = [one, &[int(2)], &[int(3)]];
    assert_eq!(bed.rows(&people, &keys).await, [person(1, "a"), person(2, "b"), person(3, "c")]);
    // A node that goes first leaves a stub, and its relationships stay.
    bed.land(&all, &[gone(&people, 3, one)]).await;
    assert_eq!(bed.rows(&people, &[one]).await, [stub(one)]);
    assert_eq!(bed.rows(&follows, &[&[int(2), int(1)]]).await, [follow(1, 2, 5)]);
    // A late page doesn't fill it again.
    bed.page(&people, vec![person(1, "a")]).await;
    assert_eq!(bed.rows(&people, &[one]).await, [stub(one)]);
    bed.land(&all, &[is(&people, 4, person(1, "again"))]).await;
    assert_eq!(bed.rows(&people, &[one]).await, [person(1, "again")]);
    assert_eq!(bed.rows(&orders, &[&[int(9)]]).await, [order(9, (1, "a"), 1)]);
    // Stubs go with the last that refers to them.
    bed.land(&all, &[gone(&people, 5, one), gone(&orders, 6, &[int(9)])]).await;
    let count = "MATCH (n) WHERE n.phasegate_stub RETURN count(n) AS it";
    assert_eq!(bed.database.number(count).await, 1, "the item is gone, the person isn't");
    bed.land(&all, &[gone(&follows, 7, &[int(2), int(1)])]).await;
    assert_eq!(bed.database.number(count).await, 0);
    // All at once, in whatever order.
    let changes = [
        gone(&people, 8, &[int(2)]),
        gone(&people, 9, &[int(3)]),
        gone(&follows, 10, &[int(2), int(2)]),
    ];
    bed.land(&all, &changes).await;
    bed.land(&all, &changes).await;
    let left = "MATCH (n) WHERE n:Person OR n:Item RETURN count(n) AS it";
    assert_eq!(bed.database.number(left).await, 0);
    assert_eq!(bed.neo4j.sweep(&bed.fences[0], &follows).await.unwrap(), 0);
}

#[tokio::test]
async fn a_relationship_with_a_key_of_its_own_moves_with_what_others_gave_it() {
    let of = orders();
    let Some(bed) = Bed::open(&[&of]).await else { return };
    bed.page(&of, vec![order(1, (1, "a"), 1), order(2, (1, "a"), 2)]).await;
    bed.database.run("MATCH ()-[o:ORDERED {no: 1}]->() SET o.own = 'kept'").await;
    bed.database.run("MATCH (p:Person {uid: 1}) CREATE (p)-[:OWN]->(p)").await;
    let keys: [&[Datum]; 2] = [&[int(1)], &[int(2)]];
    bed.land(&[&of], &[is(&of, 1, order(1, (2, "b"), 3))]).await;
    assert_eq!(bed.rows(&of, &keys).await, [order(1, (2, "b"), 3), order(2, (1, "a"), 2)]);
    let kept = "MATCH (:Person {uid: 2})-[o:ORDERED {no: 1, own: 'kept'}]->(:Item {sku: 'b'}) RETURN count(o) AS it";
    assert_eq!(bed.database.number(kept).await, 1);
    // In one batch: one moves to where the other was; what is left behind and nothing refers to goes.
    let moves = [is(&of, 3, order(1, (1, "a"), 3)), is(&of, 2, order(2, (5, "c"), 1))];
    bed.land(&[&of], &moves).await;
    bed.land(&[&of], &moves).await;
    assert_eq!(bed.rows(&of, &keys).await, [order(1, (1, "a"), 3), order(2, (5, "c"), 1)]);
    let nodes = "MATCH (n) WHERE n:Person OR n:Item RETURN toString(coalesce(n.uid, n.sku)) AS it ORDER BY it";
    assert_eq!(bed.database.texts(nodes).await, ["1", "5", "a", "c"]);
    bed.land(&[&of], &[gone(&of, 4, keys[0]), gone(&of, 5, keys[1])]).await;
    assert_eq!(bed.database.texts(nodes).await, ["1"], "somebody else has a relationship there");
    // An end that isn't there is no end.
    let endless = row(keys[0], &[("start.uid", int(1))]);
    assert_eq!(class(bed.try_land(&[&of], &[is(&of, 6, endless)]).await), FailureClass::Refused);
    assert_eq!(bed.held(&of, &keys).await.versions, [4, 5]);
}

//! Tables that are emptied as a whole, on a real server.
#![allow(clippy::unwrap_used, missing_docs)]

use super::super::fixture::class;
use super::fixture::{Bed, follow, follows, gone, int, is, order, orders, people, person, stub};
use crate::driver::crossing::{ChangeSink as _, Crossed};
use crate::run::FailureClass;

async fn empty(bed: &Bed, of: &Crossed, version: u64) -> u32 {
    let mut calls = 1;
    while bed.neo4j.land_emptied(&bed.relay, of, version).await.unwrap() {
        calls += 1;
        assert!(calls < 100, "it doesn't come to an end");
    }
    calls
}

#[tokio::test]
async fn rows_of_lower_versions_go_and_pages_bring_none_of_them_back() {
    let all = [people(), follows(), orders()];
    let [people, follows, orders] = &all;
    let Some(bed) = Bed::open(&[people, follows, orders]).await else { return };
    bed.page(people, (0..12_000).map(|id| person(id, "old")).collect()).await;
    bed.page(follows, (0..6_000).map(|id| follow(id, 5, 1)).collect()).await;
    bed.page(orders, (0..6_000).map(|id| order(id, (id, "a"), 1)).collect()).await;
    for of in [people, follows, orders] {
        let key = |id: i64| {
            if of.mapping.name == follows.mapping.name {
                vec![int(5), int(id)]
            } else {
                vec![int(id)]
            }
        };
        let row = |id: i64| match of.mapping.name.as_str() {
            "people" => person(id, "new"),
            "follows" => follow(id, 5, 2),
            _ => order(id, (id, "a"), 2),
        };
        // One that is older, one that is gone, and two that are newer.
        let changes =
            [is(of, 4, row(1)), gone(of, 5, &key(2)), is(of, 11, row(3)), is(of, 12, row(20_000))];
        bed.land(&[of], &changes).await;
    }
    let late = bed.plan(people).await;
    // Relationships last: until then people are referred to.
    assert_eq!(empty(&bed, people, 10).await, 4);
    let keys = [1, 2, 3, 20_000, 7_000].map(int);
    let keys: Vec<&[_]> = keys.iter().map(std::slice::from_ref).collect();
    let held = bed.held(people, &keys).await;
    assert_eq!(held.versions, [0, 0, 11, 12, 0]);
    // What others referred to stands for itself, and goes with the last that does.
    assert_eq!(held.rows, [stub(&[int(1)]), person(3, "new"), person(20_000, "new")]);
    assert_eq!(empty(&bed, follows, 10).await, 3);
    assert_eq!(bed.neo4j.held_count(follows).await.unwrap(), 2);
    assert_eq!(empty(&bed, orders, 10).await, 3);
    assert_eq!(bed.neo4j.held_count(orders).await.unwrap(), 2);
    let stubs = "MATCH (n:Person) WHERE n.phasegate_stub RETURN toString(n.uid) AS it ORDER BY it";
    assert_eq!(bed.database.texts(stubs).await, ["5"], "one follows 5");
    // Once more there is nothing to do, and lower versions are no news.
    assert_eq!(empty(&bed, people, 10).await, 1);
    assert_eq!(empty(&bed, people, 3).await, 1);
    bed.land(&[people], &[is(people, 10, person(30, "late")), is(people, 13, person(31, "new"))])
        .await;
    assert_eq!(bed.rows(people, &[&[int(30)], &[int(31)]]).await, [person(31, "new")]);
    let rows = vec![person(40, "read before"), person(31, "read before")];
    let copied = bed
        .neo4j
        .land_page(&bed.fences[1], &super::fixture::copy(people), people, (&late, rows))
        .await
        .unwrap();
    assert_eq!((copied.rows_read, copied.rows_written), (2, 0));
    assert_eq!(bed.rows(people, &[&[int(40)], &[int(31)]]).await, [person(31, "new")]);
    // Emptied again.
    empty(&bed, people, 20).await;
    bed.land(&[people, follows, orders], &[]).await;
    empty(&bed, follows, 21).await;
    empty(&bed, orders, 22).await;
    assert_eq!((bed.neo4j_count("Person").await, bed.neo4j_count("Item").await), (0, 0));
    assert_eq!(bed.neo4j_count("phasegate_versions").await, 0);
}

#[tokio::test]
async fn where_the_new_side_had_rows_of_its_own_nothing_is_taken_away() {
    let of = people();
    let Some(bed) = Bed::made().await else { return };
    bed.database.run("CREATE (:Person {uid: 100})").await;
    bed.opened(&of).await;
    bed.page(&of, vec![person(1, "a")]).await;
    let refused = bed.neo4j.land_emptied(&bed.relay, &of, 9).await;
    assert_eq!(class(refused), FailureClass::Unsafe);
    assert_eq!(bed.neo4j_count("Person").await, 2);
    // Tried again, it is let go: nothing is removed, and nothing of a lower version comes.
    let late = bed.plan(&of).await;
    bed.land(&[&of], &[is(&of, 5, person(2, "older")), is(&of, 12, person(3, "newer"))]).await;
    empty(&bed, &of, 9).await;
    assert_eq!(bed.neo4j_count("Person").await, 4);
    let keys = [1, 2, 3].map(int);
    let keys: Vec<&[_]> = keys.iter().map(std::slice::from_ref).collect();
    assert_eq!(bed.held(&of, &keys).await.versions, [0, 0, 12]);
    bed.land(&[&of], &[is(&of, 8, person(4, "older"))]).await;
    let read_before = (&late, vec![person(5, "read before")]);
    let copying = super::fixture::copy(&of);
    let copied = bed.neo4j.land_page(&bed.fences[1], &copying, &of, read_before).await;
    assert_eq!(copied.unwrap().rows_written, 0);
    assert_eq!(bed.neo4j_count("Person").await, 4);
    // A later one is refused by itself.
    let refused = bed.neo4j.land_emptied(&bed.relay, &of, 20).await;
    assert_eq!(class(refused), FailureClass::Unsafe);
}

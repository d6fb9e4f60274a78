//! The new side as it is looked at, on a real server.
#![allow(clippy::unwrap_used, missing_docs)]

use super::super::fixture::class;
use super::fixture::{Bed, follow, follows, int, is, order, orders, people, person, row, text};
use crate::copy::chunk::{Chunk, Key};
use crate::copy::row::Datum;
use crate::driver::crossing::{ChangeSink as _, Crossed};

/// All keys, a few at a time.
async fn walked(bed: &Bed, of: &Crossed, rows: u32) -> Vec<Vec<Datum>> {
    let (mut all, mut lo): (_, Option<Key>) = (Vec::new(), None);
    loop {
        let hi = bed.neo4j.held_bound(of, lo.as_ref(), rows).await.unwrap();
        let chunk = Chunk { lo, hi };
        all.extend(bed.neo4j.held_keys(of, &chunk).await.unwrap());
        let Some(hi) = chunk.hi else { break };
        lo = Some(hi);
    }
    all.sort();
    all
}

#[tokio::test]
async fn every_key_is_walked_by_once_for_each_row() {
    let (people, follows, orders) = (people(), follows(), orders());
    let Some(bed) = Bed::open(&[&people, &follows, &orders]).await else { return };
    bed.page(&people, (1..=40).map(|id| person(id, "a")).collect()).await;
    let edges: Vec<_> =
        (1..=40).flat_map(|id| [follow(id, 1, id), follow(1, id, id)]).skip(1).collect();
    bed.page(&follows, edges.clone()).await;
    let own: Vec<_> = (1..=40).map(|id| order(id, (id % 3, "a"), id)).collect();
    bed.page(&orders, own.clone()).await;
    bed.database
        .run(
            "MATCH (a:Person {uid: 2}), (b:Person {uid: 1}) CREATE (a)-[:FOLLOWS {since: 99}]->(b)",
        )
        .await;
    // Others' of the same type.
    bed.database
        .run("CREATE (:Cat {uid: 1})-[:FOLLOWS]->(:Cat {uid: 2})-[:ORDERED {no: 500}]->(:Cat)")
        .await;
    for rows in [1, 7, 80, 1_000] {
        let keys = |rows: &[crate::copy::row::Row]| -> Vec<Vec<Datum>> {
            let mut keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
            keys.sort();
            keys
        };
        let people_keys: Vec<Vec<Datum>> =
            keys(&(0..=40).map(|id| person(id, "")).collect::<Vec<_>>());
        assert_eq!(walked(&bed, &people, rows).await, people_keys);
        let twice = [&edges[..], &[follow(2, 1, 0)]].concat();
        assert_eq!(walked(&bed, &follows, rows).await, keys(&twice));
        assert_eq!(walked(&bed, &orders, rows).await, keys(&own));
    }
    for (of, count) in [(&people, 41), (&follows, 80), (&orders, 40)] {
        let name = &of.mapping.name;
        assert_eq!(bed.neo4j.held_count(of).await.unwrap(), count, "{name}");
        assert_eq!(bed.neo4j.held_unkeyed(of).await.unwrap(), 0, "{name}");
        let some = bed.neo4j.some_held(of, 1_000).await.unwrap();
        assert!(some.len() as u64 >= count - 1, "{name}: {}", some.len());
        let keys: Vec<&[Datum]> = some.iter().map(Vec::as_slice).collect();
        assert_eq!(bed.rows(of, &keys).await.len() as u64, count, "{name}");
        assert!(bed.neo4j.some_held(of, 4).await.unwrap().len() <= 4);
    }
    // Two between the same nodes are two rows.
    let parallel = bed.rows(&follows, &[&[int(1), int(2)]]).await;
    assert_eq!(parallel, [follow(2, 1, 2), follow(2, 1, 99)]);
    // Keys that no walk comes to.
    bed.database.run("CREATE (:Person), (:Person {uid: 'text'}), (:Person {uid: date()}), (:Person {uid: 0.0 / 0.0})").await;
    assert_eq!(bed.neo4j.held_unkeyed(&people).await.unwrap(), 4);
    bed.database
        .run("MATCH (a:Person {uid: 1}), (b:Person {uid: 'text'}) CREATE (a)-[:FOLLOWS]->(b)")
        .await;
    assert_eq!(bed.neo4j.held_unkeyed(&follows).await.unwrap(), 1);
    bed.database
        .run("MATCH (a:Person {uid: 1}), (b:Item {sku: 'a'}) CREATE (a)-[:ORDERED]->(b)")
        .await;
    assert_eq!(bed.neo4j.held_unkeyed(&orders).await.unwrap(), 1);
}

#[tokio::test]
async fn rows_carry_what_the_mapping_writes_or_everything() {
    let (people, orders) = (people(), orders());
    let Some(bed) = Bed::open(&[&people, &orders]).await else { return };
    bed.land(&[&people], &[is(&people, 1, person(1, "a"))]).await;
    bed.page(&orders, vec![order(1, (1, "a"), 1)]).await;
    bed.database
        .run(
            "MATCH (p:Person)-[o:ORDERED]->() SET p.own = 1, p.phasegate_other = 1, o.own = [true]",
        )
        .await;
    let key: &[Datum] = &[int(1)];
    assert_eq!(bed.rows(&people, &[key]).await, [person(1, "a")]);
    assert_eq!(bed.rows(&orders, &[key]).await, [order(1, (1, "a"), 1)]);
    let keys = [key.to_vec()];
    let whole = bed.neo4j.held(&people, &keys, true).await.unwrap();
    assert_eq!(whole.rows, [row(key, &[("name", text("a")), ("own", int(1))])]);
    let whole = bed.neo4j.held(&orders, &keys, true).await.unwrap();
    let mut expected = order(1, (1, "a"), 1);
    expected.values.insert("own".into(), Datum::List(vec![Datum::Boolean(true)]));
    assert_eq!(whole.rows, [expected]);
    // More than are asked for at once.
    bed.page(&people, (2..=11_000).map(|id| person(id, "a")).collect()).await;
    let keys: Vec<Vec<Datum>> = (1..=11_001).map(|id| vec![int(id)]).collect();
    let held = bed.neo4j.held(&people, &keys, false).await.unwrap();
    assert_eq!((held.rows.len(), held.versions.len(), held.versions[0]), (11_000, 11_001, 1));
}

#[tokio::test]
async fn ends_may_have_a_part_of_their_keys_in_common() {
    let mut of = follows();
    let key = |property: &str, column: &str| (property.to_owned(), column.to_owned());
    of.mapping.from.key = vec!["follower".into(), "tenant".into(), "followed".into()];
    let crate::run::RowKind::Relationship(ends) = &mut of.mapping.into.kind else { unreachable!() };
    ends.start.key = vec![key("tenant", "tenant"), key("uid", "follower")];
    ends.end.key = vec![key("tenant", "tenant"), key("uid", "followed")];
    let Some(bed) = Bed::open(&[&of]).await else { return };
    let edge = |follower: i64, tenant: i64, followed: i64| {
        row(&[int(follower), int(tenant), int(followed)], &[("since", int(tenant))])
    };
    let rows: Vec<_> =
        (1..=3).flat_map(|tenant| (1..=4).map(move |id| edge(id, tenant, id + 1))).collect();
    bed.page(&of, rows.clone()).await;
    let mut keys: Vec<Vec<Datum>> = rows.iter().map(|row| row.key.clone()).collect();
    keys.sort();
    for most in [1, 5, 100] {
        assert_eq!(walked(&bed, &of, most).await, keys);
    }
    let asked: Vec<&[Datum]> = keys.iter().map(Vec::as_slice).collect();
    let mut sorted = rows;
    sorted.sort();
    assert_eq!(bed.rows(&of, &asked).await, sorted);
    assert_eq!(bed.neo4j_count("Person").await, 15);
    // Between two tenants nothing of the mapping can be.
    bed.database
        .run("MATCH (a:Person {tenant: 1, uid: 1}), (b:Person {tenant: 2, uid: 3}) CREATE (a)-[:FOLLOWS]->(b)")
        .await;
    assert_eq!(walked(&bed, &of, 100).await, keys);
    assert_eq!(bed.neo4j.held_unkeyed(&of).await.unwrap(), 1);
    // A column that no part of the key is.
    of.mapping.from.key.pop();
    let refused = bed.neo4j.held_count(&of).await;
    assert_eq!(class(refused), crate::run::FailureClass::Damaged);
}

#[tokio::test]
async fn what_stands_for_a_row_is_swept_when_nothing_refers_to_it() {
    let (people, follows) = (people(), follows());
    let Some(bed) = Bed::open(&[&people, &follows]).await else { return };
    bed.page(&follows, (1..=6_000).map(|id| follow(id, 1, 1)).collect()).await;
    bed.database.run("MATCH (a)-[r:FOLLOWS]->() WHERE a.uid > 10 DELETE r").await;
    bed.database.run("CREATE (:Person {uid: 90000, phasegate_stub: true})").await;
    assert_eq!(bed.neo4j.sweep(&bed.fences[0], &people).await.unwrap(), 10);
    assert_eq!(bed.neo4j_count("Person").await, 10);
    assert_eq!(bed.neo4j.sweep(&bed.fences[0], &follows).await.unwrap(), 10);
    bed.page(&people, (1..=9).map(|id| person(id, "a")).collect()).await;
    assert_eq!(bed.neo4j.sweep(&bed.fences[0], &follows).await.unwrap(), 1);
}

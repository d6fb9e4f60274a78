//! A death at each commit, and what is done again behind it, on a real server.
#![allow(clippy::unwrap_used, missing_docs)]

use super::super::fixture::head;
use super::fixture::{
    Bed, RELAY, copy, follow, follows, gone, int, is, order, orders, people, person, step,
};
use crate::copy::chunk::Planned;
use crate::copy::row::Row;
use crate::driver::crossing::ChangeSink as _;
use crate::driver::{Error, Session as _};
use crate::run::{Ending, Way};

/// Where a mapping's life ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Forward,
    Back,
}

/// Does it until it is done, and counts how often it wasn't.
async fn again<T>(deaths: &mut u32, mut done: impl AsyncFnMut() -> Result<T, Error>) -> T {
    for _ in 0..20 {
        match done().await {
            Ok(done) => return done,
            Err(error) => assert!(error.to_string().contains("fail point"), "{error:?}"),
        }
        *deaths += 1;
    }
    panic!("it doesn't come to an end")
}

/// Everything that a run does, and what is there in the end. Returns how often it died.
async fn life(bed: &mut Bed, end: End) -> (u32, Vec<String>) {
    let deaths = &mut 0;
    let all = [people(), follows(), orders()];
    let neo4j = bed.database.open().await;
    bed.fences =
        again(deaths, async || neo4j.enter(&super::super::fixture::claim("r1"), 1).await).await;
    bed.relay = again(deaths, async || neo4j.enter_relay(&RELAY.into(), 1).await).await;
    let fence = &bed.fences[0];
    for of in &all {
        let forward = step(of, Way::Forward);
        again(deaths, async || neo4j.open(fence, &forward, of).await).await;
    }
    let pages: [Vec<Row>; 3] = [
        (1..=6).map(|id| person(id, "a")).collect(),
        (1..=6).map(|id| follow(id, id + 1, id)).collect(),
        (1..=6).map(|id| order(id, (id, "a"), id)).collect(),
    ];
    for (of, rows) in all.iter().zip(pages) {
        let key = crate::copy::chunk::Key(vec![crate::copy::chunk::Cell::Integer(9)]);
        let chunk = crate::copy::chunk::Chunk { lo: None, hi: Some(key.clone()) };
        let planned = Planned { seq: 1, chunk };
        let row = crate::driver::ledger::Copy {
            seq: 1,
            hi: Some(key),
            ended: true,
            ..Default::default()
        };
        let chunks = [planned.clone()];
        again(deaths, async || {
            // Whoever comes back reads where the copy is.
            if neo4j.copy_row(fence.run(), &copy(of).step).await?.is_some() {
                return Ok(());
            }
            let entered = (None, &row, &chunks[..]);
            neo4j.enter_chunks(fence, &copy(of), &of.mapping, entered).await.map(|_| ())
        })
        .await;
        let copied = again(deaths, async || {
            neo4j.land_page(&bed.fences[1], &copy(of), of, (&planned, rows.clone())).await
        })
        .await;
        assert_eq!((copied.rows_read, copied.rows_written), (6, 6));
    }
    let changes = [
        is(&all[0], 1, person(1, "b")),
        gone(&all[0], 2, &[int(2)]),
        gone(&all[1], 3, &[int(5), int(4)]),
        is(&all[2], 4, order(1, (9, "c"), 1)),
        is(&all[1], 5, follow(20, 21, 1)),
        is(&all[1], 13, follow(30, 1, 1)),
    ];
    again(deaths, async || neo4j.land(&bed.relay, &all, &changes).await).await;
    while again(deaths, async || neo4j.land_emptied(&bed.relay, &all[1], 9).await).await {}
    bed.database.run("MERGE (p:Person {uid: 77}) SET p.phasegate_stub = true").await;
    again(deaths, async || neo4j.sweep(fence, &all[0]).await).await;
    let way = if end == End::Forward { Way::Forward } else { Way::Back };
    for of in all.iter().rev() {
        let sink = neo4j.change_sink().unwrap();
        again(deaths, async || sink.shut(fence, of).await).await;
        let close = step(of, way);
        let close =
            crate::driver::Work { step: format!("stop-{}", close.step).as_str().into(), ..close };
        again(deaths, async || sink.close(fence, &close, of).await).await;
    }
    again(deaths, async || neo4j.leave(fence, Ending::Completed, &head(9)).await).await;
    let rows = "MATCH (n) WHERE NOT n:phasegate_runs OPTIONAL MATCH (n)-[r]->(m) \
         WITH n, r, m, [it IN keys(n) | it + toString(n[it])] AS own ORDER BY n.uid, n.sku, r.no, m.uid \
         RETURN reduce(all = labels(n)[0], it IN own | all + ' ' + it) + coalesce(' ' + type(r) + toString(coalesce(r.no, r.since)), '') \
         + coalesce(toString(m.uid), m.sku, '') AS it";
    let mut there = bed.database.texts(rows).await;
    there.sort();
    there.extend(
        bed.database
            .texts("SHOW CONSTRAINTS YIELD labelsOrTypes RETURN labelsOrTypes[0] AS it ORDER BY it")
            .await,
    );
    (*deaths, there)
}

/// Every so many commits of a kind one dies, some before their commit and some behind it, from another one on each time.
const EVERY: u32 = 7;

#[tokio::test]
async fn a_death_at_any_commit_changes_nothing_of_what_comes_out() {
    let kinds = ["install", "execute", "plan", "chunk", "land", "settle", "remove", "leave"];
    let Some(mut bed) = Bed::made().await else { return };
    for end in [End::Forward, End::Back] {
        bed.database.clear().await;
        let (deaths, expected) = life(&mut bed, end).await;
        assert_eq!(deaths, 0);
        assert!(end == End::Back || expected.len() > 12, "{expected:?}");
        for at in 0..EVERY {
            bed.database.clear().await;
            let names = kinds.iter().flat_map(|kind| {
                [("before", "contention"), ("after", "unknown")]
                    .map(|(place, how)| (format!("neo4j::{place}-commit::{kind}"), how))
            });
            let names: Vec<_> = names.collect();
            for (name, how) in &names {
                let later =
                    format!("{}*off->1*return({how})", EVERY - 1).repeat(4).replace(")6", ")->6");
                fail::cfg(name, &format!("{at}*off->1*return({how})->{later}->off")).unwrap();
            }
            let (deaths, there) = life(&mut bed, end).await;
            for (name, _) in &names {
                fail::remove(name);
            }
            assert_eq!(there, expected, "{end:?} {at}");
            assert!(deaths > 3, "{end:?} {at}: {deaths}");
        }
    }
}

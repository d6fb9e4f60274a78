//! What comes and goes between the statements of one transaction: nodes that rows of another mapping bring or take away.
#![allow(clippy::unwrap_used, missing_docs)]

use std::future::Future;

use super::super::fixture::class;
use super::fixture::{Bed, copy, follow, follows, gone, int, is, people, person};
use crate::copy::chunk::Planned;
use crate::copy::row::Row;
use crate::driver::crossing::{ChangeSink as _, Crossed};
use crate::driver::{Copied, Error};
use crate::run::{FailureClass, OnExisting};

/// Begins something, which a client's transaction holds up at its second row; has something else done meanwhile; and lets it go on.
async fn held_up<T, F: Future<Output = T>>(
    bed: &Bed,
    by: &str,
    (held, meanwhile): (F, impl AsyncFnOnce()),
) -> T {
    let mut client = bed.database.begin().await;
    client.run(neo4rs::query(by)).await.unwrap();
    let meanwhile = async {
        bed.database.until_blocked().await;
        meanwhile().await;
        client.rollback().await.unwrap();
    };
    tokio::join!(held, meanwhile).0
}

/// Begins something, which waits for a client's transaction that removes a stub; and has that commit.
async fn overtaken<T, F: Future<Output = T>>(bed: &Bed, uid: i64, held: F) -> T {
    let mut client = bed.database.begin().await;
    let remove = format!("MATCH (p:Person {{uid: {uid}}}) DELETE p");
    client.run(neo4rs::query(&remove)).await.unwrap();
    let meanwhile = async {
        bed.database.until_blocked().await;
        client.commit().await.unwrap();
    };
    tokio::join!(held, meanwhile).0
}

async fn page(
    bed: &Bed,
    of: &Crossed,
    chunk: (&Planned, Vec<Row>),
    slot: usize,
) -> Result<Copied, Error> {
    bed.neo4j.land_page(&bed.fences[slot], &copy(of), of, chunk).await
}

/// A node that stood for the first row of a page goes with the last relationship that needed it, while the page waits at the second.
#[tokio::test]
async fn a_node_whose_stub_goes_between_two_statements_is_written() {
    let (people, follows) = (people(), follows());
    let all = [&people, &follows];
    let Some(bed) = Bed::open(&all).await else { return };
    bed.land(&all, &[is(&follows, 1, follow(1, 2, 5))]).await;
    let chunk = bed.plan(&people).await;
    let rows = || vec![person(2, "b"), person(3, "c")];
    let write = || page(&bed, &people, (&chunk, rows()), 1);
    let goes = async || bed.land(&all, &[gone(&follows, 2, &[int(2), int(1)])]).await;
    let by = "CREATE (:Person {uid: 3})";
    let written = Box::pin(held_up(&bed, by, (write(), goes))).await;
    if written.is_err() {
        // Nothing of it is there, and it is written again.
        assert_eq!(class(written), FailureClass::Contention);
        assert!(!write().await.unwrap().before);
    }
    assert_eq!(bed.rows(&people, &[&[int(2)], &[int(3)]]).await, rows());
}

/// What is written to a node that is gone by then is lost without a word, so it is looked for.
#[tokio::test]
async fn a_node_whose_stub_goes_while_it_is_written_to_is_written_again() {
    for on_existing in [OnExisting::Keep, OnExisting::Update] {
        let mut people = people();
        people.mapping.on_existing = on_existing;
        let Some(bed) = Bed::open(&[&people]).await else { return };
        bed.database.run("CREATE (:Person {uid: 2, phasegate_stub: true})").await;
        let chunk = bed.plan(&people).await;
        let rows = || vec![person(1, "a"), person(2, "b"), person(3, "c")];
        let write = || page(&bed, &people, (&chunk, rows()), 1);
        let written = Box::pin(overtaken(&bed, 2, write())).await;
        assert_eq!(class(written), FailureClass::Contention, "{on_existing:?}");
        assert!(!write().await.unwrap().before);
        assert_eq!(bed.rows(&people, &[&[int(1)], &[int(2)], &[int(3)]]).await, rows());

        bed.database.run("CREATE (:Person {uid: 5, phasegate_stub: true})").await;
        let changes = [is(&people, 1, person(4, "d")), is(&people, 2, person(5, "e"))];
        let land = async || bed.try_land(&[&people], &changes).await;
        let landed = Box::pin(overtaken(&bed, 5, land())).await;
        assert_eq!(class(landed), FailureClass::Contention, "{on_existing:?}");
        land().await.unwrap();
        let landed = [person(4, "d"), person(5, "e")];
        assert_eq!(bed.rows(&people, &[&[int(4)], &[int(5)]]).await, landed);
    }
}

//! What clients do beside us, on a real server: nothing of theirs is lost.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use super::copy_tests::{copy_all, install, mapping, relation};
use super::fixture::{Database, class, entered, work};
use super::shape::Shape;
use super::sink;
use crate::copy::chunk::Chunk;
use crate::driver::{
    DualWriter as _, Introspect as _, Source as _, Survey, SurveyedMapping, TxKind, Verifier as _,
    Window,
};
use crate::run::{Direction, FailureClass, Mapping, OnExisting, RowKind, Way};

const FORWARD: Direction = Direction::Forward;
const EVERYTHING: Chunk = Chunk { lo: None, hi: None };
/// Longer than what isn't held up takes.
const PAUSE: Duration = Duration::from_millis(1_500);
const LEADS: &str = "MATCH (l:Lead) RETURN count(l) AS it";

/// Leads become nodes with the same key.
fn renamed() -> Mapping {
    let into = relation("LeadV2", &["id"], RowKind::Node);
    mapping("leads", relation("Lead", &["id"], RowKind::Node), into)
}

/// An application may write both sides as two labels of one node.
#[tokio::test]
async fn a_node_that_is_on_both_sides_is_not_removed_as_a_copy() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 20) AS id CREATE (:Lead {id: id})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let mut mapping = renamed();
    let back = work("sync-leads", Way::Back);
    install(&neo4j, &fences[0], &mapping).await;
    database.run("MATCH (l:Lead) WHERE l.id > 1 SET l:LeadV2").await;
    let refused = neo4j.remove(&fences[0], &back, &mapping, FORWARD).await;
    assert!(
        format!("{refused:?}").contains("19 nodes of LeadV2 have other labels (Lead)"),
        "{refused:?}"
    );
    assert_eq!(class(refused), FailureClass::Unsafe);
    assert_eq!(database.number(LEADS).await, 20);

    let survey =
        SurveyedMapping { step: "sync".into(), mapping: mapping.clone(), direction: Some(FORWARD) };
    let survey = Survey { mappings: vec![survey], ..Survey::default() };
    let found = neo4j.survey(&survey).await.unwrap();
    let error = found.iter().find(|one| one.message == "19 nodes of Lead are LeadV2 as well");
    assert!(error.is_some_and(|one| one.code == "D204" && one.help.is_some()), "{found:?}");

    // Where they were there when it began, they are no copies.
    mapping.name = "others".into();
    install(&neo4j, &fences[0], &mapping).await;
    let back = work("sync-others", Way::Back);
    assert_eq!(neo4j.remove(&fences[0], &back, &mapping, FORWARD).await.unwrap().detail, None);
    // A repair finds one too many, and leaves it.
    database.run("MATCH (l:LeadV2 {id: 5}) REMOVE l:Lead SET l:Other").await;
    neo4j.repair_chunk(&fences[0], &mapping, FORWARD, &EVERYTHING).await.unwrap();
    assert_eq!(database.number("MATCH (l:Other) RETURN count(l) AS it").await, 1);
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn what_is_taken_back_in_batches_is_counted_once_though_an_answer_is_lost() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 6000) AS id CREATE (:Lead {id: id})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let mapping = renamed();
    install(&neo4j, &fences[0], &mapping).await;
    copy_all(&neo4j, &fences, &mapping, 10_000).await.unwrap();
    let back = work("sync-leads", Way::Back);
    let behind = "neo4j::after-commit::remove";
    fail::cfg(behind, "1*off->1*return(unknown)->off").unwrap();
    let lost = neo4j.remove(&fences[0], &back, &mapping, FORWARD).await;
    fail::remove(behind);
    assert!(matches!(lost, Err(crate::driver::Error::Unknown(_))), "{lost:?}");
    let copies = "MATCH (v:LeadV2) RETURN count(v) AS it";
    assert_eq!(database.number(copies).await, 1_000);
    assert_eq!(neo4j.remove(&fences[0], &back, &mapping, FORWARD).await.unwrap().rows, 6_000);
    assert_eq!(database.number(copies).await, 0);
}

/// Both sides are read one after the other.
#[tokio::test]
async fn a_repair_leaves_what_a_client_has_just_made() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 20) AS id CREATE (:Lead {id: id})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let mapping = renamed();
    install(&neo4j, &fences[0], &mapping).await;
    copy_all(&neo4j, &fences, &mapping, 100).await.unwrap();
    database.run("CREATE (:LeadV2 {id: 30}), (:LeadV2 {id: 31})").await;
    let mut client = database.begin().await;
    client
        .run(neo4rs::query("MATCH (v:LeadV2 {id: 30}) SET v.x = 1 CREATE (:Lead {id: 30, x: 1})"))
        .await
        .unwrap();
    let mut repair = Box::pin(neo4j.repair_chunk(&fences[0], &mapping, FORWARD, &EVERYTHING));
    assert!(tokio::time::timeout(PAUSE, &mut repair).await.is_err(), "it waits for the client");
    client.commit().await.unwrap();
    repair.await.unwrap();
    let copies = "MATCH (v:LeadV2) WHERE v.id > 20 RETURN toString(v.id) AS it ORDER BY it";
    assert_eq!(database.texts(copies).await, ["30"]);
}

/// The copy reads anew: what has come since the chunk was locked is locked then.
#[tokio::test]
async fn a_row_that_came_since_and_is_being_removed_leaves_no_copy() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 20) AS id CREATE (:Lead {id: id})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let mapping = renamed();
    let shape = Shape::of(&mapping).unwrap();
    install(&neo4j, &fences[0], &mapping).await;
    let mut tx = neo4j.connections.begin(&fences[1], TxKind::Chunk).await.unwrap();
    assert_eq!(sink::lock(&mut tx, &shape, &EVERYTHING).await.unwrap(), 20);
    database.run("CREATE (:Lead {id: 30}), (:LeadV2 {id: 30})").await;
    let mut client = database.begin().await;
    for gone in ["MATCH (l:Lead {id: 30}) DELETE l", "MATCH (v:LeadV2 {id: 30}) DELETE v"] {
        client.run(neo4rs::query(gone)).await.unwrap();
    }
    let copying = sink::copy(&mut tx, &shape, OnExisting::Keep, &EVERYTHING);
    let mut copying = Box::pin(copying);
    assert!(tokio::time::timeout(PAUSE, &mut copying).await.is_err(), "it waits for the client");
    client.commit().await.unwrap();
    // Found gone, or tried again.
    match copying.await {
        Ok(_) => tx.commit().await.unwrap(),
        Err(error) => {
            assert_eq!(class::<u64>(Err(error)), FailureClass::Contention);
            drop(tx);
        }
    }
    assert_eq!(database.number("MATCH (v:LeadV2 {id: 30}) RETURN count(v) AS it").await, 0);
}

/// Whoever began before may know nothing of the new side. Constraints would wait for its locks by themselves, so they are there.
#[tokio::test]
async fn what_began_before_has_ended_before_a_mapping_is_in_step_or_copied() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 20) AS id CREATE (:Lead {id: id})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let mut mapping = renamed();
    install(&neo4j, &fences[0], &mapping).await;
    mapping.name = "others".into();
    let write = || neo4rs::query("CREATE (:Note)");

    let mut client = database.begin().await;
    client.run(write()).await.unwrap();
    let mut installing = Box::pin(install(&neo4j, &fences[0], &mapping));
    assert!(tokio::time::timeout(PAUSE, &mut installing).await.is_err(), "install waits");
    client.commit().await.unwrap();
    installing.await;

    let mut client = database.begin().await;
    client.run(write()).await.unwrap();
    let step = work("copy-others", Way::Forward);
    let size = Window { rows: 10, count: 9, is_fixed: true };
    let mut planning = Box::pin(neo4j.plan_chunks(&fences[0], &step, &mapping, size));
    assert!(tokio::time::timeout(PAUSE, &mut planning).await.is_err(), "the copy waits");
    client.commit().await.unwrap();
    assert_eq!(planning.await.unwrap().open.len(), 2);
}

/// A node that has very many relationships is searched for longer than anybody may hold a chunk up.
#[tokio::test]
async fn a_chunk_that_takes_long_to_find_is_copied_and_waits_for_no_lock() {
    let Some(database) = Database::empty().await else { return };
    database.run("CREATE (:Lead {id: 1})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let mut mapping = renamed();
    install(&neo4j, &fences[0], &mapping).await;
    let mut millions = 40;
    let mut took_ms = 0;
    // As much as takes longer than a lock is waited for, however fast the server is.
    while took_ms < 2_500 {
        mapping.filter = Some(format!(
            "reduce(all = 0, i IN range(1, {millions}000000) | all + i % 7) + source.id > 0"
        ));
        let watch = crate::clock::Stopwatch::start();
        let mut tx = neo4j.connections.begin(&fences[1], TxKind::Chunk).await.unwrap();
        let shape = Shape::of(&mapping).unwrap();
        assert_eq!(sink::lock(&mut tx, &shape, &EVERYTHING).await.unwrap(), 1);
        took_ms = watch.elapsed_ms();
        tx.roll_back().await;
        millions *= 2;
    }
}

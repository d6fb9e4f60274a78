//! Removing the old side, on a real server, where it takes more than one batch.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, missing_docs)]

use super::Neo4j;
use super::copy_tests::{knows, leads};
use super::fixture::{Database, entered, meanwhile, work};
use crate::driver::{Applied, Error, Fence, Retirer as _};
use crate::run::{FailureClass, Permit, Way};

/// More than a batch of either.
const LEADS: &str = "UNWIND range(1, 6000) AS id CREATE (:Lead {id: id}) \
     WITH count(*) AS all MATCH (a:Lead {id: 7}), (b:Lead) CREATE (a)-[:KNOWS]->(b)";
const BEHIND: &str = "neo4j::after-commit::drop";

async fn drop_leads(neo4j: &Neo4j, fence: &Fence) -> Result<Applied, Error> {
    let (step, all) = (work("drop", Way::Forward), [leads(), knows()]);
    neo4j.drop_old(fence, &step, &all[0], &all, Permit::for_test("drop")).await
}

#[tokio::test]
async fn what_is_removed_in_batches_is_counted_once_though_an_answer_is_lost() {
    let Some(database) = Database::empty().await else { return };
    database.run(LEADS).await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    fail::cfg(BEHIND, "1*return(unknown)->off").unwrap();
    let lost = drop_leads(&neo4j, &fences[0]).await;
    fail::remove(BEHIND);
    assert!(matches!(lost, Err(Error::Unknown(_))), "{lost:?}");
    let left = "MATCH ()-[r:KNOWS]->() RETURN count(r) AS it";
    // One between two of the leads is found from both, and counts twice for the batch.
    let left = database.number(left).await;
    assert!((1_000..6_000).contains(&left), "{left}");
    assert_eq!(drop_leads(&neo4j, &fences[0]).await.unwrap().rows, 12_000);
    assert_eq!(database.number("MATCH (l:Lead) RETURN count(l) AS it").await, 0);
    assert!(drop_leads(&neo4j, &fences[0]).await.unwrap().before);
}

/// A drop takes long, and clients go on.
#[tokio::test]
async fn what_becomes_somebodys_while_others_are_removed_stays() {
    let Some(database) = Database::empty().await else { return };
    database.run(LEADS).await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    for (statement, said, taken_back, count) in [
        (
            "MATCH (l:Lead {id: 5990}), (b:Lead {id: 5991}) SET l:Customer",
            "1 node of Lead are Customer as well",
            "MATCH (l:Customer) REMOVE l:Customer",
            1,
        ),
        (
            "MATCH (l:Lead) WHERE l.id > 5995 CREATE (l)-[:PAID]->(:Invoice)",
            "nodes of Lead have 2 relationships PAID",
            "MATCH ()-[r:PAID]->() DELETE r",
            2,
        ),
    ] {
        meanwhile(BEHIND, &database.url, statement);
        let refused = drop_leads(&neo4j, &fences[0]).await;
        fail::remove(BEHIND);
        let Err(Error::Failed(failure)) = refused else { panic!("{refused:?}") };
        assert_eq!(failure.class, FailureClass::Unsafe, "{failure:?}");
        assert!(failure.message.contains(said), "{failure:?}");
        assert_eq!(database.number("MATCH (l:Lead) RETURN count(l) AS it").await, count);
        database.run(taken_back).await;
        // For whoever comes next in the list.
        database.run("UNWIND range(5996, 5997) AS id CREATE (:Lead {id: id})").await;
    }
}

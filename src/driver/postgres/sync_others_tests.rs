//! Two mappings of one name: none ends the other's sync.
#![allow(clippy::unwrap_used, missing_docs)]

use super::Postgres;
use super::fixture::{Database, entered, mapping, work};
use crate::driver::{Access, DualWriter as _, Error, SyncState};
use crate::run::{Direction, FailureClass, Way};

const TABLES: &str = "
    CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
    CREATE TABLE c (id int PRIMARY KEY, v text); CREATE TABLE d (id int PRIMARY KEY, v text);";

#[tokio::test]
async fn a_sync_of_the_same_name_under_another_schema_of_ours_is_another_one() {
    let Some(database) = Database::with(TABLES).await else { return };
    let one = database.open().await;
    let other = Postgres::open(&database.url, Some("elsewhere"), Access::Full).await.unwrap();
    let (first, second) =
        (mapping(("a", &["id"]), ("b", &["id"])), mapping(("c", &["id"]), ("d", &["id"])));
    let fences = [entered(&one, 1).await.remove(0), entered(&other, 1).await.remove(0)];
    let sync = work("sync", Way::Forward);
    one.install(&fences[0], &sync, &first, Direction::Forward).await.unwrap();
    other.install(&fences[1], &sync, &second, Direction::Forward).await.unwrap();
    assert_eq!(one.sync_state(&first, Direction::Forward).await, Ok(SyncState::Active));
    assert_eq!(other.sync_state(&second, Direction::Forward).await, Ok(SyncState::Active));
    other.remove(&fences[1], &work("sync", Way::Back), &second, Direction::Forward).await.unwrap();
    assert_eq!(one.sync_state(&first, Direction::Forward).await, Ok(SyncState::Active));
    database.run("INSERT INTO a VALUES (1, 'x'); INSERT INTO c VALUES (1, 'x')").await;
    let copies = "SELECT (SELECT count(*) FROM b) * 10 + (SELECT count(*) FROM d)";
    assert_eq!(database.number(copies).await, 10);
    database.gone().await;
}

#[tokio::test]
async fn a_sync_that_an_earlier_run_left_live_is_not_ended_by_another_of_its_name() {
    let Some(database) = Database::with(TABLES).await else { return };
    let postgres = database.open().await;
    let (first, second) =
        (mapping(("a", &["id"]), ("b", &["id"])), mapping(("c", &["id"]), ("d", &["id"])));
    let fence = entered(&postgres, 1).await.remove(0);
    postgres
        .install(&fence, &work("sync", Way::Forward), &first, Direction::Forward)
        .await
        .unwrap();
    let refused =
        postgres.install(&fence, &work("other", Way::Forward), &second, Direction::Forward).await;
    let Err(Error::Failed(failure)) = refused else { panic!("{refused:?}") };
    assert_eq!(failure.class, FailureClass::Unsafe);
    assert!(failure.message.contains("public.a"), "{failure:?}");
    assert!(failure.help.unwrap().contains("another name"));
    assert_eq!(postgres.sync_state(&first, Direction::Forward).await, Ok(SyncState::Active));
    // On its own tables it is put in again.
    postgres
        .install(&fence, &work("again", Way::Forward), &first, Direction::Forward)
        .await
        .unwrap();
    database.run("INSERT INTO a VALUES (1, 'x')").await;
    assert_eq!(database.number("SELECT count(*) FROM b").await, 1);
    postgres.remove(&fence, &work("again", Way::Back), &first, Direction::Forward).await.unwrap();
    postgres
        .install(&fence, &work("other", Way::Forward), &second, Direction::Forward)
        .await
        .unwrap();
    database.gone().await;
}

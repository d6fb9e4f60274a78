//! A server that answers nothing for a while, over connections that stay open.

use std::time::{Duration, Instant};

use phasegate::bounds::store::ANSWER_WITHIN;
use phasegate::run::{Event, RunId};
use phasegate::store::{self, Create, Error, SharedStore};

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use tokio::task::JoinSet;

use super::bed::Bed;
use super::sample::{ana, begin, claimant};
use crate::network::wire::{Fault, Wire};

/// How long a call may take: what a store may take over it, thrice that.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3 * ANSWER_WITHIN.as_secs());

/// What a call came to that must come to something.
async fn soon<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(ANSWERED_WITHIN, call).await.expect("a call without an end")
}

/// So many calls at once that every connection of the store has one.
async fn on_all_connections(store: &SharedStore, run: &RunId) -> Vec<Result<u64, Error>> {
    let mut asked = JoinSet::new();
    for _ in 0..6 {
        let (store, run) = (store.clone(), run.clone());
        asked.spawn(async move { soon(store.version(&run)).await });
    }
    asked.join_all().await
}

#[track_caller]
fn is_unreachable<T: std::fmt::Debug>(answer: &Result<T, Error>) {
    assert!(matches!(answer, Err(Error::Unreachable { .. })), "it is not unreachable: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_mute_is_unreachable_in_time_and_is_there_again_afterwards() {
    let test =
        "store::mute::a_store_that_is_mute_is_unreachable_in_time_and_is_there_again_afterwards";
    let Some(bed) = Bed::postgres(test).await else { return };
    let wire = Wire::to(bed.location());
    let store = store::open(&wire.url, Create::IfMissing).await.unwrap();
    let run = begin(&store).await;
    let lease = store.acquire(&run, &claimant(1), 60_000, &|_| false).await.unwrap();
    wire.plan_behind(&[run.as_str()], Fault::Mute);
    let (by, resumed) = (ana(), || vec![Event::Resumed]);
    let (appended, renewed, released, told, asked) = tokio::join!(
        soon(store.append(&run, 1, None, &by, resumed())),
        soon(store.renew(&lease, 60_000)),
        soon(store.release(&lease)),
        soon(store.put_progress(&run, &[])),
        on_all_connections(&store, &run),
    );
    is_unreachable(&appended);
    is_unreachable(&renewed);
    is_unreachable(&released);
    is_unreachable(&told);
    asked.iter().for_each(is_unreachable);
    let opened = soon(store::open(&wire.url, Create::Never)).await;
    is_unreachable(&opened.map(|_| ()));

    // What was held comes to the server now. The journal says what became of it.
    wire.unmute();
    let version = soon(store.version(&run)).await.unwrap();
    assert!(version <= 2, "appended more than once: {version}");
    let entries = store.append(&run, version, None, &by, resumed()).await.unwrap();
    assert_eq!(entries.last().unwrap().record.version, version + 1);
    let read = store.read(&run, 0, 10).await.unwrap();
    assert_eq!(read.len(), usize::try_from(version + 1).unwrap());
    store.close().await;
    bed.remove().await;
}

/// The server hangs while nothing is asked, and another one has its address: what was open leads nowhere any more, and nobody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_lead_nowhere_any_more_are_replaced_within_a_call() {
    let test = "store::mute::connections_that_lead_nowhere_any_more_are_replaced_within_a_call";
    let Some(bed) = Bed::postgres(test).await else { return };
    let wire = Wire::to(bed.location());
    let store = store::open(&wire.url, Create::IfMissing).await.unwrap();
    let run = begin(&store).await;
    on_all_connections(&store, &run).await.into_iter().for_each(|it| assert_eq!(it, Ok(1)));
    wire.forget();
    on_all_connections(&store, &run).await.into_iter().for_each(|it| assert_eq!(it, Ok(1)));
    store.close().await;
    bed.remove().await;
}

/// The same while something is asked over each of them: those calls fail, and later ones don't.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_whose_answers_never_come_are_given_up() {
    let test = "store::mute::connections_whose_answers_never_come_are_given_up";
    let Some(bed) = Bed::postgres(test).await else { return };
    let wire = Wire::to(bed.location());
    let store = store::open(&wire.url, Create::IfMissing).await.unwrap();
    let run = begin(&store).await;
    let mut db = PgConnection::connect(bed.location()).await.unwrap();
    // They wait for a lock, 5 s at most: on a machine that has more to do it may take another try to have all of them wait at once.
    let mut tries = 0;
    let asked = loop {
        db.execute("BEGIN; LOCK TABLE phasegate.state_runs IN ACCESS EXCLUSIVE MODE")
            .await
            .unwrap();
        let goes_mute = async {
            let is_mute =
                tokio::time::timeout(Duration::from_secs(3), all_wait(&bed)).await.is_ok();
            if is_mute {
                wire.mute();
            }
            db.execute("ROLLBACK").await.unwrap();
            is_mute
        };
        let (asked, is_mute) = tokio::join!(on_all_connections(&store, &run), goes_mute);
        if is_mute {
            break asked;
        }
        tries += 1;
        assert!(tries < 10, "they never wait at once");
    };
    asked.iter().for_each(is_unreachable);
    wire.forget();
    wire.unmute();
    let began = Instant::now();
    while soon(store.version(&run)).await != Ok(1) {
        assert!(began.elapsed() < ANSWERED_WITHIN, "they are still waited for");
    }
    store.close().await;
    bed.remove().await;
}

/// Comes back when each of a store's connections waits for a lock on its runs.
async fn all_wait(bed: &Bed) {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'phasegate.state_runs'::regclass";
    let mut db = PgConnection::connect(bed.location()).await.unwrap();
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut db).await.unwrap() < 4 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

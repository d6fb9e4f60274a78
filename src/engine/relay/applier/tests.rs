//! Against a new side that answers as a test says.
#![allow(clippy::unwrap_used, missing_docs)]

use super::*;
use crate::copy::row::Datum;
use crate::driver::crossing::fake::{FakeSink, fence};

fn change(version: u64, what: What) -> Change {
    Change { version, mapping: "users".into(), what, tries: 0 }
}

fn gone(version: u64) -> Change {
    change(version, What::Gone(vec![Datum::Integer(1)]))
}

fn unfit(version: u64) -> Change {
    change(version, What::Unfit(Unfit { key: Vec::new(), reason: "odd".to_owned() }))
}

/// What becomes of changes on a side that answers like this, and which ones it was given.
async fn applied(
    changes: Vec<Change>,
    answer: impl Fn(&[u64]) -> Result<(), Error> + Send + Sync + 'static,
) -> (Applied, Vec<Vec<u64>>) {
    let fake = FakeSink::answering(answer);
    let (_halt, halt) = watch::channel(false);
    let new = Applier { sink: &fake, fence: &fence(), of: &[], halt, within_ms: 1_000 };
    let applied = new.apply(changes).await;
    (applied, fake.given())
}

fn landed(applied: &Applied) -> Vec<u64> {
    applied.landed.iter().map(|(version, _)| *version).collect()
}

fn refused(applied: &Applied) -> Vec<(u64, u32)> {
    applied.refused.iter().map(|one| (one.version, one.most_tries)).collect()
}

#[tokio::test]
async fn what_can_not_cross_is_given_back_and_the_rest_lands() {
    let changes = vec![unfit(1), gone(2), gone(3), unfit(4)];
    let (applied, given) = applied(changes, |_| Ok(())).await;
    assert_eq!(given, [[2, 3]]);
    assert_eq!((landed(&applied), refused(&applied)), (vec![2, 3], vec![(1, 1), (4, 1)]));
    assert!(applied.cut.is_none());
}

#[tokio::test]
async fn what_is_refused_is_found_among_the_others() {
    let refuse = |versions: &[u64]| {
        if versions.contains(&3) { Err(Error::failed(FailureClass::Refused, "no")) } else { Ok(()) }
    };
    let (applied, _) = applied((1..=8).map(gone).collect(), refuse).await;
    assert_eq!(landed(&applied), [1, 2, 4, 5, 6, 7, 8]);
    assert_eq!(refused(&applied), [(3, REFUSED_MAX)]);
}

#[tokio::test]
async fn what_was_done_before_the_server_went_away_is_given_back() {
    let answer = |versions: &[u64]| match versions {
        [1] => Err(Error::failed(FailureClass::Refused, "no")),
        [2] => Ok(()),
        [_] => Err(Error::failed(FailureClass::Unreachable, "gone")),
        _ => Err(Error::failed(FailureClass::Refused, "one of these")),
    };
    let (applied, _) = applied((1..=4).map(gone).collect(), answer).await;
    assert_eq!((landed(&applied), refused(&applied)), (vec![2], vec![(1, REFUSED_MAX)]));
    assert!(matches!(applied.cut, Some(Cut::Failed(_))), "{:?}", applied.cut);
}

/// As a server says it whose fault it is.
fn of_server(class: FailureClass) -> Error {
    let Error::Failed(mut failure) = Error::failed(class, "not now") else { panic!() };
    failure.code = Some("Neo.DatabaseError.General.UnknownError".to_owned());
    Error::Failed(failure)
}

#[tokio::test]
async fn what_is_too_much_at_once_lands_in_pieces() {
    for class in [FailureClass::Refused, FailureClass::TimedOut, FailureClass::Cancelled] {
        let answer = move |versions: &[u64]| match versions.len() {
            0..=2 => Ok(()),
            _ => Err(of_server(class)),
        };
        let (applied, _) = applied((1..=8).map(gone).collect(), answer).await;
        assert_eq!(landed(&applied), [1, 2, 3, 4, 5, 6, 7, 8], "{class:?}");
        assert!(applied.cut.is_none() && applied.refused.is_empty(), "{applied:?}");
    }
}

#[tokio::test]
async fn a_failure_of_the_server_counts_no_try_and_keeps_no_other_row() {
    for class in [FailureClass::Refused, FailureClass::TimedOut] {
        let answer = move |versions: &[u64]| {
            if versions.contains(&3) { Err(of_server(class)) } else { Ok(()) }
        };
        let (applied, _) = applied((1..=8).map(gone).collect(), answer).await;
        assert_eq!(landed(&applied), [1, 2, 4, 5, 6, 7, 8]);
        assert_eq!(applied.failed.iter().map(|(version, _)| *version).collect::<Vec<_>>(), [3]);
        assert!(applied.cut.is_none() && applied.refused.is_empty(), "{applied:?}");
    }
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_let_be_before_all_was_tried() {
    let answer = |_: &[u64]| Err(of_server(FailureClass::Refused));
    let (applied, given) = applied((1..=4_000).map(gone).collect(), answer).await;
    assert!(given.len() < 20, "{}", given.len());
    assert!(matches!(applied.cut, Some(Cut::Failed(_))), "{:?}", applied.cut);
    assert!(applied.landed.is_empty() && applied.refused.is_empty());
}

#[tokio::test]
async fn a_server_that_says_nothing_is_asked_once() {
    let fake = FakeSink::mute();
    let (_halt, halt) = watch::channel(false);
    let new = Applier { sink: &fake, fence: &fence(), of: &[], halt, within_ms: 20 };
    let applied = new.apply((1..=8).map(gone).collect()).await;
    let Some(Cut::Failed(error)) = applied.cut else { panic!("{applied:?}") };
    assert_eq!(error.class(), Some(FailureClass::TimedOut));
    assert_eq!(fake.given().len(), 1);
}

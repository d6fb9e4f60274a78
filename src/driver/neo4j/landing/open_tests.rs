//! Opening, shutting and closing a mapping, and who may write, on a real server.
#![allow(clippy::unwrap_used, missing_docs)]

use super::super::fixture::{class, head, work};
use super::fixture::{
    Bed, RELAY, copy, follow, follows, gone, int, is, order, orders, people, person, step,
};
use crate::copy::chunk::{Cell, Chunk, Key, Planned};
use crate::driver::crossing::{ChangeSink as _, Crossed};
use crate::driver::ledger::Copy;
use crate::driver::{
    Error, Introspect as _, Session as _, Severity, Sink as _, Survey, SurveyedMapping, SyncState,
};
use crate::run::{Ending, FailureClass, Way};

#[tokio::test]
async fn what_a_mapping_needs_is_made_once_and_taken_back_on_the_way_back() {
    let all = [people(), follows(), orders()];
    let Some(bed) = Bed::made().await else { return };
    let neo4j = bed.neo4j.change_sink().unwrap();
    let constraints = "SHOW CONSTRAINTS YIELD name, labelsOrTypes WHERE NOT name STARTS WITH 'phasegate' \
         RETURN labelsOrTypes[0] AS it ORDER BY it";
    for (of, made) in all.iter().zip([Some("made 1 constraint"), None, Some("made 2 constraints")])
    {
        let broken = neo4j.landing_state(&of.mapping).await.unwrap();
        assert!(matches!(broken, SyncState::Broken(_)), "{broken:?}");
        let forward = step(of, Way::Forward);
        let opened = neo4j.open(&bed.fences[0], &forward, of).await.unwrap();
        assert_eq!((opened.before, opened.detail.as_deref()), (false, made));
        assert!(neo4j.open(&bed.fences[0], &forward, of).await.unwrap().before);
        assert_eq!(neo4j.landing_state(&of.mapping).await.unwrap(), SyncState::Active);
    }
    assert_eq!(bed.database.texts(constraints).await, ["Item", "ORDERED", "Person"]);
    let basis = neo4j.landing_basis(&all[2].mapping).await.unwrap();
    assert_eq!(basis.lines().count(), 3, "{basis}");
    bed.page(&all[0], vec![person(1, "a"), person(2, "b")]).await;
    bed.page(&all[1], vec![follow(1, 2, 1), follow(3, 1, 1)]).await;
    bed.page(&all[2], vec![order(1, (1, "a"), 1)]).await;
    bed.land(&[&all[0]], &[is(&all[0], 1, person(4, "d"))]).await;

    let back = async |of: &Crossed| neo4j.close(&bed.fences[0], &step(of, Way::Back), of).await;
    assert_eq!(back(&all[2]).await.unwrap().rows, 1);
    assert!(back(&all[2]).await.unwrap().before);
    assert_eq!(bed.database.texts(constraints).await, ["Person"]);
    assert_eq!(bed.neo4j_count("Item").await, 0, "it only stood for one");
    // Those that have relationships are not removed.
    assert_eq!(class(back(&all[0]).await), FailureClass::Unsafe);
    assert_eq!(back(&all[1]).await.unwrap().rows, 2);
    // What is left stood for one that never came, or came to be alone.
    back(&all[0]).await.unwrap();
    assert_eq!(
        (bed.neo4j_count("Person").await, bed.database.texts(constraints).await),
        (0, vec![])
    );
    let ours = ["phasegate_versions", "phasegate_turns", "phasegate_syncs"];
    for label in ours {
        assert_eq!(bed.neo4j_count(label).await, 0, "{label}");
    }
}

#[tokio::test]
async fn what_was_there_before_stays_on_the_way_back_and_everything_on_the_way_forward() {
    let of = people();
    let Some(bed) = Bed::made().await else { return };
    bed.database.run("CREATE (:Person {uid: 100, own: 1})").await;
    bed.opened(&of).await;
    bed.page(&of, vec![person(1, "a")]).await;
    let close = async |way| {
        let sink = bed.neo4j.change_sink().unwrap();
        sink.close(&bed.fences[0], &step(&of, way), &of).await.unwrap()
    };
    close(Way::Forward).await;
    assert_eq!(bed.neo4j_count("Person").await, 2);
    // Open again, it is as at first, and it was not empty.
    let again = work("again", Way::Back);
    bed.neo4j.open(&bed.fences[0], &again, &of).await.unwrap();
    bed.land(&[&of], &[is(&of, 1, person(2, "b"))]).await;
    close(Way::Back).await;
    assert_eq!(bed.neo4j_count("Person").await, 3);
    let constraints = "SHOW CONSTRAINTS YIELD labelsOrTypes WHERE 'Person' IN labelsOrTypes RETURN count(*) AS it";
    assert_eq!(bed.database.number(constraints).await, 0);
}

#[tokio::test]
async fn a_mapping_that_is_shut_takes_no_change_and_no_page() {
    let of = people();
    let Some(bed) = Bed::open(&[&of]).await else { return };
    bed.land(&[&of], &[is(&of, 1, person(1, "a"))]).await;
    let chunk = bed.plan(&of).await;
    bed.neo4j.shut(&bed.fences[0], &of).await.unwrap();
    bed.land(&[&of], &[is(&of, 2, person(1, "b")), gone(&of, 3, &[int(2)])]).await;
    assert_eq!(bed.rows(&of, &[&[int(1)]]).await, [person(1, "a")]);
    assert!(!bed.neo4j.land_emptied(&bed.relay, &of, 9).await.unwrap());
    let late = (&chunk, vec![person(7, "late")]);
    let late = bed.neo4j.land_page(&bed.fences[1], &copy(&of), &of, late).await;
    assert_eq!(class(late), FailureClass::Stale);
    assert_eq!(bed.neo4j_count("Person").await, 1);
    let broken = bed.neo4j.landing_state(&of.mapping).await.unwrap();
    assert!(matches!(broken, SyncState::Broken(_)));
}

#[tokio::test]
async fn what_an_earlier_run_has_left_is_void() {
    let of = people();
    let Some(bed) = Bed::made().await else { return };
    bed.database
        .run(
            "CREATE (:phasegate_versions {key: 'people:i1;', v: 900}), (:phasegate_versions {key: 'people2:i1;', v: 900}), \
             (:phasegate_turns {mapping: 'people', turn: 3}), (:phasegate_syncs {run_id: 'r0', mapping: 'people', shut: false, floor: 7})",
        )
        .await;
    bed.opened(&of).await;
    bed.land(&[&of], &[is(&of, 1, person(1, "a"))]).await;
    assert_eq!(bed.held(&of, &[&[int(1)]]).await.versions, [1]);
    assert_eq!(bed.neo4j_count("phasegate_turns").await, 8);
}

#[tokio::test]
async fn nothing_of_ours_is_left_when_the_run_leaves_but_its_row() {
    let all = [people(), follows(), orders()];
    let Some(bed) = Bed::open(&[&all[0], &all[1], &all[2]]).await else { return };
    let people: Vec<_> = (0..6_000).map(|id| is(&all[0], 1, person(id, "x"))).collect();
    bed.land(&[&all[0]], &people).await;
    bed.page(&all[1], vec![follow(1, 2, 1)]).await;
    bed.land(&[&all[2]], &[is(&all[2], 2, order(1, (1, "a"), 1))]).await;
    bed.neo4j.enter_relay(&"r1/relay/graph/other".into(), 3).await.unwrap();
    bed.neo4j.leave(&bed.fences[0], Ending::Completed, &head(9)).await.unwrap();
    assert_eq!(bed.database.ours().await, ["phasegate_runs", "phasegate_runs_key"]);
    assert_eq!(bed.neo4j_count("phasegate_runs").await, 1);
    assert_eq!(bed.neo4j_count("Person").await, 6_000);
    assert_eq!(class(bed.try_land(&[&all[0]], &people[..1]).await), FailureClass::Stale);
    let gone = bed.neo4j.enter_relay(&RELAY.into(), 9).await;
    assert!(
        matches!(&gone, Err(Error::Failed(failure)) if failure.class == FailureClass::Stale),
        "{gone:?}"
    );
}

#[tokio::test]
async fn a_relay_that_was_taken_over_commits_nothing() {
    let of = people();
    let Some(bed) = Bed::open(&[&of]).await else { return };
    // It is in the middle of something.
    let kind = crate::driver::TxKind::Land;
    let mut open = bed.neo4j.connections.begin(&bed.relay, kind).await.unwrap();
    open.run(neo4rs::query("CREATE (:Person {uid: 1})")).await.unwrap();
    let other = bed.database.open().await;
    let relay = RELAY.into();
    let taking = other.enter_relay(&relay, 2);
    let newer =
        tokio::time::timeout(std::time::Duration::from_mins(1), taking).await.unwrap().unwrap();
    assert!(open.commit().await.is_err());
    let change = [is(&of, 1, person(1, "a"))];
    let fenced = Error::Fenced { ours: 1, newest: 2 };
    assert_eq!(bed.try_land(&[&of], &change).await, Err(fenced.clone()));
    assert_eq!(bed.neo4j.enter_relay(&RELAY.into(), 1).await.unwrap_err(), fenced);
    assert_eq!(bed.neo4j_count("Person").await, 0);
    other.land(&newer, std::slice::from_ref(&of), &change).await.unwrap();
    assert_eq!(bed.neo4j_count("Person").await, 1);
    // The run has a token of its own, and another relay too.
    bed.neo4j.enter_relay(&"r1/relay/a/b".into(), 1).await.unwrap();
    bed.page(&of, vec![person(2, "b")]).await;
    assert_eq!(bed.neo4j_count("Person").await, 2);
}

#[tokio::test]
async fn chunks_are_entered_where_the_copy_was_left_and_nowhere_else() {
    let of = people();
    let Some(bed) = Bed::open(&[&of]).await else { return };
    let (work, fence) = (copy(&of), &bed.fences[0]);
    let key = |id: i64| Some(Key(vec![Cell::Integer(id)]));
    let planned = |seq, lo: i64| Planned { seq, chunk: Chunk { lo: key(lo), hi: key(lo + 1) } };
    let enter = async |before: Option<&Copy>, copy: &Copy, chunks: &[Planned]| {
        bed.neo4j.enter_chunks(fence, &work, &of.mapping, (before, copy, chunks)).await
    };
    assert_eq!(bed.neo4j.copy_row(fence.run(), &work.step).await.unwrap(), None);
    let first = Copy { seq: 2, hi: key(2), frozen: key(9), ..Copy::default() };
    let state = enter(None, &first, &[planned(1, 0), planned(2, 1)]).await.unwrap();
    assert_eq!(state.open.len(), 2);
    assert_eq!(class(enter(None, &first, &[planned(1, 0)]).await), FailureClass::Stale);
    let page = (&planned(1, 0), vec![person(1, "a")]);
    let copied = bed.neo4j.land_page(fence, &work, &of, page.clone()).await.unwrap();
    assert_eq!((copied.before, copied.rows_read, copied.rows_written), (false, 1, 1));
    let again = bed.neo4j.land_page(fence, &work, &of, page).await.unwrap();
    assert_eq!((again.before, again.rows_read), (true, 1));
    // What was folded meanwhile stays folded.
    let second = Copy { seq: 3, hi: key(3), ended: true, ..first.clone() };
    let state = enter(Some(&first), &second, &[planned(3, 2)]).await.unwrap();
    assert_eq!((state.watermark, state.rows_read, state.open.len()), (1, 1, 2));
    let there = bed.neo4j.copy_row(fence.run(), &work.step).await.unwrap().unwrap();
    assert_eq!(there, Copy { watermark: 1, rows_read: 1, rows_written: 1, ..second.clone() });
    assert_eq!(class(enter(Some(&first), &second, &[]).await), FailureClass::Stale);
    let other = (&Planned { seq: 2, chunk: planned(3, 2).chunk }, vec![]);
    let other = bed.neo4j.land_page(fence, &work, &of, other).await;
    assert_eq!(class(other), FailureClass::Stale);
    for chunk in [planned(2, 1), planned(3, 2)] {
        bed.neo4j.land_page(fence, &work, &of, (&chunk, vec![])).await.unwrap();
    }
    let done = bed.neo4j.finish_copy(fence, &work).await.unwrap();
    assert_eq!((done.rows, done.detail.as_deref()), (1, Some("in 3 chunks")));
}

#[tokio::test]
async fn keys_that_nothing_can_tell_apart_are_found_before_anything_is_changed() {
    let Some(bed) = Bed::made().await else { return };
    let look = async |of: &Crossed| -> Vec<String> {
        let surveyed =
            SurveyedMapping { step: "sync".into(), mapping: of.mapping.clone(), direction: None };
        let survey = Survey { mappings: vec![surveyed], ..Survey::default() };
        let found = bed.neo4j.survey(&survey).await.unwrap().into_iter();
        found
            .map(|one| {
                assert_eq!(one.severity, Severity::Error);
                format!("{} {}", one.code, one.message)
            })
            .collect()
    };
    for of in [people(), follows(), orders()] {
        assert_eq!(look(&of).await, [""; 0]);
    }
    bed.database
        .run(
            "CREATE (a:Person {uid: 1}), (:Person {uid: 1}), (:Person {uid: 'x'}), (b:Person), \
             (a)-[:ORDERED {no: 1}]->(b), (a)-[:ORDERED {no: 1}]->(b), (a)-[:ORDERED]->(b)",
        )
        .await;
    let nodes = [
        "D204 1 node of Person have no uid",
        "D204 uid of Person is of several types: INTEGER NOT NULL, STRING NOT NULL",
        "D204 1 key of Person has more than one node: 1",
    ];
    assert_eq!(look(&people()).await, nodes);
    assert_eq!(look(&follows()).await, nodes);
    let own = [
        "D204 1 relationship of ORDERED have no no",
        "D204 1 key of ORDERED has more than one relationship: 1",
    ];
    assert_eq!(look(&orders()).await, [&nodes[..], &own[..]].concat());
}

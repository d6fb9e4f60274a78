//! Mappings inside a graph, on a real server: copied, compared, repaired, and removed again.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use super::Neo4j;
use super::fixture::{Database, class, entered, head, work};
use crate::copy::chunk::{Cell, Chunk, Key, Planned, Walk};
use crate::copy::compare::Compared;
use crate::driver::{
    Applied, Copied, CopyState, DualWriter as _, Error, Fence, Introspect as _, Retirer as _,
    Session as _, Severity, Sink as _, Source as _, Survey, SurveyedMapping, SyncState,
    Verifier as _, Window, fixture,
};
use crate::run::{
    CopyColumns, Direction, End, Ending, Ends, FailureClass, Mapping, Method, Permit, Relation,
    RowKind, Way,
};

const FORWARD: Direction = Direction::Forward;
const EVERYTHING: Chunk = Chunk { lo: None, hi: None };

pub(super) fn relation(table: &str, key: &[&str], kind: RowKind) -> Relation {
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    Relation { target: "graph".into(), table: table.into(), key, kind }
}

pub(super) fn mapping(name: &str, from: Relation, into: Relation) -> Mapping {
    Mapping { name: name.into(), from, into, ..fixture::mapping(("", &[]), ("", &[])) }
}

pub(super) fn leads() -> Mapping {
    let into = relation("LeadV2", &["uid"], RowKind::Node);
    let mut leads = mapping("leads", relation("Lead", &["id"], RowKind::Node), into);
    leads.columns = vec![("status".into(), "toLower(source.status)".into())];
    leads
}

fn end(node: &str, key: &str, value: &str) -> End {
    End { node: node.into(), key: vec![(key.into(), value.into())] }
}

/// Relationships between leads, the other way round between their copies.
pub(super) fn knows() -> Mapping {
    let ends = |start, end| RowKind::Relationship(Box::new(Ends { start, end }));
    let from = ends(end("Lead", "id", "id"), end("Lead", "id", "id"));
    let into = ends(end("LeadV2", "uid", "end.id"), end("LeadV2", "uid", "start.id"));
    mapping("knows", relation("KNOWS", &[], from), relation("KNOWN_BY", &[], into))
}

pub(super) async fn install(neo4j: &Neo4j, fence: &Fence, mapping: &Mapping) -> Applied {
    let step = work(&format!("sync-{}", mapping.name), Way::Forward);
    neo4j.install(fence, &step, mapping, FORWARD).await.unwrap()
}

/// Copies everything in chunks of so many rows.
pub(super) async fn copy_all(
    neo4j: &Neo4j,
    fences: &[Fence],
    mapping: &Mapping,
    rows: u32,
) -> Result<Applied, Error> {
    let step = work(&format!("copy-{}", mapping.name), Way::Forward);
    loop {
        let size = Window { rows, count: 3, is_fixed: true };
        let state = neo4j.plan_chunks(&fences[0], &step, mapping, size).await?;
        for chunk in &state.open {
            neo4j.copy_chunk(&fences[1], &step, mapping, FORWARD, chunk).await?;
        }
        if matches!(state.walk, Walk::Ended { .. }) && state.open.is_empty() {
            return neo4j.finish_copy(&fences[0], &step).await;
        }
    }
}

/// Compares everything in chunks of about so many keys.
pub(super) async fn compare_all(
    neo4j: &Neo4j,
    mapping: &Mapping,
    rows: u32,
) -> Result<Compared, Error> {
    let (mut all, mut lo) = (Compared::default(), None);
    loop {
        let hi = neo4j.verify_bound(mapping, lo.as_ref(), rows).await?;
        let chunk = Chunk { lo, hi };
        all.add(neo4j.compare_chunk(mapping, FORWARD, &chunk).await?);
        let Some(hi) = chunk.hi else { return Ok(all) };
        lo = Some(hi);
    }
}

pub(super) fn found(compared: &Compared) -> (u64, u64, u64, u64) {
    (compared.rows, compared.missing, compared.extra, compared.different)
}

const LEADS: &str = "UNWIND range(1, 100) AS i CREATE (:Lead {id: i * 3, status: 'S' + i, at: datetime('2024-03-31T01:30:00Z'), \
     tags: ['a|b', 'c'], score: 0.1 * i, uid: 'other'})";

#[tokio::test]
async fn nodes_are_copied_once_in_any_order_and_what_is_there_stays() {
    let Some(database) = Database::empty().await else { return };
    database.run(LEADS).await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let mapping = leads();
    let made = install(&neo4j, &fences[0], &mapping).await;
    assert_eq!(made.detail.as_deref(), Some("made 2 constraints"));
    assert!(install(&neo4j, &fences[0], &mapping).await.before);
    assert_eq!(neo4j.sync_state(&mapping, FORWARD).await.unwrap(), SyncState::Active);
    database.run("CREATE (:LeadV2 {uid: 30, status: 'theirs', own: 1})").await;

    let step = work("copy", Way::Forward);
    let plan = async |rows, count| -> CopyState {
        let size = Window { rows, count, is_fixed: true };
        neo4j.plan_chunks(&fences[0], &step, &mapping, size).await.unwrap()
    };
    let copy = async |chunk: &Planned| -> Result<Copied, Error> {
        neo4j.copy_chunk(&fences[1], &step, &mapping, FORWARD, chunk).await
    };
    assert_eq!(neo4j.copy_state(fences[0].run(), &step.step).await.unwrap().rows_read, 0);
    let state = plan(40, 2).await;
    let bounds: Vec<_> = state.open.iter().map(|it| it.chunk.hi.clone()).collect();
    let key = |id: i64| Some(Key(vec![Cell::Integer(id)]));
    assert_eq!(bounds, [key(120), key(240)]);
    // Behind the frozen end: that is the application's.
    database.run("CREATE (:Lead {id: 1000, status: 'NEW'})").await;
    let second = copy(&state.open[1]).await.unwrap();
    assert_eq!((second.rows_read, second.rows_written, second.before), (40, 40, false));
    let first = copy(&state.open[0]).await.unwrap();
    assert_eq!((first.rows_read, first.rows_written), (40, 39));
    assert!(copy(&state.open[0]).await.unwrap().before);
    let wrong = Planned { seq: 1, chunk: state.open[1].chunk.clone() };
    assert_eq!(class(copy(&wrong).await), FailureClass::Stale);
    assert_eq!(class(neo4j.finish_copy(&fences[0], &step).await), FailureClass::Stale);
    let state = plan(40, 2).await;
    assert_eq!((state.watermark, state.walk.clone()), (2, Walk::Ended { seq: 3 }));
    assert_eq!(copy(&state.open[0]).await.unwrap().rows_read, 20);
    assert!(copy(&Planned { seq: 1, chunk: EVERYTHING }).await.unwrap().before, "it is folded");
    let state = neo4j.copy_state(fences[0].run(), &step.step).await.unwrap();
    assert_eq!((state.rows_read, state.rows_written, state.watermark), (100, 99, 3));
    let done = neo4j.finish_copy(&fences[0], &step).await.unwrap();
    assert_eq!(done.detail.as_deref(), Some("99 of them written, in 3 chunks"));

    let theirs = "MATCH (v:LeadV2 {uid: 30}) RETURN v.status + v.own AS it";
    assert_eq!(database.texts(theirs).await, ["theirs1"]);
    let one = "MATCH (v:LeadV2 {uid: 33}) RETURN v.status + toString(v.id IS NULL) + toString(size(keys(v))) AS it";
    assert_eq!(database.texts(one).await, ["s11true5"]);
    let held = "MATCH (n) WHERE n.phasegate_held IS NOT NULL RETURN count(n) AS it";
    assert_eq!(database.number(held).await, 0);

    let compared = compare_all(&neo4j, &mapping, 30).await.unwrap();
    assert_eq!(found(&compared), (101, 1, 0, 1));
    let sample = compared.samples.iter().find(|one| one.key == "30").unwrap();
    assert_eq!(sample.columns, ["at", "own", "score", "status", "tags"]);
    let counts = neo4j.compare_partly(&mapping, FORWARD, Method::Counts).await.unwrap();
    assert_eq!(found(&counts), (101, 1, 0, 0));
    let sampled = neo4j.compare_partly(&mapping, FORWARD, Method::Sample(1_000)).await.unwrap();
    assert_eq!(sampled.missing + sampled.different, 3, "the different one from both sides");
    let repaired = neo4j.repair_chunk(&fences[0], &mapping, FORWARD, &EVERYTHING).await.unwrap();
    assert_eq!(repaired, 2);
    assert_eq!(found(&compare_all(&neo4j, &mapping, 30).await.unwrap()), (101, 0, 0, 0));
}

/// What nobody has begun is planned anew, with other bounds.
#[tokio::test]
async fn chunks_are_taken_back_as_far_as_none_behind_them_is_committed() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 1000) AS id CREATE (:Lead {id: id})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let (step, mapping) = (work("copy", Way::Forward), leads());
    install(&neo4j, &fences[0], &mapping).await;
    let plan = async |rows, count| {
        let size = Window { rows, count, is_fixed: true };
        neo4j.plan_chunks(&fences[0], &step, &mapping, size).await.unwrap()
    };
    neo4j.forget_chunks(&fences[0], &step, 0).await.unwrap();
    let first = plan(200, 9).await;
    assert_eq!((first.walk.clone(), first.open.len()), (Walk::Ended { seq: 5 }, 5));
    for at in [0, 2] {
        neo4j.copy_chunk(&fences[1], &step, &mapping, FORWARD, &first.open[at]).await.unwrap();
    }
    neo4j.forget_chunks(&fences[0], &step, 1).await.unwrap();
    let again = plan(100, 9).await;
    let seqs: Vec<u64> = again.open.iter().map(|planned| planned.seq).collect();
    // The second is before a committed one and stays; the fourth and fifth have other bounds now.
    assert_eq!(seqs, [2, 4, 5, 6, 7]);
    assert_eq!(again.open[0], first.open[1]);
    assert_eq!(again.open[1].chunk.lo, first.open[2].chunk.hi);
    assert_eq!(again.open[1].chunk.hi, Some(Key(vec![Cell::Integer(700)])));
    assert_eq!((again.walk, again.rows_read), (Walk::Ended { seq: 7 }, 400));
    neo4j.forget_chunks(&fences[0], &step, 7).await.unwrap();
    assert_eq!(plan(100, 9).await.open.len(), 5);
    for chunk in &plan(100, 9).await.open {
        neo4j.copy_chunk(&fences[1], &step, &mapping, FORWARD, chunk).await.unwrap();
    }
    assert_eq!(neo4j.finish_copy(&fences[0], &step).await.unwrap().rows, 1_000);
}

/// Whoever reads the ledger while others commit reads no chunk under another one's bounds.
#[tokio::test]
async fn chunks_keep_their_bounds_while_others_are_committed() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 300) AS id CREATE (:Lead {id: id})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let (step, mapping) = (work("copy", Way::Forward), leads());
    install(&neo4j, &fences[0], &mapping).await;
    let size = Window { rows: 1, count: 301, is_fixed: true };
    let planned = neo4j.plan_chunks(&fences[0], &step, &mapping, size).await.unwrap().open;
    assert!(planned.len() >= 300);
    let is_over = std::cell::Cell::new(false);
    let copying = async {
        for chunk in &planned {
            neo4j.copy_chunk(&fences[1], &step, &mapping, FORWARD, chunk).await.unwrap();
        }
        is_over.set(true);
    };
    let looking = async {
        let mut seen = 0;
        while !is_over.get() {
            let state = neo4j.copy_state(fences[0].run(), &step.step).await.unwrap();
            let other = state.open.iter().find(|open| !planned.contains(open));
            assert_eq!(other, None, "of {}", state.open.len());
            seen += state.open.len();
        }
        seen
    };
    let ((), seen) = tokio::join!(copying, looking);
    assert!(seen > planned.len());
    assert_eq!(neo4j.finish_copy(&fences[0], &step).await.unwrap().rows, 300);
}

/// An application that removes a row, on both sides, has not come to the new one yet.
#[tokio::test]
async fn a_row_that_is_being_removed_leaves_no_copy() {
    let Some(database) = Database::empty().await else { return };
    database.run(LEADS).await;
    database.run("MATCH (a:Lead {id: 6}), (b:Lead {id: 9}) CREATE (a)-[:KNOWS]->(b)").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    for (mapping, removed, copies) in [
        (leads(), "MATCH (l:Lead {id: 3}) DELETE l", "MATCH (v:LeadV2 {uid: 3})"),
        (knows(), "MATCH (:Lead)-[r:KNOWS]->() DELETE r", "MATCH ()-[v:KNOWN_BY]->()"),
    ] {
        install(&neo4j, &fences[0], &mapping).await;
        let step = work(&format!("copy-{}", mapping.name), Way::Forward);
        let size = Window { rows: 1_000, count: 1, is_fixed: true };
        let state = neo4j.plan_chunks(&fences[0], &step, &mapping, size).await.unwrap();
        let copied = format!("{copies} RETURN count(v) AS it");
        let mut application = database.begin().await;
        application.run(neo4rs::query(removed)).await.unwrap();
        let copying = neo4j.copy_chunk(&fences[1], &step, &mapping, FORWARD, &state.open[0]);
        let mut copying = Box::pin(copying);
        let is_known = mapping.name.as_str() == "leads";
        let pause = Duration::from_millis(if is_known { 700 } else { 60_000 });
        let waits = tokio::time::timeout(pause, &mut copying).await;
        if is_known {
            assert!(waits.is_err(), "nobody waited: {waits:?}");
            application.commit().await.unwrap();
            // Found gone, or tried again.
            if let Err(error) = copying.await {
                assert_eq!(class::<Copied>(Err(error)), FailureClass::Contention);
                let again = neo4j.copy_chunk(&fences[1], &step, &mapping, FORWARD, &state.open[0]);
                again.await.unwrap();
            }
        } else {
            // Of relationships the server doesn't know before the commit.
            waits.unwrap().unwrap();
            let settling = neo4j.settle(&fences[0], &mapping);
            let mut settling = Box::pin(settling);
            let pause = Duration::from_millis(700);
            assert!(tokio::time::timeout(pause, &mut settling).await.is_err());
            application.commit().await.unwrap();
            assert_eq!(database.number(&copied).await, 1);
            settling.await.unwrap();
        }
        assert_eq!(database.number(&copied).await, 0);
        neo4j.finish_copy(&fences[0], &step).await.unwrap();
    }
    // What is found behind the copy is for a verify to say.
    database
        .run("MATCH (a:LeadV2 {uid: 6}), (b:LeadV2 {uid: 9}) CREATE (a)-[:KNOWN_BY]->(b)")
        .await;
    neo4j.settle(&fences[0], &knows()).await.unwrap();
    assert_eq!(compare_all(&neo4j, &knows(), 100).await.unwrap().extra, 1);
    // Whoever holds a row for long does not hold the copy up with locks of its own.
    let (step, late) = (work("late", Way::Forward), leads());
    let size = Window { rows: 1_000, count: 1, is_fixed: true };
    let state = neo4j.plan_chunks(&fences[0], &step, &late, size).await.unwrap();
    let mut application = database.begin().await;
    application.run(neo4rs::query("MATCH (l:Lead {id: 300}) SET l.x = 1")).await.unwrap();
    let refused = neo4j.copy_chunk(&fences[1], &step, &late, FORWARD, &state.open[0]).await;
    assert_eq!(class(refused), FailureClass::Contention);
    application.rollback().await.unwrap();
}

#[tokio::test]
async fn each_kind_of_difference_is_found_with_its_property() {
    let Some(database) = Database::empty().await else { return };
    database.run(LEADS).await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let mapping = leads();
    install(&neo4j, &fences[0], &mapping).await;
    copy_all(&neo4j, &fences, &mapping, 1_000).await.unwrap();
    for (at, (property, value)) in [
        ("status", "'S2'"),
        ("status", "'s2 '"),
        ("status", "null"),
        ("at", "datetime('2024-03-31T01:30:00.000000001Z')"),
        ("at", "localdatetime('2024-03-31T01:30:00')"),
        ("tags", "['a', 'b|c']"),
        ("tags", "['a|b', 'c', '']"),
        ("score", "0.2"),
        ("score", "1"),
        ("score", "0.0 / 0.0"),
        ("more", "''"),
        ("more", "point({x: 1, y: 2})"),
        ("more", "duration('P1M')"),
        ("more", "date('-200000-01-01')"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = 3 * (at + 3);
        database.run(&format!("MATCH (v:LeadV2 {{uid: {id}}}) SET v.{property} = {value}")).await;
        let compared = compare_all(&neo4j, &mapping, 40).await.unwrap();
        assert_eq!(found(&compared), (100, 0, 0, 1), "{property} {value}");
        let told = &compared.samples[0];
        assert_eq!((&told.key, &told.columns), (&id.to_string(), &vec![property.to_owned()]));
        neo4j.repair_chunk(&fences[0], &mapping, FORWARD, &EVERYTHING).await.unwrap();
        assert_eq!(found(&compare_all(&neo4j, &mapping, 7).await.unwrap()), (100, 0, 0, 0));
    }
    // The same moment in another zone is the same.
    for (uid, same) in [(3, "2024-03-31T03:30:00[Europe/Berlin]"), (6, "2024-03-30T20:30:00-05:00")]
    {
        let set = format!("MATCH (v:LeadV2 {{uid: {uid}}}) SET v.at = datetime('{same}')");
        database.run(&set).await;
    }
    assert_eq!(found(&compare_all(&neo4j, &mapping, 7).await.unwrap()), (100, 0, 0, 0));
    database.run("MATCH (v:LeadV2 {uid: 9}) DELETE v").await;
    database.run("CREATE (:LeadV2 {uid: 10}), (:LeadV2 {uid: 9000})").await;
    assert_eq!(found(&compare_all(&neo4j, &mapping, 200).await.unwrap()), (101, 1, 2, 0));
    database.run("CREATE (:LeadV2 {uid: 'text'})").await;
    assert_eq!(class(compare_all(&neo4j, &mapping, 7).await), FailureClass::Refused);
    database.run("MATCH (v:LeadV2 {uid: 'text'}) SET v.uid = null").await;
    assert_eq!(class(compare_all(&neo4j, &mapping, 7).await), FailureClass::Refused);
}

#[tokio::test]
async fn relationships_are_copied_as_many_as_there_are_with_their_direction() {
    let Some(database) = Database::empty().await else { return };
    database.run(LEADS).await;
    // One with very many, parallel ones, and one to itself.
    database.run("MATCH (a:Lead {id: 3}), (b:Lead) CREATE (a)-[:KNOWS {since: b.id}]->(b)").await;
    database.run("MATCH (a:Lead {id: 6}), (b:Lead {id: 9}) CREATE (a)-[:KNOWS {x: 1}]->(b), (a)-[:KNOWS {x: 1}]->(b), (a)-[:KNOWS]->(b)").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let (nodes, mapping) = (leads(), knows());
    for mapping in [&nodes, &mapping] {
        install(&neo4j, &fences[0], mapping).await;
    }
    let error = copy_all(&neo4j, &fences, &mapping, 40).await.unwrap_err();
    let Error::Failed(failure) = error else { panic!("{error:?}") };
    assert!(failure.message.contains("KNOWN_BY needs a LeadV2"), "{failure:?}");
    assert!(!failure.private.is_empty());
    copy_all(&neo4j, &fences, &nodes, 1_000).await.unwrap();
    // What the application has written already stays, and isn't made twice.
    database
        .run("MATCH (a:LeadV2 {uid: 6}), (b:LeadV2 {uid: 9}) CREATE (b)-[:KNOWN_BY {x: 1}]->(a)")
        .await;
    let done = copy_all(&neo4j, &fences, &mapping, 40).await.unwrap();
    assert_eq!(done.rows, 103);
    assert_eq!(done.detail.as_deref(), Some("102 of them written, in 3 chunks"));
    let made = "MATCH (a:LeadV2)-[r:KNOWN_BY]->(b:LeadV2) RETURN count(r) AS it";
    assert_eq!(database.number(made).await, 103);
    let parallel = "MATCH (:LeadV2 {uid: 9})-[r:KNOWN_BY]->(:LeadV2 {uid: 6}) RETURN toString(coalesce(r.x, 0)) AS it ORDER BY it";
    assert_eq!(database.texts(parallel).await, ["0", "1", "1"]);
    let itself = "MATCH (a:LeadV2 {uid: 3})-[r:KNOWN_BY]->(a) RETURN r.since AS it";
    assert_eq!(database.number(itself).await, 3);
    assert_eq!(found(&compare_all(&neo4j, &mapping, 10).await.unwrap()), (103, 0, 0, 0));

    database
        .run("MATCH (:LeadV2 {uid: 9})-[r:KNOWN_BY {x: 1}]->() WITH r LIMIT 1 SET r.x = 2")
        .await;
    database.run("MATCH (:LeadV2 {uid: 30})-[r:KNOWN_BY]->() DELETE r").await;
    database
        .run("MATCH (a:LeadV2 {uid: 33}), (b:LeadV2 {uid: 3}) CREATE (a)-[:KNOWN_BY {since: 33}]->(b)")
        .await;
    let compared = compare_all(&neo4j, &mapping, 10).await.unwrap();
    assert_eq!((compared.missing, compared.extra, compared.different), (1, 1, 1));
    let keys: Vec<_> = compared.samples.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(keys, ["9, 6", "30, 3", "33, 3"]);
    let repaired = neo4j.repair_chunk(&fences[0], &mapping, FORWARD, &EVERYTHING).await.unwrap();
    assert_eq!(repaired, 3);
    assert_eq!(found(&compare_all(&neo4j, &mapping, 10).await.unwrap()), (103, 0, 0, 0));
}

/// So many leads on both sides, and the mapping of the relationships between them.
async fn with_leads(count: u32) -> Option<(Database, Neo4j, Vec<Fence>, Mapping)> {
    let database = Database::empty().await?;
    let make =
        format!("UNWIND range(1, {count}) AS i CREATE (:Lead {{id: i}}), (:LeadV2 {{uid: i}})");
    database.run(&make).await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let mapping = knows();
    for mapping in [&leads(), &mapping] {
        install(&neo4j, &fences[0], mapping).await;
    }
    Some((database, neo4j, fences, mapping))
}

#[tokio::test]
async fn of_relationships_that_are_alike_each_pair_of_nodes_keeps_as_many_as_the_old_side_has() {
    let Some((database, neo4j, fences, mapping)) = with_leads(6).await else { return };
    // Of three pairs one each, and twice as many copies.
    database
        .run(
            "UNWIND [[1, 2], [3, 4], [5, 6]] AS pair MATCH (a:Lead {id: pair[0]}) MATCH (b:Lead {id: pair[1]}) \
             CREATE (a)-[:KNOWS]->(b)",
        )
        .await;
    database
        .run(
            "UNWIND [[1, 2], [3, 4], [5, 6]] AS pair MATCH (a:LeadV2 {uid: pair[0]}) MATCH (b:LeadV2 {uid: pair[1]}) \
             CREATE (b)-[:KNOWN_BY]->(a) CREATE (b)-[:KNOWN_BY]->(a)",
        )
        .await;
    let step = work("copy-knows", Way::Forward);
    let size = Window { rows: 10, count: 1, is_fixed: true };
    neo4j.plan_chunks(&fences[0], &step, &mapping, size).await.unwrap();
    neo4j.settle(&fences[0], &mapping).await.unwrap();
    let pairs = "MATCH (b:LeadV2)-[r:KNOWN_BY]->(a:LeadV2) WITH a, b, count(r) AS count \
         RETURN a.uid + ' ' + b.uid + ' ' + count AS it ORDER BY it";
    assert_eq!(database.texts(pairs).await, ["1 2 1", "3 4 1", "5 6 1"]);
}

#[tokio::test]
async fn a_node_with_very_many_relationships_comes_in_pieces_that_are_worth_their_while() {
    let Some((database, neo4j, fences, mapping)) = with_leads(50_000).await else { return };
    database
        .run("MATCH (a:Lead {id: 7}) MATCH (b:Lead) WHERE b.id > 0 CREATE (b)-[:KNOWS]->(a)")
        .await;
    let step = work("copy-knows", Way::Forward);
    let mut read = Vec::new();
    // What somebody says, what was found, and again what somebody says, for the sake of time.
    for (rows, is_fixed, until) in [(40, true, 2), (40, false, 5), (20_000, true, 100)] {
        let mut ended = false;
        while read.len() < until && !ended {
            let size = Window { rows, count: 1, is_fixed };
            let state = neo4j.plan_chunks(&fences[0], &step, &mapping, size).await.unwrap();
            for chunk in &state.open {
                let copied =
                    neo4j.copy_chunk(&fences[1], &step, &mapping, FORWARD, chunk).await.unwrap();
                read.push(copied.rows_read);
            }
            ended = matches!(state.walk, Walk::Ended { .. }) && state.open.is_empty();
        }
    }
    neo4j.finish_copy(&fences[0], &step).await.unwrap();
    assert_eq!(read, [40, 40, 2_000, 2_000, 2_000, 20_000, 20_000, 3_920]);
    let made = "MATCH (:LeadV2 {uid: 7})-[r:KNOWN_BY]->(:LeadV2) RETURN count(r) AS it";
    assert_eq!(database.number(made).await, 50_000);
}

#[tokio::test]
async fn what_is_mapped_can_be_taken_back_and_the_old_side_removed() {
    let Some(database) = Database::empty().await else { return };
    database.run(LEADS).await;
    database.run("MATCH (a:Lead {id: 3}), (b:Lead) CREATE (a)-[:KNOWS]->(b)").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let all = [leads(), knows()];
    // The application has begun by then, and what it wrote are copies.
    database.run("CREATE (:LeadV2 {uid: 3, status: 's1'})").await;
    for mapping in &all {
        install(&neo4j, &fences[0], mapping).await;
        copy_all(&neo4j, &fences, mapping, 1_000).await.unwrap();
    }
    let constraints = "SHOW CONSTRAINTS YIELD name, labelsOrTypes WHERE NOT name STARTS WITH 'phasegate' RETURN labelsOrTypes[0] AS it ORDER BY it";
    assert_eq!(database.texts(constraints).await, ["Lead", "LeadV2"]);
    let back = |mapping: &Mapping| work(&format!("sync-{}", mapping.name), Way::Back);
    let copies = "MATCH (v:LeadV2) RETURN count(v) AS it";
    // Nodes that somebody has given relationships of their own are somebody's.
    database.run("MATCH (a:LeadV2 {uid: 3}), (b:LeadV2 {uid: 6}) CREATE (a)-[:OWN]->(b)").await;
    let removed = neo4j.remove(&fences[0], &back(&all[1]), &all[1], FORWARD).await.unwrap();
    assert_eq!(removed.rows, 100);
    let refused = neo4j.remove(&fences[0], &back(&all[0]), &all[0], FORWARD).await;
    assert_eq!((class(refused), database.number(copies).await), (FailureClass::Unsafe, 2));
    database.run("MATCH ()-[r:OWN]->() DELETE r").await;
    neo4j.remove(&fences[0], &back(&all[0]), &all[0], FORWARD).await.unwrap();
    assert_eq!(database.number(copies).await, 0);
    assert_eq!(database.texts(constraints).await, [""; 0]);
    assert!(neo4j.remove(&fences[0], &back(&all[0]), &all[0], FORWARD).await.unwrap().before);

    // Where the new side had something of its own, nothing of it is taken away.
    database.run("CREATE (:LeadV2 {uid: 9999})").await;
    let mut others = leads();
    others.name = "others".into();
    install(&neo4j, &fences[0], &others).await;
    copy_all(&neo4j, &fences, &others, 1_000).await.unwrap();
    neo4j.remove(&fences[0], &back(&others), &others, FORWARD).await.unwrap();
    assert_eq!(database.number(copies).await, 101);
    database.run("MATCH (v:LeadV2) DELETE v").await;

    let drop = work("drop", Way::Forward);
    let gone = async |others: &[Mapping]| {
        let permit = Permit::for_test("drop");
        neo4j.drop_old(&fences[0], &drop, &all[0], others, permit).await
    };
    assert_eq!(class(gone(&all[..1]).await), FailureClass::Unsafe, "nothing is about KNOWS");
    for left_out in ["start.id <> 3", "source.nosuch > 0"] {
        let mut fewer = all.clone();
        fewer[1].filter = Some(left_out.into());
        assert_eq!(class(gone(&fewer).await), FailureClass::Unsafe, "only where {left_out}");
    }
    database.run("MATCH (l:Lead {id: 9}) SET l:Hot").await;
    assert_eq!(class(gone(&all).await), FailureClass::Unsafe, "one is Hot, too");
    database.run("MATCH (l:Hot) REMOVE l:Hot").await;
    assert_eq!(database.number("MATCH (l:Lead) RETURN count(l) AS it").await, 100);
    assert_eq!(gone(&all).await.unwrap().rows, 200);
    assert!(gone(&all).await.unwrap().before);
    assert_eq!(database.number("MATCH (l:Lead) RETURN count(l) AS it").await, 0);
    neo4j.leave(&fences[0], Ending::Completed, &head(9)).await.unwrap();
    assert_eq!(database.ours().await, ["phasegate_runs", "phasegate_runs_key"]);
}

#[tokio::test]
async fn a_key_of_several_parts_is_walked_and_compared_in_its_order() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 10) AS a UNWIND ['x', 'Y', 'é', '😀'] AS b CREATE (:P {a: a, `b c`: b, v: a})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let into = relation("Q", &["a", "b"], RowKind::Node);
    let mut mapping = mapping("parts", relation("P", &["a", "b c"], RowKind::Node), into);
    mapping.copy = CopyColumns::Listed;
    mapping.columns = vec![("w".into(), "source.v + 1".into())];
    mapping.filter = Some("source.v > 2".into());
    install(&neo4j, &fences[0], &mapping).await;
    let done = copy_all(&neo4j, &fences, &mapping, 3).await.unwrap();
    assert_eq!(done.rows, 32);
    // What the mapping doesn't list belongs to others, who would lose it if the copies went.
    database.run("MATCH (q:Q {a: 3}) SET q.own = 1").await;
    assert_eq!(found(&compare_all(&neo4j, &mapping, 3).await.unwrap()), (32, 0, 0, 0));
    let losing = neo4j.compare_losing(&mapping, FORWARD, &EVERYTHING).await.unwrap();
    assert_eq!(found(&losing), (32, 0, 0, 4));
    database.run("MATCH (q:Q {a: 5, b: '😀'}) SET q.w = 0").await;
    let compared = compare_all(&neo4j, &mapping, 3).await.unwrap();
    assert_eq!(compared.samples[0].key, "5, 😀");
    neo4j.repair_chunk(&fences[0], &mapping, FORWARD, &EVERYTHING).await.unwrap();
    assert_eq!(found(&compare_all(&neo4j, &mapping, 3).await.unwrap()), (32, 0, 0, 0));
    assert_eq!(database.number("MATCH (q:Q {own: 1}) RETURN count(q) AS it").await, 4);
}

#[tokio::test]
async fn what_stands_in_the_way_is_found_before_anything_is_changed() {
    let Some(database) = Database::empty().await else { return };
    database.run(LEADS).await;
    let neo4j = database.open().await;
    let look = async |mapping: &Mapping| -> Vec<String> {
        let surveyed = SurveyedMapping {
            step: "sync".into(),
            mapping: mapping.clone(),
            direction: Some(FORWARD),
        };
        let survey = Survey { mappings: vec![surveyed], ..Survey::default() };
        let found = neo4j.survey(&survey).await.unwrap();
        let errors = found.into_iter().filter(|one| one.severity == Severity::Error);
        errors.map(|one| format!("{} {}", one.code, one.message)).collect()
    };
    assert_eq!(look(&leads()).await, [""; 0]);
    let mut wrong = leads();
    wrong.from.table = "Laed".into();
    wrong.columns = vec![("status".into(), "toLower(source.statuss)".into())];
    assert_eq!(
        look(&wrong).await,
        ["D201 no node has the label Laed", "D203 nothing has a property statuss"]
    );
    let mut wrong = leads();
    wrong.columns = vec![("status".into(), "toLowr(source.status)".into())];
    let said = look(&wrong).await;
    assert!(said[0].starts_with("D205 the mapping can't be run: Unknown function"), "{said:?}");
    database.run("MATCH (l:Lead) WHERE l.id > 200 SET l.id = toString(l.id)").await;
    database.run("MATCH (l:Lead) WHERE l.id IN [3, 6] SET l.id = null").await;
    database
        .run("CREATE (:Lead {id: 9}), (:Lead {id: 9}), (:Lead {id: 12}), (:LeadV2 {uid: date()})")
        .await;
    let found = look(&leads()).await;
    for expected in [
        "D204 2 nodes of Lead have no id",
        "D204 id of Lead is of several types: INTEGER NOT NULL, STRING NOT NULL",
        "D204 2 keys of Lead have more than one node: 9; 12",
        "D204 1 node of LeadV2 have a uid that is DATE NOT NULL",
    ] {
        assert!(found.iter().any(|one| one == expected), "{expected}: {found:?}");
    }
}

/// An index in the way of a constraint is said before anything is begun; and NaN is in no range of keys, so nobody would compare it.
#[tokio::test]
async fn what_can_not_be_a_key_is_found() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND [1.5, 2.5, 0.0 / 0.0] AS id CREATE (:Lead {id: id}), (:LeadV2 {uid: id, own: id})").await;
    database.run("CREATE INDEX by_id FOR (n:Lead) ON (n.id)").await;
    let neo4j = database.open().await;
    let mut mapping = leads();
    mapping.columns = Vec::new();
    let surveyed =
        SurveyedMapping { step: "sync".into(), mapping: mapping.clone(), direction: Some(FORWARD) };
    let found = neo4j.survey(&Survey { mappings: vec![surveyed], ..Survey::default() }).await;
    let said: Vec<String> = found.unwrap().into_iter().map(|one| one.message).collect();
    for expected in [
        "1 node of Lead have a id that is NaN",
        "1 node of LeadV2 have a uid that is NaN",
        "the index by_id is on id of Lead, and the server makes no constraint beside it",
    ] {
        assert!(said.iter().any(|one| one == expected), "{expected}: {said:?}");
    }
    database.run("DROP INDEX by_id").await;
    let fences = entered(&neo4j, 1).await;
    install(&neo4j, &fences[0], &mapping).await;
    assert_eq!(class(compare_all(&neo4j, &mapping, 10).await), FailureClass::Refused);
}

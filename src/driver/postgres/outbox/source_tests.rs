//! What a mapping carries, rows and changes of one moment, relays of a run, and what a run leaves.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use super::fixture::{Bed, PEOPLE, crossing, people};
use crate::copy::chunk::Chunk;
use crate::copy::row::Datum;
use crate::driver::crossing::{ChangeSource as _, Page, Rows, What};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::fixture::{Database, class, entered, head, work};
use crate::driver::{Error, Fence, Introspect as _, Session as _, Signals as _, SyncState, TxKind};
use crate::run::{
    CopyColumns, End, Ending, Ends, FailureClass, Gauge, Mapping, ParkedRow, RowKind, RunId, Way,
};

const ALL: Chunk = Chunk { lo: None, hi: None };

fn key(id: i64) -> Vec<Datum> {
    vec![Datum::Integer(id)]
}

fn text(text: &str) -> Datum {
    Datum::Text(text.to_owned())
}

fn end(node: &str, key: &[(&str, &str)]) -> End {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    End { node: node.to_owned(), key: key.iter().map(owned).collect() }
}

/// The same rows as relationships, known by a key of their own or by their ends.
fn between(mapping: Mapping, (start, end): (End, End), key: &[&str]) -> Mapping {
    let mut mapping = Mapping { copy: CopyColumns::All, ..mapping };
    mapping.into.key = key.iter().map(|name| (*name).to_owned()).collect();
    mapping.into.kind = RowKind::Relationship(Box::new(Ends { start, end }));
    mapping
}

async fn names(postgres: &Postgres, mapping: &Mapping) -> Vec<String> {
    postgres.crossed(mapping).await.unwrap().names
}

#[tokio::test]
async fn copy_all_takes_along_what_nobody_named() {
    let setup = "CREATE TABLE t (a int, b int, name text, \"Odd \"\"col\" text, twice int GENERATED ALWAYS AS (a * 2) STORED, gone int,
            team int NOT NULL, note text, PRIMARY KEY (a, b));
        ALTER TABLE t DROP COLUMN gone; INSERT INTO t VALUES (1, 2, 'n', 'o', DEFAULT, 7, 'm')";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let columns = [("label", "upper(name)"), ("note", "note || '!'")];
    let listed = crossing("t", &["a", "b"], &columns);
    assert_eq!(names(&postgres, &listed).await, ["label", "note"]);
    let all = Mapping { copy: CopyColumns::All, ..listed.clone() };
    let along = ["label", "note", "name", "Odd \"col", "twice", "team"];
    assert_eq!(names(&postgres, &all).await, along);
    let page = postgres.page(&all, (&ALL, Rows::All)).await.unwrap();
    let values: Vec<&Datum> = along.iter().map(|name| &page.rows[0].values[*name]).collect();
    assert_eq!(
        values,
        [&text("N"), &text("m!"), &text("n"), &text("o"), &Datum::Integer(2), &Datum::Integer(7)]
    );
    // What an end is known by has its place in the relationship's ends, and none beside them.
    let ends =
        || (end("Team", &[("id", "team")]), end("Person", &[("x", "a + 0"), ("y", "\"b\"")]));
    let keyed = between(listed.clone(), ends(), &["a", "b"]);
    assert_eq!(
        names(&postgres, &keyed).await,
        ["label", "note", "start.id", "end.x", "end.y", "name", "Odd \"col", "twice"]
    );
    let row = postgres.page(&keyed, (&ALL, Rows::All)).await.unwrap().rows.remove(0);
    assert_eq!(
        (&row.values["start.id"], &row.values["end.y"]),
        (&Datum::Integer(7), &Datum::Integer(2))
    );
    let ends = (end("Person", &[("id", "a")]), end("Person", &[("id", "b")]));
    let bare = between(listed, ends, &[]);
    assert_eq!(names(&postgres, &bare).await, along);
    // A type that has no form is in the way, and what to write instead is said by the column's name.
    database.run("ALTER TABLE t ADD balance numeric").await;
    let Err(Error::Failed(failure)) = postgres.crossed(&all).await else { panic!() };
    assert_eq!(failure.class, FailureClass::Refused);
    assert!(failure.help.unwrap().contains("`balance: balance::text`"));
}

#[tokio::test]
async fn what_comes_along_is_what_there_was_when_the_capture_began() {
    let Some(bed) = Bed::with(PEOPLE, Mapping { copy: CopyColumns::All, ..people() }).await else {
        return;
    };
    let before = ["mail", "state.code", "email", "status", "other"];
    assert_eq!(names(&bed.postgres, &bed.of).await, before);
    bed.run("ALTER TABLE people ADD later text DEFAULT 'l'; UPDATE people SET status = 'New' WHERE id = 1").await;
    for postgres in [&bed.postgres, &bed.database.open().await] {
        assert_eq!(names(postgres, &bed.of).await, before);
        assert_eq!(postgres.capture_state(&bed.of).await, Ok(SyncState::Active));
    }
    let changes = bed.claim().await;
    let What::Is(row) = &changes[0].what else { panic!("{changes:?}") };
    assert_eq!((row.values.len(), &row.values["status"]), (4, &text("New")));
    // Of another type, the same column is another.
    bed.run("ALTER TABLE people ALTER other TYPE text").await;
    let SyncState::Broken(why) = bed.state().await else { panic!() };
    assert!(why.contains("other One(Integer) then, other One(Text) now"), "{why}");
    bed.postgres.end_capture(bed.fence(), &work("capture", Way::Back), &bed.of).await.unwrap();
    assert_eq!(names(&bed.postgres, &bed.of).await.last().unwrap(), "later");
}

#[tokio::test]
async fn a_mapping_is_held_against_its_table_once_for_each_of_its_versions() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let resolved = async || {
        let mut reader = bed.postgres.connections.read().await.unwrap();
        let resolved = bed.postgres.resolved(reader.conn().unwrap(), &bed.of).await.unwrap();
        reader.release().await;
        resolved
    };
    let first = resolved().await;
    bed.run("INSERT INTO people VALUES (77, 'x', 'y'); ANALYZE people").await;
    assert!(Arc::ptr_eq(&first, &resolved().await));
    bed.run("ALTER TABLE people ADD x int").await;
    assert!(!Arc::ptr_eq(&first, &resolved().await));
}

#[tokio::test]
async fn rows_come_with_whether_more_is_to_come_of_their_keys() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let keys = [key(1), key(2), key(77), vec![text("x")], key(3)];
    let settled = async || bed.postgres.rows_of(&bed.of, &keys).await.unwrap();
    assert_eq!(settled().await.is_open, [false; 5]);
    assert_eq!(settled().await.page.rows.len(), 3);
    bed.run("UPDATE people SET status = 'Won' WHERE id = 2; INSERT INTO people VALUES (77, 'n', 'N'); DELETE FROM people WHERE id = 77").await;
    assert_eq!(settled().await.is_open, [false, true, true, false, false]);
    // What is parked is not applied either.
    let changes = bed.claim().await;
    bed.postgres.change_refused(bed.fence(), changes[0].version, (None, "no"), 1).await.unwrap();
    assert_eq!(settled().await.is_open, [false, true, true, false, false]);
    bed.applied(&changes).await;
    assert_eq!(settled().await.is_open, [false; 5]);
    bed.run("TRUNCATE people; INSERT INTO people VALUES (3, 'n', 'N')").await;
    let emptied = settled().await;
    assert_eq!(emptied.is_open, [true, true, true, false, true]);
    assert_eq!(emptied.page.rows.len(), 1);
    assert!(bed.postgres.rows_of(&bed.of, &[]).await.unwrap().is_open.is_empty());
}

#[tokio::test]
async fn rows_are_taken_at_random_from_those_that_the_filter_lets_pass() {
    let setup = "CREATE TABLE t (id bigint PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 150000) AS n; ANALYZE t";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let mut of = crossing("t", &["id"], &[("v", "v")]);
    of.filter = Some("v % 2 = 0".into());
    let draw = async |wanted| postgres.some_rows(&of, wanted).await.unwrap().rows;
    let (one, other) = (draw(50).await, draw(50).await);
    assert_eq!((one.len(), other.len()), (50, 50));
    assert_ne!(one, other);
    assert!(one.iter().all(|row| matches!(row.values["v"], Datum::Integer(v) if v % 2 == 0)));
    database.run("DELETE FROM t WHERE id > 10").await;
    assert_eq!(draw(50).await.len(), 5);
    database.run("DELETE FROM t").await;
    assert_eq!(draw(50).await, []);
    assert_eq!(postgres.last_key(&of).await, Ok(None));
    assert_eq!(postgres.bounds(&of, &ALL, (10, 3)).await, Ok(vec![]));
    assert_eq!(
        (postgres.rows_counted(&of).await, postgres.page(&of, (&ALL, Rows::All)).await),
        (Ok(0), Ok(Page::default()))
    );
}

#[tokio::test]
async fn parked_changes_are_told_and_tried_again() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let parked = async |most| bed.postgres.parked_changes(&bed.of, most).await.unwrap();
    assert_eq!(parked(5).await.total, 0);
    bed.run("UPDATE people SET status = 'Won' WHERE id IN (1, 2); UPDATE people SET status = 'Lost' WHERE id = 3").await;
    for change in bed.claim().await.iter().take(2) {
        let said = (Some("Neo.X"), "why");
        assert!(bed.postgres.change_refused(bed.fence(), change.version, said, 1).await.unwrap());
    }
    let found = parked(1).await;
    let [ParkedRow { key, code, reason, since }] = found.rows.as_slice() else { panic!() };
    assert_eq!((found.total, key[0].0.as_str(), code.as_deref()), (2, "id", Some("Neo.X")));
    assert!(reason == "why" && since.ends_with('Z') && since.len() == 24, "{since}");
    assert_eq!(
        (parked(0).await.total, parked(0).await.rows.len(), parked(9).await.rows.len()),
        (2, 0, 2)
    );
    assert_eq!(bed.postgres.retry_changes(bed.fence(), &bed.of).await, Ok(2));
    assert_eq!((parked(9).await.total, bed.claim().await.len()), (0, 3));
    bed.run("DROP TABLE phasegate.outbox CASCADE").await;
    assert_eq!(parked(9).await.total, 0);
}

fn relay(run: &str, ends: &str) -> RunId {
    RunId::new(format!("{run}/relay/{ends}"))
}

/// Whether a fence still lets through.
async fn holds(postgres: &Postgres, fence: &Fence) -> Result<(), Error> {
    postgres.connections.begin(fence, TxKind::Relayed).await?.commit().await.map(|_| ())
}

#[tokio::test]
async fn a_relay_has_a_slot_of_its_own_as_long_as_its_run_is_there() {
    let Some(database) = Database::with(PEOPLE).await else { return };
    let (postgres, other) = (database.open().await, database.open().await);
    let app = relay("r1", &format!("app/{}", "graph".repeat(20)));
    assert_eq!(class(postgres.enter_relay(&app, 5).await), FailureClass::Stale);
    let run = entered(&postgres, 3).await.remove(0);
    let fence = postgres.enter_relay(&app, 5).await.unwrap();
    let beside = postgres.enter_relay(&relay("r1", "app/cache"), 1).await.unwrap();
    assert_eq!((fence.run(), fence.slot(), fence.token()), (&app, 0, 5));
    // Neither takes the other's slot, whatever its token is.
    let run = (entered(&other, 4).await.remove(0), run);
    holds(&postgres, &fence).await.unwrap();
    holds(&postgres, &beside).await.unwrap();
    assert!(matches!(holds(&postgres, &run.1).await, Err(Error::Fenced { ours: 3, newest: 4 })));
    // Who takes over ends what the other has under way, and nothing else.
    let late = postgres.connections.begin(&fence, TxKind::Claim).await.unwrap();
    let bystander = postgres.connections.begin(&beside, TxKind::Claim).await.unwrap();
    let newer = other.enter_relay(&app, 12).await.unwrap();
    assert!(late.commit().await.is_err());
    bystander.commit().await.unwrap();
    assert!(matches!(holds(&postgres, &fence).await, Err(Error::Fenced { ours: 5, newest: 12 })));
    assert!(matches!(
        postgres.enter_relay(&app, 11).await,
        Err(Error::Fenced { ours: 11, newest: 12 })
    ));
    holds(&other, &newer).await.unwrap();
    // A run that is called like the beginning of another's name leaves that one's relays alone.
    let slots = async || {
        database.number("SELECT count(*) FROM phasegate.slots WHERE run_id LIKE '%/relay/%'").await
    };
    let second = crate::driver::Claim {
        objects: vec!["x".into()],
        ..crate::driver::postgres::fixture::claim("r1x")
    };
    database.run("UPDATE phasegate.runs SET objects = '[\"people\"]'").await;
    other.enter(&second, 1).await.unwrap();
    other.enter_relay(&relay("r1x", "app/graph"), 1).await.unwrap();
    assert_eq!(slots().await, 3);
    other.leave(&run.0, Ending::Completed, &head(9)).await.unwrap();
    assert_eq!(slots().await, 1);
    assert_eq!(class(holds(&other, &newer).await), FailureClass::Stale);
    assert_eq!(class(other.enter_relay(&app, 13).await), FailureClass::Stale);
}

#[tokio::test]
async fn writes_of_replication_are_captured_like_all_others() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    bed.run("SET session_replication_role = replica; UPDATE people SET status = 'Won' WHERE id = 1; DELETE FROM people WHERE id = 2; \
             UPDATE people SET id = 30 WHERE id = 3").await;
    assert_eq!(bed.changes().await, 4);
    bed.run("SET session_replication_role = replica; TRUNCATE people").await;
    assert_eq!(bed.changes().await, 5);
    assert_eq!(bed.state().await, SyncState::Active);
}

#[tokio::test]
async fn a_throttle_is_told_what_waits_and_for_how_long() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let gauge = async |gauge| {
        let parts = bed.postgres.gauge(gauge, &[]).await.unwrap();
        parts.iter().map(|part| part.value.unwrap()).collect::<Vec<f64>>()
    };
    let (lag, rows) = (Gauge::RelayLag, Gauge::RelayRows);
    assert_eq!((gauge(lag).await, gauge(rows).await), (vec![0.0], vec![0.0]));
    bed.run("UPDATE people SET status = 'Won' WHERE id IN (1, 2)").await;
    bed.run("UPDATE phasegate.outbox SET written_at = written_at - interval '1 minute'").await;
    let behind = gauge(lag).await[0];
    assert!((60_000.0..90_000.0).contains(&behind), "{behind}");
    assert_eq!(gauge(rows).await, [2.0]);
    // What is parked waits for people.
    for change in bed.claim().await {
        bed.postgres.change_refused(bed.fence(), change.version, (None, "no"), 1).await.unwrap();
    }
    assert_eq!((gauge(lag).await, gauge(rows).await), (vec![0.0], vec![2.0]));
    bed.postgres.end_capture(bed.fence(), &work("capture", Way::Back), &bed.of).await.unwrap();
    assert_eq!((gauge(lag).await, gauge(rows).await), (vec![], vec![]));
}

#[tokio::test]
async fn a_capture_ends_while_changes_are_left_and_its_run_takes_them_along() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    bed.run("UPDATE people SET status = 'Won' WHERE id IN (1, 2)").await;
    let moment = bed.postgres.moment().await.unwrap();
    let stop = work("stop", Way::Forward);
    let ended = bed.postgres.end_capture(bed.fence(), &stop, &bed.of).await.unwrap();
    assert_eq!(ended.rows, 2);
    bed.run("UPDATE people SET status = 'After'").await;
    // They are applied as before, and are all that there is.
    assert_eq!(bed.postgres.is_drained(&moment, bed.mappings()).await, Ok(false));
    let changes = bed.claim().await;
    assert_eq!(changes.len(), 2);
    bed.applied(&changes[..1]).await;
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'outbox%'";
    assert!(bed.number(left).await > 0);
    bed.postgres.leave(bed.fence(), Ending::Completed, &head(9)).await.unwrap();
    assert_eq!(bed.number(left).await, 0);
    // Where there is no outbox, nothing waits.
    assert_eq!(bed.postgres.is_drained(&moment, bed.mappings()).await, Ok(true));
    assert_eq!(bed.postgres.lag(bed.mappings()).await.unwrap().rows, 0);
    assert_eq!(bed.postgres.moment().await.unwrap().version, 0);
    let fence = entered(&bed.postgres, 2).await.remove(0);
    assert_eq!(bed.postgres.claim(&fence, bed.mappings(), (9, &[])).await, Ok(vec![]));
}

/// A server that has lost its last commits draws some versions once more that the new side may have.
#[tokio::test]
async fn versions_go_on_above_those_that_a_server_has_lost() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let change = async |status: &str| {
        bed.run(&format!("UPDATE people SET status = '{status}' WHERE id = 1")).await;
        let changes = bed.claim().await;
        bed.applied(&changes).await;
        changes[0].version
    };
    bed.run("SELECT setval('phasegate.outbox_version', last_value - 5000000000) FROM phasegate.outbox_version").await;
    let before = change("before").await;
    let clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let lost = u64::try_from(bed.number(clock).await).unwrap();
    assert!(before < lost);
    bed.postgres.enter_relay(&relay("r1", "app/graph"), 1).await.unwrap();
    let behind = change("behind").await;
    assert!(behind > lost, "{behind}");
    assert_eq!(bed.state().await, SyncState::Active);
    // What is above the clock stays so.
    bed.run("SELECT setval('phasegate.outbox_version', last_value + 5000000000) FROM phasegate.outbox_version").await;
    let above = change("above").await;
    bed.postgres.enter_relay(&relay("r1", "app/graph"), 2).await.unwrap();
    assert_eq!(change("next").await, above + 1);
}

#[tokio::test]
async fn what_is_parked_of_others_is_not_waited_for() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    bed.run("UPDATE people SET status = 'Won' WHERE id IN (1, 2)").await;
    let moment = bed.postgres.moment().await.unwrap();
    let ways = async || {
        let drained = bed.postgres.is_drained(&moment, bed.mappings()).await.unwrap();
        (drained, bed.postgres.is_carried(&moment, bed.mappings()).await.unwrap())
    };
    assert_eq!(ways().await, (false, false));
    let changes = bed.claim().await;
    bed.applied(&changes[..1]).await;
    let (fence, version) = (bed.fence(), changes[1].version);
    assert_eq!(ways().await, (false, false));
    assert!(bed.postgres.change_refused(fence, version, (None, "no"), 1).await.unwrap());
    assert_eq!(ways().await, (false, true));
}

/// What comes along is what the images hold, though there is more in the table by then, and whatever it is.
#[tokio::test]
async fn changes_that_are_left_can_be_read_though_the_table_has_more_columns_by_now() {
    for later in ["jsonb DEFAULT '{}'", "text DEFAULT 'l'"] {
        let all = Mapping { copy: CopyColumns::All, ..people() };
        let Some(bed) = Bed::with(PEOPLE, all).await else { return };
        let before = names(&bed.postgres, &bed.of).await;
        bed.run(&format!("ALTER TABLE people ADD later {later}")).await;
        bed.run("UPDATE people SET status = 'Won' WHERE id IN (1, 2)").await;
        let stop = work("stop", Way::Forward);
        let ended = bed.postgres.end_capture(bed.fence(), &stop, &bed.of).await.unwrap();
        assert_eq!(ended.rows, 2, "{later}");
        for postgres in [&bed.postgres, &bed.database.open().await] {
            assert_eq!(names(postgres, &bed.of).await, before, "{later}");
        }
        let changes = bed.claim().await;
        let are_rows = changes.iter().all(|change| matches!(change.what, What::Is(_)));
        assert!(are_rows && changes.len() == 2, "{later}: {changes:?}");
        bed.applied(&changes).await;
        bed.postgres.leave(bed.fence(), Ending::Completed, &head(9)).await.unwrap();
        let ours = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'phasegate\\_%'";
        assert_eq!(bed.number(ours).await, 0);
    }
}

#[tokio::test]
async fn a_comparison_rests_on_the_table_and_on_what_captures_it() {
    // A table that is called as the label of the new side is none of the mapping's.
    let setup = format!(
        "{PEOPLE} CREATE TABLE \"Person\" (id int); CREATE TYPE mood AS ENUM ('fine', 'low'); CREATE DOMAIN state AS mood;
         ALTER TABLE people ADD moods state[]"
    );
    let Some(bed) = Bed::with(&setup, people()).await else { return };
    let basis = async || bed.postgres.capture_basis(&bed.of).await.unwrap();
    let trigger = format!("zzzz_phasegate_{}_o", super::fixture::ID);
    for (script, tables, sync) in [
        ("INSERT INTO people VALUES (50, 'x', 'y'); ANALYZE people", false, false),
        ("ALTER TABLE \"Person\" ADD y int; DROP TABLE \"Person\"", false, false),
        ("ALTER TABLE people ADD z int", true, false),
        ("CREATE INDEX ON people (email); ANALYZE people", false, false),
        ("CREATE TYPE other AS ENUM ('a'); ALTER TYPE other RENAME VALUE 'a' TO 'b'", false, false),
        ("ALTER TYPE mood RENAME VALUE 'fine' TO 'well'", false, true),
        ("ALTER TYPE mood RENAME VALUE 'well' TO 'fine'", false, true),
        ("ALTER TABLE people ALTER other TYPE int USING other * 2", true, true),
        (
            &format!(
                "ALTER TABLE people DISABLE TRIGGER {trigger}; ALTER TABLE people ENABLE ALWAYS TRIGGER {trigger}"
            ),
            true,
            true,
        ),
    ] {
        let before = basis().await;
        bed.run(script).await;
        let after = basis().await;
        assert_eq!(
            (before.tables != after.tables, before.sync != after.sync),
            (tables, sync),
            "{script}"
        );
    }
    let tables = ["people".to_owned(), "Per\"son".to_owned()];
    assert!(bed.postgres.fingerprint(&tables).await.is_ok());
    assert_eq!(bed.postgres.size("Per\"son").await.unwrap().rows, None);
}

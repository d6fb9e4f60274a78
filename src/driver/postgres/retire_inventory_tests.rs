//! What the catalogue ties to a table beside views, keys and functions: subscriptions, extensions, labels; and event triggers, which
//! are tied to nothing and may refuse everything.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{Database, mapping};
use super::retire_carry_tests::{catalogue, changed};
use super::retire_tests::{Live, failure, whole};
use crate::driver::{Losses, SyncState};
use crate::run::{Direction, FailureClass, Mapping, RetireShape, RetiredColumn};

const TABLES: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, email text);
    CREATE TABLE leads_v2 (id int PRIMARY KEY, email text);";

/// A label as a provider would store it. There is none among the server's own, so the row is written by hand.
fn labelled(column: u8) -> String {
    format!(
        "SET allow_system_table_mods = on; INSERT INTO pg_seclabel (objoid, classoid, objsubid, provider, label)
         VALUES ('public.leads'::regclass, 'pg_class'::regclass, {column}, 'a_provider', 'secret')"
    )
}

const UNLABELLED: &str = "SET allow_system_table_mods = on; DELETE FROM pg_seclabel";

fn leads() -> Mapping {
    mapping(("leads", &["id"]), ("leads_v2", &["id"]))
}

#[tokio::test]
async fn subscriptions_extensions_and_labels_are_named_and_nothing_is_changed() {
    let publisher =
        "CREATE TABLE leads (id int PRIMARY KEY); CREATE PUBLICATION leads_p FOR TABLE leads";
    let Some(publisher) = Database::with(publisher).await else { return };
    let subscribed = format!(
        "CREATE SUBSCRIPTION leads_s CONNECTION '{}' PUBLICATION leads_p
         WITH (create_slot = false, slot_name = NONE, enabled = false, copy_data = false)",
        publisher.url
    );
    let (table, column) = (labelled(0), labelled(2));
    for direction in [Direction::Forward, Direction::Both] {
        let Some(live) = Live::of(TABLES, leads(), direction).await else { return };
        let before = catalogue(&live.database).await;
        for (make, named, remove) in [
            (subscribed.as_str(), "a subscription writes to it", "DROP SUBSCRIPTION leads_s"),
            (
                "CREATE EXTENSION btree_gist; ALTER EXTENSION btree_gist ADD TABLE leads",
                "extension btree_gist",
                "ALTER EXTENSION btree_gist DROP TABLE leads; DROP EXTENSION btree_gist",
            ),
            (&table, "a security label of a_provider: secret", UNLABELLED),
            (&column, "a security label of a_provider: secret", UNLABELLED),
        ] {
            live.database.run(make).await;
            let (class, message) = failure(live.retire(&whole(true)).await);
            assert!(class == FailureClass::Refused && message.contains(named), "{make}: {message}");
            assert_eq!(live.sync().await, SyncState::Active);
            live.database.run(remove).await;
        }
        assert_eq!(changed(&before, &catalogue(&live.database).await), [""; 0]);
        live.retire(&whole(true)).await.unwrap();
        // What has come since is in the way of the drop.
        live.database.run(&table.replace("public.leads", "leads_old")).await;
        let (class, message) = failure(live.drop(&whole(true)).await);
        assert!(
            class == FailureClass::Refused && message.contains("a security label"),
            "{message}"
        );
        live.database.run(UNLABELLED).await;
        live.drop(&whole(true)).await.unwrap();
        live.database.gone().await;
    }
    publisher.gone().await;
}

#[tokio::test]
async fn in_place_a_label_counts_where_it_is_on_the_column_that_goes() {
    let setup = "CREATE TABLE leads (id int PRIMARY KEY, email text, email_v2 text)";
    let in_place = Mapping {
        columns: vec![("email_v2".into(), "lower(email)".into())],
        reverse: vec![("email".into(), "email_v2".into())],
        ..mapping(("leads", &["id"]), ("leads", &["id"]))
    };
    let shape = RetireShape::Columns(vec![RetiredColumn {
        column: "email".into(),
        old_name: "email_old".into(),
        take_name: Some("email_v2".into()),
    }]);
    let Some(live) = Live::of(setup, in_place, Direction::Both).await else { return };
    live.database.run(&labelled(2)).await;
    let (class, message) = failure(live.retire(&shape).await);
    assert!(class == FailureClass::Refused && message.contains("a security label"), "{message}");
    live.database.run(UNLABELLED).await;
    live.database.run(&format!("{}; {}", labelled(0), labelled(1))).await;
    live.retire(&shape).await.unwrap();
    live.unretire(&shape, Losses::Refused).await.unwrap();
}

/// They see every statement of ours, and what they refuse is refused whole.
#[tokio::test]
async fn an_event_trigger_that_refuses_leaves_everything_as_it_was() {
    let setup = format!(
        "{TABLES} CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not today''; END';
         CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.noted VALUES (tg_tag); END';
         CREATE TABLE noted (tag text); CREATE EVENT TRIGGER noting ON ddl_command_end EXECUTE FUNCTION note();"
    );
    for direction in [Direction::Forward, Direction::Both] {
        let Some(live) = Live::of(&setup, leads(), direction).await else { return };
        let database = &live.database;
        database.run("INSERT INTO leads VALUES (1, 'e')").await;
        for event in ["ddl_command_start", "ddl_command_end", "sql_drop"] {
            database
                .run(&format!("CREATE EVENT TRIGGER refusing ON {event} EXECUTE FUNCTION refuse()"))
                .await;
            let before = catalogue(database).await;
            let (class, message) = failure(live.retire(&whole(true)).await);
            assert!(
                class == FailureClass::Refused && message.contains("not today"),
                "{event}: {message}"
            );
            assert_eq!(changed(&before, &catalogue(database).await), [""; 0], "{event}");
            assert_eq!(live.sync().await, SyncState::Active, "{event}");
            database.run("DROP EVENT TRIGGER refusing").await;
        }
        // One that names the table in its text is in the way like any other function.
        database.run("CREATE FUNCTION names() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1 FROM leads; END';
            CREATE EVENT TRIGGER naming ON ddl_command_end EXECUTE FUNCTION names()").await;
        let (class, message) = failure(live.retire(&whole(true)).await);
        assert!(
            class == FailureClass::Refused && message.contains("function names()"),
            "{message}"
        );
        database.run("DROP EVENT TRIGGER naming; DROP FUNCTION names").await;
        live.retire(&whole(true)).await.unwrap();
        database.run("CREATE EVENT TRIGGER refusing ON sql_drop EXECUTE FUNCTION refuse()").await;
        let before = catalogue(database).await;
        for result in
            [live.drop(&whole(true)).await, live.unretire(&whole(true), Losses::Refused).await]
        {
            let (class, message) = failure(result);
            assert!(class == FailureClass::Refused && message.contains("not today"), "{message}");
            assert_eq!(changed(&before, &catalogue(database).await), [""; 0]);
        }
        database.run("DROP EVENT TRIGGER refusing").await;
        live.unretire(&whole(true), Losses::Refused).await.unwrap();
        assert_eq!(live.sync().await, SyncState::Active);
        live.ledger_forgets("retire").await;
        live.retire(&whole(true)).await.unwrap();
        live.drop(&whole(true)).await.unwrap();
        assert_eq!(live.ours_left().await, 0);
        let noted = "SELECT count(*) FROM noted WHERE tag = 'DROP TABLE'";
        assert!(database.number(noted).await > 0);
    }
}

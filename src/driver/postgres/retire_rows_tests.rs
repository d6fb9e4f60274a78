//! A table is a type, too, and its columns have places: what is tied to either, when another table takes its place.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::mapping;
use super::retire_tests::{Live, failure, whole};
use crate::driver::Losses;
use crate::run::{Direction, FailureClass, Mapping, RetireShape, RetiredColumn};

/// The new table has the old one's columns in their order, and one more.
const ALIKE: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, email text, status text);
    CREATE TABLE leads_v2 (id int PRIMARY KEY, email text, status text, code text);
    CREATE TABLE accounts (id int PRIMARY KEY); INSERT INTO accounts VALUES (1);
    CREATE TABLE of_mail (email text, lead_id int);";

/// The same columns stand elsewhere.
const ELSEWHERE: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, email text, status text);
    CREATE TABLE leads_v2 (id int PRIMARY KEY, status text, email text, code text);
    CREATE TABLE accounts (id int PRIMARY KEY);";

fn leads() -> Mapping {
    Mapping {
        columns: vec![("code".into(), "lower(status)".into())],
        reverse: vec![("status".into(), "coalesce(code, status)".into())],
        ..mapping(("leads", &["id"]), ("leads_v2", &["id"]))
    }
}

#[tokio::test]
async fn what_uses_rows_of_the_old_table_alone_uses_rows_of_the_new_one() {
    let views = "
        CREATE VIEW casting AS SELECT to_json(json_populate_record(NULL::leads, '{\"email\": \"x\"}')) AS j;
        CREATE VIEW of_arrays AS SELECT cardinality(ARRAY[json_populate_record(NULL::leads, '{}')]) AS n;
        CREATE VIEW placed AS SELECT b AS email FROM leads l(a, b);
        CREATE VIEW from_json AS SELECT r.email FROM json_populate_record(NULL::leads, '{\"email\": \"y\"}') r;
        CREATE POLICY by_row ON accounts USING (to_json(json_populate_record(NULL::leads, '{}')) IS NOT NULL);
        GRANT SELECT ON casting TO PUBLIC;";
    for direction in [Direction::Forward, Direction::Both] {
        let Some(live) = Live::of(&format!("{ALIKE}{views}"), leads(), direction).await else {
            return;
        };
        let database = &live.database;
        database.run("INSERT INTO leads VALUES (1, 'e', 'Hot')").await;
        let detail = live.retire(&whole(true)).await.unwrap().detail.unwrap();
        assert!(
            detail.contains("view casting, from_json, of_arrays, placed made again"),
            "{detail}"
        );
        assert!(detail.contains("policy by_row on accounts made again"), "{detail}");
        // Its row has the new table's columns now.
        assert_eq!(database.text("SELECT j::jsonb ? 'code' FROM casting").await, "true");
        assert_eq!(database.text("SELECT email FROM placed").await, "e");
        assert_eq!(database.text("SELECT email FROM from_json").await, "y");
        live.unretire(&whole(true), Losses::Refused).await.unwrap();
        assert_eq!(database.text("SELECT j::jsonb ? 'code' FROM casting").await, "false");
        live.ledger_forgets("retire").await;
        live.retire(&whole(true)).await.unwrap();
        live.drop(&whole(true)).await.unwrap();
        assert_eq!(database.text("SELECT j::jsonb ? 'code' FROM casting").await, "true");
        database.gone().await;
    }
}

/// Everything else that is tied to the row type is named with the reason.
#[tokio::test]
async fn what_holds_rows_of_the_old_table_is_refused_by_name() {
    let Some(live) = Live::of(ALIKE, leads(), Direction::Forward).await else { return };
    for (make, named, remove) in [
        (
            "CREATE TABLE holds (ls leads[])",
            "column ls of table holds: uses its row type",
            "DROP TABLE holds",
        ),
        (
            "CREATE TYPE pair AS (one leads)",
            "column one of composite type pair: uses its row type",
            "DROP TYPE pair",
        ),
        (
            "CREATE FUNCTION public.gives() RETURNS SETOF leads LANGUAGE sql AS 'SELECT * FROM leads'",
            "function gives(): uses its row type",
            "DROP FUNCTION gives",
        ),
        (
            "CREATE FUNCTION public.takes(leads[]) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "function takes(leads[]): uses its row type",
            "DROP FUNCTION takes",
        ),
        (
            "CREATE FUNCTION public.to_int(leads) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE CAST (leads AS int) WITH FUNCTION public.to_int",
            "cast from leads to integer: uses its row type",
            "DROP CAST (leads AS int); DROP FUNCTION to_int",
        ),
        (
            "ALTER TABLE of_mail ADD CHECK (to_json(json_populate_record(NULL::leads, '{}')) IS NOT NULL)",
            "constraint of_mail_check on table of_mail: CHECK",
            "ALTER TABLE of_mail DROP CONSTRAINT of_mail_check",
        ),
        (
            "ALTER TABLE of_mail ALTER email SET DEFAULT to_json(json_populate_record(NULL::leads, '{}'))",
            "default value for column email of table of_mail: uses its row type",
            "ALTER TABLE of_mail ALTER email DROP DEFAULT",
        ),
        (
            "CREATE VIEW of_rows AS SELECT l FROM leads l",
            "column l of view of_rows: uses its row type",
            "DROP VIEW of_rows",
        ),
        (
            "CREATE VIEW short AS SELECT to_json(ROW(1, 'e', 's')::leads) AS j",
            "could not carry over a view (short): cannot cast type record to public.leads",
            "DROP VIEW short",
        ),
    ] {
        live.database.run(make).await;
        let (class, message) = failure(live.retire(&whole(true)).await);
        assert!(class == FailureClass::Refused && message.contains(named), "{make}: {message}");
        live.database.run(remove).await;
    }
    live.retire(&whole(true)).await.unwrap();
}

/// The server would not notice: both are text.
#[tokio::test]
async fn a_text_that_tells_columns_by_their_places_is_refused_where_they_stand_elsewhere() {
    let Some(live) = Live::of(ELSEWHERE, leads(), Direction::Both).await else { return };
    live.database.run("INSERT INTO leads VALUES (1, 'e', 'Hot')").await;
    for (make, named, remove) in [
        (
            "CREATE VIEW placed AS SELECT b AS email FROM leads l(a, b)",
            "view placed tells columns of leads by their places",
            "DROP VIEW placed",
        ),
        (
            "CREATE VIEW placed AS SELECT \"b (\" AS email FROM accounts JOIN leads AS \"l (\"(a, \"b (\") ON accounts.id = a",
            "view placed tells columns of leads by their places, and those of leads_v2 stand in another order",
            "DROP VIEW placed",
        ),
        (
            "CREATE VIEW from_json AS SELECT r.email FROM json_populate_record(NULL::leads, '{\"email\": \"y\"}') r",
            "view from_json tells columns",
            "DROP VIEW from_json",
        ),
        (
            "CREATE POLICY placed ON accounts USING (EXISTS (SELECT FROM leads l(a, b) WHERE b = 'e'))",
            "policy placed on accounts tells columns",
            "DROP POLICY placed ON accounts",
        ),
    ] {
        live.database.run(make).await;
        let (class, message) = failure(live.retire(&whole(true)).await);
        assert!(class == FailureClass::Refused && message.contains(named), "{make}: {message}");
        live.database.run(remove).await;
    }
    // By their names they are found wherever they stand.
    live.database
        .run("CREATE VIEW named AS SELECT l.email FROM leads l WHERE l.status <> ''")
        .await;
    live.retire(&whole(true)).await.unwrap();
    assert_eq!(live.database.text("SELECT email FROM named").await, "e");
}

#[tokio::test]
async fn columns_that_change_names_are_not_changed_behind_what_tells_them_otherwise() {
    let setup = "CREATE TABLE users (id int PRIMARY KEY, email text UNIQUE, email_v2 text UNIQUE, boss text);
        INSERT INTO users VALUES (1, 'A', 'a', NULL)";
    let in_place = Mapping {
        columns: vec![("email_v2".into(), "lower(email)".into())],
        reverse: vec![("email".into(), "upper(email_v2)".into())],
        ..mapping(("users", &["id"]), ("users", &["id"]))
    };
    let shape = RetireShape::Columns(vec![RetiredColumn {
        column: "email".into(),
        old_name: "email_old".into(),
        take_name: Some("email_v2".into()),
    }]);
    let Some(live) = Live::of(setup, in_place, Direction::Both).await else { return };
    for (make, named, remove) in [
        (
            "CREATE TABLE holds (u users)",
            "column u of table holds: uses its row type",
            "DROP TABLE holds",
        ),
        (
            "CREATE VIEW placed AS SELECT b FROM users u(a, b)",
            "view placed gives the columns of users names of its own, by their places, which stay",
            "DROP VIEW placed",
        ),
        (
            "CREATE VIEW from_json AS SELECT r.email FROM json_populate_record(NULL::users, '{}') r",
            "these would go on using email_old of users, though made again from their own text",
            "DROP VIEW from_json",
        ),
        (
            "ALTER TABLE users ADD FOREIGN KEY (boss) REFERENCES users (email)",
            "constraint users_boss_fkey on table users: FOREIGN KEY (boss) REFERENCES users(email)",
            "ALTER TABLE users DROP CONSTRAINT users_boss_fkey",
        ),
    ] {
        live.database.run(make).await;
        let (class, message) = failure(live.retire(&shape).await);
        assert!(class == FailureClass::Refused && message.contains(named), "{make}: {message}");
        live.database.run(remove).await;
    }
    // A view of rows reads their fields by name.
    live.database
        .run("CREATE VIEW rows AS SELECT u FROM users u; CREATE VIEW mails AS SELECT (r.u).email FROM rows r")
        .await;
    live.retire(&shape).await.unwrap();
    assert_eq!(live.database.text("SELECT email FROM mails").await, "a");
    live.unretire(&shape, Losses::Refused).await.unwrap();
    assert_eq!(live.database.text("SELECT email FROM mails").await, "A");
}

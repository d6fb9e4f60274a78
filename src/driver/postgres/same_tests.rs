//! Every kind of type: what storing a value gives is the same as the value, and what storing refuses is the same as nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{self, Column};
use super::fixture::Database;
use super::same::{held, same, stored};
use super::sync_tests::{Bed, leads, say};
use crate::run::Direction;

const TYPES: &str = "
    CREATE SCHEMA other;
    CREATE DOMAIN other.short AS varchar(3);
    CREATE DOMAIN other.shorter AS other.short CHECK (VALUE <> 'no');
    CREATE DOMAIN other.money AS numeric(6,2);
    CREATE DOMAIN other.flags AS bit(3);
    CREATE TYPE other.mood AS ENUM ('sad', 'glad');
    CREATE TYPE other.pair AS (a int, b text);
    CREATE COLLATION other.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";

/// A column's type, and values of which some differ from each other, some only in their images, and some can't be stored, as
/// they are too long. (What is too large is an error wherever it is compared.)
const CASES: &[(&str, &[&str])] = &[
    (
        "varchar(3)",
        &[
            "'abc'::text",
            "'abcd'::text",
            "'abc   '::text",
            "'ab '::text",
            "'ab'::text",
            "NULL::text",
        ],
    ),
    ("char(3)", &["'abc'::text", "'abcd'::text", "'a'::text", "'a  '::text", "'abc  '::text"]),
    ("other.short", &["'abc'::text", "'abcd'::text", "'abc  '::text", "'ab'::text"]),
    ("other.shorter", &["'abc'::text", "'abcd'::text", "'ab'::varchar(5)"]),
    (
        "varchar(3)[]",
        &[
            "ARRAY['abc']::text[]",
            "ARRAY['abcd']::text[]",
            "ARRAY['abc  ', 'x']::text[]",
            "ARRAY['abc', 'x']::text[]",
        ],
    ),
    ("char(3)[]", &["ARRAY['a']::text[]", "ARRAY['abcd']::text[]", "ARRAY['a  ']::text[]"]),
    ("bit(3)", &["B'101'", "B'10'", "B'1011'", "B'100'"]),
    ("bit varying(3)", &["B'101'::varbit", "B'1011'::varbit", "B'10'::varbit"]),
    ("bit(3)[]", &["ARRAY[B'101']::bit(3)[]", "ARRAY[B'1010']::bit(4)[]"]),
    ("other.flags", &["B'101'", "B'10'", "B'1011'"]),
    ("numeric(10,2)", &["1.005", "1.01", "1.0", "1"]),
    ("numeric", &["1.0", "1.00", "1", "'NaN'::numeric"]),
    ("other.money", &["1.005", "1.01"]),
    (
        "float8",
        &[
            "0::float8",
            "'-0'::float8",
            "'NaN'::float8",
            "0.1::float8",
            "0.1::numeric",
            "NULL::float8",
        ],
    ),
    ("real", &["0.1::float8", "0.1::real"]),
    ("integer", &["1.5", "2"]),
    (
        "timestamptz(0)",
        &["'2024-01-01 10:00:00.6+00'::timestamptz", "'2024-01-01 10:00:01+00'::timestamptz"],
    ),
    (
        "timestamp(3)",
        &["'2024-01-01 10:00:00.0004'::timestamp", "'2024-01-01 10:00:00'::timestamp"],
    ),
    ("interval", &["'1 day'::interval", "'24 hours'::interval"]),
    ("interval(0)", &["'1.6 seconds'::interval", "'2 seconds'::interval"]),
    ("jsonb", &["'{\"a\": 1.0}'::jsonb", "'{\"a\":1.00}'::jsonb", "'{\"a\":1.0}'::jsonb"]),
    ("json", &["'{\"a\": 1}'::json", "'{\"a\":1}'::json"]),
    ("xml", &["'<a/>'::xml", "'<b/>'::xml"]),
    ("point", &["point(1,2)", "point(1,3)"]),
    (
        "uuid",
        &[
            "'00000000-0000-0000-0000-000000000001'::uuid",
            "'00000000-0000-0000-0000-000000000002'::uuid",
        ],
    ),
    ("bytea", &["'\\x00'::bytea", "''::bytea"]),
    ("\"char\"", &["'a'::text", "'ab'::text"]),
    ("name", &["'a'::text", "repeat('x', 70)"]),
    ("other.mood", &["'sad'::other.mood", "'glad'::other.mood"]),
    ("other.mood[]", &["ARRAY['sad']::other.mood[]", "ARRAY['glad', 'sad']::other.mood[]"]),
    ("other.pair", &["ROW(1, 'a')::other.pair", "ROW(1, 'b')::other.pair"]),
    ("int4range", &["'[1,3)'::int4range", "'[1,2]'::int4range", "'empty'::int4range"]),
    ("text COLLATE other.loose", &["'a'::text", "'A'::text"]),
];

async fn column(client: &mut PgConnection) -> Column {
    catalogue::table(client, "public.t").await.unwrap().unwrap().columns.remove(0)
}

async fn holds(client: &mut PgConnection, condition: &str) -> bool {
    let sql = format!("SELECT {condition} FROM t");
    let row = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_one(client).await;
    row.unwrap_or_else(|error| panic!("{sql}: {error}")).get_unchecked::<String, _>(0) == "t"
}

#[tokio::test]
async fn a_value_is_the_same_as_what_storing_it_gives_and_as_nothing_else() {
    let Some(database) = Database::with(TYPES).await else { return };
    let mut client = database.client().await;
    let mut refused = 0;
    for (declared, values) in CASES {
        say(&mut client, &format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {declared})"))
            .await
            .unwrap();
        let column = column(&mut client).await;
        for there in *values {
            let store = |value: &str| format!("DELETE FROM t; INSERT INTO t SELECT {value}");
            if say(&mut client, &store(there)).await.is_err() {
                refused += 1;
                continue;
            }
            for value in *values {
                let is_same =
                    holds(&mut client, &same(&[held(&column, "v")], &[stored(&column, value)]))
                        .await;
                say(&mut client, "DROP TABLE IF EXISTS u; CREATE TABLE u (LIKE t)").await.unwrap();
                let gives = say(&mut client, &format!("INSERT INTO u SELECT {value}")).await;
                let images = "record_image_eq(ROW(v), (SELECT ROW(u.v) FROM u))";
                let expected = gives.is_ok() && holds(&mut client, images).await;
                assert_eq!(
                    is_same, expected,
                    "{declared}: {there} is stored, and the value is {value}"
                );
            }
        }
    }
    assert!(refused >= 10, "{refused}");
    database.gone().await;
}

/// A cast to the domain would cut it, and the comparison would cut it likewise.
#[tokio::test]
async fn what_is_too_long_for_a_domain_is_refused_and_not_cut() {
    let setup = format!(
        "{TYPES} CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
         CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code other.short);
         INSERT INTO leads VALUES (1, 'e1', 'Won')"
    );
    let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
    let mut client = bed.client().await;
    say(&mut client, "UPDATE leads SET status = 'Hot'").await.unwrap();
    assert_eq!(bed.text("SELECT status_code FROM leads_v2").await, "hot");
    for sql in
        ["UPDATE leads SET status = 'Hotter'", "INSERT INTO leads VALUES (2, 'e2', 'Colder')"]
    {
        assert!(say(&mut client, sql).await.is_err(), "{sql}");
    }
    assert_eq!(bed.text("SELECT string_agg(status_code, ' ') FROM leads_v2").await, "hot");
    bed.database.gone().await;
}

/// A cast to a shorter type gives what is stored already; but storing the value would be refused.
#[tokio::test]
async fn what_a_cast_would_make_right_is_not_passed_by() {
    let setup = "CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
         CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code varchar(3));
         INSERT INTO leads VALUES (1, 'e1', 'Won')";
    let Some(bed) = Bed::with(setup, leads(), Direction::Forward).await else { return };
    let mut client = bed.client().await;
    say(&mut client, "UPDATE leads SET status = 'Hot'").await.unwrap();
    assert!(say(&mut client, "UPDATE leads SET status = 'Hotter'").await.is_err());
    assert_eq!(bed.text("SELECT status FROM leads").await, "Hot");
    bed.database.gone().await;
}

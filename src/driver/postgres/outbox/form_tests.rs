//! Values that the server writes and we read, type by type.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{crossing, found};
use crate::copy::chunk::Chunk;
use crate::copy::row::Datum;
use crate::driver::Severity;
use crate::driver::crossing::{ChangeSource as _, Page, Rows};
use crate::driver::postgres::fixture::{Database, class};
use crate::run::FailureClass;

const ALL: Chunk = Chunk { lo: None, hi: None };

fn text(text: &str) -> Datum {
    Datum::Text(text.to_owned())
}

/// Types, an expression of each, and what it is elsewhere.
fn values() -> Vec<(&'static str, &'static str, Datum)> {
    let duration = |months, days, seconds, nanos| Datum::Duration { months, days, seconds, nanos };
    let real = Datum::Real;
    vec![
        ("smallint", "-32768", Datum::Integer(-32_768)),
        ("integer", "2147483647", Datum::Integer(2_147_483_647)),
        ("bigint", "-9223372036854775808", Datum::Integer(i64::MIN)),
        ("real", "1.1", real(f64::from(1.1_f32))),
        ("real", "3.4028235e38", real(f64::from(f32::MAX))),
        ("real", "1e-45", real(f64::from(f32::from_bits(1)))),
        ("double precision", "0.1", real(0.1)),
        ("double precision", "1.7976931348623157e308", real(f64::MAX)),
        ("double precision", "5e-324", real(f64::from_bits(1))),
        ("double precision", "'NaN'", real(f64::NAN)),
        ("double precision", "'-Infinity'", real(f64::NEG_INFINITY)),
        ("boolean", "true", Datum::Boolean(true)),
        ("boolean", "false", Datum::Boolean(false)),
        ("text", "E'a\\nb\\\\c\"{},NULL\u{1f600}'", text("a\nb\\c\"{},NULL\u{1f600}")),
        ("text", "''", text("")),
        ("varchar(20)", "' x '", text(" x ")),
        ("char(5)", "'ab'", text("ab")),
        ("name", "'n'", text("n")),
        ("mood", "'odd, one'", text("odd, one")),
        ("short", "'s'", text("s")),
        (
            "uuid",
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        ("bytea", "'\\x00ff5c'", Datum::Bytes(vec![0, 255, 92])),
        ("bytea", "''", Datum::Bytes(vec![])),
        ("date", "'2024-02-29'", Datum::Date(19_782)),
        ("date", "'0044-03-15 BC'", Datum::Date(-735_160)),
        ("date", "'4714-11-24 BC'", Datum::Date(-2_440_588)),
        ("date", "'5874897-12-31'", Datum::Date(2_145_042_905)),
        ("time", "'23:59:59.999999'", Datum::LocalTime(86_399_999_999_000)),
        (
            "timetz",
            "'01:02:03.5-05:30:15'",
            Datum::Time { nanos: 3_723_500_000_000, offset: -19_815 },
        ),
        (
            "timestamp",
            "'1969-12-31 23:59:59.25'",
            Datum::LocalDateTime { seconds: -1, nanos: 250_000_000 },
        ),
        ("timestamp", "'0001-12-31 23:59:59.5 BC'", {
            Datum::LocalDateTime { seconds: -62_135_596_801, nanos: 500_000_000 }
        }),
        ("timestamp", "'294276-12-31 23:59:59.999999'", {
            Datum::LocalDateTime { seconds: 9_224_318_015_999, nanos: 999_999_000 }
        }),
        (
            "timestamptz",
            "'2024-03-31 03:00:00.12+02'",
            Datum::DateTime { seconds: 1_711_846_800, nanos: 120_000_000 },
        ),
        (
            "timestamptz",
            "'1880-01-01 00:00:00+00:19:32'",
            Datum::DateTime { seconds: -2_840_141_972, nanos: 0 },
        ),
        ("interval", "'P1Y2M3DT-4H5M6.7S'", duration(14, 3, -14_094, 700_000_000)),
        ("interval", "'-1 year 2 mons -3 days -00:00:00.5'", duration(-10, -3, -1, 500_000_000)),
        ("interval", "'0'", duration(0, 0, 0, 0)),
        ("interval", "'1000000 hours 0.000001 s'", duration(0, 0, 3_600_000_000, 1_000)),
        ("integer[]", "'{1,-2}'", Datum::List(vec![Datum::Integer(1), Datum::Integer(-2)])),
        ("integer[]", "'{}'", Datum::List(vec![])),
        ("integer[]", "'[5:6]={1,2}'", Datum::List(vec![Datum::Integer(1), Datum::Integer(2)])),
        ("boolean[]", "'{t,f}'", Datum::List(vec![Datum::Boolean(true), Datum::Boolean(false)])),
        ("text[]", r#"ARRAY['a,b', 'c"d', E'e\\f', '{g}', 'NULL', 'null', '', ' h ']"#, {
            Datum::List(
                ["a,b", "c\"d", "e\\f", "{g}", "NULL", "null", "", " h "].map(text).to_vec(),
            )
        }),
        ("char(3)[]", "ARRAY['a', 'b']", Datum::List(vec![text("a"), text("b")])),
        ("mood[]", "'{\"odd, one\",even}'", Datum::List(vec![text("odd, one"), text("even")])),
        ("short[]", "ARRAY['x']", Datum::List(vec![text("x")])),
        ("bytea[]", "ARRAY['\\x5c00'::bytea]", Datum::List(vec![Datum::Bytes(vec![92, 0])])),
        ("timestamptz[]", "ARRAY['1970-01-01 00:00:01+00'::timestamptz]", {
            Datum::List(vec![Datum::DateTime { seconds: 1, nanos: 0 }])
        }),
        ("interval[]", "ARRAY['1 mon'::interval]", Datum::List(vec![duration(1, 0, 0, 0)])),
        ("real[]", "'{1.1}'", Datum::List(vec![real(f64::from(1.1_f32))])),
    ]
}

const TYPES: &str =
    "CREATE TYPE mood AS ENUM ('odd, one', 'even'); CREATE DOMAIN short AS varchar(3);
    CREATE DOMAIN shorter AS short;";

#[tokio::test]
async fn every_type_with_a_form_comes_as_it_is() {
    let Some(database) = Database::with(TYPES).await else { return };
    let postgres = database.open().await;
    let values = values();
    let columns: Vec<String> =
        values.iter().enumerate().map(|(at, (kind, _, _))| format!("c{at} {kind}")).collect();
    let written: Vec<String> =
        values.iter().map(|(kind, value, _)| format!("({value})::{kind}")).collect();
    database
        .run(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, {}); INSERT INTO t VALUES (1, {}); INSERT INTO t VALUES (2)",
            columns.join(", "),
            written.join(", ")
        ))
        .await;
    let names: Vec<String> = (0..values.len()).map(|at| format!("c{at}")).collect();
    let pairs: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let of = crossing("t", &["id"], &pairs);
    let mut page = postgres.page(&of, (&ALL, Rows::All)).await.unwrap();
    assert_eq!(page.unfit, []);
    page.rows.sort();
    for (at, (kind, value, expected)) in values.iter().enumerate() {
        let found = page.rows[0].values.get(&names[at]);
        assert_eq!(found, Some(expected), "{kind} {value}");
        // The server agrees where it has a way of its own to say so.
        if let Datum::Real(expected) = expected
            && !expected.is_nan()
        {
            let same =
                format!("SELECT (c{at}::double precision = {expected:e})::int FROM t WHERE id = 1")
                    .replace("inf", "'Infinity'::float8");
            assert_eq!(database.number(&same).await, 1, "{kind} {value}");
        }
    }
    // NULL is no value.
    assert_eq!((page.rows[1].key.clone(), page.rows[1].values.len()), (vec![Datum::Integer(2)], 0));
}

#[tokio::test]
async fn moments_are_those_that_the_server_counts() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, d date, m timestamptz, s timestamp);
        INSERT INTO t SELECT n, date '4713-01-01 BC' + n * 1237, timestamptz '4713-01-01 00:00:00+00 BC' + n * interval '29687 hours 13.000017 s',
        timestamp '4000-01-01 BC' + n * interval '29687 hours 13.000017 s' FROM generate_series(0, 4000) AS n";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let columns = [
        ("d", "d"),
        ("days", "(d - date '1970-01-01')::bigint"),
        ("m", "m"),
        ("us", "(extract(epoch FROM m) * 1000000)::bigint"),
        ("s", "s"),
        ("sus", "(extract(epoch FROM s) * 1000000)::bigint"),
    ];
    let of = crossing("t", &["id"], &columns);
    let page = postgres.page(&of, (&ALL, Rows::All)).await.unwrap();
    assert_eq!(page.rows.len(), 4_001);
    let micros =
        |seconds: i64, nanos: u32| Datum::Integer(seconds * 1_000_000 + i64::from(nanos / 1_000));
    for row in page.rows {
        let value = |name: &str| row.values.get(name).unwrap().clone();
        let Datum::Date(days) = value("d") else { panic!() };
        assert_eq!(Datum::Integer(days), value("days"), "{row:?}");
        let Datum::DateTime { seconds, nanos } = value("m") else { panic!() };
        assert_eq!(micros(seconds, nanos), value("us"), "{row:?}");
        let Datum::LocalDateTime { seconds, nanos } = value("s") else { panic!() };
        assert_eq!(micros(seconds, nanos), value("sus"), "{row:?}");
    }
}

#[tokio::test]
async fn a_value_that_no_form_holds_is_told_with_its_key_and_without_itself() {
    let setup = "CREATE TABLE t (a int, b text, d date, m timestamptz, l text[], z time, n int[], PRIMARY KEY (a, b));
        INSERT INTO t (a, b, d) VALUES (1, 'x', 'infinity'), (7, 'x', '2024-01-01'); INSERT INTO t (a, b, m) VALUES (2, 'x', '-infinity');
        INSERT INTO t (a, b, l) VALUES (3, 'x', '{secret,NULL}'), (4, 'x', '{{a},{b}}'); INSERT INTO t (a, b, z) VALUES (5, 'x', '24:00');
        INSERT INTO t (a, b, n) VALUES (6, 'x', '{1,NULL}')";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let columns = [("d", "d"), ("m", "m"), ("start.l", "l"), ("z", "z"), ("n", "n")];
    let of = crossing("t", &["a", "b"], &columns);
    let Page { rows, mut unfit } = postgres.page(&of, (&ALL, Rows::All)).await.unwrap();
    assert_eq!(rows.len(), 1);
    unfit.sort_by(|one, other| one.key.cmp(&other.key));
    let told: Vec<(&str, &str)> =
        unfit.iter().map(|one| (one.key[0].as_str(), one.reason.as_str())).collect();
    assert_eq!(
        told,
        [
            ("1", "d is infinite, which no other database has"),
            ("2", "m is infinite, which no other database has"),
            ("3", "start.l is a list with a NULL in it, which a graph can't hold"),
            ("4", "start.l is a list of lists, which a graph can't hold"),
            ("5", "z is 24:00:00, which no other database has"),
            ("6", "n is a list with a NULL in it, which a graph can't hold"),
        ]
    );
    assert!(unfit.iter().all(|one| one.key[1] == "x"));
}

#[tokio::test]
async fn a_type_without_a_form_is_found_before_anything_is_done() {
    let setup = format!(
        "{TYPES} CREATE TYPE pair AS (x int, y int); CREATE DOMAIN cents AS numeric(10, 2);
         CREATE TABLE t (id bigint PRIMARY KEY, price numeric, cents cents, doc jsonb, old json, cash money, page xml, span int4range,
            spans int4multirange, pair pair, prices numeric[], addr inet, bits bit(3), oids oidvector, flag \"char\")"
    );
    let Some(database) = Database::with(&setup).await else { return };
    let postgres = database.open().await;
    for (expression, help) in [
        (
            "price",
            "write price::text to keep it exactly, or (price * 100)::bigint to count in hundredths",
        ),
        (
            "price + 1",
            "write (price + 1)::text to keep it exactly, or ((price + 1) * 100)::bigint to count in hundredths",
        ),
        (
            "cents",
            "write cents::text to keep it exactly, or (cents * 100)::bigint to count in hundredths",
        ),
        ("doc", "write doc::text, or one of its fields: doc->>'field'"),
        ("old", "write old::text, or one of its fields: old->>'field'"),
        ("cash", "write cash::numeric::text"),
        ("page", "write page::text"),
        ("span", "write its ends: lower(span) and upper(span)"),
        ("spans", "write its ends: lower(spans) and upper(spans)"),
        ("pair", "write its fields one by one: (pair).field"),
        ("prices", "write it as text, prices::text, or as a list of a type that has a form"),
        ("addr", "write addr::text"),
        ("bits", "write bits::text"),
        ("oids", "write oids::text"),
        ("flag", "write flag::text"),
    ] {
        let mapping = crossing("t", &["id"], &[("id", "id"), ("x", expression)]);
        let found = found(&postgres, &mapping).await;
        let error = found.iter().find(|found| found.severity == Severity::Error);
        let error = error.unwrap_or_else(|| panic!("{expression}"));
        assert!(error.message.starts_with("x would be of type "), "{}", error.message);
        assert_eq!((error.code, error.help.as_deref()), ("D222", Some(help)), "{expression}");
        assert_eq!(class(postgres.crossed(&mapping).await), FailureClass::Refused);
        // What it says to write is taken.
        for instead in [
            "price::text",
            "(price * 100)::bigint",
            "doc->>'field'",
            "cash::numeric::text",
            "lower(span)",
            "upper(spans)",
            "(pair).x",
            "prices::text",
        ] {
            let mapping = crossing("t", &["id"], &[("x", instead)]);
            assert!(postgres.crossed(&mapping).await.is_ok(), "{instead}");
        }
    }
}

#[tokio::test]
async fn keys_tables_and_expressions_are_looked_at_before() {
    let setup = "CREATE TABLE t (id bigint PRIMARY KEY, day date NOT NULL UNIQUE, code text NOT NULL, part text, n int, UNIQUE (code, id));
        CREATE UNIQUE INDEX ON t (part); CREATE VIEW v AS SELECT * FROM t; CREATE UNLOGGED TABLE u (id int PRIMARY KEY);
        CREATE TABLE bare (id int); CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;
        CREATE TABLE parted (id int) PARTITION BY RANGE (id); CREATE FOREIGN TABLE abroad PARTITION OF parted FOR VALUES FROM (1) TO (2) SERVER far";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let errors = async |table: &str, key: &[&str]| {
        let found = found(&postgres, &crossing(table, key, &[("id", "id")])).await;
        let errors = found.into_iter().filter(|found| found.severity == Severity::Error);
        errors.map(|found| (found.message, found.help.unwrap_or_default())).collect::<Vec<_>>()
    };
    assert_eq!(errors("t", &["id"]).await, []);
    assert_eq!(errors("t", &["id", "code"]).await, []);
    assert!(errors("t", &["day"]).await[0].0.starts_with("the key column day is of type date"));
    assert!(errors("t", &["part"]).await[0].1.starts_with("use key: [id] or "));
    assert_eq!(errors("t", &["gone"]).await[0].0, "table t has no column gone");
    assert_eq!(errors("v", &["id"]).await[0].0, "v is not a table");
    assert_eq!(
        errors("parted", &["id"]).await[0].0,
        "the partition abroad of parted is on another server"
    );
    assert_eq!(
        errors("bare", &["id"]).await[0].1,
        "bare has no unique key that is never NULL: add one"
    );
    let warnings = async |mapping| {
        let found = found(&postgres, &mapping).await;
        found.into_iter().filter(|found| found.severity == Severity::Warning).collect::<Vec<_>>()
    };
    assert_eq!(warnings(crossing("u", &["id"], &[("id", "id")])).await.len(), 1);
    assert_eq!(warnings(crossing("t", &["id"], &[("id", "id"), ("c", "lower(code)")])).await, []);
    let risky = warnings(crossing("t", &["id"], &[("n", "code::int")])).await;
    assert!(risky[0].code == "D223" && risky[0].message.starts_with("n: where"));
    // What the server itself refuses, it says in its own words.
    for expression in ["gone", "$1::int", "lower(n", "1; DELETE FROM t"] {
        let mapping = crossing("t", &["id"], &[("x", expression)]);
        let refused = postgres.crossed(&mapping).await;
        assert_eq!(class(refused), FailureClass::Refused, "{expression}");
    }
}

//! Values of every kind of type, compared as a verify compares them: what is stored alike is no difference, however it was
//! written, and what is stored otherwise is one, however alike it looks or is equal by the type's own lights.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{Database, mapping};
use crate::bounds::message::VALUE_CHARS_MAX;
use crate::copy::chunk::Chunk;
use crate::driver::Verifier as _;
use crate::run::{DifferenceKind, Direction, Mapping, ShownValue};

const TYPES: &str = "
    CREATE EXTENSION IF NOT EXISTS citext;
    CREATE DOMAIN short AS varchar(4) CHECK (VALUE <> 'no');
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE TYPE pair AS (a int, b text);
    CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";

/// A type; a value; the same value written otherwise; values that differ from it.
const CASES: &[(&str, &str, &[&str], &[&str])] = &[
    ("numeric", "1.0", &["'1.0'"], &["1.00", "1", "'NaN'", "NULL"]),
    ("numeric", "'NaN'", &["'nan'"], &["'Infinity'", "NULL"]),
    ("float8", "'-0'", &["-(0::float8)"], &["0", "'NaN'", "NULL"]),
    ("float8", "'NaN'", &["'nan'"], &["'infinity'"]),
    ("float8", "'infinity'", &["'inf'"], &["'-infinity'", "1.7976931348623157e308"]),
    ("float4", "0.1", &["'0.1'::float8"], &["0.10000001"]),
    ("bigint", "9007199254740993", &["'9007199254740993'"], &["9007199254740992", "NULL"]),
    ("boolean", "true", &["'yes'"], &["false", "NULL"]),
    (
        "timestamptz",
        "'2024-03-31 03:30+02'",
        &["'2024-03-31 01:30Z'"],
        &["'2024-03-31 03:30Z'", "'2024-03-31 03:30:00.000001+02'"],
    ),
    ("timestamptz", "'infinity'", &["'infinity'::timestamp"], &["'-infinity'", "NULL"]),
    ("timestamp", "'2024-03-31 03:30'", &["'2024-03-31T03:30'"], &["'2024-03-31 03:30:00.000001'"]),
    ("timetz", "'10:00+00'", &["'10:00Z'"], &["'12:00+02'"]),
    ("date", "'infinity'", &["'Infinity'"], &["'-infinity'", "'5874897-12-31'"]),
    ("interval", "'1 day'", &["'1 d'"], &["'24 hours'", "NULL"]),
    ("interval", "'1 mon'", &["'1 month'"], &["'30 days'"]),
    ("text", "''", &["''::varchar"], &["NULL", "' '"]),
    ("text", "'a'", &["'a'::char(5)"], &["'a '", "'A'", "U&'\\0430'", "U&'a\\200B'"]),
    ("text", "U&'\\00E9'", &["chr(233)"], &["U&'e\\0301'"]),
    ("text COLLATE loose", "'a'", &["'a'"], &["'A'", "U&'\\00E1'"]),
    (
        "text",
        "repeat('ab', 400000)",
        &["repeat('ab', 200000) || repeat('ab', 200000)"],
        &["repeat('ab', 399999) || 'ac'", "repeat('ab', 400000) || ' '"],
    ),
    ("varchar(6)", "'a '", &["'a '::text"], &["'a'", "'a  '"]),
    ("char(5)", "'a'", &["'a   '"], &["'A'", "''"]),
    ("citext", "'a'", &["'a'::text"], &["'A'"]),
    ("short", "'ab'", &["'ab'::text"], &["'AB'", "'ab '"]),
    (
        "jsonb",
        "'{\"a\":1,\"b\":2}'",
        &["'{ \"b\":2, \"a\" : 1 }'"],
        &["'{\"a\":1.0,\"b\":2}'", "'{\"a\":1}'", "'null'", "NULL"],
    ),
    (
        "json",
        "'{\"a\":1,\"b\":2}'",
        &["'{\"a\":1,\"b\":2}'"],
        &["'{\"b\":2,\"a\":1}'", "'{\"a\": 1,\"b\":2}'"],
    ),
    ("bytea", "'\\x00ff'", &["'\\000\\377'"], &["'\\x00'", "'\\x00ff00'", "''"]),
    (
        "uuid",
        "'00000000-0000-0000-0000-00000000000a'",
        &["'0000000000000000000000000000000A'"],
        &["'00000000-0000-0000-0000-00000000000b'"],
    ),
    (
        "int[]",
        "'{1,NULL}'",
        &["ARRAY[1,NULL]"],
        &["'{1}'", "'{1,0}'", "'[0:1]={1,NULL}'", "'{{1,NULL}}'", "'{}'"],
    ),
    ("text[]", "'{a,\"NULL\"}'", &["ARRAY['a','NULL']"], &["'{a,NULL}'", "'{\"a,NULL\"}'"]),
    ("numeric[]", "'{1.0}'", &["ARRAY[1.0]"], &["'{1.00}'"]),
    ("mood", "'glad'", &["'glad'::mood"], &["'sad'", "NULL"]),
    ("pair", "ROW(1, 'a')", &["'(1,a)'"], &["ROW(1, NULL)", "ROW(1, '')", "ROW(1, 'A')", "NULL"]),
    ("pair", "ROW(NULL, NULL)", &["'(,)'"], &["NULL"]),
    ("int4range", "'[1,3)'", &["'[1,2]'"], &["'[1,4)'", "'empty'", "'(,3)'"]),
    ("numrange", "'[1.0,2)'", &["'[1.0,2)'"], &["'[1.00,2)'", "'[1.0,2]'"]),
    ("bit(3)", "B'101'", &["'101'"], &["B'100'"]),
    ("varbit", "B'101'", &["'101'"], &["B'1010'", "B'0101'"]),
    ("inet", "'10.0.0.1'", &["'10.0.0.1/32'"], &["'10.0.0.1/24'", "'::1'"]),
    ("cidr", "'10.0.0.0/8'", &["'10'"], &["'10.0.0.0/9'"]),
    ("macaddr", "'08:00:2b:01:02:03'", &["'08002b:010203'"], &["'08:00:2b:01:02:04'"]),
    ("money", "'1.50'", &["1.5::numeric"], &["'1.51'"]),
    ("xml", "'<a b=\"1\"/>'", &["'<a b=\"1\"/>'"], &["'<a b=''1''/>'", "'<a  b=\"1\"/>'"]),
    ("tsvector", "'a:1 b:2'", &["'b:2 a:1'"], &["'a b'", "'a:1A b:2'"]),
    ("tsquery", "'a & b'", &["'a&b'"], &["'b & a'"]),
    ("point", "'(1,2)'", &["point(1,2)"], &["'(1,2.0000000000000004)'", "'(2,1)'"]),
    ("\"char\"", "'a'", &["'a'::\"char\""], &["'A'"]),
    ("name", "'a'", &["'a'::name"], &["'b'"]),
    ("oid", "1", &["'1'"], &["2"]),
    ("pg_lsn", "'0/10'", &["'0/00000010'"], &["'1/10'"]),
];

fn pairs() -> Mapping {
    mapping(("o", &["id"]), ("n", &["id"]))
}

const ALL: Chunk = Chunk { lo: None, hi: None };

#[tokio::test]
async fn every_planted_difference_is_found_and_no_other() {
    let Some(database) = Database::with(TYPES).await else { return };
    let postgres = database.open().await;
    for (declared, value, alike, unlike) in CASES {
        // The other column has a default of its own, whose place in the row is after a NULL or not.
        database
            .run(&format!(
                "DROP TABLE IF EXISTS o, n; CREATE TABLE o (id int PRIMARY KEY, a text, v {declared}, z int DEFAULT 5);
                 CREATE TABLE n (z int, v {declared}, id int PRIMARY KEY, a text);
                 INSERT INTO o VALUES (1, NULL, {value}), (2, 'x', {value}), (3, NULL, NULL);
                 INSERT INTO n SELECT z, v, id, a FROM o"
            ))
            .await;
        let compare = || async {
            let compared = postgres.compare_chunk(&pairs(), Direction::Forward, &ALL).await;
            compared.unwrap_or_else(|error| panic!("{declared}: {error:?}"))
        };
        let clean = compare().await;
        assert!(clean.is_clean() && clean.rows == 3, "{declared} {value}: {clean:?}");
        for same in *alike {
            database.run(&format!("UPDATE n SET v = {same} WHERE id = 2")).await;
            let clean = compare().await;
            assert!(clean.is_clean(), "{declared} {value} is not like {same}: {clean:?}");
        }
        for other in *unlike {
            database.run(&format!("UPDATE n SET v = {other} WHERE id = 2")).await;
            let found = compare().await;
            assert_eq!(
                (found.different, found.missing, found.extra),
                (1, 0, 0),
                "{declared} {value} {other}"
            );
            let one = &found.samples[0];
            assert_eq!(
                (one.key.as_str(), &*one.columns),
                ("2", &["v".to_owned()][..]),
                "{declared} {other}"
            );
            assert_eq!(one.values.len(), 1, "{declared} {other}");
            let is_null = one.values[0].found.as_ref().unwrap().text.is_none();
            assert_eq!(is_null, *other == "NULL", "{declared} {other}: {one:?}");
        }
        database
            .run(&format!(
                "UPDATE n SET v = {value} WHERE id = 2; UPDATE n SET v = {value} WHERE id = 3"
            ))
            .await;
        assert_eq!(compare().await.different, 1, "{declared}: {value} where NULL should be");
    }
    database.gone().await;
}

#[tokio::test]
async fn how_a_value_is_kept_on_disk_is_no_difference() {
    let Some(database) = Database::with(
        "CREATE TABLE o (id int PRIMARY KEY, v text, j jsonb, b bytea);
         CREATE TABLE n (LIKE o INCLUDING ALL);
         ALTER TABLE n ALTER v SET STORAGE EXTERNAL, ALTER j SET STORAGE EXTERNAL, ALTER b SET STORAGE MAIN;
         INSERT INTO o SELECT x, repeat('abc', x * 500), jsonb_build_object('k', repeat('z', x * 900)), decode(repeat('00ff', x * 400), 'hex')
             FROM generate_series(1, 20) AS x;
         INSERT INTO n SELECT id, v || '', (j::text)::jsonb, b || '' FROM o",
    )
    .await
    else {
        return;
    };
    let postgres = database.open().await;
    let compared = postgres.compare_chunk(&pairs(), Direction::Forward, &ALL).await.unwrap();
    assert!(compared.is_clean() && compared.rows == 20, "{compared:?}");
    // Of a long value the beginning is shown, and how long it is.
    database.run("UPDATE n SET v = v || 'd' WHERE id = 20").await;
    let compared = postgres.compare_chunk(&pairs(), Direction::Forward, &ALL).await.unwrap();
    let values = &compared.samples[0].values[0];
    let begin: String = "abc".repeat(30).chars().take(VALUE_CHARS_MAX).collect();
    let cut = |length| Some(ShownValue { text: Some(begin.clone()), length: Some(length) });
    assert_eq!((&values.expected, &values.found), (&cut(30_000), &cut(30_001)));
    database.gone().await;
}

#[tokio::test]
async fn values_are_as_the_mapping_says_and_rows_of_one_side_have_theirs() {
    let Some(database) = Database::with(
        "CREATE TABLE o (id int PRIMARY KEY, v text, w int); CREATE TABLE n (id bigint PRIMARY KEY, v text, w numeric, code text);
         INSERT INTO o VALUES (1, 'A', 1), (2, 'B', NULL); INSERT INTO n VALUES (1, 'A', 1, 'A'), (3, NULL, 7, '')",
    )
    .await
    else {
        return;
    };
    let postgres = database.open().await;
    let mut pairs = pairs();
    pairs.columns = vec![("code".into(), "lower(v)".into())];
    let found = postgres.compare_chunk(&pairs, Direction::Forward, &ALL).await.unwrap();
    let shown: Vec<String> = found
        .samples
        .iter()
        .map(|one| {
            let text = |value: &Option<ShownValue>| match value {
                None => "-".to_owned(),
                Some(value) => value.text.clone().unwrap_or_else(|| "NULL".to_owned()),
            };
            let values = one.values.iter();
            let values: Vec<String> = values
                .map(|of| format!("{} {} {}", of.column, text(&of.expected), text(&of.found)))
                .collect();
            format!("{:?} {}: {}", one.kind, one.key, values.join(", "))
        })
        .collect();
    let expected = [
        "Different 1: code a A",
        "Missing 2: code b -, v B -, w NULL -",
        "Extra 3: code - , v - NULL, w - 7",
    ];
    let sorted = |line: &str| {
        let (key, values) = line.split_once(": ").unwrap();
        let mut values: Vec<&str> = values.split(", ").collect();
        values.sort_unstable();
        format!("{key}: {}", values.join(", "))
    };
    let shown: Vec<String> = shown.iter().map(|line| sorted(line)).collect();
    assert_eq!(shown, expected.map(sorted));
    assert_eq!(found.samples[0].kind, DifferenceKind::Different);
    database.gone().await;
}

#[tokio::test]
async fn as_many_columns_as_a_table_may_have_are_compared_and_shown() {
    let columns =
        |what: &dyn Fn(usize) -> String| (1..1500).map(what).collect::<Vec<_>>().join(", ");
    let Some(database) = Database::with(&format!(
        "CREATE TABLE o (id int PRIMARY KEY, {}); INSERT INTO o (id, c1, c1499) VALUES (1, 7, 8);
         CREATE TABLE n (LIKE o INCLUDING ALL); INSERT INTO n (id, c1, c1499) VALUES (1, 7, 9)",
        columns(&|at| format!("c{at} smallint"))
    ))
    .await
    else {
        return;
    };
    let postgres = database.open().await;
    let found = postgres.compare_chunk(&pairs(), Direction::Forward, &ALL).await;
    let found = found.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((found.rows, found.different), (1, 1));
    assert_eq!(found.samples[0].columns, ["c1499"]);
    assert_eq!(found.samples[0].values[0].found.as_ref().unwrap().text.as_deref(), Some("9"));
    database.gone().await;
}

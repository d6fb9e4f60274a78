//! What no table of statements shows: depth, odd text, expressions, names. The table is `tests/statements/postgres.txt`.

use proptest::prelude::*;

use crate::run::Hazard;

use super::super::facts::{Facts, Object};
use super::super::{Dialect, column_refs, split};
use super::classify;

fn unknown(facts: &Facts, part: &str) -> bool {
    matches!(&facts.hazard, Hazard::Unknown(why) if why.contains(part))
}

#[test]
fn long_and_deep_statements_are_met_calmly() {
    let too_deep = [
        format!("SELECT 1{}", " + 1".repeat(200_000)),
        format!("SELECT * FROM t WHERE a{}", " IS NULL".repeat(100_000)),
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("SELECT {}1", "NOT ".repeat(100_000)),
        format!("SELECT {}1", "- ".repeat(100_000)),
        format!("SELECT {}1", "OPERATOR(+) ".repeat(100_000)),
        format!("SELECT {}1{}", "CASE WHEN ".repeat(50_000), " THEN 1 END".repeat(50_000)),
        format!("SELECT {}1", "a = ".repeat(100_000)),
        format!("SELECT 1{}", " BETWEEN 1 AND 2".repeat(100_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(50_000)),
        format!("SELECT * FROM t{}", " JOIN t".repeat(100_000)),
        format!("SELECT a{}", "::int".repeat(100_000)),
        format!("SELECT a{}", ".b".repeat(100_000)),
        format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(5_000), ") x".repeat(5_000)),
        format!("{}SELECT 1", "EXPLAIN ".repeat(100_000)),
        format!("SELECT {}1{}", format!("({} + ", "1 + 1".repeat(300)).repeat(40), ")".repeat(40)),
    ];
    for statement in too_deep {
        let facts = classify(&statement);
        let start = statement.get(..60).unwrap();
        assert!(unknown(&facts, "too deeply"), "{start}: {:?}", facts.hazard);
    }
    let or = " OR a = 1".repeat(100_000);
    let facts = classify(&format!("DELETE FROM t WHERE a = 1{or}"));
    assert!(matches!(facts.hazard, Hazard::Destructive(_)), "{:?}", facts.hazard);
    // What is just within the bounds is read, and fits on the stack of a test.
    let read = [
        format!("INSERT INTO t VALUES (1, -1){}", ", (1, 2 + 3)".repeat(20_000)),
        format!("SELECT 1{}", " + 1".repeat(900)),
        format!("SELECT {}1{}", "(".repeat(120), ")".repeat(120)),
        format!("SELECT {}1", "NOT ".repeat(120)),
        format!("SELECT {}1{}", "CASE WHEN ".repeat(120), " THEN 1 END".repeat(120)),
        format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(120), ") x".repeat(120)),
        format!("SELECT * FROM t{}", " JOIN t ON true".repeat(120)),
        format!("SELECT {}{}", "a = ".repeat(850), "abs(".repeat(120) + "1" + &")".repeat(120)),
        format!("SELECT 1{}", " BETWEEN 1 AND 2".repeat(120)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(450)),
    ];
    for statement in read {
        let facts = classify(&statement);
        assert_eq!(facts.hazard, Hazard::None, "{}", statement.get(..60).unwrap());
    }
}

#[test]
fn bodies_of_functions_are_not_read_however_deep_they_go() {
    let deep = "(".repeat(200_000);
    for body in [format!("$$ {deep} $$"), format!("'BEGIN {deep}'"), format!("E'\\n {deep}'")] {
        let statement = format!("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS {body}");
        assert_eq!(classify(&statement).hazard, Hazard::None, "{}", &statement[..70]);
    }
    assert!(unknown(&classify(&format!("DO $$ {deep} $$")), "what DO does"));
    let statement =
        "CREATE FUNCTION f() RETURNS int LANGUAGE 'sql' AS 'SELECT 1' SET search_path = 'a b'";
    assert_eq!(classify(statement).hazard, Hazard::None);
}

#[test]
fn a_change_of_what_the_plan_made_destroys_nothing() {
    let given = |statement: &str, made: &[Object]| {
        classify(statement).hazard_given(Dialect::Postgres, made)
    };
    let column = [Object::column("leads", "code")];
    for statement in [
        "UPDATE leads SET code = 1",
        "UPDATE public.leads SET Code = 1",
        "ALTER TABLE leads ALTER code TYPE int USING code::int",
        "INSERT INTO leads VALUES (1) ON CONFLICT (id) DO UPDATE SET code = 1",
        "MERGE INTO leads USING x ON true WHEN MATCHED THEN UPDATE SET code = 1",
    ] {
        assert_eq!(given(statement, &column), Hazard::None, "{statement}");
        assert!(matches!(given(statement, &[]), Hazard::Destructive(_)), "{statement}");
    }
    let table = [Object::table("leads")];
    for statement in [
        "DELETE FROM leads",
        "TRUNCATE leads",
        "DROP TABLE leads",
        "UPDATE leads SET code = 1, other = 2; DELETE FROM leads",
        "WITH d AS (DELETE FROM other RETURNING *) UPDATE leads SET code = 1",
        "MERGE INTO leads USING x ON true WHEN MATCHED THEN DELETE",
    ] {
        assert!(given(statement, &table) != Hazard::None, "{statement}");
    }
}

#[test]
fn columns_are_found_as_the_catalogue_spells_them() {
    let cases: [(&str, &[&str]); 20] = [
        ("1", &[]),
        ("NULL", &[]),
        ("'status'", &[]),
        ("Status", &["status"]),
        ("\"Status\"", &["Status"]),
        ("lower(trim(status))", &["status"]),
        ("pg_catalog.lower(status)", &["status"]),
        ("first || ' ' || last", &["first", "last"]),
        ("CASE WHEN a > 1 THEN b ELSE c END", &["a", "b", "c"]),
        ("CAST(amount * 100 AS integer)", &["amount"]),
        ("amount::numeric(10, 2)", &["amount"]),
        ("coalesce(a, nullif(b, ''), 0)", &["a", "b"]),
        ("a IS DISTINCT FROM b AND c IS NOT NULL", &["a", "b", "c"]),
        ("a IN (1, b) OR c BETWEEN d AND 5", &["a", "b", "c", "d"]),
        ("data ->> 'email'", &["data"]),
        ("(data #>> '{a,b}')::int", &["data"]),
        ("extract(year FROM created_at AT TIME ZONE 'UTC')", &["created_at"]),
        ("tags[1] = ANY (ARRAY[a, b])", &["a", "b", "tags"]),
        ("my_function(a, b => c)", &["a", "c"]),
        ("a -- at the end", &["a"]),
    ];
    for (expression, columns) in cases {
        let found = column_refs(Dialect::Postgres, expression)
            .unwrap_or_else(|error| panic!("{expression}: {error}"));
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, columns, "{expression}");
    }
}

#[test]
fn what_is_no_expression_over_one_row_is_refused_with_its_reason() {
    let cases = [
        ("", "not an expression"),
        ("-- nothing", "not an expression"),
        ("a b c", "not an expression"),
        ("a; DROP TABLE t", "not an expression"),
        ("a, b", "not an expression"),
        ("a) FROM t WHERE (b", "not an expression"),
        ("a) AS x, (b", "not an expression"),
        ("lower(", "not an expression"),
        ("'open", "not an expression"),
        ("/* open", "not an expression"),
        ("SELECT 1", "subquery"),
        ("(SELECT max(a) FROM t)", "subquery"),
        ("EXISTS (SELECT 1)", "subquery"),
        ("a IN (SELECT b FROM t)", "subquery"),
        ("ARRAY(SELECT 1)", "subquery"),
        ("count(*)", "many rows"),
        ("sum(a) + 1", "many rows"),
        ("max(a)", "many rows"),
        ("pg_catalog.count(a)", "many rows"),
        ("row_number() OVER (ORDER BY a)", "many rows"),
        ("lower(a) FILTER (WHERE b)", "many rows"),
        ("leads.status", "write status"),
        ("new.status", "write status"),
        ("public.leads.status", "write status"),
        ("(pair).first", "reaches into"),
        ("$1", "parameter"),
        ("random()", "another value"),
        ("gen_random_uuid()", "another value"),
        ("now()", "another value"),
        ("CURRENT_TIMESTAMP", "another value"),
        ("current_user", "another value"),
        ("age(born)", "another value"),
        ("nextval('s')", "another value"),
    ];
    for (expression, part) in cases {
        let error = column_refs(Dialect::Postgres, expression).expect_err(expression);
        assert!(error.contains(part), "{expression}: {error}");
    }
    assert!(column_refs(Dialect::Postgres, "age(died, born)").is_ok());
}

/// Ordinary statements: losing one of these is losing a user's step.
#[test]
fn ordinary_statements_are_read() {
    let statements = [
        "SELECT a FROM t WHERE b IS DISTINCT FROM c ORDER BY 1 NULLS LAST LIMIT 5 OFFSET 2",
        "SELECT DISTINCT ON (a) a, b FROM t",
        "SELECT count(*) FILTER (WHERE a), sum(a) OVER (PARTITION BY b ORDER BY c) FROM t",
        "SELECT a, b FROM t TABLESAMPLE SYSTEM (1)",
        "SELECT * FROM a LEFT JOIN LATERAL (SELECT 1) AS x ON true",
        "SELECT * FROM unnest(ARRAY[1,2]) WITH ORDINALITY AS x (v, n)",
        "SELECT a[1:2], a[1], (b).c, b->>'c', d @> '{}' FROM t",
        "SELECT '{\"a\": 1}'::jsonb #>> '{a}', interval '1 day', date '2020-01-01', B'101', X'1F'",
        "SELECT $$it's$$, $tag$a$$b$tag$, E'\\n', U&'d\\0061t'",
        "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 5) SELECT x FROM c",
        "WITH c AS MATERIALIZED (SELECT 1) SELECT * FROM c",
        "SELECT * FROM t WHERE (a, b) > (1, 2) ORDER BY a, b LIMIT 1 FOR NO KEY UPDATE NOWAIT",
        "SELECT array_agg(a ORDER BY b), string_agg(a, ',') FROM t GROUP BY ROLLUP (c)",
        "INSERT INTO t (a) OVERRIDING SYSTEM VALUE VALUES (DEFAULT) RETURNING *",
        "INSERT INTO t DEFAULT VALUES",
        "INSERT INTO t AS x (a) VALUES (1) ON CONFLICT ON CONSTRAINT c DO NOTHING",
        "CREATE TABLE t (a int CHECK (a > 0), b text COLLATE \"C\", c int[] DEFAULT '{}', EXCLUDE USING gist (d WITH &&))",
        "CREATE TABLE t (a int PRIMARY KEY, b int UNIQUE NULLS NOT DISTINCT) WITH (fillfactor = 70) TABLESPACE x",
        "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a * 2) STORED) PARTITION BY HASH (a)",
        "CREATE TABLE p PARTITION OF t DEFAULT",
        "CREATE INDEX ON t USING brin (a) WITH (pages_per_range = 32)",
        "CREATE INDEX i ON t (a text_pattern_ops, (lower(b)) COLLATE \"C\")",
        "CREATE VIEW v WITH (security_barrier) AS SELECT 1 AS a WITH LOCAL CHECK OPTION",
        "CREATE SEQUENCE s AS bigint INCREMENT BY 2 OWNED BY t.a",
        "ALTER SEQUENCE s OWNED BY NONE",
        "ALTER TABLE t ALTER COLUMN a DROP IDENTITY IF EXISTS",
        "ALTER TABLE t ALTER COLUMN a RESTART WITH 5",
        "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES p (b) MATCH FULL ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE t ADD CONSTRAINT c UNIQUE (a) INCLUDE (b) DEFERRABLE",
        "ALTER TABLE t ALTER CONSTRAINT f NOT DEFERRABLE",
        "ALTER TABLE t ENABLE REPLICA TRIGGER x",
        "ALTER TYPE e RENAME ATTRIBUTE a TO b CASCADE",
        "CREATE TYPE r AS RANGE (subtype = float8)",
        "CREATE FUNCTION f(VARIADIC a int[] DEFAULT '{}') RETURNS TABLE (b int) IMMUTABLE PARALLEL SAFE LANGUAGE sql AS 'select 1'",
        "CREATE OR REPLACE PROCEDURE p(INOUT a int) LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$ BEGIN END $$",
        "CREATE AGGREGATE a (int) (sfunc = int4pl, stype = int)",
        "GRANT USAGE ON SCHEMA s TO r WITH GRANT OPTION",
        "REVOKE ALL PRIVILEGES ON ALL TABLES IN SCHEMA s FROM PUBLIC",
        "COMMENT ON INDEX i IS 'x'",
        "DROP FUNCTION IF EXISTS f(int, text), g()",
        "DROP AGGREGATE a(int)",
        "DROP OPERATOR + (int, int)",
        "ANALYZE VERBOSE t (a, b)",
        "REINDEX INDEX i",
        "SET LOCAL work_mem TO '64MB'",
        "CREATE POLICY p ON t FOR SELECT TO r USING (a = 1)",
        "CREATE STATISTICS s (dependencies) ON a, b FROM t",
        "CREATE ROLE r LOGIN PASSWORD 'x' VALID UNTIL '2030-01-01'",
        "CREATE COLLATION c (provider = icu, locale = 'de')",
        "CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert')",
        "ALTER INDEX i SET (fillfactor = 70)",
        "ALTER DOMAIN d ADD CONSTRAINT c CHECK (value > 0) NOT VALID",
        "ALTER FUNCTION f(int) OWNER TO r",
        "VALUES (1, 'a'), (2, NULL)",
    ];
    let unread: Vec<String> = statements
        .iter()
        .map(|statement| (statement, classify(statement)))
        .filter(|(_, facts)| !matches!(facts.hazard, Hazard::None))
        .map(|(statement, facts)| format!("{statement}\n  {:?}", facts.hazard))
        .collect();
    assert!(unread.is_empty(), "{}", unread.join("\n"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_unknown(
        text in "(SELECT|CREATE|ALTER|TABLE|DROP|WITH|INSERT|INTO|UPDATE|SET|FROM|WHERE|CASE|END|AS|ON|MERGE|[a-z$1]|['\"(\\[\\]),;.*=:<>-]|\\$\\$|/\\*|\\*/|--|[ \n]|ü|\\\\| ){0,40}"
    ) {
        let _ = classify(&text);
        let _ = column_refs(Dialect::Postgres, &text);
        for statement in split(Dialect::Postgres, &text, 1).unwrap_or_default() {
            let _ = classify(&statement.text);
        }
    }
}

//! One table of statements and what is said of them.

use crate::run::Hazard;

use super::super::facts::{Change, Facts, Object};
use super::classify;

/// What is expected of the hazard: nothing, or its kind and a part of its reason.
enum Expect {
    Harmless,
    Destructive(&'static str),
    Unknown(&'static str),
}

use Expect::{Destructive, Harmless, Unknown};

fn check(statement: &str, expected: &Expect) {
    let facts = classify(statement);
    let fits = match (&facts.hazard, expected) {
        (Hazard::None, Harmless) => true,
        (Hazard::Destructive(reason), Destructive(part))
        | (Hazard::Unknown(reason), Unknown(part)) => reason.contains(part),
        _ => false,
    };
    assert!(fits, "{statement}\n  gave {facts:#?}");
}

#[test]
fn definitions() {
    let cases = [
        ("CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT)", Harmless),
        ("create table if not exists leads_v2 (id integer primary key)", Harmless),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT COLLATE NOCASE) STRICT",
            Harmless,
        ),
        ("CREATE TABLE t (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID", Harmless),
        (
            "CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a * 2) STORED, CHECK (a > 0))",
            Harmless,
        ),
        ("CREATE TABLE t (a INT REFERENCES p (id) ON DELETE CASCADE ON UPDATE SET NULL)", Harmless),
        ("CREATE TABLE t (a UNIQUE ON CONFLICT REPLACE)", Harmless),
        ("CREATE TABLE t AS SELECT * FROM leads WHERE deleted = 0", Harmless),
        ("CREATE VIEW v AS SELECT a, b FROM leads", Harmless),
        ("CREATE VIEW v (a) AS WITH x AS (SELECT 1 AS a) SELECT a FROM x", Harmless),
        ("CREATE INDEX leads_email ON leads (email)", Harmless),
        (
            "CREATE UNIQUE INDEX IF NOT EXISTS main.i ON leads (lower(email) DESC) WHERE email IS NOT NULL",
            Harmless,
        ),
        ("CREATE VIRTUAL TABLE docs USING fts5(title, body)", Harmless),
        ("CREATE VIRTUAL TABLE docs USING zipfile('x.zip')", Unknown("zipfile")),
        ("ALTER TABLE leads ADD COLUMN status_code TEXT", Harmless),
        ("ALTER TABLE leads ADD status_code TEXT NOT NULL DEFAULT ''", Harmless),
        ("ALTER TABLE leads ADD \"drop\" TEXT", Harmless),
        ("ALTER TABLE leads ADD CONSTRAINT c CHECK (a > 0)", Unknown("leads")),
        ("ALTER TABLE leads RENAME TO leads_old", Harmless),
        ("ALTER TABLE leads RENAME COLUMN email TO mail", Harmless),
        ("ALTER TABLE leads RENAME email TO mail", Harmless),
        ("ALTER TABLE leads DROP COLUMN email", Destructive("column leads.email")),
        ("ALTER TABLE leads DROP email", Destructive("column leads.email")),
        ("ALTER TABLE leads ALTER COLUMN email TYPE TEXT", Unknown("leads")),
        ("ALTER TABLE leads DROP CONSTRAINT c", Unknown("leads")),
        ("DROP TABLE leads", Destructive("table leads")),
        ("drop table if exists main . \"leads\"", Destructive("table leads")),
        ("DROP TABLE 'leads'", Destructive("table leads")),
        ("/* why */ DROP /* not */ TABLE leads -- now", Destructive("table leads")),
        ("DROP TABLE leads, accounts", Unknown("DROP")),
        ("DROP VIEW v", Destructive("view v")),
        ("DROP INDEX leads_email", Harmless),
        ("DROP TRIGGER leads_audit", Harmless),
        ("DROP SCHEMA app CASCADE", Unknown("")),
        ("ANALYZE", Harmless),
        ("ANALYZE leads", Harmless),
        ("REINDEX leads_email", Harmless),
        ("", Harmless),
        ("-- nothing", Harmless),
    ];
    for (statement, expected) in cases {
        check(statement, &expected);
    }
}

#[test]
fn statements_over_rows() {
    let cases = [
        ("SELECT 1", Harmless),
        ("VALUES (1), (2)", Harmless),
        ("SELECT replace(name, 'DELETE', 'DROP TABLE x') FROM leads", Harmless),
        ("SELECT 'DROP TABLE x; DELETE FROM y'", Harmless),
        ("SELECT \"delete\", [update], `drop` FROM t", Harmless),
        ("SELECT load_extension('evil')", Unknown("load_extension")),
        ("INSERT INTO leads (a) VALUES (load_extension('evil'))", Unknown("load_extension")),
        ("INSERT INTO leads (id, email) VALUES (1, 'a;b'), (2, 'it''s')", Harmless),
        ("INSERT INTO leads DEFAULT VALUES", Harmless),
        ("INSERT INTO leads_v2 SELECT * FROM leads", Harmless),
        ("INSERT INTO leads (a) SELECT value FROM json_each('[1,2]')", Harmless),
        (
            "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
            Harmless,
        ),
        ("WITH n AS (SELECT 1 AS i) INSERT INTO t SELECT i FROM n", Harmless),
        ("INSERT OR IGNORE INTO leads (id) VALUES (1)", Harmless),
        ("INSERT OR ABORT INTO leads (id) VALUES (1)", Harmless),
        ("INSERT OR REPLACE INTO leads (id) VALUES (1)", Destructive("replaces rows of leads")),
        ("REPLACE INTO leads (id) VALUES (1)", Destructive("replaces rows of leads")),
        ("replace into main.leads select * from other", Destructive("replaces rows of leads")),
        ("INSERT INTO leads (id) VALUES (1) ON CONFLICT DO NOTHING", Harmless),
        ("INSERT INTO leads (id) VALUES (1) ON CONFLICT (id) DO NOTHING", Harmless),
        (
            "INSERT INTO leads (id, a) VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET a = excluded.a",
            Destructive("updates leads.a"),
        ),
        (
            "INSERT INTO leads (id, a) SELECT 1, 2 WHERE true ON CONFLICT (id) DO UPDATE SET (a, b) = (1, 2) WHERE a IS NOT excluded.a",
            Destructive("updates leads.a, leads.b"),
        ),
        ("INSERT INTO docs(docs) VALUES ('delete-all')", Unknown("full-text")),
        ("UPDATE leads SET email = lower(email)", Destructive("updates leads.email")),
        ("UPDATE leads SET a = 1, b = 2 WHERE id > 5", Destructive("updates leads.a, leads.b")),
        (
            "UPDATE main.leads AS l SET (a, b) = (SELECT 1, 2)",
            Destructive("updates leads.a, leads.b"),
        ),
        (
            "UPDATE leads SET a = o.a FROM other AS o WHERE o.id = leads.id",
            Destructive("updates leads.a"),
        ),
        ("UPDATE leads INDEXED BY i SET a = 1", Destructive("updates")),
        ("UPDATE OR IGNORE leads SET a = 1", Destructive("updates leads.a")),
        ("UPDATE OR REPLACE leads SET id = 1", Destructive("leads")),
        ("UPDATE 'leads' SET a = 1", Destructive("updates")),
        ("UPDATE leads SET nonsense nonsense", Destructive("updates rows")),
        ("DELETE FROM leads", Destructive("deletes rows of leads")),
        ("DELETE FROM leads WHERE id IS 5 RETURNING *", Destructive("deletes rows of leads")),
        ("DELETE FROM 'leads'", Destructive("deletes rows")),
        ("delete from leads indexed by i where a = 1", Destructive("deletes rows")),
        (
            "WITH old AS (SELECT id FROM leads) DELETE FROM leads WHERE id IN old",
            Destructive("deletes rows of leads"),
        ),
        (
            "WITH old AS (SELECT id FROM leads) UPDATE leads SET a = 1 WHERE id IN (SELECT id FROM old)",
            Destructive("updates leads.a"),
        ),
        ("WITH x AS (SELECT 1) REPLACE INTO leads SELECT * FROM x", Destructive("replaces rows")),
        (
            "WITH gone AS (DELETE FROM leads RETURNING *) SELECT * FROM gone",
            Destructive("deletes rows of leads"),
        ),
        ("WITH x (replace, n) AS (SELECT 1, 2) DELETE FROM 'leads'", Destructive("deletes rows")),
        ("INSERT OR REPLACE INTO 'leads' VALUES (1)", Destructive("replaces rows")),
        ("INSERT INTO 'leads' VALUES (replace('a', 'b', 'c'))", Harmless),
        ("INSERT INTO t VALUES (1) ON CONFLICT (lower(a)) DO NOTHING", Unknown("can't be read")),
        ("TRUNCATE TABLE leads", Unknown("")),
        ("MERGE INTO leads USING x ON x.id = leads.id WHEN MATCHED THEN DELETE", Unknown("")),
        // SQLite's comments don't nest: OR REPLACE is code here.
        (
            "INSERT /* /* */ OR REPLACE -- */ */\n INTO leads VALUES (1)",
            Destructive("replaces rows of leads"),
        ),
        ("SELEC 1", Unknown("")),
        ("SELECT 1; DROP TABLE leads", Unknown("more than one")),
        ("SELECT 'unterminated", Unknown("no end")),
        ("EXPLAIN DELETE FROM leads", Harmless),
        ("DO $$ BEGIN DELETE FROM leads; END $$", Unknown("")),
        ("CALL purge()", Unknown("")),
    ];
    for (statement, expected) in cases {
        check(statement, &expected);
    }
}

#[test]
fn triggers_are_judged_by_their_bodies() {
    let cases = [
        ("CREATE TRIGGER t AFTER INSERT ON leads BEGIN SELECT 1; END", Harmless),
        (
            "CREATE TRIGGER t BEFORE UPDATE OF a, b ON leads FOR EACH ROW WHEN new.a IS NOT old.a \
             BEGIN SELECT CASE WHEN new.a < 0 THEN RAISE(ABORT, 'negative') END; END;",
            Harmless,
        ),
        (
            "CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON leads BEGIN \
             INSERT INTO audit (id) VALUES (new.id); INSERT OR IGNORE INTO seen VALUES (new.id); END",
            Harmless,
        ),
        (
            "CREATE TRIGGER t AFTER DELETE ON leads BEGIN DELETE FROM leads_v2 WHERE id = old.id; END",
            Unknown("whenever the trigger fires, it deletes rows of leads_v2"),
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON leads BEGIN INSERT INTO a VALUES (1); \
             UPDATE leads_v2 SET email = new.email WHERE id = new.id; END",
            Unknown("updates leads_v2.email"),
        ),
        (
            "CREATE TRIGGER t INSTEAD OF INSERT ON v BEGIN REPLACE INTO leads VALUES (new.id); END",
            Unknown("replaces rows of leads"),
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON leads BEGIN nonsense here; END",
            Unknown("can't be read"),
        ),
        ("CREATE TRIGGER t AFTER INSERT ON leads BEGIN SELECT 1; END; DROP TABLE x", Unknown("")),
        ("CREATE TRIGGER t AFTER INSERT ON leads", Unknown("")),
        ("CREATE TRIGGER t AFTER INSERT ON leads BEGIN SELECT 1 END", Unknown("")),
    ];
    for (statement, expected) in cases {
        check(statement, &expected);
    }
    let facts = classify(
        "CREATE TRIGGER main.t AFTER UPDATE OF a ON main.leads BEGIN INSERT INTO audit SELECT 1; END",
    );
    let (table, trigger) = ("leads".to_owned(), "t".to_owned());
    assert_eq!(facts.changes, [Change::CreateTrigger { table, trigger }]);
    assert_eq!(facts.tables, ["leads", "audit"]);
}

#[test]
fn what_has_no_place_in_a_step_is_complained_of() {
    let cases = [
        ("BEGIN", "BEGIN"),
        ("BEGIN IMMEDIATE TRANSACTION", "BEGIN"),
        ("COMMIT", "COMMIT"),
        ("END TRANSACTION", "END"),
        ("ROLLBACK TO s", "ROLLBACK"),
        ("SAVEPOINT s", "SAVEPOINT"),
        ("RELEASE s", "RELEASE"),
        ("ATTACH 'x.db' AS x", "ATTACH"),
        ("DETACH x", "DETACH"),
        ("VACUUM", "VACUUM"),
        ("VACUUM INTO 'copy.db'", "VACUUM"),
        ("PRAGMA writable_schema = ON", "writable_schema"),
        ("PRAGMA main.user_version = 5", "user_version"),
        ("PRAGMA user_version(5)", "user_version"),
        ("PRAGMA foreign_keys = OFF", "foreign_keys"),
        ("PRAGMA journal_mode = DELETE", "journal_mode"),
        ("PRAGMA incremental_vacuum", "incremental_vacuum"),
        ("UPDATE sqlite_master SET sql = ''", "sqlite_master"),
        ("DELETE FROM sqlite_schema", "sqlite_schema"),
        ("DROP TABLE phasegate_runs", "phasegate_runs"),
        ("DROP TABLE main.\"PhaseGate_runs\"", "PhaseGate_runs"),
        ("DROP TABLE 'phasegate_runs'", "phasegate_runs"),
        ("DELETE FROM [phasegate_chunks]", "phasegate_chunks"),
        ("DROP TRIGGER phasegate_sync_1", "phasegate_sync_1"),
        ("CREATE TABLE phasegate_mine (a)", "phasegate_mine"),
        ("SELECT * FROM `phasegate_ledger`", "phasegate_ledger"),
        ("CREATE TEMP TABLE t (a)", "temporary"),
        ("CREATE TABLE temp.t (a)", "temporary"),
        ("CREATE TEMPORARY VIEW v AS SELECT 1", "temporary"),
        ("CREATE TEMP TRIGGER t AFTER INSERT ON leads BEGIN SELECT 1; END", "temporary"),
        ("INSERT OR ROLLBACK INTO leads VALUES (1)", "OR ROLLBACK"),
        ("UPDATE OR ROLLBACK leads SET a = 1", "OR ROLLBACK"),
        ("INSERT INTO leads VALUES (?)", "parameter"),
        ("INSERT INTO leads VALUES (?1)", "parameter"),
        ("UPDATE leads SET a = :a", "parameter"),
        ("SELECT $x", "parameter"),
        ("SELECT @x", "parameter"),
    ];
    for (statement, part) in cases {
        let facts = classify(statement);
        let complaint = facts.complaint.unwrap_or_else(|| panic!("no complaint of {statement}"));
        assert!(complaint.message.contains(part), "{statement}: {complaint:?}");
        assert!(!complaint.help.is_empty());
    }
    let fine = [
        "PRAGMA user_version",
        "PRAGMA table_info(leads)",
        "PRAGMA foreign_key_check",
        "PRAGMA foreign_key_check(leads)",
        "PRAGMA defer_foreign_keys = ON",
        "PRAGMA journal_mode",
        "SELECT 'phasegate_runs', '?', ':a'",
        "INSERT INTO notes VALUES ('phasegate_runs')",
        "SELECT a -> '$.x' ->> '$.y' FROM t",
        "SELECT a FROM my_phasegate_table",
        "INSERT INTO sqlite_sequence VALUES ('leads', 7)",
    ];
    for statement in fine {
        let facts = classify(statement);
        assert_eq!(facts.complaint, None, "{statement}");
        assert_eq!(facts.hazard, Hazard::None, "{statement}");
    }
}

fn objects(list: &[Object]) -> Vec<String> {
    list.iter().map(Object::to_string).collect()
}

#[test]
fn what_is_made_dropped_and_touched_is_named() {
    // Statement; creates, ensures, drops, tables, writes.
    type Row = (
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
    );
    let cases: [Row; 19] = [
        ("CREATE TABLE main.t (a)", &["t"], &[], &[], &["t"], &[]),
        ("CREATE TABLE IF NOT EXISTS t (a)", &[], &["t"], &[], &["t"], &[]),
        (
            "CREATE TABLE t AS SELECT * FROM a JOIN b USING (id)",
            &["t"],
            &[],
            &[],
            &["t", "a", "b"],
            &[],
        ),
        ("CREATE VIEW v AS SELECT * FROM a", &["v"], &[], &[], &["v", "a"], &[]),
        ("CREATE TABLE t (a, b AS (a + 1), c TEXT) ", &["t"], &[], &[], &["t"], &[]),
        ("CREATE INDEX i ON t (a)", &[], &[], &[], &["t"], &[]),
        ("CREATE VIRTUAL TABLE f USING fts5(a)", &["f"], &[], &[], &["f"], &[]),
        ("ALTER TABLE t ADD COLUMN a TEXT", &["t.a"], &[], &[], &["t"], &[]),
        ("ALTER TABLE t RENAME TO u", &[], &["u"], &[], &["t", "u"], &[]),
        ("ALTER TABLE t RENAME COLUMN a TO b", &[], &["t.b"], &[], &["t"], &[]),
        ("ALTER TABLE t DROP COLUMN a", &[], &[], &["t.a"], &["t"], &[]),
        ("DROP TABLE t", &[], &[], &["t"], &["t"], &[]),
        ("DROP VIEW v", &[], &[], &["v"], &["v"], &[]),
        (
            "INSERT INTO t SELECT * FROM a, b WHERE a.x IN (SELECT x FROM c)",
            &[],
            &[],
            &[],
            &["t", "a", "b", "c"],
            &[],
        ),
        ("WITH a AS (SELECT * FROM b) SELECT * FROM a", &[], &[], &[], &["b"], &[]),
        ("SELECT * FROM json_each('[]'), t", &[], &[], &[], &["t"], &[]),
        ("UPDATE t SET a = 1, b = 2", &[], &[], &[], &["t"], &["t.a", "t.b"]),
        ("DELETE FROM t WHERE a IN (SELECT a FROM u)", &[], &[], &[], &["t", "u"], &[]),
        ("UPDATE t SET what what", &[], &[], &[], &[], &[]),
    ];
    for (statement, creates, ensures, drops, tables, writes) in cases {
        let facts = classify(statement);
        assert_eq!(objects(&facts.creates), creates, "creates: {statement}");
        assert_eq!(objects(&facts.ensures), ensures, "ensures: {statement}");
        assert_eq!(objects(&facts.drops), drops, "drops: {statement}");
        assert_eq!(objects(&facts.writes_columns), writes, "writes: {statement}");
        let (mut named, mut expected) = (facts.tables.clone(), tables.to_vec());
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected, "tables: {statement}");
    }
}

#[test]
fn changes_of_shape_are_named() {
    let (table, column) = (|| "t".to_owned(), || "a".to_owned());
    let cases = [
        ("ALTER TABLE t RENAME TO u", Change::RenameTable { table: table(), to: "u".to_owned() }),
        (
            "ALTER TABLE \"t\" RENAME COLUMN [a] TO `b`",
            Change::RenameColumn { table: table(), column: column(), to: "b".to_owned() },
        ),
        ("ALTER TABLE t DROP a", Change::DropColumn { table: table(), column: column() }),
        ("DROP TABLE t", Change::DropTable { table: table() }),
        (
            "DROP TRIGGER IF EXISTS main.g",
            Change::DropTrigger { table: None, trigger: "g".to_owned() },
        ),
    ];
    for (statement, change) in cases {
        assert_eq!(classify(statement).changes, [change], "{statement}");
    }
    assert_eq!(classify("ALTER TABLE t ADD COLUMN b").changes, []);
}

#[test]
fn replacing_is_never_forgiven_as_an_update_of_the_plans_own() {
    let ours = [Object::table("t")];
    let given = |statement: &str| {
        let facts: Facts = classify(statement);
        facts.hazard_given(super::Dialect::Sqlite, &ours)
    };
    assert_eq!(given("UPDATE t SET a = 1"), Hazard::None);
    assert_eq!(given("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 1"), Hazard::None);
    for statement in [
        "UPDATE OR REPLACE t SET a = 1",
        "UPDATE other SET a = 1",
        "UPDATE t SET what what",
        "REPLACE INTO t VALUES (1)",
        "DELETE FROM t",
        "WITH d AS (DELETE FROM other RETURNING *) UPDATE t SET a = 1",
    ] {
        assert!(matches!(given(statement), Hazard::Destructive(_)), "{statement}");
    }
}

/// Ordinary SQLite that sqlparser doesn't read by itself, or might not one day: losing one of these is losing a user's step.
#[test]
fn ordinary_statements_are_read() {
    let statements = [
        "SELECT a FROM t WHERE a IS b",
        "SELECT a IS NOT b FROM t",
        "SELECT a FROM t WHERE a NOT IN u",
        "SELECT a FROM t WHERE a IN main.u",
        "SELECT a FROM t INDEXED BY i",
        "SELECT a FROM t NOT INDEXED WHERE b ISNULL",
        "SELECT a FROM t WHERE b NOTNULL",
        "SELECT a FROM t WHERE b NOT NULL",
        "SELECT CAST(a AS NUMERIC), typeof(a), x'00', 0xff, 1e5, .5, 5. FROM t",
        "SELECT a COLLATE NOCASE FROM t ORDER BY 1 NULLS LAST LIMIT 5 OFFSET 2",
        "SELECT iif(a, b, c), a || b, ~a, a << 2, a & b | c, -a, +a, a % 2, a == b, a <> b, a != b FROM t",
        "SELECT a LIKE 'x' ESCAPE '\\' FROM t",
        "SELECT a GLOB 'x*', a REGEXP 'x', a MATCH 'x' FROM t",
        "SELECT count(*) FILTER (WHERE a), sum(a) OVER (PARTITION BY b ORDER BY c ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t",
        "SELECT group_concat(a, ',' ORDER BY b) FROM t",
        "SELECT row_number() OVER w FROM t WINDOW w AS (ORDER BY a)",
        "SELECT * FROM a NATURAL LEFT JOIN b",
        "SELECT * FROM a LEFT OUTER JOIN b ON a.x = b.x, c CROSS JOIN d",
        "SELECT * FROM (SELECT 1) UNION ALL SELECT 2 EXCEPT SELECT 3",
        "SELECT (a, b) = (1, 2), (a,b) IN (SELECT 1,2) FROM t",
        "SELECT EXISTS (SELECT 1)",
        "SELECT CASE a WHEN 1 THEN 2 ELSE 3 END FROM t",
        "SELECT strftime('%s', 'now'), date(a, '+1 day'), json_extract(a, '$.b'), a->'b', a->>'b' FROM t",
        "SELECT substr(a, 1, 2), instr(a, 'b'), coalesce(a, b), nullif(a, b), ifnull(a,b), printf('%d', a), hex(a), trim(a, 'x'), ltrim(a), round(a, 2), abs(a), unicode(a), char(65) FROM t",
        "INSERT INTO t(a,b) VALUES (1,2) RETURNING *, rowid",
        "INSERT INTO t(a) SELECT a FROM u WHERE true ON CONFLICT DO NOTHING",
        "UPDATE t SET a = a + 1 WHERE rowid IN (SELECT rowid FROM t LIMIT 5) RETURNING a",
        "UPDATE t NOT INDEXED SET a = 1",
        "DELETE FROM t ORDER BY a LIMIT 3",
        "DELETE FROM t AS x WHERE x.a = 1",
        "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c LIMIT 5) SELECT x FROM c",
        "WITH c AS MATERIALIZED (SELECT 1) SELECT * FROM c",
        "WITH c AS NOT MATERIALIZED (SELECT 1) SELECT * FROM c",
        "SELECT a.*, b.c FROM a, b",
        "SELECT \"a\" FROM 'leads'",
        "SELECT * FROM pragma_table_info('t')",
        "SELECT a AS 'x' FROM t",
        "SELECT a x FROM t",
        "SELECT DISTINCT a FROM t GROUP BY a HAVING count(*) > 1",
        "SELECT 1 WHERE 1 BETWEEN 0 AND 2 AND NOT 3 IN (4,5) OR a IS NULL",
        "SELECT a FROM t WHERE a IN ()",
        "SELECT max(a, b), min(a) FROM t",
        "SELECT unixepoch(), datetime('now', 'localtime')",
        "SELECT raise(ABORT, 'x')",
        "SELECT RAISE(IGNORE)",
        "SELECT key, value, type, level, name, user, date, status, timestamp, index_, rank, text FROM t",
        "SELECT new.id, old.\"order\" FROM t",
        "INSERT INTO t SELECT * FROM json_each(new.x) AS j",
        "SELECT a FROM t WHERE b = 'it''s' -- c\n AND d",
        "SELECT 1_000",
        "SELECT * FROM t RIGHT JOIN u USING (a) FULL OUTER JOIN v ON true",
        "SELECT a IS NOT NULL, a IS TRUE, a IS NOT DISTINCT FROM b FROM t",
        "SELECT current_timestamp, CURRENT_DATE",
        "INSERT INTO t (a) VALUES (CURRENT_TIMESTAMP)",
        "SELECT a NOT LIKE b, a NOT GLOB b, a NOT REGEXP b FROM t",
        "SELECT a FROM t WHERE (a, b) > (1, 2) ORDER BY a, b LIMIT 1",
        "SELECT NOT EXISTS (SELECT 1)",
        "SELECT a FROM t LIMIT 5, 10",
        "SELECT total(x), likely(a), likelihood(a, 0.5) FROM t",
        "SELECT 'a' 'b'",
        "UPDATE t SET a = (SELECT b FROM u WHERE u.id = t.id), c = CASE WHEN d THEN 1 END WHERE EXISTS (SELECT 1 FROM u)",
        "UPDATE t SET [a b] = 1, `c` = 2, \"d\" = 3",
        "INSERT INTO t (a) SELECT a FROM u ORDER BY a",
        "INSERT INTO \"t\" VALUES (-1.5e-3, NULL, TRUE, x'AB')",
        "SELECT a FROM t WHERE a = ''",
        "SELECT (SELECT 1), ((2))",
        "SELECT * FROM t AS 'x'",
        "SELECT * FROM generate_series(1, 10) WHERE value % 2 = 0",
        "DELETE FROM t WHERE a IN (WITH x AS (SELECT 1 AS y) SELECT y FROM x)",
        "SELECT a FROM t GROUP BY ALL_",
        "REPLACE INTO t (a, b) SELECT 1, 2",
        "INSERT OR FAIL INTO t VALUES (1)",
        "UPDATE OR FAIL t SET a = 1",
        "UPDATE main.t SET a = 1 FROM (SELECT 1) AS s",
        "SELECT * FROM t WHERE a IS NOT (SELECT 1)",
        "SELECT * FROM t WHERE json_valid(a) AND a ->> '$.b' IS 'c'",
        "SELECT subtype(a) FROM t",
        "SELECT - - 1",
        "SELECT a FROM t WHERE a LIKE ?",
    ];
    for statement in statements {
        if let Err(reason) = super::parse::statement(statement) {
            panic!("{statement}\n  {reason}");
        }
    }
}

#[test]
fn long_and_deep_statements_are_met_calmly() {
    let too_deep = [
        format!("SELECT 1{}", " + 1".repeat(200_000)),
        format!("SELECT * FROM t WHERE a{}", " IS NULL".repeat(100_000)),
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {}1", "NOT ".repeat(100_000)),
        format!("SELECT {}1{}", "CASE WHEN ".repeat(50_000), " THEN 1 END".repeat(50_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(50_000)),
        format!("SELECT * FROM t{}", " JOIN t".repeat(100_000)),
        // A thousand at each of forty levels.
        format!("SELECT {}1{}", format!("({} + ", "1 + ".repeat(1_000)).repeat(40), ")".repeat(40)),
    ];
    for statement in too_deep {
        check(&statement, &Unknown("too deeply"));
    }
    let or = " OR a = 1".repeat(100_000);
    check(&format!("DELETE FROM t WHERE a = 1{or}"), &Destructive("deletes rows"));
    // Long is not deep: 20,000 rows are as good as one.
    check(&format!("INSERT INTO t VALUES (1, -1){}", ", (1, 2 + 3)".repeat(20_000)), &Harmless);
    check(&format!("SELECT 1{}", " + 1".repeat(900)), &Harmless);
}

//! What `retire`, its undo and `drop` leave behind, and what they refuse.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::Sqlite;
use super::fixture::{Database, class, entered, mapping, work};
use crate::copy::chunk::Chunk;
use crate::driver::{
    DualWriter as _, Error, Fence, Losses, Retirer as _, SyncState, Verifier as _,
};
use crate::run::{
    CopyColumns, Direction, FailureClass, Mapping, Permit, Retire, RetireShape, RetiredColumn, Way,
    Winner,
};

const SCHEMA: &str = "
    CREATE TABLE leads (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT UNIQUE, status TEXT);
    CREATE INDEX by_email ON leads (email, id);
    CREATE TRIGGER lower_email AFTER INSERT ON leads WHEN NEW.email <> lower(NEW.email)
      BEGIN UPDATE leads SET email = lower(email) WHERE id = NEW.id; END;
    CREATE TABLE calls (lead INTEGER REFERENCES leads (id) ON DELETE CASCADE);
    CREATE VIEW hot AS SELECT id, email FROM leads;
    CREATE TRIGGER log AFTER INSERT ON calls BEGIN UPDATE leads SET email = email || '!' WHERE id = NEW.lead; END;
    INSERT INTO leads VALUES (1, 'a', 'Open'), (2, 'b', 'Won'), (9, 'z', 'x');
    DELETE FROM leads WHERE id = 9;
    CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT UNIQUE, status_code TEXT);
    CREATE INDEX by_email_2 ON leads_v2 (email, id);
    CREATE TRIGGER lower_email_2 AFTER INSERT ON leads_v2 WHEN NEW.email <> lower(NEW.email)
      BEGIN UPDATE leads_v2 SET email = lower(email) WHERE id = NEW.id; END;
    CREATE TABLE notes (lead INTEGER REFERENCES leads_v2 (id));
    CREATE VIEW codes AS SELECT status_code FROM leads_v2;";

const ALL: Chunk = Chunk { lo: None, hi: None };

fn leads() -> Mapping {
    let mut mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    mapping.columns = vec![("status_code".into(), "lower(leads.status)".into())];
    mapping.reverse = vec![("status".into(), "leads_v2.status_code".into())];
    mapping
}

fn table() -> RetireShape {
    RetireShape::Table { old_name: "leads_old".into(), take_name: true }
}

/// A database where everything before `retire` is done.
struct Ready {
    database: Database,
    sqlite: Sqlite,
    fence: Fence,
    mapping: Mapping,
    direction: Direction,
    shape: RetireShape,
}

impl Ready {
    async fn new(schema: &str, mapping: Mapping, direction: Direction, shape: RetireShape) -> Self {
        let database = Database::with(schema).await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let step = work("sync", Way::Forward);
        sqlite.install(&fence, &step, &mapping, direction).await.unwrap();
        let copied = Mapping { winner: Winner::Old, ..mapping.clone() };
        sqlite.repair_chunk(&fence, &copied, direction, &ALL).await.unwrap();
        Self { database, sqlite, fence, mapping, direction, shape }
    }

    async fn retire(&self) -> Result<(), Error> {
        let step = work("retire", Way::Forward);
        let (mapping, direction) = (&self.mapping, self.direction);
        self.sqlite
            .retire(&self.fence, &step, mapping, direction, &Retire::of(mapping, &self.shape))
            .await
            .map(|_| ())
    }

    async fn unretire(&self, losses: Losses) -> Result<(), Error> {
        let step = work("retire", Way::Back);
        let (mapping, direction) = (&self.mapping, self.direction);
        let done =
            self.sqlite.unretire(&self.fence, &step, mapping, direction, &self.shape, losses);
        done.await.map(|_| ())
    }

    async fn drop_it(&self) -> Result<(), Error> {
        let step = work("drop", Way::Forward);
        let permit = Permit::for_test("drop");
        let done = self.sqlite.drop_retired(&self.fence, &step, &self.mapping, &self.shape, permit);
        done.await.map(|_| ())
    }

    /// The schema without our objects, as SQLite has it.
    async fn schema(&self) -> Vec<String> {
        self.rows("SELECT name || ': ' || sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'phasegate%' ORDER BY 1").await
    }

    async fn rows(&self, query: &str) -> Vec<String> {
        let mut client = self.database.client().await;
        let rows =
            sqlx::query(AssertSqlSafe(query.to_owned())).fetch_all(&mut client).await.unwrap();
        client.close().await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn refuses(&self, sql: &str) -> String {
        let mut client = self.database.client().await;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut client).await;
        let error = done.unwrap_err().to_string();
        client.close().await.unwrap();
        error
    }

    async fn is_active(&self) -> bool {
        let mapping = self.mapping.retired(&self.shape);
        self.sqlite.sync_state(&mapping, self.direction).await == Ok(SyncState::Active)
    }
}

fn details(result: Result<(), Error>) -> String {
    match result {
        Err(Error::Failed(failure)) => {
            format!("{} | {}", failure.message, failure.detail.unwrap_or_default())
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn forward_the_new_table_takes_the_name_and_the_old_one_takes_no_writes() {
    let it = Ready::new(SCHEMA, leads(), Direction::Forward, table()).await;
    it.retire().await.unwrap();
    // Done once: the ledger has it.
    it.retire().await.unwrap();
    let error = it.refuses("DELETE FROM leads_old").await;
    assert!(error.contains("put aside"), "{error}");
    it.refuses("INSERT INTO leads_old (email) VALUES ('q')").await;
    it.refuses("UPDATE leads_old SET email = 'q'").await;
    // No number is drawn twice: 9 was given and deleted.
    it.database.run("INSERT INTO leads (email, status_code) VALUES ('NEW', 'x'); INSERT INTO calls VALUES (10)").await;
    assert_eq!(it.rows("SELECT id || email FROM hot ORDER BY id").await, ["1a", "2b", "10new!"]);
    assert_eq!(it.rows("SELECT count(*) || '' FROM codes").await, ["3"]);
    it.refuses("INSERT INTO calls VALUES (77)").await;
    it.refuses("INSERT INTO notes VALUES (77)").await;
    it.database.run("DELETE FROM leads WHERE id = 10; INSERT INTO notes VALUES (1)").await;
    assert_eq!(it.database.number("SELECT count(*) FROM calls").await, 0);
    it.drop_it().await.unwrap();
    it.drop_it().await.unwrap();
    assert_eq!(
        it.database.number("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'leads_old'").await,
        0
    );
    assert_eq!(it.database.number("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'phasegate%'").await, 0);
    assert_eq!(it.rows("PRAGMA integrity_check").await, ["ok"]);
}

#[tokio::test]
async fn both_ways_no_number_is_given_twice() {
    let it = Ready::new(SCHEMA, leads(), Direction::Both, table()).await;
    // 9 was given and its row is gone.
    it.database.run("INSERT INTO leads_v2 (email) VALUES ('n')").await;
    it.database
        .run("DELETE FROM leads_v2 WHERE id = 10; INSERT INTO leads (email) VALUES ('o')")
        .await;
    let ids = "SELECT group_concat(id) FROM (SELECT id FROM leads_v2 ORDER BY id)";
    assert_eq!(it.rows(ids).await, ["1,2,11"]);
}

#[tokio::test]
async fn both_ways_the_sync_lives_on_under_the_new_names() {
    let it = Ready::new(SCHEMA, leads(), Direction::Both, table()).await;
    it.retire().await.unwrap();
    assert!(it.is_active().await);
    it.database.run("UPDATE leads SET status_code = 'lost' WHERE id = 1; INSERT INTO leads (email, status_code) VALUES ('NEW', 'n')").await;
    let old = ["1 a lost", "2 b Won", "10 new n"];
    assert_eq!(
        it.rows("SELECT id || ' ' || email || ' ' || status FROM leads_old ORDER BY id").await,
        old
    );
    let after = it.mapping.retired(&it.shape);
    assert!(it.sqlite.compare_chunk(&after, Direction::Both, &ALL).await.unwrap().is_clean());
    it.unretire(Losses::Refused).await.unwrap();
    assert_eq!(
        it.rows("SELECT id || ' ' || email || ' ' || status FROM leads ORDER BY id").await,
        old
    );
    assert_eq!(it.sqlite.sync_state(&it.mapping, Direction::Both).await, Ok(SyncState::Active));
    it.database.run("UPDATE leads SET status = 'Again'").await;
    assert_eq!(it.rows("SELECT DISTINCT status_code FROM leads_v2").await, ["again"]);
}

#[tokio::test]
async fn taking_it_back_leaves_the_schema_as_it_was() {
    for direction in [Direction::Forward, Direction::Both] {
        for take_name in [true, false] {
            let shape = RetireShape::Table { old_name: "leads_old".into(), take_name };
            let it = Ready::new(SCHEMA, leads(), direction, shape).await;
            let before = it.schema().await;
            it.retire().await.unwrap();
            assert_ne!(it.schema().await, before);
            it.unretire(Losses::Refused).await.unwrap();
            it.unretire(Losses::Refused).await.unwrap();
            let plain = |schema: Vec<String>| -> Vec<String> {
                schema.iter().map(|line| line.replace('"', "")).collect()
            };
            assert_eq!(plain(it.schema().await), plain(before));
            assert_eq!(it.rows("PRAGMA integrity_check").await, ["ok"]);
            it.database.run("INSERT INTO leads (email, status) VALUES ('Q', 'X')").await;
            assert_eq!(
                it.rows("SELECT email || status_code FROM leads_v2 ORDER BY id DESC LIMIT 1").await,
                ["qx"]
            );
        }
    }
}

#[tokio::test]
async fn forward_writes_to_the_new_side_alone_are_not_lost_without_a_word() {
    let it = Ready::new(SCHEMA, leads(), Direction::Forward, table()).await;
    it.retire().await.unwrap();
    it.database.run("UPDATE leads SET status_code = 'changed' WHERE id = 1; INSERT INTO leads (email) VALUES ('n')").await;
    let refused = it.unretire(Losses::Refused).await;
    let Err(Error::Failed(failure)) = &refused else { panic!("{refused:?}") };
    assert_eq!(failure.class, FailureClass::Unsafe);
    assert!(failure.message.contains("1 are only there, 1 differ"), "{}", failure.message);
    assert!(failure.help.as_deref().unwrap().contains("--accept-loss leads"));
    assert_eq!(it.database.number("SELECT count(*) FROM leads_old").await, 2);
    it.unretire(Losses::Accepted).await.unwrap();
    assert_eq!(it.database.number("SELECT count(*) FROM leads").await, 2);
}

#[tokio::test]
async fn forward_the_old_table_lets_go_of_what_it_refers_to() {
    let schema = "
        CREATE TABLE regions (id INTEGER PRIMARY KEY);
        INSERT INTO regions VALUES (1), (2), (3);
        CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT, status TEXT, boss INT REFERENCES leads (id),
          region INT CONSTRAINT r REFERENCES regions (id) ON DELETE CASCADE, FOREIGN KEY (region) REFERENCES regions);
        INSERT INTO leads VALUES (1, 'a', 'Open', NULL, 1), (2, 'b', 'Won', 1, 2);
        CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT, status_code TEXT, boss INT REFERENCES leads_v2 (id),
          region INT REFERENCES regions (id) ON DELETE CASCADE);";
    for take_name in [true, false] {
        let shape = RetireShape::Table { old_name: "leads_old".into(), take_name };
        let it = Ready::new(schema, leads(), Direction::Forward, shape).await;
        let before = it.schema().await;
        it.retire().await.unwrap();
        let new = if take_name { "leads" } else { "leads_v2" };
        it.database
            .run(&format!(
                "UPDATE {new} SET boss = NULL; DELETE FROM regions WHERE id = 1; DELETE FROM {new} WHERE id = 2"
            ))
            .await;
        assert_eq!(it.rows(&format!("SELECT email FROM {new}")).await, [""; 0]);
        assert_eq!(it.rows("SELECT email FROM leads_old").await, ["a", "b"]);
        it.database.run("ALTER TABLE leads_old ADD COLUMN late INT").await;
        assert_eq!(class(it.unretire(Losses::Accepted).await), FailureClass::Stale);
        it.database.run("ALTER TABLE leads_old DROP COLUMN late").await;
        it.unretire(Losses::Accepted).await.unwrap();
        // A rename quotes the name it writes.
        let plain = |lines: Vec<String>| lines.join("\n").replace('"', "");
        assert_eq!(plain(it.schema().await), plain(before));
        assert_eq!(it.rows("PRAGMA integrity_check").await, ["ok"]);
    }
}

#[tokio::test]
async fn what_the_new_table_lacks_is_listed_as_statements_that_mend_it() {
    let schema = SCHEMA.replace("CREATE INDEX by_email_2 ON leads_v2 (email, id);", "").replace(
        "leads_v2 (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT UNIQUE",
        "leads_v2 (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT",
    );
    let cut = schema.find("CREATE TRIGGER lower_email_2").unwrap();
    let end = cut + schema[cut..].find("END;").unwrap() + 4;
    let schema = format!(
        "{}{} CREATE UNIQUE INDEX part ON leads (lower(email)) WHERE email > '';",
        &schema[..cut],
        &schema[end..]
    );
    let it = Ready::new(&schema, leads(), Direction::Forward, table()).await;
    let refused = it.retire().await;
    let Err(Error::Failed(failure)) = &refused else { panic!("{refused:?}") };
    let statements = failure.detail.clone().unwrap();
    assert_eq!(statements.matches("CREATE").count(), 4, "{statements}");
    it.database.run(&statements).await;
    it.retire().await.unwrap();
    it.refuses("INSERT INTO leads (email) VALUES ('A')").await;
}

#[tokio::test]
async fn what_would_no_longer_work_is_refused_by_name() {
    for (object, name) in [
        ("CREATE VIEW shows AS SELECT status FROM leads", "shows"),
        ("CREATE VIEW joins AS SELECT 1 FROM leads JOIN leads_v2 USING (id)", "joins"),
        (
            "CREATE TRIGGER writes AFTER INSERT ON calls BEGIN UPDATE leads SET status = 'called'; END",
            "writes",
        ),
        ("CREATE TABLE refers (email REFERENCES leads (status))", "refers"),
    ] {
        let it =
            Ready::new(&format!("{SCHEMA} {object};"), leads(), Direction::Forward, table()).await;
        let before = it.schema().await;
        let done = it.retire().await;
        assert!(done.is_err(), "{object}");
        let said = details(done);
        assert!(said.contains(name), "{object}: {said}");
        assert_eq!(it.schema().await, before);
        assert!(
            it.sqlite.sync_state(&it.mapping, Direction::Forward).await == Ok(SyncState::Active)
        );
    }
}

#[tokio::test]
async fn drop_names_what_depends_on_the_table_put_aside() {
    for direction in [Direction::Forward, Direction::Both] {
        let it = Ready::new(SCHEMA, leads(), direction, table()).await;
        it.retire().await.unwrap();
        it.database.run("CREATE VIEW late AS SELECT * FROM leads_old; CREATE TABLE child (x REFERENCES leads_old (id));
            CREATE TRIGGER reads_it AFTER INSERT ON child BEGIN SELECT count(*) FROM leads_old; END").await;
        let said = details(it.drop_it().await);
        for name in ["view late", "trigger reads_it", "foreign key of child"] {
            assert!(said.contains(name), "{said}");
        }
        it.database.run("DROP VIEW late; DROP TABLE child").await;
        it.drop_it().await.unwrap();
        it.database
            .run("INSERT INTO leads (email, status_code) VALUES ('after', 'x'); DELETE FROM leads")
            .await;
    }
}

#[tokio::test]
async fn a_permit_for_something_else_drops_nothing() {
    let it = Ready::new(SCHEMA, leads(), Direction::Forward, table()).await;
    it.retire().await.unwrap();
    let step = work("drop", Way::Forward);
    let permit = Permit::for_test("other");
    let done = it.sqlite.drop_retired(&it.fence, &step, &it.mapping, &it.shape, permit).await;
    assert_eq!(class(done), FailureClass::Unsafe);
    assert_eq!(it.database.number("SELECT count(*) FROM leads_old").await, 2);
}

const PEOPLE: &str = "
    CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT, email_v2 TEXT, other TEXT);
    CREATE INDEX by_email ON people (email);
    CREATE INDEX by_email_2 ON people (email_v2);
    CREATE VIEW mails AS SELECT id, email FROM people;
    CREATE TRIGGER mails_in INSTEAD OF INSERT ON mails BEGIN INSERT INTO people (email) VALUES (NEW.email); END;
    INSERT INTO people (id, email) VALUES (1, 'A@B'), (2, 'C@D');";

fn people() -> Mapping {
    let mut mapping = mapping(("people", &["id"]), ("people", &["id"]));
    mapping.copy = CopyColumns::Listed;
    mapping.columns = vec![("email_v2".into(), "lower(email)".into())];
    mapping.reverse = vec![("email".into(), "email_v2".into())];
    mapping
}

fn columns() -> RetireShape {
    RetireShape::Columns(vec![RetiredColumn {
        column: "email".into(),
        old_name: "email_old".into(),
        take_name: Some("email_v2".into()),
    }])
}

#[tokio::test]
async fn columns_take_names_and_what_names_them_follows_the_name() {
    for direction in [Direction::Forward, Direction::Both] {
        let it = Ready::new(PEOPLE, people(), direction, columns()).await;
        it.retire().await.unwrap();
        assert_eq!(it.rows("SELECT email FROM mails ORDER BY id").await, ["a@b", "c@d"]);
        it.database.run("UPDATE people SET email = 'new' WHERE id = 1").await;
        let expected = if direction == Direction::Both { "new" } else { "A@B" };
        assert_eq!(it.rows("SELECT email_old FROM people WHERE id = 1").await, [expected]);
        if direction == Direction::Both {
            assert!(it.is_active().await);
            it.database.run("UPDATE people SET email_old = 'OLD' WHERE id = 2").await;
            assert_eq!(it.rows("SELECT email FROM people WHERE id = 2").await, ["old"]);
            let after = it.mapping.retired(&it.shape);
            assert!(it.sqlite.compare_chunk(&after, direction, &ALL).await.unwrap().is_clean());
        }
        it.drop_it().await.unwrap();
        it.database.run("INSERT INTO mails (email) VALUES ('last')").await;
        assert_eq!(it.rows("SELECT email FROM people WHERE id = 3").await, ["last"]);
        let columns = "SELECT group_concat(name) FROM pragma_table_info('people')";
        assert_eq!(it.rows(columns).await, ["id,email,other"]);
    }
}

#[tokio::test]
async fn forward_columns_put_aside_let_go_of_what_they_refer_to() {
    let schema = "
        CREATE TABLE regions (id INTEGER PRIMARY KEY);
        INSERT INTO regions VALUES (1), (2);
        CREATE TABLE c (id INTEGER PRIMARY KEY, region INT REFERENCES regions ON DELETE CASCADE, region_v2 INT REFERENCES regions);
        INSERT INTO c VALUES (1, 1, NULL), (2, 2, NULL);";
    let mut mapping = mapping(("c", &["id"]), ("c", &["id"]));
    mapping.columns = vec![("region_v2".into(), "region + 0".into())];
    let shape = RetireShape::Columns(vec![RetiredColumn {
        column: "region".into(),
        old_name: "region_old".into(),
        take_name: Some("region_v2".into()),
    }]);
    let it = Ready::new(schema, mapping, Direction::Forward, shape).await;
    let before = it.schema().await;
    it.retire().await.unwrap();
    it.database.run("UPDATE c SET region = 2; DELETE FROM regions WHERE id = 1").await;
    assert_eq!(it.rows("SELECT id || ' ' || region FROM c").await, ["1 2", "2 2"]);
    assert!(it.refuses("DELETE FROM regions WHERE id = 2").await.contains("FOREIGN KEY"));
    it.unretire(Losses::Accepted).await.unwrap();
    let plain = |lines: Vec<String>| lines.join("\n").replace('"', "");
    assert_eq!(plain(it.schema().await), plain(before));
}

#[tokio::test]
async fn taking_columns_back() {
    for direction in [Direction::Forward, Direction::Both] {
        let it = Ready::new(PEOPLE, people(), direction, columns()).await;
        let before = it.schema().await;
        it.retire().await.unwrap();
        it.unretire(Losses::Refused).await.unwrap();
        let plain =
            |schema: Vec<String>| schema.iter().map(|l| l.replace('"', "")).collect::<Vec<_>>();
        assert_eq!(plain(it.schema().await), plain(before));
        it.database.run("UPDATE people SET email = 'X' WHERE id = 1").await;
        assert_eq!(it.rows("SELECT email_v2 FROM people WHERE id = 1").await, ["x"]);
    }
    let it = Ready::new(PEOPLE, people(), Direction::Forward, columns()).await;
    it.retire().await.unwrap();
    it.database.run("UPDATE people SET email = 'only new' WHERE id = 1").await;
    assert_eq!(class(it.unretire(Losses::Refused).await), FailureClass::Unsafe);
}

#[tokio::test]
async fn columns_that_can_not_go_are_refused_before_anything_changes() {
    let strict = PEOPLE.replace("email TEXT,", "email TEXT NOT NULL,");
    let it = Ready::new(&strict, people(), Direction::Forward, columns()).await;
    assert!(details(it.retire().await).contains("people.email is NOT NULL"));
    let unindexed = PEOPLE.replace("CREATE INDEX by_email_2 ON people (email_v2);", "");
    let it = Ready::new(&unindexed, people(), Direction::Forward, columns()).await;
    let said = details(it.retire().await);
    assert!(
        said.contains("CREATE INDEX \"people_email_v2\" ON \"people\" (\"email_v2\")"),
        "{said}"
    );
}

#[tokio::test]
async fn removing_the_sync_going_back_empties_what_was_found_empty() {
    for direction in [Direction::Forward, Direction::Both] {
        for (schema, mapping, left) in [
            (SCHEMA.to_owned(), leads(), "SELECT count(*) FROM leads_v2"),
            (
                SCHEMA.replace(
                    "CREATE VIEW codes",
                    "INSERT INTO leads_v2 VALUES (5, 'own', 'x'); CREATE VIEW codes",
                ),
                leads(),
                "SELECT count(*) - 3 FROM leads_v2",
            ),
            (PEOPLE.to_owned(), people(), "SELECT count(email_v2) FROM people"),
        ] {
            let extra = schema.contains("'own'");
            let mapping = Mapping { on_existing: crate::run::OnExisting::Keep, ..mapping };
            let database = Database::with(&schema).await;
            let sqlite = database.open().await;
            let (fence, _) = entered(&sqlite, 1).await;
            sqlite.install(&fence, &work("sync", Way::Forward), &mapping, direction).await.unwrap();
            database
                .run(if schema.contains("leads") {
                    "UPDATE leads SET status = 'y'; "
                } else {
                    "UPDATE people SET email = email || 'x'"
                })
                .await;
            let olds = if schema.contains("leads") {
                "SELECT count(*) FROM leads"
            } else {
                "SELECT count(email) FROM people"
            };
            let back =
                sqlite.remove(&fence, &work("sync", Way::Back), &mapping, direction).await.unwrap();
            assert_eq!(back.rows, if extra { 0 } else { 2 });
            assert_eq!(database.number(left).await, 0);
            assert_eq!(database.number(olds).await, 2);
            assert!(
                sqlite
                    .remove(&fence, &work("sync", Way::Back), &mapping, direction)
                    .await
                    .unwrap()
                    .before
            );
            assert!(matches!(
                sqlite.sync_state(&mapping, direction).await,
                Ok(SyncState::Broken(_))
            ));
        }
    }
}

#[tokio::test]
async fn a_sync_that_was_tampered_with_is_broken() {
    let it = Ready::new(SCHEMA, leads(), Direction::Both, table()).await;
    assert_eq!(it.sqlite.sync_state(&it.mapping, Direction::Both).await, Ok(SyncState::Active));
    let said = |state: Result<SyncState, Error>| match state {
        Ok(SyncState::Broken(said)) => said,
        other => panic!("{other:?}"),
    };
    // With forward only, the triggers of the other way don't belong there.
    let other_way = said(it.sqlite.sync_state(&it.mapping, Direction::Forward).await);
    assert!(other_way.contains("does not belong"), "{other_way}");
    let name =
        it.rows("SELECT name FROM sqlite_schema WHERE name LIKE 'phasegate%a_au'").await.remove(0);
    it.database.run(&format!("DROP TRIGGER {name}")).await;
    let missing = said(it.sqlite.sync_state(&it.mapping, Direction::Both).await);
    assert!(missing.contains("is missing"), "{missing}");
    it.database
        .run(&format!("CREATE TRIGGER {name} AFTER UPDATE ON leads BEGIN SELECT 1; END"))
        .await;
    let changed = said(it.sqlite.sync_state(&it.mapping, Direction::Both).await);
    assert!(changed.contains("was changed"), "{changed}");
}

#[tokio::test]
async fn what_can_not_be_kept_in_step_is_refused() {
    let base = mapping(("o", &["id"]), ("n", &["id"]));
    let with = |columns: &[(&str, &str)], reverse: &[(&str, &str)]| {
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
        };
        Mapping { columns: own(columns), reverse: own(reverse), ..base.clone() }
    };
    let plain = "CREATE TABLE o (id INTEGER PRIMARY KEY, a TEXT); CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT, b TEXT);";
    let cases = [
        (plain, with(&[("b", "nowhere")], &[]), Direction::Forward, "no such column: nowhere"),
        (plain, with(&[("b", "\"some text\"")], &[]), Direction::Forward, "names no column"),
        (plain, with(&[("id", "id + 1")], &[]), Direction::Forward, "keys are copied as they are"),
        (plain, with(&[("b", "upper(a)"), ("a", "lower(a)")], &[]), Direction::Both, "nothing says how a write"),
        ("CREATE TABLE o (id TEXT PRIMARY KEY, a); CREATE TABLE n (id TEXT NOT NULL PRIMARY KEY);", base.clone(), Direction::Forward, "can be NULL"),
        ("CREATE TABLE o (id INTEGER, a); CREATE TABLE n (id INTEGER PRIMARY KEY);", base.clone(), Direction::Forward, "not unique"),
        ("CREATE TABLE o (id INTEGER PRIMARY KEY, a); CREATE TABLE n (id TEXT NOT NULL PRIMARY KEY);", base.clone(), Direction::Forward, "not compared alike"),
        ("CREATE TABLE o (id TEXT NOT NULL PRIMARY KEY); CREATE TABLE n (id TEXT NOT NULL COLLATE NOCASE PRIMARY KEY);", base.clone(), Direction::Forward, "not compared alike"),
        ("CREATE VIEW o AS SELECT 1 AS id; CREATE TABLE n (id INTEGER PRIMARY KEY);", base.clone(), Direction::Forward, "not a table"),
        ("CREATE TABLE n (id INTEGER PRIMARY KEY);", base.clone(), Direction::Forward, "no table o"),
        ("CREATE TABLE o (id INTEGER PRIMARY KEY, a); CREATE TABLE n (id INTEGER PRIMARY KEY, a);
          CREATE TRIGGER back AFTER UPDATE ON n BEGIN UPDATE o SET a = NEW.a; END;", base.clone(), Direction::Forward, "trigger back"),
        ("CREATE TABLE o (id INTEGER PRIMARY KEY, a, b GENERATED ALWAYS AS (a)); CREATE TABLE n (id INTEGER PRIMARY KEY, b GENERATED ALWAYS AS (1), a);",
         with(&[("b", "a")], &[]), Direction::Forward, "is generated"),
    ];
    for (schema, mapping, direction, expected) in cases {
        let database = Database::with(schema).await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let done = sqlite.install(&fence, &work("sync", Way::Forward), &mapping, direction).await;
        let said = details(done.map(|_| ()));
        assert!(said.contains(expected), "{schema}: {said}");
        assert_eq!(database.number("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'phasegate%'").await, 0);
    }
    let mut in_place = mapping(("n", &["id"]), ("n", &["id"]));
    in_place.columns = vec![("a".into(), "a || 'x'".into())];
    let database = Database::with(plain).await;
    let sqlite = database.open().await;
    let (fence, _) = entered(&sqlite, 1).await;
    let done =
        sqlite.install(&fence, &work("sync", Way::Forward), &in_place, Direction::Forward).await;
    assert!(details(done.map(|_| ())).contains("which the mapping writes itself"));
}

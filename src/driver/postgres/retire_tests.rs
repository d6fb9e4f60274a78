//! Retiring, taking back and dropping, on real tables with clients at work between the steps.
//!
//! The test server's role is called as our schema, which therefore comes first on its path: functions name theirs.
#![allow(clippy::unwrap_used, missing_docs)]

use super::Postgres;
use super::error::code;
use super::fixture::{Database, class, entered, mapping, work};
use super::retire_carry_tests::catalogue;
use super::retire_columns_tests::users;
use super::sync_tests::say;
use crate::driver::{Applied, DualWriter as _, Error, Fence, Losses, Retirer as _, SyncState};
use crate::run::{Direction, FailureClass, Mapping, Permit, Retire, RetireShape, Way};

const SCHEMA: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY);
    INSERT INTO accounts SELECT generate_series(1, 9);
    CREATE TABLE leads (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE, status text,
        account_id bigint REFERENCES accounts (id));
    CREATE INDEX leads_status ON leads (status);
    CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL);
    ALTER TABLE leads_v2 ADD COLUMN code text;
    ALTER TABLE leads_v2 ADD FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE SET NULL;
    ALTER TABLE leads_v2 ADD CONSTRAINT same FOREIGN KEY (account_id) REFERENCES accounts (id);
    ALTER TABLE leads_v2 DROP CONSTRAINT leads_v2_account_id_fkey, DROP CONSTRAINT same;";

fn leads() -> Mapping {
    Mapping {
        columns: vec![("code".into(), "lower(status)".into())],
        ..mapping(("leads", &["id"]), ("leads_v2", &["id"]))
    }
}

fn two_way() -> Mapping {
    Mapping { reverse: vec![("status".into(), "coalesce(code, status)".into())], ..leads() }
}

pub(super) fn whole(take_name: bool) -> RetireShape {
    RetireShape::Table { old_name: "leads_old".into(), take_name }
}

/// A database with a live sync, both sides filled through it.
pub(super) struct Live {
    pub database: Database,
    pub postgres: Postgres,
    pub fence: Fence,
    pub mapping: Mapping,
    pub direction: Direction,
}

impl Live {
    pub(super) async fn of(setup: &str, mapping: Mapping, direction: Direction) -> Option<Self> {
        let database = Database::with(setup).await?;
        let postgres = database.open().await;
        let fence = entered(&postgres, 1).await.remove(0);
        let sync = work("sync", Way::Forward);
        postgres.install(&fence, &sync, &mapping, direction).await.unwrap();
        Some(Self { database, postgres, fence, mapping, direction })
    }

    async fn leads(direction: Direction) -> Option<Self> {
        let mapping = if direction == Direction::Both { two_way() } else { leads() };
        let keys = "ALTER TABLE leads_v2 ADD FOREIGN KEY (account_id) REFERENCES accounts (id)";
        let live = Self::of(&format!("{SCHEMA} {keys}"), mapping, direction).await?;
        let rows = "INSERT INTO leads (email, status, account_id)
            SELECT 'e' || n, 'Hot', n FROM generate_series(1, 5) AS n";
        live.database.run(rows).await;
        Some(live)
    }

    pub(super) async fn retire(&self, shape: &RetireShape) -> Result<Applied, Error> {
        self.retire_knowing(shape, &[]).await
    }

    /// The same where functions that name the old shape are known.
    pub(super) async fn retire_knowing(
        &self,
        shape: &RetireShape,
        known: &[&str],
    ) -> Result<Applied, Error> {
        let known = known.iter().map(|name| (*name).to_owned()).collect();
        let retire = Retire { known, ..Retire::of(&self.mapping, shape) };
        let work = work("retire", Way::Forward);
        self.postgres.retire(&self.fence, &work, &self.mapping, self.direction, &retire).await
    }

    pub(super) async fn unretire(
        &self,
        shape: &RetireShape,
        losses: Losses,
    ) -> Result<Applied, Error> {
        let work = work("retire", Way::Back);
        self.postgres
            .unretire(&self.fence, &work, &self.mapping, self.direction, shape, losses)
            .await
    }

    /// What taking it back needs where clients wrote since, though nothing of that stayed: with `forward` any write counts.
    pub(super) fn where_written(&self) -> Losses {
        if self.direction == Direction::Forward { Losses::Accepted } else { Losses::Refused }
    }

    pub(super) async fn drop(&self, shape: &RetireShape) -> Result<Applied, Error> {
        let work = work("drop", Way::Forward);
        let permit = Permit::for_test("drop");
        self.postgres.drop_retired(&self.fence, &work, &self.mapping, shape, permit).await
    }

    pub(super) async fn sync(&self) -> SyncState {
        self.postgres.sync_state(&self.mapping, self.direction).await.unwrap()
    }

    /// The SQLSTATE that a client's statement ends with.
    pub(super) async fn refused(&self, sql: &str) -> String {
        let mut client = self.database.client().await;
        let done = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut client).await;
        code(&done.unwrap_err()).unwrap().to_owned()
    }

    /// So that a step can be done again.
    pub(super) async fn ledger_forgets(&self, step: &str) {
        let sql = format!("DELETE FROM phasegate.steps WHERE step IN ('{step}', '{step}/carried')");
        self.database.run(&sql).await;
    }

    pub(super) async fn ours_left(&self) -> i64 {
        let triggers =
            "SELECT (SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                WHERE p.pronamespace = 'phasegate'::regnamespace)
            + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'phasegate'::regnamespace)";
        self.database.number(triggers).await
    }
}

pub(super) fn failure(result: Result<Applied, Error>) -> (FailureClass, String) {
    match result {
        Err(Error::Failed(failure)) => {
            (failure.class, format!("{} | {}", failure.message, failure.detail.unwrap_or_default()))
        }
        other => panic!("not a plain failure: {other:?}"),
    }
}

#[tokio::test]
async fn forward_the_new_table_takes_the_name_and_a_guard_refuses_writes_to_the_old() {
    let Some(live) = Live::leads(Direction::Forward).await else { return };
    let database = &live.database;
    database
        .run("GRANT SELECT, INSERT ON leads TO PUBLIC; GRANT UPDATE (status) ON leads TO PUBLIC")
        .await;
    let detail = live.retire(&whole(true)).await.unwrap().detail.unwrap();
    assert!(
        detail.starts_with("clients were held for ")
            && detail.contains(
                "leads is now leads_old; leads_v2 is now leads; public.leads_id_seq belongs to leads.id"
            ),
        "{detail}"
    );
    // The ledger has all but the time, which is known only when it is over.
    let again = live.retire(&whole(true)).await.unwrap();
    assert!(again.before && detail.ends_with(&format!("; {}", again.detail.unwrap())), "{detail}");

    for sql in [
        "INSERT INTO leads_old (email) VALUES ('x')",
        "UPDATE leads_old SET email = 'x' WHERE id = 1",
        "DELETE FROM leads_old",
        "TRUNCATE leads_old",
    ] {
        assert_eq!(live.refused(sql).await, "PG001", "{sql}");
    }
    // The new table draws on from the same sequence (which the refused insert has moved), has the grants, and its rows can be written.
    database.run("INSERT INTO leads (email, code) VALUES ('fresh', 'warm')").await;
    assert_eq!(database.number("SELECT id FROM leads WHERE email = 'fresh'").await, 7);
    let granted = "SELECT string_agg(privilege_type, ',' ORDER BY 1) FROM information_schema.role_table_grants
        WHERE table_name = 'leads' AND grantee = 'PUBLIC'";
    assert_eq!(database.text(granted).await, "INSERT,SELECT");
    assert_eq!(
        database.text("SELECT has_column_privilege('public', 'leads', 'status', 'UPDATE')").await,
        "true"
    );
    // A row put aside holds nobody back.
    database.run("DELETE FROM leads WHERE account_id = 3; DELETE FROM accounts WHERE id = 3").await;

    let (class, message) = failure(live.unretire(&whole(true), Losses::Refused).await);
    assert_eq!(class, FailureClass::Unsafe);
    assert!(message.contains("1 rows are missing there, 1 are only there, 0 differ"), "{message}");
    live.unretire(&whole(true), Losses::Accepted).await.unwrap();
    assert_eq!(live.sync().await, SyncState::Active);
    assert_eq!(database.number("SELECT count(*) FROM leads WHERE email = 'fresh'").await, 0);
    // The sequence came back with it, beyond what the other table drew.
    let owner = "SELECT pg_get_serial_sequence('leads', 'id')";
    assert_eq!(database.text(owner).await, "public.leads_id_seq");
    // Lead 3 has no account any more: its foreign key is back for what is written from now on.
    let key = "SELECT convalidated FROM pg_constraint WHERE conname = 'leads_account_id_fkey'";
    assert_eq!(database.text(key).await, "false");
    assert_eq!(live.refused("UPDATE leads SET account_id = 77 WHERE id = 1").await, "23503");
    let guards = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'phasegate_guard%'";
    assert_eq!(database.number(guards).await, 0);
}

#[tokio::test]
async fn forward_and_unwritten_it_is_taken_back_whole_and_then_dropped() {
    let Some(live) = Live::leads(Direction::Forward).await else { return };
    live.retire(&whole(true)).await.unwrap();
    live.unretire(&whole(true), Losses::Refused).await.unwrap();
    assert_eq!(live.sync().await, SyncState::Active);
    let key = "SELECT convalidated FROM pg_constraint WHERE conname = 'leads_account_id_fkey'";
    assert_eq!(live.database.text(key).await, "true");
    live.database.run("INSERT INTO leads (email, status) VALUES ('later', 'Cold')").await;
    let copied = "SELECT count(*) FROM leads_v2 WHERE email = 'later' AND code = 'cold'";
    assert_eq!(live.database.number(copied).await, 1);

    let again = work("again", Way::Forward);
    let shape = whole(true);
    live.postgres
        .retire(
            &live.fence,
            &again,
            &live.mapping,
            live.direction,
            &Retire::of(&live.mapping, &shape),
        )
        .await
        .unwrap();
    let wrong = Permit::for_test("other");
    let step = work("drop", Way::Forward);
    let refused =
        live.postgres.drop_retired(&live.fence, &step, &live.mapping, &shape, wrong).await;
    assert_eq!(class(refused), FailureClass::Unsafe);
    live.database.run("CREATE VIEW late AS SELECT * FROM leads_old").await;
    let (class, message) = failure(live.drop(&shape).await);
    assert!(class == FailureClass::Refused && message.contains("view late"), "{message}");
    live.database.run("DROP VIEW late").await;
    let dropped = live.drop(&shape).await.unwrap();
    let detail = dropped.detail.unwrap();
    assert!(detail.starts_with("clients were held for "), "{detail}");
    assert!(detail.ends_with("; leads_old is gone"), "{detail}");
    assert!(live.drop(&shape).await.unwrap().before);
    assert_eq!(live.database.text("SELECT to_regclass('leads_old')").await, "NULL");
    assert_eq!(live.ours_left().await, 0);
    live.database.run("INSERT INTO leads (email) VALUES ('last')").await;
    assert_eq!(live.database.number("SELECT count(*) FROM leads").await, 7);
}

#[tokio::test]
async fn both_ways_the_sync_lives_on_under_the_new_names_until_the_drop() {
    for take_name in [true, false] {
        let Some(live) = Live::leads(Direction::Both).await else { return };
        let (database, shape) = (&live.database, whole(take_name));
        live.retire(&shape).await.unwrap();
        let new = if take_name { "leads" } else { "leads_v2" };
        let after = live.mapping.retired(&shape);
        let state = live.postgres.sync_state(&after, Direction::Both).await.unwrap();
        assert_eq!(state, SyncState::Active, "{take_name}");
        database.run(&format!("INSERT INTO {new} (email, code) VALUES ('n', 'warm')")).await;
        database.run(&format!("UPDATE {new} SET code = 'cold' WHERE id = 1")).await;
        database.run(&format!("DELETE FROM {new} WHERE id = 2")).await;
        database.run("UPDATE leads_old SET email = 'changed' WHERE id = 4").await;
        assert_eq!(database.text("SELECT status FROM leads_old WHERE email = 'n'").await, "warm");
        assert_eq!(database.text("SELECT status FROM leads_old WHERE id = 1").await, "cold");
        assert_eq!(
            database.number(&format!("SELECT count(*) FROM {new} WHERE email = 'changed'")).await,
            1
        );

        live.unretire(&shape, Losses::Refused).await.unwrap();
        assert_eq!(live.sync().await, SyncState::Active);
        let kept = "SELECT string_agg(email || ':' || status, ' ' ORDER BY id) FROM leads";
        assert_eq!(database.text(kept).await, "e1:cold e3:Hot changed:Hot e5:Hot n:warm");

        let again = work("again", Way::Forward);
        live.postgres
            .retire(
                &live.fence,
                &again,
                &live.mapping,
                Direction::Both,
                &Retire::of(&live.mapping, &shape),
            )
            .await
            .unwrap();
        live.drop(&shape).await.unwrap();
        assert_eq!(live.ours_left().await, 0);
        let insert = format!("INSERT INTO {new} (email) VALUES ('last')");
        database.run(&insert).await;
        assert_eq!(database.number(&format!("SELECT count(*) FROM {new}")).await, 6);
    }
}

#[tokio::test]
async fn what_would_go_on_using_the_old_table_is_named() {
    let Some(live) = Live::leads(Direction::Forward).await else { return };
    for (make, named, remove) in [
        (
            "CREATE MATERIALIZED VIEW m AS SELECT 1 FROM leads",
            "materialized view m",
            "DROP MATERIALIZED VIEW m",
        ),
        (
            "CREATE FUNCTION public.f() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM leads; END",
            "function f()",
            "DROP FUNCTION f",
        ),
        (
            "CREATE FUNCTION public.g(leads) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "function g(leads)",
            "DROP FUNCTION g",
        ),
        (
            "CREATE TABLE holds (l leads)",
            "column l of table holds: uses its row type",
            "DROP TABLE holds",
        ),
        (
            "CREATE RULE r AS ON DELETE TO accounts DO ALSO DELETE FROM leads",
            "rule r on table accounts",
            "DROP RULE r ON accounts",
        ),
        ("CREATE DOMAIN odd AS leads", "type odd: uses its row type", "DROP DOMAIN odd"),
        (
            "CREATE INDEX ON leads (email, status)",
            "CREATE INDEX CONCURRENTLY ON \"public\".\"leads_v2\" USING btree (email, status)",
            "DROP INDEX leads_email_status_idx",
        ),
        (
            "ALTER TABLE leads ADD CHECK (id > 0)",
            "ADD CONSTRAINT \"leads_id_check\" CHECK ((id > 0)) NOT VALID",
            "ALTER TABLE leads DROP CONSTRAINT leads_id_check",
        ),
        (
            "CREATE TRIGGER t BEFORE UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "CREATE TRIGGER \"t\" BEFORE UPDATE ON \"public\".\"leads_v2\" FOR EACH ROW",
            "DROP TRIGGER t ON leads",
        ),
        (
            "CREATE STATISTICS both_of ON email, status FROM leads",
            "CREATE STATISTICS public.leads_v2_both_of (ndistinct, dependencies, mcv) ON email, status FROM \"public\".\"leads_v2\"",
            "DROP STATISTICS both_of",
        ),
        (
            "CREATE RULE own AS ON DELETE TO leads DO ALSO NOTIFY gone",
            "rule own on leads",
            "DROP RULE own ON leads",
        ),
        (
            "CREATE VIEW changing AS SELECT id FROM accounts; CREATE RULE ch AS ON DELETE TO changing DO INSTEAD DELETE FROM leads WHERE id = old.id",
            "rule ch on view changing",
            "DROP VIEW changing",
        ),
        (
            "CREATE VIEW whole_rows AS SELECT leads FROM leads",
            "column leads of view whole_rows: uses its row type",
            "DROP VIEW whole_rows",
        ),
        (
            "ALTER TABLE leads ADD went text; CREATE VIEW of_gone AS SELECT went FROM leads",
            "view of_gone names went, which leads_v2 has not",
            "DROP VIEW of_gone; ALTER TABLE leads DROP went",
        ),
        (
            "CREATE TABLE by_mail (e text REFERENCES leads (email)); ALTER TABLE leads_v2 DROP CONSTRAINT leads_v2_email_key",
            "foreign key by_mail_e_fkey of by_mail: nothing makes (email) of leads_v2 unique",
            "DROP TABLE by_mail; ALTER TABLE leads_v2 ADD UNIQUE (email)",
        ),
    ] {
        live.database.run(make).await;
        let retired = live.retire(&whole(true)).await;
        assert!(retired.is_err(), "{make}");
        let (class, message) = failure(retired);
        assert!(class == FailureClass::Refused && message.contains(named), "{make}: {message}");
        live.database.run(remove).await;
    }
    // The statements that a refusal prints are run as they stand, and then it goes.
    live.database
        .run("CREATE INDEX ON leads (status, email); ALTER TABLE leads ADD CHECK (id > 0)")
        .await;
    let Err(Error::Failed(refused)) = live.retire(&whole(true)).await else { panic!() };
    for statement in refused.detail.unwrap().split(";\n") {
        live.database.run(statement).await;
    }
    // What only a comment says is no use of it.
    live.database.run("CREATE FUNCTION public.by_text() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM accounts -- leads'").await;
    let detail = live.retire(&whole(true)).await.unwrap().detail.unwrap();
    assert!(!detail.contains("by_text"), "{detail}");
}

#[tokio::test]
async fn a_sync_that_is_not_whole_puts_nothing_aside() {
    let Some(live) = Live::leads(Direction::Forward).await else { return };
    live.database.run("ALTER TABLE leads DISABLE TRIGGER ALL").await;
    let (class, message) = failure(live.retire(&whole(true)).await);
    assert_eq!(class, FailureClass::Stale, "{message}");
    assert_eq!(live.database.text("SELECT to_regclass('leads_old')").await, "NULL");
}

#[tokio::test]
async fn identities_go_on_behind_both_tables() {
    let setup =
        "CREATE TABLE leads (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text);
        CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL)";
    let plain = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    let Some(live) = Live::of(setup, plain, Direction::Forward).await else { return };
    live.database.run("INSERT INTO leads (email) SELECT 'x' FROM generate_series(1, 40)").await;
    live.database.run("DELETE FROM leads WHERE id > 30").await;
    live.retire(&whole(true)).await.unwrap();
    live.database.run("INSERT INTO leads (email) SELECT 'y' FROM generate_series(1, 20)").await;
    assert_eq!(live.database.number("SELECT min(id) FROM leads WHERE email = 'y'").await, 41);
    live.unretire(&whole(true), Losses::Accepted).await.unwrap();
    live.database.run("INSERT INTO leads (email) VALUES ('z')").await;
    assert_eq!(live.database.number("SELECT id FROM leads WHERE email = 'z'").await, 61);
    for generated in ["bigserial", "bigint GENERATED BY DEFAULT AS IDENTITY (INCREMENT 3)"] {
        let without = format!(
            "CREATE TABLE leads (id {generated} PRIMARY KEY, email text); CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text)"
        );
        let plain = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
        let Some(live) = Live::of(&without, plain, Direction::Forward).await else { return };
        live.database.run("INSERT INTO leads (email) SELECT 'x' FROM generate_series(1, 4)").await;
        let highest = live.database.number("SELECT max(id) FROM leads").await;
        live.retire(&whole(true)).await.unwrap();
        live.database.run("INSERT INTO leads (email) VALUES ('y')").await;
        let step = if generated == "bigserial" { 1 } else { 3 };
        let next = live.database.number("SELECT id FROM leads WHERE email = 'y'").await;
        assert_eq!(next, highest + step, "{generated}");
        live.unretire(&whole(true), Losses::Accepted).await.unwrap();
        live.database.run("INSERT INTO leads (email) VALUES ('z')").await;
        let next = live.database.number("SELECT id FROM leads WHERE email = 'z'").await;
        assert_eq!(next, highest + 2 * step, "{generated}");
        let left = "SELECT count(*) FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE a.attrelid = 'leads_v2'::regclass AND a.attname = 'id' AND (a.attidentity <> '' OR d.oid IS NOT NULL)";
        assert_eq!(live.database.number(left).await, 0, "{generated}");
    }
}

const USERS: &str =
    "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL, email_v2 text, n int);
    INSERT INTO users VALUES (1, 'A@x', 'a@x', 1); CREATE INDEX users_email ON users (email)";

#[tokio::test]
async fn columns_are_put_aside_in_place_and_taken_back() {
    let (in_place, shape) = users(Direction::Both);
    let Some(live) = Live::of(USERS, in_place, Direction::Both).await else { return };
    let database = &live.database;
    let (class, message) = failure(live.retire(&shape).await);
    assert_eq!(class, FailureClass::Refused, "{message}");
    let (_, statements) = message.split_once(" | ").unwrap();
    assert_eq!(
        statements.split(";\n").collect::<Vec<_>>(),
        [
            "CREATE INDEX CONCURRENTLY ON \"public\".\"users\" USING btree (\"email_v2\")",
            "ALTER TABLE \"public\".\"users\" ADD CONSTRAINT \"email_v2_is_set\" CHECK (\"email_v2\" IS NOT NULL) NOT VALID",
            "ALTER TABLE \"public\".\"users\" VALIDATE CONSTRAINT \"email_v2_is_set\"",
            "ALTER TABLE \"public\".\"users\" ALTER COLUMN \"email_v2\" SET NOT NULL",
            "ALTER TABLE \"public\".\"users\" DROP CONSTRAINT \"email_v2_is_set\"",
        ]
    );
    for statement in statements.split(";\n") {
        database.run(statement).await;
    }
    for (make, named, remove) in [
        (
            "CREATE EXTENSION btree_gist; ALTER TABLE users ADD EXCLUDE USING gist (email WITH =)",
            "exclusion constraint users_email_excl",
            "ALTER TABLE users DROP CONSTRAINT users_email_excl",
        ),
        (
            "CREATE MATERIALIZED VIEW m AS SELECT email FROM users",
            "materialized view m",
            "DROP MATERIALIZED VIEW m",
        ),
        (
            "CREATE TRIGGER t BEFORE UPDATE OF email ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "trigger t on table users",
            "DROP TRIGGER t ON users",
        ),
        (
            "ALTER TABLE users ADD g text GENERATED ALWAYS AS (email || '') STORED",
            "default value for column g",
            "ALTER TABLE users DROP g",
        ),
    ] {
        database.run(make).await;
        let (class, message) = failure(live.retire(&shape).await);
        assert!(class == FailureClass::Refused && message.contains(named), "{make}: {message}");
        database.run(remove).await;
    }
    database
        .run(
            "CREATE VIEW fine AS SELECT n FROM users; CREATE VIEW v AS SELECT email FROM users; GRANT SELECT ON v TO PUBLIC;
             CREATE POLICY own ON users USING (email <> ''); GRANT UPDATE (email) ON users TO PUBLIC;
             COMMENT ON COLUMN users.email IS 'where to write to'; ALTER TABLE users ALTER email SET STATISTICS 7",
        )
        .await;
    let before = catalogue(database).await;
    let detail = live.retire(&shape).await.unwrap().detail.unwrap();
    let said = "; email is now email_old; view v made again; policy own on users made again";
    assert!(detail.ends_with(said), "{detail}");
    database.run("UPDATE users SET email = 'a2@x' WHERE id = 1").await;
    assert_eq!(database.text("SELECT email FROM v").await, "a2@x");
    database.run("UPDATE users SET email = 'a@x' WHERE id = 1").await;
    let about = "SELECT col_description('users'::regclass, attnum) || attstattarget || (attacl IS NOT NULL)::text FROM pg_attribute
        WHERE attrelid = 'users'::regclass AND attname = 'email'";
    assert_eq!(database.text(about).await, "where to write to7true");
    database.run("INSERT INTO users (id, email) VALUES (2, 'b@x')").await;
    assert_eq!(database.text("SELECT email_old FROM users WHERE id = 2").await, "B@X");
    live.unretire(&shape, Losses::Refused).await.unwrap();
    assert_eq!(live.sync().await, SyncState::Active);
    assert_eq!(catalogue(database).await, before);
    assert_eq!(
        database.text("SELECT string_agg(email || email_v2, ' ' ORDER BY id) FROM users").await,
        "A@Xa@x B@Xb@x"
    );
    let again = work("again", Way::Forward);
    live.postgres
        .retire(
            &live.fence,
            &again,
            &live.mapping,
            Direction::Both,
            &Retire::of(&live.mapping, &shape),
        )
        .await
        .unwrap();
    database.run("CREATE INDEX late ON users (email_old, n)").await;
    let (class, message) = failure(live.drop(&shape).await);
    assert!(class == FailureClass::Refused && message.contains("index late"), "{message}");
    database.run("DROP INDEX late").await;
    let detail = live.drop(&shape).await.unwrap().detail.unwrap();
    assert!(detail.ends_with("; email_old of users gone"), "{detail}");
    assert_eq!(live.ours_left().await, 0);
    database.run("INSERT INTO users (id, email) VALUES (3, 'c@x')").await;
}

#[tokio::test]
async fn columns_put_aside_forward_let_their_foreign_keys_go() {
    let (in_place, shape) = users(Direction::Both);
    let forward = Mapping { reverse: vec![], ..in_place };
    let setup = format!(
        "CREATE TABLE other (e text PRIMARY KEY); {USERS}; INSERT INTO other VALUES ('A@x'), ('a@x'), ('b@x');
         ALTER TABLE users ADD FOREIGN KEY (email) REFERENCES other NOT VALID"
    );
    let Some(live) = Live::of(&setup, forward, Direction::Forward).await else { return };
    let before = catalogue(&live.database).await;
    let mut ran = Vec::new();
    for _ in 0..2 {
        let Err(Error::Failed(refused)) = live.retire(&shape).await else { panic!() };
        for statement in refused.detail.unwrap().split(";\n") {
            live.database.run(statement).await;
            ran.push(statement.replace("\"public\".", ""));
        }
    }
    for statement in [
        "ALTER TABLE \"users\" ADD CONSTRAINT \"users_email_fkey_2\" FOREIGN KEY (\"email_v2\") REFERENCES public.other(e) NOT VALID",
        "ALTER TABLE \"users\" ALTER COLUMN \"email\" DROP NOT NULL",
    ] {
        assert!(ran.contains(&statement.to_owned()), "{statement} is not in {ran:#?}");
    }
    let after = catalogue(&live.database).await;
    assert_ne!(before, after);
    live.retire(&shape).await.unwrap();
    live.unretire(&shape, Losses::Refused).await.unwrap();
    assert_eq!(catalogue(&live.database).await, after);
    live.ledger_forgets("retire").await;
    live.retire(&shape).await.unwrap();
    live.database.run("INSERT INTO users (id, email) VALUES (2, 'b@x')").await;
    let (class, message) = failure(live.unretire(&shape, Losses::Refused).await);
    assert_eq!(class, FailureClass::Unsafe, "{message}");
}

#[tokio::test]
async fn a_guard_holds_for_partitions_too() {
    let setup = "CREATE TABLE leads (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
        CREATE TABLE leads_1 PARTITION OF leads FOR VALUES FROM (0) TO (100);
        CREATE TABLE leads_v2 (id int PRIMARY KEY, n int)";
    let plain = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    let Some(live) = Live::of(setup, plain, Direction::Forward).await else { return };
    live.database.run("INSERT INTO leads VALUES (1, 1)").await;
    live.retire(&whole(true)).await.unwrap();
    for sql in
        ["UPDATE leads_1 SET n = 2", "TRUNCATE leads_1", "INSERT INTO leads_old VALUES (2, 2)"]
    {
        assert_eq!(live.refused(sql).await, "PG001", "{sql}");
    }
    live.unretire(&whole(true), Losses::Refused).await.unwrap();
    live.database.run("UPDATE leads_1 SET n = 2").await;
    assert_eq!(live.database.number("SELECT n FROM leads_v2").await, 2);
}

/// A client of the new shape holds the new table when it comes to the old one, behind us in the queue. Whoever waits longest
/// is the server's victim.
#[tokio::test]
async fn a_retire_that_meets_a_client_of_the_new_shape_yields() {
    let Some(live) = Live::leads(Direction::Both).await else { return };
    let (mut reader, mut client) = (live.database.client().await, live.database.client().await);
    say(&mut reader, "BEGIN; SELECT FROM leads").await.unwrap();
    say(&mut client, "BEGIN; UPDATE leads_v2 SET code = 'warm' WHERE false").await.unwrap();
    let shape = whole(true);
    let clients = async {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        let ends = async {
            tokio::time::sleep(std::time::Duration::from_millis(800)).await;
            say(&mut reader, "COMMIT").await
        };
        let update = say(
            &mut client,
            "UPDATE leads_v2 SET code = 'warm' WHERE id = 1; SELECT pg_sleep(0.5); COMMIT",
        );
        tokio::join!(update, ends)
    };
    let (retired, (written, _)) = tokio::join!(live.retire(&shape), clients);
    written.unwrap();
    // It tries for a while, and may come through between the clients; none of them is its victim.
    if retired.is_err() {
        assert_eq!(failure(retired).0, FailureClass::Contention);
        live.retire(&shape).await.unwrap();
    }
    assert_eq!(live.database.text("SELECT status FROM leads_old WHERE id = 1").await, "warm");
}

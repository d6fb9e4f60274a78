//! A sync among owners, applications without rights, partitions, cascades, and odd names.
#![allow(clippy::unwrap_used, missing_docs)]

use super::Postgres;
use super::fixture::{Database, class, entered, mapping as plain_mapping, work};
use super::sync_tests::{Bed, TABLES, WRONG, chunk, id, leads, say};
use crate::driver::{Access, DualWriter as _, SyncState};
use crate::run::{Direction, FailureClass, Mapping, Way};

fn role(name: &str) -> String {
    format!("{name}_{}", uuid::Uuid::now_v7().simple())
}

/// Removes roles with all that they own in the database.
async fn drop_roles(database: &Database, roles: &[&str]) {
    for role in roles {
        database.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
    }
}

#[tokio::test]
async fn an_application_needs_no_rights_on_the_new_table_and_its_path_does_not_matter() {
    let Some(bed) = Bed::with(TABLES, leads(), Direction::Forward).await else { return };
    let app = role("app");
    bed.run(&format!(
        "CREATE ROLE {app}; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON leads TO {app};
         CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO {app};
         CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''evil''';
         CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT ''evil''';"
    ))
    .await;
    let mut client = bed.client().await;
    say(&mut client, &format!(
        "CREATE TEMP TABLE leads_v2 (id bigint, email text, status_code text); CREATE TEMP TABLE touched_{} (k1 bigint);
         GRANT ALL ON leads_v2 TO {app}; SET search_path = pg_temp, evil, pg_catalog, public; SET ROLE {app}", id(&leads())
    )).await.unwrap();
    for script in [
        "INSERT INTO public.leads VALUES (50, 'x', 'NEW')",
        "UPDATE public.leads SET status = 'CHANGED', id = 51 WHERE id = 50",
        "UPDATE public.leads SET status = 'Seen' WHERE id < 10",
        "DELETE FROM public.leads WHERE id = 51",
    ] {
        say(&mut client, script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2 WHERE status_code = 'evil'").await, 0);
    }
    assert_eq!(bed.number(WRONG).await, 0);
    let direct = format!("SELECT phasegate.phasegate_{}_a_key(1, 'DELETE', true)", id(&leads()));
    assert!(say(&mut client, &direct).await.unwrap_err().to_string().contains("denied"));
    say(&mut client, "TRUNCATE public.leads").await.unwrap();
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 0);
    drop_roles(&bed.database, &[&app]).await;
}

/// Opens the database as a role.
async fn open_as(database: &Database, role: &str) -> Postgres {
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(role).unwrap();
    Postgres::open(url.as_str(), None, Access::Full).await.unwrap()
}

#[tokio::test]
async fn a_plain_owner_a_member_and_a_stranger() {
    let (owner, member, stranger) = (role("owner"), role("member"), role("stranger"));
    let setup = format!(
        "CREATE ROLE {owner} LOGIN; CREATE ROLE {member} LOGIN; CREATE ROLE {stranger} LOGIN; GRANT {owner} TO {member};
         {TABLES} ALTER TABLE leads OWNER TO {owner}; ALTER TABLE leads_v2 OWNER TO {owner};"
    );
    for (name, expected) in
        [(&owner, None), (&member, None), (&stranger, Some(FailureClass::NotPermitted))]
    {
        let setup = if name == &owner {
            setup.clone()
        } else {
            format!(
                "{TABLES} ALTER TABLE leads OWNER TO {owner}; ALTER TABLE leads_v2 OWNER TO {owner};"
            )
        };
        let Some(database) = Database::with(&setup).await else { return };
        database.run(&format!("CREATE SCHEMA phasegate AUTHORIZATION {name}")).await;
        let postgres = open_as(&database, name).await;
        let fence = entered(&postgres, 1).await[0].clone();
        let step = work("sync", Way::Forward);
        let done = postgres.install(&fence, &step, &leads(), Direction::Forward).await;
        if let Some(expected) = expected {
            assert_eq!(class(done), expected);
        } else {
            done.unwrap();
            let state = postgres.sync_state(&leads(), Direction::Forward).await.unwrap();
            assert_eq!(state, SyncState::Active, "{name}");
            database.run(&format!("SET ROLE {owner}; UPDATE leads SET status = 'X'")).await;
            assert_eq!(database.number(WRONG).await, 0, "{name}");
            let owners = format!(
                "SELECT count(*) FROM pg_proc WHERE pronamespace = 'phasegate'::regnamespace AND pg_get_userbyid(proowner) = '{owner}'"
            );
            assert_eq!(database.number(&owners).await, 5);
            assert_eq!(postgres.settle(&fence, &leads()).await.unwrap(), 0);
            postgres
                .remove(&fence, &work("sync", Way::Back), &leads(), Direction::Forward)
                .await
                .unwrap();
            assert_eq!(database.number("SELECT count(*) FROM leads_v2").await, 0);
        }
        crate::driver::Session::close(&postgres).await;
        database.run(&format!("DROP OWNED BY {owner}, {member}, {stranger} CASCADE")).await;
    }
    let Some(database) = Database::with("").await else { return };
    database.run(&format!("DROP ROLE {owner}, {member}, {stranger}")).await;
}

#[tokio::test]
async fn partitions_come_and_go() {
    let setup = "
        CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int) PARTITION BY RANGE (id);
        CREATE TABLE leads_1 PARTITION OF leads FOR VALUES FROM (0) TO (10);
        CREATE TABLE leads_2 PARTITION OF leads FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
        CREATE TABLE leads_2a PARTITION OF leads_2 DEFAULT;
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text) PARTITION BY HASH (id);
        CREATE TABLE leads_v2_0 PARTITION OF leads_v2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE leads_v2_1 PARTITION OF leads_v2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 19) AS n;";
    let Some(bed) = Bed::with(setup, leads(), Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    for script in [
        "UPDATE leads SET id = 15, status = 'Moved' WHERE id = 5 AND NOT EXISTS (SELECT 1 FROM leads WHERE id = 15)",
        "DELETE FROM leads WHERE id = 15; UPDATE leads SET id = 15, status = 'Moved' WHERE id = 5",
        "UPDATE leads_2a SET status = 'Direct' WHERE id = 16",
        "CREATE TABLE leads_3 PARTITION OF leads FOR VALUES FROM (20) TO (30); INSERT INTO leads VALUES (25, 'p', 'NEW')",
        "TRUNCATE leads_1",
        "TRUNCATE leads_2",
    ] {
        bed.run(script).await;
        assert_eq!(bed.number(WRONG).await, 0, "{script}");
    }
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 1);
    assert_eq!(bed.state().await, SyncState::Active);
    bed.run(&format!("ALTER TABLE leads_3 DISABLE TRIGGER zzzz_phasegate_{}_a", id(&leads())))
        .await;
    assert!(
        matches!(bed.state().await, SyncState::Broken(why) if why.contains("on leads_3 is disabled"))
    );
    bed.run("ALTER TABLE leads DETACH PARTITION leads_3").await;
    assert_eq!(bed.state().await, SyncState::Active);
    bed.run("DELETE FROM leads_v2 WHERE id = 25; TRUNCATE leads").await;
    assert_eq!(bed.number(WRONG).await, 0);
}

#[tokio::test]
async fn cascades_and_deferred_constraints_are_followed() {
    let setup = format!(
        "CREATE TABLE parents (id bigint PRIMARY KEY); INSERT INTO parents SELECT generate_series(1, 9); {TABLES}
         ALTER TABLE leads ADD FOREIGN KEY (id) REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED;
         CREATE FUNCTION at_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           UPDATE leads SET status = 'Ended' WHERE id = NEW.id AND status <> 'Ended'; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER at_end AFTER UPDATE ON leads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_end();"
    );
    let Some(bed) = Bed::with(&setup, leads(), Direction::Forward).await else { return };
    bed.run(&chunk("true")).await;
    for script in [
        "DELETE FROM parents WHERE id = 1",
        "UPDATE parents SET id = 20 WHERE id = 2",
        "UPDATE leads SET email = 'x' WHERE id = 3",
        "TRUNCATE parents CASCADE",
    ] {
        bed.run(script).await;
        assert_eq!(bed.number(WRONG).await, 0, "{script}");
    }
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2").await, 0);
}

#[tokio::test]
async fn names_and_keys_of_every_kind_are_taken() {
    let long = "ä".repeat(31);
    let setup = format!(
        "CREATE SCHEMA \"Größe\"; CREATE TABLE \"Größe\".\"{long}\" (\"order\" uuid, \"phasegate_k1\" text COLLATE \"C\", \"old\" char(4), \"new\" numeric(6,2),
           n0 json, PRIMARY KEY (\"order\", \"phasegate_k1\"));
         CREATE TABLE \"new\" (\"Order\" uuid, k text COLLATE \"C\", \"old\" char(4), \"new\" numeric(8,1), n0 json, w0 text, PRIMARY KEY (\"Order\", k));"
    );
    let name = format!("\"Größe\".\"{long}\"");
    let mapping = Mapping {
        columns: vec![
            ("new".into(), "\"new\" / 3".into()),
            ("w0".into(), "'it''s \\ $phasegate$'".into()),
        ],
        ..plain_mapping((&name, &["order", "phasegate_k1"]), ("new", &["Order", "k"]))
    };
    let Some(bed) = Bed::with(&setup, mapping, Direction::Forward).await else { return };
    let wrong = format!(
        "SELECT count(*) FROM (SELECT \"order\", phasegate_k1, \"old\", (\"new\" / 3)::numeric(8,1)::text, n0::text, 'it''s \\ $phasegate$' FROM {name}
         EXCEPT SELECT \"Order\", k, \"old\", \"new\"::text, n0::text, w0 FROM \"new\") AS d"
    );
    for script in [
        format!(
            "INSERT INTO {name} SELECT gen_random_uuid(), chr(64 + n), 'ab', n, '{{\"a\": 1}}' FROM generate_series(1, 5) AS n"
        ),
        format!("UPDATE {name} SET n0 = '{{\"b\":  2}}', \"new\" = \"new\" * 10"),
        format!("UPDATE {name} SET phasegate_k1 = phasegate_k1 || 'x'"),
    ] {
        bed.run(&script).await;
        assert_eq!(bed.number(&wrong).await, 0, "{script}");
        assert_eq!(bed.number("SELECT count(*) FROM \"new\"").await, 5, "{script}");
    }
    bed.run(&format!("DELETE FROM {name} WHERE phasegate_k1 = 'Ax'; TRUNCATE {name}")).await;
    assert_eq!(bed.number("SELECT count(*) FROM \"new\"").await, 0);
}

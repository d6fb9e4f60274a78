//! What a dry run learns, on a real server, and that it can't write there.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::AssertSqlSafe;

use super::Postgres;
use super::error::code;
use super::fixture::{Database, claim, class, mapping};
use crate::bounds::probe::SAMPLE_ROWS;
use crate::driver::probed::{ObjectFacts, Seen};
use crate::driver::{
    Access, Introspect as _, Purpose, Session as _, Survey, SurveyedMapping, TableUse,
};
use crate::run::{Direction, FailureClass, RetireShape, RetiredColumn};

const SCHEMA: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY);
    CREATE TABLE leads (id bigserial PRIMARY KEY, email text NOT NULL, account_id bigint REFERENCES accounts);
    INSERT INTO leads (email) SELECT 'e' || n FROM generate_series(1, 7000) AS n;
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY DEFAULT nextval('leads_id_seq'), email text NOT NULL, account_id bigint);
    CREATE TABLE notes (lead_id bigint REFERENCES leads);
    CREATE VIEW hot AS SELECT * FROM leads;
    CREATE TABLE parts (id int, k text COLLATE \"C\", PRIMARY KEY (id, k)) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
    CREATE TRIGGER theirs AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
    ALTER TABLE leads DISABLE TRIGGER theirs;
    GRANT SELECT, INSERT ON leads TO PUBLIC;
    ALTER TABLE leads ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON leads USING (id > 1);";

fn survey() -> Survey {
    let mapped = |from: (&str, &[&str]), into: (&str, &[&str])| SurveyedMapping {
        step: "sync".into(),
        mapping: mapping(from, into),
        direction: Some(Direction::Forward),
    };
    let used =
        |table: &str, purpose| TableUse { step: "sync".into(), table: table.into(), purpose };
    Survey {
        mappings: vec![
            mapped(("leads", &["id"]), ("leads_v2", &["id"])),
            mapped(("parts", &["id", "k"]), ("parts", &["id", "k"])),
        ],
        queries: vec![("ask".into(), "SELECT count(*) FROM leeds".to_owned())],
        uses: vec![
            used("leads", Purpose::Sync),
            used("leads", Purpose::Retire),
            used("leads_v2", Purpose::Write),
            used("parts", Purpose::Read),
            used("absent", Purpose::Read),
        ],
        ..Survey::default()
    }
}

fn said(objects: &[ObjectFacts]) -> Vec<String> {
    objects.iter().map(|it| format!("{} {}", it.kind, it.name)).collect()
}

#[tokio::test]
async fn everything_that_the_server_tells_is_told() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    let mut other = database.client().await;
    sqlx::raw_sql(
        "SET application_name = 'shop'; BEGIN; UPDATE leads SET email = 'x' WHERE id = 9",
    )
    .execute(&mut other)
    .await
    .unwrap();
    let postgres = Postgres::open(&database.url, None, Access::ReadOnly).await.unwrap();
    let probed = postgres.probe(&survey()).await.unwrap();
    assert!(probed.server.starts_with("PostgreSQL 1"), "{}", probed.server);
    let codes: Vec<&str> = probed.findings.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"D210") && codes.contains(&"D217"), "{:?}", probed.findings);
    assert!(!codes.contains(&"D212") && !codes.contains(&"D213"), "{:?}", probed.findings);

    let [leads, copy, parts] = probed.tables.as_slice() else { panic!("{:?}", probed.tables) };
    let rows = leads.rows.clone().unwrap();
    assert_eq!((rows.rows, rows.basis.as_str()), (7000, "counted"));
    assert!(leads.table_bytes.unwrap() > 7000 * 20 && leads.index_bytes.unwrap() > 7000 * 8);
    assert_eq!(
        said(&leads.dependents),
        ["foreign key constraint notes_lead_id_fkey on table notes", "view hot"]
    );
    let lacks = said(&leads.not_copied);
    for part in [
        "foreign key leads_account_id_fkey",
        "trigger theirs",
        "grant PUBLIC",
        "policy few",
        "serial id",
    ] {
        assert!(lacks.iter().any(|it| it == part), "{part}: {lacks:?}");
    }
    assert_eq!(leads.triggers[0].detail.as_deref(), Some("after each row, disabled"));
    let security = leads.row_security.clone().unwrap();
    assert_eq!((security.binds_us, security.policies), (false, vec!["few".to_owned()]));
    assert!(copy.row_security.is_none() && copy.kind.is_none());
    assert_eq!(parts.kind.as_deref(), Some("a partitioned table with 1 partitions"));

    let [first, second] = probed.mappings.as_slice() else { panic!("{:?}", probed.mappings) };
    assert_eq!(first.key.index.as_deref(), Some("leads_pkey"), "{:?}", first.key.plan);
    assert_eq!(first.sample.unwrap().rows, SAMPLE_ROWS);
    assert_eq!(second.key.index.as_deref(), Some("parts_1_pkey"), "{:?}", second.key.plan);
    assert!(second.sample.is_none());

    let Seen::Known(sessions) = probed.sessions else { panic!("{:?}", probed.sessions) };
    let shop = sessions.iter().find(|it| it.application.as_deref() == Some("shop")).unwrap();
    assert_eq!(shop.state, "idle in transaction");
    assert!(shop.locks.iter().any(|it| it == "leads (RowExclusiveLock)"), "{shop:?}");
    assert!(matches!(probed.disk_free_bytes, Seen::Hidden(_)));
    assert!(matches!(probed.connections, Seen::Known(it) if it.used > 0 && it.limit > it.used));
    assert_eq!(probed.replicas, Seen::Known(vec![]));
    assert!(probed.rights.iter().all(|right| right.lacking.is_empty()), "{:?}", probed.rights);
    assert_eq!(
        probed.rights[0].object,
        format!("database {}", database.text("SELECT current_database()").await)
    );
}

#[tokio::test]
async fn what_a_plain_role_is_not_shown_is_said_with_the_grant() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    let name = format!("plain_{}", uuid::Uuid::now_v7().simple());
    database.run(&format!("CREATE ROLE {name} LOGIN")).await;
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&name).unwrap();
    let postgres = Postgres::open(url.as_str(), None, Access::ReadOnly).await.unwrap();
    let probed = postgres.probe(&survey()).await.unwrap();
    let grant = format!("GRANT pg_read_all_stats TO {name}");
    assert!(
        matches!(&probed.sessions, Seen::Hidden(why) if why.ends_with(&grant)),
        "{:?}",
        probed.sessions
    );
    assert!(matches!(&probed.replicas, Seen::Hidden(why) if why.ends_with(&grant)));
    assert_eq!(probed.tables.len(), 3, "{probed:?}");
    let codes: Vec<&str> = probed.findings.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"D212") && codes.contains(&"D213"), "{:?}", probed.findings);
    let lacking = probed.rights.iter().filter(|right| !right.lacking.is_empty()).count();
    assert_eq!(lacking, 5, "{:?}", probed.rights);
    postgres.close().await;
    database.run(&format!("DROP ROLE {name}")).await;
}

#[tokio::test]
async fn a_table_locked_by_somebody_is_said_and_not_waited_for() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    let mut other = database.client().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE leads IN ACCESS EXCLUSIVE MODE")
        .execute(&mut other)
        .await
        .unwrap();
    let postgres = Postgres::open(&database.url, None, Access::ReadOnly).await.unwrap();
    let probed = postgres.probe(&survey()).await.unwrap();
    assert!(
        probed.notes.iter().any(|it| it.contains("can't be looked at now")),
        "{:?}",
        probed.notes
    );
    assert!(probed.tables.iter().any(|it| it.table == "leads_v2"), "{:?}", probed.tables);
    assert_eq!(probed.unseen.unwrap().class(), Some(FailureClass::Contention));
}

/// Not our own guards, which a mistake could take away: the server itself holds the transaction and the session read-only.
#[tokio::test]
async fn the_server_refuses_every_write_through_a_connection_for_looking() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    let postgres = Postgres::open(&database.url, None, Access::ReadOnly).await.unwrap();
    assert_eq!(class(postgres.enter(&claim("r1"), 1).await), FailureClass::NotPermitted);
    for (sql, expected) in [
        ("INSERT INTO accounts VALUES (1)", "25006"),
        ("CREATE TABLE t (x int)", "25006"),
        ("CREATE TEMP TABLE t (x int)", "25006"),
        ("DROP TABLE notes", "25006"),
        ("SELECT nextval('leads_id_seq')", "25006"),
        ("SELECT * FROM leads FOR UPDATE", "25006"),
        ("SET TRANSACTION READ WRITE", "25001"),
    ] {
        let mut reader = postgres.connections.snapshot().await.unwrap();
        let query = || sqlx::query(AssertSqlSafe(sql.to_owned()));
        let error = query().execute(reader.conn().unwrap()).await.unwrap_err();
        assert_eq!(code(&error), Some(expected), "{error}");
        // Behind a rollback the session is read-only, too.
        let conn = reader.conn().unwrap();
        sqlx::query("ROLLBACK").execute(&mut *conn).await.unwrap();
        if expected == "25006" {
            assert!(query().execute(conn).await.is_err());
        }
    }
    postgres.probe(&survey()).await.unwrap();
    assert_eq!(database.text("SELECT to_regnamespace('phasegate')").await, "NULL");
}

#[tokio::test]
async fn looking_locks_no_more_than_a_select_does() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    let postgres = database.open().await;
    // The one lock that goes beside this one is that of a SELECT.
    let mut client = database.client().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE leads, leads_v2, parts IN EXCLUSIVE MODE")
        .execute(&mut client)
        .await
        .unwrap();
    postgres.survey(&survey()).await.unwrap();
    let probed = postgres.probe(&survey()).await.unwrap();
    assert!(
        !probed.notes.iter().any(|it| it.contains("can't be looked at now")),
        "{:?}",
        probed.notes
    );
}

/// The same as `retire` takes: one that is locked out for a moment is told before.
#[tokio::test]
async fn what_retire_locks_beside_its_tables_is_told() {
    let schema = format!(
        "{SCHEMA} CREATE TABLE \"Odd notes\" (lead_id bigint REFERENCES leads); CREATE TABLE guarded (id bigint);
         ALTER TABLE leads ADD boss bigint REFERENCES leads; CREATE VIEW hotter AS SELECT * FROM hot; CREATE SCHEMA other;
         CREATE VIEW other.mails AS SELECT l.email FROM leads l JOIN hot USING (id);
         CREATE VIEW ids AS SELECT id FROM leads;
         CREATE POLICY by_lead ON guarded USING (EXISTS (SELECT FROM leads l WHERE l.email = 'x'));
         CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM leads"
    );
    let Some(database) = Database::with(&schema).await else { return };
    // The role of the test server has a schema of its name on its path.
    let postgres = Postgres::open(&database.url, None, Access::ReadOnly).await.unwrap();
    let whole = RetireShape::Table { old_name: "leads_old".into(), take_name: true };
    let columns = |take_name: Option<&str>| {
        RetireShape::Columns(vec![RetiredColumn {
            column: "email".into(),
            old_name: "email_old".into(),
            take_name: take_name.map(str::to_owned),
        }])
    };
    let table = mapping(("leads", &["id"]), ("not_there_yet", &["id"]));
    let in_place = mapping(("leads", &["id"]), ("leads", &["id"]));
    let both = Some(Direction::Both);
    let forward = Some(Direction::Forward);
    let views = ["guarded: Policy", "hot: View", "other.mails: View"];
    let all = [
        "\"Odd notes\": RefersToIt",
        "guarded: Policy",
        "hot: View",
        "ids: View",
        "notes: RefersToIt",
        "other.mails: View",
    ];
    let with = |some: &[&str], more: &str| {
        let mut said: Vec<String> = some.iter().map(|it| (*it).to_owned()).collect();
        said.push(more.to_owned());
        said.sort();
        said
    };
    let accounts = "accounts: IsReferredTo";
    for (mapping, direction, shape, expected) in [
        (&table, both, whole.clone(), all.map(str::to_owned).to_vec()),
        (&table, forward, whole, with(&all, accounts)),
        (&in_place, both, columns(Some("status")), views.map(str::to_owned).to_vec()),
        (&in_place, forward, columns(Some("status")), with(&views, accounts)),
        (&in_place, both, columns(None), Vec::new()),
    ] {
        let survey = Survey {
            mappings: vec![SurveyedMapping {
                step: "sync".into(),
                mapping: mapping.clone(),
                direction,
            }],
            retired: vec![(mapping.name.clone(), shape)],
            ..Survey::default()
        };
        let probed = postgres.probe(&survey).await.unwrap();
        let found: Vec<String> = probed.beside[0]
            .locked
            .iter()
            .map(|(name, why)| format!("{}: {why:?}", name.trim_start_matches("public.")))
            .collect();
        let mut found = found;
        found.sort();
        assert_eq!(found, expected, "{direction:?}");
    }
}

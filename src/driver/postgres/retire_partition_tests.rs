//! Putting aside where one side or both are partitioned, with everything around the table that goes over.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{mapping, work};
use super::retire_carry_tests::catalogue;
use super::retire_tests::{Live, failure, whole};
use crate::driver::{Retirer as _, SyncState};
use crate::run::{Direction, FailureClass, Mapping, Retire, Way};

/// Two tables, each partitioned or not, and what stands around the old one.
fn setup(old: &str, new: &str) -> String {
    let table = |name: &str, kind: &str| {
        let columns = "(id bigint PRIMARY KEY, email text NOT NULL, n int DEFAULT 1, account_id bigint REFERENCES accounts)";
        if kind == "plain" {
            return format!("CREATE TABLE {name} {columns};");
        }
        format!(
            "CREATE TABLE {name} {columns} PARTITION BY RANGE (id);
             CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES FROM (0) TO (50);
             CREATE TABLE {name}_2 PARTITION OF {name} FOR VALUES FROM (50) TO (1000);"
        )
    };
    let roles = "DO $$ BEGIN CREATE ROLE ret_parts; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;";
    let around = "
        CREATE TABLE notes (id int PRIMARY KEY, lead_id bigint, CONSTRAINT of_lead FOREIGN KEY (lead_id) REFERENCES leads ON DELETE CASCADE);
        CREATE TABLE seen (id int PRIMARY KEY, lead_id bigint REFERENCES leads (id)) PARTITION BY RANGE (id);
        CREATE TABLE seen_1 PARTITION OF seen FOR VALUES FROM (0) TO (1000);
        ALTER TABLE seen ADD FOREIGN KEY (lead_id) REFERENCES leads_v2;
        CREATE INDEX leads_email ON leads (email); CREATE INDEX ON leads_v2 (email);
        CREATE VIEW hot AS SELECT id, email FROM leads WHERE n > 0;
        GRANT SELECT, INSERT ON leads TO ret_parts; GRANT UPDATE (n) ON leads TO ret_parts; GRANT SELECT ON hot TO ret_parts;
        ALTER TABLE leads ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON leads FOR SELECT TO ret_parts USING (n > 0);
        CREATE PUBLICATION whole FOR TABLE leads WITH (publish_via_partition_root);
        COMMENT ON TABLE leads IS 'all leads'; COMMENT ON COLUMN leads.n IS 'how many'; COMMENT ON INDEX leads_email IS 'by mail';
        ALTER TABLE leads REPLICA IDENTITY FULL, ALTER n SET STATISTICS 300, ALTER email SET STORAGE EXTERNAL;";
    let parameter = if old == "plain" { "ALTER TABLE leads SET (fillfactor = 70);" } else { "" };
    format!(
        "{roles} CREATE TABLE accounts (id bigint PRIMARY KEY); INSERT INTO accounts VALUES (1), (2); {} {} {around} {parameter}",
        table("leads", old),
        table("leads_v2", new)
    )
}

fn leads() -> Mapping {
    mapping(("leads", &["id"]), ("leads_v2", &["id"]))
}

/// Foreign keys to single partitions are the server's own; it leaves them unchecked when it checks the one that they are of.
async fn told(live: &Live) -> Vec<String> {
    let mut lines = catalogue(&live.database).await;
    let parts = ["leads_1(", "leads_2(", "leads_v2_1(", "leads_v2_2("];
    lines.retain(|line| !parts.iter().any(|part| line.contains(&format!("REFERENCES {part}"))));
    lines
}

#[tokio::test]
async fn a_partitioned_side_takes_over_and_gives_back_what_a_plain_one_does() {
    for (old, new) in [("plain", "parts"), ("parts", "parts"), ("parts", "plain")] {
        for direction in [Direction::Forward, Direction::Both] {
            let case = format!("{old} to {new}, {direction:?}");
            let Some(live) = Live::of(&setup(old, new), leads(), direction).await else { return };
            let (database, shape) = (&live.database, whole(true));
            database
                .run("INSERT INTO leads SELECT n, 'e' || n, 1, 1 + n % 2 FROM generate_series(1, 90) n;
                      INSERT INTO notes VALUES (1, 7), (2, 70); INSERT INTO seen VALUES (1, 8), (2, 80)")
                .await;
            let before = told(&live).await;
            let detail = live.retire(&shape).await.unwrap().detail.unwrap();
            assert!(detail.contains("view hot made again"), "{case}: {detail}");
            assert_eq!(database.number("SELECT count(*) FROM notes").await, 2, "{case}");
            // Rows of both partitions are held to, and act on those that refer to them.
            assert_eq!(live.refused("INSERT INTO notes VALUES (3, 999)").await, "23503", "{case}");
            assert_eq!(live.refused("INSERT INTO seen VALUES (3, 999)").await, "23503", "{case}");
            assert_eq!(live.refused("DELETE FROM leads WHERE id = 80").await, "23503", "{case}");
            database.run("INSERT INTO leads (id, email) VALUES (91, 'new'); INSERT INTO notes VALUES (3, 91)").await;
            assert_eq!(database.number("SELECT count(*) FROM hot WHERE email = 'new'").await, 1);
            database.run("DELETE FROM leads WHERE id = 91").await;
            assert_eq!(database.number("SELECT count(*) FROM notes").await, 2, "{case}");
            let checked = "SELECT string_agg(conname, ' ') FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 AND NOT convalidated";
            assert_eq!(database.text(checked).await, "NULL", "{case}");
            let held = "SELECT concat_ws(' ', has_table_privilege('ret_parts', 'leads', 'INSERT'),
                has_column_privilege('ret_parts', 'leads', 'n', 'UPDATE'), (SELECT count(*) FROM pg_policy WHERE polrelid = 'leads'::regclass),
                (SELECT string_agg(prrelid::regclass::text, ',') FROM pg_publication_rel), obj_description('leads'::regclass),
                (SELECT string_agg(DISTINCT relreplident::text, '') FROM pg_class WHERE oid = 'leads'::regclass
                   OR oid IN (SELECT relid FROM pg_partition_tree('leads'))),
                (SELECT string_agg(DISTINCT attstattarget || attstorage::text, '') FROM pg_attribute WHERE attname IN ('n', 'email')
                   AND attrelid = 'leads'::regclass))";
            assert_eq!(database.text(held).await, "t t 1 leads all leads f -1e300p", "{case}");

            live.unretire(&shape, live.where_written()).await.unwrap();
            assert_eq!(live.sync().await, SyncState::Active, "{case}");
            assert_eq!(told(&live).await, before, "{case}");
            assert_eq!(live.refused("INSERT INTO notes VALUES (3, 999)").await, "23503", "{case}");

            let (again, retire) = (work("again", Way::Forward), Retire::of(&live.mapping, &shape));
            live.postgres
                .retire(&live.fence, &again, &live.mapping, direction, &retire)
                .await
                .unwrap();
            live.drop(&shape).await.unwrap();
            assert_eq!(live.ours_left().await, 0, "{case}");
            database.run("INSERT INTO leads (id, email) VALUES (92, 'last')").await;
            assert_eq!(database.number("SELECT count(*) FROM leads").await, 91, "{case}");
        }
    }
}

#[tokio::test]
async fn what_a_partition_would_take_along_or_change_for_others_is_refused_by_name() {
    let to_parts = setup("plain", "parts").replace(" WITH (publish_via_partition_root)", "");
    let Some(live) = Live::of(&to_parts, leads(), Direction::Forward).await else { return };
    let (class, message) = failure(live.retire(&whole(true)).await);
    assert_eq!(class, FailureClass::Refused);
    let needed = "ALTER PUBLICATION whole SET (publish_via_partition_root = true)";
    assert!(message.contains(needed), "{message}");
    live.database.run(needed).await;
    live.retire(&whole(true)).await.unwrap();

    let Some(live) = Live::of(&setup("parts", "plain"), leads(), Direction::Forward).await else {
        return;
    };
    for (make, named, remove) in [
        (
            "CREATE PUBLICATION one FOR TABLE leads_1",
            "publication one, which names the partition leads_1",
            "DROP PUBLICATION one",
        ),
        (
            "CREATE VIEW of_one AS SELECT id FROM leads_2",
            "view of_one (on the partition leads_2)",
            "DROP VIEW of_one",
        ),
        (
            "CREATE TABLE to_one (id bigint REFERENCES leads_1)",
            "(on the partition leads_1)",
            "DROP TABLE to_one",
        ),
        (
            "CREATE FUNCTION public.of_part() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM leads_1'",
            "function of_part(), whose text names it (on the partition leads_1)",
            "DROP FUNCTION of_part",
        ),
    ] {
        live.database.run(make).await;
        let (class, message) = failure(live.retire(&whole(true)).await);
        assert!(class == FailureClass::Refused && message.contains(named), "{make}: {message}");
        live.database.run(remove).await;
    }
    live.retire(&whole(true)).await.unwrap();
}

/// A primary key that would have to be built while clients wait is refused.
#[tokio::test]
async fn in_place_a_partitioned_primary_key_passes_to_no_other_column() {
    let setup = "CREATE TABLE leads (id int NOT NULL, code text NOT NULL, code_v2 text, region int NOT NULL, UNIQUE (id, region), PRIMARY KEY (code, region))
        PARTITION BY RANGE (region); CREATE TABLE leads_1 PARTITION OF leads FOR VALUES FROM (0) TO (50)";
    let in_place = Mapping {
        columns: vec![("code_v2".into(), "lower(code)".into())],
        reverse: vec![("code".into(), "code_v2".into())],
        ..mapping(("leads", &["id", "region"]), ("leads", &["id", "region"]))
    };
    let Some(live) = Live::of(setup, in_place, Direction::Both).await else { return };
    let shape = crate::run::RetireShape::Columns(vec![crate::run::RetiredColumn {
        column: "code".into(),
        old_name: "code_old".into(),
        take_name: Some("code_v2".into()),
    }]);
    let (class, message) = failure(live.retire(&shape).await);
    assert_eq!(class, FailureClass::Refused);
    assert!(
        message.contains("primary key leads_pkey of leads: of a partitioned table"),
        "{message}"
    );
}

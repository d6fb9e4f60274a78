//! What goes over with a name, and comes back: the whole catalogue around a table, before and after.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::{Connection as _, Row as _};

use super::fixture::{Database, mapping, work};
use super::retire_tests::{Live, failure, whole};
use crate::driver::{Losses, Retirer as _, SyncState};
use crate::run::{Direction, FailureClass, Mapping, RetireShape, Way};

/// Everything in schema public that is catalogue, a line for each, but what is ours.
const CATALOGUE: &str = "\
SELECT line FROM (
SELECT concat_ws(' ', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'm' THEN 'matview' END, c.relname,
  'owner', pg_get_userbyid(c.relowner), CASE WHEN c.relrowsecurity THEN 'secured' END, CASE WHEN c.relforcerowsecurity THEN 'forced' END,
  CASE WHEN c.relkind IN ('r', 'p') THEN 'identity ' || c.relreplident::text END, c.reloptions::text, t.reloptions::text,
  obj_description(c.oid, 'pg_class'), CASE c.relkind WHEN 'v' THEN regexp_replace(pg_get_viewdef(c.oid), '\\s+', ' ', 'g') END,
  (SELECT 'belongs to ' || d.refobjid::regclass || '.' || a.attname FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
   WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))) AS line
FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S', 'm')
UNION ALL
SELECT concat_ws(' ', 'grant', c.relname, pg_get_userbyid(a.grantor), 'to', CASE a.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable)
FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner
UNION ALL
SELECT concat_ws(' ', 'column', c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
  nullif(a.attidentity::text, ''), pg_get_expr(f.adbin, f.adrelid), 'statistics ' || nullif(a.attstattarget, -1)::text, a.attoptions::text, nullif(a.attstorage, y.typstorage)::text, nullif(a.attcompression::text, ''),
  col_description(c.oid, a.attnum),
  (SELECT string_agg(pg_get_userbyid(x.grantee) || ' may ' || x.privilege_type, ', ' ORDER BY 1) FROM aclexplode(a.attacl) x))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type y ON y.oid = a.atttypid
LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
UNION ALL
SELECT concat_ws(' ', 'constraint', k.conname, 'on', k.conrelid::regclass, pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'))
FROM pg_constraint k WHERE k.connamespace = 'public'::regnamespace AND k.conrelid <> 0
UNION ALL
SELECT concat_ws(' ', pg_get_indexdef(i.indexrelid), CASE WHEN i.indisreplident THEN 'identity' END, CASE WHEN NOT i.indisvalid THEN 'invalid' END, obj_description(i.indexrelid, 'pg_class'))
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger')) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND p.pronamespace <> coalesce(to_regnamespace('phasegate')::oid, 0)
UNION ALL
SELECT concat_ws(' ', 'policy', p.polname, 'on', p.polrelid::regclass, p.polcmd, p.polpermissive, p.polroles::regrole[]::text,
  regexp_replace(pg_get_expr(p.polqual, p.polrelid), '\\s+', ' ', 'g'), regexp_replace(pg_get_expr(p.polwithcheck, p.polrelid), '\\s+', ' ', 'g'), obj_description(p.oid, 'pg_policy')) FROM pg_policy p
UNION ALL
SELECT concat_ws(' ', 'publication', p.pubname, r.prrelid::regclass, (SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM unnest(r.prattrs::int2[]) n JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = n), pg_get_expr(r.prqual, r.prrelid))
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
UNION ALL SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
UNION ALL SELECT pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN' AND c.relnamespace = 'public'::regnamespace
) s WHERE line IS NOT NULL ORDER BY line COLLATE \"C\"";

/// The catalogue of a test's own tables, as text.
pub(super) async fn catalogue(database: &Database) -> Vec<String> {
    let mut client = database.client().await;
    let rows = sqlx::query(CATALOGUE).fetch_all(&mut client).await.unwrap();
    client.close().await.unwrap();
    rows.iter().map(|row| row.try_get(0).unwrap()).collect()
}

/// What two catalogues have that the other has not.
fn changed(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let come = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

/// Roles are the server's, and other tests make them at the same time.
const ROLES: &str = "
    DO $$ BEGIN
        PERFORM pg_advisory_lock(4711);
        CREATE ROLE ret_app; CREATE ROLE ret_reader; CREATE ROLE ret_owner LOGIN;
    EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    SELECT pg_advisory_unlock(4711);";

const RICH: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY);
    INSERT INTO accounts VALUES (1), (2);
    CREATE TABLE leads (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE, status text DEFAULT 'New', n int NOT NULL DEFAULT 1,
        account_id bigint REFERENCES accounts, boss bigint REFERENCES leads, CONSTRAINT small CHECK (n < 1000));
    CREATE INDEX leads_status ON leads (status, n) WHERE n > 1;
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, status text, n int NOT NULL, account_id bigint,
        boss bigint, code text, CONSTRAINT small CHECK (n < 1000));
    CREATE INDEX ON leads_v2 (status, n) WHERE n > 1;
    CREATE TABLE notes (id int PRIMARY KEY, lead_id bigint, CONSTRAINT of_lead FOREIGN KEY (lead_id) REFERENCES leads
        ON DELETE CASCADE DEFERRABLE);
    COMMENT ON CONSTRAINT of_lead ON notes IS 'whose note';
    CREATE TABLE loose (lead_id bigint, FOREIGN KEY (lead_id) REFERENCES leads NOT VALID);
    CREATE TABLE seen (id int, PRIMARY KEY (id), by_whom bigint REFERENCES leads) PARTITION BY RANGE (id);
    CREATE TABLE seen_1 PARTITION OF seen FOR VALUES FROM (0) TO (100);
    CREATE VIEW hot WITH (security_barrier) AS SELECT id, email AS mail FROM leads WHERE status <> 'x';
    CREATE VIEW hotter AS SELECT mail, (SELECT count(*) FROM leads) AS all_of_them FROM hot;
    ALTER VIEW hot ALTER COLUMN mail SET DEFAULT 'nobody'; COMMENT ON VIEW hot IS 'the hot ones';
    CREATE POLICY of_leads ON accounts USING (EXISTS (SELECT FROM leads l WHERE l.account_id = accounts.id));
    GRANT SELECT ON hot TO ret_app;
    GRANT SELECT, INSERT ON leads TO ret_app WITH GRANT OPTION;
    GRANT SELECT ON leads_v2 TO ret_app; GRANT UPDATE (code) ON leads_v2 TO ret_reader;
    SET ROLE ret_app; GRANT SELECT ON leads TO ret_reader; RESET ROLE;
    GRANT UPDATE (status), UPDATE (n) ON leads TO ret_reader;
    GRANT USAGE ON SEQUENCE leads_id_seq TO ret_app;
    COMMENT ON TABLE leads IS 'all leads'; COMMENT ON COLUMN leads.status IS 'where it''s at';
    COMMENT ON CONSTRAINT leads_email_key ON leads IS 'one each'; COMMENT ON INDEX leads_pkey IS 'by number';
    ALTER TABLE leads ALTER n SET STATISTICS 500, ALTER n SET (n_distinct = 5), ALTER status SET STORAGE EXTERNAL,
        SET (fillfactor = 70, toast.autovacuum_enabled = false), REPLICA IDENTITY USING INDEX leads_email_key;
    ALTER TABLE leads ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON leads FOR SELECT TO ret_app USING (n > 1 AND EXISTS (SELECT FROM leads l WHERE l.boss = leads.id));
    COMMENT ON POLICY own ON leads IS 'mine';
    CREATE PUBLICATION some_of_it FOR TABLE leads (id, email, status) WHERE (email <> '');
    CREATE PUBLICATION more_of_it FOR TABLE leads, accounts;
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER noting AFTER UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION noted();
    CREATE TRIGGER noting AFTER UPDATE ON leads_v2 FOR EACH ROW EXECUTE FUNCTION noted();
    ALTER TABLE leads_v2 DISABLE TRIGGER noting;
    COMMENT ON TRIGGER noting ON leads IS 'notes it';";

fn rich() -> Mapping {
    Mapping {
        columns: vec![("code".into(), "lower(status)".into())],
        reverse: vec![("status".into(), "coalesce(code, status)".into())],
        ..mapping(("leads", &["id"]), ("leads_v2", &["id"]))
    }
}

impl Live {
    /// A table with everything around it, in sync with one that has nothing yet but rows.
    async fn rich(direction: Direction) -> Option<Self> {
        let live = Self::of(&format!("{ROLES}{RICH}"), rich(), direction).await?;
        let rows = "INSERT INTO leads (email, status, account_id) VALUES ('a', 'Hot', 1), ('b', NULL, 2);
            UPDATE leads SET boss = 1 WHERE id = 2; INSERT INTO notes VALUES (1, 1), (2, NULL); INSERT INTO loose VALUES (2);
            INSERT INTO seen VALUES (1, 1)";
        live.database.run(rows).await;
        Some(live)
    }

    /// Runs what a refusal lists until nothing is refused any more. Returns the statements.
    async fn retire_at_last(&self, shape: &RetireShape) -> Vec<String> {
        let mut ran: Vec<String> = Vec::new();
        loop {
            let retired = self.retire(shape).await;
            let Err(crate::driver::Error::Failed(refused)) = retired else {
                retired.unwrap();
                return ran;
            };
            assert_eq!(refused.class, FailureClass::Refused, "{refused:?}");
            let detail = refused.detail.unwrap();
            assert!(ran.len() < 20, "{}: {detail}", refused.message);
            for statement in detail.split(";\n") {
                self.database.run(statement).await;
                ran.push(statement.to_owned());
            }
        }
    }
}

#[tokio::test]
async fn what_needs_a_build_or_a_scan_is_listed_and_everything_else_goes_over() {
    let Some(live) = Live::rich(Direction::Forward).await else { return };
    let shape = whole(true);
    let (class, message) = failure(live.retire(&shape).await);
    assert_eq!(class, FailureClass::Refused);
    let partitioned = "ALTER TABLE public.seen ADD FOREIGN KEY (by_whom) REFERENCES \"public\".\"leads_v2\" (\"id\")";
    assert!(message.contains(partitioned), "{message}");
    live.database.run(partitioned).await;
    let ran = live.retire_at_last(&shape).await;
    let leads_v2 = "ALTER TABLE \"public\".\"leads_v2\"";
    assert_eq!(
        ran,
        [
            format!("{leads_v2} ADD CONSTRAINT \"leads_account_id_fkey\" FOREIGN KEY (account_id) REFERENCES public.accounts(id) NOT VALID"),
            format!("{leads_v2} VALIDATE CONSTRAINT \"leads_account_id_fkey\""),
            format!("{leads_v2} ADD CONSTRAINT \"leads_boss_fkey\" FOREIGN KEY (boss) REFERENCES public.leads_v2(id) NOT VALID"),
            format!("{leads_v2} VALIDATE CONSTRAINT \"leads_boss_fkey\""),
        ]
    );
}

/// With what a build or a scan makes in place already.
const READY: &str = "
    ALTER TABLE seen ADD FOREIGN KEY (by_whom) REFERENCES leads_v2;
    ALTER TABLE leads_v2 ADD FOREIGN KEY (account_id) REFERENCES accounts, ADD FOREIGN KEY (boss) REFERENCES leads_v2";

#[tokio::test]
async fn a_catalogue_differs_by_what_was_meant_and_comes_back_whole() {
    for direction in [Direction::Forward, Direction::Both] {
        for takes_name in [true, false] {
            let Some(live) = Live::rich(direction).await else { return };
            let shape = whole(takes_name);
            live.database.run(READY).await;
            let before = catalogue(&live.database).await;
            let detail = live.retire(&shape).await.unwrap().detail.unwrap();
            let after = catalogue(&live.database).await;
            let case = format!("{direction:?}, takes the name: {takes_name}");
            assert!(detail.contains("view hot, hotter made again"), "{detail}");
            if takes_name {
                assert_eq!(intended(direction), changed(&before, &after), "{case}: {detail}");
            }
            let new = if takes_name { "leads" } else { "leads_v2" };
            live.database.run(&format!("INSERT INTO {new} (id, email, n) VALUES (70, 'late', 1)")).await;
            assert_eq!(live.database.number("SELECT id FROM hot WHERE mail = 'late'").await, 70, "{case}");
            assert_eq!(live.database.number("SELECT max(all_of_them) FROM hotter").await, 3, "{case}");
            assert_eq!(live.refused("INSERT INTO notes VALUES (3, 99)").await, "23503", "{case}");
            live.database.run(&format!("INSERT INTO notes VALUES (3, 70); DELETE FROM {new} WHERE id = 70")).await;
            assert_eq!(live.database.number("SELECT count(*) FROM notes").await, 2, "{case}");

            live.unretire(&shape, Losses::Refused).await.unwrap();
            assert_eq!(live.sync().await, SyncState::Active, "{case}");
            assert_eq!(changed(&before, &catalogue(&live.database).await), [String::new(); 0], "{case}");
            let again = work("again", Way::Forward);
            live.postgres.retire(&live.fence, &again, &live.mapping, direction, &shape).await.unwrap();
            live.drop(&shape).await.unwrap();
            assert_eq!(live.ours_left().await, 0, "{case}");
            assert!(!catalogue(&live.database).await.iter().any(|line| line.contains("leads_old")), "{case}");
        }
    }
}

/// What a switch that takes the name changes in the catalogue.
fn intended(direction: Direction) -> Vec<String> {
    let _ = direction;
    Vec::new()
}

//! What goes over with a name, and comes back: the whole catalogue around a table, before and after.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::{Connection as _, Row as _};

use super::fixture::{Database, entered, mapping, work};
use super::retire_tests::{Live, failure, whole};
use super::shape::shape;
use super::{Postgres, written};
use crate::driver::{
    Access, Applied, Basis, DualWriter as _, Error, Introspect as _, Losses, Retirer as _, Survey,
    SurveyedMapping, SyncState, TxKind,
};
use crate::run::{Direction, FailureClass, Mapping, Retire, RetireShape, RetiredColumn, Way};

/// Everything in schema public that is catalogue, a line for each, but what is ours.
const CATALOGUE: &str = "\
SELECT line FROM (
SELECT concat_ws(' ', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'm' THEN 'matview' END, c.relname,
  'owner', pg_get_userbyid(c.relowner), CASE WHEN c.relrowsecurity THEN 'secured' END, CASE WHEN c.relforcerowsecurity THEN 'forced' END,
  CASE WHEN c.relkind IN ('r', 'p') THEN 'identity ' || c.relreplident::text END, c.reloptions::text, t.reloptions::text,
  (SELECT 'tablespace ' || spcname FROM pg_tablespace s WHERE s.oid = c.reltablespace), (SELECT amname FROM pg_am WHERE pg_am.oid = c.relam AND amname <> 'heap'),
  nullif(c.relpersistence::text, 'p'), obj_description(c.oid, 'pg_class'), CASE c.relkind WHEN 'v' THEN regexp_replace(pg_get_viewdef(c.oid), '\\s+', ' ', 'g') END,
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
  (SELECT string_agg(pg_get_userbyid(x.grantee) || ' may ' || x.privilege_type || CASE WHEN x.is_grantable THEN '*' ELSE '' END, ', ' ORDER BY 1) FROM aclexplode(a.attacl) x))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type y ON y.oid = a.atttypid
LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
UNION ALL
SELECT concat_ws(' ', 'constraint', k.conname, 'on', k.conrelid::regclass, pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'))
FROM pg_constraint k WHERE k.connamespace = 'public'::regnamespace AND k.conrelid <> 0
UNION ALL
SELECT concat_ws(' ', pg_get_indexdef(i.indexrelid), CASE WHEN i.indisreplident THEN 'identity' END, CASE WHEN NOT i.indisvalid THEN 'invalid' END, CASE WHEN i.indisclustered THEN 'clustered' END, obj_description(i.indexrelid, 'pg_class'))
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
UNION ALL
SELECT concat_ws(' ', 'statistics', x.stxname, 'on', x.stxrelid::regclass, pg_get_statisticsobjdef_columns(x.oid), x.stxkind::text, 'target ' || nullif(x.stxstattarget, -1),
  pg_get_userbyid(x.stxowner), obj_description(x.oid, 'pg_statistic_ext')) FROM pg_statistic_ext x
UNION ALL SELECT concat_ws(' ', 'child', inhrelid::regclass, 'of', inhparent::regclass, inhseqno) FROM pg_inherits WHERE inhrelid::regclass::text NOT LIKE 'pg_%'
UNION ALL SELECT concat_ws(' ', 'event trigger', evtname, evtevent, evtfoid::regproc, evtenabled, evttags::text, obj_description(oid, 'pg_event_trigger')) FROM pg_event_trigger
UNION ALL SELECT concat_ws(' ', 'by default', pg_get_userbyid(defaclrole), defaclnamespace::regnamespace, defaclobjtype, defaclacl::text) FROM pg_default_acl
UNION ALL SELECT concat_ws(' ', 'publication', pubname, pg_get_userbyid(pubowner), puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
  (SELECT string_agg(pnnspid::regnamespace::text, ',') FROM pg_publication_namespace WHERE pnpubid = p.oid)) FROM pg_publication p
UNION ALL SELECT concat_ws(' ', 'function', oid::regprocedure, pg_get_userbyid(proowner), proacl::text, md5(prosrc)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT concat_ws(' ', pg_get_ruledef(r.oid), r.ev_enabled, obj_description(r.oid, 'pg_rewrite')) FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN' AND c.relnamespace = 'public'::regnamespace
) s WHERE line IS NOT NULL ORDER BY line COLLATE \"C\"";

/// The catalogue of a test's own tables, as text.
pub(super) async fn catalogue(database: &Database) -> Vec<String> {
    catalogue_of(database, "public").await
}

/// The same of another schema, quoted.
pub(super) async fn catalogue_of(database: &Database, schema: &str) -> Vec<String> {
    let mut client = database.client().await;
    let query = CATALOGUE.replace("'public'", &format!("'{schema}'"));
    let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&mut client).await.unwrap();
    client.close().await.unwrap();
    rows.iter().map(|row| row.try_get(0).unwrap()).collect()
}

/// What two catalogues have that the other has not.
pub(super) fn changed(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let come = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

/// Roles are the server's, and other tests make them at the same time.
pub(super) const ROLES: &str = "
    DO $$ DECLARE role text; BEGIN
        FOREACH role IN ARRAY '{ret_app,ret_reader,ret_owner}'::text[] LOOP
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END LOOP;
    END $$;";

const RICH: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY);
    INSERT INTO accounts VALUES (1), (2);
    CREATE TABLE leads (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE, status text DEFAULT 'New', n int NOT NULL DEFAULT 1,
        account_id bigint REFERENCES accounts, boss bigint REFERENCES leads, CONSTRAINT small CHECK (n < 1000));
    CREATE INDEX leads_status ON leads (status, n) WHERE n > 1;
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, status text, n int NOT NULL, account_id bigint,
        boss bigint, code text, CONSTRAINT small CHECK (n < 1000));
    CREATE INDEX ON leads_v2 (status, n) WHERE n > 1;
    CREATE STATISTICS together ON status, n FROM leads; CREATE STATISTICS together_v2 ON status, n FROM leads_v2;
    COMMENT ON STATISTICS together IS 'both'; ALTER STATISTICS together SET STATISTICS 300;
    CREATE TABLE marks (a bigint, b bigint,
        CONSTRAINT of_a FOREIGN KEY (a) REFERENCES leads MATCH FULL ON UPDATE CASCADE ON DELETE SET DEFAULT DEFERRABLE INITIALLY DEFERRED,
        CONSTRAINT of_b FOREIGN KEY (b) REFERENCES leads ON UPDATE SET NULL ON DELETE SET NULL (b));
    CREATE TABLE notes (id int PRIMARY KEY, lead_id bigint, CONSTRAINT of_lead FOREIGN KEY (lead_id) REFERENCES leads
        ON DELETE CASCADE DEFERRABLE);
    COMMENT ON CONSTRAINT of_lead ON notes IS 'whose note';
    CREATE TABLE loose (lead_id bigint); ALTER TABLE loose ADD FOREIGN KEY (lead_id) REFERENCES leads NOT VALID;
    CREATE TABLE seen (id int, PRIMARY KEY (id), by_whom bigint REFERENCES leads) PARTITION BY RANGE (id);
    CREATE TABLE seen_1 PARTITION OF seen FOR VALUES FROM (0) TO (100);
    CREATE VIEW hot WITH (security_barrier, security_invoker = true, check_option = cascaded) AS SELECT id, email AS mail FROM leads WHERE status <> 'x';
    CREATE VIEW hotter AS SELECT mail, (SELECT count(*) FROM leads) AS all_of_them FROM hot;
    ALTER VIEW hot ALTER COLUMN mail SET DEFAULT 'nobody'; COMMENT ON VIEW hot IS 'the hot ones';
    COMMENT ON COLUMN hot.mail IS 'where to'; GRANT UPDATE (mail) ON hot TO ret_reader WITH GRANT OPTION;
    CREATE RULE kept AS ON DELETE TO hotter DO INSTEAD NOTHING; COMMENT ON RULE kept ON hotter IS 'for ever';
    CREATE FUNCTION seen_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER seen_ddl ON ddl_command_end EXECUTE FUNCTION seen_ddl();
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO ret_reader;
    COMMENT ON SEQUENCE leads_id_seq IS 'numbers';
    CREATE POLICY of_leads ON accounts USING (EXISTS (SELECT FROM leads l WHERE l.account_id = accounts.id));
    GRANT SELECT ON hot TO ret_app;
    GRANT SELECT, INSERT ON leads TO ret_app WITH GRANT OPTION;
    GRANT SELECT ON leads_v2 TO ret_app; GRANT UPDATE (code) ON leads_v2 TO ret_reader;
    SET ROLE ret_app; GRANT SELECT ON leads TO ret_reader; RESET ROLE;
    GRANT UPDATE (status), UPDATE (n) ON leads TO ret_reader; GRANT UPDATE (email) ON leads TO ret_reader WITH GRANT OPTION;
    GRANT UPDATE (email) ON leads_v2 TO ret_reader; COMMENT ON CONSTRAINT leads_boss_fkey ON leads IS 'above'; ALTER TABLE leads CLUSTER ON leads_pkey;
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
    CREATE TRIGGER through INSTEAD OF UPDATE ON hotter FOR EACH ROW EXECUTE FUNCTION noted(); COMMENT ON TRIGGER through ON hotter IS 'no';
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

    /// A sync that was put in by a role that owns the tables and no more.
    async fn opened_as(
        database: Database,
        role: &str,
        (mapping, direction): (Mapping, Direction),
    ) -> Self {
        let mut url = url::Url::parse(&database.url).unwrap();
        let name = url.path().trim_start_matches('/').to_owned();
        database.run(&format!("GRANT CREATE ON DATABASE {name} TO {role}")).await;
        url.set_username(role).unwrap();
        let postgres = Postgres::open(url.as_str(), None, Access::Full).await.unwrap();
        let fence = entered(&postgres, 1).await.remove(0);
        let sync = work("sync", Way::Forward);
        postgres.install(&fence, &sync, &mapping, direction).await.unwrap();
        Self { database, postgres, fence, mapping, direction }
    }

    /// Whether a write was noted, or may have been missed.
    pub(super) async fn is_written(&self, after: &Mapping, basis: Option<&Basis>) -> bool {
        let mut tx = self.postgres.connections.begin(&self.fence, TxKind::Watch).await.unwrap();
        let shape = shape(tx.conn().unwrap(), after).await.unwrap();
        let mut is_written = written::uncertain(&mut tx, &shape).await.unwrap().is_some();
        if let Some(basis) = basis {
            is_written |= written::rests_on(&mut tx, after, basis).await.is_err();
        }
        tx.roll_back().await;
        is_written
    }

    /// Makes both sides equal again, as the engine could.
    async fn put_back(&self, after: &Mapping) {
        let (old, new) = (&after.from.table, &after.into.table);
        let sql = if after.is_in_place() {
            "UPDATE leads SET code = lower(status_old) WHERE code IS DISTINCT FROM lower(status_old)".to_owned()
        } else {
            format!(
                "DELETE FROM {new}; INSERT INTO {new} (id, email, status, n, code) SELECT id, email, status, n, lower(status) FROM {old}"
            )
        };
        self.database.run(&sql).await;
    }

    /// Runs what a refusal lists until nothing is refused any more. Returns the statements.
    pub(super) async fn retire_at_last(&self, shape: &RetireShape) -> Vec<String> {
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
            format!(
                "{leads_v2} ADD CONSTRAINT \"leads_account_id_fkey\" FOREIGN KEY (account_id) REFERENCES public.accounts(id) NOT VALID"
            ),
            format!("{leads_v2} VALIDATE CONSTRAINT \"leads_account_id_fkey\""),
            format!(
                "{leads_v2} ADD CONSTRAINT \"leads_boss_fkey\" FOREIGN KEY (boss) REFERENCES public.leads_v2(id) NOT VALID"
            ),
            format!("{leads_v2} VALIDATE CONSTRAINT \"leads_boss_fkey\""),
        ]
    );
}

/// With what a build or a scan makes in place already.
const READY: &str = "
    ALTER TABLE seen ADD FOREIGN KEY (by_whom) REFERENCES leads_v2;
    ALTER TABLE leads_v2 ADD FOREIGN KEY (account_id) REFERENCES accounts, ADD FOREIGN KEY (boss) REFERENCES leads_v2";

/// The new table is protected as the old one is.
const PROTECTED: &str = "
    GRANT SELECT, INSERT ON leads_v2 TO ret_app WITH GRANT OPTION;
    SET ROLE ret_app; GRANT SELECT ON leads_v2 TO ret_reader; RESET ROLE;
    GRANT UPDATE (status), UPDATE (n) ON leads_v2 TO ret_reader; GRANT UPDATE (email) ON leads_v2 TO ret_reader WITH GRANT OPTION;
    ALTER TABLE leads_v2 ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON leads_v2 FOR SELECT TO ret_app USING (n > 1 AND EXISTS (SELECT FROM leads_v2 l WHERE l.boss = leads_v2.id))";

#[tokio::test]
async fn a_catalogue_differs_by_what_was_meant_and_comes_back_whole() {
    for direction in [Direction::Forward, Direction::Both] {
        for takes_name in [true, false] {
            let Some(live) = Live::rich(direction).await else { return };
            let shape = whole(takes_name);
            live.database.run(READY).await;
            if !takes_name {
                // Views would read the new table without what protects the old one.
                let before = catalogue(&live.database).await;
                let (class, message) = failure(live.retire(&shape).await);
                assert_eq!(class, FailureClass::Refused);
                assert!(
                    message.contains("view hot, which would read leads_v2 without"),
                    "{message}"
                );
                assert_eq!(changed(&before, &catalogue(&live.database).await), [""; 0]);
                live.database.run(PROTECTED).await;
            }
            let before = catalogue(&live.database).await;
            let fires = async |table: &str| -> String {
                let enabled = format!(
                    "SELECT tgenabled FROM pg_trigger WHERE tgname = 'noting' AND tgrelid = '{table}'::regclass"
                );
                live.database.text(&enabled).await
            };
            let detail = live.retire(&shape).await.unwrap().detail.unwrap();
            let after = catalogue(&live.database).await;
            let case = format!("{direction:?}, takes the name: {takes_name}");
            assert!(detail.contains("view hot, hotter made again"), "{detail}");
            let mut differs = changed(&before, &after);
            differs.sort();
            if takes_name {
                assert_eq!(differs, intended(direction), "{case}");
            } else {
                // The old table has another name, and that is all about it.
                let named: Vec<String> =
                    after.iter().map(|line| line.replace("leads_old", "leads")).collect();
                let mut differs = changed(&before, &named);
                differs.sort();
                assert_eq!(differs, without_name(direction), "{case}");
            }
            let new = if takes_name { "leads" } else { "leads_v2" };
            let once = if direction == Direction::Both { "D" } else { "O" };
            assert_eq!(
                (fires(new).await.as_str(), fires("leads_old").await.as_str()),
                ("O", once),
                "{case}"
            );
            live.database
                .run(&format!(
                    "INSERT INTO {new} (id, email, n, status) VALUES (70, 'late', 1, 'warm')"
                ))
                .await;
            assert_eq!(
                live.database.number("SELECT id FROM hot WHERE mail = 'late'").await,
                70,
                "{case}"
            );
            assert_eq!(
                live.database.number("SELECT max(all_of_them) FROM hotter").await,
                3,
                "{case}"
            );
            assert_eq!(live.refused("INSERT INTO notes VALUES (3, 99)").await, "23503", "{case}");
            live.database
                .run(&format!("INSERT INTO notes VALUES (3, 70); DELETE FROM {new} WHERE id = 70"))
                .await;
            assert_eq!(live.database.number("SELECT count(*) FROM notes").await, 2, "{case}");

            live.unretire(&shape, live.where_written()).await.unwrap();
            assert_eq!(live.sync().await, SyncState::Active, "{case}");
            assert_eq!(changed(&before, &catalogue(&live.database).await), [""; 0], "{case}");
            let again = work("again", Way::Forward);
            live.postgres
                .retire(
                    &live.fence,
                    &again,
                    &live.mapping,
                    direction,
                    &Retire::of(&live.mapping, &shape),
                )
                .await
                .unwrap();
            live.drop(&shape).await.unwrap();
            assert_eq!(live.ours_left().await, 0, "{case}");
            assert!(
                !catalogue(&live.database).await.iter().any(|line| line.contains("leads_old")),
                "{case}"
            );
        }
    }
}

/// What a switch that takes no name changes: what read the old table reads the new one, whose triggers fire.
const WITHOUT_NAME: [&str; 22] = [
    "+ CREATE TRIGGER noting AFTER UPDATE ON public.leads_v2 FOR EACH ROW EXECUTE FUNCTION noted() O",
    "+ constraint loose_lead_id_fkey on loose FOREIGN KEY (lead_id) REFERENCES leads_v2(id) NOT VALID",
    "+ constraint of_a on marks FOREIGN KEY (a) REFERENCES leads_v2(id) MATCH FULL ON UPDATE CASCADE ON DELETE SET DEFAULT DEFERRABLE INITIALLY DEFERRED",
    "+ constraint of_b on marks FOREIGN KEY (b) REFERENCES leads_v2(id) ON UPDATE SET NULL ON DELETE SET NULL (b)",
    "+ constraint of_lead on notes FOREIGN KEY (lead_id) REFERENCES leads_v2(id) ON DELETE CASCADE DEFERRABLE whose note",
    "+ constraint seen_by_whom_fkey on seen FOREIGN KEY (by_whom) REFERENCES leads_v2(id)",
    "+ policy of_leads on accounts * t {-} (EXISTS ( SELECT FROM leads_v2 l WHERE (l.account_id = accounts.id)))",
    "+ view hot owner tester {security_barrier=true,security_invoker=true,check_option=cascaded} the hot ones  SELECT leads_v2.id, leads_v2.email AS mail FROM leads_v2 WHERE (leads_v2.status <> 'x'::text);",
    "+ view hotter owner tester  SELECT hot.mail, ( SELECT count(*) AS count FROM leads_v2) AS all_of_them FROM hot;",
    "- CREATE TRIGGER noting AFTER UPDATE ON public.leads_v2 FOR EACH ROW EXECUTE FUNCTION noted() D",
    "- constraint leads_account_id_fkey on leads FOREIGN KEY (account_id) REFERENCES accounts(id)",
    "- constraint leads_boss_fkey on leads FOREIGN KEY (boss) REFERENCES leads(id) above",
    "- constraint loose_lead_id_fkey on loose FOREIGN KEY (lead_id) REFERENCES leads(id) NOT VALID",
    "- constraint of_a on marks FOREIGN KEY (a) REFERENCES leads(id) MATCH FULL ON UPDATE CASCADE ON DELETE SET DEFAULT DEFERRABLE INITIALLY DEFERRED",
    "- constraint of_b on marks FOREIGN KEY (b) REFERENCES leads(id) ON UPDATE SET NULL ON DELETE SET NULL (b)",
    "- constraint of_lead on notes FOREIGN KEY (lead_id) REFERENCES leads(id) ON DELETE CASCADE DEFERRABLE whose note",
    "- constraint seen_by_whom_fkey on seen FOREIGN KEY (by_whom) REFERENCES leads(id)",
    "- constraint seen_by_whom_fkey on seen_1 FOREIGN KEY (by_whom) REFERENCES leads(id)",
    "- constraint seen_by_whom_fkey1 on seen FOREIGN KEY (by_whom) REFERENCES leads_v2(id)",
    "- policy of_leads on accounts * t {-} (EXISTS ( SELECT FROM leads l WHERE (l.account_id = accounts.id)))",
    "- view hot owner tester {security_barrier=true,security_invoker=true,check_option=cascaded} the hot ones  SELECT leads.id, leads.email AS mail FROM leads WHERE (leads.status <> 'x'::text);",
    "- view hotter owner tester  SELECT hot.mail, ( SELECT count(*) AS count FROM leads) AS all_of_them FROM hot;",
];

/// The same with both directions: the old table keeps its foreign keys, and its triggers leave what comes from the new one be.
fn without_name(direction: Direction) -> Vec<String> {
    let mut lines: Vec<String> = WITHOUT_NAME.map(str::to_owned).to_vec();
    if direction == Direction::Both {
        lines.retain(|line| !line.starts_with("- constraint leads_"));
        let noting = "CREATE TRIGGER noting AFTER UPDATE ON public.leads FOR EACH ROW EXECUTE FUNCTION noted()";
        lines.push(format!("+ {noting} D notes it"));
        lines.push(format!("- {noting} O notes it"));
        lines.sort();
    }
    lines
}

/// What a switch that takes the name changes in the catalogue: every line of `leads` is there again, as it was, but for names
/// of plain indexes and foreign keys, and the column that is new; and `leads_old` has what it had.
const INTENDED: [&str; 51] = [
    "- CREATE INDEX leads_status ON public.leads USING btree (status, n) WHERE (n > 1)",
    "- CREATE INDEX leads_v2_status_n_idx ON public.leads_v2 USING btree (status, n) WHERE (n > 1)",
    "- CREATE TRIGGER noting AFTER UPDATE ON public.leads_v2 FOR EACH ROW EXECUTE FUNCTION noted() D",
    "- CREATE UNIQUE INDEX leads_v2_email_key ON public.leads_v2 USING btree (email)",
    "- CREATE UNIQUE INDEX leads_v2_pkey ON public.leads_v2 USING btree (id)",
    "- column leads_v2.account_id bigint",
    "- column leads_v2.boss bigint",
    "- column leads_v2.code text ret_reader may UPDATE",
    "- column leads_v2.email text not null ret_reader may UPDATE",
    "- column leads_v2.id bigint not null",
    "- column leads_v2.n integer not null",
    "- column leads_v2.status text",
    "- constraint leads_account_id_fkey on leads FOREIGN KEY (account_id) REFERENCES accounts(id)",
    "- constraint leads_boss_fkey on leads FOREIGN KEY (boss) REFERENCES leads(id) above",
    "- constraint leads_v2_account_id_fkey on leads_v2 FOREIGN KEY (account_id) REFERENCES accounts(id)",
    "- constraint leads_v2_boss_fkey on leads_v2 FOREIGN KEY (boss) REFERENCES leads_v2(id)",
    "- constraint leads_v2_email_key on leads_v2 UNIQUE (email)",
    "- constraint leads_v2_pkey on leads_v2 PRIMARY KEY (id)",
    "- constraint seen_by_whom_fkey on seen_1 FOREIGN KEY (by_whom) REFERENCES leads(id)",
    "- constraint seen_by_whom_fkey1 on seen FOREIGN KEY (by_whom) REFERENCES leads_v2(id)",
    "- constraint seen_by_whom_fkey1 on seen_1 FOREIGN KEY (by_whom) REFERENCES leads_v2(id)",
    "- constraint small on leads_v2 CHECK ((n < 1000))",
    "- grant leads_v2 tester to ret_app SELECT f",
    "- statistics together on leads status, n {d,f,m} target 300 tester both",
    "- statistics together_v2 on leads_v2 status, n {d,f,m} tester",
    "- table leads_v2 owner tester identity d",
    "+ CREATE INDEX leads_status ON public.leads_old USING btree (status, n) WHERE (n > 1)",
    "+ CREATE INDEX leads_v2_status_n_idx ON public.leads USING btree (status, n) WHERE (n > 1)",
    "+ CREATE TRIGGER noting AFTER UPDATE ON public.leads_old FOR EACH ROW EXECUTE FUNCTION noted() O notes it",
    "+ CREATE UNIQUE INDEX leads_v2_email_key ON public.leads_old USING btree (email) identity",
    "+ CREATE UNIQUE INDEX leads_v2_pkey ON public.leads_old USING btree (id) clustered by number",
    "+ column leads.code text ret_reader may UPDATE",
    "+ column leads_old.account_id bigint",
    "+ column leads_old.boss bigint",
    "+ column leads_old.email text not null ret_reader may UPDATE*",
    "+ column leads_old.id bigint not null nextval('leads_id_seq'::regclass)",
    "+ column leads_old.n integer not null 1 statistics 500 {n_distinct=5} ret_reader may UPDATE",
    "+ column leads_old.status text 'New'::text e where it's at ret_reader may UPDATE",
    "+ constraint leads_v2_email_key on leads_old UNIQUE (email) one each",
    "+ constraint leads_v2_pkey on leads_old PRIMARY KEY (id)",
    "+ constraint leads_v2_account_id_fkey on leads FOREIGN KEY (account_id) REFERENCES accounts(id)",
    "+ constraint leads_v2_boss_fkey on leads FOREIGN KEY (boss) REFERENCES leads(id) above",
    "+ constraint seen_by_whom_fkey1 on seen_1 FOREIGN KEY (by_whom) REFERENCES leads(id)",
    "+ constraint small on leads_old CHECK ((n < 1000))",
    "+ grant leads_old ret_app to ret_reader SELECT f",
    "+ grant leads_old tester to ret_app INSERT t",
    "+ grant leads_old tester to ret_app SELECT t",
    "+ policy own on leads_old r t {ret_app} ((n > 1) AND (EXISTS ( SELECT FROM leads_old l WHERE (l.boss = leads_old.id)))) mine",
    "+ statistics together on leads_old status, n {d,f,m} target 300 tester both",
    "+ statistics together_v2 on leads status, n {d,f,m} target 300 tester both",
    "+ table leads_old owner tester secured identity i {fillfactor=70} {autovacuum_enabled=false} all leads",
];

/// The same where the sync lives on: the old table keeps its foreign keys, and its trigger is disabled, since the new one's
/// fires from now on.
fn intended(direction: Direction) -> Vec<String> {
    let mut lines: Vec<String> = INTENDED.iter().map(|line| (*line).to_owned()).collect();
    if direction == Direction::Both {
        for line in &mut lines {
            if line.contains("AFTER UPDATE ON public.leads_old") {
                *line = line.replace("noted() O", "noted() D");
            }
        }
        lines.extend([
            "+ constraint leads_account_id_fkey on leads_old FOREIGN KEY (account_id) REFERENCES accounts(id)".to_owned(),
            "+ constraint leads_boss_fkey on leads_old FOREIGN KEY (boss) REFERENCES leads_old(id) above".to_owned(),
        ]);
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn a_view_whose_columns_would_be_of_another_type_is_refused() {
    let setup = "CREATE TABLE leads (id int PRIMARY KEY, n int); CREATE TABLE leads_v2 (id int PRIMARY KEY, n bigint);
        CREATE VIEW counted AS SELECT n FROM leads";
    let plain = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    let Some(live) = Live::of(setup, plain, Direction::Forward).await else { return };
    let before = catalogue(&live.database).await;
    let (class, message) = failure(live.retire(&whole(true)).await);
    assert_eq!(class, FailureClass::Refused);
    let why = "view public.counted: its column n would be bigint, not integer";
    assert!(message.contains(why), "{message}");
    assert_eq!(changed(&before, &catalogue(&live.database).await), [""; 0]);
}

/// What a refusal says of what to do.
fn helped(result: Result<Applied, Error>) -> String {
    let Err(Error::Failed(failure)) = result else { panic!("{result:?}") };
    failure.help.unwrap()
}

/// What the server would refuse behind the renames is refused while somebody keeps every lock from us, and told by a dry run.
#[tokio::test]
async fn what_can_t_go_over_is_found_before_any_lock_is_asked_for() {
    let setup = "
        CREATE TABLE leads (id int PRIMARY KEY, n int, v text); CREATE TABLE leads_v2 (id int PRIMARY KEY, n bigint, w text);
        CREATE VIEW counted AS SELECT l.n FROM leads l JOIN leads ON leads.n > l.n;
        CREATE VIEW summed AS SELECT sum(n) AS s FROM leads WHERE n > 1;
        CREATE VIEW fine AS SELECT n > 1 AS is_more, 'of public.leads' AS said FROM leads;
        CREATE POLICY own ON leads USING (v <> ''); CREATE PUBLICATION sends FOR TABLE leads (id, v);";
    let renamed = Mapping {
        columns: vec![("w".into(), "v".into())],
        ..mapping(("leads", &["id"]), ("leads_v2", &["id"]))
    };
    let Some(live) = Live::of(setup, renamed, Direction::Forward).await else { return };
    let survey = Survey {
        retired: vec![(live.mapping.name.clone(), whole(true))],
        mappings: vec![SurveyedMapping {
            step: "sync".into(),
            mapping: live.mapping.clone(),
            direction: Some(Direction::Forward),
        }],
        ..Survey::default()
    };
    let found = live.postgres.survey(&survey).await.unwrap();
    let ahead: Vec<String> = found.into_iter().map(|it| it.message).collect();
    let ahead = ahead.join("\n");
    let holding = async || {
        let mut client = live.database.client().await;
        for sql in ["BEGIN", "LOCK TABLE leads IN ACCESS SHARE MODE"] {
            sqlx::query(sql).execute(&mut client).await.unwrap();
        }
        client
    };
    let client = holding().await;
    let (class, message) = failure(live.retire(&whole(true)).await);
    assert_eq!(class, FailureClass::Refused, "{message}");
    for why in [
        "policy own on leads names v, which leads_v2 has not",
        "publication sends names v, which leads_v2 has not",
    ] {
        assert!(message.contains(why), "{message}");
        assert!(ahead.contains(&format!("retire is refused while this stands: {why}")), "{ahead}");
    }
    assert!(ahead.contains("view public.summed can't be made again if it shows"), "{ahead}");
    client.close().await.unwrap();
    live.database.run("DROP POLICY own ON leads; DROP PUBLICATION sends").await;
    let client = holding().await;
    let (class, message) = failure(live.retire(&whole(true)).await);
    assert_eq!(class, FailureClass::Refused, "{message}");
    for why in [
        "view public.counted: its column n would be bigint, not integer",
        "view public.summed: its column s would be numeric, not bigint",
    ] {
        assert!(message.contains(why), "{message}");
    }
    assert!(!message.contains("fine"), "{message}");
    client.close().await.unwrap();
    live.database.run("DROP VIEW counted, summed").await;
    live.retire(&whole(true)).await.unwrap();
    // A view that was changed since is in the way back, with a word on what to do.
    live.database.run("CREATE OR REPLACE VIEW fine AS SELECT n > 1 AS is_more, 'of public.leads' AS said, 1 AS one FROM leads").await;
    let help = helped(live.unretire(&whole(true), Losses::Accepted).await);
    assert!(help.contains("make it as it was (CREATE OR REPLACE VIEW public.fine"), "{help}");
}

#[tokio::test]
async fn a_publication_of_somebody_else_is_found_before() {
    let setup = "
        CREATE TABLE leads (id int PRIMARY KEY); CREATE TABLE leads_v2 (id int PRIMARY KEY); CREATE PUBLICATION sends FOR TABLE leads;
        ALTER TABLE leads OWNER TO ret_owner; ALTER TABLE leads_v2 OWNER TO ret_owner; GRANT ALL ON SCHEMA public TO ret_owner;";
    let Some(database) = Database::with(&format!("{ROLES}{setup}")).await else { return };
    let plain = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    let live = Live::opened_as(database, "ret_owner", (plain, Direction::Forward)).await;
    let (class, message) = failure(live.retire(&whole(true)).await);
    assert_eq!(class, FailureClass::Refused, "{message}");
    assert!(message.contains("who has to add leads_v2 to it"), "{message}");
    live.database.run("ALTER PUBLICATION sends ADD TABLE leads_v2").await;
    live.retire(&whole(true)).await.unwrap();
}

#[tokio::test]
async fn a_replica_identity_without_a_counterpart_is_no_statement() {
    let setup = "
        CREATE TABLE leads (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL, CHECK (b > 0)); CREATE TABLE leads_v2 (id int PRIMARY KEY, c int, b int NOT NULL);
        CREATE UNIQUE INDEX by_a ON leads (a); ALTER TABLE leads REPLICA IDENTITY USING INDEX by_a";
    let renamed = Mapping {
        columns: vec![("c".into(), "a".into())],
        ..mapping(("leads", &["id"]), ("leads_v2", &["id"]))
    };
    let Some(live) = Live::of(setup, renamed, Direction::Forward).await else { return };
    let Err(Error::Failed(refused)) = live.retire(&whole(true)).await else { panic!() };
    for statement in refused.detail.unwrap().split(";\n") {
        live.database.run(statement).await;
    }
    let help = helped(live.retire(&whole(true)).await);
    assert!(help.contains("ALTER TABLE \"public\".\"leads_v2\" REPLICA IDENTITY"), "{help}");
    live.database.run("ALTER TABLE leads_v2 REPLICA IDENTITY FULL").await;
    live.retire(&whole(true)).await.unwrap();
}

#[tokio::test]
async fn a_step_whose_keys_are_not_checked_yet_goes_on_with_them() {
    let Some(live) = Live::rich(Direction::Both).await else { return };
    let shape = whole(true);
    // A row that no foreign key has looked at, as a restore that disables triggers leaves one.
    live.database
        .run(&format!(
            "{READY}; SET session_replication_role = replica; INSERT INTO notes VALUES (9, 99)"
        ))
        .await;
    let (class, message) = failure(live.retire(&shape).await);
    assert_eq!(class, FailureClass::Refused);
    assert!(message.contains("could not check a foreign key of_lead of public.notes"), "{message}");
    let unchecked = "SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE NOT convalidated";
    assert_eq!(live.database.text(unchecked).await, "loose_lead_id_fkey of_lead");
    assert!(failure(live.retire(&shape).await).1.contains("of_lead"));
    live.database.run("DELETE FROM notes WHERE id = 9").await;
    assert!(live.retire(&shape).await.unwrap().before);
    assert_eq!(live.database.text(unchecked).await, "loose_lead_id_fkey");

    // The way back: it holds for what is written from now on, and nobody is kept from going back.
    live.database
        .run("SET session_replication_role = replica; INSERT INTO notes VALUES (9, 99)")
        .await;
    live.unretire(&shape, Losses::Refused).await.unwrap();
    assert_eq!(live.database.text(unchecked).await, "loose_lead_id_fkey of_lead");
    live.database.run("DELETE FROM notes WHERE id = 9").await;
    live.unretire(&shape, Losses::Refused).await.unwrap();
    assert_eq!(live.database.text(unchecked).await, "loose_lead_id_fkey");
}

#[tokio::test]
async fn rows_that_refer_to_what_a_mapping_leaves_out_are_found_before() {
    let setup = "CREATE TABLE leads (id int PRIMARY KEY, n int); CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL);
        CREATE TABLE notes (id int PRIMARY KEY, lead_id int REFERENCES leads)";
    let filtered = Mapping {
        filter: Some("n > 0".into()),
        ..mapping(("leads", &["id"]), ("leads_v2", &["id"]))
    };
    let Some(live) = Live::of(setup, filtered, Direction::Forward).await else { return };
    live.database.run("INSERT INTO leads VALUES (1, 1), (2, 0); INSERT INTO notes VALUES (1, 1), (2, 2), (3, NULL)").await;
    let (_, message) = failure(live.retire(&whole(true)).await);
    assert!(
        message.contains("rows refer to rows of leads that the mapping leaves out | foreign key notes_lead_id_fkey of notes"),
        "{message}"
    );
    assert!(helped(live.retire(&whole(true)).await).contains("drop the foreign key"));
    live.database.run("DELETE FROM notes WHERE id = 2").await;
    live.retire(&whole(true)).await.unwrap();
}

/// What nobody else may do for the role is refused by name; all the rest an owner of tables can do.
#[tokio::test]
async fn an_owner_of_tables_needs_no_more_than_that() {
    let setup = "
        CREATE TABLE leads (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, email text);
        CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL);
        CREATE TABLE notes (id int PRIMARY KEY, lead_id bigint REFERENCES leads ON DELETE SET NULL);
        CREATE VIEW hot AS SELECT id FROM leads;
        GRANT SELECT ON leads TO ret_app WITH GRANT OPTION; COMMENT ON TABLE leads IS 'all';
        CREATE TABLE accounts (id int PRIMARY KEY); GRANT REFERENCES ON accounts TO ret_owner;";
    let owners = "ALTER TABLE leads OWNER TO ret_owner; ALTER TABLE leads_v2 OWNER TO ret_owner;
        ALTER TABLE notes OWNER TO ret_owner; ALTER VIEW hot OWNER TO ret_owner;
        GRANT ALL ON SCHEMA public TO ret_owner; SET ROLE ret_owner;
        ALTER TABLE leads ADD account int REFERENCES accounts; ALTER TABLE leads_v2 ADD account int REFERENCES accounts";
    let Some(database) = Database::with(&format!("{ROLES}{setup}{owners}")).await else { return };
    let plain = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    let live = Live::opened_as(database, "ret_owner", (plain, Direction::Forward)).await;
    let shape = whole(true);
    let before = catalogue(&live.database).await;
    live.database.run("ALTER VIEW hot OWNER TO ret_app; CREATE TABLE of_others (lead_id bigint REFERENCES leads)").await;
    let (class, message) = failure(live.retire(&shape).await);
    assert_eq!(class, FailureClass::Refused);
    assert!(
        message.contains("view hot belongs to ret_app, so it can't be made again"),
        "{message}"
    );
    assert!(
        message.contains("foreign key of_others_lead_id_fkey of of_others, which belongs to"),
        "{message}"
    );
    live.database.run("ALTER VIEW hot OWNER TO ret_owner; DROP TABLE of_others").await;
    live.retire(&shape).await.unwrap();
    live.database.run("SET ROLE ret_owner; INSERT INTO leads DEFAULT VALUES").await;
    assert_eq!(live.database.number("SELECT count(*) FROM hot").await, 1);
    live.unretire(&shape, Losses::Accepted).await.unwrap();
    assert_eq!(changed(&before, &catalogue(&live.database).await), [""; 0]);
    live.ledger_forgets("retire").await;
    live.retire(&shape).await.unwrap();
    live.drop(&shape).await.unwrap();
    assert_eq!(live.ours_left().await, 0);
}

/// The owner goes over first of all; what would write every row anew, or take something away, is said.
#[tokio::test]
async fn an_owner_goes_over_and_what_stays_is_said() {
    let setup = "
        CREATE TABLE leads (id bigserial PRIMARY KEY, email text);
        CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text); ALTER TABLE leads_v2 SET UNLOGGED;
        ALTER TABLE leads OWNER TO ret_owner; GRANT SELECT ON leads TO ret_app, CURRENT_USER; GRANT ALL ON SCHEMA public TO ret_owner;
        GRANT ALL ON leads_v2 TO ret_owner; GRANT SELECT, DELETE ON leads_v2 TO ret_reader; GRANT SELECT ON leads_v2 TO ret_app;";
    let Some(database) = Database::with(&format!("{ROLES}{setup}")).await else { return };
    // Tablespaces are the server's.
    let space = format!("space_{}", uuid::Uuid::now_v7().simple());
    let mut client = database.client().await;
    for sql in [
        "SET allow_in_place_tablespaces = on".to_owned(),
        format!("CREATE TABLESPACE {space} LOCATION ''"),
        format!("ALTER TABLE leads_v2 SET TABLESPACE {space}"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut client).await.unwrap();
    }
    let postgres = database.open().await;
    let fence = entered(&postgres, 1).await.remove(0);
    let mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    let direction = Direction::Forward;
    postgres.install(&fence, &work("sync", Way::Forward), &mapping, direction).await.unwrap();
    let live = Live { database, postgres, fence, mapping, direction };
    let before = catalogue(&live.database).await;
    let detail = live.retire(&whole(true)).await.unwrap().detail.unwrap();
    let said = format!(
        "it keeps what leads_v2 had: tablespace {space}, not pg_default; unlogged; DELETE, SELECT for ret_reader, which the old one did not give"
    );
    assert!(detail.contains(&said), "{detail}");
    let after = catalogue(&live.database).await;
    for line in [
        "grant leads ret_owner to ret_app SELECT f",
        "grant leads ret_owner to ret_reader DELETE f",
        "grant leads ret_owner to tester SELECT f",
        "sequence leads_id_seq owner ret_owner belongs to leads.id",
    ] {
        assert!(after.iter().any(|it| it.starts_with(line)), "{line}: {after:#?}");
    }
    let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'leads'::regclass";
    assert_eq!(live.database.text(owner).await, "ret_owner");
    live.unretire(&whole(true), Losses::Refused).await.unwrap();
    assert_eq!(changed(&before, &catalogue(&live.database).await), [""; 0]);
    live.ledger_forgets("retire").await;
    live.retire(&whole(true)).await.unwrap();
    live.drop(&whole(true)).await.unwrap();
    live.database.gone().await;
    let mut server = url::Url::parse(&live.database.url).unwrap();
    server.set_path("postgres");
    let mut admin = sqlx::PgConnection::connect(server.as_str()).await.unwrap();
    let drop = format!("DROP TABLESPACE {space}");
    sqlx::query(sqlx::AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
}

#[tokio::test]
async fn what_was_put_aside_is_dropped_though_the_mapping_fits_no_more() {
    for direction in [Direction::Forward, Direction::Both] {
        let Some(live) = Live::rich(direction).await else { return };
        live.database.run(READY).await;
        live.retire(&whole(true)).await.unwrap();
        if direction == Direction::Both {
            live.database.run("ALTER TABLE leads DISABLE TRIGGER ALL").await;
        }
        // Weeks later the new table goes on in its own way.
        live.database
            .run("ALTER TABLE leads DROP code; ALTER TABLE leads RENAME id TO number")
            .await;
        let (class, message) = failure(live.unretire(&whole(true), Losses::Refused).await);
        assert_ne!(class, FailureClass::Damaged, "{message}");
        live.drop(&whole(true)).await.unwrap();
        assert_eq!(live.ours_left().await, 0);
        live.database.run("INSERT INTO leads (email, n) VALUES ('last', 1)").await;
    }
}

/// How a mapping is put aside, and statements with whether each is a write that counts.
type Case<'a> = (Option<&'a RetireShape>, &'a [(&'a str, bool)]);

/// Writes are noted from `retire` on, whoever makes them and however.
#[tokio::test]
async fn what_is_written_after_retire_is_seen_under_the_lock() {
    let setup = "GRANT ALL ON ALL TABLES IN SCHEMA public TO ret_app; ALTER TABLE leads DISABLE ROW LEVEL SECURITY";
    let in_place = Mapping {
        columns: vec![("code".into(), "lower(status)".into())],
        ..mapping(("leads", &["id"]), ("leads", &["id"]))
    };
    let aside = RetireShape::Columns(vec![RetiredColumn {
        column: "status".into(),
        old_name: "status_old".into(),
        take_name: None,
    }]);
    let other = "UPDATE leads SET n = n + 1; DELETE FROM leads WHERE id = 2";
    let cases: [Case<'_>; 2] = [
        (
            None,
            &[
                ("UPDATE accounts SET id = id", false),
                ("UPDATE leads SET n = n WHERE id = 1", true),
                ("DELETE FROM leads", true),
                ("INSERT INTO leads (id, email, n) VALUES (50, 'x', 1)", true),
                ("TRUNCATE leads CASCADE", true),
            ],
        ),
        (
            Some(&aside),
            &[
                (other, false),
                ("UPDATE leads SET status_old = 'y' WHERE id = 1", true),
                ("UPDATE leads SET code = 'z' WHERE id = 1", true),
                ("INSERT INTO leads (id, email) VALUES (50, 'x')", true),
            ],
        ),
    ];
    for (columns, writes) in cases {
        let whole = whole(true);
        let (shape, mapping) =
            columns.map_or_else(|| (&whole, rich()), |shape| (shape, in_place.clone()));
        let more = if columns.is_some() { "ALTER TABLE leads ADD code text;" } else { "" };
        let Some(live) =
            Live::of(&format!("{ROLES}{RICH}{more}"), mapping, Direction::Forward).await
        else {
            return;
        };
        if columns.is_some() {
            live.database.run("DROP VIEW hotter, hot; ALTER TABLE leads DISABLE ROW LEVEL SECURITY; DROP PUBLICATION some_of_it").await;
        }
        live.database
            .run("INSERT INTO leads (email, status) VALUES ('a', 'Hot'), ('b', 'Cold')")
            .await;
        live.database.run(if columns.is_some() { "SELECT" } else { READY }).await;
        live.retire(shape).await.unwrap();
        live.database.run(setup).await;
        let notes = format!("phasegate.written_{}", super::sync_tests::id(&live.mapping));
        let after = live.mapping.retired(shape);
        for (write, is_noted) in writes {
            let rolled_back = format!("BEGIN; {write}; ROLLBACK");
            live.database.run(&rolled_back).await;
            assert!(!live.is_written(&after, None).await, "{write}, rolled back");
            live.database.run(&format!("SET ROLE ret_app; BEGIN; {write}; COMMIT")).await;
            assert_eq!(live.is_written(&after, None).await, *is_noted, "{write}");
            live.put_back(&after).await;
            live.database.run(&format!("DELETE FROM {notes}")).await;
        }
        if columns.is_none() {
            live.database.run("UPDATE leads SET n = 77").await;
            let (class, message) = failure(live.unretire(shape, Losses::Refused).await);
            assert_eq!(class, FailureClass::Unsafe, "{message}");
            live.unretire(shape, Losses::Accepted).await.unwrap();
            assert_eq!(
                live.database
                    .number(
                        "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'phasegate_written%'"
                    )
                    .await,
                0
            );
        }
    }
}

//! What it takes to run a plan on PostgreSQL: a plain owner of the tables, and a schema that somebody else made for us.

use crate::examples::database::{Database, block_on, connect};
use crate::sandbox::Sandbox;
use crate::services;

const PLAN: &str = "\
apiVersion: phasegate/v1
kind: Plan
metadata:
  name: orders
targets:
  shop:
    engine: postgres
    url: \"${env:SHOP_URL}\"
    schema: migrations of ours
mappings:
  orders:
    from:
      target: shop
      table: crm.orders
      key: [id]
    into:
      target: shop
      table: crm.orders_v2
    columns:
      state: upper(state)
steps:
  - id: create
    phase: expand
    target: shop
    sql: CREATE TABLE crm.orders_v2 (id bigint PRIMARY KEY, state text NOT NULL, note text)
    undo:
      sql: DROP TABLE crm.orders_v2
  - id: sync
    phase: dual-write
    dual_write:
      mapping: orders
      direction: forward
  - id: copy
    phase: backfill
    backfill:
      mapping: orders
  - id: compare
    phase: verify
    verify:
      mapping: orders
      method: full
  - id: ready
    phase: contract
    gate:
      verified_within: 1h
  - id: switch
    phase: contract
    retire:
      mapping: orders
      old_name: orders_old
      take_name: true
  - id: sure
    phase: contract
    gate:
      verified_within: 1h
  - id: clean-up
    phase: contract
    drop:
      mapping: orders
    irreversible: every row lives on in the new table
";

/// Runs statements as a role of the server.
fn as_role(database: &Database, role: &str, statements: &str) -> Result<(), String> {
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(role).unwrap();
    block_on(async {
        let mut conn = connect(url.as_str()).await.map_err(|error| error.to_string())?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned()))
            .execute(&mut conn)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    })
}

#[test]
fn a_plain_owner_with_a_schema_made_for_it_runs_a_plan_to_the_end() {
    let Some(server) = services::postgres("rights") else { return };
    let database = Database::on(&server, "");
    let admin = url::Url::parse(&server).unwrap().username().to_owned();
    let owner = format!("{}_owner", database.owner());
    let web = format!("{}_web", database.owner());
    let setup = format!(
        "CREATE ROLE {owner} LOGIN; CREATE ROLE {web} LOGIN;
         REVOKE ALL ON DATABASE {0} FROM PUBLIC; GRANT CONNECT ON DATABASE {0} TO {owner}, {web};
         CREATE SCHEMA crm AUTHORIZATION {owner};
         CREATE SCHEMA \"migrations of ours\";
         GRANT USAGE, CREATE ON SCHEMA \"migrations of ours\" TO {owner};
         CREATE TABLE \"migrations of ours\".notes AS SELECT 'not of this tool' AS note",
        database.owner()
    );
    as_role(&database, &admin, &setup).unwrap();
    let tables = format!(
        "CREATE TABLE crm.orders (id bigint PRIMARY KEY, state text NOT NULL, note text);
         INSERT INTO crm.orders SELECT n, 'open', 'n' || n FROM generate_series(1, 500) AS n;
         GRANT USAGE ON SCHEMA crm TO {web};
         GRANT SELECT, INSERT, UPDATE, DELETE ON crm.orders TO {web}"
    );
    as_role(&database, &owner, &tables).unwrap();
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", PLAN);
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&owner).unwrap();
    let run = |args: &[&str]| sandbox.run_with(args, "SHOP_URL", url.as_str());

    run(&["run", "plan.yaml", "--to", "dual-write"]).expect(0);
    // An application that knows the old table only, and may do nothing else, is followed.
    let writes = "INSERT INTO crm.orders VALUES (900, 'new', 'w'); UPDATE crm.orders SET state = 'paid' WHERE id = 7;
        DELETE FROM crm.orders WHERE id = 8";
    as_role(&database, &web, writes).unwrap();
    let superuser = |query: &str| {
        block_on(async {
            let mut conn = connect(&database.as_superuser()).await.unwrap();
            let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT ({query})::text")))
                .fetch_one(&mut conn)
                .await
                .unwrap();
            sqlx::Row::try_get::<Option<String>, _>(&row, 0).unwrap().unwrap_or_default()
        })
    };
    assert_eq!(superuser("SELECT state FROM crm.orders_v2 WHERE id = 900"), "NEW");
    assert!(as_role(&database, &web, "SELECT * FROM crm.orders_v2").is_err());
    // What runs with the owner's rights can't be called by others.
    let callable = format!(
        "SELECT count(*) FROM pg_proc WHERE pronamespace = '\"migrations of ours\"'::regnamespace
         AND has_function_privilege('{web}', oid, 'EXECUTE')"
    );
    assert_eq!(superuser(&callable), "0");

    run(&["run", "plan.yaml"]).expect(0);
    // The new table has the old one's name and rights.
    as_role(&database, &web, "UPDATE crm.orders SET note = 'after' WHERE id = 9").unwrap();
    let rows = "SELECT string_agg(id || state, ',' ORDER BY id) FROM crm.orders WHERE id IN (7, 8, 9, 900)";
    assert_eq!(superuser(rows), "7PAID,9OPEN,900NEW");
    let left = "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class
        WHERE relnamespace = '\"migrations of ours\"'::regnamespace AND relkind IN ('r', 'S', 'v')";
    assert_eq!(superuser(left), "notes,runs");
    assert_eq!(superuser("SELECT count(*) FROM pg_namespace WHERE nspname = 'phasegate'"), "0");
    let functions =
        "SELECT count(*) FROM pg_proc WHERE pronamespace = '\"migrations of ours\"'::regnamespace";
    assert_eq!(superuser(functions), "0");

    let gone =
        format!("REASSIGN OWNED BY {owner}, {web} TO CURRENT_USER; DROP OWNED BY {owner}, {web};");
    as_role(&database, &admin, &gone).unwrap();
    as_role(&database, &admin, &format!("DROP ROLE {owner}, {web}")).unwrap();
}

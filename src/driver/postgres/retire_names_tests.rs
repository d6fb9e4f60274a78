//! Putting aside, taking back and dropping where every name wants quotes and the schema is on nobody's path.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{mapping, work};
use super::retire_carry_tests::{ROLES, catalogue_of, changed};
use super::retire_tests::{Live, failure};
use crate::driver::{Losses, Retirer as _, SyncState};
use crate::run::{Direction, FailureClass, Mapping, Retire, RetireShape, RetiredColumn, Way};

const SCHEMA: &str = r#""Sales Data""#;

const ORDERS: &str = r#"
    CREATE SCHEMA "Sales Data"; SET search_path = "Sales Data";
    CREATE TABLE "User" (id int PRIMARY KEY); INSERT INTO "User" VALUES (1), (2);
    CREATE TABLE "Order" ("Id" bigserial PRIMARY KEY, "select" text NOT NULL, "From" int, "a.b" text DEFAULT 'it''s "x"',
        "user" int REFERENCES "User", boss bigint REFERENCES "Order", CONSTRAINT "check" CHECK ("select" <> "a.b"));
    CREATE INDEX "in dex" ON "Order" ("select", "From") WHERE "From" > 0;
    CREATE TABLE "Order 2" (LIKE "Order" INCLUDING ALL);
    ALTER TABLE "Order 2" ADD "Group" text;
    CREATE STATISTICS "Statistics" ON "select", "From" FROM "Order";
    COMMENT ON STATISTICS "Statistics" IS 'together'; ALTER STATISTICS "Statistics" SET STATISTICS 200;
    ALTER TABLE "Order" CLUSTER ON "Order_pkey";
    CREATE TABLE "Note" ("order" bigint, CONSTRAINT "of order" FOREIGN KEY ("order") REFERENCES "Order" ON UPDATE CASCADE ON DELETE SET NULL);
    CREATE VIEW "View" AS SELECT "Id", "select" AS "where" FROM "Order" AS "table" WHERE "From" IS NOT NULL;
    CREATE POLICY "all" ON "User" USING (EXISTS (SELECT FROM "Order" o WHERE o."user" = "User".id));
    CREATE POLICY "own one" ON "Order" USING ("From" > 0);
    CREATE FUNCTION "Function"() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER "Tri gger" AFTER UPDATE OF "select" ON "Order" FOR EACH ROW WHEN (old."select" <> new."select") EXECUTE FUNCTION "Function"();
    COMMENT ON TRIGGER "Tri gger" ON "Order" IS 'it''s'; COMMENT ON COLUMN "Order"."a.b" IS '"dotted"';
    COMMENT ON CONSTRAINT "Order_boss_fkey" ON "Order" IS 'of the same'; COMMENT ON TABLE "Order" IS 'all';
    CREATE PUBLICATION "Publication" FOR TABLE "Order" ("Id", "select") WHERE ("Id" > 0);
    GRANT SELECT, UPDATE ("From") ON "Order" TO "ret App" WITH GRANT OPTION; GRANT UPDATE ("From") ON "Order 2" TO "ret App";
    GRANT USAGE ON SEQUENCE "Order_Id_seq" TO "ret App";"#;

fn roles() -> String {
    ROLES.replace("{ret_app,", "{ret App,ret_app,")
}

fn orders(direction: Direction) -> Mapping {
    let reverse = vec![("select".into(), r#"coalesce("Group", "select")"#.into())];
    Mapping {
        columns: vec![("Group".into(), r#"lower("select")"#.into())],
        reverse: if direction == Direction::Both { reverse } else { Vec::new() },
        ..mapping(("Sales Data.Order", &["Id"]), ("Sales Data.Order 2", &["Id"]))
    }
}

#[tokio::test]
async fn a_table_of_odd_names_goes_and_comes_back() {
    for direction in [Direction::Forward, Direction::Both] {
        let setup = format!("{}{ORDERS}", roles());
        let Some(live) = Live::of(&setup, orders(direction), direction).await else { return };
        let database = &live.database;
        database
            .run(r#"INSERT INTO "Sales Data"."Order" ("select", "From", "user") SELECT 'S' || n, n, 1 FROM generate_series(1, 4) n;
                UPDATE "Sales Data"."Order" SET boss = 1 WHERE "Id" > 1; INSERT INTO "Sales Data"."Note" VALUES (1), (4), (NULL)"#)
            .await;
        let shape = RetireShape::Table { old_name: "Sales Data.Order old".into(), take_name: true };
        let (class, message) = failure(live.retire(&shape).await);
        assert_eq!(class, FailureClass::Refused, "{message}");
        for wanted in [
            r#"ADD CONSTRAINT "Order_boss_fkey" FOREIGN KEY (boss) REFERENCES "Sales Data"."Order 2"("Id") NOT VALID"#,
            r#"CREATE TRIGGER "Tri gger" AFTER UPDATE OF "select" ON "Sales Data"."Order 2" FOR EACH ROW"#,
        ] {
            assert!(message.contains(wanted), "{message}");
        }
        let (_, statements) = message.split_once(" | ").unwrap();
        for statement in statements.split(";\n") {
            database.run(statement).await;
        }
        database.run(r#"ALTER TABLE "Sales Data"."Order 2" DISABLE TRIGGER "Tri gger""#).await;
        let before = catalogue_of(database, SCHEMA).await;
        let detail = live.retire(&shape).await.unwrap().detail.unwrap();
        assert!(detail.contains("view Sales Data.View made again"), "{detail}");
        let after = catalogue_of(database, SCHEMA).await;
        for line in [
            r#"statistics Order 2_Statistics on "Sales Data"."Order" "select", "From" {d,f,m} target 200 tester together"#,
            "grant Order tester to ret App SELECT t",
        ] {
            assert!(after.iter().any(|it| it.contains(line)), "{line}: {after:#?}");
        }
        let clustered = r#"SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE i.indisclustered AND i.indrelid = '"Sales Data"."Order"'::regclass"#;
        assert_eq!(database.text(clustered).await, "Order_pkey");
        let option = r#"SELECT has_column_privilege('ret App', '"Sales Data"."Order"', 'From', 'UPDATE WITH GRANT OPTION')"#;
        assert_eq!(database.text(option).await, "true");
        let same_key = r#"SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint
            WHERE conrelid = '"Sales Data"."Order"'::regclass AND conrelid = confrelid"#;
        assert_eq!(database.text(same_key).await, "of the same");
        assert_eq!(live.refused(r#"INSERT INTO "Sales Data"."Note" VALUES (99)"#).await, "23503");
        live.unretire(&shape, Losses::Refused).await.unwrap();
        assert_eq!(live.sync().await, SyncState::Active);
        assert_eq!(changed(&before, &catalogue_of(database, SCHEMA).await), [""; 0]);

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
        database.run(r#"INSERT INTO "Sales Data"."Order" ("select", "Group", "From") VALUES ('New', 'new', 7)"#).await;
        assert_eq!(database.number(r#"SELECT count(*) FROM "Sales Data"."View""#).await, 5);
        live.drop(&shape).await.unwrap();
        assert_eq!(live.ours_left().await, 0);
        let left = catalogue_of(database, SCHEMA).await;
        assert!(!left.iter().any(|line| line.contains("Order old")), "{left:#?}");
        database.gone().await;
    }
}

const IN_PLACE: &str = r#"
    CREATE SCHEMA "Sales Data"; SET search_path = "Sales Data";
    CREATE TABLE "Order" ("Id" int PRIMARY KEY, "select" text NOT NULL DEFAULT 'None', "From" int, "Select 2" text,
        CONSTRAINT "check" CHECK ("select" <> "From"::text), CONSTRAINT "only" CHECK ("select" <> ''));
    CREATE INDEX "in dex" ON "Order" ("select" DESC, "From") WHERE "select" <> 'select';
    CREATE STATISTICS "Statistics" ON "select", "From" FROM "Order";
    CREATE VIEW "View" AS SELECT "select" FROM "Order";
    COMMENT ON COLUMN "Order"."select" IS 'it'; GRANT UPDATE ("select") ON "Order" TO "ret App";
    INSERT INTO "Order" ("Id", "select", "From", "Select 2") VALUES (1, 'A', 1, 'a');"#;

#[tokio::test]
async fn columns_of_odd_names_go_and_come_back() {
    for direction in [Direction::Forward, Direction::Both] {
        let reverse = vec![("select".into(), r#"upper("Select 2")"#.into())];
        let in_place = Mapping {
            columns: vec![("Select 2".into(), r#"lower("select")"#.into())],
            reverse: if direction == Direction::Both { reverse } else { Vec::new() },
            ..mapping(("Sales Data.Order", &["Id"]), ("Sales Data.Order", &["Id"]))
        };
        let setup = format!("{}{IN_PLACE}", roles());
        let Some(live) = Live::of(&setup, in_place, direction).await else { return };
        let database = &live.database;
        let shape = RetireShape::Columns(vec![RetiredColumn {
            column: "select".into(),
            old_name: "select old".into(),
            take_name: Some("Select 2".into()),
        }]);
        let (class, message) = failure(live.retire(&shape).await);
        assert_eq!(class, FailureClass::Refused, "{message}");
        let (_, statements) = message.split_once(" | ").unwrap();
        for wanted in [
            r#"USING btree ("Select 2" DESC, "From") WHERE ("Select 2" <> 'select'::text)"#,
            r#"CHECK (("Select 2" <> ("From")::text)) NOT VALID"#,
            r#"CHECK (("Select 2" <> ''::text)) NOT VALID"#,
            r#"ALTER COLUMN "Select 2" SET NOT NULL"#,
        ] {
            assert!(statements.contains(wanted), "{statements}");
        }
        for statement in statements.split(";\n") {
            database.run(statement).await;
        }
        let before = catalogue_of(database, SCHEMA).await;
        live.retire(&shape).await.unwrap();
        assert_eq!(database.text(r#"SELECT "select" FROM "Sales Data"."View""#).await, "a");
        // Who leaves it out finds what the mapping makes of the old default.
        database.run(r#"INSERT INTO "Sales Data"."Order" ("Id") VALUES (7)"#).await;
        assert_eq!(
            database.text(r#"SELECT "select" FROM "Sales Data"."Order" WHERE "Id" = 7"#).await,
            "none"
        );
        database.run(r#"DELETE FROM "Sales Data"."Order" WHERE "Id" = 7"#).await;
        live.unretire(&shape, live.where_written()).await.unwrap();
        assert_eq!(changed(&before, &catalogue_of(database, SCHEMA).await), [""; 0]);
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
        let (class, message) = failure(live.drop(&shape).await);
        assert_eq!(class, FailureClass::Refused);
        for named in
            [r#"constraint check on table "Sales Data"."Order""#, r#"index "Sales Data"."in dex""#]
        {
            assert!(message.contains(named), "{message}");
        }
        database
            .run(r#"ALTER TABLE "Sales Data"."Order" DROP CONSTRAINT "check"; DROP INDEX "Sales Data"."in dex"; DROP STATISTICS "Sales Data"."Statistics""#)
            .await;
        live.drop(&shape).await.unwrap();
        assert_eq!(live.ours_left().await, 0);
        database.run(r#"INSERT INTO "Sales Data"."Order" ("Id", "select") VALUES (2, 'b')"#).await;
        database.gone().await;
    }
}

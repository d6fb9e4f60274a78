//! What a first look says of what `retire` will ask for.
#![allow(clippy::unwrap_used, missing_docs)]

use super::Postgres;
use super::fixture::{Database, mapping, script};
use super::retire_tests::whole;
use crate::driver::probed::{Purpose, TableUse};
use crate::driver::{CreatedObject, Introspect as _, Severity, Survey, SurveyedMapping};
use crate::run::{Direction, Mapping, RetireShape, RetiredColumn};

/// What a look finds missing and the statements that make it; `made`: a statement of the plan, and what it makes.
async fn said(
    postgres: &Postgres,
    (mapping, retired): (Mapping, Option<RetireShape>),
    made: Option<(&str, (&str, Option<&str>))>,
) -> (Vec<String>, Vec<String>) {
    let created = made.map(|(_, (table, column))| CreatedObject {
        table: table.into(),
        column: column.map(Into::into),
    });
    let survey = Survey {
        retired: retired.into_iter().map(|shape| (mapping.name.clone(), shape)).collect(),
        mappings: vec![SurveyedMapping {
            step: "sync".into(),
            mapping,
            direction: Some(Direction::Forward),
        }],
        created: created.into_iter().collect(),
        scripts: made.into_iter().map(|(text, _)| ("make".into(), script(&[text]))).collect(),
        ..Survey::default()
    };
    let found = postgres.survey(&survey).await.unwrap();
    let (mut messages, mut statements) = (Vec::new(), Vec::new());
    for finding in found.into_iter().filter(|finding| finding.code == "D217") {
        messages.push(finding.message);
        statements.extend(finding.help.unwrap().split(";\n").map(str::to_owned));
    }
    (messages, statements)
}

/// What `retire` will ask for is told at the first look.
#[tokio::test]
async fn the_first_look_prints_what_will_be_asked_for() {
    let setup = "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL, email_v2 text, n int DEFAULT 3, m bigint);
        CREATE UNIQUE INDEX ON users (lower(email), n); ALTER TABLE users ADD CHECK (n > 0);
        CREATE TABLE users_v2 (id int NOT NULL UNIQUE, email text, n int, m bigint)";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let look = async |mapping: Mapping, retired: Option<RetireShape>| -> Vec<String> {
        said(&postgres, (mapping, retired), None).await.1
    };
    let table = mapping(("users", &["id"]), ("users_v2", &["id"]));
    let v2 = "ALTER TABLE \"public\".\"users_v2\"";
    assert_eq!(
        look(table.clone(), Some(whole(true))).await,
        [
            "CREATE UNIQUE INDEX CONCURRENTLY \"users_v2_primary\" ON \"public\".\"users_v2\" USING btree (id)".to_owned(),
            format!("{v2} ADD PRIMARY KEY USING INDEX \"users_v2_primary\""),
            "CREATE UNIQUE INDEX CONCURRENTLY ON \"public\".\"users_v2\" USING btree (lower(email), n)".to_owned(),
            format!("{v2} ADD CONSTRAINT \"users_n_check\" CHECK ((n > 0)) NOT VALID"),
            format!("{v2} VALIDATE CONSTRAINT \"users_n_check\""),
            format!("{v2} ADD CONSTRAINT \"email_is_set\" CHECK (\"email\" IS NOT NULL) NOT VALID"),
            format!("{v2} VALIDATE CONSTRAINT \"email_is_set\""),
            format!("{v2} ALTER COLUMN \"email\" SET NOT NULL"),
            format!("{v2} DROP CONSTRAINT \"email_is_set\""),
        ]
    );
    assert_eq!(look(table, Some(whole(false))).await, [""; 0]);
    let in_place = Mapping {
        columns: vec![("email_v2".into(), "lower(email)".into()), ("m".into(), "n".into())],
        ..mapping(("users", &["id"]), ("users", &["id"]))
    };
    let taken = |column: &str, by: Option<&str>| RetiredColumn {
        column: column.into(),
        old_name: format!("{column}_old"),
        take_name: by.map(Into::into),
    };
    let users = "ALTER TABLE \"public\".\"users\"";
    assert_eq!(
        look(in_place.clone(), Some(RetireShape::Columns(vec![taken("n", Some("m")), taken("email", None)]))).await,
        [
            "CREATE UNIQUE INDEX CONCURRENTLY ON \"public\".\"users\" USING btree (lower(email), \"m\")".to_owned(),
            format!("{users} ADD CONSTRAINT \"users_n_check_2\" CHECK ((\"m\" > 0)) NOT VALID"),
            format!("{users} VALIDATE CONSTRAINT \"users_n_check_2\""),
        ]
    );
    assert_eq!(look(in_place, None).await, [""; 0]);
}

const DEALS: &str = "
    CREATE TABLE accounts (id int PRIMARY KEY);
    CREATE TABLE deals (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE, status text, n int,
        account int REFERENCES accounts, boss bigint REFERENCES deals, CHECK (n > 0));
    CREATE INDEX deals_status ON deals (status) WHERE n > 1;
    CREATE STATISTICS together ON status, n FROM deals;
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER noting BEFORE UPDATE ON deals FOR EACH ROW EXECUTE FUNCTION noted();";

/// A table that isn't there yet has what the plan's own statement brings by LIKE, and nothing else that could be told.
#[tokio::test]
async fn a_table_that_the_plan_makes_is_told_what_it_must_have() {
    let Some(database) = Database::with(DEALS).await else { return };
    let postgres = database.open().await;
    let renaming = Mapping {
        columns: vec![("state".into(), "status".into()), ("code".into(), "lower(status)".into())],
        ..mapping(("deals", &["id"]), ("deals_v2", &["id"]))
    };
    let plain = mapping(("deals", &["id"]), ("deals_v2", &["id"]));
    let look = async |mapping: &Mapping, text: &str| {
        let retired = (mapping.clone(), Some(whole(true)));
        said(&postgres, retired, Some((text, ("deals_v2", None)))).await
    };
    let v2 = "ALTER TABLE \"public\".\"deals_v2\"";
    let not_brought = [
        format!(
            "{v2} ADD CONSTRAINT \"deals_account_fkey\" FOREIGN KEY (account) REFERENCES accounts(id) NOT VALID"
        ),
        format!("{v2} VALIDATE CONSTRAINT \"deals_account_fkey\""),
        format!(
            "{v2} ADD CONSTRAINT \"deals_boss_fkey\" FOREIGN KEY (boss) REFERENCES \"deals_v2\"(id) NOT VALID"
        ),
        format!("{v2} VALIDATE CONSTRAINT \"deals_boss_fkey\""),
        format!(
            "CREATE TRIGGER \"noting\" BEFORE UPDATE ON \"public\".\"deals_v2\" FOR EACH ROW EXECUTE FUNCTION noted(); \
             {v2} DISABLE TRIGGER \"noting\""
        ),
    ];
    let (messages, statements) =
        look(&plain, "CREATE TABLE deals_v2 (LIKE deals INCLUDING ALL)").await;
    assert_eq!(statements, not_brought);
    assert_eq!(
        messages,
        [
            "deals_v2 won't have what deals has, a build or a scan makes and LIKE doesn't bring, and retire is refused until it has"
        ]
    );

    let (messages, all) =
        look(&plain, "CREATE TABLE deals_v2 (id bigint PRIMARY KEY, email text, status text, n int, account int, boss bigint)").await;
    assert_eq!(
        messages,
        [
            "deals_v2 must have what deals has and a build or a scan makes, or retire is refused; what the plan makes of it by then \
          can be left out"
        ]
    );
    for wanted in [
        "CREATE UNIQUE INDEX CONCURRENTLY \"deals_v2_email_key\" ON \"public\".\"deals_v2\" USING btree (email)".to_owned(),
        format!("{v2} ADD CONSTRAINT \"deals_v2_email_key\" UNIQUE USING INDEX \"deals_v2_email_key\""),
        "CREATE INDEX CONCURRENTLY ON \"public\".\"deals_v2\" USING btree (status) WHERE (n > 1)".to_owned(),
        format!("{v2} ADD CONSTRAINT \"deals_n_check\" CHECK ((n > 0)) NOT VALID"),
        format!("{v2} ALTER COLUMN \"email\" SET NOT NULL"),
        "CREATE STATISTICS public.deals_v2_together (ndistinct, dependencies, mcv) ON status, n FROM \"public\".\"deals_v2\""
            .to_owned(),
    ] {
        assert!(all.contains(&wanted), "{wanted}: {all:#?}");
    }
    assert!(not_brought.iter().all(|it| all.contains(it)), "{all:#?}");
    assert!(
        !all.iter().any(|it| it.contains("PRIMARY KEY") || it.contains("\"id_is_set\"")),
        "{all:#?}"
    );

    // A column that it won't have asks for nothing.
    let (_, few) =
        look(&plain, "CREATE TABLE deals_v2 (id bigint PRIMARY KEY, \"status\" text, nn int)")
            .await;
    assert_eq!(few, [not_brought[4].clone()]);

    // A column of another name has what its author gives it; a partitioned table takes no concurrent builds.
    let text = "CREATE TABLE deals_v2 (id bigint PRIMARY KEY, email text, state text) PARTITION BY RANGE (id)";
    let (_, renamed) = look(&renaming, text).await;
    assert!(!renamed.iter().any(|it| it.contains("status")), "{renamed:#?}");
    let unique = format!("{v2} ADD CONSTRAINT \"deals_v2_email_key\" UNIQUE (email)");
    assert!(renamed.contains(&unique), "{renamed:#?}");

    // What was told is what is asked for: run as it stands, it leaves nothing to be asked.
    database.run("CREATE TABLE deals_v2 (id bigint PRIMARY KEY, email text, status text, n int, account int, boss bigint)").await;
    for statement in &all {
        database.run(statement).await;
    }
    let (_, left) = said(&postgres, (plain, Some(whole(true))), None).await;
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn columns_that_the_plan_makes_are_told_what_they_must_have() {
    let Some(database) = Database::with(DEALS).await else { return };
    let postgres = database.open().await;
    let in_place = Mapping {
        columns: vec![("email_v2".into(), "lower(email)".into())],
        ..mapping(("deals", &["id"]), ("deals", &["id"]))
    };
    let shape = RetireShape::Columns(vec![RetiredColumn {
        column: "email".into(),
        old_name: "email_old".into(),
        take_name: Some("email_v2".into()),
    }]);
    let made = ("ALTER TABLE deals ADD email_v2 text", ("deals", Some("email_v2")));
    let (messages, statements) =
        said(&postgres, (in_place.clone(), Some(shape.clone())), Some(made)).await;
    assert_eq!(
        messages,
        [
            "email_v2 of deals must have what the columns have whose names it takes, or retire is refused; what the plan makes of it \
          by then can be left out"
        ]
    );
    assert_eq!(
        statements[..2],
        [
            "CREATE UNIQUE INDEX CONCURRENTLY \"deals_email_key_2\" ON \"public\".\"deals\" USING btree (\"email_v2\")",
            "ALTER TABLE \"public\".\"deals\" ADD CONSTRAINT \"deals_email_key_2\" UNIQUE USING INDEX \"deals_email_key_2\""
        ]
    );
    assert!(statements.iter().any(|it| it.ends_with("ALTER COLUMN \"email_v2\" SET NOT NULL")));
    database.run(made.0).await;
    for statement in &statements {
        database.run(statement).await;
    }
    assert_eq!(said(&postgres, (in_place, Some(shape)), None).await.1, [""; 0]);
}

#[tokio::test]
async fn an_exclusion_that_no_column_can_take_over_is_an_error_ahead() {
    let setup = "CREATE TABLE stays (id int PRIMARY KEY, r int4range, r_v2 int8range, CONSTRAINT apart EXCLUDE USING gist (r WITH &&))";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let in_place = Mapping {
        columns: vec![("r_v2".into(), "int8range(lower(r), upper(r))".into())],
        ..mapping(("stays", &["id"]), ("stays", &["id"]))
    };
    let shape = RetireShape::Columns(vec![RetiredColumn {
        column: "r".into(),
        old_name: "r_old".into(),
        take_name: Some("r_v2".into()),
    }]);
    for (text, severity) in [
        ("CREATE TABLE other (id int)", Severity::Error),
        ("ALTER TABLE stays DROP CONSTRAINT apart", Severity::Warning),
    ] {
        let survey = Survey {
            retired: vec![(in_place.name.clone(), shape.clone())],
            mappings: vec![SurveyedMapping {
                step: "sync".into(),
                mapping: in_place.clone(),
                direction: Some(Direction::Forward),
            }],
            scripts: vec![("make".into(), script(&[text]))],
            ..Survey::default()
        };
        let found = postgres.survey(&survey).await.unwrap();
        let found: Vec<_> = found.iter().filter(|it| it.code == "D217").collect();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].severity, severity);
        let why = "retire is refused while this stands: exclusion constraint apart: EXCLUDE USING gist (r WITH &&)";
        assert_eq!(found[0].message, why);
    }
}

/// A trigger that the plan makes on its own table fires for the copy, unless it is switched off by then.
#[tokio::test]
async fn a_trigger_of_the_plan_on_its_own_table_is_told() {
    let Some(database) = Database::with(DEALS).await else { return };
    let postgres = database.open().await;
    let plain = mapping(("deals", &["id"]), ("deals_v2", &["id"]));
    let make = "CREATE TABLE deals_v2 (LIKE deals INCLUDING ALL)";
    let fires = "CREATE TRIGGER \"noting\" BEFORE UPDATE ON \"public\".\"deals_v2\" FOR EACH ROW EXECUTE FUNCTION noted()";
    let used = |step: &str, purpose: Purpose| TableUse {
        step: step.into(),
        table: "deals_v2".into(),
        purpose,
    };
    let off = "ALTER TABLE deals_v2 DISABLE TRIGGER noting";
    let cases: [(&[&str], &[&str], bool); 4] = [
        (&[make, fires], &[], true),
        (&[make, fires, off], &[], false),
        (&[make, fires, "ALTER TABLE deals_v2 DISABLE TRIGGER USER"], &[], false),
        (&[make], &[fires], false),
    ];
    for (before, behind, is_told) in cases {
        let survey = Survey {
            retired: vec![(plain.name.clone(), whole(true))],
            mappings: vec![SurveyedMapping {
                step: "sync".into(),
                mapping: plain.clone(),
                direction: Some(Direction::Forward),
            }],
            created: vec![CreatedObject { table: "deals_v2".into(), column: None }],
            scripts: vec![("make".into(), script(before)), ("end".into(), script(behind))],
            uses: vec![
                used("make", Purpose::Named),
                used("copy", Purpose::Write),
                used("end", Purpose::Named),
            ],
            ..Survey::default()
        };
        let found = postgres.survey(&survey).await.unwrap();
        let told: Vec<_> =
            found.iter().filter(|it| it.code == "D218").map(|it| it.message.as_str()).collect();
        let said = "triggers of deals_v2 (noting) fire for each row that is copied to it, and for each write that is mirrored";
        assert_eq!(told, if is_told { vec![said] } else { vec![] }, "{before:?} {behind:?}");
    }
}

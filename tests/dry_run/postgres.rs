//! A probe of the plans for PostgreSQL: what is shown has to do with the plan, and fits a page.

use serde_json::Value;

use crate::examples::database::{Database, block_on, connect};
use crate::sandbox::{Ran, Sandbox};

fn plans() -> String {
    format!("{}/plans", env!("CARGO_MANIFEST_DIR"))
}

/// A database that a plan begins with, and a folder to look from.
fn before(plan: &str) -> Option<(Sandbox, Database)> {
    let server = crate::services::postgres("probes of the example plans")?;
    let script = std::fs::read_to_string(format!("{}/{plan}/before.sql", plans())).unwrap();
    Some((Sandbox::new(), Database::on(&server, &script)))
}

fn probe((sandbox, database): &(Sandbox, Database), plan: &str, more: &[&str]) -> Ran {
    let path = format!("{}/{plan}.yaml", plans());
    let args = [&["dry-run", path.as_str(), "--depth", "probe"], more].concat();
    let mut command = sandbox.command(&args);
    for name in ["APP_DATABASE_URL", "PCONFIG_DATABASE_URL"] {
        command.env(name, &database.url);
    }
    Ran::from(command.output().unwrap())
}

#[test]
fn a_probe_of_every_plan_is_a_page_without_nonsense() {
    for plan in [
        "leads-v2",
        "deprecate-messaging",
        "deprecate-social",
        "session-tags",
        "add-required-column",
        "split-user-email",
    ] {
        let Some(there) = before(plan) else { return };
        let seen = probe(&there, plan, &[]).expect(0).stdout;
        for nonsense in [
            "LIKE pg_",
            "LIKE ops.",
            " pg_stat_database  ",
            "pg_class: ACCESS",
            "function function",
            "a new table belongs to who makes it",
            "the catalogue only: only the catalogue",
            "reads every row: it may read",
            "1 object depend ",
        ] {
            assert!(!seen.contains(nonsense), "{plan}: {nonsense:?} is in {seen}");
        }
        // Findings show lines of the plan as they are.
        let page = seen.split("\nwarning[").next().unwrap();
        let wide = page.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{plan}: {seen}");
    }
}

#[test]
fn dependents_are_those_of_what_goes_and_stays_gone() {
    let Some(there) = before("split-user-email") else { return };
    let told = |there: &(Sandbox, Database), plan: &str| -> Vec<Value> {
        let document = probe(there, plan, &["--format", "json"]).json();
        let all = document["findings"].as_array().unwrap().clone();
        all.into_iter().filter(|one| one["code"] == "R104").collect()
    };
    // A foreign key on users(id) is nothing to a plan that puts users.email aside; a view that may show it is.
    assert_eq!(told(&there, "split-user-email"), Vec::<Value>::new());
    there.1.run("CREATE VIEW addresses AS SELECT email FROM users");
    let found = told(&there, "split-user-email");
    let message = found[0]["message"].as_str().unwrap();
    assert!(message.contains("1 object depends on users, of which"), "{message}");
    assert!(message.contains("view addresses") && !message.contains("foreign key"), "{message}");

    // Messages refer to conversations, and both go; the function that names them in its text stays behind.
    let Some(there) = before("deprecate-messaging") else { return };
    let found = told(&there, "deprecate-messaging");
    let message = found[0]["message"].as_str().unwrap();
    assert!(message.contains("function touch_conversation() (by its text)"), "{message}");
    assert!(!message.contains("foreign key"), "{message}");
    let help = found[0]["help"].as_str().unwrap();
    assert!(!help.contains("a drop is refused while any is left"), "{help}");
}

#[test]
fn a_table_that_the_plan_makes_is_not_what_a_missing_one_was_meant_to_be() {
    let Some(there) = before("leads-v2") else { return };
    there.1.run("ALTER TABLE leads RENAME TO customers");
    let seen = probe(&there, "leads-v2", &[]).expect(3).stdout;
    assert!(seen.contains("there is no table leads"), "{seen}");
    assert!(!seen.contains("did you mean leads_v2?"), "{seen}");
}

#[test]
fn what_stops_a_retire_is_said_and_what_it_carries_over_is_not() {
    let Some(there) = before("leads-v2") else { return };
    there.1.run("CREATE VIEW hot AS SELECT * FROM leads WHERE status = 'HOT'");
    there.1.run("CREATE TABLE notes (lead_id bigint REFERENCES leads)");
    let found = |code: &str| -> Vec<Value> {
        let document = probe(&there, "leads-v2", &["--format", "json"]).json();
        let all = document["findings"].as_array().unwrap().clone();
        all.into_iter().filter(|one| one["code"] == code).collect()
    };
    assert_eq!(found("R104"), Vec::<Value>::new());
    there.1.run("CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM leads");
    let stops = found("R104").remove(0);
    let message = stops["message"].as_str().unwrap();
    assert!(message.contains("materialized view counted") && !message.contains("hot"), "{stops:#}");
    assert!(stops["help"].as_str().unwrap().contains("retire is refused"), "{stops:#}");
}

#[test]
fn the_statements_that_retire_will_ask_for_are_printed_before() {
    let Some(there) = before("leads-v2") else { return };
    there.1.run(
        "CREATE TABLE accounts (id int PRIMARY KEY); ALTER TABLE leads ADD account_id int REFERENCES accounts,
             ADD boss bigint REFERENCES leads; GRANT SELECT ON leads TO PUBLIC; COMMENT ON TABLE leads IS 'all'",
    );
    let seen = probe(&there, "leads-v2", &[]).expect(0).stdout;
    let page = seen.split_whitespace().collect::<Vec<_>>().join(" ");
    for statement in [
        r#"ALTER TABLE "public"."leads_v2" ADD CONSTRAINT "leads_account_id_fkey" FOREIGN KEY (account_id) REFERENCES accounts(id) NOT VALID;"#,
        r#"ALTER TABLE "public"."leads_v2" VALIDATE CONSTRAINT "leads_account_id_fkey";"#,
        r#"ALTER TABLE "public"."leads_v2" ADD CONSTRAINT "leads_boss_fkey" FOREIGN KEY (boss) REFERENCES "leads_v2"(id) NOT VALID;"#,
    ] {
        assert!(page.contains(statement), "{statement} is not in {page}");
    }
    assert!(
        !page.contains("grant PUBLIC") || !page.contains("would not bring to leads_v2: grant"),
        "{page}"
    );
}

#[test]
fn a_lock_that_hides_what_may_be_wrong_is_no_clean_run() {
    let Some(there) = before("leads-v2") else { return };
    let seen = block_on(async {
        let mut client = connect(&there.1.url).await.unwrap();
        let lock = sqlx::raw_sql("BEGIN; LOCK TABLE leads");
        lock.execute(&mut client).await.unwrap();
        probe(&there, "leads-v2", &[]).expect(69)
    });
    assert!(seen.stderr.contains("another session holds the lock"), "{seen}");
    assert!(seen.stdout.contains("ops.backups"), "the rest is shown: {seen}");
    probe(&there, "leads-v2", &[]).expect(0);
}

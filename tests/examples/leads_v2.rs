//! plans/leads-v2.yaml: a whole table anew.

use super::Example;

/// Who signs off before the switch.
pub const SIGN_OFF: (&str, &[&str]) = ("sign-off", &["dora", "ann", "ole", "quinn", "pia"]);
/// Who lets the old table go.
pub const CLEAN_UP: (&str, &[&str]) = ("clean-up", &["dora"]);

/// The leads as the guide would have them, from a copy that nothing of ours has seen.
pub const EXPECTED: &str =
    "SELECT id, name, email, status, score, created_at, lower(trim(status)) FROM kept.leads";
pub const FOUND: &str = "SELECT id, name, email, status, score, created_at, status_code FROM leads";

/// What clients do to the leads while they are being moved, and to the copy beside them.
fn clients_write(example: &Example) {
    for table in ["leads", "kept.leads"] {
        example.database.run(&format!(
            "UPDATE {table} SET status = ' Contacted', score = NULL WHERE id % 100 = 7;
             DELETE FROM {table} WHERE id BETWEEN 2000 AND 2009;
             INSERT INTO {table} (id, name, email, status, created_at)
               SELECT n, 'Late ' || n, NULL, 'NEW', timestamptz '2025-01-01 00:00:00+00'
               FROM generate_series(900001, 900050) AS n;
             UPDATE {table} SET id = id + 800000 WHERE id BETWEEN 3000 AND 3004;
             UPDATE {table} SET email = NULL WHERE id = 1;
             UPDATE {table} SET email = 'lead.1@example.com' WHERE id = 2"
        ));
    }
}

fn example() -> Option<Example> {
    let example = Example::new("leads-v2")?;
    // Other tables of other schemas are nobody's business here.
    example.database.run("CREATE SCHEMA kept; CREATE TABLE kept.leads AS TABLE leads");
    Some(example)
}

#[test]
fn the_leads_move_while_clients_write_and_the_old_table_goes() {
    let Some(example) = example() else { return };
    example.run(&["--to", "dual-write"]).expect(0);
    clients_write(&example);
    example.run(&[]).expect(4);
    example.same_rows(EXPECTED, &FOUND.replace("FROM leads", "FROM leads_v2"));
    let ids = "SELECT max(id) FROM leads";
    let newest = example.database.value(ids);

    example.approve(SIGN_OFF.0, SIGN_OFF.1);
    example.run(&[]).expect(4);
    // The new table has taken the name, the old one is aside and takes no writes.
    example.same_rows(EXPECTED, FOUND);
    assert_eq!(
        example.database.value("SELECT count(*) FROM leads_old"),
        example.database.value("SELECT count(*) FROM leads")
    );
    let told = example.database.refused("UPDATE leads_old SET name = 'lost' WHERE id = 1");
    assert!(told.contains("leads_old"), "{told}");
    // A client that lets the database choose the id gets a new one.
    let drawn =
        "INSERT INTO leads (name, status_code) VALUES ('After the switch', 'new') RETURNING id";
    let drawn: i64 = example.database.value(drawn).parse().unwrap();
    assert!(drawn > newest.parse().unwrap(), "{drawn} was drawn, and {newest} is taken");

    example.approve(CLEAN_UP.0, CLEAN_UP.1);
    example.run(&["--wait", "30s"]).expect(0);
    let after = "SELECT id, name, email, status, score, created_at, status_code FROM leads WHERE name <> 'After the switch'";
    example.same_rows(EXPECTED, after);
    assert_eq!(example.database.value("SELECT to_regclass('leads_old')::text"), "NULL");
    assert_eq!(example.database.value("SELECT to_regclass('leads_v2')::text"), "NULL");
    // The application's index, the primary key and the unique address are there under whatever names.
    let indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'leads'::regclass AND indisvalid";
    assert_eq!(example.database.value(indexes), "4");
    example.is_over("completed");
}

#[test]
fn the_leads_are_as_before_when_rolled_back_from_before_the_point_of_no_return() {
    let Some(example) = Example::new("leads-v2") else { return };
    let before = example.database.dump();
    example.run_up_to("clean-up", &[SIGN_OFF, CLEAN_UP]);
    assert_eq!(example.database.value("SELECT count(*) FROM leads_old"), "5000");
    example.phasegate(&["rollback", example.name, "--yes"]).expect(0);
    example.is_as(&before);
    example.is_over("rolled_back");
}

/// How long it takes is in docs/performance.md; that it waits for nobody's lock and reads no more than a sample, the driver's own
/// tests see.
#[test]
fn probing_the_database_for_the_leads_leaves_nothing() {
    let Some(example) = Example::new("leads-v2") else { return };
    let before = example.database.dump();
    example.phasegate(&["dry-run", &example.plan(), "--depth", "probe"]).expect(0);
    example.is_as(&before);
    let ours = "SELECT count(*) FROM pg_namespace WHERE nspname = 'phasegate'";
    assert_eq!(example.database.value(ours), "0");
    assert!(!example.sandbox.path(".phasegate").exists(), "a state store was made");
}

#[test]
fn a_failed_pre_flight_check_stops_the_run_before_anything_is_changed() {
    let Some(example) = Example::new("leads-v2") else { return };
    let before = example.database.dump();
    let stale = "UPDATE ops.backups SET verified_at = now() - interval '2 days'";
    example.database.run(stale);
    let ran = example.run(&[]).expect(7);
    assert!(format!("{ran}").contains("backup-verified"), "{ran}");
    example.database.run("UPDATE ops.backups SET verified_at = now()");
    let without_backups = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| !line.starts_with("ops.backups:")).cloned().collect()
    };
    assert_eq!(without_backups(&example.database.dump()), without_backups(&before));
    // Once there is a backup, the same run goes on.
    example.phasegate(&["retry", example.name]).expect(4);
}

#[test]
fn a_lookup_that_has_become_slow_ends_the_run_before_the_old_table_goes() {
    let Some(example) = Example::new("leads-v2") else { return };
    // Every difference counts here.
    let plan = std::fs::read_to_string(example.sandbox.path(&example.plan())).unwrap();
    assert_eq!(plan.matches("greatest(min(took.ms), 1.0)").count(), 2);
    let plan = plan.replace("greatest(min(took.ms), 1.0)", "min(took.ms)");
    example.sandbox.write(&example.plan(), &plan);
    example.run(&[]).expect(4);
    example.approve(SIGN_OFF.0, SIGN_OFF.1);
    example.run(&["--to", "switch-leads"]).expect(0);
    // Without its index the lookup sorts a quarter of the table.
    let index = "DROP INDEX leads_v2_status_created_at_idx";
    example.database.run(index);
    let ran = example.run(&[]).expect(7);
    assert!(format!("{ran}").contains("is not within 10 %"), "{ran}");
    assert_eq!(example.database.value("SELECT count(*) FROM leads_old"), "5000");
}

//! Rows that can't be copied, at the command line: named where the step fails for them, kept apart where the plan says so.

use super::{Bed, MOVE, mentions, said};
use crate::sandbox::Ran;

/// The move of leads with a column that is made of text which isn't always a number. `copy` adds to the backfill, `gate` stands
/// before the verify.
fn plan(copy: &str, gate: &str) -> String {
    MOVE.replace(
        "    into: { target: app, table: leads_v2 }\n",
        "    into: { target: app, table: leads_v2 }\n    columns:\n      amount: substring(email from 6)::int\n",
    )
    .replace(
        "CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL)",
        "CREATE TABLE leads_v2 (id int PRIMARY KEY, email text, amount int CHECK (amount <> 100))",
    )
    .replace("      workers: 4\n", &format!("      workers: 4\n{copy}"))
    .replace("  - id: compare\n", &format!("{gate}  - id: compare\n"))
}

const PARK: &str = "      on_row_error: park\n";
const GATE: &str =
    "  - id: looked\n    phase: verify\n    gate:\n      soak: { after: copy, for: 0s }\n";
/// Two rows that are no number; the hundredth breaks the constraint.
const SPOIL: &str = "UPDATE leads SET email = 'lead x' WHERE id IN (7, 300)";

fn listed(bed: &Bed) -> serde_json::Value {
    bed.phasegate(&["status", "leads", "--parked", "--format", "json"]).expect(0).json()
}

fn total(bed: &Bed) -> i64 {
    listed(bed)["parked"]["leads"]["total"].as_i64().unwrap()
}

fn copied(ran: &serde_json::Value) -> &serde_json::Value {
    ran["steps"].as_array().unwrap().iter().find(|step| step["id"] == "copy").unwrap()
}

#[test]
fn a_row_that_cant_be_copied_is_named_with_its_reason_and_the_next_command() {
    let Some(bed) = Bed::new("a row that can't be copied", &plan("", "")) else { return };
    bed.run("UPDATE leads SET email = 'lead x' WHERE id = 300");
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(1);
    // The hundredth comes first, or at the same time.
    let said = said(&ran);
    assert!(
        said.contains("the row with \"id\" = 100 of \"public\".\"leads\" can't be copied: new row for relation \"leads_v2\" violates check constraint")
            || said.contains("the row with \"id\" = 300 of \"public\".\"leads\" can't be copied: invalid input syntax for type integer: \"x\""),
        "{said}"
    );
    mentions(&ran, &["mend the row or the mapping's expressions, then retry", "retry leads"]);
    bed.run("UPDATE leads SET email = 'lead 1' WHERE id IN (100, 300)");
    bed.phasegate(&["retry", "leads"]).expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
}

#[test]
fn parked_rows_are_listed_and_shut_the_gate_until_they_are_right() {
    let Some(bed) = Bed::new("parked rows", &plan(PARK, GATE)) else { return };
    bed.run(SPOIL);
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(4);
    mentions(&ran, &["3 rows parked", "status leads --parked", "retry leads"]);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 397);
    let document = listed(&bed);
    assert_eq!(copied(&document)["parked"], 3);
    assert_eq!(
        (copied(&document)["rows_done"].as_i64(), document["state"].as_str()),
        (Some(400), Some("waiting"))
    );
    let rows = document["parked"]["leads"]["rows"].as_array().unwrap();
    let keys: Vec<_> = rows.iter().map(|row| row["key"]["id"].as_str().unwrap()).collect();
    assert_eq!(keys, ["7", "100", "300"]);
    assert_eq!(
        (rows[0]["code"].as_str(), rows[1]["code"].as_str()),
        (Some("22P02"), Some("23514"))
    );
    let ran = bed.phasegate(&["status", "leads", "--parked"]).expect(0);
    mentions(&ran, &["3 rows of mapping leads parked", "id = 7: invalid input syntax", "[22P02]"]);
    let ran = bed.phasegate(&["gates", "leads"]).expect(4);
    mentions(
        &ran,
        &["parked rows", "no parked row", "3 rows parked", "phasegate status leads --parked"],
    );

    // A client mends one: the sync copies it, and whoever looks sees that it is right.
    bed.run("UPDATE leads SET email = 'lead 7' WHERE id = 7");
    assert_eq!(total(&bed), 2);
    bed.phasegate(&["run", "plan.yaml"]).expect(4);
    // What refused another is gone; that nobody knows before it is tried again.
    bed.run("ALTER TABLE leads_v2 DROP CONSTRAINT leads_v2_amount_check");
    assert_eq!(total(&bed), 2);
    let ran = bed.phasegate(&["retry", "leads"]).expect(4);
    mentions(&ran, &["1 row parked"]);
    assert_eq!(total(&bed), 1);
    bed.run("DELETE FROM leads WHERE id = 300");
    assert_eq!(total(&bed), 0);
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    let same = "SELECT count(*) FROM leads JOIN leads_v2 USING (id) WHERE amount = id";
    assert_eq!(bed.number(same), 399);
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'parked%'";
    assert_eq!(bed.number(left), 0, "a table of ours outlived the run");
    mentions(&bed.phasegate(&["status", "leads", "--parked"]).expect(0), &["no row is parked"]);
}

#[test]
fn a_verify_with_parked_rows_fails_and_names_them() {
    let Some(bed) = Bed::new("a verify with parked rows", &plan(PARK, "")) else { return };
    bed.run(SPOIL);
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(7);
    mentions(&ran, &["7 (parked: 22P02)", "100 (parked: 23514)", "300 (parked: 22P02)"]);
    bed.phasegate(&["retry", "leads"]).expect(7);
    bed.run("UPDATE leads SET email = 'lead 1' WHERE id IN (7, 100, 300)");
    bed.phasegate(&["retry", "leads"]).expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
}

#[test]
fn one_row_more_than_may_be_parked_fails_the_step() {
    let copy = format!("{PARK}      park_max: 2\n");
    let Some(bed) = Bed::new("too many parked rows", &plan(&copy, "")) else { return };
    bed.run(SPOIL);
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(1);
    mentions(
        &ran,
        &[
            "more than 2 rows of",
            "as many as may be parked",
            "status leads --parked",
            "retry leads",
        ],
    );
    assert_eq!(total(&bed), 2);
    bed.phasegate(&["retry", "leads"]).expect(1);
    // Those that are mended are counted no longer.
    bed.run("UPDATE leads SET email = 'lead 1' WHERE id IN (7, 100)");
    bed.phasegate(&["retry", "leads"]).expect(7);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 399);
    bed.run("UPDATE leads SET email = 'lead 1' WHERE id = 300");
    bed.phasegate(&["retry", "leads"]).expect(0);
}

#[test]
fn a_process_that_dies_while_it_parks_leaves_no_row_out_and_none_twice() {
    for point in ["before-commit", "after-commit"] {
        let Some(bed) = Bed::new("a death while parking", &plan(PARK, GATE)) else { return };
        bed.run(SPOIL);
        let mut dying = bed.sandbox.command(&["run", "plan.yaml"]);
        dying
            .env("APP_URL", bed.app())
            .env("FAILPOINTS", format!("postgres::{point}::park=1*return"));
        let ran: Ran = dying.output().unwrap().into();
        assert_eq!(ran.code, None, "it did not die: {ran}");
        bed.phasegate(&["run", "plan.yaml"]).expect(4);
        assert_eq!(total(&bed), 3, "{point}");
        assert_eq!(copied(&listed(&bed))["rows_done"], 400);
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 397);
        bed.run("UPDATE leads SET email = 'lead 1' WHERE id IN (7, 100, 300)");
        bed.phasegate(&["run", "plan.yaml"]).expect(0);
    }
}

#[test]
fn what_clients_write_and_the_new_table_refuses_is_parked_and_shuts_the_gate() {
    let plan = plan(PARK, GATE).replace("direction: forward }", "on_error: park }");
    let Some(bed) = Bed::new("parked writes of clients", &plan) else { return };
    bed.phasegate(&["run", "plan.yaml", "--to", "sync"]).expect(0);
    bed.run(
        "UPDATE leads SET email = 'lead x' WHERE id = 7; INSERT INTO leads VALUES (500, 'lead y')",
    );
    assert_eq!(total(&bed), 2);
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(4);
    mentions(&ran, &["3 rows parked", "status leads --parked"]);
    // After the copy as well.
    bed.run("UPDATE leads SET email = 'lead z' WHERE id = 8");
    let rows = listed(&bed)["parked"]["leads"]["rows"].as_array().unwrap().clone();
    let codes: Vec<_> =
        rows.iter().map(|row| (row["key"]["id"].as_str(), row["code"].as_str())).collect();
    assert_eq!(
        codes,
        [("7", "22P02"), ("8", "22P02"), ("100", "23514"), ("500", "22P02")]
            .map(|(key, code)| (Some(key), Some(code)))
    );
    bed.phasegate(&["run", "plan.yaml"]).expect(4);
    bed.run("UPDATE leads SET email = 'lead 1' WHERE id IN (7, 8, 100); DELETE FROM leads WHERE id = 500");
    assert_eq!(total(&bed), 0);
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    let same = "SELECT count(*) FROM leads JOIN leads_v2 USING (id, email)";
    assert_eq!(bed.number(same), 400);
}

const PARKED_WRITES: &str = "direction: forward, on_error: park }";
/// A step behind the last comparison, of a plan that never ends its sync.
const LAST: &str = "  - id: last\n    phase: contract\n    target: app\n    sql: SELECT 1\n    undo:\n      none: nothing\n";

#[test]
fn a_run_is_not_over_while_a_row_is_parked_though_no_step_ends_its_sync() {
    let plan = plan(PARK, "").replace("direction: forward }", PARKED_WRITES);
    let Some(bed) = Bed::new("parked at the end", &format!("{plan}{LAST}")) else { return };
    bed.run("UPDATE leads SET email = 'lead 1' WHERE id = 100");
    bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
    bed.run("UPDATE leads SET email = 'lead x' WHERE id = 7");
    for _ in 0..2 {
        let ran = bed.phasegate(&["run", "plan.yaml"]);
        assert_ne!(ran.code, Some(0), "{ran}");
        mentions(&ran, &["1 row of mapping leads parked, and the sync would end with the run"]);
        assert_eq!(total(&bed), 1);
    }
    bed.run("UPDATE leads SET email = 'lead 77' WHERE id = 7");
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!(bed.number("SELECT amount FROM leads_v2 WHERE id = 7"), 77);
    let left = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(bed.number(left), 0);
}

#[test]
fn what_was_only_noted_since_the_last_comparison_is_right_when_the_run_is_over() {
    let plan = MOVE.replace(
        "CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL)",
        "CREATE TABLE leads_v2 (id int PRIMARY KEY, email text, extra text)",
    );
    for direction in ["forward", "both"] {
        let plan = plan.replace("direction: forward", &format!("direction: {direction}"));
        let Some(bed) = Bed::new("noted at the end", &format!("{plan}{LAST}")) else { return };
        bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
        let mut client = bed.client(&bed.name);
        bed.on(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM leads");
        bed.run("UPDATE leads_v2 SET extra = 'x' WHERE id = 3");
        bed.on(&mut client, "UPDATE leads SET email = 'mine' WHERE id = 3; COMMIT");
        let there = "SELECT count(*) FROM leads_v2 WHERE id = 3 AND email = 'mine'";
        assert_eq!(bed.number(there), 0, "it was not only noted");
        bed.phasegate(&["run", "plan.yaml"]).expect(0);
        assert_eq!(bed.number(there), 1, "{direction}");
        let left = "SELECT count(*) FROM pg_class WHERE relname ~ '^(touched|parked|written)_'";
        assert_eq!(bed.number(left), 0, "{direction}");
    }
}

#[test]
fn a_run_whose_new_table_somebody_dropped_comes_to_its_end() {
    let Some(bed) = Bed::new("dropped", &format!("{MOVE}{LAST}")) else { return };
    bed.phasegate(&["run", "plan.yaml", "--to", "compare"]).expect(0);
    bed.run("DROP TABLE leads_v2");
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"), 0);
}

/// With `both` a rollback takes nothing along that the new side alone has.
#[test]
fn a_rollback_names_what_only_the_new_side_has_though_the_sync_goes_both_ways() {
    let plan = MOVE.replace("direction: forward", "direction: both");
    let gate = "  - id: ready\n    phase: contract\n    gate:\n      verified_within: 1h\n";
    let stop = "  - id: stop\n    phase: contract\n    stop_dual_write: { mapping: leads }\n";
    let wait =
        "  - id: wait\n    phase: contract\n    gate:\n      approvals: [{ group: x, count: 1 }]\n";
    for stop in ["", stop] {
        let plan = format!("{plan}{gate}{stop}{wait}{LAST}");
        let Some(bed) = Bed::new("only on the new side", &plan) else { return };
        bed.phasegate(&["run", "plan.yaml"]).expect(4);
        bed.run(
            "ALTER TABLE leads_v2 DISABLE TRIGGER USER; INSERT INTO leads_v2 VALUES (900, 'mine');
             DO $$ DECLARE name text; BEGIN
               FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'leads_v2'::regclass AND NOT tgisinternal LOOP
                 EXECUTE format('ALTER TABLE leads_v2 ENABLE ALWAYS TRIGGER %I', name); END LOOP; END $$",
        );
        let ran = bed.phasegate(&["rollback", "leads", "--yes"]).expect(9);
        mentions(&ran, &["1 row on the new side of leads differ", "--accept-loss leads"]);
        assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 401);
        bed.run("INSERT INTO leads VALUES (900, 'mine') ON CONFLICT DO NOTHING");
        bed.phasegate(&["retry", "leads"]).expect(0);
        assert_eq!(bed.number("SELECT count(*) FROM leads WHERE id = 900"), 1);
        assert_eq!(bed.number("SELECT count(*) FROM pg_class WHERE relname ~ '^written_'"), 0);
    }
}

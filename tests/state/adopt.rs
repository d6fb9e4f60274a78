//! `state adopt`: the state store is gone, and the run goes on from what its targets have.

use std::fs;

use crate::bad_luck::{APPROVAL, POINTS, check_counts, check_end, killed_at, plan, sandbox};
use crate::failures::signal;
use crate::sandbox::{Ran, Sandbox};

const ADOPT: [&str; 4] = ["state", "adopt", "plan.yaml", "--yes"];

fn lose_the_store(sandbox: &Sandbox) {
    fs::remove_dir_all(sandbox.path(".phasegate")).unwrap();
}

/// How a step stands.
fn step(ran: &Ran, id: &str) -> String {
    let document = ran.json();
    let steps = document["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["id"] == id).unwrap();
    step["state"].as_str().unwrap().to_owned()
}

#[test]
fn killed_at_every_point_with_its_state_store_lost_the_run_ends_the_same() {
    let whole = sandbox("");
    whole.run(&["run", "plan.yaml"]).expect(0);
    let expected = whole.dump("app.db");
    let (mut adopted, mut not_there) = (0, 0);
    for point in POINTS {
        // Between one chunk and the next nothing differs.
        let step = if point.contains("journal") || point.ends_with("chunk") { 3 } else { 1 };
        for hits in (0..).step_by(step) {
            let sandbox = sandbox("");
            let case = format!("{point}, hit {}", hits + 1);
            if killed_at(&sandbox, &["run", "plan.yaml"], point, hits).is_none() {
                break;
            }
            lose_the_store(&sandbox);
            let said = sandbox.run(&ADOPT);
            if said.code == Some(64) {
                // It had left nothing there yet, or had left.
                assert!(said.stderr.contains("nothing to adopt"), "{case}: {said}");
                not_there += 1;
                let has_left = sandbox.dump("app.db") == expected;
                if !has_left {
                    sandbox.run(&["run", "plan.yaml"]).expect(0);
                }
            } else {
                assert_eq!(said.code, Some(0), "{case}: {said}");
                adopted += 1;
                let resumed = sandbox.run(&["run", "plan.yaml"]);
                assert_eq!(resumed.code, Some(0), "{case}: {resumed}");
                check_counts(&sandbox, &case);
                let verified = sandbox.run(&["history", "customers", "--verify"]);
                assert_eq!(verified.code, Some(0), "{case}: {verified}");
                sandbox.run(&["state", "check"]).expect(0);
            }
            check_end(&sandbox, &expected, &case);
        }
    }
    assert!(adopted >= 20 && not_there >= 2, "{adopted} adopted, {not_there} not there");
}

#[test]
fn what_adopting_had_begun_goes_on_wherever_it_was_killed() {
    let whole = sandbox("");
    whole.run(&["run", "plan.yaml"]).expect(0);
    let expected = whole.dump("app.db");
    let mut kills = 0;
    for point in [
        "journal::before-append",
        "journal::after-append",
        "sqlite::before-commit::enter",
        "sqlite::after-commit::enter",
    ] {
        for hits in 0..4 {
            let sandbox = sandbox("");
            killed_at(&sandbox, &["run", "plan.yaml"], "sqlite::after-commit::retire", 0).unwrap();
            lose_the_store(&sandbox);
            let case = format!("{point}, hit {}", hits + 1);
            if killed_at(&sandbox, &ADOPT, point, hits).is_none() {
                break;
            }
            kills += 1;
            // By whichever command: until the ledgers have been read nothing else is done.
            if hits % 2 == 0 {
                let again = sandbox.run(&ADOPT);
                assert!(matches!(again.code, Some(0 | 64)), "{case}: {again}");
            }
            let resumed = sandbox.run(&["run", "plan.yaml"]);
            assert_eq!(resumed.code, Some(0), "{case}: {resumed}");
            check_end(&sandbox, &expected, &case);
        }
    }
    assert!(kills >= 6, "{kills} kills");
}

#[test]
fn a_run_that_goes_back_goes_on_going_back() {
    let fresh = sandbox(APPROVAL);
    let expected = fresh.dump("app.db");
    let mut backwards = 0;
    for goal in ["backfill", "verify", "retire"] {
        for point in [
            "sqlite::before-commit::unretire",
            "sqlite::after-commit::unretire",
            "sqlite::before-commit::remove",
            "sqlite::after-commit::remove",
            "sqlite::before-commit::execute",
            "sqlite::after-commit::execute",
        ] {
            let sandbox = sandbox(if goal == "retire" { "" } else { APPROVAL });
            let case = format!("from {goal}, {point}");
            sandbox.run(&["run", "plan.yaml", "--to", goal]).expect(0);
            let back = ["rollback", "customers", "--yes"];
            if killed_at(&sandbox, &back, point, 0).is_none() {
                continue;
            }
            lose_the_store(&sandbox);
            sandbox.run(&ADOPT).expect(0);
            let status = sandbox.run(&["status", "customers", "--format", "json"]);
            let goes_back = status.json()["state"].as_str().unwrap().contains("back");
            backwards += u32::from(goes_back);
            // Where nothing had been undone nobody can know that somebody had asked for it.
            let gone_on = sandbox.run(&back);
            assert_eq!(gone_on.code, Some(0), "{case}: {gone_on}");
            check_end(&sandbox, &expected, &case);
        }
    }
    assert!(backwards >= 6, "{backwards} were known to go back");
}

#[test]
fn a_run_that_had_left_and_entered_again_is_over() {
    let sandbox = sandbox("");
    let run = ["run", "plan.yaml"];
    killed_at(&sandbox, &run, "sqlite::after-commit::leave", 0).unwrap();
    let expected = sandbox.dump("app.db");
    killed_at(&sandbox, &run, "sqlite::after-commit::enter", 0).unwrap();
    lose_the_store(&sandbox);
    sandbox.run(&ADOPT).expect(0);
    let said = sandbox.run(&["run", "plan.yaml"]).expect(0);
    assert!(said.stdout.contains("complete"), "{said}");
    check_end(&sandbox, &expected, "left and entered again");
}

#[test]
fn a_run_that_is_given_up_is_given_up_to_its_end() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml", "--to", "verify"]).expect(0);
    let abort = ["abort", "customers", "--leave", "--reason", "no more"];
    let point = "sqlite::before-commit::leave";
    assert!(killed_at(&sandbox, &abort, point, 0).is_some());
    lose_the_store(&sandbox);
    sandbox.run(&ADOPT).expect(0);
    let said = sandbox.run(&["run", "plan.yaml"]);
    assert_eq!(sandbox.ours("app.db"), ["phasegate_runs"], "{said}");
    let row = "SELECT state FROM phasegate_runs";
    assert_eq!(sandbox.value("app.db", row), "aborted", "{said}");
}

#[test]
fn approvals_are_void_and_comparisons_are_made_again() {
    let sandbox = sandbox(APPROVAL);
    let said = sandbox.run(&["run", "plan.yaml"]).expect(4);
    assert!(said.stdout.contains("approvals"), "{said}");
    let approve = |sandbox: &Sandbox| {
        let look = ["gates", "customers", "ready", "--show", "--format", "json"];
        let digest = sandbox.run(&look).json()["gates"][0]["work"].as_str().unwrap().to_owned();
        sandbox.run(&["approve", "customers", "ready", "--digest", &digest]).expect(0);
    };
    approve(&sandbox);
    lose_the_store(&sandbox);
    sandbox.run(&ADOPT).expect(0);
    let status = sandbox.run(&["status", "customers", "--format", "json"]);
    assert_eq!(step(&status, "copy"), "succeeded");
    assert_eq!(step(&status, "compare"), "pending");
    // What differs now is found now.
    sandbox.sql("app.db", "DELETE FROM customers_v2 WHERE id = 3");
    sandbox.run(&["run", "plan.yaml"]).expect(7);
    sandbox.sql("app.db", "UPDATE customers SET name = name WHERE id = 3");
    sandbox.run(&["retry", "customers"]).expect(4);
    approve(&sandbox);
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}

#[test]
fn nothing_is_adopted_that_is_not_lost_or_is_of_another_plan() {
    let sandbox = sandbox(APPROVAL);
    let said = sandbox.run(&ADOPT).expect(64);
    assert!(said.stderr.contains("nothing to adopt"), "{said}");
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    let said = sandbox.run(&ADOPT).expect(64);
    assert!(said.stderr.contains("not lost"), "{said}");
    // Its store is where it was.
    let other = [&["--state", "new.db"], &ADOPT[..]].concat();
    let said = sandbox.run(&other).expect(5);
    assert!(said.stderr.contains("is not lost"), "{said}");
    fs::rename(sandbox.path(".phasegate"), sandbox.path("away")).unwrap();
    // Nobody was asked.
    let said = sandbox.run(&["state", "adopt", "plan.yaml"]).expect(64);
    assert!(said.stderr.contains("--yes"), "{said}");
    // The plan says something else now.
    let changed = plan(APPROVAL).replace("rows: 150", "rows: 151");
    sandbox.write("plan.yaml", &changed);
    let said = sandbox.run(&ADOPT).expect(6);
    assert!(said.stderr.contains("digest"), "{said}");
    sandbox.write("plan.yaml", &plan(APPROVAL));
    // Whoever comes without the journal is told of this way out.
    let said = sandbox.run(&["run", "plan.yaml"]).expect(5);
    assert!(said.stderr.contains("state adopt"), "{said}");
    sandbox.run(&ADOPT).expect(0);
    // From now on the run is here, whatever comes back.
    fs::rename(sandbox.path(".phasegate"), sandbox.path("newer")).unwrap();
    fs::rename(sandbox.path("away"), sandbox.path(".phasegate")).unwrap();
    let said = sandbox.run(&["run", "plan.yaml"]).expect(5);
    assert!(said.stderr.contains("another state store"), "{said}");
}

#[test]
fn an_older_copy_of_the_store_is_told_from_a_lost_one() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["validate", "plan.yaml"]).expect(0);
    // The store is made, and has no run yet.
    sandbox.write("other.yaml", &plan(APPROVAL).replace("name: customers\n", "name: others\n"));
    sandbox.run(&["run", "other.yaml", "--to", "expand"]).expect(0);
    sandbox.run(&["rollback", "others", "--yes"]).expect(0);
    fs::copy(sandbox.path(".phasegate/state.db"), sandbox.path("older.db")).unwrap();
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    lose_the_store(&sandbox);
    let older = [&["--state", "older.db"], &ADOPT[..]].concat();
    let said = sandbox.run(&older).expect(65);
    assert!(said.stderr.contains("older copy"), "{said}");
    sandbox.run(&ADOPT).expect(0);
}

#[test]
fn a_plan_that_was_amended_is_the_one_that_counts() {
    let sandbox = sandbox(APPROVAL);
    sandbox.run(&["run", "plan.yaml", "--to", "verify"]).expect(0);
    let amended = plan(APPROVAL).replace("every row lives on in the new table", "nobody reads it");
    sandbox.write("plan.yaml", &amended);
    sandbox.run(&["amend", "customers", "plan.yaml", "--yes"]).expect(0);
    sandbox.run(&["run", "plan.yaml"]).expect(4);
    lose_the_store(&sandbox);
    sandbox.write("plan.yaml", &plan(APPROVAL));
    sandbox.run(&ADOPT).expect(6);
    sandbox.write("plan.yaml", &amended);
    sandbox.run(&ADOPT).expect(0);
}

#[test]
fn whoever_still_drives_the_run_keeps_it() {
    let sandbox = sandbox(APPROVAL);
    let mut driver = sandbox.command(&["run", "plan.yaml", "--wait", "10m"]).spawn().unwrap();
    let waits =
        || sandbox.run(&["gates", "customers", "--format", "json"]).stdout.contains("\"work\": \"");
    assert!(crate::sandbox::wait_for(std::time::Duration::from_mins(1), waits));
    signal(driver.id(), "STOP");
    fs::rename(sandbox.path(".phasegate"), sandbox.path("away")).unwrap();
    let said = sandbox.run(&ADOPT).expect(5);
    assert!(said.stderr.contains(&format!("pid {}", driver.id())), "{said}");
    driver.kill().unwrap();
    driver.wait().unwrap();
    sandbox.run(&ADOPT).expect(0);
}

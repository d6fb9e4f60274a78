//! The state store is lost with the process, while a client writes, and the run goes on from what the database has.

use super::dying::{check_end, killed_at};
use super::leads;
use super::writer::Writer;

#[test]
fn killed_with_its_state_store_lost_the_run_ends_the_same_under_a_client() {
    let mut adopted = 0;
    for kind in ["execute", "install", "chunk", "finish", "retire", "validate", "drop"] {
        for place in ["before", "after"] {
            let Some(example) = leads() else { return };
            let writer = Writer::at_work(&example);
            let (plan, point) = (example.plan(), format!("postgres::{place}-commit::{kind}"));
            if killed_at(&example, &["run", &plan], &point, 0).is_some() {
                std::fs::remove_dir_all(example.sandbox.path(".phasegate")).unwrap();
                let said = example.phasegate(&["state", "adopt", &plan, "--yes"]);
                assert_eq!(said.code, Some(0), "{point}: {said}");
                adopted += 1;
            }
            let resumed = example.run(&["--wait", "60s"]);
            assert_eq!(resumed.code, Some(0), "{point}: {resumed}");
            writer.ends_well();
            check_end(&example, &point);
        }
    }
    assert!(adopted >= 10, "only {adopted} stores were lost");
}

#[test]
fn a_run_that_goes_back_without_its_state_store_goes_on_going_back() {
    for point in ["after-commit::unretire", "before-commit::remove", "after-commit::remove"] {
        let Some(example) = leads() else { return };
        let before = example.database.dump();
        example.run(&["--to", "switch-leads"]).expect(0);
        let back = ["rollback", example.name, "--yes"];
        let point = format!("postgres::{point}");
        assert!(killed_at(&example, &back, &point, 0).is_some(), "{point} was never reached");
        std::fs::remove_dir_all(example.sandbox.path(".phasegate")).unwrap();
        let plan = example.plan();
        example.phasegate(&["state", "adopt", &plan, "--yes"]).expect(0);
        let gone_on = example.phasegate(&back);
        assert_eq!(gone_on.code, Some(0), "{point}: {gone_on}");
        example.is_as(&before);
        assert_eq!(example.database.ours(), ["phasegate.runs"], "{point}");
    }
}

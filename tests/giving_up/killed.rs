//! A process that dies while it gives a run up: whoever is asked next does the rest, and what is left is the same.

use super::before_a_change::AGREED;
use super::{Bed, NAME, PEOPLE, Plan, Step, stays};
use crate::sandbox::Ran;

/// What is copied, with the sync still in.
const COPIED: Plan = Plan {
    maps: true,
    steps: &[Step::AsMany(PEOPLE), Step::Make, Step::Sync, Step::Copy, Step::Compare],
};

/// Where it dies: around each record, and around each of these commits in the target.
fn points(bed: &Bed, commits: &[&str]) -> Vec<String> {
    let kind = bed.kind();
    let commits = commits.iter().flat_map(|commit| {
        ["before", "after"].map(|place| format!("{kind}::{place}-commit::{commit}"))
    });
    let records = ["before", "after"].map(|place| format!("journal::{place}-append"));
    records.into_iter().chain(commits).collect()
}

/// Gives the run of a plan up, killed at every point, one after the other.
fn killed(bed: &Bed, (plan, to, code): (&Plan, &[&str], i32), abort: &[&str], commits: &[&str]) {
    let bring = || {
        bed.begin(plan);
        bed.phasegate(&[&["run", "plan.yaml"], to].concat()).expect(code);
    };
    bring();
    let given_up = bed.document(abort, 0);
    let (dump, stay) = (bed.dump(), stays(&given_up));
    bed.is_given_up(&dump, "not killed");
    for point in points(bed, commits) {
        for skipped in 0.. {
            let what = format!("{point} {skipped} {abort:?}");
            bring();
            let mut dying = bed.command(abort);
            dying.env("FAILPOINTS", format!("{point}={skipped}*off->1*return->off"));
            let died = Ran::from(dying.output().unwrap());
            if died.code == Some(0) {
                assert!(skipped > 0, "it never dies at {what}");
                break;
            }
            assert_eq!(died.code, None, "{what}: {died}");
            for again in ["the rest", "once more"] {
                assert_eq!(stays(&bed.document(abort, 0)), stay, "{what}: {again}");
                bed.is_left(&dump, &format!("{what}: {again}"));
            }
        }
        bed.is_given_up(&dump, &point);
    }
}

#[test]
fn a_run_that_has_changed_nothing_is_given_up_to_the_end_by_the_next() {
    for bed in Bed::each("killed while it is given up") {
        killed(&bed, (&AGREED, &[], 4), &["abort", NAME], &["enter", "leave"]);
    }
}

#[test]
fn what_was_changed_is_left_and_the_sync_is_taken_out_by_the_next() {
    for bed in Bed::each("killed while it is left") {
        let abort = ["abort", NAME, "--leave", "--reason", "a test"];
        let to = (&COPIED, &["--to", "copy"][..], 0);
        killed(&bed, to, &abort, &["enter", "remove", "leave"]);
    }
}

/// Who gave the order is gone, and so is what was typed: what is left to do stands in the journal.
#[test]
fn whichever_command_comes_next_ends_what_was_begun() {
    for bed in Bed::each("another command ends it") {
        let kind = bed.kind();
        let abort = ["abort", NAME, "--leave", "--reason", "a test"];
        bed.begin(&COPIED);
        bed.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
        bed.phasegate(&abort).expect(0);
        let left = bed.dump();
        // Whoever wanted to go forward is told that it did not come to that.
        for (next, code) in [(&["abort", NAME][..], 0), (&["run", "plan.yaml"], 1)] {
            bed.begin(&COPIED);
            bed.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
            let mut dying = bed.command(&abort);
            dying.env("FAILPOINTS", format!("{kind}::after-commit::enter=return"));
            assert_eq!(Ran::from(dying.output().unwrap()).code, None);
            let status = bed.document(&["status", NAME], 0);
            assert_eq!(status["state"], "aborting", "{status:#}");
            // It goes in no other direction any more.
            let back = bed.phasegate(&["rollback", NAME, "--yes"]).expect(64);
            assert!(back.stderr.contains("is aborted but for its bookkeeping"), "{back}");
            bed.phasegate(next).expect(code);
            bed.is_given_up(&left, &format!("{kind} {next:?}"));
        }
    }
}

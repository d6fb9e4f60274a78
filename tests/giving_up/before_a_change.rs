//! `abort` of a run that has changed nothing.

use super::{Bed, NAME, PEOPLE, Plan, Step, nothing_stays, stays};

/// What stands in front of the first change: a look that finds what it should, and a gate.
pub const AGREED: Plan = Plan {
    maps: false,
    steps: &[Step::AsMany(PEOPLE), Step::Gate("agreed", "expand"), Step::Make],
};

/// A look that finds something else.
const OTHERS: Plan = Plan { maps: false, steps: &[Step::AsMany(PEOPLE + 1), Step::Make] };

#[test]
fn a_run_that_has_changed_nothing_leaves_nothing() {
    for bed in Bed::each("nothing changed") {
        for (plan, to, code) in
            [(&AGREED, &["--to", "as-many"][..], 0), (&AGREED, &[], 4), (&OTHERS, &[], 7)]
        {
            let what = format!("{} {to:?} {code}", bed.kind());
            bed.begin(plan);
            let before = bed.dump();
            assert_eq!(bed.ours(), [""; 0], "{what}");
            bed.phasegate(&[&["run", "plan.yaml"], to].concat()).expect(code);
            assert!(bed.ours().len() > bed.ours_at_the_end().len(), "{what}: {:?}", bed.ours());
            assert_eq!(bed.dump(), before, "{what}");

            let given_up = bed.document(&["abort", NAME], 0);
            assert_eq!(given_up["state"], "aborted", "{what}: {given_up:#}");
            assert_eq!(stays(&given_up), nothing_stays(), "{what}");
            bed.is_given_up(&before, &what);
            // Asked again, by whom the answer did not reach.
            let again = bed.phasegate(&["abort", NAME]).expect(0);
            assert!(!again.stdout.contains("What stays"), "{again}");
            bed.is_given_up(&before, &what);

            // It leads nowhere any more, and is in nobody's way.
            let over = bed.phasegate(&["rollback", NAME, "--yes"]).expect(64);
            assert!(over.stderr.contains("is over: aborted"), "{over}");
            bed.phasegate(&["run", "plan.yaml", "--new"]).expect(if code == 7 { 7 } else { 4 });
        }
    }
}

#[test]
fn with_a_reason_to_leave_it_the_same_is_left_of_a_run_that_has_changed_nothing() {
    for bed in Bed::each("nothing changed, and left") {
        bed.begin(&AGREED);
        let before = bed.dump();
        bed.phasegate(&["run", "plan.yaml"]).expect(4);
        let leave = ["abort", NAME, "--leave", "--reason", "a test"];
        assert_eq!(stays(&bed.document(&leave, 0)), nothing_stays(), "{}", bed.kind());
        bed.is_given_up(&before, bed.kind());
    }
}

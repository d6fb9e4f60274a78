//! What changes under a run.

use super::{Bed, MOVED, TABLES, mentions, plan};

#[test]
fn what_goes_away_in_the_middle_is_noticed_and_nothing_more_is_done() {
    let Some(bed) = Bed::new("gone in the middle") else { return };
    let sync = "sync-m";
    let copied = "copy-m";
    for (change, reached, code, words) in [
        (
            "DROP TABLE t CASCADE",
            sync,
            6,
            &["there is no table t any more", "phasegate rollback"][..],
        ),
        ("DROP TABLE u CASCADE", sync, 6, &["there is no table u any more"]),
        ("ALTER TABLE u RENAME TO elsewhere", sync, 6, &["there is no table u any more"]),
        ("ALTER TABLE u DROP v", sync, 6, &["not as the run left them"]),
        ("DROP TABLE t CASCADE", copied, 6, &["there is no table t any more"]),
        ("DROP TABLE u CASCADE", copied, 6, &["there is no table u any more"]),
        (
            "DROP SCHEMA phasegate CASCADE",
            copied,
            6,
            &["the database has nothing of what was done there: sync-m, copy-m"],
        ),
    ] {
        bed.begin(TABLES, &plan(MOVED, "forward"));
        bed.phasegate(&["run", "plan.yaml", "--to", reached]).expect(0);
        bed.database.run(change);
        let ran = bed.phasegate(&["run", "plan.yaml"]);
        assert_eq!(ran.code, Some(code), "{change} after {reached}: {ran}");
        mentions(&ran, words);
    }
}

#[test]
fn privileges_that_are_lost_in_the_middle_are_named_with_their_grant() {
    let Some(bed) = Bed::new("privileges lost") else { return };
    let owner = bed.database.owner().to_owned();
    for (lost, given, words) in [
        (
            "ALTER TABLE public.u OWNER TO tester".to_owned(),
            format!("ALTER TABLE public.u OWNER TO {owner}"),
            &[
                "permission denied for table u [42501]",
                "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE u TO",
            ][..],
        ),
        (
            "ALTER SCHEMA phasegate OWNER TO tester".to_owned(),
            format!("ALTER SCHEMA phasegate OWNER TO {owner}"),
            &[
                "permission denied for schema phasegate [42501]",
                "GRANT USAGE ON SCHEMA phasegate TO",
            ],
        ),
    ] {
        bed.begin(TABLES, &plan(MOVED, "forward"));
        bed.phasegate(&["run", "plan.yaml", "--to", "sync-m"]).expect(0);
        bed.database.run_as_superuser(&lost);
        let ran = bed.phasegate(&["run", "plan.yaml"]);
        assert_eq!(ran.code, Some(77), "{lost}: {ran}");
        mentions(&ran, words);
        // Given back, the run goes on.
        bed.database.run_as_superuser(&given);
        let ran = bed.phasegate(&["retry", "bad"]);
        if ran.code == Some(64) {
            bed.phasegate(&["run", "plan.yaml"]).expect(0);
        } else {
            ran.expect(0);
        }
        assert_eq!(bed.database.value("SELECT count(*) FROM u"), "200");
    }
}

//! On PostgreSQL: a procedure, of which the catalogue has nothing to tell.

use super::{answer, answers};
use crate::examples::database::Database;
use crate::sandbox::{Ran, Sandbox};
use crate::services;

const TABLES: &str = "CREATE TABLE counted (n int NOT NULL);
    INSERT INTO counted VALUES (0);
    CREATE TABLE seen (what text);
    CREATE PROCEDURE add(more int) LANGUAGE sql AS 'UPDATE counted SET n = n + more'";

/// A step whose second statement is lost, and whose third waits behind it; its way back is as hard to tell.
const FILL: &str = "  - id: fill
    phase: expand
    target: app
    transaction: none
    reviewed: it only counts
    sql: |
      INSERT INTO seen VALUES ('first');
      CALL add(1);
      INSERT INTO seen VALUES ('last');
      VACUUM counted;
    undo:
      sql: |
        CALL add(-1);
        VACUUM counted;
  - id: after
    phase: expand
    target: app
    sql: INSERT INTO seen VALUES ('after')
    undo:
      none: it is seen all the same
";

const PURGE: &str = "  - id: has-rows
    phase: verify
    target: app
    verify:
      query: SELECT count(*) FROM counted WHERE n = 0
      expect: 1
  - id: ready
    phase: contract
    gate:
      approvals:
        - group: dba
          count: 1
      verified_within: 1h
  - id: purge
    phase: contract
    target: app
    transaction: none
    sql: CALL add(1)
    irreversible: nobody counts back
";

/// The answer is lost before the note that the statement was done.
const DONE: &str = "postgres::before-commit::execute";
/// It is lost behind the note that the statement is begun, and before the statement.
const NOT_DONE: &str = "postgres::after-commit::execute";

struct Bed {
    database: Database,
    sandbox: Sandbox,
}

impl Bed {
    fn new(steps: &str) -> Option<Self> {
        let server = services::postgres("resolve")?;
        let bed = Self { database: Database::on(&server, TABLES), sandbox: Sandbox::new() };
        let head = "apiVersion: phasegate/v1\nkind: Plan\nmetadata:\n  name: counted\ntargets:\n  app:\n    engine: postgres\n    url: \"${env:APP_URL}\"\nsteps:\n";
        bed.sandbox.write("plan.yaml", &format!("{head}{steps}"));
        Some(bed)
    }

    fn dying(&self, args: &[&str], armed: &str) -> Ran {
        let mut command = self.sandbox.command(args);
        command.env("APP_URL", &self.database.url).env("FAILPOINTS", armed);
        command.output().unwrap().into()
    }

    fn phasegate(&self, args: &[&str]) -> Ran {
        self.sandbox.run_with(args, "APP_URL", &self.database.url)
    }

    /// The process dies around the statement at the `skipped`-th commit of a step's, and nobody can tell what came of it.
    fn lose(&self, args: &[&str], point: &str, skipped: u32) {
        let died = self.dying(args, &format!("{point}={skipped}*off->1*return->off"));
        assert_eq!(died.code, None, "{died}");
        self.phasegate(args).expect(9);
        self.phasegate(args).expect(9);
    }

    fn count(&self) -> String {
        self.database.value("SELECT n FROM counted")
    }

    fn seen(&self) -> Vec<String> {
        self.database.rows("SELECT what FROM seen")
    }
}

/// Where the second statement of `fill` is lost: the first commits once, with its mark.
fn lost(is_done: bool) -> (&'static str, u32) {
    if is_done { (DONE, 2) } else { (NOT_DONE, 1) }
}

const OUTCOMES: [(bool, &str); 2] = [(true, "applied"), (false, "not-applied")];

#[test]
fn an_answer_brings_the_run_to_its_end_with_every_effect_once() {
    for (is_done, outcome) in OUTCOMES {
        let Some(bed) = Bed::new(FILL) else { return };
        let (point, skipped) = lost(is_done);
        bed.lose(&["run", "plan.yaml"], point, skipped);
        assert_eq!(bed.count(), if is_done { "1" } else { "0" });
        assert_eq!(bed.seen(), ["first"]);
        let advised = bed.phasegate(&["status", "counted"]).expect(0);
        assert!(advised.stdout.contains("resolve counted fill"), "{advised}");

        // Looking changes nothing.
        let shown = bed.phasegate(&["resolve", "counted", "fill"]).expect(9);
        for words in [
            "Nobody can tell whether step fill was done",
            "in doubt: plan.yaml:",
            "CALL add(1)",
            "statement 1 (line ",
            ": done",
            "begun, and not seen to end",
            "is gone",
            "nothing in the catalogue tells",
            "attempt 1 began",
            "resolve counted fill --attempt ",
            "--outcome applied --reason",
            "--outcome not-applied --reason",
            "the rest of the script still runs",
        ] {
            assert!(shown.stdout.contains(words), "{words}: {shown}");
        }
        let shown = bed.phasegate(&["resolve", "counted", "fill", "--format", "json"]).expect(9);
        let document = shown.json();
        assert_eq!(document["exit"]["reason"], "stuck");
        assert_eq!(document["statements"][0]["text"], "CALL add(1)", "{document:#}");
        let marks = &document["targets"][0]["marks"];
        assert_eq!((&marks[0]["in_doubt"], &marks[1]["in_doubt"]), (&false.into(), &true.into()));
        assert_eq!(document["next"].as_array().unwrap().len(), 2);
        bed.phasegate(&["run", "plan.yaml"]).expect(9);

        let mut words = answer("fill", outcome).to_vec();
        words.extend(["--as", "dee"]);
        let answered = bed.phasegate(&words).expect(0);
        assert!(answered.stdout.contains("run plan.yaml"), "{answered}");
        let again = bed.phasegate(&answer("fill", outcome)).expect(64);
        assert!(again.stderr.contains("it was resolved"), "{again}");
        bed.phasegate(&["run", "plan.yaml"]).expect(0);
        assert_eq!((bed.count().as_str(), bed.seen().len()), ("1", 3), "{outcome}");
        assert_eq!(bed.seen(), ["first", "last", "after"]);
        assert_eq!(bed.database.ours(), ["phasegate.runs"]);

        let history = bed.phasegate(&["history", "counted", "--verify", "--format", "json"]);
        let told = answers(&history.expect(0));
        let [told] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(told["by"]["name"], "dee");
        assert_eq!(told["event"]["outcome"], outcome.replace('-', "_"));
        assert!(told["text"].as_str().unwrap().contains("looked at the rows"), "{told:#}");
        let events = bed.phasegate(&["events", "counted"]).expect(0);
        assert!(events.stdout.contains("step_resolved"), "{events}");
    }
}

#[test]
fn an_undo_that_was_lost_is_answered_for_too() {
    for (is_done, outcome) in OUTCOMES {
        let Some(bed) = Bed::new(FILL) else { return };
        bed.phasegate(&["run", "plan.yaml", "--to", "fill"]).expect(0);
        assert_eq!(bed.count(), "1");
        let (point, skipped) = if is_done { (DONE, 1) } else { (NOT_DONE, 0) };
        bed.lose(&["rollback", "counted", "--yes"], point, skipped);
        let shown = bed.phasegate(&["resolve", "counted", "fill"]).expect(9);
        assert!(shown.stdout.contains("whether step fill was undone"), "{shown}");
        assert!(shown.stdout.contains("CALL add(-1)"), "{shown}");
        let answered = bed.phasegate(&answer("fill", outcome)).expect(0);
        assert!(answered.stdout.contains("rollback counted --yes"), "{answered}");
        bed.phasegate(&["rollback", "counted", "--yes"]).expect(0);
        assert_eq!(bed.count(), "0", "{outcome}");
        assert_eq!(bed.database.ours(), ["phasegate.runs"]);
    }
}

/// What was applied is undone; of what was not, only the statement before it was, and the undo is of the whole step.
#[test]
fn the_run_goes_back_from_an_answer() {
    for (is_done, outcome) in OUTCOMES {
        let Some(bed) = Bed::new(&FILL.replace("      INSERT INTO seen VALUES ('first');\n", ""))
        else {
            return;
        };
        let (point, skipped) = if is_done { (DONE, 1) } else { (NOT_DONE, 0) };
        bed.lose(&["run", "plan.yaml"], point, skipped);
        bed.phasegate(&answer("fill", outcome)).expect(0);
        bed.phasegate(&["rollback", "counted", "--yes"]).expect(0);
        assert_eq!(bed.count(), "0", "{outcome}");
    }
}

/// Wherever a process dies behind an answer, the run simply goes on.
#[test]
fn a_process_that_dies_behind_an_answer_is_no_reason_to_ask_again() {
    let Some(bed) = Bed::new(FILL) else { return };
    let (point, skipped) = lost(true);
    bed.lose(&["run", "plan.yaml"], point, skipped);
    let died = bed.dying(&answer("fill", "applied"), "journal::before-append=return");
    assert_eq!(died.code, None, "{died}");
    bed.phasegate(&["run", "plan.yaml"]).expect(9);
    let died = bed.dying(&answer("fill", "applied"), "journal::after-append=return");
    assert_eq!(died.code, None, "{died}");
    bed.phasegate(&answer("fill", "applied")).expect(64);
    let mut lives = 0;
    for point in [
        "journal::after-append",
        "postgres::before-commit::execute",
        "postgres::after-commit::execute",
    ] {
        // Of `fill` the answer, the last statements and the step itself are still to be committed.
        if bed.dying(&["run", "plan.yaml"], &format!("{point}=return")).code.is_none() {
            lives += 1;
        }
    }
    assert_eq!(lives, 3);
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!((bed.count().as_str(), bed.seen().len()), ("1", 3));

    for point in ["before-commit", "after-commit"] {
        let Some(bed) = Bed::new(FILL) else { return };
        let (lost_at, skipped) = lost(false);
        bed.lose(&["run", "plan.yaml"], lost_at, skipped);
        bed.phasegate(&answer("fill", "not-applied")).expect(0);
        let died = bed.dying(&["run", "plan.yaml"], &format!("postgres::{point}::execute=return"));
        assert_eq!(died.code, None, "{died}");
        bed.phasegate(&["run", "plan.yaml"]).expect(0);
        assert_eq!((bed.count().as_str(), bed.seen().len()), ("1", 3), "{point}");
    }
}

/// An answer is about one loss. When the statement is lost once more, that is asked anew.
#[test]
fn what_is_lost_again_is_asked_again() {
    let Some(bed) = Bed::new(FILL) else { return };
    let (point, skipped) = lost(false);
    bed.lose(&["run", "plan.yaml"], point, skipped);
    bed.phasegate(&answer("fill", "not-applied")).expect(0);
    // Behind the commits of the answer and of the new mark: it is done this time.
    bed.lose(&["run", "plan.yaml"], DONE, 2);
    assert_eq!(bed.count(), "1");
    bed.phasegate(&answer("fill", "applied")).expect(0);
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!((bed.count().as_str(), bed.seen().len()), ("1", 3));
}

#[test]
fn what_destroys_waits_for_its_gate_again_and_what_was_done_does_not() {
    for (is_done, outcome) in OUTCOMES {
        let Some(bed) = Bed::new(PURGE) else { return };
        bed.phasegate(&["run", "plan.yaml"]).expect(4);
        approve(&bed);
        let (point, skipped) = if is_done { (DONE, 1) } else { (NOT_DONE, 0) };
        bed.lose(&["run", "plan.yaml"], point, skipped);
        bed.phasegate(&answer("purge", outcome)).expect(0);
        if !is_done {
            bed.phasegate(&["revoke", "counted", "ready", "--as", "dee"]).expect(0);
            bed.phasegate(&["run", "plan.yaml"]).expect(4);
            assert_eq!(bed.count(), "0", "it was run without an approval");
            approve(&bed);
        }
        bed.phasegate(&["run", "plan.yaml"]).expect(0);
        assert_eq!(bed.count(), "1", "{outcome}");
    }
}

/// Whoever was to destroy is gone, and its gate shuts before anybody has asked how far it came: that is not to have done nothing.
#[test]
fn what_had_begun_to_destroy_is_past_the_point_of_no_return_though_its_gate_is_shut() {
    for (point, skipped) in [(DONE, 1), (NOT_DONE, 0)] {
        let Some(bed) = Bed::new(PURGE) else { return };
        bed.phasegate(&["run", "plan.yaml"]).expect(4);
        approve(&bed);
        let armed = format!("{point}={skipped}*off->1*return->off");
        let died = bed.dying(&["run", "plan.yaml"], &armed);
        assert_eq!(died.code, None, "{died}");
        bed.phasegate(&["revoke", "counted", "ready", "--as", "dee"]).expect(0);
        bed.phasegate(&["run", "plan.yaml"]).expect(4);
        for args in [&["rollback", "counted", "--yes"][..], &["abort", "counted"]] {
            let refused = bed.phasegate(args).expect(77);
            assert!(refused.stderr.contains("purge"), "{refused}");
        }
        let history = bed.phasegate(&["history", "counted"]).expect(0);
        assert!(history.stdout.contains("shut in the middle of it"), "{history}");
        let status = bed.phasegate(&["status", "counted"]).expect(0);
        assert!(!status.stdout.contains("rollback"), "{status}");
        // With the gate open again nobody can tell, and somebody says.
        approve(&bed);
        bed.phasegate(&["run", "plan.yaml"]).expect(9);
        let outcome = if point == DONE { "applied" } else { "not-applied" };
        bed.phasegate(&answer("purge", outcome)).expect(0);
        bed.phasegate(&["run", "plan.yaml"]).expect(0);
        assert_eq!(bed.count(), "1");
    }
}

/// Statements are known by their places in the script: one that is done in part can't be another script.
#[test]
fn a_script_is_amended_where_nothing_of_it_is_done_and_not_otherwise() {
    for (broken, is_begun) in [("INSERT INTO seen VALUES ('first')", false), ("CALL add(1)", true)]
    {
        const NOTHING: &str = "VACUUM nothing_of_the_kind;\n      ";
        let steps = FILL.replacen(broken, &format!("{NOTHING}{broken}"), 1);
        let Some(bed) = Bed::new(&steps) else { return };
        bed.phasegate(&["run", "plan.yaml"]).expect(1);
        assert_eq!(bed.seen().len(), usize::from(is_begun));
        let plan = std::fs::read_to_string(bed.sandbox.path("plan.yaml")).unwrap();
        let mended = plan.replace(NOTHING, "");
        bed.sandbox.write("plan.yaml", &mended);
        let amended = bed.phasegate(&["amend", "counted", "plan.yaml", "--yes"]);
        if is_begun {
            assert!(amended.stderr.contains("fill has begun and is changed"), "{amended}");
            bed.phasegate(&["rollback", "counted", "--yes"]).expect(0);
        } else {
            amended.expect(0);
            bed.phasegate(&["run", "plan.yaml"]).expect(0);
            assert_eq!((bed.count().as_str(), bed.seen().len()), ("1", 3));
        }
    }
}

/// A procedure that commits and then fails, and an index that can't be unique: the server says that they failed, and something is left.
#[test]
fn what_failed_and_left_something_is_undone() {
    for (statement, undo, left) in [
        ("CALL add_and_fail(1)", "CALL add(-1)", "SELECT n::text FROM counted"),
        (
            "CREATE UNIQUE INDEX CONCURRENTLY twice_what ON twice (what)",
            "DROP INDEX CONCURRENTLY twice_what",
            "SELECT (to_regclass('twice_what') IS NOT NULL)::int::text",
        ),
    ] {
        let steps = format!(
            "  - id: fill\n    phase: expand\n    target: app\n    transaction: none\n    reviewed: it is meant to\n    \
             sql: {statement}\n    undo:\n      sql: {undo}\n"
        );
        let Some(bed) = Bed::new(&steps) else { return };
        bed.database.run(
            "CREATE TABLE twice (what text); INSERT INTO twice VALUES ('a'), ('a');
             CREATE PROCEDURE add_and_fail(more int) LANGUAGE plpgsql AS
               'BEGIN UPDATE counted SET n = n + more; COMMIT; RAISE EXCEPTION ''no''; END'",
        );
        let failed = bed.phasegate(&["run", "plan.yaml"]);
        assert!(failed.code.is_some_and(|code| code != 0), "{failed}");
        assert_eq!(bed.database.value(left), "1", "{statement}");
        bed.phasegate(&["abort", "counted"]).expect(77);
        bed.phasegate(&["rollback", "counted", "--yes"]).expect(0);
        assert_eq!(bed.database.value(left), "0", "{statement}");
    }
}

/// An answer is about the attempt that was lost. What one before it had left is there still.
#[test]
fn what_failed_and_left_something_has_left_it_though_the_next_attempt_was_not_done() {
    let Some(bed) = Bed::new(&PURGE.replace("CALL add(1)", "CALL add_and_fail(1)")) else { return };
    bed.database.run(
        "CREATE PROCEDURE add_and_fail(more int) LANGUAGE plpgsql AS
           'BEGIN UPDATE counted SET n = n + more; COMMIT; RAISE EXCEPTION ''no''; END'",
    );
    bed.phasegate(&["run", "plan.yaml"]).expect(4);
    approve(&bed);
    let failed = bed.phasegate(&["run", "plan.yaml"]);
    assert!(failed.code.is_some_and(|code| code != 0), "{failed}");
    assert_eq!(bed.count(), "1");
    bed.database.run("UPDATE counted SET n = 0");
    let died = bed.dying(&["retry", "counted"], &format!("{NOT_DONE}=1*return->off"));
    assert_eq!(died.code, None, "{died}");
    bed.phasegate(&["run", "plan.yaml"]).expect(9);
    let shown = bed.phasegate(&["resolve", "counted", "purge"]).expect(9);
    assert!(shown.stdout.contains("an attempt before it failed and left something"), "{shown}");
    bed.phasegate(&answer("purge", "not-applied")).expect(0);
    let going_back = ["rollback", "counted", "--yes"];
    let refused = bed.phasegate(&going_back).expect(77);
    assert!(refused.stderr.contains("nobody counts back"), "{refused}");
    bed.phasegate(&["abort", "counted"]).expect(77);
    // So does the ledger once it has the answer, which the next attempt enters before it does anything.
    let died = bed.dying(&["run", "plan.yaml"], &format!("{NOT_DONE}=1*return->off"));
    assert_eq!(died.code, None, "{died}");
    let marked = "SELECT detail FROM phasegate.steps WHERE step LIKE 'purge/statement/%'";
    assert_eq!(bed.database.value(marked), "failed, and has left something");
}

/// What the server refused before any of it ran has left nothing: it is mended, given up, and never undone.
#[test]
fn a_call_that_the_server_does_not_take_has_done_nothing() {
    for mend in [true, false] {
        let steps = "  - id: fill\n    phase: expand\n    target: app\n    transaction: none\n    reviewed: it is meant to\n    \
             sql: CALL ad(1)\n    undo:\n      sql: CALL add(-1)\n";
        let Some(bed) = Bed::new(steps) else { return };
        bed.phasegate(&["run", "plan.yaml"]).expect(1);
        if mend {
            let plan = std::fs::read_to_string(bed.sandbox.path("plan.yaml")).unwrap();
            bed.sandbox.write("plan.yaml", &plan.replace("CALL ad(1)", "CALL add(1)"));
            bed.phasegate(&["amend", "counted", "plan.yaml", "--yes"]).expect(0);
            bed.phasegate(&["run", "plan.yaml"]).expect(0);
        } else {
            bed.phasegate(&["rollback", "counted", "--yes"]).expect(0);
        }
        assert_eq!(bed.count(), i32::from(mend).to_string());
    }
}

/// Nobody had asked the ledger since: the run goes back all the same, for there is nothing to undo.
#[test]
fn what_destroys_and_was_not_done_keeps_nobody_from_going_back() {
    let Some(bed) = Bed::new(PURGE) else { return };
    bed.phasegate(&["run", "plan.yaml"]).expect(4);
    approve(&bed);
    bed.lose(&["run", "plan.yaml"], NOT_DONE, 0);
    bed.phasegate(&answer("purge", "not-applied")).expect(0);
    bed.phasegate(&["rollback", "counted", "--yes"]).expect(0);
    assert_eq!(bed.count(), "0");
}

#[test]
fn an_answer_is_about_the_attempt_that_was_looked_at() {
    let Some(bed) = Bed::new(FILL) else { return };
    let (point, skipped) = lost(false);
    bed.lose(&["run", "plan.yaml"], point, skipped);
    let other = [&answer("fill", "applied")[..], &["--attempt", "7"]].concat();
    let refused = bed.phasegate(&other).expect(6);
    assert!(refused.stderr.contains("not attempt 7"), "{refused}");
    let shown = bed.phasegate(&["resolve", "counted", "fill", "--format", "json"]).expect(9).json();
    let attempt = shown["attempt"].to_string();
    let this = [&answer("fill", "not-applied")[..], &["--attempt", &attempt]].concat();
    bed.phasegate(&this).expect(0);
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    assert_eq!((bed.count().as_str(), bed.seen().len()), ("1", 3));
}

fn approve(bed: &Bed) {
    let gates = bed.phasegate(&["gates", "counted", "--format", "json"]).json();
    let work = gates["gates"][0]["work"].as_str().unwrap();
    bed.phasegate(&["approve", "counted", "ready", "--as", "dee", "--digest", work]).expect(0);
}

#[test]
fn what_is_not_in_doubt_is_refused_and_says_why() {
    let Some(bed) = Bed::new(FILL) else { return };
    let (point, skipped) = lost(false);
    bed.lose(&["run", "plan.yaml"], point, skipped);
    for (args, words) in [
        (&["resolve", "counted", "fill", "--outcome", "applied"][..], "--reason"),
        (&["resolve", "counted", "fill", "--reason", "x"], "--outcome"),
        (&["resolve", "counted", "fill", "--outcome", "perhaps", "--reason", "x"], "perhaps"),
        (&["resolve", "counted", "fill", "--outcome", "applied", "--reason", " "], "reason"),
        (&["resolve", "counted", "after"], "it has not begun"),
        (&answer("after", "applied"), "it has not begun"),
        (&answer("flil", "applied"), "its steps are: fill, after"),
        (&["resolve", "counted", "flil"], "its steps are: fill, after"),
        (&["resolve", "nothing", "fill"], "nothing"),
    ] {
        let refused = bed.phasegate(args).expect(64);
        assert!(refused.stderr.contains(words), "{args:?}: {refused}");
    }
    bed.phasegate(&["run", "plan.yaml"]).expect(9);
    // Where the database can't be asked, the journal says what it knows.
    let args = ["resolve", "counted", "fill"];
    let shown = bed.sandbox.run_with(&args, "APP_URL", "postgres://nobody@127.0.0.1:1/app");
    let shown = shown.expect(9);
    assert!(shown.stdout.contains("could not be asked"), "{shown}");
    assert!(shown.stdout.contains("attempt 1 began"), "{shown}");
}

use super::super::fixture::{Database, entered, script, work};
use super::*;
use crate::driver::{Applied, Session as _};
use crate::run::{FailureClass, Runnable, Transaction};

const SETUP: &str = "CREATE TABLE t (n int); INSERT INTO t VALUES (0);
    CREATE PROCEDURE add(more int) LANGUAGE sql AS 'UPDATE t SET n = n + more'";
const SUM: &str = "SELECT sum(n) FROM t";

fn alone_script(statements: &[&str]) -> Script {
    Script { transaction: Transaction::None, ..script(statements) }
}

fn told(step: &str, way: Way, outcome: Resolution, version: u64) -> Work {
    Work { resolved: Some(Resolved { way, outcome, version }), ..work(step, way) }
}

async fn execute(
    postgres: &Postgres,
    fence: &Fence,
    work: &Work,
    script: &Script,
) -> Result<Applied, Error> {
    postgres.execute(fence, work, Runnable::new(&work.step, script, None).unwrap()).await
}

/// As after a connection that was lost while the second of three statements ran: at version 7 of the journal.
async fn begun(database: &Database, step: &str) {
    database
        .run(&format!(
            "INSERT INTO phasegate.steps VALUES ('r1', '{step}/statement/1', 'forward', 1, NULL, 1, 7, now()),
               ('r1', '{step}/statement/2', 'forward', 0, 'begun in session 1 of 2020-01-01 00:00:00+00', 1, 7, now())"
        ))
        .await;
}

#[tokio::test]
async fn an_answer_is_taken_for_what_it_says_and_the_rest_still_runs() {
    let Some(database) = Database::with(SETUP).await else { return };
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    let three = alone_script(&["UPDATE t SET n = n + 1", "CALL add(10)", "CALL add(100)"]);
    for (step, outcome, sum) in
        [("done", Resolution::Applied, 100), ("not", Resolution::NotApplied, 210)]
    {
        begun(&database, step).await;
        // An answer from before it was begun is about something else.
        let early = told(step, Way::Forward, outcome, 7);
        let lost = execute(&postgres, &fences[0], &early, &three).await;
        assert!(matches!(lost, Err(Error::Ambiguous(_))), "{lost:?}");
        let answered = told(step, Way::Forward, outcome, 8);
        assert!(!execute(&postgres, &fences[0], &answered, &three).await.unwrap().before);
        assert_eq!(database.number(SUM).await, sum);
        assert!(execute(&postgres, &fences[0], &answered, &three).await.unwrap().before);
        assert_eq!(database.number(SUM).await, sum);
        let marks = "SELECT count(*) FROM phasegate.steps WHERE step LIKE '%/statement/%'";
        assert_eq!(database.number(marks).await, 0);
    }
    database.gone().await;
}

#[tokio::test]
async fn what_was_not_done_is_not_undone_and_what_was_is() {
    let Some(database) = Database::with(SETUP).await else { return };
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    let mark = |step: &str| {
        format!(
            "INSERT INTO phasegate.steps VALUES ('r1', '{step}/statement/1', 'forward', 0, 'begun in session 1 of 2020-01-01 00:00:00+00', 1, 7, now())"
        )
    };
    for undo in [alone_script(&["CALL add(-1)"]), script(&["UPDATE t SET n = n - 1"])] {
        let name = format!("{:?}", undo.transaction).to_lowercase();
        for (outcome, sum) in [(Resolution::NotApplied, 0), (Resolution::Applied, -1)] {
            let step = format!("{name}-{outcome:?}").to_lowercase();
            database.run(&format!("UPDATE t SET n = 0; {}", mark(&step))).await;
            let resolved = Some(Resolved { way: Way::Forward, outcome, version: 8 });
            let back = Work { resolved, ..work(&step, Way::Back) };
            execute(&postgres, &fences[0], &back, &undo).await.unwrap();
            assert_eq!(database.number(SUM).await, sum, "{step}");
        }
    }
    database.gone().await;
}

#[tokio::test]
async fn nothing_is_done_where_the_answer_has_no_mark_that_it_could_be_about() {
    let Some(database) = Database::with(SETUP).await else { return };
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    let one = alone_script(&["CALL add(1)"]);
    let answered = told("gone", Way::Forward, Resolution::Applied, 8);
    let refused = execute(&postgres, &fences[0], &answered, &one).await;
    let Err(Error::Failed(failure)) = refused else { panic!("{refused:?}") };
    assert_eq!(failure.class, FailureClass::Stale, "{failure:?}");
    assert_eq!(database.number(SUM).await, 0);
    database.gone().await;
}

#[tokio::test]
async fn marks_are_shown_with_what_else_there_is_to_see() {
    let Some(database) = Database::with(SETUP).await else { return };
    let postgres = database.open().await;
    let run = "r1".into();
    assert_eq!(postgres.marks(&run, &"lost".into(), None).await.unwrap(), []);
    entered(&postgres, 1).await;
    begun(&database, "lost").await;
    for (text, told) in [
        ("CALL add(10)", "nothing in the catalogue tells whether it was done"),
        ("CREATE DATABASE nobody_made_it", "the catalogue has no database nobody_made_it now"),
        ("DROP DATABASE IF EXISTS postgres", "the catalogue has a database postgres now"),
    ] {
        let statements = alone_script(&["UPDATE t SET n = 1", text]);
        let marks =
            postgres.marks(&run, &"lost".into(), Some((Way::Forward, &statements))).await.unwrap();
        assert_eq!(marks.iter().map(|mark| mark.is_open).collect::<Vec<_>>(), [false, true]);
        let open = &marks[1];
        assert_eq!((open.part.as_str(), &open.lines[..]), ("statement 2", &[11][..]));
        assert!(open.seen[0].ends_with("is gone"), "{open:?}");
        assert_eq!(open.seen[1], told);
    }
    database.gone().await;
}

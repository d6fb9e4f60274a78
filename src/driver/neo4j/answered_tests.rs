use super::super::fixture::{Database, entered, script, work};
use super::*;
use crate::driver::{Applied, Session as _};
use crate::run::{FailureClass, Resolved, Runnable};

const LEADS: &str = "MATCH (n:Lead) RETURN count(n) AS it";
const FILL: &str =
    "UNWIND [1, 2] AS n CALL (n) { CREATE (:Lead {id: n}) } IN TRANSACTIONS OF 1 ROW";

fn told(step: &str, way: Way, outcome: Resolution, version: u64) -> Work {
    Work { resolved: Some(Resolved { way, outcome, version }), ..work(step, way) }
}

async fn execute(
    neo4j: &Neo4j,
    fence: &Fence,
    work: &Work,
    statements: &[&str],
) -> Result<Applied, Error> {
    let script = script(statements);
    neo4j.execute(fence, work, Runnable::new(&work.step, &script, None).unwrap()).await
}

/// As after a connection that was lost while a part ran: at version 7 of the journal.
async fn begun(database: &Database, name: &str, detail: &str) {
    database
        .run(&format!(
            "CREATE (:phasegate_steps {{run_id: 'r1', step: '{name}', way: 'forward', rows: 0, detail: '{detail}', head_version: 7}})"
        ))
        .await;
}

#[tokio::test]
async fn an_answer_is_taken_for_what_it_says_and_the_rest_still_runs() {
    let Some(database) = Database::empty().await else { return };
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let statements = [FILL, "CREATE (:Lead {id: 3})"];
    for (step, outcome, leads) in
        [("done", Resolution::Applied, 1), ("not", Resolution::NotApplied, 4)]
    {
        begun(&database, &format!("{step}/part/0"), "begun").await;
        // An answer from before it was begun is about something else.
        let early = told(step, Way::Forward, outcome, 7);
        let lost = execute(&neo4j, &fences[0], &early, &statements).await;
        assert!(matches!(lost, Err(Error::Ambiguous(_))), "{lost:?}");
        let answered = told(step, Way::Forward, outcome, 8);
        execute(&neo4j, &fences[0], &answered, &statements).await.unwrap();
        assert_eq!(database.number(LEADS).await, leads);
        assert!(execute(&neo4j, &fences[0], &answered, &statements).await.unwrap().before);
        let marks =
            "MATCH (s:phasegate_steps) WHERE s.step CONTAINS '/part/' RETURN count(s) AS it";
        assert_eq!(database.number(marks).await, 0);
    }
}

#[tokio::test]
async fn what_was_not_done_to_its_end_is_undone_and_without_a_mark_nothing_is_done() {
    let Some(database) = Database::empty().await else { return };
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let answered = told("gone", Way::Forward, Resolution::Applied, 8);
    let refused = execute(&neo4j, &fences[0], &answered, &[FILL]).await;
    let Err(Error::Failed(failure)) = refused else { panic!("{refused:?}") };
    assert_eq!(failure.class, FailureClass::Stale, "{failure:?}");
    assert_eq!(database.number(LEADS).await, 0);
    begun(&database, "fill/part/0", "begun").await;
    database.run("CREATE (:Lead {id: 1})").await;
    let resolved =
        Some(Resolved { way: Way::Forward, outcome: Resolution::NotApplied, version: 8 });
    let back = Work { resolved, ..work("fill", Way::Back) };
    execute(&neo4j, &fences[0], &back, &["MATCH (n:Lead) DELETE n"]).await.unwrap();
    assert_eq!(database.number(LEADS).await, 0);
}

#[tokio::test]
async fn a_change_of_schema_that_somebody_else_mixed_with_is_answered_for_too() {
    for (outcome, is_b_made) in [(Resolution::Applied, false), (Resolution::NotApplied, true)] {
        let Some(database) = Database::empty().await else { return };
        let neo4j = database.open().await;
        let fences = entered(&neo4j, 1).await;
        let before = r#"{"before": {"indexes": [], "constraints": []}, "transaction": "gone"}"#;
        begun(&database, "index/part/0", before).await;
        database.run("CREATE INDEX a FOR (n:A) ON (n.a)").await;
        let statements = ["CREATE INDEX a FOR (n:A) ON (n.a)", "CREATE INDEX b FOR (n:A) ON (n.b)"];
        let lost = execute(&neo4j, &fences[0], &work("index", Way::Forward), &statements).await;
        assert!(matches!(lost, Err(Error::Ambiguous(_))), "{lost:?}");
        let run = "r1".into();
        let shown = script(&statements);
        let marks = neo4j.marks(&run, &"index".into(), Some((Way::Forward, &shown))).await.unwrap();
        let [mark] = marks.as_slice() else { panic!("{marks:?}") };
        assert!(mark.is_open && mark.lines == [10, 11], "{mark:?}");
        assert_eq!(mark.seen, ["index a is there now", "index b is not there now"]);
        if outcome == Resolution::NotApplied {
            database.run("DROP INDEX a").await;
        }
        let answered = told("index", Way::Forward, outcome, 8);
        execute(&neo4j, &fences[0], &answered, &statements).await.unwrap();
        let made = "SHOW INDEXES YIELD name WHERE name = 'b' RETURN count(*) AS it";
        assert_eq!(database.number(made).await == 1, is_b_made);
    }
}

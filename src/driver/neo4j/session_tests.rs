//! Claims, fences and statements on a real server.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use super::Neo4j;
use super::connection::Ask as _;
use super::fixture::{Database, claim, class, entered, head, script, work};
use crate::driver::{Access, Applied, Error, Fence, Holder, Introspect as _, Session as _, Work};
use crate::run::{Ending, FailureClass, Runnable, Value, Way};

async fn execute(
    neo4j: &Neo4j,
    fence: &Fence,
    work: &Work,
    statements: &[&str],
) -> Result<Applied, Error> {
    let script = script(statements);
    neo4j.execute(fence, work, Runnable::new(&work.step, &script, None).unwrap()).await
}

const LEADS: &str = "MATCH (n:Lead) RETURN count(n) AS it";

#[tokio::test]
async fn statements_and_their_node_in_the_ledger_are_one_and_are_done_once() {
    let Some(database) = Database::empty().await else { return };
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let step = work("grow", Way::Forward);
    let statements = [
        "UNWIND range(1, 3) AS id CREATE (:Lead {id: id})",
        "MATCH (a:Lead {id: 1}), (b:Lead {id: 2}) CREATE (a)-[:KNOWS]->(b)",
        "MATCH (n:Lead) RETURN n",
    ];
    let first = execute(&neo4j, &fences[0], &step, &statements).await.unwrap();
    assert_eq!(first, Applied { before: false, rows: 3 + 3 + 3 + 1, detail: None });
    let again = execute(&neo4j, &fences[0], &step, &statements).await.unwrap();
    assert_eq!(again, Applied { before: true, ..first });
    assert_eq!(database.number(LEADS).await, 3);
    assert!(neo4j.is_applied(fences[0].run(), &step.step, Way::Forward).await.unwrap());
    assert_eq!(neo4j.head(fences[0].run()).await.unwrap(), Some(head(7)));

    let step = work("fail", Way::Forward);
    let failing = ["CREATE (:Lead {id: 9})", "MATCH (n:Lead)\nRETURN nothing"];
    let Err(Error::Failed(failure)) = execute(&neo4j, &fences[0], &step, &failing).await else {
        panic!("it must fail")
    };
    assert_eq!(failure.code.as_deref(), Some("Neo.ClientError.Statement.SyntaxError"));
    assert_eq!((failure.line, &*failure.message), (Some(12), "Variable `nothing` not defined"));
    assert_eq!(database.number(LEADS).await, 3);
    let back = work("never", Way::Back);
    let undone =
        execute(&neo4j, &fences[0], &back, &["MATCH (n:Lead) DETACH DELETE n"]).await.unwrap();
    assert_eq!((undone.rows, database.number(LEADS).await), (0, 3));
}

#[tokio::test]
async fn schema_and_data_are_changed_in_turn_and_indexes_are_waited_for() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 20000) AS id CREATE (:Lead {id: id, email: 'e' + id})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let step = work("index", Way::Forward);
    let statements = [
        "CREATE INDEX by_email FOR (n:Lead) ON (n.email)",
        "CREATE CONSTRAINT lead_id FOR (n:Lead) REQUIRE n.id IS UNIQUE",
        "SHOW INDEXES",
        "MATCH (n:Lead {id: 1}) SET n.first = true",
        "MATCH (n:Lead) CALL (n) { SET n.seen = true } IN TRANSACTIONS OF 5000 ROWS",
        "DROP INDEX by_email",
    ];
    let before = neo4j.fingerprint(&[]).await.unwrap();
    let done = execute(&neo4j, &fences[0], &step, &statements).await.unwrap();
    assert_eq!(done.rows, 1 + 20_000);
    assert_ne!(neo4j.fingerprint(&[]).await.unwrap(), before);
    let online = "SHOW INDEXES YIELD name, state WHERE name = 'lead_id' RETURN state AS it";
    assert_eq!(database.texts(online).await, ["ONLINE"]);
    assert_eq!(database.number("MATCH (n:Lead {seen: true}) RETURN count(n) AS it").await, 20_000);
    let marks = "MATCH (s:phasegate_steps) RETURN count(s) AS it";
    assert_eq!(database.number(marks).await, 1);
    assert!(execute(&neo4j, &fences[0], &step, &statements).await.unwrap().before);
    // What can't be made leaves nothing, and what was made before it stays with its mark.
    let step = work("twice", Way::Forward);
    let statements =
        ["CREATE (:Other)", "CREATE CONSTRAINT x FOR (n:Lead) REQUIRE n.seen IS UNIQUE"];
    for _ in 0..2 {
        let failed = execute(&neo4j, &fences[0], &step, &statements).await;
        assert_eq!(class(failed), FailureClass::Refused);
        assert_eq!(database.number("MATCH (n:Other) RETURN count(n) AS it").await, 1);
    }
}

/// Where the answer was lost the names tell; where they can't, an operator has to.
#[tokio::test]
async fn what_became_of_a_change_of_schema_is_told_by_its_names() {
    for (what, meanwhile, expected) in [
        ("nothing was done", "RETURN 1", Some(2)),
        (
            "all was done",
            "CREATE INDEX a FOR (n:A) ON (n.a); CREATE INDEX b FOR (n:A) ON (n.b)",
            Some(2),
        ),
        ("somebody else did something", "CREATE INDEX c FOR (n:A) ON (n.c)", Some(3)),
        ("somebody else did a part of it", "CREATE INDEX a FOR (n:A) ON (n.a)", None),
    ] {
        let Some(database) = Database::empty().await else { return };
        let neo4j = database.open().await;
        let fences = entered(&neo4j, 1).await;
        let step = work("index", Way::Forward);
        // As if it had ended between the first mark and the answer.
        database
            .run(&format!(
                "CREATE (:phasegate_steps {{run_id: 'r1', step: 'index/part/0', way: 'forward', rows: 0, \
                 detail: '{{\"before\": {{\"indexes\": {}, \"constraints\": []}}, \"transaction\": \"gone\"}}'}})",
                serde_json::to_string(&database.texts("SHOW INDEXES YIELD name WHERE NOT name STARTS WITH 'phasegate' RETURN name AS it").await).unwrap()
            ))
            .await;
        for statement in meanwhile.split(';') {
            database.run(statement).await;
        }
        let statements = ["CREATE INDEX a FOR (n:A) ON (n.a)", "CREATE INDEX b FOR (n:A) ON (n.b)"];
        let done = execute(&neo4j, &fences[0], &step, &statements).await;
        match expected {
            Some(count) => {
                assert!(done.is_ok(), "{what}: {done:?}");
                let made = "SHOW INDEXES YIELD name WHERE size(name) = 1 RETURN count(*) AS it";
                assert_eq!(database.number(made).await, count, "{what}");
            }
            None => assert!(matches!(done, Err(Error::Ambiguous(_))), "{what}: {done:?}"),
        }
    }
}

#[tokio::test]
async fn what_commits_by_itself_is_never_repeated_blindly() {
    let Some(database) = Database::empty().await else { return };
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let step = work("fill", Way::Forward);
    // The third row fails, and the first two stay.
    let failing =
        "UNWIND [1, 2, 0] AS n CALL (n) { CREATE (:Lead {id: 2 / n}) } IN TRANSACTIONS OF 1 ROW";
    let Err(Error::Failed(failure)) = execute(&neo4j, &fences[0], &step, &[failing]).await else {
        panic!("it must fail")
    };
    assert_eq!(failure.class, FailureClass::Refused);
    assert!(failure.detail.unwrap().contains("stays"));
    assert_eq!(database.number(LEADS).await, 2);
    let fine = "UNWIND [1, 2] AS n CALL (n) { CREATE (:Lead {id: n}) } IN TRANSACTIONS OF 1 ROW";
    assert_eq!(execute(&neo4j, &fences[0], &step, &[fine]).await.unwrap().rows, 4 + 2);
    database
        .run("CREATE (:phasegate_steps {run_id: 'r1', step: 'lost/part/0', way: 'forward', rows: 0, detail: 'begun'})")
        .await;
    let lost = execute(&neo4j, &fences[0], &work("lost", Way::Forward), &[fine]).await;
    assert!(matches!(&lost, Err(Error::Ambiguous(why)) if why.contains("line 10")), "{lost:?}");
}

/// A server that ends while it makes a constraint leaves its index behind: called like it, and no constraint.
#[tokio::test]
async fn an_index_that_is_left_of_a_constraint_is_not_taken_for_it() {
    let Some(database) = Database::empty().await else { return };
    // Of one of ours, too: nobody else is to take that away.
    database.run("CREATE INDEX phasegate_copies_key FOR (n:phasegate_copies) ON (n.v)").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let ours =
        "SHOW CONSTRAINTS YIELD name WHERE name = 'phasegate_copies_key' RETURN count(*) AS it";
    assert_eq!(database.number(ours).await, 1);
    let step = work("unique", Way::Forward);
    database
        .run(
            "CREATE (:phasegate_steps {run_id: 'r1', step: 'unique/part/0', way: 'forward', rows: 0, \
             detail: '{\"before\": {\"indexes\": [], \"constraints\": []}, \"transaction\": \"gone\"}'})",
        )
        .await;
    database.run("CREATE INDEX lead_id FOR (n:Lead) ON (n.id)").await;
    let unique = ["CREATE CONSTRAINT lead_id FOR (n:Lead) REQUIRE n.id IS UNIQUE"];
    let Err(Error::Failed(failure)) = execute(&neo4j, &fences[0], &step, &unique).await else {
        panic!("there is no constraint")
    };
    assert!(failure.help.unwrap().contains("DROP INDEX"));
    database.run("DROP INDEX lead_id").await;
    execute(&neo4j, &fences[0], &step, &unique).await.unwrap();
    let made = "SHOW CONSTRAINTS YIELD name WHERE name = 'lead_id' RETURN count(*) AS it";
    assert_eq!(database.number(made).await, 1);
}

/// A broken index of somebody else is none of our business, and our own is: it is there when the step has been done.
#[tokio::test]
async fn the_indexes_of_a_step_are_waited_for_and_no_others() {
    let Some(database) = Database::empty().await else { return };
    database.run("CREATE (:Big {v: reduce(all = 'x', i IN range(1, 14) | all + all)})").await;
    database.run("CREATE INDEX theirs FOR (n:Big) ON (n.v)").await;
    let state = async |name: &str| {
        let ask =
            format!("SHOW INDEXES YIELD name, state WHERE name = '{name}' RETURN state AS it");
        database.texts(&ask).await
    };
    while state("theirs").await != ["FAILED"] {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    database.run("UNWIND range(1, 200000) AS id CALL (id) { CREATE (:Lead {email: 'e' + id}) } IN TRANSACTIONS OF 20000 ROWS").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let statements = ["CREATE INDEX `by e-mail` FOR (n:Lead) ON (n.email)"];
    execute(&neo4j, &fences[0], &work("index", Way::Forward), &statements).await.unwrap();
    assert_eq!(state("by e-mail").await, ["ONLINE"]);
    let statements = ["CREATE INDEX ours FOR (n:Big) ON (n.v, n.w)"];
    database.run("MATCH (n:Big) SET n.w = 1").await;
    let failed = execute(&neo4j, &fences[0], &work("fail", Way::Forward), &statements).await;
    assert!(format!("{failed:?}").contains("index ours could not be built"), "{failed:?}");
    assert_eq!(class(failed), FailureClass::Refused);
    neo4j.leave(&fences[0], Ending::Aborted, &head(9)).await.unwrap();
}

#[tokio::test]
async fn of_a_change_of_schema_that_was_refused_there_is_nothing_to_undo() {
    let Some(database) = Database::empty().await else { return };
    database.run("CREATE (:Lead {id: 1}), (:Lead {id: 1})").await;
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let unique = ["CREATE CONSTRAINT c FOR (n:Lead) REQUIRE n.id IS UNIQUE"];
    let refused = execute(&neo4j, &fences[0], &work("unique", Way::Forward), &unique).await;
    assert_eq!(class(refused), FailureClass::Refused);
    let back = work("unique", Way::Back);
    let undone = execute(&neo4j, &fences[0], &back, &["DROP CONSTRAINT c"]).await;
    let detail = undone.unwrap().detail.unwrap();
    assert!(detail.contains("nothing to undo"), "{detail}");
}

#[tokio::test]
async fn what_failed_in_part_is_undone() {
    let Some(database) = Database::empty().await else { return };
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let failing =
        "UNWIND [1, 2, 0] AS n CALL (n) { CREATE (:Lead {id: 2 / n}) } IN TRANSACTIONS OF 1 ROW";
    let step = work("fill", Way::Forward);
    for _ in 0..2 {
        let failed = execute(&neo4j, &fences[0], &step, &[failing]).await;
        assert_eq!(class(failed), FailureClass::Refused);
    }
    assert_eq!(database.number(LEADS).await, 4);
    let back = work("fill", Way::Back);
    let undone = execute(&neo4j, &fences[0], &back, &["MATCH (n:Lead) DELETE n"]).await.unwrap();
    assert_eq!((undone.rows, database.number(LEADS).await), (4, 0));
}

#[tokio::test]
async fn one_run_has_the_database_and_who_takes_over_shuts_the_earlier_runner_out() {
    let Some(database) = Database::empty().await else { return };
    let (old, new) = (database.open().await, database.open().await);
    assert_eq!(old.holder(&claim("r1")).await.unwrap(), None);
    let stale = entered(&old, 5).await;
    let held = new.enter(&claim("r2"), 1).await.unwrap_err();
    let Error::Held(holder) = held else { panic!("{held:?}") };
    let Holder { run, plan, store, host, pid, .. } = *holder;
    assert_eq!(
        (run.as_str(), &*plan, &*store, &*host, pid),
        ("r1", "leads-v2", "store-1", "here", 42)
    );

    // The earlier runner is stopped inside a transaction, which keeps its slot.
    let mut open = old.connections.begin(&stale[0], crate::driver::TxKind::Execute).await.unwrap();
    open.run(neo4rs::query("CREATE (:Lead {id: 1})")).await.unwrap();
    let fences = tokio::time::timeout(Duration::from_mins(1), entered(&new, 6)).await.unwrap();
    assert!(open.commit().await.is_err());
    assert_eq!(database.number(LEADS).await, 0);
    let shut_out = Error::Fenced { ours: 5, newest: 6 };
    let late = work("late", Way::Forward);
    let statements = ["CREATE (:Lead {id: 2})"];
    assert_eq!(execute(&old, &stale[0], &late, &statements).await, Err(shut_out.clone()));
    assert_eq!(old.leave(&stale[0], Ending::Aborted, &head(9)).await, Err(shut_out.clone()));
    assert_eq!(old.enter(&claim("r1"), 5).await, Err(shut_out));
    assert_eq!(execute(&new, &fences[0], &late, &statements).await.unwrap().rows, 3);

    new.leave(&fences[0], Ending::Completed, &head(9)).await.unwrap();
    new.leave(&fences[0], Ending::Completed, &head(9)).await.unwrap();
    assert_eq!(database.ours().await, ["phasegate_runs", "phasegate_runs_key"]);
    let row = "MATCH (r:phasegate_runs {state: 'completed', rows_total: 3, head_version: 9}) RETURN count(r) AS it";
    assert_eq!(database.number(row).await, 1);
    assert!(new.enter(&claim("r2"), 1).await.is_ok());
    new.leave(&Fence::new("r2".into(), 0, 1), Ending::Aborted, &head(9)).await.unwrap();
}

/// Nothing of ours is locked meanwhile.
#[tokio::test]
async fn what_an_earlier_runner_has_running_by_itself_is_ended() {
    let Some(database) = Database::empty().await else { return };
    let (old, new) = (database.open().await, database.open().await);
    let stale = entered(&old, 5).await;
    let endless = "UNWIND range(1, 1000000000) AS n CALL (n) { CREATE (l:Lead) DELETE l } IN TRANSACTIONS OF 100 ROWS";
    let step = work("endless", Way::Forward);
    let statements = [endless];
    let takeover = async {
        let runs = "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery CONTAINS '1000000000' AND currentQuery STARTS WITH 'UNWIND' \
             RETURN count(*) AS it";
        while database.number(runs).await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::timeout(Duration::from_mins(1), entered(&new, 6)).await.unwrap()
    };
    let run = execute(&old, &stale[0], &step, &statements);
    let (ended, fences) = tokio::join!(run, takeover);
    assert!(ended.is_err(), "{ended:?}");
    // How far it came is for people to tell.
    let again = execute(&new, &fences[0], &step, &statements).await;
    assert!(matches!(again, Err(Error::Ambiguous(_))), "{again:?}");
}

/// Its answer was lost while the server is at its commit, and the next attempt has another slot.
#[tokio::test]
async fn what_an_attempt_before_is_about_to_commit_is_waited_for() {
    let Some(database) = Database::empty().await else { return };
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let step = work("grow", Way::Forward);
    let mut lost = database.begin().await;
    let sent = "CREATE (:Lead) MERGE (s:phasegate_steps {run_id: 'r1', step: 'grow', way: 'forward'}) \
         SET s.rows = 1, s.token = 1, s.head_version = 1";
    lost.run(neo4rs::query(sent)).await.unwrap();
    let commits = async {
        database.until_blocked().await;
        lost.commit().await.unwrap();
    };
    let again = execute(&neo4j, &fences[1], &step, &["CREATE (:Lead)"]);
    let (again, ()) = tokio::join!(again, commits);
    assert!(again.unwrap().before);
    assert_eq!(database.number(LEADS).await, 1);

    // What is taken back after all is done, and asked about likewise.
    let step = work("more", Way::Forward);
    let mut lost = database.begin().await;
    lost.run(neo4rs::query(&sent.replace("grow", "more"))).await.unwrap();
    let asked = neo4j.ended(&fences[1], &step.step, Way::Forward);
    let taken_back = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        lost.rollback().await.unwrap();
    };
    let began = std::time::Instant::now();
    let (asked, ()) = tokio::join!(asked, taken_back);
    asked.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500), "nobody waited");
    assert!(!neo4j.is_applied(fences[1].run(), &step.step, Way::Forward).await.unwrap());
    let done = execute(&neo4j, &fences[1], &step, &["CREATE (:Lead)"]).await.unwrap();
    assert_eq!((done.before, database.number(LEADS).await), (false, 2));
}

/// A change of schema can't be in a transaction with anything of ours.
#[tokio::test]
async fn what_an_earlier_runner_changes_of_the_schema_is_never_committed() {
    let Some(database) = Database::empty().await else { return };
    let (old, new) = (database.open().await, database.open().await);
    entered(&old, 5).await;
    let mut tx = old.connections.begin_unfenced(crate::driver::TxKind::Execute).await.unwrap();
    let name = tx.named().await.unwrap();
    assert!(name.starts_with("neo4j-transaction-"), "{name}");
    database
        .run(&format!(
            "CREATE (:phasegate_steps {{run_id: 'r1', step: 'index/part/0', way: 'forward', rows: 0, \
             detail: '{{\"before\": {{\"indexes\": [], \"constraints\": []}}, \"transaction\": \"{name}\"}}'}})"
        ))
        .await;
    tx.run(neo4rs::query("CREATE INDEX a FOR (n:A) ON (n.a)")).await.unwrap();
    tokio::time::timeout(Duration::from_mins(1), entered(&new, 6)).await.unwrap();
    assert!(tx.commit().await.is_err());
    let made = "SHOW INDEXES YIELD name WHERE name = 'a' RETURN count(*) AS it";
    assert_eq!(database.number(made).await, 0);
}

/// Its answer was lost, and the names that there are tell of it only once it has ended.
#[tokio::test]
async fn a_change_of_schema_that_is_under_way_is_ended_before_it_is_done_again() {
    let Some(database) = Database::empty().await else { return };
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 5).await;
    let mut lost = neo4j.connections.begin_unfenced(crate::driver::TxKind::Execute).await.unwrap();
    let name = lost.named().await.unwrap();
    database
        .run(&format!(
            "CREATE (:phasegate_steps {{run_id: 'r1', step: 'index/part/0', way: 'forward', rows: 0, \
             detail: '{{\"before\": {{\"indexes\": [], \"constraints\": []}}, \"transaction\": \"{name}\"}}'}})"
        ))
        .await;
    let index = "CREATE INDEX a FOR (n:A) ON (n.a)";
    lost.run(neo4rs::query(index)).await.unwrap();
    let step = work("index", Way::Forward);
    let statements = [index];
    let again = execute(&neo4j, &fences[0], &step, &statements);
    tokio::time::timeout(Duration::from_mins(1), again).await.unwrap().unwrap();
    assert!(lost.commit().await.is_err());
    let made = "SHOW INDEXES YIELD name WHERE name = 'a' RETURN count(*) AS it";
    assert_eq!(database.number(made).await, 1);
}

#[tokio::test]
async fn rivals_that_enter_at_once_are_told_apart() {
    let Some(database) = Database::empty().await else { return };
    let drivers = [database.open().await, database.open().await, database.open().await];
    let claims = [claim("r1"), claim("r2"), claim("r3")];
    let (a, b, c) = tokio::join!(
        drivers[0].enter(&claims[0], 1),
        drivers[1].enter(&claims[1], 1),
        drivers[2].enter(&claims[2], 1),
    );
    let entered = [a, b, c].into_iter().filter(|result| match result {
        Ok(_) => true,
        Err(Error::Held(_)) => false,
        Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => false,
        Err(other) => panic!("{other:?}"),
    });
    assert_eq!(entered.count(), 1);
    assert_eq!(database.number("MATCH (r:phasegate_runs) RETURN count(r) AS it").await, 1);
}

#[tokio::test]
async fn a_query_gives_one_value_and_changes_nothing() {
    let Some(database) = Database::empty().await else { return };
    database.run("UNWIND range(1, 3) AS id CREATE (:Lead {id: id})").await;
    let neo4j = database.open().await;
    for (query, value) in [
        ("MATCH (n:Lead) RETURN count(n)", Value::Integer(3)),
        ("RETURN 0.5", Value::Real(0.5)),
        ("RETURN 'a'", Value::Text("a".into())),
        ("RETURN null", Value::Null),
        ("RETURN 1 = 1", Value::Boolean(true)),
        ("SHOW INDEXES YIELD name WHERE name = 'x' RETURN count(*)", Value::Integer(0)),
    ] {
        assert_eq!(neo4j.value(query).await.unwrap(), value, "{query}");
    }
    for (query, expected) in [
        ("MATCH (n:Lead) RETURN n.id", FailureClass::Refused),
        ("MATCH (n:Lead) WHERE false RETURN n.id", FailureClass::Refused),
        ("RETURN 1, 2", FailureClass::Refused),
        ("RETURN [1]", FailureClass::Refused),
        ("RETURN nothing", FailureClass::Refused),
        ("CREATE (n:Lead) RETURN 1", FailureClass::NotPermitted),
        ("CREATE INDEX x FOR (n:Lead) ON (n.id)", FailureClass::NotPermitted),
    ] {
        assert_eq!(class(neo4j.value(query).await), expected, "{query}");
    }
    let looking = Neo4j::open(&database.url.clone().into(), Access::ReadOnly).await.unwrap();
    assert_eq!(class(looking.enter(&claim("r1"), 1).await), FailureClass::NotPermitted);
    assert_eq!(database.number("MATCH (n) RETURN count(n) AS it").await, 3);
}

/// Of a cluster's servers only the one that takes writes knows what there is. On one alone that tells by what it refuses.
#[tokio::test]
async fn what_we_look_at_in_a_cluster_is_asked_of_who_takes_writes() {
    let Some(database) = Database::empty().await else { return };
    let routed = database.url.replace("bolt://", "neo4j://");
    for (url, takes_writes) in [(&database.url, false), (&routed, true)] {
        let neo4j = Neo4j::open(&url.clone().into(), Access::Full).await.unwrap();
        let mut reader = neo4j.connections.read().await.unwrap();
        let looked = reader.rows(neo4rs::query("CREATE (:Lead) RETURN 1 AS one")).await;
        assert_eq!(looked.is_ok(), takes_writes, "{url}: {looked:?}");
        // What somebody asks is never one that writes.
        let asked = neo4j.value("CREATE (:Lead) RETURN 1").await;
        assert_eq!(class(asked), FailureClass::NotPermitted, "{url}");
        assert_eq!(database.number(LEADS).await, 0, "{url}");
        let fences = entered(&neo4j, 1).await;
        neo4j.leave(&fences[0], Ending::Aborted, &head(9)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_cancelled_or_dropped_ends_on_the_server() {
    let Some(database) = Database::empty().await else { return };
    let neo4j = database.open().await;
    let fences = entered(&neo4j, 1).await;
    let endless = [
        "UNWIND range(1, 100000000) AS a UNWIND range(1, 100000) AS b WITH a, b WHERE a + b < 0 CREATE (:Lead)",
    ];
    let step = work("endless", Way::Forward);
    let cancel = async {
        let runs = "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery CONTAINS '100000000' AND currentQuery STARTS WITH 'UNWIND' \
             RETURN count(*) AS it";
        while database.number(runs).await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        neo4j.cancel().await;
    };
    let (done, ()) = tokio::join!(execute(&neo4j, &fences[0], &step, &endless), cancel);
    assert_eq!(class(done), FailureClass::Cancelled);
    let run = execute(&neo4j, &fences[0], &step, &endless);
    assert!(tokio::time::timeout(Duration::from_millis(500), run).await.is_err());
    // The slot is free again, so nothing holds its lock any more.
    let fine = execute(&neo4j, &fences[0], &step, &["CREATE (:Lead)"]);
    assert!(tokio::time::timeout(Duration::from_mins(1), fine).await.unwrap().is_ok());
}

#[tokio::test]
async fn servers_that_can_not_be_used_are_told_apart() {
    let Some(database) = Database::empty().await else { return };
    let port = database.url.rsplit(':').next().unwrap().to_owned();
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mute_port, http_port) =
        (mute.local_addr().unwrap().port(), http.local_addr().unwrap().port());
    let _answering = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while let Ok((mut stream, _)) = http.accept().await {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    for (url, expected, said) in [
        ("bolt://127.0.0.1:1".to_owned(), FailureClass::Unreachable, "refused"),
        (format!("bolt://127.0.0.1:{mute_port}"), FailureClass::Unreachable, "did not greet"),
        (format!("bolt://127.0.0.1:{http_port}"), FailureClass::Unreachable, "HTTP"),
        (format!("bolt+s://127.0.0.1:{port}"), FailureClass::Unreachable, "could not connect"),
        (format!("bolt://127.0.0.1:{port}/nowhere"), FailureClass::Refused, "nowhere"),
        (
            format!("bolt+s://127.0.0.1:{port}?ca=/no/such/file"),
            FailureClass::Refused,
            "/no/such/file",
        ),
    ] {
        let opened = Neo4j::open(&url.clone().into(), Access::Full).await;
        let Err(Error::Failed(failure)) = opened else { panic!("{url}: {opened:?}") };
        assert_eq!(failure.class, expected, "{url}: {failure:?}");
        assert!(failure.message.contains(said), "{url}: {failure:?}");
    }
}

/// The library would send such a statement again, and again, for a minute.
#[tokio::test]
async fn what_fails_for_a_while_is_not_sent_again() {
    let Some(database) = Database::empty().await else { return };
    database.run("CREATE (:Lead {id: 1}), (:Lead {id: 2})").await;
    let (neo4j, other) = (database.open().await, database.open().await);
    let fences = entered(&neo4j, 1).await;
    let mut client =
        other.connections.begin_unfenced(crate::driver::TxKind::Execute).await.unwrap();
    // Of two that wait for each other the server ends the one with fewer locks.
    for text in
        ["UNWIND range(1, 500) AS n CREATE (:Other)", "MATCH (n:Lead {id: 1}) SET n.held = true"]
    {
        client.run(neo4rs::query(text)).await.unwrap();
    }
    // Its second part has one node, and comes to want the one that the client has, who wants this one by then.
    let statement = "UNWIND [1, 2] AS n CALL (n) { CREATE (:Mark) WITH n WHERE n = 2 MATCH (b:Lead {id: 2}) SET b.x = 1 \
         WITH b UNWIND range(1, 30000000) AS r WITH b, count(r) AS c MATCH (a:Lead {id: 1}) SET a.x = c } IN TRANSACTIONS OF 1 ROW";
    let step = work("fill", Way::Forward);
    let client = async {
        while database.number("MATCH (m:Mark) RETURN count(m) AS it").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Then it has its second node, and waits for the first.
        let waits = "SHOW TRANSACTIONS YIELD currentQuery, status WHERE currentQuery CONTAINS '30000000' AND currentQuery STARTS WITH 'UNWIND' \
             AND status STARTS WITH 'Blocked' RETURN count(*) AS it";
        while database.number(waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.run(neo4rs::query("MATCH (n:Lead {id: 2}) SET n.held = true")).await.unwrap();
        client.roll_back().await;
    };
    let statements = [statement];
    let (failed, ()) = tokio::join!(execute(&neo4j, &fences[0], &step, &statements), client);
    let Err(Error::Failed(failure)) = failed else { panic!("{failed:?}") };
    assert_eq!(failure.class, FailureClass::Refused, "{failure:?}");
    assert!(failure.detail.unwrap().contains("stays"));
    assert_eq!(database.number("MATCH (m:Mark) RETURN count(m) AS it").await, 1);
}

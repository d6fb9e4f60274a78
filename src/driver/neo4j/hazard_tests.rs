//! Whether the server agrees with what is said of statements: what loses data on it is never called harmless.

use super::fixture::Database;
use crate::run::Hazard;
use crate::sql::{Dialect, classify};

/// What each node of Lead has, as one text.
const LEADS: &str = "MATCH (n:Lead) RETURN coalesce(toString(n.id), '-') + ' ' + coalesce(n.x, '-') + ' ' + coalesce(n.email, '-') AS it ORDER BY it";

/// Statements that lose something of a Lead wherever the server takes them.
const LOSING: [&str; 31] = [
    "MATCH (n:Lead) WHERE n.x IS :: STRING! DELETE n",
    "MATCH (n:Lead) WHERE n.x IS :: STRING! SET n = {}",
    "MATCH (n:Lead) WHERE n.x IS :: STRING! REMOVE n.x",
    "MATCH (n:Lead)\\u00a0DELETE\\u00a0n",
    "MATCH (n:Lead)\\u2003DELETE\\u2003n",
    "MATCH (n:Lead)\\u3000DETACH\\u3000DELETE n",
    "MATCH (caf\\u00e9:Lead) SET caf\\u00e9 = {id: 1}",
    "MATCH (`caf\\u00e9`:Lead) MERGE (:Once)-[:OF]->(caf\u{e9}) ON CREATE SET caf\u{e9} = {id: 1}",
    "MATCH (n:Lead) // x\rDETACH DELETE n\nRETURN 1",
    "MATCH (n:Lead)\u{b}DETACH\u{1c}DELETE\u{1f}n",
    "MATCH (n:Lead)\u{2028}SET n.x =\u{b}null",
    "MATCH (cafe\u{301}:Lead) SET cafe\u{301} = {id: 1}",
    "MATCH (a\u{20ac}:Lead) SET a\u{20ac} = {id: 1}",
    "MATCH (a\u{1}:Lead) SET a\u{1} = {id: 1}",
    "CREATE index = (:A) WITH 1 AS x MATCH (n:Lead) DETACH DELETE n",
    "CREATE constraint = (:A) WITH 1 AS x MATCH (n:Lead) DETACH DELETE n",
    "MATCH (n:Lead) SET n += {email: null}",
    "MATCH (n:Lead) SET n.email = (null)",
    "MATCH (n:Lead) SET n['email'] = null",
    "MATCH (n:Lead) SET n.email = CASE WHEN true THEN null END",
    "MATCH (n:Lead) SET n.email = CASE WHEN n.gone THEN 'x' END",
    "MATCH (n:Lead) SET n.email = n.nosuch",
    "MATCH (n:Lead) SET n.email = nullIf('a', 'a')",
    "MATCH (n:Lead) SET n.email = toInteger('a')",
    "MATCH (n:Lead) SET n.email = [1][1]",
    "MATCH (n:Lead) SET n.email = [x IN n.gone | x]",
    "MATCH (n:Lead), (create) SET create.email = n.gone",
    "MATCH (m:Lead) MERGE (x:Once {id: 1}) ON CREATE SET m = {id: 1}",
    "MATCH (m:Lead) MERGE (x:Once)-[:OF]->(m) ON CREATE SET m.email = m.gone",
    "WITH null AS case, true AS end MATCH (n:Lead) SET n.email = CASE WHEN case THEN 1 WHEN end THEN null ELSE 2 END",
    "MATCH (n:Lead) WITH n, null AS else SET n.email = CASE WHEN 1 = else + 1 THEN 'x' END",
];

/// Statements that the oldest servers or the newest may take.
const OF_OTHERS: [&str; 4] = [
    "SHOW TRANSACTIONS YIELD transactionId AS id MATCH (n:Lead) DETACH DELETE n",
    "MATCH (n:Lead) \u{180e}DELETE n",
    "MATCH (n:Lead)\u{85}SET\u{85}n = {}",
    "MATCH (a:Lead) CREATE (k:A) LET m = a SET m = {}",
];

/// Statements that lose nothing.
const KEEPING: [&str; 10] = [
    "MATCH (n:Lead) SET n.x = coalesce(n.gone, n.x), n.y = n.y + 1, n.z = datetime()",
    "MATCH (n:Lead) SET n.many = COUNT { (n)--() }, n.has = EXISTS { MATCH (n)-->(:A) }",
    "MATCH (n:Lead) SET n.score = CASE n.x WHEN 'p' THEN 1 WHEN null THEN (2) ELSE 3 END",
    "MATCH (n:Lead) SET n += {y: 1, `null`: 'a', z: n.z}",
    "MATCH (n:Lead) SET n += {}, n:Old, n IS Older",
    "MATCH (l:Lead) CREATE (k:LeadV2)-[r:OF]->(l) SET k = properties(l), r.x = l.gone",
    "MATCH (m:Lead) MERGE (x:Once {id: 1}) ON CREATE SET x = properties(m), x.gone = m.gone",
    "MATCH (n:!Old&!Older) RETURN n",
    "MATCH (cafe\u{301}:Lead) RETURN cafe\u{301}, '\u{200b}DELETE'",
    "MATCH (n:Lead) SET n.name = toUpper(trim(n.name)), n.at = date('2024-01-01') + duration('P1D')",
];

#[tokio::test]
async fn what_loses_data_is_never_called_harmless() {
    let Some(database) = Database::empty().await else { return };
    let hazard = |statement: &str| classify(Dialect::Cypher, statement).hazard;
    for statement in LOSING.into_iter().chain(OF_OTHERS).chain(KEEPING) {
        database.run("MATCH (n) DETACH DELETE n").await;
        database.run("CREATE (:Lead {id: 1, x: 'a', email: 'e'})").await;
        let is_taken = database.takes(statement).await;
        let keeps = database.texts(LEADS).await == ["1 a e"];
        if LOSING.contains(&statement) {
            assert!(is_taken && !keeps, "{statement:?} should lose something");
        }
        if KEEPING.contains(&statement) {
            assert!(is_taken && keeps, "{statement:?} should lose nothing");
        }
        assert_eq!(
            hazard(statement) == Hazard::None,
            KEEPING.contains(&statement),
            "{statement:?}"
        );
    }
}

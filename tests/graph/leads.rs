//! plans/lead-graph.yaml: a label and its relationships get a new shape while an application writes both.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use neo4rs::{Error, Graph, Query, query};

use super::bed::Bed;
use crate::sandbox::{Ran, wait_for};

const PLAN: &str = "plans/lead-graph.yaml";
const LONG: Duration = Duration::from_mins(1);

/// Every wait is cut to a second; who may decide is known by name.
const PROJECT: &str = "apiVersion: phasegate/v1
kind: Project
groups:
  application: [ann]
  dba: [dee]
environments:
  rehearsal:
    policy:
      longest_wait: 1s
";

fn example(chunks: &str) -> Option<Bed> {
    let plans = format!("{}/plans", env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(format!("{plans}/{name}")).unwrap();
    let bed = Bed::new("lead-graph", &read("lead-graph/before.cypher"))?;
    let plan = read("lead-graph.yaml");
    let small = plan.replace("      workers: 2\n", &format!("      workers: 2\n{chunks}"));
    let copy = "    backfill:\n      mapping: assignments\n";
    let small = small.replace(copy, &format!("{copy}{chunks}"));
    bed.sandbox.write(PLAN, &small);
    bed.sandbox.write("phasegate.yaml", PROJECT);
    Some(bed)
}

fn phasegate(bed: &Bed, args: &[&str]) -> Ran {
    let mut command = bed.command(args);
    command.args(["--env", "rehearsal"]).env("CRM_GRAPH_URL", &bed.url);
    command.output().unwrap().into()
}

fn approve(bed: &Bed) {
    let gates = phasegate(bed, &["gates", "lead-graph", "--format", "json"]).expect(4);
    let gates: serde_json::Value = serde_json::from_str(&gates.stdout).unwrap();
    let work = gates["gates"][0]["work"].as_str().unwrap();
    for name in ["ann", "dee"] {
        let gate = ["approve", "lead-graph", "ready-to-drop", "--as", name, "--digest", work];
        phasegate(bed, &gate).expect(0);
    }
}

/// How many rows differ, by statements that know nothing of the engine.
fn differences(bed: &Bed) -> [i64; 4] {
    [
        "MATCH (n:Lead) WHERE NOT EXISTS { MATCH (v:LeadV2 {id: n.id}) WHERE v.email = n.email AND v.status = toLower(n.status) \
         AND v.created_at = n.created_at AND v.updated_at = n.updated_at AND v.score = 0 AND size(keys(v)) = 6 }",
        "MATCH (n:LeadV2) WHERE NOT EXISTS { MATCH (:Lead {id: n.id}) }",
        "MATCH (l:Lead)-[r:ASSIGNED_TO]->(a:Agent) WITH l, a, count(r) AS old, sum(coalesce(r.weight, 0)) AS weights \
         OPTIONAL MATCH (:LeadV2 {id: l.id})-[v:ASSIGNED_TO]->(a) \
         WITH l, a, old, weights, count(v) AS new, sum(coalesce(v.weight, 0)) AS others WHERE old <> new OR weights <> others WITH 1 AS n",
        "MATCH (v:LeadV2)-[n:ASSIGNED_TO]->(a:Agent) WHERE NOT EXISTS { MATCH (:Lead {id: v.id})-[:ASSIGNED_TO]->(a) }",
    ]
    .map(|what| bed.number(what))
}

/// An application that writes both shapes, each time in one transaction and the old one first, until it is dropped.
struct Application {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<std::thread::JoinHandle<()>>,
}

impl Application {
    fn start(bed: &Bed, writers: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = (0..writers).map(|writer| {
            let (stop, done, url) = (Arc::clone(&stop), Arc::clone(&done), bed.url.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(write(&url, writer, &stop, &done));
            })
        });
        let writers = writers.collect();
        Self { stop, done, writers }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            writer.join().unwrap();
        }
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.drain(..).for_each(|writer| drop(writer.join()));
    }
}

async fn write(url: &str, writer: u64, stop: &AtomicBool, done: &AtomicU64) {
    let graph = Graph::new(url, "", "").unwrap();
    let mut dice = 88_172_645_463_325_252_u64 + writer;
    let mut throw = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        i64::try_from(dice % sides).unwrap()
    };
    while !stop.load(Ordering::Relaxed) {
        let id = match throw(4) {
            0 => 3_001 + throw(300),
            _ => 1 + throw(3_000),
        };
        let (agent, other, kind) = (1 + throw(20), 1 + throw(20), throw(10));
        let rolls_back = throw(8) == 0;
        for _ in 0..100 {
            match once(&graph, (id, agent, other), kind, rolls_back).await {
                Ok(()) => break,
                // Deadlocks are for whoever writes to try again; nothing else may happen.
                Err(Error::Neo4j(told)) if told.code().starts_with("Neo.TransientError") => {}
                Err(Error::Neo4j(told)) if told.code().ends_with("EntityNotFound") => {}
                Err(error) => panic!("{error}"),
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn once(
    graph: &Graph,
    (id, agent, other): (i64, i64, i64),
    kind: i64,
    rolls_back: bool,
) -> Result<(), Error> {
    // Of `SET l.status = l.status` the right side would be read before the lock is had.
    const LOCKED: &str = "MATCH (l:Lead {id: $id}) SET l.held = true REMOVE l.held";
    const STATUSES: [&str; 3] = ["OPEN", "Won", "LOST"];
    let status = STATUSES[usize::try_from(agent % 3).unwrap()];
    let statements: &[&str] = match kind {
        0..=4 => &[
            "MATCH (l:Lead {id: $id}) SET l.status = $status, l.updated_at = datetime()",
            "MATCH (l:Lead {id: $id}) MERGE (v:LeadV2 {id: $id}) SET v += properties(l), v.status = toLower(l.status), v.score = 0",
        ],
        5 => &[
            "MERGE (l:Lead {id: $id}) SET l.email = 'new' + $id, l.status = $status, l.created_at = datetime(), l.updated_at = datetime()",
            "MATCH (l:Lead {id: $id}) MERGE (v:LeadV2 {id: $id}) SET v += properties(l), v.status = toLower(l.status), v.score = 0",
        ],
        6 => &[
            "MATCH (l:Lead {id: $id}) DETACH DELETE l",
            "MATCH (v:LeadV2 {id: $id}) DETACH DELETE v",
        ],
        7 => &[
            LOCKED,
            "MATCH (l:Lead {id: $id})-[r:ASSIGNED_TO]->(:Agent {id: $agent}) DELETE r",
            "MATCH (v:LeadV2 {id: $id})-[r:ASSIGNED_TO]->(:Agent {id: $agent}) DELETE r",
        ],
        _ => &[
            LOCKED,
            "MATCH (l:Lead {id: $id}), (a:Agent {id: $other}) CREATE (l)-[:ASSIGNED_TO {weight: $agent}]->(a)",
            "MATCH (l:Lead {id: $id}), (v:LeadV2 {id: $id}), (a:Agent {id: $other}) CREATE (v)-[:ASSIGNED_TO {weight: $agent}]->(a)",
        ],
    };
    let with = |text: &str| -> Query {
        query(text)
            .param("id", id)
            .param("agent", agent)
            .param("other", other)
            .param("status", status)
    };
    let mut txn = graph.start_txn().await?;
    for statement in statements {
        if let Err(error) = txn.run(with(statement)).await {
            let _ = txn.rollback().await;
            return Err(error);
        }
    }
    if rolls_back { txn.rollback().await } else { txn.commit().await.map(|_| ()) }
}

#[test]
fn a_label_gets_a_new_shape_while_the_application_writes_both() {
    let Some(bed) = example("      chunk:\n        rows: 100\n") else { return };
    phasegate(&bed, &["validate", PLAN]).expect(0);
    let application = Application::start(&bed, 4);
    phasegate(&bed, &["run", PLAN]).expect(4);
    assert!(application.end() > 100);
    assert_eq!(differences(&bed), [0; 4]);
    approve(&bed);
    phasegate(&bed, &["run", PLAN, "--wait", "30s"]).expect(0);
    assert_eq!(bed.number("MATCH (n:Lead)"), 0);
    assert!(bed.number("MATCH (n:LeadV2)") > 2_000);
    assert!(bed.number("MATCH (:LeadV2)-[n:ASSIGNED_TO]->(:Agent)") > 2_000);
    let unique = "SHOW CONSTRAINTS YIELD labelsOrTypes, properties WHERE labelsOrTypes[0] = 'LeadV2' RETURN properties[0] AS it";
    assert_eq!(bed.texts(unique), ["id"], "what nodes are known by stays unique");
    assert_eq!(bed.ours(), ["phasegate_runs", "phasegate_runs_key"]);
    phasegate(&bed, &["history", "lead-graph", "--verify"]).expect(0);
}

#[test]
fn until_the_old_label_is_dropped_everything_can_be_taken_back() {
    let Some(bed) = example("") else { return };
    phasegate(&bed, &["run", PLAN]).expect(4);
    assert_eq!(differences(&bed), [0; 4]);
    let leads = bed.number("MATCH (n:Lead)");
    phasegate(&bed, &["rollback", "lead-graph", "--yes"]).expect(0);
    assert_eq!((bed.number("MATCH (n:Lead)"), bed.number("MATCH (n:LeadV2)")), (leads, 0));
    assert_eq!(bed.schema(), ["agent_id", "lead_id"]);
    assert_eq!(bed.ours(), ["phasegate_runs", "phasegate_runs_key"]);
    phasegate(&bed, &["run", PLAN, "--new"]).expect(4);
    assert_eq!(differences(&bed), [0; 4]);
    // What the new side alone has is not taken away without a word.
    bed.cypher("CREATE (:LeadV2 {id: 9999})");
    let refused = phasegate(&bed, &["rollback", "lead-graph", "--yes"]).expect(9);
    assert!(format!("{refused}").contains("--accept-loss leads"), "{refused}");
    assert!(format!("{refused}").contains("undoing would lose them; its key: 9999"), "{refused}");
    phasegate(&bed, &["rollback", "lead-graph", "--yes", "--accept-loss", "leads"]).expect(0);
    assert_eq!(bed.number("MATCH (n:LeadV2)"), 0);
    // Nor is it lost among thousands of nodes that are still to be copied.
    phasegate(&bed, &["run", PLAN, "--new", "--to", "sync-leads"]).expect(0);
    bed.cypher("CREATE (:LeadV2 {id: 9999})");
    let refused = phasegate(&bed, &["rollback", "lead-graph", "--yes"]).expect(9);
    assert!(format!("{refused}").contains("1 row on the new side of leads"), "{refused}");
    assert!(format!("{refused}").contains("its key: 9999"), "{refused}");
}

#[test]
fn an_application_that_does_not_write_both_is_noticed_before_a_row_is_copied() {
    let Some(bed) = example("") else { return };
    bed.cypher("MATCH (l:Lead {id: 7}) SET l.updated_at = datetime() - duration('PT10S')");
    let refused = phasegate(&bed, &["run", PLAN]).expect(1);
    assert!(refused.stderr.contains("its probe gave 1, expected 0"), "{refused}");
    assert_eq!(bed.number("MATCH (n:LeadV2)"), 0);
    bed.cypher("MATCH (l:Lead {id: 7}) CREATE (v:LeadV2) SET v = properties(l), v.status = toLower(l.status), v.score = 0");
    phasegate(&bed, &["retry", "lead-graph"]).expect(4);
    assert_eq!(differences(&bed), [0; 4]);
}

/// A throttle's query is asked of the graph, where the copy writes.
#[test]
fn a_copy_is_held_while_a_query_of_the_graph_says_so() {
    let Some(bed) = example(
        "      throttle:\n        - name: brake\n          every: 100ms\n          cypher: MATCH (b:Brake) RETURN count(b)\n          max: 1\n",
    ) else {
        return;
    };
    bed.cypher("CREATE (:Brake)");
    let mut copying = bed.command(&["run", PLAN, "--env", "rehearsal"]);
    copying.env("CRM_GRAPH_URL", &bed.url).stdout(Stdio::piped()).stderr(Stdio::piped());
    let copying = copying.spawn().unwrap();
    let held = || {
        let told = phasegate(&bed, &["status", "lead-graph", "--format", "json"]);
        if told.code != Some(0) {
            return String::new();
        }
        let steps = told.json()["steps"].as_array().unwrap().clone();
        let copy = steps.iter().find(|step| step["id"] == "copy-leads").unwrap();
        copy["throttled"].to_string()
    };
    assert!(wait_for(LONG, || held().contains("1 >= 1")), "{}", held());
    assert_eq!(bed.number("MATCH (n:LeadV2)"), 0);
    bed.cypher("MATCH (b:Brake) DELETE b");
    Ran::from(copying.wait_with_output().unwrap()).expect(4);
    assert_eq!(differences(&bed), [0; 4]);
}

#[test]
fn a_run_that_dies_in_the_copy_or_the_removal_goes_on() {
    let Some(bed) = example("      chunk:\n        rows: 1000\n") else { return };
    let before: Vec<String> = std::fs::read_to_string(format!(
        "{}/plans/lead-graph/before.cypher",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
    .split(';')
    .filter(|one| !one.trim().is_empty())
    .map(str::to_owned)
    .collect();
    for (kind, places) in [
        ("install", &["before"][..]),
        ("plan", &["after"]),
        ("chunk", &["before", "after"]),
        ("finish", &["after"]),
        ("drop", &["before", "after"]),
    ] {
        for place in places {
            for statement in ["MATCH (n:Lead|LeadV2|Agent) DETACH DELETE n"]
                .into_iter()
                .chain(before.iter().map(String::as_str))
            {
                bed.cypher(statement);
            }
            let _ = std::fs::remove_dir_all(bed.sandbox.path(".phasegate"));
            let die = format!("neo4j::{place}-commit::{kind}=1*off->1*return->off");
            let run = |args: &[&str]| -> Ran {
                let mut command = bed.command(args);
                command.args(["--env", "rehearsal"]).env("CRM_GRAPH_URL", &bed.url);
                command.env("FAILPOINTS", &die).output().unwrap().into()
            };
            let first = run(&["run", PLAN]);
            let what = format!("{place} {kind}: {first}");
            if kind == "drop" {
                assert_eq!(first.code, Some(4), "{what}");
                approve(&bed);
                let died = run(&["run", PLAN, "--wait", "30s"]);
                assert_eq!(died.code, None, "{died}");
            } else {
                assert_eq!(first.code, None, "{what}");
                phasegate(&bed, &["run", PLAN]).expect(4);
                assert_eq!(differences(&bed), [0; 4], "{what}");
                approve(&bed);
            }
            let ended = phasegate(&bed, &["run", PLAN, "--wait", "30s"]).expect(0);
            assert_eq!(bed.number("MATCH (n:Lead)"), 0, "{what} {ended}");
            assert_eq!(bed.number("MATCH (n:LeadV2)"), 3_000, "{what}");
            assert_eq!(bed.number("MATCH (:LeadV2)-[n:ASSIGNED_TO]->(:Agent)"), 3_031, "{what}");
            assert_eq!(bed.ours(), ["phasegate_runs", "phasegate_runs_key"], "{what}");
            let told = phasegate(&bed, &["status", "lead-graph", "--format", "json"]).expect(0);
            let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
            let rows = |id: &str| {
                let steps = told["steps"].as_array().unwrap();
                let step = steps.iter().find(|step| step["id"] == id).unwrap();
                step["rows_done"].as_u64().unwrap()
            };
            assert_eq!((rows("copy-leads"), rows("drop-leads")), (3_000, 3_000), "{what}");
        }
    }
}

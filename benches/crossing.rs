//! What carrying rows from PostgreSQL into Neo4j costs, beside a bare loop of `UNWIND … MERGE` in batches of 5,000 rows through the same
//! driver: one that reads each batch from PostgreSQL before it writes it, and one that has all rows in memory.
//!
//! Ours is whole commands, as an operator gives them: `run` with its journal, ledger, chunks and checks; each step's time is that of
//! its journal. All of it is done once with fewer rows before anything counts: the server compiles what it runs often. How fast a
//! comparison reads PostgreSQL is measured by itself, with the same statements and nothing of the graph's. The backlog is what clients have written while no relay was at work; `relay` drains it. The lag is what `status` says
//! while a client writes at half of the rate that the backlog was drained with.
//!
//! `PHASEGATE_TEST_POSTGRES=… PHASEGATE_TEST_NEO4J=… cargo bench --bench crossing` (a superuser's URL, and a Neo4j whose nodes are
//! removed); `PHASEGATE_BENCH_ROWS` (200000) and `PHASEGATE_BENCH_EDGES` (as many) change it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use neo4rs::{BoltMap, BoltType, Graph, query};
use phasegate::copy::chunk::Chunk;
use phasegate::driver::crossing::Rows as Pick;
use phasegate::driver::{self, Access};
use phasegate::plan::{self, DEFAULT_ENVIRONMENT};
use phasegate::run::{Engine, EnvironmentName, Mapping, MappingName};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

const PLAN: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata: { name: crossing }
targets:
  app: { engine: postgres, url: "${env:APP_URL}" }
  graph: { engine: neo4j, url: "${env:GRAPH_URL}" }
mappings:
  people:
    from: { target: app, table: people, key: [id] }
    into: { target: graph, node: Person, key: { id: id }, properties: { mail: lower(mail), name: name, since: since } }
    copy: listed
  knows:
    from: { target: app, table: knows, key: [one, other] }
    into:
      target: graph
      relationship: KNOWS
      start: { node: Person, key: { id: one } }
      end: { node: Person, key: { id: other } }
      properties: { weight: weight }
    copy: listed
steps:
  - { id: sync-people, phase: dual-write, dual_write: { mapping: people, direction: forward } }
  - { id: sync-knows, phase: dual-write, dual_write: { mapping: knows, direction: forward } }
  - { id: copy-people, phase: backfill, backfill: { mapping: people } }
  - { id: copy-knows, phase: backfill, backfill: { mapping: knows } }
  - { id: compare-people, phase: verify, verify: { mapping: people } }
  - { id: compare-knows, phase: verify, verify: { mapping: knows } }
  - { id: stop-knows, phase: contract, stop_dual_write: { mapping: knows } }
  - { id: stop-people, phase: contract, stop_dual_write: { mapping: people } }
"#;

/// How many rows the server has before anything counts, at most.
const WARM_UP: u64 = 100_000;

/// How many rows are read at once where only reading is measured.
const PAGE: u32 = 10_000;

/// Where the bare loop has its rows from.
#[derive(Clone, Copy)]
enum Rows {
    Read,
    InMemory,
}

/// A table as the bare loop reads and writes it: 5,000 rows behind a key.
struct Table {
    read: &'static str,
    merge: &'static str,
    row: fn(&PgRow) -> BoltType,
}

const PEOPLE: Table = Table {
    read: "SELECT id, mail, name, since FROM (
             SELECT id, lower(mail) AS mail, name, extract(epoch FROM since)::bigint AS since FROM people
             WHERE id > $1 AND $2::bigint IS NOT NULL ORDER BY id LIMIT 5000) AS batch",
    merge: "UNWIND $rows AS r MERGE (n:Person {id: r.id}) SET n += r.p",
    row: |row| {
        let mut properties = BoltMap::default();
        for name in ["mail", "name"] {
            properties.put(name.into(), row.get::<String, _>(name).into());
        }
        let since = chrono::DateTime::from_timestamp(row.get("since"), 0).unwrap().fixed_offset();
        properties.put("since".into(), since.into());
        let mut map = BoltMap::default();
        map.put("id".into(), row.get::<i64, _>("id").into());
        map.put("p".into(), BoltType::Map(properties));
        BoltType::Map(map)
    },
};

const KNOWS: Table = Table {
    read: "SELECT one, other, weight::bigint AS weight FROM knows WHERE (one, other) > ($1, $2) ORDER BY one, other LIMIT 5000",
    merge: "UNWIND $rows AS r MATCH (a:Person {id: r.one}) MATCH (b:Person {id: r.other}) \
            MERGE (a)-[k:KNOWS]->(b) SET k.weight = r.weight",
    row: |row| {
        let mut map = BoltMap::default();
        for name in ["one", "other", "weight"] {
            map.put(name.into(), row.get::<i64, _>(name).into());
        }
        BoltType::Map(map)
    },
};

struct Bench {
    folder: tempfile::TempDir,
    app: String,
    graph_url: String,
    graph: Graph,
    sql: PgConnection,
}

/// How often everything is measured; what is printed is the median, of ratios that of the rounds' ratios: servers clean up and
/// compile when they please.
const ROUNDS: usize = 3;

/// What a round has measured, by name.
type Figures = BTreeMap<&'static str, f64>;

#[tokio::main]
async fn main() {
    let rows = setting("PHASEGATE_BENCH_ROWS", 200_000);
    let edges = setting("PHASEGATE_BENCH_EDGES", rows);
    Bench::new(rows.min(WARM_UP), edges.min(WARM_UP)).await.warm_up().await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(Bench::new(rows, edges).await.round(rows, edges).await);
    }
    println!("{rows} nodes, {edges} relationships, medians of {ROUNDS} rounds");
    let of = |figure: &dyn Fn(&Figures) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let median = |name: &str| of(&|round| round[name]);
    let ratio = |one: &str, other: &str| of(&|round| round[one] / round[other]);
    for [what, ours, bare, in_memory] in [
        ["nodes", "copied people", "people read", "people in memory"],
        ["relationships", "copied knows", "knows read", "knows in memory"],
    ] {
        println!(
            "{what}: bare {:.0}/s, ours {:.0}/s; ratio ours/bare {:.2} (wanted 0.90); bare with rows in memory {:.0}/s, ratio {:.2}",
            median(bare),
            median(ours),
            ratio(ours, bare),
            median(in_memory),
            ratio(ours, in_memory)
        );
    }
    for compared in ["compare-people", "compare-knows"] {
        println!("{compared}: {:.0} rows/s", median(compared));
    }
    for [mapping, read] in [["people", "read of people"], ["knows", "read of knows"]] {
        println!("{mapping}: read from PostgreSQL at {:.0} rows/s (wanted 100000)", median(read));
    }
    println!(
        "backlog of {:.0}: drained at {:.0}/s; ratio to our copy {:.2} (wanted 0.50), to bare nodes {:.2}",
        median("backlog"),
        median("drained"),
        ratio("drained", "copied people"),
        ratio("drained", "people read")
    );
    println!(
        "lag while a client writes {:.0} rows/s: median {:.0} ms, longest {:.0} ms",
        median("written"),
        median("lag"),
        rounds.iter().map(|round| round["longest lag"]).fold(0.0, f64::max)
    );
}

/// A mapping of the plan.
fn compiled(name: &str) -> Mapping {
    let path = std::path::Path::new("plan.yaml");
    let environment = EnvironmentName::new(DEFAULT_ENVIRONMENT);
    let loaded = plan::parse(path, PLAN.into(), None, &environment);
    let loaded = loaded.unwrap_or_else(|findings| panic!("{findings}"));
    loaded.pin.program.mappings()[&MappingName::new(name)].clone()
}

#[allow(clippy::cast_precision_loss)]
fn rate(rows: u64, seconds: f64) -> f64 {
    rows as f64 / seconds
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// A process that ends with this.
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bench {
    async fn new(rows: u64, edges: u64) -> Self {
        let server = std::env::var("PHASEGATE_TEST_POSTGRES").expect("a superuser's URL");
        let graph_url = std::env::var("PHASEGATE_TEST_NEO4J").expect("bolt://…");
        let mut admin = PgConnection::connect(&server).await.unwrap();
        let drop = "DROP DATABASE IF EXISTS bench_crossing WITH (FORCE)";
        sqlx::raw_sql(drop).execute(&mut admin).await.unwrap();
        sqlx::raw_sql("CREATE DATABASE bench_crossing").execute(&mut admin).await.unwrap();
        let mut url = url::Url::parse(&server).unwrap();
        url.set_path("bench_crossing");
        let mut sql = PgConnection::connect(url.as_str()).await.unwrap();
        let script = format!(
            "CREATE TABLE people (id bigint PRIMARY KEY, mail text, name text, since timestamptz);
             INSERT INTO people SELECT n, 'Mail' || n || '@Example.com', 'Person ' || n, timestamptz '2025-01-01' + n * interval '1 s'
               FROM generate_series(1, {rows}) AS n;
             CREATE TABLE knows (one bigint, other bigint, weight int, PRIMARY KEY (one, other));
             INSERT INTO knows SELECT 1 + n % {rows}, 1 + (n::bigint * 7919) % {rows}, n % 10 FROM generate_series(1, {edges}) AS n
               ON CONFLICT DO NOTHING;
             VACUUM ANALYZE people; VACUUM ANALYZE knows"
        );
        for statement in script.split(';') {
            sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut sql).await.unwrap();
        }
        let graph = Graph::new(graph_url.as_str(), "", "").unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plan.yaml"), PLAN).unwrap();
        let bench = Self { folder, app: url.to_string(), graph_url, graph, sql };
        bench.clear().await;
        bench
    }

    /// Nothing is left in the graph.
    async fn clear(&self) {
        loop {
            let delete =
                query("MATCH (n) WITH n LIMIT 20000 DETACH DELETE n RETURN count(*) AS gone");
            let mut rows = self.graph.execute(delete).await.unwrap();
            let gone: i64 = rows.next().await.unwrap().unwrap().get("gone").unwrap();
            if gone == 0 {
                break;
            }
        }
        let mut rows = self.graph.execute(query("SHOW CONSTRAINTS YIELD name")).await.unwrap();
        while let Some(row) = rows.next().await.unwrap() {
            let name: String = row.get("name").unwrap();
            self.graph.run(query(&format!("DROP CONSTRAINT {name}"))).await.unwrap();
        }
    }

    /// The bare loop. Returns seconds.
    async fn bare(&mut self, table: &Table, from: Rows) -> f64 {
        let unique =
            "CREATE CONSTRAINT bare_person IF NOT EXISTS FOR (n:Person) REQUIRE n.id IS UNIQUE";
        self.graph.run(query(unique)).await.unwrap();
        self.graph.run(query("CALL db.awaitIndexes()")).await.unwrap();
        let (mut last, mut batches, mut waited) = ((-1_i64, -1_i64), Vec::new(), Duration::ZERO);
        let began = Instant::now();
        loop {
            let read = sqlx::query(table.read).bind(last.0).bind(last.1).fetch_all(&mut self.sql);
            let read = read.await.unwrap();
            let Some(row) = read.last() else { break };
            last = (row.get(0), row.try_get(1).unwrap_or(-1));
            let batch: Vec<BoltType> = read.iter().map(table.row).collect();
            match from {
                Rows::Read => self.write_batch(table.merge, batch).await,
                Rows::InMemory => batches.push(batch),
            }
        }
        if matches!(from, Rows::InMemory) {
            waited = began.elapsed();
        }
        for batch in batches {
            self.write_batch(table.merge, batch).await;
        }
        began.elapsed().saturating_sub(waited).as_secs_f64()
    }

    async fn write_batch(&self, merge: &str, batch: Vec<BoltType>) {
        let mut txn = self.graph.start_txn().await.unwrap();
        txn.run(query(merge).param("rows", batch)).await.unwrap();
        txn.commit().await.unwrap();
    }

    /// Everything once, with what it leaves removed.
    async fn warm_up(mut self) {
        for table in [&PEOPLE, &KNOWS] {
            self.bare(table, Rows::Read).await;
        }
        self.clear().await;
        self.run("compare-knows");
        self.write("UPDATE people SET name = name || '+'").await;
        self.run("contract");
        self.clear().await;
    }

    /// Measures everything once, and leaves nothing.
    async fn round(mut self, rows: u64, edges: u64) -> Figures {
        let mut figures = Figures::new();
        for (from, [people, knows]) in [
            (Rows::Read, ["people read", "knows read"]),
            (Rows::InMemory, ["people in memory", "knows in memory"]),
        ] {
            figures.insert(people, rate(rows, self.bare(&PEOPLE, from).await));
            figures.insert(knows, rate(edges, self.bare(&KNOWS, from).await));
            self.clear().await;
        }
        for (step, name, of) in [
            ("copy-people", "copied people", rows),
            ("copy-knows", "copied knows", edges),
            ("compare-people", "compare-people", rows),
            ("compare-knows", "compare-knows", edges),
        ] {
            self.run(step);
            figures.insert(name, rate(of, self.took(step)));
        }
        for (mapping, name) in [("people", "read of people"), ("knows", "read of knows")] {
            figures.insert(name, self.read(mapping).await);
        }
        let relay = self.backlog(&mut figures).await;
        self.lag(&mut figures, rows).await;
        drop(relay);
        self.run("contract");
        self.clear().await;
        figures
    }

    /// What clients have written while no relay was at work is drained by one, which goes on.
    #[allow(clippy::cast_precision_loss)]
    async fn backlog(&mut self, figures: &mut Figures) -> Relay {
        self.write("UPDATE people SET name = name || '+'").await;
        let backlog = self.waiting().await;
        let began = Instant::now();
        let relay = self.relay();
        // Not often: to look is work for the same server.
        while self.is_waiting().await {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        figures.insert("backlog", backlog as f64);
        figures.insert("drained", rate(backlog, began.elapsed().as_secs_f64()));
        relay
    }

    /// How far the graph is behind a client who writes at half the rate that the relay has drained with.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    async fn lag(&mut self, figures: &mut Figures, rows: u64) {
        let per_tick = u64::max(1, (figures["drained"] / 2.0 / 20.0) as u64);
        let (mut lags, mut at) = (Vec::new(), 0);
        for tick in 0..200 {
            let next = Instant::now() + Duration::from_millis(50);
            let lo = at % (rows - per_tick);
            at += per_tick;
            self.write(&format!(
                "UPDATE people SET name = 'at {tick}' WHERE id > {lo} AND id <= {lo} + {per_tick}"
            ))
            .await;
            if tick % 10 == 9 {
                lags.push(self.oldest_ms().await);
            }
            tokio::time::sleep_until(next.into()).await;
        }
        lags.sort_by(f64::total_cmp);
        figures.insert("written", per_tick as f64 * 20.0);
        figures.insert("lag", lags[lags.len() / 2]);
        figures.insert("longest lag", lags[lags.len() - 1]);
    }

    /// How many rows a second of a mapping can be read to be compared.
    async fn read(&self, mapping: &str) -> f64 {
        let mapping = compiled(mapping);
        let url = self.app.clone().into();
        let app = driver::open(Engine::Postgres, &url, None, Access::ReadOnly).await.unwrap();
        let source = app.change_source().unwrap();
        let (mut count, began) = (0, Instant::now());
        let end = source.last_key(&mapping).await.unwrap();
        let mut lo = None;
        while lo != end {
            let range = Chunk { lo: lo.clone(), hi: end.clone() };
            let mut ends = source.bounds(&mapping, &range, (PAGE, 16)).await.unwrap();
            if ends.len() < 16 && ends.last() != end.as_ref() {
                ends.extend(end.clone());
            }
            for hi in ends {
                let chunk = Chunk { lo: lo.replace(hi.clone()), hi: Some(hi) };
                let page = source.page(&mapping, (&chunk, Pick::All)).await.unwrap();
                count += page.rows.len() as u64;
            }
        }
        rate(count, began.elapsed().as_secs_f64())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phasegate"));
        command.args(args).current_dir(self.folder.path());
        command.env("APP_URL", &self.app).env("GRAPH_URL", &self.graph_url);
        command
    }

    fn run(&self, to: &str) {
        let ran = self.command(&["run", "plan.yaml", "--to", to]).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    fn relay(&self) -> Relay {
        let mut command = self.command(&["relay", "crossing"]);
        Relay(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn step(&self, id: &str) -> Value {
        let told = self.command(&["status", "crossing", "--format", "json"]).output().unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        let steps = told["steps"].as_array().unwrap();
        steps.iter().find(|step| step["id"] == id).unwrap().clone()
    }

    /// How long a step took, in seconds.
    fn took(&self, id: &str) -> f64 {
        let step = self.step(id);
        let at = |name: &str| {
            chrono::DateTime::parse_from_rfc3339(step[name].as_str().unwrap()).unwrap()
        };
        let took = at("ended_at") - at("started_at");
        took.to_std().unwrap().as_secs_f64()
    }

    async fn write(&mut self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut self.sql).await.unwrap();
    }

    async fn waiting(&mut self) -> u64 {
        let row =
            sqlx::query("SELECT count(*) FROM phasegate.outbox").fetch_one(&mut self.sql).await;
        u64::try_from(row.unwrap().get::<i64, _>(0)).unwrap()
    }

    async fn is_waiting(&mut self) -> bool {
        let ask = "SELECT EXISTS (SELECT 1 FROM phasegate.outbox)";
        sqlx::query(ask).fetch_one(&mut self.sql).await.unwrap().get(0)
    }

    async fn oldest_ms(&mut self) -> f64 {
        let ask = "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(written_at)) * 1000, 0)::float8 FROM phasegate.outbox";
        sqlx::query(ask).fetch_one(&mut self.sql).await.unwrap().get(0)
    }
}

//! A database, a graph and a plan between them; what both have, read by statements that know nothing of the engine; and an
//! application that writes to the database all the time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _};

use crate::examples::database::{Database, block_on, connect};
use crate::failures::signal;
use crate::graph::bed::Bed as Graph;
use crate::sandbox::{Ran, wait_for};
use crate::services;

pub const PLAN: &str = "plans/social-graph.yaml";

/// How plans begin that are not the example: with its name and its databases.
const HEAD: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata:
  name: social-graph
targets:
  app:
    engine: postgres
    url: "${env:APP_DATABASE_URL}"
  graph:
    engine: neo4j
    url: "${env:SOCIAL_GRAPH_URL}"
"#;

/// Everything that a table has, until the capture ends: a mapping of it, and steps.
pub const NOTES: [&str; 2] = [
    "mappings:
  notes:
    from: { target: app, table: notes, key: [id] }
    into: { target: graph, node: Note, key: { id: id } }
    copy: all
",
    "  - id: sync
    phase: dual-write
    dual_write: { mapping: notes, direction: forward }
  - id: copy
    phase: backfill
    backfill:
      mapping: notes
  - id: compare
    phase: verify
    verify: { mapping: notes }
  - id: stop
    phase: contract
    stop_dual_write: { mapping: notes }
",
];

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

/// How long whatever is waited for may take.
pub const LONG: Duration = Duration::from_secs(90);

/// Between two transactions of a writer.
const REST: Duration = Duration::from_millis(30);

pub struct Bed {
    pub database: Database,
    pub graph: Graph,
    /// Where the graph is reached by the engine.
    graph_url: String,
}

impl Bed {
    /// The example with both databases as it begins with them.
    pub fn example() -> Option<Self> {
        let plans = format!("{}/plans", env!("CARGO_MANIFEST_DIR"));
        let read = |name: &str| std::fs::read_to_string(format!("{plans}/{name}")).unwrap();
        let bed = Self::new("social-graph", &read("social-graph/before.sql"))?;
        bed.graph.sandbox.write(PLAN, &read("social-graph.yaml"));
        Some(bed)
    }

    /// Databases with nothing but what a script makes.
    pub fn new(test: &str, script: &str) -> Option<Self> {
        Self::on(test, &services::postgres(test)?, script)
    }

    /// The same on a server of the test's own.
    pub fn on(test: &str, server: &str, script: &str) -> Option<Self> {
        let graph = Graph::new(test, "")?;
        let database = Database::on(server, script);
        graph.sandbox.write("phasegate.yaml", PROJECT);
        let graph_url = graph.url.clone();
        Some(Self { database, graph, graph_url })
    }

    /// Another plan than the example, but for its name and its databases.
    pub fn plan(&self, rest: &str) {
        self.graph.sandbox.write("plan.yaml", &format!("{HEAD}{rest}"));
    }

    /// The graph is reached through something else.
    pub fn reached_at(mut self, url: String) -> Self {
        self.graph_url = url;
        self
    }

    /// Small chunks, so that there are many.
    pub fn with_chunks(self, rows: u32) -> Self {
        let path = self.graph.sandbox.path(PLAN);
        let plan = std::fs::read_to_string(path).unwrap();
        let chunk = format!("      chunk:\n        rows: {rows}\n");
        let small = ["users", "follows"].iter().fold(plan, |plan, mapping| {
            let copy = format!("    backfill:\n      mapping: {mapping}\n");
            plan.replace(&copy, &format!("{copy}{chunk}"))
        });
        self.graph.sandbox.write(PLAN, &small);
        self
    }

    /// Has the plan try a step so often.
    pub fn tries(&self, step: &str, attempts: u32) {
        let plan = std::fs::read_to_string(self.graph.sandbox.path(PLAN)).unwrap();
        let id = format!("  - id: {step}\n");
        assert!(plan.contains(&id));
        let so_often = format!("{id}    retry:\n      attempts: {attempts}\n");
        self.graph.sandbox.write(PLAN, &plan.replace(&id, &so_often));
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.graph.sandbox.command(args);
        command.args(["--env", "rehearsal"]);
        command.env("APP_DATABASE_URL", &self.database.url);
        command.env("SOCIAL_GRAPH_URL", &self.graph_url);
        command
    }

    pub fn phasegate(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// The graph is reached through something else, for once.
    pub fn phasegate_at(&self, graph_url: &str, args: &[&str]) -> Ran {
        self.command(args).env("SOCIAL_GRAPH_URL", graph_url).output().unwrap().into()
    }

    /// Runs with fail points.
    pub fn with_point(&self, args: &[&str], point: &str) -> Ran {
        self.command(args).env("FAILPOINTS", point).output().unwrap().into()
    }

    pub fn start(&self, args: &[&str], point: &str) -> Child {
        let mut command = self.command(args);
        command.env("FAILPOINTS", point).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// A process of its own that only carries changes.
    pub fn relay(&self) -> Relay {
        Relay(self.start(&["relay", "social-graph"], ""))
    }

    /// Stops that process for a while. Its lease is made to last longer, so that nobody takes over meanwhile.
    pub fn holds(&self, relay: &Relay) {
        signal(relay.0.id(), "STOP");
        let store = ".phasegate/state.db";
        self.graph.sandbox.sql(
            store,
            "UPDATE leases SET expires_ms = expires_ms + 30000 WHERE run LIKE '%/relay/%'",
        );
    }

    pub fn status(&self) -> Value {
        self.phasegate(&["status", "social-graph", "--format", "json"]).expect(0).json()
    }

    /// What status says of a mapping's changes.
    pub fn carried(&self, mapping: &str) -> Value {
        let status = self.status();
        let relays = status["relays"].as_array().unwrap();
        relays.iter().find(|one| one["mapping"] == mapping).cloned().unwrap_or_default()
    }

    /// Waits until nothing waits.
    #[track_caller]
    pub fn is_synced(&self) {
        let mut last = Value::Null;
        let synced = wait_for(LONG, || {
            last = self.status()["relays"].clone();
            last.as_array().unwrap().iter().all(|one| one["sync_status"] == "synced")
        });
        assert!(synced, "changes wait for ever: {last}");
    }

    /// The rows of the old side, each in the shape of the new one, and those of the new side: as they should be the same.
    pub fn sides(&self) -> [Vec<String>; 2] {
        let mut old = self.database.rows(
            "SELECT concat_ws('|', id, lower(handle), name, coalesce(bio, '-'), balance::text,
               (extract(epoch FROM joined_at) * 1000000)::bigint, 5 + (bio IS NOT NULL)::int) FROM users
             UNION ALL SELECT concat(follower_id, '>', followee_id, '@', since, '/1') FROM relations WHERE kind = 'follow'",
        );
        let mut new = self.graph.texts(
            "MATCH (u:User) RETURN u.id + '|' + coalesce(u.handle, '?') + '|' + coalesce(u.name, '?') + '|' + coalesce(u.bio, '-') + '|' + coalesce(u.balance, '?') + '|' + \
             coalesce(u.joined_at.epochSeconds * 1000000 + u.joined_at.microsecond, '?') + '|' + size(keys(u)) AS it \
             UNION ALL MATCH (a:User)-[r:FOLLOWS]->(b:User) RETURN a.id + '>' + b.id + '@' + toString(r.since) + '/' + size(keys(r)) AS it",
        );
        old.sort();
        new.sort();
        [old, new]
    }

    #[track_caller]
    pub fn are_same(&self, what: &str) {
        let [old, new] = self.sides();
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|row| other.binary_search(row).is_err()).take(5).cloned().collect()
        };
        let (missing, extra) = (only(&old, &new), only(&new, &old));
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{what}: missing {missing:?}, extra {extra:?}"
        );
        assert_eq!(old.len(), new.len(), "{what}: some are there twice");
    }

    /// Nothing of ours is left on either side but each run's one row.
    #[track_caller]
    pub fn nothing_is_left(&self, what: &str) {
        assert_eq!(self.graph.ours(), ["phasegate_runs", "phasegate_runs_key"], "{what}");
        assert_eq!(self.database.ours(), ["phasegate.runs"], "{what}");
    }

    /// The application says that it writes the graph, and somebody approves.
    pub fn released(&self) {
        self.database.run("UPDATE instances SET writes_graph = true, seen_at = now()");
        let gates = self.phasegate(&["gates", "social-graph", "--format", "json"]);
        let work = gates.json()["gates"][0]["work"].as_str().unwrap().to_owned();
        let gate = [
            "approve",
            "social-graph",
            "application-writes-the-graph",
            "--as",
            "ann",
            "--digest",
            &work,
        ];
        self.phasegate(&gate).expect(0);
    }
}

/// A process that carries changes, which ends with this.
pub struct Relay(pub Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process says, as it comes.
pub fn heard(relay: &mut Relay) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let (kept, lines) = (Arc::clone(&said), BufReader::new(relay.0.stderr.take().unwrap()).lines());
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            *kept.lock().unwrap() += &(line + "\n");
        }
    });
    said
}

#[track_caller]
pub fn wait_to_hear(said: &Mutex<String>, part: &str) {
    let is_said = wait_for(LONG, || said.lock().unwrap().contains(part));
    assert!(is_said, "{part}: {}", said.lock().unwrap());
}

/// An application that writes users and relations, until it is dropped: new rows, updates, deletes, keys that change, upserts, rows that
/// leave the mapping's filter and come back, and much of it rolled back; half of it under REPEATABLE READ.
pub struct Application {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<JoinHandle<()>>,
}

impl Application {
    pub fn start(bed: &Bed, writers: u64) -> Self {
        Self::among(bed, writers, 3_300)
    }

    /// So many writers, which write users up to a number.
    pub fn among(bed: &Bed, writers: u64, users: u64) -> Self {
        bed.database.run("CREATE SEQUENCE IF NOT EXISTS revisions");
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = (0..writers).map(|writer| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let url = bed.database.url.clone();
            std::thread::spawn(move || block_on(write(&url, (writer, users), &stop, &done)))
        });
        let writers = writers.collect();
        Self { stop, done, writers }
    }

    pub fn end(mut self) -> u64 {
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

async fn write(url: &str, (writer, users): (u64, u64), stop: &AtomicBool, done: &AtomicU64) {
    let mut conn = connect(url).await.unwrap();
    let mut dice = 88_172_645_463_325_252_u64 + writer * 7_919;
    let mut throw = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % sides
    };
    while !stop.load(Ordering::Relaxed) {
        let (hot, a, b) = (1 + throw(20), 1 + throw(users), 1 + throw(users));
        let (kind, level, end) = (throw(12), throw(2), throw(6));
        let statement = match kind {
            0 | 1 => format!("UPDATE users SET name = 'r' || nextval('revisions'), bio = nullif('about ' || {b} % 3, 'about 0') WHERE id = {a}"),
            2 => format!("UPDATE users SET name = 'r' || nextval('revisions') WHERE id = {hot}"),
            3 => format!("UPDATE users SET balance = balance + 0.01, joined_at = clock_timestamp() WHERE id BETWEEN {a} AND {a} + 4"),
            4 => format!("INSERT INTO users (id, handle, name, email) VALUES ({a}, 'New{a}', 'r' || nextval('revisions'), 'x')
                          ON CONFLICT (id) DO UPDATE SET bio = 'again', name = 'r' || nextval('revisions')"),
            5 => format!("DELETE FROM users WHERE id = {a}"),
            6 => format!("DELETE FROM relations WHERE follower_id = {a}"),
            7 => format!("UPDATE relations SET kind = CASE kind WHEN 'follow' THEN 'mute' ELSE 'follow' END WHERE followee_id = {a}"),
            8 => format!("UPDATE relations SET followee_id = {b} WHERE follower_id = {a} AND followee_id = (SELECT max(followee_id) FROM relations WHERE follower_id = {a})"),
            9 => format!("UPDATE users SET id = id + 100000, handle = handle || 'm' WHERE id = {a}"),
            _ => format!("INSERT INTO relations (follower_id, followee_id) VALUES ({a}, {hot}), ({hot}, {b})
                          ON CONFLICT (follower_id, followee_id) DO UPDATE SET since = current_date - {}", b % 50),
        };
        let level = if level == 0 { "READ COMMITTED" } else { "REPEATABLE READ" };
        let end = if end == 0 { "ROLLBACK" } else { "COMMIT" };
        let script = format!("BEGIN ISOLATION LEVEL {level}; {statement}; {end}");
        let ran = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut conn).await;
        if let Err(error) = ran {
            // Deadlocks, serialization failures and constraints are the application's own; anything else may not happen.
            let code = error
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code)
                .unwrap_or_default();
            assert!(code.starts_with("40") || code.starts_with("23"), "{error}");
            sqlx::raw_sql("ROLLBACK").execute(&mut conn).await.unwrap();
        }
        done.fetch_add(1, Ordering::Relaxed);
        // Not faster than an unoptimised relay on a busy machine can follow: what would be compared would never be there.
        tokio::time::sleep(REST).await;
    }
    conn.close().await.unwrap();
}

/// A way to a server that can be cut off for a while, or hang.
pub struct Wire {
    pub url: String,
    is_cut: Arc<AtomicBool>,
    is_mute: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    /// To the server of a URL, under the same user.
    pub fn to(url: &str) -> Self {
        let server = url.rsplit(['@', '/']).find(|part| part.contains(':')).unwrap().to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = url.replace(&server, &listener.local_addr().unwrap().to_string());
        let flag = || Arc::new(AtomicBool::new(false));
        let wire =
            Self { url, is_cut: flag(), is_mute: flag(), open: Arc::new(Mutex::new(Vec::new())) };
        let (cut, kept) = (Arc::clone(&wire.is_cut), Arc::clone(&wire.open));
        let mute = Arc::clone(&wire.is_mute);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(&server).unwrap();
                kept.lock().unwrap().push(client.try_clone().unwrap());
                for (from, to) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    let mute = Arc::clone(&mute);
                    std::thread::spawn(move || carry(from, to, &mute));
                }
            }
        });
        wire
    }

    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.hang_up();
    }

    /// From now on nothing arrives but the first words of each connection.
    pub fn mute(&self) {
        self.is_mute.store(true, Ordering::SeqCst);
    }

    /// What lost something on its way is not whole any more.
    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
        if self.is_mute.swap(false, Ordering::SeqCst) {
            self.hang_up();
        }
    }

    fn hang_up(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_mute: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    let mut is_first = true;
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if (is_first || !is_mute.load(Ordering::SeqCst)) && to.write_all(&buffer[..read]).is_err() {
            break;
        }
        is_first = false;
    }
    let _ = to.shutdown(Shutdown::Both);
}

//! The server, its databases, and runs of the binary on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tempfile::TempDir;

/// How the server is set up: everything is durable; checkpoints and autovacuum don't fall into one round and not into another.
pub const SETTINGS: [&str; 10] = [
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "shared_buffers=1GB",
    "wal_buffers=64MB",
    "max_wal_size=16GB",
    "min_wal_size=2GB",
    "checkpoint_timeout=30min",
    "autovacuum=off",
    "wal_level=replica",
];

/// The expressions of the mapping, over a row of the source.
pub const VALUES: &str = "id, email, name, status, note, created_at, lower(status)";
/// The columns they go to.
pub const COLUMNS: &str = "id, email, name, status, note, created_at, status_code";

/// A server of our own.
pub struct Bed {
    pub rows: u64,
    pub rounds: u64,
    pub version: String,
    folder: TempDir,
    url: String,
}

impl Bed {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The server's user must be able to enter it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let settings = SETTINGS.map(|setting| format!("-c {setting}")).join(" ");
        let started = script()
            .arg("start")
            .arg(folder.path().join("server"))
            .env("PHASEGATE_POSTGRES_SETTINGS", settings)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(started.status.success(), "the server did not start");
        let said = String::from_utf8(started.stdout).unwrap();
        let url = said.trim().rsplit_once("PHASEGATE_TEST_POSTGRES=").unwrap().1.to_owned();
        let mut server = PgConnection::connect(&url).await.unwrap();
        let row = sqlx::query("SELECT split_part(version(), ' on ', 1)");
        let version = row.fetch_one(&mut server).await.unwrap().get(0);
        let rows = setting("PHASEGATE_BENCH_ROWS", 2_000_000);
        Self { rows, rounds: setting("PHASEGATE_BENCH_ROUNDS", 5), version, folder, url }
    }

    /// The name of a database with so many leads, made when it is first asked for.
    pub async fn template(&self, rows: u64, statistics: Statistics) -> String {
        let name = format!("leads_{rows}_{statistics:?}").to_lowercase();
        let mut server = PgConnection::connect(&self.url).await.unwrap();
        let known = sqlx::query("SELECT FROM pg_database WHERE datname = $1").bind(&name);
        if known.fetch_optional(&mut server).await.unwrap().is_some() {
            return name;
        }
        eprintln!("making {name}");
        run(&mut server, &format!("CREATE DATABASE {name}")).await;
        let mut db = PgConnection::connect(&self.url_of(&name)).await.unwrap();
        let script = format!(
            "CREATE TABLE leads (id bigint PRIMARY KEY, email text NOT NULL, name text, status text, note text,
                created_at timestamptz NOT NULL);
             INSERT INTO leads SELECT x, 'person' || x || '@example.org', 'Name of ' || x,
                CASE x % 3 WHEN 0 THEN 'OPEN' WHEN 1 THEN 'Won' ELSE 'lost' END,
                'some words that make the row about a hundred and fifty bytes long',
                timestamptz '2020-01-01' + x * interval '1 second' FROM generate_series(1, {rows}) AS x;
             CREATE INDEX leads_created ON leads (created_at);
             CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL);
             ALTER TABLE leads_v2 ADD COLUMN status_code text"
        );
        run(&mut db, &script).await;
        run(
            &mut db,
            match statistics {
                Statistics::Fresh => "VACUUM (FREEZE, ANALYZE) leads",
                // Rows are known to be committed all the same.
                Statistics::None => "SELECT count(*) FROM leads",
            },
        )
        .await;
        db.close().await.unwrap();
        name
    }

    /// A fresh copy of a template.
    pub async fn database(&self, template: &str) -> Database<'_> {
        let mut server = PgConnection::connect(&self.url).await.unwrap();
        let name = format!("round_{}", uuid::Uuid::now_v7().simple());
        // Copied as files, behind a checkpoint: every round begins with nothing left to write.
        let create = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy");
        run(&mut server, &create).await;
        let folder = self.folder.path().join(&name);
        std::fs::create_dir(&folder).unwrap();
        Database { bed: self, url: self.url_of(&name), name, folder }
    }

    /// Seconds of a core that the server's processes have taken since it started, those that have ended included (Linux; 0
    /// elsewhere). Where others use the same cores, this says more than the time on the wall.
    pub fn cores_s(&self) -> f64 {
        let file = self.folder.path().join("server/data/postmaster.pid");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let Some(main) = text.lines().next().map(ToOwned::to_owned) else { return 0.0 };
        let Ok(processes) = std::fs::read_dir("/proc") else { return 0.0 };
        let names =
            processes.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let ticks = names.map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<&str> =
                stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
            let field = |at: usize| fields.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
            match (pid == main, fields.get(1).is_some_and(|parent| *parent == main)) {
                (true, _) => field(11) + field(12) + field(13) + field(14),
                (false, true) => field(11) + field(12),
                (false, false) => 0,
            }
        });
        Duration::from_millis(ticks.sum::<u64>() * 10).as_secs_f64()
    }

    fn url_of(&self, name: &str) -> String {
        format!("{}/{name}", self.url.rsplit_once('/').unwrap().0)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let stopped = script().arg("stop").arg(self.folder.path().join("server")).status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("the server in {} did not stop", self.folder.path().display());
        }
    }
}

/// What the planner knows of a table.
#[derive(Clone, Copy, Debug)]
pub enum Statistics {
    Fresh,
    None,
}

/// A database for one measurement.
pub struct Database<'a> {
    bed: &'a Bed,
    name: String,
    folder: PathBuf,
    pub url: String,
}

/// What a plan does.
#[derive(Clone, Copy)]
pub struct Plan {
    pub in_place: bool,
    /// As the plan writes it.
    pub chunk_rows: &'static str,
    pub chunk_ms: u64,
    pub workers: u32,
    /// `None`: the plan doesn't say.
    pub verify_workers: Option<u32>,
}

pub const PLAN: Plan = Plan {
    in_place: false,
    chunk_rows: "auto",
    chunk_ms: 100,
    workers: 1,
    verify_workers: Some(1),
};

impl Database<'_> {
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Carries the plan to a step. Returns the most memory that the process took, in KiB.
    pub fn to(&self, plan: Plan, step: &str) -> u64 {
        self.ends(plan, step, 0)
    }

    /// The same, where it ends with this code.
    pub fn ends(&self, plan: Plan, step: &str, code: i32) -> u64 {
        std::fs::write(self.folder.join("plan.yaml"), text(plan)).unwrap();
        let mut process = self.phasegate(&["run", "plan.yaml", "--to", step]);
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let mut process = process.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut peak_kib = 0;
        let ended = loop {
            if let Some(ended) = process.try_wait().unwrap() {
                break ended;
            }
            peak_kib = peak_kib.max(peak(process.id()));
            std::thread::sleep(Duration::from_millis(20));
        };
        let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert_eq!(ended.code(), Some(code), "on the way to {step}: {}", log());
        peak_kib
    }

    /// How long a step took, in seconds, as the journal has it.
    pub fn seconds(&self, step: &str) -> f64 {
        let status = self.phasegate(&["status", "bench", "--format", "json"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let known = find(&status, step).unwrap_or_else(|| panic!("no {step} in {status}"));
        let at = |name: &str| {
            let text = known[name].as_str().unwrap();
            chrono::DateTime::parse_from_rfc3339(text).unwrap()
        };
        let ms = (at("ended_at") - at("started_at")).num_milliseconds();
        Duration::from_millis(ms.unsigned_abs()).as_secs_f64()
    }

    /// What the state store takes on the disk, in KiB.
    pub fn store_kib(&self) -> u64 {
        let files = ["state.db", "state.db-wal"].map(|name| self.folder.join(name));
        files.iter().filter_map(|file| file.metadata().ok()).map(|it| it.len()).sum::<u64>() / 1_024
    }

    fn phasegate(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phasegate"));
        command.args(["--state", "state.db"]).args(arguments).current_dir(&self.folder);
        command.env_remove("PHASEGATE_STATE").env("APP_URL", &self.url);
        command
    }

    pub async fn gone(self) {
        let mut server = PgConnection::connect(&self.bed.url).await.unwrap();
        run(&mut server, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

/// The step of an id, wherever the document has it.
fn find<'a>(value: &'a serde_json::Value, id: &str) -> Option<&'a serde_json::Value> {
    match value {
        serde_json::Value::Object(object) => {
            let is_it = object.get("id").and_then(|known| known.as_str()) == Some(id);
            if is_it { Some(value) } else { object.values().find_map(|value| find(value, id)) }
        }
        serde_json::Value::Array(values) => values.iter().find_map(|value| find(value, id)),
        _ => None,
    }
}

fn text(plan: Plan) -> String {
    let Plan { in_place, chunk_rows, chunk_ms, workers, verify_workers } = plan;
    let into = if in_place { "leads" } else { "leads_v2" };
    let expand = if in_place {
        "  - id: expand\n    phase: expand\n    target: app\n    sql: ALTER TABLE leads ADD COLUMN status_code text\n    \
         undo:\n      sql: ALTER TABLE leads DROP COLUMN status_code\n"
    } else {
        ""
    };
    let undo = "    undo:\n      none: nothing was there\n";
    let verify_workers =
        verify_workers.map_or_else(String::new, |workers| format!("      workers: {workers}\n"));
    format!(
        "apiVersion: phasegate/v1\nkind: Plan\nmetadata:\n  name: bench\ntargets:\n  app:\n    engine: postgres\n    \
         url: \"${{env:APP_URL}}\"\nmappings:\n  leads:\n    from:\n      target: app\n      table: leads\n      key: [id]\n    \
         into:\n      target: app\n      table: {into}\n    columns:\n      status_code: lower(status)\nsteps:\n{expand}\
         \x20 - id: sync\n    phase: dual-write\n    dual_write:\n      mapping: leads\n      direction: forward\n\
         \x20 - id: copy\n    phase: backfill\n    backfill:\n      mapping: leads\n      chunk:\n        rows: {chunk_rows}\n        \
         time: {chunk_ms}ms\n      workers: {workers}\n{undo}\
         \x20 - id: compare\n    phase: verify\n    verify:\n      mapping: leads\n      method: full\n{verify_workers}"
    )
}

fn script() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/postgres.sh");
    Command::new(script)
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// The most memory that a process has taken so far, in KiB (Linux; 0 elsewhere).
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// Runs statements as anybody would.
pub async fn run(connection: &mut PgConnection, script: &str) {
    sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(connection).await.unwrap();
}

//! PostgreSQL at the command line: what goes wrong with servers, locks and rights, and what is said and done then.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use tokio::runtime::Runtime;

use crate::bad_luck_postgres::server::Server;
use crate::sandbox::{Ran, Sandbox};
use crate::services;

mod https;
mod parking;
mod replica;
mod signals;
mod throttle;
mod tied;
mod together;
mod tuning;
mod waiting;
mod workers;

const HEAD: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata:
  name: leads
targets:
  app:
    engine: postgres
    url: "${env:APP_URL}"
"#;

const MOVE: &str = r"mappings:
  leads:
    from: { target: app, table: leads, key: [id] }
    into: { target: app, table: leads_v2 }
steps:
  - id: create
    phase: expand
    target: app
    sql: CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL)
    undo:
      sql: DROP TABLE leads_v2
  - id: sync
    phase: dual-write
    dual_write: { mapping: leads, direction: forward }
  - id: copy
    phase: backfill
    backfill:
      mapping: leads
      workers: 4
      chunk: { rows: 20 }
  - id: compare
    phase: verify
    verify: { mapping: leads, method: full }
";

/// A database and a plain role that owns its table, both of a test's own, and a folder with a plan.
struct Bed {
    runtime: Runtime,
    sandbox: Sandbox,
    server: url::Url,
    name: String,
}

impl Bed {
    fn new(test: &str, plan: &str) -> Option<Self> {
        services::postgres(test).map(|server| Self::at(&server, plan))
    }

    /// The same on a server of the test's own.
    fn at(server: &str, plan: &str) -> Self {
        let server = url::Url::parse(server).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let name = format!("bin_{}", uuid::Uuid::now_v7().simple());
        let bed = Self { runtime, sandbox: Sandbox::new(), server, name };
        let name = &bed.name;
        bed.run_in("postgres", &format!("CREATE ROLE {name} LOGIN"));
        bed.run_in("postgres", &format!("CREATE DATABASE {name} OWNER {name}"));
        bed.run(&format!(
            "SET search_path TO public; GRANT ALL ON SCHEMA public TO {name};
             CREATE TABLE leads (id int PRIMARY KEY, email text);
             INSERT INTO leads SELECT g, 'lead ' || g FROM generate_series(1, 400) AS g;
             ALTER TABLE leads OWNER TO {name}; CREATE TABLE secret (id int)"
        ));
        bed.sandbox.write("plan.yaml", &format!("{HEAD}{plan}"));
        bed
    }

    /// The URL of a role in a database.
    fn url(&self, role: &str, database: &str) -> url::Url {
        let mut url = self.server.clone();
        url.set_username(role).unwrap();
        url.set_path(database);
        url
    }

    fn app(&self) -> String {
        self.url(&self.name, &self.name).into()
    }

    /// Another session of the database, as the superuser.
    fn client(&self, database: &str) -> PgConnection {
        let url = self.url(self.server.username(), database);
        let options: PgConnectOptions = url.as_str().parse().unwrap();
        self.runtime.block_on(options.disable_statement_logging().connect()).unwrap()
    }

    fn run_in(&self, database: &str, script: &str) {
        let mut client = self.client(database);
        self.on(&mut client, script);
        self.runtime.block_on(client.close()).unwrap();
    }

    fn on(&self, client: &mut PgConnection, script: &str) {
        let script = AssertSqlSafe(script.to_owned());
        self.runtime.block_on(sqlx::raw_sql(script).execute(client)).unwrap();
    }

    fn run(&self, script: &str) {
        self.run_in(&self.name, script);
    }

    fn number(&self, query: &str) -> i64 {
        let mut client = self.client(&self.name);
        let query = AssertSqlSafe(format!("SELECT ({query})::bigint"));
        let row = self.runtime.block_on(sqlx::query(query).fetch_one(&mut client)).unwrap();
        row.try_get(0).unwrap()
    }

    fn phasegate(&self, args: &[&str]) -> Ran {
        self.sandbox.run_with(args, "APP_URL", &self.app())
    }

    /// Waits until a query gives more than 0.
    fn until(&self, query: &str) {
        for _ in 0..600 {
            if self.number(query) > 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("never: {query}");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // What a failed test leaves goes with the server.
        if !std::thread::panicking() {
            let name = &self.name;
            self.run_in("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
            self.run_in("postgres", &format!("DROP ROLE {name}"));
        }
    }
}

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

#[track_caller]
fn mentions(ran: &Ran, words: &[&str]) {
    let said = said(ran);
    for word in words {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
}

/// One `sql` step.
fn step(keys: &str, sql: &str) -> String {
    format!(
        "steps:\n  - id: only\n    phase: expand\n    target: app\n{keys}    sql: |\n      {sql}\n    undo:\n      none: a test\n"
    )
}

#[test]
fn a_server_that_is_not_there_changes_nothing() {
    let Some(bed) = Bed::new("a server that is not there", MOVE) else { return };
    let url = format!("postgres://{}@127.0.0.1:1/{}", bed.name, bed.name);
    let ran = bed.sandbox.run_with(&["run", "plan.yaml"], "APP_URL", &url).expect(69);
    mentions(&ran, &["could not connect", "target app is ${env:APP_URL}"]);
    let nowhere: String = bed.url(&bed.name, "nowhere").into();
    bed.sandbox.run_with(&["run", "plan.yaml"], "APP_URL", &nowhere).expect(69);
    assert_eq!(bed.number("SELECT count(*) FROM pg_namespace WHERE nspname = 'phasegate'"), 0);
    // A plan that never ends its sync leaves nothing but the run's row.
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    let ours = "SELECT count(*) FROM pg_class WHERE relnamespace = 'phasegate'::regnamespace AND relkind = 'r'";
    assert_eq!(bed.number(ours), 1);
    assert_eq!(bed.number("SELECT count(*) FROM phasegate.runs"), 1);
    assert_eq!(bed.number("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"), 0);
}

#[test]
fn a_lock_held_for_ever_is_given_up_and_its_holder_named() {
    let keys = "    lock_timeout: 300ms\n    retry: { attempts: 2, wait: 50ms }\n";
    let plan = step(keys, "ALTER TABLE leads ADD COLUMN note text");
    let Some(bed) = Bed::new("a lock held for ever", &plan) else { return };
    bed.run(&format!("GRANT pg_read_all_stats TO {}", bed.name));
    let mut client = bed.client(&bed.name);
    bed.on(&mut client, "BEGIN; UPDATE public.leads SET email = 'secret' WHERE id = 1");
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(1);
    mentions(
        &ran,
        &[
            "waiting for AccessExclusiveLock on leads: pid ",
            "idle in transaction",
            "UPDATE public.leads SET email = '…'",
            "pg_terminate_backend(",
        ],
    );
    assert!(!said(&ran).contains("'secret'"), "{ran}");
    let column =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'leads'::regclass AND attname = 'note'";
    assert_eq!(bed.number(column), 0);
    bed.on(&mut client, "ROLLBACK");
    bed.phasegate(&["retry", "leads"]).expect(0);
    assert_eq!(bed.number(column), 1);
}

#[test]
fn a_server_that_goes_away_in_the_middle_is_unreachable_and_the_run_goes_on_later() {
    let Some(bed) = Bed::new("a server that goes away", MOVE) else { return };
    let mut run = bed.sandbox.command(&["run", "plan.yaml"]);
    // It is at its copy for as long as it takes to see that.
    run.env("FAILPOINTS", "postgres::before-commit::chunk=8*off->sleep(2000)");
    let mut run = run.env("APP_URL", bed.app()).spawn().unwrap();
    bed.until(
        "SELECT count(*) FROM pg_tables WHERE tablename = 'chunks' AND schemaname = 'phasegate'",
    );
    bed.until("SELECT count(*) FROM phasegate.chunks WHERE committed");
    let name = &bed.name;
    bed.run_in(
        "postgres",
        &format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ),
    );
    assert_eq!(run.wait().unwrap().code(), Some(69));
    bed.run_in("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    let ran = bed.phasegate(&["retry", "leads"]);
    if ran.code == Some(64) {
        // It was lost between two steps, so that none has failed.
        bed.phasegate(&["run", "plan.yaml"]).expect(0);
    } else {
        ran.expect(0);
    }
    let unlike =
        "SELECT count(*) FROM leads l FULL JOIN leads_v2 v ON l.id = v.id AND l.email = v.email
        WHERE l.id IS NULL OR v.id IS NULL";
    assert_eq!(bed.number(unlike), 0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
}

#[test]
fn what_the_server_refuses_is_said_with_what_helps() {
    for (sql, code, words) in [
        (
            "INSERT INTO secret VALUES (1)",
            77,
            &["[42501]", "GRANT INSERT ON public.secret TO bin_"][..],
        ),
        ("INSERT INTO leeds VALUES (1)", 3, &["there is no table leeds", "did you mean leads?"]),
        ("SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(9)", 1, &["statement timeout"]),
    ] {
        let Some(bed) = Bed::new("what the server refuses", &step("", sql)) else { return };
        let ran = bed.phasegate(&["run", "plan.yaml"]).expect(code);
        mentions(&ran, words);
        assert_eq!(bed.number("SELECT count(*) FROM secret"), 0);
    }
}

#[test]
fn no_connection_left_is_said_and_passes() {
    let plan = step("", "ALTER TABLE leads ADD COLUMN note text");
    let Some(bed) = Bed::new("no connection left", &plan) else { return };
    bed.run(&format!("ALTER ROLE {} CONNECTION LIMIT 0", bed.name));
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(69);
    mentions(&ran, &["[53300]", "CONNECTION LIMIT"]);
    bed.run(&format!("ALTER ROLE {} CONNECTION LIMIT -1", bed.name));
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
}

#[test]
fn a_wrong_password_is_refused_and_not_printed() {
    // Who may connect how is changed here, so it takes a server that no other test uses.
    let Some(server) = Server::new("a wrong password") else { return };
    let bed = Bed::at(&server.url, &step("", "ALTER TABLE leads ADD COLUMN note text"));
    bed.run(&format!("ALTER ROLE {} PASSWORD 'r1ght-secret'", bed.name));
    let rules = server.folder.join("data/pg_hba.conf");
    let before = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("host all {} all scram-sha-256\n{before}", bed.name)).unwrap();
    server.control(&["-m", "fast", "restart"]);
    let mut url = bed.url(&bed.name, &bed.name);
    let mut run_with = |password: &str, args: &[&str]| {
        url.set_password(Some(password)).unwrap();
        bed.sandbox.run_with(args, "APP_URL", url.as_str())
    };
    let mut told = vec![run_with("hunter2", &["run", "plan.yaml"]).expect(77)];
    mentions(&told[0], &["[28P01]", "check the user and password"]);
    told.push(run_with("r1ght-secret", &["run", "plan.yaml"]).expect(0));
    told.push(run_with("hunter2", &["run", "plan.yaml", "--new"]).expect(77));
    told.push(
        run_with("hunter2", &["run", "plan.yaml", "--new", "-vv", "--format", "json"]).expect(77),
    );
    told.push(run_with("hunter2", &["dry-run", "plan.yaml", "--depth", "probe"]));
    for command in ["events", "history", "status"] {
        told.push(run_with("r1ght-secret", &[command, "leads"]).expect(0));
    }
    let kept = files(&bed.sandbox.path(".phasegate"));
    assert!(!kept.is_empty());
    for secret in ["hunter2", "r1ght-secret"] {
        for ran in &told {
            assert!(!said(ran).contains(secret), "{ran}");
        }
        for (file, bytes) in &kept {
            let has = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!has, "{secret} is in {}", file.display());
        }
    }
}

/// Every file in a folder, with what is in it.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found
}

/// A small file system, which is gone when this is.
struct SmallDisk(PathBuf);

fn did(command: &str, args: &[&str]) -> bool {
    std::process::Command::new(command).args(args).status().is_ok_and(|status| status.success())
}

impl SmallDisk {
    /// `None` where none can be mounted.
    fn mount(name: &str) -> Option<Self> {
        let disk = Self(std::env::temp_dir().join(name));
        let place = disk.0.to_str().unwrap();
        std::fs::create_dir(place).unwrap();
        // The server's user has to own it; `nobody` stands in where there is no such user.
        let owner = if did("id", &["-u", "postgres"]) { "postgres" } else { "nobody" };
        let is_small = did("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", place])
            && did("chown", &[owner, place])
            && did("chmod", &["700", place]);
        is_small.then_some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let place = self.0.to_str().unwrap_or_default();
        // Lazily, where a test that failed left files of the server's open.
        if did("mountpoint", &["-q", place]) && !did("umount", &[place]) {
            did("umount", &["-l", place]);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_fails_the_step_and_leaves_nothing() {
    let name = format!("small_{}", uuid::Uuid::now_v7().simple());
    let sql = format!(
        "CREATE TABLE big TABLESPACE {name} AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 20000)"
    );
    let Some(bed) = Bed::new("a full disk", &step("", &sql)) else { return };
    let Some(disk) = SmallDisk::mount(&name) else {
        return services::not_run("a small file system can't be mounted here");
    };
    let place = disk.0.to_str().unwrap();
    bed.run_in("postgres", &format!("CREATE TABLESPACE {name} LOCATION '{place}'"));
    bed.run_in("postgres", &format!("GRANT CREATE ON TABLESPACE {name} TO {}", bed.name));
    let ran = bed.phasegate(&["run", "plan.yaml"]);
    let left = bed.number("SELECT count(*) FROM pg_class WHERE relname = 'big'");
    bed.run_in("postgres", &format!("DROP TABLESPACE {name}"));
    mentions(&ran, &["[53100]", "Check free disk space"]);
    ran.expect(1);
    assert_eq!(left, 0);
}

#[test]
fn a_table_that_a_statement_names_is_missing_before_the_first_change() {
    let plan = "steps:
  - id: first
    phase: expand
    target: app
    sql: CREATE TABLE made (id int)
    undo:
      sql: DROP TABLE made
  - id: second
    phase: expand
    target: app
    sql: ALTER TABLE leeds ADD COLUMN note text; ALTER TABLE leads RENAME emial TO mail
    undo:
      none: a test
";
    let Some(bed) = Bed::new("a missing table", plan) else { return };
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(3);
    mentions(
        &ran,
        &[
            "there is no table leeds",
            "did you mean leads?",
            "no column emial",
            "did you mean email?",
        ],
    );
    assert_eq!(bed.number("SELECT count(*) FROM pg_class WHERE relname = 'made'"), 0);
    assert_eq!(bed.number("SELECT count(*) FROM pg_namespace WHERE nspname = 'phasegate'"), 0);
}

//! A plan on a small table, and sessions that cross it as a test says.

use std::process::Stdio;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::scene::Kind;
use crate::examples::database::{Database, connect};
use crate::sandbox::{Ran, Sandbox, wait_for};

/// A plan and its database, without any client but those of the test.
pub struct Stage {
    pub kind: Kind,
    pub database: Database,
    sandbox: Sandbox,
    fault: &'static str,
}

impl Stage {
    pub fn new(server: &str, fault: &'static str) -> Self {
        Self::of(Kind::TableForward, server, fault)
    }

    pub fn of(kind: Kind, server: &str, fault: &'static str) -> Self {
        let database = Database::on(server, &kind.schema(400));
        let sandbox = Sandbox::new();
        sandbox.write("plan.yaml", &kind.plan(&database.url, 20, ""));
        Self { kind, database, sandbox, fault }
    }

    /// The same of a plan that ends by keeping both tables.
    pub fn that_stops(server: &str) -> Self {
        let stage = Self::new(server, "");
        let plan = stage.kind.plan(&stage.database.url, 20, "");
        let (until, _) = plan.split_once("  - id: ready\n").unwrap();
        let stop = "  - id: stop\n    phase: contract\n    stop_dual_write: { mapping: moved }\n";
        stage.sandbox.write("plan.yaml", &format!("{until}{stop}"));
        stage
    }

    /// Runs to a goal, with the stage's fault and what else is armed.
    pub fn to(&self, goal: &str, more: &str) -> Ran {
        self.command(goal, more).output().unwrap().into()
    }

    pub fn command(&self, goal: &str, more: &str) -> std::process::Command {
        let mut command = self.sandbox.command(&["run", "plan.yaml", "--to", goal]);
        command.env("FAILPOINTS", format!("{};{more}", self.fault).trim_matches(';'));
        command
    }

    pub fn is_alike(&self) -> bool {
        self.are_alike(&self.kind.compared())
    }

    pub fn are_alike(&self, (new, twin): &(String, String)) -> bool {
        let differing =
            format!("(({new}) EXCEPT ALL ({twin})) UNION ALL (({twin}) EXCEPT ALL ({new}))");
        self.database.rows(&differing).is_empty()
    }

    /// Runs to a goal; a client commits when the run waits for it.
    pub fn commits_while_waited_for(&self, goal: &str, mut client: Session) -> Ran {
        let mut command = self.command(goal, "");
        let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE {} = ANY (pg_blocking_pids(pid))",
            client.pid
        );
        let waits = || self.database.value(&waits) != "0";
        assert!(wait_for(Duration::from_mins(1), waits), "{goal} doesn't wait for the client");
        client.say("COMMIT");
        run.wait_with_output().unwrap().into()
    }

    /// What a client writes, to both.
    pub fn write(&self, statement: &str) {
        for table in ["customers", "twin"] {
            self.database.run(&statement.replace("TABLE", table));
        }
    }
}

/// A client's session.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    conn: PgConnection,
    pid: i32,
}

impl Session {
    pub fn new(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut conn = runtime.block_on(connect(url)).unwrap();
        let pid = runtime.block_on(sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut conn));
        Self { runtime, conn, pid: pid.unwrap().get(0) }
    }

    pub fn say(&mut self, sql: &str) {
        let said = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.conn);
        self.runtime.block_on(said).unwrap();
    }
}

//! A copy that waits for a replica, a real one.

use std::path::PathBuf;
use std::process::Command;

use sqlx::{Connection as _, Executor as _};

use super::throttle::{ended, plan};
use super::{Bed, mentions};
use crate::bad_luck_postgres::server::Server;

/// A replica of a server, which ends with it.
struct Replica {
    folder: PathBuf,
    url: String,
}

impl Replica {
    fn of(primary: &Server) -> Self {
        let folder = primary.folder.with_extension("replica");
        let started = script(&["replica", folder.to_str().unwrap(), &primary.url, "replica-2"]);
        let url = started.split_once('=').unwrap().1.trim().to_owned();
        Self { folder, url }
    }

    fn run(&self, bed: &Bed, statement: &'static str) {
        bed.runtime.block_on(async {
            let mut client = sqlx::postgres::PgConnection::connect(&self.url).await.unwrap();
            client.execute(statement).await.unwrap();
            client.close().await.unwrap();
        });
    }

    fn stop(&self) {
        script(&["stop", self.folder.to_str().unwrap()]);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

fn script(words: &[&str]) -> String {
    let script = format!("{}/tests/services/postgres.sh", env!("CARGO_MANIFEST_DIR"));
    // Into a file: what the server inherits must not be a pipe that is waited for.
    let out = tempfile::NamedTempFile::new().unwrap();
    let done = Command::new(script).args(words).stdout(out.reopen().unwrap()).status().unwrap();
    let said = std::fs::read_to_string(out.path()).unwrap();
    assert!(done.success(), "postgres.sh {words:?}: {said}");
    said
}

#[test]
fn a_copy_waits_for_a_replica_that_is_behind_or_gone() {
    let Some(server) = Server::new("a replica that is behind") else { return };
    let keys = "      throttle:
        - name: lag
          replica_lag: { max: 1s }
          every: 100ms
        - name: bytes
          replica_lag: { max: 1GB }
          every: 100ms
";
    let bed = Bed::at(&server.url, &plan(keys));
    bed.run(&format!("GRANT pg_monitor TO {}", bed.name));
    let replica = Replica::of(&server);
    // It has stopped replaying before anything is copied: the first chunk waits for it.
    replica.run(&bed, "SELECT pg_wal_replay_pause()");
    bed.run("CREATE TABLE public.unseen AS SELECT generate_series(1, 1000)");
    let run = bed.spawn(&["run", "plan.yaml"]);
    let held = bed.until_held(">= 1s");
    assert_eq!((held["of"].as_str(), held["unit"].as_str()), (Some("replica-2"), Some("ms")));
    assert!(held["value"].as_f64().unwrap() >= 1_000.0, "{held}");
    replica.run(&bed, "SELECT pg_wal_replay_resume()");
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'leads_v2'");
    bed.until("SELECT count(*) FROM leads_v2");
    // One that is gone has not caught up.
    replica.stop();
    bed.until_held("replica-2 is gone");
    let status = bed.phasegate(&["status", "leads"]).expect(0);
    mentions(&status, &["replica-2 is gone"]);
    // An operator who knows that it won't come back pauses and resumes: then there is none.
    bed.phasegate(&["pause", "leads"]).expect(0);
    ended(run, 8);
    bed.phasegate(&["resume", "leads"]).expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
    let copied = bed.copy();
    assert_eq!(copied["rows_done"], 400, "{copied:#}");
}

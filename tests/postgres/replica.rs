//! A copy that waits for a replica, a real one.

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::throttle::{ended, plan};
use super::{Bed, mentions};
use crate::bad_luck_postgres::server::Server;

fn on(bed: &Bed, replica: &Server, statement: &str) {
    let mut client = bed.runtime.block_on(PgConnection::connect(&replica.url)).unwrap();
    bed.on(&mut client, statement);
    bed.runtime.block_on(client.close()).unwrap();
}

#[test]
fn a_copy_waits_for_a_replica_that_is_behind_or_gone() {
    let Some(server) = Server::new("a replica that is behind") else { return };
    let keys = "      throttle:
        - name: lag
          replica_lag: { max: 1s }
          every: 100ms
        - name: bytes
          replica_lag: { max: 1MB }
          every: 100ms
";
    let bed = Bed::at(&server.url, &plan(keys));
    bed.run(&format!("GRANT pg_monitor TO {}", bed.name));
    let replica = Server::following(&server.url);
    // It has stopped replaying before anything is copied: the first chunk waits for it.
    on(&bed, &replica, "SELECT pg_wal_replay_pause()");
    bed.run("CREATE TABLE public.unseen AS SELECT generate_series(1, 40000)");
    let run = bed.spawn(&["run", "plan.yaml"]);
    let held = bed.until_held_by("lag", ">= 1s");
    assert_eq!((held["of"].as_str(), held["unit"].as_str()), (Some("standby"), Some("ms")));
    assert!(held["value"].as_f64().unwrap() >= 1_000.0, "{held}");
    let held = bed.until_held_by("bytes", " MiB >= 976.6 KiB");
    assert_eq!((held["of"].as_str(), held["unit"].as_str()), (Some("standby"), Some("bytes")));
    assert!(held["value"].as_f64().unwrap() >= 1_000_000.0, "{held}");
    on(&bed, &replica, "SELECT pg_wal_replay_resume()");
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'leads_v2'");
    bed.until("SELECT count(*) FROM leads_v2");
    // One that is gone has not caught up.
    drop(replica);
    bed.until_held("standby is gone");
    let status = bed.phasegate(&["status", "leads"]).expect(0);
    mentions(&status, &["standby is gone"]);
    // An operator who knows that it won't come back pauses and resumes: then there is none.
    bed.phasegate(&["pause", "leads"]).expect(0);
    ended(run, 8);
    bed.phasegate(&["resume", "leads"]).expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
    let copied = bed.copy();
    assert_eq!(copied["rows_done"], 400, "{copied:#}");
}

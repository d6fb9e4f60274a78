//! The server goes away in the middle of a chunk, and comes back.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{ROWS, check_rows, edit, leads, leads_on, rows_copied};
use crate::examples::Example;
use crate::examples::database::programs;
use crate::sandbox::{Ran, wait_for};
use crate::services;

/// A server of a test's own, which may be stopped and started.
pub struct Server {
    /// Where it is: its data in `data`.
    pub folder: PathBuf,
    /// Its superuser's URL.
    pub url: String,
}

impl Server {
    /// A server beside the one that all share; `None`, said loudly, where there is none at all.
    pub fn new(test: &str) -> Option<Self> {
        Self::with(test, "")
    }

    /// The same with settings of its own, as `-c name=value …`.
    pub fn with(test: &str, settings: &str) -> Option<Self> {
        services::postgres(test)?;
        Some(Self::made(&["start"], settings))
    }

    /// A standby of a server.
    pub fn following(primary: &str) -> Self {
        Self::made(&["replica", primary, "standby"], "")
    }

    fn made(how: &[&str], settings: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("phasegate-{}", uuid::Uuid::now_v7().simple()));
        let started = script(how[0], &folder, (&how[1..], settings));
        let url = started.split_once('=').unwrap().1.trim().to_owned();
        Self { folder, url }
    }

    /// `pg_ctl` on this server, as the user whom it belongs to.
    pub fn control(&self, words: &[&str]) {
        let data = self.folder.join("data");
        let owner = Command::new("stat").args(["-c", "%U"]).arg(&data).output().unwrap();
        let owner = String::from_utf8(owner.stdout).unwrap();
        let me = Command::new("id").arg("-un").output().unwrap();
        let mut command = if owner.as_bytes() == me.stdout.as_slice() {
            Command::new(programs().join("pg_ctl"))
        } else {
            let mut command = Command::new("runuser");
            command.args(["-u", owner.trim(), "--"]).arg(programs().join("pg_ctl"));
            command
        };
        // The server keeps what it was started with, a pipe of ours among it, so it gets none.
        let done = command
            .arg("-D")
            .arg(&data)
            .args(["-w", "-t", "30", "-l"])
            .arg(self.folder.join("server.log"))
            .args(words)
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(done.unwrap().success(), "pg_ctl {words:?}");
    }

    /// Starts it again as it was.
    pub fn start_again(&self) {
        self.start_as(self);
    }

    /// Starts it with what another one was started with, so at that one's port. The server itself keeps that: its program and
    /// its folder, then the settings, each in quotes.
    pub fn start_as(&self, other: &Self) {
        let kept = std::fs::read_to_string(other.folder.join("data/postmaster.opts")).unwrap();
        let settings: Vec<&str> =
            kept.trim_end().trim_end_matches('"').split("\" \"").skip(2).collect();
        assert!(settings.iter().any(|it| it.starts_with("port=")), "{kept}");
        // An empty value would be lost between the words.
        let quoted: Vec<String> =
            settings.iter().map(|it| format!("'{}'", it.replace('\'', "'\\''"))).collect();
        self.control(&["start", "-o", &quoted.join(" ")]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        script("stop", &self.folder, (&[], ""));
    }
}

fn script(action: &str, folder: &std::path::Path, (more, settings): (&[&str], &str)) -> String {
    let script = format!("{}/tests/services/postgres.sh", env!("CARGO_MANIFEST_DIR"));
    let log = folder.with_extension("out");
    // Into a file: what the server inherits must not be a pipe that is waited for.
    let out = std::fs::File::create(&log).unwrap();
    let mut command = Command::new(script);
    command.arg(action).arg(folder).args(more).stdout(out);
    if !settings.is_empty() {
        command.env("PHASEGATE_POSTGRES_SETTINGS", settings);
    }
    let done = command.status().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    assert!(done.success(), "postgres.sh {action}: {said}");
    said
}

/// A run that has copied some chunks, and sleeps in the middle of one for a while.
fn sleeping_in_a_chunk(example: &Example) -> std::process::Child {
    let plan = example.plan();
    let child = example
        .command(&["run", &plan])
        .env("FAILPOINTS", "postgres::before-commit::chunk=3*off->1*sleep(4000)->off")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let in_a_chunk = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction' AND now() - state_change > interval '500 milliseconds'";
    let some = || {
        let there = "SELECT to_regclass('public.leads_v2') IS NOT NULL";
        example.database.value(there) == "t"
            && example.database.value("SELECT count(*) >= 300 FROM leads_v2") == "t"
            && example.database.value(in_a_chunk) == "1"
    };
    assert!(wait_for(Duration::from_mins(1), some), "no chunk is under way");
    child
}

#[test]
fn restarted_while_a_chunk_runs_the_server_finds_every_row_copied_once() {
    for how in ["immediate", "fast"] {
        let Some(server) = Server::new("restarted while a chunk runs") else { return };
        let example = leads_on(&server.url);
        let child = sleeping_in_a_chunk(&example);
        server.control(&["-m", how, "restart"]);
        let ran = Ran::from(child.wait_with_output().unwrap());
        // It may have found its way back by itself; or it stops, and goes on when asked.
        if ran.code != Some(0) {
            assert_eq!(ran.code, Some(69), "{how}: {ran}");
            assert!(!ran.stderr.contains(&server.url), "{ran}");
            example.phasegate(&["retry", example.name]).expect(0);
        }
        check_rows(&example);
        assert_eq!(rows_copied(&example), u64::from(ROWS), "{how}");
        assert_eq!(example.database.ours(), ["phasegate.runs"]);
    }
}

/// A chunk's commit doesn't wait for the disk. What the process was told is done may be gone, and the very same process, which
/// believes that nothing is left to copy, finds that out before it says so.
#[test]
fn chunks_whose_commits_were_answered_and_that_a_crash_took_are_copied_again() {
    // Nothing but a commit that waits for the disk writes the log.
    let settings = "-c wal_writer_delay=10s -c wal_writer_flush_after=1GB -c autovacuum=off -c bgwriter_lru_maxpages=0";
    let Some(server) = Server::with("a crash that takes commits", settings) else { return };
    let example = leads_on(&server.url);
    let signal = |child: &std::process::Child, name: &str| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    let plan = example.plan();
    // 2,000 rows, 150 in a chunk: asleep behind the commit of the last one.
    let child = example
        .command(&["run", &plan])
        .env("FAILPOINTS", "postgres::after-commit::chunk=13*off->1*sleep(4000)->off")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let in_ledger = "SELECT (SELECT coalesce(sum(rows_read), 0) FROM phasegate.copies)
        + (SELECT coalesce(sum(rows_read), 0) FROM phasegate.chunks WHERE committed)";
    let copied = || {
        example.database.value("SELECT to_regclass('phasegate.chunks') IS NOT NULL") == "t"
            && example.database.value(in_ledger) == ROWS.to_string()
    };
    assert!(wait_for(Duration::from_mins(1), copied), "the copy does not come to its end");
    signal(&child, "-STOP");
    server.control(&["-m", "immediate", "restart"]);
    let left: u32 = example.database.value(in_ledger).parse().unwrap();
    assert!(left < ROWS, "nothing was lost");
    assert_eq!(example.database.value("SELECT count(*) FROM leads_v2"), left.to_string());
    signal(&child, "-CONT");
    Ran::from(child.wait_with_output().unwrap()).expect(0);
    check_rows(&example);
    assert_eq!(rows_copied(&example), u64::from(ROWS));
    assert_eq!(example.database.ours(), ["phasegate.runs"]);
}

#[test]
fn gone_while_a_chunk_runs_the_server_is_said_to_be_unreachable_and_the_run_goes_on_later() {
    let Some(server) = Server::new("gone while a chunk runs") else { return };
    let example = leads_on(&server.url);
    // Otherwise it would be tried for some minutes.
    edit(&example, "    phase: backfill\n", "    phase: backfill\n    retry:\n      attempts: 3\n");
    let child = sleeping_in_a_chunk(&example);
    server.control(&["-m", "immediate", "stop"]);
    let ran = Ran::from(child.wait_with_output().unwrap()).expect(69);
    assert!(ran.stderr.contains("retry") || ran.stdout.contains("retry"), "{ran}");
    // As long as it is gone, asking again changes nothing.
    example.run(&[]).expect(69);
    server.start_again();
    example.phasegate(&["retry", example.name]).expect(0);
    check_rows(&example);
    assert_eq!(rows_copied(&example), u64::from(ROWS));
}

/// A stopped process holds its locks, and its lease only as long as that lasts.
#[test]
fn stopped_in_a_chunk_a_runner_is_followed_by_another_and_fenced_off_when_it_goes_on() {
    let Some(example) = leads() else { return };
    let first = sleeping_in_a_chunk(&example);
    let signal = |name: &str| {
        let pid = first.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    example.run(&[]).expect(5);
    let mut ran = None;
    let follows = || {
        let second = example.run(&[]);
        let is_followed = second.code != Some(5);
        ran = Some(second);
        is_followed
    };
    assert!(wait_for(Duration::from_secs(20), follows), "nobody could follow: {}", ran.unwrap());
    ran.unwrap().expect(0);
    signal("-CONT");
    Ran::from(first.wait_with_output().unwrap()).expect(5);
    check_rows(&example);
    assert_eq!(rows_copied(&example), u64::from(ROWS));
    assert_eq!(example.database.ours(), ["phasegate.runs"]);
}

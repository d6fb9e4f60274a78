//! `lock`: who drives which run, and taking a run away from somebody who hangs.

use serde_json::{Value, json};

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::{LockCommand, Release};
use crate::cli::session::{Desk, OpenRun, Session};
use crate::engine::{self, process};
use crate::report::{Alignment, Table, Tone, words};
use crate::run::{Command, RunId, State, Timestamp};
use crate::store::{Create, Lease};

pub async fn perform(session: &Session, command: LockCommand) -> Result<Answer, Failure> {
    match command {
        LockCommand::List(args) => list(session, args.run.as_deref()).await,
        LockCommand::Release(args) => release(session, args).await,
    }
}

/// A lease, and what is known of whoever has it.
struct Held {
    plan: String,
    lease: Lease,
    now: Timestamp,
}

impl Held {
    fn new(state: &State, now: Timestamp, lease: Lease) -> Self {
        Self { plan: state.program().plan().to_owned(), lease, now }
    }

    /// Of a relay, the databases that it works between.
    fn relay(&self) -> Option<String> {
        let (_, between) = self.lease.run.as_str().split_once("/relay/")?;
        Some(between.replacen('/', " to ", 1))
    }

    fn standing(&self) -> (String, Tone) {
        let lease = &self.lease;
        if lease.is_left_alone {
            ("free: its session is gone".to_owned(), Tone::Dim)
        } else if process::is_left(lease) {
            ("free: that process is gone".to_owned(), Tone::Dim)
        } else if lease.expires_at <= self.now {
            ("free: it lapsed".to_owned(), Tone::Dim)
        } else {
            let left = words::duration(lease.expires_at.since_ms(self.now));
            (format!("held, lapses in {left} unless renewed"), Tone::Good)
        }
    }

    fn is_free(&self) -> bool {
        !process::is_held(&self.lease, self.now)
    }

    fn document(&self) -> Value {
        let (lease, holder) = (&self.lease, &self.lease.holder);
        json!({
            "run": lease.run.served(),
            "plan": self.plan,
            "relay": self.relay(),
            "holder": holder.name,
            "host": holder.host,
            "pid": holder.pid,
            "token": lease.token,
            "since": words::rfc3339(lease.since),
            "last_heartbeat": words::rfc3339(lease.renewed_at),
            "expires_at": words::rfc3339(lease.expires_at),
            "free": self.is_free(),
        })
    }
}

async fn of_run(desk: &Desk, run: &OpenRun) -> Result<Vec<Held>, Failure> {
    let found = engine::locks(&desk.store, run.state()).await;
    let found = found.map_err(|error| run.failure(&error))?;
    Ok(found.into_iter().map(|lease| Held::new(run.state(), run.now, lease)).collect())
}

async fn list(session: &Session, typed: Option<&str>) -> Result<Answer, Failure> {
    let mut held = Vec::new();
    if let Some(typed) = typed {
        let run = session.open(typed).await?;
        held = of_run(&run.desk, &run).await?;
    } else {
        let desk = session.desk(session.settings_for_run()?, Create::Never).await?;
        let runs = desk.runs().await?;
        for header in &runs {
            let run = desk.open(header.run.clone(), &runs).await?;
            held.extend(of_run(&desk, &run).await?);
        }
    }
    let human =
        if held.is_empty() { "Nobody holds a lock.\n".to_owned() } else { table(session, &held) };
    let locks = held.iter().map(Held::document).collect();
    Ok(Answer::done(human).with("locks", Value::Array(locks)))
}

fn table(session: &Session, held: &[Held]) -> String {
    let left = Alignment::Left;
    let columns = [
        ("plan", left),
        ("run", left),
        ("what", left),
        ("holder", left),
        ("since", left),
        ("heartbeat", left),
        ("lock", left),
    ];
    let mut table = Table::new(session.printer.result_colour(), &columns);
    for one in held {
        let (lease, ago) = (&one.lease, |at| words::duration(one.now.since_ms(at)));
        let what = one.relay().map_or_else(|| "run".to_owned(), |of| format!("relay {of}"));
        table.row(&[
            (one.plan.clone(), Tone::Strong),
            (lease.run.served().to_string(), Tone::Dim),
            (what, Tone::Plain),
            (words::holder(&lease.holder), Tone::Plain),
            (format!("{} ago", ago(lease.since)), Tone::Dim),
            (format!("{} ago", ago(lease.renewed_at)), Tone::Plain),
            one.standing(),
        ]);
    }
    table.render()
}

async fn release(session: &Session, args: Release) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run.run).await?;
    let mut held = of_run(&run.desk, &run).await?;
    held.retain(|one| args.relays || one.relay().is_none());
    if held.is_empty() {
        return Err(Failure::usage(format!("nobody holds the lock of run {}", run.id))
            .help(format!("`{}` shows all of its locks", run.line.of("lock list {run}"))));
    }
    let Some(reason) = args.reason.filter(|_| args.force) else {
        let mut failure = Failure::usage("a lock is taken away only with --force and --reason");
        failure.causes = held.iter().map(sentence).collect();
        let command = run.line.of("lock release {run} --force --reason 'why'");
        return Err(failure
            .help("a process that is gone loses its lock by itself; end one that hangs first, where you can")
            .help(format!("then `{command}`")));
    };
    let claimant = process::this_process(&run.desk.actor().name);
    let mut taken: Vec<RunId> = Vec::new();
    for one in &held {
        // What is written first stands in the history though we end here; taken once more, it is there twice.
        let (lock, holder) = (one.lease.run.clone(), words::holder(&one.lease.holder));
        let reason = reason.clone();
        run.ask(session, Command::ReleaseLock { lock: lock.clone(), holder, reason }).await?;
        let seized = engine::seize(&run.desk.store, &one.lease, &claimant).await;
        seized.map_err(|error| run.failure(&error))?;
        taken.push(lock);
    }
    let said: Vec<String> = held.iter().map(|one| words::holder(&one.lease.holder)).collect();
    run.reload().await?;
    let sentence = format!("Taken away from {}: nobody drives it now.", said.join(", "));
    Ok(super::recorded(session, &run, &sentence).with("released", json!(taken)))
}

fn sentence(one: &Held) -> String {
    let (standing, _) = one.standing();
    let heartbeat = words::duration(one.now.since_ms(one.lease.renewed_at));
    format!(
        "{}: {standing}; its last heartbeat was {heartbeat} ago",
        words::holder(&one.lease.holder)
    )
}

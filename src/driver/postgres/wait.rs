//! Who is in the way: what one of our sessions waits for, and who holds it.
//!
//! The server tells only while a session waits, and not in the error that ends the wait. So a watcher looks at a session of
//! ours from another one as long as it works, often enough to have looked before the lock timeout strikes.
//!
//! Invariants:
//! - Watching never makes anything fail: where it can't look, an error only says less.
//! - Of other sessions' queries no literal is shown, since those are clients' data or passwords, and never more than
//!   [`BLOCKER_QUERY_CHARS_MAX`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::task::JoinHandle;

use super::live::SessionId;
use crate::bounds::message::{
    BLOCKER_QUERY_CHARS_MAX, BLOCKERS_NAMED_MAX, LOCK_SAID_AFTER_MS, SAID_AGAIN_EVERY_MS,
};
use crate::bounds::postgres::{WAIT_LOOK_EVERY_MS, WAIT_LOOK_WITHIN};
use crate::clock::Stopwatch;
use crate::driver::Error;
use crate::run::{FailureClass, duration};

/// What a session waits for and who has it, oldest transaction first. `pg_blocking_pids` holds up the lock manager for a
/// moment, so it is only asked about a session that waits. A prepared transaction has pid 0.
const LOOK: &str = "\
WITH waiting AS MATERIALIZED (
    SELECT pid FROM pg_stat_activity
    WHERE pid = $1 AND backend_start::text = $2 AND wait_event_type = 'Lock')
SELECT l.mode, coalesce(l.relation::regclass::text, l.locktype) AS object, b.pid,
       a.usename::text AS role, a.state, a.query,
       (extract(epoch FROM clock_timestamp()
           - CASE WHEN a.state = 'active' THEN a.query_start ELSE a.state_change END) * 1000)::bigint AS state_ms,
       (extract(epoch FROM clock_timestamp() - a.xact_start) * 1000)::bigint AS open_ms,
       (SELECT string_agg(gid, ', ') FROM pg_prepared_xacts WHERE b.pid = 0) AS prepared,
       quote_ident(current_user) AS me
FROM waiting w
CROSS JOIN LATERAL (SELECT DISTINCT pid FROM unnest(pg_blocking_pids(w.pid)) AS p (pid)) AS b
LEFT JOIN LATERAL (SELECT * FROM pg_locks WHERE pid = w.pid AND NOT granted LIMIT 1) AS l ON true
LEFT JOIN pg_stat_activity a ON a.pid = b.pid
ORDER BY a.xact_start NULLS LAST LIMIT $3";

/// A wait for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    /// The lock: `AccessExclusiveLock on leads`.
    lock: String,
    /// Those who hold it or wait before us.
    blockers: Vec<Blocker>,
    /// Our own role.
    me: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Blocker {
    pid: i32,
    role: Option<String>,
    /// Not told to a role that is no member of `pg_read_all_stats`.
    state: Option<String>,
    state_ms: Option<i64>,
    open_ms: Option<i64>,
    query: String,
    prepared: Option<String>,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(prepared) = &self.prepared {
            return write!(f, "prepared transaction {prepared}");
        }
        write!(f, "pid {} ({}", self.pid, self.role.as_deref().unwrap_or("unknown role"))?;
        if let Some(state) = &self.state {
            write!(f, ", {state}")?;
            if let Some(ms) = self.state_ms {
                write!(f, " for {}", age(ms))?;
            }
            // What holds a lock is the transaction, which may be older than its last statement.
            if let (Some(open), Some(ms)) = (self.open_ms, self.state_ms)
                && open >= ms + 1_000
            {
                write!(f, ", its transaction open for {}", age(open))?;
            }
        }
        write!(f, "): {}", self.query)
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for {}: ", self.lock)?;
        for (at, blocker) in self.blockers.iter().enumerate() {
            let comma = if at == 0 { "" } else { "; " };
            write!(f, "{comma}{blocker}")?;
        }
        Ok(())
    }
}

impl Blocked {
    /// What to do about it.
    fn help(&self) -> String {
        if self.blockers.iter().any(|blocker| blocker.prepared.is_some()) {
            return "COMMIT PREPARED or ROLLBACK PREPARED ends a prepared transaction; then retry"
                .to_owned();
        }
        let pids: Vec<String> = self.blockers.iter().map(|b| b.pid.to_string()).collect();
        let mut help = format!(
            "let it end, or end it with SELECT pg_terminate_backend({}); then retry",
            pids.first().map_or("pid", String::as_str)
        );
        if self.blockers.iter().any(|blocker| blocker.state.is_none()) {
            let grant = format!("; GRANT pg_read_all_stats TO {} shows what it does", self.me);
            help.push_str(&grant);
        }
        help
    }

    /// The same error with who was in the way, if it is that a lock was not had.
    fn explain(&self, mut error: Error) -> Error {
        if let Error::Failed(failure) = &mut error
            && failure.class == FailureClass::Contention
            && failure.code.as_deref() == Some("55P03")
        {
            failure.detail = Some(self.to_string());
            failure.help = Some(self.help());
        }
        error
    }
}

/// How long ago, as people say it.
pub(super) fn age(ms: i64) -> String {
    let ms = u64::try_from(ms).unwrap_or(0);
    // Thousandths of a second say nothing about who holds a lock for seconds.
    duration(if ms < 1_000 { ms } else { ms - ms % 1_000 })
}

/// A query in one line, without its literals, cut.
pub(super) fn shown(query: &str) -> String {
    let mut bare = String::new();
    let mut chars = query.chars();
    let mut in_name = false;
    while let Some(char) = chars.next() {
        in_name ^= char == '"';
        match char {
            _ if in_name => bare.push(char),
            // A doubled quote inside ends one literal and begins the next, which comes to the same.
            '\'' => {
                bare.push_str("'…'");
                let _ = chars.by_ref().find(|c| *c == '\'');
            }
            '$' if chars.as_str().starts_with('$') => {
                bare.push_str("$$…$$");
                let rest = chars.as_str().get(1..).unwrap_or_default();
                chars = rest.split_once("$$").map_or("", |(_, behind)| behind).chars();
            }
            digit if digit.is_ascii_digit() && !ends_in_a_word(&bare) => {
                bare.push('…');
                let is_of_number = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
                chars = chars.as_str().trim_start_matches(is_of_number).chars();
            }
            other => bare.push(other),
        }
    }
    let bare = bare.replace("'…''…'", "'…'").split_whitespace().collect::<Vec<_>>().join(" ");
    match bare.char_indices().nth(BLOCKER_QUERY_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &bare[..at]),
        None => bare,
    }
}

/// Whether a digit that follows belongs to a name or a parameter, and is no number by itself.
fn ends_in_a_word(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '"'))
}

/// Looks at sessions of ours through a session of its own, which is opened when it is first needed.
pub(super) struct Looker {
    options: PgConnectOptions,
    connection: tokio::sync::Mutex<Option<PgConnection>>,
}

impl Looker {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: tokio::sync::Mutex::new(None) }
    }

    /// What a session waits for, if it waits for a lock now.
    async fn look(&self, session: &SessionId) -> Result<Option<Blocked>, sqlx::Error> {
        let look = async |open: &mut PgConnection| {
            sqlx::query(LOOK)
                .bind(session.pid)
                .bind(&session.began)
                .bind(BLOCKERS_NAMED_MAX)
                .fetch_all(open)
                .await
        };
        blocked(&self.ask(look).await?)
    }

    /// Comes back where the server answers.
    pub(super) async fn answers(&self) -> Result<(), sqlx::Error> {
        self.ask(async |open: &mut PgConnection| open.ping().await).await
    }

    async fn ask<T>(
        &self,
        ask: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let mut connection = self.connection.lock().await;
        // Taken out while it is used: a look that is given up leaves no connection in the middle of an answer behind.
        let mut open = match connection.take() {
            Some(open) => open,
            None => self.options.connect().await?,
        };
        let answer = ask(&mut open).await?;
        *connection = Some(open);
        Ok(answer)
    }

    /// Closes the session.
    pub(super) async fn close(&self) {
        drop(self.connection.lock().await.take());
    }
}

fn blocked(rows: &[PgRow]) -> Result<Option<Blocked>, sqlx::Error> {
    let Some(first) = rows.first() else { return Ok(None) };
    let mode: Option<String> = first.try_get("mode")?;
    let object: Option<String> = first.try_get("object")?;
    let lock = match (mode, object) {
        (Some(mode), Some(object)) => format!("{mode} on {object}"),
        _ => "a lock".to_owned(),
    };
    let blocker = |row: &PgRow| {
        let query: Option<String> = row.try_get("query")?;
        Ok(Blocker {
            pid: row.try_get("pid")?,
            role: row.try_get("role")?,
            state: row.try_get("state")?,
            state_ms: row.try_get("state_ms")?,
            open_ms: row.try_get("open_ms")?,
            query: shown(&query.unwrap_or_default()),
            prepared: row.try_get("prepared")?,
        })
    };
    let blockers = rows.iter().map(blocker).collect::<Result<_, sqlx::Error>>()?;
    Ok(Some(Blocked { lock, blockers, me: first.try_get("me")? }))
}

/// Watches one session until it is dropped.
pub(super) struct Watcher {
    task: JoinHandle<()>,
    seen: Arc<Mutex<Option<Blocked>>>,
}

impl Watcher {
    /// Begins to watch a session whose statements wait for locks so long (milliseconds; 0: for ever).
    pub(super) fn start(looker: &Arc<Looker>, session: &SessionId, lock_ms: u64) -> Self {
        let (shortest, longest) = WAIT_LOOK_EVERY_MS;
        // Two looks fall into every wait that is long enough to fail.
        let every_ms =
            if lock_ms == 0 { longest } else { (lock_ms * 2 / 5).clamp(shortest, longest) };
        let seen = Arc::new(Mutex::new(None));
        let watched = watch(Arc::clone(looker), session.clone(), every_ms, Arc::clone(&seen));
        Self { task: tokio::spawn(watched), seen }
    }

    /// Whether the session was seen to wait for a lock.
    pub(super) fn has_seen(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// An error with who was in the way, if it is that a lock was not had.
    pub(super) fn explain(&self, error: Error) -> Error {
        match &*self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(blocked) => blocked.explain(error),
            None => error,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(
    looker: Arc<Looker>,
    session: SessionId,
    every_ms: u64,
    seen: Arc<Mutex<Option<Blocked>>>,
) {
    let mut waiting: Option<Stopwatch> = None;
    let mut said: Option<Stopwatch> = None;
    loop {
        tokio::time::sleep(Duration::from_millis(every_ms)).await;
        let answer = tokio::time::timeout(WAIT_LOOK_WITHIN, looker.look(&session)).await;
        let blocked = match answer {
            Ok(Ok(Some(blocked))) => blocked,
            Ok(Ok(None)) => {
                waiting = None;
                continue;
            }
            Err(_) => continue,
            Ok(Err(error)) => {
                tracing::debug!(pid = session.pid, %error, "looking for who is in the way");
                continue;
            }
        };
        let waited_ms = waiting.get_or_insert_with(Stopwatch::start).elapsed_ms();
        let is_news = said.is_none_or(|since| since.elapsed_ms() >= SAID_AGAIN_EVERY_MS);
        if waited_ms >= LOCK_SAID_AFTER_MS && is_news {
            tracing::warn!("{blocked}");
            said = Some(Stopwatch::start());
        }
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(blocked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_shown_in_one_line_without_anybody_s_data() {
        for (query, expected) in [
            ("UPDATE leads_2\n  SET n = 1", "UPDATE leads_2 SET n = …"),
            (
                "SELECT 1.5e3, $1, \"2 b\", t4.c5 WHERE id=-77",
                "SELECT …, $1, \"2 b\", t4.c5 WHERE id=-…",
            ),
            ("ALTER ROLE app PASSWORD 'hunter2'", "ALTER ROLE app PASSWORD '…'"),
            ("SELECT 'it''s me', \"A\"", "SELECT '…', \"A\""),
            ("SELECT 'cut in the mid", "SELECT '…'"),
            ("DO $$ BEGIN x; END $$ LANGUAGE sql", "DO $$…$$ LANGUAGE sql"),
            ("DO $$ cut", "DO $$…$$"),
            ("<insufficient privilege>", "<insufficient privilege>"),
        ] {
            assert_eq!(shown(query), expected);
        }
        let long = shown(&"é".repeat(500));
        assert_eq!(long.chars().count(), BLOCKER_QUERY_CHARS_MAX + 1);
    }

    #[test]
    fn a_wait_names_who_is_in_the_way_and_for_how_long() {
        let blocker = Blocker {
            pid: 4711,
            role: Some("app".into()),
            state: Some("idle in transaction".into()),
            state_ms: Some(35_120),
            open_ms: Some(95_000),
            query: "UPDATE leads SET n = 1".into(),
            prepared: None,
        };
        let hidden =
            Blocker { state: None, query: "<insufficient privilege>".into(), ..blocker.clone() };
        let lock = "AccessExclusiveLock on leads".to_owned();
        let waiting =
            Blocked { lock: lock.clone(), blockers: vec![blocker.clone()], me: "owner".into() };
        assert_eq!(
            waiting.to_string(),
            "waiting for AccessExclusiveLock on leads: pid 4711 (app, idle in transaction for 35s, \
             its transaction open for 1m 35s): UPDATE leads SET n = 1"
        );
        assert!(!waiting.help().contains("GRANT"));
        let hidden = Blocked { lock: lock.clone(), blockers: vec![hidden], me: "owner".into() };
        assert!(hidden.to_string().ends_with("pid 4711 (app): <insufficient privilege>"));
        assert!(hidden.help().contains("GRANT pg_read_all_stats TO owner"), "{}", hidden.help());
        let prepared = Blocker { pid: 0, prepared: Some("tx-1".into()), ..blocker };
        let prepared = Blocked { lock, blockers: vec![prepared], me: "owner".into() };
        assert!(prepared.to_string().ends_with("prepared transaction tx-1"));
    }
}
